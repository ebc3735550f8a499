#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/text/grammar_nfa.h"

void pm_nfa_start(struct pm_nfa *nfa)
{
    *nfa = (struct pm_nfa){0};
    for (int i = 0; i < 2; i++) {
        PM_GROW(nfa->nodes, nfa->count, nfa->capacity);
        nfa->nodes[nfa->count++] = (struct pm_nfa_node){.kind = (uint8_t)i};
    }
    pm_nfa_rule(nfa);
}

void pm_nfa_free(struct pm_nfa *nfa)
{
    free(nfa->nodes);
    free(nfa->edges);
    free(nfa->rules);
    *nfa = (struct pm_nfa){0};
}

static uint32_t add_node(struct pm_nfa *nfa, enum pm_nfa_kind kind, uint32_t a, uint32_t b)
{
    if (nfa->count >= PM_NFA_NODES_MAX)
        nfa->is_full = true;
    if (nfa->is_full)
        return PM_NFA_NOTHING;
    PM_GROW(nfa->nodes, nfa->count, nfa->capacity);
    nfa->nodes[nfa->count] = (struct pm_nfa_node){.kind = (uint8_t)kind, .a = a, .b = b};
    return (uint32_t)nfa->count++;
}

uint32_t pm_nfa_rule(struct pm_nfa *nfa)
{
    if (nfa->rule_count >= PM_NFA_NODES_MAX) {
        nfa->is_full = true;
        return 0;
    }
    PM_GROW(nfa->rules, nfa->rule_count, nfa->rule_capacity);
    nfa->rules[nfa->rule_count] = PM_NFA_NOTHING;
    return (uint32_t)nfa->rule_count++;
}

void pm_nfa_rule_set(struct pm_nfa *nfa, uint32_t rule, uint32_t entry)
{
    nfa->rules[rule] = entry;
}

uint32_t pm_nfa_bytes(struct pm_nfa *nfa, const struct pm_nfa_edge *edges, size_t count)
{
    if (count == 0)
        return PM_NFA_NOTHING;
    if (nfa->edge_count + count > PM_NFA_EDGES_MAX)
        nfa->is_full = true;
    if (nfa->is_full)
        return PM_NFA_NOTHING;
    uint32_t first = (uint32_t)nfa->edge_count;
    for (size_t i = 0; i < count; i++) {
        PM_GROW(nfa->edges, nfa->edge_count, nfa->edge_capacity);
        nfa->edges[nfa->edge_count++] = edges[i];
    }
    return add_node(nfa, PM_NFA_KIND_BYTES, first, (uint32_t)count);
}

uint32_t pm_nfa_byte(struct pm_nfa *nfa, uint8_t lo, uint8_t hi, uint32_t next)
{
    return pm_nfa_bytes(nfa, &(struct pm_nfa_edge){lo, hi, next}, 1);
}

uint32_t pm_nfa_text(struct pm_nfa *nfa, const char *text, size_t bytes, uint32_t next)
{
    while (bytes--)
        next = pm_nfa_byte(nfa, (uint8_t)text[bytes], (uint8_t)text[bytes], next);
    return next;
}

uint32_t pm_nfa_split(struct pm_nfa *nfa, uint32_t one, uint32_t other)
{
    if (one == PM_NFA_NOTHING || one == other)
        return other;
    return other == PM_NFA_NOTHING ? one : add_node(nfa, PM_NFA_KIND_SPLIT, one, other);
}

uint32_t pm_nfa_split_open(struct pm_nfa *nfa)
{
    return add_node(nfa, PM_NFA_KIND_SPLIT, PM_NFA_NOTHING, PM_NFA_NOTHING);
}

void pm_nfa_split_set(struct pm_nfa *nfa, uint32_t node, uint32_t one, uint32_t other)
{
    if (node == PM_NFA_NOTHING)
        return; /* full */
    nfa->nodes[node].a = one;
    nfa->nodes[node].b = other;
}

uint32_t pm_nfa_call(struct pm_nfa *nfa, uint32_t rule, uint32_t next)
{
    return add_node(nfa, PM_NFA_KIND_CALL, rule, next);
}

