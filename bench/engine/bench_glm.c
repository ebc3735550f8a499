/* What the engine reaches with a vision-language model, each figure as a share of what the machine allows in
 * the same seconds. `bench_glm --help`. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/host.h"
#include "base/mem.h"
#include "base/options.h"
#include "bench/engine/glm_prepare.h"
#include "bench/engine/glm_regions.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "engine/manifest.h"
#include "engine/measure/phases.h"
#include "engine/measure/work.h"

enum {
    SUBJECTS_MAX = PM_PRECISION_COUNT,
    ROUNDS_MAX = 15,
    SEQUENCES = 8,
    CONTEXT = 520,
    STEPS = 24,        /* decode steps of one round */
    DRAFT_ROUNDS = 12, /* rounds of drafts of one round */
    PROMPT_TOKENS = 16,
    LIMITS_MAX = 1024,
    PATH_BYTES = 4096
};

/* The accept rate that gains by drafts are told for. */
#define ACCEPTED 0.8

/* ---- what is measured ---- */

enum kind { VISION, PREFILL, STEP, DRAFTS, REGIONS, FIRST, PREPARE };

struct row {
    const char *key, *title;
    enum kind kind;
    int width_px, height_px; /* VISION, REGIONS, FIRST, PREPARE */
    int count;               /* sequences, tokens of a prompt, drafts, regions */
    int tokens;              /* to write */
};

static const struct row rows[] = {
    {"vision", "vision tower, 2,048 patches, s", VISION, 896, 448, 0, 0},
    {"vision-page", "vision tower, 11,264 patches, s", VISION, 1232, 1792, 0, 0},
    {"prefill", "prefill of 520 tokens, s", PREFILL, 0, 0, CONTEXT, 0},
    {"decode", "decode of one sequence, tokens/s", STEP, 0, 0, 1, 0},
    {"decode-8", "decode of eight together, tokens/s", STEP, 0, 0, SEQUENCES, 0},
    {"drafts-1", "1 draft, four of five accepted, tokens/s", DRAFTS, 0, 0, 1, 0},
    {"drafts-2", "2 drafts", DRAFTS, 0, 0, 2, 0},
    {"drafts-3", "3 drafts", DRAFTS, 0, 0, 3, 0},
    {"line", "short line 840x56, 60 tokens, s", REGIONS, 840, 56, 1, 60},
    {"region", "one region 1008x392, 200 tokens, s", REGIONS, 1008, 392, 1, 200},
    {"regions-8", "eight regions in flight, s", REGIONS, 1008, 392, 8, 200},
    {"page", "whole page 1288x1708 at once, 50 tokens, s", REGIONS, 1288, 1708, 1, 50},
    {"first", "process start to first token of the region, s", FIRST, 1008, 392, 1, 1},
    {"first-small", "process start to first token of a word 112x56, s", FIRST, 112, 56, 1, 1},
    {"prepare", "JPEG of 1000x400 to patches of 1008x392, s", PREPARE, 1000, 400, 0, 0},
};
enum { ROWS = sizeof rows / sizeof *rows };

struct sample {
    double seconds; /* of a step (STEP), of a round (DRAFTS), of all of it */
    double floor_s; /* what the limits of that moment allow */
    struct regions_result regions;
};

struct subject {
    enum pm_precision precision;
    char dir[PATH_BYTES];
    struct pm_vlm_model *model;
    struct pm_phases *phases;
    struct sample samples[ROWS][ROUNDS_MAX];
};

struct settings {
    const char *source, *precision, *only, *json;
    uint32_t threads, rounds;
};

struct bench {
    struct settings settings;
    int threads, rounds;
    bool is_wanted[ROWS];
    struct subject subjects[SUBJECTS_MAX];
    int subject_count;
    struct pm_pool *pool;
    struct pm_limits *limits;
    struct glm_prepare jpeg;
    struct pm_limit_figures last, taken[LIMITS_MAX];
    int taken_count;
};

