/* The 8-bit cache: how far numbers move, and that every instruction set says the same. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/kernels/bf16.h"
#include "engine/kernels/kv8.h"

enum { BLOCK = PM_ATTENTION_BLOCK, DIMS = 6 };
static const int dims[DIMS] = {2, 10, 16, 34, 128, 256};
static const char *const tables[] = {"plain", "avx2", "avx512", "avx512bf16", NULL};

static float value(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(*state >> 32) / 2147483648.0f;
}

struct blocks {
    uint8_t *packed;
    uint16_t *keys, *values;
    int dim, width;
};

static struct blocks make(int dim)
{
    struct blocks b = {.dim = dim, .width = (dim + 15) / 16 * 16};
    b.packed = pm_xalloc(pm_kv8_block_bytes(dim));
    b.keys = pm_xalloc(pm_key_block_bytes(dim, true));
    b.values = pm_xalloc(pm_value_block_bytes(dim, true));
    return b;
}

static void drop(struct blocks *b)
{
    free(b->packed);
    free(b->keys);
    free(b->values);
}

static float key_at(const struct blocks *b, int slot, int d)
{
    return pm_bf16_to_f32(b->keys[(d / 2 * BLOCK + slot) * 2 + d % 2]);
}

static float value_at(const struct blocks *b, int slot, int d)
{
    return pm_bf16_to_f32(b->values[(slot / 2 * b->width + d) * 2 + slot % 2]);
}

/* At most half a step of 1/127 of the largest, and bf16's own rounding. */
static void expect_near(const float *want, int dim, float (*at)(const struct blocks *, int, int),
                        const struct blocks *b, int slot)
{
    float top = 0;
    for (int d = 0; d < dim; d++)
        top = fmaxf(top, fabsf(want[d]));
    for (int d = 0; d < dim; d++) {
        float got = at(b, slot, d);
        if (fabsf(got - want[d]) > top / 254 * 1.001f + fabsf(want[d]) / 200)
            fail_msg("dim %d, slot %d: %g became %g (largest %g)", dim, slot, (double)want[d], (double)got,
                     (double)top);
    }
}

static void test_bound(void **state)
{
    (void)state;
    for (int i = 0; i < DIMS; i++) {
        int dim = dims[i];
        size_t stride = (size_t)dim + 3;
        struct blocks b = make(dim);
        uint64_t dice = 3;
        float *x = pm_xalloc(2 * BLOCK * stride * sizeof *x);
        for (size_t k = 0; k < 2 * BLOCK * stride; k++)
            x[k] = value(&dice) * powf(10, 3 * value(&dice));
        const float *keys = x, *values = x + BLOCK * stride;
        /* in two goes, the last slot stays empty */
        pm_kv8_plain.put(keys, values, stride, 5, dim, 0, b.packed);
        pm_kv8_plain.put(keys + 5 * stride, values + 5 * stride, stride, BLOCK - 6, dim, 5, b.packed);
        pm_kv8_plain.expand(b.packed, dim, b.keys, b.values);
        for (int slot = 0; slot < BLOCK - 1; slot++) {
            expect_near(keys + (size_t)slot * stride, dim, key_at, &b, slot);
            expect_near(values + (size_t)slot * stride, dim, value_at, &b, slot);
            for (int d = dim; d < b.width; d++)
                assert_true(value_at(&b, slot, d) == 0);
        }
        for (int d = 0; d < dim; d++)
            assert_true(key_at(&b, BLOCK - 1, d) == 0 && value_at(&b, BLOCK - 1, d) == 0);
        free(x);
        drop(&b);
    }
}

/* Every table writes and reads the same bytes; a slot does not depend on what came with it. */
static void test_tables(void **state)
{
    (void)state;
    for (int i = 0; i < DIMS; i++)
        for (int t = 0; tables[t]; t++) {
            const struct pm_kernels *kernels = pm_kernels_get(tables[t]);
            if (!kernels)
                continue;
            const struct pm_kv8_kernels *k = pm_kv8_get(kernels);
            int dim = dims[i];
            struct blocks want = make(dim), got = make(dim);
            uint64_t dice = 9;
            float *x = pm_xalloc((size_t)(2 * BLOCK * dim) * sizeof *x);
            for (int n = 0; n < 2 * BLOCK * dim; n++)
                x[n] = n % 7 ? value(&dice) : 0;
            memset(x + dim, 0, (size_t)dim * sizeof *x); /* a key of nothing */
            pm_kv8_plain.put(x, x + BLOCK * dim, (size_t)dim, BLOCK, dim, 0, want.packed);
            for (int slot = BLOCK - 1; slot >= 0; slot--)
                k->put(x + slot * dim, x + (BLOCK + slot) * dim, (size_t)dim, 1, dim, slot, got.packed);
            assert_memory_equal(want.packed, got.packed, pm_kv8_block_bytes(dim));
            pm_kv8_plain.expand(want.packed, dim, want.keys, want.values);
            k->expand(want.packed, dim, got.keys, got.values);
            assert_memory_equal(want.keys, got.keys, pm_key_block_bytes(dim, true));
            assert_memory_equal(want.values, got.values, pm_value_block_bytes(dim, true));
            free(x);
            drop(&want);
            drop(&got);
        }
}

/* What is no number leaves none behind. */
static void test_not_finite(void **state)
{
    (void)state;
    struct blocks b = make(16);
    float x[16] = {1, NAN, -2}, y[16] = {INFINITY, 1};
    pm_kv8_plain.put(x, y, 16, 1, 16, 0, b.packed);
    pm_kv8_plain.expand(b.packed, 16, b.keys, b.values);
    for (int d = 0; d < 16; d++)
        assert_true(isfinite(key_at(&b, 0, d)) && value_at(&b, 0, d) == 0);
    drop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
