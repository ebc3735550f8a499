/* The real broker process with fake peers over ipc. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/fs.h"
#include "fake.h"
#include "proto/chunk.h"
#include "proto/page.h"

struct fleet {
    struct fixture f;
    struct link client, layoutd, worker, collector;
};

static void fleet_open(struct fleet *t)
{
    fixture_open(&t->f);
    broker_start(&t->f, NULL);
    client_open(&t->client, &t->f, "alice");
    service_open(&t->layoutd, &t->f, PM_ROLE_LAYOUTD, "layoutd-1", 1);
    service_open(&t->worker, &t->f, PM_ROLE_WORKER, "worker-1", 4);
    service_open(&t->collector, &t->f, PM_ROLE_COLLECTOR, "collector-1", 1);
}

static void fleet_close(struct fleet *t)
{
    link_close(&t->client);
    link_close(&t->layoutd);
    link_close(&t->worker);
    link_close(&t->collector);
    fixture_close(&t->f);
}

/* Serves whatever comes until the job has ended; returns its state. */
static struct pm_job_info serve_until_done(struct fleet *t, uint64_t job, uint32_t pages, uint32_t regions)
{
    struct link *all[] = {&t->layoutd, &t->worker, &t->collector};
    int64_t until = pm_clock_us() + 20000000;
    while (pm_clock_us() < until) {
        for (int i = 0; i < 3; i++) {
            struct fake_lease lease;
            while (try_lease(all[i], 1, &lease))
                send_answer(all[i], &lease, pages, regions);
        }
        struct pm_job_info info = job_status(&t->client, job);
        if (info.state > PM_JOB_RUNNING)
            return info;
    }
    fail_msg("job %llu does not end", (unsigned long long)job);
    return (struct pm_job_info){0};
}

static size_t files_below(const char *dir)
{
    size_t count = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        char *path = pm_fs_join(dir, e->d_name);
        count += pm_fs_is_dir(path) ? files_below(path) : 1;
        free(path);
    }
    if (d)
        closedir(d);
    return count;
}

/* Crop sheets go with their pages, a moment later. */
static void pixels_are_gone_soon(struct fleet *t)
{
    for (int64_t until = pm_clock_us() + 10000000; files_below(t->f.pixels) && pm_clock_us() < until;)
        usleep(20000);
    assert_int_equal(files_below(t->f.pixels), 0);
}

/* ---- a job's life ---- */

static void whole_job(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = submit(&t.client, "source", "key-1", NULL);
    struct fake_lease open = take_lease(&t.layoutd);
    assert_int_equal(open.kind, PM_KIND_OPEN);
    assert_true(answer_lease(&t.layoutd, &open, 2, 0));
    for (uint32_t page = 1; page <= 2; page++) {
        struct fake_lease l = take_lease(&t.layoutd);
        assert_int_equal(l.kind, PM_KIND_PAGE);
        assert_int_equal(l.page, page);
        assert_true(answer_lease(&t.layoutd, &l, 0, 3));
    }
    for (uint32_t i = 0; i < 6; i++) { /* pages and regions in order */
        struct fake_lease l = take_lease(&t.worker);
        assert_int_equal(l.kind, PM_KIND_REGION);
        assert_int_equal(l.page, 1 + i / 3);
        assert_int_equal(l.region, i % 3);
        send_answer(&t.worker, &l, 0, 0);
    }
    for (uint32_t page = 1; page <= 2; page++) {
        const struct pm_msg_lease *m = link_expect(&t.collector, PM_MSG_LEASE);
        struct pm_page_texts texts;
        struct pm_arena arena = {0};
        assert_int_equal(m->kind, PM_KIND_ASSEMBLE_PAGE);
        assert_int_equal(pm_page_texts_decode(t.collector.last.payload.data, t.collector.last.payload.size,
                                              &arena, &texts, NULL),
                         0);
        assert_int_equal(texts.text_count, 3);
        pm_arena_free(&arena);
        struct fake_lease l = {m->task, m->epoch, m->job, m->attempt, m->kind, m->page, m->region};
        assert_true(answer_lease(&t.collector, &l, 0, 0));
    }
    const struct pm_msg_lease *m = link_expect(&t.collector, PM_MSG_LEASE);
    struct pm_doc_pages pages;
    struct pm_arena arena = {0};
    assert_int_equal(m->kind, PM_KIND_ASSEMBLE_DOC);
    assert_int_equal(pm_record_decode(&pm_doc_pages_schema, t.collector.last.payload.data,
                                      t.collector.last.payload.size, &arena, &pages, NULL),
                     0);
    assert_int_equal(pages.page_count, 2);
    assert_true(pm_blob_exists(t.f.blobs, pages.pages[1].blob, NULL));
    pm_arena_free(&arena);
    struct fake_lease doc = {m->task, m->epoch, m->job, m->attempt, m->kind, m->page, m->region};
    assert_true(answer_lease(&t.collector, &doc, 2, 0));
    struct pm_job_info info = job_status(&t.client, job);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.pages_done, 2);
    assert_int_equal(info.regions_done, 6);
    assert_int_equal(info.retries, 0);
    struct pm_msg_job_ref q = {.ref = 3, .job = job, .batch = ""};
    link_send(&t.client, PM_MSG_FETCH, &q);
    const struct pm_msg_manifest *manifest = link_expect(&t.client, PM_MSG_MANIFEST);
    struct pm_manifest files;
    assert_int_equal(pm_record_decode(&pm_manifest_schema, manifest->manifest.data, manifest->manifest.size,
                                      &arena, &files, NULL),
                     0);
    assert_int_equal(files.file_count, 1);
    pm_arena_free(&arena);
    pixels_are_gone_soon(&t);
    assert_int_equal(broker_stop(&t.f), 0);
    fleet_close(&t);
}

