/* Every kernel of every table that this processor runs, against sums in double precision, over odd sizes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/kernels/kernels.h"

static const char *const names[] = {"plain", "avx2", "avx512", "avx512vnni", "avx512bf16"};

static uint32_t seed = 1;

static float noise(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return (float)(int32_t)seed / 2147483648.0f;
}

/* Exact-sized heap arrays, so that the address sanitizer sees reads and writes outside. */
static float *floats(size_t n)
{
    float *v = malloc((n ? n : 1) * sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < n; i++)
        v[i] = noise();
    return v;
}

static void check(const char *kernels, const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s %s: %.9g instead of %.9g", kernels, what, got, want);
}

static double act_exact(double x, enum pm_act act)
{
    switch (act) {
    case PM_ACT_RELU:
        return x > 0 ? x : 0;
    case PM_ACT_GELU:
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case PM_ACT_SWISH:
        return x / (1 + exp(-x));
    case PM_ACT_HSWISH:
        return x * fmin(fmax(x + 3, 0), 6) / 6;
    case PM_ACT_SIGMOID:
        return 1 / (1 + exp(-x));
    case PM_ACT_NONE:
        break;
    }
    return x;
}

/* One product of rows x n over taps x k, through panels. */
static void check_gemm(const struct pm_kernels *kernels, int rows, int n, int taps, int k, enum pm_act act,
                       int with_residual)
{
    size_t total = (size_t)taps * (size_t)k, stride = (size_t)k + 3;
    float *panels = floats(pm_panel_floats(n, total)), *bias = floats((size_t)n),
          *w = floats((size_t)n * total);
    float *x[PM_GEMM_TAPS] = {0}, *out = floats((size_t)rows * (size_t)n),
          *residual = floats((size_t)rows * (size_t)n);
    for (int o = 0; o < n; o++) {
        *pm_panel_at(panels, n, total, o, -1) = bias[o];
        for (size_t i = 0; i < total; i++)
            *pm_panel_at(panels, n, total, o, (long)i) = w[(size_t)o * total + i];
    }
    for (int t = 0; t < taps; t++)
        x[t] = floats((size_t)(rows - 1) * stride + (size_t)k);
    for (int p = 0; p * PM_PANEL < n; p++) {
        struct pm_gemm g = {.x_stride = stride,
                            .taps = taps,
                            .k = k,
                            .panel = panels + (size_t)p * PM_PANEL * (total + 1),
                            .width = pm_panel_width(n, p),
                            .columns = n - p * PM_PANEL < PM_PANEL ? n - p * PM_PANEL : PM_PANEL,
                            .rows = rows,
                            .act = act,
                            .out = out + p * PM_PANEL,
                            .out_stride = (size_t)n,
                            .residual = with_residual ? residual + p * PM_PANEL : NULL,
                            .residual_stride = (size_t)n};
        for (int t = 0; t < taps; t++)
            g.x[t] = x[t];
        kernels->gemm(&g);
    }
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < n; o++) {
            double sum = bias[o];
            for (int t = 0; t < taps; t++)
                for (int i = 0; i < k; i++)
                    sum += (double)x[t][(size_t)r * stride + (size_t)i] *
                           (double)w[(size_t)o * total + (size_t)t * (size_t)k + (size_t)i];
            size_t at = (size_t)r * (size_t)n + (size_t)o;
            check(kernels->name, "gemm", out[at], act_exact(sum, act) + (with_residual ? residual[at] : 0),
                  1e-5 * (1 + fabs(sum)) + 1e-6 * (double)total);
        }
    for (int t = 0; t < taps; t++)
        free(x[t]);
    free(panels);
    free(bias);
    free(w);
    free(out);
    free(residual);
}

static void test_gemm(void **state)
{
    const struct pm_kernels *kernels = *state;
    static const int widths[] = {1, 2, 7, 8, 9, 12, 16, 20, 24, 25, 32, 33, 40, 48, 49, 72, 90, 120};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (int rows = 1; rows <= 18; rows += rows < 9 ? 1 : 4)
            check_gemm(kernels, rows, widths[i], 1 + rows % 3, 1 + (int)(i * 7 + (size_t)rows) % 41,
                       (enum pm_act)(rows % 6), rows % 2);
    check_gemm(kernels, 8, 48, 1, 700, PM_ACT_NONE, 1);
}

/* A row's result does not depend on how many rows are computed with it: bit for bit. */
static void test_gemm_is_independent_of_rows(void **state)
{
    const struct pm_kernels *kernels = *state;
    enum { ROWS = 23, K = 77, N = 48 };
    float *x = floats(ROWS * K), *panel = floats((K + 1) * N), *all = floats(ROWS * N), *one = floats(N);
    struct pm_gemm g = {.x = {x},
                        .x_stride = K,
                        .taps = 1,
                        .k = K,
                        .panel = panel,
                        .width = N,
                        .columns = N,
                        .rows = ROWS,
                        .act = PM_ACT_GELU,
                        .out = all,
                        .out_stride = N};
    kernels->gemm(&g);
    g.rows = 1;
    g.out = one;
    for (int r = 0; r < ROWS; r++) {
        g.x[0] = x + r * K;
        kernels->gemm(&g);
        assert_memory_equal(one, all + r * N, N * sizeof(float));
    }
    free(x);
    free(panel);
    free(all);
    free(one);
}

