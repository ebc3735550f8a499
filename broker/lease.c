/* LEASE messages: what a task needs is put together only now, after the commit. */
#include <string.h>

#include "broker/broker.h"
#include "broker/known.h"
#include "proto/crop.h"
#include "proto/page.h"

/* The texts of a page; a region that failed for good is told as such. */
static int page_texts(struct pm_broker *b, uint64_t task, struct pm_buf *out, struct pm_error *err)
{
    struct pm_region_row *rows;
    size_t count;
    int rc =
        pm_journal_regions(b->journal, pm_task_job(task), pm_task_page(task), &b->arena, &rows, &count, err);
    if (rc)
        return rc;
    struct pm_page_texts texts = {.text_count = (uint32_t)count};
    texts.texts = pm_arena_alloc(&b->arena, count * sizeof *texts.texts);
    for (size_t i = 0; i < count; i++) {
        texts.texts[i] = rows[i].text;
        if (!*rows[i].error_code)
            continue;
        struct pm_region_text failed = {.crop = rows[i].region,
                                        .text = "",
                                        .finish = "error",
                                        .reader = "",
                                        .error_code = rows[i].error_code,
                                        .error_text = rows[i].error_text};
        pm_buf_clear(&b->scratch);
        pm_record_encode(&pm_region_text_schema, &failed, &b->scratch);
        texts.texts[i].data =
            (const uint8_t *)pm_arena_text(&b->arena, (const char *)b->scratch.data, b->scratch.size);
        texts.texts[i].size = b->scratch.size;
    }
    pm_page_texts_encode(&texts, out);
    return 0;
}

static int document_pages(struct pm_broker *b, uint64_t job, struct pm_buf *out, struct pm_error *err)
{
    struct pm_job_image image;
    int rc = pm_journal_job(b->journal, job, &b->arena, &image, err);
    if (rc)
        return rc;
    struct pm_doc_pages pages = {.page_count = image.page_count};
    pages.pages = pm_arena_alloc(&b->arena, image.page_count * sizeof *pages.pages);
    for (uint32_t i = 0; i < image.page_count; i++)
        pages.pages[i] = (struct pm_doc_page){.page = image.pages[i].page,
                                              .blob = image.pages[i].blob,
                                              .error_code = image.pages[i].error_code,
                                              .error_text = image.pages[i].error_text};
    return pm_record_try_encode(&pm_doc_pages_schema, &pages, out, err);
}

/* A worker on another host cannot map the sheet: its crop goes along. One that speaks protocol 1 knows
 * nothing of that; it can only have the sheet through a shared file system. */
static int bring_crop(struct pm_broker *b, const struct pm_conn *c, struct pm_msg_lease *m,
                      struct pm_buf *payload, struct pm_error *err)
{
    struct pm_sheet sheet;
    struct pm_sheet_crop crop;
    if (m->kind != PM_KIND_REGION || c->proto < 2 || !strcmp(c->host, b->host))
        return 0;
    int rc = pm_sheet_open(b->blobs, m->sheet, &sheet, err);
    if (rc)
        return rc;
    rc = pm_sheet_crop(&sheet, m->region, &crop, err);
    if (!rc)
        rc = pm_crop_pack(&crop, m, payload, err);
    pm_sheet_close(&sheet);
    if (!rc) {
        pm_count(b, PM_COUNT_crops_sent);
        b->counters[PM_COUNT_crop_bytes_sent] += payload->size;
    } else if (rc == PM_ELIMIT) {
        pm_count(b, PM_COUNT_crops_too_large);
    }
    return rc;
}

static int fill_payload(struct pm_broker *b, const struct pm_action *a, struct pm_buf *out,
                        struct pm_error *err)
{
    enum pm_task_kind kind = pm_task_kind(a->task);
    int rc = 0;
    if (kind == PM_KIND_ASSEMBLE_PAGE)
        rc = page_texts(b, a->task, out, err);
    else if (kind == PM_KIND_ASSEMBLE_DOC)
        rc = document_pages(b, a->job, out, err);
    if (!rc && out->size > PM_FRAME_PAYLOAD_BYTES)
        rc = pm_fail(err, PM_ELIMIT, "its parts have %zu bytes together; a message takes %u", out->size,
                     PM_FRAME_PAYLOAD_BYTES);
    return rc;
}

void pm_lease_send(struct pm_broker *b, const struct pm_action *a)
{
    struct pm_lease_facts facts;
    struct pm_conn *c = pm_conn_of_peer(b, a->peer);
    if (!pm_sched_lease_facts(b->sched, a->task, &facts) || facts.attempt != a->attempt)
        return;
    if (!c || c->is_unreachable) {
        pm_count(b, PM_COUNT_leases_unsent);
        pm_sched_lease_unsent(b->sched, b->now, a->task);
        return;
    }
    enum pm_task_kind kind = pm_task_kind(a->task);
    bool is_layout = kind == PM_KIND_OPEN || kind == PM_KIND_PAGE;
    bool is_crops = kind == PM_KIND_REGION || kind == PM_KIND_ASSEMBLE_PAGE;
    struct pm_msg_lease m = {.task = a->task,
                             .epoch = facts.epoch,
                             .job = a->job,
                             .attempt = facts.attempt,
                             .kind = kind,
                             .page = pm_task_page(a->task),
                             .region = kind == PM_KIND_REGION ? pm_task_slot(a->task) : 0,
                             .deadline_us = facts.deadline_us,
                             .source = is_layout ? facts.submit->source : "",
                             .input = kind == PM_KIND_ASSEMBLE_PAGE ? facts.record : "",
                             .sheet = is_crops ? facts.sheet : "",
                             .options = facts.submit->options,
                             .model =
                                 kind == PM_KIND_PAGE ? pm_known_model(b, facts.submit->options.reader) : ""};
    struct pm_buf payload = {0};
    struct pm_error err;
    int rc = fill_payload(b, a, &payload, &err);
    if (!rc)
        rc = bring_crop(b, c, &m, &payload, &err);
    if (!rc)
        rc = pm_conn_send_now(b, c, PM_MSG_LEASE, &m, (struct pm_bytes){payload.data, payload.size}, &err);
    pm_buf_free(&payload);
    if (!rc)
        return;
    if (rc == PM_EAGAIN || rc == PM_EGONE) {
        pm_count(b, PM_COUNT_leases_unsent);
        pm_sched_lease_unsent(b->sched, b->now, a->task);
        pm_sched_mute(b->sched, a->peer); /* until it is heard of */
        return;
    }
    if (rc == PM_ENOTFOUND && kind == PM_KIND_REGION) { /* its crops are gone: the page is laid out again */
        pm_sched_lease_unsent(b->sched, b->now, a->task);
        pm_sched_page_lost(b->sched, b->now, a->job, m.page);
        return;
    }
    pm_log(PM_LOG_ERROR, "cannot lease %s job=%llu page=%u: %s", pm_kind_name(kind),
           (unsigned long long)a->job, m.page, err.text);
    pm_sched_lease_impossible(b->sched, b->now, a->task, rc, err.text);
}
