/* The real broker process, killed and started again, and fake peers that die, hang and come back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "fake.h"

static void killed_broker_loses_nothing(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease open = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &open, 2, 0);
    struct fake_lease page = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &page, 0, 3);
    struct fake_lease one = take_lease(&t.worker), two = take_lease(&t.worker), three = take_lease(&t.worker);
    assert_true(answer_lease(&t.worker, &one, 0, 0));
    uint64_t old_epoch = t.worker.epoch;
    broker_kill(&t.f);
    broker_start(&t.f, NULL);
    /* The worker comes back with `two` and `three` in hand, and with `one` whose acknowledgement it forgot.
     */
    struct pm_held held[] = {{two.task, two.epoch, two.attempt},
                             {three.task, three.epoch, three.attempt},
                             {one.task, one.epoch, one.attempt}};
    service_hello(&t.worker, PM_ROLE_WORKER, "worker-1", 4, 0, held, 3);
    assert_int_equal(t.worker.epoch, old_epoch + 1);
    const struct pm_msg_revoke *revoke = link_expect(&t.worker, PM_MSG_REVOKE);
    assert_int_equal(revoke->task, one.task);
    assert_true(answer_lease(&t.worker, &two, 0, 0)); /* under the old epoch: it was adopted */
    assert_true(answer_lease(&t.worker, &three, 0, 0));
    assert_false(answer_lease(&t.worker, &three, 0, 0)); /* twice is fenced */
    assert_false(answer_lease(&t.worker, &one, 0, 0));
    link_close(&t.client);
    client_open(&t.client, &t.f, "alice");
    assert_int_equal(counter(&t.client, "sched_adopted"), 2);
    assert_int_equal(counter(&t.client, "results_fenced"), 2);
    service_hello(&t.layoutd, PM_ROLE_LAYOUTD, "layoutd-1", 1, 0, NULL, 0);
    service_hello(&t.collector, PM_ROLE_COLLECTOR, "collector-1", 1, 0, NULL, 0);
    struct pm_job_info info = serve_until_done(&t, job, 2, 3);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.pages_done, 2);
    assert_int_equal(info.regions_done, 6);
    assert_int_equal(info.regions, 6);
    fleet_close(&t);
}

static void broker_killed_again_and_again(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t jobs[3];
    for (int i = 0; i < 3; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        jobs[i] = submit(&t.client, key, key, NULL);
    }
    for (int round = 0; round < 12; round++) {
        struct link *all[] = {&t.layoutd, &t.worker, &t.collector};
        for (int i = 0; i < 3; i++) {
            struct fake_lease lease;
            for (int n = 0; n < 3 && try_lease(all[i], 20, &lease); n++)
                send_answer(all[i], &lease, 3, 4); /* may be on its way when the broker dies */
        }
        broker_kill(&t.f);
        broker_start(&t.f, NULL);
        service_hello(&t.layoutd, PM_ROLE_LAYOUTD, "layoutd-1", 1, 0, NULL, 0);
        service_hello(&t.worker, PM_ROLE_WORKER, "worker-1", 4, 0, NULL, 0);
        service_hello(&t.collector, PM_ROLE_COLLECTOR, "collector-1", 1, 0, NULL, 0);
    }
    link_close(&t.client);
    client_open(&t.client, &t.f, "alice");
    for (int i = 0; i < 3; i++) {
        struct pm_job_info info = serve_until_done(&t, jobs[i], 3, 4);
        assert_int_equal(info.state, PM_JOB_DONE);
        assert_int_equal(info.pages_done, 3);
        assert_int_equal(info.regions_done, 12);
    }
    fleet_close(&t);
}

/* Crashes whose traces are gone before the broker looks (its parent was quicker), told by a note afterwards.
 */
