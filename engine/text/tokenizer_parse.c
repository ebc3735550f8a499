/* tokenizer.json to tables.
 *
 *   {"added_tokens": [{"id", "content", "special", "normalized", "lstrip", "rstrip", "single_word"}, ...],
 *    "normalizer": null,
 *    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
 *        {"type": "Split", "pattern": {"Regex": ...}, "behavior": "Isolated", "invert": false},
 *        {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]},
 *    "post_processor": null or ByteLevel, "decoder": {"type": "ByteLevel"},
 *    "model": {"type": "BPE", "ignore_merges", "vocab": {text: id}, "merges": ["a b" or ["a", "b"], ...]}}
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "engine/text/tokenizer_internal.h"
#include "engine/text/tokenizer_unicode.h"

#define FILE_MAX_BYTES ((size_t)128 << 20)

/* The words of ByteLevel with use_regex: GPT-2's. */
static const char gpt2_words[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

struct loader {
    const char *name;
    struct pm_tokenizer *t;
    struct pm_error *err;
    struct pm_buf scratch; /* bytes of the name being looked up */
};

#define REFUSE(l, key, format, ...)                                                                          \
    pm_fail((l)->err, PM_EFORMAT, "%s: \"%s\" " format, (l)->name, key, __VA_ARGS__)
#define UNSUPPORTED(l, key, format, ...)                                                                     \
    pm_fail((l)->err, PM_EUNSUPPORTED, "%s: \"%s\" " format, (l)->name, key, __VA_ARGS__)

/* ---- byte characters ---- */

/* Printable Latin-1 stands for itself; the other bytes, in order, are U+0100 and up. */
static bool is_own_character(unsigned byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

static int byte_of_character(uint32_t c)
{
    if (c < 256)
        return is_own_character(c) ? (int)c : -1;
    /* 0..32, then 127..160, then 173 */
    uint32_t n = c - 256;
    if (n <= 32)
        return (int)n;
    if (n <= 32 + 34)
        return (int)(n - 33 + 127);
    return n == 67 ? 173 : -1;
}

bool pm_token_text_bytes(const char *text, size_t bytes, struct pm_buf *out)
{
    const uint8_t *at = (const uint8_t *)text, *end = at + bytes;
    size_t before = out->size;
    while (at < end) {
        size_t n;
        int byte = byte_of_character(pm_unicode_at(at, (size_t)(end - at), &n));
        if (byte < 0) {
            out->size = before;
            pm_buf_append(out, text, bytes);
            return false;
        }
        uint8_t b = (uint8_t)byte;
        pm_buf_append(out, &b, 1);
        at += n;
    }
    return true;
}

/* ---- JSON ---- */

static const char *kind_name(const json_t *v)
{
    static const char *const names[] = {"an object", "an array", "a string", "an integer",
                                        "a real",    "true",     "false",    "null"};
    return v ? names[json_typeof(v)] : "missing";
}

static int get_flag(struct loader *l, const json_t *object, const char *key, bool *out)
{
    const json_t *v = json_object_get(object, key);
    *out = json_is_true(v);
    if (v && !json_is_boolean(v))
        return REFUSE(l, key, "is %s; it must be true or false", kind_name(v));
    return 0;
}

/* The "type" of a part; NULL for a part that is null or missing. */
static int get_type(struct loader *l, const json_t *part, const char *key, const char **out)
{
    *out = NULL;
    if (!part || json_is_null(part))
        return 0;
    if (!json_is_object(part))
        return REFUSE(l, key, "is %s; it must be an object or null", kind_name(part));
    const json_t *type = json_object_get(part, "type");
    if (!json_is_string(type))
        return REFUSE(l, key, "has a type that is %s", kind_name(type));
    *out = json_string_value(type);
    return 0;
}

/* ---- vocabulary ---- */

static int check_id(struct loader *l, const char *key, const char *text, const json_t *id, int32_t *out)
{
    if (!json_is_integer(id))
        return REFUSE(l, key, "gives %.60s an id that is %s", text, kind_name(id));
    json_int_t n = json_integer_value(id);
    if (n < 0)
        return REFUSE(l, key, "gives %.60s the id %lld", text, (long long)n);
    if (n >= PM_TOKENIZER_MAX_IDS)
        return pm_fail(l->err, PM_ELIMIT, "%s: \"%s\" gives %.60s the id %lld; ids below %d are served",
                       l->name, key, text, (long long)n, PM_TOKENIZER_MAX_IDS);
    *out = (int32_t)n;
    return 0;
}

static void ensure_size(struct pm_tokenizer *t, int size)
{
    if (size <= t->size)
        return;
    t->tokens = pm_xrealloc(t->tokens, (size_t)size * sizeof *t->tokens);
    memset(t->tokens + t->size, 0, (size_t)(size - t->size) * sizeof *t->tokens);
    t->size = size;
}

static void put_token(struct pm_tokenizer *t, int32_t id, const char *text, size_t bytes, uint8_t kind)
{
    struct pm_token *token = &t->tokens[id];
    token->at = (uint32_t)t->arena.size;
    token->kind = kind;
    if (!pm_token_text_bytes(text, bytes, &t->arena))
        token->kind |= PM_TOKEN_PLAIN;
    token->bytes = (uint32_t)(t->arena.size - token->at);
}

static uint32_t table_size(size_t entries)
{
    uint32_t size = 16;
    while (size < entries * 2)
        size *= 2;
    return size;
}

static int load_vocab(struct loader *l, json_t *vocab)
{
    struct pm_tokenizer *t = l->t;
    if (!json_is_object(vocab))
        return REFUSE(l, "model.vocab", "is %s; it must be an object", kind_name(vocab));
    size_t count = json_object_size(vocab);
    if (count > PM_TOKENIZER_MAX_IDS)
        return pm_fail(l->err, PM_ELIMIT, "%s: \"model.vocab\" has %zu entries; at most %d are served",
                       l->name, count, PM_TOKENIZER_MAX_IDS);
    int32_t id, largest = -1;
    const char *text;
    json_t *value;
    json_object_foreach(vocab, text, value)
    {
        int rc = check_id(l, "model.vocab", text, value, &id);
        if (rc)
            return rc;
        if (id > largest)
            largest = id;
    }
    ensure_size(t, largest + 1);
    uint32_t slots = table_size(count);
    t->slots = pm_xalloc(slots * sizeof *t->slots);
    t->slot_mask = slots - 1;
    json_object_foreach(vocab, text, value)
    {
        id = (int32_t)json_integer_value(value);
        if (t->tokens[id].kind)
            return REFUSE(l, "model.vocab", "gives the id %d to two entries, one of them %.60s", id, text);
        put_token(t, id, text, strlen(text), PM_TOKEN_IN_VOCAB);
        const struct pm_token *token = &t->tokens[id];
        uint32_t at =
            pm_tokenizer_hash(t->arena.data + token->at, token->bytes, token->kind & PM_TOKEN_PLAIN);
        while (t->slots[at & t->slot_mask])
            at++;
        t->slots[at & t->slot_mask] = (uint32_t)id + 1;
    }
    for (int b = 0; b < 256; b++) {
        uint8_t byte = (uint8_t)b;
        t->byte_ids[b] = pm_tokenizer_find(t, &byte, 1, 0);
    }
    return 0;
}

/* ---- merges ---- */

static int find_name(struct loader *l, const char *text, size_t bytes)
{
    l->scratch.size = 0;
    uint8_t kind = pm_token_text_bytes(text, bytes, &l->scratch) ? 0 : PM_TOKEN_PLAIN;
    return pm_tokenizer_find(l->t, l->scratch.data, l->scratch.size, kind);
}

/* The two parts of a merge, as "a b" or ["a", "b"]. */
static int merge_parts(struct loader *l, size_t rank, const json_t *merge, const char *part[2],
                       size_t bytes[2])
{
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge), *blank = strchr(text, ' ');
        if (!blank || strchr(blank + 1, ' '))
            return REFUSE(l, "model.merges", "entry %zu (%.60s) is not two parts with a blank between", rank,
                          text);
        part[0] = text;
        bytes[0] = (size_t)(blank - text);
        part[1] = blank + 1;
        bytes[1] = strlen(part[1]);
        return 0;
    }
    if (!json_is_array(merge) || json_array_size(merge) != 2 || !json_is_string(json_array_get(merge, 0)) ||
        !json_is_string(json_array_get(merge, 1)))
        return REFUSE(l, "model.merges", "entry %zu is neither a string nor an array of two strings", rank);
    for (size_t i = 0; i < 2; i++) {
        part[i] = json_string_value(json_array_get(merge, i));
        bytes[i] = json_string_length(json_array_get(merge, i));
    }
    return 0;
}

