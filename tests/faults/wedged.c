/* Processes that live and do not work: stopped, spinning, or beating for ever without an end. Their leases
 * are taken back, they are ended, and the document is read by others; a late result is refused.
 *
 *   wedged --dir DIR [--build DIR]
 *
 * Each case is a fleet of its own, all at once. Nothing is timed: a case waits for what has to happen, and a
 * limit ends a hang. Exit: 0 all held, 1 not, 2 usage. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "client/include/pagemill.h"
#include "tests/faults/round.h"

#define LIMIT_US ((int64_t)240 * 1000000)

struct wedge {
    const char *name, *word, *stall_s;
    enum rig_kind victim;
    bool is_cancelled; /* the job: its process does not let go */
    bool is_late;      /* wakes up when its lease is gone, before it is ended */
    const char *region_timeout_s;
};
static const struct wedge wedges[] = {
    {"worker-stopped", "stop", "1", RIG_WORKER, false, false, "0"},
    {"worker-spins", "spin", "1", RIG_WORKER, false, false, "0"},
    {"worker-lingers", "linger", "1", RIG_WORKER, false, false, "1"},
    {"worker-late", "stop", "5", RIG_WORKER, false, true, "0"},
    {"layoutd-stopped", "stop", "1", RIG_LAYOUTD, false, false, "0"},
    {"collector-spins", "spin", "1", RIG_COLLECTOR, false, false, "0"},
    {"worker-keeps-cancelled", "linger", "1", RIG_WORKER, true, false, "0"},
    {"collector-keeps-cancelled", "linger", "1", RIG_COLLECTOR, true, false, "0"},
};
#define WEDGES (sizeof wedges / sizeof *wedges)

struct scene {
    const struct wedge *w;
    struct rig rig;
    struct round round;
    pagemill *pm;
    char *file;
    int64_t until_us;
    pid_t wedged; /* the process that is */
};

static uint64_t counter(struct scene *s, const char *name)
{
    struct pagemill_stats *stats;
    struct pagemill_error err;
    uint64_t value = UINT64_MAX;
    if (pagemill_stats(s->pm, 30000, &stats, &err))
        rig_give_up("%s: %s", s->w->name, err.text);
    for (size_t i = 0; i < stats->counter_count; i++)
        if (!strcmp(stats->counters[i].name, name))
            value = stats->counters[i].value;
    pagemill_stats_free(&stats);
    if (value == UINT64_MAX)
        rig_give_up("%s: there is no counter %s", s->w->name, name);
    return value;
}

static void turn(struct scene *s, const char *what)
{
    rig_turn(&s->rig, 20000);
    rig_start_all(&s->rig);
    if (pm_clock_us() > s->until_us)
        rig_give_up("%s: waited in vain for %s; see %s", s->w->name, what, s->rig.log_path);
}

static bool is_stopped(pid_t pid)
{
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    bool got = f && fscanf(f, "%*d %*s %c", &state) == 1;
    if (f)
        fclose(f);
    return got && state == 'T';
}

/* The stopped one of the victims. */
static pid_t find_stopped(struct scene *s)
{
    for (unsigned i = 1; i <= s->rig.setup.counts[s->w->victim]; i++) {
        pid_t pid = rig_find(&s->rig, s->w->victim, i)->child.pid;
        if (pid && is_stopped(pid))
            return pid;
    }
    return 0;
}

