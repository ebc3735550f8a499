/* The vision tower: patches of one picture in, image tokens of the decoder out (transformers
 * modeling_glm_ocr.py, GlmOcrVisionModel).
 *
 * Memory grows with the number of patches, never with its square. Ownership: the scratch belongs to the
 * caller and is reused between pictures. Threads: one owner of pool and scratch. Exactness: a picture's
 * tokens do not depend on threads or on other pictures. */
#ifndef PM_ENGINE_VLM_VISION_H
#define PM_ENGINE_VLM_VISION_H

#include "engine/vlm/image.h"
#include "engine/vlm/model.h"

/* Called with what the tower has computed, for parity tests: name as in the goldens ("vision.blocks.3"),
 * values [rows, columns] f32. One name may come in several pieces, rows in order. NULL in production. */
typedef void (*pm_probe)(void *ctx, const char *name, const float *values, int rows, int columns);

struct pm_vision; /* scratch and the state of one picture under way */

/* NULL when memory is out. */
struct pm_vision *pm_vision_new(const struct pm_vlm_model *model, const struct pm_kernels *kernels,
                                struct pm_pool *pool);
void pm_vision_free(struct pm_vision **vision);
void pm_vision_set_probe(struct pm_vision *vision, pm_probe probe, void *ctx);

/* Bytes of scratch that a picture of that many patches takes. */
size_t pm_vision_bytes(const struct pm_vlm_model *model, int64_t patches);

/* Begins a picture (any earlier one is dropped); patches are copied. PM_ENOMEM. */
int pm_vision_begin(struct pm_vision *vision, const struct pm_patches *patches, struct pm_error *err);
/* Does one slice of the work (a part of one block, about max_macs multiply-adds) so that a caller can look at
 * cancels between slices; true when the picture is finished. The slicing never changes the result. */
bool pm_vision_step(struct pm_vision *vision, int64_t max_macs);
/* Where the tower's time goes, for benches: with a clock, each phase adds up what it took, in the clock's
 * unit, since the clock was set. NULL: off. */
enum pm_vision_phase {
    PM_VISION_LINEARS,
    PM_VISION_ATTENTION,
    PM_VISION_NORMS,
    PM_VISION_GATES,
    PM_VISION_TURN, /* norm and rotation of queries and keys; keys and values into their blocks */
    PM_VISION_PHASES
};
void pm_vision_set_clock(struct pm_vision *vision, int64_t (*clock)(void));
const int64_t *pm_vision_spent(const struct pm_vision *vision); /* [PM_VISION_PHASES] */

/* Image tokens of the finished picture: [rows * columns / merge^2, out_hidden] f32, valid until the next
 * begin. */
const float *pm_vision_tokens(const struct pm_vision *vision, int *count_out);

#endif
