/* Cutting a line out of a page and resizing pictures, exactly as OpenCV does it in the reference pipeline.
 * Pure functions; outputs are the caller's (pm_image_free). Grey pictures stay grey. */
#ifndef PM_ENGINE_PPOCR_CROP_H
#define PM_ENGINE_PPOCR_CROP_H

#include "base/error.h"
#include "base/image.h"
#include "engine/ppocr/det.h"

/* Size of the crop of a quad: width = int(max(|tl-tr|, |br-bl|)), height = int(max(|tl-bl|, |tr-br|)), before
 * a turn. */
void pm_crop_size(const struct pm_quad *quad, int *width_out, int *height_out);
/* Perspective crop, bicubic (a = -0.75), replicated border. turn_tall: a crop with height / width >= 1.5 is
 * turned 90 degrees counter-clockwise, as the reference does. PM_ELIMIT for degenerate or oversized quads. */
int pm_crop_quad(const struct pm_image *image, const struct pm_quad *quad, int turn_tall,
                 struct pm_image *out, struct pm_error *err);
/* Bilinear resize on bytes with cv2.resize's INTER_LINEAR rule (11-bit fixed-point weights, no
 * anti-aliasing). */
int pm_resize_bilinear(const struct pm_image *image, int width_px, int height_px, struct pm_image *out,
                       struct pm_error *err);
/* Area-averaging shrink (for large reductions where bilinear would alias); never enlarges. */
int pm_resize_area(const struct pm_image *image, int width_px, int height_px, struct pm_image *out,
                   struct pm_error *err);

#endif
