/* The scheduler's rules, one by one, with a clock and peers made of numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/scheduler.h"
#include "proto/page.h"

static const char blob[] = "d00000000000000000000000000000000000000000000000000000000000000aa";

struct bed {
    struct pm_sched *s;
    struct pm_now now;
    uint32_t layoutd, worker, collector;
    uint64_t granted[4096];
    struct pm_arena arena;
};

static void bed_open(struct bed *b, struct pm_sched_config config)
{
    *b = (struct bed){.now = {1000000, 5000000}};
    config.epoch = config.epoch ? config.epoch : 3;
    b->s = pm_sched_new(&config);
    /* Somebody with room for anything who is not given anything: pages are not held back for want of
     * readers. */
    static const char *const readers[] = {"fast"};
    struct pm_sched_peer room = {
        .role = PM_ROLE_WORKER, .readers = readers, .reader_count = 1, .granted = 1 << 20};
    pm_sched_mute(b->s, pm_sched_peer_join(b->s, b->now, &room));
}

static void bed_close(struct bed *b)
{
    pm_sched_free(&b->s);
    pm_arena_free(&b->arena);
}

static uint32_t add_peer(struct bed *b, enum pm_role role, uint64_t granted)
{
    static const char *const readers[] = {"fast"};
    struct pm_sched_peer facts = {
        .role = role, .readers = readers, .reader_count = role == PM_ROLE_WORKER, .granted = granted};
    uint32_t id = pm_sched_peer_join(b->s, b->now, &facts);
    assert_true(id < 4096);
    b->granted[id] = granted;
    return id;
}

static uint64_t add_job(struct bed *b, const char *client, uint32_t priority)
{
    static int number;
    char key[32];
    snprintf(key, sizeof key, "key %d", ++number);
    struct pm_msg_submit m = {.key = key, .name = "n", .source = blob, .priority = priority, .batch = ""};
    uint64_t job;
    bool duplicate;
    assert_int_equal(pm_sched_submit(b->s, b->now, client, &m, &job, &duplicate, NULL), 0);
    return job;
}

struct lease {
    uint32_t peer, attempt;
    uint64_t task, epoch;
};

/* A turn: what was leased, in order; revokes and kills are counted. */
struct turn {
    struct lease leases[4096];
    size_t count, revokes, kills;
    uint64_t revoked;
};
static struct turn turn_now; /* large */

static struct turn *turn(struct bed *b)
{
    struct turn *t = &turn_now;
    *t = (struct turn){0};
    pm_sched_tick(b->s, b->now);
    pm_sched_assign(b->s, b->now);
    struct pm_actions *a = pm_sched_actions(b->s);
    for (size_t i = 0; i < a->item_count; i++) {
        t->kills += a->items[i].kind == PM_ACTION_KILL;
        if (a->items[i].kind == PM_ACTION_REVOKE) {
            t->revokes++;
            t->revoked = a->items[i].task;
        }
        if (a->items[i].kind != PM_ACTION_LEASE)
            continue;
        struct pm_lease_facts facts;
        assert_true(pm_sched_lease_facts(b->s, a->items[i].task, &facts));
        t->leases[t->count++] =
            (struct lease){a->items[i].peer, facts.attempt, a->items[i].task, facts.epoch};
    }
    pm_actions_clear(a);
    return t;
}

static int finish(struct bed *b, struct lease l, const struct pm_msg_result *what)
{
    struct pm_msg_result r = what ? *what : (struct pm_msg_result){0};
    r.task = l.task;
    r.epoch = l.epoch;
    r.attempt = l.attempt;
    r.error_code = r.error_code ? r.error_code : "";
    r.error_text = r.error_text ? r.error_text : "";
    int rc = pm_sched_result(b->s, b->now, l.peer, &r, NULL);
    pm_sched_credit(b->s, l.peer, ++b->granted[l.peer]);
    return rc;
}

static int fail_with(struct bed *b, struct lease l, const char *code)
{
    struct pm_msg_result r = {.error_code = code, .error_text = "made to"};
    return finish(b, l, &r);
}

static int finish_open(struct bed *b, struct lease l, uint32_t pages)
{
    struct pm_found_page found[512];
    for (uint32_t i = 0; i < pages; i++)
        found[i] = (struct pm_found_page){i + 1, 1000, 1000};
    struct pm_msg_result r = {.pages = found, .page_count = pages};
    return finish(b, l, &r);
}

static int finish_page(struct bed *b, struct lease l, uint32_t regions, uint32_t cost, uint64_t sheet_bytes)
{
    uint32_t costs[2048];
    for (uint32_t i = 0; i < regions; i++)
        costs[i] = cost;
    struct pm_msg_result r = {
        .record = blob, .sheet = "", .sheet_bytes = sheet_bytes, .costs = costs, .cost_count = regions};
    return finish(b, l, &r);
}

static int finish_region(struct bed *b, struct lease l)
{
    struct pm_msg_result r = {.text = {(const uint8_t *)"x", 1}};
    return finish(b, l, &r);
}

