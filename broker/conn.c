/* Connections: who is there, what waits for them, and noticing that they left. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "broker/broker.h"
#include "broker/gate.h"

/* Waiting for a peer that does not read: then it is cut. */
#define OUT_MOST       8192
#define OUT_MOST_BYTES ((size_t)64 << 20)

static char *route_key(int socket, const uint8_t *route, size_t bytes, char out[2 * 32 + 2])
{
    out[0] = (char)('0' + socket);
    for (size_t i = 0; i < bytes; i++) {
        out[1 + 2 * i] = "0123456789abcdef"[route[i] >> 4];
        out[2 + 2 * i] = "0123456789abcdef"[route[i] & 15];
    }
    out[1 + 2 * bytes] = 0;
    return out;
}

struct pm_conn *pm_conn_find(struct pm_broker *b, int socket, const struct pm_message *m)
{
    char key[2 * 32 + 2];
    return pm_strmap_get(&b->by_route, route_key(socket, m->route, m->route_bytes, key));
}

struct pm_conn *pm_conn_add(struct pm_broker *b, int socket, const struct pm_message *m)
{
    struct pm_conn *c = pm_xalloc(sizeof *c);
    char key[2 * 32 + 2];
    c->id = ++b->next_conn;
    c->socket = socket;
    memcpy(c->route, m->route, m->route_bytes);
    c->route_bytes = m->route_bytes;
    c->pidfd = c->fd = -1;
    c->joined_us = c->heard_us = b->now.us;
    pm_strmap_put(&b->by_route, route_key(socket, c->route, c->route_bytes, key), c);
    PM_GROW(b->conns, b->conn_count, b->conn_capacity);
    b->conns[b->conn_count++] = c;
    b->conns_of[socket]++;
    return c;
}

/* A connection that changed hands is found anew. */
struct pm_conn *pm_conn_of_peer(struct pm_broker *b, uint32_t peer)
{
    struct pm_conn *known = pm_map_get(&b->by_peer, peer);
    if (known && known->peer == peer && !known->is_dead)
        return known;
    for (size_t i = 0; i < b->conn_count; i++)
        if (b->conns[i]->peer == peer && !b->conns[i]->is_dead) {
            pm_map_put(&b->by_peer, peer, b->conns[i]);
            return b->conns[i];
        }
    return NULL;
}

struct pm_conn *pm_conn_of_instance(const struct pm_broker *b, uint64_t instance)
{
    for (size_t i = 0; i < b->conn_count; i++)
        if (b->conns[i]->peer && b->conns[i]->instance == instance && !b->conns[i]->is_dead)
            return b->conns[i];
    return NULL;
}

void pm_conn_cut(struct pm_broker *b, struct pm_conn *c)
{
    if (c->is_dead)
        return;
    c->is_dead = true;
    b->services_changed |= c->role != PM_ROLE_CLIENT && c->role != PM_ROLE_SUPERVISOR;
    char key[2 * 32 + 2];
    route_key(c->socket, c->route, c->route_bytes, key);
    if (pm_strmap_get(&b->by_route, key) == c)
        pm_strmap_remove(&b->by_route, key);
}

static void drop_outgoing(struct pm_conn *c)
{
    struct pm_outgoing *o = c->out_first;
    c->out_first = o->next;
    if (!c->out_first)
        c->out_last = NULL;
    c->out_count--;
    c->out_bytes -= o->record.size + o->payload.size;
    pm_buf_free(&o->record);
    pm_buf_free(&o->payload);
    free(o);
}

void pm_conn_forget_queue(struct pm_conn *c)
{
    while (c->out_first)
        drop_outgoing(c);
}

static char **copy_texts(const char *const *texts, uint32_t count)
{
    char **copies = pm_xalloc((count + 1) * sizeof *copies);
    for (uint32_t i = 0; i < count; i++)
        copies[i] = pm_xstrdup(texts[i]);
    return copies;
}

static void free_texts(char ***texts, uint32_t *count)
{
    for (uint32_t i = 0; i < *count; i++)
        free((*texts)[i]);
    free(*texts);
    *texts = NULL;
    *count = 0;
}

void pm_conn_set_readers(struct pm_conn *c, const struct pm_msg_hello *h)
{
    free_texts(&c->readers, &c->reader_count);
    free_texts(&c->models, &c->model_count);
    c->readers = copy_texts(h->readers, h->reader_count);
    c->reader_count = h->reader_count;
    c->models = copy_texts(h->models, h->model_count);
    c->model_count = h->model_count;
}

static void free_conn(struct pm_conn *c)
{
    free_texts(&c->readers, &c->reader_count);
    free_texts(&c->models, &c->model_count);
    pm_conn_forget_queue(c);
    pm_events_free(c);
    for (int i = 0; i < PM_CONN_UPLOADS; i++)
        pm_blob_stream_drop(&c->uploads[i].stream);
    if (c->pidfd >= 0)
        close(c->pidfd);
    free(c->name);
    free(c->version);
    free(c->client);
    free(c->host);
    free(c);
}

