/* Characters and words of recognised text: classes of code points, cleaning, and how the end of one line is
 * joined to the start of the next.
 *
 * Text is UTF-8; a byte that belongs to no character counts as U+FFFD and is kept. Threads: pure functions.
 * Errors: none. */
#ifndef PM_COLLECTOR_TEXT_H
#define PM_COLLECTOR_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

/* The code point at text[at] (at < bytes) and its length in bytes. */
uint32_t pm_text_point(const char *text, size_t bytes, size_t at, size_t *length_out);
/* First and last code point; 0 for empty text. */
uint32_t pm_text_first(const char *text, size_t bytes);
uint32_t pm_text_last(const char *text, size_t bytes);
void pm_text_put(struct pm_buf *out, uint32_t point);

bool pm_text_is_lower(uint32_t point);
bool pm_text_is_upper(uint32_t point);
bool pm_text_is_digit(uint32_t point);  /* ASCII digits */
bool pm_text_is_letter(uint32_t point); /* of any script; not digits, not punctuation */
bool pm_text_is_wide(uint32_t point);   /* scripts written without blanks between words (Han, kana) */
bool pm_text_is_space(uint32_t point);
bool pm_text_is_hyphen(uint32_t point); /* -, U+00AD, U+2010, U+2011 */

/* Does text end a sentence: . ! ? : or their full-width forms, closing quotes and brackets after it allowed?
 */
bool pm_text_ends_sentence(const char *text, size_t bytes);

size_t pm_text_points(const char *text, size_t bytes); /* code points without white space */
size_t pm_text_first_word(const char *text, size_t bytes, size_t *points_out); /* bytes of the first word */

/* Appends text to out with control and zero-width characters and soft hyphens gone, white space of any kind
 * made one blank, none at either end. A soft hyphen at the very end stays, for pm_text_join. */
void pm_text_clean(struct pm_buf *out, const char *text, size_t bytes);

/* Appends the line `next` to the paragraph that begins at out->data[start]:
 *   - a word divided at the line end is put together (lower case goes on, no hyphen in the word before it);
 *   - hyphens that belong to the word stay: after a digit or a single letter, in words that hold another one,
 *     before upper case;
 *   - "pre- and postwar": a hyphen before and, or, und, oder, et, ou, y, o, e, i stays, with a blank;
 *   - an address or a path broken after / - _ = & ? % goes on without a blank when the next word looks like
 *     its rest and `is_full` (the line reached the right edge);
 *   - nothing between two characters of a script without blanks; a blank everywhere else. */
void pm_text_join(struct pm_buf *out, size_t start, const char *next, size_t bytes, bool is_full);

#endif
