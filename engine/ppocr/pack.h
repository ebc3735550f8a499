/* Packing of the PP-OCR family: det, rec and cls .safetensors plus rec_characters.txt -> a model folder. */
#ifndef PM_ENGINE_PPOCR_PACK_H
#define PM_ENGINE_PPOCR_PACK_H

#include "base/error.h"

int pm_ppocr_pack_has(const char *src_dir); /* 1 when the folder holds such a model */
int pm_ppocr_pack_build(const char *src_dir, const char *out_dir, struct pm_error *err);

#endif
