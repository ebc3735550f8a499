#include "client/cli/fleet.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/domains.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/supervise.h"
#include "client/cli/control.h"
#include "client/cli/locate.h"
#include "client/cli/notify.h"
#include "client/cli/rolling.h"
#include "engine/manifest.h"

#define GIVE_UP_AFTER    10
#define STOP_PATIENCE_US 2000000 /* services after SIGTERM, before SIGKILL */
#define START_PATIENCE_US                                                                                    \
    120000000 /* a successor's, until the broker has welcomed it: large weights on a slow disk */
#define ARGUMENTS_MOST 64

enum phase {
    RUNNING,
    DRAINING, /* broker told to stop, services still working */
    STOPPING, /* everybody told to stop */
    KILLING
};
enum { FD_SIGNAL, FD_LIFE, FD_READY, FD_JOINED, FD_CONTROL, FD_COUNT = FD_CONTROL + PM_CONTROL_FDS };

struct run {
    const struct pm_fleet *fleet;
    struct pm_supervise *set;
    size_t broker;
    enum phase phase;
    int64_t phase_until_us;
    struct pollfd fds[FD_COUNT];
    int ready_write_fd;
    int deaths_fds[2]; /* how services ended, told to the broker */
    int joined_fds[2]; /* lines of process numbers: services that the broker has welcomed */
    char joined[32];   /* such a line, being read */
    size_t joined_bytes;
    int listen_fds[2]; /* of the broker's sockets, kept over its restarts */
    bool was_ready, has_terminal;
    uint64_t restarts; /* deaths that were answered with a new start */
    struct pm_control control;
    struct pm_rolling rolling;
    struct pm_notify notify;
    int rc;
    struct pm_error *err;
};

/* ---- what to start ---- */

struct arguments {
    char *items[ARGUMENTS_MOST + 1]; /* owned */
    size_t count;
};

static void put(struct arguments *a, const char *text)
{
    PM_ASSERT(a->count < ARGUMENTS_MOST);
    a->items[a->count++] = pm_xstrdup(text);
}

static void put_pair(struct arguments *a, const char *option, const char *value)
{
    put(a, option);
    put(a, value);
}

static void put_number(struct arguments *a, const char *option, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    put_pair(a, option, text);
}

static int add_service(struct run *r, const char *program, const char *name, struct arguments *a,
                       const int *keep_fds, size_t keep_count, bool has_threads, size_t *index_out,
                       struct pm_error *err)
{
    /* One thread a process: several thread pools on the same cores cost several times the speed. */
    static const char *const environment[] = {"OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1",
                                              "OMP_THREAD_LIMIT=1", NULL};
    char *path = NULL;
    int rc = pm_locate_program(program, &path, err);
    if (!rc) {
        struct pm_service service = {.name = name,
                                     .spawn = {.path = path,
                                               .argv = (const char *const *)a->items,
                                               .set_env = has_threads ? NULL : environment,
                                               .keep_fds = keep_fds,
                                               .keep_count = keep_count,
                                               .stdin_fd = -1,
                                               .stdout_fd = STDERR_FILENO,
                                               .die_with_parent = true,
                                               .own_group = true},
                                     .capture_stderr = true,
                                     .give_up_after = GIVE_UP_AFTER,
                                     .tells_ready = true,
                                     .is_finished_on_zero = !strcmp(program, "pagemill-broker")};
        size_t index = pm_supervise_add(r->set, &service);
        if (index_out)
            *index_out = index;
    }
    for (size_t i = 0; i < a->count; i++)
        free(a->items[i]);
    free(path);
    return rc;
}

