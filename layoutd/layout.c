#include "layoutd/layout.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "layoutd/aligned.h"
#include "layoutd/blocks.h"
#include "layoutd/order.h"

#define MAX_CUT_ROUNDS 3
#define MARGIN_ZONE    0.13f /* of the page's height: where running heads and page numbers stand */

struct work {
    const struct pm_layout_input *in;
    struct pm_layout *out;
    struct pm_type type;
    bool *taken; /* [lines->capacity]: placed outside the body (running heads, tables, pictures) */
    uint32_t taken_capacity;
};

static struct pm_layout_region *add_region(struct pm_layout *l, enum pm_label label, struct pm_rect box,
                                           float score)
{
    PM_GROW(l->regions, l->region_count, l->region_capacity);
    l->regions[l->region_count] = (struct pm_layout_region){
        .label = label, .box = box, .score = score, .table = -1, .picture = -1, .first = l->line_count};
    return &l->regions[l->region_count++];
}

static void add_line(struct pm_layout *l, uint32_t line, uint32_t row)
{
    PM_GROW(l->lines, l->line_count, l->line_capacity);
    l->lines[l->line_count++] = (struct pm_layout_line){line, row};
}

/* ---- running heads and page numbers ---- */

struct edge_row { /* the outermost row of the page at its top or bottom */
    uint32_t ids[16];
    uint32_t count;
    struct pm_rect box;
    float next; /* where the nearest other content begins */
};

static bool is_body(const struct work *w, uint32_t i)
{
    return !w->taken[i] && !w->in->lines->items[i].is_vertical;
}

static bool find_edge_row(const struct work *w, bool at_top, struct edge_row *out)
{
    const struct pm_lines *lines = w->in->lines;
    float sign = at_top ? 1.0f : -1.0f, best = INFINITY;
    uint32_t first = UINT32_MAX;
    for (uint32_t i = 0; i < lines->count; i++)
        if (is_body(w, i) && sign * pm_rect_middle_y(&lines->items[i].box) < best) {
            best = sign * pm_rect_middle_y(&lines->items[i].box);
            first = i;
        }
    if (first == UINT32_MAX)
        return false;
    const struct pm_line *f = &lines->items[first];
    *out = (struct edge_row){.box = f->box};
    for (uint32_t i = 0; i < lines->count && out->count < 16; i++)
        if (is_body(w, i) &&
            fabsf(pm_rect_middle_y(&lines->items[i].box) - pm_rect_middle_y(&f->box)) < 0.6f * f->height) {
            out->ids[out->count++] = i;
            out->box = pm_rect_join(out->box, lines->items[i].box);
        }
    float next = INFINITY;
    for (uint32_t i = 0; i < lines->count; i++) {
        bool is_member = w->taken[i] && lines->items[i].table < 0;
        for (uint32_t k = 0; k < out->count; k++)
            is_member |= out->ids[k] == i;
        const struct pm_rect *b = &lines->items[i].box;
        if (!is_member)
            next = fminf(next, at_top ? b->top : -b->bottom);
    }
    for (uint32_t i = 0; i < w->in->picture_count; i++) {
        const struct pm_rect *b = &w->in->pictures[i];
        if (pm_rect_overlap_x(b, &out->box) > 0 && sign * pm_rect_middle_y(b) > best)
            next = fminf(next, at_top ? b->top : -b->bottom);
    }
    out->next = at_top ? next : -next;
    return true;
}

/* A long rule between the edge row and the rest, or on its outer side. */
static bool has_rule(const struct work *w, const struct edge_row *row, bool at_top)
{
    const struct pm_rules *rules = w->in->rules;
    if (!rules)
        return false;
    float h = pm_rect_height(&row->box);
    for (uint32_t i = 0; i < rules->across_count; i++) {
        const struct pm_rect *r = &rules->across[i].box;
        float y = pm_rect_middle_y(r);
        bool between =
            at_top ? y > row->box.bottom - 0.4f * h && y < fminf(row->next + 2, row->box.bottom + 2 * h)
                   : y < row->box.top + 0.4f * h && y > fmaxf(row->next - 2, row->box.top - 2 * h);
        if (between && pm_rect_width(r) > 0.4f * w->in->width)
            return true;
    }
    return false;
}

