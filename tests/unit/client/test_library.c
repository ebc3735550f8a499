/* libpagemill against a broker that does what the test wants: both ways of moving documents, deadlines, busy,
 * lost connections, hostile answers, events and event loops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "client/lib/internal.h"
#include "tests/unit/client/fake_broker.h"

#define LIMIT_MS 20000 /* a guard against hanging only */

static struct fake_broker fake;

static int start(void **state)
{
    (void)state;
    fake_start(&fake);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    fake_stop(&fake);
    return 0;
}

static pagemill *connect_to(int is_remote, int cancel_fd)
{
    struct pagemill_connect_options o = PAGEMILL_CONNECT_OPTIONS_INIT;
    struct pagemill_error err = {0};
    pagemill *pm = NULL;
    o.is_remote = is_remote;
    o.cancel_fd = cancel_fd;
    if (pagemill_connect(fake.endpoint, &o, LIMIT_MS, &pm, &err))
        fail_msg("%s", err.text);
    return pm;
}

static uint64_t submit(pagemill *pm, const char *text)
{
    uint64_t job = 0;
    struct pagemill_error err = {0};
    if (pagemill_submit_memory(pm, text, strlen(text), NULL, LIMIT_MS, &job, &err))
        fail_msg("%s", err.text);
    return job;
}

static void test_no_fleet(void **state)
{
    (void)state;
    struct pagemill_error err;
    pagemill *pm = (pagemill *)&err;
    assert_int_equal(pagemill_connect("ipc:///nonexistent/client.sock", NULL, 50, &pm, &err), PAGEMILL_EGONE);
    assert_null(pm);
    assert_non_null(strstr(err.text, "/nonexistent/client.sock"));
    assert_int_equal(pagemill_connect("no-such-transport://x", NULL, 50, &pm, &err), PAGEMILL_EINVAL);
    pagemill_close(&pm); /* NULL is fine */
}

static void test_submit_and_status(void **state)
{
    (void)state;
    pagemill *pm = connect_to(0, -1);
    struct pagemill_error err;
    struct pagemill_submit_options o = PAGEMILL_SUBMIT_OPTIONS_INIT;
    uint64_t job = 0, again = 0;
    assert_true(pagemill_is_connected(pm));
    o.name = "folder/My scan.v2.pdf";
    o.key = "once";
    o.pages = "1-20,31";
    o.dpi = 300;
    o.priority = 4;
    o.no_deskew = 1;
    assert_int_equal(pagemill_submit_memory(pm, "%PDF", 4, &o, LIMIT_MS, &job, &err), 0);
    assert_int_equal(fake.last_submit.options.dpi, 300);
    assert_int_equal(fake.last_submit.priority, 4);
    assert_int_equal(fake.last_submit.source_bytes, 4);
    assert_true(fake.last_submit.options.no_deskew && !fake.last_submit.options.no_orientation);
    assert_string_equal(fake.jobs[job - 1].stem, "My scan.v2");
    assert_int_equal(fake.uploads, 0); /* same host: by the file system */
    assert_int_equal(pagemill_submit_memory(pm, "%PDF", 4, &o, LIMIT_MS, &again, &err), 0);
    assert_true(again == job);
    struct pagemill_jobs *jobs;
    assert_int_equal(pagemill_status(pm, job, LIMIT_MS, &jobs, &err), 0);
    assert_string_equal(jobs->jobs[0].name, "folder/My scan.v2.pdf");
    assert_int_equal(jobs->jobs[0].state, PAGEMILL_JOB_RUNNING);
    assert_int_equal(jobs->jobs[0].error_count, 1);
    assert_string_equal(jobs->jobs[0].errors[0].text, "too large");
    pagemill_jobs_free(&jobs);
    assert_null(jobs);
    assert_int_equal(pagemill_status(pm, 999, LIMIT_MS, &jobs, &err), PAGEMILL_ENOTFOUND);
    assert_string_equal(err.text, "there is no such job");
    pagemill_close(&pm);
    assert_null(pm);
}

