/* DB post-processing: a probability map becomes boxes (det.h; pipeline of rapidocr 3.10, default settings).
 *
 * The steps keep the reference's roundings one by one, single precision where it has single precision,
 * because a box may live or die by them: corners are cut to whole pixels before a rectangle is scored and
 * before it is grown. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/geometry/contour.h"
#include "engine/geometry/fill.h"
#include "engine/geometry/hull.h"
#include "engine/geometry/offset.h"
#include "engine/ppocr/det.h"

#define MIN_SIDE       3.0f /* of the rectangle around a blob, in map pixels */
#define MIN_GROWN_SIDE 5.0f /* of the grown one */
#define MIN_BOX_SIDE   3    /* a box has to be longer than this in the picture */
#define MAX_MAP_BYTES  ((size_t)1 << 30)
#define MAX_UNCLIP     100.0f
#define MAX_CANDIDATES (1 << 20)

struct pm_det_params pm_det_params_default(void)
{
    return (struct pm_det_params){.thresh = 0.3f,
                                  .box_thresh = 0.5f,
                                  .unclip_ratio = 1.6f,
                                  .max_candidates = 1000,
                                  .use_dilation = 1,
                                  .score_slow = 0};
}

/* Everything that the steps share, and room that grows to the largest blob and is used for all. */
struct post {
    const float *map;
    int map_width, map_height, image_width, image_height;
    double box_thresh, unclip_ratio;
    int score_slow;
    struct pm_point *hull; /* [hull_capacity] */
    size_t hull_capacity;
    uint8_t *mask; /* [mask_capacity] */
    size_t mask_capacity;
};

/* A parameter as the decimal number that was meant: 1.6f is 1.60000002, which would move roundings of .5. */
static double as_decimal(float value)
{
    return rint((double)value * 1e6) / 1e6;
}

static int grow_room(void **room, size_t *capacity, size_t count, size_t size, struct pm_error *err)
{
    if (count <= *capacity)
        return 0;
    free(*room);
    *room = NULL;
    *capacity = 0;
    int rc = pm_alloc_array(count, size, room, err);
    if (rc == 0)
        *capacity = count;
    return rc;
}

/* ---- bit map ---- */

/* out: [width], 1 where the probability is above the threshold. */
static void threshold_row(const float *restrict row, int width, float thresh, int8_t *restrict out)
{
    for (int x = 0; x < width; x++)
        out[x] = row[x] > thresh;
}

/* out[x] = largest of the 2 x 2 square that ends at x; above, here: [width + 1] with a zero in front. */
static void dilate_row(const int8_t *restrict above, const int8_t *restrict here, int width,
                       int8_t *restrict out)
{
    for (int x = 0; x < width; x++)
        out[x] = (int8_t)(above[x] | above[x + 1] | here[x] | here[x + 1]);
}

/* *marks_out: [height + 2, width + 2] as pm_contours_trace wants it. free(). */
static int make_bitmap(const struct post *p, const struct pm_det_params *params, int8_t **marks_out,
                       struct pm_error *err)
{
    size_t width = (size_t)p->map_width, stride = width + 2, rows = (size_t)p->map_height + 2;
    void *storage;
    int rc = pm_alloc_array(rows * stride + 2 * stride, 1, &storage, err);
    if (rc)
        return rc;
    int8_t *marks = storage, *above = marks + rows * stride, *here = above + stride;
    memset(above, 0, 2 * stride);
    memset(marks, 0, stride);
    memset(marks + (rows - 1) * stride, 0, stride);
    for (int y = 0; y < p->map_height; y++) {
        int8_t *out = marks + ((size_t)y + 1) * stride;
        out[0] = out[width + 1] = 0;
        const float *row = p->map + (size_t)y * width;
        if (!params->use_dilation) {
            threshold_row(row, p->map_width, params->thresh, out + 1);
            continue;
        }
        threshold_row(row, p->map_width, params->thresh, here + 1);
        dilate_row(above, here, p->map_width, out + 1);
        int8_t *swap = above;
        above = here;
        here = swap;
    }
    *marks_out = marks;
    return 0;
}

/* ---- rectangles ---- */

