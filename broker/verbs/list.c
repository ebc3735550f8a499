/* LIST: jobs, newest first, as many as fit one message. */
#include <string.h>

#include "broker/broker.h"
#include "broker/gate.h"

#define LIST_BYTES (2u << 20)

int pm_verb_list(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_list *l = m->record;
    uint32_t limit = l->limit ? l->limit : 100;
    if (limit > PM_LIMIT_LIST_JOBS)
        limit = PM_LIMIT_LIST_JOBS;
    struct pm_msg_jobs answer = {.ref = l->ref};
    answer.jobs = pm_arena_alloc(&b->arena, limit * sizeof *answer.jobs);
    const struct pm_sched_filter filter = {
        .state = l->state, .batch = l->batch, .client = pm_gate_only_client(c, PM_RIGHT_WATCH)};
    uint64_t cursor = l->before;
    size_t bytes = 0;
    struct pm_job_info info;
    int rc = pm_broker_commit(b, err); /* sleeping jobs are read back */
    if (rc)
        return rc;
    while (pm_sched_list(b->sched, &cursor, &filter, &info)) {
        pm_times_info(b->times, NULL, &info);
        bytes += 400 + strlen(info.name) + strlen(info.batch) + strlen(info.key) + strlen(info.client) +
                 strlen(info.error_text) + strlen(info.stem);
        if (answer.job_count == limit || bytes > LIST_BYTES) {
            answer.has_more = true;
            break;
        }
        answer.jobs[answer.job_count++] = info;
    }
    pm_conn_send(b, c, PM_MSG_JOBS, &answer);
    return 0;
}
