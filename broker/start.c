/* Everything up to the first turn: directories, locks, recovery, sockets. And the end. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/host.h"
#include "broker/broker.h"
#include "broker/gate.h"
#include "broker/known.h"

#define ROOM_PATIENCE_US 8000000

static const char *const counter_names[] = {
#define X(name) #name,
    PM_COUNTERS(X)
#undef X
};

const char *pm_counter_name(enum pm_counter_id id)
{
    return counter_names[id];
}

/* ---- directories and locks ---- */

/* Ours, and closed to others: the file mode is what keeps strangers off the sockets. */
static int private_dir(const char *dir, struct pm_error *err)
{
    struct stat st;
    int rc = pm_fs_mkdir_durable(dir, 0700, err);
    if (rc)
        return rc;
    if (stat(dir, &st))
        return pm_fail_errno(err, "cannot look at %s", dir);
    if (st.st_uid != geteuid())
        return pm_fail(err, PM_EDENIED,
                       "%s belongs to user %u, not to this one (%u): choose another directory", dir,
                       (unsigned)st.st_uid, (unsigned)geteuid());
    if (st.st_mode & 077)
        return pm_fail(err, PM_EDENIED, "%s is open to other users (mode %o): chmod 700 it first", dir,
                       (unsigned)(st.st_mode & 0777));
    return 0;
}

/* Held until the process ends, however it ends. The file stays: removing it would let two processes lock two
 * files of one name. */
static int lock_dir(const char *dir, const char *name, int *fd_out, struct pm_error *err)
{
    char *path = pm_fs_join(dir, name), pid[32] = "";
    int rc = 0, fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        rc = pm_fail_errno(err, "cannot open %s", path);
    } else if (flock(fd, LOCK_EX | LOCK_NB)) {
        if (errno == EWOULDBLOCK) {
            ssize_t n = read(fd, pid, sizeof pid - 1);
            pid[n > 0 ? n : 0] = 0;
            pid[strcspn(pid, "\n")] = 0;
            rc = pm_fail(err, PM_EBUSY,
                         "another broker (process %s) uses %s: stop it, or choose another directory",
                         *pid ? pid : "?", dir);
        } else {
            rc = pm_fail_errno(err, "cannot lock %s", path);
        }
        close(fd);
        fd = -1;
    } else if (ftruncate(fd, 0) || dprintf(fd, "%d\n", (int)getpid()) < 0) {
        pm_log(PM_LOG_DEBUG, "cannot write the process number to %s", path);
    }
    free(path);
    *fd_out = fd;
    return rc;
}

/* ---- recovery ---- */

struct recovery {
    struct pm_broker *b;
    size_t jobs, live;
};

static int restore_job(void *ctx, const struct pm_job_image *image, struct pm_error *err)
{
    struct recovery *r = ctx;
    r->jobs++;
    pm_journal_refs_of_job(r->b->journal, image, pm_refs_change, r->b);
    r->live += image->info.state <= PM_JOB_RUNNING;
    return pm_sched_restore(r->b->sched, r->b->now, image, err);
}

struct lost_sheets {
    struct pm_broker *b;
    struct lost_sheet {
        uint64_t job;
        uint32_t page;
    } * items;
    size_t count, capacity;
};

static void check_sheet(void *ctx, uint64_t job, uint32_t page, const char *sheet)
{
    struct lost_sheets *l = ctx;
    if (!*sheet || pm_blob_exists(l->b->blobs, sheet, NULL))
        return;
    PM_GROW(l->items, l->count, l->capacity);
    l->items[l->count++] = (struct lost_sheet){job, page};
}

