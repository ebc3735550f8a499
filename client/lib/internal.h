/* Inside libpagemill: the handle, the connection's state machine and the request that every call is made of.
 *
 * The link goes DOWN -> UP (transport is there, hello not sent) -> GREETED (waiting for the welcome) ->
 * READY, driven by ZeroMQ's socket monitor, because a DEALER reconnects without telling. A request waits for
 * READY, is sent, and is sent again after a reconnect: everything a client can ask is idempotent (submits
 * carry a key). One request is outstanding at a time, except for the chunks of an upload.
 *
 * Threads: a handle has one owner. Ownership: an answer's record lives in its arena. */
#ifndef PM_CLIENT_LIB_INTERNAL_H
#define PM_CLIENT_LIB_INTERNAL_H

#include <stdbool.h>

#include "base/arena.h"
#include "client/include/pagemill.h"
#include "proto/blob.h"
#include "proto/frame.h"
#include "proto/key.h"

enum pm_link { PM_LINK_DOWN, PM_LINK_UP, PM_LINK_GREETED, PM_LINK_READY };

struct pm_answer { /* zero-initialise; free with pm_answer_free */
    struct pm_arena arena;
    struct pm_message message;
    bool is_there;
};
void pm_answer_free(struct pm_answer *answer);

struct pm_watch { /* renewed after a reconnect */
    uint64_t job;
    char *batch;
    bool partial;
};
struct pm_event_node {
    struct pm_event_node *next;
    struct pm_arena arena;
    struct pagemill_event event;
};

struct pagemill {
    void *context, *socket, *monitor;
    int epoll_fd, event_fd;
    int cancel_fd;
    bool is_remote;

    enum pm_link link;
    int64_t greeted_us;
    uint64_t connection; /* counts welcomes */
    struct pm_error refusal;
    bool is_refused;
    uint64_t handshakes_failed;
    bool was_repeated; /* the last call was sent more than once: its first answer may have been lost */
    uint32_t seq, proto;
    uint64_t epoch, instance, last_ref;
    char *endpoint, *client, *host;
    char *disk_dir, *pixel_dir;
    struct pm_blobs *blobs; /* NULL: the fleet's files cannot be reached from here */

    uint64_t want_low, want_high; /* refs of the outstanding request; 0: none */
    struct pm_answer answer;

    struct pm_watch *watches;
    size_t watch_count, watch_capacity;
    uint64_t event_seq; /* last one of this connection; 0: none yet */
    bool missed_events;
    size_t queued;
    struct pm_event_node *first, *last, *shown;
};

/* ---- connection.c ---- */
int64_t pm_client_deadline(int64_t timeout_ms);
uint64_t pm_client_ref(pagemill *pm);
int pm_client_random(void *bytes, size_t count, struct pm_error *err);
/* Handles what has arrived, without waiting. PM_EPROTO, PM_EDENIED, ... when the fleet refused us for good.
 */
int pm_client_pump(pagemill *pm, struct pm_error *err);
void pm_client_show_work(pagemill *pm); /* brings pagemill_fd up to date */
/* Waits until something arrives or deadline_us: 0, PM_ETIMEOUT, PM_ECANCELLED. */
int pm_client_wait_io(pagemill *pm, int64_t deadline_us, bool wants_to_write, struct pm_error *err);
int pm_client_wait_ready(pagemill *pm, int64_t deadline_us, struct pm_error *err);
/* 0, PM_EAGAIN (queue full or link lost) or worse. */
int pm_client_send(pagemill *pm, uint32_t type, const void *record, const void *payload, size_t payload_bytes,
                   struct pm_error *err);
/* The whole of a request: ready, send, wait for the answer of type `want` to `ref`, again after a lost link
 * or "busy". A refusal becomes its error. */
int pm_client_call(pagemill *pm, uint32_t type, const void *record, uint64_t ref, uint32_t want,
                   int64_t deadline_us, struct pm_answer *out, struct pm_error *err);
int pm_client_refusal(const struct pm_msg_refuse *refuse, struct pm_error *err);

/* ---- events.c ---- */
void pm_client_push_event(pagemill *pm, const struct pm_msg_event *record,
                          struct pm_arena *arena); /* takes arena */
void pm_client_push_resync(pagemill *pm);
void pm_client_free_events(pagemill *pm);
void pm_client_job(struct pm_arena *arena, const struct pm_job_info *info, struct pagemill_job *out);

/* ---- blobs.c ---- */
struct pm_client_source { /* a document's bytes: either memory or a descriptor */
    const uint8_t *data;
    size_t bytes;
    int fd; /* -1: memory */
};
/* Brings the source into the blob store. direct: by the file system; else through the socket. */
int pm_client_store(pagemill *pm, const struct pm_client_source *source, bool direct, int64_t deadline_us,
                    char key_out[PM_BLOB_KEY_SIZE], uint64_t *bytes_out, struct pm_error *err);
int pm_client_load(pagemill *pm, const char *key, int64_t deadline_us, void **data_out, size_t *bytes_out,
                   struct pm_error *err);

/* ---- result.c ---- */
bool pm_client_is_safe_name(const char *name); /* may a file of this name be made below a folder? */

/* Public and internal errors have the same shape. */
static inline struct pm_error *pm_client_error(struct pagemill_error *err)
{
    return (struct pm_error *)(void *)err;
}

#endif
