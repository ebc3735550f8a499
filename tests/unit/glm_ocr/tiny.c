#include "tests/unit/glm_ocr/tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/glm_ocr/glm_ocr.h"

/* Byte-level BPE of 64 characters and the ids that a prompt needs. */
static char *tokenizer(void)
{
    struct pm_buf b = {0};
    static const char *const special[] = {"<|image|>", "<|begin_of_image|>", "<|end_of_image|>", "<|user|>"};
    pm_buf_printf(&b, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[");
    for (int i = 0; i < 4; i++)
        pm_buf_printf(
            &b,
            "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
            "\"normalized\":false,\"special\":true}",
            i ? "," : "", 64 + i, special[i]);
    pm_buf_printf(
        &b, "],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
            "\"trim_offsets\":true,\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":"
            "\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},"
            "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
            "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
            "\"byte_fallback\":false,\"ignore_merges\":false,\"vocab\":{");
    for (int i = 0; i < 64; i++)
        pm_buf_printf(&b, "%s\"%c\":%d", i ? "," : "", '0' + i == '\\' ? '!' : '0' + i, i);
    pm_buf_printf(&b, "},\"merges\":[]}}");
    pm_buf_text(&b, "");
    return (char *)b.data;
}

char *tiny_config(const struct tiny *t)
{
    return pm_xprintf(
        "{\"architectures\":[\"GlmOcrForConditionalGeneration\"],\"model_type\":\"glm_ocr\",\"text_config\":{"
        "\"pad_token_id\":68,\"vocab_size\":%d,\"eos_token_id\":[68,67],\"attention_bias\":false,\"head_"
        "dim\":8,"
        "\"hidden_act\":\"silu\",\"hidden_size\":%d,\"intermediate_size\":20,\"max_position_embeddings\":512,"
        "\"num_attention_heads\":2,\"num_hidden_layers\":%d,\"num_nextn_predict_layers\":1,"
        "\"num_key_value_heads\":1,\"rms_norm_eps\":1e-05,\"tie_word_embeddings\":%s,\"rope_parameters\":{"
        "\"rope_type\":\"default\",\"mrope_section\":[2,1,1],\"partial_rotary_factor\":1.0,"
        "\"rope_theta\":10000}},\"vision_config\":{\"hidden_size\":%d,\"depth\":%d,\"num_heads\":2,"
        "\"attention_bias\":true,\"intermediate_size\":27,\"hidden_act\":\"silu\",\"patch_size\":3,"
        "\"out_hidden_size\":%d,\"rms_norm_eps\":1e-05,\"spatial_merge_size\":2,\"temporal_patch_size\":2},"
        "\"image_token_id\":64,\"image_start_token_id\":65,\"image_end_token_id\":66}",
        TINY_VOCAB, TINY_TEXT, TINY_LAYERS, t->is_tied ? "true" : "false", TINY_VISION, TINY_DEPTH,
        TINY_TEXT);
}

void tiny_put(const char *dir, const char *file, const char *text)
{
    char *path = pm_fs_join(dir, file);
    assert_int_equal(pm_fs_mkdir_p(dir, 0700, NULL), 0);
    assert_int_equal(pm_fs_write(path, text, strlen(text), false, NULL), 0);
    free(path);
}

float tiny_value(const char *tensor, uint64_t index)
{
    uint64_t x = 14695981039346656037u;
    for (const char *p = tensor; *p; p++)
        x = (x ^ (uint8_t)*p) * 1099511628211u;
    x += index * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    return (float)((int)(x >> 20 & 255) - 128) / 64;
}

/* Whose values a tensor has: the extra layer's copies are equal to the main ones unless asked otherwise. */
static const char *values_of(const struct tiny *t, const char *name)
{
    if (!t->has_other_copies && strstr(name, "layers.2.embed_tokens"))
        return "model.language_model.embed_tokens.weight";
    if (!t->has_other_copies && strstr(name, "shared_head.head"))
        return t->is_tied ? "model.language_model.embed_tokens.weight" : "lm_head.weight";
    return name;
}

static bool is_it(const char *wanted, const char *name)
{
    return wanted && !strcmp(wanted, name);
}

static void write_weights(const char *dir, const struct tiny *t, const struct pm_glm_ocr_tensor *list,
                          size_t count)
{
    struct pm_buf header = {0}, data = {0}, file = {0};
    pm_buf_text(&header, "{");
    for (size_t i = 0; i < count; i++) {
        const struct pm_glm_ocr_tensor *one = &list[i];
        uint64_t values = 1, begin = data.size;
        if ((t->lacks_extra && strstr(one->name, "layers.2.")) || is_it(t->without, one->name))
            continue;
        pm_buf_printf(&header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", header.size > 1 ? "," : "",
                      is_it(t->renamed, one->name) ? t->name : one->name);
        for (int d = 0; d < one->rank; d++) {
            uint64_t side = one->shape[d] + (!d && is_it(t->reshaped, one->name));
            values *= side;
            pm_buf_printf(&header, "%s%llu", d ? "," : "", (unsigned long long)side);
        }
        for (uint64_t v = 0; v < values; v++) {
            float x =
                v == 5 && is_it(t->spoiled, one->name) ? t->spoilt : tiny_value(values_of(t, one->name), v);
            pm_buf_append(&data, &x, sizeof x);
        }
        pm_buf_printf(&header, "],\"data_offsets\":[%llu,%zu]}", (unsigned long long)begin, data.size);
    }
    pm_buf_text(&header, "}");
    uint64_t bytes = header.size;
    pm_buf_append(&file, &bytes, sizeof bytes);
    pm_buf_append(&file, header.data, header.size);
    pm_buf_append(&file, data.data, data.size);
    char *path = pm_fs_join(dir, "model.safetensors");
    assert_int_equal(pm_fs_write(path, file.data, file.size, false, NULL), 0);
    free(path);
    pm_buf_free(&header);
    pm_buf_free(&data);
    pm_buf_free(&file);
}

void tiny_write(const char *dir, const struct tiny *t)
{
    struct pm_vlm_config config;
    struct pm_glm_ocr_tensor *list;
    struct pm_error err;
    size_t count;
    char *text = tiny_config(t), *tokens = tokenizer();
    tiny_put(dir, "config.json", text);
    tiny_put(dir, "tokenizer.json", tokens);
    tiny_put(dir, "chat_template.jinja", "{{ messages[0].content }}");
    assert_int_equal(pm_glm_ocr_config(text, NULL, NULL, &config, &err), 0);
    assert_int_equal(pm_glm_ocr_tensors(&config, &list, &count, &err), 0);
    write_weights(dir, t, list, count);
    free(list);
    free(tokens);
    free(text);
}
