/* Pages made of boxes, for the layout tests. */
#ifndef PM_TESTS_LAYOUTD_PAGE_H
#define PM_TESTS_LAYOUTD_PAGE_H

#include "layoutd/layout.h"

/* Adds a line of 10 pt type at 150 dpi or so: 20 px high unless another height is given. Returns its index.
 */
uint32_t page_line(struct pm_lines *lines, float left, float baseline, float right, float height);
/* A column of `count` full lines but the last, which is short. */
void page_paragraph(struct pm_lines *lines, float left, float first_baseline, float right, unsigned count);
struct pm_rect page_box(float left, float top, float right, float bottom);
/* A fixed shuffle of 0..n-1: where number i goes. */
uint32_t page_shuffled(uint32_t i, uint32_t n);
/* Lays out a page of 1240 x 1754. */
void page_lay_out(struct pm_lines *lines, const struct pm_rules *rules, struct pm_tables *tables,
                  struct pm_layout *out);

#endif
