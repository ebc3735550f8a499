#include "collector/prose.h"

#include <math.h>
#include <string.h>

#include "collector/escape.h"
#include "collector/marks.h"
#include "collector/text.h"

struct prose {
    const struct pm_row *rows;
    uint32_t count;
    enum pm_prose_style style;
    float height, pitch, left, right, character_px;
    bool is_unmarked_list; /* a list whose bullets nobody could read */
    struct pm_buf *out;
    size_t start; /* of our part of out */
    struct pm_prose_lists lists;
    bool in_item; /* the rows that come belong to the item of levels[depth - 1] */

    struct pm_buf raw; /* the block being collected: its text, */
    uint32_t first;    /* first row, */
    unsigned indent;   /* blanks before it, */
    bool is_item;      /* whether a mark is written before it, */
    struct pm_mark mark;
    bool needs_blank_line; /* and what must stand between it and */
    bool was_item;         /* the block written before */
};

bool pm_prose_fits(const struct pm_row *row, const struct pm_row *next, float right_px, float character_px)
{
    size_t points;
    pm_text_first_word(next->text, next->bytes, &points);
    float needed = ((float)points + 1.5f) * character_px + 0.3f * row->height;
    return right_px - row->right > needed;
}

static float centre(const struct pm_row *row)
{
    return (row->top + row->bottom) / 2;
}

static bool fits(const struct prose *p, uint32_t i)
{
    return pm_prose_fits(&p->rows[i - 1], &p->rows[i], p->right, p->character_px);
}

static bool ends_sentence(const struct pm_row *row)
{
    return pm_text_ends_sentence(row->text, row->bytes);
}

/* Is there an empty line before row i? */
static bool has_gap(const struct prose *p, uint32_t i)
{
    float d = centre(&p->rows[i]) - centre(&p->rows[i - 1]);
    if (p->pitch > 0 && p->count > 3)
        return d > 1.5f * p->pitch && d > 1.6f * p->height;
    return d > 2.6f * p->height;
}

/* Did the line before row i end on purpose? */
static bool ended(const struct prose *p, uint32_t i)
{
    const struct pm_row *before = &p->rows[i - 1];
    uint32_t last = pm_text_last(before->text, before->bytes);
    return ends_sentence(before) || last == ';' || fits(p, i) || has_gap(p, i);
}

static bool starts_lower(const struct pm_row *row)
{
    return pm_text_is_lower(pm_text_first(row->text, row->bytes));
}

/* ---- writing blocks ---------------------------------------------------------------------------------- */

static void blanks(struct pm_buf *out, unsigned count)
{
    while (count--)
        pm_buf_append(out, " ", 1);
}

static void flush(struct prose *p)
{
    while (p->raw.size >= 2 && p->raw.data[p->raw.size - 2] == 0xC2 && p->raw.data[p->raw.size - 1] == 0xAD)
        p->raw.size -= 2; /* a soft hyphen that nothing followed */
    if (!p->raw.size && !p->is_item)
        return;
    const char *text = p->raw.data ? (const char *)p->raw.data : "";
    struct pm_buf *out = p->out;
    bool tight = p->is_item && p->was_item && !p->needs_blank_line;
    if (out->size > p->start)
        pm_buf_append(out, "\n\n", tight ? 1 : 2);
    blanks(out, p->indent);
    if (p->is_item && p->mark.kind == PM_MARK_ORDERED)
        pm_buf_printf(out, "%u%c ", p->mark.value, p->mark.closing);
    else if (p->is_item)
        pm_buf_append(out, "- ", 2);
    pm_escape_markdown(out, text, p->raw.size, p->is_item ? PM_ESCAPE_ITEM : PM_ESCAPE_PARAGRAPH);
    if (!p->raw.size) /* no blank at a line end */
        out->size--;
    p->was_item = p->is_item;
    p->is_item = p->needs_blank_line = false;
    p->raw.size = 0;
}

static void add_text(struct prose *p, uint32_t i, size_t skip)
{
    const struct pm_row *row = &p->rows[i];
    while (skip < row->bytes && row->text[skip] == ' ')
        skip++;
    bool is_full = i == 0 || !fits(p, i);
    pm_text_join(&p->raw, 0, row->text + skip, row->bytes - skip, is_full);
}

/* ---- lists --------------------------------------------------------------------------------------------- */

static bool follows(const struct pm_mark *last, const struct pm_mark *m)
{
    return last->kind == m->kind && last->closing == m->closing && m->value == last->value + 1;
}

