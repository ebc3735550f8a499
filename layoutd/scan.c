#include "layoutd/scan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "layoutd/ink.h"
#include "layoutd/pagefind.h"
#include "layoutd/pictures.h"
#include "layoutd/rescue.h"

#define DETECT_PX     960   /* longer side that the detector sees ... */
#define DETECT_BIG_PX 1920  /* ... and for pages of small type */
#define SMALL_TYPE_PX 11.5f /* median height of boxes, in detector pixels, below which type is small */
#define SKEW_MIN      0.05f /* degrees: less is not worth a turn */
#define SKEW_BIG      3.0f  /* degrees: more and the lines are detected again on a straightened picture */
#define SKEW_MAX      20.0f

struct scanning {
    const struct pm_image *image;
    const struct pm_scan_options *options;
    const struct pm_scan_tools *tools;
    struct pm_scan *scan;
    struct pm_det_box *boxes;
    size_t box_count;
};

static int report(const struct scanning *s, unsigned permille, struct pm_error *err)
{
    if (s->tools->progress && s->tools->progress(s->tools->progress_context, permille))
        return pm_fail(err, PM_ECANCELLED, "stopped as asked");
    return 0;
}

static int detect(struct scanning *s, const struct pm_image *picture, struct pm_error *err)
{
    int longer = picture->width_px > picture->height_px ? picture->width_px : picture->height_px;
    free(s->boxes);
    s->boxes = NULL;
    s->box_count = 0;
    int rc = s->tools->detect(s->tools->context, picture, DETECT_PX, &s->boxes, &s->box_count, err);
    if (rc || longer <= DETECT_PX || s->box_count < 6)
        return rc;
    float *heights = pm_xalloc(sizeof *heights * s->box_count);
    for (size_t i = 0; i < s->box_count; i++)
        heights[i] = fminf(pm_quad_height(&s->boxes[i].quad), pm_quad_length(&s->boxes[i].quad)) * DETECT_PX /
                     (float)longer;
    float typical = pm_quantile(heights, (int)s->box_count, 0.5f);
    free(heights);
    if (typical >= SMALL_TYPE_PX)
        return 0;
    free(s->boxes);
    s->boxes = NULL;
    s->box_count = 0;
    return s->tools->detect(s->tools->context, picture, DETECT_BIG_PX, &s->boxes, &s->box_count, err);
}

/* Makes the picture that crops come from: width x height, taken from the source through the map. */
static int redraw(struct scanning *s, const struct pm_map3 *to_source, int width, int height, uint8_t fill,
                  struct pm_error *err)
{
    struct pm_image fresh = {0};
    int rc = pm_image_warp(s->image, to_source, width, height, fill, &fresh, err);
    if (rc)
        return rc;
    pm_image_free(&s->scan->turned);
    s->scan->turned = fresh;
    s->scan->picture = &s->scan->turned;
    s->scan->to_source = *to_source;
    return 0;
}

/* Cuts the page out of its surround when there is one. */
static int find_page(struct scanning *s, struct pm_error *err)
{
    struct pm_image grey;
    struct pm_quad q;
    struct pm_map3 map;
    int rc = pm_grey_of(s->image, &grey, err);
    if (rc)
        return rc;
    bool found = pm_page_find(&grey, &q);
    pm_image_free(&grey);
    if (!found)
        return 0;
    float width = fmaxf(hypotf(q.x[1] - q.x[0], q.y[1] - q.y[0]), hypotf(q.x[2] - q.x[3], q.y[2] - q.y[3]));
    float height = fmaxf(hypotf(q.x[3] - q.x[0], q.y[3] - q.y[0]), hypotf(q.x[2] - q.x[1], q.y[2] - q.y[1]));
    if (width < 100 || height < 100 || !pm_map3_from_quad(&q, width, height, &map))
        return 0;
    return redraw(s, &map, (int)(width + 0.5f), (int)(height + 0.5f), 255, err);
}

