/* PP-OCR mobile v2.0 line orientation classifier: is this line picture upright or turned by 180 degrees?
 * One line alone is a weak witness (1 % of upright wide lines get it wrong): ask many lines of a page and
 * take the majority. */
#ifndef PM_ENGINE_PPOCR_CLS_H
#define PM_ENGINE_PPOCR_CLS_H

#include "base/error.h"
#include "base/image.h"

struct pm_cls;
int pm_cls_open(const char *model_dir, int threads, struct pm_cls **out, struct pm_error *err);
void pm_cls_free(struct pm_cls **cls);
/* line: a crop of one text line (any size; resized to 48 high, at most 192 wide, as the reference does).
 * *turned_out: probability 0..1 that it is upside down. */
int pm_cls_run(struct pm_cls *cls, const struct pm_image *line, float *turned_out, struct pm_error *err);

#endif