static int recover(struct pm_broker *b, struct pm_error *err)
{
    struct recovery r = {.b = b};
    struct lost_sheets lost = {.b = b};
    pm_journal_on_ref(b->journal, pm_refs_change, b);
    int rc = pm_journal_refs_of_pages(b->journal, pm_refs_change, b, err);
    if (!rc)
        rc = pm_known_open(b, err);
    if (!rc)
        rc = pm_journal_load(b->journal, restore_job, &r, err);
    if (rc)
        return rc;
    pm_sched_sheets(b->sched, check_sheet, &lost);
    for (size_t i = 0; i < lost.count; i++)
        pm_sched_page_lost(b->sched, b->now, lost.items[i].job, lost.items[i].page);
    if (lost.count)
        pm_log(PM_LOG_WARNING, "crop sheets are gone, their pages are laid out again pages=%zu", lost.count);
    free(lost.items);
    if (r.jobs)
        pm_log(PM_LOG_INFO, "recovered jobs=%zu unfinished=%zu epoch=%llu", r.jobs, r.live,
               (unsigned long long)b->epoch);
    pm_refs_sweep_begin(b);
    return pm_broker_commit(b, err);
}

static int load_job(void *ctx, uint64_t job, struct pm_job_image *out, struct pm_error *err)
{
    struct pm_broker *b = ctx;
    int rc = pm_journal_job_row(b->journal, job, &b->arena, out, err);
    if (rc)
        pm_log(PM_LOG_ERROR, "cannot read a job back job=%llu: %s", (unsigned long long)job, err->text);
    return rc;
}

static int try_journal(struct pm_broker *b, const char *path, struct pm_error *err)
{
    int rc = pm_journal_open(path, NULL, &b->journal, err);
    if (!rc)
        rc = pm_journal_begin_epoch(b->journal, &b->epoch, err);
    if (rc)
        pm_journal_free(&b->journal);
    return rc;
}

/* The first writes. On a full disk the reserve helps; otherwise a little patience, so that a supervisor sees
 * a broker that waits for room and not one that dies again and again. */
static int open_journal(struct pm_broker *b, const char *path, struct pm_error *err)
{
    int rc = try_journal(b, path, err);
    if (rc == PM_ENOSPC && pm_space_release(b))
        rc = try_journal(b, path, err);
    if (rc == PM_ENOSPC)
        pm_log(PM_LOG_ERROR, "%s: waiting for room", err->text);
    for (int64_t until = pm_clock_us() + ROOM_PATIENCE_US; rc == PM_ENOSPC && pm_clock_us() < until;) {
        struct pollfd signals = {.fd = b->signal_fd, .events = POLLIN};
        if (poll(&signals, 1, 200))
            break;
        rc = try_journal(b, path, err);
    }
    return rc;
}

