/* Text that the detector left out, on drawn ink. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "layoutd/rescue.h"
#include "raster.h"

#define X 10 /* x-height of all text here */

struct sheet {
    struct pm_image image;
    struct pm_lines lines;
    struct pm_ink ink;
};

static struct sheet sheet_new(void)
{
    return (struct sheet){.image = raster_new(900, 700, 240)};
}

/* A line that the detector sees. */
static void seen(struct sheet *s, int left, int baseline, int right)
{
    struct pm_map3 same = pm_map3_identity();
    struct pm_det_box box = {.quad = raster_quad(left, baseline, right, X), .score = 0.8f};
    raster_text(&s->image, left, baseline, right, X, 30);
    pm_lines_add(&s->lines, &box, 1, &same);
}

/* A "1": what it does not see. */
static void digit(struct sheet *s, int left, int baseline)
{
    raster_fill(&s->image, left, baseline - 15, left + 3, baseline, 30);
    raster_fill(&s->image, left - 2, baseline - 2, left + 5, baseline, 30);
}

static void rescue(struct sheet *s)
{
    struct pm_map3 same = pm_map3_identity();
    assert_int_equal(pm_ink_find(&s->image, &same, s->image.width_px, s->image.height_px, &s->ink, NULL), 0);
    assert_int_equal(pm_rescue_lines(&s->ink, &s->lines, NULL), 0);
}

static void sheet_free(struct sheet *s)
{
    pm_ink_free(&s->ink);
    pm_lines_free(&s->lines);
    pm_image_free(&s->image);
}

static void column(struct sheet *s)
{
    for (int i = 0; i < 6; i++) {
        seen(s, 100, 100 + 40 * i, 260);
        seen(s, 500, 100 + 40 * i, 760);
    }
}

static void test_lone_digits_of_a_column(void **state)
{
    (void)state;
    struct sheet s = sheet_new();
    column(&s);
    for (int i = 0; i < 6; i++)
        digit(&s, 380, 100 + 40 * i);
    rescue(&s);
    assert_int_equal(s.lines.count, 18);
    for (uint32_t i = 12; i < 18; i++) {
        const struct pm_line *l = &s.lines.items[i], *mate = &s.lines.items[2 * (i - 12)];
        struct pm_rect b = pm_quad_bounds(&l->quad);
        assert_true(l->score < 0.3f && !l->is_vertical);
        assert_true(b.left < 378 && b.left > 360 && b.right > 385 && b.right < 403);
        assert_true(fabsf(b.top - mate->box.top) < 2 && fabsf(b.bottom - mate->box.bottom) < 2);
    }
    sheet_free(&s);
}

static void test_glyph_after_a_line_lengthens_it(void **state)
{
    (void)state;
    struct sheet s = sheet_new();
    column(&s);
    digit(&s, 272, 180);
    rescue(&s);
    assert_int_equal(s.lines.count, 12);
    assert_true(s.lines.items[4].quad.x[1] > 280);
    assert_true(s.lines.items[6].quad.x[1] < 270);
    sheet_free(&s);
}

static void test_leader_is_neither_text_nor_ink(void **state)
{
    (void)state;
    struct sheet s = sheet_new();
    column(&s);
    seen(&s, 100, 400, 300);
    for (int x = 304; x < 720; x += 9)
        raster_fill(&s.image, x, 398, x + 2, 400, 30);
    for (int i = 1; i < 3; i++) /* the detector's box ends amid the dots */
        s.lines.items[12].quad.x[i] = 340;
    digit(&s, 732, 400);
    rescue(&s);
    assert_int_equal(s.lines.count, 14);
    assert_true(s.lines.items[12].quad.x[1] < 308 && s.lines.items[12].quad.x[1] > 296);
    struct pm_rect b = pm_quad_bounds(&s.lines.items[13].quad);
    assert_true(b.left > 718 && b.left < 731 && b.right > 737);
    assert_int_equal(pm_ink_count(&s.ink, 350, 380, 725, 420), 0);
    sheet_free(&s);
}

static void test_specks_are_no_text(void **state)
{
    (void)state;
    struct sheet s = sheet_new();
    column(&s);
    for (int i = 0; i < 400; i++) { /* of all sizes up to a glyph's, everywhere below the text */
        int x = 20 + i * 331 % 860, y = 350 + i * 577 % 330, w = 1 + i % 5, h = 1 + i * 7 % 13;
        raster_fill(&s.image, x, y, x + w, y + h, 60);
    }
    rescue(&s);
    assert_int_equal(s.lines.count, 12);
    sheet_free(&s);
}

static void test_patch_of_specks_is_no_text(void **state)
{
    (void)state;
    struct sheet s = sheet_new();
    column(&s);
    for (int i = 0; i < 48; i++) { /* some as high as a digit, too few to count for the page */
        int x = 300 + i % 8 * 20, y = 420 + i / 8 * 22 + i * 5 % 7;
        raster_fill(&s.image, x, y, x + 4, y + (i % 9 == 4 ? 14 : 3), 60);
    }
    rescue(&s);
    assert_int_equal(s.lines.count, 12);
    sheet_free(&s);
}

static void test_page_without_lines_stays_so(void **state)
{
    (void)state;
    struct sheet s = sheet_new();
    digit(&s, 400, 300);
    rescue(&s);
    assert_int_equal(s.lines.count, 0);
    sheet_free(&s);
}

static void test_bullets_and_drawings_are_left(void **state)
{
    (void)state;
    struct sheet s = sheet_new();
    column(&s);
    raster_fill(&s.image, 82, 91, 90, 99, 30);     /* a bullet */
    raster_fill(&s.image, 100, 450, 103, 465, 30); /* a stroke of a large sign: ink close to it */
    raster_fill(&s.image, 105, 440, 150, 520, 30);
    rescue(&s);
    assert_int_equal(s.lines.count, 12);
    assert_true(s.lines.items[0].quad.x[0] > 90);
    sheet_free(&s);
}

static void test_second_box_over_a_line_goes(void **state)
{
    (void)state;
    struct sheet s = sheet_new();
    struct pm_map3 same = pm_map3_identity();
    column(&s);
    struct pm_det_box again = {.quad = raster_quad(520, 98, 560, X + 1), .score = 0.6f};
    pm_lines_add(&s.lines, &again, 1, &same);
    rescue(&s);
    assert_int_equal(s.lines.count, 12);
    assert_true(s.lines.items[1].box.right > 750);
    sheet_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lone_digits_of_a_column),
        cmocka_unit_test(test_glyph_after_a_line_lengthens_it),
        cmocka_unit_test(test_leader_is_neither_text_nor_ink),
        cmocka_unit_test(test_specks_are_no_text),
        cmocka_unit_test(test_patch_of_specks_is_no_text),
        cmocka_unit_test(test_page_without_lines_stays_so),
        cmocka_unit_test(test_bullets_and_drawings_are_left),
        cmocka_unit_test(test_second_box_over_a_line_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
