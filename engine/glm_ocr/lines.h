/* The pictures of line readers of this family: a line is scaled to a fixed height and to a width that is a
 * multiple of the model's step, as in its training; what is longer than the model reads is cut between words.
 *
 * Ownership: pm_image_free of what is made. Threads: pure functions. Errors: PM_ELIMIT, PM_ENOMEM of the
 * resize. */
#ifndef PM_ENGINE_GLM_OCR_LINES_H
#define PM_ENGINE_GLM_OCR_LINES_H

#include <stdbool.h>

#include "base/error.h"
#include "base/image.h"

struct pm_line_rules { /* of the manifest */
    int height_px;     /* of every line */
    int step_px;       /* widths are multiples of it */
    int max_width_px;  /* a multiple of step_px */
};

/* A part of a line: columns [begin, end) of its picture. */
struct pm_line_part {
    int begin, end;
    bool has_space; /* a gap between words was before it */
};

/* The width that a line of that size is scaled to: nearest multiple (half to even), at least one step. May be
 * above the rules' maximum. */
int64_t pm_line_width(const struct pm_line_rules *rules, int width_px, int height_px);

/* Parts that fit the rules: one for a line that does, else of about equal width, cut where the gap is widest.
 * *parts_out: [*count_out], free(). */
void pm_line_cut(const struct pm_line_rules *rules, const struct pm_image *line,
                 struct pm_line_part **parts_out, int *count_out);

/* The model's picture of a part. */
int pm_line_make(const struct pm_line_rules *rules, const struct pm_image *line,
                 const struct pm_line_part *part, struct pm_image *out, struct pm_error *err);

#endif
