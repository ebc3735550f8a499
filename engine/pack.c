#include "engine/pack.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/map.h"
#include "base/mem.h"
#include "engine/kernels/kernels.h"

enum { ENTRY_BYTES = 128, DATA_OFFSET = 4096, NAME_LIMIT = 4096, MAGIC_BYTES = 8 };

struct pm_pack {
    char *name; /* for messages */
    const uint8_t *map;
    size_t map_bytes;
    struct pm_pack_tensor *tensors;
    size_t count;
    struct pm_strmap by_name;
    char *meta;
};

static uint64_t get_le(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static void put_le(uint8_t *p, int bytes, uint64_t v)
{
    for (int i = 0; i < bytes; i++, v >>= 8)
        p[i] = (uint8_t)v;
}

enum pm_dtype pm_layout_dtype(enum pm_layout layout)
{
    switch (layout) {
    case PM_LAYOUT_PANELS64_BF16:
        return PM_DTYPE_BF16;
    case PM_LAYOUT_PANELS64_INT8:
    case PM_LAYOUT_PANELS64_INT4:
        return PM_DTYPE_U8;
    default:
        return PM_DTYPE_F32;
    }
}

int64_t pm_pack_bytes(enum pm_dtype dtype, enum pm_layout layout, int rank, const uint64_t *shape)
{
    uint64_t bytes = pm_dtype_bytes(dtype);
    if (!bytes || rank < 0 || rank > PM_TENSOR_RANK_MAX)
        return -1;
    if (layout != PM_LAYOUT_ROWS) {
        /* Sides below 2^24 and a product below 2^62 keep every sum here far from overflow. */
        if (layout < 0 || layout >= PM_LAYOUT_COUNT || rank != 3 || dtype != pm_layout_dtype(layout))
            return -1;
        for (int i = 0; i < 3; i++)
            if (!shape[i] || shape[i] >> 24)
                return -1;
        uint64_t outputs = shape[0], inputs = shape[1] * shape[2] + 1;
        if (layout == PM_LAYOUT_PANELS48)
            outputs = (outputs - 1) / PM_PANEL * PM_PANEL +
                      (uint64_t)pm_panel_width((int)outputs, (int)((outputs - 1) / PM_PANEL));
        else if (layout == PM_LAYOUT_DEPTHWISE)
            outputs = (outputs + PM_DW_LANES - 1) / PM_DW_LANES * PM_DW_LANES;
        else if (layout == PM_LAYOUT_PANELS64_INT8 || layout == PM_LAYOUT_PANELS64_INT4) {
            outputs = (outputs + PM_PANEL_QUANT - 1) / PM_PANEL_QUANT;
            inputs = (inputs - 1 + PM_QUANT_GROUP - 1) / PM_QUANT_GROUP;
            bytes = layout == PM_LAYOUT_PANELS64_INT8 ? PM_INT8_GROUP_BYTES : PM_INT4_GROUP_BYTES;
        } else {
            outputs = (outputs + PM_PANEL_BF16 - 1) / PM_PANEL_BF16 * PM_PANEL_BF16;
            inputs -= inputs % 2; /* k rounded up to even; no row for a bias */
        }
        if (__builtin_mul_overflow(bytes, outputs, &bytes) || __builtin_mul_overflow(bytes, inputs, &bytes))
            return -1;
    } else
        for (int i = 0; i < rank; i++)
            if (__builtin_mul_overflow(bytes, shape[i], &bytes))
                return -1;
    return bytes > INT64_MAX ? -1 : (int64_t)bytes;
}

static int bad(const struct pm_pack *p, struct pm_error *err, const char *why)
{
    return pm_fail(err, PM_EFORMAT, "%s: %s: not a packed weight file of this version, or damaged", p->name,
                   why);
}

/* Offsets of the header, checked against the file and each other. */
struct header {
    uint64_t index_offset, index_bytes, data_offset;
    uint32_t count, names_bytes, meta_bytes;
};

static int read_header(const struct pm_pack *p, const uint8_t *d, size_t bytes, struct header *h,
                       struct pm_error *err)
{
    if (bytes < DATA_OFFSET || memcmp(d, PM_PACK_MAGIC, MAGIC_BYTES))
        return bad(p, err, "it does not begin like one");
    if (get_le(d + 8, 4) != PM_PACK_VERSION || get_le(d + 12, 4) != PM_PACK_HEADER_BYTES)
        return pm_fail(err, PM_EFORMAT,
                       "%s: weight file version %u; this program reads version %d: pack it again", p->name,
                       (unsigned)get_le(d + 8, 4), PM_PACK_VERSION);
    if (get_le(d + 16, 8) != bytes)
        return pm_fail(err, PM_EFORMAT, "%s: %zu bytes, should be %llu: the file is cut short or damaged",
                       p->name, bytes, (unsigned long long)get_le(d + 16, 8));
    h->index_offset = get_le(d + 24, 8);
    h->index_bytes = get_le(d + 32, 8);
    h->data_offset = get_le(d + 40, 8);
    h->count = (uint32_t)get_le(d + 48, 4);
    h->names_bytes = (uint32_t)get_le(d + 52, 4);
    h->meta_bytes = (uint32_t)get_le(d + 56, 4);
    if (h->index_offset > bytes || h->index_bytes != bytes - h->index_offset ||
        h->data_offset > h->index_offset || h->data_offset < PM_PACK_HEADER_BYTES)
        return bad(p, err, "its parts do not fit into the file");
    if (h->index_bytes != (uint64_t)h->count * ENTRY_BYTES + h->names_bytes + h->meta_bytes)
        return bad(p, err, "its index has another size than it says");
    uint8_t hash[PM_HASH_BYTES];
    struct pm_hasher hasher;
    pm_hasher_start(&hasher);
    pm_hasher_add(&hasher, d, 64);
    pm_hasher_add(&hasher, d + h->index_offset, (size_t)h->index_bytes);
    pm_hasher_finish(&hasher, hash);
    if (memcmp(hash, d + 64, sizeof hash))
        return bad(p, err, "the checksum of its index is wrong");
    return 0;
}

static int read_entry(const struct pm_pack *p, const uint8_t *d, const struct header *h, uint32_t i,
                      uint64_t *free_from, struct pm_pack_tensor *out, struct pm_error *err)
{
    const uint8_t *e = d + h->index_offset + (uint64_t)i * ENTRY_BYTES;
    const uint8_t *names = d + h->index_offset + (uint64_t)h->count * ENTRY_BYTES;
    uint64_t name_offset = get_le(e, 4), name_bytes = get_le(e + 4, 2);
    if (!name_bytes || name_offset + name_bytes >= h->names_bytes || names[name_offset + name_bytes] ||
        memchr(names + name_offset, 0, name_bytes))
        return bad(p, err, "a tensor has no proper name");
    struct pm_tensor *t = &out->tensor;
    *t = (struct pm_tensor){
        .name = (const char *)names + name_offset, .dtype = (enum pm_dtype)e[6], .rank = e[8]};
    out->layout = (enum pm_layout)e[7];
    if (e[6] >= PM_DTYPE_COUNT || e[7] >= PM_LAYOUT_COUNT || t->rank > PM_TENSOR_RANK_MAX)
        return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s: type %d, layout %d, rank %d are not known",
                       p->name, t->name, e[6], e[7], t->rank);
    for (int k = 0; k < t->rank; k++)
        t->shape[k] = get_le(e + 32 + 8 * k, 8);
    uint64_t offset = get_le(e + 16, 8);
    t->bytes = get_le(e + 24, 8);
    int64_t want = pm_pack_bytes(t->dtype, out->layout, t->rank, t->shape);
    if (want < 0 || (uint64_t)want != t->bytes)
        return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s: %llu bytes do not fit its shape", p->name,
                       t->name, (unsigned long long)t->bytes);
    if (offset % PM_PACK_ALIGN || offset < *free_from || offset > h->index_offset ||
        t->bytes > h->index_offset - offset)
        return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s: its data lies outside the file or over another's",
                       p->name, t->name);
    t->data = d + offset;
    *free_from = offset + t->bytes;
    return 0;
}

