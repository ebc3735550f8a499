/* Frames between two real sockets, and the traps of ZeroMQ that a fleet falls into. */
#include "fixture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <zmq.h>

#include "base/clock.h"
#include "proto/chunk.h"

struct pair {
    void *context, *router, *dealer;
    struct pm_arena arena;
    struct pm_message m;
    struct pm_error err;
    char *dir, *endpoint;
};

static void wait_for(void *socket, short events)
{
    zmq_pollitem_t item = {.socket = socket, .events = events};
    assert_int_equal(zmq_poll(&item, 1, 10000), 1);
}

static int set_up(void **state)
{
    struct pair *p = calloc(1, sizeof *p);
    p->dir = scratch_make();
    p->endpoint = pm_xprintf("ipc://%s/s", p->dir);
    p->context = zmq_ctx_new();
    p->router = zmq_socket(p->context, ZMQ_ROUTER);
    p->dealer = zmq_socket(p->context, ZMQ_DEALER);
    assert_int_equal(pm_socket_options(p->router, ZMQ_ROUTER, &p->err), 0);
    assert_int_equal(pm_socket_options(p->dealer, ZMQ_DEALER, &p->err), 0);
    assert_int_equal(zmq_setsockopt(p->dealer, ZMQ_ROUTING_ID, "peer", 4), 0);
    assert_int_equal(zmq_bind(p->router, p->endpoint), 0);
    assert_int_equal(zmq_connect(p->dealer, p->endpoint), 0);
    wait_for(p->dealer, ZMQ_POLLOUT);
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct pair *p = *state;
    if (p->dealer)
        zmq_close(p->dealer);
    if (p->router)
        zmq_close(p->router);
    zmq_ctx_term(p->context);
    pm_arena_free(&p->arena);
    free(p->endpoint);
    scratch_remove(p->dir);
    free(p);
    return 0;
}

static struct pm_header header_of(uint32_t type)
{
    return (struct pm_header){
        .proto = PM_PROTO_MAX, .type = type, .seq = 0x01020304, .epoch = 0x1122334455667788};
}

/* What the router makes of frames given raw. */
static int receive(struct pair *p)
{
    wait_for(p->router, ZMQ_POLLIN);
    pm_arena_clear(&p->arena);
    memset(&p->err, 0, sizeof p->err);
    return pm_message_receive(p->router, true, &p->arena, &p->m, &p->err);
}

static void send_raw(struct pair *p, size_t count, const struct pm_bytes *frames)
{
    for (size_t i = 0; i < count; i++)
        assert_true(zmq_send(p->dealer, frames[i].data, frames[i].size, i + 1 < count ? ZMQ_SNDMORE : 0) >=
                    0);
}

