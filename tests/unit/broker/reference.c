#include "reference.h"

#include <stdio.h>
#include <string.h>

#define MAX_FAILS      5
#define MAX_CRASHES    2
#define KILLS_PER_FAIL 4
#define MAX_RERUNS     3

/* ---- finding ---- */

struct ref_job *ref_job(struct reference *r, uint64_t id)
{
    for (int i = 0; i < REF_JOBS && id; i++)
        if (r->jobs[i].id == id)
            return &r->jobs[i];
    return NULL;
}

struct ref_peer *ref_peer(struct reference *r, uint32_t id)
{
    for (int i = 0; i < REF_PEERS && id; i++)
        if (r->peers[i].id == id)
            return &r->peers[i];
    return NULL;
}

static bool is_live(const struct ref_job *j)
{
    return j->state <= PM_JOB_RUNNING;
}

static struct ref_page *page_of(struct ref_job *j, uint32_t number)
{
    for (uint32_t i = 0; i < j->page_count; i++)
        if (j->pages[i].number == number)
            return &j->pages[i];
    return NULL;
}

/* One task with all that it belongs to. */
struct place {
    struct ref_job *job;
    struct ref_page *page;
    struct ref_task *t;
    enum pm_task_kind kind;
    uint32_t slot, generation;
    uint64_t task;
};

static bool find(struct reference *r, uint64_t task, struct place *out)
{
    struct ref_job *j = ref_job(r, pm_task_job(task));
    enum pm_task_kind kind = pm_task_kind(task);
    uint32_t slot = pm_task_slot(task);
    if (!j || !is_live(j))
        return false;
    struct ref_page *p = page_of(j, pm_task_page(task));
    *out = (struct place){j, p, NULL, kind, slot, p ? p->generation : j->generation, task};
    if (kind == PM_KIND_OPEN || kind == PM_KIND_ASSEMBLE_DOC) {
        out->t = kind == PM_KIND_OPEN ? &j->open : &j->doc;
        return true;
    }
    if (!p || (kind == PM_KIND_REGION && slot >= p->region_count))
        return false;
    out->t = kind == PM_KIND_PAGE ? &p->layout : kind == PM_KIND_REGION ? &p->regions[slot] : &p->assemble;
    return true;
}

struct ref_task *ref_task(struct reference *r, uint64_t task)
{
    struct place at;
    return find(r, task, &at) ? at.t : NULL;
}

bool ref_is_current(struct reference *r, uint32_t peer, uint64_t task, uint64_t epoch, uint32_t attempt)
{
    const struct ref_task *t = ref_task(r, task);
    return t && t->state == REF_LEASED && t->peer == peer && t->attempt == attempt && t->epoch == epoch;
}

uint32_t ref_live_jobs(const struct reference *r)
{
    uint32_t count = 0;
    for (int i = 0; i < REF_JOBS; i++)
        count += r->jobs[i].id && is_live(&r->jobs[i]);
    return count;
}

/* Calls fn for every task of a job. */
static void each_task(struct reference *r, struct ref_job *j,
                      void (*fn)(struct reference *, struct ref_task *, uint64_t, void *), void *ctx)
{
    fn(r, &j->open, pm_task_id(j->id, 0, PM_TASK_SLOT_PAGE), ctx);
    fn(r, &j->doc, pm_task_id(j->id, 0, PM_TASK_SLOT_ASSEMBLE), ctx);
    for (uint32_t i = 0; i < j->page_count; i++) {
        struct ref_page *p = &j->pages[i];
        fn(r, &p->layout, pm_task_id(j->id, p->number, PM_TASK_SLOT_PAGE), ctx);
        fn(r, &p->assemble, pm_task_id(j->id, p->number, PM_TASK_SLOT_ASSEMBLE), ctx);
        for (uint32_t k = 0; k < p->region_count; k++)
            fn(r, &p->regions[k], pm_task_id(j->id, p->number, k), ctx);
    }
}

static void each_live(struct reference *r,
                      void (*fn)(struct reference *, struct ref_task *, uint64_t, void *), void *ctx)
{
    for (int i = 0; i < REF_JOBS; i++)
        if (r->jobs[i].id && is_live(&r->jobs[i]))
            each_task(r, &r->jobs[i], fn, ctx);
}

/* ---- what has to be written ---- */

