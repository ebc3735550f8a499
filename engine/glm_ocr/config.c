#include "engine/glm_ocr/glm_ocr.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/json.h"

/* Side lengths of the picture grid; the products with the limits of config.h stay far below 2^63. */
enum { LIMIT_PATCH = 128, LIMIT_TEMPORAL = 8, LIMIT_MERGE = 16, COLOURS = 3 };
static const int64_t limit_pixels = (int64_t)1 << 40;
/* torch.nn.LayerNorm's own; the checkpoint has no key for it. */
static const float layer_norm_eps = 1e-5F;

/* One object of one file. The first failure stays in *rc, so that a block of keys reads like a table. */
struct section {
    const char *file, *path; /* "config.json", "text_config." or "" */
    const json_t *object;
    int *rc;
    struct pm_error *err;
};

static int64_t bounded(const struct section *s, const char *key, const json_t *value, int64_t least,
                       int64_t most)
{
    if (*s->rc)
        return least;
    if (!value)
        *s->rc = pm_fail(s->err, PM_EFORMAT, "%s: \"%s%s\" is missing", s->file, s->path, key);
    else if (!json_is_integer(value))
        *s->rc = pm_fail(s->err, PM_EFORMAT, "%s: \"%s%s\" must be a whole number", s->file, s->path, key);
    else if (json_integer_value(value) < least || json_integer_value(value) > most)
        *s->rc = pm_fail(s->err, PM_EFORMAT, "%s: \"%s%s\" is %lld, must be %lld..%lld", s->file, s->path,
                         key, (long long)json_integer_value(value), (long long)least, (long long)most);
    return *s->rc ? least : json_integer_value(value);
}

static const json_t *get(const struct section *s, const char *key)
{
    const json_t *value = json_object_get(s->object, key);
    return json_is_null(value) ? NULL : value;
}

static int want_int(const struct section *s, const char *key, int64_t least, int64_t most)
{
    return (int)bounded(s, key, get(s, key), least, most);
}

/* A number above 0, up to most; fallback < 0: the key must be there. */
static float want_positive(const struct section *s, const char *key, double most, double fallback)
{
    const json_t *value = get(s, key);
    if (*s->rc || (!value && fallback >= 0))
        return (float)fallback;
    double x = json_number_value(value);
    if (!value)
        *s->rc = pm_fail(s->err, PM_EFORMAT, "%s: \"%s%s\" is missing", s->file, s->path, key);
    else if (!json_is_number(value) || !isfinite(x) || (float)x <= 0 || x > most)
        *s->rc = pm_fail(s->err, PM_EFORMAT, "%s: \"%s%s\" must be a number above 0 and at most %g", s->file,
                         s->path, key, most);
    return *s->rc ? 1 : (float)x; /* callers compute on with it before they see the failure */
}

static bool want_bool(const struct section *s, const char *key, bool fallback)
{
    const json_t *value = get(s, key);
    if (!*s->rc && value && !json_is_boolean(value))
        *s->rc = pm_fail(s->err, PM_EFORMAT, "%s: \"%s%s\" must be true or false", s->file, s->path, key);
    return value ? json_is_true(value) : fallback;
}

/* A text that may only be one of two things (b may be NULL), where it is given at all. */
static void want_word(const struct section *s, const char *key, const char *a, const char *b)
{
    const json_t *value = get(s, key);
    const char *text = json_string_value(value);
    if (*s->rc || !value || (text && (!strcmp(text, a) || (b && !strcmp(text, b)))))
        return;
    *s->rc =
        pm_fail(s->err, PM_EUNSUPPORTED, "%s: \"%s%s\" is \"%.60s\"; this reader knows \"%s\"%s%s%s", s->file,
                s->path, key, text ? text : "not a text", a, b ? " and \"" : "", b ? b : "", b ? "\"" : "");
}

/* The object under a key; an empty one, and a failure, when it is not there. */
static struct section want_section(const struct section *s, const char *key, const char *path)
{
    struct section out = *s;
    out.path = path;
    out.object = get(s, key);
    if (!*s->rc && !json_is_object(out.object))
        *s->rc = pm_fail(s->err, PM_EFORMAT, "%s: \"%s%s\" must be an object", s->file, s->path, key);
    return out;
}

static void fail(const struct section *s, const char *key, const char *why)
{
    if (!*s->rc)
        *s->rc = pm_fail(s->err, PM_EFORMAT, "%s: \"%s%s\" %s", s->file, s->path, key, why);
}

/* ---- config.json ---- */

