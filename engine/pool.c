#include "engine/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* How often a waiting thread looks before it sleeps: about 20 us, the length of the serial stretches between
 * two parallel ones. */
enum { SPINS = 4000, THREADS_MAX = 1024 };

struct pm_pool {
    int threads; /* the caller is number 0 */
    pthread_t *ids;
    struct worker {
        struct pm_pool *pool;
        int number;
    } * workers;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    /* One round: written by the owner before round is raised. */
    void (*fn)(void *arg, int job, int thread);
    void *arg;
    int jobs;
    atomic_int next_job;
    atomic_uint round;
    atomic_int busy; /* workers that have not finished this round */
    bool stop;
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void work(struct pm_pool *p, int thread)
{
    for (;;) {
        int job = atomic_fetch_add_explicit(&p->next_job, 1, memory_order_relaxed);
        if (job >= p->jobs)
            return;
        p->fn(p->arg, job, thread);
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pm_pool *p = w->pool;
    unsigned seen = 0;
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load_explicit(&p->round, memory_order_acquire) == seen; i++)
            relax();
        pthread_mutex_lock(&p->lock);
        while (atomic_load(&p->round) == seen)
            pthread_cond_wait(&p->wake, &p->lock);
        seen = atomic_load(&p->round);
        bool stop = p->stop;
        pthread_mutex_unlock(&p->lock);
        if (stop)
            return NULL;
        work(p, w->number);
        if (atomic_fetch_sub_explicit(&p->busy, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

int pm_pool_new(int threads, struct pm_pool **out, struct pm_error *err)
{
    *out = NULL;
    if (threads < 1 || threads > THREADS_MAX)
        return pm_fail(err, PM_EINVAL, "%d compute threads: must be 1 to %d", threads, THREADS_MAX);
    if (threads == 1)
        return 0;
    struct pm_pool *p = pm_xalloc(sizeof *p);
    p->ids = pm_xalloc((size_t)threads * sizeof *p->ids);
    p->workers = pm_xalloc((size_t)threads * sizeof *p->workers);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    p->threads = 1;
    for (int i = 1; i < threads; i++) {
        p->workers[i] = (struct worker){p, i};
        int rc = pthread_create(&p->ids[i], NULL, worker_main, &p->workers[i]);
        if (rc) {
            pm_pool_free(&p);
            return pm_fail(err, PM_EIO, "cannot start compute thread %d of %d: %s", i, threads, strerror(rc));
        }
        p->threads++;
    }
    *out = p;
    return 0;
}

void pm_pool_free(struct pm_pool **pool)
{
    struct pm_pool *p = *pool;
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    atomic_fetch_add(&p->round, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i < p->threads; i++)
        pthread_join(p->ids[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p->workers);
    free(p->ids);
    free(p);
    *pool = NULL;
}

int pm_pool_threads(const struct pm_pool *pool)
{
    return pool ? pool->threads : 1;
}

void pm_pool_run(struct pm_pool *p, void (*fn)(void *arg, int job, int thread), void *arg, int jobs)
{
    if (!p || jobs <= 1) {
        for (int job = 0; job < jobs; job++)
            fn(arg, job, 0);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->fn = fn;
    p->arg = arg;
    p->jobs = jobs;
    atomic_store(&p->next_job, 0);
    atomic_store(&p->busy, p->threads - 1);
    atomic_fetch_add_explicit(&p->round, 1, memory_order_release);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    work(p, 0);
    for (int i = 0; i < SPINS && atomic_load_explicit(&p->busy, memory_order_acquire); i++)
        relax();
    if (atomic_load_explicit(&p->busy, memory_order_acquire)) {
        pthread_mutex_lock(&p->lock);
        while (atomic_load_explicit(&p->busy, memory_order_acquire))
            pthread_cond_wait(&p->done, &p->lock);
        pthread_mutex_unlock(&p->lock);
    }
}
