/* Sets of characters: sorted ranges of code points. Surrogates belong to no set, nor does U+0000: it ends
 * texts for too many readers. Ownership: zero-initialise, pm_char_set_free. Threads: none. Errors: none but
 * allocation, which aborts. */
#ifndef PM_ENGINE_TEXT_GRAMMAR_CHARS_H
#define PM_ENGINE_TEXT_GRAMMAR_CHARS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PM_CHAR_MAX = 0x10ffff };

struct pm_char_range {
    uint32_t lo, hi; /* both included */
};
struct pm_char_set {
    struct pm_char_range *ranges;
    size_t count, capacity;
};
void pm_char_set_free(struct pm_char_set *set);
void pm_char_set_add(struct pm_char_set *set, uint32_t lo, uint32_t hi);
void pm_char_set_add_set(struct pm_char_set *set, const struct pm_char_set *other);
/* A Unicode property: general category ("Lu", "L"), script ("Han") or other; false when there is none of that
 * name. */
bool pm_char_set_add_property(struct pm_char_set *set, const char *name);
/* Sorts, joins what touches, takes surrogates and NUL out. The functions below need and keep this form. */
void pm_char_set_tidy(struct pm_char_set *set);
void pm_char_set_negate(struct pm_char_set *set);
/* What of set lies within lo..hi, appended to out. */
void pm_char_set_cut(const struct pm_char_set *set, uint32_t lo, uint32_t hi, struct pm_char_set *out);
/* Index of the first range that ends at or after c. */
size_t pm_char_set_find(const struct pm_char_set *set, uint32_t c);

#endif
