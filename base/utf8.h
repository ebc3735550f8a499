/* UTF-8: is it, and making it so. Strict: no overlong forms, no surrogates, nothing above U+10FFFF.
 * Threads: pure functions. Errors: none. */
#ifndef PM_BASE_UTF8_H
#define PM_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

#include "base/mem.h"

/* Length in bytes of the character at data (bytes > 0), 0 when it is not UTF-8 or cut off. */
size_t pm_utf8_length(const void *data, size_t bytes);
bool pm_utf8_is_valid(const void *data, size_t bytes);
/* As pm_utf8_is_valid, and without a NUL byte: fit to become a C string. */
bool pm_utf8_is_text(const void *data, size_t bytes);
/* Appends data to out; each byte that belongs to no character becomes U+FFFD. */
void pm_utf8_mend(const void *data, size_t bytes, struct pm_buf *out);
/* Largest n <= limit such that the first n bytes of text end between two characters. */
size_t pm_utf8_cut(const char *text, size_t limit);

#endif
