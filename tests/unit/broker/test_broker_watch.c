/* Watchers of the real broker process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake.h"

static void watchers_see_it_all_in_order(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    struct link watcher;
    client_open(&watcher, &t.f, "eve");
    struct pm_msg_watch w = {.ref = 2, .batch = "batch", .partial = true};
    link_send(&watcher, PM_MSG_WATCH, &w);
    link_expect(&watcher, PM_MSG_DONE);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 2, 0);
    l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 0, 2);
    l = take_lease(&t.worker);
    struct pm_msg_partial partial = {.task = l.task, .attempt = l.attempt, .text = "hel"};
    link_send(&t.worker, PM_MSG_PARTIAL, &partial);
    answer_lease(&t.worker, &l, 0, 0);
    serve_until_done(&t, job, 2, 2);
    uint64_t seq = 0;
    uint32_t pages = 0, partials = 0, state_seen = 0, progress = 0;
    while (state_seen != PM_JOB_DONE) {
        const struct pm_msg_event *e = link_expect(&watcher, PM_MSG_EVENT);
        assert_int_equal(e->seq, ++seq);
        assert_int_equal(e->info.job, job);
        if (e->kind == PM_EVENT_PAGE) {
            pages++;
            assert_true(pm_blob_exists(t.f.blobs, e->page_blob, NULL));
        }
        if (e->kind == PM_EVENT_PARTIAL) {
            partials++;
            assert_string_equal(e->text, "hel");
        }
        progress += e->kind == PM_EVENT_PROGRESS;
        if (e->kind == PM_EVENT_STATE)
            state_seen = e->info.state;
    }
    assert_int_equal(pages, 2);
    assert_int_equal(partials, 1);
    (void)progress;
    link_close(&watcher);
    fleet_close(&t);
}

/* A watcher that sleeps: its queue is bounded, what is dropped is counted and told, and the snapshots that
 * follow put it right for every job. */
static void sleepy_watcher_is_told_what_it_missed(void **state)
{
    (void)state;
    enum { JOBS = 10000, AT_ONCE = 200 };
    struct fixture f;
    struct link client, watcher;
    fixture_open(&f);
    broker_start(&f, NULL);
    client_open(&client, &f, "alice");
    client_open(&watcher, &f, "eve");
    struct pm_msg_watch w = {.ref = 2, .batch = ""};
    link_send(&watcher, PM_MSG_WATCH, &w);
    link_expect(&watcher, PM_MSG_DONE);
    char source[PM_BLOB_KEY_SIZE];
    put_blob(&f, PM_BLOB_DISK, "x", source);
    struct pm_msg_submit m = {.key = "", .name = "n", .source = source, .batch = ""};
    m.options = (struct pm_options){
        .pages = "", .password = "", .reader = "", .formats = "", .drop = "", .stem = "n", .again = true};
    uint64_t last = 0;
    for (int n = 0; n < JOBS; n += AT_ONCE) {
        for (int i = 0; i < AT_ONCE; i++) {
            m.ref = (uint64_t)(n + i + 1);
            link_send(&client, PM_MSG_SUBMIT, &m);
        }
        for (int i = 0; i < AT_ONCE; i++)
            last = ((const struct pm_msg_accepted *)link_expect(&client, PM_MSG_ACCEPTED))->job;
    }
    assert_int_equal(last, JOBS);
    assert_true(counter(&client, "events_lost") > 0);
    uint8_t *seen = calloc(JOBS + 1, 1);
    uint64_t seq = 0, count = 0, lost = 0;
    while (count < JOBS) {
        const struct pm_msg_event *e = link_expect(&watcher, PM_MSG_EVENT);
        assert_int_equal(e->seq, ++seq);
        lost += e->kind == PM_EVENT_LOST;
        if (e->kind == PM_EVENT_LOST)
            continue;
        assert_in_range(e->info.job, 1, JOBS);
        count += !seen[e->info.job];
        seen[e->info.job] = 1;
    }
    assert_true(lost > 0);
    free(seen);
    link_close(&client);
    link_close(&watcher);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(watchers_see_it_all_in_order),
        cmocka_unit_test(sleepy_watcher_is_told_what_it_missed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
