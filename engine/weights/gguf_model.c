/* A GGUF pair as the checkpoint: llama.cpp's names and orders (its conversion/glm.py, gguf-py and
 * tools/mtmd/clip.cpp) turned back.
 *
 *     MODEL.gguf         architecture glm4: the decoder, its extra layer as block number `layers`
 *     mmproj-MODEL.gguf  architecture clip, projector glm4v: the vision tower, found beside the model
 *
 * Rotary pairs lie beside each other in the checkpoint; the converter moves the rows of q and k of every head
 * so that a pair's halves lie half the rotary part apart, whenever the model has rope sections. The
 * convolution over two frames becomes two tensors. */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "engine/weights/gguf_model.h"
#include "engine/weights/internal.h"

/* "ARCH.key" of the decoder. */
#define TEXT_KEY(key) "glm4." key

struct name_pair {
    const char *gguf, *checkpoint;
};

static const struct name_pair text_names[] = {
    {"token_embd", "model.language_model.embed_tokens"},
    {"output_norm", "model.language_model.norm"},
    {"output", "lm_head"},
};
static const struct name_pair layer_names[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"post_attention_norm", "post_self_attn_layernorm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_up", "mlp.gate_up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"post_ffw_norm", "post_mlp_layernorm"},
    {"nextn.eh_proj", "eh_proj"},
    {"nextn.enorm", "enorm"},
    {"nextn.hnorm", "hnorm"},
    {"nextn.embed_tokens", "embed_tokens"},
    {"nextn.shared_head_norm", "shared_head.norm"},
    {"nextn.shared_head_head", "shared_head.head"},
};
static const struct name_pair vision_names[] = {
    {"v.patch_embd", "model.visual.patch_embed.proj"},
    {"v.post_ln", "model.visual.post_layernorm"},
    {"mm.patch_merger", "model.visual.downsample"},
    {"mm.model.fc", "model.visual.merger.proj"},
    {"mm.post_norm", "model.visual.merger.post_projection_norm"},
    {"mm.gate", "model.visual.merger.gate_proj"},
    {"mm.up", "model.visual.merger.up_proj"},
    {"mm.down", "model.visual.merger.down_proj"},
};
static const struct name_pair block_names[] = {
    {"ln1", "norm1"},
    {"ln2", "norm2"},
    {"attn_qkv", "attn.qkv"},
    {"attn_out", "attn.proj"},
    {"attn_q_norm", "attn.q_norm"},
    {"attn_k_norm", "attn.k_norm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
};
#define COUNT_OF(a) (sizeof(a) / sizeof *(a))

static const char *lookup(const struct name_pair *pairs, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(pairs[i].gguf, name))
            return pairs[i].checkpoint;
    return NULL;
}

/* "PREFIX.blk.12.rest" -> 12 and rest; false when it is no such name. */
static bool cut_block(const char *name, const char *prefix, uint64_t *number, const char **rest)
{
    size_t n = strlen(prefix);
    if (strncmp(name, prefix, n) || !isdigit((unsigned char)name[n]) ||
        (name[n] == '0' && isdigit((unsigned char)name[n + 1])))
        return false;
    const char *p = name + n;
    *number = 0;
    for (; isdigit((unsigned char)*p); p++) {
        *number = *number * 10 + (uint64_t)(*p - '0');
        if (*number > 9999)
            return false;
    }
    *rest = p + 1;
    return *p == '.';
}

/* The checkpoint's name without ".weight" or ".bias"; false for a tensor that the model does not have. */
static bool translate(const struct pm_gguf_pair *pair, bool is_vision, const char *base, char *out,
                      size_t bytes)
{
    uint64_t number;
    const char *rest, *to;
    int n = -1;
    if (is_vision && cut_block(base, "v.blk.", &number, &rest)) {
        if ((to = lookup(block_names, COUNT_OF(block_names), rest)) != NULL)
            n = snprintf(out, bytes, "model.visual.blocks.%llu.%s", (unsigned long long)number, to);
    } else if (!is_vision && cut_block(base, "blk.", &number, &rest)) {
        bool is_extra = number >= pair->layers;
        if ((to = lookup(layer_names, COUNT_OF(layer_names), rest)) != NULL && number < pair->blocks &&
            (is_extra || strncmp(rest, "nextn.", 6)))
            n = snprintf(out, bytes, "model.language_model.layers.%llu.%s", (unsigned long long)number, to);
    } else {
        to = is_vision ? lookup(vision_names, COUNT_OF(vision_names), base)
                       : lookup(text_names, COUNT_OF(text_names), base);
        if (to)
            n = snprintf(out, bytes, "%s", to);
    }
    return n >= 0 && (size_t)n < bytes;
}