/* ---- floors ---- */

static double vision_floor(const struct subject *s, int patches, const struct pm_limit_figures *l)
{
    struct pm_work w = pm_work_vision(s->model, patches);
    return pm_work_floor_s(&w, l);
}

static double prefill_floor(const struct subject *s, int tokens, const struct pm_limit_figures *l)
{
    struct pm_work w = pm_work_prefill(s->model, tokens);
    return pm_work_floor_s(&w, l);
}

static double step_floor(const struct subject *s, int sequences, int context,
                         const struct pm_limit_figures *l)
{
    struct pm_work w = pm_work_step(s->model, sequences, context);
    return pm_work_floor_s(&w, l);
}

/* The pictures one by one, all texts together; the first token comes out of the prompt. */
static double regions_floor(const struct subject *s, const struct row *row, const struct pm_limit_figures *l)
{
    int patches = 0, merge = s->model->config.vision.merge;
    if (pm_phases_patches(s->model, row->width_px, row->height_px, &patches, NULL))
        return 0;
    int prompt = patches / (merge * merge) + PROMPT_TOKENS;
    return row->count * (vision_floor(s, patches, l) + prefill_floor(s, prompt, l)) +
           (row->tokens - 1) * step_floor(s, row->count, prompt + row->tokens / 2, l);
}

static double floor_of(const struct subject *s, const struct row *row, const struct pm_limit_figures *l)
{
    int patches;
    switch (row->kind) {
    case VISION:
        return pm_phases_patches(s->model, row->width_px, row->height_px, &patches, NULL)
                   ? 0
                   : vision_floor(s, patches, l);
    case PREFILL:
        return prefill_floor(s, row->count, l);
    case STEP:
        return step_floor(s, row->count, CONTEXT + STEPS / 2, l);
    case REGIONS:
    case FIRST:
        return regions_floor(s, row, l);
    default:
        return 0;
    }
}

/* ---- running ---- */

static int run_row(struct bench *b, struct subject *s, const struct row *row, struct sample *out,
                   struct pm_error *err)
{
    int rc;
    switch (row->kind) {
    case VISION:
        return pm_phases_vision(s->phases, row->width_px, row->height_px, &out->seconds, err);
    case PREFILL:
        return pm_phases_prefill(s->phases, row->count, &out->seconds, err);
    case STEP:
        return pm_phases_steps(s->phases, row->count, CONTEXT, STEPS, &out->seconds, err);
    case DRAFTS:
        return pm_phases_drafts(s->phases, row->count, CONTEXT, DRAFT_ROUNDS, &out->seconds, err);
    case PREPARE:
        return glm_prepare_run(&b->jpeg, &s->model->config, &out->seconds, err);
    default:
        rc = regions_run(
            s->dir, &(struct regions){row->width_px, row->height_px, row->tokens, row->count, b->threads},
            &out->regions, err);
        out->seconds = row->kind == FIRST ? out->regions.first_s : out->regions.total_s;
        return rc;
    }
}

static struct pm_limit_figures take_limits(struct bench *b)
{
    struct pm_limit_figures f = pm_limits_take(b->limits);
    if (b->taken_count < LIMITS_MAX)
        b->taken[b->taken_count++] = f;
    return f;
}

