/* The scheduler: which task runs where, and what its end means. Pure: no I/O, no clock (every call says what
 * time it is), no randomness but its seed, no globals. It decides; the shell (loop.c) writes and sends what
 * pm_sched_actions lists.
 *
 * A job is one document. Its tasks, and who serves them:
 *
 *     open (layoutd) -> page xN (layoutd) -> region xM (worker) -> assemble-page (collector)
 *                                                          all pages final -> assemble-document (collector)
 *
 * Order. Five priorities; a level that waits rises by one for every `age_us` without a lease, so that none
 * starves. Inside a level the client that had the least work so far is next (virtual-time fair queueing: it
 * is charged what the task is predicted to take, by its cost and by what such cost of this client took
 * lately, and the account is put right by what it took; who comes late begins at the least account of those
 * that wait). Inside a client the lowest job, in a job the lowest page, in a page the longest region:
 * documents finish one after the other and the first page is out early. At the end of a job that is alone the
 * longest region of all goes first once it takes as long as the rest. Each task goes to the peer with the
 * least to do. Layoutd and collectors, which do one thing after the other, hold little that waits, so that
 * urgent work passes. Page tasks are held back while the crop sheets in flight fill the pixel budget, or
 * while their reader has plenty of their client to do; those are set aside when other readers are served, as
 * are those of a reader that no worker has, so that they stand in nobody's way.
 *
 * Memory. A job that waits or has ended is a stub of 48 bytes and sleeps in the journal (sched_store.c). What
 * is done in every turn depends on peers, leases and clients, never on how many jobs there are.
 *
 * Fencing. A lease is (task, epoch, attempt). The epoch is the broker's start, synced before anything is
 * sent; the attempt is generation << 8 | issue: the generation grows, synced, whenever a page or job is begun
 * anew. A result counts only while its lease is the task's current one, so each task has one committed
 * result, whoever answers late.
 *
 * Failures have classes: input (never tried again), crash (twice on the same task: quarantined), timeout,
 * resources, lost input (the page is laid out again), other; five attempts in all with exponential back-off.
 * A task that was there when its worker ended or stalled is a suspect and runs alone from then on, so that a
 * poison region does not take its neighbours along.
 *
 * Ownership: everything passed in is borrowed for the call and copied; strings given out live until the next
 * change of the job. Threads: one owner. Errors: pm_error for what a caller asked wrongly; hostile input of
 * peers is refused, never asserted. */
#ifndef PM_BROKER_SCHEDULER_H
#define PM_BROKER_SCHEDULER_H

#include "broker/actions.h"
#include "broker/task.h"

#define PM_SCHED_LEVELS 5u
#define PM_SCHED_KINDS  5u /* enum pm_task_kind less 1 */

struct pm_now {
    int64_t us;      /* monotonic */
    int64_t wall_us; /* for people */
};

struct pm_job_image;
struct pm_sched_config { /* 0: the default in brackets */
    uint64_t epoch, seed;
    uint64_t first_job;          /* number of the next job [1] */
    uint32_t max_jobs;           /* unfinished ones [2000000] */
    uint64_t pixel_budget_bytes; /* [512 MiB] */
    uint32_t max_attempts;       /* [5] */
    uint32_t max_crashes;        /* [2] */
    int64_t stall_us;            /* no progress for this long, at least [5 s] */
    int64_t age_us;              /* [10 s] */
    int64_t adopt_us;            /* after a restart: how long peers may re-present leases [0] */
    int64_t readers_us; /* how long after the start a job may wait for a reader nobody serves [10 s] */
    /* Sleeping jobs: `load` reads a job back that was written (its row; no pages needed). What it fills in
     * must live until the caller's turn ends. NULL: all jobs stay in memory whole. */
    int (*load)(void *ctx, uint64_t job, struct pm_job_image *out, struct pm_error *err);
    void *load_ctx;
    uint32_t awake_jobs; /* kept in memory whole, beside those at work [4096] */
};

struct pm_sched;
struct pm_sched *pm_sched_new(const struct pm_sched_config *config);
void pm_sched_free(struct pm_sched **sched);
/* What is to be done; the caller carries it out and clears it (pm_actions_clear) once a turn. */
struct pm_actions *pm_sched_actions(struct pm_sched *sched);

