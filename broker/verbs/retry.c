/* RETRY: the failed parts of a finished job again; without a job, those of a batch, or of every job that has
 * any. Asked a second time, because the answer was lost, it answers like the first time. */
#include "broker/broker.h"
#include "broker/gate.h"

int pm_verb_retry(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_job_ref *q = m->record;
    struct pm_msg_done done = {.ref = q->ref, .count = 1};
    struct pm_job_image image;
    if (b->is_full)
        return pm_fail(err, PM_ENOSPC, "no space left in %s", b->config.state_dir);
    if (!q->job)
        return pm_bulk_begin(b, c, q, PM_BULK_RETRY, err);
    int rc = pm_gate_check_job(b, c, q->job, 0, err);
    if (!rc && pm_sched_retry_need(b->sched, q->job) != PM_RETRY_UNDER_WAY) {
        rc = pm_broker_commit(b, err);
        if (!rc)
            rc = pm_journal_job(b->journal, q->job, &b->arena, &image, err);
        if (!rc)
            rc = pm_sched_retry(b->sched, b->now, &image, err);
    }
    if (!rc)
        pm_conn_send(b, c, PM_MSG_DONE, &done);
    return rc;
}
