/* AVX-512 with VNNI: vpdpbusd adds four products of an unsigned and a signed byte to each of 16 sums. 4 rows
 * x 64 outputs in 16 zmm sums. GCC 12 spills around its intrinsic, so the instruction is written out. */
#if defined(__x86_64__)
#include "engine/kernels/quant_vector_avx512.h"

PM_INLINE __m512i q_dot(__m512i sum, __m512i weights, __m512i inputs)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(inputs));
    return sum;
}

#define Q(name)           name##_int8
#define Q_BITS            8
#define QX                __m512i
#define QW                __m512i
#define Q_LOAD_X(p)       q_four(p)
#define Q_WEIGHTS(v)      v
#define Q_STEP(sum, w, x) q_dot(sum, w, x)
#define Q_PACE            3
#define TILE_M            4
#define TILE_V            4
#include "engine/kernels/quant_body.h"

#define Q(name)           name##_int4
#define Q_BITS            4
#define QX                __m512i
#define QW                __m512i
#define Q_LOAD_X(p)       q_four(p)
#define Q_STEP(sum, w, x) q_dot(sum, w, x)
#define Q_PACE            0
#define TILE_M            4
#define TILE_V            4
#include "engine/kernels/quant_body.h"

const struct pm_quant_kernels pm_quant_avx512vnni = {
    .round_rows = q_round_rows,
    .gemm_int8 = gemm_int8,
    .gemm_int4 = gemm_int4,
};
#else
typedef int pm_quant_avx512vnni_not_on_this_machine;
#endif
