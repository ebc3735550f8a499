/* Supervision: spawning, deaths, back-off, lines, giving up, and children that die with their parent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/supervise.h"

#define LIMIT_US 20000000 /* only a guard against hanging */

static struct pm_service shell(const char *name, const char *const argv[4])
{
    return (struct pm_service){.name = name,
                               .spawn = {.path = "/bin/sh",
                                         .argv = argv,
                                         .stdin_fd = -1,
                                         .stdout_fd = -1,
                                         .stderr_fd = -1,
                                         .die_with_parent = true,
                                         .own_group = true},
                               .capture_stderr = true};
}

/* The next event of a kind; others pass by. */
static struct pm_supervise_event next(struct pm_supervise *s, enum pm_supervise_kind kind)
{
    struct pm_supervise_event e;
    int64_t until = pm_clock_us() + LIMIT_US;
    do
        pm_supervise_turn(s, NULL, 0, 1000000, &e);
    while (e.kind != kind && pm_clock_us() < until);
    assert_int_equal(e.kind, kind);
    return e;
}

static void test_backoff(void **state)
{
    (void)state;
    struct pm_backoff b = {0};
    assert_int_equal(pm_backoff_next(&b, 0), 50000);
    assert_int_equal(pm_backoff_next(&b, 0), 100000);
    for (int i = 0; i < 10; i++)
        pm_backoff_next(&b, 0);
    assert_int_equal(pm_backoff_next(&b, 0), 5000000);
    assert_int_equal(b.early_deaths, 13);
    /* 12 s of life take two doublings back, and the death adds one. */
    assert_int_equal(pm_backoff_next(&b, 12000000), 2500000);
    assert_int_equal(b.early_deaths, 0);
    assert_int_equal(pm_backoff_next(&b, 60000000), 50000); /* forgotten */
    assert_int_equal(pm_backoff_next(&b, INT64_MAX), 50000);
}

static void test_restart_after_kill(void **state)
{
    (void)state;
    static const char *const argv[] = {"sh", "-c", "echo hello >&2; exec sleep 1000", NULL};
    struct pm_supervise *s = pm_supervise_new();
    struct pm_service service = shell("sleeper", argv);
    pm_supervise_add(s, &service);
    pid_t first = next(s, PM_SUPERVISE_STARTED).pid;
    struct pm_supervise_event e = next(s, PM_SUPERVISE_LINE);
    assert_string_equal(e.text, "hello");
    assert_string_equal(e.name, "sleeper");
    assert_int_equal(kill(first, SIGKILL), 0);
    e = next(s, PM_SUPERVISE_DIED);
    assert_int_equal(e.pid, first);
    assert_true(WIFSIGNALED(e.status) && WTERMSIG(e.status) == SIGKILL);
    assert_int_equal(e.delay_us, 50000);
    assert_non_null(strstr(e.text, "signal 9"));
    pid_t second = next(s, PM_SUPERVISE_STARTED).pid;
    assert_int_not_equal(first, second);
    assert_int_equal(pm_supervise_alive(s), 1);
    pm_supervise_hold(s);
    pm_supervise_signal(s, 0, SIGTERM);
    e = next(s, PM_SUPERVISE_DIED);
    assert_int_equal(e.delay_us, -1);
    assert_int_equal(pm_supervise_alive(s), 0);
    pm_supervise_free(&s);
}

static void test_wrong_configuration_is_fatal(void **state)
{
    (void)state;
    static const char *const argv[] = {
        "sh", "-c",
        "echo starting >&2; echo 2026-01-02T03:04:05.678Z error worker-1[77] no model here >&2; exit 78",
        NULL};
    struct pm_supervise *s = pm_supervise_new();
    struct pm_service service = shell("reader", argv);
    pm_supervise_add(s, &service);
    struct pm_supervise_event e = next(s, PM_SUPERVISE_FATAL);
    assert_string_equal(e.text, "reader cannot start: no model here (exit code 78)");
    pm_supervise_turn(s, NULL, 0, 100000, &e);
    assert_int_equal(e.kind, PM_SUPERVISE_NONE); /* it stays down */
    pm_supervise_free(&s);
}

