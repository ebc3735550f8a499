/* The twin of every kernel in plain C: runs anywhere, and is what the others are tested against. */
#include "engine/kernels/plain_lm.h"

#include <math.h>

static float act_one(float x, enum pm_act act)
{
    switch (act) {
    case PM_ACT_RELU:
        return x > 0 ? x : 0;
    case PM_ACT_GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case PM_ACT_SWISH:
        return x / (1.0f + expf(-x));
    case PM_ACT_HSWISH:
        return x * fminf(fmaxf(x + 3.0f, 0.0f), 6.0f) / 6.0f;
    case PM_ACT_SIGMOID:
        return 1.0f / (1.0f + expf(-x));
    case PM_ACT_NONE:
        break;
    }
    return x;
}

static void plain_gemm(const struct pm_gemm *g)
{
    for (int r = 0; r < g->rows; r++) {
        float sum[PM_PANEL];
        const float *w = g->panel;
        for (int j = 0; j < g->width; j++)
            sum[j] = w[j];
        w += g->width;
        for (int t = 0; t < g->taps; t++) {
            const float *x = g->x[t] + (size_t)r * g->x_stride;
            for (int k = 0; k < g->k; k++, w += g->width)
                for (int j = 0; j < g->width; j++)
                    sum[j] += x[k] * w[j];
        }
        float *out = g->out + (size_t)r * g->out_stride;
        const float *residual = g->residual ? g->residual + (size_t)r * g->residual_stride : NULL;
        for (int j = 0; j < g->columns; j++)
            out[j] = act_one(sum[j], g->act) + (residual ? residual[j] : 0.0f);
    }
}

static void plain_depthwise(const struct pm_dw *d)
{
    size_t c_all = (size_t)d->channels;
    size_t c_pad = (c_all + PM_DW_LANES - 1) / PM_DW_LANES * PM_DW_LANES;
    float *out = d->out;
    for (int x = d->x_begin; x < d->x_end; x++, out += c_all) {
        for (size_t c = 0; c < c_all; c++)
            out[c] = d->weights[c];
        for (int ky = 0; ky < d->kh; ky++)
            for (int kx = 0; kx < d->kw; kx++) {
                int ix = x * d->stride_x - d->kw / 2 + kx;
                if (!d->in[ky] || ix < 0 || ix >= d->in_width)
                    continue;
                const float *in = d->in[ky] + (size_t)ix * c_all;
                const float *w = d->weights + (size_t)(1 + ky * d->kw + kx) * c_pad;
                for (size_t c = 0; c < c_all; c++)
                    out[c] += in[c] * w[c];
            }
    }
}

static void plain_activate(float *x, size_t n, enum pm_act act)
{
    for (size_t i = 0; i < n; i++)
        x[i] = act_one(x[i], act);
}

static void plain_scale_rows(float *x, int rows, int channels, const float *gate)
{
    for (int r = 0; r < rows; r++, x += channels)
        for (int c = 0; c < channels; c++)
            x[c] *= gate[c];
}

static void plain_sum_rows(const float *x, int rows, int channels, float *sum)
{
    for (int r = 0; r < rows; r++, x += channels)
        for (int c = 0; c < channels; c++)
            sum[c] += x[c];
}

static void plain_max_2x2(const float *a, const float *b, int pixels, int channels, float *out,
                          size_t out_stride)
{
    for (int p = 0; p < pixels; p++, a += channels, b += channels, out += out_stride)
        for (int c = 0; c < channels; c++)
            out[c] = fmaxf(fmaxf(a[c], a[c + channels]), fmaxf(b[c], b[c + channels]));
}

static void plain_normalise(const uint8_t *bytes, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)bytes[i] * (2.0f / 255.0f) - 1.0f;
}

static float plain_exp_row(float *x, int n)
{
    float top = x[0], sum = 0;
    for (int i = 1; i < n; i++)
        top = fmaxf(top, x[i]);
    for (int i = 0; i < n; i++) {
        x[i] = expf(x[i] - top);
        sum += x[i];
    }
    return sum;
}

static void plain_softmax_step(const float *logits, size_t stride, int rows, int columns, int first_index,
                               struct pm_softmax_lanes *lanes)
{
    for (int r = 0; r < rows; r++, logits += stride, lanes++)
        for (int j = 0; j < columns; j++) {
            int i = j % 16;
            float l = logits[j];
            if (l > lanes->max[i]) {
                lanes->sum[i] *= expf(lanes->max[i] - l);
                lanes->max[i] = l;
                lanes->index[i] = first_index + j;
            }
            lanes->sum[i] += expf(l - lanes->max[i]);
        }
}

const struct pm_kernels pm_kernels_plain = {
    .name = "plain",
    .gemm = plain_gemm,
    .depthwise = plain_depthwise,
    .activate = plain_activate,
    .scale_rows = plain_scale_rows,
    .sum_rows = plain_sum_rows,
    .max_2x2 = plain_max_2x2,
    .normalise = plain_normalise,
    .exp_row = plain_exp_row,
    .softmax_step = plain_softmax_step,
    .gemm_bf16 = pm_plain_gemm_bf16,
    .f32 = &pm_plain_lm_f32,
    .bf16 = &pm_plain_lm_bf16,
    .layer_norm = pm_plain_layer_norm,
    .add_rms_norm = pm_plain_add_rms_norm,
    .rope_interleaved = pm_plain_rope_interleaved,
    .rope_half_split = pm_plain_rope_half_split,
    .quant = &pm_quant_plain,
};
