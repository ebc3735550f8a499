/* Levels of headings over a whole document: a page's layout knows sizes only, so the same level may come out
 * of it in two, and small documents begin at the fourth. Headings that are numbered alike ("3.1", "4.12") get
 * one level, and the levels in use are closed up: 1 for titles of the document, sections from 2.
 *
 * Ownership: no memory of its own. Threads: one owner. Errors: none. */
#ifndef PM_COLLECTOR_HEADINGS_H
#define PM_COLLECTOR_HEADINGS_H

#include "base/arena.h"
#include "proto/page.h"

#define PM_HEADING_LEVELS 8
#define PM_HEADING_DEPTHS 6

struct pm_headings {                                         /* zero before the first page */
    uint32_t plain[PM_HEADING_LEVELS];                       /* unnumbered headings by the layout's level */
    uint32_t numbered[PM_HEADING_DEPTHS][PM_HEADING_LEVELS]; /* numbered ones by the parts of their number */
};

void pm_headings_count(struct pm_headings *headings, const struct pm_out_page *page);
/* Gives the headings of a page their levels, when all pages are counted; new texts lie in the arena. */
void pm_headings_apply(const struct pm_headings *headings, struct pm_out_page *page, struct pm_arena *arena);
/* Parts of the number that a heading begins with: "3.1.2 Scope" has 3; 0 without a number. */
uint32_t pm_heading_depth(const char *text);

#endif