static int open_state(struct pm_broker *b, struct pm_error *err)
{
    const struct pm_broker_config *c = &b->config;
    uint64_t next_job = 1, seed = 0;
    char *blob_dir = pm_fs_join(c->state_dir, "blobs"), *path = pm_fs_join(c->state_dir, "journal.db");
    int rc = pm_blobs_open(blob_dir, c->pixel_dir, &b->blobs, err);
    if (!rc)
        rc = pm_blobs_prepare(b->blobs, err);
    if (!rc)
        rc = open_journal(b, path, err);
    if (!rc)
        rc = pm_journal_next_job(b->journal, &next_job, err);
    if (!rc && getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        rc = pm_fail_errno(err, "cannot get random bytes");
    free(blob_dir);
    free(path);
    if (rc)
        return rc;
    struct pm_sched_config s = {.epoch = b->epoch,
                                .seed = seed,
                                .first_job = next_job,
                                .max_jobs = c->max_jobs,
                                .pixel_budget_bytes = c->pixel_budget_bytes,
                                .stall_us = c->stall_us,
                                .adopt_us = c->adopt_us,
                                .load = load_job,
                                .load_ctx = b};
    pm_strmap_seed(&b->by_route, seed ^ 0x9e3779b97f4a7c15u);
    b->sched = pm_sched_new(&s);
    b->refs = pm_refs_new();
    b->deaths = pm_deaths_new();
    b->metrics = pm_metrics_new();
    b->times = pm_times_new();
    struct pm_error space;
    if (pm_space_reserve(b, &space))
        pm_log(PM_LOG_WARNING, "no reserve for a full disk: %s", space.text);
    pm_space_check(b);
    return recover(b, err);
}

/* ---- sockets and signals ---- */

/* One ROUTER for services and clients: the role of the key decides. */
static int listen_on_network(struct pm_broker *b, struct pm_error *err)
{
    void *s = b->sockets[PM_SOCKET_NET] = zmq_socket(b->zmq, ZMQ_ROUTER);
    char *list = pm_xstrdup(b->config.listen), *rest = list, *endpoint;
    int rc = s ? pm_socket_options(s, ZMQ_ROUTER, err)
               : pm_fail(err, PM_EIO, "cannot make a socket: %s", zmq_strerror(errno));
    if (!rc)
        rc = pm_gate_guard(b, PM_SOCKET_NET, err);
    while (!rc && (endpoint = strsep(&rest, ","))) {
        char bound[256] = "";
        size_t size = sizeof bound;
        int wants_v6 = strlen(endpoint) > 6 && (endpoint[6] == '*' || endpoint[6] == '[');
        (void)zmq_setsockopt(s, ZMQ_IPV6, &wants_v6, sizeof wants_v6);
        if (strncmp(endpoint, "tcp://", 6) != 0)
            rc = pm_fail(err, PM_EINVAL, "--listen wants tcp://HOST:PORT, not \"%.100s\"", endpoint);
        else if (zmq_bind(s, endpoint))
            rc = pm_fail(err, PM_EINVAL, "cannot listen on %s: %s", endpoint, zmq_strerror(errno));
        else if (!zmq_getsockopt(s, ZMQ_LAST_ENDPOINT, bound, &size))
            pm_log(PM_LOG_INFO, "listening endpoint=%s", bound);
    }
    free(list);
    return rc;
}

static int open_sockets(struct pm_broker *b, struct pm_error *err)
{
    static const char *const names[] = {"work.sock", "client.sock"};
    b->zmq = zmq_ctx_new();
    if (!b->zmq)
        return pm_fail(err, PM_ENOMEM, "cannot start ZeroMQ: %s", zmq_strerror(errno));
    zmq_ctx_set(b->zmq, ZMQ_MAX_SOCKETS, 64);
    int rc = pm_gate_open(b, err);
    for (int i = 0; i < PM_SOCKET_NET && !rc; i++) {
        char *endpoint = pm_xprintf("ipc://%s/%s", b->config.run_dir, names[i]);
        rc = pm_endpoint_check(endpoint, err);
        if (!rc && !(b->sockets[i] = zmq_socket(b->zmq, ZMQ_ROUTER)))
            rc = pm_fail(err, PM_EIO, "cannot make a socket: %s", zmq_strerror(errno));
        if (!rc)
            rc = pm_socket_options(b->sockets[i], ZMQ_ROUTER, err);
        if (!rc)
            rc = pm_gate_guard(b, i, err);
        /* A socket that outlives the broker: while another one starts, connections wait in its queue. */
        int given = b->config.listen_fds[i];
        if (!rc && given >= 0 && zmq_setsockopt(b->sockets[i], ZMQ_USE_FD, &given, sizeof given))
            rc = pm_fail_errno(err, "cannot serve on descriptor %d", given);
        if (!rc && zmq_bind(b->sockets[i], endpoint))
            rc = pm_fail_errno(err, "cannot bind %s", endpoint);
        free(endpoint);
    }
    return rc || !b->config.listen ? rc : listen_on_network(b, err);
}

static int open_signals(struct pm_broker *b, struct pm_error *err)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGHUP);
    signal(SIGPIPE, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &mask, NULL) ||
        (b->signal_fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC)) < 0)
        return pm_fail_errno(err, "cannot take signals");
    b->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (b->epoll_fd < 0)
        return pm_fail_errno(err, "cannot make an epoll descriptor");
    if (b->config.parent_pid) {
        b->parent_fd = (int)syscall(SYS_pidfd_open, b->config.parent_pid, 0);
        if (b->parent_fd < 0)
            return pm_fail_errno(err, "the parent process %d cannot be watched", b->config.parent_pid);
        fcntl(b->parent_fd, F_SETFD, FD_CLOEXEC);
    }
    if (b->config.deaths_fd >= 0 &&
        (fcntl(b->config.deaths_fd, F_SETFD, FD_CLOEXEC) || fcntl(b->config.deaths_fd, F_SETFL, O_NONBLOCK)))
        return pm_fail_errno(err, "descriptor %d cannot be read", b->config.deaths_fd);
    return 0;
}

