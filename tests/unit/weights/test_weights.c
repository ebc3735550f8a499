/* Every weight format through its one door: values, names, orders, documents, and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "engine/safetensors.h"
#include "engine/weights/internal.h"
#include "tests/unit/weights/build.h"

#define PM_LAYER "model.language_model.layers."

/* A model in a folder of its own. */
struct scene {
    struct files files;
    char folder[64];
    struct pm_weights *weights;
    struct pm_error err;
};

static void scene_make(struct scene *s, void (*make)(struct files *files))
{
    memset(s, 0, sizeof *s);
    snprintf(s->folder, sizeof s->folder, "/tmp/pm-weights-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    make(&s->files);
}

static int scene_open(struct scene *s)
{
    assert_true(files_write(&s->files, s->folder));
    pm_weights_close(&s->weights);
    return pm_weights_open(s->folder, &s->weights, &s->err);
}

static void scene_end(struct scene *s)
{
    pm_weights_close(&s->weights);
    files_free(&s->files);
    pm_fs_remove_tree(s->folder, NULL);
}

/* Replaces the first `from` in a file. */
static void edit(struct scene *s, const char *file, const char *from, const char *to)
{
    struct pm_buf *b = files_find(&s->files, file), out = {0};
    assert_non_null(b);
    const uint8_t *at = memmem(b->data, b->size, from, strlen(from));
    if (!at)
        fail_msg("%s has no %s", file, from);
    pm_buf_append(&out, b->data, (size_t)(at - b->data));
    pm_buf_append(&out, to, strlen(to));
    pm_buf_append(&out, at + strlen(from), b->size - (size_t)(at - b->data) - strlen(from));
    pm_buf_free(b);
    *b = out;
}

/* Reads every tensor of an opened model; the first failure. */
static int read_all(struct scene *s)
{
    const struct pm_weights_tensor *t;
    int rc = 0;
    for (size_t i = 0; (t = pm_weights_at(s->weights, i)) && !rc; i++) {
        float *values = calloc((size_t)(t->rows * t->columns), sizeof *values);
        rc = pm_weights_read(s->weights, t, 0, t->rows, values, &s->err);
        free(values);
    }
    return rc;
}

/* Opening, or else reading, fails with that code and these words. */
static void refused_with(struct scene *s, int code, const char *word, const char *other)
{
    int rc = scene_open(s);
    if (!rc)
        rc = read_all(s);
    if (rc != code || !strstr(s->err.text, word) || !strstr(s->err.text, other))
        fail_msg("%d \"%s\" instead of %d \"%s\" \"%s\"", rc, rc ? s->err.text : "", code, word, other);
}

static void refused_after(void (*make)(struct files *files), const char *file, const char *from,
                          const char *to, int code, const char *word, const char *other)
{
    struct scene s;
    scene_make(&s, make);
    assert_int_equal(scene_open(&s), 0);
    assert_int_equal(read_all(&s), 0);
    edit(&s, file, from, to);
    refused_with(&s, code, word, other);
    scene_end(&s);
}

static float *read_tensor(struct scene *s, const char *name, const struct pm_weights_tensor **out)
{
    const struct pm_weights_tensor *t = pm_weights_find(s->weights, name);
    if (!t)
        fail_msg("no tensor %s", name);
    float *values = calloc((size_t)(t->rows * t->columns), sizeof *values);
    assert_int_equal(pm_weights_read(s->weights, t, 0, t->rows, values, &s->err), 0);
    *out = t;
    return values;
}

static const char *document(struct scene *s, const char *name)
{
    const char *text = NULL;
    size_t bytes;
    if (pm_weights_document(s->weights, name, &text, &bytes, &s->err))
        fail_msg("%s: %s", name, s->err.text);
    assert_int_equal(strlen(text), bytes);
    return text;
}

static json_t *document_json(struct scene *s, const char *name)
{
    json_error_t why;
    json_t *root = json_loads(document(s, name), 0, &why);
    assert_non_null(root);
    return root;
}

/* ---- safetensors ---- */

static void test_plain(void **state)
{
    (void)state;
    struct scene s;
    const struct pm_weights_tensor *t;
    scene_make(&s, model_safetensors);
    assert_int_equal(scene_open(&s), 0);
    assert_string_equal(pm_weights_format(s.weights), "safetensors");
    assert_int_equal(pm_weights_count(s.weights), 4);
    float *v = read_tensor(&s, "lm_head.weight", &t);
    assert_string_equal(t->stored, "BF16");
    assert_int_equal(t->rows, 12);
    assert_int_equal(t->columns, 32);
    for (unsigned i = 0; i < 12 * 32; i++)
        assert_true(v[i] == model_value(1, i));
    float row[32];
    assert_int_equal(pm_weights_read(s.weights, t, 7, 1, row, &s.err), 0);
    assert_memory_equal(row, v + 7 * 32, sizeof row);
    assert_int_equal(pm_weights_read(s.weights, t, 12, 0, row, &s.err), 0);
    assert_int_equal(pm_weights_read(s.weights, t, 12, 1, row, &s.err), PM_EINVAL);
    assert_int_equal(pm_weights_read(s.weights, t, 1, UINT64_MAX, row, &s.err), PM_EINVAL);
    free(v);
    v = read_tensor(&s, "model.visual.patch_embed.proj.weight", &t);
    assert_int_equal(t->rank, 5);
    assert_int_equal(t->columns, 96);
    assert_true(v[100] == model_value(3, 100));
    free(v);
    assert_string_equal(document(&s, "chat_template.jinja"), "{{ messages }}");
    const char *text;
    size_t bytes;
    assert_int_equal(pm_weights_document(s.weights, "tokenizer.json", &text, &bytes, &s.err), PM_ENOTFOUND);
    assert_null(text);
    json_t *config = document_json(&s, "config.json"); /* no tensor of layer 1 is there */
    assert_int_equal(json_integer_value(
                         json_object_get(json_object_get(config, "text_config"), "num_nextn_predict_layers")),
                     0);
    json_decref(config);
    scene_end(&s);
}

static void test_paths(void **state)
{
    (void)state;
    struct scene s;
    char path[256];
    scene_make(&s, model_shards);
    assert_int_equal(scene_open(&s), 0);
    assert_int_equal(pm_weights_count(s.weights), 3);
    static const char *const names[] = {"model.safetensors.index.json", "model-00002-of-00002.safetensors"};
    for (int i = 0; i < 2; i++) { /* the index, or one shard, stands for all */
        struct pm_weights *w;
        snprintf(path, sizeof path, "%s/%s", s.folder, names[i]);
        assert_int_equal(pm_weights_open(path, &w, &s.err), 0);
        assert_int_equal(pm_weights_count(w), 3);
        pm_weights_close(&w);
    }
    pm_weights_close(&s.weights);
    snprintf(path, sizeof path, "%s/config.json", s.folder);
    assert_int_equal(pm_weights_open(path, &s.weights, &s.err), PM_EUNSUPPORTED);
    snprintf(path, sizeof path, "%s/nothing", s.folder);
    assert_int_equal(pm_weights_open(path, &s.weights, &s.err), PM_ENOTFOUND);
    assert_null(s.weights);
    snprintf(path, sizeof path, "%s/empty", s.folder);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(pm_weights_open(path, &s.weights, &s.err), PM_ENOTFOUND);
    assert_non_null(strstr(s.err.text, "model.safetensors.index.json"));
    scene_end(&s);
}

static void test_index_refusals(void **state)
{
    (void)state;
    static const char index[] = "model.safetensors.index.json";
    refused_after(model_shards, index, "\"lm_head.weight\"", "\"lm_head.bias\"", PM_EFORMAT, "lm_head.weight",
                  "not in the index");
    refused_after(model_shards, index, "{\"lm_head.weight\"",
                  "{\"lost\":\"model-00001-of-00002.safetensors\",\"lm_head.weight\"", PM_EFORMAT, "lost",
                  "not in its shard");
    refused_after(model_shards, index, "\"model-00001", "\"../model-00001", PM_EFORMAT, "lm_head.weight",
                  "beside the index");
    refused_after(model_shards, index, "\"model-00001", "\"a/model-00001", PM_EFORMAT, "lm_head.weight",
                  "beside the index");
    refused_after(model_shards, index, "\"model-00001-of-00002.safetensors\"", "7", PM_EFORMAT,
                  "lm_head.weight", "beside the index");
    refused_after(model_shards, index, "model-00001-of-00002", "model-00001-of-00003", PM_ENOTFOUND,
                  "model-00001-of-00003", "not there");
    refused_after(model_shards, index, "\"total_size\":1", "\"total_size\":2", PM_EFORMAT, "total_size",
                  "bytes");
    refused_after(model_shards, index, "\"total_size\":1", "\"total_size\":-1", PM_EFORMAT, "total_size",
                  "number");
    refused_after(model_shards, index, "weight_map", "weight_mop", PM_EFORMAT, "weight_map", "missing");
    /* one tensor in both shards */
    refused_after(model_shards, "model-00002-of-00002.safetensors", "\"model.language_model.norm.weight\"",
                  "\"lm_head.weight\"                  ", PM_EFORMAT, "lm_head.weight", "model-00001");
}

static void test_plain_refusals(void **state)
{
    (void)state;
    static const char file[] = "model.safetensors";
    refused_after(model_safetensors, file, "[12,32]", "[12,33]", PM_EFORMAT, "embed_tokens", "shape");
    refused_after(model_safetensors, file, "\"shape\":[32],", "\"shape\":[3,],", PM_EFORMAT, "header",
                  "JSON");
    refused_after(model_safetensors, file, "\"data_offsets\":[0,1536]", "\"data_offsets\":[8,1544]",
                  PM_EFORMAT, "embed_tokens", "share");
    refused_after(model_safetensors, "config.json", "{", "[", PM_EFORMAT, "config.json", "JSON");
    refused_after(model_safetensors, "config.json", "{",
                  "{\"quantization_config\":{\"quant_method\":\"gptq\"},", PM_EUNSUPPORTED, "gptq", "read");
    struct scene s;
    scene_make(&s, model_safetensors); /* a value that is not finite, by name and row */
    struct pm_buf *b = files_find(&s.files, file);
    uint64_t header;
    memcpy(&header, b->data, sizeof header);
    memset(b->data + 8 + header + 4 * (5 * 32 + 3), 0xff, 4);
    refused_with(&s, PM_EFORMAT, "embed_tokens.weight: row 5", "finite");
    b->size -= 20;
    refused_with(&s, PM_EFORMAT, "patch_embed", "cut short");
    pm_buf_free(files_find(&s.files, "config.json"));
    files_find(&s.files, file)->size += 20;
    refused_with(&s, PM_EFORMAT, "config.json line 1", "JSON");
    scene_end(&s);
}

/* A folder of one file that is no model. */
static void folder_refused(const char *file, int code, const char *word)
{
    struct scene s;
    scene_make(&s, model_safetensors);
    files_free(&s.files);
    pm_buf_text(files_add(&s.files, file), "{}");
    assert_int_equal(scene_open(&s), code);
    assert_non_null(strstr(s.err.text, word));
    scene_end(&s);
}

static void test_folders_without_a_model(void **state)
{
    (void)state;
    folder_refused("adapter_config.json", PM_EUNSUPPORTED, "merge the adapter");
    folder_refused("adapters.safetensors", PM_EUNSUPPORTED, "merge the adapter");
    folder_refused("pytorch_model.bin", PM_EUNSUPPORTED, "as safetensors");
    folder_refused("README.md", PM_ENOTFOUND, "no model here");
    struct scene s;
    char path[256];
    scene_make(&s, model_safetensors);
    struct pm_buf *weights = files_find(&s.files, "model.safetensors");
    struct pm_buf *adapter = files_add(&s.files, "adapter_model.safetensors");
    pm_buf_append(adapter, weights->data, weights->size);
    assert_int_equal(scene_open(&s), 0); /* beside a whole model it is not looked at */
    pm_weights_close(&s.weights);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", s.folder);
    assert_int_equal(pm_weights_open(path, &s.weights, &s.err), PM_EUNSUPPORTED);
    assert_non_null(strstr(s.err.text, "merge the adapter"));
    scene_end(&s);
}

/* ---- values that other packages read ---- */

static struct pm_safetensors *vectors(void)
{
    struct pm_safetensors *f;
    struct pm_error err;
    assert_int_equal(pm_safetensors_open(PM_TEST_DATA "/weights/vectors.safetensors", &f, &err), 0);
    return f;
}

static const struct pm_tensor *vector(const struct pm_safetensors *f, const char *name, const char *part)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%s", name, part);
    const struct pm_tensor *t = pm_safetensors_find(f, full);
    assert_non_null(t);
    return t;
}

