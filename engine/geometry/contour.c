#include "engine/geometry/contour.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Marks of followed pixels. A pixel whose right neighbour was seen to be background while it was on a border
 * (EXIT) cannot start a hole border again; a positive mark other than 1 cannot start an outer border. */
enum { FRESH = 1, FOLLOWED = 2, EXIT = -2 };

/* Directions 0..7 counter-clockwise from the right as seen (y down). */
static const int8_t step_x[8] = {1, 1, 0, -1, -1, -1, 0, 1};
static const int8_t step_y[8] = {0, -1, -1, -1, 0, 1, 1, 1};

struct tracer {
    int8_t *marks;
    ptrdiff_t offsets[8]; /* of the neighbours, in marks */
    struct pm_contours *out;
};

static void add_point(struct pm_contours *c, int x, int y)
{
    PM_GROW(c->points, c->point_count, c->point_capacity);
    c->points[c->point_count++] = (struct pm_point){x, y};
}

/* Follows the border that starts at (x, y), coming from the background pixel in direction `from` (the left
 * neighbour for an outer border, the right one for a hole). */
static void follow(struct tracer *t, int x, int y, ptrdiff_t at, int from)
{
    struct pm_contours *c = t->out;
    int8_t *const start = t->marks + at;
    int direction = from;
    do
        direction = (direction - 1) & 7;
    while (start[t->offsets[direction]] == 0 && direction != from);
    if (direction == from) { /* a lone pixel */
        *start = EXIT;
        add_point(c, x, y);
        return;
    }
    int8_t *const last = start + t->offsets[direction]; /* the border's final pixel before start */
    int8_t *here = start;
    int arrived_by = direction ^ 4; /* no turn recorded when going on this way */
    for (;;) {
        int back = direction;
        int8_t *next;
        bool saw_right = false; /* the right neighbour was passed over as background */
        do {
            direction = (direction + 1) & 7;
            next = here + t->offsets[direction];
            if (*next != 0)
                break;
            saw_right |= direction == 0;
        } while (direction != back);
        if (saw_right)
            *here = EXIT;
        else if (*here == FRESH)
            *here = FOLLOWED;
        if (direction != arrived_by) {
            add_point(c, x, y);
            arrived_by = direction;
        }
        if (next == start && here == last)
            return;
        x += step_x[direction];
        y += step_y[direction];
        here = next;
        direction ^= 4;
    }
}

/* Forgets all but the last `keep` contours, once twice as many have gathered. */
static void trim(struct pm_contours *c, size_t keep, bool is_final)
{
    if (c->count <= keep || (!is_final && c->count < 2 * keep))
        return;
    size_t dropped = c->count - keep;
    size_t first = keep ? c->items[dropped].first : c->point_count;
    if (c->point_count > first)
        memmove(c->points, c->points + first, (c->point_count - first) * sizeof *c->points);
    if (keep)
        memmove(c->items, c->items + dropped, keep * sizeof *c->items);
    for (size_t i = 0; i < keep; i++)
        c->items[i].first -= first;
    c->point_count -= first;
    c->count = keep;
}

/* The next x >= from at which row[x] differs from row[x - 1], or end. */
static int next_change(const int8_t *row, int from, int end)
{
    int x = from;
    while (x + 8 <= end) {
        uint64_t here, before;
        memcpy(&here, row + x, 8);
        memcpy(&before, row + x - 1, 8);
        if (here != before)
            break;
        x += 8;
    }
    while (x < end && row[x] == row[x - 1])
        x++;
    return x;
}

int pm_contours_trace(int8_t *marks, int width, int height, size_t keep, struct pm_contours *out,
                      struct pm_error *err)
{
    *out = (struct pm_contours){0};
    if (width < 1 || height < 1 || width > PM_CONTOUR_MAX_SIDE || height > PM_CONTOUR_MAX_SIDE)
        return pm_fail(err, PM_ELIMIT, "bit map of %d x %d: sides must be 1 to %d", width, height,
                       PM_CONTOUR_MAX_SIDE);
    ptrdiff_t stride = (ptrdiff_t)width + 2;
    struct tracer t = {.marks = marks, .out = out};
    for (int i = 0; i < 8; i++)
        t.offsets[i] = step_y[i] * stride + step_x[i];
    for (int y = 0; y < height; y++) {
        int8_t *row = marks + (y + 1) * stride;
        for (int x = next_change(row, 1, width + 2); x < width + 2; x = next_change(row, x + 1, width + 2)) {
            bool starts_outer = row[x - 1] == 0 && row[x] == FRESH;
            bool starts_hole = row[x] == 0 && row[x - 1] > 0;
            if (!starts_outer && !starts_hole)
                continue;
            int start_x = starts_hole ? x - 1 : x;
            size_t first = out->point_count;
            follow(&t, start_x - 1, y, row + start_x - marks, starts_hole ? 0 : 4);
            PM_GROW(out->items, out->count, out->capacity);
            out->items[out->count++] = (struct pm_contour){first, out->point_count - first, starts_hole};
            trim(out, keep, false);
        }
    }
    trim(out, keep, true);
    return 0;
}

void pm_contours_free(struct pm_contours *contours)
{
    free(contours->points);
    free(contours->items);
    *contours = (struct pm_contours){0};
}
