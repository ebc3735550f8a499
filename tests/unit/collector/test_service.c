/* The program itself against a broker that the test plays: leases, results, cancel, stop, usage. */
#include "tests/unit/proto/fixture.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock.h"
#include "collector/collector.h"
#include "proto/page.h"

#define PROGRAM PM_BUILD_DIR "/pagemill-collector"
#define PAGES   3000

struct scene {
    struct fake_broker fake;
    struct pm_blobs *blobs;
    pid_t pid;
};

static pid_t run(const char *const argv[])
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        execv(PROGRAM, (char **)(uintptr_t)argv);
        _exit(127);
    }
    return pid;
}

static int exit_status(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int set_up(void **state)
{
    struct scene *s = calloc(1, sizeof *s);
    struct pm_error err = {0};
    fake_init(&s->fake);
    s->fake.beat_ms = 20;
    fake_start(&s->fake);
    if (pm_blobs_open(s->fake.disk, s->fake.pixels, &s->blobs, &err))
        fail_msg("%s", err.text);
    const char *argv[] = {"pagemill-collector", "--endpoint", s->fake.endpoint, "--log-level", "error", NULL};
    s->pid = run(argv);
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *s = *state;
    if (s->pid > 0) {
        kill(s->pid, SIGKILL);
        waitpid(s->pid, NULL, 0);
    }
    pm_blobs_free(&s->blobs);
    fake_end(&s->fake);
    free(s);
    return 0;
}

/* Plays the broker until a condition holds, at most 20 s. */
#define WAIT_FOR(s, condition)                                                                               \
    do {                                                                                                     \
        int64_t end_us = pm_clock_us() + 20000000;                                                           \
        while (!(condition) && pm_clock_us() < end_us) {                                                     \
            fake_turn(&(s)->fake);                                                                           \
            poll(NULL, 0, 1);                                                                                \
        }                                                                                                    \
        assert_true(condition);                                                                              \
    } while (0)

static void lease(struct scene *s, uint64_t task, uint32_t kind, const char *input, const void *payload,
                  size_t bytes)
{
    struct pm_msg_lease l = {.task = task,
                             .epoch = s->fake.epoch,
                             .job = 1,
                             .attempt = 1,
                             .kind = kind,
                             .input = input,
                             .sheet = "",
                             .options = {.formats = "md,json,txt", .stem = "doc"}};
    WAIT_FOR(s, s->fake.hellos > 0 && s->fake.granted > s->fake.given);
    assert_int_equal(fake_send(&s->fake, PM_MSG_LEASE, &l, payload, bytes), 0);
    s->fake.given++;
}

static const struct fake_seen *answer(struct scene *s, uint64_t task)
{
    const struct fake_seen *r = NULL;
    WAIT_FOR(s, (r = fake_last(&s->fake, PM_MSG_RESULT)) && r->task == task);
    return r;
}

static void put_record(struct scene *s, const struct pm_schema *schema, const void *record, char *key)
{
    struct pm_buf b = {0};
    pm_record_encode(schema, record, &b);
    assert_int_equal(pm_blob_put(s->blobs, PM_BLOB_DISK, b.data, b.size, key, NULL), 0);
    pm_buf_free(&b);
}

static void leases_become_results(void **state)
{
    struct scene *s = *state;
    struct pm_page page = {.page = 1, .width = 10, .height = 10, .region_kind = "line"};
    char key[PM_BLOB_KEY_SIZE];
    put_record(s, &pm_page_schema, &page, key);
    lease(s, 1, PM_KIND_ASSEMBLE_PAGE, key, "\x90", 1);
    assert_string_equal(answer(s, 1)->text, ":");
    assert_int_equal(s->fake.hello.role, PM_ROLE_COLLECTOR);
    lease(s, 2, PM_KIND_ASSEMBLE_PAGE, key, "\xDD\xFF\xFF\xFF\xFF", 5); /* hostile */
    assert_memory_equal(answer(s, 2)->text, "protocol:", 9);
    lease(s, 3, PM_KIND_REGION, key, "\x90", 1); /* not ours */
    assert_memory_equal(answer(s, 3)->text, "protocol:", 9);

    struct pm_doc_page one = {.page = 1, .blob = "", .error_code = "crash", .error_text = "why"};
    struct pm_doc_pages pages = {&one, 1};
    struct pm_buf payload = {0};
    pm_record_encode(&pm_doc_pages_schema, &pages, &payload);
    lease(s, 4, PM_KIND_ASSEMBLE_DOC, "", payload.data, payload.size);
    assert_string_equal(answer(s, 4)->text, ":");
    pm_buf_free(&payload);

    kill(s->pid, SIGTERM);
    assert_int_equal(exit_status(s->pid), 0);
    s->pid = 0;
}

/* A cancel reaches a document that is being put together: no result, credit back, next task done. */
static void revoke_stops_a_document(void **state)
{
    struct scene *s = *state;
    static struct pm_out_line lines[50];
    static struct pm_out_region regions[20];
    static struct pm_doc_page list[PAGES];
    char key[PM_BLOB_KEY_SIZE];
    for (int i = 0; i < 50; i++)
        lines[i] = (struct pm_out_line){.text = "a line of text", .quad = {0, 0, 9, 0, 9, 9, 0, 9}};
    for (int i = 0; i < 20; i++)
        regions[i] = (struct pm_out_region){
            .label = PM_LABEL_TEXT, .content = "text", .lines = lines, .line_count = 50};
    struct pm_out_page page = {.page = 1, .width = 9, .height = 9, .regions = regions, .region_count = 20};
    put_record(s, &pm_out_page_schema, &page, key);
    for (uint32_t i = 0; i < PAGES; i++)
        list[i] = (struct pm_doc_page){i + 1, key, "", ""};
    struct pm_doc_pages pages = {list, PAGES};
    struct pm_buf payload = {0};
    pm_record_encode(&pm_doc_pages_schema, &pages, &payload);
    lease(s, 7, PM_KIND_ASSEMBLE_DOC, "", payload.data, payload.size);
    WAIT_FOR(s, fake_count(&s->fake, PM_MSG_BEAT) > 0);
    uint64_t granted = s->fake.granted;
    struct pm_msg_revoke revoke = {.task = 7, .attempt = 1, .reason = "cancelled"};
    assert_int_equal(fake_send(&s->fake, PM_MSG_REVOKE, &revoke, NULL, 0), 0);
    WAIT_FOR(s, s->fake.granted > granted);
    assert_int_equal(fake_count(&s->fake, PM_MSG_RESULT), 0);
    pages.page_count = 1;
    pm_buf_clear(&payload);
    pm_record_encode(&pm_doc_pages_schema, &pages, &payload);
    lease(s, 8, PM_KIND_ASSEMBLE_DOC, "", payload.data, payload.size);
    assert_string_equal(answer(s, 8)->text, ":");
    assert_int_equal(fake_count(&s->fake, PM_MSG_RESULT), 1);
    pm_buf_free(&payload);
}

static void usage_and_classes(void **state)
{
    (void)state;
    static const char *const wrong[][6] = {
        {"pagemill-collector", NULL},
        {"pagemill-collector", "--nonsense", NULL},
        {"pagemill-collector", "--endpoint", "ipc:///x", "extra", NULL},
        {"pagemill-collector", "--endpoint", "ipc:///x", "--credit", "0", NULL},
        {"pagemill-collector", "--endpoint", "ipc:///x", "--log-level", "loud", NULL},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(exit_status(run(wrong[i])), EX_USAGE);
    assert_int_equal(exit_status(run((const char *const[]){"pagemill-collector", "--help", NULL})), 0);
    assert_int_equal(exit_status(run((const char *const[]){"pagemill-collector", "--version", NULL})), 0);
    /* what passes may be tried again; what is wrong stays wrong */
    static const int again[] = {PM_ENOSPC, PM_EIO, PM_ENOMEM, PM_ENOTFOUND, PM_ETIMEOUT, PM_EINTERNAL};
    static const int final[] = {PM_EFORMAT, PM_EPROTO, PM_EINVAL, PM_ELIMIT, PM_EUNSUPPORTED};
    for (size_t i = 0; i < sizeof again / sizeof *again; i++)
        assert_false(pm_collector_is_final(again[i]));
    for (size_t i = 0; i < sizeof final / sizeof *final; i++)
        assert_true(pm_collector_is_final(final[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(leases_become_results, set_up, tear_down),
        cmocka_unit_test_setup_teardown(revoke_stops_a_document, set_up, tear_down),
        cmocka_unit_test(usage_and_classes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