static bool is_running(const struct work *w, const struct edge_row *row, bool at_top)
{
    const struct pm_lines *lines = w->in->lines;
    float h = w->type.height, zone = MARGIN_ZONE * w->in->height;
    if (at_top ? row->box.bottom > zone : row->box.top < w->in->height - zone)
        return false;
    if (!isfinite(row->next))
        return false; /* nothing else on the page */
    float gap = at_top ? row->next - row->box.bottom : row->box.top - row->next;
    float widest = 0, large = 0, bold = 0;
    for (uint32_t k = 0; k < row->count; k++) {
        const struct pm_line *l = &lines->items[row->ids[k]];
        widest = fmaxf(widest, pm_rect_width(&l->box));
        large = fmaxf(large, fminf(l->height / h, l->x_height / w->type.x_height));
        bold = fmaxf(bold, w->type.stroke > 0 ? l->stroke / w->type.stroke : 0);
    }
    if (large > 1.4f)
        return false;
    if (has_rule(w, row, at_top))
        return gap > 0.3f * h;
    if (row->count == 1 && widest < 3.2f * h) /* a page number alone */
        return gap > 0.8f * h;
    if (row->count >= 2 && widest < 0.6f * w->in->width)
        return gap > 1.1f * h && large < 1.2f;
    float off_centre = fabsf(pm_rect_middle_x(&row->box) - 0.5f * w->in->width);
    bool is_centred = off_centre < 0.03f * w->in->width && widest < 0.5f * w->in->width;
    return gap > (is_centred ? 1.2f : 1.9f) * h && large < 1.15f && bold < 1.25f &&
           widest < 0.7f * w->in->width;
}

static int by_left_line(const void *a, const void *b, void *context)
{
    const struct pm_lines *lines = context;
    float x = lines->items[*(const uint32_t *)a].box.left, y = lines->items[*(const uint32_t *)b].box.left;
    return (x > y) - (x < y);
}

/* One region for each piece, so that a page number is not part of a running title. */
static void emit_running(struct work *w, struct edge_row *row, bool at_top)
{
    qsort_r(row->ids, row->count, sizeof *row->ids, by_left_line, w->in->lines);
    for (uint32_t k = 0; k < row->count; k++) {
        const struct pm_line *l = &w->in->lines->items[row->ids[k]];
        bool is_number = pm_rect_width(&l->box) < 2.2f * l->height;
        enum pm_label label = is_number ? PM_LABEL_NUMBER : at_top ? PM_LABEL_HEADER : PM_LABEL_FOOTER;
        add_region(w->out, label, l->box, l->score)->count = 1;
        add_line(w->out, row->ids[k], 0);
    }
}

/* Takes the running rows of one edge off the body, outermost first. */
static uint32_t take_running(struct work *w, bool at_top, struct edge_row rows[2])
{
    uint32_t n = 0, left = 0;
    for (uint32_t i = 0; i < w->in->lines->count; i++)
        left += is_body(w, i);
    while (n < 2 && find_edge_row(w, at_top, &rows[n]) && left > rows[n].count &&
           is_running(w, &rows[n], at_top)) {
        for (uint32_t k = 0; k < rows[n].count; k++)
            w->taken[rows[n].ids[k]] = true;
        left -= rows[n].count;
        n++;
    }
    return n;
}

/* ---- tables and pictures ---- */

static void place_lines(const struct pm_lines *lines, const uint32_t *ids, uint32_t count,
                        struct pm_place *places, struct pm_cut *cuts, uint32_t *cut_count)
{
    struct pm_item *items = pm_xalloc(sizeof *items * (count + 1u));
    for (uint32_t i = 0; i < count; i++) {
        const struct pm_line *l = &lines->items[ids[i]];
        items[i] = (struct pm_item){l->box, l->size, l->is_vertical, l->gaps, l->gap_count};
    }
    pm_order_find(items, count, places, cuts, cut_count);
    for (uint32_t i = 0; i < count; i++)
        places[i].item = ids[places[i].item];
    for (uint32_t i = 0; i < *cut_count; i++)
        cuts[i].item = ids[cuts[i].item];
    free(items);
}