static void compare_stored(const struct pm_stored *stored, const struct pm_tensor *want)
{
    float got[512];
    assert_true(stored->values <= 512);
    assert_int_equal(want->bytes, stored->values * sizeof *got);
    pm_stored_read(stored, 0, stored->values, got);
    assert_memory_equal(got, want->data, want->bytes);
    for (uint64_t first = 0; first < stored->values; first += 37) { /* parts of blocks and groups */
        uint64_t n = stored->values - first < 45 ? stored->values - first : 45;
        pm_stored_read(stored, first, n, got);
        assert_memory_equal(got, want->data + first * sizeof *got, n * sizeof *got);
    }
}

static void test_block_vectors(void **state)
{
    (void)state;
    struct pm_safetensors *f = vectors();
    int found = 0;
    for (uint32_t id = 0; id < 64; id++) {
        const struct pm_block_type *type = pm_block_type(id);
        if (!type)
            continue;
        const struct pm_tensor *blocks = vector(f, type->name, "blocks");
        assert_int_equal(blocks->shape[1], type->bytes);
        const struct pm_stored stored = {.kind = PM_STORED_BLOCKS,
                                         .block = type,
                                         .data = blocks->data,
                                         .values = blocks->shape[0] * type->values};
        compare_stored(&stored, vector(f, type->name, "values"));
        found++;
    }
    assert_int_equal(found, 8);
    pm_safetensors_free(&f);
}

