#include "tiny_model.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/fs.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "base/mem.h"

enum { ENDLESS_POSITIONS = 20000 };

static const char config_text[] =
    "{\"architectures\":[\"GlmOcrForConditionalGeneration\"],\"model_type\":\"glm_ocr\","
    "\"text_config\":{\"model_type\":\"glm_ocr_text\",\"pad_token_id\":256,\"vocab_size\":320,"
    "\"eos_token_id\":[256,263],\"attention_bias\":false,\"head_dim\":16,\"hidden_act\":\"silu\","
    "\"hidden_size\":48,\"intermediate_size\":80,\"max_position_embeddings\":%d,"
    "\"num_attention_heads\":4,\"num_hidden_layers\":2,\"num_nextn_predict_layers\":1,"
    "\"num_key_value_heads\":2,\"rms_norm_eps\":1e-05,\"rope_parameters\":{\"rope_type\":\"default\","
    "\"mrope_section\":[2,3,3],\"partial_rotary_factor\":1.0,\"rope_theta\":10000},"
    "\"tie_word_embeddings\":false},"
    "\"vision_config\":{\"model_type\":\"glm_ocr_vision\",\"hidden_size\":32,\"depth\":2,\"num_heads\":2,"
    "\"attention_bias\":true,\"intermediate_size\":56,\"hidden_act\":\"silu\",\"image_size\":64,"
    "\"patch_size\":8,\"out_hidden_size\":48,\"rms_norm_eps\":1e-05,\"spatial_merge_size\":2,"
    "\"temporal_patch_size\":2},\"image_start_token_id\":265,\"image_end_token_id\":266,"
    "\"video_start_token_id\":267,\"video_end_token_id\":268,\"image_token_id\":271,"
    "\"video_token_id\":272,\"tie_word_embeddings\":false}";
static const char processor_text[] =
    "{\"size\":{\"shortest_edge\":512,\"longest_edge\":65536},\"do_rescale\":true,\"patch_size\":8,"
    "\"temporal_patch_size\":2,\"merge_size\":2,\"image_mean\":[0.5,0.45,0.4],\"image_std\":[0.3,0.28,0.25],"
    "\"image_processor_type\":\"Glm46VImageProcessor\",\"processor_class\":\"Glm46VProcessor\"}";
static const char generation_text[] = "{\"eos_token_id\":[256,263],\"pad_token_id\":256,\"do_sample\":false}";
static const char template_text[] =
    "[gMASK]<sop>\n"
    "{%- for m in messages -%}\n"
    "{%- if m.role == 'user' -%}<|user|>\n"
    "{% if m.content is string -%}{{ m.content }}\n"
    "{%- else -%}\n"
    "{%- for item in m.content -%}\n"
    "{%- if item.type == 'image' -%}<|begin_of_image|><|image|><|end_of_image|>\n"
    "{%- elif item.type == 'text' -%}{{ item.text }}\n"
    "{%- endif -%}\n"
    "{%- endfor -%}\n"
    "{%- endif -%}\n"
    "{%- endif -%}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}<|assistant|>\n"
    "{% endif -%}";
static const char *const special[] = {"<|endoftext|>",
                                      "[MASK]",
                                      "[gMASK]",
                                      "[sMASK]",
                                      "<sop>",
                                      "<eop>",
                                      "<|system|>",
                                      "<|user|>",
                                      "<|assistant|>",
                                      "<|begin_of_image|>",
                                      "<|end_of_image|>",
                                      "<|begin_of_video|>",
                                      "<|end_of_video|>",
                                      "<think>",
                                      "</think>",
                                      "<|image|>",
                                      "<|video|>"};

/* ---- random numbers ---- */

uint64_t pm_tiny_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

int pm_tiny_between(uint64_t *state, int least, int most)
{
    return least + (int)(pm_tiny_random(state) % (uint64_t)(most - least + 1));
}

/* About normal, variance 1. */
static float normal(uint64_t *state)
{
    double sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (double)(pm_tiny_random(state) >> 11) / 9007199254740992.0;
    return (float)(sum - 6);
}

struct pm_image pm_tiny_picture(uint64_t *state, int width_px, int height_px)
{
    struct pm_image image;
    assert_int_equal(pm_image_alloc(width_px, height_px, 3, &image, NULL), 0);
    for (size_t i = 0; i < image.stride_bytes * (size_t)height_px; i++)
        image.owned[i] = (uint8_t)pm_tiny_random(state);
    return image;
}

/* ---- the checkpoint ---- */

