#include "engine/text/tokenizer_unicode.h"

#include <oniguruma.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

/* ---- properties ---- */

/* Assigned between Unicode 14 and 16, by property. */
static const struct addition {
    char property[4];
    OnigCodePoint first, last;
} additions[] = {
    /* clang-format off */
    {"Lu", 0x1c89, 0x1c89}, {"Lu", 0xa7cb, 0xa7cc}, {"Lu", 0xa7da, 0xa7da}, {"Lu", 0xa7dc, 0xa7dc},
    {"Lu", 0x10d50, 0x10d65}, {"Ll", 0x1c8a, 0x1c8a}, {"Ll", 0xa7cd, 0xa7cd}, {"Ll", 0xa7db, 0xa7db},
    {"Ll", 0x10d70, 0x10d85}, {"Ll", 0x1df25, 0x1df2a}, {"Lm", 0x10d4e, 0x10d4e}, {"Lm", 0x10d6f, 0x10d6f},
    {"Lm", 0x16d40, 0x16d42}, {"Lm", 0x16d6b, 0x16d6c}, {"Lm", 0x1e030, 0x1e06d}, {"Lm", 0x1e4eb, 0x1e4eb},
    {"Lo", 0x105c0, 0x105f3}, {"Lo", 0x10d4a, 0x10d4d}, {"Lo", 0x10d4f, 0x10d4f}, {"Lo", 0x10ec2, 0x10ec4},
    {"Lo", 0x1123f, 0x11240}, {"Lo", 0x11380, 0x11389}, {"Lo", 0x1138b, 0x1138b}, {"Lo", 0x1138e, 0x1138e},
    {"Lo", 0x11390, 0x113b5}, {"Lo", 0x113b7, 0x113b7}, {"Lo", 0x113d1, 0x113d1}, {"Lo", 0x113d3, 0x113d3},
    {"Lo", 0x11bc0, 0x11be0}, {"Lo", 0x11f02, 0x11f02}, {"Lo", 0x11f04, 0x11f10}, {"Lo", 0x11f12, 0x11f33},
    {"Lo", 0x1342f, 0x1342f}, {"Lo", 0x13441, 0x13446}, {"Lo", 0x13460, 0x143fa}, {"Lo", 0x16100, 0x1611d},
    {"Lo", 0x16d43, 0x16d6a}, {"Lo", 0x18cff, 0x18cff}, {"Lo", 0x1b132, 0x1b132}, {"Lo", 0x1b155, 0x1b155},
    {"Lo", 0x1e4d0, 0x1e4ea}, {"Lo", 0x1e5d0, 0x1e5ed}, {"Lo", 0x1e5f0, 0x1e5f0}, {"Lo", 0x2b739, 0x2b739},
    {"Lo", 0x2ebf0, 0x2ee5d}, {"Lo", 0x31350, 0x323af}, {"Mn", 0x897, 0x897}, {"Mn", 0xece, 0xece},
    {"Mn", 0x10d69, 0x10d6d}, {"Mn", 0x10efc, 0x10eff}, {"Mn", 0x11241, 0x11241}, {"Mn", 0x113bb, 0x113c0},
    {"Mn", 0x113ce, 0x113ce}, {"Mn", 0x113d0, 0x113d0}, {"Mn", 0x113d2, 0x113d2}, {"Mn", 0x113e1, 0x113e2},
    {"Mn", 0x11f00, 0x11f01}, {"Mn", 0x11f36, 0x11f3a}, {"Mn", 0x11f40, 0x11f40}, {"Mn", 0x11f42, 0x11f42},
    {"Mn", 0x11f5a, 0x11f5a}, {"Mn", 0x13440, 0x13440}, {"Mn", 0x13447, 0x13455}, {"Mn", 0x1611e, 0x16129},
    {"Mn", 0x1612d, 0x1612f}, {"Mn", 0x1e08f, 0x1e08f}, {"Mn", 0x1e4ec, 0x1e4ef}, {"Mn", 0x1e5ee, 0x1e5ef},
    {"Mc", 0xcf3, 0xcf3}, {"Mc", 0x113b8, 0x113ba}, {"Mc", 0x113c2, 0x113c2}, {"Mc", 0x113c5, 0x113c5},
    {"Mc", 0x113c7, 0x113ca}, {"Mc", 0x113cc, 0x113cd}, {"Mc", 0x113cf, 0x113cf}, {"Mc", 0x1171e, 0x1171e},
    {"Mc", 0x11f03, 0x11f03}, {"Mc", 0x11f34, 0x11f35}, {"Mc", 0x11f3e, 0x11f3f}, {"Mc", 0x11f41, 0x11f41},
    {"Mc", 0x1612a, 0x1612c}, {"Nd", 0x10d40, 0x10d49}, {"Nd", 0x116d0, 0x116e3}, {"Nd", 0x11bf0, 0x11bf9},
    {"Nd", 0x11f50, 0x11f59}, {"Nd", 0x16130, 0x16139}, {"Nd", 0x16d70, 0x16d79}, {"Nd", 0x1ccf0, 0x1ccf9},
    {"Nd", 0x1e4f0, 0x1e4f9}, {"Nd", 0x1e5f1, 0x1e5fa}, {"No", 0x1d2c0, 0x1d2d3}, {"Pd", 0x10d6e, 0x10d6e},
    {"Po", 0x1b4e, 0x1b4f}, {"Po", 0x1b7f, 0x1b7f}, {"Po", 0x113d4, 0x113d5}, {"Po", 0x113d7, 0x113d8},
    {"Po", 0x11b00, 0x11b09}, {"Po", 0x11be1, 0x11be1}, {"Po", 0x11f43, 0x11f4f}, {"Po", 0x16d6d, 0x16d6f},
    {"Po", 0x1e5ff, 0x1e5ff}, {"Sm", 0x10d8e, 0x10d8f}, {"So", 0x2427, 0x2429}, {"So", 0x2ffc, 0x2fff},
    {"So", 0x31e4, 0x31e5}, {"So", 0x31ef, 0x31ef}, {"So", 0x1cc00, 0x1ccef}, {"So", 0x1cd00, 0x1ceb3},
    {"So", 0x1f6dc, 0x1f6dc}, {"So", 0x1f774, 0x1f776}, {"So", 0x1f77b, 0x1f77f}, {"So", 0x1f7d9, 0x1f7d9},
    {"So", 0x1f8b2, 0x1f8bb}, {"So", 0x1f8c0, 0x1f8c1}, {"So", 0x1fa75, 0x1fa77}, {"So", 0x1fa87, 0x1fa89},
    {"So", 0x1fa8f, 0x1fa8f}, {"So", 0x1faad, 0x1faaf}, {"So", 0x1fabb, 0x1fabf}, {"So", 0x1fac6, 0x1fac6},
    {"So", 0x1face, 0x1facf}, {"So", 0x1fada, 0x1fadc}, {"So", 0x1fadf, 0x1fadf}, {"So", 0x1fae8, 0x1fae9},
    {"So", 0x1faf7, 0x1faf8}, {"So", 0x1fbcb, 0x1fbef}, {"Han", 0x2b739, 0x2b739},
    {"Han", 0x2ebf0, 0x2ee5d}, {"Han", 0x31350, 0x323af},
    /* clang-format on */
};

