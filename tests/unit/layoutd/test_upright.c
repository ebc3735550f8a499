/* Which way up, how straight, where the page is. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "layoutd/lines.h"
#include "layoutd/pagefind.h"
#include "layoutd/upright.h"
#include "raster.h"

static struct pm_det_box leaning(float x, float y, float length, double degrees)
{
    struct pm_quad flat = pm_quad_of_rect((struct pm_rect){-length / 2, -10, length / 2, 10});
    double c = cos(degrees * 0.017453292519943), s = sin(degrees * 0.017453292519943);
    struct pm_map3 map = {{c, -s, x, s, c, y, 0, 0, 1}};
    return (struct pm_det_box){.quad = pm_quad_map(&flat, &map), .score = 0.9f};
}

static void test_skew_is_that_of_the_long_lines(void **state)
{
    (void)state;
    struct pm_det_box boxes[40];
    size_t agreeing;
    for (int i = 0; i < 30; i++)
        boxes[i] = leaning(600, 50 + 40 * (float)i, 900, 1.3 + (i % 3 - 1) * 0.05);
    for (int i = 30; i < 40; i++) /* short pieces lean anyhow */
        boxes[i] = leaning(600, 50 + 40 * (float)i, 90, -4 + i % 5);
    assert_true(fabsf(pm_skew_of_boxes(boxes, 40, &agreeing) - 1.3f) < 0.03f);
    assert_true(agreeing >= 30);
    assert_true(pm_skew_of_boxes(boxes + 30, 0, &agreeing) == 0);
    assert_int_equal(agreeing, 0);
}

static void test_lines_without_a_common_slope_tell_nothing(void **state)
{
    (void)state;
    struct pm_det_box boxes[12];
    size_t agreeing;
    for (int i = 0; i < 12; i++)
        boxes[i] = leaning(600, 50 + 40 * (float)i, 500, -15 + 2.7 * i);
    assert_true(pm_skew_of_boxes(boxes, 12, &agreeing) == 0);
    assert_int_equal(agreeing, 0);
}

static void test_ink_tells_a_tenth_of_a_degree(void **state)
{
    (void)state;
    const double leans[] = {-0.15, -0.04, 0.08, 0.2};
    for (size_t k = 0; k < sizeof leans / sizeof *leans; k++) {
        struct pm_image flat = raster_new(1000, 700, 245);
        struct pm_det_box boxes[16];
        for (int i = 0; i < 16; i++) {
            raster_text(&flat, 60, 60 + 40 * i, 940, 10, 20);
            boxes[i] = (struct pm_det_box){.quad = raster_quad(60, 60 + 40 * i, 940, 10), .score = 0.9f};
        }
        struct pm_image page = raster_lean(&flat, leans[k], 245);
        struct pm_map3 same = pm_map3_identity();
        struct pm_lines lines = {0};
        struct pm_ink ink;
        pm_lines_add(&lines, boxes, 16, &same);
        assert_int_equal(pm_ink_find(&page, &same, 1000, 700, &ink, NULL), 0);
        assert_true(fabs((double)pm_lines_lean(&lines, &ink) - leans[k]) < 0.03);
        pm_ink_free(&ink);
        pm_lines_free(&lines);
        pm_image_free(&page);
        pm_image_free(&flat);
    }
}

/* A classifier that is wrong about every tenth line. */
struct oracle {
    bool turned;
    int asked, width, height;
};

static int ask(void *context, const struct pm_image *line, float *turned_out, struct pm_error *err)
{
    struct oracle *o = context;
    (void)err;
    o->width = line->width_px;
    o->height = line->height_px;
    *turned_out = (o->turned ^ (++o->asked % 10 == 2)) ? 0.97f : 0.04f;
    return 0;
}

static void check_turn(bool sideways, bool turned, size_t count, int degrees)
{
    struct pm_image page = raster_new(800, 800, 255);
    struct pm_det_box boxes[20];
    struct oracle o = {.turned = turned};
    int got = -1;
    for (size_t i = 0; i < count; i++) {
        float at = 20 + 35 * (float)i;
        struct pm_rect r =
            sideways ? (struct pm_rect){at, 30, at + 20, 730} : (struct pm_rect){30, at, 730, at + 20};
        boxes[i] = (struct pm_det_box){.quad = pm_quad_of_rect(r)};
    }
    assert_int_equal(pm_turn_of_lines(&page, boxes, count, ask, &o, &got, NULL), 0);
    assert_int_equal(got, degrees);
    if (count)
        assert_true(o.width > o.height); /* lines are shown lying, whichever way the page is */
    pm_image_free(&page);
}

static void test_turn_is_a_vote(void **state)
{
    (void)state;
    check_turn(false, false, 20, 0);
    check_turn(false, true, 20, 180);
    check_turn(true, false, 20, 270);
    check_turn(true, true, 20, 90);
    check_turn(false, false, 0, 0);
    check_turn(false, true, 2, 0); /* two lines, of which one says upright: no turn */
}

