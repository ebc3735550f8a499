/* The formatter: drawings of regions -> content, and what it says about failures and breaks. */
#include "fixture.h"

#include "engine/reader.h"

struct content_case {
    enum pm_label label;
    const char *art, *expected;
};

static void check(const struct content_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct drawn d;
        const char *got = drawn_content(&d, cases[i].label, cases[i].art);
        if (strcmp(got, cases[i].expected))
            fail_msg("case %zu, %s\n%s\n--- gives\n%s\n--- expected\n%s", i, pm_label_name(cases[i].label),
                     cases[i].art, got, cases[i].expected);
        drawn_free(&d);
    }
}
#define CHECK(cases) check(cases, sizeof cases / sizeof *cases)

static void test_paragraphs(void **state)
{
    static const struct content_case cases[] = {
        {PM_LABEL_TEXT, "One line.", "One line."},
        {PM_LABEL_TEXT, "The first line of some infor-\nmation goes on here and on\nends.",
         "The first line of some information goes on here and on ends."},
        {PM_LABEL_TEXT, "left\tright", "left right"}, /* two crops on one baseline */
        /* an indent after the end of a sentence */
        {PM_LABEL_TEXT,
         "Some text that fills its line.\nAnd another line as full as it\nends here.\n"
         "   A new paragraph, indented\nand going on to the left.",
         "Some text that fills its line. And another line as full as it ends here.\n\n"
         "A new paragraph, indented and going on to the left."},
        /* a short line that ends a sentence */
        {PM_LABEL_TEXT, "Some text that fills its line\nends here.\nAnother paragraph without indent",
         "Some text that fills its line ends here.\n\nAnother paragraph without indent"},
        /* ragged right: the line is short, but the next word would not have fitted */
        {PM_LABEL_TEXT, "Some text that fills its line\nends. Then comes an\nincomprehensibility of things",
         "Some text that fills its line ends. Then comes an incomprehensibility of things"},
        /* a short line in the middle of a sentence stays one paragraph */
        {PM_LABEL_TEXT, "Some text that fills its line up\nwith words that\nare continued in small letters.",
         "Some text that fills its line up with words that are continued in small letters."},
        /* a gap */
        {PM_LABEL_TEXT, "aaaa bbbb cccc\ndddd eeee ffff\n\n\nGggg hhhh iiii\njjjj kkkk llll",
         "aaaa bbbb cccc dddd eeee ffff\n\nGggg hhhh iiii jjjj kkkk llll"},
        /* text that Markdown would take for something else */
        {PM_LABEL_TEXT, "# of items", "\\# of items"},
        {PM_LABEL_TEXT, "1998. It was the year", "1998\\. It was the year"},
        {PM_LABEL_NUMBER, "- 2 -", "\\- 2 -"},
        {PM_LABEL_NUMBER, "12", "12"},
        {PM_LABEL_HEADER, "Chapter 10: Statements\t185", "Chapter 10: Statements 185"},
        {PM_LABEL_FIGURE_TITLE, "Figure 1. A caption in\ntwo lines", "Figure 1. A caption in two lines"},
        {PM_LABEL_CONTENT, "1 Intro . . . . 5\n2 Outro . . . . 9", "1 Intro . . . . 5\n\n2 Outro . . . . 9"},
        {PM_LABEL_TEXT, "\xE4\xB8\xAD\xE6\x96\x87\n\xE6\x96\x87\xE5\xAD\x97",
         "\xE4\xB8\xAD\xE6\x96\x87\xE6\x96\x87\xE5\xAD\x97"},
        {PM_LABEL_TEXT, "a last soft hyphen\xC2\xAD", "a last soft hyphen"},
    };
    (void)state;
    CHECK(cases);
}

