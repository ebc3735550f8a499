/* How services ended.
 *
 * A pidfd says at once that a process ended, and not how; work is leased again at that moment. /proc tells
 * how while nobody has collected the process; then only its parent knows. The supervisor writes a line
 *
 *     PID STATUS\n        STATUS as waitpid(2) gives it, both decimal
 *
 * to --deaths-fd for each process that it collected. A note that comes before the pidfd fires is kept for a
 * moment; one that comes after corrects the blame: SIGKILL (the operator, or the kernel's memory guard) says
 * little about the work that was in hand, a fault or a bad exit says more. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/broker.h"

#define REMEMBER_US 5000000
#define NOTES       64
#define LINE_BYTES  64

struct note { /* came before its process was missed */
    uint64_t pid;
    int64_t until_us;
    int status;
};
struct doubt { /* a process that ended, nobody knew how */
    uint64_t pid, *tasks;
    uint32_t count;
    int64_t until_us;
    struct doubt *next;
};
struct pm_deaths {
    struct note notes[NOTES];
    size_t next_note;
    struct doubt *doubts;
    char line[LINE_BYTES];
    size_t line_bytes;
};

struct pm_deaths *pm_deaths_new(void)
{
    return pm_xalloc(sizeof(struct pm_deaths));
}

static void drop_first(struct doubt **at)
{
    struct doubt *d = *at;
    *at = d->next;
    free(d->tasks);
    free(d);
}

void pm_deaths_free(struct pm_deaths **deaths)
{
    if (!*deaths)
        return;
    while ((*deaths)->doubts)
        drop_first(&(*deaths)->doubts);
    free(*deaths);
    *deaths = NULL;
}

static enum pm_peer_end what_it_means(int status)
{
    if (WIFSIGNALED(status)) {
        int n = WTERMSIG(status);
        return n == SIGKILL || n == SIGTERM || n == SIGINT ? PM_PEER_KILLED : PM_PEER_CRASHED;
    }
    return WIFEXITED(status) && WEXITSTATUS(status) ? PM_PEER_CRASHED : PM_PEER_KILLED;
}

/* The wait status of a process that its parent has not collected yet. */
static bool read_zombie(uint64_t pid, int *status_out)
{
    char path[64], text[2048];
    snprintf(path, sizeof path, "/proc/%llu/stat", (unsigned long long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return false;
    text[n] = 0;
    /* "pid (name) state ...": the name may hold anything, so count from its last ')'. exit_code is field 52.
     * Another state: the number belongs to somebody else by now. */
    char *at = strrchr(text, ')');
    if (!at || at[1] != ' ' || (at[2] != 'Z' && at[2] != 'X'))
        return false;
    at += 2;
    for (int field = 3; field < 52 && at; field++) {
        at = strchr(at, ' ');
        at = at ? at + 1 : NULL;
    }
    if (!at)
        return false;
    *status_out = atoi(at);
    return true;
}

static bool take_note(struct pm_broker *b, uint64_t pid, int *status_out)
{
    for (size_t i = 0; i < NOTES; i++) {
        struct note *n = &b->deaths->notes[i];
        if (n->pid != pid || n->until_us < b->now.us)
            continue;
        *status_out = n->status;
        n->pid = 0;
        return true;
    }
    return false;
}

enum pm_peer_end pm_deaths_how(struct pm_broker *b, const struct pm_conn *c)
{
    int status;
    if (take_note(b, c->pid, &status) || read_zombie(c->pid, &status))
        return what_it_means(status);
    uint32_t most = pm_sched_peer_leases(b->sched, c->peer);
    if (most && b->config.deaths_fd >= 0) {
        struct doubt *d = pm_xalloc(sizeof *d);
        d->pid = c->pid;
        d->until_us = b->now.us + REMEMBER_US;
        d->tasks = pm_xalloc(most * sizeof *d->tasks);
        d->count = pm_sched_peer_tasks(b->sched, c->peer, d->tasks, most);
        d->next = b->deaths->doubts;
        b->deaths->doubts = d;
    }
    return PM_PEER_KILLED;
}

static void take_line(struct pm_broker *b, const char *line)
{
    unsigned long long pid;
    int status;
    if (sscanf(line, "%llu %d", &pid, &status) != 2 || !pid)
        return;
    for (struct doubt **at = &b->deaths->doubts; *at; at = &(*at)->next) {
        if ((*at)->pid != pid)
            continue;
        if (what_it_means(status) == PM_PEER_CRASHED) {
            pm_log(PM_LOG_WARNING, "the process crashed pid=%llu status=%d leases=%u", pid, status,
                   (*at)->count);
            pm_sched_crashed(b->sched, b->now, (*at)->tasks, (*at)->count);
        }
        drop_first(at);
        return;
    }
    struct pm_deaths *d = b->deaths;
    d->notes[d->next_note++ % NOTES] =
        (struct note){.pid = pid, .until_us = b->now.us + REMEMBER_US, .status = status};
}

void pm_deaths_read(struct pm_broker *b)
{
    struct pm_deaths *d = b->deaths;
    char bytes[1024];
    ssize_t n = -1;
    while (b->config.deaths_fd >= 0 && (n = read(b->config.deaths_fd, bytes, sizeof bytes)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        for (ssize_t i = 0; i < n; i++) {
            if (bytes[i] != '\n') {
                if (d->line_bytes < LINE_BYTES - 1)
                    d->line[d->line_bytes++] = bytes[i];
                continue;
            }
            d->line[d->line_bytes] = 0;
            d->line_bytes = 0;
            take_line(b, d->line);
        }
    }
    if (b->config.deaths_fd >= 0 && n == 0) { /* nobody tells any more */
        close(b->config.deaths_fd);
        b->config.deaths_fd = -1;
    }
    for (struct doubt **at = &d->doubts; *at;) {
        if ((*at)->until_us < b->now.us)
            drop_first(at);
        else
            at = &(*at)->next;
    }
}
