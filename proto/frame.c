#include "proto/frame.h"

#include <errno.h>
#include <string.h>
#include <sys/un.h>

#include <zmq.h>

#define MAX_FRAMES 4 /* routing id, header, record, payload */

void pm_header_put(const struct pm_header *h, uint8_t out[PM_FRAME_HEADER_BYTES])
{
    out[0] = 'P';
    out[1] = 'M';
    out[2] = (uint8_t)h->proto;
    out[3] = (uint8_t)h->type;
    for (unsigned i = 0; i < 4; i++)
        out[4 + i] = (uint8_t)(h->seq >> (8 * i));
    for (unsigned i = 0; i < 8; i++)
        out[8 + i] = (uint8_t)(h->epoch >> (8 * i));
}

int pm_header_get(const uint8_t *data, size_t bytes, struct pm_header *out, struct pm_error *err)
{
    *out = (struct pm_header){0};
    if (bytes != PM_FRAME_HEADER_BYTES)
        return pm_fail(err, PM_EPROTO, "message header has %zu bytes, not %u", bytes, PM_FRAME_HEADER_BYTES);
    if (data[0] != 'P' || data[1] != 'M')
        return pm_fail(err, PM_EPROTO, "message does not start with PM: not a Pagemill peer");
    out->proto = data[2];
    out->type = data[3];
    for (unsigned i = 0; i < 4; i++)
        out->seq |= (uint32_t)data[4 + i] << (8 * i);
    for (unsigned i = 0; i < 8; i++)
        out->epoch |= (uint64_t)data[8 + i] << (8 * i);
    if (out->proto < PM_PROTO_MIN || out->proto > PM_PROTO_MAX)
        return pm_fail(err, PM_EPROTO, "message in protocol version %u; this program speaks %u to %u",
                       out->proto, PM_PROTO_MIN, PM_PROTO_MAX);
    if (!pm_msg_schema(out->type))
        return pm_fail(err, PM_EPROTO, "message of unknown type %u", out->type);
    return 0;
}

static bool has_payload(uint32_t type)
{
    return type == PM_MSG_LEASE || type == PM_MSG_BLOB_PUT || type == PM_MSG_BLOB_DATA;
}

int pm_endpoint_check(const char *endpoint, struct pm_error *err)
{
    const size_t longest = sizeof((struct sockaddr_un *)0)->sun_path - 1;
    if (!strncmp(endpoint, "ipc://", 6)) {
        size_t n = strlen(endpoint + 6);
        if (!n)
            return pm_fail(err, PM_EINVAL, "endpoint %s names no socket file", endpoint);
        if (n > longest)
            return pm_fail(err, PM_EINVAL,
                           "socket path %.150s... has %zu bytes, the system allows %zu: choose a shorter "
                           "runtime directory",
                           endpoint + 6, n, longest);
        return 0;
    }
    if (!strncmp(endpoint, "tcp://", 6) || !strncmp(endpoint, "inproc://", 9))
        return 0;
    return pm_fail(err, PM_EINVAL, "endpoint %s is not ipc://PATH or tcp://HOST:PORT", endpoint);
}

static int set_option(void *socket, int option, int value, const char *name, struct pm_error *err)
{
    if (zmq_setsockopt(socket, option, &value, sizeof value))
        return pm_fail(err, PM_EINTERNAL, "cannot set socket option %s to %d: %s", name, value,
                       zmq_strerror(errno));
    return 0;
}

