/* Characters, cleaning, line ends, escaping: tables of small cases. */
#include "fixture.h"

#include "base/mem.h"
#include "collector/escape.h"
#include "collector/text.h"

static void expect(struct pm_buf *b, const char *expected, const char *what)
{
    pm_buf_text(b, "");
    if (strcmp((const char *)b->data, expected))
        fail_msg("%s\n  gives    \"%s\"\n  expected \"%s\"", what, (const char *)b->data, expected);
    pm_buf_free(b);
}

static void test_clean(void **state)
{
    static const char *const cases[][2] = {
        {"  a \t b  ", "a b"},
        {"a\xC2\xA0\xE3\x80\x80"
         "b",
         "a b"}, /* no-break and ideographic blank */
        {"zero\xE2\x80\x8Bwidth\xEF\xBB\xBF", "zerowidth"},
        {"in\xC2\xADside", "inside"},   /* soft hyphen inside a line */
        {"end\xC2\xAD", "end\xC2\xAD"}, /* at its end it may still be needed */
        {"bell\x07 and\x7F del", "bell and del"},
        {"\xE2\x80\xAEtrojan\xE2\x80\xAC", "trojan"}, /* direction overrides */
        {"bad \xFF byte", "bad \xEF\xBF\xBD byte"},
        {"", ""},
        {"\xC2\xAD", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pm_buf b = {0};
        pm_text_clean(&b, cases[i][0], strlen(cases[i][0]));
        expect(&b, cases[i][1], cases[i][0]);
    }
}

static void test_join(void **state)
{
    static const struct {
        const char *first, *second;
        bool is_full;
        const char *expected;
    } cases[] = {
        {"one", "two", true, "one two"},
        {"", "two", true, "two"},
        {"infor-", "mation here", true, "information here"},
        {"the infor\xE2\x80\x90", "mation", true, "the information"}, /* U+2010 */
        {"infor\xC2\xAD", "mation", true, "information"},
        {"infor\xC2\xAD", "Mation", true, "inforMation"}, /* a soft hyphen never stays */
        {"F\xC3\xB6rder-",
         "\xC3\xBC"
         "bung",
         true,
         "F\xC3\xB6rder\xC3\xBC"
         "bung"},
        {"state-of-the-", "art", true, "state-of-the-art"},
        {"a 5-", "fold rise", true, "a 5-fold rise"},
        {"an e-", "mail", true, "an e-mail"},
        {"(x-", "ray)", true, "(x-ray)"},
        {"Franco-", "German", true, "Franco-German"},
        {"PO-", "Dateien", true, "PO-Dateien"},
        {"COVID-", "19 cases", true, "COVID-19 cases"},
        {"1990-", "2000", true, "1990-2000"},
        {"Ein-", "und Ausgabe", true, "Ein- und Ausgabe"},
        {"pre-", "and postwar", true, "pre- and postwar"},
        {"a dash -", "then more", true, "a dash - then more"},
        {"options --", "here", true, "options -- here"},
        {"use --with-", "option", true, "use --with-option"},
        {"dash\xE2\x80\x94", "then", true, "dash\xE2\x80\x94then"},
        {"dash \xE2\x80\x94", "then", true, "dash \xE2\x80\x94 then"},
        {"see http://a.org/x-", "rays/list", true, "see http://a.org/x-rays/list"},
        {"see http://a.org/", "docs/list.html now", true, "see http://a.org/docs/list.html now"},
        {"see http://a.org/", "for details", true, "see http://a.org/ for details"},
        {"see http://a.org/", "docs/list.html now", false, "see http://a.org/ docs/list.html now"},
        {"in /usr/share/", "doc/x", true, "in /usr/share/doc/x"},
        {"either/", "or not", true, "either/ or not"},
        {"http://a.org/q?a=", "1&b=2", true, "http://a.org/q?a=1&b=2"},
        {"\xE4\xB8\xAD\xE6\x96\x87", "\xE6\x96\x87\xE5\xAD\x97", true,
         "\xE4\xB8\xAD\xE6\x96\x87\xE6\x96\x87\xE5\xAD\x97"},
        {"\xE4\xB8\xAD\xE6\x96\x87", "text", true, "\xE4\xB8\xAD\xE6\x96\x87 text"},
        {"\xED\x95\x9C\xEA\xB5\xAD", "\xEC\x96\xB4", true, "\xED\x95\x9C\xEA\xB5\xAD \xEC\x96\xB4"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pm_buf b = {0};
        pm_text_join(&b, 0, cases[i].first, strlen(cases[i].first), true);
        pm_text_join(&b, 0, cases[i].second, strlen(cases[i].second), cases[i].is_full);
        expect(&b, cases[i].expected, cases[i].first);
    }
}

/* Joins in a chain: every divided word is put together, not only the first. */
static void test_join_chain(void **state)
{
    static const char *const rows[] = {"in-", "ter-", "nation-", "al law"};
    struct pm_buf b = {0};
    (void)state;
    for (size_t i = 0; i < 4; i++)
        pm_text_join(&b, 0, rows[i], strlen(rows[i]), true);
    expect(&b, "international law", "chain");
}

static void test_sentences(void **state)
{
    static const struct {
        const char *text;
        bool ends;
    } cases[] = {{"Done.", true},    {"Done.\"", true},      {"(Done.)", true}, {"list:", true},
                 {"well,", false},   {"word", false},        {"", false},       {"\xE3\x80\x82", true},
                 {"see (3)", false}, {"what?\xC2\xBB", true}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (pm_text_ends_sentence(cases[i].text, strlen(cases[i].text)) != cases[i].ends)
            fail_msg("\"%s\"", cases[i].text);
}

static void test_case_of_letters(void **state)
{
    static const uint32_t lower[] = {'a', 0xDF, 0xE9, 0xFF, 0x101, 0x142, 0x17E, 0x3B1, 0x44F, 0x1E21};
    static const uint32_t upper[] = {'Z', 0xC4, 0xD6, 0x100, 0x141, 0x178, 0x394, 0x416, 0x1E20};
    static const uint32_t neither[] = {'1', '-', 0xD7, 0xF7, 0x2014, 0x4E2D, 0x3002};
    (void)state;
    for (size_t i = 0; i < sizeof lower / sizeof *lower; i++) {
        assert_true(pm_text_is_lower(lower[i]) && !pm_text_is_upper(lower[i]));
        assert_true(pm_text_is_letter(lower[i]));
    }
    for (size_t i = 0; i < sizeof upper / sizeof *upper; i++)
        assert_true(pm_text_is_upper(upper[i]) && !pm_text_is_lower(upper[i]));
    for (size_t i = 0; i < sizeof neither / sizeof *neither; i++)
        assert_true(!pm_text_is_upper(neither[i]) && !pm_text_is_lower(neither[i]));
    assert_false(pm_text_is_letter(0x2022));
    assert_true(pm_text_is_letter(0x4E2D));
}

static void test_escape_markdown(void **state)
{
    static const struct {
        enum pm_escape_place place;
        const char *text, *expected;
    } cases[] = {
        /* left alone */
        {PM_ESCAPE_PARAGRAPH, "snake_case and 2 * 3 = 6", "snake_case and 2 * 3 = 6"},
        {PM_ESCAPE_PARAGRAPH, "a < b && c > d", "a < b && c > d"},
        {PM_ESCAPE_PARAGRAPH, "one `tick, one * star, one $5", "one `tick, one * star, one $5"},
        {PM_ESCAPE_PARAGRAPH, "array[3] and [see below]", "array[3] and [see below]"},
        {PM_ESCAPE_PARAGRAPH, "#hashtag, item #3", "#hashtag, item #3"},
        {PM_ESCAPE_PARAGRAPH, "3.14 and 2019.5", "3.14 and 2019.5"},
        {PM_ESCAPE_PARAGRAPH, "C:\\dir\\new", "C:\\dir\\new"},
        {PM_ESCAPE_PARAGRAPH, "--option and -5", "--option and -5"},
        {PM_ESCAPE_PARAGRAPH, "AT&T and R & D", "AT&amp;T and R & D"},
        /* start of a block */
        {PM_ESCAPE_PARAGRAPH, "# not a heading", "\\# not a heading"},
        {PM_ESCAPE_PARAGRAPH, "#", "\\#"},
        {PM_ESCAPE_PARAGRAPH, "> not a quote", "\\> not a quote"},
        {PM_ESCAPE_PARAGRAPH, "- not a list", "\\- not a list"},
        {PM_ESCAPE_PARAGRAPH, "+ not a list", "\\+ not a list"},
        {PM_ESCAPE_PARAGRAPH, "* note", "\\* note"},
        {PM_ESCAPE_PARAGRAPH, "1998. It was", "1998\\. It was"},
        {PM_ESCAPE_PARAGRAPH, "2) then", "2\\) then"},
        {PM_ESCAPE_PARAGRAPH, "---", "\\---"},
        {PM_ESCAPE_PARAGRAPH, "* * *", "\\* * *"},
        {PM_ESCAPE_PARAGRAPH, "***", "\\***"},
        {PM_ESCAPE_PARAGRAPH, "_ _ _", "\\_ _ _"},
        {PM_ESCAPE_PARAGRAPH, "~~~ fence", "\\~\\~\\~ fence"},
        /* anywhere */
        {PM_ESCAPE_PARAGRAPH, "*emphasis*", "\\*emphasis\\*"},
        {PM_ESCAPE_PARAGRAPH, "**strong**", "\\*\\*strong\\*\\*"},
        {PM_ESCAPE_PARAGRAPH, "_emphasis_", "\\_emphasis\\_"},
        {PM_ESCAPE_PARAGRAPH, "__init__ of x__y", "\\_\\_init\\_\\_ of x\\_\\_y"},
        {PM_ESCAPE_PARAGRAPH, "`code`", "\\`code\\`"},
        {PM_ESCAPE_PARAGRAPH, "~~gone~~", "\\~\\~gone\\~\\~"},
        {PM_ESCAPE_PARAGRAPH, "costs $5 and $6", "costs \\$5 and \\$6"},
        {PM_ESCAPE_PARAGRAPH, "<b>bold</b>", "&lt;b>bold&lt;/b>"},
        {PM_ESCAPE_PARAGRAPH, "<!-- hidden -->", "&lt;!-- hidden -->"},
        {PM_ESCAPE_PARAGRAPH, "&copy; and &#65;", "&amp;copy; and &amp;#65;"},
        {PM_ESCAPE_PARAGRAPH, "[text](url)", "[text]\\(url)"},
        {PM_ESCAPE_PARAGRAPH, "![alt](url)", "![alt]\\(url)"},
        {PM_ESCAPE_PARAGRAPH, "[ref]: url", "[ref]\\: url"},
        {PM_ESCAPE_PARAGRAPH, "a \\* b", "a \\\\* b"},
        {PM_ESCAPE_PARAGRAPH, "end \\", "end \\"},
        /* other places */
        {PM_ESCAPE_HEADING, "1. Intro", "1. Intro"},
        {PM_ESCAPE_HEADING, "C #", "C \\#"},
        {PM_ESCAPE_HEADING, "C#", "C#"},
        {PM_ESCAPE_ITEM, "[ ] box", "\\[ ] box"},
        {PM_ESCAPE_ITEM, "[x] box", "\\[x] box"},
        {PM_ESCAPE_ITEM, "# no heading", "\\# no heading"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pm_buf b = {0}, plain = {0};
        pm_escape_markdown(&b, cases[i].text, strlen(cases[i].text), cases[i].place);
        pm_plain_text(&plain, (const char *)b.data, b.size);
        expect(&b, cases[i].expected, cases[i].text);
        if (cases[i].place != PM_ESCAPE_HEADING) /* and back */
            expect(&plain, cases[i].text, cases[i].expected);
        else
            pm_buf_free(&plain);
    }
}

static void test_escape_table(void **state)
{
    static const char *const cases[][2] = {
        {"<table><tr><td rowspan=\"2\" class=x>a</td><td>b</td></tr></table>",
         "<table><tr><td rowspan=\"2\">a</td><td>b</td></tr></table>"},
        {"<TABLE border=1><TR><TH colspan='3'>a</TH></TR></TABLE>",
         "<table><tr><th colspan=\"3\">a</th></tr></table>"},
        {"<table><tr><td><script>alert(1)</script></td></tr></table>",
         "<table><tr><td>&lt;script&gt;alert(1)&lt;/script&gt;</td></tr></table>"},
        {"<td onclick=\"x\" colspan=99999>a</td>", "<td>a</td>"},
        {"<tdx>a", "&lt;tdx&gt;a"},
        {"a < b & c &amp; d &lt;", "a &lt; b &amp; c &amp; d &lt;"},
        {"<tr>\n\n\n  <td>a</td>\n</tr>", "<tr>\n<td>a</td>\n</tr>"},
        {"<table", "&lt;table"},
        {"<", "&lt;"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pm_buf b = {0};
        pm_escape_table(&b, cases[i][0], strlen(cases[i][0]));
        expect(&b, cases[i][1], cases[i][0]);
    }
}

static void test_plain_text(void **state)
{
    static const char *const cases[][2] = {
        {"## A \\# title", "A # title"},
        {"- one\n  - two\n1. three", "- one\n  - two\n1. three"},
        {"```\nx = \\a\n# c\n```", "x = \\a\n# c"},
        {"````\n```\n````", "```"},
        {"$$\nx^2\n$$", "x^2"},
        {"<table>\n<tr><td>a &lt; b</td><td "
         "rowspan=\"2\">c<br>d</td></tr>\n<tr><td></td></tr>\n</table>\n\nafter",
         "a < b\tc d\n\n\nafter"},
        {"a\n\nb", "a\n\nb"},
        {"", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pm_buf b = {0};
        pm_plain_text(&b, cases[i][0], strlen(cases[i][0]));
        expect(&b, cases[i][1], cases[i][0]);
    }
}

/* Random bytes: nothing may read or write outside, and cleaned text is text. */
static void test_random_bytes(void **state)
{
    static const char alphabet[] = "a A-_*`#<>&[](){}$|~\\\n\t./:;0123\xC2\xAD\xE2\x80\x94\xFF\xF0";
    uint64_t seed = 1;
    (void)state;
    for (int round = 0; round < 20000; round++) {
        char text[64];
        size_t n = 0;
        do {
            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
            text[n++] = alphabet[(seed >> 33) % (sizeof alphabet - 1)];
        } while (n < sizeof text && (seed >> 58));
        char *exact = malloc(n); /* so that a sanitizer sees the end */
        memcpy(exact, text, n);
        struct pm_buf a = {0}, b = {0}, c = {0}, d = {0};
        pm_text_clean(&a, exact, n);
        pm_text_join(&b, 0, exact, n, true);
        pm_text_join(&b, 0, exact, n, true);
        pm_escape_markdown(&c, exact, n, (enum pm_escape_place)(round % 3));
        pm_escape_table(&c, exact, n);
        pm_plain_text(&d, exact, n);
        for (size_t at = 0, length; at < a.size; at += length)
            pm_text_point((const char *)a.data, a.size, at, &length);
        pm_buf_free(&a);
        pm_buf_free(&b);
        pm_buf_free(&c);
        pm_buf_free(&d);
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clean),           cmocka_unit_test(test_join),
        cmocka_unit_test(test_join_chain),      cmocka_unit_test(test_sentences),
        cmocka_unit_test(test_case_of_letters), cmocka_unit_test(test_escape_markdown),
        cmocka_unit_test(test_escape_table),    cmocka_unit_test(test_plain_text),
        cmocka_unit_test(test_random_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
