/* RETRY: the failed parts of a finished job again. */
#include "broker/broker.h"

int pm_verb_retry(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_job_ref *q = m->record;
    struct pm_msg_done done = {.ref = q->ref, .count = 1};
    struct pm_job_image image;
    int rc = pm_broker_commit(b, err);
    if (!rc && b->is_full)
        rc = pm_fail(err, PM_ENOSPC, "no space left in %s", b->config.state_dir);
    if (!rc)
        rc = pm_journal_job(b->journal, q->job, &b->arena, &image, err);
    if (!rc)
        rc = pm_sched_retry(b->sched, b->now, &image, err);
    if (!rc)
        pm_conn_send(b, c, PM_MSG_DONE, &done);
    return rc;
}
