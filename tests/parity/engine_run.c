/* Prompt, pictures, prefill and greedy decoding of a case. */
#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "tests/parity/engine.h"
#include "tests/parity/golden.h"

/* Tolerances of the reference's own measurements (f32 against f64, eager against fused attention), with room.
 */
#define VISION_ABSOLUTE 2e-5
#define VISION_RELATIVE 1e-4
#define HIDDEN_ABSOLUTE 1e-3
#define LOGIT_ABSOLUTE  2e-3
#define ROPE_ABSOLUTE   1e-5

enum { END_TOKENS = 256 }; /* an end id must come before */

/* ---- pictures ---- */

static int load_images(struct engine_case *c, struct pm_error *err)
{
    const json_t *list = json_object_get(c->object, "images"), *one = json_object_get(c->object, "image");
    size_t count = json_is_array(list) ? json_array_size(list) : json_is_string(one) ? 1 : 0;
    if (count > ENGINE_IMAGES_MAX)
        return pm_fail(err, PM_EFORMAT, "%zu pictures in one case", count);
    for (size_t i = 0; i < count; i++) {
        const char *name = json_string_value(json_is_array(list) ? json_array_get(list, i) : one);
        if (!name)
            return pm_fail(err, PM_EFORMAT, "case.json: images: not a list of names");
        char *path = pm_fs_join(c->folder, name);
        int rc = parity_read_png(path, &c->images[i], err);
        free(path);
        if (!rc)
            rc = pm_patches_make(&c->model->config, &c->images[i], &c->patches[i], err);
        if (rc)
            return rc;
        c->image_count++;
        c->grids[i] = (struct pm_image_grid){c->patches[i].rows, c->patches[i].columns};
    }
    return 0;
}

/* The resized bytes of picture i beside the tensor "resized_u8.i", R, G, B there. */
static int check_resized(struct engine_case *c, int i, struct parity_verdict *v, struct pm_error *err)
{
    char name[32];
    snprintf(name, sizeof name, "resized_u8.%d", i);
    const struct pm_tensor *t = engine_expected(c, name, PM_DTYPE_U8);
    if (!t)
        return 0;
    struct pm_image resized = {0};
    int patch = c->model->config.vision.patch;
    int rc = pm_resize_bicubic(&c->images[i], c->grids[i].columns * patch, c->grids[i].rows * patch, &resized,
                               err);
    if (rc)
        return rc;
    int channels = resized.channels, width = resized.width_px, height = resized.height_px;
    if (t->rank != 3 || t->shape[0] != (uint64_t)height || t->shape[1] != (uint64_t)width ||
        t->shape[2] != 3) {
        parity_fail(v, "%s: %d x %d, not %d x %d", name, width, height, (int)t->shape[1], (int)t->shape[0]);
    } else {
        int worst = 0;
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width * 3; x++) {
                const uint8_t *row = resized.pixels + (size_t)y * resized.stride_bytes;
                int ours = channels == 3 ? row[x / 3 * 3 + 2 - x % 3] : row[x / 3];
                int error = abs(ours - t->data[(size_t)y * (size_t)width * 3 + (size_t)x]);
                worst = error > worst ? error : worst;
            }
        parity_report(v, name, worst, 0);
    }
    pm_image_free(&resized);
    return 0;
}

