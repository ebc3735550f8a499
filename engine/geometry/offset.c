#include "engine/geometry/offset.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/mem.h"

#define ARC_TOLERANCE 0.25 /* largest distance of an arc's chord from the arc, in pixels */

struct vector {
    double x, y;
};

struct ring {
    struct pm_point *points;
    size_t count, capacity;
};

/* How arcs are stepped: cosine and sine of a step's angle, and steps in a radian. */
struct arc {
    double step_cos, step_sin, steps_per_radian;
};

static int32_t round_away(double v)
{
    double rounded = v < 0 ? v - 0.5 : v + 0.5;
    if (rounded > 2.0 * PM_POINT_MAX)
        return 2 * PM_POINT_MAX;
    if (rounded < -2.0 * PM_POINT_MAX)
        return -2 * PM_POINT_MAX;
    return (int32_t)rounded;
}

static void add(struct ring *r, struct pm_point p, struct vector v, double distance)
{
    PM_GROW(r->points, r->count, r->capacity);
    r->points[r->count++] =
        (struct pm_point){round_away(p.x + v.x * distance), round_away(p.y + v.y * distance)};
}

static struct vector outward_normal(struct pm_point from, struct pm_point to)
{
    double dx = (double)to.x - from.x, dy = (double)to.y - from.y;
    double inverse = 1 / sqrt(dx * dx + dy * dy);
    return (struct vector){dy * inverse, -(dx * inverse)};
}

static struct arc arc_of(double distance)
{
    double tolerance = ARC_TOLERANCE < distance * 0.25 ? ARC_TOLERANCE : distance * 0.25;
    double steps = M_PI / acos(1 - tolerance / distance); /* of a full turn */
    if (steps > distance * M_PI)
        steps = distance * M_PI; /* no finer than pixels */
    return (struct arc){cos(2 * M_PI / steps), sin(2 * M_PI / steps), steps / (2 * M_PI)};
}

/* The corner at p between edges with the outward normals `before` and `after`. */
static void add_corner(struct ring *r, struct pm_point p, struct vector before, struct vector after,
                       double distance, const struct arc *arc)
{
    double sine = before.x * after.y - after.x * before.y;
    double cosine = before.x * after.x + before.y * after.y;
    if (fabs(sine * distance) < 1 && cosine > 0) { /* nearly straight: both ends are the same pixel */
        add(r, p, before, distance);
        return;
    }
    sine = sine > 1 ? 1 : sine < -1 ? -1 : sine;
    if (sine * distance < 0) { /* a dent */
        add(r, p, before, distance);
        add(r, p, (struct vector){0, 0}, 0);
        add(r, p, after, distance);
        return;
    }
    double wanted = arc->steps_per_radian * fabs(atan2(sine, cosine));
    int steps = wanted < 0.5 ? 1 : (int)(wanted + 0.5);
    struct vector v = before;
    for (int i = 0; i < steps; i++) {
        add(r, p, v, distance);
        v = (struct vector){v.x * arc->step_cos - arc->step_sin * v.y,
                            v.x * arc->step_sin + v.y * arc->step_cos};
    }
    add(r, p, after, distance);
}

/* Copies without repeated points, turning clockwise as seen. Returns the number left. */
static size_t clean(const struct pm_point *polygon, size_t count, struct pm_point *out)
{
    size_t used = 0;
    for (size_t i = 0; i < count; i++)
        if (used == 0 || polygon[i].x != out[used - 1].x || polygon[i].y != out[used - 1].y)
            out[used++] = polygon[i];
    while (used > 1 && out[used - 1].x == out[0].x && out[used - 1].y == out[0].y)
        used--;
    double area = 0;
    for (size_t i = 0; i < used; i++) {
        struct pm_point a = out[i > 0 ? i - 1 : used - 1], b = out[i];
        area += ((double)a.x + b.x) * ((double)b.y - a.y);
    }
    for (size_t i = 0; area < 0 && i < used / 2; i++) {
        struct pm_point swap = out[i];
        out[i] = out[used - 1 - i];
        out[used - 1 - i] = swap;
    }
    return used;
}

/* Rotates the ring to begin after the last of a run of topmost points. */
static int rotate_to_top(struct ring *r, struct pm_error *err)
{
    size_t top = 0;
    for (size_t i = 1; i < r->count; i++)
        if (r->points[i].y < r->points[top].y ||
            (r->points[i].y == r->points[top].y && r->points[i].x >= r->points[top].x))
            top = i;
    void *copy;
    int rc = pm_alloc_array(r->count, sizeof *r->points, &copy, err);
    if (rc)
        return rc;
    struct pm_point *rotated = copy;
    for (size_t i = 0; i < r->count; i++)
        rotated[i] = r->points[(top + 1 + i) % r->count];
    free(r->points);
    r->points = rotated;
    return 0;
}

int pm_offset_round(const struct pm_point *polygon, size_t count, double distance, struct pm_point **out,
                    size_t *count_out, struct pm_error *err)
{
    *out = NULL;
    *count_out = 0;
    if (!(distance > 0 && distance <= PM_POINT_MAX))
        return pm_fail(err, PM_EINVAL, "polygon offset of %g pixels: must be above 0 and at most %d",
                       distance, PM_POINT_MAX);
    void *storage;
    int rc = pm_alloc_array(count ? count : 1, sizeof(struct pm_point), &storage, err);
    if (rc)
        return rc;
    struct pm_point *corners = storage;
    struct ring ring = {0};
    size_t used = clean(polygon, count, corners);
    if (used >= 3) {
        struct arc arc = arc_of(distance);
        struct vector before = outward_normal(corners[used - 1], corners[0]);
        for (size_t i = 0; i < used; i++) {
            struct vector after = outward_normal(corners[i], corners[i + 1 < used ? i + 1 : 0]);
            add_corner(&ring, corners[i], before, after, distance, &arc);
            before = after;
        }
        rc = rotate_to_top(&ring, err);
    }
    free(storage);
    if (rc) {
        free(ring.points);
        return rc;
    }
    *out = ring.points;
    *count_out = ring.count;
    return 0;
}
