/* STATUS: one job with its failed pages and regions, and every attempt that failed. */
#include "broker/broker.h"

int pm_verb_status(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_job_ref *q = m->record;
    struct pm_msg_job answer = {.ref = q->ref};
    int rc = pm_broker_commit(b, err);
    if (rc)
        return rc;
    if (!pm_sched_info(b->sched, q->job, &answer.info))
        return pm_fail(err, PM_ENOTFOUND, "there is no job %llu", (unsigned long long)q->job);
    rc = pm_journal_errors(b->journal, q->job, PM_LIMIT_JOB_ERRORS, &b->arena, &answer.info.errors,
                           &answer.info.error_count, err);
    if (!rc)
        rc = pm_journal_attempts(b->journal, q->job, &b->arena, &answer.info.attempts,
                                 &answer.info.attempt_count, err);
    if (!rc)
        pm_conn_send(b, c, PM_MSG_JOB, &answer);
    return rc;
}
