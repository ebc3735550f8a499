/* Log lines: what goes into a value, and how a line is taken apart again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <string.h>

#include "base/log.h"

static void test_values(void **state)
{
    (void)state;
    char out[PM_LOG_VALUE], many[2000];
    assert_string_equal(pm_log_value("scan.pdf", out), "scan.pdf");
    assert_string_equal(pm_log_value("", out), "\"\"");
    assert_string_equal(pm_log_value("a b", out), "\"a b\"");
    assert_string_equal(pm_log_value("a=b", out), "\"a=b\"");
    assert_string_equal(pm_log_value("say \"hi\" \\ \n", out), "\"say \\\"hi\\\" \\\\ ?\"");
    memset(many, '"', sizeof many - 1);
    many[sizeof many - 1] = 0;
    size_t n = strlen(pm_log_value(many, out));
    assert_true(n < PM_LOG_VALUE && out[n - 1] == '"' && out[n - 2] == '"' && out[n - 3] == '\\');
    memset(many, 0xc3, sizeof many - 1);
    assert_true(strlen(pm_log_value(many, out)) < PM_LOG_VALUE);
}

static void test_time(void **state)
{
    (void)state;
    char out[PM_LOG_TIME];
    pm_log_time(1767608551482000, out);
    assert_string_equal(out, "2026-01-05T10:22:31.482Z");
    pm_log_time(0, out);
    assert_string_equal(out, "1970-01-01T00:00:00.000Z");
}

static void test_read(void **state)
{
    (void)state;
    struct pm_log_line l;
    assert_true(pm_log_read("2026-01-05T10:22:31.482Z warning worker-2[811] region failed job=17", &l));
    assert_string_equal(l.time, "2026-01-05T10:22:31.482Z");
    assert_int_equal(l.level, PM_LOG_WARNING);
    assert_int_equal(l.process_bytes, 8);
    assert_memory_equal(l.process, "worker-2", 8);
    assert_string_equal(l.message, "region failed job=17");
    static const char *const others[] = {"",
                                         "2026",
                                         "2026-01-05T10:22:31.482Z",
                                         "2026-01-05T10:22:31.482Z loud worker-2[811] x",
                                         "2026-01-05T10:22:31.482Z info worker-2 x",
                                         "2026-01-05T10:22:31.482Z info [1] x",
                                         "2026-01-05T10:22:31.482Z info worker-2[811 x",
                                         "==123==ERROR: AddressSanitizer"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(pm_log_read(others[i], &l));
}

static void test_has(void **state)
{
    (void)state;
    assert_true(pm_log_has("region done job=17 page=3", "job", "17"));
    assert_true(pm_log_has("job=17", "job", "17"));
    assert_true(pm_log_has("open failed page=0 job=17: no such file", "job", "17"));
    assert_false(pm_log_has("region done job=171 page=3", "job", "17"));
    assert_false(pm_log_has("region done job=1 page=17", "job", "17"));
    assert_false(pm_log_has("region done myjob=17", "job", "17"));
    /* A client's words cannot pass for ours. */
    char value[PM_LOG_VALUE], line[400];
    snprintf(line, sizeof line, "job accepted job=9 name=%s client=x",
             pm_log_value("evil\" job=17 name=\"x", value));
    assert_false(pm_log_has(line, "job", "17"));
    assert_true(pm_log_has(line, "job", "9"));
    assert_true(pm_log_has(line, "client", "x"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_time),
                                       cmocka_unit_test(test_read), cmocka_unit_test(test_has)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