static struct ref_line *expect(struct reference *r, enum pm_op_kind kind, uint64_t task)
{
    if (r->line_count == sizeof r->lines / sizeof *r->lines)
        ref_broken("the reference has no room for one more line");
    struct ref_line *l = &r->lines[r->line_count++];
    *l = (struct ref_line){.kind = kind, .task = task};
    return l;
}

static struct ref_line line_of(const struct pm_op *op)
{
    struct ref_line l = {.kind = op->kind, .task = op->job};
    switch (op->kind) {
    case PM_OP_JOB_FINISH:
        l.value = op->state;
        break;
    case PM_OP_JOB_RETRY:
        l.value = op->generation;
        break;
    case PM_OP_PAGE_RESET:
        l.page = op->page;
        l.value = op->generation;
        break;
    case PM_OP_PAGE_LAID:
        l.page = op->page;
        l.value = op->cost_count;
        break;
    case PM_OP_PAGE_DONE:
        l.page = op->page;
        l.value = op->failed;
        break;
    case PM_OP_PAGE_FAIL:
        l.page = op->page;
        l.value = op->fails;
        break;
    case PM_OP_REGION_DONE:
        l.task = pm_task_id(op->job, op->page, op->region);
        break;
    case PM_OP_REGION_FAIL:
        l.task = pm_task_id(op->job, op->page, op->region);
        l.value = op->fails;
        break;
    case PM_OP_TRIES:
        l.task = op->task;
        l.value = op->fails;
        l.crashes = op->crashes;
        l.is_suspect = op->is_suspect;
        break;
    case PM_OP_ATTEMPT:
        l.task = op->task;
        l.attempt = op->attempt;
        l.cause = op->cause[0];
        snprintf(l.peer, sizeof l.peer, "%s", op->peer);
        break;
    case PM_OP_BLAME:
        l.task = op->task;
        break;
    default:
        break;
    }
    return l;
}

static bool is_same(const struct ref_line *a, const struct ref_line *b)
{
    return a->kind == b->kind && a->task == b->task && a->page == b->page && a->value == b->value &&
           a->attempt == b->attempt && a->crashes == b->crashes && a->is_suspect == b->is_suspect &&
           a->cause == b->cause && !strcmp(a->peer, b->peer);
}

static const char *describe(const struct ref_line *l, char *out, size_t size)
{
    snprintf(out, size, "op %d task %llx page %u value %u attempt %u crashes %u suspect %d cause %c peer %s",
             (int)l->kind, (unsigned long long)l->task, l->page, l->value, l->attempt, l->crashes,
             l->is_suspect, l->cause ? l->cause : '-', l->peer);
    return out;
}

void ref_check_op(struct reference *r, const struct pm_op *op)
{
    if (op->kind > PM_OP_BLAME)
        return; /* of parts that this reference does not know */
    struct ref_line l = line_of(op);
    for (uint32_t i = 0; i < r->line_count; i++)
        if (is_same(&r->lines[i], &l)) {
            r->lines[i] = r->lines[--r->line_count];
            return;
        }
    char text[200];
    ref_broken("written without a reason: %s", describe(&l, text, sizeof text));
}

void ref_turn_over(struct reference *r)
{
    char text[200];
    if (r->line_count)
        ref_broken("not written: %s", describe(&r->lines[0], text, sizeof text));
    if (r->revoke_count)
        ref_broken("task %llx attempt %u was not taken back", (unsigned long long)r->revokes[0].task,
                   r->revokes[0].attempt);
}

void ref_turn_drop(struct reference *r)
{
    r->line_count = 0;
}

/* ---- states ---- */

static void make_open(struct ref_task *t)
{
    t->state = REF_OPEN;
    t->not_before_us = 0;
}

/* Whoever has it is told to stop. */
static void stop(struct reference *r, struct ref_task *t, uint64_t task)
{
    if (t->state == REF_LEASED && ref_peer(r, t->peer)) {
        if (r->revoke_count == sizeof r->revokes / sizeof *r->revokes)
            ref_broken("the reference has no room for one more revoke");
        r->revokes[r->revoke_count++] = (struct ref_revoke){t->peer, t->attempt, task};
    }
    t->state = REF_NONE;
}

static void stop_task(struct reference *r, struct ref_task *t, uint64_t task, void *ctx)
{
    (void)ctx;
    if (t->state == REF_LEASED || t->state == REF_OPEN)
        stop(r, t, task);
}

