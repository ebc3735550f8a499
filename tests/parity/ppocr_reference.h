/* Steps of the reference pipeline (rapidocr 3.10, default settings) that our own pipeline does differently on
 * purpose, kept for comparing: sizes, order of boxes, words by column gaps. Pure functions. Ownership: see
 * each. */
#ifndef PM_TESTS_PARITY_PPOCR_REFERENCE_H
#define PM_TESTS_PARITY_PPOCR_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/ppocr/ctc.h"
#include "engine/ppocr/det.h"

/* side * ratio to the nearest multiple of 32, half to even. */
int reference_side_32(int side, double ratio);
/* Size of the detector's input. limit_is_max: shrink until the longer side fits, else enlarge until the
 * shorter does.
 */
void reference_det_size(int width, int height, bool limit_is_max, int limit, int *width_out, int *height_out);

/* Rows of boxes whose top-left corners differ by less than 10 px from one to the next, left to right in a
 * row. */
void reference_sort_boxes(struct pm_quad *quads, size_t count);

struct reference_word {
    size_t first, count; /* characters in reference_words.chars */
    bool is_cn;
};
struct reference_words {
    struct pm_ctc_char *chars; /* kept characters without white space */
    struct reference_word *words;
    size_t count;
};
/* Words: cut at white space, where Chinese meets anything else, and at gaps of more than 5 steps. */
void reference_split_words(const struct pm_ctc_line *line, const struct pm_charset *charset,
                           struct reference_words *out);
void reference_words_free(struct reference_words *words);
/* A word's characters. Caller frees. */
char *reference_word_text(const struct reference_words *words, size_t index,
                          const struct pm_charset *charset);

/* A probability as the reference gives it: five decimals. */
double reference_round5(double v);

#endif
