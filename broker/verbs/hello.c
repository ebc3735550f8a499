/* HELLO: the first message of everybody. A service that lost its connection, or the broker before this one,
 * says what it still holds. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/gate.h"
#include "broker/known.h"

#define CONNECTIONS_OF_KEY 1024

static bool is_service_role(uint32_t role)
{
    return role == PM_ROLE_LAYOUTD || role == PM_ROLE_WORKER || role == PM_ROLE_COLLECTOR;
}

/* One key must not keep the others out. */
static int check_key(struct pm_broker *b, bool is_known, const struct pm_msg_hello *h,
                     const struct pm_login *login, struct pm_error *err)
{
    char text[PM_RIGHTS_TEXT];
    bool is_service = is_service_role(h->role);
    unsigned need = is_service ? PM_RIGHT_WORK : PM_RIGHTS_ALL & ~(unsigned)PM_RIGHT_WORK;
    size_t open = 0;
    if (!(login->rights & (need | PM_RIGHT_ADMIN))) {
        pm_count(b, PM_COUNT_missing_rights);
        return pm_fail(err, PM_EDENIED, "a %s needs role %s, key %s has %s", pm_role_name(h->role),
                       is_service ? "work" : "submit, watch or admin", login->name,
                       pm_rights_text(login->rights, text));
    }
    for (size_t i = 0; login->is_remote && !is_known && i < b->conn_count; i++)
        open += b->conns[i]->is_remote && pm_key_is_same(b->conns[i]->key, login->key);
    if (open >= CONNECTIONS_OF_KEY)
        return pm_fail(err, PM_EBUSY, "key %s has %zu connections open, which is the limit", login->name,
                       open);
    return 0;
}

/* A host id is BOOT/NAME: containers of one machine have the same BOOT, and may share folders. */
static bool is_same_machine(const char *a, const char *b)
{
    size_t boot = strcspn(a, "/");
    return !strcmp(a, b) || (boot && boot == strcspn(b, "/") && !strncmp(a, b, boot));
}

static int check(const struct pm_broker *b, int socket, bool is_known, const struct pm_msg_hello *h,
                 struct pm_error *err)
{
    bool is_service = is_service_role(h->role);
    bool is_client = h->role == PM_ROLE_CLIENT || h->role == PM_ROLE_SUPERVISOR;
    if (h->proto_min > PM_PROTO_MAX || h->proto_max < PM_PROTO_MIN || h->proto_min > h->proto_max)
        return pm_fail(err, PM_EUNSUPPORTED,
                       "you speak protocol %u to %u, the broker %u to %u: update the older one", h->proto_min,
                       h->proto_max, PM_PROTO_MIN, PM_PROTO_MAX);
    bool is_right = socket == PM_SOCKET_WORK     ? is_service
                    : socket == PM_SOCKET_CLIENT ? is_client
                                                 : is_service || is_client;
    if (!is_right)
        return pm_fail(err, PM_EDENIED, "role %s does not belong on this socket", pm_role_name(h->role));
    if (is_service && h->role != PM_ROLE_WORKER && !is_same_machine(h->host, b->host))
        return pm_fail(
            err, PM_EUNSUPPORTED,
            "a %s shares files with the broker and works on its host; only workers may be elsewhere",
            pm_role_name(h->role));
    if (h->role == PM_ROLE_WORKER && !h->reader_count)
        return pm_fail(err, PM_EINVAL, "a worker has to name the readers that it serves");
    if (h->role == PM_ROLE_WORKER) {
        int rc = pm_sched_check_worker(b->sched, h->readers, h->reader_count, err);
        if (rc)
            return rc;
    }
    /* Each socket has a limit of its own: clients must not keep services out. */
    if (!is_known && b->conns_of[socket] >= PM_LIMIT_PEERS)
        return pm_fail(err, PM_EBUSY, "%zu connections are open, which is the limit", b->conns_of[socket]);
    return 0;
}

/* The name stands in many log lines: it must not pass for other keys. */
static void be_plain(char *name)
{
    pm_sanitize_text(name);
    for (char *at = name; (at = strpbrk(at, " =\"\\")) != NULL;)
        *at++ = '_';
}

static void describe(struct pm_broker *b, struct pm_conn *c, const struct pm_msg_hello *h,
                     const struct pm_login *login)
{
    const char *client = login->is_remote ? login->name : *h->client ? h->client : h->name;
    free(c->name);
    free(c->version);
    free(c->client);
    free(c->host);
    c->name = pm_xstrdup(h->name);
    c->version = pm_xstrdup(h->version);
    c->client = pm_xstrdup(client);
    c->login = login->login;
    c->rights = login->rights;
    c->is_remote = login->is_remote;
    memcpy(c->key, login->key, sizeof c->key);
    c->host = pm_xstrdup(h->host);
    pm_conn_set_readers(c, h);
    be_plain(c->name);
    pm_sanitize_text(c->client);
    c->role = h->role;
    c->pid = h->pid;
    c->instance = h->instance;
    c->proto = h->proto_max < PM_PROTO_MAX ? h->proto_max : PM_PROTO_MAX;
    c->seq = 0;
    c->heard_us = b->now.us;
    c->is_unreachable = false;
    pm_conn_forget_queue(c);
}

