#include "layoutd/pagefind.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define SIDE     320   /* px: longer side of the picture that is looked at */
#define STEP     45    /* grey levels between paper and surround */
#define AREA_MIN 0.25f /* of the picture */
#define AREA_MAX 0.97f
#define FIT_MIN  0.93f /* share of the quad that is paper, and of the paper that is in the quad */
#define SHARP    0.6f  /* of the step happens within a few px: shadows and vignettes are slow */

struct small {
    uint8_t *px;
    int width, height;
};

static struct small shrink(const struct pm_image *g, float *scale_out)
{
    int longer = g->width_px > g->height_px ? g->width_px : g->height_px;
    int step = (longer + SIDE - 1) / SIDE;
    struct small s = {.width = g->width_px / step, .height = g->height_px / step};
    s.px = pm_xalloc((size_t)s.width * (size_t)s.height + 1);
    int inner = step > 4 ? step / 4 : 1;
    for (int y = 0; y < s.height; y++)
        for (int x = 0; x < s.width; x++) {
            int sum = 0, n = 0;
            for (int j = 0; j < step; j += inner) {
                const uint8_t *row =
                    g->pixels + (size_t)(y * step + j) * g->stride_bytes + (size_t)(x * step);
                for (int i = 0; i < step; i += inner, n++)
                    sum += row[i];
            }
            s.px[y * s.width + x] = (uint8_t)(sum / n);
        }
    *scale_out = (float)step;
    return s;
}

/* Otsu's threshold of the picture, and the means of both sides. */
static int split_levels(const struct small *s, float *dark_out, float *bright_out)
{
    long histogram[256] = {0}, total = (long)s->width * s->height;
    double sum = 0, below = 0, weight = 0, best = -1;
    int threshold = 128;
    for (long i = 0; i < total; i++)
        histogram[s->px[i]]++;
    for (int i = 0; i < 256; i++)
        sum += (double)i * (double)histogram[i];
    for (int i = 0; i < 255; i++) {
        weight += (double)histogram[i];
        below += (double)i * (double)histogram[i];
        if (weight == 0 || weight == (double)total)
            continue;
        double m0 = below / weight, m1 = (sum - below) / ((double)total - weight);
        double between = weight * ((double)total - weight) * (m1 - m0) * (m1 - m0);
        if (between > best) {
            best = between;
            threshold = i + 1;
            *dark_out = (float)m0;
            *bright_out = (float)m1;
        }
    }
    return threshold;
}

/* Marks the largest bright region with 2 (1: other bright ones); returns its area. */
static int largest_region(const struct small *s, int threshold, uint8_t *mark)
{
    int n = s->width * s->height, best = 0, best_seed = -1;
    int *stack = pm_xalloc(sizeof *stack * (size_t)n);
    for (int pass = 0; pass < 2; pass++) {
        if (!pass)
            for (int i = 0; i < n; i++)
                mark[i] = s->px[i] >= threshold ? 1 : 0;
        for (int seed = pass ? best_seed : 0; seed >= 0 && seed < n; seed++) {
            uint8_t from = pass ? 3 : 1, to = pass ? 2 : 3;
            if (mark[seed] != from) {
                if (pass)
                    break;
                continue;
            }
            int top = 0, area = 0;
            stack[top++] = seed;
            mark[seed] = to;
            while (top) {
                int at = stack[--top], x = at % s->width, y = at / s->width;
                area++;
                const int dx[4] = {1, -1, 0, 0}, dy[4] = {0, 0, 1, -1};
                for (int k = 0; k < 4; k++) {
                    int u = x + dx[k], v = y + dy[k];
                    if (u < 0 || v < 0 || u >= s->width || v >= s->height || mark[v * s->width + u] != from)
                        continue;
                    mark[v * s->width + u] = to;
                    stack[top++] = v * s->width + u;
                }
            }
            if (!pass && area > best) {
                best = area;
                best_seed = seed;
            }
            if (pass)
                break;
        }
    }
    free(stack);
    return best;
}

