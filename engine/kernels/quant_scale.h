/* The scale of a group of inputs, the same in every table. */
#ifndef PM_ENGINE_KERNELS_QUANT_SCALE_H
#define PM_ENGINE_KERNELS_QUANT_SCALE_H

#include <math.h>

#include "engine/kernels/bf16.h"

struct pm_quant_scale {
    float scale, inverse; /* inverse 0: all integers are 0 */
};

/* largest: the magnitude of the largest value as bf16 bits; as integers they order like the values, infinity
 * and not-a-number above all. */
static inline struct pm_quant_scale pm_quant_scale(unsigned largest)
{
    float value = pm_bf16_to_f32((uint16_t)largest);
    if (largest >= 0x7f80)
        return (struct pm_quant_scale){NAN, 0};
    if (value < 1e-30f)
        return (struct pm_quant_scale){0, 0};
    return (struct pm_quant_scale){value / 127.0f, 127.0f / value};
}

#endif
