/* CANCEL: a job, or all unfinished jobs of a batch. */
#include "broker/broker.h"
#include "broker/gate.h"

int pm_verb_cancel(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_job_ref *q = m->record;
    struct pm_msg_done done = {.ref = q->ref, .count = 1};
    if (!q->job && *q->batch)
        return pm_bulk_begin(b, c, q, PM_BULK_CANCEL, err);
    int rc = pm_gate_check_job(b, c, q->job, 0, err);
    if (!rc)
        rc = pm_sched_cancel(b->sched, b->now, q->job, err);
    if (rc)
        return rc;
    pm_log(PM_LOG_INFO, "cancelled job=%llu", (unsigned long long)q->job);
    pm_conn_send(b, c, PM_MSG_DONE, &done);
    return 0;
}
