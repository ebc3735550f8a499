#include "layoutd/aligned.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

#define GUTTER    0.9f /* em: white between two columns, all rows taken together */
#define LABEL     2.2f /* em: a first column narrower than this holds marks or numbers of a list */
#define MIN_FULL  3u   /* rows with two pieces or more */
#define MAX_PITCH 2.2f /* of the page's pitch: rows further apart are no neighbours */

struct white {
    float left, right;
};

static const struct pm_line *piece(const struct pm_lines *lines, const struct pm_layout_line *sequence,
                                   const struct pm_text_row *row, uint32_t k)
{
    return &lines->items[sequence[row->first + k].line];
}

/* Narrows the whites to what this row leaves white too; whites outside the row's ink stay as they are. */
static uint32_t narrow(const struct pm_lines *lines, const struct pm_layout_line *sequence,
                       const struct pm_text_row *row, struct white *whites, uint32_t count, float least)
{
    for (uint32_t k = 0; k < row->count; k++) {
        const struct pm_rect *b = &piece(lines, sequence, row, k)->box;
        uint32_t kept = 0;
        for (uint32_t i = 0; i < count; i++) {
            struct white w = whites[i];
            if (b->left <= w.left)
                w.left = fmaxf(w.left, b->right);
            else if (b->right >= w.right)
                w.right = fminf(w.right, b->left);
            else
                w.right = w.left; /* ink in the middle of it */
            if (w.right - w.left >= least)
                whites[kept++] = w;
        }
        count = kept;
    }
    return count;
}

static bool is_code(const struct pm_lines *lines, const struct pm_layout_line *sequence,
                    const struct pm_text_row *row)
{
    return piece(lines, sequence, row, 0)->is_mono;
}

/* The longest run that begins at row `from`. */
static bool run_from(const struct pm_lines *lines, const struct pm_layout_line *sequence,
                     const struct pm_text_row *rows, uint32_t count, uint32_t from,
                     const struct pm_type *type, struct pm_aligned *out)
{
    struct white whites[PM_ALIGNED_MAX_COLUMNS - 1], tried[PM_ALIGNED_MAX_COLUMNS - 1];
    uint32_t n = 0, full = 0, code = 0, last_full = from;
    const struct pm_text_row *first = &rows[from];
    if (first->count < 2 || first->count > PM_ALIGNED_MAX_COLUMNS)
        return false;
    for (uint32_t k = 0; k + 1 < first->count; k++) {
        struct white w = {piece(lines, sequence, first, k)->box.right,
                          piece(lines, sequence, first, k + 1)->box.left};
        if (w.right - w.left >= GUTTER * type->size)
            whites[n++] = w;
    }
    for (uint32_t i = from; i < count && n; i++) {
        const struct pm_text_row *r = &rows[i];
        if (i > from && (r->baseline - rows[i - 1].baseline > MAX_PITCH * type->pitch || r->follows_rule ||
                         r->size > 1.25f * type->size))
            break;
        for (uint32_t k = 0; k < n; k++)
            tried[k] = whites[k];
        uint32_t left = narrow(lines, sequence, r, tried, n, GUTTER * type->size);
        if (!left)
            break;
        n = left;
        for (uint32_t k = 0; k < n; k++)
            whites[k] = tried[k];
        full += r->count >= 2;
        code += is_code(lines, sequence, r);
        if (r->count >= 2)
            last_full = i;
        if (i > last_full + 2)
            break;
    }
    uint32_t all = last_full + 1 - from;
    if (!n || full < MIN_FULL || full * 4 < all * 3 || code * 2 > all)
        return false;
    float left = INFINITY; /* the first column's ink */
    for (uint32_t i = from; i <= last_full; i++)
        left = fminf(left, rows[i].box.left);
    if (whites[0].left - left < LABEL * type->size)
        return false;
    *out = (struct pm_aligned){.from = from, .to = last_full + 1, .columns = n + 1};
    for (uint32_t k = 0; k < n; k++)
        out->borders[k] = 0.5f * (whites[k].left + whites[k].right);
    return true;
}

bool pm_aligned_find(const struct pm_lines *lines, const struct pm_layout_line *sequence,
                     const struct pm_text_row *rows, uint32_t count, uint32_t from,
                     const struct pm_type *type, struct pm_aligned *out)
{
    for (; from < count; from++)
        if (run_from(lines, sequence, rows, count, from, type, out))
            return true;
    return false;
}

struct pm_table pm_aligned_table(const struct pm_aligned *run, const struct pm_text_row *rows,
                                 const struct pm_layout_line *sequence, uint32_t index,
                                 struct pm_lines *lines)
{
    uint32_t count = run->to - run->from;
    struct pm_table t = {.box = rows[run->from].box, .rows = count, .columns = run->columns};
    for (uint32_t i = run->from; i < run->to; i++)
        t.box = pm_rect_join(t.box, rows[i].box);
    t.cells = pm_xalloc(sizeof *t.cells * count * run->columns);
    for (uint32_t r = 0; r < count; r++) {
        const struct pm_text_row *row = &rows[run->from + r];
        float top = r ? 0.5f * (row[-1].box.bottom + row->box.top) : t.box.top;
        float bottom = r + 1 < count ? 0.5f * (row->box.bottom + row[1].box.top) : t.box.bottom;
        for (uint32_t c = 0; c < run->columns; c++)
            t.cells[t.cell_count++] =
                (struct pm_page_cell){r,
                                      c,
                                      1,
                                      1,
                                      {c ? run->borders[c - 1] : t.box.left, top,
                                       c + 1 < run->columns ? run->borders[c] : t.box.right, bottom}};
        for (uint32_t k = 0; k < row->count; k++) {
            struct pm_line *l = &lines->items[sequence[row->first + k].line];
            uint32_t c = 0;
            while (c + 1 < run->columns && pm_rect_middle_x(&l->box) > run->borders[c])
                c++;
            l->table = (int)index;
            l->cell = (int)(r * run->columns + c);
        }
    }
    return t;
}