/* Minimum-area rectangle of points with its corners from the top-left one clockwise; the shorter side. */
static int rect_around(struct post *p, const struct pm_point *points, size_t count, struct pm_quad *quad_out,
                       float *side_out, struct pm_error *err)
{
    void *room = p->hull;
    int rc = grow_room(&room, &p->hull_capacity, count, sizeof *p->hull, err);
    p->hull = room;
    struct pm_rotated_rect rect;
    size_t hull_count = 0;
    if (rc == 0)
        rc = pm_hull(points, count, p->hull, &hull_count, err);
    if (rc == 0)
        rc = pm_min_area_rect(p->hull, hull_count, &rect, err);
    if (rc)
        return rc;
    *side_out = rect.width < rect.height ? rect.width : rect.height;

    float x[4], y[4];
    pm_rect_corners(&rect, x, y);
    int order[4] = {0, 1, 2, 3}; /* by x; equal ones keep their order */
    for (int i = 1; i < 4; i++)
        for (int k = i; k > 0 && x[order[k]] < x[order[k - 1]]; k--) {
            int swap = order[k];
            order[k] = order[k - 1];
            order[k - 1] = swap;
        }
    int left_low = y[order[1]] > y[order[0]], right_low = y[order[3]] > y[order[2]];
    int corners[4] = {order[!left_low], order[right_low ? 2 : 3], order[right_low ? 3 : 2], order[left_low]};
    for (int i = 0; i < 4; i++) {
        quad_out->x[i] = x[corners[i]];
        quad_out->y[i] = y[corners[i]];
    }
    return 0;
}

static int clamp_int(double value, int high)
{
    return value < 0 ? 0 : value > high ? high : (int)value;
}

/* Mean of the map over a polygon given relative to (left, top), within a window of width x height. */
static int mean_inside(struct post *p, const struct pm_point *polygon, size_t count, int left, int top,
                       int width, int height, double *mean_out, struct pm_error *err)
{
    size_t bytes = (size_t)width * (size_t)height;
    void *room = p->mask;
    int rc = grow_room(&room, &p->mask_capacity, bytes, 1, err);
    p->mask = room;
    if (rc)
        return rc;
    memset(p->mask, 0, bytes);
    rc = pm_fill_polygon(polygon, count, p->mask, width, height, err);
    if (rc)
        return rc;
    double sum = 0;
    size_t inside = 0;
    for (int y = 0; y < height; y++) {
        const float *row = p->map + ((size_t)top + (size_t)y) * (size_t)p->map_width + left;
        const uint8_t *mask = p->mask + (size_t)y * (size_t)width;
        double row_sum = 0;
        unsigned row_inside = 0;
        for (int x = 0; x < width; x++) {
            row_sum += mask[x] ? (double)row[x] : 0.0;
            row_inside += mask[x];
        }
        sum += row_sum;
        inside += row_inside;
    }
    *mean_out = inside ? sum / (double)inside : 0;
    return 0;
}

static int score_rect(struct post *p, const struct pm_quad *quad, double *score_out, struct pm_error *err)
{
    float low_x = quad->x[0], high_x = low_x, low_y = quad->y[0], high_y = low_y;
    for (int i = 1; i < 4; i++) {
        low_x = fminf(low_x, quad->x[i]);
        high_x = fmaxf(high_x, quad->x[i]);
        low_y = fminf(low_y, quad->y[i]);
        high_y = fmaxf(high_y, quad->y[i]);
    }
    int left = clamp_int(floorf(low_x), p->map_width - 1), right = clamp_int(ceilf(high_x), p->map_width - 1);
    int top = clamp_int(floorf(low_y), p->map_height - 1);
    int bottom = clamp_int(ceilf(high_y), p->map_height - 1);
    struct pm_point polygon[4];
    for (int i = 0; i < 4; i++)
        polygon[i] =
            (struct pm_point){(int32_t)(quad->x[i] - (float)left), (int32_t)(quad->y[i] - (float)top)};
    return mean_inside(p, polygon, 4, left, top, right - left + 1, bottom - top + 1, score_out, err);
}

