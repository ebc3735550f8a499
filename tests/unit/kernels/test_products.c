/* bf16 products and pm_linear: right against sums in double precision, and the same bits whatever the
 * company. */
#include "tests/unit/kernels/common.h"

#include <unistd.h>

#include "base/mem.h"
#include "engine/vlm/linear.h"

enum { N = PM_PANEL_BF16 };

static void check_gemm(const struct pm_kernels *kernels, int rows, int k, int columns, bool with_bias,
                       bool add)
{
    size_t even = ((size_t)k + 1) / 2 * 2, stride = even + number(3),
           out_stride = (size_t)columns + number(3);
    uint16_t *x = halves((size_t)(rows - 1) * stride + even), *panel = halves(even * N);
    size_t out_count = (size_t)(rows - 1) * out_stride + (size_t)columns;
    float *bias = floats(N), *out = floats(out_count), *was = bytes(out_count * sizeof *was);
    if (k % 2) { /* the odd input meets zeros in both */
        for (int j = 0; j < N; j++)
            panel[(even / 2 - 1) * 2 * N + (size_t)j * 2 + 1] = 0;
        for (int r = 0; r < rows; r++)
            x[(size_t)r * stride + (size_t)k] = 0;
    }
    memcpy(was, out, out_count * sizeof *was);
    kernels->gemm_bf16(&(struct pm_gemm_bf16){.x = x,
                                              .x_stride = stride,
                                              .k = k,
                                              .rows = rows,
                                              .columns = columns,
                                              .panel = panel,
                                              .bias = with_bias ? bias : NULL,
                                              .out = out,
                                              .out_stride = out_stride,
                                              .add = add});
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < (int)out_stride; c++) {
            size_t at = (size_t)r * out_stride + (size_t)c;
            if (at >= out_count)
                break;
            if (c >= columns) {
                assert_memory_equal(&out[at], &was[at], sizeof *out); /* between the rows */
                continue;
            }
            double start = with_bias ? bias[c] : 0, before = add ? was[at] : 0;
            double sum = start + before, size = fabs(start) + fabs(before);
            for (int i = 0; i < k; i++) {
                double term = (double)pm_bf16_to_f32(x[(size_t)r * stride + (size_t)i]) *
                              (double)pm_bf16_to_f32(panel[((size_t)(i / 2) * N + (size_t)c) * 2 + i % 2]);
                sum += term;
                size += fabs(term);
            }
            check(kernels->name, "gemm_bf16", out[at], sum, 1e-6 * size);
        }
    free(x);
    free(panel);
    free(bias);
    free(out);
    free(was);
}

static void test_gemm_bf16(void **state)
{
    for (int rows = 1; rows <= 19; rows += rows < 13 ? 1 : 3)
        for (int k = 1; k < 300; k += 1 + k / 3)
            check_gemm(*state, rows, k, rows % 4 ? 1 + (int)number(N) : N, k % 3, rows % 2);
    for (int columns = 1; columns <= N; columns++)
        check_gemm(*state, 1 + columns % 7, 34, columns, columns % 2, columns % 3 == 0);
}

/* No rows: nothing is touched. */
static void test_gemm_bf16_without_rows(void **state)
{
    const struct pm_kernels *kernels = *state;
    uint16_t *panel = halves(2 * N);
    kernels->gemm_bf16(&(struct pm_gemm_bf16){.k = 2, .rows = 0, .columns = 3, .panel = panel});
    free(panel);
}

