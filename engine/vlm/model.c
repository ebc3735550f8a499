#include "engine/vlm/model.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* One pass over the names of the model: what is bound, and the first thing that went wrong. */
struct binder {
    struct pm_vlm_model *model;
    struct pm_error *err;
    int rc;
};

enum { NAME_MAX_BYTES = 160 };

/* ---- one tensor ---- */

/* A norm's weight or a LayerNorm's bias. */
static const float *bind_vector(struct binder *b, int n, const char *prefix, const char *suffix)
{
    char name[NAME_MAX_BYTES];
    const float *data = NULL;
    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    if (!b->rc)
        b->rc = pm_pack_need_vector(b->model->pack, name, (uint64_t)n, &data, b->err);
    return data;
}

static const void *bind_embedding(struct binder *b, const char *prefix)
{
    const struct pm_text_config *text = &b->model->config.text;
    enum pm_dtype dtype = pm_precision_is_bf16(b->model->precision) ? PM_DTYPE_BF16 : PM_DTYPE_F32;
    const uint64_t shape[2] = {(uint64_t)text->vocab, (uint64_t)text->hidden};
    char name[NAME_MAX_BYTES];
    const void *data = NULL;
    snprintf(name, sizeof name, "%sembed_tokens.weight", prefix);
    if (!b->rc)
        b->rc = pm_pack_need(b->model->pack, name, dtype, PM_LAYOUT_ROWS, 2, shape, &data, b->err);
    return data;
}

static struct pm_linear bind_linear(struct binder *b, const char *prefix, const char *name, bool has_bias,
                                    int n, int k)
{
    char weight[NAME_MAX_BYTES], bias[NAME_MAX_BYTES];
    snprintf(weight, sizeof weight, "%s%s.weight", prefix, name);
    snprintf(bias, sizeof bias, "%s%s.bias", prefix, name);
    struct pm_linear linear = {0};
    if (!b->rc)
        b->rc = pm_linear_bind(b->model->pack, b->model->precision, weight, has_bias ? bias : NULL, n, k,
                               &linear, b->err);
    return linear;
}

/* ---- layers ---- */

static void bind_vision_layer(struct binder *b, int index)
{
    const struct pm_vision_config *c = &b->model->config.vision;
    struct pm_vision_layer *layer = &b->model->vision.layers[index];
    char prefix[64];
    snprintf(prefix, sizeof prefix, "model.visual.blocks.%d.", index);
    int width = c->heads * c->head_dim;
    layer->norm1 = bind_vector(b, c->hidden, prefix, "norm1.weight");
    layer->norm2 = bind_vector(b, c->hidden, prefix, "norm2.weight");
    if (c->has_qk_norm) {
        layer->q_norm = bind_vector(b, c->head_dim, prefix, "attn.q_norm.weight");
        layer->k_norm = bind_vector(b, c->head_dim, prefix, "attn.k_norm.weight");
    }
    layer->qkv = bind_linear(b, prefix, "attn.qkv", c->has_attention_bias, 3 * width, c->hidden);
    layer->proj = bind_linear(b, prefix, "attn.proj", c->has_attention_bias, c->hidden, width);
    layer->gate_up =
        bind_linear(b, prefix, "mlp.gate_up_proj", c->has_mlp_bias, 2 * c->intermediate, c->hidden);
    layer->down = bind_linear(b, prefix, "mlp.down_proj", c->has_mlp_bias, c->hidden, c->intermediate);
}

static void bind_vision(struct binder *b)
{
    static const char prefix[] = "model.visual.";
    struct pm_vlm_model *m = b->model;
    const struct pm_vision_config *c = &m->config.vision;
    int patch = c->in_channels * c->temporal * c->patch * c->patch, out = c->out_hidden;
    m->vision.patch = bind_linear(b, prefix, "patch_embed.proj", true, c->hidden, patch);
    m->vision.layers = pm_xalloc((size_t)c->depth * sizeof *m->vision.layers);
    for (int i = 0; i < c->depth && !b->rc; i++)
        bind_vision_layer(b, i);
    if (c->has_post_norm)
        m->vision.post_norm = bind_vector(b, c->hidden, prefix, "post_layernorm.weight");
    m->vision.downsample = bind_linear(b, prefix, "downsample", true, out, c->merge * c->merge * c->hidden);
    m->vision.merger_proj = bind_linear(b, prefix, "merger.proj", false, out, out);
    m->vision.merger_norm = bind_vector(b, out, prefix, "merger.post_projection_norm.weight");
    m->vision.merger_norm_bias = bind_vector(b, out, prefix, "merger.post_projection_norm.bias");
    m->vision.merger_gate_up =
        bind_linear(b, prefix, "merger.gate_up_proj", false, 2 * c->merger_intermediate, out);
    m->vision.merger_down = bind_linear(b, prefix, "merger.down_proj", false, out, c->merger_intermediate);
}

