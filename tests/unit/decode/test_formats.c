/* Every format and kind: the pixels that come out are those that went in (tests/data/decode/generate.py). */
#include "common.h"

#include <jpeglib.h>

#define W          40
#define H          24
#define SUBSAMPLED 14 /* tolerance of codecs with colour at half resolution */

enum pattern {
    COLOUR,
    GREY,
    GREY2,
    GREY4,
    BIT,
    INDEX,
    COLOUR_ALPHA,
    GREY_ALPHA,
    INDEX_ALPHA,
    INDEX_HOLE,
    FAX
};

static int index_of(int x, int y)
{
    return x / 10 + y / 6 * 4;
}

static int over_white(int value, int alpha)
{
    return (value * alpha + 255 * (255 - alpha) + 127) / 255;
}

static void palette(int i, int rgb[3])
{
    rgb[0] = i * 16;
    rgb[1] = 255 - i * 16;
    rgb[2] = i * 40 % 256;
}

static void expected(enum pattern pattern, int x, int y, int rgb[3])
{
    int grey = x * 4 + y * 3, i = index_of(x, y), alpha = 255;
    switch (pattern) {
    case COLOUR_ALPHA:
        alpha = x * 6; /* fall through */
    case COLOUR:
        rgb[0] = x * 6;
        rgb[1] = y * 10;
        rgb[2] = x < 20 ? 40 : 200;
        break;
    case GREY2:
        grey = (grey >> 6) * 85;
        break;
    case GREY4:
        grey = (grey >> 4) * 17;
        break;
    case BIT:
        grey = 255 * (((x / 4 + y / 4) % 2) ^ (x < 12 && y < 8));
        break;
    case GREY_ALPHA:
        alpha = x * 6;
        break;
    case INDEX_ALPHA:
        alpha = i * 17; /* fall through */
    case INDEX:
        palette(i, rgb);
        break;
    case INDEX_HOLE:
        palette(i, rgb);
        alpha = i == 5 ? 0 : 255;
        break;
    case FAX:
        grey = x * 4 + y / 2 * 3;
        break;
    case GREY:
        break;
    }
    if (pattern == GREY || pattern == GREY2 || pattern == GREY4 || pattern == BIT || pattern == GREY_ALPHA ||
        pattern == FAX)
        rgb[0] = rgb[1] = rgb[2] = grey;
    for (int c = 0; c < 3; c++)
        rgb[c] = over_white(rgb[c], alpha);
}

struct expectation {
    const char *name;
    enum pattern pattern;
    int tolerance, page, dpi;
};

static void compare(const struct expectation *e, const struct pm_image *image)
{
    bool is_grey = e->pattern == GREY || e->pattern == GREY2 || e->pattern == GREY4 || e->pattern == BIT ||
                   e->pattern == GREY_ALPHA || e->pattern == FAX;
    assert_int_equal(image->channels, is_grey ? 1 : 3);
    for (int y = 0; y < image->height_px; y++)
        for (int x = 0; x < image->width_px; x++) {
            const uint8_t *p =
                image->pixels + image->stride_bytes * (size_t)y + (size_t)x * (size_t)image->channels;
            int rgb[3];
            expected(e->pattern, x, y, rgb);
            if (e->tolerance == SUBSAMPLED && x >= 14 && x < 26)
                continue; /* blue has an edge at 20, which colour at half resolution blurs */
            for (int c = 0; c < image->channels; c++)
                if (abs(p[c] - rgb[2 - c]) > e->tolerance)
                    fail_msg("%s: pixel %d, %d channel %d is %d and should be %d", e->name, x, y, c, p[c],
                             rgb[2 - c]);
        }
}

static void check(const struct expectation *e)
{
    struct pm_decoder *decoder = open_file(e->name, NULL, NULL);
    struct pm_error err = {0};
    struct pm_image image;
    struct pm_decode_size size;
    double dpi = 0;
    if (pm_decode_page_size(decoder, e->page, 0, &size, &err) ||
        pm_decode_render(decoder, e->page, 0, &image, &dpi, &err))
        fail_msg("%s: %s", e->name, err.text);
    assert_string_equal(pm_decode_warning(decoder), "");
    if (image.width_px != W || image.height_px != (e->pattern == FAX ? 2 * H : H))
        fail_msg("%s: %d x %d pixels", e->name, image.width_px, image.height_px);
    assert_int_equal(size.width_px, image.width_px);
    assert_int_equal(size.height_px, image.height_px);
    if (abs((int)(dpi + 0.5) - e->dpi) > 1)
        fail_msg("%s: %g dpi", e->name, dpi);
    compare(e, &image);
    pm_decode_image_free(&image);
    pm_decode_stop(&decoder);
    assert_null(decoder);
}

