/* What this machine can do right now with some threads: multiply-adds and reads of memory, each measured for
 * a few hundredths of a second by the threads of a pool, so that they can be taken between the things that
 * are measured and their figures be shares of it.
 *
 * Ownership: pm_limits_free; the pool is borrowed. Threads: the pool's owner. Errors: PM_ENOMEM. */
#ifndef PM_ENGINE_MEASURE_LIMITS_H
#define PM_ENGINE_MEASURE_LIMITS_H

#include "base/error.h"
#include "engine/measure/peak.h"
#include "engine/pool.h"

struct pm_limit_figures {
    double gops[PM_PEAKS]; /* all threads together, two operations a multiply-add */
    double read_gb_s;      /* of memory that no cache holds, each thread a stretch of its own */
};

struct pm_limits;

int pm_limits_new(struct pm_pool *pool, struct pm_limits **out, struct pm_error *err);
void pm_limits_free(struct pm_limits **limits);

struct pm_limit_figures pm_limits_take(struct pm_limits *limits);
/* Between two of them. */
struct pm_limit_figures pm_limits_mean(const struct pm_limit_figures *a, const struct pm_limit_figures *b);

#endif
