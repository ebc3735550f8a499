/* The formatter: a page as layoutd found it and the texts that workers read -> the collector's page.
 *
 * Pure: no files, no clock. The same input gives the same output, in whatever order the texts come. Nothing
 * is dropped silently: a crop that could not be read leaves a visible mark in its region's content and an
 * error in its region. Ownership: everything in *out lives in the arena or belongs to page and texts, which
 * must outlive it. Threads: reentrant. */
#ifndef PM_COLLECTOR_FORMAT_H
#define PM_COLLECTOR_FORMAT_H

#include "base/arena.h"
#include "base/error.h"
#include "proto/page.h"

/* regions of *out are those of page, one to one and in order; image_blob is left "" (pm_assemble_page sets
 * it). PM_EFORMAT when page and texts do not fit together or hold impossible numbers. */
int pm_format_page(const struct pm_page *page, const struct pm_region_text *texts, uint32_t text_count,
                   struct pm_arena *arena, struct pm_out_page *out, struct pm_error *err);

/* Mean confidence over the characters of a page's regions; *characters_out: how many there are. */
float pm_page_confidence(const struct pm_out_page *page, uint64_t *characters_out);

/* Does `next` go on with the paragraph of `region`, which carries `continues`? Same label, small letter at
 * its start, type of the same size. */
bool pm_region_goes_on(const struct pm_out_region *region, const struct pm_out_region *next);
float pm_region_type_px(const struct pm_out_region *region); /* mean height of its lines; 0 without lines */
/* Regions that may stand between the two halves of a paragraph: headers, footers, page numbers, notes. */
bool pm_label_is_furniture(uint32_t label);
/* The label called `name`; -1 when there is none. */
int pm_label_from_name(const char *name, size_t bytes);

#endif
