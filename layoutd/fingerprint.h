/* What a page's text depends on, as one hash: the same fingerprint means that reading again would give the
 * same page.
 *
 * In it: the picture (size, resolution, every pixel), the options that change what is cut, read or kept of
 * it, the models that lay it out and read it (which include the program's version). Not in it: the page's
 * number, the document's name, the output formats.
 *
 * Threads: pure functions. */
#ifndef PM_LAYOUTD_FINGERPRINT_H
#define PM_LAYOUTD_FINGERPRINT_H

#include "base/hash.h"
#include "base/image.h"
#include "proto/messages.h"

/* layout_model: identity of the networks that find lines; the reader's is in the lease. */
void pm_page_fingerprint(const struct pm_image *picture, double dpi, const char *layout_model,
                         const struct pm_msg_lease *lease, char out[PM_HASH_HEX + 1]);
/* Can the page be remembered at all? Not when a model is not known, nor when it is asked to be read
 * anew. */
bool pm_page_has_fingerprint(const char *layout_model, const struct pm_msg_lease *lease);

#endif
