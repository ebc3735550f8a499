#include "collector/collector.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "collector/assemble.h"
#include "proto/task_log.h"

#define IDLE_WAIT_US 1000000

struct job { /* a lease that is held */
    const struct pm_msg_lease *lease;
    struct pm_bytes payload;
    int64_t deadline_us; /* monotonic; 0: none */
    int64_t taken_us;
};

struct pm_collector {
    struct pm_peer *peer;
    struct job *waiting; /* first in, first out */
    size_t waiting_count, waiting_capacity;
    struct job current;           /* lease NULL: none */
    bool is_revoked;              /* current is no longer wanted */
    bool is_stopping, is_leaving; /* leaving: finishes what it holds */
    struct pm_arena arena;
};

struct pm_collector *pm_collector_new(struct pm_peer *peer)
{
    struct pm_collector *c = pm_xalloc(sizeof *c);
    c->peer = peer;
    return c;
}

void pm_collector_free(struct pm_collector **collector)
{
    struct pm_collector *c = *collector;
    if (!c)
        return;
    pm_arena_free(&c->arena);
    free(c->waiting);
    free(c);
    *collector = NULL;
}

bool pm_collector_is_final(int code)
{
    return code == PM_EFORMAT || code == PM_EPROTO || code == PM_EINVAL || code == PM_ELIMIT ||
           code == PM_EUNSUPPORTED;
}

/* ---- one task ------------------------------------------------------------------------------------------ */

/* Into the arena, where the result points. */
static void give_phases(const struct pm_phases *from, struct pm_arena *arena, struct pm_msg_result *result)
{
    result->phases = pm_arena_alloc(arena, (from->count + 1) * sizeof *result->phases);
    memcpy(result->phases, from->list, from->count * sizeof *result->phases);
    result->phase_count = from->count;
}

static int do_page(struct pm_blobs *blobs, const struct pm_msg_lease *lease, struct pm_bytes payload,
                   struct pm_arena *arena, struct pm_msg_result *result, struct pm_error *err)
{
    struct pm_assembled *a = pm_arena_alloc(arena, sizeof *a);
    int rc = pm_assemble_page(blobs, lease->input, lease->sheet, payload.data, payload.size, &lease->options,
                              arena, a, err);
    if (rc)
        return rc;
    result->blob = a->blob;
    result->failed_regions = a->failed_regions;
    result->blobs = a->blobs;
    result->blob_count = a->blob_count;
    give_phases(&a->phases, arena, result);
    return 0;
}

static int do_document(struct pm_blobs *blobs, const struct pm_msg_lease *lease, struct pm_bytes payload,
                       pm_assemble_tick tick, void *ctx, struct pm_arena *arena, struct pm_msg_result *result,
                       struct pm_error *err)
{
    struct pm_doc_pages pages = {0};
    struct pm_assembled a;
    int rc = pm_record_decode(&pm_doc_pages_schema, payload.data, payload.size, arena, &pages, err);
    if (!rc)
        rc = pm_assemble_document(blobs, &pages, &lease->options, tick, ctx, arena, &a, err);
    if (rc)
        return rc;
    struct pm_buf record = {0};
    pm_record_encode(&pm_manifest_schema, &a.manifest, &record);
    if (record.size > PM_LIMIT_INNER_RECORD) {
        rc =
            pm_fail(err, PM_ELIMIT, "the list of files is %zu bytes, the limit is %d; read fewer pages a job",
                    record.size, PM_LIMIT_INNER_RECORD);
    } else {
        result->manifest.data = (const uint8_t *)pm_arena_text(arena, (const char *)record.data, record.size);
        result->manifest.size = record.size;
        result->blobs = a.blobs;
        result->blob_count = a.blob_count;
        give_phases(&a.phases, arena, result);
    }
    pm_buf_free(&record);
    return rc;
}

int pm_collector_do(struct pm_blobs *blobs, const struct pm_msg_lease *lease, struct pm_bytes payload,
                    int (*tick)(void *ctx, uint32_t permille, struct pm_error *err), void *ctx,
                    struct pm_arena *arena, struct pm_msg_result *result, struct pm_error *err)
{
    *result = (struct pm_msg_result){.error_code = "", .error_text = ""};
    switch (lease->kind) {
    case PM_KIND_ASSEMBLE_PAGE:
        return do_page(blobs, lease, payload, arena, result, err);
    case PM_KIND_ASSEMBLE_DOC:
        return do_document(blobs, lease, payload, tick, ctx, arena, result, err);
    default:
        return pm_fail(err, PM_EPROTO, "a collector cannot do a task of kind %s", pm_kind_name(lease->kind));
    }
}

/* ---- the loop --------------------------------------------------------------------------------------------
 */

