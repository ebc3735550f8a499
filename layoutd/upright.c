#include "layoutd/upright.h"

#include <leptonica/allheaders.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/ppocr/crop.h"
#include "layoutd/ink.h"

#define WIDE        4.0f /* length over height of a line whose slope means something */
#define AGREE       0.5f /* degrees */
#define VOTERS      15   /* lines asked about 180 degrees at most ... */
#define FIRST_ASKED 3    /* ... and when they all say upright */
#define PART        6.0f /* the classifier sees that much of a line, as a multiple of its height */

struct slope {
    float degrees, weight;
};

static int by_degrees(const void *a, const void *b)
{
    float x = ((const struct slope *)a)->degrees, y = ((const struct slope *)b)->degrees;
    return (x > y) - (x < y);
}

float pm_skew_of_boxes(const struct pm_det_box *boxes, size_t count, size_t *lines_out)
{
    struct slope *s = pm_xalloc(sizeof *s * (count + 1));
    size_t n = 0;
    float sum = 0, half = 0, median = 0;
    for (size_t i = 0; i < count; i++) {
        float length = pm_quad_length(&boxes[i].quad), height = pm_quad_height(&boxes[i].quad);
        if (length < WIDE * height)
            continue;
        /* a corner is exact to about a pixel: the longer the line, the better, more than in proportion */
        s[n++] = (struct slope){pm_quad_degrees(&boxes[i].quad), length * sqrtf(length)};
        sum += s[n - 1].weight;
    }
    qsort(s, n, sizeof *s, by_degrees);
    for (size_t i = 0; i < n; i++)
        if ((half += s[i].weight) * 2 >= sum) {
            median = s[i].degrees;
            break;
        }
    /* detectors give many lines exactly 0: the mean around the median is finer than the median */
    float near_sum = 0, near_weight = 0;
    *lines_out = 0;
    for (size_t i = 0; i < n; i++)
        if (fabsf(s[i].degrees - median) <= AGREE) {
            near_sum += s[i].degrees * s[i].weight;
            near_weight += s[i].weight;
            ++*lines_out;
        }
    free(s);
    if (!*lines_out || near_weight < 0.5f * sum) {
        *lines_out = 0;
        return 0;
    }
    return near_sum / near_weight;
}

bool pm_skew_of_ink(const struct pm_image *grey, float *degrees_out, struct pm_error *err)
{
    struct pm_ink ink = {0};
    struct pm_map3 same = pm_map3_identity();
    *degrees_out = 0;
    if (pm_ink_find(grey, &same, grey->width_px, grey->height_px, &ink, err))
        return false;
    l_float32 angle = 0, confidence = 0;
    bool failed = pixFindSkew(ink.bits, &angle, &confidence) != 0;
    pm_ink_free(&ink);
    if (failed || confidence < 4.0f)
        return false;
    *degrees_out = -(float)angle; /* Leptonica gives the turn that removes the lean, clockwise positive */
    return true;
}

bool pm_is_sideways(const struct pm_det_box *boxes, size_t count)
{
    float lying = 0, standing = 0;
    for (size_t i = 0; i < count; i++) {
        float a = pm_quad_length(&boxes[i].quad), b = pm_quad_height(&boxes[i].quad);
        float along = fmaxf(a, b), across = fminf(a, b);
        if (along < 2 * across)
            continue;
        bool stands = fabsf(pm_quad_degrees(&boxes[i].quad)) > 45;
        stands ^= b > a;
        *(stands ? &standing : &lying) += along;
    }
    return standing > 2 * lying && standing > 0;
}

static int by_length(const void *a, const void *b)
{
    const struct pm_quad *x = &(*(const struct pm_det_box *const *)a)->quad,
                         *y = &(*(const struct pm_det_box *const *)b)->quad;
    float lx = fmaxf(pm_quad_length(x), pm_quad_height(x)), ly = fmaxf(pm_quad_length(y), pm_quad_height(y));
    return (lx < ly) - (lx > ly);
}

/* The corners in the order in which they come when the text is read downwards. */
static struct pm_quad read_down(const struct pm_quad *q)
{
    return (struct pm_quad){{q->x[1], q->x[2], q->x[3], q->x[0]}, {q->y[1], q->y[2], q->y[3], q->y[0]}};
}

