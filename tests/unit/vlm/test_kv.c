/* The KV cache's pages: taken, given back, zeroed, counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "engine/vlm/kv.h"
#include "tests/unit/base/folder.h"
#include "tests/unit/vlm/random_model.h"

struct fixture {
    struct pm_vlm_model model; /* only its sizes count */
    struct pm_kv_pool *pool;
};

static int setup(void **state)
{
    struct fixture *f = pm_xalloc(sizeof *f);
    f->model.precision = PM_PRECISION_F32;
    f->model.config.text =
        (struct pm_text_config){.layers = 2, .mtp_layers = 1, .kv_heads = 2, .head_dim = 10};
    size_t page = pm_kv_page_bytes(&f->model);
    f->pool = pm_kv_pool_new(&f->model, 5 * page + page / 2);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    pm_kv_pool_free(&f->pool);
    free(f);
    return 0;
}

static void test_sizes(void **state)
{
    const struct fixture *f = *state;
    size_t blocks = pm_key_block_bytes(10, false) + pm_value_block_bytes(10, false);
    assert_int_equal(pm_kv_page_bytes(&f->model), 3 * 2 * blocks);
    assert_int_equal(pm_kv_pool_pages(f->pool), 5);
    assert_int_equal(pm_kv_pool_used(f->pool), 0);
}

/* Every block of a page is its own memory, inside the page. */
static void test_blocks(void **state)
{
    struct fixture *f = *state;
    struct pm_kv kv = {0};
    assert_int_equal(pm_kv_reserve(f->pool, &kv, 65, NULL), 0);
    assert_int_equal(kv.page_count, 2);
    uint8_t mark = 1;
    for (int page = 0; page < 2; page++)
        for (int layer = 0; layer < 3; layer++)
            for (int head = 0; head < 2; head++) {
                memset(pm_kv_keys(f->pool, &kv, page, layer, head), mark++, pm_key_block_bytes(10, false));
                memset(pm_kv_values(f->pool, &kv, page, layer, head), mark++,
                       pm_value_block_bytes(10, false));
            }
    mark = 1;
    for (int page = 0; page < 2; page++)
        for (int layer = 0; layer < 3; layer++)
            for (int head = 0; head < 2; head++) {
                const uint8_t *keys = pm_kv_keys(f->pool, &kv, page, layer, head);
                const uint8_t *values = pm_kv_values(f->pool, &kv, page, layer, head);
                for (size_t i = 0; i < pm_key_block_bytes(10, false); i++)
                    assert_int_equal(keys[i], mark);
                mark++;
                for (size_t i = 0; i < pm_value_block_bytes(10, false); i++)
                    assert_int_equal(values[i], mark);
                mark++;
            }
    pm_kv_release(f->pool, &kv);
    assert_int_equal(kv.page_count, 0);
}

/* Pages come back zeroed: values of another text could be anything, infinity included. */
static void test_zeroed(void **state)
{
    struct fixture *f = *state;
    struct pm_kv kv = {0};
    size_t bytes = pm_kv_page_bytes(&f->model);
    assert_int_equal(pm_kv_reserve(f->pool, &kv, 1, NULL), 0);
    uint8_t *first = kv.pages[0];
    memset(first, 0xff, bytes);
    pm_kv_release(f->pool, &kv);
    assert_int_equal(pm_kv_reserve(f->pool, &kv, 1, NULL), 0);
    assert_ptr_equal(kv.pages[0], first);
    for (size_t i = 0; i < bytes; i++)
        assert_int_equal(kv.pages[0][i], 0);
    pm_kv_release(f->pool, &kv);
}

static void test_full(void **state)
{
    struct fixture *f = *state;
    struct pm_kv a = {0}, b = {0};
    struct pm_error err;
    assert_int_equal(pm_kv_reserve(f->pool, &a, 128, NULL), 0);
    assert_int_equal(pm_kv_reserve(f->pool, &b, 64, NULL), 0);
    assert_int_equal(pm_kv_pool_used(f->pool), 3);
    /* needs three more, two are left: nothing is taken */
    assert_int_equal(pm_kv_reserve(f->pool, &b, 64 + 129, &err), PM_EBUSY);
    assert_non_null(strstr(err.text, "all 5 pages"));
    assert_int_equal(pm_kv_pool_used(f->pool), 3);
    assert_int_equal(b.page_count, 1);
    assert_int_equal(pm_kv_reserve(f->pool, &b, 64 + 128, NULL), 0);
    assert_int_equal(pm_kv_pool_used(f->pool), 5);
    assert_int_equal(pm_kv_reserve(f->pool, &b, 1, NULL), 0); /* no less than now */
    assert_int_equal(b.page_count, 3);
    pm_kv_truncate(f->pool, &b, 65);
    assert_int_equal(b.page_count, 2);
    pm_kv_truncate(f->pool, &b, 128);
    assert_int_equal(b.page_count, 2);
    assert_int_equal(pm_kv_pool_used(f->pool), 4);
    pm_kv_release(f->pool, &a);
    pm_kv_release(f->pool, &b);
    assert_int_equal(pm_kv_pool_used(f->pool), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zeroed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
