#include "collector/marks.h"

#include <string.h>

#include "collector/text.h"

static bool is_bullet(uint32_t c)
{
    static const uint32_t bullets[] = {0x2022, 0x25E6, 0x25AA, 0x25AB, 0x25CF, 0x25CB, 0x25A0, 0x25BA,
                                       0x25B6, 0x25B8, 0x2023, 0x2043, 0x27A2, 0x2756, 0x25C6, 0x2027};
    for (size_t i = 0; i < sizeof bullets / sizeof *bullets; i++)
        if (bullets[i] == c)
            return true;
    return false;
}

static bool is_dash_bullet(uint32_t c)
{
    return c == '-' || c == 0x2013 || c == '*' || c == '+' || c == 0x2212;
}

/* What a small round or square bullet is misread as when it stands alone, apart from its text. */
static bool is_misread_bullet(uint32_t c)
{
    return c == '.' || c == 'o' || c == 'e' || c == 0xB0 || c == 0x3002 || c == 0xBB || c == '>' ||
           c == '~' || c == 0xA9 || c == ',';
}

static bool is_blank_or_end(const struct pm_row *row, size_t at)
{
    return at >= row->bytes || row->text[at] == ' ';
}

static struct pm_mark bullet(const struct pm_row *row, bool in_list)
{
    struct pm_mark m = {.kind = PM_MARK_BULLET};
    uint32_t c = pm_text_point(row->text, row->bytes, 0, &m.bytes);
    if (is_bullet(c)) {
        m.is_certain = true;
        return m;
    }
    bool apart = is_blank_or_end(row, m.bytes) && m.bytes < row->bytes;
    if ((c == 0xB7 || c == 0x2219) && (apart || in_list)) {
        m.is_certain = true;
        return m;
    }
    if ((is_dash_bullet(c) || (in_list && c == 0x2014)) && apart)
        return m;
    if (in_list && apart && is_misread_bullet(c) && row->piece_count > 1 && row->pieces[0].bytes == m.bytes &&
        row->pieces[1].left - row->pieces[0].right > 0.2f * row->height) {
        m.is_certain = true;
        return m;
    }
    m.kind = PM_MARK_NONE;
    return m;
}

/* Small roman numbers, as far as lists go; 0 when it is none. */
static unsigned roman(const char *text, size_t bytes)
{
    static const char *const small[] = {"i",  "ii", "iii", "iv",  "v",    "vi",  "vii", "viii",
                                        "ix", "x",  "xi",  "xii", "xiii", "xiv", "xv"};
    for (unsigned i = 0; i < sizeof small / sizeof *small; i++)
        if (strlen(small[i]) == bytes && !memcmp(small[i], text, bytes))
            return i + 1;
    return 0;
}

/* The number or letter at text: its value, 0 when there is none. */
static unsigned label(const char *text, size_t bytes, size_t *bytes_out, bool *is_letter_out)
{
    size_t n = 0;
    unsigned v = 0;
    *is_letter_out = false;
    while (n < bytes && n < 3 && pm_text_is_digit((uint8_t)text[n]))
        v = v * 10 + (unsigned)(text[n++] - '0');
    if (n) {
        *bytes_out = n;
        return n < bytes && pm_text_is_digit((uint8_t)text[n]) ? 0 : v;
    }
    while (n < bytes && n < 5 && ((text[n] >= 'a' && text[n] <= 'z') || (text[n] >= 'A' && text[n] <= 'Z')))
        n++;
    *bytes_out = n;
    *is_letter_out = true;
    if (n == 1)
        return (unsigned)((text[0] | 0x20) - 'a') + 1;
    return roman(text, n);
}

static struct pm_mark numbered(const struct pm_row *row, bool in_list)
{
    static const struct pm_mark none = {0};
    const char *text = row->text;
    bool open = text[0] == '(';
    struct pm_mark m = {0};
    size_t n = 0;
    m.value = label(text + open, row->bytes - open, &n, &m.is_letter);
    size_t at = open + n;
    if (!n || !m.value || at >= row->bytes || (text[at] != ')' && (open || text[at] != '.')))
        return none;
    m.closing = text[at++];
    m.bytes = at;
    m.kind = open || m.is_letter ? PM_MARK_LABELLED : PM_MARK_ORDERED;
    if (is_blank_or_end(row, at))
        return at < row->bytes ? m : none;
    /* "1.Encoding": the blank was lost */
    size_t length;
    if (in_list && !m.is_letter && pm_text_is_upper(pm_text_point(text, row->bytes, at, &length)))
        return m;
    return none;
}

static struct pm_mark bracketed(const struct pm_row *row)
{
    struct pm_mark m = {0};
    size_t at = 1;
    while (at < row->bytes && at < 14 && row->text[at] != ']' && row->text[at] != ' ' && row->text[at] != '[')
        at++;
    if (at > 1 && at < row->bytes && row->text[at] == ']' && is_blank_or_end(row, at + 1)) {
        m.kind = PM_MARK_BRACKET;
        m.bytes = at + 1;
    }
    return m;
}

struct pm_mark pm_mark_parse(const struct pm_row *row, bool in_list)
{
    struct pm_mark none = {0};
    if (!row->bytes)
        return none;
    char c = row->text[0];
    if (c == '[')
        return bracketed(row);
    if (c == '(' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
        struct pm_mark m = numbered(row, in_list);
        if (m.kind)
            return m;
    }
    return bullet(row, in_list);
}
