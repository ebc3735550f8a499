/* Norms, gates, conversions and rotations: right against double precision, every row by itself. */
#include "tests/unit/kernels/common.h"

static const int lengths[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 80, 100, 129, 1000, 1537};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

/* Outputs of either precision, with a row's worth of bytes that must not change behind each row. */
struct rows {
    int rows, n;
    size_t stride;
    bool is_bf16;
    void *data;
};

static struct rows make_rows(int rows, int n, bool is_bf16)
{
    struct rows o = {.rows = rows, .n = n, .stride = (size_t)n + number(3), .is_bf16 = is_bf16};
    o.data = bytes((size_t)rows * o.stride * (is_bf16 ? 2 : 4));
    return o;
}

static size_t value_bytes(const struct rows *o)
{
    return o->is_bf16 ? 2 : 4;
}

static const void *row_at(const struct rows *o, int r)
{
    return (const char *)o->data + (size_t)r * o->stride * value_bytes(o);
}

static void check_value(const char *name, const char *what, const struct rows *o, int r, int i, double want,
                        double relative)
{
    size_t at = (size_t)r * o->stride + (size_t)i;
    double got = o->is_bf16 ? pm_bf16_to_f32(((const uint16_t *)o->data)[at]) : ((const float *)o->data)[at];
    check(name, what, got, want, fabs(want) * (relative + (o->is_bf16 ? 1.0 / 256 : 0)) + 1e-37);
}

/* The padding of a row: one zero after an odd number of bf16, everything else as it was. */
static void check_padding(const struct rows *o)
{
    for (int r = 0; r < o->rows; r++)
        for (size_t i = (size_t)o->n; i < o->stride; i++) {
            bool zero = o->is_bf16 && o->n % 2 && i == (size_t)o->n;
            const unsigned char *p = (const unsigned char *)row_at(o, r) + i * value_bytes(o);
            for (size_t b = 0; b < value_bytes(o); b++)
                assert_int_equal(p[b], zero ? 0 : 0xa5);
        }
}

static void check_row_alone(const struct rows *all, int r, const struct rows *alone)
{
    assert_memory_equal(row_at(alone, 0), row_at(all, r), (size_t)all->n * value_bytes(all));
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static void test_activations(void **state)
{
    const struct pm_kernels *kernels = *state;
    for (int k = 0; k < 2 * LENGTHS; k++) {
        bool is_bf16 = k >= LENGTHS;
        const struct pm_lm_kernels *lm = is_bf16 ? kernels->bf16 : kernels->f32;
        int n = lengths[k % LENGTHS], rows = 1 + k % 4;
        size_t stride = 2 * (size_t)n + number(3);
        float *x = floats((size_t)(rows - 1) * stride + 2 * (size_t)n), *weight = floats((size_t)n);
        for (size_t i = 0; i < (size_t)(rows - 1) * stride + 2 * (size_t)n; i++)
            x[i] *= 12;
        struct rows out = make_rows(rows, n, is_bf16), alone = make_rows(1, n, is_bf16);
        lm->rms_norm(x, stride, rows, n, weight, 1e-5f, out.data, out.stride);
        check_padding(&out);
        for (int r = 0; r < rows; r++) {
            const float *v = x + (size_t)r * stride;
            double sum = 0;
            for (int i = 0; i < n; i++)
                sum += (double)v[i] * v[i];
            for (int i = 0; i < n; i++)
                check_value(kernels->name, "rms_norm", &out, r, i,
                            v[i] / sqrt(sum / n + (double)1e-5f) * weight[i], 5e-7);
            lm->rms_norm(v, stride, 1, n, weight, 1e-5f, alone.data, alone.stride);
            check_row_alone(&out, r, &alone);
        }
        lm->gate(x, stride, rows, n, out.data, out.stride);
        check_padding(&out);
        for (int r = 0; r < rows; r++) {
            const float *v = x + (size_t)r * stride;
            for (int i = 0; i < n; i++)
                check_value(kernels->name, "gate", &out, r, i, silu(v[i]) * (double)v[n + i], 5e-7);
            lm->gate(v, stride, 1, n, alone.data, alone.stride);
            check_row_alone(&out, r, &alone);
        }
        lm->convert(x, stride, rows, n, out.data, out.stride);
        check_padding(&out);
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < n; i++) {
                float v = x[(size_t)r * stride + (size_t)i];
                if (is_bf16)
                    assert_int_equal(((const uint16_t *)row_at(&out, r))[i], pm_bf16_from_f32(v));
                else
                    assert_memory_equal((const float *)row_at(&out, r) + i, &v, sizeof v);
            }
        free(out.data);
        free(alone.data);
        free(x);
        free(weight);
    }
}

