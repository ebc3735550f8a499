/* From a scan's layout to the page record and the crops of its sheet. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/ppocr/crop.h"
#include "layoutd/scan.h"

#define READER_HEIGHT 48  /* px: the line reader's input; costs are its width */
#define BLOCK_MARGIN  4   /* px around a block */
#define BLOCK_CELL    784 /* px of a block that cost one unit: a patch of 28 x 28 */

static void put_quad(float out[8], const struct pm_quad *q)
{
    for (int i = 0; i < 4; i++) {
        out[2 * i] = q->x[i];
        out[2 * i + 1] = q->y[i];
    }
}

static void put_box(float out[4], const struct pm_rect *r, const struct pm_scan *scan)
{
    float w = (float)scan->width, h = (float)scan->height;
    out[0] = fminf(fmaxf(r->left, 0), w);
    out[1] = fminf(fmaxf(r->top, 0), h);
    out[2] = fminf(fmaxf(r->right, out[0]), w);
    out[3] = fminf(fmaxf(r->bottom, out[1]), h);
}

static uint32_t line_cost(const struct pm_image *image)
{
    long w = ((long)READER_HEIGHT * image->width_px + image->height_px - 1) / image->height_px;
    return (uint32_t)(w < 1 ? 1 : w);
}

/* A rectangle of the upright page; borrowed from the picture when it stands straight. */
static int cut_rect(const struct pm_scan *scan, struct pm_rect r, struct pm_image *out, struct pm_error *err)
{
    struct pm_map3 same = pm_map3_identity();
    int left = (int)fmaxf(0, floorf(r.left)), top = (int)fmaxf(0, floorf(r.top));
    int right = (int)fminf((float)scan->width, ceilf(r.right)),
        bottom = (int)fminf((float)scan->height, ceilf(r.bottom));
    if (right <= left || bottom <= top)
        return pm_fail(err, PM_ELIMIT, "a region without area");
    if (!memcmp(&same, &scan->to_picture, sizeof same)) {
        *out = pm_image_view(scan->picture, left, top, right - left, bottom - top);
        return 0;
    }
    struct pm_map3 shift = {{1, 0, left, 0, 1, top, 0, 0, 1}};
    struct pm_map3 map = pm_map3_multiply(&scan->to_picture, &shift);
    return pm_image_warp(scan->picture, &map, right - left, bottom - top, scan->paper, out, err);
}

struct cutting {
    const struct pm_scan *scan;
    struct pm_crops *out;
    uint32_t capacity;
};

static struct pm_page_crop *add_crop(struct cutting *c, const struct pm_image *image, uint32_t task,
                                     uint32_t cost)
{
    struct pm_crops *o = c->out;
    if (o->count == c->capacity) {
        c->capacity = c->capacity ? c->capacity * 2 : 64;
        o->sheet = pm_xrealloc(o->sheet, sizeof *o->sheet * c->capacity);
        o->costs = pm_xrealloc(o->costs, sizeof *o->costs * c->capacity);
        o->crops = pm_xrealloc(o->crops, sizeof *o->crops * c->capacity);
    }
    o->sheet[o->count] = (struct pm_sheet_crop){.image = *image, .task = task};
    o->costs[o->count] = cost;
    o->crops[o->count] = (struct pm_page_crop){.region = o->page.region_count, .task = task};
    return &o->crops[o->count++];
}

static int cut_line(struct cutting *c, const struct pm_layout_line *place, struct pm_error *err)
{
    const struct pm_scan *scan = c->scan;
    const struct pm_line *l = &scan->lines.items[place->line];
    struct pm_quad q = pm_quad_map(&l->quad, &scan->to_picture);
    struct pm_image image = {0};
    int rc = pm_crop_quad(scan->picture, &q, l->is_vertical, &image, err);
    if (rc == PM_ELIMIT || rc == PM_EINVAL)
        return 0; /* a sliver that no reader can read */
    if (rc)
        return rc;
    struct pm_page_crop *crop = add_crop(c, &image, PM_TASK_TEXT, line_cost(&image));
    crop->cell = l->table >= 0 ? (uint32_t)l->cell + 1 : 0;
    crop->height_px = l->height;
    crop->score = l->score;
    crop->row = place->row;
    put_quad(crop->quad, &l->quad);
    return 0;
}