static bool ends_with(const char *text, const char *ending)
{
    size_t a = strlen(text), b = strlen(ending);
    return a >= b && !strcmp(text + a - b, ending);
}

static void fill(struct pm_weights_entry *e, const struct pm_gguf_tensor *t)
{
    e->tensor.rank = t->rank;
    memcpy(e->tensor.shape, t->shape, sizeof t->shape);
    e->tensor.stored_bytes = t->stored.bytes;
    snprintf(e->stored_as, sizeof e->stored_as, "%s", t->type);
    e->stored[0] = t->stored;
    if (ends_with(e->name, ".bias")) { /* some converters write [n, 1, 1] */
        uint64_t most = 0;
        for (int d = 0; d < t->rank; d++)
            most = t->shape[d] > most ? t->shape[d] : most;
        if (most == t->stored.values) {
            e->tensor.rank = 1;
            e->tensor.shape[0] = most;
        }
    }
}

/* [outputs, channels, side, side] twice -> [outputs, channels, 2, side, side] */
static int join_frames(struct pm_weights *w, struct pm_weights_entry *e, const struct pm_gguf_tensor *first,
                       const struct pm_gguf_tensor *second, struct pm_error *err)
{
    if (first->rank != 4 || second->rank != 4 || memcmp(first->shape, second->shape, sizeof first->shape))
        return pm_fail(err, PM_EFORMAT, "%s: tensors %s and %s must have four equal dimensions",
                       pm_gguf_name(w->projector), first->name, second->name);
    const uint64_t *s = first->shape;
    e->tensor.rank = 5;
    memcpy(e->tensor.shape, (uint64_t[]){s[0], s[1], 2, s[2], s[3]}, 5 * sizeof *s);
    e->tensor.stored_bytes = first->stored.bytes + second->stored.bytes;
    e->stored[1] = second->stored;
    e->order = PM_ORDER_TWO_FRAMES;
    e->channels = s[1];
    e->places = s[2] * s[3]; /* divides the tensor's checked size */
    return 0;
}

static int unknown(const struct pm_gguf *file, const char *name, struct pm_error *err)
{
    return pm_fail(err, PM_EUNSUPPORTED, "%s: tensor %.200s is not one that GLM-OCR has", pm_gguf_name(file),
                   name);
}

static int add_tensor(struct pm_weights *w, const struct pm_gguf_pair *pair, const struct pm_gguf *file,
                      const struct pm_gguf_tensor *t, struct pm_error *err)
{
    bool is_vision = file == w->projector;
    char base[256], name[320];
    if (is_vision && !strcmp(t->name, "v.patch_embd.weight.1")) /* comes with the first frame's */
        return pm_gguf_find(file, "v.patch_embd.weight") ? 0 : unknown(file, t->name, err);
    const char *kind = ends_with(t->name, ".weight") ? ".weight"
                       : ends_with(t->name, ".bias") ? ".bias"
                                                     : NULL;
    if (!kind)
        return unknown(file, t->name, err);
    snprintf(base, sizeof base, "%.*s", (int)(strlen(t->name) - strlen(kind)), t->name);
    if (!translate(pair, is_vision, base, name, sizeof name - 8))
        return unknown(file, t->name, err);
    strcat(name, kind);
    struct pm_weights_entry *e = pm_weights_add(w, name);
    fill(e, t);
    if (is_vision && !strcmp(t->name, "v.patch_embd.weight")) {
        const struct pm_gguf_tensor *second = pm_gguf_find(file, "v.patch_embd.weight.1");
        if (!second)
            return pm_fail(err, PM_EFORMAT, "%s: v.patch_embd.weight.1, the second frame's, is missing",
                           pm_gguf_name(file));
        return join_frames(w, e, t, second, err);
    }
    if (!is_vision && pair->has_sections && (strstr(base, ".attn_q") || strstr(base, ".attn_k"))) {
        if (t->shape[0] % pair->head_dim)
            return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s: %llu rows are no whole heads of %llu",
                           pm_gguf_name(file), t->name, (unsigned long long)t->shape[0],
                           (unsigned long long)pair->head_dim);
        e->order = PM_ORDER_ROTARY_HALVES;
        e->head_dim = pair->head_dim;
        e->rotary_dim = pair->rotary_dim;
    }
    return 0;
}

