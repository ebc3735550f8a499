/* What a model has to do, counted beside sums done by hand; what the machine can do, and the phases, as far
 * as that can be known without a clock. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/measure/limits.h"
#include "engine/measure/phases.h"
#include "engine/measure/work.h"
#include "engine/vlm/image.h"
#include "engine/vlm/mtp.h"
#include "tests/unit/vlm/random_model.h"

static char dir[] = "/tmp/pm-measure-XXXXXX";

static int setup(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return pm_fs_remove_tree(dir, NULL);
}

/* ---- work ---- */

/* The first of random_sizes: hidden 48, 4 query and 2 key heads of 16, MLP 80, vocabulary 70, 2 layers.
 *
 * A row of a layer: 128 x 48 (queries, keys, values) + 48 x 64 + 160 x 48 (gate, up) + 48 x 80 = 20736
 * multiply-adds; a key that it looks at: 2 x 4 x 16. The head: 70 x 48 = 3360. */
enum { LAYERS = 2, ROW = 20736, HEAD = 3360, KEY = 128 };

/* Bytes of its products:
 *   f32, panels of 48 with a row for the bias: 128 x 49 + 48 x 65 + 160 x 49 + 48 x 81 = 21120 values a
 * layer, the head 72 x 49 = 3528 (the last panel of 22 outputs is 24 wide); 4 bytes bf16, panels of 64: 128 x
 * 48 + 64 x 64 + 192 x 48 + 64 x 80 = 24576, head 128 x 48 = 6144; 2 bytes int8, 4224 bytes for 64 outputs
 * and 64 inputs: 2 + 1 + 3 + 2 = 8 of them a layer, head 2 int4, 2176 bytes: the same 8; the head stays int8
 * A token's keys and values of a layer: 2 x (16 + 16) values of 4 bytes, else of 2. */
static const struct {
    enum pm_precision precision;
    enum pm_peak products, attention;
    double weights, token;
} kinds[] = {
    {PM_PRECISION_F32, PM_PEAK_F32, PM_PEAK_F32, (2 * 21120 + 3528) * 4, 2 * 64 * 4},
    {PM_PRECISION_BF16, PM_PEAK_BF16, PM_PEAK_BF16, (2 * 24576 + 6144) * 2, 2 * 64 * 2},
    {PM_PRECISION_INT8, PM_PEAK_INT8, PM_PEAK_BF16, (2 * 8 + 2) * 4224, 2 * 64 * 2},
    {PM_PRECISION_INT4, PM_PEAK_INT8, PM_PEAK_BF16, 2 * 8 * 2176 + 2 * 4224, 2 * 64 * 2},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void expect_work(const struct pm_work *w, int kind, double products, double attention, double bytes)
{
    double macs[PM_PEAKS] = {0};
    macs[kinds[kind].products] += products;
    macs[kinds[kind].attention] += attention;
    for (int i = 0; i < PM_PEAKS; i++)
        assert_true(w->macs[i] == macs[i]);
    assert_true(w->bytes == bytes);
}

static void test_text(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        struct pm_vlm_model *model = random_model_open(dir, &random_sizes[0], kinds[k].precision);
        /* three sequences, each looks at 9 tokens and itself */
        struct pm_work w = pm_work_step(model, 3, 9);
        expect_work(&w, k, 3 * (LAYERS * ROW + HEAD), LAYERS * KEY * 3 * 10,
                    kinds[k].weights + 3 * 10 * kinds[k].token);
        /* row n looks at n tokens: 1 + 2 + 3 + 4 + 5 */
        w = pm_work_prefill(model, 5);
        expect_work(&w, k, 5 * LAYERS * ROW + HEAD, LAYERS * KEY * 15, kinds[k].weights);
        pm_vlm_model_close(&model);
    }
}

/* The tower: width 64, 2 heads of 32, MLP 96, 2 blocks, patches of 3 x 2 x 4 x 4 values, 4 of them one token
 * of 48. */
static void test_vision(void **state)
{
    (void)state;
    enum { PATCH = 64 * 96, BLOCK = 192 * 64 + 64 * 64 + 192 * 64 + 64 * 96, BLOCKS = 2 };
    for (int k = 0; k < KINDS; k++) {
        struct pm_vlm_model *model = random_model_open(dir, &random_sizes[0], kinds[k].precision);
        double merger = 3 * 48;
        double token = 48 * 256 + 48 * 48 + 3 * merger * 48;
        struct pm_work w = pm_work_vision(model, 16);
        double products = 16.0 * (PATCH + BLOCKS * BLOCK) + 4 * token,
               attention = BLOCKS * 2.0 * 16 * 16 * 64;
        expect_work(&w, k, products, attention, w.bytes);
        /* Twice the patches: twice the products, four times the attention, the same weights. */
        struct pm_work twice = pm_work_vision(model, 32);
        expect_work(&twice, k, 2 * products, 4 * attention, w.bytes);
        if (kinds[k].precision == PM_PRECISION_BF16) {
            double up = ceil(2 * merger / 64) * 64;
            double values = PATCH + BLOCKS * BLOCK + 64 * 256 + 64 * 48 + up * 48 + 64 * merger;
            assert_true(w.bytes == 2 * values); /* all other widths are whole panels */
        }
        pm_vlm_model_close(&model);
    }
}

