/* AVX2 and FMA: as without VNNI in AVX-512, with 4 rows x 16 outputs in 8 ymm sums. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "engine/kernels/check.h"
#include "engine/kernels/quant.h"
#include "engine/kernels/quant_scale.h"
#include "engine/kernels/vector_common.h"

PM_INLINE __m256i q_load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

static const int32_t q_masks[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

PM_INLINE __m256i q_first8(int n)
{
    return q_load(q_masks + 8 - (n > 8 ? 8 : n));
}

/* bf16 as floats. */
PM_INLINE __m256 q_widen(__m128i bits)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

/* Four inputs in every lane. */
PM_INLINE __m256i q_four(const int8_t *p)
{
    int32_t bits;
    memcpy(&bits, p, sizeof bits);
    return _mm256_set1_epi32(bits);
}

#define QI                       __m256i
#define Q_IN_ORDER(v)            __asm__ volatile("" : "+x"(v))
#define Q_KEEP(v)                __asm__ volatile("" ::"x"(v))
#define QL                       8
#define QF                       __m256
#define Q_SET1(n)                _mm256_set1_epi32(n)
#define Q_LOAD(p)                q_load(p)
#define Q_FLOAT(i)               _mm256_cvtepi32_ps(i)
#define Q_FLOAT_LOAD(p)          _mm256_loadu_ps(p)
#define Q_FLOAT_STORE(p, f)      _mm256_storeu_ps(p, f)
#define Q_FLOAT_SET1(x)          _mm256_set1_ps(x)
#define Q_MUL(a, b)              _mm256_mul_ps(a, b)
#define Q_ADD(a, b)              _mm256_add_ps(a, b)
#define Q_FMA(a, b, c)           _mm256_fmadd_ps(a, b, c)
#define Q_FLOAT_LOAD_N(p, n)     _mm256_maskload_ps(p, q_first8(n))
#define Q_FLOAT_STORE_N(p, f, n) _mm256_maskstore_ps(p, q_first8(n), f)
#define Q_SCALES(p)              q_widen(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define Q_LOW4(v)                _mm256_and_si256(v, _mm256_set1_epi8(15))
#define Q_HIGH4(v)               _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(15))

/* Bytes 0 and 2 of every four, and bytes 1 and 3, as 16-bit values. */
struct q_wide {
    __m256i even, odd;
};

PM_INLINE struct q_wide q_wide_weights(__m256i v)
{
    return (struct q_wide){_mm256_and_si256(v, _mm256_set1_epi16(255)), _mm256_srli_epi16(v, 8)};
}

PM_INLINE __m256i q_step_wide(__m256i sum, struct q_wide w, __m256i x)
{
    __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), odd = _mm256_srai_epi16(x, 8);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(w.even, even));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(w.odd, odd));
}

PM_INLINE __m256i q_step_small(__m256i sum, __m256i w, __m256i x)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}

#define Q(name)           name##_int8
#define Q_BITS            8
#define QX                __m256i
#define QW                struct q_wide
#define Q_LOAD_X(p)       q_four(p)
#define Q_WEIGHTS(v)      q_wide_weights(v)
#define Q_STEP(sum, w, x) q_step_wide(sum, w, x)
#define Q_PACE            0
#define TILE_M            4
#define TILE_V            2
#include "engine/kernels/quant_body.h"

#define Q(name)           name##_int4
#define Q_BITS            4
#define QX                __m256i
#define QW                __m256i
#define Q_LOAD_X(p)       q_four(p)
#define Q_STEP(sum, w, x) q_step_small(sum, w, x)
#define Q_PACE            0
#define TILE_M            4
#define TILE_V            2
#include "engine/kernels/quant_body.h"

/* ---- rounding of rows ---- */

PM_INLINE unsigned q_largest(const uint16_t *x)
{
    __m256i magnitude = _mm256_set1_epi16(0x7fff), most = _mm256_setzero_si256();
    for (int i = 0; i < PM_QUANT_GROUP; i += 16)
        most = _mm256_max_epu16(most, _mm256_and_si256(q_load(x + i), magnitude));
    __m128i eight = _mm_max_epu16(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    __m128i least = _mm_minpos_epu16(_mm_xor_si128(eight, _mm_set1_epi16(-1)));
    return (unsigned)_mm_extract_epi16(least, 0) ^ 0xffffu;
}

PM_INLINE __m256i q_round8(const uint16_t *x, __m256 inverse)
{
    __m128i bits = _mm_loadu_si128((const __m128i *)(const void *)x);
    return _mm256_cvtps_epi32(_mm256_mul_ps(q_widen(bits), inverse));
}

PM_INLINE int32_t q_round_values(const uint16_t *x, float by, int8_t *values)
{
    __m256 inverse = _mm256_set1_ps(by);
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < PM_QUANT_GROUP; i += 32) {
        __m256i a = q_round8(x + i, inverse), b = q_round8(x + i + 8, inverse);
        __m256i c = q_round8(x + i + 16, inverse), d = q_round8(x + i + 24, inverse);
        sum = _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d)));
        /* packs works in halves of 128 bits: fours of values come out in the order 0 2 4 6 1 3 5 7 */
        __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(void *)(values + i), bytes);
    }
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

static void q_round_rows(const uint16_t *x, size_t x_stride, int k, int zero, const struct pm_quant_rows *out)
{
    pm_check_rows(x, x_stride, out->rows, k, sizeof *x);
    pm_check_quant_rows(out);
    for (int r = 0; r < out->rows; r++, x += x_stride)
        for (int g = 0; g < out->groups; g++) {
            size_t at = (size_t)g * (size_t)out->rows + (size_t)r;
            int left = k - g * PM_QUANT_GROUP;
            const uint16_t *in = x + g * PM_QUANT_GROUP;
            uint16_t filled[PM_QUANT_GROUP] = {0};
            if (left < PM_QUANT_GROUP)
                in = memcpy(filled, in, (size_t)left * sizeof *in);
            struct pm_quant_scale scale = pm_quant_scale(q_largest(in));
            int8_t *values = out->values + at * PM_QUANT_GROUP;
            out->scales[at] = scale.scale;
            out->corrections[at] = 0;
            if (scale.inverse > 0)
                out->corrections[at] = -zero * q_round_values(in, scale.inverse, values);
            else
                memset(values, 0, PM_QUANT_GROUP);
        }
}

const struct pm_quant_kernels pm_quant_avx2 = {
    .round_rows = q_round_rows,
    .gemm_int8 = gemm_int8,
    .gemm_int4 = gemm_int4,
};
#else
typedef int pm_quant_avx2_not_on_this_machine;
#endif
