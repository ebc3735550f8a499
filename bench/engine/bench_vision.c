/* Where the time of the vision tower goes, as a share of the peak of multiply-adds measured between the
 * rounds.
 *
 *   bench_vision --model FILE.pmw [--crop WIDTHxHEIGHT] [--threads N] [--rounds N]
 *
 * A picture of that size goes through the whole tower of a packed model; every figure is the median over
 * rounds. One thread is timed by its CPU time, so that other work on the machine counts less. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/measure/peak.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "engine/vlm/features.h"
#include "engine/vlm/vision.h"

enum { ROUNDS_MAX = 32, THREADS_MAX = 64, REST = PM_VISION_PHASES, TOTAL, FIGURES };

struct bench {
    struct pm_vlm_model *model;
    struct pm_pool *pool;
    struct pm_vision *vision;
    struct pm_patches patches;
    int width, height, threads, rounds;
    int64_t (*clock_us)(void);
    double thread_peak[THREADS_MAX], peak[ROUNDS_MAX], seconds[FIGURES][ROUNDS_MAX];
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

static void peak_job(void *arg, int job, int thread)
{
    (void)thread;
    struct bench *b = arg;
    b->thread_peak[job] =
        pm_peak_run(b->model->precision == PM_PRECISION_F32 ? PM_PEAK_F32 : PM_PEAK_BF16, b->clock_us, 0.05);
}

static double measure_peak(struct bench *b)
{
    double sum = 0;
    pm_pool_run(b->pool, peak_job, b, b->threads);
    for (int i = 0; i < b->threads; i++)
        sum += b->thread_peak[i];
    return sum;
}

/* GFLOP of the products and of attention for this picture. */
static void count_work(const struct bench *b, double *linears_out, double *attention_out)
{
    const struct pm_vision_config *c = &b->model->config.vision;
    double patches = (double)b->patches.rows * b->patches.columns, hidden = c->hidden, out = c->out_hidden;
    double area = (double)c->merge * c->merge, side = c->patch;
    double block = hidden * (4 * hidden + 3.0 * c->intermediate);
    double merger = hidden * out + out * (out + 3.0 * c->merger_intermediate) / area;
    *linears_out =
        2e-9 * patches * (hidden * c->in_channels * c->temporal * side * side + c->depth * block + merger);
    *attention_out = 4e-9 * patches * patches * hidden * c->depth;
}

/* Milliseconds from a decoded crop that is a little larger to its patches: resize, hash, cut. */
static int time_preprocess(const struct bench *b, double *out, struct pm_error *err)
{
    struct pm_image image = {0};
    double ms[ROUNDS_MAX];
    int rc = pm_image_alloc(b->width + 4, b->height + 6, 3, &image, err);
    for (size_t i = 0; !rc && i < (size_t)(b->width + 4) * (size_t)(b->height + 6) * 3; i++)
        image.owned[i] = (uint8_t)(i * i >> 7);
    for (int r = 0; r < ROUNDS_MAX && !rc; r++) {
        struct pm_image resized;
        struct pm_patches patches = {0};
        int64_t start = b->clock_us();
        rc = pm_patches_resize(&b->model->config, &image, &resized, err);
        if (!rc) {
            struct pm_features_key key = pm_features_key(&resized, b->patches.rows, b->patches.columns);
            (void)key;
            rc = pm_patches_cut(&b->model->config, &resized, &patches, err);
        }
        ms[r] = (double)(b->clock_us() - start) / 1e3;
        pm_patches_free(&patches);
        pm_image_free(&resized);
    }
    pm_image_free(&image);
    *out = rc ? 0 : median(ms, ROUNDS_MAX);
    return rc;
}

static int set_up(struct bench *b, const char *path, struct pm_error *err)
{
    struct pm_image image = {0};
    int rc = pm_glm_ocr_model_open(path, &b->model, err);
    if (!rc)
        rc = pm_image_alloc(b->width, b->height, 3, &image, err);
    for (size_t i = 0; !rc && i < (size_t)b->width * (size_t)b->height * 3; i++)
        image.owned[i] = (uint8_t)(i * i >> 7);
    if (!rc)
        rc = pm_patches_make(&b->model->config, &image, &b->patches, err);
    pm_image_free(&image);
    if (!rc)
        rc = pm_pool_new(b->threads, &b->pool, err);
    if (!rc && !(b->vision = pm_vision_new(b->model, pm_kernels_get(NULL), b->pool)))
        rc = pm_fail(err, PM_ENOMEM, "no memory for the vision tower");
    return rc;
}

