/* Integer products: the vector operations of AVX-512, and the rounding of rows. */
#ifndef PM_ENGINE_KERNELS_QUANT_VECTOR_AVX512_H
#define PM_ENGINE_KERNELS_QUANT_VECTOR_AVX512_H

#include <immintrin.h>
#include <string.h>

#include "engine/kernels/check.h"
#include "engine/kernels/quant.h"
#include "engine/kernels/quant_scale.h"
#include "engine/kernels/vector_common.h"

#define QI                       __m512i
#define Q_IN_ORDER(v)            __asm__ volatile("" : "+v"(v))
#define Q_KEEP(v)                __asm__ volatile("" ::"v"(v))
#define QL                       16
#define QF                       __m512
#define Q_SET1(n)                _mm512_set1_epi32(n)
#define Q_LOAD(p)                _mm512_loadu_si512(p)
#define Q_FLOAT(i)               _mm512_cvtepi32_ps(i)
#define Q_FLOAT_LOAD(p)          _mm512_loadu_ps(p)
#define Q_FLOAT_STORE(p, f)      _mm512_storeu_ps(p, f)
#define Q_FLOAT_SET1(x)          _mm512_set1_ps(x)
#define Q_MUL(a, b)              _mm512_mul_ps(a, b)
#define Q_ADD(a, b)              _mm512_add_ps(a, b)
#define Q_FMA(a, b, c)           _mm512_fmadd_ps(a, b, c)
#define Q_FLOAT_LOAD_N(p, n)     _mm512_maskz_loadu_ps(q_first16(n), p)
#define Q_FLOAT_STORE_N(p, f, n) _mm512_mask_storeu_ps(p, q_first16(n), f)
#define Q_SCALES(p)              q_widen(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define Q_LOW4(v)                _mm512_and_si512(v, _mm512_set1_epi8(15))
#define Q_HIGH4(v)               _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15))

PM_INLINE __mmask16 q_first16(int n)
{
    return n >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1u);
}

/* bf16 as floats. */
PM_INLINE __m512 q_widen(__m256i bits)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

/* Four inputs in every lane. */
PM_INLINE __m512i q_four(const int8_t *p)
{
    int32_t bits;
    memcpy(&bits, p, sizeof bits);
    return _mm512_set1_epi32(bits);
}

/* The largest of 32 magnitudes twice: the minimum of complements is one instruction. */
PM_INLINE unsigned q_largest(__m512i a, __m512i b)
{
    __m512i magnitude = _mm512_set1_epi16(0x7fff);
    __m512i both = _mm512_max_epu16(_mm512_and_si512(a, magnitude), _mm512_and_si512(b, magnitude));
    __m256i half = _mm256_max_epu16(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64(both, 1));
    __m128i eight = _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    __m128i least = _mm_minpos_epu16(_mm_xor_si128(eight, _mm_set1_epi16(-1)));
    return (unsigned)_mm_extract_epi16(least, 0) ^ 0xffffu;
}

PM_INLINE __m512i q_round16(__m256i bits, __m512 inverse)
{
    return _mm512_cvtps_epi32(_mm512_mul_ps(q_widen(bits), inverse));
}

PM_INLINE void q_round_group(__m512i a, __m512i b, int zero, int8_t *values, float *scale_out,
                             int32_t *correction_out)
{
    struct pm_quant_scale scale = pm_quant_scale(q_largest(a, b));
    *scale_out = scale.scale;
    if (!(scale.inverse > 0)) {
        _mm512_storeu_si512(values, _mm512_setzero_si512());
        *correction_out = 0;
        return;
    }
    __m512 inverse = _mm512_set1_ps(scale.inverse);
    __m512i q0 = q_round16(_mm512_castsi512_si256(a), inverse);
    __m512i q1 = q_round16(_mm512_extracti64x4_epi64(a, 1), inverse);
    __m512i q2 = q_round16(_mm512_castsi512_si256(b), inverse);
    __m512i q3 = q_round16(_mm512_extracti64x4_epi64(b, 1), inverse);
    _mm_storeu_si128((__m128i *)(void *)values, _mm512_cvtepi32_epi8(q0));
    _mm_storeu_si128((__m128i *)(void *)(values + 16), _mm512_cvtepi32_epi8(q1));
    _mm_storeu_si128((__m128i *)(void *)(values + 32), _mm512_cvtepi32_epi8(q2));
    _mm_storeu_si128((__m128i *)(void *)(values + 48), _mm512_cvtepi32_epi8(q3));
    __m512i sum = _mm512_add_epi32(_mm512_add_epi32(q0, q1), _mm512_add_epi32(q2, q3));
    *correction_out = -zero * _mm512_reduce_add_epi32(sum);
}

static inline void q_round_rows(const uint16_t *x, size_t x_stride, int k, int zero,
                                const struct pm_quant_rows *out)
{
    pm_check_rows(x, x_stride, out->rows, k, sizeof *x);
    pm_check_quant_rows(out);
    for (int r = 0; r < out->rows; r++, x += x_stride)
        for (int g = 0; g < out->groups; g++) {
            size_t at = (size_t)g * (size_t)out->rows + (size_t)r;
            int left = k - g * PM_QUANT_GROUP;
            const uint16_t *in = x + g * PM_QUANT_GROUP;
            __mmask32 first = left >= 32 ? 0xffffffffu : (1u << left) - 1u;
            __mmask32 second = left >= 64 ? 0xffffffffu : left > 32 ? (1u << (left - 32)) - 1u : 0;
            q_round_group(_mm512_maskz_loadu_epi16(first, in), _mm512_maskz_loadu_epi16(second, in + 32),
                          zero, out->values + at * PM_QUANT_GROUP, &out->scales[at], &out->corrections[at]);
        }
}

#endif
