#include "engine/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/text/tokenizer_internal.h"
#include "engine/text/tokenizer_unicode.h"

/* ---- tables ---- */

uint32_t pm_tokenizer_hash(const uint8_t *bytes, size_t count, uint8_t kind)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325) ^ kind;
    for (size_t i = 0; i < count; i++)
        h = (h ^ bytes[i]) * UINT64_C(0x100000001b3);
    return (uint32_t)(h ^ h >> 29);
}

int32_t pm_tokenizer_find(const struct pm_tokenizer *t, const uint8_t *bytes, size_t count, uint8_t kind)
{
    uint32_t slot;
    for (uint32_t at = pm_tokenizer_hash(bytes, count, kind); (slot = t->slots[at & t->slot_mask]); at++) {
        const struct pm_token *token = &t->tokens[slot - 1];
        if (token->bytes == count && (token->kind & PM_TOKEN_PLAIN) == kind &&
            (count == 0 || memcmp(t->arena.data + token->at, bytes, count) == 0))
            return (int32_t)(slot - 1);
    }
    return -1;
}

const struct pm_merge *pm_tokenizer_merge(const struct pm_tokenizer *t, uint32_t a, uint32_t b)
{
    for (uint32_t at = pm_merge_hash(a, b);; at++) {
        const struct pm_merge *m = &t->merges[at & t->merge_mask];
        if (m->a == UINT32_MAX)
            return NULL;
        if (m->a == a && m->b == b)
            return m;
    }
}

void pm_tokenizer_free(struct pm_tokenizer **tokenizer)
{
    struct pm_tokenizer *t = *tokenizer;
    *tokenizer = NULL;
    if (!t)
        return;
    for (int i = 0; i < t->split_count; i++)
        pm_splitter_free(&t->splits[i]);
    free(t->tries[0].nodes);
    free(t->tries[1].nodes);
    free(t->added);
    free(t->merges);
    free(t->slots);
    pm_buf_free(&t->arena);
    free(t->tokens);
    free(t);
}

int pm_tokenizer_size(const struct pm_tokenizer *t)
{
    return t->size;
}

bool pm_tokenizer_is_special(const struct pm_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->size && (t->tokens[id].kind & PM_TOKEN_SPECIAL);
}

const uint8_t *pm_tokenizer_bytes(const struct pm_tokenizer *t, int32_t id, size_t *bytes_out)
{
    *bytes_out = 0;
    if (id < 0 || id >= t->size || !t->tokens[id].kind)
        return NULL;
    *bytes_out = t->tokens[id].bytes;
    return t->arena.data + t->tokens[id].at;
}

/* ---- added tokens ---- */

/* The longest added token at the start of text: its index, or -1. */
static int32_t match_added(const struct pm_added_trie *trie, const uint8_t *text, size_t bytes)
{
    int32_t best = -1;
    uint32_t at = 0;
    for (size_t i = 0; i < bytes && trie->count; i++) {
        uint32_t child = trie->nodes[at].child;
        while (child && trie->nodes[child].byte != text[i])
            child = trie->nodes[child].sibling;
        if (!child)
            break;
        if (trie->nodes[child].token >= 0)
            best = trie->nodes[child].token;
        at = child;
    }
    return best;
}

int32_t pm_tokenizer_id(const struct pm_tokenizer *t, const char *text)
{
    size_t bytes = strlen(text);
    for (int k = 0; k < 2; k++) {
        int32_t index = match_added(&t->tries[k], (const uint8_t *)text, bytes);
        if (index >= 0 && t->added[index].bytes == bytes)
            return t->added[index].id;
    }
    return -1;
}

static bool is_word_at(const uint8_t *text, size_t at, size_t bytes)
{
    size_t n;
    return at < bytes && pm_unicode_is_word(pm_unicode_at(text + at, bytes - at, &n));
}

static bool is_word_before(const uint8_t *text, size_t at)
{
    return at > 0 && is_word_at(text, pm_unicode_before(text, at), at);
}

