#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/text/grammar.h"
#include "engine/text/grammar_dfa.h"
#include "engine/text/grammar_regex.h"
#include "engine/text/grammar_schema.h"
#include "engine/text/grammar_trie.h"

struct pm_grammar {
    struct pm_nfa nfa;
    struct pm_dfa *dfa;
};
struct pm_grammar_state {
    struct pm_dfa *dfa;
    struct pm_dfa_state *at; /* held */
};

/* ---- compiling ---- */

static struct pm_grammar *start(void)
{
    struct pm_grammar *g = pm_xalloc(sizeof *g);
    pm_nfa_start(&g->nfa);
    return g;
}

/* rc: how building went */
static int finish(struct pm_grammar *g, int rc, struct pm_grammar **out, struct pm_error *err)
{
    if (rc == 0)
        rc = pm_nfa_finish(&g->nfa, err);
    if (rc == 0) {
        g->dfa = pm_dfa_new(&g->nfa);
        if (pm_dfa_start(g->dfa)->count == 0)
            rc = pm_fail(err, PM_ELIMIT,
                         "the constraint repeats what is empty too often before its first byte");
    }
    if (rc)
        pm_grammar_free(&g);
    *out = g;
    return rc;
}

int pm_grammar_regex(const char *pattern, struct pm_grammar **out, struct pm_error *err)
{
    struct pm_grammar *g = start();
    struct pm_regex *regex;
    int rc = pm_regex_parse(pattern, false, &regex, err);
    if (rc == 0)
        pm_nfa_rule_set(&g->nfa, 0, pm_regex_build(regex, &g->nfa, pm_regex_utf8, PM_NFA_RETURN));
    pm_regex_free(&regex);
    return finish(g, rc, out, err);
}

int pm_grammar_json_schema(const char *schema, struct pm_grammar **out, struct pm_error *err)
{
    struct pm_grammar *g = start();
    return finish(g, pm_schema_build(schema, &g->nfa, err), out, err);
}

void pm_grammar_free(struct pm_grammar **grammar)
{
    struct pm_grammar *g = *grammar;
    if (g == NULL)
        return;
    pm_dfa_free(&g->dfa);
    pm_nfa_free(&g->nfa);
    free(g);
    *grammar = NULL;
}

/* ---- following a text ---- */

static struct pm_grammar_state *state_at(struct pm_dfa *dfa, struct pm_dfa_state *at)
{
    struct pm_grammar_state *s = pm_xalloc(sizeof *s);
    s->dfa = dfa;
    s->at = at;
    pm_dfa_hold(at);
    return s;
}

struct pm_grammar_state *pm_grammar_begin(const struct pm_grammar *grammar)
{
    return state_at(grammar->dfa, pm_dfa_start(grammar->dfa));
}

struct pm_grammar_state *pm_grammar_copy(const struct pm_grammar_state *state)
{
    return state_at(state->dfa, state->at);
}

void pm_grammar_end(struct pm_grammar_state **state)
{
    struct pm_grammar_state *s = *state;
    if (s == NULL)
        return;
    pm_dfa_drop(s->at);
    free(s);
    *state = NULL;
}

void pm_grammar_mask(struct pm_grammar_state *s, const struct pm_token_trie *trie, const int32_t *eos_ids,
                     int eos_count, int vocab, uint32_t *mask)
{
    size_t words = (size_t)(vocab + 31) / 32;
    pm_dfa_trim(s->dfa);
    memcpy(mask, pm_token_trie_mask(trie, s->dfa, s->at, vocab), words * sizeof *mask);
    for (int i = 0; i < eos_count; i++) {
        int32_t id = eos_ids[i];
        if (id < 0 || id >= vocab)
            continue;
        if (s->at->is_accept)
            mask[id / 32] |= 1u << (id % 32);
        else
            mask[id / 32] &= ~(1u << (id % 32)); /* even where it spells something */
    }
}

bool pm_grammar_accept(struct pm_grammar_state *s, const uint8_t *bytes, size_t count)
{
    struct pm_dfa_state *at = s->at;
    for (size_t i = 0; i < count; i++) {
        at = pm_dfa_step(s->dfa, at, bytes[i]);
        if (at == NULL)
            return false;
        pm_dfa_hold(at); /* while the others go */
        pm_dfa_trim(s->dfa);
        pm_dfa_drop(at);
    }
    pm_dfa_drop(s->at);
    s->at = at;
    pm_dfa_hold(at);
    return true;
}

bool pm_grammar_is_complete(const struct pm_grammar_state *s)
{
    return s->at->is_accept;
}

bool pm_grammar_is_finished(const struct pm_grammar_state *s)
{
    return s->at->is_accept && !s->at->can_go_on;
}
