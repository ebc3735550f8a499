#include "layoutd/order.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define MAX_GUTTERS 15 /* columns of a band, less one */
#define MAX_PROBES  64 /* left edges tried in one step */
#define MAX_DEPTH   40
#define MIN_ROWS    3u /* rows that a column has at least */

#define GUTTER_MIN  0.25f /* em: narrowest gutter, believed when many rows keep clear of it */
#define ALIGN_SLACK 0.25f /* em: how far middles of one row may differ */
#define FULL_SHARE  0.80f /* of the column's width: a line that wide counts as full */

struct gutter {
    float left, right;
};

/* A slice of the items in vertical order and what parts it into columns. */
struct band {
    uint32_t from, to;
    struct gutter gutters[MAX_GUTTERS];
    int gutter_count;
};

struct state {
    const struct pm_item *items;
    struct pm_place *places;
    uint32_t placed, leaf;
    struct pm_cut *cuts;
    uint32_t cut_count, count;
};

struct row {
    struct pm_rect box;
    float middle, size;
    float left_middle, right_middle; /* of its outermost members: a row may lean */
    float last_middle;               /* of the member added last */
    uint32_t members;
    bool is_block;
};

static int by_middle(const void *a, const void *b, void *context)
{
    const struct pm_item *items = context;
    const struct pm_rect *x = &items[*(const uint32_t *)a].box, *y = &items[*(const uint32_t *)b].box;
    float mx = pm_rect_middle_y(x), my = pm_rect_middle_y(y);
    if (mx != my)
        return mx < my ? -1 : 1;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return (*(const uint32_t *)a > *(const uint32_t *)b) - (*(const uint32_t *)a < *(const uint32_t *)b);
}

static int by_left(const void *a, const void *b, void *context)
{
    const struct pm_item *items = context;
    const struct pm_rect *x = &items[*(const uint32_t *)a].box, *y = &items[*(const uint32_t *)b].box;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return (*(const uint32_t *)a > *(const uint32_t *)b) - (*(const uint32_t *)a < *(const uint32_t *)b);
}

static float typical_size(const struct pm_item *items, const uint32_t *ids, uint32_t n)
{
    float *sizes = pm_xalloc(sizeof *sizes * (n + 1u));
    int k = 0;
    for (uint32_t i = 0; i < n; i++)
        if (!items[ids[i]].is_block)
            sizes[k++] = items[ids[i]].size;
    float size = k ? pm_quantile(sizes, k, 0.5f) : items[ids[0]].size;
    free(sizes);
    return size > 1 ? size : 1;
}

/* ---- rows ---- */

/* Which row an item of the vertical order belongs to: the one whose nearest member overlaps it by half. Rows
 * that ended well above are not looked at. row_of: [n]. Returns the number of rows; rows come in the order of
 * their first member. */
static uint32_t make_rows(const struct pm_item *items, const uint32_t *ids, uint32_t n, uint32_t *row_of,
                          struct row *rows)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct pm_item *it = &items[ids[i]];
        uint32_t best = UINT32_MAX;
        float best_share = 0.5f;
        for (uint32_t r = count > 6 ? count - 6 : 0; r < count; r++) {
            if (it->is_block != rows[r].is_block || it->is_block)
                continue;
            /* the member nearest in x decides: a row may lean */
            float near = INFINITY, share = 0;
            bool collides = false;
            for (uint32_t j = i > 256 ? i - 256 : 0; j < i; j++) {
                if (row_of[j] != r)
                    continue;
                const struct pm_rect *b = &items[ids[j]].box;
                float shared = pm_rect_overlap_x(&it->box, b);
                if (shared > 0.3f * fminf(pm_rect_width(&it->box), pm_rect_width(b)))
                    collides = true;
                float apart = fmaxf(b->left - it->box.right, it->box.left - b->right);
                if (apart < near) {
                    near = apart;
                    share = pm_rect_overlap_y(&it->box, b) /
                            fmaxf(1, fminf(pm_rect_height(&it->box), pm_rect_height(b)));
                }
            }
            if (!collides && share > best_share) {
                best_share = share;
                best = r;
            }
        }
        if (best == UINT32_MAX) {
            best = count++;
            rows[best] = (struct row){.box = it->box, .size = it->size, .is_block = it->is_block};
        }
        struct row *r = &rows[best];
        r->box = pm_rect_join(r->box, it->box);
        r->middle = (r->middle * (float)r->members + pm_rect_middle_y(&it->box)) / (float)(r->members + 1);
        r->members++;
        row_of[i] = best;
    }
    return count;
}

