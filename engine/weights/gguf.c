#include "engine/weights/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/map.h"
#include "base/mem.h"

enum {
    MAGIC_BYTES = 4,
    KEY_BYTES_MAX = 65535,
    NAME_BYTES_MAX = 255,
    KEYS_MAX = 1 << 16,
    TENSORS_MAX = 1 << 20,
    ALIGNMENT_DEFAULT = 32,
    ALIGNMENT_MAX = 1 << 20,
};

enum kind {
    KIND_U8,
    KIND_I8,
    KIND_U16,
    KIND_I16,
    KIND_U32,
    KIND_I32,
    KIND_F32,
    KIND_BOOL,
    KIND_TEXT,
    KIND_ARRAY,
    KIND_U64,
    KIND_I64,
    KIND_F64,
    KIND_COUNT
};

static const unsigned kind_bytes[KIND_COUNT] = {
    [KIND_U8] = 1,  [KIND_I8] = 1,   [KIND_U16] = 2, [KIND_I16] = 2, [KIND_U32] = 4, [KIND_I32] = 4,
    [KIND_F32] = 4, [KIND_BOOL] = 1, [KIND_U64] = 8, [KIND_I64] = 8, [KIND_F64] = 8,
};

struct value {
    char *key;
    enum kind kind; /* of the elements of an array */
    bool is_array;
    uint64_t count; /* 1 for a single value */
    const uint8_t *data;
};

struct pm_gguf {
    char *name;
    const uint8_t *map;
    size_t map_bytes;
    struct value *values;
    size_t value_count;
    struct pm_strmap by_key; /* -> struct value */
    struct pm_gguf_tensor *tensors;
    size_t count;
    struct pm_strmap by_name;
};

/* What is left to read. */
struct reader {
    const struct pm_gguf *file;
    const uint8_t *at, *end;
};

static bool take(struct reader *r, void *out, size_t bytes)
{
    if ((size_t)(r->end - r->at) < bytes)
        return false;
    if (out)
        memcpy(out, r->at, bytes);
    r->at += bytes;
    return true;
}

static int cut_short(const struct reader *r, const char *where, struct pm_error *err)
{
    return pm_fail(err, PM_EFORMAT,
                   "%s: %.200s: the file ends inside it: cut short or damaged, fetch it again", r->file->name,
                   where);
}

/* A name: NUL-terminated copy; NULL and the reason in err otherwise. */
static char *take_name(struct reader *r, const char *what, size_t limit, struct pm_error *err)
{
    uint64_t bytes;
    if (!take(r, &bytes, sizeof bytes) || (uint64_t)(r->end - r->at) < bytes) {
        cut_short(r, what, err);
        return NULL;
    }
    if (!bytes || bytes > limit || memchr(r->at, 0, (size_t)bytes)) {
        pm_fail(err, PM_EFORMAT, "%s: a %s of %" PRIu64 " bytes, or with a zero byte", r->file->name, what,
                bytes);
        return NULL;
    }
    char *name = pm_xstrndup((const char *)r->at, (size_t)bytes);
    r->at += bytes;
    return name;
}

/* Steps over count elements of one kind. */
static bool skip_elements(struct reader *r, enum kind kind, uint64_t count)
{
    if (kind != KIND_TEXT) {
        uint64_t bytes;
        return !__builtin_mul_overflow(count, (uint64_t)kind_bytes[kind], &bytes) &&
               bytes <= (uint64_t)(r->end - r->at) && take(r, NULL, (size_t)bytes);
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t bytes;
        if (!take(r, &bytes, sizeof bytes) || bytes > (uint64_t)(r->end - r->at))
            return false;
        r->at += bytes;
    }
    return true;
}

