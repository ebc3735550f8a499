/* What the kernels of language models reach, next to what the machine can do in the same seconds: products
 * and attention as a share of the peak of their multiply-adds, products of few rows and attention of a decode
 * step as a share of the rate at which memory can be read. --int8 and --int4 take the products alone, their
 * inputs rounded in every call as in the engine. Every figure is the median over rounds; peak and
 * bandwidth are taken in every round, between the others, since other work and the host move all of them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/measure/peak.h"
#include "engine/vlm/linear.h"

enum { ROUNDS_MAX = 64, COLD_BYTES = 192 << 20, DIM = 64, DECODE_DIM = 128, DECODE_HEADS = 8 };

struct bench {
    const struct pm_kernels *kernels;
    struct pm_pool *pool;
    int threads, rounds;
    enum pm_precision precision;
    bool is_bf16;              /* activations */
    int64_t (*clock_us)(void); /* one thread: its CPU time, so that other work on the machine counts less */
    uint8_t *cold;             /* more than the caches hold: weights, keys and values of a decode step */
    int next_cold;
    double peak[ROUNDS_MAX], bandwidth[ROUNDS_MAX], thread_figure[64];
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *v, int n)
{
    double copy[ROUNDS_MAX];
    memcpy(copy, v, (size_t)n * sizeof *v);
    qsort(copy, (size_t)n, sizeof *copy, by_value);
    return n % 2 ? copy[n / 2] : (copy[n / 2 - 1] + copy[n / 2]) / 2;
}

/* ---- what the machine can do ---- */

static void peak_job(void *arg, int job, int thread)
{
    (void)thread;
    struct bench *b = arg;
    static const enum pm_peak kinds[] = {PM_PEAK_F32, PM_PEAK_BF16, PM_PEAK_INT8, PM_PEAK_INT8};
    b->thread_figure[job] = pm_peak_run(kinds[b->precision], b->clock_us, 0.02);
}

static double sum_of_threads(const struct bench *b)
{
    double sum = 0;
    for (int i = 0; i < b->threads; i++)
        sum += b->thread_figure[i];
    return sum;
}

static void read_job(void *arg, int job, int thread)
{
    (void)thread;
    struct bench *b = arg;
    size_t words = COLD_BYTES / sizeof(uint64_t) / (size_t)b->threads;
    const uint64_t *p = (const uint64_t *)(const void *)b->cold + words * (size_t)job;
    uint64_t sum[32] = {0};
    for (size_t i = 0; i + 32 <= words; i += 32)
        for (size_t j = 0; j < 32; j++)
            sum[j] ^= p[i + j];
    for (size_t j = 1; j < 32; j++)
        sum[0] ^= sum[j];
    b->thread_figure[job] = sum[0] == 1; /* used */
}

static void measure_machine(struct bench *b, int round)
{
    pm_pool_run(b->pool, peak_job, b, b->threads);
    b->peak[round] = sum_of_threads(b);
    int64_t start = b->clock_us();
    pm_pool_run(b->pool, read_job, b, b->threads);
    b->bandwidth[round] = COLD_BYTES / (double)(b->clock_us() - start) / 1e3;
}

/* ---- the kernels ---- */

struct work {
    const char *name;
    enum { PRODUCT, ATTENTION, DECODE } kind;
    int rows, n, k;    /* PRODUCT; ATTENTION, DECODE: rows (queries of a head), n keys */
    bool is_streaming; /* told as bytes read a second */
    bool is_cold;      /* PRODUCT: weights come from memory, as in a pass through all layers */
    double seconds[ROUNDS_MAX];
};

static void fill(void *to, size_t values, bool is_bf16)
{
    uint32_t state = 1;
    for (size_t i = 0; i < values; i++) {
        state = state * 1664525u + 1013904223u;
        float value = (float)(int32_t)state / 2147483648.0f / 16;
        if (is_bf16) {
            uint32_t bits;
            memcpy(&bits, &value, sizeof bits);
            ((uint16_t *)to)[i] = (uint16_t)(bits >> 16);
        } else {
            ((float *)to)[i] = value;
        }
    }
}

