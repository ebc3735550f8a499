/* pagemill model bench: what this machine does with a model, phase by phase, beside its memory.
 *
 * The phases take turns for a few rounds and the median of each is told, so that other work on the machine
 * moves all of them alike. */
#include "client/cli/cmd_model.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/host.h"
#include "client/cli/cli.h"
#include "client/cli/locate.h"
#include "engine/manifest.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "engine/vlm/decoder.h"

enum {
    ROUNDS = 3,
    BATCH = 8,          /* sequences at once */
    PREFILL_ROWS = 256, /* of one pass, as the generator's */
    PROMPT_TOKENS = 12, /* around the picture: frame, task, role */
    STEPS = 12,         /* decode steps of one round */
    MEMORY_BYTES = 256 << 20,
    SLICE_BYTES = 1 << 20,
    SIDE_LIMIT = 16384
};

struct bench {
    struct pm_vlm_model *model;
    const struct pm_kernels *kernels;
    struct pm_pool *pool;
    struct pm_kv_pool *kv_pool;
    struct pm_kv kv[BATCH];
    struct pm_decoder *decoder;
    struct pm_vision *vision;
    struct pm_patches patches;
    struct pm_decoder_row *rows;
    uint64_t *memory;
    uint64_t sums[1024]; /* of threads: reading must have a purpose */
    int width_px, height_px, image_tokens, context;
    double vision_s[ROUNDS], prefill_s[ROUNDS], one_s[ROUNDS], batch_s[ROUNDS], memory_s[ROUNDS];
};

static double seconds_since(int64_t start_us)
{
    return (double)(pm_clock_us() - start_us) / 1e6;
}

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

/* ---- the phases ---- */

static void read_slice(void *arg, int job, int thread)
{
    struct bench *b = arg;
    const uint64_t *p = b->memory + (size_t)job * (SLICE_BYTES / sizeof *p);
    uint64_t sum = 0;
    for (size_t i = 0; i < SLICE_BYTES / sizeof *p; i++)
        sum += p[i];
    b->sums[thread] += sum;
}

static double time_memory(struct bench *b)
{
    int64_t start = pm_clock_us();
    pm_pool_run(b->pool, read_slice, b, MEMORY_BYTES / SLICE_BYTES);
    return seconds_since(start);
}

static int time_vision(struct bench *b, double *out, struct pm_error *err)
{
    int64_t start = pm_clock_us();
    int rc = pm_vision_begin(b->vision, &b->patches, err);
    while (!rc && !pm_vision_step(b->vision, INT64_MAX / 4))
        ;
    *out = seconds_since(start);
    return rc;
}

static void set_row(struct bench *b, int row, int sequence, int slot, bool wants_logits)
{
    /* Any ids do: the work is the same. Text ids only, the picture's placeholders are not looked up. */
    int32_t id = (int32_t)((slot * 31 + sequence * 7) % b->model->config.text.vocab);
    b->rows[row] = (struct pm_decoder_row){.kv = &b->kv[sequence],
                                           .slot = slot,
                                           .token = id,
                                           .position = {slot, slot, slot},
                                           .wants_logits = wants_logits};
}

static int time_prefill(struct bench *b, double *out, struct pm_error *err)
{
    int64_t start = pm_clock_us();
    int rc = 0;
    for (int first = 0; first < b->context && !rc; first += PREFILL_ROWS) {
        int count = b->context - first < PREFILL_ROWS ? b->context - first : PREFILL_ROWS;
        for (int i = 0; i < count; i++)
            set_row(b, i, 0, first + i, first + i + 1 == b->context);
        rc = pm_decoder_run(b->decoder, b->rows, count, err);
    }
    *out = seconds_since(start);
    return rc;
}

/* Tokens that follow the picture, of so many sequences at once. */
static int time_decode(struct bench *b, int sequences, double *out, struct pm_error *err)
{
    int64_t start = pm_clock_us();
    int rc = 0;
    for (int step = 0; step < STEPS && !rc; step++) {
        for (int s = 0; s < sequences; s++)
            set_row(b, s, s, b->context + step, true);
        rc = pm_decoder_run(b->decoder, b->rows, sequences, err);
    }
    *out = seconds_since(start) / STEPS;
    return rc;
}

static int run_rounds(struct bench *b, struct pm_error *err)
{
    double unused;
    int rc = time_decode(b, 1, &unused, err); /* the weights come from the disk once */
    for (int r = 0; r < ROUNDS && !rc; r++) {
        b->memory_s[r] = time_memory(b);
        rc = time_vision(b, &b->vision_s[r], err);
        if (!rc)
            rc = time_prefill(b, &b->prefill_s[r], err);
        if (!rc)
            rc = time_decode(b, 1, &b->one_s[r], err);
        if (!rc)
            rc = time_decode(b, BATCH, &b->batch_s[r], err);
    }
    return rc;
}

/* ---- setting up ---- */

