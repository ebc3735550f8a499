/* One column of lines becomes paragraphs, headings, list items and code. Used by layout.c only. */
#ifndef PM_LAYOUTD_BLOCKS_H
#define PM_LAYOUTD_BLOCKS_H

#include "layoutd/layout.h"

/* What is usual on the page, weighted by the lines' lengths. */
struct pm_type {
    float height, size, x_height, stroke;
    float pitch;  /* from baseline to baseline, px */
    bool is_mono; /* most of the page is set in a fixed pitch: no sign of code then */
};
struct pm_type pm_type_of(const struct pm_lines *lines);

struct pm_text_row {       /* lines on one baseline of one column */
    uint32_t first, count; /* in the layout's sequence of lines */
    struct pm_rect box;
    uint32_t longest; /* line */
    float baseline, height, size, x_height, stroke;
    float text_left; /* after a bullet */
    bool has_bullet;
    bool follows_rule; /* a rule stands between it and what is above ... */
    bool follows_mark; /* ... a short one, as before footnotes */
    bool is_code;      /* one line, in a fixed pitch; settled by pm_blocks_find */
};

/* Appends the regions of rows[0..count) to the layout, whose sequence of lines already holds theirs. */
void pm_blocks_find(const struct pm_lines *lines, struct pm_text_row *rows, uint32_t count,
                    const struct pm_type *type, uint32_t column, float page_height, struct pm_layout *out);

#endif
