#include "raster.h"

#include <stdlib.h>
#include <string.h>

#include "layoutd/upright.h"

struct pm_image raster_new(int width, int height, uint8_t grey)
{
    struct pm_image image;
    if (pm_image_alloc(width, height, 1, &image, NULL))
        abort();
    memset(image.owned, grey, image.stride_bytes * (size_t)height);
    return image;
}

void raster_fill(struct pm_image *image, int left, int top, int right, int bottom, uint8_t grey)
{
    for (int y = top < 0 ? 0 : top; y < bottom && y < image->height_px; y++)
        for (int x = left < 0 ? 0 : left; x < right && x < image->width_px; x++)
            image->owned[(size_t)y * image->stride_bytes + (size_t)x] = grey;
}

void raster_text(struct pm_image *image, int left, int baseline, int right, int x_height, uint8_t grey)
{
    int stem = x_height / 4 ? x_height / 4 : 1, letter = 0;
    for (int x = left; x + 2 * stem <= right; letter++) {
        bool is_tall = letter % 4 == 1, is_low = letter % 7 == 5;
        raster_fill(image, x, baseline - (is_tall ? 3 * x_height / 2 : x_height), x + stem,
                    baseline + (is_low ? x_height / 2 : 0), grey);
        raster_fill(image, x, baseline - x_height, x + 2 * stem, baseline - x_height + stem, grey);
        raster_fill(image, x, baseline - stem, x + 2 * stem, baseline, grey);
        x += 2 * stem + (letter % 5 == 4 ? x_height : stem);
    }
}

struct pm_image raster_lean(const struct pm_image *image, double degrees, uint8_t fill)
{
    struct pm_image out;
    struct pm_map3 map =
        pm_map3_rotation(-degrees, image->width_px, image->height_px, image->width_px, image->height_px);
    if (pm_image_warp(image, &map, image->width_px, image->height_px, fill, &out, NULL))
        abort();
    return out;
}

struct pm_quad raster_quad(int left, int baseline, int right, int x_height)
{
    float x = (float)x_height;
    return pm_quad_of_rect((struct pm_rect){(float)left - 0.6f * x, (float)baseline - 2.1f * x,
                                            (float)right + 0.6f * x, (float)baseline + 0.9f * x});
}
