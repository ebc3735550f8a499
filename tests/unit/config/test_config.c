/* Settings from YAML: every type, every range, and messages that name file, line and key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/config.h"
#include "base/utf8.h"

struct settings {
    char *name, *level;
    int64_t jobs, keep_us;
    double share;
    bool is_fast;
    uint64_t memory;
    struct pm_text_list readers;
};
static const char *const levels[] = {"info", "debug", NULL};
#define AT(member) offsetof(struct settings, member)
static const struct pm_setting rows[] = {
    {"name", PM_SETTING_TEXT, AT(name), "fleet", 0, 0, NULL, "what it is called"},
    {"log.level", PM_SETTING_CHOICE, AT(level), NULL, 0, 0, levels, "how much is logged"},
    {"broker.max_jobs", PM_SETTING_INT, AT(jobs), "1000", 1, 100000, NULL, "jobs that may wait"},
    {"broker.keep_results", PM_SETTING_DURATION, AT(keep_us), "7d", 60, 31536000, NULL, "then they go"},
    {"broker.memory", PM_SETTING_BYTES, AT(memory), "2G", 0, 0, NULL, "for pixels"},
    {"share", PM_SETTING_REAL, AT(share), "0.5", 0, 1, NULL, "of something"},
    {"fast", PM_SETTING_BOOL, AT(is_fast), NULL, 0, 0, NULL, "or slow"},
    {"readers", PM_SETTING_LIST, AT(readers), "fast", 0, 0, NULL, "in order"},
};
static const struct pm_config_table table = {rows, sizeof rows / sizeof rows[0]};

static struct settings defaults(void)
{
    struct settings s = {0};
    struct pm_error err;
    if (pm_config_defaults(&table, &s, &err))
        fail_msg("%s", err.text);
    return s;
}

static int parse(const char *yaml, struct settings *s, struct pm_error *err)
{
    *s = defaults();
    memset(err, 0, sizeof *err);
    return pm_config_parse(&table, "pagemill.yaml", yaml, strlen(yaml), s, err);
}

static void a_file_changes_what_it_names(void **state)
{
    (void)state;
    struct settings s;
    struct pm_error err;
    const char *yaml = "# a comment\n"
                       "name: \"Herr Müller\"\n"
                       "log: {level: debug}\n"
                       "broker:\n"
                       "  max_jobs: 42\n"
                       "  keep_results: 90m\n"
                       "  memory: 512 M\n"
                       "fast: yes\n"
                       "share:\n"
                       "readers: [fast, \"glm-ocr\"]\n";
    if (parse(yaml, &s, &err))
        fail_msg("%s", err.text);
    assert_string_equal(s.name, "Herr Müller");
    assert_string_equal(s.level, "debug");
    assert_int_equal(s.jobs, 42);
    assert_int_equal(s.keep_us, 5400000000);
    assert_int_equal(s.memory, 512u << 20);
    assert_true(s.is_fast);
    assert_true(s.share == 0.5); /* empty value: the default stays */
    assert_int_equal(s.readers.count, 2);
    assert_string_equal(s.readers.items[1], "glm-ocr");
    pm_config_free(&table, &s);
    pm_config_free(&table, &s); /* harmless */
}

static void defaults_stand_without_a_file(void **state)
{
    (void)state;
    struct settings s;
    struct pm_error err;
    static const char *const empty[] = {"", "---\n", "# nothing\n", "~\n", "broker:\n"};
    for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++) {
        if (parse(empty[i], &s, &err))
            fail_msg("%s", err.text);
        assert_string_equal(s.name, "fleet");
        assert_string_equal(s.level, "info");
        assert_int_equal(s.jobs, 1000);
        assert_int_equal(s.keep_us, (int64_t)7 * 86400 * 1000000);
        assert_int_equal(s.readers.count, 1);
        pm_config_free(&table, &s);
    }
}

