/* The character list and CTC decoding: edge cases, and invariants on random steps. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/fs.h"
#include "engine/ppocr/ctc.h"
#include "tests/unit/ppocr/random.h"

#define LENGTH(a) (sizeof(a) / sizeof(a)[0])

/* Classes: blank, a, b, c, e acute, a CJK character, the wide space, the space. */
enum { BLANK, A, B, C, E_ACUTE, CJK, WIDE_SPACE, SPACE, CLASSES };
static const char list[] = "<blank>\na\nb\nc\n\xc3\xa9\n\xe4\xb8\xad\n\xe3\x80\x80\n \n";

static void parse(struct pm_charset *out)
{
    assert_int_equal(pm_charset_parse(list, strlen(list), CLASSES, out, NULL), 0);
}

/* ---- character list ---- */

static void charset_has_its_lines(void **state)
{
    (void)state;
    struct pm_charset set;
    parse(&set);
    assert_int_equal(set.count, CLASSES);
    assert_string_equal(set.entries[BLANK], "<blank>");
    assert_string_equal(set.entries[CJK], "\xe4\xb8\xad");
    assert_string_equal(set.entries[SPACE], " ");
    pm_charset_free(&set);
    assert_null(set.entries);
    /* The last line may end without a line feed. */
    assert_int_equal(pm_charset_parse(list, strlen(list) - 1, 0, &set, NULL), 0);
    assert_int_equal(set.count, CLASSES);
    assert_string_equal(set.entries[SPACE], " ");
    pm_charset_free(&set);
}

static void charset_of_the_model_is_whole(void **state)
{
    (void)state;
    struct pm_buf text = {0};
    struct pm_charset set;
    assert_int_equal(pm_fs_read(PM_SOURCE_DIR "/models/ppocr/rec_characters.txt", 1 << 20, &text, NULL), 0);
    assert_int_equal(pm_charset_parse((char *)text.data, text.size, 18710, &set, NULL), 0);
    assert_string_equal(set.entries[18709], " ");
    assert_string_equal(set.entries[1749], "\xe3\x80\x80");
    pm_charset_free(&set);
    pm_buf_free(&text);
}

static void bad_charsets_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *data;
        size_t bytes;
        const char *says;
    } bad[] = {
        {"", 0, "0 lines"},
        {"a\n\nb\n", 5, "line 2: empty"},
        {"\n", 1, "line 1: empty"},
        {"a\n\xc3\n", 4, "line 2: not UTF-8"},        /* cut off */
        {"a\nb\n\xc0\xaf\n", 7, "line 3: not UTF-8"}, /* overlong */
        {"\xed\xa0\x80\n", 4, "line 1: not UTF-8"},   /* a surrogate */
        {"a\0b\nc\n", 6, "line 1: not UTF-8"},
    };
    for (size_t i = 0; i < LENGTH(bad); i++) {
        struct pm_charset set;
        struct pm_error err = {0};
        assert_int_equal(pm_charset_parse(bad[i].data, bad[i].bytes, 0, &set, &err), PM_EFORMAT);
        assert_non_null(strstr(err.text, bad[i].says));
        assert_null(set.bytes);
        assert_null(set.entries);
    }
    struct pm_charset set;
    struct pm_error err = {0};
    assert_int_equal(pm_charset_parse(list, strlen(list), CLASSES + 1, &set, &err), PM_EFORMAT);
    assert_non_null(strstr(err.text, "8 lines where the network has 9 classes"));
}

/* ---- decoding ---- */

static void decode(const struct pm_ctc_step *steps, int count, struct pm_ctc_line *line)
{
    struct pm_charset set;
    parse(&set);
    assert_int_equal(pm_ctc_decode(steps, count, &set, line, NULL), 0);
    pm_charset_free(&set);
}

