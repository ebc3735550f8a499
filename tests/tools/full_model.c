#include "tests/tools/full_model.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "engine/kernels/bf16.h"

enum { BASE_VOCAB = 59246, CHUNK = 1 << 20 };

static const char config_json[] =
    "{\"architectures\":[\"GlmOcrForConditionalGeneration\"],\"model_type\":\"glm_ocr\",\"text_config\":"
    "{\"model_type\":\"glm_ocr_text\",\"pad_token_id\":59246,\"vocab_size\":59392,\"eos_token_id\":[59246,"
    "59253],\"attention_bias\":false,\"head_dim\":128,\"hidden_act\":\"silu\",\"hidden_size\":1536,"
    "\"intermediate_size\":4608,\"max_position_embeddings\":131072,\"num_attention_heads\":16,"
    "\"num_hidden_layers\":16,\"num_nextn_predict_layers\":1,\"num_key_value_heads\":8,\"rms_norm_eps\":1e-"
    "05,"
    "\"dtype\":\"bfloat16\",\"rope_parameters\":{\"rope_type\":\"default\",\"mrope_section\":[16,24,24],"
    "\"partial_rotary_factor\":1.0,\"rope_theta\":10000},\"tie_word_embeddings\":false},\"vision_config\":"
    "{\"model_type\":\"glm_ocr_vision\",\"hidden_size\":1024,\"depth\":24,\"num_heads\":16,"
    "\"attention_bias\":true,\"intermediate_size\":4096,\"hidden_act\":\"silu\",\"image_size\":336,"
    "\"patch_size\":14,\"out_hidden_size\":1536,\"rms_norm_eps\":1e-05,\"spatial_merge_size\":2,"
    "\"temporal_patch_size\":2},\"image_start_token_id\":59256,\"image_end_token_id\":59257,"
    "\"video_start_token_id\":59258,\"video_end_token_id\":59259,\"image_token_id\":59280,"
    "\"video_token_id\":59281}\n";
static const char generation_json[] =
    "{\"do_sample\":false,\"eos_token_id\":[59246,59253],\"pad_token_id\":59246}\n";
static const char preprocessor_json[] =
    "{\"size\":{\"shortest_edge\":12544,\"longest_edge\":9633792},\"do_rescale\":true,\"patch_size\":14,"
    "\"temporal_patch_size\":2,\"merge_size\":2,\"image_mean\":[0.48145466,0.4578275,0.40821073],"
    "\"image_std\":[0.26862954,0.26130258,0.27577711],\"image_processor_type\":\"Glm46VImageProcessor\"}\n";

/* ---- values ---- */

static int ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

/* Centre and reach of a tensor's values: norms near 1, the rest so that activations keep their size. */
static void rule_of(const char *name, float *centre, float *reach)
{
    static const struct {
        const char *within, *end;
        float reach;
    } rules[] = {
        {"", ".bias", 1.0f / 8},
        {"", "embed_tokens.weight", 222.0f / 128},
        {"", "lm_head.weight", 181.0f / 1024},
        {"", "shared_head.head.weight", 181.0f / 1024},
        {"", "patch_embed.proj.weight", 207.0f / 4096},
        {"", "visual.downsample.weight", 222.0f / 8192},
        {".visual.blocks.", "mlp.down_proj.weight", 222.0f / 8192},
        {".visual.blocks.", "", 222.0f / 4096},
        {"", "self_attn.q_proj.weight", 136.0f / 2048},
        {"", "self_attn.k_proj.weight", 136.0f / 2048},
        {"", "self_attn.o_proj.weight", 157.0f / 4096},
        {"", "down_proj.weight", 209.0f / 8192},
        {"", "eh_proj.weight", 1.0f / 32},
        {"", "", 181.0f / 4096},
    };
    *centre =
        ends_with(name, "norm.weight") || ends_with(name, "norm1.weight") || ends_with(name, "norm2.weight");
    *reach = 0.25f;
    for (size_t i = 0; *centre == 0; i++)
        if (strstr(name, rules[i].within) && ends_with(name, rules[i].end)) {
            *reach = rules[i].reach;
            return;
        }
}

static uint64_t seed_of(const char *name)
{
    static const char copied_table[] = "layers.16.embed_tokens.weight",
                      copied_head[] = "shared_head.head.weight";
    if (ends_with(name, copied_table))
        name = "model.language_model.embed_tokens.weight";
    else if (ends_with(name, copied_head))
        name = "lm_head.weight";
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++)
        h = (h ^ (uint8_t)*name) * 0x100000001b3u;
    return h;
}

static void make_values(const char *name, uint64_t first, size_t count, uint16_t *out)
{
    float centre, reach;
    rule_of(name, &centre, &reach);
    uint64_t seed = seed_of(name) + first;
    for (size_t i = 0; i < count; i++) {
        uint64_t x = seed + i + 0x9e3779b97f4a7c15u;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        x ^= x >> 31;
        float s = (float)(x >> 48) * 0x1p-15f - 1.0f;
        out[i] = pm_bf16_from_f32(centre + reach * s);
    }
}

/* ---- files ---- */

static uint64_t values_of(const struct pm_glm_ocr_tensor *t)
{
    uint64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->shape[i];
    return n;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct pm_glm_ocr_tensor *)a)->name, ((const struct pm_glm_ocr_tensor *)b)->name);
}