int pm_socket_options(void *socket, int zmq_type, struct pm_error *err)
{
    /* High-water marks count messages; the bounds that matter are credit and MAXMSGSIZE. No ZeroMQ
     * heartbeats: when a connection ends whose queue is full, the next one aborts the process (libzmq 4.3.4,
     * assertion
     * !_io_error), and any peer can bring that about. The kernel finds dead hosts; our own pings and beats
     * find the rest. */
    static const struct {
        int option, value;
        const char *name;
    } common[] = {
        {ZMQ_LINGER, 0, "LINGER"},
        {ZMQ_SNDHWM, 1000, "SNDHWM"},
        {ZMQ_RCVHWM, 1000, "RCVHWM"},
        {ZMQ_HEARTBEAT_IVL, 0, "HEARTBEAT_IVL"},
        {ZMQ_TCP_KEEPALIVE, 1, "TCP_KEEPALIVE"},
        {ZMQ_TCP_KEEPALIVE_IDLE, 10, "TCP_KEEPALIVE_IDLE"},
        {ZMQ_TCP_KEEPALIVE_INTVL, 3, "TCP_KEEPALIVE_INTVL"},
        {ZMQ_TCP_KEEPALIVE_CNT, 3, "TCP_KEEPALIVE_CNT"},
        {ZMQ_TCP_MAXRT, 20000, "TCP_MAXRT"},
        {ZMQ_HANDSHAKE_IVL, 5000, "HANDSHAKE_IVL"},
        {ZMQ_RECONNECT_IVL, 20, "RECONNECT_IVL"},
        {ZMQ_RECONNECT_IVL_MAX, 500, "RECONNECT_IVL_MAX"},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof common / sizeof common[0] && !rc; i++)
        rc = set_option(socket, common[i].option, common[i].value, common[i].name, err);
    int64_t largest = PM_FRAME_PAYLOAD_BYTES;
    if (!rc && zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &largest, sizeof largest))
        rc = pm_fail(err, PM_EINTERNAL, "cannot set socket option MAXMSGSIZE: %s", zmq_strerror(errno));
    if (!rc && zmq_type == ZMQ_ROUTER) {
        rc = set_option(socket, ZMQ_ROUTER_MANDATORY, 1, "ROUTER_MANDATORY", err);
        if (!rc)
            rc = set_option(socket, ZMQ_ROUTER_HANDOVER, 0, "ROUTER_HANDOVER", err);
    } else if (!rc && zmq_type == ZMQ_DEALER) {
        rc = set_option(socket, ZMQ_IMMEDIATE, 1, "IMMEDIATE", err);
    }
    return rc;
}

/* ---- receiving ---- */

struct frames {
    zmq_msg_t frame[MAX_FRAMES];
    size_t kept, total, bytes;
};

static void frames_close(struct frames *f)
{
    for (size_t i = 0; i < f->kept; i++)
        zmq_msg_close(&f->frame[i]);
    f->kept = 0;
}

/* Takes one whole message off the socket; frames beyond MAX_FRAMES are counted and dropped. libzmq hands out
 * the first frame only when the last one has arrived, so only the first read can find nothing. */
static int frames_receive(void *socket, struct frames *f, struct pm_error *err)
{
    f->kept = f->total = f->bytes = 0;
    for (;;) {
        zmq_msg_t surplus;
        zmq_msg_t *msg = f->kept < MAX_FRAMES ? &f->frame[f->kept] : &surplus;
        zmq_msg_init(msg);
        while (zmq_msg_recv(msg, socket, ZMQ_DONTWAIT) < 0) {
            int number = errno;
            if (number == EINTR)
                continue;
            zmq_msg_close(msg);
            frames_close(f);
            if (number == EAGAIN && !f->total)
                return PM_EAGAIN;
            return pm_fail(err, PM_EIO, "cannot receive a message: %s", zmq_strerror(number));
        }
        bool has_more = zmq_msg_more(msg);
        f->total++;
        f->bytes += zmq_msg_size(msg);
        if (msg == &surplus)
            zmq_msg_close(msg);
        else
            f->kept++;
        if (!has_more)
            return 0;
    }
}