static void test_affine_vectors(void **state)
{
    (void)state;
    static const unsigned cases[][2] = {{2, 32}, {3, 64}, {4, 128}, {5, 32}, {6, 64}, {8, 128}};
    struct pm_safetensors *f = vectors();
    for (size_t i = 0; i < 6; i++) {
        char name[16];
        snprintf(name, sizeof name, "mlx%ug%u", cases[i][0], cases[i][1]);
        const struct pm_stored stored = {.kind = PM_STORED_AFFINE,
                                         .dtype = PM_DTYPE_F32,
                                         .data = vector(f, name, "weight")->data,
                                         .scales = vector(f, name, "scales")->data,
                                         .biases = vector(f, name, "biases")->data,
                                         .bits = cases[i][0],
                                         .group = cases[i][1],
                                         .row_values = 128,
                                         .values = 256};
        compare_stored(&stored, vector(f, name, "values"));
    }
    pm_safetensors_free(&f);
}

/* ---- MLX ---- */

static void test_mlx(void **state)
{
    (void)state;
    struct scene s;
    const struct pm_weights_tensor *t;
    scene_make(&s, model_mlx);
    assert_int_equal(scene_open(&s), 0);
    assert_string_equal(pm_weights_format(s.weights), "mlx");
    assert_int_equal(pm_weights_count(s.weights), 5);
    float *v = read_tensor(&s, PM_LAYER "0.mlp.down_proj.weight", &t);
    assert_string_equal(t->stored, "affine 4-bit groups of 64");
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->columns, 64);
    for (unsigned i = 0; i < 4 * 64; i++) { /* word i / 8, four bits each */
        uint32_t q = (i / 8 * 2654435761u) >> 4 * (i % 8) & 15;
        assert_true(v[i] == (float)q * model_value(0, i / 64) + model_value(1, i / 64));
    }
    free(v);
    v = read_tensor(&s, "lm_head.weight", &t); /* three bits in groups of 32, by an override */
    assert_string_equal(t->stored, "affine 3-bit groups of 32");
    assert_int_equal(t->columns, 64);
    uint32_t q = 64 * 2654435761u & 7;
    assert_true(v[0] == (float)q * model_value(2, 0) + model_value(3, 0));
    free(v);
    v = read_tensor(&s, "model.visual.patch_embed.proj.weight", &t); /* stored [4, 2, 5, 5, 3] */
    assert_int_equal(t->rank, 5);
    assert_int_equal(t->shape[1], 3);
    assert_int_equal(t->shape[2], 2);
    for (uint64_t o = 0; o < 4; o++)
        for (uint64_t c = 0; c < 3; c++)
            for (uint64_t p = 0; p < 50; p++)
                assert_true(v[(o * 3 + c) * 50 + p] == model_value(5, (o * 50 + p) * 3 + c));
    free(v);
    v = read_tensor(&s, "model.visual.downsample.weight", &t); /* kept [4, 8, 2, 2] by its converter */
    assert_int_equal(t->shape[1], 8);
    assert_int_equal(t->shape[3], 2);
    assert_true(v[9] == model_value(6, 9));
    free(v);
    scene_end(&s);
}

