/* What was read before is not read again, in the real broker process: pages by their fingerprint, documents
 * by what a submit says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "fake.h"

#define PRINT "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define OTHER "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* A fleet whose worker says which model it has. */
static void fleet_with_model(struct fleet *t, const char *const *options)
{
    fixture_open(&t->f);
    broker_start(&t->f, options);
    client_open(&t->client, &t->f, "alice");
    service_open(&t->layoutd, &t->f, PM_ROLE_LAYOUTD, "layoutd-1", 2);
    service_open(&t->collector, &t->f, PM_ROLE_COLLECTOR, "collector-1", 4);
    link_open(&t->worker, &t->f, "work.sock");
    t->worker.model = "model 1";
    service_hello(&t->worker, PM_ROLE_WORKER, "worker-1", 16, 0, NULL, 0);
}

static bool is_seen(struct fleet *t, const struct fake_lease *page, const char *fingerprint)
{
    struct pm_msg_seen seen = {.task = page->task, .attempt = page->attempt, .fingerprint = fingerprint};
    link_send(&t->layoutd, PM_MSG_SEEN, &seen);
    const struct pm_msg_known *known = link_expect(&t->layoutd, PM_MSG_KNOWN);
    assert_true(known->task == page->task && known->attempt == page->attempt);
    return known->is_known;
}

static void answer_page(struct fleet *t, const struct fake_lease *page, const char *fingerprint,
                        bool is_known)
{
    char text[64], record[PM_BLOB_KEY_SIZE] = "", sheet[PM_BLOB_KEY_SIZE] = "";
    uint32_t costs[2] = {10, 10};
    snprintf(text, sizeof text, "%llu %u", (unsigned long long)page->task, page->attempt);
    if (!is_known) {
        put_blob(&t->f, PM_BLOB_DISK, text, record);
        put_blob(&t->f, PM_BLOB_PIXELS, text, sheet);
    }
    struct pm_msg_result r = {.task = page->task,
                              .epoch = page->epoch,
                              .attempt = page->attempt,
                              .error_code = "",
                              .error_text = "",
                              .record = record,
                              .sheet = sheet,
                              .blob = "",
                              .costs = costs,
                              .cost_count = is_known ? 0 : 2,
                              .fingerprint = fingerprint,
                              .is_known = is_known};
    link_send(&t->layoutd, PM_MSG_RESULT, &r);
    struct pm_msg_credit c = {.granted = ++t->layoutd.granted};
    link_send(&t->layoutd, PM_MSG_CREDIT, &c);
    link_expect(&t->layoutd, PM_MSG_RESULT_ACK);
}

/* Opens a document of one page; its page lease. */
static struct fake_lease open_page(struct fleet *t)
{
    struct fake_lease l = take_lease(&t->layoutd);
    assert_int_equal(l.kind, PM_KIND_OPEN);
    answer_lease(&t->layoutd, &l, 1, 0);
    l = take_lease(&t->layoutd);
    assert_int_equal(l.kind, PM_KIND_PAGE);
    return l;
}

/* Reads a document of one page with that fingerprint from the start; its job. */
static uint64_t read_page(struct fleet *t, const char *source, const char *fingerprint)
{
    uint64_t job = submit(&t->client, source, "", NULL);
    struct fake_lease page = open_page(t);
    assert_false(is_seen(t, &page, fingerprint));
    answer_page(t, &page, fingerprint, false);
    assert_int_equal(serve_until_done(t, job, 1, 2).state, PM_JOB_DONE);
    return job;
}

/* The same page again, from another document. */
static struct pm_job_info read_known_page(struct fleet *t, const char *source, const char *fingerprint)
{
    uint64_t job = submit(&t->client, source, "", NULL);
    struct fake_lease page = open_page(t);
    assert_true(is_seen(t, &page, fingerprint));
    answer_page(t, &page, fingerprint, true);
    struct fake_lease document = take_lease(&t->collector);
    assert_int_equal(document.kind, PM_KIND_ASSEMBLE_DOC);
    answer_lease(&t->collector, &document, 0, 0);
    struct pm_job_info info = job_status(&t->client, job);
    assert_int_equal(info.state, PM_JOB_DONE);
    return info;
}

