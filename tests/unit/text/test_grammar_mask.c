/* Masks and states: a mask is what trying every token would give; states are independent; memory is bounded.
 */
#include "tests/unit/text/grammar_check.h"

static const struct {
    bool is_schema;
    const char *text;
} grammars[] = {
    {false, "(ab|abc|a+b?)*c{2}"},
    {false, "[^a]{2,4}|aaaa+|.*true"},
    {false, "\\p{L}+( \\p{L}+)*"},
    {false, "(é|\\u{1f600}|0){3}"},
    {true, "{}"},
    {true, "{\"type\":\"string\",\"minLength\":1,\"maxLength\":6}"},
    {true, "{\"properties\":{\"a\":{\"type\":\"number\"},\"n\":{\"type\":[\"string\",\"null\"]}},"
           "\"required\":[\"n\"]}"},
    {true,
     "{\"type\":\"array\",\"items\":{\"anyOf\":[{\"$ref\":\"#\"},{\"enum\":[\"ab\",\"abc\",true,12]}]}}"},
};

static bool bit(const uint32_t *mask, int id)
{
    return mask[id / 32] >> (id % 32) & 1;
}

static void test_mask_is_what_trying_gives(void **state)
{
    (void)state;
    struct vocabulary v;
    uint32_t r = 5;
    int allowed = 0;
    vocabulary_open(&v);
    for (size_t k = 0; k < sizeof grammars / sizeof *grammars; k++) {
        struct pm_grammar *g = grammar_of(grammars[k].is_schema, grammars[k].text);
        for (int walk_index = 0; walk_index < 12; walk_index++) {
            struct pm_grammar_state *s = pm_grammar_begin(g);
            for (int step = 0; step < 25; step++) {
                uint32_t mask[MASK_WORDS];
                int ids[VOCAB], count = 0;
                mask_of(s, &v, mask);
                for (int id = 0; id < END_ID; id++) {
                    struct pm_grammar_state *trial = pm_grammar_copy(s);
                    bool may = pm_grammar_accept(trial, v.bytes[id], v.sizes[id]);
                    pm_grammar_end(&trial);
                    if (bit(mask, id) != may)
                        fail_msg("%s: id %d after %d steps: mask %d", grammars[k].text, id, step,
                                 bit(mask, id));
                    if (may)
                        ids[count++] = id;
                }
                assert_false(bit(mask, HOLE_ID));
                assert_int_equal(bit(mask, END_ID), pm_grammar_is_complete(s));
                allowed += count;
                if (count == 0)
                    break;
                int id = ids[next_random(&r) % (uint32_t)count];
                assert_true(pm_grammar_accept(s, v.bytes[id], v.sizes[id]));
            }
            pm_grammar_end(&s);
        }
        pm_grammar_free(&g);
    }
    assert_true(allowed > 10000);
    pm_token_trie_free(&v.trie);
}

static void test_end_tokens(void **state)
{
    (void)state;
    struct vocabulary v;
    uint32_t mask[MASK_WORDS];
    int32_t ends[] = {'b' - 1, END_ID, -1,
                      VOCAB}; /* one spells a letter that could follow; two lie outside */
    vocabulary_open(&v);
    struct pm_grammar *g = grammar_of(false, "abb?");
    struct pm_grammar_state *s = pm_grammar_begin(g);
    assert_true(pm_grammar_accept(s, (const uint8_t *)"a", 1));
    pm_grammar_mask(s, v.trie, ends, 4, VOCAB, mask);
    assert_false(bit(mask, 'b' - 1)); /* the text is not complete: an end token may not come */
    assert_true(pm_grammar_accept(s, (const uint8_t *)"b", 1));
    pm_grammar_mask(s, v.trie, ends, 4, VOCAB, mask);
    assert_true(bit(mask, 'b' - 1));
    assert_true(bit(mask, END_ID));
    pm_grammar_mask(s, v.trie, NULL, 0, 40, mask); /* a smaller vocabulary */
    assert_int_equal(mask[0] | mask[1], 0);
    pm_grammar_mask(s, v.trie, NULL, 0, VOCAB, mask);
    assert_true(bit(mask, 'b' - 1));
    assert_true(pm_grammar_accept(s, (const uint8_t *)"b", 1));
    assert_true(pm_grammar_is_finished(s));
    pm_grammar_end(&s);
    pm_grammar_free(&g);
    pm_token_trie_free(&v.trie);
}

