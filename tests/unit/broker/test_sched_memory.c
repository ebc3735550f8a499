/* What a job costs while it waits and after its end, what it costs to ask about a million, and that sleeping
 * jobs are themselves when they wake. Jobs are read back from a journal made of a rule: the submit of job n
 * is a function of n. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "broker/scheduler.h"

static const char source[] = "d00000000000000000000000000000000000000000000000000000000000000aa";

struct bed {
    struct pm_sched *s;
    struct pm_now now;
    struct pm_arena arena;
    uint64_t loads;
    bool is_broken;
};

static const char *texted(struct bed *b, const char *before, uint64_t n, const char *after)
{
    char text[64];
    int size = snprintf(text, sizeof text, "%s%llu%s", before, (unsigned long long)n, after);
    return pm_arena_text(&b->arena, text, (size_t)size);
}

static struct pm_msg_submit submit_of(struct bed *b, uint64_t n)
{
    return (struct pm_msg_submit){.key = texted(b, "key-", n, ""),
                                  .name = texted(b, "scans/", n, ".png"),
                                  .source = source,
                                  .source_bytes = 1000 + n,
                                  .batch = n % 1000 == 7 ? "sevens" : "rest",
                                  .priority = 2,
                                  .deadline_s = n % 100000 == 11 ? 3600 : 0,
                                  .options = {.reader = "fast", .stem = texted(b, "", n, "")}};
}

static int load(void *ctx, uint64_t job, struct pm_job_image *out, struct pm_error *err)
{
    struct bed *b = ctx;
    b->loads++;
    if (b->is_broken)
        return pm_fail(err, PM_EIO, "the disk is gone");
    *out = (struct pm_job_image){.job = job, .submit = submit_of(b, job)};
    out->info = (struct pm_job_info){
        .job = job, .client = "a", .created_wall_us = 77, .error_code = "", .error_text = ""};
    return 0;
}

static void end_turn(struct bed *b)
{
    pm_actions_clear(pm_sched_actions(b->s));
    pm_sched_written(b->s);
    pm_arena_clear(&b->arena);
}

static void bed_open(struct bed *b, uint32_t awake)
{
    *b = (struct bed){.now = {1000000, 5000000}};
    struct pm_sched_config config = {
        .epoch = 1, .load = load, .load_ctx = b, .awake_jobs = awake, .max_jobs = 20000000};
    b->s = pm_sched_new(&config);
}

static void bed_close(struct bed *b)
{
    pm_sched_free(&b->s);
    pm_arena_free(&b->arena);
}

static void submit(struct bed *b, uint64_t n)
{
    struct pm_msg_submit m = submit_of(b, n);
    uint64_t job;
    bool duplicate;
    assert_int_equal(pm_sched_submit(b->s, b->now, "a", &m, &job, &duplicate, NULL), 0);
    assert_false(duplicate);
    assert_int_equal(job, n);
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static size_t bytes_in_use(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

static uint32_t join(struct bed *b, enum pm_role role, uint64_t credit)
{
    static const char *const readers[] = {"fast"};
    struct pm_sched_peer facts = {
        .role = role, .readers = readers, .reader_count = role == PM_ROLE_WORKER, .granted = credit};
    return pm_sched_peer_join(b->s, b->now, &facts);
}

/* The lease of this turn. */
static struct pm_msg_result leased(struct bed *b)
{
    struct pm_lease_facts facts;
    pm_sched_tick(b->s, b->now);
    pm_sched_assign(b->s, b->now);
    struct pm_actions *a = pm_sched_actions(b->s);
    for (size_t i = 0; i < a->item_count; i++) {
        if (a->items[i].kind != PM_ACTION_LEASE)
            continue;
        uint64_t task = a->items[i].task;
        assert_true(pm_sched_lease_facts(b->s, task, &facts));
        return (struct pm_msg_result){
            .task = task, .epoch = facts.epoch, .attempt = facts.attempt, .error_code = "", .error_text = ""};
    }
    fail_msg("nothing was leased");
    return (struct pm_msg_result){0};
}

