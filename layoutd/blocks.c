#include "layoutd/blocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define INDENT    0.75f /* em: a difference of left edges that means something */
#define GAP       1.2f  /* of the usual pitch: a larger one parts paragraphs */
#define SIZE_STEP 1.15f /* ratio of type sizes that parts paragraphs and makes headings */
#define BOLD_STEP 1.28f /* ratio of stroke widths that makes bold */
#define WINDOW    8     /* rows looked at on either side for what is usual here */

struct weighed {
    float value, weight;
};

static int by_weighed(const void *a, const void *b)
{
    float x = ((const struct weighed *)a)->value, y = ((const struct weighed *)b)->value;
    return (x > y) - (x < y);
}

static float weighed_median(struct weighed *items, uint32_t n)
{
    float sum = 0, half = 0;
    qsort(items, n, sizeof *items, by_weighed);
    for (uint32_t i = 0; i < n; i++)
        sum += items[i].weight;
    for (uint32_t i = 0; i < n; i++)
        if ((half += items[i].weight) * 2 >= sum)
            return items[i].value;
    return 0;
}

static int by_baseline(const void *a, const void *b, void *context)
{
    const struct pm_line *lines = context;
    float x = lines[*(const uint32_t *)a].baseline, y = lines[*(const uint32_t *)b].baseline;
    return (x > y) - (x < y);
}

/* Distance from a line to the next one below it: the lower quartile, for gaps between paragraphs are many on
 * some pages. */
static float page_pitch(const struct pm_lines *lines, float fallback)
{
    uint32_t n = lines->count, *order = pm_xalloc(sizeof *order * (n + 1u));
    float *values = pm_xalloc(sizeof *values * (n + 1u));
    int count = 0;
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    qsort_r(order, n, sizeof *order, by_baseline, lines->items);
    for (uint32_t i = 0; i < n; i++) {
        const struct pm_line *a = &lines->items[order[i]];
        for (uint32_t k = i + 1; k < n && k < i + 40; k++) {
            const struct pm_line *b = &lines->items[order[k]];
            float d = b->baseline - a->baseline;
            if (d < 0.7f * a->size || pm_rect_overlap_x(&a->box, &b->box) <
                                          0.5f * fminf(pm_rect_width(&a->box), pm_rect_width(&b->box)))
                continue;
            if (d < 2.6f * a->size && fabsf(a->size - b->size) < 0.2f * a->size)
                values[count++] = d;
            break;
        }
    }
    float pitch = count >= 3 ? pm_quantile(values, count, 0.2f) : fallback;
    free(values);
    free(order);
    return pitch;
}

struct pm_type pm_type_of(const struct pm_lines *lines)
{
    struct pm_type t = {.height = 20, .size = 15, .x_height = 7, .pitch = 18};
    uint32_t n = lines->count;
    if (!n)
        return t;
    struct weighed *w = pm_xalloc(sizeof *w * n);
    float *targets[4] = {&t.height, &t.size, &t.x_height, &t.stroke};
    for (int what = 0; what < 4; what++) {
        for (uint32_t i = 0; i < n; i++) {
            const struct pm_line *l = &lines->items[i];
            const float values[4] = {l->height, l->size, l->x_height, l->stroke};
            w[i] = (struct weighed){values[what], pm_rect_width(&l->box) / l->height};
        }
        *targets[what] = weighed_median(w, n);
    }
    free(w);
    float mono = 0, all = 0;
    for (uint32_t i = 0; i < n; i++) {
        float width = pm_rect_width(&lines->items[i].box);
        mono += lines->items[i].is_mono ? width : 0;
        all += width;
    }
    t.is_mono = mono > 0.6f * all;
    t.pitch = page_pitch(lines, 1.25f * t.size);
    return t;
}

struct column {
    const struct pm_lines *lines;
    struct pm_layout *layout;
    struct pm_text_row *rows;
    uint32_t count;
    const struct pm_type *type;
};

static bool differs(float a, float b, float step)
{
    return a > b * step || b > a * step;
}

/* ---- what is usual around a row ---- */

/* The pitch of rows of this size near row i; never much more than the page's, lest a list of single lines
 * with space between be taken for a paragraph. */
