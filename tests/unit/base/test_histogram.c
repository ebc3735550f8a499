/* Quantiles against the sorted truth, bounds of buckets, and times that cannot be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/histogram.h"

enum { MANY = 20000 };

static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* The bucket that a time must be in, found by walking the bounds. */
static unsigned bucket_of(uint64_t us)
{
    unsigned i = 0;
    while (i < PM_HISTOGRAM_BUCKETS - 1 && us > pm_histogram_bound_us(i))
        i++;
    return i;
}

static void bounds_grow_by_a_quarter_at_most(void **state)
{
    (void)state;
    for (unsigned i = 1; i < PM_HISTOGRAM_BUCKETS; i++) {
        uint64_t low = pm_histogram_bound_us(i - 1), high = pm_histogram_bound_us(i);
        assert_true(high > low);
        assert_true(i < PM_HISTOGRAM_PARTS || (high - low) * PM_HISTOGRAM_PARTS <= low);
    }
    assert_true(pm_histogram_bound_us(PM_HISTOGRAM_BUCKETS - 1) > 25ull * 86400 * 1000000);
}

static void each_time_lies_in_its_bucket(void **state)
{
    (void)state;
    for (unsigned i = 0; i < PM_HISTOGRAM_BUCKETS - 1; i++)
        for (int d = -1; d <= 1; d++) {
            struct pm_histogram h = {0};
            uint64_t us = pm_histogram_bound_us(i) + (uint64_t)(int64_t)d;
            pm_histogram_add(&h, (int64_t)us);
            assert_int_equal(h.buckets[bucket_of(us)], 1);
        }
}

static void quantiles_are_within_a_bucket_of_the_truth(void **state)
{
    (void)state;
    static const double shares[] = {0, 0.001, 0.1, 0.25, 0.5, 0.9, 0.99, 0.999, 1};
    int64_t *times = calloc(MANY, sizeof *times);
    uint64_t random = 5;
    assert_non_null(times);
    for (unsigned magnitude = 1; magnitude < 40; magnitude += 3) {
        struct pm_histogram h = {0};
        uint64_t sum = 0;
        for (int i = 0; i < MANY; i++) { /* from 0 to 2^magnitude, evenly in the logarithm */
            times[i] = (int64_t)(next(&random) >> (64 - 1 - next(&random) % magnitude));
            pm_histogram_add(&h, times[i]);
            sum += (uint64_t)times[i];
        }
        qsort(times, MANY, sizeof *times, by_size);
        assert_int_equal(h.count, MANY);
        assert_int_equal(h.sum_us, sum);
        assert_int_equal(h.max_us, times[MANY - 1]);
        for (size_t k = 0; k < sizeof shares / sizeof *shares; k++) {
            double rank = shares[k] * MANY;
            int64_t truth = times[rank < 1 ? 0 : (int)rank - 1];
            uint64_t is = pm_histogram_quantile(&h, shares[k]);
            unsigned bucket = bucket_of((uint64_t)truth);
            assert_true(is <= pm_histogram_bound_us(bucket));
            assert_true(is >= (bucket ? pm_histogram_bound_us(bucket - 1) : 0));
        }
        for (unsigned power = 2; power <= 40; power++) {
            uint64_t truth = 0;
            for (int i = 0; i < MANY; i++)
                truth += (uint64_t)times[i] <= 1ull << power;
            assert_int_equal(pm_histogram_at_most(&h, power), truth);
        }
    }
    free(times);
}

static void times_that_cannot_be(void **state)
{
    (void)state;
    struct pm_histogram h = {0};
    assert_int_equal(pm_histogram_quantile(&h, 0.99), 0);
    pm_histogram_add(&h, -5);
    assert_int_equal(h.buckets[0], 1);
    assert_int_equal(h.sum_us, 0);
    assert_int_equal(pm_histogram_quantile(&h, 0.5), 0);
    pm_histogram_add(&h, INT64_MAX);
    assert_int_equal(h.buckets[PM_HISTOGRAM_BUCKETS - 1], 1);
    assert_int_equal(pm_histogram_quantile(&h, 1), INT64_MAX);
    assert_int_equal(pm_histogram_at_most(&h, 40), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_grow_by_a_quarter_at_most),
        cmocka_unit_test(each_time_lies_in_its_bucket),
        cmocka_unit_test(quantiles_are_within_a_bucket_of_the_truth),
        cmocka_unit_test(times_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