static void emit_table(struct work *w, uint32_t index)
{
    const struct pm_table *t = &w->in->tables->items[index];
    const struct pm_lines *lines = w->in->lines;
    struct pm_layout_region *r = add_region(w->out, PM_LABEL_TABLE, t->box, 0);
    uint32_t region = w->out->region_count - 1, base = 0, rows_here = 0, table_row = 0;
    uint32_t *ids = pm_xalloc(sizeof *ids * (lines->count + 1u));
    struct pm_place *places = pm_xalloc(sizeof *places * (lines->count + 1u));
    struct pm_cut *cuts = pm_xalloc(sizeof *cuts * (lines->count + 1u));
    r->table = (int)index;
    float score = 0;
    for (uint32_t c = 0; c < t->cell_count; c++) {
        uint32_t n = 0, cut_count;
        for (uint32_t i = 0; i < lines->count; i++)
            if (lines->items[i].table == (int)index && lines->items[i].cell == (int)c)
                ids[n++] = i;
        if (t->cells[c].row != table_row) {
            table_row = t->cells[c].row;
            base += rows_here;
            rows_here = 0;
        }
        if (!n)
            continue;
        place_lines(lines, ids, n, places, cuts, &cut_count);
        uint32_t row = 0;
        for (uint32_t i = 0; i < n; i++) {
            if (i && (places[i].leaf != places[i - 1].leaf || places[i].row != places[i - 1].row))
                row++;
            add_line(w->out, places[i].item, base + row);
            score += lines->items[places[i].item].score;
        }
        rows_here = row + 1 > rows_here ? row + 1 : rows_here;
    }
    r = &w->out->regions[region];
    r->count = w->out->line_count - r->first;
    r->score = r->count ? score / (float)r->count : 1;
    free(ids);
    free(places);
    free(cuts);
}

/* ---- the body ---- */

static void make_row(const struct work *w, struct pm_text_row *row)
{
    const struct pm_lines *lines = w->in->lines;
    float total = 0, longest = 0;
    for (uint32_t k = 0; k < row->count; k++) {
        const struct pm_line *l = &lines->items[w->out->lines[row->first + k].line];
        float width = fmaxf(1, pm_rect_width(&l->box));
        row->box = k ? pm_rect_join(row->box, l->box) : l->box;
        row->x_height += width * l->x_height;
        row->stroke += width * l->stroke;
        row->height += width * l->height;
        row->size += width * l->size;
        total += width;
        if (width > longest) {
            longest = width;
            row->baseline = l->baseline;
            row->longest = w->out->lines[row->first + k].line;
        }
    }
    row->is_code = row->count == 1 && lines->items[row->longest].is_mono;
    row->x_height /= total, row->stroke /= total, row->height /= total, row->size /= total;
    const struct pm_line *first = &lines->items[w->out->lines[row->first].line];
    row->text_left = first->box.left;
    if (first->bullet_right > 0) {
        row->has_bullet = true;
        row->text_left = fmaxf(first->bullet_right, first->box.left);
        for (uint32_t i = 0; i < first->gap_count; i++)
            if (first->bullet_right > first->box.left && first->gaps[i].left >= first->bullet_right) {
                row->text_left = first->gaps[i].right;
                break;
            }
    } else if (row->count >= 2 && pm_rect_width(&first->box) < 1.2f * first->height) {
        /* a mark or number that was detected by itself */
        row->has_bullet = true;
        row->text_left = lines->items[w->out->lines[row->first + 1].line].box.left;
    }
}

/* Is there a rule between the row and what stands above it? above_y: baseline of that, -1 when it is no text;
 * then only a short rule closely above counts. */
