/* The scheduler's own structures, shared by its files: scheduler.c (jobs), sched_store.c (jobs in memory),
 * sched_queue.c (order), sched_task.c (results and failures), sched_lease.c (peers, leases, time). */
#ifndef PM_BROKER_SCHED_INTERNAL_H
#define PM_BROKER_SCHED_INTERNAL_H

#include "base/map.h"
#include "base/mem.h"
#include "broker/scheduler.h"

enum task_state { TASK_NONE, TASK_READY, TASK_WAIT, TASK_LEASED, TASK_DONE, TASK_FAILED };

/* What is remembered of any task: four bytes, because there are millions of regions. */
struct tries {
    uint8_t state : 3, is_suspect : 1, needs_disk : 1;
    uint8_t kills : 3; /* its process was killed, since the last attempt that counts */
    uint8_t issue;     /* leases given in this generation and epoch */
    uint8_t fails;     /* attempts that count */
    uint8_t crashes;   /* of them, ended their process */
};

struct region {
    uint32_t cost; /* 0: a picture, no task */
    struct tries t;
};

struct page {
    uint32_t page, width, height, generation;
    uint8_t stage, reruns; /* enum pm_page_stage */
    struct tries layout, assemble;
    uint32_t region_count, regions_open, regions_ready, regions_failed, regions_wanted;
    uint32_t cursor; /* no ready region before this place in the order */
    uint16_t *order; /* of regions: the longest first */
    struct region *regions;
    char *record, *sheet, *fingerprint;
    uint64_t sheet_bytes;
    int64_t ready_us; /* since when what it does next is ready: its layout, its regions or its assembly */
};

/* Smallest first; entries may be stale, whoever pops checks. */
struct heap {
    uint64_t *items;
    size_t count, capacity, prune_at;
};
void pm_heap_push(struct heap *h, uint64_t item);
void pm_heap_pop(struct heap *h);
void pm_heap_free(struct heap *h);

/* Queues by who serves them. Each has two doors: layout: open, page; region: region; collect: page, doc. */
enum { QUEUE_LAYOUT, QUEUE_COLLECT, QUEUE_REGION /* first of the readers' queues */ };
enum { SLOT_LAYOUT, SLOT_COLLECT, SLOT_REGION, SLOT_COUNT }; /* a job's place in at most three queues */

struct place {
    bool is_queued[2];
    uint32_t ready[2];
};

#define PM_DEFAULT_READER "fast"
#define PM_STUB_KEY_BYTES 16

/* Any job, however many there are. */
struct stub {
    uint8_t key[PM_STUB_KEY_BYTES]; /* hash of client and idempotency key; zero: none */
    uint64_t batch;                 /* hash; 0: none */
    int64_t time_us;                /* queued and asleep: ready since; ended: when, pm_steady_us */
    uint32_t client, region_queue, generation;
    uint8_t state, priority;  /* state 0: no job */
    uint8_t is_awake : 1;     /* there is a struct job */
    uint8_t has_own_key : 1;  /* PM_SCHED_OWN_KEY */
    uint8_t has_failures : 1; /* ended, and pages or regions of it failed */
};

/* A job at work, or lately submitted or ended. */
struct job {
    uint64_t id;
    struct stub *stub;
    struct pm_msg_submit submit; /* strings in `strings` */
    char *strings;
    const char *client, *stem;
    char *error_code, *error_text; /* NULL: none */
    uint32_t state, generation;
    int64_t created_wall_us, started_wall_us, finished_wall_us;
    int64_t ready_us; /* since when open, or later assemble-document, is ready */
    int64_t deadline_from_us;
    int64_t mark_us[2]; /* the job's rate: what was done at these times */
    double mark_parts[2];
    uint32_t pages_laid; /* in regions or done */
    bool is_open;
    bool is_resting; /* in the list of those that may fall asleep */
    struct tries open, doc;
    struct page *pages;
    uint32_t page_count, pages_open;
    uint32_t pages_total, pages_done, pages_failed, regions, regions_done, regions_failed, retries,
        pages_known;
    uint32_t region_queue;
    struct place place[SLOT_COUNT];
    struct heap ready_pages, ready_regions, ready_assemble; /* page indexes */
};

