/* The tokenizer beside what its file says: merges, added tokens and their flags, plain text, broken bytes,
 * streams, and every way in which tokenizer.json may be wrong. (Ids of whole vocabularies: parity
 * tokenizer.) */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/mem.h"
#include "engine/text/tokenizer.h"

#define GLM_WORDS                                                                                            \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

enum { AB = 256, ABC, BC, CD, ABCD, SPACE_A, XYZ, FIRST_ADDED };

static void put_byte(json_t *vocab, int byte)
{
    static int next;
    bool is_own = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    if (byte == 0)
        next = 256;
    int c = is_own ? byte : next++;
    char key[3] = {(char)c, 0, 0};
    if (c >= 0x80) {
        key[0] = (char)(0xc0 | c >> 6);
        key[1] = (char)(0x80 | (c & 0x3f));
    }
    json_object_set_new(vocab, key, json_integer(byte));
}

static json_t *added(int id, const char *text)
{
    return json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", id, "content", text, "special", 1,
                     "normalized", 0, "lstrip", 0, "rstrip", 0, "single_word", 0);
}

/* All bytes at their own ids, a few merges, the words of GLM-4, three added tokens. */
static json_t *good(void)
{
    json_t *vocab = json_object();
    for (int b = 0; b < 256; b++)
        put_byte(vocab, b);
    static const char *const more[] = {"ab", "abc", "bc", "cd", "abcd", "\xc4\xa0\x61", "xyz"};
    for (int i = 0; i < 7; i++)
        json_object_set_new(vocab, more[i], json_integer(AB + i));
    json_t *root =
        json_pack("{s:[o,o,o], s:n, s:{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, {s:s, s:b, s:b}]}, s:n, s:{s:s},"
                  " s:{s:s, s:b, s:o, s:[[s,s],s,[s,s],[s,s],[s,s],s]}}",
                  "added_tokens", added(FIRST_ADDED, "<|user|>"), added(FIRST_ADDED + 1, "<|us"),
                  added(FIRST_ADDED + 2, "<think>"), "normalizer", "pre_tokenizer", "type", "Sequence",
                  "pretokenizers", "type", "Split", "pattern", "Regex", GLM_WORDS, "behavior", "Isolated",
                  "invert", 0, "type", "ByteLevel", "add_prefix_space", 0, "use_regex", 0, "post_processor",
                  "decoder", "type", "ByteLevel", "model", "type", "BPE", "ignore_merges", 1, "vocab", vocab,
                  "merges", "a", "b", "b c", "c", "d", "ab", "c", "ab", "cd", "\xc4\xa0 a");
    assert_non_null(root);
    return root;
}

static int parse(json_t *root, struct pm_tokenizer **t, struct pm_error *err)
{
    char *text = json_dumps(root, JSON_COMPACT);
    int rc = pm_tokenizer_parse("test.json", text, strlen(text), t, err);
    free(text);
    json_decref(root);
    return rc;
}

static struct pm_tokenizer *open_good(json_t *root)
{
    struct pm_tokenizer *t;
    struct pm_error err = {0};
    if (parse(root, &t, &err))
        fail_msg("%s", err.text);
    return t;
}

/* ids: as text, "1 2 3" */
static void check_ids(const struct pm_tokenizer *t, const char *text, size_t bytes, bool special,
                      const char *ids)
{
    int32_t *got;
    size_t count;
    struct pm_error err = {0};
    struct pm_buf line = {0};
    assert_int_equal(pm_tokenizer_encode(t, text, bytes, special, &got, &count, &err), 0);
    pm_buf_text(&line, "");
    for (size_t i = 0; i < count; i++)
        pm_buf_printf(&line, "%s%d", i ? " " : "", got[i]);
    assert_string_equal(line.data, ids);
    pm_buf_free(&line);
    free(got);
}

static void check_text(const struct pm_tokenizer *t, const char *text, const char *ids)
{
    check_ids(t, text, strlen(text), true, ids);
}

