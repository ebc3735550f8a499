/* The loop every service process runs: connect, hello, credit, leases, progress beats, cancel, drain,
 * goodbye.
 *
 *   int take(void *context, const struct pm_peer_event *e, struct pm_error *err) { switch (e->kind) ... }
 *   while (!(rc = pm_peer_each(peer, wait_us, take, context, &err))) work();
 *
 * The peer reconnects by itself when the broker comes back, re-presents held leases and sends unacknowledged
 * results again. It beats for held leases only when the owner reported progress (pm_peer_progress) since the
 * last beat: a wedged engine goes silent and is fenced. SIGTERM and SIGINT arrive as PM_PEER_STOP through a
 * signalfd (pm_peer_open blocks them for the process); a second one ends the process at once. Threads: one
 * owner. Ownership: an event's lease and payload are valid until pm_peer_release(task) or its result was
 * sent. */
#ifndef PM_PROTO_PEER_H
#define PM_PROTO_PEER_H

#include "proto/blob.h"
#include "proto/frame.h"
#include "proto/key.h"

struct pm_peer_config {
    const char *endpoint;       /* "ipc:///run/.../work.sock", "tcp://HOST:PORT" */
    struct pm_key_options keys; /* needed for tcp */
    enum pm_role role;
    const char *name;
    const char *const *readers; /* workers */
    const char *const *models;  /* their identities, as many; may be NULL */
    uint32_t reader_count;
    uint32_t credit;    /* leases it holds at once */
    int64_t give_up_us; /* leave when no broker answers for this long; 0: never */
    int ready_fd;       /* 0: none. Gets the process number, as a line, with the first welcome; closed then */
};

enum pm_peer_event_kind {
    PM_PEER_IDLE,   /* timeout passed */
    PM_PEER_READY,  /* welcomed (again): blobs are open */
    PM_PEER_LEASE,  /* new work */
    PM_PEER_REVOKE, /* stop this task, send no result */
    PM_PEER_DRAIN,  /* finish what is held; no new leases come */
    PM_PEER_STOP,   /* SIGTERM, or drained and nothing held: leave the loop. After a signal no lease is handed
                       out any more; who wants to finish what is held may go on calling pm_peer_next */
    PM_PEER_LOST,   /* broker gone; keep working, results are kept */
    PM_PEER_KNOWN,  /* the answer to pm_peer_seen: is_known */
};
struct pm_peer_event {
    enum pm_peer_event_kind kind;
    const struct pm_msg_lease *lease; /* LEASE */
    struct pm_bytes payload;          /* LEASE */
    uint64_t task;                    /* REVOKE, KNOWN */
    uint32_t attempt;
    const char *reason;
    bool is_known; /* KNOWN */
};

struct pm_peer;
int pm_peer_open(const struct pm_peer_config *config, struct pm_peer **out, struct pm_error *err);
void pm_peer_free(struct pm_peer **peer); /* says goodbye, waits at most 200 ms for it to leave */

/* Waits for one event, at most timeout_us (0: only look). PM_ETIMEOUT when give_up_us passed; PM_EPROTO when
 * the broker refused us, PM_EDENIED when it does not allow our key. */
int pm_peer_next(struct pm_peer *peer, int64_t timeout_us, struct pm_peer_event *out, struct pm_error *err);
/* Takes every event that has arrived, waiting at most wait_us for the first, until `take` returns something
 * else than 0; returns that, or 0. One turn of a service's loop. */
int pm_peer_each(struct pm_peer *peer, int64_t wait_us,
                 int (*take)(void *context, const struct pm_peer_event *event, struct pm_error *err),
                 void *context, struct pm_error *err);
/* When a lease that was taken at now_us (monotonic clock) is overdue; 0: never. */
int64_t pm_peer_deadline_us(const struct pm_msg_lease *lease, int64_t now_us);
struct pm_blobs *pm_peer_blobs(struct pm_peer *peer); /* after READY */

/* Progress on a held task; sends a beat when one is due. Call it at least every second while working. */
void pm_peer_progress(struct pm_peer *peer, uint64_t task, uint32_t permille);
void pm_peer_partial(struct pm_peer *peer, uint64_t task, const char *text);
/* Asks whether a held page was read before; PM_PEER_KNOWN answers, unless the connection breaks. False:
 * nobody can be asked now (no connection, or a broker that does not know the question). */
bool pm_peer_seen(struct pm_peer *peer, uint64_t task, const char *fingerprint);
/* Gives the result; the peer fills task, attempt and epoch from the lease, keeps it until it is acknowledged,
 * and returns its credit. */
void pm_peer_result(struct pm_peer *peer, uint64_t task, struct pm_msg_result *result);
/* Failure in short: code, text and whether trying again can help. */
void pm_peer_fail(struct pm_peer *peer, uint64_t task, const struct pm_error *error, bool is_final);
/* After a REVOKE: forget the task and return its credit. */
void pm_peer_release(struct pm_peer *peer, uint64_t task);
/* After STOP: is there something in hand that the broker could still be given? Then go on without new leases;
 * a second signal ends the process at once. */
bool pm_peer_can_finish(const struct pm_peer *peer);
uint32_t pm_peer_held(const struct pm_peer *peer); /* leases handed out by pm_peer_next and not ended */
/* Messages from the broker that were dropped: malformed, out of place, or beyond the credit given. */
uint64_t pm_peer_refused(const struct pm_peer *peer);

#endif
