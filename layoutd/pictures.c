#include "layoutd/pictures.h"

#include <leptonica/allheaders.h>
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

#define CELL         8 /* px: pictures are looked for on a grid of such cells */
#define CELL_INK     5 /* pixels of ink that mark a cell; fewer are specks */
#define MAX_PICTURES 200u

struct grid {
    uint8_t *cells; /* 1 = ink, 2 = visited */
    int columns, rows;
};

static void remove_lines(struct pm_ink *ink, const struct pm_lines *lines)
{
    for (uint32_t i = 0; i < lines->count; i++) {
        const struct pm_line *l = &lines->items[i];
        struct pm_rect r = pm_quad_bounds(&l->quad);
        float grow = 0.2f * l->height;
        pm_ink_clear(ink, (int)(r.left - 1.5f * grow), (int)(r.top - grow), (int)(r.right + 1.5f * grow) + 1,
                     (int)(r.bottom + grow) + 1);
    }
}

static void fill_grid(const struct pm_ink *ink, struct grid *g)
{
    const l_uint32 *data = pixGetData(ink->bits);
    int wpl = pixGetWpl(ink->bits);
    for (int r = 0; r < g->rows; r++)
        for (int w = 0; w < wpl; w++) {
            int counts[4] = {0};
            for (int y = r * CELL; y < (r + 1) * CELL && y < ink->height_px; y++) {
                uint32_t word = data[(size_t)y * (size_t)wpl + (size_t)w];
                if (!word)
                    continue;
                for (int k = 0; k < 4; k++)
                    counts[k] += __builtin_popcount(word >> (24 - 8 * k) & 0xff);
            }
            for (int k = 0; k < 4 && 4 * w + k < g->columns; k++)
                g->cells[(size_t)r * (size_t)g->columns + (size_t)(4 * w + k)] = counts[k] >= CELL_INK;
        }
}

/* One connected region of marked cells, joined over gaps of up to `reach` cells. stack: [columns * rows]. */
static struct pm_rect flood(struct grid *g, int start, int reach, int *stack, int *marked_out)
{
    int top = 0, n = 0;
    struct pm_rect r = {INFINITY, INFINITY, -INFINITY, -INFINITY};
    stack[top++] = start;
    g->cells[start] = 2;
    while (top) {
        int at = stack[--top], x = at % g->columns, y = at / g->columns;
        n++;
        r = pm_rect_join(r, (struct pm_rect){(float)x, (float)y, (float)x + 1, (float)y + 1});
        for (int v = y - reach; v <= y + reach; v++)
            for (int u = x - reach; u <= x + reach; u++)
                if (v >= 0 && v < g->rows && u >= 0 && u < g->columns && g->cells[v * g->columns + u] == 1) {
                    g->cells[v * g->columns + u] = 2;
                    stack[top++] = v * g->columns + u;
                }
    }
    *marked_out = n;
    return r;
}

static bool is_picture(const struct pm_rect *r, int marked, const struct pm_ink *ink,
                       const struct pm_lines *lines, float type_px)
{
    float w = pm_rect_width(r), h = pm_rect_height(r);
    float share = (float)marked * CELL * CELL / fmaxf(1, w * h);
    if (fminf(w, h) < 1.5f * type_px || fmaxf(w, h) < 1.9f * type_px || share < 0.1f)
        return false;
    /* shadows of a scanner's lid and of the book's fold hug the border */
    float width = (float)ink->width_px, height = (float)ink->height_px;
    bool hugs = r->left < 2 * CELL || r->top < 2 * CELL || r->right > width - 2 * CELL ||
                r->bottom > height - 2 * CELL;
    if (hugs && (w < 0.05f * width || h < 0.05f * height))
        return false;
    /* a background behind the text is no picture */
    uint32_t inside = 0;
    for (uint32_t i = 0; i < lines->count; i++) {
        float x = pm_rect_middle_x(&lines->items[i].box), y = pm_rect_middle_y(&lines->items[i].box);
        inside += x > r->left && x < r->right && y > r->top && y < r->bottom;
    }
    return !(inside > 5 && w * h > 0.6f * width * height);
}

static bool in_table(const struct pm_rect *r, const struct pm_tables *tables)
{
    for (uint32_t i = 0; tables && i < tables->count; i++) {
        const struct pm_rect *t = &tables->items[i].box;
        if (pm_rect_overlap_x(r, t) * pm_rect_overlap_y(r, t) > 0.5f * pm_rect_width(r) * pm_rect_height(r))
            return true;
    }
    return false;
}

void pm_pictures_find(struct pm_ink *ink, const struct pm_lines *lines, const struct pm_tables *tables,
                      float type_px, struct pm_rect **pictures_out, uint32_t *count_out)
{
    struct grid g = {.columns = (ink->width_px + CELL - 1) / CELL,
                     .rows = (ink->height_px + CELL - 1) / CELL};
    size_t cells = (size_t)g.columns * (size_t)g.rows;
    struct pm_rect *found = NULL;
    uint32_t count = 0, capacity = 0;
    g.cells = pm_xalloc(cells);
    int *stack = pm_xalloc(sizeof *stack * cells);
    remove_lines(ink, lines);
    fill_grid(ink, &g);
    int reach = (int)fminf(4, fmaxf(1, type_px / CELL * 0.7f));
    for (size_t i = 0; i < cells && count < MAX_PICTURES; i++) {
        if (g.cells[i] != 1)
            continue;
        int marked;
        struct pm_rect r = flood(&g, (int)i, reach, stack, &marked);
        r = (struct pm_rect){r.left * CELL, r.top * CELL, fminf(r.right * CELL, (float)ink->width_px),
                             fminf(r.bottom * CELL, (float)ink->height_px)};
        if (!is_picture(&r, marked, ink, lines, type_px) || in_table(&r, tables))
            continue;
        PM_GROW(found, count, capacity);
        found[count++] = r;
    }
    for (bool changed = true; changed;) { /* overlapping ones are one */
        changed = false;
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t j = i + 1; j < count; j++)
                if (pm_rect_overlap_x(&found[i], &found[j]) > 0 &&
                    pm_rect_overlap_y(&found[i], &found[j]) > 0) {
                    found[i] = pm_rect_join(found[i], found[j]);
                    found[j] = found[--count];
                    changed = true;
                    j = i;
                }
    }
    free(stack);
    free(g.cells);
    *pictures_out = found;
    *count_out = count;
}
