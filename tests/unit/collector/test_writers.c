/* Files: exact bytes of each format for small documents, and what every JSON must look like. */
#include "fixture.h"

#include <jansson.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "collector/writer.h"

static struct pm_out_region region(enum pm_label label, const char *content)
{
    return (struct pm_out_region){.label = label,
                                  .content = content,
                                  .box = {100, 200, 300, 400},
                                  .confidence = 0.5f,
                                  .image_blob = "",
                                  .error_code = "",
                                  .error_text = ""};
}

static struct pm_out_page page_of(uint32_t number, struct pm_out_region *regions, uint32_t count)
{
    return (struct pm_out_page){.page = number,
                                .width = 1000,
                                .height = 2000,
                                .regions = regions,
                                .region_count = count,
                                .error_code = "",
                                .error_text = ""};
}

/* The whole file that a writer makes of pages; the caller frees. */
static char *write_document(const char *format, const struct pm_out_page *pages, uint32_t count,
                            const struct pm_writer_image *images)
{
    static const struct pm_writer_image none[64];
    const struct pm_writer *w = pm_writer_find(format, strlen(format));
    assert_non_null(w);
    struct pm_sink sink = {.fd = memfd_create("writer", MFD_CLOEXEC)};
    void *state = w->begin(&sink);
    for (uint32_t i = 0; i < count; i++) {
        struct pm_writer_page view = {.index = i, .page = &pages[i], .images = images ? images : none};
        w->page(state, &sink, &view);
    }
    w->end(state, &sink);
    assert_int_equal(pm_sink_finish(&sink, NULL), 0);
    char *text = calloc(1, sink.bytes + 1);
    assert_int_equal(pread(sink.fd, text, sink.bytes + 1, 0), (ssize_t)sink.bytes);
    close(sink.fd);
    pm_sink_free(&sink);
    return text;
}

static void expect(const char *format, const struct pm_out_page *pages, uint32_t count,
                   const struct pm_writer_image *images, const char *expected)
{
    char *text = write_document(format, pages, count, images);
    if (strcmp(text, expected))
        fail_msg("%s gives\n%s\n--- expected\n%s", format, text, expected);
    free(text);
}

static void test_unknown_format(void **state)
{
    (void)state;
    assert_null(pm_writer_find("docx", 4));
    assert_null(pm_writer_find("m", 1));
    assert_null(pm_writer_find("", 0));
    assert_non_null(pm_writer_find("md,json", 2));
}

static void test_markdown(void **state)
{
    struct pm_out_region r[] = {region(PM_LABEL_PARAGRAPH_TITLE, "## Title"), region(PM_LABEL_TEXT, "Text."),
                                region(PM_LABEL_IMAGE, ""), region(PM_LABEL_IMAGE, ""),
                                region(PM_LABEL_TEXT, "")};
    struct pm_writer_image images[5] = {[2] = {"imgs/cropped_page0_idx7.jpg", 7}};
    struct pm_out_page pages[] = {page_of(1, r, 5), page_of(2, r, 1), page_of(3, NULL, 0)};
    (void)state;
    expect("md", pages, 3, images,
           "## Title\n\nText.\n\n![Image 0-7](imgs/cropped_page0_idx7.jpg)\n\n## Title\n");
    expect("md", pages, 0, NULL, "");
}

static void test_markdown_errors(void **state)
{
    struct pm_out_region r[] = {region(PM_LABEL_TEXT, ""),
                                region(PM_LABEL_TABLE, "half [unreadable line: x]")};
    (void)state;
    r[0].error_code = "timeout";
    r[0].error_text = "took --> too\nlong";
    r[1].error_code = "crash";
    r[1].error_text = "1 of 2 lines could not be read: x";
    struct pm_out_page pages[] = {page_of(4, r, 2), page_of(5, NULL, 0)};
    pages[1].error_code = "format";
    pages[1].error_text = "the page is <damaged>";
    expect("md", pages, 2, NULL,
           "<!-- page 4, text region 1: timeout: took - - > too long -->\n"
           "[unreadable region: took --> too long]\n\n"
           "<!-- page 4, table region 2: crash: 1 of 2 lines could not be read: x -->\n\n"
           "half [unreadable line: x]\n\n"
           "<!-- page 5: format: the page is <damaged> -->\n"
           "[unreadable page 5: the page is &lt;damaged>]\n");
    expect("txt", pages, 2, NULL,
           "[unreadable region: took --> too\nlong]\n\nhalf [unreadable line: x]\n\f"
           "[unreadable page 5: the page is <damaged>]\n");
}

