/* The kill storm: a fleet reads the same document again and again while its processes are killed with SIGKILL
 * at random moments, each kind in turn. Every job must end with the bytes of an undisturbed run, and nothing
 * may be left behind.
 *
 *   storm --pagemill build/pagemill --document DOC.pdf [--kills 20] [--seed 1] [--gap-ms 400] [--jobs-at-once
 * 1]
 *
 * ctest runs a short storm; the long one is `storm --kills 200` (bench size, minutes). Exit: 0 all held, 1 a
 * promise was broken, 2 usage. */
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"

#define JOB_LIMIT_US 120000000 /* a job that takes longer than this under kills hangs */

/* In the order of their turns: a decoder lives only while pages are rendered, so it comes first. */
static const char *const kinds[] = {"pagemill-decode", "pagemill-layoutd", "pagemill-broker",
                                    "pagemill-worker", "pagemill-collector"};
#define KIND_COUNT (sizeof kinds / sizeof *kinds)

struct storm {
    const char *pagemill, *document;
    int kills, gap_ms;
    unsigned seed;
    char *work, *run, *state, *socket;
    int done[KIND_COUNT];
    int jobs, wrong;
};

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

/* ---- processes ---- */

static pid_t start(const char *log, const char *const argv[])
{
    pid_t pid = fork();
    if (pid)
        return pid;
    if (!freopen(log, "a", stdout) || dup2(STDOUT_FILENO, STDERR_FILENO) < 0 ||
        !freopen("/dev/null", "r", stdin))
        _exit(126);
    execv(argv[0], (char *const *)argv);
    _exit(127);
}

static int wait_for(pid_t pid, int64_t limit_us, int *status_out)
{
    int64_t end = pm_clock_us() + limit_us;
    for (;;) {
        pid_t got = waitpid(pid, status_out, WNOHANG);
        if (got == pid)
            return 0;
        if (got < 0 || pm_clock_us() > end)
            return -1;
        usleep(2000);
    }
}

static bool cmdline(pid_t pid, char *out, size_t bytes)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    size_t n = fread(out, 1, bytes - 1, f);
    fclose(f);
    for (size_t i = 0; i < n; i++)
        if (!out[i])
            out[i] = ' ';
    out[n] = 0;
    return n > 0;
}

static pid_t parent_of(pid_t pid)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    size_t n = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    line[n] = 0;
    const char *after = strrchr(line, ')');
    int parent = 0;
    if (!after || sscanf(after + 1, " %*c %d", &parent) != 1)
        return 0;
    return parent;
}

/* A process of our fleet: its command line names our run directory, or (a decoder) its parent's does. */
static bool is_ours(const struct storm *s, pid_t pid, const char *line)
{
    char parent_line[4096];
    if (strstr(line, s->run))
        return true;
    pid_t parent = parent_of(pid);
    return parent > 1 && cmdline(parent, parent_line, sizeof parent_line) && strstr(parent_line, s->run);
}

/* Picks a random living process of a kind (NULL: any, pid of the first); 0 when there is none. */
static pid_t pick(const struct storm *s, const char *kind)
{
    DIR *proc = opendir("/proc");
    pid_t chosen = 0;
    int seen = 0;
    char line[4096];
    for (struct dirent *e; proc && (e = readdir(proc));) {
        pid_t pid = atoi(e->d_name);
        if (pid <= 1 || pid == getpid() || !cmdline(pid, line, sizeof line))
            continue;
        size_t first = strcspn(line, " ");
        line[first] = line[first] ? '\n' : 0; /* keep the rest searchable, end the program's name */
        char *slash = line;
        for (char *p = line; p < line + first; p++)
            if (*p == '/')
                slash = p + 1;
        bool is_kind = !kind ? strncmp(slash, "pagemill", 8) == 0
                             : strncmp(slash, kind, strlen(kind)) == 0 &&
                                   (slash[strlen(kind)] == '\n' || !slash[strlen(kind)]);
        if (is_kind && is_ours(s, pid, line) && rand() % ++seen == 0)
            chosen = pid;
    }
    if (proc)
        closedir(proc);
    return chosen;
}

