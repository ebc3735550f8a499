/* Greedy CTC decoding and the character list (ctc.h). */
#include "engine/ppocr/ctc.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define BLANK 0

/* ---- character list ---- */

static size_t count_lines(const char *data, size_t bytes)
{
    size_t lines = 0;
    for (size_t i = 0; i < bytes; i++)
        lines += data[i] == '\n';
    return lines + (bytes > 0 && data[bytes - 1] != '\n');
}

int pm_charset_parse(const char *data, size_t bytes, int expected_count, struct pm_charset *out,
                     struct pm_error *err)
{
    *out = (struct pm_charset){0};
    size_t lines = count_lines(data, bytes);
    if (lines == 0 || lines > INT32_MAX)
        return pm_fail(err, PM_EFORMAT, "character list: %zu lines", lines);
    if (expected_count > 0 && lines != (size_t)expected_count)
        return pm_fail(err, PM_EFORMAT, "character list: %zu lines where the network has %d classes", lines,
                       expected_count);
    void *text = NULL, *entries = NULL;
    int rc = pm_alloc_array(bytes + 1, 1, &text, err);
    if (rc == 0)
        rc = pm_alloc_array(lines, sizeof(char *), &entries, err);
    if (rc) {
        free(text);
        return rc;
    }
    *out = (struct pm_charset){text, entries, (int)lines};
    memcpy(out->bytes, data, bytes);
    out->bytes[bytes] = 0;
    char *at = out->bytes, *const end = out->bytes + bytes;
    for (size_t i = 0; i < lines; i++) {
        char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((stop ? stop : end) - at);
        if (length == 0 || !pm_utf8_is_text(at, length)) {
            pm_charset_free(out);
            return pm_fail(err, PM_EFORMAT, "character list, line %zu: %s", i + 1,
                           length == 0 ? "empty" : "not UTF-8 text");
        }
        out->entries[i] = at;
        at[length] = 0;
        at += length + 1;
    }
    return 0;
}

void pm_charset_free(struct pm_charset *charset)
{
    free(charset->bytes);
    free(charset->entries);
    *charset = (struct pm_charset){0};
}

/* ---- decoding ---- */

/* The first character of valid UTF-8. */
static uint32_t first_code_point(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    if (p[0] < 0x80)
        return p[0];
    if (p[0] < 0xe0)
        return (uint32_t)(p[0] & 0x1f) << 6 | (p[1] & 0x3f);
    if (p[0] < 0xf0)
        return (uint32_t)(p[0] & 0x0f) << 12 | (uint32_t)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
    return (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3f) << 12 | (uint32_t)(p[2] & 0x3f) << 6 |
           (p[3] & 0x3f);
}

