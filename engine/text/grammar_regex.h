/* Regular expressions, parsed and turned into nodes of a pm_nfa.
 *
 * Served: literals, ., classes with ranges and negation, \d \w \s \D \W \S (ASCII digits and words, Unicode
 * blanks, as ECMAScript), \p{..} \P{..} of Unicode properties, \n \t \r \f \v \xHH \uHHHH \u{H..}, groups
 * (capturing, named and plain), | * + ? {m} {m,} {m,n} (lazy forms mean the same), ^ and $ at the ends.
 * U+0000 is never matched. Lookaround, references back, word borders and flags are PM_EUNSUPPORTED.
 *
 * Ownership: pm_regex_free. Threads: read-only after parsing. Errors: PM_EFORMAT, PM_EUNSUPPORTED, PM_ELIMIT,
 * with the byte of the pattern. */
#ifndef PM_ENGINE_TEXT_GRAMMAR_REGEX_H
#define PM_ENGINE_TEXT_GRAMMAR_REGEX_H

#include "engine/text/grammar_nfa.h"

enum { PM_REGEX_MAX_BYTES = 64 << 10, PM_REGEX_DEPTH_MAX = 150, PM_REGEX_COUNT_MAX = 10000 };

struct pm_regex;

/* search: the pattern may lie anywhere in the text, but for ^ and $ (JSON schema); else all the text matches.
 */
int pm_regex_parse(const char *pattern, bool search, struct pm_regex **out, struct pm_error *err);
void pm_regex_free(struct pm_regex **regex);

/* How a character of the text is written: as itself, or as within a JSON string. */
typedef uint32_t pm_regex_chars(struct pm_nfa *nfa, const struct pm_char_set *set, uint32_t next);
uint32_t pm_regex_utf8(struct pm_nfa *nfa, const struct pm_char_set *set, uint32_t next); /* as itself */

uint32_t pm_regex_build(const struct pm_regex *regex, struct pm_nfa *nfa, pm_regex_chars *chars,
                        uint32_t next);

#endif
