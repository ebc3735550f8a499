/* Word spaces against the ink, on drawn lines: bars for letters, the network's reading as its steps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/ppocr/spacing.h"
#include "tests/unit/ppocr/random.h"

enum { BLANK, A, DOT, ASKS, SPACE, CLASSES, HEIGHT = 48, STEPS_MAX = 160 };
static const char list[] = "<blank>\na\n.\n?\n \n";

struct drawn {
    struct pm_charset charset;
    struct pm_image image;
    struct pm_ctc_step steps[STEPS_MAX];
    int step_count, x, ink, paper;
};

static void begin(struct drawn *d, int ink, int paper)
{
    memset(d, 0, sizeof *d);
    assert_int_equal(pm_charset_parse(list, strlen(list), CLASSES, &d->charset, NULL), 0);
    assert_int_equal(pm_image_alloc(STEPS_MAX * PM_SPACING_STEP_PX, HEIGHT, 1, &d->image, NULL), 0);
    memset(d->image.owned, paper, d->image.stride_bytes * HEIGHT);
    d->ink = ink;
    d->paper = paper;
    d->x = 8;
    for (int t = 0; t < STEPS_MAX; t++)
        d->steps[t] = (struct pm_ctc_step){BLANK, 1};
    d->step_count = STEPS_MAX;
}

static void end(struct drawn *d)
{
    pm_image_free(&d->image);
    pm_charset_free(&d->charset);
}

/* A character of that width after a gap. certainty: of the space before it, 0 for none. */
static void put(struct drawn *d, int index, int gap, int width, float certainty)
{
    int from = d->x / PM_SPACING_STEP_PX, left = d->x + gap;
    d->x = left + width;
    for (int y = 16; y < 36; y++)
        for (int x = left; x < d->x; x++)
            d->image.owned[(size_t)y * d->image.stride_bytes + (size_t)x] = (uint8_t)d->ink;
    int t = (left + width / 2) / PM_SPACING_STEP_PX;
    assert_true(t < STEPS_MAX);
    d->steps[t] = (struct pm_ctc_step){index, 0.99f};
    if (certainty > 0) {
        int space = (left - gap / 2) / PM_SPACING_STEP_PX;
        if (space == t)
            space--;
        assert_true(space >= from - 1);
        d->steps[space] = (struct pm_ctc_step){SPACE, certainty};
    }
}

/* Words of proportional letters: widths differ, gaps of 2, spaces of 12. */
static void put_words(struct drawn *d, int words)
{
    static const int widths[] = {14, 9, 17, 12};
    for (int w = 0; w < words; w++)
        for (int i = 0; i < 4; i++)
            put(d, i % 2 ? A : ASKS, i ? 2 : 12, widths[i], i || d->x == 8 ? 0 : 0.9999f);
}

static int revise(struct drawn *d, char *text, size_t size)
{
    struct pm_ctc_line line;
    int changes = -1;
    assert_int_equal(pm_ctc_decode(d->steps, d->step_count, &d->charset, &line, NULL), 0);
    assert_int_equal(
        pm_spacing_revise(&d->image, &d->charset, &line, d->steps, d->step_count, &changes, NULL), 0);
    pm_ctc_line_free(&line);
    assert_int_equal(pm_ctc_decode(d->steps, d->step_count, &d->charset, &line, NULL), 0);
    assert_true(line.text.size < size);
    memcpy(text, line.text.data, line.text.size);
    text[line.text.size] = 0;
    pm_ctc_line_free(&line);
    return changes;
}

#define WORDS "?a?a ?a?a ?a?a ?a?a"

/* A monospaced word among others, its gaps between letters and spaces: the space in it was never there. */
static void narrow_spaces_go(struct drawn *d)
{
    char text[200];
    put_words(d, 4);
    put(d, A, 12, 11, 0.9999f);
    for (int i = 0; i < 5; i++)
        put(d, i % 2 ? A : ASKS, 7, 11, i == 2 ? 0.8f : 0);
    assert_int_equal(revise(d, text, sizeof text), 1);
    assert_string_equal(text, WORDS " a?a?a?");
}