static int check_frames(struct frames *f, size_t first, struct pm_message *out, struct pm_error *err)
{
    size_t count = f->total - first;
    if (count < 1)
        return pm_fail(err, PM_EPROTO, "empty message");
    int rc = pm_header_get(zmq_msg_data(&f->frame[first]), zmq_msg_size(&f->frame[first]), &out->header, err);
    if (rc)
        return rc;
    const char *name = pm_msg_name(out->header.type);
    size_t most = has_payload(out->header.type) ? 3 : 2;
    if (count < 2 || count > most)
        return pm_fail(err, PM_EPROTO, "%s came in %zu frames, not %s", name, count,
                       most == 3 ? "2 or 3" : "2");
    size_t record_bytes = zmq_msg_size(&f->frame[first + 1]);
    if (record_bytes > PM_FRAME_RECORD_BYTES)
        return pm_fail(err, PM_EPROTO, "%s: the record has %zu bytes, the limit is %u", name, record_bytes,
                       PM_FRAME_RECORD_BYTES);
    if (count == 3 && zmq_msg_size(&f->frame[first + 2]) > PM_FRAME_PAYLOAD_BYTES)
        return pm_fail(err, PM_EPROTO, "%s: the payload has %zu bytes, the limit is %u", name,
                       zmq_msg_size(&f->frame[first + 2]), PM_FRAME_PAYLOAD_BYTES);
    return 0;
}

/* ZMQ_SRCFD is old and undocumented, and the only way from a message to its connection. */
static const struct pm_sender *sender_of(zmq_msg_t *frame, struct pm_arena *arena)
{
    struct pm_sender *sender = pm_arena_alloc(arena, sizeof *sender);
    const char *user = zmq_msg_gets(frame, "User-Id");
    sender->fd = zmq_msg_get(frame, ZMQ_SRCFD);
    if (user)
        strncpy(sender->user, user, sizeof sender->user - 1);
    return sender;
}

int pm_message_receive(void *socket, unsigned how, struct pm_arena *arena, struct pm_message *out,
                       struct pm_error *err)
{
    struct frames f;
    *out = (struct pm_message){0};
    int rc = frames_receive(socket, &f, err);
    if (rc)
        return rc;
    size_t first = how ? 1 : 0;
    out->bytes = f.bytes;
    if (how) {
        size_t n = zmq_msg_size(&f.frame[0]);
        if (n > sizeof out->route) {
            rc = pm_fail(err, PM_EPROTO, "routing id of %zu bytes, the limit is %zu", n, sizeof out->route);
            goto out;
        }
        memcpy(out->route, zmq_msg_data(&f.frame[0]), n);
        out->route_bytes = n;
    }
    rc = check_frames(&f, first, out, err);
    if (rc)
        goto out;
    const struct pm_schema *schema = pm_msg_schema(out->header.type);
    void *record = pm_arena_alloc(arena, schema->size);
    rc = pm_record_decode(schema, zmq_msg_data(&f.frame[first + 1]), zmq_msg_size(&f.frame[first + 1]), arena,
                          record, err);
    if (rc)
        goto out;
    out->record = record;
    if (f.total - first == 3 && zmq_msg_size(&f.frame[first + 2])) {
        size_t n = zmq_msg_size(&f.frame[first + 2]);
        uint8_t *copy = pm_arena_alloc(arena, n);
        memcpy(copy, zmq_msg_data(&f.frame[first + 2]), n);
        out->payload = (struct pm_bytes){copy, n};
    }
out:
    if (how && (how & PM_RECEIVE_SENDER || rc == PM_EPROTO || out->header.type == PM_MSG_HELLO))
        out->sender = sender_of(&f.frame[f.kept - 1], arena); /* the routing id's frame may know nothing */
    frames_close(&f);
    return rc;
}

/* ---- sending ---- */

static int send_failed(int number, struct pm_error *err)
{
    if (number == EAGAIN)
        return pm_fail(err, PM_EAGAIN, "the peer's queue is full");
    if (number == EHOSTUNREACH)
        return pm_fail(err, PM_EGONE, "the peer has left");
    return pm_fail(err, PM_EIO, "cannot send a message: %s", zmq_strerror(number));
}

