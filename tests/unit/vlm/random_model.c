#include "tests/unit/vlm/random_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/glm_ocr/glm_ocr.h"

const char *const random_tables[] = {"plain", "avx2", "avx512", "avx512vnni", "avx512bf16", NULL};

const struct random_sizes random_sizes[RANDOM_SIZES] = {
    {.name = "plain",
     .hidden = 48,
     .intermediate = 80,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 16,
     .vocab = 70,
     .layers = 2,
     .mtp_layers = 1,
     .sections = {2, 3, 3},
     .vision_hidden = 64,
     .vision_intermediate = 96,
     .vision_heads = 2,
     .depth = 2,
     .patch = 4,
     .temporal = 2,
     .merge = 2},
    {.name = "odd",
     .hidden = 33,
     .intermediate = 41,
     .heads = 3,
     .kv_heads = 1,
     .head_dim = 10,
     .vocab = 131,
     .layers = 1,
     .mtp_layers = 1,
     .sections = {0, 2, 3},
     .vision_hidden = 24,
     .vision_intermediate = 35,
     .vision_heads = 2,
     .depth = 1,
     .patch = 3,
     .temporal = 1,
     .merge = 3},
};

float random_value(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*state >> 33) / (float)(1 << 30) - 1;
}

static void put(const char *dir, const char *file, const void *bytes, size_t count)
{
    char *path = pm_fs_join(dir, file);
    assert_int_equal(pm_fs_write(path, bytes, count, false, NULL), 0);
    free(path);
}

static char *config_text(const struct random_sizes *s)
{
    return pm_xprintf(
        "{\"model_type\":\"glm_ocr\",\"text_config\":{\"vocab_size\":%d,\"eos_token_id\":[1,2],"
        "\"attention_bias\":false,\"head_dim\":%d,\"hidden_act\":\"silu\",\"hidden_size\":%d,"
        "\"intermediate_size\":%d,\"max_position_embeddings\":4096,\"num_attention_heads\":%d,"
        "\"num_hidden_layers\":%d,\"num_nextn_predict_layers\":%d,\"num_key_value_heads\":%d,"
        "\"rms_norm_eps\":1e-05,\"rope_parameters\":{\"rope_type\":\"default\",\"mrope_section\":[%d,%d,%d],"
        "\"partial_rotary_factor\":1.0,\"rope_theta\":10000},\"tie_word_embeddings\":false},"
        "\"vision_config\":{\"hidden_size\":%d,\"depth\":%d,\"num_heads\":%d,\"attention_bias\":true,"
        "\"intermediate_size\":%d,\"hidden_act\":\"silu\",\"patch_size\":%d,\"out_hidden_size\":%d,"
        "\"rms_norm_eps\":1e-05,\"spatial_merge_size\":%d,\"temporal_patch_size\":%d},"
        "\"image_token_id\":%d,\"image_start_token_id\":4,\"image_end_token_id\":5}",
        s->vocab, s->head_dim, s->hidden, s->intermediate, s->heads, s->layers, s->mtp_layers, s->kv_heads,
        s->sections[0], s->sections[1], s->sections[2], s->vision_hidden, s->depth, s->vision_heads,
        s->vision_intermediate, s->patch, s->hidden, s->merge, s->temporal, RANDOM_IMAGE_ID);
}

/* Norms around one, products that keep the size of their inputs. */
static float value_of(const struct pm_glm_ocr_tensor *t, uint64_t columns, uint64_t *state)
{
    float x = random_value(state);
    if (t->rank == 1)
        return strstr(t->name, "bias") ? 0.1f * x : 1 + 0.25f * x;
    return strstr(t->name, "embed_tokens") ? x : x * 1.7f / sqrtf((float)columns);
}

static void write_weights(const char *dir, const struct pm_glm_ocr_tensor *list, size_t count)
{
    struct pm_buf header = {0}, data = {0}, file = {0};
    uint64_t state = 42;
    pm_buf_text(&header, "{");
    for (size_t i = 0; i < count; i++) {
        uint64_t values = 1, begin = data.size;
        pm_buf_printf(&header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", i ? "," : "", list[i].name);
        for (int d = 0; d < list[i].rank; d++) {
            values *= list[i].shape[d];
            pm_buf_printf(&header, "%s%llu", d ? "," : "", (unsigned long long)list[i].shape[d]);
        }
        for (uint64_t v = 0; v < values; v++) {
            float x = value_of(&list[i], values / list[i].shape[0], &state);
            pm_buf_append(&data, &x, sizeof x);
        }
        pm_buf_printf(&header, "],\"data_offsets\":[%llu,%zu]}", (unsigned long long)begin, data.size);
    }
    pm_buf_text(&header, "}");
    uint64_t bytes = header.size;
    pm_buf_append(&file, &bytes, sizeof bytes);
    pm_buf_append(&file, header.data, header.size);
    pm_buf_append(&file, data.data, data.size);
    put(dir, "model.safetensors", file.data, file.size);
    pm_buf_free(&header);
    pm_buf_free(&data);
    pm_buf_free(&file);
}

static const char tokenizer[] =
    "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[{\"id\":3,\"content\":\"<|"
    "image|>\","
    "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}],"
    "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_"
    "offsets\":true,"
    "\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":"
    "true,"
    "\"trim_offsets\":true,\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":"
    "null,"
    "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":"
    "false,"
    "\"ignore_merges\":false,\"vocab\":{\"a\":0,\"b\":1,\"c\":2},\"merges\":[]}}";

/* The checkpoint's folder below dir, made when it is not there yet. */
static char *checkpoint(const char *dir, const struct random_sizes *sizes)
{
    char *source = pm_xprintf("%s/%s", dir, sizes->name), *text = config_text(sizes);
    struct pm_glm_ocr_tensor *list = NULL;
    struct pm_vlm_config config;
    struct pm_error err;
    size_t count = 0;
    if (!pm_fs_is_dir(source)) {
        assert_int_equal(pm_fs_mkdir_p(source, 0700, NULL), 0);
        put(source, "config.json", text, strlen(text));
        put(source, "tokenizer.json", tokenizer, strlen(tokenizer));
        static const char template[] = "{{ messages[0].content }}";
        put(source, "chat_template.jinja", template, strlen(template));
        if (pm_glm_ocr_config(text, NULL, NULL, &config, &err) ||
            pm_glm_ocr_tensors(&config, &list, &count, &err))
            fail_msg("%s", err.text);
        write_weights(source, list, count);
        free(list);
    }
    free(text);
    return source;
}

char *random_model_path(const char *dir, const struct random_sizes *sizes, enum pm_precision precision)
{
    char *source = checkpoint(dir, sizes);
    char *out = pm_xprintf("%s/%s-%s", dir, sizes->name, pm_precision_name(precision));
    struct pm_weights *weights = NULL;
    struct pm_error err;
    if (!pm_fs_is_dir(out)) {
        struct pm_glm_ocr_pack_options options = {.precision = precision, .name = "random"};
        if (pm_weights_open(source, &weights, &err) || pm_glm_ocr_pack(weights, out, &options, &err))
            fail_msg("%s", err.text);
    }
    pm_weights_close(&weights);
    char *path = pm_fs_join(out, "model.pmw");
    free(out);
    free(source);
    return path;
}

struct pm_vlm_model *random_model_open(const char *dir, const struct random_sizes *sizes,
                                       enum pm_precision precision)
{
    char *path = random_model_path(dir, sizes, precision);
    struct pm_vlm_model *model = NULL;
    struct pm_error err;
    if (pm_glm_ocr_model_open(path, &model, &err))
        fail_msg("%s", err.text);
    free(path);
    return model;
}
