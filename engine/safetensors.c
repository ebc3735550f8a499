#include "engine/safetensors.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/map.h"
#include "base/mem.h"
#include "engine/kernels/bf16.h"
#include "engine/weights/half.h"

#define HEADER_LIMIT_BYTES ((uint64_t)64 << 20)

struct pm_safetensors {
    char *name; /* for messages */
    const uint8_t *map;
    size_t map_bytes;
    json_t *header; /* owns the tensors' names */
    struct pm_tensor *tensors;
    size_t count;
    struct pm_strmap by_name;
};

static const struct {
    const char *name;
    unsigned bytes;
} dtypes[PM_DTYPE_COUNT] = {
    [PM_DTYPE_F32] = {"F32", 4},   [PM_DTYPE_F16] = {"F16", 2}, [PM_DTYPE_BF16] = {"BF16", 2},
    [PM_DTYPE_I8] = {"I8", 1},     [PM_DTYPE_U8] = {"U8", 1},   [PM_DTYPE_I32] = {"I32", 4},
    [PM_DTYPE_U32] = {"U32", 4},   [PM_DTYPE_I64] = {"I64", 8}, [PM_DTYPE_F64] = {"F64", 8},
    [PM_DTYPE_BOOL] = {"BOOL", 1}, [PM_DTYPE_I16] = {"I16", 2}, [PM_DTYPE_U16] = {"U16", 2},
    [PM_DTYPE_U64] = {"U64", 8},
};

unsigned pm_dtype_bytes(enum pm_dtype dtype)
{
    return (unsigned)dtype < PM_DTYPE_COUNT ? dtypes[dtype].bytes : 0;
}

const char *pm_dtype_name(enum pm_dtype dtype)
{
    return (unsigned)dtype < PM_DTYPE_COUNT ? dtypes[dtype].name : NULL;
}

static int whole_number(const json_t *v, uint64_t *out)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return -1;
    *out = (uint64_t)json_integer_value(v);
    return 0;
}

/* One entry of the header -> t, checked against data_bytes. */
static int read_entry(const struct pm_safetensors *f, const char *name, const json_t *entry,
                      uint64_t data_bytes, const uint8_t *data, struct pm_tensor *t, struct pm_error *err)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const json_t *shape = json_object_get(entry, "shape"), *offsets = json_object_get(entry, "data_offsets");
    int d = 0;
    while (d < PM_DTYPE_COUNT && !(dtype && !strcmp(dtype, dtypes[d].name)))
        d++;
    if (d == PM_DTYPE_COUNT)
        return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s: dtype \"%.20s\" is not known", f->name, name,
                       dtype ? dtype : "");
    if (!json_is_array(shape) || json_array_size(shape) > PM_TENSOR_RANK_MAX)
        return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s: shape must be a list of at most %d numbers",
                       f->name, name, PM_TENSOR_RANK_MAX);
    *t = (struct pm_tensor){.name = name, .dtype = (enum pm_dtype)d, .rank = (int)json_array_size(shape)};
    uint64_t bytes = dtypes[d].bytes;
    for (int i = 0; i < t->rank; i++) {
        if (whole_number(json_array_get(shape, (size_t)i), &t->shape[i]) ||
            __builtin_mul_overflow(bytes, t->shape[i], &bytes))
            return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s: impossible size in shape", f->name, name);
    }
    uint64_t begin, end;
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        whole_number(json_array_get(offsets, 0), &begin) || whole_number(json_array_get(offsets, 1), &end))
        return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s: data_offsets must be two numbers", f->name, name);
    if (begin > end || end > data_bytes)
        return pm_fail(err, PM_EFORMAT,
                       "%s: tensor %.200s: its data ends at byte %llu of %llu: the file is cut short or "
                       "damaged, fetch it "
                       "again",
                       f->name, name, (unsigned long long)end, (unsigned long long)data_bytes);
    if (end - begin != bytes)
        return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s: %llu bytes of data for a shape of %llu bytes",
                       f->name, name, (unsigned long long)(end - begin), (unsigned long long)bytes);
    t->data = data + begin;
    t->bytes = bytes;
    return 0;
}

