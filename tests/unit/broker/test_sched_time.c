/* Deadlines of jobs, readers that never come, how long a job will take, and what a cancel of much costs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/scheduler.h"

#define SECOND_US ((int64_t)1000000)

static const char blob[] = "d00000000000000000000000000000000000000000000000000000000000000aa";

struct lease {
    uint32_t peer, attempt;
    uint64_t task, epoch;
};
struct bed {
    struct pm_sched *s;
    struct pm_now now;
    uint64_t granted[64];
    struct lease kept[64];
    size_t kept_count;
};

static void bed_open(struct bed *b, struct pm_sched_config config)
{
    *b = (struct bed){.now = {SECOND_US, 5000 * SECOND_US}};
    config.epoch = 1;
    b->s = pm_sched_new(&config);
}

static void wait_s(struct bed *b, double seconds)
{
    b->now.us += (int64_t)(seconds * 1e6);
    b->now.wall_us += (int64_t)(seconds * 1e6);
}

static uint32_t join(struct bed *b, enum pm_role role, const char *reader, uint64_t credit)
{
    const char *const readers[] = {reader};
    struct pm_sched_peer facts = {
        .role = role, .readers = readers, .reader_count = role == PM_ROLE_WORKER, .granted = credit};
    uint32_t peer = pm_sched_peer_join(b->s, b->now, &facts);
    b->granted[peer] = credit;
    return peer;
}

static struct pm_msg_submit submit_of(uint32_t deadline_s, const char *reader)
{
    return (struct pm_msg_submit){.key = "",
                                  .name = "n",
                                  .source = blob,
                                  .priority = 2,
                                  .batch = "b",
                                  .deadline_s = deadline_s,
                                  .options = {.reader = reader}};
}

static uint64_t submit(struct bed *b, uint32_t deadline_s, const char *reader)
{
    struct pm_msg_submit m = submit_of(deadline_s, reader);
    uint64_t job;
    bool duplicate;
    assert_int_equal(pm_sched_submit(b->s, b->now, "a", &m, &job, &duplicate, NULL), 0);
    return job;
}

/* A turn; the first lease of it, the others are kept for those to come. Revokes are counted. */
static size_t revokes;
static struct lease turn(struct bed *b)
{
    revokes = 0;
    pm_sched_tick(b->s, b->now);
    pm_sched_assign(b->s, b->now);
    struct pm_actions *a = pm_sched_actions(b->s);
    for (size_t i = 0; i < a->item_count; i++) {
        struct pm_lease_facts facts;
        revokes += a->items[i].kind == PM_ACTION_REVOKE;
        if (a->items[i].kind == PM_ACTION_LEASE && pm_sched_lease_facts(b->s, a->items[i].task, &facts))
            b->kept[b->kept_count++] =
                (struct lease){a->items[i].peer, facts.attempt, a->items[i].task, facts.epoch};
    }
    pm_actions_clear(a);
    pm_sched_written(b->s);
    struct lease first = b->kept[0];
    if (!b->kept_count)
        return (struct lease){0};
    memmove(b->kept, b->kept + 1, --b->kept_count * sizeof first);
    return first;
}

static int finish(struct bed *b, struct lease l, struct pm_msg_result r)
{
    r.task = l.task;
    r.epoch = l.epoch;
    r.attempt = l.attempt;
    r.error_code = r.error_text = "";
    int rc = pm_sched_result(b->s, b->now, l.peer, &r, NULL);
    pm_sched_credit(b->s, l.peer, ++b->granted[l.peer]);
    return rc;
}

static int finish_open(struct bed *b, struct lease l, uint32_t pages)
{
    struct pm_found_page *found = calloc(pages, sizeof *found);
    assert_non_null(found);
    for (uint32_t i = 0; i < pages; i++)
        found[i] = (struct pm_found_page){i + 1, 1000, 1000};
    int rc = finish(b, l, (struct pm_msg_result){.pages = found, .page_count = pages});
    pm_actions_clear(pm_sched_actions(b->s));
    free(found);
    return rc;
}

static int finish_page(struct bed *b, struct lease l, uint32_t regions)
{
    uint32_t costs[64];
    for (uint32_t i = 0; i < regions; i++)
        costs[i] = 10;
    return finish(b, l,
                  (struct pm_msg_result){.record = blob, .sheet = "", .costs = costs, .cost_count = regions});
}

static struct pm_job_info info_of(struct bed *b, uint64_t job)
{
    struct pm_job_info info;
    assert_true(pm_sched_info(b->s, job, &info));
    return info;
}

