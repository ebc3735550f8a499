/* AVX-512 (F, VL, BW, DQ): 8 rows x 48 outputs in 24 zmm sums; panels 24 or 8 wide use ymm, which has the
 * same rate of multiply-adds on Zen 4 and wastes no lane. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/kernels/check.h"
#include "engine/kernels/kernels.h"
#include "engine/kernels/plain_lm.h"
#include "engine/kernels/vector_common.h"

PM_INLINE __mmask16 first16(int n)
{
    return n >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1u);
}

PM_INLINE __mmask8 first8(int n)
{
    return n >= 8 ? (__mmask8)0xff : (__mmask8)((1u << n) - 1u);
}

#define TILE_ROWS          8
#define T_LOAD(p)          _mm512_loadu_ps(p)
#define T_STORE(p, v)      _mm512_storeu_ps(p, v)
#define T_SET1(x)          _mm512_set1_ps(x)
#define T_FMA(a, b, c)     _mm512_fmadd_ps(a, b, c)
#define T_ADD(a, b)        _mm512_add_ps(a, b)
#define T_MAX(a, b)        _mm512_max_ps(a, b)
#define T_LOAD_N(p, n)     _mm512_maskz_loadu_ps(first16(n), p)
#define T_STORE_N(p, v, n) _mm512_mask_storeu_ps(p, first16(n), v)
#define TV                 __m512
#define TL                 16
#define TILE(name)         name##_zmm
#include "engine/kernels/gemm_tile.h"
#undef T_LOAD
#undef T_STORE
#undef T_SET1
#undef T_FMA
#undef T_ADD
#undef T_MAX
#undef T_LOAD_N
#undef T_STORE_N
#undef TV
#undef TL
#undef TILE

#define T_LOAD(p)          _mm256_loadu_ps(p)
#define T_STORE(p, v)      _mm256_storeu_ps(p, v)
#define T_SET1(x)          _mm256_set1_ps(x)
#define T_FMA(a, b, c)     _mm256_fmadd_ps(a, b, c)
#define T_ADD(a, b)        _mm256_add_ps(a, b)
#define T_MAX(a, b)        _mm256_max_ps(a, b)
#define T_LOAD_N(p, n)     _mm256_maskz_loadu_ps(first8(n), p)
#define T_STORE_N(p, v, n) _mm256_mask_storeu_ps(p, first8(n), v)
#define TV                 __m256
#define TL                 8
#define TILE(name)         name##_ymm
#include "engine/kernels/gemm_tile.h"

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
#define V_MASK             __mmask16
#define V_GT(a, b)         _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ)
#define V_BITS(m)          ((unsigned)(m))
#define V_BLEND(m, s, c)   _mm512_mask_blend_ps(m, c, s)
#define V_HMAX(v)          _mm512_reduce_max_ps(v)
#define V_HSUM(v)          _mm512_reduce_add_ps(v)
#define V_BYTES(p)                                                                                           \
    _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p))))
#define DW_BLOCK 12
#include "engine/kernels/vector_body.h"

static void avx512_gemm(const struct pm_gemm *g)
{
    pm_check_gemm(g);
    for (int row = 0; row < g->rows; row += TILE_ROWS) {
        int rows = g->rows - row < TILE_ROWS ? g->rows - row : TILE_ROWS;
        switch (g->width) {
        case 48:
            rows3_zmm(g, row, rows, 0);
            break;
        case 32:
            rows2_zmm(g, row, rows, 0);
            break;
        case 24:
            rows3_ymm(g, row, rows, 0);
            break;
        case 16:
            rows1_zmm(g, row, rows, 0);
            break;
        default:
            rows1_ymm(g, row, rows, 0);
            break;
        }
        if (g->act > PM_ACT_RELU)
            finish_block(g, row, rows);
    }
}

const struct pm_kernels pm_kernels_avx512 = {
    .name = "avx512",
    .gemm = avx512_gemm,
    .depthwise = vec_depthwise,
    .activate = vec_activate,
    .scale_rows = vec_scale_rows,
    .sum_rows = vec_sum_rows,
    .max_2x2 = vec_max_2x2,
    .normalise = vec_normalise,
    .exp_row = vec_exp_row,
    .softmax_step = vec_softmax_step,
    .gemm_bf16 = pm_plain_gemm_bf16,
    .f32 = &pm_plain_lm_f32,
    .bf16 = &pm_plain_lm_bf16,
    .layer_norm = pm_plain_layer_norm,
    .add_rms_norm = pm_plain_add_rms_norm,
    .rope_interleaved = pm_plain_rope_interleaved,
    .rope_half_split = pm_plain_rope_half_split,
};
#else
typedef int pm_kernels_avx512_not_on_this_machine;
#endif
