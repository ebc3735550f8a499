#include <stdlib.h>
#include <string.h>

#include "collector/escape.h"
#include "collector/prose.h"
#include "collector/regions.h"
#include "collector/tags.h"
#include "collector/text.h"

/* ---- headings (both kinds of reader) --------------------------------------------------------------- */

#define DEEPEST_HEADING 6

uint32_t pm_heading_level(const struct pm_page_region *region)
{
    uint32_t level = 0;
    if (region->label == PM_LABEL_DOC_TITLE)
        level = region->level ? region->level : 1;
    else if (region->label == PM_LABEL_PARAGRAPH_TITLE)
        level = region->level ? region->level : 2;
    return level < DEEPEST_HEADING ? level : DEEPEST_HEADING;
}

static void put_marks(struct pm_buf *out, uint32_t level)
{
    for (uint32_t i = 0; i < level; i++)
        pm_buf_append(out, "#", 1);
    pm_buf_append(out, " ", 1);
}

void pm_heading_format(struct pm_buf *out, const struct pm_row *rows, uint32_t count, uint32_t level)
{
    if (!count)
        return;
    struct pm_buf raw = {0};
    pm_prose_join(&raw, rows, count);
    put_marks(out, level);
    pm_escape_markdown(out, (const char *)raw.data, raw.size, PM_ESCAPE_HEADING);
    pm_buf_free(&raw);
}

/* ---- block readers ----------------------------------------------------------------------------------- */

static const char *trim(const char *text, size_t *bytes)
{
    while (*bytes && strchr(" \t\r\n", text[0]))
        text++, --*bytes;
    while (*bytes && strchr(" \t\r\n", text[*bytes - 1]))
        --*bytes;
    return text;
}

static bool starts(const char *text, size_t bytes, const char *with)
{
    size_t n = strlen(with);
    return bytes >= n && !memcmp(text, with, n);
}

static bool ends(const char *text, size_t bytes, const char *with)
{
    size_t n = strlen(with);
    return bytes >= n && !memcmp(text + bytes - n, with, n);
}

static void block_heading(struct pm_buf *out, const char *text, size_t bytes, uint32_t level)
{
    while (bytes && (*text == '#' || *text == ' '))
        text++, bytes--;
    if (starts(text, bytes, "- ") || starts(text, bytes, "* "))
        text += 2, bytes -= 2;
    put_marks(out, level);
    size_t start = out->size;
    while (bytes) {
        const char *newline = memchr(text, '\n', bytes);
        size_t line = newline ? (size_t)(newline - text) : bytes, n = line;
        const char *trimmed = trim(text, &n);
        pm_text_join(out, start, trimmed, n, false);
        line += newline != NULL;
        text += line, bytes -= line;
    }
}

/* One line of a model's Markdown: markup that is not ours becomes text. */
static void put_line(struct pm_buf *out, const char *line, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        bool tag = line[i] == '<' && i + 1 < bytes && memchr(line + i, '>', bytes - i) &&
                   (strchr("/!?", line[i + 1]) || pm_text_is_letter((uint8_t)line[i + 1]));
        if (!tag) {
            pm_buf_append(out, line + i, 1);
            continue;
        }
        struct pm_buf one = {0};
        size_t length = (size_t)((const char *)memchr(line + i, '>', bytes - i) - (line + i)) + 1;
        pm_escape_table(&one, line + i, length);
        if (one.size && one.data[0] == '<') {
            pm_buf_append(out, one.data, one.size);
            i += length - 1;
        } else {
            pm_buf_text(out, "&lt;");
        }
        pm_buf_free(&one);
    }
}

enum line_kind { LINE_TEXT, LINE_ITEM, LINE_PIPE, LINE_FENCE, LINE_DOLLARS, LINE_TABLE };

static enum line_kind line_kind(const char *line, size_t bytes)
{
    line = trim(line, &bytes);
    if (starts(line, bytes, "```") || starts(line, bytes, "~~~"))
        return LINE_FENCE;
    if (starts(line, bytes, "$$") && (bytes < 4 || !ends(line, bytes, "$$")))
        return LINE_DOLLARS;
    if (ends(line, bytes, "$$") && !starts(line, bytes, "$$"))
        return LINE_DOLLARS;
    if (starts(line, bytes, "<table") || ends(line, bytes, "</table>"))
        return LINE_TABLE;
    if (starts(line, bytes, "|"))
        return LINE_PIPE;
    if (starts(line, bytes, "- ") || starts(line, bytes, "* ") || starts(line, bytes, "\xC2\xB7") ||
        starts(line, bytes, "\xE2\x80\xA2"))
        return LINE_ITEM;
    return LINE_TEXT;
}

static void put_item(struct pm_buf *out, const char *line, size_t bytes)
{
    for (; bytes && (*line == ' ' || *line == '\t'); line++, bytes--)
        pm_buf_text(out, *line == '\t' ? "  " : " ");
    size_t mark;
    pm_text_point(line, bytes, 0, &mark);
    line += mark, bytes -= mark;
    while (bytes && *line == ' ')
        line++, bytes--;
    pm_buf_append(out, "- ", 2);
    put_line(out, line, bytes);
}