static void header_is_laid_out_as_drawn(void **state)
{
    (void)state;
    static const uint8_t expected[16] = {'P',  'M',  2,    11,   0x04, 0x03, 0x02, 0x01,
                                         0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
    uint8_t out[PM_FRAME_HEADER_BYTES];
    struct pm_header h = header_of(PM_MSG_LEASE), back;
    struct pm_error err;
    pm_header_put(&h, out);
    assert_memory_equal(out, expected, sizeof out);
    assert_int_equal(pm_header_get(out, sizeof out, &back, &err), 0);
    assert_true(back.proto == h.proto && back.type == h.type && back.seq == h.seq && back.epoch == h.epoch);
    assert_int_equal(pm_header_get(out, 15, &back, &err), PM_EPROTO);
    assert_int_equal(pm_header_get(out, 17, &back, &err), PM_EPROTO);
    static const struct {
        unsigned at;
        uint8_t value;
    } wrong[] = {{0, 'X'}, {1, 'X'}, {2, 0}, {2, PM_PROTO_MAX + 1}, {3, 0}, {3, 7}, {3, 255}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        memcpy(out, expected, sizeof out);
        out[wrong[i].at] = wrong[i].value;
        assert_int_equal(pm_header_get(out, sizeof out, &back, &err), PM_EPROTO);
    }
}

static void messages_arrive_whole(void **state)
{
    struct pair *p = *state;
    assert_int_equal(pm_message_receive(p->router, true, &p->arena, &p->m, &p->err), PM_EAGAIN);
    struct pm_msg_beat beat = {0};
    struct pm_header h = header_of(PM_MSG_BEAT);
    assert_int_equal(pm_message_send(p->dealer, NULL, 0, &h, &beat, NULL, 0, &p->err), 0);
    assert_int_equal(receive(p), 0);
    assert_int_equal(p->m.header.type, PM_MSG_BEAT);
    assert_true(p->m.header.epoch == h.epoch);
    assert_int_equal(p->m.route_bytes, 4);
    assert_memory_equal(p->m.route, "peer", 4);
    assert_int_equal(p->m.payload.size, 0);
    /* And back, with a payload. */
    uint8_t route[4];
    memcpy(route, p->m.route, 4);
    struct pm_msg_lease lease = {.task = 1, .epoch = 2, .job = 3, .attempt = 4, .kind = PM_KIND_PAGE};
    h = header_of(PM_MSG_LEASE);
    assert_int_equal(pm_message_send(p->router, route, 4, &h, &lease, "payload", 7, &p->err), 0);
    wait_for(p->dealer, ZMQ_POLLIN);
    assert_int_equal(pm_message_receive(p->dealer, false, &p->arena, &p->m, &p->err), 0);
    assert_int_equal(((const struct pm_msg_lease *)p->m.record)->job, 3);
    assert_int_equal(p->m.payload.size, 7);
    assert_memory_equal(p->m.payload.data, "payload", 7);
}

static void malformed_messages_are_refused_one_by_one(void **state)
{
    struct pair *p = *state;
    uint8_t head[PM_FRAME_HEADER_BYTES], lease_head[PM_FRAME_HEADER_BYTES], bad_head[PM_FRAME_HEADER_BYTES];
    struct pm_header h = header_of(PM_MSG_PING);
    pm_header_put(&h, head);
    h = header_of(PM_MSG_LEASE);
    pm_header_put(&h, lease_head);
    memcpy(bad_head, head, sizeof head);
    bad_head[0] = 'Q';
    static const uint8_t ping[] = {0x81, 0xa1, 'v', 100};
    uint8_t *large = calloc(1, PM_FRAME_RECORD_BYTES + 1);
    struct pm_bytes H = {head, 16}, L = {lease_head, 16}, B = {bad_head, 16}, R = {ping, 4}, E = {head, 0};
    struct pm_bytes big = {large, PM_FRAME_RECORD_BYTES + 1};
    struct pm_bytes many[12];
    for (int i = 0; i < 12; i++)
        many[i] = i ? R : L;
    const struct {
        size_t count;
        const struct pm_bytes *frames;
        const char *says;
    } cases[] = {
        {1, (struct pm_bytes[]){H}, "1 frames"},         {1, (struct pm_bytes[]){E}, "0 bytes"},
        {2, (struct pm_bytes[]){B, R}, "start with PM"}, {2, (struct pm_bytes[]){R, H}, "4 bytes"},
        {3, (struct pm_bytes[]){H, R, R}, "3 frames"},   {12, many, "12 frames"},
        {2, (struct pm_bytes[]){H, big}, "limit"},       {2, (struct pm_bytes[]){H, E}, "cut off"},
        {2, (struct pm_bytes[]){L, R}, "is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        send_raw(p, cases[i].count, cases[i].frames);
        assert_int_equal(receive(p), PM_EPROTO);
        if (!strstr(p->err.text, cases[i].says))
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, p->err.text, cases[i].says);
        assert_int_equal(p->m.route_bytes, 4); /* still known whom to count it against */
        assert_null(p->m.record);
    }
    send_raw(p, 2, (struct pm_bytes[]){H, R}); /* and the next good one is read */
    assert_int_equal(receive(p), 0);
    free(large);
}

static void too_large_is_not_sent(void **state)
{
    struct pair *p = *state;
    uint8_t *large = calloc(1, PM_FRAME_PAYLOAD_BYTES + 1);
    struct pm_msg_ping ping = {0};
    struct pm_msg_lease lease = {.kind = 1};
    struct pm_header h = header_of(PM_MSG_PING);
    assert_int_equal(pm_message_send(p->dealer, NULL, 0, &h, &ping, "x", 1, &p->err), PM_ELIMIT);
    h = header_of(PM_MSG_LEASE);
    assert_int_equal(
        pm_message_send(p->dealer, NULL, 0, &h, &lease, large, PM_FRAME_PAYLOAD_BYTES + 1, &p->err),
        PM_ELIMIT);
    assert_int_equal(
        pm_message_send_encoded(p->dealer, NULL, 0, &h, large, PM_FRAME_RECORD_BYTES + 1, NULL, 0, &p->err),
        PM_ELIMIT);
    h.type = 99;
    assert_int_equal(pm_message_send(p->dealer, NULL, 0, &h, &ping, NULL, 0, &p->err), PM_EINTERNAL);
    /* The largest payload does arrive. */
    h = header_of(PM_MSG_LEASE);
    assert_int_equal(pm_message_send(p->dealer, NULL, 0, &h, &lease, large, PM_FRAME_PAYLOAD_BYTES, &p->err),
                     0);
    assert_int_equal(receive(p), 0);
    assert_int_equal(p->m.payload.size, PM_FRAME_PAYLOAD_BYTES);
    free(large);
}

/* Trap: frames have no size limit by default. A peer that sends more is cut off before it is stored. */
static void oversized_frame_ends_the_connection(void **state)
{
    struct pair *p = *state;
    uint8_t *large = calloc(1, PM_FRAME_PAYLOAD_BYTES + 1);
    assert_int_equal(zmq_socket_monitor(p->router, "inproc://watch", ZMQ_EVENT_DISCONNECTED), 0);
    void *watch = zmq_socket(p->context, ZMQ_PAIR);
    assert_int_equal(zmq_connect(watch, "inproc://watch"), 0);
    send_raw(p, 1, &(struct pm_bytes){large, PM_FRAME_PAYLOAD_BYTES + 1});
    wait_for(watch, ZMQ_POLLIN);
    assert_int_equal(pm_message_receive(p->router, true, &p->arena, &p->m, &p->err), PM_EAGAIN);
    zmq_socket_monitor(p->router, NULL, 0);
    zmq_close(watch);
    free(large);
}

/* Trap: ROUTER drops silently when the peer is unknown. */
static void unknown_peer_is_an_error(void **state)
{
    struct pair *p = *state;
    struct pm_msg_ping ping = {0};
    struct pm_header h = header_of(PM_MSG_PING);
    assert_int_equal(pm_message_send(p->router, (const uint8_t *)"nobody", 6, &h, &ping, NULL, 0, &p->err),
                     PM_EGONE);
}

/* Trap: ROUTER drops silently when the peer's queue is full. Every message is either an error or arrives, and
 * an error never leaves half a message behind. */
static void full_queue_is_an_error_and_loses_nothing(void **state)
{
    struct pair *p = *state;
    struct pm_msg_ping ping = {0};
    struct pm_header h = header_of(PM_MSG_PING);
    assert_int_equal(pm_message_send(p->dealer, NULL, 0, &h, &ping, NULL, 0, &p->err), 0);
    assert_int_equal(receive(p), 0); /* the router knows the peer now */
    uint64_t sent = 0;
    uint32_t refused = 0;
    /* The system's buffers move on meanwhile, so room can appear again between two refusals. */
    while (refused < 100 && sent < 1000000) {
        ping.ref = sent;
        int rc = pm_message_send(p->router, (const uint8_t *)"peer", 4, &h, &ping, NULL, 0, &p->err);
        assert_true(rc == 0 || rc == PM_EAGAIN);
        sent += !rc;
        refused += rc == PM_EAGAIN;
    }
    assert_int_equal(refused, 100);
    for (uint64_t i = 0; i < sent; i++) {
        wait_for(p->dealer, ZMQ_POLLIN);
        pm_arena_clear(&p->arena);
        assert_int_equal(pm_message_receive(p->dealer, false, &p->arena, &p->m, &p->err), 0);
        assert_int_equal(((const struct pm_msg_ping *)p->m.record)->ref, i);
    }
    assert_int_equal(pm_message_receive(p->dealer, false, &p->arena, &p->m, &p->err), PM_EAGAIN);
}

/* Trap: a DEALER queues for a peer that is not there, and replays it all later. */
static void nothing_is_queued_for_an_absent_peer(void **state)
{
    struct pair *p = *state;
    void *lonely = zmq_socket(p->context, ZMQ_DEALER);
    struct pm_msg_ping ping = {0};
    struct pm_header h = header_of(PM_MSG_PING);
    assert_int_equal(pm_socket_options(lonely, ZMQ_DEALER, &p->err), 0);
    char *nowhere = pm_xprintf("ipc://%s/nowhere", p->dir);
    assert_int_equal(zmq_connect(lonely, nowhere), 0);
    assert_int_equal(pm_message_send(lonely, NULL, 0, &h, &ping, NULL, 0, &p->err), PM_EAGAIN);
    zmq_close(lonely);
    free(nowhere);
}

/* Trap: LINGER is for ever by default, and zmq_ctx_term hangs with a dead peer. */
static void options_are_what_they_should_be(void **state)
{
    struct pair *p = *state;
    static const struct {
        int option, expected;
    } ints[] = {{ZMQ_LINGER, 0}, {ZMQ_SNDHWM, 1000}, {ZMQ_RCVHWM, 1000}, {ZMQ_HEARTBEAT_IVL, 0}};
    for (size_t i = 0; i < sizeof ints / sizeof ints[0]; i++) {
        void *sockets[2] = {p->router, p->dealer};
        for (int k = 0; k < 2; k++) {
            int value = -2;
            size_t size = sizeof value;
            assert_int_equal(zmq_getsockopt(sockets[k], ints[i].option, &value, &size), 0);
            assert_int_equal(value, ints[i].expected);
        }
    }
    int64_t largest = 0;
    size_t size = sizeof largest;
    assert_int_equal(zmq_getsockopt(p->router, ZMQ_MAXMSGSIZE, &largest, &size), 0);
    assert_int_equal(largest, PM_FRAME_PAYLOAD_BYTES);
    int immediate = 0;
    size = sizeof immediate;
    assert_int_equal(zmq_getsockopt(p->dealer, ZMQ_IMMEDIATE, &immediate, &size), 0);
    assert_int_equal(immediate, 1);
}

/* Trap: a routing id that is in use is not taken over by whoever claims it. */
static void second_peer_of_the_same_name_is_kept_out(void **state)
{
    struct pair *p = *state;
    struct pm_msg_ping ping = {.ref = 1};
    struct pm_header h = header_of(PM_MSG_PING);
    assert_int_equal(pm_message_send(p->dealer, NULL, 0, &h, &ping, NULL, 0, &p->err), 0);
    assert_int_equal(receive(p), 0);
    void *twin = zmq_socket(p->context, ZMQ_DEALER);
    assert_int_equal(pm_socket_options(twin, ZMQ_DEALER, &p->err), 0);
    assert_int_equal(zmq_setsockopt(twin, ZMQ_ROUTING_ID, "peer", 4), 0);
    assert_int_equal(zmq_connect(twin, p->endpoint), 0);
    wait_for(twin, ZMQ_POLLOUT);
    ping.ref = 666;
    assert_int_equal(pm_message_send(twin, NULL, 0, &h, &ping, NULL, 0, &p->err), 0);
    ping.ref = 2;
    assert_int_equal(pm_message_send(p->dealer, NULL, 0, &h, &ping, NULL, 0, &p->err), 0);
    assert_int_equal(receive(p), 0);
    assert_int_equal(((const struct pm_msg_ping *)p->m.record)->ref, 2);
    assert_int_equal(pm_message_send(p->router, (const uint8_t *)"peer", 4, &h, &ping, NULL, 0, &p->err), 0);
    wait_for(p->dealer, ZMQ_POLLIN); /* the answer goes to the first */
    zmq_close(twin);
}

static void long_routing_ids_are_refused(void **state)
{
    struct pair *p = *state;
    char id[33];
    memset(id, 'x', sizeof id);
    void *other = zmq_socket(p->context, ZMQ_DEALER);
    struct pm_msg_ping ping = {0};
    struct pm_header h = header_of(PM_MSG_PING);
    assert_int_equal(pm_socket_options(other, ZMQ_DEALER, &p->err), 0);
    assert_int_equal(zmq_setsockopt(other, ZMQ_ROUTING_ID, id, sizeof id), 0);
    assert_int_equal(zmq_connect(other, p->endpoint), 0);
    wait_for(other, ZMQ_POLLOUT);
    assert_int_equal(pm_message_send(other, NULL, 0, &h, &ping, NULL, 0, &p->err), 0);
    assert_int_equal(receive(p), PM_EPROTO);
    zmq_close(other);
}

/* Trap: a path over 107 bytes is cut by the system, and two fleets meet on one socket. */
static void endpoints_are_checked(void **state)
{
    (void)state;
    struct pm_error err;
    char endpoint[160] = "ipc://";
    memset(endpoint + 6, 'a', 107);
    assert_int_equal(pm_endpoint_check(endpoint, &err), 0);
    endpoint[6 + 107] = 'a';
    assert_int_equal(pm_endpoint_check(endpoint, &err), PM_EINVAL);
    assert_non_null(strstr(err.text, "107"));
    assert_int_equal(pm_endpoint_check("ipc://", &err), PM_EINVAL);
    assert_int_equal(pm_endpoint_check("tcp://127.0.0.1:5555", &err), 0);
    assert_int_equal(pm_endpoint_check("/run/x.sock", &err), PM_EINVAL);
}

static void chunks_unpack_to_what_they_announce(void **state)
{
    (void)state;
    uint8_t *raw = calloc(1, PM_CHUNK_BYTES), *back = calloc(1, PM_CHUNK_BYTES);
    struct pm_buf block = {0};
    struct pm_error err;
    for (size_t i = 0; i < PM_CHUNK_BYTES; i++)
        raw[i] = (uint8_t)(i * i >> 7);
    pm_chunk_pack(raw, PM_CHUNK_BYTES, &block);
    struct pm_bytes b = {block.data, block.size};
    assert_int_equal(pm_chunk_unpack(b, PM_CHUNK_BYTES, back, &err), 0);
    assert_memory_equal(raw, back, PM_CHUNK_BYTES);
    assert_int_equal(pm_chunk_unpack(b, PM_CHUNK_BYTES - 1, back, &err), PM_EPROTO);
    assert_int_equal(pm_chunk_unpack(b, PM_CHUNK_BYTES + 1, back, &err), PM_EPROTO);
    for (size_t n = 0; n < block.size; n += 97)
        assert_int_equal(pm_chunk_unpack((struct pm_bytes){block.data, n}, PM_CHUNK_BYTES, back, &err),
                         PM_EPROTO);
    assert_int_equal(pm_chunk_unpack((struct pm_bytes){0}, 0, back, &err), 0);
    pm_buf_clear(&block);
    pm_chunk_pack(raw, 0, &block);
    assert_int_equal(block.size, 0);
    pm_buf_free(&block);
    free(raw);
    free(back);
}

#define PAIR(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_is_laid_out_as_drawn),
        PAIR(messages_arrive_whole),
        PAIR(malformed_messages_are_refused_one_by_one),
        PAIR(too_large_is_not_sent),
        PAIR(oversized_frame_ends_the_connection),
        PAIR(unknown_peer_is_an_error),
        PAIR(full_queue_is_an_error_and_loses_nothing),
        PAIR(nothing_is_queued_for_an_absent_peer),
        PAIR(options_are_what_they_should_be),
        PAIR(second_peer_of_the_same_name_is_kept_out),
        PAIR(long_routing_ids_are_refused),
        cmocka_unit_test(endpoints_are_checked),
        cmocka_unit_test(chunks_unpack_to_what_they_announce),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