static int by_data(const void *pa, const void *pb)
{
    const struct pm_tensor *a = pa, *b = pb;
    if (a->data != b->data)
        return a->data < b->data ? -1 : 1;
    return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

static int read_entries(struct pm_safetensors *f, const uint8_t *data, uint64_t data_bytes,
                        struct pm_error *err)
{
    size_t n = json_object_size(f->header);
    f->tensors = pm_xalloc((n ? n : 1) * sizeof *f->tensors);
    const char *name;
    json_t *entry;
    json_object_foreach(f->header, name, entry)
    {
        if (!strcmp(name, "__metadata__"))
            continue;
        int rc = read_entry(f, name, entry, data_bytes, data, &f->tensors[f->count], err);
        if (rc)
            return rc;
        f->count++;
    }
    qsort(f->tensors, f->count, sizeof *f->tensors, by_data);
    for (size_t i = 0; i < f->count; i++) {
        const struct pm_tensor *t = &f->tensors[i];
        if (i && f->tensors[i - 1].data + f->tensors[i - 1].bytes > t->data)
            return pm_fail(err, PM_EFORMAT, "%s: tensors %.100s and %.100s share bytes", f->name,
                           f->tensors[i - 1].name, t->name);
        pm_strmap_put(&f->by_name, t->name, &f->tensors[i]);
    }
    return 0;
}

int pm_safetensors_parse(const char *name, const uint8_t *data, size_t bytes, struct pm_safetensors **out,
                         struct pm_error *err)
{
    *out = NULL;
    uint64_t header_bytes = 0;
    if (bytes < 8)
        return pm_fail(err, PM_EFORMAT, "%s: %zu bytes are too few for a safetensors file", name, bytes);
    for (int i = 7; i >= 0; i--)
        header_bytes = header_bytes << 8 | data[i];
    if (header_bytes > HEADER_LIMIT_BYTES || header_bytes > bytes - 8)
        return pm_fail(err, PM_EFORMAT,
                       "%s: header of %llu bytes in a file of %zu: not a safetensors file, or cut short",
                       name, (unsigned long long)header_bytes, bytes);
    struct pm_safetensors *f = pm_xalloc(sizeof *f);
    f->name = pm_xstrdup(name);
    json_error_t why;
    f->header = json_loadb((const char *)data + 8, (size_t)header_bytes, JSON_REJECT_DUPLICATES, &why);
    int rc;
    if (!json_is_object(f->header))
        rc = pm_fail(err, PM_EFORMAT, "%s: the header is not a JSON object: %s", name,
                     f->header ? "" : why.text);
    else
        rc = read_entries(f, data + 8 + header_bytes, bytes - 8 - header_bytes, err);
    if (rc)
        pm_safetensors_free(&f);
    *out = f;
    return rc;
}

int pm_safetensors_open(const char *path, struct pm_safetensors **out, struct pm_error *err)
{
    const uint8_t *map;
    size_t bytes;
    *out = NULL;
    int rc = pm_fs_map(path, &map, &bytes, err);
    if (rc)
        return rc;
    rc = pm_safetensors_parse(path, map, bytes, out, err);
    if (rc) {
        pm_fs_unmap(map, bytes);
        return rc;
    }
    (*out)->map = map;
    (*out)->map_bytes = bytes;
    return 0;
}

void pm_safetensors_free(struct pm_safetensors **file)
{
    struct pm_safetensors *f = *file;
    if (!f)
        return;
    pm_strmap_free(&f->by_name);
    json_decref(f->header);
    pm_fs_unmap(f->map, f->map_bytes);
    free(f->tensors);
    free(f->name);
    free(f);
    *file = NULL;
}

size_t pm_safetensors_count(const struct pm_safetensors *file)
{
    return file->count;
}

const struct pm_tensor *pm_safetensors_at(const struct pm_safetensors *file, size_t index)
{
    return index < file->count ? &file->tensors[index] : NULL;
}

const struct pm_tensor *pm_safetensors_find(const struct pm_safetensors *file, const char *name)
{
    return pm_strmap_get(&file->by_name, name);
}

static float element_to_float(const struct pm_tensor *t, uint64_t i)
{
    float f = 0;
    if (t->dtype == PM_DTYPE_F32) {
        memcpy(&f, t->data + 4 * i, sizeof f);
        return f;
    }
    uint16_t h;
    memcpy(&h, t->data + 2 * i, sizeof h);
    if (t->dtype == PM_DTYPE_F16)
        return pm_half_to_float(h);
    return pm_bf16_to_f32(h);
}

int pm_safetensors_floats(const struct pm_safetensors *file, const char *name, int rank,
                          const uint64_t *shape, float **out, struct pm_error *err)
{
    *out = NULL;
    const struct pm_tensor *t = pm_safetensors_find(file, name);
    if (!t)
        return pm_fail(err, PM_ENOTFOUND, "%s: there is no tensor %s", file->name, name);
    if (t->dtype != PM_DTYPE_F32 && t->dtype != PM_DTYPE_F16 && t->dtype != PM_DTYPE_BF16)
        return pm_fail(err, PM_EFORMAT, "%s: tensor %s: type %s cannot be read as floats", file->name, name,
                       pm_dtype_name(t->dtype));
    bool same = rank < 0 || rank == t->rank;
    for (int i = 0; same && i < rank; i++)
        same = t->shape[i] == shape[i];
    if (!same)
        return pm_fail(err, PM_EFORMAT, "%s: tensor %s: its shape is not the one that this model has",
                       file->name, name);
    uint64_t count = t->bytes / pm_dtype_bytes(t->dtype);
    void *values;
    int rc = pm_alloc_array(count ? count : 1, sizeof(float), &values, err);
    if (rc)
        return rc;
    float *v = values;
    for (uint64_t i = 0; i < count; i++) {
        v[i] = element_to_float(t, i);
        if (!isfinite(v[i])) {
            free(values);
            return pm_fail(err, PM_EFORMAT, "%s: tensor %s: value %llu is not a finite number", file->name,
                           name, (unsigned long long)i);
        }
    }
    *out = v;
    return 0;
}
