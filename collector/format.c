#include "collector/format.h"

#include <math.h>
#include <string.h>

#include "collector/prose.h"
#include "collector/regions.h"
#include "collector/rows.h"
#include "collector/text.h"
#include "proto/messages.h"
#include "proto/sheet.h"

/* enum pm_task of engine/reader.h, which this side does not see; a unit test holds them together. */
enum { TASK_TEXT = 0, TASK_TABLE = 1, TASK_FORMULA = 2 };

#define CONTENT_LIMIT (4u << 20) /* of the record that the content travels in */

bool pm_label_is_furniture(uint32_t label)
{
    switch (label) {
    case PM_LABEL_HEADER:
    case PM_LABEL_FOOTER:
    case PM_LABEL_NUMBER:
    case PM_LABEL_FOOTNOTE:
    case PM_LABEL_HEADER_IMAGE:
    case PM_LABEL_FOOTER_IMAGE:
    case PM_LABEL_ASIDE_TEXT:
        return true;
    default:
        return false;
    }
}

int pm_label_from_name(const char *name, size_t bytes)
{
    for (int label = 0; label < PM_LABEL_COUNT; label++) {
        const char *known = pm_label_name((enum pm_label)label);
        if (strlen(known) == bytes && !memcmp(known, name, bytes))
            return label;
    }
    return -1;
}

/* ---- checks ------------------------------------------------------------------------------------------ */

static bool are_finite(const float *v, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(v[i]) || fabsf(v[i]) > 1e6f)
            return false;
    return true;
}

static int check_page(const struct pm_page *page, struct pm_error *err)
{
    for (uint32_t i = 0; i < page->region_count; i++) {
        const struct pm_page_region *r = &page->regions[i];
        if (r->label >= PM_LABEL_COUNT || !are_finite(r->box, 4))
            return pm_fail(err, PM_EFORMAT, "page %u: region %u has no valid label or box", page->page, i);
        for (uint32_t c = 0; c < r->cell_count; c++)
            if (!are_finite(r->cells[c].box, 4) || r->cells[c].row > 65535 || r->cells[c].column > 65535)
                return pm_fail(err, PM_EFORMAT, "page %u: cell %u of region %u has no valid place",
                               page->page, c, i);
    }
    for (uint32_t i = 0; i < page->crop_count; i++) {
        const struct pm_page_crop *c = &page->crops[i];
        if (c->region >= page->region_count)
            return pm_fail(err, PM_EFORMAT, "page %u: crop %u names region %u of %u", page->page, i,
                           c->region, page->region_count);
        if (c->cell > page->regions[c->region].cell_count)
            return pm_fail(err, PM_EFORMAT, "page %u: crop %u names cell %u of %u", page->page, i, c->cell,
                           page->regions[c->region].cell_count);
        if (!are_finite(c->quad, 8) || !are_finite(&c->height_px, 1))
            return pm_fail(err, PM_EFORMAT, "page %u: crop %u has no valid place", page->page, i);
    }
    return 0;
}

/* Ink that the detector did not take for text and the reader cannot read: a speck (proto/page.h). */
static bool is_speck(const struct pm_page_crop *crop, const struct pm_region_text *read)
{
    const char *code, *why;
    return crop->height_px > 0 && crop->score > 0 && crop->score < PM_SCORE_RESCUED &&
           !(read->confidence >= PM_RESCUED_CONFIDENCE) && !pm_read_failed(read, &code, &why);
}

static int match_texts(const struct pm_page *page, const struct pm_region_text *texts, uint32_t text_count,
                       const struct pm_region_text **reads, struct pm_error *err)
{
    for (uint32_t i = 0; i < text_count; i++) {
        uint32_t crop = texts[i].crop;
        if (crop >= page->crop_count || page->crops[crop].task == PM_SHEET_PICTURE)
            return pm_fail(err, PM_EFORMAT, "page %u: a text for crop %u, which is no text of this page",
                           page->page, crop);
        if (reads[crop])
            return pm_fail(err, PM_EFORMAT, "page %u: two texts for crop %u", page->page, crop);
        static const struct pm_region_text speck = {.text = "", .finish = "empty"};
        reads[crop] = is_speck(&page->crops[crop], &texts[i]) ? &speck : &texts[i];
    }
    return 0;
}

