/* The pieces of JSON texts as nodes of a pm_nfa; all written compactly, but for one optional blank after ':'
 * and ','. Like the other builders each takes the node that follows and returns the one to enter. Errors: as
 * pm_nfa.
 *
 * Numbers are bounded so that any reader can hold them: integers of up to 18 digits, fractions of up to 16,
 * exponents of up to 2. */
#ifndef PM_ENGINE_TEXT_GRAMMAR_JSON_H
#define PM_ENGINE_TEXT_GRAMMAR_JSON_H

#include <jansson.h>

#include "engine/text/grammar_nfa.h"

#define PM_JSON_INTEGER_MAX INT64_C(999999999999999999)

enum { PM_JSON_UNBOUNDED = -1 };

/* A character of the set within a string: as itself, or by its shortest escape where it needs one. */
uint32_t pm_json_chars(struct pm_nfa *nfa, const struct pm_char_set *set, uint32_t next);
/* So many characters, written in any way (\u0000 excepted). */
uint32_t pm_json_string(struct pm_nfa *nfa, int min, int max, uint32_t next);
/* A string that is none of the names (UTF-8 texts, sorted by their bytes, different). */
uint32_t pm_json_other_string(struct pm_nfa *nfa, const char *const *names, size_t count, uint32_t next);
uint32_t pm_json_comma(struct pm_nfa *nfa, uint32_t next); /* and the optional blank */
uint32_t pm_json_colon(struct pm_nfa *nfa, uint32_t next);
uint32_t pm_json_number(struct pm_nfa *nfa, uint32_t next);

struct pm_json_range {
    int64_t lo, hi; /* within +-PM_JSON_INTEGER_MAX */
    bool lo_excluded, hi_excluded;
};
uint32_t pm_json_integer_range(struct pm_nfa *nfa, const struct pm_json_range *range, uint32_t next);
/* Numbers with a fraction and without exponent. */
uint32_t pm_json_number_range(struct pm_nfa *nfa, const struct pm_json_range *range, uint32_t next);

/* Any of these values; those of lists and objects in their order. */
uint32_t pm_json_values(struct pm_nfa *nfa, const json_t *list, uint32_t next);
/* The text of a value without blanks: reals by their shortest digits. free() */
char *pm_json_text(const json_t *value);

#endif