struct side { /* a x + b y = c */
    double a, b, c;
};

/* A straight side through the region's outermost pixels seen from one direction: least squares, twice, the
 * second time without what is far off. points: x, y pairs. */
static bool fit_side(const float *points, int count, bool upright, struct side *out)
{
    double slope = 0, offset = 0;
    for (int round = 0; round < 4; round++) {
        double n = 0, su = 0, sv = 0, suu = 0, suv = 0;
        for (int i = 0; i < count; i++) {
            double u = upright ? points[2 * i + 1] : points[2 * i],
                   v = upright ? points[2 * i] : points[2 * i + 1];
            double limit = round == 1 ? 12 : round == 2 ? 5 : 2.5;
            if (round && fabs(v - slope * u - offset) > limit)
                continue;
            n++, su += u, sv += v, suu += u * u, suv += u * v;
        }
        double det = n * suu - su * su;
        if (n < count * 0.5 || n < 8 || fabs(det) < 1e-6)
            return false;
        slope = (n * suv - su * sv) / det;
        offset = (sv - slope * su) / n;
    }
    *out = upright ? (struct side){1, -slope, offset} : (struct side){-slope, 1, offset};
    return fabs(slope) < 0.6;
}

static bool meet(const struct side *p, const struct side *q, float *x, float *y)
{
    double det = p->a * q->b - q->a * p->b;
    if (fabs(det) < 1e-9)
        return false;
    *x = (float)((p->c * q->b - q->c * p->b) / det);
    *y = (float)((p->a * q->c - q->a * p->c) / det);
    return true;
}

/* Sides in the order left, top, right, bottom from the region's outline. */
static bool find_sides(const struct small *s, const uint8_t *mark, struct side sides[4])
{
    float *points = pm_xalloc(sizeof *points * 2 * (size_t)(s->width + s->height));
    bool ok = true;
    for (int which = 0; which < 4 && ok; which++) {
        bool upright = which % 2 == 0;
        int lines = upright ? s->height : s->width, across = upright ? s->width : s->height, n = 0;
        int first = -1, last = -1;
        for (int line = 0; line < lines; line++)
            for (int i = 0; i < across; i++)
                if (mark[upright ? line * s->width + i : i * s->width + line] == 2) {
                    first = first < 0 ? line : first;
                    last = line;
                    break;
                }
        int margin = (last - first) / 10; /* corners may be round, folded or cut by the other sides */
        for (int line = first + margin; line <= last - margin; line++)
            for (int i = 0; i < across; i++) {
                int at = which < 2 ? i : across - 1 - i;
                if (mark[upright ? line * s->width + at : at * s->width + line] != 2)
                    continue;
                float edge = which < 2 ? (float)at : (float)at + 1;
                points[2 * n] = upright ? edge : (float)line + 0.5f;
                points[2 * n + 1] = upright ? (float)line + 0.5f : edge;
                n++;
                break;
            }
        ok = first >= 0 && fit_side(points, n, upright, &sides[which]);
    }
    free(points);
    return ok;
}

static bool is_in(const struct pm_quad *q, float x, float y)
{
    for (int i = 0; i < 4; i++) {
        int j = (i + 1) % 4;
        if ((q->x[j] - q->x[i]) * (y - q->y[i]) - (q->y[j] - q->y[i]) * (x - q->x[i]) < 0)
            return false;
    }
    return true;
}

static uint8_t at(const struct small *s, float x, float y)
{
    int i = (int)x, j = (int)y;
    i = i < 0 ? 0 : i >= s->width ? s->width - 1 : i;
    j = j < 0 ? 0 : j >= s->height ? s->height - 1 : j;
    return s->px[j * s->width + i];
}

/* Every side that is not the picture's own border must be a sharp step from paper to surround along most of
 * its length; at least one must be there. */