static float local_pitch(const struct column *c, uint32_t i)
{
    float values[2 * WINDOW + 2];
    int n = 0;
    uint32_t from = i > WINDOW ? i - WINDOW : 0, to = i + WINDOW < c->count ? i + WINDOW : c->count - 1;
    for (uint32_t k = from; k < to; k++) {
        const struct pm_text_row *a = &c->rows[k], *b = &c->rows[k + 1];
        float d = b->baseline - a->baseline;
        if (differs(a->size, c->rows[i].size, 1.12f) || differs(b->size, c->rows[i].size, 1.12f) ||
            d < 0.8f * a->size || d > 2.2f * a->size)
            continue;
        values[n++] = d;
    }
    float page = c->type->pitch * fmaxf(0.8f, c->rows[i].size / c->type->size);
    float pitch = n >= 2 ? pm_quantile(values, n, 0.15f) : page;
    return fminf(pitch, 1.2f * page);
}

struct margin {
    float right;     /* that the rows around run to */
    float justified; /* share of them that reach it */
};

/* The right margin of the rows around row i that share its pitch and, roughly, its left edge. */
static struct margin local_margin(const struct column *c, uint32_t i, float pitch)
{
    const struct pm_text_row *rows = c->rows;
    float rights[2 * WINDOW + 1];
    int n = 0;
    rights[n++] = rows[i].box.right;
    for (int way = -1; way <= 1; way += 2)
        for (uint32_t k = 1, at = i; k <= WINDOW; k++) {
            uint32_t next = at + (uint32_t)way;
            if (next >= c->count || fabsf(rows[next].baseline - rows[at].baseline) > 1.5f * pitch ||
                fabsf(rows[next].box.left - rows[i].box.left) > 4 * rows[i].size)
                break;
            rights[n++] = rows[next].box.right;
            at = next;
        }
    struct margin m = {rights[0], 0};
    for (int k = 0; k < n; k++)
        m.right = fmaxf(m.right, rights[k]);
    for (int k = 0; k < n; k++)
        m.justified += rights[k] > m.right - 0.4f * rows[i].size;
    m.justified /= (float)n;
    return m;
}

/* Width of the first word of a row. */
static float first_word(const struct column *c, const struct pm_text_row *row)
{
    const struct pm_line *l = &c->lines->items[c->layout->lines[row->first].line];
    for (uint32_t i = 0; i < l->gap_count; i++)
        if (l->gaps[i].right - l->gaps[i].left > 0.2f * l->size && l->gaps[i].left > row->text_left)
            return l->gaps[i].left - row->text_left;
    return l->box.right - row->text_left;
}

/* Does something of row a (a gap's right end, a second piece) stand where row b begins? Then b hangs under
 * the text after a's label. */
static bool hangs_under(const struct column *c, const struct pm_text_row *a, const struct pm_text_row *b)
{
    float slack = 0.45f * a->size;
    if (a->has_bullet && fabsf(a->text_left - b->box.left) < 1.5f * slack)
        return true;
    for (uint32_t k = 0; k < a->count; k++) {
        const struct pm_line *l = &c->lines->items[c->layout->lines[a->first + k].line];
        if (k && fabsf(l->box.left - b->box.left) < slack)
            return true;
        for (uint32_t i = 0, words = 0; i < l->gap_count && words < 3; i++) {
            words += l->gaps[i].right - l->gaps[i].left > 0.2f * a->size;
            if (l->gaps[i].right - l->gaps[i].left > 0.2f * a->size &&
                fabsf(l->gaps[i].right - b->box.left) < slack)
                return true;
        }
    }
    return false;
}

/* Width of strokes over the page's usual one. */
static float weight_of(const struct pm_type *type, float stroke, float x_height)
{
    float usual = type->stroke * type->x_height;
    return usual > 0 ? stroke * x_height / usual : 1;
}

static bool is_bold(const struct column *c, const struct pm_text_row *r)
{
    return c->type->stroke > 0 && r->stroke > BOLD_STEP * c->type->stroke;
}