static void revoke(struct pm_collector *c, uint64_t task)
{
    if (c->current.lease && c->current.lease->task == task) {
        c->is_revoked = true; /* released when the task has stopped */
        return;
    }
    for (size_t i = 0; i < c->waiting_count; i++) {
        if (c->waiting[i].lease->task != task)
            continue;
        for (size_t k = i + 1; k < c->waiting_count; k++)
            c->waiting[k - 1] = c->waiting[k];
        c->waiting_count--;
        break;
    }
    pm_peer_release(c->peer, task);
}

static int take_event(void *ctx, const struct pm_peer_event *e, struct pm_error *err)
{
    struct pm_collector *c = ctx;
    int64_t now_us = pm_clock_us();
    (void)err;
    switch (e->kind) {
    case PM_PEER_LEASE:
        PM_GROW(c->waiting, c->waiting_count, c->waiting_capacity);
        c->waiting[c->waiting_count++] =
            (struct job){e->lease, e->payload, pm_peer_deadline_us(e->lease, now_us), now_us};
        return 0;
    case PM_PEER_REVOKE:
        revoke(c, e->task);
        return 0;
    case PM_PEER_STOP:
        c->is_leaving = true;
        return 0;
    case PM_PEER_READY:
        pm_log(PM_LOG_DEBUG, "ready");
        return 0;
    case PM_PEER_LOST:
        pm_log(PM_LOG_WARNING, "the broker is gone; waiting for it");
        return 0;
    default:
        return 0;
    }
}

/* Told to leave: what is in hand is finished as long as somebody wants it. */
static bool is_over(const struct pm_collector *c)
{
    return c->is_leaving && !pm_peer_can_finish(c->peer);
}

/* Between two pages: the broker hears that we live, and we hear what it wants. */
static int tick(void *ctx, uint32_t permille, struct pm_error *err)
{
    struct pm_collector *c = ctx;
    pm_peer_progress(c->peer, c->current.lease->task, permille);
    for (size_t i = 0; i < c->waiting_count; i++)
        pm_peer_progress(c->peer, c->waiting[i].lease->task, 0);
    int rc = pm_peer_each(c->peer, 0, take_event, c, err);
    if (rc < 0)
        return rc;
    if (is_over(c))
        c->is_stopping = true;
    if (c->is_revoked || c->is_stopping)
        return pm_fail(err, PM_ECANCELLED, c->is_revoked ? "no longer wanted" : "the collector was stopped");
    if (c->current.deadline_us && pm_clock_us() > c->current.deadline_us)
        return pm_fail(err, PM_ETIMEOUT, "putting the document together took longer than %.1f s",
                       (double)c->current.lease->deadline_us / 1e6);
    return 0;
}

static void run_task(struct pm_collector *c)
{
    const struct pm_msg_lease *lease = c->current.lease;
    struct pm_msg_result result;
    struct pm_error err = {0};
    int64_t started_us = pm_clock_us();
    uint64_t task = lease->task;
    struct pm_task_id id = pm_task_id_of(lease);
    c->is_revoked = false;
    pm_task_log_begin(&id);
    int rc =
        pm_collector_do(pm_peer_blobs(c->peer), lease, c->current.payload, tick, c, &c->arena, &result, &err);
    int64_t run_us = pm_clock_us() - started_us;
    if (c->is_revoked) {
        pm_task_log_end(&id, "revoked", run_us, NULL);
        pm_peer_release(c->peer, task);
    } else if (rc == PM_ECANCELLED && c->is_stopping) {
        pm_log(PM_LOG_INFO, "stopped with a document unfinished job=%llu", (unsigned long long)lease->job);
    } else if (rc) {
        pm_task_log_end(&id, "failed", run_us, &err);
        pm_peer_fail(c->peer, task, &err, pm_collector_is_final(rc));
    } else {
        result.run_us = (uint64_t)run_us;
        pm_task_log_end(&id, "done", run_us, NULL);
        result.wait_us = (uint64_t)(started_us - c->current.taken_us);
        pm_peer_result(c->peer, task, &result);
    }
    c->current.lease = NULL;
    pm_arena_clear(&c->arena);
}

int pm_collector_run(struct pm_collector *c, struct pm_error *err)
{
    while (!c->is_stopping && !is_over(c)) {
        int rc = pm_peer_each(c->peer, c->waiting_count ? 0 : IDLE_WAIT_US, take_event, c, err);
        if (rc < 0)
            return rc;
        if (c->is_stopping || !c->waiting_count)
            continue;
        c->current = c->waiting[0];
        for (size_t k = 1; k < c->waiting_count; k++)
            c->waiting[k - 1] = c->waiting[k];
        c->waiting_count--;
        run_task(c);
    }
    return 0;
}
