/* The lines that service processes log about tasks: the same words and ids in all of them, so that
 * `pagemill logs JOB` tells a job's story across processes.
 *
 *     region begins job=17 page=3 region=12 task=9120 attempt=1
 *     region done job=17 page=3 region=12 task=9120 attempt=1 ms=41
 *     region failed job=17 page=3 region=12 task=9120 attempt=2 code=timeout ms=9000: reading the region took
 * ...
 *
 * Pages count from 1, regions too (0: the page itself), as in `pagemill status`. Failures are warnings, the
 * end of what a document has once (opening, assembling) is info, all else debug. Threads: as pm_log. */
#ifndef PM_PROTO_TASK_LOG_H
#define PM_PROTO_TASK_LOG_H

#include "base/error.h"
#include "proto/messages.h"

struct pm_task_id { /* of a lease, which may be gone when its task ends */
    uint64_t job, task;
    uint32_t kind, page, region, attempt;
};
struct pm_task_id pm_task_id_of(const struct pm_msg_lease *lease);
void pm_task_log_begin(const struct pm_task_id *id);
/* how: "done", "revoked", "failed"; err: what a failure says, else NULL. */
void pm_task_log_end(const struct pm_task_id *id, const char *how, int64_t run_us,
                     const struct pm_error *err);

#endif
