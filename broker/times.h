/* When what happened to each job, and where its time went: what STATUS shows, and what a result's manifest
 * keeps.
 *
 * The times of this broker's life: a job that went on after a restart has 0 for what happened before. While a
 * job runs it has an entry with a line a page; of those that ended the last PM_TIMES_ENDED are remembered
 * without their pages.
 *
 * Ownership: plain memory, pm_times_free. Threads: one owner. Errors: none. */
#ifndef PM_BROKER_TIMES_H
#define PM_BROKER_TIMES_H

#include "broker/metrics.h"
#include "proto/page.h"

#define PM_TIMES_ENDED 1024u

struct pm_times;
struct pm_times *pm_times_new(void);
void pm_times_free(struct pm_times **times);

/* What was just committed. */
void pm_times_follow(struct pm_times *t, int64_t wall_us, const struct pm_op *ops, size_t count);
/* A result that counted, as pm_metrics_result has left it; the names of its phases must outlive t. */
void pm_times_result(struct pm_times *t, int64_t wait_us, int64_t run_us, const struct pm_msg_result *result);

/* Times and tokens of a job; those that are not known stay as they are. With an arena also its stages. */
void pm_times_info(const struct pm_times *t, struct pm_arena *arena, struct pm_job_info *info);
/* Every time that the manifest of a job that ends now can have; lists lie in the arena. */
void pm_times_manifest(const struct pm_times *t, int64_t wall_us, const struct pm_job_info *info,
                       struct pm_arena *arena, struct pm_manifest *manifest);
/* The way back: what a manifest says of its job, for jobs that are no longer remembered. */
void pm_times_of_manifest(const struct pm_manifest *manifest, struct pm_arena *arena,
                          struct pm_job_info *info);

#endif
