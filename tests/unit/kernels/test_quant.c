/* Integer products: the packing keeps values as near as its bits allow, and every table computes what plain C
 * computes, to the last bit, whatever the sizes, the extremes and the company. */
#include "tests/unit/kernels/common.h"

#include "base/mem.h"
#include "engine/vlm/linear.h"

enum { GROUP = PM_QUANT_GROUP, N = PM_PANEL_QUANT };

static size_t group_bytes(enum pm_quant_bits bits)
{
    return bits == PM_QUANT_INT8 ? PM_INT8_GROUP_BYTES : PM_INT4_GROUP_BYTES;
}

static int zero_of(enum pm_quant_bits bits)
{
    return bits == PM_QUANT_INT8 ? PM_INT8_ZERO : PM_INT4_ZERO;
}

/* ---- packing ---- */

/* No value is further from itself than half a step (int4: than the widest step that may be chosen), and what
 * stands for no weight is 0. */
static void check_packing(enum pm_quant_bits bits, int n, int k)
{
    size_t values = (size_t)n * (size_t)k, panel_bytes = pm_quant_panel_bytes(bits, 1, (size_t)k);
    float *w = floats(values);
    for (size_t i = 0; i < values; i++) /* groups of very different sizes */
        w[i] *= ldexpf(1, (int)(i / GROUP % 40) - 20);
    uint8_t *panels = bytes(pm_quant_panel_bytes(bits, n, (size_t)k));
    for (int o = 0; o < n; o += N)
        assert_true(pm_quant_panel_fill(bits, w + (size_t)o * (size_t)k, n - o < N ? n - o : N, (size_t)k,
                                        panels + (size_t)(o / N) * panel_bytes));
    for (int o = 0; o < n; o++)
        for (int first = 0; first < k; first += GROUP) {
            int count = k - first < GROUP ? k - first : GROUP;
            const float *group = w + (size_t)o * (size_t)k + first;
            double largest = 0, error = 0;
            for (int i = 0; i < count; i++)
                largest = fmax(largest, fabs((double)group[i]));
            for (int i = 0; i < count; i++) {
                double got = (double)pm_quant_panel_value(bits, panels, (size_t)k, o, (size_t)(first + i));
                double off = fabs(got - (double)group[i]);
                check("-", "packed", got, (double)group[i],
                      largest * (bits == PM_QUANT_INT8 ? 0.5 / 127 * 1.02 : 0.5));
                error += off * off;
            }
            if (bits == PM_QUANT_INT4) /* 15 steps over even noise: a sixteenth of a step's square */
                assert_true(sqrt(error / count) <= largest * 2 / 15 * 0.5 + 1e-30);
        }
    for (int o = n; o < (n + N - 1) / N * N; o++)
        for (int i = 0; i < (k + GROUP - 1) / GROUP * GROUP; i++)
            assert_true(pm_quant_panel_value(bits, panels, (size_t)k, o, (size_t)i) == 0.0f);
    for (int i = k; i < (k + GROUP - 1) / GROUP * GROUP; i++)
        assert_true(pm_quant_panel_value(bits, panels, (size_t)k, 0, (size_t)i) == 0.0f);
    free(w);
    free(panels);
}

static void test_packing(void **state)
{
    (void)state;
    static const int sizes[][2] = {{1, 1}, {3, 63}, {64, 64}, {65, 130}, {130, 1000}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        check_packing(PM_QUANT_INT8, sizes[i][0], sizes[i][1]);
        check_packing(PM_QUANT_INT4, sizes[i][0], sizes[i][1]);
    }
}

/* The search for a scale is worth its time: no group is worse than with the scale of its largest value, and
 * all together they are clearly better. */
static void test_int4_search(void **state)
{
    (void)state;
    double found = 0, simple = 0;
    for (int round = 0; round < 200; round++) {
        float w[GROUP];
        uint8_t panel[PM_INT4_GROUP_BYTES];
        float largest = 0;
        for (int i = 0; i < GROUP; i++) { /* about a bell curve, as weights are */
            w[i] = noise() + noise() + noise() + noise();
            largest = fabsf(w[i]) > fabsf(largest) ? w[i] : largest;
        }
        assert_true(pm_quant_panel_fill(PM_QUANT_INT4, w, 1, GROUP, panel));
        for (int i = 0; i < GROUP; i++) {
            double got = (double)pm_quant_panel_value(PM_QUANT_INT4, panel, GROUP, 0, (size_t)i);
            double step = (double)largest / -8;
            double q = fmin(fmax(rint((double)w[i] / step), -8), 7) * step;
            found += (got - (double)w[i]) * (got - (double)w[i]);
            simple += (q - (double)w[i]) * (q - (double)w[i]);
        }
    }
    assert_true(found < 0.93 * simple);
}