static void test_two_vocabularies(void **state)
{
    (void)state;
    struct vocabulary v;
    struct pm_token_trie *small;
    struct pm_error err;
    const uint8_t *bytes[] = {(const uint8_t *)"b", (const uint8_t *)"ab", NULL, (const uint8_t *)"a"};
    size_t sizes[] = {1, 2, 0, 1};
    uint32_t mask[MASK_WORDS];
    vocabulary_open(&v);
    assert_int_equal(pm_token_trie_new_bytes(bytes, sizes, 4, &small, &err), 0);
    struct pm_grammar *g = grammar_of(false, "ab*");
    struct pm_grammar_state *s = pm_grammar_begin(g);
    for (int i = 0; i < 3; i++) {
        pm_grammar_mask(s, small, NULL, 0, 4, mask);
        assert_int_equal(mask[0], 1u << 1 | 1u << 3);
        mask_of(s, &v, mask);
        assert_true(bit(mask, 'a' - 1));
        assert_true(bit(mask, 255));      /* "ab" */
        assert_true(bit(mask, 255 + 22)); /* and its twin */
        assert_false(bit(mask, 255 + 1)); /* "abc" */
    }
    pm_grammar_end(&s);
    pm_grammar_free(&g);
    pm_token_trie_free(&small);
    assert_int_equal(pm_token_trie_new_bytes(NULL, NULL, 0, &small, &err), 0);
    pm_token_trie_free(&small);
    pm_token_trie_free(&v.trie);
}

/* Byte characters are bytes, special tokens and holes never come, other added tokens do. */
static void test_trie_of_a_tokenizer(void **state)
{
    (void)state;
    static const char json[] =
        "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"normalizer\":null,\"added_tokens\":["
        "{\"id\":4,\"content\":\"<e>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
        "\"normalized\":false,"
        "\"special\":true},"
        "{\"id\":6,\"content\":\"<t>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
        "\"normalized\":false,"
        "\"special\":false}],"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_"
        "regex\":false},"
        "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_"
        "offsets\":true,"
        "\"use_regex\":true},"
        "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,"
        "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,"
        "\"vocab\":{\"<\":0,\"\\u0120\":1,\"e\":2,\"\\u0120e\":3},\"merges\":[\"\\u0120 e\"]}}";
    struct pm_tokenizer *tokenizer;
    struct pm_token_trie *trie;
    struct pm_error err;
    uint32_t mask = 0;
    if (pm_tokenizer_parse("test", json, sizeof json - 1, &tokenizer, &err))
        fail_msg("%s", err.text);
    assert_int_equal(pm_token_trie_new(tokenizer, &trie, &err), 0);
    struct pm_grammar *g = grammar_of(false, "( e|<[et]>|)+");
    struct pm_grammar_state *s = pm_grammar_begin(g);
    pm_grammar_mask(s, trie, NULL, 0, pm_tokenizer_size(tokenizer), &mask);
    assert_int_equal(mask, 1u << 0 | 1u << 1 | 1u << 3 | 1u << 6);
    pm_grammar_mask(s, trie, &(int32_t){4}, 1, pm_tokenizer_size(tokenizer), &mask);
    assert_int_equal(mask, 1u << 0 | 1u << 1 | 1u << 3 | 1u << 4 | 1u << 6);
    pm_grammar_end(&s);
    pm_grammar_free(&g);
    pm_token_trie_free(&trie);
    pm_tokenizer_free(&tokenizer);
}

static void test_states_are_independent(void **state)
{
    (void)state;
    struct pm_grammar *g = grammar_of(false, "a(b|cd)e");
    struct pm_grammar_state *one = pm_grammar_begin(g);
    assert_true(pm_grammar_accept(one, (const uint8_t *)"a", 1));
    struct pm_grammar_state *other = pm_grammar_copy(one);
    assert_false(pm_grammar_accept(one, (const uint8_t *)"cx", 2)); /* refused: as if nothing had come */
    assert_true(pm_grammar_accept(one, (const uint8_t *)"cd", 2));
    assert_true(pm_grammar_accept(one, NULL, 0));
    assert_true(pm_grammar_accept(other, (const uint8_t *)"be", 2));
    assert_true(pm_grammar_is_finished(other));
    assert_false(pm_grammar_is_complete(one));
    pm_grammar_end(&other);
    assert_true(pm_grammar_accept(one, (const uint8_t *)"e", 1));
    assert_true(pm_grammar_is_finished(one));
    pm_grammar_end(&one);
    pm_grammar_free(&g);
}