/* Events of the same service, without its lines. */
static struct pm_supervise_event next_but_lines(struct pm_supervise *s)
{
    struct pm_supervise_event e;
    int64_t until = pm_clock_us() + LIMIT_US;
    do
        pm_supervise_turn(s, NULL, 0, 1000000, &e);
    while ((e.kind == PM_SUPERVISE_LINE || e.kind == PM_SUPERVISE_NONE) && pm_clock_us() < until);
    return e;
}

static void test_replace(void **state)
{
    (void)state;
    static const char *const argv[] = {"sh", "-c", "exec sleep 1000", NULL};
    struct pm_supervise *s = pm_supervise_new();
    struct pm_service service = shell("sleeper", argv);
    pm_supervise_add(s, &service);
    pid_t first = next(s, PM_SUPERVISE_STARTED).pid;
    pm_supervise_replace(s, 0);
    assert_true(pm_supervise_has_leaving(s, 0));
    pid_t second = next(s, PM_SUPERVISE_STARTED).pid;
    assert_int_not_equal(first, second);
    assert_int_equal(pm_supervise_alive(s), 2);
    assert_int_equal(pm_supervise_pid(s, 0), second);
    assert_int_equal(pm_supervise_ready(s, first), SIZE_MAX); /* that one is leaving */
    assert_int_equal(pm_supervise_ready(s, second), 0);
    pm_supervise_dismiss(s, 0, SIGTERM);
    struct pm_supervise_event e = next_but_lines(s);
    assert_int_equal(e.kind, PM_SUPERVISE_LEFT);
    assert_int_equal(e.pid, first);
    assert_int_equal(e.index, 0);
    assert_string_equal(e.name, "sleeper");
    assert_false(pm_supervise_has_leaving(s, 0));
    assert_int_equal(pm_supervise_alive(s), 1);
    /* The other way round: told to leave, its successor comes at once and without a back-off. */
    pm_supervise_restart(s, 0, SIGTERM);
    assert_int_equal(next_but_lines(s).kind, PM_SUPERVISE_LEFT);
    e = next_but_lines(s);
    assert_int_equal(e.kind, PM_SUPERVISE_STARTED);
    assert_int_not_equal(e.pid, second);
    /* Freeing ends leaving processes, too. */
    pm_supervise_replace(s, 0);
    next(s, PM_SUPERVISE_STARTED);
    pm_supervise_free(&s);
    assert_int_equal(kill(e.pid, 0), -1);
}

static void test_take_back(void **state)
{
    (void)state;
    /* The second start of this service cannot work. */
    char *mark = pm_xprintf("/tmp/pm-supervise-%d", (int)getpid());
    char *script = pm_xprintf("test -e %s && exit 78; touch %s; exec sleep 1000", mark, mark);
    const char *const argv[] = {"sh", "-c", script, NULL};
    struct pm_supervise *s = pm_supervise_new();
    struct pm_service service = shell("upgraded", argv);
    pm_supervise_add(s, &service);
    pid_t first = next(s, PM_SUPERVISE_STARTED).pid;
    int64_t until = pm_clock_us() + LIMIT_US;
    while (access(mark, F_OK) && pm_clock_us() < until)
        usleep(1000);
    pm_supervise_replace(s, 0);
    next(s, PM_SUPERVISE_STARTED);
    assert_int_equal(next_but_lines(s).kind, PM_SUPERVISE_FATAL);
    assert_true(pm_supervise_take_back(s, 0));
    assert_int_equal(pm_supervise_pid(s, 0), first);
    assert_int_equal(pm_supervise_alive(s), 1);
    assert_false(pm_supervise_take_back(s, 0)); /* there is nothing to take back any more */
    assert_int_equal(kill(first, SIGKILL), 0);
    assert_int_equal(next(s, PM_SUPERVISE_DIED).pid, first); /* it is watched as before */
    pm_supervise_free(&s);
    unlink(mark);
    free(script);
    free(mark);
}

