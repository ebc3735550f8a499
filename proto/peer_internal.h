/* Inside the peer loop: peer.c owns leases, results and events; peer_link.c owns the connection. Private. */
#ifndef PM_PROTO_PEER_INTERNAL_H
#define PM_PROTO_PEER_INTERNAL_H

#include "base/map.h"
#include "proto/peer.h"

/* DOWN -> CONNECTING (socket made) -> GREETING (HELLO sent) -> UP (WELCOME came); any failure leads back to
 * DOWN, and a new connection is a new socket, so that nothing queued for the old one is ever sent. */
enum pm_link_state { PM_LINK_DOWN, PM_LINK_CONNECTING, PM_LINK_GREETING, PM_LINK_UP };

struct pm_link {
    void *context, *socket, *monitor; /* socket and monitor NULL while DOWN */
    enum pm_link_state state;
    uint32_t seq;       /* last sequence number sent on this socket */
    uint32_t proto;     /* version agreed on */
    uint64_t sockets;   /* made so far: names the monitor's endpoint */
    int64_t since_us;   /* start of this state */
    int64_t retry_us;   /* DOWN: when to try again */
    int64_t without_us; /* since when there is no welcome; meaningless while UP */
    int64_t heard_us;   /* last message of the broker */
    int64_t pinged_us;  /* when the outstanding PING went out; 0: none */
    uint64_t ping_ref;
    bool is_denied;                        /* our key was refused */
    uint64_t handshakes_failed;            /* without a word: another broker's key, perhaps */
    int64_t greeting_us;                   /* how long this HELLO may stay unanswered */
    int64_t ping_after_us, pong_within_us; /* constants, shorter in tests */
};

struct pm_held_lease {
    struct pm_arena arena; /* everything of the lease */
    const struct pm_msg_lease *lease;
    struct pm_bytes payload;
    bool is_revoked, has_progress;
    uint32_t permille;
    struct pm_held_lease *next; /* in the list of those not handed out */
};

/* A result until its acknowledgement. */
struct pm_kept_result {
    uint64_t task, epoch;
    uint32_t attempt;
    bool is_sent;
    struct pm_buf encoded;
    struct pm_kept_result *next;
};

struct pm_queued_event {
    struct pm_peer_event event;
    char reason[128];
    struct pm_queued_event *next;
};

struct pm_peer {
    char *endpoint, *name, *host;
    char *server_key, *key_file; /* NULL: none */
    const char **readers, **models;
    uint32_t reader_count, model_count, credit;
    uint32_t ahead; /* leases that wait here while `credit` others are worked on: the network is hidden */
    enum pm_role role;
    int64_t give_up_us;
    uint64_t instance;
    char route[32];
    size_t route_bytes;

    struct pm_link link;
    uint64_t epoch;
    int64_t beat_us, beaten_us; /* interval asked for, last beat */

    struct pm_map held;            /* task -> struct pm_held_lease, handed out */
    struct pm_held_lease *waiting; /* received, in order, not handed out */
    uint32_t waiting_count;
    struct pm_kept_result *results;
    uint64_t granted;
    bool is_credit_due, is_draining, is_stopped;

    struct pm_queued_event *events, *delivered; /* delivered: keeps the reason valid until the next call */
    struct pm_arena arena;                      /* of the message just received */
    struct pm_blobs *blobs;
    int signal_fd, ready_fd; /* ready_fd: -1: none, or told already */
    bool is_mask_saved;
    unsigned char old_mask[128]; /* sigset_t before opening */
    uint64_t refused;
};

/* ---- peer_link.c ---- */
int pm_link_open(struct pm_peer *peer, struct pm_error *err); /* context only; connects at the first step */
/* Ends the connection and tries again after delay_us; tells the owner when it was UP. */
void pm_link_drop(struct pm_peer *peer, int64_t now_us, int64_t delay_us);
void pm_link_close(struct pm_peer *peer); /* GOODBYE, linger, context */
/* Moves the state on as far as the clock and the socket allow. PM_ETIMEOUT when give_up_us passed. */
int pm_link_step(struct pm_peer *peer, int64_t now_us, struct pm_error *err);
/* True when the monitor says that the connection broke. */
bool pm_link_is_broken(struct pm_peer *peer);
int pm_link_send(struct pm_peer *peer, uint32_t type, const void *record, struct pm_error *err);
int pm_link_send_encoded(struct pm_peer *peer, uint32_t type, const struct pm_buf *encoded,
                         struct pm_error *err);
/* Sleeps until something can be done, at most until_us. wants_out: also until there is room to send. */
int pm_link_wait(struct pm_peer *peer, int64_t now_us, int64_t until_us, bool wants_out,
                 struct pm_error *err);
/* WELCOME arrived: state UP. */
void pm_link_up(struct pm_peer *peer, uint32_t proto, int64_t now_us);

/* ---- peer.c, for peer_link.c ---- */
void pm_peer_fill_hello(struct pm_peer *peer, struct pm_arena *arena, struct pm_msg_hello *out);
/* The event queued, for what else it says; valid at once only. */
struct pm_peer_event *pm_peer_queue(struct pm_peer *peer, enum pm_peer_event_kind kind, uint64_t task,
                                    uint32_t attempt, const char *reason);

#endif
