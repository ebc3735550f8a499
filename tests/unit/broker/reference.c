/* Jobs, tasks, failures: what follows from what. */
#include "reference_internal.h"

#include <stdio.h>
#include <string.h>

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

bool ref_is_live(const struct ref_job *j)
{
    return j->state <= PM_JOB_RUNNING;
}

struct ref_page *ref_page_of(struct ref_job *j, uint32_t number)
{
    for (uint32_t i = 0; i < j->page_count; i++)
        if (j->pages[i].number == number)
            return &j->pages[i];
    return NULL;
}

bool ref_find(struct reference *r, uint64_t task, struct ref_place *out)
{
    struct ref_job *j = ref_job(r, pm_task_job(task));
    enum pm_task_kind kind = pm_task_kind(task);
    uint32_t slot = pm_task_slot(task);
    if (!j || !ref_is_live(j))
        return false;
    struct ref_page *p = ref_page_of(j, pm_task_page(task));
    *out = (struct ref_place){j, p, NULL, kind, slot, p ? p->generation : j->generation, task};
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
    struct ref_place at;
    return ref_find(r, task, &at) ? at.t : NULL;
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
        count += r->jobs[i].id && ref_is_live(&r->jobs[i]);
    return count;
}

/* Calls fn for every task of a job. */
void ref_each_task(struct reference *r, struct ref_job *j,
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

void ref_each_live(struct reference *r, void (*fn)(struct reference *, struct ref_task *, uint64_t, void *),
                   void *ctx)
{
    for (int i = 0; i < REF_JOBS; i++)
        if (r->jobs[i].id && ref_is_live(&r->jobs[i]))
            ref_each_task(r, &r->jobs[i], fn, ctx);
}

/* ---- what has to be written ---- */

struct ref_line *ref_expect(struct reference *r, enum pm_op_kind kind, uint64_t task)
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

void ref_make_open(struct ref_task *t)
{
    t->state = REF_OPEN;
    t->not_before_us = t->needs_disk_us = 0;
}

/* Whoever has it is told to stop. */
void ref_stop(struct reference *r, struct ref_task *t, uint64_t task)
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
        ref_stop(r, t, task);
}

static void stop_page(struct reference *r, struct ref_job *j, struct ref_page *p)
{
    stop_task(r, &p->layout, pm_task_id(j->id, p->number, PM_TASK_SLOT_PAGE), NULL);
    stop_task(r, &p->assemble, pm_task_id(j->id, p->number, PM_TASK_SLOT_ASSEMBLE), NULL);
    for (uint32_t k = 0; k < p->region_count; k++)
        stop_task(r, &p->regions[k], pm_task_id(j->id, p->number, k), NULL);
}

void ref_count(struct ref_job *j)
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

void ref_finish(struct reference *r, struct ref_job *j, uint32_t state)
{
    ref_count(j);
    ref_each_task(r, j, stop_task, NULL);
    j->state = state;
    j->retries_saved = j->retries;
    ref_expect(r, PM_OP_JOB_FINISH, j->id)->value = state;
}

void ref_page_check(struct ref_page *p)
{
    if (p->stage != PM_STAGE_REGIONS || p->assemble.state != REF_NONE)
        return;
    for (uint32_t k = 0; k < p->region_count; k++)
        if (p->is_text[k] && p->regions[k].state != REF_DONE && p->regions[k].state != REF_FAILED)
            return;
    ref_make_open(&p->assemble);
}

void ref_job_check(struct reference *r, struct ref_job *j)
{
    uint32_t failed = 0;
    if (!ref_is_live(j) || !j->is_open || j->doc.state != REF_NONE)
        return;
    for (uint32_t i = 0; i < j->page_count; i++) {
        if (j->pages[i].stage != PM_STAGE_DONE && j->pages[i].stage != PM_STAGE_FAILED)
            return;
        failed += j->pages[i].stage == PM_STAGE_FAILED;
    }
    if (failed == j->page_count)
        ref_finish(r, j, PM_JOB_FAILED);
    else
        ref_make_open(&j->doc);
}

static void fail_page(struct reference *r, struct ref_job *j, struct ref_page *p, uint32_t fails)
{
    stop_page(r, j, p);
    p->stage = PM_STAGE_FAILED;
    p->region_count = p->wanted = p->wanted_failed = 0;
    struct ref_line *l = ref_expect(r, PM_OP_PAGE_FAIL, j->id);
    l->page = p->number;
    l->value = fails;
    ref_job_check(r, j);
}

