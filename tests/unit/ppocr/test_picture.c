/* Resizing and cropping against known values of OpenCV 5 and slow oracles, and on hostile arguments. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/ppocr/crop.h"
#include "tests/unit/ppocr/random.h"

#define LENGTH(a) (sizeof(a) / sizeof(a)[0])

/* A picture with a row stride larger than its rows, so that reading over a row's end shows. */
struct loose_image {
    struct pm_image image;
    uint8_t *storage;
};

static struct loose_image random_image(uint64_t *seed, int width, int height, int channels)
{
    size_t stride = (size_t)(width * channels);
    struct loose_image out = {.storage = malloc(stride * (size_t)height)};
    assert_non_null(out.storage);
    for (size_t i = 0; i < stride * (size_t)height; i++)
        out.storage[i] = (uint8_t)random_next(seed);
    out.image = (struct pm_image){out.storage, width, height, channels, stride, NULL};
    return out;
}

/* ---- bilinear ---- */

static void bilinear_equals_opencv(void **state)
{
    (void)state;
    static const uint8_t pixels[] = {10, 200, 30, 77, 0, 255, 128, 90, 64, 33, 250, 1};
    const struct pm_image image = {pixels, 4, 3, 1, 4, NULL};
    static const uint8_t wanted[] = {10,  78,  186, 115, 33,  60,  77,  6,   83,  206, 146, 70,
                                     77,  82,  0,   91,  237, 192, 125, 104, 90,  38,  68,  116,
                                     161, 189, 95,  36,  64,  53,  35,  141, 232, 90,  1};
    struct pm_image out;
    assert_int_equal(pm_resize_bilinear(&image, 7, 5, &out, NULL), 0);
    assert_memory_equal(out.pixels, wanted, sizeof wanted);
    pm_image_free(&out);
    static const uint8_t smaller[] = {42, 134, 76, 55, 154, 56};
    assert_int_equal(pm_resize_bilinear(&image, 3, 2, &out, NULL), 0);
    assert_memory_equal(out.pixels, smaller, sizeof smaller);
    pm_image_free(&out);
}

static void bilinear_keeps_what_is_even(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int round = 0; round < 200; round++) {
        int channels = round % 2 ? 3 : 1, w = random_int(&seed, 1, 60), h = random_int(&seed, 1, 60);
        struct loose_image in = random_image(&seed, w, h, channels);
        memset(in.storage, 40 + round, in.image.stride_bytes * (size_t)h);
        struct pm_image out;
        int to_w = random_int(&seed, 1, 90), to_h = random_int(&seed, 1, 90);
        assert_int_equal(pm_resize_bilinear(&in.image, to_w, to_h, &out, NULL), 0);
        for (size_t i = 0; i < out.stride_bytes * (size_t)to_h; i++)
            assert_int_equal(out.pixels[i], 40 + round);
        pm_image_free(&out);
        free(in.storage);
    }
}

/* Exact bilinear interpolation in double; the fixed-point rule stays within one. */
static void random_bilinear_is_near_the_exact_one(void **state)
{
    (void)state;
    uint64_t seed = 2;
    for (int round = 0; round < 300; round++) {
        int channels = round % 2 ? 3 : 1, w = random_int(&seed, 1, 40), h = random_int(&seed, 1, 40);
        int to_w = random_int(&seed, 1, 60), to_h = random_int(&seed, 1, 60);
        struct loose_image in = random_image(&seed, w, h, channels);
        struct pm_image out;
        assert_int_equal(pm_resize_bilinear(&in.image, to_w, to_h, &out, NULL), 0);
        for (int y = 0; y < to_h; y++) {
            for (int x = 0; x < to_w; x++) {
                double at_x = fmin(fmax((x + 0.5) * w / to_w - 0.5, 0), w - 1);
                double at_y = fmin(fmax((y + 0.5) * h / to_h - 0.5, 0), h - 1);
                int x0 = (int)at_x, y0 = (int)at_y, x1 = x0 + 1 < w ? x0 + 1 : x0,
                    y1 = y0 + 1 < h ? y0 + 1 : y0;
                for (int c = 0; c < channels; c++) {
                    double p[4];
                    const int ys[] = {y0, y0, y1, y1}, xs[] = {x0, x1, x0, x1};
                    for (int k = 0; k < 4; k++)
                        p[k] = in.storage[(ys[k] * w + xs[k]) * channels + c];
                    double tx = at_x - x0, ty = at_y - y0;
                    double exact =
                        (p[0] * (1 - tx) + p[1] * tx) * (1 - ty) + (p[2] * (1 - tx) + p[3] * tx) * ty;
                    assert_true(fabs(out.pixels[(y * to_w + x) * channels + c] - exact) <= 1.0);
                }
            }
        }
        pm_image_free(&out);
        free(in.storage);
    }
}