static void test_gemm_bf16_is_independent_of_rows(void **state)
{
    const struct pm_kernels *kernels = *state;
    enum { ROWS = 29, K = 150 };
    uint16_t *x = halves(ROWS * K), *panel = halves(K * N);
    float *bias = floats(N), *all = floats(ROWS * N), *some = floats(ROWS * N);
    struct pm_gemm_bf16 g = {.x = x,
                             .x_stride = K,
                             .k = K,
                             .rows = ROWS,
                             .columns = N,
                             .panel = panel,
                             .bias = bias,
                             .out = all,
                             .out_stride = N};
    kernels->gemm_bf16(&g);
    g.out = some;
    for (int first = 0; first < ROWS; first++)
        for (int rows = 1; rows <= 13 && first + rows <= ROWS; rows++) {
            g.x = x + first * K;
            g.rows = rows;
            g.columns = 1 + (int)number(N);
            kernels->gemm_bf16(&g);
            for (int r = 0; r < rows; r++)
                assert_memory_equal(some + r * N, all + (first + r) * N, (size_t)g.columns * sizeof *some);
        }
    free(x);
    free(panel);
    free(bias);
    free(all);
    free(some);
}

/* ---- pm_linear ---- */

struct layer {
    struct pm_linear linear;
    float *weights, *bias; /* what the layer holds, as f32: [n, k], [n] */
    void *panels;
    float *padded_bias;
};

static struct layer make_layer(enum pm_precision precision, int n, int k)
{
    struct layer l = {.weights = floats((size_t)n * (size_t)k), .bias = floats((size_t)n)};
    l.linear = (struct pm_linear){.precision = precision, .n = n, .k = k};
    size_t count = (size_t)n * (size_t)k;
    if (precision == PM_PRECISION_F32) {
        float *panels = calloc(pm_panel_floats(n, (size_t)k), sizeof *panels);
        for (int o = 0; o < n; o++) {
            *pm_panel_at(panels, n, (size_t)k, o, -1) = l.bias[o];
            for (int i = 0; i < k; i++)
                *pm_panel_at(panels, n, (size_t)k, o, i) = l.weights[(size_t)o * (size_t)k + (size_t)i];
        }
        l.panels = panels;
    } else if (precision != PM_PRECISION_BF16) {
        enum pm_quant_bits bits = precision == PM_PRECISION_INT8 ? PM_QUANT_INT8 : PM_QUANT_INT4;
        uint8_t *panels = bytes(pm_quant_panel_bytes(bits, n, (size_t)k));
        for (int o = 0; o < n; o += N)
            assert_true(
                pm_quant_panel_fill(bits, l.weights + (size_t)o * (size_t)k, n - o < N ? n - o : N, (size_t)k,
                                    panels + (size_t)(o / N) * pm_quant_panel_bytes(bits, 1, (size_t)k)));
        for (size_t i = 0; i < count; i++)
            l.weights[i] = pm_quant_panel_value(bits, panels, (size_t)k, (int)(i / (size_t)k), i % (size_t)k);
        l.panels = panels;
    } else {
        uint16_t *panels = calloc(pm_panel_bf16_values(n, (size_t)k), sizeof *panels);
        for (int o = 0; o < n; o++)
            pm_panel_bf16_put(panels, (size_t)k, o, l.weights + (size_t)o * (size_t)k);
        for (size_t i = 0; i < count; i++) {
            uint16_t value = pm_bf16_from_f32(l.weights[i]);
            assert_int_equal(*pm_panel_bf16_at(panels, (size_t)k, (int)(i / (size_t)k), i % (size_t)k),
                             value);
            l.weights[i] = pm_bf16_to_f32(value);
        }
        l.panels = panels;
    }
    if (precision != PM_PRECISION_F32) {
        l.padded_bias = calloc((size_t)(n + 63) / 64 * 64, sizeof *l.padded_bias);
        memcpy(l.padded_bias, l.bias, (size_t)n * sizeof *l.bias);
        l.linear.bias = l.padded_bias;
    }
    l.linear.panels = l.panels;
    return l;
}

static void free_layer(struct layer *l)
{
    free(l->weights);
    free(l->bias);
    free(l->panels);
    free(l->padded_bias);
}

static float value_of(const void *x, size_t i, bool is_bf16)
{
    return is_bf16 ? pm_bf16_to_f32(((const uint16_t *)x)[i]) : ((const float *)x)[i];
}

