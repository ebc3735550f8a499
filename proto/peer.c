#include "proto/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/host.h"
#include "proto/peer_internal.h"

#define RECEIVE_BATCH   64 /* messages taken before timers are looked at: a flood must not starve them */
#define HELLO_AGAIN_US  200000
#define BUSY_MAX_US     30000000
#define BEAT_DEFAULT_US 3000000
#define BEAT_LEAST_US   20000
#define AHEAD_LEAST     2 /* leases of a far worker beyond its credit, and their share of it */
#define AHEAD_SHARE     4

_Static_assert(sizeof(sigset_t) <= sizeof(((struct pm_peer *)0)->old_mask), "room for the signal mask");

/* ---- events ---- */

struct pm_peer_event *pm_peer_queue(struct pm_peer *peer, enum pm_peer_event_kind kind, uint64_t task,
                                    uint32_t attempt, const char *reason)
{
    struct pm_queued_event *q = pm_xalloc(sizeof *q);
    snprintf(q->reason, sizeof q->reason, "%s", reason);
    q->event = (struct pm_peer_event){.kind = kind, .task = task, .attempt = attempt, .reason = q->reason};
    struct pm_queued_event **end = &peer->events;
    while (*end)
        end = &(*end)->next;
    *end = q;
    return &q->event;
}

/* A REVOKE whose task ended while it was queued is no longer news. */
static bool is_stale(struct pm_peer *peer, const struct pm_peer_event *e)
{
    if (e->kind != PM_PEER_REVOKE)
        return false;
    const struct pm_held_lease *h = pm_map_get(&peer->held, e->task);
    return !h || h->lease->attempt != e->attempt;
}

static bool take_queued(struct pm_peer *peer, struct pm_peer_event *out)
{
    free(peer->delivered);
    peer->delivered = NULL;
    while (peer->events) {
        struct pm_queued_event *q = peer->events;
        peer->events = q->next;
        if (is_stale(peer, &q->event)) {
            free(q);
            continue;
        }
        peer->delivered = q;
        *out = q->event;
        return true;
    }
    return false;
}

/* ---- leases ---- */

static void free_lease(struct pm_held_lease *h)
{
    pm_arena_free(&h->arena);
    free(h);
}

/* A lease has ended here: the broker may send another. */
static void return_credit(struct pm_peer *peer)
{
    peer->granted++;
    peer->is_credit_due = true;
}

static bool take_waiting(struct pm_peer *peer, struct pm_peer_event *out)
{
    if (peer->held.count >= peer->credit || peer->is_stopped)
        return false;
    for (struct pm_held_lease **p = &peer->waiting; *p; p = &(*p)->next) {
        struct pm_held_lease *h = *p;
        if (pm_map_get(&peer->held, h->lease->task))
            continue; /* an older attempt has to be released first */
        *p = h->next;
        h->next = NULL;
        peer->waiting_count--;
        pm_map_put(&peer->held, h->lease->task, h);
        *out = (struct pm_peer_event){.kind = PM_PEER_LEASE,
                                      .lease = h->lease,
                                      .payload = h->payload,
                                      .task = h->lease->task,
                                      .attempt = h->lease->attempt};
        return true;
    }
    return false;
}

/* Drops leases of the task that were not handed out: of this attempt, or (attempt 0) of any. */
static bool drop_waiting(struct pm_peer *peer, uint64_t task, uint32_t attempt)
{
    bool found = false;
    for (struct pm_held_lease **p = &peer->waiting; *p;) {
        struct pm_held_lease *h = *p;
        if (h->lease->task != task || (attempt && h->lease->attempt != attempt)) {
            p = &h->next;
            continue;
        }
        *p = h->next;
        peer->waiting_count--;
        free_lease(h);
        return_credit(peer);
        found = true;
    }
    return found;
}

static void revoke_held(struct pm_peer *peer, struct pm_held_lease *h, const char *reason)
{
    if (h->is_revoked)
        return;
    h->is_revoked = true;
    pm_peer_queue(peer, PM_PEER_REVOKE, h->lease->task, h->lease->attempt, reason);
}

/* Attempts are counted anew by a restarted broker: a lease is its task, its attempt and its epoch. */
static bool is_same_lease(const struct pm_msg_lease *a, const struct pm_msg_lease *b)
{
    return a->task == b->task && a->attempt == b->attempt && a->epoch == b->epoch;
}

