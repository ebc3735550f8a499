#include "broker/gate.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/fs.h"

#define ASKED_MOST     256u /* in a turn */
#define POINTS_MOST    64u
#define SILENT_US      10000000 /* connected and no hello */
#define BARRED_US      5000000  /* after being put out for a breach; doubled each time */
#define BARRED_MOST_US 320000000
#define BARRED_SLOTS   64
#define SUSPICION      4096u /* messages of a socket whose senders are looked at after a strange one */
/* Lists and the like: a burst, then a fiftieth of our time for each; less while all together take a lot. */
#ifdef PM_SANITIZED
#define SLOW 20
#else
#define SLOW 1
#endif
#define SHARE_BURST_US  (100000 * SLOW)
#define SHARE_SECOND_US (20000 * SLOW)
#define SHARE_ALL_US    (200000 * SLOW)
#define LOST_US         1000000
#define LOGS_A_SECOND   5u
#define NOFILE_MOST     65536u
#define HOARD_BYTES     ((int64_t)64 << 20) /* taken by the kernel, not yet a message */
#define FRAMING_BYTES   256u                /* of a message, at most: four frames with CURVE's */
#define HOARD_DRIFT     1024                /* ... and forgiven, a second: ZMTP commands */

struct door { /* a connection that was accepted; found by its descriptor */
    bool is_open, is_out;
    int socket;
    uint64_t after_login; /* its login is greater */
    uint64_t conn;        /* 0: no hello yet */
    int64_t since_us;
    uint32_t points;
    uint64_t taken_bytes;
};

struct barred { /* a process, or a key when pid is 0 */
    uint64_t pid;
    uint8_t key[PM_KEY_BYTES];
    int64_t until_us;
    uint32_t times;
};

struct pm_gate {
    void *zap, *monitors[PM_SOCKET_COUNT];
    struct pm_key server;
    struct pm_allowed allowed;
    char *keys_dir, *allowed_path;
    struct timespec allowed_time;
    ino_t allowed_inode;
    int inotify_fd;
    uint64_t logins;
    struct door *doors;
    size_t door_capacity, open_of[PM_SOCKET_COUNT], most_of_socket;
    uint32_t suspicion[PM_SOCKET_COUNT];
    struct barred barred[BARRED_SLOTS];
    unsigned logs_left;
    bool wants_look; /* doors were closed behind connections */
};

bool pm_gate_may_log(struct pm_broker *b)
{
    struct pm_gate *g = b->gate;
    if (!g->logs_left) {
        pm_count(b, PM_COUNT_log_lines_saved);
        return false;
    }
    g->logs_left--;
    return true;
}

void *pm_gate_socket(const struct pm_broker *b)
{
    return b->gate->zap;
}

/* ---- doors ---- */

static struct door *door_at(struct pm_gate *g, int fd)
{
    return fd >= 0 && (size_t)fd < g->door_capacity && g->doors[fd].is_open ? &g->doors[fd] : NULL;
}

static void close_door(struct pm_broker *b, int fd)
{
    struct pm_gate *g = b->gate;
    struct door *d = door_at(g, fd);
    if (!d)
        return;
    for (size_t i = 0; d->conn && i < b->conn_count; i++)
        if (b->conns[i]->id == d->conn)
            b->conns[i]->lost_us = b->now.us;
    g->wants_look |= d->conn != 0;
    g->open_of[d->socket]--;
    *d = (struct door){.is_open = false};
}

static void open_door(struct pm_broker *b, int socket, int fd)
{
    struct pm_gate *g = b->gate;
    if (fd < 0 || (unsigned)fd >= NOFILE_MOST)
        return;
    close_door(b, fd); /* of another socket, whose monitor is read later */
    if ((size_t)fd >= g->door_capacity) {
        size_t capacity = ((size_t)fd | 255) + 1;
        g->doors = pm_xrealloc(g->doors, capacity * sizeof *g->doors);
        memset(g->doors + g->door_capacity, 0, (capacity - g->door_capacity) * sizeof *g->doors);
        g->door_capacity = capacity;
    }
    g->doors[fd] =
        (struct door){.is_open = true, .socket = socket, .after_login = g->logins, .since_us = b->now.us};
    g->open_of[socket]++;
}

