/* What failed and what becomes of it, in the real broker process: the log of attempts, dead letters, retry.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "fake.h"

static void ask(struct link *client, uint32_t type, uint64_t job, const char *batch)
{
    struct pm_msg_job_ref q = {.ref = 21, .job = job, .batch = batch};
    link_send(client, type, &q);
}

static uint32_t count_of(struct link *client, uint32_t type, uint64_t job, const char *batch)
{
    ask(client, type, job, batch);
    const struct pm_msg_done *done = link_expect(client, PM_MSG_DONE);
    assert_int_equal(done->ref, 21);
    return done->count;
}

static void attempt_is(const struct pm_attempt *a, uint32_t kind, uint32_t page, uint32_t region,
                       const char *cause, const char *code, const char *text, const char *peer)
{
    assert_int_equal(a->kind, kind);
    assert_int_equal(a->page, page);
    assert_int_equal(a->region, region);
    assert_string_equal(a->cause, cause);
    assert_string_equal(a->code, code);
    assert_string_equal(a->text, text);
    assert_string_equal(a->peer, peer);
    assert_string_equal(a->version, *peer ? "test" : "");
    assert_true(a->wall_us > 1600000000000000);
}

/* Takes a page of two regions to its end: the first fails once and is read, the second is bad. */
static uint64_t job_with_a_bad_region(struct fleet *t)
{
    uint64_t job = submit(&t->client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t->layoutd);
    answer_lease(&t->layoutd, &l, 2, 0);
    for (int page = 0; page < 2; page++) {
        l = take_lease(&t->layoutd);
        answer_lease(&t->layoutd, &l, 0, 2);
    }
    for (int n = 0; n < 5; n++) {
        l = take_lease(&t->worker);
        bool is_first = (l.attempt & 0xff) == 1;
        if (l.page == 1 && l.region == 0 && is_first)
            assert_true(fail_lease(&t->worker, &l, "io", "a page of memory went missing", false));
        else if (l.page == 1 && l.region == 1)
            assert_true(fail_lease(&t->worker, &l, "format", "no such glyphs", true));
        else
            assert_true(answer_lease(&t->worker, &l, 0, 0));
    }
    struct pm_job_info info = serve_until_done(t, job, 2, 2);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.regions_failed, 1);
    return job;
}

static void check_attempts(struct fleet *t, uint64_t job)
{
    struct pm_job_info info = job_status(&t->client, job);
    assert_int_equal(info.attempt_count, 2);
    const struct pm_attempt *a = info.attempts, *b = a + 1;
    bool swapped = strcmp(a->cause, "input") == 0; /* either may come first */
    attempt_is(swapped ? b : a, PM_KIND_REGION, 1, 1, "other", "io", "a page of memory went missing",
               "worker-1");
    attempt_is(swapped ? a : b, PM_KIND_REGION, 1, 2, "input", "format", "no such glyphs", "worker-1");
}

static void attempts_are_remembered(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = job_with_a_bad_region(&t);
    check_attempts(&t, job);
    broker_kill(&t.f);
    broker_start(&t.f, NULL);
    link_close(&t.client);
    client_open(&t.client, &t.f, "alice");
    check_attempts(&t, job);
    assert_int_equal(count_of(&t.client, PM_MSG_FORGET, job, ""), 1);
    ask(&t.client, PM_MSG_STATUS, job, "");
    expect_refusal(&t.client, "not-found", "no job");
    fleet_close(&t);
}

/* Only the page that failed comes back; asked twice, the answer is the same, also after a kill -9. */
static void retry_brings_back_what_failed(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = job_with_a_bad_region(&t);
    assert_int_equal(count_of(&t.client, PM_MSG_RETRY, job, ""), 1);
    assert_int_equal(count_of(&t.client, PM_MSG_RETRY, job, ""), 1);
    broker_kill(&t.f);
    broker_start(&t.f, NULL);
    link_close(&t.client);
    client_open(&t.client, &t.f, "alice");
    assert_int_equal(count_of(&t.client, PM_MSG_RETRY, job, ""), 1);
    service_hello(&t.layoutd, PM_ROLE_LAYOUTD, "layoutd-1", 1, 0, NULL, 0);
    service_hello(&t.worker, PM_ROLE_WORKER, "worker-1", 4, 0, NULL, 0);
    service_hello(&t.collector, PM_ROLE_COLLECTOR, "collector-1", 1, 0, NULL, 0);
    struct fake_lease l = take_lease(&t.layoutd);
    assert_int_equal(l.kind, PM_KIND_PAGE);
    assert_int_equal(l.page, 1);
    answer_lease(&t.layoutd, &l, 0, 2);
    struct pm_job_info info = serve_until_done(&t, job, 2, 2);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.regions_failed, 0);
    assert_int_equal(info.regions_done, 4);
    assert_false(try_lease(&t.layoutd, 50, &l)); /* page 2 was not touched */
    check_attempts(&t, job);                     /* the log stays */
    assert_int_equal(count_of(&t.client, PM_MSG_RETRY, job, ""), 1);
    assert_int_equal(job_status(&t.client, job).state, PM_JOB_DONE);
    uint64_t good = submit(&t.client, "source", "good", NULL);
    ask(&t.client, PM_MSG_RETRY, good, "");
    expect_refusal(&t.client, "busy", "still");
    serve_until_done(&t, good, 1, 1);
    ask(&t.client, PM_MSG_RETRY, good, "");
    expect_refusal(&t.client, "invalid", "nothing failed");
    fleet_close(&t);
}