/* Files that share the extra layer's table or head with the decoder's leave them out. */
static void share_with_extra_layer(struct pm_weights *w, const struct pm_gguf_pair *pair)
{
    static const struct {
        const char *own, *main, *own_gguf;
    } shared[] = {{"embed_tokens.weight", "token_embd.weight", "nextn.embed_tokens.weight"},
                  {"shared_head.head.weight", "output.weight", "nextn.shared_head_head.weight"}};
    if (pair->blocks == pair->layers)
        return;
    for (size_t i = 0; i < COUNT_OF(shared); i++) {
        char name[128];
        snprintf(name, sizeof name, "blk.%llu.%s", (unsigned long long)pair->layers, shared[i].own_gguf);
        const struct pm_gguf_tensor *main_one = pm_gguf_find(w->model, shared[i].main);
        if (pm_gguf_find(w->model, name) || !main_one)
            continue;
        snprintf(name, sizeof name, "model.language_model.layers.%llu.%s", (unsigned long long)pair->layers,
                 shared[i].own);
        fill(pm_weights_add(w, name), main_one);
    }
}

static int check_kind(const struct pm_gguf *file, const char *architecture, struct pm_error *err)
{
    const char *text = "";
    size_t n = 0;
    uint64_t parts = 1;
    if (!pm_gguf_text(file, "general.architecture", &text, &n))
        return pm_fail(err, PM_EFORMAT, "%s: general.architecture is missing", pm_gguf_name(file));
    if (pm_gguf_is_text(file, "general.type", "adapter"))
        return pm_weights_refuse_adapter(pm_gguf_name(file), err);
    if (!pm_gguf_is_text(file, "general.architecture", architecture))
        return pm_fail(err, PM_EUNSUPPORTED,
                       "%s: architecture \"%.*s\", and not \"%s\": only GLM-OCR is read, a \"glm4\" model "
                       "with its \"clip\" mmproj",
                       pm_gguf_name(file), n < 40 ? (int)n : 40, text, architecture);
    if (pm_gguf_whole(file, "split.count", &parts) && parts > 1)
        return pm_fail(err, PM_EUNSUPPORTED, "%s: one of %llu parts: join them with llama-gguf-split --merge",
                       pm_gguf_name(file), (unsigned long long)parts);
    return 0;
}

int pm_gguf_need(const struct pm_gguf *file, const char *key, uint64_t limit, uint64_t *out,
                 struct pm_error *err)
{
    if (!pm_gguf_whole(file, key, out))
        return pm_fail(err, PM_EFORMAT, "%s: key %s is missing, or no whole number", pm_gguf_name(file), key);
    if (!*out || *out > limit)
        return pm_fail(err, PM_EFORMAT, "%s: key %s: %llu is not in 1 to %llu", pm_gguf_name(file), key,
                       (unsigned long long)*out, (unsigned long long)limit);
    return 0;
}

int pm_gguf_pair_sizes(const struct pm_gguf *model, struct pm_gguf_pair *out, struct pm_error *err)
{
    memset(out, 0, sizeof *out);
    int rc = pm_gguf_need(model, TEXT_KEY("block_count"), 9999, &out->blocks, err);
    if (!rc)
        rc = pm_gguf_need(model, TEXT_KEY("embedding_length"), 1 << 20, &out->hidden, err);
    if (!rc)
        rc = pm_gguf_need(model, TEXT_KEY("attention.head_count"), 1 << 20, &out->heads, err);
    if (rc)
        return rc;
    uint64_t extra = 0;
    pm_gguf_whole(model, TEXT_KEY("nextn_predict_layers"), &extra);
    if (extra >= out->blocks)
        return pm_fail(err, PM_EFORMAT, "%s: %llu extra layers among %llu blocks", pm_gguf_name(model),
                       (unsigned long long)extra, (unsigned long long)out->blocks);
    out->layers = out->blocks - extra;
    if (!pm_gguf_whole(model, TEXT_KEY("attention.key_length"), &out->head_dim))
        out->head_dim = out->hidden / out->heads;
    out->rotary_dim = out->head_dim;
    pm_gguf_whole(model, TEXT_KEY("rope.dimension_count"), &out->rotary_dim);
    uint64_t sections[4] = {0};
    out->has_sections = pm_gguf_wholes(model, TEXT_KEY("rope.dimension_sections"), sections, 4) >= 3;
    memcpy(out->sections, sections, sizeof out->sections);
    if (!out->head_dim || out->head_dim > 1 << 16 || !out->rotary_dim || out->rotary_dim > out->head_dim ||
        out->rotary_dim % 2)
        return pm_fail(err, PM_EFORMAT, "%s: rope turns %llu values of heads of %llu", pm_gguf_name(model),
                       (unsigned long long)out->rotary_dim, (unsigned long long)out->head_dim);
    return 0;
}

