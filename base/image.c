#include "base/image.h"

#include <stdlib.h>

#include "base/mem.h"

int pm_image_alloc(int width_px, int height_px, int channels, struct pm_image *out, struct pm_error *err)
{
    *out = (struct pm_image){0};
    if (width_px < 1 || height_px < 1 || width_px > PM_IMAGE_MAX_SIDE_PX ||
        height_px > PM_IMAGE_MAX_SIDE_PX || (channels != 1 && channels != 3))
        return pm_fail(err, PM_ELIMIT, "picture of %d x %d pixels, %d channels: sides must be 1 to %d",
                       width_px, height_px, channels, PM_IMAGE_MAX_SIDE_PX);
    size_t stride = (size_t)width_px * (size_t)channels;
    if (stride * (size_t)height_px > PM_IMAGE_MAX_BYTES)
        return pm_fail(err, PM_ELIMIT, "picture of %d x %d pixels needs more than %zu MB", width_px,
                       height_px, PM_IMAGE_MAX_BYTES >> 20);
    void *pixels;
    int rc = pm_alloc_array(stride, (size_t)height_px, &pixels, err);
    if (rc)
        return rc;
    *out = (struct pm_image){pixels, width_px, height_px, channels, stride, pixels};
    return 0;
}

static int clamp(int v, int low, int high)
{
    return v < low ? low : v > high ? high : v;
}

struct pm_image pm_image_view(const struct pm_image *image, int left, int top, int width_px, int height_px)
{
    int x0 = clamp(left, 0, image->width_px - 1), y0 = clamp(top, 0, image->height_px - 1);
    int64_t right = (int64_t)left + width_px, bottom = (int64_t)top + height_px;
    int x1 = right > image->width_px ? image->width_px : (int)right;
    int y1 = bottom > image->height_px ? image->height_px : (int)bottom;
    struct pm_image view = *image;
    view.pixels += (size_t)y0 * image->stride_bytes + (size_t)x0 * (size_t)image->channels;
    view.width_px = x1 > x0 ? x1 - x0 : 1;
    view.height_px = y1 > y0 ? y1 - y0 : 1;
    view.owned = NULL;
    return view;
}

void pm_image_free(struct pm_image *image)
{
    free(image->owned);
    *image = (struct pm_image){0};
}
