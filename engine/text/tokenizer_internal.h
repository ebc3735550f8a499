/* What the loader (tokenizer_parse.c) builds and the coder (tokenizer.c) reads. Private to the tokenizer. */
#ifndef PM_ENGINE_TEXT_TOKENIZER_INTERNAL_H
#define PM_ENGINE_TEXT_TOKENIZER_INTERNAL_H

#include "base/mem.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_split.h"

enum {
    PM_TOKENIZER_MAX_IDS = 1 << 20,
    PM_TOKENIZER_MAX_MERGES = 1 << 22,
    PM_TOKENIZER_MAX_SPLITS = 16,
    PM_TOKENIZER_MAX_ADDED = 1 << 16,
    PM_TOKENIZER_MAX_ADDED_BYTES = 256, /* of one added token's text */
};

enum pm_token_kind {
    PM_TOKEN_IN_VOCAB = 1, /* of the model: merges lead to it */
    PM_TOKEN_ADDED = 2,
    PM_TOKEN_SPECIAL = 4,
    PM_TOKEN_PLAIN = 8, /* its text is not made of byte characters: bytes are the text as written */
};

struct pm_token {
    uint32_t at, bytes; /* in the arena */
    uint8_t kind;       /* enum pm_token_kind; 0: a hole */
};

/* a and b next to each other become id; the smallest rank goes first. */
struct pm_merge {
    uint32_t a, b; /* a == UINT32_MAX: an empty slot */
    uint32_t rank, id;
};

struct pm_added_token {
    int32_t id;
    uint32_t bytes;
    bool single_word, lstrip, rstrip;
};

/* Texts of added tokens as a trie: children of a node are a list. Node 0 is the root. */
struct pm_added_node {
    uint32_t child, sibling; /* 0: none */
    int32_t token;           /* index into added, or -1 */
    uint8_t byte;
};
struct pm_added_trie {
    struct pm_added_node *nodes;
    uint32_t count, capacity;
};

struct pm_tokenizer {
    struct pm_token *tokens; /* [size] */
    int size;
    struct pm_buf arena;     /* bytes of all tokens */
    uint32_t *slots;         /* hash table of the vocabulary: id + 1, 0 empty */
    uint32_t slot_mask;      /* slots - 1 */
    struct pm_merge *merges; /* hash table */
    uint32_t merge_mask;
    int32_t byte_ids[256]; /* -1: the vocabulary lacks that byte */
    bool ignore_merges;
    struct pm_added_token *added;
    uint32_t added_count, added_capacity;
    struct pm_added_trie tries[2]; /* those that match the text as it is; those for normalised text */
    struct pm_splitter *splits[PM_TOKENIZER_MAX_SPLITS];
    int split_count;
};

/* The bytes that a token's text of byte characters stands for, appended to out. false: it has others, and
 * out got the text itself. */
bool pm_token_text_bytes(const char *text, size_t bytes, struct pm_buf *out);

/* Id of the vocabulary's token of these bytes, or -1. kind: PM_TOKEN_PLAIN or 0. */
int32_t pm_tokenizer_find(const struct pm_tokenizer *t, const uint8_t *bytes, size_t count, uint8_t kind);
uint32_t pm_tokenizer_hash(const uint8_t *bytes, size_t count, uint8_t kind);
const struct pm_merge *pm_tokenizer_merge(const struct pm_tokenizer *t, uint32_t a, uint32_t b);
static inline uint32_t pm_merge_hash(uint32_t a, uint32_t b)
{
    uint64_t h = ((uint64_t)a << 32 | b) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(h >> 32);
}

#endif