static void find_rule_above(const struct work *w, float above_y, struct pm_text_row *b)
{
    const struct pm_rules *rules = w->in->rules;
    for (uint32_t i = 0; rules && i < rules->across_count; i++) {
        const struct pm_rect *r = &rules->across[i].box;
        float y = pm_rect_middle_y(r), width = pm_rect_width(r);
        if (y >= b->baseline - 0.8f * b->x_height || pm_rect_overlap_x(r, &b->box) <= 0)
            continue;
        bool is_mark = y > b->box.top - 1.5f * b->size && width < 0.4f * w->in->width &&
                       width > 2 * b->size && fabsf(r->left - b->box.left) < 1.5f * b->size;
        b->follows_mark |= is_mark && (above_y < 0 || y > above_y);
        b->follows_rule |= above_y >= 0 ? y > above_y : is_mark;
    }
}

/* Blocks and tables without rules of rows[0..count), whose lines were added last. The sequence is in the
 * order of rows already, which is that of the cells. */
static void emit_rows(struct work *w, struct pm_text_row *rows, uint32_t count, uint32_t column)
{
    struct pm_aligned run = {0};
    for (uint32_t from = 0; from < count;) {
        bool found =
            w->in->tables && pm_aligned_find(w->in->lines, w->out->lines, rows, count, from, &w->type, &run);
        uint32_t to = found ? run.from : count;
        if (to > from)
            pm_blocks_find(w->in->lines, rows + from, to - from, &w->type, column, w->in->height, w->out);
        if (!found)
            break;
        struct pm_tables *t = w->in->tables;
        PM_GROW(t->items, t->count, t->capacity);
        t->items[t->count] = pm_aligned_table(&run, rows, w->out->lines, t->count, w->in->lines);
        struct pm_layout_region *r = add_region(w->out, PM_LABEL_TABLE, t->items[t->count].box, 0);
        r->table = (int)t->count++;
        r->column = column;
        r->first = rows[run.from].first;
        for (uint32_t i = run.from; i < run.to; i++)
            for (uint32_t k = 0; k < rows[i].count; k++, r->count++) {
                struct pm_layout_line *l = &w->out->lines[rows[i].first + k];
                l->row = i - run.from;
                r->score += w->in->lines->items[l->line].score;
            }
        r->score /= (float)r->count;
        from = run.to;
    }
}

/* Rows of text places[from..to) of one leaf, between blocks. */
static void emit_text(struct work *w, const struct pm_place *places, uint32_t from, uint32_t to)
{
    struct pm_text_row *rows = pm_xalloc(sizeof *rows * (to - from));
    uint32_t count = 0;
    for (uint32_t i = from; i < to; i++) {
        if (i == from || places[i].row != places[i - 1].row)
            rows[count++] = (struct pm_text_row){.first = w->out->line_count};
        rows[count - 1].count++;
        add_line(w->out, places[i].item, 0);
    }
    for (uint32_t r = 0; r < count; r++) {
        make_row(w, &rows[r]);
        find_rule_above(w, r ? rows[r - 1].baseline + 0.3f * rows[r - 1].x_height : -1, &rows[r]);
    }
    emit_rows(w, rows, count, places[from].column);
    free(rows);
}

static void emit_vertical(struct work *w, uint32_t line)
{
    const struct pm_line *l = &w->in->lines->items[line];
    add_region(w->out, PM_LABEL_VERTICAL_TEXT, l->box, l->score)->count = 1;
    add_line(w->out, line, 0);
}

