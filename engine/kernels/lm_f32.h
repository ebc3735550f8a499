/* lm_body.h in f32. Include after defining LM and the tile (TILE_M, TILE_V, TILE_WIDE_M). */

PM_INLINE void put_f32(float *p, VF v, int n)
{
    if (n >= VL)
        V_STORE(p, v);
    else
        V_STORE_N(p, v, n);
}

PM_INLINE VF put_probabilities_f32(float *p, VF a, VF b, VF sum)
{
    V_STORE(p, a);
    V_STORE(p + VL, b);
    return V_ADD(sum, V_ADD(a, b));
}

#define ACT                             float
#define ACT_IS_BF16                     0
#define ACT_PUT(p, v, n)                put_f32(p, v, n)
#define PB                              VF
#define PB_VALUES                       1
#define PB_LOAD(p)                      V_LOAD(p)
#define PX                              VF
#define PX_LOAD(p)                      V_SET1(*(p))
#define P_STEP(sum, x, b)               V_FMA(x, b, sum)
#define P_PROBABILITIES(p, a, b, total) put_probabilities_f32(p, a, b, total)
#include "engine/kernels/lm_body.h"

static const struct pm_lm_kernels lm_kernels_f32 = {
    .rms_norm = rms_norm_f32,
    .gate = gate_f32,
    .convert = convert_f32,
    .attend = attend_f32,
    .put_keys = put_keys_f32,
    .put_values = put_values_f32,
};
