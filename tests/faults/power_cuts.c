/* Power cuts: a fleet works, the power goes at a random moment, and the fleet starts again on what a disk
 * would hold then.
 *
 *   power_cuts --dir DIR [--cuts 50] [--seconds 0] [--round 25] [--seed 1] [--lie file|dir] [--build DIR]
 *
 * disk_shim.c records everything that broker, services and clients do to the state directory; cut_disk.c
 * makes the directory anew as of a record of that log, with what was not synced lost, kept, kept in part or
 * torn. Pixels and sockets are gone (they are on tmpfs). What the clients knew at that record is all that
 * counts: each job that was accepted must be in the journal, with every blob that it refers to; each result
 * that was received must still be there. Then the next life begins on that disk, until the next cut. Every so
 * many cuts all jobs are finished and compared, as in storm.c.
 *
 * --lie: syncs of files or of directories are ignored. Then promises must break, or this test sees nothing:
 * the exit is 0 when they do. DIR/report says how it stands; the same command goes on. Exit: 0 all held, 1
 * not, 2 usage. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "tests/faults/cut_disk.h"
#include "tests/faults/round.h"

#define HANG_US  ((int64_t)120 * 1000000)
#define LOG_MOST ((size_t)1 << 30)

struct totals {
    uint64_t cuts, policies[CUT_POLICIES], starts_cut, rounds, kept, dropped, seconds, slowest_start_us,
        failures;
    struct verdict sum;
};
struct cuts {
    const char *dir, *build, *lie;
    unsigned cuts, seconds, round_cuts, seed;
    struct totals t;
    struct rig rig;
    char *progress_path, *log_path, *journal, *env[6];
    const char *env_list[7];
    int64_t began_us, saved_us;
};
static volatile sig_atomic_t is_stopped;

static void stop(int signal_number)
{
    (void)signal_number;
    is_stopped = 1;
}

/* ---- what is kept ---- */

#define FIELDS(X)                                                                                            \
    X(cuts)                                                                                                  \
    X(policies[0])                                                                                           \
    X(policies[1])                                                                                           \
    X(policies[2])                                                                                           \
    X(policies[3])                                                                                           \
    X(starts_cut)                                                                                            \
    X(rounds)                                                                                                \
    X(kept)                                                                                                  \
    X(dropped)                                                                                               \
    X(seconds)                                                                                               \
    X(slowest_start_us)                                                                                      \
    X(failures)                                                                                              \
    VERDICT_FIELDS(X)

static void save(struct cuts *s)
{
    struct pm_buf b = {0};
    struct pm_error err;
    int64_t now = pm_clock_us();
    s->t.seconds += (uint64_t)(now - s->saved_us) / 1000000;
    s->saved_us += (now - s->saved_us) / 1000000 * 1000000;
#define X(name) pm_buf_printf(&b, #name " %llu\n", (unsigned long long)s->t.name);
    FIELDS(X)
#undef X
    if (pm_fs_write(s->progress_path, b.data, b.size, true, &err))
        rig_give_up("%s", err.text);
    pm_buf_free(&b);
}

