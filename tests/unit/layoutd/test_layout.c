/* Regions from boxes: made-up pages, and pages of real documents reduced to their boxes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/mem.h"
#include "page.h"

static void check_labels(const struct pm_layout *l, const enum pm_label *labels, uint32_t count)
{
    assert_int_equal(l->region_count, count);
    for (uint32_t i = 0; i < count; i++)
        assert_string_equal(pm_label_name(l->regions[i].label), pm_label_name(labels[i]));
}

static void test_empty_page(void **state)
{
    (void)state;
    struct pm_lines lines = {0};
    struct pm_layout l;
    page_lay_out(&lines, NULL, NULL, &l);
    assert_int_equal(l.region_count, 0);
    assert_int_equal(l.line_count, 0);
    pm_layout_free(&l);
}

static void test_paragraphs_by_gap_and_by_indent(void **state)
{
    (void)state;
    struct pm_lines lines = {0};
    struct pm_layout l;
    page_paragraph(&lines, 100, 300, 1100, 5);
    page_paragraph(&lines, 100, 300 + 25 * 5 + 14, 1100, 4);              /* a wider gap */
    uint32_t first = page_line(&lines, 130, 300 + 25 * 9 + 14, 1100, 20); /* an indent, no gap */
    page_paragraph(&lines, 100, 300 + 25 * 10 + 14, 1100, 3);
    page_lay_out(&lines, NULL, NULL, &l);
    const enum pm_label labels[] = {PM_LABEL_TEXT, PM_LABEL_TEXT, PM_LABEL_TEXT};
    check_labels(&l, labels, 3);
    assert_int_equal(l.regions[0].count, 5);
    assert_int_equal(l.regions[1].count, 4);
    assert_int_equal(l.regions[2].count, 4);
    assert_int_equal(l.lines[l.regions[2].first].line, first);
    assert_int_equal(l.lines[l.regions[2].first + 3].row, 3);
    pm_layout_free(&l);
    pm_lines_free(&lines);
}

static void test_headings_by_size_and_by_weight(void **state)
{
    (void)state;
    struct pm_lines lines = {0};
    struct pm_layout l;
    page_line(&lines, 100, 300, 500, 32);
    page_paragraph(&lines, 100, 350, 1100, 6);
    uint32_t bold = page_line(&lines, 100, 350 + 6 * 25 + 18, 420, 20);
    lines.items[bold].stroke = 0.38f;
    page_paragraph(&lines, 100, 350 + 6 * 25 + 50, 1100, 6);
    page_lay_out(&lines, NULL, NULL, &l);
    const enum pm_label labels[] = {PM_LABEL_PARAGRAPH_TITLE, PM_LABEL_TEXT, PM_LABEL_PARAGRAPH_TITLE,
                                    PM_LABEL_TEXT};
    check_labels(&l, labels, 4);
    assert_int_equal(l.regions[0].level, 2);
    assert_int_equal(l.regions[2].level, 4);
    pm_layout_free(&l);
    pm_lines_free(&lines);
}

/* One letter a pitch from the line's left end to its right end. */
static void put_on_grid(struct pm_lines *lines, uint32_t line, float pitch)
{
    struct pm_line *l = &lines->items[line];
    l->is_mono = true;
    l->mono_pitch = pitch;
    l->marks = pm_xalloc(sizeof *l->marks * 200);
    for (float x = l->box.left; x < l->box.right && l->mark_count < 200; x += pitch)
        l->marks[l->mark_count++] = x;
}

static void test_a_row_of_prose_on_a_grid_is_not_code(void **state)
{
    (void)state;
    struct pm_lines lines = {0};
    struct pm_layout l;
    page_paragraph(&lines, 100, 300, 520, 12);
    for (uint32_t i = 0; i < 12; i++) { /* letters that stand anywhere */
        struct pm_line *line = &lines.items[i];
        line->marks = pm_xalloc(sizeof *line->marks * 30);
        for (float x = line->box.left; x < line->box.right && line->mark_count < 30; x += 14)
            line->marks[line->mark_count++] = x;
    }
    free(lines.items[4].marks);
    lines.items[4].mark_count = 0;
    put_on_grid(&lines, 4, 10);
    lines.items[3].box.right -= 60; /* the word before did not fit any more */
    page_lay_out(&lines, NULL, NULL, &l);
    check_labels(&l, (const enum pm_label[]){PM_LABEL_TEXT}, 1);
    pm_layout_free(&l);
    for (int i = 0; i < 2; i++) /* a listing between paragraphs is */
        put_on_grid(&lines, page_line(&lines, 130, 640 + 25 * (float)i, 430, 20), 10);
    page_paragraph(&lines, 100, 720, 520, 5);
    page_lay_out(&lines, NULL, NULL, &l);
    check_labels(&l, (const enum pm_label[]){PM_LABEL_TEXT, PM_LABEL_CODE, PM_LABEL_TEXT}, 3);
    pm_layout_free(&l);
    pm_lines_free(&lines);
}