static void jobs_are_small(void **state)
{
    (void)state;
    struct bed b;
    uint64_t count = setting("PM_MEMORY_JOBS", 200000);
    bed_open(&b, 0);
    join(&b, PM_ROLE_LAYOUTD, 0);
    join(&b, PM_ROLE_WORKER, 0);
    size_t before = bytes_in_use();
    for (uint64_t n = 1; n <= count; n++) {
        submit(&b, n);
        if (n % 64 == 0)
            end_turn(&b);
    }
    end_turn(&b);
    size_t after = bytes_in_use(), each = after > before ? (after - before) / count : 0;
    printf("a queued job of one page takes %zu bytes of the scheduler (%llu jobs)\n", each,
           (unsigned long long)count);
    if (each) /* sanitizers have an allocator of their own, which does not tell */
        assert_in_range(each, 40, 130);
    struct pm_sched_stats stats;
    pm_sched_stats(b.s, b.now, &stats);
    assert_int_equal(stats.jobs[PM_JOB_QUEUED], count);
    assert_int_equal(stats.kinds[0].queued, count);
    assert_int_equal(b.loads, 0);
    /* They are known by key and batch without being read back ... */
    uint64_t cursor = 0, sevens = 0, job;
    const struct pm_sched_filter filter = {.batch = "sevens", .is_live = true};
    assert_int_equal(pm_sched_known(b.s, "a", "key-4711"), 4711);
    assert_int_equal(pm_sched_known(b.s, "b", "key-4711"), 0);
    while ((job = pm_sched_next_job(b.s, &cursor, &filter))) {
        assert_int_equal(job % 1000, 7);
        assert_int_equal(pm_sched_cancel(b.s, b.now, job, NULL), 0);
        sevens++;
    }
    assert_int_equal(sevens, count / 1000);
    assert_int_equal(b.loads, 0);
    end_turn(&b);
    /* ... and leave nothing behind. */
    for (uint64_t n = 1; n <= count; n++) {
        if (n % 1000 != 7)
            assert_int_equal(pm_sched_cancel(b.s, b.now, n, NULL), 0);
        if (n % 64 == 0)
            end_turn(&b);
    }
    end_turn(&b);
    pm_sched_stats(b.s, b.now, &stats);
    assert_int_equal(stats.kinds[0].queued, 0);
    assert_int_equal(stats.jobs[PM_JOB_CANCELLED], count);
    printf("an ended one takes %zu bytes\n", (bytes_in_use() - before) / count);
    while ((job = pm_sched_expired(b.s, b.now, 0))) {
        assert_int_equal(pm_sched_forget(b.s, job, NULL), 0);
        end_turn(&b);
    }
    assert_int_equal(pm_sched_known(b.s, "a", "key-4711"), 0);
    bed_close(&b);
}

static void sleepers_wake_as_themselves(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, 1);
    for (uint64_t n = 1; n <= 20; n++) {
        b.now.us += 1000;
        submit(&b, n);
        end_turn(&b);
    }
    struct pm_sched_stats stats;
    pm_sched_stats(b.s, b.now, &stats);
    assert_int_equal(stats.kinds[0].oldest_us, 19000);
    struct pm_job_info info;
    assert_true(pm_sched_info(b.s, 12, &info));
    assert_string_equal(info.name, "scans/12.png");
    assert_string_equal(info.client, "a");
    assert_string_equal(info.reader, "fast");
    assert_int_equal(info.state, PM_JOB_QUEUED);
    assert_int_equal(info.created_wall_us, 77);
    assert_true(b.loads > 0);
    /* The same key again is the same job. */
    uint64_t job;
    bool duplicate;
    struct pm_msg_submit m = submit_of(&b, 12);
    assert_int_equal(pm_sched_submit(b.s, b.now, "a", &m, &job, &duplicate, NULL), 0);
    assert_true(duplicate);
    assert_int_equal(job, 12);
    /* Cancelled in its sleep: it is not given out. The others come in their order. */
    assert_int_equal(pm_sched_cancel(b.s, b.now, 2, NULL), 0);
    assert_int_equal(pm_sched_cancel(b.s, b.now, 2, NULL), 0);
    uint32_t layoutd = join(&b, PM_ROLE_LAYOUTD, 1);
    for (uint64_t n = 1, answers = 0; n <= 20; n++) {
        if (n == 2)
            continue;
        struct pm_msg_result r = leased(&b);
        assert_int_equal(pm_task_job(r.task), n);
        end_turn(&b);
        r.error_code = "format";
        r.error_text = "no document";
        assert_int_equal(pm_sched_result(b.s, b.now, layoutd, &r, NULL), 0);
        pm_sched_credit(b.s, layoutd, ++answers + 1);
        end_turn(&b);
    }
    assert_int_equal(pm_sched_state(b.s, 2), PM_JOB_CANCELLED);
    assert_int_equal(pm_sched_state(b.s, 3), PM_JOB_FAILED);
    /* Again: from its sleep after the end, with the image that the journal has of it. */
    struct pm_job_image image;
    struct pm_error err;
    assert_int_equal(load(&b, 3, &image, &err), 0);
    assert_int_equal(pm_sched_retry(b.s, b.now, &image, &err), 0);
    end_turn(&b);
    pm_sched_credit(b.s, layoutd, 100);
    assert_int_equal(pm_task_job(leased(&b).task), 3);
    bed_close(&b);
}

