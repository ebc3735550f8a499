/* RESULT: the end of a lease. What it refers to must be in the store, and what the broker keeps must be
 * readable, before it counts. The acknowledgement leaves after the commit. */
#include <string.h>

#include "broker/broker.h"
#include "broker/known.h"
#include "proto/page.h"

static bool has_blob(struct pm_broker *b, const char *key, bool may_be_empty)
{
    if (!*key)
        return may_be_empty;
    return pm_blob_is_key(key) && pm_blob_exists(b->blobs, key, NULL);
}

static uint64_t size_of(struct pm_broker *b, const char *key)
{
    uint64_t bytes = 0;
    if (*key && pm_blob_is_key(key))
        (void)pm_blob_exists(b->blobs, key, &bytes);
    return bytes;
}

/* What blobs take is what the files take, whatever their maker says. */
static void measure(struct pm_broker *b, struct pm_msg_result *r, enum pm_task_kind kind)
{
    r->sheet_bytes = kind == PM_KIND_PAGE ? size_of(b, r->sheet) : 0;
    if (kind != PM_KIND_ASSEMBLE_PAGE)
        return;
    r->blob_bytes = size_of(b, r->blob);
    for (uint32_t i = 0; i < r->blob_count; i++)
        r->blob_bytes += size_of(b, r->blobs[i]);
}

static const char *missing_blob(struct pm_broker *b, const struct pm_msg_result *r, enum pm_task_kind kind,
                                const struct pm_manifest *manifest)
{
    if (kind == PM_KIND_PAGE) {
        if (!has_blob(b, r->record, false))
            return r->record;
        if (!has_blob(b, r->sheet, true))
            return r->sheet;
    }
    if (kind == PM_KIND_ASSEMBLE_PAGE && !has_blob(b, r->blob, false))
        return r->blob;
    for (uint32_t i = 0; i < r->blob_count; i++)
        if (!has_blob(b, r->blobs[i], false))
            return r->blobs[i];
    for (uint32_t i = 0; i < manifest->file_count; i++)
        if (!has_blob(b, manifest->files[i].blob, false))
            return manifest->files[i].blob;
    return NULL;
}

/* A manifest names files that clients will write: nothing may lead out of their folder. */
static bool is_safe_name(const char *name)
{
    if (!*name || *name == '/' || strchr(name, '\\'))
        return false;
    for (const char *p = name; p; p = strchr(p, '/') ? strchr(p, '/') + 1 : NULL) {
        size_t size = strcspn(p, "/");
        if (!size || (size == 1 && p[0] == '.') || (size == 2 && p[0] == '.' && p[1] == '.'))
            return false;
    }
    return true;
}

static bool is_fingerprint(const char *text)
{
    return strlen(text) == PM_FINGERPRINT_CHARS && strspn(text, "0123456789abcdef") == PM_FINGERPRINT_CHARS;
}

static int check(struct pm_broker *b, struct pm_msg_result *r, struct pm_error *err)
{
    enum pm_task_kind kind = pm_task_kind(r->task);
    struct pm_manifest manifest = {0};
    if (kind == PM_KIND_PAGE && *r->fingerprint && !is_fingerprint(r->fingerprint))
        return pm_fail(err, PM_EPROTO, "\"%.80s\" is not the fingerprint of a page", r->fingerprint);
    if (kind == PM_KIND_PAGE && r->is_known)
        return pm_known_fill(b, r, err);
    if (kind == PM_KIND_REGION) {
        struct pm_region_text text;
        int rc = pm_record_decode(&pm_region_text_schema, r->text.data, r->text.size, &b->arena, &text, err);
        if (rc)
            return rc;
        if (text.crop != pm_task_slot(r->task))
            return pm_fail(err, PM_EPROTO, "the text is that of crop %u, the task was %u", text.crop,
                           pm_task_slot(r->task));
    }
    if (kind == PM_KIND_ASSEMBLE_DOC) {
        int rc = pm_record_decode(&pm_manifest_schema, r->manifest.data, r->manifest.size, &b->arena,
                                  &manifest, err);
        for (uint32_t i = 0; i < manifest.file_count && !rc; i++)
            if (!is_safe_name(manifest.files[i].name))
                rc = pm_fail(err, PM_EPROTO, "the result names the file \"%.80s\"", manifest.files[i].name);
        if (rc)
            return rc;
    }
    const char *missing = missing_blob(b, r, kind, &manifest);
    if (!missing)
        return 0;
    pm_count(b, PM_COUNT_results_without_blobs);
    return pm_fail(err, PM_EIO, "the result refers to blob \"%s\", which is not in the store", missing);
}

