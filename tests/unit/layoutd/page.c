#include "page.h"

#include "base/mem.h"

uint32_t page_line(struct pm_lines *lines, float left, float baseline, float right, float height)
{
    struct pm_line l = {.height = height,
                        .size = 0.75f * height,
                        .x_height = 0.34f * height,
                        .stroke = 0.25f,
                        .baseline = baseline,
                        .score = 0.9f,
                        .table = -1,
                        .cell = -1};
    l.box = (struct pm_rect){left, baseline - 0.75f * height, right, baseline + 0.25f * height};
    l.quad = pm_quad_of_rect(l.box);
    PM_GROW(lines->items, lines->count, lines->capacity);
    lines->items[lines->count] = l;
    return lines->count++;
}

void page_paragraph(struct pm_lines *lines, float left, float first_baseline, float right, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        page_line(lines, left, first_baseline + 25 * (float)i,
                  i + 1 < count ? right : 0.6f * left + 0.4f * right, 20);
}

struct pm_rect page_box(float left, float top, float right, float bottom)
{
    return (struct pm_rect){left, top, right, bottom};
}

uint32_t page_shuffled(uint32_t i, uint32_t n)
{
    uint32_t step = 7;
    for (;; step++) { /* the next number that has no divisor in common with n */
        uint32_t a = step, b = n;
        while (b) {
            uint32_t t = a % b;
            a = b;
            b = t;
        }
        if (a == 1)
            return (uint32_t)(((uint64_t)i * step + 3) % n);
    }
}

void page_lay_out(struct pm_lines *lines, const struct pm_rules *rules, struct pm_tables *tables,
                  struct pm_layout *out)
{
    struct pm_layout_input input = {
        .width = 1240, .height = 1754, .page = 2, .lines = lines, .rules = rules, .tables = tables};
    pm_layout_find(&input, out);
}