static void narrow_spaces_go_dark_on_bright(void **state)
{
    (void)state;
    struct drawn d;
    begin(&d, 20, 240);
    narrow_spaces_go(&d);
    end(&d);
}

static void narrow_spaces_go_bright_on_dark(void **state)
{
    (void)state;
    struct drawn d;
    begin(&d, 220, 30);
    narrow_spaces_go(&d);
    end(&d);
}

/* Light that falls off to the right, noise, and letters of little contrast. */
static void narrow_spaces_go_on_bad_paper(void **state)
{
    (void)state;
    struct drawn d;
    begin(&d, 100, 230);
    narrow_spaces_go(&d);
    end(&d);
    begin(&d, 100, 230);
    struct pm_image *im = &d.image;
    put_words(&d, 4);
    put(&d, A, 12, 11, 0.9999f);
    for (int i = 0; i < 5; i++)
        put(&d, i % 2 ? A : ASKS, 7, 11, i == 2 ? 0.8f : 0);
    uint64_t seed = 5;
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < im->width_px; x++) {
            uint8_t *p = im->owned + (size_t)y * im->stride_bytes + (size_t)x;
            *p = (uint8_t)(*p - *p * x / (3 * im->width_px) + random_int(&seed, -8, 8));
        }
    char text[200];
    assert_int_equal(revise(&d, text, sizeof text), 1);
    assert_string_equal(text, WORDS " a?a?a?");
    end(&d);
}

/* "3. 4 .1" in cells of 24: all gaps beside dots are as wide as a space. */
static void points_at_the_pitch_lose_their_spaces(void **state)
{
    (void)state;
    struct drawn d;
    char text[200];
    begin(&d, 20, 240);
    put_words(&d, 4);
    put(&d, A, 14, 12, 0.9999f);
    put(&d, DOT, 10, 4, 0);
    put(&d, A, 10, 12, 0.8f);
    put(&d, DOT, 10, 4, 0.85f);
    put(&d, A, 10, 12, 0);
    put_words(&d, 1);
    assert_int_equal(revise(&d, text, sizeof text), 2);
    assert_string_equal(text, WORDS " a.a.a ?a?a");
    end(&d);
}

/* The same gap where letters stand close is a space, however doubtful; a sure space is never touched. */
static void spaces_stay(void **state)
{
    (void)state;
    struct drawn d;
    char text[200];
    begin(&d, 20, 240);
    put_words(&d, 4);
    put(&d, A, 12, 11, 0.9999f);
    put(&d, ASKS, 2, 17, 0);
    put(&d, A, 7, 14, 0.6f);
    put(&d, ASKS, 2, 9, 0);
    put_words(&d, 1);
    assert_int_equal(revise(&d, text, sizeof text), 0);
    assert_string_equal(text, WORDS " a? a? ?a?a");
    end(&d);
    begin(&d, 20, 240);
    put_words(&d, 4);
    put(&d, A, 12, 11, 0.9999f);
    for (int i = 0; i < 5; i++)
        put(&d, i % 2 ? A : ASKS, 7, 11, i == 2 ? 0.999f : 0);
    assert_int_equal(revise(&d, text, sizeof text), 0);
    assert_string_equal(text, WORDS " a?a ?a?");
    end(&d);
    begin(&d, 20, 240); /* nor one after a comma or a question mark */
    put_words(&d, 4);
    put(&d, A, 12, 11, 0.9999f);
    for (int i = 0; i < 5; i++)
        put(&d, i % 2 ? A : ASKS, 7, 11, i == 3 ? 0.8f : 0);
    assert_int_equal(revise(&d, text, sizeof text), 0);
    assert_string_equal(text, WORDS " a?a? a?");
    end(&d);
}