static void read_vision(const struct section *s, struct pm_vision_config *v)
{
    v->depth = want_int(s, "depth", 1, PM_VLM_LIMIT_LAYERS);
    v->hidden = want_int(s, "hidden_size", 1, PM_VLM_LIMIT_WIDTH);
    v->intermediate = want_int(s, "intermediate_size", 1, PM_VLM_LIMIT_WIDTH);
    v->heads = want_int(s, "num_heads", 1, PM_VLM_LIMIT_WIDTH);
    v->head_dim = v->hidden / v->heads;
    if (v->head_dim * v->heads != v->hidden)
        fail(s, "num_heads", "must divide hidden_size");
    /* Rows and columns turn half of the pairs each. */
    if (v->head_dim % 4 || v->head_dim > PM_VLM_LIMIT_HEAD_DIM)
        fail(s, "num_heads", "must leave heads of a multiple of 4 values, at most 256");
    v->in_channels = get(s, "in_channels") ? want_int(s, "in_channels", COLOURS, COLOURS) : COLOURS;
    v->patch = want_int(s, "patch_size", 1, LIMIT_PATCH);
    v->temporal = want_int(s, "temporal_patch_size", 1, LIMIT_TEMPORAL);
    v->merge = want_int(s, "spatial_merge_size", 1, LIMIT_MERGE);
    v->out_hidden = want_int(s, "out_hidden_size", 1, PM_VLM_LIMIT_WIDTH / COLOURS);
    v->merger_intermediate = v->out_hidden * v->in_channels;
    v->rms_eps = want_positive(s, "rms_norm_eps", 1, -1);
    v->layer_norm_eps = layer_norm_eps;
    v->has_attention_bias = v->has_mlp_bias = want_bool(s, "attention_bias", false);
    v->has_qk_norm = v->has_post_norm = true;
    v->rope_pairs = PM_ROPE_HALF_SPLIT;
    v->rope_theta = 10000;
    want_word(s, "hidden_act", "silu", NULL);
    if (get(s, "rope_parameters")) {
        struct section rope = want_section(s, "rope_parameters", "vision_config.rope_parameters.");
        want_word(&rope, "rope_type", "default", "axial");
        v->rope_theta = want_positive(&rope, "rope_theta", 1e12, 10000);
    }
}

/* rope_parameters as transformers 5 writes it; before, rope_scaling and keys beside it. */
static void read_rope(const struct section *s, struct pm_text_config *t)
{
    bool is_new = get(s, "rope_parameters") != NULL;
    struct section rope = is_new ? want_section(s, "rope_parameters", "text_config.rope_parameters.")
                                 : want_section(s, "rope_scaling", "text_config.rope_scaling.");
    const struct section *beside = is_new ? &rope : s;
    want_word(&rope, "rope_type", "default", "mrope");
    want_word(&rope, "type", "default", "mrope");
    t->rope_theta = want_positive(beside, "rope_theta", 1e12, -1);
    t->rope_pairs = PM_ROPE_INTERLEAVED;
    float share = want_positive(beside, "partial_rotary_factor", 1, 1);
    t->rotary_dim = (int)((float)t->head_dim * share);
    const json_t *sections = get(&rope, "mrope_section");
    if (json_array_size(sections) != PM_VLM_SECTIONS)
        fail(&rope, "mrope_section", "must be a list of three numbers");
    int64_t sum = 0;
    for (int i = 0; i < PM_VLM_SECTIONS; i++) {
        t->rope_sections[i] = (int)bounded(&rope, "mrope_section", json_array_get(sections, (size_t)i), 0,
                                           PM_VLM_LIMIT_HEAD_DIM);
        sum += t->rope_sections[i];
    }
    if (t->rotary_dim % 2 || t->rotary_dim < 2)
        fail(beside, "partial_rotary_factor", "must leave an even number of values to turn");
    if (sum != t->rotary_dim / 2)
        fail(&rope, "mrope_section", "must add up to half of the values of a head that are turned");
}

