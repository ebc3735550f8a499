#include "layoutd/blocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define INDENT    0.6f  /* of the height: a difference of left edges that means something */
#define GAP       1.2f  /* of the usual pitch: a larger one parts paragraphs */
#define SIZE_STEP 1.15f /* ratio of type sizes that parts paragraphs and makes headings */
#define BOLD_STEP 1.3f  /* ratio of stroke widths that makes bold */

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

struct pm_type pm_type_of(const struct pm_lines *lines)
{
    struct pm_type t = {.height = 20, .x_height = 9, .stroke = 0, .pitch = 1.1f};
    uint32_t n = lines->count;
    if (!n)
        return t;
    struct weighed *w = pm_xalloc(sizeof *w * n);
    for (int what = 0; what < 3; what++) {
        for (uint32_t i = 0; i < n; i++) {
            const struct pm_line *l = &lines->items[i];
            w[i] = (struct weighed){what == 0   ? l->height
                                    : what == 1 ? l->x_height
                                                : l->stroke,
                                    pm_rect_width(&l->box) / l->height};
        }
        float v = weighed_median(w, n);
        *(what == 0 ? &t.height : what == 1 ? &t.x_height : &t.stroke) = v;
    }
    free(w);
    return t;
}

/* The pitch that is usual between neighbouring rows of like size: the lower quartile, for gaps between
 * paragraphs are many on some pages. */
static float usual_pitch(const struct pm_text_row *rows, uint32_t count, const struct pm_type *type)
{
    float *values = pm_xalloc(sizeof *values * (count + 1u));
    int n = 0;
    for (uint32_t i = 0; i + 1 < count; i++) {
        float d = rows[i + 1].baseline - rows[i].baseline, size = fmaxf(rows[i].height, rows[i + 1].height);
        if (d > 0.6f * size && d < 2.2f * size && fabsf(rows[i].height - rows[i + 1].height) < 0.25f * size)
            values[n++] = d / type->height;
    }
    float pitch = n >= 3 ? pm_quantile(values, n, 0.3f) : type->pitch;
    free(values);
    return pitch;
}

static bool differs(float a, float b, float step)
{
    return a > b * step || b > a * step;
}

/* Width of the first word of a row. */
static float first_word(const struct pm_lines *lines, const struct pm_layout *layout,
                        const struct pm_text_row *row)
{
    const struct pm_line *l = &lines->items[layout->lines[row->first].line];
    for (uint32_t i = 0; i < l->gap_count; i++)
        if (l->gaps[i].right - l->gaps[i].left > 0.17f * l->height && l->gaps[i].left > row->text_left)
            return l->gaps[i].left - row->text_left;
    return l->box.right - row->text_left;
}

/* Does something of row a (a gap's right end, a second piece) stand where row b begins? Then b hangs under
 * the text after a's label. */
static bool hangs_under(const struct pm_lines *lines, const struct pm_layout *layout,
                        const struct pm_text_row *a, const struct pm_text_row *b)
{
    float slack = 0.35f * a->height;
    if (a->has_bullet && fabsf(a->text_left - b->box.left) < 1.5f * slack)
        return true;
    for (uint32_t k = 0; k < a->count; k++) {
        const struct pm_line *l = &lines->items[layout->lines[a->first + k].line];
        if (k && fabsf(l->box.left - b->box.left) < slack)
            return true;
        for (uint32_t i = 0; i < l->gap_count && i < 3; i++)
            if (fabsf(l->gaps[i].right - b->box.left) < slack)
                return true;
    }
    return false;
}

/* The right edge that the rows around row i run to, as far as they share its pitch and left edge. */
static float local_margin(const struct pm_text_row *rows, uint32_t count, uint32_t i, float pitch)
{
    float right = rows[i].box.right;
    for (int way = -1; way <= 1; way += 2)
        for (uint32_t k = 1, at = i; k < 8; k++) {
            uint32_t next = at + (uint32_t)way;
            if (next >= count || fabsf(rows[next].baseline - rows[at].baseline) > 1.7f * pitch ||
                fabsf(rows[next].box.left - rows[i].box.left) > 4 * rows[i].height)
                break;
            right = fmaxf(right, rows[next].box.right);
            at = next;
        }
    return right;
}

struct column {
    const struct pm_lines *lines;
    struct pm_layout *layout;
    const struct pm_text_row *rows;
    uint32_t count;
    const struct pm_type *type;
    float pitch;     /* px */
    float justified; /* share of rows that reach the margin */
};

