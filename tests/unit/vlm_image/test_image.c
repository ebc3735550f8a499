/* Pictures on their way into the vision tower: the size rule, resizing bit for bit, the order of patches. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/mem.h"
#include "engine/vlm/image.h"

static struct pm_vlm_config glm_ocr(void)
{
    return (struct pm_vlm_config){
        .vision = {.in_channels = 3, .patch = 14, .temporal = 2, .merge = 2},
        .min_pixels = 12544,
        .max_pixels = 9633792,
        .mean = {0.48145466f, 0.4578275f, 0.40821073f},
        .std = {0.26862954f, 0.26130258f, 0.27577711f},
    };
}

/* ---- size: what smart_resize of the reference returns ---- */

static void test_size(void **state)
{
    (void)state;
    static const struct {
        int width, height, max_pixels, to_width, to_height; /* to_width 0: refused */
    } cases[] = {
        {6000, 4000, 0, 2688, 1792},
        {4000, 3000, 0, 2520, 1876},
        {1700, 2200, 0, 1708, 2212},
        {100, 100, 0, 112, 112},
        {1, 1, 0, 84, 84},
        {13, 9, 0, 112, 84},
        {500, 27, 0, 504, 28},
        {238, 154, 0, 224, 168}, /* 8.5 and 5.5 blocks: half to even */
        {42, 42, 0, 84, 84},
        {70, 98, 0, 56, 112},
        {5600, 28, 0, 5600, 28},
        {5601, 28, 0, 0, 0},
        {5628, 28, 0, 0, 0},
        {700, 3, 0, 0, 0},
        {3, 700, 0, 0, 0},
        {2800, 14, 0, 5600, 28},
        {900, 640, 200704, 364, 252},
        {240, 1500, 200704, 112, 784},
        {28, 5600, 50000, 28, 2212}, /* never below one block */
        {65535, 400, 0, 28084, 168},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pm_vlm_config config = glm_ocr();
        if (cases[i].max_pixels)
            config.max_pixels = cases[i].max_pixels;
        int width = 0, height = 0;
        struct pm_error err = {0};
        int rc = pm_smart_resize(&config, cases[i].width, cases[i].height, &width, &height, &err);
        assert_int_equal(rc, cases[i].to_width ? 0 : PM_ELIMIT);
        assert_int_equal(width, cases[i].to_width);
        assert_int_equal(height, cases[i].to_height);
        if (rc)
            assert_non_null(strstr(err.text, "times the other"));
    }
}

static void test_size_of_odd_configurations(void **state)
{
    (void)state;
    int width, height;
    struct pm_error err = {0};
    struct pm_vlm_config config = glm_ocr();
    assert_int_equal(pm_smart_resize(&config, 0, 5, &width, &height, &err), PM_EINVAL);
    assert_int_equal(pm_smart_resize(&config, 5, 65536, &width, &height, &err), PM_EINVAL);
    config.max_pixels = 0; /* a hostile file: as small as it gets, and no division by zero */
    assert_int_equal(pm_smart_resize(&config, 500, 400, &width, &height, &err), 0);
    assert_int_equal(width, 28);
    assert_int_equal(height, 28);
    config.min_pixels = config.max_pixels = INT64_MAX;
    assert_int_equal(pm_smart_resize(&config, 500, 400, &width, &height, &err), PM_ELIMIT);
    assert_non_null(strstr(err.text, "too large"));
    config = glm_ocr();
    config.vision.patch = 0;
    assert_int_equal(pm_smart_resize(&config, 500, 400, &width, &height, &err), PM_EINVAL);
}

/* ---- resizing ---- */

/* Noise; every third size is hard black and white, where the filter overshoots most. */
static struct pm_image noise(int width, int height, int channels)
{
    struct pm_image image;
    assert_int_equal(pm_image_alloc(width, height, channels, &image, NULL), 0);
    uint32_t v = (uint32_t)(width * 31 + height);
    for (size_t i = 0; i < (size_t)width * (size_t)height * (size_t)channels; i++) {
        v = v * 1664525u + 1013904223u;
        uint8_t byte = (uint8_t)(v >> 24);
        image.owned[i] = (width + height) % 3 == 0 ? (byte > 127 ? 255 : 0) : byte;
    }
    return image;
}

