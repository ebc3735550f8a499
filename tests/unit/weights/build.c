#include "tests/unit/weights/build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"

struct pm_buf *files_add(struct files *files, const char *name)
{
    PM_ASSERT(files->count < FILES_MAX);
    snprintf(files->file[files->count].name, sizeof files->file[0].name, "%s", name);
    return &files->file[files->count++].bytes;
}

struct pm_buf *files_find(struct files *files, const char *name)
{
    for (int i = 0; i < files->count; i++)
        if (!strcmp(files->file[i].name, name))
            return &files->file[i].bytes;
    return NULL;
}

bool files_write(const struct files *files, const char *folder)
{
    bool is_good = true;
    for (int i = 0; i < files->count; i++) {
        char *path = pm_fs_join(folder, files->file[i].name);
        is_good =
            is_good && !pm_fs_write(path, files->file[i].bytes.data, files->file[i].bytes.size, false, NULL);
        free(path);
    }
    return is_good;
}

void files_free(struct files *files)
{
    for (int i = 0; i < files->count; i++)
        pm_buf_free(&files->file[i].bytes);
    files->count = 0;
}

void build_safetensors(struct pm_buf *out, const struct source *tensors, size_t count)
{
    struct pm_buf header = {0};
    size_t at = 0;
    pm_buf_text(&header, "{");
    for (size_t i = 0; i < count; i++) {
        pm_buf_printf(&header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "", tensors[i].name,
                      pm_dtype_name(tensors[i].dtype));
        for (int d = 0; d < tensors[i].rank; d++)
            pm_buf_printf(&header, "%s%llu", d ? "," : "", (unsigned long long)tensors[i].shape[d]);
        pm_buf_printf(&header, "],\"data_offsets\":[%zu,%zu]}", at, at + tensors[i].bytes);
        at += tensors[i].bytes;
    }
    pm_buf_text(&header, "}");
    uint64_t bytes = header.size;
    pm_buf_append(out, &bytes, sizeof bytes);
    pm_buf_append(out, header.data, header.size);
    for (size_t i = 0; i < count; i++)
        pm_buf_append(out, tensors[i].data, tensors[i].bytes);
    pm_buf_free(&header);
}

/* ---- GGUF ---- */

static void put_u32(struct pm_buf *b, uint32_t v)
{
    pm_buf_append(b, &v, sizeof v);
}

static void put_u64(struct pm_buf *b, uint64_t v)
{
    pm_buf_append(b, &v, sizeof v);
}

static void put_text(struct pm_buf *b, const char *text)
{
    put_u64(b, strlen(text));
    pm_buf_append(b, text, strlen(text));
}

enum { GGUF_U32 = 4, GGUF_I32 = 5, GGUF_F32 = 6, GGUF_TEXT = 8, GGUF_ARRAY = 9 };

static struct pm_buf *put_key(struct gguf_keys *keys, const char *key, uint32_t type)
{
    keys->count++;
    put_text(&keys->bytes, key);
    put_u32(&keys->bytes, type);
    return &keys->bytes;
}

static struct pm_buf *put_array(struct gguf_keys *keys, const char *key, uint32_t type, uint64_t count)
{
    struct pm_buf *b = put_key(keys, key, GGUF_ARRAY);
    put_u32(b, type);
    put_u64(b, count);
    return b;
}

void gguf_key_u32(struct gguf_keys *keys, const char *key, uint32_t value)
{
    put_u32(put_key(keys, key, GGUF_U32), value);
}

void gguf_key_f32(struct gguf_keys *keys, const char *key, float value)
{
    pm_buf_append(put_key(keys, key, GGUF_F32), &value, sizeof value);
}

void gguf_key_text(struct gguf_keys *keys, const char *key, const char *value)
{
    put_text(put_key(keys, key, GGUF_TEXT), value);
}

void gguf_key_i32s(struct gguf_keys *keys, const char *key, const int32_t *values, uint64_t count)
{
    pm_buf_append(put_array(keys, key, GGUF_I32, count), values, count * sizeof *values);
}

void gguf_key_f32s(struct gguf_keys *keys, const char *key, const float *values, uint64_t count)
{
    pm_buf_append(put_array(keys, key, GGUF_F32, count), values, count * sizeof *values);
}