static void put_merge(struct pm_tokenizer *t, uint32_t a, uint32_t b, uint32_t rank, uint32_t id)
{
    uint32_t at = pm_merge_hash(a, b);
    struct pm_merge *m;
    for (;; at++) {
        m = &t->merges[at & t->merge_mask];
        if (m->a == UINT32_MAX || (m->a == a && m->b == b))
            break; /* the last of two equal merges counts, as in the reference */
    }
    *m = (struct pm_merge){a, b, rank, id};
}

static int load_merges(struct loader *l, const json_t *merges)
{
    struct pm_tokenizer *t = l->t;
    if (!json_is_array(merges))
        return REFUSE(l, "model.merges", "is %s; it must be an array", kind_name(merges));
    size_t count = json_array_size(merges);
    if (count > PM_TOKENIZER_MAX_MERGES)
        return pm_fail(l->err, PM_ELIMIT, "%s: \"model.merges\" has %zu entries; at most %d are served",
                       l->name, count, PM_TOKENIZER_MAX_MERGES);
    uint32_t slots = table_size(count), rank = 0;
    t->merges = pm_xalloc(slots * sizeof *t->merges);
    memset(t->merges, 0xff, slots * sizeof *t->merges);
    t->merge_mask = slots - 1;
    for (size_t i = 0; i < count; i++) {
        const json_t *merge = json_array_get(merges, i);
        if (json_is_string(merge) && strncmp(json_string_value(merge), "#version", 8) == 0)
            continue; /* a header that old files carry */
        const char *part[2];
        size_t bytes[2];
        int rc = merge_parts(l, i, merge, part, bytes);
        if (rc)
            return rc;
        int a = find_name(l, part[0], bytes[0]), b = find_name(l, part[1], bytes[1]);
        if (a < 0 || b < 0)
            return REFUSE(l, "model.merges", "entry %zu names %.*s, which is not in the vocabulary", i,
                          (int)(bytes[a < 0 ? 0 : 1] > 60 ? 60 : bytes[a < 0 ? 0 : 1]), part[a < 0 ? 0 : 1]);
        char *joined = pm_xalloc(bytes[0] + bytes[1] + 1);
        memcpy(joined, part[0], bytes[0]);
        memcpy(joined + bytes[0], part[1], bytes[1]);
        int id = find_name(l, joined, bytes[0] + bytes[1]);
        if (id < 0)
            rc =
                REFUSE(l, "model.merges", "entry %zu makes %.60s, which is not in the vocabulary", i, joined);
        free(joined);
        if (rc)
            return rc;
        put_merge(t, (uint32_t)a, (uint32_t)b, rank++, (uint32_t)id);
    }
    return 0;
}

