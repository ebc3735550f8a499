/* One column of lines becomes paragraphs, headings and list items. Used by layout.c only. */
#ifndef PM_LAYOUTD_BLOCKS_H
#define PM_LAYOUTD_BLOCKS_H

#include "layoutd/layout.h"

/* What is usual on the page, weighted by the lines' lengths. */
struct pm_type {
    float height, x_height, stroke;
    float pitch; /* from baseline to baseline, over the height */
};
struct pm_type pm_type_of(const struct pm_lines *lines);

struct pm_text_row {       /* lines on one baseline of one column */
    uint32_t first, count; /* in the sequence of lines */
    struct pm_rect box;
    float baseline, height, x_height, stroke;
    float text_left; /* after a bullet */
    bool has_bullet;
    bool follows_rule; /* a short rule stands between it and the row above */
};

/* Appends the regions of rows[0..count) to the layout, whose lines sequence already holds the rows' lines. */
void pm_blocks_find(const struct pm_lines *lines, const struct pm_text_row *rows, uint32_t count,
                    const struct pm_type *type, uint32_t page, uint32_t column, float page_height,
                    struct pm_layout *out);

#endif
