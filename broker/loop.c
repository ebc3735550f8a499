/* The loop: receive, decide, commit, send. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "broker/broker.h"
#include "broker/gate.h"
#include "broker/known.h"

#define HOUSEKEEPING_US 1000000
#define PING_US         10000000
#define GIVE_UP_US      30000000 /* a service that cannot be reached and whose process cannot be watched */
#define EXPIRE_MOST     64

enum { POLL_SIGNAL = PM_SOCKET_NET, POLL_EXITS, POLL_GATE, POLL_MORE, POLL_MOST = POLL_MORE + 4 };

/* ---- commit ---- */

#define ROOM_MS 200

/* A moment's wait. False when a signal, or the end of the process that started us, says not to. */
static bool wait_for_room(struct pm_broker *b)
{
    struct pollfd fds[] = {{.fd = b->signal_fd, .events = POLLIN}, {.fd = b->parent_fd, .events = POLLIN}};
    return poll(fds, 2, ROOM_MS) == 0;
}

int pm_broker_commit(struct pm_broker *b, struct pm_error *err)
{
    struct pm_actions *a = pm_sched_actions(b->sched);
    if (!a->op_count)
        return 0;
    int64_t start_us = pm_clock_us();
    int rc = pm_journal_apply(b->journal, a->ops, a->op_count, err);
    if (rc == PM_ENOSPC) {
        pm_count(b, PM_COUNT_journal_full);
        b->is_full = true;
        pm_sched_disk_full(b->sched, true);
        if (pm_space_release(b)) {
            pm_log(PM_LOG_WARNING, "the disk is full: the reserve is given up");
            rc = pm_journal_apply(b->journal, a->ops, a->op_count, err);
        }
        /* Nothing of this turn has been told to anybody: it can wait as long as it has to. */
        if (rc == PM_ENOSPC)
            pm_log(PM_LOG_ERROR, "%s: waiting for room", err ? err->text : "the disk is full");
        while (rc == PM_ENOSPC && wait_for_room(b)) {
            b->now.us = pm_clock_us();
            pm_serve_turn(b); /* this is when people look */
            rc = pm_journal_apply(b->journal, a->ops, a->op_count, err);
        }
        if (!rc)
            pm_log(PM_LOG_INFO, "the journal is written again");
    }
    if (rc) {
        /* What the scheduler knows and what the file says differ now: only a restart mends that. */
        b->is_stopping = true;
        return rc;
    }
    pm_count(b, PM_COUNT_journal_commits);
    pm_histogram_add(&b->metrics->sync, pm_clock_us() - start_us);
    pm_times_follow(b->times, b->now.wall_us, a->ops, a->op_count);
    a->op_count = 0;
    pm_sched_written(b->sched);
    return 0;
}

static void kill_peer(struct pm_broker *b, uint32_t peer)
{
    struct pm_conn *c = pm_conn_of_peer(b, peer);
    if (!c || c->pidfd < 0)
        return;
    pm_log(PM_LOG_WARNING, "%s is wedged, killed name=%s pid=%llu", pm_role_name(c->role), c->name,
           (unsigned long long)c->pid);
    syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
}

/* What may be seen by others, now that it is written. Sending may decide more (a lease that did not leave):
 * that collects in the scheduler's other list. */
static void carry_out(struct pm_broker *b)
{
    struct pm_actions *live = pm_sched_actions(b->sched), now = *live;
    *live = b->spare;
    for (size_t i = 0; i < now.item_count; i++) {
        const struct pm_action *a = &now.items[i];
        if (a->kind == PM_ACTION_EVENT) {
            pm_events_take(b, a);
        } else if (a->kind == PM_ACTION_KILL) {
            kill_peer(b, a->peer);
        } else if (a->kind == PM_ACTION_REVOKE) {
            struct pm_conn *c = pm_conn_of_peer(b, a->peer);
            struct pm_msg_revoke m = {.task = a->task, .attempt = a->attempt, .reason = a->reason};
            if (c)
                pm_conn_send(b, c, PM_MSG_REVOKE, &m);
        }
    }
    /* Answers before leases: a WELCOME must come first. */
    pm_conn_flush_all(b);
    for (size_t i = 0; i < now.item_count; i++)
        if (now.items[i].kind == PM_ACTION_LEASE)
            pm_lease_send(b, &now.items[i]);
    pm_actions_clear(&now);
    b->spare = now;
}

/* ---- receiving ---- */