static size_t skip_space(const uint8_t *text, size_t at, size_t bytes)
{
    size_t n;
    while (at < bytes && pm_unicode_is_space(pm_unicode_at(text + at, bytes - at, &n)))
        at += n;
    return at;
}

static size_t skip_space_back(const uint8_t *text, size_t at, size_t floor)
{
    while (at > floor) {
        size_t n, before = pm_unicode_before(text, at);
        if (before < floor || !pm_unicode_is_space(pm_unicode_at(text + before, at - before, &n)))
            break;
        at = before;
    }
    return at;
}

/* ---- merging one word ---- */

/* One encode call. */
struct encoder {
    const struct pm_tokenizer *t;
    struct pm_error *err;
    int32_t *ids;
    size_t count, capacity;
    struct symbol { /* of the word being merged, linked; length 0: merged away */
        int32_t previous, next;
        uint32_t id, length;
    } * symbols;
    size_t symbol_capacity;
    struct candidate {  /* heap: smallest rank, then leftmost, on top */
        uint64_t order; /* rank << 32 | position */
        uint32_t id;
    } * heap;
    size_t heap_count, heap_capacity;
    struct pm_split_scan *scans[PM_TOKENIZER_MAX_SPLITS];
};

static void emit(struct encoder *e, uint32_t id)
{
    PM_GROW(e->ids, e->count, e->capacity);
    e->ids[e->count++] = (int32_t)id;
}

static void heap_push(struct encoder *e, uint64_t order, uint32_t id)
{
    PM_GROW(e->heap, e->heap_count, e->heap_capacity);
    size_t at = e->heap_count++;
    while (at > 0 && e->heap[(at - 1) / 2].order > order) {
        e->heap[at] = e->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    e->heap[at] = (struct candidate){order, id};
}

static struct candidate heap_pop(struct encoder *e)
{
    struct candidate top = e->heap[0], last = e->heap[--e->heap_count];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < e->heap_count) {
        if (child + 1 < e->heap_count && e->heap[child + 1].order < e->heap[child].order)
            child++;
        if (last.order <= e->heap[child].order)
            break;
        e->heap[at] = e->heap[child];
        at = child;
    }
    e->heap[at] = last;
    return top;
}

static void push_pair(struct encoder *e, int32_t left, int32_t right)
{
    if (left < 0 || right < 0)
        return;
    const struct pm_merge *m = pm_tokenizer_merge(e->t, e->symbols[left].id, e->symbols[right].id);
    if (m)
        heap_push(e, (uint64_t)m->rank << 32 | (uint32_t)left, m->id);
}

/* Merges in the reference's order, its handling of outdated candidates included: one counts as long as the
 * two symbols that stand there now make the same token. O(n log n). */
static void merge_word(struct encoder *e, const uint8_t *word, size_t bytes)
{
    if (bytes > e->symbol_capacity) {
        e->symbol_capacity = bytes < 64 ? 64 : bytes;
        e->symbols = pm_xrealloc(e->symbols, e->symbol_capacity * sizeof *e->symbols);
    }
    struct symbol *s = e->symbols;
    int32_t count = 0;
    for (size_t i = 0; i < bytes; i++) {
        int32_t id = e->t->byte_ids[word[i]];
        if (id < 0)
            continue; /* the reference drops what its vocabulary lacks */
        s[count] = (struct symbol){count - 1, count + 1, (uint32_t)id, 1};
        count++;
    }
    if (count == 0)
        return;
    s[count - 1].next = -1;
    e->heap_count = 0;
    for (int32_t i = 0; i + 1 < count; i++)
        push_pair(e, i, i + 1);
    while (e->heap_count > 0) {
        struct candidate top = heap_pop(e);
        int32_t at = (int32_t)(uint32_t)top.order, right = s[at].next;
        if (s[at].length == 0 || right < 0)
            continue;
        const struct pm_merge *m = pm_tokenizer_merge(e->t, s[at].id, s[right].id);
        if (!m || m->id != top.id)
            continue;
        s[at].id = top.id;
        s[at].length += s[right].length;
        s[at].next = s[right].next;
        s[right].length = 0;
        if (s[at].next >= 0)
            s[s[at].next].previous = at;
        push_pair(e, s[at].previous, at);
        push_pair(e, at, s[at].next);
    }
    for (int32_t i = 0; i >= 0; i = s[i].next)
        emit(e, s[i].id);
}