static void test_mlx_refusals(void **state)
{
    (void)state;
    static const char file[] = "model.safetensors", config[] = "config.json";
    refused_after(model_mlx, config, "\"bits\":4", "\"bits\":7", PM_EUNSUPPORTED, "down_proj", "bits");
    refused_after(model_mlx, config, "\"bits\":4", "\"bits\":8", PM_EFORMAT, "down_proj", "groups of 64");
    refused_after(model_mlx, config, "\"group_size\":64", "\"group_size\":32", PM_EFORMAT, "down_proj",
                  "scales");
    refused_after(model_mlx, config, "\"group_size\":64", "\"group_size\":48", PM_EUNSUPPORTED, "down_proj",
                  "48");
    refused_after(model_mlx, config, "affine", "mxfp4", PM_EUNSUPPORTED, "mxfp4", "affine");
    refused_after(model_mlx, config, "{\"group_size\":32,\"bits\":3}", "false", PM_EFORMAT, "lm_head", "not");
    refused_after(model_mlx, config, "{\"group_size\":32,\"bits\":3}", "3", PM_EFORMAT, "lm_head", "object");
    refused_after(model_mlx, config, "\"quantization\"", "\"quontization\"", PM_EFORMAT, "quantised",
                  "\"quantization\"");
    refused_after(model_mlx, file, "mlp.down_proj.biases", "mlp.down_proj.biasos", PM_EUNSUPPORTED,
                  "down_proj", "no biases");
    refused_after(model_mlx, file, "mlp.down_proj.scales", "mlp.down_proj.scolas", PM_EFORMAT, "down_proj",
                  "no scales");
    refused_after(model_mlx, file, "mlp.down_proj.weight", "mlp.down_proj.weighs", PM_EFORMAT, "down_proj",
                  "no weight");
    refused_after(model_mlx, file, "[4,2,5,5,3]", "[4,2,5,3,5]", PM_EFORMAT, "patch_embed", "equal sides");
    struct scene s;
    scene_make(&s, model_mlx); /* a scale that is not a number: down_proj's second row */
    struct pm_buf *b = files_find(&s.files, file);
    uint64_t header;
    memcpy(&header, b->data, sizeof header);
    memset(b->data + 8 + header + 4 * 8 * 4 + 4, 0xff, 4);
    refused_with(&s, PM_EFORMAT, "down_proj.weight: row 1", "finite");
    scene_end(&s);
}