static void a_page_is_read_once(void **state)
{
    (void)state;
    struct fleet t;
    fleet_with_model(&t, NULL);
    uint64_t first = read_page(&t, "one", PRINT);
    struct pm_job_info info = read_known_page(&t, "two", PRINT);
    assert_int_equal(info.pages_done, 1);
    assert_int_equal(info.pages_known, 1);
    assert_int_equal(info.regions, 2);
    assert_int_equal(info.regions_done, 2);
    assert_int_equal(counter(&t.client, "known_pages_used"), 1);
    struct pm_msg_job_ref forget = {.ref = 3, .job = first, .batch = ""};
    link_send(&t.client, PM_MSG_FORGET, &forget);
    link_expect(&t.client, PM_MSG_DONE);
    /* It outlives its first document, and the broker. */
    broker_kill(&t.f);
    link_close(&t.client);
    link_close(&t.layoutd);
    link_close(&t.worker);
    link_close(&t.collector);
    broker_start(&t.f, NULL);
    client_open(&t.client, &t.f, "alice");
    service_open(&t.layoutd, &t.f, PM_ROLE_LAYOUTD, "layoutd-1", 2);
    service_open(&t.worker, &t.f, PM_ROLE_WORKER, "worker-1", 16);
    service_open(&t.collector, &t.f, PM_ROLE_COLLECTOR, "collector-1", 4);
    assert_int_equal(read_known_page(&t, "three", PRINT).pages_known, 1);
    read_page(&t, "four", OTHER);
    fleet_close(&t);
}

static void a_page_with_a_failed_region_is_not_remembered(void **state)
{
    (void)state;
    struct fleet t;
    fleet_with_model(&t, NULL);
    uint64_t job = submit(&t.client, "one", "", NULL);
    struct fake_lease page = open_page(&t);
    answer_page(&t, &page, PRINT, false);
    struct fake_lease region = take_lease(&t.worker);
    assert_true(fail_lease(&t.worker, &region, "format", "no glyphs", true));
    assert_int_equal(serve_until_done(&t, job, 1, 2).regions_failed, 1);
    read_page(&t, "two", PRINT);
    fleet_close(&t);
}

static void what_is_gone_is_read_again(void **state)
{
    (void)state;
    struct fleet t;
    fleet_with_model(&t, NULL);
    uint64_t first = read_page(&t, "one", PRINT);
    /* Said to be known, and is not: the attempt fails, the next one lays the page out. */
    uint64_t job = submit(&t.client, "two", "", NULL);
    struct fake_lease page = open_page(&t);
    answer_page(&t, &page, OTHER, true);
    struct fake_lease next = take_lease(&t.layoutd);
    assert_true(next.task == page.task && next.attempt != page.attempt);
    answer_page(&t, &next, OTHER, false);
    assert_int_equal(serve_until_done(&t, job, 1, 2).state, PM_JOB_DONE);
    /* Its blob is gone from the disk. The fake collector's pages are known by their text. */
    char text[64], key[PM_BLOB_KEY_SIZE];
    snprintf(text, sizeof text, "%llu 1 %d", (unsigned long long)first, PM_KIND_ASSEMBLE_PAGE);
    put_blob(&t.f, PM_BLOB_DISK, text, key);
    assert_int_equal(pm_blob_remove(t.f.blobs, key, NULL), 0);
    read_page(&t, "three", PRINT);
    assert_int_equal(counter(&t.client, "known_pages_dropped"), 1);
    assert_int_equal(read_known_page(&t, "four", PRINT).pages_known, 1);
    fleet_close(&t);
}

