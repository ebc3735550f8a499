#include "layoutd/rescue.h"

#include <leptonica/allheaders.h>
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "proto/page.h"

#define GLYPH        0.48f /* height of capitals and digits over the height of a detector's box */
#define SLACK        0.28f /* of the box's height: how far a box reaches beyond its ink at either end */
#define MAX_PARTS    6000  /* connected parts outside lines; more are a halftone or noise */
#define MAX_SEEDS    800   /* parts of a glyph's size among them; more are a drawing */
#define LEADER_DOTS  5     /* dots of a row that make it a leader */
#define COVERED      0.8f  /* share of a line's ink in another line that makes it a second copy */
#define NEAR_PARTS   8     /* parts around a find that make it one speck of many */
#define SCORE_IN_ROW 0.25f /* of a find on a line's row ... */
#define SCORE_ALONE  0.15f /* ... and elsewhere; both below PM_SCORE_RESCUED */

enum role { OTHER, SEED, SMALL, LEADER, TAKEN };

struct part { /* a connected part of the ink that no line covers */
    struct pm_rect box;
    enum role role;
    bool is_cut; /* a line's box goes through it */
};

struct find {
    struct pm_rect box;   /* of all its ink */
    struct pm_rect glyph; /* of its seeds */
    uint32_t seeds;
};

struct rescue {
    struct pm_ink *ink;
    struct pm_ink rest; /* the ink outside lines */
    struct pm_lines *lines;
    struct part *parts;
    int count;
    float glyph_px; /* typical height of a capital */
};

/* ---- one line over another ----------------------------------------------------------------------------- */

static long ink_in(const struct pm_ink *ink, const struct pm_rect *r)
{
    return pm_ink_count(ink, (int)floorf(r->left), (int)floorf(r->top), (int)ceilf(r->right),
                        (int)ceilf(r->bottom));
}

/* The smaller of two boxes goes when most of its ink lies in the larger one: a superscript made the detector
 * frame a part of the line again. */
static bool drop_copy(struct pm_lines *lines, uint32_t i, uint32_t j, const struct pm_ink *ink)
{
    struct pm_line *large = &lines->items[i], *small = &lines->items[j];
    if (large->is_vertical || small->is_vertical)
        return false;
    if (pm_rect_width(&large->box) * pm_rect_height(&large->box) <
        pm_rect_width(&small->box) * pm_rect_height(&small->box)) {
        struct pm_line *other = large;
        large = small, small = other;
    }
    if (pm_rect_overlap_y(&large->box, &small->box) < 0.55f * small->height ||
        pm_rect_overlap_x(&large->box, &small->box) < 0.5f * pm_rect_width(&small->box) ||
        small->height > 1.6f * large->height)
        return false;
    struct pm_rect shared = {fmaxf(large->box.left, small->box.left), fmaxf(large->box.top, small->box.top),
                             fminf(large->box.right, small->box.right),
                             fminf(large->box.bottom, small->box.bottom)};
    long all = ink_in(ink, &small->box);
    if ((float)ink_in(ink, &shared) < COVERED * (float)all)
        return false;
    uint32_t gone = (uint32_t)(small - lines->items);
    for (uint32_t k = gone + 1; k < lines->count; k++)
        lines->items[k - 1] = lines->items[k];
    lines->count--;
    return true;
}

static void drop_copies(struct pm_lines *lines, const struct pm_ink *ink)
{
    for (uint32_t i = 0; i < lines->count; i++)
        for (uint32_t j = i + 1; j < lines->count; j++)
            if (pm_rect_overlap_x(&lines->items[i].box, &lines->items[j].box) > 0 &&
                pm_rect_overlap_y(&lines->items[i].box, &lines->items[j].box) > 0 &&
                drop_copy(lines, i, j, ink)) {
                j = i; /* either may have gone: begin again with what is i now */
            }
}

/* ---- the ink outside lines ----------------------------------------------------------------------------- */