static void bind_text_layer(struct binder *b, int index, struct pm_text_layer *layer)
{
    const struct pm_text_config *c = &b->model->config.text;
    char prefix[64];
    snprintf(prefix, sizeof prefix, "model.language_model.layers.%d.", index);
    int q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    layer->input_norm = bind_vector(b, c->hidden, prefix, "input_layernorm.weight");
    /* The checkpoint's post_attention_layernorm is the norm before the MLP. */
    layer->pre_mlp_norm = bind_vector(b, c->hidden, prefix, "post_attention_layernorm.weight");
    if (c->has_sandwich_norm) {
        layer->post_attention_norm = bind_vector(b, c->hidden, prefix, "post_self_attn_layernorm.weight");
        layer->post_mlp_norm = bind_vector(b, c->hidden, prefix, "post_mlp_layernorm.weight");
    }
    layer->qkv = bind_linear(b, prefix, "self_attn.qkv_proj", c->has_attention_bias, q + 2 * kv, c->hidden);
    layer->o = bind_linear(b, prefix, "self_attn.o_proj", false, c->hidden, q);
    layer->gate_up = bind_linear(b, prefix, "mlp.gate_up_proj", false, 2 * c->intermediate, c->hidden);
    layer->down = bind_linear(b, prefix, "mlp.down_proj", false, c->hidden, c->intermediate);
}

static void bind_mtp(struct binder *b)
{
    struct pm_vlm_model *m = b->model;
    const struct pm_text_config *c = &m->config.text;
    struct pm_mtp_layer *mtp = m->mtp = pm_xalloc(sizeof *mtp);
    char prefix[64], name[NAME_MAX_BYTES];
    snprintf(prefix, sizeof prefix, "model.language_model.layers.%d.", c->layers);
    bind_text_layer(b, c->layers, &mtp->layer);
    mtp->embed_norm = bind_vector(b, c->hidden, prefix, "enorm.weight");
    mtp->hidden_norm = bind_vector(b, c->hidden, prefix, "hnorm.weight");
    mtp->head_norm = bind_vector(b, c->hidden, prefix, "shared_head.norm.weight");
    mtp->join = bind_linear(b, prefix, "eh_proj", false, c->hidden, 2 * c->hidden);
    /* Copies that are byte-equal to the main ones are not packed again. */
    snprintf(name, sizeof name, "%sshared_head.head.weight", prefix);
    mtp->head = pm_pack_find(m->pack, name)
                    ? bind_linear(b, prefix, "shared_head.head", false, c->vocab, c->hidden)
                    : m->head;
    snprintf(name, sizeof name, "%sembed_tokens.weight", prefix);
    mtp->embed = pm_pack_find(m->pack, name) ? bind_embedding(b, prefix) : m->embed;
}

static void bind_text(struct binder *b)
{
    struct pm_vlm_model *m = b->model;
    const struct pm_text_config *c = &m->config.text;
    m->embed = bind_embedding(b, "model.language_model.");
    m->layers = pm_xalloc((size_t)c->layers * sizeof *m->layers);
    for (int i = 0; i < c->layers && !b->rc; i++)
        bind_text_layer(b, i, &m->layers[i]);
    m->norm = bind_vector(b, c->hidden, "model.language_model.", "norm.weight");
    m->head = bind_linear(b, "", "lm_head", false, c->vocab, c->hidden);
    if (c->mtp_layers > 0 && !b->rc)
        bind_mtp(b);
}