static void check_timeout(struct bed *b, uint64_t job, const char *text)
{
    struct pm_job_info info = info_of(b, job);
    assert_int_equal(info.state, PM_JOB_FAILED);
    assert_string_equal(info.error_code, "timeout");
    assert_string_equal(info.error_text, text);
}

/* ---- deadlines ---- */

static void jobs_end_at_their_deadline(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    uint32_t layoutd = join(&b, PM_ROLE_LAYOUTD, "", 1);
    join(&b, PM_ROLE_WORKER, "fast", 4);
    uint64_t running = submit(&b, 10, "fast");
    assert_int_equal(info_of(&b, running).deadline_wall_us, b.now.wall_us + 10 * SECOND_US);
    assert_int_equal(finish_open(&b, turn(&b), 3), 0);
    struct lease page = turn(&b);
    uint64_t queued = submit(&b, 12, "fast"), free_job = submit(&b, 0, "");
    assert_int_equal(info_of(&b, free_job).deadline_wall_us, 0);
    assert_int_equal(pm_task_job(page.task), running);
    assert_int_equal(pm_task_kind(page.task), PM_KIND_PAGE);
    wait_s(&b, 9.9);
    pm_sched_beat(b.s, b.now, layoutd, page.task, page.attempt);
    turn(&b);
    assert_int_equal(info_of(&b, running).state, PM_JOB_RUNNING);
    assert_int_equal(pm_sched_next_us(b.s, b.now), SECOND_US + 10 * SECOND_US); /* not a moment later */
    wait_s(&b, 0.1);
    turn(&b);
    check_timeout(&b, running, "it did not end within 10 s");
    assert_int_equal(revokes, 1); /* what ran of it is stopped */
    assert_int_equal(finish_page(&b, page, 1), PM_EGONE);
    wait_s(&b, 2);
    turn(&b);
    check_timeout(&b, queued, "it did not end within 12 s");
    wait_s(&b, 100);
    turn(&b);
    assert_true(info_of(&b, free_job).state <= PM_JOB_RUNNING);
    struct pm_sched_stats stats;
    pm_sched_stats(b.s, b.now, &stats);
    assert_int_equal(stats.late_jobs, 2);
    pm_sched_free(&b.s);
}

/* Whoever sets the wall clock neither ends jobs nor keeps them. */
static void deadlines_do_not_follow_the_wall_clock(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    uint64_t job = submit(&b, 10, "fast");
    b.now.wall_us += 86400 * SECOND_US;
    turn(&b);
    assert_int_equal(info_of(&b, job).state, PM_JOB_QUEUED);
    b.now.wall_us -= 2 * 86400 * SECOND_US;
    b.now.us += 10 * SECOND_US;
    turn(&b);
    check_timeout(&b, job, "it did not end within 10 s");
    pm_sched_free(&b.s);
}

static int no_load(void *ctx, uint64_t job, struct pm_job_image *out, struct pm_error *err)
{
    const struct pm_msg_submit *m = ctx;
    (void)err;
    *out = (struct pm_job_image){.job = job, .submit = *m};
    out->info = (struct pm_job_info){
        .client = "a", .error_code = "", .error_text = "", .created_wall_us = 4990 * SECOND_US};
    return 0;
}

static void deadlines_survive_restarts(void **state)
{
    (void)state;
    struct pm_msg_submit m = submit_of(15, "fast");
    for (int is_asleep = 0; is_asleep < 2; is_asleep++)
        for (uint32_t age_s = 5; age_s <= 20; age_s += 5) {
            struct bed b;
            bed_open(&b, (struct pm_sched_config){.load = is_asleep ? no_load : NULL, .load_ctx = &m});
            struct pm_job_image image = {.job = 7, .submit = m};
            image.info = (struct pm_job_info){.client = "a",
                                              .state = PM_JOB_QUEUED,
                                              .error_code = "",
                                              .error_text = "",
                                              .created_wall_us = b.now.wall_us - age_s * SECOND_US};
            assert_int_equal(pm_sched_restore(b.s, b.now, &image, NULL), 0);
            turn(&b);
            bool is_late = age_s >= 15;
            assert_int_equal(pm_sched_state(b.s, 7), is_late ? PM_JOB_FAILED : PM_JOB_QUEUED);
            wait_s(&b, 14.9 - age_s > 0 ? 14.9 - age_s : 0);
            turn(&b);
            assert_int_equal(pm_sched_state(b.s, 7), is_late ? PM_JOB_FAILED : PM_JOB_QUEUED);
            wait_s(&b, 0.2);
            turn(&b);
            assert_int_equal(pm_sched_state(b.s, 7), PM_JOB_FAILED);
            pm_sched_free(&b.s);
        }
}

