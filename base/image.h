/* A picture in memory: bytes, interleaved, top row first. The one pixel type that decode, layoutd, engine and
 * collector exchange. Colour order is B, G, R (the networks' order); grey has one channel.
 *
 * Ownership: pm_image_free releases pixels made by pm_image_alloc; a view (owned == NULL) borrows its pixels.
 */
#ifndef PM_BASE_IMAGE_H
#define PM_BASE_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PM_IMAGE_MAX_SIDE_PX 65535
#define PM_IMAGE_MAX_BYTES   ((size_t)1 << 30)

struct pm_image {
    const uint8_t *pixels; /* [height_px, stride_bytes], the first width_px * channels bytes of a row count */
    int width_px, height_px;
    int channels;        /* 1 (grey) or 3 (B, G, R) */
    size_t stride_bytes; /* >= width_px * channels */
    uint8_t *owned;      /* == pixels when this struct owns them, else NULL */
};

/* Zeroless fresh pixels with a tight stride; PM_ELIMIT outside 1..PM_IMAGE_MAX_SIDE_PX or above
 * PM_IMAGE_MAX_BYTES. */
int pm_image_alloc(int width_px, int height_px, int channels, struct pm_image *out, struct pm_error *err);
/* Borrowed rectangle of an image, clamped to it; width and height are at least 1 when the image is not empty.
 */
struct pm_image pm_image_view(const struct pm_image *image, int left, int top, int width_px, int height_px);
void pm_image_free(struct pm_image *image);

#endif
