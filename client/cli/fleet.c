#include "client/cli/fleet.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/supervise.h"
#include "client/cli/locate.h"
#include "engine/manifest.h"

#define GIVE_UP_AFTER    10
#define STOP_PATIENCE_US 2000000 /* services after SIGTERM, before SIGKILL */
#define ARGUMENTS_MOST   40

enum phase {
    RUNNING,
    DRAINING, /* broker told to stop, services still working */
    STOPPING, /* everybody told to stop */
    KILLING
};
enum { FD_SIGNAL, FD_LIFE, FD_READY, FD_COUNT };

struct run {
    const struct pm_fleet *fleet;
    struct pm_supervise *set;
    size_t broker;
    enum phase phase;
    int64_t phase_until_us;
    struct pollfd fds[FD_COUNT];
    int ready_write_fd;
    int deaths_fds[2]; /* how services ended, told to the broker */
    bool was_ready;
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
    int *keep = pm_xalloc((f->keep_count + 2) * sizeof *keep);
    if (f->keep_count)
        memcpy(keep, f->keep_fds, f->keep_count * sizeof *keep);
    keep[f->keep_count] = r->ready_write_fd;
    keep[f->keep_count + 1] = r->deaths_fds[0];
    put(&a, "pagemill-broker");
    put_pair(&a, "--state", f->state_dir);
    put_pair(&a, "--run", f->run_dir);
    put_pair(&a, "--pixels", f->pixel_dir);
    if (f->pixel_budget_mb)
        put_number(&a, "--pixel-budget", f->pixel_budget_mb);
    if (f->result_ttl_s)
        put_number(&a, "--result-ttl", f->result_ttl_s);
    put_number(&a, "--drain", f->drain_s);
    put_number(&a, "--ready-fd", (uint64_t)r->ready_write_fd);
    put_number(&a, "--deaths-fd", (uint64_t)r->deaths_fds[0]);
    put_pair(&a, "--log-level", f->log_level);
    int rc =
        add_service(r, "pagemill-broker", "broker", &a, keep, f->keep_count + 2u, false, &r->broker, err);
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
    int rc = 0;
    char *endpoint = pm_xprintf("ipc://%s/work.sock", f->run_dir);
    for (uint32_t i = first; i < first + count && !rc; i++) {
        struct arguments a = {0};
        char *name = pm_xprintf("%s-%u", kind, i);
        put(&a, program);
        put_pair(&a, "--endpoint", endpoint);
        put_pair(&a, "--name", name);
        put_pair(&a, "--log-level", f->log_level);
        if (reader) {
            put_pair(&a, "--models", f->models);
            put_pair(&a, "--reader", reader->name);
            put_number(&a, "--threads", reader->threads);
            if (f->credit)
                put_number(&a, "--credit", f->credit);
            if (f->kv_memory_mb)
                put_number(&a, "--kv-memory", f->kv_memory_mb);
        } else if (!strcmp(kind, "layoutd")) {
            rc = put_layoutd(f, &a, err);
        }
        int added = add_service(r, program, name, &a, f->keep_fds, f->keep_count,
                                reader && reader->threads > 1, NULL, err);
        rc = rc ? rc : added;
        free(name);
    }
    free(endpoint);
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

/* sd_notify without the library: systemd's Type=notify. */
static void notify_systemd(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || !*path || strlen(path) >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@')
        address.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    ssize_t ignored = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, size);
    (void)ignored;
    close(fd);
}

/* ---- the phases of stopping ---- */

