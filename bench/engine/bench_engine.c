/* How fast the PP-OCR networks run, as a share of the machine's own peak measured in the same run.
 *
 *   bench_engine [--model DIR] [--workers N] [--threads N] [--rounds N] [--stages] [--json] [--widths a,b,c]
 *
 * N workers (threads of this process, each with an engine of its own) run the same work at once: each round
 * is a peak loop, one detector run on 960 x 736, a peak loop, and one line of each width. A round's rate is
 * all workers' operations over the slowest worker's time; medians over rounds are printed. "page" weighs both
 * networks as an average page does: one detector run and 62 500 columns of lines. */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/measure/peak.h"
#include "engine/ppocr/det_run.h"
#include "engine/ppocr/rec_run.h"

enum {
    WIDTHS_MAX = 32,
    ROUNDS_MAX = 1000,
    STAGES_MAX = 96,
    DET_WIDTH = 960,
    DET_HEIGHT = 736,
    PAGE_COLUMNS = 62500
};

struct options {
    const char *model;
    int workers, threads, rounds, width_count;
    int widths[WIDTHS_MAX];
    bool stages, json;
};

struct stage {
    char name[48];
    double seconds, macs;
};

struct worker {
    const struct options *o;
    pthread_barrier_t *barrier;
    struct pm_det *det;
    struct pm_rec *rec;
    struct pm_image page, lines[WIDTHS_MAX];
    float *map;
    double peak[ROUNDS_MAX], det_s[ROUNDS_MAX], rec_s[ROUNDS_MAX];
    struct stage stages[STAGES_MAX];
    int stage_count;
    int64_t last_us;
    const char *prefix;
    int failed;
    struct pm_error err;
};

/* ---- stages ---- */

/* Multiply-adds of a stage from its name and output; 0 where the formula is not worth it. */
static double stage_macs(const char *name, double h, double w, double c)
{
    if (!strcmp(name, "backbone.stem"))
        return h * w * (4 * (27 * c / 2 + 2 * c * c / 4 + c * c / 2) + 9 * c * c / 2 + c * c / 2);
    if (strstr(name, ".down"))
        return h * w * (9 * c / 2 + c * c / 2 + c * c);
    if (strstr(name, ".block") && strstr(name, "backbone"))
        return h * w * (9 * c + 4 * c * c);
    return 0;
}

static void stage_done(void *arg, const char *name, const float *values, int h, int w, int c)
{
    (void)values;
    struct worker *k = arg;
    int64_t now = pm_clock_us();
    char full[48];
    snprintf(full, sizeof full, "%s %s", k->prefix, name);
    int i = 0;
    while (i < k->stage_count && strcmp(k->stages[i].name, full))
        i++;
    if (i == k->stage_count) {
        if (i == STAGES_MAX)
            return;
        k->stage_count++;
        memcpy(k->stages[i].name, full, sizeof full);
    }
    k->stages[i].seconds += (double)(now - k->last_us) / 1e6;
    k->stages[i].macs += stage_macs(name, h, w, c);
    k->last_us = pm_clock_us();
}

/* ---- work ---- */

/* Text-like noise: the networks' time does not depend on the values, but all-equal ones would hide denormals.
 */
static int make_picture(int width, int height, struct pm_image *out, struct pm_error *err)
{
    int rc = pm_image_alloc(width, height, 3, out, err);
    uint32_t state = 2463534242u + (uint32_t)width;
    for (size_t i = 0; !rc && i < (size_t)width * (size_t)height * 3; i++) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        out->owned[i] = (uint8_t)(state % 7 ? 255 : state >> 24);
    }
    return rc;
}

static int run_det(struct worker *w)
{
    w->prefix = "det";
    w->last_us = pm_clock_us();
    int rc = pm_det_map(w->det, &w->page, w->map, &w->err);
    if (!rc && w->o->stages)
        stage_done(w, "head", NULL, 0, 0, 0);
    return rc;
}

static int run_rec(struct worker *w)
{
    struct pm_ctc_step *steps = pm_xalloc(sizeof *steps * (PM_REC_WIDTH_MAX / 8 + 1));
    int rc = 0;
    w->prefix = "rec";
    for (int i = 0; !rc && i < w->o->width_count; i++) {
        w->last_us = pm_clock_us();
        rc = pm_rec_run(w->rec, &w->lines[i], 1, &steps, &w->err);
        if (!rc && w->o->stages)
            stage_done(w, "head", NULL, 0, 0, 0);
    }
    free(steps);
    return rc;
}