/* Items in regions of their own: Markdown would count on from the first number. */
static void test_markdown_numbers(void **state)
{
    struct pm_out_region r[] = {
        region(PM_LABEL_LIST, "1. one"),   region(PM_LABEL_LIST, "2. two\n   - in\n3. three"),
        region(PM_LABEL_LIST, "4. four"),  region(PM_LABEL_LIST, "6. six"),
        region(PM_LABEL_LIST, "7. new"),   region(PM_LABEL_TEXT, "text"),
        region(PM_LABEL_LIST, "9. nine"),  region(PM_LABEL_LIST, "1) other kind"),
        region(PM_LABEL_LIST, "- bullet"), region(PM_LABEL_LIST, "  - inner"),
        region(PM_LABEL_LIST, "- next"),   region(PM_LABEL_TEXT, "end")};
    struct pm_out_page page = page_of(1, r, 12);
    (void)state;
    expect("md", &page, 1, NULL,
           "1. one\n2. two\n   - in\n3. three\n4. four\n\n6\\. six\n\n7. new\n\ntext\n\n9. nine\n\n1) other "
           "kind\n"
           "- bullet\n  - inner\n- next\n\nend\n");
    static const char *const nested[][2] = {
        {"12. x\n    - in\n\n    text\n\n13. y", "12\\. x\n\n- in\n\ntext\n\n13. y\n"},
        {"12. x\n    - in\n13. y\n    - in", "12\\. x\n\n- in\n\n13. y\n    - in\n"},
        {"12. x\n13. y", "12\\. x\n\n13. y\n"},
    };
    for (size_t i = 0; i < sizeof nested / sizeof *nested; i++) {
        struct pm_out_region two[] = {region(PM_LABEL_LIST, "1. one"), region(PM_LABEL_LIST, nested[i][0])};
        char expected[200];
        snprintf(expected, sizeof expected, "1. one\n\n%s", nested[i][1]);
        page = page_of(1, two, 2);
        expect("md", &page, 1, NULL, expected);
    }
}

static void test_formula_numbers(void **state)
{
    struct pm_out_region f = region(PM_LABEL_DISPLAY_FORMULA, "$$\nx\n$$"),
                         n = region(PM_LABEL_FORMULA_NUMBER, "(2.1)"), t = region(PM_LABEL_TEXT, "t"),
                         odd = region(PM_LABEL_FORMULA_NUMBER, "(see\\_x)");
    (void)state;
    const struct {
        struct pm_out_region r[4];
        uint32_t count;
        const char *expected;
    } cases[] = {
        {{f, n, t}, 3, "$$\nx \\tag{2.1}\n$$\n\nt\n"},
        {{n, f, t}, 3, "$$\nx \\tag{2.1}\n$$\n\nt\n"},
        {{f, n, f, n}, 4, "$$\nx \\tag{2.1}\n$$\n\n$$\nx \\tag{2.1}\n$$\n"},
        {{f, n, f}, 3, "$$\nx \\tag{2.1}\n$$\n\n$$\nx\n$$\n"},
        {{n, f, n, t}, 4, "(2.1)\n\n$$\nx \\tag{2.1}\n$$\n\nt\n"},
        {{t, n, t}, 3, "t\n\n(2.1)\n\nt\n"}, /* alone: not lost */
        {{f, odd}, 2, "$$\nx\n$$\n\n(see\\_x)\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pm_out_region r[4];
        memcpy(r, cases[i].r, sizeof r);
        struct pm_out_page page = page_of(1, r, cases[i].count);
        expect("md", &page, 1, NULL, cases[i].expected);
    }
}

static void test_breaks(void **state)
{
    struct pm_out_line line = {.text = "", .quad = {0, 0, 100, 0, 100, 20, 0, 20}},
                       large = {.text = "", .quad = {0, 0, 100, 0, 100, 40, 0, 40}};
    struct pm_out_region first[] = {region(PM_LABEL_TEXT, "Some infor-"), region(PM_LABEL_FOOTER, "footer 1"),
                                    region(PM_LABEL_NUMBER, "1")};
    struct pm_out_region second[] = {region(PM_LABEL_HEADER, "header 2"),
                                     region(PM_LABEL_TEXT, "mation goes"),
                                     region(PM_LABEL_FOOTER, "footer 2")};
    struct pm_out_region third[] = {region(PM_LABEL_TEXT, "on and on.\n\nNext."),
                                    region(PM_LABEL_TEXT, "Last")};
    struct pm_out_page pages[] = {page_of(1, first, 3), page_of(2, second, 3), page_of(3, third, 2)};
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct pm_out_region *r = i == 1 ? &second[1] : i ? third : first;
        r->lines = &line;
        r->line_count = 1;
        r->continues = i < 2;
    }
    third[1].continues = true; /* the document ends: nothing may get lost */
    expect("md", pages, 3, NULL,
           "Some information goes on and on.\n\nNext.\n\nfooter 1\n\n1\n\nheader 2\n\nfooter 2\n\nLast\n");
    expect("txt", pages, 3, NULL,
           "Some infor-\n\nfooter 1\n\n1\n\fheader 2\n\nmation goes\n\nfooter 2\n\fon and "
           "on.\n\nNext.\n\nLast\n");
    third[0].lines = &large; /* type of another size is another text */
    expect("md", pages, 3, NULL,
           "Some information goes\n\nfooter 1\n\n1\n\nheader 2\n\nfooter 2\n\non and on.\n\nNext.\n\nLast\n");
    third[0].lines = &line;
    pages[1].error_code = "crash"; /* nothing goes on over a page that is missing */
    pages[1].error_text = "why";
    pages[1].region_count = 0;
    expect("md", pages, 3, NULL,
           "Some infor-\n\nfooter 1\n\n1\n\n<!-- page 2: crash: why -->\n[unreadable page 2: why]\n\n"
           "on and on.\n\nNext.\n\nLast\n");
}

