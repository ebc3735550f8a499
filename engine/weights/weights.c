#include "engine/weights/weights.h"

#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "engine/weights/internal.h"

struct pm_weights_entry *pm_weights_add(struct pm_weights *weights, const char *name)
{
    PM_GROW(weights->entries, weights->count, weights->capacity);
    struct pm_weights_entry *e = &weights->entries[weights->count++];
    memset(e, 0, sizeof *e);
    e->name = pm_xstrdup(name);
    return e;
}

/* Names, rows and columns once all entries are there. */
static int finish(struct pm_weights *w, struct pm_error *err)
{
    if (!w->count)
        return pm_fail(err, PM_EFORMAT, "%s: the model has no tensors", w->path);
    for (size_t i = 0; i < w->count; i++) {
        struct pm_weights_entry *e = &w->entries[i];
        struct pm_weights_tensor *t = &e->tensor;
        t->name = e->name;
        t->stored = e->stored_as;
        if (t->rank == 0) { /* a scalar */
            t->rank = 1;
            t->shape[0] = 1;
        }
        t->rows = t->shape[0];
        t->columns = 1;
        uint64_t values = t->rows;
        for (int d = 1; d < t->rank; d++) {
            t->columns *= t->shape[d]; /* an overflow here shows in values, too: no dimension is 0 */
            if (!t->shape[d] || __builtin_mul_overflow(values, t->shape[d], &values))
                values = 0;
        }
        if (!values || values > SIZE_MAX / sizeof(float))
            return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s: impossible shape", w->path, e->name);
        if (pm_strmap_get(&w->by_name, e->name))
            return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s is there twice", w->path, e->name);
        pm_strmap_put(&w->by_name, e->name, e);
    }
    return 0;
}

static bool has_ending(const char *text, const char *ending)
{
    size_t a = strlen(text), b = strlen(ending);
    return a > b && !strcmp(text + a - b, ending);
}

/* "NAME-00001-of-00002.safetensors" */
static bool is_one_of_several(const char *name)
{
    const char *of = NULL;
    for (const char *p = name; (p = strstr(p, "-of-")) != NULL; p++)
        of = p;
    if (!of || of == name || of[-1] < '0' || of[-1] > '9')
        return false;
    of += 4;
    size_t digits = strspn(of, "0123456789");
    return digits && !strcmp(of + digits, ".safetensors");
}

int pm_weights_refuse_adapter(const char *path, struct pm_error *err)
{
    return pm_fail(err, PM_EUNSUPPORTED,
                   "%s: a LoRA adapter, not a model: merge the adapter into its model first, and name what "
                   "comes out",
                   path);
}

/* As peft and MLX name their files. */
static const char *const adapter_files[] = {"adapter_config.json", "adapter_model.safetensors",
                                            "adapters.safetensors", "adapter_model.bin"};

static bool is_adapter_file(const char *name)
{
    for (size_t i = 0; i < sizeof adapter_files / sizeof *adapter_files; i++)
        if (!strcmp(name, adapter_files[i]))
            return true;
    return false;
}

static bool has_file(const char *folder, const char *name)
{
    char *path = pm_fs_join(folder, name);
    bool is = pm_fs_is_file(path);
    free(path);
    return is;
}

/* What a folder without weights that are read does hold decides what is said. */
static int refuse_folder(const char *folder, struct pm_error *err)
{
    for (size_t i = 0; i < sizeof adapter_files / sizeof *adapter_files; i++)
        if (has_file(folder, adapter_files[i]))
            return pm_weights_refuse_adapter(folder, err);
    if (has_file(folder, "pytorch_model.bin") || has_file(folder, "pytorch_model.bin.index.json"))
        return pm_fail(err, PM_EUNSUPPORTED,
                       "%s: pytorch_model.bin is not read: save the model as safetensors", folder);
    return pm_fail(err, PM_ENOTFOUND,
                   "%s: no model here: neither model.safetensors nor model.safetensors.index.json nor a "
                   ".gguf file",
                   folder);
}

