/* Ruling lines of a page, found by Leptonica's morphology, and the tables that they draw.
 *
 * Threads: none. Ownership: outputs are the caller's (free; pm_tables_free). */
#ifndef PM_LAYOUTD_RULES_H
#define PM_LAYOUTD_RULES_H

#include "layoutd/lines.h"
#include "proto/page.h"

struct pm_rule {
    struct pm_rect box;
    bool is_virtual; /* not drawn: a border between rows that only the text shows */
};
struct pm_rules {
    struct pm_rule *across, *down; /* horizontal and vertical ones */
    uint32_t across_count, down_count, across_capacity, down_capacity;
};

/* Finds rules in the ink and removes their pixels from it. type_px: typical height of a line of text. Strokes
 * of letters (inside one of the lines' boxes) are not rules. PM_ENOMEM. */
int pm_rules_find(struct pm_ink *ink, const struct pm_lines *lines, float type_px, struct pm_rules *out,
                  struct pm_error *err);
void pm_rules_free(struct pm_rules *rules);

struct pm_table {
    struct pm_rect box;
    struct pm_page_cell *cells; /* row by row */
    uint32_t cell_count, rows, columns;
};
struct pm_tables {
    struct pm_table *items;
    uint32_t count, capacity;
};

/* Tables drawn by rules: a grid of at least two cells, some with text. Sets table and cell of the lines
 * inside and cuts lines that cross a drawn border. */
void pm_tables_find(const struct pm_rules *rules, struct pm_lines *lines, float type_px,
                    struct pm_tables *out);
void pm_tables_free(struct pm_tables *tables);

#endif