/* The sigmoid of the gate far out: no overflow, the right limits, and a fine exponential everywhere. */
static void test_gate_everywhere(void **state)
{
    const struct pm_kernels *kernels = *state;
    enum { N = 8000 };
    float *x = floats(2 * N), *out = floats(N);
    for (int i = 0; i < N; i++) {
        x[i] = (float)(i - N / 2) * (80.0f / (N / 2));
        x[N + i] = 1;
    }
    x[0] = -1e30f;
    x[1] = 1e30f;
    x[2] = -1000;
    kernels->f32->gate(x, 2 * N, 1, N, out, N);
    for (int i = 3; i < N; i++)
        check(kernels->name, "silu", out[i], silu(x[i]), 3e-7 * fabs(silu(x[i])) + 1e-37);
    check(kernels->name, "silu far left", out[2], 0, 1e-30);
    assert_true(out[1] == 1e30f);
    free(x);
    free(out);
}

/* Ties to even, overflow, infinities; not-a-number stays one. */
static void test_rounding_to_bf16(void **state)
{
    const struct pm_kernels *kernels = *state;
    static const uint32_t cases[][2] = {
        {0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f818000, 0x3f82}, {0x3f808001, 0x3f81},
        {0x3f807fff, 0x3f80}, {0xbf818000, 0xbf82}, {0x7f7fffff, 0x7f80}, {0x7f800000, 0x7f80},
        {0xff800000, 0xff80}, {0x00000000, 0x0000}, {0x80000000, 0x8000}, {0x477fff80, 0x4780},
    };
    enum { CASES = sizeof cases / sizeof *cases, N = 37 };
    for (int shift = 0; shift < N - CASES; shift++) {
        float x[N] = {0};
        uint16_t out[N + 1];
        for (int i = 0; i < CASES; i++)
            memcpy(&x[shift + i], &cases[i][0], sizeof *x);
        x[N - 1] = NAN;
        uint32_t sly = 0x7f800001; /* a NaN that rounding would turn to infinity */
        memcpy(&x[(shift + CASES) % (N - 1)], &sly, sizeof sly);
        kernels->bf16->convert(x, N, 1, N, out, N + 1);
        for (int i = 0; i < CASES; i++)
            if (shift + i != (shift + CASES) % (N - 1))
                assert_int_equal(out[shift + i], cases[i][1]);
        assert_true(isnan(pm_bf16_to_f32(out[N - 1])));
        assert_true(isnan(pm_bf16_to_f32(out[(shift + CASES) % (N - 1)])));
        assert_int_equal(out[N], 0);
    }
}