/* ---- GGUF ---- */

static void test_gguf_tensors(void **state)
{
    (void)state;
    struct scene s;
    const struct pm_weights_tensor *t;
    scene_make(&s, model_gguf);
    assert_int_equal(scene_open(&s), 0);
    assert_string_equal(pm_weights_format(s.weights), "gguf");
    /* nine of the model, two that the extra layer shares, five and a half of the projector */
    assert_int_equal(pm_weights_count(s.weights), 9 + 2 + 6);
    float *v = read_tensor(&s, "model.language_model.embed_tokens.weight", &t);
    assert_string_equal(t->stored, "Q8_0");
    assert_true(v[33] == (float)(int8_t)(uint8_t)((34 + 2 + 1) * 29) * 0.065185546875f); /* 0x2c2c */
    float *shared = read_tensor(&s, PM_LAYER "1.embed_tokens.weight", &t);
    assert_memory_equal(v, shared, 12 * 32 * sizeof *v);
    free(shared);
    free(v);
    /* q: two heads of 16, all of it rotary; the pair (2i, 2i + 1) lies at i and 8 + i */
    v = read_tensor(&s, PM_LAYER "0.self_attn.q_proj.weight", &t);
    for (uint64_t head = 0; head < 2; head++)
        for (uint64_t i = 0; i < 16; i++)
            assert_true(v[(16 * head + i) * 32 + 5] ==
                        model_value(2, (16 * head + i / 2 + i % 2 * 8) * 32 + 5));
    float rows[2 * 32];
    assert_int_equal(pm_weights_read(s.weights, t, 17, 2, rows, &s.err), 0);
    assert_memory_equal(rows, v + 17 * 32, sizeof rows);
    free(v);
    v = read_tensor(&s, PM_LAYER "0.self_attn.v_proj.weight", &t); /* v stays */
    assert_true(v[3 * 32] == model_value(4, 3 * 32));
    free(v);
    v = read_tensor(&s, PM_LAYER "0.post_attention_layernorm.weight", &t); /* the one before the MLP */
    assert_true(v[3] == model_value(5, 3));
    free(v);
    v = read_tensor(&s, PM_LAYER "0.post_self_attn_layernorm.weight", &t);
    assert_true(v[3] == model_value(6, 3));
    free(v);
    v = read_tensor(&s, "model.visual.patch_embed.proj.weight", &t); /* [8, 3, 2, 4, 4] of two frames */
    assert_int_equal(t->rank, 5);
    for (uint64_t o = 0; o < 8; o++)
        for (uint64_t c = 0; c < 3; c++)
            for (unsigned frame = 0; frame < 2; frame++)
                assert_true(v[((o * 3 + c) * 2 + frame) * 16 + 7] ==
                            model_value(10 + frame, (o * 3 + c) * 16 + 7));
    free(v);
    v = read_tensor(&s, "model.visual.downsample.bias", &t);
    assert_int_equal(t->rank, 1);
    assert_int_equal(t->rows, 32);
    free(v);
    scene_end(&s);
}

