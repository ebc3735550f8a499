/* Peers, leases and what is checked of the broker; reference.c has what follows from each. */
#include <stdio.h>
#include <string.h>

#include "reference_internal.h"

/* ---- peers ---- */

struct ref_peer *ref_join(struct reference *r, uint32_t id, enum pm_role role, const char *name,
                          uint64_t granted, uint64_t given)
{
    struct ref_peer *p = ref_peer(r, id);
    for (int i = 0; i < REF_PEERS && !p; i++)
        if (!r->peers[i].id)
            p = &r->peers[i];
    if (!p)
        ref_broken("the reference has no room for one more peer");
    *p = (struct ref_peer){.id = id, .role = role, .granted = granted, .given = given};
    snprintf(p->name, sizeof p->name, "%s", name);
    return p;
}

struct ending {
    uint32_t peer;
    enum pm_peer_end how;
};

static void end_lease(struct reference *r, struct ref_task *t, uint64_t task, void *ctx)
{
    const struct ending *e = ctx;
    struct ref_place at;
    if (t->state != REF_LEASED || t->peer != e->peer || !ref_find(r, task, &at))
        return;
    if (e->how == PM_PEER_LEFT)
        ref_make_open(t);
    else
        ref_fail(r, &at, e->how == PM_PEER_CRASHED ? REF_CRASH : REF_KILL, t->attempt, e->peer);
}

void ref_end(struct reference *r, uint32_t peer, enum pm_peer_end how)
{
    struct ending e = {peer, how};
    ref_each_live(r, end_lease, &e);
    struct ref_peer *p = ref_peer(r, peer);
    if (p)
        p->id = 0;
}

static void take(struct reference *r, const struct ref_place *at, uint32_t peer, uint64_t epoch,
                 uint32_t attempt)
{
    struct ref_task *t = at->t;
    t->state = REF_LEASED;
    t->peer = peer;
    t->epoch = epoch;
    t->attempt = attempt;
    t->sent_us = t->progress_us = r->now_us;
    t->is_alone = t->is_suspect;
    t->needs_disk_us = 0;
    if (at->job->state == PM_JOB_QUEUED) {
        at->job->state = PM_JOB_RUNNING;
        ref_expect(r, PM_OP_JOB_RUN, at->job->id);
    }
}

bool ref_held(struct reference *r, uint32_t peer, const struct pm_held *held)
{
    struct ref_place at;
    if (!ref_find(r, held->task, &at) || !ref_peer(r, peer))
        return false;
    struct ref_task *t = at.t;
    if (t->state == REF_LEASED) {
        bool is_its = ref_is_current(r, peer, held->task, held->epoch, held->attempt);
        if (is_its)
            t->progress_us = r->now_us;
        return is_its;
    }
    if (t->state != REF_OPEN || held->epoch > r->epoch || held->attempt >> 8 != at.generation)
        return false;
    if (held->epoch == r->epoch && held->attempt != t->last)
        return false;
    if (pm_kind_role(at.kind) != ref_peer(r, peer)->role)
        return false;
    take(r, &at, peer, held->epoch, held->attempt);
    r->adopted++;
    return true;
}

struct named {
    uint32_t peer, count;
    const struct pm_held *held;
};

static void unheld_one(struct reference *r, struct ref_task *t, uint64_t task, void *ctx)
{
    const struct named *n = ctx;
    (void)r;
    if (t->state != REF_LEASED || t->peer != n->peer)
        return;
    for (uint32_t i = 0; i < n->count; i++)
        if (n->held[i].task == task && n->held[i].attempt == t->attempt && n->held[i].epoch == t->epoch)
            return;
    ref_make_open(t);
}

void ref_unheld(struct reference *r, uint32_t peer, const struct pm_held *held, uint32_t count)
{
    struct named n = {peer, count, held};
    ref_each_live(r, unheld_one, &n);
}

void ref_beat(struct reference *r, uint32_t peer, uint64_t task, uint32_t attempt)
{
    struct ref_task *t = ref_task(r, task);
    if (t && t->state == REF_LEASED && t->peer == peer && t->attempt == attempt)
        t->progress_us = r->now_us;
}