static void read_text(const struct section *s, struct pm_text_config *t)
{
    t->layers = want_int(s, "num_hidden_layers", 1, PM_VLM_LIMIT_LAYERS);
    t->mtp_layers = get(s, "num_nextn_predict_layers") ? want_int(s, "num_nextn_predict_layers", 0, 1) : 0;
    t->hidden = want_int(s, "hidden_size", 1, PM_VLM_LIMIT_WIDTH);
    t->intermediate = want_int(s, "intermediate_size", 1, PM_VLM_LIMIT_WIDTH);
    t->heads = want_int(s, "num_attention_heads", 1, PM_VLM_LIMIT_WIDTH);
    t->kv_heads = want_int(s, "num_key_value_heads", 1, PM_VLM_LIMIT_WIDTH);
    if (t->heads % t->kv_heads)
        fail(s, "num_key_value_heads", "must divide num_attention_heads");
    if (get(s, "head_dim")) {
        t->head_dim = want_int(s, "head_dim", 2, PM_VLM_LIMIT_HEAD_DIM);
    } else {
        t->head_dim = t->hidden / t->heads;
        if (t->head_dim * t->heads != t->hidden || t->head_dim > PM_VLM_LIMIT_HEAD_DIM)
            fail(s, "head_dim", "is missing, and hidden_size over num_attention_heads is none");
    }
    if (t->head_dim % 2)
        fail(s, "head_dim", "must be even");
    if ((int64_t)t->heads * t->head_dim > PM_VLM_LIMIT_WIDTH)
        fail(s, "num_attention_heads", "times head_dim must be at most 65536");
    t->vocab = want_int(s, "vocab_size", 1, PM_VLM_LIMIT_VOCAB);
    t->max_positions = want_int(s, "max_position_embeddings", 1, PM_VLM_LIMIT_POSITIONS);
    t->rms_eps = want_positive(s, "rms_norm_eps", 1, -1);
    t->has_attention_bias = want_bool(s, "attention_bias", false);
    t->has_sandwich_norm = true;
    t->has_tied_head = want_bool(s, "tie_word_embeddings", false);
    want_word(s, "hidden_act", "silu", NULL);
    read_rope(s, t);
}

static void check_family(const struct section *s)
{
    const json_t *list = get(s, "architectures");
    const char *type = json_string_value(get(s, "model_type"));
    if (*s->rc)
        return;
    if (!type) {
        *s->rc = pm_fail(s->err, PM_EFORMAT, "%s: \"model_type\" is missing", s->file);
        return;
    }
    if (strcmp(type, "glm_ocr")) {
        *s->rc = pm_fail(s->err, PM_EUNSUPPORTED,
                         "%s: \"model_type\" is \"%.60s\"; this reader runs \"glm_ocr\" only", s->file, type);
        return;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name || strcmp(name, "GlmOcrForConditionalGeneration")) {
            *s->rc = pm_fail(s->err, PM_EUNSUPPORTED,
                             "%s: \"architectures\" names \"%.60s\"; this reader runs "
                             "\"GlmOcrForConditionalGeneration\" only",
                             s->file, name ? name : "something else");
            return;
        }
    }
}

/* eos_token_id: a number or a list of them. False when the key is not there. */
static bool read_ends(const struct section *s, struct pm_vlm_config *out)
{
    const json_t *value = get(s, "eos_token_id");
    if (!value)
        return false;
    size_t count = json_is_array(value) ? json_array_size(value) : 1;
    if (!count || count > PM_VLM_EOS_MAX) {
        fail(s, "eos_token_id", "must be one id or a list of 1 to 8");
        return true;
    }
    for (size_t i = 0; i < count; i++)
        out->eos_ids[i] =
            (int32_t)bounded(s, "eos_token_id", json_is_array(value) ? json_array_get(value, i) : value, 0,
                             out->text.vocab - 1);
    out->eos_count = (int)count;
    return true;
}

static void read_ids(const struct section *root, const struct section *text, const struct section *generation,
                     struct pm_vlm_config *out)
{
    int64_t last = out->text.vocab - 1;
    out->image_id = want_int(root, "image_token_id", 0, last);
    out->image_begin_id = want_int(root, "image_start_token_id", 0, last);
    out->image_end_id = want_int(root, "image_end_token_id", 0, last);
    if (out->image_id == out->image_begin_id || out->image_id == out->image_end_id)
        fail(root, "image_token_id", "must differ from the ids that frame a picture");
    if (!read_ends(generation, out) && !read_ends(text, out) && !read_ends(root, out))
        fail(text, "eos_token_id", "is missing");
    const struct section *pad = get(generation, "pad_token_id") ? generation : text;
    out->pad_id = get(pad, "pad_token_id") ? want_int(pad, "pad_token_id", 0, last) : -1;
}

/* ---- preprocessor_config.json ---- */

static void same_size(const struct section *s, const char *key, int size)
{
    if (get(s, key))
        (void)want_int(s, key, size, size);
}

static void want_true(const struct section *s, const char *key)
{
    if (!want_bool(s, key, true) && !*s->rc)
        *s->rc = pm_fail(s->err, PM_EUNSUPPORTED, "%s: \"%s\" is false: not this reader's way of pictures",
                         s->file, key);
}