/* Weights of nothing, one value, one huge value among small ones, values near the ends of f32. */
static void test_packing_extremes(void **state)
{
    (void)state;
    static const float firsts[] = {0, 1, -1, 3e38f, -3e38f, 1e-38f, 1e-44f, 65504, -7.5e-9f};
    for (size_t f = 0; f < sizeof firsts / sizeof *firsts; f++)
        for (int bits = 4; bits <= 8; bits += 4) {
            float w[GROUP] = {firsts[f]};
            uint8_t panel[PM_INT8_GROUP_BYTES];
            assert_true(pm_quant_panel_fill((enum pm_quant_bits)bits, w, 1, GROUP, panel));
            double got = (double)pm_quant_panel_value((enum pm_quant_bits)bits, panel, GROUP, 0, 0);
            check("-", "one weight", got, (double)firsts[f], fabs((double)firsts[f]) * 0.005 + 1e-37);
            for (size_t i = 1; i < GROUP; i++)
                assert_true(pm_quant_panel_value((enum pm_quant_bits)bits, panel, GROUP, 0, i) == 0.0f);
        }
}

/* ---- rounded inputs ---- */

struct rounded {
    void *memory;
    struct pm_quant_rows rows;
};

static struct rounded round_with(const struct pm_kernels *kernels, const uint16_t *x, size_t stride, int rows,
                                 int k, int zero)
{
    struct rounded r = {.memory = bytes(pm_quant_rows_bytes(rows, k))};
    r.rows = pm_quant_rows_at(r.memory, rows, k);
    kernels->quant->round_rows(x, stride, k, zero, &r.rows);
    return r;
}

static void check_same_rounding(const struct pm_kernels *kernels, const uint16_t *x, size_t stride, int rows,
                                int k)
{
    struct rounded want = round_with(pm_kernels_get("plain"), x, stride, rows, k, PM_INT8_ZERO);
    struct rounded got = round_with(kernels, x, stride, rows, k, PM_INT8_ZERO);
    size_t pieces = (size_t)rows * (size_t)want.rows.groups;
    assert_memory_equal(got.rows.values, want.rows.values, pieces * GROUP);
    assert_memory_equal(got.rows.scales, want.rows.scales, pieces * sizeof(float));
    assert_memory_equal(got.rows.corrections, want.rows.corrections, pieces * sizeof(int32_t));
    free(want.memory);
    free(got.memory);
}

static void test_round_rows(void **state)
{
    for (int k = 1; k < 700; k += 1 + k / 4) {
        int rows = 1 + (int)number(5);
        size_t stride = (size_t)k + number(9);
        uint16_t *x = halves((size_t)(rows - 1) * stride + (size_t)k);
        check_same_rounding(*state, x, stride, rows, k);
        struct rounded r = round_with(*state, x, stride, rows, k, PM_INT4_ZERO);
        for (int row = 0; row < rows; row++)
            for (int g = 0; g < r.rows.groups; g++) {
                size_t at = (size_t)g * (size_t)rows + (size_t)row;
                int32_t sum = 0;
                double largest = 0;
                for (int i = 0; i < GROUP; i++) {
                    int column = g * GROUP + i, value = r.rows.values[at * GROUP + (size_t)i];
                    double want =
                        column < k ? (double)pm_bf16_to_f32(x[(size_t)row * stride + (size_t)column]) : 0;
                    sum += value;
                    largest = fmax(largest, fabs(want));
                    check("-", "rounded", value * (double)r.rows.scales[at], want,
                          (double)r.rows.scales[at] * 0.501);
                }
                check("-", "scale", (double)r.rows.scales[at] * 127, largest, largest * 1e-6);
                assert_int_equal(r.rows.corrections[at], -PM_INT4_ZERO * sum);
            }
        free(r.memory);
        free(x);
    }
}

/* Every kind of value, not-a-number and infinity too: the same in every table; what cannot be rounded spoils
 * its own group only. */