static void shut(struct pm_broker *b, int fd, enum pm_counter_id reason)
{
    struct door *d = door_at(b->gate, fd);
    if (!d || d->is_out)
        return;
    d->is_out = true;
    pm_count(b, reason);
    pm_count(b, PM_COUNT_connections_cut);
    shutdown(fd, SHUT_RDWR);
}

/* What has come and gone since the last time. A monitor's event is two frames: number and value, address. */
static void read_monitor(struct pm_broker *b, int socket)
{
    struct pm_gate *g = b->gate;
    for (;;) {
        uint8_t frame[6];
        char address[8];
        if (zmq_recv(g->monitors[socket], frame, sizeof frame, ZMQ_DONTWAIT) < 0)
            return;
        (void)zmq_recv(g->monitors[socket], address, sizeof address, ZMQ_DONTWAIT);
        uint16_t event;
        int32_t fd;
        memcpy(&event, frame, sizeof event);
        memcpy(&fd, frame + sizeof event, sizeof fd);
        struct door *d = door_at(g, fd);
        if (event == ZMQ_EVENT_ACCEPTED) {
            open_door(b, socket, fd);
            if (g->open_of[socket] > g->most_of_socket)
                shut(b, fd, PM_COUNT_connections_over_limit);
        } else if (event == ZMQ_EVENT_DISCONNECTED && d && d->socket == socket) {
            close_door(b, fd);
        } else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL ||
                   event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL) {
            pm_count(b, PM_COUNT_handshakes_failed);
        }
    }
}

static void read_monitors(struct pm_broker *b)
{
    for (int i = 0; i < PM_SOCKET_COUNT; i++)
        if (b->gate->monitors[i])
            read_monitor(b, i);
}

/* "u LOGIN ..." or "k LOGIN ..." */
static uint64_t login_of(const struct pm_sender *sender)
{
    return sender && (sender->user[0] == 'u' || sender->user[0] == 'k') ? strtoull(sender->user + 1, NULL, 10)
                                                                        : 0;
}

/* The door that a message came through, if that connection is still there. */
static struct door *door_of(struct pm_broker *b, int socket, const struct pm_sender *sender)
{
    uint64_t login = login_of(sender);
    if (!login)
        return NULL;
    struct door *d = door_at(b->gate, sender->fd);
    if (!d) { /* accepted a moment ago */
        read_monitors(b);
        d = door_at(b->gate, sender->fd);
    }
    return d && d->socket == socket && login > d->after_login ? d : NULL;
}

/* ---- those who were put out ---- */

/* "u LOGIN UID PID" or "k LOGIN KEY": the process, or pid 0 and the key. */
static bool who_is(const struct pm_sender *sender, uint64_t *pid_out, uint8_t key_out[PM_KEY_BYTES])
{
    unsigned long long login, uid, pid = 0;
    char text[PM_KEY_CHARS + 1];
    *pid_out = 0;
    memset(key_out, 0, PM_KEY_BYTES);
    if (sscanf(sender->user, "u %llu %llu %llu", &login, &uid, &pid) == 3) {
        *pid_out = pid;
        return true;
    }
    return sscanf(sender->user, "k %llu %40s", &login, text) == 2 && pm_key_parse_text(text, key_out);
}

static bool is_slot_of(const struct barred *s, uint64_t pid, const uint8_t key[PM_KEY_BYTES])
{
    return s->times && s->pid == pid && pm_key_is_same(s->key, key);
}

static void bar(struct pm_broker *b, const struct pm_sender *sender)
{
    uint64_t pid;
    uint8_t key[PM_KEY_BYTES];
    if (!who_is(sender, &pid, key))
        return;
    struct barred *s = b->gate->barred;
    for (size_t i = 0; i < BARRED_SLOTS && !is_slot_of(s, pid, key); i++)
        if (is_slot_of(&b->gate->barred[i], pid, key) || b->gate->barred[i].until_us < s->until_us)
            s = &b->gate->barred[i];
    if (!is_slot_of(s, pid, key) || b->now.us - s->until_us > BARRED_MOST_US)
        *s = (struct barred){.pid = pid};
    memcpy(s->key, key, sizeof key);
    int64_t us = BARRED_US;
    for (uint32_t i = 0; i < s->times && us < BARRED_MOST_US; i++)
        us *= 2;
    s->times++;
    s->until_us = b->now.us + us;
}

static bool is_barred(const struct pm_broker *b, uint64_t pid, const uint8_t key[PM_KEY_BYTES])
{
    for (size_t i = 0; i < BARRED_SLOTS; i++)
        if (is_slot_of(&b->gate->barred[i], pid, key))
            return b->now.us < b->gate->barred[i].until_us;
    return false;
}