static void check_depthwise(const struct pm_kernels *kernels, int kh, int kw, int stride, int width,
                            int channels, int begin, unsigned missing_rows)
{
    size_t c_all = (size_t)channels, padded = (c_all + PM_DW_LANES - 1) / PM_DW_LANES * PM_DW_LANES;
    int out_width = (width - 1) / stride + 1;
    struct pm_dw d = {.kh = kh,
                      .kw = kw,
                      .stride_x = stride,
                      .in_width = width,
                      .channels = channels,
                      .x_begin = begin,
                      .x_end = out_width};
    float *weights = floats((size_t)(1 + kh * kw) * padded),
          *out = floats((size_t)(out_width - begin) * c_all);
    float *rows[PM_DW_TAPS] = {0};
    d.weights = weights;
    d.out = out;
    for (int y = 0; y < kh; y++)
        if (!(missing_rows >> y & 1))
            d.in[y] = rows[y] = floats((size_t)width * c_all);
    kernels->depthwise(&d);
    for (int x = begin; x < out_width; x++)
        for (size_t c = 0; c < c_all; c++) {
            double sum = weights[c];
            for (int ky = 0; ky < kh; ky++)
                for (int kx = 0; kx < kw; kx++) {
                    int ix = x * stride - kw / 2 + kx;
                    if (rows[ky] && ix >= 0 && ix < width)
                        sum += (double)rows[ky][(size_t)ix * c_all + c] *
                               (double)weights[(size_t)(1 + ky * kw + kx) * padded + c];
                }
            check(kernels->name, "depthwise", out[(size_t)(x - begin) * c_all + c], sum, 2e-5);
        }
    for (int y = 0; y < kh; y++)
        free(rows[y]);
    free(weights);
    free(out);
}

static void test_depthwise(void **state)
{
    const struct pm_kernels *kernels = *state;
    static const int shapes[][3] = {{3, 3, 1}, {3, 3, 2}, {5, 5, 1}, {7, 7, 1},
                                    {1, 7, 1}, {5, 5, 2}, {1, 1, 1}};
    static const int channels[] = {1, 8, 12, 16, 24, 40, 48};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t c = 0; c < sizeof channels / sizeof *channels; c++)
            for (int width = 1; width < 40; width += width < 10 ? 1 : 7)
                check_depthwise(kernels, shapes[s][0], shapes[s][1], shapes[s][2], width, channels[c],
                                width > 5 ? width % 3 : 0, (unsigned)(width % 4 == 0 && shapes[s][0] > 1));
}

static void test_activations(void **state)
{
    const struct pm_kernels *kernels = *state;
    enum { N = 4003 };
    float *x = floats(N), *y = floats(N);
    for (int act = PM_ACT_NONE; act <= PM_ACT_SIGMOID; act++) {
        for (int i = 0; i < N; i++)
            y[i] = x[i] = (float)(i - N / 2) * 0.01f;
        y[0] = x[0] = -90.0f;
        y[1] = x[1] = 90.0f;
        kernels->activate(y, N, (enum pm_act)act);
        for (int i = 0; i < N; i++)
            check(kernels->name, "activation", y[i], act_exact(x[i], (enum pm_act)act),
                  3e-6 + 3e-7 * fabs((double)x[i]));
    }
    free(x);
    free(y);
}

static void test_rows(void **state)
{
    const struct pm_kernels *kernels = *state;
    for (int channels = 1; channels < 60; channels += channels < 20 ? 1 : 13)
        for (int rows = 1; rows < 6; rows++) {
            size_t n = (size_t)rows * (size_t)channels;
            float *x = floats(n), *gate = floats((size_t)channels), *sum = floats((size_t)channels);
            float *below = floats(n + (size_t)channels), *above = floats(n + (size_t)channels);
            float *out = floats(n), *was = floats(n), *start = floats((size_t)channels);
            memcpy(was, x, n * sizeof *x);
            memcpy(start, sum, (size_t)channels * sizeof *sum);
            kernels->sum_rows(x, rows, channels, sum);
            kernels->scale_rows(x, rows, channels, gate);
            kernels->max_2x2(above, below, rows, channels, out, (size_t)channels);
            for (int c = 0; c < channels; c++) {
                double want = start[c];
                for (int r = 0; r < rows; r++) {
                    size_t at = (size_t)r * (size_t)channels + (size_t)c, next = at + (size_t)channels;
                    want += was[at];
                    check(kernels->name, "scale_rows", x[at], was[at] * gate[c], 1e-7);
                    check(kernels->name, "max_2x2", out[at],
                          fmaxf(fmaxf(above[at], above[next]), fmaxf(below[at], below[next])), 0);
                }
                check(kernels->name, "sum_rows", sum[c], want, 1e-5);
            }
            free(x);
            free(gate);
            free(sum);
            free(below);
            free(above);
            free(out);
            free(was);
            free(start);
        }
}