/* Removes a line's quad, in strips, for lines of photos lean and bend. */
static void clear_line(struct pm_ink *ink, const struct pm_line *l)
{
    const struct pm_quad *q = &l->quad;
    struct pm_rect r = pm_quad_bounds(q);
    float width = 0.5f * (q->x[1] + q->x[2] - q->x[0] - q->x[3]);
    if (l->is_vertical || width < 1) {
        pm_ink_clear(ink, (int)r.left, (int)r.top, (int)r.right + 1, (int)r.bottom + 1);
        return;
    }
    float step = fmaxf(16, fabsf(q->y[1] - q->y[0]) < 2 ? width : 16);
    for (float x = r.left; x < r.right; x += step) {
        float at = (fminf(x + 0.5f * step, r.right) - r.left) / (r.right - r.left);
        float top = q->y[0] + at * (q->y[1] - q->y[0]), bottom = q->y[3] + at * (q->y[2] - q->y[3]);
        pm_ink_clear(ink, (int)x, (int)top, (int)fminf(x + step, ceilf(r.right)), (int)ceilf(bottom));
    }
}

/* Ink right above or below: the part goes on inside a line. */
static bool goes_on(const struct pm_ink *ink, int left, int top, int right, int bottom)
{
    return (top > 0 && pm_ink_count(ink, left, top - 1, right, top)) ||
           pm_ink_count(ink, left, bottom, right, bottom + 1);
}

static int find_parts(struct rescue *r, struct pm_error *err)
{
    r->rest = *r->ink;
    r->rest.bits = pixCopy(NULL, r->ink->bits);
    BOXA *boxes = NULL;
    if (r->rest.bits) {
        for (uint32_t i = 0; i < r->lines->count; i++)
            clear_line(&r->rest, &r->lines->items[i]);
        boxes = pixConnComp(r->rest.bits, NULL, 8);
    }
    if (!boxes)
        return pm_fail(err, PM_ENOMEM, "no memory to look for lost text on a page of %d x %d px",
                       r->ink->width_px, r->ink->height_px);
    int n = boxaGetCount(boxes), seeds = 0;
    r->parts = pm_xalloc(sizeof *r->parts * (size_t)(n + 1));
    for (int i = 0; i < n && n <= MAX_PARTS; i++) {
        l_int32 x, y, w_px, h_px;
        boxaGetBoxGeometry(boxes, i, &x, &y, &w_px, &h_px);
        struct part *p = &r->parts[r->count++];
        float w = (float)w_px, h = (float)h_px, g = r->glyph_px;
        *p = (struct part){.box = {(float)x, (float)y, (float)x + w, (float)y + h}};
        bool is_stem = w * 10 < h, is_flat = h * 3 < w;
        if (h >= 0.55f * g && h <= 1.6f * g && w <= 2 * g && !is_stem && !is_flat &&
            (float)ink_in(&r->rest, &p->box) > 0.16f * w * h)
            p->role = SEED;
        else if (h < 0.55f * g && w < 1.2f * g)
            p->role = SMALL;
        if (p->role == SEED) {
            p->is_cut = goes_on(r->ink, x, y, x + w_px, y + h_px);
            seeds++;
        }
    }
    boxaDestroy(&boxes);
    if (seeds > MAX_SEEDS)
        r->count = 0;
    return 0;
}

static int by_left(const void *a, const void *b)
{
    const struct pm_rect *x = &((const struct part *)a)->box, *y = &((const struct part *)b)->box;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return (x->top > y->top) - (x->top < y->top);
}

/* ---- leaders ------------------------------------------------------------------------------------------- */

static bool is_dot(const struct part *p, float glyph_px)
{
    float w = pm_rect_width(&p->box), h = pm_rect_height(&p->box);
    return p->role == SMALL && w <= 0.4f * glyph_px + 1 && h <= 0.4f * glyph_px + 1 && w <= 2 * h + 1 &&
           h <= 2 * w + 1;
}

