/* A fleet in simulated time: layoutd processes and collectors that do one thing after the other, workers that
 * read line by line or several regions at once, documents with plausible pages. What the order promises is
 * measured and held against a bound: shares, waits of urgent pages, ageing, the end of a job.
 *
 * `test_sched_simulator --report` prints the figures. Times are simulated: the machine does not matter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "broker/scheduler.h"

#define MAX_PEERS  64
#define MAX_HELD   64
#define SECOND_US  1000000
#define HOP_US     500 /* from the end of a task to the broker knowing it, and back */
#define MAX_SHARES 8

static bool is_report;

/* ---- what documents look like ---- */

/* Pages of a kind of document: how many regions, what they cost, and what they really take. */
struct shape {
    const char *client, *reader;
    uint32_t pages, regions_least, regions_most;
    uint32_t cost_least, cost_most; /* log-uniform */
    double us_per_cost;             /* what the cost is worth: differs where the estimate is wrong */
    uint32_t priority;
    uint64_t layout_us;
};

static const char blob[] = "d00000000000000000000000000000000000000000000000000000000000000aa";

struct held {
    uint64_t task, epoch;
    uint32_t attempt;
    double left_us, work_us; /* of the peer's time */
};
struct peer {
    uint32_t id;
    enum pm_role role;
    bool is_shared; /* works on all it holds at once, each at its part of the speed */
    uint64_t granted;
    struct held held[MAX_HELD];
    size_t count;
};
struct live {
    const struct shape *shape;
    uint64_t count;
};
struct document {
    const struct shape *shape;
    int64_t submitted_us, ended_us;
};
struct world {
    uint64_t random;
    struct pm_sched *s;
    struct pm_now now;
    struct peer peers[MAX_PEERS];
    size_t peer_count;
    struct pm_map documents; /* job -> struct document */
    struct live live[16];
    int64_t beaten_us;
    struct pm_map laid; /* job << 32 | page -> when its layout was leased */
    struct pm_arena arena;
    /* what is measured */
    void (*on_region)(struct world *w, const struct document *d, double work_us); /* is leased */
    double page_us_sum;
    uint64_t page_count;
    double share_us[MAX_SHARES], worst_share;
    uint64_t in_window, windows;
    const struct shape *shapes;
    size_t shape_count, active_first, active_count;
};