static void check_all(const struct expectation *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        check(&list[i]);
}
#define CHECK_ALL(list) check_all((list), sizeof(list) / sizeof(list)[0])

static void test_png(void **state)
{
    static const struct expectation list[] = {
        {"grey1.png", BIT, 0, 0, 0},
        {"grey2.png", GREY2, 0, 0, 0},
        {"grey4.png", GREY4, 0, 0, 0},
        {"grey8.png", GREY, 0, 0, 300},
        {"grey16.png", GREY, 0, 0, 0},
        {"grey-as-rgb.png", GREY, 0, 0, 0},
        {"rgb8.png", COLOUR, 0, 0, 0},
        {"rgb16.png", COLOUR, 0, 0, 0},
        {"rgb8-interlaced.png", COLOUR, 0, 0, 0},
        {"palette1.png", BIT, 0, 0, 0},
        {"palette4.png", INDEX, 0, 0, 0},
        {"palette8.png", INDEX, 0, 0, 0},
        {"palette8-alpha.png", INDEX_ALPHA, 0, 0, 0},
        {"grey8-alpha.png", GREY_ALPHA, 0, 0, 0},
        {"rgb8-alpha.png", COLOUR_ALPHA, 0, 0, 0},
        {"rgb16-alpha.png", COLOUR_ALPHA, 0, 0, 0},
    };
    (void)state;
    CHECK_ALL(list);
}

static void test_jpeg(void **state)
{
    static const struct expectation list[] = {
        {"colour.jpg", COLOUR, 8, 0, 300},
        {"colour-420.jpg", COLOUR, SUBSAMPLED, 0, 0},
        {"progressive.jpg", COLOUR, 8, 0, 0},
        {"grey.jpg", GREY, 4, 0, 0},
        {"cmyk-adobe.jpg", COLOUR, SUBSAMPLED, 0, 0},
        {"cmyk-plain.jpg", COLOUR, SUBSAMPLED, 0, 0},
    };
    (void)state;
    CHECK_ALL(list);
}

static void test_orientation(void **state)
{
    (void)state;
    for (int i = 1; i <= 8; i++) {
        char name[40];
        snprintf(name, sizeof name, "turned%d.jpg", i);
        check(&(struct expectation){name, COLOUR, 8, 0, 0});
        snprintf(name, sizeof name, "turned%d.tif", i);
        check(&(struct expectation){name, COLOUR, 0, 0, 0});
    }
    check(&(struct expectation){"turned8.webp", COLOUR, 0, 0, 0});
}

/* The turn of 6 on a picture that was not stored turned: left column becomes the top row, from below. */
static void test_orientation_of_png(void **state)
{
    struct pm_decoder *decoder = open_file("turned6.png", NULL, NULL);
    struct pm_image image;
    struct pm_error err;
    double dpi;
    (void)state;
    assert_int_equal(pm_decode_render(decoder, 0, 0, &image, &dpi, &err), 0);
    assert_int_equal(image.width_px, H);
    assert_int_equal(image.height_px, W);
    for (int y = 0; y < W; y++)
        for (int x = 0; x < H; x++) {
            int rgb[3];
            expected(COLOUR, y, H - 1 - x, rgb);
            const uint8_t *p = image.pixels + image.stride_bytes * (size_t)y + 3 * (size_t)x;
            assert_int_equal(p[2], rgb[0]);
            assert_int_equal(p[1], rgb[1]);
        }
    pm_decode_image_free(&image);
    pm_decode_stop(&decoder);
}

static void test_tiff(void **state)
{
    static const struct expectation list[] = {
        {"grey-lzw.tif", GREY, 0, 0, 0},
        {"colour-deflate.tif", COLOUR, 0, 0, 0},
        {"colour-raw.tif", COLOUR, 0, 0, 0},
        {"colour-jpeg.tif", COLOUR, SUBSAMPLED, 0, 0},
        {"bits-g4.tif", BIT, 0, 0, 0},
        {"bits-g3.tif", BIT, 0, 0, 0},
        {"bits-packbits.tif", BIT, 0, 0, 0},
        {"bits-white0.tif", BIT, 0, 0, 0},
        {"palette-lzw.tif", INDEX, 0, 0, 0},
        {"cmyk-lzw.tif", COLOUR, 1, 0, 0},
        {"alpha-lzw.tif", COLOUR_ALPHA, 1, 0, 0},
        {"tiled.tif", COLOUR, 0, 0, 0},
        {"grey16.tif", GREY, 0, 0, 0},
        {"fax.tif", FAX, 0, 0, 204},
        {"pages.tif", BIT, 0, 0, 0},
        {"pages.tif", GREY, 0, 1, 0},
        {"pages.tif", COLOUR, 0, 2, 0},
    };
    (void)state;
    CHECK_ALL(list);
}