static void resizes_refuse_what_they_cannot_do(void **state)
{
    (void)state;
    uint8_t pixel[4] = {7, 8, 9, 10};
    struct pm_image image = {pixel, 2, 2, 1, 2, NULL}, out;
    struct pm_error err;
    assert_int_equal(pm_resize_bilinear(&image, 0, 5, &out, &err), PM_ELIMIT);
    assert_int_equal(pm_resize_bilinear(&image, 5, 1 << 20, &out, &err), PM_ELIMIT);
    assert_int_equal(pm_resize_bilinear(&image, PM_IMAGE_MAX_SIDE_PX, PM_IMAGE_MAX_SIDE_PX, &out, &err),
                     PM_ELIMIT);
    assert_non_null(strstr(err.text, "resize"));
    assert_int_equal(pm_resize_area(&image, 3, 2, &out, &err), PM_EINVAL);
    assert_int_equal(pm_resize_area(&image, 1, 0, &out, &err), PM_ELIMIT);
    image.channels = 2;
    assert_int_equal(pm_resize_bilinear(&image, 2, 2, &out, &err), PM_EINVAL);
    image.channels = 1;
    image.pixels = NULL;
    assert_int_equal(pm_resize_area(&image, 1, 1, &out, &err), PM_EINVAL);
    assert_null(out.owned);
}

/* ---- area ---- */

static void area_averages_whole_blocks(void **state)
{
    (void)state;
    static const uint8_t pixels[] = {10, 20, 0, 255, 30, 40, 255, 0};
    const struct pm_image image = {pixels, 4, 2, 1, 4, NULL};
    struct pm_image out;
    assert_int_equal(pm_resize_area(&image, 2, 1, &out, NULL), 0);
    assert_int_equal(out.pixels[0], 25);
    assert_int_equal(out.pixels[1], 128);
    pm_image_free(&out);
    assert_int_equal(pm_resize_area(&image, 4, 2, &out, NULL), 0);
    assert_memory_equal(out.pixels, pixels, sizeof pixels);
    pm_image_free(&out);
}

/* Share of source pixel i that output pixel o covers. */
static double overlap(int i, int o, int in, int out)
{
    double low = fmax(i, (double)o * in / out), high = fmin(i + 1, (double)(o + 1) * in / out);
    return high > low ? high - low : 0;
}

static void random_areas_are_the_exact_means(void **state)
{
    (void)state;
    uint64_t seed = 4;
    for (int round = 0; round < 120; round++) {
        int channels = round % 2 ? 3 : 1, w = random_int(&seed, 1, 30), h = random_int(&seed, 1, 30);
        int to_w = random_int(&seed, 1, w + 1), to_h = random_int(&seed, 1, h + 1);
        struct loose_image in = random_image(&seed, w, h, channels);
        struct pm_image out;
        assert_int_equal(pm_resize_area(&in.image, to_w, to_h, &out, NULL), 0);
        for (int i = 0; i < to_w * to_h * channels; i++) {
            int c = i % channels, x = i / channels % to_w, y = i / channels / to_w;
            double sum = 0, weight = 0;
            for (int sy = 0; sy < h; sy++) {
                for (int sx = 0; sx < w; sx++) {
                    double share = overlap(sx, x, w, to_w) * overlap(sy, y, h, to_h);
                    sum += share * in.storage[(sy * w + sx) * channels + c];
                    weight += share;
                }
            }
            assert_true(fabs(out.pixels[i] - sum / weight) <= 0.51);
        }
        pm_image_free(&out);
        free(in.storage);
    }
}

/* ---- crop ---- */

static double keys(double t)
{
    t = fabs(t);
    return t < 1 ? (1.25 * t - 2.25) * t * t + 1 : t < 2 ? ((-0.75 * t + 3.75) * t - 6) * t + 3 : 0;
}

static double bicubic(const struct pm_image *image, double x, double y, int c)
{
    int x0 = (int)floor(x), y0 = (int)floor(y);
    double sum = 0;
    for (int j = -1; j <= 2; j++) {
        for (int i = -1; i <= 2; i++) {
            int px = x0 + i < 0 ? 0 : x0 + i >= image->width_px ? image->width_px - 1 : x0 + i;
            int py = y0 + j < 0 ? 0 : y0 + j >= image->height_px ? image->height_px - 1 : y0 + j;
            double v = image->pixels[(size_t)py * image->stride_bytes + (size_t)(px * image->channels + c)];
            sum += v * keys(x - x0 - i) * keys(y - y0 - j);
        }
    }
    return sum < 0 ? 0 : sum > 255 ? 255 : sum;
}

