#include "engine/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"

/* How often a waiting thread looks before it sleeps: 20 to 50 us, the length of the serial stretches between
 * two parallel ones. */
enum { SPINS = 1000, THREADS_MAX = 1024 };

struct pm_pool {
    int threads; /* the caller is number 0 */
    pthread_t *ids;
    struct worker {
        struct pm_pool *pool;
        int number;
    } * workers;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    /* One round: written by the owner under the lock before the ticket is raised. */
    struct round {
        void (*fn)(void *arg, int job, int thread);
        void *arg;
        uint32_t jobs, number;
    } round;
    /* Number of the round and its next job. A thread that comes late, after all jobs of its round were taken,
     * finds that here and takes none of the next round by mistake: so nobody waits for threads that the
     * system does not run now, only for jobs that they have begun. */
    atomic_ullong ticket;
    atomic_uint left; /* jobs of this round that are not done */
    bool stop;
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static unsigned number_of(unsigned long long ticket)
{
    return (unsigned)(ticket >> 32);
}

/* Takes jobs of that round until there are none. True when this thread did the last one. */
static bool work(struct pm_pool *p, const struct round *r, int thread)
{
    bool is_last = false;
    unsigned long long ticket = atomic_load_explicit(&p->ticket, memory_order_acquire);
    while (number_of(ticket) == r->number && (uint32_t)ticket < r->jobs) {
        if (!atomic_compare_exchange_weak_explicit(&p->ticket, &ticket, ticket + 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        r->fn(r->arg, (int)(uint32_t)ticket, thread);
        is_last = atomic_fetch_sub_explicit(&p->left, 1, memory_order_acq_rel) == 1;
        ticket = atomic_load_explicit(&p->ticket, memory_order_acquire);
    }
    return is_last;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pm_pool *p = w->pool;
    unsigned seen = 0;
    for (;;) {
        for (int i = 0;
             i < SPINS && number_of(atomic_load_explicit(&p->ticket, memory_order_acquire)) == seen; i++)
            relax();
        pthread_mutex_lock(&p->lock);
        while (p->round.number == seen)
            pthread_cond_wait(&p->wake, &p->lock);
        struct round round = p->round;
        bool stop = p->stop;
        pthread_mutex_unlock(&p->lock);
        if (stop)
            return NULL;
        seen = round.number;
        if (work(p, &round, w->number)) {
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
        int rc = pm_thread_start(&p->ids[i], worker_main, &p->workers[i]);
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
    p->round.number++;
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
    struct round round = {fn, arg, (uint32_t)jobs, p->round.number + 1};
    p->round = round;
    atomic_store(&p->left, round.jobs);
    atomic_store_explicit(&p->ticket, (unsigned long long)round.number << 32, memory_order_release);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    if (work(p, &round, 0))
        return;
    for (int i = 0; i < SPINS && atomic_load_explicit(&p->left, memory_order_acquire); i++)
        relax();
    if (atomic_load_explicit(&p->left, memory_order_acquire)) {
        pthread_mutex_lock(&p->lock);
        while (atomic_load_explicit(&p->left, memory_order_acquire))
            pthread_cond_wait(&p->done, &p->lock);
        pthread_mutex_unlock(&p->lock);
    }
}