/* ---- the meta text ---- */

/* A member of meta as JSON text (free()), NULL when it is not there. */
static char *member_text(const json_t *meta, const char *key)
{
    const json_t *member = json_object_get(meta, key);
    return json_is_object(member) ? json_dumps(member, JSON_COMPACT) : NULL;
}

static int read_meta(struct pm_vlm_model *model, const char *path, pm_vlm_config_reader *read_config,
                     struct pm_error *err)
{
    json_error_t problem;
    json_t *meta = json_loads(pm_pack_meta(model->pack), JSON_REJECT_DUPLICATES, &problem);
    if (!json_is_object(meta)) {
        json_decref(meta);
        return pm_fail(err, PM_EFORMAT, "%s: its meta text is not a JSON object: pack the model again", path);
    }
    int rc;
    const char *precision = json_string_value(json_object_get(meta, "precision"));
    char *config = member_text(meta, "config"), *generation = member_text(meta, "generation"),
         *preprocessor = member_text(meta, "preprocessor");
    if (!precision || !config || !pm_precision_parse(precision, &model->precision)) {
        rc = pm_fail(
            err, PM_EFORMAT,
            "%s: its meta text lacks the configuration or a precision (f32, bf16, int8 or int4): it is not "
            "a packed vision-language model, or another version packed it",
            path);
    } else {
        rc = read_config(config, generation, preprocessor, &model->config, err);
        if (rc)
            pm_fail_prefix(err, "%s", path);
    }
    free(config);
    free(generation);
    free(preprocessor);
    json_decref(meta);
    return rc;
}

/* What the arithmetic of vision.c and decoder.c takes for granted. */
static int check_config(const struct pm_vlm_config *c, const char *path, struct pm_error *err)
{
    const struct pm_vision_config *v = &c->vision;
    const struct pm_text_config *t = &c->text;
    if (v->head_dim % 4 != 0 || v->head_dim > PM_HEAD_DIM_MAX || v->hidden != v->heads * v->head_dim)
        return pm_fail(
            err, PM_EUNSUPPORTED,
            "%s: %d vision heads of %d values in a width of %d: a head must be a multiple of 4 up to %d "
            "and all heads together must be the width",
            path, v->heads, v->head_dim, v->hidden, PM_HEAD_DIM_MAX);
    if (t->head_dim % 2 != 0 || t->head_dim > PM_HEAD_DIM_MAX || t->heads % t->kv_heads != 0 ||
        t->rotary_dim % 2 != 0 || t->rotary_dim > t->head_dim)
        return pm_fail(
            err, PM_EUNSUPPORTED,
            "%s: %d text heads and %d key/value heads of %d values, %d of them turned, cannot be run", path,
            t->heads, t->kv_heads, t->head_dim, t->rotary_dim);
    if (v->out_hidden != t->hidden)
        return pm_fail(err, PM_EFORMAT, "%s: image tokens have %d values, text tokens %d", path,
                       v->out_hidden, t->hidden);
    return 0;
}

int pm_vlm_model_open(const char *path, pm_vlm_config_reader *read_config, struct pm_vlm_model **out,
                      struct pm_error *err)
{
    *out = NULL;
    struct pm_vlm_model *model = pm_xalloc(sizeof *model);
    int rc = pm_pack_open(path, &model->pack, err);
    if (!rc)
        rc = read_meta(model, path, read_config, err);
    if (!rc)
        rc = check_config(&model->config, path, err);
    if (!rc) {
        struct binder b = {.model = model, .err = err};
        bind_vision(&b);
        if (!b.rc)
            bind_text(&b);
        rc = b.rc;
    }
    if (rc) {
        pm_vlm_model_close(&model);
        return rc;
    }
    for (size_t i = 0; i < pm_pack_count(model->pack); i++)
        model->weight_bytes += pm_pack_at(model->pack, i)->tensor.bytes;
    *out = model;
    return 0;
}

void pm_vlm_model_close(struct pm_vlm_model **model)
{
    if (!*model)
        return;
    free((*model)->vision.layers);
    free((*model)->layers);
    free((*model)->mtp);
    pm_pack_free(&(*model)->pack);
    free(*model);
    *model = NULL;
}