static int read_value(struct reader *r, struct value *v, struct pm_error *err)
{
    const char *name = r->file->name;
    v->key = take_name(r, "key", KEY_BYTES_MAX, err);
    if (!v->key)
        return PM_EFORMAT;
    uint32_t kind;
    if (!take(r, &kind, sizeof kind))
        return cut_short(r, v->key, err);
    v->count = 1;
    if (kind == KIND_ARRAY) {
        v->is_array = true;
        if (!take(r, &kind, sizeof kind) || !take(r, &v->count, sizeof v->count))
            return cut_short(r, v->key, err);
        if (kind == KIND_ARRAY)
            return pm_fail(err, PM_EUNSUPPORTED, "%s: key %.200s: an array of arrays", name, v->key);
    }
    if (kind >= KIND_COUNT)
        return pm_fail(err, PM_EFORMAT, "%s: key %.200s: values of unknown type %u", name, v->key, kind);
    v->kind = (enum kind)kind;
    v->data = r->at;
    if (!skip_elements(r, v->kind, v->count))
        return cut_short(r, v->key, err);
    return 0;
}

static int read_values(struct pm_gguf *f, struct reader *r, uint64_t count, struct pm_error *err)
{
    enum { SMALLEST = 8 + 1 + 4 + 1 };
    if (count > KEYS_MAX || count > (uint64_t)(r->end - r->at) / SMALLEST)
        return pm_fail(err, PM_EFORMAT, "%s: %" PRIu64 " keys cannot be in %zu bytes", f->name, count,
                       (size_t)(r->end - r->at));
    f->values = pm_xalloc((size_t)(count ? count : 1) * sizeof *f->values);
    for (uint64_t i = 0; i < count; i++) {
        struct value *v = &f->values[f->value_count++];
        int rc = read_value(r, v, err);
        if (rc)
            return rc;
        if (pm_strmap_get(&f->by_key, v->key))
            return pm_fail(err, PM_EFORMAT, "%s: key %.200s is there twice", f->name, v->key);
        pm_strmap_put(&f->by_key, v->key, v);
    }
    return 0;
}

/* How a tensor of that type is stored. */
static int read_type(const struct pm_gguf *f, struct pm_gguf_tensor *t, uint32_t type, struct pm_error *err)
{
    static const struct {
        uint32_t id;
        enum pm_dtype dtype;
    } plain[] = {{0, PM_DTYPE_F32}, {1, PM_DTYPE_F16}, {30, PM_DTYPE_BF16}};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (plain[i].id == type) {
            t->stored.kind = PM_STORED_PLAIN;
            t->stored.dtype = plain[i].dtype;
            t->type = pm_dtype_name(plain[i].dtype);
            return 0;
        }
    t->stored.block = pm_block_type(type);
    if (!t->stored.block)
        return pm_fail(err, PM_EUNSUPPORTED,
                       "%s: tensor %.200s: GGUF type %u is not read: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, "
                       "Q5_1, Q4_K, Q5_K and Q6_K are",
                       f->name, t->name, type);
    t->stored.kind = PM_STORED_BLOCKS;
    t->type = t->stored.block->name;
    return 0;
}

static int read_sizes(const struct pm_gguf *f, struct reader *r, struct pm_gguf_tensor *t, uint64_t *bytes,
                      struct pm_error *err)
{
    uint32_t rank, type;
    if (!take(r, &rank, sizeof rank))
        return cut_short(r, t->name, err);
    if (rank < 1 || rank > PM_GGUF_RANK_MAX)
        return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s has %u dimensions", f->name, t->name, rank);
    t->rank = (int)rank;
    uint64_t values = 1;
    for (uint32_t d = 0; d < rank; d++) {
        uint64_t size;
        if (!take(r, &size, sizeof size))
            return cut_short(r, t->name, err);
        if (!size || __builtin_mul_overflow(values, size, &values))
            return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s: impossible size in shape", f->name, t->name);
        t->shape[rank - 1 - d] = size;
    }
    if (!take(r, &type, sizeof type))
        return cut_short(r, t->name, err);
    int rc = read_type(f, t, type, err);
    if (rc)
        return rc;
    t->stored.values = values;
    uint64_t blocks = values, block_bytes;
    if (t->stored.kind == PM_STORED_PLAIN) {
        block_bytes = pm_dtype_bytes(t->stored.dtype);
    } else {
        if (t->shape[rank - 1] % t->stored.block->values)
            return pm_fail(err, PM_EFORMAT,
                           "%s: tensor %.200s: rows of %" PRIu64 " values are no whole blocks of %s", f->name,
                           t->name, t->shape[rank - 1], t->type);
        blocks = values / t->stored.block->values;
        block_bytes = t->stored.block->bytes;
    }
    if (__builtin_mul_overflow(blocks, block_bytes, bytes))
        return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s: impossible size in shape", f->name, t->name);
    return 0;
}