static void test_refused_options(void **state)
{
    (void)state;
    pagemill *pm = connect_to(0, -1);
    struct pagemill_submit_options o = PAGEMILL_SUBMIT_OPTIONS_INIT;
    uint64_t job;
    o.pages = "5-3";
    assert_int_equal(pagemill_submit_memory(pm, "x", 1, &o, LIMIT_MS, &job, NULL), PAGEMILL_EINVAL);
    o.pages = NULL;
    o.name = "\xff";
    assert_int_equal(pagemill_submit_memory(pm, "x", 1, &o, LIMIT_MS, &job, NULL), PAGEMILL_EINVAL);
    o.name = NULL;
    o.priority = 5;
    assert_int_equal(pagemill_submit_memory(pm, "x", 1, &o, LIMIT_MS, &job, NULL), PAGEMILL_EINVAL);
    assert_int_equal(pagemill_submit_path(pm, "/nonexistent.pdf", NULL, LIMIT_MS, &job, NULL),
                     PAGEMILL_ENOTFOUND);
    assert_int_equal(pagemill_submit_path(pm, "/tmp", NULL, LIMIT_MS, &job, NULL), PAGEMILL_EINVAL);
    assert_int_equal(pagemill_submit_path(pm, "/dev/zero", NULL, LIMIT_MS, &job, NULL), PAGEMILL_EINVAL);
    assert_int_equal(fake.submits, 0);
    pagemill_close(&pm);
}

/* Sizes around a chunk, over the socket, from memory, file and pipe: the store holds the same bytes. */
static void test_upload(void **state)
{
    (void)state;
    static const size_t sizes[] = {
        0, 1, PM_CHUNK_BYTES - 1, PM_CHUNK_BYTES, PM_CHUNK_BYTES + 1, 20 * PM_CHUNK_BYTES + 12345};
    pagemill *pm = connect_to(1, -1);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *data = pm_xalloc(sizes[i] + 1);
        uint64_t random = 88172645463325252u + i;
        for (size_t k = 0; k < sizes[i]; k++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            data[k] = (uint8_t)random;
        }
        uint64_t jobs[2];
        struct pagemill_error err = {0};
        if (pagemill_submit_memory(pm, data, sizes[i], NULL, LIMIT_MS, &jobs[0], &err))
            fail_msg("%zu bytes: %s", sizes[i], err.text);
        char path[] = "/tmp/pm-upload-XXXXXX";
        int fd = mkstemp(path);
        assert_int_equal(pm_fs_write_all(fd, data, sizes[i], NULL), 0);
        assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
        assert_int_equal(pagemill_submit_fd(pm, fd, NULL, LIMIT_MS, &jobs[1], &err), 0);
        close(fd);
        unlink(path);
        for (int k = 0; k < 2; k++) {
            struct pm_blob_map map;
            assert_int_equal(pm_blob_map(fake.blobs, fake.jobs[jobs[k] - 1].source, &map, NULL), 0);
            assert_int_equal(map.bytes, sizes[i]);
            if (sizes[i])
                assert_memory_equal(map.data, data, sizes[i]);
            pm_blob_unmap(&map);
        }
        free(data);
    }
    assert_int_equal(fake.uploads, 12);
    pagemill_close(&pm);
}

/* The broker goes away in the middle of an upload: it is sent again from its start. */
static void test_upload_survives_a_restart(void **state)
{
    (void)state;
    pagemill *pm = connect_to(1, -1);
    size_t bytes = 10 * PM_CHUNK_BYTES;
    char *data = pm_xalloc(bytes + 1);
    memset(data, 'x', bytes);
    fake.lose_link = 1;
    uint64_t job = submit(pm, data);
    struct pm_blob_map map;
    assert_int_equal(pm_blob_map(fake.blobs, fake.jobs[job - 1].source, &map, NULL), 0);
    assert_int_equal(map.bytes, bytes);
    pm_blob_unmap(&map);
    assert_true(fake.hellos >= 2);
    free(data);
    pagemill_close(&pm);
}

/* A shared path that is not a shared file system: the source is sent after all. */
static void test_falls_back_to_upload(void **state)
{
    (void)state;
    pagemill *pm = connect_to(0, -1);
    fake.forget_sources = 1;
    assert_true(submit(pm, "%PDF") > 0);
    assert_int_equal(fake.uploads, 1);
    pagemill_close(&pm);
}