static void duplicates_give_the_first_job(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    bool duplicate;
    uint64_t first = submit(&t.client, "a", "same", &duplicate);
    assert_false(duplicate);
    assert_int_equal(submit(&t.client, "a", "same", &duplicate), first);
    assert_true(duplicate);
    struct link bob; /* keys belong to their client */
    client_open(&bob, &t.f, "bob");
    assert_int_not_equal(submit(&bob, "a", "same", &duplicate), first);
    assert_false(duplicate);
    link_close(&bob);
    broker_kill(&t.f);
    broker_start(&t.f, NULL);
    struct link again;
    client_open(&again, &t.f, "alice");
    assert_int_equal(submit(&again, "a", "same", &duplicate), first);
    assert_true(duplicate);
    assert_int_equal(counter(&again, "duplicate_submits"), 1);
    link_close(&again);
    fleet_close(&t);
}

/* The answer to a page of a cancelled job is refused, and what came with it does not stay in memory. */
static void sheet_of_a_refused_page_goes(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 1, 0);
    l = take_lease(&t.layoutd);
    struct pm_msg_job_ref q = {.ref = 5, .job = job, .batch = ""};
    link_send(&t.client, PM_MSG_CANCEL, &q);
    link_expect(&t.client, PM_MSG_DONE);
    assert_false(answer_lease(&t.layoutd, &l, 0, 3));
    assert_int_equal(files_below(t.f.pixels), 1);
    pixels_are_gone_soon(&t);
    fleet_close(&t);
}

/* ---- crashes ---- */

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

/* A process that can be killed: it says hello for the test and takes one lease. */
static pid_t start_victim(void)
{
    pid_t pid = fork();
    if (!pid) {
        pause();
        _exit(0);
    }
    return pid;
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

static void lost_sheet_is_made_again(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 1, 0);
    l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 0, 2);
    struct fake_lease region = take_lease(&t.worker);
    broker_kill(&t.f);
    assert_int_equal(pm_fs_remove_tree(t.f.pixels, NULL), 0); /* a reboot */
    broker_start(&t.f, NULL);
    char *disk = pm_fs_join(t.f.state, "blobs");
    pm_blobs_free(&t.f.blobs);
    assert_int_equal(pm_blobs_open(disk, t.f.pixels, &t.f.blobs, NULL), 0);
    free(disk);
    struct pm_held held = {region.task, region.epoch, region.attempt};
    service_hello(&t.worker, PM_ROLE_WORKER, "worker-1", 4, 0, &held, 1);
    link_expect(&t.worker, PM_MSG_REVOKE); /* of the old layout: not wanted any more */
    assert_false(answer_lease(&t.worker, &region, 0, 0));
    service_hello(&t.layoutd, PM_ROLE_LAYOUTD, "layoutd-1", 1, 0, NULL, 0);
    service_hello(&t.collector, PM_ROLE_COLLECTOR, "collector-1", 1, 0, NULL, 0);
    link_close(&t.client);
    client_open(&t.client, &t.f, "alice");
    struct pm_job_info info = serve_until_done(&t, job, 1, 2);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.regions_done, 2);
    fleet_close(&t);
}