static void test_headings(void **state)
{
    static const struct content_case cases[] = {
        {PM_LABEL_DOC_TITLE, "The Title of\nthe Docu-\nment", "# The Title of the Document"},
        {PM_LABEL_PARAGRAPH_TITLE, "2\tSpreadsheet-like data", "## 2 Spreadsheet-like data"},
        {PM_LABEL_PARAGRAPH_TITLE, "1. Intro", "## 1. Intro"},
        {PM_LABEL_PARAGRAPH_TITLE, "1. Say what you mean.", "## 1. Say what you mean."},
        {PM_LABEL_PARAGRAPH_TITLE, "Introduction.", "## Introduction."},
        {PM_LABEL_PARAGRAPH_TITLE, "dpkg and the database", "## dpkg and the database"},
        /* text in bold or large type */
        {PM_LABEL_PARAGRAPH_TITLE, "The default mode is 8B.", "The default mode is 8B."},
        {PM_LABEL_PARAGRAPH_TITLE, "manager to update or\nremove the property",
         "manager to update or remove the property"},
        {PM_LABEL_PARAGRAPH_TITLE, "The *star* #", "## The \\*star\\* \\#"},
    };
    (void)state;
    CHECK(cases);
    struct drawn d;
    drawn_init(&d);
    drawn_region(&d, PM_LABEL_PARAGRAPH_TITLE, 0, 0, "Deep");
    drawn_region(&d, PM_LABEL_PARAGRAPH_TITLE, 0, 90, "Deeper than Markdown goes");
    drawn_region(&d, PM_LABEL_TEXT, 0, 180, "text");
    d.page.regions[0].level = 3;
    d.page.regions[1].level = 99;
    d.page.regions[2].level = 2; /* a level on text means nothing */
    struct pm_out_page p = drawn_format(&d);
    assert_string_equal(p.regions[0].content, "### Deep");
    assert_string_equal(p.regions[1].content, "###### Deeper than Markdown goes");
    assert_string_equal(p.regions[2].content, "text");
    assert_int_equal(p.regions[0].level, 3);
    assert_int_equal(p.regions[2].level, 0);
    drawn_free(&d);
}

static void test_lists(void **state)
{
    static const struct content_case cases[] = {
        {PM_LABEL_LIST, "\xE2\x80\xA2 one\n\xE2\x80\xA2 two goes\n  on here\n\xE2\x80\xA2 three",
         "- one\n- two goes on here\n- three"},
        {PM_LABEL_LIST, "\xE2\x80\xA2\tone\n\xE2\x80\xA2\ttwo", "- one\n- two"}, /* bullets are crops */
        {PM_LABEL_LIST, "o\t one\no\t two", "- one\n- two"},                     /* misread bullets */
        {PM_LABEL_LIST, "\xE2\x80\x94 one\n\xE2\x80\x94 two", "- one\n- two"},   /* long dashes */
        {PM_LABEL_TEXT, "\xE2\x80\x94 said one", "\xE2\x80\x94 said one"},
        {PM_LABEL_TEXT, "o one\no two", "o one o two"},
        {PM_LABEL_LIST, "- one\n- two", "- one\n- two"},
        {PM_LABEL_LIST, "\xE2\x80\x93 one\n* two", "- one\n- two"},
        {PM_LABEL_LIST, "1. one\n2. two\n3. three", "1. one\n2. two\n3. three"},
        {PM_LABEL_LIST, "1) one\n2) two", "1) one\n2) two"},
        {PM_LABEL_LIST, "(a) one\n(b) two", "- (a) one\n- (b) two"},
        {PM_LABEL_LIST, "a) one\nb) two", "- a) one\n- b) two"},
        {PM_LABEL_LIST, "iv. one\nv. two", "- iv. one\n- v. two"},
        {PM_LABEL_LIST, "1.One\n2.Two", "1. One\n2. Two"}, /* the blank was lost */
        {PM_LABEL_LIST, "3. three\n4. four", "3. three\n4. four"},
        /* nested */
        {PM_LABEL_LIST,
         "\xE2\x80\xA2 one\n   \xE2\x80\x93 inner a\n   \xE2\x80\x93 inner b\n      1. deep\n\xE2\x80\xA2 "
         "two",
         "- one\n  - inner a\n  - inner b\n    1. deep\n- two"},
        {PM_LABEL_LIST, "1. one\n   \xE2\x80\xA2 inner\n2. two", "1. one\n   - inner\n2. two"},
        {PM_LABEL_LIST, "10. one\n    \xE2\x80\xA2 inner", "10. one\n    - inner"},
        {PM_LABEL_LIST, "\xE2\x80\xA2 one\n   3. inner", "- one\n\n  3. inner"},
        /* numbers as they were read, even out of order */
        {PM_LABEL_LIST, "1. one\n2. two\n4. four\n5. five", "1. one\n2. two\n\n4\\. four\n\n5. five"},
        {PM_LABEL_LIST, "1. one\n14. odd\n    \xE2\x80\xA2 in", "1. one\n\n14\\. odd\n\n- in"},
        {PM_LABEL_LIST, "\xE2\x80\xA2 one\n3. two\n4) three", "- one\n\n3. two\n\n4) three"},
        /* marks that do not quite line up are still one list in Markdown */
        {PM_LABEL_LIST, "  1. one\n7. two", "1. one\n\n7\\. two"},
        /* a paragraph inside an item */
        {PM_LABEL_LIST, "1. one is long\n   goes on\n   and on\n\n\n   second part\n2. two",
         "1. one is long goes on and on\n\n   second part\n\n2. two"},
        /* a list whose bullets were not read at all */
        {PM_LABEL_LIST, "Encoding of files\nHeader lines\nThe many separators",
         "- Encoding of files Header lines\n- The many separators"},
        {PM_LABEL_LIST, "Encoding of the\n  UTF-8 files\nHeader lines",
         "- Encoding of the UTF-8 files\n- Header lines"},
        /* text that happens to hold a mark */
        {PM_LABEL_TEXT, "see the table in section\n2. It tells more about it.",
         "see the table in section 2. It tells more about it."},
        {PM_LABEL_TEXT, "A. Smith wrote this book.", "A. Smith wrote this book."},
        {PM_LABEL_TEXT, "the difference between a\n- b and c is not large but",
         "the difference between a - b and c is not large but"},
        /* and text with a list in it */
        {PM_LABEL_TEXT, "There are two of them:\n1. the one\n2. the other",
         "There are two of them:\n\n1. the one\n2. the other"},
        {PM_LABEL_TEXT, "There are two of them:\n  \xE2\x80\xA2 the one\n  \xE2\x80\xA2 the other",
         "There are two of them:\n\n- the one\n- the other"},
        {PM_LABEL_TEXT, "1. If the text goes on in the\n   next line with an indent, it\n   is one item.",
         "1. If the text goes on in the next line with an indent, it is one item."},
        {PM_LABEL_LIST, "\xE2\x80\xA2 [x] done\n\xE2\x80\xA2 # two", "- \\[x] done\n- \\# two"},
    };
    (void)state;
    CHECK(cases);
}

