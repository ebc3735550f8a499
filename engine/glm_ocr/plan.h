/* What becomes of the checkpoint's tensors in the packed file: which are joined, in which layout they are
 * written, which are left out because they repeat others.
 *
 * Ownership: pm_glm_ocr_plan_free; sources are views of the weights. Threads: plain functions. Errors:
 * PM_EFORMAT with the tensor and what is wrong with it; PM_EUNSUPPORTED for tensors of something else. */
#ifndef PM_ENGINE_GLM_OCR_PLAN_H
#define PM_ENGINE_GLM_OCR_PLAN_H

#include "engine/glm_ocr/glm_ocr.h"
#include "engine/pack.h"

enum { PM_GLM_OCR_JOINED = 3 };

enum pm_glm_ocr_kind {
    PM_GLM_OCR_LINEAR, /* panels of the precision */
    PM_GLM_OCR_TABLE,  /* rows of the precision: embeddings */
    PM_GLM_OCR_VECTOR  /* f32 */
};

struct pm_glm_ocr_item {
    char name[128]; /* in the packed file */
    enum pm_glm_ocr_kind kind;
    uint64_t n, k; /* rows of all sources together, columns */
    int source_count;
    const struct pm_weights_tensor *sources[PM_GLM_OCR_JOINED]; /* rows in this order */
    const struct pm_weights_tensor *biases[PM_GLM_OCR_JOINED];  /* LINEAR: of each source; all or none */
    /* downsample: columns (channel, tap) become (tap, channel) */
    uint64_t taps; /* 1: as they are */
};

struct pm_glm_ocr_plan {
    struct pm_glm_ocr_item *items;
    size_t count, capacity;
    uint64_t parameters;   /* values of the checkpoint */
    uint64_t source_bytes; /* stored bytes of all sources, biases included */
};

/* Checks names and shapes of all tensors. config: mtp_layers becomes 0 when the weights have no extra layer
 * (reference implementations drop it when they save). */
int pm_glm_ocr_plan_make(const struct pm_weights *weights, struct pm_vlm_config *config,
                         struct pm_glm_ocr_plan *out, struct pm_error *err);
void pm_glm_ocr_plan_free(struct pm_glm_ocr_plan *plan);

/* How the panels of a LINEAR are written. int4 is for the products of the text layers: pictures and the words
 * that come out keep 8 bits. */
enum pm_layout pm_glm_ocr_layout(const struct pm_glm_ocr_item *item, enum pm_precision precision);

/* Bytes of the packed tensors, about (without index and gaps). */
uint64_t pm_glm_ocr_plan_bytes(const struct pm_glm_ocr_plan *plan, enum pm_precision precision);

#endif
