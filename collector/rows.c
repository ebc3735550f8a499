#include "collector/rows.h"

#include <stdlib.h>
#include <string.h>

#include "collector/text.h"
#include "proto/sheet.h"

static float min4(float a, float b, float c, float d)
{
    float x = a < b ? a : b, y = c < d ? c : d;
    return x < y ? x : y;
}

static float max4(float a, float b, float c, float d)
{
    return -min4(-a, -b, -c, -d);
}

bool pm_read_failed(const struct pm_region_text *read, const char **code_out, const char **text_out)
{
    if (!read) {
        *code_out = "internal";
        *text_out = "no answer arrived for this crop";
        return true;
    }
    if (read->error_code && *read->error_code) {
        *code_out = read->error_code;
        *text_out = read->error_text && *read->error_text ? read->error_text : read->error_code;
        return true;
    }
    if (read->finish && !strcmp(read->finish, "error")) {
        *code_out = "internal";
        *text_out = "the reader gave up on this crop";
        return true;
    }
    return false;
}

static int by_place(const void *a, const void *b)
{
    const struct pm_crop_key *x = a, *y = b;
    if (x->region != y->region)
        return x->region < y->region ? -1 : 1;
    if (x->cell != y->cell)
        return x->cell < y->cell ? -1 : 1;
    if (x->row != y->row)
        return x->row < y->row ? -1 : 1;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

void pm_crop_index_make(const struct pm_page *page, const struct pm_region_text *const *reads,
                        struct pm_arena *arena, struct pm_crop_index *out)
{
    *out = (struct pm_crop_index){.page = page, .reads = reads};
    out->keys = pm_arena_alloc(arena, ((size_t)page->crop_count + 1) * sizeof *out->keys);
    for (uint32_t i = 0; i < page->crop_count; i++) {
        const struct pm_page_crop *c = &page->crops[i];
        const float *q = c->quad;
        if (c->task == PM_SHEET_PICTURE)
            continue;
        bool is_table = page->regions[c->region].label == PM_LABEL_TABLE;
        out->keys[out->count++] = (struct pm_crop_key){.region = c->region,
                                                       .cell = is_table ? c->cell : 0,
                                                       .row = c->row,
                                                       .left = min4(q[0], q[2], q[4], q[6]),
                                                       .index = i};
    }
    if (out->count)
        qsort(out->keys, out->count, sizeof *out->keys, by_place);
}

/* Crops are cut with a margin that varies from line to line; words stand where they stand. */
static void place_by_words(struct pm_row_piece *p)
{
    if (!p->read || !p->read->word_count)
        return;
    float first = p->read->words[0].left, last = p->read->words[p->read->word_count - 1].right;
    if (!(first >= 0 && first < last && last <= 1))
        return;
    p->right = p->left + last * p->crop_px;
    p->left += first * p->crop_px;
}

static void fill_piece(const struct pm_page_crop *crop, const struct pm_region_text *read,
                       struct pm_arena *arena, struct pm_row_piece *out)
{
    const float *q = crop->quad;
    out->crop = crop;
    out->read = read;
    out->left = min4(q[0], q[2], q[4], q[6]);
    out->right = max4(q[0], q[2], q[4], q[6]);
    out->crop_px = out->right - out->left;
    place_by_words(out);
    struct pm_buf text = {0};
    const char *code, *why;
    if (pm_read_failed(read, &code, &why)) {
        struct pm_buf mark = {0};
        pm_buf_printf(&mark, "[unreadable line: %s]", why);
        pm_text_clean(&text, (const char *)mark.data, mark.size);
        pm_buf_free(&mark);
    } else if (read->text) {
        pm_text_clean(&text, read->text, strlen(read->text));
    }
    out->text = pm_arena_text(arena, text.data ? (const char *)text.data : "", text.size);
    out->bytes = text.size;
    pm_buf_free(&text);
}

static int by_float(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static float median(float *values, size_t count)
{
    if (!count)
        return 0;
    qsort(values, count, sizeof *values, by_float);
    return values[count / 2];
}

/* Two pieces side by side: a blank, except that text without blanks between words goes on without one. */
static void append_piece(struct pm_buf *out, const struct pm_row_piece *previous,
                         const struct pm_row_piece *piece, float height)
{
    bool wide = pm_text_is_wide(pm_text_last(previous->text, previous->bytes)) &&
                pm_text_is_wide(pm_text_first(piece->text, piece->bytes));
    if (!wide || piece->left - previous->right > height)
        pm_buf_append(out, " ", 1);
    pm_buf_append(out, piece->text, piece->bytes);
}

static bool make_row(const struct pm_crop_index *index, const struct pm_crop_key *keys, uint32_t count,
                     struct pm_arena *arena, struct pm_row *out)
{
    *out = (struct pm_row){.pieces = pm_arena_alloc(arena, count * sizeof *out->pieces)};
    float *heights = pm_arena_alloc(arena, count * sizeof *heights);
    struct pm_buf text = {0};
    for (uint32_t i = 0; i < count; i++) {
        struct pm_row_piece piece, *p = &piece;
        const struct pm_page_crop *crop = &index->page->crops[keys[i].index];
        const float *q = crop->quad;
        const char *code, *why;
        fill_piece(crop, index->reads[keys[i].index], arena, p);
        if (!p->bytes)
            continue;
        float top = min4(q[1], q[3], q[5], q[7]), bottom = max4(q[1], q[3], q[5], q[7]);
        float height = p->crop->height_px > 0 ? p->crop->height_px : bottom - top;
        if (!out->piece_count) {
            *out = (struct pm_row){
                .left = p->left, .right = p->right, .top = top, .bottom = bottom, .pieces = out->pieces};
            pm_buf_append(&text, p->text, p->bytes);
        } else {
            append_piece(&text, &out->pieces[out->piece_count - 1], p, height);
            out->left = p->left < out->left ? p->left : out->left;
            out->right = p->right > out->right ? p->right : out->right;
            out->top = top < out->top ? top : out->top;
            out->bottom = bottom > out->bottom ? bottom : out->bottom;
        }
        out->is_failed |= pm_read_failed(p->read, &code, &why);
        heights[out->piece_count] = height;
        out->pieces[out->piece_count++] = *p;
    }
    out->text = pm_arena_text(arena, text.data ? (const char *)text.data : "", text.size);
    out->bytes = text.size;
    out->height = median(heights, out->piece_count);
    pm_buf_free(&text);
    return out->bytes > 0;
}

uint32_t pm_rows_collect(const struct pm_crop_index *index, uint32_t region, uint32_t cell,
                         struct pm_arena *arena, struct pm_row **rows_out)
{
    uint32_t low = 0, high = index->count;
    while (low < high) { /* the first key of (region, cell) */
        uint32_t middle = low + (high - low) / 2;
        const struct pm_crop_key *k = &index->keys[middle];
        if (k->region < region || (k->region == region && k->cell < cell))
            low = middle + 1;
        else
            high = middle;
    }
    const struct pm_crop_key *keys = index->keys + low;
    uint32_t n = 0;
    while (low + n < index->count && keys[n].region == region && keys[n].cell == cell)
        n++;
    struct pm_row *rows = pm_arena_alloc(arena, (n ? n : 1) * sizeof *rows);
    uint32_t used = 0;
    for (uint32_t from = 0, to; from < n; from = to) {
        for (to = from + 1; to < n && keys[to].row == keys[from].row; to++)
            ;
        used += make_row(index, keys + from, to - from, arena, &rows[used]);
    }
    *rows_out = rows;
    return used;
}

float pm_rows_median_height(const struct pm_row *rows, uint32_t count)
{
    float *v = pm_xalloc((count + 1) * sizeof *v);
    for (uint32_t i = 0; i < count; i++)
        v[i] = rows[i].height;
    float m = median(v, count);
    free(v);
    return m;
}

float pm_rows_pitch(const struct pm_row *rows, uint32_t count)
{
    if (count < 3)
        return 0;
    float *v = pm_xalloc(count * sizeof *v);
    for (uint32_t i = 1; i < count; i++)
        v[i - 1] = (rows[i].top + rows[i].bottom - rows[i - 1].top - rows[i - 1].bottom) / 2;
    qsort(v, count - 1, sizeof *v, by_float);
    float m = v[(count - 2) / 2]; /* the lower one: gaps are wider than the pitch, nothing is narrower */
    free(v);
    return m;
}

float pm_rows_character_px(const struct pm_row *rows, uint32_t count)
{
    double width = 0, characters = 0;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t p = 0; p < rows[i].piece_count; p++) {
            const struct pm_row_piece *piece = &rows[i].pieces[p];
            size_t blanks = 0;
            for (size_t b = 0; b < piece->bytes; b++)
                blanks += piece->text[b] == ' ';
            width += piece->right - piece->left;
            characters += (double)(pm_text_points(piece->text, piece->bytes) + blanks);
        }
    }
    return characters > 0 ? (float)(width / characters) : 0;
}
