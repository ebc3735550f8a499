/* A worker: leases of region tasks in, texts out, one reader in between.
 *
 * One loop: take leases while the reader has room (new regions join a running batch), do one short engine
 * step, send what finished, look at cancels and deadlines, report progress. Nothing here knows about
 * documents or which model family runs. A region that cannot be read (bad crop, engine refusal) is a failed
 * result with its reason; an engine that fails as a whole ends the process: the supervisor starts a new one
 * and the broker leases the regions again. Threads: one. Ownership: the worker owns the reader and the mapped
 * sheets of the regions it runs. */
#ifndef PM_WORKER_WORKER_H
#define PM_WORKER_WORKER_H

#include "engine/reader.h"
#include "proto/peer.h"

struct pm_worker;
/* peer and reader are borrowed and must outlive the worker. */
struct pm_worker *pm_worker_new(struct pm_peer *peer, struct pm_reader *reader);
void pm_worker_free(struct pm_worker **worker);

/* Runs until the peer says stop (0) or something failed for good. */
int pm_worker_run(struct pm_worker *worker, struct pm_error *err);

#endif
