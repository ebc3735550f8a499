/* A checkpoint of the family, small enough to be written by a test: made values, and one thing wrong with it
 * when asked for. */
#ifndef PM_TESTS_UNIT_GLM_OCR_TINY_H
#define PM_TESTS_UNIT_GLM_OCR_TINY_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/vlm/config.h"

enum { TINY_VISION = 8, TINY_TEXT = 12, TINY_VOCAB = 70, TINY_LAYERS = 2, TINY_DEPTH = 2 };

struct tiny {
    bool is_tied, lacks_extra, has_other_copies; /* of the extra layer's table and head */
    const char *without;                         /* this tensor is left out */
    const char *renamed, *name;                  /* this one has another name */
    const char *reshaped;                        /* this one has a row too many */
    const char *spoiled;                         /* value 5 of this one is spoilt */
    float spoilt;
};

/* config.json, tokenizer.json, chat_template.jinja, model.safetensors (F32) in dir, which is made. */
void tiny_write(const char *dir, const struct tiny *t);
/* Value number index of a tensor: a multiple of 1/64 between -2 and 2, exact in bf16. */
float tiny_value(const char *tensor, uint64_t index);
void tiny_put(const char *dir, const char *file, const char *text);
/* The configuration as text; caller frees. */
char *tiny_config(const struct tiny *t);

#endif