static uint64_t mixed(uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* 0 to 1, a function of the place: the same document is the same in every run. */
static double chance(uint64_t a, uint64_t b)
{
    return (double)(mixed(a ^ mixed(b)) >> 11) / (double)(1ull << 53);
}

static uint32_t regions_of(const struct shape *s, uint64_t job, uint32_t page)
{
    return s->regions_least + (uint32_t)(chance(job, page) * (s->regions_most - s->regions_least + 1));
}

static uint32_t cost_of(const struct shape *s, uint64_t job, uint32_t page, uint32_t region)
{
    double t = chance(job * 131071 + page, region + 1000);
    return (uint32_t)(s->cost_least * pow((double)s->cost_most / s->cost_least, t) + 0.5);
}

/* What a region takes: its cost, a quarter more or less by chance. */
static double region_us(const struct shape *s, uint64_t job, uint32_t page, uint32_t region)
{
    double noise = pow(1.25, 2 * chance(job * 7 + page, region * 13 + 5) - 1);
    return cost_of(s, job, page, region) * s->us_per_cost * noise;
}

static double task_us(const struct shape *s, uint64_t task)
{
    uint32_t page = pm_task_page(task);
    switch (pm_task_kind(task)) {
    case PM_KIND_OPEN:
        return 20000;
    case PM_KIND_PAGE:
        return (double)s->layout_us * (0.7 + 0.6 * chance(pm_task_job(task), page + 500000));
    case PM_KIND_REGION:
        return region_us(s, pm_task_job(task), page, pm_task_slot(task));
    case PM_KIND_ASSEMBLE_PAGE:
        return 8000;
    default:
        return 15000;
    }
}

/* ---- the fleet ---- */

static void world_open(struct world *w, struct pm_sched_config config)
{
    *w = (struct world){.now = {SECOND_US, SECOND_US}};
    config.epoch = 1;
    w->s = pm_sched_new(&config);
}

static void world_close(struct world *w)
{
    size_t cursor = 0;
    uint64_t key;
    void *value;
    while (pm_map_next(&w->documents, &cursor, &key, &value))
        free(value);
    pm_map_free(&w->documents);
    pm_map_free(&w->laid);
    pm_sched_free(&w->s);
    pm_arena_free(&w->arena);
}

static struct peer *join(struct world *w, enum pm_role role, const char *reader, uint64_t credit,
                         bool is_shared)
{
    const char *const readers[] = {reader};
    struct peer *p = &w->peers[w->peer_count++];
    struct pm_sched_peer facts = {
        .role = role, .readers = readers, .reader_count = role == PM_ROLE_WORKER, .granted = credit};
    *p = (struct peer){.role = role, .is_shared = is_shared, .granted = credit};
    p->id = pm_sched_peer_join(w->s, w->now, &facts);
    return p;
}

static void fleet(struct world *w, unsigned layoutd, unsigned workers, uint64_t credit, bool is_shared)
{
    for (unsigned i = 0; i < layoutd; i++)
        join(w, PM_ROLE_LAYOUTD, "", 2, false);
    for (unsigned i = 0; i < workers; i++)
        join(w, PM_ROLE_WORKER, "fast", credit, is_shared);
    for (unsigned i = 0; i < 2; i++)
        join(w, PM_ROLE_COLLECTOR, "", 4, false);
}

/* How many documents of a kind are not read yet. */
static uint64_t *live_count(struct world *w, const struct shape *shape)
{
    struct live *l = w->live;
    while (l->shape && l->shape != shape)
        l++;
    l->shape = shape;
    return &l->count;
}

static uint64_t live_of(struct world *w, const struct shape *shape)
{
    return *live_count(w, shape);
}

static struct document *submit(struct world *w, const struct shape *shape)
{
    struct pm_msg_submit m = {.key = "",
                              .name = "n",
                              .source = blob,
                              .batch = "",
                              .priority = shape->priority,
                              .options = {.reader = "fast"}};
    uint64_t job;
    bool duplicate;
    assert_int_equal(pm_sched_submit(w->s, w->now, shape->client, &m, &job, &duplicate, NULL), 0);
    struct document *d = pm_xalloc(sizeof *d);
    *d = (struct document){.shape = shape, .submitted_us = w->now.us};
    pm_map_put(&w->documents, job, d);
    ++*live_count(w, shape);
    return d;
}

static struct document *document_of(struct world *w, uint64_t task)
{
    return pm_map_get(&w->documents, pm_task_job(task));
}

static void turn(struct world *w)
{
    pm_sched_tick(w->s, w->now);
    pm_sched_assign(w->s, w->now);
    struct pm_actions *a = pm_sched_actions(w->s);
    for (size_t i = 0; i < a->item_count; i++) {
        const struct pm_action *act = &a->items[i];
        struct pm_lease_facts facts;
        if (act->kind != PM_ACTION_LEASE)
            continue;
        const struct document *d = document_of(w, act->task);
        double us = task_us(d->shape, act->task);
        assert_true(pm_sched_lease_facts(w->s, act->task, &facts));
        for (size_t k = 0; k < w->peer_count; k++) {
            struct peer *p = &w->peers[k];
            if (p->id != act->peer)
                continue;
            assert_true(p->count < MAX_HELD);
            p->held[p->count++] = (struct held){act->task, facts.epoch, facts.attempt, us + HOP_US, us};
        }
        if (pm_task_kind(act->task) == PM_KIND_REGION && w->on_region)
            w->on_region(w, d, us);
        if (pm_task_kind(act->task) == PM_KIND_PAGE)
            pm_map_put(&w->laid, act->task >> 15, (void *)(uintptr_t)w->now.us);
    }
    pm_actions_clear(a);
    pm_arena_clear(&w->arena);
}

static void answer(struct world *w, struct peer *p, size_t at)
{
    struct held h = p->held[at];
    memmove(&p->held[at], &p->held[at + 1], (--p->count - at) * sizeof h);
    struct document *d = document_of(w, h.task);
    const struct shape *s = d->shape;
    uint64_t job = pm_task_job(h.task);
    uint32_t page = pm_task_page(h.task);
    struct pm_phase phase = {"work", (uint64_t)h.work_us};
    struct pm_msg_result r = {.task = h.task,
                              .epoch = h.epoch,
                              .attempt = h.attempt,
                              .error_code = "",
                              .error_text = "",
                              .record = blob,
                              .sheet = "",
                              .blob = blob,
                              .text = {(const uint8_t *)"x", 1},
                              .manifest = {(const uint8_t *)"x", 1},
                              .run_us = (uint64_t)h.work_us,
                              .phases = &phase,
                              .phase_count = 1};
    switch (pm_task_kind(h.task)) {
    case PM_KIND_OPEN:
        r.page_count = s->pages;
        r.pages = pm_arena_alloc(&w->arena, s->pages * sizeof *r.pages);
        for (uint32_t i = 0; i < s->pages; i++)
            r.pages[i] = (struct pm_found_page){i + 1, 1654, 2339};
        break;
    case PM_KIND_PAGE:
        r.sheet_bytes = 2000000;
        r.cost_count = regions_of(s, job, page);
        r.costs = pm_arena_alloc(&w->arena, r.cost_count * sizeof *r.costs);
        for (uint32_t i = 0; i < r.cost_count; i++)
            r.costs[i] = cost_of(s, job, page, i);
        break;
    case PM_KIND_REGION:
        break;
    case PM_KIND_ASSEMBLE_PAGE:
        w->page_us_sum += (double)(w->now.us - (int64_t)(uintptr_t)pm_map_get(&w->laid, h.task >> 15));
        w->page_count++;
        break;
    default:
        d->ended_us = w->now.us;
        --*live_count(w, s);
        break;
    }
    assert_int_equal(pm_sched_result(w->s, w->now, p->id, &r, NULL), 0);
    pm_sched_credit(w->s, p->id, ++p->granted);
}

static double pace(const struct peer *p, size_t at)
{
    return p->is_shared ? 1.0 / (double)p->count : at == 0 ? 1 : 0;
}

/* Goes to the next end of a task, or to `until`. False when nobody works. */
static bool step(struct world *w, int64_t until_us)
{
    struct peer *next = NULL;
    size_t next_at = 0;
    double soonest = (double)(until_us - w->now.us);
    bool any = false;
    for (size_t i = 0; i < w->peer_count; i++) {
        struct peer *p = &w->peers[i];
        for (size_t k = 0; k < p->count; k++) {
            if (pace(p, k) <= 0)
                continue;
            any = true;
            double us = p->held[k].left_us / pace(p, k);
            if (us < soonest) {
                soonest = us;
                next = p;
                next_at = k;
            }
        }
    }
    int64_t rounded = (int64_t)ceil(soonest > 0 ? soonest : 0);
    for (size_t i = 0; i < w->peer_count; i++) {
        struct peer *p = &w->peers[i];
        for (size_t k = 0; k < p->count; k++)
            p->held[k].left_us -= (double)rounded * pace(p, k);
    }
    w->now.us += rounded;
    w->now.wall_us = w->now.us;
    bool is_due = w->now.us - w->beaten_us >= SECOND_US;
    for (size_t i = 0; i < w->peer_count && is_due; i++)
        for (size_t k = 0; k < w->peers[i].count; k++)
            pm_sched_beat(w->s, w->now, w->peers[i].id, w->peers[i].held[k].task,
                          w->peers[i].held[k].attempt);
    w->beaten_us = is_due ? w->now.us : w->beaten_us;
    if (next)
        answer(w, next, next_at);
    turn(w);
    return any || next;
}

static void run_until(struct world *w, int64_t until_us)
{
    while (w->now.us < until_us)
        step(w, until_us);
}

/* ---- shares ---- */

static void count_share(struct world *w, const struct document *d, double work_us)
{
    w->share_us[d->shape - w->shapes] += work_us;
    if (++w->in_window < 1000)
        return;
    double total = 0;
    for (size_t i = 0; i < w->active_count; i++)
        total += w->share_us[w->active_first + i];
    for (size_t i = 0; i < w->active_count; i++) {
        double error = fabs(w->share_us[w->active_first + i] / total * (double)w->active_count - 1);
        w->worst_share = error > w->worst_share ? error : w->worst_share;
        if (is_report)
            printf("%s%s %.1f %%",
                   i ? ", " : "  shares of 1,000 regions: ", w->shapes[w->active_first + i].client,
                   100 * w->share_us[w->active_first + i] / total);
    }
    if (is_report)
        printf("\n");
    memset(w->share_us, 0, sizeof w->share_us);
    w->in_window = 0;
    w->windows++;
}

/* Keeps so many documents of each active client in the queue. */
static void keep_busy(struct world *w, int64_t for_us)
{
    for (int64_t end = w->now.us + for_us; w->now.us < end;) {
        for (size_t i = 0; i < w->active_count; i++)
            while (live_of(w, &w->shapes[w->active_first + i]) < w->peer_count)
                submit(w, &w->shapes[w->active_first + i]);
        run_until(w, w->now.us + SECOND_US);
    }
}

static void begin_windows(struct world *w)
{
    memset(w->share_us, 0, sizeof w->share_us);
    w->in_window = 0;
}

/* Scans with few lines, dense pages, pages of tables whose regions take three times what their cost says;
 * then one client goes, and one comes. (A region that alone is a twentieth of what its client gets in a
 * thousand leases would move the share by that much, whatever the order.) */
static void shares_are_equal(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {"gone", NULL, 30, 20, 60, 8, 30, 1000, 2, 150000},
        {"letters", NULL, 5, 15, 40, 6, 25, 1000, 2, 120000},
        {"dense", NULL, 40, 250, 600, 5, 20, 1100, 2, 400000},
        {"tables", NULL, 10, 10, 30, 10, 25, 3000, 2, 250000},
        {"late", NULL, 100, 40, 120, 10, 40, 700, 2, 200000},
    };
    static const struct {
        bool is_shared;
        unsigned workers;
    } fleets[] = {{false, 4}, {false, 12}, {true, 4}};
    for (size_t k = 0; k < sizeof fleets / sizeof fleets[0]; k++) {
        struct world w;
        world_open(&w, (struct pm_sched_config){.pixel_budget_bytes = 512u << 20});
        w.shapes = shapes;
        w.on_region = count_share;
        w.active_count = 4;
        fleet(&w, fleets[k].workers, fleets[k].workers, 16, fleets[k].is_shared);
        keep_busy(&w, 40 * SECOND_US); /* it learns what cost is worth */
        begin_windows(&w);
        w.worst_share = 0;
        w.windows = 0;
        keep_busy(&w, 150 * SECOND_US);
        if (is_report)
            printf("  \"gone\" goes\n");
        w.active_first = 1;
        w.active_count = 3;
        double with_it = w.worst_share;
        while (live_of(&w, &shapes[0]))
            keep_busy(&w, SECOND_US);
        w.worst_share = with_it;
        begin_windows(&w);
        keep_busy(&w, 100 * SECOND_US);
        if (is_report)
            printf("  \"late\" comes\n");
        w.active_count = 4;
        double so_far = w.worst_share;
        for (w.share_us[4] = 0; w.share_us[4] <= 0;) /* its first pages are laid out */
            keep_busy(&w, SECOND_US);
        keep_busy(&w, 5 * SECOND_US); /* and what its cost is worth has been seen */
        begin_windows(&w);
        w.worst_share = so_far;
        keep_busy(&w, 150 * SECOND_US);
        printf("shares, %u workers%s: worst error %.1f %% in %llu windows of 1,000 regions\n",
               fleets[k].workers, fleets[k].is_shared ? " with 16 at once" : "", 100 * w.worst_share,
               (unsigned long long)w.windows);
        assert_true(w.windows >= 10);
        assert_true(w.worst_share <= 0.05);
        world_close(&w);
    }
}