static void test_tiff_pages_in_any_order(void **state)
{
    struct pm_decoder *decoder = open_file("pages.tif", NULL, NULL);
    static const int order[] = {2, 0, 1, 2};
    static const enum pattern patterns[] = {BIT, GREY, COLOUR};
    struct pm_image image;
    struct pm_error err;
    double dpi;
    (void)state;
    assert_int_equal(pm_decode_info(decoder)->page_count, 3);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pm_decode_render(decoder, order[i], 0, &image, &dpi, &err), 0);
        compare(&(struct expectation){"pages.tif", patterns[order[i]], 0, order[i], 0}, &image);
        pm_decode_image_free(&image);
    }
    pm_decode_stop(&decoder);
}

static void test_webp(void **state)
{
    static const struct expectation list[] = {
        {"lossy.webp", COLOUR, SUBSAMPLED, 0, 0},
        {"lossless.webp", COLOUR, 0, 0, 0},
        {"alpha.webp", COLOUR_ALPHA, 0, 0, 0},
        {"animation.webp", COLOUR, 0, 0, 0},
    };
    (void)state;
    CHECK_ALL(list);
}

static void test_gif(void **state)
{
    static const struct expectation list[] = {
        {"palette.gif", INDEX, 0, 0, 0},
        {"interlaced.gif", INDEX, 0, 0, 0},
        {"transparent.gif", INDEX_HOLE, 0, 0, 0},
        {"animation.gif", INDEX, 0, 0, 0},
    };
    (void)state;
    CHECK_ALL(list);
}

static void test_bmp(void **state)
{
    static const struct expectation list[] = {
        {"bits1.bmp", BIT, 0, 0, 300},      {"palette4.bmp", INDEX, 0, 0, 300},
        {"palette8.bmp", INDEX, 0, 0, 300}, {"os2.bmp", INDEX, 0, 0, 0},
        {"rgb555.bmp", COLOUR, 8, 0, 300},  {"rgb565.bmp", COLOUR, 8, 0, 300},
        {"rgb24.bmp", COLOUR, 0, 0, 300},   {"rgb24-topdown.bmp", COLOUR, 0, 0, 300},
        {"rgb32.bmp", COLOUR, 0, 0, 300},   {"rgb32-alpha.bmp", COLOUR_ALPHA, 0, 0, 300},
        {"rle8.bmp", INDEX, 0, 0, 300},     {"rle4.bmp", INDEX, 0, 0, 300},
    };
    (void)state;
    CHECK_ALL(list);
}