/* ---- ZAP ---- */

enum { ASK_VERSION, ASK_NUMBER, ASK_DOMAIN, ASK_ADDRESS, ASK_ROUTE, ASK_MECHANISM, ASK_KEY, ASK_FRAMES };

struct ask {
    char frames[ASK_FRAMES][256]; /* cut and ended by NUL */
    size_t sizes[ASK_FRAMES], count;
};
struct verdict {
    const char *code, *text;
    char user[128];
};
static const char *const domains[PM_SOCKET_COUNT] = {"work", "client", "net"};

static bool take_ask(void *zap, struct ask *a)
{
    int has_more = 1;
    size_t size = sizeof has_more;
    *a = (struct ask){.count = 0};
    while (has_more) {
        char surplus[1];
        bool is_kept = a->count < ASK_FRAMES;
        int n = is_kept ? zmq_recv(zap, a->frames[a->count], sizeof a->frames[0] - 1, ZMQ_DONTWAIT)
                        : zmq_recv(zap, surplus, sizeof surplus, ZMQ_DONTWAIT);
        if (n < 0)
            return false;
        if (is_kept)
            a->sizes[a->count] = (size_t)n < sizeof a->frames[0] ? (size_t)n : sizeof a->frames[0] - 1;
        a->count++;
        if (zmq_getsockopt(zap, ZMQ_RCVMORE, &has_more, &size))
            return false;
    }
    return true;
}

/* The address of an ipc peer ends in ":UID:GID:PID", what SO_PEERCRED says. */
static bool peer_credentials(const char *address, unsigned long long *uid_out, unsigned long long *pid_out)
{
    const char *at = address + strlen(address);
    for (int colons = 0; colons < 3; colons++) {
        do
            if (at == address)
                return false;
        while (*--at != ':');
    }
    unsigned long long gid;
    return sscanf(at, ":%llu:%llu:%llu", uid_out, &gid, pid_out) == 3;
}

static void judge_ipc(struct pm_broker *b, const struct ask *a, struct verdict *v)
{
    unsigned long long uid, pid;
    static const uint8_t no_key[PM_KEY_BYTES];
    if (strcmp(a->frames[ASK_MECHANISM], "NULL") != 0 ||
        !peer_credentials(a->frames[ASK_ADDRESS], &uid, &pid) || (uid != geteuid() && uid != 0)) {
        pm_count(b, PM_COUNT_strangers_refused);
        if (pm_gate_may_log(b))
            pm_log(PM_LOG_WARNING, "a process of another user is refused address=%s", a->frames[ASK_ADDRESS]);
        *v = (struct verdict){"400", "this broker serves its own user", ""};
        return;
    }
    if (pid && is_barred(b, pid, no_key)) {
        pm_count(b, PM_COUNT_connections_barred);
        *v = (struct verdict){"500", "put out a moment ago", ""};
        return;
    }
    *v = (struct verdict){"200", "", ""};
    snprintf(v->user, sizeof v->user, "u %llu %llu %llu", (unsigned long long)++b->gate->logins, uid, pid);
}

static void judge_key(struct pm_broker *b, const struct ask *a, struct verdict *v)
{
    const uint8_t *key = (const uint8_t *)a->frames[ASK_KEY];
    char text[PM_KEY_CHARS + 1];
    bool is_curve = !strcmp(a->frames[ASK_MECHANISM], "CURVE") && a->count == ASK_FRAMES &&
                    a->sizes[ASK_KEY] == PM_KEY_BYTES;
    const struct pm_allowed_key *known = is_curve ? pm_allowed_find(&b->gate->allowed, key) : NULL;
    if (!known) {
        pm_count(b, PM_COUNT_keys_refused);
        if (is_curve)
            pm_key_text(key, text);
        if (pm_gate_may_log(b))
            pm_log(PM_LOG_WARNING, "a key that is not allowed is refused address=%s key=%s",
                   a->frames[ASK_ADDRESS], is_curve ? text : "none");
        *v = (struct verdict){"400", "this key is not allowed", ""};
        return;
    }
    if (is_barred(b, 0, key)) {
        pm_count(b, PM_COUNT_connections_barred);
        *v = (struct verdict){"500", "put out a moment ago", ""};
        return;
    }
    *v = (struct verdict){"200", "", ""};
    pm_key_text(key, text);
    snprintf(v->user, sizeof v->user, "k %llu %s", (unsigned long long)++b->gate->logins, text);
}

