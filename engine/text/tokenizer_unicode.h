/* Unicode as the reference tokenizer sees it: properties for split expressions, white space, and text from
 * bytes that may be broken.
 *
 * The reference (huggingface/tokenizers 0.23) was built with an Oniguruma that knows Unicode 16; the one of
 * Debian 12 knows Unicode 14. What was assigned in between is added to the general categories and to Han
 * here, so that \p{L} and the like cut the same words: of every character the same, compared one by one. Not
 * adjusted: \p{C} and its kinds, other scripts, \w, \d, POSIX brackets, case folding.
 *
 * Threads: all functions may be called from any thread; the tables are built once. Errors: none. */
#ifndef PM_ENGINE_TEXT_TOKENIZER_UNICODE_H
#define PM_ENGINE_TEXT_TOKENIZER_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pm_buf;

/* Starts Oniguruma and defines the properties; before any other use of that library. 0 or its error code. */
int pm_unicode_init(void);

/* The character at text (bytes > 0, valid UTF-8) and its length. */
uint32_t pm_unicode_at(const uint8_t *text, size_t bytes, size_t *length_out);
/* Start of the character that ends at end (end > 0, valid UTF-8). */
size_t pm_unicode_before(const uint8_t *text, size_t end);

bool pm_unicode_is_space(uint32_t c); /* White_Space */
bool pm_unicode_is_word(uint32_t c);  /* letters, marks, decimal digits, connectors, joiners */
bool pm_unicode_has_case(uint32_t c); /* it has, or is, an upper or lower case form */
/* Not control, format, private, surrogate, unassigned, nor a separator other than the blank: what Python's
 * repr() shows as itself. */
bool pm_unicode_is_printable(uint32_t c);

/* Appends bytes as text: each maximal broken part becomes one U+FFFD. */
void pm_unicode_mend(const uint8_t *bytes, size_t count, struct pm_buf *out);

#endif