void gguf_key_texts(struct gguf_keys *keys, const char *key, const char *const *values, uint64_t count)
{
    struct pm_buf *b = put_array(keys, key, GGUF_TEXT, count);
    for (uint64_t i = 0; i < count; i++)
        put_text(b, values[i]);
}

static void pad(struct pm_buf *b, uint32_t alignment)
{
    while (b->size % alignment)
        pm_buf_append(b, "", 1);
}

void build_gguf(struct pm_buf *out, uint32_t version, const struct gguf_keys *keys, uint32_t alignment,
                const struct source *tensors, size_t count)
{
    pm_buf_append(out, "GGUF", 4);
    put_u32(out, version);
    put_u64(out, count);
    put_u64(out, keys->count);
    pm_buf_append(out, keys->bytes.data, keys->bytes.size);
    uint64_t at = 0;
    for (size_t i = 0; i < count; i++) {
        put_text(out, tensors[i].name);
        put_u32(out, (uint32_t)tensors[i].rank);
        for (int d = tensors[i].rank - 1; d >= 0; d--)
            put_u64(out, tensors[i].shape[d]);
        put_u32(out, tensors[i].gguf_type);
        put_u64(out, at);
        at += (tensors[i].bytes + alignment - 1) / alignment * alignment;
    }
    for (size_t i = 0; i < count; i++) {
        pad(out, alignment);
        pm_buf_append(out, tensors[i].data, tensors[i].bytes);
    }
}

/* ---- whole models: hidden 32, 2 heads of 16, one key head, vocabulary 12, intermediate 32 ---- */

enum { VALUES = 32 * 64 };

float model_value(unsigned t, uint64_t i)
{
    return (float)((int)((t * 37 + i * 11) % 251) - 125) / 64.0f;
}

static float floats[24][VALUES];

/* Tensor t's first values, in floats[t]. */
static void fill_floats(void)
{
    for (unsigned t = 0; t < 24; t++)
        for (uint64_t i = 0; i < VALUES; i++)
            floats[t][i] = model_value(t, i);
}

static uint64_t product(const struct source *s)
{
    uint64_t n = 1;
    for (int d = 0; d < s->rank; d++)
        n *= s->shape[d];
    return n;
}

static const char config[] =
    "{\"model_type\":\"glm_ocr\",\"text_config\":{\"num_hidden_layers\":1,\"num_nextn_predict_layers\":1,"
    "\"hidden_size\":32,\"vocab_size\":12},\"vision_config\":{\"depth\":1}%s}";

static void side_files(struct files *files, const char *more)
{
    pm_buf_printf(files_add(files, "config.json"), config, more);
    pm_buf_text(files_add(files, "tokenizer_config.json"), "{\"chat_template\":\"{{ messages }}\"}");
}

static struct source plain(const char *name, unsigned t, int rank, const uint64_t *shape)
{
    struct source s = {.name = name, .dtype = PM_DTYPE_F32, .rank = rank, .data = floats[t]};
    memcpy(s.shape, shape, (size_t)rank * sizeof *shape);
    s.bytes = product(&s) * sizeof(float);
    return s;
}
#define PLAIN(name, t, ...)                                                                                  \
    plain(name, t, (int)(sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t)), (uint64_t[]){__VA_ARGS__})

void model_safetensors(struct files *files)
{
    static uint16_t upper[VALUES];
    fill_floats();
    for (int i = 0; i < VALUES; i++) {
        uint32_t bits;
        memcpy(&bits, &floats[1][i], sizeof bits);
        upper[i] = (uint16_t)(bits >> 16);
    }
    struct source bf16 = PLAIN("lm_head.weight", 1, 12, 32);
    bf16.dtype = PM_DTYPE_BF16;
    bf16.data = upper;
    bf16.bytes /= 2;
    const struct source tensors[] = {PLAIN("model.language_model.embed_tokens.weight", 0, 12, 32), bf16,
                                     PLAIN("model.language_model.norm.weight", 2, 32),
                                     PLAIN("model.visual.patch_embed.proj.weight", 3, 2, 3, 2, 4, 4)};
    build_safetensors(files_add(files, "model.safetensors"), tensors, 4);
    side_files(files, "");
}

