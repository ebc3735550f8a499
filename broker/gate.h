/* The gate: who may connect, what each connection has done, and putting one out.
 *
 * ZeroMQ asks us about every connection before its first message (ZAP, RFC 27). Over ipc the kernel says
 * whose process it is: this user's and root's are let in. Over tcp the key must be in the allow-list. The
 * answer names the connection: "u LOGIN UID PID" or "k LOGIN KEY", where LOGIN counts connections; every
 * message carries that name, so a peer cannot pretend to be another one whatever routing id it chooses.
 *
 * A ROUTER cannot close a connection. But each message knows its descriptor, so we can shut that down, and
 * the I/O thread then takes the connection away: nothing more is received from it. Monitors tell when
 * descriptors come and go; a message whose login is not newer than its descriptor's door is of a connection
 * that has ended.
 *
 * Breaking the protocol costs points, which are forgiven with time. Who has too many is put out with a
 * counted reason, and its process or key stays out for a while. Ownership: the broker's. Threads: its one.
 * Errors: those of opening; afterwards everything is counted. */
#ifndef PM_BROKER_GATE_H
#define PM_BROKER_GATE_H

#include "broker/broker.h"
#include "proto/allowed.h"

/* What a HELLO's connection may do. */
struct pm_login {
    uint64_t login; /* 0: nobody asked us about it */
    unsigned rights;
    bool is_remote;
    const char *name;          /* of the key; "" for ipc */
    uint8_t key[PM_KEY_BYTES]; /* tcp */
    uint64_t pid;              /* ipc: of the process at the other end, as the kernel says; 0: unknown */
    int fd;                    /* -1: unknown */
};

/* Points against a connection. */
enum {
    PM_BREACH_UNKNOWN = 1,   /* a message without a hello: so does everybody after our restart */
    PM_BREACH_GREEDY = 1,    /* asked again instead of waiting */
    PM_BREACH_LATE = 1,      /* refused by its verb as out of order */
    PM_BREACH_ROLE = 8,      /* not allowed to its role */
    PM_BREACH_MALFORMED = 8, /* no message of ours */
};

/* Before the sockets are bound: the handler, the server's key and the allow-list when we listen on tcp. */
int pm_gate_open(struct pm_broker *b, struct pm_error *err);
/* Before a socket is bound: makes it ask, and watches it. */
int pm_gate_guard(struct pm_broker *b, int socket, struct pm_error *err);
void pm_gate_free(struct pm_broker *b); /* before the context ends */

void *pm_gate_socket(const struct pm_broker *b);       /* to be polled; then: */
void pm_gate_serve(struct pm_broker *b);               /* answers who asks */
void pm_gate_keep(struct pm_broker *b);                /* every second */
void pm_gate_keys_changed(struct pm_broker *b);        /* looks at the allow-list now */
unsigned pm_gate_how(struct pm_broker *b, int socket); /* enum pm_receive for its next message */

/* Whose HELLO this is. PM_EDENIED with a reason when it may not come in (any more). */
int pm_gate_login(struct pm_broker *b, int socket, const struct pm_message *m, struct pm_login *out,
                  struct pm_error *err);
/* The connection has become c. */
void pm_gate_greeted(struct pm_broker *b, int socket, const struct pm_message *m, struct pm_conn *c);
/* Is this message of the connection that c said hello over? Known only for tcp; ipc peers are all ours. */
bool pm_gate_is_of(const struct pm_conn *c, const struct pm_message *m);
void pm_gate_took(struct pm_broker *b, int socket, const struct pm_message *m);
/* False when the connection has been put out: what is still in its queue is not worth an answer. */
bool pm_gate_breach(struct pm_broker *b, int socket, const struct pm_message *m, unsigned points,
                    const char *what);
/* Closes the connection behind c, for a reason that is counted; what c is to the broker is the caller's. */
void pm_gate_put_out(struct pm_broker *b, struct pm_conn *c, enum pm_counter_id reason);
/* May c ask for something that looks at many jobs? PM_EBUSY when it has had its share of our time. */
int pm_gate_check_share(struct pm_broker *b, const struct pm_conn *c, struct pm_error *err);
void pm_gate_spent(struct pm_broker *b, struct pm_conn *c, int64_t us);
/* For lines that a peer can cause at will: true a few times a second; the rest is counted. */
bool pm_gate_may_log(struct pm_broker *b);

/* May c, with one of these rights, or as the owner of the job? PM_EDENIED names the role that is missing. A
 * job that is not there is for the verb to tell. */
int pm_gate_check_job(struct pm_broker *b, const struct pm_conn *c, uint64_t job, unsigned rights,
                      struct pm_error *err);
/* May c see what is in a job of this client? */
bool pm_gate_may_read(const struct pm_conn *c, const char *client);
/* NULL: c may see and change everybody's jobs; else only those of this client. */
const char *pm_gate_only_client(const struct pm_conn *c, unsigned rights);

#endif