static void stop_page(struct reference *r, struct ref_job *j, struct ref_page *p)
{
    stop_task(r, &p->layout, pm_task_id(j->id, p->number, PM_TASK_SLOT_PAGE), NULL);
    stop_task(r, &p->assemble, pm_task_id(j->id, p->number, PM_TASK_SLOT_ASSEMBLE), NULL);
    for (uint32_t k = 0; k < p->region_count; k++)
        stop_task(r, &p->regions[k], pm_task_id(j->id, p->number, k), NULL);
}

static void count(struct ref_job *j)
{
    j->done = j->failed = j->regions = j->regions_done = j->regions_failed = 0;
    for (uint32_t i = 0; i < j->page_count; i++) {
        const struct ref_page *p = &j->pages[i];
        j->done += p->stage == PM_STAGE_DONE;
        j->failed += p->stage == PM_STAGE_FAILED;
        if (p->stage == PM_STAGE_DONE) {
            j->regions += p->wanted;
            j->regions_failed += p->wanted_failed;
            j->regions_done += p->wanted - p->wanted_failed;
        }
        for (uint32_t k = 0; p->stage == PM_STAGE_REGIONS && k < p->region_count; k++) {
            j->regions += p->is_text[k];
            j->regions_done += p->is_text[k] && p->regions[k].state == REF_DONE;
            j->regions_failed += p->is_text[k] && p->regions[k].state == REF_FAILED;
        }
    }
}

static void finish(struct reference *r, struct ref_job *j, uint32_t state)
{
    count(j);
    each_task(r, j, stop_task, NULL);
    j->state = state;
    j->retries_saved = j->retries;
    expect(r, PM_OP_JOB_FINISH, j->id)->value = state;
}

static void check_page(struct ref_page *p)
{
    if (p->stage != PM_STAGE_REGIONS || p->assemble.state != REF_NONE)
        return;
    for (uint32_t k = 0; k < p->region_count; k++)
        if (p->is_text[k] && p->regions[k].state != REF_DONE && p->regions[k].state != REF_FAILED)
            return;
    make_open(&p->assemble);
}

static void check_job(struct reference *r, struct ref_job *j)
{
    uint32_t failed = 0;
    if (!is_live(j) || !j->is_open || j->doc.state != REF_NONE)
        return;
    for (uint32_t i = 0; i < j->page_count; i++) {
        if (j->pages[i].stage != PM_STAGE_DONE && j->pages[i].stage != PM_STAGE_FAILED)
            return;
        failed += j->pages[i].stage == PM_STAGE_FAILED;
    }
    if (failed == j->page_count)
        finish(r, j, PM_JOB_FAILED);
    else
        make_open(&j->doc);
}

static void fail_page(struct reference *r, struct ref_job *j, struct ref_page *p, uint32_t fails)
{
    stop_page(r, j, p);
    p->stage = PM_STAGE_FAILED;
    p->region_count = p->wanted = p->wanted_failed = 0;
    struct ref_line *l = expect(r, PM_OP_PAGE_FAIL, j->id);
    l->page = p->number;
    l->value = fails;
    check_job(r, j);
}

static void reset_page(struct reference *r, struct ref_job *j, struct ref_page *p)
{
    stop_page(r, j, p);
    *p = (struct ref_page){.number = p->number,
                           .generation = p->generation + 1,
                           .stage = PM_STAGE_LAYOUT,
                           .reruns = p->reruns,
                           .layout = {.state = REF_OPEN}};
    struct ref_line *l = expect(r, PM_OP_PAGE_RESET, j->id);
    l->page = p->number;
    l->value = p->generation;
}

static void rerun_page(struct reference *r, struct ref_job *j, struct ref_page *p)
{
    r->reruns++;
    if (++p->reruns > MAX_RERUNS) {
        fail_page(r, j, p, p->reruns);
        return;
    }
    j->retries++;
    reset_page(r, j, p);
}

/* ---- failures ---- */

static int64_t least_wait_us(enum ref_cause cause, unsigned nth)
{
    static const int64_t base_us[] = {
        [REF_CRASH] = 50000,  [REF_KILL] = 50000,  [REF_TIMEOUT] = 200000, [REF_MEMORY] = 1000000,
        [REF_FULL] = 1000000, [REF_LOST] = 100000, [REF_OTHER] = 200000,   [REF_INPUT] = 0};
    int64_t wait = (base_us[cause] << (nth - 1)) / 2;
    return wait > 15000000 ? 15000000 : wait;
}