static bool is_projector_name(const char *name)
{
    return strcasestr(name, "mmproj") != NULL;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The one .gguf of the folder that is (not) a projector; free(). */
static int find_file(const char *folder, bool is_projector, char **out, struct pm_error *err)
{
    char **names = NULL;
    size_t count = 0, capacity = 0;
    DIR *dir = opendir(folder);
    *out = NULL;
    if (!dir)
        return pm_fail_errno(err, "cannot list %s", folder);
    const struct dirent *d;
    while ((d = readdir(dir)) != NULL)
        if (ends_with(d->d_name, ".gguf") && is_projector_name(d->d_name) == is_projector) {
            PM_GROW(names, count, capacity);
            names[count++] = pm_xstrdup(d->d_name);
        }
    closedir(dir);
    if (count)
        qsort(names, count, sizeof *names, by_text);
    int rc = 0;
    const char *what = is_projector ? "mmproj (the vision part)" : "model";
    if (count == 1) {
        *out = pm_fs_join(folder, names[0]);
    } else if (!count) {
        rc =
            pm_fail(err, PM_ENOTFOUND,
                    "%s: there is no %s here: no .gguf file with%s \"mmproj\" in its name; the two belong in "
                    "one folder",
                    folder, what, is_projector ? "" : "out");
    } else {
        struct pm_buf list = {0};
        for (size_t i = 0; i < count; i++)
            pm_buf_printf(&list, "%s%s", i ? ", " : "", names[i]);
        rc = pm_fail(err, PM_EINVAL, "%s: more than one %s: %.*s: %s", folder, what, (int)list.size,
                     (const char *)list.data,
                     is_projector ? "leave the one that belongs to the model" : "name the file");
        pm_buf_free(&list);
    }
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
    return rc;
}

bool pm_weights_has_gguf(const char *folder)
{
    bool is_there = false;
    DIR *dir = opendir(folder);
    const struct dirent *d;
    while (dir && !is_there && (d = readdir(dir)) != NULL)
        is_there = ends_with(d->d_name, ".gguf");
    if (dir)
        closedir(dir);
    return is_there;
}

static int add_all(struct pm_weights *w, const struct pm_gguf_pair *pair, const struct pm_gguf *file,
                   struct pm_error *err)
{
    const struct pm_gguf_tensor *t;
    int rc = 0;
    for (size_t i = 0; (t = pm_gguf_at(file, i)) && !rc; i++)
        rc = add_tensor(w, pair, file, t, err);
    return rc;
}

int pm_weights_open_gguf(struct pm_weights *weights, const char *file, struct pm_error *err)
{
    struct pm_gguf_pair pair;
    char *model = NULL, *projector = NULL;
    int rc;
    weights->format = "gguf";
    if (!file)
        rc = find_file(weights->folder, false, &model, err);
    else if (is_projector_name(strrchr(file, '/') ? strrchr(file, '/') : file))
        rc = pm_fail(err, PM_EINVAL, "%s: this is the vision part: name the model beside it, or their folder",
                     file);
    else
        model = pm_xstrdup(file), rc = 0;
    if (!rc)
        rc = pm_gguf_open(model, &weights->model, err);
    if (!rc)
        rc = check_kind(weights->model, "glm4", err);
    if (!rc) /* nobody is to look for the vision part of a model that is another one */
        rc = find_file(weights->folder, true, &projector, err);
    if (!rc)
        rc = pm_gguf_open(projector, &weights->projector, err);
    if (!rc)
        rc = check_kind(weights->projector, "clip", err);
    if (!rc && !pm_gguf_is_text(weights->projector, "clip.projector_type", "glm4v") &&
        !pm_gguf_is_text(weights->projector, "clip.vision.projector_type", "glm4v"))
        rc = pm_fail(err, PM_EUNSUPPORTED, "%s: its projector is not \"glm4v\"", projector);
    if (!rc)
        rc = pm_gguf_pair_sizes(weights->model, &pair, err);
    if (!rc)
        rc = add_all(weights, &pair, weights->model, err);
    if (!rc)
        rc = add_all(weights, &pair, weights->projector, err);
    if (!rc)
        share_with_extra_layer(weights, &pair);
    free(model);
    free(projector);
    return rc;
}
