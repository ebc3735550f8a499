/* What the tests of constrained output share: a small vocabulary, texts held against a grammar, random walks.
 */
#ifndef PM_TESTS_UNIT_TEXT_GRAMMAR_CHECK_H
#define PM_TESTS_UNIT_TEXT_GRAMMAR_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/text/grammar.h"

static inline uint32_t next_random(uint32_t *r)
{
    *r = *r * 1664525u + 1013904223u;
    return *r >> 8;
}

/* Every byte, some of several bytes (cut through characters, too), two that spell the same, an end token (the
 * last but one, which also spells something) and a hole. */
enum { VOCAB = 255 + 24 + 2, END_ID = VOCAB - 2, HOLE_ID = VOCAB - 1, MASK_WORDS = (VOCAB + 31) / 32 };
struct vocabulary {
    const uint8_t *bytes[VOCAB];
    size_t sizes[VOCAB];
    uint8_t single[256];
    struct pm_token_trie *trie;
};

static inline void vocabulary_open(struct vocabulary *v)
{
    static const char *const longer[] = {
        "ab",   "abc", "aa",   "aaaa", "ba",       "\": ",         "{\"", "\"}",
        "\",",  "], ", "true", "null", "false",    "12",           "0.",  "e+",
        "\\u0", "\\n", "[[",   "}}",   "\xc3\xa9", "\xa9\xf0\x9f", "ab",  "00"};
    memset(v, 0, sizeof *v);
    for (int i = 0; i < 255; i++) {
        v->single[i] = (uint8_t)(i + 1);
        v->bytes[i] = &v->single[i];
        v->sizes[i] = 1;
    }
    for (int i = 0; i < 24; i++) {
        v->bytes[255 + i] = (const uint8_t *)longer[i];
        v->sizes[255 + i] = strlen(longer[i]);
    }
    struct pm_error err;
    assert_int_equal(pm_token_trie_new_bytes(v->bytes, v->sizes, VOCAB, &v->trie, &err), 0);
}

static inline void mask_of(struct pm_grammar_state *state, const struct vocabulary *v, uint32_t *mask)
{
    int32_t end = END_ID;
    pm_grammar_mask(state, v->trie, &end, 1, VOCAB, mask);
}

static inline struct pm_grammar *grammar_of(bool is_schema, const char *text)
{
    struct pm_grammar *g = NULL;
    struct pm_error err;
    int rc = is_schema ? pm_grammar_json_schema(text, &g, &err) : pm_grammar_regex(text, &g, &err);
    if (rc)
        fail_msg("%s: %s", text, err.text);
    return g;
}

static inline bool accepts(const struct pm_grammar *g, const char *text, size_t bytes)
{
    struct pm_grammar_state *s = pm_grammar_begin(g);
    bool is_in = pm_grammar_accept(s, (const uint8_t *)text, bytes) && pm_grammar_is_complete(s);
    pm_grammar_end(&s);
    return is_in;
}

/* Follows the mask at random; after soft_limit tokens it takes the end, or what closes something, when it
 * may. false: the text grew past the hard limit. */
static inline bool walk(const struct pm_grammar *g, const struct vocabulary *v, uint32_t *r, int soft_limit,
                        struct pm_buf *out)
{
    struct pm_grammar_state *s = pm_grammar_begin(g);
    bool is_done = false;
    pm_buf_clear(out);
    for (int step = 0; step < soft_limit * 8 && !is_done; step++) {
        uint32_t mask[MASK_WORDS];
        int ids[VOCAB], count = 0, closing = -1;
        mask_of(s, v, mask);
        for (int i = 0; i < VOCAB; i++)
            if (mask[i / 32] >> (i % 32) & 1) {
                ids[count++] = i;
                if (i < 255 && strchr("\"]}", (int)i + 1))
                    closing = i;
            }
        assert_true(count > 0); /* there is always a way on */
        bool may_end = mask[END_ID / 32] >> (END_ID % 32) & 1;
        assert_int_equal(may_end, pm_grammar_is_complete(s));
        assert_int_equal(may_end && count == 1, pm_grammar_is_finished(s));
        int id = ids[next_random(r) % (uint32_t)count];
        if (may_end && (step > soft_limit || next_random(r) % 4 == 0))
            id = END_ID;
        else if (step > soft_limit && closing >= 0 && next_random(r) % 4)
            id = closing;
        is_done = id == END_ID;
        if (!is_done) {
            assert_true(pm_grammar_accept(s, v->bytes[id], v->sizes[id]));
            pm_buf_append(out, v->bytes[id], v->sizes[id]);
        }
    }
    pm_grammar_end(&s);
    pm_buf_text(out, "");
    return is_done;
}

#endif