void model_shards(struct files *files)
{
    fill_floats();
    const struct source tensors[] = {PLAIN("lm_head.weight", 0, 12, 32),
                                     PLAIN("model.language_model.norm.weight", 1, 32),
                                     PLAIN("model.visual.post_layernorm.weight", 2, 16)};
    build_safetensors(files_add(files, "model-00001-of-00002.safetensors"), tensors, 1);
    build_safetensors(files_add(files, "model-00002-of-00002.safetensors"), tensors + 1, 2);
    pm_buf_printf(files_add(files, "model.safetensors.index.json"),
                  "{\"metadata\":{\"total_size\":%zu},\"weight_map\":{\"lm_head.weight\":"
                  "\"model-00001-of-00002.safetensors\",\"model.language_model.norm.weight\":"
                  "\"model-00002-of-00002.safetensors\",\"model.visual.post_layernorm.weight\":"
                  "\"model-00002-of-00002.safetensors\"}}",
                  tensors[0].bytes + tensors[1].bytes + tensors[2].bytes);
    side_files(files, "");
}

void model_mlx(struct files *files)
{
    static uint32_t words[VALUES];
    fill_floats();
    for (uint32_t i = 0; i < VALUES; i++)
        words[i] = i * 2654435761u;
    struct source four = {.name = "language_model.model.layers.0.mlp.down_proj.weight",
                          .dtype = PM_DTYPE_U32,
                          .rank = 2,
                          .shape = {4, 8}, /* 64 values of 4 bits */
                          .data = words,
                          .bytes = 4 * 8 * 4};
    struct source three = {.name = "language_model.lm_head.weight",
                           .dtype = PM_DTYPE_U32,
                           .rank = 2,
                           .shape = {2, 6}, /* 64 values of 3 bits */
                           .data = words + 64,
                           .bytes = 2 * 6 * 4};
    const struct source tensors[] = {four,
                                     PLAIN("language_model.model.layers.0.mlp.down_proj.scales", 0, 4, 1),
                                     PLAIN("language_model.model.layers.0.mlp.down_proj.biases", 1, 4, 1),
                                     three,
                                     PLAIN("language_model.lm_head.scales", 2, 2, 2),
                                     PLAIN("language_model.lm_head.biases", 3, 2, 2),
                                     PLAIN("language_model.model.norm.weight", 4, 32),
                                     PLAIN("vision_tower.patch_embed.proj.weight", 5, 4, 2, 5, 5, 3),
                                     PLAIN("vision_tower.downsample.weight", 6, 4, 8, 2, 2)};
    build_safetensors(files_add(files, "model.safetensors"), tensors, sizeof tensors / sizeof *tensors);
    side_files(files, ",\"quantization\":{\"group_size\":64,\"bits\":4,\"mode\":\"affine\","
                      "\"language_model.lm_head\":{\"group_size\":32,\"bits\":3},"
                      "\"vision_tower.downsample\":false}");
}