static void test_residual_stream(void **state)
{
    const struct pm_kernels *kernels = *state;
    for (int k = 0; k < LENGTHS; k++) {
        int n = lengths[k], rows = 1 + k % 4;
        size_t stride = (size_t)n + number(3), count = (size_t)(rows - 1) * stride + (size_t)n;
        float *x = floats(count), *weight = floats((size_t)n), *bias = floats((size_t)n),
              *out = floats(count);
        float *was = bytes(count * sizeof *was), *alone = bytes((size_t)n * sizeof *alone);
        for (size_t i = 0; i < count; i++)
            x[i] += 2; /* a mean that is not small */
        memcpy(was, out, count * sizeof *was);
        kernels->add_rms_norm(x, stride, rows, n, weight, 1e-6f, out, stride);
        for (int r = 0; r < rows; r++) {
            const float *v = x + (size_t)r * stride;
            double sum = 0;
            for (int i = 0; i < n; i++)
                sum += (double)v[i] * v[i];
            for (int i = 0; i < n; i++) {
                size_t at = (size_t)r * stride + (size_t)i;
                check(kernels->name, "add_rms_norm", out[at],
                      was[at] + v[i] / sqrt(sum / n + (double)1e-6f) * weight[i], 1e-6);
            }
            memcpy(alone, was + (size_t)r * stride, (size_t)n * sizeof *alone);
            kernels->add_rms_norm(v, stride, 1, n, weight, 1e-6f, alone, (size_t)n);
            assert_memory_equal(alone, out + (size_t)r * stride, (size_t)n * sizeof *alone);
        }
        memcpy(was, x, count * sizeof *was);
        kernels->layer_norm(x, stride, rows, n, weight, bias, 1e-5f);
        for (int r = 0; r < rows; r++) {
            const float *v = was + (size_t)r * stride;
            double mean = 0, variance = 0;
            for (int i = 0; i < n; i++)
                mean += v[i];
            mean /= n;
            for (int i = 0; i < n; i++)
                variance += (v[i] - mean) * (v[i] - mean);
            for (int i = 0; i < n; i++)
                check(kernels->name, "layer_norm", x[(size_t)r * stride + (size_t)i],
                      (v[i] - mean) / sqrt(variance / n + (double)1e-5f) * weight[i] + bias[i],
                      n == 1 ? 1e-4 : 4e-6);
            memcpy(alone, v, (size_t)n * sizeof *alone);
            kernels->layer_norm(alone, (size_t)n, 1, n, weight, bias, 1e-5f);
            assert_memory_equal(alone, x + (size_t)r * stride, (size_t)n * sizeof *alone);
        }
        for (size_t i = 0; i < count; i++)
            if (i % stride >= (size_t)n)
                assert_memory_equal(&x[i], &was[i], sizeof *x);
        free(x);
        free(weight);
        free(bias);
        free(out);
        free(was);
        free(alone);
    }
}

static void check_rope(const struct pm_kernels *kernels, int heads, int dim, int pairs, bool interleaved)
{
    size_t count = (size_t)heads * (size_t)dim;
    float *x = floats(count), *was = bytes(count * sizeof *was), *c = floats((size_t)pairs),
          *s = floats((size_t)pairs);
    memcpy(was, x, count * sizeof *was);
    (interleaved ? kernels->rope_interleaved : kernels->rope_half_split)(x, heads, dim, pairs, c, s);
    for (int h = 0; h < heads; h++) {
        for (int p = 0; p < pairs; p++) {
            int at = h * dim + (interleaved ? 2 * p : p), other = at + (interleaved ? 1 : pairs);
            double a = was[at], b = was[other];
            check(kernels->name, "rope", x[at], a * c[p] - b * s[p], 2e-7);
            check(kernels->name, "rope", x[other], b * c[p] + a * s[p], 2e-7);
        }
        for (int d = 2 * pairs; d < dim; d++)
            assert_memory_equal(&x[h * dim + d], &was[h * dim + d], sizeof *x);
    }
    free(x);
    free(was);
    free(c);
    free(s);
}

static void test_rope(void **state)
{
    for (int pairs = 1; pairs < 70; pairs += 1 + pairs / 5)
        for (int more = 0; more < 3; more++)
            for (int interleaved = 0; interleaved < 2; interleaved++)
                check_rope(*state, 1 + (int)number(3), 2 * pairs + more, pairs, interleaved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_activations),
                                       cmocka_unit_test(test_gate_everywhere),
                                       cmocka_unit_test(test_rounding_to_bf16),
                                       cmocka_unit_test(test_residual_stream), cmocka_unit_test(test_rope)};
    return run_all("rows", tests, sizeof tests / sizeof *tests);
}