/* What dies of its work, however often, is no reason to give up; what never works is. */
static void test_deaths_after_ready_do_not_count(void **state)
{
    (void)state;
    static const char *const argv[] = {"sh", "-c", "read line; exit 3", NULL};
    int gate[2];
    assert_int_equal(pipe(gate), 0);
    struct pm_supervise *s = pm_supervise_new();
    struct pm_service service = shell("worker", argv);
    service.give_up_after = 2;
    service.tells_ready = true;
    service.spawn.stdin_fd = gate[0];
    pm_supervise_add(s, &service);
    for (int i = 0; i < 4; i++) {
        pid_t pid = next(s, PM_SUPERVISE_STARTED).pid;
        assert_int_equal(pm_supervise_ready(s, pid), 0);
        assert_int_equal(write(gate[1], "\n", 1), 1);
        assert_int_equal(next_but_lines(s).kind, PM_SUPERVISE_DIED);
    }
    for (int i = 0; i < 2; i++) {
        next(s, PM_SUPERVISE_STARTED);
        assert_int_equal(write(gate[1], "\n", 1), 1);
        assert_int_equal(next_but_lines(s).kind, i ? PM_SUPERVISE_FATAL : PM_SUPERVISE_DIED);
    }
    pm_supervise_free(&s);
    close(gate[0]);
    close(gate[1]);
}

static void test_gives_up(void **state)
{
    (void)state;
    static const char *const argv[] = {"sh", "-c", "echo broken >&2; exit 3", NULL};
    struct pm_supervise *s = pm_supervise_new();
    struct pm_service service = shell("fragile", argv);
    service.give_up_after = 3;
    pm_supervise_add(s, &service);
    assert_int_equal(next(s, PM_SUPERVISE_DIED).delay_us, 50000);
    assert_int_equal(next(s, PM_SUPERVISE_DIED).delay_us, 100000);
    struct pm_supervise_event e = next(s, PM_SUPERVISE_FATAL);
    assert_non_null(strstr(e.text, "3 times in a row"));
    assert_non_null(strstr(e.text, "broken"));
    pm_supervise_free(&s);
}

static void test_missing_program_is_fatal(void **state)
{
    (void)state;
    static const char *const argv[] = {"nobody", NULL};
    struct pm_supervise *s = pm_supervise_new();
    struct pm_service service = {
        .name = "nobody",
        .spawn = {
            .path = "/nonexistent/program", .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1}};
    pm_supervise_add(s, &service);
    struct pm_supervise_event e = next(s, PM_SUPERVISE_FATAL);
    assert_non_null(strstr(e.text, "/nonexistent/program"));
    pm_supervise_free(&s);
}

static void test_finished_on_zero(void **state)
{
    (void)state;
    static const char *const argv[] = {"sh", "-c", "exit 0", NULL};
    struct pm_supervise *s = pm_supervise_new();
    struct pm_service service = shell("once", argv);
    service.is_finished_on_zero = true;
    pm_supervise_add(s, &service);
    next(s, PM_SUPERVISE_FINISHED);
    assert_int_equal(pm_supervise_alive(s), 0);
    pm_supervise_free(&s);
}

/* Long lines are cut, control characters do not reach the log, the last line counts without its newline. */
static void test_lines(void **state)
{
    (void)state;
    static const char *const argv[] = {
        "sh", "-c", "printf 'a\\033[1mb\\n' >&2; printf '%3000s\\n' x >&2; printf end >&2; exit 78", NULL};
    struct pm_supervise *s = pm_supervise_new();
    struct pm_service service = shell("writer", argv);
    pm_supervise_add(s, &service);
    assert_string_equal(next(s, PM_SUPERVISE_LINE).text, "a?[1mb");
    assert_int_equal(strlen(next(s, PM_SUPERVISE_LINE).text), 1023);
    assert_int_equal(strlen(next(s, PM_SUPERVISE_LINE).text), 1023);
    assert_int_equal(strlen(next(s, PM_SUPERVISE_LINE).text), 954);
    assert_string_equal(next(s, PM_SUPERVISE_LINE).text, "end");
    next(s, PM_SUPERVISE_FATAL);
    pm_supervise_free(&s);
}

static void test_free_kills(void **state)
{
    (void)state;
    static const char *const argv[] = {"sh", "-c", "trap '' TERM INT; while :; do sleep 1000; done", NULL};
    struct pm_supervise *s = pm_supervise_new();
    struct pm_service service = shell("stubborn", argv);
    pm_supervise_add(s, &service);
    pid_t pid = next(s, PM_SUPERVISE_STARTED).pid;
    pm_supervise_free(&s);
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(errno, ESRCH);
}