static bool has_sharp_sides(const struct small *s, const struct pm_quad *q)
{
    int real = 0;
    for (int i = 0; i < 4; i++) {
        int j = (i + 1) % 4, sharp = 0, seen = 0;
        float dx = q->x[j] - q->x[i], dy = q->y[j] - q->y[i], length = hypotf(dx, dy);
        float nx = -dy / length, ny = dx / length; /* inwards: the corners run clockwise */
        for (int k = 2; k <= 18; k++) {
            float x = q->x[i] + dx * (float)k / 20, y = q->y[i] + dy * (float)k / 20;
            float ox = x - 6 * nx, oy = y - 6 * ny;
            if (ox < 0 || oy < 0 || ox >= (float)s->width || oy >= (float)s->height)
                continue;
            seen++;
            float far_in = at(s, x + 6 * nx, y + 6 * ny), far_out = at(s, ox, oy);
            float in = at(s, x + 2 * nx, y + 2 * ny), out = at(s, x - 2 * nx, y - 2 * ny);
            sharp += far_in - far_out > STEP && in - out > SHARP * (far_in - far_out);
        }
        if (seen < 8)
            continue; /* the picture's border */
        if (sharp * 10 < seen * 7)
            return false;
        real++;
    }
    return real > 0;
}

bool pm_page_find(const struct pm_image *grey, struct pm_quad *quad_out)
{
    if (grey->width_px < 200 || grey->height_px < 200)
        return false;
    float scale, dark = 0, bright = 255;
    struct small s = shrink(grey, &scale);
    uint8_t *mark = pm_xalloc((size_t)s.width * (size_t)s.height);
    struct side sides[4];
    struct pm_quad q;
    int total = s.width * s.height;
    bool found = false;
    int threshold = split_levels(&s, &dark, &bright);
    if (bright - dark < STEP)
        goto out;
    int area = largest_region(&s, threshold, mark);
    if ((float)area < AREA_MIN * (float)total * 0.8f || !find_sides(&s, mark, sides))
        goto out;
    /* left-top, top-right, right-bottom, bottom-left */
    if (!meet(&sides[0], &sides[1], &q.x[0], &q.y[0]) || !meet(&sides[1], &sides[2], &q.x[1], &q.y[1]) ||
        !meet(&sides[2], &sides[3], &q.x[2], &q.y[2]) || !meet(&sides[3], &sides[0], &q.x[3], &q.y[3]))
        goto out;
    int in_quad = 0, bright_in = 0, region_out = 0;
    for (int y = 0; y < s.height; y++)
        for (int x = 0; x < s.width; x++) {
            bool in = is_in(&q, (float)x + 0.5f, (float)y + 0.5f), is_region = mark[y * s.width + x] == 2;
            in_quad += in;
            bright_in += in && (is_region || s.px[y * s.width + x] >= threshold);
            region_out += is_region && !in;
        }
    /* text and pictures on the paper are dark too: what counts is that little paper lies outside */
    if ((float)in_quad < AREA_MIN * (float)total || (float)in_quad > AREA_MAX * (float)total ||
        (float)region_out > (1 - FIT_MIN) * (float)area || (float)bright_in < 0.5f * (float)in_quad ||
        !has_sharp_sides(&s, &q))
        goto out;
    for (int i = 0; i < 4; i++) {
        if (q.x[i] < -0.05f * (float)s.width || q.x[i] > 1.05f * (float)s.width ||
            q.y[i] < -0.05f * (float)s.height || q.y[i] > 1.05f * (float)s.height)
            goto out;
        quad_out->x[i] = fminf(fmaxf(q.x[i], 0), (float)s.width) * scale;
        quad_out->y[i] = fminf(fmaxf(q.y[i], 0), (float)s.height) * scale;
    }
    found = true;
out:
    free(mark);
    free(s.px);
    return found;
}
