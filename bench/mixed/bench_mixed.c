/* Regions of real sizes one after the other, as many at once as a worker holds: how near the generator comes
 * to the sum of the floors of its phases, and how long a text in the middle waits for its next token.
 *
 *   bench_mixed MODEL_DIR [--regions FILE] [--count N] [--running N] [--threads N] [--drafts N] [--memory MB]
 *
 * The limits are measured every few seconds with the clock of the run standing still. Floors: the tower and
 * the prompts at the peak of multiply-adds, tokens as steps of `running` texts at once at the peak or the
 * speed of memory, whichever is slower. End tokens are off: every text has the length that the file says. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/host.h"
#include "base/mem.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "engine/measure/work.h"
#include "engine/vlm/generate.h"

enum { REGIONS_MAX = 10000, FRAME_TOKENS = 12, LIMITS_US = 5000000, LIMITS_MAX = 4096, GAP_US = 250000 };

struct region {
    int width_px, height_px, tokens;
    struct pm_image image; /* while it is read */
    int64_t told_us;       /* its last token, by the clock of the run; 0: none yet */
};

struct mixed {
    const char *dir, *file;
    int count, running, threads, drafts;
    size_t memory_bytes;
    struct region *regions;
    struct pm_vlm_model *model;
    struct pm_pool *pool; /* for the limits only */
    struct pm_limits *limits;
    struct pm_limit_figures taken[LIMITS_MAX];
    int taken_count;
    int64_t paused_us; /* spent on limits */
    int64_t phases_us[PM_GENERATE_PHASES];
    int64_t tokens, prompts, drafted, accepted;
    int64_t longest_us, gaps, long_gaps; /* between two tokens of a text; longer than GAP_US */
    struct pm_work vision, prefill, decode;
};

/* ---- what to read ---- */

static int read_sizes(struct mixed *m, struct pm_error *err)
{
    char line[256];
    int count = 0;
    FILE *f = fopen(m->file, "r");
    if (!f)
        return pm_fail_errno(err, "cannot open %s", m->file);
    m->regions = pm_xalloc(REGIONS_MAX * sizeof *m->regions);
    while (count < m->count && fgets(line, sizeof line, f)) {
        struct region *r = &m->regions[count];
        if (*line != '#' && sscanf(line, "%d %d %d", &r->width_px, &r->height_px, &r->tokens) == 3)
            count++;
    }
    fclose(f);
    if (!count)
        return pm_fail(err, PM_EINVAL, "%s holds no regions", m->file);
    m->count = count;
    return 0;
}

/* Strokes on paper; every region other ones, so that no features are found again. */
static int make_picture(struct region *r, uint32_t seed, struct pm_error *err)
{
    int rc = pm_image_alloc(r->width_px, r->height_px, 1, &r->image, err);
    uint32_t state = 2463534242u + 7919u * seed;
    for (int y = 0; !rc && y < r->height_px; y++)
        for (int x = 0; x < r->width_px; x++) {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            r->image.owned[(size_t)y * r->image.stride_bytes + (size_t)x] =
                (uint8_t)(state % 7 ? 255 : state >> 24);
        }
    return rc;
}

static int count_work(struct mixed *m, struct pm_error *err)
{
    const struct pm_vision_config *v = &m->model->config.vision;
    double context = 0;
    for (int i = 0; i < m->count; i++) {
        const struct region *r = &m->regions[i];
        int width, height;
        int rc = pm_smart_resize(&m->model->config, r->width_px, r->height_px, &width, &height, err);
        if (rc)
            return rc;
        int patches = width / v->patch * (height / v->patch),
            prompt = patches / (v->merge * v->merge) + FRAME_TOKENS;
        struct pm_work vision = pm_work_vision(m->model, patches),
                       prefill = pm_work_prefill(m->model, prompt);
        m->vision = pm_work_sum(&m->vision, &vision);
        m->prefill = pm_work_sum(&m->prefill, &prefill);
        context += (double)r->tokens * (prompt + r->tokens / 2);
        m->tokens += r->tokens;
        m->prompts += prompt;
    }
    int running = m->running < m->count ? m->running : m->count;
    struct pm_work step = pm_work_step(m->model, running, (int)(context / (double)m->tokens));
    m->decode = pm_work_times(&step, (double)m->tokens / running);
    return 0;
}

/* ---- the run ---- */

/* Stands still while limits are taken. */
static int64_t run_clock_us(const struct mixed *m)
{
    return pm_clock_us() - m->paused_us;
}

static void take_limits(struct mixed *m)
{
    int64_t start_us = pm_clock_us();
    if (m->taken_count < LIMITS_MAX)
        m->taken[m->taken_count++] = pm_limits_take(m->limits);
    m->paused_us += pm_clock_us() - start_us;
}