/* ---- lines --------------------------------------------------------------------------------------------- */

static float unit(float v)
{
    return v > 0 ? (v < 1 ? v : 1) : 0; /* NaN becomes 0 */
}

static bool is_boundary(const char *text, uint32_t at)
{
    return ((uint8_t)text[at] & 0xC0) != 0x80;
}

/* Words that lie in order inside the text, on character boundaries; others are left out. */
static void copy_words(const struct pm_region_text *read, struct pm_arena *arena, struct pm_out_line *line)
{
    size_t size = strlen(read->text);
    line->words = pm_arena_alloc(arena, (read->word_count + 1) * sizeof *line->words);
    uint32_t behind = 0;
    for (uint32_t i = 0; i < read->word_count; i++) {
        struct pm_word w = read->words[i];
        if (w.start < behind || w.end <= w.start || w.end > size || !is_boundary(read->text, w.start) ||
            !is_boundary(read->text, w.end))
            continue;
        w.left = unit(w.left);
        w.right = unit(w.right) > w.left ? unit(w.right) : w.left;
        w.confidence = unit(w.confidence);
        line->words[line->word_count++] = w;
        behind = w.end;
    }
}

/* What a region is made from: its slice of the crop index. */
struct slice {
    const struct pm_crop_key *keys;
    uint32_t count;
    uint32_t failed;
    const char *code, *why; /* of the first failed crop */
    bool was_cut;           /* a reader stopped at its token limit */
};

static void read_slice(const struct pm_crop_index *index, struct slice *s, bool with_lines,
                       struct pm_arena *arena, struct pm_out_region *out)
{
    double sum = 0, characters = 0;
    if (with_lines)
        out->lines = pm_arena_alloc(arena, ((size_t)s->count + 1) * sizeof *out->lines);
    for (uint32_t i = 0; i < s->count; i++) {
        const struct pm_region_text *read = index->reads[s->keys[i].index];
        const char *code, *why;
        if (pm_read_failed(read, &code, &why)) {
            if (!s->failed++)
                s->code = code, s->why = why;
            continue;
        }
        size_t n = read->text ? pm_text_points(read->text, strlen(read->text)) : 0;
        if (!n)
            continue;
        s->was_cut |= read->finish && !strcmp(read->finish, "length");
        sum += (double)unit(read->confidence) * (double)n;
        characters += (double)n;
        if (!with_lines)
            continue;
        struct pm_out_line *line = &out->lines[out->line_count++];
        line->text = read->text;
        line->confidence = unit(read->confidence);
        memcpy(line->quad, index->page->crops[s->keys[i].index].quad, sizeof line->quad);
        copy_words(read, arena, line);
    }
    out->confidence = characters > 0 ? (float)(sum / characters) : 0;
}

/* ---- content ------------------------------------------------------------------------------------------- */

static enum pm_prose_style prose_style(uint32_t label)
{
    switch (label) {
    case PM_LABEL_LIST:
        return PM_PROSE_LIST;
    case PM_LABEL_REFERENCE:
    case PM_LABEL_REFERENCE_CONTENT:
        return PM_PROSE_REFERENCES;
    case PM_LABEL_CONTENT:
        return PM_PROSE_LINES;
    case PM_LABEL_HEADER:
    case PM_LABEL_FOOTER:
    case PM_LABEL_NUMBER:
    case PM_LABEL_FIGURE_TITLE:
    case PM_LABEL_FORMULA_NUMBER:
    case PM_LABEL_SEAL:
        return PM_PROSE_PLAIN;
    default:
        return PM_PROSE_TEXT;
    }
}

/* May an item at the start of region i be nested in the list that the region before ended with? Only when it
 * follows directly below, in the same column. */
