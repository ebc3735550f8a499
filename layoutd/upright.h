/* Which way up, and how straight: decided from the detected lines of text. Pure, but for the classifier.
 *
 * Threads: none. Nothing is kept. */
#ifndef PM_LAYOUTD_UPRIGHT_H
#define PM_LAYOUTD_UPRIGHT_H

#include <stddef.h>
#include <stdint.h>

#include "engine/ppocr/cls.h"
#include "layoutd/plane.h"

/* Lean of the text in degrees clockwise, from the lines' slopes (median, weighted by length); lines_out: how
 * many agree with it within half a degree (0: no evidence, and 0 is returned). */
float pm_skew_of_boxes(const struct pm_det_box *boxes, size_t count, size_t *lines_out);
/* The same from the ink of the picture, for pages with few lines. False when it cannot be told. */
bool pm_skew_of_ink(const struct pm_image *grey, float *degrees_out, struct pm_error *err);

/* Do most lines run up or down the picture? */
bool pm_is_sideways(const struct pm_det_box *boxes, size_t count);

/* Asks a classifier about parts of the longest lines. */
typedef int (*pm_turned_fn)(void *context, const struct pm_image *line, float *turned_out,
                            struct pm_error *err);
/* By how many degrees clockwise the picture must be turned to stand upright: 0, 90, 180, 270. An undecided
 * vote is 0. */
int pm_turn_of_lines(const struct pm_image *image, const struct pm_det_box *boxes, size_t count,
                     pm_turned_fn ask, void *context, int *degrees_out, struct pm_error *err);

/* The picture turned clockwise by 0, 90, 180 or 270 degrees; fresh pixels. */
int pm_image_turn(const struct pm_image *image, int degrees, struct pm_image *out, struct pm_error *err);
/* width x height pixels of an upright page, taken bilinearly from the source through the map; places outside
 * the source get `fill`. */
int pm_image_warp(const struct pm_image *source, const struct pm_map3 *to_source, int width_px, int height_px,
                  uint8_t fill, struct pm_image *out, struct pm_error *err);

#endif