static int read_all(struct pm_pack *p, const uint8_t *d, size_t bytes, struct pm_error *err)
{
    struct header h = {0};
    int rc = read_header(p, d, bytes, &h, err);
    if (rc)
        return rc;
    uint64_t free_from = h.data_offset;
    p->tensors = pm_xalloc(((size_t)h.count + 1) * sizeof *p->tensors);
    for (uint32_t i = 0; i < h.count; i++) {
        rc = read_entry(p, d, &h, i, &free_from, &p->tensors[i], err);
        if (rc)
            return rc;
        const char *name = p->tensors[i].tensor.name;
        if (pm_strmap_get(&p->by_name, name))
            return pm_fail(err, PM_EFORMAT, "%s: tensor %.200s is there twice", p->name, name);
        pm_strmap_put(&p->by_name, name, &p->tensors[i]);
        p->count++;
    }
    p->meta = pm_xstrndup((const char *)d + bytes - h.meta_bytes, h.meta_bytes);
    return 0;
}

int pm_pack_parse(const char *name, const uint8_t *data, size_t bytes, struct pm_pack **out,
                  struct pm_error *err)
{
    struct pm_pack *p = pm_xalloc(sizeof *p);
    p->name = pm_xstrdup(name);
    int rc = read_all(p, data, bytes, err);
    if (rc)
        pm_pack_free(&p);
    *out = p;
    return rc;
}

