#include "engine/glm_ocr/glm_ocr.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"

struct list {
    struct pm_glm_ocr_tensor *items;
    size_t count, capacity;
    char prefix[64];
};

static void add(struct list *l, const char *name, int rank, const uint64_t *shape)
{
    PM_GROW(l->items, l->count, l->capacity);
    struct pm_glm_ocr_tensor *t = &l->items[l->count++];
    *t = (struct pm_glm_ocr_tensor){.rank = rank};
    snprintf(t->name, sizeof t->name, "%s%s", l->prefix, name);
    for (int i = 0; i < rank; i++)
        t->shape[i] = shape[i];
}

static void vector(struct list *l, const char *name, int n)
{
    add(l, name, 1, (const uint64_t[]){(uint64_t)n});
}

static void matrix(struct list *l, const char *name, int n, int k)
{
    add(l, name, 2, (const uint64_t[]){(uint64_t)n, (uint64_t)k});
}

/* NAME.weight [n, k] and, with bias, NAME.bias [n] */
static void linear(struct list *l, const char *name, int n, int k, bool has_bias)
{
    char full[96];
    snprintf(full, sizeof full, "%s.weight", name);
    matrix(l, full, n, k);
    snprintf(full, sizeof full, "%s.bias", name);
    if (has_bias)
        vector(l, full, n);
}

static void vision_tower(struct list *l, const struct pm_vision_config *v)
{
    const uint64_t patch = (uint64_t)v->patch, merge = (uint64_t)v->merge, hidden = (uint64_t)v->hidden;
    snprintf(l->prefix, sizeof l->prefix, "model.visual.");
    add(l, "patch_embed.proj.weight", 5,
        (const uint64_t[]){hidden, (uint64_t)v->in_channels, (uint64_t)v->temporal, patch, patch});
    vector(l, "patch_embed.proj.bias", v->hidden);
    for (int i = 0; i < v->depth; i++) {
        snprintf(l->prefix, sizeof l->prefix, "model.visual.blocks.%d.", i);
        vector(l, "norm1.weight", v->hidden);
        linear(l, "attn.qkv", 3 * v->hidden, v->hidden, v->has_attention_bias);
        if (v->has_qk_norm) {
            vector(l, "attn.q_norm.weight", v->head_dim);
            vector(l, "attn.k_norm.weight", v->head_dim);
        }
        linear(l, "attn.proj", v->hidden, v->hidden, v->has_attention_bias);
        vector(l, "norm2.weight", v->hidden);
        linear(l, "mlp.gate_proj", v->intermediate, v->hidden, v->has_mlp_bias);
        linear(l, "mlp.up_proj", v->intermediate, v->hidden, v->has_mlp_bias);
        linear(l, "mlp.down_proj", v->hidden, v->intermediate, v->has_mlp_bias);
    }
    snprintf(l->prefix, sizeof l->prefix, "model.visual.");
    if (v->has_post_norm)
        vector(l, "post_layernorm.weight", v->hidden);
    add(l, "downsample.weight", 4, (const uint64_t[]){(uint64_t)v->out_hidden, hidden, merge, merge});
    vector(l, "downsample.bias", v->out_hidden);
    linear(l, "merger.proj", v->out_hidden, v->out_hidden, false);
    vector(l, "merger.post_projection_norm.weight", v->out_hidden);
    vector(l, "merger.post_projection_norm.bias", v->out_hidden);
    linear(l, "merger.gate_proj", v->merger_intermediate, v->out_hidden, false);
    linear(l, "merger.up_proj", v->merger_intermediate, v->out_hidden, false);
    linear(l, "merger.down_proj", v->out_hidden, v->merger_intermediate, false);
}

static void text_layer(struct list *l, const struct pm_text_config *t, int index)
{
    int queries = t->heads * t->head_dim, keys = t->kv_heads * t->head_dim;
    snprintf(l->prefix, sizeof l->prefix, "model.language_model.layers.%d.", index);
    vector(l, "input_layernorm.weight", t->hidden);
    linear(l, "self_attn.q_proj", queries, t->hidden, t->has_attention_bias);
    linear(l, "self_attn.k_proj", keys, t->hidden, t->has_attention_bias);
    linear(l, "self_attn.v_proj", keys, t->hidden, t->has_attention_bias);
    linear(l, "self_attn.o_proj", t->hidden, queries, false);
    if (t->has_sandwich_norm)
        vector(l, "post_self_attn_layernorm.weight", t->hidden);
    vector(l, "post_attention_layernorm.weight", t->hidden);
    matrix(l, "mlp.gate_up_proj.weight", 2 * t->intermediate, t->hidden);
    matrix(l, "mlp.down_proj.weight", t->hidden, t->intermediate);
    if (t->has_sandwich_norm)
        vector(l, "post_mlp_layernorm.weight", t->hidden);
}

static void extra_layer(struct list *l, const struct pm_text_config *t)
{
    text_layer(l, t, t->layers);
    matrix(l, "eh_proj.weight", t->hidden, 2 * t->hidden);
    vector(l, "enorm.weight", t->hidden);
    vector(l, "hnorm.weight", t->hidden);
    matrix(l, "embed_tokens.weight", t->vocab, t->hidden);
    vector(l, "shared_head.norm.weight", t->hidden);
    matrix(l, "shared_head.head.weight", t->vocab, t->hidden);
}

int pm_glm_ocr_tensors(const struct pm_vlm_config *config, struct pm_glm_ocr_tensor **out, size_t *count_out,
                       struct pm_error *err)
{
    struct list l = {0};
    *out = NULL;
    *count_out = 0;
    if (config->vision.depth < 1 || config->text.layers < 1 || config->text.mtp_layers < 0 ||
        config->text.mtp_layers > 1)
        return pm_fail(err, PM_EINVAL, "a configuration without layers has no tensors");
    vision_tower(&l, &config->vision);
    snprintf(l.prefix, sizeof l.prefix, "model.language_model.");
    matrix(&l, "embed_tokens.weight", config->text.vocab, config->text.hidden);
    for (int i = 0; i < config->text.layers; i++)
        text_layer(&l, &config->text, i);
    if (config->text.mtp_layers)
        extra_layer(&l, &config->text);
    snprintf(l.prefix, sizeof l.prefix, "model.language_model.");
    vector(&l, "norm.weight", config->text.hidden);
    l.prefix[0] = 0;
    if (!config->text.has_tied_head)
        matrix(&l, "lm_head.weight", config->text.vocab, config->text.hidden);
    *out = l.items;
    *count_out = l.count;
    return 0;
}