static int run_rounds(struct bench *b, struct pm_error *err)
{
    int rc = 0;
    double unused;
    for (int i = 0; i < b->subject_count && !rc; i++) /* the weights come from the disk once */
        rc = pm_phases_steps(b->subjects[i].phases, 1, CONTEXT, 1, &unused, err);
    b->last = take_limits(b);
    for (int round = 0; round < b->rounds && !rc; round++)
        for (int r = 0; r < ROWS && !rc; r++)
            for (int i = 0; i < b->subject_count && !rc && b->is_wanted[r]; i++) {
                struct subject *s = &b->subjects[i];
                if (rows[r].kind == DRAFTS && !s->model->mtp)
                    continue;
                struct sample *sample = &s->samples[r][round];
                rc = run_row(b, s, &rows[r], sample, err);
                if (rc)
                    pm_fail_prefix(err, "%s, %s", pm_precision_name(s->precision), rows[r].key);
                struct pm_limit_figures now = take_limits(b), mean = pm_limits_mean(&b->last, &now);
                sample->floor_s = floor_of(s, &rows[r], &mean);
                b->last = now;
                fprintf(stderr, "round %d of %d: %s, %s: %.4g s\n", round + 1, b->rounds, rows[r].key,
                        pm_precision_name(s->precision), sample->seconds);
            }
    return rc;
}

/* ---- setting up ---- */

/* The folder of a precision is made once of the checkpoint. */
static int pack(const char *source, const struct subject *s, struct pm_error *err)
{
    struct pm_weights *weights = NULL;
    struct pm_glm_ocr_pack_options options = {.precision = s->precision, .source = source, .name = "glm-ocr"};
    int rc = pm_weights_open(source, &weights, err);
    if (!rc) {
        fprintf(stderr, "packing %s in %s\n", source, pm_precision_name(s->precision));
        rc = pm_glm_ocr_pack(weights, s->dir, &options, err);
    }
    pm_weights_close(&weights);
    return rc;
}

static int open_subject(struct bench *b, struct subject *s, struct pm_error *err)
{
    struct pm_model_manifest m = {0};
    char *weights = NULL;
    int rc = pm_model_manifest_read(s->dir, &m, err);
    if (rc && b->settings.source) {
        rc = pack(b->settings.source, s, err);
        if (!rc)
            rc = pm_model_manifest_read(s->dir, &m, err);
    }
    if (!rc)
        rc = pm_model_file(&m, "weights", &weights, err);
    if (!rc)
        rc = pm_glm_ocr_model_open(weights, &s->model, err);
    if (!rc && s->model->precision != s->precision)
        rc = pm_fail(err, PM_EINVAL, "%s: packed in %s", s->dir, pm_precision_name(s->model->precision));
    if (!rc)
        rc = pm_phases_new(s->model, b->pool, SEQUENCES, CONTEXT + 4 * STEPS, &s->phases, err);
    free(weights);
    pm_model_manifest_free(&m);
    return rc;
}

static bool is_listed(const char *list, const char *word)
{
    size_t size = strlen(word);
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, word, size) && (p[size] == ',' || !p[size]))
            return true;
    return false;
}

/* Every word of a list must be one of ours. */
static int check_list(const char *list, const char *option, bool is_rows, struct pm_error *err)
{
    char word[64];
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        enum pm_precision precision;
        snprintf(word, sizeof word, "%.*s", (int)strcspn(p, ","), p);
        bool is_known = !is_rows && pm_precision_parse(word, &precision);
        for (int r = 0; is_rows && r < ROWS; r++)
            is_known |= !strcmp(rows[r].key, word);
        if (!is_known)
            return pm_fail(err, PM_EINVAL, "--%s: there is no \"%s\"", option, word);
    }
    return 0;
}

static int set_up(struct bench *b, const char *models, struct pm_error *err)
{
    const struct settings *o = &b->settings;
    b->threads = o->threads ? (int)o->threads : pm_host_cores();
    b->rounds = (int)o->rounds;
    int rc = check_list(o->only, "only", true, err);
    if (!rc)
        rc = check_list(o->precision, "precision", false, err);
    for (int r = 0; r < ROWS; r++)
        b->is_wanted[r] = !o->only || is_listed(o->only, rows[r].key);
    if (!rc)
        rc = pm_pool_new(b->threads, &b->pool, err);
    if (!rc)
        rc = pm_limits_new(b->pool, &b->limits, err);
    if (!rc)
        rc = glm_prepare_new(1000, 400, &b->jpeg, err);
    for (int p = 0; p < PM_PRECISION_COUNT && !rc; p++) {
        const char *name = pm_precision_name((enum pm_precision)p);
        if (!is_listed(o->precision, name))
            continue;
        struct subject *s = &b->subjects[b->subject_count++];
        s->precision = (enum pm_precision)p;
        snprintf(s->dir, sizeof s->dir, "%s/glm-ocr-%s", models, name);
        rc = open_subject(b, s, err);
    }
    return rc;
}