static double timed(struct worker *w, int (*work)(struct worker *))
{
    pthread_barrier_wait(w->barrier);
    int64_t start = pm_clock_us();
    if (!w->failed && work(w))
        w->failed = 1;
    return (double)(pm_clock_us() - start) / 1e6;
}

static int open_worker(struct worker *w)
{
    int rc = pm_det_open(w->o->model, w->o->threads, &w->det, &w->err);
    if (!rc)
        rc = pm_rec_open(w->o->model, w->o->threads, &w->rec, &w->err);
    if (!rc)
        rc = make_picture(DET_WIDTH, DET_HEIGHT, &w->page, &w->err);
    for (int i = 0; !rc && i < w->o->width_count; i++)
        rc = make_picture(w->o->widths[i], PM_REC_HEIGHT, &w->lines[i], &w->err);
    void *map = NULL;
    if (!rc)
        rc = pm_alloc_array((size_t)DET_WIDTH * DET_HEIGHT, sizeof(float), &map, &w->err);
    w->map = map;
    return rc;
}

static void close_worker(struct worker *w)
{
    pm_det_free(&w->det);
    pm_rec_free(&w->rec);
    pm_image_free(&w->page);
    for (int i = 0; i < w->o->width_count; i++)
        pm_image_free(&w->lines[i]);
    free(w->map);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    w->failed = open_worker(w) != 0;
    timed(w, run_det); /* touches all memory once */
    timed(w, run_rec);
    if (w->o->stages && !w->failed) {
        pm_det_tap(w->det, (struct pm_tap){stage_done, w, false});
        pm_rec_tap(w->rec, (struct pm_tap){stage_done, w, false});
    }
    for (int r = 0; r < w->o->rounds; r++) {
        pthread_barrier_wait(w->barrier);
        double before = pm_peak_run(PM_PEAK_F32, pm_clock_us, 0.02);
        w->det_s[r] = timed(w, run_det);
        w->rec_s[r] = timed(w, run_rec);
        pthread_barrier_wait(w->barrier);
        w->peak[r] = (before + pm_peak_run(PM_PEAK_F32, pm_clock_us, 0.02)) / 2;
    }
    close_worker(w);
    return NULL;
}

/* ---- report ---- */

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

static double slowest(const struct worker *w, int workers, size_t offset, int round)
{
    double worst = 0;
    for (int i = 0; i < workers; i++) {
        double v = ((const double *)(const void *)((const char *)&w[i] + offset))[round];
        worst = v > worst ? v : worst;
    }
    return worst;
}