/* The dot that follows on the same baseline; -1 for none. */
static int next_dot(const struct rescue *r, int at)
{
    const struct pm_rect *a = &r->parts[at].box;
    for (int i = at + 1; i < r->count; i++) {
        const struct pm_rect *b = &r->parts[i].box;
        if (b->left > a->right + 2 * r->glyph_px)
            return -1;
        if (b->left > a->right && fabsf(b->bottom - a->bottom) <= 1.5f && is_dot(&r->parts[i], r->glyph_px))
            return i;
    }
    return -1;
}

/* Takes the dots off the end of the line before a leader: they are read as dots, and spoil the last letters.
 */
static void trim_title(struct rescue *r, const struct pm_rect *dot, float step)
{
    for (uint32_t i = 0; i < r->lines->count; i++) {
        struct pm_line *l = &r->lines->items[i];
        struct pm_rect b = pm_quad_bounds(&l->quad);
        if (l->is_vertical || dot->bottom < b.top + 0.5f * l->height || dot->bottom > b.bottom ||
            fabsf(dot->left - b.right) > 1.6f * step)
            continue;
        /* dots leave the rows above them free; the title's last letter does not */
        float x = dot->left;
        int top = (int)(dot->top - 0.45f * l->height), bottom = (int)dot->top - 1;
        while (x - step > b.left && !pm_ink_count(r->ink, (int)(x - step), top, (int)x, bottom))
            x -= step;
        for (int k = 0; k < (int)step && !pm_ink_count(r->ink, (int)x - 1, top, (int)x, bottom); k++)
            x--;
        if (x + 2 >= b.right || x < b.left + 0.3f * pm_rect_width(&b))
            return;
        struct pm_map3 same = pm_map3_identity();
        float end = fminf(b.right, x + 0.15f * l->height);
        struct pm_det_box one = {.quad = pm_quad_part(&l->quad, 0, (end - b.left) / pm_rect_width(&b)),
                                 .score = l->score};
        uint32_t before = r->lines->count;
        pm_lines_add(r->lines, &one, 1, &same);
        if (r->lines->count > before)
            r->lines->items[i] = r->lines->items[--r->lines->count];
        return;
    }
}

static void find_leaders(struct rescue *r)
{
    int *chain = pm_xalloc(sizeof *chain * (size_t)(r->count + 1));
    for (int i = 0; i < r->count; i++) {
        if (!is_dot(&r->parts[i], r->glyph_px))
            continue;
        int n = 0;
        float least = INFINITY, most = 0;
        for (int at = i; at >= 0; at = next_dot(r, at)) {
            float step = n ? r->parts[at].box.left - r->parts[chain[n - 1]].box.left : 0;
            if (n && (fmaxf(most, step) > 1.3f * fminf(least, step) + 2))
                break; /* no longer even */
            if (n)
                least = fminf(least, step), most = fmaxf(most, step);
            chain[n++] = at;
        }
        if (n >= LEADER_DOTS)
            trim_title(r, &r->parts[i].box, most);
        for (int k = 0; k < n && n >= LEADER_DOTS; k++) {
            struct part *p = &r->parts[chain[k]];
            p->role = LEADER;
            for (int in = 0; in < 2; in++)
                pm_ink_clear(in ? r->ink : &r->rest, (int)p->box.left, (int)p->box.top, (int)p->box.right,
                             (int)p->box.bottom);
        }
    }
    free(chain);
}

/* ---- finds --------------------------------------------------------------------------------------------- */

/* Takes all parts near the find in, seeds over `reach` and small ones over less. */
static bool grow(struct rescue *r, struct find *f)
{
    bool grown = false;
    float h = pm_rect_height(&f->glyph);
    for (int i = 0; i < r->count; i++) {
        struct part *p = &r->parts[i];
        if ((p->role != SEED && p->role != SMALL) || p->is_cut)
            continue;
        float apart = fmaxf(p->box.left - f->box.right, f->box.left - p->box.right);
        if (p->box.left > f->box.right + h)
            break; /* sorted by left */
        float high = pm_rect_height(&p->box);
        if (p->role == SEED) {
            if (apart > 0.9f * h || pm_rect_overlap_y(&p->box, &f->glyph) < 0.6f * fminf(h, high) ||
                fmaxf(h, high) > 1.9f * fminf(h, high))
                continue;
            f->glyph = pm_rect_join(f->glyph, p->box);
            f->seeds++;
        } else if (apart > 0.7f * h || p->box.top > f->glyph.bottom + 0.1f * h ||
                   p->box.bottom < f->glyph.top - 0.45f * h ||
                   fmaxf(high, pm_rect_width(&p->box)) < 0.1f * h) {
            continue;
        }
        p->role = TAKEN;
        f->box = pm_rect_join(f->box, p->box);
        grown = true;
    }
    return grown;
}