static void say_ready(struct pm_broker *b)
{
    if (b->config.ready_fd < 0)
        return;
    if (write(b->config.ready_fd, "1", 1) != 1)
        pm_log(PM_LOG_WARNING, "nobody waits for this broker on descriptor %d", b->config.ready_fd);
    close(b->config.ready_fd);
    b->config.ready_fd = -1;
}

int pm_broker_open(const struct pm_broker_config *config, struct pm_broker **out, struct pm_error *err)
{
    struct pm_broker *b = pm_xalloc(sizeof *b);
    b->config = *config;
    for (int i = 0; i < PM_SOCKET_NET; i++)
        if (config->listen_fds[i] >= 0)
            fcntl(config->listen_fds[i], F_SETFD, FD_CLOEXEC);
    b->epoll_fd = b->signal_fd = b->parent_fd = b->lock_fds[0] = b->lock_fds[1] = -1;
    b->host = pm_host_id();
    b->now = (struct pm_now){pm_clock_us(), pm_wall_us()};
    b->started_us = b->space_us = b->now.us;
    b->sweep_us = b->now.us - PM_SWEEP_US + 65000000; /* what was too young for the sweep at the start */
    int rc = private_dir(config->state_dir, err);
    if (!rc)
        rc = private_dir(config->run_dir, err);
    if (!rc)
        rc = lock_dir(config->state_dir, "state.lock", &b->lock_fds[0], err);
    if (!rc)
        rc = lock_dir(config->run_dir, "run.lock", &b->lock_fds[1], err);
    if (!rc)
        rc = open_signals(b, err); /* before ZeroMQ: its threads inherit the mask */
    if (!rc)
        rc = open_state(b, err);
    if (!rc)
        rc = open_sockets(b, err);
    if (!rc)
        rc = pm_serve_open(b, err);
    if (rc) {
        pm_broker_free(&b);
        return rc;
    }
    pm_awaited_read(b);
    say_ready(b);
    *out = b;
    return 0;
}

void pm_broker_free(struct pm_broker **broker)
{
    struct pm_broker *b = *broker;
    if (!b)
        return;
    for (size_t i = 0; i < b->conn_count; i++)
        pm_conn_cut(b, b->conns[i]);
    pm_conn_bury(b);
    bool had_sockets = b->sockets[PM_SOCKET_CLIENT] != NULL;
    for (int i = 0; i < PM_SOCKET_COUNT; i++)
        if (b->sockets[i])
            zmq_close(b->sockets[i]);
    pm_gate_free(b);
    if (b->zmq)
        zmq_ctx_term(b->zmq);
    if (had_sockets) { /* libzmq removes them too, but not in every version */
        static const char *const names[] = {"work.sock", "client.sock", "services"};
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
            if (i < PM_SOCKET_NET ? b->config.listen_fds[i] >= 0 : b->is_replaced)
                continue; /* whoever made the sockets removes them; the next broker reads the services */
            char *path = pm_fs_join(b->config.run_dir, names[i]);
            unlink(path);
            free(path);
        }
    }
    pm_http_free(&b->http);
    pm_metrics_free(&b->metrics);
    pm_times_free(&b->times);
    pm_sched_free(&b->sched);
    pm_journal_free(&b->journal);
    pm_refs_free(&b->refs);
    pm_deaths_free(&b->deaths);
    pm_bulk_free(b);
    pm_blobs_free(&b->blobs);
    pm_actions_free(&b->spare);
    pm_known_free(b);
    pm_strmap_free(&b->by_route);
    free(b->conns);
    free(b->waiting);
    pm_map_free(&b->by_peer);
    free(b->awaited);
    free(b->host);
    pm_arena_free(&b->arena);
    pm_buf_free(&b->scratch);
    const int fds[] = {b->epoll_fd, b->signal_fd, b->parent_fd, b->lock_fds[0], b->lock_fds[1]};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(b);
    *broker = NULL;
}