static void test_thin_strokes_are_no_large_type(void **state)
{
    (void)state;
    struct pm_lines lines = {0};
    struct pm_layout l;
    uint32_t raised =
        page_line(&lines, 100, 300, 500, 26); /* its x-height was measured with a raised figure */
    lines.items[raised].x_height = 12;
    lines.items[raised].stroke = 0.14f;
    page_paragraph(&lines, 100, 350, 1100, 6);
    page_lay_out(&lines, NULL, NULL, &l);
    check_labels(&l, (const enum pm_label[]){PM_LABEL_TEXT, PM_LABEL_TEXT}, 2);
    pm_layout_free(&l);
    pm_lines_free(&lines);
}

static void test_a_title_hardly_larger_than_the_headings(void **state)
{
    (void)state;
    for (int centred = 0; centred < 2; centred++) {
        struct pm_lines lines = {0};
        struct pm_layout l;
        uint32_t title = page_line(&lines, centred ? 420 : 100, 300, centred ? 820 : 500, 24.5f);
        lines.items[title].stroke = 0.38f;
        page_paragraph(&lines, 100, 350, 1100, 6);
        uint32_t bold = page_line(&lines, 100, 350 + 6 * 25 + 18, 420, 20);
        lines.items[bold].stroke = 0.38f;
        page_paragraph(&lines, 100, 350 + 6 * 25 + 50, 1100, 6);
        struct pm_layout_input input = {.width = 1240, .height = 1754, .page = 1, .lines = &lines};
        pm_layout_find(&input, &l);
        const enum pm_label labels[] = {centred ? PM_LABEL_DOC_TITLE : PM_LABEL_PARAGRAPH_TITLE,
                                        PM_LABEL_TEXT, PM_LABEL_PARAGRAPH_TITLE, PM_LABEL_TEXT};
        check_labels(&l, labels, 4);
        pm_layout_free(&l);
        pm_lines_free(&lines);
    }
}

static void test_list_with_hanging_lines(void **state)
{
    (void)state;
    struct pm_lines lines = {0};
    struct pm_layout l;
    page_paragraph(&lines, 100, 300, 1100, 3);
    for (int i = 0; i < 3; i++) {
        float y = 400 + 75 * (float)i;
        uint32_t item = page_line(&lines, 130, y, 1100, 20);
        lines.items[item].gaps = pm_xalloc(sizeof(struct pm_gap));
        lines.items[item].gaps[0] = (struct pm_gap){140, 160};
        lines.items[item].gap_count = 1;
        lines.items[item].bullet_right = 140;
        page_line(&lines, 160, y + 25, 1100, 20);
        page_line(&lines, 160, y + 50, 700, 20);
    }
    page_lay_out(&lines, NULL, NULL, &l);
    const enum pm_label labels[] = {PM_LABEL_TEXT, PM_LABEL_LIST, PM_LABEL_LIST, PM_LABEL_LIST};
    check_labels(&l, labels, 4);
    for (int i = 1; i < 4; i++)
        assert_int_equal(l.regions[i].count, 3);
    pm_layout_free(&l);
    pm_lines_free(&lines);
}

static void test_running_heads_do_not_join_columns(void **state)
{
    (void)state;
    struct pm_lines lines = {0};
    struct pm_layout l;
    page_line(&lines, 620, 1680, 640, 20);
    page_line(&lines, 900, 100, 1100, 20);
    page_line(&lines, 100, 100, 300, 20);
    page_paragraph(&lines, 640, 200, 1100, 40);
    page_paragraph(&lines, 100, 200, 560, 40);
    page_lay_out(&lines, NULL, NULL, &l);
    const enum pm_label labels[] = {PM_LABEL_HEADER, PM_LABEL_HEADER, PM_LABEL_TEXT, PM_LABEL_TEXT,
                                    PM_LABEL_NUMBER};
    check_labels(&l, labels, 5);
    assert_true(l.regions[0].box.left < l.regions[1].box.left);
    assert_true(l.regions[2].box.left < 110);
    assert_int_equal(l.regions[3].column, 1);
    pm_layout_free(&l);
    pm_lines_free(&lines);
}