/* The JSON header of a safetensors file, padded to 8 bytes. */
static void make_header(const struct pm_glm_ocr_tensor *tensors, size_t count, struct pm_buf *out)
{
    uint64_t offset = 0;
    pm_buf_printf(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < count; i++) {
        const struct pm_glm_ocr_tensor *t = &tensors[i];
        uint64_t bytes = values_of(t) * 2;
        pm_buf_printf(out, ",\"%s\":{\"dtype\":\"BF16\",\"shape\":[", t->name);
        for (int d = 0; d < t->rank; d++)
            pm_buf_printf(out, "%s%llu", d ? "," : "", (unsigned long long)t->shape[d]);
        pm_buf_printf(out, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)offset,
                      (unsigned long long)(offset + bytes));
        offset += bytes;
    }
    pm_buf_text(out, "}");
    while (out->size % 8)
        pm_buf_text(out, " ");
}

static int write_weights(const char *path, struct pm_error *err)
{
    struct pm_vlm_config config;
    struct pm_glm_ocr_tensor *tensors = NULL;
    size_t count;
    int rc = pm_glm_ocr_config(config_json, generation_json, preprocessor_json, &config, err);
    if (!rc)
        rc = pm_glm_ocr_tensors(&config, &tensors, &count, err);
    if (rc)
        return rc;
    qsort(tensors, count, sizeof *tensors, by_name);
    struct pm_buf header = {0};
    make_header(tensors, count, &header);
    uint64_t length = header.size;
    uint16_t *values = pm_xalloc(CHUNK * sizeof *values);
    FILE *f = fopen(path, "wb");
    int ok = f && fwrite(&length, 8, 1, f) == 1 && fwrite(header.data, 1, header.size, f) == header.size;
    for (size_t i = 0; ok && i < count; i++)
        for (uint64_t at = 0, n = values_of(&tensors[i]); ok && at < n; at += CHUNK) {
            size_t part = n - at < CHUNK ? (size_t)(n - at) : CHUNK;
            make_values(tensors[i].name, at, part, values);
            ok = fwrite(values, sizeof *values, part, f) == part;
        }
    if (f && fclose(f))
        ok = 0;
    if (!ok)
        rc = pm_fail(err, PM_EIO, "%s: %s", path, strerror(errno));
    free(values);
    free(tensors);
    pm_buf_free(&header);
    return rc;
}

/* Fills the vocabulary up to the published size: " f20001" is never one piece of the split, and no merge
 * makes it. The added tokens follow in their order. */
static int fill_tokenizer(json_t *root, struct pm_error *err)
{
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    json_t *added = json_object_get(root, "added_tokens");
    size_t base = json_object_size(vocab);
    if (!json_is_object(vocab) || !json_is_array(added) || base > BASE_VOCAB)
        return pm_fail(err, PM_EFORMAT, "the tokenizer has no vocabulary of at most %d entries", BASE_VOCAB);
    for (size_t i = base; i < BASE_VOCAB; i++) {
        char name[32];
        snprintf(name, sizeof name,
                 "\xc4\xa0"
                 "f%zu",
                 i);
        json_object_set_new(vocab, name, json_integer((json_int_t)i));
    }
    size_t k;
    json_t *token;
    json_array_foreach(added, k, token)
        json_object_set_new(token, "id", json_integer((json_int_t)(BASE_VOCAB + k)));
    return 0;
}

static int copy_template(const char *tokenizer, const char *out, struct pm_error *err)
{
    char *folder = pm_xstrdup(tokenizer), *slash = strrchr(folder, '/');
    if (slash)
        *slash = 0;
    int rc = PM_ENOTFOUND;
    for (int up = 0; up < 2 && rc == PM_ENOTFOUND; up++) {
        char *from = pm_xprintf("%s/%schat_template.jinja", slash ? folder : ".", up ? "../" : "");
        char *to = pm_fs_join(out, "chat_template.jinja");
        struct pm_buf text = {0};
        rc = pm_fs_read(from, (size_t)1 << 20, &text, err);
        if (!rc)
            rc = pm_fs_write(to, text.data, text.size, false, err);
        pm_buf_free(&text);
        free(from);
        free(to);
    }
    free(folder);
    return rc;
}

static int write_tokenizer(const char *from, const char *out, struct pm_error *err)
{
    json_error_t where;
    json_t *root = json_load_file(from, 0, &where);
    if (!root)
        return pm_fail(err, PM_EFORMAT, "%s: %s", from, where.text);
    int rc = fill_tokenizer(root, err);
    char *to = pm_fs_join(out, "tokenizer.json");
    if (!rc && json_dump_file(root, to, JSON_COMPACT))
        rc = pm_fail(err, PM_EIO, "%s cannot be written", to);
    free(to);
    json_decref(root);
    return rc ? rc : copy_template(from, out, err);
}

static int write_text(const char *folder, const char *name, const char *text, struct pm_error *err)
{
    char *path = pm_fs_join(folder, name);
    int rc = pm_fs_write(path, text, strlen(text), false, err);
    free(path);
    return rc;
}

int full_model_write(const char *out, const char *tokenizer, struct pm_error *err)
{
    char *weights = pm_fs_join(out, "model.safetensors");
    int rc = pm_fs_mkdir_p(out, 0755, err);
    if (!rc)
        rc = write_text(out, "config.json", config_json, err);
    if (!rc)
        rc = write_text(out, "generation_config.json", generation_json, err);
    if (!rc)
        rc = write_text(out, "preprocessor_config.json", preprocessor_json, err);
    if (!rc && tokenizer)
        rc = write_tokenizer(tokenizer, out, err);
    if (!rc)
        rc = write_weights(weights, err);
    free(weights);
    return rc;
}