static void test_floors(void **state)
{
    (void)state;
    struct pm_work a = {.macs = {[PM_PEAK_F32] = 1e9, [PM_PEAK_BF16] = 4e9, [PM_PEAK_INT8] = 8e9},
                        .bytes = 3e9};
    struct pm_limit_figures slow = {.gops = {100, 400, 800}, .read_gb_s = 10};
    struct pm_limit_figures fast = {.gops = {300, 1200, 2400}, .read_gb_s = 100};
    assert_float_equal(pm_work_compute_s(&a, &slow), 0.02 + 0.02 + 0.02, 1e-12);
    assert_float_equal(pm_work_memory_s(&a, &slow), 0.3, 1e-12);
    assert_float_equal(pm_work_floor_s(&a, &slow), 0.3, 1e-12);
    struct pm_limit_figures mean = pm_limits_mean(&slow, &fast);
    assert_true(mean.gops[PM_PEAK_F32] == 200 && mean.gops[PM_PEAK_BF16] == 800);
    assert_true(mean.gops[PM_PEAK_INT8] == 1600 && mean.read_gb_s == 55);
    struct pm_work doubled = pm_work_times(&a, 2), sum = pm_work_sum(&a, &doubled);
    assert_true(sum.bytes == 9e9 && sum.macs[PM_PEAK_BF16] == 12e9 && sum.macs[PM_PEAK_INT8] == 24e9);
    sum.bytes = 0;
    assert_float_equal(pm_work_floor_s(&sum, &slow), 0.18, 1e-12);
}

/* ---- the machine ---- */

static void test_limits(void **state)
{
    (void)state;
    struct pm_pool *pool;
    struct pm_limits *limits;
    struct pm_error err;
    assert_int_equal(pm_pool_new(2, &pool, &err), 0);
    assert_int_equal(pm_limits_new(pool, &limits, &err), 0);
    struct pm_limit_figures f = pm_limits_take(limits);
    for (int i = 0; i < PM_PEAKS; i++) {
        assert_true(isfinite(f.gops[i]) && f.gops[i] > 0);
        assert_true(strlen(pm_peak_instruction((enum pm_peak)i)) > 0);
    }
    assert_true(isfinite(f.read_gb_s) && f.read_gb_s > 0);
    pm_limits_free(&limits);
    assert_null(limits);
    pm_limits_free(&limits);
    pm_pool_free(&pool);
}

/* ---- phases ---- */

static void test_phases(void **state)
{
    (void)state;
    struct pm_vlm_model *model = random_model_open(dir, &random_sizes[0], PM_PRECISION_BF16);
    struct pm_pool *pool;
    struct pm_phases *p;
    struct pm_error err;
    double s = -1;
    int patches = 0, width, height;
    assert_int_equal(pm_pool_new(1, &pool, &err), 0);
    assert_int_equal(pm_phases_new(model, pool, 1, model->config.text.max_positions + 1, &p, &err),
                     PM_ELIMIT);
    assert_null(p);
    assert_int_equal(pm_phases_new(model, pool, 2, 300, &p, &err), 0);
    assert_int_equal(pm_smart_resize(&model->config, 100, 60, &width, &height, &err), 0);
    assert_int_equal(pm_phases_patches(model, 100, 60, &patches, &err), 0);
    assert_int_equal(patches, width / 4 * (height / 4));
    assert_int_equal(pm_phases_vision(p, 100, 60, &s, &err), 0);
    assert_true(s > 0);
    s = -1;
    assert_int_equal(pm_phases_prefill(p, 300, &s, &err), 0); /* more than one pass */
    assert_true(s > 0);
    assert_int_equal(pm_phases_prefill(p, 301, &s, &err), PM_EINVAL);
    assert_non_null(strstr(err.text, "there is room for 2 of 300"));
    assert_int_equal(pm_phases_steps(p, 2, 290, 10, &s, &err), 0);
    assert_int_equal(pm_phases_steps(p, 2, 291, 10, &s, &err), PM_EINVAL);
    assert_int_equal(pm_phases_steps(p, 3, 10, 1, &s, &err), PM_EINVAL);
    for (int drafts = 1; drafts <= PM_MTP_DRAFTS_MAX; drafts++)
        assert_int_equal(pm_phases_drafts(p, drafts, 20, 3, &s, &err), 0);
    assert_int_equal(pm_phases_drafts(p, 0, 20, 3, &s, &err), PM_EINVAL);
    assert_int_equal(pm_phases_drafts(p, PM_MTP_DRAFTS_MAX + 1, 20, 3, &s, &err), PM_EINVAL);
    pm_phases_free(&p);
    assert_null(p);
    pm_vlm_model_close(&model);
    struct random_sizes without = random_sizes[0];
    without.name = "without";
    without.mtp_layers = 0;
    model = random_model_open(dir, &without, PM_PRECISION_BF16);
    assert_int_equal(pm_phases_new(model, pool, 1, 64, &p, &err), 0);
    assert_int_equal(pm_phases_drafts(p, 1, 20, 3, &s, &err), PM_EUNSUPPORTED);
    pm_phases_free(&p);
    pm_vlm_model_close(&model);
    pm_pool_free(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),   cmocka_unit_test(test_vision), cmocka_unit_test(test_floors),
        cmocka_unit_test(test_limits), cmocka_unit_test(test_phases),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
