/* Whole pages from pixels, with a made-up detector: ink, rules, tables, pictures, crops. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "layoutd/scan.h"
#include "raster.h"

struct drawing {
    struct pm_image image;
    struct pm_det_box boxes[200];
    size_t count;
    double lean; /* of the picture that the detector sees */
    int detections, cancel_at, steps;
};

static void text(struct drawing *d, int left, int baseline, int right)
{
    raster_text(&d->image, left, baseline, right, 10, 30);
    d->boxes[d->count++] = (struct pm_det_box){.quad = raster_quad(left, baseline, right, 10), .score = 0.8f};
}

static int detect(void *context, const struct pm_image *image, int limit_px, struct pm_det_box **out,
                  size_t *count, struct pm_error *err)
{
    struct drawing *d = context;
    (void)limit_px;
    (void)err;
    double lean = d->detections++ ? 0 : d->lean; /* a second look is at a straightened picture */
    struct pm_map3 turn =
        pm_map3_rotation(lean, d->image.width_px, d->image.height_px, image->width_px, image->height_px);
    *out = pm_xalloc(sizeof **out * (d->count + 1));
    for (size_t i = 0; i < d->count; i++) {
        (*out)[i] = d->boxes[i];
        (*out)[i].quad = pm_quad_map(&d->boxes[i].quad, &turn);
    }
    *count = d->count;
    return 0;
}

static int progress(void *context, unsigned permille)
{
    struct drawing *d = context;
    assert_true(permille <= 1000);
    return ++d->steps == d->cancel_at;
}

static int scan(struct drawing *d, const struct pm_image *image, struct pm_scan *out, struct pm_error *err)
{
    struct pm_scan_options options = {.page = 3, .dpi = 150};
    struct pm_scan_tools tools = {
        .detect = detect, .context = d, .progress = progress, .progress_context = d};
    return pm_scan_page(image, &options, &tools, out, err);
}

static struct drawing page_new(void)
{
    return (struct drawing){.image = raster_new(1000, 1300, 240)};
}

static const struct pm_layout_region *region(const struct pm_scan *s, enum pm_label label)
{
    for (uint32_t i = 0; i < s->layout.region_count; i++)
        if (s->layout.regions[i].label == label)
            return &s->layout.regions[i];
    return NULL;
}

static void test_blank_page_is_empty(void **state)
{
    (void)state;
    struct drawing d = page_new();
    struct pm_scan s;
    struct pm_crops c;
    struct pm_scan_options options = {.page = 1};
    for (int i = 0; i < 60; i++) /* specks */
        raster_fill(&d.image, (i * 331) % 990, (i * 577) % 1290, (i * 331) % 990 + 2, (i * 577) % 1290 + 2,
                    90);
    assert_int_equal(scan(&d, &d.image, &s, NULL), 0);
    assert_int_equal(pm_crops_cut(&s, &options, &c, NULL), 0);
    assert_int_equal(c.page.region_count, 0);
    assert_int_equal(c.count, 0);
    pm_crops_free(&c);
    pm_scan_free(&s);
    pm_image_free(&d.image);
}

static void draw_table(struct drawing *d, int top)
{
    const int xs[] = {100, 300, 560, 900}, rows = 4;
    for (int r = 0; r <= rows; r++)
        raster_fill(&d->image, 100, top + 40 * r, 902, top + 40 * r + 2, 40);
    for (int c = 0; c < 4; c++) /* the first row is one cell over all columns */
        raster_fill(&d->image, xs[c], top + (c == 1 || c == 2 ? 40 : 0), xs[c] + 2, top + 40 * rows, 40);
    text(d, 400, top + 27, 600);
    for (int r = 1; r < rows; r++)
        for (int c = 0; c < 3; c++)
            text(d, xs[c] + 20, top + 40 * r + 27, xs[c] + 20 + 90 + 30 * c);
}

static void test_ruled_table_with_a_span(void **state)
{
    (void)state;
    struct drawing d = page_new();
    struct pm_scan s;
    for (int i = 0; i < 8; i++)
        text(&d, 100, 150 + 36 * i, 900);
    draw_table(&d, 500);
    assert_int_equal(scan(&d, &d.image, &s, NULL), 0);
    assert_int_equal(s.tables.count, 1);
    const struct pm_table *t = &s.tables.items[0];
    assert_int_equal(t->rows, 4);
    assert_int_equal(t->columns, 3);
    assert_int_equal(t->cell_count, 10);
    assert_int_equal(t->cells[0].column_span, 3);
    assert_int_equal(t->cells[0].row_span, 1);
    const struct pm_layout_region *r = region(&s, PM_LABEL_TABLE);
    assert_non_null(r);
    assert_int_equal(r->count, 10);
    for (uint32_t i = 0; i < r->count; i++) /* one line a cell, row by row */
        assert_int_equal(s.lines.items[s.layout.lines[r->first + i].line].cell, (int)i);
    pm_scan_free(&s);
    pm_image_free(&d.image);
}