/* Does a later row carry the mark after m at about the same place? */
static bool has_successor(const struct prose *p, uint32_t i, const struct pm_mark *m)
{
    for (uint32_t k = i + 1; k < p->count; k++) {
        struct pm_mark other = pm_mark_parse(&p->rows[k], p->style == PM_PROSE_LIST);
        if (follows(m, &other) && fabsf(p->rows[k].left - p->rows[i].left) < p->height)
            return true;
    }
    return false;
}

/* The level whose marks stand where row i begins; NULL when none does. */
static const struct pm_prose_level *level_at(const struct prose *p, uint32_t i)
{
    for (int d = p->lists.depth; d-- > 0;)
        if (fabsf(p->lists.levels[d].x - p->rows[i].left) < 0.5f * p->height)
            return &p->lists.levels[d];
    return NULL;
}

static bool accept_mark(const struct prose *p, uint32_t i, const struct pm_mark *m)
{
    if (m->kind == PM_MARK_NONE || p->style == PM_PROSE_PLAIN || p->style == PM_PROSE_LINES)
        return false;
    if (m->kind == PM_MARK_BRACKET)
        return p->style == PM_PROSE_REFERENCES;
    if (p->style == PM_PROSE_REFERENCES)
        return m->kind == PM_MARK_ORDERED && (i == 0 || ended(p, i));
    if (m->is_certain)
        return true;
    const struct pm_prose_level *level = level_at(p, i);
    bool in_sequence = level && follows(&level->mark, m);
    if (m->is_letter && m->closing == '.' && p->style != PM_PROSE_LIST && !in_sequence &&
        !has_successor(p, i, m))
        return false; /* initials: "A. Smith" */
    if (i == 0)
        return p->style == PM_PROSE_LIST || m->kind != PM_MARK_ORDERED || m->value < 100;
    if (in_sequence)
        return true;
    const struct pm_prose_level *current = p->lists.depth ? &p->lists.levels[p->lists.depth - 1] : NULL;
    bool at_text =
        current && current->text_x > 0 && fabsf(p->rows[i].left - current->text_x) < 0.4f * p->height;
    if (p->style == PM_PROSE_LIST)
        return !at_text || ended(p, i);
    if (!ended(p, i))
        return false;
    return m->kind == PM_MARK_BULLET ? level || has_gap(p, i) || !starts_lower(&p->rows[i]) : m->value == 1;
}

/* Makes the levels fit an item whose mark stands at x. */
static struct pm_prose_level *enter_level(struct prose *p, float x, const struct pm_mark *m)
{
    float near = 0.5f * p->height;
    while (p->lists.depth > 0 && p->lists.levels[p->lists.depth - 1].x > x + near)
        p->lists.depth--;
    struct pm_prose_level *top = p->lists.depth ? &p->lists.levels[p->lists.depth - 1] : NULL;
    bool is_sibling = top && fabsf(top->x - x) <= near;
    if (!is_sibling && p->lists.depth < PM_PROSE_DEEPEST) {
        unsigned indent = top ? top->inside : 0;
        top = &p->lists.levels[p->lists.depth++];
        *top = (struct pm_prose_level){.x = x, .indent = indent};
    }
    top->mark = *m;
    unsigned width = 2;
    if (m->kind == PM_MARK_ORDERED)
        width = m->value > 99 ? 5 : m->value > 9 ? 4 : 3;
    top->inside = top->indent + width;
    return top;
}

/* A block that is no item ends the lists written at its indentation and deeper. */
static void close_lists(struct prose *p, unsigned indent)
{
    while (p->lists.written_count > 0 && p->lists.written[p->lists.written_count - 1].indent >= indent)
        p->lists.written_count--;
}

/* Enters an item into the lists as Markdown will see them, which knows only indentation and delimiter. false:
 * the item would be numbered on from the list it falls into, so it cannot be written as one. */
static bool open_list(struct prose *p, unsigned indent, const struct pm_mark *m)
{
    while (p->lists.written_count > 0 && p->lists.written[p->lists.written_count - 1].indent > indent)
        p->lists.written_count--;
    struct pm_prose_list *list =
        p->lists.written_count ? &p->lists.written[p->lists.written_count - 1] : NULL;
    bool is_ordered = m->kind == PM_MARK_ORDERED;
    char closing = is_ordered ? m->closing : '-';
    if (list && list->indent == indent && list->closing == closing) {
        if (is_ordered && m->value != list->value + 1)
            return false;
    } else {
        /* only a list that begins with 1 may follow a paragraph, or another list, without an empty line */
        p->needs_blank_line = is_ordered && m->value != 1;
        if (!list || (list->indent != indent && p->lists.written_count < PM_PROSE_DEEPEST))
            list = &p->lists.written[p->lists.written_count++];
    }
    *list = (struct pm_prose_list){indent, m->value, closing};
    return true;
}

