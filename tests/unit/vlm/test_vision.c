/* The vision tower: a picture's tokens do not depend on slices, threads or the picture before. (That they are
 * right is shown by parity engine.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/vlm/vision.h"
#include "tests/unit/base/folder.h"
#include "tests/unit/vlm/random_model.h"

/* A grid of squares of random values; more than two blocks of keys, the last one not full. */
static struct pm_patches make_patches(const struct pm_vlm_model *model, int squares_down, int squares_across,
                                      uint64_t seed)
{
    const struct pm_vision_config *c = &model->config.vision;
    struct pm_patches p = {.rows = squares_down * c->merge, .columns = squares_across * c->merge};
    size_t count =
        (size_t)p.rows * (size_t)p.columns * (size_t)(c->in_channels * c->temporal * c->patch * c->patch);
    p.values = pm_xalloc(count * sizeof *p.values);
    for (size_t i = 0; i < count; i++)
        p.values[i] = random_value(&seed);
    return p;
}

/* Tokens of a picture, max_macs a step; free(). */
static float *run(struct pm_vision *vision, const struct pm_vlm_model *model,
                  const struct pm_patches *patches, int64_t max_macs, int *steps_out, int *count_out)
{
    struct pm_error err;
    if (pm_vision_begin(vision, patches, &err))
        fail_msg("%s", err.text);
    *steps_out = 1;
    while (!pm_vision_step(vision, max_macs))
        ++*steps_out;
    const float *tokens = pm_vision_tokens(vision, count_out);
    size_t bytes = (size_t)*count_out * (size_t)model->config.vision.out_hidden * sizeof(float);
    float *out = pm_xalloc(bytes);
    memcpy(out, tokens, bytes);
    return out;
}

static void check_slices(const struct pm_vlm_model *model, const struct pm_kernels *kernels)
{
    int steps, count, again;
    size_t width = (size_t)model->config.vision.out_hidden;
    struct pm_pool *pool;
    assert_int_equal(pm_pool_new(2, &pool, NULL), 0);
    struct pm_patches patches = make_patches(model, 4, 11, 1), large = make_patches(model, 8, 9, 2),
                      small = make_patches(model, 1, 1, 3);
    struct pm_vision *one = pm_vision_new(model, kernels, NULL), *two = pm_vision_new(model, kernels, pool);
    float *whole = run(one, model, &patches, INT64_MAX, &steps, &count);
    assert_int_equal(steps, 1);
    assert_int_equal(count, 44);
    for (size_t i = 0; i < (size_t)count * width; i++)
        if (!(whole[i] > -1e4f && whole[i] < 1e4f))
            fail_msg("value %zu is %g", i, (double)whole[i]);
    /* a larger picture before, so that memory is full of other values; then the smallest slices */
    free(run(two, model, &large, INT64_MAX, &steps, &again));
    float *sliced = run(two, model, &patches, 1, &steps, &again);
    assert_true(steps > 10);
    assert_int_equal(again, count);
    if (memcmp(whole, sliced, (size_t)count * width * sizeof *whole))
        fail_msg("%s: slices and threads change the tokens", kernels->name);
    /* one that is dropped half way */
    assert_int_equal(pm_vision_begin(one, &large, NULL), 0);
    assert_false(pm_vision_step(one, 1));
    free(run(one, model, &small, 1000, &steps, &again));
    assert_int_equal(again, 1);
    float *after = run(one, model, &patches, 100000, &steps, &again);
    assert_memory_equal(whole, after, (size_t)count * width * sizeof *whole);
    free(whole);
    free(sliced);
    free(after);
    free(patches.values);
    free(large.values);
    free(small.values);
    pm_vision_free(&one);
    pm_vision_free(&two);
    pm_pool_free(&pool);
}

static void each_table(const char *dir, enum pm_precision precision)
{
    for (int i = 0; i < RANDOM_SIZES; i++) {
        struct pm_vlm_model *model = random_model_open(dir, &random_sizes[i], precision);
        for (const char *const *name = random_tables; *name; name++)
            if (pm_kernels_get(*name))
                check_slices(model, pm_kernels_get(*name));
        pm_vlm_model_close(&model);
    }
}

static void test_slices_f32(void **state)
{
    each_table(*state, PM_PRECISION_F32);
}

static void test_slices_bf16(void **state)
{
    each_table(*state, PM_PRECISION_BF16);
}

static void test_slices_int8(void **state)
{
    each_table(*state, PM_PRECISION_INT8);
}

/* All precisions see the same picture (in int4 the vision tower is int8). */
static void check_precision(const char *dir, enum pm_precision precision, double limit)
{
    for (int i = 0; i < RANDOM_SIZES; i++) {
        float *tokens[2];
        size_t values = 0;
        for (int p = 0; p < 2; p++) {
            struct pm_vlm_model *model =
                random_model_open(dir, &random_sizes[i], p ? precision : PM_PRECISION_F32);
            struct pm_patches patches = make_patches(model, 3, 4, 1);
            struct pm_vision *vision = pm_vision_new(model, pm_kernels_get(NULL), NULL);
            int steps, count;
            tokens[p] = run(vision, model, &patches, INT64_MAX, &steps, &count);
            values = (size_t)count * (size_t)model->config.vision.out_hidden;
            free(patches.values);
            pm_vision_free(&vision);
            pm_vlm_model_close(&model);
        }
        double error = 0, size = 0;
        for (size_t k = 0; k < values; k++) {
            double d = (double)tokens[0][k] - (double)tokens[1][k];
            error += d * d;
            size += (double)tokens[0][k] * (double)tokens[0][k];
        }
        assert_true(size > 0);
        if (!(error <= limit * size))
            fail_msg("%s: %s is off by %g of %g", random_sizes[i].name, pm_precision_name(precision), error,
                     size);
        free(tokens[0]);
        free(tokens[1]);
    }
}

static void test_precisions(void **state)
{
    check_precision(*state, PM_PRECISION_BF16, 1e-3);
    check_precision(*state, PM_PRECISION_INT8, 3e-3);
    check_precision(*state, PM_PRECISION_INT4, 3e-3);
}

static void test_memory(void **state)
{
    struct pm_vlm_model *model = random_model_open(*state, &random_sizes[0], PM_PRECISION_F32);
    size_t one = pm_vision_bytes(model, 6400), four = pm_vision_bytes(model, 25600);
    assert_true(four > 3 * one && four < 5 * one); /* linear in patches */
    pm_vlm_model_close(&model);
}

static void test_refused(void **state)
{
    struct pm_vlm_model *model = random_model_open(*state, &random_sizes[0], PM_PRECISION_F32);
    struct pm_vision *vision = pm_vision_new(model, pm_kernels_get(NULL), NULL);
    static const struct pm_patches wrong[] = {{.rows = 3, .columns = 4},
                                              {.rows = 0, .columns = 4},
                                              {.rows = 4, .columns = -4},
                                              {.rows = 1 << 20, .columns = 1 << 20}};
    struct pm_error err;
    int count;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(pm_vision_begin(vision, &wrong[i], &err), PM_EINVAL);
    assert_true(pm_vision_step(vision, 1)); /* nothing to do */
    (void)pm_vision_tokens(vision, &count);
    assert_int_equal(count, 0);
    pm_vision_free(&vision);
    pm_vlm_model_close(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slices_f32),  cmocka_unit_test(test_slices_bf16),
        cmocka_unit_test(test_slices_int8), cmocka_unit_test(test_precisions),
        cmocka_unit_test(test_memory),      cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_drop);
}
