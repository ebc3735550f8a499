/* Constrained output: which tokens may come next so that the whole text matches a regular expression or a
 * JSON schema. The constraint is compiled to a deterministic automaton over bytes (schema: with a bounded
 * stack for nested values); tokens are walked through a trie of the vocabulary's bytes, so a mask costs the
 * trie's live part, not the vocabulary.
 *
 * What of regular expressions and of JSON schema is served stands in grammar_regex.h and grammar_schema.h. No
 * state is a dead end: a byte is allowed only when a matching text can still follow.
 *
 * Ownership: a grammar is shared by any number of states and outlives them; states copy cheaply. Threads:
 * tries are read-only; a grammar and its states belong to one thread at a time, for automaton and masks are
 * worked out when needed and kept inside (16 + 8 MiB at most, and what live states need). Errors: PM_EFORMAT
 * (position and reason), PM_EUNSUPPORTED (construct or schema keyword named), PM_ELIMIT (too large, with the
 * limit), PM_EINVAL (no text can match). */
#ifndef PM_ENGINE_TEXT_GRAMMAR_H
#define PM_ENGINE_TEXT_GRAMMAR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/text/tokenizer.h"

struct pm_token_trie;
int pm_token_trie_new(const struct pm_tokenizer *tokenizer, struct pm_token_trie **out, struct pm_error *err);
/* The same from the bytes of each id; NULL or no bytes: never allowed (holes, special tokens). */
int pm_token_trie_new_bytes(const uint8_t *const *bytes, const size_t *sizes, int count,
                            struct pm_token_trie **out, struct pm_error *err);
void pm_token_trie_free(struct pm_token_trie **trie);

struct pm_grammar;
/* The whole text must match (anchored at both ends); characters are Unicode, the automaton runs on UTF-8. */
int pm_grammar_regex(const char *pattern, struct pm_grammar **out, struct pm_error *err);
int pm_grammar_json_schema(const char *schema, struct pm_grammar **out, struct pm_error *err);
void pm_grammar_free(struct pm_grammar **grammar);

struct pm_grammar_state; /* where one sequence is */
struct pm_grammar_state *pm_grammar_begin(const struct pm_grammar *grammar);
struct pm_grammar_state *pm_grammar_copy(const struct pm_grammar_state *state);
void pm_grammar_end(struct pm_grammar_state **state);

/* mask: one bit a token id, [(vocab + 31) / 32] words: 1 = may come next. End tokens (eos) are allowed just
 * when the text so far matches; special tokens are never allowed otherwise. */
void pm_grammar_mask(struct pm_grammar_state *state, const struct pm_token_trie *trie, const int32_t *eos_ids,
                     int eos_count, int vocab, uint32_t *mask);
/* Takes the bytes of an accepted token; false when they were not allowed (the state is then unchanged). */
bool pm_grammar_accept(struct pm_grammar_state *state, const uint8_t *bytes, size_t count);
bool pm_grammar_is_complete(const struct pm_grammar_state *state); /* the text so far matches */
bool pm_grammar_is_finished(const struct pm_grammar_state *state); /* it matches and nothing can follow */

#endif
