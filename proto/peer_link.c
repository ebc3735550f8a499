/* The connection of a peer: one DEALER socket and its monitor per attempt, greeting, ping, loss. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <zmq.h>

#include "base/clock.h"
#include "proto/peer_internal.h"

#define GREETING_US     1000000 /* HELLO unanswered: first wait; doubled with each try up to the longest */
#define GREETING_MAX_US 8000000
#define RETRY_US        50000    /* after a broken connection */
#define PING_AFTER_US   5000000  /* silence of the broker before we ask */
#define PONG_WITHIN_US  15000000 /* asked and unanswered: it is stuck */
#define LINGER_MS       200      /* for GOODBYE and the last result */
#define STEP_US         500000   /* timers are looked at this often */

int pm_link_open(struct pm_peer *peer, struct pm_error *err)
{
    struct pm_link *l = &peer->link;
    l->context = zmq_ctx_new();
    if (!l->context)
        return pm_fail(err, PM_ENOMEM, "cannot make a ZeroMQ context: %s", zmq_strerror(errno));
    l->without_us = l->retry_us = pm_clock_us();
    l->greeting_us = GREETING_US;
    l->ping_after_us = PING_AFTER_US;
    l->pong_within_us = PONG_WITHIN_US;
    return 0;
}

static void close_sockets(struct pm_link *l)
{
    if (l->monitor) {
        zmq_socket_monitor(l->socket, NULL, 0);
        zmq_close(l->monitor);
    }
    if (l->socket)
        zmq_close(l->socket);
    l->monitor = l->socket = NULL;
}

void pm_link_drop(struct pm_peer *peer, int64_t now_us, int64_t delay_us)
{
    struct pm_link *l = &peer->link;
    bool was_up = l->state == PM_LINK_UP;
    close_sockets(l);
    l->state = PM_LINK_DOWN;
    l->since_us = now_us;
    l->retry_us = now_us + delay_us;
    if (was_up) {
        l->without_us = now_us;
        pm_peer_queue(peer, PM_PEER_LOST, 0, 0, "");
    }
}

static int open_monitor(struct pm_link *l, struct pm_error *err)
{
    char name[64];
    snprintf(name, sizeof name, "inproc://monitor-%llu", (unsigned long long)l->sockets);
    l->monitor = zmq_socket(l->context, ZMQ_PAIR);
    int linger = 0;
    if (!l->monitor || zmq_setsockopt(l->monitor, ZMQ_LINGER, &linger, sizeof linger) ||
        zmq_socket_monitor(l->socket, name,
                           ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                               ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL) ||
        zmq_connect(l->monitor, name))
        return pm_fail(err, PM_EIO, "cannot watch the connection: %s", zmq_strerror(errno));
    return 0;
}

static int start_connecting(struct pm_peer *peer, int64_t now_us, struct pm_error *err)
{
    struct pm_link *l = &peer->link;
    l->sockets++;
    l->seq = 0;
    l->proto = PM_PROTO_MIN; /* what every broker can read; WELCOME raises it */
    l->pinged_us = 0;
    l->socket = zmq_socket(l->context, ZMQ_DEALER);
    if (!l->socket)
        return pm_fail(err, PM_EIO, "cannot make a socket: %s", zmq_strerror(errno));
    int rc = pm_socket_options(l->socket, ZMQ_DEALER, err);
    struct pm_key_options keys = {peer->server_key, peer->key_file};
    if (!rc)
        rc = pm_key_secure_client(l->socket, peer->endpoint, &keys, err);
    if (!rc && zmq_setsockopt(l->socket, ZMQ_ROUTING_ID, peer->route, peer->route_bytes))
        rc = pm_fail(err, PM_EINTERNAL, "cannot set the routing id: %s", zmq_strerror(errno));
    if (!rc)
        rc = open_monitor(l, err);
    if (!rc && zmq_connect(l->socket, peer->endpoint))
        rc = pm_fail(err, PM_EINVAL, "cannot connect to %s: %s", peer->endpoint, zmq_strerror(errno));
    if (rc) {
        close_sockets(l);
        return rc;
    }
    l->state = PM_LINK_CONNECTING;
    l->since_us = now_us;
    return 0;
}