static int finish_assembly(struct bed *b, struct lease l)
{
    struct pm_msg_result r = {.blob = blob, .manifest = {(const uint8_t *)"x", 1}};
    return finish(b, l, &r);
}

/* A job up to its regions: one page with this many. */
static uint64_t job_with_regions(struct bed *b, const char *client, uint32_t priority, uint32_t regions,
                                 uint32_t cost)
{
    uint32_t helper = add_peer(b, PM_ROLE_LAYOUTD, 1);
    uint64_t job = add_job(b, client, priority);
    struct turn *t = turn(b);
    assert_int_equal(t->count, 1);
    struct lease l = t->leases[0];
    assert_int_equal(finish_open(b, l, 1), 0);
    t = turn(b);
    assert_int_equal(t->count, 1);
    assert_int_equal(finish_page(b, t->leases[0], regions, cost, 100), 0);
    pm_sched_peer_end(b->s, b->now, helper, PM_PEER_LEFT);
    return job;
}

static struct pm_job_info info_of(struct bed *b, uint64_t job)
{
    struct pm_job_info info;
    assert_true(pm_sched_info(b->s, job, &info));
    return info;
}

/* ---- order ---- */

static void credit_is_kept_and_spread(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    job_with_regions(&b, "a", 2, 100, 5);
    uint32_t w[3];
    for (int i = 0; i < 3; i++)
        w[i] = add_peer(&b, PM_ROLE_WORKER, 5);
    struct turn *t = turn(&b);
    assert_int_equal(t->count, 15);
    for (uint32_t i = 0; i < 15; i++) /* lines of the first page in order, over all readers */
        assert_int_equal(pm_task_slot(t->leases[i].task), i);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pm_sched_peer_leases(b.s, w[i]), 5);
    assert_int_equal(turn(&b)->count, 0);
    pm_sched_credit(b.s, w[1], 7); /* in total: two more */
    pm_sched_credit(b.s, w[1], 6); /* an old one changes nothing */
    assert_int_equal(turn(&b)->count, 2);
    assert_int_equal(turn(&b)->count, 0);
    bed_close(&b);
}

static void clients_share_by_cost(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    /* Three clients, lines of very different cost; "c" has two jobs. All have work for the whole test. */
    static const struct {
        const char *client;
        uint32_t cost;
    } load[] = {{"a", 10}, {"b", 37}, {"c", 3}, {"c", 90}};
    uint64_t jobs[4];
    for (int i = 0; i < 4; i++)
        jobs[i] = job_with_regions(&b, load[i].client, 2, 1500, load[i].cost);
    uint32_t worker = add_peer(&b, PM_ROLE_WORKER, 8);
    (void)worker;
    double share[3] = {0}, total = 0;
    for (int n = 0; n < 1000;) {
        struct turn *t = turn(&b);
        assert_true(t->count > 0);
        struct turn copy = *t;
        for (size_t i = 0; i < copy.count; i++, n++) {
            int who = 0;
            while (jobs[who] != pm_task_job(copy.leases[i].task))
                who++;
            share[load[who].client[0] - 'a'] += load[who].cost;
            total += load[who].cost;
            assert_int_equal(finish_region(&b, copy.leases[i]), 0);
        }
    }
    for (int i = 0; i < 3; i++)
        if (share[i] < total / 3 * 0.95 || share[i] > total / 3 * 1.05)
            fail_msg("client %c had %.1f %% of the work", 'a' + i, 100 * share[i] / total);
    bed_close(&b);
}

static void idle_time_earns_nothing(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    job_with_regions(&b, "busy", 2, 1200, 10);
    uint32_t worker = add_peer(&b, PM_ROLE_WORKER, 1);
    for (int n = 0; n < 500; n++)
        finish_region(&b, turn(&b)->leases[0]);
    pm_sched_peer_end(b.s, b.now, worker, PM_PEER_LEFT);
    uint64_t late = job_with_regions(&b, "late", 2, 400, 10);
    add_peer(&b, PM_ROLE_WORKER, 1);
    int of_late = 0;
    for (int n = 0; n < 100; n++) {
        struct turn *t = turn(&b);
        of_late += pm_task_job(t->leases[0].task) == late;
        finish_region(&b, t->leases[0]);
    }
    /* It gets its half from now on, not all the time that it was away. */
    assert_in_range(of_late, 45, 55);
    bed_close(&b);
}

static void urgent_first_but_nobody_starves(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){.age_us = 1000000});
    uint64_t low = job_with_regions(&b, "a", 0, 500, 10);
    uint64_t high = job_with_regions(&b, "b", 4, 500, 10);
    add_peer(&b, PM_ROLE_WORKER, 1);
    int of_low = 0, first_low = -1;
    for (int n = 0; n < 200; n++) {
        struct turn *t = turn(&b);
        assert_int_equal(t->count, 1);
        if (pm_task_job(t->leases[0].task) == low) {
            of_low++;
            first_low = first_low < 0 ? n : first_low;
        } else {
            assert_int_equal(pm_task_job(t->leases[0].task), high);
        }
        b.now.us += 100000;
        finish_region(&b, t->leases[0]);
    }
    /* 20 s passed; four levels take four steps of one second each. */
    assert_in_range(first_low, 35, 45);
    assert_in_range(of_low, 3, 6);
    bed_close(&b);
}

