/* The broker's side of the model, its checks, and the run. */
#include "model_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/sched_internal.h"

static uint32_t current_step;
uint32_t model_step(void)
{
    return current_step;
}

/* ---- chance ---- */

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static uint64_t rnd(struct world *w)
{
    return mix(w->random += 0x9e3779b97f4a7c15u);
}
uint32_t model_below(struct world *w, uint32_t n)
{
    return n ? (uint32_t)(rnd(w) % n) : 0;
}
bool model_one_in(struct world *w, uint32_t n)
{
    return model_below(w, n) == 0;
}

void model_tell(const struct world *w, const char *format, ...)
{
    if (!w->run->is_told)
        return;
    va_list list;
    va_start(list, format);
    printf("%6u %10.3f ", current_step, (double)w->now.us / 1e6);
    vprintf(format, list);
    printf("\n");
    va_end(list);
}

/* Fates are a function of the place and its generation: a poison stays one until a retry. */
enum fate model_fate_of(uint64_t task, uint32_t attempt)
{
    uint64_t h = mix(task * 31 + (attempt >> 8));
    if (pm_task_kind(task) == PM_KIND_REGION && mix(task >> 15) % 37 == 4)
        return LOSING;
    return h % 61 == 7   ? BAD_INPUT
           : h % 53 == 5 ? POISON
           : h % 47 == 3 ? HEAVY
           : h % 67 == 9 ? STUBBORN
                         : GOOD;
}
uint32_t model_page_count_of(uint64_t job)
{
    return 1 + (uint32_t)(mix(job) % REF_PAGES);
}
uint32_t model_region_count_of(uint64_t task)
{
    return (uint32_t)(mix(task) % (REF_REGIONS + 1));
}

/* ---- the journal ---- */

void model_write_ops(struct world *w, const struct pm_actions *a)
{
    struct pm_error err;
    for (size_t i = 0; i < a->op_count; i++) {
        ref_check_op(&w->ref, &a->ops[i]);
        book_apply(&w->book, &a->ops[i]);
    }
    ref_turn_over(&w->ref);
    if (w->journal && pm_journal_apply(w->journal, a->ops, a->op_count, &err))
        ref_broken("journal: %s", err.text);
}

static int restore_one(void *ctx, const struct pm_job_image *image, struct pm_error *err)
{
    struct world *w = ctx;
    return pm_sched_restore(w->sched, w->now, image, err);
}

/* A job that sleeps is read back. */
int model_load_one(void *ctx, uint64_t job, struct pm_job_image *out, struct pm_error *err)
{
    struct world *w = ctx;
    if (w->journal)
        return pm_journal_job(w->journal, job, &w->arena, out, err);
    return book_job(&w->book, job, out) ? 0 : pm_fail(err, PM_ENOTFOUND, "there is no job");
}

void model_start_broker(struct world *w)
{
    struct pm_error err;
    uint64_t epoch = ++w->book.epoch, next = w->book.next_job;
    if (w->journal &&
        (pm_journal_begin_epoch(w->journal, &epoch, &err) || pm_journal_next_job(w->journal, &next, &err)))
        ref_broken("journal: %s", err.text);
    if (epoch != w->book.epoch || next != w->book.next_job)
        ref_broken("the journal says epoch %llu and job %llu, the book %llu and %llu",
                   (unsigned long long)epoch, (unsigned long long)next, (unsigned long long)w->book.epoch,
                   (unsigned long long)w->book.next_job);
    struct pm_sched_config config = {.epoch = epoch,
                                     .seed = rnd(w),
                                     .first_job = next,
                                     .adopt_us = ADOPT_US,
                                     .max_jobs = MAX_JOBS,
                                     .load = w->run->seed % 4 ? model_load_one : NULL,
                                     .load_ctx = w,
                                     .awake_jobs = 1 + (uint32_t)(w->run->seed % 3) * 4};
    w->sched = pm_sched_new(&config);
    if (!w->journal)
        book_restore(&w->book, w->sched, w->now);
    else if (pm_journal_load(w->journal, restore_one, w, &err))
        ref_broken("journal: %s", err.text);
}

/* ---- checks ---- */