/* Descriptions of all tensors; where their data lies is known when all are read. */
static int read_tensors(struct pm_gguf *f, struct reader *r, uint64_t count, uint64_t *offsets,
                        struct pm_error *err)
{
    for (uint64_t i = 0; i < count; i++) {
        struct pm_gguf_tensor *t = &f->tensors[f->count];
        t->name = take_name(r, "tensor name", NAME_BYTES_MAX, err);
        if (!t->name)
            return PM_EFORMAT;
        f->count++;
        int rc = read_sizes(f, r, t, &t->stored.bytes, err);
        if (rc)
            return rc;
        if (!take(r, &offsets[i], sizeof *offsets))
            return cut_short(r, t->name, err);
        if (pm_strmap_get(&f->by_name, t->name))
            return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s is there twice", f->name, t->name);
        pm_strmap_put(&f->by_name, t->name, t);
    }
    return 0;
}

static int by_data(const void *pa, const void *pb)
{
    const struct pm_gguf_tensor *a = *(const struct pm_gguf_tensor *const *)pa;
    const struct pm_gguf_tensor *b = *(const struct pm_gguf_tensor *const *)pb;
    if (a->stored.data != b->stored.data)
        return a->stored.data < b->stored.data ? -1 : 1;
    return a->stored.bytes < b->stored.bytes ? -1 : a->stored.bytes > b->stored.bytes;
}

/* Offsets become places in the file. */
static int place_tensors(struct pm_gguf *f, const uint8_t *data, uint64_t data_bytes, uint64_t alignment,
                         const uint64_t *offsets, struct pm_error *err)
{
    const struct pm_gguf_tensor **order = pm_xalloc((f->count ? f->count : 1) * sizeof *order);
    int rc = 0;
    for (size_t i = 0; i < f->count && !rc; i++) {
        struct pm_gguf_tensor *t = &f->tensors[i];
        uint64_t bytes = t->stored.bytes;
        if (offsets[i] % alignment)
            rc = pm_fail(err, PM_EFORMAT, "%s: tensor %.200s starts at %" PRIu64 ", no multiple of %" PRIu64,
                         f->name, t->name, offsets[i], alignment);
        else if (offsets[i] > data_bytes || bytes > data_bytes - offsets[i])
            rc = pm_fail(err, PM_EFORMAT,
                         "%s: tensor %.200s: %" PRIu64 " bytes from %" PRIu64 " on do not lie in %" PRIu64
                         " bytes of data: the file is cut short or damaged, fetch it again",
                         f->name, t->name, bytes, offsets[i], data_bytes);
        else
            t->stored.data = data + offsets[i];
        order[i] = t;
    }
    if (!rc)
        qsort(order, f->count, sizeof *order, by_data);
    for (size_t i = 1; i < f->count && !rc; i++)
        if (order[i - 1]->stored.data + order[i - 1]->stored.bytes > order[i]->stored.data)
            rc = pm_fail(err, PM_EFORMAT, "%s: tensors %.100s and %.100s share bytes", f->name,
                         order[i - 1]->name, order[i]->name);
    free(order);
    return rc;
}

static int read_alignment(const struct pm_gguf *f, uint64_t *out, struct pm_error *err)
{
    *out = ALIGNMENT_DEFAULT;
    if (!pm_strmap_get(&f->by_key, "general.alignment"))
        return 0;
    if (!pm_gguf_whole(f, "general.alignment", out) || !*out || *out > ALIGNMENT_MAX || (*out & (*out - 1)))
        return pm_fail(err, PM_EFORMAT, "%s: general.alignment is not a power of two up to %d", f->name,
                       ALIGNMENT_MAX);
    return 0;
}