static void give_up(struct reference *r, const struct place *at)
{
    struct ref_task *t = at->t;
    uint32_t fails = t->fails;
    r->given_up++;
    t->state = REF_FAILED;
    if (at->kind == PM_KIND_REGION) {
        struct ref_line *l = expect(r, PM_OP_REGION_FAIL, at->task);
        l->value = fails;
        check_page(at->page);
    } else if (at->page) {
        fail_page(r, at->job, at->page, fails);
    } else {
        finish(r, at->job, PM_JOB_FAILED);
    }
}

static void put_tries(struct reference *r, const struct place *at)
{
    struct ref_line *l = expect(r, PM_OP_TRIES, at->task);
    l->value = at->t->fails;
    l->crashes = at->t->crashes;
    l->is_suspect = at->t->is_suspect;
}

static void fail(struct reference *r, const struct place *at, enum ref_cause cause, uint32_t attempt,
                 uint32_t peer)
{
    static const char letters[] = {
        [REF_INPUT] = 'i',  [REF_CRASH] = 'c', [REF_KILL] = 'k', [REF_TIMEOUT] = 't',
        [REF_MEMORY] = 'r', [REF_FULL] = 'r',  [REF_LOST] = 'l', [REF_OTHER] = 'o'};
    struct ref_task *t = at->t;
    t->state = REF_OPEN;
    t->failed_us = r->now_us;
    if (cause == REF_FULL && r->is_disk_full) {
        t->needs_disk_us = r->now_us;
        t->not_before_us = 0;
        return;
    }
    r->failures[cause]++;
    at->job->attempts++;
    struct ref_line *l = expect(r, PM_OP_ATTEMPT, at->task);
    l->attempt = attempt;
    l->cause = letters[cause];
    const struct ref_peer *p = ref_peer(r, peer);
    snprintf(l->peer, sizeof l->peer, "%s", p ? p->name : "");
    if (cause == REF_LOST && (at->kind == PM_KIND_REGION || at->kind == PM_KIND_ASSEMBLE_PAGE)) {
        rerun_page(r, at->job, at->page);
        return;
    }
    bool counts = cause != REF_KILL || ++t->kills == KILLS_PER_FAIL;
    if (counts) {
        t->kills = 0;
        t->fails++;
        t->crashes += cause == REF_CRASH;
    }
    t->is_suspect |= cause == REF_CRASH || cause == REF_TIMEOUT || cause == REF_MEMORY ||
                     (cause == REF_KILL && (counts || t->kills > 1 || t->fails));
    r->quarantined += t->crashes >= MAX_CRASHES;
    if (cause == REF_INPUT || t->crashes >= MAX_CRASHES || t->fails >= MAX_FAILS) {
        give_up(r, at);
        return;
    }
    put_tries(r, at);
    at->job->retries++;
    if (cause == REF_KILL && t->kills == 1 && !t->fails)
        t->not_before_us = 0;
    else
        t->not_before_us =
            r->now_us + least_wait_us(cause, cause == REF_KILL ? t->kills + t->fails + 1u : t->fails);
}

static enum ref_cause cause_of(const struct pm_msg_result *m)
{
    static const struct {
        const char *code;
        enum ref_cause cause;
    } table[] = {{"format", REF_INPUT},   {"invalid", REF_INPUT},     {"limit", REF_INPUT},
                 {"password", REF_INPUT}, {"unsupported", REF_INPUT}, {"not-found", REF_LOST},
                 {"crash", REF_CRASH},    {"timeout", REF_TIMEOUT},   {"no-memory", REF_MEMORY},
                 {"no-space", REF_FULL},  {"busy", REF_FULL}};
    for (size_t i = 0; i < sizeof table / sizeof *table && !m->is_final_error; i++)
        if (!strcmp(m->error_code, table[i].code))
            return table[i].cause;
    return m->is_final_error ? REF_INPUT : REF_OTHER;
}

/* ---- clients ---- */