static void reset_page(struct reference *r, struct ref_job *j, struct ref_page *p)
{
    stop_page(r, j, p);
    *p = (struct ref_page){.number = p->number,
                           .generation = p->generation + 1,
                           .stage = PM_STAGE_LAYOUT,
                           .reruns = p->reruns,
                           .layout = {.state = REF_OPEN}};
    struct ref_line *l = ref_expect(r, PM_OP_PAGE_RESET, j->id);
    l->page = p->number;
    l->value = p->generation;
}

void ref_page_rerun(struct reference *r, struct ref_job *j, struct ref_page *p)
{
    r->reruns++;
    if (++p->reruns > REF_MAX_RERUNS) {
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

void ref_give_up(struct reference *r, const struct ref_place *at)
{
    struct ref_task *t = at->t;
    uint32_t fails = t->fails;
    r->given_up++;
    t->state = REF_FAILED;
    if (at->kind == PM_KIND_REGION) {
        struct ref_line *l = ref_expect(r, PM_OP_REGION_FAIL, at->task);
        l->value = fails;
        ref_page_check(at->page);
    } else if (at->page) {
        fail_page(r, at->job, at->page, fails);
    } else {
        ref_finish(r, at->job, PM_JOB_FAILED);
    }
}

void ref_put_tries(struct reference *r, const struct ref_place *at)
{
    struct ref_line *l = ref_expect(r, PM_OP_TRIES, at->task);
    l->value = at->t->fails;
    l->crashes = at->t->crashes;
    l->is_suspect = at->t->is_suspect;
}

void ref_fail(struct reference *r, const struct ref_place *at, enum ref_cause cause, uint32_t attempt,
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
    struct ref_line *l = ref_expect(r, PM_OP_ATTEMPT, at->task);
    l->attempt = attempt;
    l->cause = letters[cause];
    const struct ref_peer *p = ref_peer(r, peer);
    snprintf(l->peer, sizeof l->peer, "%s", p ? p->name : "");
    if (cause == REF_LOST && (at->kind == PM_KIND_REGION || at->kind == PM_KIND_ASSEMBLE_PAGE)) {
        ref_page_rerun(r, at->job, at->page);
        return;
    }
    bool counts = cause != REF_KILL || ++t->kills == REF_KILLS_PER_FAIL;
    if (counts) {
        t->kills = 0;
        t->fails++;
        t->crashes += cause == REF_CRASH;
    }
    t->is_suspect |= cause == REF_CRASH || cause == REF_TIMEOUT || cause == REF_MEMORY ||
                     (cause == REF_KILL && (counts || t->kills > 1 || t->fails));
    r->quarantined += t->crashes >= REF_MAX_CRASHES;
    if (cause == REF_INPUT || t->crashes >= REF_MAX_CRASHES || t->fails >= REF_MAX_FAILS) {
        ref_give_up(r, at);
        return;
    }
    ref_put_tries(r, at);
    at->job->retries++;
    if (cause == REF_KILL && t->kills == 1 && !t->fails)
        t->not_before_us = 0;
    else
        t->not_before_us =
            r->now_us + least_wait_us(cause, cause == REF_KILL ? t->kills + t->fails + 1u : t->fails);
}

enum ref_cause ref_cause_of(const struct pm_msg_result *m)
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
    ref_expect(r, PM_OP_JOB_PUT, job_if_new);
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
    if (!ref_is_live(j))
        return PM_EINVAL;
    ref_finish(r, j, PM_JOB_CANCELLED);
    return 0;
}

int ref_retry(struct reference *r, uint64_t job)
{
    struct ref_job *j = ref_job(r, job);
    if (!j)
        return PM_ENOTFOUND;
    if (ref_is_live(j))
        return PM_EBUSY;
    if (j->state == PM_JOB_DONE && !j->failed && !j->regions_failed)
        return PM_EINVAL;
    if (r->is_draining)
        return PM_EBUSY;
    j->state = PM_JOB_QUEUED;
    j->generation++;
    j->open = j->doc = (struct ref_task){0};
    ref_expect(r, PM_OP_JOB_RETRY, j->id)->value = j->generation;
    if (!j->is_open) {
        ref_make_open(&j->open);
        return 0;
    }
    j->open.state = REF_DONE;
    for (uint32_t i = 0; i < j->page_count; i++) {
        struct ref_page *p = &j->pages[i];
        p->reruns = 0;
        if (p->stage != PM_STAGE_DONE || p->wanted_failed)
            reset_page(r, j, p);
    }
    ref_job_check(r, j);
    return 0;
}

int ref_forget(struct reference *r, uint64_t job)
{
    struct ref_job *j = ref_job(r, job);
    if (!j)
        return PM_ENOTFOUND;
    if (ref_is_live(j))
        return PM_EBUSY;
    ref_expect(r, PM_OP_JOB_DROP, j->id);
    j->id = 0;
    return 0;
}
