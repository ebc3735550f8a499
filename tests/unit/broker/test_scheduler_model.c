/* Seeded random schedules against the scheduler and its journal (SQLite in memory), checked by a small
 * reference: peers that finish, fail, crash, stall and answer late, cancels, retries, and broker restarts
 * that lose the turn in progress. PM_MODEL_STEPS and PM_MODEL_SEED make it longer or repeat a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "broker/journal.h"
#include "broker/scheduler.h"
#include "proto/page.h"

#define MAX_PEERS 7
#define MAX_HELD  64

struct held {
    uint64_t task, epoch;
    uint32_t attempt;
};
struct fake_peer {
    bool is_there;
    uint32_t id;
    enum pm_role role;
    uint64_t granted, received;
    struct held held[MAX_HELD];
    size_t held_count;
};
/* What the reference knows of a task in its present generation. */
struct known {
    uint32_t fails, crashes, successes, generation;
    bool had_input_error;
};
struct world {
    uint64_t random;
    struct pm_journal *journal;
    struct pm_sched *sched;
    struct pm_now now;
    uint64_t epoch;
    struct fake_peer peers[MAX_PEERS];
    struct held old[256]; /* leases of the past, for late answers */
    size_t old_count;
    uint64_t
        news[MAX_HELD]; /* tasks of a process that was killed, of which it will be said that it crashed */
    uint32_t news_count;
    struct pm_map known; /* task -> struct known */
    struct pm_map alive; /* accepted and not forgotten */
    uint64_t submitted, accepted_results, fenced_results, restarts, adopted, quarantined, loads;
    struct pm_arena arena;
    const char *trace;
};

