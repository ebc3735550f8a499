/* WATCH: events of a job, a batch, or everything; begins with a snapshot of what is there. */
#include <stdlib.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/gate.h"

#define WATCH_MOST 4096

static void add(struct pm_conn *c, const struct pm_msg_watch *q)
{
    for (size_t i = 0; i < c->watch_count; i++) {
        struct pm_watch *w = &c->watches[i];
        if (w->job == q->job && !strcmp(w->batch, q->batch)) {
            w->partial = q->partial;
            return;
        }
    }
    PM_GROW(c->watches, c->watch_count, c->watch_capacity);
    c->watches[c->watch_count++] =
        (struct pm_watch){.job = q->job, .batch = pm_xstrdup(q->batch), .partial = q->partial};
}

int pm_verb_watch(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_watch *q = m->record;
    struct pm_msg_done done = {.ref = q->ref};
    if (q->job && !pm_sched_state(b->sched, q->job))
        return pm_fail(err, PM_ENOTFOUND, "there is no job %llu", (unsigned long long)q->job);
    const char *only = pm_gate_only_client(c, PM_RIGHT_WATCH);
    int rc = q->job ? pm_gate_check_job(b, c, q->job, PM_RIGHT_WATCH, err) : 0;
    if (rc)
        return rc;
    if (c->watch_count >= WATCH_MOST)
        return pm_fail(err, PM_ELIMIT, "more than %d watches on one connection", WATCH_MOST);
    add(c, q);
    if (q->job) {
        done.count = 1;
        pm_events_push(b, c, PM_EVENT_STATE, q->job, 0, 0, "", "");
    } else {
        const struct pm_sched_filter filter = {.is_live = !*q->batch, .batch = q->batch, .client = only};
        uint64_t cursor = 0, job;
        while ((job = pm_sched_next_job(b->sched, &cursor, &filter))) {
            done.count++;
            pm_events_push(b, c, PM_EVENT_STATE, job, 0, 0, "", "");
        }
    }
    pm_conn_send(b, c, PM_MSG_DONE, &done);
    return 0;
}