/* A picture, then the text inside it. */
static void emit_picture(struct work *w, uint32_t index)
{
    const struct pm_rect *box = &w->in->pictures[index];
    const struct pm_lines *lines = w->in->lines;
    add_region(w->out, PM_LABEL_IMAGE, *box, 1)->picture = (int)index;
    uint32_t *ids = pm_xalloc(sizeof *ids * (lines->count + 1u)), n = 0, cut_count;
    for (uint32_t i = 0; i < lines->count; i++)
        if (lines->items[i].cell == -2 - (int)index)
            ids[n++] = i;
    struct pm_place *places = pm_xalloc(sizeof *places * (n + 1u));
    struct pm_cut *cuts = pm_xalloc(sizeof *cuts * (n + 1u));
    if (n)
        place_lines(lines, ids, n, places, cuts, &cut_count);
    for (uint32_t i = 0, from = 0; i < n; i++)
        if (i + 1 == n || places[i + 1].leaf != places[i].leaf) {
            emit_text(w, places, from, i + 1);
            from = i + 1;
        }
    free(ids);
    free(places);
    free(cuts);
}

struct body {
    struct pm_item *items;
    uint32_t *whats; /* line index, or BLOCK_TABLE + table, or BLOCK_PICTURE + picture */
    uint32_t count;
};
#define BLOCK_TABLE   0x40000000u
#define BLOCK_PICTURE 0x80000000u

static void gather_body(const struct work *w, struct body *b)
{
    const struct pm_lines *lines = w->in->lines;
    uint32_t tables = w->in->tables ? w->in->tables->count : 0;
    size_t most = (size_t)lines->count + tables + w->in->picture_count + 1;
    b->items = pm_xalloc(sizeof *b->items * most);
    b->whats = pm_xalloc(sizeof *b->whats * most);
    b->count = 0;
    for (uint32_t i = 0; i < lines->count; i++) {
        const struct pm_line *l = &lines->items[i];
        if (w->taken[i])
            continue;
        b->items[b->count] = (struct pm_item){l->box, l->size, l->is_vertical, l->gaps, l->gap_count};
        b->whats[b->count++] = i;
    }
    for (uint32_t i = 0; i < tables; i++) {
        b->items[b->count] =
            (struct pm_item){.box = w->in->tables->items[i].box, .size = w->type.size, .is_block = true};
        b->whats[b->count++] = BLOCK_TABLE + i;
    }
    for (uint32_t i = 0; i < w->in->picture_count; i++) {
        b->items[b->count] =
            (struct pm_item){.box = w->in->pictures[i], .size = w->type.size, .is_block = true};
        b->whats[b->count++] = BLOCK_PICTURE + i;
    }
}

static bool apply_cuts(struct work *w, const struct body *b, const struct pm_cut *cuts, uint32_t count)
{
    bool changed = false;
    for (uint32_t i = 0; i < count; i++)
        if (b->whats[cuts[i].item] < BLOCK_TABLE)
            changed |= pm_lines_split(w->in->lines, b->whats[cuts[i].item], cuts[i].x);
    if (w->in->lines->count > w->taken_capacity) {
        w->taken = pm_xrealloc(w->taken, sizeof *w->taken * w->in->lines->count);
        memset(w->taken + w->taken_capacity, 0, sizeof *w->taken * (w->in->lines->count - w->taken_capacity));
        w->taken_capacity = w->in->lines->count;
    }
    return changed;
}

static void emit_body(struct work *w)
{
    struct body b = {0};
    struct pm_place *places = NULL;
    struct pm_cut *cuts = NULL;
    for (int round = 0;; round++) {
        free(b.items);
        free(b.whats);
        free(places);
        free(cuts);
        gather_body(w, &b);
        places = pm_xalloc(sizeof *places * (b.count + 1u));
        cuts = pm_xalloc(sizeof *cuts * (b.count + 1u));
        uint32_t cut_count = 0;
        if (b.count)
            pm_order_find(b.items, b.count, places, cuts, &cut_count);
        if (round == MAX_CUT_ROUNDS || !apply_cuts(w, &b, cuts, cut_count))
            break;
    }
    for (uint32_t i = 0; i < b.count;) {
        uint32_t what = b.whats[places[i].item], to = i;
        if (what >= BLOCK_PICTURE || what >= BLOCK_TABLE || w->in->lines->items[what].is_vertical) {
            uint32_t region = w->out->region_count;
            if (what >= BLOCK_PICTURE)
                emit_picture(w, what - BLOCK_PICTURE);
            else if (what >= BLOCK_TABLE)
                emit_table(w, what - BLOCK_TABLE);
            else
                emit_vertical(w, what);
            w->out->regions[region].column = places[i].column;
            i++;
            continue;
        }
        while (to < b.count && places[to].leaf == places[i].leaf && b.whats[places[to].item] < BLOCK_TABLE &&
               !w->in->lines->items[b.whats[places[to].item]].is_vertical) {
            places[to].item = b.whats[places[to].item];
            to++;
        }
        emit_text(w, places, i, to);
        i = to;
    }
    free(b.items);
    free(b.whats);
    free(places);
    free(cuts);
}

