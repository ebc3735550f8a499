/* Keys and values of the cache in 8 bits: half the room and half the reading of bf16.
 *
 * A block holds PM_ATTENTION_BLOCK tokens of one key/value head. Each token's key and each token's value has
 * one scale, the largest magnitude / 127; numbers are rounded to the nearest of 255 steps, so that an element
 * moves by at most half a step. Values lie as in the bf16 blocks (kernels.h, struct pm_attention), one byte
 * each, and a block is expanded to those before attention reads it: a product of the number and its scale,
 * rounded to bf16, the same on every instruction set.
 *
 * Ownership: nothing is kept. Threads: pure functions. Errors: none. */
#ifndef PM_ENGINE_KERNELS_KV8_H
#define PM_ENGINE_KERNELS_KV8_H

#include "engine/kernels/kernels.h"

size_t pm_kv8_block_bytes(int dim); /* a multiple of 64 */

struct pm_kv8_kernels {
    /* Writes keys and values [count][dim] f32, stride apart, into slots first.. of a block. Not finite ones
     * become 0. */
    void (*put)(const float *keys, const float *values, size_t stride, int count, int dim, int first,
                void *block);
    /* A block as the key and value blocks of attention in bf16. */
    void (*expand)(const void *block, int dim, uint16_t *keys, uint16_t *values);
};

/* Those for the instruction set of a table. */
const struct pm_kv8_kernels *pm_kv8_get(const struct pm_kernels *kernels);

extern const struct pm_kv8_kernels pm_kv8_plain;
#if defined(__x86_64__)
extern const struct pm_kv8_kernels pm_kv8_avx2, pm_kv8_avx512;
#endif

#endif