/* Other ink close by, or many specks around: a part of a drawing, or noise. */
static bool is_crowded(const struct rescue *r, const struct find *f)
{
    float h = pm_rect_height(&f->glyph), near = 0.35f * h, around = 4 * h;
    struct pm_rect margin = {f->box.left - near, f->box.top - near, f->box.right + near,
                             f->box.bottom + near};
    long inner = ink_in(&r->rest, &f->box), outer = ink_in(&r->rest, &margin) - inner;
    if ((float)outer > 0.15f * (float)inner)
        return true;
    int parts = 0;
    for (int i = 0; i < r->count; i++) {
        const struct part *p = &r->parts[i];
        if (p->box.left > f->box.right + around)
            break;
        parts += p->role != LEADER && p->role != TAKEN && p->box.right > f->box.left - around &&
                 p->box.bottom > f->box.top - around && p->box.top < f->box.bottom + around;
    }
    return parts > NEAR_PARTS;
}

/* Middle of a line's height where it passes x. */
static float middle_at(const struct pm_line *l, float x)
{
    const struct pm_quad *q = &l->quad;
    float lean = (q->y[1] - q->y[0]) / fmaxf(1, q->x[1] - q->x[0]);
    return pm_rect_middle_y(&l->box) + lean * (x - pm_rect_middle_x(&l->box));
}

/* The line whose row the find stands in: the nearest of those of like size; -1 for none. */
static int row_of(const struct rescue *r, const struct find *f, float *gap_out)
{
    int best = -1;
    float h = pm_rect_height(&f->glyph), least = INFINITY;
    for (uint32_t i = 0; i < r->lines->count; i++) {
        const struct pm_line *l = &r->lines->items[i];
        float off = pm_rect_middle_y(&f->glyph) - middle_at(l, pm_rect_middle_x(&f->glyph));
        if (l->is_vertical || fabsf(off) > 0.22f * l->height || h < 0.5f * GLYPH * l->height ||
            h > 1.5f * GLYPH * l->height)
            continue;
        struct pm_rect b = pm_quad_bounds(&l->quad);
        float gap = fmaxf(f->box.left - b.right, b.left - f->box.right);
        if (gap < least) {
            least = gap;
            best = (int)i;
        }
    }
    *gap_out = least;
    return best;
}

static bool may_be_bullet(const struct find *f, float line_height)
{
    float w = pm_rect_width(&f->box), h = pm_rect_height(&f->box);
    return f->seeds == 1 && (h < 0.75f * GLYPH * line_height || w > 0.8f * h);
}

static struct pm_line made_line(struct pm_lines *lines, struct pm_rect box, float score)
{
    struct pm_map3 same = pm_map3_identity();
    struct pm_det_box one = {.quad = pm_quad_of_rect(box), .score = score};
    uint32_t before = lines->count;
    pm_lines_add(lines, &one, 1, &same);
    return lines->count > before ? lines->items[--lines->count] : (struct pm_line){0};
}

