/* What the tests of proto/ share: a scratch directory, and a broker that does what the test says.
 *
 * The fake broker lives in the test's own thread: fake_pump turns the peer's loop and the broker's socket in
 * turn until a condition holds, so no test sleeps for luck. */
#ifndef PM_TESTS_PROTO_FIXTURE_H
#define PM_TESTS_PROTO_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/frame.h"
#include "proto/peer.h"

/* A fresh directory under TMPDIR; scratch_remove deletes it with everything in it and frees the name. */
char *scratch_make(void);
void scratch_remove(char *dir);

#define FAKE_LOG 64

struct fake_seen { /* one message that the fake broker got */
    uint32_t type, attempt;
    uint64_t task, epoch, number; /* number: granted, ref, permille */
    char text[128];
};
struct fake_broker {
    char *dir, *endpoint, *disk, *pixels;
    void *context, *socket;
    uint64_t epoch;
    uint32_t seq, heard_seq; /* ours, the peer's last */
    uint8_t route[32];
    size_t route_bytes;
    bool is_silent; /* takes messages, answers none */
    bool is_deaf;   /* takes none */
    bool no_ack;
    uint32_t beat_ms;
    uint32_t proto;            /* chosen in WELCOME; PM_PROTO_MAX unless set otherwise */
    struct pm_msg_hello hello; /* the last one; strings in hello_arena */
    struct pm_arena hello_arena;
    uint32_t hellos;
    uint64_t granted, given; /* the broker's side of the credit */
    struct fake_seen seen[FAKE_LOG];
    uint32_t seen_count;
};

void fake_init(struct fake_broker *fake);  /* makes directories, does not bind */
void fake_start(struct fake_broker *fake); /* binds; each start has a higher epoch */
void fake_stop(struct fake_broker *fake);  /* as if killed: the socket goes without a word */
void fake_end(struct fake_broker *fake);
void fake_turn(struct fake_broker *fake); /* handles everything that has arrived */
int fake_send(struct fake_broker *fake, uint32_t type, const void *record, const void *payload, size_t bytes);
/* Sends a LEASE for the task and counts it against the credit. */
void fake_lease(struct fake_broker *fake, uint64_t task, uint32_t attempt);
uint32_t fake_count(const struct fake_broker *fake, uint32_t type);
const struct fake_seen *fake_last(const struct fake_broker *fake, uint32_t type); /* NULL: none */

/* Turns peer and broker until the peer reports an event of this kind (returned in *out), at most 10 s. */
bool fake_pump_event(struct fake_broker *fake, struct pm_peer *peer, enum pm_peer_event_kind kind,
                     struct pm_peer_event *out);
/* Turns both until the broker has seen `count` messages of the type; events of the peer must not occur. */
bool fake_pump_count(struct fake_broker *fake, struct pm_peer *peer, uint32_t type, uint32_t count);

#endif
