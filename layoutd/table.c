/* Ruled tables: rules that touch form a system; its positions make a grid; grid cells without a rule between
 * them are one cell. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "layoutd/rules.h"

#define MAX_GRID  400u  /* rows or columns of one table */
#define MAX_CELLS 3000u /* of its grid: joining them is quadratic */

struct system {
    struct pm_rule *across, *down; /* [across_count], [down_count] */
    uint32_t across_count, down_count;
    float *xs, *ys; /* borders, ascending */
    uint32_t x_count, y_count;
    float type_px;
};

static bool do_touch(const struct pm_rect *a, const struct pm_rect *d, float slack)
{
    return d->left <= a->right + slack && d->right >= a->left - slack && d->top <= a->bottom + slack &&
           d->bottom >= a->top - slack;
}

static uint32_t root(uint32_t *parents, uint32_t i)
{
    while (parents[i] != i)
        i = parents[i] = parents[parents[i]];
    return i;
}

static int by_float(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Merges positions closer than `slack` into their mean; returns the new count. */
static uint32_t settle(float *values, uint32_t count, float slack)
{
    qsort(values, count, sizeof *values, by_float);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count;) {
        float sum = 0, last = values[i];
        uint32_t n = 0;
        for (; i < count && values[i] - last <= slack; i++, n++) {
            last = values[i];
            sum += last;
        }
        values[kept++] = sum / (float)n;
    }
    return kept;
}

/* The borders of the grid: every rule's place, and the ends of the rules where the outer border is not drawn.
 */
static void find_borders(struct system *s)
{
    s->xs = pm_xalloc(sizeof *s->xs * (s->down_count + 2u));
    s->ys = pm_xalloc(sizeof *s->ys * (s->across_count + 2u));
    float slack = fmaxf(4, 0.45f * s->type_px);
    struct pm_rect all = s->across_count ? s->across[0].box : s->down[0].box;
    for (uint32_t i = 0; i < s->across_count; i++)
        all = pm_rect_join(all, s->across[i].box);
    for (uint32_t i = 0; i < s->down_count; i++)
        all = pm_rect_join(all, s->down[i].box);
    for (uint32_t i = 0; i < s->down_count; i++)
        s->xs[s->x_count++] = pm_rect_middle_x(&s->down[i].box);
    for (uint32_t i = 0; i < s->across_count; i++)
        s->ys[s->y_count++] = pm_rect_middle_y(&s->across[i].box);
    s->xs[s->x_count++] = all.left;
    s->xs[s->x_count++] = all.right;
    s->ys[s->y_count++] = all.top;
    s->ys[s->y_count++] = all.bottom;
    s->x_count = settle(s->xs, s->x_count, slack);
    s->y_count = settle(s->ys, s->y_count, slack);
}

/* How much of the stretch from..to at `place` is covered by rules. */
static float covered(const struct pm_rule *rules, uint32_t count, bool across, float place, float from,
                     float to, float slack)
{
    float sum = 0, margin = fminf(slack, 0.2f * (to - from));
    from += margin, to -= margin;
    for (uint32_t i = 0; i < count; i++) {
        const struct pm_rect *r = &rules[i].box;
        float at = across ? pm_rect_middle_y(r) : pm_rect_middle_x(r);
        if (fabsf(at - place) > slack)
            continue;
        float low = across ? r->left : r->top, high = across ? r->right : r->bottom;
        sum += fmaxf(0, fminf(high, to) - fmaxf(low, from));
    }
    return to > from ? sum / (to - from) : 0;
}

