/* AVX-512 (F, VL, BW, DQ): 8 rows x 48 outputs in 24 zmm sums; panels 24 or 8 wide use ymm, which has the
 * same rate of multiply-adds on Zen 4 and wastes no lane. */
#if defined(__x86_64__)
#include <math.h>
#include <string.h>

#include "engine/kernels/avx512bf16.h"
#include "engine/kernels/check.h"
#include "engine/kernels/kernels.h"
#include "engine/kernels/vector_avx512.h"

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

#define DW_BLOCK 12
#include "engine/kernels/vector_body.h"

/* ---- language models ---- */

#define LM_EXP2_LOW (-160.0f)
#include "engine/kernels/lm_math.h"
#include "engine/kernels/lm_residual.h"

#define LM(name)    name##_f32
#define TILE_M      6
#define TILE_V      4
#define TILE_WIDE_M 3
#include "engine/kernels/lm_f32.h"

/* Without a dot product of pairs, bf16 is widened: 16 sums, 8 weights, 2 inputs. */
struct pair {
    __m512 first, second;
};

PM_INLINE struct pair widen(__m512i bits)
{
    return (struct pair){
        _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)),
        _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32((int)0xffff0000u))),
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
#define TILE_V      4
#define TILE_WIDE_M 2
#define PB_LOAD(p)  widen(_mm512_loadu_si512(p))
#define PX_LOAD(p)  widen(_mm512_set1_epi32(load_pair(p)))
#include "engine/kernels/lm_bf16_widened.h"

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

#define SHARED                                                                                               \
    .gemm = avx512_gemm, .depthwise = vec_depthwise, .activate = vec_activate, .scale_rows = vec_scale_rows, \
    .sum_rows = vec_sum_rows, .max_2x2 = vec_max_2x2, .normalise = vec_normalise, .exp_row = vec_exp_row,    \
    .softmax_step = vec_softmax_step, .f32 = &lm_kernels_f32, .layer_norm = vec_layer_norm,                  \
    .add_rms_norm = vec_add_rms_norm, .rope_interleaved = vec_rope_interleaved,                              \
    .rope_half_split = vec_rope_half_split

const struct pm_kernels pm_kernels_avx512 = {
    .name = "avx512",
    SHARED,
    .gemm_bf16 = gemm_bf16,
    .bf16 = &lm_kernels_bf16,
    .quant = &pm_quant_avx512,
};

/* The same with the integer products of quant_avx512vnni.c. */
const struct pm_kernels pm_kernels_avx512vnni = {
    .name = "avx512vnni",
    SHARED,
    .gemm_bf16 = gemm_bf16,
    .bf16 = &lm_kernels_bf16,
    .quant = &pm_quant_avx512vnni,
};

/* The same with the bf16 functions of avx512bf16.c, too. */
const struct pm_kernels pm_kernels_avx512bf16 = {
    .name = "avx512bf16",
    SHARED,
    .gemm_bf16 = pm_avx512bf16_gemm,
    .bf16 = &pm_avx512bf16_lm,
    .quant = &pm_quant_avx512vnni,
};
#else
typedef int pm_kernels_avx512_not_on_this_machine;
#endif
