#include "engine/geometry/hull.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/mem.h"

/* ---- hull ---- */

struct ranked_point {
    struct pm_point p;
    int32_t rank, last_rank; /* places in the caller's list: the first and last of equal points */
};

static int by_x_then_y(const void *left, const void *right)
{
    const struct ranked_point *a = left, *b = right;
    if (a->p.x != b->p.x)
        return a->p.x < b->p.x ? -1 : 1;
    if (a->p.y != b->p.y)
        return a->p.y < b->p.y ? -1 : 1;
    return a->rank < b->rank ? -1 : a->rank > b->rank;
}

/* > 0 when o -> a -> b turns towards growing angles. */
static int64_t turn(struct pm_point o, struct pm_point a, struct pm_point b)
{
    return (int64_t)(a.x - o.x) * (b.y - o.y) - (int64_t)(a.y - o.y) * (b.x - o.x);
}

/* The chain from the last sorted point to the first (step -1, over the largest y) or back (step 1, over the
 * smallest), appended to ring; its final point is left to the other chain. */
static size_t add_chain(const struct ranked_point *sorted, size_t count, int step, struct ranked_point *ring,
                        size_t used)
{
    size_t base = used;
    for (size_t i = 0; i < count; i++) {
        const struct ranked_point *next = &sorted[step > 0 ? i : count - 1 - i];
        while (used >= base + 2 && turn(ring[used - 2].p, ring[used - 1].p, next->p) <= 0)
            used--;
        ring[used++] = *next;
    }
    return used - 1;
}

/* A thin blob's contour passes its points twice, and monotone_start needs the place that OpenCV would take:
 * its chains run from the outer points towards the top and bottom ones and keep what they meet last. */
static void choose_ranks(struct ranked_point *ring, size_t used, size_t first_chain, struct ranked_point low,
                         struct ranked_point high)
{
    for (size_t half = 0; half < 2; half++) {
        size_t from = half ? first_chain : 0, until = half ? used : first_chain;
        struct pm_point peak = half ? low.p : high.p;
        for (size_t i = from; i < until; i++) {
            bool is_start = i == from;
            bool takes_last = is_start ? half == 0 : ring[i].p.x < peak.x;
            if (takes_last)
                ring[i].rank = ring[i].last_rank;
        }
    }
}

/* Where the ring has to start so that ranks ascend or descend all the way; 0 when they cannot. */
static size_t monotone_start(const struct ranked_point *ring, size_t count)
{
    size_t falls = 0, rises = 0, lowest = 0, highest = 0;
    for (size_t i = 0; i < count; i++) {
        int32_t here = ring[i].rank, next = ring[i + 1 < count ? i + 1 : 0].rank;
        falls += next < here;
        rises += next > here;
        if (here < ring[lowest].rank)
            lowest = i;
        if (here > ring[highest].rank)
            highest = i;
    }
    if (count < 3)
        return 0;
    return falls == 1 ? lowest : rises == 1 ? highest : 0;
}

int pm_hull(const struct pm_point *points, size_t count, struct pm_point *hull_out, size_t *hull_count_out,
            struct pm_error *err)
{
    *hull_count_out = 0;
    if (count > INT32_MAX)
        return pm_fail(err, PM_ELIMIT, "convex hull of %zu points: too many", count);
    if (count == 0)
        return 0;
    void *storage;
    int rc = pm_alloc_array(2 * count + 1, sizeof(struct ranked_point), &storage, err);
    if (rc)
        return rc;
    struct ranked_point *sorted = storage, *ring = sorted + count;
    for (size_t i = 0; i < count; i++)
        sorted[i] = (struct ranked_point){points[i], (int32_t)i, (int32_t)i};
    qsort(sorted, count, sizeof *sorted, by_x_then_y);
    size_t distinct = 1;
    struct ranked_point low = sorted[0], high = sorted[0]; /* leftmost of the smallest and the largest y */
    for (size_t i = 1; i < count; i++) {
        if (sorted[i].p.x == sorted[distinct - 1].p.x && sorted[i].p.y == sorted[distinct - 1].p.y)
            sorted[distinct - 1].last_rank = sorted[i].rank;
        else
            sorted[distinct++] = sorted[i];
        if (sorted[i].p.y < low.p.y)
            low = sorted[i];
        if (sorted[i].p.y > high.p.y)
            high = sorted[i];
    }
    size_t used = 1;
    if (distinct == 1) {
        ring[0] = sorted[0];
    } else {
        size_t first_chain = add_chain(sorted, distinct, -1, ring, 0);
        used = add_chain(sorted, distinct, 1, ring, first_chain);
        choose_ranks(ring, used, first_chain, low, high);
    }
    size_t start = monotone_start(ring, used);
    for (size_t i = 0; i < used; i++)
        hull_out[i] = ring[(start + i) % used].p;
    *hull_count_out = used;
    free(storage);
    return 0;
}