/* Rows of the items whose middle lies in a strip, top to bottom. */
static uint32_t strip_rows(const struct pm_item *items, const uint32_t *ids, uint32_t n, float left,
                           float right, struct row *rows)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct pm_item *it = &items[ids[i]];
        float x = pm_rect_middle_x(&it->box), y = pm_rect_middle_y(&it->box);
        if (x < left || x >= right)
            continue;
        struct row *last = count ? &rows[count - 1] : NULL;
        if (last && !it->is_block && !last->is_block &&
            y - last->last_middle < 0.45f * fminf(it->size, last->size)) {
            if (it->box.left < last->box.left)
                last->left_middle = y;
            if (it->box.right > last->box.right)
                last->right_middle = y;
            last->box = pm_rect_join(last->box, it->box);
            last->middle = (last->middle * (float)last->members + y) / (float)(last->members + 1);
            last->members++;
            last->last_middle = y;
        } else {
            rows[count++] = (struct row){.box = it->box,
                                         .middle = y,
                                         .size = it->size,
                                         .left_middle = y,
                                         .right_middle = y,
                                         .last_middle = y,
                                         .members = 1,
                                         .is_block = it->is_block};
        }
    }
    return count;
}

/* ---- is it a gutter between columns, or between cells? ---- */

struct strip {
    struct row *rows;
    uint32_t count;
    float left, right; /* of the ink */
};

static void strip_extent(struct strip *s)
{
    s->left = INFINITY, s->right = -INFINITY;
    for (uint32_t i = 0; i < s->count; i++) {
        s->left = fminf(s->left, s->rows[i].box.left);
        s->right = fmaxf(s->right, s->rows[i].box.right);
    }
}

/* Height of a row at its end towards the other strip. */
static float near_middle(const struct row *row, bool other_is_right)
{
    return other_is_right ? row->right_middle : row->left_middle;
}

/* Share of a's rows in top..bottom that stand on a baseline with one of b's; rows looked at in *seen_out. */
static float aligned_share(const struct strip *a, const struct strip *b, float top, float bottom, float size,
                           uint32_t *seen_out)
{
    uint32_t seen = 0, aligned = 0;
    bool b_is_right = b->left > a->left;
    for (uint32_t i = 0, j = 0; i < a->count; i++) {
        float y = near_middle(&a->rows[i], b_is_right);
        if (y < top || y > bottom)
            continue;
        seen++;
        while (j + 1 < b->count && fabsf(near_middle(&b->rows[j + 1], !b_is_right) - y) <=
                                       fabsf(near_middle(&b->rows[j], !b_is_right) - y))
            j++;
        aligned += b->count && fabsf(near_middle(&b->rows[j], !b_is_right) - y) <= ALIGN_SLACK * size;
    }
    *seen_out = seen;
    return seen ? (float)aligned / (float)seen : 0;
}

static float full_share(const struct strip *s)
{
    uint32_t full = 0;
    for (uint32_t i = 0; i < s->count; i++)
        full += pm_rect_width(&s->rows[i].box) >= FULL_SHARE * (s->right - s->left);
    return s->count ? (float)full / (float)s->count : 0;
}

/* Of the wide gaps between rows of both strips, the share that is white on the other side too: rows of a
 * table with wrapped cells have all of them in common. -1 when there are too few to tell. */
static float common_gaps(const struct strip *a, const struct strip *b, float top, float bottom, float size)
{
    uint32_t total = 0, common = 0;
    for (int side = 0; side < 2; side++) {
        const struct strip *s = side ? b : a, *o = side ? a : b;
        float *whites = pm_xalloc(sizeof *whites * (s->count + 1u));
        int n = 0;
        for (uint32_t i = 0; i + 1 < s->count; i++)
            whites[n++] = s->rows[i + 1].box.top - s->rows[i].box.bottom;
        float usual = pm_quantile(whites, n, 0.25f);
        free(whites);
        for (uint32_t i = 0; i + 1 < s->count; i++) {
            float from = s->rows[i].box.bottom, to = s->rows[i + 1].box.top;
            if (to - from < usual + 0.35f * size || from < top || to > bottom)
                continue;
            total++;
            float y = 0.5f * (from + to);
            bool is_white = true;
            for (uint32_t j = 0; j < o->count && is_white; j++)
                is_white = o->rows[j].box.top + 0.2f * size > y || o->rows[j].box.bottom - 0.2f * size < y;
            common += is_white;
        }
    }
    return total >= 3 ? (float)common / (float)total : -1;
}

