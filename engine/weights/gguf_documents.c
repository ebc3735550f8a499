/* The side files of a checkpoint, made from the metadata of a GGUF pair. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/weights/gguf_model.h"
#include "engine/weights/internal.h"

enum { WIDTH_MAX = 1 << 20, TOKENS_MAX = 1 << 24 };

/* Kinds of tokens (llama.h, llama_token_type). */
enum { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_OWN = 4, TOKEN_UNUSED = 5 };

/* The published processor's, for files that leave them out (preprocessor_config.json of GLM-OCR); pixels of
 * two frames. */
static const json_int_t published_shortest = 12544, published_longest = 9633792;
static const double published_mean[3] = {0.48145466, 0.4578275, 0.40821073};
static const double published_std[3] = {0.26862954, 0.26130258, 0.27577711};

/* The split of GLM-4's tokenizers. */
static const char split[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
                            "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* What GLM-OCR's own template makes of pictures and texts, for files without one. */
static const char plain_template[] = "[gMASK]<sop>\n"
                                     "{%- for message in messages -%}\n"
                                     "{%- if message.role == 'user' -%}\n"
                                     "{{- '<|user|>\\n' -}}\n"
                                     "{%- elif message.role == 'assistant' -%}\n"
                                     "{{- '<|assistant|>\\n' -}}\n"
                                     "{%- elif message.role == 'system' -%}\n"
                                     "{{- '<|system|>\\n' -}}\n"
                                     "{%- endif -%}\n"
                                     "{%- if message.content is string -%}\n"
                                     "{{- message.content -}}\n"
                                     "{%- else -%}\n"
                                     "{%- for part in message.content -%}\n"
                                     "{%- if part.type == 'image' -%}\n"
                                     "{{- '<|begin_of_image|><|image|><|end_of_image|>' -}}\n"
                                     "{%- elif part.type == 'text' -%}\n"
                                     "{{- part.text -}}\n"
                                     "{%- endif -%}\n"
                                     "{%- endfor -%}\n"
                                     "{%- endif -%}\n"
                                     "{%- endfor -%}\n"
                                     "{%- if add_generation_prompt -%}\n"
                                     "{{- '<|assistant|>\\n' -}}\n"
                                     "{%- endif -%}\n";

static void set_whole(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

/* key of file as `to` of object. */
static int copy_whole(const struct pm_gguf *file, const char *key, uint64_t limit, json_t *object,
                      const char *to, struct pm_error *err)
{
    uint64_t value = 0;
    int rc = pm_gguf_need(file, key, limit, &value, err);
    if (!rc)
        set_whole(object, to, value);
    return rc;
}

static int copy_real(const struct pm_gguf *file, const char *key, json_t *object, const char *to,
                     struct pm_error *err)
{
    double value;
    if (!pm_gguf_real(file, key, &value) || !(value > 0 && value < 1e12))
        return pm_fail(err, PM_EFORMAT, "%s: key %s is missing, or no positive number", pm_gguf_name(file),
                       key);
    json_object_set_new(object, to, json_real(value));
    return 0;
}

/* ---- tokens ---- */

/* The id of a token by its text; -1. */
static json_int_t token_id(const struct pm_gguf *model, const char *wanted)
{
    struct pm_gguf_texts it;
    const char *text;
    size_t n, length = strlen(wanted);
    uint64_t count = pm_gguf_texts(model, "tokenizer.ggml.tokens", &it);
    for (uint64_t i = 0; i < count && pm_gguf_next_text(&it, &text, &n); i++)
        if (n == length && !memcmp(text, wanted, n))
            return (json_int_t)i;
    return -1;
}

/* End of text and end of a turn. */
static json_t *end_ids(const struct pm_gguf *model)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    json_t *list = json_array();
    uint64_t seen[3], count = 0;
    for (size_t i = 0; i < 3; i++) {
        uint64_t id;
        if (!pm_gguf_whole(model, keys[i], &id) || id > INT32_MAX)
            continue;
        bool is_known = false;
        for (uint64_t k = 0; k < count; k++)
            is_known = is_known || seen[k] == id;
        if (!is_known) {
            seen[count++] = id;
            json_array_append_new(list, json_integer((json_int_t)id));
        }
    }
    return list;
}

static void set_pad(const struct pm_gguf *model, json_t *object)
{
    uint64_t id;
    if ((pm_gguf_whole(model, "tokenizer.ggml.padding_token_id", &id) ||
         pm_gguf_whole(model, "tokenizer.ggml.eos_token_id", &id)) &&
        id <= INT32_MAX)
        set_whole(object, "pad_token_id", id);
}

/* ---- config.json ---- */

static json_t *rope_parameters(const struct pm_gguf *model, const struct pm_gguf_pair *pair)
{
    double theta = 10000;
    pm_gguf_real(model, "glm4.rope.freq_base", &theta);
    json_t *rope = json_object(), *sections = json_array();
    for (int i = 0; i < 3; i++)
        json_array_append_new(sections, json_integer((json_int_t)pair->sections[i]));
    json_object_set_new(rope, "rope_type", json_string("default"));
    json_object_set_new(rope, "rope_theta", json_real(theta > 0 && theta < 1e12 ? theta : 10000));
    json_object_set_new(rope, "partial_rotary_factor",
                        json_real((double)pair->rotary_dim / (double)pair->head_dim));
    json_object_set_new(rope, "mrope_section", sections);
    return rope;
}

static int text_config(const struct pm_weights *w, json_t *c, struct pm_error *err)
{
    const struct pm_gguf *model = w->model;
    struct pm_gguf_pair pair;
    int rc = pm_gguf_pair_sizes(model, &pair, err);
    const struct pm_gguf_tensor *table = pm_gguf_find(model, "token_embd.weight");
    if (rc)
        return rc;
    if (!table || !pair.has_sections)
        return pm_fail(err, PM_EFORMAT, "%s: %s is missing", pm_gguf_name(model),
                       table ? "glm4.rope.dimension_sections" : "tensor token_embd.weight");
    json_object_set_new(c, "model_type", json_string("glm_ocr_text"));
    json_object_set_new(c, "hidden_act", json_string("silu"));
    set_whole(c, "vocab_size", table->shape[0]);
    set_whole(c, "num_hidden_layers", pair.layers);
    set_whole(c, "hidden_size", pair.hidden);
    set_whole(c, "num_attention_heads", pair.heads);
    set_whole(c, "head_dim", pair.head_dim);
    /* The layer counts only when it is in the file. */
    char name[64];
    snprintf(name, sizeof name, "blk.%" PRIu64 ".nextn.eh_proj.weight", pair.layers);
    set_whole(c, "num_nextn_predict_layers", pm_gguf_find(model, name) ? pair.blocks - pair.layers : 0);
    json_object_set_new(c, "attention_bias", json_boolean(pm_gguf_find(model, "blk.0.attn_q.bias") != NULL));
    json_object_set_new(c, "tie_word_embeddings", json_boolean(!pm_gguf_find(model, "output.weight")));
    json_object_set_new(c, "rope_parameters", rope_parameters(model, &pair));
    json_object_set_new(c, "eos_token_id", end_ids(model));
    set_pad(model, c);
    rc = copy_whole(model, "glm4.feed_forward_length", WIDTH_MAX, c, "intermediate_size", err);
    if (!rc)
        rc = copy_whole(model, "glm4.attention.head_count_kv", WIDTH_MAX, c, "num_key_value_heads", err);
    if (!rc)
        rc = copy_whole(model, "glm4.context_length", 1 << 30, c, "max_position_embeddings", err);
    if (!rc)
        rc = copy_real(model, "glm4.attention.layer_norm_rms_epsilon", c, "rms_norm_eps", err);
    return rc;
}

static int vision_config(const struct pm_weights *w, json_t *c, struct pm_error *err)
{
    static const struct {
        const char *key, *to;
    } sizes[] = {
        {"clip.vision.embedding_length", "hidden_size"},
        {"clip.vision.feed_forward_length", "intermediate_size"},
        {"clip.vision.block_count", "depth"},
        {"clip.vision.attention.head_count", "num_heads"},
        {"clip.vision.patch_size", "patch_size"},
        {"clip.vision.image_size", "image_size"},
        {"clip.vision.projection_dim", "out_hidden_size"},
    };
    const struct pm_gguf *file = w->projector;
    const struct pm_gguf_tensor *patch = pm_gguf_find(file, "v.patch_embd.weight");
    const struct pm_gguf_tensor *merger = pm_gguf_find(file, "mm.patch_merger.weight");
    if (!patch || patch->rank != 4 || !merger || merger->rank != 4)
        return pm_fail(err, PM_EFORMAT, "%s: tensor %s is missing, or has not four dimensions",
                       pm_gguf_name(file),
                       !patch || patch->rank != 4 ? "v.patch_embd.weight" : "mm.patch_merger.weight");
    json_object_set_new(c, "model_type", json_string("glm_ocr_vision"));
    json_object_set_new(c, "hidden_act", json_string("silu"));
    set_whole(c, "in_channels", patch->shape[1]);
    set_whole(c, "temporal_patch_size", 2);
    set_whole(c, "spatial_merge_size", merger->shape[2]);
    json_object_set_new(c, "attention_bias",
                        json_boolean(pm_gguf_find(file, "v.blk.0.attn_qkv.bias") != NULL));
    int rc = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && !rc; i++)
        rc = copy_whole(file, sizes[i].key, WIDTH_MAX, c, sizes[i].to, err);
    if (!rc)
        rc = copy_real(file, "clip.vision.attention.layer_norm_epsilon", c, "rms_norm_eps", err);
    return rc;
}