static void test_text(void **state)
{
    struct pm_out_region r[] = {
        region(PM_LABEL_PARAGRAPH_TITLE, "## A \\# title"),
        region(PM_LABEL_TABLE,
               "<table>\n<tr><td>a &lt;</td><td>b</td></tr>\n<tr><td>c</td><td>d</td></tr>\n</table>"),
        region(PM_LABEL_CODE, "```\nif x:\n    y\n```"), region(PM_LABEL_IMAGE, "")};
    struct pm_out_page pages[] = {page_of(1, r, 4), page_of(2, r, 1)};
    (void)state;
    expect("txt", pages, 2, NULL, "A # title\n\na <\tb\nc\td\n\nif x:\n    y\n\fA # title\n");
}

static void test_json_bytes(void **state)
{
    struct pm_word words[] = {{0, 2, 0, 0.5f, 1}, {3, 5, 0.5f, 1, 0.25f}};
    struct pm_out_line line = {.text = "ab \xC3\xA9",
                               .quad = {100, 200, 300, 200, 300, 400, 100, 400},
                               .confidence = 0.75f,
                               .words = words,
                               .word_count = 2};
    struct pm_out_region r[] = {region(PM_LABEL_PARAGRAPH_TITLE, "## \"a\"\\\n\t\x01\xC3\xA9"),
                                region(PM_LABEL_IMAGE, "")};
    struct pm_writer_image images[2] = {[1] = {"imgs/cropped_page0_idx0.jpg", 0}};
    struct pm_out_page pages[] = {page_of(7, r, 2), page_of(8, NULL, 0), page_of(9, NULL, 0)};
    (void)state;
    r[0].lines = &line;
    r[0].line_count = 1;
    r[0].level = 2;
    r[0].continues = true;
    pages[2].error_code = "format";
    pages[2].error_text = "damaged";
    expect("json", pages, 3, images,
           "[\n"
           "  [\n"
           "    {\n"
           "      \"index\": 0,\n"
           "      \"label\": \"text\",\n"
           "      \"native_label\": \"paragraph_title\",\n"
           "      \"content\": \"## \\\"a\\\"\\\\\\n\\t\\u0001\xC3\xA9\",\n"
           "      \"bbox_2d\": [\n        100,\n        100,\n        300,\n        200\n      ],\n"
           "      \"polygon\": [\n"
           "        [\n          100,\n          100\n        ],\n"
           "        [\n          300,\n          100\n        ],\n"
           "        [\n          300,\n          200\n        ],\n"
           "        [\n          100,\n          200\n        ]\n"
           "      ],\n"
           "      \"confidence\": 0.5000,\n"
           "      \"page\": 7,\n"
           "      \"level\": 2,\n"
           "      \"continues\": true,\n"
           "      \"lines\": [\n"
           "        {\"text\": \"ab \xC3\xA9\", \"bbox_2d\": [100, 100, 300, 200], \"confidence\": 0.7500, "
           "\"words\": [{\"text\": \"ab\", \"bbox_2d\": [100, 100, 200, 200], \"confidence\": 1.0000}, "
           "{\"text\": \"\xC3\xA9\", \"bbox_2d\": [200, 100, 300, 200], \"confidence\": 0.2500}]}\n"
           "      ]\n"
           "    },\n"
           "    {\n"
           "      \"index\": 1,\n"
           "      \"label\": \"image\",\n"
           "      \"native_label\": \"image\",\n"
           "      \"content\": null,\n"
           "      \"bbox_2d\": [\n        100,\n        100,\n        300,\n        200\n      ],\n"
           "      \"polygon\": [\n"
           "        [\n          100,\n          100\n        ],\n"
           "        [\n          300,\n          100\n        ],\n"
           "        [\n          300,\n          200\n        ],\n"
           "        [\n          100,\n          200\n        ]\n"
           "      ],\n"
           "      \"image_path\": \"imgs/cropped_page0_idx0.jpg\",\n"
           "      \"confidence\": 0.5000,\n"
           "      \"page\": 7\n"
           "    }\n"
           "  ],\n"
           "  [],\n"
           "  [\n"
           "    {\n"
           "      \"index\": 0,\n"
           "      \"label\": \"error\",\n"
           "      \"native_label\": \"page_error\",\n"
           "      \"content\": null,\n"
           "      \"bbox_2d\": null,\n"
           "      \"polygon\": null,\n"
           "      \"confidence\": 0.0000,\n"
           "      \"page\": 9,\n"
           "      \"error\": {\n        \"code\": \"format\",\n        \"text\": \"damaged\"\n      }\n"
           "    }\n"
           "  ]\n"
           "]\n");
    expect("json", pages, 0, NULL, "[]\n");
}

