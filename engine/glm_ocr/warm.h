/* Makes a model's weights present while the rest of its reader opens: first touch of a mapped file costs more
 * than reading it, and it needs no thread that computes.
 *
 * Ownership: the pack is borrowed until pm_warm_end. Threads: one of its own. Errors: none; without it the
 * first texts are slower. */
#ifndef PM_ENGINE_GLM_OCR_WARM_H
#define PM_ENGINE_GLM_OCR_WARM_H

#include "engine/pack.h"

struct pm_warm;

struct pm_warm *pm_warm_begin(const struct pm_pack *pack); /* NULL when no thread can be had */
/* Waits until the part at work is done, drops the rest. */
void pm_warm_end(struct pm_warm **warm);

#endif