static void read_colours(const struct section *s, const char *key, double least, const float *usual,
                         float *out)
{
    const json_t *list = get(s, key);
    for (int i = 0; i < COLOURS; i++)
        out[i] = usual[i];
    if (!list)
        return;
    if (json_array_size(list) != COLOURS)
        fail(s, key, "must be a list of three numbers");
    for (size_t i = 0; i < COLOURS && !*s->rc; i++) {
        double x = json_number_value(json_array_get(list, i));
        if (!json_is_number(json_array_get(list, i)) || !isfinite(x) || x < least || x > 16)
            fail(s, key, "must hold three fitting numbers (a mean of at least 0, a deviation above 0)");
        out[i] = (float)x;
    }
}

static void read_preprocessor(const struct section *s, struct pm_vlm_config *out)
{
    /* What the published checkpoint says: weights in a format without this file were made from it. */
    static const float mean[COLOURS] = {0.48145466F, 0.4578275F, 0.40821073F};
    static const float deviation[COLOURS] = {0.26862954F, 0.26130258F, 0.27577711F};
    out->min_pixels = 12544;
    out->max_pixels = 9633792;
    read_colours(s, "image_mean", 0, mean, out->mean);
    read_colours(s, "image_std", 1e-6, deviation, out->std);
    const json_t *least = get(s, "min_pixels"), *most = get(s, "max_pixels");
    struct section size = *s;
    if (get(s, "size")) {
        size = want_section(s, "size", "size.");
        least = get(&size, "shortest_edge");
        most = get(&size, "longest_edge");
    }
    const char *const keys[2] = {size.object == s->object ? "min_pixels" : "shortest_edge",
                                 size.object == s->object ? "max_pixels" : "longest_edge"};
    if (least || size.object != s->object)
        out->min_pixels = bounded(&size, keys[0], least, 1, limit_pixels);
    if (most || size.object != s->object)
        out->max_pixels = bounded(&size, keys[1], most, 1, limit_pixels);
    if (out->max_pixels < out->min_pixels)
        fail(&size, keys[1], "is below the smallest size");
    same_size(s, "patch_size", out->vision.patch);
    same_size(s, "temporal_patch_size", out->vision.temporal);
    same_size(s, "merge_size", out->vision.merge);
    same_size(s, "resample", 3); /* bicubic */
    want_true(s, "do_resize");
    want_true(s, "do_rescale");
    want_true(s, "do_normalize");
    float scale = want_positive(s, "rescale_factor", 1, 1.0 / 255);
    if (!*s->rc && fabs((double)scale * 255 - 1) > 1e-4)
        fail(s, "rescale_factor", "must be 1/255");
}

/* ---- all three ---- */

static json_t *parse(const char *file, const char *text, int *rc, struct pm_error *err)
{
    json_t *root = NULL;
    if (text && !*rc)
        *rc = pm_json_object(file, text, strlen(text), &root, err);
    return root;
}

int pm_glm_ocr_config(const char *config_json, const char *generation_json, const char *preprocessor_json,
                      struct pm_vlm_config *out, struct pm_error *err)
{
    int rc = 0;
    *out = (struct pm_vlm_config){0};
    json_t *config = parse("config.json", config_json, &rc, err);
    json_t *generation_root = parse("generation_config.json", generation_json, &rc, err);
    json_t *preprocessor_root = parse("preprocessor_config.json", preprocessor_json, &rc, err);
    const struct section root = {"config.json", "", config, &rc, err};
    const struct section generation = {"generation_config.json", "", generation_root, &rc, err};
    const struct section preprocessor = {"preprocessor_config.json", "", preprocessor_root, &rc, err};
    check_family(&root);
    struct section text = want_section(&root, "text_config", "text_config.");
    struct section vision = want_section(&root, "vision_config", "vision_config.");
    read_text(&text, &out->text);
    read_vision(&vision, &out->vision);
    out->text.has_tied_head = want_bool(&root, "tie_word_embeddings", out->text.has_tied_head);
    if (out->vision.out_hidden != out->text.hidden)
        fail(&vision, "out_hidden_size", "must be the hidden_size of text_config");
    read_ids(&root, &text, &generation, out);
    read_preprocessor(&preprocessor, out);
    json_decref(config);
    json_decref(generation_root);
    json_decref(preprocessor_root);
    return rc;
}

int pm_glm_ocr_model_open(const char *path, struct pm_vlm_model **out, struct pm_error *err)
{
    return pm_vlm_model_open(path, pm_glm_ocr_config, out, err);
}