static int read_file(struct pm_gguf *f, const uint8_t *data, size_t bytes, struct pm_error *err)
{
    struct reader r = {f, data, data + bytes};
    char magic[MAGIC_BYTES];
    uint32_t version;
    uint64_t tensors, values;
    if (!take(&r, magic, sizeof magic) || memcmp(magic, "GGUF", sizeof magic))
        return pm_fail(err, PM_EFORMAT, "%s: not a GGUF file", f->name);
    if (!take(&r, &version, sizeof version))
        return cut_short(&r, "header", err);
    if (version != 2 && version != 3)
        return pm_fail(err, PM_EUNSUPPORTED, "%s: GGUF version %u%s: 2 and 3 are read", f->name, version,
                       version && !(version & 0xffff) ? " (big-endian)" : "");
    if (!take(&r, &tensors, sizeof tensors) || !take(&r, &values, sizeof values))
        return cut_short(&r, "header", err);
    int rc = read_values(f, &r, values, err);
    uint64_t alignment;
    if (!rc)
        rc = read_alignment(f, &alignment, err);
    if (rc)
        return rc;
    enum { SMALLEST = 8 + 1 + 4 + 8 + 4 + 8 };
    if (tensors > TENSORS_MAX || tensors > (uint64_t)(r.end - r.at) / SMALLEST)
        return pm_fail(err, PM_EFORMAT, "%s: %" PRIu64 " tensors cannot be in %zu bytes", f->name, tensors,
                       (size_t)(r.end - r.at));
    f->tensors = pm_xalloc((size_t)(tensors ? tensors : 1) * sizeof *f->tensors);
    uint64_t *offsets = pm_xalloc((size_t)(tensors ? tensors : 1) * sizeof *offsets);
    rc = read_tensors(f, &r, tensors, offsets, err);
    if (!rc && tensors) {
        uint64_t start = ((uint64_t)(r.at - data) + alignment - 1) / alignment * alignment;
        if (start > bytes)
            rc = cut_short(&r, "data", err);
        else
            rc = place_tensors(f, data + start, bytes - start, alignment, offsets, err);
    }
    free(offsets);
    return rc;
}

int pm_gguf_parse(const char *name, const uint8_t *data, size_t bytes, struct pm_gguf **out,
                  struct pm_error *err)
{
    struct pm_gguf *f = pm_xalloc(sizeof *f);
    f->name = pm_xstrdup(name);
    int rc = read_file(f, data, bytes, err);
    if (rc)
        pm_gguf_free(&f);
    *out = f;
    return rc;
}

int pm_gguf_open(const char *path, struct pm_gguf **out, struct pm_error *err)
{
    const uint8_t *map;
    size_t bytes;
    *out = NULL;
    int rc = pm_fs_map(path, &map, &bytes, err);
    if (rc)
        return rc;
    rc = pm_gguf_parse(path, map, bytes, out, err);
    if (rc) {
        pm_fs_unmap(map, bytes);
        return rc;
    }
    (*out)->map = map;
    (*out)->map_bytes = bytes;
    return 0;
}

void pm_gguf_free(struct pm_gguf **file)
{
    struct pm_gguf *f = *file;
    if (!f)
        return;
    for (size_t i = 0; i < f->value_count; i++)
        free(f->values[i].key);
    for (size_t i = 0; i < f->count; i++)
        free(f->tensors[i].name);
    free(f->values);
    free(f->tensors);
    pm_strmap_free(&f->by_key);
    pm_strmap_free(&f->by_name);
    pm_fs_unmap(f->map, f->map_bytes);
    free(f->name);
    free(f);
    *file = NULL;
}

const char *pm_gguf_name(const struct pm_gguf *file)
{
    return file->name;
}

const struct pm_gguf_tensor *pm_gguf_at(const struct pm_gguf *file, size_t index)
{
    return index < file->count ? &file->tensors[index] : NULL;
}

const struct pm_gguf_tensor *pm_gguf_find(const struct pm_gguf *file, const char *name)
{
    return pm_strmap_get(&file->by_name, name);
}