static void old_pages_go(void **state)
{
    (void)state;
    struct fleet t;
    fleet_with_model(&t, (const char *const[]){"--remember", "1", NULL});
    read_page(&t, "one", PRINT);
    int64_t end = pm_clock_us() + 20000000;
    while (!counter(&t.client, "known_pages_dropped") && pm_clock_us() < end)
        usleep(20000);
    read_page(&t, "two", PRINT);
    fleet_close(&t);
}

/* Which model will read decides; when that is not known, or nothing is to be kept, nobody is asked. */
static void leases_name_the_model(void **state)
{
    (void)state;
    for (int round = 0; round < 3; round++) {
        struct fleet t;
        fleet_with_model(&t, round == 1 ? (const char *const[]){"--remember-mb", "0", NULL} : NULL);
        struct link other;
        if (round == 2) { /* two workers that differ */
            link_open(&other, &t.f, "work.sock");
            other.model = "model 2";
            service_hello(&other, PM_ROLE_WORKER, "worker-2", 1, 0, NULL, 0);
        }
        submit(&t.client, "one", "", NULL);
        struct fake_lease l = take_lease(&t.layoutd);
        answer_lease(&t.layoutd, &l, 1, 0);
        const struct pm_msg_lease *page = link_expect(&t.layoutd, PM_MSG_LEASE);
        assert_string_equal(page->model, round ? "" : "model 1");
        if (round == 2)
            link_close(&other);
        fleet_close(&t);
    }
}

static void the_same_document_is_the_same_job(void **state)
{
    (void)state;
    struct fleet t;
    bool is_duplicate;
    fleet_with_model(&t, NULL);
    uint64_t job = submit(&t.client, "one", "", &is_duplicate);
    assert_false(is_duplicate);
    assert_true(submit(&t.client, "one", "", &is_duplicate) == job && is_duplicate); /* on its way */
    serve_until_done(&t, job, 1, 1);
    assert_true(submit(&t.client, "one", "", &is_duplicate) == job && is_duplicate); /* done */
    assert_true(submit(&t.client, "one", "mine", NULL) != job);
    struct link bob;
    client_open(&bob, &t.f, "bob");
    assert_true(submit(&bob, "one", "", &is_duplicate) != job && !is_duplicate); /* each has his own jobs */
    /* The key survives the broker, also before the workers are back. */
    broker_kill(&t.f);
    link_close(&t.client);
    link_close(&bob);
    broker_start(&t.f, NULL);
    client_open(&t.client, &t.f, "alice");
    assert_true(submit(&t.client, "one", "", &is_duplicate) == job && is_duplicate);
    /* Another model reads it anew. */
    link_close(&t.worker);
    link_open(&t.worker, &t.f, "work.sock");
    t.worker.model = "model 2";
    service_hello(&t.worker, PM_ROLE_WORKER, "worker-9", 16, 0, NULL, 0);
    assert_true(submit(&t.client, "one", "", &is_duplicate) != job && !is_duplicate);
    struct pm_msg_submit bad = {.ref = 5, .key = "=spoofed", .name = "n", .source = "", .batch = ""};
    link_send(&t.client, PM_MSG_SUBMIT, &bad);
    expect_refusal(&t.client, "invalid", "must not begin");
    fleet_close(&t);
}

