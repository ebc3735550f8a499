/* Tables without rules: consecutive rows whose pieces stand under each other. Used by layout.c only. */
#ifndef PM_LAYOUTD_ALIGNED_H
#define PM_LAYOUTD_ALIGNED_H

#include "layoutd/blocks.h"

#define PM_ALIGNED_MAX_COLUMNS 16

struct pm_aligned {
    uint32_t from, to; /* rows */
    uint32_t columns;
    float borders[PM_ALIGNED_MAX_COLUMNS - 1]; /* x between them */
};

/* The next such run of rows at or after `from`; false when there is none. sequence: the layout's lines, which
 * the rows refer to. */
bool pm_aligned_find(const struct pm_lines *lines, const struct pm_layout_line *sequence,
                     const struct pm_text_row *rows, uint32_t count, uint32_t from,
                     const struct pm_type *type, struct pm_aligned *out);

/* The table of such a run; marks its lines' table (`index`) and cell. */
struct pm_table pm_aligned_table(const struct pm_aligned *run, const struct pm_text_row *rows,
                                 const struct pm_layout_line *sequence, uint32_t index,
                                 struct pm_lines *lines);

#endif