/* What a success says; false when it cannot be. */
static bool succeed(struct reference *r, const struct ref_place *at, const struct pm_msg_result *m)
{
    struct ref_page *p = at->page;
    switch (at->kind) {
    case PM_KIND_OPEN:
        if (!m->page_count)
            return false;
        at->job->is_open = true;
        at->job->page_count = m->page_count;
        memset(at->job->pages, 0, sizeof at->job->pages);
        for (uint32_t i = 0; i < m->page_count; i++)
            at->job->pages[i] = (struct ref_page){
                .number = m->pages[i].page, .stage = PM_STAGE_LAYOUT, .layout = {.state = REF_OPEN}};
        ref_expect(r, PM_OP_JOB_OPEN, at->job->id);
        break;
    case PM_KIND_PAGE: {
        if (!*m->record)
            return false;
        p->stage = PM_STAGE_REGIONS;
        p->region_count = m->cost_count;
        for (uint32_t k = 0; k < m->cost_count; k++) {
            p->is_text[k] = m->costs[k] != 0;
            p->wanted += p->is_text[k];
            p->regions[k] = (struct ref_task){.state = p->is_text[k] ? REF_OPEN : REF_NONE};
        }
        struct ref_line *l = ref_expect(r, PM_OP_PAGE_LAID, at->job->id);
        l->page = p->number;
        l->value = m->cost_count;
        at->t->state = REF_DONE;
        ref_page_check(p);
        break;
    }
    case PM_KIND_REGION:
        if (!m->text.size)
            return false;
        ref_expect(r, PM_OP_REGION_DONE, at->task);
        at->t->state = REF_DONE;
        ref_page_check(p);
        break;
    case PM_KIND_ASSEMBLE_PAGE: {
        if (!*m->blob)
            return false;
        p->stage = PM_STAGE_DONE;
        for (uint32_t k = 0; k < p->region_count; k++)
            p->wanted_failed += p->is_text[k] && p->regions[k].state == REF_FAILED;
        p->region_count = 0;
        struct ref_line *l = ref_expect(r, PM_OP_PAGE_DONE, at->job->id);
        l->page = p->number;
        l->value = p->wanted_failed;
        at->t->state = REF_DONE;
        ref_job_check(r, at->job);
        break;
    }
    case PM_KIND_ASSEMBLE_DOC:
        if (!m->manifest.size)
            return false;
        at->t->state = REF_DONE;
        ref_finish(r, at->job, PM_JOB_DONE);
        break;
    }
    at->t->state = REF_DONE;
    return true;
}

int ref_result(struct reference *r, uint32_t peer, const struct pm_msg_result *m)
{
    struct ref_place at;
    if (!ref_is_current(r, peer, m->task, m->epoch, m->attempt) || !ref_find(r, m->task, &at)) {
        r->fenced++;
        return PM_EGONE;
    }
    r->results++;
    if (*m->error_code) {
        ref_fail(r, &at, ref_cause_of(m), m->attempt, peer);
        return 0;
    }
    bool is_too_much = at.kind == PM_KIND_PAGE && m->cost_count > PM_TASK_MAX_REGIONS;
    if (is_too_much || !succeed(r, &at, m)) {
        ref_fail(r, &at, is_too_much ? REF_INPUT : REF_OTHER, m->attempt, peer);
        return PM_EPROTO;
    }
    r->committed++;
    return 0;
}

void ref_crash_news(struct reference *r, const uint64_t *tasks, uint32_t task_count)
{
    for (uint32_t i = 0; i < task_count; i++) {
        struct ref_place at;
        if (!ref_find(r, tasks[i], &at) || (!at.t->fails && !at.t->kills) ||
            (at.t->state != REF_OPEN && at.t->state != REF_LEASED))
            continue;
        ref_expect(r, PM_OP_BLAME, at.task);
        at.t->crashes++;
        at.t->is_suspect = true;
        if (at.t->crashes < REF_MAX_CRASHES) {
            ref_put_tries(r, &at);
            continue;
        }
        r->quarantined++;
        ref_stop(r, at.t, at.task);
        ref_give_up(r, &at);
    }
}

void ref_page_lost(struct reference *r, uint64_t job, uint32_t page)
{
    struct ref_job *j = ref_job(r, job);
    struct ref_page *p = j && ref_is_live(j) ? ref_page_of(j, page) : NULL;
    if (!p || p->stage == PM_STAGE_LAYOUT || p->stage == PM_STAGE_FAILED)
        return;
    if (p->stage == PM_STAGE_DONE) {
        if (j->doc.state == REF_LEASED || j->doc.state == REF_OPEN)
            ref_stop(r, &j->doc, pm_task_id(j->id, 0, PM_TASK_SLOT_ASSEMBLE));
        j->doc.state = REF_NONE;
    }
    ref_page_rerun(r, j, p);
}