static int wake_any(void *ctx, uint64_t job, struct pm_job_image *out, struct pm_error *err)
{
    (void)err;
    *out = (struct pm_job_image){.job = job, .submit = *(const struct pm_msg_submit *)ctx};
    return 0;
}

static void end_turn(struct bed *b)
{
    pm_sched_tick(b->s, b->now);
    pm_actions_clear(pm_sched_actions(b->s));
    pm_sched_written(b->s);
}

/* Results live as long as was said: whoever sets the clock does not end them, nor a job that ended again
 * before the others. */
static void results_expire_in_their_time(void **state)
{
    (void)state;
    struct bed b;
    struct pm_msg_submit m = submit_of(0, "fast");
    bed_open(&b, (struct pm_sched_config){.load = wake_any, .load_ctx = &m});
    uint64_t again = submit(&b, 0, "fast"), old = submit(&b, 0, "fast");
    assert_int_equal(pm_sched_cancel(b.s, b.now, again, NULL), 0);
    wait_s(&b, 10);
    assert_int_equal(pm_sched_cancel(b.s, b.now, old, NULL), 0);
    end_turn(&b);
    wait_s(&b, 80);
    const struct pm_job_image image = {.job = again, .submit = m};
    assert_int_equal(pm_sched_retry(b.s, b.now, &image, NULL), 0);
    assert_int_equal(pm_sched_cancel(b.s, b.now, again, NULL), 0);
    end_turn(&b);
    b.now.wall_us += 365 * 86400 * SECOND_US;
    assert_int_equal(pm_sched_expired(b.s, b.now, 100 * SECOND_US), 0);
    b.now.wall_us -= 2 * 365 * 86400 * SECOND_US;
    wait_s(&b, 20);
    assert_int_equal(pm_sched_expired(b.s, b.now, 100 * SECOND_US), old);
    assert_int_equal(pm_sched_forget(b.s, old, NULL), 0);
    assert_int_equal(pm_sched_expired(b.s, b.now, 100 * SECOND_US), 0);
    wait_s(&b, 80);
    assert_int_equal(pm_sched_expired(b.s, b.now, 100 * SECOND_US), again);
    pm_sched_free(&b.s);
}

/* A broker that starts with jobs in its queue does not say that they have waited since the machine did. */
static void waiting_begins_anew_after_a_restart(void **state)
{
    (void)state;
    struct bed b;
    struct pm_msg_submit m = submit_of(0, "fast");
    bed_open(&b, (struct pm_sched_config){.load = wake_any, .load_ctx = &m});
    b.now.us = 1000000 * SECOND_US;
    struct pm_job_image image = {.job = 7, .submit = m};
    image.info =
        (struct pm_job_info){.client = "a", .state = PM_JOB_QUEUED, .error_code = "", .error_text = ""};
    assert_int_equal(pm_sched_restore(b.s, b.now, &image, NULL), 0);
    wait_s(&b, 3);
    struct pm_sched_stats stats;
    pm_sched_stats(b.s, b.now, &stats);
    assert_int_equal(stats.kinds[0].oldest_us, 3 * SECOND_US);
    pm_sched_free(&b.s);
}

static int failing_load(void *ctx, uint64_t job, struct pm_job_image *out, struct pm_error *err)
{
    const int *code = ctx;
    struct pm_msg_submit m = submit_of(0, "fast");
    return *code ? pm_fail(err, *code, "it cannot be read") : wake_any(&m, job, out, err);
}

/* A job that sleeps is not lost because there is no memory just now; a row that is damaged is told. */
static void sleepers_wait_for_memory(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct bed b;
        int code = i ? PM_EFORMAT : PM_ENOMEM;
        bed_open(&b, (struct pm_sched_config){.load = failing_load, .load_ctx = &code});
        struct pm_job_image image = {.job = 7, .submit = submit_of(0, "fast")};
        image.info =
            (struct pm_job_info){.client = "a", .state = PM_JOB_QUEUED, .error_code = "", .error_text = ""};
        assert_int_equal(pm_sched_restore(b.s, b.now, &image, NULL), 0);
        join(&b, PM_ROLE_LAYOUTD, "", 1);
        assert_int_equal(turn(&b).task, 0);
        assert_int_equal(pm_sched_state(b.s, 7), i ? PM_JOB_FAILED : PM_JOB_QUEUED);
        code = 0;
        assert_int_equal(pm_task_job(turn(&b).task), i ? 0 : 7);
        pm_sched_free(&b.s);
    }
}