static void test_merges(void **state)
{
    (void)state;
    struct pm_tokenizer *t = open_good(good());
    check_text(t, "", "");
    check_text(t, "ab", "256");
    check_text(t, "abc", "257");       /* in the vocabulary */
    check_text(t, "abcde", "260 101"); /* ab (rank 0, so no bc), cd (2), ab cd (4) */
    check_text(t, "abce", "257 101");  /* ab (0), ab c (3) */
    check_text(t, "xyz", "262");       /* no merges lead there: ignore_merges */
    check_text(t, "xyzab", "120 121 122 256");
    check_text(t, "a a", "97 261");
    check_text(t, "ababab", "256 256 256");
    check_text(t, "1234", "49 50 51 52");
    pm_tokenizer_free(&t);
    json_t *root = good();
    json_object_set_new(json_object_get(root, "model"), "ignore_merges", json_false());
    t = open_good(root);
    check_text(t, "xyz", "120 121 122");
    check_text(t, "abc", "257");
    pm_tokenizer_free(&t);
    pm_tokenizer_free(&t);
}

static void test_words_follow_the_reference_unicode(void **state)
{
    (void)state;
    /* Only whole words are in the vocabulary, so that ids show the cuts. */
    json_t *root = good(), *model = json_object_get(root, "model");
    json_object_set_new(json_object_get(model, "vocab"),
                        "\xc3\xa1\xc5\x82\xc4\xb0"
                        "ab",
                        json_integer(FIRST_ADDED + 3));
    json_object_set_new(json_object_get(model, "vocab"),
                        "\xc3\xb0\xc4\xb5\xc4\xb3\xc5\x82"
                        "ab",
                        json_integer(FIRST_ADDED + 4));
    struct pm_tokenizer *t = open_good(root);
    check_text(t,
               "\xe1\xa0\x8e"
               "ab",
               "266"); /* U+180E is no white space: it leads the word */
    check_text(t,
               "\xf0\x93\x91\xa0"
               "ab",
               "267"); /* U+13460, a letter since Unicode 16, within the word */
    check_text(t,
               "\xc2\x85"
               "ab",
               "194 133 256"); /* U+0085 is white space and yet leads, as any other one */
    check_text(t, " \xe3\x80\x80\xc2\xa0 ", "32 227 128 128 194 160 32");
    pm_tokenizer_free(&t);
}

static void test_added_tokens(void **state)
{
    (void)state;
    struct pm_tokenizer *t = open_good(good());
    check_text(t, "ab<|user|>ab", "256 263 256");
    check_text(t, "<|us<|user|>er|>", "264 263 101 114 124 62"); /* the longest wins */
    check_text(t, "<|use", "264 101");
    check_text(t, "<|u", "60 124 117");
    assert_int_equal(pm_tokenizer_id(t, "<|user|>"), FIRST_ADDED);
    assert_int_equal(pm_tokenizer_id(t, "<|us"), FIRST_ADDED + 1);
    assert_int_equal(pm_tokenizer_id(t, "<|use"), -1);
    assert_int_equal(pm_tokenizer_id(t, "ab"), -1);
    assert_int_equal(pm_tokenizer_id(t, ""), -1);
    assert_int_equal(pm_tokenizer_size(t), FIRST_ADDED + 3);
    assert_true(pm_tokenizer_is_special(t, FIRST_ADDED));
    assert_false(pm_tokenizer_is_special(t, 97));
    assert_false(pm_tokenizer_is_special(t, -1));
    assert_false(pm_tokenizer_is_special(t, 1 << 30));
    size_t n;
    assert_memory_equal(pm_tokenizer_bytes(t, SPACE_A, &n), " a", 2);
    assert_int_equal(n, 2);
    assert_null(pm_tokenizer_bytes(t, FIRST_ADDED + 3, &n));
    assert_null(pm_tokenizer_bytes(t, -1, &n));
    pm_tokenizer_free(&t);
}

/* What a user writes never becomes a token of the template. */
static void test_plain_text_has_no_added_tokens(void **state)
{
    (void)state;
    struct pm_tokenizer *t = open_good(good());
    check_ids(t, "<|user|>ab", 10, false, "60 124 117 115 101 114 124 62 256");
    check_ids(t, "<think>", 7, false, "60 116 104 105 110 107 62");
    pm_tokenizer_free(&t);
}

