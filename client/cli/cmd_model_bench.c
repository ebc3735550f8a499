/* pagemill model bench: what this machine does with a model, phase by phase, beside its limits.
 *
 * The phases take turns for a few rounds and the median of each is told, so that other work on the machine
 * moves all of them alike; the machine's limits are measured in between, and each figure is given as the
 * share of the time that they would allow. */
#include "client/cli/cmd_model.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/host.h"
#include "base/mem.h"
#include "client/cli/cli.h"
#include "client/cli/locate.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "engine/kernels/kernels.h"
#include "engine/manifest.h"
#include "engine/measure/phases.h"
#include "engine/measure/work.h"

enum {
    ROUNDS = 3,
    BATCH = 8,          /* sequences at once */
    PROMPT_TOKENS = 16, /* around the picture: frame, task, role */
    STEPS = 12,         /* decode steps of one round */
    SIDE_LIMIT = 16384
};

enum phase { VISION, PREFILL, ONE, EIGHT, PHASES };

struct bench {
    struct pm_vlm_model *model;
    struct pm_pool *pool;
    struct pm_limits *limits;
    struct pm_phases *phases;
    struct pm_work work[PHASES];
    int width_px, height_px, patches, image_tokens, context;
    double seconds[PHASES][ROUNDS], share[PHASES][ROUNDS], read_gb_s[ROUNDS];
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(const double *values)
{
    double sorted[ROUNDS];
    memcpy(sorted, values, sizeof sorted);
    qsort(sorted, ROUNDS, sizeof *sorted, compare);
    return sorted[ROUNDS / 2];
}

/* ---- the rounds ---- */

static int run_phase(struct bench *b, enum phase phase, double *out, struct pm_error *err)
{
    switch (phase) {
    case VISION:
        return pm_phases_vision(b->phases, b->width_px, b->height_px, out, err);
    case PREFILL:
        return pm_phases_prefill(b->phases, b->context, out, err);
    default:
        return pm_phases_steps(b->phases, phase == ONE ? 1 : BATCH, b->context, STEPS, out, err);
    }
}

static int run_rounds(struct bench *b, struct pm_error *err)
{
    double unused;
    int rc = run_phase(b, ONE, &unused, err); /* the weights come from the disk once */
    struct pm_limit_figures before = pm_limits_take(b->limits), after, mean;
    for (int r = 0; r < ROUNDS; r++)
        for (int p = 0; p < PHASES && !rc; p++) {
            rc = run_phase(b, (enum phase)p, &b->seconds[p][r], err);
            after = pm_limits_take(b->limits);
            mean = pm_limits_mean(&before, &after);
            b->share[p][r] = 100 * pm_work_floor_s(&b->work[p], &mean) / b->seconds[p][r];
            b->read_gb_s[r] = mean.read_gb_s;
            before = after;
        }
    return rc;
}

/* ---- setting up ---- */

static int set_up(struct bench *b, uint32_t threads, struct pm_error *err)
{
    int merge = b->model->config.vision.merge;
    int rc = pm_phases_patches(b->model, b->width_px, b->height_px, &b->patches, err);
    b->image_tokens = b->patches / (merge * merge);
    b->context = b->image_tokens + PROMPT_TOKENS;
    if (!rc)
        rc = pm_pool_new((int)threads, &b->pool, err);
    if (!rc)
        rc = pm_limits_new(b->pool, &b->limits, err);
    if (!rc)
        rc = pm_phases_new(b->model, b->pool, BATCH, b->context + STEPS, &b->phases, err);
    if (rc)
        return rc;
    b->work[VISION] = pm_work_vision(b->model, b->patches);
    b->work[PREFILL] = pm_work_prefill(b->model, b->context);
    b->work[ONE] = pm_work_step(b->model, 1, b->context + STEPS / 2);
    b->work[EIGHT] = pm_work_step(b->model, BATCH, b->context + STEPS / 2);
    return 0;
}

static void tear_down(struct bench *b)
{
    pm_phases_free(&b->phases);
    pm_limits_free(&b->limits);
    pm_pool_free(&b->pool);
    pm_vlm_model_close(&b->model);
}

/* ---- telling ---- */

static void tell_json(const struct bench *b, const char *name, uint32_t threads)
{
    json_t *out = json_pack(
        "{s:s, s:s, s:i, s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:i, s:f, s:f, s:{s:f, s:f, s:f, s:f}}",
        "name", name, "precision", pm_precision_name(b->model->precision), "threads", (int)threads, "kernels",
        pm_kernels_get(NULL)->name, "crop_width_px", b->width_px, "crop_height_px", b->height_px,
        "image_tokens", b->image_tokens, "vision_s", median(b->seconds[VISION]), "prefill_tokens_per_s",
        b->context / median(b->seconds[PREFILL]), "decode_tokens_per_s", 1 / median(b->seconds[ONE]),
        "decode_batch_tokens_per_s", BATCH / median(b->seconds[EIGHT]), "batch", BATCH, "gb_per_pass",
        b->work[ONE].bytes / 1e9, "memory_gb_per_s", median(b->read_gb_s), "percent_of_limit", "vision",
        median(b->share[VISION]), "prefill", median(b->share[PREFILL]), "decode", median(b->share[ONE]),
        "decode_batch", median(b->share[EIGHT]));
    char *text = json_dumps(out, JSON_INDENT(2));
    printf("%s\n", text ? text : "null");
    free(text);
    json_decref(out);
}

static void tell(const struct bench *b, const char *name, uint32_t threads)
{
    double vision = median(b->seconds[VISION]), prefill = median(b->seconds[PREFILL]),
           one = median(b->seconds[ONE]), eight = median(b->seconds[EIGHT]), gb = b->work[ONE].bytes / 1e9;
    printf("%s: %s, %u threads, kernels %s\n", name, pm_precision_name(b->model->precision), threads,
           pm_kernels_get(NULL)->name);
    printf("crop         %d x %d px: %d patches, %d tokens\n", b->width_px, b->height_px, b->patches,
           b->image_tokens);
    printf("vision       %.3f s, %.0f image tokens/s: %.0f %% of what the processor allows\n", vision,
           b->image_tokens / vision, median(b->share[VISION]));
    printf("prefill      %.3f s, %.0f tokens/s: %.0f %%\n", prefill, b->context / prefill,
           median(b->share[PREFILL]));
    printf("decode       %.1f tokens/s: %.2f GB of weights and cache a token, %.1f GB/s: %.0f %% of what the "
           "memory allows\n",
           1 / one, gb, gb / one, median(b->share[ONE]));
    printf("decode of %d  %.1f tokens/s together: %.0f %%\n", BATCH, BATCH / eight, median(b->share[EIGHT]));
    printf("memory       %.1f GB/s read by %u threads\n", median(b->read_gb_s), threads);
}

/* ---- the command ---- */

/* "1120x448", or what the manifest of a line reader says. */
static int choose_crop(struct bench *b, const char *given, const struct pm_model_manifest *m,
                       struct pm_error *err)
{
    char rest;
    b->width_px = 1120;
    b->height_px = 448;
    if (given) {
        if (sscanf(given, "%dx%d%c", &b->width_px, &b->height_px, &rest) != 2 || b->width_px < 1 ||
            b->height_px < 1 || b->width_px > SIDE_LIMIT || b->height_px > SIDE_LIMIT)
            return pm_fail(err, PM_EINVAL, "--crop %s: must be WIDTHxHEIGHT, at most %d each", given,
                           SIDE_LIMIT);
        return 0;
    }
    json_t *manifest = json_loads(m->json, 0, NULL);
    json_int_t height = json_integer_value(json_object_get(manifest, "line_height_px")),
               width = json_integer_value(json_object_get(manifest, "max_width_px"));
    if (m->region_kind == PM_REGION_LINE && height > 0 && height <= SIDE_LIMIT && width > 1 &&
        width <= SIDE_LIMIT) {
        b->height_px = (int)height;
        b->width_px = (int)width / 2;
    }
    json_decref(manifest);
    return 0;
}

static int bench_model(const struct pm_model_settings *s, const char *name, struct pm_error *err)
{
    struct bench *b = pm_xalloc(sizeof *b);
    struct pm_model_manifest m = {0};
    char *models = NULL, *weights = NULL;
    uint32_t threads = s->threads ? s->threads : (uint32_t)pm_host_cores();
    int rc = pm_locate_models(s->models, &models, err);
    if (!rc)
        rc = pm_model_find(models, name, &m, err);
    if (!rc && strcmp(m.family, "glm_ocr") != 0)
        rc = pm_fail(err, PM_EUNSUPPORTED,
                     "\"%s\" is of the family %s: bench measures readers that write token by token", name,
                     m.family);
    if (!rc)
        rc = choose_crop(b, s->crop, &m, err);
    if (!rc)
        rc = pm_model_file(&m, "weights", &weights, err);
    if (!rc)
        rc = pm_glm_ocr_model_open(weights, &b->model, err);
    if (!rc)
        rc = set_up(b, threads, err);
    if (!rc)
        rc = run_rounds(b, err);
    if (!rc && s->is_json)
        tell_json(b, name, threads);
    else if (!rc)
        tell(b, name, threads);
    tear_down(b);
    free(b);
    pm_model_manifest_free(&m);
    free(weights);
    free(models);
    return rc;
}

int pm_cli_model_bench(const struct pm_model_settings *s, const char *name)
{
    struct pm_error err;
    int rc = bench_model(s, name, &err);
    if (rc)
        pm_cli_error("%s", err.text);
    return !rc ? PM_EXIT_OK : rc == PM_EINVAL ? PM_EXIT_USAGE : PM_EXIT_FAILED;
}