static void earlier_jobs_and_pages_first(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    uint64_t one = job_with_regions(&b, "a", 2, 4, 1000), two = job_with_regions(&b, "a", 2, 4, 1);
    add_peer(&b, PM_ROLE_WORKER, 8);
    struct turn *t = turn(&b);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(pm_task_job(t->leases[i].task), i < 4 ? one : two);
    bed_close(&b);
}

static void pages_wait_for_room(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){.pixel_budget_bytes = 2500000});
    add_peer(&b, PM_ROLE_LAYOUTD, 10);
    add_job(&b, "a", 2);
    finish_open(&b, turn(&b)->leases[0], 20); /* pages of a million pixels: about a million bytes each */
    struct turn *t = turn(&b);
    assert_int_equal(t->count, 2);
    struct lease first = t->leases[0], second = t->leases[1];
    finish_page(&b, first, 3, 10, 1200000);
    finish_page(&b, second, 3, 10, 1200000);
    assert_int_equal(turn(&b)->count, 0); /* full */
    struct pm_sched_stats stats;
    pm_sched_stats(b.s, b.now, &stats);
    assert_int_equal(stats.pixel_bytes, 2400000);
    add_peer(&b, PM_ROLE_WORKER, 3);
    add_peer(&b, PM_ROLE_COLLECTOR, 1);
    struct turn lines = *turn(&b);
    for (size_t i = 0; i < lines.count; i++)
        finish_region(&b, lines.leases[i]);
    struct turn assembly = *turn(&b);
    for (size_t i = 0; i < assembly.count; i++)
        if (pm_task_kind(assembly.leases[i].task) == PM_KIND_ASSEMBLE_PAGE)
            finish_assembly(&b, assembly.leases[i]);
    t = turn(&b);
    bool has_page = false;
    for (size_t i = 0; i < t->count; i++)
        has_page |= pm_task_kind(t->leases[i].task) == PM_KIND_PAGE;
    assert_true(has_page);
    bed_close(&b);
    /* A page larger than the whole budget runs when it is alone. */
    bed_open(&b, (struct pm_sched_config){.pixel_budget_bytes = 10});
    add_peer(&b, PM_ROLE_LAYOUTD, 10);
    add_job(&b, "a", 2);
    finish_open(&b, turn(&b)->leases[0], 3);
    assert_int_equal(turn(&b)->count, 1);
    bed_close(&b);
}

/* A job for a reader that no worker has must not keep the others from their pages. */
static void stranded_jobs_stand_in_nobodys_way(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){.pixel_budget_bytes = 3000000});
    add_peer(&b, PM_ROLE_LAYOUTD, 1);
    add_peer(&b, PM_ROLE_WORKER, 100);
    add_peer(&b, PM_ROLE_COLLECTOR, 1);
    struct pm_msg_submit m = {.key = "", .name = "n", .source = blob, .priority = 2, .batch = ""};
    m.options.reader = "nobody";
    uint64_t stranded, job;
    bool duplicate;
    assert_int_equal(pm_sched_submit(b.s, b.now, "a", &m, &stranded, &duplicate, NULL), 0);
    job = add_job(&b, "a", 2);
    for (int n = 0; n < 200 && info_of(&b, job).state <= PM_JOB_RUNNING; n++) {
        struct turn t = *turn(&b);
        for (size_t i = 0; i < t.count; i++) {
            switch (pm_task_kind(t.leases[i].task)) {
            case PM_KIND_OPEN:
                finish_open(&b, t.leases[i], 10);
                break;
            case PM_KIND_PAGE:
                finish_page(&b, t.leases[i], 200, 10, 1400000);
                break;
            case PM_KIND_REGION:
                finish_region(&b, t.leases[i]);
                break;
            default:
                finish_assembly(&b, t.leases[i]);
            }
        }
        b.now.us += 1000;
    }
    assert_int_equal(info_of(&b, job).state, PM_JOB_DONE);
    assert_int_equal(info_of(&b, stranded).pages_done, 0);
    /* Its reader comes: it goes on. */
    static const char *const readers[] = {"nobody"};
    struct pm_sched_peer facts = {
        .role = PM_ROLE_WORKER, .readers = readers, .reader_count = 1, .granted = 1000};
    uint32_t late = pm_sched_peer_join(b.s, b.now, &facts);
    b.granted[late] = 1000;
    for (int n = 0; n < 200 && info_of(&b, stranded).state <= PM_JOB_RUNNING; n++) {
        struct turn t = *turn(&b);
        for (size_t i = 0; i < t.count; i++) {
            if (pm_task_kind(t.leases[i].task) == PM_KIND_PAGE)
                finish_page(&b, t.leases[i], 5, 10, 1400000);
            else if (pm_task_kind(t.leases[i].task) == PM_KIND_REGION)
                finish_region(&b, t.leases[i]);
            else
                finish_assembly(&b, t.leases[i]);
        }
    }
    assert_int_equal(info_of(&b, stranded).state, PM_JOB_DONE);
    bed_close(&b);
}