/* Where the text behind the mark of row i begins. */
static float text_left(const struct prose *p, uint32_t i, const struct pm_mark *m)
{
    const struct pm_row *row = &p->rows[i];
    if (!m->bytes)
        return row->left;
    const struct pm_row_piece *piece = &row->pieces[0];
    if (row->piece_count > 1 && piece->bytes == m->bytes)
        return row->pieces[1].left;
    const struct pm_region_text *read = piece->read;
    if (read && read->word_count > 1 && read->words[0].end - read->words[0].start == m->bytes &&
        read->words[1].left > read->words[0].left && read->words[1].left <= 1)
        return piece->left + (read->words[1].left - read->words[0].left) * piece->crop_px;
    return row->left + ((float)pm_text_points(row->text, m->bytes) + 1) * p->character_px;
}

static void begin_item(struct prose *p, uint32_t i, float x, const struct pm_mark *m)
{
    flush(p);
    struct pm_prose_level *level = enter_level(p, x, m);
    p->first = i;
    p->in_item = true;
    p->indent = level->indent;
    p->mark = *m;
    p->is_item = open_list(p, level->indent, m);
    if (!p->is_item) { /* a paragraph that shows the mark as it was read: "4\. text" */
        close_lists(p, level->indent);
        level->inside = level->indent;
    }
    level->text_x = text_left(p, i, m);
    add_text(p, i, m->kind == PM_MARK_LABELLED || !p->is_item ? 0 : m->bytes);
}

/* ---- paragraphs ---------------------------------------------------------------------------------------- */

/* Does row i end the item that the row before belongs to? */
static bool leaves_item(const struct prose *p, uint32_t i)
{
    const struct pm_row *row = &p->rows[i], *before = &p->rows[i - 1];
    const struct pm_prose_level *level = &p->lists.levels[p->lists.depth - 1];
    float h = p->height;
    bool broken = fits(p, i) && !starts_lower(row);
    if (row->left < level->x - 0.7f * h)
        return ended(p, i) || !starts_lower(row);
    if (row->left > level->x + 0.4f * h) /* hanging; or the next item, whose bullet was not read */
        return p->style == PM_PROSE_LIST && level->mark.kind == PM_MARK_BULLET && !p->is_unmarked_list &&
               broken && ends_sentence(before);
    if (p->is_unmarked_list)
        return broken || before->left > level->x + 0.4f * h;
    return fits(p, i) && ends_sentence(before);
}

static bool starts_paragraph(const struct prose *p, uint32_t i)
{
    const struct pm_row *row = &p->rows[i], *before = &p->rows[i - 1];
    if (p->style == PM_PROSE_LINES || has_gap(p, i))
        return true;
    float h = p->height;
    if (p->in_item)
        return leaves_item(p, i);
    float indent = row->left - p->left, indent_before = before->left - p->left;
    if (p->style == PM_PROSE_REFERENCES && indent < 0.35f * h && indent_before > 0.7f * h)
        return true; /* the next hanging entry */
    bool is_short = fits(p, i);
    float slack = p->right - before->right, width = p->right - p->left;
    if (is_short && !starts_lower(row) && (ends_sentence(before) || slack > 0.35f * width))
        return true;
    bool is_indented = indent > 0.7f * h && indent < 6 * h && indent_before < 0.35f * h;
    bool goes_back = i + 1 == p->count || p->rows[i + 1].left - p->left < 0.35f * h;
    return is_indented && goes_back && !starts_lower(row) && (ends_sentence(before) || is_short);
}

static void continue_row(struct prose *p, uint32_t i)
{
    if (p->in_item && p->first + 1 == i)
        p->lists.levels[p->lists.depth - 1].text_x = p->rows[i].left;
    add_text(p, i, 0);
}

/* A row that starts a paragraph: inside the current item when it stands where the item's text does. */
static void begin_paragraph(struct prose *p, uint32_t i)
{
    flush(p);
    while (p->lists.depth > 0 && p->rows[i].left < p->lists.levels[p->lists.depth - 1].x + 0.4f * p->height)
        p->lists.depth--;
    p->first = i;
    p->in_item = false;
    p->indent = p->lists.depth ? p->lists.levels[p->lists.depth - 1].inside : 0;
    close_lists(p, p->indent);
    add_text(p, i, 0);
}

/* In a list a new block without a mark is an item whose bullet was not read, unless a gap says otherwise. */
static bool is_bare_item(const struct prose *p, uint32_t i)
{
    if (p->is_unmarked_list)
        return true;
    return p->style == PM_PROSE_LIST && p->in_item && !has_gap(p, i) &&
           p->lists.levels[p->lists.depth - 1].mark.kind == PM_MARK_BULLET &&
           p->rows[i].left > p->lists.levels[p->lists.depth - 1].x + 0.4f * p->height;
}