static int make_config(const struct pm_weights *w, json_t *root, struct pm_error *err)
{
    static const struct {
        const char *text, *to;
        bool is_needed;
    } pictures[] = {
        {"<|image|>", "image_token_id", true},
        {"<|begin_of_image|>", "image_start_token_id", true},
        {"<|end_of_image|>", "image_end_token_id", true},
        {"<|video|>", "video_token_id", false},
        {"<|begin_of_video|>", "video_start_token_id", false},
        {"<|end_of_video|>", "video_end_token_id", false},
    };
    json_t *text = json_object(), *vision = json_object(), *classes = json_array();
    json_array_append_new(classes, json_string("GlmOcrForConditionalGeneration"));
    json_object_set_new(root, "architectures", classes);
    json_object_set_new(root, "model_type", json_string("glm_ocr"));
    json_object_set_new(root, "text_config", text);
    json_object_set_new(root, "vision_config", vision);
    int rc = text_config(w, text, err);
    if (!rc)
        rc = vision_config(w, vision, err);
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures && !rc; i++) {
        json_int_t id = token_id(w->model, pictures[i].text);
        if (id >= 0)
            json_object_set_new(root, pictures[i].to, json_integer(id));
        else if (pictures[i].is_needed)
            rc = pm_fail(err, PM_EFORMAT, "%s: tokenizer.ggml.tokens has no %s", pm_gguf_name(w->model),
                         pictures[i].text);
    }
    return rc;
}