/* ---- people ---- */

static void cancel_reaches_a_running_region(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 1, 0);
    l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 0, 1);
    struct fake_lease region = take_lease(&t.worker);
    struct pm_msg_job_ref q = {.ref = 5, .job = 0, .batch = "batch"};
    link_send(&t.client, PM_MSG_CANCEL, &q);
    assert_int_equal(((const struct pm_msg_done *)link_expect(&t.client, PM_MSG_DONE))->count, 1);
    const struct pm_msg_revoke *revoke = link_expect(&t.worker, PM_MSG_REVOKE);
    assert_int_equal(revoke->task, region.task);
    assert_string_equal(revoke->reason, "cancelled");
    assert_false(answer_lease(&t.worker, &region, 0, 0));
    assert_int_equal(job_status(&t.client, job).state, PM_JOB_CANCELLED);
    pixels_are_gone_soon(&t);
    /* And retried it runs to its end. */
    q = (struct pm_msg_job_ref){.ref = 6, .job = job, .batch = ""};
    link_send(&t.client, PM_MSG_RETRY, &q);
    link_expect(&t.client, PM_MSG_DONE);
    assert_int_equal(serve_until_done(&t, job, 1, 1).state, PM_JOB_DONE);
    /* Forgotten, it is gone with its blobs' references. */
    link_send(&t.client, PM_MSG_FORGET, &q);
    link_expect(&t.client, PM_MSG_DONE);
    link_send(&t.client, PM_MSG_STATUS, &q);
    uint32_t type;
    link_receive(&t.client, &type);
    assert_int_equal(type, PM_MSG_REFUSE);
    fleet_close(&t);
}

static void failures_are_told(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 2, 0);
    l = take_lease(&t.layoutd);
    assert_true(fail_lease(&t.layoutd, &l, "format", "page 1 is damaged", true));
    l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 0, 2);
    l = take_lease(&t.worker);
    assert_true(fail_lease(&t.worker, &l, "format", "the crop is empty", true));
    struct pm_job_info info = serve_until_done(&t, job, 2, 2);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.pages_done, 1);
    assert_int_equal(info.pages_failed, 1);
    assert_int_equal(info.regions_failed, 1);
    assert_int_equal(info.error_count, 2);
    assert_int_equal(info.errors[0].page, 1);
    assert_string_equal(info.errors[0].text, "page 1 is damaged");
    assert_int_equal(info.errors[1].page, 2);
    assert_int_equal(info.errors[1].region, 1);
    assert_string_equal(info.errors[1].code, "format");
    /* A retry reads just those. */
    struct pm_msg_job_ref q = {.ref = 6, .job = job, .batch = ""};
    link_send(&t.client, PM_MSG_RETRY, &q);
    link_expect(&t.client, PM_MSG_DONE);
    info = serve_until_done(&t, job, 2, 2);
    assert_int_equal(info.pages_done, 2);
    assert_int_equal(info.regions_done, 4);
    assert_int_equal(info.error_count, 0);
    /* A document that cannot be opened fails as a whole, with its reason. */
    job = submit(&t.client, "other", "key-2", NULL);
    l = take_lease(&t.layoutd);
    fail_lease(&t.layoutd, &l, "password", "the document needs a password", true);
    info = job_status(&t.client, job);
    assert_int_equal(info.state, PM_JOB_FAILED);
    assert_string_equal(info.error_code, "password");
    fleet_close(&t);
}

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
        .pages = "", .password = "", .reader = "", .formats = "", .drop = "", .stem = "n"};
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