static int receive(struct pm_broker *b, int socket, struct pm_error *err)
{
    size_t bytes = 0;
    int64_t until = socket == PM_SOCKET_WORK ? INT64_MAX : pm_clock_us() + PM_TURN_CLIENTS_US;
    for (unsigned i = 0; i < PM_TURN_MESSAGES && bytes < PM_TURN_BYTES && !b->is_stopping; i++) {
        if (i && until != INT64_MAX && pm_clock_us() > until)
            return 0; /* requests that take long must not keep the services waiting */
        struct pm_message m;
        struct pm_error bad;
        int rc = pm_message_receive(b->sockets[socket], pm_gate_how(b, socket), &b->arena, &m, &bad);
        if (rc == PM_EAGAIN)
            return 0;
        if (!rc || rc == PM_EPROTO)
            pm_gate_took(b, socket, &m);
        if (rc == PM_EPROTO) {
            pm_count(b, PM_COUNT_malformed_messages);
            pm_log(PM_LOG_DEBUG, "malformed message: %s", bad.text);
            if (pm_gate_breach(b, socket, &m, PM_BREACH_MALFORMED, bad.text) && m.route_bytes)
                pm_refuse_stranger(b, socket, &m, 0, rc, bad.text);
            continue;
        }
        if (rc) {
            if (err)
                *err = bad;
            return rc;
        }
        bytes += m.payload.size + 1024;
        pm_route(b, socket, &m);
    }
    return 0;
}

/* ---- stopping ---- */

void pm_broker_drain(struct pm_broker *b)
{
    if (b->is_draining)
        return;
    b->is_draining = true;
    b->drain_until_us = b->now.us + b->config.drain_us;
    pm_sched_drain(b->sched, true);
    pm_log(PM_LOG_INFO, "draining leases=%zu", pm_sched_lease_count(b->sched));
}

static void take_signals(struct pm_broker *b)
{
    struct signalfd_siginfo info;
    while (read(b->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP) { /* leases in hand go on: their holders show them to the next broker */
            pm_log(PM_LOG_INFO, "making room for another broker leases=%zu", pm_sched_lease_count(b->sched));
            b->is_stopping = b->is_replaced = true;
            return;
        }
        if (b->is_draining)
            b->is_stopping = true;
        pm_broker_drain(b);
    }
}

static void say_goodbye(struct pm_broker *b)
{
    struct pm_msg_goodbye bye = {.reason = b->is_replaced ? "the broker restarts" : "the broker stops"};
    for (size_t i = 0; i < b->conn_count; i++) {
        pm_conn_flush(b, b->conns[i]);
        pm_conn_send_now(b, b->conns[i], PM_MSG_GOODBYE, &bye, (struct pm_bytes){0}, NULL);
    }
    /* LINGER is 0: give the I/O thread a moment to write what it was handed. */
    usleep(20000);
}

/* ---- what is done now and then ---- */

static void look_after_conns(struct pm_broker *b)
{
    for (size_t i = 0; i < b->conn_count; i++) {
        struct pm_conn *c = b->conns[i];
        int64_t silent = b->now.us - c->heard_us;
        if (c->is_dead || silent < PING_US)
            continue;
        /* Over tcp the end of the connection is seen; it had PING_US to come again. */
        bool is_gone = silent > GIVE_UP_US || c->lost_us;
        if (c->peer && c->is_unreachable && c->pidfd < 0 && is_gone) {
            pm_log(PM_LOG_WARNING, "%s is gone name=%s", pm_role_name(c->role), c->name);
            pm_count(b, PM_COUNT_peers_gone);
            pm_sched_peer_end(b->sched, b->now, c->peer, PM_PEER_KILLED);
            pm_conn_cut(b, c);
        } else if (b->now.us - c->pinged_us >= PING_US) {
            /* Whoever has left is noticed when this cannot be sent. */
            struct pm_msg_ping ping = {.ref = (uint64_t)b->now.us};
            c->pinged_us = b->now.us;
            if (!c->out_count)
                pm_conn_send(b, c, PM_MSG_PING, &ping);
        }
    }
}

static void expire(struct pm_broker *b)
{
    for (int i = 0; i < EXPIRE_MOST && b->config.result_ttl_us; i++) {
        uint64_t job = pm_sched_expired(b->sched, b->now, b->config.result_ttl_us);
        if (!job || pm_sched_forget(b->sched, job, NULL))
            return;
        pm_count(b, PM_COUNT_jobs_expired);
    }
}

static void keep_house(struct pm_broker *b)
{
    if (b->now.us - b->housekeeping_us < HOUSEKEEPING_US)
        return;
    b->housekeeping_us = b->now.us;
    pm_space_check(b);
    pm_gate_keep(b);
    look_after_conns(b);
    pm_serve_turn(b); /* connections that are silent for too long */
    expire(b);
    pm_known_expire(b);
}