static struct pm_kept_result *find_result(struct pm_peer *peer, const struct pm_msg_lease *lease)
{
    for (struct pm_kept_result *r = peer->results; r; r = r->next)
        if (r->task == lease->task && r->attempt == lease->attempt && r->epoch == lease->epoch)
            return r;
    return NULL;
}

static bool drop_result(struct pm_peer *peer, uint64_t task, uint32_t attempt)
{
    for (struct pm_kept_result **p = &peer->results; *p; p = &(*p)->next) {
        struct pm_kept_result *r = *p;
        if (r->task != task || r->attempt != attempt)
            continue;
        *p = r->next;
        pm_buf_free(&r->encoded);
        free(r);
        return true;
    }
    return false;
}

static bool is_waiting(const struct pm_peer *peer, const struct pm_msg_lease *lease)
{
    for (const struct pm_held_lease *h = peer->waiting; h; h = h->next)
        if (is_same_lease(h->lease, lease))
            return true;
    return false;
}

/* The message's arena becomes the lease's. */
static void on_lease(struct pm_peer *peer, const struct pm_message *m, int64_t now_us)
{
    const struct pm_msg_lease *lease = m->record;
    struct pm_held_lease *old = pm_map_get(&peer->held, lease->task);
    struct pm_kept_result *result = find_result(peer, lease);
    if (result) { /* done already: the broker did not get it */
        result->is_sent = false;
        return_credit(peer);
        return;
    }
    if ((old && is_same_lease(old->lease, lease)) || is_waiting(peer, lease)) {
        return_credit(peer);
        return;
    }
    if (peer->waiting_count >= 4 * peer->credit + 16) { /* far beyond what we granted: agree anew */
        peer->refused++;
        pm_link_drop(peer, now_us, HELLO_AGAIN_US);
        return;
    }
    if (old)
        revoke_held(peer, old, "fenced");
    drop_waiting(peer, lease->task, 0);
    struct pm_held_lease *h = pm_xalloc(sizeof *h);
    h->lease = lease;
    h->payload = m->payload;
    h->arena = peer->arena;
    peer->arena = (struct pm_arena){0};
    struct pm_held_lease **end = &peer->waiting;
    while (*end)
        end = &(*end)->next;
    *end = h;
    peer->waiting_count++;
}

static void on_known(struct pm_peer *peer, const struct pm_msg_known *known)
{
    const struct pm_held_lease *h = pm_map_get(&peer->held, known->task);
    if (h && h->lease->attempt == known->attempt && !h->is_revoked)
        pm_peer_queue(peer, PM_PEER_KNOWN, known->task, known->attempt, "")->is_known = known->is_known;
}

static void on_revoke(struct pm_peer *peer, const struct pm_msg_revoke *revoke)
{
    struct pm_held_lease *h = pm_map_get(&peer->held, revoke->task);
    if (h && h->lease->attempt == revoke->attempt)
        revoke_held(peer, h, revoke->reason);
    else if (!drop_result(peer, revoke->task, revoke->attempt))
        drop_waiting(peer, revoke->task, revoke->attempt ? revoke->attempt : UINT32_MAX);
}

/* ---- the broker's messages ---- */

static void tell_ready(struct pm_peer *peer)
{
    if (peer->ready_fd < 0)
        return;
    char line[24];
    int n = snprintf(line, sizeof line, "%d\n", (int)getpid());
    ssize_t ignored = write(peer->ready_fd, line, (size_t)n); /* nobody listens: it works all the same */
    (void)ignored;
    close(peer->ready_fd);
    peer->ready_fd = -1;
}