int pm_turn_of_lines(const struct pm_image *image, const struct pm_det_box *boxes, size_t count,
                     pm_turned_fn ask, void *context, int *degrees_out, struct pm_error *err)
{
    *degrees_out = 0;
    bool sideways = pm_is_sideways(boxes, count);
    const struct pm_det_box **longest = pm_xalloc(sizeof *longest * (count + 1));
    for (size_t i = 0; i < count; i++)
        longest[i] = &boxes[i];
    qsort(longest, count, sizeof(struct pm_det_box *), by_length);
    int asked = 0, turned = 0, certain = 0, rc = 0;
    for (size_t i = 0; i < count && asked < VOTERS; i++) {
        struct pm_quad q = longest[i]->quad;
        if (sideways)
            q = read_down(&q);
        float length = pm_quad_length(&q), height = pm_quad_height(&q);
        if (length < 1.5f * height)
            continue;
        float part = fminf(1, PART * height / length);
        q = pm_quad_part(&q, 0.5f - part / 2, 0.5f + part / 2);
        struct pm_image crop = {0};
        float probability = 0;
        rc = pm_crop_quad(image, &q, 0, &crop, err);
        if (rc == PM_ELIMIT) { /* a sliver: no witness */
            rc = 0;
            continue;
        }
        if (!rc)
            rc = ask(context, &crop, &probability, err);
        pm_image_free(&crop);
        if (rc)
            goto out;
        asked++;
        turned += probability > 0.5f;
        certain += probability > 0.95f;
        /* the usual page is upright: three long lines that say so are enough */
        if (!sideways && asked == FIRST_ASKED && turned == 0)
            break;
    }
    bool is_turned = asked >= 3 ? turned * 10 >= asked * 7 : asked && certain == asked;
    bool is_upright = asked >= 3 ? turned * 10 <= asked * 3 : asked && turned == 0;
    if (sideways)
        *degrees_out = is_turned ? 90 : is_upright ? 270 : 0;
    else
        *degrees_out = is_turned ? 180 : 0;
out:
    free(longest);
    return rc;
}

int pm_image_turn(const struct pm_image *image, int degrees, struct pm_image *out, struct pm_error *err)
{
    int w = image->width_px, h = image->height_px, c = image->channels;
    bool swap = degrees == 90 || degrees == 270;
    int rc = pm_image_alloc(swap ? h : w, swap ? w : h, c, out, err);
    if (rc)
        return rc;
    for (int y = 0; y < out->height_px; y++) {
        uint8_t *to = out->owned + (size_t)y * out->stride_bytes;
        for (int x = 0; x < out->width_px; x++, to += c) {
            int sx = degrees == 90 ? y : degrees == 180 ? w - 1 - x : degrees == 270 ? w - 1 - y : x;
            int sy = degrees == 90 ? h - 1 - x : degrees == 180 ? h - 1 - y : degrees == 270 ? x : y;
            const uint8_t *from = image->pixels + (size_t)sy * image->stride_bytes + (size_t)sx * (size_t)c;
            for (int k = 0; k < c; k++)
                to[k] = from[k];
        }
    }
    return 0;
}

/* One output pixel whose four neighbours may lie outside the source. */
static void sample_edge(const struct pm_image *s, int x0, int y0, const int weights[4], uint8_t fill,
                        uint8_t *to)
{
    for (int c = 0; c < s->channels; c++) {
        int sum = 1 << 15;
        for (int k = 0; k < 4; k++) {
            int x = x0 + (k & 1), y = y0 + (k >> 1), v = fill;
            if ((unsigned)x < (unsigned)s->width_px && (unsigned)y < (unsigned)s->height_px)
                v = s->pixels[(size_t)y * s->stride_bytes + (size_t)x * (size_t)s->channels + (size_t)c];
            sum += v * weights[k];
        }
        to[c] = (uint8_t)(sum >> 16);
    }
}

static void sample_inside(const struct pm_image *s, int x0, int y0, const int weights[4], uint8_t *to)
{
    const uint8_t *p = s->pixels + (size_t)y0 * s->stride_bytes + (size_t)x0 * (size_t)s->channels;
    const uint8_t *q = p + s->stride_bytes;
    for (int c = 0; c < s->channels; c++)
        to[c] = (uint8_t)((p[c] * weights[0] + p[c + s->channels] * weights[1] + q[c] * weights[2] +
                           q[c + s->channels] * weights[3] + (1 << 15)) >>
                          16);
}

int pm_image_warp(const struct pm_image *source, const struct pm_map3 *to_source, int width_px, int height_px,
                  uint8_t fill, struct pm_image *out, struct pm_error *err)
{
    const double *m = to_source->m;
    int rc = pm_image_alloc(width_px, height_px, source->channels, out, err);
    if (rc)
        return rc;
    for (int y = 0; y < height_px; y++) {
        uint8_t *to = out->owned + (size_t)y * out->stride_bytes;
        double u = m[1] * (y + 0.5) + m[2], v = m[4] * (y + 0.5) + m[5], w = m[7] * (y + 0.5) + m[8];
        for (int x = 0; x < width_px; x++, to += source->channels) {
            double scale = w + m[6] * (x + 0.5);
            double sx = (u + m[0] * (x + 0.5)) / scale - 0.5, sy = (v + m[3] * (x + 0.5)) / scale - 0.5;
            if (!(sx > -1 && sy > -1 && sx < source->width_px && sy < source->height_px)) {
                memset(to, fill, (size_t)source->channels);
                continue;
            }
            int x0 = (int)(sx + 1) - 1, y0 = (int)(sy + 1) - 1; /* floor, for both are above -1 */
            int fx = (int)((sx - x0) * 256), fy = (int)((sy - y0) * 256);
            const int weights[4] = {(256 - fx) * (256 - fy), fx * (256 - fy), (256 - fx) * fy, fx * fy};
            if (x0 >= 0 && y0 >= 0 && x0 + 1 < source->width_px && y0 + 1 < source->height_px)
                sample_inside(source, x0, y0, weights, to);
            else
                sample_edge(source, x0, y0, weights, fill, to);
        }
    }
    return 0;
}
