#include "engine/kernels/check.h"

#if defined(PM_SANITIZED)
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PM_HAS_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define PM_HAS_ASAN 1
#endif

#if defined(PM_HAS_ASAN)
#include <sanitizer/asan_interface.h>

/* Reads the first byte outside what is allowed, so that the sanitizer reports it with its stacks. */
void pm_check_floats(const float *data, size_t count)
{
    void *bad = __asan_region_is_poisoned((void *)(uintptr_t)data, count * sizeof(float));
    if (bad)
        (void)*(volatile const char *)bad;
}
#else
void pm_check_floats(const float *data, size_t count)
{
    (void)data;
    (void)count;
}
#endif

void pm_check_gemm(const struct pm_gemm *g)
{
    pm_check_floats(g->panel, ((size_t)g->taps * (size_t)g->k + 1) * (size_t)g->width);
    for (int r = 0; r < g->rows; r++) {
        for (int t = 0; t < g->taps; t++)
            pm_check_floats(g->x[t] + (size_t)r * g->x_stride, (size_t)g->k);
        pm_check_floats(g->out + (size_t)r * g->out_stride, (size_t)g->columns);
        if (g->residual)
            pm_check_floats(g->residual + (size_t)r * g->residual_stride, (size_t)g->columns);
    }
}

void pm_check_depthwise(const struct pm_dw *d)
{
    size_t channels = (size_t)d->channels;
    for (int ky = 0; ky < d->kh; ky++)
        if (d->in[ky])
            pm_check_floats(d->in[ky], (size_t)d->in_width * channels);
    pm_check_floats(d->weights,
                    (size_t)(1 + d->kh * d->kw) * ((channels + PM_DW_LANES - 1) / PM_DW_LANES) * PM_DW_LANES);
    pm_check_floats(d->out, (size_t)(d->x_end - d->x_begin) * channels);
}
#else
typedef int pm_kernels_check_only_in_sanitizer_builds;
#endif
