/* CANCEL: a job, or all unfinished jobs of a batch. */
#include <string.h>

#include "broker/broker.h"

int pm_verb_cancel(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_job_ref *q = m->record;
    struct pm_msg_done done = {.ref = q->ref};
    if (q->job || !*q->batch) {
        int rc = pm_sched_cancel(b->sched, b->now, q->job, err);
        if (rc)
            return rc;
        done.count = 1;
    } else {
        uint64_t cursor = 0;
        struct pm_job_info info;
        while (pm_sched_list(b->sched, &cursor, &info))
            if (info.state <= PM_JOB_RUNNING && !strcmp(info.batch, q->batch))
                done.count += !pm_sched_cancel(b->sched, b->now, info.job, NULL);
    }
    pm_log(PM_LOG_INFO, "cancelled jobs=%u job=%llu batch=%s", done.count, (unsigned long long)q->job,
           q->batch);
    pm_conn_send(b, c, PM_MSG_DONE, &done);
    return 0;
}
