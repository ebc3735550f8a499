/* A checkpoint folder of the published GLM-OCR sizes (526 tensors, 1,325,258,240 parameters, bf16, 2.65 GB)
 * with deterministic synthetic weights: for size, memory and speed, and for the full-size golden case.
 *
 * A value: seed = FNV-1a 64 of the tensor's name; one splitmix64 step of seed + index; its top 16 bits as s
 * on a grid in [-1, 1); c + a * s rounded to bf16, with (c, a) by the kind of tensor. The extra layer's
 * copies of embedding and head have the main tensors' seeds. So every machine writes the same bytes. */
#ifndef PM_TESTS_TOOLS_FULL_MODEL_H
#define PM_TESTS_TOOLS_FULL_MODEL_H

#include "base/error.h"

/* out: created when missing. tokenizer: a byte-level tokenizer.json, filled up to the published vocabulary
 * with entries that no text makes; chat_template.jinja is taken from its folder or the one above. NULL: only
 * weights and configuration. */
int full_model_write(const char *out, const char *tokenizer, struct pm_error *err);

#endif
