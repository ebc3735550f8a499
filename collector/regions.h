/* One region's content, by what it is: prose, heading, code, table, formula; from rows that a line reader
 * gave, or from the Markdown of a block reader.
 *
 * Everything is appended to out as Markdown without a newline at the end; nothing when nothing was read.
 * Threads: pure functions. Errors: none: hostile geometry gives odd text, never a fault. */
#ifndef PM_COLLECTOR_REGIONS_H
#define PM_COLLECTOR_REGIONS_H

#include "collector/rows.h"

/* A fenced block: line breaks kept; indentation, wide gaps and empty lines estimated from the positions. */
void pm_code_format(struct pm_buf *out, const struct pm_row *rows, uint32_t count);

/* An HTML table of the region's cells and, below it, what stood outside any cell. Without cells every row
 * becomes a table row of its pieces. */
void pm_table_format(struct pm_buf *out, const struct pm_crop_index *index, uint32_t region,
                     struct pm_arena *arena);

/* "#" once a level: the title of a document 1, sections from 2. */
void pm_heading_format(struct pm_buf *out, const struct pm_row *rows, uint32_t count, uint32_t level);
uint32_t pm_heading_level(const struct pm_page_region *region); /* 0: not a heading */

/* Text of a reader that reads whole blocks and answers in Markdown, HTML (tables) or LaTeX (formulas). */
void pm_block_text(struct pm_buf *out, const char *text, uint32_t heading_level);
void pm_block_table(struct pm_buf *out, const char *text);
void pm_block_formula(struct pm_buf *out, const char *text);

#endif