/* Does one step of everything that a fleet does, but regions of the peer that reads nothing. */
static void serve(struct bed *b, uint32_t idle, uint32_t regions, uint64_t sheet_bytes)
{
    struct turn t = *turn(b);
    for (size_t i = 0; i < t.count; i++) {
        switch (pm_task_kind(t.leases[i].task)) {
        case PM_KIND_OPEN:
            finish_open(b, t.leases[i], 40);
            break;
        case PM_KIND_PAGE:
            finish_page(b, t.leases[i], regions, 10, sheet_bytes);
            break;
        case PM_KIND_REGION:
            if (t.leases[i].peer != idle)
                finish_region(b, t.leases[i]);
            break;
        default:
            finish_assembly(b, t.leases[i]);
        }
    }
}

/* A reader that takes minutes for a page keeps neither layout nor memory from another's pages. */
static void slow_readers_hold_nobody_back(void **state)
{
    (void)state;
    static const struct {
        uint32_t regions;
        uint64_t sheet_bytes;
    } cases[] = {{30, 1000}, {1, 500000}}; /* many regions; large pages: eight fill the memory */
    for (int k = 0; k < 2; k++) {
        struct bed b;
        bed_open(&b, (struct pm_sched_config){.pixel_budget_bytes = 4000000 + 2000000});
        add_peer(&b, PM_ROLE_LAYOUTD, 1);
        add_peer(&b, PM_ROLE_WORKER, 8);
        add_peer(&b, PM_ROLE_COLLECTOR, 1);
        static const char *const readers[] = {"slow"};
        struct pm_sched_peer facts = {
            .role = PM_ROLE_WORKER, .readers = readers, .reader_count = 1, .granted = 4};
        uint32_t slow = pm_sched_peer_join(b.s, b.now, &facts);
        b.granted[slow] = 4;
        struct pm_msg_submit m = {.key = "", .name = "n", .source = blob, .priority = 2, .batch = ""};
        m.options.reader = "slow";
        uint64_t first;
        bool duplicate;
        assert_int_equal(pm_sched_submit(b.s, b.now, "a", &m, &first, &duplicate, NULL), 0);
        for (int n = 0; n < 200; n++, b.now.us += 1000) /* until it has plenty */
            serve(&b, slow, cases[k].regions, cases[k].sheet_bytes);
        assert_true(info_of(&b, first).regions >= 2);
        assert_true(info_of(&b, first).regions < 40 * cases[k].regions);
        uint64_t job = add_job(&b, "a", 2);
        for (int n = 0; n < 400 && info_of(&b, job).state <= PM_JOB_RUNNING; n++, b.now.us += 1000)
            serve(&b, slow, cases[k].regions, cases[k].sheet_bytes);
        assert_int_equal(info_of(&b, job).state, PM_JOB_DONE);
        assert_int_equal(info_of(&b, first).pages_done, 0);
        /* It reads on: all its pages come back in their turn. */
        uint64_t held[8];
        uint32_t count = pm_sched_peer_tasks(b.s, slow, held, 8);
        assert_int_equal(count, cases[k].regions > 1 || info_of(&b, first).regions >= 4 ? 4 : count);
        for (uint32_t i = 0; i < count; i++) {
            struct pm_lease_facts lease;
            assert_true(pm_sched_lease_facts(b.s, held[i], &lease));
            finish_region(&b, (struct lease){slow, lease.attempt, held[i], lease.epoch});
        }
        for (int n = 0; n < 2000 && info_of(&b, first).state <= PM_JOB_RUNNING; n++, b.now.us += 1000)
            serve(&b, 0, cases[k].regions, cases[k].sheet_bytes);
        assert_int_equal(info_of(&b, first).state, PM_JOB_DONE);
        assert_int_equal(info_of(&b, first).pages_done, 40);
        bed_close(&b);
    }
}

static void readers_are_known_by_their_workers(void **state)
{
    (void)state;
    struct pm_error err;
    struct pm_sched_config config = {.epoch = 1};
    struct pm_sched *s = pm_sched_new(&config);
    struct pm_now now = {1, 1};
    assert_string_equal(pm_sched_default_reader(s), "fast");
    assert_int_equal(pm_sched_check_reader(s, "mini", &err), 0); /* nobody is here to say */
    static const char *const readers[] = {"mini"};
    struct pm_sched_peer facts = {.role = PM_ROLE_WORKER, .readers = readers, .reader_count = 1};
    uint32_t peer = pm_sched_peer_join(s, now, &facts);
    assert_string_equal(pm_sched_default_reader(s), "mini");
    assert_int_equal(pm_sched_check_reader(s, "fast", &err), PM_EUNSUPPORTED);
    assert_string_equal(err.text, "no worker here reads with \"fast\"; there are: mini");
    pm_sched_peer_end(s, now, peer, PM_PEER_KILLED);
    assert_int_equal(pm_sched_check_reader(s, "mini", &err), 0); /* it will be started again */
    pm_sched_free(&s);
}

