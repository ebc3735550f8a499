/* The shell around the scheduler: sockets, journal, blobs, connections, and the loop that ties them.
 *
 * One turn of the loop: take at most PM_TURN_MESSAGES from each socket, let verbs change the scheduler,
 * assign leases, commit everything in one transaction, then send what was decided. Answers, leases and events
 * wait in the outbox until the commit is done.
 *
 * Ownership: struct pm_broker owns all of it. Threads: one. Errors: a verb that returns an error makes the
 * router answer REFUSE with it, counted under its code; what happens to the machine (disk, sockets) ends the
 * loop. */
#ifndef PM_BROKER_BROKER_H
#define PM_BROKER_BROKER_H

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "broker/journal.h"
#include "broker/metrics_http.h"
#include "broker/scheduler.h"
#include "broker/times.h"
#include "proto/blob.h"
#include "proto/frame.h"
#include "proto/key.h"

#define PM_TURN_MESSAGES   256u
#define PM_TURN_BYTES      (64u << 20)
#define PM_TURN_CLIENTS_US 2000
#define PM_SWEEP_US        ((int64_t)300 * 1000000)

struct pm_broker_config {
    const char *state_dir, *run_dir, *pixel_dir; /* pixel_dir NULL: RUN/pixels */
    uint64_t pixel_budget_bytes;
    int64_t result_ttl_us, stall_us, drain_us, adopt_us;
    int64_t known_ttl_us; /* pages that were read before are remembered so long after their last use; 0: for
                             ever */
    uint64_t known_bytes; /* ... and so much of them */
    uint64_t min_free_bytes;  /* of the disk: below it no submits */
    uint64_t max_store_bytes; /* of stored sources and results: above it no submits; 0: no limit */
    uint32_t max_jobs;
    const char *metrics; /* where to serve metrics, metrics_http.h; NULL: nowhere */
    int ready_fd;        /* -1: none */
    int deaths_fd;       /* -1: none; deaths.c */
    int parent_pid;      /* 0: none */
    const char *listen;  /* tcp endpoints, comma-separated; NULL: none */
    int listen_fds[2];   /* of work.sock and client.sock, bound by the one that started us; -1: bind them */
};

/* Everything that is refused, dropped or repaired has a counter; PM_COUNTERS lists them with their names. */
#define PM_COUNTERS(X)                                                                                       \
    X(malformed_messages)                                                                                    \
    X(unknown_peers)                                                                                         \
    X(wrong_role)                                                                                            \
    X(refused_submits)                                                                                       \
    X(refused_disk_full)                                                                                     \
    X(refused_store_full)                                                                                    \
    X(refused_requests)                                                                                      \
    X(duplicate_submits)                                                                                     \
    X(hellos_refused)                                                                                        \
    X(peers_gone)                                                                                            \
    X(peers_cut)                                                                                             \
    X(results_fenced)                                                                                        \
    X(results_without_blobs)                                                                                 \
    X(results_impossible)                                                                                    \
    X(crops_sent)                                                                                            \
    X(crop_bytes_sent)                                                                                       \
    X(crops_too_large)                                                                                       \
    X(leases_unsent)                                                                                         \
    X(sends_delayed)                                                                                         \
    X(events_coalesced)                                                                                      \
    X(events_lost)                                                                                           \
    X(answers_too_large)                                                                                     \
    X(uploads_refused)                                                                                       \
    X(uploads_abandoned)                                                                                     \
    X(journal_commits)                                                                                       \
    X(journal_full)                                                                                          \
    X(blobs_removed)                                                                                         \
    X(blob_errors)                                                                                           \
    X(jobs_expired)                                                                                          \
    X(page_times_left_out)                                                                                   \
    X(strangers_refused)                                                                                     \
    X(keys_refused)                                                                                          \
    X(handshakes_failed)                                                                                     \
    X(connections_barred)                                                                                    \
    X(connections_over_limit)                                                                                \
    X(connections_silent)                                                                                    \
    X(connections_cut)                                                                                       \
    X(cut_for_breach)                                                                                        \
    X(cut_for_hoarding)                                                                                      \
    X(cut_for_not_reading)                                                                                   \
    X(cut_for_key)                                                                                           \
    X(requests_over_share)                                                                                   \
    X(missing_rights)                                                                                        \
    X(impostors)                                                                                             \
    X(log_lines_saved)                                                                                       \
    X(known_pages_used)                                                                                      \
    X(known_pages_dropped)