/* Whoever names another reader with every hello is stopped some time; the others are not. */
static void readers_are_counted(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    char name[16];
    const char *const known[] = {"reader-0"}, *const fresh[] = {"fresh"}, *const mixed[] = {name};
    uint32_t most = 0;
    for (; most < 10000 && !pm_sched_check_worker(b.s, fresh, 1, NULL); most++) {
        snprintf(name, sizeof name, "reader-%u", most);
        struct pm_sched_peer facts = {.role = PM_ROLE_WORKER, .readers = mixed, .reader_count = 1};
        pm_sched_peer_end(b.s, b.now, pm_sched_peer_join(b.s, b.now, &facts), PM_PEER_LEFT);
    }
    assert_in_range(most, 100, 1000);
    assert_int_equal(pm_sched_check_worker(b.s, known, 1, NULL), 0);
    pm_sched_free(&b.s);
}

/* A worker must not say that it holds what is not for workers, nor another reader's region: the numbers of
 * tasks and attempts can be guessed. */
static void roles_hold_what_is_theirs(void **state)
{
    (void)state;
    for (int turn_of = 0; turn_of < 2; turn_of++) {
        struct bed b;
        bed_open(&b, (struct pm_sched_config){.epoch = 1});
        uint64_t job = submit(&b, 0, "fast");
        uint32_t peer = join(&b, turn_of ? PM_ROLE_LAYOUTD : PM_ROLE_WORKER, "fast", 4);
        const struct pm_held held = {.task = pm_task_id(job, 0, PM_TASK_SLOT_PAGE), .attempt = 1, .epoch = 0};
        assert_int_equal(pm_sched_held(b.s, b.now, peer, &held), turn_of);
        pm_sched_free(&b.s);
    }
}

/* A job that is begun again has its time again; the deadline of its first life is none of its second. */
static void retries_have_their_time_again(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    uint64_t job = submit(&b, 10, "fast");
    turn(&b);
    wait_s(&b, 6);
    assert_int_equal(pm_sched_cancel(b.s, b.now, job, NULL), 0);
    turn(&b);
    struct pm_job_image image = {.job = job, .submit = submit_of(10, "fast"), .info = info_of(&b, job)};
    assert_int_equal(pm_sched_retry(b.s, b.now, &image, NULL), 0);
    wait_s(&b, 9);
    turn(&b);
    assert_int_equal(info_of(&b, job).state, PM_JOB_QUEUED);
    wait_s(&b, 1);
    turn(&b);
    check_timeout(&b, job, "it did not end within 10 s");
    pm_sched_free(&b.s);
}

/* A worker that beats and never ends, and takes no notice of the time that the region may take. */
static void regions_end_at_their_timeout(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){.stall_us = 2 * SECOND_US});
    join(&b, PM_ROLE_LAYOUTD, "", 1);
    uint32_t worker = join(&b, PM_ROLE_WORKER, "fast", 1);
    struct pm_msg_submit m = submit_of(0, "fast");
    m.options.region_timeout_s = 20;
    uint64_t job;
    bool duplicate;
    assert_int_equal(pm_sched_submit(b.s, b.now, "a", &m, &job, &duplicate, NULL), 0);
    assert_int_equal(finish_open(&b, turn(&b), 1), 0);
    assert_int_equal(finish_page(&b, turn(&b), 1), 0);
    struct lease region = turn(&b);
    double waited = 0;
    for (revokes = 0; !revokes && waited < 100; waited += 0.5) {
        wait_s(&b, 0.5);
        pm_sched_beat(b.s, b.now, worker, region.task, region.attempt);
        turn(&b);
    }
    assert_true(waited >= 20 && waited <= 25);
    pm_sched_free(&b.s);
}

/* ---- readers ---- */

static void unknown_readers_fail_after_a_while(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    turn(&b);
    uint64_t slow = submit(&b, 0, "slow"), none = submit(&b, 0, "typo"), fast = submit(&b, 0, "fast");
    wait_s(&b, 5);
    turn(&b);
    assert_int_equal(info_of(&b, none).state, PM_JOB_QUEUED);
    wait_s(&b, 20);
    turn(&b); /* nobody is here at all: then nothing can be said of readers */
    assert_int_equal(info_of(&b, none).state, PM_JOB_QUEUED);
    uint32_t gone = join(&b, PM_ROLE_WORKER, "slow", 1);
    pm_sched_peer_end(b.s, b.now, gone, PM_PEER_KILLED); /* it will be started again */
    join(&b, PM_ROLE_WORKER, "fast", 1);
    turn(&b);
    struct pm_job_info info = info_of(&b, none);
    assert_int_equal(info.state, PM_JOB_FAILED);
    assert_string_equal(info.error_code, "unsupported");
    assert_non_null(strstr(info.error_text, "\"typo\""));
    assert_non_null(strstr(info.error_text, "fast"));
    assert_int_equal(info_of(&b, slow).state, PM_JOB_QUEUED);
    assert_int_equal(info_of(&b, fast).state, PM_JOB_QUEUED);
    pm_sched_free(&b.s);
}