static size_t value_bytes(const struct bench *b)
{
    return b->is_bf16 ? 2 : 4;
}

static bool is_quant(const struct bench *b)
{
    return b->precision == PM_PRECISION_INT8 || b->precision == PM_PRECISION_INT4;
}

static size_t panel_bytes(const struct bench *b, const struct work *w)
{
    if (is_quant(b))
        return pm_quant_panel_bytes(b->precision == PM_PRECISION_INT8 ? PM_QUANT_INT8 : PM_QUANT_INT4, w->n,
                                    (size_t)w->k);
    return b->is_bf16 ? pm_panel_bf16_values(w->n, (size_t)w->k) * 2
                      : pm_panel_floats(w->n, (size_t)w->k) * 4;
}

static double weight_bytes(const struct bench *b, const struct work *w)
{
    if (w->kind == PRODUCT && is_quant(b))
        return (double)panel_bytes(b, w);
    double values = w->kind == DECODE ? 2.0 * w->n * DECODE_DIM * DECODE_HEADS : (double)w->n * w->k;
    return values * (double)value_bytes(b);
}

static double run_product(struct bench *b, const struct work *w)
{
    size_t bytes = panel_bytes(b, w);
    struct pm_linear linear = {.precision = b->precision, .n = w->n, .k = w->k, .panels = b->cold};
    void *x = pm_xalloc((size_t)w->rows * (size_t)w->k * value_bytes(b));
    float *out = pm_xalloc((size_t)w->rows * (size_t)w->n * sizeof *out);
    fill(x, (size_t)w->rows * (size_t)w->k, b->is_bf16);
    /* Few rows: through all of the cold memory, as a step passes through all layers. */
    bool is_cold = w->is_streaming || w->is_cold;
    int most = (int)(COLD_BYTES / bytes), repeats = w->is_streaming ? most : 2;
    if (!is_cold)
        pm_linear_run(&linear, b->kernels, b->pool, x, (size_t)w->k, w->rows, out, (size_t)w->n,
                      PM_LINEAR_STORE);
    int64_t start = b->clock_us();
    for (int i = 0; i < repeats; i++) {
        if (is_cold)
            linear.panels = b->cold + bytes * (size_t)(w->is_streaming ? i : b->next_cold++ % most);
        pm_linear_run(&linear, b->kernels, b->pool, x, (size_t)w->k, w->rows, out, (size_t)w->n,
                      PM_LINEAR_STORE);
    }
    double seconds = (double)(b->clock_us() - start) / 1e6 / repeats;
    free(x);
    free(out);
    return seconds;
}

struct heads {
    struct bench *b;
    const struct work *w;
    int dim, tile;
    void *q, *out;
    const void **keys, **values; /* DECODE: [sequences][blocks] */
    int32_t *limits;
    size_t out_bytes; /* DECODE: of a sequence */
};

static void attend_job(void *arg, int job, int thread)
{
    (void)thread;
    const struct heads *h = arg;
    bool is_decode = h->w->kind == DECODE;
    int first = is_decode ? 0 : job * h->tile, blocks = (h->w->n - 1) / PM_ATTENTION_BLOCK + 1;
    size_t at = (size_t)first * (size_t)h->dim * value_bytes(h->b);
    const struct pm_attention a = {
        .q = (char *)h->q + at,
        .q_stride = (size_t)h->dim,
        .rows = h->w->rows - first < h->tile ? h->w->rows - first : h->tile,
        .dim = h->dim,
        .heads = is_decode ? DECODE_HEADS : 1,
        .q_head_stride = is_decode ? (size_t)(h->w->rows * h->dim) : 0,
        .out_head_stride = is_decode ? (size_t)(h->w->rows * h->dim) : 0,
        .scale = 1.0f / sqrtf((float)h->dim),
        .keys = h->keys + (is_decode ? job * blocks : 0),
        .values = h->values + (is_decode ? job * blocks : 0),
        .limits = h->limits + first,
        .out = (char *)h->out + (is_decode ? (size_t)thread * h->out_bytes : at),
        .out_stride = (size_t)h->dim,
    };
    (h->b->is_bf16 ? h->b->kernels->bf16 : h->b->kernels->f32)->attend(&a);
}