/* A client's place in one queue. */
struct lane {
    uint32_t client;
    double served_us; /* work, in the queue's virtual time */
    bool is_new;
    /* What its tasks took lately, and were predicted to take by what others' do: one client's tables may be
     * worth three times their cost. */
    double measured_us, predicted_us;
    /* region queues */
    uint64_t ready;      /* regions */
    uint32_t laying;     /* pages that are being laid out */
    double page_regions; /* that pages had lately */
    struct heap jobs[PM_SCHED_LEVELS][2];
};
#define PM_MEMORY 0.98 /* what was fifty results ago counts a third */

/* What cost took lately, older things counting less and less; all 0: not known yet. */
struct speed {
    double run_us, run_cost;   /* from lease to result: for predictions of when */
    double work_us, work_cost; /* of a worker's time: for shares */
};
struct queue {
    char *reader; /* region queues */
    struct lane *lanes;
    size_t lane_count, lane_capacity;
    double clock_us;
    int64_t served_us[PM_SCHED_LEVELS];
    size_t entries[PM_SCHED_LEVELS];
    uint64_t ready[2];
    /* region queues */
    struct speed speed;
    uint64_t ready_cost;
    int64_t model_us; /* when its workers' model changed last */
    uint32_t servers; /* workers with this reader, now */
    bool was_served;  /* ... or once */
    uint32_t pages;   /* laid out for it, not assembled */
    uint64_t room;    /* regions that its workers hold or could take */
    uint64_t regions_done, regions_failed, regions_retried;
    uint32_t *parked; /* jobs that left the layout queue */
    size_t parked_count, parked_capacity;
};

struct lease {
    uint64_t task, epoch;
    uint32_t attempt, peer, cost;
    uint32_t client, queue; /* pages: whose, and for which readers */
    int64_t sent_us, progress_us, stall_us, deadline_us;
    int64_t wait_us; /* from ready to leased; -1: unknown, it was tried before or taken over */
    double base_us;  /* predicted work by its cost */
    double work_us;  /* ... and by its client, who is charged that */
    double known_us; /* the same, when that is more than a guess */
    uint64_t reserved_bytes;
    bool is_suspect;
};

struct peer {
    uint32_t id;
    enum pm_role role;
    char *name, *version;
    uint32_t *queues, queue_count; /* indexes of queues */
    uint64_t granted, leased;
    struct lease **leases;
    size_t lease_count, lease_capacity;
    uint32_t suspects; /* leases of them: one, or what it brought along from before */
    bool is_mute;
    double backlog_us;   /* predicted work of its leases, as far as it is known */
    double load_us;      /* the same with guesses */
    int64_t begun_us;    /* since when it works on the first of them, as far as can be told */
    int64_t stalled_us;  /* 0: fine; otherwise since when it owes a sign of life */
    uint64_t capacity;   /* granted when it joined: what it holds at most */
    int64_t owes_us;     /* 0: fine; otherwise since when it keeps a lease that was taken from it, */
    int64_t patience_us; /* and for how long it may */
};

struct timer {
    int64_t when;
    uint64_t task;
    uint32_t mark; /* back-off: what the task had behind it; another one was set since when that differs */
};
struct timers { /* the earliest first */
    struct timer *items;
    size_t count, capacity;
};

struct client {
    char *name;
    uint32_t users; /* jobs and lanes */
};
struct clients {
    struct client *items;
    size_t count, capacity;
    uint32_t *free; /* places in items, counted from 1 */
    size_t free_count, free_capacity;
    struct pm_strmap by_name; /* -> place, counted from 1 */
};
struct keys { /* open addressing; the keys are in the stubs, a part of each is here */
    struct key_slot {
        uint32_t job, part; /* job 0: empty */
    } * slots;
    size_t count, capacity;
};
struct ids { /* first in, first out */
    uint32_t *ids;
    size_t first, count, capacity, prune_at;
};