static void test_footnote_under_its_mark(void **state)
{
    (void)state;
    struct pm_lines lines = {0};
    struct pm_rules rules = {0};
    struct pm_layout l;
    page_paragraph(&lines, 100, 200, 1100, 40);
    page_line(&lines, 100, 1240, 1100, 15);
    page_line(&lines, 100, 1259, 700, 15);
    struct pm_rule mark = {.box = page_box(100, 1218, 300, 1219)};
    rules.across = &mark;
    rules.across_count = 1;
    page_lay_out(&lines, &rules, NULL, &l);
    const enum pm_label labels[] = {PM_LABEL_TEXT, PM_LABEL_FOOTNOTE};
    check_labels(&l, labels, 2);
    pm_layout_free(&l);
    pm_lines_free(&lines);
}

static void test_aligned_entries_become_a_table(void **state)
{
    (void)state;
    struct pm_lines lines = {0};
    struct pm_tables tables = {0};
    struct pm_layout l;
    page_paragraph(&lines, 100, 300, 1100, 4);
    for (int r = 0; r < 6; r++) {
        page_line(&lines, 100, 430 + 25 * (float)r, 200 + (float)(r * 37 % 90), 20);
        page_line(&lines, 500, 430 + 25 * (float)r, 620 + (float)(r * 53 % 90), 20);
    }
    page_lay_out(&lines, NULL, &tables, &l);
    const enum pm_label labels[] = {PM_LABEL_TEXT, PM_LABEL_TABLE};
    check_labels(&l, labels, 2);
    assert_int_equal(tables.count, 1);
    assert_int_equal(tables.items[0].rows, 6);
    assert_int_equal(tables.items[0].columns, 2);
    assert_int_equal(lines.items[4 + 3].table, 0); /* second row, second column */
    assert_int_equal(lines.items[4 + 3].cell, 3);
    pm_layout_free(&l);
    pm_tables_free(&tables);
    pm_lines_free(&lines);
}

/* ---- pages of real documents ---- */

static float number(const json_t *list, size_t i)
{
    return (float)json_number_value(json_array_get(list, i));
}

static struct pm_rect rect(const json_t *list, size_t at)
{
    return (struct pm_rect){number(list, at), number(list, at + 1), number(list, at + 2),
                            number(list, at + 3)};
}

static void read_rules(const json_t *list, struct pm_rule **out, uint32_t *count)
{
    *count = (uint32_t)json_array_size(list);
    *out = pm_xalloc(sizeof **out * (*count + 1u));
    for (uint32_t i = 0; i < *count; i++)
        (*out)[i].box = rect(json_array_get(list, i), 0);
}

/* Lines come in the order of reading; they are turned about here, and *at_out [count] says where each went.
 */
static void read_lines(const json_t *list, struct pm_lines *lines, uint32_t *at_out)
{
    uint32_t n = (uint32_t)json_array_size(list);
    lines->items = pm_xalloc(sizeof *lines->items * n);
    lines->count = lines->capacity = n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = page_shuffled(i, n);
        const json_t *row = json_array_get(list, i);
        struct pm_line *l = &lines->items[at];
        *l = (struct pm_line){.box = rect(row, 1), .score = 0.9f, .table = -1, .cell = -1};
        l->quad = pm_quad_of_rect(l->box);
        l->height = number(row, 5) / 10;
        l->x_height = number(row, 6) / 10;
        l->baseline = number(row, 7);
        l->stroke = number(row, 8) / 1000;
        l->bullet_right = number(row, 9);
        l->is_mono = number(row, 10) > 0;
        l->size = number(row, 11) / 10;
        size_t gaps = (json_array_size(row) - 12) / 2;
        l->gaps = pm_xalloc(sizeof *l->gaps * (gaps + 1));
        for (size_t g = 0; g < gaps; g++)
            l->gaps[l->gap_count++] = (struct pm_gap){number(row, 12 + 2 * g), number(row, 13 + 2 * g)};
        at_out[i] = at;
    }
}

