/* Plain geometry against known values of OpenCV 5 and Clipper 6, and against slow oracles on random input. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/geometry/contour.h"
#include "engine/geometry/fill.h"
#include "engine/geometry/hull.h"
#include "engine/geometry/offset.h"
#include "tests/unit/ppocr/random.h"

#define LENGTH(a) (sizeof(a) / sizeof(a)[0])

static void assert_points(const struct pm_point *actual, size_t count, const struct pm_point *expected,
                          size_t wanted)
{
    assert_int_equal(count, wanted);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(actual[i].x, expected[i].x);
        assert_int_equal(actual[i].y, expected[i].y);
    }
}

/* ---- hull ---- */

static void hull_starts_as_opencv_does(void **state)
{
    (void)state;
    struct pm_point hull[16];
    size_t count;
    /* Clockwise input: the order descends, and so does the hull. */
    const struct pm_point square[] = {{0, 0}, {0, 5}, {5, 5}, {5, 0}};
    const struct pm_point square_hull[] = {{5, 0}, {5, 5}, {0, 5}, {0, 0}};
    assert_int_equal(pm_hull(square, 4, hull, &count, NULL), 0);
    assert_points(hull, count, square_hull, 4);
    /* No order in the input: the largest (x, y) comes first. */
    const struct pm_point mixed[] = {{7, 6}, {1, 0}, {10, 9}, {10, 6}, {9, 3}, {5, 9}, {1, 3}, {1, 5}};
    const struct pm_point mixed_hull[] = {{10, 9}, {5, 9}, {1, 5}, {1, 0}, {9, 3}, {10, 6}};
    assert_int_equal(pm_hull(mixed, LENGTH(mixed), hull, &count, NULL), 0);
    assert_points(hull, count, mixed_hull, LENGTH(mixed_hull));
    /* The contour of a thin blob passes points twice. */
    const struct pm_point thin[] = {{24, 17}, {23, 18}, {23, 19}, {22, 20}, {22, 21}, {21, 22},
                                    {21, 23}, {21, 22}, {22, 21}, {22, 20}, {23, 19}, {23, 18}};
    const struct pm_point thin_hull[] = {{24, 17}, {21, 23}, {21, 22}, {23, 18}};
    assert_int_equal(pm_hull(thin, LENGTH(thin), hull, &count, NULL), 0);
    assert_points(hull, count, thin_hull, LENGTH(thin_hull));
}

static void hull_of_few_points(void **state)
{
    (void)state;
    const struct pm_point same[] = {{3, 4}, {3, 4}, {3, 4}}, line[] = {{0, 0}, {2, 1}, {4, 2}, {2, 1}};
    struct pm_point hull[4];
    size_t count = 9;
    assert_int_equal(pm_hull(same, 0, hull, &count, NULL), 0);
    assert_int_equal(count, 0);
    assert_int_equal(pm_hull(same, 3, hull, &count, NULL), 0);
    assert_points(hull, count, same, 1);
    assert_int_equal(pm_hull(line, 4, hull, &count, NULL), 0);
    assert_int_equal(count, 2);
}

static int64_t turn(struct pm_point o, struct pm_point a, struct pm_point b)
{
    return (int64_t)(a.x - o.x) * (b.y - o.y) - (int64_t)(a.y - o.y) * (b.x - o.x);
}

static size_t random_points(uint64_t *seed, struct pm_point *points, int most, int range)
{
    size_t count = (size_t)random_int(seed, 1, most);
    for (size_t i = 0; i < count; i++)
        points[i] = (struct pm_point){random_int(seed, -range, range), random_int(seed, -range, range)};
    return count;
}

static void random_hulls_are_convex_and_hold_all(void **state)
{
    (void)state;
    uint64_t seed = 11;
    for (int round = 0; round < 4000; round++) {
        struct pm_point points[40], hull[40];
        size_t hull_count, count = random_points(&seed, points, 40, round % 2 ? 6 : 100000);
        assert_int_equal(pm_hull(points, count, hull, &hull_count, NULL), 0);
        for (size_t i = 0; hull_count > 2 && i < hull_count; i++) {
            struct pm_point a = hull[i], b = hull[(i + 1) % hull_count], c = hull[(i + 2) % hull_count];
            assert_true(turn(a, b, c) > 0);
            for (size_t k = 0; k < count; k++)
                assert_true(turn(a, b, points[k]) >= 0);
        }
    }
}

/* ---- rectangle ---- */