static bool goes_on_below(const struct pm_page *page, uint32_t i)
{
    const struct pm_page_region *r = &page->regions[i], *before = i ? r - 1 : NULL;
    return before && (r->label == PM_LABEL_LIST || r->label == PM_LABEL_TEXT) &&
           r->column == before->column && r->box[1] > (before->box[1] + before->box[3]) / 2 &&
           r->box[0] < before->box[2] && r->box[2] > before->box[0];
}

/* How wide text is set where the region stands: the widest region of text above, below or around it. */
static float set_width(const struct pm_page *page, const struct pm_page_region *r)
{
    float width = r->box[2] - r->box[0], widest = width;
    for (uint32_t i = 0; i < page->region_count; i++) {
        const struct pm_page_region *k = &page->regions[i];
        float left = fmaxf(r->box[0], k->box[0]), right = fminf(r->box[2], k->box[2]);
        if ((k->label == PM_LABEL_TEXT || k->label == PM_LABEL_LIST) && right - left > 0.5f * width)
            widest = fmaxf(widest, k->box[2] - k->box[0]);
    }
    return widest;
}

/* Bold or large type alone does not make a heading of what reads as text: a sentence with its full stop, or
 * the middle of one. */
static bool reads_as_text(const struct pm_row *rows, uint32_t count)
{
    const struct pm_row *last = &rows[count - 1];
    size_t blanks = 0;
    for (uint32_t i = 0; i < count; i++)
        for (size_t b = 0; b < rows[i].bytes; b++)
            blanks += rows[i].text[b] == ' ';
    blanks += count - 1;
    uint32_t end = pm_text_last(last->text, last->bytes), first = pm_text_first(rows->text, rows->bytes);
    bool is_numbered = pm_text_is_digit(first);
    bool is_cut = pm_text_is_lower(first) && blanks >= 4;
    return !is_numbered && blanks >= 3 && (is_cut || end == '.' || end == ',' || end == ';');
}

static void format_lines(struct pm_buf *out, const struct pm_crop_index *index, uint32_t region,
                         struct pm_prose_lists *lists, struct pm_arena *arena, struct pm_out_region *made)
{
    const struct pm_page_region *r = &index->page->regions[region];
    if (r->label == PM_LABEL_TABLE) {
        pm_table_format(out, index, region, arena);
        return;
    }
    struct pm_row *rows;
    uint32_t count = pm_rows_collect(index, region, 0, arena, &rows), level = pm_heading_level(r);
    if (r->label == PM_LABEL_PARAGRAPH_TITLE && count && reads_as_text(rows, count)) {
        made->label = PM_LABEL_TEXT;
        made->level = level = 0;
    }
    if (level)
        pm_heading_format(out, rows, count, level);
    else if (r->label == PM_LABEL_CODE || r->label == PM_LABEL_ALGORITHM)
        pm_code_format(out, rows, count);
    else if (r->label == PM_LABEL_TEXT && pm_prose_is_broken(rows, count, set_width(index->page, r)))
        pm_prose_lines(out, rows, count);
    else
        pm_prose_format(out, rows, count, prose_style(r->label), lists);
}

static void format_blocks(struct pm_buf *out, const struct pm_crop_index *index, const struct slice *s,
                          uint32_t level)
{
    struct pm_buf one = {0};
    for (uint32_t i = 0; i < s->count; i++) {
        const struct pm_region_text *read = index->reads[s->keys[i].index];
        uint32_t task = index->page->crops[s->keys[i].index].task;
        const char *code, *why;
        one.size = 0;
        if (pm_read_failed(read, &code, &why))
            pm_buf_printf(&one, "[unreadable part: %s]", why);
        else if (!read->text)
            continue;
        else if (task == TASK_TABLE)
            pm_block_table(&one, read->text);
        else if (task == TASK_FORMULA)
            pm_block_formula(&one, read->text);
        else
            pm_block_text(&one, read->text, level);
        if (out->size && one.size)
            pm_buf_append(out, "\n\n", 2);
        pm_buf_append(out, one.data, one.size);
    }
    pm_buf_free(&one);
}

