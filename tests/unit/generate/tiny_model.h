/* A tiny checkpoint of the GLM-OCR architecture with random weights, made and packed when a test begins: two
 * layers everywhere, an extra layer that guesses right often enough to matter, a tokenizer of bytes.
 *
 * Ownership: pm_tiny_remove. Errors: none; what goes wrong fails the test. */
#ifndef PM_TESTS_TINY_MODEL_H
#define PM_TESTS_TINY_MODEL_H

#include "engine/glm_ocr/glm_ocr.h"
#include "engine/text/tokenizer.h"
#include "engine/vlm/model.h"

enum {
    PM_TINY_VOCAB = 320,
    PM_TINY_POSITIONS = 512,
    PM_TINY_IMAGE = 256 + 15, /* placeholder */
    PM_TINY_END = 256 + 7,    /* "<|user|>", an end token */
};

struct pm_tiny {
    char dir[64];               /* holds "source" and the folders "f32" and "bf16" */
    struct pm_vlm_model *model; /* of the last pm_tiny_open */
    struct pm_tokenizer *tokenizer;
};

enum pm_tiny_kind {
    PM_TINY_BLOCK,  /* its manifest says a reader of blocks */
    PM_TINY_LINE,   /* of lines: 32 px high, steps of 16, at most 256 wide */
    PM_TINY_ENDLESS /* of blocks; a text never ends by itself, at most 16000 tokens */
};
/* Writes the checkpoint into the folder source, which is made. */
void pm_tiny_checkpoint(const char *source, enum pm_tiny_kind kind);

/* Makes the checkpoint and packs it in every precision. */
void pm_tiny_make(struct pm_tiny *tiny, enum pm_tiny_kind kind);
char *pm_tiny_folder(const struct pm_tiny *tiny, enum pm_precision precision); /* free() */
void pm_tiny_open(struct pm_tiny *tiny, enum pm_precision precision);
void pm_tiny_close(struct pm_tiny *tiny);
void pm_tiny_remove(struct pm_tiny *tiny);

/* Small random numbers that are the same everywhere. */
uint64_t pm_tiny_random(uint64_t *state);
int pm_tiny_between(uint64_t *state, int least, int most);
/* A random picture; pixels are the caller's (pm_image_free). */
struct pm_image pm_tiny_picture(uint64_t *state, int width_px, int height_px);

#endif