static void repeats_and_blanks_collapse(void **state)
{
    (void)state;
    const struct pm_ctc_step steps[] = {{BLANK, 1}, {A, 0.5f},  {A, 0.9f}, {BLANK, 1}, {A, 0.75f},
                                        {B, 0.25f}, {BLANK, 1}, {B, 1},    {C, 1},     {A, 1}};
    struct pm_ctc_line line;
    decode(steps, LENGTH(steps), &line);
    assert_string_equal((char *)line.text.data, "aabbca");
    assert_int_equal(line.text.size, 6);
    const int columns[] = {1, 4, 5, 7, 8, 9};
    assert_int_equal(line.char_count, 6);
    for (int i = 0; i < 6; i++)
        assert_int_equal(line.chars[i].column, columns[i]);
    /* The first of a run counts, repeats and blanks do not. */
    assert_true(line.chars[0].probability == 0.5f);
    assert_true(fabsf(line.confidence - 0.75f) < 1e-6f);
    pm_ctc_line_free(&line);
}

static void confidence_is_rounded_like_the_reference(void **state)
{
    (void)state;
    /* 0.123456 -> 0.12346, 0.5 -> 0.5, 0.000004 -> 0: mean 0.2078199.. -> 0.20782 */
    const struct pm_ctc_step steps[] = {{A, 0.123456f}, {B, 0.5f}, {C, 0.000004f}};
    struct pm_ctc_line line;
    decode(steps, 3, &line);
    assert_true(line.confidence == 0.20782f);
    pm_ctc_line_free(&line);
    /* Exactly half a unit of the fifth decimal goes to the even one: 2^-17 * ... is not exact, 0.5 + 2^-6 is.
     */
    const struct pm_ctc_step half[] = {{A, 0.515625f}}; /* 0.51562|5 */
    decode(half, 1, &line);
    assert_true(line.confidence == 0.51562f);
    pm_ctc_line_free(&line);
}

static void nothing_kept_is_an_empty_line(void **state)
{
    (void)state;
    const struct pm_ctc_step blanks[] = {{BLANK, 1}, {BLANK, 0.3f}};
    for (int count = 0; count <= 2; count++) {
        struct pm_ctc_line line;
        decode(blanks, count, &line);
        assert_string_equal((char *)line.text.data, "");
        assert_int_equal(line.char_count, 0);
        assert_int_equal(line.word_count, 0);
        assert_true(line.confidence == 0);
        pm_ctc_line_free(&line);
    }
}

static void words_have_bytes_extent_and_confidence(void **state)
{
    (void)state;
    const struct pm_ctc_step steps[] = {{SPACE, 1}, {A, 0.8f},       {BLANK, 1}, {E_ACUTE, 0.6f},
                                        {BLANK, 1}, {SPACE, 1},      {BLANK, 1}, {CJK, 1},
                                        {BLANK, 1}, {WIDE_SPACE, 1}, {B, 0.5f},  {BLANK, 1}};
    struct pm_ctc_line line;
    decode(steps, LENGTH(steps), &line);
    assert_string_equal((char *)line.text.data, " a\xc3\xa9 \xe4\xb8\xad\xe3\x80\x80"
                                                "b");
    assert_int_equal(line.word_count, 3);
    const uint32_t starts[] = {1, 5, 11}, ends[] = {4, 8, 12};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(line.words[i].start, starts[i]);
        assert_int_equal(line.words[i].end, ends[i]);
    }
    assert_true(fabsf(line.words[0].confidence - 0.7f) < 1e-6f);
    /* "a" and e acute are two steps apart: half of that beyond their centres 1.5 and 3.5. The space before is
     * at column 0, half way to it is 1.0: the extent stops there. */
    assert_true(fabsf(line.words[0].left - 1.0f / 12) < 1e-6f);
    assert_true(fabsf(line.words[0].right - 4.5f / 12) < 1e-6f);
    /* The last word ends where the pitch says, not at the end of the line. */
    assert_true(fabsf(line.words[2].left - 10.0f / 12 - 0.0f) < 1e-6f);
    assert_true(fabsf(line.words[2].right - 11.5f / 12) < 1e-6f);
    pm_ctc_line_free(&line);
}