/* ---- refusals ---- */

static void expect_refusal(struct link *l, const char *code, const char *text)
{
    uint32_t type;
    const struct pm_msg_refuse *r = link_receive(l, &type);
    assert_int_equal(type, PM_MSG_REFUSE);
    assert_non_null(r);
    assert_string_equal(r->code, code);
    if (!strstr(r->text, text))
        fail_msg("refused with \"%s\", not with \"%s\"", r->text, text);
}

static void strangers_and_wrong_roles(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    struct link l;
    link_open(&l, &t.f, "client.sock");
    struct pm_msg_stats stats = {.ref = 1};
    link_send(&l, PM_MSG_STATS, &stats);
    expect_refusal(&l, "protocol", "hello first");
    link_close(&l);
    struct pm_msg_credit credit = {.granted = 5}; /* a client is no worker */
    link_send(&t.client, PM_MSG_CREDIT, &credit);
    expect_refusal(&t.client, "denied", "may not send CREDIT");
    link_open(&l, &t.f, "client.sock");
    struct pm_msg_hello hello = {.role = PM_ROLE_WORKER,
                                 .proto_min = 1,
                                 .proto_max = 1,
                                 .name = "w",
                                 .version = "",
                                 .host = "",
                                 .client = "",
                                 .instance = 1};
    link_send(&l, PM_MSG_HELLO, &hello);
    expect_refusal(&l, "denied", "does not belong on this socket");
    hello.role = PM_ROLE_CLIENT;
    hello.proto_min = hello.proto_max = 99;
    link_send(&l, PM_MSG_HELLO, &hello);
    expect_refusal(&l, "unsupported", "protocol 99");
    /* Not a message of ours at all. */
    zmq_send(l.socket, "rubbish", 7, 0);
    expect_refusal(&l, "protocol", "");
    link_close(&l);
    assert_int_equal(counter(&t.client, "unknown_peers"), 1);
    assert_int_equal(counter(&t.client, "wrong_role"), 1);
    assert_int_equal(counter(&t.client, "hellos_refused"), 2);
    assert_int_equal(counter(&t.client, "malformed_messages"), 1);
    fleet_close(&t);
}

static void bad_submits(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    char source[PM_BLOB_KEY_SIZE];
    put_blob(&t.f, PM_BLOB_DISK, "x", source);
    struct pm_msg_submit good = {.ref = 4, .key = "", .name = "n", .source = source, .batch = ""};
    good.options = (struct pm_options){
        .pages = "", .password = "", .reader = "", .formats = "", .drop = "", .stem = "n"};
    struct pm_msg_submit m = good;
    m.options.pages = "3-1";
    link_send(&t.client, PM_MSG_SUBMIT, &m);
    expect_refusal(&t.client, "invalid", "runs backwards");
    m = good;
    m.source = "d0123";
    link_send(&t.client, PM_MSG_SUBMIT, &m);
    expect_refusal(&t.client, "invalid", "not the key");
    m = good;
    m.source = "dffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";
    link_send(&t.client, PM_MSG_SUBMIT, &m);
    expect_refusal(&t.client, "not-found", "not in the broker's store");
    m = good;
    m.options.stem = "../../etc/passwd";
    link_send(&t.client, PM_MSG_SUBMIT, &m);
    expect_refusal(&t.client, "invalid", "must not be a path");
    assert_int_equal(counter(&t.client, "refused_submits"), 4);
    fleet_close(&t);
    /* Full: busy, and told when to come again. */
    fixture_open(&t.f);
    broker_start(&t.f, (const char *const[]){"--max-jobs", "1", NULL});
    client_open(&t.client, &t.f, "alice");
    submit(&t.client, "a", "a", NULL);
    put_blob(&t.f, PM_BLOB_DISK, "x", source);
    link_send(&t.client, PM_MSG_SUBMIT, &good);
    uint32_t type;
    const struct pm_msg_refuse *r = link_receive(&t.client, &type);
    assert_int_equal(type, PM_MSG_REFUSE);
    assert_string_equal(r->code, "busy");
    assert_true(r->retry_after_us > 0);
    broker_kill(&t.f);
    /* A disk that is nearly full takes no jobs, and says so. */
    broker_start(&t.f, (const char *const[]){"--min-free", "16000000", NULL});
    link_close(&t.client);
    client_open(&t.client, &t.f, "alice");
    link_send(&t.client, PM_MSG_SUBMIT, &good);
    expect_refusal(&t.client, "no-space", "no space left");
    bool duplicate;
    submit(&t.client, "a", "a", &duplicate); /* what is accepted stays accepted */
    assert_true(duplicate);
    link_close(&t.client);
    fixture_close(&t.f);
}