/* Nothing but running heads and pictures before region r? */
static bool is_first(const struct pm_layout *l, const struct pm_layout_region *r)
{
    for (const struct pm_layout_region *k = l->regions; k < r; k++)
        if (k->label != PM_LABEL_HEADER && k->label != PM_LABEL_NUMBER && k->label != PM_LABEL_IMAGE)
            return false;
    return true;
}

/* The title of the document: the first and largest heading of the first page, in its upper half. One that is
 * hardly larger than the others must stand first and in the middle. */
static void find_title(const struct work *w)
{
    struct pm_layout *l = w->out;
    if (w->in->page != 1)
        return;
    struct pm_layout_region *first = NULL;
    float size = 0, x_height = 0, others = 0, others_x = 0;
    for (uint32_t i = 0; i < l->region_count; i++) {
        struct pm_layout_region *r = &l->regions[i];
        if (r->label != PM_LABEL_PARAGRAPH_TITLE)
            continue;
        const struct pm_line *line = &w->in->lines->items[l->lines[r->first].line];
        if (!first) {
            first = r;
            size = line->height;
            x_height = line->x_height;
        } else {
            others = fmaxf(others, line->height);
            others_x = fmaxf(others_x, line->x_height);
        }
    }
    if (!first || first->box.top > 0.5f * w->in->height)
        return;
    bool is_big = size > 1.05f * others && size > 1.35f * w->type.height;
    bool is_centred = fabsf(pm_rect_middle_x(&first->box) - 0.5f * w->in->width) < 0.03f * w->in->width &&
                      first->box.left > 0.2f * w->in->width;
    bool is_larger =
        x_height > 1.1f * others_x && x_height > 1.15f * w->type.x_height && size > 0.95f * others;
    if (is_big || (is_centred && is_larger && is_first(l, first))) {
        first->label = PM_LABEL_DOC_TITLE;
        first->level = 1;
    }
}

void pm_layout_find(const struct pm_layout_input *input, struct pm_layout *out)
{
    *out = (struct pm_layout){0};
    struct pm_lines *lines = input->lines;
    struct work w = {.in = input, .out = out, .type = pm_type_of(lines), .taken_capacity = lines->count};
    w.taken = pm_xalloc(sizeof *w.taken * (lines->count + 1u));
    for (uint32_t i = 0; i < lines->count; i++) {
        struct pm_line *l = &lines->items[i];
        for (uint32_t p = 0; p < input->picture_count && l->table < 0; p++) {
            const struct pm_rect *b = &input->pictures[p];
            float x = pm_rect_middle_x(&l->box), y = pm_rect_middle_y(&l->box);
            if (x > b->left && x < b->right && y > b->top && y < b->bottom)
                l->cell = -2 - (int)p;
        }
        w.taken[i] = l->table >= 0 || l->cell <= -2;
    }
    struct edge_row heads[2], feet[2];
    uint32_t head_count = take_running(&w, true, heads), foot_count = take_running(&w, false, feet);
    for (uint32_t i = 0; i < head_count; i++)
        emit_running(&w, &heads[i], true);
    emit_body(&w);
    for (uint32_t i = foot_count; i-- > 0;)
        emit_running(&w, &feet[i], false);
    find_title(&w);
    free(w.taken);
}

void pm_layout_free(struct pm_layout *layout)
{
    free(layout->regions);
    free(layout->lines);
    *layout = (struct pm_layout){0};
}