static void rect_equals_opencv_to_the_bit(void **state)
{
    (void)state;
    const struct pm_point points[] = {{5, 6}, {9, 11}, {0, 1}, {9, 11}, {2, 3}, {10, 5}, {3, 9}, {3, 4}};
    struct pm_point hull[8];
    size_t count;
    struct pm_rotated_rect r;
    assert_int_equal(pm_hull(points, LENGTH(points), hull, &count, NULL), 0);
    assert_int_equal(pm_min_area_rect(hull, count, &r, NULL), 0);
    assert_true(r.center_x == 4.431034088134766f && r.center_y == 6.1724138259887695f);
    assert_true(r.width == 6.313641548156738f && r.height == 12.070196151733398f);
    assert_true(r.angle_degrees == -68.19859313964844f);
}

static void rect_of_point_segment_and_square(void **state)
{
    (void)state;
    struct pm_rotated_rect r;
    const struct pm_point segment[] = {{0, 0}, {0, 5}}, square[] = {{5, 0}, {5, 5}, {0, 5}, {0, 0}};
    assert_int_equal(pm_min_area_rect(segment, 1, &r, NULL), 0);
    assert_true(r.width == 0 && r.height == 0 && r.angle_degrees == -90);
    assert_int_equal(pm_min_area_rect(segment, 2, &r, NULL), 0);
    assert_true(r.width == 5 && r.height == 0 && r.angle_degrees == -90 && r.center_y == 2.5f);
    assert_int_equal(pm_min_area_rect(square, 4, &r, NULL), 0);
    assert_true(r.width == 5 && r.height == 5 && r.angle_degrees == -90);
    float x[4], y[4];
    pm_rect_corners(&r, x, y);
    const float want_x[] = {5, 0, 0, 5}, want_y[] = {5, 5, 0, 0};
    for (int i = 0; i < 4; i++)
        assert_true(fabsf(x[i] - want_x[i]) < 1e-6f && fabsf(y[i] - want_y[i]) < 1e-6f);
}

/* The smallest area over all edge directions, in double. */
static double smallest_area(const struct pm_point *hull, size_t count)
{
    double best = INFINITY;
    for (size_t i = 0; i < count; i++) {
        struct pm_point a = hull[i], b = hull[(i + 1) % count];
        double length = hypot(b.x - a.x, b.y - a.y), ux = (b.x - a.x) / length, uy = (b.y - a.y) / length;
        double low_u = INFINITY, high_u = -INFINITY, low_v = INFINITY, high_v = -INFINITY;
        for (size_t k = 0; k < count; k++) {
            double u = ux * hull[k].x + uy * hull[k].y, v = ux * hull[k].y - uy * hull[k].x;
            low_u = fmin(low_u, u);
            high_u = fmax(high_u, u);
            low_v = fmin(low_v, v);
            high_v = fmax(high_v, v);
        }
        best = fmin(best, (high_u - low_u) * (high_v - low_v));
    }
    return best;
}

static void random_rects_are_smallest_and_hold_all(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (int round = 0; round < 4000; round++) {
        struct pm_point points[30], hull[30];
        struct pm_rotated_rect r;
        size_t hull_count, count = random_points(&seed, points, 30, round % 2 ? 8 : 500);
        assert_int_equal(pm_hull(points, count, hull, &hull_count, NULL), 0);
        assert_int_equal(pm_min_area_rect(hull, hull_count, &r, NULL), 0);
        assert_true(r.angle_degrees >= -90 && r.angle_degrees < 0);
        double area = (double)r.width * r.height, radians = r.angle_degrees * M_PI / 180;
        if (hull_count > 2)
            assert_true(fabs(area - smallest_area(hull, hull_count)) <= 1e-4 * area + 1e-3);
        for (size_t k = 0; k < count; k++) {
            double dx = points[k].x - r.center_x, dy = points[k].y - r.center_y;
            assert_true(fabs(dx * cos(radians) + dy * sin(radians)) <= r.width / 2 + 1e-3);
            assert_true(fabs(dy * cos(radians) - dx * sin(radians)) <= r.height / 2 + 1e-3);
        }
    }
}

/* ---- contours ---- */

enum { SIDE = 24, STRIDE = SIDE + 2 };

static void set_marks(int8_t *marks, const char *const *rows, int width, int height)
{
    memset(marks, 0, (size_t)((width + 2) * (height + 2)));
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            marks[(y + 1) * (width + 2) + x + 1] = rows[y][x] == '#';
}