static void missed_spaces_come(void **state)
{
    (void)state;
    char text[200];
    for (int doubt = 0; doubt < 2; doubt++) {
        struct drawn d;
        begin(&d, 20, 240);
        put_words(&d, 4);
        int t = (d.x + 10) / PM_SPACING_STEP_PX;
        put(&d, ASKS, 20, 9, 0);
        d.steps[t] = (struct pm_ctc_step){BLANK, doubt ? 0.55f : 0.99f};
        assert_int_equal(revise(&d, text, sizeof text), doubt);
        assert_string_equal(text, doubt ? WORDS " ?" : WORDS "?");
        end(&d);
    }
    struct drawn d; /* but never before a full stop */
    begin(&d, 20, 240);
    put_words(&d, 4);
    int t = (d.x + 10) / PM_SPACING_STEP_PX;
    put(&d, DOT, 20, 4, 0);
    d.steps[t] = (struct pm_ctc_step){BLANK, 0.55f};
    assert_int_equal(revise(&d, text, sizeof text), 0);
    assert_string_equal(text, WORDS ".");
    end(&d);
}

/* Any steps on any picture: nothing but spaces changes. */
static void characters_never_change(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int round = 0; round < 300; round++) {
        struct pm_charset charset;
        struct pm_image im;
        assert_int_equal(pm_charset_parse(list, strlen(list), CLASSES, &charset, NULL), 0);
        int steps_count = 1 + round % 60;
        assert_int_equal(
            pm_image_alloc(1 + steps_count * 8 - round % 8, HEIGHT, round % 2 ? 1 : 3, &im, NULL), 0);
        for (size_t i = 0; i < im.stride_bytes * HEIGHT; i++) {
            im.owned[i] = (uint8_t)((i / 24) % 3 ? 250 - random_int(&seed, 0, 8) : random_int(&seed, 0, 256));
        }
        struct pm_ctc_step steps[60];
        for (int t = 0; t < steps_count; t++) {
            steps[t] = (struct pm_ctc_step){random_int(&seed, 0, CLASSES), (float)random_unit(&seed)};
        }
        struct pm_ctc_line before, after;
        int changes;
        assert_int_equal(pm_ctc_decode(steps, steps_count, &charset, &before, NULL), 0);
        assert_int_equal(pm_spacing_revise(&im, &charset, &before, steps, steps_count, &changes, NULL), 0);
        assert_int_equal(pm_ctc_decode(steps, steps_count, &charset, &after, NULL), 0);
        size_t a = 0, b = 0;
        for (;;) {
            while (a < before.char_count && before.chars[a].index == SPACE)
                a++;
            while (b < after.char_count && after.chars[b].index == SPACE)
                b++;
            if (a == before.char_count || b == after.char_count)
                break;
            assert_int_equal(before.chars[a].index, after.chars[b].index);
            assert_int_equal(before.chars[a++].column, after.chars[b++].column);
        }
        assert_int_equal(a, before.char_count);
        assert_int_equal(b, after.char_count);
        pm_ctc_line_free(&before);
        pm_ctc_line_free(&after);
        pm_image_free(&im);
        pm_charset_free(&charset);
    }
}

static void bad_pictures_are_refused(void **state)
{
    (void)state;
    struct drawn d;
    begin(&d, 20, 240);
    put_words(&d, 2);
    struct pm_ctc_line line;
    int changes = 1;
    assert_int_equal(pm_ctc_decode(d.steps, d.step_count, &d.charset, &line, NULL), 0);
    struct pm_image none = {0};
    assert_int_equal(pm_spacing_revise(&none, &d.charset, &line, d.steps, d.step_count, &changes, NULL),
                     PM_EINVAL);
    assert_int_equal(changes, 0);
    pm_ctc_line_free(&line);
    end(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(narrow_spaces_go_dark_on_bright),
        cmocka_unit_test(narrow_spaces_go_bright_on_dark),
        cmocka_unit_test(narrow_spaces_go_on_bad_paper),
        cmocka_unit_test(points_at_the_pitch_lose_their_spaces),
        cmocka_unit_test(spaces_stay),
        cmocka_unit_test(missed_spaces_come),
        cmocka_unit_test(characters_never_change),
        cmocka_unit_test(bad_pictures_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
