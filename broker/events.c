/* Events to watchers: bounded, coalesced, numbered without gaps.
 *
 * States, pages, retries and partial texts queue in order. Progress is not queued: a job that moved gets one
 * snapshot per connection every PROGRESS_US. A watcher that does not read loses partial texts first; when
 * its queue is full all of it is replaced by one LOST event and a snapshot of every job concerned. */
#include <stdlib.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/gate.h"

#define PROGRESS_US   100000
#define PARTIAL_MOST  256
#define EVENT_MOST    4096
#define PROGRESS_MOST 16384 /* jobs whose snapshot is due */

static void drop_first(struct pm_conn *c)
{
    struct pm_pending_event *e = c->event_first;
    c->event_first = e->next;
    if (!c->event_first)
        c->event_last = NULL;
    c->event_count--;
    free(e->blob);
    free(e->text);
    free(e);
}

void pm_events_free(struct pm_conn *c)
{
    while (c->event_first)
        drop_first(c);
    for (size_t i = 0; i < c->watch_count; i++)
        free(c->watches[i].batch);
    free(c->watches);
    pm_map_free(&c->progress);
}

/* Who watches everything and does not read has a bound, too: it is told that it has missed something. */
static void note_progress(struct pm_broker *b, struct pm_conn *c, uint64_t job)
{
    if (c->progress.count < PROGRESS_MOST || pm_map_get(&c->progress, job)) {
        pm_map_put(&c->progress, job, c);
        return;
    }
    pm_count(b, PM_COUNT_events_lost);
    c->has_lost = true;
}

void pm_events_push(struct pm_broker *b, struct pm_conn *c, enum pm_event_kind kind, uint64_t job,
                    uint32_t page, uint32_t region, const char *blob, const char *text)
{
    pm_conn_waits(b, c);
    if (kind == PM_EVENT_PROGRESS) {
        note_progress(b, c, job);
        return;
    }
    if (kind == PM_EVENT_PARTIAL && c->event_count >= PARTIAL_MOST) {
        pm_count(b, PM_COUNT_events_coalesced);
        return;
    }
    if (c->event_count >= EVENT_MOST) {
        while (c->event_first) {
            pm_count(b, PM_COUNT_events_lost);
            note_progress(b, c, c->event_first->job);
            drop_first(c);
        }
        c->has_lost = true;
    }
    struct pm_pending_event *e = pm_xalloc(sizeof *e);
    e->kind = kind;
    e->job = job;
    e->page = page;
    e->region = region;
    e->blob = pm_xstrdup(blob);
    e->text = pm_xstrdup(text);
    if (c->event_last)
        c->event_last->next = e;
    else
        c->event_first = e;
    c->event_last = e;
    c->event_count++;
}

static const struct pm_watch *watch_for(struct pm_broker *b, const struct pm_conn *c, uint64_t job)
{
    const struct pm_watch *found = NULL;
    for (size_t i = 0; i < c->watch_count; i++) {
        const struct pm_watch *w = &c->watches[i];
        bool matches = w->job ? w->job == job : !*w->batch || pm_sched_in_batch(b->sched, job, w->batch);
        if (matches && (!found || w->partial))
            found = w;
    }
    return found;
}

static void log_end(struct pm_broker *b, uint64_t job)
{
    struct pm_job_info info;
    if (!pm_sched_info(b->sched, job, &info))
        return;
    char code[PM_LOG_VALUE];
    pm_log(info.state == PM_JOB_FAILED ? PM_LOG_WARNING : PM_LOG_INFO,
           "job %s job=%llu pages=%u failed=%u retries=%u ms=%lld%s%s%s%s", pm_job_state_name(info.state),
           (unsigned long long)info.job, info.pages, info.pages_failed, info.retries,
           (long long)((info.finished_wall_us - info.created_wall_us) / 1000),
           *info.error_code ? " code=" : "", *info.error_code ? pm_log_value(info.error_code, code) : "",
           *info.error_text ? ": " : "", info.error_text);
}