/* All pictures' values, one below the other, beside their hash and, where it is there, the tensor. */
static void check_values(struct engine_case *c, struct parity_verdict *v)
{
    const struct pm_vision_config *config = &c->model->config.vision;
    size_t columns = (size_t)config->in_channels * (size_t)config->temporal * (size_t)config->patch *
                     (size_t)config->patch;
    struct pm_buf all = {0};
    for (int i = 0; i < c->image_count; i++)
        pm_buf_append(&all, c->patches[i].values,
                      (size_t)c->grids[i].rows * (size_t)c->grids[i].columns * columns * sizeof(float));
    const struct pm_tensor *t = engine_expected(c, "pixel_values", PM_DTYPE_F32);
    if (t)
        engine_compare_floats(v, "pixel_values", (const float *)(const void *)all.data, t,
                              all.size / sizeof(float), 1e-6, 0);
    const char *expected = json_string_value(json_object_get(c->object, "pixel_values_sha256_f32"));
    if (expected) {
        uint8_t sha[crypto_hash_sha256_BYTES];
        char hex[2 * sizeof sha + 1];
        crypto_hash_sha256(sha, all.data, all.size);
        sodium_bin2hex(hex, sizeof hex, sha, sizeof sha);
        if (strcmp(hex, expected) == 0)
            parity_report(v, "hash of the pixel values", 0, 0);
        else if (t)
            parity_note(v, "the hash of the pixel values differs");
        else
            parity_fail(v, "the hash of the pixel values differs");
    }
    pm_buf_free(&all);
}

static void check_images(struct engine_case *c)
{
    struct parity_verdict v = {0};
    struct pm_error err = {0};
    const struct pm_tensor *grid = engine_expected(c, "image_grid_thw", PM_DTYPE_I32);
    int rc = 0;
    if (grid && engine_elements(grid) != 3 * (size_t)c->image_count)
        parity_fail(&v, "%d pictures, not %zu", c->image_count, engine_elements(grid) / 3);
    for (int i = 0; i < c->image_count && rc == 0 && !v.failed; i++) {
        if (grid && (engine_int(grid, 3 * (size_t)i + 1) != c->grids[i].rows ||
                     engine_int(grid, 3 * (size_t)i + 2) != c->grids[i].columns))
            parity_fail(&v, "picture %d: %d x %d patches, not %d x %d", i, c->grids[i].columns,
                        c->grids[i].rows, engine_int(grid, 3 * (size_t)i + 2),
                        engine_int(grid, 3 * (size_t)i + 1));
        else
            rc = check_resized(c, i, &v, &err);
    }
    if (rc == 0 && !v.failed)
        check_values(c, &v);
    if (c->image_count > 0)
        engine_line(c, "pictures", rc, &v, &err);
}

/* ---- prompt ---- */

static int take_ids(struct engine_case *c, struct pm_error *err)
{
    const struct pm_tensor *t = engine_expected(c, "input_ids", PM_DTYPE_I32);
    if (!t || engine_elements(t) == 0)
        return pm_fail(err, PM_EFORMAT, "expected.safetensors: no input_ids");
    c->id_count = (int)engine_elements(t);
    c->ids = pm_xalloc((size_t)c->id_count * sizeof *c->ids);
    memcpy(c->ids, t->data, (size_t)c->id_count * sizeof *c->ids);
    return 0;
}

static int check_positions(struct engine_case *c, struct pm_error *err)
{
    struct parity_verdict v = {0};
    c->positions = pm_xalloc((size_t)c->id_count * sizeof *c->positions);
    int rc = pm_vlm_positions(&c->model->config, c->ids, c->id_count, c->grids, c->image_count, c->positions,
                              &c->delta, err);
    if (rc == 0) {
        const struct pm_tensor *t = engine_expected(c, "position_ids", PM_DTYPE_I32);
        int32_t *rows = pm_xalloc((size_t)c->id_count * 3 * sizeof *rows);
        for (int i = 0; i < 3 * c->id_count; i++)
            rows[i] = c->positions[i % c->id_count][i / c->id_count];
        if (t)
            engine_compare_ids(&v, "position_ids", rows, 3 * c->id_count, t);
        t = engine_expected(c, "rope_delta", PM_DTYPE_I32);
        if (t)
            engine_compare_ids(&v, "rope_delta", &c->delta, 1, t);
        free(rows);
    }
    engine_line(c, "positions", rc, &v, err);
    return rc;
}

int engine_prepare(struct engine_case *c, struct pm_error *err)
{
    int rc = load_images(c, err);
    if (rc == 0)
        rc = take_ids(c, err);
    if (rc)
        return rc;
    check_images(c);
    engine_check_prompt(c);
    return check_positions(c, err);
}

