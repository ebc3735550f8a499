/* The recogniser in pieces, for the reader (which must not hold the caller longer than a step) and for tests.
 *
 * One line at a time goes through backbone and neck: pm_rec_start, then pm_rec_continue until it is done; its
 * result is a sequence [T, PM_REC_FEATURES]. pm_rec_head turns sequences (of several lines at once: its
 * weights are as large as all others together) into classes. Threads, ownership and errors as in rec.h. */
#ifndef PM_ENGINE_PPOCR_REC_RUN_H
#define PM_ENGINE_PPOCR_REC_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/ppocr/net.h"
#include "engine/ppocr/rec.h"

enum { PM_REC_FEATURES = 120, PM_REC_CLASSES = 18710, PM_REC_HEIGHT = 48, PM_REC_WIDTH_MAX = 8192 };

/* Multiply-adds of a line of that width without and of one step of the head. */
int64_t pm_rec_line_macs(int width_px);
int64_t pm_rec_head_macs(int steps);

/* line: PM_REC_HEIGHT high, 8..PM_REC_WIDTH_MAX wide, borrowed until done. padded_width >= its width: the
 * rest is filled with middle grey, as the reference's batches are (attention sees it). */
int pm_rec_start(struct pm_rec *rec, const struct pm_image *line, int padded_width, struct pm_error *err);
/* Works until done or about budget_macs are spent. sequence_out (when done): [T, PM_REC_FEATURES], valid
 * until the next start. */
int pm_rec_continue(struct pm_rec *rec, int64_t budget_macs, bool *done_out, const float **sequence_out,
                    int *steps_out, struct pm_error *err);
/* Multiply-adds that the line in work still needs (0: none is in work). */
int64_t pm_rec_macs_left(const struct pm_rec *rec);
/* Forgets the line in work. */
void pm_rec_drop(struct pm_rec *rec);
/* sequence [steps, PM_REC_FEATURES] -> best class and probability of each. */
int pm_rec_head(struct pm_rec *rec, const float *sequence, int steps, struct pm_ctc_step *out,
                struct pm_error *err);

/* Stage outputs by name from now on ("logits" too, when tap.all). fn NULL ends it. */
void pm_rec_tap(struct pm_rec *rec, struct pm_tap tap);

#endif