static int admit(struct mixed *m, struct pm_generate *g, int index, struct pm_error *err)
{
    struct region *r = &m->regions[index];
    int32_t ids[FRAME_TOKENS + 1];
    for (int i = 0; i <= FRAME_TOKENS; i++)
        ids[i] = i == 4 ? m->model->config.image_id : 1000 + i;
    int rc = make_picture(r, (uint32_t)index, err);
    if (rc)
        return rc;
    struct pm_generate_request request = {.id = (uint64_t)index + 1,
                                          .ids = ids,
                                          .id_count = FRAME_TOKENS + 1,
                                          .images = &r->image,
                                          .image_count = 1,
                                          .max_tokens = r->tokens,
                                          .sampling = pm_sampling_default(),
                                          .drafts = m->drafts,
                                          .ignores_eos = true};
    return pm_generate_admit(g, &request, err);
}

static int take(struct mixed *m, const struct pm_generate_event *e, struct pm_error *err)
{
    struct region *r = &m->regions[e->id - 1];
    int64_t now_us = run_clock_us(m);
    if (e->sample_count && r->told_us) {
        int64_t gap_us = now_us - r->told_us;
        m->longest_us = gap_us > m->longest_us ? gap_us : m->longest_us;
        m->long_gaps += gap_us > GAP_US;
        m->gaps++;
    }
    r->told_us = e->sample_count ? now_us : r->told_us;
    if (!e->is_final)
        return 0;
    if (e->end == PM_GENERATE_ERROR) {
        *err = e->error;
        return e->error.code ? e->error.code : PM_EINTERNAL;
    }
    for (int k = 0; k < PM_GENERATE_PHASES; k++)
        m->phases_us[k] += e->spent_us[k];
    m->drafted += e->drafted_tokens;
    m->accepted += e->accepted_tokens;
    pm_image_free(&r->image);
    return 0;
}

static int run(struct mixed *m, struct pm_generate *g, double *seconds_out, struct pm_error *err)
{
    int next = 0, rc = 0;
    take_limits(m);
    m->paused_us = 0;
    int64_t start_us = pm_clock_us(), limits_us = start_us;
    while (!rc && (next < m->count || pm_generate_running(g))) {
        while (!rc && next < m->count && pm_generate_room(g))
            rc = admit(m, g, next++, err);
        const struct pm_generate_event *events;
        size_t count = 0;
        if (!rc)
            rc = pm_generate_step(g, &events, &count, err);
        for (size_t i = 0; i < count && !rc; i++)
            rc = take(m, &events[i], err);
        if (pm_clock_us() - limits_us > LIMITS_US) {
            take_limits(m);
            limits_us = pm_clock_us();
        }
    }
    *seconds_out = (double)(pm_clock_us() - start_us - m->paused_us) / 1e6;
    return rc;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, by_value);
    return values[count / 2];
}

static struct pm_limit_figures middle(const struct mixed *m)
{
    static double values[LIMITS_MAX];
    struct pm_limit_figures out = {0};
    for (int k = 0; k <= PM_PEAKS; k++) {
        for (int i = 0; i < m->taken_count; i++)
            values[i] = k < PM_PEAKS ? m->taken[i].gops[k] : m->taken[i].read_gb_s;
        *(k < PM_PEAKS ? &out.gops[k] : &out.read_gb_s) = median(values, m->taken_count);
    }
    return out;
}