static void start(struct scene *s, const char *dir, const char *build)
{
    static const char *extra[] = {"--stall", NULL, NULL};
    static const char *env[2];
    extra[1] = s->w->stall_s;
    s->file = pm_fs_join(dir, "wedge");
    env[0] = pm_xprintf("WEDGE=%s", s->file);
    struct rig_setup setup = {
        .dir = dir, .build = build, .counts = {1, 2, 2, 2, ROUND_CLIENTS}, .broker_extra = extra};
    setup.env[s->w->victim] = env;
    struct pagemill_connect_options connect = PAGEMILL_CONNECT_OPTIONS_INIT;
    struct pagemill_error err;
    rig_open(&s->rig, &setup);
    if (pm_fs_write(s->file, s->w->word, strlen(s->w->word), false, NULL))
        rig_give_up("cannot write %s", s->file);
    round_begin(&s->round, &s->rig, 0, NULL);
    for (unsigned i = 1; i <= ROUND_CLIENTS; i++) {
        const char **end = s->round.argv[i];
        while (*end)
            end++;
        const char *const more[] = {"--jobs", "2", "--region-timeout", s->w->region_timeout_s, NULL};
        memcpy(end, more, sizeof more);
    }
    rig_start(&s->rig, &s->rig.processes[0]);
    if (!rig_wait_ready(&s->rig, LIMIT_US) || pagemill_connect(s->rig.socket, &connect, 30000, &s->pm, &err))
        rig_give_up("%s: the broker does not start", s->w->name);
    rig_start_all(&s->rig);
    while (!access(s->file, F_OK))
        turn(s, "a process to be wedged");
}

/* Wakes the stopped process when its lease is gone. */
static void wake_late(struct scene *s)
{
    while (!(s->wedged = find_stopped(s)))
        turn(s, "a stopped process");
    while (!counter(s, "sched_stalled"))
        turn(s, "its lease to be taken back");
    kill(s->wedged, SIGCONT);
    while (!counter(s, "results_fenced"))
        turn(s, "its late result to be refused");
}

static void cancel_all(struct scene *s)
{
    struct pagemill_list_options all = PAGEMILL_LIST_OPTIONS_INIT;
    struct pagemill_jobs *jobs;
    struct pagemill_error err;
    if (pagemill_list(s->pm, &all, 30000, &jobs, &err))
        rig_give_up("%s: %s", s->w->name, err.text);
    for (size_t i = 0; i < jobs->count; i++)
        (void)pagemill_cancel(s->pm, jobs->jobs[i].job, 30000, &err); /* a done one cannot be */
    pagemill_jobs_free(&jobs);
}

static void expect_killed(struct scene *s)
{
    while (!s->rig.ends[s->w->victim])
        turn(s, "the wedged process to be ended");
    int status = s->rig.last_end[s->w->victim];
    if (s->rig.ends[s->w->victim] != 1 || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        rig_give_up("%s: %u processes ended, the last one with status %d", s->w->name,
                    s->rig.ends[s->w->victim], status);
    if (!counter(s, "sched_kills"))
        rig_give_up("%s: the kill was not counted", s->w->name);
}

static int play(const struct wedge *w, const char *parent, const char *build)
{
    struct scene s = {.w = w, .until_us = pm_clock_us() + LIMIT_US};
    struct verdict v = {0};
    char *dir = pm_fs_join(parent, w->name);
    start(&s, dir, build);
    if (w->is_late)
        wake_late(&s);
    if (w->is_cancelled)
        cancel_all(&s);
    if (!w->is_late)
        expect_killed(&s);
    while (!round_is_over(&s.round))
        turn(&s, "the documents to be read");
    pagemill_close(&s.pm);
    if (rig_stop_broker(&s.rig, LIMIT_US))
        rig_give_up("%s: the broker does not stop", w->name);
    rig_kill_all(&s.rig);
    if (!w->is_cancelled) { /* nobody expects a result of a cancelled one */
        round_judge(&s.round, NULL, true, &v);
        if (v.lost || v.doubled || v.wrong || v.unfinished || v.jobs != 2 * ROUND_CLIENTS)
            rig_give_up("%s: a promise was broken", w->name);
    }
    printf("%s: held\n", w->name);
    round_free(&s.round);
    rig_close(&s.rig);
    free(s.file);
    free(dir);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"dir", required_argument, NULL, 'd'}, {"build", required_argument, NULL, 'b'}, {NULL, 0, NULL, 0}};
    const char *dir = NULL, *build = PM_BUILD_DIR;
    int failed = 0, status;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'd')
            dir = optarg;
        else if (c == 'b')
            build = optarg;
        else
            return 2;
    }
    if (!dir)
        return 2;
    for (size_t i = 0; i < WEDGES; i++)
        if (!fork())
            exit(play(&wedges[i], dir, build));
    while (wait(&status) > 0)
        failed |= status;
    return failed != 0;
}