/* ---- comparing trees ---- */

struct tree {
    char *root;
    char **names;
    size_t count, capacity;
};
static struct tree *walking; /* nftw has no context argument */

static int visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    if (type == FTW_F) {
        PM_GROW(walking->names, walking->count, walking->capacity);
        walking->names[walking->count++] = pm_xstrdup(path + strlen(walking->root) + 1);
    }
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static struct tree read_tree(const char *root)
{
    struct tree t = {.root = pm_xstrdup(root)};
    walking = &t;
    nftw(root, visit, 16, FTW_PHYS);
    if (t.count)
        qsort(t.names, t.count, sizeof *t.names, by_name);
    return t;
}

static void free_tree(struct tree *t)
{
    for (size_t i = 0; i < t->count; i++)
        free(t->names[i]);
    free(t->names);
    free(t->root);
}

static bool same_file(const char *a_root, const char *b_root, const char *name)
{
    struct pm_buf a = {0}, b = {0};
    char *a_path = pm_fs_join(a_root, name), *b_path = pm_fs_join(b_root, name);
    bool same = !pm_fs_read(a_path, (size_t)1 << 30, &a, NULL) &&
                !pm_fs_read(b_path, (size_t)1 << 30, &b, NULL) && a.size == b.size &&
                !memcmp(a.data, b.data, a.size);
    free(a_path);
    free(b_path);
    pm_buf_free(&a);
    pm_buf_free(&b);
    return same;
}

static bool same_trees(const char *expected, const char *got)
{
    struct tree a = read_tree(expected), b = read_tree(got);
    bool same = a.count == b.count && a.count > 0;
    if (!same)
        say("  %zu files expected, %zu are there", a.count, b.count);
    for (size_t i = 0; same && i < a.count; i++) {
        same = !strcmp(a.names[i], b.names[i]) && same_file(expected, got, a.names[i]);
        if (!same)
            say("  %s differs", a.names[i]);
    }
    free_tree(&a);
    free_tree(&b);
    return same;
}

/* ---- the storm ---- */

static int total_kills(const struct storm *s)
{
    int total = 0;
    for (size_t k = 0; k < KIND_COUNT; k++)
        total += s->done[k];
    return total;
}

/* Kills the kind whose turn it is, when one of it lives now. */
static void strike(struct storm *s, size_t *turn)
{
    size_t kind = *turn % KIND_COUNT;
    pid_t pid = pick(s, kinds[kind]);
    if (pid > 0 && !kill(pid, SIGKILL)) {
        s->done[kind]++;
        ++*turn;
    }
}

/* One job, each kind of process killed at most once while it runs. */
static int one_job(struct storm *s, const char *expected, const char *log)
{
    char *out = pm_xprintf("%s/out-%d", s->work, s->jobs);
    const char *argv[] = {s->pagemill, "submit", s->document, "--again", "--wait",
                          "-o",        out,      "--socket",  s->socket, NULL};
    pid_t pid = start(log, argv);
    int64_t end = pm_clock_us() + JOB_LIMIT_US;
    int status = 0, rc = 0;
    size_t turn = 0;
    for (;;) {
        if (!wait_for(pid, (int64_t)(rand() % (2 * s->gap_ms) + 1) * 1000, &status))
            break;
        if (pm_clock_us() > end) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            say("job %d: not done after %d s", s->jobs, JOB_LIMIT_US / 1000000);
            rc = 1;
            break;
        }
        if (total_kills(s) < s->kills && turn < KIND_COUNT)
            strike(s, &turn);
    }
    if (!rc && (!WIFEXITED(status) || WEXITSTATUS(status))) {
        say("job %d: submit ended with status %d", s->jobs,
            WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
        rc = 1;
    }
    if (!rc && !same_trees(expected, out)) {
        say("job %d: the result differs from the undisturbed one (%s)", s->jobs, out);
        rc = 1;
    }
    if (!rc)
        pm_fs_remove_tree(out, NULL);
    free(out);
    s->jobs++;
    s->wrong += rc;
    return rc;
}

