/* The compute threads: every job of every round runs once, and a round is over when its jobs are. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/pool.h"

enum { JOBS_MAX = 70, ROUNDS = 3000 };

struct round {
    int runs[JOBS_MAX]; /* not atomic: the pool must order it */
    atomic_int threads[8];
    int factor;
};

static void job(void *arg, int number, int thread)
{
    struct round *r = arg;
    r->runs[number] += r->factor;
    atomic_fetch_add(&r->threads[thread], 1);
}

static void test_rounds(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 5; threads++) {
        struct pm_pool *pool;
        struct round r;
        uint32_t random = 7;
        assert_int_equal(pm_pool_new(threads, &pool, NULL), 0);
        assert_int_equal(pm_pool_threads(pool), threads);
        for (int i = 0; i < ROUNDS; i++) {
            memset(&r, 0, sizeof r);
            random = random * 1664525 + 1013904223;
            int jobs = (int)(random >> 16) % JOBS_MAX, total = 0;
            r.factor = i + 1;
            pm_pool_run(pool, job, &r, jobs);
            for (int k = 0; k < JOBS_MAX; k++)
                assert_int_equal(r.runs[k], k < jobs ? i + 1 : 0);
            for (int t = 0; t < 8; t++) {
                int n = atomic_load(&r.threads[t]);
                assert_true(t < threads || !n);
                total += n;
            }
            assert_int_equal(total, jobs);
        }
        pm_pool_free(&pool);
        assert_null(pool);
    }
}

static void look_at_mask(void *arg, int number, int thread)
{
    atomic_int *open = arg;
    sigset_t mask;
    (void)number;
    assert_int_equal(pthread_sigmask(SIG_BLOCK, NULL, &mask), 0);
    atomic_fetch_add(&open[thread > 0], !sigismember(&mask, SIGTERM) || !sigismember(&mask, SIGINT));
    atomic_fetch_add(&open[2], thread > 0);
}

/* Signals go to the thread that waits for them: a worker that is told to stop finishes what it holds. */
static void test_signals(void **state)
{
    (void)state;
    struct pm_pool *pool;
    atomic_int open[3] = {0}; /* jobs with a signal open: of the owner, of others; jobs of others */
    assert_int_equal(pm_pool_new(3, &pool, NULL), 0);
    while (!atomic_load(&open[2]))
        pm_pool_run(pool, look_at_mask, open, 30);
    assert_int_equal(atomic_load(&open[1]), 0);
    pm_pool_run(NULL, look_at_mask, open, 1);
    assert_true(atomic_load(&open[0]) > 0); /* the owner's own are as they were */
    pm_pool_free(&pool);
}

static void test_refusals(void **state)
{
    (void)state;
    struct pm_pool *pool;
    assert_int_equal(pm_pool_new(0, &pool, NULL), PM_EINVAL);
    assert_int_equal(pm_pool_new(1 << 20, &pool, NULL), PM_EINVAL);
    assert_int_equal(pm_pool_new(1, &pool, NULL), 0);
    assert_null(pool); /* a pool of one is none */
    pm_pool_free(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rounds), cmocka_unit_test(test_signals),
                                       cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