/* Does a new block begin at row i? start: first row of the block that is open. */
static bool begins_block(const struct column *c, uint32_t start, uint32_t i)
{
    const struct pm_text_row *a = &c->rows[i - 1], *b = &c->rows[i], *s = &c->rows[start];
    float h = fmaxf(1, fminf(a->height, b->height)), distance = b->baseline - a->baseline;
    float pitch = c->pitch * fmaxf(1, fmaxf(a->height, b->height) / c->type->height);
    if (b->follows_rule || distance > GAP * pitch || distance < 0.3f * h)
        return true;
    bool is_wordy = pm_rect_width(&a->box) > 3 * h && pm_rect_width(&b->box) > 3 * h;
    if (is_wordy && differs(a->x_height, b->x_height, SIZE_STEP) && differs(a->height, b->height, 1.1f))
        return true;
    bool is_bold_a = a->stroke > BOLD_STEP * c->type->stroke,
         is_bold_b = b->stroke > BOLD_STEP * c->type->stroke;
    if (is_wordy && c->type->stroke > 0 && is_bold_a != is_bold_b && differs(a->stroke, b->stroke, 1.25f) &&
        pm_rect_width(&a->box) < 0.75f * (local_margin(c->rows, c->count, i, c->pitch) - a->box.left))
        return true;
    if (b->has_bullet)
        return true;
    /* the left edge of the block's body: that of its second row */
    float body = i - start >= 2 ? c->rows[start + 1].box.left : s->text_left;
    float shift = b->box.left - body;
    if (i - start == 1) {
        float lean = b->box.left - a->box.left;
        if (lean > INDENT * h) { /* hanging? */
            bool fills = a->box.right > local_margin(c->rows, c->count, i, c->pitch) - 2 * h;
            if (!hangs_under(c->lines, c->layout, a, b) && !fills)
                return true;
        } else if (lean < -6 * h)
            return true;
        else if (lean < -INDENT * h && a->has_bullet)
            return true;
    } else if (fabsf(shift) > INDENT * h)
        return true;
    /* would the first word of b have fitted on a? */
    float margin = local_margin(c->rows, c->count, i - 1, c->pitch);
    float room = margin - a->box.right - 0.35f * h;
    float word = first_word(c->lines, c->layout, b);
    return room > word + (c->justified > 0.6f ? 0.5f : 1.5f) * h;
}

static bool is_heading(const struct column *c, uint32_t from, uint32_t to, struct pm_layout_region *r)
{
    float size = 0, height = 0, stroke = 0, total = 0;
    for (uint32_t i = from; i < to; i++) {
        float w = pm_rect_width(&c->rows[i].box);
        size += w * c->rows[i].x_height;
        height += w * c->rows[i].height;
        stroke += w * c->rows[i].stroke;
        total += w;
    }
    size /= total, height /= total, stroke /= total;
    float ratio = fminf(size / c->type->x_height, 1.05f * height / c->type->height);
    float longest = 0;
    for (uint32_t i = from; i < to; i++)
        longest = fmaxf(longest, pm_rect_width(&c->rows[i].box));
    if (to - from > 4 || longest < 1.2f * height)
        return false;
    if (ratio >= SIZE_STEP) {
        r->level = ratio >= 1.55f ? 2 : ratio >= 1.28f ? 3 : 4;
        return true;
    }
    if (to - from <= 2 && c->type->stroke > 0 && stroke > BOLD_STEP * c->type->stroke && ratio > 0.9f) {
        r->level = 4;
        return true;
    }
    return false;
}

static void add_block(const struct column *c, uint32_t from, uint32_t to, uint32_t column, bool is_footnote)
{
    struct pm_layout_region r = {
        .label = PM_LABEL_TEXT, .column = column, .table = -1, .picture = -1, .first = c->rows[from].first};
    r.box = c->rows[from].box;
    for (uint32_t i = from; i < to; i++) {
        r.box = pm_rect_join(r.box, c->rows[i].box);
        for (uint32_t k = 0; k < c->rows[i].count; k++) {
            c->layout->lines[c->rows[i].first + k].row = i - from;
            r.score += c->lines->items[c->layout->lines[c->rows[i].first + k].line].score;
        }
        r.count += c->rows[i].count;
    }
    r.score /= (float)r.count;
    if (is_footnote)
        r.label = PM_LABEL_FOOTNOTE;
    else if (c->rows[from].has_bullet)
        r.label = PM_LABEL_LIST;
    else if (is_heading(c, from, to, &r))
        r.label = PM_LABEL_PARAGRAPH_TITLE;
    struct pm_layout *l = c->layout;
    PM_GROW(l->regions, l->region_count, l->region_capacity);
    l->regions[l->region_count++] = r;
}

void pm_blocks_find(const struct pm_lines *lines, const struct pm_text_row *rows, uint32_t count,
                    const struct pm_type *type, uint32_t page, uint32_t column, float page_height,
                    struct pm_layout *out)
{
    (void)page;
    struct column c = {lines, out, rows, count, type, usual_pitch(rows, count, type) * type->height, 0};
    for (uint32_t i = 0; i < count; i++)
        c.justified += rows[i].box.right > local_margin(rows, count, i, c.pitch) - 0.5f * rows[i].height;
    c.justified /= (float)(count ? count : 1);
    bool is_footnote = false;
    for (uint32_t start = 0, i = 1; i <= count; i++) {
        if (i < count && !begins_block(&c, start, i))
            continue;
        if (rows[start].follows_rule && rows[start].x_height < 0.95f * type->x_height &&
            rows[start].box.top > 0.5f * page_height)
            is_footnote = true;
        add_block(&c, start, i, column, is_footnote);
        start = i;
    }
}