static void contours_come_with_corners_only(void **state)
{
    (void)state;
    static const char *const rows[] = {"#####...", "#...#.#.", "#...#...", "#####..#"};
    int8_t marks[10 * 6];
    set_marks(marks, rows, 8, 4);
    struct pm_contours c;
    assert_int_equal(pm_contours_trace(marks, 8, 4, 100, &c, NULL), 0);
    assert_int_equal(c.count, 4);
    const struct pm_point outer[] = {{0, 0}, {0, 3}, {4, 3}, {4, 0}};
    assert_points(c.points + c.items[0].first, c.items[0].count, outer, 4);
    assert_false(c.items[0].is_hole);
    const struct pm_point hole[] = {{0, 1}, {1, 0}, {3, 0}, {4, 1}, {4, 2}, {3, 3}, {1, 3}, {0, 2}};
    assert_points(c.points + c.items[1].first, c.items[1].count, hole, LENGTH(hole));
    assert_true(c.items[1].is_hole);
    const struct pm_point dot = {6, 1}, corner = {7, 3};
    assert_points(c.points + c.items[2].first, c.items[2].count, &dot, 1);
    assert_points(c.points + c.items[3].first, c.items[3].count, &corner, 1);
    pm_contours_free(&c);
}

static void contours_beyond_keep_are_forgotten(void **state)
{
    (void)state;
    int8_t marks[STRIDE * STRIDE] = {0};
    for (int y = 1; y <= SIDE; y += 2)
        for (int x = 1; x <= SIDE; x += 2)
            marks[y * STRIDE + x] = 1;
    int8_t copy[sizeof marks];
    for (size_t keep = 0; keep <= 150; keep += 3) {
        memcpy(copy, marks, sizeof marks);
        struct pm_contours c;
        assert_int_equal(pm_contours_trace(copy, SIDE, SIDE, keep, &c, NULL), 0);
        size_t all = (size_t)SIDE / 2 * (SIDE / 2), wanted = keep < all ? keep : all;
        assert_int_equal(c.count, wanted);
        for (size_t i = 0; i < wanted; i++) {
            size_t place = all - wanted + i;
            struct pm_point dot = {(int)(place % 12) * 2, (int)(place / 12) * 2};
            assert_points(c.points + c.items[i].first, c.items[i].count, &dot, 1);
        }
        pm_contours_free(&c);
    }
}

static void flood(int8_t *marks, int width, int height, int at, int8_t from, int8_t to, int directions)
{
    static const int dx[] = {1, -1, 0, 0, 1, 1, -1, -1}, dy[] = {0, 0, 1, -1, 1, -1, 1, -1};
    int stack[STRIDE * STRIDE], used = 0;
    stack[used++] = at;
    marks[at] = to;
    while (used > 0) {
        int here = stack[--used], x = here % width, y = here / width;
        for (int i = 0; i < directions; i++) {
            int nx = x + dx[i], ny = y + dy[i];
            if (nx < 0 || ny < 0 || nx >= width || ny >= height || marks[ny * width + nx] != from)
                continue;
            marks[ny * width + nx] = to;
            stack[used++] = ny * width + nx;
        }
    }
}

/* Blobs are 8-connected, holes are 4-connected background that does not reach the frame. */
static void count_by_flooding(const int8_t *marks, int width, int height, size_t *blobs, size_t *holes)
{
    int8_t work[STRIDE * STRIDE];
    memcpy(work, marks, (size_t)(width * height));
    *blobs = *holes = 0;
    flood(work, width, height, 0, 0, 5, 4);
    for (int i = 0; i < width * height; i++) {
        if (work[i] == 1) {
            flood(work, width, height, i, 1, 4, 8);
            ++*blobs;
        } else if (work[i] == 0) {
            flood(work, width, height, i, 0, 5, 4);
            ++*holes;
        }
    }
}