/* Half of a head rotary: the rest of the rows stays. */
static void test_gguf_part_rotary(void **state)
{
    (void)state;
    struct scene s;
    const struct pm_weights_tensor *t;
    static const char key[] = "glm4.rope.dimension_count";
    scene_make(&s, model_gguf);
    struct pm_buf *b = files_find(&s.files, "tiny-Q8_0.gguf");
    uint8_t *at = memmem(b->data, b->size, key, strlen(key));
    assert_non_null(at);
    at[strlen(key) + 4] = 8;
    assert_int_equal(scene_open(&s), 0);
    float *v = read_tensor(&s, PM_LAYER "0.self_attn.k_proj.weight", &t);
    for (uint64_t i = 0; i < 16; i++)
        assert_true(v[i * 32] == model_value(3, (i < 8 ? i / 2 + i % 2 * 4 : i) * 32));
    free(v);
    at[strlen(key) + 4] = 7;
    assert_int_equal(scene_open(&s), PM_EFORMAT);
    scene_end(&s);
}

static json_int_t whole(const json_t *root, const char *part, const char *key)
{
    const json_t *v = json_object_get(part ? json_object_get(root, part) : root, key);
    assert_true(json_is_integer(v));
    return json_integer_value(v);
}

static void test_gguf_documents(void **state)
{
    (void)state;
    struct scene s;
    scene_make(&s, model_gguf);
    assert_int_equal(scene_open(&s), 0);
    json_t *c = document_json(&s, "config.json");
    assert_string_equal(json_string_value(json_object_get(c, "model_type")), "glm_ocr");
    assert_int_equal(whole(c, "text_config", "num_hidden_layers"), 1);
    assert_int_equal(whole(c, "text_config", "num_nextn_predict_layers"), 1);
    assert_int_equal(whole(c, "text_config", "vocab_size"), 12);
    assert_int_equal(whole(c, "text_config", "head_dim"), 16);
    assert_int_equal(whole(c, "vision_config", "spatial_merge_size"), 2);
    assert_int_equal(whole(c, NULL, "image_token_id"), 7);
    assert_int_equal(whole(c, NULL, "image_end_token_id"), 9);
    const json_t *ends = json_object_get(json_object_get(c, "text_config"), "eos_token_id");
    assert_int_equal(json_array_size(ends), 2);
    assert_int_equal(json_integer_value(json_array_get(ends, 1)), 6);
    json_decref(c);
    json_t *p = document_json(&s, "preprocessor_config.json");
    assert_int_equal(whole(p, "size", "shortest_edge"), 2000); /* two frames */
    assert_int_equal(whole(p, "size", "longest_edge"), 9633792);
    assert_true(json_real_value(json_array_get(json_object_get(p, "image_mean"), 1)) == 0.25);
    assert_true((float)json_real_value(json_array_get(json_object_get(p, "image_std"), 0)) == 0.26862954f);
    json_decref(p);
    json_t *t = document_json(&s, "tokenizer.json");
    const json_t *added = json_object_get(t, "added_tokens"), *model = json_object_get(t, "model");
    assert_int_equal(json_array_size(added), 6);
    assert_string_equal(json_string_value(json_object_get(json_array_get(added, 1), "content")), "<|user|>");
    assert_true(json_is_true(json_object_get(json_array_get(added, 1), "special")));
    assert_true(json_is_false(json_object_get(json_array_get(added, 5), "special")));
    assert_int_equal(json_object_size(json_object_get(model, "vocab")), 5);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(model, "vocab"), "abc")), 4);
    assert_string_equal(
        json_string_value(json_array_get(json_array_get(json_object_get(model, "merges"), 1), 0)), "ab");
    assert_true(json_is_true(json_object_get(model, "ignore_merges")));
    json_decref(t);
    assert_non_null(
        strstr(document(&s, "chat_template.jinja"), "<|begin_of_image|><|image|><|end_of_image|>"));
    assert_non_null(strstr(document(&s, "generation_config.json"), "eos_token_id"));
    const char *text;
    size_t bytes;
    assert_int_equal(pm_weights_document(s.weights, "merges.txt", &text, &bytes, &s.err), PM_ENOTFOUND);
    scene_end(&s);
}