static int make_generation(const struct pm_weights *w, json_t *root, struct pm_error *err)
{
    (void)err;
    json_object_set_new(root, "do_sample", json_false());
    json_object_set_new(root, "eos_token_id", end_ids(w->model));
    set_pad(w->model, root);
    return 0;
}

/* ---- preprocessor_config.json ---- */

static json_t *three(const struct pm_gguf *file, const char *key, const double *published)
{
    double values[3];
    const double *from = pm_gguf_reals(file, key, values, 3) == 3 ? values : published;
    json_t *list = json_array();
    for (int i = 0; i < 3; i++)
        json_array_append_new(list, json_real(from[i] > -1e6 && from[i] < 1e6 ? from[i] : published[i]));
    return list;
}

static int make_preprocessor(const struct pm_weights *w, json_t *root, struct pm_error *err)
{
    const struct pm_gguf *file = w->projector;
    const struct pm_gguf_tensor *merger = pm_gguf_find(file, "mm.patch_merger.weight");
    json_t *size = json_object();
    uint64_t pixels;
    json_int_t shortest = published_shortest, longest = published_longest;
    if (pm_gguf_whole(file, "clip.vision.image_min_pixels", &pixels) && pixels && pixels < (uint64_t)1 << 40)
        shortest = 2 * (json_int_t)pixels; /* GGUF counts one frame */
    if (pm_gguf_whole(file, "clip.vision.image_max_pixels", &pixels) && pixels && pixels < (uint64_t)1 << 40)
        longest = 2 * (json_int_t)pixels;
    json_object_set_new(size, "shortest_edge", json_integer(shortest));
    json_object_set_new(size, "longest_edge", json_integer(longest));
    json_object_set_new(root, "size", size);
    json_object_set_new(root, "do_rescale", json_true());
    set_whole(root, "temporal_patch_size", 2);
    set_whole(root, "merge_size", merger && merger->rank == 4 ? merger->shape[2] : 2);
    json_object_set_new(root, "image_mean", three(file, "clip.vision.image_mean", published_mean));
    json_object_set_new(root, "image_std", three(file, "clip.vision.image_std", published_std));
    json_object_set_new(root, "image_processor_type", json_string("Glm46VImageProcessor"));
    json_object_set_new(root, "processor_class", json_string("Glm46VProcessor"));
    return copy_whole(file, "clip.vision.patch_size", WIDTH_MAX, root, "patch_size", err);
}

/* ---- tokenizer.json ---- */