/* ---- characters ---- */

struct chars {
    struct pm_nfa *nfa;
    struct pm_char_set set; /* of one length in UTF-8 */
    uint32_t next;
    uint32_t any[4]; /* node for k free continuation bytes, 0: not made yet */
};

static uint32_t any_tail(struct chars *c, int k)
{
    if (k == 0)
        return c->next;
    if (c->any[k] == 0)
        c->any[k] = pm_nfa_byte(c->nfa, 0x80, 0xbf, any_tail(c, k - 1));
    return c->any[k];
}

static uint32_t tail(struct chars *c, uint32_t base, int k);

/* Edges for count blocks of 64^k characters each, the first at base, named by bytes from lead. */
static size_t block_edges(struct chars *c, uint32_t base, int k, uint8_t lead, int count,
                          struct pm_nfa_edge *out)
{
    size_t n = 0;
    uint32_t span = 1u << 6 * k;
    for (int v = 0; v < count; v++) {
        uint32_t lo = base + (uint32_t)v * span, hi = lo + span - 1, next = PM_NFA_NOTHING;
        size_t i = pm_char_set_find(&c->set, lo);
        if (i < c->set.count && c->set.ranges[i].lo <= hi)
            next = c->set.ranges[i].lo <= lo && c->set.ranges[i].hi >= hi ? any_tail(c, k) : tail(c, lo, k);
        uint8_t byte = (uint8_t)(lead + v);
        if (next == PM_NFA_NOTHING)
            continue;
        if (n && out[n - 1].next == next && out[n - 1].hi + 1 == byte)
            out[n - 1].hi = byte;
        else
            out[n++] = (struct pm_nfa_edge){byte, byte, next};
    }
    return n;
}

static uint32_t tail(struct chars *c, uint32_t base, int k)
{
    struct pm_nfa_edge edges[64];
    if (c->nfa->is_full)
        return PM_NFA_NOTHING;
    return pm_nfa_bytes(c->nfa, edges, block_edges(c, base, k - 1, 0x80, 64, edges));
}

uint32_t pm_nfa_chars(struct pm_nfa *nfa, const struct pm_char_set *set, const struct pm_nfa_edge *extra,
                      uint32_t next)
{
    static const struct {
        uint32_t lo, hi;
        uint8_t lead;
        int k, leads;
    } forms[] = {{0, 0x7f, 0, 0, 128},
                 {0x80, 0x7ff, 0xc0, 1, 32},
                 {0x800, 0xffff, 0xe0, 2, 16},
                 {0x10000, PM_CHAR_MAX, 0xf0, 3, 5}};
    struct pm_nfa_edge edges[128 + 32 + 16 + 5 + 1];
    size_t n = 0;
    if (next == PM_NFA_NOTHING)
        return PM_NFA_NOTHING;
    for (int f = 0; f < 4; f++) {
        struct chars c = {.nfa = nfa, .next = next};
        pm_char_set_cut(set, forms[f].lo, forms[f].hi, &c.set);
        if (c.set.count)
            n += block_edges(&c, 0, forms[f].k, forms[f].lead, forms[f].leads, edges + n);
        pm_char_set_free(&c.set);
    }
    if (extra) {
        size_t at = n++;
        for (; at > 0 && edges[at - 1].lo > extra->lo; at--)
            edges[at] = edges[at - 1];
        edges[at] = *extra;
    }
    return pm_nfa_bytes(nfa, edges, n);
}

/* ---- many texts ---- */

static int by_bytes(const void *a, const void *b)
{
    const struct pm_nfa_literal *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->bytes < y->bytes ? x->bytes : y->bytes);
    return order ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* texts: sorted, equal in their first `from` bytes */