static void encode_word(struct encoder *e, const uint8_t *word, size_t bytes)
{
    int32_t id = bytes == 1 ? e->t->byte_ids[word[0]] : -1;
    if (id < 0 && e->t->ignore_merges)
        id = pm_tokenizer_find(e->t, word, bytes, 0);
    if (id >= 0)
        emit(e, (uint32_t)id);
    else
        merge_word(e, word, bytes);
}

/* ---- a text ---- */

/* Each split expression cuts the pieces of the one before it. */
static int encode_plain(struct encoder *e, const uint8_t *text, size_t bytes)
{
    int depth = 0, last = e->t->split_count - 1;
    if (last < 0) {
        encode_word(e, text, bytes);
        return 0;
    }
    pm_split_start(e->scans[0], e->t->splits[0], text, bytes);
    while (depth >= 0) {
        const uint8_t *piece;
        size_t piece_bytes;
        int rc = pm_split_next(e->scans[depth], &piece, &piece_bytes, e->err);
        if (rc == PM_ENOTFOUND) {
            depth--;
        } else if (rc) {
            return rc;
        } else if (depth == last) {
            encode_word(e, piece, piece_bytes);
        } else {
            depth++;
            pm_split_start(e->scans[depth], e->t->splits[depth], piece, piece_bytes);
        }
    }
    return 0;
}

/* Splits added tokens of one trie off; the rest goes to the next trie, then to the words. */
static int encode_text(struct encoder *e, const uint8_t *text, size_t bytes, int trie)
{
    if (bytes == 0)
        return 0;
    if (trie == 2)
        return encode_plain(e, text, bytes);
    if (e->t->tries[trie].count == 0)
        return encode_text(e, text, bytes, trie + 1);
    size_t done = 0;
    for (size_t at = 0; at < bytes;) {
        int32_t index = match_added(&e->t->tries[trie], text + at, bytes - at);
        if (index < 0) {
            at++;
            continue;
        }
        const struct pm_added_token *token = &e->t->added[index];
        size_t start = at, stop = at + token->bytes;
        at = stop;
        if (token->single_word && (is_word_before(text, start) || is_word_at(text, stop, bytes)))
            continue;
        if (token->lstrip)
            start = skip_space_back(text, start, done < start ? done : start);
        if (token->rstrip)
            stop = skip_space(text, stop, bytes);
        int rc = start > done ? encode_text(e, text + done, start - done, trie + 1) : 0;
        if (rc)
            return rc;
        emit(e, (uint32_t)token->id);
        if (stop > done)
            done = stop;
    }
    return encode_text(e, text + done, bytes - done, trie + 1);
}

int pm_tokenizer_encode(const struct pm_tokenizer *t, const char *text, size_t bytes, bool parse_special,
                        int32_t **ids_out, size_t *count_out, struct pm_error *err)
{
    *ids_out = NULL;
    *count_out = 0;
    if (bytes > PM_TOKENIZER_MAX_BYTES)
        return pm_fail(err, PM_ELIMIT, "a text of %zu bytes to turn into tokens; at most %zu are served",
                       bytes, PM_TOKENIZER_MAX_BYTES);
    struct pm_buf mended = {0};
    const uint8_t *data = (const uint8_t *)text;
    if (!pm_utf8_is_valid(text, bytes)) {
        pm_unicode_mend(data, bytes, &mended);
        data = mended.data;
        bytes = mended.size;
    }
    struct encoder e = {.t = t, .err = err};
    for (int i = 0; i < t->split_count; i++)
        e.scans[i] = pm_split_scan_new();
    int rc = encode_text(&e, data, bytes, parse_special ? 0 : 2);
    for (int i = 0; i < t->split_count; i++)
        pm_split_scan_free(&e.scans[i]);
    free(e.symbols);
    free(e.heap);
    pm_buf_free(&mended);
    if (rc) {
        free(e.ids);
        return rc;
    }
    *ids_out = e.ids ? e.ids : pm_xalloc(sizeof *e.ids);
    *count_out = e.count;
    return 0;
}