static void test_normalise(void **state)
{
    const struct pm_kernels *kernels = *state;
    for (size_t n = 0; n < 70; n++) {
        uint8_t *bytes = malloc(n ? n : 1);
        float *out = floats(n);
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)(i * 37 + n);
        kernels->normalise(bytes, n, out);
        for (size_t i = 0; i < n; i++)
            check(kernels->name, "normalise", out[i], (bytes[i] / 255.0 - 0.5) / 0.5, 2e-7);
        free(bytes);
        free(out);
    }
}

static void test_exp_row(void **state)
{
    const struct pm_kernels *kernels = *state;
    for (int n = 1; n < 80; n++) {
        float *x = floats((size_t)n), *y = floats((size_t)n);
        double top = -1e9, sum = 0;
        for (int i = 0; i < n; i++) {
            x[i] = y[i] = 30 * x[i];
            top = fmax(top, x[i]);
        }
        float got = kernels->exp_row(y, n);
        for (int i = 0; i < n; i++) {
            sum += exp(x[i] - top);
            check(kernels->name, "exp_row", y[i], exp(x[i] - top), 1e-6);
        }
        check(kernels->name, "exp_row sum", got, sum, 1e-5 * sum);
        free(x);
        free(y);
    }
}

/* Fed in panels, with ties: the best class is the first, its probability that of a softmax over everything.
 */
static void test_softmax(void **state)
{
    const struct pm_kernels *kernels = *state;
    enum { ROWS = 5 };
    for (int n = 1; n < 200; n += n < 60 ? 1 : 17) {
        float *logits = floats((size_t)(ROWS * n));
        struct pm_softmax_lanes lanes[ROWS];
        for (int i = 0; i < ROWS * n; i++)
            logits[i] *= 12;
        for (int r = 0; r < ROWS; r++) { /* a tie for the best between two places */
            logits[r * n + n / 2] = 15;
            logits[r * n + n - 1] = 15;
        }
        pm_softmax_begin(lanes, ROWS);
        for (int first = 0; first < n; first += PM_PANEL)
            kernels->softmax_step(logits + first, (size_t)n, ROWS,
                                  n - first < PM_PANEL ? n - first : PM_PANEL, first, lanes);
        for (int r = 0; r < ROWS; r++) {
            int32_t index;
            float p;
            double sum = 0;
            for (int i = 0; i < n; i++)
                sum += exp(logits[r * n + i] - 15.0);
            pm_softmax_end(&lanes[r], &index, &p);
            assert_int_equal(index, n / 2);
            check(kernels->name, "softmax", p, 1 / sum, 1e-6);
        }
        free(logits);
    }
}

static void test_panels(void **state)
{
    (void)state;
    static const int rest[][2] = {{1, 8},   {8, 8},   {9, 16},  {24, 24}, {25, 32},
                                  {32, 32}, {33, 48}, {40, 48}, {48, 48}};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) {
        assert_int_equal(pm_panel_width(rest[i][0], 0), rest[i][1]);
        assert_int_equal(pm_panel_width(96 + rest[i][0], 2), rest[i][1]);
        assert_int_equal(pm_panel_width(96 + rest[i][0], 1), 48);
        assert_int_equal(pm_panel_floats(48 + rest[i][0], 10), (48 + rest[i][1]) * 11);
    }
    assert_null(pm_kernels_get("none"));
    assert_string_equal(pm_kernels_get("plain")->name, "plain");
}

int main(void)
{
    int failed = 0;
    const struct CMUnitTest once[] = {cmocka_unit_test(test_panels)};
    failed += cmocka_run_group_tests_name("panels", once, NULL, NULL);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct pm_kernels *kernels = pm_kernels_get(names[i]);
        if (!kernels)
            continue;
#define WITH(test)                                                                                           \
    {                                                                                                        \
#test, test, NULL, NULL, (void *)(uintptr_t)kernels                                                  \
    }
        const struct CMUnitTest tests[] = {
            WITH(test_gemm),      WITH(test_gemm_is_independent_of_rows),
            WITH(test_depthwise), WITH(test_activations),
            WITH(test_rows),      WITH(test_normalise),
            WITH(test_exp_row),   WITH(test_softmax),
        };
        failed += cmocka_run_group_tests_name(names[i], tests, NULL, NULL);
    }
    return failed;
}