static void test_line_over_a_border_is_cut(void **state)
{
    (void)state;
    struct drawing d = page_new();
    struct pm_scan s;
    draw_table(&d, 500);
    size_t n = d.count;
    d.boxes[n - 3].quad.x[1] = d.boxes[n - 2].quad.x[1]; /* two cells of the last row as one box */
    d.boxes[n - 3].quad.x[2] = d.boxes[n - 2].quad.x[2];
    d.boxes[n - 2] = d.boxes[--d.count];
    assert_int_equal(scan(&d, &d.image, &s, NULL), 0);
    assert_int_equal(s.tables.count, 1);
    const struct pm_layout_region *r = region(&s, PM_LABEL_TABLE);
    assert_int_equal(r->count, 10);
    pm_scan_free(&s);
    pm_image_free(&d.image);
}

static void test_box_and_underline_are_no_tables(void **state)
{
    (void)state;
    struct drawing d = page_new();
    struct pm_scan s;
    for (int i = 0; i < 3; i++)
        text(&d, 120, 240 + 36 * i, 860);
    raster_fill(&d.image, 90, 190, 900, 192, 40);
    raster_fill(&d.image, 90, 350, 900, 352, 40);
    raster_fill(&d.image, 90, 190, 92, 352, 40);
    raster_fill(&d.image, 898, 190, 900, 352, 40);
    text(&d, 120, 500, 500);
    raster_fill(&d.image, 120, 504, 500, 506, 40);
    assert_int_equal(scan(&d, &d.image, &s, NULL), 0);
    assert_int_equal(s.tables.count, 0);
    assert_null(region(&s, PM_LABEL_IMAGE));
    pm_scan_free(&s);
    pm_image_free(&d.image);
}

static void test_picture_and_its_crop(void **state)
{
    (void)state;
    struct drawing d = page_new();
    struct pm_scan s;
    struct pm_crops c;
    struct pm_scan_options options = {.page = 3};
    for (int i = 0; i < 6; i++)
        text(&d, 100, 150 + 36 * i, 900);
    for (int y = 500; y < 800; y++)
        for (int x = 300; x < 700; x++)
            d.image.owned[(size_t)y * d.image.stride_bytes + (size_t)x] =
                (uint8_t)((x / 6 + y / 9) % 2 ? 60 : 180);
    assert_int_equal(scan(&d, &d.image, &s, NULL), 0);
    const struct pm_layout_region *r = region(&s, PM_LABEL_IMAGE);
    assert_non_null(r);
    assert_true(fabsf(r->box.left - 300) < 10 && fabsf(r->box.right - 700) < 10);
    assert_true(fabsf(r->box.top - 500) < 10 && fabsf(r->box.bottom - 800) < 10);
    assert_int_equal(pm_crops_cut(&s, &options, &c, NULL), 0);
    assert_int_equal(c.count, 7);
    assert_int_equal(c.sheet[6].task, PM_SHEET_PICTURE);
    assert_int_equal(c.costs[6], 0);
    assert_true(c.costs[0] > 500);
    assert_true(c.sheet[6].image.width_px >= 390 && c.sheet[6].image.width_px <= 420);
    pm_crops_free(&c);
    options.region_kind = PM_REGION_BLOCK; /* a crop for each region */
    assert_int_equal(pm_crops_cut(&s, &options, &c, NULL), 0);
    assert_int_equal(c.count, c.page.region_count);
    assert_string_equal(c.page.region_kind, "block");
    pm_crops_free(&c);
    static const uint32_t labels[] = {PM_LABEL_TEXT, PM_LABEL_TABLE, PM_LABEL_DISPLAY_FORMULA};
    options.is_whole = true; /* one for the page */
    for (int task = 0; task < 3; task++) {
        options.whole_task = (enum pm_task)task;
        assert_int_equal(pm_crops_cut(&s, &options, &c, NULL), 0);
        assert_int_equal(c.count, 1);
        assert_int_equal(c.page.region_count, 1);
        assert_int_equal(c.page.regions[0].label, labels[task]);
        assert_int_equal(c.sheet[0].task, task);
        assert_int_equal(c.sheet[0].image.width_px, s.width);
        assert_int_equal(c.sheet[0].image.height_px, s.height);
        pm_crops_free(&c);
    }
    pm_scan_free(&s);
    pm_image_free(&d.image);
}

/* A leaning page gives the regions of the straight one, and crops that stand straight. */
static void check_lean(double degrees)
{
    struct drawing d = page_new();
    struct pm_scan s;
    struct pm_crops c;
    struct pm_scan_options options = {.page = 3};
    for (int i = 0; i < 10; i++)
        text(&d, 100, 150 + 36 * i, 900);
    draw_table(&d, 600);
    d.lean = degrees;
    struct pm_image page = raster_lean(&d.image, degrees, 240);
    assert_int_equal(scan(&d, &page, &s, NULL), 0);
    assert_true(fabs((double)s.skew_degrees - degrees) < 0.05);
    assert_int_equal(s.tables.count, 1);
    assert_int_equal(s.tables.items[0].cell_count, 10);
    assert_int_equal(pm_crops_cut(&s, &options, &c, NULL), 0);
    assert_int_equal(c.count, 20);
    assert_int_equal(d.detections, fabs(degrees) > 3 ? 2 : 1);
    /* the corners of the upright page in the picture given lean as the page did */
    float rise = c.page.source_quad[3] - c.page.source_quad[1],
          run = c.page.source_quad[2] - c.page.source_quad[0];
    assert_true(fabs(atan2((double)rise, (double)run) * 57.29578 - degrees) < 0.1);
    pm_crops_free(&c);
    pm_scan_free(&s);
    pm_image_free(&page);
    pm_image_free(&d.image);
}