int pm_tokenizer_decode(const struct pm_tokenizer *t, const int32_t *ids, size_t count, bool skip_special,
                        char **text_out, size_t *bytes_out, struct pm_error *err)
{
    *text_out = NULL;
    *bytes_out = 0;
    struct pm_buf bytes = {0}, text = {0};
    for (size_t i = 0; i < count; i++) {
        size_t n;
        const uint8_t *data = pm_tokenizer_bytes(t, ids[i], &n);
        if (!data) {
            pm_buf_free(&bytes);
            return pm_fail(err, PM_EINVAL, "token %zu has the id %d, which the tokenizer does not know", i,
                           ids[i]);
        }
        if (!skip_special || !pm_tokenizer_is_special(t, ids[i]))
            pm_buf_append(&bytes, data, n);
    }
    pm_unicode_mend(bytes.data, bytes.size, &text);
    pm_buf_free(&bytes);
    *bytes_out = text.size;
    pm_buf_text(&text, "");
    *text_out = (char *)text.data;
    return 0;
}

/* ---- streams ---- */

/* Text is held back as long as it ends with U+FFFD: a character that is not complete, or a broken one that
 * more bytes might continue. The reference cannot tell the two from a U+FFFD that was written, so neither
 * do we. */
static bool is_open_ended(const uint8_t *bytes, size_t count)
{
    static const uint8_t replacement[3] = {0xef, 0xbf, 0xbd};
    if (count >= 3 && memcmp(bytes + count - 3, replacement, 3) == 0)
        return true;
    size_t at = pm_unicode_before(bytes, count);
    return pm_utf8_length(bytes + at, count - at) != count - at;
}

/* Too much is held back: all but what may still be the start of a character goes out. */
static void release_overfull(struct pm_token_stream *stream, struct pm_buf *out)
{
    size_t count = (size_t)stream->pending_bytes, keep = 0;
    for (size_t n = 1; n <= 3 && n < count && !keep; n++)
        if (stream->pending[count - n] >= 0xc0)
            keep = n;
    pm_unicode_mend(stream->pending, count - keep, out);
    memmove(stream->pending, stream->pending + count - keep, keep);
    stream->pending_bytes = (int)keep;
}

void pm_token_stream_add(struct pm_token_stream *stream, const struct pm_tokenizer *t, int32_t id,
                         bool skip_special, struct pm_buf *out)
{
    size_t count;
    const uint8_t *bytes = pm_tokenizer_bytes(t, id, &count);
    if (!bytes || (skip_special && pm_tokenizer_is_special(t, id)))
        return;
    while (count > 0) {
        size_t room = sizeof stream->pending - (size_t)stream->pending_bytes, n = count < room ? count : room;
        memcpy(stream->pending + stream->pending_bytes, bytes, n);
        stream->pending_bytes += (int)n;
        bytes += n;
        count -= n;
        if (count > 0)
            release_overfull(stream, out);
    }
    size_t held = (size_t)stream->pending_bytes;
    if (held > 0 && !is_open_ended(stream->pending, held)) {
        pm_unicode_mend(stream->pending, held, out);
        stream->pending_bytes = 0;
    }
}

void pm_token_stream_finish(struct pm_token_stream *stream, struct pm_buf *out)
{
    pm_unicode_mend(stream->pending, (size_t)stream->pending_bytes, out);
    stream->pending_bytes = 0;
}
