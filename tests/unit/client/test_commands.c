/* The commands' tables: manuals with all sections, names and letters without doubt; job numbers, formats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/cli/cli.h"
#include "client/cli/read_options.h"

static char *help_text(const struct pm_usage *u, int width)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *memory = open_memstream(&text, &bytes);
    pm_options_help(u, width, memory);
    fclose(memory);
    return text;
}

/* Every command's manual has the sections of a man page and no overlong filled line. */
static void test_help(void **state)
{
    (void)state;
    for (size_t i = 0; pm_commands[i]; i++) {
        const struct pm_usage *usage = &pm_commands[i]->usage;
        char *text = help_text(usage, 80);
        assert_int_equal(strncmp(usage->name, "pagemill ", 9), 0);
        assert_string_equal(usage->name + 9, pm_commands[i]->name);
        assert_non_null(strstr(text, "NAME\n       pagemill "));
        assert_non_null(strstr(text, "\nSYNOPSIS\n"));
        assert_non_null(strstr(text, "\nDESCRIPTION\n       "));
        for (size_t t = 0; usage->tables && usage->tables[t]; t++)
            for (const struct pm_option *o = usage->tables[t]; o->name; o++) {
                char needle[64];
                snprintf(needle, sizeof needle, " --%s", o->name);
                assert_true(!strstr(text, needle) == !o->help);
            }
        for (const char *p = text; *p;) {
            size_t n = strcspn(p, "\n");
            if (n > 100)
                fail_msg("%s --help: a line of %zu columns: %.*s", pm_commands[i]->name, n, (int)n, p);
            p += n + (p[n] == '\n');
        }
        free(text);
    }
}

/* Options of one command must not share a name or a letter. */
static void test_tables_are_unambiguous(void **state)
{
    (void)state;
    for (size_t i = 0; pm_commands[i]; i++) {
        const struct pm_option *seen[100];
        size_t count = 0;
        for (size_t t = 0; pm_commands[i]->usage.tables && pm_commands[i]->usage.tables[t]; t++)
            for (const struct pm_option *o = pm_commands[i]->usage.tables[t]; o->name; o++) {
                for (size_t k = 0; k < count; k++) {
                    assert_string_not_equal(o->name, seen[k]->name);
                    if (o->letter && o->letter == seen[k]->letter)
                        fail_msg("%s: -%c is both --%s and --%s", pm_commands[i]->name, o->letter, o->name,
                                 seen[k]->name);
                }
                seen[count++] = o;
            }
    }
}

static void test_formats(void **state)
{
    (void)state;
    struct pm_error err;
    assert_int_equal(pm_read_check_formats("md", &err), 0);
    assert_int_equal(pm_read_check_formats("txt,json,md", &err), 0);
    assert_int_equal(pm_read_check_formats("docx", &err), PM_EINVAL);
    assert_int_equal(pm_read_check_formats("md,", &err), PM_EINVAL);
    assert_int_equal(pm_read_check_formats("", &err), PM_EINVAL);
    assert_int_equal(pm_read_check_formats("md,md", &err), PM_EINVAL);
    assert_int_equal(pm_read_check_formats("mdx", &err), PM_EINVAL);
}

static void test_job_numbers(void **state)
{
    (void)state;
    uint64_t job;
    struct pm_error err;
    assert_int_equal(pm_cli_job_number("17", &job, &err), 0);
    assert_int_equal(job, 17);
    assert_int_equal(pm_cli_job_number("#18446744073709551615", &job, &err), 0);
    assert_true(job == UINT64_MAX);
    static const char *const bad[] = {"", "0", "-1", "+1", " 1", "1x", "#", "18446744073709551616", "x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(pm_cli_job_number(bad[i], &job, &err), PM_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_tables_are_unambiguous),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_job_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