/* ---- recovery ---- */
enum pm_page_stage { PM_STAGE_LAYOUT = 1, PM_STAGE_REGIONS, PM_STAGE_DONE, PM_STAGE_FAILED };
struct pm_region_image {
    uint32_t region;
    bool is_failed; /* otherwise done */
};
struct pm_page_image {
    uint32_t page, width, height, generation, stage;
    const char *record, *sheet; /* REGIONS */
    uint64_t sheet_bytes;
    const uint32_t *costs;
    uint32_t cost_count;
    const char *blob;                     /* DONE */
    uint32_t regions, regions_failed;     /* DONE */
    const char *error_code, *error_text;  /* FAILED */
    const struct pm_region_image *finals; /* REGIONS: regions with a committed end */
    uint32_t final_count;
};
struct pm_tries_image {
    uint64_t task;
    uint32_t fails, crashes;
    bool is_suspect;
};
struct pm_job_image {
    uint64_t job;
    struct pm_msg_submit submit;
    struct pm_job_info info; /* state, client, times, error; counts of finished jobs */
    uint32_t generation;
    bool is_open;                      /* pages are known */
    const struct pm_page_image *pages; /* ascending; not needed for finished jobs */
    uint32_t page_count;
    const struct pm_tries_image *tries;
    uint32_t tries_count;
    const char *blobs; /* that its result refers to, separated by blanks: the shell's business */
};
int pm_sched_restore(struct pm_sched *s, struct pm_now now, const struct pm_job_image *image,
                     struct pm_error *err);

/* Everybody who could re-present leases has come: work is given out from now on. */
void pm_sched_adopt_end(struct pm_sched *s);

/* ---- jobs ---- */
/* PM_EBUSY: full or draining. A known (client, key) gives the first job back. */
int pm_sched_submit(struct pm_sched *s, struct pm_now now, const char *client,
                    const struct pm_msg_submit *submit, uint64_t *job_out, bool *duplicate_out,
                    struct pm_error *err);
/* What a submit without a reader means: "fast", or the only one that there is. */
const char *pm_sched_default_reader(const struct pm_sched *s);
bool pm_sched_has_readers(const struct pm_sched *s); /* workers have come */
/* From now on other models read with this reader: what is at work is not remembered under the ones before. */
void pm_sched_model_changed(struct pm_sched *s, struct pm_now now, const char *reader);
/* PM_EUNSUPPORTED: workers have come, and none has this reader. PM_EBUSY: too many unknown ones. */
int pm_sched_check_reader(const struct pm_sched *s, const char *reader, struct pm_error *err);
/* PM_EBUSY: with a worker that names these there would be too many different readers. */
int pm_sched_check_worker(const struct pm_sched *s, const char *const *readers, uint32_t count,
                          struct pm_error *err);
/* The job that a client's key stands for; 0 when none. */
uint64_t pm_sched_known(const struct pm_sched *s, const char *client, const char *key);
/* Keys that begin so are the broker's own (known.h): a job that does not end well gives its key up, so that
 * the next submit of the document is a new job. */
#define PM_SCHED_OWN_KEY '='
int pm_sched_cancel(struct pm_sched *s, struct pm_now now, uint64_t job, struct pm_error *err);
/* What a retry of a job would find. */
enum pm_retry_need {
    PM_RETRY_REFUSED,   /* no such job, or not finished, or nothing failed: pm_sched_retry says which */
    PM_RETRY_NEEDED,    /* it has failed parts, or was cancelled */
    PM_RETRY_UNDER_WAY, /* it was brought back before: a second retry means the same */
};
enum pm_retry_need pm_sched_retry_need(const struct pm_sched *s, uint64_t job);
/* Failed parts again, or everything when no page was read. `image` is the finished job as journalled, with
 * its pages. */
int pm_sched_retry(struct pm_sched *s, struct pm_now now, const struct pm_job_image *image,
                   struct pm_error *err);
int pm_sched_forget(struct pm_sched *s, uint64_t job, struct pm_error *err);
/* Borrowed strings, good for this turn; false when there is no such job. errors are left empty. A sleeping
 * job is read back for it. */
