/* AVX2 and FMA: 4 rows x 24 outputs in 12 ymm sums; a 48-wide panel is two passes over its halves. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "engine/kernels/check.h"
#include "engine/kernels/kernels.h"
#include "engine/kernels/vector_common.h"

static const int32_t lane_masks[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

PM_INLINE __m256i first8(int n)
{
    n = n > 8 ? 8 : n;
    return _mm256_loadu_si256((const __m256i *)(const void *)(lane_masks + 8 - n));
}

PM_INLINE __m256 v_lane_numbers(void)
{
    return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
}

PM_INLINE __m256 v_scale2(__m256 v, __m256 n)
{
    __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(v, _mm256_castsi256_ps(bits));
}

PM_INLINE __m256 v_low2(__m256 v)
{
    return _mm256_max_ps(v, _mm256_set1_ps(-127.0f));
}

PM_INLINE float v_hmax(__m256 v)
{
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps(a, a, 1)));
}

PM_INLINE float v_hsum(__m256 v)
{
    __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps(a, a, 1)));
}

#define TILE_ROWS          4
#define T_LOAD(p)          _mm256_loadu_ps(p)
#define T_STORE(p, v)      _mm256_storeu_ps(p, v)
#define T_SET1(x)          _mm256_set1_ps(x)
#define T_FMA(a, b, c)     _mm256_fmadd_ps(a, b, c)
#define T_ADD(a, b)        _mm256_add_ps(a, b)
#define T_MAX(a, b)        _mm256_max_ps(a, b)
#define T_LOAD_N(p, n)     _mm256_maskload_ps(p, first8(n))
#define T_STORE_N(p, v, n) _mm256_maskstore_ps(p, first8(n), v)
#define TV                 __m256
#define TL                 8
#define TILE(name)         name##_ymm
#include "engine/kernels/gemm_tile.h"

#define VF                 __m256
#define VL                 8
#define V_LOAD(p)          _mm256_loadu_ps(p)
#define V_STORE(p, v)      _mm256_storeu_ps(p, v)
#define V_SET1(x)          _mm256_set1_ps(x)
#define V_ADD(a, b)        _mm256_add_ps(a, b)
#define V_SUB(a, b)        _mm256_sub_ps(a, b)
#define V_MUL(a, b)        _mm256_mul_ps(a, b)
#define V_DIV(a, b)        _mm256_div_ps(a, b)
#define V_MAX(a, b)        _mm256_max_ps(a, b)
#define V_MIN(a, b)        _mm256_min_ps(a, b)
#define V_FMA(a, b, c)     _mm256_fmadd_ps(a, b, c)
#define V_FNMA(a, b, c)    _mm256_fnmadd_ps(a, b, c)
#define V_LOAD_N(p, n)     _mm256_maskload_ps(p, first8(n))
#define V_STORE_N(p, v, n) _mm256_maskstore_ps(p, first8(n), v)
#define V_ROUND(v)         _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define V_SCALE2(v, n)     v_scale2(v, n)
/* The parts of an exponential of two (lm_math.h): x below -127 counts as -127, which makes 0. */
#define V_SPLIT2(x)          _mm256_sub_ps(v_low2(x), _mm256_floor_ps(v_low2(x)))
#define V_SCALE2_FLOOR(v, x) v_scale2(v, _mm256_floor_ps(v_low2(x)))
#define V_MASK               __m256
#define V_GT(a, b)           _mm256_cmp_ps(a, b, _CMP_GT_OQ)
#define V_BITS(m)            ((unsigned)_mm256_movemask_ps(m))
#define V_BLEND(m, s, c)     _mm256_blendv_ps(c, s, m)
#define V_HMAX(v)            v_hmax(v)
#define V_HSUM(v)            v_hsum(v)
#define V_BYTES(p)                                                                                           \
    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(p))))
#define V_FIRST(v) _mm256_cvtss_f32(v)
#define DW_BLOCK   8
#include "engine/kernels/vector_body.h"

/* ---- language models ---- */

/* Lanes 0, 0, 1, 1, 2, 2, 3, 3. */
PM_INLINE __m256 v_twice(__m256 v)
{
    return _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}

PM_INLINE __m256 v_swap_pairs(__m256 v)
{
    return _mm256_permute_ps(v, 0xb1);
}