static void set_error(struct pm_out_region *out, struct pm_arena *arena, const char *code, const char *text)
{
    out->error_code = code;
    out->error_text = pm_arena_text(arena, text, strnlen(text, PM_LIMIT_ERROR_TEXT - 100));
}

static void format_region(const struct pm_crop_index *index, uint32_t region, struct slice *s,
                          struct pm_prose_lists *lists, struct pm_arena *arena, struct pm_out_region *out)
{
    const struct pm_page_region *r = &index->page->regions[region];
    struct pm_prose_lists before = goes_on_below(index->page, region) ? *lists : (struct pm_prose_lists){0};
    *lists = (struct pm_prose_lists){0};
    *out = (struct pm_out_region){
        .label = r->label, .content = "", .image_blob = "", .error_code = "", .error_text = ""};
    memcpy(out->box, r->box, sizeof out->box);
    out->level = pm_heading_level(r);
    if (!s->count) { /* a picture, or a region in which nothing was to be read */
        out->confidence = unit(r->score);
        return;
    }
    uint32_t task = index->page->crops[s->keys[0].index].task;
    bool is_block = !strcmp(index->page->region_kind ? index->page->region_kind : "", "block") ||
                    task == TASK_TABLE || task == TASK_FORMULA;
    read_slice(index, s, !is_block, arena, out);
    if (s->failed == s->count) {
        set_error(out, arena, s->code, s->why);
        return;
    }
    struct pm_buf text = {0}, why = {0};
    if (is_block)
        format_blocks(&text, index, s, out->level);
    else
        format_lines(&text, index, region, &before, arena, out);
    if (text.size > CONTENT_LIMIT) {
        pm_buf_printf(&why, "the text is %zu bytes, the limit of a region is %u", text.size, CONTENT_LIMIT);
        set_error(out, arena, "limit", (const char *)why.data);
    } else {
        out->content = pm_arena_text(arena, text.data ? (const char *)text.data : "", text.size);
        if (!s->failed && (r->label == PM_LABEL_LIST || r->label == PM_LABEL_TEXT) && !is_block)
            *lists = before;
        if (s->failed) {
            pm_buf_printf(&why, "%u of %u %s could not be read: %s", s->failed, s->count,
                          is_block ? "parts" : "lines", s->why);
            set_error(out, arena, s->code, (const char *)why.data);
        }
        out->was_cut = s->was_cut;
    }
    pm_buf_free(&text);
    pm_buf_free(&why);
}

/* ---- paragraphs over breaks ------------------------------------------------------------------------------
 */

static float line_height(const struct pm_out_line *line)
{
    const float *q = line->quad;
    return (hypotf(q[6] - q[0], q[7] - q[1]) + hypotf(q[4] - q[2], q[5] - q[3])) / 2;
}

float pm_region_type_px(const struct pm_out_region *r)
{
    float sum = 0;
    for (uint32_t i = 0; i < r->line_count; i++)
        sum += line_height(&r->lines[i]);
    return r->line_count ? sum / (float)r->line_count : 0;
}

static bool is_running_text(uint32_t label)
{
    return label == PM_LABEL_TEXT || label == PM_LABEL_ABSTRACT || label == PM_LABEL_LIST ||
           label == PM_LABEL_REFERENCE_CONTENT;
}

bool pm_region_goes_on(const struct pm_out_region *region, const struct pm_out_region *next)
{
    if (next->label != region->label && !(region->label == PM_LABEL_LIST && next->label == PM_LABEL_TEXT))
        return false;
    if (*next->error_code || !pm_text_is_lower(pm_text_first(next->content, strlen(next->content))))
        return false;
    float a = pm_region_type_px(region), b = pm_region_type_px(next);
    return a <= 0 || b <= 0 || (a < 1.2f * b && b < 1.2f * a);
}