/* Larger than the page's type? The detector's heights are coarse, the x-height of few letters is not sure:
 * both must agree, or the weight must. Strokes that did not grow along mean that the x-height was taken for
 * more than it is (a raised figure, a box drawn too high). Returns the ratio, 0 for no. */
static float is_large(const struct pm_type *type, float x_height, float height, float stroke)
{
    if (stroke > 0 && stroke < 0.7f * type->stroke)
        return 0;
    float by_x = x_height / type->x_height, by_height = height / type->height;
    float weight = weight_of(type, stroke, x_height);
    bool agrees = by_height >= 1.12f || weight >= 1.28f;
    return by_x >= SIZE_STEP && agrees ? 0.5f * (by_x + fmaxf(by_height, 1)) : 0;
}

static bool is_large_row(const struct column *c, const struct pm_text_row *r)
{
    return is_large(c->type, r->x_height, r->height, r->stroke) > 0;
}

/* ---- code ---- */

static const struct pm_line *longest(const struct column *c, const struct pm_text_row *r)
{
    return &c->lines->items[r->longest];
}

/* Does row r, next to a code row, belong to the same code? Its characters stand on that grid; a row with too
 * few of them ("}", "i") begins on it, not left of the code. */
static bool shares_grid(const struct column *c, const struct pm_text_row *r, const struct pm_text_row *by,
                        float left)
{
    const struct pm_line *line = longest(c, r), *grid = longest(c, by);
    float pitch = grid->mono_pitch;
    if (r->count > 3 || pitch <= 0 || is_large_row(c, r))
        return false;
    for (uint32_t k = 1; k < r->count; k++) { /* parts with wide blanks between stand on the grid as well */
        float from = c->lines->items[c->layout->lines[r->first + k].line].box.left - by->box.left;
        if (fabsf(from / pitch - roundf(from / pitch)) > 0.3f)
            return false;
    }
    if (line->mark_count >= 3)
        return pm_line_fit(line, grid) > 0.55f;
    float shift = (r->box.left - by->box.left) / pitch;
    return fabsf(shift - roundf(shift)) < 0.3f && r->box.left > left - 0.3f * pitch &&
           pm_rect_width(&r->box) < 12 * pitch;
}

/* Code that begins in the middle of a paragraph is a line of it with many names. */
static bool continues_prose(const struct column *c, uint32_t from)
{
    if (!from || c->rows[from - 1].is_code)
        return false;
    const struct pm_text_row *a = &c->rows[from - 1], *b = &c->rows[from];
    float pitch = local_pitch(c, from);
    struct margin margin = local_margin(c, from - 1, pitch);
    return b->baseline - a->baseline < GAP * pitch && b->box.left < a->box.left + INDENT * a->size &&
           pm_rect_width(&a->box) > 15 * a->size && a->box.right > margin.right - first_word(c, b) - a->size;
}

/* A lone row on a grid that stands in a paragraph: the row above or below is prose at its left edge and at
 * the usual distance. */
static bool is_inside_prose(const struct column *c, uint32_t i)
{
    const struct pm_text_row *r = &c->rows[i];
    float pitch = local_pitch(c, i);
    for (int way = -1; way <= 1; way += 2) {
        uint32_t k = i + (uint32_t)way;
        if (k >= c->count || c->rows[k].has_bullet || is_large_row(c, &c->rows[k]))
            continue;
        const struct pm_text_row *by = &c->rows[k];
        if (fabsf(by->baseline - r->baseline) < GAP * pitch &&
            fabsf(by->box.left - r->box.left) < 0.4f * r->size &&
            !(way < 0 ? r->follows_rule : by->follows_rule) && longest(c, by)->mark_count >= 8)
            return true;
    }
    return false;
}