/* Moves one end of the line's quad so that it reaches over the find. */
static void lengthen(struct pm_lines *lines, uint32_t at, const struct find *f)
{
    struct pm_line *l = &lines->items[at];
    struct pm_rect b = pm_quad_bounds(&l->quad);
    struct pm_map3 same = pm_map3_identity();
    struct pm_det_box one = {.quad = l->quad, .score = l->score};
    float width = fmaxf(1, pm_rect_width(&b)), slack = SLACK * l->height;
    float from = fminf(0, (f->box.left - slack - b.left) / width),
          to = fmaxf(1, (f->box.right + slack - b.left) / width);
    one.quad = pm_quad_part(&l->quad, from, to);
    uint32_t before = lines->count;
    pm_lines_add(lines, &one, 1, &same);
    if (lines->count > before)
        lines->items[at] = lines->items[--lines->count];
}

static void add_find(struct rescue *r, const struct find *f, struct pm_lines *added)
{
    float gap, h = pm_rect_height(&f->glyph), edge = 0.01f * (float)r->ink->width_px;
    if (f->box.left < edge || f->box.right > (float)r->ink->width_px - edge || f->box.top < edge ||
        f->box.bottom > (float)r->ink->height_px - edge || is_crowded(r, f))
        return;
    int row = row_of(r, f, &gap);
    const struct pm_line *mate = row < 0 ? NULL : &r->lines->items[row];
    if (mate && gap < 0.35f * mate->height) {
        bool is_head = pm_rect_middle_x(&f->box) < pm_rect_middle_x(&mate->box);
        if (!is_head || !may_be_bullet(f, mate->height))
            lengthen(r->lines, (uint32_t)row, f);
        return;
    }
    if (f->seeds == 1 && (mate ? may_be_bullet(f, mate->height) && gap < 2 * mate->height
                               : h < 0.8f * r->glyph_px || h > 1.3f * r->glyph_px))
        return;
    float high = mate ? fminf(fmaxf(mate->height, 1.6f * h), 2.4f * h) : h / GLYPH;
    float middle = mate ? middle_at(mate, pm_rect_middle_x(&f->box)) : pm_rect_middle_y(&f->glyph);
    struct pm_rect box = {f->box.left - SLACK * high, middle - 0.5f * high, f->box.right + SLACK * high,
                          middle + 0.5f * high};
    for (int i = 0; i < r->count && r->parts[i].box.left < f->box.left; i++)
        if (r->parts[i].role == LEADER && pm_rect_overlap_y(&r->parts[i].box, &box) > 0)
            box.left = fmaxf(box.left, fminf(r->parts[i].box.right + 1, f->box.left - 1));
    struct pm_line line = made_line(r->lines, box, mate ? SCORE_IN_ROW : SCORE_ALONE);
    if (!(line.height > 0))
        return;
    line.is_vertical = false; /* a lone stem is higher than wide */
    PM_GROW(added->items, added->count, added->capacity);
    added->items[added->count++] = line;
}

static void find_glyphs(struct rescue *r)
{
    struct pm_lines added = {0};
    for (int i = 0; i < r->count; i++) {
        struct part *p = &r->parts[i];
        if (p->role != SEED || p->is_cut)
            continue;
        struct find f = {.box = p->box, .glyph = p->box, .seeds = 1};
        p->role = TAKEN;
        while (grow(r, &f))
            ;
        add_find(r, &f, &added);
    }
    /* a page that seems to be lost for the most part is one of drawings or noise */
    if (added.count <= r->lines->count + 4)
        for (uint32_t i = 0; i < added.count; i++) {
            PM_GROW(r->lines->items, r->lines->count, r->lines->capacity);
            r->lines->items[r->lines->count++] = added.items[i];
        }
    free(added.items);
}

int pm_rescue_lines(struct pm_ink *ink, struct pm_lines *lines, struct pm_error *err)
{
    if (!lines->count)
        return 0;
    drop_copies(lines, ink);
    struct rescue r = {.ink = ink, .lines = lines, .glyph_px = GLYPH * pm_lines_typical_height(lines, 0)};
    int rc = r.glyph_px < 4 ? 0 : find_parts(&r, err);
    if (!rc && r.count) {
        qsort(r.parts, (size_t)r.count, sizeof *r.parts, by_left);
        find_leaders(&r);
        find_glyphs(&r);
    }
    free(r.parts);
    pixDestroy(&r.rest.bits);
    return rc;
}