/* A file that the user named. */
static int open_file(struct pm_weights *w, struct pm_error *err)
{
    const char *slash = strrchr(w->path, '/');
    w->folder =
        slash ? pm_xstrndup(w->path, slash == w->path ? 1 : (size_t)(slash - w->path)) : pm_xstrdup(".");
    if (is_adapter_file(slash ? slash + 1 : w->path))
        return pm_weights_refuse_adapter(w->path, err);
    if (has_ending(w->path, ".index.json"))
        return pm_weights_open_index(w, w->path, err);
    if (has_ending(w->path, ".gguf"))
        return pm_weights_open_gguf(w, w->path, err);
    if (!has_ending(w->path, ".safetensors"))
        return pm_fail(err, PM_EUNSUPPORTED,
                       "%s: not a weight file by its name: .safetensors, .safetensors.index.json or .gguf "
                       "are read",
                       w->path);
    if (is_one_of_several(slash ? slash + 1 : w->path)) { /* one shard stands for all of them */
        char *index = pm_fs_join(w->folder, "model.safetensors.index.json");
        int rc = pm_fs_is_file(index) ? pm_weights_open_index(w, index, err)
                                      : pm_fail(err, PM_ENOTFOUND,
                                                "%s: is one shard of several, and their index, %s, is not "
                                                "there",
                                                w->path, index);
        free(index);
        return rc;
    }
    return pm_weights_open_safetensors(w, w->path, err);
}

static int open_folder(struct pm_weights *w, struct pm_error *err)
{
    w->folder = pm_xstrdup(w->path);
    char *index = pm_fs_join(w->path, "model.safetensors.index.json");
    char *single = pm_fs_join(w->path, "model.safetensors");
    int rc;
    if (pm_fs_is_file(index))
        rc = pm_weights_open_index(w, index, err);
    else if (pm_fs_is_file(single))
        rc = pm_weights_open_safetensors(w, single, err);
    else if (pm_weights_has_gguf(w->path))
        rc = pm_weights_open_gguf(w, NULL, err);
    else
        rc = refuse_folder(w->path, err);
    free(single);
    free(index);
    return rc;
}

int pm_weights_open(const char *path, struct pm_weights **out, struct pm_error *err)
{
    *out = NULL;
    struct pm_weights *w = pm_xalloc(sizeof *w);
    w->path = pm_xstrdup(path);
    int rc;
    if (pm_fs_is_dir(path))
        rc = open_folder(w, err);
    else if (pm_fs_is_file(path))
        rc = open_file(w, err);
    else
        rc = pm_fail(err, PM_ENOTFOUND, "%s: there is no such file or folder", path);
    if (!rc)
        rc = finish(w, err);
    if (rc)
        pm_weights_close(&w);
    *out = w;
    return rc;
}

void pm_weights_close(struct pm_weights **weights)
{
    struct pm_weights *w = *weights;
    if (!w)
        return;
    for (size_t i = 0; i < w->count; i++)
        free(w->entries[i].name);
    free(w->entries);
    pm_strmap_free(&w->by_name);
    size_t cursor = 0;
    const char *name;
    void *document;
    while (pm_strmap_next(&w->documents, &cursor, &name, &document)) {
        pm_buf_free(document);
        free(document);
    }
    pm_strmap_free(&w->documents);
    for (size_t i = 0; i < w->shard_count; i++)
        pm_safetensors_free(&w->shards[i]);
    free(w->shards);
    pm_gguf_free(&w->model);
    pm_gguf_free(&w->projector);
    free(w->folder);
    free(w->path);
    free(w);
    *weights = NULL;
}

const char *pm_weights_format(const struct pm_weights *weights)
{
    return weights->format;
}

size_t pm_weights_count(const struct pm_weights *weights)
{
    return weights->count;
}

const struct pm_weights_tensor *pm_weights_at(const struct pm_weights *weights, size_t index)
{
    return index < weights->count ? &weights->entries[index].tensor : NULL;
}

const struct pm_weights_tensor *pm_weights_find(const struct pm_weights *weights, const char *name)
{
    const struct pm_weights_entry *e = pm_strmap_get(&weights->by_name, name);
    return e ? &e->tensor : NULL;
}

/* The stored row that holds the checkpoint's row: per head, rotary value 2i lies at i and 2i + 1 at i + half.
 */
