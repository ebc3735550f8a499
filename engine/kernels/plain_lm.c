/* The twins of the language-model kernels in plain C. One row at a time: independence of rows is plain to see
 * here, the vector tables have to match it. */
#include "engine/kernels/plain_lm.h"

#include <math.h>

#include "engine/kernels/bf16.h"

static size_t pad16(int dim)
{
    return ((size_t)dim + 15) / 16 * 16;
}

size_t pm_key_block_bytes(int dim, bool is_bf16)
{
    size_t values = is_bf16 ? ((size_t)dim + 1) / 2 * 2 : (size_t)dim;
    return values * PM_ATTENTION_BLOCK * (is_bf16 ? sizeof(uint16_t) : sizeof(float));
}

size_t pm_value_block_bytes(int dim, bool is_bf16)
{
    return pad16(dim) * PM_ATTENTION_BLOCK * (is_bf16 ? sizeof(uint16_t) : sizeof(float));
}

/* ---- products ---- */

void pm_plain_gemm_bf16(const struct pm_gemm_bf16 *g)
{
    enum { N = PM_PANEL_BF16 };
    for (int r = 0; r < g->rows; r++) {
        const uint16_t *x = g->x + (size_t)r * g->x_stride, *w = g->panel;
        float sum[N];
        for (int j = 0; j < N; j++)
            sum[j] = g->bias ? g->bias[j] : 0.0f;
        for (int i = 0; i < (g->k + 1) / 2; i++, w += 2 * N) {
            float first = pm_bf16_to_f32(x[2 * i]), second = pm_bf16_to_f32(x[2 * i + 1]);
            for (int j = 0; j < N; j++) {
                sum[j] += first * pm_bf16_to_f32(w[2 * j]);
                sum[j] += second * pm_bf16_to_f32(w[2 * j + 1]);
            }
        }
        float *out = g->out + (size_t)r * g->out_stride;
        for (int j = 0; j < g->columns; j++)
            out[j] = g->add ? out[j] + sum[j] : sum[j];
    }
}

/* ---- norms, gates, conversions ---- */

/* Writes one row of activations. */
static void put_f32(float *out, int n, size_t out_stride, const float *x, float factor, const float *weight)
{
    (void)out_stride;
    for (int i = 0; i < n; i++)
        out[i] = weight ? x[i] * factor * weight[i] : x[i];
}

static void put_bf16(uint16_t *out, int n, size_t out_stride, const float *x, float factor,
                     const float *weight)
{
    for (int i = 0; i < n; i++)
        out[i] = pm_bf16_from_f32(weight ? x[i] * factor * weight[i] : x[i]);
    if (n % 2 && (size_t)n < out_stride)
        out[n] = 0;
}

