/* Boxes from probability maps: simple maps whose boxes are known, limits, and hostile maps. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/ppocr/det.h"
#include "tests/unit/ppocr/random.h"

#define LENGTH(a) (sizeof(a) / sizeof(a)[0])

enum { W = 160, H = 96 };

static void paint(float *map, int left, int top, int right, int bottom, float value)
{
    for (int y = top; y < bottom; y++)
        for (int x = left; x < right; x++)
            map[y * W + x] = value;
}

struct found {
    struct pm_det_box *boxes;
    size_t count;
};

static struct found boxes_of(const float *map, const struct pm_det_params *params)
{
    struct found f;
    assert_int_equal(pm_det_boxes(map, W, H, W, H, params, &f.boxes, &f.count, NULL), 0);
    return f;
}

static void assert_quad(const struct pm_quad *q, float left, float top, float right, float bottom)
{
    const float x[] = {left, right, right, left}, y[] = {top, top, bottom, bottom};
    for (int i = 0; i < 4; i++) {
        assert_true(fabsf(q->x[i] - x[i]) < 0.5f);
        assert_true(fabsf(q->y[i] - y[i]) < 0.5f);
    }
}

static void one_bar_gives_one_grown_box(void **state)
{
    (void)state;
    static float map[W * H];
    memset(map, 0, sizeof map);
    paint(map, 30, 40, 110, 50, 0.8f);
    struct pm_det_params params = pm_det_params_default();
    params.use_dilation = 0;
    struct found f = boxes_of(map, &params);
    assert_int_equal(f.count, 1);
    /* The rectangle runs through pixel centres: 79 x 9, grown by 79 * 9 * 1.6 / 176 = 6.46. */
    assert_quad(&f.boxes[0].quad, 24, 34, 115, 55);
    assert_true(fabsf(f.boxes[0].score - 0.8f) < 1e-6f);
    free(f.boxes);
    /* Dilation adds a pixel to the right and below, whose probability counts. */
    params.use_dilation = 1;
    f = boxes_of(map, &params);
    assert_int_equal(f.count, 1);
    assert_quad(&f.boxes[0].quad, 23, 33, 117, 57);
    assert_true(fabsf(f.boxes[0].score - 0.8f * 800 / 891) < 1e-5f);
    free(f.boxes);
}

static void boxes_are_in_pixels_of_the_picture(void **state)
{
    (void)state;
    static float map[W * H];
    memset(map, 0, sizeof map);
    paint(map, 30, 40, 110, 50, 0.8f);
    struct pm_det_params params = pm_det_params_default();
    params.use_dilation = 0;
    struct found f;
    assert_int_equal(pm_det_boxes(map, W, H, 3 * W, 2 * H, &params, &f.boxes, &f.count, NULL), 0);
    assert_int_equal(f.count, 1);
    assert_quad(&f.boxes[0].quad, 3 * 24, 2 * 34, 3 * 115, 2 * 55);
    free(f.boxes);
    /* In a picture of a few pixels nothing is left of it. */
    assert_int_equal(pm_det_boxes(map, W, H, 5, 5, &params, &f.boxes, &f.count, NULL), 0);
    assert_int_equal(f.count, 0);
    assert_null(f.boxes);
}

static void weak_and_small_blobs_are_left_out(void **state)
{
    (void)state;
    static float map[W * H];
    memset(map, 0, sizeof map);
    paint(map, 10, 10, 60, 20, 0.45f);  /* above the threshold, below the score */
    paint(map, 100, 10, 103, 60, 0.9f); /* two pixels between the outer centres */
    map[70 * W + 20] = 1;
    struct pm_det_params params = pm_det_params_default();
    params.use_dilation = 0;
    struct found f = boxes_of(map, &params);
    assert_int_equal(f.count, 0);
    params.box_thresh = 0.4f;
    f = boxes_of(map, &params);
    assert_int_equal(f.count, 1);
    free(f.boxes);
}

static void candidates_are_taken_from_the_bottom(void **state)
{
    (void)state;
    static float map[W * H];
    memset(map, 0, sizeof map);
    for (int i = 0; i < 4; i++)
        paint(map, 20, 6 + 24 * i, 90, 14 + 24 * i, 0.9f);
    struct pm_det_params params = pm_det_params_default();
    for (int limit = 1; limit <= 5; limit++) {
        params.max_candidates = limit;
        struct found f = boxes_of(map, &params);
        assert_int_equal(f.count, limit < 4 ? limit : 4);
        for (size_t i = 0; i < f.count; i++) /* from the lowest up */
            assert_true(fabsf((f.boxes[i].quad.y[0] + f.boxes[i].quad.y[3]) / 2 - (82 - 24 * (float)i)) < 2);
        free(f.boxes);
    }
}

static void holes_count_as_blobs(void **state)
{
    (void)state;
    static float map[W * H];
    memset(map, 0, sizeof map);
    paint(map, 20, 20, 120, 80, 0.9f);
    paint(map, 50, 40, 90, 60, 0.29f);
    struct pm_det_params params = pm_det_params_default();
    params.use_dilation = 0;
    params.box_thresh = 0.2f;
    struct found f = boxes_of(map, &params);
    assert_int_equal(f.count, 2);
    assert_true(f.boxes[0].score < f.boxes[1].score); /* the hole starts lower, so it comes first */
    free(f.boxes);
}

