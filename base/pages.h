/* Page selections as people write them: "1-20,31", "3-", "-5", "" for all pages.
 *
 * Items are separated by commas; blanks are allowed around numbers, '-' and ','. Pages count from 1. Items
 * may overlap and come in any order; the parsed selection is sorted and merged. Ownership: plain values.
 * Threads: pure functions. Errors: PM_EINVAL with the place and the reason. */
#ifndef PM_BASE_PAGES_H
#define PM_BASE_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PM_PAGES_MAX_RANGES 256
#define PM_PAGES_LAST       UINT32_MAX /* last of "3-": up to the end of the document */

struct pm_page_range {
    uint32_t first, last; /* both belong to it */
};
struct pm_pages {
    struct pm_page_range ranges[PM_PAGES_MAX_RANGES]; /* ascending, neither touching nor overlapping */
    uint32_t range_count;                             /* 0: all pages */
};

int pm_pages_parse(const char *text, struct pm_pages *out, struct pm_error *err);
bool pm_pages_has(const struct pm_pages *pages, uint32_t page);
/* How many pages of a document of `total` are selected. */
uint32_t pm_pages_count(const struct pm_pages *pages, uint32_t total);

#endif