int ref_submit(struct reference *r, uint64_t job_if_new, const char *client, const char *key,
               uint64_t *job_out)
{
    char full[40];
    snprintf(full, sizeof full, "%s/%s", client, key);
    struct ref_job *unused = NULL;
    for (int i = 0; i < REF_JOBS; i++) {
        if (r->jobs[i].id && *key && !strcmp(r->jobs[i].key, full)) {
            *job_out = r->jobs[i].id;
            return 0;
        }
        unused = r->jobs[i].id ? unused : &r->jobs[i];
    }
    *job_out = 0;
    if (r->is_draining || ref_live_jobs(r) >= r->max_jobs)
        return PM_EBUSY;
    if (!unused)
        ref_broken("the reference has no room for one more job");
    *unused = (struct ref_job){.id = job_if_new, .state = PM_JOB_QUEUED, .open = {.state = REF_OPEN}};
    if (*key)
        memcpy(unused->key, full, sizeof full);
    expect(r, PM_OP_JOB_PUT, job_if_new);
    *job_out = job_if_new;
    return 0;
}

int ref_cancel(struct reference *r, uint64_t job)
{
    struct ref_job *j = ref_job(r, job);
    if (!j)
        return PM_ENOTFOUND;
    if (j->state == PM_JOB_CANCELLED)
        return 0;
    if (!is_live(j))
        return PM_EINVAL;
    finish(r, j, PM_JOB_CANCELLED);
    return 0;
}

int ref_retry(struct reference *r, uint64_t job)
{
    struct ref_job *j = ref_job(r, job);
    if (!j)
        return PM_ENOTFOUND;
    if (is_live(j))
        return PM_EBUSY;
    if (j->state == PM_JOB_DONE && !j->failed && !j->regions_failed)
        return PM_EINVAL;
    if (r->is_draining)
        return PM_EBUSY;
    j->state = PM_JOB_QUEUED;
    j->generation++;
    j->open = j->doc = (struct ref_task){0};
    expect(r, PM_OP_JOB_RETRY, j->id)->value = j->generation;
    if (!j->is_open) {
        make_open(&j->open);
        return 0;
    }
    j->open.state = REF_DONE;
    for (uint32_t i = 0; i < j->page_count; i++) {
        struct ref_page *p = &j->pages[i];
        p->reruns = 0;
        if (p->stage != PM_STAGE_DONE || p->wanted_failed)
            reset_page(r, j, p);
    }
    check_job(r, j);
    return 0;
}

int ref_forget(struct reference *r, uint64_t job)
{
    struct ref_job *j = ref_job(r, job);
    if (!j)
        return PM_ENOTFOUND;
    if (is_live(j))
        return PM_EBUSY;
    expect(r, PM_OP_JOB_DROP, j->id);
    j->id = 0;
    return 0;
}

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
    struct place at;
    if (t->state != REF_LEASED || t->peer != e->peer || !find(r, task, &at))
        return;
    if (e->how == PM_PEER_LEFT)
        make_open(t);
    else
        fail(r, &at, e->how == PM_PEER_CRASHED ? REF_CRASH : REF_KILL, t->attempt, e->peer);
}

void ref_end(struct reference *r, uint32_t peer, enum pm_peer_end how)
{
    struct ending e = {peer, how};
    each_live(r, end_lease, &e);
    struct ref_peer *p = ref_peer(r, peer);
    if (p)
        p->id = 0;
}

static void take(struct reference *r, const struct place *at, uint32_t peer, uint64_t epoch, uint32_t attempt)
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
        expect(r, PM_OP_JOB_RUN, at->job->id);
    }
}

bool ref_held(struct reference *r, uint32_t peer, const struct pm_held *held)
{
    struct place at;
    if (!find(r, held->task, &at) || !ref_peer(r, peer))
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
    make_open(t);
}

void ref_unheld(struct reference *r, uint32_t peer, const struct pm_held *held, uint32_t count)
{
    struct named n = {peer, count, held};
    each_live(r, unheld_one, &n);
}

void ref_beat(struct reference *r, uint32_t peer, uint64_t task, uint32_t attempt)
{
    struct ref_task *t = ref_task(r, task);
    if (t && t->state == REF_LEASED && t->peer == peer && t->attempt == attempt)
        t->progress_us = r->now_us;
}