bool pm_sched_info(const struct pm_sched *s, uint64_t job, struct pm_job_info *out);
/* Of pm_sched_info only this, and without reading anything back. enum pm_job_state; 0: no such job. */
uint32_t pm_sched_state(const struct pm_sched *s, uint64_t job);
const char *pm_sched_client(const struct pm_sched *s, uint64_t job); /* "" when there is no such job */
bool pm_sched_in_batch(const struct pm_sched *s, uint64_t job, const char *batch);
struct pm_sched_filter { /* 0, NULL, "": any */
    uint32_t state;
    bool is_live; /* queued or running */
    const char *batch;
    const char *client; /* NULL: any */
};
/* Jobs from `*cursor` - 1 downwards (newest first; start with 0). 0: at the end. */
uint64_t pm_sched_next_job(const struct pm_sched *s, uint64_t *cursor, const struct pm_sched_filter *filter);
bool pm_sched_list(const struct pm_sched *s, uint64_t *cursor, const struct pm_sched_filter *filter,
                   struct pm_job_info *out);
/* All that was decided so far is in the journal: jobs that need not be in memory may leave it. */
void pm_sched_written(struct pm_sched *s);
/* A job that ended `ttl_us` ago or before; the look goes round, a slice a call. 0: none in this slice. */
uint64_t pm_sched_expired(struct pm_sched *s, struct pm_now now, int64_t ttl_us);
/* A page whose crop sheet, or whose assembled blob, is gone is laid out again. */
void pm_sched_page_lost(struct pm_sched *s, struct pm_now now, uint64_t job, uint32_t page);
/* Visits every crop sheet that pages in flight refer to. */
void pm_sched_sheets(const struct pm_sched *s,
                     void (*visit)(void *ctx, uint64_t job, uint32_t page, const char *sheet), void *ctx);

/* ---- peers ---- */
struct pm_sched_peer {
    enum pm_role role;
    const char *name, *version; /* for the log of attempts; NULL: "" */
    const char *const *readers; /* workers */
    uint32_t reader_count;
    uint64_t granted; /* first credit */
    uint64_t leased;  /* leases it has already (re-presented ones), which count against its credit */
};
enum pm_peer_end {
    PM_PEER_LEFT,    /* said goodbye: what it held is given back without blame */
    PM_PEER_KILLED,  /* SIGKILL, or the connection broke: blamed lightly */
    PM_PEER_CRASHED, /* any other signal or exit: blamed on what it held */
};
/* What a peer has leased, at most `most` of it. Count. */
uint32_t pm_sched_peer_tasks(const struct pm_sched *s, uint32_t peer, uint64_t *out, uint32_t most);
/* Later news of a process that ended as PM_PEER_KILLED: it had crashed. The blame of its tasks is made
 * heavier; whoever has them now goes on unless that makes one a second crash. */
void pm_sched_crashed(struct pm_sched *s, struct pm_now now, const uint64_t *tasks, uint32_t count);
uint32_t pm_sched_peer_join(struct pm_sched *s, struct pm_now now, const struct pm_sched_peer *facts);
void pm_sched_peer_end(struct pm_sched *s, struct pm_now now, uint32_t peer, enum pm_peer_end how);
/* It greets again after a lost connection: credit starts anew, leases stay. */
void pm_sched_peer_rejoin(struct pm_sched *s, uint32_t peer, uint64_t granted, uint64_t leased);
/* It cannot be reached just now: no new leases until it is heard of (pm_sched_alive). */
void pm_sched_mute(struct pm_sched *s, uint32_t peer);
void pm_sched_credit(struct pm_sched *s, uint32_t peer, uint64_t granted);
/* A lease that a peer re-presents after a reconnect: true when it may keep it (it is the peer's now). */
bool pm_sched_held(struct pm_sched *s, struct pm_now now, uint32_t peer, const struct pm_held *held);
/* After a HELLO: leases of the peer that it did not re-present never reached it; they are given back. */
void pm_sched_unheld(struct pm_sched *s, struct pm_now now, uint32_t peer, const struct pm_held *held,
                     uint32_t held_count);
