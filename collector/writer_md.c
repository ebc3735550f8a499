/* Markdown: blocks separated by blank lines, no page marks; what could not be read stays visible. */
#include <stdlib.h>
#include <string.h>

#include "collector/escape.h"
#include "collector/flow.h"
#include "collector/writer.h"

struct ordered { /* the ordered list that the last block ended with; closing 0: none */
    uint64_t number;
    char closing;
};

struct md {
    struct pm_sink *out;
    struct pm_flow flow;
    struct pm_buf block, tag;
    struct ordered list;
    bool has_text, was_item;
};

static size_t parse_ordered(const char *line, size_t bytes, struct ordered *out)
{
    size_t n = 0;
    out->number = 0;
    while (n < bytes && n < 9 && line[n] >= '0' && line[n] <= '9')
        out->number = out->number * 10 + (uint64_t)(line[n++] - '0');
    if (!n || n + 1 >= bytes || (line[n] != '.' && line[n] != ')') || line[n + 1] != ' ')
        return 0;
    out->closing = line[n];
    return n;
}

/* The outermost ordered list that is still open behind these lines. */
static void follow_list(struct ordered *list, const char *text, size_t bytes)
{
    while (bytes) {
        const char *newline = memchr(text, '\n', bytes);
        size_t line = newline ? (size_t)(newline - text) : bytes;
        struct ordered o = {0};
        if (line && text[0] != ' ') {
            if (parse_ordered(text, line, &o))
                *list = o;
            else
                list->closing = 0;
        }
        line += newline != NULL;
        text += line, bytes -= line;
    }
}

/* Is text[0, bytes) one line of a list: its mark, behind any indentation? */
static bool is_item_line(const char *text, size_t bytes)
{
    struct ordered o;
    while (bytes && *text == ' ')
        text++, bytes--;
    return (bytes >= 2 && text[0] == '-' && text[1] == ' ') || parse_ordered(text, bytes, &o);
}

static size_t first_line(const char *text, size_t bytes)
{
    const char *newline = memchr(text, '\n', bytes);
    return newline ? (size_t)(newline - text) : bytes;
}

static const char *last_line(const char *text, size_t bytes)
{
    while (bytes && text[bytes - 1] != '\n')
        bytes--;
    return text + bytes;
}

/* A block whose first item becomes a paragraph that shows its number: "4\. text". What was nested in the item
 * moves to the left, where it would be code otherwise. */
static void put_as_paragraph(struct pm_sink *out, const char *text, size_t bytes, size_t digits)
{
    size_t line = first_line(text, bytes);
    pm_sink_put(out, text, digits);
    pm_sink_text(out, "\\");
    pm_sink_put(out, text + digits, line - digits);
    pm_sink_text(out, "\n");
    bool is_nested = true, is_apart = false; /* apart: an empty line is written */
    if (line + 1 < bytes && text[line + 1] != '\n')
        pm_sink_text(out, "\n");
    for (size_t at = line + 1; at < bytes; at += line + 1) {
        size_t skip = 0;
        line = first_line(text + at, bytes - at);
        if (is_nested && line && text[at] != ' ') {
            if (!is_apart && at > first_line(text, bytes) + 1)
                pm_sink_text(out, "\n");
            is_nested = false;
        }
        is_apart = !line;
        while (is_nested && skip < line && skip < digits + 2 && text[at + skip] == ' ')
            skip++;
        pm_sink_put(out, text + at + skip, line - skip);
        pm_sink_text(out, "\n");
    }
}

/* Items of one list may come from regions of their own. They follow each other without an empty line where
 * that cannot change their meaning. Markdown numbers the items of a list by its first: an item that does not
 * follow the one before shows its number as text. */
static void emit(void *ctx, const char *text, size_t bytes)
{
    struct md *md = ctx;
    struct ordered o = {0};
    size_t digits = parse_ordered(text, bytes, &o);
    bool is_next = md->list.closing == o.closing && o.number == md->list.number + 1;
    bool breaks = digits && md->list.closing == o.closing && !is_next;
    bool is_bullet = is_item_line(text, first_line(text, bytes)) && text[strspn(text, " ")] == '-';
    bool tight = md->was_item && (is_bullet || (digits && is_next));
    if (md->has_text && !tight)
        pm_sink_text(md->out, "\n");
    follow_list(&md->list, text, bytes);
    const char *last = last_line(text, bytes);
    md->was_item = !breaks && is_item_line(last, bytes - (size_t)(last - text));
    if (breaks) {
        md->list.closing = 0;
        put_as_paragraph(md->out, text, bytes, digits);
    } else {
        pm_sink_put(md->out, text, bytes);
        pm_sink_text(md->out, "\n");
    }
    md->has_text = true;
}

/* Text for the inside of a comment, which "--" would end. Reasons come from other processes: one line. */
static void put_comment(struct pm_buf *out, const char *text)
{
    for (; *text; text++) {
        pm_buf_append(out, (uint8_t)*text < ' ' ? " " : text, 1);
        if (text[0] == '-' && (text[1] == '-' || text[1] == '>'))
            pm_buf_append(out, " ", 1);
    }
}

static void put_error(struct pm_buf *out, const char *what, uint32_t page, uint32_t region, const char *code,
                      const char *text)
{
    pm_buf_printf(out, "<!-- page %u", page);
    if (region)
        pm_buf_printf(out, ", %s region %u", what, region);
    pm_buf_text(out, ": ");
    put_comment(out, code);
    pm_buf_text(out, ": ");
    put_comment(out, text);
    pm_buf_text(out, " -->");
}