/* ---- failures ---- */

static void crash_that_is_told_later(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    uint64_t job = job_with_regions(&b, "a", 2, 2, 10), held[8];
    for (int n = 0; n < 2; n++) {
        uint32_t worker = add_peer(&b, PM_ROLE_WORKER, 2);
        struct turn t = *turn(&b);
        assert_int_equal(t.count, n ? 1 : 2); /* suspects run alone */
        uint32_t count = pm_sched_peer_tasks(b.s, worker, held, 8);
        assert_int_equal(count, t.count);
        pm_sched_peer_end(b.s, b.now, worker, PM_PEER_KILLED);
        b.now.us += 1000000;
        uint32_t next = add_peer(&b, PM_ROLE_WORKER, 1); /* somebody has one of them by now */
        assert_int_equal(turn(&b)->count, 1);
        pm_sched_crashed(b.s, b.now, held, count);
        pm_sched_peer_end(b.s, b.now, next, PM_PEER_LEFT);
        pm_actions_clear(pm_sched_actions(b.s));
    }
    assert_int_equal(info_of(&b, job).regions_failed, 1); /* the one that was there both times */
    struct pm_sched_stats stats;
    pm_sched_stats(b.s, b.now, &stats);
    assert_int_equal(stats.quarantined, 1);
    /* Old news of what has ended is no news. */
    pm_sched_cancel(b.s, b.now, job, NULL);
    pm_sched_crashed(b.s, b.now, held, 1);
    assert_int_equal(info_of(&b, job).state, PM_JOB_CANCELLED);
    bed_close(&b);
}

static void full_disk_is_waited_for(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    uint64_t job = job_with_regions(&b, "a", 2, 0, 10);
    add_peer(&b, PM_ROLE_COLLECTOR, 1);
    pm_sched_disk_full(b.s, true);
    unsigned given = 0;
    for (int n = 0; n < 3600; n++) { /* an hour */
        struct turn t = *turn(&b);
        for (size_t i = 0; i < t.count; i++, given++)
            fail_with(&b, t.leases[i], "no-space");
        b.now.us += 1000000;
    }
    assert_int_equal(given, 1);
    assert_int_equal(info_of(&b, job).state, PM_JOB_RUNNING);
    pm_sched_disk_full(b.s, false);
    b.now.us += 2000000;
    assert_int_equal(finish_assembly(&b, turn(&b)->leases[0]), 0);
    assert_int_equal(finish_assembly(&b, turn(&b)->leases[0]), 0);
    assert_int_equal(info_of(&b, job).state, PM_JOB_DONE);
    bed_close(&b);
}

/* What a peer says of its speed must not overflow what follows from it. */
static void absurd_speeds_are_not_believed(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    uint32_t layoutd = add_peer(&b, PM_ROLE_LAYOUTD, 1), worker = add_peer(&b, PM_ROLE_WORKER, 1);
    (void)layoutd;
    (void)worker;
    add_job(&b, "a", 2);
    struct lease l = turn(&b)->leases[0];
    struct pm_found_page found[2] = {{1, UINT32_MAX, UINT32_MAX}, {2, UINT32_MAX, UINT32_MAX}};
    struct pm_msg_result r = {.pages = found, .page_count = 2, .run_us = UINT64_MAX};
    assert_int_equal(finish(&b, l, &r), 0);
    l = turn(&b)->leases[0];
    uint32_t costs[2] = {1, UINT32_MAX};
    struct pm_msg_result page = {.record = blob,
                                 .sheet = "",
                                 .sheet_bytes = UINT64_MAX / 4,
                                 .costs = costs,
                                 .cost_count = 2,
                                 .run_us = UINT64_MAX};
    assert_int_equal(finish(&b, l, &page), 0);
    struct turn t = *turn(&b);
    for (size_t i = 0; i < t.count; i++) {
        struct pm_msg_result text = {.text = {(const uint8_t *)"x", 1}, .run_us = UINT64_MAX};
        if (pm_task_kind(t.leases[i].task) == PM_KIND_REGION)
            assert_int_equal(finish(&b, t.leases[i], &text), 0);
    }
    t = *turn(&b);
    assert_true(t.count > 0);
    struct pm_lease_facts facts;
    assert_true(pm_sched_lease_facts(b.s, t.leases[0].task, &facts));
    assert_in_range(facts.deadline_us, 1, (uint64_t)7 * 86400 * 1000000);
    bed_close(&b);
}