static void a_job_that_failed_gives_its_key_up(void **state)
{
    (void)state;
    struct fleet t;
    fleet_with_model(&t, NULL);
    bool is_duplicate;
    uint64_t job = submit(&t.client, "one", "", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    assert_true(fail_lease(&t.layoutd, &l, "format", "not a document", true));
    assert_int_equal(job_status(&t.client, job).state, PM_JOB_FAILED);
    uint64_t second = submit(&t.client, "one", "", &is_duplicate);
    assert_true(second != job && !is_duplicate);
    struct pm_msg_job_ref cancel = {.ref = 3, .job = second, .batch = ""};
    link_send(&t.client, PM_MSG_CANCEL, &cancel);
    link_expect(&t.client, PM_MSG_DONE);
    assert_true(submit(&t.client, "one", "", &is_duplicate) != second && !is_duplicate);
    fleet_close(&t);
}

static uint64_t submit_default(struct link *client, uint32_t type, bool *is_duplicate_out)
{
    char source[PM_BLOB_KEY_SIZE];
    put_blob(client->f, PM_BLOB_DISK, "one", source);
    struct pm_msg_submit m = {.ref = 7, .key = "", .name = "doc.pdf", .source = source, .batch = ""};
    m.options = (struct pm_options){
        .pages = "", .password = "", .reader = "", .formats = "md", .drop = "", .stem = "doc", .whole = ""};
    link_send(client, PM_MSG_SUBMIT, &m);
    const void *record = link_expect(client, type);
    if (type != PM_MSG_ACCEPTED)
        return 0;
    const struct pm_msg_accepted *a = record;
    *is_duplicate_out = a->is_duplicate;
    return a->job;
}

/* A fleet with one reader, which is not "fast": a restarted broker knows what a submit without a reader means
 * before its worker is back, so that one that is repeated is not a second job which nobody can read. */
static void the_default_reader_survives(void **state)
{
    (void)state;
    struct fleet t;
    bool is_duplicate;
    fixture_open(&t.f);
    broker_start(&t.f, NULL);
    client_open(&t.client, &t.f, "alice");
    link_open(&t.worker, &t.f, "work.sock");
    t.worker.reader = "careful";
    service_hello(&t.worker, PM_ROLE_WORKER, "worker-1", 16, 0, NULL, 0);
    uint64_t job = submit_default(&t.client, PM_MSG_ACCEPTED, &is_duplicate);
    assert_string_equal(job_status(&t.client, job).reader, "careful");
    broker_kill(&t.f);
    link_close(&t.client);
    link_close(&t.worker);
    broker_start(&t.f, NULL);
    client_open(&t.client, &t.f, "alice");
    assert_true(submit_default(&t.client, PM_MSG_ACCEPTED, &is_duplicate) == job && is_duplicate);
    /* Another one is there first: a moment's patience. */
    link_open(&t.worker, &t.f, "work.sock");
    service_hello(&t.worker, PM_ROLE_WORKER, "worker-2", 16, 0, NULL, 0);
    submit_default(&t.client, PM_MSG_REFUSE, NULL);
    link_close(&t.worker);
    link_close(&t.client);
    fixture_close(&t.f);
}

/* A page that was laid out for one model and read by another is not remembered as read by the first. */
static void a_page_between_models_is_not_remembered(void **state)
{
    (void)state;
    struct fleet t;
    struct link other;
    fleet_with_model(&t, NULL);
    uint64_t job = submit(&t.client, "one", "", NULL);
    struct fake_lease page = open_page(&t);
    answer_page(&t, &page, PRINT, false);
    link_open(&other, &t.f, "work.sock");
    other.model = "model 2";
    service_hello(&other, PM_ROLE_WORKER, "worker-2", 1, 0, NULL, 0);
    struct pm_msg_goodbye bye = {.reason = "replaced"};
    link_send(&other, PM_MSG_GOODBYE, &bye);
    assert_int_equal(serve_until_done(&t, job, 1, 2).state, PM_JOB_DONE);
    read_page(&t, "two", PRINT);
    link_close(&other);
    fleet_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_is_read_once),
        cmocka_unit_test(a_page_with_a_failed_region_is_not_remembered),
        cmocka_unit_test(what_is_gone_is_read_again),
        cmocka_unit_test(old_pages_go),
        cmocka_unit_test(leases_name_the_model),
        cmocka_unit_test(the_same_document_is_the_same_job),
        cmocka_unit_test(a_job_that_failed_gives_its_key_up),
        cmocka_unit_test(the_default_reader_survives),
        cmocka_unit_test(a_page_between_models_is_not_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