/* layoutd gives every item a region of its own: depth comes from the items before, until text ends them. */
static void test_lists_over_regions(void **state)
{
    static const struct {
        enum pm_label label;
        float left, top;
        const char *art, *expected;
    } regions[] = {
        {PM_LABEL_LIST, 100, 0, "\xE2\x80\xA2 outer", "- outer"},
        {PM_LABEL_LIST, 130, 30, "\xE2\x80\x93 inner one", "  - inner one"},
        {PM_LABEL_LIST, 150, 60, "inner two, no mark read", "  - inner two, no mark read"},
        {PM_LABEL_TEXT, 160, 90, "1. deep", "    1. deep"},
        {PM_LABEL_LIST, 100, 120, "\xE2\x80\xA2 outer again", "- outer again"},
        {PM_LABEL_TEXT, 100, 150, "Text ends the list.", "Text ends the list."},
        {PM_LABEL_LIST, 160, 180, "\xE2\x80\xA2 a new list", "- a new list"},
        {PM_LABEL_CODE, 160, 210, "code();", "```\ncode();\n```"},
        {PM_LABEL_LIST, 190, 240, "\xE2\x80\xA2 and another", "- and another"},
        {PM_LABEL_LIST, 600, 0, "\xE2\x80\xA2 next column", "- next column"},
    };
    struct drawn d;
    (void)state;
    drawn_init(&d);
    for (size_t i = 0; i < sizeof regions / sizeof *regions; i++)
        drawn_region(&d, regions[i].label, regions[i].left, regions[i].top, regions[i].art);
    struct pm_out_page p = drawn_format(&d);
    for (size_t i = 0; i < sizeof regions / sizeof *regions; i++)
        assert_string_equal(p.regions[i].content, regions[i].expected);
    drawn_free(&d);
}

/* An item whose bullet was not read stands where the text of its neighbours does, whatever the gap is. */
static void test_bare_item(void **state)
{
    struct drawn d;
    struct pm_word words[] = {{0, 3, 0, 0.05f, 1}, {4, 8, 0.5f, 1, 1}};
    (void)state;
    drawn_init(&d);
    drawn_region(&d, PM_LABEL_LIST, 100, 0, "\xE2\x80\xA2 text of it");
    drawn_region(&d, PM_LABEL_LIST, 160, 30, "bullet not read");
    d.texts[0].words = words;
    d.texts[0].word_count = 2;
    struct pm_out_page p = drawn_format(&d);
    assert_string_equal(p.regions[0].content, "- text of it");
    assert_string_equal(p.regions[1].content, "- bullet not read");
    d.page.regions[1].box[0] += 40;
    d.page.crops[1].quad[0] += 40;
    d.page.crops[1].quad[6] += 40;
    assert_string_equal(drawn_format(&d).regions[1].content, "  - bullet not read");
    drawn_free(&d);
}

static void test_references(void **state)
{
    static const struct content_case cases[] = {
        {PM_LABEL_REFERENCE, "[1] A. Author. A title that\n    goes on.\n[2] B. Other. Next.",
         "[1] A. Author. A title that goes on.\n\n[2] B. Other. Next."},
        {PM_LABEL_REFERENCE, "Author, A. A title that goes\n   on in a second line\nOther, B. Another one.",
         "Author, A. A title that goes on in a second line\n\nOther, B. Another one."},
    };
    (void)state;
    CHECK(cases);
}

