#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/fs.h"

#define START_MS 120000

void die(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    fputs("bench_queue: ", stderr);
    vfprintf(stderr, format, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

/* ---- figures ---- */

void series_add(struct series *s, double value)
{
    PM_GROW(s->items, s->count, s->capacity);
    s->items[s->count++] = value;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double series_at(struct series *s, double share)
{
    if (!s->count)
        return 0;
    qsort(s->items, s->count, sizeof *s->items, by_value);
    size_t at = (size_t)(share * (double)s->count);
    return s->items[at < s->count ? at : s->count - 1];
}

void series_free(struct series *s)
{
    free(s->items);
    *s = (struct series){0};
}

static json_t *figures;

void figure(const char *name, double value, const char *unit, const char *target)
{
    if (!figures)
        figures = json_array();
    json_array_append_new(figures, json_pack("{s:s, s:f, s:s, s:s}", "name", name, "value", value, "unit",
                                             unit, "target", target));
    printf("| %-78s | %12.6g %-10s | %-9s |\n", name, value, unit, target);
    fflush(stdout);
}

void figures_write(const char *json_path)
{
    if (json_path && figures && json_dump_file(figures, json_path, JSON_INDENT(1)))
        die("cannot write %s", json_path);
    json_decref(figures);
    figures = NULL;
}

/* ---- the broker ---- */

void rig_open(struct rig *rig, const struct settings *settings, const char *state_dir)
{
    struct pm_error err;
    *rig = (struct rig){.settings = settings};
    char *run = pm_xprintf("%s/pm-bench-XXXXXX", settings->memory);
    rig->dir = pm_xprintf("%s/pm-bench-XXXXXX", state_dir);
    if (!mkdtemp(rig->dir) || !mkdtemp(run))
        die("cannot make a directory in %s or %s: %s", state_dir, settings->memory, strerror(errno));
    rig->run = run;
    rig->state = pm_fs_join(rig->dir, "state");
    rig->pixels = pm_fs_join(rig->run, "pixels");
    char *disk = pm_xprintf("%s/blobs", rig->state);
    if (pm_fs_mkdir_p(rig->state, 0700, &err) || pm_blobs_open(disk, rig->pixels, &rig->blobs, &err))
        die("%s", err.text);
    free(disk);
    rig->zmq = zmq_ctx_new();
    zmq_ctx_set(rig->zmq, ZMQ_MAX_SOCKETS, 2000);
}

void wait_for_byte(int fd, const char *who)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char byte;
    if (poll(&p, 1, START_MS) != 1 || read(fd, &byte, 1) != 1)
        die("%s did not start", who);
    close(fd);
}

static void spawn(const char *path, const char *const *argv, int keep_fd, struct pm_child *out)
{
    struct pm_error err;
    struct pm_spawn spec = {.path = path,
                            .argv = argv,
                            .keep_fds = &keep_fd,
                            .keep_count = 1,
                            .stdin_fd = -1,
                            .stdout_fd = STDERR_FILENO,
                            .stderr_fd = STDERR_FILENO,
                            .die_with_parent = true};
    if (pm_spawn(&spec, out, &err))
        die("%s", err.text);
}

void rig_start(struct rig *rig, const char *const *extra)
{
    int fds[2];
    char fd_text[16];
    if (pipe2(fds, O_CLOEXEC))
        die("cannot make a pipe");
    snprintf(fd_text, sizeof fd_text, "%d", fds[1]);
    const char *argv[40] = {"pagemill-broker",
                            "--state",
                            rig->state,
                            "--run",
                            rig->run,
                            "--log-level",
                            "error",
                            "--max-jobs",
                            "10000000",
                            "--stall",
                            "600",
                            "--result-ttl",
                            "0",
                            "--ready-fd",
                            fd_text};
    size_t count = 15;
    for (; extra && *extra && count < 39; extra++)
        argv[count++] = *extra;
    spawn(rig->settings->broker, argv, fds[1], &rig->broker);
    close(fds[1]);
    wait_for_byte(fds[0], "the broker");
    rig->ready_us = pm_clock_us();
}

void rig_again(const struct rig *rig, const char *role, const char *argument, int ready_fd,
               struct pm_child *out)
{
    char fd_text[16];
    snprintf(fd_text, sizeof fd_text, "%d", ready_fd);
    const char *argv[] = {"bench_queue", "--role", role, "--ready-fd", fd_text, argument, NULL};
    (void)rig;
    spawn("/proc/self/exe", argv, ready_fd, out);
}

void rig_kill(struct rig *rig)
{
    pm_child_signal(&rig->broker, SIGKILL);
    pm_child_reap(&rig->broker, NULL);
}

void rig_close(struct rig *rig)
{
    if (rig->broker.pid)
        rig_kill(rig);
    zmq_ctx_term(rig->zmq);
    pm_blobs_free(&rig->blobs);
    pm_fs_remove_tree(rig->dir, NULL);
    pm_fs_remove_tree(rig->run, NULL);
    free(rig->dir);
    free(rig->state);
    free(rig->run);
    free(rig->pixels);
}

static char *read_proc(const struct rig *rig, const char *name, char *out, size_t size)
{
    char *path = pm_xprintf("/proc/%d/%s", (int)rig->broker.pid, name);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(out, 1, size - 1, f) : 0;
    out[n] = 0;
    if (f)
        fclose(f);
    free(path);
    return out;
}

uint64_t rig_rss(const struct rig *rig)
{
    char text[256];
    unsigned long long all = 0, resident = 0;
    if (sscanf(read_proc(rig, "statm", text, sizeof text), "%llu %llu", &all, &resident) != 2)
        die("cannot read the broker's memory");
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

int64_t rig_cpu_us(const struct rig *rig)
{
    char text[1024];
    unsigned long long user = 0, system = 0;
    const char *at = strrchr(read_proc(rig, "stat", text, sizeof text), ')');
    if (!at || sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) != 2)
        die("cannot read the broker's time");
    return (int64_t)((user + system) * 1000000 / (unsigned long long)sysconf(_SC_CLK_TCK));
}