/* Joins grid cells that no rule parts, then squares the groups up. parents: [rows * columns]. */
static void join_cells(const struct system *s, uint32_t *parents)
{
    uint32_t columns = s->x_count - 1, rows = s->y_count - 1;
    float slack = fmaxf(4, 0.5f * s->type_px);
    for (uint32_t i = 0; i < rows * columns; i++)
        parents[i] = i;
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t c = 0; c < columns; c++) {
            uint32_t at = r * columns + c;
            if (c + 1 < columns &&
                covered(s->down, s->down_count, false, s->xs[c + 1], s->ys[r], s->ys[r + 1], slack) < 0.5f)
                parents[root(parents, at + 1)] = root(parents, at);
            if (r + 1 < rows &&
                covered(s->across, s->across_count, true, s->ys[r + 1], s->xs[c], s->xs[c + 1], slack) < 0.5f)
                parents[root(parents, at + columns)] = root(parents, at);
        }
    bool changed = true;
    while (changed) { /* everything inside a group's rectangle joins it */
        changed = false;
        for (uint32_t i = 0; i < rows * columns; i++) {
            if (root(parents, i) != i)
                continue;
            uint32_t r0 = rows, r1 = 0, c0 = columns, c1 = 0;
            for (uint32_t j = 0; j < rows * columns; j++)
                if (root(parents, j) == i) {
                    uint32_t r = j / columns, c = j % columns;
                    r0 = r < r0 ? r : r0, r1 = r > r1 ? r : r1, c0 = c < c0 ? c : c0, c1 = c > c1 ? c : c1;
                }
            for (uint32_t r = r0; r <= r1; r++)
                for (uint32_t c = c0; c <= c1; c++)
                    if (root(parents, r * columns + c) != root(parents, i)) {
                        parents[root(parents, r * columns + c)] = root(parents, i);
                        changed = true;
                    }
        }
    }
}

static struct pm_table make_table(const struct system *s)
{
    uint32_t columns = s->x_count - 1, rows = s->y_count - 1;
    struct pm_table t = {
        .box = {s->xs[0], s->ys[0], s->xs[columns], s->ys[rows]}, .rows = rows, .columns = columns};
    uint32_t *parents = pm_xalloc(sizeof *parents * rows * columns);
    join_cells(s, parents);
    t.cells = pm_xalloc(sizeof *t.cells * rows * columns);
    for (uint32_t at = 0; at < rows * columns; at++) {
        uint32_t top = at; /* the group's first cell in row order stands for it */
        for (uint32_t j = 0; j < at; j++)
            if (root(parents, j) == root(parents, at)) {
                top = j;
                break;
            }
        if (top != at)
            continue;
        uint32_t r = at / columns, c = at % columns, r1 = r, c1 = c;
        for (uint32_t j = at; j < rows * columns; j++)
            if (root(parents, j) == root(parents, at)) {
                r1 = j / columns > r1 ? j / columns : r1;
                c1 = j % columns > c1 ? j % columns : c1;
            }
        t.cells[t.cell_count++] = (struct pm_page_cell){
            r, c, r1 - r + 1, c1 - c + 1, {s->xs[c], s->ys[r], s->xs[c1 + 1], s->ys[r1 + 1]}};
    }
    free(parents);
    return t;
}

static bool is_inside(const struct pm_line *l, const float box[4])
{
    float x = pm_rect_middle_x(&l->box), y = pm_rect_middle_y(&l->box);
    return x >= box[0] && x < box[2] && y >= box[1] && y < box[3];
}

/* Lines that run across a drawn border are two cells' text. */
static void cut_lines(const struct system *s, struct pm_lines *lines)
{
    for (uint32_t i = 0; i < lines->count; i++) {
        float y = pm_rect_middle_y(&lines->items[i].box);
        for (uint32_t d = 0; d < s->down_count; d++) {
            const struct pm_rect *r = &s->down[d].box;
            const struct pm_line *l = &lines->items[i];
            float x = pm_rect_middle_x(r), reach = 0.3f * l->height;
            if (y > r->top && y < r->bottom && x > l->box.left + reach && x < l->box.right - reach)
                pm_lines_split(lines, i, x); /* the right part comes round later in this loop */
        }
    }
}