static void tear_down(struct bench *b)
{
    for (int i = 0; i < b->subject_count; i++) {
        pm_phases_free(&b->subjects[i].phases);
        pm_vlm_model_close(&b->subjects[i].model);
    }
    glm_prepare_free(&b->jpeg);
    pm_limits_free(&b->limits);
    pm_pool_free(&b->pool);
}

/* ---- telling ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* Tokens of one round with drafts: each is kept while all before it were. */
static double tokens_of_round(int drafts)
{
    double tokens = 1, kept = 1;
    for (int i = 0; i < drafts; i++)
        tokens += kept *= ACCEPTED;
    return tokens;
}

/* As the table has it: seconds, or a rate. */
static double figure(const struct row *row, double seconds)
{
    return row->kind == STEP     ? row->count / seconds
           : row->kind == DRAFTS ? tokens_of_round(row->count) / seconds
                                 : seconds;
}

struct told {
    double figure, share, low, high;
    struct regions_result regions;
};

static double median_at(const struct sample *samples, int rounds, size_t offset)
{
    double v[ROUNDS_MAX];
    for (int i = 0; i < rounds; i++)
        memcpy(&v[i], (const char *)&samples[i] + offset, sizeof *v);
    return median(v, rounds);
}

static struct told told_of(const struct bench *b, const struct subject *s, int r)
{
    const struct sample *samples = s->samples[r];
    double figures[ROUNDS_MAX], shares[ROUNDS_MAX];
    for (int i = 0; i < b->rounds; i++) {
        figures[i] = figure(&rows[r], samples[i].seconds);
        shares[i] = 100 * samples[i].floor_s / samples[i].seconds;
    }
    struct told t = {.figure = median(figures, b->rounds), .share = median(shares, b->rounds)};
    t.low = figures[0];
    t.high = figures[b->rounds - 1];
    t.regions.first_s = median_at(samples, b->rounds, offsetof(struct sample, regions.first_s));
    t.regions.vision_s = median_at(samples, b->rounds, offsetof(struct sample, regions.vision_s));
    t.regions.prefill_s = median_at(samples, b->rounds, offsetof(struct sample, regions.prefill_s));
    t.regions.decode_s = median_at(samples, b->rounds, offsetof(struct sample, regions.decode_s));
    t.regions.peak_mb = median_at(samples, b->rounds, offsetof(struct sample, regions.peak_mb));
    t.regions.own_mb = median_at(samples, b->rounds, offsetof(struct sample, regions.own_mb));
    return t;
}

static double limit_median(const struct bench *b, int kind, double *low, double *high)
{
    double v[LIMITS_MAX];
    for (int i = 0; i < b->taken_count; i++)
        v[i] = kind < PM_PEAKS ? b->taken[i].gops[kind] : b->taken[i].read_gb_s;
    double middle = median(v, b->taken_count);
    *low = v[0];
    *high = v[b->taken_count - 1];
    return middle;
}

static bool has_samples(const struct bench *b, const struct subject *s, int r)
{
    return b->is_wanted[r] && s->samples[r][0].seconds > 0;
}

