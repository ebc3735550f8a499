/* Peers, leases and time: who may have how much, who is stuck, what comes back. */
#include <stdlib.h>
#include <string.h>

#include "broker/sched_internal.h"

#define PREDICTED_MOST_US 600e6 /* what peers say of their speed is not believed beyond this */
#define AHEAD_US          100e3 /* of work that waits at a peer which does one thing after the other */
#define NEED_MOST         1e12
#define DISK_WAIT_US      1000000

/* ---- timers ---- */

void pm_timer_add(struct timers *t, int64_t when, uint64_t task, uint32_t mark)
{
    PM_GROW(t->items, t->count, t->capacity);
    size_t i = t->count++;
    while (i && t->items[(i - 1) / 2].when > when) {
        t->items[i] = t->items[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    t->items[i] = (struct timer){when, task, mark};
}

uint64_t pm_timer_pop(struct timers *t)
{
    uint64_t task = t->items[0].task;
    struct timer last = t->items[--t->count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= t->count)
            break;
        if (child + 1 < t->count && t->items[child + 1].when < t->items[child].when)
            child++;
        if (t->items[child].when >= last.when)
            break;
        t->items[i] = t->items[child];
        i = child;
    }
    if (t->count)
        t->items[i] = last;
    return task;
}

/* ---- peers ---- */

struct peer *pm_peer_find(const struct pm_sched *s, uint32_t id)
{
    for (size_t i = 0; i < s->peer_count; i++)
        if (s->peers[i]->id == id)
            return s->peers[i];
    return NULL;
}

uint32_t pm_sched_peer_join(struct pm_sched *s, struct pm_now now, const struct pm_sched_peer *facts)
{
    s->now_us = now.us;
    struct peer *p = pm_xalloc(sizeof *p);
    p->id = s->next_peer++;
    p->role = facts->role;
    p->name = pm_xstrdup(facts->name ? facts->name : "");
    p->version = pm_xstrdup(facts->version ? facts->version : "");
    p->granted = p->capacity = facts->granted;
    p->leased = facts->leased;
    bool is_worker = facts->role == PM_ROLE_WORKER;
    p->queue_count = is_worker ? facts->reader_count : 1;
    p->queues = pm_xalloc((p->queue_count + 1) * sizeof *p->queues);
    for (uint32_t i = 0; i < p->queue_count; i++)
        p->queues[i] = is_worker ? pm_queue_of_reader(s, facts->readers[i])
                                 : (facts->role == PM_ROLE_LAYOUTD ? QUEUE_LAYOUT : QUEUE_COLLECT);
    PM_GROW(s->peers, s->peer_count, s->peer_capacity);
    s->peers[s->peer_count++] = p;
    for (uint32_t i = 0; i < p->queue_count; i++) {
        struct queue *q = s->queues[p->queues[i]];
        q->was_served = true;
        if (!q->servers++ && is_worker)
            pm_queue_unpark(s, p->queues[i]);
    }
    return p->id;
}

/* Does it hold more than is leased to it? Who does so long after a lease was taken back has not let go of it:
 * it is wedged there, whatever it says of its other work. */
static bool owes_lease(const struct peer *p)
{
    return p->capacity + p->leased > p->granted + p->lease_count;
}

void pm_sched_credit(struct pm_sched *s, uint32_t peer, uint64_t granted)
{
    struct peer *p = pm_peer_find(s, peer);
    if (!p || granted <= p->granted) /* cumulative: an old one is simply smaller */
        return;
    p->granted = granted;
    if (!owes_lease(p))
        p->owes_us = 0;
}

void pm_sched_peer_rejoin(struct pm_sched *s, uint32_t peer, uint64_t granted, uint64_t leased)
{
    struct peer *p = pm_peer_find(s, peer);
    if (!p)
        return;
    p->granted = p->capacity = granted;
    p->leased = leased;
    p->owes_us = 0;
}

void pm_sched_alive(struct pm_sched *s, uint32_t peer)
{
    struct peer *p = pm_peer_find(s, peer);
    if (!p)
        return;
    p->stalled_us = 0;
    p->is_mute = false;
}

void pm_sched_mute(struct pm_sched *s, uint32_t peer)
{
    struct peer *p = pm_peer_find(s, peer);
    if (p)
        p->is_mute = true;
}

uint32_t pm_sched_peer_leases(const struct pm_sched *s, uint32_t peer)
{
    const struct peer *p = pm_peer_find(s, peer);
    return p ? (uint32_t)p->lease_count : 0;
}

uint32_t pm_sched_peer_tasks(const struct pm_sched *s, uint32_t peer, uint64_t *out, uint32_t most)
{
    const struct peer *p = pm_peer_find(s, peer);
    uint32_t count = 0;
    for (size_t i = 0; p && i < p->lease_count && count < most; i++)
        out[count++] = p->leases[i]->task;
    return count;
}

uint32_t pm_sched_peer_room(const struct pm_sched *s, uint32_t peer)
{
    const struct peer *p = pm_peer_find(s, peer);
    return p && p->granted > p->leased ? (uint32_t)(p->granted - p->leased) : 0;
}

/* ---- leases ---- */

uint32_t pm_task_cost(const struct ref *r)
{
    uint64_t pixels;
    switch (r->kind) {
    case PM_KIND_PAGE:
        pixels = (uint64_t)r->page->width * r->page->height / 65536;
        return pixels < 1 ? 1 : pixels > 100000 ? 100000 : (uint32_t)pixels;
    case PM_KIND_REGION:
        return r->page->regions[r->slot].cost;
    default:
        return 1;
    }
}

static uint32_t current_attempt(const struct ref *r)
{
    return r->generation << 8 | r->t->issue;
}

/* Bytes of crops that laying out this page will take, by what pages took so far. */
static uint64_t sheet_need(const struct pm_sched *s, const struct page *p)
{
    double need = (double)p->width * p->height * s->bytes_per_pixel;
    return need < NEED_MOST ? (uint64_t)need : (uint64_t)NEED_MOST;
}

/* As long as nothing is known: so much a unit of cost. */
static const double guess_us[PM_SCHED_KINDS] = {20000, 8000, 1000, 5000, 10000};

static double at_most(double us, double most)
{
    return us < most ? us : most;
}

static double predict_work_us(struct pm_sched *s, const struct ref *r, uint32_t cost)
{
    const struct speed *v = pm_queue_speed(s, r);
    double each = v->work_cost > 0 ? v->work_us / v->work_cost : guess_us[r->kind - 1];
    return at_most(each * cost, PREDICTED_MOST_US);
}

/* How long it may be without progress, and how long it may take at all. */
static void set_limits(struct pm_sched *s, const struct ref *r, struct lease *l)
{
    const struct speed *v = pm_queue_speed(s, r);
    double run_us = v->run_cost > 0 ? at_most(v->run_us / v->run_cost * l->cost, PREDICTED_MOST_US) : 0;
    uint32_t own_s = r->kind == PM_KIND_REGION ? r->job->submit.options.region_timeout_s : 0;
    l->stall_us = run_us * 4 > (double)s->config.stall_us ? (int64_t)(run_us * 4) : s->config.stall_us;
    l->deadline_us = 120 * l->stall_us;
    if (own_s &&
        (int64_t)own_s * 1000000 < l->deadline_us) /* the worker's to keep: this is for a wedged one */
        l->deadline_us = (int64_t)own_s * 1000000 + l->stall_us;
}

/* The earliest time at which this lease can be overdue. */
static int64_t due_us(const struct lease *l)
{
    int64_t stall = l->progress_us + l->stall_us, end = l->sent_us + l->deadline_us + l->stall_us;
    return (stall < end ? stall : end) + 1;
}

static struct lease *add_lease(struct pm_sched *s, struct pm_now now, struct peer *p, const struct ref *r)
{
    struct lease *l = pm_xalloc(sizeof *l);
    l->task = r->task;
    l->peer = p->id;
    l->cost = pm_task_cost(r);
    l->sent_us = l->progress_us = now.us;
    l->wait_us = -1;
    set_limits(s, r, l);
    s->due_us = due_us(l) < s->due_us ? due_us(l) : s->due_us;
    l->is_suspect = r->t->is_suspect;
    if (r->kind == PM_KIND_PAGE) {
        l->reserved_bytes = sheet_need(s, r->page);
        l->client = r->job->stub->client;
        l->queue = r->job->region_queue;
        pm_queue_laying(s, l->queue, l->client, 1);
    }
    s->reserved_bytes += l->reserved_bytes;
    p->suspects += l->is_suspect;
    if (!p->lease_count)
        p->begun_us = now.us;
    PM_GROW(p->leases, p->lease_count, p->lease_capacity);
    p->leases[p->lease_count++] = l;
    pm_map_put(&s->leases, l->task, l);
    s->stats.kinds[r->kind - 1].leased++;
    r->t->state = TASK_LEASED;
    return l;
}

void pm_lease_end(struct pm_sched *s, struct lease *l)
{
    struct peer *p = pm_peer_find(s, l->peer);
    if (p) {
        size_t i = 0;
        while (i < p->lease_count && p->leases[i] != l)
            i++;
        PM_ASSERT(i < p->lease_count);
        p->leases[i] = p->leases[--p->lease_count];
        p->backlog_us = p->lease_count ? p->backlog_us - l->known_us : 0;
        p->load_us = p->lease_count ? p->load_us - l->work_us : 0;
        p->begun_us = s->now_us;
        if (l->is_suspect)
            p->suspects--;
    }
    s->reserved_bytes -= l->reserved_bytes;
    if (pm_task_kind(l->task) == PM_KIND_PAGE)
        pm_queue_laying(s, l->queue, l->client, -1);
    s->stats.kinds[pm_task_kind(l->task) - 1].leased--;
    pm_map_remove(&s->leases, l->task);
    free(l);
}

void pm_lease_revoke(struct pm_sched *s, uint64_t task, const char *reason)
{
    struct lease *l = pm_map_get(&s->leases, task);
    if (!l)
        return;
    struct pm_action *a = pm_actions_add(&s->actions, PM_ACTION_REVOKE);
    a->peer = l->peer;
    a->task = l->task;
    a->attempt = l->attempt;
    a->reason = reason;
    struct peer *p = pm_peer_find(s, l->peer);
    if (p && !p->owes_us) {
        p->owes_us = s->now_us;
        p->patience_us = l->stall_us;
    }
    pm_lease_end(s, l);
}

bool pm_sched_is_current(const struct pm_sched *s, uint32_t peer, uint64_t task, uint32_t attempt)
{
    const struct lease *l = pm_map_get(&s->leases, task);
    return l && l->peer == peer && l->attempt == attempt;
}

bool pm_sched_lease_facts(const struct pm_sched *s, uint64_t task, struct pm_lease_facts *out)
{
    const struct lease *l = pm_map_get(&s->leases, task);
    struct ref r;
    if (!l || !pm_sched_ref(s, task, &r))
        return false;
    *out = (struct pm_lease_facts){.epoch = l->epoch,
                                   .deadline_us = (uint64_t)l->deadline_us,
                                   .attempt = l->attempt,
                                   .sent_us = l->sent_us,
                                   .wait_us = l->wait_us,
                                   .submit = &r.job->submit,
                                   .record = r.page && r.page->record ? r.page->record : "",
                                   .sheet = r.page && r.page->sheet ? r.page->sheet : ""};
    return true;
}

/* Back to ready without blame. */
static void give_back(struct pm_sched *s, struct lease *l)
{
    struct ref r;
    bool is_known = pm_sched_ref(s, l->task, &r);
    if (is_known)
        pm_queue_correct(s, &r, -l->work_us);
    pm_lease_end(s, l);
    if (is_known)
        pm_task_ready(s, &r);
}

void pm_sched_lease_unsent(struct pm_sched *s, struct pm_now now, uint64_t task)
{
    s->now_us = now.us;
    struct lease *l = pm_map_get(&s->leases, task);
    if (!l)
        return;
    struct peer *p = pm_peer_find(s, l->peer);
    if (p && p->leased)
        p->leased--;
    s->stats.unsent++;
    struct ref r;
    if (pm_sched_ref(s, task, &r) && l->attempt == current_attempt(&r))
        r.t->issue--; /* nobody has seen this number */
    give_back(s, l);
}

void pm_sched_lease_impossible(struct pm_sched *s, struct pm_now now, uint64_t task, int code,
                               const char *text)
{
    s->now_us = now.us;
    struct lease *l = pm_map_get(&s->leases, task);
    struct ref r;
    if (!l || !pm_sched_ref(s, task, &r))
        return;
    struct peer *p = pm_peer_find(s, l->peer);
    if (p && p->leased)
        p->leased--;
    bool may_pass =
        code == PM_ENOMEM || code == PM_EIO || code == PM_ENOSPC; /* of the broker, not of the task */
    const struct failure f = {may_pass ? FAIL_OTHER : FAIL_INPUT, code, text, l->attempt, p};
    pm_lease_end(s, l);
    pm_task_fail(s, now, &r, &f);
}

void pm_sched_peer_end(struct pm_sched *s, struct pm_now now, uint32_t peer, enum pm_peer_end how)
{
    s->now_us = now.us;
    struct peer *p = pm_peer_find(s, peer);
    if (!p)
        return;
    while (p->lease_count) {
        struct lease *l = p->leases[p->lease_count - 1];
        struct ref r;
        if (how == PM_PEER_LEFT || !pm_sched_ref(s, l->task, &r)) {
            give_back(s, l);
            continue;
        }
        bool is_crash = how == PM_PEER_CRASHED;
        const struct failure f = {is_crash ? FAIL_CRASH : FAIL_KILL, PM_ECRASH,
                                  is_crash ? "the process working on it crashed"
                                           : "the process working on it was killed",
                                  l->attempt, p};
        pm_lease_end(s, l);
        pm_task_fail(s, now, &r, &f);
    }
    for (size_t i = 0; i < s->peer_count; i++)
        if (s->peers[i] == p)
            s->peers[i] = s->peers[--s->peer_count];
    for (uint32_t i = 0; i < p->queue_count; i++)
        s->queues[p->queues[i]]->servers--;
    free(p->leases);
    free(p->queues);
    free(p->name);
    free(p->version);
    free(p);
}

/* ---- reconnects ---- */

static bool may_hold(const struct peer *p, const struct ref *r)
{
    if (pm_kind_role(r->kind) != p->role)
        return false;
    for (uint32_t i = 0; i < p->queue_count; i++)
        if (r->kind != PM_KIND_REGION || p->queues[i] == r->job->region_queue)
            return true;
    return false;
}

bool pm_sched_held(struct pm_sched *s, struct pm_now now, uint32_t peer, const struct pm_held *held)
{
    s->now_us = now.us;
    struct peer *p = pm_peer_find(s, peer);
    struct ref r;
    struct lease *l = pm_map_get(&s->leases, held->task);
    if (!p || !pm_sched_ref(s, held->task, &r))
        return false;
    if (l) {
        bool is_its = l->peer == peer && l->attempt == held->attempt && l->epoch == held->epoch;
        if (is_its)
            l->progress_us = now.us;
        return is_its;
    }
    /* Nobody has it. An earlier broker's lease is good while the page is still of the same generation; one of
     * ours only when it was the last. */
    if (r.t->state != TASK_READY && r.t->state != TASK_WAIT)
        return false;
    if (!may_hold(p, &r)) /* numbers can be guessed: a worker must not make itself the one that assembles */
        return false;
    if (held->epoch > s->config.epoch || held->attempt >> 8 != r.generation ||
        (held->epoch == s->config.epoch && held->attempt != current_attempt(&r)))
        return false;
    if (r.t->state == TASK_READY)
        pm_task_unready(s, &r);
    l = add_lease(s, now, p, &r);
    l->epoch = held->epoch;
    l->attempt = held->attempt;
    s->stats.adopted++;
    pm_job_run(s, now, r.job);
    return true;
}

void pm_sched_unheld(struct pm_sched *s, struct pm_now now, uint32_t peer, const struct pm_held *held,
                     uint32_t held_count)
{
    s->now_us = now.us;
    struct peer *p = pm_peer_find(s, peer);
    for (size_t i = p ? p->lease_count : 0; i-- > 0;) {
        struct lease *l = p->leases[i];
        bool is_held = false;
        for (uint32_t k = 0; k < held_count && !is_held; k++)
            is_held = held[k].task == l->task && held[k].attempt == l->attempt && held[k].epoch == l->epoch;
        if (!is_held)
            give_back(s, l);
    }
}

void pm_sched_beat(struct pm_sched *s, struct pm_now now, uint32_t peer, uint64_t task, uint32_t attempt)
{
    struct lease *l = pm_map_get(&s->leases, task);
    if (l && l->peer == peer && l->attempt == attempt)
        l->progress_us = now.us;
}

/* ---- time ---- */

/* Is there anything that a look at the clock could end? */
static bool is_watching(const struct pm_sched *s)
{
    bool any = s->leases.count > 0;
    for (size_t i = 0; i < s->peer_count && !any; i++)
        any = s->peers[i]->stalled_us || s->peers[i]->owes_us;
    return any;
}

static void end_overdue(struct pm_sched *s, struct pm_now now)
{
    /* Ending a lease moves the map under a cursor: collect first. */
    size_t cursor = 0, count = 0;
    uint64_t task, *late = NULL;
    size_t capacity = 0;
    void *value;
    s->due_us = INT64_MAX;
    while (pm_map_next(&s->leases, &cursor, &task, &value)) {
        const struct lease *l = value;
        int64_t due = due_us(l);
        if (due <= now.us) {
            PM_GROW(late, count, capacity);
            late[count++] = task;
        } else if (due < s->due_us) {
            s->due_us = due;
        }
    }
    for (size_t i = 0; i < count; i++) {
        struct lease *l = pm_map_get(&s->leases, late[i]);
        struct ref r;
        if (!l || !pm_sched_ref(s, late[i], &r))
            continue;
        bool is_stalled = now.us - l->progress_us > l->stall_us;
        struct peer *p = pm_peer_find(s, l->peer);
        if (is_stalled && p && !p->stalled_us)
            p->stalled_us = now.us;
        *(is_stalled ? &s->stats.stalled : &s->stats.deadlines) += 1;
        const struct failure f = {FAIL_TIMEOUT, PM_ETIMEOUT,
                                  is_stalled ? "the process working on it made no progress"
                                             : "it took longer than its deadline",
                                  l->attempt, p};
        pm_lease_revoke(s, late[i], is_stalled ? "fenced" : "deadline");
        pm_task_fail(s, now, &r, &f);
    }
    free(late);
}

static void kill_stalled(struct pm_sched *s, struct pm_now now)
{
    for (size_t i = 0; i < s->peer_count; i++) {
        struct peer *p = s->peers[i];
        bool is_silent = p->stalled_us && now.us - p->stalled_us > s->config.stall_us;
        bool is_stuck = p->owes_us && now.us - p->owes_us > p->patience_us;
        if (is_silent || is_stuck) {
            *(is_silent ? &p->stalled_us : &p->owes_us) = now.us; /* again when even that does not help */
            s->stats.kills++;
            pm_actions_add(&s->actions, PM_ACTION_KILL)->peer = p->id;
        }
    }
}

/* When we ourselves did not run for long (suspended, stopped), nobody else is to blame. */
static void forgive_gap(struct pm_sched *s, int64_t gap)
{
    size_t cursor = 0;
    uint64_t task;
    void *value;
    while (pm_map_next(&s->leases, &cursor, &task, &value)) {
        ((struct lease *)value)->progress_us += gap;
        ((struct lease *)value)->sent_us += gap;
    }
    for (size_t i = 0; i < s->peer_count; i++) {
        s->peers[i]->stalled_us += s->peers[i]->stalled_us ? gap : 0;
        s->peers[i]->owes_us += s->peers[i]->owes_us ? gap : 0;
    }
    s->due_us = INT64_MIN;
}

static uint32_t mark_of(const struct ref *r)
{
    return r->generation << 19 | (uint32_t)r->t->issue << 11 | (uint32_t)r->t->fails << 3 | r->t->kills;
}

void pm_task_wait(struct pm_sched *s, const struct ref *r, int64_t until_us)
{
    r->t->state = TASK_WAIT;
    pm_timer_add(&s->timers, until_us, r->task, mark_of(r));
}

static void wake_waiting(struct pm_sched *s, struct pm_now now)
{
    while (s->timers.count && s->timers.items[0].when <= now.us) {
        struct ref r;
        uint32_t mark = s->timers.items[0].mark;
        /* It may have been taken over from an earlier broker meanwhile, have failed again and wait anew. */
        if (!pm_sched_ref(s, pm_timer_pop(&s->timers), &r) || r.t->state != TASK_WAIT || mark != mark_of(&r))
            continue;
        if (r.t->needs_disk && s->is_disk_full) {
            pm_task_wait(s, &r, now.us + DISK_WAIT_US);
            continue;
        }
        r.t->needs_disk = false;
        pm_task_ready(s, &r);
    }
}

void pm_sched_tick(struct pm_sched *s, struct pm_now now)
{
    int64_t gap = s->ticked_us ? now.us - s->ticked_us : 0;
    s->now_us = now.us;
    s->wall_us = now.wall_us;
    s->ticked_us = now.us;
    wake_waiting(s, now);
    pm_jobs_tick(s, now);
    if (s->was_watching && gap > s->config.stall_us / 2)
        forgive_gap(s, gap);
    if (now.us >= s->due_us)
        end_overdue(s, now);
    kill_stalled(s, now);
    s->was_watching = is_watching(s);
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t pm_sched_next_us(const struct pm_sched *s, struct pm_now now)
{
    int64_t next = pm_jobs_next_us(s);
    if (s->timers.count)
        next = sooner(next, s->timers.items[0].when);
    if (s->leases.count)
        next = sooner(next, s->due_us);
    if (is_watching(s)) /* so that a pause of ours is told from theirs */
        next = sooner(next, now.us + s->config.stall_us / 4);
    if (s->adopt_until_us > now.us)
        next = sooner(next, s->adopt_until_us);
    return next;
}

size_t pm_sched_lease_count(const struct pm_sched *s)
{
    return s->leases.count;
}

/* ---- giving out work ---- */

/* Page tasks wait while their crops would not fit, or while their reader has plenty; one may always run.
 * Crops for readers that nobody has do not count: whoever waited for them would wait for ever. */
static bool page_may_run(const struct pm_sched *s, const struct ref *r)
{
    uint64_t pages = 0;
    for (size_t i = QUEUE_REGION; i < s->queue_count; i++)
        pages += s->queues[i]->servers ? s->queues[i]->pages : 0;
    if (!s->reserved_bytes && !pages)
        return true;
    if (s->sheet_bytes + s->reserved_bytes + sheet_need(s, r->page) > s->config.pixel_budget_bytes)
        return false;
    return !pm_queue_has_plenty(s, s->queues[r->job->region_queue], r->job);
}

/* What each reader's workers hold or could take; pages come back for those that have no plenty any more. */
static void measure_room(struct pm_sched *s)
{
    s->reader_count = 0;
    for (size_t i = QUEUE_REGION; i < s->queue_count; i++) {
        s->queues[i]->room = 0;
        s->reader_count += s->queues[i]->servers > 0;
    }
    for (size_t i = 0; i < s->peer_count; i++) {
        const struct peer *p = s->peers[i];
        uint64_t credit = p->granted > p->leased ? p->granted - p->leased : 0;
        for (uint32_t k = 0; p->role == PM_ROLE_WORKER && k < p->queue_count; k++)
            s->queues[p->queues[k]]->room += p->lease_count + credit;
    }
    for (size_t i = QUEUE_REGION; i < s->queue_count; i++)
        if (s->queues[i]->parked_count &&
            (s->reader_count < 2 || !pm_queue_has_plenty(s, s->queues[i], NULL)))
            pm_queue_unpark(s, (uint32_t)i);
}

static bool next_for(struct pm_sched *s, const struct peer *p, struct ref *out)
{
    for (uint32_t i = 0; i < p->queue_count; i++) {
        uint32_t queue = p->queues[(i + p->leased) % p->queue_count];
        unsigned doors = 3;
        if (!pm_queue_has(s, queue) || (queue == QUEUE_LAYOUT && s->is_draining))
            continue;
        bool found = pm_queue_next(s, queue, doors, out);
        if (found && out->kind == PM_KIND_PAGE && !page_may_run(s, out))
            found = pm_queue_next(s, queue, 1, out);
        if (found)
            return true;
    }
    return false;
}

static bool grant(struct pm_sched *s, struct pm_now now, struct peer *p, struct ref *r)
{
    pm_task_unready(s, r);
    if (r->t->issue == 255) {
        const struct failure f = {
            .why = FAIL_INPUT, .code = PM_ELIMIT, .text = "it was leased 255 times without an end"};
        pm_task_fail(s, now, r, &f);
        return false;
    }
    r->t->issue++;
    struct lease *l = add_lease(s, now, p, r);
    l->epoch = s->config.epoch;
    l->attempt = current_attempt(r);
    s->was_watching = true; /* should we sleep from here on, it is not the peer's fault */
    if (r->t->issue == 1)
        l->wait_us = now.us - (r->page ? r->page->ready_us : r->job->ready_us);
    p->leased++;
    l->base_us = predict_work_us(s, r, l->cost);
    l->work_us = l->base_us * pm_queue_factor(s, r);
    l->known_us = pm_queue_speed(s, r)->work_cost > 0 ? l->work_us : 0;
    p->backlog_us += l->known_us;
    p->load_us += l->work_us;
    pm_queue_charge(s, r, l->work_us);
    pm_job_run(s, now, r->job);
    struct pm_action *a = pm_actions_add(&s->actions, PM_ACTION_LEASE);
    a->peer = p->id;
    a->task = r->task;
    a->job = r->job->id;
    a->attempt = l->attempt;
    return true;
}

/* Layoutd and the collector do one task after the other: what waits there cannot be given to whoever is free
 * sooner, nor be overtaken by something urgent. Little of it is enough to keep them busy. */
static bool has_enough(const struct pm_sched *s, const struct peer *p)
{
    return p->role != PM_ROLE_WORKER && p->lease_count &&
           p->backlog_us - (double)(s->now_us - p->begun_us) > AHEAD_US;
}

struct candidate {
    struct peer *peer;
    double load_us;
    size_t turn;
};

static bool is_freer(const struct candidate *a, const struct candidate *b)
{
    return a->load_us < b->load_us || (a->load_us == b->load_us && a->turn < b->turn);
}

/* The candidates are a heap, the one with the least to do at its top; this one may have to go down. */
static void sift(struct candidate *all, size_t count, size_t i)
{
    struct candidate moved = all[i];
    for (size_t child; (child = 2 * i + 1) < count; i = child) {
        if (child + 1 < count && is_freer(&all[child + 1], &all[child]))
            child++;
        if (!is_freer(&all[child], &moved))
            break;
        all[i] = all[child];
    }
    all[i] = moved;
}

static bool has_work_for(const struct pm_sched *s, const struct peer *p)
{
    for (uint32_t i = 0; i < p->queue_count; i++)
        if (pm_queue_has(s, p->queues[i]))
            return true;
    return false;
}

static size_t find_candidates(struct pm_sched *s)
{
    size_t count = 0;
    while (s->candidate_capacity < s->peer_count)
        PM_GROW(s->candidates, s->peer_count, s->candidate_capacity);
    for (size_t k = 0; k < s->peer_count; k++) {
        struct peer *p = s->peers[(k + s->turn) % s->peer_count];
        if (p->leased < p->granted && !p->suspects && !p->stalled_us && !p->is_mute && has_work_for(s, p))
            s->candidates[count++] = (struct candidate){p, p->load_us, k};
    }
    for (size_t i = count / 2; i-- > 0;)
        sift(s->candidates, count, i);
    return count;
}

void pm_sched_assign(struct pm_sched *s, struct pm_now now)
{
    uint64_t ready = 0;
    s->now_us = now.us;
    s->wall_us = now.wall_us;
    for (size_t i = 0; i < s->queue_count; i++)
        ready += s->queues[i]->ready[0] + s->queues[i]->ready[1];
    if (now.us < s->adopt_until_us || !ready)
        return;
    measure_room(s);
    size_t count = find_candidates(s);
    s->turn += count > 0;
    /* Each task goes to whoever has the least to do: the regions of a page spread over all readers, and the
     * end of a job comes about at once for all. Who gets nothing now gets nothing in this turn. */
    while (count) {
        struct candidate *first = &s->candidates[0];
        struct peer *p = first->peer;
        struct ref r;
        bool is_given = false;
        if (!has_enough(s, p) && next_for(s, p, &r) && !(r.t->is_suspect && p->lease_count))
            is_given = grant(s, now, p, &r); /* a suspect runs alone: its peer empties first */
        if (is_given && p->leased < p->granted && !p->suspects)
            *first = (struct candidate){p, p->load_us, first->turn + s->peer_count};
        else
            *first = s->candidates[--count];
        sift(s->candidates, count, 0);
    }
}

/* ---- figures ---- */

void pm_sched_stats(struct pm_sched *s, struct pm_now now, struct pm_sched_stats *out)
{
    *out = s->stats;
    out->pixel_bytes = s->sheet_bytes + s->reserved_bytes;
    static const struct {
        uint32_t queue;
        unsigned door;
    } at[PM_SCHED_KINDS] = {
        {QUEUE_LAYOUT, 0}, {QUEUE_LAYOUT, 1}, {QUEUE_REGION, 0}, {QUEUE_COLLECT, 0}, {QUEUE_COLLECT, 1}};
    for (unsigned k = 0; k < PM_SCHED_KINDS; k++) {
        size_t end = at[k].queue == QUEUE_REGION ? s->queue_count : at[k].queue + 1;
        int64_t oldest = INT64_MAX;
        for (size_t i = at[k].queue; i < end; i++) {
            int64_t since = pm_queue_oldest_us(s, (uint32_t)i, at[k].door);
            out->kinds[k].queued += s->queues[i]->ready[at[k].door];
            oldest = since < oldest ? since : oldest;
        }
        out->kinds[k].oldest_us = oldest < now.us ? (uint64_t)(now.us - oldest) : 0;
    }
}