/* The heart of the matter. *likeness_out: how much the two look like cells of rows, 0..1. */
static bool are_columns(const struct strip *a, const struct strip *b, float size, float *likeness_out)
{
    float top = fmaxf(a->rows[0].box.top, b->rows[0].box.top) - 0.5f * size;
    float bottom = fminf(a->rows[a->count - 1].box.bottom, b->rows[b->count - 1].box.bottom) + 0.5f * size;
    float wa = a->right - a->left, wb = b->right - b->left, gap = b->left - a->right;
    uint32_t na, nb;
    float alignment = aligned_share(a, b, top, bottom, size, &na);
    alignment = fmaxf(alignment, aligned_share(b, a, top, bottom, size, &nb));
    *likeness_out = alignment;
    bool block_a = a->count == 1 && a->rows[0].is_block, block_b = b->count == 1 && b->rows[0].is_block;
    if (block_a || block_b) { /* text beside a picture or table */
        *likeness_out = 0;
        return bottom - top > 2.5f * size;
    }
    if (na < MIN_ROWS || nb < MIN_ROWS || fminf(wa, wb) < 4 * size || bottom - top < 2.5f * size) {
        *likeness_out = 1;
        return false;
    }
    bool is_equal = fminf(wa, wb) >= 0.7f * fmaxf(wa, wb);
    uint32_t fewer = na < nb ? na : nb;
    if (gap < (fewer >= 12 ? GUTTER_MIN : fewer >= 6 ? 0.8f : is_equal ? 1.2f : 1.6f) * size)
        return false;
    float common = common_gaps(a, b, top, bottom, size);
    if (common >= 0.8f && alignment > 0.6f && !(is_equal && alignment < 0.8f))
        return false;
    bool is_prose = full_share(a) >= 0.45f && full_share(b) >= 0.45f && fminf(wa, wb) >= 8 * size;
    if (is_prose && (alignment < 0.97f || is_equal))
        return true;
    if (alignment >= 0.97f)
        return false;
    if (is_equal && fminf(wa, wb) >= 6 * size && na >= 5 && nb >= 5)
        return alignment < 0.93f;
    return alignment < 0.68f;
}

/* ---- bands ---- */

/* Stretches of x that none of the items covers. */
static int clear_stretches(const struct pm_item *items, const uint32_t *ids, uint32_t n, float least,
                           struct gutter *out, int limit)
{
    uint32_t *sorted = pm_xalloc(sizeof *sorted * (n + 1u));
    memcpy(sorted, ids, sizeof *sorted * n);
    qsort_r(sorted, n, sizeof *sorted, by_left, (void *)(uintptr_t)items);
    int count = 0;
    float right = n ? items[sorted[0]].box.right : 0;
    for (uint32_t i = 1; i < n; i++) {
        const struct pm_rect *b = &items[sorted[i]].box;
        if (b->left - right >= least) {
            if (count == limit) {
                count = 0; /* confetti, not columns */
                break;
            }
            out[count++] = (struct gutter){right, b->left};
        }
        right = fmaxf(right, b->right);
    }
    free(sorted);
    return count;
}