/* Where the mark of an item would stand whose text begins with row i. */
static float bare_x(const struct prose *p, uint32_t i)
{
    for (int d = p->lists.depth; d-- > 0;)
        if (fabsf(p->lists.levels[d].text_x - p->rows[i].left) < 0.6f * p->height)
            return p->lists.levels[d].x;
    return p->is_unmarked_list || !p->lists.depth ? p->rows[i].left : p->lists.levels[p->lists.depth - 1].x;
}

static void add_row(struct prose *p, uint32_t i)
{
    const struct pm_row *row = &p->rows[i];
    struct pm_mark m = pm_mark_parse(row, p->style == PM_PROSE_LIST);
    if (accept_mark(p, i, &m)) {
        if (p->style == PM_PROSE_REFERENCES) /* entries are paragraphs that keep their marks */
            begin_paragraph(p, i);
        else
            begin_item(p, i, row->left, &m);
        return;
    }
    if (i > 0 && !starts_paragraph(p, i)) {
        continue_row(p, i);
    } else if (is_bare_item(p, i)) {
        m = (struct pm_mark){.kind = PM_MARK_BULLET};
        begin_item(p, i, bare_x(p, i), &m);
    } else {
        if (i == 0)
            p->lists = (struct pm_prose_lists){0}; /* text ends the lists before it */
        begin_paragraph(p, i);
    }
}

static bool has_mark(const struct pm_row *rows, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (pm_mark_parse(&rows[i], true).kind)
            return true;
    return false;
}

void pm_prose_format(struct pm_buf *out, const struct pm_row *rows, uint32_t count, enum pm_prose_style style,
                     struct pm_prose_lists *lists)
{
    if (!count)
        return;
    struct prose p = {.rows = rows,
                      .count = count,
                      .style = style,
                      .out = out,
                      .start = out->size,
                      .height = pm_rows_median_height(rows, count),
                      .pitch = pm_rows_pitch(rows, count),
                      .character_px = pm_rows_character_px(rows, count),
                      .left = rows[0].left,
                      .right = rows[0].right};
    for (uint32_t i = 1; i < count; i++) {
        p.left = rows[i].left < p.left ? rows[i].left : p.left;
        p.right = rows[i].right > p.right ? rows[i].right : p.right;
    }
    p.is_unmarked_list = style == PM_PROSE_LIST && !has_mark(rows, count);
    if (lists)
        p.lists = *lists;
    for (uint32_t i = 0; i < count; i++)
        add_row(&p, i);
    flush(&p);
    pm_buf_free(&p.raw);
    if (lists)
        *lists = p.in_item ? p.lists : (struct pm_prose_lists){0};
}

#define MOST_BROKEN_ROWS 8

bool pm_prose_is_broken(const struct pm_row *rows, uint32_t count, float width_px)
{
    float left = INFINITY, right = -INFINITY;
    if (count < 2 || count > MOST_BROKEN_ROWS)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        const struct pm_row *row = &rows[i];
        uint32_t first = pm_text_first(row->text, row->bytes), last = pm_text_last(row->text, row->bytes);
        bool is_start = pm_text_is_upper(first) || pm_text_is_digit(first) || first == '(' || first == '+';
        struct pm_mark mark = pm_mark_parse(row, false);
        bool is_initial = mark.is_letter && mark.closing == '.'; /* "A. Smith" */
        if (!is_start || row->is_failed || row->piece_count > 1 || (mark.kind && !is_initial))
            return false;
        if (i + 1 < count && (pm_text_is_hyphen(last) || last == ';' || ends_sentence(row)))
            return false;
        left = fminf(left, row->left);
        right = fmaxf(right, row->right);
    }
    return right - left < 0.5f * width_px;
}

void pm_prose_lines(struct pm_buf *out, const struct pm_row *rows, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (i)
            pm_buf_text(out, PM_PROSE_HARD_BREAK);
        pm_escape_markdown(out, rows[i].text, rows[i].bytes, PM_ESCAPE_PARAGRAPH);
    }
}

void pm_prose_join(struct pm_buf *out, const struct pm_row *rows, uint32_t count)
{
    size_t start = out->size;
    for (uint32_t i = 0; i < count; i++)
        pm_text_join(out, start, rows[i].text, rows[i].bytes, false);
    while (out->size >= start + 2 && out->data[out->size - 2] == 0xC2 && out->data[out->size - 1] == 0xAD)
        out->size -= 2;
}