/* ---- urgent pages ---- */

static void urgent_pages_wait_little(void **state)
{
    (void)state;
    static const struct shape batch[] = {
        {"scans", NULL, 60, 40, 90, 8, 30, 1000, 2, 300000},
        {"books", NULL, 300, 60, 120, 8, 25, 1000, 1, 350000},
    };
    static const struct shape urgent = {"person", NULL, 1, 20, 60, 8, 30, 1000, 4, 300000};
    static const struct {
        bool is_shared;
        uint64_t credit;
    } fleets[] = {{false, 16}, {true, 16}, {true, 4}};
    for (size_t k = 0; k < sizeof fleets / sizeof fleets[0]; k++) {
        double alone_us = 0, worst_us = 0, sum_us = 0;
        unsigned count = 60;
        for (int is_loaded = 0; is_loaded < 2; is_loaded++) {
            struct world w;
            world_open(&w, (struct pm_sched_config){0});
            fleet(&w, 2, 4, fleets[k].credit, fleets[k].is_shared);
            for (int i = 0; i < 6 && is_loaded; i++) {
                submit(&w, &batch[0]);
                submit(&w, &batch[1]);
            }
            run_until(&w, w.now.us + 20 * SECOND_US);
            w.page_us_sum = 0;
            w.page_count = 0;
            for (unsigned n = 0; n < count; n++) {
                struct document *d = submit(&w, &urgent);
                turn(&w);
                int64_t began = w.now.us;
                while (!d->ended_us)
                    step(&w, w.now.us + 10000);
                double took = (double)(d->ended_us - began);
                if (!is_loaded) {
                    alone_us = took > alone_us ? took : alone_us;
                } else {
                    sum_us += took - alone_us;
                    worst_us = took - alone_us > worst_us ? took - alone_us : worst_us;
                }
                while (is_loaded && live_of(&w, &batch[0]) < 3)
                    submit(&w, &batch[0]);
                run_until(&w, w.now.us + 700000 + (int64_t)(mixed(n) % 900000));
            }
            if (is_loaded) {
                double page_us = w.page_us_sum / (double)w.page_count;
                printf(
                    "an urgent page beside full load (%s, credit %llu): waits %.2f s on average, %.2f s at "
                    "most; alone it takes %.2f s, a page of the batch %.2f s\n",
                    fleets[k].is_shared ? "regions at once" : "line by line",
                    (unsigned long long)fleets[k].credit, sum_us / count / 1e6, worst_us / 1e6,
                    alone_us / 1e6, page_us / 1e6);
                assert_true(worst_us <= page_us);
            }
            world_close(&w);
        }
    }
}

