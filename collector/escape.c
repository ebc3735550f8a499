#include "collector/escape.h"

#include <string.h>
#include <strings.h>

#include "collector/text.h"

static bool is_punctuation(char c)
{
    return c > ' ' && c < 0x7F && !(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'Z') &&
           !(c >= 'a' && c <= 'z');
}

static bool is_alpha(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* ---- Markdown -------------------------------------------------------------------------------------- */

/* What is escaped only when a partner exists. */
struct census {
    size_t stars, backticks, tildes, dollars;
};

static struct census count(const char *text, size_t bytes)
{
    struct census c = {0};
    for (size_t i = 0; i < bytes; i++) {
        c.stars += text[i] == '*';
        c.backticks += text[i] == '`';
        c.tildes += text[i] == '~';
        c.dollars += text[i] == '$';
    }
    return c;
}

/* Can a run of delimiters that covers [from, to) open or close emphasis? Not when blanks stand on both sides.
 */
static bool can_flank(const char *text, size_t bytes, size_t from, size_t to)
{
    bool left = from == 0 || text[from - 1] == ' ', right = to >= bytes || text[to] == ' ';
    return !(left && right);
}

/* Underscores between two letters or digits are text; runs of two and more are escaped anywhere, because
 * simpler readers of Markdown take them for emphasis inside words too. */
static bool underscore_is_special(const char *text, size_t bytes, size_t from, size_t to)
{
    if (to - from > 1)
        return true;
    if (!can_flank(text, bytes, from, to))
        return false;
    bool inside = from > 0 && to < bytes &&
                  (is_alpha(text[from - 1]) || is_digit(text[from - 1]) || (text[from - 1] & 0x80)) &&
                  (is_alpha(text[to]) || is_digit(text[to]) || (text[to] & 0x80));
    return !inside;
}

/* Bytes of text at the start of a block that need a backslash before byte *at_out; false: none. */
static bool block_start(const char *text, size_t bytes, size_t *at_out)
{
    size_t i = 0;
    *at_out = 0;
    if (!bytes)
        return false;
    char c = text[0];
    if (c == '#') {
        while (i < bytes && text[i] == '#')
            i++;
        return i <= 6 && (i == bytes || text[i] == ' ');
    }
    if (c == '>')
        return true;
    if (c == '~')
        return bytes >= 3 && text[1] == '~' && text[2] == '~';
    if (c == '-' || c == '+' || c == '*' || c == '_') {
        if (c != '_' && (bytes == 1 || text[1] == ' '))
            return true;
        for (i = 0; i < bytes; i++) /* a rule, or the underline of a heading */
            if (text[i] != c && text[i] != ' ')
                return false;
        return true;
    }
    while (i < bytes && i < 9 && is_digit(text[i]))
        i++;
    if (i && i < bytes && (text[i] == '.' || text[i] == ')') && (i + 1 == bytes || text[i + 1] == ' ')) {
        *at_out = i;
        return true;
    }
    return false;
}

/* A link or an image needs "](", a definition "]:" in a block that starts with "[": a backslash after the
 * bracket is enough. (A reference without a definition is plain text.) */
static bool makes_link(const char *text, size_t at, bool has_open)
{
    return has_open && at > 0 && text[at - 1] == ']' && (text[at] == '(' || text[0] == '[');
}

static bool starts_box(const char *text, size_t bytes)
{
    return bytes >= 3 && text[0] == '[' && (text[1] == ' ' || text[1] == 'x' || text[1] == 'X') &&
           text[2] == ']';
}

void pm_escape_markdown(struct pm_buf *out, const char *text, size_t bytes, enum pm_escape_place place)
{
    struct census n = count(text, bytes);
    size_t special = bytes;
    bool is_special = place != PM_ESCAPE_HEADING && block_start(text, bytes, &special);
    size_t tail = bytes; /* headings: the closing run of # */
    if (place == PM_ESCAPE_HEADING) {
        while (tail > 0 && text[tail - 1] == '#')
            tail--;
        if (tail > 0 && text[tail - 1] != ' ')
            tail = bytes;
    }
    bool has_open = false;
    for (size_t i = 0; i < bytes;) {
        char c = text[i];
        size_t run = i + 1;
        bool escape = false;
        switch (c) {
        case '\\':
            escape = run < bytes && is_punctuation(text[run]);
            break;
        case '`':
            escape = n.backticks > 1;
            break;
        case '*':
        case '_':
            while (run < bytes && text[run] == c)
                run++;
            escape = c == '*' ? n.stars > 1 && can_flank(text, bytes, i, run)
                              : underscore_is_special(text, bytes, i, run);
            break;
        case '~':
            escape = n.tildes > 1 && can_flank(text, bytes, i, run);
            break;
        case '$':
            escape = n.dollars > 1;
            break;
        case '[':
            escape = place == PM_ESCAPE_ITEM && i == 0 && starts_box(text, bytes);
            has_open = true;
            break;
        case '(':
        case ':':
            escape = makes_link(text, i, has_open);
            break;
        case '#':
            escape = i == tail;
            break;
        case '<':
            if (run < bytes && (is_alpha(text[run]) || strchr("/!?", text[run]))) {
                pm_buf_append(out, "&lt;", 4);
                i++;
                continue;
            }
            break;
        case '&':
            if (run < bytes && (is_alpha(text[run]) || text[run] == '#')) {
                pm_buf_append(out, "&amp;", 5);
                i++;
                continue;
            }
            break;
        default:
            break;
        }
        for (; i < run; i++) {
            if (escape || (is_special && i == special))
                pm_buf_append(out, "\\", 1);
            pm_buf_append(out, text + i, 1);
        }
    }
}

void pm_escape_html(struct pm_buf *out, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        switch (text[i]) {
        case '<':
            pm_buf_append(out, "&lt;", 4);
            break;
        case '>':
            pm_buf_append(out, "&gt;", 4);
            break;
        case '&':
            pm_buf_append(out, "&amp;", 5);
            break;
        default:
            pm_buf_append(out, text + i, 1);
        }
    }
}