/* ---- minimum-area rectangle ---- */

struct edge {
    float dx, dy, inverse_length;
};

enum { BOTTOM, RIGHT, TOP, LEFT };

/* An edge seen by the caliper on side `side`, turned back to that of the bottom one: exact in floats. */
static struct edge seen_from(struct edge e, int side)
{
    switch (side) {
    case RIGHT:
        return (struct edge){e.dy, -e.dx, e.inverse_length};
    case TOP:
        return (struct edge){-e.dx, -e.dy, e.inverse_length};
    case LEFT:
        return (struct edge){-e.dy, e.dx, e.inverse_length};
    default:
        return e;
    }
}

/* The side whose edge the calipers meet first when turned on; the earlier one on ties. */
static int nearest_side(const struct edge *edges, const size_t support[4])
{
    int nearest = BOTTOM;
    for (int side = RIGHT; side <= LEFT; side++) {
        struct edge a = seen_from(edges[support[side]], side);
        struct edge b = seen_from(edges[support[nearest]], nearest);
        /* Right of b, for vectors less than half a turn apart. */
        float cross_a = a.dx * b.dy, cross_b = a.dy * b.dx;
        if (cross_a > cross_b)
            nearest = side;
    }
    return nearest;
}

static void set_edges(const struct pm_point *hull, size_t count, struct edge *edges, size_t support[4])
{
    for (int side = 0; side < 4; side++)
        support[side] = 0;
    for (size_t i = 0; i < count; i++) {
        if (hull[i].y < hull[support[BOTTOM]].y)
            support[BOTTOM] = i;
        if (hull[i].x > hull[support[RIGHT]].x)
            support[RIGHT] = i;
        if (hull[i].y > hull[support[TOP]].y)
            support[TOP] = i;
        if (hull[i].x < hull[support[LEFT]].x)
            support[LEFT] = i;
        struct pm_point next = hull[i + 1 < count ? i + 1 : 0];
        double dx = (double)next.x - hull[i].x, dy = (double)next.y - hull[i].y;
        edges[i] = (struct edge){(float)dx, (float)dy, (float)(1.0 / sqrt(dx * dx + dy * dy))};
    }
}

/* A rectangle touching the hull: direction (a, b) of its width, sides, and the points on its left and bottom.
 */
struct candidate {
    float a, b, width, height, area;
    size_t left, bottom;
};

static struct candidate smallest(const struct pm_point *hull, size_t count, const struct edge *edges,
                                 size_t support[4])
{
    struct candidate best = {.area = FLT_MAX};
    for (size_t step = 0; step < count; step++) {
        int side = nearest_side(edges, support);
        struct edge lead = edges[support[side]];
        lead.dx *= lead.inverse_length;
        lead.dy *= lead.inverse_length;
        lead = seen_from(lead, side);
        support[side] = support[side] + 1 < count ? support[side] + 1 : 0;

        float dx = (float)(hull[support[RIGHT]].x - hull[support[LEFT]].x);
        float dy = (float)(hull[support[RIGHT]].y - hull[support[LEFT]].y);
        float width = dx * lead.dx + dy * lead.dy;
        dx = (float)(hull[support[TOP]].x - hull[support[BOTTOM]].x);
        dy = (float)(hull[support[TOP]].y - hull[support[BOTTOM]].y);
        float height = -dx * lead.dy + dy * lead.dx;
        float area = width * height;
        if (area <= best.area) /* the last of equal ones wins */
            best = (struct candidate){lead.dx, lead.dy, width, height, area, support[LEFT], support[BOTTOM]};
    }
    return best;
}