/* The process behind c is gone or another one now: end what the scheduler knows of it. */
static void end_peer(struct pm_broker *b, struct pm_conn *c)
{
    if (c->peer)
        pm_sched_peer_end(b->sched, b->now, c->peer, PM_PEER_KILLED);
    c->peer = 0;
    pm_conn_cut(b, c);
}

static void join(struct pm_broker *b, struct pm_conn *c, const struct pm_msg_hello *h, uint32_t known_peer)
{
    if (known_peer) {
        c->peer = known_peer;
        pm_sched_peer_rejoin(b->sched, c->peer, h->credit, h->held_count);
        pm_sched_alive(b->sched, c->peer);
        pm_sched_unheld(b->sched, b->now, c->peer, h->held, h->held_count);
    } else {
        struct pm_sched_peer facts = {.role = h->role,
                                      .name = c->name,
                                      .version = c->version,
                                      .readers = h->readers,
                                      .reader_count = h->reader_count,
                                      .granted = h->credit,
                                      .leased = h->held_count};
        c->peer = pm_sched_peer_join(b->sched, b->now, &facts);
    }
    if (c->pidfd < 0)
        pm_conn_watch_exit(b, c);
    b->services_changed = true;
}

void pm_verb_hello(struct pm_broker *b, int socket, const struct pm_message *m)
{
    const struct pm_msg_hello *h = m->record;
    struct pm_error err;
    struct pm_conn *c = pm_conn_find(b, socket, m);
    struct pm_login login;
    bool is_service = is_service_role(h->role);
    int rc = pm_gate_login(b, socket, m, &login, &err);
    if (!rc)
        rc = check(b, socket, c != NULL, h, &err);
    if (!rc)
        rc = check_key(b, c != NULL, h, &login, &err);
    struct pm_conn *old = !rc && is_service ? pm_conn_of_instance(b, h->instance) : NULL;
    if (old && (old->is_remote != login.is_remote || !pm_key_is_same(old->key, login.key))) {
        pm_count(b, PM_COUNT_impostors);
        rc = pm_fail(&err, PM_EDENIED, "this instance is known with another key");
    }
    if (rc) {
        pm_count(b, PM_COUNT_hellos_refused);
        pm_metrics_refused(b->metrics, rc);
        if (pm_gate_may_log(b))
            pm_log(PM_LOG_WARNING, "hello refused: %s", err.text);
        if (rc != PM_EBUSY && !pm_gate_breach(b, socket, m, PM_BREACH_ROLE, err.text))
            return;
        pm_refuse_stranger(b, socket, m, 0, rc, err.text);
        return;
    }
    if (c && (c->instance != h->instance || c->role != h->role)) {
        end_peer(b, c);
        c = NULL;
    }
    uint32_t known_peer = c ? c->peer : 0;
    if (!c) {
        old = is_service ? pm_conn_of_instance(b, h->instance) : NULL; /* unless it has just ended */
        if (old && old->role != h->role) {
            end_peer(b, old);
        } else if (old) { /* the same process over a new connection */
            known_peer = old->peer;
            old->peer = 0;
            pm_conn_cut(b, old);
        }
        c = pm_conn_add(b, socket, m);
    }
    describe(b, c, h, &login);
    pm_gate_greeted(b, socket, m, c);
    if (is_service)
        join(b, c, h, known_peer);
    if (c->role == PM_ROLE_WORKER)
        pm_known_worker_came(b, c);
    struct pm_msg_welcome welcome = {.proto = c->proto,
                                     .epoch = b->epoch,
                                     .version = PM_VERSION,
                                     .host = b->host,
                                     .beat_us = (uint64_t)b->config.stall_us / 2,
                                     .disk_dir = pm_blobs_dir(b->blobs, PM_BLOB_DISK),
                                     .pixel_dir = pm_blobs_dir(b->blobs, PM_BLOB_PIXELS),
                                     .pid = (uint64_t)getpid()};
    pm_conn_send(b, c, PM_MSG_WELCOME, &welcome);
    for (uint32_t i = 0; i < h->held_count && c->peer; i++) {
        if (pm_sched_held(b->sched, b->now, c->peer, &h->held[i]))
            continue;
        struct pm_msg_revoke revoke = {
            .task = h->held[i].task, .attempt = h->held[i].attempt, .reason = "fenced"};
        pm_conn_send(b, c, PM_MSG_REVOKE, &revoke);
    }
    if (c->peer)
        pm_awaited_came(b, h->pid); /* after what it holds was taken over */
    pm_log(is_service ? PM_LOG_INFO : PM_LOG_DEBUG, "%s joined name=%s pid=%llu credit=%u held=%u",
           pm_role_name(c->role), c->name, (unsigned long long)c->pid, h->credit, h->held_count);
}