/* Right, and the same bits with 1 to 3 threads, alone and in company. */
static void check_linear(const struct pm_kernels *kernels, enum pm_precision precision, int rows, int n,
                         int k)
{
    bool is_bf16 = precision != PM_PRECISION_F32;
    struct layer l = make_layer(precision, n, k);
    size_t stride = ((size_t)k + 1) / 2 * 2, count = (size_t)rows * (size_t)n;
    float *x32 = floats((size_t)rows * stride), *first = floats(count), *out = floats(count);
    void *x = bytes((size_t)rows * stride * pm_activation_bytes(precision));
    (is_bf16 ? kernels->bf16 : kernels->f32)->convert(x32, stride, rows, k, x, stride);
    for (int threads = 1; threads <= 3; threads++) {
        struct pm_pool *pool;
        assert_int_equal(pm_pool_new(threads, &pool, NULL), 0);
        float *to = threads == 1 ? first : out;
        pm_linear_run(&l.linear, kernels, pool, x, stride, rows, to, (size_t)n, PM_LINEAR_STORE);
        if (threads > 1)
            assert_memory_equal(out, first, count * sizeof *out);
        for (int r = 0; r < rows; r += 1 + rows / 3) {
            pm_linear_run(&l.linear, kernels, pool,
                          (char *)x + (size_t)r * stride * pm_activation_bytes(precision), stride, 1, out,
                          (size_t)n, PM_LINEAR_STORE);
            assert_memory_equal(out, first + (size_t)r * (size_t)n, (size_t)n * sizeof *out);
        }
        for (size_t i = 0; i < count; i++)
            out[i] = 3;
        pm_linear_run(&l.linear, kernels, pool, x, stride, rows, out, (size_t)n, PM_LINEAR_ADD);
        for (size_t i = 0; i < count; i++)
            check(kernels->name, "linear add", out[i], 3.0 + first[i], 1e-6 * (3 + fabs((double)first[i])));
        pm_pool_free(&pool);
    }
    for (int r = 0; r < rows; r += 1 + rows / 5)
        for (int o = 0; o < n; o += 1 + n / 50) {
            double sum = l.bias[o], size = fabs(sum);
            for (int i = 0; i < k; i++) {
                double term = (double)value_of(x, (size_t)r * stride + (size_t)i, is_bf16) *
                              (double)l.weights[(size_t)o * (size_t)k + (size_t)i];
                sum += term;
                size += fabs(term);
            }
            /* Inputs are rounded, too: by half a 127th of the largest of the row, 1, each another way. */
            double rounding = precision == PM_PRECISION_F32 || precision == PM_PRECISION_BF16
                                  ? 1e-6 * size
                                  : 5 * sqrt((double)k / 3) * 0.6 / 127 + 1e-6;
            check(kernels->name, "linear", first[(size_t)r * (size_t)n + (size_t)o], sum, rounding);
        }
    free_layer(&l);
    free(x32);
    free(x);
    free(first);
    free(out);
}

static void test_linear(void **state)
{
    static const int sizes[][3] = {{1, 1, 1},      {1, 500, 96},  {3, 65, 7},      {7, 200, 33},
                                   {130, 100, 64}, {50, 48, 130}, {300, 70, 1500}, {5, 70, 9000}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_linear(*state, PM_PRECISION_F32, sizes[i][0], sizes[i][1], sizes[i][2]);
        check_linear(*state, PM_PRECISION_BF16, sizes[i][0], sizes[i][1], sizes[i][2]);
        check_linear(*state, PM_PRECISION_INT8, sizes[i][0], sizes[i][1], sizes[i][2]);
        check_linear(*state, PM_PRECISION_INT4, sizes[i][0], sizes[i][1], sizes[i][2]);
    }
}

/* ---- binding, layout ---- */

