/* Option tables: parsing in every spelling, refusals with hints, what help and manual show of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/options.h"
#include "base/roff.h"

struct settings {
    const char *out, *name, *need;
    uint32_t count;
    float share;
    enum pm_log_level level;
    bool flag, other, secret;
};
static const struct pm_option options[] = {
    {"output", 'o', PM_OPTION_TEXT, "DIR", "Where results go.", offsetof(struct settings, out), 0, 0},
    {"name", 0, PM_OPTION_TEXT, "NAME", "A name.", offsetof(struct settings, name), 0, 0},
    {"count", 'n', PM_OPTION_UINT, "N", "How many.", offsetof(struct settings, count), 1, 100},
    {"share", 0, PM_OPTION_DECIMAL, "X", "How much.", offsetof(struct settings, share), 0, 2},
    {"flag", 'f', PM_OPTION_FLAG, NULL, "On.", offsetof(struct settings, flag), 0, 0},
    {"other", 'x', PM_OPTION_FLAG, NULL, "Also on.", offsetof(struct settings, other), 0, 0},
    {"log-level", 0, PM_OPTION_LOG_LEVEL, "LEVEL", "How much is said.", offsetof(struct settings, level), 0,
     0},
    {"secret-flag", 0, PM_OPTION_FLAG, NULL, NULL, offsetof(struct settings, secret), 0, 0},
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};
static const struct pm_usage usage = {.name = "probe",
                                      .arguments = "FILE...",
                                      .summary = "a test",
                                      .about = "Tests.\n",
                                      .tables = tables,
                                      .least = 1,
                                      .most = 3};

static const struct pm_option needs[] = {
    {"needed", 0, PM_OPTION_NEED_TEXT, "URL", "Must be there.", offsetof(struct settings, need), 0, 0},
    PM_OPTION_END};
static const struct pm_option *const service_tables[] = {options, needs, NULL};
static const struct pm_usage service = {
    .name = "pm-service", .summary = "a test", .about = "Serves.\n", .tables = service_tables};

static int parse(const struct pm_usage *u, struct settings *s, struct pm_arguments *arguments,
                 struct pm_error *err, const char *const *words)
{
    char *argv[16];
    int argc = 0;
    argv[argc++] = (char *)"probe";
    for (int i = 0; words[i]; i++)
        argv[argc++] = (char *)words[i];
    *s = (struct settings){0};
    return pm_options_parse(u, argc, argv, s, arguments, err);
}
#define PARSE(...) parse(&usage, &s, &arguments, &err, (const char *const[]){__VA_ARGS__, NULL})

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

static void refuse(const struct pm_usage *u, const char *hint, const char *const *words)
{
    struct settings s;
    struct pm_arguments arguments;
    struct pm_error err;
    assert_int_equal(parse(u, &s, &arguments, &err, words), PM_EINVAL);
    if (!strstr(err.text, hint))
        fail_msg("\"%s\" is not in \"%s\"", hint, err.text);
    free(arguments.items);
}
#define REFUSE(hint, ...) refuse(&usage, hint, (const char *const[]){__VA_ARGS__, NULL})

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
    REFUSE("--share wants a number from 0 to 2, not \"2.1\"", "--share", "2.1", "a");
    REFUSE("from 0 to 2", "--share=-0.1", "a");
    REFUSE("from 0 to 2", "--share", "nan", "a");
    REFUSE("from 0 to 2", "--share", "1,5", "a");
    REFUSE("from 0 to 2", "--share", "", "a");
    REFUSE("--log-level is debug, info, warning or error, not \"loud\"", "--log-level", "loud", "a");
    REFUSE("unknown option --secret; see probe --help", "--secret", "a"); /* hints keep secrets */
    REFUSE("FILE... is missing; usage: probe [options] FILE...", "--flag");
    REFUSE("unexpected argument \"d\"", "a", "b", "c", "d");
}

static void test_kinds(void **state)
{
    (void)state;
    struct settings s;
    struct pm_arguments arguments;
    struct pm_error err;
    assert_int_equal(PARSE("--share", "0.25", "a"), 0);
    assert_float_equal(s.share, 0.25f, 0);
    free(arguments.items);
    assert_int_equal(PARSE("--log-level", "Warning", "--secret-flag", "a"), 0);
    assert_int_equal(s.level, PM_LOG_WARNING);
    assert_true(s.secret);
    free(arguments.items);
    static const char *const with[] = {"--needed=u", NULL}, *const without[] = {"--flag", NULL},
                             *const more[] = {"--needed", "u", "more", NULL},
                             *const help[] = {"--help", NULL};
    assert_int_equal(parse(&service, &s, &arguments, &err, with), 0);
    assert_string_equal(s.need, "u");
    free(arguments.items);
    assert_int_equal(parse(&service, &s, &arguments, &err, help), 0); /* help wants nothing else */
    assert_true(arguments.wants_help);
    free(arguments.items);
    refuse(&service, "--needed URL is missing; usage: pm-service --needed URL [options]", without);
    refuse(&service, "unexpected argument \"more\"; see pm-service --help", more);
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

static char *written(void (*write)(FILE *out))
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *memory = open_memstream(&text, &bytes);
    write(memory);
    fclose(memory);
    return text;
}

static void write_help(FILE *out)
{
    pm_options_help(&service, 60, out);
}

static void write_page(FILE *out)
{
    static const struct pm_roff page = {
        .section = 8, .manual = "Tests", .made_by = "a test", .see_also = "one(1), two-more(8)"};
    pm_roff_page(&service, &page, out);
}

static void test_help_and_page(void **state)
{
    (void)state;
    char *help = written(write_help), *page = written(write_page);
    assert_non_null(strstr(help, "SYNOPSIS\n       pm-service --needed URL [options]\n"));
    assert_non_null(strstr(help, "       -n N, --count N\n              How many.\n"));
    assert_null(strstr(help, "secret"));
    assert_non_null(strstr(page, ".TH PM-SERVICE 8 "));
    assert_non_null(
        strstr(page, "\\fBpm\\-service\\fR \\fB\\-\\-needed\\fR \\fIURL\\fR [\\fIoptions\\fR]\n"));
    assert_non_null(strstr(page, "\\fB\\-\\-log\\-level\\fR \\fILEVEL\\fR\nHow much is said.\n"));
    assert_non_null(strstr(page, ".SH SEE ALSO\n.BR one (1),\n.BR two\\-more (8)\n"));
    assert_null(strstr(page, "secret"));
    free(help);
    free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spellings), cmocka_unit_test(test_refusals),      cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_nearest),   cmocka_unit_test(test_help_and_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
