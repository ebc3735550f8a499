#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/pages.h"

static void good_selections(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t ranges, total, count, has, has_not;
    } cases[] = {
        {"", 0, 7, 7, 7, 0},
        {"  ", 0, 7, 7, 1, 0},
        {"3", 1, 7, 1, 3, 2},
        {"1-20,31", 2, 40, 21, 31, 30},
        {"3-", 1, 7, 5, 4000, 2},
        {"-5", 1, 7, 5, 1, 6},
        {" 2 - 4 , 9 ", 2, 20, 4, 9, 5},
        {"9,1,5", 3, 20, 3, 5, 4},
        {"1-3,2-6,7", 1, 20, 7, 7, 8},
        {"5-,1-2,9", 2, 10, 8, 9, 3},
        {"8-", 1, 7, 0, 8, 7},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pm_pages p;
        struct pm_error err;
        assert_int_equal(pm_pages_parse(cases[i].text, &p, &err), 0);
        assert_int_equal(p.range_count, cases[i].ranges);
        assert_int_equal(pm_pages_count(&p, cases[i].total), cases[i].count);
        assert_true(pm_pages_has(&p, cases[i].has));
        assert_false(pm_pages_has(&p, cases[i].has_not));
    }
}

static void bad_selections_say_where(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"0", "count from 1"},
        {"5-2", "backwards"},
        {"1,,3", "missing at character 3"},
        {"1,", "missing at character 3"},
        {"a", "at character 1"},
        {"1-x", "at character 3"},
        {"1 2", "at character 3"},
        {"-", "first or a last page"},
        {"99999999999", "too large"},
        {"1-0", "count from 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pm_pages p;
        struct pm_error err = {0};
        assert_int_equal(pm_pages_parse(cases[i].text, &p, &err), PM_EINVAL);
        if (!strstr(err.text, cases[i].says))
            fail_msg("\"%s\": %s", cases[i].text, err.text);
    }
}

static void too_many_ranges(void **state)
{
    (void)state;
    char text[4 * PM_PAGES_MAX_RANGES + 16];
    size_t used = 0;
    for (int i = 0; i <= PM_PAGES_MAX_RANGES; i++) {
        text[used++] = '1';
        text[used++] = ',';
    }
    text[used - 1] = 0;
    struct pm_pages p;
    assert_int_equal(pm_pages_parse(text, &p, NULL), PM_EINVAL);
    text[used - 3] = 0; /* one fewer is fine */
    assert_int_equal(pm_pages_parse(text, &p, NULL), 0);
    assert_int_equal(p.range_count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_selections),
        cmocka_unit_test(bad_selections_say_where),
        cmocka_unit_test(too_many_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
