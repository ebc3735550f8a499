/* The kill storm: a fleet reads documents for clients while its processes and the clients are killed with
 * SIGKILL at random moments, several a second, and started again at once.
 *
 *   storm --dir DIR [--kills 200] [--seconds 0] [--rate 8] [--round 250] [--real --models DIR --document PDF]
 *         [--seed 1] [--build DIR]
 *
 * What must hold, looked at when a round of kills is over and everything has ended, and by the clients all
 * the time: each accepted job is there and done (0 lost), each key is one job and each region, page and job
 * was committed once (0 doubled, counted by triggers in the journal), and the bytes of every result are those
 * of an undisturbed run: known beforehand for the documents of document.h, read in peace at the start for
 * real ones.
 *
 * The state of the storm is in DIR: the same command goes on where it was stopped, until --kills are reached.
 * DIR/report says how it stands. --seconds stops sooner (0: not). Exit: 0 all held, 1 a promise was broken, 2
 * usage. */
#include <getopt.h>
#include <math.h>
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
#include "tests/faults/round.h"

#define HANG_US    ((int64_t)180 * 1000000)
#define SAVE_KILLS 20

struct totals { /* what DIR/progress keeps */
    uint64_t kills[RIG_KINDS], rounds, ends, seconds, slowest_start_us, longest_silence_us;
    struct verdict sum;
};
struct storm {
    const char *dir, *build, *models, *document;
    bool is_real;
    unsigned kills, seconds, round_kills, seed;
    double rate;
    struct totals t;
    struct rig rig;
    char *progress_path, *journal;
    int64_t began_us, saved_us;
    bool is_broken;
};
static volatile sig_atomic_t is_stopped;

static void stop(int signal_number)
{
    (void)signal_number;
    is_stopped = 1;
}

/* ---- what is kept ---- */

#define FIELDS(X)                                                                                            \
    X(rounds)                                                                                                \
    VERDICT_FIELDS(X) X(ends) X(seconds) X(slowest_start_us) X(longest_silence_us)

static uint64_t total_kills(const struct totals *t)
{
    uint64_t total = 0;
    for (int k = 0; k < RIG_KINDS; k++)
        total += t->kills[k];
    return total;
}

static void save(struct storm *s)
{
    struct pm_buf b = {0};
    struct pm_error err;
    int64_t now = pm_clock_us();
    s->t.seconds += (uint64_t)(now - s->saved_us) / 1000000;
    s->saved_us += (now - s->saved_us) / 1000000 * 1000000;
    for (int k = 0; k < RIG_KINDS; k++)
        pm_buf_printf(&b, "kills_%s %llu\n", rig_names[k], (unsigned long long)s->t.kills[k]);
#define X(name) pm_buf_printf(&b, #name " %llu\n", (unsigned long long)s->t.name);
    FIELDS(X)
#undef X
    if (pm_fs_write(s->progress_path, b.data, b.size, true, &err))
        rig_give_up("%s", err.text);
    pm_buf_free(&b);
}