/* Finds the gutters between columns of all[0..n), leaving out the items that will be cut. */
static void find_gutters(const struct pm_item *items, const uint32_t *all, uint32_t all_count,
                         const bool *skip, float size, struct band *band)
{
    struct gutter *g = band->gutters;
    uint32_t *ids = pm_xalloc(sizeof *ids * (all_count + 1u)), n = 0;
    for (uint32_t i = 0; i < all_count; i++)
        if (!skip[i])
            ids[n++] = all[i];
    int count = clear_stretches(items, ids, n, GUTTER_MIN * size, g, MAX_GUTTERS);
    struct row *rows = pm_xalloc(sizeof *rows * 2 * (n + 1u));
    while (count) {
        int worst = -1;
        float worst_likeness = -1;
        for (int i = 0; i < count; i++) {
            float x0 = i ? 0.5f * (g[i - 1].left + g[i - 1].right) : -INFINITY;
            float x1 = 0.5f * (g[i].left + g[i].right);
            float x2 = i + 1 < count ? 0.5f * (g[i + 1].left + g[i + 1].right) : INFINITY;
            struct strip a = {.rows = rows}, b = {.rows = rows + n + 1};
            a.count = strip_rows(items, ids, n, x0, x1, a.rows);
            b.count = strip_rows(items, ids, n, x1, x2, b.rows);
            strip_extent(&a);
            strip_extent(&b);
            float likeness = 1;
            if (a.count && b.count && are_columns(&a, &b, size, &likeness))
                continue;
            likeness -= 0.001f * (g[i].right - g[i].left) / size; /* of equals the narrower goes first */
            if (likeness > worst_likeness) {
                worst_likeness = likeness;
                worst = i;
            }
        }
        if (worst < 0)
            break;
        memmove(&g[worst], &g[worst + 1], sizeof *g * (size_t)(count - worst - 1));
        count--;
    }
    free(rows);
    free(ids);
    band->gutter_count = count;
}

/* May item `at` of the slice, which crosses the probe, be two columns' lines that the detector joined? It
 * stands in its column's pitch, begins at a left edge of it, and has a gap where the right column begins. */
static bool is_joined(const struct pm_item *items, const uint32_t *ids, uint32_t n, uint32_t at, float edge,
                      float size, float *x_out)
{
    const struct pm_item *it = &items[ids[at]];
    if (it->is_block || it->size > 1.3f * size)
        return false;
    const struct pm_gap *gap = NULL;
    for (uint32_t i = 0; i < it->gap_count; i++)
        if (fabsf(it->gaps[i].right - edge) < 0.5f * size)
            gap = &it->gaps[i];
    if (!gap)
        return false;
    bool has_left = false, has_right = false;
    float y = pm_rect_middle_y(&it->box);
    for (uint32_t i = at > 12 ? at - 12 : 0; i < n && i < at + 12; i++) {
        const struct pm_rect *b = &items[ids[i]].box;
        if (i == at || fabsf(pm_rect_middle_y(b) - y) > 2.2f * size)
            continue;
        if (b->left < edge - size && b->right > edge + size)
            return false; /* a neighbour crosses too: a paragraph, not an accident */
        has_left |= fabsf(b->left - it->box.left) < 0.5f * size;
        has_right |= fabsf(b->left - gap->right) < 0.5f * size;
    }
    *x_out = 0.5f * (gap->left + gap->right);
    return has_left && has_right;
}

/* Left edges shared by several items: where columns may begin. */
static int find_probes(const struct pm_item *items, const uint32_t *ids, uint32_t n, float size, float *out)
{
    float *lefts = pm_xalloc(sizeof *lefts * n);
    for (uint32_t i = 0; i < n; i++)
        lefts[i] = items[ids[i]].box.left;
    pm_quantile(lefts, (int)n, 0); /* sorts */
    int count = 0;
    for (uint32_t i = 0; i < n && count < MAX_PROBES;) {
        uint32_t from = i;
        while (i < n && lefts[i] - lefts[from] < 0.5f * size)
            i++;
        if (i - from >= MIN_ROWS || n < 8)
            out[count++] = lefts[from];
    }
    /* blocks begin columns too */
    for (uint32_t i = 0; i < n && count < MAX_PROBES; i++)
        if (items[ids[i]].is_block)
            out[count++] = items[ids[i]].box.left;
    free(lefts);
    return count;
}

/* The band with most content that has columns; gutter_count 0 when there is none. skip_out: [n], items of
 * that band to be cut, at cut_x_out. */
static struct band find_band(const struct pm_item *items, const uint32_t *ids, uint32_t n, bool *skip_out,
                             float *cut_x_out)
{
    struct band best = {0};
    float size = typical_size(items, ids, n), probes[MAX_PROBES];
    int probe_count = find_probes(items, ids, n, size, probes);
    bool *skip = pm_xalloc(sizeof *skip * n);
    float *cut_x = pm_xalloc(sizeof *cut_x * n);
    for (int p = 0; p < probe_count; p++) {
        float x = probes[p] - 0.3f * size;
        memset(skip, 0, sizeof *skip * n);
        for (uint32_t from = 0, i = 0; i <= n; i++) {
            const struct pm_rect *b = i < n ? &items[ids[i]].box : NULL;
            if (b && !(b->left < x - 0.05f * size && b->right > x + 0.05f * size))
                continue;
            if (b && is_joined(items, ids, n, i, probes[p], size, &cut_x[i])) {
                skip[i] = true;
                continue;
            }
            if (i - from > best.to - best.from || !best.gutter_count) {
                struct band band = {.from = from, .to = i};
                if (i - from >= 2)
                    find_gutters(items, ids + from, i - from, skip + from, size, &band);
                if (band.gutter_count) {
                    best = band;
                    memcpy(skip_out, skip, sizeof *skip * n);
                    memcpy(cut_x_out, cut_x, sizeof *cut_x * n);
                }
            }
            from = i + 1;
        }
    }
    free(skip);
    free(cut_x);
    return best;
}

