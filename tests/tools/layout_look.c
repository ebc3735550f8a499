/* Shows what the layout makes of a page: regions and lines drawn over the picture, and a JSON of them.
 *
 *   layout-look PAGE.png [--model DIR | --boxes FILE.json] [--draw OUT.png] [--json OUT.json] [--page N]
 * [--time]
 *
 * FILE.json holds {"lines": [{"quad": [8 numbers], "score": s}, ...]}: boxes found elsewhere, in pixels of
 * the picture. */
#include <jansson.h>
#include <leptonica/allheaders.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "layoutd/ink.h"
#include "layoutd/scan.h"

struct source {
    json_t *boxes;
    struct pm_det *det;
    struct pm_cls *cls;
    int64_t detect_us;
};

static int detect(void *context, const struct pm_image *image, int limit_px, struct pm_det_box **out,
                  size_t *count, struct pm_error *err)
{
    struct source *s = context;
    int64_t start = pm_clock_us();
    int rc = 0;
    if (s->boxes) {
        *count = json_array_size(s->boxes);
        *out = pm_xalloc(sizeof **out * (*count + 1));
        for (size_t i = 0; i < *count; i++) {
            json_t *line = json_array_get(s->boxes, i), *quad = json_object_get(line, "quad");
            for (size_t k = 0; k < 4; k++) {
                (*out)[i].quad.x[k] = (float)json_number_value(json_array_get(quad, 2 * k));
                (*out)[i].quad.y[k] = (float)json_number_value(json_array_get(quad, 2 * k + 1));
            }
            (*out)[i].score = (float)json_number_value(json_object_get(line, "score"));
        }
    } else {
        struct pm_det_params params = pm_det_params_default();
        rc = s->det ? pm_det_run(s->det, image, limit_px, &params, out, count, err)
                    : pm_fail(err, PM_EINVAL, "give --model or --boxes");
    }
    s->detect_us += pm_clock_us() - start;
    return rc;
}

static int is_turned(void *context, const struct pm_image *line, float *turned_out, struct pm_error *err)
{
    return pm_cls_run(((struct source *)context)->cls, line, turned_out, err);
}

static int read_picture(const char *path, struct pm_image *out, struct pm_error *err)
{
    PIX *any = pixRead(path), *pix = any ? pixConvertTo8Or32(any, L_CLONE, 0) : NULL;
    pixDestroy(&any);
    if (!pix)
        return pm_fail(err, PM_EFORMAT, "%s cannot be read as a picture", path);
    int channels = pixGetDepth(pix) == 32 ? 3 : 1, w = pixGetWidth(pix), h = pixGetHeight(pix);
    int rc = pm_image_alloc(w, h, channels, out, err);
    for (int y = 0; !rc && y < h; y++) {
        uint8_t *to = out->owned + (size_t)y * out->stride_bytes;
        for (int x = 0; x < w; x++) {
            l_uint32 v;
            pixGetPixel(pix, x, y, &v);
            if (channels == 1)
                to[x] = (uint8_t)v;
            else
                to[3 * x] = (uint8_t)(v >> 8), to[3 * x + 1] = (uint8_t)(v >> 16),
                       to[3 * x + 2] = (uint8_t)(v >> 24);
        }
    }
    pixDestroy(&pix);
    return rc;
}

static void outline(PIX *pix, const float q[8], int width, uint32_t rgb)
{
    for (int i = 0; i < 4; i++) {
        int j = (i + 1) % 4;
        pixRenderLineArb(pix, (int)q[2 * i], (int)q[2 * i + 1], (int)q[2 * j], (int)q[2 * j + 1], width,
                         (l_uint8)(rgb >> 16), (l_uint8)(rgb >> 8), (l_uint8)rgb);
    }
}

