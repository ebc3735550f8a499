/* The template engine: a table of templates beside what Jinja makes of them (tests/data/text/template.json),
 * what is refused and how it says so, and the bounds. */
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
#include "engine/text/template.h"

/* Parses and renders; *stage_out: 0 refused when parsed, 1 when rendered. */
static int render(const char *text, size_t bytes, const json_t *variables, char **out, size_t *bytes_out,
                  int *stage_out, struct pm_error *err)
{
    struct pm_template *t;
    *out = NULL;
    *stage_out = 0;
    int rc = pm_template_parse("t", text, bytes, &t, err);
    if (rc)
        return rc;
    *stage_out = 1;
    rc = pm_template_render(t, variables, out, bytes_out, err);
    pm_template_free(&t);
    assert_null(t);
    return rc;
}

static const char *error_name(int rc)
{
    return rc == PM_EUNSUPPORTED ? "unsupported"
           : rc == PM_EFORMAT    ? "format"
           : rc == PM_EINVAL     ? "invalid"
                                 : "limit";
}

static void test_table(void **state)
{
    (void)state;
    json_error_t why;
    json_t *table = json_load_file(PM_TEST_DATA "/text/template.json", JSON_ALLOW_NUL, &why), *c;
    assert_non_null(table);
    const json_t *variables = json_object_get(table, "variables");
    json_t *cases = json_object_get(table, "cases");
    size_t i, wrong = 0;
    assert_true(json_array_size(cases) > 500);
    json_array_foreach(cases, i, c)
    {
        const json_t *source = json_object_get(c, "template"), *text = json_object_get(c, "text");
        struct pm_error err = {0};
        char *out;
        size_t bytes = 0;
        int stage, rc = render(json_string_value(source), json_string_length(source), variables, &out, &bytes,
                               &stage, &err);
        bool is_right =
            text ? rc == 0 && bytes == json_string_length(text) &&
                       memcmp(out, json_string_value(text), bytes) == 0
                 : rc != 0 && strcmp(error_name(rc), json_string_value(json_object_get(c, "error"))) == 0;
        if (rc && !strstr(err.text, "line "))
            is_right = false;
        if (!is_right) {
            wrong++;
            printf("%s\n  -> %s\n", json_string_value(source), rc ? err.text : out);
        }
        free(out);
    }
    json_decref(table);
    assert_int_equal(wrong, 0);
}

/* Fails with this code, at this stage, and the message names all of these. */
static void check_refused(const char *text, int code, int stage, const char *says)
{
    struct pm_error err = {0};
    char *out;
    size_t bytes;
    int at;
    json_t *variables = json_pack("{s:i, s:s, s:[i,i,i]}", "n", 1, "s", "x", "l", 1, 2, 3);
    int rc = render(text, strlen(text), variables, &out, &bytes, &at, &err);
    json_decref(variables);
    if (rc != code || at != stage || !strstr(err.text, says))
        fail_msg("%.200s: code %d at %d: %s", text, rc, at, rc ? err.text : out);
}

