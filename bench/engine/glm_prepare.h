/* From the bytes of a JPEG file to the patches of the vision tower: what comes before a region's first
 * product. The picture is a little smaller than a multiple of the tower's step, so that it is resized.
 *
 * Ownership: glm_prepare_free. Threads: one owner. Errors: those of libjpeg and of the image processor. */
#ifndef PM_BENCH_GLM_PREPARE_H
#define PM_BENCH_GLM_PREPARE_H

#include "engine/vlm/config.h"

#include "base/error.h"

struct glm_prepare {
    unsigned char *jpeg;
    unsigned long jpeg_bytes;
};

/* A page-like picture of that size as a JPEG of quality 90. */
int glm_prepare_new(int width_px, int height_px, struct glm_prepare *out, struct pm_error *err);
void glm_prepare_free(struct glm_prepare *prepare);

/* Seconds from bytes to patches, by the program's own loader and image processor. */
int glm_prepare_run(const struct glm_prepare *prepare, const struct pm_vlm_config *config, double *out,
                    struct pm_error *err);

#endif