/* Where else it is known. */
static void forget(struct pm_broker *b, const struct pm_conn *c)
{
    size_t cursor = 0, kept = 0;
    uint64_t peer;
    void *value;
    if (c->socket != PM_SOCKET_CLIENT)
        while (pm_map_next(&b->by_peer, &cursor, &peer, &value))
            if (value == c) {
                pm_map_remove(&b->by_peer, peer);
                cursor = 0; /* the map has changed under it */
            }
    for (size_t i = 0; c->is_waiting && i < b->waiting_count; i++)
        if (b->waiting[i] != c)
            b->waiting[kept++] = b->waiting[i];
    b->waiting_count = c->is_waiting ? kept : b->waiting_count;
}

void pm_conn_bury(struct pm_broker *b)
{
    for (size_t i = b->conn_count; i-- > 0;) {
        if (!b->conns[i]->is_dead)
            continue;
        b->conns_of[b->conns[i]->socket]--;
        forget(b, b->conns[i]);
        free_conn(b->conns[i]);
        b->conns[i] = b->conns[--b->conn_count];
    }
}

/* ---- sending ---- */

static struct pm_header header_for(struct pm_broker *b, struct pm_conn *c, uint32_t type)
{
    return (struct pm_header){
        .proto = c->proto ? c->proto : PM_PROTO_MAX, .type = type, .seq = c->seq + 1, .epoch = b->epoch};
}

/* What a failed send says about the other end. */
static void note_failure(struct pm_broker *b, struct pm_conn *c, int rc)
{
    if (rc != PM_EGONE)
        return;
    if (!c->peer) { /* a client: nothing is owed to it */
        pm_count(b, PM_COUNT_peers_gone);
        pm_conn_cut(b, c);
    } else if (!c->is_unreachable) { /* it may be connecting again; its process tells when it is dead */
        c->is_unreachable = true;
        pm_sched_mute(b->sched, c->peer);
    }
}

int pm_conn_send_now(struct pm_broker *b, struct pm_conn *c, uint32_t type, const void *record,
                     struct pm_bytes payload, struct pm_error *err)
{
    struct pm_header h = header_for(b, c, type);
    int rc = pm_message_send(b->sockets[c->socket], c->route, c->route_bytes, &h, record, payload.data,
                             payload.size, err);
    if (!rc)
        c->seq++;
    else
        note_failure(b, c, rc);
    return rc;
}

/* A client that asked gets an answer in any case. Every answer's record begins with the request's number. */
static void refuse_instead(struct pm_broker *b, struct pm_conn *c, uint32_t type, const void *record,
                           int code, const char *text)
{
    if (c->peer || type == PM_MSG_REFUSE || type == PM_MSG_WELCOME)
        return;
    struct pm_msg_refuse refuse = {.ref = *(const uint64_t *)record, .code = pm_err_name(code), .text = text};
    pm_conn_send(b, c, PM_MSG_REFUSE, &refuse);
}

void pm_conn_send(struct pm_broker *b, struct pm_conn *c, uint32_t type, const void *record)
{
    struct pm_buf none = {0};
    pm_conn_send_payload(b, c, type, record, &none);
}

void pm_conn_send_payload(struct pm_broker *b, struct pm_conn *c, uint32_t type, const void *record,
                          struct pm_buf *payload)
{
    if (c->is_dead) {
        pm_buf_free(payload);
        return;
    }
    if (c->out_count >= OUT_MOST || c->out_bytes >= OUT_MOST_BYTES) {
        pm_log(PM_LOG_WARNING, "peer cut name=%s: it does not read its answers", c->name ? c->name : "?");
        pm_count(b, PM_COUNT_peers_cut);
        pm_gate_put_out(b, c, PM_COUNT_cut_for_not_reading);
        if (c->peer)
            pm_sched_peer_end(b->sched, b->now, c->peer, PM_PEER_KILLED);
        pm_conn_cut(b, c);
        pm_buf_free(payload);
        return;
    }
    struct pm_outgoing *o = pm_xalloc(sizeof *o);
    struct pm_error err;
    o->type = type;
    int rc = pm_record_try_encode(pm_msg_schema(type), record, &o->record, &err);
    if (!rc && o->record.size > PM_FRAME_RECORD_BYTES)
        rc = pm_fail(&err, PM_ELIMIT, "the answer has %zu bytes, a message takes %u: ask for less",
                     o->record.size, PM_FRAME_RECORD_BYTES);
    if (rc) {
        pm_log(PM_LOG_ERROR, "cannot send %s to %s: %s", pm_msg_name(type), c->name, err.text);
        pm_count(b, PM_COUNT_answers_too_large);
        pm_buf_free(&o->record);
        pm_buf_free(payload);
        free(o);
        refuse_instead(b, c, type, record, rc, err.text);
        return;
    }
    o->payload = *payload;
    *payload = (struct pm_buf){0};
    if (c->out_last)
        c->out_last->next = o;
    else
        c->out_first = o;
    c->out_last = o;
    c->out_count++;
    c->out_bytes += o->record.size + o->payload.size;
    pm_conn_waits(b, c);
}