static void poison_is_set_aside_alone(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    uint64_t job = job_with_regions(&b, "a", 2, 6, 10);
    const uint32_t poison = 3;
    uint32_t crashes = 0;
    for (int n = 0; n < 100 && info_of(&b, job).regions_done < 5; n++) {
        uint32_t worker = add_peer(&b, PM_ROLE_WORKER, 4);
        struct turn t = *turn(&b);
        bool dead = false;
        for (size_t i = 0; i < t.count; i++)
            dead |= pm_task_slot(t.leases[i].task) == poison;
        if (dead && crashes > 0)
            assert_int_equal(t.count, 1); /* a suspect runs alone */
        for (size_t i = 0; i < t.count && !dead; i++)
            finish_region(&b, t.leases[i]);
        crashes += dead;
        pm_sched_peer_end(b.s, b.now, worker, dead ? PM_PEER_CRASHED : PM_PEER_LEFT);
        b.now.us += 1000000;
    }
    assert_int_equal(crashes, 2);
    struct pm_job_info info = info_of(&b, job);
    assert_int_equal(info.regions_done, 5); /* its neighbours in the batch were read */
    assert_int_equal(info.regions_failed, 1);
    struct pm_sched_stats stats;
    pm_sched_stats(b.s, b.now, &stats);
    assert_int_equal(stats.quarantined, 1);
    bed_close(&b);
}

static void killed_workers_are_no_poison(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    uint64_t job = job_with_regions(&b, "a", 2, 1, 10);
    for (int n = 0; n < 4; n++) { /* an operator's kill -9, four times over the same line */
        uint32_t worker = add_peer(&b, PM_ROLE_WORKER, 1);
        assert_int_equal(turn(&b)->count, 1);
        pm_sched_peer_end(b.s, b.now, worker, PM_PEER_KILLED);
        b.now.us += 40000000;
    }
    for (int n = 0; n < 100; n++) { /* and leaving politely costs nothing at all */
        uint32_t worker = add_peer(&b, PM_ROLE_WORKER, 1);
        assert_int_equal(turn(&b)->count, 1);
        pm_sched_peer_end(b.s, b.now, worker, PM_PEER_LEFT);
    }
    add_peer(&b, PM_ROLE_WORKER, 1);
    assert_int_equal(finish_region(&b, turn(&b)->leases[0]), 0);
    assert_int_equal(info_of(&b, job).regions_done, 1);
    bed_close(&b);
}

static void attempts_back_off_and_end(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){.seed = 42});
    uint64_t job = job_with_regions(&b, "a", 2, 2, 10);
    add_peer(&b, PM_ROLE_WORKER, 1);
    int64_t last_gap = 0;
    struct lease l = turn(&b)->leases[0];
    uint32_t last_attempt = l.attempt;
    for (int n = 1; n <= 4; n++) {
        assert_int_equal(fail_with(&b, l, "io"), 0);
        int64_t since = b.now.us;
        for (;;) { /* the other line is there meanwhile: leave it to the last */
            struct turn *t = turn(&b);
            if (t->count && pm_task_slot(t->leases[0].task) == 0) {
                l = t->leases[0];
                break;
            }
            if (t->count)
                pm_sched_lease_unsent(b.s, b.now, t->leases[0].task);
            b.now.us += 5000;
        }
        assert_true(l.attempt > last_attempt);
        last_attempt = l.attempt;
        int64_t gap = b.now.us - since;
        assert_true(gap >= 100000 << (n - 1) && gap <= (200000 << (n - 1)) + 10000);
        assert_true(gap > last_gap / 2);
        last_gap = gap;
    }
    fail_with(&b, l, "io");
    struct pm_job_info info = info_of(&b, job);
    assert_int_equal(info.regions_failed, 1);
    assert_int_equal(info.retries, 4);
    assert_int_equal(info.regions_done, 0);
    bed_close(&b);
}

static void input_errors_are_final(void **state)
{
    (void)state;
    static const char *const codes[] = {"format", "password", "unsupported", "limit", "invalid"};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        struct bed b;
        bed_open(&b, (struct pm_sched_config){0});
        uint64_t job = add_job(&b, "a", 2);
        add_peer(&b, PM_ROLE_LAYOUTD, 1);
        fail_with(&b, turn(&b)->leases[0], codes[i]);
        struct pm_job_info info = info_of(&b, job);
        assert_int_equal(info.state, PM_JOB_FAILED);
        assert_string_equal(info.error_code, codes[i]);
        assert_string_equal(info.error_text, "made to");
        bed_close(&b);
    }
}

static void all_pages_failed_fails_the_job(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    uint64_t job = add_job(&b, "a", 2);
    add_peer(&b, PM_ROLE_LAYOUTD, 1);
    finish_open(&b, turn(&b)->leases[0], 2);
    fail_with(&b, turn(&b)->leases[0], "format");
    assert_int_equal(info_of(&b, job).state, PM_JOB_RUNNING);
    fail_with(&b, turn(&b)->leases[0], "limit");
    struct pm_job_info info = info_of(&b, job);
    assert_int_equal(info.state, PM_JOB_FAILED);
    assert_string_equal(info.error_code, "format"); /* of the first */
    assert_int_equal(info.pages_failed, 2);
    bed_close(&b);
}

