/* FORGET: a finished job and its results; without a job, the failed ones of a batch, or all failed ones. */
#include "broker/broker.h"
#include "broker/gate.h"

int pm_verb_forget(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_job_ref *q = m->record;
    struct pm_msg_done done = {.ref = q->ref, .count = 1};
    if (!q->job)
        return pm_bulk_begin(b, c, q, PM_BULK_FORGET, err);
    int rc = pm_gate_check_job(b, c, q->job, 0, err);
    if (!rc)
        rc = pm_broker_commit(b, err);
    if (!rc)
        rc = pm_sched_forget(b->sched, q->job, err);
    if (!rc)
        pm_conn_send(b, c, PM_MSG_DONE, &done);
    return rc;
}