static void answer_ask(struct pm_broker *b, const struct ask *a)
{
    struct verdict v = {"400", "not understood", ""};
    if (a->count > ASK_MECHANISM && !strcmp(a->frames[ASK_DOMAIN], domains[PM_SOCKET_NET]))
        judge_key(b, a, &v);
    else if (a->count > ASK_MECHANISM)
        judge_ipc(b, a, &v);
    const struct pm_bytes out[] = {{(const uint8_t *)"1.0", 3},
                                   {(const uint8_t *)a->frames[ASK_NUMBER], a->sizes[ASK_NUMBER]},
                                   {(const uint8_t *)v.code, 3},
                                   {(const uint8_t *)v.text, strlen(v.text)},
                                   {(const uint8_t *)v.user, strlen(v.user)},
                                   {(const uint8_t *)"", 0}};
    const size_t count = sizeof out / sizeof out[0];
    for (size_t i = 0; i < count; i++)
        if (zmq_send(b->gate->zap, out[i].data, out[i].size,
                     ZMQ_DONTWAIT | (i + 1 < count ? ZMQ_SNDMORE : 0)) < 0)
            return; /* who asked has gone */
}

void pm_gate_serve(struct pm_broker *b)
{
    struct ask a;
    for (unsigned i = 0; i < ASKED_MOST && take_ask(b->gate->zap, &a); i++) {
        read_monitors(b); /* its door must be known before it gets its login */
        answer_ask(b, &a);
    }
}

/* ---- the allow-list ---- */

static int read_allowed(struct pm_gate *g, bool *changed_out, struct pm_error *err)
{
    struct stat st = {.st_ino = 0};
    struct pm_allowed fresh;
    *changed_out = false;
    if (stat(g->allowed_path, &st) && errno != ENOENT)
        return pm_fail_errno(err, "cannot look at %s", g->allowed_path);
    if (st.st_ino == g->allowed_inode && st.st_mtim.tv_sec == g->allowed_time.tv_sec &&
        st.st_mtim.tv_nsec == g->allowed_time.tv_nsec)
        return 0;
    g->allowed_inode = st.st_ino;
    g->allowed_time = st.st_mtim;
    int rc = pm_allowed_read(g->allowed_path, &fresh, err);
    if (rc)
        return rc;
    pm_allowed_free(&g->allowed);
    g->allowed = fresh;
    *changed_out = true;
    return 0;
}

void pm_gate_keys_changed(struct pm_broker *b)
{
    struct pm_gate *g = b->gate;
    struct pm_error err;
    bool has_changed;
    char events[4096];
    if (!g->allowed_path)
        return;
    while (g->inotify_fd >= 0 && read(g->inotify_fd, events, sizeof events) > 0) {
    }
    if (read_allowed(g, &has_changed, &err)) {
        pm_log(PM_LOG_ERROR, "the allow-list is not taken over, the one before goes on: %s", err.text);
        return;
    }
    if (!has_changed)
        return;
    pm_log(PM_LOG_INFO, "allow-list read keys=%zu", g->allowed.count);
    for (size_t i = 0; i < b->conn_count; i++) {
        struct pm_conn *c = b->conns[i];
        if (!c->is_remote || c->is_dead)
            continue;
        const struct pm_allowed_key *k = pm_allowed_find(&g->allowed, c->key);
        if (k && k->rights == c->rights && !strcmp(k->name, c->client))
            continue;
        pm_log(PM_LOG_WARNING, "put out name=%s key=%s: %s", c->name, c->client,
               k ? "its key has other roles now" : "its key is revoked");
        if (c->peer)
            pm_sched_peer_end(b->sched, b->now, c->peer, PM_PEER_LEFT);
        c->peer = 0;
        pm_gate_put_out(b, c, PM_COUNT_cut_for_key);
        pm_conn_cut(b, c);
    }
}