static void test_bind(void **state)
{
    (void)state;
    enum { OUT = 70, IN = 33 };
    char path[] = "/tmp/pm-linear-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    struct pm_error err = {0};
    struct pm_pack_writer *w;
    struct layer l = make_layer(PM_PRECISION_BF16, OUT, IN), f = make_layer(PM_PRECISION_F32, OUT, IN);
    const uint64_t shape[] = {OUT, 1, IN}, padded = 128, exact = OUT;
    assert_int_equal(pm_pack_writer_open(path, &w, &err), 0);
    assert_int_equal(
        pm_pack_writer_add(w, "half", PM_DTYPE_BF16, PM_LAYOUT_PANELS64_BF16, 3, shape, l.panels, &err), 0);
    assert_int_equal(
        pm_pack_writer_add(w, "half.bias", PM_DTYPE_F32, PM_LAYOUT_ROWS, 1, &padded, l.padded_bias, &err), 0);
    assert_int_equal(
        pm_pack_writer_add(w, "short.bias", PM_DTYPE_F32, PM_LAYOUT_ROWS, 1, &exact, l.padded_bias, &err), 0);
    assert_int_equal(
        pm_pack_writer_add(w, "full", PM_DTYPE_F32, PM_LAYOUT_PANELS48, 3, shape, f.panels, &err), 0);
    assert_int_equal(pm_pack_writer_finish(w, NULL, &err), 0);
    pm_pack_writer_free(&w);
    struct pm_pack *pack;
    assert_int_equal(pm_pack_open(path, &pack, &err), 0);
    struct pm_linear out;
    assert_int_equal(pm_linear_bind(pack, PM_PRECISION_BF16, "half", "half.bias", OUT, IN, &out, &err), 0);
    assert_memory_equal(out.panels, l.panels, pm_panel_bf16_values(OUT, IN) * sizeof(uint16_t));
    assert_memory_equal(out.bias, l.padded_bias, 128 * sizeof(float));
    assert_int_equal(pm_linear_bind(pack, PM_PRECISION_BF16, "half", NULL, OUT, IN, &out, &err), 0);
    assert_null(out.bias);
    assert_int_equal(pm_linear_bind(pack, PM_PRECISION_F32, "full", "half.bias", OUT, IN, &out, &err), 0);
    assert_null(out.bias);
    assert_int_equal(pm_linear_bind(pack, PM_PRECISION_BF16, "half", NULL, OUT, IN + 1, &out, &err),
                     PM_EFORMAT);
    assert_int_equal(pm_linear_bind(pack, PM_PRECISION_F32, "half", NULL, OUT, IN, &out, &err), PM_EFORMAT);
    assert_int_equal(pm_linear_bind(pack, PM_PRECISION_BF16, "half", "short.bias", OUT, IN, &out, &err),
                     PM_EFORMAT);
    assert_int_equal(pm_linear_bind(pack, PM_PRECISION_BF16, "half", "no.bias", OUT, IN, &out, &err),
                     PM_EFORMAT);
    assert_non_null(strstr(err.text, "no.bias"));
    assert_int_equal(pm_linear_bind(pack, PM_PRECISION_BF16, "half", NULL, 0, IN, &out, &err), PM_EFORMAT);
    pm_pack_free(&pack);
    unlink(path);
    free_layer(&l);
    free_layer(&f);
}