/* ---- ageing ---- */

static int64_t last_low_us, longest_gap_us;

static void watch_low(struct world *w, const struct document *d, double work_us)
{
    (void)work_us;
    if (d->shape->priority)
        return;
    if (last_low_us && w->now.us - last_low_us > longest_gap_us)
        longest_gap_us = w->now.us - last_low_us;
    last_low_us = w->now.us;
}

static void nothing_starves(void **state)
{
    (void)state;
    static const struct shape low = {"patient", NULL, 20, 5, 5, 10, 10, 1000, 0, 100000};
    static const struct shape high = {"pushy", NULL, 20, 40, 80, 10, 30, 1000, 4, 100000};
    struct world w;
    world_open(&w, (struct pm_sched_config){.age_us = SECOND_US});
    fleet(&w, 2, 3, 16, false);
    struct document *d = submit(&w, &low);
    last_low_us = w.now.us;
    longest_gap_us = 0;
    w.on_region = watch_low;
    for (int n = 0; n < 3000 && !d->ended_us; n++) {
        while (live_of(&w, &high) < 4)
            submit(&w, &high);
        run_until(&w, w.now.us + SECOND_US);
    }
    printf("priority 0 beside a full load of priority 4, ageing by 1 s: longest wait %.1f s, ended %s\n",
           (double)longest_gap_us / 1e6, d->ended_us ? "yes" : "no");
    assert_true(d->ended_us != 0);
    /* Four levels, once for each of open and page, and once for the regions. */
    assert_true(longest_gap_us <= 3 * 5 * SECOND_US);
    world_close(&w);
}

