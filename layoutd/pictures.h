/* Pictures on a page: what is neither text nor rule and too large to be a speck. Threads: none. */
#ifndef PM_LAYOUTD_PICTURES_H
#define PM_LAYOUTD_PICTURES_H

#include "layoutd/lines.h"
#include "layoutd/rules.h"

/* ink: of the upright page without rules; the lines' ink is removed from it. free(*pictures_out). */
void pm_pictures_find(struct pm_ink *ink, const struct pm_lines *lines, const struct pm_tables *tables,
                      float type_px, struct pm_rect **pictures_out, uint32_t *count_out);

#endif