static void load(struct storm *s)
{
    FILE *f = fopen(s->progress_path, "r");
    char name[64];
    unsigned long long value;
    while (f && fscanf(f, "%63s %llu", name, &value) == 2) {
        for (int k = 0; k < RIG_KINDS; k++)
            if (!strncmp(name, "kills_", 6) && !strcmp(name + 6, rig_names[k]))
                s->t.kills[k] = value;
#define X(field)                                                                                             \
    if (!strcmp(name, #field))                                                                               \
        s->t.field = value;
        FIELDS(X)
#undef X
    }
    if (f)
        fclose(f);
}

static void report(struct storm *s)
{
    struct pm_buf b = {0};
    const struct totals *t = &s->t;
    bool is_good =
        !t->sum.lost && !t->sum.doubled && !t->sum.wrong && !t->sum.unfinished && !t->ends && !s->is_broken;
    pm_buf_printf(&b, "kill storm, %s services\n", s->is_real ? "real" : "fast");
    pm_buf_printf(&b, "kills            %llu in %llu s:", (unsigned long long)total_kills(t),
                  (unsigned long long)t->seconds);
    for (int k = 0; k < RIG_KINDS; k++)
        pm_buf_printf(&b, " %s %llu", rig_names[k], (unsigned long long)t->kills[k]);
    pm_buf_printf(
        &b,
        "\njobs             %llu accepted, %llu results received, %llu submitted again\n"
        "commits          %llu pages, %llu regions\n"
        "lost             %llu\ndoubled          %llu\nwrong results    %llu\nnot done         %llu\n"
        "ended unasked    %llu\n"
        "slowest broker   %.3f s from its start to serving\n"
        "longest silence  %.3f s between two results\n"
        "verdict          %s\n",
        (unsigned long long)t->sum.jobs, (unsigned long long)t->sum.results,
        (unsigned long long)t->sum.resubmits, (unsigned long long)t->sum.pages,
        (unsigned long long)t->sum.regions, (unsigned long long)t->sum.lost,
        (unsigned long long)t->sum.doubled, (unsigned long long)t->sum.wrong,
        (unsigned long long)t->sum.unfinished, (unsigned long long)t->ends, (double)t->slowest_start_us / 1e6,
        (double)t->longest_silence_us / 1e6, is_good ? "all promises held" : "BROKEN");
    char *path = pm_fs_join(s->dir, "report");
    pm_fs_write(path, b.data, b.size, true, NULL);
    free(path);
    fputs((const char *)b.data, stdout);
    fflush(stdout);
    pm_buf_free(&b);
}

/* ---- the storm ---- */

/* Services that end unasked are a defect: the broker kills only who is wedged, and nobody is. */
static void count_ends(struct storm *s)
{
    for (int k = 0; k < RIG_KINDS; k++) {
        if (!s->rig.ends[k])
            continue;
        char how[128];
        pm_status_describe(s->rig.last_end[k], how, sizeof how);
        printf("a %s ended unasked: %s; see %s\n", rig_names[k], how, s->rig.log_path);
        s->t.ends += s->rig.ends[k];
        s->rig.ends[k] = 0;
    }
}

static void strike(struct storm *s)
{
    struct rig_process *p;
    /* Each kind as often as another, each of a kind as well. */
    enum rig_kind kind = (enum rig_kind)(rand() % RIG_KINDS);
    unsigned count = kind == RIG_BROKER ? 1 : s->rig.setup.counts[kind];
    p = rig_find(&s->rig, kind, 1 + (unsigned)rand() % count);
    if (!p || !p->child.pid)
        return;
    rig_kill(&s->rig, p);
    s->t.kills[kind]++;
    rig_start(&s->rig, p);
}

static int64_t next_gap_us(const struct storm *s)
{
    double u = ((double)rand() + 1) / ((double)RAND_MAX + 2);
    return (int64_t)(-log(u) / s->rate * 1e6);
}

/* Runs until the clients have ended (kills: strikes on the way, then lets them end). */
static void blow(struct storm *s, struct round *c, uint64_t kills)
{
    uint64_t until = total_kills(&s->t) + kills, saved = total_kills(&s->t);
    int64_t now = pm_clock_us(), heard_us = now, strike_us = now + next_gap_us(s);
    off_t known = round_knowledge(c);
    bool is_ending = false;
    while (!round_is_over(c) && !s->is_broken && !is_stopped) {
        rig_turn(&s->rig, strike_us > now ? strike_us - now < 20000 ? strike_us - now : 20000 : 0);
        count_ends(s);
        rig_start_all(&s->rig);
        now = pm_clock_us();
        bool is_late = s->seconds && now - s->began_us > (int64_t)s->seconds * 1000000;
        if (!is_ending && (total_kills(&s->t) >= until || is_late)) {
            is_ending = true;
            round_finish(c);
        }
        if (!is_ending && now >= strike_us) {
            strike(s);
            strike_us = now + next_gap_us(s);
        }
        off_t now_known = round_knowledge(c);
        uint64_t silence = (uint64_t)(now - heard_us);
        if (silence > s->t.longest_silence_us)
            s->t.longest_silence_us = silence;
        if (now_known != known)
            heard_us = now;
        known = now_known;
        if (silence > (uint64_t)HANG_US) {
            printf("hangs: no client has learnt anything for %.0f s\n", (double)silence / 1e6);
            s->is_broken = true;
        }
        if (total_kills(&s->t) >= saved + SAVE_KILLS) {
            saved = total_kills(&s->t);
            save(s);
        }
    }
}

static void end_round(struct storm *s, struct round *c)
{
    struct ledger calm;
    char *path = pm_fs_join(s->dir, "calm.ledger");
    int status = rig_stop_broker(&s->rig, 60000000);
    if (!WIFEXITED(status) || WEXITSTATUS(status)) {
        printf("the broker did not stop as asked: status %d\n", status);
        s->is_broken = true;
    }
    rig_kill_all(&s->rig);
    ledger_read(path, &calm);
    if (s->is_real && calm.count < ROUND_REAL_PAGES)
        rig_give_up("the undisturbed run is not whole: remove %s", s->dir);
    round_judge(c, s->is_real ? &calm : NULL, true, &s->t.sum);
    ledger_free(&calm);
    free(path);
    s->t.rounds++;
    if ((uint64_t)s->rig.slowest_start_us > s->t.slowest_start_us)
        s->t.slowest_start_us = (uint64_t)s->rig.slowest_start_us;
    save(s);
    report(s);
}

/* One round. A storm that was stopped in the middle of one goes on in it: its ledgers are there. */
static void one_round(struct storm *s)
{
    struct round c;
    uint64_t left = s->kills - total_kills(&s->t);
    round_begin(&c, &s->rig, s->t.rounds, s->is_real ? s->document : NULL);
    rig_start_all(&s->rig);
    blow(s, &c, left < s->round_kills ? left : s->round_kills);
    if (is_stopped) {
        save(s);
        round_free(&c);
        return;
    }
    end_round(s, &c);
    rig_start(&s->rig, &s->rig.processes[0]);
    if (!rig_wait_ready(&s->rig, HANG_US))
        rig_give_up("the broker does not start; see %s", s->rig.log_path);
    if (!round_forget(&c)) {
        printf("the jobs of a round could not be forgotten\n");
        s->is_broken = true;
    }
    round_free(&c);
}

/* The journal with its triggers, and what real documents read as when nobody is killed. */
static void prepare(struct storm *s)
{
    rig_start(&s->rig, &s->rig.processes[0]);
    if (!rig_wait_ready(&s->rig, HANG_US) || rig_stop_broker(&s->rig, 60000000))
        rig_give_up("the broker does not start and stop; see %s", s->rig.log_path);
    audit_install(s->journal);
    if (!s->is_real)
        return;
    char *program = rig_program(&s->rig, "tests/storm_client"), *ledger = pm_fs_join(s->dir, "calm.ledger");
    const char *argv[] = {"storm_client", "--socket", s->rig.socket, "--ledger",   ledger,      "--name",
                          "calm",         "--jobs",   "20",          "--document", s->document, NULL};
    s->rig.client_argv[1] = s->rig.client_argv[2] = NULL;
    for (unsigned i = 1; i <= ROUND_CLIENTS; i++)
        rig_find(&s->rig, RIG_CLIENT, i)->has_ended = true;
    rig_start_all(&s->rig);
    if (rig_run(&s->rig, program, argv, 600000000))
        rig_give_up("the undisturbed run failed; see %s", s->rig.log_path);
    rig_kill_all(&s->rig);
    struct audit a = {0};
    audit_commits(s->journal, &a);
    free(program);
    free(ledger);
}

static int run(struct storm *s)
{
    struct rig_setup setup = {.dir = s->dir,
                              .build = s->build,
                              .is_real = s->is_real,
                              .models = s->models,
                              .counts = {1, s->is_real ? 1 : 2, 2, s->is_real ? 1 : 2, ROUND_CLIENTS}};
    rig_open(&s->rig, &setup);
    s->journal = pm_fs_join(s->rig.state, "journal.db");
    s->progress_path = pm_fs_join(s->dir, "progress");
    s->began_us = s->saved_us = pm_clock_us();
    srand(s->seed + (unsigned)getpid());
    load(s);
    if (!pm_fs_is_file(s->progress_path)) {
        prepare(s);
        save(s);
    }
    while (total_kills(&s->t) < s->kills && !s->is_broken && !is_stopped &&
           !(s->seconds && pm_clock_us() - s->began_us > (int64_t)s->seconds * 1000000))
        one_round(s);
    rig_close(&s->rig);
    report(s);
    const struct totals *t = &s->t;
    free(s->journal);
    free(s->progress_path);
    return s->is_broken || t->sum.lost || t->sum.doubled || t->sum.wrong || t->sum.unfinished || t->ends;
}

static void usage(FILE *to)
{
    fputs("Usage: storm --dir DIR [--kills N] [--seconds N] [--rate KILLS_A_SECOND] [--round KILLS]\n"
          "             [--real --models DIR --document PDF] [--seed N] [--build DIR]\n"
          "Kills processes of a fleet and its clients at random; nothing accepted may be lost, doubled or "
          "differ.\n"
          "Goes on where it was stopped; DIR/report says how it stands.\n",
          to);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"dir", required_argument, NULL, 'd'},    {"kills", required_argument, NULL, 'k'},
        {"rate", required_argument, NULL, 'r'},   {"seconds", required_argument, NULL, 's'},
        {"round", required_argument, NULL, 'n'},  {"real", no_argument, NULL, 'R'},
        {"models", required_argument, NULL, 'm'}, {"document", required_argument, NULL, 'D'},
        {"seed", required_argument, NULL, 'S'},   {"build", required_argument, NULL, 'b'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    struct storm s = {.kills = 200, .rate = 8, .round_kills = 250, .seed = 1, .build = PM_BUILD_DIR};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'd':
            s.dir = optarg;
            break;
        case 'k':
            s.kills = (unsigned)atoi(optarg);
            break;
        case 's':
            s.seconds = (unsigned)atoi(optarg);
            break;
        case 'r':
            s.rate = atof(optarg);
            break;
        case 'n':
            s.round_kills = (unsigned)atoi(optarg);
            break;
        case 'R':
            s.is_real = true;
            break;
        case 'm':
            s.models = optarg;
            break;
        case 'D':
            s.document = optarg;
            break;
        case 'S':
            s.seed = (unsigned)atoi(optarg);
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
    if (!s.dir || s.rate <= 0 || !s.round_kills || (s.is_real && (!s.models || !s.document))) {
        usage(stderr);
        return 2;
    }
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    return run(&s);
}