static void load(struct cuts *s)
{
    FILE *f = fopen(s->progress_path, "r");
    char name[64];
    unsigned long long value;
    while (f && fscanf(f, "%63s %llu", name, &value) == 2) {
#define X(field)                                                                                             \
    if (!strcmp(name, #field))                                                                               \
        s->t.field = value;
        FIELDS(X)
#undef X
    }
    if (f)
        fclose(f);
}

static bool is_good(const struct totals *t)
{
    return !t->sum.lost && !t->sum.doubled && !t->sum.wrong && !t->sum.unfinished && !t->failures;
}

static void report(struct cuts *s)
{
    struct pm_buf b = {0};
    const struct totals *t = &s->t;
    pm_buf_printf(&b, "power cuts\ncuts             %llu in %llu s:", (unsigned long long)t->cuts,
                  (unsigned long long)t->seconds);
    for (int i = 0; i < CUT_POLICIES; i++)
        pm_buf_printf(&b, " %s %llu%s", cut_policy_names[i], (unsigned long long)t->policies[i],
                      i + 1 < CUT_POLICIES ? "," : "");
    pm_buf_printf(
        &b,
        "; %llu while the broker started\n"
        "unsynced         %llu changes survived, %llu were lost\n"
        "jobs             %llu accepted, %llu results received, %llu submitted again\n"
        "commits          %llu pages, %llu regions\n"
        "lost             %llu\ndoubled          %llu\nwrong or damaged %llu\nnot done         %llu\n"
        "no start         %llu\n"
        "slowest broker   %.3f s from its start to serving\n"
        "verdict          %s\n",
        (unsigned long long)t->starts_cut, (unsigned long long)t->kept, (unsigned long long)t->dropped,
        (unsigned long long)t->sum.jobs, (unsigned long long)t->sum.results,
        (unsigned long long)t->sum.resubmits, (unsigned long long)t->sum.pages,
        (unsigned long long)t->sum.regions, (unsigned long long)t->sum.lost,
        (unsigned long long)t->sum.doubled, (unsigned long long)t->sum.wrong,
        (unsigned long long)t->sum.unfinished, (unsigned long long)t->failures,
        (double)t->slowest_start_us / 1e6, is_good(t) ? "all promises held" : "BROKEN");
    char *path = pm_fs_join(s->dir, "report");
    pm_fs_write(path, b.data, b.size, true, NULL);
    free(path);
    fputs((const char *)b.data, stdout);
    fflush(stdout);
    pm_buf_free(&b);
}

/* ---- one cut ---- */

struct witness { /* what the clients of a round knew */
    struct round *round;
    struct pm_buf ledger[ROUND_CLIENTS + 1];
};

static void take_witness(void *context, const char *path, const void *data, size_t bytes)
{
    struct witness *w = context;
    for (unsigned i = 1; i <= ROUND_CLIENTS; i++)
        if (!strcmp(path, w->round->ledger[i]))
            pm_buf_append(&w->ledger[i], data, bytes);
}

static void record(struct cuts *s, bool is_on)
{
    for (int kind = 0; kind < RIG_KINDS; kind++)
        s->rig.setup.env[kind] = is_on ? s->env_list : NULL;
}

static void fail(struct cuts *s, const char *what)
{
    printf("%s; see %s\n", what, s->rig.log_path);
    s->t.failures++;
}

static void copy_tree(struct cuts *s, const char *from, const char *to)
{
    const char *argv[] = {"cp", "-r", from, to, NULL};
    if (rig_run(&s->rig, "/bin/cp", argv, HANG_US))
        rig_give_up("cannot copy %s", from);
}

/* Looks at the new disk without touching it: reading a journal also repairs it. */
static void inspect(struct cuts *s, struct round *c)
{
    char *before = s->rig.state, *copy = pm_fs_join(s->dir, "probe"),
         *journal = pm_fs_join(copy, "journal.db");
    pm_fs_remove_tree(copy, NULL);
    if (pm_fs_is_dir(before))
        copy_tree(s, before, copy);
    s->rig.state = copy;
    if (!audit_is_readable(journal))
        fail(s, "the journal is damaged");
    else if (audit_has_tables(journal))
        round_judge(c, NULL, false, &s->t.sum);
    else if (round_knowledge(c))
        fail(s, "clients know of jobs, and the journal is gone");
    s->rig.state = before;
    pm_fs_remove_tree(copy, NULL);
    free(copy);
    free(journal);
}

/* The disk, the pixels and what the clients know, as they are after a cut at a record of the log. */
static void cut(struct cuts *s, struct round *c, struct cut_disk *disk, struct witness *w)
{
    struct pm_buf log = {0};
    struct pm_error err;
    if (pm_fs_read(s->log_path, LOG_MOST, &log, &err))
        rig_give_up("%s", err.text);
    size_t records = cut_disk_records(&log), at = records;
    if (rand() % 4 && records)
        at = (size_t)rand() % records + 1;
    enum cut_policy policy = (enum cut_policy)(rand() / 3 % CUT_POLICIES);
    cut_disk_play(disk, &log, at, take_witness, w);
    if (pm_fs_remove_tree(s->rig.disk, &err) || pm_fs_remove_tree(s->rig.run, &err))
        rig_give_up("%s", err.text);
    cut_disk_write(disk, policy, rand, s->rig.disk);
    pm_buf_free(&log);
    if (pm_fs_mkdir_p(s->rig.run, 0700, &err))
        rig_give_up("%s", err.text);
    for (unsigned i = 1; i <= ROUND_CLIENTS; i++)
        if (pm_fs_write(c->ledger[i], w->ledger[i].data, w->ledger[i].size, false, &err))
            rig_give_up("%s", err.text);
    uint64_t kept, lost;
    cut_disk_count(disk, &kept, &lost);
    s->t.kept += kept;
    s->t.dropped += lost;
    s->t.policies[policy]++;
    s->t.cuts++;
}

/* A life of the fleet, and its end. */
static void one_cut(struct cuts *s, struct round *c)
{
    struct cut_disk *disk = cut_disk_new(s->rig.disk);
    struct witness w = {.round = c};
    for (unsigned i = 1; i <= ROUND_CLIENTS; i++)
        (void)pm_fs_read(c->ledger[i], LOG_MOST, &w.ledger[i], NULL);
    unlink(s->log_path);
    record(s, true);
    bool while_starting = rand() % 5 == 0;
    rig_start_all(&s->rig);
    if (!while_starting && !rig_wait_ready(&s->rig, HANG_US))
        fail(s, "the broker does not start after a cut");
    int64_t until = pm_clock_us() + (while_starting ? rand() % 60000 : 5000 + rand() % 300000);
    for (int64_t now; (now = pm_clock_us()) < until;) {
        rig_turn(&s->rig, until - now);
        if (s->rig.ends[RIG_BROKER]) {
            fail(s, "the broker ended unasked after a cut");
            s->rig.ends[RIG_BROKER] = 0;
        }
    }
    s->t.starts_cut += while_starting;
    rig_kill_all(&s->rig);
    cut(s, c, disk, &w);
    inspect(s, c);
    cut_disk_free(&disk);
    for (unsigned i = 1; i <= ROUND_CLIENTS; i++)
        pm_buf_free(&w.ledger[i]);
}

/* ---- rounds ---- */

static void end_round(struct cuts *s, struct round *c)
{
    record(s, false);
    round_finish(c);
    for (unsigned i = 1; i <= ROUND_CLIENTS; i++)
        rig_find(&s->rig, RIG_CLIENT, i)->has_ended = false;
    for (int64_t until = pm_clock_us() + HANG_US; !round_is_over(c) && !s->t.failures;) {
        rig_start_all(&s->rig);
        rig_turn(&s->rig, 100000);
        if (pm_clock_us() > until)
            fail(s, "the jobs are not done in time");
    }
    rig_stop_broker(&s->rig, HANG_US);
    rig_kill_all(&s->rig);
    round_judge(c, NULL, true, &s->t.sum);
    s->t.rounds++;
    if ((uint64_t)s->rig.slowest_start_us > s->t.slowest_start_us)
        s->t.slowest_start_us = (uint64_t)s->rig.slowest_start_us;
    rig_start(&s->rig, &s->rig.processes[0]);
    if (!rig_wait_ready(&s->rig, HANG_US) || !round_forget(c))
        fail(s, "the jobs of a round could not be forgotten");
    rig_kill_all(&s->rig);
    save(s);
    report(s);
}

static void one_round(struct cuts *s)
{
    struct round c;
    round_begin(&c, &s->rig, s->t.rounds, NULL);
    /* A round begins with nothing: the first moments of a journal are cut too. One that goes on has ledgers.
     */
    if (!round_knowledge(&c))
        pm_fs_remove_tree(s->rig.state, NULL);
    for (unsigned i = 0; i < s->round_cuts && s->t.cuts < s->cuts && is_good(&s->t) && !is_stopped; i++) {
        one_cut(s, &c);
        if (is_good(&s->t) && audit_has_tables(s->journal))
            audit_install(s->journal);
    }
    if (is_good(&s->t) && !is_stopped)
        end_round(s, &c);
    round_free(&c);
}

static void make_env(struct cuts *s)
{
    size_t n = 0;
    s->env[n++] = pm_xprintf("LD_PRELOAD=%s/tests/libdisk_shim.so", s->build);
    s->env[n++] = pm_xprintf("PM_DISK_ROOT=%s", s->rig.disk);
    s->env[n++] = pm_xprintf("PM_DISK_LOG=%s", s->log_path);
    s->env[n++] = pm_xprintf("PM_DISK_WITNESS=%s/ledgers/", s->dir);
    s->env[n++] = pm_xprintf("PM_DISK_LIE=%s", s->lie);
    s->env[n++] = pm_xstrdup("ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0");
    for (size_t i = 0; i < n; i++)
        s->env_list[i] = s->env[i];
}

static int run(struct cuts *s)
{
    struct rig_setup setup = {.dir = s->dir, .build = s->build, .counts = {1, 1, 1, 1, ROUND_CLIENTS}};
    rig_open(&s->rig, &setup);
    s->journal = pm_fs_join(s->rig.state, "journal.db");
    s->progress_path = pm_fs_join(s->dir, "progress");
    s->log_path = pm_fs_join(s->dir, "disk.log");
    make_env(s);
    s->began_us = s->saved_us = pm_clock_us();
    srand(s->seed + (unsigned)getpid());
    load(s);
    while (s->t.cuts < s->cuts && is_good(&s->t) && !is_stopped &&
           !(s->seconds && pm_clock_us() - s->began_us > (int64_t)s->seconds * 1000000))
        one_round(s);
    rig_close(&s->rig);
    save(s);
    report(s);
    free(s->journal);
    free(s->progress_path);
    free(s->log_path);
    for (size_t i = 0; i < sizeof s->env / sizeof *s->env; i++)
        free(s->env[i]);
    return *s->lie ? is_good(&s->t) : !is_good(&s->t);
}

static void usage(FILE *to)
{
    fputs("Usage: power_cuts --dir DIR [--cuts N] [--seconds N] [--round CUTS] [--seed N] [--lie file|dir] "
          "[--build DIR]\n"
          "Cuts the power of a fleet at random; what it had promised must be on the disk.\n"
          "Goes on where it was stopped; DIR/report says how it stands.\n",
          to);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"dir", required_argument, NULL, 'd'},
                                            {"cuts", required_argument, NULL, 'k'},
                                            {"seconds", required_argument, NULL, 's'},
                                            {"round", required_argument, NULL, 'n'},
                                            {"seed", required_argument, NULL, 'S'},
                                            {"lie", required_argument, NULL, 'l'},
                                            {"build", required_argument, NULL, 'b'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    struct cuts s = {.cuts = 50, .round_cuts = 25, .seed = 1, .build = PM_BUILD_DIR, .lie = ""};
    char *dir = NULL;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'd':
            dir = optarg;
            break;
        case 'k':
            s.cuts = (unsigned)atoi(optarg);
            break;
        case 's':
            s.seconds = (unsigned)atoi(optarg);
            break;
        case 'n':
            s.round_cuts = (unsigned)atoi(optarg);
            break;
        case 'S':
            s.seed = (unsigned)atoi(optarg);
            break;
        case 'l':
            s.lie = optarg;
            break;
        case 'b':
            s.build = optarg;
            break;
        case 'h':
            usage(stdout);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    struct pm_error err;
    if (!dir || !s.round_cuts) {
        usage(stderr);
        return 2;
    }
    if (pm_fs_mkdir_p(dir, 0700, &err))
        rig_give_up("%s", err.text);
    s.dir = dir = realpath(dir, NULL); /* the shim compares with real paths */
    if (!dir)
        rig_give_up("no such directory");
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    int rc = run(&s);
    free(dir);
    return rc;
}