static void errors_name_file_line_and_key(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *says[3];
    } cases[] = {
        {"name: x\nbroker:\n  max_job: 3\n", {"pagemill.yaml:3", "broker.max_job;", "broker.max_jobs"}},
        {"brokr:\n  max_jobs: 3\n", {"pagemill.yaml:1", "unknown key brokr", "nearest"}},
        {"broker:\n  max_jobs: 0\n", {"pagemill.yaml:2", "broker.max_jobs", "from 1 to 100000, not \"0\""}},
        {"broker:\n  max_jobs: 12x\n", {":2", "broker.max_jobs", "whole number"}},
        {"broker:\n  max_jobs: 99999999999999999999\n", {":2", "broker.max_jobs", "whole number"}},
        {"broker:\n  keep_results: 5 weeks\n", {":2", "broker.keep_results", "5 weeks"}},
        {"broker:\n  keep_results: 1s\n", {":2", "from 60", "seconds"}},
        {"broker:\n  memory: -1G\n", {":2", "broker.memory", "size"}},
        {"share: nan\n", {":1", "share", "number"}},
        {"share: 1.5\n", {":1", "share", "0 to 1"}},
        {"fast: maybe\n", {":1", "fast", "true or false"}},
        {"log:\n  level: loud\n", {":2", "log.level", "info, debug"}},
        {"name: a\nname: b\n", {":2", "name", "twice"}},
        {"name: [a]\n", {":1", "name", "not a list"}},
        {"name: {a: b}\n", {":1", "name", "not a group"}},
        {"broker: 3\n", {":1", "broker", "group"}},
        {"readers: [[a]]\n", {":1", "readers", "plain values"}},
        {"a: &x 1\n", {":1", "unknown key a", "nearest"}},
        {"name: &x a\nshare: *x\n", {":2", "alias", ""}},
        {"name: a\n---\nname: b\n", {":2", "second document", ""}},
        {"- a\n- b\n", {":1", "map of settings", ""}},
        {"just text\n", {":1", "map of settings", ""}},
        {"name: 'open\n", {"pagemill.yaml:", "not YAML", ""}},
        {"name: \"\xff\"\n", {"pagemill.yaml:", "not YAML", ""}},
        {"[a]: b\n", {":1", "plain word", ""}},
        {"name: \"a\\0b\"\n", {":1", "name", "NUL"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct settings s;
        struct pm_error err;
        int rc = parse(cases[i].yaml, &s, &err);
        if (rc != PM_EINVAL)
            fail_msg("case %zu gave %d: %s", i, rc, cases[i].yaml);
        for (int k = 0; k < 3; k++)
            if (!strstr(err.text, cases[i].says[k]))
                fail_msg("case %zu: \"%s\" does not say \"%s\"", i, err.text, cases[i].says[k]);
        pm_config_free(&table, &s);
    }
}

static void one_setting_can_be_set(void **state)
{
    (void)state;
    struct settings s = defaults();
    struct pm_error err;
    assert_int_equal(pm_config_set(&table, "readers", " a, b ,,c ", &s, &err), 0);
    assert_int_equal(s.readers.count, 3);
    assert_string_equal(s.readers.items[1], "b");
    assert_int_equal(pm_config_set(&table, "broker.keep_results", "250", &s, &err), 0);
    assert_int_equal(s.keep_us, 250000000);
    assert_int_equal(pm_config_set(&table, "reader", "a", &s, &err), PM_EINVAL);
    assert_non_null(strstr(err.text, "readers"));
    assert_int_equal(pm_config_set(&table, "fast", "2", &s, &err), PM_EINVAL);
    pm_config_free(&table, &s);
}

static void the_example_is_a_file_of_the_defaults(void **state)
{
    (void)state;
    struct pm_buf out = {0};
    struct settings s = {0};
    struct pm_error err;
    pm_config_example(&table, &out);
    assert_non_null(
        strstr((const char *)out.data, "broker:\n  # jobs that may wait (1 to 100000)\n  max_jobs: 1000\n"));
    if (pm_config_parse(&table, "example", out.data, out.size, &s, &err))
        fail_msg("%s", err.text);
    struct settings d = defaults();
    assert_string_equal(s.name, d.name);
    assert_string_equal(s.level, d.level);
    assert_true(s.jobs == d.jobs && s.keep_us == d.keep_us && s.memory == d.memory && s.share == d.share);
    pm_config_free(&table, &s);
    pm_config_free(&table, &d);
    pm_buf_free(&out);
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    struct settings s = defaults();
    struct pm_error err;
    assert_int_equal(pm_config_read(&table, "/nowhere/pagemill.yaml", &s, &err), PM_ENOTFOUND);
    assert_non_null(strstr(err.text, "/nowhere/pagemill.yaml"));
    pm_config_free(&table, &s);
}

static void utf8_is_strict(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
    } good[] = {{"", 0},    {"a", 1}, {"\xc2\x80", 2}, {"\xef\xbf\xbf", 3}, {"\xf4\x8f\xbf\xbf", 4},
                {"a\0b", 3}},
      bad[] = {{"\x80", 1},
               {"\xc1\xbf", 2},
               {"\xed\xa0\x80", 3},
               {"\xe2\x82", 2},
               {"\xf5\x80\x80\x80", 4},
               {"\xf0\x80\x80\x80", 4},
               {"12345678\xff", 9},
               {"\xc3(", 2}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(pm_utf8_is_valid(good[i].bytes, good[i].n));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(pm_utf8_is_valid(bad[i].bytes, bad[i].n));
    assert_false(pm_utf8_is_text("a\0b", 3));
    struct pm_buf out = {0};
    pm_utf8_mend("a\xff\xe2\x82z", 5, &out);
    assert_int_equal(out.size, 11);
    assert_memory_equal(out.data, "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz", 11);
    pm_buf_free(&out);
    assert_int_equal(pm_utf8_cut("a\xc3\xa9z", 2), 1);
    assert_int_equal(pm_utf8_cut("a\xc3\xa9z", 3), 3);
    assert_int_equal(pm_utf8_cut("ab", 10), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_changes_what_it_names),
        cmocka_unit_test(defaults_stand_without_a_file),
        cmocka_unit_test(errors_name_file_line_and_key),
        cmocka_unit_test(one_setting_can_be_set),
        cmocka_unit_test(the_example_is_a_file_of_the_defaults),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(utf8_is_strict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