/* An automaton of 2^40 states: what was made is dropped again and again, and the answers stay right. */
static void test_dropping_states(void **state)
{
    (void)state;
    enum { BYTES = 60000, LATER = 41 };
    struct pm_grammar *g = grammar_of(false, "[ab]*a[ab]{40}");
    struct pm_grammar_state *s = pm_grammar_begin(g), *old = NULL;
    char *text = pm_xalloc(BYTES + 1);
    uint32_t r = 99;
    int at_copy = 0;
    for (int i = 0; i < BYTES; i++) {
        text[i] = next_random(&r) & 64 ? 'a' : 'b';
        assert_true(pm_grammar_accept(s, (const uint8_t *)text + i, 1));
        assert_int_equal(pm_grammar_is_complete(s), i >= LATER - 1 && text[i - LATER + 1] == 'a');
        if (i == 1000) {
            old = pm_grammar_copy(s);
            at_copy = i;
        }
    }
    for (int i = at_copy + 1; i < at_copy + 500; i++) { /* a state from long ago goes on where it was */
        assert_true(pm_grammar_accept(old, (const uint8_t *)text + i, 1));
        assert_int_equal(pm_grammar_is_complete(old), text[i - LATER + 1] == 'a');
    }
    pm_grammar_end(&old);
    pm_grammar_end(&s);
    for (int n = 40; n < 44; n++) /* and so does the first */
        assert_int_equal(accepts(g, text, (size_t)n), n >= LATER && text[n - LATER] == 'a');
    free(text);
    pm_grammar_free(&g);
}

/* The same with stacks: counts within counts. */
static void test_dropping_states_with_stacks(void **state)
{
    (void)state;
    struct pm_grammar *g = grammar_of(false, "((ab{1,3}c{100}){100}d){100}");
    struct pm_grammar_state *s = pm_grammar_begin(g);
    char c[101];
    memset(c, 'c', sizeof c);
    for (int i = 0; i < 100; i++) {
        for (int k = 0; k < 100; k++) {
            assert_true(pm_grammar_accept(s, (const uint8_t *)"abb", 3));
            assert_false(pm_grammar_accept(s, (const uint8_t *)c, 101));
            assert_true(pm_grammar_accept(s, (const uint8_t *)c, 100));
        }
        assert_false(pm_grammar_accept(s, (const uint8_t *)"a", 1));
        assert_true(pm_grammar_accept(s, (const uint8_t *)"d", 1));
        assert_int_equal(pm_grammar_is_finished(s), i == 99);
    }
    pm_grammar_end(&s);
    pm_grammar_free(&g);
}

/* Where an automaton spreads too far for one mask, what is allowed still matches and a way on remains. */
static void test_masks_of_hostile_patterns(void **state)
{
    (void)state;
    static const char *const patterns[] = {"((a|b|.){0,90}){0,90}", "(.{0,900}e){0,900}", ".*a.{900}",
                                           "(([ab]?[bc]?[ac]?){0,99}){0,99}"};
    enum { COUNT = 4000, END = COUNT };
    const uint8_t *bytes[COUNT];
    size_t sizes[COUNT];
    char *storage = pm_xalloc(COUNT * 8);
    uint32_t *mask = pm_xalloc((COUNT / 32 + 1) * sizeof *mask), r = 1;
    for (int i = 0; i < COUNT; i++) {
        sizes[i] = i < 3 ? 1 : 2 + next_random(&r) % 6;
        bytes[i] = (const uint8_t *)storage + (size_t)i * 8;
        for (size_t k = 0; k < sizes[i]; k++)
            storage[(size_t)i * 8 + k] = (char)(i < 3 ? 'a' + i : 'a' + (int)(next_random(&r) % 5));
    }
    struct pm_token_trie *trie;
    assert_int_equal(pm_token_trie_new_bytes(bytes, sizes, COUNT, &trie, NULL), 0);
    for (size_t p = 0; p < sizeof patterns / sizeof *patterns; p++) {
        struct pm_grammar *g = grammar_of(false, patterns[p]);
        struct pm_grammar_state *s = pm_grammar_begin(g);
        for (int step = 0; step < 6; step++) {
            int last = -1, count = 0;
            pm_grammar_mask(s, trie, NULL, 0, COUNT, mask);
            for (int id = 0; id < COUNT; id++)
                if (bit(mask, id)) {
                    count++;
                    last = next_random(&r) % 3 == 0 || last < 0 ? id : last;
                }
            assert_true(count > 0);
            assert_true(pm_grammar_accept(s, bytes[last], sizes[last]));
        }
        pm_grammar_end(&s);
        pm_grammar_free(&g);
    }
    pm_token_trie_free(&trie);
    free(mask);
    free(storage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mask_is_what_trying_gives),
        cmocka_unit_test(test_end_tokens),
        cmocka_unit_test(test_two_vocabularies),
        cmocka_unit_test(test_trie_of_a_tokenizer),
        cmocka_unit_test(test_states_are_independent),
        cmocka_unit_test(test_dropping_states),
        cmocka_unit_test(test_dropping_states_with_stacks),
        cmocka_unit_test(test_masks_of_hostile_patterns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