static void report(const struct worker *w, const struct options *o)
{
    double peak[ROUNDS_MAX], det[ROUNDS_MAX], rec[ROUNDS_MAX], page[ROUNDS_MAX], share[3][ROUNDS_MAX];
    double det_flop = 2.0 * (double)pm_det_macs(DET_WIDTH, DET_HEIGHT) / 1e9, rec_flop = 0, columns = 0;
    for (int i = 0; i < o->width_count; i++) {
        rec_flop += 2.0 *
                    (double)(pm_rec_line_macs(o->widths[i]) + pm_rec_head_macs(pm_rec_steps(o->widths[i]))) /
                    1e9;
        columns += o->widths[i];
    }
    double scale = PAGE_COLUMNS / columns;
    for (int r = 0; r < o->rounds; r++) {
        double d = slowest(w, o->workers, offsetof(struct worker, det_s), r);
        double l = slowest(w, o->workers, offsetof(struct worker, rec_s), r);
        peak[r] = 0;
        for (int i = 0; i < o->workers; i++)
            peak[r] += w[i].peak[r] * o->threads;
        det[r] = o->workers * det_flop / d;
        rec[r] = o->workers * rec_flop / l;
        page[r] = o->workers * (det_flop + rec_flop * scale) / (d + l * scale);
        share[0][r] = det[r] / peak[r];
        share[1][r] = rec[r] / peak[r];
        share[2][r] = page[r] / peak[r];
    }
    int n = o->rounds;
    if (o->json) {
        printf(
            "{\"kernels\": \"%s\", \"workers\": %d, \"threads\": %d, \"rounds\": %d, \"peak_gflops\": %.1f, "
            "\"det_gflops\": %.1f, \"rec_gflops\": %.1f, \"page_gflops\": %.1f, \"det_share\": %.4f, "
            "\"rec_share\": %.4f, \"page_share\": %.4f, \"page_gflop\": %.1f}\n",
            pm_kernels_get(NULL)->name, o->workers, o->threads, n, median(peak, n), median(det, n),
            median(rec, n), median(page, n), median(share[0], n), median(share[1], n), median(share[2], n),
            det_flop + rec_flop * scale);
        return;
    }
    printf("kernels %s, %d worker(s) x %d thread(s), %d rounds, %d widths\n", pm_kernels_get(NULL)->name,
           o->workers, o->threads, n, o->width_count);
    printf("%-12s %10s %8s\n", "", "GFLOP/s", "share");
    printf("%-12s %10.1f %8s\n", "peak", median(peak, n), "");
    printf("%-12s %10.1f %7.1f%%\n", "detector", median(det, n), 100 * median(share[0], n));
    printf("%-12s %10.1f %7.1f%%\n", "recogniser", median(rec, n), 100 * median(share[1], n));
    printf("%-12s %10.1f %7.1f%%   (%.0f GFLOP a page)\n", "page", median(page, n), 100 * median(share[2], n),
           det_flop + rec_flop * scale);
    for (int i = 0; o->stages && i < w->stage_count; i++) {
        const struct stage *s = &w->stages[i];
        printf("  %-36s %8.3f ms", s->name, s->seconds * 1e3 / n);
        if (s->macs > 0)
            printf("  %6.1f GFLOP/s", 2 * s->macs / s->seconds / 1e9);
        printf("\n");
    }
}

static int number(const char *text, int low, int high)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (*end || v < low || v > high) {
        fprintf(stderr, "bench_engine: %s: a number from %d to %d is needed\n", text, low, high);
        exit(2);
    }
    return (int)v;
}

static void parse(int argc, char **argv, struct options *o)
{
    static const int usual[] = {320, 640, 800, 997, 1000, 1200, 1500, 1935};
    *o = (struct options){.model = "models/ppocr", .workers = 1, .threads = 1, .rounds = 9};
    o->width_count = sizeof usual / sizeof *usual;
    memcpy(o->widths, usual, sizeof usual);
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(a, "--stages"))
            o->stages = true;
        else if (!strcmp(a, "--json"))
            o->json = true;
        else if (v && !strcmp(a, "--model"))
            o->model = argv[++i];
        else if (v && !strcmp(a, "--workers"))
            o->workers = number(argv[++i], 1, 256);
        else if (v && !strcmp(a, "--threads"))
            o->threads = number(argv[++i], 1, 256);
        else if (v && !strcmp(a, "--rounds"))
            o->rounds = number(argv[++i], 1, ROUNDS_MAX);
        else if (v && !strcmp(a, "--widths")) {
            o->width_count = 0;
            for (char *t = strtok(argv[++i], ","); t && o->width_count < WIDTHS_MAX; t = strtok(NULL, ","))
                o->widths[o->width_count++] = number(t, 8, PM_REC_WIDTH_MAX);
        } else {
            fprintf(stderr, "usage: bench_engine [--model DIR] [--workers N] [--threads N] [--rounds N] "
                            "[--widths a,b,c] [--stages] [--json]\n");
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    struct options o;
    parse(argc, argv, &o);
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, (unsigned)o.workers);
    struct worker *w = pm_xalloc((size_t)o.workers * sizeof *w);
    pthread_t *ids = pm_xalloc((size_t)o.workers * sizeof *ids);
    for (int i = 0; i < o.workers; i++) {
        w[i].o = &o;
        w[i].barrier = &barrier;
        if (i && pthread_create(&ids[i], NULL, worker_main, &w[i])) {
            fprintf(stderr, "bench_engine: cannot start worker %d\n", i);
            return 1;
        }
    }
    worker_main(&w[0]);
    int rc = 0;
    for (int i = 0; i < o.workers; i++) {
        if (i)
            pthread_join(ids[i], NULL);
        if (w[i].failed && !rc) {
            fprintf(stderr, "bench_engine: %s\n", w[i].err.text);
            rc = 1;
        }
    }
    if (!rc)
        report(w, &o);
    free(ids);
    free(w);
    return rc;
}
