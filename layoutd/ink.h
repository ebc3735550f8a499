/* The ink of a page: one bit a pixel of the upright page, whatever light the picture was taken in.
 *
 * The paper's brightness is measured in tiles, a pixel is ink when it is clearly darker than the paper around
 * it. Turning the page upright happens in the same pass (nearest pixel). Threads: none. Ownership:
 * pm_ink_free releases; the bits are Leptonica's, so that its morphology can be used on them. */
#ifndef PM_LAYOUTD_INK_H
#define PM_LAYOUTD_INK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/image.h"
#include "layoutd/plane.h"

struct Pix;
struct pm_ink {
    struct Pix *bits; /* 1 = ink */
    int width_px, height_px;
    uint8_t paper; /* brightness of the page's paper: the median of the tiles */
};

/* grey: 1 channel. to_source: from upright to source places; affine. PM_ENOMEM. */
int pm_ink_find(const struct pm_image *grey, const struct pm_map3 *to_source, int width_px, int height_px,
                struct pm_ink *out, struct pm_error *err);
void pm_ink_free(struct pm_ink *ink);

/* Ink pixels in a rectangle (clamped). */
long pm_ink_count(const struct pm_ink *ink, int left, int top, int right, int bottom);
/* Adds the ink of rows top..bottom to columns[0 .. right - left) and, when rows is not NULL, of each row to
 * rows[0 .. bottom - top). The rectangle must lie in the page. */
void pm_ink_profile(const struct pm_ink *ink, int left, int top, int right, int bottom, uint16_t *columns,
                    uint16_t *rows);
/* The same area's ink and, in *runs_out, the number of horizontal runs that it is made of. */
long pm_ink_runs(const struct pm_ink *ink, int left, int top, int right, int bottom, long *runs_out);
/* Removes the ink of a rectangle (clamped). */
void pm_ink_clear(struct pm_ink *ink, int left, int top, int right, int bottom);

/* B, G, R -> grey (a quarter, a half, a quarter); a 1-channel picture gives a borrowed view of itself. */
int pm_grey_of(const struct pm_image *image, struct pm_image *out, struct pm_error *err);

#endif