void pm_block_text(struct pm_buf *out, const char *text, uint32_t heading_level)
{
    size_t bytes = strlen(text);
    text = trim(text, &bytes);
    if (!bytes)
        return;
    if (heading_level) {
        block_heading(out, text, bytes, heading_level);
        return;
    }
    bool in_fence = false, in_formula = false, in_table = false, is_first = true, had_blank = false;
    enum line_kind before = LINE_TEXT;
    while (bytes) {
        const char *newline = memchr(text, '\n', bytes);
        size_t length = newline ? (size_t)(newline - text) : bytes;
        size_t line = length && text[length - 1] == '\r' ? length - 1 : length;
        enum line_kind kind = in_fence ? LINE_FENCE : in_formula ? LINE_DOLLARS : line_kind(text, line);
        bool inside = in_fence || in_formula || in_table;
        size_t visible = line;
        trim(text, &visible);
        if (!visible && !inside) {
            had_blank = true;
        } else {
            bool together = inside || (kind == before && (kind == LINE_ITEM || kind == LINE_PIPE));
            if (!is_first)
                pm_buf_append(out, "\n\n", together && !(had_blank && !inside) ? 1 : 2);
            if (kind == LINE_ITEM)
                put_item(out, text, line);
            else if (in_fence || in_formula || kind == LINE_FENCE || kind == LINE_DOLLARS)
                pm_buf_append(out, text, line);
            else
                put_line(out, text, line);
            is_first = had_blank = false;
            enum line_kind real = line_kind(text, line);
            if (!in_formula && real == LINE_FENCE)
                in_fence = !in_fence;
            else if (!in_fence && real == LINE_DOLLARS)
                in_formula = !in_formula;
            size_t n = line;
            const char *t = trim(text, &n);
            if (!in_fence && !in_formula && real == LINE_TABLE)
                in_table = !ends(t, n, "</table>");
            before = kind;
        }
        length += newline != NULL;
        text += length, bytes -= length;
    }
    if (in_fence)
        pm_buf_text(out, "\n```");
    if (in_table)
        pm_buf_text(out, "\n</table>");
    if (in_formula)
        pm_buf_text(out, "\n$$");
}

/* Text before, between or after tables. */
static void put_beside(struct pm_buf *out, const char *text, size_t bytes)
{
    char *copy = pm_xstrndup(text, bytes);
    struct pm_buf one = {0};
    pm_block_text(&one, copy, 0);
    if (out->size && one.size)
        pm_buf_append(out, "\n\n", 2);
    pm_buf_append(out, one.data, one.size);
    pm_buf_free(&one);
    free(copy);
}

static void put_table(struct pm_buf *out, const char *html, size_t bytes)
{
    struct pm_buf known = {0};
    pm_escape_table(&known, html, bytes);
    if (out->size)
        pm_buf_append(out, "\n\n", 2);
    pm_tags_close(out, (const char *)known.data, known.size);
    pm_buf_free(&known);
}

void pm_block_table(struct pm_buf *out, const char *text)
{
    struct pm_buf made = {0};
    size_t bytes = strlen(text);
    text = trim(text, &bytes);
    const char *end = text + bytes;
    while (text < end) {
        const char *from = strstr(text, "<table"), *to = NULL;
        from = from ? from : end;
        if (from > text)
            put_beside(&made, text, (size_t)(from - text));
        if (from == end)
            break;
        int depth = 0;
        for (const char *p = from; p < end && !to; p++) { /* tables in cells belong to theirs */
            depth += starts(p, (size_t)(end - p), "<table");
            if (starts(p, (size_t)(end - p), "</table>") && --depth == 0)
                to = p + strlen("</table>");
        }
        to = to ? to : end;
        put_table(&made, from, (size_t)(to - from));
        text = to;
    }
    pm_buf_append(out, made.data, made.size);
    pm_buf_free(&made);
}

void pm_block_formula(struct pm_buf *out, const char *text)
{
    static const struct {
        const char *open, *close;
    } wraps[] = {{"$$", "$$"}, {"\\[", "\\]"}, {"\\(", "\\)"}};
    size_t bytes = strlen(text);
    text = trim(text, &bytes);
    if (bytes > 2 && text[0] == '$' && text[bytes - 1] == '$' && !memchr(text + 1, '$', bytes - 2)) {
        text++, bytes -= 2;
        text = trim(text, &bytes);
    }
    for (size_t i = 0; i < sizeof wraps / sizeof *wraps; i++) {
        if (bytes >= 4 && starts(text, bytes, wraps[i].open) && ends(text, bytes, wraps[i].close)) {
            text += 2, bytes -= 4;
            text = trim(text, &bytes);
            break;
        }
    }
    if (!bytes)
        return;
    pm_buf_text(out, "$$\n");
    for (size_t i = 0; i < bytes; i++) /* an empty line would end the formula */
        if (text[i] != '\n' || (i + 1 < bytes && text[i + 1] != '\n'))
            pm_buf_append(out, text + i, 1);
    pm_buf_text(out, "\n$$");
}
