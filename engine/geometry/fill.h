/* Filling polygons with whole coordinates, border included, by the rule of OpenCV's fillPoly.
 *
 * Every edge is drawn as a Bresenham line; inside, each row is filled between pairs of edges (even-odd) with
 * the edges' x rounded to whole pixels. Edges that leave the mask are cut at it first.
 * Pure; the caller owns all storage. */
#ifndef PM_ENGINE_GEOMETRY_FILL_H
#define PM_ENGINE_GEOMETRY_FILL_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/geometry/hull.h"

/* mask: [height, width], set to 1 where the polygon is; the rest is left alone. Points may lie outside. */
int pm_fill_polygon(const struct pm_point *polygon, size_t count, uint8_t *mask, int width, int height,
                    struct pm_error *err);

#endif