static int by_middle(const void *a, const void *b)
{
    float x = pm_rect_middle_y(&(*(struct pm_line *const *)a)->box),
          y = pm_rect_middle_y(&(*(struct pm_line *const *)b)->box);
    return (x > y) - (x < y);
}

/* A cell over several columns of the grid whose rows of text all keep clear of an inner border is two cells
 * that nobody drew the border of. Adds virtual rules; true when any. */
static bool part_columns(const struct system *s, const struct pm_table *t, const struct pm_lines *lines,
                         struct pm_rules *virtual_out)
{
    bool added = false;
    for (uint32_t c = 0; c < t->cell_count; c++) {
        const struct pm_page_cell *cell = &t->cells[c];
        for (uint32_t k = cell->column + 1; k < cell->column + cell->column_span; k++) {
            float x = s->xs[k];
            uint32_t left = 0, right = 0, crossing = 0;
            for (uint32_t i = 0; i < lines->count; i++) {
                const struct pm_line *l = &lines->items[i];
                if (!is_inside(l, cell->box))
                    continue;
                left += l->box.right <= x + 0.2f * l->height;
                right += l->box.left >= x - 0.2f * l->height;
                crossing += l->box.right > x + 0.2f * l->height && l->box.left < x - 0.2f * l->height;
            }
            if (crossing || left < 2 || right < 2)
                continue;
            PM_GROW(virtual_out->down, virtual_out->down_count, virtual_out->down_capacity);
            virtual_out->down[virtual_out->down_count++] =
                (struct pm_rule){{x - 0.5f, cell->box[1], x + 0.5f, cell->box[3]}, true};
            added = true;
        }
    }
    return added;
}

/* The cells that a row of the grid has a part of, from left to right. */
static uint32_t cells_of_row(const struct pm_table *t, uint32_t row, const struct pm_page_cell **out)
{
    uint32_t n = 0;
    for (uint32_t c = 0; c < t->cell_count && n < MAX_GRID; c++) {
        const struct pm_page_cell *cell = &t->cells[c];
        if (cell->row > row || cell->row + cell->row_span <= row)
            continue;
        uint32_t at = n++;
        for (; at > 0 && out[at - 1]->column > cell->column; at--)
            out[at] = out[at - 1];
        out[at] = cell;
    }
    return n;
}

/* Rows of text in lines[0..n), top to bottom. cuts: [MAX_GRID], the places between them. *full_out: rows with
 * text in two or more cells; *first_out: rows with text in the first. Returns their number. */
static uint32_t count_rows(const struct pm_line *const *lines, uint32_t n,
                           const struct pm_page_cell *const *cells, uint32_t cell_count, float *cuts,
                           uint32_t *full_out, uint32_t *first_out)
{
    uint32_t rows = 0;
    *full_out = *first_out = 0;
    for (uint32_t i = 0; i < n && rows < MAX_GRID;) {
        float y = pm_rect_middle_y(&lines[i]->box), lowest = y;
        uint32_t from = i, filled = 0;
        for (; i < n && pm_rect_middle_y(&lines[i]->box) - y < 0.5f * lines[from]->height; i++)
            lowest = pm_rect_middle_y(&lines[i]->box);
        for (uint32_t c = 0; c < cell_count; c++)
            for (uint32_t j = from; j < i; j++)
                if (is_inside(lines[j], cells[c]->box)) {
                    filled++;
                    *first_out += c == 0;
                    break;
                }
        *full_out += filled >= 2;
        cuts[rows++] = i < n ? 0.5f * (lowest + pm_rect_middle_y(&lines[i]->box)) : 0;
    }
    return rows;
}

/* Between two drawn borders there may be several rows of text that no rule parts. They are rows of the table
 * when nearly all of them have text in the first and in one more cell. Adds virtual rules; true when any. */
