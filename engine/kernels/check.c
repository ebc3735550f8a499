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
void pm_check_bytes(const void *data, size_t bytes)
{
    void *bad = __asan_region_is_poisoned((void *)(uintptr_t)data, bytes);
    if (bad)
        (void)*(volatile const char *)bad;
}
#else
void pm_check_bytes(const void *data, size_t bytes)
{
    (void)data;
    (void)bytes;
}
#endif

void pm_check_floats(const float *data, size_t count)
{
    pm_check_bytes(data, count * sizeof *data);
}

void pm_check_rows(const void *data, size_t stride, int rows, int n, size_t value_bytes)
{
    for (int r = 0; r < rows; r++)
        pm_check_bytes((const char *)data + (size_t)r * stride * value_bytes, (size_t)n * value_bytes);
}

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

void pm_check_gemm_bf16(const struct pm_gemm_bf16 *g)
{
    int pairs = (g->k + 1) / 2;
    pm_check_bytes(g->panel, (size_t)pairs * 2 * PM_PANEL_BF16 * sizeof *g->panel);
    pm_check_rows(g->x, g->x_stride, g->rows, 2 * pairs, sizeof *g->x);
    pm_check_rows(g->out, g->out_stride, g->rows, g->columns, sizeof *g->out);
    if (g->bias)
        pm_check_floats(g->bias, PM_PANEL_BF16);
}

void pm_check_attention(const struct pm_attention *a, bool is_bf16)
{
    size_t value_bytes = is_bf16 ? sizeof(uint16_t) : sizeof(float);
    size_t heads = a->heads ? (size_t)a->heads : 1;
    for (size_t h = 0; h < heads; h++) {
        pm_check_rows((const char *)a->q + h * a->q_head_stride * value_bytes, a->q_stride, a->rows, a->dim,
                      value_bytes);
        pm_check_rows((const char *)a->out + h * a->out_head_stride * value_bytes, a->out_stride, a->rows,
                      a->dim, value_bytes);
    }
    int last = 0;
    for (int r = 0; r < a->rows; r++)
        last = a->limits[r] > last ? a->limits[r] : last;
    for (int block = 0; block * PM_ATTENTION_BLOCK < last; block++) {
        pm_check_bytes(a->keys[block], heads * pm_key_block_bytes(a->dim, is_bf16));
        pm_check_bytes(a->values[block], heads * pm_value_block_bytes(a->dim, is_bf16));
    }
}

void pm_check_quant_rows(const struct pm_quant_rows *rows)
{
    size_t pieces = (size_t)rows->rows * (size_t)rows->groups;
    pm_check_bytes(rows->values, pieces * PM_QUANT_GROUP);
    pm_check_floats(rows->scales, pieces);
    pm_check_bytes(rows->corrections, pieces * sizeof *rows->corrections);
}

void pm_check_gemm_quant(const struct pm_gemm_quant *g, size_t group_bytes)
{
    pm_check_quant_rows(g->x);
    pm_check_bytes(g->panel, (size_t)g->x->groups * group_bytes);
    pm_check_rows(g->out, g->out_stride, g->x->rows, g->columns, sizeof *g->out);
    if (g->bias)
        pm_check_floats(g->bias, PM_PANEL_QUANT);
}
#else
typedef int pm_kernels_check_only_in_sanitizer_builds;
#endif
