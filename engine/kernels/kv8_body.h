/* The functions of kv8.h, written so that a compiler makes vectors of them: included once for each
 * instruction set. Define KV8(name) before: the name with a suffix. */
#include <math.h>
#include <string.h>

#include "engine/kernels/check.h"
#include "engine/kernels/kv8.h"

enum { KV8(BLOCK) = PM_ATTENTION_BLOCK, KV8(RUN) = 32 };

struct KV8(parts) {
    int8_t *keys, *values; /* [dim / 2][64][2], [32][width][2] */
    float *key_scales, *value_scales;
    int width;
};

static inline struct KV8(parts) KV8(open)(const void *block, int dim)
{
    struct KV8(parts) p = {.keys = (int8_t *)(uintptr_t)block, .width = (dim + 15) / 16 * 16};
    p.values = p.keys + (size_t)((dim + 1) / 2 * 2) * KV8(BLOCK);
    p.key_scales = (float *)(void *)(p.values + (size_t)p.width * KV8(BLOCK));
    p.value_scales = p.key_scales + KV8(BLOCK);
    return p;
}

/* Rounds one vector; returns its scale. */
static inline float KV8(round)(const float *restrict x, int dim, int8_t *restrict out)
{
    float top = 0;
    for (int i = 0; i < dim; i++) {
        float size = fabsf(x[i]);
        top = size > top ? size : top;
    }
    if (!(top > 0) || !isfinite(top)) {
        memset(out, 0, dim > 0 ? (size_t)dim : 0);
        return 0;
    }
    float scale = top / 127;
    for (int i = 0; i < dim; i++) {
        float steps = x[i] / scale, half = steps < 0 ? -0.5f : 0.5f;
        steps += half;
        steps = steps > 127 ? 127 : steps < -127 ? -127 : steps; /* NaN passes no test: */
        out[i] = steps == steps ? (int8_t)(int)steps : 0;
    }
    return scale;
}

static void KV8(put)(const float *keys, const float *values, size_t stride, int count, int dim, int first,
                     void *block)
{
    pm_check_rows(keys, stride, count, dim, sizeof *keys);
    pm_check_rows(values, stride, count, dim, sizeof *values);
    pm_check_bytes(block, pm_kv8_block_bytes(dim));
    struct KV8(parts) p = KV8(open)(block, dim);
    for (int j = 0; j < count; j++, keys += stride, values += stride) {
        int8_t row[PM_HEAD_DIM_MAX];
        int slot = first + j;
        p.key_scales[slot] = KV8(round)(keys, dim, row);
        for (int d = 0; d < dim; d++)
            p.keys[(d / 2 * KV8(BLOCK) + slot) * 2 + d % 2] = row[d];
        p.value_scales[slot] = KV8(round)(values, dim, row);
        int8_t *out = p.values + (size_t)(slot / 2) * (size_t)p.width * 2 + slot % 2;
        for (int d = 0; d < p.width; d++)
            out[2 * d] = d < dim ? row[d] : 0;
    }
}

/* out[i] = bf16 of in[i] * scales[i % 32], n a multiple of 32. */
static inline void KV8(scale)(const int8_t *restrict in, const float *restrict scales, int n,
                              uint16_t *restrict out)
{
    for (int i = 0; i < n; i += KV8(RUN))
        for (int k = 0; k < KV8(RUN); k++) {
            float x = (float)in[i + k] * scales[k];
            uint32_t bits;
            memcpy(&bits, &x, sizeof bits);
            out[i + k] = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
        }
}

static void KV8(expand)(const void *block, int dim, uint16_t *keys, uint16_t *values)
{
    struct KV8(parts) p = KV8(open)(block, dim);
    float scales[2 * KV8(BLOCK)];
    pm_check_bytes(block, pm_kv8_block_bytes(dim));
    for (int j = 0; j < KV8(BLOCK); j++)
        scales[2 * j] = scales[2 * j + 1] = p.key_scales[j];
    for (int d = 0; d < (dim + 1) / 2; d++)
        for (int j = 0; j < 2 * KV8(BLOCK); j += KV8(RUN))
            KV8(scale)(p.keys + d * 2 * KV8(BLOCK) + j, scales + j, KV8(RUN), keys + d * 2 * KV8(BLOCK) + j);
    for (int t = 0; t < KV8(BLOCK) / 2; t++) {
        for (int k = 0; k < KV8(RUN); k++)
            scales[k] = p.value_scales[2 * t + k % 2];
        KV8(scale)(p.values + t * 2 * p.width, scales, 2 * p.width, values + t * 2 * p.width);
    }
}
