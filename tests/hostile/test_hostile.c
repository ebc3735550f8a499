/* Everything that a hostile process of the same user can do to the broker's sockets, while an honest fleet
 * works through the same broker: nothing crashes, memory stays below a ceiling, the honest jobs are done
 * without a single retry, and what was refused was counted. (Rates are measured in bench/queue.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "fake.h"

#define CEILING_KB (PM_TEST_CEILING_MB * 1024)
#define GOLDEN     PM_TEST_DATA "/proto"

struct attack {
    const char *mode, *socket;
    unsigned count, processes, together; /* together: running at the same time */
};

static uint64_t figure_of(pid_t pid, const char *file, const char *name)
{
    char path[64], line[256];
    unsigned long long value = 0;
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, name, strlen(name)))
            (void)sscanf(line + strlen(name), "%llu", &value);
    fclose(f);
    return value;
}

static struct pm_child start_attacker(struct fixture *f, const struct attack *a, unsigned seed, int out_fd)
{
    char seed_text[16], count_text[16];
    char *socket = pm_fs_join(f->run, a->socket);
    snprintf(seed_text, sizeof seed_text, "%u", seed);
    snprintf(count_text, sizeof count_text, "%u", a->count);
    const char *argv[] = {"attacker", a->mode, socket, seed_text, count_text, GOLDEN, NULL};
    struct pm_spawn spec = {.path = PM_BUILD_DIR "/tests/attacker",
                            .argv = argv,
                            .stdin_fd = -1,
                            .stdout_fd = out_fd,
                            .stderr_fd = STDERR_FILENO,
                            .die_with_parent = true};
    struct pm_child child;
    struct pm_error err;
    if (pm_spawn(&spec, &child, &err))
        fail_msg("%s", err.text);
    free(socket);
    return child;
}

static bool has_ended(struct pm_child *c)
{
    int status = 0;
    if (poll(&(struct pollfd){.fd = c->pidfd, .events = POLLIN}, 1, 0) != 1)
        return false;
    pm_child_reap(c, &status);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    return true;
}

/* One honest document from its submit to its end. */
static void honest_job(struct fleet *t, unsigned number)
{
    char key[32];
    snprintf(key, sizeof key, "honest-%u", number);
    uint64_t job = submit(&t->client, key, key, NULL);
    struct pm_job_info info = serve_until_done(t, job, 2, 3);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.retries, 0);
    assert_int_equal(info.pages_failed, 0);
}

/* Runs the attack's processes, some at a time, and honest jobs meanwhile. What left the attackers. */
static uint64_t withstand(struct fleet *t, const struct attack *a)
{
    static unsigned honest, seed;
    struct pm_child running[16];
    unsigned started = 0, alive = 0, jobs = 0;
    int out[2];
    uint64_t sent = 0;
    assert_int_equal(pipe(out), 0);
    assert_true(a->together <= 16);
    while (started < a->processes || alive) {
        while (alive < a->together && started < a->processes) {
            running[alive++] = start_attacker(&t->f, a, ++seed, out[1]);
            started++;
        }
        honest_job(t, ++honest);
        jobs++;
        for (unsigned i = 0; i < alive;)
            if (has_ended(&running[i]))
                running[i] = running[--alive];
            else
                i++;
    }
    close(out[1]);
    FILE *f = fdopen(out[0], "r");
    unsigned long n;
    while (fscanf(f, "%lu", &n) == 1)
        sent += n;
    fclose(f);
    honest_job(t, ++honest);
    uint64_t peak = figure_of(t->f.broker.pid, "status", "VmHWM:");
    printf("%-10s %8llu sent, %u honest jobs meanwhile, broker's memory at most %llu MB\n", a->mode,
           (unsigned long long)sent, jobs, (unsigned long long)peak / 1024);
    assert_in_range(peak, 1, CEILING_KB);
    return sent;
}

static void attacks(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    /* Many short-lived processes, because each is kept out for a while once it was put out. */
    uint64_t sent = withstand(&t, &(struct attack){"malformed", "client.sock", 1000, PM_TEST_STORMS, 4});
    sent += withstand(&t, &(struct attack){"malformed", "work.sock", 1000, PM_TEST_STORMS, 4});
    assert_true(sent >= 1200u * PM_TEST_STORMS);
    assert_true(counter(&t.client, "malformed_messages") > 10u * PM_TEST_STORMS);
    assert_true(counter(&t.client, "cut_for_breach") >= PM_TEST_STORMS);
    (void)withstand(&t, &(struct attack){"zmtp", "client.sock", 120, 2, 2});
    (void)withstand(&t, &(struct attack){"zmtp", "work.sock", 120, 2, 2});
    assert_true(counter(&t.client, "handshakes_failed") > 0);
    (void)withstand(&t, &(struct attack){"giant", "client.sock", 30, 4, 2});
    (void)withstand(&t, &(struct attack){"giant", "work.sock", 30, 2, 2});
    (void)withstand(&t, &(struct attack){"lists", "client.sock", 700, 3, 3});
    (void)withstand(&t, &(struct attack){"mute", "client.sock", 700, 3, 3});
    (void)withstand(&t, &(struct attack){"uploads", "client.sock", 50, 2, 2});
    assert_true(counter(&t.client, "uploads_refused") > 0);
    (void)withstand(&t, &(struct attack){"posing", "work.sock", 20, 2, 1});
    assert_int_equal(broker_stop(&t.f), 0);
    fleet_close(&t);
}

/* More connections than there may be, none of which says a word: those who are there go on, services can
 * still come, and after a while everybody can. */
static void thousands_of_connections(void **state)
{
    (void)state;
    struct fleet t;
    struct link late;
    fleet_open(&t);
    uint64_t sent = withstand(&t, &(struct attack){"idle", "client.sock", PM_TEST_CONNECTIONS, 1, 1});
    assert_int_equal(sent, PM_TEST_CONNECTIONS);
    assert_true(counter(&t.client, "connections_over_limit") > 0);
    assert_true(counter(&t.client, "connections_silent") > 0); /* greeted, and no hello */
    assert_true(counter(&t.client, "handshakes_failed") > 0);  /* not even that */
    client_open(&late, &t.f, "late");
    link_close(&late);
    assert_true(figure_of(t.f.broker.pid, "limits", "Max open files") >= PM_TEST_CONNECTIONS);
    assert_int_equal(broker_stop(&t.f), 0);
    fleet_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(attacks), cmocka_unit_test(thousands_of_connections)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