/* A picture with something in it; what it is does not matter. */
static int make_patches(struct bench *b, struct pm_error *err)
{
    struct pm_image image = {0};
    int rc = pm_image_alloc(b->width_px, b->height_px, 1, &image, err);
    for (int y = 0; !rc && y < b->height_px; y++)
        for (int x = 0; x < b->width_px; x++)
            image.owned[(size_t)y * image.stride_bytes + (size_t)x] = (uint8_t)(x * y >> 4);
    if (!rc)
        rc = pm_patches_make(&b->model->config, &image, &b->patches, err);
    pm_image_free(&image);
    int merge = b->model->config.vision.merge;
    b->image_tokens = b->patches.rows * b->patches.columns / (merge * merge);
    b->context = b->image_tokens + PROMPT_TOKENS;
    return rc;
}

static int set_up(struct bench *b, uint32_t threads, struct pm_error *err)
{
    void *memory;
    b->kernels = pm_kernels_get(NULL);
    int rc = make_patches(b, err);
    if (!rc)
        rc = pm_pool_new((int)threads, &b->pool, err);
    if (!rc)
        rc = pm_alloc_array(MEMORY_BYTES, 1, &memory, err);
    if (rc)
        return rc;
    b->memory = memory;
    memset(memory, 1, MEMORY_BYTES);
    if (b->context + STEPS > b->model->config.text.max_positions)
        return pm_fail(err, PM_ELIMIT,
                       "the crop takes %d tokens, the model has %d positions: choose a smaller --crop",
                       b->image_tokens, b->model->config.text.max_positions);
    b->kv_pool = pm_kv_pool_new(b->model, SIZE_MAX);
    for (int s = 0; s < BATCH && !rc; s++)
        rc = pm_kv_reserve(b->kv_pool, &b->kv[s], b->context + STEPS, err);
    b->rows = pm_xalloc(PREFILL_ROWS * sizeof *b->rows);
    b->decoder = pm_decoder_new(b->model, b->kernels, b->pool, b->kv_pool, PREFILL_ROWS);
    b->vision = pm_vision_new(b->model, b->kernels, b->pool);
    if (!rc && (!b->decoder || !b->vision))
        rc = pm_fail(err, PM_ENOMEM, "no memory for the working space of the model");
    return rc;
}

static void tear_down(struct bench *b)
{
    for (int s = 0; s < BATCH && b->kv_pool; s++)
        pm_kv_release(b->kv_pool, &b->kv[s]);
    pm_vision_free(&b->vision);
    pm_decoder_free(&b->decoder);
    pm_kv_pool_free(&b->kv_pool);
    pm_pool_free(&b->pool);
    pm_patches_free(&b->patches);
    pm_vlm_model_close(&b->model);
    free(b->rows);
    free(b->memory);
}

/* ---- telling ---- */

/* Bytes of weights that one pass of the decoder reads. */
static uint64_t pass_bytes(const struct pm_vlm_model *model)
{
    static const char layers[] = "model.language_model.layers.";
    uint64_t bytes = 0;
    for (size_t i = 0; i < pm_pack_count(model->pack); i++) {
        const struct pm_tensor *t = &pm_pack_at(model->pack, i)->tensor;
        bool is_layer = !strncmp(t->name, layers, sizeof layers - 1) &&
                        strtol(t->name + sizeof layers - 1, NULL, 10) < model->config.text.layers;
        if (is_layer || !strcmp(t->name, "lm_head.weight"))
            bytes += t->bytes;
    }
    return bytes;
}

static void tell(const struct bench *b, const char *name, uint32_t threads, bool is_json)
{
    const char *precision = pm_precision_name(b->model->precision);
    double vision = median(b->vision_s), prefill = median(b->prefill_s), one = median(b->one_s),
           batch = median(b->batch_s), gb = (double)pass_bytes(b->model) / 1e9,
           read = MEMORY_BYTES / 1e9 / median(b->memory_s);
    if (is_json) {
        json_t *out =
            json_pack("{s:s, s:s, s:i, s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:i, s:f, s:f}", "name", name,
                      "precision", precision, "threads", (int)threads, "kernels", b->kernels->name,
                      "crop_width_px", b->width_px, "crop_height_px", b->height_px, "image_tokens",
                      b->image_tokens, "vision_s", vision, "prefill_tokens_per_s", b->context / prefill,
                      "decode_tokens_per_s", 1 / one, "decode_batch_tokens_per_s", BATCH / batch, "batch",
                      BATCH, "gb_per_pass", gb, "memory_gb_per_s", read);
        char *text = json_dumps(out, JSON_INDENT(2));
        printf("%s\n", text ? text : "null");
        free(text);
        json_decref(out);
        return;
    }
    printf("%s: %s, %u threads, kernels %s\n", name, precision, threads, b->kernels->name);
    printf("crop         %d x %d px: %d x %d patches, %d tokens\n", b->width_px, b->height_px,
           b->patches.columns, b->patches.rows, b->image_tokens);
    printf("vision       %.3f s, %.0f image tokens/s\n", vision, b->image_tokens / vision);
    printf("prefill      %.3f s, %.0f tokens/s\n", prefill, b->context / prefill);
    printf("decode       %.1f tokens/s: %.2f GB of weights a token, %.1f GB/s\n", 1 / one, gb, gb / one);
    printf("decode of %d  %.1f tokens/s together\n", BATCH, BATCH / batch);
    printf("memory       %.1f GB/s read by %u threads\n", read, threads);
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
    if (!rc)
        tell(b, name, threads, s->is_json);
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
