/* What the parity tests ask of the networks beyond their public headers. Not for use outside engine/ and tests/.
 * Ownership, threads and errors as in rec.h. */
#ifndef PM_ENGINE_PPOCR_INTERNAL_H
#define PM_ENGINE_PPOCR_INTERNAL_H

#include "engine/ppocr/rec.h"

/* As pm_rec_run, with every line padded on the right to padded_width_px by 0.0 after normalisation (grey 127.5, which
 * no byte can hold), as the reference pads the lines of a batch. steps_out[i]: [pm_rec_steps(padded_width_px)].
 * PM_EINVAL when a line is wider than that. */
int pm_rec_run_padded(struct pm_rec *rec, const struct pm_image *lines, size_t count, int padded_width_px,
                      struct pm_ctc_step *const *steps_out, struct pm_error *err);

#endif
