#include "layoutd/rules.h"

#include <leptonica/allheaders.h>
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

#define MAX_RULES 4000u /* a raster of dots or a halftone is no ruling */

static void add_rule(struct pm_rule **items, uint32_t *count, uint32_t *capacity, struct pm_rect box)
{
    PM_GROW(*items, *count, *capacity);
    (*items)[(*count)++] = (struct pm_rule){.box = box};
}

/* Is it a stroke of a letter (a stem, a bar of a large T) rather than a rule? */
static bool is_stroke(const struct pm_rect *r, bool across, const struct pm_lines *lines)
{
    for (uint32_t i = 0; i < lines->count; i++) {
        const struct pm_line *l = &lines->items[i];
        const struct pm_rect *b = &l->box;
        float length = across ? pm_rect_width(r) : pm_rect_height(r);
        if (length > (across ? 1.1f : 1.25f) * l->height)
            continue;
        if (pm_rect_middle_x(r) > b->left - 2 && pm_rect_middle_x(r) < b->right + 2 &&
            pm_rect_middle_y(r) > b->top && pm_rect_middle_y(r) < b->bottom)
            return true;
    }
    return false;
}

/* One direction: opening with a line, then the components. The opened pixels are removed from the ink. */
static int find_direction(struct pm_ink *ink, const struct pm_lines *lines, bool across, int length_px,
                          int thick_px, struct pm_rules *out, PIX **opened_out, struct pm_error *err)
{
    PIX *opened = across ? pixOpenCompBrick(NULL, ink->bits, length_px, 1)
                         : pixOpenCompBrick(NULL, ink->bits, 1, length_px);
    BOXA *boxes = opened ? pixConnComp(opened, NULL, 8) : NULL;
    if (!boxes) {
        pixDestroy(&opened);
        return pm_fail(err, PM_ENOMEM, "no memory to look for rules on a page of %d x %d px", ink->width_px,
                       ink->height_px);
    }
    l_int32 n = boxaGetCount(boxes);
    for (l_int32 i = 0; i < n && out->across_count + out->down_count < MAX_RULES; i++) {
        l_int32 x, y, w, h;
        boxaGetBoxGeometry(boxes, i, &x, &y, &w, &h);
        struct pm_rect r = {(float)x, (float)y, (float)(x + w), (float)(y + h)};
        int thick = across ? h : w, length = across ? w : h;
        if (thick > thick_px + length / 100 || thick * 4 > length || is_stroke(&r, across, lines)) {
            /* not ours: keep its ink */
            BOX *box = boxCreate(x, y, w, h);
            pixClearInRect(opened, box);
            boxDestroy(&box);
            continue;
        }
        if (across)
            add_rule(&out->across, &out->across_count, &out->across_capacity, r);
        else
            add_rule(&out->down, &out->down_count, &out->down_capacity, r);
    }
    boxaDestroy(&boxes);
    *opened_out = opened;
    return 0;
}

static int by_top(const void *a, const void *b)
{
    const struct pm_rect *x = &((const struct pm_rule *)a)->box, *y = &((const struct pm_rule *)b)->box;
    if (x->top != y->top)
        return x->top < y->top ? -1 : 1;
    return (x->left > y->left) - (x->left < y->left);
}

/* Pieces of one rule, broken by noise or a crossing, become one. */
static void join_pieces(struct pm_rule *items, uint32_t *count, bool across, float gap, float shift)
{
    bool changed = true;
    while (changed) {
        changed = false;
        for (uint32_t i = 0; i < *count; i++)
            for (uint32_t j = i + 1; j < *count; j++) {
                const struct pm_rect *a = &items[i].box, *b = &items[j].box;
                float apart = across ? fmaxf(a->left, b->left) - fminf(a->right, b->right)
                                     : fmaxf(a->top, b->top) - fminf(a->bottom, b->bottom);
                float aside = across ? fabsf(pm_rect_middle_y(a) - pm_rect_middle_y(b))
                                     : fabsf(pm_rect_middle_x(a) - pm_rect_middle_x(b));
                if (apart > gap || aside > shift)
                    continue;
                items[i].box = pm_rect_join(*a, *b);
                items[j] = items[--*count];
                changed = true;
                j--;
            }
    }
    if (*count) /* qsort of a NULL list, even of none, is undefined */
        qsort(items, *count, sizeof *items, by_top);
}

int pm_rules_find(struct pm_ink *ink, const struct pm_lines *lines, float type_px, struct pm_rules *out,
                  struct pm_error *err)
{
    *out = (struct pm_rules){0};
    int across_px = (int)fmaxf(32, 1.8f * type_px), down_px = (int)fmaxf(16, 0.75f * type_px);
    int thick_px = (int)fmaxf(4, 0.3f * type_px);
    PIX *across = NULL, *down = NULL;
    int rc = find_direction(ink, lines, true, across_px, thick_px, out, &across, err);
    if (!rc)
        rc = find_direction(ink, lines, false, down_px, thick_px, out, &down, err);
    if (!rc && out->across_count + out->down_count < MAX_RULES) {
        pixSubtract(ink->bits, ink->bits, across);
        pixSubtract(ink->bits, ink->bits, down);
        join_pieces(out->across, &out->across_count, true, 0.7f * type_px, 2.5f);
        join_pieces(out->down, &out->down_count, false, 0.7f * type_px, 2.5f);
    } else {
        out->across_count = out->down_count = 0;
    }
    pixDestroy(&across);
    pixDestroy(&down);
    if (rc)
        pm_rules_free(out);
    return rc;
}

void pm_rules_free(struct pm_rules *rules)
{
    free(rules->across);
    free(rules->down);
    *rules = (struct pm_rules){0};
}