static void check_jobs(struct world *w)
{
    uint32_t there = 0, shown = 0;
    uint64_t cursor = 0;
    struct pm_job_info info;
    for (int i = 0; i < REF_JOBS; i++)
        there += w->ref.jobs[i].id != 0;
    const struct pm_sched_filter any = {0};
    while (pm_sched_list(w->sched, &cursor, &any, &info)) {
        ref_check_job(&w->ref, &info);
        shown++;
    }
    if (there != shown)
        ref_broken("%u jobs were accepted, %u are told", there, shown);
}

struct tally {
    uint64_t ready, waiting, leased;
};

static void check_task(struct world *w, struct tally *t, uint64_t task, const struct ref_task *ref)
{
    struct ref r;
    if (!pm_sched_ref(w->sched, task, &r)) { /* asleep: only its open task, ready */
        bool is_open_task = pm_task_kind(task) == PM_KIND_OPEN;
        if (pm_sched_state(w->sched, pm_task_job(task)) != PM_JOB_QUEUED ||
            ref->state != (is_open_task ? REF_OPEN : REF_NONE))
            ref_broken("task %llx is not there", (unsigned long long)task);
        t->ready += is_open_task;
        return;
    }
    unsigned state = r.t->state;
    bool is_open = state == TASK_READY || state == TASK_WAIT;
    if (is_open != (ref->state == REF_OPEN) || (state == TASK_LEASED) != (ref->state == REF_LEASED))
        ref_broken("task %llx is in state %u, in the reference in %u", (unsigned long long)task, state,
                   ref->state);
    t->ready += state == TASK_READY;
    t->waiting += state == TASK_WAIT;
    t->leased += state == TASK_LEASED;
}

/* No task is lost: each unfinished one is ready, waits for its time, or is leased, and all are counted. */
static void check_tasks(struct world *w)
{
    struct tally t = {0};
    for (int i = 0; i < REF_JOBS; i++) {
        const struct ref_job *j = &w->ref.jobs[i];
        if (!j->id || j->state > PM_JOB_RUNNING)
            continue;
        check_task(w, &t, pm_task_id(j->id, 0, PM_TASK_SLOT_PAGE), &j->open);
        check_task(w, &t, pm_task_id(j->id, 0, PM_TASK_SLOT_ASSEMBLE), &j->doc);
        for (uint32_t k = 0; k < j->page_count; k++) {
            const struct ref_page *p = &j->pages[k];
            check_task(w, &t, pm_task_id(j->id, p->number, PM_TASK_SLOT_PAGE), &p->layout);
            check_task(w, &t, pm_task_id(j->id, p->number, PM_TASK_SLOT_ASSEMBLE), &p->assemble);
            for (uint32_t n = 0; n < p->region_count; n++)
                check_task(w, &t, pm_task_id(j->id, p->number, n), &p->regions[n]);
        }
    }
    struct pm_sched_stats s;
    uint64_t queued = 0, leased = 0;
    pm_sched_stats(w->sched, w->now, &s);
    for (unsigned k = 0; k < PM_SCHED_KINDS; k++) {
        queued += s.kinds[k].queued;
        leased += s.kinds[k].leased;
    }
    for (int i = 0; i < PEERS; i++) {
        const struct ref_peer *p = w->peers[i].is_there ? ref_peer(&w->ref, w->peers[i].id) : NULL;
        uint64_t room = p && p->granted > p->given ? p->granted - p->given : 0;
        if (p && pm_sched_peer_room(w->sched, p->id) != room)
            ref_broken("%s has room for %u, and should have for %llu", p->name,
                       pm_sched_peer_room(w->sched, p->id), (unsigned long long)room);
    }
    if (queued != t.ready || leased != t.leased || pm_sched_lease_count(w->sched) != t.leased)
        ref_broken("%llu tasks are ready and %llu leased, counted as %llu and %llu (%zu)",
                   (unsigned long long)t.ready, (unsigned long long)t.leased, (unsigned long long)queued,
                   (unsigned long long)leased, pm_sched_lease_count(w->sched));
    if (t.waiting && pm_sched_next_us(w->sched, w->now) == INT64_MAX)
        ref_broken("%llu tasks wait and no clock will wake them", (unsigned long long)t.waiting);
}

/* ---- the broker's side of a turn ---- */

static struct fake *peer_by_id(struct world *w, uint32_t id)
{
    for (int i = 0; i < PEERS; i++)
        if (w->peers[i].is_there && w->peers[i].id == id)
            return &w->peers[i];
    return NULL;
}