static void test_code(void **state)
{
    static const struct content_case cases[] = {
        {PM_LABEL_CODE, "for i = 3:10\n  fib(i) = fib(i-1);\n\n\nendfor",
         "```\nfor i = 3:10\n  fib(i) = fib(i-1);\n\nendfor\n```"},
        {PM_LABEL_CODE, "    deep();\nx = 1\ty = 2;", "```\n    deep();\nx = 1 y = 2;\n```"},
        {PM_LABEL_CODE, "int a_b;    \t/* comment */", "```\nint a_b;     /* comment */\n```"},
        {PM_LABEL_CODE, "```sh\n# root\n```", "````\n```sh\n# root\n```\n````"},
        {PM_LABEL_CODE, "<b> & *x* infor-\nmation", "```\n<b> & *x* infor-\nmation\n```"},
    };
    (void)state;
    CHECK(cases);
}

/* Blanks inside one crop, from the places of its words. */
static void test_code_columns(void **state)
{
    struct drawn d;
    struct pm_word words[2] = {{0, 5, 0, 0.25f, 1}, {6, 15, 0.55f, 1, 1}};
    (void)state;
    drawn_init(&d);
    drawn_region(&d, PM_LABEL_CODE, 0, 0, "first line of it all");
    d.texts[0].text = "int a /* wide */";
    words[1].end = 16;
    d.texts[0].words = words;
    d.texts[0].word_count = 2;
    assert_string_equal(drawn_format(&d).regions[0].content, "```\nint a     /* wide */\n```");
    /* crops have margins that vary; the words tell where a row begins */
    struct pm_word whole = {0, 6, 0.2f, 0.8f, 1};
    uint32_t second = drawn_crop(&d, 0, 0, 15, 30, 115, 50, "inner;");
    d.texts[second].words = &whole;
    d.texts[second].word_count = 1;
    assert_string_equal(drawn_format(&d).regions[0].content, "```\nint a     /* wide */\n   inner;\n```");
    d.texts[second].word_count = 0;
    assert_string_equal(drawn_format(&d).regions[0].content, "```\nint a    /* wide */\n inner;\n```");
    d.text_count = d.page.crop_count = 1;
    words[1].start = 9000; /* nonsense falls back to the text */
    assert_string_equal(drawn_format(&d).regions[0].content, "```\nint a /* wide */\n```");
    drawn_free(&d);
}

static void test_tables(void **state)
{
    struct drawn d;
    (void)state;
    drawn_init(&d);
    drawn_region(&d, PM_LABEL_TABLE, 0, 0, "");
    drawn_cell(&d, 0, 1, 1, 1, 1, "a < b & c"); /* not in order */
    drawn_cell(&d, 0, 0, 0, 2, 1, "tall");
    drawn_cell(&d, 0, 0, 1, 1, 2, "wide enough to\nhold two lines");
    drawn_cell(&d, 0, 2, 1, 1, 1, "infor-\nmation");
    drawn_cell(&d, 0, 2, 2, 1, 1, "Yes.\nNo.");
    assert_string_equal(
        drawn_format(&d).regions[0].content,
        "<table>\n"
        "<tr><td rowspan=\"2\">tall</td><td colspan=\"2\">wide enough to<br>hold two lines</td></tr>\n"
        "<tr><td>a &lt; b &amp; c</td><td></td></tr>\n"
        "<tr><td></td><td>infor-<br>mation</td><td>Yes.<br>No.</td></tr>\n"
        "</table>");
    drawn_free(&d);
    /* a line that fills its cell goes on */
    drawn_init(&d);
    drawn_region(&d, PM_LABEL_TABLE, 0, 0, "");
    drawn_cell(&d, 0, 0, 0, 1, 1, "as wide as its\ncell goes infor-\nmation");
    assert_string_equal(drawn_format(&d).regions[0].content,
                        "<table>\n<tr><td>as wide as its cell goes information</td></tr>\n</table>");
    drawn_free(&d);
    /* no cells known: a row of crops is a row of the table */
    drawn_init(&d);
    drawn_region(&d, PM_LABEL_TABLE, 0, 0, "a\tb\nc\td");
    assert_string_equal(drawn_format(&d).regions[0].content,
                        "<table>\n<tr><td>a</td><td>b</td></tr>\n<tr><td>c</td><td>d</td></tr>\n</table>");
    drawn_free(&d);
    /* text outside the cells is not lost */
    drawn_init(&d);
    drawn_region(&d, PM_LABEL_TABLE, 0, 600, "Below");
    drawn_cell(&d, 0, 0, 0, 1, 1, "in");
    assert_string_equal(drawn_format(&d).regions[0].content,
                        "<table>\n<tr><td>in</td></tr>\n</table>\n\nBelow");
    drawn_free(&d);
}

