/* A histogram of times: fixed buckets, four to each doubling, from 1 us to 25 days. Adding is a few
 * instructions and no memory; a quantile is off by at most its bucket, that is by a quarter.
 *
 * Buckets hold what is above their lower and not above their upper bound, so that bounds that are powers of
 * two can be given to others as "less than or equal" without a remainder.
 *
 * Ownership: plain data, zero-initialise. Threads: one owner. Errors: none; times below 0 count as 0, longer
 * ones than the last bound in the last bucket. */
#ifndef PM_BASE_HISTOGRAM_H
#define PM_BASE_HISTOGRAM_H

#include <stdint.h>

enum {
    PM_HISTOGRAM_PARTS = 4, /* buckets of a doubling */
    PM_HISTOGRAM_BUCKETS = 160,
};

struct pm_histogram {
    uint64_t count, sum_us, max_us;
    uint64_t buckets[PM_HISTOGRAM_BUCKETS];
};

void pm_histogram_add(struct pm_histogram *h, int64_t us);
/* The time that a share q (0..1) of the times does not exceed; 0 when there are none. */
uint64_t pm_histogram_quantile(const struct pm_histogram *h, double q);
/* How many were at most 2^power us; power 2 to 40. */
uint64_t pm_histogram_at_most(const struct pm_histogram *h, unsigned power);
/* The largest time that a bucket holds; the last one has no bound. */
uint64_t pm_histogram_bound_us(unsigned bucket);

#endif