/* Element i as a number; false for texts and truth values. */
static bool number_at(const struct value *v, uint64_t i, double *real, uint64_t *whole, bool *is_whole)
{
    const uint8_t *p = v->data + i * kind_bytes[v->kind];
    int64_t s = 0;
    *is_whole = true;
    *whole = 0;
    switch (v->kind) {
    case KIND_U8:
    case KIND_U16:
    case KIND_U32:
    case KIND_U64:
        memcpy(whole, p, kind_bytes[v->kind]); /* little-endian */
        *real = (double)*whole;
        return true;
    case KIND_I8:
        s = (int8_t)*p;
        break;
    case KIND_I16: {
        int16_t n;
        memcpy(&n, p, sizeof n);
        s = n;
        break;
    }
    case KIND_I32: {
        int32_t n;
        memcpy(&n, p, sizeof n);
        s = n;
        break;
    }
    case KIND_I64:
        memcpy(&s, p, sizeof s);
        break;
    case KIND_F32: {
        float n;
        memcpy(&n, p, sizeof n);
        *real = (double)n;
        *is_whole = false;
        return true;
    }
    case KIND_F64:
        memcpy(real, p, sizeof *real);
        *is_whole = false;
        return true;
    default:
        return false;
    }
    *real = (double)s;
    *is_whole = s >= 0;
    *whole = (uint64_t)s;
    return true;
}

static const struct value *find_value(const struct pm_gguf *f, const char *key, bool is_array)
{
    const struct value *v = pm_strmap_get(&f->by_key, key);
    return v && v->is_array == is_array ? v : NULL;
}

bool pm_gguf_whole(const struct pm_gguf *file, const char *key, uint64_t *out)
{
    const struct value *v = find_value(file, key, false);
    double real;
    uint64_t whole;
    bool is_whole;
    if (!v || !number_at(v, 0, &real, &whole, &is_whole) || !is_whole)
        return false;
    *out = whole;
    return true;
}

bool pm_gguf_real(const struct pm_gguf *file, const char *key, double *out)
{
    const struct value *v = find_value(file, key, false);
    uint64_t whole;
    bool is_whole;
    return v && number_at(v, 0, out, &whole, &is_whole);
}

bool pm_gguf_text(const struct pm_gguf *file, const char *key, const char **text_out, size_t *bytes_out)
{
    const struct value *v = find_value(file, key, false);
    if (!v || v->kind != KIND_TEXT)
        return false;
    struct pm_gguf_texts one = {v->data, 1};
    return pm_gguf_next_text(&one, text_out, bytes_out);
}

bool pm_gguf_is_text(const struct pm_gguf *file, const char *key, const char *text)
{
    const char *t;
    size_t n;
    return pm_gguf_text(file, key, &t, &n) && n == strlen(text) && !memcmp(t, text, n);
}

uint64_t pm_gguf_wholes(const struct pm_gguf *file, const char *key, uint64_t *out, uint64_t limit)
{
    const struct value *v = find_value(file, key, true);
    double real;
    bool is_whole = true;
    if (!v)
        return 0;
    for (uint64_t i = 0; i < v->count && i < limit; i++)
        if (!number_at(v, i, &real, &out[i], &is_whole) || !is_whole)
            return 0;
    return v->count;
}

uint64_t pm_gguf_reals(const struct pm_gguf *file, const char *key, double *out, uint64_t limit)
{
    const struct value *v = find_value(file, key, true);
    uint64_t whole;
    bool is_whole;
    if (!v)
        return 0;
    for (uint64_t i = 0; i < v->count && i < limit; i++)
        if (!number_at(v, i, &out[i], &whole, &is_whole))
            return 0;
    return v->count;
}

uint64_t pm_gguf_texts(const struct pm_gguf *file, const char *key, struct pm_gguf_texts *out)
{
    const struct value *v = find_value(file, key, true);
    if (!v || v->kind != KIND_TEXT)
        return 0;
    *out = (struct pm_gguf_texts){v->data, v->count};
    return v->count;
}

bool pm_gguf_next_text(struct pm_gguf_texts *texts, const char **text_out, size_t *bytes_out)
{
    uint64_t bytes;
    if (!texts->left)
        return false;
    memcpy(&bytes, texts->at, sizeof bytes); /* its length was checked when the file was read */
    *text_out = (const char *)texts->at + sizeof bytes;
    *bytes_out = (size_t)bytes;
    texts->at += sizeof bytes + bytes;
    texts->left--;
    return true;
}