static uint32_t colour(uint32_t label)
{
    switch (label) {
    case PM_LABEL_TEXT:
        return 0x2060e0;
    case PM_LABEL_PARAGRAPH_TITLE:
    case PM_LABEL_DOC_TITLE:
        return 0xe02020;
    case PM_LABEL_LIST:
        return 0x20a040;
    case PM_LABEL_TABLE:
        return 0xc000c0;
    case PM_LABEL_IMAGE:
        return 0xe08000;
    case PM_LABEL_CODE:
        return 0x008080;
    case PM_LABEL_FOOTNOTE:
        return 0x806000;
    default:
        return 0x808080;
    }
}

static int draw(const char *path, const struct pm_scan *scan, const struct pm_crops *crops,
                struct pm_error *err)
{
    struct pm_image upright = {0};
    int rc = pm_image_warp(scan->picture, &scan->to_picture, (int)scan->width, (int)scan->height, 255,
                           &upright, err);
    if (rc)
        return rc;
    PIX *pix = pixCreate(upright.width_px, upright.height_px, 32);
    for (int y = 0; y < upright.height_px; y++)
        for (int x = 0; x < upright.width_px; x++) {
            const uint8_t *p =
                upright.pixels + (size_t)y * upright.stride_bytes + (size_t)(x * upright.channels);
            int b = p[0], g = p[upright.channels / 2], r = p[upright.channels - 1];
            pixSetRGBPixel(pix, x, y, 128 + r / 2, 128 + g / 2, 128 + b / 2);
        }
    char number[96];
    L_BMF *font = bmfCreate(NULL, 6);
    for (uint32_t i = 0; i < crops->count; i++)
        outline(pix, crops->crops[i].quad, 1, crops->crops[i].row & 1 ? 0xb0b0ff : 0x90d090);
    for (uint32_t i = 0; i < crops->page.region_count; i++) {
        const struct pm_page_region *r = &crops->page.regions[i];
        struct pm_quad q =
            pm_quad_of_rect((struct pm_rect){r->box[0] - 3, r->box[1], r->box[2] + 3, r->box[3]});
        float corners[8];
        for (int k = 0; k < 4; k++)
            corners[2 * k] = q.x[k], corners[2 * k + 1] = q.y[k];
        for (uint32_t c = 0; c < r->cell_count; c++) {
            const float *b = r->cells[c].box;
            outline(pix, (float[]){b[0], b[1], b[2], b[1], b[2], b[3], b[0], b[3]}, 1, 0xff60ff);
        }
        outline(pix, corners, 2, colour(r->label));
        snprintf(number, sizeof number, "%u %s%s%.0u c%u", i, pm_label_name((enum pm_label)r->label),
                 r->level ? " " : "", r->level, r->column);
        if (font)
            pixSetTextline(pix, font, number, 0xff000000, (int)fmaxf(0, r->box[0] - 60), (int)r->box[1] + 12,
                           NULL, NULL);
    }
    bmfDestroy(&font);
    rc = pixWrite(path, pix, IFF_PNG) ? pm_fail(err, PM_EIO, "cannot write %s", path) : 0;
    pixDestroy(&pix);
    pm_image_free(&upright);
    return rc;
}

