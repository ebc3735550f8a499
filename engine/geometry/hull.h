/* Convex hull and minimum-area rectangle of points with whole coordinates.
 *
 * Source: Andrew's monotone chain (1979) for the hull, Toussaint's rotating calipers (1983) for the
 * rectangle. Two rectangles of equal area are common here (blobs on a pixel grid are symmetric), and a corner
 * that is 99.99999 instead of 100 becomes another pixel when it is cut to whole numbers. Both therefore
 * follow OpenCV's conventions: where the hull starts, which of two equal rectangles wins, and single
 * precision. Pure; the caller owns all storage; nothing fails except for lack of memory. */
#ifndef PM_ENGINE_GEOMETRY_HULL_H
#define PM_ENGINE_GEOMETRY_HULL_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Coordinates must stay within +-PM_POINT_MAX, so that cross products fit 64 bits with much room. */
#define PM_POINT_MAX (1 << 24)

struct pm_point {
    int32_t x, y;
};

/* The hull's corners, without collinear points, once around in the direction of growing angles with y down.
 * It starts at the largest (x, y), or, when the corners occur in `points` in ascending or descending order
 * apart from a rotation, at the one which makes them so. hull_out: [count] room, may not overlap points. */
int pm_hull(const struct pm_point *points, size_t count, struct pm_point *hull_out, size_t *hull_count_out,
            struct pm_error *err);

/* A rectangle by centre and sides; angle of the `width` side against the x axis, in degrees. */
struct pm_rotated_rect {
    float center_x, center_y;
    float width, height;
    float angle_degrees;
};

/* Smallest rectangle around a hull as pm_hull returns it. One point: 0 x 0 there; two: height 0. */
int pm_min_area_rect(const struct pm_point *hull, size_t count, struct pm_rotated_rect *out,
                     struct pm_error *err);

/* The four corners in order around. */
void pm_rect_corners(const struct pm_rotated_rect *rect, float x_out[4], float y_out[4]);

#endif
