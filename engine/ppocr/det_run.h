/* Stage outputs of the detector and the classifier, for parity tests and benches. */
#ifndef PM_ENGINE_PPOCR_DET_RUN_H
#define PM_ENGINE_PPOCR_DET_RUN_H

#include <stdint.h>

#include "engine/ppocr/cls.h"
#include "engine/ppocr/det.h"
#include "engine/ppocr/net.h"

/* Largest picture that the network takes, in pixels (its maps take about 90 bytes a pixel). */
#define PM_DET_PIXELS_MAX ((int64_t)16 << 20)

void pm_det_tap(struct pm_det *det, struct pm_tap tap);
void pm_cls_tap(struct pm_cls *cls, struct pm_tap tap);

/* Multiply-adds of a picture. */
int64_t pm_det_macs(int width_px, int height_px);

#endif