static void test_layout_bytes(void **state)
{
    (void)state;
#define BYTES(type, ...) pm_pack_bytes(type, PM_LAYOUT_PANELS64_BF16, 3, (const uint64_t[]){__VA_ARGS__})
    assert_int_equal(BYTES(PM_DTYPE_BF16, 64, 1, 8), 64 * 8 * 2);
    assert_int_equal(BYTES(PM_DTYPE_BF16, 65, 1, 8), 128 * 8 * 2);
    assert_int_equal(BYTES(PM_DTYPE_BF16, 1, 3, 5), 64 * 16 * 2);
    assert_int_equal(BYTES(PM_DTYPE_BF16, 100, 1, 7), (int64_t)pm_panel_bf16_values(100, 7) * 2);
    assert_int_equal(BYTES(PM_DTYPE_F32, 64, 1, 8), -1);
    assert_int_equal(BYTES(PM_DTYPE_BF16, 64, 0, 8), -1);
    assert_int_equal(BYTES(PM_DTYPE_BF16, 64, 1, 1u << 24), -1);
    assert_int_equal(pm_pack_bytes(PM_DTYPE_BF16, PM_LAYOUT_PANELS64_BF16, 2, (const uint64_t[]){64, 8}), -1);
    assert_int_equal(pm_pack_bytes(PM_DTYPE_BF16, PM_LAYOUT_COUNT, 3, (const uint64_t[]){64, 1, 8}), -1);
    assert_int_equal(BYTES(PM_DTYPE_BF16, (1u << 24) - 1, (1u << 24) - 1, (1u << 24) - 1), -1);
#undef BYTES
#define BYTES(type, bits, ...)                                                                               \
    pm_pack_bytes(type, PM_LAYOUT_PANELS64_INT##bits, 3, (const uint64_t[]){__VA_ARGS__})
    assert_int_equal(BYTES(PM_DTYPE_U8, 8, 64, 1, 64), 128 + 4096);
    assert_int_equal(BYTES(PM_DTYPE_U8, 4, 64, 1, 64), 128 + 2048);
    assert_int_equal(BYTES(PM_DTYPE_U8, 8, 65, 3, 43), 2 * 3 * (128 + 4096));
    assert_int_equal(BYTES(PM_DTYPE_U8, 8, 100, 1, 129),
                     (int64_t)pm_quant_panel_bytes(PM_QUANT_INT8, 100, 129));
    assert_int_equal(BYTES(PM_DTYPE_U8, 4, 1, 1, 1), (int64_t)pm_quant_panel_bytes(PM_QUANT_INT4, 1, 1));
    assert_int_equal(BYTES(PM_DTYPE_I8, 8, 64, 1, 64), -1);
    assert_int_equal(BYTES(PM_DTYPE_BF16, 4, 64, 1, 64), -1);
    assert_int_equal(BYTES(PM_DTYPE_U8, 8, 0, 1, 64), -1);
    assert_int_equal(BYTES(PM_DTYPE_U8, 8, 64, 1, 1u << 24), -1);
    assert_int_equal(BYTES(PM_DTYPE_U8, 8, (1u << 24) - 1, (1u << 24) - 1, (1u << 24) - 1), -1);
    assert_int_equal(BYTES(PM_DTYPE_U8, 4, (1u << 24) - 1, (1u << 24) - 1, (1u << 24) - 1), -1);
#undef BYTES
}

/* PAGEMILL_ISA chooses, and what it cannot choose is told. */
static void test_isa(void **state)
{
    (void)state;
    unsetenv("PAGEMILL_ISA");
    const struct pm_kernels *best = pm_kernels_get(NULL);
    assert_null(pm_kernels_missing());
    setenv("PAGEMILL_ISA", "plain", 1);
    assert_string_equal(pm_kernels_get(NULL)->name, "plain");
    assert_null(pm_kernels_missing());
    setenv("PAGEMILL_ISA", "abacus", 1);
    assert_ptr_equal(pm_kernels_get(NULL), best);
    assert_string_equal(pm_kernels_missing(), "abacus");
    assert_ptr_equal(pm_kernels_get(best->name), best);
    setenv("PAGEMILL_ISA", "", 1);
    assert_ptr_equal(pm_kernels_get(NULL), best);
    assert_null(pm_kernels_missing());
    unsetenv("PAGEMILL_ISA");
}

int main(void)
{
    const struct CMUnitTest once[] = {cmocka_unit_test(test_bind), cmocka_unit_test(test_layout_bytes),
                                      cmocka_unit_test(test_isa)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm_bf16), cmocka_unit_test(test_gemm_bf16_without_rows),
        cmocka_unit_test(test_gemm_bf16_is_independent_of_rows), cmocka_unit_test(test_linear)};
    int failed = cmocka_run_group_tests_name("products", once, NULL, NULL);
    return failed + run_all("products", tests, sizeof tests / sizeof *tests);
}