/* ---- tables of a model ----------------------------------------------------------------------------- */

static const char *const table_tags[] = {"table", "thead", "tbody", "tr", "td", "th", "br", "sub", "sup"};

/* The value of an attribute in [tag, tag + bytes); 0 when absent or not a number of 1..1000. */
static unsigned span(const char *tag, size_t bytes, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i + n < bytes; i++) {
        if (strncasecmp(tag + i, name, n) != 0)
            continue;
        size_t at = i + n;
        while (at < bytes && strchr(" =\"'", tag[at]))
            at++;
        unsigned v = 0;
        for (; at < bytes && is_digit(tag[at]) && v <= 1000; at++)
            v = v * 10 + (unsigned)(tag[at] - '0');
        return v <= 1000 ? v : 0;
    }
    return 0;
}

/* Writes the tag at html[at] ('<') when it is one of ours and returns its length, else 0. */
static size_t put_tag(struct pm_buf *out, const char *html, size_t bytes, size_t at)
{
    size_t i = at + 1;
    bool is_end = i < bytes && html[i] == '/';
    i += is_end;
    size_t name = i;
    while (i < bytes && is_alpha(html[i]))
        i++;
    const char *tag = NULL;
    for (size_t t = 0; t < sizeof table_tags / sizeof *table_tags; t++)
        if (strlen(table_tags[t]) == i - name && !strncasecmp(table_tags[t], html + name, i - name))
            tag = table_tags[t];
    size_t end = i;
    while (end < bytes && end - at < 500 && html[end] != '>' && html[end] != '<')
        end++;
    if (!tag || end >= bytes || html[end] != '>' || (end > i && !strchr(" \t\n\r/", html[i])))
        return 0;
    pm_buf_printf(out, is_end ? "</%s" : "<%s", tag);
    if (!is_end && tag[0] == 't' && (tag[1] == 'd' || !strcmp(tag, "th"))) {
        unsigned rows = span(html + i, end - i, "rowspan"), columns = span(html + i, end - i, "colspan");
        if (rows > 1)
            pm_buf_printf(out, " rowspan=\"%u\"", rows);
        if (columns > 1)
            pm_buf_printf(out, " colspan=\"%u\"", columns);
    }
    pm_buf_append(out, ">", 1);
    return end + 1 - at;
}

/* Is there a complete entity at html[at] ('&')? */
static bool is_entity(const char *html, size_t bytes, size_t at)
{
    size_t i = at + 1;
    while (i < bytes && i - at < 12 && (is_alpha(html[i]) || is_digit(html[i]) || html[i] == '#'))
        i++;
    return i > at + 1 && i < bytes && html[i] == ';';
}

void pm_escape_table(struct pm_buf *out, const char *html, size_t bytes)
{
    for (size_t i = 0; i < bytes;) {
        char c = html[i];
        size_t tag = c == '<' ? put_tag(out, html, bytes, i) : 0;
        if (tag) {
            i += tag;
            continue;
        }
        if (c == '\n' || c == '\r') {
            if (out->size && out->data[out->size - 1] != '\n')
                pm_buf_append(out, "\n", 1);
            while (i < bytes && strchr(" \t\r\n", html[i]))
                i++;
            continue;
        }
        if (c == '&' && is_entity(html, bytes, i))
            pm_buf_append(out, "&", 1);
        else
            pm_escape_html(out, html + i, 1);
        i++;
    }
}

