/* What the scheduler decided and the shell carries out, in this order:
 *
 *   1. ops: rows to write, all of one turn of the loop in one transaction
 *   2. after the commit: sends (leases, revokes, kills) and events
 *
 * Nothing that another process can see may leave before the commit that it depends on. Ownership: everything
 * pointed to lives in the list's arena until pm_actions_clear. Threads: one owner. */
#ifndef PM_BROKER_ACTIONS_H
#define PM_BROKER_ACTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "proto/messages.h"

enum pm_op_kind {
    PM_OP_JOB_PUT,    /* job, client, submit, wall_us */
    PM_OP_JOB_RUN,    /* first lease: wall_us */
    PM_OP_JOB_OPEN,   /* document_pages, pages: rows of its pages */
    PM_OP_JOB_FINISH, /* state, code, text, manifest, blobs, counts, wall_us; drops what only a run needs */
    PM_OP_JOB_RETRY,  /* generation */
    PM_OP_JOB_DROP,   /* the job and everything of it */
    PM_OP_PAGE_LAID,  /* page, record, sheet, bytes, costs */
    PM_OP_PAGE_RESET, /* page, generation: to be laid out again */
    PM_OP_PAGE_DONE, /* page, blob, blobs, failed; fingerprint: remember it under that, blob_bytes, wall_us */
    PM_OP_PAGE_FAIL, /* page, code, text, fails */
    PM_OP_REGION_DONE, /* page, region, text bytes in data */
    PM_OP_REGION_FAIL, /* page, region, code, text, fails */
    PM_OP_TRIES,       /* task, fails, crashes, is_suspect */
    PM_OP_ATTEMPT,     /* one that failed: task, attempt, cause, code, text, peer, version, wall_us */
    PM_OP_BLAME,       /* task: its last attempt that was "killed" has crashed: cause, text */
    PM_OP_KNOWN_USED,  /* fingerprint, wall_us */
    PM_OP_KNOWN_DROP,  /* fingerprint */
    PM_OP_MODEL,       /* reader in client, the identity of its model in text */
};

struct pm_op {
    enum pm_op_kind kind;
    uint64_t job, task;
    uint32_t page, region, generation, state, attempt;
    uint32_t fails, crashes, failed;
    bool is_suspect, drops_key; /* drops_key: JOB_FINISH, the job gives its idempotency key up */
    int64_t wall_us;
    const char *client, *code, *text, *record, *sheet, *blob, *cause, *peer, *version, *fingerprint;
    const struct pm_msg_submit *submit;
    uint64_t bytes, blob_bytes;
    struct pm_bytes data; /* region text; manifest */
    const uint32_t *costs;
    uint32_t cost_count;
    const char *const *blobs;
    uint32_t blob_count;
    uint32_t document_pages;
    const struct pm_found_page *pages;
    uint32_t page_count;
    uint32_t counts[7]; /* JOB_FINISH: pages, done, failed, regions, done, failed, retries */
};

enum pm_action_kind {
    PM_ACTION_LEASE,  /* peer, task: pm_sched_lease_facts says the rest */
    PM_ACTION_REVOKE, /* peer, task, attempt, reason */
    PM_ACTION_KILL,   /* peer: wedged, end its process */
    PM_ACTION_EVENT,  /* job, event, page, region, blob, text */
};
struct pm_action {
    enum pm_action_kind kind;
    uint32_t peer, attempt;
    uint64_t task, job;
    enum pm_event_kind event;
    uint32_t page, region;
    const char *reason, *blob, *text;
};

struct pm_actions { /* zero-initialise */
    struct pm_arena arena;
    struct pm_op *ops;
    size_t op_count, op_capacity;
    struct pm_action *items;
    size_t item_count, item_capacity;
};
struct pm_op *pm_actions_op(struct pm_actions *a, enum pm_op_kind kind, uint64_t job);
struct pm_action *pm_actions_add(struct pm_actions *a, enum pm_action_kind kind);
const char *pm_actions_text(struct pm_actions *a, const char *text); /* a copy in the arena; "" for NULL */
void pm_actions_clear(struct pm_actions *a);
void pm_actions_free(struct pm_actions *a);

#endif
