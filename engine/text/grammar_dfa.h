/* The deterministic automaton over a pm_nfa, made state by state as texts need them. A state is a set of
 * places in the NFA, each with the stack of rules to return to; both are interned, so that equal states are
 * one.
 *
 * Bounded: when the states made take more than a budget, those that nobody holds are dropped; they come back
 * when needed. A constraint so ambiguous that one state would hold over PM_DFA_PLACES_MAX places is followed
 * in the first of them only: what it then allows still matches.
 *
 * Ownership: pm_dfa_free; the NFA is borrowed. States live as long as they are held (pm_dfa_hold) or until
 * the next pm_dfa_trim. Threads: one at a time. Errors: none. */
#ifndef PM_ENGINE_TEXT_GRAMMAR_DFA_H
#define PM_ENGINE_TEXT_GRAMMAR_DFA_H

#include "engine/text/grammar_nfa.h"

enum { PM_DFA_PLACES_MAX = 2048 };

struct pm_dfa;

struct pm_place {
    uint32_t node;  /* PM_NFA_RETURN (the text is complete) or a bytes node */
    uint32_t stack; /* 0: empty */
};
struct pm_dfa_state {
    struct pm_dfa_state *chain; /* next of the same hash bucket */
    uint64_t hash;
    uint32_t count; /* places */
    int holders;
    bool is_accept, can_go_on;
    uint32_t *mask;             /* of the vocabulary, NULL: not made yet */
    struct pm_dfa_state **next; /* by class of byte; NULL: not known yet */
    struct pm_place places[];
};

struct pm_dfa *pm_dfa_new(const struct pm_nfa *nfa);
void pm_dfa_free(struct pm_dfa **dfa);

struct pm_dfa_state *pm_dfa_start(struct pm_dfa *dfa);
void pm_dfa_hold(struct pm_dfa_state *state);
void pm_dfa_drop(struct pm_dfa_state *state);
/* The state after a byte, NULL when it is not allowed. */
struct pm_dfa_state *pm_dfa_step(struct pm_dfa *dfa, struct pm_dfa_state *state, uint8_t byte);
/* The same when it costs nothing: false when the answer has yet to be worked out. */
bool pm_dfa_step_known(const struct pm_dfa *dfa, const struct pm_dfa_state *state, uint8_t byte,
                       struct pm_dfa_state **next_out);
/* Drops what nobody holds when the budget is passed. */
void pm_dfa_trim(struct pm_dfa *dfa);
/* Grows with the work done in steps, about one a byte of memory touched. */
uint64_t pm_dfa_work(const struct pm_dfa *dfa);

/* The mask of a state, [words] zeroed when it is new (*is_new_out). Masks of another vocabulary (key) are
 * dropped, all of them when they take too much room. */
uint32_t *pm_dfa_mask(struct pm_dfa *dfa, struct pm_dfa_state *state, uint64_t key, size_t words,
                      bool *is_new_out);

#endif
