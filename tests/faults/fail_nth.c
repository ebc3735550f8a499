/* The Nth call fails: a fleet reads two small documents while one call of one of its processes fails, for
 * every N until there is no such call any more (or for some, evenly spread).
 *
 *   fail_nth --dir DIR [--samples 4] [--only CASE] [--victim broker|layoutd|worker|collector|client] [--build
 * DIR]
 *
 * --samples 0: every N (minutes to hours; malloc has thousands). Whatever fails: the documents are read right
 * in the end, each is one job, nothing hangs. A process that ends is started again without the fault, as its
 * supervisor would; a refused submit is tried again by its client. Exit: 0 all held, 1 not, 2 usage, 77
 * skipped. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "tests/faults/round.h"

#ifdef PM_SANITIZED
#define LIMIT_US ((int64_t)180 * 1000000)
#else
#define LIMIT_US ((int64_t)60 * 1000000)
#endif

struct fault {
    const char *name, *call;
    int error;
    unsigned more;
};
static const struct fault faults[] = {
    {"write-enospc", "write", ENOSPC, 1},   {"write-enospc-4", "write", ENOSPC, 4},
    {"write-eio", "write", EIO, 1},         {"write-edquot", "write", EDQUOT, 1},
    {"write-short", "short", 0, 1},         {"write-short-all", "short", 0, 1000000},
    {"fsync-eio", "fsync", EIO, 1},         {"fsync-enospc", "fsync", ENOSPC, 1},
    {"open-emfile", "open", EMFILE, 1},     {"open-eio", "open", EIO, 1},
    {"open-enospc", "open", ENOSPC, 3},     {"rename-eio", "rename", EIO, 1},
    {"rename-enospc", "rename", ENOSPC, 1}, {"mmap-enomem", "mmap", ENOMEM, 1},
    {"malloc", "malloc", ENOMEM, 1},
};
#define FAULTS (sizeof faults / sizeof *faults)

struct loops {
    const char *dir, *build;
    unsigned samples;
    uint64_t runs, fired, restarts, refusals;
    uint64_t *count; /* [2], shared with the shim */
    char *count_path;
    bool is_broken;
};

static void make_counter(struct loops *s)
{
    static const char zeros[4096];
    struct pm_error err;
    s->count_path = pm_fs_join(s->dir, "count");
    if (pm_fs_write(s->count_path, zeros, sizeof zeros, false, &err))
        rig_give_up("%s", err.text);
    int fd = open(s->count_path, O_RDWR | O_CLOEXEC);
    s->count = mmap(NULL, sizeof zeros, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || s->count == MAP_FAILED)
        rig_give_up("cannot map %s", s->count_path);
    close(fd);
}

static void say_broken(struct loops *s, const struct fault *f, enum rig_kind victim, uint64_t at,
                       const char *what)
{
    printf("%s, call %llu of the %s: %s\n", f->name, (unsigned long long)at, rig_names[victim], what);
    fflush(stdout);
    s->is_broken = true;
}

/* Lets the clients work until they have ended. */
static void work(struct loops *s, struct rig *r, struct round *c, const struct fault *f, enum rig_kind victim,
                 uint64_t at)
{
    int64_t until = pm_clock_us() + LIMIT_US;
    rig_start_all(r);
    r->setup.env[victim] = NULL; /* who comes after it is well */
    while (!round_is_over(c)) {
        rig_turn(r, 100000);
        rig_start_all(r);
        if (pm_clock_us() > until) {
            say_broken(s, f, victim, at, "it hangs");
            return;
        }
    }
}

/* Refusals that clients were told: each must say what happened. */
static uint64_t count_refusals(const struct rig *r)
{
    struct pm_buf log = {0};
    uint64_t count = 0;
    if (!pm_fs_read(r->log_path, (size_t)1 << 28, &log, NULL)) {
        pm_buf_append(&log, "", 1);
        for (const char *at = (const char *)log.data; (at = strstr(at, "storm_client: ")); at++)
            count++;
    }
    pm_buf_free(&log);
    return count;
}