/* ---- the turn ---- */

static long wait_ms(const struct pm_broker *b)
{
    int64_t now = pm_clock_us(), until = b->housekeeping_us + HOUSEKEEPING_US;
    int64_t sched = pm_sched_next_us(b->sched, b->now), events = pm_events_next_us(b);
    int64_t pages = pm_serve_next_us(b);
    const struct pm_actions *a = pm_sched_actions(b->sched);
    if (a->op_count || a->item_count || b->bulks)
        return 0;
    until = sched < until ? sched : until;
    until = events < until ? events : until;
    until = pages < until ? pages : until;
    int64_t chores = pm_chores_next_us(b);
    until = chores < until ? chores : until;
    if (b->is_draining)
        until = now + 20000 < until ? now + 20000 : until;
    return until <= now ? 0 : (long)((until - now + 999) / 1000);
}

static int turn(struct pm_broker *b, struct pm_error *err)
{
    zmq_pollitem_t items[POLL_MOST] = {
        {.socket = b->sockets[PM_SOCKET_WORK], .events = ZMQ_POLLIN},
        {.socket = b->sockets[PM_SOCKET_CLIENT], .events = ZMQ_POLLIN},
        {.fd = b->signal_fd, .events = ZMQ_POLLIN},
        {.fd = b->epoll_fd, .events = ZMQ_POLLIN},
        {.socket = pm_gate_socket(b), .events = ZMQ_POLLIN},
    };
    int count = POLL_MORE, parent = POLL_MOST - 1; /* zmq_poll skips no descriptors: only what is there */
    int pages = POLL_MOST - 1, pages_fd = pm_serve_fd(b);
    if (b->config.deaths_fd >= 0)
        items[count++] = (zmq_pollitem_t){.fd = b->config.deaths_fd, .events = ZMQ_POLLIN};
    if (b->sockets[PM_SOCKET_NET])
        items[count++] = (zmq_pollitem_t){.socket = b->sockets[PM_SOCKET_NET], .events = ZMQ_POLLIN};
    if (b->parent_fd >= 0)
        items[parent = count++] = (zmq_pollitem_t){.fd = b->parent_fd, .events = ZMQ_POLLIN};
    if (pages_fd >= 0)
        items[pages = count++] = (zmq_pollitem_t){.fd = pages_fd, .events = ZMQ_POLLIN};
    int woken = zmq_poll(items, count, wait_ms(b));
    if (woken < 0 && errno != EINTR)
        return pm_fail(err, PM_EIO, "cannot wait for messages: %s", zmq_strerror(errno));
    b->now = (struct pm_now){pm_clock_us(), pm_wall_us()};
    if (b->parent_fd >= 0 && items[parent].revents) {
        pm_log(PM_LOG_INFO, "the process that started this broker is gone");
        b->is_stopping = true;
    }
    take_signals(b);
    if (items[POLL_GATE].revents)
        pm_gate_serve(b);
    int rc = receive(b, PM_SOCKET_WORK, err);
    if (!rc)
        rc = receive(b, PM_SOCKET_CLIENT, err);
    if (!rc && b->sockets[PM_SOCKET_NET])
        rc = receive(b, PM_SOCKET_NET, err);
    if (rc)
        return rc;
    if (items[POLL_EXITS].revents)
        pm_conn_exits(b); /* after their last messages were read */
    pm_deaths_read(b);
    pm_sched_tick(b->sched, b->now);
    keep_house(b);
    rc = pm_bulk_go_on(b, err);
    if (rc)
        return rc;
    pm_sched_assign(b->sched, b->now);
    rc = pm_broker_commit(b, err);
    if (rc)
        return rc;
    carry_out(b);
    pm_conn_bury(b);
    pm_awaited_write(b);
    pm_arena_clear(&b->arena);
    rc = pm_chores(b, !woken, err);
    if (rc)
        return rc;
    if (pages_fd >= 0 && (items[pages].revents || pm_serve_next_us(b) <= b->now.us))
        pm_serve_turn(b);
    b->metrics->turns++;
    b->metrics->busy_us += (uint64_t)(pm_clock_us() - b->now.us);
    if (b->is_draining && (!pm_sched_lease_count(b->sched) || b->now.us > b->drain_until_us))
        b->is_stopping = true;
    return 0;
}

int pm_broker_run(struct pm_broker *b, struct pm_error *err)
{
    int rc = 0;
    while (!rc && !b->is_stopping)
        rc = turn(b, err);
    if (rc)
        return rc;
    rc = pm_broker_commit(b, err);
    if (!rc)
        say_goodbye(b);
    return rc;
}
