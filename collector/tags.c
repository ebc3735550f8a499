#include "collector/tags.h"

#include <stdbool.h>
#include <string.h>

/* What may be open inside what; honest tables are not deep. */
enum { DEPTH_MAX = 64, NAME_MAX_BYTES = 8 };

struct open {
    char names[DEPTH_MAX][NAME_MAX_BYTES];
    int depth;
};

static void end_one(struct pm_buf *out, struct open *o)
{
    pm_buf_printf(out, "</%s>", o->names[--o->depth]);
}

static bool is(const char *name, const char *other)
{
    return !strcmp(name, other);
}

static bool is_cell(const char *name)
{
    return is(name, "td") || is(name, "th");
}

/* Depth of the innermost open element of that name in this table; -1: none. Cells stand for each other. */
static int find(const struct open *o, const char *name, bool crosses_tables)
{
    for (int i = o->depth - 1; i >= 0; i--) {
        if (is(o->names[i], name) || (is_cell(name) && is_cell(o->names[i]) && !crosses_tables))
            return i;
        if (!crosses_tables && is(o->names[i], "table"))
            return -1;
    }
    return -1;
}

/* A cell ends the cell before, a row the row before. */
static void end_before(struct pm_buf *out, struct open *o, const char *name)
{
    int at = -1;
    if (is_cell(name) || is(name, "tr"))
        at = find(o, name, false);
    else if (is(name, "tbody") || is(name, "thead")) {
        int body = find(o, "tbody", false), head = find(o, "thead", false);
        at = body > head ? body : head;
    }
    while (at >= 0 && o->depth > at)
        end_one(out, o);
}

/* Length of the tag at html ('<') and its name; 0 when it is none. */
static size_t tag_at(const char *html, size_t bytes, char name[NAME_MAX_BYTES], bool *is_end)
{
    const char *close = memchr(html, '>', bytes);
    size_t i = 1, n = 0;
    *is_end = bytes > 1 && html[1] == '/';
    i += *is_end;
    while (i < bytes && html[i] >= 'a' && html[i] <= 'z' && n + 1 < NAME_MAX_BYTES)
        name[n++] = html[i++];
    name[n] = 0;
    return close && n ? (size_t)(close - html) + 1 : 0;
}

/* Bytes of html without a tag that was cut off at its end: pm_escape_table made its '<' text. */
static size_t without_cut_tag(const char *html, size_t bytes)
{
    for (size_t i = bytes; i-- > 0 && bytes - i < 60;) {
        if (html[i] == '>' || html[i] == '\n')
            break;
        if (bytes - i >= 4 && !memcmp(html + i, "&lt;", 4)) {
            char next = i + 4 < bytes ? html[i + 4] : '/';
            return next == '/' || (next >= 'a' && next <= 'z') ? i : bytes;
        }
    }
    return bytes;
}

static void put_tag(struct pm_buf *out, struct open *o, const char *tag, size_t length, const char *name,
                    bool is_end)
{
    if (is(name, "br")) {
        pm_buf_append(out, tag, length);
    } else if (is_end) {
        int at = find(o, name, is(name, "table"));
        if (at < 0 || !is(o->names[at], name)) /* the end of nothing */
            return;
        while (o->depth > at)
            end_one(out, o);
    } else {
        end_before(out, o, name);
        if (o->depth == DEPTH_MAX)
            return;
        memcpy(o->names[o->depth++], name, NAME_MAX_BYTES);
        pm_buf_append(out, tag, length);
    }
}

void pm_tags_close(struct pm_buf *out, const char *html, size_t bytes)
{
    struct open open = {.depth = 0};
    bytes = without_cut_tag(html, bytes);
    for (size_t i = 0; i < bytes;) {
        char name[NAME_MAX_BYTES] = {0};
        bool is_end;
        size_t length = html[i] == '<' ? tag_at(html + i, bytes - i, name, &is_end) : 0;
        if (length)
            put_tag(out, &open, html + i, length, name, is_end);
        else
            pm_buf_append(out, html + i, 1);
        i += length ? length : 1;
    }
    while (open.depth)
        end_one(out, &open);
}