/* ---- prefill ---- */

/* Image tokens of all pictures, [count, hidden]; free(). */
static int run_vision(struct engine_case *c, float **out, int *count_out, struct pm_error *err)
{
    struct pm_buf all = {0};
    int total = 0, rc = 0;
    pm_vision_set_probe(c->vision, engine_probe, c);
    for (int i = 0; i < c->image_count && rc == 0; i++) {
        rc = pm_vision_begin(c->vision, &c->patches[i], err);
        if (rc)
            break;
        while (!pm_vision_step(c->vision, (int64_t)1 << 31))
            ;
        int count;
        const float *tokens = pm_vision_tokens(c->vision, &count);
        pm_buf_append(&all, tokens, (size_t)count * (size_t)c->model->config.text.hidden * sizeof *tokens);
        total += count;
    }
    *out = (float *)(void *)all.data;
    *count_out = total;
    return rc;
}

static int run_chunk(struct engine_case *c, const struct pm_decoder_row *rows, int first, int count,
                     struct pm_error *err)
{
    int rc = pm_decoder_run(c->decoder, rows + first, count, err);
    if (rc)
        return rc;
    size_t vocab = (size_t)c->model->config.text.vocab, hidden = (size_t)c->model->config.text.hidden;
    for (int r = 0; r < count; r++) {
        memcpy(c->logits + (size_t)(first + r) * vocab, pm_decoder_logits(c->decoder, r),
               vocab * sizeof(float));
        memcpy(c->hidden + (size_t)(first + r) * hidden, pm_decoder_hidden(c->decoder, r),
               hidden * sizeof(float));
    }
    return 0;
}

int engine_prefill(struct engine_case *c, struct pm_error *err)
{
    const struct pm_text_config *text = &c->model->config.text;
    float *tokens;
    int token_count, used = 0;
    int rc = run_vision(c, &tokens, &token_count, err);
    if (rc == 0)
        rc = pm_kv_reserve(c->kv_pool, &c->kv, c->id_count, err);
    struct pm_decoder_row *rows = pm_xalloc((size_t)c->id_count * sizeof *rows);
    for (int i = 0; i < c->id_count && rc == 0; i++) {
        rows[i] = (struct pm_decoder_row){
            .kv = &c->kv,
            .slot = i,
            .token = c->ids[i],
            .position = {c->positions[i][0], c->positions[i][1], c->positions[i][2]},
            .wants_logits = true,
        };
        if (c->ids[i] != c->model->config.image_id)
            continue;
        if (used == token_count)
            rc = pm_fail(err, PM_EFORMAT, "the prompt has more placeholders than the pictures have tokens");
        else
            rows[i].embedding = tokens + (size_t)used++ * (size_t)text->hidden;
    }
    c->logits = pm_xalloc((size_t)c->id_count * (size_t)text->vocab * sizeof *c->logits);
    c->hidden = pm_xalloc((size_t)c->id_count * (size_t)text->hidden * sizeof *c->hidden);
    c->hidden_rows = c->id_count;
    pm_decoder_set_probe(c->decoder, engine_probe, c);
    for (int first = 0; first < c->id_count && rc == 0; first += ENGINE_ROWS)
        rc = run_chunk(c, rows, first, c->id_count - first < ENGINE_ROWS ? c->id_count - first : ENGINE_ROWS,
                       err);
    pm_decoder_set_probe(c->decoder, NULL, NULL);
    free(rows);
    free(tokens);
    return rc;
}

