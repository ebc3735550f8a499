#include "client/cli/private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/host.h"
#include "base/log.h"
#include "base/mem.h"
#include "client/cli/fleet.h"
#include "client/cli/locate.h"
#include "engine/manifest.h"

#define PIXEL_NEED_BYTES ((uint64_t)192 << 20)
#define PIXEL_MOST_MB    2048u
#define RESTARTS_MOST    1000u

uint32_t pm_private_layouts(uint32_t workers)
{
    return workers < 3 ? 1 : (workers + 1) / 2;
}

/* ---- folders ---- */

static char *make_prefix(void)
{
    return pm_xprintf("pagemill-%u-", (unsigned)getuid());
}

/* A fresh folder under parent with its lock held. */
static int make_folder(const char *parent, char **dir_out, int *lock_out, struct pm_error *err)
{
    int rc = PM_EBUSY;
    char *prefix = make_prefix();
    for (int i = 0; i < 10 && rc == PM_EBUSY; i++) {
        uint32_t random = 0;
        if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
            random = (uint32_t)pm_clock_us(); /* the name only needs to be new */
        char *dir = pm_xprintf("%s/%s%d-%08x", parent, prefix, (int)getpid(), random);
        if (mkdir(dir, 0700)) {
            rc = errno == EEXIST ? PM_EBUSY : pm_fail_errno(err, "cannot make the folder %s", dir);
        } else if (!(rc = pm_fleet_lock(dir, lock_out, err))) {
            *dir_out = dir;
            dir = NULL;
        } else if (rc != PM_EBUSY) { /* busy: a sweep of another start took it for a stale one */
            (void)pm_fs_remove_tree(dir, NULL);
        }
        free(dir);
    }
    free(prefix);
    return rc;
}

static int make_folders(struct pm_private *p, struct pm_error *err)
{
    uint64_t free_bytes = 0;
    char *memory = pm_locate_memory(PIXEL_NEED_BYTES, &free_bytes), *temporary = pm_locate_temporary();
    char *prefix = make_prefix();
    pm_fleet_sweep("/dev/shm", prefix);
    pm_fleet_sweep(temporary, prefix);
    if (strcmp(memory, temporary) != 0 && strcmp(memory, "/dev/shm") != 0)
        pm_fleet_sweep(memory, prefix);
    int rc = make_folder(memory, &p->run_dir, &p->run_lock, err);
    if (!rc)
        rc = make_folder(temporary, &p->state_dir, &p->state_lock, err);
    uint64_t budget_mb = free_bytes / 2 >> 20;
    p->pixel_budget_mb = budget_mb < 64              ? 64
                         : budget_mb > PIXEL_MOST_MB ? PIXEL_MOST_MB
                                                     : (uint32_t)budget_mb;
    if (!rc && strlen(p->run_dir) + strlen("/client.sock") >= sizeof(((struct sockaddr_un *)0)->sun_path))
        rc = pm_fail(err, PM_EINVAL,
                     "the path %s is too long for a socket: set TMPDIR or XDG_RUNTIME_DIR to a shorter one",
                     p->run_dir);
    free(memory);
    free(temporary);
    free(prefix);
    return rc;
}

static void drop_folders(struct pm_private *p)
{
    if (p->run_dir)
        (void)pm_fs_remove_tree(p->run_dir, NULL);
    if (p->state_dir)
        (void)pm_fs_remove_tree(p->state_dir, NULL);
    if (p->run_lock >= 0)
        close(p->run_lock);
    if (p->state_lock >= 0)
        close(p->state_lock);
    free(p->run_dir);
    free(p->state_dir);
    p->run_dir = p->state_dir = NULL;
    p->run_lock = p->state_lock = -1;
}

/* ---- the supervisor process ---- */

enum {
    A_RUN = 1,
    A_STATE,
    A_MODELS,
    A_READER,
    A_LEVEL,
    A_WORKERS,
    A_LAYOUTS,
    A_THREADS,
    A_BUDGET,
    A_LIFE,
    A_REPORT,
    A_RUN_LOCK,
    A_STATE_LOCK,
    A_KV_MEMORY,
    A_MEMORY,
    A_KV_INT8,
    A_PINNED,
    A_COUNT,
    NUMBERS = A_COUNT - A_WORKERS
};