static uint64_t stored_row(const struct pm_weights_entry *e, uint64_t row)
{
    uint64_t in_head = row % e->head_dim;
    if (in_head >= e->rotary_dim)
        return row;
    return row - in_head + in_head / 2 + (in_head % 2 ? e->rotary_dim / 2 : 0);
}

/* One row in the checkpoint's order; scratch: [columns] */
static void read_row(const struct pm_weights_entry *e, uint64_t row, float *scratch, float *out)
{
    uint64_t columns = e->tensor.columns, channels = e->channels, places = e->places;
    switch (e->order) {
    case PM_ORDER_SAME:
        pm_stored_read(&e->stored[0], row * columns, columns, out);
        break;
    case PM_ORDER_ROTARY_HALVES:
        pm_stored_read(&e->stored[0], stored_row(e, row) * columns, columns, out);
        break;
    case PM_ORDER_CHANNELS_LAST:
        pm_stored_read(&e->stored[0], row * columns, columns, scratch);
        for (uint64_t c = 0; c < channels; c++)
            for (uint64_t p = 0; p < places; p++)
                out[c * places + p] = scratch[p * channels + c];
        break;
    case PM_ORDER_TWO_FRAMES:
        for (int frame = 0; frame < 2; frame++) {
            pm_stored_read(&e->stored[frame], row * (columns / 2), columns / 2, scratch);
            for (uint64_t c = 0; c < channels; c++)
                memcpy(out + (2 * c + (uint64_t)frame) * places, scratch + c * places, places * sizeof *out);
        }
        break;
    }
}

/* All exponents at once, without a branch a value. */
static bool is_finite(const float *values, uint64_t n)
{
    uint32_t bad = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

int pm_weights_read(const struct pm_weights *weights, const struct pm_weights_tensor *tensor, uint64_t first,
                    uint64_t count, float *out, struct pm_error *err)
{
    const struct pm_weights_entry *e = (const struct pm_weights_entry *)(const void *)tensor;
    if (first > tensor->rows || count > tensor->rows - first)
        return pm_fail(err, PM_EINVAL, "%s: tensor %s has %llu rows; rows %llu to %llu were asked for",
                       weights->path, tensor->name, (unsigned long long)tensor->rows,
                       (unsigned long long)first, (unsigned long long)(first + count));
    if (!e->stored[0].data)
        return pm_fail(err, PM_EFORMAT, "%s: tensor %s: type %s cannot be read as floats", weights->path,
                       tensor->name, tensor->stored);
    uint64_t columns = tensor->columns;
    void *scratch = NULL;
    int rc = 0;
    if (e->order == PM_ORDER_SAME)
        pm_stored_read(&e->stored[0], first * columns, count * columns, out);
    else if (!(rc = pm_alloc_array(columns, sizeof(float), &scratch, err)))
        for (uint64_t r = 0; r < count; r++)
            read_row(e, first + r, scratch, out + r * columns);
    free(scratch);
    if (rc)
        return rc;
    for (uint64_t r = 0; r < count; r++)
        if (!is_finite(out + r * columns, columns))
            return pm_fail(err, PM_EFORMAT,
                           "%s: tensor %s: row %llu holds a value or a scale that is not finite",
                           weights->path, tensor->name, (unsigned long long)(first + r));
    return 0;
}

int pm_weights_document(struct pm_weights *weights, const char *name, const char **text_out,
                        size_t *bytes_out, struct pm_error *err)
{
    *text_out = NULL;
    *bytes_out = 0;
    struct pm_buf *document = pm_strmap_get(&weights->documents, name);
    if (!document) {
        document = pm_xalloc(sizeof *document);
        int rc = weights->model ? pm_weights_gguf_document(weights, name, document, err)
                                : pm_weights_folder_document(weights, name, document, err);
        if (rc) {
            pm_buf_free(document);
            free(document);
            return rc;
        }
        pm_buf_append(document, "", 1);
        document->size--;
        pm_strmap_put(&weights->documents, name, document);
    }
    *text_out = (const char *)document->data;
    *bytes_out = document->size;
    return 0;
}