int pm_pack_open(const char *path, struct pm_pack **out, struct pm_error *err)
{
    const uint8_t *map;
    size_t bytes;
    *out = NULL;
    int rc = pm_fs_map(path, &map, &bytes, err);
    if (rc)
        return rc;
    /* Before the first look: files are then read in huge pages where the system can, and weights come up to
     * 1.7 times as fast as from 4 KB pages. */
    (void)madvise((void *)(uintptr_t)map, bytes, MADV_HUGEPAGE);
    rc = pm_pack_parse(path, map, bytes, out, err);
    if (rc) {
        pm_fs_unmap(map, bytes);
        return rc;
    }
    (*out)->map = map;
    (*out)->map_bytes = bytes;
    return 0;
}

bool pm_pack_warm(const struct pm_pack *pack, size_t from, size_t bytes)
{
    if (from >= pack->map_bytes)
        return false;
#ifdef MADV_POPULATE_READ
    size_t page = (size_t)sysconf(_SC_PAGESIZE), begin = from / page * page;
    size_t end = bytes < pack->map_bytes - from ? from + bytes : pack->map_bytes;
    (void)madvise((void *)(uintptr_t)(pack->map + begin), end - begin, MADV_POPULATE_READ);
#else
    (void)bytes;
#endif
    return true;
}

void pm_pack_free(struct pm_pack **pack)
{
    struct pm_pack *p = *pack;
    if (!p)
        return;
    pm_strmap_free(&p->by_name);
    pm_fs_unmap(p->map, p->map_bytes);
    free(p->tensors);
    free(p->meta);
    free(p->name);
    free(p);
    *pack = NULL;
}

int pm_pack_verify(const char *path, struct pm_error *err)
{
    struct pm_pack *p;
    int rc = pm_pack_open(path, &p, err);
    if (rc)
        return rc;
    uint64_t from = get_le(p->map + 40, 8), to = get_le(p->map + 24, 8);
    uint8_t hash[PM_HASH_BYTES];
    pm_hash(p->map + from, (size_t)(to - from), hash);
    if (memcmp(hash, p->map + 96, sizeof hash))
        rc = pm_fail(err, PM_EFORMAT,
                     "%s: the checksum of the weights is wrong: the file is damaged, install it again", path);
    pm_pack_free(&p);
    return rc;
}

size_t pm_pack_count(const struct pm_pack *pack)
{
    return pack->count;
}

const struct pm_pack_tensor *pm_pack_at(const struct pm_pack *pack, size_t index)
{
    return index < pack->count ? &pack->tensors[index] : NULL;
}

const struct pm_pack_tensor *pm_pack_find(const struct pm_pack *pack, const char *name)
{
    return pm_strmap_get(&pack->by_name, name);
}

const char *pm_pack_meta(const struct pm_pack *pack)
{
    return pack->meta;
}