/* ---- model ---- */

static int refuse_affix(struct loader *l, const json_t *model, const char *key)
{
    const json_t *v = json_object_get(model, key);
    if (!v || json_is_null(v) || (json_is_string(v) && json_string_length(v) == 0))
        return 0;
    return UNSUPPORTED(l, key, "of the model is set; only byte-level vocabularies without %s are served",
                       key);
}

static int load_model(struct loader *l, const json_t *model)
{
    const char *type;
    int rc = get_type(l, model, "model", &type);
    if (rc)
        return rc;
    if (!type)
        return REFUSE(l, "model", "is %s", kind_name(model));
    if (strcmp(type, "BPE") != 0)
        return UNSUPPORTED(l, "model", "is of type %.60s; only BPE is served", type);
    if ((rc = get_flag(l, model, "ignore_merges", &l->t->ignore_merges)) ||
        (rc = refuse_affix(l, model, "continuing_subword_prefix")) ||
        (rc = refuse_affix(l, model, "end_of_word_suffix")))
        return rc;
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout && !json_is_null(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0))
        return UNSUPPORTED(l, "model.dropout", "is %s; random merges are not served", kind_name(dropout));
    if ((rc = load_vocab(l, json_object_get(model, "vocab"))) ||
        (rc = load_merges(l, json_object_get(model, "merges"))))
        return rc;
    /* What happens to bytes without a token only matters when there are such. */
    bool fallback;
    if ((rc = get_flag(l, model, "byte_fallback", &fallback)))
        return rc;
    const json_t *unknown = json_object_get(model, "unk_token");
    for (int b = 0; b < 256; b++)
        if (l->t->byte_ids[b] < 0 && (fallback || (unknown && !json_is_null(unknown))))
            return UNSUPPORTED(l, fallback ? "model.byte_fallback" : "model.unk_token",
                               "is set and the vocabulary lacks the byte 0x%02x", b);
    return 0;
}