static void test_gguf_pairs(void **state)
{
    (void)state;
    struct scene s;
    char path[256];
    scene_make(&s, model_gguf);
    assert_int_equal(scene_open(&s), 0);
    snprintf(path, sizeof path, "%s/mmproj-tiny.gguf", s.folder);
    pm_weights_close(&s.weights);
    assert_int_equal(pm_weights_open(path, &s.weights, &s.err), PM_EINVAL);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(pm_weights_open(s.folder, &s.weights, &s.err), PM_ENOTFOUND);
    assert_non_null(strstr(s.err.text, "mmproj"));
    struct pm_buf *model = files_find(&s.files, "tiny-Q8_0.gguf"); /* nobody is sent for another model's */
    uint8_t *kind = memmem(model->data, model->size, "\4\0\0\0\0\0\0\0glm4", 12);
    assert_non_null(kind);
    memcpy(kind + 8, "chat", 4);
    snprintf(path, sizeof path, "%s/tiny-Q8_0.gguf", s.folder);
    assert_int_equal(pm_fs_write(path, model->data, model->size, false, &s.err), 0);
    assert_int_equal(pm_weights_open(s.folder, &s.weights, &s.err), PM_EUNSUPPORTED);
    assert_non_null(strstr(s.err.text, "architecture \"chat\""));
    memcpy(kind + 8, "glm4", 4);
    struct pm_buf *again = files_add(&s.files, "other-MMPROJ.gguf");
    pm_buf_append(again, s.files.file[1].bytes.data, s.files.file[1].bytes.size);
    assert_int_equal(scene_open(&s), PM_EINVAL);
    assert_non_null(strstr(s.err.text, "mmproj-tiny.gguf, other-MMPROJ.gguf"));
    snprintf(path, sizeof path, "%s/other-MMPROJ.gguf", s.folder);
    assert_int_equal(unlink(path), 0);
    s.files.count--;
    pm_buf_free(&s.files.file[2].bytes);
    struct pm_buf *second = files_add(&s.files, "tiny-F16.gguf");
    pm_buf_append(second, s.files.file[0].bytes.data, s.files.file[0].bytes.size);
    assert_int_equal(scene_open(&s), PM_EINVAL);
    assert_non_null(strstr(s.err.text, "tiny-F16.gguf, tiny-Q8_0.gguf"));
    snprintf(path, sizeof path, "%s/tiny-F16.gguf", s.folder); /* the file itself decides */
    assert_int_equal(pm_weights_open(path, &s.weights, &s.err), 0);
    scene_end(&s);
}

/* Writes one number at `after` bytes behind the first `text` of a file. */
static void refused_number(const char *file, const char *text, size_t after, uint64_t value, size_t bytes,
                           int code, const char *word, const char *other)
{
    struct scene s;
    scene_make(&s, model_gguf);
    struct pm_buf *b = files_find(&s.files, file);
    uint8_t *at = memmem(b->data, b->size, text, strlen(text));
    assert_non_null(at);
    memcpy(at + strlen(text) + after, &value, bytes);
    refused_with(&s, code, word, other);
    scene_end(&s);
}