void pm_conn_flush(struct pm_broker *b, struct pm_conn *c)
{
    while (c->out_first && !c->is_dead) {
        struct pm_outgoing *o = c->out_first;
        struct pm_header h = header_for(b, c, o->type);
        int rc = pm_message_send_encoded(b->sockets[c->socket], c->route, c->route_bytes, &h, o->record.data,
                                         o->record.size, o->payload.data, o->payload.size, NULL);
        if (rc == PM_EAGAIN || rc == PM_ENOMEM) {
            pm_count(b, PM_COUNT_sends_delayed);
            return;
        }
        note_failure(b, c, rc);
        if (rc == PM_EGONE)
            return; /* kept for a service that comes back */
        if (rc)
            pm_log(PM_LOG_ERROR, "cannot send %s to %s", pm_msg_name(o->type), c->name);
        c->seq += !rc;
        drop_outgoing(c);
    }
    if (!c->out_first && !c->is_dead)
        pm_events_flush(b, c);
}

void pm_conn_waits(struct pm_broker *b, struct pm_conn *c)
{
    if (c->is_waiting)
        return;
    c->is_waiting = true;
    PM_GROW(b->waiting, b->waiting_count, b->waiting_capacity);
    b->waiting[b->waiting_count++] = c;
}

void pm_conn_flush_all(struct pm_broker *b)
{
    size_t kept = 0, count = b->waiting_count;
    for (size_t i = 0; i < count; i++) {
        struct pm_conn *c = b->waiting[i];
        pm_conn_flush(b, c);
        c->is_waiting = !c->is_dead && (c->out_first || c->event_first || c->has_lost || c->progress.count);
        if (c->is_waiting)
            b->waiting[kept++] = c;
    }
    for (size_t i = count; i < b->waiting_count; i++) /* queued meanwhile */
        b->waiting[kept++] = b->waiting[i];
    b->waiting_count = kept;
}

void pm_refuse_stranger(struct pm_broker *b, int socket, const struct pm_message *m, uint64_t ref, int code,
                        const char *text)
{
    struct pm_msg_refuse refuse = {.ref = ref, .code = pm_err_name(code), .text = text};
    struct pm_header h = {.proto = PM_PROTO_MIN, .type = PM_MSG_REFUSE, .seq = 1, .epoch = b->epoch};
    /* Nobody to keep it for: when it does not fit the stranger asks again. */
    (void)pm_message_send(b->sockets[socket], m->route, m->route_bytes, &h, &refuse, NULL, 0, NULL);
}

/* ---- processes that end ---- */

void pm_conn_watch_exit(struct pm_broker *b, struct pm_conn *c)
{
    if (c->is_remote || strcmp(c->host, b->host) || !c->pid || c->pid > INT32_MAX)
        return;
    c->pidfd = (int)syscall(SYS_pidfd_open, (pid_t)c->pid, 0);
    if (c->pidfd < 0)
        return; /* another pid namespace, perhaps: silence and beats tell as well */
    fcntl(c->pidfd, F_SETFD, FD_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = c->id};
    epoll_ctl(b->epoll_fd, EPOLL_CTL_ADD, c->pidfd, &e);
}

void pm_conn_exits(struct pm_broker *b)
{
    struct epoll_event events[64];
    int n = epoll_wait(b->epoll_fd, events, 64, 0);
    for (int i = 0; i < n; i++) {
        struct pm_conn *c = NULL;
        if (!events[i].data.u64) {
            pm_gate_keys_changed(b);
            continue;
        }
        for (size_t k = 0; k < b->conn_count && !c; k++)
            if (b->conns[k]->id == events[i].data.u64)
                c = b->conns[k];
        if (!c || c->is_dead)
            continue;
        enum pm_peer_end how = pm_deaths_how(b, c);
        uint32_t held = pm_sched_peer_leases(b->sched, c->peer);
        pm_log(held ? PM_LOG_WARNING : PM_LOG_INFO, "%s ended name=%s pid=%llu leases=%u %s",
               pm_role_name(c->role), c->name, (unsigned long long)c->pid, held,
               how == PM_PEER_CRASHED ? "crashed" : "");
        pm_count(b, PM_COUNT_peers_gone);
        pm_sched_peer_end(b->sched, b->now, c->peer, how);
        pm_conn_cut(b, c);
    }
}