/* v c - t in even lanes, v c + t in odd ones. */
PM_INLINE __m256 v_turn(__m256 v, __m256 c, __m256 t)
{
    return _mm256_fmaddsub_ps(v, c, t);
}

/* Nearest bf16, ties to even, as an f32. */
PM_INLINE __m256 v_round_bf16(__m256 v)
{
    __m256i bits = _mm256_castps_si256(v), one = _mm256_set1_epi32(1);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
    __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256 nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
    __m256 rounded = _mm256_blendv_ps(_mm256_castsi256_ps(up), _mm256_castsi256_ps(quiet), nan);
    return _mm256_and_ps(rounded, _mm256_castsi256_ps(_mm256_set1_epi32((int)0xffff0000u)));
}

/* The upper halves of the first n lanes. */
PM_INLINE void v_put_upper(uint16_t *p, __m256 v, int n)
{
    __m256i low = _mm256_srli_epi32(_mm256_castps_si256(v), 16);
    __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    if (n >= 8) {
        _mm_storeu_si128((__m128i *)(void *)p, packed);
    } else {
        uint16_t lanes[8];
        _mm_storeu_si128((__m128i *)(void *)lanes, packed);
        memcpy(p, lanes, (size_t)n * sizeof *p);
    }
}

/* v_scale2 makes an exact 0 of the exponent -127. */
#define LM_EXP2_LOW (-127.0f)
#include "engine/kernels/lm_math.h"
#include "engine/kernels/lm_residual.h"

/* 12 sums, 2 weights, 1 input. */
#define LM(name)    name##_f32
#define TILE_M      6
#define TILE_V      2
#define TILE_WIDE_M 1
#include "engine/kernels/lm_f32.h"

/* bf16 widened: 8 sums, 4 weights, 2 inputs. */
struct pair {
    __m256 first, second;
};

PM_INLINE struct pair widen(__m256i bits)
{
    return (struct pair){
        _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16)),
        _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32((int)0xffff0000u))),
    };
}

PM_INLINE int32_t load_pair(const uint16_t *p)
{
    int32_t bits;
    memcpy(&bits, p, sizeof bits);
    return bits;
}

#define LM(name)    name##_bf16
#define TILE_M      4
#define TILE_V      2
#define TILE_WIDE_M 1
#define PB_LOAD(p)  widen(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define PX_LOAD(p)  widen(_mm256_set1_epi32(load_pair(p)))
#include "engine/kernels/lm_bf16_widened.h"

static void avx2_gemm(const struct pm_gemm *g)
{
    pm_check_gemm(g);
    for (int row = 0; row < g->rows; row += TILE_ROWS) {
        int rows = g->rows - row < TILE_ROWS ? g->rows - row : TILE_ROWS;
        switch (g->width) {
        case 48:
            rows3_ymm(g, row, rows, 0);
            rows3_ymm(g, row, rows, 24);
            break;
        case 32:
            rows2_ymm(g, row, rows, 0);
            rows2_ymm(g, row, rows, 16);
            break;
        case 24:
            rows3_ymm(g, row, rows, 0);
            break;
        case 16:
            rows2_ymm(g, row, rows, 0);
            break;
        default:
            rows1_ymm(g, row, rows, 0);
            break;
        }
        if (g->act > PM_ACT_RELU)
            finish_block(g, row, rows);
    }
}

const struct pm_kernels pm_kernels_avx2 = {
    .name = "avx2",
    .gemm = avx2_gemm,
    .depthwise = vec_depthwise,
    .activate = vec_activate,
    .scale_rows = vec_scale_rows,
    .sum_rows = vec_sum_rows,
    .max_2x2 = vec_max_2x2,
    .normalise = vec_normalise,
    .exp_row = vec_exp_row,
    .softmax_step = vec_softmax_step,
    .gemm_bf16 = gemm_bf16,
    .f32 = &lm_kernels_f32,
    .bf16 = &lm_kernels_bf16,
    .layer_norm = vec_layer_norm,
    .add_rms_norm = vec_add_rms_norm,
    .rope_interleaved = vec_rope_interleaved,
    .rope_half_split = vec_rope_half_split,
    .quant = &pm_quant_avx2,
};
#else
typedef int pm_kernels_avx2_not_on_this_machine;
#endif
