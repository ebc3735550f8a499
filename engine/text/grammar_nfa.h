/* What a constraint is compiled to: nodes over bytes, with calls of rules (as subroutines) for what nests,
 * recurs or is counted. Built from the end: every function takes the node that follows and returns the one to
 * enter.
 *
 * Calls return through a stack of at most PM_NFA_DEPTH_MAX entries. pm_nfa_finish works out how much of it
 * each node still needs, so that a way that could not be finished is never entered.
 *
 * Ownership: pm_nfa_free. Threads: read-only after pm_nfa_finish. Errors: too many nodes are remembered and
 * reported by pm_nfa_finish as PM_ELIMIT; until then building goes on without effect. */
#ifndef PM_ENGINE_TEXT_GRAMMAR_NFA_H
#define PM_ENGINE_TEXT_GRAMMAR_NFA_H

#include "base/error.h"
#include "engine/text/grammar_chars.h"

enum {
    PM_NFA_NODES_MAX = 1 << 18,
    PM_NFA_EDGES_MAX = 1 << 20,
    PM_NFA_DEPTH_MAX = 64,
    PM_NFA_NEVER = 255, /* as need: no end can be reached */
};

/* Two nodes that always exist. */
enum { PM_NFA_NOTHING = 0 /* matches no text */, PM_NFA_RETURN = 1 /* the rule, or the text, is complete */ };

enum pm_nfa_kind {
    PM_NFA_KIND_NOTHING,
    PM_NFA_KIND_RETURN,
    PM_NFA_KIND_BYTES,
    PM_NFA_KIND_SPLIT,
    PM_NFA_KIND_CALL
};

struct pm_nfa_edge {
    uint8_t lo, hi;
    uint32_t next;
};
struct pm_nfa_node {
    uint8_t kind; /* enum pm_nfa_kind */
    uint8_t need; /* entries of the stack beyond those there, to reach the end */
    uint32_t a;   /* bytes: first edge; split: one way; call: rule */
    uint32_t b;   /* bytes: edges, in order, apart; split: the other way; call: node to return to */
};
struct pm_nfa {
    struct pm_nfa_node *nodes;
    size_t count, capacity;
    struct pm_nfa_edge *edges;
    size_t edge_count, edge_capacity;
    uint32_t *rules; /* entry nodes; the text is rule 0 */
    size_t rule_count, rule_capacity;
    bool is_full;
};

void pm_nfa_start(struct pm_nfa *nfa);
void pm_nfa_free(struct pm_nfa *nfa);
int pm_nfa_finish(struct pm_nfa *nfa, struct pm_error *err);

uint32_t pm_nfa_rule(struct pm_nfa *nfa); /* a new rule, to be given its entry */
void pm_nfa_rule_set(struct pm_nfa *nfa, uint32_t rule, uint32_t entry);

uint32_t pm_nfa_bytes(struct pm_nfa *nfa, const struct pm_nfa_edge *edges, size_t count);
uint32_t pm_nfa_byte(struct pm_nfa *nfa, uint8_t lo, uint8_t hi, uint32_t next);
uint32_t pm_nfa_text(struct pm_nfa *nfa, const char *text, size_t bytes, uint32_t next);
uint32_t pm_nfa_split(struct pm_nfa *nfa, uint32_t one, uint32_t other);
/* A split whose ways are set later: for loops. */
uint32_t pm_nfa_split_open(struct pm_nfa *nfa);
void pm_nfa_split_set(struct pm_nfa *nfa, uint32_t node, uint32_t one, uint32_t other);
uint32_t pm_nfa_call(struct pm_nfa *nfa, uint32_t rule, uint32_t next);
/* One character of a tidy set, in UTF-8; extra: NULL or one more edge, for a byte that begins no character of
 * the set. */
uint32_t pm_nfa_chars(struct pm_nfa *nfa, const struct pm_char_set *set, const struct pm_nfa_edge *extra,
                      uint32_t next);

/* Any of several texts, as a tree of their bytes. Sorts texts. */
struct pm_nfa_literal {
    const char *text;
    size_t bytes;
};
uint32_t pm_nfa_texts(struct pm_nfa *nfa, struct pm_nfa_literal *texts, size_t count, uint32_t next);

#endif
