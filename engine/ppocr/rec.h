/* PP-OCRv6 small text recogniser: one line picture in, per-step best classes out. Every line runs at its own
 * exact width W = ceil(48 w / h) (no padding), so that a line's text never depends on its neighbours.
 * Threads: one owner thread, `threads` compute threads. */
#ifndef PM_ENGINE_PPOCR_REC_H
#define PM_ENGINE_PPOCR_REC_H

#include "base/error.h"
#include "base/image.h"
#include "engine/ppocr/ctc.h"

struct pm_rec;
int pm_rec_open(const char *model_dir, int threads, struct pm_rec **out, struct pm_error *err);
void pm_rec_free(struct pm_rec **rec);

/* Steps T of an input of width W: floor(ceil(ceil(W / 2) / 2) / 2). */
int pm_rec_steps(int width_px);
/* Width of the network input for a crop: ceil(48 w / h), at least 8. */
int pm_rec_width(int crop_width_px, int crop_height_px);

/* count pictures of height 48, any widths >= 8 (1 or 3 channels) -> steps_out[i] [pm_rec_steps(width_i)]
 * (caller's storage). */
int pm_rec_run(struct pm_rec *rec, const struct pm_image *lines, size_t count,
               struct pm_ctc_step *const *steps_out, struct pm_error *err);

#endif
