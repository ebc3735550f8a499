/* The language-model kernels in plain C, for the table "plain" and as the twins of the others. */
#ifndef PM_ENGINE_KERNELS_PLAIN_LM_H
#define PM_ENGINE_KERNELS_PLAIN_LM_H

#include "engine/kernels/kernels.h"

void pm_plain_gemm_bf16(const struct pm_gemm_bf16 *g);
void pm_plain_layer_norm(float *x, size_t stride, int rows, int n, const float *weight, const float *bias,
                         float eps);
void pm_plain_add_rms_norm(const float *x, size_t x_stride, int rows, int n, const float *weight, float eps,
                           float *out, size_t out_stride);
void pm_plain_rope_interleaved(float *x, int heads, int dim, int pairs, const float *cosines,
                               const float *sines);
void pm_plain_rope_half_split(float *x, int heads, int dim, int pairs, const float *cosines,
                              const float *sines);
extern const struct pm_lm_kernels pm_plain_lm_f32, pm_plain_lm_bf16;

#endif
