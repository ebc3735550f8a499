/* The vector operations of the shared bodies in AVX-512 (F, VL, BW, DQ). */
#ifndef PM_ENGINE_KERNELS_VECTOR_AVX512_H
#define PM_ENGINE_KERNELS_VECTOR_AVX512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/kernels/vector_common.h"

PM_INLINE __mmask16 first16(int n)
{
    return n >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1u);
}

PM_INLINE __mmask8 first8(int n)
{
    return n >= 8 ? (__mmask8)0xff : (__mmask8)((1u << n) - 1u);
}

PM_INLINE __m512 v_lane_numbers(void)
{
    return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

#define VF                 __m512
#define VL                 16
#define V_LOAD(p)          _mm512_loadu_ps(p)
#define V_STORE(p, v)      _mm512_storeu_ps(p, v)
#define V_SET1(x)          _mm512_set1_ps(x)
#define V_ADD(a, b)        _mm512_add_ps(a, b)
#define V_SUB(a, b)        _mm512_sub_ps(a, b)
#define V_MUL(a, b)        _mm512_mul_ps(a, b)
#define V_DIV(a, b)        _mm512_div_ps(a, b)
#define V_MAX(a, b)        _mm512_max_ps(a, b)
#define V_MIN(a, b)        _mm512_min_ps(a, b)
#define V_FMA(a, b, c)     _mm512_fmadd_ps(a, b, c)
#define V_FNMA(a, b, c)    _mm512_fnmadd_ps(a, b, c)
#define V_LOAD_N(p, n)     _mm512_maskz_loadu_ps(first16(n), p)
#define V_STORE_N(p, v, n) _mm512_mask_storeu_ps(p, first16(n), v)
#define V_ROUND(v)         _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define V_SCALE2(v, n)     _mm512_scalef_ps(v, n)
/* x - floor(x) (0 for minus infinity), and v 2^floor(x) */
#define V_SPLIT2(x)          _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)
#define V_SCALE2_FLOOR(v, x) _mm512_scalef_ps(v, x)
#define V_MASK               __mmask16
#define V_GT(a, b)           _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ)
#define V_BITS(m)            ((unsigned)(m))
#define V_BLEND(m, s, c)     _mm512_mask_blend_ps(m, c, s)
#define V_HMAX(v)            _mm512_reduce_max_ps(v)
#define V_HSUM(v)            _mm512_reduce_add_ps(v)
#define V_BYTES(p)                                                                                           \
    _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p))))

#define V_FIRST(v) _mm512_cvtss_f32(v)

/* ---- rotary pairs ---- */

/* Lanes 0, 0, 1, 1, 2, 2, ... */
PM_INLINE __m512 v_twice(__m512 v)
{
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), v);
}

PM_INLINE __m512 v_swap_pairs(__m512 v)
{
    return _mm512_permute_ps(v, 0xb1);
}

/* v c - t in even lanes, v c + t in odd ones. */
PM_INLINE __m512 v_turn(__m512 v, __m512 c, __m512 t)
{
    return _mm512_fmaddsub_ps(v, c, t);
}

/* ---- bf16 ---- */

/* Nearest bf16, ties to even, as an f32. */
PM_INLINE __m512 v_round_bf16(__m512 v)
{
    __m512i bits = _mm512_castps_si512(v), one = _mm512_set1_epi32(1);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    up = _mm512_mask_or_epi32(up, nan, bits, _mm512_set1_epi32(0x400000));
    return _mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32((int)0xffff0000u)));
}

/* The upper halves of the first n lanes. */
PM_INLINE void v_put_upper(uint16_t *p, __m512 v, int n)
{
    __m256i low = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(v), 16));
    if (n >= 16)
        _mm256_storeu_si256((__m256i *)(void *)p, low);
    else
        _mm256_mask_storeu_epi16(p, first16(n), low);
}

#endif