static struct pm_quad quad_of(const double *corners)
{
    struct pm_quad q;
    for (int i = 0; i < 4; i++) {
        q.x[i] = (float)corners[2 * i];
        q.y[i] = (float)corners[2 * i + 1];
    }
    return q;
}

static void crop_of_whole_pixels_is_a_copy(void **state)
{
    (void)state;
    uint64_t seed = 6;
    for (int round = 0; round < 300; round++) {
        int channels = round % 2 ? 3 : 1;
        struct loose_image in =
            random_image(&seed, random_int(&seed, 1, 30), random_int(&seed, 1, 30), channels);
        int left = random_int(&seed, -40, 60), top = random_int(&seed, -40, 60);
        int w = random_int(&seed, 1, 50), h = random_int(&seed, 1, 50);
        double corners[] = {left, top, left + w, top, left + w, top + h, left, top + h};
        struct pm_quad quad = quad_of(corners);
        struct pm_image out;
        assert_int_equal(pm_crop_quad(&in.image, &quad, 0, &out, NULL), 0);
        assert_int_equal(out.width_px, w);
        assert_int_equal(out.height_px, h);
        for (int i = 0; i < w * h * channels; i++) {
            int c = i % channels, x = i / channels % w, y = i / channels / w;
            assert_int_equal(out.pixels[i], (int)bicubic(&in.image, left + x, top + y, c));
        }
        pm_image_free(&out);
        free(in.storage);
    }
}

/* Parallelograms (where the map is plain) anywhere around the picture. */
static void random_slanted_crops_are_the_exact_ones(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (int round = 0; round < 200; round++) {
        int channels = round % 2 ? 3 : 1;
        struct loose_image in =
            random_image(&seed, random_int(&seed, 1, 40), random_int(&seed, 1, 40), channels);
        double x0 = random_int(&seed, -240, 400) / 8.0, y0 = random_int(&seed, -240, 400) / 8.0;
        double ux = random_int(&seed, 16, 240) / 8.0, uy = random_int(&seed, -24, 24) / 8.0;
        double vx = random_int(&seed, -24, 24) / 8.0, vy = random_int(&seed, 32, 160) / 8.0;
        double corners[] = {x0, y0, x0 + ux, y0 + uy, x0 + ux + vx, y0 + uy + vy, x0 + vx, y0 + vy};
        struct pm_quad quad = quad_of(corners);
        struct pm_image out;
        int w, h;
        pm_crop_size(&quad, &w, &h);
        assert_int_equal(w, (int)hypot(ux, uy));
        assert_int_equal(h, (int)hypot(vx, vy));
        assert_int_equal(pm_crop_quad(&in.image, &quad, 0, &out, NULL), 0);
        for (int i = 0; i < w * h * channels; i++) {
            int c = i % channels, x = i / channels % w, y = i / channels / w;
            double exact = bicubic(&in.image, x0 + ux * x / w + vx * y / h, y0 + uy * x / w + vy * y / h, c);
            assert_true(fabs(out.pixels[i] - exact) <= 0.51);
        }
        pm_image_free(&out);
        free(in.storage);
    }
}

static void perspective_meets_the_corners(void **state)
{
    (void)state;
    /* A ramp: the value tells where a sample was taken. */
    enum { W = 120, H = 100 };
    static uint8_t across[W * H], down[W * H];
    for (int i = 0; i < W * H; i++) {
        across[i] = (uint8_t)(2 * (i % W));
        down[i] = (uint8_t)(2 * (i / W));
    }
    const double corners[] = {20, 12, 104, 26, 92, 80, 30, 62};
    struct pm_quad quad = quad_of(corners);
    const uint8_t *const ramps[] = {across, down};
    for (int k = 0; k < 2; k++) {
        struct pm_image image = {ramps[k], W, H, 1, W, NULL}, out;
        assert_int_equal(pm_crop_quad(&image, &quad, 1, &out, NULL), 0);
        const float *wanted = k ? quad.y : quad.x;
        int w = out.width_px, h = out.height_px;
        assert_true(abs(out.pixels[0] - (int)(2 * wanted[0])) <= 1);
        assert_true(abs(out.pixels[w - 1] - (int)(2 * wanted[1])) <= 4);
        assert_true(abs(out.pixels[w * h - 1] - (int)(2 * wanted[2])) <= 4);
        assert_true(abs(out.pixels[w * (h - 1)] - (int)(2 * wanted[3])) <= 4);
        pm_image_free(&out);
    }
}