static uint64_t rnd(struct world *w)
{
    uint64_t z = w->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static uint32_t below(struct world *w, uint32_t n)
{
    return (uint32_t)(rnd(w) % n);
}

/* Fates are a function of the place, so that a poison region stays one. */
enum fate { GOOD, BAD_INPUT, POISON };
static enum fate fate_of(uint64_t task)
{
    uint64_t h = (task ^ 0x5bd1e995u) * 0x9e3779b97f4a7c15u;
    h ^= h >> 29;
    return h % 61 == 7 ? BAD_INPUT : h % 97 == 5 ? POISON : GOOD;
}
static uint32_t page_count_of(uint64_t job)
{
    return 1 + (uint32_t)(job * 2654435761u >> 16) % 6;
}
static uint32_t region_count_of(uint64_t job, uint32_t page)
{
    return (uint32_t)((job * 40503u + page * 9973u) >> 3) % 9;
}

static struct known *know(struct world *w, uint64_t task, uint32_t generation)
{
    struct known *k = pm_map_get(&w->known, task);
    if (!k) {
        k = pm_xalloc(sizeof *k);
        k->generation = generation;
        pm_map_put(&w->known, task, k);
    }
    assert_true(generation >= k->generation); /* a generation never comes back */
    if (k->generation != generation)
        *k = (struct known){.generation = generation};
    return k;
}

static struct fake_peer *peer_by_id(struct world *w, uint32_t id)
{
    for (int i = 0; i < MAX_PEERS; i++)
        if (w->peers[i].is_there && w->peers[i].id == id)
            return &w->peers[i];
    return NULL;
}

static void drop_held(struct fake_peer *p, size_t i)
{
    p->held[i] = p->held[--p->held_count];
}

static void remember_old(struct world *w, struct held h)
{
    size_t at = w->old_count < 256 ? w->old_count++ : below(w, 256);
    w->old[at] = h;
}

/* ---- the broker's side of a turn ---- */

static void count_ops(struct world *w, const struct pm_actions *a)
{
    for (size_t i = 0; i < a->op_count; i++) {
        const struct pm_op *op = &a->ops[i];
        bool is_page = op->kind == PM_OP_PAGE_FAIL, is_region = op->kind == PM_OP_REGION_FAIL;
        if (!is_page && !is_region)
            continue;
        /* Nothing is given up without cause. */
        uint64_t task = pm_task_id(op->job, op->page, is_region ? op->region : PM_TASK_SLOT_PAGE);
        const struct known *k = pm_map_get(&w->known, task);
        const struct known *assemble =
            is_page ? pm_map_get(&w->known, pm_task_id(op->job, op->page, PM_TASK_SLOT_ASSEMBLE)) : NULL;
        bool has_cause = strstr(op->text, "lost again") != NULL;
        for (int n = 0; n < 2; n++, k = assemble)
            has_cause |= k && (k->had_input_error || k->crashes >= 2 || k->fails >= 5);
        if (!has_cause)
            fail_msg("task %llx was given up without cause: %s", (unsigned long long)task, op->text);
        w->quarantined += strstr(op->text, "set aside") != NULL;
    }
}

static void deliver(struct world *w, const struct pm_action *a)
{
    struct fake_peer *p = peer_by_id(w, a->peer);
    if (a->kind == PM_ACTION_REVOKE && p) {
        for (size_t i = 0; i < p->held_count; i++)
            if (p->held[i].task == a->task && p->held[i].attempt == a->attempt) {
                remember_old(w, p->held[i]);
                drop_held(p, i);
                p->granted++;
                pm_sched_credit(w->sched, p->id, p->granted);
                break;
            }
    }
    if (a->kind != PM_ACTION_LEASE)
        return;
    struct pm_lease_facts facts;
    if (!pm_sched_lease_facts(w->sched, a->task, &facts) || facts.attempt != a->attempt)
        return;
    if (!p || below(w, 50) == 0) {
        pm_sched_lease_unsent(w->sched, w->now, a->task);
        return;
    }
    p->received++;
    assert_true(p->received <= p->granted); /* credit is never exceeded */
    assert_int_equal(pm_kind_role(pm_task_kind(a->task)), p->role);
    for (int i = 0; i < MAX_PEERS; i++) /* nobody else was told that it has this very attempt */
        for (size_t k = 0; k < w->peers[i].held_count; k++)
            assert_false(w->peers[i].held[k].task == a->task && w->peers[i].held[k].attempt == a->attempt &&
                         w->peers[i].held[k].epoch == facts.epoch);
    assert_true(p->held_count < MAX_HELD);
    p->held[p->held_count++] = (struct held){a->task, facts.epoch, facts.attempt};
    know(w, a->task, facts.attempt >> 8);
}

static void finish_turn(struct world *w)
{
    struct pm_error err;
    pm_sched_tick(w->sched, w->now);
    pm_sched_assign(w->sched, w->now);
    struct pm_actions *a = pm_sched_actions(w->sched);
    count_ops(w, a);
    int rc = pm_journal_apply(w->journal, a->ops, a->op_count, &err);
    if (rc)
        fail_msg("journal: %s", err.text); /* a doubled result is a constraint error */
    struct pm_actions now = *a;
    *a = (struct pm_actions){0};
    pm_sched_written(w->sched);
    for (size_t i = 0; i < now.item_count; i++)
        deliver(w, &now.items[i]);
    pm_actions_free(&now);
    pm_arena_clear(&w->arena);
}

/* ---- peers ---- */

static void join(struct world *w, struct fake_peer *p, enum pm_role role)
{
    static const char *const readers[] = {"fast"};
    *p = (struct fake_peer){.is_there = true, .role = role, .granted = 1 + below(w, 6)};
    struct pm_sched_peer facts = {
        .role = role, .readers = readers, .reader_count = role == PM_ROLE_WORKER, .granted = p->granted};
    p->id = pm_sched_peer_join(w->sched, w->now, &facts);
}

static void leave(struct world *w, struct fake_peer *p, enum pm_peer_end how)
{
    for (size_t i = 0; i < p->held_count; i++) {
        remember_old(w, p->held[i]);
        if (how == PM_PEER_LEFT || !pm_sched_is_current(w->sched, p->id, p->held[i].task, p->held[i].attempt))
            continue;
        struct known *k = know(w, p->held[i].task, p->held[i].attempt >> 8);
        k->fails++;
        k->crashes += how == PM_PEER_CRASHED;
    }
    if (how == PM_PEER_KILLED && !w->news_count && below(w, 2))
        w->news_count = pm_sched_peer_tasks(w->sched, p->id, w->news, MAX_HELD);
    pm_sched_peer_end(w->sched, w->now, p->id, how);
    p->is_there = false;
    p->held_count = 0;
}

static void hear_news(struct world *w)
{
    size_t cursor = 0;
    uint64_t task;
    void *value;
    while (pm_map_next(&w->known, &cursor, &task, &value))
        for (uint32_t i = 0; i < w->news_count; i++)
            ((struct known *)value)->crashes += w->news[i] == task;
    pm_sched_crashed(w->sched, w->now, w->news, w->news_count);
    w->news_count = 0;
}

static void fill_result(struct world *w, struct held h, struct pm_msg_result *r)
{
    static const char blob[] = "d00000000000000000000000000000000000000000000000000000000000000aa";
    static const char sheet[] = "p00000000000000000000000000000000000000000000000000000000000000bb";
    uint64_t job = pm_task_job(h.task);
    uint32_t page = pm_task_page(h.task);
    *r = (struct pm_msg_result){.task = h.task,
                                .epoch = h.epoch,
                                .attempt = h.attempt,
                                .error_code = "",
                                .error_text = "",
                                .record = blob,
                                .sheet = sheet,
                                .sheet_bytes = 1000,
                                .blob = blob,
                                .run_us = 1000 + below(w, 50000)};
    switch (pm_task_kind(h.task)) {
    case PM_KIND_OPEN:
        r->page_count = page_count_of(job);
        r->pages = pm_arena_alloc(&w->arena, r->page_count * sizeof *r->pages);
        for (uint32_t i = 0; i < r->page_count; i++)
            r->pages[i] = (struct pm_found_page){1 + 2 * i, 1000, 1400};
        break;
    case PM_KIND_PAGE:
        r->cost_count = region_count_of(job, page);
        r->costs = pm_arena_alloc(&w->arena, r->cost_count * sizeof *r->costs + 1);
        for (uint32_t i = 0; i < r->cost_count; i++)
            r->costs[i] = i % 4 == 3 ? 0 : 1 + i;
        break;
    case PM_KIND_REGION:
        r->text = (struct pm_bytes){(const uint8_t *)"text", 4};
        break;
    case PM_KIND_ASSEMBLE_PAGE:
        break;
    case PM_KIND_ASSEMBLE_DOC: {
        struct pm_manifest m = {.pages = 1};
        struct pm_buf b = {0};
        pm_record_encode(&pm_manifest_schema, &m, &b);
        r->manifest = (struct pm_bytes){(uint8_t *)pm_arena_text(&w->arena, (char *)b.data, b.size), b.size};
        pm_buf_free(&b);
        break;
    }
    }
}

/* A peer answers one lease. */
static void answer(struct world *w, struct fake_peer *p, size_t i)
{
    struct held h = p->held[i];
    struct pm_msg_result r;
    struct pm_error err;
    fill_result(w, h, &r);
    bool current = pm_sched_is_current(w->sched, p->id, h.task, h.attempt);
    struct known *k = current ? know(w, h.task, h.attempt >> 8) : NULL;
    enum fate fate = fate_of(h.task);
    bool fails_now = below(w, 40) == 0;
    if (fate == POISON) {
        leave(w, p, PM_PEER_CRASHED);
        return;
    }
    if (fate == BAD_INPUT || fails_now) {
        static const char *const soft[] = {"io", "timeout", "no-memory", "not-found", "internal"};
        r.error_code = fate == BAD_INPUT ? "format" : soft[below(w, 5)];
        r.error_text = "made to fail";
        r.is_final_error = fate == BAD_INPUT;
        if (k) {
            k->fails++;
            k->had_input_error |= fate == BAD_INPUT;
        }
    } else if (k) {
        k->successes++;
        assert_int_equal(k->successes, 1); /* one committed result in a generation */
    }
    int rc = pm_sched_result(w->sched, w->now, p->id, &r, &err);
    assert_int_equal(rc, current ? 0 : PM_EGONE);
    w->accepted_results += !rc;
    w->fenced_results += rc != 0;
    remember_old(w, h);
    drop_held(p, i);
    p->granted++;
    pm_sched_credit(w->sched, p->id, p->granted);
}

static void answer_late(struct world *w)
{
    if (!w->old_count)
        return;
    struct held h = w->old[below(w, (uint32_t)w->old_count)];
    struct fake_peer *p = &w->peers[below(w, MAX_PEERS)];
    if (!p->is_there || pm_sched_is_current(w->sched, p->id, h.task, h.attempt))
        return;
    struct pm_msg_result r;
    fill_result(w, h, &r);
    assert_int_equal(pm_sched_result(w->sched, w->now, p->id, &r, NULL), PM_EGONE);
    w->fenced_results++;
}

/* ---- restarts ---- */

static int restore(void *ctx, const struct pm_job_image *image, struct pm_error *err)
{
    struct world *w = ctx;
    return pm_sched_restore(w->sched, w->now, image, err);
}

/* Few jobs may stay awake: most of them sleep in the journal while they wait and after their end. */
static int load(void *ctx, uint64_t job, struct pm_job_image *out, struct pm_error *err)
{
    struct world *w = ctx;
    w->loads++;
    return pm_journal_job_row(w->journal, job, &w->arena, out, err);
}

static void start_broker(struct world *w)
{
    struct pm_error err;
    uint64_t next = 1;
    assert_int_equal(pm_journal_begin_epoch(w->journal, &w->epoch, &err), 0);
    assert_int_equal(pm_journal_next_job(w->journal, &next, &err), 0);
    struct pm_sched_config config = {.epoch = w->epoch,
                                     .seed = rnd(w),
                                     .first_job = next,
                                     .adopt_us = 500000,
                                     .load = load,
                                     .load_ctx = w,
                                     .awake_jobs = 2 + below(w, 30)};
    w->sched = pm_sched_new(&config);
    int rc = pm_journal_load(w->journal, restore, w, &err);
    if (rc)
        fail_msg("%s", err.text);
}

static void restart(struct world *w)
{
    struct fake_peer before[MAX_PEERS];
    memcpy(before, w->peers, sizeof before);
    pm_sched_free(&w->sched); /* whatever the turn had decided is lost */
    start_broker(w);
    w->restarts++;
    for (int i = 0; i < MAX_PEERS; i++) {
        struct fake_peer *p = &w->peers[i];
        if (!p->is_there)
            continue;
        struct held held[MAX_HELD];
        size_t count = p->held_count;
        memcpy(held, p->held, sizeof held);
        join(w, p, before[i].role);
        p->granted += count; /* as the peer loop does: what it holds counts as received */
        p->received = count;
        pm_sched_peer_rejoin(w->sched, p->id, p->granted, count);
        for (size_t k = 0; k < count; k++) {
            struct pm_held h = {held[k].task, held[k].epoch, held[k].attempt};
            if (pm_sched_held(w->sched, w->now, p->id, &h)) {
                p->held[p->held_count++] = held[k];
                w->adopted++;
            } else {
                remember_old(w, held[k]);
                p->granted++;
                pm_sched_credit(w->sched, p->id, p->granted);
            }
        }
    }
}

/* Peers that were away come with leases of long ago. Those of an earlier generation must not be taken. */
static void present_old(struct world *w)
{
    for (int i = 0; i < 12 && w->old_count; i++) {
        struct held h = w->old[below(w, (uint32_t)w->old_count)];
        struct fake_peer *p = &w->peers[below(w, MAX_PEERS)];
        if (!p->is_there || pm_kind_role(pm_task_kind(h.task)) != p->role || p->held_count == MAX_HELD ||
            pm_sched_is_current(w->sched, p->id, h.task, h.attempt))
            continue;
        struct pm_held held = {h.task, h.epoch, h.attempt};
        if (!pm_sched_held(w->sched, w->now, p->id, &held))
            continue;
        know(w, h.task, h.attempt >> 8);
        p->held[p->held_count++] = h;
    }
}

/* A result arrives, and the broker dies before the commit: the peer was not acknowledged and has it still. */
static void restart_in_the_turn(struct world *w, struct fake_peer *p)
{
    struct held h = p->held[below(w, (uint32_t)p->held_count)];
    struct pm_msg_result r;
    fill_result(w, h, &r);
    pm_sched_result(w->sched, w->now, p->id, &r, NULL);
    restart(w);
}

/* ---- clients ---- */

static void submit(struct world *w)
{
    char client[8], key[32];
    snprintf(client, sizeof client, "c%u", below(w, 3));
    snprintf(key, sizeof key, "k%u", below(w, 100000));
    struct pm_msg_submit m = {.key = key,
                              .name = "x.pdf",
                              .source = "d00000000000000000000000000000000000000000000000000000000000000cc",
                              .batch = "b",
                              .priority = below(w, 5)};
    uint64_t job;
    bool duplicate;
    assert_int_equal(pm_sched_submit(w->sched, w->now, client, &m, &job, &duplicate, NULL), 0);
    assert_int_equal(duplicate, pm_map_get(&w->alive, job) != NULL);
    /* Accepted is told after the commit. */
    finish_turn(w);
    pm_map_put(&w->alive, job, w);
    w->submitted += !duplicate;
}

static uint64_t some_job(struct world *w)
{
    size_t cursor = 0, skip = w->alive.count ? below(w, (uint32_t)w->alive.count) : 0;
    uint64_t job = 0;
    void *value;
    while (pm_map_next(&w->alive, &cursor, &job, &value) && skip--)
        ;
    return job;
}

static void forget_known(struct world *w, uint64_t job)
{
    struct pm_map kept = {0};
    size_t cursor = 0;
    uint64_t task;
    void *value;
    while (pm_map_next(&w->known, &cursor, &task, &value)) {
        if (pm_task_job(task) == job)
            free(value);
        else
            pm_map_put(&kept, task, value);
    }
    pm_map_free(&w->known);
    w->known = kept;
}

static void meddle(struct world *w)
{
    uint64_t job = some_job(w);
    struct pm_job_info info;
    if (!job)
        return;
    assert_true(pm_sched_info(w->sched, job, &info)); /* nothing is lost */
    bool is_final = info.state > PM_JOB_RUNNING;
    switch (below(w, 4)) {
    case 0:
        assert_int_equal(pm_sched_cancel(w->sched, w->now, job, NULL),
                         is_final && info.state != PM_JOB_CANCELLED ? PM_EINVAL : 0);
        break;
    case 1: {
        struct pm_arena arena = {0};
        struct pm_job_image image;
        assert_int_equal(pm_journal_job(w->journal, job, &arena, &image, NULL), 0);
        int rc = pm_sched_retry(w->sched, w->now, &image, NULL);
        bool all_good = info.state == PM_JOB_DONE && !info.pages_failed && !info.regions_failed;
        assert_int_equal(rc, !is_final ? PM_EBUSY : all_good ? PM_EINVAL : 0);
        pm_arena_free(&arena);
        break;
    }
    default:
        if (!is_final)
            break;
        assert_int_equal(pm_sched_forget(w->sched, job, NULL), 0);
        finish_turn(w);
        pm_map_remove(&w->alive, job);
        forget_known(w, job);
        break;
    }
    finish_turn(w);
}

/* ---- the run ---- */

static void step(struct world *w, bool is_calm)
{
    w->now.us += is_calm ? 20000 : below(w, 30000);
    w->now.wall_us = w->now.us;
    if (w->news_count && below(w, 8) == 0)
        hear_news(w);
    struct fake_peer *p = &w->peers[below(w, MAX_PEERS)];
    uint32_t dice = is_calm ? 40 + below(w, 60) : below(w, 100);
    if (!p->is_there) {
        static const enum pm_role roles[MAX_PEERS] = {PM_ROLE_LAYOUTD,  PM_ROLE_LAYOUTD, PM_ROLE_WORKER,
                                                      PM_ROLE_WORKER,   PM_ROLE_WORKER,  PM_ROLE_COLLECTOR,
                                                      PM_ROLE_COLLECTOR};
        join(w, p, roles[p - w->peers]);
    } else if (dice < 2) {
        leave(w, p, (enum pm_peer_end)below(w, 3));
    } else if (dice < 5) {
        answer_late(w);
    } else if (dice < 20) {
        if (w->alive.count < 60)
            submit(w);
        else
            meddle(w);
    } else if (dice < 23) {
        meddle(w);
    } else if (dice < 24 && below(w, 4) == 0) {
        if (p->held_count)
            restart_in_the_turn(w, p);
        else
            restart(w);
        present_old(w);
    } else if (p->held_count) {
        answer(w, p, below(w, (uint32_t)p->held_count));
    }
    for (int i = 0; i < MAX_PEERS; i++)
        for (size_t k = 0; w->peers[i].is_there && k < w->peers[i].held_count; k++)
            pm_sched_beat(w->sched, w->now, w->peers[i].id, w->peers[i].held[k].task,
                          w->peers[i].held[k].attempt);
    finish_turn(w);
}

static void check_job(struct world *w, uint64_t job)
{
    struct pm_job_info info;
    struct pm_arena arena = {0};
    struct pm_job_image image;
    struct pm_error err;
    assert_true(pm_sched_info(w->sched, job, &info));
    assert_int_equal(pm_journal_job(w->journal, job, &arena, &image, &err), 0);
    assert_true(info.state > PM_JOB_RUNNING);
    assert_int_equal(image.info.state, info.state);
    assert_int_equal(image.info.pages_failed, info.pages_failed);
    assert_int_equal(image.info.regions_done, info.regions_done);
    if (info.state == PM_JOB_DONE) {
        uint32_t done = 0, failed = 0, regions = 0, regions_failed = 0;
        for (uint32_t i = 0; i < image.page_count; i++) {
            done += image.pages[i].stage == PM_STAGE_DONE;
            failed += image.pages[i].stage == PM_STAGE_FAILED;
            regions += image.pages[i].regions;
            regions_failed += image.pages[i].regions_failed;
        }
        assert_int_equal(done + failed, page_count_of(job));
        assert_int_equal(info.pages, page_count_of(job));
        assert_int_equal(info.pages_done, done);
        assert_int_equal(info.pages_failed, failed);
        assert_int_equal(info.regions, regions);
        assert_int_equal(info.regions_failed, regions_failed);
        assert_int_equal(info.regions_done + info.regions_failed, regions);
        struct pm_bytes manifest;
        assert_int_equal(pm_journal_manifest(w->journal, job, &arena, &manifest, &err), 0);
        assert_true(manifest.size > 0);
    }
    if (info.state == PM_JOB_FAILED)
        assert_true(*info.error_code && *info.error_text);
    pm_arena_free(&arena);
}

static void settle(struct world *w)
{
    for (int i = 0; i < 200000; i++) {
        struct pm_sched_stats s;
        pm_sched_stats(w->sched, w->now, &s);
        if (!s.jobs[PM_JOB_QUEUED] && !s.jobs[PM_JOB_RUNNING])
            return;
        step(w, true);
    }
    fail_msg("jobs do not come to an end");
}

static int refs_left(struct world *w);

static void run(uint64_t seed, uint64_t steps)
{
    struct world w = {.random = seed, .now = {1000000, 1000000}};
    struct pm_error err;
    assert_int_equal(pm_journal_open(":memory:", NULL, &w.journal, &err), 0);
    start_broker(&w);
    for (uint64_t i = 0; i < steps; i++)
        step(&w, false);
    settle(&w);
    restart(&w); /* and everything is still there */
    finish_turn(&w);
    size_t cursor = 0;
    uint64_t job;
    void *value;
    while (pm_map_next(&w.alive, &cursor, &job, &value))
        check_job(&w, job);
    assert_true(w.accepted_results > 0 && w.fenced_results > 0 && w.restarts > 0 && w.loads > 0);
    /* Forget everything: nothing may be left behind. */
    for (cursor = 0; pm_map_next(&w.alive, &cursor, &job, &value);) {
        assert_int_equal(pm_sched_forget(w.sched, job, NULL), 0);
        finish_turn(&w);
    }
    assert_int_equal(refs_left(&w), 0);
    struct pm_sched_stats s;
    pm_sched_stats(w.sched, w.now, &s);
    assert_int_equal(s.pixel_bytes, 0);
    for (unsigned k = 0; k < PM_SCHED_KINDS; k++)
        assert_true(!s.kinds[k].queued && !s.kinds[k].leased);
    printf("seed %llu: %llu jobs, %llu results, %llu fenced, %llu restarts, %llu adopted, %llu set aside\n",
           (unsigned long long)seed, (unsigned long long)w.submitted, (unsigned long long)w.accepted_results,
           (unsigned long long)w.fenced_results, (unsigned long long)w.restarts,
           (unsigned long long)w.adopted, (unsigned long long)w.quarantined);
    for (cursor = 0; pm_map_next(&w.known, &cursor, &job, &value);)
        free(value);
    pm_map_free(&w.known);
    pm_map_free(&w.alive);
    pm_sched_free(&w.sched);
    pm_journal_free(&w.journal);
    pm_arena_free(&w.arena);
}

static void count_ref(void *ctx, const char *key, int change)
{
    (void)key;
    *(int *)ctx += change;
}

static int refs_left(struct world *w)
{
    int count = 0;
    assert_int_equal(pm_journal_refs(w->journal, count_ref, &count, NULL), 0);
    return count;
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static void random_schedules(void **state)
{
    (void)state;
    uint64_t steps = setting("PM_MODEL_STEPS", 20000), seed = setting("PM_MODEL_SEED", 0);
    for (uint64_t i = seed ? seed : 1; i <= (seed ? seed : 5); i++)
        run(i, steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_schedules)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