static void test_flags_of_added_tokens(void **state)
{
    (void)state;
    json_t *root = good(), *list = json_object_get(root, "added_tokens");
    json_object_set_new(json_array_get(list, 0), "lstrip", json_true());
    json_object_set_new(json_array_get(list, 0), "rstrip", json_true());
    json_object_set_new(json_array_get(list, 2), "single_word", json_true());
    json_object_set_new(json_array_get(list, 2), "normalized", json_true());
    struct pm_tokenizer *t = open_good(root);
    check_text(t, "a \n<|user|>\t\xc2\xa0 b", "97 263 98");
    check_text(t, " <|user|> <|user|> ", "263 263");
    check_text(t, "<think> a", "265 261");
    check_text(t, "a<think>", "97 60 116 104 105 110 107 62");
    check_text(t, "<think>\xc3\xa9", "60 116 104 105 110 107 62 195 169");
    check_text(t, "_<think>", "95 60 116 104 105 110 107 62");
    check_text(t, "-<think>-", "45 265 45");
    pm_tokenizer_free(&t);
}

static void test_broken_text(void **state)
{
    (void)state;
    struct pm_tokenizer *t = open_good(good());
    check_ids(t,
              "ab\xff"
              "ab",
              5, true, "256 239 191 189 256");
    check_ids(t, "\xe3\x81", 2, true, "239 191 189");                             /* one maximal part */
    check_ids(t, "\xed\xa0\x80", 3, true, "239 191 189 239 191 189 239 191 189"); /* a surrogate is three */
    check_ids(t, "a\0b", 3, true, "97 0 98");
    char *text;
    size_t bytes;
    struct pm_error err = {0};
    const int32_t broken[] = {0xf0, 0x9f, 0x98, 0x61, 0xe3, 0x81, 0xe3, 0x81, 0x82, 0xc0, 0x80, FIRST_ADDED};
    assert_int_equal(pm_tokenizer_decode(t, broken, 12, false, &text, &bytes, &err), 0);
    assert_string_equal(text, "\xef\xbf\xbd"
                              "a"
                              "\xef\xbf\xbd"
                              "\xe3\x81\x82"
                              "\xef\xbf\xbd\xef\xbf\xbd<|user|>");
    assert_int_equal(bytes, strlen(text));
    free(text);
    assert_int_equal(pm_tokenizer_decode(t, broken + 9, 3, true, &text, &bytes, &err), 0);
    assert_string_equal(text, "\xef\xbf\xbd\xef\xbf\xbd");
    free(text);
    const int32_t unknown[] = {97, FIRST_ADDED + 3};
    assert_int_equal(pm_tokenizer_decode(t, unknown, 2, false, &text, &bytes, &err), PM_EINVAL);
    assert_non_null(strstr(err.text, "token 1 has the id 266"));
    assert_null(text);
    assert_int_equal(pm_tokenizer_decode(t, NULL, 0, false, &text, &bytes, &err), 0);
    assert_string_equal(text, "");
    free(text);
    pm_tokenizer_free(&t);
}

static void check_step(const struct pm_tokenizer *t, struct pm_token_stream *s, int32_t id, bool skip,
                       const char *wanted)
{
    struct pm_buf out = {0};
    pm_token_stream_add(s, t, id, skip, &out);
    pm_buf_text(&out, "");
    assert_string_equal(out.data, wanted);
    pm_buf_free(&out);
}