void pm_sched_alive(struct pm_sched *s, uint32_t peer); /* it sent something */
void pm_sched_beat(struct pm_sched *s, struct pm_now now, uint32_t peer, uint64_t task, uint32_t attempt);
/* 0: counted (a failure is, too); PM_EGONE: fenced, somebody else has it or nobody wants it; PM_EPROTO: what
 * it says cannot be, taken as a failed attempt. */
int pm_sched_result(struct pm_sched *s, struct pm_now now, uint32_t peer, const struct pm_msg_result *result,
                    struct pm_error *err);
bool pm_sched_is_current(const struct pm_sched *s, uint32_t peer, uint64_t task, uint32_t attempt);
uint32_t pm_sched_peer_leases(const struct pm_sched *s, uint32_t peer);
uint32_t pm_sched_peer_room(const struct pm_sched *s, uint32_t peer); /* credit left */

/* ---- leases ---- */
struct pm_lease_facts {
    uint64_t epoch, deadline_us;
    uint32_t attempt;
    int64_t sent_us; /* when it was given */
    int64_t wait_us; /* how long it had been ready; -1: unknown (not the first try, or taken over) */
    const struct pm_msg_submit *submit;
    const char *record, *sheet;
};
/* What a LEASE message says; false when the lease is gone. */
bool pm_sched_lease_facts(const struct pm_sched *s, uint64_t task, struct pm_lease_facts *out);
/* The message did not leave: the task is ready again, nobody is blamed. */
void pm_sched_lease_unsent(struct pm_sched *s, struct pm_now now, uint64_t task);
/* The lease cannot be served, whoever gets it (its input is too large, for example). */
void pm_sched_lease_impossible(struct pm_sched *s, struct pm_now now, uint64_t task, int code,
                               const char *text);

/* ---- time ---- */
/* Stalls, deadlines, back-off that is over. */
void pm_sched_tick(struct pm_sched *s, struct pm_now now);
/* Gives ready tasks to peers with credit. Last call of a turn before the commit. */
void pm_sched_assign(struct pm_sched *s, struct pm_now now);
/* When pm_sched_tick has something to do; INT64_MAX: not by itself. */
int64_t pm_sched_next_us(const struct pm_sched *s, struct pm_now now);
/* Draining: no submits, no new open and page tasks; what was begun goes on. */
void pm_sched_drain(struct pm_sched *s, bool is_draining);
/* While the disk is full, work that fails for want of space waits and is not counted as failed. */
void pm_sched_disk_full(struct pm_sched *s, bool is_full);
size_t pm_sched_lease_count(const struct pm_sched *s);

/* ---- figures ---- */
struct pm_sched_kind_stats {
    uint64_t queued, leased, oldest_us, done, failed, retried;
};
struct pm_sched_stats {
    struct pm_sched_kind_stats kinds[PM_SCHED_KINDS];
    uint64_t jobs[6]; /* by enum pm_job_state */
    uint64_t pages_done, regions_done, pixel_bytes;
    uint64_t fenced, adopted, quarantined, stalled, deadlines, crashes, lost_inputs, unsent, page_reruns;
    uint64_t protocol_errors, kills, late_jobs;
};
void pm_sched_stats(struct pm_sched *s, struct pm_now now, struct pm_sched_stats *out);
/* sched_figures.c */
struct pm_sched_peer_figures {
    uint32_t leases, room;  /* room: credit left */
    bool is_alone;          /* runs a suspect */
    bool is_stalled;        /* owes a sign of life */
    bool is_away;           /* cannot be reached just now */
    uint64_t task, task_us; /* its oldest lease and the age of that; 0: none */
};
bool pm_sched_peer_figures(const struct pm_sched *s, struct pm_now now, uint32_t peer,
                           struct pm_sched_peer_figures *out);
/* The readers of a worker, one by one; NULL behind the last. */
const char *pm_sched_peer_reader(const struct pm_sched *s, uint32_t peer, uint32_t index);
struct pm_sched_reader_figures {
    const char *reader;
    uint32_t workers, pages; /* pages: laid out for it, not assembled */
    struct pm_sched_kind_stats region;
};
/* Readers that workers have or jobs asked for, from index 0; false behind the last. */
bool pm_sched_reader_figures(struct pm_sched *s, struct pm_now now, size_t index,
                             struct pm_sched_reader_figures *out);

#endif