/* A document whose parts are gone: find which pages have to be made again. */
static void find_lost_pages(struct pm_broker *b, uint64_t job)
{
    struct pm_job_image image;
    struct pm_error err;
    if (pm_journal_job(b->journal, job, &b->arena, &image, &err)) {
        pm_log(PM_LOG_ERROR, "cannot look for lost pages: %s", err.text);
        return;
    }
    for (uint32_t i = 0; i < image.page_count; i++)
        if (image.pages[i].stage == PM_STAGE_DONE && !pm_blob_exists(b->blobs, image.pages[i].blob, NULL))
            pm_sched_page_lost(b->sched, b->now, job, image.pages[i].page);
}

/* Times and tokens of a result that is good: what its peer says of them is corrected to what can be. */
static void note(struct pm_broker *b, struct pm_conn *c, struct pm_msg_result *r)
{
    struct pm_lease_facts facts;
    if (!pm_sched_lease_facts(b->sched, r->task, &facts))
        return;
    int64_t run_us = b->now.us - facts.sent_us;
    pm_metrics_result(b->metrics, pm_task_kind(r->task), facts.submit->options.reader, facts.wait_us, run_us,
                      r);
    pm_times_result(b->times, facts.wait_us, run_us, r);
    c->tokens += r->tokens;
}

/* What a process really did: readers that work on several regions at once divide their time in the phases. */
static uint64_t work_us(const struct pm_msg_result *r)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < r->phase_count; i++)
        sum += r->phases[i].us;
    return r->phase_count ? sum : r->run_us;
}

/* The manifest keeps when what happened; the files do not, their bytes are the same for the same input. */
static void stamp(struct pm_broker *b, struct pm_msg_result *r)
{
    struct pm_manifest manifest;
    struct pm_job_info info;
    if (pm_record_decode(&pm_manifest_schema, r->manifest.data, r->manifest.size, &b->arena, &manifest,
                         NULL) ||
        !pm_sched_info(b->sched, pm_task_job(r->task), &info))
        return;
    pm_times_manifest(b->times, b->now.wall_us, &info, &b->arena, &manifest);
    pm_buf_clear(&b->scratch);
    pm_record_encode(&pm_manifest_schema, &manifest, &b->scratch);
    if (b->scratch.size > PM_LIMIT_INNER_RECORD) {
        pm_count(b, PM_COUNT_page_times_left_out);
        manifest.page_time_count = 0;
        pm_buf_clear(&b->scratch);
        pm_record_encode(&pm_manifest_schema, &manifest, &b->scratch);
    }
    if (b->scratch.size > PM_LIMIT_INNER_RECORD)
        return;
    r->manifest.data =
        (const uint8_t *)pm_arena_text(&b->arena, (const char *)b->scratch.data, b->scratch.size);
    r->manifest.size = b->scratch.size;
}

int pm_verb_result(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    struct pm_msg_result r = *(const struct pm_msg_result *)m->record;
    struct pm_error why;
    char code[PM_LOG_VALUE];
    bool is_current = pm_sched_is_current(b->sched, c->peer, r.task, r.attempt);
    if (is_current && !*r.error_code && check(b, &r, &why)) {
        pm_log(PM_LOG_WARNING, "result of %s refused name=%s: %s", pm_kind_name(pm_task_kind(r.task)),
               c->name, why.text);
        pm_count(b, PM_COUNT_results_impossible);
        r.error_code = pm_err_name(why.code);
        r.error_text = why.text;
        r.is_final_error = false;
    }
    bool is_failure = *r.error_code != 0;
    if (is_current && !is_failure) {
        measure(b, &r, pm_task_kind(r.task));
        note(b, c, &r);
    }
    if (is_current && !is_failure && pm_task_kind(r.task) == PM_KIND_ASSEMBLE_DOC)
        stamp(b, &r);
    if (is_failure && pm_err_from_name(r.error_code) == PM_ENOSPC)
        pm_space_check(b); /* whose fault it is */
    if (is_failure && is_current)
        pm_log(PM_LOG_INFO, "%s failed job=%llu page=%u name=%s code=%s: %s",
               pm_kind_name(pm_task_kind(r.task)), (unsigned long long)pm_task_job(r.task),
               pm_task_page(r.task), c->name, pm_log_value(r.error_code, code), r.error_text);
    int rc = pm_sched_result(b->sched, b->now, c->peer, &r, err);
    if (rc == PM_EGONE) {
        pm_count(b, PM_COUNT_results_fenced);
        pm_refs_orphan(b, r.sheet);
    } else {
        c->done += !is_failure;
        c->failed += is_failure;
        c->busy_us += is_failure ? 0 : work_us(&r);
        if (is_failure && pm_task_kind(r.task) == PM_KIND_ASSEMBLE_DOC &&
            pm_err_from_name(r.error_code) == PM_ENOTFOUND)
            find_lost_pages(b, pm_task_job(r.task));
    }
    struct pm_msg_result_ack ack = {.task = r.task, .attempt = r.attempt, .accepted = rc != PM_EGONE};
    pm_conn_send(b, c, PM_MSG_RESULT_ACK, &ack);
    return 0;
}
