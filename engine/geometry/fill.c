#include "engine/geometry/fill.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct canvas {
    uint8_t *mask;
    int64_t width, height;
};

struct point64 {
    int64_t x, y;
};

static bool is_inside(const struct canvas *c, struct point64 p)
{
    return p.x >= 0 && p.x < c->width && p.y >= 0 && p.y < c->height;
}

enum { OUT_LEFT = 1, OUT_RIGHT = 2, OUT_ABOVE = 4, OUT_BELOW = 8 };

static int outcode_x(const struct canvas *c, struct point64 p)
{
    return (p.x < 0 ? OUT_LEFT : 0) | (p.x >= c->width ? OUT_RIGHT : 0);
}

static int outcode(const struct canvas *c, struct point64 p)
{
    return outcode_x(c, p) | (p.y < 0 ? OUT_ABOVE : 0) | (p.y >= c->height ? OUT_BELOW : 0);
}

/* Moves p along the line to q onto the row or column where it enters; the offset is cut to whole pixels. */
static void move_to_row(const struct canvas *c, struct point64 *p, struct point64 q, int code)
{
    int64_t row = code & OUT_ABOVE ? 0 : c->height - 1;
    p->x += (int64_t)((double)(row - p->y) * (double)(q.x - p->x) / (double)(q.y - p->y));
    p->y = row;
}

static void move_to_column(const struct canvas *c, struct point64 *p, struct point64 q, int code)
{
    int64_t column = code & OUT_LEFT ? 0 : c->width - 1;
    p->y += (int64_t)((double)(column - p->x) * (double)(q.y - p->y) / (double)(q.x - p->x));
    p->x = column;
}

/* Cohen-Sutherland. False when nothing of the line is inside (the points may have moved all the same). */
static bool clip(const struct canvas *c, struct point64 *p, struct point64 *q)
{
    int code_p = outcode(c, *p), code_q = outcode(c, *q);
    if ((code_p & code_q) || !(code_p | code_q))
        return !(code_p | code_q);
    if (code_p & (OUT_ABOVE | OUT_BELOW)) {
        move_to_row(c, p, *q, code_p);
        code_p = outcode_x(c, *p);
    }
    if (code_q & (OUT_ABOVE | OUT_BELOW)) {
        move_to_row(c, q, *p, code_q);
        code_q = outcode_x(c, *q);
    }
    if (code_p & code_q)
        return false;
    if (code_p)
        move_to_column(c, p, *q, code_p);
    if (code_q)
        move_to_column(c, q, *p, code_q);
    return true;
}

/* Bresenham from the left end; half a pixel rounds towards the start. */
static void draw_line(const struct canvas *c, struct point64 p, struct point64 q)
{
    if (!clip(c, &p, &q))
        return;
    if (p.x > q.x) {
        struct point64 swap = p;
        p = q;
        q = swap;
    }
    int64_t dx = q.x - p.x, dy = llabs(q.y - p.y), down = q.y < p.y ? -1 : 1;
    bool is_steep = dy > dx;
    int64_t length = is_steep ? dy : dx, rise = is_steep ? dx : dy;
    int64_t error = length - 2 * rise, x = p.x, y = p.y;
    for (int64_t i = 0; i <= length; i++) {
        c->mask[y * c->width + x] = 1;
        bool steps_aside = error < 0;
        error += (steps_aside ? 2 * length : 0) - 2 * rise;
        x += is_steep ? steps_aside : 1;
        y += is_steep ? down : steps_aside ? down : 0;
    }
}

/* An edge for filling: x in 1/65536 pixels on row y0, growing by dx a row, ends before y1. */
struct fill_edge {
    int64_t y0, y1, x, dx;
};

#define FIXED_ONE ((int64_t)1 << 16)

static bool make_edge(const struct canvas *c, struct point64 p, struct point64 q, struct fill_edge *edge)
{
    if (p.y == q.y)
        return false;
    struct point64 a = p, b = q; /* two points of the edge's line, x in fixed point */
    if (is_inside(c, p) && is_inside(c, q)) {
        a.x = p.x * FIXED_ONE;
        b.x = q.x * FIXED_ONE;
    } else {
        clip(c, &a, &b);
        a.x *= FIXED_ONE;
        b.x *= FIXED_ONE;
    }
    edge->dx = a.y == b.y ? 0 : (b.x - a.x) / (b.y - a.y);
    edge->y0 = p.y < q.y ? p.y : q.y;
    edge->y1 = p.y < q.y ? q.y : p.y;
    const struct point64 *top = p.y < q.y ? &a : &b;
    edge->x = top->x + (edge->y0 - top->y) * edge->dx;
    return true;
}

static int by_first_row(const void *left, const void *right)
{
    const struct fill_edge *a = left, *b = right;
    return a->y0 < b->y0 ? -1 : a->y0 > b->y0;
}

static void fill_span(const struct canvas *c, int64_t y, int64_t from, int64_t to)
{
    int64_t x0 = (from + FIXED_ONE - 1) >> 16, x1 = to >> 16;
    if (x0 < 0)
        x0 = 0;
    if (x1 >= c->width)
        x1 = c->width - 1;
    if (x0 <= x1)
        memset(c->mask + y * c->width + x0, 1, (size_t)(x1 - x0 + 1));
}

/* edges: [count] sorted by first row; active: [count] room. */
static void fill_inside(const struct canvas *c, struct fill_edge *edges, size_t count,
                        struct fill_edge *active)
{
    size_t next = 0, used = 0;
    for (int64_t y = 0; y < c->height && (next < count || used > 0); y++) {
        for (; next < count && edges[next].y0 <= y; next++) {
            if (edges[next].y1 <= y)
                continue;
            active[used] = edges[next];
            active[used++].x += (y - edges[next].y0) * edges[next].dx;
        }
        size_t kept = 0;
        for (size_t i = 0; i < used; i++) {
            struct fill_edge e = active[i];
            if (e.y1 <= y)
                continue;
            size_t at = kept++;
            for (; at > 0 && active[at - 1].x > e.x; at--)
                active[at] = active[at - 1];
            active[at] = e;
        }
        used = kept;
        for (size_t i = 0; i + 1 < used; i += 2)
            fill_span(c, y, active[i].x, active[i + 1].x);
        for (size_t i = 0; i < used; i++)
            active[i].x += active[i].dx;
    }
}

int pm_fill_polygon(const struct pm_point *polygon, size_t count, uint8_t *mask, int width, int height,
                    struct pm_error *err)
{
    if (width < 1 || height < 1)
        return pm_fail(err, PM_EINVAL, "polygon mask of %d x %d: must not be empty", width, height);
    if (count == 0)
        return 0;
    struct fill_edge few[16];
    void *many = NULL;
    if (count > 8) {
        int rc = pm_alloc_array(2 * count, sizeof(struct fill_edge), &many, err);
        if (rc)
            return rc;
    }
    struct fill_edge *edges = many ? many : few;
    struct canvas c = {mask, width, height};
    size_t edge_count = 0;
    for (size_t i = 0; i < count; i++) {
        const struct pm_point *p = &polygon[i > 0 ? i - 1 : count - 1];
        struct point64 from = {p->x, p->y}, to = {polygon[i].x, polygon[i].y};
        draw_line(&c, from, to);
        edge_count += make_edge(&c, from, to, &edges[edge_count]);
    }
    qsort(edges, edge_count, sizeof *edges, by_first_row);
    fill_inside(&c, edges, edge_count, edges + count);
    free(many);
    return 0;
}
