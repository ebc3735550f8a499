#include "collector/text.h"

#include <string.h>

uint32_t pm_text_point(const char *text, size_t bytes, size_t at, size_t *length_out)
{
    const uint8_t *p = (const uint8_t *)text + at;
    size_t left = bytes - at, n = 1;
    uint32_t c = p[0];
    if (c < 0x80) {
        *length_out = 1;
        return c;
    }
    if (c >= 0xC2 && c < 0xE0)
        n = 2, c &= 0x1F;
    else if (c >= 0xE0 && c < 0xF0)
        n = 3, c &= 0x0F;
    else if (c >= 0xF0 && c < 0xF5)
        n = 4, c &= 0x07;
    else
        n = 0;
    for (size_t i = 1; i < n; i++) {
        if (i >= left || (p[i] & 0xC0) != 0x80) {
            n = 0;
            break;
        }
        c = c << 6 | (p[i] & 0x3F);
    }
    *length_out = n ? n : 1;
    return n ? c : 0xFFFD;
}

uint32_t pm_text_first(const char *text, size_t bytes)
{
    size_t n;
    return bytes ? pm_text_point(text, bytes, 0, &n) : 0;
}

/* Where the last character begins. */
static size_t last_at(const char *text, size_t bytes)
{
    size_t at = bytes - 1;
    while (at && bytes - at < 4 && ((uint8_t)text[at] & 0xC0) == 0x80)
        at--;
    return at;
}

uint32_t pm_text_last(const char *text, size_t bytes)
{
    size_t n;
    return bytes ? pm_text_point(text, bytes, last_at(text, bytes), &n) : 0;
}

void pm_text_put(struct pm_buf *out, uint32_t c)
{
    uint8_t b[4];
    size_t n;
    if (c < 0x80) {
        b[0] = (uint8_t)c;
        n = 1;
    } else if (c < 0x800) {
        b[0] = (uint8_t)(0xC0 | c >> 6);
        b[1] = (uint8_t)(0x80 | (c & 0x3F));
        n = 2;
    } else if (c < 0x10000) {
        b[0] = (uint8_t)(0xE0 | c >> 12);
        b[1] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
        b[2] = (uint8_t)(0x80 | (c & 0x3F));
        n = 3;
    } else {
        b[0] = (uint8_t)(0xF0 | c >> 18);
        b[1] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
        b[2] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
        b[3] = (uint8_t)(0x80 | (c & 0x3F));
        n = 4;
    }
    pm_buf_append(out, b, n);
}

/* Case of the blocks in which capitals and small letters alternate: +1 lower, -1 upper, 0 not such a block.
 */
static int alternating(uint32_t c)
{
    bool odd = c & 1;
    if ((c >= 0x100 && c <= 0x137) || (c >= 0x14A && c <= 0x177) || (c >= 0x1E00 && c <= 0x1EFF) ||
        (c >= 0x460 && c <= 0x481) || (c >= 0x48A && c <= 0x4BF) || (c >= 0x4D0 && c <= 0x52F) ||
        (c >= 0x218 && c <= 0x21B))
        return odd ? 1 : -1;
    if ((c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17E))
        return odd ? -1 : 1;
    return 0;
}

bool pm_text_is_lower(uint32_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 0xDF && c <= 0xFF && c != 0xF7) || alternating(c) > 0 ||
           (c >= 0x3AC && c <= 0x3CE) || (c >= 0x430 && c <= 0x45F) || (c >= 0x561 && c <= 0x587) ||
           (c >= 0xFB00 && c <= 0xFB06) || c == 0x17F;
}

bool pm_text_is_upper(uint32_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 0xC0 && c <= 0xDE && c != 0xD7) || alternating(c) < 0 ||
           (c >= 0x386 && c <= 0x3AB && c != 0x387 && c != 0x390) || (c >= 0x400 && c <= 0x42F) ||
           (c >= 0x531 && c <= 0x556) || c == 0x178;
}

bool pm_text_is_digit(uint32_t c)
{
    return c >= '0' && c <= '9';
}

bool pm_text_is_letter(uint32_t c)
{
    if (c < 0xC0)
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == 0xAA || c == 0xB5 || c == 0xBA;
    if (c == 0xD7 || c == 0xF7 || c == 0xFFFD)
        return false;
    /* punctuation, currency, arrows, operators, boxes, dingbats; CJK and full-width punctuation */
    return !((c >= 0x2000 && c <= 0x2BFF) || (c >= 0x2E00 && c <= 0x2E7F) || (c >= 0x3000 && c <= 0x3004) ||
             (c >= 0x3008 && c <= 0x3020) || (c >= 0xFE10 && c <= 0xFE6F) || (c >= 0xFF00 && c <= 0xFF20) ||
             (c >= 0xE000 && c <= 0xF8FF) || (c >= 0x1F000 && c <= 0x1FAFF));
}

