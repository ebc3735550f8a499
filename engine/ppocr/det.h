/* PP-OCRv6 small text detector: a picture in, quadrilaterals of text lines out.
 *
 * Source: the network and pipeline of PaddleOCR's PP-OCRv6 small det (Apache-2.0); post-processing is DB
 * (Liao et al., "Real-time Scene Text Detection with Differentiable Binarization", 2020) as rapidocr 3.10
 * runs it. Threads: a pm_det has one owner thread and uses `threads` compute threads. Ownership: outputs are
 * the caller's. */
#ifndef PM_ENGINE_PPOCR_DET_H
#define PM_ENGINE_PPOCR_DET_H

#include "base/error.h"
#include "base/image.h"

struct pm_quad {
    float x[4],
        y[4]; /* top-left, top-right, bottom-right, bottom-left of the text, pixels of the picture given */
};

struct pm_det_box {
    struct pm_quad quad;
    float score; /* mean probability inside */
};

/* The DB post-processing's parameters; pm_det_params_default() gives those of the reference. */
struct pm_det_params {
    float thresh;       /* 0.3: bit map */
    float box_thresh;   /* 0.5: mean score a box needs */
    float unclip_ratio; /* 1.6 */
    int max_candidates; /* 1000: contours looked at */
    int use_dilation;   /* 1 */
    int score_slow;     /* 0: fast (rectangle), 1: slow (contour) */
};
struct pm_det_params pm_det_params_default(void);

struct pm_det; /* opaque: packed weights mapped from the model folder */
int pm_det_open(const char *model_dir, int threads, struct pm_det **out, struct pm_error *err);
void pm_det_free(struct pm_det **det);

/* The network alone: bgr [height, width, 3] bytes, sides multiples of 32 -> map [height, width] of 0..1
 * (caller's storage). */
int pm_det_map(struct pm_det *det, const struct pm_image *bgr, float *map_out, struct pm_error *err);

/* Whole detector: the picture is resized so that its longer side is limit_px (never enlarged; 0 = keep size),
 * sides rounded to multiples of 32, run, and boxes mapped back to the picture. Boxes in the reference's order
 * (contours bottom to top). *boxes_out: free(). */
int pm_det_run(struct pm_det *det, const struct pm_image *image, int limit_px,
               const struct pm_det_params *params, struct pm_det_box **boxes_out, size_t *count_out,
               struct pm_error *err);

/* Post-processing alone (pure): map [map_height, map_width] -> boxes in a picture of image_width x
 * image_height. free(*boxes_out). */
int pm_det_boxes(const float *map, int map_width, int map_height, int image_width, int image_height,
                 const struct pm_det_params *params, struct pm_det_box **boxes_out, size_t *count_out,
                 struct pm_error *err);

#endif
