#include <stdlib.h>
#include <string.h>

#include "collector/escape.h"
#include "collector/prose.h"
#include "collector/regions.h"
#include "collector/text.h"

#define MOST_SLOTS (1u << 16)        /* rows x columns that are tracked to fill holes */
#define MOST_TAKEN (8u * MOST_SLOTS) /* honest cells do not overlap; stops those that do */

/* Rows of one cell: joined like a paragraph, with <br> where a line was ended although the next word would
 * have fitted. */
static void put_cell_text(struct pm_buf *out, const struct pm_row *rows, uint32_t count, float right_px)
{
    struct pm_buf raw = {0};
    float px = pm_rows_character_px(rows, count);
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0 && pm_prose_fits(&rows[i - 1], &rows[i], right_px - 0.5f * rows[i].height, px)) {
            pm_escape_html(out, (const char *)raw.data, raw.size);
            pm_buf_append(out, "<br>", 4);
            raw.size = 0;
        }
        pm_text_join(&raw, 0, rows[i].text, rows[i].bytes, true);
    }
    if (raw.size)
        pm_escape_html(out, (const char *)raw.data, raw.size);
    pm_buf_free(&raw);
}

struct slot { /* a cell in table order */
    uint32_t row, column, cell;
};

static int by_place(const void *a, const void *b)
{
    const struct slot *x = a, *y = b;
    if (x->row != y->row)
        return x->row < y->row ? -1 : 1;
    if (x->column != y->column)
        return x->column < y->column ? -1 : 1;
    return x->cell < y->cell ? -1 : x->cell > y->cell;
}

static uint32_t clamp_span(uint32_t span, uint32_t at, uint32_t end)
{
    if (span < 1 || at >= end)
        return 1;
    return span < end - at ? span : end - at;
}

/* Which slots a cell from a row above reaches into; NULL when the table is too large to track. */
struct grid {
    uint8_t *taken;
    uint32_t rows, columns;
    uint64_t work;
};

static bool grid_is_taken(const struct grid *g, uint32_t row, uint32_t column)
{
    return g->taken && row < g->rows && column < g->columns && g->taken[(size_t)row * g->columns + column];
}

static void grid_take(struct grid *g, uint32_t row, uint32_t column, uint32_t rows, uint32_t columns)
{
    g->work += (uint64_t)rows * columns;
    if (g->work > MOST_TAKEN) {
        free(g->taken);
        g->taken = NULL;
    }
    if (!g->taken)
        return;
    for (uint32_t r = row; r < row + rows && r < g->rows; r++)
        for (uint32_t c = column; c < column + columns && c < g->columns; c++)
            g->taken[(size_t)r * g->columns + c] = 1;
}

/* Empty cells for the slots [from, to) that nothing covers: without them later cells would move left. */
static void fill_holes(struct pm_buf *out, const struct grid *g, uint32_t row, uint32_t from, uint32_t to)
{
    for (uint32_t c = from; g->taken && c < to && c < g->columns; c++)
        if (!grid_is_taken(g, row, c))
            pm_buf_text(out, "<td></td>");
}

static void put_cell(struct pm_buf *out, const struct pm_crop_index *index, uint32_t region, uint32_t cell,
                     struct grid *g, struct pm_arena *arena)
{
    const struct pm_page_cell *c = &index->page->regions[region].cells[cell];
    uint32_t rows = clamp_span(c->row_span, c->row, g->rows),
             columns = clamp_span(c->column_span, c->column, g->columns);
    pm_buf_text(out, "<td");
    if (rows > 1)
        pm_buf_printf(out, " rowspan=\"%u\"", rows);
    if (columns > 1)
        pm_buf_printf(out, " colspan=\"%u\"", columns);
    pm_buf_text(out, ">");
    struct pm_row *text;
    uint32_t count = pm_rows_collect(index, region, cell + 1, arena, &text);
    put_cell_text(out, text, count, c->box[2]);
    pm_buf_text(out, "</td>");
    grid_take(g, c->row, c->column, rows, columns);
}

static void put_cells(struct pm_buf *out, const struct pm_crop_index *index, uint32_t region,
                      struct pm_arena *arena)
{
    const struct pm_page_region *r = &index->page->regions[region];
    struct slot *slots = pm_arena_alloc(arena, r->cell_count * sizeof *slots);
    struct grid g = {.rows = r->table_rows, .columns = r->table_columns};
    for (uint32_t i = 0; i < r->cell_count; i++)
        slots[i] = (struct slot){r->cells[i].row, r->cells[i].column, i};
    qsort(slots, r->cell_count, sizeof *slots, by_place);
    if (g.rows && g.columns && (uint64_t)g.rows * g.columns <= MOST_SLOTS)
        g.taken = pm_xalloc((size_t)g.rows * g.columns);
    pm_buf_text(out, "<table>\n");
    uint32_t at = 0;
    for (uint32_t row = 0; at < r->cell_count; row++) {
        if (!g.taken && slots[at].row > row)
            row = slots[at].row;
        pm_buf_text(out, "<tr>");
        uint32_t column = 0;
        for (; at < r->cell_count && slots[at].row <= row; at++) {
            fill_holes(out, &g, row, column, slots[at].column);
            put_cell(out, index, region, slots[at].cell, &g, arena);
            column = slots[at].column + 1;
        }
        fill_holes(out, &g, row, column, g.columns);
        pm_buf_text(out, "</tr>\n");
        if (g.taken && row + 1 >= g.rows && at < r->cell_count) { /* cells beyond the stated size */
            free(g.taken);
            g.taken = NULL;
        }
    }
    pm_buf_text(out, "</table>");
    free(g.taken);
}

void pm_table_format(struct pm_buf *out, const struct pm_crop_index *index, uint32_t region,
                     struct pm_arena *arena)
{
    const struct pm_page_region *r = &index->page->regions[region];
    struct pm_row *rows;
    uint32_t outside = pm_rows_collect(index, region, 0, arena, &rows);
    if (r->cell_count) {
        put_cells(out, index, region, arena);
        if (outside) {
            pm_buf_text(out, "\n\n");
            pm_prose_format(out, rows, outside, PM_PROSE_TEXT, NULL);
        }
        return;
    }
    if (!outside)
        return;
    pm_buf_text(out, "<table>\n");
    for (uint32_t i = 0; i < outside; i++) {
        pm_buf_text(out, "<tr>");
        for (uint32_t p = 0; p < rows[i].piece_count; p++) {
            pm_buf_text(out, "<td>");
            pm_escape_html(out, rows[i].pieces[p].text, rows[i].pieces[p].bytes);
            pm_buf_text(out, "</td>");
        }
        pm_buf_text(out, "</tr>\n");
    }
    pm_buf_text(out, "</table>");
}
