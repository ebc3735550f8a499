/* Places on a page: rectangles, quadrilaterals and the projective map between the upright page and its
 * source picture. Pure functions on plain numbers; no memory, no errors but "has no inverse". */
#ifndef PM_LAYOUTD_PLANE_H
#define PM_LAYOUTD_PLANE_H

#include <stdbool.h>

#include "engine/ppocr/det.h"

struct pm_rect { /* left <= right, top <= bottom; pixels, real numbers */
    float left, top, right, bottom;
};

/* Row-major 3 x 3: (x, y, 1) -> (X, Y, W), place (X / W, Y / W). */
struct pm_map3 {
    double m[9];
};

struct pm_map3 pm_map3_identity(void);
struct pm_map3 pm_map3_multiply(const struct pm_map3 *a, const struct pm_map3 *b); /* a after b */
bool pm_map3_invert(const struct pm_map3 *a, struct pm_map3 *out);
void pm_map3_apply(const struct pm_map3 *a, double x, double y, double *x_out, double *y_out);

/* Turns an upright page of upright_w x upright_h by `degrees` clockwise about its middle, which falls on the
 * middle of a source of source_w x source_h: the map from upright to source places. */
struct pm_map3 pm_map3_rotation(double degrees, double upright_w, double upright_h, double source_w,
                                double source_h);
/* The map that sends the corners of a width x height rectangle to the quad's corners; false when degenerate.
 */
bool pm_map3_from_quad(const struct pm_quad *quad, double width, double height, struct pm_map3 *out);

struct pm_quad pm_quad_map(const struct pm_quad *quad, const struct pm_map3 *map);
struct pm_quad pm_quad_of_rect(struct pm_rect r);
struct pm_rect pm_quad_bounds(const struct pm_quad *quad);
/* The part of a quad between shares from and to (0..1) of its reading direction. */
struct pm_quad pm_quad_part(const struct pm_quad *quad, float from, float to);
float pm_quad_length(const struct pm_quad *quad); /* along the reading direction: mean of top and bottom */
float pm_quad_height(const struct pm_quad *quad); /* across it */
/* Clockwise lean of the reading direction in degrees, -180..180. */
float pm_quad_degrees(const struct pm_quad *quad);

float pm_rect_overlap_x(const struct pm_rect *a, const struct pm_rect *b); /* shared width, 0 when none */
float pm_rect_overlap_y(const struct pm_rect *a, const struct pm_rect *b);
struct pm_rect pm_rect_join(struct pm_rect a, struct pm_rect b);
static inline float pm_rect_width(const struct pm_rect *r)
{
    return r->right - r->left;
}
static inline float pm_rect_height(const struct pm_rect *r)
{
    return r->bottom - r->top;
}
static inline float pm_rect_middle_y(const struct pm_rect *r)
{
    return 0.5f * (r->top + r->bottom);
}
static inline float pm_rect_middle_x(const struct pm_rect *r)
{
    return 0.5f * (r->left + r->right);
}

/* The value at share 0..1 of the sorted order; sorts the array in place. 0 for an empty one. */
float pm_quantile(float *values, int count, float share);

#endif
