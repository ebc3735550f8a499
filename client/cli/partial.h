/* STEM.partial.md: the Markdown of the pages that are finished, growing in page order while the rest of the
 * document is read. Removed when the document is delivered.
 *
 * A page that is finished early is only remembered by its key; its text is fetched when its turn has come.
 * Failures here are silent: the partial file is a courtesy, the result comes at the end in any case.
 * Threads: one owner. */
#ifndef PM_CLIENT_CLI_PARTIAL_H
#define PM_CLIENT_CLI_PARTIAL_H

#include <stdint.h>

#include "client/include/pagemill.h"

struct pm_partial;
/* pages: the selection, NULL or "" for all. NULL when formats asks for no Markdown. */
struct pm_partial *pm_partial_new(const char *dir, const char *stem, const char *pages, const char *formats,
                                  const char *drop);
void pm_partial_page(struct pm_partial *partial, uint32_t page, const char *blob); /* "" for a failed page */
void pm_partial_grow(struct pm_partial *partial, pagemill *pm);
void pm_partial_finish(struct pm_partial *partial); /* removes the file */
void pm_partial_free(struct pm_partial **partial);

#endif