static void remember_old(struct world *w, struct pm_held h)
{
    w->old[w->old_count < OLD ? w->old_count++ : model_below(w, OLD)] = h;
}

void model_give_credit(struct world *w, struct fake *p)
{
    p->granted++;
    pm_sched_credit(w->sched, p->id, p->granted);
    struct ref_peer *r = ref_peer(&w->ref, p->id);
    if (r)
        r->granted = p->granted;
}

void model_drop_held(struct world *w, struct fake *p, uint32_t i)
{
    remember_old(w, p->held[i]);
    p->held[i] = p->held[--p->held_count];
    p->is_stuck[i] = p->is_stuck[p->held_count];
}

void model_leave(struct world *w, struct fake *p, enum pm_peer_end how)
{
    model_tell(w, "peer %d ends: %s", (int)(p - w->peers),
               how == PM_PEER_LEFT     ? "left"
               : how == PM_PEER_KILLED ? "killed"
                                       : "crashed");
    while (p->held_count)
        model_drop_held(w, p, p->held_count - 1);
    if (how == PM_PEER_KILLED && !w->news_count && model_one_in(w, 2))
        w->news_count = pm_sched_peer_tasks(w->sched, p->id, w->news, MAX_HELD);
    pm_sched_peer_end(w->sched, w->now, p->id, how);
    ref_end(&w->ref, p->id, how);
    p->is_there = p->is_silent = false;
}

/* What leaves after the commit. What is decided here belongs to the next turn. */
static void deliver(struct world *w, const struct pm_action *a, bool is_calm)
{
    struct fake *p = peer_by_id(w, a->peer);
    if (a->kind == PM_ACTION_REVOKE) {
        for (uint32_t i = 0; p && i < p->held_count; i++)
            if (p->held[i].task == a->task && p->held[i].attempt == a->attempt) {
                model_drop_held(w, p, i);
                model_give_credit(w, p);
                break;
            }
        return;
    }
    struct pm_lease_facts facts;
    if (a->kind != PM_ACTION_LEASE || !pm_sched_lease_facts(w->sched, a->task, &facts) ||
        facts.attempt != a->attempt)
        return;
    uint32_t dice = is_calm ? 300 : model_below(w, 300);
    if (!p || dice < 4) {
        model_tell(w, "lease of %llx cannot be sent", (unsigned long long)a->task);
        pm_sched_lease_unsent(w->sched, w->now, a->task);
        ref_unsent(&w->ref, a->task);
    } else if (dice < 5) {
        model_tell(w, "lease of %llx cannot be served", (unsigned long long)a->task);
        pm_sched_lease_impossible(w->sched, w->now, a->task, PM_ELIMIT, "it is too large");
        ref_impossible(&w->ref, a->task);
        w->is_pending = true;
    } else if (dice < 8 || p->held_count == MAX_HELD) {
        model_tell(w, "lease of %llx is lost on its way", (unsigned long long)a->task);
        p->has_lost = true;
    } else {
        for (int i = 0; i < PEERS; i++)
            for (uint32_t k = 0; k < w->peers[i].held_count; k++) {
                const struct pm_held *h = &w->peers[i].held[k];
                if (h->task == a->task && h->attempt == a->attempt && h->epoch == facts.epoch)
                    ref_broken("two peers have attempt %u of task %llx", a->attempt,
                               (unsigned long long)a->task);
            }
        p->is_stuck[p->held_count] = !is_calm && model_one_in(w, 400);
        p->held[p->held_count++] = (struct pm_held){a->task, facts.epoch, facts.attempt};
        model_tell(w, "peer %d gets %llx attempt %u", (int)(p - w->peers), (unsigned long long)a->task,
                   a->attempt);
    }
}

void model_decide(struct world *w)
{
    pm_sched_tick(w->sched, w->now);
    pm_sched_assign(w->sched, w->now);
    struct pm_actions *a = pm_sched_actions(w->sched);
    for (size_t i = 0; i < a->item_count; i++) {
        const struct pm_action *item = &a->items[i];
        if (item->kind == PM_ACTION_REVOKE) {
            model_tell(w, "peer %u: %llx attempt %u is taken back: %s", item->peer,
                       (unsigned long long)item->task, item->attempt, item->reason);
            ref_revoke(&w->ref, item->peer, item->task, item->attempt, item->reason);
        } else if (item->kind == PM_ACTION_LEASE) {
            ref_lease(&w->ref, item->peer, item->task, w->ref.epoch, item->attempt);
        } else if (item->kind == PM_ACTION_KILL) {
            const struct ref_peer *p = ref_peer(&w->ref, item->peer);
            const struct fake *f = peer_by_id(w, item->peer);
            if (!p || !f || (!p->is_stalled && !f->has_lost))
                ref_broken("peer %u is to be killed, was not stalled and owes nothing", item->peer);
        }
    }
}

