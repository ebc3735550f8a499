/* HTML tables that a model wrote, made whole: a text that was cut off at its limit, or a model that forgot an
 * end, must not swallow what follows on the page. Threads: pure functions. Errors: none. */
#ifndef PM_COLLECTOR_TAGS_H
#define PM_COLLECTOR_TAGS_H

#include <stddef.h>

#include "base/mem.h"

/* Appends html, as pm_escape_table left it, with every element ended that was begun, in order: cells and rows
 * end where the next one begins, ends of nothing are left out, and so is a tag that was cut off at the end.
 */
void pm_tags_close(struct pm_buf *out, const char *html, size_t bytes);

#endif