/* ---- pre-tokeniser and the other parts ---- */

static int add_split(struct loader *l, const char *pattern, size_t bytes)
{
    struct pm_tokenizer *t = l->t;
    if (t->split_count == PM_TOKENIZER_MAX_SPLITS)
        return pm_fail(l->err, PM_ELIMIT, "%s: \"pre_tokenizer\" has more than %d split expressions", l->name,
                       PM_TOKENIZER_MAX_SPLITS);
    int rc = pm_splitter_new(pattern, bytes, &t->splits[t->split_count], l->err);
    if (rc)
        return pm_fail_prefix(l->err, "%s: \"pre_tokenizer\", expression %d", l->name, t->split_count + 1);
    t->split_count++;
    return 0;
}

static int load_split(struct loader *l, const json_t *part)
{
    bool invert;
    int rc = get_flag(l, part, "invert", &invert);
    if (rc)
        return rc;
    const json_t *behavior = json_object_get(part, "behavior"), *pattern = json_object_get(part, "pattern");
    if (!json_is_string(behavior) || !json_is_object(pattern))
        return REFUSE(l, "pre_tokenizer", "has a Split whose %s is %s",
                      json_is_object(pattern) ? "behavior" : "pattern",
                      kind_name(json_is_object(pattern) ? behavior : pattern));
    if (strcmp(json_string_value(behavior), "Isolated") != 0 || invert)
        return UNSUPPORTED(l, "pre_tokenizer", "has a Split of behavior %.40s%s; only Isolated is served",
                           json_string_value(behavior), invert ? ", inverted" : "");
    const json_t *regex = json_object_get(pattern, "Regex");
    if (!json_is_string(regex))
        return UNSUPPORTED(l, "pre_tokenizer", "has a Split by %s; only a \"Regex\" is served",
                           json_object_get(pattern, "String") ? "a fixed String" : "something unknown");
    return add_split(l, json_string_value(regex), json_string_length(regex));
}

static int load_byte_level(struct loader *l, const json_t *part)
{
    bool prefix;
    int rc = get_flag(l, part, "add_prefix_space", &prefix);
    if (rc)
        return rc;
    const json_t *regex = json_object_get(part, "use_regex");
    if (regex && !json_is_boolean(regex))
        return REFUSE(l, "use_regex", "is %s; it must be true or false", kind_name(regex));
    if (prefix || !json_object_get(part, "add_prefix_space"))
        return UNSUPPORTED(l, "add_prefix_space", "of the %s is set; ids would not tell the exact text",
                           "pre_tokenizer");
    return json_is_false(regex) ? 0 : add_split(l, gpt2_words, sizeof gpt2_words - 1);
}