struct pm_sched {
    struct pm_sched_config config;
    struct pm_actions actions;
    uint64_t random;
    uint64_t next_job, oldest_job;
    struct pm_map chunks; /* id / 64 -> struct chunk of stubs */
    struct pm_map jobs;   /* id -> struct job, those that are awake */
    struct clients clients;
    struct keys keys;
    char *last_batch; /* jobs of one batch come one after the other */
    uint64_t last_batch_hash;
    uint64_t expiry_at;        /* the look for jobs that ended long ago has come down to here */
    struct ids resting, young; /* ended or submitted jobs that are awake and may fall asleep */
    struct queue **queues;
    size_t queue_count, queue_capacity;
    struct peer **peers;
    size_t peer_count, peer_capacity;
    uint32_t reader_count; /* that workers have, now */
    uint32_t next_peer;
    size_t turn;             /* which peer is asked first */
    struct pm_map leases;    /* task -> struct lease */
    struct timers timers;    /* back-off of tasks */
    struct timers deadlines; /* of jobs: number << 32 | generation */
    size_t deadlines_prune_at;
    struct ids unsure; /* jobs accepted for a reader that nobody has had yet */
    struct candidate *candidates;
    size_t candidate_capacity;
    int64_t adopt_until_us, now_us, wall_us, ticked_us;
    int64_t due_us;        /* no lease is overdue before */
    int64_t wall_start_us; /* pm_steady_us; 0: not yet */
    int64_t readers_until_us;
    bool is_draining, was_watching, is_disk_full;
    uint64_t sheet_bytes, reserved_bytes;
    struct speed speeds[PM_SCHED_KINDS]; /* regions: see their queues */
    double bytes_per_pixel;
    struct pm_sched_stats stats;
};

/* One task, found by its number. */
struct ref {
    struct job *job;
    struct page *page; /* NULL: open, assemble-document */
    enum pm_task_kind kind;
    uint32_t slot, generation;
    uint64_t task;
    struct tries *t;
};

/* How a failed attempt is counted. */
enum fail_class { FAIL_INPUT, FAIL_CRASH, FAIL_KILL, FAIL_TIMEOUT, FAIL_RESOURCES, FAIL_LOST, FAIL_OTHER };
struct failure {
    enum fail_class why;
    int code;
    const char *text;
    uint32_t attempt;        /* of the lease that ended; 0: nobody had it */
    const struct peer *peer; /* who had it; NULL: nobody */
};

/* sched_store.c */
struct stub *pm_stub_find(const struct pm_sched *s, uint64_t id);
struct stub *pm_stub_new(struct pm_sched *s, uint64_t id, const char *client, const struct pm_msg_submit *m,
                         uint32_t state);
bool pm_stub_may_sleep(const struct pm_sched *s);
struct job *pm_sched_find(const struct pm_sched *s, uint64_t id); /* only when awake */
struct job *pm_job_body(struct pm_sched *s, uint64_t id, const struct pm_msg_submit *m);
struct job *pm_job_wake(struct pm_sched *s, uint64_t id, struct pm_error *err); /* NULL: not readable */
void pm_job_set_state(struct pm_sched *s, uint64_t id, uint32_t state);
void pm_job_free_pages(struct pm_sched *s, struct job *j);
void pm_job_drop_key(struct pm_sched *s, uint64_t id);
void pm_job_forget(struct pm_sched *s, uint64_t id);
void pm_store_free(struct pm_sched *s);
uint32_t pm_client_use(struct pm_sched *s, const char *name);
void pm_client_drop(struct pm_sched *s, uint32_t client);
const char *pm_client_name(const struct pm_sched *s, uint32_t client);
void pm_ids_push(struct ids *q, uint64_t id);
/* Drops what nobody wants any more, once there is twice as much as was left the last time. */
void pm_ids_prune(const struct pm_sched *s, struct ids *q,
                  bool (*is_wanted)(const struct pm_sched *, uint64_t));
/* The wall clock as it was at the start, and what has passed since: setting the clock ends no results. */
int64_t pm_steady_us(struct pm_sched *s, struct pm_now now);

/* scheduler.c */
struct page *pm_job_page(const struct job *j, uint32_t number);
bool pm_sched_ref(const struct pm_sched *s, uint64_t task, struct ref *out);
struct ref pm_ref_of(struct job *j, struct page *p, uint32_t slot);
void pm_sched_event(struct pm_sched *s, const struct job *j, enum pm_event_kind kind, const struct page *p,
                    uint32_t region, const char *blob, const char *text);
void pm_job_run(struct pm_sched *s, struct pm_now now, struct job *j);
/* As pm_job_finish, of a job that sleeps: it was queued and nothing of it was begun. */
void pm_stub_finish(struct pm_sched *s, struct pm_now now, uint64_t id, enum pm_job_state state,
                    const char *code, const char *text);
