/* The bf16 functions of the table "avx512bf16"; the rest of it is that of "avx512". */
#ifndef PM_ENGINE_KERNELS_AVX512BF16_H
#define PM_ENGINE_KERNELS_AVX512BF16_H

#include "engine/kernels/kernels.h"

void pm_avx512bf16_gemm(const struct pm_gemm_bf16 *g);
extern const struct pm_lm_kernels pm_avx512bf16_lm;

#endif
