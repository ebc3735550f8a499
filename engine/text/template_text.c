#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/template_internal.h"
#include "engine/text/tokenizer_unicode.h"

/* What str.strip() and str.split() take for white space: White_Space and the four separators below it. */
static bool is_space(uint32_t c)
{
    return pm_unicode_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

static uint32_t character(struct pm_text s, size_t at, size_t *length)
{
    return pm_unicode_at((const uint8_t *)s.text + at, s.bytes - at, length);
}

size_t pm_text_length(struct pm_text s)
{
    size_t count = 0;
    for (size_t i = 0; i < s.bytes; i++)
        count += ((uint8_t)s.text[i] & 0xc0) != 0x80;
    return count;
}

static bool strips(uint32_t c, const struct pm_text *chars)
{
    if (!chars)
        return is_space(c);
    for (size_t at = 0, n; at < chars->bytes; at += n)
        if (character(*chars, at, &n) == c)
            return true;
    return false;
}

struct pm_text pm_text_strip(struct pm_text s, int which, const struct pm_text *chars)
{
    size_t n;
    while ((which & 1) && s.bytes > 0 && strips(character(s, 0, &n), chars)) {
        s.text += n;
        s.bytes -= n;
    }
    while ((which & 2) && s.bytes > 0) {
        size_t at = pm_unicode_before((const uint8_t *)s.text, s.bytes);
        if (!strips(character(s, at, &n), chars))
            break;
        s.bytes = at;
    }
    return s;
}

size_t pm_text_find(struct pm_text s, struct pm_text part, size_t from)
{
    if (part.bytes == 0)
        return from <= s.bytes ? from : SIZE_MAX;
    if (from > s.bytes || s.bytes - from < part.bytes)
        return SIZE_MAX;
    const char *found = memmem(s.text + from, s.bytes - from, part.text, part.bytes);
    return found ? (size_t)(found - s.text) : SIZE_MAX;
}

/* ---- replace and split ---- */

int pm_text_replace(struct pm_render *r, struct pm_text s, struct pm_text old, struct pm_text by,
                    int64_t limit, struct pm_value *out)
{
    struct pm_buf text = {0};
    size_t at = 0;
    int rc = pm_render_work(r, s.bytes);
    for (int64_t i = 0; !rc && (limit < 0 || i < limit); i++) {
        size_t found = pm_text_find(s, old, at), n = 0;
        if (found == SIZE_MAX)
            break;
        pm_buf_append(&text, s.text + at, found - at);
        pm_buf_append(&text, by.text, by.bytes);
        at = found + old.bytes;
        if (text.size > PM_TEMPLATE_MAX_OUTPUT)
            rc = pm_render_fail(r, PM_ELIMIT, "replace makes a text longer than %d bytes",
                                PM_TEMPLATE_MAX_OUTPUT);
        if (old.bytes == 0) { /* between all characters */
            if (at == s.bytes)
                break;
            character(s, at, &n);
            pm_buf_append(&text, s.text + at, n);
            at += n;
        }
    }
    if (!rc)
        pm_buf_append(&text, s.text + at, s.bytes - at);
    if (rc) {
        pm_buf_free(&text);
        return rc;
    }
    return pm_value_take(r, &text, out);
}

/* A list being made of parts of one string. */
struct parts {
    struct pm_text *items;
    size_t count, capacity;
};

static void add_part(struct parts *p, const char *text, size_t bytes)
{
    PM_GROW(p->items, p->count, p->capacity);
    p->items[p->count++] = (struct pm_text){text, bytes};
}

static int take_parts(struct pm_render *r, struct parts *p, struct pm_value *out)
{
    struct pm_seq *seq;
    int rc = pm_value_seq(r, PM_SEQ_LIST, p->count, &seq, out);
    for (size_t i = 0; !rc && i < p->count; i++)
        seq->items[i] = (struct pm_value){PM_V_STRING, {.string = p->items[i]}};
    free(p->items);
    return rc;
}

static void split_space(struct pm_text s, int64_t limit, struct parts *parts)
{
    s = pm_text_strip(s, 1, NULL);
    while (s.bytes > 0 && (limit < 0 || (int64_t)parts->count < limit)) {
        size_t end = 0, n;
        while (end < s.bytes && !is_space(character(s, end, &n)))
            end += n;
        add_part(parts, s.text, end);
        s = pm_text_strip((struct pm_text){s.text + end, s.bytes - end}, 1, NULL);
    }
    if (s.bytes > 0) /* what the limit left, the white space behind it too */
        add_part(parts, s.text, s.bytes);
}

int pm_text_split(struct pm_render *r, struct pm_text s, const struct pm_text *separator, int64_t limit,
                  struct pm_value *out)
{
    struct parts parts = {0};
    size_t at = 0, found;
    int rc = pm_render_work(r, s.bytes);
    if (rc)
        return rc;
    if (!separator) {
        split_space(s, limit, &parts);
        return take_parts(r, &parts, out);
    }
    if (separator->bytes == 0)
        return pm_render_fail(r, PM_EINVAL, "split by an empty separator");
    while ((limit < 0 || (int64_t)parts.count < limit) &&
           (found = pm_text_find(s, *separator, at)) != SIZE_MAX) {
        add_part(&parts, s.text + at, found - at);
        at = found + separator->bytes;
    }
    add_part(&parts, s.text + at, s.bytes - at);
    return take_parts(r, &parts, out);
}

static bool ends_line(uint32_t c)
{
    return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

int pm_text_lines(struct pm_render *r, struct pm_text s, bool keep_ends, struct pm_value *out)
{
    struct parts parts = {0};
    size_t begin = 0;
    int rc = pm_render_work(r, s.bytes);
    if (rc)
        return rc;
    for (size_t at = 0, n; at < s.bytes;) {
        uint32_t c = character(s, at, &n);
        size_t end = at;
        at += n;
        if (!ends_line(c))
            continue;
        if (c == '\r' && at < s.bytes && s.text[at] == '\n')
            at++;
        add_part(&parts, s.text + begin, (keep_ends ? at : end) - begin);
        begin = at;
    }
    if (begin < s.bytes)
        add_part(&parts, s.text + begin, s.bytes - begin);
    return take_parts(r, &parts, out);
}

/* ---- case ---- */

bool pm_text_has_case(struct pm_text s)
{
    for (size_t at = 0, n; at < s.bytes; at += n) {
        uint32_t c = character(s, at, &n);
        if (c >= 0x80 && pm_unicode_has_case(c))
            return true;
    }
    return false;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static char upper(char c)
{
    return c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* Behind these, Jinja's title filter begins a word: - ( { [ < and white space. */
static bool begins_word(struct pm_text s, size_t at)
{
    size_t n;
    if (at == 0)
        return true;
    size_t before = pm_unicode_before((const uint8_t *)s.text, at);
    uint32_t c = character(s, before, &n);
    return is_space(c) || (c && c < 128 && strchr("-({[<", (int)c));
}

int pm_text_recase(struct pm_render *r, struct pm_text s, enum pm_text_case to, struct pm_value *out)
{
    int rc = pm_render_work(r, s.bytes);
    char *copy = NULL;
    if (!rc && pm_text_has_case(s))
        rc = pm_render_fail(r, PM_EUNSUPPORTED, "changing the case of letters outside ASCII is not served");
    if (!rc)
        rc = pm_render_alloc(r, s.bytes + 1, 1, &copy);
    if (rc)
        return rc;
    for (size_t i = 0; i < s.bytes; i++) {
        char c = s.text[i];
        bool is_upper = to == PM_CASE_UPPER || (to == PM_CASE_CAPITALIZE && i == 0) ||
                        (to == PM_CASE_TITLE && (i == 0 || !is_letter(s.text[i - 1]))) ||
                        (to == PM_CASE_JINJA_TITLE && is_letter(c) && begins_word(s, i));
        copy[i] = is_upper ? upper(c) : lower(c);
    }
    *out = pm_value_string(copy, s.bytes);
    return 0;
}

/* ---- numbers ---- */

void pm_text_real(double v, char out[40])
{
    if (!isfinite(v)) {
        strcpy(out, isnan(v) ? "nan" : v < 0 ? "-inf" : "inf");
        return;
    }
    char text[40];
    int digits = 1;
    for (; digits < 17; digits++) {
        snprintf(text, sizeof text, "%.*e", digits - 1, v);
        if (strtod(text, NULL) == v)
            break;
    }
    snprintf(text, sizeof text, "%.*e", digits - 1, v);
    int exponent = atoi(strchr(text, 'e') + 1);
    if (exponent >= -4 && exponent < 16) {
        int decimals = digits - 1 - exponent;
        snprintf(text, sizeof text, "%.*f", decimals > 1 ? decimals : 1, v);
    }
    strcpy(out, text);
}