static int cut_block(struct cutting *c, const struct pm_layout_region *r, struct pm_error *err)
{
    bool is_picture = r->picture >= 0;
    float margin = is_picture ? 0 : BLOCK_MARGIN;
    struct pm_rect box = {r->box.left - margin, r->box.top - margin, r->box.right + margin,
                          r->box.bottom + margin};
    struct pm_image image = {0};
    int rc = cut_rect(c->scan, box, &image, err);
    if (rc)
        return rc == PM_ELIMIT ? 0 : rc;
    uint32_t task = is_picture                             ? PM_SHEET_PICTURE
                    : r->label == PM_LABEL_TABLE           ? PM_TASK_TABLE
                    : r->label == PM_LABEL_DISPLAY_FORMULA ? PM_TASK_FORMULA
                                                           : PM_TASK_TEXT;
    uint32_t cost =
        is_picture ? 0 : 1 + (uint32_t)((uint64_t)image.width_px * (uint64_t)image.height_px / BLOCK_CELL);
    struct pm_page_crop *crop = add_crop(c, &image, task, cost);
    struct pm_quad q = pm_quad_of_rect(r->box);
    put_quad(crop->quad, &q);
    crop->score = r->score;
    return 0;
}

static int cut_region(struct cutting *c, const struct pm_layout_region *r, enum pm_region_kind kind,
                      struct pm_error *err)
{
    struct pm_crops *o = c->out;
    uint32_t before = o->count;
    int rc = 0;
    if (r->picture >= 0 || (kind == PM_REGION_BLOCK && r->count))
        rc = cut_block(c, r, err);
    else
        for (uint32_t i = 0; i < r->count && !rc && o->count < PM_SHEET_MAX_CROPS; i++)
            rc = cut_line(c, &c->scan->layout.lines[r->first + i], err);
    if (rc || (o->count == before && r->table < 0))
        return rc; /* nothing in it can be read */
    struct pm_page_region *out = &o->regions[o->page.region_count++];
    *out =
        (struct pm_page_region){.label = r->label, .level = r->level, .score = r->score, .column = r->column};
    put_box(out->box, &r->box, c->scan);
    if (r->table >= 0) {
        const struct pm_table *t = &c->scan->tables.items[r->table];
        out->cells = t->cells;
        out->cell_count = t->cell_count;
        out->table_rows = t->rows;
        out->table_columns = t->columns;
    }
    return 0;
}

/* The page as one region. */
static int cut_whole(struct cutting *c, enum pm_task task, struct pm_error *err)
{
    static const uint32_t labels[] = {[PM_TASK_TEXT] = PM_LABEL_TEXT,
                                      [PM_TASK_TABLE] = PM_LABEL_TABLE,
                                      [PM_TASK_FORMULA] = PM_LABEL_DISPLAY_FORMULA};
    struct pm_layout_region whole = {.label = labels[task],
                                     .score = 1,
                                     .box = {0, 0, (float)c->scan->width, (float)c->scan->height},
                                     .count = 1,
                                     .table = -1,
                                     .picture = -1};
    return cut_region(c, &whole, PM_REGION_BLOCK, err);
}

int pm_crops_cut(const struct pm_scan *scan, const struct pm_scan_options *options, struct pm_crops *out,
                 struct pm_error *err)
{
    *out = (struct pm_crops){0};
    struct cutting c = {scan, out, 0};
    struct pm_page *page = &out->page;
    *page = (struct pm_page){.page = options->page,
                             .width = scan->width,
                             .height = scan->height,
                             .dpi = options->dpi,
                             .turned_degrees = scan->turned_degrees,
                             .skew_degrees = scan->skew_degrees,
                             .source_width = scan->source_width,
                             .source_height = scan->source_height,
                             .region_kind = options->region_kind == PM_REGION_BLOCK ? "block" : "line"};
    struct pm_quad all = pm_quad_of_rect((struct pm_rect){0, 0, (float)scan->width, (float)scan->height});
    all = pm_quad_map(&all, &scan->to_source);
    put_quad(page->source_quad, &all);
    out->regions = pm_xalloc(sizeof *out->regions * (scan->layout.region_count + 1u));
    int rc = options->is_whole ? cut_whole(&c, options->whole_task, err) : 0;
    uint32_t count = options->is_whole ? 0 : scan->layout.region_count;
    for (uint32_t i = 0; i < count && !rc && out->count < PM_SHEET_MAX_CROPS; i++)
        rc = cut_region(&c, &scan->layout.regions[i], options->region_kind, err);
    if (rc) {
        pm_crops_free(out);
        return rc;
    }
    page->regions = out->regions;
    page->crops = out->crops;
    page->crop_count = out->count;
    return 0;
}

void pm_crops_free(struct pm_crops *crops)
{
    for (uint32_t i = 0; i < crops->count; i++)
        pm_image_free(&crops->sheet[i].image);
    free(crops->sheet);
    free(crops->costs);
    free(crops->crops);
    free(crops->regions);
    *crops = (struct pm_crops){0};
}
