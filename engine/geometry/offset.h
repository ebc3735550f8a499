/* Growing a polygon by a distance with rounded corners.
 *
 * Source: the offset of Johnson's Clipper library, version 6 (round joins, closed polygons, arc tolerance
 * 0.25), restated for what text boxes need: every corner becomes an arc of whole points. Clipper then unites
 * the result with itself; that cannot move a point of its convex hull, which is all that callers look at, so
 * it is left out. Pure; *out is the caller's to free(). */
#ifndef PM_ENGINE_GEOMETRY_OFFSET_H
#define PM_ENGINE_GEOMETRY_OFFSET_H

#include <stddef.h>

#include "base/error.h"
#include "engine/geometry/hull.h"

/* Turning clockwise as seen (y down), starting after the last of the topmost points, as Clipper's result
 * does. Fewer than three different points in a row give an empty result. PM_EINVAL unless distance is > 0 and
 * at most PM_POINT_MAX. */
int pm_offset_round(const struct pm_point *polygon, size_t count, double distance, struct pm_point **out,
                    size_t *count_out, struct pm_error *err);

#endif
