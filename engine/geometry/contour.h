/* Borders of blobs in a bit map.
 *
 * Source: Suzuki & Abe, "Topological structural analysis of digitized binary images by border following"
 * (1985), algorithm 1 without the hierarchy: 8-connected blobs, outer borders and holes alike, straight runs
 * (horizontal, vertical, diagonal) reduced to their end points.
 * Pure. The caller owns all storage; pm_contours_free releases what pm_contours_trace allocated. */
#ifndef PM_ENGINE_GEOMETRY_CONTOUR_H
#define PM_ENGINE_GEOMETRY_CONTOUR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/geometry/hull.h"

struct pm_contour {
    size_t first, count; /* in pm_contours.points */
    bool is_hole;        /* its points are those of the blob around the hole */
};

struct pm_contours {
    struct pm_point *points;
    size_t point_count, point_capacity;
    struct pm_contour *items; /* in raster order of their start points */
    size_t count, capacity;
};

/* marks: [height + 2, width + 2], 1 = blob, 0 = background, with a frame of zeros around; overwritten.
 * Only the last `keep` contours are kept (all are followed). PM_ELIMIT for sides above PM_CONTOUR_MAX_SIDE.
 */
#define PM_CONTOUR_MAX_SIDE 65535
int pm_contours_trace(int8_t *marks, int width, int height, size_t keep, struct pm_contours *out,
                      struct pm_error *err);
void pm_contours_free(struct pm_contours *contours);

#endif