/* points is shifted in place. */
static int score_contour(struct post *p, struct pm_point *points, size_t count, double *score_out,
                         struct pm_error *err)
{
    struct pm_point low = points[0], high = points[0];
    for (size_t i = 1; i < count; i++) {
        low.x = points[i].x < low.x ? points[i].x : low.x;
        low.y = points[i].y < low.y ? points[i].y : low.y;
        high.x = points[i].x > high.x ? points[i].x : high.x;
        high.y = points[i].y > high.y ? points[i].y : high.y;
    }
    for (size_t i = 0; i < count; i++) {
        points[i].x -= low.x;
        points[i].y -= low.y;
    }
    return mean_inside(p, points, count, low.x, low.y, high.x - low.x + 1, high.y - low.y + 1, score_out,
                       err);
}

/* The rectangle grown by area * ratio / perimeter on all sides, its rectangle again. *side_out is 0 when
 * nothing is left of it. */
static int unclip(struct post *p, struct pm_quad *quad, float *side_out, struct pm_error *err)
{
    *side_out = 0;
    struct pm_point corners[4];
    double area = 0, perimeter = 0;
    for (int i = 0; i < 4; i++) {
        int next = (i + 1) & 3, previous = (i + 3) & 3;
        area += ((double)quad->x[i] - quad->x[0]) * ((double)quad->y[previous] - quad->y[next]);
        double dx = (double)quad->x[next] - quad->x[i], dy = (double)quad->y[next] - quad->y[i];
        perimeter += sqrt(dx * dx + dy * dy);
        corners[i] = (struct pm_point){(int32_t)quad->x[i], (int32_t)quad->y[i]};
    }
    double distance = fabs(area / 2) * p->unclip_ratio / perimeter;
    if (!(distance > 0))
        return 0;
    struct pm_point *grown;
    size_t count;
    int rc = pm_offset_round(corners, 4, distance, &grown, &count, err);
    if (rc == 0 && count > 0)
        rc = rect_around(p, grown, count, quad, side_out, err);
    free(grown);
    return rc;
}

/* ---- boxes in the picture ---- */

static float to_picture(float v, int map_side, int image_side)
{
    float scaled = rintf(v / (float)map_side * (float)image_side);
    return scaled < 0 ? 0 : scaled > (float)image_side ? (float)image_side : scaled;
}

/* Swaps two corners when the second belongs in front. */
static void sort_pair(struct pm_quad *q, int a, int b, const float *key)
{
    if (!(key[b] < key[a]))
        return;
    float x = q->x[a], y = q->y[a];
    q->x[a] = q->x[b];
    q->y[a] = q->y[b];
    q->x[b] = x;
    q->y[b] = y;
}

/* Two corners with the smallest x: the upper is top-left; of the other two the upper is top-right. */
static void order_corners(struct pm_quad *q)
{
    for (int i = 1; i < 4; i++)
        for (int k = i; k > 0; k--)
            sort_pair(q, k - 1, k, q->x);
    sort_pair(q, 0, 1, q->y);
    sort_pair(q, 2, 3, q->y);
    struct pm_quad sorted = *q; /* top-left, bottom-left, top-right, bottom-right */
    static const int place[4] = {0, 2, 3, 1};
    for (int i = 0; i < 4; i++) {
        q->x[i] = sorted.x[place[i]];
        q->y[i] = sorted.y[place[i]];
    }
}

static int side_length(const struct pm_quad *q, int a, int b)
{
    float dx = q->x[a] - q->x[b], dy = q->y[a] - q->y[b];
    return (int)sqrtf(dx * dx + dy * dy);
}

/* From the map to the picture; 0 when the box is too small there. */
static int finish_box(const struct post *p, struct pm_quad *quad)
{
    for (int i = 0; i < 4; i++) {
        quad->x[i] = to_picture(quad->x[i], p->map_width, p->image_width);
        quad->y[i] = to_picture(quad->y[i], p->map_height, p->image_height);
    }
    order_corners(quad);
    for (int i = 0; i < 4; i++) {
        quad->x[i] = fminf(quad->x[i], (float)(p->image_width - 1));
        quad->y[i] = fminf(quad->y[i], (float)(p->image_height - 1));
    }
    return side_length(quad, 0, 1) > MIN_BOX_SIDE && side_length(quad, 0, 3) > MIN_BOX_SIDE;
}