static bool can_send(const struct pm_link *l)
{
    int events = 0;
    size_t size = sizeof events;
    return !zmq_getsockopt(l->socket, ZMQ_EVENTS, &events, &size) && (events & ZMQ_POLLOUT);
}

static int send_hello(struct pm_peer *peer, int64_t now_us, struct pm_error *err)
{
    struct pm_arena arena = {0};
    struct pm_msg_hello hello;
    pm_peer_fill_hello(peer, &arena, &hello);
    int rc = pm_link_send(peer, PM_MSG_HELLO, &hello, err);
    pm_arena_free(&arena);
    if (rc == PM_EAGAIN)
        return 0; /* the connection went again; stay CONNECTING */
    if (!rc) {
        peer->link.state = PM_LINK_GREETING;
        peer->link.since_us = now_us;
    }
    return rc;
}

static void keep_pinging(struct pm_peer *peer, int64_t now_us)
{
    struct pm_link *l = &peer->link;
    if (l->pinged_us && now_us - l->pinged_us > l->pong_within_us) {
        pm_link_drop(peer, now_us, RETRY_US);
    } else if (!l->pinged_us && now_us - l->heard_us > l->ping_after_us) {
        struct pm_msg_ping ping = {.ref = ++l->ping_ref};
        if (!pm_link_send(peer, PM_MSG_PING, &ping, NULL))
            l->pinged_us = now_us;
    }
}

int pm_link_step(struct pm_peer *peer, int64_t now_us, struct pm_error *err)
{
    struct pm_link *l = &peer->link;
    int rc = 0;
    if (l->is_denied)
        return pm_fail(
            err, PM_EDENIED,
            "the broker at %s does not allow this key: `pagemill keys allow` on its host changes that",
            peer->endpoint);
    if (l->state == PM_LINK_DOWN && now_us >= l->retry_us)
        rc = start_connecting(peer, now_us, err);
    if (!rc && l->state == PM_LINK_CONNECTING && can_send(l))
        rc = send_hello(peer, now_us, err);
    /* A router that still holds our old connection ignores the new one of the same name; trying again later
     * finds it gone. */
    if (!rc && l->state == PM_LINK_GREETING && now_us - l->since_us > l->greeting_us) {
        l->greeting_us = l->greeting_us * 2 < GREETING_MAX_US ? l->greeting_us * 2 : GREETING_MAX_US;
        pm_link_drop(peer, now_us, RETRY_US);
    }
    if (!rc && l->state == PM_LINK_UP)
        keep_pinging(peer, now_us);
    if (!rc && l->state != PM_LINK_UP && peer->give_up_us && now_us - l->without_us >= peer->give_up_us)
        rc = pm_fail(err, PM_ETIMEOUT, "no broker answered at %s for %.1f s: %s", peer->endpoint,
                     (double)peer->give_up_us / 1e6,
                     l->handshakes_failed && peer->server_key
                         ? "something is there, perhaps with another key than --server-key says"
                         : "is it running?");
    return rc;
}

#define ZAP_DENIED 400 /* anything else is "not now" */
#define PUT_OFF_US 2000000