int pm_pack_need(const struct pm_pack *pack, const char *name, enum pm_dtype dtype, enum pm_layout layout,
                 int rank, const uint64_t *shape, const void **data_out, struct pm_error *err)
{
    *data_out = NULL;
    const struct pm_pack_tensor *p = pm_pack_find(pack, name);
    if (!p)
        return pm_fail(err, PM_EFORMAT, "%s: tensor %s is missing: these are the weights of another model",
                       pack->name, name);
    if (p->tensor.dtype != dtype || p->layout != layout)
        return pm_fail(err, PM_EFORMAT, "%s: tensor %s: type %s in layout %d, needed are %s in layout %d",
                       pack->name, name, pm_dtype_name(p->tensor.dtype), (int)p->layout, pm_dtype_name(dtype),
                       (int)layout);
    bool same = p->tensor.rank == rank;
    for (int i = 0; same && i < rank; i++)
        same = p->tensor.shape[i] == shape[i];
    if (!same)
        return pm_fail(err, PM_EFORMAT, "%s: tensor %s: its shape is not the one that this network has",
                       pack->name, name);
    *data_out = p->tensor.data;
    return 0;
}

int pm_pack_need_vector(const struct pm_pack *pack, const char *name, uint64_t n, const float **data_out,
                        struct pm_error *err)
{
    const void *data;
    int rc = pm_pack_need(pack, name, PM_DTYPE_F32, PM_LAYOUT_ROWS, 1, &n, &data, err);
    *data_out = data;
    for (uint64_t i = 0; !rc && i < n; i++)
        if (!isfinite((*data_out)[i]))
            rc = pm_fail(err, PM_EFORMAT, "%s: tensor %s: value %llu of %llu is not finite", pack->name, name,
                         (unsigned long long)i + 1, (unsigned long long)n);
    return rc;
}

/* ---- writer ---- */

/* Written at multiples of it, so that the file lies in large pages of memory at once (pm_pack_open). */
enum { CHUNK_BYTES = 2 << 20 };

struct pm_pack_writer {
    char *path, *temporary;
    int fd;
    uint64_t end;     /* where the next byte goes */
    uint64_t missing; /* bytes of the tensor that was begun */
    struct pm_hasher hasher;
    struct pm_buf entries, names;
    uint32_t count;
    uint8_t *chunk; /* [CHUNK_BYTES]: what is not written yet */
    size_t chunk_used;
};

static int flush(struct pm_pack_writer *w, struct pm_error *err)
{
    int rc = pm_fs_write_all(w->fd, w->chunk, w->chunk_used, err);
    w->chunk_used = 0;
    return rc ? pm_fail_prefix(err, "writing %s", w->temporary) : 0;
}

