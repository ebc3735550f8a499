/* The integer products in plain C: what the vector tables have to match to the last bit. */
#include <math.h>
#include <string.h>

#include "engine/kernels/bf16.h"
#include "engine/kernels/quant.h"
#include "engine/kernels/quant_scale.h"

enum { GROUP = PM_QUANT_GROUP, N = PM_PANEL_QUANT };

static void plain_round_rows(const uint16_t *x, size_t x_stride, int k, int zero,
                             const struct pm_quant_rows *out)
{
    for (int r = 0; r < out->rows; r++, x += x_stride)
        for (int g = 0; g < out->groups; g++) {
            size_t at = (size_t)g * (size_t)out->rows + (size_t)r;
            int count = k - g * GROUP < GROUP ? k - g * GROUP : GROUP;
            const uint16_t *in = x + g * GROUP;
            int8_t *values = out->values + at * GROUP;
            unsigned largest = 0;
            for (int i = 0; i < count; i++)
                largest = (in[i] & 0x7fffu) > largest ? in[i] & 0x7fffu : largest;
            struct pm_quant_scale scale = pm_quant_scale(largest);
            int32_t sum = 0;
            memset(values, 0, GROUP);
            for (int i = 0; scale.inverse > 0 && i < count; i++) {
                values[i] = (int8_t)rintf(pm_bf16_to_f32(in[i]) * scale.inverse);
                sum += values[i];
            }
            out->scales[at] = scale.scale;
            out->corrections[at] = -zero * sum;
        }
}

static void gemm(const struct pm_gemm_quant *g, size_t group_bytes, bool is_int4)
{
    const struct pm_quant_rows *x = g->x;
    for (int r = 0; r < x->rows; r++) {
        float sums[N];
        for (int j = 0; j < N; j++)
            sums[j] = g->bias ? g->bias[j] : 0.0f;
        const uint8_t *group = g->panel;
        for (int i = 0; i < x->groups; i++, group += group_bytes) {
            size_t at = (size_t)i * (size_t)x->rows + (size_t)r;
            const int8_t *values = x->values + at * GROUP;
            const uint8_t *w = group + PM_QUANT_SCALE_BYTES;
            int32_t total[N];
            for (int j = 0; j < N; j++)
                total[j] = x->corrections[at];
            for (int t = 0; t < GROUP / 4; t++) {
                int shift = is_int4 && t >= GROUP / 8 ? 4 : 0, mask = is_int4 ? 15 : 255;
                const uint8_t *from = w + (is_int4 ? t % (GROUP / 8) : t) * N * 4;
                for (int j = 0; j < N; j++)
                    for (int b = 0; b < 4; b++)
                        total[j] += (from[4 * j + b] >> shift & mask) * values[4 * t + b];
            }
            for (int j = 0; j < N; j++) {
                uint16_t stored;
                memcpy(&stored, group + 2 * j, sizeof stored);
                sums[j] = fmaf((float)total[j], pm_bf16_to_f32(stored) * x->scales[at], sums[j]);
            }
        }
        float *out = g->out + (size_t)r * g->out_stride;
        for (int j = 0; j < g->columns; j++)
            out[j] = g->add ? out[j] + sums[j] : sums[j];
    }
}

static void plain_gemm_int8(const struct pm_gemm_quant *g)
{
    gemm(g, PM_INT8_GROUP_BYTES, false);
}

static void plain_gemm_int4(const struct pm_gemm_quant *g)
{
    gemm(g, PM_INT4_GROUP_BYTES, true);
}

const struct pm_quant_kernels pm_quant_plain = {
    .round_rows = plain_round_rows,
    .gemm_int8 = plain_gemm_int8,
    .gemm_int4 = plain_gemm_int4,
};
