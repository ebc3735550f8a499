/* Text lines of an upright page: the detector's quads with what their ink says about them.
 *
 * A line is a piece of text on one baseline; the detector may join two across a gap and may cut one in two.
 * Ownership: the caller's arrays; `gaps` belongs to the line (pm_lines_free). Threads: none. */
#ifndef PM_LAYOUTD_LINES_H
#define PM_LAYOUTD_LINES_H

#include <stddef.h>

#include "layoutd/ink.h"

struct pm_gap { /* a stretch of a line without ink, upright px */
    float left, right;
};

struct pm_line {
    struct pm_quad quad; /* upright px, as detected: what is cut out and read */
    struct pm_rect box;  /* upright; left and right are the ink's when it was measured */
    float height;        /* of the quad across its direction */
    float baseline;      /* y; estimated from the box without ink */
    float x_height;      /* px; 0.42 of the height without ink */
    float stroke;        /* mean width of strokes / x_height; 0 without ink */
    float size;          /* of the type: about an em, px */
    float mono_pitch;    /* px from character to character if they stand on a grid, and ... */
    float mono_strength; /* ... how well they do, 0..1 */
    bool is_mono;        /* well enough to be sure */
    float *marks;        /* middles of the narrow gaps between characters */
    uint32_t mark_count;
    float score;        /* the detector's */
    float bullet_right; /* right edge of a small mark that leads the line (it may stand before the box), 0 for
                           none */
    struct pm_gap *gaps; /* left to right, each at least 0.12 of the height wide */
    uint32_t gap_count;
    bool is_vertical; /* runs up or down the page; height is its short side */
    int table, cell;  /* set by the layout; -1: in none */
};

struct pm_lines {
    struct pm_line *items;
    uint32_t count, capacity;
};

/* Quads of the source become lines of the upright page; degenerate ones are left out. */
void pm_lines_add(struct pm_lines *lines, const struct pm_det_box *boxes, size_t count,
                  const struct pm_map3 *to_upright);
/* Measures all lines on ink from which rules were removed. Lines without any ink are dropped. */
void pm_lines_measure(struct pm_lines *lines, const struct pm_ink *ink);
/* How much the lines still lean on the ink, in degrees clockwise: the shift between the ink of their left and
 * right parts. 0 when fewer than four lines are long enough to tell. */
float pm_lines_lean(const struct pm_lines *lines, const struct pm_ink *ink);
/* Cuts line `index` at x into two; the right part is appended. False when x is not inside. */
bool pm_lines_split(struct pm_lines *lines, uint32_t index, float x);
/* How well the line's characters stand on the grid of another line, -1..1; 0 without marks. */
float pm_line_fit(const struct pm_line *line, const struct pm_line *grid);
void pm_lines_free(struct pm_lines *lines);
/* Median height of the lines' quads, `fallback` when there are none. */
float pm_lines_typical_height(const struct pm_lines *lines, float fallback);

#endif
