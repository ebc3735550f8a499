#include "engine/measure/limits.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/mem.h"

#define COLD_BYTES   ((size_t)448 << 20) /* more than any cache of the machines this runs on */
#define PEAK_SECONDS 0.02

struct limits_thread {
    double gops;
    uint64_t sum; /* reading must have a purpose */
    char apart[48];
};

struct pm_limits {
    struct pm_pool *pool;
    int threads;
    enum pm_peak kind;
    uint64_t *cold;
    struct limits_thread *each; /* [threads] */
};

static void fill_job(void *arg, int job, int thread)
{
    (void)thread;
    struct pm_limits *l = arg;
    size_t words = COLD_BYTES / sizeof *l->cold / (size_t)l->threads;
    memset(l->cold + words * (size_t)job, 1, words * sizeof *l->cold);
}

int pm_limits_new(struct pm_pool *pool, struct pm_limits **out, struct pm_error *err)
{
    *out = NULL;
    void *cold = mmap(NULL, COLD_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (cold == MAP_FAILED)
        return pm_fail(err, PM_ENOMEM, "no %zu MB of memory to read through", COLD_BYTES >> 20);
    madvise(cold, COLD_BYTES, MADV_HUGEPAGE); /* as the weights are kept; without it the figure is lower */
    struct pm_limits *l = pm_xalloc(sizeof *l);
    l->pool = pool;
    l->threads = pm_pool_threads(pool);
    l->cold = cold;
    l->each = pm_xalloc((size_t)l->threads * sizeof *l->each);
    pm_pool_run(pool, fill_job, l, l->threads);
    *out = l;
    return 0;
}

void pm_limits_free(struct pm_limits **limits)
{
    struct pm_limits *l = *limits;
    if (!l)
        return;
    munmap(l->cold, COLD_BYTES);
    free(l->each);
    free(l);
    *limits = NULL;
}

static void peak_job(void *arg, int job, int thread)
{
    (void)thread;
    struct pm_limits *l = arg;
    l->each[job].gops = pm_peak_run(l->kind, pm_clock_us, PEAK_SECONDS);
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx2"))) static uint64_t read_avx2(const uint64_t *p, size_t words)
{
    const __m256i *v = (const __m256i *)(const void *)p;
    __m256i sum[8] = {0};
    for (size_t i = 0; i + 8 <= words / 4; i += 8)
        for (int j = 0; j < 8; j++)
            sum[j] = _mm256_xor_si256(sum[j], _mm256_load_si256(v + i + j));
    for (int j = 1; j < 8; j++)
        sum[0] = _mm256_xor_si256(sum[0], sum[j]);
    return (uint64_t)_mm256_extract_epi64(sum[0], 0);
}
#endif

static uint64_t read_words(const uint64_t *p, size_t words)
{
    uint64_t sum[32] = {0};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return read_avx2(p, words);
#endif
    for (size_t i = 0; i + 32 <= words; i += 32)
        for (size_t j = 0; j < 32; j++)
            sum[j] ^= p[i + j];
    for (size_t j = 1; j < 32; j++)
        sum[0] ^= sum[j];
    return sum[0];
}

static void read_job(void *arg, int job, int thread)
{
    (void)thread;
    struct pm_limits *l = arg;
    size_t words = COLD_BYTES / sizeof *l->cold / (size_t)l->threads / 32 * 32;
    l->each[job].sum += read_words(l->cold + words * (size_t)job, words);
}

struct pm_limit_figures pm_limits_take(struct pm_limits *l)
{
    struct pm_limit_figures f = {0};
    for (int kind = 0; kind < PM_PEAKS; kind++) {
        l->kind = (enum pm_peak)kind;
        pm_pool_run(l->pool, peak_job, l, l->threads);
        for (int i = 0; i < l->threads; i++)
            f.gops[kind] += l->each[i].gops;
    }
    int64_t start = pm_clock_us();
    pm_pool_run(l->pool, read_job, l, l->threads);
    f.read_gb_s = (double)COLD_BYTES / (double)(pm_clock_us() - start) / 1e3;
    return f;
}

struct pm_limit_figures pm_limits_mean(const struct pm_limit_figures *a, const struct pm_limit_figures *b)
{
    struct pm_limit_figures f;
    for (int kind = 0; kind < PM_PEAKS; kind++)
        f.gops[kind] = (a->gops[kind] + b->gops[kind]) / 2;
    f.read_gb_s = (a->read_gb_s + b->read_gb_s) / 2;
    return f;
}