double pm_job_parts(const struct job *j);
void pm_job_moved(struct job *j, struct pm_now now);
uint64_t pm_job_eta_us(const struct job *j, int64_t now_us);
void pm_jobs_tick(struct pm_sched *s, struct pm_now now); /* deadlines */
int64_t pm_jobs_next_us(const struct pm_sched *s);
void pm_job_finish(struct pm_sched *s, struct pm_now now, struct job *j, enum pm_job_state state,
                   const char *code, const char *text, const struct pm_msg_result *result);
void pm_page_forget_sheet(struct pm_sched *s, const struct job *j, struct page *p);
void pm_task_stop(struct pm_sched *s, const struct ref *r, const char *reason);
void pm_page_stop(struct pm_sched *s, struct job *j, struct page *p, const char *reason);
void pm_page_reset(struct pm_sched *s, struct job *j, struct page *p);

/* sched_queue.c */
void pm_queue_sleeper(struct pm_sched *s, uint64_t id, const struct stub *stub); /* its open task is ready */
void pm_queue_unsleeper(struct pm_sched *s);                                     /* ... is not any more */
uint32_t pm_queue_of_reader(struct pm_sched *s, const char *reader);
void pm_task_ready(struct pm_sched *s, const struct ref *r);
void pm_task_unready(struct pm_sched *s, const struct ref *r); /* READY -> NONE */
/* The next ready task of a queue, still READY; doors: bit 0 and bit 1 of what may be taken. */
bool pm_queue_next(struct pm_sched *s, uint32_t queue, unsigned doors, struct ref *out);
/* The client gets so much work done; corrected when it is known better. */
/* A page is being laid out for a reader, or not any more. */
void pm_queue_laying(struct pm_sched *s, uint32_t queue, uint32_t client, int change);
void pm_queue_laid(struct pm_sched *s, const struct ref *r);
void pm_queue_charge(struct pm_sched *s, const struct ref *r, double work_us);
void pm_queue_correct(struct pm_sched *s, const struct ref *r, double more_us);
/* Of this client: what its tasks take beside what is predicted for all. */
double pm_queue_factor(struct pm_sched *s, const struct ref *r);
void pm_queue_learn(struct pm_sched *s, const struct ref *r, double base_us, double measured_us);
bool pm_queue_has(const struct pm_sched *s, uint32_t queue);
struct speed *pm_queue_speed(struct pm_sched *s, const struct ref *r);
/* Has a reader as much laid out as it can use for a while? Never of a reader that nobody has. With a job:
 * not while its client has little of that. */
bool pm_queue_has_plenty(const struct pm_sched *s, const struct queue *q, const struct job *j);
/* The order in which the regions of a page are given out. */
void pm_page_order(struct page *p);
/* Since when the oldest ready task behind a door waits; INT64_MAX: none does. */
int64_t pm_queue_oldest_us(struct pm_sched *s, uint32_t queue, unsigned door);
/* Pages that were set aside come back: a first worker with this reader is here, or it has no plenty any more.
 */
void pm_queue_unpark(struct pm_sched *s, uint32_t queue);

/* sched_task.c */
/* An attempt failed: it is written down, and the task is tried again or given up. Its lease has ended. */
void pm_task_fail(struct pm_sched *s, struct pm_now now, const struct ref *r, const struct failure *f);
enum fail_class pm_fail_class(int code, bool is_final);
void pm_page_begin_regions(struct pm_sched *s, struct job *j, struct page *p);
void pm_page_check(struct pm_sched *s, struct pm_now now, struct job *j, struct page *p);
void pm_job_check(struct pm_sched *s, struct pm_now now, struct job *j);
void pm_page_rerun(struct pm_sched *s, struct pm_now now, struct job *j, struct page *p, const char *why);

/* sched_lease.c */
struct peer *pm_peer_find(const struct pm_sched *s, uint32_t id); /* NULL: none */
void pm_lease_end(struct pm_sched *s, struct lease *l); /* frees it; the task's state is the caller's */
void pm_lease_revoke(struct pm_sched *s, uint64_t task, const char *reason); /* and tells the peer */
void pm_timer_add(struct timers *t, int64_t when, uint64_t task, uint32_t mark);
void pm_task_wait(struct pm_sched *s, const struct ref *r, int64_t until_us); /* NONE, WAIT -> WAIT */
uint64_t pm_timer_pop(struct timers *t);
uint32_t pm_task_cost(const struct ref *r);

#endif