static void lost_crops_begin_the_page_anew(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    uint64_t job = job_with_regions(&b, "a", 2, 3, 10);
    add_peer(&b, PM_ROLE_WORKER, 3);
    struct turn t = *turn(&b);
    assert_int_equal(t.count, 3);
    finish_region(&b, t.leases[0]);
    fail_with(&b, t.leases[1], "not-found");
    struct turn *after = turn(&b);
    assert_int_equal(after->revokes, 1); /* the third one reads crops that are gone */
    assert_int_equal(finish_region(&b, t.leases[2]), PM_EGONE);
    assert_int_equal(info_of(&b, job).regions, 0);
    add_peer(&b, PM_ROLE_LAYOUTD, 1);
    struct lease page = turn(&b)->leases[0];
    assert_int_equal(pm_task_kind(page.task), PM_KIND_PAGE);
    assert_int_equal(page.attempt >> 8, 1); /* another generation */
    finish_page(&b, page, 2, 10, 100);
    assert_int_equal(info_of(&b, job).regions, 2);
    bed_close(&b);
}

/* ---- time ---- */

static void silence_is_not_progress(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){.stall_us = 2000000});
    job_with_regions(&b, "a", 2, 1, 10);
    uint32_t worker = add_peer(&b, PM_ROLE_WORKER, 1);
    struct lease l = turn(&b)->leases[0];
    for (int n = 0; n < 100; n++) { /* with beats it may take its time */
        b.now.us += 100000;
        pm_sched_beat(b.s, b.now, worker, l.task, l.attempt);
        assert_int_equal(turn(&b)->revokes, 0);
    }
    int64_t since = b.now.us;
    while (!turn(&b)->revokes)
        b.now.us += 50000;
    assert_in_range(b.now.us - since, 2000000, 2200000);
    assert_int_equal(finish_region(&b, l), PM_EGONE);
    pm_sched_credit(b.s, worker, 5);
    for (int n = 0; n < 30; n++) { /* nothing for a wedged one */
        b.now.us += 50000;
        assert_int_equal(turn(&b)->count, 0);
    }
    size_t kills = 0;
    for (int n = 0; n < 20; n++) {
        b.now.us += 50000;
        kills += turn(&b)->kills;
    }
    assert_int_equal(kills, 1);
    pm_sched_alive(b.s, worker); /* it speaks: it may work again */
    assert_int_equal(turn(&b)->count, 1);
    bed_close(&b);
}

static void our_own_pause_blames_nobody(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){.stall_us = 2000000});
    job_with_regions(&b, "a", 2, 1, 10);
    add_peer(&b, PM_ROLE_WORKER, 1);
    turn(&b);
    b.now.us += 100000;
    turn(&b);
    b.now.us += 60000000; /* the machine slept */
    assert_int_equal(turn(&b)->revokes, 0);
    b.now.us += 100000;
    assert_int_equal(turn(&b)->revokes, 0);
    bed_close(&b);
}

static void beats_do_not_move_the_deadline(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){.stall_us = 1000000});
    job_with_regions(&b, "a", 2, 1, 10);
    uint32_t worker = add_peer(&b, PM_ROLE_WORKER, 1);
    struct lease l = turn(&b)->leases[0];
    struct pm_lease_facts facts;
    assert_true(pm_sched_lease_facts(b.s, l.task, &facts));
    int64_t since = b.now.us;
    size_t revokes = 0;
    while (!revokes && b.now.us - since < 2 * (int64_t)facts.deadline_us) {
        b.now.us += 100000;
        pm_sched_beat(b.s, b.now, worker, l.task, l.attempt);
        revokes = turn(&b)->revokes;
    }
    assert_int_equal(revokes, 1);
    assert_true(b.now.us - since >= (int64_t)facts.deadline_us);
    bed_close(&b);
}

/* ---- fencing ---- */

static void only_the_current_attempt_counts(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    uint64_t job = job_with_regions(&b, "a", 2, 1, 10);
    uint32_t one = add_peer(&b, PM_ROLE_WORKER, 1);
    struct lease old = turn(&b)->leases[0];
    pm_sched_peer_end(b.s, b.now, one, PM_PEER_LEFT);
    uint32_t two = add_peer(&b, PM_ROLE_WORKER, 1);
    struct lease current = turn(&b)->leases[0];
    assert_int_equal(current.task, old.task);
    struct lease wrong = current;
    wrong.attempt = old.attempt;
    assert_int_equal(finish_region(&b, wrong), PM_EGONE);
    wrong = current;
    wrong.epoch--;
    assert_int_equal(finish_region(&b, wrong), PM_EGONE);
    wrong = current;
    wrong.peer = add_peer(&b, PM_ROLE_WORKER, 0);
    assert_int_equal(finish_region(&b, wrong), PM_EGONE);
    wrong = current;
    wrong.task++; /* a task that does not exist */
    assert_int_equal(finish_region(&b, wrong), PM_EGONE);
    assert_int_equal(finish_region(&b, current), 0);
    assert_int_equal(finish_region(&b, current), PM_EGONE);
    assert_int_equal(info_of(&b, job).regions_done, 1);
    struct pm_sched_stats stats;
    pm_sched_stats(b.s, b.now, &stats);
    assert_int_equal(stats.fenced, 5);
    (void)two;
    bed_close(&b);
}