static void bad_steps_are_refused(void **state)
{
    (void)state;
    struct pm_charset set;
    parse(&set);
    struct pm_ctc_line line;
    struct pm_error err = {0};
    const struct pm_ctc_step high[] = {{A, 1}, {CLASSES, 1}}, low[] = {{-1, 1}};
    assert_int_equal(pm_ctc_decode(high, 2, &set, &line, &err), PM_EINVAL);
    assert_non_null(strstr(err.text, "class 8 at step 1"));
    assert_null(line.chars);
    assert_int_equal(pm_ctc_decode(low, 1, &set, &line, &err), PM_EINVAL);
    assert_int_equal(pm_ctc_decode(low, -1, &set, &line, &err), PM_EINVAL);
    /* Probabilities that are no numbers count as nothing, and do not spread. */
    const struct pm_ctc_step wild[] = {{A, NAN}, {B, INFINITY}, {C, 0.5f}};
    assert_int_equal(pm_ctc_decode(wild, 3, &set, &line, &err), 0);
    assert_true(fabsf(line.confidence - 0.16667f) < 1e-6f);
    pm_ctc_line_free(&line);
    pm_charset_free(&set);
}

static int is_space(int32_t index)
{
    return index == SPACE || index == WIDE_SPACE;
}

static void check_words(const struct pm_ctc_line *line, const struct pm_charset *set)
{
    size_t word = 0, bytes = 0;
    int inside = 0;
    for (size_t i = 0; i < line->char_count; i++) {
        size_t length = strlen(set->entries[line->chars[i].index]);
        assert_memory_equal(line->text.data + bytes, set->entries[line->chars[i].index], length);
        int space = is_space(line->chars[i].index);
        if (!space && !inside)
            assert_int_equal(line->words[word].start, bytes);
        if (space && inside)
            assert_int_equal(line->words[word++].end, bytes);
        inside = !space;
        bytes += length;
    }
    if (inside)
        assert_int_equal(line->words[word++].end, bytes);
    assert_int_equal(bytes, line->text.size);
    assert_int_equal(word, line->word_count);
    float before = 0;
    for (size_t i = 0; i < line->word_count; i++) {
        const struct pm_reader_word *w = &line->words[i];
        assert_true(w->left >= before - 1e-6f && w->left < w->right && w->right <= 1 + 1e-6f);
        assert_true(w->confidence >= 0 && w->confidence <= 1);
        before = w->right;
    }
}

static void random_lines_have_sound_words(void **state)
{
    (void)state;
    uint64_t seed = 9;
    struct pm_charset set;
    parse(&set);
    for (int round = 0; round < 5000; round++) {
        struct pm_ctc_step steps[80];
        int count = random_int(&seed, 0, 80), blanks = random_int(&seed, 0, 20);
        for (int i = 0; i < count; i++) {
            int index = random_int(&seed, -blanks, CLASSES);
            steps[i] = (struct pm_ctc_step){index < 0 ? BLANK : index, (float)random_unit(&seed)};
        }
        struct pm_ctc_line line;
        assert_int_equal(pm_ctc_decode(steps, count, &set, &line, NULL), 0);
        check_words(&line, &set);
        pm_ctc_line_free(&line);
    }
    pm_charset_free(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(charset_has_its_lines),
        cmocka_unit_test(charset_of_the_model_is_whole),
        cmocka_unit_test(bad_charsets_are_refused),
        cmocka_unit_test(repeats_and_blanks_collapse),
        cmocka_unit_test(confidence_is_rounded_like_the_reference),
        cmocka_unit_test(nothing_kept_is_an_empty_line),
        cmocka_unit_test(words_have_bytes_extent_and_confidence),
        cmocka_unit_test(bad_steps_are_refused),
        cmocka_unit_test(random_lines_have_sound_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