/* ---- the end of a job ---- */

static void jobs_end_together(void **state)
{
    (void)state;
    static const struct shape shapes[] = {
        {"lines", NULL, 30, 60, 120, 5, 30, 1000, 2, 100000},
        {"mixed", NULL, 24, 8, 20, 20, 2000, 1000, 2, 100000}, /* large tables among lines */
        {"few", NULL, 3, 10, 14, 50, 3000, 1000, 2, 100000},
    };
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++)
        for (unsigned workers = 4; workers <= 16; workers *= 2) {
            struct world w;
            world_open(&w, (struct pm_sched_config){0});
            fleet(&w, 4, workers, shapes[k].cost_most > 100 ? 2 : 8, false);
            struct document *d = submit(&w, &shapes[k]);
            int64_t began = w.now.us;
            turn(&w);
            while (!d->ended_us)
                step(&w, w.now.us + SECOND_US);
            double total = 0, longest = 0;
            for (uint32_t page = 1; page <= shapes[k].pages; page++)
                for (uint32_t i = 0; i < regions_of(&shapes[k], 1, page); i++) {
                    double us = region_us(&shapes[k], 1, page, i) + HOP_US;
                    total += us;
                    longest = us > longest ? us : longest;
                }
            double before = 20000 + 100000 * 1.3 + 8000 + 15000 + 5 * HOP_US; /* open, page, assembly */
            double least = total / workers > longest ? total / workers : longest;
            double factor = (double)(d->ended_us - began) / (least + before);
            printf("a job alone (%s, %u workers): %.2f s, %.2f times the least possible\n", shapes[k].client,
                   workers, (double)(d->ended_us - began) / 1e6, factor);
            assert_true(factor <= 1.6);
            /* What any order can promise that knows the regions only when their page is laid out. */
            assert_true((double)(d->ended_us - began) <= (total / workers + longest + before) * 1.02);
            world_close(&w);
        }
}