static int emit(struct pm_pack_writer *w, const void *data, size_t bytes, struct pm_error *err)
{
    const uint8_t *from = data;
    if (w->end >= DATA_OFFSET)
        pm_hasher_add(&w->hasher, data, bytes);
    while (bytes) {
        size_t room = CHUNK_BYTES - w->chunk_used, n = bytes < room ? bytes : room;
        memcpy(w->chunk + w->chunk_used, from, n);
        w->chunk_used += n;
        w->end += n;
        from += n;
        bytes -= n;
        int rc = w->chunk_used == CHUNK_BYTES ? flush(w, err) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

int pm_pack_writer_open(const char *path, struct pm_pack_writer **out, struct pm_error *err)
{
    static const uint8_t zeros[DATA_OFFSET];
    struct pm_pack_writer *w = pm_xalloc(sizeof *w);
    w->path = pm_xstrdup(path);
    w->temporary = pm_xprintf("%s.%ld.tmp", path, (long)getpid());
    w->chunk = pm_xalloc(CHUNK_BYTES);
    pm_hasher_start(&w->hasher);
    w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int rc =
        w->fd < 0 ? pm_fail_errno(err, "cannot create %s", w->temporary) : emit(w, zeros, sizeof zeros, err);
    if (rc)
        pm_pack_writer_free(&w);
    *out = w;
    return rc;
}

int pm_pack_writer_begin(struct pm_pack_writer *w, const char *name, enum pm_dtype dtype,
                         enum pm_layout layout, int rank, const uint64_t *shape, struct pm_error *err)
{
    static const uint8_t zeros[PM_PACK_ALIGN];
    int64_t bytes = pm_pack_bytes(dtype, layout, rank, shape);
    size_t name_bytes = strlen(name);
    PM_ASSERT(!w->missing);
    if (bytes < 0 || !name_bytes || name_bytes > NAME_LIMIT)
        return pm_fail(err, PM_EINVAL, "%s: tensor %.200s: impossible shape, type, layout or name", w->path,
                       name);
    int rc = emit(w, zeros, (size_t)(-w->end % PM_PACK_ALIGN), err);
    if (rc)
        return rc;
    uint8_t e[ENTRY_BYTES] = {0};
    put_le(e, 4, w->names.size);
    put_le(e + 4, 2, name_bytes);
    e[6] = (uint8_t)dtype;
    e[7] = (uint8_t)layout;
    e[8] = (uint8_t)rank;
    put_le(e + 16, 8, w->end);
    put_le(e + 24, 8, (uint64_t)bytes);
    for (int i = 0; i < rank; i++)
        put_le(e + 32 + 8 * i, 8, shape[i]);
    pm_buf_append(&w->entries, e, sizeof e);
    pm_buf_append(&w->names, name, name_bytes + 1);
    w->count++;
    w->missing = (uint64_t)bytes;
    return 0;
}

int pm_pack_writer_append(struct pm_pack_writer *w, const void *data, size_t bytes, struct pm_error *err)
{
    PM_ASSERT(bytes <= w->missing);
    int rc = emit(w, data, bytes, err);
    if (!rc)
        w->missing -= bytes;
    return rc;
}

int pm_pack_writer_add(struct pm_pack_writer *w, const char *name, enum pm_dtype dtype, enum pm_layout layout,
                       int rank, const uint64_t *shape, const void *data, struct pm_error *err)
{
    int rc = pm_pack_writer_begin(w, name, dtype, layout, rank, shape, err);
    return rc ? rc : pm_pack_writer_append(w, data, (size_t)w->missing, err);
}

int pm_pack_writer_finish(struct pm_pack_writer *w, const char *meta_json, struct pm_error *err)
{
    uint8_t h[PM_PACK_HEADER_BYTES] = {0};
    static const uint8_t zeros[PM_PACK_ALIGN];
    PM_ASSERT(!w->missing);
    int rc = emit(w, zeros, (size_t)(-w->end % PM_PACK_ALIGN), err);
    if (rc)
        return rc;
    pm_hasher_finish(&w->hasher, h + 96);
    pm_hasher_start(&w->hasher);
    uint64_t index_offset = w->end;
    size_t meta_bytes = meta_json ? strlen(meta_json) : 0, names_bytes = w->names.size;
    pm_buf_append(&w->entries, w->names.data, names_bytes);
    pm_buf_append(&w->entries, meta_json ? meta_json : "", meta_bytes);
    memcpy(h, PM_PACK_MAGIC, MAGIC_BYTES);
    put_le(h + 8, 4, PM_PACK_VERSION);
    put_le(h + 12, 4, PM_PACK_HEADER_BYTES);
    put_le(h + 16, 8, index_offset + w->entries.size);
    put_le(h + 24, 8, index_offset);
    put_le(h + 32, 8, w->entries.size);
    put_le(h + 40, 8, DATA_OFFSET);
    put_le(h + 48, 4, w->count);
    put_le(h + 52, 4, names_bytes);
    put_le(h + 56, 4, meta_bytes);
    struct pm_hasher index;
    pm_hasher_start(&index);
    pm_hasher_add(&index, h, 64);
    pm_hasher_add(&index, w->entries.data, w->entries.size);
    pm_hasher_finish(&index, h + 64);
    rc = emit(w, w->entries.data, w->entries.size, err);
    if (!rc)
        rc = flush(w, err);
    if (rc)
        return rc;
    if (pwrite(w->fd, h, sizeof h, 0) != (ssize_t)sizeof h || fsync(w->fd) || rename(w->temporary, w->path))
        return pm_fail_errno(err, "cannot finish %s", w->path);
    free(w->temporary);
    w->temporary = NULL;
    return 0;
}

void pm_pack_writer_free(struct pm_pack_writer **writer)
{
    struct pm_pack_writer *w = *writer;
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    if (w->temporary)
        unlink(w->temporary);
    pm_buf_free(&w->entries);
    pm_buf_free(&w->names);
    free(w->chunk);
    free(w->temporary);
    free(w->path);
    free(w);
    *writer = NULL;
}