/* Our table has one value a pair, the reference's one a value of the head. */
static void check_rope(struct engine_case *c)
{
    struct parity_verdict v = {0};
    static const char *const names[] = {"text.rope_cos", "text.rope_sin"};
    for (int k = 0; k < 2; k++) {
        const struct pm_tensor *t = engine_expected(c, names[k], PM_DTYPE_F32);
        const struct engine_capture *capture = engine_captured(c, names[k]);
        if (!t || !capture)
            continue;
        size_t count = (size_t)capture->rows * (size_t)capture->columns * 2;
        float *pairs = pm_xalloc(count * sizeof *pairs);
        bool is_half = c->model->config.text.rope_pairs == PM_ROPE_HALF_SPLIT;
        for (size_t i = 0; i < count; i++) {
            size_t n = (size_t)capture->columns, row = i / (2 * n), at = i % (2 * n);
            pairs[i] = capture->values[row * n + (is_half ? at % n : at / 2)];
        }
        engine_compare_floats(&v, names[k], pairs, t, count, ROPE_ABSOLUTE, 0);
        free(pairs);
    }
    if (v.what[0])
        engine_line(c, "rope", 0, &v, NULL);
}

static void check_logits(struct engine_case *c)
{
    const struct pm_tensor *t = engine_expected(c, "logits", PM_DTYPE_F32);
    if (!t)
        return;
    struct parity_verdict v = {0};
    int vocab = c->model->config.text.vocab;
    if (engine_is_rounded(c))
        engine_compare_rounded_logits(c, &v, t);
    else
        engine_compare_floats(&v, "logits", c->logits, t, (size_t)c->id_count * (size_t)vocab, LOGIT_ABSOLUTE,
                              0);
    engine_line(c, "logits", 0, &v, NULL);
}

void engine_check_prefill(struct engine_case *c)
{
    static const char *const vision[] = {"vision.patch_embed", "vision.blocks", "vision.post_layernorm",
                                         "vision.downsample",  "vision.merger", "text.inputs_embeds"};
    for (size_t i = 0; i < sizeof vision / sizeof vision[0]; i++)
        engine_compare_captured(c, vision[i], vision[i], VISION_ABSOLUTE, VISION_RELATIVE, ENGINE_TOWER);
    check_rope(c);
    engine_compare_captured(c, "text.layers", "text.layers", HIDDEN_ABSOLUTE, 0, ENGINE_TEXT);
    engine_compare_captured(c, "text.norm", "text.norm", HIDDEN_ABSOLUTE, 0, ENGINE_TEXT);
    check_logits(c);
}

/* ---- keys and values in 8 bits ---- */

/* Logits of the prompt with the other cache; free(). */
static int prefill_kv8(struct engine_case *c, float **logits_out, struct pm_error *err)
{
    struct pm_kv_pool *kv_pool = c->kv_pool;
    struct pm_decoder *decoder = c->decoder;
    struct pm_kv kv = c->kv;
    float *logits = c->logits, *hidden = c->hidden;
    int rc = 0;
    c->logits = c->hidden = NULL;
    c->kv = (struct pm_kv){0};
    c->kv_pool = pm_kv_pool_new_format(c->model, PM_KV_INT8, SIZE_MAX);
    c->decoder = pm_decoder_new(c->model, c->kernels, c->pool, c->kv_pool, ENGINE_ROWS);
    if (!c->decoder)
        rc = pm_fail(err, PM_ENOMEM, "no memory for the scratch of the model");
    else
        rc = engine_prefill(c, err);
    *logits_out = c->logits;
    free(c->hidden);
    pm_kv_release(c->kv_pool, &c->kv);
    pm_decoder_free(&c->decoder);
    pm_kv_pool_free(&c->kv_pool);
    c->kv_pool = kv_pool;
    c->decoder = decoder;
    c->kv = kv;
    c->logits = logits;
    c->hidden = hidden;
    return rc;
}

void engine_check_kv8(struct engine_case *c)
{
    if (!engine_is_rounded(c))
        return;
    struct parity_verdict v = {0};
    struct pm_error err = {0};
    float *logits = NULL;
    int rc = prefill_kv8(c, &logits, &err);
    if (rc == 0) {
        int vocab = c->model->config.text.vocab;
        struct engine_distance d = {0};
        for (int r = 0; r < c->id_count; r++)
            engine_distance_row(&d, logits + (size_t)r * (size_t)vocab, c->logits + (size_t)r * (size_t)vocab,
                                vocab);
        engine_report_logits(&v, &d, engine_limit_kv8(c->bf16_logits));
    }
    engine_line(c, "logits, 8-bit cache", rc, &v, &err);
    free(logits);
}