static void put_visible(struct pm_buf *out, const char *what, const char *reason)
{
    struct pm_buf line = {0};
    pm_buf_printf(&line, "[unreadable %s: %s]", what, *reason ? reason : "unknown reason");
    for (size_t i = 0; i < line.size; i++)
        if (line.data[i] < ' ')
            line.data[i] = ' ';
    pm_escape_markdown(out, (const char *)line.data, line.size, PM_ESCAPE_PARAGRAPH);
    pm_buf_free(&line);
}

static void *md_begin(struct pm_sink *out)
{
    struct md *md = pm_xalloc(sizeof *md);
    md->out = out;
    md->flow.emit = emit;
    md->flow.ctx = md;
    return md;
}

/* ---- formulas and their numbers ---- */

static bool is_formula(const struct pm_out_region *r)
{
    size_t n = strlen(r->content);
    return r->label == PM_LABEL_DISPLAY_FORMULA && n > 4 && !strcmp(r->content + n - 3, "\n$$") &&
           !strstr(r->content, "\\tag{");
}

/* The number of region i without its parentheses, when it is one: letters, digits, dots and dashes. */
static bool parse_number(const struct pm_out_page *page, uint32_t i, struct pm_buf *out)
{
    static const char allowed[] = ".-'0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    if (i >= page->region_count || page->regions[i].label != PM_LABEL_FORMULA_NUMBER)
        return false;
    const char *text = page->regions[i].content;
    size_t n = strlen(text);
    if (n < 3 || n > 20 || text[0] != '(' || text[n - 1] != ')' || strspn(text + 1, allowed) != n - 2)
        return false;
    out->size = 0;
    pm_buf_append(out, text + 1, n - 2);
    pm_buf_text(out, "");
    return true;
}

/* Is region i a number that a neighbouring formula shows as its tag? The number behind a formula is its own;
 * one before it counts when the formula has none behind. */
static bool is_tag(const struct pm_out_page *page, uint32_t i, struct pm_buf *scratch)
{
    if (!parse_number(page, i, scratch))
        return false;
    if (i > 0 && is_formula(&page->regions[i - 1]))
        return true;
    return i + 1 < page->region_count && is_formula(&page->regions[i + 1]) &&
           !parse_number(page, i + 2, scratch);
}

static bool find_tag(const struct pm_out_page *page, uint32_t formula, struct pm_buf *out)
{
    if (!is_formula(&page->regions[formula]))
        return false;
    if (parse_number(page, formula + 1, out))
        return true;
    /* the number before belongs to the formula before it, if there is one */
    bool is_free = formula > 0 && !(formula > 1 && is_formula(&page->regions[formula - 2]));
    return is_free && parse_number(page, formula - 1, out);
}

static void put_region(struct md *md, const struct pm_writer_page *page, uint32_t i)
{
    const struct pm_out_region *r = &page->page->regions[i];
    const struct pm_writer_image *image = &page->images[i];
    struct pm_buf *b = &md->block;
    if (is_tag(page->page, i, &md->tag))
        return;
    b->size = 0;
    if (image->path)
        pm_buf_printf(b, "![Image %u-%u](%s)", page->index, image->number, image->path);
    if (*r->error_code) {
        if (b->size)
            pm_buf_text(b, "\n\n");
        put_error(b, pm_label_name((enum pm_label)r->label), page->page->page, i + 1, r->error_code,
                  r->error_text);
        if (!*r->content) {
            pm_buf_text(b, "\n");
            put_visible(b, "region", r->error_text);
        }
    }
    if (r->was_cut) {
        if (b->size)
            pm_buf_text(b, "\n\n");
        pm_buf_printf(b, "<!-- page %u, %s region %u: ends at the token limit -->", page->page->page,
                      pm_label_name((enum pm_label)r->label), i + 1);
    }
    if (*r->content) {
        if (b->size)
            pm_buf_text(b, "\n\n");
        pm_buf_text(b, r->content);
        if (find_tag(page->page, i, &md->tag)) {
            b->size -= 3;
            pm_buf_printf(b, " \\tag{%s}\n$$", (const char *)md->tag.data);
        }
    }
    if (b->size)
        pm_flow_add(&md->flow, r, (const char *)b->data, b->size);
}

static void md_page(void *state, struct pm_sink *out, const struct pm_writer_page *page)
{
    struct md *md = state;
    (void)out;
    if (*page->page->error_code) {
        pm_flow_flush(&md->flow);
        md->block.size = 0;
        put_error(&md->block, "", page->page->page, 0, page->page->error_code, page->page->error_text);
        struct pm_buf what = {0};
        pm_buf_printf(&what, "page %u", page->page->page);
        pm_buf_text(&md->block, "\n");
        put_visible(&md->block, (const char *)what.data, page->page->error_text);
        pm_buf_free(&what);
        emit(md, (const char *)md->block.data, md->block.size);
        return;
    }
    for (uint32_t i = 0; i < page->page->region_count; i++)
        put_region(md, page, i);
}

static void md_end(void *state, struct pm_sink *out)
{
    struct md *md = state;
    (void)out;
    pm_flow_flush(&md->flow);
    pm_flow_free(&md->flow);
    pm_buf_free(&md->block);
    pm_buf_free(&md->tag);
    free(md);
}

const struct pm_writer pm_writer_md = {"md", ".md", md_begin, md_page, md_end};
