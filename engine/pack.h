/* The packed weight file: tensors in the layouts that the kernels read, so that a model is opened by mapping
 * it and every process shares one copy. Format version 1, little-endian (docs/weights.md has the same in
 * prose).
 *
 *   at   bytes
 *   0    8    "PMWEIGHT"
 *   8    4    format version
 *   12   4    bytes of the header: 128
 *   16   8    bytes of the file
 *   24   8    index offset
 *   32   8    index bytes
 *   40   8    data offset
 *   48   4    count of tensors
 *   52   4    bytes of all names
 *   56   4    bytes of meta
 *   60   4    0
 *   64   32   BLAKE2b-256 of the index
 *   96   32   BLAKE2b-256 of the data
 *
 * Zeros follow up to the data offset (4096). Data: tensors, each at a multiple of 64 bytes, in the order of
 * the index, gaps zero. Index: count entries of 128 bytes, then names (each ended by NUL), then meta (JSON
 * text). An entry:
 *
 *   at   bytes
 *   0    4    name offset
 *   4    2    name bytes
 *   6    1    type
 *   7    1    layout
 *   8    1    rank
 *   16   8    data offset in the file
 *   24   8    data bytes
 *   32   48   shape: up to 6 numbers of 8 bytes
 *
 * and zeros everywhere else.
 *
 * The index hash covers bytes 0..63 of the header and the whole index; it is checked by every open
 * (microseconds). The data hash is checked by pm_pack_verify only (a second a gigabyte); open checks every
 * offset, size and layout.
 *
 * Ownership: pm_pack_open owns the map, tensors are views of it. Threads: read-only after opening. Errors:
 * PM_EFORMAT names the file, the tensor and the reason; PM_ENOTFOUND, PM_EIO; PM_ENOSPC from the writer.
 */
#ifndef PM_ENGINE_PACK_H
#define PM_ENGINE_PACK_H

#include <stdbool.h>

#include "base/error.h"
#include "engine/tensor.h"

enum { PM_PACK_VERSION = 1, PM_PACK_ALIGN = 64, PM_PACK_HEADER_BYTES = 128 };
#define PM_PACK_MAGIC "PMWEIGHT" /* 8 bytes, no NUL in the file */

/* How a tensor's values lie. Stored in files: never renumber. */
enum pm_layout {
    PM_LAYOUT_ROWS = 0, /* row-major, as the shape says; any dtype */
    PM_LAYOUT_PANELS48 =
        1, /* f32, shape [n, taps, k]: panels of 48 outputs, bias first (kernels/kernels.h) */
    PM_LAYOUT_DEPTHWISE =
        2, /* f32, shape [channels, kh, kw]: [1 + kh * kw][channels padded to 16], bias first */
    PM_LAYOUT_PANELS64_BF16 = 3, /* bf16, shape [n, taps, k]: [(n + 63) / 64][(taps k + 1) / 2][64][2], zeros
                                    where k is odd or outputs end */
    /* u8, shape [n, taps, k]: [(n + 63) / 64][(taps k + 63) / 64] groups of 64 bf16 scales and 4096 or 2048
     * bytes of weights (kernels/quant.h) */
    PM_LAYOUT_PANELS64_INT8 = 4,
    PM_LAYOUT_PANELS64_INT4 = 5,
    PM_LAYOUT_COUNT
};

/* The one type that the values of a layout are of; f32 for rows, which can be of any. */
enum pm_dtype pm_layout_dtype(enum pm_layout layout);

struct pm_pack_tensor {
    struct pm_tensor tensor; /* data and bytes are those of the layout, shape is the logical one */
    enum pm_layout layout;
};

struct pm_pack;

int pm_pack_open(const char *path, struct pm_pack **out, struct pm_error *err);
/* The same on bytes in memory (64-byte aligned), which stay the caller's. */
int pm_pack_parse(const char *name, const uint8_t *data, size_t bytes, struct pm_pack **out,
                  struct pm_error *err);
/* Makes a part of the mapped file present: bytes [from, from + bytes) of it, cut where it ends; false when
 * that is beyond the end. Reads do that anyway, a few pages at a time; this saves them their faults. */
bool pm_pack_warm(const struct pm_pack *pack, size_t from, size_t bytes);
void pm_pack_free(struct pm_pack **pack);

/* Opens and compares the data's checksum. */
int pm_pack_verify(const char *path, struct pm_error *err);

size_t pm_pack_count(const struct pm_pack *pack);
const struct pm_pack_tensor *pm_pack_at(const struct pm_pack *pack, size_t index);
const struct pm_pack_tensor *pm_pack_find(const struct pm_pack *pack, const char *name); /* or NULL */
const char *pm_pack_meta(const struct pm_pack *pack); /* JSON text, "" when none */

/* The data of a tensor that must be there with this type, layout and shape; PM_EFORMAT says what differs. */
int pm_pack_need(const struct pm_pack *pack, const char *name, enum pm_dtype dtype, enum pm_layout layout,
                 int rank, const uint64_t *shape, const void **data_out, struct pm_error *err);

/* The same for a vector of n f32 (a norm, a bias), whose values must be finite: one bad number there would
 * spoil whatever is read. */
int pm_pack_need_vector(const struct pm_pack *pack, const char *name, uint64_t n, const float **data_out,
                        struct pm_error *err);

/* Bytes that a tensor takes in its layout; -1 when layout, type, rank and shape do not fit together. */
int64_t pm_pack_bytes(enum pm_dtype dtype, enum pm_layout layout, int rank, const uint64_t *shape);

/* Writing: tensors stream to a temporary file beside path, finish syncs and renames it. */
struct pm_pack_writer;
int pm_pack_writer_open(const char *path, struct pm_pack_writer **out, struct pm_error *err);
int pm_pack_writer_add(struct pm_pack_writer *w, const char *name, enum pm_dtype dtype, enum pm_layout layout,
                       int rank, const uint64_t *shape, const void *data, struct pm_error *err);
/* The same in pieces: begin, then appends of all its bytes together, so that a large tensor is never whole in
 * memory. */
int pm_pack_writer_begin(struct pm_pack_writer *w, const char *name, enum pm_dtype dtype,
                         enum pm_layout layout, int rank, const uint64_t *shape, struct pm_error *err);
int pm_pack_writer_append(struct pm_pack_writer *w, const void *data, size_t bytes, struct pm_error *err);
/* meta_json: kept as text, may be NULL. Afterwards only pm_pack_writer_free is left to call. */
int pm_pack_writer_finish(struct pm_pack_writer *w, const char *meta_json, struct pm_error *err);
void pm_pack_writer_free(struct pm_pack_writer **w); /* removes the temporary file of an unfinished one */

#endif