/* ---- greedy decoding ---- */

struct greedy {
    struct pm_sampling sampling;
    int max_tokens;
    const struct pm_tensor *eos; /* NULL: none */
    bool is_main;                /* keeps hidden states and top logits */
    struct parity_verdict *verdict;
};

static bool is_end(const struct pm_tensor *eos, int32_t id)
{
    for (size_t i = 0; eos && i < engine_elements(eos); i++)
        if (engine_int(eos, i) == id)
            return true;
    return false;
}

/* The expected top logits of a step: ours at their ids, and ours in order, beside theirs. (Ids of the lower
 * ranks may swap within the tolerance.) */
static void check_top(struct engine_case *c, struct parity_verdict *v, int step, const float *logits)
{
    const struct pm_tensor *ids = engine_expected(c, "greedy.top5_ids", PM_DTYPE_I32);
    const struct pm_tensor *values = engine_expected(c, "greedy.top5_logits", PM_DTYPE_F32);
    int vocab = c->model->config.text.vocab;
    char name[40];
    snprintf(name, sizeof name, "greedy.logits_step%d", step);
    const struct pm_tensor *all = engine_expected(c, name, PM_DTYPE_F32);
    if (all)
        engine_compare_floats(v, name, logits, all, (size_t)vocab, LOGIT_ABSOLUTE, 0);
    if (!ids || !values || ids->rank != 2 || engine_elements(ids) != engine_elements(values) ||
        (uint64_t)step >= ids->shape[0])
        return;
    for (size_t k = 0; k < ids->shape[1]; k++) {
        size_t at = (size_t)step * ids->shape[1] + k;
        int32_t id = engine_int(ids, at);
        if (id < 0 || id >= vocab) {
            parity_fail(v, "top5_ids: %d is no id", id);
            return;
        }
        float theirs = engine_float(values, at);
        parity_report(v, "top logits", fabs((double)logits[id] - (double)theirs), LOGIT_ABSOLUTE);
        int above = 0;
        for (int i = 0; i < vocab; i++)
            above += (double)logits[i] > (double)theirs + LOGIT_ABSOLUTE;
        if ((size_t)above > k)
            parity_fail(v, "step %d: %d ids above rank %zu", step, above, k);
    }
}

static int run_token(struct engine_case *c, int slot, int32_t id, struct pm_error *err)
{
    int32_t position = slot + c->delta;
    int rc = pm_kv_reserve(c->kv_pool, &c->kv, slot + 1, err);
    return rc ? rc
              : pm_decoder_run(c->decoder,
                               &(struct pm_decoder_row){
                                   .kv = &c->kv,
                                   .slot = slot,
                                   .token = id,
                                   .position = {position, position, position},
                                   .wants_logits = true,
                               },
                               1, err);
}

static void keep_hidden(struct engine_case *c)
{
    size_t hidden = (size_t)c->model->config.text.hidden;
    c->hidden = pm_xrealloc(c->hidden, (size_t)(c->hidden_rows + 1) * hidden * sizeof *c->hidden);
    memcpy(c->hidden + (size_t)c->hidden_rows++ * hidden, pm_decoder_hidden(c->decoder, 0),
           hidden * sizeof(float));
}