/* One contour; *found_out says whether it became a box. points may be changed. */
static int box_of_contour(struct post *p, struct pm_point *points, size_t count, struct pm_det_box *box_out,
                          int *found_out, struct pm_error *err)
{
    *found_out = 0;
    float side;
    int rc = rect_around(p, points, count, &box_out->quad, &side, err);
    if (rc || side < MIN_SIDE)
        return rc;
    double score;
    rc = p->score_slow ? score_contour(p, points, count, &score, err)
                       : score_rect(p, &box_out->quad, &score, err);
    if (rc || !(score >= p->box_thresh))
        return rc;
    box_out->score = (float)score;
    rc = unclip(p, &box_out->quad, &side, err);
    if (rc || side < MIN_GROWN_SIDE)
        return rc;
    *found_out = finish_box(p, &box_out->quad);
    return 0;
}

static int check_arguments(int map_width, int map_height, int image_width, int image_height,
                           const struct pm_det_params *params, struct pm_error *err)
{
    if (map_width < 1 || map_height < 1 || map_width > PM_IMAGE_MAX_SIDE_PX ||
        map_height > PM_IMAGE_MAX_SIDE_PX || (size_t)map_width * (size_t)map_height > MAX_MAP_BYTES / 4)
        return pm_fail(err, PM_ELIMIT, "text map of %d x %d: sides must be 1 to %d, %zu values at most",
                       map_width, map_height, PM_IMAGE_MAX_SIDE_PX, MAX_MAP_BYTES / 4);
    if (image_width < 1 || image_height < 1 || image_width > PM_IMAGE_MAX_SIDE_PX ||
        image_height > PM_IMAGE_MAX_SIDE_PX)
        return pm_fail(err, PM_ELIMIT, "text boxes in a picture of %d x %d: sides must be 1 to %d",
                       image_width, image_height, PM_IMAGE_MAX_SIDE_PX);
    if (!isfinite(params->thresh) || !isfinite(params->box_thresh))
        return pm_fail(err, PM_EINVAL, "text detector thresholds %g and %g: must be numbers",
                       (double)params->thresh, (double)params->box_thresh);
    if (!(params->unclip_ratio > 0 && params->unclip_ratio <= MAX_UNCLIP))
        return pm_fail(err, PM_EINVAL, "unclip ratio %g: must be above 0 and at most %g",
                       (double)params->unclip_ratio, (double)MAX_UNCLIP);
    if (params->max_candidates < 1 || params->max_candidates > MAX_CANDIDATES)
        return pm_fail(err, PM_EINVAL, "at most %d text candidates asked for: must be 1 to %d",
                       params->max_candidates, MAX_CANDIDATES);
    return 0;
}

int pm_det_boxes(const float *map, int map_width, int map_height, int image_width, int image_height,
                 const struct pm_det_params *params, struct pm_det_box **boxes_out, size_t *count_out,
                 struct pm_error *err)
{
    *boxes_out = NULL;
    *count_out = 0;
    int rc = check_arguments(map_width, map_height, image_width, image_height, params, err);
    if (rc)
        return rc;
    struct post p = {.map = map,
                     .map_width = map_width,
                     .map_height = map_height,
                     .image_width = image_width,
                     .image_height = image_height,
                     .box_thresh = as_decimal(params->box_thresh),
                     .unclip_ratio = as_decimal(params->unclip_ratio),
                     .score_slow = params->score_slow};
    struct pm_contours contours = {0};
    struct pm_det_box *boxes = NULL;
    size_t count = 0, capacity = 0;
    int8_t *marks = NULL;
    rc = make_bitmap(&p, params, &marks, err);
    if (rc == 0)
        rc = pm_contours_trace(marks, map_width, map_height, (size_t)params->max_candidates, &contours, err);
    for (size_t i = contours.count; rc == 0 && i-- > 0;) { /* the last found comes first */
        const struct pm_contour *c = &contours.items[i];
        struct pm_det_box box;
        int found;
        rc = box_of_contour(&p, contours.points + c->first, c->count, &box, &found, err);
        if (rc || !found)
            continue;
        PM_GROW(boxes, count, capacity);
        boxes[count++] = box;
    }
    pm_contours_free(&contours);
    free(marks);
    free(p.hull);
    free(p.mask);
    if (rc) {
        free(boxes);
        return rc;
    }
    *boxes_out = boxes;
    *count_out = count;
    return 0;
}