static void end_turn_of(struct world *w, bool is_calm)
{
    model_decide(w);
    struct pm_actions now = *pm_sched_actions(w->sched);
    model_write_ops(w, &now);
    *pm_sched_actions(w->sched) = (struct pm_actions){0};
    pm_sched_written(w->sched);
    w->is_pending = false;
    for (size_t i = 0; i < now.item_count; i++) {
        struct fake *p = peer_by_id(w, now.items[i].peer);
        if (now.items[i].kind == PM_ACTION_KILL && p && !model_one_in(w, 4)) {
            model_leave(w, p, PM_PEER_KILLED);
            w->is_pending = true;
        } else if (now.items[i].kind != PM_ACTION_KILL) {
            deliver(w, &now.items[i], is_calm);
        }
    }
    pm_actions_free(&now);
    pm_arena_clear(&w->arena);
    ref_check_times(&w->ref, SLACK_US);
}

void model_end_turn(struct world *w)
{
    end_turn_of(w, false);
}

/* ---- the run ---- */

static void hear_news(struct world *w)
{
    model_tell(w, "news: a process with %u tasks had crashed", w->news_count);
    pm_sched_crashed(w->sched, w->now, w->news, w->news_count);
    ref_crash_news(&w->ref, w->news, w->news_count);
    w->news_count = 0;
}

static void act_of_peer(struct world *w, struct fake *p, uint32_t dice)
{
    struct ref_peer *r = ref_peer(&w->ref, p->id);
    if (p->is_silent && dice >= 10)
        return;
    if (dice < 10) {
        p->is_silent = !p->is_silent;
    } else if (dice < 30) {
        model_leave(w, p, (enum pm_peer_end)model_below(w, 3));
    } else if (dice < 45) {
        for (uint32_t i = p->held_count; i-- > 0;)
            if (model_one_in(w, 8))
                model_drop_held(w, p, i); /* it has forgotten */
        model_greet(w, p, true);
    } else if (dice < 55) {
        pm_sched_mute(w->sched, p->id);
        if (r)
            r->is_mute = true;
    } else if (dice < 95) {
        model_answer_wrongly(w, p);
    } else if (dice < 110) {
        model_present_old(w, p);
    } else if (p->held_count) {
        model_answer(w, p, dice < 140);
    }
}

static void beat(struct world *w)
{
    for (int i = 0; i < PEERS; i++) {
        struct fake *p = &w->peers[i];
        if (!p->is_there || p->is_silent || !p->held_count)
            continue;
        model_is_heard(w, p);
        for (uint32_t k = 0; k < p->held_count; k++) {
            pm_sched_beat(w->sched, w->now, p->id, p->held[k].task, p->held[k].attempt);
            ref_beat(&w->ref, p->id, p->held[k].task, p->held[k].attempt);
        }
    }
}

static void move_clock(struct world *w, bool is_calm)
{
    int64_t us = is_calm ? 20000 : model_below(w, 30000);
    int64_t sleep = !is_calm && model_one_in(w, 3000) ? 3000000 + model_below(w, 20000000) : 0;
    w->now.us += us + sleep;
    w->now.wall_us = w->ref.now_us = w->now.us;
    if (sleep) {
        model_tell(w, "the broker slept for %lld us", (long long)sleep);
        ref_slept(&w->ref, sleep);
    }
}