/* U+1171E became a spacing mark. */
enum { MOVED_TO_MC = 0x1171e };

static const char *const adjusted[] = {"L",  "Lu", "Ll", "Lm", "Lo", "M", "Mn", "Mc", "N",
                                       "Nd", "No", "P",  "Pd", "Po", "S", "Sm", "So", "Han"};
enum { ADJUSTED = sizeof adjusted / sizeof adjusted[0] };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int init_rc;

static int property_ctype(const char *name)
{
    const UChar *at = (const UChar *)name;
    return ONIG_ENCODING_UTF8->property_name_to_ctype(ONIG_ENCODING_UTF8, (UChar *)at,
                                                      (UChar *)at + strlen(name));
}

static int compare_ranges(const void *a, const void *b)
{
    OnigCodePoint x = *(const OnigCodePoint *)a, y = *(const OnigCodePoint *)b;
    return x < y ? -1 : x > y;
}

/* The ranges of a property with the additions: count, then pairs, sorted and joined. The library keeps the
 * pointer for the life of the process. */
static OnigCodePoint *adjusted_ranges(const char *name)
{
    int ctype = property_ctype(name);
    OnigCodePoint out;
    const OnigCodePoint *known;
    if (ctype < 0 || ONIG_ENCODING_UTF8->get_ctype_code_range(ctype, &out, &known) != 0)
        return NULL;
    size_t count = sizeof additions / sizeof additions[0];
    OnigCodePoint(*pairs)[2] = pm_xalloc((known[0] + count + 2) * sizeof *pairs);
    size_t used = 0;
    for (OnigCodePoint i = 0; i < known[0]; i++, used++)
        memcpy(pairs[used], known + 1 + 2 * i, sizeof *pairs);
    for (size_t i = 0; i < count; i++)
        if (strncmp(additions[i].property, name, strlen(name)) == 0) { /* "L" takes "Lu", ... */
            pairs[used][0] = additions[i].first;
            pairs[used++][1] = additions[i].last;
        }
    if (strcmp(name, "Mc") == 0)
        pairs[used][0] = pairs[used][1] = MOVED_TO_MC, used++;
    qsort(pairs, used, sizeof *pairs, compare_ranges);
    OnigCodePoint *ranges = pm_xalloc((2 * used + 5) * sizeof *ranges), n = 0;
    for (size_t i = 0; i < used; i++) {
        OnigCodePoint first = pairs[i][0], last = pairs[i][1];
        if (strcmp(name, "Mn") == 0 && first <= MOVED_TO_MC && MOVED_TO_MC <= last) {
            if (first < MOVED_TO_MC) {
                ranges[1 + 2 * n] = first;
                ranges[2 + 2 * n++] = MOVED_TO_MC - 1;
            }
            first = MOVED_TO_MC + 1;
            if (first > last)
                continue;
        }
        if (n > 0 && first <= ranges[2 * n] + 1) {
            if (last > ranges[2 * n])
                ranges[2 * n] = last;
        } else {
            ranges[1 + 2 * n] = first;
            ranges[2 + 2 * n++] = last;
        }
    }
    ranges[0] = n;
    free(pairs);
    return ranges;
}