/* ---- the way back ---------------------------------------------------------------------------------- */

static bool has_prefix(const char *text, size_t bytes, const char *prefix)
{
    size_t n = strlen(prefix);
    return bytes >= n && !memcmp(text, prefix, n);
}

static size_t put_entity(struct pm_buf *out, const char *text, size_t bytes)
{
    static const struct {
        const char *name;
        char c;
    } known[] = {{"&lt;", '<'}, {"&gt;", '>'}, {"&amp;", '&'}, {"&quot;", '"'}, {"&#39;", '\''}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (has_prefix(text, bytes, known[i].name)) {
            pm_buf_append(out, &known[i].c, 1);
            return strlen(known[i].name);
        }
    }
    return 0;
}

static void put_plain(struct pm_buf *out, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes;) {
        if (text[i] == '\\' && i + 1 < bytes && is_punctuation(text[i + 1]))
            i++;
        else if (text[i] == '&') {
            size_t n = put_entity(out, text + i, bytes - i);
            if (n) {
                i += n;
                continue;
            }
        }
        pm_buf_append(out, text + i, 1);
        i++;
    }
}

/* One HTML table; returns the bytes up to and with </table>. */
static size_t put_table(struct pm_buf *out, const char *text, size_t bytes)
{
    size_t i = 0;
    bool first_cell = true;
    while (i < bytes) {
        if (text[i] != '<') {
            size_t n = text[i] == '&' ? put_entity(out, text + i, bytes - i) : 0;
            if (!n) {
                if (text[i] != '\n')
                    pm_buf_append(out, text + i, 1);
                n = 1;
            }
            i += n;
            continue;
        }
        const char *close = memchr(text + i, '>', bytes - i);
        size_t end = close ? (size_t)(close - text) + 1 : bytes;
        const char *tag = text + i;
        size_t n = end - i;
        if (has_prefix(tag, n, "</table>"))
            return end;
        if (has_prefix(tag, n, "<tr")) {
            first_cell = true;
        } else if (has_prefix(tag, n, "<td") || has_prefix(tag, n, "<th>") || has_prefix(tag, n, "<th ")) {
            if (!first_cell)
                pm_buf_append(out, "\t", 1);
            first_cell = false;
        } else if (has_prefix(tag, n, "</tr>")) {
            pm_buf_append(out, "\n", 1);
        } else if (has_prefix(tag, n, "<br>")) {
            pm_buf_append(out, " ", 1);
        }
        i = end;
    }
    return bytes;
}

static size_t run_of(const char *text, size_t bytes, char c)
{
    size_t n = 0;
    while (n < bytes && text[n] == c)
        n++;
    return n;
}

void pm_plain_text(struct pm_buf *out, const char *markdown, size_t bytes)
{
    size_t fence = 0; /* length of the open fence */
    size_t at = 0;
    while (at < bytes) {
        const char *line = markdown + at, *newline = memchr(line, '\n', bytes - at);
        size_t length = newline ? (size_t)(newline - line) : bytes - at;
        size_t ticks = run_of(line, length, '`');
        size_t next = at + length + (newline != NULL);
        if (fence) {
            if (ticks >= fence && ticks == length) {
                fence = 0;
            } else {
                pm_buf_append(out, line, length);
                pm_buf_append(out, "\n", 1);
            }
            at = next;
            continue;
        }
        if (ticks >= 3) {
            fence = ticks;
            at = next;
            continue;
        }
        if (has_prefix(line, length, "<table")) {
            at += put_table(out, line, bytes - at);
            if (at < bytes && markdown[at] == '\n')
                at++;
            continue;
        }
        if (length == 2 && line[0] == '$' && line[1] == '$') {
            at = next;
            continue;
        }
        size_t marks = run_of(line, length, '#');
        if (marks && marks <= 6 && marks < length && line[marks] == ' ')
            line += marks + 1, length -= marks + 1;
        if (length > 2 && !memcmp(line + length - 2, "  ", 2)) /* a line break that was meant */
            length -= 2;
        put_plain(out, line, length);
        pm_buf_append(out, "\n", 1);
        at = next;
    }
    while (out->size && out->data[out->size - 1] == '\n')
        out->size--;
}