static int add_broker(struct run *r, struct pm_error *err)
{
    const struct pm_fleet *f = r->fleet;
    struct arguments a = {0};
    int *keep = pm_xalloc((f->keep_count + 4) * sizeof *keep);
    if (f->keep_count)
        memcpy(keep, f->keep_fds, f->keep_count * sizeof *keep);
    keep[f->keep_count] = r->ready_write_fd;
    keep[f->keep_count + 1] = r->deaths_fds[0];
    keep[f->keep_count + 2] = r->listen_fds[0];
    keep[f->keep_count + 3] = r->listen_fds[1];
    put(&a, "pagemill-broker");
    put_pair(&a, "--state", f->state_dir);
    put_pair(&a, "--run", f->run_dir);
    put_pair(&a, "--pixels", f->pixel_dir);
    if (f->metrics)
        put_pair(&a, "--metrics", f->metrics);
    if (f->listen)
        put_pair(&a, "--listen", f->listen);
    const struct {
        const char *option;
        uint32_t value; /* 0: the broker's default */
    } numbers[] = {{"--pixel-budget", f->pixel_budget_mb},
                   {"--result-ttl", f->result_ttl_s},
                   {"--max-jobs", f->max_jobs},
                   {"--min-free", f->min_free_mb},
                   {"--max-store", f->max_store_mb},
                   {"--remember", f->remember_s},
                   {"--remember-mb", f->remember_mb}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (numbers[i].value)
            put_number(&a, numbers[i].option, numbers[i].value);
    put_number(&a, "--drain", f->drain_s);
    put_number(&a, "--ready-fd", (uint64_t)r->ready_write_fd);
    put_number(&a, "--deaths-fd", (uint64_t)r->deaths_fds[0]);
    put_number(&a, "--work-fd", (uint64_t)r->listen_fds[0]);
    put_number(&a, "--client-fd", (uint64_t)r->listen_fds[1]);
    put_pair(&a, "--log-level", f->log_level);
    int rc =
        add_service(r, "pagemill-broker", "broker", &a, keep, f->keep_count + 4u, false, &r->broker, err);
    free(keep);
    return rc;
}

/* Layout detection works with the networks of the line reader. */
static int put_layoutd(const struct pm_fleet *f, struct arguments *a, struct pm_error *err)
{
    char *decoder = NULL;
    struct pm_model_manifest model;
    int rc = pm_model_find_family(f->models, "ppocr", &model, err);
    if (!rc) {
        put_pair(a, "--model", model.dir);
        put_pair(a, "--models", f->models);
        rc = pm_locate_program("pagemill-decode", &decoder, err);
    }
    if (!rc)
        put_pair(a, "--decode", decoder);
    free(decoder);
    pm_model_manifest_free(&model);
    return rc;
}

/* reader: of workers, else NULL. first: the number in the first one's name. */
static int add_kind(struct run *r, const char *program, const char *kind, uint32_t first, uint32_t count,
                    const struct pm_fleet_reader *reader, struct pm_error *err)
{
    const struct pm_fleet *f = r->fleet;
    int rc = 0, *keep = pm_xalloc((f->keep_count + 1) * sizeof *keep);
    struct pm_domain domains[PM_DOMAINS_MOST];
    int domain_count = reader && reader->is_pinned ? pm_domains(domains) : 0;
    char *endpoint = f->join ? pm_xstrdup(f->join) : pm_xprintf("ipc://%s/work.sock", f->run_dir);
    char host[64] = "";
    if (f->join && (gethostname(host + 1, sizeof host - 2) == 0) && host[1])
        host[0] = '@'; /* the broker's lists show workers of several hosts */
    if (f->keep_count)
        memcpy(keep, f->keep_fds, f->keep_count * sizeof *keep);
    keep[f->keep_count] = r->joined_fds[1];
    for (uint32_t i = first; i < first + count && !rc; i++) {
        struct arguments a = {0};
        char *name = pm_xprintf("%s-%u", kind, i);
        put(&a, program);
        put_pair(&a, "--endpoint", endpoint);
        char *known_as = pm_xprintf("%s%s", name, host);
        put_pair(&a, "--name", known_as);
        free(known_as);
        if (f->join && f->server_key)
            put_pair(&a, "--server-key", f->server_key);
        if (f->join && f->key)
            put_pair(&a, "--key", f->key);
        put_pair(&a, "--log-level", f->log_level);
        put_number(&a, "--ready-fd", (uint64_t)r->joined_fds[1]);
        if (reader) {
            put_pair(&a, "--models", f->models);
            put_pair(&a, "--reader", reader->name);
            put_number(&a, "--threads", reader->threads);
            if ((int)(i - first) < domain_count)
                put_pair(&a, "--cpus", domains[i - first].cpus);
            if (f->credit)
                put_number(&a, "--credit", f->credit);
            if (f->kv_memory_mb)
                put_number(&a, "--kv-memory", f->kv_memory_mb);
            if (f->memory_mb)
                put_number(&a, "--memory", f->memory_mb);
            if (f->kv)
                put_pair(&a, "--kv", f->kv);
        } else if (!strcmp(kind, "layoutd")) {
            rc = put_layoutd(f, &a, err);
        }
        int added = add_service(r, program, name, &a, keep, f->keep_count + 1u, reader && reader->threads > 1,
                                NULL, err);
        rc = rc ? rc : added;
        free(name);
    }
    free(endpoint);
    free(keep);
    return rc;
}

static int add_workers(struct run *r, struct pm_error *err)
{
    const struct pm_fleet *f = r->fleet;
    uint32_t next = 1;
    int rc = 0;
    for (uint32_t i = 0; i < f->reader_count && !rc; i++) {
        rc = add_kind(r, "pagemill-worker", "worker", next, f->readers[i].workers, &f->readers[i], err);
        next += f->readers[i].workers;
    }
    return rc;
}

/* ---- telling ---- */

static void report(const struct run *r, const char *what, const char *text)
{
    if (r->fleet->report_fd < 0)
        return;
    char *line = pm_xprintf("%s%s%s\n", what, *text ? " " : "", text);
    /* The reader may be gone: that is noticed by the life pipe. */
    ssize_t ignored = write(r->fleet->report_fd, line, strlen(line));
    (void)ignored;
    free(line);
}

static void show_status(struct run *r)
{
    static const char *const doing[] = {"serving", "draining", "stopping", "stopping"};
    const char *what = !r->was_ready && r->phase == RUNNING ? "starting"
                       : pm_rolling_is_busy(&r->rolling)    ? "serving, processes are being replaced"
                                                            : doing[r->phase];
    pm_notify_status(&r->notify, "%s; %zu processes, %llu restarted after a death", what,
                     pm_supervise_alive(r->set), (unsigned long long)r->restarts);
}

/* ---- the phases of stopping ---- */

static void enter(struct run *r, enum phase phase)
{
    if (phase <= r->phase)
        return;
    r->phase = phase;
    int64_t now = pm_clock_us();
    pm_rolling_abort(&r->rolling, "the fleet stops");
    if (phase == DRAINING) {
        pm_log(PM_LOG_INFO, "draining: waiting up to %u s for work in hand", r->fleet->drain_s);
        char *patience = pm_xprintf("STOPPING=1\nEXTEND_TIMEOUT_USEC=%lld",
                                    (long long)r->fleet->drain_s * 1000000 + 2 * STOP_PATIENCE_US);
        pm_notify_send(&r->notify, patience);
        free(patience);
        pm_supervise_hold(r->set);
        if (r->broker != SIZE_MAX)
            pm_supervise_signal(r->set, r->broker, SIGTERM);
        else /* workers finish what they hold */
            pm_supervise_signal(r->set, SIZE_MAX, SIGTERM);
        r->phase_until_us = now + (int64_t)r->fleet->drain_s * 1000000;
    } else if (phase == STOPPING) {
        pm_supervise_hold(r->set);
        pm_supervise_signal(r->set, SIZE_MAX, SIGTERM);
        r->phase_until_us = now + STOP_PATIENCE_US;
        if (r->fleet->is_private)
            r->phase_until_us = now + STOP_PATIENCE_US / 10;
    } else {
        pm_supervise_signal(r->set, SIZE_MAX, SIGKILL);
        r->phase_until_us = INT64_MAX;
    }
}

static void on_fatal(struct run *r, const char *text)
{
    pm_log(PM_LOG_ERROR, "%s", text);
    if (r->phase != RUNNING)
        return;
    r->rc = pm_fail(r->err, PM_EINTERNAL, "%s", text);
    report(r, "failed", text);
    enter(r, STOPPING);
}

/* The broker sees deaths by itself; only we know how they came about (broker/deaths.c). When the pipe is full
 * it does without. */
static void tell_death(const struct run *r, const struct pm_supervise_event *e)
{
    char line[48];
    bool is_death = e->kind == PM_SUPERVISE_DIED || e->kind == PM_SUPERVISE_FINISHED ||
                    e->kind == PM_SUPERVISE_FATAL || e->kind == PM_SUPERVISE_LEFT;
    if (!is_death || e->pid <= 0 || e->index == r->broker)
        return;
    int n = snprintf(line, sizeof line, "%d %d\n", (int)e->pid, e->status);
    ssize_t ignored = write(r->deaths_fds[1], line, (size_t)n);
    (void)ignored;
}

static void on_event(struct run *r, const struct pm_supervise_event *e)
{
    tell_death(r, e);
    bool is_told = pm_rolling_event(&r->rolling, e, pm_clock_us());
    switch (is_told ? PM_SUPERVISE_NONE : e->kind) {
    case PM_SUPERVISE_NONE:
        break;
    case PM_SUPERVISE_STARTED:
        pm_log(PM_LOG_INFO, "started %s pid=%d", e->name, (int)e->pid);
        break;
    case PM_SUPERVISE_LINE: { /* already a whole log line */
        char *line = pm_xprintf("%s\n", e->text);
        if (!r->fleet->is_quiet)
            (void)pm_fs_write_all(STDERR_FILENO, line, strlen(line), NULL);
        if (r->fleet->logs)
            pm_log_files_put(r->fleet->logs, e->name, e->pid, e->text);
        free(line);
        break;
    }
    case PM_SUPERVISE_LEFT:
        pm_log(PM_LOG_INFO, "%s pid=%d has left (%s)", e->name, (int)e->pid, e->text);
        break;
    case PM_SUPERVISE_DIED:
        r->restarts += e->delay_us >= 0;
        if (e->delay_us >= 0)
            pm_log(PM_LOG_WARNING, "%s ended (%s), starting it again in %lld ms", e->name, e->text,
                   (long long)e->delay_us / 1000);
        else
            pm_log(PM_LOG_INFO, "%s ended (%s)", e->name, e->text);
        break;
    case PM_SUPERVISE_FINISHED:
        pm_log(PM_LOG_INFO, "%s finished", e->name);
        if (e->index == r->broker) /* drained, by us or by a client */
            enter(r, STOPPING);
        break;
    case PM_SUPERVISE_FATAL:
        on_fatal(r, e->text);
        break;
    }
}

/* Every process that works says so with its number: the broker when it serves, a service when it is welcomed.
 */
static void on_ready(struct run *r, pid_t pid)
{
    size_t index = pm_supervise_ready(r->set, pid);
    if (index == SIZE_MAX)
        return;
    pm_rolling_ready(&r->rolling, index, pm_clock_us());
    bool is_first = index == r->broker || r->broker == SIZE_MAX;
    if (r->was_ready || !is_first)
        return;
    r->was_ready = true;
    pm_log(PM_LOG_INFO, "ready run=%s", r->fleet->run_dir);
    report(r, "ready", "");
    pm_notify_send(&r->notify, "READY=1");
}

static void read_joined(struct run *r)
{
    char c;
    while (read(r->joined_fds[0], &c, 1) == 1) {
        if (c != '\n') {
            if (r->joined_bytes < sizeof r->joined - 1)
                r->joined[r->joined_bytes++] = c;
            continue;
        }
        r->joined[r->joined_bytes] = 0;
        r->joined_bytes = 0;
        on_ready(r, (pid_t)strtol(r->joined, NULL, 10));
    }
}

static void begin_rolling(struct run *r, int client, const char *words)
{
    struct pm_error err;
    int rc = r->phase != RUNNING ? pm_fail(&err, PM_EBUSY, "the fleet is stopping")
                                 : pm_rolling_begin(&r->rolling, words, pm_clock_us(), &err);
    if (!rc)
        pm_log(PM_LOG_INFO, "replacing %s", *words ? words : "all processes");
    else if (client < 0)
        pm_log(PM_LOG_WARNING, "%s", err.text);
    else
        pm_control_say(&r->control, client, "failed", err.text);
}

static void tell_rolling(void *context, const char *kind, const char *text)
{
    struct run *r = context;
    pm_log(strcmp(kind, "failed") ? PM_LOG_INFO : PM_LOG_ERROR, "%s", text);
    pm_control_say(&r->control, -1, kind, text);
}

static void on_request(struct run *r, int client, const char *line)
{
    size_t size = strcspn(line, " ");
    if (size == 7 && !strncmp(line, "restart", 7))
        begin_rolling(r, client, line + size + strspn(line + size, " "));
    else
        pm_control_say(&r->control, client, "failed", "the supervisor knows only: restart [NAME...]");
}

/* A second signal means it. SIGHUP asks for new processes, but from a terminal it says that the terminal is
 * gone. */
static void on_signal(struct run *r, uint32_t number)
{
    if (number == SIGHUP && !r->fleet->is_private && !r->has_terminal) {
        begin_rolling(r, -1, "");
        return;
    }
    enter(r, r->phase == RUNNING ? (r->fleet->is_private ? STOPPING : DRAINING) : KILLING);
}

static void on_descriptors(struct run *r)
{
    char bytes[64];
    const char *line;
    if (r->broker != SIZE_MAX && r->fds[FD_READY].revents & POLLIN &&
        read(r->fds[FD_READY].fd, bytes, sizeof bytes) > 0)
        on_ready(r, pm_supervise_pid(r->set, r->broker));
    if (r->fds[FD_JOINED].revents & POLLIN)
        read_joined(r);
    if (r->fds[FD_SIGNAL].revents & POLLIN) {
        struct signalfd_siginfo info;
        while (read(r->fds[FD_SIGNAL].fd, &info, sizeof info) == (ssize_t)sizeof info)
            on_signal(r, info.ssi_signo);
    }
    if (r->fds[FD_LIFE].revents && read(r->fds[FD_LIFE].fd, bytes, sizeof bytes) <= 0) {
        r->fds[FD_LIFE].fd = -1;
        enter(r, STOPPING);
    }
    int client;
    bool has_request = false;
    for (int i = FD_CONTROL; i < FD_COUNT; i++)
        has_request |= r->fds[i].revents != 0;
    while (has_request && (client = pm_control_next(&r->control, &line)) >= 0)
        on_request(r, client, line);
}

static int64_t wait_us(struct run *r, int64_t now)
{
    int64_t until = r->phase == RUNNING || r->phase == KILLING ? INT64_MAX : r->phase_until_us;
    int64_t rolling = pm_rolling_next_us(&r->rolling), alive = pm_notify_alive(&r->notify, now);
    until = rolling < until ? rolling : until;
    until = alive < until ? alive : until;
    return until == INT64_MAX ? -1 : until > now ? until - now : 0;
}

static void loop(struct run *r)
{
    for (;;) {
        int64_t now = pm_clock_us();
        if (r->phase != RUNNING) {
            if (!pm_supervise_alive(r->set))
                return;
            bool is_drained = r->broker != SIZE_MAX && !pm_supervise_is_alive(r->set, r->broker);
            if (r->phase == DRAINING && (is_drained || now >= r->phase_until_us))
                enter(r, STOPPING);
            else if (r->phase == STOPPING && now >= r->phase_until_us)
                enter(r, KILLING);
        }
        pm_rolling_tick(&r->rolling, now);
        show_status(r);
        pm_control_poll(&r->control, r->fds + FD_CONTROL);
        struct pm_supervise_event event;
        pm_supervise_turn(r->set, r->fds, FD_COUNT, wait_us(r, now), &event);
        on_event(r, &event);
        on_descriptors(r);
    }
}

/* The sockets belong to the supervisor: while the broker restarts, connections wait in their queues. */
static int open_sockets(struct run *r, struct pm_error *err)
{
    static const char *const names[2] = {"work.sock", "client.sock"};
    int rc = 0;
    for (int i = 0; i < 2 && !rc; i++) {
        char *path = pm_fs_join(r->fleet->run_dir, names[i]);
        rc = pm_control_listen(path, &r->listen_fds[i], err);
        free(path);
    }
    return rc;
}

/* What runs for a broker elsewhere are workers: the others share files with it. */
static int add_all(struct run *r, struct pm_error *err)
{
    if (r->fleet->join)
        return add_workers(r, err);
    int rc = open_sockets(r, err);
    if (!rc)
        rc = add_broker(r, err);
    if (!rc)
        rc = add_workers(r, err);
    if (!rc)
        rc = add_kind(r, "pagemill-layoutd", "layoutd", 1, r->fleet->layouts, NULL, err);
    return rc ? rc : add_kind(r, "pagemill-collector", "collector", 1, 1, NULL, err);
}

static void close_pair(int fds[2])
{
    for (int i = 0; i < 2; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static bool has_terminal(void)
{
    int fd = open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

int pm_fleet_run(const struct pm_fleet *fleet, struct pm_error *err)
{
    struct run r = {.fleet = fleet,
                    .err = err,
                    .ready_write_fd = -1,
                    .broker = SIZE_MAX,
                    .deaths_fds = {-1, -1},
                    .joined_fds = {-1, -1},
                    .listen_fds = {-1, -1},
                    .control = {.fd = -1},
                    .has_terminal = has_terminal()};
    int rc, ready[2] = {-1, -1};
    sigset_t signals, before;
    for (int i = 0; i < FD_COUNT; i++)
        r.fds[i] = (struct pollfd){.fd = -1, .events = POLLIN};
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, &before);
    signal(SIGPIPE, SIG_IGN);
    r.set = pm_supervise_new();
    pm_notify_open(&r.notify);
    if (pipe2(ready, O_CLOEXEC | O_NONBLOCK) || pipe2(r.deaths_fds, O_CLOEXEC | O_NONBLOCK) ||
        pipe2(r.joined_fds, O_CLOEXEC | O_NONBLOCK)) {
        rc = pm_fail_errno(err, "cannot make a pipe");
        goto out;
    }
    r.ready_write_fd = ready[1];
    r.fds[FD_READY].fd = ready[0];
    r.fds[FD_JOINED].fd = r.joined_fds[0];
    r.fds[FD_LIFE].fd = fleet->life_fd;
    r.fds[FD_SIGNAL].fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if ((!fleet->is_private && (rc = pm_control_open(fleet->run_dir, &r.control, err))) ||
        (rc = add_all(&r, err))) {
        report(&r, "failed", err->text);
        goto out;
    }
    const struct pm_rolling_config rolling = {.broker = r.broker,
                                              .start_us = START_PATIENCE_US,
                                              .drain_us = (int64_t)fleet->drain_s * 1000000,
                                              .tell = tell_rolling,
                                              .context = &r};
    pm_rolling_open(&r.rolling, r.set, &rolling);
    loop(&r);
    rc = r.rc;
out:
    pm_rolling_close(&r.rolling);
    pm_supervise_free(&r.set);
    pm_control_close(&r.control);
    pm_notify_close(&r.notify);
    close_pair(ready);
    close_pair(r.deaths_fds);
    close_pair(r.joined_fds);
    close_pair(r.listen_fds);
    if (r.fds[FD_SIGNAL].fd >= 0)
        close(r.fds[FD_SIGNAL].fd);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return rc;
}