/* YCCK, as printing software writes it: made here, for no tool at hand does. */
static void test_jpeg_ycck(void **state)
{
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL;
    unsigned long size = 0;
    (void)state;
    c.err = jpeg_std_error(&errors);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &bytes, &size);
    c.image_width = W;
    c.image_height = H;
    c.input_components = 4;
    c.in_color_space = JCS_CMYK;
    jpeg_set_defaults(&c);
    jpeg_set_colorspace(&c, JCS_YCCK);
    jpeg_set_quality(&c, 98, TRUE);
    for (int i = 0; i < 4; i++)
        c.comp_info[i].h_samp_factor = c.comp_info[i].v_samp_factor = 1;
    jpeg_start_compress(&c, TRUE);
    for (int y = 0; y < H; y++) {
        JSAMPLE row[4 * W], *rows[] = {row};
        for (int x = 0; x < W; x++) {
            int rgb[3];
            expected(COLOUR, x, y, rgb);
            for (int i = 0; i < 3; i++)
                row[4 * x + i] = (JSAMPLE)rgb[i]; /* Adobe: 255 - ink, so cyan's complement is red */
            row[4 * x + 3] = 255;
        }
        jpeg_write_scanlines(&c, rows, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    int fd = source_of(bytes, size);
    struct pm_decoder *decoder;
    struct pm_image image;
    struct pm_error err = {0};
    double dpi;
    assert_int_equal(pm_decode_start(PROGRAM, fd, NULL, NULL, &decoder, &err), 0);
    assert_int_equal(pm_decode_render(decoder, 0, 0, &image, &dpi, &err), 0);
    compare(&(struct expectation){"YCCK", COLOUR, 12, 0, 0}, &image);
    pm_decode_image_free(&image);
    pm_decode_stop(&decoder);
    close(fd);
    free(bytes);
}

/* A picture above the limits comes out reduced by averaging, with its turn, and says so in its size. */
static void test_reduction(void **state)
{
    struct pm_decode_limits limits;
    struct pm_image image;
    struct pm_decode_size size;
    struct pm_error err = {0};
    double dpi;
    (void)state;
    pm_decode_limits_default(&limits);
    limits.picture_longest_px = 20;
    static const char *const names[] = {"grey8.png", "grey-lzw.tif", "grey.jpg"};
    for (size_t i = 0; i < 3; i++) {
        struct pm_decoder *decoder = open_file(names[i], NULL, &limits);
        assert_int_equal(pm_decode_page_size(decoder, 0, 0, &size, &err), 0);
        assert_int_equal(pm_decode_render(decoder, 0, 0, &image, &dpi, &err), 0);
        assert_int_equal(image.width_px, 20);
        assert_int_equal(image.height_px, 12);
        assert_int_equal(size.width_px, 20);
        assert_int_equal(size.height_px, 12);
        for (int y = 0; y < 12; y++)
            for (int x = 0; x < 20; x++) { /* the mean of 4 x + 3 y over 2 x 2 pixels */
                double mean = 4 * (2 * x + 0.5) + 3 * (2 * y + 0.5);
                int got = image.pixels[image.stride_bytes * (size_t)y + (size_t)x];
                if (got < mean - 3 || got > mean + 3)
                    fail_msg("%s: pixel %d, %d is %d and should be %g", names[i], x, y, got, mean);
            }
        if (i == 0)
            assert_true(dpi > 149 && dpi < 151);
        pm_decode_image_free(&image);
        pm_decode_stop(&decoder);
    }
    limits.picture_longest_px = 15; /* not a whole factor, and turned */
    struct pm_decoder *decoder = open_file("turned6.tif", NULL, &limits);
    assert_int_equal(pm_decode_render(decoder, 0, 0, &image, &dpi, &err), 0);
    assert_int_equal(image.width_px, 15);
    assert_int_equal(image.height_px, 9);
    for (int x = 0; x < 15; x++) {
        double red = 6 * (40.0 / 15 * (x + 0.5) - 0.5);
        assert_true(abs((int)(image.pixels[3 * x + 2] - red)) <= 3);
    }
    pm_decode_image_free(&image);
    pm_decode_stop(&decoder);
}

static void check_point(const struct pm_image *image, int x, int y, int red, int green, int blue)
{
    const uint8_t *p = image->pixels + image->stride_bytes * (size_t)y + (size_t)x * (size_t)image->channels;
    if (image->channels == 1) {
        assert_int_equal(p[0], red);
        return;
    }
    assert_int_equal(p[2], red);
    assert_int_equal(p[1], green);
    assert_int_equal(p[0], blue);
}

static struct pm_image render(struct pm_decoder *decoder, int page, double dpi, double *dpi_out)
{
    struct pm_image image;
    struct pm_error err = {0};
    if (pm_decode_render(decoder, page, dpi, &image, dpi_out, &err))
        fail_msg("page %d: %s", page + 1, err.text);
    return image;
}

static void test_pdf(void **state)
{
    struct pm_decoder *decoder = open_file("pages.pdf", NULL, NULL);
    const struct pm_decode_info *info = pm_decode_info(decoder);
    double dpi;
    (void)state;
    assert_int_equal(info->format, PM_FORMAT_PDF);
    assert_int_equal(info->page_count, 7);
    assert_string_equal(info->title, "Seven pages");

    struct pm_image image = render(decoder, 0, 0, &dpi);
    assert_true(dpi > 199.9 && dpi < 200.1);
    assert_int_equal(image.width_px, 400);
    assert_int_equal(image.height_px, 200);
    assert_int_equal(image.channels, 3);
    check_point(&image, 100, 50, 255, 0, 0);
    check_point(&image, 300, 50, 0, 255, 0);
    check_point(&image, 100, 150, 0, 0, 255);
    check_point(&image, 300, 150, 255, 255, 255);
    pm_decode_image_free(&image);

    image = render(decoder, 1, 0, &dpi); /* /Rotate 90: clockwise */
    assert_int_equal(image.width_px, 200);
    assert_int_equal(image.height_px, 400);
    check_point(&image, 150, 100, 255, 0, 0);
    check_point(&image, 150, 300, 0, 255, 0);
    check_point(&image, 50, 100, 0, 0, 255);
    pm_decode_image_free(&image);

    image = render(decoder, 2, 0, &dpi); /* crop box without the left 36 points */
    assert_int_equal(image.width_px, 300);
    assert_int_equal(image.height_px, 200);
    check_point(&image, 98, 50, 255, 0, 0);
    check_point(&image, 102, 50, 0, 255, 0);
    pm_decode_image_free(&image);

    image = render(decoder, 3, 72, &dpi); /* black and white: one channel; another resolution */
    assert_int_equal(image.channels, 1);
    assert_int_equal(image.width_px, 144);
    check_point(&image, 36, 18, 0, 0, 0);
    check_point(&image, 108, 18, 255, 255, 255);
    pm_decode_image_free(&image);
    pm_decode_stop(&decoder);
}

/* Helvetica is not in the file: fontconfig must find a face for it from behind the walls. */
static void test_pdf_fonts(void **state)
{
    struct pm_decoder *decoder = open_file("pages.pdf", NULL, NULL);
    double dpi;
    int dark = 0;
    (void)state;
    struct pm_image image = render(decoder, 4, 0, &dpi);
    for (size_t i = 0; i < (size_t)image.width_px * (size_t)image.height_px; i++)
        dark += image.pixels[i] < 128;
    assert_true(dark > 1000);
    assert_true(dark < 20000);
    pm_decode_image_free(&image);
    pm_decode_stop(&decoder);
}

static void test_pdf_absurd_pages(void **state)
{
    struct pm_decoder *decoder = open_file("pages.pdf", NULL, NULL);
    struct pm_decode_size size;
    struct pm_error err = {0};
    double dpi;
    (void)state;
    struct pm_image image = render(decoder, 5, 0, &dpi); /* 5,000,000 points wide */
    assert_int_equal(image.width_px, 3500);
    assert_int_equal(image.height_px, 1750);
    pm_decode_image_free(&image);
    assert_int_equal(pm_decode_page_size(decoder, 6, 0, &size, &err),
                     0); /* empty box: Poppler takes Letter */
    assert_int_equal(size.width_px, 1700);
    assert_int_equal(pm_decode_page_size(decoder, 7, 0, &size, &err), PM_EINVAL);
    assert_int_equal(pm_decode_render(decoder, -1, 0, &image, &dpi, &err), PM_EINVAL);
    assert_int_equal(pm_decode_render(decoder, 0, 1e9, &image, &dpi, &err), PM_EINVAL);
    pm_decode_stop(&decoder);
}

static void test_pdf_password(void **state)
{
    static const char *const names[] = {"encrypted-128.pdf", "encrypted-256.pdf"};
    double dpi;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct pm_error err = open_error(names[i], NULL, NULL);
        assert_int_equal(err.code, PM_EPASSWORD);
        assert_non_null(strstr(err.text, "--password"));
        err = open_error(names[i], "wrong", NULL);
        assert_int_equal(err.code, PM_EPASSWORD);
        assert_non_null(strstr(err.text, "does not open"));
        struct pm_decoder *decoder = open_file(names[i], "secret", NULL);
        struct pm_image image = render(decoder, 0, 0, &dpi);
        check_point(&image, 100, 50, 255, 0, 0);
        pm_decode_image_free(&image);
        pm_decode_stop(&decoder);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_png),
        cmocka_unit_test(test_jpeg),
        cmocka_unit_test(test_jpeg_ycck),
        cmocka_unit_test(test_orientation),
        cmocka_unit_test(test_orientation_of_png),
        cmocka_unit_test(test_tiff),
        cmocka_unit_test(test_tiff_pages_in_any_order),
        cmocka_unit_test(test_webp),
        cmocka_unit_test(test_gif),
        cmocka_unit_test(test_bmp),
        cmocka_unit_test(test_reduction),
        cmocka_unit_test(test_pdf),
        cmocka_unit_test(test_pdf_fonts),
        cmocka_unit_test(test_pdf_absurd_pages),
        cmocka_unit_test(test_pdf_password),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
