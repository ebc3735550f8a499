/* Regular expressions as constraints: against a backtracking matcher over all short texts, and by hand where
 * the two are meant to differ or the texts are hard to find. */
#include "tests/unit/text/grammar_check.h"

#include <oniguruma.h>
#include <stdio.h>

#include "base/utf8.h"
#include "engine/text/tokenizer_unicode.h"

/* ---- as Oniguruma ---- */

static const char *const patterns[] = {
    "a",
    "",
    "a|b|ab",
    "(a|ab)(c|bcd)?(d*)",
    "(ab){2,3}",
    "a*b+c?",
    "(a*)*",
    "(a|b)*abb",
    "[ab]{2}[^a]",
    "[^b-d]*",
    "(a?b?){3}c{0,2}",
    "((a|b)c){1,}d?",
    "(a{0,2}){2}b",
    "(|a)(b|)",
    "[a-c]+(d|[^a-d])",
    "a{3}|b{2,}|(cd){0,1}",
    "(abc|abd|ab|bcd|b|dc|d|aab|abab)+",
    "((a+)+b)+",
    "c(a|b){0,4}c",
    "((a{2}){2}){1,2}",
};

static regex_t *reference_of(const char *pattern)
{
    char *whole = pm_xprintf("\\A(?:%s)\\z", pattern);
    regex_t *reference;
    OnigErrorInfo why;
    const OnigUChar *text = (const OnigUChar *)whole;
    assert_int_equal(pm_unicode_init(), 0);
    assert_int_equal(onig_new(&reference, text, text + strlen(whole), ONIG_OPTION_NONE, ONIG_ENCODING_UTF8,
                              ONIG_SYNTAX_PERL, &why),
                     ONIG_NORMAL);
    free(whole);
    return reference;
}

static bool matches(regex_t *reference, const char *text, size_t bytes)
{
    const OnigUChar *at = (const OnigUChar *)text;
    int rc = onig_match(reference, at, at + bytes, at, NULL, ONIG_OPTION_NONE);
    assert_true(rc >= ONIG_MISMATCH);
    return rc >= 0;
}

static void test_all_short_texts(void **state)
{
    (void)state;
    static const char letters[] = "abcd-";
    int found = 0;
    for (size_t p = 0; p < sizeof patterns / sizeof *patterns; p++) {
        struct pm_grammar *g = grammar_of(false, patterns[p]);
        regex_t *reference = reference_of(patterns[p]);
        for (int n = 0; n <= 6; n++) {
            int total = 1;
            for (int i = 0; i < n; i++)
                total *= 5;
            for (int k = 0; k < total; k++) {
                char text[8] = {0};
                for (int i = 0, rest = k; i < n; i++, rest /= 5)
                    text[i] = letters[rest % 5];
                bool want = matches(reference, text, (size_t)n);
                if (accepts(g, text, (size_t)n) != want)
                    fail_msg("%s: \"%s\" should be %s", patterns[p], text, want ? "accepted" : "refused");
                found += want;
            }
        }
        onig_free(reference);
        pm_grammar_free(&g);
    }
    assert_true(found > 1000);
}

static void test_walks_match(void **state)
{
    (void)state;
    struct vocabulary v;
    struct pm_buf text = {0};
    uint32_t r = 11;
    vocabulary_open(&v);
    for (size_t p = 0; p < sizeof patterns / sizeof *patterns; p++) {
        struct pm_grammar *g = grammar_of(false, patterns[p]);
        regex_t *reference = reference_of(patterns[p]);
        int ended = 0;
        for (int i = 0; i < 60; i++) {
            if (!walk(g, &v, &r, 30, &text))
                continue;
            ended++;
            assert_true(pm_utf8_is_valid(text.data, text.size));
            if (!matches(reference, (const char *)text.data, text.size))
                fail_msg("%s: the walk ended in \"%s\"", patterns[p], (const char *)text.data);
        }
        assert_true(ended > 20);
        onig_free(reference);
        pm_grammar_free(&g);
    }
    pm_buf_free(&text);
    pm_token_trie_free(&v.trie);
}

/* ---- by hand ---- */