bool pm_text_is_wide(uint32_t c)
{
    return (c >= 0x2E80 && c <= 0x9FFF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0xFE30 && c <= 0xFE4F) ||
           (c >= 0xFF00 && c <= 0xFF9F) || (c >= 0x20000 && c <= 0x3FFFF);
}

bool pm_text_is_space(uint32_t c)
{
    return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

bool pm_text_is_hyphen(uint32_t c)
{
    return c == '-' || c == 0xAD || c == 0x2010 || c == 0x2011;
}

static bool is_closing(uint32_t c)
{
    return c == '"' || c == '\'' || c == ')' || c == ']' || c == '}' || c == 0xBB || c == 0x201D ||
           c == 0x2019 || c == 0x203A || c == 0x300D || c == 0x300F || c == 0xFF09;
}

bool pm_text_ends_sentence(const char *text, size_t bytes)
{
    while (bytes) {
        size_t at = last_at(text, bytes), n;
        uint32_t c = pm_text_point(text, bytes, at, &n);
        if (c == '.' || c == '!' || c == '?' || c == ':' || c == 0x2026 || c == 0x3002 || c == 0xFF01 ||
            c == 0xFF1F || c == 0xFF1A || c == 0xFF0E)
            return true;
        if (!is_closing(c) && !pm_text_is_space(c))
            return false;
        bytes = at;
    }
    return false;
}

size_t pm_text_points(const char *text, size_t bytes)
{
    size_t count = 0;
    for (size_t at = 0, n; at < bytes; at += n)
        count += !pm_text_is_space(pm_text_point(text, bytes, at, &n));
    return count;
}

size_t pm_text_first_word(const char *text, size_t bytes, size_t *points_out)
{
    size_t at = 0, points = 0, n;
    while (at < bytes) {
        uint32_t c = pm_text_point(text, bytes, at, &n);
        if (pm_text_is_space(c))
            break;
        at += n;
        points++;
        if (pm_text_is_wide(c)) /* such text breaks after every character */
            break;
    }
    if (points_out)
        *points_out = points;
    return at;
}

static bool is_dropped(uint32_t c)
{
    return c < 0x20 || c == 0x7F || (c > 0x7F && c < 0xA0 && c != 0x85) || c == 0x200B || c == 0x2060 ||
           c == 0xFEFF || c == 0x200E || c == 0x200F || (c >= 0x202A && c <= 0x202E) ||
           (c >= 0x2066 && c <= 0x2069);
}

void pm_text_clean(struct pm_buf *out, const char *text, size_t bytes)
{
    bool has_text = false, wants_blank = false, soft = false;
    for (size_t at = 0, n; at < bytes; at += n) {
        uint32_t c = pm_text_point(text, bytes, at, &n);
        if (pm_text_is_space(c)) {
            wants_blank = has_text;
            continue;
        }
        if (is_dropped(c))
            continue;
        if (c == 0xAD) {
            soft = true;
            continue;
        }
        if (wants_blank)
            pm_buf_append(out, " ", 1);
        has_text = true;
        wants_blank = soft = false;
        pm_text_put(out, c);
    }
    if (soft && has_text)
        pm_text_put(out, 0xAD);
}

/* ---- line ends ------------------------------------------------------------------------------------- */

static bool is_word(const char *word, size_t bytes, const char *const *list)
{
    for (; *list; list++)
        if (strlen(*list) == bytes && !memcmp(*list, word, bytes))
            return true;
    return false;
}

static bool has_byte(const char *text, size_t bytes, const char *set)
{
    for (size_t i = 0; i < bytes; i++)
        if (strchr(set, text[i]) && text[i])
            return true;
    return false;
}

/* An address, a path, an option: things whose hyphens are their own. */
static bool is_address(const char *word, size_t bytes)
{
    while (bytes && (*word == '(' || *word == '<' || *word == '"' || *word == '['))
        word++, bytes--;
    if (bytes > 4 && !memcmp(word, "www.", 4))
        return true;
    if (bytes > 2 && (word[0] == '/' || word[0] == '~') && has_byte(word + 1, bytes - 1, "/"))
        return true;
    for (size_t i = 0; i + 3 <= bytes; i++)
        if (!memcmp(word + i, "://", 3))
            return true;
    if (has_byte(word, bytes, "@\\"))
        return true;
    /* two slashes inside one word: a relative path */
    size_t slashes = 0;
    for (size_t i = 0; i < bytes; i++)
        slashes += word[i] == '/';
    return slashes >= 2;
}

/* Could this be the rest of an address: something that prose has no use for inside a word? */
static bool is_address_rest(const char *word, size_t bytes)
{
    while (bytes && strchr(".,;:)>\"'", word[bytes - 1]))
        bytes--;
    return has_byte(word, bytes, "/_=&%#~?.") || has_byte(word, bytes, "0123456789");
}

enum join { JOIN_BLANK, JOIN_TIGHT, JOIN_DROP_HYPHEN };

static enum join hyphen_join(const char *word, size_t bytes, size_t hyphen_bytes, uint32_t hyphen,
                             const char *next, size_t next_bytes)
{
    static const char *const conjunctions[] = {"and", "or", "und", "oder", "bzw.", "et", "ou",
                                               "y",   "o",  "e",   "i",    "och",  "en", NULL};
    size_t stem = bytes - hyphen_bytes;
    uint32_t before = pm_text_last(word, stem), after = pm_text_first(next, next_bytes);
    if (hyphen == 0xAD)
        return JOIN_DROP_HYPHEN;
    if (!stem || !(pm_text_is_letter(before) || pm_text_is_digit(before)))
        return JOIN_BLANK; /* a dash, or an option's -- */
    if (pm_text_is_digit(after))
        return pm_text_is_digit(before) || pm_text_is_upper(before) ? JOIN_TIGHT : JOIN_BLANK;
    if (!pm_text_is_letter(after))
        return JOIN_BLANK;
    size_t first = pm_text_first_word(next, next_bytes, NULL);
    if (is_word(next, first, conjunctions))
        return JOIN_BLANK;
    if (is_address(word, bytes) || has_byte(word, stem, "_/="))
        return JOIN_TIGHT;
    if (!pm_text_is_lower(after))
        return JOIN_TIGHT; /* Franco-German, PO-Dateien */
    if (pm_text_is_digit(before))
        return JOIN_TIGHT; /* 5-fold */
    size_t start = 0;      /* the letters before the hyphen, without opening quotes and brackets */
    for (size_t n; start < stem; start += n) {
        uint32_t c = pm_text_point(word, stem, start, &n);
        if (pm_text_is_letter(c) || c == '-')
            break;
    }
    if (pm_text_points(word + start, stem - start) == 1)
        return JOIN_TIGHT; /* e-mail, x-ray */
    for (size_t at = start, n; at < stem; at += n)
        if (pm_text_is_hyphen(pm_text_point(word, stem, at, &n)))
            return JOIN_TIGHT; /* state-of-the-art, --with-option */
    return JOIN_DROP_HYPHEN;
}

static size_t last_word_at(const char *text, size_t start, size_t size)
{
    size_t at = size;
    while (at > start) {
        size_t from = start + last_at(text + start, at - start), n;
        if (pm_text_is_space(pm_text_point(text, size, from, &n)))
            break;
        at = from;
    }
    return at;
}

void pm_text_join(struct pm_buf *out, size_t start, const char *next, size_t bytes, bool is_full)
{
    if (!bytes)
        return;
    if (out->size <= start) {
        pm_buf_append(out, next, bytes);
        return;
    }
    const char *text = (const char *)out->data;
    size_t at = last_word_at(text, start, out->size), word = out->size - at;
    size_t tail = out->size - (start + last_at(text + start, out->size - start));
    uint32_t last = pm_text_last(text + start, out->size - start), first = pm_text_first(next, bytes);
    enum join join = JOIN_BLANK;
    if (pm_text_is_hyphen(last)) {
        join = hyphen_join(text + at, word, tail, last, next, bytes);
    } else if (pm_text_is_wide(last) && pm_text_is_wide(first)) {
        join = JOIN_TIGHT;
    } else if (last == 0x2014 && word > tail) {
        join = JOIN_TIGHT; /* an em dash that touches its word */
    } else if (is_full && last < 0x80 && strchr("/_=&?%", (int)last) && is_address(text + at, word)) {
        size_t first_word = pm_text_first_word(next, bytes, NULL);
        join = is_address_rest(next, first_word) ? JOIN_TIGHT : JOIN_BLANK;
    }
    if (join == JOIN_DROP_HYPHEN)
        out->size -= tail;
    if (join == JOIN_BLANK)
        pm_buf_append(out, " ", 1);
    pm_buf_append(out, next, bytes);
}
