/* The vocabulary as a tree of bytes, and the walk of an automaton through it.
 * Ownership: pm_token_trie_free. Threads: read-only after building. Errors: PM_ENOMEM. */
#ifndef PM_ENGINE_TEXT_GRAMMAR_TRIE_H
#define PM_ENGINE_TEXT_GRAMMAR_TRIE_H

#include "engine/text/grammar.h"
#include "engine/text/grammar_dfa.h"

/* The ids below vocab that may follow, one bit each; kept in state. */
const uint32_t *pm_token_trie_mask(const struct pm_token_trie *trie, struct pm_dfa *dfa,
                                   struct pm_dfa_state *state, int vocab);

#endif