static void crash_is_known_from_the_note(void **state)
{
    (void)state;
    struct fleet t;
    int notes[2];
    char number[16];
    fixture_open(&t.f);
    assert_int_equal(pipe(notes), 0);
    snprintf(number, sizeof number, "%d", notes[0]);
    t.f.keep_fd = notes[0];
    broker_start(&t.f, (const char *const[]){"--deaths-fd", number, NULL});
    client_open(&t.client, &t.f, "alice");
    service_open(&t.layoutd, &t.f, PM_ROLE_LAYOUTD, "layoutd-1", 1);
    service_open(&t.collector, &t.f, PM_ROLE_COLLECTOR, "collector-1", 1);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 1, 0);
    l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 0, 1);
    signal(SIGCHLD, SIG_IGN); /* children vanish without a trace */
    for (int round = 0; round < 4; round++) {
        pid_t victim = start_victim();
        struct link doomed;
        char name[16], line[40];
        snprintf(name, sizeof name, "doomed-%d", round);
        link_open(&doomed, &t.f, "work.sock");
        service_hello(&doomed, PM_ROLE_WORKER, name, 1, (uint64_t)victim, NULL, 0);
        take_lease(&doomed);
        snprintf(line, sizeof line, "%d %d\n", (int)victim, round % 2 ? SIGSEGV : SIGKILL);
        /* In the first rounds the note comes after the broker has noticed, then before. */
        if (round >= 2)
            assert_int_equal(write(notes[1], line, strlen(line)), (ssize_t)strlen(line));
        kill(victim, SIGKILL);
        for (int64_t until = pm_clock_us() + 10000000;
             counter(&t.client, "peers_gone") < (uint64_t)round + 1 && pm_clock_us() < until;)
            usleep(2000);
        if (round < 2)
            assert_int_equal(write(notes[1], line, strlen(line)), (ssize_t)strlen(line));
        link_close(&doomed);
    }
    signal(SIGCHLD, SIG_DFL);
    service_open(&t.worker, &t.f, PM_ROLE_WORKER, "worker-9", 4);
    struct pm_job_info info = serve_until_done(&t, job, 1, 1);
    assert_int_equal(info.regions_failed, 1); /* two crashes; the two kills would have been forgiven */
    assert_int_equal(counter(&t.client, "sched_quarantined"), 1);
    struct pm_job_info full = job_status(&t.client, job);
    assert_int_equal(full.error_count, 1);
    assert_string_equal(full.errors[0].code, "crash");
    close(notes[0]);
    close(notes[1]);
    fleet_close(&t);
}

static void dead_worker_is_noticed_and_its_answer_fenced(void **state)
{
    (void)state;
    struct fleet t;
    fixture_open(&t.f);
    broker_start(&t.f, NULL);
    client_open(&t.client, &t.f, "alice");
    service_open(&t.layoutd, &t.f, PM_ROLE_LAYOUTD, "layoutd-1", 1);
    service_open(&t.collector, &t.f, PM_ROLE_COLLECTOR, "collector-1", 1);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 1, 0);
    service_open(&t.worker, &t.f, PM_ROLE_WORKER, "worker-2", 0);
    pid_t victim = start_victim();
    struct link doomed;
    link_open(&doomed, &t.f, "work.sock");
    service_hello(&doomed, PM_ROLE_WORKER, "doomed", 8, (uint64_t)victim, NULL, 0);
    l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 0, 2);
    struct fake_lease first = take_lease(&doomed), second = take_lease(&doomed);
    int64_t before = pm_clock_us();
    kill(victim, SIGKILL);
    struct pm_msg_credit credit = {.granted = 4};
    link_send(&t.worker, PM_MSG_CREDIT, &credit);
    t.worker.granted = 4;
    struct fake_lease again = take_lease(&t.worker);
    assert_true(pm_clock_us() - before < 3000000); /* long before its beats would have been missed (5 s) */
    assert_true(again.task == first.task || again.task == second.task);
    assert_true(again.attempt > (again.task == first.task ? first : second).attempt);
    /* What the dead one had sent is read late: nobody takes it. */
    send_answer(&doomed, &first, 0, 0);
    uint32_t type;
    const struct pm_msg_refuse *refuse = link_receive(&doomed, &type);
    assert_int_equal(type, PM_MSG_REFUSE);
    assert_non_null(strstr(refuse->text, "hello first"));
    assert_true(answer_lease(&t.worker, &again, 0, 0));
    struct pm_job_info info = serve_until_done(&t, job, 1, 2);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.regions_done, 2);
    assert_int_equal(info.retries, 2);
    waitpid(victim, NULL, 0);
    link_close(&doomed);
    fleet_close(&t);
}

/* A worker that is stopped (SIGSTOP) goes on "receiving": the kernel's buffers take its leases, and transport
 * heartbeats notice only after seconds. Its missing beats tell. */
static void stopped_worker_is_replaced(void **state)
{
    (void)state;
    struct fleet t;
    fixture_open(&t.f);
    broker_start(&t.f, (const char *const[]){"--stall", "1", NULL});
    client_open(&t.client, &t.f, "alice");
    service_open(&t.layoutd, &t.f, PM_ROLE_LAYOUTD, "layoutd-1", 1);
    service_open(&t.collector, &t.f, PM_ROLE_COLLECTOR, "collector-1", 1);
    char *path = pm_fs_join(PM_BUILD_DIR, "tests/poison_worker");
    char *endpoint = pm_xprintf("ipc://%s/work.sock", t.f.run);
    const char *argv[] = {"poison_worker", "--endpoint", endpoint, "--name", "stopped", NULL};
    struct pm_spawn spec = {.path = path,
                            .argv = argv,
                            .stdin_fd = -1,
                            .stdout_fd = -1,
                            .stderr_fd = -1,
                            .die_with_parent = true};
    struct pm_child worker;
    assert_int_equal(pm_spawn(&spec, &worker, NULL), 0);
    uint32_t peers = 0;
    for (int64_t until = pm_clock_us() + 10000000; peers < 3 && pm_clock_us() < until;) {
        struct pm_msg_stats q = {.ref = 11};
        link_send(&t.client, PM_MSG_STATS, &q);
        peers = ((const struct pm_msg_fleet *)link_expect(&t.client, PM_MSG_FLEET))->peer_count;
    }
    assert_int_equal(peers, 3);
    assert_int_equal(pm_child_signal(&worker, SIGSTOP), 0);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 1, 0);
    l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 0, 3);
    int status = 0;
    pm_child_reap(&worker, &status); /* the broker ends it: nobody else could */
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    service_open(&t.worker, &t.f, PM_ROLE_WORKER, "worker-2", 4);
    struct pm_job_info info = serve_until_done(&t, job, 1, 3);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.regions_done, 3);
    free(path);
    free(endpoint);
    fleet_close(&t);
}