static int open_keys(struct pm_broker *b, struct pm_error *err)
{
    struct pm_gate *g = b->gate;
    bool has_changed;
    g->keys_dir = pm_fs_join(b->config.state_dir, PM_KEYS_DIR);
    int rc = pm_key_server(g->keys_dir, &g->server, err);
    g->allowed_path = pm_fs_join(g->keys_dir, "allowed");
    if (!rc)
        rc = read_allowed(g, &has_changed, err);
    if (rc)
        return rc;
    if (!g->allowed.count)
        pm_log(PM_LOG_WARNING, "no key is allowed yet: nobody can connect over tcp; see pagemill-keys(1)");
    /* Only for speed: the list is looked at every second anyway. */
    g->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = 0};
    if (g->inotify_fd >= 0 &&
        (inotify_add_watch(g->inotify_fd, g->keys_dir, IN_MOVED_TO | IN_CLOSE_WRITE | IN_DELETE) < 0 ||
         epoll_ctl(b->epoll_fd, EPOLL_CTL_ADD, g->inotify_fd, &e)))
        pm_log(PM_LOG_WARNING, "changes of %s are seen after a second", g->allowed_path);
    return 0;
}

/* ---- opening ---- */

/* A connection is a descriptor. Each socket has a share of its own: clients must not keep services out. */
static size_t share_of_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        return 256;
    limit.rlim_cur = limit.rlim_max < NOFILE_MOST ? limit.rlim_max : NOFILE_MOST;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    size_t have = (size_t)limit.rlim_cur, share = have > 512 ? (have - 256) / PM_SOCKET_COUNT : have / 6;
    return share < PM_LIMIT_PEERS + 256u ? share : PM_LIMIT_PEERS + 256u;
}

int pm_gate_open(struct pm_broker *b, struct pm_error *err)
{
    struct pm_gate *g = b->gate = pm_xalloc(sizeof *g);
    g->inotify_fd = -1;
    g->logs_left = LOGS_A_SECOND;
    g->most_of_socket = share_of_descriptors();
    int linger = 0;
    g->zap = zmq_socket(b->zmq, ZMQ_REP);
    if (!g->zap || zmq_setsockopt(g->zap, ZMQ_LINGER, &linger, sizeof linger) ||
        zmq_bind(g->zap, "inproc://zeromq.zap.01"))
        return pm_fail(err, PM_EIO, "cannot serve authentication: %s", zmq_strerror(errno));
    return b->config.listen ? open_keys(b, err) : 0;
}

int pm_gate_guard(struct pm_broker *b, int socket, struct pm_error *err)
{
    struct pm_gate *g = b->gate;
    void *s = b->sockets[socket];
    char name[32];
    int linger = 0, all = 0;
    int64_t largest = PM_FRAME_RECORD_BYTES; /* of what a broker receives, nothing is larger */
    if (socket == PM_SOCKET_NET) {
        int rc = pm_key_secure_server(s, &g->server, err);
        if (rc)
            return rc;
    }
    snprintf(name, sizeof name, "inproc://gate-%s", domains[socket]);
    void *monitor = zmq_socket(b->zmq, ZMQ_PAIR);
    if (!monitor)
        return pm_fail(err, PM_EIO, "cannot make a socket: %s", zmq_strerror(errno));
    g->monitors[socket] = monitor;
    /* A monitor whose queue is full would stop the I/O thread. */
    if (zmq_setsockopt(monitor, ZMQ_LINGER, &linger, sizeof linger) ||
        zmq_setsockopt(monitor, ZMQ_RCVHWM, &all, sizeof all) ||
        zmq_setsockopt(s, ZMQ_MAXMSGSIZE, &largest, sizeof largest) ||
        zmq_setsockopt(s, ZMQ_ZAP_DOMAIN, domains[socket], strlen(domains[socket])) ||
        zmq_socket_monitor(s, name,
                           ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                               ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL) ||
        zmq_connect(monitor, name))
        return pm_fail(err, PM_EIO, "cannot guard a socket: %s", zmq_strerror(errno));
    return 0;
}

void pm_gate_free(struct pm_broker *b)
{
    struct pm_gate *g = b->gate;
    if (!g)
        return;
    for (int i = 0; i < PM_SOCKET_COUNT; i++)
        if (g->monitors[i])
            zmq_close(g->monitors[i]);
    if (g->zap)
        zmq_close(g->zap);
    if (g->inotify_fd >= 0)
        close(g->inotify_fd);
    pm_key_forget(&g->server);
    pm_allowed_free(&g->allowed);
    free(g->keys_dir);
    free(g->allowed_path);
    free(g->doors);
    free(g);
    b->gate = NULL;
}

/* ---- messages ---- */