/* A monitor event is two frames: number and value, address. */
bool pm_link_is_broken(struct pm_peer *peer)
{
    struct pm_link *l = &peer->link;
    bool is_broken = false, is_put_off = false;
    while (l->monitor) {
        uint8_t frame[256];
        int n = zmq_recv(l->monitor, frame, sizeof frame, ZMQ_DONTWAIT);
        if (n < 0)
            break;
        uint16_t event = 0;
        uint32_t value = 0;
        if (n >= (int)(sizeof event + sizeof value)) {
            memcpy(&event, frame, sizeof event);
            memcpy(&value, frame + sizeof event, sizeof value);
        }
        int has_more = 0;
        size_t size = sizeof has_more;
        zmq_getsockopt(l->monitor, ZMQ_RCVMORE, &has_more, &size);
        if (has_more)
            zmq_recv(l->monitor, frame, sizeof frame, 0);
        is_broken |= event == ZMQ_EVENT_DISCONNECTED;
        l->is_denied |= event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH && value == ZAP_DENIED;
        is_put_off |= event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH && value != ZAP_DENIED;
        l->handshakes_failed += event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL;
    }
    if (is_put_off && !l->is_denied) /* ZeroMQ would not try again */
        pm_link_drop(peer, pm_clock_us(), PUT_OFF_US);
    return is_broken && (l->state == PM_LINK_GREETING || l->state == PM_LINK_UP);
}

static struct pm_header next_header(struct pm_peer *peer, uint32_t type)
{
    return (struct pm_header){
        .proto = peer->link.proto, .type = type, .seq = peer->link.seq + 1, .epoch = peer->epoch};
}

int pm_link_send(struct pm_peer *peer, uint32_t type, const void *record, struct pm_error *err)
{
    struct pm_header header = next_header(peer, type);
    int rc = pm_message_send(peer->link.socket, NULL, 0, &header, record, NULL, 0, err);
    peer->link.seq += !rc;
    return rc;
}

int pm_link_send_encoded(struct pm_peer *peer, uint32_t type, const struct pm_buf *encoded,
                         struct pm_error *err)
{
    struct pm_header header = next_header(peer, type);
    int rc = pm_message_send_encoded(peer->link.socket, NULL, 0, &header, encoded->data, encoded->size, NULL,
                                     0, err);
    peer->link.seq += !rc;
    return rc;
}

void pm_link_up(struct pm_peer *peer, uint32_t proto, int64_t now_us)
{
    peer->link.state = PM_LINK_UP;
    peer->link.proto = proto;
    peer->link.since_us = now_us;
    peer->link.greeting_us = GREETING_US;
}

int pm_link_wait(struct pm_peer *peer, int64_t now_us, int64_t until_us, bool wants_out, struct pm_error *err)
{
    struct pm_link *l = &peer->link;
    int64_t wait_us = until_us - now_us;
    int64_t step_us = l->ping_after_us < STEP_US ? l->ping_after_us : STEP_US;
    if (wait_us > step_us)
        wait_us = step_us;
    if (l->state == PM_LINK_DOWN && l->retry_us - now_us < wait_us)
        wait_us = l->retry_us - now_us;
    if (wait_us < 0)
        wait_us = 0;
    zmq_pollitem_t items[3] = {{.fd = peer->signal_fd, .events = ZMQ_POLLIN}};
    int count = 1;
    if (l->socket) {
        short events = ZMQ_POLLIN;
        if (wants_out || l->state == PM_LINK_CONNECTING)
            events |= ZMQ_POLLOUT;
        items[count++] = (zmq_pollitem_t){.socket = l->socket, .events = events};
        items[count++] = (zmq_pollitem_t){.socket = l->monitor, .events = ZMQ_POLLIN};
    }
    if (zmq_poll(items, count, (long)((wait_us + 999) / 1000)) < 0 && errno != EINTR)
        return pm_fail(err, PM_EIO, "cannot wait for messages: %s", zmq_strerror(errno));
    return 0;
}

void pm_link_close(struct pm_peer *peer)
{
    struct pm_link *l = &peer->link;
    if (l->socket && l->state == PM_LINK_UP) {
        struct pm_msg_goodbye goodbye = {.reason = peer->is_draining ? "drained" : "stopping"};
        pm_link_send(peer, PM_MSG_GOODBYE, &goodbye, NULL);
        int linger = LINGER_MS;
        zmq_setsockopt(l->socket, ZMQ_LINGER, &linger, sizeof linger);
    }
    close_sockets(l);
    while (l->context && zmq_ctx_term(l->context) && errno == EINTR) {
    }
    l->context = NULL;
}