static int on_welcome(struct pm_peer *peer, const struct pm_msg_welcome *w, int64_t now_us,
                      struct pm_error *err)
{
    if (w->proto < PM_PROTO_MIN || w->proto > PM_PROTO_MAX)
        return pm_fail(err, PM_EPROTO, "the broker chose protocol version %u; this program speaks %u to %u",
                       w->proto, PM_PROTO_MIN, PM_PROTO_MAX);
    /* Elsewhere a worker needs no files: crops come with the leases. */
    bool needs_files = peer->role != PM_ROLE_WORKER || w->proto < 2 || !strcmp(w->host, peer->host);
    if (!needs_files)
        pm_blobs_free(&peer->blobs);
    bool is_same = peer->blobs && !strcmp(pm_blobs_dir(peer->blobs, PM_BLOB_DISK), w->disk_dir) &&
                   !strcmp(pm_blobs_dir(peer->blobs, PM_BLOB_PIXELS), w->pixel_dir);
    if (needs_files && !is_same) {
        /* On another host the directories may be a shared file system, but are never ours to make. */
        if (strcmp(w->host, peer->host) && (!pm_fs_is_dir(w->disk_dir) || !pm_fs_is_dir(w->pixel_dir)))
            return pm_fail(err, PM_EUNSUPPORTED,
                           "the broker runs on another host (%s) and its blob directory %s is not here: "
                           "a %s works on the broker's host, workers anywhere",
                           w->host, w->disk_dir, pm_role_name(peer->role));
        pm_blobs_free(&peer->blobs);
        int rc = pm_blobs_open(w->disk_dir, w->pixel_dir, &peer->blobs, err);
        if (rc) {
            pm_fail_prefix(err, "opening the broker's blob store");
            return rc;
        }
    }
    if (w->epoch != peer->epoch)
        peer->is_draining = false; /* said by the broker before */
    peer->epoch = w->epoch;
    peer->beat_us = w->beat_us && w->beat_us < INT32_MAX ? (int64_t)w->beat_us : BEAT_DEFAULT_US;
    /* Kept results were counted as held in the HELLO, but no longer take a place. */
    for (struct pm_kept_result *r = peer->results; r; r = r->next) {
        r->is_sent = false;
        peer->granted++;
    }
    peer->is_credit_due = true;
    pm_link_up(peer, w->proto, now_us);
    tell_ready(peer);
    pm_peer_queue(peer, PM_PEER_READY, 0, 0, "");
    return 0;
}

static int on_refuse(struct pm_peer *peer, const struct pm_msg_refuse *refuse, int64_t now_us,
                     struct pm_error *err)
{
    bool is_greeting = peer->link.state == PM_LINK_GREETING;
    if (is_greeting && pm_err_from_name(refuse->code) != PM_EBUSY)
        return pm_fail(err, PM_EPROTO, "the broker refused %s: %s (%s)", peer->name, refuse->text,
                       refuse->code);
    int64_t delay_us = HELLO_AGAIN_US;
    if (refuse->retry_after_us > (uint64_t)delay_us)
        delay_us = refuse->retry_after_us < BUSY_MAX_US ? (int64_t)refuse->retry_after_us : BUSY_MAX_US;
    /* While UP it means that the broker does not know us (any more): greet again. */
    pm_link_drop(peer, now_us, delay_us);
    return 0;
}

static int on_message(struct pm_peer *peer, const struct pm_message *m, int64_t now_us, struct pm_error *err)
{
    struct pm_link *l = &peer->link;
    l->heard_us = now_us;
    switch (m->header.type) {
    case PM_MSG_PING:
        pm_link_send(peer, PM_MSG_PONG, m->record, NULL);
        return 0;
    case PM_MSG_PONG:
        l->pinged_us = 0;
        return 0;
    case PM_MSG_GOODBYE:
        pm_link_drop(peer, now_us, HELLO_AGAIN_US);
        return 0;
    case PM_MSG_REFUSE:
        return on_refuse(peer, m->record, now_us, err);
    case PM_MSG_WELCOME:
        if (l->state == PM_LINK_GREETING)
            return on_welcome(peer, m->record, now_us, err);
        break;
    default:
        break;
    }
    if (l->state == PM_LINK_UP) {
        const struct pm_msg_result_ack *ack = m->record;
        switch (m->header.type) {
        case PM_MSG_LEASE:
            on_lease(peer, m, now_us);
            return 0;
        case PM_MSG_REVOKE:
            on_revoke(peer, m->record);
            return 0;
        case PM_MSG_KNOWN:
            on_known(peer, m->record);
            return 0;
        case PM_MSG_RESULT_ACK:
            drop_result(peer, ack->task, ack->attempt);
            return 0;
        case PM_MSG_DRAIN:
            if (!peer->is_draining)
                pm_peer_queue(peer, PM_PEER_DRAIN, 0, 0, "");
            peer->is_draining = true;
            return 0;
        default:
            break;
        }
    }
    peer->refused++;
    return 0;
}