/* Does the region end in the middle of a sentence, at the end of a full line? */
static bool ends_open(const struct pm_out_region *r)
{
    size_t size = strlen(r->content);
    if (!is_running_text(r->label) || !size || *r->error_code || pm_text_ends_sentence(r->content, size))
        return false;
    char last = r->content[size - 1];
    if (strstr(r->content, PM_PROSE_HARD_BREAK)) /* an address, a signature */
        return false;
    if (last == '-')
        return true;
    if (strchr(";`>$", last) || r->line_count < 2)
        return false;
    float right = -1e9f;
    for (uint32_t i = 0; i < r->line_count; i++)
        right = fmaxf(right, fmaxf(r->lines[i].quad[2], r->lines[i].quad[4]));
    const struct pm_out_line *line = &r->lines[r->line_count - 1];
    return right - fmaxf(line->quad[2], line->quad[4]) < 3 * line_height(line);
}

/* A word that was broken at the end of a line: "infor-". */
static bool ends_in_word(const struct pm_out_region *r)
{
    size_t size = strlen(r->content);
    return size > 2 && r->content[size - 1] == '-' && pm_text_is_lower((uint8_t)r->content[size - 2]);
}

/* Inside a page only what follows directly can be the other half: a footnote that stands between would be
 * read after both. At the end of the page it is, as everything there. */
static void mark_continuations(struct pm_out_page *page)
{
    for (uint32_t i = 0; i < page->region_count; i++) {
        struct pm_out_region *r = &page->regions[i];
        if (!ends_open(r))
            continue;
        uint32_t k = i + 1;
        bool has_note = false;
        for (; k < page->region_count && pm_label_is_furniture(page->regions[k].label); k++)
            has_note |=
                page->regions[k].label == PM_LABEL_FOOTNOTE || page->regions[k].label == PM_LABEL_ASIDE_TEXT;
        if (k == page->region_count) {
            r->continues = true; /* perhaps on the next page: its reader asks pm_region_goes_on */
            continue;
        }
        const struct pm_out_region *next = &page->regions[k];
        bool is_column_break = next->box[1] < r->box[3] - pm_region_type_px(r);
        r->continues =
            !has_note && (is_column_break || (k == i + 1 && ends_in_word(r))) && pm_region_goes_on(r, next);
    }
}

/* ---- the page
 * ---------------------------------------------------------------------------------------------- */

int pm_format_page(const struct pm_page *page, const struct pm_region_text *texts, uint32_t text_count,
                   struct pm_arena *arena, struct pm_out_page *out, struct pm_error *err)
{
    *out = (struct pm_out_page){.page = page->page,
                                .width = page->width,
                                .height = page->height,
                                .dpi = page->dpi,
                                .turned_degrees = page->turned_degrees,
                                .skew_degrees = page->skew_degrees,
                                .error_code = "",
                                .error_text = ""};
    const struct pm_region_text **reads =
        pm_arena_alloc(arena, ((size_t)page->crop_count + 1) * sizeof *reads);
    int rc = check_page(page, err);
    if (!rc)
        rc = match_texts(page, texts, text_count, reads, err);
    if (rc)
        return rc;
    struct pm_crop_index index;
    pm_crop_index_make(page, reads, arena, &index);
    out->regions = pm_arena_alloc(arena, ((size_t)page->region_count + 1) * sizeof *out->regions);
    out->region_count = page->region_count;
    struct pm_prose_lists lists = {0};
    uint32_t at = 0;
    for (uint32_t i = 0; i < page->region_count; i++) {
        struct slice s = {.keys = index.keys + at};
        while (at < index.count && index.keys[at].region == i)
            s.count++, at++;
        format_region(&index, i, &s, &lists, arena, &out->regions[i]);
    }
    mark_continuations(out);
    return 0;
}

float pm_page_confidence(const struct pm_out_page *page, uint64_t *characters_out)
{
    double sum = 0, characters = 0;
    for (uint32_t i = 0; i < page->region_count; i++) {
        const struct pm_out_region *r = &page->regions[i];
        size_t n = pm_text_points(r->content, strlen(r->content));
        sum += (double)r->confidence * (double)n;
        characters += (double)n;
    }
    if (characters_out)
        *characters_out = (uint64_t)characters;
    return characters > 0 ? (float)(sum / characters) : 0;
}