static void random_contours_match_a_flood_fill(void **state)
{
    (void)state;
    uint64_t seed = 3;
    for (int round = 0; round < 1500; round++) {
        int width = random_int(&seed, 1, SIDE + 1), height = random_int(&seed, 1, SIDE + 1);
        double density = random_unit(&seed);
        int8_t marks[STRIDE * STRIDE] = {0}, before[STRIDE * STRIDE];
        for (int y = 1; y <= height; y++)
            for (int x = 1; x <= width; x++)
                marks[y * (width + 2) + x] = random_unit(&seed) < density;
        memcpy(before, marks, sizeof marks);
        size_t blobs, holes, outer = 0, inner = 0;
        count_by_flooding(marks, width + 2, height + 2, &blobs, &holes);
        struct pm_contours c;
        assert_int_equal(pm_contours_trace(marks, width, height, 100000, &c, NULL), 0);
        for (size_t i = 0; i < c.count; i++) {
            outer += !c.items[i].is_hole;
            inner += c.items[i].is_hole;
            for (size_t k = 0; k < c.items[i].count; k++) {
                struct pm_point p = c.points[c.items[i].first + k];
                assert_int_equal(before[(p.y + 1) * (width + 2) + p.x + 1], 1);
            }
        }
        assert_int_equal(outer, blobs);
        assert_int_equal(inner, holes);
        pm_contours_free(&c);
    }
    struct pm_contours c;
    int8_t none = 0;
    assert_int_equal(pm_contours_trace(&none, 0, 5, 1, &c, NULL), PM_ELIMIT);
    assert_int_equal(pm_contours_trace(&none, 5, PM_CONTOUR_MAX_SIDE + 1, 1, &c, NULL), PM_ELIMIT);
}

/* ---- fill ---- */

static void assert_filled(const struct pm_point *polygon, size_t count, int width, int height,
                          const char *expected)
{
    uint8_t mask[256] = {0};
    assert_int_equal(pm_fill_polygon(polygon, count, mask, width, height, NULL), 0);
    char text[257] = {0};
    for (int i = 0; i < width * height; i++)
        text[i] = mask[i] ? '#' : '.';
    assert_string_equal(text, expected);
}

static void polygons_fill_as_opencv_does(void **state)
{
    (void)state;
    const struct pm_point inside[] = {{2, 5}, {1, 5}, {3, 1}};
    assert_filled(inside, 3, 6, 7,
                  "......"
                  "...#.."
                  "..##.."
                  "..#..."
                  ".##..."
                  ".##..."
                  "......");
    const struct pm_point crossing[] = {{-4, -2}, {5, 3}, {3, 9}};
    assert_filled(crossing, 3, 10, 8,
                  "#........."
                  "###......."
                  "#####....."
                  "######...."
                  "#####....."
                  ".####....."
                  ".###......"
                  "..##......");
    /* Edges that leave to the left are filled up to the border, even beside the polygon. */
    const struct pm_point beside[] = {{-4, 3}, {0, 1}, {-4, 0}};
    assert_filled(beside, 3, 8, 5,
                  "#......."
                  "#......."
                  "#......."
                  "........"
                  "........");
    assert_filled(inside, 0, 2, 1, "..");
    const struct pm_point dot = {1, 0};
    assert_filled(&dot, 1, 3, 1, ".#.");
    uint8_t mask;
    assert_int_equal(pm_fill_polygon(inside, 3, &mask, 0, 1, NULL), PM_EINVAL);
}

static double distance_to_segment(double x, double y, struct pm_point a, struct pm_point b)
{
    double dx = b.x - a.x, dy = b.y - a.y, squared = dx * dx + dy * dy;
    double t = squared > 0 ? ((x - a.x) * dx + (y - a.y) * dy) / squared : 0;
    t = t < 0 ? 0 : t > 1 ? 1 : t;
    return hypot(x - a.x - t * dx, y - a.y - t * dy);
}

static void random_fills_hold_the_inside_and_no_more(void **state)
{
    (void)state;
    uint64_t seed = 17;
    for (int round = 0; round < 3000; round++) {
        int width = random_int(&seed, 1, 16), height = random_int(&seed, 1, 16);
        int margin = round % 2 ? 0 : 20;
        struct pm_point p[3];
        for (int i = 0; i < 3; i++)
            p[i] = (struct pm_point){random_int(&seed, -margin, width + margin),
                                     random_int(&seed, -margin, height + margin)};
        uint8_t mask[256] = {0};
        assert_int_equal(pm_fill_polygon(p, 3, mask, width, height, NULL), 0);
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++) {
                struct pm_point here = {x, y};
                int64_t a = turn(p[0], p[1], here), b = turn(p[1], p[2], here), c = turn(p[2], p[0], here);
                bool is_inside = (a > 0 && b > 0 && c > 0) || (a < 0 && b < 0 && c < 0);
                double nearest = INFINITY;
                for (int i = 0; i < 3; i++)
                    nearest = fmin(nearest, distance_to_segment(x, y, p[i], p[(i + 1) % 3]));
                if (is_inside && nearest > 1.1)
                    assert_int_equal(mask[y * width + x], 1);
                if (margin == 0 && !is_inside && nearest > 0.51)
                    assert_int_equal(mask[y * width + x], 0);
            }
        }
    }
}