static bool part_rows(const struct system *s, const struct pm_table *t, const struct pm_lines *lines,
                      struct pm_rules *virtual_out)
{
    bool added = false;
    const struct pm_line **inside = pm_xalloc(sizeof *inside * (lines->count + 1u));
    for (uint32_t row = 0; row < t->rows; row++) {
        const struct pm_page_cell *cells[MAX_GRID];
        uint32_t cell_count = cells_of_row(t, row, cells), n = 0, full, first;
        float cuts[MAX_GRID + 2], top = s->ys[row], bottom = s->ys[row + 1];
        for (uint32_t i = 0; i < lines->count && cell_count >= 2; i++) {
            float y = pm_rect_middle_y(&lines->items[i].box);
            for (uint32_t c = 0; c < cell_count && y >= top && y < bottom; c++)
                if (is_inside(&lines->items[i], cells[c]->box)) {
                    inside[n++] = &lines->items[i];
                    break;
                }
        }
        qsort(inside, n, sizeof *inside, by_middle);
        uint32_t rows = count_rows(inside, n, cells, cell_count, cuts, &full, &first);
        if (rows < 2 || full * 5 < rows * 4 || first * 5 < rows * 4)
            continue;
        cuts[rows - 1] = top; /* cells that reach in from above or below end here, too */
        cuts[rows] = bottom;
        for (uint32_t i = 0; i <= rows; i++) {
            PM_GROW(virtual_out->across, virtual_out->across_count, virtual_out->across_capacity);
            virtual_out->across[virtual_out->across_count++] = (struct pm_rule){
                {cells[0]->box[0], cuts[i] - 0.5f, cells[cell_count - 1]->box[2], cuts[i] + 0.5f}, true};
            added = true;
        }
    }
    free(inside);
    return added;
}

static void free_grid(struct system *s)
{
    free(s->xs);
    free(s->ys);
    s->xs = s->ys = NULL;
    s->x_count = s->y_count = 0;
}

static void append(struct pm_rule **rules, uint32_t *count, const struct pm_rule *more, uint32_t more_count)
{
    *rules = pm_xrealloc(*rules, sizeof **rules * (*count + more_count + 1u));
    if (more_count)
        memcpy(*rules + *count, more, sizeof *more * more_count);
    *count += more_count;
}

static bool is_sane(const struct system *s)
{
    return s->x_count >= 2 && s->y_count >= 2 && s->x_count <= MAX_GRID && s->y_count <= MAX_GRID &&
           (s->x_count - 1) * (s->y_count - 1) >= 2 && (s->x_count - 1) * (s->y_count - 1) <= MAX_CELLS;
}

/* The table of a system, with the borders that only its text shows. */
static bool build(struct system *s, const struct pm_lines *lines, struct pm_table *out)
{
    find_borders(s);
    if (!is_sane(s))
        return false;
    *out = make_table(s);
    for (int what = 0; what < 2; what++) { /* columns first: rows are told by their cells */
        struct pm_rules extra = {0};
        if (what ? part_rows(s, out, lines, &extra) : part_columns(s, out, lines, &extra)) {
            append(&s->across, &s->across_count, extra.across, extra.across_count);
            append(&s->down, &s->down_count, extra.down, extra.down_count);
            free_grid(s);
            find_borders(s);
            free(out->cells);
            *out = (struct pm_table){0};
            if (is_sane(s))
                *out = make_table(s);
        }
        pm_rules_free(&extra);
    }
    return out->cells != NULL;
}

/* A drawing, a box around one text and an underline are no tables. */
static bool is_table(const struct pm_table *t, const struct pm_lines *lines)
{
    if (t->cell_count < 2)
        return false;
    uint32_t filled = 0, texts = 0;
    for (uint32_t c = 0; c < t->cell_count; c++) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < lines->count; i++)
            n += is_inside(&lines->items[i], t->cells[c].box);
        filled += n > 0;
        texts += n;
    }
    return filled >= 2 && texts >= 2 && filled * 5 >= t->cell_count;
}

