/* AVX-512 with BF16: vdpbf16ps adds the products of two pairs of bf16 in one step. 6 rows x 64 outputs in 24
 * zmm sums; one panel of weights serves 6 rows before the next load (7 and 8 rows: 8 x 32 in 16). The
 * instruction takes denormals for zeros. */
#if defined(__x86_64__)
#include "engine/kernels/avx512bf16.h"

#include <math.h>
#include <string.h>

#include "engine/kernels/check.h"
#include "engine/kernels/vector_avx512.h"

#define LM_EXP2_LOW (-160.0f)
#include "engine/kernels/lm_math.h"

PM_INLINE __m512bh load_weights(const uint16_t *p)
{
    return (__m512bh)_mm512_loadu_si512(p);
}

PM_INLINE __m512bh load_pair(const uint16_t *p)
{
    int32_t bits;
    memcpy(&bits, p, sizeof bits);
    return (__m512bh)_mm512_set1_epi32(bits);
}

PM_INLINE void put_bf16(uint16_t *p, __m512 v, int n)
{
    __m256i bits = (__m256i)_mm512_cvtneps_pbh(v);
    if (n >= VL)
        _mm256_storeu_si256((__m256i *)(void *)p, bits);
    else
        _mm256_mask_storeu_epi16(p, first16(n), bits);
}

/* One instruction adds up 32 of them. */
PM_INLINE __m512 put_probabilities(uint16_t *p, __m512 a, __m512 b, __m512 sum)
{
    __m512bh both = _mm512_cvtne2ps_pbh(b, a);
    _mm512_storeu_si512(p, (__m512i)both);
    return _mm512_dpbf16_ps(sum, both, (__m512bh)_mm512_set1_epi16(0x3f80));
}

#define LM(name)                        name##_bf16
#define ACT                             uint16_t
#define ACT_IS_BF16                     1
#define ACT_PUT(p, v, n)                put_bf16(p, v, n)
#define PB                              __m512bh
#define PB_VALUES                       2
#define PB_LOAD(p)                      load_weights(p)
#define PX                              __m512bh
#define PX_LOAD(p)                      load_pair(p)
#define P_STEP(sum, x, b)               _mm512_dpbf16_ps(sum, x, b)
#define P_PROBABILITIES(p, a, b, total) put_probabilities(p, a, b, total)
#define TILE_M                          6
#define TILE_V                          4
#define TILE_WIDE_M                     3
#define TILE_TALL_M                     8
#include "engine/kernels/lm_body.h"

void pm_avx512bf16_gemm(const struct pm_gemm_bf16 *g)
{
    gemm_bf16(g);
}

const struct pm_lm_kernels pm_avx512bf16_lm = {
    .rms_norm = rms_norm_bf16,
    .gate = gate_bf16,
    .convert = convert_bf16,
    .attend = attend_bf16,
    .put_keys = put_keys_bf16,
    .put_values = put_values_bf16,
};
#else
typedef int pm_kernels_avx512bf16_not_on_this_machine;
#endif