/* Settles which rows are code: sure ones, and their neighbours on the same grid. */
static void find_code(const struct column *c)
{
    struct pm_text_row *rows = c->rows;
    for (uint32_t i = 0; i < c->count; i++)
        if (c->type->is_mono || (rows[i].is_code && continues_prose(c, i)))
            rows[i].is_code = false;
    for (int way = 0; way < 2; way++) { /* downwards, then upwards */
        float left = INFINITY;
        for (uint32_t k = 0; k < c->count; k++) {
            struct pm_text_row *r = &rows[way ? c->count - 1 - k : k], *by = way ? r + 1 : r - 1;
            bool is_next = k && by->is_code;
            left = is_next ? left : INFINITY;
            if (!r->is_code && is_next && fabsf(r->baseline - by->baseline) < 1.45f * c->type->pitch &&
                shares_grid(c, r, by, left) &&
                !(longest(c, r)->mark_count >= 3 && continues_prose(c, (uint32_t)(r - rows)))) {
                r->is_code = true;
                if (longest(c, r)->mark_count < 6) /* too few to give a grid of its own */
                    r->longest = by->longest;
            }
            if (r->is_code)
                left = fminf(left, r->box.left);
        }
    }
    /* few characters on a grid may be chance, or numbers */
    for (uint32_t from = 0, to; from < c->count; from = to + 1) {
        float width = 0;
        for (to = from; to < c->count && rows[to].is_code; to++)
            width += pm_rect_width(&rows[to].box) / fmaxf(1, longest(c, &rows[to])->mono_pitch);
        /* a fixed pitch is 0.6 em: more is letter-spaced */
        bool is_spaced = width < 12 && longest(c, &rows[from])->mono_pitch > 0.67f * rows[from].size;
        bool is_chance = width < 10 || is_spaced || (to == from + 1 && is_inside_prose(c, from));
        for (uint32_t i = from; i < to && is_chance; i++)
            rows[i].is_code = false;
    }
}

/* ---- blocks ---- */

/* Does the left edge of row i part it from the block that began at start? */
static bool breaks_edge(const struct column *c, uint32_t start, uint32_t i, const struct margin *margin)
{
    const struct pm_text_row *a = &c->rows[i - 1], *b = &c->rows[i], *s = &c->rows[start];
    float em = fminf(a->size, b->size);
    if (i - start >= 2) /* the block's left edge is that of its second row */
        return fabsf(b->box.left - c->rows[start + 1].box.left) > INDENT * em;
    float lean = b->box.left - s->box.left;
    if (lean > INDENT * em) { /* a label or a full line may have a hanging second line */
        bool is_full = a->box.right > margin->right - 2 * em && pm_rect_width(&a->box) > 12 * em;
        return !hangs_under(c, a, b) && !is_full;
    }
    if (lean < -INDENT * em) /* an indented first line, not an item followed by outer text */
        return a->has_bullet || lean < -7 * em;
    return false;
}

/* Does a new block begin at row i? start: first row of the block that is open. */
static bool begins_block(const struct column *c, uint32_t start, uint32_t i)
{
    const struct pm_text_row *a = &c->rows[i - 1], *b = &c->rows[i];
    float em = fmaxf(1, fminf(a->size, b->size)), distance = b->baseline - a->baseline;
    float pitch = fmaxf(local_pitch(c, i), local_pitch(c, i - 1));
    if (a->is_code && b->is_code)
        return distance > 2.3f * pitch || b->follows_rule;
    if (a->is_code != b->is_code || b->follows_rule || distance > GAP * pitch + 1 || distance < 0.35f * em)
        return true;
    bool heads = (is_bold(c, a) && is_bold(c, b)) || (is_large_row(c, a) && is_large_row(c, b));
    bool is_wordy = pm_rect_width(&a->box) > 4 * em && pm_rect_width(&b->box) > 4 * em;
    if (is_wordy && differs(a->x_height, b->x_height, SIZE_STEP) && fabsf(a->x_height - b->x_height) > 1.6f &&
        (differs(a->height, b->height, 1.12f) ||
         differs(a->stroke * a->x_height, b->stroke * b->x_height, 1.25f)))
        return true;
    struct margin margin = local_margin(c, i - 1, pitch);
    float room = margin.right - a->box.right - 0.3f * em, word = first_word(c, b);
    bool all_bold = true;
    for (uint32_t k = start; k < i; k++)
        all_bold &= is_bold(c, &c->rows[k]);
    if (is_wordy && is_bold(c, a) != is_bold(c, b) && differs(a->stroke, b->stroke, 1.25f) &&
        (all_bold || is_bold(c, b)) && room > word + 0.5f * em)
        return true;
    if (b->has_bullet || breaks_edge(c, start, i, &margin))
        return true;
    if (heads)
        return false;
    /* would the first word of b have fitted on a? */
    return room > word + (margin.justified > 0.6f ? 0.7f : 2.5f) * em;
}