static int receive_some(struct pm_peer *peer, struct pm_error *err)
{
    for (int i = 0; i < RECEIVE_BATCH && peer->link.socket; i++) {
        struct pm_message m;
        pm_arena_clear(&peer->arena);
        int rc = pm_message_receive(peer->link.socket, false, &peer->arena, &m, err);
        if (rc == PM_EAGAIN)
            return 0;
        if (rc == PM_EPROTO) {
            peer->refused++;
            continue;
        }
        if (!rc)
            rc = on_message(peer, &m, pm_clock_us(), err);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- what goes to the broker ---- */

void pm_peer_fill_hello(struct pm_peer *peer, struct pm_arena *arena, struct pm_msg_hello *out)
{
    size_t count = 0, most = peer->held.count + peer->waiting_count;
    uint64_t revoked = 0;
    for (const struct pm_kept_result *r = peer->results; r; r = r->next)
        most++;
    struct pm_held *held = pm_arena_alloc(arena, most * sizeof *held);
    size_t cursor = 0;
    void *value;
    while (pm_map_next(&peer->held, &cursor, &(uint64_t){0}, &value)) {
        const struct pm_held_lease *h = value;
        if (h->is_revoked)
            revoked++;
        else
            held[count++] = (struct pm_held){h->lease->task, h->lease->epoch, h->lease->attempt};
    }
    for (const struct pm_held_lease *h = peer->waiting; h; h = h->next)
        held[count++] = (struct pm_held){h->lease->task, h->lease->epoch, h->lease->attempt};
    for (const struct pm_kept_result *r = peer->results; r; r = r->next)
        held[count++] = (struct pm_held){r->task, r->epoch, r->attempt};
    /* Revoked leases that the owner has not let go of take a place that the broker knows nothing of. */
    uint64_t room = (uint64_t)peer->credit + peer->ahead;
    peer->granted = room > revoked && !peer->is_stopped ? room - revoked : 0;
    *out = (struct pm_msg_hello){
        .role = peer->role,
        .proto_min = PM_PROTO_MIN,
        .proto_max = PM_PROTO_MAX,
        .name = peer->name,
        .version = PM_VERSION,
        .host = peer->host,
        .pid = (uint64_t)getpid(),
        .instance = peer->instance,
        .readers = peer->readers,
        .reader_count = peer->reader_count,
        .models = peer->models,
        .model_count = peer->model_count,
        .credit = (uint32_t)peer->granted,
        .held = held,
        .held_count = (uint32_t)(count < PM_LIMIT_HELD ? count : PM_LIMIT_HELD),
        .client = "",
    };
}

/* True when everything that could be sent has been; false when the queue to the broker is full. */
static bool send_results(struct pm_peer *peer)
{
    for (struct pm_kept_result *r = peer->results; r; r = r->next) {
        if (r->is_sent)
            continue;
        if (pm_link_send_encoded(peer, PM_MSG_RESULT, &r->encoded, NULL))
            return false;
        r->is_sent = true;
    }
    return true;
}

static bool send_credit(struct pm_peer *peer)
{
    if (!peer->is_credit_due || peer->is_draining || peer->is_stopped)
        return true;
    struct pm_msg_credit credit = {.granted = peer->granted};
    if (pm_link_send(peer, PM_MSG_CREDIT, &credit, NULL))
        return false;
    peer->is_credit_due = false;
    return true;
}

/* A third of the interval asked for, so that one late turn of the owner's loop does not look like a wedge. */
static int64_t beat_interval_us(const struct pm_peer *peer)
{
    int64_t us = peer->beat_us / 3;
    return us < BEAT_LEAST_US ? BEAT_LEAST_US : us;
}

static void send_beat(struct pm_peer *peer, int64_t now_us)
{
    if (peer->link.state != PM_LINK_UP || now_us - peer->beaten_us < beat_interval_us(peer))
        return;
    struct pm_arena arena = {0};
    struct pm_progress *leases =
        pm_arena_alloc(&arena, (peer->held.count + peer->waiting_count) * sizeof *leases);
    uint32_t count = 0;
    size_t cursor = 0;
    void *value;
    while (pm_map_next(&peer->held, &cursor, &(uint64_t){0}, &value)) {
        const struct pm_held_lease *h = value;
        if (h->has_progress && !h->is_revoked && count < PM_LIMIT_HELD)
            leases[count++] = (struct pm_progress){h->lease->task, h->lease->attempt, h->permille};
    }
    /* What waits for its turn is as alive as what is worked on. */
    for (const struct pm_held_lease *h = peer->waiting; h && count && count < PM_LIMIT_HELD; h = h->next)
        leases[count++] = (struct pm_progress){h->lease->task, h->lease->attempt, 0};
    struct pm_msg_beat beat = {.leases = leases, .lease_count = count};
    if (count && !pm_link_send(peer, PM_MSG_BEAT, &beat, NULL)) {
        peer->beaten_us = now_us;
        cursor = 0;
        while (pm_map_next(&peer->held, &cursor, &(uint64_t){0}, &value))
            ((struct pm_held_lease *)value)->has_progress = false;
    }
    pm_arena_free(&arena);
}

/* Results first: a credit that arrived before its result would be one lease too many for a moment. */
static bool flush(struct pm_peer *peer, int64_t now_us)
{
    if (peer->link.state != PM_LINK_UP)
        return true;
    bool is_done = send_results(peer) && send_credit(peer);
    send_beat(peer, now_us);
    return is_done;
}

/* ---- opening ---- */

static int catch_signals(struct pm_peer *peer, struct pm_error *err)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    int rc = pthread_sigmask(SIG_BLOCK, &mask, (sigset_t *)(void *)peer->old_mask);
    if (rc) {
        errno = rc;
        return pm_fail_errno(err, "cannot block signals");
    }
    peer->is_mask_saved = true;
    peer->signal_fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
    return peer->signal_fd < 0 ? pm_fail_errno(err, "cannot open a signalfd") : 0;
}

/* One signal asks us to leave; from then on the next one has its ordinary effect. */
static bool take_signal(struct pm_peer *peer)
{
    struct signalfd_siginfo info;
    if (peer->is_stopped || read(peer->signal_fd, &info, sizeof info) != (ssize_t)sizeof info)
        return false;
    peer->is_stopped = true;
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
    return true;
}

static int check_config(const struct pm_peer_config *config, struct pm_error *err)
{
    if (!config->credit || config->credit > PM_LIMIT_HELD)
        return pm_fail(err, PM_EINVAL, "a peer takes 1 to %d leases at once, not %u", PM_LIMIT_HELD,
                       config->credit);
    if (!config->name || !*config->name || strlen(config->name) > PM_LIMIT_NAME)
        return pm_fail(err, PM_EINVAL, "a peer's name has 1 to %d bytes", PM_LIMIT_NAME);
    return pm_endpoint_check(config->endpoint, err);
}

static bool is_far(const struct pm_peer_config *config)
{
    return config->role == PM_ROLE_WORKER && !strncmp(config->endpoint, "tcp://", 6);
}

int pm_peer_open(const struct pm_peer_config *config, struct pm_peer **out, struct pm_error *err)
{
    *out = NULL;
    int rc = check_config(config, err);
    if (rc)
        return rc;
    struct pm_peer *peer = pm_xalloc(sizeof *peer);
    peer->signal_fd = -1;
    peer->ready_fd = config->ready_fd > 0 ? config->ready_fd : -1;
    if (peer->ready_fd >= 0)
        fcntl(peer->ready_fd, F_SETFD, FD_CLOEXEC); /* not our children's */
    peer->endpoint = pm_xstrdup(config->endpoint);
    peer->name = pm_xstrdup(config->name);
    peer->server_key = config->keys.server_key ? pm_xstrdup(config->keys.server_key) : NULL;
    peer->key_file = config->keys.key_file ? pm_xstrdup(config->keys.key_file) : NULL;
    peer->host = pm_host_id();
    peer->role = config->role;
    peer->credit = config->credit;
    peer->give_up_us = config->give_up_us;
    peer->ahead = is_far(config) ? AHEAD_LEAST + config->credit / AHEAD_SHARE : 0;
    peer->reader_count = config->reader_count;
    peer->readers = pm_xalloc((config->reader_count + 1) * sizeof *peer->readers);
    for (uint32_t i = 0; i < config->reader_count; i++)
        peer->readers[i] = pm_xstrdup(config->readers[i]);
    peer->model_count = config->models ? config->reader_count : 0;
    peer->models = pm_xalloc((peer->model_count + 1) * sizeof *peer->models);
    for (uint32_t i = 0; i < peer->model_count; i++)
        peer->models[i] = pm_xstrdup(config->models[i]);
    if (getrandom(&peer->instance, sizeof peer->instance, 0) != (ssize_t)sizeof peer->instance)
        rc = pm_fail_errno(err, "cannot get random bytes");
    /* Readable in logs, the same for every connection of this process, never that of another. */
    snprintf(peer->route, sizeof peer->route, "%.14s-%016llx", peer->name,
             (unsigned long long)peer->instance);
    peer->route_bytes = strlen(peer->route);
    if (!rc)
        rc = pm_link_open(peer, err);
    if (!rc)
        rc = catch_signals(peer, err);
    if (rc)
        pm_peer_free(&peer);
    *out = peer;
    return rc;
}

static void free_state(struct pm_peer *peer)
{
    size_t cursor = 0;
    void *value;
    while (pm_map_next(&peer->held, &cursor, &(uint64_t){0}, &value))
        free_lease(value);
    pm_map_free(&peer->held);
    while (peer->waiting) {
        struct pm_held_lease *next = peer->waiting->next;
        free_lease(peer->waiting);
        peer->waiting = next;
    }
    while (peer->results)
        drop_result(peer, peer->results->task, peer->results->attempt);
    while (peer->events) {
        struct pm_queued_event *next = peer->events->next;
        free(peer->events);
        peer->events = next;
    }
    free(peer->delivered);
    pm_arena_free(&peer->arena);
    pm_blobs_free(&peer->blobs);
}

void pm_peer_free(struct pm_peer **peer_to_free)
{
    struct pm_peer *peer = *peer_to_free;
    if (!peer)
        return;
    flush(peer, pm_clock_us());
    pm_link_close(peer);
    free_state(peer);
    if (peer->signal_fd >= 0)
        close(peer->signal_fd);
    if (peer->ready_fd >= 0)
        close(peer->ready_fd);
    if (peer->is_mask_saved)
        pthread_sigmask(SIG_SETMASK, (const sigset_t *)(const void *)peer->old_mask, NULL);
    for (uint32_t i = 0; i < peer->reader_count; i++)
        free((void *)(uintptr_t)peer->readers[i]);
    for (uint32_t i = 0; i < peer->model_count; i++)
        free((void *)(uintptr_t)peer->models[i]);
    free(peer->models);
    free(peer->readers);
    free(peer->endpoint);
    free(peer->server_key);
    free(peer->key_file);
    free(peer->name);
    free(peer->host);
    free(peer);
    *peer_to_free = NULL;
}

/* ---- the loop ---- */

static bool take_event(struct pm_peer *peer, struct pm_peer_event *out)
{
    *out = (struct pm_peer_event){.kind = PM_PEER_STOP, .reason = "signal"};
    if (take_signal(peer) || take_queued(peer, out) || take_waiting(peer, out))
        return true;
    if (peer->is_draining && !peer->held.count && !peer->waiting && !peer->results) {
        *out = (struct pm_peer_event){.kind = PM_PEER_STOP, .reason = "drained"};
        return true;
    }
    return false;
}

int pm_peer_next(struct pm_peer *peer, int64_t timeout_us, struct pm_peer_event *out, struct pm_error *err)
{
    int64_t now_us = pm_clock_us(), until_us = now_us + timeout_us;
    for (;;) {
        /* Messages before the monitor's word: what came before the connection broke still counts. */
        int rc = receive_some(peer, err);
        now_us = pm_clock_us();
        if (!rc && pm_link_is_broken(peer))
            pm_link_drop(peer, now_us, 0);
        if (!rc)
            rc = pm_link_step(peer, now_us, err);
        if (rc)
            return rc;
        bool is_flushed = flush(peer, now_us);
        if (take_event(peer, out))
            return 0;
        if (now_us >= until_us)
            break;
        rc = pm_link_wait(peer, now_us, until_us, !is_flushed, err);
        if (rc)
            return rc;
    }
    *out = (struct pm_peer_event){.kind = PM_PEER_IDLE, .reason = ""};
    return 0;
}

int pm_peer_each(struct pm_peer *peer, int64_t wait_us,
                 int (*take)(void *context, const struct pm_peer_event *event, struct pm_error *err),
                 void *context, struct pm_error *err)
{
    struct pm_peer_event event;
    int rc;
    do {
        rc = pm_peer_next(peer, wait_us, &event, err);
        if (!rc && event.kind != PM_PEER_IDLE)
            rc = take(context, &event, err);
        wait_us = 0;
    } while (!rc && event.kind != PM_PEER_IDLE);
    return rc;
}

int64_t pm_peer_deadline_us(const struct pm_msg_lease *lease, int64_t now_us)
{
    if (!lease->deadline_us || lease->deadline_us > (uint64_t)(INT64_MAX - now_us))
        return 0;
    return now_us + (int64_t)lease->deadline_us;
}

struct pm_blobs *pm_peer_blobs(struct pm_peer *peer)
{
    return peer->blobs;
}

/* ---- the owner's side of a lease ---- */

void pm_peer_progress(struct pm_peer *peer, uint64_t task, uint32_t permille)
{
    struct pm_held_lease *h = pm_map_get(&peer->held, task);
    if (!h)
        return;
    h->has_progress = true;
    h->permille = permille < 1000 ? permille : 1000;
    send_beat(peer, pm_clock_us());
}

void pm_peer_partial(struct pm_peer *peer, uint64_t task, const char *text)
{
    const struct pm_held_lease *h = pm_map_get(&peer->held, task);
    if (!h || h->is_revoked || peer->link.state != PM_LINK_UP)
        return;
    struct pm_msg_partial partial = {.task = task, .attempt = h->lease->attempt, .text = text};
    if (pm_link_send(peer, PM_MSG_PARTIAL, &partial, NULL))
        peer->refused++; /* nobody waits for it: the result carries the whole text */
}

bool pm_peer_seen(struct pm_peer *peer, uint64_t task, const char *fingerprint)
{
    const struct pm_held_lease *h = pm_map_get(&peer->held, task);
    if (!h || h->is_revoked || peer->link.state != PM_LINK_UP || peer->link.proto < 2)
        return false;
    struct pm_msg_seen seen = {.task = task, .attempt = h->lease->attempt, .fingerprint = fingerprint};
    return !pm_link_send(peer, PM_MSG_SEEN, &seen, NULL);
}

void pm_peer_release(struct pm_peer *peer, uint64_t task)
{
    struct pm_held_lease *h = pm_map_remove(&peer->held, task);
    if (!h)
        return;
    free_lease(h);
    return_credit(peer);
    flush(peer, pm_clock_us());
}

/* A result over the limits of the wire would be refused there for ever; its failure can be told. */
static void encode_result(struct pm_msg_result *result, struct pm_buf *out)
{
    struct pm_error err = {0};
    int rc = pm_record_try_encode(pm_msg_schema(PM_MSG_RESULT), result, out, &err);
    if (!rc && out->size > PM_FRAME_RECORD_BYTES)
        rc = pm_fail(&err, PM_ELIMIT, "the result has %zu bytes, a message takes %u", out->size,
                     PM_FRAME_RECORD_BYTES);
    if (!rc)
        return;
    struct pm_msg_result failure = {
        .task = result->task,
        .epoch = result->epoch,
        .attempt = result->attempt,
        .error_code = pm_err_name(rc),
        .error_text = err.text,
        .is_final_error = true,
        .wait_us = result->wait_us,
        .run_us = result->run_us,
    };
    pm_buf_clear(out);
    pm_record_encode(pm_msg_schema(PM_MSG_RESULT), &failure, out);
}

void pm_peer_result(struct pm_peer *peer, uint64_t task, struct pm_msg_result *result)
{
    struct pm_held_lease *h = pm_map_remove(&peer->held, task);
    if (!h)
        return;
    result->task = task;
    result->epoch = h->lease->epoch;
    result->attempt = h->lease->attempt;
    if (!h->is_revoked) {
        struct pm_kept_result *kept = pm_xalloc(sizeof *kept);
        kept->task = task;
        kept->epoch = result->epoch;
        kept->attempt = result->attempt;
        encode_result(result, &kept->encoded);
        struct pm_kept_result **end = &peer->results;
        while (*end)
            end = &(*end)->next;
        *end = kept;
    }
    free_lease(h); /* last: the result may point into the lease */
    return_credit(peer);
    flush(peer, pm_clock_us());
}

void pm_peer_fail(struct pm_peer *peer, uint64_t task, const struct pm_error *error, bool is_final)
{
    struct pm_msg_result result = {
        .error_code = pm_err_name(error->code),
        .error_text = error->text,
        .is_final_error = is_final,
    };
    pm_peer_result(peer, task, &result);
}

bool pm_peer_can_finish(const struct pm_peer *peer)
{
    return peer->held.count && peer->link.state == PM_LINK_UP;
}

uint32_t pm_peer_held(const struct pm_peer *peer)
{
    return (uint32_t)peer->held.count;
}

uint64_t pm_peer_refused(const struct pm_peer *peer)
{
    return peer->refused;
}