/* What a success says; false when it cannot be. */
static bool succeed(struct reference *r, const struct place *at, const struct pm_msg_result *m)
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
        expect(r, PM_OP_JOB_OPEN, at->job->id);
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
        struct ref_line *l = expect(r, PM_OP_PAGE_LAID, at->job->id);
        l->page = p->number;
        l->value = m->cost_count;
        at->t->state = REF_DONE;
        check_page(p);
        break;
    }
    case PM_KIND_REGION:
        if (!m->text.size)
            return false;
        expect(r, PM_OP_REGION_DONE, at->task);
        at->t->state = REF_DONE;
        check_page(p);
        break;
    case PM_KIND_ASSEMBLE_PAGE: {
        if (!*m->blob)
            return false;
        p->stage = PM_STAGE_DONE;
        for (uint32_t k = 0; k < p->region_count; k++)
            p->wanted_failed += p->is_text[k] && p->regions[k].state == REF_FAILED;
        p->region_count = 0;
        struct ref_line *l = expect(r, PM_OP_PAGE_DONE, at->job->id);
        l->page = p->number;
        l->value = p->wanted_failed;
        at->t->state = REF_DONE;
        check_job(r, at->job);
        break;
    }
    case PM_KIND_ASSEMBLE_DOC:
        if (!m->manifest.size)
            return false;
        at->t->state = REF_DONE;
        finish(r, at->job, PM_JOB_DONE);
        break;
    }
    at->t->state = REF_DONE;
    return true;
}

int ref_result(struct reference *r, uint32_t peer, const struct pm_msg_result *m)
{
    struct place at;
    if (!ref_is_current(r, peer, m->task, m->epoch, m->attempt) || !find(r, m->task, &at)) {
        r->fenced++;
        return PM_EGONE;
    }
    r->results++;
    if (*m->error_code) {
        fail(r, &at, cause_of(m), m->attempt, peer);
        return 0;
    }
    bool is_too_much = at.kind == PM_KIND_PAGE && m->cost_count > PM_TASK_MAX_REGIONS;
    if (is_too_much || !succeed(r, &at, m)) {
        fail(r, &at, is_too_much ? REF_INPUT : REF_OTHER, m->attempt, peer);
        return PM_EPROTO;
    }
    r->committed++;
    return 0;
}

void ref_crash_news(struct reference *r, const uint64_t *tasks, uint32_t task_count)
{
    for (uint32_t i = 0; i < task_count; i++) {
        struct place at;
        if (!find(r, tasks[i], &at) || (!at.t->fails && !at.t->kills) ||
            (at.t->state != REF_OPEN && at.t->state != REF_LEASED))
            continue;
        expect(r, PM_OP_BLAME, at.task);
        at.t->crashes++;
        at.t->is_suspect = true;
        if (at.t->crashes < MAX_CRASHES) {
            put_tries(r, &at);
            continue;
        }
        r->quarantined++;
        stop(r, at.t, at.task);
        give_up(r, &at);
    }
}

void ref_page_lost(struct reference *r, uint64_t job, uint32_t page)
{
    struct ref_job *j = ref_job(r, job);
    struct ref_page *p = j && is_live(j) ? page_of(j, page) : NULL;
    if (!p || p->stage == PM_STAGE_LAYOUT || p->stage == PM_STAGE_FAILED)
        return;
    if (p->stage == PM_STAGE_DONE) {
        if (j->doc.state == REF_LEASED || j->doc.state == REF_OPEN)
            stop(r, &j->doc, pm_task_id(j->id, 0, PM_TASK_SLOT_ASSEMBLE));
        j->doc.state = REF_NONE;
    }
    rerun_page(r, j, p);
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
    make_open(t);
}

void ref_impossible(struct reference *r, uint64_t task)
{
    struct place at;
    if (!find(r, task, &at) || at.t->state != REF_LEASED)
        return;
    struct ref_peer *p = ref_peer(r, at.t->peer);
    if (p)
        p->given--;
    fail(r, &at, REF_INPUT, at.t->attempt, at.t->peer);
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
    each_live(r, shift, &us);
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
    struct place at;
    if (!p || !find(r, task, &at))
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
    each_live(r, count_company, &c);
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
    struct place at;
    if (!find(r, task, &at) || at.t->state != REF_LEASED || at.t->peer != peer || at.t->attempt != attempt)
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
    fail(r, &at, REF_TIMEOUT, attempt, peer);
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
    each_live(r, forget_lease, NULL);
    for (int i = 0; i < REF_JOBS; i++) {
        struct ref_job *j = &r->jobs[i];
        if (!j->id || !is_live(j))
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
    if (is_live(j))
        count(j);
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
    each_live(r, check_age, &slack_us);
}