static uint32_t branch(struct pm_nfa *nfa, const struct pm_nfa_literal *texts, size_t count, size_t from,
                       uint32_t next)
{
    const struct pm_nfa_literal *first = texts, *last = texts + count - 1;
    size_t common = from;
    if (nfa->is_full)
        return PM_NFA_NOTHING;
    while (common < first->bytes && common < last->bytes && first->text[common] == last->text[common])
        common++;
    struct pm_nfa_edge *edges = NULL;
    size_t n = 0, capacity = 0, i = 0;
    uint32_t at = PM_NFA_NOTHING;
    while (i < count && texts[i].bytes == common) {
        at = next;
        i++;
    }
    while (i < count) {
        uint8_t byte = (uint8_t)texts[i].text[common];
        size_t end = i + 1;
        while (end < count && (uint8_t)texts[end].text[common] == byte)
            end++;
        PM_GROW(edges, n, capacity);
        edges[n++] = (struct pm_nfa_edge){byte, byte, branch(nfa, texts + i, end - i, common + 1, next)};
        i = end;
    }
    at = pm_nfa_split(nfa, pm_nfa_bytes(nfa, edges, n), at);
    free(edges);
    return pm_nfa_text(nfa, first->text + from, common - from, at);
}

uint32_t pm_nfa_texts(struct pm_nfa *nfa, struct pm_nfa_literal *texts, size_t count, uint32_t next)
{
    if (count == 0)
        return PM_NFA_NOTHING;
    qsort(texts, count, sizeof *texts, by_bytes);
    return branch(nfa, texts, count, 0, next);
}

/* ---- what each node still needs ---- */

static uint8_t need_of(const struct pm_nfa *nfa, const struct pm_nfa_node *node)
{
    uint8_t need = PM_NFA_NEVER;
    switch ((enum pm_nfa_kind)node->kind) {
    case PM_NFA_KIND_NOTHING:
        return PM_NFA_NEVER;
    case PM_NFA_KIND_RETURN:
        return 0;
    case PM_NFA_KIND_BYTES:
        for (uint32_t i = 0; i < node->b; i++) {
            uint8_t other = nfa->nodes[nfa->edges[node->a + i].next].need;
            need = other < need ? other : need;
        }
        return need;
    case PM_NFA_KIND_SPLIT: {
        uint8_t one = nfa->nodes[node->a].need, other = nfa->nodes[node->b].need;
        return one < other ? one : other;
    }
    case PM_NFA_KIND_CALL: {
        uint8_t rule = nfa->nodes[nfa->rules[node->a]].need, after = nfa->nodes[node->b].need;
        if (node->b == PM_NFA_RETURN)
            return rule; /* nothing to come back for: no entry is made */
        rule = rule < PM_NFA_NEVER ? (uint8_t)(rule + 1) : rule;
        return rule > after ? rule : after;
    }
    }
    return need;
}

/* Needs only ever shrink. Rules are mostly made before those that they call, and nodes after those that
 * follow them, so few rounds settle all; whoever nests so that they do not is refused. */
int pm_nfa_finish(struct pm_nfa *nfa, struct pm_error *err)
{
    enum { ROUNDS_MAX = 300 };
    if (nfa->is_full)
        return pm_fail(err, PM_ELIMIT,
                       "the constraint needs more than %d nodes: shorten it, or lower its counts",
                       PM_NFA_NODES_MAX);
    for (size_t i = 0; i < nfa->count; i++)
        nfa->nodes[i].need = PM_NFA_NEVER;
    bool is_changed = true;
    for (int round = 0; is_changed; round++) {
        if (round == ROUNDS_MAX)
            return pm_fail(err, PM_ELIMIT,
                           "the constraint refers from rule to rule too deeply (over %d steps)", ROUNDS_MAX);
        is_changed = false;
        for (size_t k = 0; k < nfa->count; k++) {
            size_t i = round % 2 ? nfa->count - 1 - k : k;
            uint8_t need = need_of(nfa, &nfa->nodes[i]);
            is_changed = is_changed || need != nfa->nodes[i].need;
            nfa->nodes[i].need = need;
        }
    }
    uint8_t need = nfa->nodes[nfa->rules[0]].need;
    if (need == PM_NFA_NEVER)
        return pm_fail(err, PM_EINVAL, "no text can match the constraint");
    if (need > PM_NFA_DEPTH_MAX)
        return pm_fail(err, PM_ELIMIT, "every matching text nests deeper than %d levels", PM_NFA_DEPTH_MAX);
    return 0;
}