static void model_keys(struct gguf_keys *keys)
{
    static const char *const tokens[] = {"a",
                                         "b",
                                         "c",
                                         "ab",
                                         "abc",
                                         "<|endoftext|>",
                                         "<|user|>",
                                         "<|image|>",
                                         "<|begin_of_image|>",
                                         "<|end_of_image|>",
                                         "<think>",
                                         "[PAD11]"};
    static const int32_t types[] = {1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 4, 5}, sections[] = {2, 3, 3, 0};
    static const char *const merges[] = {"a b", "ab c"};
    gguf_key_text(keys, "general.architecture", "glm4");
    gguf_key_u32(keys, "glm4.block_count", 2);
    gguf_key_u32(keys, "glm4.nextn_predict_layers", 1);
    gguf_key_u32(keys, "glm4.context_length", 4096);
    gguf_key_u32(keys, "glm4.embedding_length", 32);
    gguf_key_u32(keys, "glm4.feed_forward_length", 32);
    gguf_key_u32(keys, "glm4.attention.head_count", 2);
    gguf_key_u32(keys, "glm4.attention.head_count_kv", 1);
    gguf_key_u32(keys, "glm4.attention.key_length", 16);
    gguf_key_u32(keys, "glm4.rope.dimension_count", 16);
    gguf_key_f32(keys, "glm4.rope.freq_base", 10000);
    gguf_key_f32(keys, "glm4.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_key_i32s(keys, "glm4.rope.dimension_sections", sections, 4);
    gguf_key_text(keys, "tokenizer.ggml.model", "gpt2");
    gguf_key_text(keys, "tokenizer.ggml.pre", "glm4");
    gguf_key_texts(keys, "tokenizer.ggml.tokens", tokens, 12);
    gguf_key_i32s(keys, "tokenizer.ggml.token_type", types, 12);
    gguf_key_texts(keys, "tokenizer.ggml.merges", merges, 2);
    gguf_key_u32(keys, "tokenizer.ggml.eos_token_id", 5);
    gguf_key_u32(keys, "tokenizer.ggml.eot_token_id", 6);
    gguf_key_u32(keys, "general.alignment", 64);
}

static void projector_keys(struct gguf_keys *keys)
{
    static const float mean[] = {0.5f, 0.25f, 0.125f};
    gguf_key_text(keys, "general.architecture", "clip");
    gguf_key_text(keys, "clip.projector_type", "glm4v");
    gguf_key_u32(keys, "clip.vision.image_size", 336);
    gguf_key_u32(keys, "clip.vision.patch_size", 4);
    gguf_key_u32(keys, "clip.vision.embedding_length", 8);
    gguf_key_u32(keys, "clip.vision.feed_forward_length", 16);
    gguf_key_u32(keys, "clip.vision.block_count", 1);
    gguf_key_u32(keys, "clip.vision.attention.head_count", 2);
    gguf_key_u32(keys, "clip.vision.projection_dim", 32);
    gguf_key_u32(keys, "clip.vision.image_min_pixels", 1000);
    gguf_key_f32(keys, "clip.vision.attention.layer_norm_epsilon", 1e-5f);
    gguf_key_f32s(keys, "clip.vision.image_mean", mean, 3);
}

void model_gguf(struct files *files)
{
    static uint8_t blocks[12 * 34];
    fill_floats();
    for (size_t i = 0; i < sizeof blocks; i++) /* scales of 0x2c2c: a small number */
        blocks[i] = i % 34 < 2 ? 0x2c : (uint8_t)(i * 29);
    struct source table = {.name = "token_embd.weight",
                           .gguf_type = 8,
                           .rank = 2,
                           .shape = {12, 32},
                           .data = blocks,
                           .bytes = sizeof blocks};
    const struct source model[] = {table,
                                   PLAIN("output.weight", 0, 12, 32),
                                   PLAIN("output_norm.weight", 1, 32),
                                   PLAIN("blk.0.attn_q.weight", 2, 32, 32),
                                   PLAIN("blk.0.attn_k.weight", 3, 16, 32),
                                   PLAIN("blk.0.attn_v.weight", 4, 16, 32),
                                   PLAIN("blk.0.ffn_norm.weight", 5, 32),
                                   PLAIN("blk.0.post_attention_norm.weight", 6, 32),
                                   PLAIN("blk.1.nextn.eh_proj.weight", 7, 32, 64)};
    const struct source projector[] = {PLAIN("v.patch_embd.weight", 10, 8, 3, 4, 4),
                                       PLAIN("v.patch_embd.weight.1", 11, 8, 3, 4, 4),
                                       PLAIN("v.patch_embd.bias", 12, 8),
                                       PLAIN("v.blk.0.attn_qkv.weight", 13, 24, 8),
                                       PLAIN("v.blk.0.attn_q_norm.weight", 14, 4),
                                       PLAIN("mm.patch_merger.weight", 15, 32, 8, 2, 2),
                                       PLAIN("mm.patch_merger.bias", 16, 32, 1, 1)};
    struct gguf_keys keys = {0};
    model_keys(&keys);
    build_gguf(files_add(files, "tiny-Q8_0.gguf"), 3, &keys, 64, model, sizeof model / sizeof *model);
    pm_buf_free(&keys.bytes);
    keys = (struct gguf_keys){0};
    projector_keys(&keys);
    build_gguf(files_add(files, "mmproj-tiny.gguf"), 2, &keys, 32, projector,
               sizeof projector / sizeof *projector);
    pm_buf_free(&keys.bytes);
}