static int load_pre_tokenizer(struct loader *l, const json_t *pre)
{
    const char *type;
    int rc = get_type(l, pre, "pre_tokenizer", &type);
    if (rc)
        return rc;
    json_t *parts = type && strcmp(type, "Sequence") == 0 ? json_object_get(pre, "pretokenizers") : NULL;
    if (type && strcmp(type, "Sequence") == 0 && !json_is_array(parts))
        return REFUSE(l, "pretokenizers", "is %s; it must be an array", kind_name(parts));
    size_t count = parts ? json_array_size(parts) : type ? 1 : 0;
    bool is_bytes = false;
    for (size_t i = 0; i < count && !rc; i++) {
        const json_t *part = parts ? json_array_get(parts, i) : pre;
        const char *kind;
        if ((rc = get_type(l, part, "pre_tokenizer", &kind)))
            return rc;
        if (kind && is_bytes)
            return UNSUPPORTED(l, "pre_tokenizer", "has %.40s after ByteLevel", kind);
        if (kind && strcmp(kind, "ByteLevel") == 0) {
            rc = load_byte_level(l, part);
            is_bytes = true;
        } else if (kind && strcmp(kind, "Split") == 0) {
            rc = load_split(l, part);
        } else {
            rc = UNSUPPORTED(l, "pre_tokenizer", "has a part of type %.40s; Split and ByteLevel are served",
                             kind ? kind : "null");
        }
    }
    if (!rc && !is_bytes)
        rc = UNSUPPORTED(l, "pre_tokenizer", "has no ByteLevel part; only %s tokenizers are served",
                         "byte-level");
    return rc;
}

/* A part that may be null, or ByteLevel, which then changes no id. */
static int check_part(struct loader *l, const json_t *root, const char *key, bool may_be_null)
{
    const char *type;
    int rc = get_type(l, json_object_get(root, key), key, &type);
    if (rc)
        return rc;
    if (type ? strcmp(type, "ByteLevel") == 0 : may_be_null)
        return 0;
    return UNSUPPORTED(l, key, "is %.60s; ByteLevel%s served", type ? type : "null",
                       may_be_null ? " and null are" : " is");
}

/* ---- added tokens ---- */

static uint32_t add_node(struct pm_added_trie *trie, uint8_t byte)
{
    PM_GROW(trie->nodes, trie->count, trie->capacity);
    trie->nodes[trie->count] = (struct pm_added_node){0, 0, -1, byte};
    return trie->count++;
}

static void put_added(struct pm_added_trie *trie, const uint8_t *text, size_t bytes, int32_t token)
{
    if (trie->count == 0)
        add_node(trie, 0);
    uint32_t at = 0;
    for (size_t i = 0; i < bytes; i++) {
        uint32_t child = trie->nodes[at].child;
        while (child && trie->nodes[child].byte != text[i])
            child = trie->nodes[child].sibling;
        if (!child) {
            child = add_node(trie, text[i]);
            trie->nodes[child].sibling = trie->nodes[at].child;
            trie->nodes[at].child = child;
        }
        at = child;
    }
    trie->nodes[at].token = token;
}

static int load_added_token(struct loader *l, const json_t *entry)
{
    struct pm_tokenizer *t = l->t;
    struct pm_added_token added = {0};
    bool special, normalized;
    int rc;
    const json_t *content = json_object_get(entry, "content");
    if (!json_is_string(content))
        return REFUSE(l, "added_tokens", "has an entry whose content is %s", kind_name(content));
    const char *text = json_string_value(content);
    size_t bytes = json_string_length(content);
    if ((rc = check_id(l, "added_tokens", text, json_object_get(entry, "id"), &added.id)) ||
        (rc = get_flag(l, entry, "special", &special)) ||
        (rc = get_flag(l, entry, "normalized", &normalized)) ||
        (rc = get_flag(l, entry, "lstrip", &added.lstrip)) ||
        (rc = get_flag(l, entry, "rstrip", &added.rstrip)) ||
        (rc = get_flag(l, entry, "single_word", &added.single_word)))
        return rc;
    if (bytes == 0)
        return REFUSE(l, "added_tokens", "gives the id %d to an empty text", added.id);
    if (bytes > PM_TOKENIZER_MAX_ADDED_BYTES)
        return pm_fail(l->err, PM_ELIMIT,
                       "%s: \"added_tokens\" has a text of %zu bytes; at most %d are served", l->name, bytes,
                       PM_TOKENIZER_MAX_ADDED_BYTES);
    if (pm_tokenizer_id(t, text) >= 0)
        return REFUSE(l, "added_tokens", "names %.60s twice", text);
    /* A text that the vocabulary has too must be the same token: else two ids would claim it. */
    int32_t known = find_name(l, text, bytes);
    ensure_size(t, added.id + 1);
    if (known >= 0 ? known != added.id : t->tokens[added.id].kind != 0)
        return REFUSE(l, "added_tokens", "gives %.60s the id %d, but %s %d", text, added.id,
                      known >= 0 ? "the vocabulary has that text under" : "another token has the id",
                      known >= 0 ? known : added.id);
    if (known < 0)
        put_token(t, added.id, text, bytes, 0);
    t->tokens[added.id].kind |= PM_TOKEN_ADDED | (special ? PM_TOKEN_SPECIAL : 0);
    added.bytes = (uint32_t)bytes;
    put_added(&t->tries[normalized], (const uint8_t *)text, bytes, (int32_t)t->added_count);
    PM_GROW(t->added, t->added_count, t->added_capacity);
    t->added[t->added_count++] = added;
    return 0;
}