static void test_round_extremes(void **state)
{
    static const uint16_t odd[] = {0x0000, 0x8000, 0x0001, 0x807f, 0x0080, 0x7f7f, 0xff7f,
                                   0x7f80, 0xff80, 0x7fc0, 0xffff, 0x3f80, 0xbf80, 0x0da2};
    enum { K = 3 * GROUP };
    for (int round = 0; round < 300; round++) {
        uint16_t x[K];
        for (int i = 0; i < K; i++)
            x[i] = round % 3 ? pm_bf16_from_f32(noise()) : (uint16_t)number(0x7f80);
        for (int i = 0; i < round % 4; i++)
            x[GROUP + number(GROUP)] = odd[number(sizeof odd / sizeof *odd)];
        check_same_rounding(*state, x, K, 1, K);
    }
    uint16_t x[2 * GROUP] = {0x7f80, 0x3f80};
    x[GROUP] = 0x3f80;
    struct rounded r = round_with(*state, x, 2 * GROUP, 1, 2 * GROUP, PM_INT8_ZERO);
    assert_true(isnan(r.rows.scales[0]));
    assert_int_equal(r.rows.values[GROUP], 127);
    free(r.memory);
}

/* ---- products ---- */

/* Random bytes as weights (-128 among them) and sane scales. */
static uint8_t *random_panel(enum pm_quant_bits bits, int groups)
{
    uint8_t *panel = bytes((size_t)groups * group_bytes(bits));
    for (size_t i = 0; i < (size_t)groups * group_bytes(bits); i++)
        panel[i] = (uint8_t)number(256);
    for (int g = 0; g < groups; g++)
        for (int o = 0; o < N; o++) {
            uint16_t scale = pm_bf16_from_f32(noise());
            memcpy(panel + (size_t)g * group_bytes(bits) + 2 * o, &scale, sizeof scale);
        }
    return panel;
}

static void run(const struct pm_kernels *kernels, enum pm_quant_bits bits, const struct pm_gemm_quant *g)
{
    if (bits == PM_QUANT_INT8)
        kernels->quant->gemm_int8(g);
    else
        kernels->quant->gemm_int4(g);
}

static void check_gemm(const struct pm_kernels *kernels, enum pm_quant_bits bits, int rows, int k,
                       int columns, bool with_bias, bool add)
{
    size_t stride = (size_t)columns + number(3), out_count = (size_t)(rows - 1) * stride + (size_t)columns;
    uint16_t *x = halves((size_t)rows * (size_t)k);
    struct rounded r = round_with(kernels, x, (size_t)k, rows, k, zero_of(bits));
    uint8_t *panel = random_panel(bits, r.rows.groups);
    float *bias = floats(N), *out = floats(out_count), *want = bytes(out_count * sizeof *want),
          *was = bytes(out_count * sizeof *was);
    memcpy(want, out, out_count * sizeof *want);
    memcpy(was, out, out_count * sizeof *was);
    struct pm_gemm_quant g = {.x = &r.rows,
                              .panel = panel,
                              .bias = with_bias ? bias : NULL,
                              .columns = columns,
                              .out = want,
                              .out_stride = stride,
                              .add = add};
    run(pm_kernels_get("plain"), bits, &g);
    g.out = out;
    run(kernels, bits, &g);
    assert_memory_equal(out, want, out_count * sizeof *out); /* and nothing between the rows */
    for (int row = 0; row < rows; row += 1 + rows / 3)
        for (int c = 0; c < columns; c += 1 + columns / 5) {
            size_t at = (size_t)row * stride + (size_t)c;
            double sum = (with_bias ? (double)bias[c] : 0) + (add ? (double)was[at] : 0), size = fabs(sum);
            for (int i = 0; i < k; i++) {
                size_t piece = (size_t)(i / GROUP) * (size_t)rows + (size_t)row;
                double term = (double)r.rows.values[piece * GROUP + (size_t)(i % GROUP)] *
                              (double)r.rows.scales[piece] *
                              (double)pm_quant_panel_value(bits, panel, (size_t)k, c, (size_t)i);
                sum += term;
                size += fabs(term);
            }
            check(kernels->name, "gemm_quant", out[at], sum, 1e-6 * size);
        }
    free(x);
    free(r.memory);
    free(panel);
    free(bias);
    free(out);
    free(want);
    free(was);
}

