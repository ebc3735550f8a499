/* Pictures of line readers: the size that training used, and cuts between words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/glm_ocr/lines.h"
#include "tiny_model.h"

static const struct pm_line_rules rules = {.height_px = 32, .step_px = 16, .max_width_px = 256};

static void test_width(void **state)
{
    (void)state;
    assert_int_equal(pm_line_width(&rules, 100, 32), 96);
    assert_int_equal(pm_line_width(&rules, 104, 32), 96); /* 6.5 steps: half to even */
    assert_int_equal(pm_line_width(&rules, 105, 32), 112);
    assert_int_equal(pm_line_width(&rules, 120, 32), 128); /* 7.5 */
    assert_int_equal(pm_line_width(&rules, 300, 48), 192); /* 12.5 */
    assert_int_equal(pm_line_width(&rules, 1, 65535), 16);
    assert_int_equal(pm_line_width(&rules, 65535, 1), 65535 * 32);
}

/* A line of grey paper with words of ink: [begin, end) columns, ended by -1. */
static struct pm_image line_of(int width, int height, int channels, const int *words, uint8_t paper,
                               uint8_t ink)
{
    struct pm_image image;
    assert_int_equal(pm_image_alloc(width, height, channels, &image, NULL), 0);
    memset(image.owned, paper, image.stride_bytes * (size_t)height);
    for (; *words >= 0; words += 2)
        for (int y = height / 4; y < height * 3 / 4; y++)
            for (int x = words[0]; x < words[1]; x++)
                if ((x - words[0]) % 8 < 6) /* letters, gaps of 2 between them */
                    memset(image.owned + (size_t)y * image.stride_bytes + (size_t)(x * channels), ink,
                           (size_t)channels);
    return image;
}

static void test_short_lines_stay_whole(void **state)
{
    (void)state;
    struct pm_line_part *parts;
    int count;
    for (int width = 1; width <= 263; width += 2) {
        struct pm_image line = line_of(width, 32, 1, (const int[]){-1}, 200, 0);
        pm_line_cut(&rules, &line, &parts, &count);
        assert_int_equal(count, 1);
        assert_int_equal(parts[0].begin, 0);
        assert_int_equal(parts[0].end, width);
        assert_false(parts[0].has_space);
        free(parts);
        struct pm_image out;
        struct pm_line_part whole = {0, width, false};
        assert_int_equal(pm_line_make(&rules, &line, &whole, &out, NULL), 0);
        assert_int_equal(out.height_px, 32);
        assert_int_equal(out.width_px, pm_line_width(&rules, width, 32));
        pm_image_free(&out);
        pm_image_free(&line);
    }
}

static void test_long_lines_are_cut_between_words(void **state)
{
    (void)state;
    /* 64 px high, so that 512 columns fit. Gaps of 24: 300..324, 560..584, 890..914. */
    static const int words[] = {10, 300, 324, 560, 584, 890, 914, 1190, -1};
    for (int kind = 0; kind < 4; kind++) {
        int channels = kind & 1 ? 3 : 1;
        struct pm_image line = kind & 2 ? line_of(1200, 64, channels, words, 30, 220)
                                        : line_of(1200, 64, channels, words, 250, 20);
        struct pm_line_part *parts;
        int count;
        pm_line_cut(&rules, &line, &parts, &count);
        assert_int_equal(count, 4);
        assert_int_equal(parts[0].begin, 0);
        assert_in_range(parts[0].end, 301, 323);
        assert_int_equal(parts[1].begin, parts[0].end);
        assert_in_range(parts[1].end, 561, 583);
        assert_int_equal(parts[2].begin, parts[1].end);
        assert_in_range(parts[2].end, 891, 913);
        assert_int_equal(parts[3].begin, parts[2].end);
        assert_int_equal(parts[3].end, 1200);
        assert_false(parts[0].has_space);
        assert_true(parts[1].has_space && parts[2].has_space && parts[3].has_space);
        for (int i = 0; i < count; i++) {
            struct pm_image out;
            assert_int_equal(pm_line_make(&rules, &line, &parts[i], &out, NULL), 0);
            assert_int_equal(out.height_px, 32);
            assert_int_equal(out.width_px % 16, 0);
            assert_true(out.width_px <= 256);
            pm_image_free(&out);
        }
        free(parts);
        pm_image_free(&line);
    }
}

/* One word without end: cut somewhere all the same, and joined without a space. */
static void test_endless_words(void **state)
{
    (void)state;
    static const int word[] = {0, 3000, -1};
    static const struct pm_line_rules narrow = {.height_px = 32, .step_px = 16, .max_width_px = 16};
    struct pm_image line = line_of(3000, 20, 1, word, 255, 0);
    struct pm_line_part *parts;
    int count, end = 0;
    pm_line_cut(&rules, &line, &parts, &count);
    assert_in_range(count, 19, 30);
    for (int i = 0; i < count; i++) {
        assert_int_equal(parts[i].begin, end);
        assert_true(parts[i].end > parts[i].begin);
        assert_true(parts[i].end - parts[i].begin <= 160);
        assert_false(parts[i].has_space);
        end = parts[i].end;
    }
    assert_int_equal(end, 3000);
    free(parts);
    pm_image_free(&line);
    line = line_of(50, 1, 1, word + 2, 255, 0);
    pm_line_cut(&narrow, &line, &parts, &count);
    assert_in_range(count, 25, 50);
    free(parts);
    pm_image_free(&line);
}

/* Whatever comes: parts cover the line and fit. */
static void test_any_picture(void **state)
{
    (void)state;
    uint64_t seed = 4;
    for (int i = 0; i < 60; i++) {
        struct pm_image line =
            pm_tiny_picture(&seed, pm_tiny_between(&seed, 1, 4000), pm_tiny_between(&seed, 1, 90));
        struct pm_line_part *parts;
        int count, end = 0;
        pm_line_cut(&rules, &line, &parts, &count);
        for (int k = 0; k < count; k++) {
            struct pm_image out;
            assert_int_equal(parts[k].begin, end);
            assert_true(parts[k].end > parts[k].begin);
            end = parts[k].end;
            assert_int_equal(pm_line_make(&rules, &line, &parts[k], &out, NULL), 0);
            assert_int_equal(out.height_px, 32);
            assert_in_range(out.width_px, 16, 256);
            assert_int_equal(out.width_px % 16, 0);
            pm_image_free(&out);
        }
        assert_int_equal(end, line.width_px);
        free(parts);
        pm_image_free(&line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_width),
        cmocka_unit_test(test_short_lines_stay_whole),
        cmocka_unit_test(test_long_lines_are_cut_between_words),
        cmocka_unit_test(test_endless_words),
        cmocka_unit_test(test_any_picture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