/* A job that cannot be read back fails, and the others go on. */
static void unreadable_sleepers_fail(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, 1);
    for (uint64_t n = 1; n <= 3; n++)
        submit(&b, n);
    end_turn(&b);
    join(&b, PM_ROLE_LAYOUTD, 10);
    b.is_broken = true;
    pm_sched_tick(b.s, b.now);
    pm_sched_assign(b.s, b.now);
    assert_int_equal(pm_sched_state(b.s, 1) + pm_sched_state(b.s, 2) + pm_sched_state(b.s, 3),
                     PM_JOB_RUNNING + 2 * PM_JOB_FAILED); /* one had stayed awake */
    end_turn(&b);
    struct pm_sched_stats stats;
    pm_sched_stats(b.s, b.now, &stats);
    assert_int_equal(stats.kinds[0].queued, 0);
    bed_close(&b);
}

/* A client that submits, cancels and forgets all day long behind a job that nobody begins. */
static void what_was_forgotten_takes_nothing(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, 0);
    submit(&b, 1);
    end_turn(&b);
    size_t before = 0;
    for (uint64_t n = 2; n <= 80000; n++) {
        struct pm_msg_submit m = submit_of(&b, n);
        uint64_t job;
        bool duplicate;
        m.deadline_s = UINT32_MAX;
        assert_int_equal(pm_sched_submit(b.s, b.now, "a", &m, &job, &duplicate, NULL), 0);
        end_turn(&b);
        assert_int_equal(pm_sched_cancel(b.s, b.now, n, NULL), 0);
        end_turn(&b);
        assert_int_equal(pm_sched_forget(b.s, n, NULL), 0);
        end_turn(&b);
        before = n == 20000 ? bytes_in_use() : before;
    }
    assert_true(bytes_in_use() < before + 100000);
    struct pm_sched_stats stats;
    pm_sched_stats(b.s, b.now, &stats);
    assert_int_equal(stats.kinds[0].queued, 1);
    bed_close(&b);
}

/* What is asked often must not depend on how many jobs there are: a hundred thousand turns of an idle fleet
 * of 256 workers, with stats, beside a million queued jobs would take hours if it did. */
static void questions_are_cheap(void **state)
{
    (void)state;
    struct bed b;
    uint64_t count = setting("PM_MEMORY_JOBS", 200000);
    bed_open(&b, 0);
    for (uint64_t n = 1; n <= count; n++) {
        submit(&b, n);
        if (n % 64 == 0)
            end_turn(&b);
    }
    end_turn(&b);
    for (int i = 0; i < 256; i++)
        join(&b, PM_ROLE_WORKER, 16);
    struct pm_sched_stats stats;
    int64_t began = pm_clock_us();
    for (int i = 0; i < 100000; i++) {
        b.now.us += 1000;
        pm_sched_tick(b.s, b.now);
        pm_sched_assign(b.s, b.now);
        if (i % 10 == 0)
            pm_sched_stats(b.s, b.now, &stats);
    }
    int64_t took = pm_clock_us() - began;
    printf("a turn with 256 idle workers and %llu queued jobs: %.2f us\n", (unsigned long long)count,
           (double)took / 100000);
    assert_int_equal(pm_sched_next_us(b.s, b.now), b.now.us > 3600000000 ? b.now.us : 3601000000);
    bed_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_are_small),           cmocka_unit_test(sleepers_wake_as_themselves),
        cmocka_unit_test(unreadable_sleepers_fail), cmocka_unit_test(what_was_forgotten_takes_nothing),
        cmocka_unit_test(questions_are_cheap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