unsigned pm_gate_how(struct pm_broker *b, int socket)
{
    uint32_t *left = &b->gate->suspicion[socket];
    if (socket == PM_SOCKET_NET || *left) {
        *left -= *left > 0;
        return PM_RECEIVE_ROUTED | PM_RECEIVE_SENDER;
    }
    return PM_RECEIVE_ROUTED;
}

int pm_gate_login(struct pm_broker *b, int socket, const struct pm_message *m, struct pm_login *out,
                  struct pm_error *err)
{
    uint64_t pid;
    *out = (struct pm_login){.login = login_of(m->sender), .name = "", .fd = -1};
    if (!out->login || !who_is(m->sender, &pid, out->key))
        return pm_fail(err, PM_EDENIED, "this connection has not been let in");
    const struct door *d = door_of(b, socket, m->sender);
    if (d && d->is_out)
        return pm_fail(err, PM_EDENIED, "this connection was put out");
    out->fd = d ? m->sender->fd : -1;
    out->is_remote = socket == PM_SOCKET_NET;
    out->pid = pid;
    out->rights = PM_RIGHTS_ALL;
    if (!out->is_remote)
        return 0;
    const struct pm_allowed_key *k = pm_allowed_find(&b->gate->allowed, out->key);
    if (!k) {
        if (d)
            shut(b, m->sender->fd, PM_COUNT_cut_for_key);
        return pm_fail(err, PM_EDENIED, "this key has been revoked");
    }
    out->name = k->name;
    out->rights = k->rights;
    return 0;
}

void pm_gate_greeted(struct pm_broker *b, int socket, const struct pm_message *m, struct pm_conn *c)
{
    struct door *d = door_of(b, socket, m->sender);
    c->fd = d ? m->sender->fd : -1;
    c->lost_us = 0;
    if (d)
        d->conn = c->id;
}

bool pm_gate_is_of(const struct pm_conn *c, const struct pm_message *m)
{
    return !c->is_remote || login_of(m->sender) == c->login;
}

void pm_gate_took(struct pm_broker *b, int socket, const struct pm_message *m)
{
    struct door *d = socket == PM_SOCKET_NET ? door_of(b, socket, m->sender) : NULL;
    if (d)
        d->taken_bytes += m->bytes + FRAMING_BYTES;
}

static struct pm_conn *conn_by_id(struct pm_broker *b, uint64_t id)
{
    for (size_t i = 0; id && i < b->conn_count; i++)
        if (b->conns[i]->id == id && !b->conns[i]->is_dead)
            return b->conns[i];
    return NULL;
}

bool pm_gate_breach(struct pm_broker *b, int socket, const struct pm_message *m, unsigned points,
                    const char *what)
{
    if (!m->sender) { /* from now on we look who it is */
        b->gate->suspicion[socket] = SUSPICION;
        return true;
    }
    struct door *d = door_of(b, socket, m->sender);
    if (!d || d->is_out)
        return false;
    d->points += points;
    if (d->points < POINTS_MOST)
        return true;
    struct pm_conn *c = conn_by_id(b, d->conn);
    if (pm_gate_may_log(b))
        pm_log(PM_LOG_WARNING, "put out name=%s connection=%s: it broke the protocol again and again: %s",
               c ? c->name : "none", m->sender->user, what);
    bar(b, m->sender);
    shut(b, m->sender->fd, PM_COUNT_cut_for_breach);
    if (c) {
        if (c->peer)
            pm_sched_peer_end(b->sched, b->now, c->peer, PM_PEER_KILLED);
        c->peer = 0;
        pm_conn_cut(b, c);
    }
    return false;
}

void pm_gate_put_out(struct pm_broker *b, struct pm_conn *c, enum pm_counter_id reason)
{
    struct door *d;
    read_monitors(b); /* its descriptor may be somebody else's by now */
    d = door_at(b->gate, c->fd);
    if (d && d->conn == c->id)
        shut(b, c->fd, reason);
    else
        pm_count(b, reason);
}

/* ---- every second ---- */

/* The kernel has taken what we have not seen as messages: frames without an end, which ZeroMQ keeps. */
static bool is_hoarding(const struct pm_broker *b, struct door *d, int fd)
{
    struct tcp_info info = {.tcpi_state = 0};
    socklen_t size = sizeof info;
    if (d->socket != PM_SOCKET_NET || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) ||
        size < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received)
        return false;
    int64_t age_s = (b->now.us - d->since_us) / 1000000;
    if (d->taken_bytes >
        info.tcpi_bytes_received) /* framing is taken for more than it is: nothing is saved up */
        d->taken_bytes = info.tcpi_bytes_received;
    return (int64_t)info.tcpi_bytes_received - (int64_t)d->taken_bytes > HOARD_BYTES + HOARD_DRIFT * age_s;
}