static void test_gguf_refusals(void **state)
{
    (void)state;
    static const char model[] = "tiny-Q8_0.gguf", projector[] = "mmproj-tiny.gguf";
    refused_after(model_gguf, model, "\4\0\0\0\0\0\0\0glm4", "", PM_EFORMAT, "architecture", "");
    refused_after(model_gguf, model, "glm4.block_count", "glm4.block_coont", PM_EFORMAT, "glm4.block_count",
                  "missing");
    refused_after(model_gguf, projector, "glm4v", "glm4w", PM_EUNSUPPORTED, "mmproj-tiny", "glm4v");
    refused_after(model_gguf, projector, "clip", "clop", PM_EUNSUPPORTED, "clop", "clip");
    refused_after(model_gguf, model, "blk.0.attn_q.weight", "blk.0.attn_z.weight", PM_EUNSUPPORTED,
                  "blk.0.attn_z.weight", "not one");
    refused_after(model_gguf, model, "blk.0.attn_q.weight", "blk.7.attn_q.weight", PM_EUNSUPPORTED,
                  "blk.7.attn_q.weight", "not one");
    refused_after(model_gguf, model, "blk.0.attn_q.weight", "blk.0.attn_k.weight", PM_EFORMAT,
                  "blk.0.attn_k.weight", "twice");
    refused_after(model_gguf, projector, "v.patch_embd.weight.1", "v.patch_embd.weight.2", PM_EFORMAT,
                  "v.patch_embd.weight.1", "missing");
    refused_number(model, "GGUF", 0, 1, 4, PM_EUNSUPPORTED, "version 1", "2 and 3");
    refused_number(model, "GGUF", 0, 0x03000000, 4, PM_EUNSUPPORTED, "big-endian", "");
    refused_number(model, "GGUF", 4, (uint64_t)1 << 60, 8, PM_EFORMAT, "tensors", "cannot be in");
    refused_number(model, "GGUF", 12, (uint64_t)1 << 60, 8, PM_EFORMAT, "keys", "cannot be in");
    refused_number(model, "general.alignment", 4, 48, 4, PM_EFORMAT, "alignment", "power of two");
    refused_number(model, "tokenizer.ggml.tokens", 8, (uint64_t)1 << 61, 8, PM_EFORMAT, "ggml.tokens",
                   "ends");
    refused_number(model, "tokenizer.ggml.token_type", 8, (uint64_t)1 << 62, 8, PM_EFORMAT, "token_type",
                   "ends");
    /* after a name: u32 rank, u64 sizes, u32 type, u64 offset */
    refused_number(model, "output.weight", 0, 9, 4, PM_EFORMAT, "output.weight", "dimensions");
    refused_number(model, "output.weight", 4, (uint64_t)1 << 63, 8, PM_EFORMAT, "output.weight",
                   "impossible");
    refused_number(model, "output.weight", 4, (uint64_t)1 << 40, 8, PM_EFORMAT, "output.weight", "cut short");
    refused_number(model, "output.weight", 4, 0, 8, PM_EFORMAT, "output.weight", "impossible");
    refused_number(model, "output.weight", 20, 10, 4, PM_EUNSUPPORTED, "output.weight", "type 10");
    refused_number(model, "output.weight", 24, 13, 8, PM_EFORMAT, "output.weight", "multiple of 64");
    refused_number(model, "output.weight", 24, 0, 8, PM_EFORMAT, "output.weight", "share bytes");
    refused_number(model, "token_embd.weight", 4, 31, 8, PM_EFORMAT, "token_embd.weight", "whole blocks");
    refused_number(model, "attn_k.weight", 12, 15, 8, PM_EFORMAT, "attn_k.weight", "whole heads");
    struct scene s;
    scene_make(&s, model_gguf); /* a scale that is not a number */
    struct pm_buf *b = files_find(&s.files, model);
    uint8_t *scale = memmem(b->data, b->size, "\x2c\x2c", 2);
    assert_non_null(scale);
    memcpy(scale + 2 * 34, "\xff\x7f", 2);
    refused_with(&s, PM_EFORMAT, "embed_tokens.weight: row 2", "finite");
    b->size -= 500;
    refused_with(&s, PM_EFORMAT, "nextn.eh_proj", "cut short");
    scene_end(&s);
}

static void document_refused(const char *from, const char *to, const char *name, int code, const char *word)
{
    struct scene s;
    const char *text;
    size_t bytes;
    scene_make(&s, model_gguf);
    edit(&s, "tiny-Q8_0.gguf", from, to);
    assert_int_equal(scene_open(&s), 0);
    assert_int_equal(pm_weights_document(s.weights, name, &text, &bytes, &s.err), code);
    if (!strstr(s.err.text, word))
        fail_msg("\"%s\" instead of %s", s.err.text, word);
    scene_end(&s);
}

static void test_gguf_document_refusals(void **state)
{
    (void)state;
    document_refused("<|image|>", "<|imoge|>", "config.json", PM_EFORMAT, "<|image|>");
    document_refused("glm4.context_length", "glm4.contoxt_length", "config.json", PM_EFORMAT,
                     "glm4.context_length");
    document_refused("gpt2", "gpt3", "tokenizer.json", PM_EUNSUPPORTED, "gpt2");
    document_refused("ab c", "ab-c", "tokenizer.json", PM_EFORMAT, "merge 1");
    document_refused("<think>",
                     "<th\xff"
                     "nk>",
                     "tokenizer.json", PM_EFORMAT, "token 10");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_index_refusals),
        cmocka_unit_test(test_plain_refusals),
        cmocka_unit_test(test_folders_without_a_model),
        cmocka_unit_test(test_block_vectors),
        cmocka_unit_test(test_affine_vectors),
        cmocka_unit_test(test_mlx),
        cmocka_unit_test(test_mlx_refusals),
        cmocka_unit_test(test_gguf_tensors),
        cmocka_unit_test(test_gguf_part_rotary),
        cmocka_unit_test(test_gguf_documents),
        cmocka_unit_test(test_gguf_pairs),
        cmocka_unit_test(test_gguf_refusals),
        cmocka_unit_test(test_gguf_document_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
