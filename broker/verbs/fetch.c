/* FETCH: the manifest of a finished job. */
#include "broker/broker.h"
#include "broker/gate.h"

int pm_verb_fetch(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_job_ref *q = m->record;
    struct pm_msg_manifest answer = {.ref = q->ref, .job = q->job};
    struct pm_job_info info;
    int rc = pm_gate_check_job(b, c, q->job, 0, err);
    if (!rc)
        rc = pm_broker_commit(b, err);
    if (rc)
        return rc;
    if (!pm_sched_info(b->sched, q->job, &info))
        return pm_fail(err, PM_ENOTFOUND, "there is no job %llu; perhaps its results have expired",
                       (unsigned long long)q->job);
    if (info.state <= PM_JOB_RUNNING)
        return pm_fail(err, PM_EBUSY, "job %llu is still %s", (unsigned long long)q->job,
                       pm_job_state_name(info.state));
    rc = pm_journal_manifest(b->journal, q->job, &b->arena, &answer.manifest, err);
    if (!rc && !answer.manifest.size)
        rc = pm_fail(err, PM_ENOTFOUND, "job %llu has no result: it %s%s%.200s", (unsigned long long)q->job,
                     info.state == PM_JOB_CANCELLED ? "was cancelled" : "failed",
                     *info.error_text ? ": " : "", info.error_text);
    if (!rc)
        pm_conn_send(b, c, PM_MSG_MANIFEST, &answer);
    return rc;
}
