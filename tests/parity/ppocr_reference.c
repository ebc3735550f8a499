#include "tests/parity/ppocr_reference.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define ROW_GAP_PX 10
#define WORD_GAP   5

double reference_round5(double v)
{
    return rint(v * 1e5) / 1e5;
}

/* ---- sizes ---- */

int reference_side_32(int side, double ratio)
{
    return (int)rint((int)(side * ratio) / 32.0) * 32;
}

void reference_det_size(int width, int height, bool limit_is_max, int limit, int *width_out, int *height_out)
{
    int longer = width > height ? width : height, shorter = width < height ? width : height;
    double ratio = 1;
    if (limit_is_max && longer > limit)
        ratio = (double)limit / longer;
    else if (!limit_is_max && shorter < limit)
        ratio = (double)limit / shorter;
    *width_out = reference_side_32(width, ratio);
    *height_out = reference_side_32(height, ratio);
}

/* ---- order ---- */

/* Stable insertion: lists of a few hundred boxes that are nearly sorted. */
static void sort_by(struct pm_quad *quads, size_t count, bool by_x)
{
    for (size_t i = 1; i < count; i++) {
        struct pm_quad moved = quads[i];
        size_t at = i;
        for (; at > 0; at--) {
            const struct pm_quad *before = &quads[at - 1];
            if (!(by_x ? before->x[0] > moved.x[0] : before->y[0] > moved.y[0]))
                break;
            quads[at] = *before;
        }
        quads[at] = moved;
    }
}

void reference_sort_boxes(struct pm_quad *quads, size_t count)
{
    sort_by(quads, count, false);
    for (size_t start = 0; start < count;) {
        size_t end = start + 1;
        while (end < count && quads[end].y[0] - quads[end - 1].y[0] < ROW_GAP_PX)
            end++;
        sort_by(quads + start, end - start, true);
        start = end;
    }
}

/* ---- words ---- */

static uint32_t code_point(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    int more = p[0] < 0x80 ? 0 : p[0] < 0xe0 ? 1 : p[0] < 0xf0 ? 2 : 3;
    uint32_t c = more == 0 ? p[0] : p[0] & (0x3fu >> more);
    for (int i = 1; i <= more; i++)
        c = c << 6 | (p[i] & 0x3f);
    return c;
}

static bool is_white(uint32_t c)
{
    return c == 0x3000 || c == ' ' || c == 0xa0 || (c >= 0x2000 && c <= 0x200a) || (c >= 9 && c <= 13);
}

static bool is_cn(uint32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3000 && c <= 0x303f) || (c >= 0xff00 && c <= 0xffef);
}

void reference_split_words(const struct pm_ctc_line *line, const struct pm_charset *charset,
                           struct reference_words *out)
{
    *out = (struct reference_words){.chars = pm_xalloc((line->char_count + 1) * sizeof *out->chars),
                                    .words = pm_xalloc((line->char_count + 1) * sizeof *out->words)};
    size_t used = 0;
    struct reference_word word = {0};
    bool has_state = false, state = false;
    for (size_t i = 0; i < line->char_count; i++) {
        const struct pm_ctc_char *c = &line->chars[i];
        uint32_t point = code_point(charset->entries[c->index]);
        bool ends_before = is_white(point);
        if (!ends_before) {
            if (!has_state)
                state = is_cn(point);
            has_state = true;
            ends_before = state != is_cn(point) || (i > 0 && c->column - c[-1].column > WORD_GAP);
        }
        if (ends_before && word.count > 0) {
            word.is_cn = state;
            out->words[out->count++] = word;
            word.count = 0;
        }
        if (is_white(point))
            continue;
        state = is_cn(point);
        if (word.count == 0)
            word.first = used;
        out->chars[used++] = *c;
        word.count++;
    }
    if (word.count > 0) {
        word.is_cn = state;
        out->words[out->count++] = word;
    }
}

void reference_words_free(struct reference_words *words)
{
    free(words->chars);
    free(words->words);
    *words = (struct reference_words){0};
}

char *reference_word_text(const struct reference_words *words, size_t index, const struct pm_charset *charset)
{
    struct pm_buf text = {0};
    const struct reference_word *w = &words->words[index];
    for (size_t i = 0; i < w->count; i++)
        pm_buf_text(&text, charset->entries[words->chars[w->first + i].index]);
    return (char *)text.data;
}