static void test_by_hand(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *good[5], *bad[5];
    } cases[] = {
        {"\\d{3}-\\d{4}", {"123-4567"}, {"123-456", "12a-4567", "٣23-4567"}},
        {"\\w+\\s\\W\\D\\S", {"a_9 --x", "b\t\xc3\xa9zz"}, {"\xc3\xa9 --x", "a -9x"}},
        {"é+[α-ω]?", {"é", "éééλ"}, {"e", "\xc3", "éΛ"}},
        {"[^a-zé]", {"É", "😀", "\n", "A"}, {"é", "b", "", "ab"}},
        {".", {"a", "é", "😀"}, {"\n", "\r", "\xe2\x80\xa8", "\xff", "\xed\xa0\x80"}},
        {"\\p{Lu}\\p{Ll}+ \\P{L}", {"Ábc 1", "Ωmega -"}, {"ábc 1", "Abc d"}},
        {"\\p{Han}+", {"漢字"}, {"kanji", "かな"}},
        {"\\x41\\u00e9\\u{1F600}\\ud83d\\ude00\\n\\t\\r\\f\\v", {"Aé😀😀\n\t\r\f\v"}, {"Aé😀😀"}},
        {"^ab$", {"ab"}, {"^ab$", "xab", "abx"}},
        {"^a|b$", {"a", "b"}, {"ab"}},
        {"a*?b+?c??d{1,2}?", {"bd", "aabbcdd"}, {"ad"}},
        {"(?:a)(?<n>b)(?P<m>c)(d)", {"abcd"}, {"acd"}},
        {"\\{\\}\\[\\]\\.\\*\\/\\-{}{a}", {"{}[].*/-{}{a}"}, {"{}"}},
        {"[\\]\\-a\\d^.-]+", {"]-a5^.", "-"}, {"\\", "b"}},
        {"[\\s\\S]*", {"", "x\n\xf0\x9f\x98\x80"}, {"\xf0\x9f", "\x80", "\xf4\x90\x80\x80"}},
        {"[^\\d\\s]", {"a", "é"}, {"1", " ", "\xc2\xa0"}},
        {"(a{1000}){3}", {NULL}, {"a", "aaa"}},
        {"[\\u0000-\\u{10ffff}]", {"\x01", "\x7f", "\xc2\x80", "\xef\xbf\xbf"}, {"\xc0\x80", "\xed\xbf\xbf"}},
        {"[\\u00c0-\\u00fe]|[\\u1001-\\u103f]",
         {"þ", "\xe1\x80\x81"},
         {"ÿ", "\xc2\xbf", "\xe1\x80\x80", "\xe1\x81\x80"}},
        {"\\u{800}|[\\u07ff-\\u0801]", {"\xdf\xbf", "\xe0\xa0\x80", "\xe0\xa0\x81"}, {"\xe0\x9f\xbf"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pm_grammar *g = grammar_of(false, cases[i].pattern);
        for (int k = 0; k < 5 && cases[i].good[k]; k++)
            if (!accepts(g, cases[i].good[k], strlen(cases[i].good[k])))
                fail_msg("%s refuses \"%s\"", cases[i].pattern, cases[i].good[k]);
        for (int k = 0; k < 5 && cases[i].bad[k]; k++)
            if (accepts(g, cases[i].bad[k], strlen(cases[i].bad[k])))
                fail_msg("%s accepts \"%s\"", cases[i].pattern, cases[i].bad[k]);
        pm_grammar_free(&g);
    }
}

static void test_counts_are_exact(void **state)
{
    (void)state;
    char text[4100];
    memset(text, 'a', sizeof text);
    struct pm_grammar *g = grammar_of(false, "(a{1000}){3}|a{4000,4001}");
    for (size_t n = 0; n < sizeof text; n++)
        assert_int_equal(accepts(g, text, n), n == 3000 || n == 4000 || n == 4001);
    pm_grammar_free(&g);
}

/* ---- what is refused ---- */

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *pattern;
        int code;
        const char *says;
    } cases[] = {
        {"(", PM_EFORMAT, "byte 0"},
        {"ab)", PM_EFORMAT, "byte 2"},
        {"a[b", PM_EFORMAT, "not closed at byte 1"},
        {"[]", PM_EFORMAT, "empty class"},
        {"x[z-a]", PM_EFORMAT, "byte 2"},
        {"[a-\\d]", PM_EFORMAT, "byte 1"},
        {"a**", PM_EFORMAT, "byte 2"},
        {"+a", PM_EFORMAT, "byte 0"},
        {"(|*)", PM_EFORMAT, "byte 2"},
        {"a{3,2}", PM_EFORMAT, "byte 1"},
        {"a{,2}", PM_EUNSUPPORTED, "{0,n}"},
        {"\\", PM_EFORMAT, "byte 0"},
        {"\\xg0", PM_EFORMAT, "byte 0"},
        {"a\\u12", PM_EFORMAT, "byte 1"},
        {"\\u{110000}", PM_EFORMAT, "byte 0"},
        {"\\ud800", PM_EFORMAT, "surrogate"},
        {"\xff", PM_EFORMAT, "UTF-8"},
        {"a(?=b)", PM_EUNSUPPORTED, "lookaround at byte 1"},
        {"(?!b)", PM_EUNSUPPORTED, "lookaround"},
        {"(?<=b)", PM_EUNSUPPORTED, "lookaround"},
        {"(?<!b)", PM_EUNSUPPORTED, "lookaround"},
        {"(?i)b", PM_EUNSUPPORTED, "flags"},
        {"(a)\\1", PM_EUNSUPPORTED, "byte 3"},
        {"a\\b", PM_EUNSUPPORTED, "byte 1"},
        {"a^b", PM_EUNSUPPORTED, "byte 1"},
        {"(a$)b", PM_EUNSUPPORTED, "byte 2"},
        {"a++", PM_EUNSUPPORTED, "possessive"},
        {"[[:alpha:]]", PM_EUNSUPPORTED, "POSIX"},
        {"\\p{Klingon}", PM_EUNSUPPORTED, "byte 0"},
        {"\\q", PM_EUNSUPPORTED, "byte 0"},
        {"a{10001}", PM_ELIMIT, "10000"},
        {"a{99999999999999999999}", PM_ELIMIT, "10000"},
        {"[^\\s\\S]", PM_EINVAL, "no text"},
        {"a\\0", PM_EINVAL, "no text"},
        {"(\\p{L}\\p{Lu}|\\p{Ll}{3}){9999}", 0, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pm_grammar *g = NULL;
        struct pm_error err = {0};
        int rc = pm_grammar_regex(cases[i].pattern, &g, &err);
        if (rc != cases[i].code || strstr(err.text, cases[i].says) == NULL)
            fail_msg("%s: %d \"%s\"", cases[i].pattern, rc, err.text);
        assert_int_equal(g == NULL, rc != 0);
        pm_grammar_free(&g);
    }
}