/* ATTENTION: one head of a picture, tiles of 96 queries over all keys. DECODE: a layer of as many sequences
 * as the cold memory holds, a few queries for each of its heads, keys and values as they lie on the pages of
 * the cache. */
static double run_attention(struct bench *b, const struct work *w)
{
    bool is_decode = w->kind == DECODE;
    struct heads h = {.b = b, .w = w, .dim = is_decode ? DECODE_DIM : DIM, .tile = is_decode ? w->rows : 96};
    int blocks = (w->n - 1) / PM_ATTENTION_BLOCK + 1;
    size_t heads = is_decode ? DECODE_HEADS : 1;
    size_t key_bytes = heads * pm_key_block_bytes(h.dim, b->is_bf16), pair_bytes = 2 * key_bytes;
    int jobs = is_decode ? (int)(COLD_BYTES / (pair_bytes * (size_t)blocks)) : (w->rows - 1) / h.tile + 1;
    int lists = is_decode ? jobs : 1;
    h.keys = pm_xalloc((size_t)lists * (size_t)blocks * sizeof *h.keys);
    h.values = pm_xalloc((size_t)lists * (size_t)blocks * sizeof *h.values);
    for (int i = 0; i < lists * blocks; i++) {
        h.keys[i] = b->cold + pair_bytes * (size_t)i;
        h.values[i] = b->cold + pair_bytes * (size_t)i + key_bytes;
    }
    size_t count = heads * (size_t)w->rows * (size_t)h.dim;
    h.out_bytes = count * value_bytes(b);
    h.q = pm_xalloc(count * value_bytes(b));
    h.out = pm_xalloc(count * value_bytes(b) * (size_t)b->threads);
    h.limits = pm_xalloc((size_t)w->rows * sizeof *h.limits);
    fill(h.q, count, b->is_bf16);
    for (int r = 0; r < w->rows; r++)
        h.limits[r] = w->n;
    if (!is_decode)
        pm_pool_run(b->pool, attend_job, &h, b->threads);
    int64_t start = b->clock_us();
    pm_pool_run(b->pool, attend_job, &h, jobs);
    double seconds = (double)(b->clock_us() - start) / 1e6 / lists;
    free(h.keys);
    free(h.values);
    free(h.q);
    free(h.out);
    free(h.limits);
    return seconds;
}

static void report(const struct bench *b, const struct work *works, int count)
{
    double peak = median(b->peak, b->rounds), bandwidth = median(b->bandwidth, b->rounds);
    printf("kernels %s, %s, %d thread(s), medians of %d rounds\n", b->kernels->name,
           pm_precision_name(b->precision), b->threads, b->rounds);
    printf("%-34s %9.1f GFLOP/s   read %6.1f GB/s\n", "machine", peak, bandwidth);
    for (int i = 0; i < count; i++) {
        const struct work *w = &works[i];
        if (is_quant(b) && w->kind != PRODUCT)
            continue; /* attention is bf16's */
        double rate[ROUNDS_MAX], share[ROUNDS_MAX], flops, bytes = weight_bytes(b, w);
        flops = w->kind == PRODUCT     ? 2.0 * w->rows * w->n * w->k
                : w->kind == ATTENTION ? 4.0 * w->rows * w->n * DIM
                                       : 0;
        for (int r = 0; r < b->rounds; r++) {
            rate[r] = (w->is_streaming ? bytes : flops) / w->seconds[r] / 1e9;
            share[r] = rate[r] / (w->is_streaming ? b->bandwidth[r] : b->peak[r]);
        }
        printf("%-34s %9.1f %-9s %5.1f%% of %s\n", w->name, median(rate, b->rounds),
               w->is_streaming ? "GB/s" : "GFLOP/s", 100 * median(share, b->rounds),
               w->is_streaming ? "reading" : "the peak");
    }
}

static int number(const char *text, int low, int high)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (*end || v < low || v > high) {
        fprintf(stderr, "bench_kernels: %s: a number from %d to %d is needed\n", text, low, high);
        exit(2);
    }
    return (int)v;
}