static void tell_limits(const struct bench *b)
{
    static const char *const names[] = {"f32", "bf16", "int8"};
    double low, high;
    printf("| limit | median | range |\n|---|---:|---:|\n");
    for (int kind = 0; kind <= PM_PEAKS; kind++) {
        double middle = limit_median(b, kind, &low, &high);
        if (kind < PM_PEAKS)
            printf("| peak of %s (%s), GOP/s | %.0f | %.0f to %.0f |\n", names[kind],
                   pm_peak_instruction((enum pm_peak)kind), middle, low, high);
        else
            printf("| reading 448 MB, GB/s | %.1f | %.1f to %.1f |\n", middle, low, high);
    }
}

static void tell_rows(const struct bench *b)
{
    printf("\n| |");
    for (int i = 0; i < b->subject_count; i++)
        printf(" %s | range | of the limit |", pm_precision_name(b->subjects[i].precision));
    printf("\n|---|");
    for (int i = 0; i < b->subject_count; i++)
        printf("---:|---:|---:|");
    printf("\n");
    for (int r = 0; r < ROWS; r++) {
        if (!b->is_wanted[r])
            continue;
        printf("| %s |", rows[r].title);
        for (int i = 0; i < b->subject_count; i++) {
            struct told t = told_of(b, &b->subjects[i], r);
            if (!has_samples(b, &b->subjects[i], r))
                printf(" – | | |");
            else if (t.share > 0)
                printf(" %.4g | %.4g to %.4g | %.0f %% |", t.figure, t.low, t.high, t.share);
            else
                printf(" %.4g | %.4g to %.4g | |", t.figure, t.low, t.high);
        }
        printf("\n");
    }
}

static void tell_regions(const struct bench *b)
{
    printf("\n| read by a process of its own | | vision, s | prefill, s | decode, s | tokens/s | peak, MB | "
           "beside the "
           "weights, MB |\n|---|---|---:|---:|---:|---:|---:|---:|\n");
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < b->subject_count; i++) {
            if (rows[r].kind != REGIONS || !has_samples(b, &b->subjects[i], r))
                continue;
            struct told t = told_of(b, &b->subjects[i], r);
            printf("| %s | %s | %.3g | %.3g | %.3g | %.1f | %.0f | %.0f |\n", rows[r].key,
                   pm_precision_name(b->subjects[i].precision), t.regions.vision_s, t.regions.prefill_s,
                   t.regions.decode_s, rows[r].count * (rows[r].tokens - 1) / t.regions.decode_s,
                   t.regions.peak_mb, t.regions.own_mb);
        }
}

static json_t *subject_json(const struct bench *b, const struct subject *s)
{
    json_t *out = json_object();
    for (int r = 0; r < ROWS; r++) {
        if (!has_samples(b, s, r))
            continue;
        struct told t = told_of(b, s, r);
        json_t *row = json_pack("{s:f, s:f, s:f, s:f}", "figure", t.figure, "low", t.low, "high", t.high,
                                "percent_of_limit", t.share);
        if (rows[r].kind == REGIONS)
            json_object_update_new(
                row, json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "first_s", t.regions.first_s, "vision_s",
                               t.regions.vision_s, "prefill_s", t.regions.prefill_s, "decode_s",
                               t.regions.decode_s, "peak_mb", t.regions.peak_mb, "own_mb", t.regions.own_mb));
        json_object_set_new(out, rows[r].key, row);
    }
    return out;
}

static int write_json(const struct bench *b, const char *path, struct pm_error *err)
{
    double low, high;
    json_t *precisions = json_object();
    for (int i = 0; i < b->subject_count; i++)
        json_object_set_new(precisions, pm_precision_name(b->subjects[i].precision),
                            subject_json(b, &b->subjects[i]));
    json_t *out = json_pack("{s:s, s:i, s:i, s:{s:f, s:f, s:f, s:f}, s:o}", "kernels",
                            pm_kernels_get(NULL)->name, "threads", b->threads, "rounds", b->rounds, "limits",
                            "f32_gops", limit_median(b, PM_PEAK_F32, &low, &high), "bf16_gops",
                            limit_median(b, PM_PEAK_BF16, &low, &high), "int8_gops",
                            limit_median(b, PM_PEAK_INT8, &low, &high), "read_gb_per_s",
                            limit_median(b, PM_PEAKS, &low, &high), "precisions", precisions);
    int rc = json_dump_file(out, path, JSON_INDENT(2)) ? pm_fail(err, PM_EIO, "cannot write %s", path) : 0;
    json_decref(out);
    return rc;
}