static void test_stream(void **state)
{
    (void)state;
    struct pm_tokenizer *t = open_good(good());
    struct pm_token_stream s = {0};
    struct pm_buf out = {0};
    check_step(t, &s, AB, true, "ab");
    check_step(t, &s, 0xe3, true, "");
    check_step(t, &s, FIRST_ADDED, true, "");
    check_step(t, &s, 0x81, true, "");
    check_step(t, &s, 0x82, true, "\xe3\x81\x82");
    check_step(t, &s, FIRST_ADDED, false, "<|user|>");
    check_step(t, &s, FIRST_ADDED + 9, false, ""); /* unknown */
    check_step(t, &s, 0xff, true, "");
    check_step(t, &s, 0xff, true, "");
    check_step(t, &s, 0x61, true,
               "\xef\xbf\xbd\xef\xbf\xbd"
               "a");
    check_step(t, &s, 0xe3, true, "");
    pm_token_stream_finish(&s, &out);
    pm_token_stream_finish(&s, &out);
    assert_int_equal(out.size, 3);
    pm_buf_clear(&out);
    /* More broken bytes than a stream holds: they go out, none is lost. */
    for (int i = 0; i < 5000; i++)
        pm_token_stream_add(&s, t, 0xff, true, &out);
    pm_token_stream_finish(&s, &out);
    assert_int_equal(out.size, 3 * 5000);
    pm_buf_free(&out);
    pm_tokenizer_free(&t);
}