void ref_unsent(struct reference *r, uint64_t task)
{
    struct ref_task *t = ref_task(r, task);
    if (!t || t->state != REF_LEASED)
        return;
    struct ref_peer *p = ref_peer(r, t->peer);
    if (p)
        p->given--;
    t->last--;
    ref_make_open(t);
}

void ref_impossible(struct reference *r, uint64_t task)
{
    struct ref_place at;
    if (!ref_find(r, task, &at) || at.t->state != REF_LEASED)
        return;
    struct ref_peer *p = ref_peer(r, at.t->peer);
    if (p)
        p->given--;
    ref_fail(r, &at, REF_INPUT, at.t->attempt, at.t->peer);
}

static void shift(struct reference *r, struct ref_task *t, uint64_t task, void *ctx)
{
    (void)r, (void)task;
    if (t->state != REF_LEASED)
        return;
    t->progress_us += *(int64_t *)ctx;
    t->sent_us += *(int64_t *)ctx;
}

void ref_slept(struct reference *r, int64_t us)
{
    ref_each_live(r, shift, &us);
}

/* ---- the broker ---- */

struct company {
    uint32_t peer, leases, alone;
};

static void count_company(struct reference *r, struct ref_task *t, uint64_t task, void *ctx)
{
    struct company *c = ctx;
    (void)r, (void)task;
    if (t->state != REF_LEASED || t->peer != c->peer)
        return;
    c->leases++;
    c->alone += t->is_alone;
}

void ref_lease(struct reference *r, uint32_t peer, uint64_t task, uint64_t epoch, uint32_t attempt)
{
    unsigned long long shown = (unsigned long long)task;
    struct ref_peer *p = ref_peer(r, peer);
    struct ref_place at;
    if (!p || !ref_find(r, task, &at))
        ref_broken("task %llx was given to peer %u: there is no such %s", shown, peer, p ? "task" : "peer");
    struct ref_task *t = at.t;
    if (t->state != REF_OPEN)
        ref_broken("task %llx was given out while it is %s", shown,
                   t->state == REF_LEASED ? "somebody's" : "not open");
    if (pm_kind_role(at.kind) != p->role)
        ref_broken("task %llx of kind %d was given to a %s", shown, (int)at.kind, pm_role_name(p->role));
    if (p->given >= p->granted)
        ref_broken("peer %s got more than its credit of %llu", p->name, (unsigned long long)p->granted);
    if (p->is_stalled || p->is_mute)
        ref_broken("peer %s got a task while it is %s", p->name, p->is_mute ? "away" : "stalled");
    if (r->is_draining && (at.kind == PM_KIND_OPEN || at.kind == PM_KIND_PAGE))
        ref_broken("task %llx was begun while draining", shown);
    if (r->now_us < r->adopt_until_us)
        ref_broken("task %llx was given out before peers could present what they hold", shown);
    if (r->now_us < t->not_before_us)
        ref_broken("task %llx was tried again %lld us too early", shown,
                   (long long)(t->not_before_us - r->now_us));
    if (t->needs_disk_us && r->is_disk_full && r->full_since_us < t->needs_disk_us)
        ref_broken("task %llx was tried again while the disk is full", shown);
    uint32_t due = t->last ? t->last + 1 : at.generation << 8 | 1;
    if (epoch != r->epoch || attempt != due)
        ref_broken("task %llx was given as attempt %u of epoch %llu, not %u of %llu", shown, attempt,
                   (unsigned long long)epoch, due, (unsigned long long)r->epoch);
    struct company c = {.peer = peer};
    ref_each_live(r, count_company, &c);
    if (c.alone || (t->is_suspect && c.leases))
        ref_broken("task %llx did not run alone", shown);
    t->last = attempt;
    p->given++;
    r->leases++;
    take(r, &at, peer, epoch, attempt);
}