static void test_messages_name_line_and_construct(void **state)
{
    (void)state;
    check_refused("a\n\n{{ n | wordwrap }}", PM_EUNSUPPORTED, 0, "line 3: the filter wordwrap");
    check_refused("\n{{ n is escaped }}", PM_EUNSUPPORTED, 0, "line 2: the test escaped");
    check_refused("{{ s.encode() }}", PM_EUNSUPPORTED, 0, "the method encode");
    check_refused("{{ strftime_now('%d') }}", PM_EUNSUPPORTED, 0, "the function strftime_now");
    check_refused("{% include 'x' %}", PM_EUNSUPPORTED, 0, "include");
    check_refused("{% for i in l recursive %}{% endfor %}", PM_EUNSUPPORTED, 0, "recursive");
    check_refused("{{ s.__class__ }}", PM_EUNSUPPORTED, 0, "__class__");
    check_refused("{{ n | tojson(nosuch=1) }}", PM_EUNSUPPORTED, 0, "nosuch");
    check_refused("{{ l | map('nosuch') | list }}", PM_EUNSUPPORTED, 0, "the filter nosuch");
    check_refused("{{ l | select(s) | list }}", PM_EUNSUPPORTED, 1, "the test x");
    check_refused("{{ f(*l) }}", PM_EUNSUPPORTED, 0, "* of arguments");
    check_refused("a\n{% if n %}\n", PM_EFORMAT, 0, "line 2: the template ends");
    check_refused("{% frob %}", PM_EFORMAT, 0, "frob");
    check_refused("\n{{ 'a }}", PM_EFORMAT, 0, "line 2: a string does not end");
    check_refused("{{ (1] }}", PM_EFORMAT, 0, "line 1");
    check_refused("{{ 1 ]) }}", PM_EFORMAT, 0, "closes");
    check_refused("\n\n{{ gone.x }}", PM_EINVAL, 1, "line 3: \"gone\" is undefined");
    check_refused("{{ s + n }}", PM_EINVAL, 1, "a string + an integer");
    check_refused("{{ raise_exception('only ' ~ 3) }}", PM_EINVAL, 1, "the template refuses: only 3");
    check_refused("{{ 1 // 0 }}", PM_EINVAL, 1, "division by zero");
    check_refused("{% set s.x = 1 %}", PM_EINVAL, 1, "not a namespace");
    check_refused("{% for a, b in l %}{% endfor %}", PM_EINVAL, 1, "cannot be walked");
    check_refused("{{ 'é' | upper }}", PM_EUNSUPPORTED, 1, "outside ASCII");
    check_refused("\xff", PM_EFORMAT, 0, "not UTF-8");
}

static char *repeated(const char *a, int n, const char *middle, const char *b)
{
    struct pm_buf text = {0};
    for (int i = 0; i < n; i++)
        pm_buf_text(&text, a);
    pm_buf_text(&text, middle);
    for (int i = 0; i < n; i++)
        pm_buf_text(&text, b);
    return (char *)text.data;
}

static void test_bounds(void **state)
{
    (void)state;
    static const char *const blocks[][3] = {{"{% if n %}", "x", "{% endif %}"},
                                            {"{% for i in l %}", "x", "{% endfor %}"}};
    static const char *const brackets[][3] = {{"(", "1", ")"},   {"[", "", "]"},    {"{'a':", "1", "}"},
                                              {"not ", "n", ""}, {"-", "n", ""},    {"n if ", "n", ""},
                                              {"", "n", "+n"},   {"", "n", "|abs"}, {"", "n", ".a"},
                                              {"", "n", "[0]"},  {"s(", "n", ")"}};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        char *text = repeated(blocks[i][0], 5000, blocks[i][1], blocks[i][2]);
        check_refused(text, PM_ELIMIT, 0, "nest deeper");
        free(text);
    }
    for (size_t i = 0; i < sizeof brackets / sizeof brackets[0]; i++) {
        char *inner = repeated(brackets[i][0], 5000, brackets[i][1], brackets[i][2]);
        char *text = pm_xprintf("{{ %s }}", inner);
        check_refused(text, PM_ELIMIT, 0, "nest deeper");
        free(inner);
        free(text);
    }
    char *large = repeated("xxxxxxxxxxxxxxxx", 20000, "", "");
    check_refused(large, PM_ELIMIT, 0, "bytes");
    free(large);
    check_refused("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", PM_ELIMIT, 1, "nest deeper");
    check_refused("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", PM_ELIMIT,
                  1, "more than");
    check_refused("{% set ns = namespace(x='aaaaaaaa') %}{% for a in range(99) %}{% set ns.x = ns.x ~ ns.x %}"
                  "{% endfor %}",
                  PM_ELIMIT, 1, "line 1");
    check_refused(
        "{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        PM_ELIMIT, 1, "line 1");
    check_refused(
        "{% set ns = namespace(x='') %}{% for a in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
        "{{ ns.x }}",
        PM_ELIMIT, 1, "line 1");
    check_refused(
        "{% set ns = namespace(x='') %}{% for a in range(99) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}"
        "{% endfor %}{{ ns.x | tojson }}",
        PM_ELIMIT, 1, "line 1");
    check_refused("{{ 'aaaaaaaa' * 99999999 }}", PM_ELIMIT, 1, "too long");
    check_refused("{{ range(999999999) }}", PM_ELIMIT, 1, "range");
    check_refused("{{ 999999999999999999 * 999999999999999999 }}", PM_ELIMIT, 1, "64 bits");
    check_refused("{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}", PM_ELIMIT, 1, "line 1");
}