/* A word of n letters takes n log n steps, not n * n: the latter would run for an hour. */
static void test_long_words(void **state)
{
    (void)state;
    struct pm_tokenizer *t = open_good(good());
    static const struct {
        const char *part;
        size_t ids_per_part;
    } cases[] = {{"ab", 1}, {"a", 1}, {" ", 1}, {"1", 1}, {"abcd", 1}, {"\n", 1}, {"<", 1}, {"<|user|>", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n = strlen(cases[i].part), times = 1000000 / n, count;
        char *text = pm_xalloc(n * times);
        for (size_t k = 0; k < times; k++)
            memcpy(text + k * n, cases[i].part, n);
        int32_t *ids;
        struct pm_error err = {0};
        assert_int_equal(pm_tokenizer_encode(t, text, n * times, true, &ids, &count, &err), 0);
        assert_int_equal(count, times * cases[i].ids_per_part);
        free(ids);
        free(text);
    }
    char *text = pm_xalloc(PM_TOKENIZER_MAX_BYTES + 1);
    int32_t *ids;
    size_t count;
    struct pm_error err = {0};
    assert_int_equal(pm_tokenizer_encode(t, text, PM_TOKENIZER_MAX_BYTES + 1, true, &ids, &count, &err),
                     PM_ELIMIT);
    free(text);
    pm_tokenizer_free(&t);
}

static struct pm_tokenizer *with_words(const char *pattern)
{
    json_t *root = good();
    json_t *parts = json_object_get(json_object_get(root, "pre_tokenizer"), "pretokenizers");
    json_object_set_new(json_object_get(json_array_get(parts, 0), "pattern"), "Regex", json_string(pattern));
    return open_good(root);
}

static void test_other_words(void **state)
{
    (void)state;
    struct pm_tokenizer *t = with_words("x*"); /* empty matches cut too */
    check_text(t, "abcxxab", "97 98 99 120 120 97 98");
    pm_tokenizer_free(&t);
    t = with_words("(?<=a)b");
    check_text(t, "abab", "97 98 97 98");
    pm_tokenizer_free(&t);
    t = with_words("(?:(?:a|aa)+)+$|b");
    struct pm_error err = {0};
    int32_t *ids;
    size_t count;
    char text[200];
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = 'c';
    assert_int_equal(pm_tokenizer_encode(t, text, sizeof text, true, &ids, &count, &err), PM_ELIMIT);
    assert_non_null(strstr(err.text, "split expression"));
    assert_null(ids);
    pm_tokenizer_free(&t);
    /* ByteLevel with its own expression, alone. */
    json_t *root = good();
    json_object_set_new(
        root, "pre_tokenizer",
        json_pack("{s:s, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "use_regex", 1));
    t = open_good(root);
    check_text(t, "ab'll ab", "256 39 108 108 32 256");
    pm_tokenizer_free(&t);
    /* Several Splits, each cutting the pieces before it. */
    root = good();
    json_array_insert_new(json_object_get(json_object_get(root, "pre_tokenizer"), "pretokenizers"), 0,
                          json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", "b",
                                    "behavior", "Isolated", "invert", 0));
    t = open_good(root);
    check_text(t, "cdab cd", "259 97 98 32 259");
    pm_tokenizer_free(&t);
}

/* ---- files that are wrong ---- */

/* path: keys and indices with dots; value: JSON, or NULL to remove. */
static void check_refused(const char *path, const char *value, int code, const char *says)
{
    json_t *root = good(), *at = root, *new_value = value ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
    char *copy = pm_xstrdup(path), *rest = copy, *key = strsep(&rest, "/");
    assert_true(!value || new_value);
    for (; rest; key = strsep(&rest, "/"))
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(key)) : json_object_get(at, key);
    if (json_is_array(at) && !strcmp(key, "+"))
        json_array_append_new(at, new_value);
    else if (json_is_array(at))
        json_array_set_new(at, (size_t)atoi(key), new_value);
    else if (value)
        json_object_set_new(at, key, new_value);
    else
        json_object_del(at, key);
    free(copy);
    struct pm_tokenizer *t;
    struct pm_error err = {0};
    int rc = parse(root, &t, &err);
    if (rc != code || !strstr(err.text, says) || !strstr(err.text, "test.json"))
        fail_msg("%s = %s: %d %s", path, value ? value : "nothing", rc, err.text);
    assert_null(t);
}

static void test_wrong_vocabularies(void **state)
{
    (void)state;
    check_refused("model/vocab/q", "-1", PM_EFORMAT, "model.vocab");
    check_refused("model/vocab/q", "97", PM_EFORMAT, "two entries");
    check_refused("model/vocab/q", "4000000000", PM_ELIMIT, "model.vocab");
    check_refused("model/vocab/q", "9223372036854775807", PM_ELIMIT, "model.vocab");
    check_refused("model/vocab/q", "1.5", PM_EFORMAT, "a real");
    check_refused("model/vocab/q", "\"1\"", PM_EFORMAT, "a string");
    check_refused("model/vocab", "[]", PM_EFORMAT, "model.vocab");
    check_refused("model/vocab", NULL, PM_EFORMAT, "model.vocab");
    check_refused("model/vocab", "{}", PM_EFORMAT, "model.merges");
    check_refused("model/merges", NULL, PM_EFORMAT, "model.merges");
    check_refused("model/merges", "{}", PM_EFORMAT, "model.merges");
    check_refused("model/merges/+", "\"a\"", PM_EFORMAT, "entry 6");
    check_refused("model/merges/+", "\"a b c\"", PM_EFORMAT, "entry 6");
    check_refused("model/merges/+", "[\"a\"]", PM_EFORMAT, "entry 6");
    check_refused("model/merges/+", "[\"a\", 1]", PM_EFORMAT, "entry 6");
    check_refused("model/merges/+", "[\"a\", \"nosuch\"]", PM_EFORMAT, "nosuch");
    check_refused("model/merges/+", "\"nosuch a\"", PM_EFORMAT, "nosuch");
    check_refused("model/merges/+", "[\"a\", \"z\"]", PM_EFORMAT, "makes az");
    check_refused("model/merges/+", "7", PM_EFORMAT, "entry 6");
    check_refused("model/type", "\"Unigram\"", PM_EUNSUPPORTED, "Unigram");
    check_refused("model/type", NULL, PM_EFORMAT, "\"model\"");
    check_refused("model", "null", PM_EFORMAT, "\"model\"");
    check_refused("model", "[]", PM_EFORMAT, "\"model\"");
    check_refused("model/dropout", "0.1", PM_EUNSUPPORTED, "dropout");
    check_refused("model/ignore_merges", "1", PM_EFORMAT, "ignore_merges");
    check_refused("model/continuing_subword_prefix", "\"##\"", PM_EUNSUPPORTED, "continuing_subword_prefix");
    check_refused("model/end_of_word_suffix", "\"</w>\"", PM_EUNSUPPORTED, "end_of_word_suffix");
}

static void test_wrong_parts(void **state)
{
    (void)state;
    check_refused("normalizer", "{\"type\": \"NFC\"}", PM_EUNSUPPORTED, "NFC");
    check_refused("normalizer", "[]", PM_EFORMAT, "normalizer");
    check_refused("pre_tokenizer", "null", PM_EUNSUPPORTED, "pre_tokenizer");
    check_refused("pre_tokenizer", "{\"type\": \"Whitespace\"}", PM_EUNSUPPORTED, "Whitespace");
    check_refused("pre_tokenizer/pretokenizers", "[]", PM_EUNSUPPORTED, "ByteLevel");
    check_refused("pre_tokenizer/pretokenizers", "{}", PM_EFORMAT, "pretokenizers");
    check_refused("pre_tokenizer/pretokenizers/0/type", "\"Digits\"", PM_EUNSUPPORTED, "Digits");
    check_refused("pre_tokenizer/pretokenizers/0/behavior", "\"Removed\"", PM_EUNSUPPORTED, "Removed");
    check_refused("pre_tokenizer/pretokenizers/0/behavior", "1", PM_EFORMAT, "behavior");
    check_refused("pre_tokenizer/pretokenizers/0/invert", "true", PM_EUNSUPPORTED, "inverted");
    check_refused("pre_tokenizer/pretokenizers/0/pattern", "{\"String\": \" \"}", PM_EUNSUPPORTED, "String");
    check_refused("pre_tokenizer/pretokenizers/0/pattern", "\" \"", PM_EFORMAT, "pattern");
    check_refused("pre_tokenizer/pretokenizers/0/pattern/Regex", "\"(\"", PM_EFORMAT, "pre_tokenizer");
    check_refused("pre_tokenizer/pretokenizers/0/pattern/Regex", "\"\\\\p{Nosuch}\"", PM_EFORMAT,
                  "pre_tokenizer");
    check_refused("pre_tokenizer/pretokenizers/0/pattern/Regex", "\"\\\\k<x>\"", PM_EFORMAT, "pre_tokenizer");
    check_refused("pre_tokenizer/pretokenizers/1/add_prefix_space", "true", PM_EUNSUPPORTED,
                  "add_prefix_space");
    check_refused("pre_tokenizer/pretokenizers/+", "{\"type\": \"Split\"}", PM_EUNSUPPORTED,
                  "after ByteLevel");
    check_refused("post_processor", "{\"type\": \"TemplateProcessing\"}", PM_EUNSUPPORTED,
                  "TemplateProcessing");
    check_refused("decoder", "null", PM_EUNSUPPORTED, "decoder");
    check_refused("decoder", "{\"type\": \"WordPiece\"}", PM_EUNSUPPORTED, "WordPiece");
    check_refused("decoder", "{\"type\": 1}", PM_EFORMAT, "decoder");
    json_t *root = good(), *parts = json_object_get(json_object_get(root, "pre_tokenizer"), "pretokenizers");
    for (int i = 0; i < 20; i++)
        json_array_insert(parts, 0, json_array_get(parts, 0));
    struct pm_tokenizer *t;
    struct pm_error err = {0};
    assert_int_equal(parse(root, &t, &err), PM_ELIMIT);
    /* a very long expression */
    root = good();
    char *pattern = pm_xalloc(20001);
    memset(pattern, 'a', 20000);
    parts = json_object_get(json_object_get(root, "pre_tokenizer"), "pretokenizers");
    json_object_set_new(json_object_get(json_array_get(parts, 0), "pattern"), "Regex", json_string(pattern));
    assert_int_equal(parse(root, &t, &err), PM_ELIMIT);
    free(pattern);
}

static void test_wrong_added_tokens(void **state)
{
    (void)state;
    check_refused("added_tokens", "{}", PM_EFORMAT, "added_tokens");
    check_refused("added_tokens/+", "{\"id\": 300}", PM_EFORMAT, "content");
    check_refused("added_tokens/+", "3", PM_EFORMAT, "content");
    check_refused("added_tokens/+", "{\"id\": 300, \"content\": \"\"}", PM_EFORMAT, "empty");
    check_refused("added_tokens/+", "{\"id\": -1, \"content\": \"x\"}", PM_EFORMAT, "-1");
    check_refused("added_tokens/+", "{\"id\": 99999999, \"content\": \"<x>\"}", PM_ELIMIT, "99999999");
    check_refused("added_tokens/+", "{\"content\": \"<x>\"}", PM_EFORMAT, "missing");
    check_refused("added_tokens/+", "{\"id\": 263, \"content\": \"<x>\"}", PM_EFORMAT, "another token");
    check_refused("added_tokens/+", "{\"id\": 97, \"content\": \"<x>\"}", PM_EFORMAT, "another token");
    check_refused("added_tokens/+", "{\"id\": 300, \"content\": \"ab\"}", PM_EFORMAT, "under 256");
    check_refused("added_tokens/+", "{\"id\": 300, \"content\": \"<|user|>\"}", PM_EFORMAT, "twice");
    check_refused("added_tokens/+", "{\"id\": 300, \"content\": \"<x>\", \"special\": 1}", PM_EFORMAT,
                  "special");
    char *longest = pm_xprintf("{\"id\": 300, \"content\": \"%0300d\"}", 1);
    check_refused("added_tokens/+", longest, PM_ELIMIT, "300 bytes");
    free(longest);
}

static void test_wrong_json(void **state)
{
    (void)state;
    struct pm_tokenizer *t;
    struct pm_error err = {0};
    static const char *const texts[] = {
        "", "{", "[]", "1", "{\"model\": {\"vocab\": {\"a\": 1, \"a\": 2}}}", "{\"a\": \"\xff\"}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_int_equal(pm_tokenizer_parse("test.json", texts[i], strlen(texts[i]), &t, &err), PM_EFORMAT);
        assert_non_null(strstr(err.text, "test.json"));
    }
    char *deep = pm_xalloc(200001);
    memset(deep, '[', 200000);
    assert_int_equal(pm_tokenizer_parse("test.json", deep, 200000, &t, &err), PM_EFORMAT);
    free(deep);
    assert_int_equal(pm_tokenizer_open("/nonexistent/tokenizer.json", &t, &err), PM_ENOTFOUND);
    assert_null(t);
}

/* Bytes that the vocabulary lacks are dropped, as the reference does; holes have no bytes. */
static void test_gaps(void **state)
{
    (void)state;
    json_t *root = good(), *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    json_object_del(vocab, "q");
    json_object_set_new(vocab, "zz", json_integer(400));
    struct pm_tokenizer *t = open_good(root);
    size_t n;
    check_text(t, "aqb", "256"); /* what is left stands together */
    check_text(t, "q", "");
    assert_null(pm_tokenizer_bytes(t, 'q', &n));
    assert_null(pm_tokenizer_bytes(t, 399, &n));
    assert_int_equal(pm_tokenizer_size(t), 401);
    pm_tokenizer_free(&t);
    root = good();
    json_object_del(json_object_get(json_object_get(root, "model"), "vocab"), "q");
    json_object_set_new(json_object_get(root, "model"), "unk_token", json_string("a"));
    struct pm_error err = {0};
    assert_int_equal(parse(root, &t, &err), PM_EUNSUPPORTED);
    assert_non_null(strstr(err.text, "0x71"));
}

/* Oniguruma has a regcomp() of its own, with structures of its own: other libraries of the process must not
 * find that one, but the C library's (or a sanitizer's). */
static void test_regcomp_is_not_oniguruma_s(void **state)
{
    (void)state;
    static const char *const names[] = {"regcomp", "regexec", "regfree"};
    Dl_info of, oniguruma;
    assert_true(dladdr(dlsym(RTLD_DEFAULT, "onig_new"), &oniguruma) != 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_true(dladdr(dlsym(RTLD_DEFAULT, names[i]), &of) != 0);
        assert_string_not_equal(of.dli_fname, oniguruma.dli_fname);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges),
        cmocka_unit_test(test_words_follow_the_reference_unicode),
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_plain_text_has_no_added_tokens),
        cmocka_unit_test(test_flags_of_added_tokens),
        cmocka_unit_test(test_broken_text),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_other_words),
        cmocka_unit_test(test_wrong_vocabularies),
        cmocka_unit_test(test_wrong_parts),
        cmocka_unit_test(test_wrong_added_tokens),
        cmocka_unit_test(test_wrong_json),
        cmocka_unit_test(test_gaps),
        cmocka_unit_test(test_regcomp_is_not_oniguruma_s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
