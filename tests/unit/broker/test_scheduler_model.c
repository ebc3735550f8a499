/* The scheduler against its reference, over seeded random schedules with a fake clock.
 *
 *     test_scheduler_model [--steps N] [--seed S] [--sqlite-steps N] [--tell]
 *
 * N steps in all [1,000,000], in runs of 20,000 with seeds S, S+1, ... [1]; some more with the journal in
 * SQLite [60,000]. Each run is a process of its own. When a rule breaks, steps are left out of the run as
 * long as a rule still breaks, and what is left is printed. --tell plays one run of seed S and prints its
 * steps. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "model_world.h"
#include "reference.h"

#define RUN_STEPS    20000
#define SHRINK_TRIES 400
#define SHRINK_S     60
#define FAILED       3 /* exit status of a run that broke a rule */

/* Shared with the processes of the runs. */
static struct outcome {
    struct model_figures figures;
    uint32_t step;
    char text[400];
} * outcome;

void ref_broken(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(outcome->text, sizeof outcome->text, format, list);
    va_end(list);
    outcome->step = model_step();
    fflush(stdout);
    _exit(FAILED);
}

/* 0: all rules were kept. */
static int play(const struct model_run *run)
{
    fflush(stdout);
    memset(outcome, 0, sizeof *outcome);
    pid_t pid = fork();
    if (!pid) {
        model_play(run, &outcome->figures);
        fflush(stdout);
        exit(0);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return -1;
    if (WIFSIGNALED(status)) {
        snprintf(outcome->text, sizeof outcome->text, "it crashed with signal %d", WTERMSIG(status));
        outcome->step = run->steps - 1;
    }
    return status;
}

/* Leaves out what a rule still breaks without: halves, quarters, ... single steps. */
static void shrink(struct model_run *run)
{
    uint8_t *skipped = pm_xalloc(run->steps), *tried = pm_xalloc(run->steps);
    time_t until = time(NULL) + SHRINK_S;
    int tries = 0;
    run->steps = outcome->step < run->steps ? outcome->step + 1 : run->steps;
    for (uint32_t size = run->steps / 2; size; size /= 2)
        for (uint32_t from = 0; from < run->steps && tries < SHRINK_TRIES && time(NULL) < until;
             from += size) {
            uint32_t count = from + size > run->steps ? run->steps - from : size;
            if (memchr(skipped + from, 0, count) == NULL)
                continue;
            memcpy(tried, skipped, run->steps);
            memset(tried + from, 1, count);
            run->skipped = tried;
            tries++;
            if (play(run)) {
                uint8_t *kept = skipped;
                skipped = tried;
                tried = kept;
            }
        }
    uint32_t left = 0;
    for (uint32_t i = 0; i < run->steps; i++)
        left += !skipped[i];
    printf("the smallest run found has %u steps:\n", left);
    run->skipped = skipped;
    run->is_told = true;
    play(run);
    printf("step %u: %s\n", outcome->step, outcome->text);
    free(tried);
}

static void add(struct model_figures *sum, const struct model_figures *one)
{
    uint64_t *to = (uint64_t *)sum;
    const uint64_t *from = (const uint64_t *)one;
    for (size_t i = 0; i < sizeof *sum / sizeof *to; i++)
        to[i] += from[i];
}

static int play_many(uint64_t seed, uint64_t steps, bool with_sqlite)
{
    struct model_figures sum = {0};
    for (uint64_t done = 0; done < steps; done += RUN_STEPS, seed++) {
        struct model_run run = {.seed = seed,
                                .steps = (uint32_t)(steps - done < RUN_STEPS ? steps - done : RUN_STEPS),
                                .with_sqlite = with_sqlite};
        if (!play(&run)) {
            add(&sum, &outcome->figures);
            continue;
        }
        printf("seed %llu, step %u: %s\n", (unsigned long long)seed, outcome->step, outcome->text);
        shrink(&run);
        printf("again: test_scheduler_model --seed %llu --steps %u%s --tell\n", (unsigned long long)seed,
               run.steps, with_sqlite ? " --sqlite" : "");
        return 1;
    }
    printf(
        "%s: %llu steps, %llu jobs, %llu leases, %llu results (%llu committed, %llu fenced), %llu restarts "
        "(%llu in a turn, %llu leases taken over)\n",
        with_sqlite ? "with SQLite" : "alone", (unsigned long long)sum.steps, (unsigned long long)sum.jobs,
        (unsigned long long)sum.leases, (unsigned long long)sum.results, (unsigned long long)sum.committed,
        (unsigned long long)sum.fenced, (unsigned long long)sum.restarts, (unsigned long long)sum.lost_turns,
        (unsigned long long)sum.adopted);
    printf("    failed attempts: input %llu, crash %llu, killed %llu, timeout %llu, memory %llu, disk %llu, "
           "lost %llu, other %llu; %llu set aside, %llu given up, %llu pages again, %llu jobs tried again\n",
           (unsigned long long)sum.failures[REF_INPUT], (unsigned long long)sum.failures[REF_CRASH],
           (unsigned long long)sum.failures[REF_KILL], (unsigned long long)sum.failures[REF_TIMEOUT],
           (unsigned long long)sum.failures[REF_MEMORY], (unsigned long long)sum.failures[REF_FULL],
           (unsigned long long)sum.failures[REF_LOST], (unsigned long long)sum.failures[REF_OTHER],
           (unsigned long long)sum.quarantined, (unsigned long long)sum.given_up,
           (unsigned long long)sum.reruns, (unsigned long long)sum.retried);
    /* A test that never met what it is for is worthless. */
    bool is_thin = !sum.fenced || !sum.adopted || !sum.lost_turns || !sum.quarantined || !sum.retried;
    for (int i = 0; i < 8; i++)
        is_thin |= !sum.failures[i];
    if (is_thin && steps >= RUN_STEPS)
        printf("something that the model is for never happened\n");
    return is_thin && steps >= RUN_STEPS;
}

int main(int argc, char **argv)
{
    uint64_t steps = 1000000, sqlite_steps = 60000, seed = 1;
    bool is_told = false, with_sqlite = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--tell"))
            is_told = true;
        else if (!strcmp(argv[i], "--sqlite"))
            with_sqlite = true;
        else if (!strcmp(argv[i], "--steps"))
            steps = strtoull(value, NULL, 10), i++;
        else if (!strcmp(argv[i], "--sqlite-steps"))
            sqlite_steps = strtoull(value, NULL, 10), i++;
        else if (!strcmp(argv[i], "--seed"))
            seed = strtoull(value, NULL, 10), i++;
        else
            return fprintf(stderr, "%s: unknown option\n", argv[i]), 64;
    }
    outcome = mmap(NULL, sizeof *outcome, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (outcome == MAP_FAILED)
        return 1;
    if (is_told) {
        struct model_run run = {
            .seed = seed, .steps = (uint32_t)steps, .with_sqlite = with_sqlite, .is_told = true};
        int rc = play(&run);
        printf("%s\n", rc ? outcome->text : "all rules were kept");
        return rc != 0;
    }
    int rc = play_many(seed, steps, false);
    return rc ? rc : play_many(seed + 1000000, sqlite_steps, true);
}