/* A row in pieces far apart is one of entries, not a heading. */
static bool has_columns(const struct column *c, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++)
        for (uint32_t k = 1; k < c->rows[i].count; k++) {
            const struct pm_layout_line *l = &c->layout->lines[c->rows[i].first + k];
            if (c->lines->items[l->line].box.left - c->lines->items[l[-1].line].box.right > 4 * c->type->size)
                return true;
        }
    return false;
}

static bool is_heading(const struct column *c, uint32_t from, uint32_t to, struct pm_layout_region *r)
{
    float x_height = 0, height = 0, stroke = 0, total = 0, widest = 0, em = c->type->size;
    for (uint32_t i = from; i < to; i++) {
        float w = pm_rect_width(&c->rows[i].box);
        x_height += w * c->rows[i].x_height;
        height += w * c->rows[i].height;
        stroke += w * c->rows[i].stroke;
        total += w;
        widest = fmaxf(widest, w);
    }
    if (to - from > 4 || widest < 1.3f * em || has_columns(c, from, to))
        return false;
    x_height /= total, height /= total, stroke /= total;
    float ratio = is_large(c->type, x_height, height, stroke);
    if (ratio > 0) {
        r->level = ratio >= 1.5f ? 2 : ratio >= 1.25f ? 3 : 4;
        return true;
    }
    bool is_bold =
        c->type->stroke > 0 && stroke > BOLD_STEP * c->type->stroke && x_height > 0.85f * c->type->x_height;
    if (to - from > 2 || !is_bold)
        return false;
    r->level = 4;
    return true;
}

static void add_block(const struct column *c, uint32_t from, uint32_t to, uint32_t column, bool is_footnote)
{
    struct pm_layout_region r = {
        .label = PM_LABEL_TEXT, .column = column, .table = -1, .picture = -1, .first = c->rows[from].first};
    r.box = c->rows[from].box;
    for (uint32_t i = from; i < to; i++) {
        r.box = pm_rect_join(r.box, c->rows[i].box);
        for (uint32_t k = 0; k < c->rows[i].count; k++) {
            struct pm_layout_line *l = &c->layout->lines[c->rows[i].first + k];
            l->row = i - from;
            r.score += c->lines->items[l->line].score;
        }
        r.count += c->rows[i].count;
    }
    r.score /= (float)r.count;
    if (c->rows[from].is_code)
        r.label = PM_LABEL_CODE;
    else if (is_footnote)
        r.label = PM_LABEL_FOOTNOTE;
    else if (c->rows[from].has_bullet)
        r.label = PM_LABEL_LIST;
    else if (is_heading(c, from, to, &r))
        r.label = PM_LABEL_PARAGRAPH_TITLE;
    struct pm_layout *l = c->layout;
    PM_GROW(l->regions, l->region_count, l->region_capacity);
    l->regions[l->region_count++] = r;
}

/* Is all the text from row `start` on smaller than the page's? */
static bool is_small(const struct column *c, uint32_t start)
{
    uint32_t small = 0;
    for (uint32_t i = start; i < c->count; i++)
        small += c->rows[i].size < 0.94f * c->type->size;
    return small * 4 >= (c->count - start) * 3;
}

void pm_blocks_find(const struct pm_lines *lines, struct pm_text_row *rows, uint32_t count,
                    const struct pm_type *type, uint32_t column, float page_height, struct pm_layout *out)
{
    struct column c = {lines, out, rows, count, type};
    find_code(&c);
    bool is_footnote = false;
    for (uint32_t start = 0, i = 1; i <= count; i++) {
        if (i < count && !begins_block(&c, start, i))
            continue;
        if (rows[start].follows_mark && rows[start].box.top > 0.5f * page_height && is_small(&c, start))
            is_footnote = true;
        add_block(&c, start, i, column, is_footnote);
        start = i;
    }
}