static float rms_factor(const float *x, int n, float eps)
{
    double sum = 0; /* one chain: in f32 it would be less exact than the lanes of the vector tables */
    for (int i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return (float)(1.0 / sqrt(sum / n + (double)eps));
}

static float silu(float x)
{
    return x / (1.0f + expf(-x));
}

static void f32_rms_norm(const float *x, size_t x_stride, int rows, int n, const float *weight, float eps,
                         void *out, size_t out_stride)
{
    for (int r = 0; r < rows; r++, x += x_stride)
        put_f32((float *)out + (size_t)r * out_stride, n, out_stride, x, rms_factor(x, n, eps), weight);
}

static void bf16_rms_norm(const float *x, size_t x_stride, int rows, int n, const float *weight, float eps,
                          void *out, size_t out_stride)
{
    for (int r = 0; r < rows; r++, x += x_stride)
        put_bf16((uint16_t *)out + (size_t)r * out_stride, n, out_stride, x, rms_factor(x, n, eps), weight);
}

static void f32_gate(const float *x, size_t x_stride, int rows, int n, void *out, size_t out_stride)
{
    for (int r = 0; r < rows; r++, x += x_stride) {
        float *o = (float *)out + (size_t)r * out_stride;
        for (int i = 0; i < n; i++)
            o[i] = silu(x[i]) * x[n + i];
    }
}

static void bf16_gate(const float *x, size_t x_stride, int rows, int n, void *out, size_t out_stride)
{
    for (int r = 0; r < rows; r++, x += x_stride) {
        uint16_t *o = (uint16_t *)out + (size_t)r * out_stride;
        for (int i = 0; i < n; i++)
            o[i] = pm_bf16_from_f32(silu(x[i]) * x[n + i]);
        if (n % 2 && (size_t)n < out_stride)
            o[n] = 0;
    }
}

static void f32_convert(const float *x, size_t x_stride, int rows, int n, void *out, size_t out_stride)
{
    for (int r = 0; r < rows; r++, x += x_stride)
        put_f32((float *)out + (size_t)r * out_stride, n, out_stride, x, 1, NULL);
}

static void bf16_convert(const float *x, size_t x_stride, int rows, int n, void *out, size_t out_stride)
{
    for (int r = 0; r < rows; r++, x += x_stride)
        put_bf16((uint16_t *)out + (size_t)r * out_stride, n, out_stride, x, 1, NULL);
}

void pm_plain_layer_norm(float *x, size_t stride, int rows, int n, const float *weight, const float *bias,
                         float eps)
{
    for (int r = 0; r < rows; r++, x += stride) {
        double sum = 0, squares = 0;
        for (int i = 0; i < n; i++)
            sum += (double)x[i];
        float mean = (float)(sum / n);
        for (int i = 0; i < n; i++)
            squares += ((double)x[i] - (double)mean) * ((double)x[i] - (double)mean);
        float factor = (float)(1.0 / sqrt(squares / n + (double)eps));
        for (int i = 0; i < n; i++)
            x[i] = (x[i] - mean) * factor * weight[i] + bias[i];
    }
}

void pm_plain_add_rms_norm(const float *x, size_t x_stride, int rows, int n, const float *weight, float eps,
                           float *out, size_t out_stride)
{
    for (int r = 0; r < rows; r++, x += x_stride, out += out_stride) {
        float factor = rms_factor(x, n, eps);
        for (int i = 0; i < n; i++)
            out[i] += x[i] * factor * weight[i];
    }
}

void pm_plain_rope_interleaved(float *x, int heads, int dim, int pairs, const float *cosines,
                               const float *sines)
{
    for (int h = 0; h < heads; h++, x += dim)
        for (int p = 0; p < pairs; p++) {
            float a = x[2 * p], b = x[2 * p + 1];
            x[2 * p] = a * cosines[p] - b * sines[p];
            x[2 * p + 1] = b * cosines[p] + a * sines[p];
        }
}

void pm_plain_rope_half_split(float *x, int heads, int dim, int pairs, const float *cosines,
                              const float *sines)
{
    for (int h = 0; h < heads; h++, x += dim)
        for (int p = 0; p < pairs; p++) {
            float a = x[p], b = x[p + pairs];
            x[p] = a * cosines[p] - b * sines[p];
            x[p + pairs] = b * cosines[p] + a * sines[p];
        }
}

/* ---- attention ---- */

enum { BLOCK = PM_ATTENTION_BLOCK };

/* State of one row between blocks: the largest score, the sum of probabilities relative to it, the sum of
 * probabilities times values. */
struct online {
    float top, sum, out[PM_HEAD_DIM_MAX];
};

/* Scores of one block become probabilities; what was summed before is scaled to the new largest score. */
static void soften(struct online *o, float *scores, int count, float scale, int dim)
{
    float top = o->top;
    for (int j = 0; j < count; j++)
        top = fmaxf(top, scores[j]);
    float rescale = expf((o->top - top) * scale);
    o->top = top;
    o->sum *= rescale;
    for (int d = 0; d < dim; d++)
        o->out[d] *= rescale;
    for (int j = 0; j < count; j++)
        scores[j] = expf((scores[j] - top) * scale);
}

static void f32_attend_head(const struct pm_attention *a, int head)
{
    size_t width = pad16(a->dim), key_values = (size_t)a->dim * BLOCK;
    for (int r = 0; r < a->rows; r++) {
        const float *q = (const float *)a->q + (size_t)head * a->q_head_stride + (size_t)r * a->q_stride;
        struct online o = {.top = -INFINITY};
        for (int first = 0; first < a->limits[r]; first += BLOCK) {
            int count = a->limits[r] - first < BLOCK ? a->limits[r] - first : BLOCK;
            const float *keys = (const float *)a->keys[first / BLOCK] + (size_t)head * key_values;
            const float *values = (const float *)a->values[first / BLOCK] + (size_t)head * width * BLOCK;
            float scores[BLOCK] = {0};
            for (int d = 0; d < a->dim; d++)
                for (int j = 0; j < BLOCK; j++)
                    scores[j] += q[d] * keys[d * BLOCK + j];
            soften(&o, scores, count, a->scale, a->dim);
            for (int j = 0; j < count; j++, values += width) {
                o.sum += scores[j];
                for (int d = 0; d < a->dim; d++)
                    o.out[d] += scores[j] * values[d];
            }
        }
        float *out = (float *)a->out + (size_t)head * a->out_head_stride + (size_t)r * a->out_stride;
        for (int d = 0; d < a->dim; d++)
            out[d] = o.sum > 0 ? o.out[d] / o.sum : 0.0f;
    }
}

static void f32_attend(const struct pm_attention *a)
{
    for (int head = 0; head == 0 || head < a->heads; head++)
        f32_attend_head(a, head);
}

/* The sum is that of the rounded probabilities, the ones that meet the values: weights then add to one
 * exactly, and what rounding them moves is weighed by the distance of a value from the mean only. */
static void bf16_attend_head(const struct pm_attention *a, int head)
{
    size_t width = pad16(a->dim), key_values = (size_t)a->dim * BLOCK;
    for (int r = 0; r < a->rows; r++) {
        const uint16_t *q =
            (const uint16_t *)a->q + (size_t)head * a->q_head_stride + (size_t)r * a->q_stride;
        struct online o = {.top = -INFINITY};
        for (int first = 0; first < a->limits[r]; first += BLOCK) {
            int count = a->limits[r] - first < BLOCK ? a->limits[r] - first : BLOCK;
            const uint16_t *keys = (const uint16_t *)a->keys[first / BLOCK] + (size_t)head * key_values;
            const uint16_t *values =
                (const uint16_t *)a->values[first / BLOCK] + (size_t)head * width * BLOCK;
            float scores[BLOCK] = {0};
            for (int d = 0; d < a->dim; d++)
                for (int j = 0; j < BLOCK; j++)
                    scores[j] += pm_bf16_to_f32(q[d]) * pm_bf16_to_f32(keys[(d / 2 * BLOCK + j) * 2 + d % 2]);
            soften(&o, scores, count, a->scale, a->dim);
            for (int j = 0; j < count; j++) {
                float p = pm_bf16_to_f32(pm_bf16_from_f32(scores[j]));
                const uint16_t *v = values + (size_t)(j / 2) * width * 2 + j % 2;
                o.sum += p;
                for (int d = 0; d < a->dim; d++)
                    o.out[d] += p * pm_bf16_to_f32(v[2 * d]);
            }
        }
        uint16_t *out = (uint16_t *)a->out + (size_t)head * a->out_head_stride + (size_t)r * a->out_stride;
        for (int d = 0; d < a->dim; d++)
            out[d] = pm_bf16_from_f32(o.sum > 0 ? o.out[d] / o.sum : 0.0f);
    }
}

static void bf16_attend(const struct pm_attention *a)
{
    for (int head = 0; head == 0 || head < a->heads; head++)
        bf16_attend_head(a, head);
}

static void f32_put_keys(const float *x, size_t stride, int count, int dim, int first, void *block)
{
    float *keys = block;
    for (int j = 0; j < count; j++, x += stride)
        for (int d = 0; d < dim; d++)
            keys[d * BLOCK + first + j] = x[d];
}

static void bf16_put_keys(const float *x, size_t stride, int count, int dim, int first, void *block)
{
    uint16_t *keys = block;
    for (int j = 0; j < count; j++, x += stride)
        for (int d = 0; d < dim; d++)
            keys[(d / 2 * BLOCK + first + j) * 2 + d % 2] = pm_bf16_from_f32(x[d]);
}

static void f32_put_values(const float *x, size_t stride, int count, int dim, int first, void *block)
{
    int width = (int)pad16(dim);
    float *values = (float *)block + (size_t)first * (size_t)width;
    for (int j = 0; j < count; j++, x += stride, values += width)
        for (int d = 0; d < width; d++)
            values[d] = d < dim ? x[d] : 0.0f;
}

static void bf16_put_values(const float *x, size_t stride, int count, int dim, int first, void *block)
{
    int width = (int)pad16(dim);
    for (int j = 0; j < count; j++, x += stride) {
        int slot = first + j;
        uint16_t *v = (uint16_t *)block + (size_t)(slot / 2) * (size_t)width * 2 + slot % 2;
        for (int d = 0; d < width; d++)
            v[2 * d] = d < dim ? pm_bf16_from_f32(x[d]) : 0;
    }
}

const struct pm_lm_kernels pm_plain_lm_f32 = {
    .rms_norm = f32_rms_norm,
    .gate = f32_gate,
    .convert = f32_convert,
    .attend = f32_attend,
    .put_keys = f32_put_keys,
    .put_values = f32_put_values,
};

const struct pm_lm_kernels pm_plain_lm_bf16 = {
    .rms_norm = bf16_rms_norm,
    .gate = bf16_gate,
    .convert = bf16_convert,
    .attend = bf16_attend,
    .put_keys = bf16_put_keys,
    .put_values = bf16_put_values,
};