static int start_supervisor(struct pm_private *p, struct pm_error *err)
{
    int life[2] = {-1, -1}, report[2] = {-1, -1}, log_fd = -1, rc = 0;
    char *numbers[NUMBERS] = {0}, *self = pm_locate_self();
    if (pipe2(life, O_CLOEXEC) || pipe2(report, O_CLOEXEC)) {
        rc = pm_fail_errno(err, "cannot make a pipe");
        goto out;
    }
    if (p->config.log_path) {
        log_fd = open(p->config.log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (log_fd < 0) {
            rc = pm_fail_errno(err, "cannot open the log %s", p->config.log_path);
            goto out;
        }
    }
    const unsigned values[NUMBERS] = {p->config.workers,     p->config.layouts,       p->config.threads,
                                      p->pixel_budget_mb,    (unsigned)life[0],       (unsigned)report[1],
                                      (unsigned)p->run_lock, (unsigned)p->state_lock, p->config.kv_memory_mb,
                                      p->config.memory_mb,   p->config.kv_int8,       p->config.is_pinned};
    for (int i = 0; i < NUMBERS; i++)
        numbers[i] = pm_xprintf("%u", values[i]);
    const char *argv[] = {"pagemill",       "fleet-private",     p->run_dir,  p->state_dir, p->models,
                          p->config.reader, p->config.log_level, numbers[0],  numbers[1],   numbers[2],
                          numbers[3],       numbers[4],          numbers[5],  numbers[6],   numbers[7],
                          numbers[8],       numbers[9],          numbers[10], numbers[11],  NULL};
    const int keep[4] = {life[0], report[1], p->run_lock, p->state_lock};
    struct pm_spawn spawn = {.path = self,
                             .argv = argv,
                             .keep_fds = keep,
                             .keep_count = 4,
                             .stdin_fd = -1,
                             .stdout_fd = -1,
                             .stderr_fd = log_fd,
                             .own_group = true};
    rc = pm_spawn(&spawn, &p->supervisor, err);
    if (!rc) {
        fcntl(report[0], F_SETFL, O_NONBLOCK);
        p->life_fd = life[1];
        p->report_fd = report[0];
        p->line_bytes = 0;
        p->is_ready = false;
        life[1] = report[0] = -1;
    }
out:
    for (int i = 0; i < 2; i++) {
        if (life[i] >= 0)
            close(life[i]);
        if (report[i] >= 0)
            close(report[i]);
    }
    if (log_fd >= 0)
        close(log_fd);
    for (int i = 0; i < NUMBERS; i++)
        free(numbers[i]);
    free(self);
    return rc;
}

int pm_private_start(const struct pm_private_config *config, struct pm_private *out, struct pm_error *err)
{
    *out = (struct pm_private){
        .config = *config, .run_lock = -1, .state_lock = -1, .life_fd = -1, .report_fd = -1};
    struct pm_private_config *c = &out->config;
    c->reader = c->reader ? c->reader : "fast";
    c->log_level = c->log_level ? c->log_level : "info";
    struct pm_fleet_reader reader = {.name = c->reader, .workers = c->workers, .threads = c->threads};
    int rc = pm_locate_models(c->models, &out->models, err);
    if (!rc)
        rc = pm_readers_size(out->models, &reader, err);
    c->workers = reader.workers;
    c->threads = reader.threads;
    c->is_pinned = reader.is_pinned;
    c->layouts = c->layouts ? c->layouts : pm_readers_layouts(&reader, 1);
    if (!rc)
        rc = make_folders(out, err);
    if (!rc) {
        out->endpoint = pm_xprintf("ipc://%s/client.sock", out->run_dir);
        rc = start_supervisor(out, err);
    }
    if (rc)
        pm_private_stop(out);
    return rc;
}

void pm_private_stop(struct pm_private *p)
{
    if (p->life_fd >= 0)
        close(p->life_fd);
    p->life_fd = -1;
    if (p->report_fd >= 0) { /* held by every process of the fleet: its end means that all are gone */
        struct pollfd end = {.fd = p->report_fd, .events = POLLIN};
        char bytes[256];
        for (int64_t until = pm_clock_us() + 10000000; pm_clock_us() < until;) {
            ssize_t n = poll(&end, 1, 100) > 0 ? read(p->report_fd, bytes, sizeof bytes) : 1;
            if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
                break;
        }
        close(p->report_fd);
    }
    p->report_fd = -1;
    if (p->supervisor.pid) {
        pm_child_signal(&p->supervisor, SIGKILL); /* of a supervisor that is not gone after all */
        pm_child_reap(&p->supervisor, NULL);
    }
    drop_folders(p);
    free(p->models);
    free(p->endpoint);
    p->models = p->endpoint = NULL;
}

/* ---- its reports ---- */

static int on_report(struct pm_private *p, const char *line, struct pm_error *err)
{
    if (!strcmp(line, "ready"))
        p->is_ready = true;
    else if (!strncmp(line, "failed ", 7))
        return pm_fail(err, PM_EINTERNAL, "%s", line + 7);
    return 0;
}

static int restart(struct pm_private *p, struct pm_error *err)
{
    int status = 0;
    char how[80];
    pm_child_reap(&p->supervisor, &status);
    pm_status_describe(status, how, sizeof how);
    close(p->report_fd);
    close(p->life_fd);
    p->report_fd = p->life_fd = -1;
    /* Only a kill is repeated: a supervisor that leaves by itself has said why, or is broken. */
    if (!WIFSIGNALED(status) || ++p->restarts > RESTARTS_MOST)
        return pm_fail(err, PM_ECRASH,
                       "the fleet's supervisor ended (%s); run again with --log FILE to see why", how);
    return start_supervisor(p, err);
}

int pm_private_check(struct pm_private *p, struct pm_error *err)
{
    for (;;) {
        char c;
        ssize_t n = read(p->report_fd, &c, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return 0;
        if (n == 0)
            return restart(p, err);
        if (c != '\n') {
            if (p->line_bytes < sizeof p->line - 1)
                p->line[p->line_bytes++] = c;
            continue;
        }
        p->line[p->line_bytes] = 0;
        p->line_bytes = 0;
        int rc = on_report(p, p->line, err);
        if (rc)
            return rc;
    }
}

int pm_private_wait(struct pm_private *p, int cancel_fd, int64_t timeout_us, struct pm_error *err)
{
    int64_t until = pm_clock_us() + timeout_us;
    while (!p->is_ready) {
        int64_t left = until - pm_clock_us();
        struct pollfd fds[2] = {{.fd = p->report_fd, .events = POLLIN}, {.fd = cancel_fd, .events = POLLIN}};
        if (left <= 0)
            return pm_fail(err, PM_ETIMEOUT,
                           "the private fleet did not start in time; run again with --log FILE to see why");
        if (poll(fds, 2, (int)(left / 1000 + 1)) < 0 && errno != EINTR)
            return pm_fail_errno(err, "cannot wait for the fleet");
        if (fds[1].revents)
            return pm_fail(err, PM_ECANCELLED, "interrupted");
        int rc = fds[0].revents ? pm_private_check(p, err) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- the child's side ---- */

static uint32_t number(const char *text)
{
    return (uint32_t)strtoul(text, NULL, 10);
}

int pm_private_main(int argc, char **argv)
{
    if (argc != A_COUNT)
        return EX_USAGE;
    int fds[4];
    for (int i = 0; i < 4; i++) {
        fds[i] = (int)number(argv[A_LIFE + i]);
        fcntl(fds[i], F_SETFD, FD_CLOEXEC); /* children get what they should by keep_fds */
    }
    /* The locks tell sweeps, and the report pipe tells the command line, that somebody of the fleet lives. */
    const int keep[3] = {fds[1], fds[2], fds[3]};
    char *pixels = pm_fs_join(argv[A_RUN], "pixels");
    struct pm_fleet_reader reader = {.name = argv[A_READER],
                                     .workers = number(argv[A_WORKERS]),
                                     .threads = number(argv[A_THREADS]),
                                     .is_pinned = number(argv[A_PINNED]) != 0};
    struct pm_fleet fleet = {.run_dir = argv[A_RUN],
                             .state_dir = argv[A_STATE],
                             .pixel_dir = pixels,
                             .models = argv[A_MODELS],
                             .readers = &reader,
                             .reader_count = 1,
                             .log_level = argv[A_LEVEL],
                             .layouts = number(argv[A_LAYOUTS]),
                             .pixel_budget_mb = number(argv[A_BUDGET]),
                             .kv_memory_mb = number(argv[A_KV_MEMORY]),
                             .memory_mb = number(argv[A_MEMORY]),
                             .kv = number(argv[A_KV_INT8]) ? "int8" : NULL,
                             .drain_s = 1,
                             .life_fd = fds[0],
                             .report_fd = fds[1],
                             .keep_fds = keep,
                             .keep_count = 3,
                             .is_private = true};
    struct pm_error err = {0};
    int level = pm_log_level_parse(argv[A_LEVEL]);
    pm_log_setup("supervisor", level < 0 ? PM_LOG_INFO : (enum pm_log_level)level);
    int rc = pm_fleet_run(&fleet, &err);
    (void)pm_fs_remove_tree(argv[A_RUN], NULL);
    (void)pm_fs_remove_tree(argv[A_STATE], NULL);
    free(pixels);
    return rc ? 1 : 0;
}