static void enter(struct run *r, enum phase phase)
{
    if (phase <= r->phase)
        return;
    r->phase = phase;
    int64_t now = pm_clock_us();
    if (phase == DRAINING) {
        pm_log(PM_LOG_INFO, "draining: waiting up to %u s for work in hand", r->fleet->drain_s);
        notify_systemd("STOPPING=1");
        pm_supervise_hold(r->set);
        pm_supervise_signal(r->set, r->broker, SIGTERM);
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
    bool is_death =
        e->kind == PM_SUPERVISE_DIED || e->kind == PM_SUPERVISE_FINISHED || e->kind == PM_SUPERVISE_FATAL;
    if (!is_death || e->pid <= 0 || e->index == r->broker)
        return;
    int n = snprintf(line, sizeof line, "%d %d\n", (int)e->pid, e->status);
    ssize_t ignored = write(r->deaths_fds[1], line, (size_t)n);
    (void)ignored;
}

static void on_event(struct run *r, const struct pm_supervise_event *e)
{
    tell_death(r, e);
    switch (e->kind) {
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
    case PM_SUPERVISE_DIED:
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

static void on_descriptors(struct run *r)
{
    char bytes[64];
    if (r->fds[FD_READY].revents & POLLIN && read(r->fds[FD_READY].fd, bytes, sizeof bytes) > 0 &&
        !r->was_ready) {
        r->was_ready = true;
        pm_log(PM_LOG_INFO, "ready run=%s", r->fleet->run_dir);
        report(r, "ready", "");
        notify_systemd("READY=1");
    }
    if (r->fds[FD_SIGNAL].revents & POLLIN) {
        struct signalfd_siginfo info;
        while (read(r->fds[FD_SIGNAL].fd, &info, sizeof info) == (ssize_t)sizeof info)
            enter(r, r->phase == RUNNING ? (r->fleet->is_private ? STOPPING : DRAINING) : KILLING);
    }
    if (r->fds[FD_LIFE].revents && read(r->fds[FD_LIFE].fd, bytes, sizeof bytes) <= 0) {
        r->fds[FD_LIFE].fd = -1;
        enter(r, STOPPING);
    }
}

static void loop(struct run *r)
{
    for (;;) {
        int64_t now = pm_clock_us();
        if (r->phase != RUNNING) {
            if (!pm_supervise_alive(r->set))
                return;
            if (r->phase == DRAINING &&
                (!pm_supervise_is_alive(r->set, r->broker) || now >= r->phase_until_us))
                enter(r, STOPPING);
            else if (r->phase == STOPPING && now >= r->phase_until_us)
                enter(r, KILLING);
        }
        int64_t wait = r->phase == RUNNING || r->phase == KILLING ? -1 : r->phase_until_us - now;
        struct pm_supervise_event event;
        pm_supervise_turn(r->set, r->fds, FD_COUNT, wait < -1 ? 0 : wait, &event);
        on_event(r, &event);
        on_descriptors(r);
    }
}

int pm_fleet_run(const struct pm_fleet *fleet, struct pm_error *err)
{
    struct run r = {.fleet = fleet, .err = err, .ready_write_fd = -1, .deaths_fds = {-1, -1}};
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
    if (pipe2(ready, O_CLOEXEC | O_NONBLOCK) || pipe2(r.deaths_fds, O_CLOEXEC | O_NONBLOCK)) {
        rc = pm_fail_errno(err, "cannot make a pipe");
        goto out;
    }
    r.ready_write_fd = ready[1];
    r.fds[FD_READY].fd = ready[0];
    r.fds[FD_LIFE].fd = fleet->life_fd;
    r.fds[FD_SIGNAL].fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if ((rc = add_broker(&r, err)) || (rc = add_workers(&r, err)) ||
        (rc = add_kind(&r, "pagemill-layoutd", "layoutd", 1, fleet->layouts, NULL, err)) ||
        (rc = add_kind(&r, "pagemill-collector", "collector", 1, 1, NULL, err))) {
        report(&r, "failed", err->text);
        goto out;
    }
    loop(&r);
    rc = r.rc;
out:
    pm_supervise_free(&r.set);
    for (int i = 0; i < 2; i++) {
        if (ready[i] >= 0)
            close(ready[i]);
        if (r.deaths_fds[i] >= 0)
            close(r.deaths_fds[i]);
    }
    if (r.fds[FD_SIGNAL].fd >= 0)
        close(r.fds[FD_SIGNAL].fd);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return rc;
}

/* ---- folders ---- */

int pm_fleet_lock(const char *dir, int *fd_out, struct pm_error *err)
{
    int rc = pm_fs_mkdir_p(dir, 0700, err);
    *fd_out = -1;
    if (rc)
        return rc;
    char *path = pm_fs_join(dir, PM_FLEET_LOCK);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        rc = pm_fail_errno(err, "cannot open %s", path);
    else if (flock(fd, LOCK_EX | LOCK_NB))
        rc = errno == EWOULDBLOCK ? pm_fail(err, PM_EBUSY, "%s is in use by another fleet", dir)
                                  : pm_fail_errno(err, "cannot lock %s", path);
    free(path);
    if (rc && fd >= 0)
        close(fd);
    else
        *fd_out = fd;
    return rc;
}

/* True when the folder is ours and nobody of its fleet lives. *fd_out holds its lock meanwhile. */
static bool is_stale(const char *dir, int *fd_out)
{
    struct stat st;
    if (lstat(dir, &st) || !S_ISDIR(st.st_mode) || st.st_uid != getuid())
        return false;
    char *path = pm_fs_join(dir, PM_FLEET_LOCK);
    *fd_out = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    free(path);
    if (*fd_out < 0) /* killed between mkdir and open, or about to open it */
        return errno == ENOENT && time(NULL) - st.st_mtime > 60;
    return flock(*fd_out, LOCK_EX | LOCK_NB) == 0;
}

void pm_fleet_sweep(const char *parent, const char *prefix)
{
    DIR *entries = opendir(parent);
    struct dirent *entry;
    while (entries && (entry = readdir(entries))) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
            continue;
        char *dir = pm_fs_join(parent, entry->d_name);
        int fd = -1;
        if (is_stale(dir, &fd))
            (void)pm_fs_remove_tree(dir, NULL);
        if (fd >= 0)
            close(fd);
        free(dir);
    }
    if (entries)
        closedir(entries);
}