enum pm_counter_id {
#define X(name) PM_COUNT_##name,
    PM_COUNTERS(X)
#undef X
        PM_COUNT_COUNT
};

/* A message that waits for its socket. */
struct pm_outgoing {
    struct pm_outgoing *next;
    uint32_t type;
    struct pm_buf record, payload;
};

struct pm_watch {
    uint64_t job;
    char *batch; /* "" with job 0: every job */
    bool partial;
};
struct pm_pending_event {
    struct pm_pending_event *next;
    enum pm_event_kind kind;
    uint64_t job;
    uint32_t page, region;
    char *blob, *text;
};
struct pm_upload {
    uint64_t id, bytes;
    int64_t touched_us;
    struct pm_blob_stream *stream; /* NULL: a free place */
};
#define PM_CONN_UPLOADS 8

struct pm_conn {
    uint64_t id;
    int socket; /* index into sockets */
    uint8_t route[32];
    size_t route_bytes;
    uint32_t role, seq, proto;
    char *name, *version, *client, *host;
    uint64_t pid, instance;
    char **readers, **models; /* workers */
    uint32_t reader_count, model_count;
    int pidfd;     /* -1: on another host */
    uint32_t peer; /* the scheduler's number; 0: a client */
    /* Who it is: gate.h. */
    uint64_t login;
    unsigned rights;
    bool is_remote;            /* over tcp: `client` is the name of its key */
    uint8_t key[PM_KEY_BYTES]; /* over tcp */
    int fd;                    /* -1: unknown */
    int64_t spent_us;          /* of our time, on requests that look at many jobs; forgiven with time */
    int64_t lost_us;           /* when its connection ended; 0: it is there */
    bool is_dead;              /* to be removed at the end of the turn */
    bool is_unreachable;
    bool is_waiting; /* in the broker's list of those that something waits for */
    int64_t joined_us, heard_us, pinged_us;
    uint64_t done, failed, busy_us, tokens;
    uint64_t rss_bytes; /* looked up at most twice a second, at rss_us */
    int64_t rss_us;
    struct pm_outgoing *out_first, *out_last;
    size_t out_count, out_bytes;
    /* watchers */
    struct pm_watch *watches;
    size_t watch_count, watch_capacity;
    struct pm_pending_event *event_first, *event_last;
    size_t event_count;
    uint64_t event_seq;
    struct pm_map progress; /* jobs whose snapshot is due */
    int64_t progress_us;
    bool has_lost;
    struct pm_upload uploads[PM_CONN_UPLOADS];
};

/* ipc for services, ipc for clients, tcp for both; NULL without --listen. */
enum { PM_SOCKET_WORK, PM_SOCKET_CLIENT, PM_SOCKET_NET, PM_SOCKET_COUNT };

struct pm_refs;
struct pm_deaths;
struct pm_gate;
struct pm_broker {
    struct pm_broker_config config;
    struct pm_sched *sched;
    struct pm_journal *journal;
    struct pm_blobs *blobs;
    struct pm_refs *refs;
    struct pm_deaths *deaths;
    struct pm_gate *gate;
    int64_t costly_us; /* spent_us of everybody in this second */
    void *zmq, *sockets[PM_SOCKET_COUNT];
    int epoll_fd, signal_fd, parent_fd, lock_fds[2];
    char *host;
    uint64_t epoch;
    struct pm_arena arena; /* of the turn: messages */
    struct pm_now now;
    int64_t started_us, housekeeping_us, expiry_us, sweep_us, shrink_us, drain_until_us, space_us;
    bool is_draining, is_stopping, is_full;
    bool is_replaced;        /* another broker follows at once: services keep their leases */
    struct pm_actions spare; /* the scheduler's list and this one take turns */
    uint64_t next_conn, disk_free;
    uint64_t stored,
        stored_before; /* since the last sweep ended; of these before the one that goes on began */
    int64_t store_sweep_us;
    struct pm_strmap by_route; /* hex of socket and route -> struct pm_conn */
    struct pm_conn **conns;
    size_t conn_count, conn_capacity, conns_of[PM_SOCKET_COUNT];
    struct pm_conn **waiting; /* something is to be sent to them, now or when it is due */
    size_t waiting_count, waiting_capacity;
    struct pm_map by_peer; /* the scheduler's number -> struct pm_conn, filled as they are looked for */
    uint64_t counters[PM_COUNT_COUNT];
    struct pm_metrics *metrics;
    struct pm_times *times;
    struct pm_http *http; /* NULL: not wanted, or it could not listen; tried last at http_us */
    int64_t http_us;
    uint64_t *awaited; /* services of the broker before, not here yet */
    size_t awaited_count, awaited_capacity;
    bool services_changed;
    struct pm_buf scratch;
    struct pm_known_model { /* known.c: the model that a reader's workers had last */
        char *reader, *identity;
    } * models;
    size_t model_count, model_capacity;
    struct pm_bulk *bulks; /* bulk.c */
};