/* A region that found no memory waits until its worker has nothing else. */
static void out_of_memory_runs_alone(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd), held[3], again;
    answer_lease(&t.layoutd, &l, 1, 0);
    l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 0, 3);
    for (int i = 0; i < 3; i++)
        held[i] = take_lease(&t.worker);
    assert_true(fail_lease(&t.worker, &held[0], "no-memory", "8 GB wanted, 2 GB there", false));
    answer_lease(&t.worker, &held[1], 0, 0);
    assert_false(try_lease(&t.worker, 1500, &again)); /* its back-off is over in 1 s */
    answer_lease(&t.worker, &held[2], 0, 0);
    again = take_lease(&t.worker);
    assert_int_equal(again.region, held[0].region);
    struct pm_job_info info = job_status(&t.client, job);
    assert_int_equal(info.attempt_count, 1);
    attempt_is(info.attempts, PM_KIND_REGION, 1, held[0].region + 1, "resources", "no-memory",
               "8 GB wanted, 2 GB there", "worker-1");
    answer_lease(&t.worker, &again, 0, 0);
    assert_int_equal(serve_until_done(&t, job, 1, 3).state, PM_JOB_DONE);
    fleet_close(&t);
}

static void submit_into(struct link *client, const char *batch, const char *key)
{
    char source[PM_BLOB_KEY_SIZE];
    put_blob(client->f, PM_BLOB_DISK, "source", source);
    struct pm_msg_submit m = {.ref = 7,
                              .key = key,
                              .name = "doc.pdf",
                              .source = source,
                              .priority = 2,
                              .batch = batch,
                              .options = {.pages = "",
                                          .password = "",
                                          .reader = "fast",
                                          .formats = "md",
                                          .drop = "",
                                          .stem = "doc",
                                          .whole = ""}};
    link_send(client, PM_MSG_SUBMIT, &m);
    link_expect(client, PM_MSG_ACCEPTED);
}

static uint32_t jobs_in_state(struct link *client, uint32_t state)
{
    struct pm_msg_list q = {.ref = 22, .state = state, .batch = "", .limit = 1000};
    link_send(client, PM_MSG_LIST, &q);
    return ((const struct pm_msg_jobs *)link_expect(client, PM_MSG_JOBS))->job_count;
}

#define BATCH_JOBS 150 /* more than one slice */

static void fail_all_opens(struct fleet *t)
{
    struct fake_lease l;
    for (uint32_t n = 0; n < BATCH_JOBS + 1; n++) {
        l = take_lease(&t->layoutd);
        assert_int_equal(l.kind, PM_KIND_OPEN);
        assert_true(fail_lease(&t->layoutd, &l, "format", "not a document", true));
    }
    assert_int_equal(jobs_in_state(&t->client, PM_JOB_FAILED), BATCH_JOBS + 1);
}

static void whole_batches(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    char key[16];
    for (int i = 0; i < BATCH_JOBS; i++) {
        snprintf(key, sizeof key, "k%d", i);
        submit_into(&t.client, "many", key);
    }
    submit_into(&t.client, "one", "one");
    fail_all_opens(&t);
    assert_int_equal(count_of(&t.client, PM_MSG_RETRY, 0, "nobody's"), 0);
    assert_int_equal(count_of(&t.client, PM_MSG_RETRY, 0, "many"), BATCH_JOBS);
    assert_int_equal(jobs_in_state(&t.client, PM_JOB_FAILED), 1);
    assert_int_equal(count_of(&t.client, PM_MSG_RETRY, 0, "many"), BATCH_JOBS); /* the answer was lost */
    assert_int_equal(count_of(&t.client, PM_MSG_RETRY, 0, ""), BATCH_JOBS + 1);
    fail_all_opens(&t);
    assert_int_equal(count_of(&t.client, PM_MSG_FORGET, 0, "many"), BATCH_JOBS);
    assert_int_equal(jobs_in_state(&t.client, 0), 1);
    assert_int_equal(count_of(&t.client, PM_MSG_FORGET, 0, ""), 1);
    assert_int_equal(jobs_in_state(&t.client, 0), 0);
    fleet_close(&t);
}

/* More than one slice: all of them, and no other. */
static void many_are_cancelled_in_slices(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    char key[16];
    const uint32_t count = 2500;
    for (uint32_t i = 0; i < count; i++) {
        snprintf(key, sizeof key, "k%u", i);
        submit_into(&t.client, "many", key);
    }
    submit_into(&t.client, "one", "one");
    assert_int_equal(count_of(&t.client, PM_MSG_CANCEL, 0, "many"), count);
    assert_int_equal(count_of(&t.client, PM_MSG_CANCEL, 0, "many"), 0);
    assert_int_equal(count_of(&t.client, PM_MSG_CANCEL, 0, "one"), 1);
    fleet_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attempts_are_remembered),      cmocka_unit_test(retry_brings_back_what_failed),
        cmocka_unit_test(out_of_memory_runs_alone),     cmocka_unit_test(whole_batches),
        cmocka_unit_test(many_are_cancelled_in_slices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