/* Tables whose numbers lie: no hang, no fault, no lost text. */
static void test_hostile_tables(void **state)
{
    struct drawn d;
    (void)state;
    drawn_init(&d);
    drawn_region(&d, PM_LABEL_TABLE, 0, 0, "");
    for (uint32_t i = 0; i < 300; i++)
        drawn_cell(&d, 0, i % 3, i % 5, UINT32_MAX, 0, "x");
    struct pm_page_region *r = &d.page.regions[0];
    static const uint32_t sizes[] = {0, 1, 255, 65535, UINT32_MAX};
    for (size_t i = 0; i < 25; i++) {
        r->table_rows = sizes[i % 5];
        r->table_columns = sizes[i / 5];
        const char *content = drawn_format(&d).regions[0].content;
        size_t found = 0;
        for (const char *p = content; (p = strstr(p, ">x<")); p++)
            found++;
        assert_int_equal(found, 300);
        assert_true(strlen(content) < 2000000);
    }
    drawn_free(&d);
}

static void test_blocks(void **state)
{
    static const struct {
        enum pm_label label;
        uint32_t task;
        const char *text, *expected;
    } cases[] = {
        {PM_LABEL_TEXT, PM_TASK_TEXT, "one\ntwo", "one\n\ntwo"},
        {PM_LABEL_TEXT, PM_TASK_TEXT, "\xE2\x80\xA2 one\n\xC2\xB7 two", "- one\n- two"},
        {PM_LABEL_TEXT, PM_TASK_TEXT, "```\na\nb\n```", "```\na\nb\n```"},
        {PM_LABEL_TEXT, PM_TASK_TEXT, "```\na\n\nb", "```\na\n\nb\n```"}, /* an open fence is closed */
        {PM_LABEL_TEXT, PM_TASK_TEXT, "3.14 is pi\ncosts $5 and $6 a......b",
         "3.14 is pi\n\ncosts $5 and $6 a......b"},
        {PM_LABEL_TEXT, PM_TASK_TEXT, "x <script>y</script> a<b", "x &lt;script>y&lt;/script> a<b"},
        {PM_LABEL_TEXT, PM_TASK_TEXT, "H<sub>2</sub>O", "H<sub>2</sub>O"},
        {PM_LABEL_PARAGRAPH_TITLE, PM_TASK_TEXT, "# A title\nin two lines", "## A title in two lines"},
        {PM_LABEL_DISPLAY_FORMULA, PM_TASK_FORMULA, "\\[ \\theta x \\]", "$$\n\\theta x\n$$"},
        {PM_LABEL_DISPLAY_FORMULA, PM_TASK_FORMULA, "$$\nx\n\ny\n$$", "$$\nx\ny\n$$"},
        {PM_LABEL_TABLE, PM_TASK_TABLE, "<table><tr><td>a</td></tr></table>",
         "<table><tr><td>a</td></tr></table>"},
        {PM_LABEL_TABLE, PM_TASK_TABLE, "| a |\n|---|\n| b |", "| a |\n|---|\n| b |"},
        {PM_LABEL_DISPLAY_FORMULA, PM_TASK_FORMULA, "$a+b$", "$$\na+b\n$$"},
        {PM_LABEL_DISPLAY_FORMULA, PM_TASK_FORMULA, "$a$ or $b$", "$$\n$a$ or $b$\n$$"},
        /* cut off at its limit, in every place */
        {PM_LABEL_TABLE, PM_TASK_TABLE, "<table><tr><td>a</td><td>b",
         "<table><tr><td>a</td><td>b</td></tr></table>"},
        {PM_LABEL_TABLE, PM_TASK_TABLE, "<table><tr><td>a</td><td rowspa",
         "<table><tr><td>a</td></tr></table>"},
        {PM_LABEL_TABLE, PM_TASK_TABLE, "<table><tr><td>a</t", "<table><tr><td>a</td></tr></table>"},
        {PM_LABEL_TABLE, PM_TASK_TABLE, "<table><tr><td>a <", "<table><tr><td>a </td></tr></table>"},
        {PM_LABEL_TABLE, PM_TASK_TABLE, "<table><tr><td>a < b</td></tr></table>",
         "<table><tr><td>a &lt; b</td></tr></table>"},
        {PM_LABEL_TABLE, PM_TASK_TABLE, "<table>", "<table></table>"},
        /* ends that a model forgot, and ends of nothing */
        {PM_LABEL_TABLE, PM_TASK_TABLE, "<table><tr><td>a<td>b<tr><th>c</table>",
         "<table><tr><td>a</td><td>b</td></tr><tr><th>c</th></tr></table>"},
        {PM_LABEL_TABLE, PM_TASK_TABLE, "<table><thead><tr><td>a</td><tbody><tr></td></sub><td>b</table>",
         "<table><thead><tr><td>a</td></tr></thead><tbody><tr><td>b</td></tr></tbody></table>"},
        {PM_LABEL_TABLE, PM_TASK_TABLE,
         "<table><tr><td><table><tr><td>in</td></tr></table></td><td>b<br>c</td></tr></table>",
         "<table><tr><td><table><tr><td>in</td></tr></table></td><td>b<br>c</td></tr></table>"},
        /* what stands beside it */
        {PM_LABEL_TABLE, PM_TASK_TABLE, "Table 1\n<table><tr><td>a</td></tr></table>\nNote",
         "Table 1\n\n<table><tr><td>a</td></tr></table>\n\nNote"},
        {PM_LABEL_TEXT, PM_TASK_TEXT, "<table><tr><td>a", "<table><tr><td>a\n</table>"},
        {PM_LABEL_TEXT, PM_TASK_TEXT, "  \n ", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct drawn d;
        drawn_init(&d);
        d.page.region_kind = "block";
        drawn_region(&d, cases[i].label, 0, 0, "x");
        d.texts[0].text = cases[i].text;
        d.page.crops[0].task = cases[i].task;
        const char *got = drawn_format(&d).regions[0].content;
        if (strcmp(got, cases[i].expected))
            fail_msg("case %zu\n%s\n--- gives\n%s\n--- expected\n%s", i, cases[i].text, got,
                     cases[i].expected);
        drawn_free(&d);
    }
}

static void test_confidence_and_lines(void **state)
{
    struct drawn d;
    struct pm_word words[] = {
        {0, 3, 0, 0.4f, 0.9f}, {4, 99, 0.5f, 1, 1}, {4, 7, 0.6f, 7, 2}, {2, 3, 0, 1, 1}};
    uint64_t characters;
    (void)state;
    drawn_init(&d);
    drawn_region(&d, PM_LABEL_TEXT, 0, 0, "abc def\nx");
    d.texts[0].confidence = 1;
    d.texts[0].words = words;
    d.texts[0].word_count = 4;
    d.texts[1].confidence = 0.3f;
    struct pm_out_page p = drawn_format(&d);
    assert_float_equal(p.regions[0].confidence, (6 * 1 + 1 * 0.3f) / 7, 1e-6);
    assert_int_equal(p.regions[0].line_count, 2);
    assert_int_equal(p.regions[0].lines[0].word_count, 2); /* only those inside the text, in order */
    assert_int_equal(p.regions[0].lines[0].words[1].start, 4);
    assert_float_equal(p.regions[0].lines[0].words[1].right, 1, 0);
    assert_float_equal(p.regions[0].lines[0].words[1].confidence, 1, 0);
    assert_float_equal(pm_page_confidence(&p, &characters), 0.9, 1e-6);
    assert_int_equal(characters, 7);
    drawn_free(&d);
}

/* The order in which texts arrive changes nothing. */
static void test_order_of_texts(void **state)
{
    struct drawn d;
    (void)state;
    drawn_init(&d);
    drawn_region(&d, PM_LABEL_TEXT, 0, 0, "one\ntwo\nthree\tfour");
    struct pm_buf a = {0}, b = {0};
    struct pm_out_page p = drawn_format(&d);
    pm_record_encode(&pm_out_page_schema, &p, &a);
    for (uint32_t i = 0; i < d.text_count / 2; i++) {
        struct pm_region_text t = d.texts[i];
        d.texts[i] = d.texts[d.text_count - 1 - i];
        d.texts[d.text_count - 1 - i] = t;
    }
    p = drawn_format(&d);
    pm_record_encode(&pm_out_page_schema, &p, &b);
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    pm_buf_free(&a);
    pm_buf_free(&b);
    drawn_free(&d);
}

static void test_failures_stay_visible(void **state)
{
    struct drawn d;
    (void)state;
    drawn_init(&d);
    drawn_region(&d, PM_LABEL_TEXT, 0, 0, "first line\nlost line\nlast line");
    drawn_region(&d, PM_LABEL_TEXT, 0, 200, "all lost");
    drawn_region(&d, PM_LABEL_TEXT, 0, 400, "never answered");
    drawn_region(&d, PM_LABEL_TEXT, 0, 600, "cut");
    drawn_region(&d, PM_LABEL_TEXT, 0, 800, "nothing legible");
    d.texts[1].error_code = "timeout";
    d.texts[1].error_text = "reading took longer than 5 s";
    d.texts[3].error_code = "crash";
    d.texts[3].error_text = "two workers died reading it";
    d.texts[5].finish = "length";
    d.texts[6].finish = "empty";
    d.texts[6].text = "";
    d.texts[4] = d.texts[6]; /* crop 4 has no answer */
    d.text_count = 6;
    struct pm_out_page p = drawn_format(&d);
    assert_string_equal(p.regions[0].content,
                        "first line [unreadable line: reading took longer than 5 s] last line");
    assert_string_equal(p.regions[0].error_code, "timeout");
    assert_string_equal(p.regions[0].error_text,
                        "1 of 3 lines could not be read: reading took longer than 5 s");
    assert_string_equal(p.regions[1].content, "");
    assert_string_equal(p.regions[1].error_code, "crash");
    assert_string_equal(p.regions[1].error_text, "two workers died reading it");
    assert_string_equal(p.regions[2].error_code, "internal");
    assert_string_equal(p.regions[3].content, "cut");
    assert_string_equal(p.regions[3].error_code, ""); /* it was read, as far as the reader was allowed to */
    assert_true(p.regions[3].was_cut);
    assert_false(p.regions[4].was_cut);
    assert_string_equal(p.regions[4].content, "");
    assert_string_equal(p.regions[4].error_code, "");
    drawn_free(&d);
}

static void test_continues(void **state)
{
    static const struct {
        const char *first, *second;
        float second_left, second_top;
        bool continues;
    } cases[] = {
        {"text that fills up its whole line\nand goes on in the next column as", "it should be here.", 500, 0,
         true},
        {"text that fills up its whole line\nand is divided at the end in infor-", "mation goes on.", 500, 0,
         true},
        {"text that fills up its whole line\nand ends with a sentence right here.", "it should be here.", 500,
         0, false},
        {"text that fills up its whole line\nand goes on in the next column as", "It should be here.", 500, 0,
         false},
        {"text that fills up its whole line\nand ends early", "it should be here.", 500, 0, false},
        {"text that fills up its whole line\nand goes on in the next column as", "below, in one column", 0,
         500, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct drawn d;
        drawn_init(&d);
        drawn_region(&d, PM_LABEL_TEXT, 0, 300, cases[i].first);
        drawn_region(&d, PM_LABEL_FOOTER, 0, 900, "a footer");
        drawn_region(&d, PM_LABEL_TEXT, cases[i].second_left, cases[i].second_top, cases[i].second);
        struct pm_out_page p = drawn_format(&d);
        if (p.regions[0].continues != cases[i].continues)
            fail_msg("case %zu", i);
        assert_false(p.regions[1].continues);
        drawn_free(&d);
    }
}

/* What may stand between the halves, and what not. */
static void test_continues_over(void **state)
{
    static const struct {
        enum pm_label between;
        float second_left, second_top;
        const char *first;
        bool continues;
    } cases[] = {
        {PM_LABEL_NUMBER, 500, 0, "text that fills up its whole line\nand goes on in the next column as",
         true},
        {PM_LABEL_FOOTNOTE, 500, 0, "text that fills up its whole line\nand goes on in the next column as",
         false},
        {PM_LABEL_FOOTNOTE, 500, 0, "text that fills up its whole line\nand is divided at the end in infor-",
         false},
        {PM_LABEL_COUNT, 0, 400, "text that fills up its whole line\nand is divided at the end in infor-",
         true},
        {PM_LABEL_COUNT, 0, 400, "text that fills up its whole line\nand goes on in the next region as",
         false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct drawn d;
        drawn_init(&d);
        drawn_region(&d, PM_LABEL_TEXT, 0, 300, cases[i].first);
        if (cases[i].between < PM_LABEL_COUNT)
            drawn_region(&d, cases[i].between, 0, 900, "between");
        drawn_region(&d, PM_LABEL_TEXT, cases[i].second_left, cases[i].second_top, "mation goes on.");
        struct pm_out_page p = drawn_format(&d);
        if (p.regions[0].continues != cases[i].continues)
            fail_msg("case %zu", i);
        drawn_free(&d);
    }
}

static void test_meant_line_breaks(void **state)
{
    static const struct {
        const char *art, *expected;
    } cases[] = {
        {"Harbour Street Library\n12 Harbour Street\nTelephone 1 2 3",
         "Harbour Street Library  \n12 Harbour Street  \nTelephone 1 2 3"},
        {"M. Okonkwo\nHead of collections", "M. Okonkwo  \nHead of collections"},
        /* a sentence runs over the rows, or ends */
        {"Narrow text beside\na picture goes on", "Narrow text beside a picture goes on"},
        {"A short note.\nAnd one more", "A short note. And one more"},
        /* as wide as text is set here */
        {"Text that is wide enough to be set in the\nGerman way",
         "Text that is wide enough to be set in the German way"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct drawn d;
        drawn_init(&d);
        drawn_region(&d, PM_LABEL_TEXT, 0, 0, cases[i].art);
        drawn_region(&d, PM_LABEL_TEXT, 0, 300,
                     "the text of the page is set as wide as this line\nof it, and goes on.");
        struct pm_out_page p = drawn_format(&d);
        assert_string_equal(p.regions[0].content, cases[i].expected);
        assert_false(p.regions[0].continues);
        drawn_free(&d);
    }
}

static void test_refuses_what_does_not_fit(void **state)
{
    struct pm_out_page out;
    struct pm_error err;
    (void)state;
    for (int i = 0; i < 9; i++) {
        struct drawn d;
        drawn_init(&d);
        drawn_region(&d, PM_LABEL_TEXT, 0, 0, "one\ntwo");
        drawn_crop(&d, 0, 0, 0, 0, 10, 10, NULL);
        switch (i) {
        case 0:
            d.page.crops[1].region = 1;
            break;
        case 1:
            d.page.crops[1].cell = 1;
            break;
        case 2:
            d.texts[1].crop = 0; /* two answers */
            break;
        case 3:
            d.texts[1].crop = 3;
            break;
        case 4:
            d.texts[1].crop = 2; /* a picture */
            break;
        case 5:
            d.page.crops[0].quad[3] = NAN;
            break;
        case 6:
            d.page.regions[0].box[0] = INFINITY;
            break;
        case 7:
            d.page.regions[0].label = PM_LABEL_COUNT;
            break;
        case 8:
            d.page.crops[0].height_px = 1e30f;
            break;
        }
        err.text[0] = 0;
        assert_int_equal(pm_format_page(&d.page, d.texts, d.text_count, &d.arena, &out, &err), PM_EFORMAT);
        assert_non_null(strstr(err.text, "page 1"));
        drawn_free(&d);
    }
}

static uint32_t draw(uint64_t *seed, size_t below)
{
    *seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)((*seed >> 33) % below);
}

/* Any geometry that passes the checks gives some text: random pages under a sanitizer. */
static void test_random_pages(void **state)
{
    static const char *const texts[] = {"\xE2\x80\xA2 one",
                                        "1. two",
                                        "2) x",
                                        "infor-",
                                        "mation",
                                        "(a) b",
                                        "- c",
                                        "",
                                        "[1] r",
                                        "A. Bc",
                                        "End.",
                                        "o",
                                        "99. z",
                                        "```"};
    uint64_t seed = 7;
    (void)state;
    for (int round = 0; round < 3000; round++) {
        struct drawn d;
        drawn_init(&d);
        drawn_region(&d, (enum pm_label)draw(&seed, PM_LABEL_COUNT), 0, 0, "");
        uint32_t rows = draw(&seed, 12);
        for (uint32_t i = 0; i < rows; i++) {
            float x = (float)draw(&seed, 6) * 30, y = (float)(i + draw(&seed, 3)) * ROW_PX;
            uint32_t crop =
                drawn_crop(&d, 0, 0, x, y, x + (float)draw(&seed, 300) - 10, y + (float)draw(&seed, 40),
                           texts[draw(&seed, sizeof texts / sizeof *texts)]);
            d.page.crops[crop].row = draw(&seed, 8);
        }
        struct pm_out_page p = drawn_format(&d);
        size_t n = strlen(p.regions[0].content);
        assert_true(n == 0 || p.regions[0].content[n - 1] != '\n');
        drawn_free(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paragraphs),     cmocka_unit_test(test_headings),
        cmocka_unit_test(test_lists),          cmocka_unit_test(test_lists_over_regions),
        cmocka_unit_test(test_bare_item),      cmocka_unit_test(test_references),
        cmocka_unit_test(test_code),           cmocka_unit_test(test_code_columns),
        cmocka_unit_test(test_tables),         cmocka_unit_test(test_hostile_tables),
        cmocka_unit_test(test_blocks),         cmocka_unit_test(test_confidence_and_lines),
        cmocka_unit_test(test_order_of_texts), cmocka_unit_test(test_failures_stay_visible),
        cmocka_unit_test(test_continues_over), cmocka_unit_test(test_meant_line_breaks),
        cmocka_unit_test(test_continues),      cmocka_unit_test(test_refuses_what_does_not_fit),
        cmocka_unit_test(test_random_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
