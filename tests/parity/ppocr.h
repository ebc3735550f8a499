/* What the checks of kind ppocr share: models opened once for a run.
 * Threads: one. Ownership: the run owns everything here (parity_ppocr.close). */
#ifndef PM_TESTS_PARITY_PPOCR_H
#define PM_TESTS_PARITY_PPOCR_H

#include "engine/ppocr/cls.h"
#include "engine/ppocr/ctc.h"
#include "engine/ppocr/det.h"
#include "engine/ppocr/rec.h"
#include "tests/parity/parity.h"

/* Opened on first use; threads: all cores that this process may use. */
int ppocr_det(const struct parity_case *c, struct pm_det **out, struct pm_error *err);
int ppocr_rec(const struct parity_case *c, struct pm_rec **out, struct pm_error *err);
int ppocr_cls(const struct parity_case *c, struct pm_cls **out, struct pm_error *err);
/* The model's character list, or the one beside or above the golden file. */
int ppocr_charset(const struct parity_case *c, const struct pm_charset **out, struct pm_error *err);

/* Checks outside ppocr.c. */
int parity_end_to_end(const struct parity_case *c, struct parity_verdict *v, struct pm_error *err);

#endif