static void check_box(json_t *box)
{
    assert_int_equal(json_array_size(box), 4);
    for (size_t i = 0; i < 4; i++) {
        assert_true(json_is_integer(json_array_get(box, i)));
        json_int_t v = json_integer_value(json_array_get(box, i));
        assert_true(v >= 0 && v <= 1000);
    }
}

/* Every label, boxes beyond the page, a page without size: always JSON of the same shape. */
static void test_json_shape(void **state)
{
    struct pm_out_region r[PM_LABEL_COUNT];
    struct pm_out_line line = {.text = "\"x\"", .quad = {-50, -5, 9999, 1, 9e8f, 7, -1e9f, 3}};
    (void)state;
    for (int i = 0; i < PM_LABEL_COUNT; i++) {
        r[i] = region((enum pm_label)i, "content \"\\/ \x1f \xF0\x9F\x98\x80");
        float box[4] = {-500, 100.0f * (float)i, 5e8f, i % 2 ? 1 : -1};
        memcpy(r[i].box, box, sizeof box);
        r[i].lines = &line;
        r[i].line_count = 1;
    }
    for (uint32_t width = 0; width < 2; width++) {
        struct pm_out_page page = page_of(1, r, PM_LABEL_COUNT);
        page.width = width * 500;
        struct pm_writer_image images[PM_LABEL_COUNT] = {{0}};
        char *text = write_document("json", &page, 1, images);
        json_error_t error;
        json_t *doc = json_loads(text, JSON_REJECT_DUPLICATES, &error);
        if (!doc)
            fail_msg("%s at line %d", error.text, error.line);
        json_t *regions = json_array_get(doc, 0), *one;
        size_t i;
        assert_int_equal(json_array_size(regions), PM_LABEL_COUNT);
        json_array_foreach(regions, i, one)
        {
            assert_int_equal(json_integer_value(json_object_get(one, "index")), i);
            assert_string_equal(json_string_value(json_object_get(one, "native_label")),
                                pm_label_name((enum pm_label)i));
            assert_string_equal(json_string_value(json_object_get(one, "content")), r[i].content);
            check_box(json_object_get(one, "bbox_2d"));
            assert_int_equal(json_array_size(json_object_get(one, "polygon")), 4);
            check_box(json_object_get(json_array_get(json_object_get(one, "lines"), 0), "bbox_2d"));
            assert_true(json_is_real(json_object_get(one, "confidence")));
        }
        json_decref(doc);
        free(text);
    }
}

/* A sink that cannot write keeps its first error and does not grow. */
static void test_full_disk(void **state)
{
    struct pm_sink sink = {.fd = -1};
    struct pm_error err;
    char block[4096] = {0};
    (void)state;
    FILE *full = fopen("/dev/full", "w");
    assert_non_null(full);
    sink.fd = fileno(full);
    for (int i = 0; i < 1000; i++)
        pm_sink_put(&sink, block, sizeof block);
    assert_int_equal(sink.err.code, PM_ENOSPC);
    assert_true(sink.buf.capacity < 1u << 20);
    assert_int_equal(pm_sink_finish(&sink, &err), PM_ENOSPC);
    assert_true(err.text[0] != 0);
    pm_sink_free(&sink);
    fclose(full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_format),
        cmocka_unit_test(test_markdown),
        cmocka_unit_test(test_markdown_errors),
        cmocka_unit_test(test_markdown_numbers),
        cmocka_unit_test(test_breaks),
        cmocka_unit_test(test_formula_numbers),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_json_bytes),
        cmocka_unit_test(test_json_shape),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