/* All frames get their memory before the first one leaves: a message that ends in the middle would swallow
 * the next.
 *
 * libzmq decides about a multipart message at its first frame. When a DEALER's connection dies between two
 * frames it drops the message and expects the remaining frames, to drop them too: stopping early would glue
 * the next message to this one. So only a failure of the first frame ends the loop. */
static int send_frames(void *socket, const struct pm_bytes *frames, size_t count, struct pm_error *err)
{
    zmq_msg_t parts[MAX_FRAMES];
    size_t made = 0;
    int failed = 0;
    for (; made < count && !zmq_msg_init_size(&parts[made], frames[made].size); made++)
        if (frames[made].size)
            memcpy(zmq_msg_data(&parts[made]), frames[made].data, frames[made].size);
    bool has_memory = made == count;
    for (size_t i = 0; i < count && has_memory; i++) {
        int flags = ZMQ_DONTWAIT | (i + 1 < count ? ZMQ_SNDMORE : 0);
        int rc;
        do
            rc = zmq_msg_send(&parts[i], socket, flags);
        while (rc < 0 && errno == EINTR);
        if (rc < 0) {
            if (!failed)
                failed = errno;
            if (i == 0)
                break;
        }
    }
    for (size_t i = 0; i < made; i++)
        zmq_msg_close(&parts[i]); /* empty after it was sent */
    if (!has_memory)
        return pm_fail(err, PM_ENOMEM, "no memory for a message");
    return failed ? send_failed(failed, err) : 0;
}

int pm_message_send_encoded(void *socket, const uint8_t *route, size_t route_bytes,
                            const struct pm_header *header, const void *record, size_t record_bytes,
                            const void *payload, size_t payload_bytes, struct pm_error *err)
{
    const char *name = pm_msg_name(header->type);
    if (record_bytes > PM_FRAME_RECORD_BYTES)
        return pm_fail(err, PM_ELIMIT, "cannot send %s: its record has %zu bytes, the limit is %u", name,
                       record_bytes, PM_FRAME_RECORD_BYTES);
    if (payload_bytes && !has_payload(header->type))
        return pm_fail(err, PM_ELIMIT, "cannot send %s: this type has no payload", name);
    if (payload_bytes > PM_FRAME_PAYLOAD_BYTES)
        return pm_fail(err, PM_ELIMIT, "cannot send %s: its payload has %zu bytes, the limit is %u", name,
                       payload_bytes, PM_FRAME_PAYLOAD_BYTES);
    uint8_t head[PM_FRAME_HEADER_BYTES];
    pm_header_put(header, head);
    struct pm_bytes frames[MAX_FRAMES];
    size_t count = 0;
    if (route)
        frames[count++] = (struct pm_bytes){route, route_bytes};
    frames[count++] = (struct pm_bytes){head, sizeof head};
    frames[count++] = (struct pm_bytes){record, record_bytes};
    if (payload_bytes)
        frames[count++] = (struct pm_bytes){payload, payload_bytes};
    return send_frames(socket, frames, count, err);
}

int pm_message_send(void *socket, const uint8_t *route, size_t route_bytes, const struct pm_header *header,
                    const void *record, const void *payload, size_t payload_bytes, struct pm_error *err)
{
    const struct pm_schema *schema = pm_msg_schema(header->type);
    if (!schema)
        return pm_fail(err, PM_EINTERNAL, "cannot send a message of unknown type %u", header->type);
    struct pm_buf encoded = {0};
    int rc = pm_record_try_encode(schema, record, &encoded, err);
    if (!rc)
        rc = pm_message_send_encoded(socket, route, route_bytes, header, encoded.data, encoded.size, payload,
                                     payload_bytes, err);
    pm_buf_free(&encoded);
    return rc;
}