/* One life of a fleet in which that call fails; at 0: none, to count them. */
static void one_run(struct loops *s, const struct fault *f, enum rig_kind victim, uint64_t at)
{
    char *dir = pm_fs_join(s->dir, "fleet"), *env[8];
    const char *env_list[9] = {0};
    struct rig r;
    struct round c;
    struct verdict v = {0};
    size_t n = 0;
    pm_fs_remove_tree(dir, NULL);
    s->count[0] = s->count[1] = 0;
    env[n++] = pm_xprintf("LD_PRELOAD=%s/tests/libfail_shim.so", s->build);
    env[n++] = pm_xprintf("PM_FAIL_CALL=%s", f->call);
    env[n++] = pm_xprintf("PM_FAIL_AT=%llu", (unsigned long long)at);
    env[n++] = pm_xprintf("PM_FAIL_MORE=%u", f->more);
    env[n++] = pm_xprintf("PM_FAIL_ERRNO=%d", f->error);
    /* A client's ledger is the test's, not its. */
    env[n++] = pm_xprintf("PM_FAIL_ROOT=%s%s", dir, victim == RIG_CLIENT ? "/disk" : "");
    env[n++] = pm_xprintf("PM_FAIL_COUNT=%s", s->count_path);
    env[n++] = pm_xstrdup("ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0");
    for (size_t i = 0; i < n; i++)
        env_list[i] = env[i];
    struct rig_setup setup = {.dir = dir, .build = s->build, .counts = {1, 1, 1, 1, ROUND_CLIENTS}};
    setup.env[victim] = env_list;
    rig_open(&r, &setup);
    round_begin(&c, &r, 0, NULL);
    for (unsigned i = 1; i <= ROUND_CLIENTS; i++) { /* each reads one document */
        size_t last = 0;
        while (c.argv[i][last])
            last++;
        c.argv[i][last] = "--jobs";
        c.argv[i][last + 1] = "1";
    }
    work(s, &r, &c, f, victim, at);
    for (int k = 0; k < RIG_KINDS; k++)
        s->restarts += r.ends[k];
    if (round_is_over(&c)) {
        if (rig_stop_broker(&r, LIMIT_US) < 0)
            say_broken(s, f, victim, at, "the broker does not stop");
        rig_kill_all(&r);
        round_judge(&c, NULL, true, &v);
        if (v.lost || v.doubled || v.wrong || v.unfinished || v.jobs != ROUND_CLIENTS ||
            v.results < ROUND_CLIENTS)
            say_broken(s, f, victim, at, "a promise was broken");
    }
    s->refusals += count_refusals(&r);
    s->runs++;
    s->fired += s->count[1];
    round_free(&c);
    rig_close(&r);
    if (!s->is_broken)
        pm_fs_remove_tree(dir, NULL);
    for (size_t i = 0; i < n; i++)
        free(env[i]);
    free(dir);
}

static void one_loop(struct loops *s, const struct fault *f, enum rig_kind victim)
{
    uint64_t before = s->fired, runs = s->runs;
    if (!s->samples) {
        for (uint64_t at = 1; !s->is_broken; at++) {
            one_run(s, f, victim, at);
            if (!s->count[1])
                break;
        }
    } else {
        one_run(s, f, victim, 0);
        uint64_t total = s->count[0], step = total / s->samples + 1;
        for (uint64_t at = 1 + (uint64_t)rand() % step; at <= total && !s->is_broken; at += step)
            one_run(s, f, victim, at);
    }
    printf("%-10s %-16s %4llu runs, %4llu failed calls\n", rig_names[victim], f->name,
           (unsigned long long)(s->runs - runs), (unsigned long long)(s->fired - before));
    fflush(stdout);
}

static void usage(FILE *to)
{
    fputs("Usage: fail_nth --dir DIR [--samples N] [--only CASE] [--victim PROCESS] [--build DIR]\nCases:",
          to);
    for (size_t i = 0; i < FAULTS; i++)
        fprintf(to, " %s", faults[i].name);
    fputs("\n", to);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"dir", required_argument, NULL, 'd'},
                                            {"samples", required_argument, NULL, 's'},
                                            {"only", required_argument, NULL, 'o'},
                                            {"victim", required_argument, NULL, 'v'},
                                            {"build", required_argument, NULL, 'b'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    struct loops s = {.samples = 4, .build = PM_BUILD_DIR};
    const char *only = NULL, *victim = NULL;
    struct pm_error err;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'd':
            s.dir = optarg;
            break;
        case 's':
            s.samples = (unsigned)atoi(optarg);
            break;
        case 'o':
            only = optarg;
            break;
        case 'v':
            victim = optarg;
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
    if (!s.dir) {
        usage(stderr);
        return 2;
    }
    if (pm_fs_mkdir_p(s.dir, 0700, &err))
        rig_give_up("%s", err.text);
    srand((unsigned)getpid());
    make_counter(&s);
    for (size_t i = 0; i < FAULTS && !s.is_broken; i++)
        for (int kind = 0; kind < RIG_KINDS && !s.is_broken; kind++) {
            bool is_wanted =
                (!only || !strcmp(only, faults[i].name)) && (!victim || !strcmp(victim, rig_names[kind]));
#ifdef PM_SANITIZED
            is_wanted &= strcmp(faults[i].call, "malloc") != 0; /* the sanitizer has its own */
#endif
            if (is_wanted)
                one_loop(&s, &faults[i], (enum rig_kind)kind);
        }
    printf("%llu runs, %llu failed calls, %llu processes ended and came back, %llu refusals told: %s\n",
           (unsigned long long)s.runs, (unsigned long long)s.fired, (unsigned long long)s.restarts,
           (unsigned long long)s.refusals, s.is_broken ? "BROKEN" : "all promises held");
    return s.is_broken || !s.fired;
}
