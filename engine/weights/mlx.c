/* Folders of MLX (mlx-vlm): other names, convolutions with channels last, and affine-quantised linears and
 * embeddings: a value is q * scale + bias of its group.
 *
 *     X.weight  u32 [rows, columns * bits / 32]   a row is a stream of bits, least significant first
 *     X.scales  [rows, columns / group]           f16, bf16 or f32
 *     X.biases  the same */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/weights/internal.h"

static const struct {
    const char *mlx, *checkpoint;
} prefixes[] = {
    {"vision_tower.", "model.visual."},
    {"language_model.model.", "model.language_model."},
    {"language_model.lm_head.", "lm_head."},
};

static bool starts_with(const char *text, const char *start)
{
    return !strncmp(text, start, strlen(start));
}

/* X of "X" + ending; false when name ends otherwise. */
static bool cut_ending(const char *name, const char *ending, char *out, size_t out_bytes)
{
    size_t n = strlen(name), e = strlen(ending);
    if (n <= e || strcmp(name + n - e, ending) || n - e >= out_bytes)
        return false;
    memcpy(out, name, n - e);
    out[n - e] = '\0';
    return true;
}

bool pm_mlx_is(const json_t *config, const struct pm_tensor *const *tensors, size_t count)
{
    if (json_is_object(json_object_get(config, "quantization")))
        return true;
    for (size_t i = 0; i < count; i++)
        for (size_t p = 0; p < sizeof prefixes / sizeof *prefixes; p++)
            if (starts_with(tensors[i]->name, prefixes[p].mlx))
                return true;
    return false;
}

static int read_scheme(const char *what, const char *module, const json_t *from, struct pm_mlx_scheme *out,
                       struct pm_error *err)
{
    const json_t *bits = json_object_get(from, "bits"), *group = json_object_get(from, "group_size");
    const json_t *mode = json_object_get(from, "mode");
    if (mode && !json_is_null(mode) && (!json_is_string(mode) || strcmp(json_string_value(mode), "affine")))
        return pm_fail(err, PM_EUNSUPPORTED, "%s: %.150s: quantisation mode \"%.20s\": affine is read", what,
                       module, json_is_string(mode) ? json_string_value(mode) : "?");
    if (bits)
        out->bits = json_is_integer(bits) ? json_integer_value(bits) : -1;
    if (group)
        out->group = json_is_integer(group) ? json_integer_value(group) : -1;
    if (!(out->bits >= 2 && out->bits <= 8 && out->bits != 7))
        return pm_fail(err, PM_EUNSUPPORTED, "%s: %.150s: %lld bits: 2, 3, 4, 5, 6 and 8 are read", what,
                       module, (long long)out->bits);
    if (out->group != 32 && out->group != 64 && out->group != 128)
        return pm_fail(err, PM_EUNSUPPORTED, "%s: %.150s: groups of %lld: 32, 64 and 128 are read", what,
                       module, (long long)out->group);
    return 0;
}

int pm_mlx_scheme(const char *what, const json_t *config, const char *module, struct pm_mlx_scheme *out,
                  struct pm_error *err)
{
    const json_t *table = json_object_get(config, "quantization");
    memset(out, 0, sizeof *out);
    if (!json_is_object(table))
        return pm_fail(err, PM_EFORMAT,
                       "%s: %.150s is quantised, and there is no \"quantization\" that says how", what,
                       module);
    const json_t *own = json_object_get(table, module);
    out->bits = json_integer_value(json_object_get(table, "bits"));
    out->group = json_integer_value(json_object_get(table, "group_size"));
    if (json_is_object(own)) { /* its own numbers; what it leaves out is the folder's */
        if (!json_object_get(own, "mode") && json_object_get(table, "mode")) {
            int rc = read_scheme(what, module, table, out, err);
            if (rc)
                return rc;
        }
        return read_scheme(what, module, own, out, err);
    }
    if (json_is_false(own))
        return pm_fail(err, PM_EFORMAT,
                       "%s: %.150s is stored quantised, and \"quantization\" says that it is not", what,
                       module);
    if (own && !json_is_true(own))
        return pm_fail(err, PM_EFORMAT, "%s: quantization of %.150s is neither an object nor a truth value",
                       what, module);
    return read_scheme(what, module, table, out, err);
}

/* The folder's raw tensors, while it is being opened. */
struct folder {
    struct pm_weights *weights;
    const json_t *config;
    struct pm_strmap by_name; /* -> struct pm_tensor */
};

static void add_name(struct pm_weights *w, const char *name)
{
    for (size_t p = 0; p < sizeof prefixes / sizeof *prefixes; p++)
        if (starts_with(name, prefixes[p].mlx)) {
            char *full = pm_xprintf("%s%s", prefixes[p].checkpoint, name + strlen(prefixes[p].mlx));
            pm_weights_add(w, full);
            free(full);
            return;
        }
    pm_weights_add(w, name);
}

static bool is_float(enum pm_dtype dtype)
{
    return dtype == PM_DTYPE_F32 || dtype == PM_DTYPE_F16 || dtype == PM_DTYPE_BF16;
}