static void slow_score_leaves_the_hole_of_a_bend_out(void **state)
{
    (void)state;
    static float map[W * H];
    memset(map, 0, sizeof map);
    paint(map, 20, 20, 100, 30, 0.9f); /* an L: its rectangle is mostly empty */
    paint(map, 20, 20, 30, 80, 0.9f);
    struct pm_det_params params = pm_det_params_default();
    params.use_dilation = 0;
    struct found f = boxes_of(map, &params);
    assert_int_equal(f.count, 0);
    params.score_slow = 1;
    f = boxes_of(map, &params);
    assert_int_equal(f.count, 1);
    assert_true(fabsf(f.boxes[0].score - 0.9f) < 1e-5f);
    free(f.boxes);
}

static void bad_arguments_are_refused(void **state)
{
    (void)state;
    static float map[4];
    struct pm_det_params good = pm_det_params_default();
    struct found f;
    const int sides[][4] = {{0, 2, 2, 2},     {2, -1, 2, 2},    {2, 2, 0, 2},
                            {2, 2, 2, 70000}, {70000, 2, 2, 2}, {65535, 65535, 2, 2}};
    for (size_t i = 0; i < LENGTH(sides); i++)
        assert_int_equal(pm_det_boxes(map, sides[i][0], sides[i][1], sides[i][2], sides[i][3], &good,
                                      &f.boxes, &f.count, NULL),
                         PM_ELIMIT);
    struct pm_det_params bad[6];
    for (size_t i = 0; i < LENGTH(bad); i++)
        bad[i] = good;
    bad[0].thresh = NAN;
    bad[1].box_thresh = INFINITY;
    bad[2].unclip_ratio = 0;
    bad[3].unclip_ratio = NAN;
    bad[4].unclip_ratio = 1e9f;
    bad[5].max_candidates = 0;
    for (size_t i = 0; i < LENGTH(bad); i++)
        assert_int_equal(pm_det_boxes(map, 2, 2, 2, 2, &bad[i], &f.boxes, &f.count, NULL), PM_EINVAL);
    assert_null(f.boxes);
}

/* Noise, blobs, whole pages of text, values that are no probabilities: boxes stay in the picture. */
static void wild_maps_do_no_harm(void **state)
{
    (void)state;
    static float map[W * H];
    uint64_t seed = 12;
    size_t found = 0;
    for (int round = 0; round < 300; round++) {
        double density = random_unit(&seed);
        for (int i = 0; i < W * H; i++)
            map[i] = random_unit(&seed) < density ? (float)random_unit(&seed) : 0;
        for (int i = random_int(&seed, 0, 20); i > 0; i--) {
            int left = random_int(&seed, 0, W), top = random_int(&seed, 0, H);
            paint(map, left, top, random_int(&seed, left, W + 1), random_int(&seed, top, H + 1),
                  (float)random_unit(&seed));
        }
        static const float strange[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f};
        for (int i = round % 3 == 0 ? 40 : 0; i > 0; i--)
            map[random_int(&seed, 0, W * H)] = strange[random_int(&seed, 0, 5)];
        if (round == 0)
            paint(map, 0, 0, W, H, 1);
        struct pm_det_params params = pm_det_params_default();
        params.use_dilation = round & 1;
        params.score_slow = round >> 1 & 1;
        params.thresh = round % 5 == 0 ? -1 : 0.3f;
        params.unclip_ratio = round % 7 == 0 ? 100 : 1.6f;
        int width = random_int(&seed, 1, 400), height = random_int(&seed, 1, 400);
        struct found f;
        assert_int_equal(pm_det_boxes(map, W, H, width, height, &params, &f.boxes, &f.count, NULL), 0);
        found += f.count;
        for (size_t i = 0; i < f.count; i++) {
            assert_true(f.boxes[i].score >= 0.5f);
            for (int k = 0; k < 4; k++) {
                float x = f.boxes[i].quad.x[k], y = f.boxes[i].quad.y[k];
                assert_true(x >= 0 && x <= (float)(width - 1) && x == floorf(x));
                assert_true(y >= 0 && y <= (float)(height - 1) && y == floorf(y));
            }
        }
        free(f.boxes);
    }
    assert_true(found > 300);
}

static void maps_of_a_few_pixels(void **state)
{
    (void)state;
    for (int w = 1; w <= 9; w++) {
        for (int h = 1; h <= 9; h++) {
            float map[81];
            for (int i = 0; i < 81; i++)
                map[i] = 1;
            struct pm_det_params params = pm_det_params_default();
            struct found f;
            assert_int_equal(pm_det_boxes(map, w, h, 100, 100, &params, &f.boxes, &f.count, NULL), 0);
            assert_int_equal(f.count, w >= 4 && h >= 4);
            free(f.boxes);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_bar_gives_one_grown_box),
        cmocka_unit_test(boxes_are_in_pixels_of_the_picture),
        cmocka_unit_test(weak_and_small_blobs_are_left_out),
        cmocka_unit_test(candidates_are_taken_from_the_bottom),
        cmocka_unit_test(holes_count_as_blobs),
        cmocka_unit_test(slow_score_leaves_the_hole_of_a_bend_out),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(wild_maps_do_no_harm),
        cmocka_unit_test(maps_of_a_few_pixels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
