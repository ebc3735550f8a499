/* CANCEL: a job, or all unfinished jobs of a batch. */
#include "broker/broker.h"
#include "broker/gate.h"

int pm_verb_cancel(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_job_ref *q = m->record;
    struct pm_msg_done done = {.ref = q->ref};
    if (q->job || !*q->batch) {
        int rc = pm_gate_check_job(b, c, q->job, 0, err);
        if (!rc)
            rc = pm_sched_cancel(b->sched, b->now, q->job, err);
        if (rc)
            return rc;
        done.count = 1;
    } else {
        const struct pm_sched_filter filter = {.is_live = true, .batch = q->batch, .client = pm_gate_only_client(c, 0)};
        uint64_t cursor = 0, job;
        while ((job = pm_sched_next_job(b->sched, &cursor, &filter)))
            done.count += !pm_sched_cancel(b->sched, b->now, job, NULL);
    }
    pm_log(PM_LOG_INFO, "cancelled jobs=%u job=%llu batch=%s", done.count, (unsigned long long)q->job,
           q->batch);
    pm_conn_send(b, c, PM_MSG_DONE, &done);
    return 0;
}