static void test_leaning_pages(void **state)
{
    (void)state;
    check_lean(1.4);
    check_lean(-2.6);
}

static void test_cancel_between_stages(void **state)
{
    (void)state;
    for (int at = 1; at <= 4; at++) {
        struct drawing d = page_new();
        struct pm_scan s;
        struct pm_error err;
        d.cancel_at = at;
        text(&d, 100, 150, 900);
        assert_int_equal(scan(&d, &d.image, &s, &err), PM_ECANCELLED);
        pm_image_free(&d.image);
    }
}

static void test_same_bytes_twice(void **state)
{
    (void)state;
    struct drawing d = page_new();
    struct pm_scan_options options = {.page = 3};
    for (int i = 0; i < 10; i++)
        text(&d, 100, 150 + 36 * i, 900);
    draw_table(&d, 600);
    struct pm_buf records[2] = {{0}, {0}};
    for (int k = 0; k < 2; k++) {
        struct pm_scan s;
        struct pm_crops c;
        d.detections = 0;
        assert_int_equal(scan(&d, &d.image, &s, NULL), 0);
        assert_int_equal(pm_crops_cut(&s, &options, &c, NULL), 0);
        pm_record_encode(&pm_page_schema, &c.page, &records[k]);
        for (uint32_t i = 0; i < c.count; i++) {
            const struct pm_image *image = &c.sheet[i].image;
            pm_buf_append(&records[k], image->pixels, image->stride_bytes * (size_t)image->height_px);
        }
        pm_crops_free(&c);
        pm_scan_free(&s);
    }
    assert_int_equal(records[0].size, records[1].size);
    assert_memory_equal(records[0].data, records[1].data, records[0].size);
    pm_buf_free(&records[0]);
    pm_buf_free(&records[1]);
    pm_image_free(&d.image);
}

/* Letters a pitch apart, two of three moved by up to `stray` px. */
static void draw_grid(struct pm_image *page, int baseline, int pitch, int stray)
{
    for (int i = 0; i < 44; i++) {
        int away = (int)(((uint32_t)i * 2654435761u >> 16) % (uint32_t)(2 * stray + 1)) - stray;
        int x = 100 + i * pitch + (i % 3 ? away : 0);
        raster_fill(page, x, baseline - (i % 4 == 1 ? 15 : 10), x + 6, baseline, 0);
    }
}

static void add_grid(struct pm_lines *lines, int baseline, int pitch)
{
    struct pm_det_box box = {.quad = raster_quad(100, baseline, 100 + 44 * pitch, 10), .score = 1};
    struct pm_map3 same = pm_map3_rotation(0, 1, 1, 1, 1);
    pm_lines_add(lines, &box, 1, &same);
}

/* Is the first line, a weak grid of 12 px, proven by another line on the page? */
static bool is_proven(int pitch, int stray)
{
    struct pm_image page = raster_new(800, 400, 255);
    struct pm_map3 same = pm_map3_rotation(0, 800, 400, 800, 400);
    struct pm_lines lines = {0};
    struct pm_ink ink;
    draw_grid(&page, 100, 12, 3);
    add_grid(&lines, 100, 12);
    if (pitch) {
        draw_grid(&page, 200, pitch, stray);
        add_grid(&lines, 200, pitch);
    }
    assert_int_equal(pm_ink_find(&page, &same, 800, 400, &ink, NULL), 0);
    pm_lines_measure(&lines, &ink);
    assert_true(lines.items[0].mono_strength > 0.64f && lines.items[0].mono_strength < 0.84f);
    if (pitch && !stray)
        assert_true(lines.items[1].is_mono);
    bool is_mono = lines.items[0].is_mono;
    pm_lines_free(&lines);
    pm_ink_free(&ink);
    pm_image_free(&page);
    return is_mono;
}

static void test_a_weak_grid_needs_another_line(void **state)
{
    (void)state;
    assert_false(is_proven(0, 0));
    assert_true(is_proven(12, 0));
    assert_false(is_proven(13, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blank_page_is_empty),
        cmocka_unit_test(test_ruled_table_with_a_span),
        cmocka_unit_test(test_line_over_a_border_is_cut),
        cmocka_unit_test(test_box_and_underline_are_no_tables),
        cmocka_unit_test(test_picture_and_its_crop),
        cmocka_unit_test(test_leaning_pages),
        cmocka_unit_test(test_cancel_between_stages),
        cmocka_unit_test(test_same_bytes_twice),
        cmocka_unit_test(test_a_weak_grid_needs_another_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
