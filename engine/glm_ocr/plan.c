#include "engine/glm_ocr/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "engine/pack.h"

#define TEXT "model.language_model."

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static void print_shape(char *out, size_t bytes, int rank, const uint64_t *shape)
{
    size_t used = (size_t)snprintf(out, bytes, "[");
    for (int i = 0; i < rank && used < bytes; i++)
        used +=
            (size_t)snprintf(out + used, bytes - used, "%s%llu", i ? ", " : "", (unsigned long long)shape[i]);
    if (used < bytes)
        snprintf(out + used, bytes - used, "]");
}

/* ---- names and shapes ---- */

/* "model.language_model.layers.N." of the extra layer. */
static void extra_prefix(const struct pm_vlm_config *config, char out[64])
{
    snprintf(out, 64, TEXT "layers.%d.", config->text.layers);
}

/* The extra layer may come with copies of the main table and head; without them it uses the main ones. */
static bool is_copy(const char *name, const char *prefix)
{
    size_t n = strlen(prefix);
    return !strncmp(name, prefix, n) &&
           (!strcmp(name + n, "embed_tokens.weight") || !strcmp(name + n, "shared_head.head.weight"));
}

static int check_tensor(const struct pm_weights *weights, const struct pm_glm_ocr_tensor *want,
                        const char *prefix, struct pm_error *err)
{
    char expected[128], found[128];
    const struct pm_weights_tensor *t = pm_weights_find(weights, want->name);
    print_shape(expected, sizeof expected, want->rank, want->shape);
    if (!t && is_copy(want->name, prefix))
        return 0;
    if (!t)
        return pm_fail(err, PM_EFORMAT, "tensor %s %s is missing", want->name, expected);
    bool is_same = t->rank == want->rank;
    for (int i = 0; is_same && i < want->rank; i++)
        is_same = t->shape[i] == want->shape[i];
    print_shape(found, sizeof found, t->rank, t->shape);
    if (!is_same)
        return pm_fail(err, PM_EFORMAT, "tensor %s has the shape %s; config.json asks for %s", want->name,
                       found, expected);
    return 0;
}

static int check_unknown(const char *name, const struct pm_vlm_config *config, const char *prefix,
                         struct pm_error *err)
{
    if (strstr(name, "lora_") || strstr(name, "lora."))
        return pm_fail(err, PM_EUNSUPPORTED,
                       "tensor %.200s belongs to an adapter (LoRA): merge the adapter into the model first",
                       name);
    if ((!config->text.mtp_layers && !strncmp(name, prefix, strlen(prefix))) ||
        (config->text.has_tied_head && !strcmp(name, "lm_head.weight")) ||
        ends_with(name, "rotary_emb.inv_freq"))
        return 0;
    return pm_fail(err, PM_EUNSUPPORTED,
                   "tensor %.200s does not belong to the model that config.json describes: these are the "
                   "weights of something else",
                   name);
}

static int check_all(const struct pm_weights *weights, const struct pm_vlm_config *config,
                     const struct pm_glm_ocr_tensor *list, size_t count, struct pm_error *err)
{
    struct pm_strmap known = {0};
    char prefix[64];
    int rc = 0;
    extra_prefix(config, prefix);
    for (size_t i = 0; i < count; i++)
        pm_strmap_put(&known, list[i].name, (void *)(uintptr_t)&list[i]);
    /* Foreign tensors first: they say best what this file is. */
    for (size_t i = 0; i < pm_weights_count(weights) && !rc; i++) {
        const char *name = pm_weights_at(weights, i)->name;
        if (!pm_strmap_get(&known, name))
            rc = check_unknown(name, config, prefix, err);
    }
    for (size_t i = 0; i < count && !rc; i++)
        rc = check_tensor(weights, &list[i], prefix, err);
    pm_strmap_free(&known);
    return rc;
}

static bool has_extra_layer(const struct pm_weights *weights, const struct pm_vlm_config *config)
{
    char prefix[64];
    extra_prefix(config, prefix);
    for (size_t i = 0; i < pm_weights_count(weights); i++)
        if (!strncmp(pm_weights_at(weights, i)->name, prefix, strlen(prefix)))
            return true;
    return false;
}

/* ---- the plan ---- */

static struct pm_glm_ocr_item *add_item(struct pm_glm_ocr_plan *plan, enum pm_glm_ocr_kind kind,
                                        const char *name)
{
    PM_GROW(plan->items, plan->count, plan->capacity);
    struct pm_glm_ocr_item *item = &plan->items[plan->count++];
    *item = (struct pm_glm_ocr_item){.kind = kind, .taps = 1};
    snprintf(item->name, sizeof item->name, "%.127s", name);
    return item;
}

/* Appends the rows of a tensor, and its bias where the checkpoint has one. */
static void add_source(const struct pm_weights *weights, struct pm_glm_ocr_item *item, const char *name)
{
    char bias[144];
    const struct pm_weights_tensor *t = pm_weights_find(weights, name);
    snprintf(bias, sizeof bias, "%.*s.bias", (int)(strlen(name) - strlen(".weight")), name);
    item->sources[item->source_count] = t;
    if (item->kind == PM_GLM_OCR_LINEAR)
        item->biases[item->source_count] = pm_weights_find(weights, bias);
    item->source_count++;
    item->n += t->rows;
    item->k = t->columns;
}

