/* STATUS: one job with its failed pages and regions, and every attempt that failed. */
#include "broker/broker.h"
#include "broker/gate.h"

/* From memory, or from the manifest of a job that ended long ago or under another broker. */
static void add_times(struct pm_broker *b, struct pm_job_info *info)
{
    struct pm_manifest manifest;
    struct pm_bytes encoded = {0};
    pm_times_info(b->times, &b->arena, info);
    if (info->opened_wall_us || info->state != PM_JOB_DONE ||
        pm_journal_manifest(b->journal, info->job, &b->arena, &encoded, NULL) || !encoded.size ||
        pm_record_decode(&pm_manifest_schema, encoded.data, encoded.size, &b->arena, &manifest, NULL))
        return;
    pm_times_of_manifest(&manifest, &b->arena, info);
}

int pm_verb_status(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_job_ref *q = m->record;
    struct pm_msg_job answer = {.ref = q->ref};
    int rc = pm_gate_check_job(b, c, q->job, PM_RIGHT_WATCH, err);
    if (!rc)
        rc = pm_broker_commit(b, err);
    if (rc)
        return rc;
    if (!pm_sched_info(b->sched, q->job, &answer.info))
        return pm_fail(err, PM_ENOTFOUND, "there is no job %llu", (unsigned long long)q->job);
    add_times(b, &answer.info);
    rc = pm_journal_errors(b->journal, q->job, PM_LIMIT_JOB_ERRORS, &b->arena, &answer.info.errors,
                           &answer.info.error_count, err);
    if (!rc)
        rc = pm_journal_attempts(b->journal, q->job, &b->arena, &answer.info.attempts,
                                 &answer.info.attempt_count, err);
    if (!rc)
        pm_conn_send(b, c, PM_MSG_JOB, &answer);
    return rc;
}
