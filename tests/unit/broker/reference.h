/* What the scheduler must do, written a second time and as plainly as possible: jobs, tasks and leases in
 * flat arrays, no queues, no timers, no memory saved. It does not choose who gets what; it is told of each
 * lease and says whether that lease was allowed, which results count, what follows from them and what has to
 * be written. The model tests drive a scheduler and this side by side and compare after each step.
 *
 * A broken rule ends the test through ref_broken(), which its user defines: the text says what was expected.
 * Ownership: plain values, nothing allocated. Threads: one owner. */
#ifndef PM_TEST_BROKER_REFERENCE_H
#define PM_TEST_BROKER_REFERENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/actions.h"
#include "broker/scheduler.h"

#define REF_JOBS     24
#define REF_PAGES    6
#define REF_REGIONS  9
#define REF_PEERS    8
#define REF_STALL_US 5000000

enum ref_state { REF_NONE, REF_OPEN, REF_LEASED, REF_DONE, REF_FAILED };
enum ref_cause { REF_INPUT, REF_CRASH, REF_KILL, REF_TIMEOUT, REF_MEMORY, REF_FULL, REF_LOST, REF_OTHER };

struct ref_task {
    uint8_t state, fails, crashes, kills;
    bool is_suspect;
    int64_t needs_disk_us; /* since when it waits for room */
    uint32_t last;         /* attempt given last in this epoch and generation; 0: none */
    int64_t failed_us, not_before_us;
    /* of the lease */
    bool is_alone; /* it was a suspect when it was given */
    uint32_t peer, attempt;
    uint64_t epoch;
    int64_t sent_us, progress_us;
};
struct ref_page {
    uint32_t number, generation, stage, reruns;
    struct ref_task layout, assemble, regions[REF_REGIONS];
    bool is_text[REF_REGIONS]; /* has a task */
    uint32_t region_count, wanted, wanted_failed;
};
struct ref_job {
    uint64_t id; /* 0: free */
    uint32_t state, generation;
    char key[40]; /* client and key; "": none */
    bool is_open;
    struct ref_task open, doc;
    struct ref_page pages[REF_PAGES];
    uint32_t page_count;
    uint32_t done, failed, regions, regions_done, regions_failed; /* as told */
    uint32_t retries, retries_saved;
    uint32_t attempts; /* that failed and were written down */
};
struct ref_peer {
    uint32_t id; /* 0: not there */
    enum pm_role role;
    char name[16];
    uint64_t granted, given;
    bool is_stalled, is_mute;
};
struct ref_revoke {
    uint32_t peer, attempt;
    uint64_t task;
};
struct ref_line { /* something to be written */
    enum pm_op_kind kind;
    uint64_t task;                 /* or the job */
    uint32_t page, value, attempt; /* value: generation, fails, state, failed regions */
    uint32_t crashes;
    bool is_suspect;
    char cause, peer[16];
};
struct reference {
    struct ref_job jobs[REF_JOBS];
    struct ref_peer peers[REF_PEERS];
    uint64_t epoch;
    int64_t now_us, adopt_until_us, full_since_us;
    bool is_draining, is_disk_full;
    uint32_t max_jobs;
    /* of the turn: what has to be written, in any order, and which leases are taken back */
    struct ref_line lines[512];
    uint32_t line_count;
    struct ref_revoke revokes[64];
    uint32_t revoke_count;
    /* figures */
    uint64_t results, fenced, failures[8], quarantined, given_up, adopted, leases, timeouts, reruns,
        committed;
};

void ref_broken(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

struct ref_job *ref_job(struct reference *r, uint64_t id); /* NULL: none */
/* NULL: none, or its job has ended. */
struct ref_task *ref_task(struct reference *r, uint64_t task);
struct ref_peer *ref_peer(struct reference *r, uint32_t id);
bool ref_is_current(struct reference *r, uint32_t peer, uint64_t task, uint64_t epoch, uint32_t attempt);
uint32_t ref_live_jobs(const struct reference *r);

/* ---- what clients do; the answers to expect ---- */
int ref_submit(struct reference *r, uint64_t job_if_new, const char *client, const char *key,
               uint64_t *job_out);
int ref_cancel(struct reference *r, uint64_t job);
int ref_retry(struct reference *r, uint64_t job);
int ref_forget(struct reference *r, uint64_t job);

/* ---- what peers do ---- */
struct ref_peer *ref_join(struct reference *r, uint32_t id, enum pm_role role, const char *name,
                          uint64_t granted, uint64_t given);
void ref_end(struct reference *r, uint32_t peer, enum pm_peer_end how);
bool ref_held(struct reference *r, uint32_t peer, const struct pm_held *held);
/* After a HELLO: what it did not name is given back. */
void ref_unheld(struct reference *r, uint32_t peer, const struct pm_held *held, uint32_t count);
void ref_beat(struct reference *r, uint32_t peer, uint64_t task, uint32_t attempt);
/* A result: 0, PM_EGONE, or PM_EPROTO for a success that cannot be. */
int ref_result(struct reference *r, uint32_t peer, const struct pm_msg_result *m);
void ref_crash_news(struct reference *r, const uint64_t *tasks, uint32_t count);
void ref_page_lost(struct reference *r, uint64_t job, uint32_t page);
void ref_unsent(struct reference *r, uint64_t task);
void ref_impossible(struct reference *r, uint64_t task);
/* The broker was away for so long: nobody is blamed for it. */
void ref_slept(struct reference *r, int64_t us);

/* ---- what the broker does: checked, then taken over ---- */
void ref_lease(struct reference *r, uint32_t peer, uint64_t task, uint64_t epoch, uint32_t attempt);
void ref_revoke(struct reference *r, uint32_t peer, uint64_t task, uint32_t attempt, const char *reason);
void ref_disk_full(struct reference *r, bool is_full);
void ref_restart(struct reference *r, uint64_t epoch, int64_t adopt_us);
void ref_check_op(struct reference *r, const struct pm_op *op); /* it was expected, once */
void ref_turn_over(struct reference *r);                        /* nothing expected may be missing */
void ref_turn_drop(struct reference *r); /* of a broker that does not say what it writes */
void ref_check_job(struct reference *r, const struct pm_job_info *info);
void ref_check_times(struct reference *r, int64_t slack_us); /* no lease is older than it may be */

#endif