static void reconnected_peers_keep_what_they_hold(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    job_with_regions(&b, "a", 2, 3, 10);
    uint32_t worker = add_peer(&b, PM_ROLE_WORKER, 3);
    struct turn t = *turn(&b);
    /* It comes back with one of three: the others never reached it. */
    struct pm_held held = {t.leases[1].task, t.leases[1].epoch, t.leases[1].attempt};
    pm_sched_peer_rejoin(b.s, worker, 3, 1);
    pm_sched_unheld(b.s, b.now, worker, &held, 1);
    assert_true(pm_sched_held(b.s, b.now, worker, &held));
    struct turn *again = turn(&b);
    assert_int_equal(again->count, 2);
    assert_int_equal(finish_region(&b, t.leases[1]), 0);
    /* Leases of the future and of other generations are refused. */
    uint32_t other = add_peer(&b, PM_ROLE_WORKER, 1);
    held.task = t.leases[0].task;
    assert_false(pm_sched_held(b.s, b.now, other, &held)); /* the first worker has it */
    pm_sched_peer_end(b.s, b.now, worker, PM_PEER_LEFT);
    held.epoch = 99;
    assert_false(pm_sched_held(b.s, b.now, other, &held));
    held.epoch = 1;
    held.attempt = 7 << 8 | 1;
    assert_false(pm_sched_held(b.s, b.now, other, &held));
    held.attempt = 1;
    assert_true(pm_sched_held(b.s, b.now, other, &held));
    bed_close(&b);
}

static void impossible_results_are_failures(void **state)
{
    (void)state;
    struct bed b;
    bed_open(&b, (struct pm_sched_config){0});
    uint64_t job = add_job(&b, "a", 2);
    add_peer(&b, PM_ROLE_LAYOUTD, 1);
    struct pm_found_page pages[] = {{2, 10, 10}, {1, 10, 10}};
    struct pm_msg_result disorder = {.pages = pages, .page_count = 2}, none = {0};
    assert_int_equal(finish(&b, turn(&b)->leases[0], &disorder), PM_EPROTO);
    b.now.us += 30000000;
    assert_int_equal(finish(&b, turn(&b)->leases[0], &none), PM_EPROTO);
    b.now.us += 30000000;
    pages[0].page = 1;
    pages[1].page = PM_TASK_MAX_PAGE + 1;
    assert_int_equal(finish(&b, turn(&b)->leases[0], &disorder), PM_EPROTO);
    b.now.us += 30000000;
    pages[1].page = PM_TASK_MAX_PAGE;
    assert_int_equal(finish(&b, turn(&b)->leases[0], &disorder), 0);
    assert_int_equal(info_of(&b, job).pages, 2);
    assert_int_equal(info_of(&b, job).retries, 3);
    bed_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(credit_is_kept_and_spread),
        cmocka_unit_test(clients_share_by_cost),
        cmocka_unit_test(idle_time_earns_nothing),
        cmocka_unit_test(urgent_first_but_nobody_starves),
        cmocka_unit_test(earlier_jobs_and_pages_first),
        cmocka_unit_test(pages_wait_for_room),
        cmocka_unit_test(stranded_jobs_stand_in_nobodys_way),
        cmocka_unit_test(slow_readers_hold_nobody_back),
        cmocka_unit_test(readers_are_known_by_their_workers),
        cmocka_unit_test(crash_that_is_told_later),
        cmocka_unit_test(full_disk_is_waited_for),
        cmocka_unit_test(absurd_speeds_are_not_believed),
        cmocka_unit_test(poison_is_set_aside_alone),
        cmocka_unit_test(killed_workers_are_no_poison),
        cmocka_unit_test(attempts_back_off_and_end),
        cmocka_unit_test(input_errors_are_final),
        cmocka_unit_test(all_pages_failed_fails_the_job),
        cmocka_unit_test(lost_crops_begin_the_page_anew),
        cmocka_unit_test(silence_is_not_progress),
        cmocka_unit_test(our_own_pause_blames_nobody),
        cmocka_unit_test(beats_do_not_move_the_deadline),
        cmocka_unit_test(only_the_current_attempt_counts),
        cmocka_unit_test(reconnected_peers_keep_what_they_hold),
        cmocka_unit_test(impossible_results_are_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
