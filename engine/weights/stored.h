/* A tensor's values as a file stores them, and their way to f32: plain floats, MLX's affine groups, GGUF's
 * blocks.
 *
 * Values are counted flat, in the order of the file. Every size in a pm_stored was checked against the file
 * by whoever filled it: data holds `values` values. Threads: pure functions. */
#ifndef PM_ENGINE_WEIGHTS_STORED_H
#define PM_ENGINE_WEIGHTS_STORED_H

#include "engine/tensor.h"

enum pm_stored_kind {
    PM_STORED_PLAIN,  /* F32, F16, BF16 */
    PM_STORED_AFFINE, /* MLX: q * scale + bias, one pair a group of values */
    PM_STORED_BLOCKS, /* GGUF: blocks that hold their own scales */
};

enum { PM_BLOCK_VALUES_MAX = 256 };

/* A block type of GGUF. */
struct pm_block_type {
    const char *name;       /* "Q4_K" */
    uint32_t id;            /* in the file */
    unsigned values, bytes; /* of one block */
    void (*read)(const uint8_t *block, float *out);
};
/* NULL: not a block type that is read here. */
const struct pm_block_type *pm_block_type(uint32_t id);

struct pm_stored {
    enum pm_stored_kind kind;
    const uint8_t *data;
    uint64_t values, bytes;
    enum pm_dtype dtype; /* of plain values; of affine scales and biases */
    /* affine: rows of row_values, each a stream of bits (least significant first), groups within a row */
    unsigned bits, group;
    uint64_t row_values;
    const uint8_t *scales, *biases;
    const struct pm_block_type *block;
};

/* Values [first, first + count) as f32; the range must lie inside. What is not finite stays so. */
void pm_stored_read(const struct pm_stored *stored, uint64_t first, uint64_t count, float *out);

#endif