static void test_busy(void **state)
{
    (void)state;
    pagemill *pm = connect_to(0, -1);
    uint64_t job;
    struct pagemill_error err;
    fake.busy = 3;
    assert_true(submit(pm, "x") > 0); /* asked again */
    assert_int_equal(fake.submits, 4);
    fake.busy = 1000000;
    assert_int_equal(pagemill_submit_memory(pm, "x", 1, NULL, 100, &job, &err), PAGEMILL_EBUSY);
    assert_string_equal(err.text, "the queue is full");
    pagemill_close(&pm);
}

static void test_deadline(void **state)
{
    (void)state;
    pagemill *pm = connect_to(0, -1);
    struct pagemill_jobs *jobs;
    struct pagemill_error err;
    fake.swallow = 1;
    assert_int_equal(pagemill_list(pm, NULL, 50, &jobs, &err), PAGEMILL_ETIMEOUT);
    assert_null(jobs);
    assert_int_equal(pagemill_list(pm, NULL, LIMIT_MS, &jobs, &err), 0); /* the handle is as good as before */
    assert_int_equal(jobs->count, 0);
    pagemill_jobs_free(&jobs);
    pagemill_close(&pm);
}

static void test_cancel_fd(void **state)
{
    (void)state;
    int pipe_fds[2];
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    pagemill *pm = connect_to(0, pipe_fds[0]);
    struct pagemill_jobs *jobs;
    const struct pagemill_event *event;
    fake.swallow = 1;
    assert_int_equal(write(pipe_fds[1], "x", 1), 1);
    assert_int_equal(pagemill_list(pm, NULL, -1, &jobs, NULL), PAGEMILL_ECANCELLED);
    assert_int_equal(pagemill_next_event(pm, -1, &event, NULL), PAGEMILL_ECANCELLED);
    pagemill_close(&pm);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

/* Requests outlive a broker that dies without answering; a submit makes one job only. */
static void test_requests_survive_a_restart(void **state)
{
    (void)state;
    pagemill *pm = connect_to(0, -1);
    for (int i = 1; i <= 5; i++) {
        fake.lose_link = 1;
        assert_int_equal(submit(pm, "x"), i);
    }
    assert_int_equal(fake.job_count, 5);
    assert_int_equal(fake.hellos, 6);
    pagemill_close(&pm);
}

static void test_watches_are_renewed(void **state)
{
    (void)state;
    pagemill *pm = connect_to(0, -1);
    const struct pagemill_event *event;
    struct pagemill_jobs *jobs;
    struct pagemill_error err;
    assert_int_equal(pagemill_watch(pm, 0, "batch", 0, LIMIT_MS, &err), 0);
    fake.lose_link = 1;
    assert_int_equal(pagemill_list(pm, NULL, LIMIT_MS, &jobs, &err), 0);
    pagemill_jobs_free(&jobs);
    assert_int_equal(pagemill_next_event(pm, LIMIT_MS, &event, &err), 0);
    assert_int_equal(event->kind, PAGEMILL_EVENT_RESYNC);
    assert_string_equal(event->job.name, "");
    assert_int_equal(fake.watches, 2);
    pagemill_close(&pm);
}

static void test_events(void **state)
{
    (void)state;
    pagemill *pm = connect_to(0, -1);
    struct pagemill_error err;
    const struct pagemill_event *event;
    uint64_t job = submit(pm, "x");
    fake.finish_on_watch = 1;
    fake.progress_events = 50;
    assert_int_equal(pagemill_next_event(pm, 0, &event, &err), PAGEMILL_ETIMEOUT);
    assert_null(event);
    assert_int_equal(pagemill_watch(pm, job, NULL, 0, LIMIT_MS, &err), 0);
    struct pagemill_stats *stats; /* a request after it: all events have arrived when it is answered */
    assert_int_equal(pagemill_stats(pm, LIMIT_MS, &stats, &err), 0);
    pagemill_stats_free(&stats);
    /* Blocking calls took the bytes off the socket; the descriptor must tell of the queued events. */
    struct pollfd fd = {.fd = pagemill_fd(pm), .events = POLLIN};
    assert_int_equal(poll(&fd, 1, LIMIT_MS), 1);
    assert_int_equal(pagemill_next_event(pm, 0, &event, &err), 0);
    assert_int_equal(event->kind, PAGEMILL_EVENT_PROGRESS); /* fifty became one */
    assert_int_equal(pagemill_next_event(pm, 0, &event, &err), 0);
    assert_int_equal(event->kind, PAGEMILL_EVENT_PAGE);
    assert_int_equal(event->page, 1);
    void *data;
    size_t bytes;
    assert_int_equal(pagemill_blob_read(pm, event->page_blob, LIMIT_MS, &data, &bytes, &err), 0);
    assert_string_equal(data, "hello");
    pagemill_free(data);
    assert_int_equal(pagemill_next_event(pm, 0, &event, &err), 0);
    assert_int_equal(event->kind, PAGEMILL_EVENT_STATE);
    assert_int_equal(event->job.state, PAGEMILL_JOB_DONE);
    assert_true(event->job.job == job);
    assert_int_equal(pagemill_next_event(pm, 0, &event, &err), PAGEMILL_ETIMEOUT);
    pagemill_close(&pm);
}

/* An event loop that sleeps on the descriptor alone sees everything, also the connection coming back. */
static void test_event_loop(void **state)
{
    (void)state;
    pagemill *pm = connect_to(0, -1);
    uint64_t job = submit(pm, "x");
    fake.finish_on_watch = 1;
    assert_int_equal(pagemill_watch(pm, 0, "all", 0, LIMIT_MS, NULL), 0);
    assert_int_equal(pagemill_watch(pm, job, NULL, 0, LIMIT_MS, NULL), 0);
    bool seen_end = false;
    int64_t until = pm_clock_us() + LIMIT_MS * 1000;
    while (!seen_end && pm_clock_us() < until) {
        struct pollfd fd = {.fd = pagemill_fd(pm), .events = POLLIN};
        const struct pagemill_event *event;
        assert_int_equal(poll(&fd, 1, LIMIT_MS), 1);
        assert_int_equal(pagemill_process(pm, NULL), 0);
        while (!pagemill_next_event(pm, 0, &event, NULL))
            seen_end |= event->kind == PAGEMILL_EVENT_STATE && pagemill_job_is_final((int)event->job.state);
    }
    assert_true(seen_end);
    pagemill_close(&pm);
}

static void test_wait(void **state)
{
    (void)state;
    pagemill *pm = connect_to(0, -1);
    struct pagemill_error err;
    struct pagemill_jobs *status;
    uint64_t job = submit(pm, "x"), slow = submit(pm, "y"), bad = submit(pm, "z");
    fake.finish_on_watch = 1;
    assert_int_equal(pagemill_wait(pm, job, LIMIT_MS, &status, &err), 0);
    assert_int_equal(status->jobs[0].state, PAGEMILL_JOB_DONE);
    pagemill_jobs_free(&status);
    fake.finish_on_watch = 0;
    assert_int_equal(pagemill_wait(pm, slow, 50, &status, &err), PAGEMILL_ETIMEOUT);
    pagemill_jobs_free(&status);
    fake.jobs[bad - 1].state = PM_JOB_FAILED;
    assert_int_equal(pagemill_wait(pm, bad, LIMIT_MS, NULL, &err), PAGEMILL_EPASSWORD);
    assert_string_equal(err.text, "the password is wrong");
    assert_int_equal(pagemill_cancel(pm, slow, LIMIT_MS, &err), 0);
    assert_int_equal(pagemill_wait(pm, slow, LIMIT_MS, NULL, &err), PAGEMILL_ECANCELLED);
    /* A restart meanwhile: the end was reached without an event. */
    uint64_t lost = submit(pm, "w");
    fake.lose_link = 1;
    fake.jobs[lost - 1].state = PM_JOB_DONE;
    assert_int_equal(pagemill_wait(pm, lost, LIMIT_MS, NULL, &err), 0);
    pagemill_close(&pm);
}

static void test_list_and_batch(void **state)
{
    (void)state;
    pagemill *pm = connect_to(0, -1);
    struct pagemill_submit_options o = PAGEMILL_SUBMIT_OPTIONS_INIT;
    struct pagemill_list_options l = PAGEMILL_LIST_OPTIONS_INIT;
    struct pagemill_jobs *jobs;
    uint64_t job;
    uint32_t count = 0;
    for (int i = 0; i < 6; i++) {
        o.batch = i % 2 ? "odd" : "even";
        assert_int_equal(pagemill_submit_memory(pm, "x", 1, &o, LIMIT_MS, &job, NULL), 0);
    }
    l.batch = "odd";
    l.limit = 2;
    assert_int_equal(pagemill_list(pm, &l, LIMIT_MS, &jobs, NULL), 0);
    assert_int_equal(jobs->count, 2);
    assert_true(jobs->has_more);
    assert_int_equal(jobs->jobs[0].job, 6);
    l.before = jobs->jobs[1].job;
    pagemill_jobs_free(&jobs);
    assert_int_equal(pagemill_list(pm, &l, LIMIT_MS, &jobs, NULL), 0);
    assert_int_equal(jobs->count, 1);
    assert_false(jobs->has_more);
    pagemill_jobs_free(&jobs);
    assert_int_equal(pagemill_cancel_batch(pm, "odd", LIMIT_MS, &count, NULL), 0);
    assert_int_equal(fake.jobs[5].state, PM_JOB_CANCELLED);
    assert_int_equal(fake.jobs[4].state, PM_JOB_RUNNING);
    assert_int_equal(pagemill_cancel_batch(pm, "", LIMIT_MS, &count, NULL), PAGEMILL_EINVAL);
    pagemill_close(&pm);
}

static void check_fetch(int is_remote)
{
    pagemill *pm = connect_to(is_remote, -1);
    struct pagemill_error err = {0};
    uint64_t job = submit(pm, "x");
    fake.manifest_name = "imgs/deep/cropped_page0_idx3.jpg";
    char *dir = pm_xprintf("%s/out-%d", fake.dir, is_remote);
    if (pagemill_fetch(pm, job, dir, LIMIT_MS, &err))
        fail_msg("%s", err.text);
    char *path = pm_fs_join(dir, fake.manifest_name);
    struct pm_buf text = {0};
    assert_int_equal(pm_fs_read(path, 100, &text, NULL), 0);
    assert_int_equal(text.size, 5);
    assert_memory_equal(text.data, "hello", 5);
    pm_buf_free(&text);
    free(path);
    free(dir);
    pagemill_close(&pm);
}

static void test_fetch(void **state)
{
    (void)state;
    check_fetch(0);
    check_fetch(1);
}

static void test_hostile_names(void **state)
{
    (void)state;
    static const char *const bad[] = {"/etc/passwd", "../x", "a/../../x", "a/..", ".",    "..",    "./x",
                                      "a//b",        "a/",   "",          "a\nb", "a\\b", "a\x7f", "x\xff"};
    static const char *const good[] = {"STEM.md", "imgs/cropped_page0_idx3.jpg", "...", "a..b", "\xc3\xa4.md",
                                       ".x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (pm_client_is_safe_name(bad[i]))
            fail_msg("\"%s\" was let through", bad[i]);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(pm_client_is_safe_name(good[i]));
    char longest[2000];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    assert_false(pm_client_is_safe_name(longest));
    longest[256] = 0;
    assert_false(pm_client_is_safe_name(longest));
    longest[255] = 0;
    assert_true(pm_client_is_safe_name(longest));

    pagemill *pm = connect_to(0, -1);
    struct pagemill_error err;
    uint64_t job = submit(pm, "x");
    fake.manifest_name = "../../escaped.md";
    char *dir = pm_xprintf("%s/a/b", fake.dir);
    assert_int_equal(pagemill_fetch(pm, job, dir, LIMIT_MS, &err), PAGEMILL_EPROTO);
    char *escaped = pm_xprintf("%s/escaped.md", fake.dir);
    assert_false(pm_fs_is_file(escaped));
    free(escaped);
    free(dir);
    pagemill_close(&pm);
}

static void test_damaged_download(void **state)
{
    (void)state;
    pagemill *pm = connect_to(1, -1);
    struct pagemill_error err;
    void *data;
    size_t bytes;
    fake.corrupt_data = 1;
    assert_int_equal(pagemill_blob_read(pm, fake.result_blob, LIMIT_MS, &data, &bytes, &err),
                     PAGEMILL_EFORMAT);
    assert_null(data);
    fake.corrupt_data = 0;
    assert_int_equal(pagemill_blob_read(pm, fake.result_blob, LIMIT_MS, &data, &bytes, &err), 0);
    pagemill_free(data);
    assert_int_equal(pagemill_blob_read(pm, "../../etc/passwd", LIMIT_MS, &data, &bytes, &err),
                     PAGEMILL_EINVAL);
    /* Several chunks. */
    size_t size = 3 * PM_CHUNK_BYTES + 17;
    uint8_t *large = pm_xalloc(size);
    for (size_t i = 0; i < size; i++)
        large[i] = (uint8_t)(i * 2654435761u >> 13);
    char key[PM_BLOB_KEY_SIZE];
    assert_int_equal(pm_blob_put(fake.blobs, PM_BLOB_DISK, large, size, key, NULL), 0);
    fake.lose_link = 1;
    assert_int_equal(pagemill_blob_read(pm, key, LIMIT_MS, &data, &bytes, &err), 0);
    assert_int_equal(bytes, size);
    assert_memory_equal(data, large, size);
    pagemill_free(data);
    free(large);
    pagemill_close(&pm);
}

static void test_nonsense_from_the_broker(void **state)
{
    (void)state;
    pagemill *pm = connect_to(0, -1);
    struct pagemill_jobs *jobs;
    struct pagemill_error err;
    const struct pagemill_event *event;
    fake.garbage = 20;
    assert_int_equal(pagemill_list(pm, NULL, LIMIT_MS, &jobs, &err), 0);
    pagemill_jobs_free(&jobs);
    assert_int_equal(pagemill_next_event(pm, LIMIT_MS, &event, &err), 0); /* one may have been an event */
    assert_int_equal(event->kind, PAGEMILL_EVENT_RESYNC);
    fake.wrong_answer = 1;
    assert_int_equal(pagemill_list(pm, NULL, LIMIT_MS, &jobs, &err), PAGEMILL_EPROTO);
    assert_int_equal(pagemill_list(pm, NULL, LIMIT_MS, &jobs, &err), 0);
    pagemill_jobs_free(&jobs);
    pagemill_close(&pm);
}

static void test_stats_and_shutdown(void **state)
{
    (void)state;
    pagemill *pm = connect_to(0, -1);
    struct pagemill_stats *stats;
    assert_int_equal(pagemill_stats(pm, LIMIT_MS, &stats, NULL), 0);
    assert_string_equal(stats->peers[0].name, "worker-1");
    assert_int_equal(stats->queues[0].queued, 3);
    assert_string_equal(stats->counters[0].name, "fenced");
    pagemill_stats_free(&stats);
    assert_int_equal(pagemill_shutdown(pm, 0, LIMIT_MS, NULL), 0);
    pagemill_close(&pm);
}

int main(void)
{
#define WITH_BROKER(test) cmocka_unit_test_setup_teardown(test, start, stop)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_fleet),
        WITH_BROKER(test_submit_and_status),
        WITH_BROKER(test_refused_options),
        WITH_BROKER(test_upload),
        WITH_BROKER(test_upload_survives_a_restart),
        WITH_BROKER(test_falls_back_to_upload),
        WITH_BROKER(test_busy),
        WITH_BROKER(test_deadline),
        WITH_BROKER(test_cancel_fd),
        WITH_BROKER(test_requests_survive_a_restart),
        WITH_BROKER(test_watches_are_renewed),
        WITH_BROKER(test_events),
        WITH_BROKER(test_event_loop),
        WITH_BROKER(test_wait),
        WITH_BROKER(test_list_and_batch),
        WITH_BROKER(test_fetch),
        WITH_BROKER(test_hostile_names),
        WITH_BROKER(test_damaged_download),
        WITH_BROKER(test_nonsense_from_the_broker),
        WITH_BROKER(test_stats_and_shutdown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