/* Documents of one batch come out one after the other, the first one early. */
static void first_documents_are_early(void **state)
{
    (void)state;
    static const struct shape scans = {"scans", NULL, 10, 30, 60, 8, 30, 1000, 2, 150000};
    struct world w;
    struct document *d[20];
    world_open(&w, (struct pm_sched_config){0});
    fleet(&w, 2, 4, 16, false);
    for (int i = 0; i < 20; i++)
        d[i] = submit(&w, &scans);
    int64_t began = w.now.us;
    turn(&w);
    while (!d[19]->ended_us)
        step(&w, w.now.us + SECOND_US);
    double all = (double)(d[19]->ended_us - began), first = (double)(d[0]->ended_us - began);
    printf("20 documents of 10 pages: the first after %.2f s of %.2f s\n", first / 1e6, all / 1e6);
    for (int i = 1; i < 20; i++)
        assert_true(d[i]->ended_us > d[i - 1]->ended_us);
    assert_true(first < all * 0.12);
    world_close(&w);
}

int main(int argc, char **argv)
{
    is_report = argc > 1 && !strcmp(argv[1], "--report");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_equal),          cmocka_unit_test(urgent_pages_wait_little),
        cmocka_unit_test(nothing_starves),           cmocka_unit_test(jobs_end_together),
        cmocka_unit_test(first_documents_are_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