static void test_turned_pixels(void **state)
{
    (void)state;
    struct pm_image page = raster_new(3, 2, 0), out;
    page.owned[0] = 9; /* top left */
    const int degrees[] = {0, 90, 180, 270}, x[] = {0, 1, 2, 0}, y[] = {0, 0, 1, 2};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pm_image_turn(&page, degrees[i], &out, NULL), 0);
        assert_int_equal(out.width_px, i % 2 ? 2 : 3);
        assert_int_equal(out.owned[(size_t)y[i] * out.stride_bytes + (size_t)x[i]], 9);
        pm_image_free(&out);
    }
    pm_image_free(&page);
}

static void test_map_of_a_quad_and_back(void **state)
{
    (void)state;
    struct pm_quad q = {{100, 820, 900, 60}, {50, 90, 1100, 1020}};
    struct pm_map3 map, back;
    assert_true(pm_map3_from_quad(&q, 700, 1000, &map));
    assert_true(pm_map3_invert(&map, &back));
    const double xs[] = {0, 700, 700, 0}, ys[] = {0, 0, 1000, 1000};
    for (int i = 0; i < 4; i++) {
        double x, y;
        pm_map3_apply(&map, xs[i], ys[i], &x, &y);
        assert_true(fabs(x - (double)q.x[i]) < 1e-3 && fabs(y - (double)q.y[i]) < 1e-3);
        pm_map3_apply(&back, x, y, &x, &y);
        assert_true(fabs(x - xs[i]) < 1e-3 && fabs(y - ys[i]) < 1e-3);
    }
    struct pm_quad flat = {{1, 2, 3, 4}, {1, 2, 3, 4}};
    assert_false(pm_map3_from_quad(&flat, 10, 10, &map));
}

static void test_page_before_a_dark_desk(void **state)
{
    (void)state;
    struct pm_image sheet = raster_new(700, 1000, 235), desk = raster_new(1100, 1300, 60);
    for (int i = 0; i < 20; i++)
        raster_text(&sheet, 60, 80 + 44 * i, 640, 10, 30);
    struct pm_quad truth = {{180, 900, 960, 120}, {130, 170, 1180, 1120}}, found;
    struct pm_map3 map, back;
    assert_true(pm_map3_from_quad(&truth, 700, 1000, &map) && pm_map3_invert(&map, &back));
    for (int y = 0; y < 1300; y++)
        for (int x = 0; x < 1100; x++) {
            double u, v;
            pm_map3_apply(&back, x + 0.5, y + 0.5, &u, &v);
            uint8_t *to = &desk.owned[(size_t)y * desk.stride_bytes + (size_t)x];
            if (u >= 0 && v >= 0 && u < 700 && v < 1000)
                *to = sheet.owned[(size_t)v * sheet.stride_bytes + (size_t)u];
            else
                *to = (uint8_t)(*to + (x * 7 + y * 13) % 23);
        }
    assert_true(pm_page_find(&desk, &found));
    for (int i = 0; i < 4; i++)
        assert_true(hypotf(found.x[i] - truth.x[i], found.y[i] - truth.y[i]) < 10);
    pm_image_free(&sheet);
    pm_image_free(&desk);
}

static void test_no_page_is_cut_out_of_itself(void **state)
{
    (void)state;
    struct pm_image page = raster_new(900, 1200, 240);
    struct pm_quad q;
    for (int i = 0; i < 24; i++)
        raster_text(&page, 60, 80 + 44 * i, 840, 10, 30);
    assert_false(pm_page_find(&page, &q));
    raster_fill(&page, 100, 300, 800, 900, 20); /* a dark picture on it */
    assert_false(pm_page_find(&page, &q));
    for (int y = 0; y < 1200; y++) /* a shadow that fades over a quarter of the width */
        for (int x = 0; x < 225; x++) {
            uint8_t *p = &page.owned[(size_t)y * page.stride_bytes + (size_t)x];
            *p = (uint8_t)(*p * (30 + x) / 255);
        }
    assert_false(pm_page_find(&page, &q));
    raster_fill(&page, 0, 0, 900, 1200, 128);
    assert_false(pm_page_find(&page, &q));
    pm_image_free(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_skew_is_that_of_the_long_lines),
        cmocka_unit_test(test_lines_without_a_common_slope_tell_nothing),
        cmocka_unit_test(test_ink_tells_a_tenth_of_a_degree),
        cmocka_unit_test(test_turn_is_a_vote),
        cmocka_unit_test(test_turned_pixels),
        cmocka_unit_test(test_map_of_a_quad_and_back),
        cmocka_unit_test(test_page_before_a_dark_desk),
        cmocka_unit_test(test_no_page_is_cut_out_of_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
