/* Maps: against a plain list of the same pairs, under thousands of random puts and removes in a small key
 * space. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/map.h"

enum { KEYS = 300, TURNS = 60000 };

static uint64_t draw(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

/* Every step in both kinds of map and in `model`, where the value of an absent key is NULL. */
static void test_against_a_list(void **state)
{
    (void)state;
    static char values[2];
    void *model[KEYS] = {0};
    struct pm_map numbers = {0};
    struct pm_strmap texts = {0};
    uint64_t seed = 17;
    pm_strmap_seed(&texts, 12345);
    size_t count = 0;
    assert_null(pm_map_get(&numbers, 0));
    assert_null(pm_strmap_remove(&texts, ""));
    for (int turn = 0; turn < TURNS; turn++) {
        uint64_t key = draw(&seed) % KEYS;
        char text[24];
        snprintf(text, sizeof text, "%llx", (unsigned long long)key * 977);
        void *value = &values[draw(&seed) % 2];
        assert_ptr_equal(pm_map_get(&numbers, key), model[key]);
        assert_ptr_equal(pm_strmap_get(&texts, text), model[key]);
        /* by turns mostly growing and mostly shrinking, so that chains form and close */
        if (draw(&seed) % 4 < (turn / 5000 % 2 ? 1u : 3u)) {
            count += !model[key];
            model[key] = value;
            pm_map_put(&numbers, key, value);
            pm_strmap_put(&texts, text, value); /* the text changes below: it must have been copied */
        } else {
            count -= model[key] != NULL;
            assert_ptr_equal(pm_map_remove(&numbers, key), model[key]);
            assert_ptr_equal(pm_strmap_remove(&texts, text), model[key]);
            model[key] = NULL;
        }
        assert_int_equal(numbers.count, count);
        assert_int_equal(texts.map.count, count);
    }
    size_t cursor = 0, seen = 0;
    uint64_t key;
    const char *text;
    void *value;
    for (; pm_map_next(&numbers, &cursor, &key, &value); seen++)
        assert_ptr_equal(value, model[key]);
    assert_int_equal(seen, count);
    cursor = seen = 0;
    for (; pm_strmap_next(&texts, &cursor, &text, &value); seen++)
        assert_ptr_equal(pm_strmap_get(&texts, text), value);
    assert_int_equal(seen, count);
    pm_map_free(&numbers);
    pm_strmap_free(&texts);
    assert_int_equal(numbers.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_a_list)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
