/* The sheet of paper in a photo or scan: a bright quadrilateral before a dark surround.
 *
 * Pure. Says nothing (false) when the page fills the picture, which is the usual case, and when in doubt: a
 * wrong crop loses text, no crop loses nothing. */
#ifndef PM_LAYOUTD_PAGEFIND_H
#define PM_LAYOUTD_PAGEFIND_H

#include "base/image.h"
#include "layoutd/plane.h"

/* quad_out: corners of the paper in pixels of the picture, in reading order. */
bool pm_page_find(const struct pm_image *grey, struct pm_quad *quad_out);

#endif