static void tall_crops_are_turned_left(void **state)
{
    (void)state;
    static const uint8_t pixels[] = {1, 2, 3, 4, 5, 6, 7, 8};
    const struct pm_image image = {pixels, 2, 4, 1, 2, NULL};
    const double tall[] = {0, 0, 2, 0, 2, 3, 0, 3}, square[] = {0, 0, 2, 0, 2, 2, 0, 2};
    struct pm_quad quad = quad_of(tall);
    struct pm_image out;
    assert_int_equal(pm_crop_quad(&image, &quad, 1, &out, NULL), 0);
    assert_int_equal(out.width_px, 3);
    const uint8_t turned[] = {2, 4, 6, 1, 3, 5};
    assert_memory_equal(out.pixels, turned, 6);
    pm_image_free(&out);
    assert_int_equal(pm_crop_quad(&image, &quad, 0, &out, NULL), 0);
    assert_int_equal(out.width_px, 2);
    pm_image_free(&out);
    quad = quad_of(square);
    assert_int_equal(pm_crop_quad(&image, &quad, 1, &out, NULL), 0);
    assert_memory_equal(out.pixels, pixels, 4);
    pm_image_free(&out);
}

static void bad_quads_are_refused(void **state)
{
    (void)state;
    static uint8_t pixels[64 * 64];
    const struct pm_image image = {pixels, 64, 64, 1, 64, NULL};
    static const double bad[][8] = {
        {5, 5, 5, 5, 5, 5, 5, 5},                 /* a point */
        {0, 0, 10, 0, 20, 0, 10, 0},              /* a line */
        {0, 0, 0.5, 0, 0.5, 20, 0, 20},           /* less than a pixel wide */
        {0, 0, 1e9, 0, 1e9, 1e9, 0, 1e9},         /* too large */
        {0, 0, 60000, 0, 60000, 60000, 0, 60000}, /* too many bytes */
        {-3e38, 0, 3e38, 0, 3e38, 5, -3e38, 5},   /* its width is infinite */
        {NAN, 0, 10, 0, 10, 10, 0, 10},
        {0, 0, 10, 0, 10, (double)INFINITY, 0, 10},
    };
    for (size_t i = 0; i < LENGTH(bad); i++) {
        struct pm_quad quad = quad_of(bad[i]);
        struct pm_image out;
        struct pm_error err = {0};
        assert_int_equal(pm_crop_quad(&image, &quad, 1, &out, &err), PM_ELIMIT);
        assert_true(err.text[0]);
        assert_null(out.owned);
    }
    struct pm_quad quad = {{0, 5, 5, 0}, {0, 0, 5, 5}};
    struct pm_image none = {0}, out;
    assert_int_equal(pm_crop_quad(&none, &quad, 1, &out, NULL), PM_EINVAL);
}

/* Whatever the corners are: an error or a crop of the promised size. */
static void wild_quads_do_no_harm(void **state)
{
    (void)state;
    uint64_t seed = 8;
    struct loose_image in[2] = {random_image(&seed, 50, 30, 1), random_image(&seed, 3, 2, 3)};
    int cropped = 0;
    for (int round = 0; round < 4000; round++) {
        double corners[8];
        for (int i = 0; i < 8; i++) {
            corners[i] = (random_unit(&seed) - 0.3) * 100;
            if (random_int(&seed, 0, 30) == 0)
                corners[i] *= pow(10, random_int(&seed, 0, 12));
        }
        struct pm_quad quad = quad_of(corners);
        struct pm_image out;
        int w, h;
        pm_crop_size(&quad, &w, &h);
        if ((int64_t)w * h > 1000000)
            continue;
        int rc = pm_crop_quad(&in[round % 2].image, &quad, 0, &out, NULL);
        assert_true(rc == 0 || rc == PM_ELIMIT);
        if (rc == 0) {
            cropped++;
            assert_int_equal(out.width_px, w);
            assert_int_equal(out.height_px, h);
        }
        pm_image_free(&out);
    }
    assert_true(cropped > 1000);
    free(in[0].storage);
    free(in[1].storage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bilinear_equals_opencv),
        cmocka_unit_test(bilinear_keeps_what_is_even),
        cmocka_unit_test(random_bilinear_is_near_the_exact_one),
        cmocka_unit_test(resizes_refuse_what_they_cannot_do),
        cmocka_unit_test(area_averages_whole_blocks),
        cmocka_unit_test(random_areas_are_the_exact_means),
        cmocka_unit_test(crop_of_whole_pixels_is_a_copy),
        cmocka_unit_test(random_slanted_crops_are_the_exact_ones),
        cmocka_unit_test(perspective_meets_the_corners),
        cmocka_unit_test(tall_crops_are_turned_left),
        cmocka_unit_test(bad_quads_are_refused),
        cmocka_unit_test(wild_quads_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