/* A second HELLO on the same connection begins the count of credit anew and gives back what is not held. */
static void hello_twice(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 1, 0);
    l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 0, 6);
    struct fake_lease held = take_lease(&t.worker);
    for (int i = 0; i < 3; i++)
        take_lease(&t.worker);
    struct pm_held mine = {held.task, held.epoch, held.attempt};
    service_hello(&t.worker, PM_ROLE_WORKER, "worker-1", 2, 0, &mine, 1);
    struct fake_lease second = take_lease(&t.worker), third;
    assert_true(second.task != held.task);
    assert_false(try_lease(&t.worker, 100, &third)); /* two in hand is all it asked for */
    /* The same connection as somebody else: what the first one had is given to others. */
    service_hello(&t.worker, PM_ROLE_COLLECTOR, "collector-2", 1, 0, NULL, 0);
    assert_false(answer_lease(&t.worker, &held, 0, 0));
    link_close(&t.worker);
    service_open(&t.worker, &t.f, PM_ROLE_WORKER, "worker-3", 4);
    struct pm_job_info info = serve_until_done(&t, job, 1, 6);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.regions_done, 6);
    fleet_close(&t);
}

static void worker_that_left_without_a_word(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 1, 0);
    link_close(&t.worker); /* the socket goes, and nobody said so */
    l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 0, 3);
    service_open(&t.worker, &t.f, PM_ROLE_WORKER, "worker-2", 4);
    struct pm_job_info info = serve_until_done(&t, job, 1, 3);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.regions_failed, 0);
    assert_true(counter(&t.client, "leases_unsent") > 0);
    fleet_close(&t);
}

static void stalled_worker_is_fenced(void **state)
{
    (void)state;
    struct fleet t;
    fixture_open(&t.f);
    broker_start(&t.f, (const char *const[]){"--stall", "1", NULL});
    client_open(&t.client, &t.f, "alice");
    service_open(&t.layoutd, &t.f, PM_ROLE_LAYOUTD, "layoutd-1", 1);
    service_open(&t.collector, &t.f, PM_ROLE_COLLECTOR, "collector-1", 1);
    pid_t victim = start_victim();
    struct link wedged;
    link_open(&wedged, &t.f, "work.sock");
    service_hello(&wedged, PM_ROLE_WORKER, "wedged", 4, (uint64_t)victim, NULL, 0);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 1, 0);
    l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 0, 1);
    struct fake_lease stuck = take_lease(&wedged);
    /* Beats keep it: twice the limit passes without a revoke. */
    for (int64_t until = pm_clock_us() + 2000000; pm_clock_us() < until;) {
        struct pm_progress progress = {stuck.task, stuck.attempt, 100};
        struct pm_msg_beat beat = {.leases = &progress, .lease_count = 1};
        link_send(&wedged, PM_MSG_BEAT, &beat);
        assert_true(link_is_silent(&wedged, 200));
    }
    const struct pm_msg_revoke *revoke = link_expect(&wedged, PM_MSG_REVOKE); /* then it goes quiet */
    assert_int_equal(revoke->task, stuck.task);
    int status; /* silent still: the process is ended */
    assert_int_equal(waitpid(victim, &status, 0), victim);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    service_open(&t.worker, &t.f, PM_ROLE_WORKER, "worker-2", 4);
    struct pm_job_info info = serve_until_done(&t, job, 1, 1);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.retries, 1);
    link_close(&wedged);
    fleet_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_broker_loses_nothing),
        cmocka_unit_test(broker_killed_again_and_again),
        cmocka_unit_test(crash_is_known_from_the_note),
        cmocka_unit_test(dead_worker_is_noticed_and_its_answer_fenced),
        cmocka_unit_test(stopped_worker_is_replaced),
        cmocka_unit_test(hello_twice),
        cmocka_unit_test(worker_that_left_without_a_word),
        cmocka_unit_test(stalled_worker_is_fenced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