static void second_broker_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f);
    broker_start(&f, NULL);
    char *other = pm_fs_join(f.dir, "other");
    assert_int_equal(broker_run_again(&f, f.state, other), 75);
    assert_int_equal(broker_run_again(&f, other, f.run), 75);
    struct link c; /* and the first one still serves */
    client_open(&c, &f, "alice");
    submit(&c, "a", "a", NULL);
    link_close(&c);
    assert_int_equal(broker_stop(&f), 0);
    /* A path that the system would cut, so that two brokers meet on one socket, is not taken. */
    char *longest = pm_xprintf("%s/%0100d", f.dir, 0);
    assert_int_equal(broker_run_again(&f, other, longest), 78);
    free(longest);
    /* A directory that others can enter is not taken. */
    assert_int_equal(chmod(f.run, 0755), 0);
    assert_int_equal(broker_run_again(&f, f.state, f.run), 78);
    chmod(f.run, 0700);
    free(other);
    fixture_close(&f);
}

/* ---- ZeroMQ's traps ---- */

/* A peer that does not read: a ROUTER without MANDATORY would drop silently. Here a lease that cannot be sent
 * is another's, and nothing of the credit of others is lost. */
static void peer_that_does_not_read(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    struct link eve;
    client_open(&eve, &t.f, "eve");
    struct pm_msg_list q = {.ref = 1, .batch = "", .limit = 1};
    for (int i = 0; i < 30000; i++) { /* asks and never reads */
        struct pm_header h = {.proto = 1, .type = PM_MSG_LIST, .seq = ++eve.seq};
        if (pm_message_send(eve.socket, NULL, 0, &h, &q, NULL, 0, NULL)) {
            zmq_pollitem_t item = {.socket = eve.socket, .events = ZMQ_POLLOUT};
            zmq_poll(&item, 1, 50);
        }
    }
    /* Others are served, and what could not be delivered was counted: delayed, or the peer was cut. */
    uint64_t job = submit(&t.client, "source", "key", NULL);
    assert_int_equal(serve_until_done(&t, job, 1, 1).state, PM_JOB_DONE);
    assert_true(counter(&t.client, "sends_delayed") > 0);
    assert_int_equal(broker_stop(&t.f), 0); /* what she did not read does not hold it up (LINGER) */
    link_close(&eve);
    fleet_close(&t);
}

struct flood {
    struct link link;
    atomic_bool stop;
};

static void *flood_on_and_on(void *argument)
{
    struct flood *flood = argument;
    struct pm_msg_list q = {.ref = 1, .batch = "", .limit = 100};
    while (!atomic_load(&flood->stop)) {
        struct pm_header h = {.proto = 1, .type = PM_MSG_LIST, .seq = ++flood->link.seq};
        (void)pm_message_send(flood->link.socket, NULL, 0, &h, &q, NULL, 0, NULL);
        pm_arena_clear(&flood->link.arena); /* and reads, so that nothing slows it down */
        (void)pm_message_receive(flood->link.socket, false, &flood->link.arena, &flood->link.last, NULL);
    }
    return NULL;
}

/* Messages are taken in turns, a number from each socket, clocks looked at between: a client that sends
 * without pause keeps nobody from working. */
