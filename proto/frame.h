/* One message on the wire: a ZeroMQ multipart of 2 or 3 frames (after the routing frame that ROUTER adds).
 *
 *   frame 0, 16 bytes:   0  2  magic "PM"
 *                        2  1  protocol version spoken (PM_PROTO_MIN..PM_PROTO_MAX)
 *                        3  1  message type (enum pm_msg_type)
 *                        4  4  sequence number of this sender on this connection, little endian, from 1
 *                        8  8  broker epoch the sender believes in (0 before WELCOME), little endian
 *   frame 1: the record, msgpack map, at most PM_FRAME_RECORD_BYTES
 *   frame 2, only for LEASE, BLOB_PUT and BLOB_DATA: payload, at most PM_FRAME_PAYLOAD_BYTES
 *
 * Anything else (more frames, larger, wrong magic, unknown type) is refused and counted, never ignored
 * silently. */
#ifndef PM_PROTO_FRAME_H
#define PM_PROTO_FRAME_H

#include "proto/messages.h"

#define PM_FRAME_HEADER_BYTES  16u
#define PM_FRAME_RECORD_BYTES  (4u << 20)
#define PM_FRAME_PAYLOAD_BYTES (32u << 20)

struct pm_header {
    uint32_t proto, type, seq;
    uint64_t epoch;
};

/* The connection that a message came over, as its ROUTER knows it. */
struct pm_sender {
    int fd;         /* -1: unknown */
    char user[192]; /* what the ZAP handler called it; "" without one */
};

/* A received message. record points to the decoded struct of its type, in the arena. */
struct pm_message {
    struct pm_header header;
    uint8_t route[32]; /* ROUTER side: routing id of the sender */
    size_t route_bytes;
    const void *record;
    struct pm_bytes payload;        /* in the arena */
    size_t bytes;                   /* of all frames */
    const struct pm_sender *sender; /* in the arena; NULL when it was not looked for */
};

enum pm_receive {
    PM_RECEIVE_ROUTED =
        1, /* from a ROUTER. The sender is looked for when a message is malformed or a HELLO, */
    PM_RECEIVE_SENDER = 2, /* or always */
};

void pm_header_put(const struct pm_header *h, uint8_t out[PM_FRAME_HEADER_BYTES]);
int pm_header_get(const uint8_t *data, size_t bytes, struct pm_header *out, struct pm_error *err);

/* Is this a place that a socket can bind or connect to? An ipc path longer than 107 bytes is PM_EINVAL with
 * advice: the system would cut it silently. Schemes: ipc, tcp, inproc. */
int pm_endpoint_check(const char *endpoint, struct pm_error *err);

/* Sets what every socket of ours needs before bind or connect: LINGER 0, MAXMSGSIZE, HWMs, keepalive,
 * IMMEDIATE on connecting sockets, ROUTER_MANDATORY and HANDOVER off on ROUTERs. */
int pm_socket_options(void *socket, int zmq_type, struct pm_error *err);

/* Receives one message without blocking. 0, PM_EAGAIN (nothing there), PM_EPROTO (a malformed message was
 * taken off and dropped: count it; out->route still tells the sender), PM_EIO. how: enum pm_receive, 0 for a
 * DEALER. */
int pm_message_receive(void *socket, unsigned how, struct pm_arena *arena, struct pm_message *out,
                       struct pm_error *err);
/* Sends without blocking: PM_EAGAIN (peer's queue is full: no credit left), PM_EGONE (unknown peer),
 * PM_ELIMIT (a field, the record or the payload is over its limit, or the type has no payload; nothing was
 * sent). Never half a message. A DEALER passes route NULL. */
int pm_message_send(void *socket, const uint8_t *route, size_t route_bytes, const struct pm_header *header,
                    const void *record, const void *payload, size_t payload_bytes, struct pm_error *err);

/* As pm_message_send for a record that is encoded already (kept for sending again). */
int pm_message_send_encoded(void *socket, const uint8_t *route, size_t route_bytes,
                            const struct pm_header *header, const void *record, size_t record_bytes,
                            const void *payload, size_t payload_bytes, struct pm_error *err);

#endif
