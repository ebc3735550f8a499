/* The collector: leases of assemble-page and assemble-document tasks in, blobs and manifests out.
 *
 * One task at a time; others that are held wait in order. Between the pages of a document it looks at cancels
 * and reports progress. A task that cannot be done is a failed result with its reason: a full disk and other
 * passing trouble may be tried again, damaged records may not. Threads: one. */
#ifndef PM_COLLECTOR_COLLECTOR_H
#define PM_COLLECTOR_COLLECTOR_H

#include "proto/peer.h"

struct pm_collector;
struct pm_collector *pm_collector_new(struct pm_peer *peer); /* peer is borrowed and must outlive it */
void pm_collector_free(struct pm_collector **collector);

/* Runs until the peer says stop (0) or something failed for good. */
int pm_collector_run(struct pm_collector *collector, struct pm_error *err);

/* Does one task: fills *result (pointers into the arena), or err. tick as in assemble.h, called with ctx.
 * What pm_collector_run does with every lease; apart from it for tests. */
int pm_collector_do(struct pm_blobs *blobs, const struct pm_msg_lease *lease, struct pm_bytes payload,
                    int (*tick)(void *ctx, uint32_t permille, struct pm_error *err), void *ctx,
                    struct pm_arena *arena, struct pm_msg_result *result, struct pm_error *err);
bool pm_collector_is_final(int code); /* can trying again not help? */

#endif