/* Corner, and the vectors of both sides, of the rectangle found. */
static struct pm_rotated_rect rect_of_candidate(const struct pm_point *hull, const struct candidate *c,
                                                double *degrees_out)
{
    /* The corner where the left side's line meets the bottom side's. */
    float a1 = c->a, b1 = c->b, a2 = -c->b, b2 = c->a;
    float c1 = a1 * (float)hull[c->left].x + (float)hull[c->left].y * b1;
    float c2 = a2 * (float)hull[c->bottom].x + (float)hull[c->bottom].y * b2;
    float inverse = 1.0f / (a1 * b2 - a2 * b1);
    float corner_x = (c1 * b2 - c2 * b1) * inverse, corner_y = (a1 * c2 - a2 * c1) * inverse;
    float along_x = a1 * c->width, along_y = b1 * c->width;
    float across_x = a2 * c->height, across_y = b2 * c->height;
    *degrees_out = atan2((double)along_y, (double)along_x) * 180 / M_PI;
    return (struct pm_rotated_rect){
        .center_x = corner_x + (along_x + across_x) * 0.5f,
        .center_y = corner_y + (along_y + across_y) * 0.5f,
        .width = (float)sqrt((double)along_x * along_x + (double)along_y * along_y),
        .height = (float)sqrt((double)across_x * across_x + (double)across_y * across_y),
    };
}

/* Always -90 <= angle < 0, as OpenCV 5 has it: a quarter turn swaps the sides. */
static void set_angle(struct pm_rotated_rect *rect, double degrees)
{
    while (degrees >= 0 || degrees < -90) {
        degrees += degrees >= 0 ? -90 : 90;
        float width = rect->width;
        rect->width = rect->height;
        rect->height = width;
    }
    rect->angle_degrees = (float)degrees;
}

int pm_min_area_rect(const struct pm_point *hull, size_t count, struct pm_rotated_rect *out,
                     struct pm_error *err)
{
    *out = (struct pm_rotated_rect){0};
    double degrees = 0;
    if (count == 1) {
        out->center_x = (float)hull[0].x;
        out->center_y = (float)hull[0].y;
    } else if (count == 2) {
        double dx = (double)hull[1].x - hull[0].x, dy = (double)hull[1].y - hull[0].y;
        out->center_x = ((float)hull[0].x + (float)hull[1].x) * 0.5f;
        out->center_y = ((float)hull[0].y + (float)hull[1].y) * 0.5f;
        out->width = (float)sqrt(dx * dx + dy * dy);
        degrees = atan2(dy, dx) * 180 / M_PI;
    } else if (count > 2) {
        void *edges;
        int rc = pm_alloc_array(count, sizeof(struct edge), &edges, err);
        if (rc)
            return rc;
        size_t support[4];
        set_edges(hull, count, edges, support);
        struct candidate best = smallest(hull, count, edges, support);
        *out = rect_of_candidate(hull, &best, &degrees);
        free(edges);
    }
    set_angle(out, degrees);
    return 0;
}

void pm_rect_corners(const struct pm_rotated_rect *rect, float x_out[4], float y_out[4])
{
    double radians = rect->angle_degrees * M_PI / 180.0;
    float half_cos = (float)cos(radians) * 0.5f, half_sin = (float)sin(radians) * 0.5f;
    float cx = rect->center_x, cy = rect->center_y, width = rect->width, height = rect->height;
    for (int i = 0; i < 4; i++) { /* - -, + -, + +, - + : once around */
        float across = i == 1 || i == 2 ? 1.0f : -1.0f, along = i >= 2 ? 1.0f : -1.0f;
        x_out[i] = cx + across * half_sin * height + along * half_cos * width;
        y_out[i] = cy - across * half_cos * height + along * half_sin * width;
    }
}