void ref_revoke(struct reference *r, uint32_t peer, uint64_t task, uint32_t attempt, const char *reason)
{
    for (uint32_t i = 0; i < r->revoke_count; i++) {
        const struct ref_revoke *e = &r->revokes[i];
        if (e->peer == peer && e->task == task && e->attempt == attempt) {
            r->revokes[i] = r->revokes[--r->revoke_count];
            return;
        }
    }
    struct ref_place at;
    if (!ref_find(r, task, &at) || at.t->state != REF_LEASED || at.t->peer != peer ||
        at.t->attempt != attempt)
        ref_broken("attempt %u of task %llx was taken back (%s), and peer %u did not have it", attempt,
                   (unsigned long long)task, reason, peer);
    int64_t silent = r->now_us - at.t->progress_us, age = r->now_us - at.t->sent_us;
    bool is_stalled = silent > REF_STALL_US;
    if (!is_stalled && age <= 120 * (int64_t)REF_STALL_US)
        ref_broken("attempt %u of task %llx was taken back (%s) after %lld us, %lld without progress",
                   attempt, (unsigned long long)task, reason, (long long)age, (long long)silent);
    if (is_stalled)
        ref_peer(r, peer)->is_stalled = true;
    r->timeouts++;
    ref_fail(r, &at, REF_TIMEOUT, attempt, peer);
}

static void forget_lease(struct reference *r, struct ref_task *t, uint64_t task, void *ctx)
{
    (void)r, (void)task, (void)ctx;
    if (t->state == REF_LEASED)
        t->state = REF_OPEN;
    t->last = 0;
    t->kills = 0;
    t->needs_disk_us = 0;
    t->not_before_us = 0;
}

void ref_restart(struct reference *r, uint64_t epoch, int64_t adopt_us)
{
    bool is_waiting = false;
    if (epoch <= r->epoch)
        ref_broken("epoch %llu came after %llu", (unsigned long long)epoch, (unsigned long long)r->epoch);
    ref_each_live(r, forget_lease, NULL);
    for (int i = 0; i < REF_JOBS; i++) {
        struct ref_job *j = &r->jobs[i];
        if (!j->id || !ref_is_live(j))
            continue;
        is_waiting |= j->state == PM_JOB_RUNNING;
        j->retries = j->retries_saved;
        for (uint32_t k = 0; k < j->page_count; k++)
            j->pages[k].reruns = 0;
    }
    memset(r->peers, 0, sizeof r->peers);
    r->epoch = epoch;
    r->adopt_until_us = is_waiting ? r->now_us + adopt_us : 0;
    r->is_draining = r->is_disk_full = false;
    r->line_count = r->revoke_count = 0;
}

void ref_disk_full(struct reference *r, bool is_full)
{
    if (is_full && !r->is_disk_full)
        r->full_since_us = r->now_us;
    r->is_disk_full = is_full;
}

void ref_check_job(struct reference *r, const struct pm_job_info *info)
{
    struct ref_job *j = ref_job(r, info->job);
    if (!j)
        ref_broken("job %llu is there, and should not be", (unsigned long long)info->job);
    if (ref_is_live(j))
        ref_count(j);
    uint32_t pages = j->is_open ? j->page_count : 0;
    if (j->generation) /* it may have been cancelled in its sleep before, where nobody counts them */
        j->retries = info->retries;
    if (info->state != j->state || info->pages != pages || info->pages_done != j->done ||
        info->pages_failed != j->failed || info->regions != j->regions ||
        info->regions_done != j->regions_done || info->regions_failed != j->regions_failed ||
        info->retries != j->retries)
        ref_broken("job %llu is told as state %u pages %u done %u failed %u regions %u done %u failed %u "
                   "retries %u, and is %u %u %u %u %u %u %u %u",
                   (unsigned long long)j->id, info->state, info->pages, info->pages_done, info->pages_failed,
                   info->regions, info->regions_done, info->regions_failed, info->retries, j->state, pages,
                   j->done, j->failed, j->regions, j->regions_done, j->regions_failed, j->retries);
}

static void check_age(struct reference *r, struct ref_task *t, uint64_t task, void *ctx)
{
    int64_t most = REF_STALL_US + *(int64_t *)ctx;
    if (t->state == REF_LEASED && r->now_us - t->progress_us > most)
        ref_broken("nobody noticed that task %llx made no progress for %lld us", (unsigned long long)task,
                   (long long)(r->now_us - t->progress_us));
    if (t->state == REF_LEASED && r->now_us - t->sent_us > 120 * most)
        ref_broken("nobody noticed that task %llx takes longer than its deadline", (unsigned long long)task);
}

void ref_check_times(struct reference *r, int64_t slack_us)
{
    ref_each_live(r, check_age, &slack_us);
}