static void init_once(void)
{
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    init_rc = onig_initialize(encodings, 1);
    OnigCodePoint *ranges[ADJUSTED];
    for (int i = 0; i < ADJUSTED && init_rc == 0; i++)
        if (!(ranges[i] = adjusted_ranges(adjusted[i])))
            init_rc = ONIGERR_INVALID_CHAR_PROPERTY_NAME;
    for (int i = 0; i < ADJUSTED && init_rc == 0; i++)
        init_rc = onig_unicode_define_user_property(adjusted[i], ranges[i]);
}

int pm_unicode_init(void)
{
    pthread_once(&once, init_once);
    return init_rc;
}

static bool has_property(uint32_t c, const char *name)
{
    int ctype = pm_unicode_init() == 0 ? property_ctype(name) : -1;
    return ctype >= 0 && ONIGENC_IS_CODE_CTYPE(ONIG_ENCODING_UTF8, c, (OnigCtype)ctype);
}

/* ---- characters ---- */

uint32_t pm_unicode_at(const uint8_t *text, size_t bytes, size_t *length_out)
{
    size_t n = pm_utf8_length(text, bytes);
    *length_out = n ? n : 1;
    switch (n) {
    case 2:
        return (uint32_t)(text[0] & 0x1f) << 6 | (text[1] & 0x3f);
    case 3:
        return (uint32_t)(text[0] & 0x0f) << 12 | (uint32_t)(text[1] & 0x3f) << 6 | (text[2] & 0x3f);
    case 4:
        return (uint32_t)(text[0] & 0x07) << 18 | (uint32_t)(text[1] & 0x3f) << 12 |
               (uint32_t)(text[2] & 0x3f) << 6 | (text[3] & 0x3f);
    default:
        return text[0];
    }
}

size_t pm_unicode_before(const uint8_t *text, size_t end)
{
    do
        end--;
    while (end > 0 && (text[end] & 0xc0) == 0x80);
    return end;
}

bool pm_unicode_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

bool pm_unicode_is_word(uint32_t c)
{
    return has_property(c, "L") || has_property(c, "M") || has_property(c, "Nd") || has_property(c, "Pc") ||
           has_property(c, "Alphabetic") || c == 0x200c || c == 0x200d;
}

bool pm_unicode_has_case(uint32_t c)
{
    return has_property(c, "Lu") || has_property(c, "Ll") || has_property(c, "Lt") ||
           has_property(c, "Changes_When_Casemapped");
}

bool pm_unicode_is_printable(uint32_t c)
{
    if (c < 0x7f)
        return c >= ' ';
    return has_property(c, "L") || has_property(c, "M") || has_property(c, "N") || has_property(c, "P") ||
           has_property(c, "S");
}

/* ---- broken bytes ---- */

/* How many bytes at the start of a broken part belong together: a lead byte with the continuation bytes that
 * could still have become a character. */
static size_t broken_length(const uint8_t *d, size_t count)
{
    uint8_t lead = d[0], low = 0x80, high = 0xbf;
    size_t needed = lead >= 0xc2 && lead <= 0xdf   ? 2
                    : lead >= 0xe0 && lead <= 0xef ? 3
                    : lead >= 0xf0 && lead <= 0xf4 ? 4
                                                   : 1;
    if (lead == 0xe0)
        low = 0xa0;
    else if (lead == 0xed)
        high = 0x9f;
    else if (lead == 0xf0)
        low = 0x90;
    else if (lead == 0xf4)
        high = 0x8f;
    size_t n = 1;
    while (n < needed && n < count && d[n] >= low && d[n] <= high) {
        low = 0x80;
        high = 0xbf;
        n++;
    }
    return n;
}

void pm_unicode_mend(const uint8_t *bytes, size_t count, struct pm_buf *out)
{
    size_t good = 0;
    if (count == 0)
        return;
    for (size_t at = 0; at < count;) {
        size_t n = pm_utf8_length(bytes + at, count - at);
        if (n > 0) {
            at += n;
            continue;
        }
        pm_buf_append(out, bytes + good, at - good);
        pm_buf_append(out, "\xef\xbf\xbd", 3);
        at += broken_length(bytes + at, count - at);
        good = at;
    }
    pm_buf_append(out, bytes + good, count - good);
}
