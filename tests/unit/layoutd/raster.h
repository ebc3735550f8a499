/* Pictures drawn in memory for the layout tests. */
#ifndef PM_TESTS_LAYOUTD_RASTER_H
#define PM_TESTS_LAYOUTD_RASTER_H

#include "base/image.h"
#include "layoutd/plane.h"

struct pm_image raster_new(int width, int height, uint8_t grey);
void raster_fill(struct pm_image *image, int left, int top, int right, int bottom, uint8_t grey);
/* Something like a line of words: stems of x-height with ascenders, in words of 5, from left to right. */
void raster_text(struct pm_image *image, int left, int baseline, int right, int x_height, uint8_t grey);
/* The picture turned clockwise by any angle about its middle, same size. */
struct pm_image raster_lean(const struct pm_image *image, double degrees, uint8_t fill);
/* The box that a detector would give for a line drawn by raster_text. */
struct pm_quad raster_quad(int left, int baseline, int right, int x_height);

#endif
