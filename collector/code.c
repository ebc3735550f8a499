#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "collector/regions.h"
#include "collector/text.h"

#define WIDEST_INDENT 120

static int by_float(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

/* Width of a character of this block: code is set in one width, so the median over its longer pieces is
 * better than the mean, which short pieces with their margins spoil. */
static float character_px(const struct pm_row *rows, uint32_t count)
{
    size_t pieces = 0, n = 0;
    for (uint32_t i = 0; i < count; i++)
        pieces += rows[i].piece_count;
    float *v = pm_xalloc((pieces + 1) * sizeof *v);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t p = 0; p < rows[i].piece_count; p++) {
            const struct pm_row_piece *piece = &rows[i].pieces[p];
            size_t characters = 0, length;
            for (size_t at = 0; at < piece->bytes; at += length) {
                pm_text_point(piece->text, piece->bytes, at, &length);
                characters++;
            }
            if (characters >= 6)
                v[n++] = (piece->right - piece->left) / (float)characters;
        }
    }
    qsort(v, n, sizeof *v, by_float);
    float px = n ? v[n / 2] : pm_rows_character_px(rows, count);
    free(v);
    return px > 1 ? px : 1;
}

static void blanks(struct pm_buf *out, long count)
{
    for (long i = 0; i < count && i < WIDEST_INDENT; i++)
        pm_buf_append(out, " ", 1);
}

static size_t longest_fence(const struct pm_row *rows, uint32_t count)
{
    size_t longest = 2;
    for (uint32_t i = 0; i < count; i++) {
        size_t run = 0;
        for (size_t b = 0; b < rows[i].bytes; b++) {
            run = rows[i].text[b] == '`' ? run + 1 : 0;
            longest = run > longest ? run : longest;
        }
    }
    return longest + 1;
}

static void fence(struct pm_buf *out, size_t length)
{
    while (length--)
        pm_buf_append(out, "`", 1);
}

/* A piece's text; blanks between words that stand clearly further apart than one character are kept. */
static void put_piece(struct pm_buf *out, const struct pm_row_piece *piece, float px)
{
    const struct pm_region_text *read = piece->read;
    const char *code, *why;
    if (pm_read_failed(read, &code, &why) || read->word_count < 2 || !read->text) {
        pm_buf_append(out, piece->text, piece->bytes);
        return;
    }
    size_t size = strlen(read->text), at = 0;
    struct pm_buf word = {0};
    for (uint32_t w = 0; w < read->word_count; w++) {
        size_t end = w + 1 < read->word_count ? read->words[w + 1].start : size;
        if (end > size || end < at) /* words that overlap or run out of the text: take it as it is */
            end = size;
        word.size = 0;
        pm_text_clean(&word, read->text + at, end - at);
        if (w > 0 && word.size) {
            float gap = (read->words[w].left - read->words[w - 1].right) * piece->crop_px / px;
            long wide = gap > 2.6f && gap < WIDEST_INDENT ? lroundf(gap) : 1;
            bool is_apart = at > 0 && read->text[at - 1] == ' ';
            blanks(out, is_apart ? wide : 0);
        }
        pm_buf_append(out, word.data, word.size);
        at = end;
    }
    pm_buf_free(&word);
}

void pm_code_format(struct pm_buf *out, const struct pm_row *rows, uint32_t count)
{
    if (!count)
        return;
    float px = character_px(rows, count), pitch = pm_rows_pitch(rows, count), left = rows[0].left;
    for (uint32_t i = 1; i < count; i++)
        left = rows[i].left < left ? rows[i].left : left;
    size_t ticks = longest_fence(rows, count);
    fence(out, ticks);
    pm_buf_append(out, "\n", 1);
    for (uint32_t i = 0; i < count; i++) {
        const struct pm_row *row = &rows[i];
        if (i > 0 && pitch > 0) {
            float d = (row->top + row->bottom - rows[i - 1].top - rows[i - 1].bottom) / 2;
            if (d > 1.6f * pitch)
                pm_buf_append(out, "\n", 1);
        }
        float indent = (row->left - left) / px;
        blanks(out, indent < WIDEST_INDENT ? lroundf(indent) : WIDEST_INDENT);
        for (uint32_t p = 0; p < row->piece_count; p++) {
            if (p > 0) {
                float gap = (row->pieces[p].left - row->pieces[p - 1].right) / px;
                blanks(out, gap > 1 && gap < WIDEST_INDENT ? lroundf(gap) : 1);
            }
            put_piece(out, &row->pieces[p], px);
        }
        pm_buf_append(out, "\n", 1);
    }
    fence(out, ticks);
}
