#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "engine/text/grammar_trie.h"

enum {
    TOKEN_BYTES_MAX = 1024, /* longer ones are never chosen */
    /* What one mask may cost in states that are not known yet. Where an automaton spreads that much, tokens
     * that were not reached are left out; those of one byte never are, so that some way on remains. */
    WORK_MAX = 48 << 20,
};

struct node {      /* in the order of their bytes, a parent before its children */
    uint32_t skip; /* the node after this one and all below it */
    uint32_t ids, id_count;
    uint16_t depth; /* 1: first byte */
    uint8_t byte;
};
struct pm_token_trie {
    struct node *nodes;
    size_t count, capacity;
    int32_t *ids;
    int depth;
    uint64_t key; /* of all that is in it */
};

struct token {
    const uint8_t *bytes;
    size_t size;
    int32_t id;
};

static int by_bytes(const void *a, const void *b)
{
    const struct token *x = a, *y = b;
    int order = memcmp(x->bytes, y->bytes, x->size < y->size ? x->size : y->size);
    if (order || x->size != y->size)
        return order ? order : x->size < y->size ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static void build(struct pm_token_trie *t, const struct token *tokens, size_t count)
{
    uint32_t path[TOKEN_BYTES_MAX + 1];
    size_t depth = 0;
    struct pm_hasher hasher;
    uint8_t hash[PM_HASH_BYTES];
    pm_hasher_start(&hasher);
    for (size_t i = 0; i < count; i++) {
        const struct token *this = &tokens[i], *last = i ? this - 1 : NULL;
        size_t common = 0;
        while (last && common < last->size && common < this->size &&
               last->bytes[common] == this->bytes[common])
            common++;
        for (; depth > common; depth--)
            t->nodes[path[depth]].skip = (uint32_t)t->count;
        for (; depth < this->size; depth++) {
            PM_GROW(t->nodes, t->count, t->capacity);
            t->nodes[t->count] =
                (struct node){.ids = (uint32_t)i, .depth = (uint16_t)(depth + 1), .byte = this->bytes[depth]};
            path[depth + 1] = (uint32_t)t->count++;
        }
        t->nodes[path[depth]].id_count++;
        t->ids[i] = this->id;
        t->depth = (int)depth > t->depth ? (int)depth : t->depth;
        pm_hasher_add(&hasher, &this->id, sizeof this->id);
        pm_hasher_add(&hasher, &this->size, sizeof this->size);
        pm_hasher_add(&hasher, this->bytes, this->size);
    }
    pm_hasher_finish(&hasher, hash);
    memcpy(&t->key, hash, sizeof t->key);
    for (; depth > 0; depth--)
        t->nodes[path[depth]].skip = (uint32_t)t->count;
}

int pm_token_trie_new_bytes(const uint8_t *const *bytes, const size_t *sizes, int count,
                            struct pm_token_trie **out, struct pm_error *err)
{
    void *memory;
    size_t n = 0;
    *out = NULL;
    if (count < 0)
        return pm_fail(err, PM_EINVAL, "a vocabulary of %d tokens", count);
    int rc = pm_alloc_array((size_t)count + 1, sizeof(struct token), &memory, err);
    if (rc)
        return rc;
    struct token *tokens = memory;
    for (int i = 0; i < count; i++)
        if (bytes[i] && sizes[i] > 0 && sizes[i] <= TOKEN_BYTES_MAX)
            tokens[n++] = (struct token){bytes[i], sizes[i], i};
    qsort(tokens, n, sizeof *tokens, by_bytes);
    struct pm_token_trie *t = pm_xalloc(sizeof *t);
    t->ids = pm_xalloc((n + 1) * sizeof *t->ids);
    build(t, tokens, n);
    free(tokens);
    *out = t;
    return 0;
}

int pm_token_trie_new(const struct pm_tokenizer *tokenizer, struct pm_token_trie **out, struct pm_error *err)
{
    int count = pm_tokenizer_size(tokenizer);
    const uint8_t **bytes = pm_xalloc(((size_t)count + 1) * sizeof *bytes);
    size_t *sizes = pm_xalloc(((size_t)count + 1) * sizeof *sizes);
    for (int i = 0; i < count; i++)
        if (!pm_tokenizer_is_special(tokenizer, i))
            bytes[i] = pm_tokenizer_bytes(tokenizer, i, &sizes[i]);
    int rc = pm_token_trie_new_bytes(bytes, sizes, count, out, err);
    free(bytes);
    free(sizes);
    return rc;
}

void pm_token_trie_free(struct pm_token_trie **trie)
{
    struct pm_token_trie *t = *trie;
    if (t == NULL)
        return;
    free(t->nodes);
    free(t->ids);
    free(t);
    *trie = NULL;
}

/* ---- masks ---- */

static void walk(const struct pm_token_trie *t, struct pm_dfa *dfa, struct pm_dfa_state *state, int vocab,
                 struct pm_dfa_state **at, uint32_t *mask)
{
    for (size_t i = 0; i < t->count; i = t->nodes[i].skip) /* tokens of one byte, whatever they cost */
        pm_dfa_step(dfa, state, t->nodes[i].byte);
    uint64_t limit = pm_dfa_work(dfa) + WORK_MAX;
    at[0] = state;
    for (size_t i = 0; i < t->count;) {
        const struct node *n = &t->nodes[i];
        struct pm_dfa_state *from = at[n->depth - 1], *to;
        if (!pm_dfa_step_known(dfa, from, n->byte, &to) && pm_dfa_work(dfa) < limit)
            to = pm_dfa_step(dfa, from, n->byte);
        if (to == NULL) {
            i = n->skip;
            continue;
        }
        at[n->depth] = to;
        for (uint32_t k = 0; k < n->id_count; k++) {
            int32_t id = t->ids[n->ids + k];
            if (id < vocab)
                mask[id / 32] |= 1u << (id % 32);
        }
        i++;
    }
}

const uint32_t *pm_token_trie_mask(const struct pm_token_trie *trie, struct pm_dfa *dfa,
                                   struct pm_dfa_state *state, int vocab)
{
    bool is_new;
    uint32_t *mask = pm_dfa_mask(dfa, state, trie->key + (uint64_t)vocab, (size_t)(vocab + 31) / 32, &is_new);
    if (is_new) {
        struct pm_dfa_state **at = pm_xalloc(((size_t)trie->depth + 1) * sizeof(struct pm_dfa_state *));
        walk(trie, dfa, state, vocab, at, mask);
        free(at);
    }
    return mask;
}