void pm_events_take(struct pm_broker *b, const struct pm_action *event)
{
    if (event->event == PM_EVENT_STATE && pm_sched_state(b->sched, event->job) > PM_JOB_RUNNING)
        log_end(b, event->job);
    for (size_t i = 0; i < b->conn_count; i++) {
        struct pm_conn *c = b->conns[i];
        if (!c->watch_count || c->is_dead)
            continue;
        const struct pm_watch *w = watch_for(b, c, event->job);
        if (!w || (event->event == PM_EVENT_PARTIAL && !w->partial))
            continue;
        bool is_own = pm_gate_may_read(c, pm_sched_client(b->sched, event->job));
        if (!is_own && (pm_gate_only_client(c, PM_RIGHT_WATCH) || event->event == PM_EVENT_PARTIAL))
            continue; /* who only watches sees that pages are read, not what is on them */
        pm_events_push(b, c, event->event, event->job, event->page, event->region, is_own ? event->blob : "",
                       event->text);
    }
}

/* The snapshot is taken now, at sending. 0: sent. */
static int send_event(struct pm_broker *b, struct pm_conn *c, const struct pm_pending_event *e)
{
    struct pm_msg_event m = {.seq = c->event_seq + 1,
                             .kind = e->kind,
                             .page = e->page,
                             .region = e->region,
                             .page_blob = e->blob,
                             .text = e->text};
    if (e->job && !pm_sched_info(b->sched, e->job, &m.info))
        return 0; /* forgotten meanwhile */
    pm_times_info(b->times, NULL, &m.info);
    struct pm_error err;
    int rc = pm_conn_send_now(b, c, PM_MSG_EVENT, &m, (struct pm_bytes){0}, &err);
    c->event_seq += !rc;
    if (rc && rc != PM_EAGAIN &&
        rc != PM_EGONE) { /* it never will be sent, and must not hold up the others */
        pm_log(PM_LOG_ERROR, "an event cannot be sent: %s", err.text);
        pm_count(b, PM_COUNT_events_lost);
        return 0;
    }
    return rc;
}

/* Snapshots in batches: the map must not change under its cursor, and what was sent must not come again
 * before the others had their turn. */
static void send_progress(struct pm_broker *b, struct pm_conn *c)
{
    uint64_t jobs[256];
    int rc = 0;
    while (!rc && c->progress.count && !c->is_dead) {
        size_t cursor = 0, count = 0;
        void *value;
        while (count < sizeof jobs / sizeof jobs[0] &&
               pm_map_next(&c->progress, &cursor, &jobs[count], &value))
            count++;
        for (size_t i = 0; i < count && !rc; i++) {
            struct pm_pending_event e = {.kind = PM_EVENT_PROGRESS, .job = jobs[i]};
            rc = send_event(b, c, &e);
            if (!rc)
                pm_map_remove(&c->progress, jobs[i]);
        }
    }
    if (!rc)
        c->progress_us = b->now.us; /* otherwise the rest as soon as there is room */
}

void pm_events_flush(struct pm_broker *b, struct pm_conn *c)
{
    int rc = 0;
    if (c->has_lost) {
        struct pm_pending_event lost = {.kind = PM_EVENT_LOST, .blob = NULL, .text = NULL};
        rc = send_event(b, c, &lost);
        c->has_lost = rc != 0;
    }
    while (!rc && c->event_first && !c->is_dead) {
        rc = send_event(b, c, c->event_first);
        if (rc)
            break;
        if (c->event_first->kind == PM_EVENT_STATE)
            pm_map_remove(&c->progress, c->event_first->job);
        drop_first(c);
    }
    if (!rc && !c->is_dead && c->progress.count && b->now.us - c->progress_us >= PROGRESS_US)
        send_progress(b, c);
}

int64_t pm_events_next_us(const struct pm_broker *b)
{
    int64_t next = INT64_MAX;
    for (size_t i = 0; i < b->waiting_count; i++) {
        const struct pm_conn *c = b->waiting[i];
        if (!c->progress.count && !c->out_first && !c->event_first)
            continue;
        int64_t due = c->progress_us + PROGRESS_US;
        if (c->out_first || c->event_first || due <= b->now.us) /* its socket was full: look again soon */
            due = b->now.us + 20000;
        next = due < next ? due : next;
    }
    return next;
}