static int run_round(struct bench *b, int round, struct pm_error *err)
{
    double before = measure_peak(b);
    pm_vision_set_clock(b->vision, b->clock_us);
    int64_t start = b->clock_us();
    int rc = pm_vision_begin(b->vision, &b->patches, err);
    while (!rc && !pm_vision_step(b->vision, INT64_MAX / 4))
        ;
    double total = (double)(b->clock_us() - start) / 1e6, rest = total;
    for (int i = 0; i < PM_VISION_PHASES; i++) {
        b->seconds[i][round] = (double)pm_vision_spent(b->vision)[i] / 1e6;
        rest -= b->seconds[i][round];
    }
    b->seconds[REST][round] = rest;
    b->seconds[TOTAL][round] = total;
    b->peak[round] = (before + measure_peak(b)) / 2;
    return rc;
}

static void report(const struct bench *b)
{
    static const char *const names[FIGURES] = {"linears", "attention", "norms", "gates",
                                               "turn",    "rest",      "total"};
    double work[FIGURES] = {0}, total = median(b->seconds[TOTAL], b->rounds);
    count_work(b, &work[PM_VISION_LINEARS], &work[PM_VISION_ATTENTION]);
    work[TOTAL] = work[PM_VISION_LINEARS] + work[PM_VISION_ATTENTION];
    printf("vision of %d x %d patches, kernels %s, %d thread(s), %d round(s), peak %.1f GFLOP/s\n",
           b->patches.columns, b->patches.rows, pm_kernels_get(NULL)->name, b->threads, b->rounds,
           median(b->peak, b->rounds));
    for (int i = 0; i < FIGURES; i++) {
        double s = median(b->seconds[i], b->rounds), share[ROUNDS_MAX];
        printf("%-10s %8.3f s %5.1f%%", names[i], s, 100 * s / total);
        for (int r = 0; r < b->rounds; r++)
            share[r] = work[i] / b->seconds[i][r] / b->peak[r];
        if (work[i] > 0)
            printf("  %7.1f GFLOP/s, %5.1f%% of the peak", work[i] / s, 100 * median(share, b->rounds));
        printf("\n");
    }
}

static int usage(void)
{
    fprintf(stderr,
            "usage: bench_vision --model FILE.pmw [--crop WIDTHxHEIGHT] [--threads 1..%d] [--rounds 1..%d]\n",
            THREADS_MAX, ROUNDS_MAX);
    return 2;
}

int main(int argc, char **argv)
{
    struct bench b = {.width = 1008, .height = 392, .threads = 1, .rounds = 3};
    const char *path = NULL;
    char rest;
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--model") && *value)
            path = value;
        else if (!strcmp(argv[i], "--crop") && sscanf(value, "%dx%d%c", &b.width, &b.height, &rest) == 2)
            ;
        else if (!strcmp(argv[i], "--threads") && sscanf(value, "%d%c", &b.threads, &rest) == 1)
            ;
        else if (!strcmp(argv[i], "--rounds") && sscanf(value, "%d%c", &b.rounds, &rest) == 1)
            ;
        else
            return usage();
    }
    if (!path || b.threads < 1 || b.threads > THREADS_MAX || b.rounds < 1 || b.rounds > ROUNDS_MAX)
        return usage();
    b.clock_us = b.threads == 1 ? pm_peak_thread_us : pm_clock_us;
    struct pm_error err = {0};
    int rc = set_up(&b, path, &err);
    for (int r = 0; r < b.rounds && !rc; r++)
        rc = run_round(&b, r, &err);
    double preprocess_ms;
    if (!rc)
        rc = time_preprocess(&b, &preprocess_ms, &err);
    if (!rc) {
        report(&b);
        printf("preprocess %.2f ms of a decoded crop (resize, hash, cut)\n", preprocess_ms);
    } else
        fprintf(stderr, "bench_vision: %s\n", err.text);
    pm_vision_free(&b.vision);
    pm_pool_free(&b.pool);
    pm_patches_free(&b.patches);
    pm_vlm_model_close(&b.model);
    return rc != 0;
}