/* Decodes from the prompt's cache; *ids_out: [*count_out], free(). The cache ends at the prompt again. */
static int decode(struct engine_case *c, const struct greedy *g, int32_t **ids_out, int *count_out,
                  struct pm_error *err)
{
    int vocab = c->model->config.text.vocab, count = 0, rc = 0;
    int32_t *ids = pm_xalloc((size_t)(c->id_count + g->max_tokens) * sizeof *ids);
    float *scratch = pm_xalloc(2 * (size_t)vocab * sizeof *scratch);
    const float *logits = c->logits + (size_t)(c->id_count - 1) * (size_t)vocab;
    memcpy(ids, c->ids, (size_t)c->id_count * sizeof *ids);
    while (count < g->max_tokens && rc == 0) {
        struct pm_sample sample;
        struct pm_history history = {ids, c->id_count + count, c->id_count};
        pm_sampler_pick(&g->sampling, &history, NULL, logits, vocab, count, scratch, &sample);
        if (g->is_main)
            check_top(c, g->verdict, count, logits);
        ids[c->id_count + count++] = sample.id;
        if (is_end(g->eos, sample.id))
            break;
        if (!g->is_main && count == g->max_tokens)
            break;
        rc = run_token(c, c->id_count + count - 1, sample.id, err);
        if (rc == 0 && g->is_main)
            keep_hidden(c);
        if (rc == 0)
            logits = pm_decoder_logits(c->decoder, 0);
    }
    pm_kv_truncate(c->kv_pool, &c->kv, c->id_count);
    free(scratch);
    memmove(ids, ids + c->id_count, (size_t)count * sizeof *ids);
    *ids_out = ids;
    *count_out = count;
    return rc;
}

static void check_one(struct engine_case *c, const char *name, struct greedy g)
{
    char full[48];
    snprintf(full, sizeof full, "%s.ids", name);
    const struct pm_tensor *t = engine_expected(c, full, PM_DTYPE_I32);
    if (!t)
        return;
    struct parity_verdict v = {0};
    struct pm_error err = {0};
    int32_t *ids = NULL;
    int count = 0;
    g.verdict = &v;
    if (!g.max_tokens)
        g.max_tokens = (int)engine_elements(t);
    int rc = decode(c, &g, &ids, &count, &err);
    if (rc == 0)
        engine_compare_ids(&v, full, ids, count, t);
    if (rc == 0 && !v.failed)
        parity_note(&v, "%d ids equal", count);
    engine_line(c, name, rc, &v, &err);
    if (g.is_main) {
        c->generated = ids;
        c->generated_count = count;
    } else {
        free(ids);
    }
}

/* "greedy_rep1.1.ids", "greedy_ngram2.ids": the number is the setting. */
static void check_settings(struct engine_case *c)
{
    static const char repetition[] = "greedy_rep", ngram[] = "greedy_ngram";
    for (size_t i = 0; i < pm_safetensors_count(c->expected); i++) {
        const char *name = pm_safetensors_at(c->expected, i)->name;
        struct greedy g = {.sampling = pm_sampling_default()};
        char *end = NULL;
        if (strncmp(name, repetition, strlen(repetition)) == 0)
            g.sampling.repetition_penalty = (float)strtod(name + strlen(repetition), &end);
        else if (strncmp(name, ngram, strlen(ngram)) == 0)
            g.sampling.no_repeat_ngram = (int)strtol(name + strlen(ngram), &end, 10);
        if (!end || strcmp(end, ".ids") != 0)
            continue;
        char *group = pm_xstrndup(name, (size_t)(end - name));
        check_one(c, group, g);
        free(group);
    }
}

void engine_check_greedy(struct engine_case *c)
{
    struct greedy g = {.sampling = pm_sampling_default(), .is_main = true};
    check_one(c, "greedy", g);
    g.is_main = false;
    check_one(c, "greedy_maxlen", g);
    g.eos = engine_expected(c, "greedy_eos.eos_ids", PM_DTYPE_I32);
    g.max_tokens = END_TOKENS;
    check_one(c, "greedy_eos", g);
    check_settings(c);
    const struct pm_tensor *t = engine_expected(c, "text.norm_prompt_and_generated", PM_DTYPE_F32);
    if (t) {
        struct parity_verdict v = {0};
        engine_compare_floats(&v, t->name, c->hidden, t,
                              (size_t)c->hidden_rows * (size_t)c->model->config.text.hidden, HIDDEN_ABSOLUTE,
                              0);
        engine_line(c, "norm, all tokens", 0, &v, NULL);
    }
}
