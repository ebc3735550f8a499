/* IEEE half precision to f32, exact. Plain arithmetic, no state. */
#ifndef PM_ENGINE_WEIGHTS_HALF_H
#define PM_ENGINE_WEIGHTS_HALF_H

#include <stdint.h>
#include <string.h>

static inline float pm_half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 1023;
    if (exponent == 0) { /* zero and subnormal: mantissa * 2^-24 */
        float f = (float)mantissa * 5.9604644775390625e-8f;
        return sign ? -f : f;
    }
    uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Weight files do not align their data. */
static inline uint16_t pm_load_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline float pm_load_half(const uint8_t *p)
{
    return pm_half_to_float(pm_load_u16(p));
}

#endif