static void put_file(const char *dir, const char *name, const char *text, size_t bytes)
{
    char *path = pm_fs_join(dir, name);
    struct pm_error err;
    if (pm_fs_write(path, text, bytes, false, &err))
        fail_msg("%s", err.text);
    free(path);
}

/* Text as the bytes' printable characters of byte-level BPE. */
static void byte_character(int byte, char out[3])
{
    int point = byte;
    bool is_kept = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    if (!is_kept) {
        point = 256;
        for (int b = 0; b < byte; b++)
            point += !((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174);
    }
    if (point < 128) {
        out[0] = (char)point;
        out[1] = 0;
    } else {
        out[0] = (char)(0xC0 | point >> 6);
        out[1] = (char)(0x80 | (point & 63));
        out[2] = 0;
    }
}

static void put_tokenizer(const char *dir)
{
    static const char split[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
                                "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    json_t *vocab = json_object(), *added = json_array();
    for (int b = 0; b < 256; b++) {
        char text[3];
        byte_character(b, text);
        json_object_set_new(vocab, text, json_integer(b));
    }
    for (int i = 0; i < (int)(sizeof special / sizeof *special); i++)
        json_array_append_new(added, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", 256 + i,
                                               "content", special[i], "single_word", 0, "lstrip", 0, "rstrip",
                                               0, "normalized", 0, "special", 1));
    json_t *root = json_pack(
        "{s:s, s:n, s:n, s:o, s:n, s:{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, {s:s, s:b, s:b, s:b}]},"
        " s:{s:s, s:b, s:b, s:b}, s:{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:[]}}",
        "version", "1.0", "truncation", "padding", "added_tokens", added, "normalizer", "pre_tokenizer",
        "type", "Sequence", "pretokenizers", "type", "Split", "pattern", "Regex", split, "behavior",
        "Isolated", "invert", 0, "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex",
        0, "decoder", "type", "ByteLevel", "add_prefix_space", 1, "trim_offsets", 1, "use_regex", 1, "model",
        "type", "BPE", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
        0, "byte_fallback", 0, "ignore_merges", 0, "vocab", vocab, "merges");
    assert_non_null(root);
    char *text = json_dumps(root, JSON_COMPACT);
    put_file(dir, "tokenizer.json", text, strlen(text));
    free(text);
    json_decref(root);
}

static bool has(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

/* Weights that make a text of its own: the next token hangs mostly on the last one, a little on everything
 * before. The extra layer sees the last token first, too, so that its guesses are often right. */
static void fill(const struct pm_glm_ocr_tensor *t, float *values, uint64_t count, bool is_endless)
{
    uint64_t seed = 17;
    const char *name = t->name;
    bool is_head = has(name, "shared_head.head") || has(name, "lm_head"),
         is_embed = has(name, "embed_tokens");
    for (const char *p = is_head ? "head" : is_embed ? "embed" : name; *p; p++)
        seed = seed * 131 + (uint8_t)*p;
    uint64_t columns = count / t->shape[0];
    float scale = is_head ? 0.6f : is_embed ? 1.0f : 1.0f / sqrtf((float)columns);
    bool is_branch = has(name, "post_self_attn") || has(name, "post_mlp");
    for (uint64_t i = 0; i < count; i++) {
        float x = normal(&seed);
        if (t->rank == 1)
            values[i] = is_branch ? 0.3f + 0.05f * x : has(name, "bias") ? 0.1f * x : 1 + 0.1f * x;
        else
            values[i] = scale * x;
        if (has(name, "eh_proj")) /* the embedding half as it is, a little of the hidden state */
            values[i] = (i % columns == i / columns ? 1.0f : 0.0f) + 0.02f * x;
        uint64_t id = i / columns;
        if (is_head && (id < ' ' || id > '~')) /* texts of visible bytes mostly, and now and then an end */
            values[i] *= id == PM_TINY_END && !is_endless ? 1.4f : id < 256 ? 0.5f : 0.02f;
    }
}

static void put_weights(const char *dir, const char *config_json, bool is_endless)
{
    struct pm_vlm_config config;
    struct pm_glm_ocr_tensor *tensors = NULL;
    struct pm_error err;
    struct pm_buf file = {0}, data = {0};
    size_t count = 0;
    if (pm_glm_ocr_config(config_json, generation_text, processor_text, &config, &err) ||
        pm_glm_ocr_tensors(&config, &tensors, &count, &err))
        fail_msg("%s", err.text);
    json_t *header = json_object();
    for (size_t i = 0; i < count; i++) {
        json_t *shape = json_array();
        uint64_t n = 1;
        for (int k = 0; k < tensors[i].rank; k++) {
            json_array_append_new(shape, json_integer((json_int_t)tensors[i].shape[k]));
            n *= tensors[i].shape[k];
        }
        float *values = pm_xalloc(n * sizeof *values);
        fill(&tensors[i], values, n, is_endless);
        json_object_set_new(header, tensors[i].name,
                            json_pack("{s:s, s:o, s:[I,I]}", "dtype", "F32", "shape", shape, "data_offsets",
                                      (json_int_t)data.size, (json_int_t)(data.size + n * sizeof *values)));
        pm_buf_append(&data, values, n * sizeof *values);
        free(values);
    }
    char *text = json_dumps(header, JSON_COMPACT);
    uint64_t bytes = (strlen(text) + 7) / 8 * 8;
    pm_buf_append(&file, &bytes, 8);
    pm_buf_printf(&file, "%-*s", (int)bytes, text);
    pm_buf_append(&file, data.data, data.size);
    put_file(dir, "model.safetensors", (const char *)file.data, file.size);
    pm_buf_free(&file);
    pm_buf_free(&data);
    free(text);
    json_decref(header);
    free(tensors);
}

char *pm_tiny_folder(const struct pm_tiny *tiny, enum pm_precision precision)
{
    return pm_fs_join(tiny->dir, pm_precision_name(precision));
}

static void pack(const struct pm_tiny *tiny, const char *source, enum pm_precision precision)
{
    struct pm_weights *weights;
    struct pm_error err;
    struct pm_glm_ocr_pack_options options = {.precision = precision, .source = source, .name = "tiny"};
    char *out = pm_tiny_folder(tiny, precision);
    if (pm_weights_open(source, &weights, &err) || pm_glm_ocr_pack(weights, out, &options, &err))
        fail_msg("%s", err.text);
    pm_weights_close(&weights);
    free(out);
}

void pm_tiny_checkpoint(const char *source, enum pm_tiny_kind kind)
{
    static const char *const manifests[] = {
        [PM_TINY_BLOCK] = "{\"region\":\"block\",\"max_tokens\":48}",
        [PM_TINY_LINE] = ("{\"region\":\"line\",\"line_height_px\":32,\"width_multiple_px\":16,"
                          "\"max_width_px\":256,\"tasks\":{\"text\":\"Text Recognition:\"}}"),
        [PM_TINY_ENDLESS] = "{\"region\":\"block\",\"max_tokens\":16000}"};
    char *config = pm_xprintf(config_text, kind == PM_TINY_ENDLESS ? ENDLESS_POSITIONS : PM_TINY_POSITIONS);
    assert_int_equal(mkdir(source, 0700), 0);
    put_file(source, "config.json", config, strlen(config));
    put_file(source, "generation_config.json", generation_text, sizeof generation_text - 1);
    put_file(source, "preprocessor_config.json", processor_text, sizeof processor_text - 1);
    put_file(source, "chat_template.jinja", template_text, sizeof template_text - 1);
    put_file(source, "pagemill.json", manifests[kind], strlen(manifests[kind]));
    put_tokenizer(source);
    put_weights(source, config, kind == PM_TINY_ENDLESS);
    free(config);
}

void pm_tiny_make(struct pm_tiny *tiny, enum pm_tiny_kind kind)
{
    *tiny = (struct pm_tiny){.dir = "/tmp/pm-tiny-XXXXXX"};
    assert_non_null(mkdtemp(tiny->dir));
    char *source = pm_fs_join(tiny->dir, "source");
    pm_tiny_checkpoint(source, kind);
    for (int precision = 0; precision < PM_PRECISION_COUNT; precision++)
        pack(tiny, source, (enum pm_precision)precision);
    free(source);
}

void pm_tiny_open(struct pm_tiny *tiny, enum pm_precision precision)
{
    struct pm_error err;
    char *dir = pm_tiny_folder(tiny, precision);
    char *weights = pm_fs_join(dir, "model.pmw"), *tokenizer = pm_fs_join(dir, "tokenizer.json");
    if (pm_glm_ocr_model_open(weights, &tiny->model, &err) ||
        pm_tokenizer_open(tokenizer, &tiny->tokenizer, &err))
        fail_msg("%s", err.text);
    free(weights);
    free(tokenizer);
    free(dir);
}

void pm_tiny_close(struct pm_tiny *tiny)
{
    pm_tokenizer_free(&tiny->tokenizer);
    pm_vlm_model_close(&tiny->model);
}

void pm_tiny_remove(struct pm_tiny *tiny)
{
    pm_tiny_close(tiny);
    assert_int_equal(pm_fs_remove_tree(tiny->dir, NULL), 0);
}