static void test_gemm(void **state)
{
    for (int bits = 4; bits <= 8; bits += 4) {
        for (int rows = 1; rows <= 37; rows += rows < 20 ? 1 : 5)
            check_gemm(*state, (enum pm_quant_bits)bits, rows, 1 + (int)number(400),
                       rows % 4 ? 1 + (int)number(N) : N, rows % 3, rows % 2);
        for (int columns = 1; columns <= N; columns++)
            check_gemm(*state, (enum pm_quant_bits)bits, 1 + columns % 6, 100, columns, columns % 2,
                       columns % 3 == 0);
        check_gemm(*state, (enum pm_quant_bits)bits, 3, 1 << 16, N, true, false);
    }
}

/* The largest sums that there are: all weights at one end, all inputs at the other. */
static void test_gemm_extremes(void **state)
{
    const struct pm_kernels *kernels = *state;
    enum { K = 1 << 16, GROUPS = K / GROUP };
    static const uint8_t ends[] = {0x00, 0xff};
    for (int bits = 4; bits <= 8; bits += 4)
        for (int end = 0; end < 2; end++)
            for (int sign = -1; sign <= 1; sign += 2) {
                uint16_t *x = bytes(K * sizeof *x);
                for (int i = 0; i < K; i++)
                    x[i] = pm_bf16_from_f32((float)(sign * 127));
                struct rounded r = round_with(kernels, x, K, 1, K, zero_of((enum pm_quant_bits)bits));
                size_t bytes_a_group = group_bytes((enum pm_quant_bits)bits);
                uint8_t *panel = bytes(GROUPS * bytes_a_group);
                memset(panel, ends[end], GROUPS * bytes_a_group);
                for (int g = 0; g < GROUPS; g++)
                    for (int o = 0; o < N; o++)
                        memcpy(panel + (size_t)g * bytes_a_group + 2 * o, &(uint16_t){0x3f80}, 2);
                float out[N];
                run(kernels, (enum pm_quant_bits)bits,
                    &(struct pm_gemm_quant){
                        .x = &r.rows, .panel = panel, .columns = N, .out = out, .out_stride = N});
                int weight = (bits == 8 ? 255 : 15) * end - zero_of((enum pm_quant_bits)bits);
                double want = (double)sign * 127 * weight * K;
                for (int o = 0; o < N; o++)
                    check(kernels->name, "extremes", out[o], want, fabs(want) * 1e-5);
                free(x);
                free(r.memory);
                free(panel);
            }
}

/* A row is the same bits alone and in any company. */
static void test_gemm_is_independent_of_rows(void **state)
{
    const struct pm_kernels *kernels = *state;
    enum { ROWS = 41, K = 150 };
    for (int bits = 4; bits <= 8; bits += 4) {
        uint16_t *x = halves(ROWS * K);
        uint8_t *panel = random_panel((enum pm_quant_bits)bits, (K + GROUP - 1) / GROUP);
        float *all = floats(ROWS * N), *some = floats(ROWS * N);
        struct rounded r = round_with(kernels, x, K, ROWS, K, zero_of((enum pm_quant_bits)bits));
        struct pm_gemm_quant g = {.x = &r.rows, .panel = panel, .columns = N, .out = all, .out_stride = N};
        run(kernels, (enum pm_quant_bits)bits, &g);
        free(r.memory);
        g.out = some;
        for (int first = 0; first < ROWS; first += 3)
            for (int rows = 1; rows <= 19 && first + rows <= ROWS; rows++) {
                r = round_with(kernels, x + first * K, K, rows, K, zero_of((enum pm_quant_bits)bits));
                g.x = &r.rows;
                run(kernels, (enum pm_quant_bits)bits, &g);
                assert_memory_equal(some, all + first * N, (size_t)(rows * N) * sizeof *some);
                free(r.memory);
            }
        free(x);
        free(panel);
        free(all);
        free(some);
    }
}

int main(void)
{
    const struct CMUnitTest once[] = {cmocka_unit_test(test_packing), cmocka_unit_test(test_int4_search),
                                      cmocka_unit_test(test_packing_extremes)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_rows), cmocka_unit_test(test_round_extremes), cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_gemm_extremes), cmocka_unit_test(test_gemm_is_independent_of_rows)};
    int failed = cmocka_run_group_tests_name("quant", once, NULL, NULL);
    return failed + run_all("quant", tests, sizeof tests / sizeof *tests);
}