/* ---- the command ---- */

static const struct pm_option options[] = {
    {"source", 0, PM_OPTION_TEXT, "CHECKPOINT",
     "Pack what DIR lacks from this checkpoint (the build's full-model tool makes one).",
     offsetof(struct settings, source), 0, 0},
    {"precision", 0, PM_OPTION_TEXT, "LIST", "Some of bf16,int8,int4,f32. Default: bf16.",
     offsetof(struct settings, precision), 0, 0},
    {"only", 0, PM_OPTION_TEXT, "LIST",
     "Some of vision,vision-page,prefill,decode,decode-8,drafts-1,drafts-2,drafts-3,line,region,regions-8,"
     "page,first,first-small,prepare. Default: all.",
     offsetof(struct settings, only), 0, 0},
    {"threads", 0, PM_OPTION_UINT, "N", "Default: the cores of this machine.",
     offsetof(struct settings, threads), 1, 1024},
    {"rounds", 0, PM_OPTION_UINT, "N", "Interleaved rounds. Default: 3.", offsetof(struct settings, rounds),
     1, ROUNDS_MAX},
    {"json", 0, PM_OPTION_TEXT, "FILE", "Write the figures there as well.", offsetof(struct settings, json),
     0, 0},
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};
static const struct pm_usage usage = {
    .name = "bench_glm",
    .arguments = "DIR",
    .summary = "what the engine reaches with GLM-OCR, as a share of what the machine allows",
    .about = "DIR holds the packed models: DIR/glm-ocr-bf16, DIR/glm-ocr-int8, ... Between any two "
             "measurements the "
             "machine's limits are taken by the same threads: multiply-adds out of registers alone, reading "
             "of 448 MB that no cache holds. A share is the least time that those limits allow, keys and "
             "values counted, over the time it took. Phases run in this process, whole regions in a process "
             "of their own each. Rounds are interleaved, medians given.\n",
    .tables = tables,
    .least = 1,
    .most = 1};

static int run(struct bench *b, const char *models, struct pm_error *err)
{
    struct utsname host;
    int rc = set_up(b, models, err);
    if (!rc)
        rc = run_rounds(b, err);
    if (rc)
        return rc;
    uname(&host);
    printf("%s, %s, %d threads, kernels %s, medians of %d interleaved rounds\n\n", host.sysname, host.machine,
           b->threads, pm_kernels_get(NULL)->name, b->rounds);
    tell_limits(b);
    tell_rows(b);
    tell_regions(b);
    return b->settings.json ? write_json(b, b->settings.json, err) : 0;
}

int main(int argc, char **argv)
{
    struct pm_error err = {0};
    struct pm_arguments arguments;
    if (argc > 1 && !strcmp(argv[1], "--child"))
        return regions_child(argc - 2, argv + 2);
    struct bench *b = pm_xalloc(sizeof *b);
    b->settings = (struct settings){.precision = "bf16", .rounds = 3};
    int rc = pm_options_parse(&usage, argc, argv, &b->settings, &arguments, &err);
    if (!rc && arguments.wants_help)
        pm_options_help(&usage, 100, stdout);
    else if (!rc)
        rc = run(b, arguments.items[0], &err);
    if (rc)
        fprintf(stderr, "bench_glm: %s\n", err.text);
    tear_down(b);
    free(arguments.items);
    free(b);
    return rc == PM_EINVAL ? 2 : rc ? 1 : 0;
}