static int write_json(const char *path, const struct pm_scan *scan, const struct pm_crops *crops,
                      struct pm_error *err)
{
    json_t *regions = json_array(), *list = json_array();
    for (uint32_t i = 0; i < crops->page.region_count; i++) {
        const struct pm_page_region *r = &crops->page.regions[i];
        json_array_append_new(regions, json_pack("{s:s, s:i, s:[f,f,f,f], s:i, s:i}", "label",
                                                 pm_label_name((enum pm_label)r->label), "level",
                                                 (int)r->level, "box", (double)r->box[0], (double)r->box[1],
                                                 (double)r->box[2], (double)r->box[3], "cells",
                                                 (int)r->cell_count, "column", (int)r->column));
    }
    for (uint32_t i = 0; i < crops->count; i++) {
        const struct pm_page_crop *c = &crops->crops[i];
        struct pm_quad q;
        for (int k = 0; k < 4; k++)
            q.x[k] = c->quad[2 * k], q.y[k] = c->quad[2 * k + 1];
        struct pm_quad source = pm_quad_map(&q, &scan->to_source);
        json_t *numbers = json_array();
        for (int k = 0; k < 4; k++) {
            json_array_append_new(numbers, json_real((double)source.x[k]));
            json_array_append_new(numbers, json_real((double)source.y[k]));
        }
        json_array_append_new(list, json_pack("{s:i, s:i, s:i, s:i, s:o}", "region", (int)c->region, "row",
                                              (int)c->row, "cell", (int)c->cell, "task", (int)c->task, "quad",
                                              numbers));
    }
    json_t *all = json_pack("{s:i, s:i, s:f, s:i, s:o, s:o}", "width", (int)scan->width, "height",
                            (int)scan->height, "skew", (double)scan->skew_degrees, "turned",
                            (int)scan->turned_degrees, "regions", regions, "crops", list);
    int rc = json_dump_file(all, path, JSON_INDENT(1) | JSON_REAL_PRECISION(7))
                 ? pm_fail(err, PM_EIO, "cannot write %s", path)
                 : 0;
    json_decref(all);
    return rc;
}

static json_t *numbers(const float *values, size_t count, double scale)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_integer((json_int_t)lround((double)values[i] * scale)));
    return list;
}

static json_t *rule_boxes(const struct pm_rule *rules, uint32_t count)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < count; i++)
        json_array_append_new(list, numbers(&rules[i].box.left, 4, 1));
    return list;
}

/* A line: [region, left, top, right, bottom, 10 height, 10 x-height, baseline, 1000 stroke, bullet's right,
 * mono, 10 size, gaps...]. A grid, for lines of code: [line, 100 pitch, 10 marks...]. */
static int write_golden(const char *path, const struct pm_scan *scan, struct pm_error *err)
{
    json_t *lines = json_array(), *regions = json_array(), *pictures = json_array(), *grids = json_array();
    for (uint32_t r = 0; r < scan->layout.region_count; r++) {
        const struct pm_layout_region *region = &scan->layout.regions[r];
        json_array_append_new(regions, json_pack("{s:s, s:i, s:i}", "label", pm_label_name(region->label),
                                                 "level", (int)region->level, "column", (int)region->column));
        for (uint32_t k = 0; k < region->count; k++) {
            const struct pm_line *l = &scan->lines.items[scan->layout.lines[region->first + k].line];
            json_t *row = json_array();
            json_array_append_new(row, json_integer((json_int_t)r));
            json_array_extend(row, numbers(&l->box.left, 4, 1));
            json_array_extend(row, numbers(&l->height, 1, 10));
            json_array_extend(row, numbers(&l->x_height, 1, 10));
            json_array_extend(row, numbers(&l->baseline, 1, 1));
            json_array_extend(row, numbers(&l->stroke, 1, 1000));
            json_array_extend(row, numbers(&l->bullet_right, 1, 1));
            json_array_append_new(row, json_integer(l->is_mono));
            json_array_extend(row, numbers(&l->size, 1, 10));
            for (uint32_t g = 0; g < l->gap_count; g++)
                json_array_extend(row, numbers(&l->gaps[g].left, 2, 1));
            json_array_append_new(lines, row);
            if (region->label != PM_LABEL_CODE)
                continue;
            json_t *grid = json_array();
            json_array_append_new(grid, json_integer((json_int_t)json_array_size(lines) - 1));
            json_array_extend(grid, numbers(&l->mono_pitch, 1, 100));
            json_array_extend(grid, numbers(l->marks, l->mark_count, 10));
            json_array_append_new(grids, grid);
        }
    }
    for (uint32_t i = 0; i < scan->picture_count; i++)
        json_array_append_new(pictures, numbers(&scan->pictures[i].left, 4, 1));
    json_t *all = json_pack("{s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o}", "width", (int)scan->width, "height",
                            (int)scan->height, "regions", regions, "across",
                            rule_boxes(scan->rules.across, scan->rules.across_count), "down",
                            rule_boxes(scan->rules.down, scan->rules.down_count), "pictures", pictures,
                            "grids", grids, "lines", lines);
    int rc = json_dump_file(all, path, JSON_COMPACT) ? pm_fail(err, PM_EIO, "cannot write %s", path) : 0;
    json_decref(all);
    return rc;
}