static json_t *byte_level(bool has_prefix_space, bool trims, bool has_expression)
{
    json_t *o = json_object();
    json_object_set_new(o, "type", json_string("ByteLevel"));
    json_object_set_new(o, "add_prefix_space", json_boolean(has_prefix_space));
    json_object_set_new(o, "trim_offsets", json_boolean(trims));
    json_object_set_new(o, "use_regex", json_boolean(has_expression));
    return o;
}

static json_t *pre_tokenizer(void)
{
    json_t *o = json_object(), *list = json_array(), *cut = json_object(), *pattern = json_object();
    json_object_set_new(pattern, "Regex", json_string(split));
    json_object_set_new(cut, "type", json_string("Split"));
    json_object_set_new(cut, "pattern", pattern);
    json_object_set_new(cut, "behavior", json_string("Isolated"));
    json_object_set_new(cut, "invert", json_false());
    json_array_append_new(list, cut);
    json_array_append_new(list, byte_level(false, true, false));
    json_object_set_new(o, "type", json_string("Sequence"));
    json_object_set_new(o, "pretokenizers", list);
    return o;
}

static json_t *added_token(json_int_t id, const char *text, size_t bytes, bool is_special)
{
    json_t *o = json_object();
    json_object_set_new(o, "id", json_integer(id));
    json_object_set_new(o, "content", json_stringn(text, bytes));
    json_object_set_new(o, "single_word", json_false());
    json_object_set_new(o, "lstrip", json_false());
    json_object_set_new(o, "rstrip", json_false());
    json_object_set_new(o, "normalized", json_false());
    json_object_set_new(o, "special", json_boolean(is_special));
    return o;
}

static int check_tokenizer(const struct pm_gguf *model, struct pm_error *err)
{
    const char *text = "";
    size_t n = 0;
    if (!pm_gguf_is_text(model, "tokenizer.ggml.model", "gpt2"))
        return pm_fail(err, PM_EUNSUPPORTED, "%s: tokenizer.ggml.model is not \"gpt2\" (byte-level BPE)",
                       pm_gguf_name(model));
    if (pm_gguf_text(model, "tokenizer.ggml.pre", &text, &n) &&
        !pm_gguf_is_text(model, "tokenizer.ggml.pre", "glm4") &&
        !pm_gguf_is_text(model, "tokenizer.ggml.pre", "chatglm-bpe"))
        return pm_fail(err, PM_EUNSUPPORTED,
                       "%s: tokenizer.ggml.pre is \"%.*s\": \"glm4\" and \"chatglm-bpe\" are known",
                       pm_gguf_name(model), n < 40 ? (int)n : 40, text);
    return 0;
}

/* Every token goes to the vocabulary or to the added ones, by its type; unused ids stay holes. */
static int add_tokens(const struct pm_gguf *model, json_t *vocabulary, json_t *added, struct pm_error *err)
{
    struct pm_gguf_texts it;
    uint64_t count = pm_gguf_texts(model, "tokenizer.ggml.tokens", &it);
    if (!count || count > TOKENS_MAX)
        return pm_fail(err, PM_EFORMAT, "%s: tokenizer.ggml.tokens: %" PRIu64 " tokens", pm_gguf_name(model),
                       count);
    uint64_t *types = pm_xalloc((size_t)count * sizeof *types);
    int rc = 0;
    if (pm_gguf_wholes(model, "tokenizer.ggml.token_type", types, count) != count)
        rc = pm_fail(err, PM_EFORMAT,
                     "%s: tokenizer.ggml.token_type is not one number for each of %" PRIu64 " tokens",
                     pm_gguf_name(model), count);
    const char *text;
    size_t n;
    for (uint64_t i = 0; i < count && !rc && pm_gguf_next_text(&it, &text, &n); i++) {
        json_int_t id = (json_int_t)i;
        if (types[i] == TOKEN_UNUSED)
            continue;
        if (!n || !pm_utf8_is_text(text, n))
            rc = pm_fail(err, PM_EFORMAT, "%s: token %" PRIu64 " is empty or not UTF-8", pm_gguf_name(model),
                         i);
        else if (types[i] == TOKEN_CONTROL || types[i] == TOKEN_OWN || types[i] == TOKEN_UNKNOWN)
            json_array_append_new(added, added_token(id, text, n, types[i] != TOKEN_OWN));
        else if (types[i] != TOKEN_NORMAL)
            rc = pm_fail(err, PM_EUNSUPPORTED, "%s: token %" PRIu64 " is of type %" PRIu64,
                         pm_gguf_name(model), i, types[i]);
        else if (json_object_getn(vocabulary, text, n))
            rc = pm_fail(err, PM_EFORMAT, "%s: token %" PRIu64 " is there twice", pm_gguf_name(model), i);
        else
            json_object_setn_new_nocheck(vocabulary, text, n, json_integer(id));
    }
    free(types);
    return rc;
}