static inline void pm_count(struct pm_broker *b, enum pm_counter_id id)
{
    b->counters[id]++;
}
const char *pm_counter_name(enum pm_counter_id id);

/* start.c: everything up to the first turn, and the end. */
int pm_broker_open(const struct pm_broker_config *config, struct pm_broker **out, struct pm_error *err);
void pm_broker_free(struct pm_broker **broker);
/* loop.c: runs until told to stop. 0, or why it cannot go on. */
int pm_broker_run(struct pm_broker *b, struct pm_error *err);
void pm_broker_drain(struct pm_broker *b);
/* Writes what the turn has decided so far, for verbs that read the journal. */
int pm_broker_commit(struct pm_broker *b, struct pm_error *err);

/* conn.c */
struct pm_conn *pm_conn_find(struct pm_broker *b, int socket, const struct pm_message *m);
struct pm_conn *pm_conn_add(struct pm_broker *b, int socket, const struct pm_message *m);
struct pm_conn *pm_conn_of_peer(struct pm_broker *b, uint32_t peer);
struct pm_conn *pm_conn_of_instance(const struct pm_broker *b, uint64_t instance);
/* Which readers a worker has, and the identities of their models. */
void pm_conn_set_readers(struct pm_conn *c, const struct pm_msg_hello *h);
void pm_conn_cut(struct pm_broker *b, struct pm_conn *c); /* removed at the end of the turn */
void pm_conn_bury(struct pm_broker *b);                   /* removes what was cut */
/* Queues a message; it leaves after the turn's commit. */
void pm_conn_send(struct pm_broker *b, struct pm_conn *c, uint32_t type, const void *record);
/* As above, with a payload, which is taken over (left empty). */
void pm_conn_send_payload(struct pm_broker *b, struct pm_conn *c, uint32_t type, const void *record,
                          struct pm_buf *payload);
void pm_conn_forget_queue(struct pm_conn *c);
void pm_conn_waits(struct pm_broker *b, struct pm_conn *c); /* something was queued for it */
void pm_conn_flush_all(struct pm_broker *b);
/* Sends at once (leases; after the commit): the error is the caller's to handle. */
int pm_conn_send_now(struct pm_broker *b, struct pm_conn *c, uint32_t type, const void *record,
                     struct pm_bytes payload, struct pm_error *err);
void pm_conn_flush(struct pm_broker *b, struct pm_conn *c);
/* Answers a message of somebody unknown. */
void pm_refuse_stranger(struct pm_broker *b, int socket, const struct pm_message *m, uint64_t ref, int code,
                        const char *text);
void pm_conn_watch_exit(struct pm_broker *b, struct pm_conn *c);
void pm_conn_exits(struct pm_broker *b); /* processes that ended */

/* deaths.c */
struct pm_deaths *pm_deaths_new(void);
void pm_deaths_free(struct pm_deaths **deaths);
void pm_deaths_read(struct pm_broker *b);
enum pm_peer_end pm_deaths_how(struct pm_broker *b, const struct pm_conn *c); /* its process has ended */

/* events.c */
void pm_events_take(struct pm_broker *b, const struct pm_action *event);
void pm_events_push(struct pm_broker *b, struct pm_conn *c, enum pm_event_kind kind, uint64_t job,
                    uint32_t page, uint32_t region, const char *blob, const char *text);
void pm_events_flush(struct pm_broker *b, struct pm_conn *c);
int64_t pm_events_next_us(const struct pm_broker *b); /* when a delayed snapshot is due */
void pm_events_free(struct pm_conn *c);

