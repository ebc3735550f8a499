#include "client/lib/internal.h"

#include <errno.h>
#include <pwd.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/host.h"
#include "base/mem.h"

#define HELLO_REPEAT_US   2000000
#define RECONNECT_MS      20
#define RECONNECT_MOST_MS 1000
#define MESSAGES_A_TURN   64

_Static_assert(sizeof(struct pagemill_error) == sizeof(struct pm_error), "one shape of errors");
_Static_assert(offsetof(struct pagemill_error, text) == offsetof(struct pm_error, text),
               "one shape of errors");
_Static_assert((int)PAGEMILL_EINTERNAL == (int)PM_EINTERNAL && (int)PAGEMILL_EGONE == (int)PM_EGONE,
               "one list of errors");
_Static_assert((int)PAGEMILL_JOB_CANCELLED == (int)PM_JOB_CANCELLED, "one list of states");

const char *pagemill_error_name(int code)
{
    return pm_err_name(code);
}

const char *pagemill_version(void)
{
    return PM_VERSION;
}

int64_t pm_client_deadline(int64_t timeout_ms)
{
    if (timeout_ms < 0 || timeout_ms > INT64_MAX / 2000)
        return INT64_MAX;
    return pm_clock_us() + timeout_ms * 1000;
}

uint64_t pm_client_ref(pagemill *pm)
{
    return ++pm->last_ref;
}