/* The grids of lines of code. */
static void read_grids(const json_t *list, struct pm_lines *lines, const uint32_t *places)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *grid = json_array_get(list, i);
        struct pm_line *l = &lines->items[places[json_integer_value(json_array_get(grid, 0))]];
        size_t n = json_array_size(grid) - 2;
        l->mono_pitch = number(grid, 1) / 100;
        l->marks = pm_xalloc(sizeof *l->marks * (n + 1));
        for (size_t k = 0; k < n; k++)
            l->marks[l->mark_count++] = number(grid, 2 + k) / 10;
    }
}

static void check_golden(void **state)
{
    char path[512];
    json_error_t at;
    snprintf(path, sizeof path, PM_TEST_DATA "/layout/%s.json", (const char *)*state);
    json_t *all = json_load_file(path, 0, &at), *list = json_object_get(all, "lines"),
           *regions = json_object_get(all, "regions");
    assert_non_null(all);
    struct pm_lines lines = {0};
    struct pm_rules rules = {0};
    struct pm_tables tables;
    struct pm_layout l;
    uint32_t n = (uint32_t)json_array_size(list), *places = pm_xalloc(sizeof *places * n);
    read_lines(list, &lines, places);
    read_grids(json_object_get(all, "grids"), &lines, places);
    read_rules(json_object_get(all, "across"), &rules.across, &rules.across_count);
    read_rules(json_object_get(all, "down"), &rules.down, &rules.down_count);
    json_t *pictures = json_object_get(all, "pictures");
    struct pm_rect *boxes = pm_xalloc(sizeof *boxes * (json_array_size(pictures) + 1));
    for (size_t i = 0; i < json_array_size(pictures); i++)
        boxes[i] = rect(json_array_get(pictures, i), 0);
    pm_tables_find(&rules, &lines, pm_lines_typical_height(&lines, 20), &tables);
    struct pm_layout_input input = {(float)json_number_value(json_object_get(all, "width")),
                                    (float)json_number_value(json_object_get(all, "height")),
                                    2,
                                    &lines,
                                    &rules,
                                    &tables,
                                    boxes,
                                    (uint32_t)json_array_size(pictures)};
    pm_layout_find(&input, &l);
    assert_int_equal(l.line_count, n);
    for (uint32_t i = 0; i < n; i++) /* the same lines in the same order */
        assert_int_equal(l.lines[i].line, places[i]);
    assert_int_equal(l.region_count, json_array_size(regions));
    for (uint32_t r = 0; r < l.region_count; r++) {
        const json_t *want = json_array_get(regions, r);
        assert_string_equal(pm_label_name(l.regions[r].label),
                            json_string_value(json_object_get(want, "label")));
        assert_int_equal(l.regions[r].level, json_integer_value(json_object_get(want, "level")));
        for (uint32_t k = 0; k < l.regions[r].count; k++)
            assert_int_equal(
                json_integer_value(json_array_get(json_array_get(list, l.regions[r].first + k), 0)), r);
    }
    pm_layout_free(&l);
    pm_tables_free(&tables);
    pm_rules_free(&rules);
    pm_lines_free(&lines);
    free(boxes);
    free(places);
    json_decref(all);
}

static char two_columns[] = "mom-sample-11", lists[] = "postgis-2col", ruled[] = "gnuplot-32",
            card[] = "asy-refcard-2", boxed[] = "amc-fr-30";

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_page),
        cmocka_unit_test(test_paragraphs_by_gap_and_by_indent),
        cmocka_unit_test(test_headings_by_size_and_by_weight),
        cmocka_unit_test(test_a_row_of_prose_on_a_grid_is_not_code),
        cmocka_unit_test(test_thin_strokes_are_no_large_type),
        cmocka_unit_test(test_a_title_hardly_larger_than_the_headings),
        cmocka_unit_test(test_list_with_hanging_lines),
        cmocka_unit_test(test_running_heads_do_not_join_columns),
        cmocka_unit_test(test_footnote_under_its_mark),
        cmocka_unit_test(test_aligned_entries_become_a_table),
        {"two columns", check_golden, NULL, NULL, two_columns},
        {"lists in columns", check_golden, NULL, NULL, lists},
        {"ruled table", check_golden, NULL, NULL, ruled},
        {"reference card", check_golden, NULL, NULL, card},
        {"boxes and items", check_golden, NULL, NULL, boxed},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