/* lease.c */
void pm_lease_send(struct pm_broker *b, const struct pm_action *lease);

/* router.c */
void pm_route(struct pm_broker *b, int socket, const struct pm_message *m);

/* awaited.c: a restarted broker waits for the services that may hold leases. */
void pm_awaited_read(struct pm_broker *b);
void pm_awaited_came(struct pm_broker *b, uint64_t pid);
void pm_awaited_write(struct pm_broker *b);

/* bulk.c: requests for many jobs, a slice a turn. */
enum pm_bulk_what { PM_BULK_FORGET, PM_BULK_RETRY, PM_BULK_CANCEL };
int pm_bulk_begin(struct pm_broker *b, const struct pm_conn *c, const struct pm_msg_job_ref *q,
                  enum pm_bulk_what what, struct pm_error *err);
int pm_bulk_go_on(struct pm_broker *b, struct pm_error *err);
void pm_bulk_free(struct pm_broker *b);

/* refs.c: who refers to which blob, and what to remove when nobody does. */
struct pm_refs *pm_refs_new(void);
void pm_refs_free(struct pm_refs **refs);
void pm_refs_change(void *broker, const char *key, int change); /* a pm_journal_ref_fn */
bool pm_refs_has(const struct pm_refs *refs, const char *key);
/* A pixel blob that its maker has put for nothing: removed when nobody refers to it soon. */
void pm_refs_orphan(struct pm_broker *b, const char *key);
/* Removes pixel blobs without references, and disk blobs that have had none for a while. */
void pm_refs_collect(struct pm_broker *b);
/* Files that nobody ever referred to: begun, then a slice a turn. */
void pm_refs_sweep_begin(struct pm_broker *b);
int pm_refs_sweep(struct pm_broker *b, struct pm_error *err);
bool pm_refs_is_busy(const struct pm_broker *b); /* a sweep goes on, or removals are due */

/* chores.c: after each turn. is_idle: nobody has come for a moment. */
int pm_chores(struct pm_broker *b, bool is_idle, struct pm_error *err);
int64_t pm_chores_next_us(const struct pm_broker *b);

/* space.c: the disk's free bytes, and the reserve that keeps the journal writable. */
int pm_space_reserve(struct pm_broker *b, struct pm_error *err);
void pm_space_check(struct pm_broker *b);
/* Stored sources and results: as the last sweep found them, and what came since. */
uint64_t pm_space_stored(const struct pm_broker *b);
void pm_space_add(struct pm_broker *b, uint64_t bytes);
void pm_space_counted(struct pm_broker *b); /* a sweep of the disk blobs is done */
/* Is there room for a document on the disk and under the limit? PM_ENOSPC, counted, says what to do. */
int pm_space_for(struct pm_broker *b, uint64_t bytes, struct pm_error *err);
bool pm_space_release(struct pm_broker *b); /* gives the reserve up; false when it is gone already */

/* serve.c: the metrics page. */
int pm_serve_open(struct pm_broker *b, struct pm_error *err);
int pm_serve_fd(const struct pm_broker *b); /* to wait for; -1: none */
int64_t pm_serve_next_us(const struct pm_broker *b);
void pm_serve_turn(struct pm_broker *b);
/* verbs/stats.c: the whole fleet as the broker sees it; memory from the arena. */
void pm_fleet_figures(struct pm_broker *b, struct pm_arena *arena, struct pm_msg_fleet *out);

/* verbs/: one file each. */
typedef int pm_verb(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err);
pm_verb pm_verb_ping, pm_verb_pong, pm_verb_goodbye, pm_verb_credit, pm_verb_beat, pm_verb_partial,
    pm_verb_result, pm_verb_submit, pm_verb_list, pm_verb_status, pm_verb_cancel, pm_verb_retry,
    pm_verb_forget, pm_verb_watch, pm_verb_fetch, pm_verb_stats, pm_verb_shutdown, pm_verb_blob_put,
    pm_verb_blob_get, pm_verb_seen;
void pm_uploads_keep(struct pm_broker *b); /* blob_put.c, every second: what nobody goes on with is dropped */
/* HELLO comes before there is a connection. */
void pm_verb_hello(struct pm_broker *b, int socket, const struct pm_message *m);

#endif
