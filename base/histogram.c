#include "base/histogram.h"

#include <math.h>

#define MAGNITUDE_MOST 40u /* of the last bucket */

/* Of us - 1, so that upper bounds belong to their bucket. Below 4 each number has its own; beyond, the two
 * bits behind the leading one tell the four parts of a doubling apart. */
static unsigned bucket_of(uint64_t us)
{
    uint64_t u = us ? us - 1 : 0;
    if (u < PM_HISTOGRAM_PARTS)
        return (unsigned)u;
    unsigned magnitude = 63u - (unsigned)__builtin_clzll(u);
    if (magnitude > MAGNITUDE_MOST)
        return PM_HISTOGRAM_BUCKETS - 1;
    return PM_HISTOGRAM_PARTS * (magnitude - 1) + (unsigned)(u >> (magnitude - 2) & 3);
}

uint64_t pm_histogram_bound_us(unsigned bucket)
{
    if (bucket < PM_HISTOGRAM_PARTS)
        return bucket + 1;
    unsigned magnitude = bucket / PM_HISTOGRAM_PARTS + 1;
    return (uint64_t)(PM_HISTOGRAM_PARTS + bucket % PM_HISTOGRAM_PARTS + 1) << (magnitude - 2);
}

void pm_histogram_add(struct pm_histogram *h, int64_t us)
{
    uint64_t time = us > 0 ? (uint64_t)us : 0;
    h->count++;
    h->sum_us += time;
    h->max_us = time > h->max_us ? time : h->max_us;
    h->buckets[bucket_of(time)]++;
}

uint64_t pm_histogram_quantile(const struct pm_histogram *h, double q)
{
    uint64_t below = 0;
    double rank = ceil(q * (double)h->count);
    if (!h->count)
        return 0;
    rank = rank < 1 ? 1 : rank;
    for (unsigned i = 0; i < PM_HISTOGRAM_BUCKETS - 1; i++) {
        uint64_t inside = h->buckets[i];
        if ((double)(below + inside) >= rank) { /* spread evenly over its bucket */
            uint64_t low = i ? pm_histogram_bound_us(i - 1) : 0, width = pm_histogram_bound_us(i) - low;
            double us = (double)low + (double)width * (rank - (double)below) / (double)inside;
            return us > (double)h->max_us ? h->max_us : (uint64_t)us;
        }
        below += inside;
    }
    return h->max_us;
}

uint64_t pm_histogram_at_most(const struct pm_histogram *h, unsigned power)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < PM_HISTOGRAM_PARTS * (power - 1) && i < PM_HISTOGRAM_BUCKETS; i++)
        count += h->buckets[i];
    return count;
}
