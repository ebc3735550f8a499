/* The cache of what the tower made: against a list that is scanned by hand, with random pictures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/vlm/features.h"

enum { KEYS = 12, STEPS = 4000, VALUES_MAX = 60, MOST_BYTES = 1200 };

static uint32_t next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* In a reference model the bytes of one entry are what the cache says after the first put. */
static void test_least_used_leaves(void **state)
{
    (void)state;
    struct pm_features *f = pm_features_new(MOST_BYTES);
    struct pm_features_key keys[KEYS];
    size_t counts[KEYS], bytes[KEYS], pictures;
    float values[KEYS][VALUES_MAX];
    int order[KEYS], held = 0; /* newest first */
    uint32_t seed = 7;
    for (int k = 0; k < KEYS; k++) {
        memset(&keys[k], 0, sizeof keys[k]);
        keys[k].hash[31] = (uint8_t)(k / 3); /* some differ in their grids only */
        keys[k].rows = 2 + k % 3;
        keys[k].columns = 2;
        counts[k] = 1 + next(&seed) % VALUES_MAX;
        for (int i = 0; i < VALUES_MAX; i++)
            values[k][i] = (float)(k * 100 + i);
        struct pm_features *one = pm_features_new(MOST_BYTES);
        pm_features_put(one, &keys[k], values[k], counts[k]);
        bytes[k] = pm_features_bytes(one, &pictures);
        assert_int_equal(pictures, 1);
        pm_features_free(&one);
    }
    for (int step = 0; step < STEPS; step++) {
        int k = (int)(next(&seed) % KEYS), at = 0;
        while (at < held && order[at] != k)
            at++;
        bool is_held = at < held;
        size_t count, total = 0;
        if (next(&seed) % 2) {
            pm_features_put(f, &keys[k], values[k], counts[k]);
        } else {
            const float *found = pm_features_find(f, &keys[k], &count);
            assert_int_equal(found != NULL, is_held);
            assert_int_equal(count, is_held ? counts[k] : 0);
            if (found)
                assert_memory_equal(found, values[k], count * sizeof *found);
            else
                continue;
        }
        if (!is_held)
            at = held++;
        memmove(order + 1, order, (size_t)at * sizeof *order);
        order[0] = k;
        for (int i = 0; i < held; i++)
            total += bytes[order[i]];
        while (total > MOST_BYTES)
            total -= bytes[order[--held]];
        assert_int_equal(pm_features_bytes(f, &pictures), total);
        assert_int_equal(pictures, held);
    }
    pm_features_free(&f);
    f = pm_features_new(1); /* no room for anything */
    pm_features_put(f, &keys[0], values[0], 1);
    assert_int_equal(pm_features_bytes(f, NULL), 0);
    pm_features_free(&f);
}

/* Every pixel, the kind and the grid count; what lies between rows does not. */
static void test_keys(void **state)
{
    (void)state;
    uint8_t pixels[4 * 20] = {0}, other[4 * 30] = {0};
    struct pm_image image = {pixels, 4, 4, 3, 20, NULL};
    struct pm_features_key base = pm_features_key(&image, 2, 2), key;
    for (int i = 0; i < 80; i++) {
        pixels[i] ^= 0x10;
        key = pm_features_key(&image, 2, 2);
        assert_int_equal(memcmp(&key, &base, sizeof key) == 0, i % 20 >= 12);
        pixels[i] ^= 0x10;
    }
    image.pixels = other;
    image.stride_bytes = 30;
    key = pm_features_key(&image, 2, 2);
    assert_memory_equal(&key, &base, sizeof key);
    key = pm_features_key(&image, 1, 4);
    assert_memory_not_equal(&key, &base, sizeof key);
    image = (struct pm_image){pixels, 12, 4, 1, 20, NULL}; /* the same bytes in grey */
    key = pm_features_key(&image, 2, 2);
    assert_memory_not_equal(key.hash, base.hash, sizeof base.hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_least_used_leaves),
        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
