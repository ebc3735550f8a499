/* From a picture to the patches of the vision tower: the reference's image processor (transformers
 * Glm46VImageProcessor, torchvision backend), exact to the last bit of the resized bytes.
 *
 * Size rule (smart_resize): sides to multiples of patch * merge (round half to even); shrink with floor while
 * temporal * height * width is above max_pixels, grow with ceil while below min_pixels; a side below the
 * factor is scaled up first; a longer side of more than 200 times the shorter one is refused.
 * Resizing: bicubic (a = -0.5) with antialias on bytes, horizontal pass first, 16-bit fixed-point weights as
 * in torchvision's uint8 kernel. Normalising: (x - 255 mean) / (255 std), f32.
 *
 * Ownership: pm_patches_free. Threads: reentrant. Errors: PM_ELIMIT for pictures outside the rules, with the
 * numbers; PM_ENOMEM. */
#ifndef PM_ENGINE_VLM_IMAGE_H
#define PM_ENGINE_VLM_IMAGE_H

#include "base/error.h"
#include "base/image.h"
#include "engine/vlm/config.h"

/* The size that a picture is resized to. */
int pm_smart_resize(const struct pm_vlm_config *config, int width_px, int height_px, int *width_out,
                    int *height_out, struct pm_error *err);

/* image: grey or B, G, R. out: tight B, G, R (or grey) of that size; a plain copy when the size is the same.
 */
int pm_resize_bicubic(const struct pm_image *image, int width_px, int height_px, struct pm_image *out,
                      struct pm_error *err);

/* Patches in the order the tower reads them: 2x2 merge blocks in raster order, inside a block row by row. */
struct pm_patches {
    int rows, columns; /* grid in patches; multiples of merge */
    /* [rows * columns, in_channels * temporal * patch * patch], channel (R, G, B) outermost, then time, y, x
     */
    float *values;
};

/* The whole way: resize, normalise, cut. */
int pm_patches_make(const struct pm_vlm_config *config, const struct pm_image *image, struct pm_patches *out,
                    struct pm_error *err);
/* Its first part: the picture in the size in which it is cut; a view of image where that is its own.
 * pm_image_free. */
int pm_patches_resize(const struct pm_vlm_config *config, const struct pm_image *image, struct pm_image *out,
                      struct pm_error *err);
/* Normalise and cut only: sides must be multiples of patch * merge. */
int pm_patches_cut(const struct pm_vlm_config *config, const struct pm_image *image, struct pm_patches *out,
                   struct pm_error *err);
void pm_patches_free(struct pm_patches *patches);

#endif
