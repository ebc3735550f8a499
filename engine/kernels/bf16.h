/* One bf16 value: the upper half of an f32. */
#ifndef PM_ENGINE_KERNELS_BF16_H
#define PM_ENGINE_KERNELS_BF16_H

#include <stdint.h>
#include <string.h>

static inline float pm_bf16_to_f32(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Nearest, ties to even; not-a-number stays one. */
static inline uint16_t pm_bf16_from_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

#endif
