/* Option tables: parsing in every spelling, refusals with hints, help that fits its width. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/cli/cli.h"
#include "client/cli/read_options.h"

struct settings {
    const char *out, *name;
    uint32_t count;
    bool flag, other;
};
static const struct pm_option options[] = {
    {"output", 'o', PM_OPTION_TEXT, "DIR", "Where results go.", offsetof(struct settings, out), 0, 0},
    {"name", 0, PM_OPTION_TEXT, "NAME", "A name.", offsetof(struct settings, name), 0, 0},
    {"count", 'n', PM_OPTION_UINT, "N", "How many.", offsetof(struct settings, count), 1, 100},
    {"flag", 'f', PM_OPTION_FLAG, NULL, "On.", offsetof(struct settings, flag), 0, 0},
    {"other", 'x', PM_OPTION_FLAG, NULL, "Also on.", offsetof(struct settings, other), 0, 0},
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};
static const struct pm_command command = {.name = "probe",
                                          .arguments = "FILE...",
                                          .summary = "a test",
                                          .about = "Tests.\n",
                                          .tables = tables,
                                          .least = 1,
                                          .most = 3};

static int parse(struct settings *s, struct pm_arguments *arguments, struct pm_error *err,
                 const char *const *words)
{
    char *argv[16];
    int argc = 0;
    argv[argc++] = (char *)"probe";
    for (int i = 0; words[i]; i++)
        argv[argc++] = (char *)words[i];
    *s = (struct settings){0};
    return pm_options_parse(&command, argc, argv, s, arguments, err);
}
#define PARSE(...) parse(&s, &arguments, &err, (const char *const[]){__VA_ARGS__, NULL})

static void test_spellings(void **state)
{
    (void)state;
    struct settings s;
    struct pm_arguments arguments;
    struct pm_error err;
    assert_int_equal(PARSE("a", "--output", "dir", "--count=7", "-fx", "b"), 0);
    assert_string_equal(s.out, "dir");
    assert_int_equal(s.count, 7);
    assert_true(s.flag && s.other);
    assert_int_equal(arguments.count, 2);
    assert_string_equal(arguments.items[0], "a");
    assert_string_equal(arguments.items[1], "b");
    free(arguments.items);
    assert_int_equal(PARSE("-odir", "-n", "9", "-"), 0);
    assert_string_equal(s.out, "dir");
    assert_int_equal(s.count, 9);
    assert_string_equal(arguments.items[0], "-");
    free(arguments.items);
    assert_int_equal(PARSE("--name=", "--", "--flag"), 0);
    assert_string_equal(s.name, "");
    assert_false(s.flag);
    assert_string_equal(arguments.items[0], "--flag");
    free(arguments.items);
    assert_int_equal(PARSE("-fodir", "a"), 0); /* a letter with a value ends the bundle */
    assert_true(s.flag);
    assert_string_equal(s.out, "dir");
    free(arguments.items);
}

static void refuse(const char *hint, const char *const *words)
{
    struct settings s;
    struct pm_arguments arguments;
    struct pm_error err;
    assert_int_equal(parse(&s, &arguments, &err, words), PM_EINVAL);
    if (!strstr(err.text, hint))
        fail_msg("\"%s\" is not in \"%s\"", hint, err.text);
    free(arguments.items);
}
#define REFUSE(hint, ...) refuse(hint, (const char *const[]){__VA_ARGS__, NULL})

static void test_refusals(void **state)
{
    (void)state;
    REFUSE("did you mean --output", "--ouput", "x", "a");
    REFUSE("did you mean --count", "--cuont=1", "a");
    REFUSE("unknown option --zzzzzz", "--zzzzzz", "a");
    REFUSE("unknown option -q", "-q", "a");
    REFUSE("wants a value", "a", "--output");
    REFUSE("wants a value", "a", "-n");
    REFUSE("takes no value", "--flag=yes", "a");
    REFUSE("from 1 to 100", "--count", "0", "a");
    REFUSE("from 1 to 100", "--count", "101", "a");
    REFUSE("from 1 to 100", "--count", "-1", "a");
    REFUSE("from 1 to 100", "--count", "7x", "a");
    REFUSE("from 1 to 100", "--count", "", "a");
    REFUSE("from 1 to 100", "--count", "99999999999999999999999", "a");
    REFUSE("FILE... is missing", "--flag");
    REFUSE("unexpected argument \"d\"", "a", "b", "c", "d");
}

static void test_nearest(void **state)
{
    (void)state;
    static const char *const words[] = {"parse", "submit", "jobs", "up", "down", "top", NULL};
    assert_string_equal(pm_options_nearest("prase", words), "parse");
    assert_string_equal(pm_options_nearest("sub", words), "submit");
    assert_string_equal(pm_options_nearest("job", words), "jobs");
    assert_null(pm_options_nearest("frobnicate", words));
    assert_null(pm_options_nearest("", words));
}

static char *help_text(const struct pm_command *c, int width)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *memory = open_memstream(&text, &bytes);
    pm_options_help(c, width, memory);
    fclose(memory);
    return text;
}

/* Every command's manual has the sections of a man page and no overlong filled line. */
static void test_help(void **state)
{
    (void)state;
    const struct pm_command *const all[] = {
        &pm_command_parse,  &pm_command_submit, &pm_command_jobs,    &pm_command_status, &pm_command_watch,
        &pm_command_cancel, &pm_command_retry,  &pm_command_result,  &pm_command_top,    &pm_command_up,
        &pm_command_down,   &pm_command_model,  &pm_command_version, &pm_command_help};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char *text = help_text(all[i], 80);
        assert_non_null(strstr(text, "NAME\n       pagemill "));
        assert_non_null(strstr(text, "\nSYNOPSIS\n"));
        assert_non_null(strstr(text, "\nDESCRIPTION\n       "));
        for (const struct pm_option *o = all[i]->tables ? all[i]->tables[0] : NULL; o && o->name; o++) {
            char needle[64];
            snprintf(needle, sizeof needle, "--%s", o->name);
            assert_non_null(strstr(text, needle));
        }
        for (const char *p = text; *p;) {
            size_t n = strcspn(p, "\n");
            if (n > 100)
                fail_msg("%s --help: a line of %zu columns: %.*s", all[i]->name, n, (int)n, p);
            p += n + (p[n] == '\n');
        }
        free(text);
    }
}

/* Options of one command must not share a name or a letter. */
static void test_tables_are_unambiguous(void **state)
{
    (void)state;
    const struct pm_command *const all[] = {&pm_command_parse, &pm_command_submit, &pm_command_jobs,
                                            &pm_command_up,    &pm_command_down,   &pm_command_watch,
                                            &pm_command_top,   &pm_command_result, &pm_command_model};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const struct pm_option *seen[100];
        size_t count = 0;
        for (size_t t = 0; all[i]->tables[t]; t++)
            for (const struct pm_option *o = all[i]->tables[t]; o->name; o++) {
                for (size_t k = 0; k < count; k++) {
                    assert_string_not_equal(o->name, seen[k]->name);
                    if (o->letter && o->letter == seen[k]->letter)
                        fail_msg("%s: -%c is both --%s and --%s", all[i]->name, o->letter, o->name,
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
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_tables_are_unambiguous),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_job_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
