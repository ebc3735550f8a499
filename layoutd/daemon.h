/* pagemill-layoutd's loop: leases in, results out.
 *
 * Two threads. The owner talks to the broker and never blocks on a document; one labourer opens, renders and
 * lays out, one task at a time, in the order of the leases. A task that was revoked or whose deadline passed
 * is cancelled at its next step (a decoder at once). Ownership: borrowed arguments must outlive the daemon.
 */
#ifndef PM_LAYOUTD_DAEMON_H
#define PM_LAYOUTD_DAEMON_H

#include "layoutd/scan.h"
#include "proto/peer.h"

struct pm_layoutd_config {
    const char *decode_program;
    const char *models_dir; /* may be NULL */
    const char
        *layout_model; /* identity of the networks behind tools; NULL: pages are not to be remembered */
    struct pm_scan_tools tools;
};

/* Runs until the peer says stop (0) or something failed for good. */
int pm_layoutd_run(struct pm_peer *peer, const struct pm_layoutd_config *config, struct pm_error *err);

#endif
