/* AVX-512 without VNNI. int8: bytes are widened to 16 bits, unsigned weights and signed inputs, and vpmaddwd
 * adds pairs of products exactly. int4: vpmaddubsw cannot saturate, since 2 x 15 x 128 fits 16 bits. */
#if defined(__x86_64__)
#include "engine/kernels/quant_vector_avx512.h"

/* Bytes 0 and 2 of every four, and bytes 1 and 3, as 16-bit values. */
struct q_wide {
    __m512i even, odd;
};

PM_INLINE struct q_wide q_wide_weights(__m512i v)
{
    return (struct q_wide){_mm512_and_si512(v, _mm512_set1_epi16(255)), _mm512_srli_epi16(v, 8)};
}

PM_INLINE struct q_wide q_wide_inputs(__m512i v)
{
    return (struct q_wide){_mm512_srai_epi16(_mm512_slli_epi16(v, 8), 8), _mm512_srai_epi16(v, 8)};
}

PM_INLINE __m512i q_step_wide(__m512i sum, struct q_wide w, struct q_wide x)
{
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(w.even, x.even));
    return _mm512_add_epi32(sum, _mm512_madd_epi16(w.odd, x.odd));
}

PM_INLINE __m512i q_step_small(__m512i sum, __m512i w, __m512i x)
{
    return _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(w, x), _mm512_set1_epi16(1)));
}

#define Q(name)           name##_int8
#define Q_BITS            8
#define QX                struct q_wide
#define QW                struct q_wide
#define Q_LOAD_X(p)       q_wide_inputs(q_four(p))
#define Q_WEIGHTS(v)      q_wide_weights(v)
#define Q_STEP(sum, w, x) q_step_wide(sum, w, x)
#define Q_PACE            0
#define TILE_M            4
#define TILE_V            4
#include "engine/kernels/quant_body.h"

#define Q(name)           name##_int4
#define Q_BITS            4
#define QX                __m512i
#define QW                __m512i
#define Q_LOAD_X(p)       q_four(p)
#define Q_STEP(sum, w, x) q_step_small(sum, w, x)
#define Q_PACE            0
#define TILE_M            4
#define TILE_V            4
#include "engine/kernels/quant_body.h"

const struct pm_quant_kernels pm_quant_avx512 = {
    .round_rows = q_round_rows,
    .gemm_int8 = gemm_int8,
    .gemm_int4 = gemm_int4,
};
#else
typedef int pm_quant_avx512_not_on_this_machine;
#endif
