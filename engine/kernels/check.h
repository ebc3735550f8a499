/* In sanitizer builds the unrolled vector kernels are compiled without instrumentation (it takes minutes and
 * makes the networks too slow to test); instead every call checks the memory it is about to touch. Nothing in
 * other builds. */
#ifndef PM_ENGINE_KERNELS_CHECK_H
#define PM_ENGINE_KERNELS_CHECK_H

#include <stddef.h>

#include "engine/kernels/kernels.h"

#if defined(PM_SANITIZED)
void pm_check_floats(const float *data, size_t count);
void pm_check_gemm(const struct pm_gemm *g);
void pm_check_depthwise(const struct pm_dw *d);
#else
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
