/* A tensor as weight files describe it: a view of bytes that somebody else owns (usually a mapped file).
 * Threads: views are read-only after opening. */
#ifndef PM_ENGINE_TENSOR_H
#define PM_ENGINE_TENSOR_H

#include <stddef.h>
#include <stdint.h>

enum { PM_TENSOR_RANK_MAX = 6 };

/* Values are stored in weight files: never renumber. */
enum pm_dtype {
    PM_DTYPE_F32 = 0,
    PM_DTYPE_F16 = 1,
    PM_DTYPE_BF16 = 2,
    PM_DTYPE_I8 = 3,
    PM_DTYPE_U8 = 4,
    PM_DTYPE_I32 = 5,
    PM_DTYPE_U32 = 6,
    PM_DTYPE_I64 = 7,
    PM_DTYPE_F64 = 8,
    PM_DTYPE_BOOL = 9,
    PM_DTYPE_I16 = 10,
    PM_DTYPE_U16 = 11,
    PM_DTYPE_U64 = 12,
    PM_DTYPE_COUNT
};

struct pm_tensor {
    const char *name; /* owned by the file that the tensor comes from */
    enum pm_dtype dtype;
    int rank;
    uint64_t shape[PM_TENSOR_RANK_MAX]; /* row-major, outermost first */
    const uint8_t *data;
    uint64_t bytes;
};

/* Bytes of one element, and the name that safetensors uses ("F32", "BF16"). 0 and NULL for other values. */
unsigned pm_dtype_bytes(enum pm_dtype dtype);
const char *pm_dtype_name(enum pm_dtype dtype);

#endif