/* White space of Unicode, and the four information separators. */
static bool is_space(const char *entry)
{
    uint32_t c = first_code_point(entry);
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

/* Round half to even at the fifth decimal, as the reference does for each character and for the mean. A float
 * times 100000 is exact in a double. */
static double five_decimals(double v)
{
    return rint(v * 1e5) / 1e5;
}

/* Kept steps: not blank, and another class than the step before. */
static int keep_steps(const struct pm_ctc_step *steps, int step_count, const struct pm_charset *charset,
                      struct pm_ctc_line *out, struct pm_error *err)
{
    void *storage;
    int rc = pm_alloc_array(step_count > 0 ? (size_t)step_count : 1, sizeof *out->chars, &storage, err);
    if (rc)
        return rc;
    out->chars = storage;
    double sum = 0;
    for (int t = 0; t < step_count; t++) {
        int32_t index = steps[t].index;
        if (index < 0 || index >= charset->count)
            return pm_fail(err, PM_EINVAL, "CTC decoding: class %d at step %d, the list has %d", (int)index,
                           t, charset->count);
        if (index == BLANK || (t > 0 && index == steps[t - 1].index))
            continue;
        float probability = isfinite(steps[t].probability) ? steps[t].probability : 0;
        out->chars[out->char_count++] = (struct pm_ctc_char){index, t, probability};
        sum += five_decimals(probability);
        pm_buf_text(&out->text, charset->entries[index]);
    }
    if (out->char_count > 0)
        out->confidence = (float)five_decimals(sum / (double)out->char_count);
    return 0;
}

/* Mean distance of neighbouring characters inside words, in steps; 0 when no word has two. */
static float mean_pitch(const struct pm_ctc_line *line, const struct pm_charset *charset)
{
    int columns = 0, gaps = 0;
    for (size_t i = 1; i < line->char_count; i++) {
        const struct pm_ctc_char *c = &line->chars[i];
        if (is_space(charset->entries[c->index]) || is_space(charset->entries[c[-1].index]))
            continue;
        columns += c->column - c[-1].column;
        gaps++;
    }
    return gaps ? (float)columns / (float)gaps : 0;
}

/* Extent of characters [from, to) in steps: half a pitch beyond the outer centres, and at most half way to
 * the neighbours (spaces are kept steps too, with a column of their own). */
static void set_extent(const struct pm_ctc_line *line, size_t from, size_t to, float pitch, int step_count,
                       struct pm_reader_word *word)
{
    const struct pm_ctc_char *first = &line->chars[from], *last = &line->chars[to - 1];
    if (to - from > 1)
        pitch = (float)(last->column - first->column) / (float)(to - from - 1);
    if (!(pitch >= 1))
        pitch = 1;
    float left = (float)first->column + 0.5f - pitch / 2, right = (float)last->column + 0.5f + pitch / 2;
    float low = from > 0 ? (float)(first[-1].column + first->column + 1) / 2 : 0;
    float high = to < line->char_count ? (float)(last->column + last[1].column + 1) / 2 : (float)step_count;
    word->left = (left < low ? low : left) / (float)step_count;
    word->right = (right > high ? high : right) / (float)step_count;
}

static int split_words(const struct pm_charset *charset, int step_count, struct pm_ctc_line *line,
                       struct pm_error *err)
{
    void *storage;
    int rc = pm_alloc_array(line->char_count + 1, sizeof *line->words, &storage, err);
    if (rc)
        return rc;
    line->words = storage;
    float pitch = mean_pitch(line, charset);
    uint32_t bytes = 0; /* of the text before character i */
    for (size_t i = 0; i < line->char_count;) {
        const char *entry = charset->entries[line->chars[i].index];
        if (is_space(entry)) {
            bytes += (uint32_t)strlen(entry);
            i++;
            continue;
        }
        struct pm_reader_word word = {.start = bytes};
        size_t from = i;
        double sum = 0;
        for (; i < line->char_count; i++) {
            entry = charset->entries[line->chars[i].index];
            if (is_space(entry))
                break;
            sum += line->chars[i].probability;
            bytes += (uint32_t)strlen(entry);
        }
        word.end = bytes;
        word.confidence = (float)(sum / (double)(i - from));
        set_extent(line, from, i, pitch, step_count, &word);
        line->words[line->word_count++] = word;
    }
    return 0;
}

int pm_ctc_decode(const struct pm_ctc_step *steps, int step_count, const struct pm_charset *charset,
                  struct pm_ctc_line *out, struct pm_error *err)
{
    *out = (struct pm_ctc_line){0};
    if (step_count < 0)
        return pm_fail(err, PM_EINVAL, "CTC decoding of %d steps", step_count);
    pm_buf_text(&out->text, "");
    int rc = keep_steps(steps, step_count, charset, out, err);
    if (rc == 0)
        rc = split_words(charset, step_count, out, err);
    if (rc)
        pm_ctc_line_free(out);
    return rc;
}

void pm_ctc_line_free(struct pm_ctc_line *line)
{
    pm_buf_free(&line->text);
    free(line->chars);
    free(line->words);
    *line = (struct pm_ctc_line){0};
}
