/* The progress line: widths, estimates, rates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "client/cli/progress.h"
#include "client/cli/show.h"

static const struct pm_progress_view half = {.documents = 5,
                                             .documents_done = 2,
                                             .pages = 40,
                                             .pages_done = 20,
                                             .regions = 200,
                                             .regions_done = 70,
                                             .pages_per_s = 2.0};

static void test_bar(void **state)
{
    (void)state;
    char text[300];
    pm_progress_bar(&half, 100, text, sizeof text);
    assert_string_equal(text,
                        "[###############...............] 20/40 pages  2.00 pages/s  ETA 0:10  2/5 files  "
                        "130 regions queued");
    pm_progress_bar(&half, 24, text, sizeof text);
    assert_string_equal(text, "[####.....] 20/40 pages");
    pm_progress_bar(&half, 5, text, sizeof text); /* nothing fits */
    assert_string_equal(text, "");
}

/* Whatever the figures and the width: it fits, and is plain ASCII. */
static void test_bar_always_fits(void **state)
{
    (void)state;
    struct pm_progress_view v = {.documents = UINT64_MAX,
                                 .documents_done = UINT64_MAX,
                                 .documents_failed = 1,
                                 .pages = UINT64_MAX,
                                 .pages_done = UINT64_MAX - 1,
                                 .has_more_pages = true,
                                 .regions = UINT64_MAX,
                                 .pages_part = 0.5,
                                 .pages_per_s = 1e30};
    for (int huge = 0; huge < 2; huge++)
        for (int width = 0; width < 400; width++) {
            char text[200];
            pm_progress_bar(huge ? &v : &half, width, text, sizeof text);
            assert_true(strlen(text) < sizeof text);
            assert_true(strlen(text) == 0 || (int)strlen(text) < width);
            for (const char *p = text; *p; p++)
                assert_true(*p >= 0x20 && *p < 0x7f);
        }
}

static void test_no_estimate_without_knowledge(void **state)
{
    (void)state;
    struct pm_progress_view v = half;
    char text[300];
    v.has_more_pages = true;
    pm_progress_bar(&v, 100, text, sizeof text);
    assert_null(strstr(text, "ETA"));
    assert_non_null(strstr(text, "20/40+ pages"));
    v = half;
    v.pages_per_s = 0;
    pm_progress_bar(&v, 100, text, sizeof text);
    assert_null(strstr(text, "ETA"));
    pm_progress_line(&half, text, sizeof text);
    assert_string_equal(
        text, "20/40 pages, 70 of 200 regions in hand, 2 of 5 documents, 2.00 pages/s, about 0:10 left");
}

/* A reader that takes a minute for a page: its regions move the bar, and the clock shows that it works. */
static void test_slow(void **state)
{
    (void)state;
    char text[300];
    struct pm_progress_view v = {.documents = 1, .pages = 1, .regions = 10, .elapsed_us = 20000000};
    pm_progress_bar(&v, 100, text, sizeof text);
    assert_string_equal(text, "[..............................] 0/1 pages  0/10 regions  0:20");
    v.regions_done = 5;
    v.elapsed_us = 60000000;
    v.pages_part = pm_progress_part(1, 0, 10, 5);
    pm_progress_bar(&v, 100, text, sizeof text);
    assert_string_equal(
        text, "[###############...............] 0/1 pages  5/10 regions  1:00  120 s/page  ETA 1:00");
    pm_progress_line(&v, text, sizeof text);
    assert_string_equal(text,
                        "0/1 pages, 5 of 10 regions in hand, 0 of 1 documents, 120 s/page, about 1:00 left");
    /* one page in the last half minute says less than all since the start */
    v = (struct pm_progress_view){.documents = 1,
                                  .pages = 10,
                                  .pages_done = 5,
                                  .regions = 60,
                                  .regions_done = 52,
                                  .pages_per_s = 1.0 / 31,
                                  .elapsed_us = 500000000};
    pm_progress_bar(&v, 100, text, sizeof text);
    assert_non_null(strstr(text, "100 s/page  ETA 8:20"));
    assert_true(pm_progress_part(3, 1, 20, 10) == 0); /* how many regions the third page has is not known */
    assert_true(pm_progress_part(2, 1, 20, 15) == 0.5);
    assert_true(pm_progress_part(2, 1, 20, 20) < 1 && pm_progress_part(1, 0, 3, 4) == 0);
    assert_true(pm_progress_part(1, 1, 20, 20) == 0 && pm_progress_part(2, 1, 50, 1) == 0);
}

static void test_rate(void **state)
{
    (void)state;
    struct pm_rate rate = {0};
    assert_true(pm_rate_update(&rate, 1000000, 0) == 0);
    for (int s = 1; s <= 10; s++) /* 3 pages a second */
        assert_true(pm_rate_update(&rate, 1000000 + s * 1000000, (uint64_t)s * 3) == 3.0);
    for (int s = 11; s <= 60; s++) /* then one: the window forgets the fast start */
        pm_rate_update(&rate, 1000000 + s * 1000000, 30 + (uint64_t)(s - 10));
    double late = pm_rate_update(&rate, 62000000, 81);
    assert_true(late > 0.99 && late < 1.05);
    assert_true(pm_rate_update(&rate, 62500000, 81) >
                0); /* half a second later: no division by a tiny span */
}

static void test_units(void **state)
{
    (void)state;
    char text[24];
    pm_progress_time(42000000, text, sizeof text);
    assert_string_equal(text, "0:42");
    pm_progress_time(10931000000, text, sizeof text);
    assert_string_equal(text, "3:02:11");
    pm_show_duration(532000, text, sizeof text);
    assert_string_equal(text, "532 ms");
    pm_show_duration(12300000, text, sizeof text);
    assert_string_equal(text, "12.3 s");
    pm_show_duration(-5, text, sizeof text);
    assert_string_equal(text, "0 ms");
    pm_show_bytes(812, text, sizeof text);
    assert_string_equal(text, "812 B");
    pm_show_bytes(3400000, text, sizeof text);
    assert_string_equal(text, "3.4 MB");
    pm_show_bytes(UINT64_MAX, text, sizeof text);
    assert_string_equal(text, "18447 PB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bar),
        cmocka_unit_test(test_bar_always_fits),
        cmocka_unit_test(test_no_estimate_without_knowledge),
        cmocka_unit_test(test_slow),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