static void flood_starves_nobody(void **state)
{
    (void)state;
    struct fleet t;
    struct flood flood = {.stop = false};
    pthread_t thread;
    fleet_open(&t);
    client_open(&flood.link, &t.f, "eve");
    assert_int_equal(pthread_create(&thread, NULL, flood_on_and_on, &flood), 0);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct pm_job_info info = serve_until_done(&t, job, 5, 10);
    atomic_store(&flood.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(info.state, PM_JOB_DONE);
    assert_int_equal(info.retries, 0); /* no lease was taken for stalled */
    link_close(&flood.link);
    fleet_close(&t);
}

/* More than a frame may have: that connection ends, nothing of it is kept, and the others do not notice. */
static void oversized_message_costs_its_sender(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    struct link eve;
    client_open(&eve, &t.f, "eve");
    uint8_t *large = calloc(1, PM_FRAME_PAYLOAD_BYTES + 1);
    void *watch = zmq_socket(t.f.zmq, ZMQ_PAIR);
    assert_int_equal(zmq_socket_monitor(eve.socket, "inproc://eve", ZMQ_EVENT_DISCONNECTED), 0);
    assert_int_equal(zmq_connect(watch, "inproc://eve"), 0);
    assert_true(zmq_send(eve.socket, large, PM_FRAME_PAYLOAD_BYTES + 1, 0) > 0);
    zmq_pollitem_t item = {.socket = watch, .events = ZMQ_POLLIN};
    assert_int_equal(zmq_poll(&item, 1, 10000), 1);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    assert_int_equal(serve_until_done(&t, job, 1, 1).state, PM_JOB_DONE);
    zmq_socket_monitor(eve.socket, NULL, 0);
    zmq_close(watch);
    link_close(&eve);
    free(large);
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

/* ---- drain, blobs ---- */

static void drain_finishes_what_is_in_hand(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    uint64_t job = submit(&t.client, "source", "key", NULL);
    struct fake_lease l = take_lease(&t.layoutd);
    answer_lease(&t.layoutd, &l, 2, 0);
    l = take_lease(&t.layoutd);
    struct pm_msg_shutdown q = {.ref = 8};
    link_send(&t.client, PM_MSG_SHUTDOWN, &q);
    link_expect(&t.client, PM_MSG_DONE);
    char source[PM_BLOB_KEY_SIZE];
    put_blob(&t.f, PM_BLOB_DISK, "x", source);
    struct pm_msg_submit m = {.ref = 4, .key = "", .name = "n", .source = source, .batch = ""};
    m.options = (struct pm_options){
        .pages = "", .password = "", .reader = "", .formats = "", .drop = "", .stem = "n"};
    link_send(&t.client, PM_MSG_SUBMIT, &m);
    expect_refusal(&t.client, "busy", "stopping");
    assert_true(answer_lease(&t.layoutd, &l, 0, 0)); /* still taken */
    /* The empty page is assembled, the second page is not begun; then the broker leaves. */
    struct fake_lease page = take_lease(&t.collector);
    assert_true(answer_lease(&t.collector, &page, 0, 0));
    link_expect(&t.layoutd, PM_MSG_GOODBYE);
    int status;
    pm_child_reap(&t.f.broker, &status);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    broker_start(&t.f, NULL);
    link_close(&t.client);
    client_open(&t.client, &t.f, "alice");
    service_hello(&t.layoutd, PM_ROLE_LAYOUTD, "layoutd-1", 1, 0, NULL, 0);
    service_hello(&t.worker, PM_ROLE_WORKER, "worker-1", 4, 0, NULL, 0);
    service_hello(&t.collector, PM_ROLE_COLLECTOR, "collector-1", 1, 0, NULL, 0);
    assert_int_equal(serve_until_done(&t, job, 2, 1).state, PM_JOB_DONE);
    fleet_close(&t);
}

static void blobs_through_the_socket(void **state)
{
    (void)state;
    struct fleet t;
    fleet_open(&t);
    size_t bytes = PM_CHUNK_BYTES + 1000;
    uint8_t *data = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(i * i >> 7);
    char key[PM_BLOB_KEY_SIZE] = "";
    for (size_t at = 0; at < bytes; at += PM_CHUNK_BYTES) {
        size_t n = bytes - at < PM_CHUNK_BYTES ? bytes - at : PM_CHUNK_BYTES;
        struct pm_buf packed = {0};
        pm_chunk_pack(data + at, n, &packed);
        struct pm_msg_blob_put put = {
            .ref = 20, .upload = 1, .offset = at, .is_last = at + n == bytes, .raw_bytes = (uint32_t)n};
        link_send_payload(&t.client, PM_MSG_BLOB_PUT, &put, packed.data, packed.size);
        const struct pm_msg_blob_stored *stored = link_expect(&t.client, PM_MSG_BLOB_STORED);
        assert_int_equal(stored->offset, at + n);
        strcpy(key, stored->blob);
        pm_buf_free(&packed);
    }
    struct pm_blob_map map;
    assert_int_equal(pm_blob_map(t.f.blobs, key, &map, NULL), 0);
    assert_int_equal(map.bytes, bytes);
    assert_memory_equal(map.data, data, bytes);
    pm_blob_unmap(&map);
    /* Nobody refers to it yet: it is not given out. As a job's source it is. */
    struct pm_msg_blob_get get = {.ref = 21, .blob = key, .offset = PM_CHUNK_BYTES};
    link_send(&t.client, PM_MSG_BLOB_GET, &get);
    expect_refusal(&t.client, "not-found", "no result");
    struct pm_msg_submit m = {.ref = 4, .key = "", .name = "n", .source = key, .batch = ""};
    m.options = (struct pm_options){
        .pages = "", .password = "", .reader = "", .formats = "", .drop = "", .stem = "n"};
    link_send(&t.client, PM_MSG_SUBMIT, &m);
    link_expect(&t.client, PM_MSG_ACCEPTED);
    link_send(&t.client, PM_MSG_BLOB_GET, &get);
    const struct pm_msg_blob_data *part = link_expect(&t.client, PM_MSG_BLOB_DATA);
    assert_int_equal(part->total, bytes);
    assert_int_equal(part->raw_bytes, 1000);
    uint8_t raw[1000];
    assert_int_equal(pm_chunk_unpack(t.client.last.payload, 1000, raw, NULL), 0);
    assert_memory_equal(raw, data + PM_CHUNK_BYTES, 1000);
    /* Chunks out of order, and more than was announced, are refused. */
    struct pm_msg_blob_put put = {.ref = 22, .upload = 2, .offset = 10, .raw_bytes = 3};
    link_send_payload(&t.client, PM_MSG_BLOB_PUT, &put, "abc", 3);
    expect_refusal(&t.client, "protocol", "was expected");
    put.offset = 0;
    put.raw_bytes = PM_CHUNK_BYTES + 1;
    link_send_payload(&t.client, PM_MSG_BLOB_PUT, &put, "abc", 3);
    uint32_t type;
    link_receive(&t.client, &type);
    assert_int_equal(type, PM_MSG_REFUSE);
    free(data);
    fleet_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_job),
        cmocka_unit_test(duplicates_give_the_first_job),
        cmocka_unit_test(sheet_of_a_refused_page_goes),
        cmocka_unit_test(killed_broker_loses_nothing),
        cmocka_unit_test(broker_killed_again_and_again),
        cmocka_unit_test(crash_is_known_from_the_note),
        cmocka_unit_test(dead_worker_is_noticed_and_its_answer_fenced),
        cmocka_unit_test(lost_sheet_is_made_again),
        cmocka_unit_test(cancel_reaches_a_running_region),
        cmocka_unit_test(failures_are_told),
        cmocka_unit_test(watchers_see_it_all_in_order),
        cmocka_unit_test(sleepy_watcher_is_told_what_it_missed),
        cmocka_unit_test(strangers_and_wrong_roles),
        cmocka_unit_test(bad_submits),
        cmocka_unit_test(second_broker_is_refused),
        cmocka_unit_test(peer_that_does_not_read),
        cmocka_unit_test(flood_starves_nobody),
        cmocka_unit_test(oversized_message_costs_its_sender),
        cmocka_unit_test(stopped_worker_is_replaced),
        cmocka_unit_test(hello_twice),
        cmocka_unit_test(worker_that_left_without_a_word),
        cmocka_unit_test(stalled_worker_is_fenced),
        cmocka_unit_test(drain_finishes_what_is_in_hand),
        cmocka_unit_test(blobs_through_the_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