static int wait_socket(const struct storm *s, pid_t fleet)
{
    int64_t end = pm_clock_us() + 30000000;
    int status;
    while (access(s->socket, F_OK)) {
        if (pm_clock_us() > end || waitpid(fleet, &status, WNOHANG) == fleet)
            return -1;
        usleep(5000);
    }
    return 0;
}

static int storm(struct storm *s)
{
    char *expected = pm_fs_join(s->work, "expected"), *log = pm_fs_join(s->work, "log");
    const char *baseline[] = {s->pagemill, "parse", s->document, "-o", expected, "--quiet", NULL};
    const char *up[] = {s->pagemill, "up", "--state", s->state, "--run", s->run, "--workers", "2", NULL};
    const char *down[] = {s->pagemill, "down", "--socket", s->socket, NULL};
    int status = 0, rc = 1;
    pid_t fleet = 0;

    if (wait_for(start(log, baseline), JOB_LIMIT_US, &status) || status) {
        say("the undisturbed run failed; see %s", log);
        goto out;
    }
    fleet = start(log, up);
    if (wait_socket(s, fleet)) {
        say("the fleet did not start; see %s", log);
        goto out;
    }
    int64_t began = pm_clock_us();
    do
        one_job(s, expected, log);
    while (total_kills(s) < s->kills && !s->wrong);
    say("%d jobs, %d kills (decode %d, layoutd %d, broker %d, worker %d, collector %d) in %.1f s, %d wrong",
        s->jobs, total_kills(s), s->done[0], s->done[1], s->done[2], s->done[3], s->done[4],
        (double)(pm_clock_us() - began) / 1e6, s->wrong);
    if (wait_for(start(log, down), 60000000, &status) || wait_for(fleet, 60000000, &status)) {
        say("the fleet did not stop");
        goto out;
    }
    fleet = 0;
    if (pick(s, NULL)) {
        say("a process of the fleet is left behind");
        goto out;
    }
    if (!access(s->socket, F_OK)) {
        say("%s is left behind", s->socket);
        goto out;
    }
    rc = s->wrong ? 1 : 0;
out:
    if (fleet > 0)
        kill(fleet, SIGKILL);
    free(expected);
    free(log);
    return rc;
}

static void usage(FILE *to)
{
    fputs("Usage: storm --pagemill PROGRAM --document FILE [--kills N] [--seed N] [--gap-ms N] [--keep]\n"
          "Kills processes of a fleet at random while it reads FILE again and again; compares every result "
          "with an\n"
          "undisturbed one. Exit status: 0 equal every time, 1 not, 2 usage.\n",
          to);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"pagemill", required_argument, NULL, 'p'}, {"document", required_argument, NULL, 'd'},
        {"kills", required_argument, NULL, 'k'},    {"seed", required_argument, NULL, 's'},
        {"gap-ms", required_argument, NULL, 'g'},   {"keep", no_argument, NULL, 'K'},
        {"help", no_argument, NULL, 'h'},           {NULL, 0, NULL, 0}};
    struct storm s = {.kills = 20, .seed = 1, .gap_ms = 150};
    bool keep = false;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'p':
            s.pagemill = optarg;
            break;
        case 'd':
            s.document = optarg;
            break;
        case 'k':
            s.kills = atoi(optarg);
            break;
        case 's':
            s.seed = (unsigned)atoi(optarg);
            break;
        case 'g':
            s.gap_ms = atoi(optarg);
            break;
        case 'K':
            keep = true;
            break;
        case 'h':
            usage(stdout);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    if (!s.pagemill || !s.document || s.kills < 0 || s.gap_ms < 1) {
        usage(stderr);
        return 2;
    }
    srand(s.seed);
    char template[] = "/tmp/pm-storm-XXXXXX";
    if (!mkdtemp(template)) {
        perror("mkdtemp");
        return 1;
    }
    s.work = template;
    s.run = pm_fs_join(template, "run");
    s.state = pm_fs_join(template, "state");
    s.socket = pm_fs_join(s.run, "client.sock");
    int rc = storm(&s);
    if (rc || keep)
        say("kept: %s", template);
    else
        pm_fs_remove_tree(template, NULL);
    free(s.run);
    free(s.state);
    free(s.socket);
    return rc;
}