/* Descriptors, environment, signals and group of the child are what was asked for. */
static void test_spawn_is_clean(void **state)
{
    (void)state;
    int out[2], kept[2], leaked[2];
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(pipe2(kept, O_CLOEXEC), 0);
    assert_int_equal(pipe2(leaked, O_CLOEXEC), 0);
    char *script =
        pm_xprintf("echo \"$PM_PROBE $HOME\"; test -e /proc/$$/fd/%d && echo kept; test -e /proc/$$/fd/%d || "
                   "echo closed; test $(ps -o pgid= -p $$) = $$ && echo group; grep SigIgn /proc/$$/status",
                   kept[1], leaked[1]);
    const char *const argv[] = {"sh", "-c", script, NULL};
    const char *const environment[] = {"PM_PROBE=yes", "HOME=/elsewhere", NULL};
    struct pm_spawn spawn = {.path = "/bin/sh",
                             .argv = argv,
                             .set_env = environment,
                             .keep_fds = &kept[1],
                             .keep_count = 1,
                             .stdin_fd = -1,
                             .stdout_fd = out[1],
                             .stderr_fd = -1,
                             .own_group = true};
    struct pm_child child;
    struct pm_error err;
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(pm_spawn(&spawn, &child, &err), 0);
    close(out[1]);
    char text[1000];
    size_t n = 0;
    ssize_t got;
    while ((got = read(out[0], text + n, sizeof text - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = 0;
    int status;
    assert_int_equal(pm_child_reap(&child, &status), 0);
    assert_non_null(strstr(text, "yes /elsewhere\n"));
    assert_non_null(strstr(text, "kept\n"));
    assert_non_null(strstr(text, "closed\n"));
    assert_non_null(strstr(text, "SigIgn:\t0000000000000000\n"));
    assert_int_equal(pm_child_signal(&child, SIGTERM), PM_EGONE);
    for (int i = 0; i < 2; i++) {
        close(kept[i]);
        close(leaked[i]);
    }
    close(out[0]);
    free(script);
}

/* A supervisor that is killed with SIGKILL takes its children along. The grandchild holds a pipe: its end of
 * file proves that nobody is left. */
static void test_children_die_with_parent(void **state)
{
    (void)state;
    int alive[2], started[2];
    assert_int_equal(pipe2(alive, O_CLOEXEC), 0);
    assert_int_equal(pipe2(started, O_CLOEXEC), 0);
    pid_t supervisor = fork();
    assert_true(supervisor >= 0);
    if (!supervisor) {
        static const char *const argv[] = {"sh", "-c", "exec sleep 1000", NULL};
        struct pm_spawn spawn = {.path = "/bin/sh",
                                 .argv = argv,
                                 .keep_fds = &alive[1],
                                 .keep_count = 1,
                                 .stdin_fd = -1,
                                 .stdout_fd = -1,
                                 .stderr_fd = -1,
                                 .die_with_parent = true};
        struct pm_child child;
        char done = pm_spawn(&spawn, &child, NULL) ? 'n' : 'y';
        if (write(started[1], &done, 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(alive[1]);
    char c = 0;
    assert_int_equal(read(started[0], &c, 1), 1);
    assert_int_equal(c, 'y');
    assert_int_equal(kill(supervisor, SIGKILL), 0);
    assert_int_equal(waitpid(supervisor, NULL, 0), supervisor);
    struct pollfd end = {.fd = alive[0], .events = POLLIN};
    assert_int_equal(poll(&end, 1, LIMIT_US / 1000), 1);
    assert_int_equal(read(alive[0], &c, 1), 0);
    close(alive[0]);
    close(started[0]);
    close(started[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backoff),
        cmocka_unit_test(test_restart_after_kill),
        cmocka_unit_test(test_wrong_configuration_is_fatal),
        cmocka_unit_test(test_replace),
        cmocka_unit_test(test_take_back),
        cmocka_unit_test(test_deaths_after_ready_do_not_count),
        cmocka_unit_test(test_gives_up),
        cmocka_unit_test(test_missing_program_is_fatal),
        cmocka_unit_test(test_finished_on_zero),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_free_kills),
        cmocka_unit_test(test_spawn_is_clean),
        cmocka_unit_test(test_children_die_with_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