/* "left right" -> ["left", "right"] */
static int add_merges(const struct pm_gguf *model, json_t *merges, struct pm_error *err)
{
    struct pm_gguf_texts it;
    uint64_t count = pm_gguf_texts(model, "tokenizer.ggml.merges", &it);
    const char *text;
    size_t n;
    for (uint64_t i = 0; i < count && pm_gguf_next_text(&it, &text, &n); i++) {
        const char *space = n > 1 ? memchr(text + 1, ' ', n - 1) : NULL;
        size_t left = space ? (size_t)(space - text) : 0;
        if (!space || left + 1 >= n || !pm_utf8_is_text(text, n))
            return pm_fail(err, PM_EFORMAT, "%s: merge %" PRIu64 " is not two texts with a space between",
                           pm_gguf_name(model), i);
        json_t *pair = json_array();
        json_array_append_new(pair, json_stringn(text, left));
        json_array_append_new(pair, json_stringn(space + 1, n - left - 1));
        json_array_append_new(merges, pair);
    }
    return 0;
}

static int make_tokenizer(const struct pm_weights *w, json_t *root, struct pm_error *err)
{
    int rc = check_tokenizer(w->model, err);
    if (rc)
        return rc;
    json_t *bpe = json_object(), *vocabulary = json_object(), *merges = json_array(), *added = json_array();
    json_object_set_new(root, "version", json_string("1.0"));
    json_object_set_new(root, "truncation", json_null());
    json_object_set_new(root, "padding", json_null());
    json_object_set_new(root, "added_tokens", added);
    json_object_set_new(root, "normalizer", json_null());
    json_object_set_new(root, "pre_tokenizer", pre_tokenizer());
    json_object_set_new(root, "post_processor", byte_level(true, false, true));
    json_object_set_new(root, "decoder", byte_level(true, true, true));
    json_object_set_new(root, "model", bpe);
    json_object_set_new(bpe, "type", json_string("BPE"));
    json_object_set_new(bpe, "dropout", json_null());
    json_object_set_new(bpe, "unk_token", json_null());
    json_object_set_new(bpe, "continuing_subword_prefix", json_null());
    json_object_set_new(bpe, "end_of_word_suffix", json_null());
    json_object_set_new(bpe, "fuse_unk", json_false());
    json_object_set_new(bpe, "byte_fallback", json_false());
    json_object_set_new(bpe, "ignore_merges", json_true());
    json_object_set_new(bpe, "vocab", vocabulary);
    json_object_set_new(bpe, "merges", merges);
    rc = add_tokens(w->model, vocabulary, added, err);
    if (!rc)
        rc = add_merges(w->model, merges, err);
    return rc;
}

static int make_tokenizer_config(const struct pm_weights *w, json_t *root, struct pm_error *err)
{
    (void)w, (void)err;
    json_object_set_new(root, "tokenizer_class", json_string("PreTrainedTokenizerFast"));
    json_object_set_new(root, "clean_up_tokenization_spaces", json_false());
    json_object_set_new(root, "do_lower_case", json_false());
    return 0;
}

static int make_template(const struct pm_weights *w, struct pm_buf *out, struct pm_error *err)
{
    const char *text = plain_template;
    size_t n = sizeof plain_template - 1;
    if (pm_gguf_text(w->model, "tokenizer.chat_template", &text, &n) && !pm_utf8_is_text(text, n))
        return pm_fail(err, PM_EFORMAT, "%s: tokenizer.chat_template is not UTF-8", pm_gguf_name(w->model));
    pm_buf_append(out, text, n);
    return 0;
}

int pm_weights_gguf_document(const struct pm_weights *weights, const char *name, struct pm_buf *out,
                             struct pm_error *err)
{
    static const struct {
        const char *name;
        int (*make)(const struct pm_weights *w, json_t *root, struct pm_error *err);
    } documents[] = {
        {"config.json", make_config},
        {"generation_config.json", make_generation},
        {"preprocessor_config.json", make_preprocessor},
        {"tokenizer.json", make_tokenizer},
        {"tokenizer_config.json", make_tokenizer_config},
    };
    if (!strcmp(name, "chat_template.jinja"))
        return make_template(weights, out, err);
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++)
        if (!strcmp(name, documents[i].name)) {
            json_t *root = json_object();
            int rc = documents[i].make(weights, root, err);
            if (!rc)
                pm_weights_append_json(out, root);
            json_decref(root);
            return rc;
        }
    return pm_fail(err, PM_ENOTFOUND, "%s: a GGUF model has no %s", weights->path, name);
}