static int turn(struct scanning *s, struct pm_error *err)
{
    struct pm_scan *scan = s->scan;
    int degrees = 0;
    if (s->options->no_orientation || !s->tools->is_turned)
        return 0;
    int rc = pm_turn_of_lines(scan->picture, s->boxes, s->box_count, s->tools->is_turned, s->tools->context,
                              &degrees, err);
    if (rc || !degrees)
        return rc;
    struct pm_image fresh = {0};
    rc = pm_image_turn(scan->picture, degrees, &fresh, err);
    if (rc)
        return rc;
    double w = fresh.width_px, h = fresh.height_px;
    struct pm_map3 back = {{0}};
    const double turns[3][9] = {
        {0, 1, 0, -1, 0, w, 0, 0, 1}, {-1, 0, w, 0, -1, h, 0, 0, 1}, {0, -1, h, 1, 0, 0, 0, 0, 1}};
    memcpy(back.m, turns[degrees / 90 - 1], sizeof back.m);
    scan->to_source = pm_map3_multiply(&scan->to_source, &back);
    pm_image_free(&scan->turned);
    scan->turned = fresh;
    scan->picture = &scan->turned;
    scan->turned_degrees = (uint32_t)degrees;
    return detect(s, scan->picture, err);
}

/* Size of the upright page that holds all of a picture turned by `degrees`. */
static void upright_size(const struct pm_image *picture, float degrees, uint32_t *width_out,
                         uint32_t *height_out)
{
    double c = fabs(cos(degrees * 3.14159265358979 / 180)), s = fabs(sin(degrees * 3.14159265358979 / 180));
    *width_out = (uint32_t)ceil(picture->width_px * c + picture->height_px * s - 0.01);
    *height_out = (uint32_t)ceil(picture->width_px * s + picture->height_px * c - 0.01);
}

/* The upright page is the picture turned back by that much. */
static void set_skew(struct pm_scan *scan, float degrees)
{
    scan->skew_degrees = scan->drawn_degrees + degrees;
    upright_size(scan->picture, degrees, &scan->width, &scan->height);
    scan->to_picture = degrees == 0 ? pm_map3_identity()
                                    : pm_map3_rotation(degrees, scan->width, scan->height,
                                                       scan->picture->width_px, scan->picture->height_px);
}

/* Brightness of the paper: what a page is filled with where the picture ends. */
static uint8_t paper_of(const struct pm_image *grey)
{
    long histogram[256] = {0}, n = 0;
    for (int y = 0; y < grey->height_px; y += 8)
        for (int x = 0; x < grey->width_px; x += 8, n++)
            histogram[grey->pixels[(size_t)y * grey->stride_bytes + (size_t)x]]++;
    int level = 255;
    for (long above = n / 4; level > 0 && (above -= histogram[level]) > 0; level--)
        ;
    return (uint8_t)level;
}

static int straighten(struct scanning *s, const struct pm_image *grey, struct pm_error *err)
{
    struct pm_scan *scan = s->scan;
    size_t lines = 0;
    float skew = 0;
    set_skew(scan, 0);
    if (s->options->no_deskew)
        return 0;
    skew = pm_skew_of_boxes(s->boxes, s->box_count, &lines);
    if (lines < 3 && s->box_count) {
        float from_ink;
        if (pm_skew_of_ink(grey, &from_ink, err) && (!lines || fabsf(from_ink - skew) < 1))
            skew = from_ink;
    }
    if (fabsf(skew) < SKEW_MIN || fabsf(skew) > SKEW_MAX)
        return 0;
    set_skew(scan, skew);
    if (fabsf(skew) <= SKEW_BIG)
        return 0;
    struct pm_map3 to_source = pm_map3_multiply(&scan->to_source, &scan->to_picture);
    int rc = redraw(s, &to_source, (int)scan->width, (int)scan->height, paper_of(grey), err);
    if (rc)
        return rc;
    scan->drawn_degrees = skew;
    set_skew(scan, 0);
    return detect(s, scan->picture, err);
}

