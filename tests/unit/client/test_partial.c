/* STEM.partial.md: grows in page order whatever the order of events, leaves out what is dropped, goes away.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "client/cli/partial.h"
#include "tests/unit/client/fake_broker.h"

#define LIMIT_MS 20000

static struct fake_broker fake;
static pagemill *pm;
static char *dir;

static int start(void **state)
{
    (void)state;
    fake_start(&fake);
    dir = pm_fs_join(fake.dir, "out/doc");
    return pagemill_connect(fake.endpoint, NULL, LIMIT_MS, &pm, NULL);
}

static int stop(void **state)
{
    (void)state;
    pagemill_close(&pm);
    fake_stop(&fake);
    free(dir);
    return 0;
}

/* The blob of a page that says "Page N." under a header. */
static void page_blob(uint32_t number, char key_out[PM_BLOB_KEY_SIZE])
{
    char text[32];
    snprintf(text, sizeof text, "Page %u.", number);
    struct pm_out_region regions[2] = {{.label = PM_LABEL_HEADER,
                                        .content = "Running head",
                                        .box = {0, 0, 9, 9},
                                        .image_blob = "",
                                        .error_code = "",
                                        .error_text = ""},
                                       {.label = PM_LABEL_TEXT,
                                        .content = text,
                                        .box = {0, 20, 9, 29},
                                        .image_blob = "",
                                        .error_code = "",
                                        .error_text = ""}};
    struct pm_out_page page = {.page = number,
                               .width = 100,
                               .height = 100,
                               .regions = regions,
                               .region_count = 2,
                               .error_code = "",
                               .error_text = ""};
    struct pm_buf bytes = {0};
    pm_record_encode(&pm_out_page_schema, &page, &bytes);
    assert_int_equal(pm_blob_put(fake.blobs, PM_BLOB_DISK, bytes.data, bytes.size, key_out, NULL), 0);
    pm_buf_free(&bytes);
}

static void give(struct pm_partial *p, uint32_t number)
{
    char key[PM_BLOB_KEY_SIZE];
    page_blob(number, key);
    pm_partial_page(p, number, key);
    pm_partial_grow(p, pm);
}

/* Which of pages 1 to 9 the file shows, in order. */
static void expect(const char *digits)
{
    char *path = pm_fs_join(dir, "doc.partial.md"), have[16] = "";
    struct pm_buf text = {0};
    if (pm_fs_is_file(path)) {
        assert_int_equal(pm_fs_read(path, 10000, &text, NULL), 0);
        pm_buf_text(&text, "");
        for (const char *at = (const char *)text.data; (at = strstr(at, "Page ")); at++)
            strncat(have, at + 5, 1);
        assert_null(strstr((const char *)text.data, "Running head"));
    }
    assert_string_equal(have, digits);
    pm_buf_free(&text);
    free(path);
}

static void test_order(void **state)
{
    (void)state;
    struct pm_partial *p = pm_partial_new(dir, "doc", NULL, "md,json", "header");
    give(p, 2);
    expect("");
    give(p, 3);
    expect("");
    give(p, 1);
    expect("123");
    give(p, 1);                /* told twice after a lost connection */
    pm_partial_page(p, 4, ""); /* a page that failed does not hold up the others */
    give(p, 5);
    expect("1235");
    pm_partial_finish(p);
    assert_false(pm_fs_is_dir(dir)); /* file and folder are gone: nothing else was there */
    pm_partial_free(&p);
    assert_null(p);
}

static void test_selection(void **state)
{
    (void)state;
    struct pm_partial *p = pm_partial_new(dir, "doc", "7-9,3", "md", "header");
    give(p, 7);
    expect("");
    give(p, 3);
    expect("37");
    give(p, 9);
    give(p, 8);
    expect("3789");
    char *kept = pm_fs_join(dir, "doc.md");
    assert_int_equal(pm_fs_write(kept, "x", 1, false, NULL), 0);
    pm_partial_finish(p);
    assert_true(pm_fs_is_file(kept));
    free(kept);
    pm_partial_free(&p);
}

static void test_only_for_markdown(void **state)
{
    (void)state;
    assert_null(pm_partial_new(dir, "doc", NULL, "json,txt", NULL));
    struct pm_partial *p = pm_partial_new(dir, "doc", NULL, NULL, NULL);
    assert_non_null(p);
    pm_partial_page(p, 1, "d0000000000000000000000000000000000000000000000000000000000000000");
    pm_partial_grow(p, pm); /* a blob that is gone already: silently left out */
    expect("");
    pm_partial_free(&p);
    pm_partial_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, start, stop),
        cmocka_unit_test_setup_teardown(test_selection, start, stop),
        cmocka_unit_test_setup_teardown(test_only_for_markdown, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