static void look_after_doors(struct pm_broker *b)
{
    struct pm_gate *g = b->gate;
    for (size_t fd = 0; fd < g->door_capacity; fd++) {
        struct door *d = &g->doors[fd];
        if (!d->is_open || d->is_out)
            continue;
        d->points /= 2;
        if (!d->conn && b->now.us - d->since_us > SILENT_US) {
            shut(b, (int)fd, PM_COUNT_connections_silent);
        } else if (is_hoarding(b, d, (int)fd)) {
            struct pm_conn *c = conn_by_id(b, d->conn);
            shut(b, (int)fd, PM_COUNT_cut_for_hoarding);
            if (pm_gate_may_log(b))
                pm_log(PM_LOG_WARNING, "put out name=%s: it sends a message without an end",
                       c ? c->name : "none");
        }
    }
}

/* Connections whose door has closed, a moment later: what they sent last has been read by then. */
static void look_after_lost(struct pm_broker *b)
{
    bool has_more = false;
    for (size_t i = 0; i < b->conn_count; i++) {
        struct pm_conn *c = b->conns[i];
        if (c->is_dead || !c->lost_us)
            continue;
        if (b->now.us - c->lost_us < LOST_US) {
            has_more = true;
        } else if (!c->peer) {
            pm_count(b, PM_COUNT_peers_gone);
            pm_conn_cut(b, c);
        } else if (c->is_remote && !c->is_unreachable) { /* no process to watch; it may come again */
            c->is_unreachable = true;
            pm_sched_mute(b->sched, c->peer);
        }
    }
    b->gate->wants_look = has_more;
}

/* ---- shares of our time ---- */

int pm_gate_check_share(struct pm_broker *b, const struct pm_conn *c, struct pm_error *err)
{
    if (c->spent_us < (b->costly_us < SHARE_ALL_US ? SHARE_BURST_US : SHARE_SECOND_US))
        return 0;
    pm_count(b, PM_COUNT_requests_over_share);
    return pm_fail(err, PM_EBUSY, "this connection asks for more than its share of the broker's time");
}

void pm_gate_spent(struct pm_broker *b, struct pm_conn *c, int64_t us)
{
    c->spent_us += us;
    b->costly_us += us;
}

static void forgive(struct pm_broker *b)
{
    b->costly_us = 0;
    for (size_t i = 0; i < b->conn_count; i++) {
        struct pm_conn *c = b->conns[i];
        c->spent_us = c->spent_us > SHARE_SECOND_US ? c->spent_us - SHARE_SECOND_US : 0;
    }
}

void pm_gate_keep(struct pm_broker *b)
{
    struct pm_gate *g = b->gate;
    g->logs_left = LOGS_A_SECOND;
    forgive(b);
    read_monitors(b);
    look_after_doors(b);
    if (g->wants_look)
        look_after_lost(b);
    pm_gate_keys_changed(b);
    pm_uploads_keep(b);
}

/* ---- rights ---- */

bool pm_gate_may_read(const struct pm_conn *c, const char *client)
{
    return c->rights & PM_RIGHT_ADMIN || (c->rights & PM_RIGHT_SUBMIT && !strcmp(c->client, client));
}

const char *pm_gate_only_client(const struct pm_conn *c, unsigned rights)
{
    return c->rights & (rights | PM_RIGHT_ADMIN) ? NULL : c->client;
}

int pm_gate_check_job(struct pm_broker *b, const struct pm_conn *c, uint64_t job, unsigned rights,
                      struct pm_error *err)
{
    struct pm_job_info info;
    char text[PM_RIGHTS_TEXT];
    const char *only = pm_gate_only_client(c, rights);
    if (!only || !pm_sched_info(b->sched, job, &info) || pm_gate_may_read(c, info.client))
        return 0;
    pm_count(b, PM_COUNT_missing_rights);
    return pm_fail(err, PM_EDENIED, "job %llu is another client's: this needs role %s, key %s has %s",
                   (unsigned long long)job, rights & PM_RIGHT_WATCH ? "watch or admin" : "admin", only,
                   pm_rights_text(c->rights, text));
}
