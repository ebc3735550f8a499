/* In sanitizer builds the unrolled vector kernels are compiled without instrumentation (it takes minutes and
 * makes the networks too slow to test); instead every call checks the memory it is about to touch. Nothing in
 * other builds. */
#ifndef PM_ENGINE_KERNELS_CHECK_H
#define PM_ENGINE_KERNELS_CHECK_H

#include <stddef.h>

#include "engine/kernels/kernels.h"

#if defined(PM_SANITIZED)
void pm_check_bytes(const void *data, size_t bytes);
void pm_check_floats(const float *data, size_t count);
/* n values of that size in every row, stride values apart */
void pm_check_rows(const void *data, size_t stride, int rows, int n, size_t value_bytes);
void pm_check_gemm(const struct pm_gemm *g);
void pm_check_depthwise(const struct pm_dw *d);
void pm_check_gemm_bf16(const struct pm_gemm_bf16 *g);
void pm_check_attention(const struct pm_attention *a, bool is_bf16);
void pm_check_quant_rows(const struct pm_quant_rows *rows);
void pm_check_gemm_quant(const struct pm_gemm_quant *g, size_t group_bytes);
#else
static inline void pm_check_bytes(const void *data, size_t bytes)
{
    (void)data;
    (void)bytes;
}
static inline void pm_check_rows(const void *data, size_t stride, int rows, int n, size_t value_bytes)
{
    (void)data;
    (void)stride;
    (void)rows;
    (void)n;
    (void)value_bytes;
}
static inline void pm_check_gemm_bf16(const struct pm_gemm_bf16 *g)
{
    (void)g;
}
static inline void pm_check_attention(const struct pm_attention *a, bool is_bf16)
{
    (void)a;
    (void)is_bf16;
}
static inline void pm_check_quant_rows(const struct pm_quant_rows *rows)
{
    (void)rows;
}
static inline void pm_check_gemm_quant(const struct pm_gemm_quant *g, size_t group_bytes)
{
    (void)g;
    (void)group_bytes;
}
static inline void pm_check_floats(const float *data, size_t count)
{
    (void)data;
    (void)count;
}
static inline void pm_check_gemm(const struct pm_gemm *g)
{
    (void)g;
}
static inline void pm_check_depthwise(const struct pm_dw *d)
{
    (void)d;
}
#endif

#endif
