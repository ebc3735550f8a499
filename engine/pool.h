/* A small pool of compute threads inside one reader. With one thread there is no pool at all: pm_pool_run
 * calls the function in place.
 *
 * Ownership: pm_pool_free joins the threads. Threads: one owner calls pm_pool_run, one call at a time.
 * Errors: PM_ENOMEM or PM_EIO when threads cannot be started. */
#ifndef PM_ENGINE_POOL_H
#define PM_ENGINE_POOL_H

#include "base/error.h"

struct pm_pool;

/* threads >= 1; *out is NULL (a valid pool of one) when threads is 1. */
int pm_pool_new(int threads, struct pm_pool **out, struct pm_error *err);
void pm_pool_free(struct pm_pool **pool);
int pm_pool_threads(const struct pm_pool *pool);

/* Runs fn(arg, job, thread) for job 0..jobs-1 (thread 0..threads-1 is the one that runs it) and returns when
 * all are done. Jobs are handed out in order; which thread gets which is not fixed. */
void pm_pool_run(struct pm_pool *pool, void (*fn)(void *arg, int job, int thread), void *arg, int jobs);

#endif