int pm_client_random(void *bytes, size_t count, struct pm_error *err)
{
    uint8_t *p = bytes;
    while (count) {
        ssize_t n = getrandom(p, count, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return pm_fail_errno(err, "cannot get random bytes");
        p += n;
        count -= (size_t)n;
    }
    return 0;
}

void pm_answer_free(struct pm_answer *answer)
{
    pm_arena_free(&answer->arena);
    *answer = (struct pm_answer){0};
}

int pm_client_refusal(const struct pm_msg_refuse *refuse, struct pm_error *err)
{
    int code = pm_err_from_name(refuse->code);
    return pm_fail(err, code == PM_OK ? PM_EINTERNAL : code, "%s", refuse->text);
}

/* ---- sending ---- */

int pm_client_send(pagemill *pm, uint32_t type, const void *record, const void *payload, size_t payload_bytes,
                   struct pm_error *err)
{
    struct pm_header header = {.proto = pm->proto, .type = type, .seq = pm->seq + 1, .epoch = pm->epoch};
    int rc = pm_message_send(pm->socket, NULL, 0, &header, record, payload, payload_bytes, err);
    if (!rc)
        pm->seq++;
    return rc;
}

static void say_hello(pagemill *pm)
{
    struct pm_msg_hello hello = {.role = PM_ROLE_CLIENT,
                                 .proto_min = PM_PROTO_MIN,
                                 .proto_max = PM_PROTO_MAX,
                                 .name = pm->client,
                                 .version = PM_VERSION,
                                 .host = pm->host,
                                 .pid = (uint64_t)getpid(),
                                 .instance = pm->instance,
                                 .client = pm->client};
    pm->epoch = 0;
    pm->seq = 0;
    pm->proto = PM_PROTO_MIN; /* what every broker can read; WELCOME raises it */
    if (pm_client_send(pm, PM_MSG_HELLO, &hello, NULL, 0, NULL))
        return; /* the pipe is not attached yet: the next turn tries again */
    pm->link = PM_LINK_GREETED;
    pm->greeted_us = pm_clock_us();
}

static void renew_watches(pagemill *pm)
{
    for (size_t i = 0; i < pm->watch_count; i++) {
        struct pm_msg_watch watch = {.ref = pm_client_ref(pm),
                                     .job = pm->watches[i].job,
                                     .batch = pm->watches[i].batch,
                                     .partial = pm->watches[i].partial};
        if (pm_client_send(pm, PM_MSG_WATCH, &watch, NULL, 0, NULL))
            pm->link = PM_LINK_UP; /* from the start again */
    }
}

/* ---- receiving ---- */

static void replace_text(char **old, const char *text)
{
    free(*old);
    *old = pm_xstrdup(text);
}

static void on_welcome(pagemill *pm, const struct pm_message *m)
{
    const struct pm_msg_welcome *w = m->record;
    pm->epoch = w->epoch;
    pm->proto = w->proto >= PM_PROTO_MIN && w->proto <= PM_PROTO_MAX ? w->proto : PM_PROTO_MIN;
    replace_text(&pm->disk_dir, w->disk_dir);
    replace_text(&pm->pixel_dir, w->pixel_dir);
    pm_blobs_free(&pm->blobs);
    /* Another host, another user or another file system: everything then goes through the socket. */
    bool is_near = !strncmp(pm->endpoint, "ipc://", 6) || !strcmp(w->host, pm->host);
    if (!pm->is_remote && is_near && access(w->disk_dir, R_OK | W_OK | X_OK) == 0)
        (void)pm_blobs_open(w->disk_dir, w->pixel_dir, &pm->blobs, NULL);
    pm->link = PM_LINK_READY;
    pm->is_refused = false;
    pm->event_seq = 0;
    if (pm->connection++ > 0 && pm->watch_count) {
        renew_watches(pm);
        pm_client_push_resync(pm);
    }
}

static void on_refuse(pagemill *pm, const struct pm_message *m)
{
    const struct pm_msg_refuse *refuse = m->record;
    if (pm->link == PM_LINK_READY) {
        pm->link = PM_LINK_UP; /* a restarted broker does not know us: introduce ourselves again */
        return;
    }
    if (pm_err_from_name(refuse->code) == PM_EPROTO)
        return; /* of what was sent before the hello, which has its own answer */
    pm_client_refusal(refuse, &pm->refusal);
    pm->is_refused = true;
}

/* Answers begin with the request's number. */
static uint64_t ref_of(const struct pm_message *m)
{
    switch (m->header.type) {
    case PM_MSG_REFUSE:
    case PM_MSG_ACCEPTED:
    case PM_MSG_JOBS:
    case PM_MSG_JOB:
    case PM_MSG_DONE:
    case PM_MSG_MANIFEST:
    case PM_MSG_FLEET:
    case PM_MSG_BLOB_STORED:
    case PM_MSG_BLOB_DATA:
        return *(const uint64_t *)m->record;
    default:
        return 0;
    }
}
_Static_assert(!offsetof(struct pm_msg_refuse, ref) && !offsetof(struct pm_msg_accepted, ref) &&
                   !offsetof(struct pm_msg_jobs, ref) && !offsetof(struct pm_msg_job, ref) &&
                   !offsetof(struct pm_msg_done, ref) && !offsetof(struct pm_msg_manifest, ref) &&
                   !offsetof(struct pm_msg_fleet, ref) && !offsetof(struct pm_msg_blob_stored, ref) &&
                   !offsetof(struct pm_msg_blob_data, ref),
               "ref_of reads the first field");

/* Takes what it keeps of *arena (leaving it empty), frees nothing. */
static void on_message(pagemill *pm, const struct pm_message *m, struct pm_arena *arena)
{
    uint64_t ref = ref_of(m);
    if (m->header.type == PM_MSG_WELCOME) {
        on_welcome(pm, m);
    } else if (m->header.type == PM_MSG_REFUSE && !ref) {
        on_refuse(pm, m);
    } else if (m->header.type == PM_MSG_PING) {
        struct pm_msg_ping pong = *(const struct pm_msg_ping *)m->record;
        (void)pm_client_send(pm, PM_MSG_PONG, &pong, NULL, 0, NULL); /* full: the next ping asks again */
    } else if (m->header.type == PM_MSG_EVENT) {
        const struct pm_msg_event *event = m->record;
        if (pm->event_seq && event->seq != pm->event_seq + 1)
            pm->missed_events = true;
        pm->event_seq = event->seq;
        pm_client_push_event(pm, event, arena);
    } else if (ref && ref >= pm->want_low && ref <= pm->want_high) {
        pm->answer.message = *m;
        pm->answer.arena = *arena;
        pm->answer.is_there = true;
        *arena = (struct pm_arena){0};
    } /* else: an answer nobody waits for any more (its request timed out) */
}

#define ZAP_DENIED 400

/* ZeroMQ does not try again after this. */
static void on_denied(pagemill *pm, uint32_t status)
{
    pm->is_refused = true;
    pm->link = PM_LINK_DOWN;
    if (status != ZAP_DENIED)
        pm_fail(&pm->refusal, PM_EBUSY, "the fleet at %s put us out a moment ago: try again later",
                pm->endpoint);
    else if (!strncmp(pm->endpoint, "tcp://", 6))
        pm_fail(&pm->refusal, PM_EDENIED,
                "the fleet at %s does not allow this key: `pagemill keys allow` on its host changes that",
                pm->endpoint);
    else
        pm_fail(&pm->refusal, PM_EDENIED, "the fleet at %s belongs to another user", pm->endpoint);
}

static void on_monitor(pagemill *pm)
{
    for (;;) {
        uint8_t event[6];
        char address[64];
        if (zmq_recv(pm->monitor, event, sizeof event, ZMQ_DONTWAIT) < 0)
            return;
        (void)zmq_recv(pm->monitor, address, sizeof address, ZMQ_DONTWAIT);
        uint16_t number;
        uint32_t value;
        memcpy(&number, event, sizeof number);
        memcpy(&value, event + sizeof number, sizeof value);
        if (number == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
            pm->link = PM_LINK_UP;
        else if (number == ZMQ_EVENT_DISCONNECTED)
            pm->link = PM_LINK_DOWN;
        else if (number == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
            on_denied(pm, value);
        else if (number == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL)
            pm->handshakes_failed++;
    }
}

/* ZMQ_FD tells of changes, not of states: what is left unread after a turn must be shown by our own
 * descriptor, or an event loop would sleep over it. */
void pm_client_show_work(pagemill *pm)
{
    uint64_t count = 1;
    int events = 0;
    size_t size = sizeof events;
    bool has_work = pm->queued || pm->link == PM_LINK_UP ||
                    (!zmq_getsockopt(pm->socket, ZMQ_EVENTS, &events, &size) && (events & ZMQ_POLLIN)) ||
                    (!zmq_getsockopt(pm->monitor, ZMQ_EVENTS, &events, &size) && (events & ZMQ_POLLIN));
    ssize_t n =
        has_work ? write(pm->event_fd, &count, sizeof count) : read(pm->event_fd, &count, sizeof count);
    (void)n; /* EAGAIN: it already shows this */
}

int pm_client_pump(pagemill *pm, struct pm_error *err)
{
    on_monitor(pm);
    for (int i = 0; i < MESSAGES_A_TURN && !pm->answer.is_there; i++) {
        struct pm_arena arena = {0};
        struct pm_message m = {0};
        int rc = pm_message_receive(pm->socket, false, &arena, &m, NULL);
        if (!rc)
            on_message(pm, &m, &arena);
        else if (rc == PM_EPROTO)
            pm->missed_events = true; /* it may have been one */
        pm_arena_free(&arena);
        if (rc && rc != PM_EPROTO)
            break;
    }
    bool is_silent = pm->link == PM_LINK_GREETED && pm_clock_us() - pm->greeted_us > HELLO_REPEAT_US;
    if (pm->link == PM_LINK_UP || is_silent)
        say_hello(pm);
    if (pm->missed_events && pm->link == PM_LINK_READY) {
        pm->missed_events = false;
        pm_client_push_resync(pm);
    }
    pm_client_show_work(pm);
    if (pm->is_refused && pm->link != PM_LINK_READY) {
        if (err)
            *err = pm->refusal;
        return pm->refusal.code;
    }
    return 0;
}

/* ---- waiting ---- */

int pm_client_wait_io(pagemill *pm, int64_t deadline_us, bool wants_to_write, struct pm_error *err)
{
    int64_t now = pm_clock_us();
    if (now >= deadline_us)
        return pm_fail(err, PM_ETIMEOUT, "no answer from the fleet at %s in time", pm->endpoint);
    int64_t left_ms = (deadline_us - now + 999) / 1000;
    if (left_ms > 500) /* the hello is repeated and lost links are noticed in this rhythm */
        left_ms = 500;
    if (pm->link == PM_LINK_UP && left_ms > 2) /* transport is up, its pipe attached in a moment */
        left_ms = 2;
    zmq_pollitem_t items[3] = {
        {.socket = pm->socket, .events = (short)(wants_to_write ? ZMQ_POLLIN | ZMQ_POLLOUT : ZMQ_POLLIN)},
        {.socket = pm->monitor, .events = ZMQ_POLLIN},
        {.fd = pm->cancel_fd, .events = ZMQ_POLLIN}};
    int n = zmq_poll(items, pm->cancel_fd >= 0 ? 3 : 2, (long)left_ms);
    if (n < 0 && zmq_errno() != EINTR)
        return pm_fail(err, PM_EIO, "cannot wait for the fleet at %s: %s", pm->endpoint,
                       zmq_strerror(zmq_errno()));
    if (n > 0 && pm->cancel_fd >= 0 && items[2].revents)
        return pm_fail(err, PM_ECANCELLED, "interrupted");
    return 0;
}

int pm_client_wait_ready(pagemill *pm, int64_t deadline_us, struct pm_error *err)
{
    for (;;) {
        int rc = pm_client_pump(pm, err);
        if (rc || pm->link == PM_LINK_READY)
            return rc;
        rc = pm_client_wait_io(pm, deadline_us, false, err);
        if (rc == PM_ETIMEOUT)
            return pm_fail(err, PM_EGONE, "no fleet answers at %s%s", pm->endpoint,
                           pm->handshakes_failed && !strncmp(pm->endpoint, "tcp://", 6)
                               ? ": something is there, perhaps with another key than the one given"
                               : "");
        if (rc)
            return rc;
    }
}

/* Waits for the answer on this connection: 0, PM_EAGAIN when the link was lost meanwhile, or an error. */
static int wait_answer(pagemill *pm, uint64_t connection, int64_t deadline_us, struct pm_error *err)
{
    for (;;) {
        int rc = pm_client_pump(pm, err);
        if (rc || pm->answer.is_there)
            return rc;
        if (pm->link != PM_LINK_READY || pm->connection != connection)
            return PM_EAGAIN;
        rc = pm_client_wait_io(pm, deadline_us, false, err);
        if (rc)
            return rc;
    }
}

static int pause_busy(pagemill *pm, uint64_t retry_after_us, int64_t deadline_us, const struct pm_error *busy,
                      struct pm_error *err)
{
    int64_t now = pm_clock_us();
    int64_t pause = retry_after_us && retry_after_us < 10000000 ? (int64_t)retry_after_us : 100000;
    if (deadline_us - now <= pause) {
        if (err)
            *err = *busy;
        return busy->code;
    }
    int64_t until = now + pause;
    while (pm_clock_us() < until) {
        int rc = pm_client_wait_io(pm, until, false, err);
        if (rc == PM_ETIMEOUT)
            break;
        if (rc || (rc = pm_client_pump(pm, err)))
            return rc;
    }
    return 0;
}

int pm_client_call(pagemill *pm, uint32_t type, const void *record, uint64_t ref, uint32_t want,
                   int64_t deadline_us, struct pm_answer *out, struct pm_error *err)
{
    int rc;
    *out = (struct pm_answer){0};
    pm_answer_free(&pm->answer);
    pm->want_low = pm->want_high = ref;
    pm->was_repeated = false;
    for (;;) {
        if ((rc = pm_client_wait_ready(pm, deadline_us, err)))
            break;
        uint64_t connection = pm->connection;
        rc = pm_client_send(pm, type, record, NULL, 0, err);
        if (rc == PM_EAGAIN) {
            if ((rc = pm_client_wait_io(pm, deadline_us, true, err)))
                break;
            continue;
        }
        if (rc)
            break;
        rc = wait_answer(pm, connection, deadline_us, err);
        if (rc == PM_EAGAIN) {
            pm->was_repeated = true;
            continue;
        }
        if (rc)
            break;
        *out = pm->answer;
        pm->answer = (struct pm_answer){0};
        if (out->message.header.type == want)
            break;
        if (out->message.header.type != PM_MSG_REFUSE) {
            rc = pm_fail(err, PM_EPROTO, "the fleet answered with message type %u instead of %u",
                         out->message.header.type, want);
            break;
        }
        const struct pm_msg_refuse *refuse = out->message.record;
        struct pm_error busy;
        rc = pm_client_refusal(refuse, &busy);
        uint64_t retry_after_us = refuse->retry_after_us;
        pm_answer_free(out);
        bool is_carried_out = pm->was_repeated && type == PM_MSG_RETRY; /* jobs.c looks whether it is so */
        if (rc != PM_EBUSY || is_carried_out) {
            if (err)
                *err = busy;
            break;
        }
        if ((rc = pause_busy(pm, retry_after_us, deadline_us, &busy, err)))
            break;
    }
    pm->want_low = pm->want_high = 0;
    pm_answer_free(&pm->answer);
    if (rc)
        pm_answer_free(out);
    return rc;
}

/* ---- opening ---- */

static bool is_socket(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISSOCK(st.st_mode);
}

/* The endpoint as a URL. Caller frees. NULL: no socket is there. */
static char *find_endpoint(const char *given)
{
    if (!given || !*given)
        given = getenv("PAGEMILL_BROKER");
    if (!given || !*given)
        given = getenv("PAGEMILL_SOCKET");
    if (given && *given)
        return strstr(given, "://") ? pm_xstrdup(given) : pm_xprintf("ipc://%s", given);
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    const char *temporary = getenv("TMPDIR");
    char *places[3] = {runtime && *runtime ? pm_xprintf("%s/pagemill/client.sock", runtime) : NULL,
                       pm_xprintf("%s/pagemill-%u/client.sock", temporary && *temporary ? temporary : "/tmp",
                                  (unsigned)getuid()),
                       pm_xstrdup("/run/pagemill/client.sock")};
    char *found = NULL;
    for (int i = 0; i < 3; i++) {
        if (!found && places[i] && is_socket(places[i]))
            found = pm_xprintf("ipc://%s", places[i]);
        free(places[i]);
    }
    return found;
}

static char *user_name(void)
{
    struct passwd entry, *found = NULL;
    char buffer[4096];
    if (!getpwuid_r(getuid(), &entry, buffer, sizeof buffer, &found) && found)
        return pm_xstrdup(found->pw_name);
    return pm_xprintf("uid-%u", (unsigned)getuid());
}

static int watch_fd(pagemill *pm, int fd, struct pm_error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(pm->epoll_fd, EPOLL_CTL_ADD, fd, &event)
               ? pm_fail_errno(err, "cannot watch the connection")
               : 0;
}

static int open_sockets(pagemill *pm, const struct pm_key_options *keys, struct pm_error *err)
{
    int rc, fd, zero = 0, first = RECONNECT_MS, most = RECONNECT_MOST_MS;
    size_t size = sizeof fd;
    char monitor_name[64];
    snprintf(monitor_name, sizeof monitor_name, "inproc://monitor-%p", (void *)pm);
    pm->context = zmq_ctx_new();
    pm->socket = pm->context ? zmq_socket(pm->context, ZMQ_DEALER) : NULL;
    pm->monitor = pm->context ? zmq_socket(pm->context, ZMQ_PAIR) : NULL;
    if (!pm->socket || !pm->monitor)
        return pm_fail(err, PM_ENOMEM, "cannot open a ZeroMQ socket: %s", zmq_strerror(zmq_errno()));
    if ((rc = pm_socket_options(pm->socket, ZMQ_DEALER, err)) ||
        (rc = pm_key_secure_client(pm->socket, pm->endpoint, keys, err)))
        return rc;
    zmq_setsockopt(pm->monitor, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(pm->socket, ZMQ_RECONNECT_IVL, &first, sizeof first);
    zmq_setsockopt(pm->socket, ZMQ_RECONNECT_IVL_MAX, &most, sizeof most);
    if (zmq_socket_monitor(pm->socket, monitor_name,
                           ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |
                               ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL) ||
        zmq_connect(pm->monitor, monitor_name))
        return pm_fail(err, PM_EIO, "cannot watch the ZeroMQ socket: %s", zmq_strerror(zmq_errno()));
    if (zmq_connect(pm->socket, pm->endpoint))
        return pm_fail(err, PM_EINVAL, "cannot connect to %s: %s", pm->endpoint, zmq_strerror(zmq_errno()));
    pm->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    pm->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pm->epoll_fd < 0 || pm->event_fd < 0)
        return pm_fail_errno(err, "cannot watch the connection");
    if ((rc = watch_fd(pm, pm->event_fd, err)))
        return rc;
    zmq_getsockopt(pm->socket, ZMQ_FD, &fd, &size);
    if ((rc = watch_fd(pm, fd, err)))
        return rc;
    zmq_getsockopt(pm->monitor, ZMQ_FD, &fd, &size);
    return watch_fd(pm, fd, err);
}

int pagemill_connect(const char *endpoint, const struct pagemill_connect_options *options, int64_t timeout_ms,
                     pagemill **out, struct pagemill_error *public_err)
{
    struct pm_error *err = pm_client_error(public_err);
    struct pagemill_connect_options o = PAGEMILL_CONNECT_OPTIONS_INIT;
    *out = NULL;
    if (options)
        memcpy(&o, options, options->struct_size < sizeof o ? options->struct_size : sizeof o);
    char *found = find_endpoint(endpoint);
    if (!found)
        return pm_fail(err, PM_EGONE,
                       "no fleet is running here: start one with `pagemill up`, or name its socket with "
                       "--socket or PAGEMILL_SOCKET");
    pagemill *pm = calloc(1, sizeof *pm);
    if (!pm) {
        free(found);
        return pm_fail(err, PM_ENOMEM, "no memory for a connection");
    }
    pm->epoll_fd = pm->event_fd = -1;
    pm->cancel_fd = o.cancel_fd;
    pm->is_remote = o.is_remote != 0;
    pm->endpoint = found;
    pm->client = o.client && *o.client ? pm_xstrdup(o.client) : user_name();
    pm->host = pm_host_id();
    struct pm_key_options keys = {o.server_key, o.key_file};
    pm_key_options_from_environment(&keys);
    int rc = pm_client_random(&pm->instance, sizeof pm->instance, err);
    if (!rc)
        rc = open_sockets(pm, &keys, err);
    if (!rc)
        rc = pm_client_wait_ready(pm, pm_client_deadline(timeout_ms), err);
    if (rc)
        pagemill_close(&pm);
    *out = pm;
    return rc;
}

void pagemill_close(pagemill **handle)
{
    pagemill *pm = *handle;
    *handle = NULL;
    if (!pm)
        return;
    if (pm->link == PM_LINK_READY) {
        struct pm_msg_goodbye goodbye = {.reason = "closed"};
        (void)pm_client_send(pm, PM_MSG_GOODBYE, &goodbye, NULL, 0, NULL);
    }
    if (pm->socket) {
        int linger_ms = 100; /* for the goodbye */
        zmq_socket_monitor(pm->socket, NULL, 0);
        zmq_setsockopt(pm->socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
        zmq_close(pm->socket);
    }
    if (pm->monitor)
        zmq_close(pm->monitor);
    if (pm->context)
        zmq_ctx_term(pm->context);
    if (pm->epoll_fd >= 0)
        close(pm->epoll_fd);
    if (pm->event_fd >= 0)
        close(pm->event_fd);
    pm_client_free_events(pm);
    pm_answer_free(&pm->answer);
    for (size_t i = 0; i < pm->watch_count; i++)
        free(pm->watches[i].batch);
    free(pm->watches);
    pm_blobs_free(&pm->blobs);
    free(pm->disk_dir);
    free(pm->pixel_dir);
    free(pm->endpoint);
    free(pm->client);
    free(pm->host);
    free(pm);
}

int pagemill_is_connected(const pagemill *pm)
{
    return pm->link == PM_LINK_READY;
}

int pagemill_fd(const pagemill *pm)
{
    return pm->epoll_fd;
}

int pagemill_process(pagemill *pm, struct pagemill_error *err)
{
    return pm_client_pump(pm, pm_client_error(err));
}
