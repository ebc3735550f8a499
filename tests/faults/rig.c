#include "tests/faults/rig.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"

#define ARGUMENTS_MOST 48

const char *const rig_names[RIG_KINDS] = {"broker", "layoutd", "worker", "collector", "client"};

void rig_give_up(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

char *rig_program(const struct rig *r, const char *name)
{
    return pm_fs_join(r->setup.build, name);
}

/* ---- opening ---- */

static void add_process(struct rig *r, enum rig_kind kind, unsigned number)
{
    PM_ASSERT(r->count < RIG_MOST);
    r->processes[r->count++] = (struct rig_process){.kind = kind, .number = number, .ready_fd = -1};
}

void rig_open(struct rig *r, const struct rig_setup *setup)
{
    struct pm_error err;
    *r = (struct rig){.setup = *setup};
    r->disk = pm_fs_join(setup->dir, "disk");
    r->state = pm_fs_join(r->disk, "state");
    r->run = pm_fs_join(setup->dir, "run");
    r->pixels = pm_fs_join(r->run, "pixels");
    r->socket = pm_fs_join(r->run, "client.sock");
    r->endpoint = pm_xprintf("ipc://%s/work.sock", r->run);
    r->log_path = pm_fs_join(setup->dir, "log");
    char *ledgers = pm_fs_join(setup->dir, "ledgers");
    if (pm_fs_mkdir_p(r->disk, 0700, &err) || pm_fs_mkdir_p(r->run, 0700, &err) ||
        pm_fs_mkdir_p(ledgers, 0700, &err))
        rig_give_up("%s", err.text);
    free(ledgers);
    r->log_fd = open(r->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (r->log_fd < 0 || pipe2(r->deaths, O_CLOEXEC | O_NONBLOCK))
        rig_give_up("cannot open %s", r->log_path);
    signal(SIGPIPE, SIG_IGN);
    add_process(r, RIG_BROKER, 1);
    for (int kind = RIG_LAYOUTD; kind < RIG_KINDS; kind++)
        for (unsigned i = 1; i <= setup->counts[kind]; i++)
            add_process(r, (enum rig_kind)kind, i);
}

void rig_close(struct rig *r)
{
    rig_kill_all(r);
    char *const texts[] = {r->disk, r->state, r->run, r->pixels, r->socket, r->endpoint, r->log_path};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free(texts[i]);
    close(r->log_fd);
    close(r->deaths[0]);
    close(r->deaths[1]);
}

/* ---- starting ---- */

struct arguments {
    const char *items[ARGUMENTS_MOST + 1];
    size_t count;
};

static void put(struct arguments *a, const char *option, const char *value)
{
    PM_ASSERT(a->count + 2 <= ARGUMENTS_MOST);
    a->items[a->count++] = option;
    if (value)
        a->items[a->count++] = value;
}

static void put_broker(struct rig *r, struct arguments *a, const char *ready, const char *deaths)
{
    put(a, "pagemill-broker", NULL);
    put(a, "--state", r->state);
    put(a, "--run", r->run);
    put(a, "--pixels", r->pixels);
    put(a, "--ready-fd", ready);
    put(a, "--deaths-fd", deaths);
    for (const char *const *extra = r->setup.broker_extra; extra && *extra; extra++)
        put(a, *extra, NULL);
}

static const char *put_service(struct rig *r, struct arguments *a, enum rig_kind kind, const char *name)
{
    static const char *const programs[] = {"", "pagemill-layoutd", "pagemill-worker", "pagemill-collector"};
    const char *program = r->setup.is_real ? programs[kind] : "tests/storm_service";
    put(a, program, NULL);
    if (!r->setup.is_real)
        put(a, rig_names[kind], NULL);
    put(a, "--endpoint", r->endpoint);
    put(a, "--name", name);
    if (r->setup.is_real && kind != RIG_COLLECTOR)
        put(a, "--models", r->setup.models);
    return program;
}

void rig_start(struct rig *r, struct rig_process *p)
{
    struct arguments a = {{0}, 0};
    struct pm_error err;
    char ready_text[16], deaths_text[16], name[32];
    char *model = r->setup.models ? pm_fs_join(r->setup.models, "ppocr") : NULL,
         *decode = rig_program(r, "pagemill-decode");
    const char *program;
    int ready[2] = {-1, -1};
    snprintf(name, sizeof name, "%s-%u", rig_names[p->kind], p->number);
    if (p->kind == RIG_BROKER) {
        if (pipe2(ready, O_CLOEXEC))
            rig_give_up("no pipe");
        snprintf(ready_text, sizeof ready_text, "%d", ready[1]);
        snprintf(deaths_text, sizeof deaths_text, "%d", r->deaths[0]);
        put_broker(r, &a, ready_text, deaths_text);
        program = "pagemill-broker";
    } else if (p->kind == RIG_CLIENT) {
        for (const char *const *item = r->client_argv[p->number]; item && *item; item++)
            put(&a, *item, NULL);
        program = "tests/storm_client";
    } else {
        program = put_service(r, &a, p->kind, name);
        if (r->setup.is_real && p->kind == RIG_LAYOUTD) {
            put(&a, "--model", model);
            put(&a, "--decode", decode);
        }
    }
    char *path = rig_program(r, program);
    const int keep[] = {ready[1], r->deaths[0]};
    struct pm_spawn spec = {.path = path,
                            .argv = a.items,
                            .set_env = r->setup.env[p->kind],
                            .keep_fds = keep,
                            .keep_count = p->kind == RIG_BROKER ? 2 : 0,
                            .stdin_fd = -1,
                            .stdout_fd = r->log_fd,
                            .stderr_fd = r->log_fd,
                            .die_with_parent = true};
    if (pm_spawn(&spec, &p->child, &err))
        rig_give_up("%s", err.text);
    if (ready[1] >= 0)
        close(ready[1]);
    p->ready_fd = ready[0];
    p->started_us = pm_clock_us();
    p->was_killed = false;
    free(path);
    free(model);
    free(decode);
}

void rig_start_all(struct rig *r)
{
    for (unsigned i = 0; i < r->count; i++)
        if (!r->processes[i].child.pid && !r->processes[i].has_ended)
            rig_start(r, &r->processes[i]);
}

struct rig_process *rig_find(struct rig *r, enum rig_kind kind, unsigned number)
{
    for (unsigned i = 0; i < r->count; i++)
        if (r->processes[i].kind == kind && r->processes[i].number == number)
            return &r->processes[i];
    return NULL;
}

/* ---- ends ---- */

static void take_end(struct rig *r, struct rig_process *p)
{
    pid_t pid = p->child.pid;
    int status = 0;
    pm_child_reap(&p->child, &status);
    if (p->ready_fd >= 0)
        close(p->ready_fd);
    p->ready_fd = -1;
    if (p->kind != RIG_BROKER && p->kind != RIG_CLIENT)
        dprintf(r->deaths[1], "%d %d\n", (int)pid, status);
    if (p->kind == RIG_CLIENT && WIFEXITED(status) && !WEXITSTATUS(status)) {
        p->has_ended = true;
    } else if (!p->was_killed) {
        r->ends[p->kind]++;
        r->last_end[p->kind] = status;
    }
}

void rig_kill(struct rig *r, struct rig_process *p)
{
    if (!p->child.pid)
        return;
    p->was_killed = true;
    pm_child_signal(&p->child, SIGKILL);
    take_end(r, p);
}

void rig_kill_all(struct rig *r)
{
    for (unsigned i = 0; i < r->count; i++) /* all at once, then collect them */
        if (r->processes[i].child.pid) {
            r->processes[i].was_killed = true;
            pm_child_signal(&r->processes[i].child, SIGKILL);
        }
    for (unsigned i = 0; i < r->count; i++)
        if (r->processes[i].child.pid)
            take_end(r, &r->processes[i]);
}

static void take_ready(struct rig *r, struct rig_process *p)
{
    char byte;
    if (read(p->ready_fd, &byte, 1) == 1) {
        int64_t took = pm_clock_us() - p->started_us;
        r->slowest_start_us = took > r->slowest_start_us ? took : r->slowest_start_us;
    }
    close(p->ready_fd);
    p->ready_fd = -1;
}

void rig_turn(struct rig *r, int64_t timeout_us)
{
    struct pollfd fds[2 * RIG_MOST];
    struct rig_process *whose[2 * RIG_MOST];
    nfds_t count = 0;
    for (unsigned i = 0; i < r->count; i++) {
        struct rig_process *p = &r->processes[i];
        const int both[] = {p->ready_fd, p->child.pid ? p->child.pidfd : -1};
        for (int k = 0; k < 2; k++)
            if (both[k] >= 0) {
                whose[count] = p;
                fds[count++] = (struct pollfd){.fd = both[k], .events = POLLIN};
            }
    }
    struct timespec wait = {timeout_us / 1000000, timeout_us % 1000000 * 1000};
    if (ppoll(fds, count, &wait, NULL) <= 0)
        return;
    for (nfds_t i = 0; i < count; i++) {
        if (!fds[i].revents)
            continue;
        if (fds[i].fd == whose[i]->ready_fd)
            take_ready(r, whose[i]);
        else if (whose[i]->child.pid)
            take_end(r, whose[i]);
    }
}

bool rig_broker_is_ready(const struct rig *r)
{
    const struct rig_process *b = &r->processes[0];
    return b->child.pid && b->ready_fd < 0;
}

bool rig_wait_ready(struct rig *r, int64_t limit_us)
{
    int64_t until = pm_clock_us() + limit_us;
    while (!rig_broker_is_ready(r)) {
        if (!r->processes[0].child.pid || pm_clock_us() > until)
            return false;
        rig_turn(r, 100000);
    }
    return true;
}

static int wait_end(struct pm_child *c, int64_t limit_us)
{
    struct pollfd fd = {.fd = c->pidfd, .events = POLLIN};
    int status = -1;
    if (poll(&fd, 1, (int)(limit_us / 1000)) == 1)
        pm_child_reap(c, &status);
    return status;
}

int rig_stop_broker(struct rig *r, int64_t limit_us)
{
    struct rig_process *b = &r->processes[0];
    if (!b->child.pid)
        return -1;
    pm_child_signal(&b->child, SIGTERM);
    int status = wait_end(&b->child, limit_us);
    if (b->ready_fd >= 0)
        close(b->ready_fd);
    b->ready_fd = -1;
    return status;
}

int rig_run(struct rig *r, const char *path, const char *const argv[], int64_t limit_us)
{
    struct pm_child child;
    struct pm_error err;
    struct pm_spawn spec = {.path = path,
                            .argv = argv,
                            .stdin_fd = -1,
                            .stdout_fd = r->log_fd,
                            .stderr_fd = r->log_fd,
                            .die_with_parent = true};
    if (pm_spawn(&spec, &child, &err))
        rig_give_up("%s", err.text);
    int status = wait_end(&child, limit_us);
    if (child.pid) {
        pm_child_signal(&child, SIGKILL);
        pm_child_reap(&child, NULL);
    }
    return status;
}
