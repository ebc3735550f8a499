#include "layoutd/plane.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PI 3.14159265358979323846

struct pm_map3 pm_map3_identity(void)
{
    return (struct pm_map3){{1, 0, 0, 0, 1, 0, 0, 0, 1}};
}

struct pm_map3 pm_map3_multiply(const struct pm_map3 *a, const struct pm_map3 *b)
{
    struct pm_map3 r;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            double sum = 0;
            for (int k = 0; k < 3; k++)
                sum += a->m[3 * i + k] * b->m[3 * k + j];
            r.m[3 * i + j] = sum;
        }
    return r;
}

bool pm_map3_invert(const struct pm_map3 *a, struct pm_map3 *out)
{
    const double *m = a->m;
    double c0 = m[4] * m[8] - m[5] * m[7], c1 = m[5] * m[6] - m[3] * m[8], c2 = m[3] * m[7] - m[4] * m[6];
    double det = m[0] * c0 + m[1] * c1 + m[2] * c2;
    if (!(fabs(det) > 1e-12))
        return false;
    double s = 1 / det;
    *out = (struct pm_map3){{c0 * s, (m[2] * m[7] - m[1] * m[8]) * s, (m[1] * m[5] - m[2] * m[4]) * s, c1 * s,
                             (m[0] * m[8] - m[2] * m[6]) * s, (m[2] * m[3] - m[0] * m[5]) * s, c2 * s,
                             (m[1] * m[6] - m[0] * m[7]) * s, (m[0] * m[4] - m[1] * m[3]) * s}};
    return true;
}

void pm_map3_apply(const struct pm_map3 *a, double x, double y, double *x_out, double *y_out)
{
    const double *m = a->m;
    double w = m[6] * x + m[7] * y + m[8];
    if (fabs(w) < 1e-12)
        w = w < 0 ? -1e-12 : 1e-12;
    *x_out = (m[0] * x + m[1] * y + m[2]) / w;
    *y_out = (m[3] * x + m[4] * y + m[5]) / w;
}

struct pm_map3 pm_map3_rotation(double degrees, double upright_w, double upright_h, double source_w,
                                double source_h)
{
    double c = cos(degrees * PI / 180), s = sin(degrees * PI / 180);
    double ux = upright_w / 2, uy = upright_h / 2;
    return (struct pm_map3){
        {c, -s, source_w / 2 - c * ux + s * uy, s, c, source_h / 2 - s * ux - c * uy, 0, 0, 1}};
}

bool pm_map3_from_quad(const struct pm_quad *q, double width, double height, struct pm_map3 *out)
{
    if (width <= 0 || height <= 0)
        return false;
    double dx1 = q->x[1] - q->x[2], dx2 = q->x[3] - q->x[2], sx = q->x[0] - q->x[1] + q->x[2] - q->x[3];
    double dy1 = q->y[1] - q->y[2], dy2 = q->y[3] - q->y[2], sy = q->y[0] - q->y[1] + q->y[2] - q->y[3];
    double det = dx1 * dy2 - dx2 * dy1;
    if (!(fabs(det) > 1e-9))
        return false;
    double g = (sx * dy2 - dx2 * sy) / det, h = (dx1 * sy - sx * dy1) / det;
    if (fabs(sx) < 1e-9 && fabs(sy) < 1e-9)
        g = h = 0;
    *out = (struct pm_map3){{(q->x[1] - q->x[0] + g * q->x[1]) / width,
                             (q->x[3] - q->x[0] + h * q->x[3]) / height, q->x[0],
                             (q->y[1] - q->y[0] + g * q->y[1]) / width,
                             (q->y[3] - q->y[0] + h * q->y[3]) / height, q->y[0], g / width, h / height, 1}};
    return true;
}

struct pm_quad pm_quad_map(const struct pm_quad *quad, const struct pm_map3 *map)
{
    struct pm_quad r;
    for (int i = 0; i < 4; i++) {
        double x, y;
        pm_map3_apply(map, quad->x[i], quad->y[i], &x, &y);
        r.x[i] = (float)x;
        r.y[i] = (float)y;
    }
    return r;
}

struct pm_quad pm_quad_of_rect(struct pm_rect r)
{
    return (struct pm_quad){{r.left, r.right, r.right, r.left}, {r.top, r.top, r.bottom, r.bottom}};
}

struct pm_rect pm_quad_bounds(const struct pm_quad *q)
{
    struct pm_rect r = {q->x[0], q->y[0], q->x[0], q->y[0]};
    for (int i = 1; i < 4; i++) {
        r.left = fminf(r.left, q->x[i]);
        r.right = fmaxf(r.right, q->x[i]);
        r.top = fminf(r.top, q->y[i]);
        r.bottom = fmaxf(r.bottom, q->y[i]);
    }
    return r;
}

struct pm_quad pm_quad_part(const struct pm_quad *q, float from, float to)
{
    struct pm_quad r;
    for (int edge = 0; edge < 2; edge++) {
        int a = edge ? 3 : 0, b = edge ? 2 : 1;
        float dx = q->x[b] - q->x[a], dy = q->y[b] - q->y[a];
        r.x[a] = q->x[a] + from * dx;
        r.y[a] = q->y[a] + from * dy;
        r.x[b] = q->x[a] + to * dx;
        r.y[b] = q->y[a] + to * dy;
    }
    return r;
}

static float between(const struct pm_quad *q, int a, int b)
{
    return hypotf(q->x[b] - q->x[a], q->y[b] - q->y[a]);
}

float pm_quad_length(const struct pm_quad *q)
{
    return 0.5f * (between(q, 0, 1) + between(q, 3, 2));
}

float pm_quad_height(const struct pm_quad *q)
{
    return 0.5f * (between(q, 0, 3) + between(q, 1, 2));
}

float pm_quad_degrees(const struct pm_quad *q)
{
    float dx = q->x[1] - q->x[0] + q->x[2] - q->x[3], dy = q->y[1] - q->y[0] + q->y[2] - q->y[3];
    return (float)(atan2f(dy, dx) * 180 / PI);
}

float pm_rect_overlap_x(const struct pm_rect *a, const struct pm_rect *b)
{
    return fmaxf(0, fminf(a->right, b->right) - fmaxf(a->left, b->left));
}

float pm_rect_overlap_y(const struct pm_rect *a, const struct pm_rect *b)
{
    return fmaxf(0, fminf(a->bottom, b->bottom) - fmaxf(a->top, b->top));
}

struct pm_rect pm_rect_join(struct pm_rect a, struct pm_rect b)
{
    return (struct pm_rect){fminf(a.left, b.left), fminf(a.top, b.top), fmaxf(a.right, b.right),
                            fmaxf(a.bottom, b.bottom)};
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

float pm_quantile(float *values, int count, float share)
{
    if (count <= 0)
        return 0;
    qsort(values, (size_t)count, sizeof *values, by_value);
    int i = (int)(share * (float)(count - 1) + 0.5f);
    return values[i < 0 ? 0 : i >= count ? count - 1 : i];
}
