/* Word spaces against the ink: the recogniser invents spaces inside monospaced words ("Con f l icts",
 * "3. 4 . 1") and loses some before "?", "!" and ":".
 *
 * Gaps between characters are measured in the line picture and compared with the line's other gaps and with
 * the distances of its neighbouring characters. The network's word stands unless its own doubt and the ink
 * both speak against it. A revision edits the steps (a space becomes blank, or a blank becomes a space), so
 * that pm_ctc_decode afterwards gives text, words and offsets that agree with each other.
 *
 * Pure: a result depends on the picture and on the steps only. No state; all storage is the caller's. */
#ifndef PM_ENGINE_PPOCR_SPACING_H
#define PM_ENGINE_PPOCR_SPACING_H

#include "base/error.h"
#include "base/image.h"
#include "engine/ppocr/ctc.h"

enum { PM_SPACING_STEP_PX = 8 }; /* columns of the picture per step */

/* line: what the network read (1 or 3 channels, at most 256 rows). decoded: pm_ctc_decode of the steps.
 * *changes_out: how many spaces were taken out or put in; decode again when it is not 0. */
int pm_spacing_revise(const struct pm_image *line, const struct pm_charset *charset,
                      const struct pm_ctc_line *decoded, struct pm_ctc_step *steps, int step_count,
                      int *changes_out, struct pm_error *err);

#endif