static void tell(const struct mixed *m, const struct pm_generate *g, double seconds)
{
    struct pm_limit_figures limits = middle(m);
    double vision = pm_work_floor_s(&m->vision, &limits), prefill = pm_work_compute_s(&m->prefill, &limits),
           decode = pm_work_floor_s(&m->decode, &limits), floor = vision + prefill + decode;
    struct pm_generate_counters c = pm_generate_counters(g);
    printf("%d regions, %lld tokens of prompts, %lld written; %s, %d threads, at most %d at once\n", m->count,
           (long long)m->prompts, (long long)m->tokens, pm_precision_name(m->model->precision), m->threads,
           m->running);
    printf("limits: %.0f GOP/s bf16, %.0f GOP/s int8, %.1f GB/s read (medians of %d)\n",
           limits.gops[PM_PEAK_BF16], limits.gops[PM_PEAK_INT8], limits.read_gb_s, m->taken_count);
    printf("%-10s %10s %10s %7s\n", "", "floor s", "spent s", "share");
    const struct {
        const char *name;
        double floor, spent;
    } rows[] = {{"vision", vision, (double)m->phases_us[PM_GENERATE_VISION] / 1e6},
                {"prefill", prefill, (double)m->phases_us[PM_GENERATE_PREFILL] / 1e6},
                {"decode", decode, (double)m->phases_us[PM_GENERATE_DECODE] / 1e6},
                {"all", floor, seconds}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        printf("%-10s %10.2f %10.2f %6.1f%%\n", rows[i].name, rows[i].floor, rows[i].spent,
               100 * rows[i].floor / rows[i].spent);
    printf("preprocessing %.2f s, drafts %.2f s (%lld made, %lld held)\n",
           (double)m->phases_us[PM_GENERATE_PREPROCESS] / 1e6, (double)m->phases_us[PM_GENERATE_DRAFT] / 1e6,
           (long long)m->drafted, (long long)m->accepted);
    printf("longest wait of a text for its next token %.0f ms; %lld of %lld waits longer than %d ms\n",
           (double)m->longest_us / 1e3, (long long)m->long_gaps, (long long)m->gaps, GAP_US / 1000);
    printf("%llu passes of %.1f rows, %llu slots taken over, %llu pauses, %llu waits for memory; %.0f MB of "
           "its own at the end\n",
           (unsigned long long)c.passes, c.passes ? (double)c.rows / (double)c.passes : 0,
           (unsigned long long)c.shared_slots, (unsigned long long)c.pauses, (unsigned long long)c.waits,
           (double)pm_host_own_bytes() / 1048576);
}

static int bench(struct mixed *m, struct pm_error *err)
{
    char *path = pm_xprintf("%s/model.pmw", m->dir);
    struct pm_generate *g = NULL;
    double seconds = 0;
    int rc = read_sizes(m, err);
    if (!rc)
        rc = pm_glm_ocr_model_open(path, &m->model, err);
    if (!rc)
        rc = count_work(m, err);
    if (!rc)
        rc = pm_pool_new(m->threads, &m->pool, err);
    if (!rc)
        rc = pm_limits_new(m->pool, &m->limits, err);
    struct pm_generate_config config = {.model = m->model,
                                        .kernels = pm_kernels_get(NULL),
                                        .threads = m->threads,
                                        .max_running = m->running,
                                        .kv_bytes = (size_t)4 << 30,
                                        .memory_bytes = m->memory_bytes,
                                        .slice_macs = (int64_t)5000000000 * m->threads,
                                        .step_us = 80000,
                                        .vision_cache_bytes = -1,
                                        .drafts_when_paying = true};
    if (!rc)
        rc = pm_generate_new(&config, &g, err);
    if (!rc)
        rc = run(m, g, &seconds, err);
    if (!rc)
        tell(m, g, seconds);
    pm_generate_free(&g);
    pm_limits_free(&m->limits);
    pm_pool_free(&m->pool);
    pm_vlm_model_close(&m->model);
    for (int i = 0; m->regions && i < m->count; i++)
        pm_image_free(&m->regions[i].image);
    free(m->regions);
    free(path);
    return rc;
}

static bool number(const char *text, int least, int most, int *out)
{
    char *end;
    long v = strtol(text, &end, 10);
    *out = (int)v;
    return !*end && v >= least && v <= most;
}

int main(int argc, char **argv)
{
    struct mixed *m = pm_xalloc(sizeof *m);
    struct pm_error err = {0};
    int memory_mb = 0;
    m->file = PM_SOURCE_DIR "/bench/mixed/regions.txt";
    m->count = 300;
    m->running = 16;
    m->threads = pm_host_cores();
    bool is_right = argc >= 2;
    m->dir = argc >= 2 ? argv[1] : "";
    for (int i = 2; i < argc && is_right; i += 2) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(a, "--regions"))
            m->file = v;
        else
            is_right = (!strcmp(a, "--count") && number(v, 1, REGIONS_MAX, &m->count)) ||
                       (!strcmp(a, "--running") && number(v, 1, 256, &m->running)) ||
                       (!strcmp(a, "--threads") && number(v, 1, 256, &m->threads)) ||
                       (!strcmp(a, "--drafts") && number(v, 0, PM_MTP_DRAFTS_MAX, &m->drafts)) ||
                       (!strcmp(a, "--memory") && number(v, 1, 1 << 24, &memory_mb));
    }
    m->memory_bytes = (size_t)memory_mb << 20;
    int rc = 2;
    if (!is_right) {
        fprintf(stderr,
                "usage: bench_mixed MODEL_DIR [--regions FILE] [--count N] [--running N] [--threads N] "
                "[--drafts N] [--memory MB]\n");
    } else {
        rc = bench(m, &err) ? 1 : 0;
        if (rc)
            fprintf(stderr, "bench_mixed: %s\n", err.text);
    }
    free(m);
    return rc;
}