static void far_away_polygons_do_no_harm(void **state)
{
    (void)state;
    uint64_t seed = 23;
    for (int round = 0; round < 3000; round++) {
        struct pm_point p[12];
        size_t count = random_points(&seed, p, 12, PM_POINT_MAX);
        uint8_t mask[64] = {0};
        assert_int_equal(pm_fill_polygon(p, count, mask, 8, 8, NULL), 0);
    }
}

/* ---- offset ---- */

static void offset_equals_clipper(void **state)
{
    (void)state;
    const struct pm_point box[] = {{10, 10}, {50, 14}, {49, 24}, {9, 20}};
    const struct pm_point wanted[] = {{50, 10}, {53, 12}, {54, 14}, {53, 24}, {51, 27}, {49, 28},
                                      {9, 24},  {6, 22},  {5, 20},  {6, 10},  {8, 7},   {10, 6}};
    struct pm_point *grown;
    size_t count;
    assert_int_equal(pm_offset_round(box, 4, 3.7, &grown, &count, NULL), 0);
    assert_points(grown, count, wanted, LENGTH(wanted));
    free(grown);
    /* The other direction around gives the same. */
    const struct pm_point reversed[] = {{9, 20}, {49, 24}, {50, 14}, {10, 10}};
    assert_int_equal(pm_offset_round(reversed, 4, 3.7, &grown, &count, NULL), 0);
    assert_points(grown, count, wanted, LENGTH(wanted));
    free(grown);
}

static void offset_refuses_nonsense(void **state)
{
    (void)state;
    const struct pm_point line[] = {{1, 1}, {5, 5}, {5, 5}, {1, 1}};
    struct pm_point *grown;
    size_t count;
    assert_int_equal(pm_offset_round(line, 4, 2, &grown, &count, NULL), 0);
    assert_int_equal(count, 0);
    assert_null(grown);
    const double bad[] = {0, -1, NAN, INFINITY, 1e30};
    for (size_t i = 0; i < LENGTH(bad); i++)
        assert_int_equal(pm_offset_round(line, 4, bad[i], &grown, &count, NULL), PM_EINVAL);
}

static void random_offsets_keep_their_distance(void **state)
{
    (void)state;
    uint64_t seed = 29;
    for (int round = 0; round < 2000; round++) {
        double cx = random_unit(&seed) * 400, cy = random_unit(&seed) * 400,
               angle = random_unit(&seed) * M_PI;
        double w = 4 + random_unit(&seed) * 200, h = 4 + random_unit(&seed) * 30,
               d = 1.2 + random_unit(&seed) * 30;
        struct pm_point box[4], *grown;
        for (int i = 0; i < 4; i++) {
            double u = (i == 0 || i == 3 ? -w : w) / 2, v = (i < 2 ? -h : h) / 2;
            box[i] = (struct pm_point){(int)(cx + u * cos(angle) - v * sin(angle)),
                                       (int)(cy + u * sin(angle) + v * cos(angle))};
        }
        size_t count;
        assert_int_equal(pm_offset_round(box, 4, d, &grown, &count, NULL), 0);
        assert_true(count >= 4);
        for (size_t k = 0; k < count; k++) {
            double nearest = INFINITY;
            for (int i = 0; i < 4; i++)
                nearest =
                    fmin(nearest, distance_to_segment(grown[k].x, grown[k].y, box[i], box[(i + 1) % 4]));
            assert_true(fabs(nearest - d) <= 0.75);
        }
        free(grown);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hull_starts_as_opencv_does),
        cmocka_unit_test(hull_of_few_points),
        cmocka_unit_test(random_hulls_are_convex_and_hold_all),
        cmocka_unit_test(rect_equals_opencv_to_the_bit),
        cmocka_unit_test(rect_of_point_segment_and_square),
        cmocka_unit_test(random_rects_are_smallest_and_hold_all),
        cmocka_unit_test(contours_come_with_corners_only),
        cmocka_unit_test(contours_beyond_keep_are_forgotten),
        cmocka_unit_test(random_contours_match_a_flood_fill),
        cmocka_unit_test(polygons_fill_as_opencv_does),
        cmocka_unit_test(random_fills_hold_the_inside_and_no_more),
        cmocka_unit_test(far_away_polygons_do_no_harm),
        cmocka_unit_test(offset_equals_clipper),
        cmocka_unit_test(offset_refuses_nonsense),
        cmocka_unit_test(random_offsets_keep_their_distance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