/* ---- the recursion ---- */

static void place_leaf(struct state *s, const uint32_t *ids, uint32_t n, uint32_t column)
{
    uint32_t *row_of = pm_xalloc(sizeof *row_of * n), *inside = pm_xalloc(sizeof *inside * n);
    struct row *rows = pm_xalloc(sizeof *rows * n);
    uint32_t count = make_rows(s->items, ids, n, row_of, rows);
    uint32_t *order = pm_xalloc(sizeof *order * count);
    /* rows by their middle; make_rows met them by their first member */
    for (uint32_t r = 0; r < count; r++) {
        uint32_t at = r;
        while (at > 0 && rows[order[at - 1]].middle > rows[r].middle) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = r;
    }
    for (uint32_t k = 0; k < count; k++) {
        uint32_t m = 0;
        for (uint32_t i = 0; i < n; i++)
            if (row_of[i] == order[k])
                inside[m++] = ids[i];
        qsort_r(inside, m, sizeof *inside, by_left, (void *)(uintptr_t)s->items);
        for (uint32_t i = 0; i < m; i++)
            s->places[s->placed++] = (struct pm_place){inside[i], s->leaf, column, k};
    }
    s->leaf++;
    free(order);
    free(rows);
    free(inside);
    free(row_of);
}

static void cut(struct state *s, const uint32_t *ids, uint32_t n, uint32_t column, int depth)
{
    if (!n)
        return;
    bool *skip = pm_xalloc(sizeof *skip * n);
    float *cut_x = pm_xalloc(sizeof *cut_x * n);
    struct band band = {0};
    if (depth < MAX_DEPTH && n >= 2)
        band = find_band(s->items, ids, n, skip, cut_x);
    if (!band.gutter_count) {
        place_leaf(s, ids, n, column);
        goto out;
    }
    cut(s, ids, band.from, column, depth + 1);
    uint32_t *part = pm_xalloc(sizeof *part * n);
    for (int g = 0; g <= band.gutter_count; g++) {
        float left = g ? 0.5f * (band.gutters[g - 1].left + band.gutters[g - 1].right) : -INFINITY;
        float right =
            g < band.gutter_count ? 0.5f * (band.gutters[g].left + band.gutters[g].right) : INFINITY;
        uint32_t m = 0;
        for (uint32_t i = band.from; i < band.to; i++) {
            const struct pm_rect *b = &s->items[ids[i]].box;
            float x = skip[i] ? b->left : pm_rect_middle_x(b);
            if (x >= left && x < right)
                part[m++] = ids[i];
        }
        cut(s, part, m, (uint32_t)g, depth + 1);
    }
    free(part);
    for (uint32_t i = band.from; i < band.to; i++)
        if (skip[i] && s->cut_count < s->count)
            s->cuts[s->cut_count++] = (struct pm_cut){ids[i], cut_x[i]};
    cut(s, ids + band.to, n - band.to, column, depth + 1);
out:
    free(skip);
    free(cut_x);
}

void pm_order_find(const struct pm_item *items, uint32_t count, struct pm_place *places_out,
                   struct pm_cut *cuts_out, uint32_t *cut_count_out)
{
    struct state s = {.items = items, .places = places_out, .cuts = cuts_out, .count = count};
    uint32_t *ids = pm_xalloc(sizeof *ids * (count + 1u));
    for (uint32_t i = 0; i < count; i++)
        ids[i] = i;
    qsort_r(ids, count, sizeof *ids, by_middle, (void *)(uintptr_t)items);
    cut(&s, ids, count, 0, 0);
    free(ids);
    *cut_count_out = s.cut_count;
}
