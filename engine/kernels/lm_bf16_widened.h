/* lm_body.h in bf16 for processors without a dot product of pairs: values are widened to f32 in registers.
 * Include after defining LM, the tile (TILE_M, TILE_V, TILE_WIDE_M), struct pair (two vectors) and
 *
 *   PB_LOAD(p), PX_LOAD(p)    the pairs of one vector of outputs, and one pair in every lane, widened
 *   v_round_bf16(v)           the nearest bf16 as an f32
 *   v_put_upper(p, v, n)      the upper halves of the first n lanes */

PM_INLINE void put_bf16(uint16_t *p, VF v, int n)
{
    v_put_upper(p, v_round_bf16(v), n);
}

PM_INLINE VF put_probabilities_bf16(uint16_t *p, VF a, VF b, VF sum)
{
    a = v_round_bf16(a);
    b = v_round_bf16(b);
    v_put_upper(p, a, VL);
    v_put_upper(p + VL, b, VL);
    return V_ADD(sum, V_ADD(a, b));
}

PM_INLINE VF step_bf16(VF sum, struct pair x, struct pair b)
{
    return V_FMA(x.second, b.second, V_FMA(x.first, b.first, sum));
}

#define ACT                             uint16_t
#define ACT_IS_BF16                     1
#define ACT_PUT(p, v, n)                put_bf16(p, v, n)
#define PB                              struct pair
#define PB_VALUES                       2
#define PX                              struct pair
#define P_STEP(sum, x, b)               step_bf16(sum, x, b)
#define P_PROBABILITIES(p, a, b, total) put_probabilities_bf16(p, a, b, total)
#include "engine/kernels/lm_body.h"

static const struct pm_lm_kernels lm_kernels_bf16 = {
    .rms_norm = rms_norm_bf16,
    .gate = gate_bf16,
    .convert = convert_bf16,
    .attend = attend_bf16,
    .put_keys = put_keys_bf16,
    .put_values = put_values_bf16,
};