static int add_quantised(const struct folder *f, const struct pm_tensor *t, const char *module,
                         const struct pm_tensor *scales, const struct pm_tensor *biases, struct pm_error *err)
{
    struct pm_weights *w = f->weights;
    if (!biases)
        return pm_fail(err, PM_EUNSUPPORTED,
                       "%s: %.200s has scales and no biases: not MLX's affine quantisation, which is read",
                       w->path, module);
    struct pm_mlx_scheme scheme;
    int rc = pm_mlx_scheme(w->path, f->config, module, &scheme, err);
    if (rc)
        return rc;
    uint64_t bits = (uint64_t)scheme.bits, group = (uint64_t)scheme.group;
    uint64_t words = t->shape[1], columns = words / bits * 32; /* words * 4 bytes are inside the file */
    if (t->dtype != PM_DTYPE_U32 || t->rank != 2 || !t->shape[0] || !words || words % bits || columns % group)
        return pm_fail(
            err, PM_EFORMAT,
            "%s: tensor %.200s: quantised weights are u32 rows of whole groups; this is %s of rank "
            "%d, %llu words a row for %llu bits in groups of %llu",
            w->path, t->name, pm_dtype_name(t->dtype), t->rank, (unsigned long long)words,
            (unsigned long long)bits, (unsigned long long)group);
    if (!is_float(scales->dtype) || scales->dtype != biases->dtype || scales->rank != 2 ||
        biases->rank != 2 || memcmp(scales->shape, biases->shape, 2 * sizeof *scales->shape) ||
        scales->shape[0] != t->shape[0] || scales->shape[1] != columns / group)
        return pm_fail(err, PM_EFORMAT,
                       "%s: tensor %.200s: its scales and biases must be floats of one type, [%llu, %llu]",
                       w->path, t->name, (unsigned long long)t->shape[0],
                       (unsigned long long)(columns / group));
    add_name(w, t->name);
    struct pm_weights_entry *e = &w->entries[w->count - 1];
    e->tensor.rank = 2;
    e->tensor.shape[0] = t->shape[0];
    e->tensor.shape[1] = columns;
    e->tensor.stored_bytes = t->bytes + scales->bytes + biases->bytes;
    snprintf(e->stored_as, sizeof e->stored_as, "affine %d-bit groups of %d", (int)bits, (int)group);
    e->stored[0] = (struct pm_stored){.kind = PM_STORED_AFFINE,
                                      .data = t->data,
                                      .values = t->shape[0] * columns,
                                      .bytes = t->bytes,
                                      .dtype = scales->dtype,
                                      .bits = (unsigned)bits,
                                      .group = (unsigned)group,
                                      .row_values = columns,
                                      .scales = scales->data,
                                      .biases = biases->data};
    return 0;
}

/* A convolution: MLX keeps [outputs, places..., channels]; some converters leave the checkpoint's
 * [outputs, channels, places...]. Pictures are cut in squares, so the two equal sides tell which it is; where
 * both readings fit, MLX's own holds. */
static int order_convolution(struct pm_weights *w, struct pm_weights_entry *e, struct pm_error *err)
{
    uint64_t *s = e->tensor.shape;
    int rank = e->tensor.rank;
    bool is_last = s[rank - 3] == s[rank - 2], is_first = s[rank - 2] == s[rank - 1];
    if (!is_last && !is_first)
        return pm_fail(err, PM_EFORMAT,
                       "%s: tensor %.200s: neither channels first nor channels last: no two equal sides",
                       w->path, e->name);
    if (!is_last)
        return 0;
    e->order = PM_ORDER_CHANNELS_LAST;
    e->channels = s[rank - 1];
    memmove(s + 2, s + 1, (size_t)(rank - 2) * sizeof *s);
    s[1] = e->channels;
    e->places = 1;
    for (int d = 2; d < rank; d++)
        e->places *= s[d]; /* divides the checked size of the tensor */
    return 0;
}

static int add_tensor(const struct folder *f, const struct pm_tensor *t, struct pm_error *err)
{
    struct pm_weights *w = f->weights;
    char module[512], other[544];
    if (cut_ending(t->name, ".scales", module, sizeof module) ||
        cut_ending(t->name, ".biases", module, sizeof module)) { /* read with their weight */
        snprintf(other, sizeof other, "%s.weight", module);
        if (pm_strmap_get(&f->by_name, other))
            return 0;
        return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s has no weight that it belongs to", w->path,
                       t->name);
    }
    if (cut_ending(t->name, ".weight", module, sizeof module)) {
        snprintf(other, sizeof other, "%s.scales", module);
        const struct pm_tensor *scales = pm_strmap_get(&f->by_name, other);
        snprintf(other, sizeof other, "%s.biases", module);
        const struct pm_tensor *biases = pm_strmap_get(&f->by_name, other);
        if (scales)
            return add_quantised(f, t, module, scales, biases, err);
        if (biases || t->dtype == PM_DTYPE_U32)
            return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s is quantised and has no scales", w->path,
                           t->name);
    }
    add_name(w, t->name);
    struct pm_weights_entry *e = &w->entries[w->count - 1];
    pm_weights_fill_plain(e, t);
    if ((t->rank == 5 && strstr(t->name, "patch_embed.proj.weight")) ||
        (t->rank == 4 && strstr(t->name, "downsample.weight")))
        return order_convolution(w, e, err);
    return 0;
}

int pm_mlx_add(struct pm_weights *weights, const json_t *config, const struct pm_tensor *const *tensors,
               size_t count, struct pm_error *err)
{
    struct folder f = {.weights = weights, .config = config};
    for (size_t i = 0; i < count; i++)
        pm_strmap_put(&f.by_name, tensors[i]->name, (void *)(uintptr_t)tensors[i]);
    int rc = 0;
    for (size_t i = 0; i < count && !rc; i++)
        rc = add_tensor(&f, tensors[i], err);
    pm_strmap_free(&f.by_name);
    return rc;
}