static void assert_hash(const struct pm_image *image, const char *expected)
{
    uint8_t hash[PM_HASH_BYTES];
    char hex[PM_HASH_HEX + 1];
    pm_hash(image->pixels, (size_t)image->height_px * image->stride_bytes, hash);
    pm_hash_hex(hash, hex);
    hex[strlen(expected)] = 0;
    assert_string_equal(hex, expected);
}

/* The hashes are those of torch.nn.functional.interpolate(mode="bicubic", antialias=True) on uint8. */
static void test_resize_bits(void **state)
{
    (void)state;
    static const struct {
        int width, height, channels, to_width, to_height;
        const char *hash;
    } cases[] = {
        {230, 150, 3, 224, 140, "8aef9487efdddf33"}, {1, 1, 3, 84, 84, "78ee894c78d2564f"},
        {13, 9, 1, 112, 84, "b3f0b5662f15d5a9"},     {97, 61, 3, 112, 84, "6bc417c6826105a2"},
        {27, 500, 3, 28, 504, "62275d9b9682516b"},   {500, 27, 1, 504, 28, "d1609a05ce950dd9"},
        {300, 200, 3, 28, 28, "d8f365b35ac58c53"},   {64, 64, 1, 64, 17, "0602b97e1bb758e5"},
        {64, 64, 3, 17, 64, "976369a20e5e35b8"},     {33, 35, 3, 66, 35, "1bbc8ed25e57d748"},
        {5, 300, 1, 140, 7, "2d8953cd4bd212ee"},     {200, 17, 3, 199, 18, "9d7353022c5daba0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pm_image in = noise(cases[i].width, cases[i].height, cases[i].channels), out;
        assert_int_equal(pm_resize_bicubic(&in, cases[i].to_width, cases[i].to_height, &out, NULL), 0);
        assert_int_equal(out.channels, cases[i].channels);
        assert_hash(&out, cases[i].hash);
        pm_image_free(&in);
        pm_image_free(&out);
    }
}

/* A view into a larger picture gives what a tight copy gives. */
static void test_resize_of_a_view(void **state)
{
    (void)state;
    struct pm_image whole = noise(90, 70, 3), view = pm_image_view(&whole, 11, 13, 50, 40), copy, a, b;
    assert_int_equal(pm_resize_bicubic(&view, 50, 40, &copy, NULL), 0); /* same size: a copy */
    for (int y = 0; y < 40; y++)
        assert_memory_equal(copy.pixels + y * 150, whole.pixels + (y + 13) * 270 + 33, 150);
    assert_int_equal(pm_resize_bicubic(&view, 33, 56, &a, NULL), 0);
    assert_int_equal(pm_resize_bicubic(&copy, 33, 56, &b, NULL), 0);
    assert_memory_equal(a.pixels, b.pixels, 33 * 56 * 3);
    pm_image_free(&whole);
    pm_image_free(&copy);
    pm_image_free(&a);
    pm_image_free(&b);
}

static void test_resize_refuses(void **state)
{
    (void)state;
    struct pm_image in = noise(8, 8, 1), out;
    struct pm_error err = {0};
    assert_int_equal(pm_resize_bicubic(&in, 0, 8, &out, &err), PM_ELIMIT);
    assert_null(out.pixels);
    assert_int_equal(pm_resize_bicubic(&in, 70000, 8, &out, &err), PM_ELIMIT);
    in.channels = 2;
    assert_int_equal(pm_resize_bicubic(&in, 8, 8, &out, &err), PM_EINVAL);
    in.channels = 1;
    in.stride_bytes = 7;
    assert_int_equal(pm_resize_bicubic(&in, 8, 4, &out, &err), PM_EINVAL);
    pm_image_free(&in);
}

/* ---- patches ---- */

/* The value of channel c (R, G, B) at pixel (x, y), written down independently of the cutting. */
static float value_at(const struct pm_vlm_config *config, const struct pm_image *image, int x, int y, int c)
{
    const uint8_t *pixel = image->pixels + (size_t)y * image->stride_bytes + (size_t)(x * image->channels);
    float byte = pixel[image->channels == 1 ? 0 : 2 - c];
    return (byte - 255.0f * config->mean[c]) / (255.0f * config->std[c]);
}

static void check_order(const struct pm_vlm_config *config, const struct pm_image *image)
{
    struct pm_patches patches;
    int p = config->vision.patch, m = config->vision.merge, frames = config->vision.temporal;
    assert_int_equal(pm_patches_cut(config, image, &patches, NULL), 0);
    assert_int_equal(patches.rows, image->height_px / p);
    assert_int_equal(patches.columns, image->width_px / p);
    const float *at = patches.values;
    for (int block = 0; block < patches.rows / m * (patches.columns / m); block++)
        for (int inside = 0; inside < m * m; inside++) {
            int row = block / (patches.columns / m) * m + inside / m;
            int column = block % (patches.columns / m) * m + inside % m;
            for (int c = 0; c < 3; c++)
                for (int t = 0; t < frames; t++)
                    for (int i = 0; i < p * p; i++, at++)
                        assert_true(*at == value_at(config, image, column * p + i % p, row * p + i / p, c));
        }
    pm_patches_free(&patches);
    assert_null(patches.values);
}

static void test_patches_in_order(void **state)
{
    (void)state;
    struct pm_vlm_config config = glm_ocr();
    struct pm_image colour = noise(84, 56, 3), grey = noise(56, 28, 1), odd = noise(90, 60, 3);
    check_order(&config, &colour);
    check_order(&config, &grey);
    config.vision.patch = 5;
    config.vision.merge = 3;
    config.vision.temporal = 1;
    check_order(&config, &odd);
    pm_image_free(&colour);
    pm_image_free(&grey);
    pm_image_free(&odd);
}

/* Grey is colour with equal channels, through resizing too. */
static void test_grey_is_colour(void **state)
{
    (void)state;
    struct pm_vlm_config config = glm_ocr();
    struct pm_image grey = noise(131, 77, 1), colour;
    struct pm_patches a, b;
    assert_int_equal(pm_image_alloc(131, 77, 3, &colour, NULL), 0);
    for (size_t i = 0; i < 131 * 77 * 3; i++)
        colour.owned[i] = grey.pixels[i / 3];
    assert_int_equal(pm_patches_make(&config, &grey, &a, NULL), 0);
    assert_int_equal(pm_patches_make(&config, &colour, &b, NULL), 0);
    assert_int_equal(a.rows, 6);
    assert_int_equal(a.columns, 10);
    assert_memory_equal(a.values, b.values, 60 * 1176 * sizeof(float));
    pm_patches_free(&a);
    pm_patches_free(&b);
    pm_image_free(&grey);
    pm_image_free(&colour);
}

static void test_patches_refuse(void **state)
{
    (void)state;
    struct pm_vlm_config config = glm_ocr();
    struct pm_image odd = noise(57, 28, 1), wide = noise(5700, 28, 1);
    struct pm_patches patches;
    struct pm_error err = {0};
    assert_int_equal(pm_patches_cut(&config, &odd, &patches, &err), PM_EINVAL);
    assert_int_equal(pm_patches_make(&config, &wide, &patches, &err), PM_ELIMIT);
    assert_null(patches.values);
    pm_image_free(&odd);
    pm_image_free(&wide);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_size),           cmocka_unit_test(test_size_of_odd_configurations),
        cmocka_unit_test(test_resize_bits),    cmocka_unit_test(test_resize_of_a_view),
        cmocka_unit_test(test_resize_refuses), cmocka_unit_test(test_patches_in_order),
        cmocka_unit_test(test_grey_is_colour), cmocka_unit_test(test_patches_refuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