static void step(struct world *w, bool is_calm)
{
    move_clock(w, is_calm);
    struct fake *p = &w->peers[model_below(w, PEERS)];
    uint32_t dice = is_calm ? 500 : model_below(w, 1000);
    if (w->news_count && model_one_in(w, 8)) {
        hear_news(w);
    } else if (!p->is_there) {
        model_greet(w, p, false);
    } else if (is_calm) {
        if (p->held_count)
            model_answer(w, p, false);
    } else if (dice < 70 && model_job_count(w) < REF_JOBS) {
        model_submit(w);
    } else if (dice < 180) {
        model_meddle(w);
    } else if (dice < 185) {
        model_restart(w, (enum crash)model_below(w, 3));
    } else if (dice < 190) {
        w->ref.is_draining = !w->ref.is_draining && model_one_in(w, 2);
        pm_sched_drain(w->sched, w->ref.is_draining);
    } else if (dice < 195) {
        ref_disk_full(&w->ref, !w->ref.is_disk_full && model_one_in(w, 2));
        pm_sched_disk_full(w->sched, w->ref.is_disk_full);
    } else {
        act_of_peer(w, p, model_below(w, 1000));
    }
    if (model_one_in(w, 4) || is_calm)
        beat(w);
    end_turn_of(w, is_calm);
    if (current_step % 8 == 0)
        check_jobs(w);
    if (current_step % 32 == 0)
        check_tasks(w);
}

/* Faults stop: everything comes to its end. */
static void settle(struct world *w)
{
    w->ref.is_draining = w->ref.is_disk_full = false;
    pm_sched_drain(w->sched, false);
    pm_sched_disk_full(w->sched, false);
    for (int i = 0; i < PEERS; i++) {
        w->peers[i].is_silent = false;
        memset(w->peers[i].is_stuck, 0, sizeof w->peers[i].is_stuck);
        if (w->peers[i].is_there) /* leases that were lost on their way took its credit along */
            model_greet(w, &w->peers[i], true);
    }
    for (int i = 0; ref_live_jobs(&w->ref); i++) {
        if (i == 60000)
            ref_broken("%u jobs do not come to an end", ref_live_jobs(&w->ref));
        step(w, true);
    }
    check_jobs(w);
    check_tasks(w);
}

static void forget_all(struct world *w)
{
    for (int i = 0; i < REF_JOBS; i++) {
        uint64_t job = w->ref.jobs[i].id;
        if (!job)
            continue;
        model_expect_code("forget", job, pm_sched_forget(w->sched, job, NULL), ref_forget(&w->ref, job));
        model_end_turn(w);
    }
    struct pm_sched_stats s;
    pm_sched_stats(w->sched, w->now, &s);
    for (unsigned k = 0; k < PM_SCHED_KINDS; k++)
        if (s.kinds[k].queued || s.kinds[k].leased || s.pixel_bytes)
            ref_broken("something is left when every job is forgotten");
}

static void count_ref(void *ctx, const char *key, int change)
{
    (void)key;
    *(int *)ctx += change;
}

void model_play(const struct model_run *run, struct model_figures *out)
{
    struct world *w = pm_xalloc(sizeof *w);
    struct pm_error err;
    int refs = 0;
    w->run = run;
    w->random = mix(run->seed);
    w->now = (struct pm_now){1000000, 1000000};
    w->book.next_job = 1;
    w->ref.now_us = w->now.us;
    w->ref.max_jobs = MAX_JOBS;
    w->ref.epoch = 0;
    if (run->with_sqlite && pm_journal_open(":memory:", NULL, &w->journal, &err))
        ref_broken("%s", err.text);
    model_start_broker(w);
    ref_restart(&w->ref, w->book.epoch, 0);
    for (current_step = 0; current_step < run->steps; current_step++) {
        if (run->skipped && run->skipped[current_step])
            continue;
        w->random = mix(run->seed ^ mix(current_step + 1));
        step(w, false);
    }
    settle(w);
    model_restart(w, BETWEEN_TURNS); /* and everything is still there */
    model_end_turn(w);
    check_jobs(w);
    forget_all(w);
    if (w->journal && (pm_journal_refs(w->journal, count_ref, &refs, &err) || refs))
        ref_broken("%d references to blobs are left", refs);
    const struct reference *r = &w->ref;
    struct model_figures f = w->figures;
    f.steps = run->steps;
    f.leases = r->leases;
    f.results = r->results;
    f.committed = r->committed;
    f.fenced = r->fenced;
    f.adopted = r->adopted;
    f.timeouts = r->timeouts;
    f.reruns = r->reruns;
    f.quarantined = r->quarantined;
    f.given_up = r->given_up;
    memcpy(f.failures, r->failures, sizeof f.failures);
    *out = f;
    pm_sched_free(&w->sched);
    pm_journal_free(&w->journal);
    pm_arena_free(&w->arena);
    free(w);
}