static void refuses_large(struct pm_buf *pattern, const char *says)
{
    struct pm_grammar *g = NULL;
    struct pm_error err = {0};
    pm_buf_text(pattern, "");
    assert_int_equal(pm_grammar_regex((const char *)pattern->data, &g, &err), PM_ELIMIT);
    if (strstr(err.text, says) == NULL)
        fail_msg("%s", err.text);
    pm_buf_clear(pattern);
}

static void test_bounds(void **state)
{
    (void)state;
    struct pm_buf p = {0};
    for (int i = 0; i < 70000; i++)
        pm_buf_text(&p, "a");
    refuses_large(&p, "65536");
    for (int i = 0; i < 400; i++)
        pm_buf_text(&p, "(");
    refuses_large(&p, "150");
    for (int i = 0; i < 100; i++) /* counts within counts take an entry of the stack each */
        pm_buf_text(&p, "(b");
    for (int i = 0; i < 100; i++)
        pm_buf_text(&p, "){90}");
    refuses_large(&p, "deeper than 64");
    for (int i = 0; i < 5000; i++)
        pm_buf_text(&p, "\\p{L}");
    refuses_large(&p, "nodes");
    pm_buf_free(&p);
}

/* A list of words longer than any state may hold places. */
static void test_many_words(void **state)
{
    (void)state;
    struct pm_buf p = {0};
    for (int i = 0; i < 9000; i++)
        pm_buf_printf(&p, "%sw%d", i ? "|" : "", i * 7);
    pm_buf_text(&p, "");
    struct pm_grammar *g = grammar_of(false, (const char *)p.data);
    for (int i = 0; i < 63000; i++) {
        char word[16];
        int n = snprintf(word, sizeof word, "w%d", i);
        assert_int_equal(accepts(g, word, (size_t)n), i % 7 == 0);
    }
    pm_grammar_free(&g);
    pm_buf_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_short_texts), cmocka_unit_test(test_walks_match),
        cmocka_unit_test(test_by_hand),         cmocka_unit_test(test_counts_are_exact),
        cmocka_unit_test(test_refusals),        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_many_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