int main(int argc, char **argv)
{
    struct bench b = {
        .threads = 1, .rounds = 9, .precision = PM_PRECISION_BF16, .kernels = pm_kernels_get(NULL)};
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "--", 2) && pm_precision_parse(argv[i] + 2, &b.precision))
            continue;
        if (!strcmp(argv[i], "--threads") && i + 1 < argc)
            b.threads = number(argv[++i], 1, 64);
        else if (!strcmp(argv[i], "--rounds") && i + 1 < argc)
            b.rounds = number(argv[++i], 1, ROUNDS_MAX);
        else {
            fprintf(stderr, "usage: bench_kernels [--f32|--int8|--int4] [--threads N] [--rounds N]\n");
            return 2;
        }
    }
    b.is_bf16 = pm_precision_is_bf16(b.precision);
    struct work works[] = {
        {.name = "product 256 x 1024 x 1024", .rows = 256, .n = 1024, .k = 1024},
        {.name = "product 1024 x 4096 x 1024", .rows = 1024, .n = 4096, .k = 1024},
        {.name = "product 1024 x 1024 x 4096", .rows = 1024, .n = 1024, .k = 4096},
        {.name = "product 512 x 4608 x 1536", .rows = 512, .n = 4608, .k = 1536},
        {.name = "product 16 x 4608 x 1536", .rows = 16, .n = 4608, .k = 1536},
        {.name = "256 x 8192 x 1024, from memory", .rows = 256, .n = 8192, .k = 1024, .is_cold = true},
        {.name = "256 x 1024 x 4096, from memory", .rows = 256, .n = 1024, .k = 4096, .is_cold = true},
        {.name = "256 x 1536 x 4608, from memory", .rows = 256, .n = 1536, .k = 4608, .is_cold = true},
        {.name = "attention 4096 x 4096 x 64", .kind = ATTENTION, .rows = 4096, .n = 4096},
        {.name = "attention 1024 x 1024 x 64", .kind = ATTENTION, .rows = 1024, .n = 1024},
        {.name = "1 row, 4608 x 1536", .rows = 1, .n = 4608, .k = 1536, .is_streaming = true},
        {.name = "6 rows, 4608 x 1536", .rows = 6, .n = 4608, .k = 1536, .is_streaming = true},
        {.name = "8 rows, 4608 x 1536", .rows = 8, .n = 4608, .k = 1536, .is_streaming = true},
        {.name = "decode, 2 rows, 640 keys x 8 x 128",
         .kind = DECODE,
         .rows = 2,
         .n = 640,
         .is_streaming = true},
        {.name = "decode, 8 rows, 640 keys x 8 x 128",
         .kind = DECODE,
         .rows = 8,
         .n = 640,
         .is_streaming = true},
    };
    enum { COUNT = sizeof works / sizeof *works };
    struct pm_error err = {0};
    void *cold = NULL;
    if (pm_pool_new(b.threads, &b.pool, &err) || pm_alloc_array(COLD_BYTES, 1, &cold, &err)) {
        fprintf(stderr, "bench_kernels: %s\n", err.text);
        return 1;
    }
    b.cold = cold;
    b.clock_us = b.threads == 1 ? pm_peak_thread_us : pm_clock_us;
    fill(cold, COLD_BYTES / value_bytes(&b), b.is_bf16);
    for (int r = 0; r < b.rounds; r++) {
        measure_machine(&b, r);
        for (int i = 0; i < COUNT; i++)
            if (works[i].kind == PRODUCT)
                works[i].seconds[r] = run_product(&b, &works[i]);
            else if (!is_quant(&b))
                works[i].seconds[r] = run_attention(&b, &works[i]);
        double peak = b.peak[r], bandwidth = b.bandwidth[r];
        measure_machine(&b, r);
        b.peak[r] = (b.peak[r] + peak) / 2;
        b.bandwidth[r] = (b.bandwidth[r] + bandwidth) / 2;
    }
    report(&b, works, COUNT);
    free(cold);
    pm_pool_free(&b.pool);
    return 0;
}