/* Products that read the same input become one: FROM's stem is the part before the first of the names. */
static void join(const struct pm_weights *weights, struct pm_glm_ocr_plan *plan, const char *first,
                 const char *const *parts, int count, const char *joined)
{
    char name[128];
    int stem = (int)(strlen(first) - strlen(parts[0]));
    snprintf(name, sizeof name, "%.*s%s", stem, first, joined);
    struct pm_glm_ocr_item *item = add_item(plan, PM_GLM_OCR_LINEAR, name);
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%.*s%s", stem, first, parts[i]);
        add_source(weights, item, name);
    }
}

static void plan_tensor(const struct pm_weights *weights, const struct pm_vlm_config *config,
                        const struct pm_glm_ocr_tensor *t, struct pm_glm_ocr_plan *plan)
{
    static const char *const gate_up[] = {"gate_proj.weight", "up_proj.weight"};
    static const char *const qkv[] = {"q_proj.weight", "k_proj.weight", "v_proj.weight"};
    if (!pm_weights_find(weights, t->name))
        return; /* a copy that was left out */
    if (ends_with(t->name, ".gate_proj.weight")) {
        join(weights, plan, t->name, gate_up, 2, "gate_up_proj.weight");
    } else if (ends_with(t->name, ".q_proj.weight")) {
        join(weights, plan, t->name, qkv, 3, "qkv_proj.weight");
    } else if (ends_with(t->name, ".up_proj.weight") || ends_with(t->name, ".k_proj.weight") ||
               ends_with(t->name, ".v_proj.weight")) {
        return; /* joined above */
    } else if (t->rank == 1) {
        char weight[144];
        snprintf(weight, sizeof weight, "%.*s.weight", (int)(strlen(t->name) - strlen(".bias")), t->name);
        const struct pm_weights_tensor *w = pm_weights_find(weights, weight);
        if (!ends_with(t->name, ".bias") || !w || w->rank == 1) /* a product's bias travels with it */
            add_source(weights, add_item(plan, PM_GLM_OCR_VECTOR, t->name), t->name);
    } else {
        enum pm_glm_ocr_kind kind =
            ends_with(t->name, "embed_tokens.weight") ? PM_GLM_OCR_TABLE : PM_GLM_OCR_LINEAR;
        struct pm_glm_ocr_item *item = add_item(plan, kind, t->name);
        add_source(weights, item, t->name);
        if (!strcmp(t->name, "model.visual.downsample.weight"))
            item->taps = (uint64_t)config->vision.merge * (uint64_t)config->vision.merge;
    }
}

int pm_glm_ocr_plan_make(const struct pm_weights *weights, struct pm_vlm_config *config,
                         struct pm_glm_ocr_plan *out, struct pm_error *err)
{
    struct pm_glm_ocr_tensor *list;
    size_t count;
    *out = (struct pm_glm_ocr_plan){0};
    if (!has_extra_layer(weights, config))
        config->text.mtp_layers = 0;
    int rc = pm_glm_ocr_tensors(config, &list, &count, err);
    if (!rc)
        rc = check_all(weights, config, list, count, err);
    for (size_t i = 0; i < count && !rc; i++) {
        const struct pm_weights_tensor *t = pm_weights_find(weights, list[i].name);
        if (t) {
            out->parameters += t->rows * t->columns;
            out->source_bytes += t->stored_bytes;
        }
        plan_tensor(weights, config, &list[i], out);
    }
    if (!rc && config->text.has_tied_head) {
        /* The product needs panels, the lookup rows: a tied head is written twice. */
        const char *name =
            pm_weights_find(weights, "lm_head.weight") ? "lm_head.weight" : TEXT "embed_tokens.weight";
        add_source(weights, add_item(out, PM_GLM_OCR_LINEAR, "lm_head.weight"), name);
    }
    free(list);
    return rc;
}

void pm_glm_ocr_plan_free(struct pm_glm_ocr_plan *plan)
{
    free(plan->items);
    *plan = (struct pm_glm_ocr_plan){0};
}

enum pm_layout pm_glm_ocr_layout(const struct pm_glm_ocr_item *item, enum pm_precision precision)
{
    switch (precision) {
    case PM_PRECISION_F32:
        return PM_LAYOUT_PANELS48;
    case PM_PRECISION_BF16:
        return PM_LAYOUT_PANELS64_BF16;
    default:
        break;
    }
    bool is_text = !strncmp(item->name, TEXT "layers.", strlen(TEXT "layers."));
    return precision == PM_PRECISION_INT4 && is_text && !ends_with(item->name, "shared_head.head.weight")
               ? PM_LAYOUT_PANELS64_INT4
               : PM_LAYOUT_PANELS64_INT8;
}

uint64_t pm_glm_ocr_plan_bytes(const struct pm_glm_ocr_plan *plan, enum pm_precision precision)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < plan->count; i++) {
        const struct pm_glm_ocr_item *item = &plan->items[i];
        if (item->kind == PM_GLM_OCR_LINEAR) {
            enum pm_layout layout = pm_glm_ocr_layout(item, precision);
            int64_t panels =
                pm_pack_bytes(pm_layout_dtype(layout), layout, 3, (const uint64_t[]){item->n, 1, item->k});
            bytes += (panels > 0 ? (uint64_t)panels : 0) + (item->n + 63) / 64 * 64 * sizeof(float);
        } else {
            bool is_short = pm_precision_is_bf16(precision) && item->kind == PM_GLM_OCR_TABLE;
            bytes += item->n * item->k * (is_short ? 2 : 4);
        }
    }
    return bytes;
}