static int load_added(struct loader *l, const json_t *list)
{
    if (!list || json_is_null(list))
        return 0;
    if (!json_is_array(list))
        return REFUSE(l, "added_tokens", "is %s; it must be an array", kind_name(list));
    size_t count = json_array_size(list);
    if (count > PM_TOKENIZER_MAX_ADDED)
        return pm_fail(l->err, PM_ELIMIT, "%s: \"added_tokens\" has %zu entries; at most %d are served",
                       l->name, count, PM_TOKENIZER_MAX_ADDED);
    int rc = 0;
    for (size_t i = 0; i < count && !rc; i++)
        rc = load_added_token(l, json_array_get(list, i));
    return rc;
}

/* ---- all ---- */

static int load(struct loader *l, const json_t *root)
{
    int rc;
    if (!json_is_object(root))
        return pm_fail(l->err, PM_EFORMAT, "%s: is %s; it must be an object", l->name, kind_name(root));
    const json_t *normalizer = json_object_get(root, "normalizer");
    const char *type;
    if ((rc = get_type(l, normalizer, "normalizer", &type)))
        return rc;
    if (type)
        return UNSUPPORTED(l, "normalizer", "is %.60s; only null is served", type);
    if ((rc = load_pre_tokenizer(l, json_object_get(root, "pre_tokenizer"))) ||
        (rc = check_part(l, root, "post_processor", true)) || (rc = check_part(l, root, "decoder", false)) ||
        (rc = load_model(l, json_object_get(root, "model"))))
        return rc;
    return load_added(l, json_object_get(root, "added_tokens"));
}

int pm_tokenizer_parse(const char *name, const char *json, size_t bytes, struct pm_tokenizer **out,
                       struct pm_error *err)
{
    *out = NULL;
    if (bytes > FILE_MAX_BYTES)
        return pm_fail(err, PM_ELIMIT, "%s: %zu bytes; at most %zu are read", name, bytes, FILE_MAX_BYTES);
    json_error_t where;
    json_t *root = json_loadb(json, bytes, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return pm_fail(err, PM_EFORMAT, "%s: not JSON: line %d: %s", name, where.line, where.text);
    struct loader l = {.name = name, .t = pm_xalloc(sizeof *l.t), .err = err};
    int rc = load(&l, root);
    if (rc)
        pm_tokenizer_free(&l.t);
    pm_buf_free(&l.scratch);
    json_decref(root);
    *out = l.t;
    return rc;
}

int pm_tokenizer_open(const char *path, struct pm_tokenizer **out, struct pm_error *err)
{
    struct pm_buf text = {0};
    *out = NULL;
    int rc = pm_fs_read(path, FILE_MAX_BYTES, &text, err);
    if (!rc)
        rc = pm_tokenizer_parse(path, (const char *)text.data, text.size, out, err);
    pm_buf_free(&text);
    return rc;
}
