/* The scheduler's own structures, shared by its four files: scheduler.c (jobs), sched_queue.c (order),
 * sched_task.c (results and failures), sched_lease.c (peers, leases, time). */
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
    uint32_t cursor; /* no ready region before this one */
    struct region *regions;
    char *record, *sheet, *fingerprint;
    uint64_t sheet_bytes;
    int64_t ready_us; /* since when what it does next is ready: its layout, its regions or its assembly */
};

/* Smallest first; entries may be stale, whoever pops checks. */
struct heap {
    uint64_t *items;
    size_t count, capacity;
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
    int64_t since_us[2]; /* ready and not served since */
};

struct job {
    uint64_t id;
    struct pm_msg_submit submit; /* strings in `strings` */
    char *strings;
    const char *client, *stem;
    char *error_code, *error_text; /* NULL: none */
    uint32_t state, generation;
    int64_t created_wall_us, started_wall_us, finished_wall_us;
    int64_t ready_us; /* since when open, or later assemble-document, is ready */
    bool is_open;
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
    char *client;
    double served; /* cost, in the queue's virtual time */
    struct heap jobs[PM_SCHED_LEVELS][2];
};
struct queue {
    char *reader; /* region queues */
    struct lane *lanes;
    size_t lane_count, lane_capacity;
    double clock;
    int64_t served_us[PM_SCHED_LEVELS];
    size_t entries[PM_SCHED_LEVELS];
    uint64_t ready[2];
    /* region queues */
    uint32_t servers; /* workers with this reader, now */
    bool was_served;  /* ... or once */
    uint32_t pages;   /* laid out for it, not assembled */
    uint64_t room;    /* regions that its workers hold or could take */
    bool has_parked;  /* jobs left the layout queue because it has plenty */
    uint64_t regions_done, regions_failed, regions_retried;
};

struct lease {
    uint64_t task, epoch;
    uint32_t attempt, peer, cost;
    int64_t sent_us, progress_us, stall_us, deadline_us;
    int64_t wait_us; /* from ready to leased; -1: unknown, it was tried before or taken over */
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
    bool has_suspect, is_mute;
    int64_t stalled_us; /* 0: fine; otherwise since when it owes a sign of life */
};

struct timer {
    int64_t when;
    uint64_t task;
};

struct pm_sched {
    struct pm_sched_config config;
    struct pm_actions actions;
    uint64_t random;
    uint64_t next_job, oldest_job;
    struct pm_map jobs;      /* id -> struct job */
    struct pm_strmap by_key; /* client \x1f key -> struct job */
    uint64_t *expiry;        /* finished jobs in the order of their end, from expiry_first */
    size_t expiry_first, expiry_count, expiry_capacity;
    struct queue **queues;
    size_t queue_count, queue_capacity;
    struct peer **peers;
    size_t peer_count, peer_capacity;
    uint32_t reader_count; /* that workers have, now */
    uint32_t next_peer;
    size_t turn;          /* which peer is asked first */
    struct pm_map leases; /* task -> struct lease */
    struct timer *timers; /* min-heap */
    size_t timer_count, timer_capacity;
    int64_t adopt_until_us, now_us, scanned_us;
    bool is_draining, was_watching, is_disk_full;
    uint64_t sheet_bytes, reserved_bytes;
    double us_per_cost[PM_SCHED_KINDS], bytes_per_pixel;
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

/* scheduler.c */
struct job *pm_sched_find(const struct pm_sched *s, uint64_t id);
struct page *pm_job_page(const struct job *j, uint32_t number);
bool pm_sched_ref(const struct pm_sched *s, uint64_t task, struct ref *out);
struct ref pm_ref_of(struct job *j, struct page *p, uint32_t slot);
void pm_sched_event(struct pm_sched *s, const struct job *j, enum pm_event_kind kind, const struct page *p,
                    uint32_t region, const char *blob, const char *text);
void pm_job_run(struct pm_sched *s, struct pm_now now, struct job *j);
void pm_job_finish(struct pm_sched *s, struct pm_now now, struct job *j, enum pm_job_state state,
                   const char *code, const char *text, const struct pm_msg_result *result);
void pm_page_forget_sheet(struct pm_sched *s, const struct job *j, struct page *p);
void pm_task_stop(struct pm_sched *s, const struct ref *r, const char *reason);
void pm_page_stop(struct pm_sched *s, struct job *j, struct page *p, const char *reason);
void pm_page_reset(struct pm_sched *s, struct job *j, struct page *p);

/* sched_queue.c */
uint32_t pm_queue_of_reader(struct pm_sched *s, const char *reader);
void pm_task_ready(struct pm_sched *s, const struct ref *r);
void pm_task_unready(struct pm_sched *s, const struct ref *r); /* READY -> NONE */
/* The next ready task of a queue, still READY; doors: bit 0 and bit 1 of what may be taken. */
bool pm_queue_next(struct pm_sched *s, uint32_t queue, unsigned doors, struct ref *out);
void pm_queue_charge(struct pm_sched *s, uint32_t queue, const struct ref *r, uint32_t cost);
bool pm_queue_has(const struct pm_sched *s, uint32_t queue);
/* Has a reader as much laid out as it can use for a while? Never of a reader that nobody has. */
bool pm_queue_has_plenty(const struct pm_sched *s, const struct queue *q);
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
void pm_timer_add(struct pm_sched *s, int64_t when, uint64_t task);
uint32_t pm_task_cost(const struct ref *r);

#endif