static void test_deep_variables(void **state)
{
    (void)state;
    json_t *v = json_object();
    for (int i = 0; i < 500; i++)
        v = json_pack("{s:o}", "a", v);
    struct pm_error err = {0};
    char *out;
    size_t bytes;
    int stage;
    assert_int_equal(render("x", 1, v, &out, &bytes, &stage, &err), PM_ELIMIT);
    json_decref(v);
    v = json_array();
    assert_int_equal(render("x", 1, v, &out, &bytes, &stage, &err), PM_EINVAL);
    json_decref(v);
}

static void test_chat_variables(void **state)
{
    (void)state;
    struct pm_error err = {0};
    json_t *v,
        *messages = json_loads("[{\"role\": \"assistant\", \"content\": \"A\", \"reasoning\": \"R\"},"
                               " {\"role\": \"user\", \"content\": \"U\"}]",
                               0, NULL),
        *extra = json_pack("{s:b, s:b}", "enable_thinking", 0, "add_generation_prompt", 1);
    assert_int_equal(pm_template_chat_variables(messages, NULL, false, extra, &v, &err), 0);
    const char *text =
        "{{ messages[0] | tojson }}{{ tools is none }}{{ add_generation_prompt }}{{ enable_thinking }}"
        "{{ messages[1].thinking is defined }}";
    char *out;
    size_t bytes;
    int stage;
    assert_int_equal(render(text, strlen(text), v, &out, &bytes, &stage, &err), 0);
    assert_string_equal(
        out, "{\"thinking\": \"R\", \"role\": \"assistant\", \"content\": \"A\", \"reasoning\": \"R\", "
             "\"reasoning_content\": \"R\"}TrueTrueFalseFalse");
    free(out);
    json_decref(v);
    json_array_append_new(messages, json_integer(1));
    assert_int_equal(pm_template_chat_variables(messages, NULL, false, NULL, &v, &err), PM_EINVAL);
    assert_non_null(strstr(err.text, "message 3"));
    assert_int_equal(pm_template_chat_variables(extra, NULL, false, NULL, &v, &err), PM_EINVAL);
    json_decref(messages);
    json_decref(extra);
}

/* A template is read-only: the second rendering is as the first. */
static void test_renders_again(void **state)
{
    (void)state;
    const char *text = "{% macro m(a, b=[]) %}{{ a }}{{ b }}{% endmacro %}{% set ns = namespace(i=0) %}"
                       "{% for x in l %}{% set ns.i = ns.i + x %}{% endfor %}{{ m(ns.i) }}";
    struct pm_template *t;
    struct pm_error err = {0};
    assert_int_equal(pm_template_parse("t", text, strlen(text), &t, &err), 0);
    for (int i = 0; i < 3; i++) {
        json_t *v = json_pack("{s:[i,i]}", "l", i, 2);
        char *out, wanted[16];
        size_t bytes;
        assert_int_equal(pm_template_render(t, v, &out, &bytes, &err), 0);
        snprintf(wanted, sizeof wanted, "%d[]", i + 2);
        assert_string_equal(out, wanted);
        free(out);
        json_decref(v);
    }
    pm_template_free(&t);
    pm_template_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),          cmocka_unit_test(test_messages_name_line_and_construct),
        cmocka_unit_test(test_bounds),         cmocka_unit_test(test_deep_variables),
        cmocka_unit_test(test_chat_variables), cmocka_unit_test(test_renders_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