static void claim_lines(const struct pm_table *t, uint32_t index, struct pm_lines *lines)
{
    for (uint32_t i = 0; i < lines->count; i++)
        for (uint32_t c = 0; c < t->cell_count; c++)
            if (is_inside(&lines->items[i], t->cells[c].box)) {
                lines->items[i].table = (int)index;
                lines->items[i].cell = (int)c;
                break;
            }
}

static struct system gather(const struct pm_rules *rules, const uint32_t *roots, uint32_t which,
                            float type_px)
{
    struct system s = {.type_px = type_px};
    s.across = pm_xalloc(sizeof *s.across * (rules->across_count + 1u));
    s.down = pm_xalloc(sizeof *s.down * (rules->down_count + 1u));
    for (uint32_t i = 0; i < rules->across_count; i++)
        if (roots[i] == which)
            s.across[s.across_count++] = rules->across[i];
    for (uint32_t i = 0; i < rules->down_count; i++)
        if (roots[rules->across_count + i] == which)
            s.down[s.down_count++] = rules->down[i];
    return s;
}

/* Two rules of one length closely one below the other (a double rule) belong together. */
static void join_doubles(const struct pm_rules *rules, float type_px, uint32_t *parents)
{
    for (uint32_t i = 0; i < rules->across_count; i++)
        for (uint32_t j = i + 1; j < rules->across_count; j++) {
            const struct pm_rect *a = &rules->across[i].box, *b = &rules->across[j].box;
            float apart = fabsf(pm_rect_middle_y(a) - pm_rect_middle_y(b));
            float longer = fmaxf(pm_rect_width(a), pm_rect_width(b));
            if (apart < 0.45f * type_px && pm_rect_overlap_x(a, b) > 0.9f * longer)
                parents[root(parents, j)] = root(parents, i);
        }
}

void pm_tables_find(const struct pm_rules *rules, struct pm_lines *lines, float type_px,
                    struct pm_tables *out)
{
    *out = (struct pm_tables){0};
    uint32_t a = rules->across_count, n = a + rules->down_count;
    uint32_t *parents = pm_xalloc(sizeof *parents * (n + 1u));
    for (uint32_t i = 0; i < n; i++)
        parents[i] = i;
    float slack = fmaxf(3, 0.3f * type_px);
    for (uint32_t i = 0; i < a; i++)
        for (uint32_t j = 0; j < rules->down_count; j++)
            if (do_touch(&rules->across[i].box, &rules->down[j].box, slack))
                parents[root(parents, a + j)] = root(parents, i);
    join_doubles(rules, type_px, parents);
    for (uint32_t i = 0; i < n; i++)
        parents[i] = root(parents, i);
    for (uint32_t i = 0; i < n; i++) {
        if (parents[i] != i)
            continue;
        struct system s = gather(rules, parents, i, type_px);
        struct pm_table t = {0};
        if (s.across_count >= 1 && s.down_count >= 1 && s.across_count + s.down_count >= 3) {
            uint32_t before = lines->count;
            if (build(&s, lines, &t) && is_table(&t, lines)) {
                cut_lines(&s, lines);
                if (lines->count != before) { /* cut lines may fill rows that a long line hid */
                    free(t.cells);
                    t.cells = NULL;
                    free_grid(&s);
                    build(&s, lines, &t);
                }
                claim_lines(&t, out->count, lines);
                PM_GROW(out->items, out->count, out->capacity);
                out->items[out->count++] = t;
                t.cells = NULL;
            }
        }
        free(t.cells);
        free_grid(&s);
        free(s.across);
        free(s.down);
    }
    free(parents);
}

void pm_tables_free(struct pm_tables *tables)
{
    for (uint32_t i = 0; i < tables->count; i++)
        free(tables->items[i].cells);
    free(tables->items);
    *tables = (struct pm_tables){0};
}