int main(int argc, char **argv)
{
    const char *picture = NULL, *model = NULL, *boxes = NULL, *drawing = NULL, *out = NULL, *golden = NULL;
    struct pm_scan_options options = {.page = 1};
    struct source source = {0};
    bool timed = false;
    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--time"))
            timed = true;
        else if (argv[i][0] != '-')
            picture = argv[i];
        else if (next && !strcmp(argv[i], "--model"))
            model = argv[++i];
        else if (next && !strcmp(argv[i], "--boxes"))
            boxes = argv[++i];
        else if (next && !strcmp(argv[i], "--draw"))
            drawing = argv[++i];
        else if (next && !strcmp(argv[i], "--json"))
            out = argv[++i];
        else if (next && !strcmp(argv[i], "--golden"))
            golden = argv[++i];
        else if (next && !strcmp(argv[i], "--page"))
            options.page = (uint32_t)atoi(argv[++i]);
        else
            return fprintf(stderr, "layout-look: what is %s?\n", argv[i]), 2;
    }
    struct pm_error err = {0};
    struct pm_image image = {0};
    struct pm_scan scan = {0};
    struct pm_crops crops = {0};
    json_t *file = NULL;
    int rc = picture ? read_picture(picture, &image, &err) : pm_fail(&err, PM_EINVAL, "no picture given");
    if (!rc && boxes) {
        json_error_t at;
        file = json_load_file(boxes, 0, &at);
        source.boxes = file ? json_object_get(file, "lines") : NULL;
        rc = source.boxes ? 0 : pm_fail(&err, PM_EFORMAT, "%s: %s", boxes, at.text);
    }
    struct pm_scan_tools tools = {.detect = detect, .context = &source};
    if (!rc && model && !(rc = pm_det_open(model, 2, &source.det, &err)))
        rc = pm_cls_open(model, 2, &source.cls, &err);
    if (source.cls)
        tools.is_turned = is_turned;
    int64_t t0 = pm_clock_us();
    if (!rc)
        rc = pm_scan_page(&image, &options, &tools, &scan, &err);
    int64_t t1 = pm_clock_us();
    if (!rc)
        rc = pm_crops_cut(&scan, &options, &crops, &err);
    int64_t t2 = pm_clock_us();
    if (!rc && drawing)
        rc = draw(drawing, &scan, &crops, &err);
    if (!rc && out)
        rc = write_json(out, &scan, &crops, &err);
    if (!rc && golden)
        rc = write_golden(golden, &scan, &err);
    if (!rc && timed)
        printf("detect %.1f ms, layout %.1f ms, crops %.1f ms; skew %.3f, turned %u, %u regions, %u crops\n",
               (double)source.detect_us / 1e3, (double)(t1 - t0 - source.detect_us) / 1e3,
               (double)(t2 - t1) / 1e3, (double)scan.skew_degrees, scan.turned_degrees,
               crops.page.region_count, crops.count);
    if (rc)
        fprintf(stderr, "layout-look: %s\n", err.text);
    pm_crops_free(&crops);
    if (scan.source_width)
        pm_scan_free(&scan);
    pm_image_free(&image);
    pm_det_free(&source.det);
    pm_cls_free(&source.cls);
    json_decref(file);
    return rc ? 1 : 0;
}
