/* Layout of an upright page: from lines, rules, tables and pictures to regions in reading order.
 *
 * Pure: no pixels are looked at here, so that a page reduced to boxes is enough for a test. Ownership:
 * pm_layout_free releases. Threads: none. */
#ifndef PM_LAYOUTD_LAYOUT_H
#define PM_LAYOUTD_LAYOUT_H

#include "layoutd/lines.h"
#include "layoutd/rules.h"
#include "proto/page.h"

struct pm_layout_input {
    float width, height;            /* of the upright page */
    uint32_t page;                  /* number in the document, from 1 */
    struct pm_lines *lines;         /* may be cut further; table and cell set by pm_tables_find */
    const struct pm_rules *rules;   /* may be NULL */
    struct pm_tables *tables;       /* drawn ones; those that only the text shows are added. May be NULL */
    const struct pm_rect *pictures; /* [picture_count] */
    uint32_t picture_count;
};

struct pm_layout_line {
    uint32_t line; /* index into the lines */
    uint32_t row;  /* inside its region */
};
struct pm_layout_region {
    enum pm_label label;
    uint32_t level; /* headings: see proto/page.h */
    struct pm_rect box;
    float score;
    uint32_t column;
    int table;             /* index into the tables, -1 */
    int picture;           /* index into the pictures, -1 */
    uint32_t first, count; /* in pm_layout.lines */
};
struct pm_layout {
    struct pm_layout_region *regions;
    uint32_t region_count, region_capacity;
    struct pm_layout_line *lines;
    uint32_t line_count, line_capacity;
};

void pm_layout_find(const struct pm_layout_input *input, struct pm_layout *out);
void pm_layout_free(struct pm_layout *layout);

#endif