/* ---- how long it will take ---- */

static void the_end_is_foreseen(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    join(&b, PM_ROLE_LAYOUTD, "", 1);
    join(&b, PM_ROLE_WORKER, "fast", 1);
    join(&b, PM_ROLE_COLLECTOR, "", 1);
    uint64_t job = submit(&b, 0, "fast");
    assert_int_equal(info_of(&b, job).eta_us, 0); /* nothing is known yet */
    assert_int_equal(finish_open(&b, turn(&b), 100), 0);
    int64_t began = b.now.us;
    double worst = 0;
    struct pm_job_info info;
    for (int n = 0; n < 3000; n++) {
        struct lease l = turn(&b);
        info = info_of(&b, job);
        if (info.pages_done >= 10 && info.pages_done < 95) { /* two seconds a page */
            double left = 200e6 - (double)(b.now.us - began), error = (double)info.eta_us / left;
            worst = error > worst ? error : worst;
            assert_true(error > 0.7 && error < 1.4);
        }
        if (!l.task || info.state > PM_JOB_RUNNING)
            break;
        switch (pm_task_kind(l.task)) {
        case PM_KIND_PAGE:
            finish_page(&b, l, 4);
            break;
        case PM_KIND_REGION:
            wait_s(&b, 0.5);
            finish(&b, l, (struct pm_msg_result){.text = {(const uint8_t *)"x", 1}});
            break;
        default:
            finish(&b, l,
                   (struct pm_msg_result){.blob = blob, .manifest = {(const uint8_t *)"x", 1}, .run_us = 1});
            break;
        }
    }
    assert_true(worst > 0);
    pm_sched_free(&b.s);
}

/* ---- cancelling much ---- */

static void trees_are_cancelled_whole(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    join(&b, PM_ROLE_LAYOUTD, "", 4);
    uint32_t worker = join(&b, PM_ROLE_WORKER, "fast", 30);
    uint64_t job = submit(&b, 0, "fast"), other = submit(&b, 0, "fast");
    assert_int_equal(finish_open(&b, turn(&b), 10000), 0);
    for (int n = 0; n < 8; n++) {
        struct lease l = turn(&b);
        if (l.task && pm_task_kind(l.task) == PM_KIND_PAGE)
            finish_page(&b, l, 60);
    }
    turn(&b);
    size_t running = pm_sched_lease_count(b.s);
    assert_true(running >= 30);
    assert_int_equal(pm_sched_cancel(b.s, b.now, job, NULL), 0);
    /* One row, one event, and a revoke for everything that runs of it, all in this turn. */
    struct pm_actions *a = pm_sched_actions(b.s);
    size_t revoked = 0;
    for (size_t i = 0; i < a->item_count; i++)
        revoked += a->items[i].kind == PM_ACTION_REVOKE && pm_task_job(a->items[i].task) == job;
    assert_int_equal(a->op_count, 1);
    assert_int_equal(revoked + pm_sched_lease_count(b.s), running);
    assert_int_equal(pm_sched_peer_leases(b.s, worker), 0);
    pm_sched_credit(b.s, worker, 100);
    turn(&b);
    struct pm_sched_stats stats;
    pm_sched_stats(b.s, b.now, &stats);
    assert_int_equal(stats.kinds[2].queued, 0);
    assert_true(stats.kinds[0].queued + stats.kinds[0].leased <= 1); /* the other job's */
    assert_true(info_of(&b, other).state <= PM_JOB_RUNNING);
    pm_sched_free(&b.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_end_at_their_deadline),
        cmocka_unit_test(deadlines_do_not_follow_the_wall_clock),
        cmocka_unit_test(deadlines_survive_restarts),
        cmocka_unit_test(results_expire_in_their_time),
        cmocka_unit_test(waiting_begins_anew_after_a_restart),
        cmocka_unit_test(roles_hold_what_is_theirs),
        cmocka_unit_test(readers_are_counted),
        cmocka_unit_test(sleepers_wait_for_memory),
        cmocka_unit_test(retries_have_their_time_again),
        cmocka_unit_test(regions_end_at_their_timeout),
        cmocka_unit_test(unknown_readers_fail_after_a_while),
        cmocka_unit_test(the_end_is_foreseen),
        cmocka_unit_test(trees_are_cancelled_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
