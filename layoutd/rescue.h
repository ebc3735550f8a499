/* Text that the detector left out, found by its ink.
 *
 * The detector is blind to glyphs that stand alone and are narrow (the 1 in a table's column, a page number),
 * to what follows a leader, and to low bars of light type. What is added here has a score below
 * PM_SCORE_RESCUED, so that the collector can leave out what the reader could not read either
 * (proto/page.h).
 *
 * Threads: none. Errors: PM_ENOMEM. */
#ifndef PM_LAYOUTD_RESCUE_H
#define PM_LAYOUTD_RESCUE_H

#include "layoutd/lines.h"

/* Once for a page, after rules were taken out of the ink and before lines are measured. Lines may be dropped
 * (all their ink is another's), lengthened by a glyph at their end, and added. Leaders are removed from the
 * ink: they are neither text nor pictures. Pages without lines stay so. */
int pm_rescue_lines(struct pm_ink *ink, struct pm_lines *lines, struct pm_error *err);

#endif