/* Lines and ink of the upright page. */
static int upright_ink(struct scanning *s, const struct pm_image *grey, struct pm_ink *ink,
                       struct pm_error *err)
{
    struct pm_scan *scan = s->scan;
    struct pm_map3 to_upright;
    if (!pm_map3_invert(&scan->to_picture, &to_upright))
        return pm_fail(err, PM_EINTERNAL, "the page's turn has no inverse");
    pm_ink_free(ink);
    pm_lines_free(&scan->lines);
    pm_lines_add(&scan->lines, s->boxes, s->box_count, &to_upright);
    return pm_ink_find(grey, &scan->to_picture, (int)scan->width, (int)scan->height, ink, err);
}

/* Ink, rules, tables, pictures, order. */
static int lay_out(struct scanning *s, const struct pm_image *grey, struct pm_error *err)
{
    struct pm_scan *scan = s->scan;
    struct pm_ink ink = {0};
    int rc = upright_ink(s, grey, &ink, err);
    if (!rc && !s->options->no_deskew) {
        /* the ink knows the skew to a hundredth of a degree, the boxes to a tenth */
        float lean = pm_lines_lean(&scan->lines, &ink);
        if (fabsf(lean) >= SKEW_MIN) {
            set_skew(scan, scan->skew_degrees - scan->drawn_degrees + lean);
            rc = upright_ink(s, grey, &ink, err);
        }
    }
    if (rc) {
        pm_ink_free(&ink);
        return rc;
    }
    scan->paper = ink.paper;
    float type_px = pm_lines_typical_height(&scan->lines, 0.012f * (float)scan->height);
    rc = pm_rules_find(&ink, &scan->lines, type_px, &scan->rules, err);
    if (!rc)
        rc = pm_rescue_lines(&ink, &scan->lines, err);
    if (!rc) {
        pm_lines_measure(&scan->lines, &ink);
        pm_tables_find(&scan->rules, &scan->lines, type_px, &scan->tables);
        if (!s->options->no_images)
            pm_pictures_find(&ink, &scan->lines, &scan->tables, type_px, &scan->pictures,
                             &scan->picture_count);
        struct pm_layout_input input = {(float)scan->width, (float)scan->height, s->options->page,
                                        &scan->lines,       &scan->rules,        &scan->tables,
                                        scan->pictures,     scan->picture_count};
        pm_layout_find(&input, &scan->layout);
    }
    pm_ink_free(&ink);
    return rc;
}

int pm_scan_page(const struct pm_image *image, const struct pm_scan_options *options,
                 const struct pm_scan_tools *tools, struct pm_scan *out, struct pm_error *err)
{
    *out = (struct pm_scan){.picture = image,
                            .to_source = pm_map3_identity(),
                            .to_picture = pm_map3_identity(),
                            .source_width = (uint32_t)image->width_px,
                            .source_height = (uint32_t)image->height_px,
                            .paper = 255};
    struct scanning s = {.image = image, .options = options, .tools = tools, .scan = out};
    struct pm_image grey = {0};
    int rc = options->no_orientation ? 0 : find_page(&s, err);
    if (!rc)
        rc = report(&s, 100, err);
    if (!rc)
        rc = detect(&s, out->picture, err);
    if (!rc)
        rc = report(&s, 600, err);
    if (!rc)
        rc = turn(&s, err);
    if (!rc)
        rc = report(&s, 700, err);
    if (!rc)
        rc = pm_grey_of(out->picture, &grey, err);
    const uint8_t *before = out->picture->pixels;
    if (!rc)
        rc = straighten(&s, &grey, err);
    if (!rc && out->picture->pixels != before) {
        pm_image_free(&grey);
        rc = pm_grey_of(out->picture, &grey, err);
    }
    if (!rc)
        rc = lay_out(&s, &grey, err);
    if (!rc)
        out->to_source = pm_map3_multiply(&out->to_source, &out->to_picture);
    if (!rc)
        rc = report(&s, 850, err);
    pm_image_free(&grey);
    free(s.boxes);
    if (rc)
        pm_scan_free(out);
    return rc;
}

void pm_scan_free(struct pm_scan *scan)
{
    pm_image_free(&scan->turned);
    pm_lines_free(&scan->lines);
    pm_rules_free(&scan->rules);
    pm_tables_free(&scan->tables);
    free(scan->pictures);
    pm_layout_free(&scan->layout);
    *scan = (struct pm_scan){0};
}
