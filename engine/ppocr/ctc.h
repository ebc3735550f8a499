/* Greedy CTC decoding with confidence and word extents (Graves et al. 2006; reference: rapidocr 3.10,
 * pipeline.md sections 7 and 8). Pure. */
#ifndef PM_ENGINE_PPOCR_CTC_H
#define PM_ENGINE_PPOCR_CTC_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/mem.h"
#include "engine/reader.h"

/* The character list: class i -> UTF-8 text. Class 0 is the blank. */
struct pm_charset {
    char *bytes;          /* owned file content, NULs between entries */
    const char **entries; /* [count] */
    int count;
};
/* One entry a line; PM_EFORMAT when it is not UTF-8 or its count differs from expected_count (0 = any). */
int pm_charset_parse(const char *data, size_t bytes, int expected_count, struct pm_charset *out,
                     struct pm_error *err);
void pm_charset_free(struct pm_charset *charset);

/* The best class and its probability at each of T steps: all that greedy decoding needs. */
struct pm_ctc_step {
    int32_t index;
    float probability;
};

struct pm_ctc_char {
    int32_t index; /* class */
    int column;    /* step at which it was kept */
    float probability;
};

struct pm_ctc_line {
    struct pm_buf text; /* UTF-8, NUL kept after size */
    float confidence;   /* mean of kept probabilities, rounded as the reference does; 0 when empty */
    struct pm_ctc_char *chars;
    size_t char_count;
    struct pm_reader_word
        *words; /* split at white space; left/right as shares of the line's T steps, from real column gaps */
    size_t word_count;
};
int pm_ctc_decode(const struct pm_ctc_step *steps, int step_count, const struct pm_charset *charset,
                  struct pm_ctc_line *out, struct pm_error *err);
void pm_ctc_line_free(struct pm_ctc_line *line);

#endif
