/* How tasks end: results, failures by class, and what follows from them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/sched_internal.h"

/* ---- back-off ---- */

static uint64_t next_random(struct pm_sched *s)
{
    uint64_t z = s->random += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

#define KILLS_PER_FAIL   4 /* whoever kills processes rarely means the task that is in hand */
#define BACK_OFF_MOST_US 30000000

/* Doubles with every failure, half of it random. */
static int64_t back_off_us(struct pm_sched *s, enum fail_class why, unsigned fails)
{
    static const int64_t base_us[] = {
        [FAIL_CRASH] = 50000,       [FAIL_KILL] = 50000,  [FAIL_TIMEOUT] = 200000,
        [FAIL_RESOURCES] = 1000000, [FAIL_LOST] = 100000, [FAIL_OTHER] = 200000,
    };
    int64_t delay = base_us[why] << (fails > 10 ? 10 : fails - 1);
    delay = delay / 2 + (int64_t)(next_random(s) % (uint64_t)(delay / 2 + 1));
    return delay > BACK_OFF_MOST_US ? BACK_OFF_MOST_US : delay;
}

enum fail_class pm_fail_class(int code, bool is_final)
{
    if (is_final)
        return FAIL_INPUT;
    switch (code) {
    case PM_EINVAL:
    case PM_EFORMAT:
    case PM_ELIMIT:
    case PM_EUNSUPPORTED:
    case PM_EPASSWORD:
        return FAIL_INPUT;
    case PM_ENOTFOUND:
        return FAIL_LOST;
    case PM_ECRASH:
        return FAIL_CRASH;
    case PM_ETIMEOUT:
        return FAIL_TIMEOUT;
    case PM_ENOMEM:
    case PM_ENOSPC:
    case PM_EBUSY:
        return FAIL_RESOURCES;
    default:
        return FAIL_OTHER;
    }
}

/* ---- what is remembered of attempts ---- */

/* Written with what follows from it: whoever asks why a part failed finds every attempt. */
static void write_down(struct pm_sched *s, struct pm_now now, const struct ref *r, const struct failure *f)
{
    static const char *const causes[] = {
        [FAIL_INPUT] = "input",     [FAIL_CRASH] = "crash",         [FAIL_KILL] = "killed",
        [FAIL_TIMEOUT] = "timeout", [FAIL_RESOURCES] = "resources", [FAIL_LOST] = "lost-input",
        [FAIL_OTHER] = "other",
    };
    struct pm_op *op = pm_actions_op(&s->actions, PM_OP_ATTEMPT, r->job->id);
    op->task = r->task;
    op->attempt = f->attempt;
    op->cause = causes[f->why];
    op->code = pm_err_name(f->code);
    op->text = pm_actions_text(&s->actions, f->text);
    op->peer = pm_actions_text(&s->actions, f->peer ? f->peer->name : "");
    op->version = pm_actions_text(&s->actions, f->peer ? f->peer->version : "");
    op->wall_us = now.wall_us;
}

static void remember_tries(struct pm_sched *s, const struct ref *r)
{
    struct pm_op *op = pm_actions_op(&s->actions, PM_OP_TRIES, r->job->id);
    op->task = r->task;
    op->fails = r->t->fails;
    op->crashes = r->t->crashes;
    op->is_suspect = r->t->is_suspect;
}

/* ---- pages and jobs that may be complete ---- */

/* After costs and final states are known: counts, and readies what is not final. */
void pm_page_begin_regions(struct pm_sched *s, struct job *j, struct page *p)
{
    p->stage = PM_STAGE_REGIONS;
    j->pages_laid++;
    s->sheet_bytes += p->sheet_bytes;
    s->queues[j->region_queue]->pages++;
    pm_page_order(p);
    p->regions_open = p->regions_wanted = p->regions_failed = p->regions_ready = 0;
    for (uint32_t i = 0; i < p->region_count; i++) {
        struct region *r = &p->regions[i];
        if (!r->cost)
            continue;
        p->regions_wanted++;
        j->regions++;
        if (r->t.state == TASK_DONE) {
            j->regions_done++;
        } else if (r->t.state == TASK_FAILED) {
            j->regions_failed++;
            p->regions_failed++;
        } else {
            p->regions_open++;
            struct ref ref = pm_ref_of(j, p, i);
            pm_task_ready(s, &ref);
        }
    }
}

void pm_page_check(struct pm_sched *s, struct pm_now now, struct job *j, struct page *p)
{
    (void)now;
    if (p->stage == PM_STAGE_REGIONS && !p->regions_open && p->assemble.state == TASK_NONE) {
        struct ref r = pm_ref_of(j, p, PM_TASK_SLOT_ASSEMBLE);
        pm_task_ready(s, &r);
    }
}

void pm_job_check(struct pm_sched *s, struct pm_now now, struct job *j)
{
    if (!j->is_open || j->pages_open || j->state > PM_JOB_RUNNING || j->doc.state != TASK_NONE)
        return;
    if (j->pages_failed == j->page_count) {
        char *code = j->error_code, *text = j->error_text; /* the first page's, kept when it failed */
        j->error_code = j->error_text = NULL;
        pm_job_finish(s, now, j, PM_JOB_FAILED, code ? code : "internal",
                      text ? text : "no page could be read", NULL);
        free(code);
        free(text);
        return;
    }
    struct ref r = pm_ref_of(j, NULL, PM_TASK_SLOT_ASSEMBLE);
    pm_task_ready(s, &r);
}

static void drop_regions(struct page *p)
{
    free(p->regions);
    free(p->order);
    p->regions = NULL;
    p->order = NULL;
    p->region_count = 0;
}

/* ---- failures ---- */

static void page_failed(struct pm_sched *s, struct pm_now now, struct job *j, struct page *p,
                        const char *code, const char *text, unsigned fails)
{
    if (p->stage == PM_STAGE_DONE) { /* its result was lost */
        j->pages_done--;
        j->pages_open++;
    } else {
        pm_page_stop(s, j, p, "failed");
    }
    if (p->stage != PM_STAGE_LAYOUT) { /* its regions no longer count: the page as a whole failed */
        j->pages_laid--;
        uint32_t open = p->stage == PM_STAGE_REGIONS ? p->regions_open : 0;
        j->regions -= p->regions_wanted;
        j->regions_failed -= p->regions_failed;
        j->regions_done -= p->regions_wanted - p->regions_failed - open;
    }
    pm_page_forget_sheet(s, j, p);
    drop_regions(p);
    p->stage = PM_STAGE_FAILED;
    p->regions_wanted = p->regions_failed = 0;
    j->pages_open--;
    j->pages_failed++;
    if (!j->error_code) {
        j->error_code = pm_xstrdup(code);
        j->error_text = pm_xstrdup(text);
    }
    struct pm_op *op = pm_actions_op(&s->actions, PM_OP_PAGE_FAIL, j->id);
    op->page = p->page;
    op->code = pm_actions_text(&s->actions, code);
    op->text = pm_actions_text(&s->actions, text);
    op->fails = fails;
    pm_sched_event(s, j, PM_EVENT_PAGE, p, 0, NULL, text);
    pm_job_check(s, now, j);
}

static void region_failed(struct pm_sched *s, struct pm_now now, const struct ref *r, const char *code,
                          const char *text)
{
    struct page *p = r->page;
    p->regions_open--;
    p->regions_failed++;
    r->job->regions_failed++;
    struct pm_op *op = pm_actions_op(&s->actions, PM_OP_REGION_FAIL, r->job->id);
    op->page = p->page;
    op->region = r->slot;
    op->code = pm_actions_text(&s->actions, code);
    op->text = pm_actions_text(&s->actions, text);
    op->fails = r->t->fails;
    pm_sched_event(s, r->job, PM_EVENT_PROGRESS, p, r->slot + 1, NULL, NULL);
    pm_page_check(s, now, r->job, p);
}

static void fail_for_good(struct pm_sched *s, struct pm_now now, const struct ref *r, int code,
                          const char *text)
{
    r->t->state = TASK_FAILED;
    s->stats.kinds[r->kind - 1].failed++;
    s->queues[r->job->region_queue]->regions_failed += r->kind == PM_KIND_REGION;
    const char *name = pm_err_name(code);
    if (r->kind == PM_KIND_REGION)
        region_failed(s, now, r, name, text);
    else if (r->page)
        page_failed(s, now, r->job, r->page, name, text, r->t->fails);
    else
        pm_job_finish(s, now, r->job, PM_JOB_FAILED, name, text, NULL);
}

/* The crop sheet is gone (a reboot empties tmpfs): what was not assembled is made again from the source. */
void pm_page_rerun(struct pm_sched *s, struct pm_now now, struct job *j, struct page *p, const char *why)
{
    s->stats.lost_inputs++;
    if (++p->reruns > 3) {
        page_failed(s, now, j, p, "not-found", "the page's crops were lost again and again", p->reruns);
        return;
    }
    s->stats.page_reruns++;
    j->retries++;
    pm_sched_event(s, j, PM_EVENT_RETRY, p, 0, NULL, why);
    pm_page_reset(s, j, p);
}

void pm_sched_page_lost(struct pm_sched *s, struct pm_now now, uint64_t job, uint32_t page)
{
    s->now_us = now.us;
    struct job *j = pm_sched_find(s, job);
    struct page *p = j && j->state <= PM_JOB_RUNNING ? pm_job_page(j, page) : NULL;
    if (!p || p->stage == PM_STAGE_LAYOUT || p->stage == PM_STAGE_FAILED)
        return;
    if (p->stage == PM_STAGE_DONE) {
        struct ref doc = pm_ref_of(j, NULL, PM_TASK_SLOT_ASSEMBLE);
        pm_task_stop(s, &doc, "fenced");
    }
    pm_page_rerun(s, now, j, p, "what was made of the page is gone");
}

static void set_aside(struct pm_sched *s, struct pm_now now, const struct ref *r, const char *text)
{
    char full[600];
    s->stats.quarantined++;
    snprintf(full, sizeof full, "set aside: it ended its process %u times (%s)", r->t->crashes, text);
    fail_for_good(s, now, r, PM_ECRASH, full);
}

void pm_sched_crashed(struct pm_sched *s, struct pm_now now, const uint64_t *tasks, uint32_t count)
{
    s->now_us = now.us;
    for (uint32_t i = 0; i < count; i++) {
        struct ref r;
        /* Never failed: it began anew meanwhile, and what killed the process may be gone. */
        if (!pm_sched_ref(s, tasks[i], &r) || (!r.t->fails && !r.t->kills) || r.t->state < TASK_READY ||
            r.t->state > TASK_LEASED)
            continue;
        struct pm_op *op = pm_actions_op(&s->actions, PM_OP_BLAME, r.job->id);
        op->task = r.task;
        op->cause = "crash";
        op->text = "the process working on it crashed";
        r.t->crashes += r.t->crashes < 255;
        r.t->is_suspect = true;
        if (r.t->crashes < s->config.max_crashes) {
            remember_tries(s, &r);
            continue;
        }
        pm_task_stop(s, &r, "fenced");
        set_aside(s, now, &r, "the process working on it crashed");
    }
}

/* Counts a failure. Killed processes count a quarter: the operator and the kernel's memory guard end them
 * without a thought for the task in hand. What may be to blame runs alone from then on, and so does what
 * found no memory: others took it. */
static void count_failure(struct tries *t, const struct failure *f)
{
    if (f->why == FAIL_KILL && ++t->kills < KILLS_PER_FAIL) {
        t->is_suspect |= t->kills > 1 || t->fails;
        return;
    }
    t->kills = 0;
    t->fails += t->fails < 255;
    t->crashes += f->why == FAIL_CRASH && t->crashes < 255;
    t->is_suspect |= f->why == FAIL_CRASH || f->why == FAIL_TIMEOUT || f->why == FAIL_KILL ||
                     (f->why == FAIL_RESOURCES && f->code == PM_ENOMEM);
}

static void try_again(struct pm_sched *s, struct pm_now now, const struct ref *r, const struct failure *f)
{
    struct tries *t = r->t;
    remember_tries(s, r);
    r->job->retries++;
    s->stats.kinds[r->kind - 1].retried++;
    s->queues[r->job->region_queue]->regions_retried += r->kind == PM_KIND_REGION;
    pm_sched_event(s, r->job, PM_EVENT_RETRY, r->page, r->kind == PM_KIND_REGION ? r->slot + 1 : 0, NULL,
                   f->text);
    bool is_kill = f->why == FAIL_KILL;
    if (is_kill && t->kills == 1 && !t->fails) { /* the task had no part in it */
        pm_task_ready(s, r);
        return;
    }
    unsigned nth = is_kill ? t->kills + t->fails + 1u : t->fails;
    pm_task_wait(s, r, now.us + back_off_us(s, f->why, nth));
}

void pm_task_fail(struct pm_sched *s, struct pm_now now, const struct ref *r, const struct failure *f)
{
    struct tries *t = r->t;
    char full[600];
    t->state = TASK_NONE;
    if (f->code == PM_ENOSPC && f->why == FAIL_RESOURCES && s->is_disk_full) {
        t->needs_disk = true; /* not its fault, nor for ever */
        pm_task_wait(s, r, now.us + back_off_us(s, f->why, 1));
        return;
    }
    write_down(s, now, r, f);
    if (f->why == FAIL_LOST && (r->kind == PM_KIND_REGION || r->kind == PM_KIND_ASSEMBLE_PAGE)) {
        pm_page_rerun(s, now, r->job, r->page, f->text);
        return;
    }
    count_failure(t, f);
    s->stats.crashes += f->why == FAIL_CRASH || f->why == FAIL_KILL;
    if (f->why == FAIL_INPUT) {
        fail_for_good(s, now, r, f->code, f->text);
    } else if (t->crashes >= s->config.max_crashes) {
        set_aside(s, now, r, f->text);
    } else if (t->fails >= s->config.max_attempts) {
        snprintf(full, sizeof full, "%u attempts failed, the last one: %s", t->fails, f->text);
        fail_for_good(s, now, r, f->code, full);
    } else {
        try_again(s, now, r, f);
    }
}

/* ---- results ---- */

static int open_done(struct pm_sched *s, struct job *j, const struct pm_msg_result *m, struct pm_error *err)
{
    if (!m->page_count || m->page_count > PM_TASK_MAX_PAGE)
        return pm_fail(err, PM_EPROTO, "open said %u pages", m->page_count);
    for (uint32_t i = 0; i < m->page_count; i++)
        if (!m->pages[i].page || m->pages[i].page > PM_TASK_MAX_PAGE ||
            (i && m->pages[i].page <= m->pages[i - 1].page))
            return pm_fail(err, PM_EPROTO, "open listed page %u out of order or range", m->pages[i].page);
    j->open.state = TASK_DONE;
    j->is_open = true;
    j->page_count = j->pages_open = j->pages_total = m->page_count;
    j->pages = pm_xalloc(m->page_count * sizeof *j->pages);
    struct pm_op *op = pm_actions_op(&s->actions, PM_OP_JOB_OPEN, j->id);
    op->document_pages = m->document_pages;
    op->pages = m->pages;
    op->page_count = m->page_count;
    for (uint32_t i = 0; i < m->page_count; i++) {
        const struct pm_found_page *from = &m->pages[i];
        j->pages[i] = (struct page){
            .page = from->page, .width = from->width, .height = from->height, .stage = PM_STAGE_LAYOUT};
        struct ref r = pm_ref_of(j, &j->pages[i], PM_TASK_SLOT_PAGE);
        pm_task_ready(s, &r);
    }
    pm_sched_event(s, j, PM_EVENT_STATE, NULL, 0, NULL, NULL);
    return 0;
}

static int page_laid(struct pm_sched *s, struct pm_now now, const struct ref *r,
                     const struct pm_msg_result *m, struct pm_error *err)
{
    struct page *p = r->page;
    if (m->cost_count > PM_TASK_MAX_REGIONS)
        return pm_fail(err, PM_ELIMIT, "page %u has %u regions; the limit is %u", p->page, m->cost_count,
                       PM_TASK_MAX_REGIONS);
    if (!m->record || !*m->record)
        return pm_fail(err, PM_EPROTO, "layout of page %u came without its record", p->page);
    uint64_t pixels = (uint64_t)p->width * p->height;
    if (pixels)
        s->bytes_per_pixel += 0.1 * ((double)m->sheet_bytes / (double)pixels - s->bytes_per_pixel);
    p->layout.state = TASK_DONE;
    p->record = pm_xstrdup(m->record);
    p->sheet = pm_xstrdup(m->sheet ? m->sheet : "");
    p->fingerprint = m->fingerprint && *m->fingerprint ? pm_xstrdup(m->fingerprint) : NULL;
    p->sheet_bytes = m->sheet_bytes;
    p->region_count = m->cost_count;
    p->regions = pm_xalloc(m->cost_count * sizeof *p->regions + 1);
    for (uint32_t i = 0; i < m->cost_count; i++)
        p->regions[i].cost = m->costs[i];
    struct pm_op *op = pm_actions_op(&s->actions, PM_OP_PAGE_LAID, r->job->id);
    op->page = p->page;
    op->record = m->record;
    op->sheet = m->sheet ? m->sheet : "";
    op->bytes = m->sheet_bytes;
    op->costs = m->costs;
    op->cost_count = m->cost_count;
    pm_page_begin_regions(s, r->job, p);
    pm_queue_laid(s, r);
    pm_sched_event(s, r->job, PM_EVENT_PROGRESS, p, 0, NULL, NULL);
    pm_page_check(s, now, r->job, p);
    return 0;
}

static void forget_print(struct page *p)
{
    free(p->fingerprint);
    p->fingerprint = NULL;
}

static int region_done(struct pm_sched *s, struct pm_now now, const struct ref *r,
                       const struct pm_msg_result *m, struct pm_error *err)
{
    if (!m->text.size)
        return pm_fail(err, PM_EPROTO, "the text of a region is missing");
    r->t->state = TASK_DONE;
    r->page->regions_open--;
    r->job->regions_done++;
    s->stats.regions_done++;
    struct pm_op *op = pm_actions_op(&s->actions, PM_OP_REGION_DONE, r->job->id);
    op->page = r->page->page;
    op->region = r->slot;
    op->data = m->text;
    pm_sched_event(s, r->job, PM_EVENT_PROGRESS, r->page, r->slot + 1, NULL, NULL);
    pm_page_check(s, now, r->job, r->page);
    return 0;
}

/* The page's row, its event, and perhaps the end of the job. `m` names the blobs. */
static struct pm_op *page_done(struct pm_sched *s, struct pm_now now, struct job *j, struct page *p,
                               const struct pm_msg_result *m)
{
    p->stage = PM_STAGE_DONE;
    j->pages_open--;
    j->pages_done++;
    s->stats.pages_done++;
    struct pm_op *op = pm_actions_op(&s->actions, PM_OP_PAGE_DONE, j->id);
    op->page = p->page;
    op->blob = m->blob;
    op->blobs = m->blobs;
    op->blob_count = m->blob_count;
    op->failed = p->regions_failed;
    op->bytes = p->regions_wanted;
    op->wall_us = now.wall_us;
    pm_sched_event(s, j, PM_EVENT_PAGE, p, 0, m->blob, NULL);
    return op;
}

/* It was read before: what came of that is in the result by now. */
static int page_known(struct pm_sched *s, struct pm_now now, const struct ref *r,
                      const struct pm_msg_result *m, struct pm_error *err)
{
    struct page *p = r->page;
    struct job *j = r->job;
    if (!m->blob || !*m->blob || !m->fingerprint)
        return pm_fail(err, PM_EPROTO, "page %u is said to be known, and is not", p->page);
    p->layout.state = TASK_DONE;
    p->regions_wanted = m->known_regions;
    j->regions += m->known_regions;
    j->regions_done += m->known_regions;
    j->pages_known++;
    (void)page_done(s, now, j, p, m);
    struct pm_op *op = pm_actions_op(&s->actions, PM_OP_KNOWN_USED, j->id);
    op->fingerprint = m->fingerprint;
    op->wall_us = now.wall_us;
    pm_job_check(s, now, j);
    return 0;
}

static int page_assembled(struct pm_sched *s, struct pm_now now, const struct ref *r,
                          const struct pm_msg_result *m, struct pm_error *err)
{
    struct page *p = r->page;
    struct job *j = r->job;
    if (!m->blob || !*m->blob)
        return pm_fail(err, PM_EPROTO, "page %u was assembled without a blob", p->page);
    p->assemble.state = TASK_DONE;
    /* Remembered only when all of it was read. */
    bool is_whole = p->fingerprint && !p->regions_failed && !m->failed_regions;
    const char *fingerprint = is_whole ? pm_actions_text(&s->actions, p->fingerprint) : NULL;
    pm_page_forget_sheet(s, j, p);
    drop_regions(p);
    struct pm_op *op = page_done(s, now, j, p, m);
    op->fingerprint = fingerprint;
    op->blob_bytes = m->blob_bytes;
    pm_job_check(s, now, j);
    return 0;
}

static int document_assembled(struct pm_sched *s, struct pm_now now, struct job *j,
                              const struct pm_msg_result *m, struct pm_error *err)
{
    if (!m->manifest.size)
        return pm_fail(err, PM_EPROTO, "the document was assembled without a manifest");
    j->doc.state = TASK_DONE;
    free(j->error_code);
    free(j->error_text);
    j->error_code = j->error_text = NULL;
    pm_job_finish(s, now, j, PM_JOB_DONE, NULL, NULL, m);
    return 0;
}

static void remember(double *us, double *cost, double more_us, double more_cost)
{
    *us = *us * PM_MEMORY + more_us;
    *cost = *cost * PM_MEMORY + more_cost;
}

/* What a result says of speed, and of what its client really had. The time of a region that shared its worker
 * with others is known only when the worker tells its phases; otherwise its cost stands for it. */
static void learn(struct pm_sched *s, struct pm_now now, const struct ref *r, const struct lease *l,
                  size_t others, const struct pm_msg_result *m)
{
    struct speed *speed = pm_queue_speed(s, r);
    double age_us = (double)(now.us - l->sent_us), work_us = 0;
    for (uint32_t i = 0; i < m->phase_count; i++)
        work_us += (double)m->phases[i].us;
    bool is_measured = work_us > 0 || (m->run_us && (r->kind != PM_KIND_REGION || !others));
    if (work_us <= 0)
        work_us = (double)m->run_us / (r->kind == PM_KIND_REGION ? (double)others + 1 : 1);
    work_us = work_us < age_us ? work_us : age_us;
    if (age_us <= 0 || work_us <= 0 || !l->cost)
        return;
    remember(&speed->run_us, &speed->run_cost, age_us, l->cost);
    remember(&speed->work_us, &speed->work_cost, work_us, l->cost);
    if (!is_measured)
        return;
    pm_queue_correct(s, r, work_us - l->work_us);
    pm_queue_learn(s, r, l->base_us, work_us);
}

int pm_sched_result(struct pm_sched *s, struct pm_now now, uint32_t peer, const struct pm_msg_result *m,
                    struct pm_error *err)
{
    s->now_us = now.us;
    struct lease *l = pm_map_get(&s->leases, m->task);
    struct ref r;
    if (!l || l->peer != peer || l->attempt != m->attempt || l->epoch != m->epoch ||
        !pm_sched_ref(s, m->task, &r)) {
        s->stats.fenced++;
        return pm_fail(err, PM_EGONE, "attempt %u of task %llx is not the current one", m->attempt,
                       (unsigned long long)m->task);
    }
    const struct lease ended = *l;
    struct failure failure = {.attempt = l->attempt, .peer = pm_peer_find(s, peer)};
    pm_lease_end(s, l);
    if (m->error_code && *m->error_code) {
        failure.code = pm_err_from_name(m->error_code);
        failure.why = pm_fail_class(failure.code, m->is_final_error);
        failure.text = m->error_text;
        pm_task_fail(s, now, &r, &failure);
        return 0;
    }
    learn(s, now, &r, &ended, failure.peer ? failure.peer->lease_count : 0, m);
    int rc = 0;
    switch (r.kind) {
    case PM_KIND_OPEN:
        rc = open_done(s, r.job, m, err);
        break;
    case PM_KIND_PAGE:
        rc = m->is_known ? page_known(s, now, &r, m, err) : page_laid(s, now, &r, m, err);
        if (!rc &&
            (ended.epoch != s->config.epoch || ended.sent_us <= s->queues[r.job->region_queue]->model_us))
            forget_print(r.page); /* it names a model that need not be the one that will read */
        break;
    case PM_KIND_REGION:
        rc = region_done(s, now, &r, m, err);
        break;
    case PM_KIND_ASSEMBLE_PAGE:
        rc = page_assembled(s, now, &r, m, err);
        break;
    case PM_KIND_ASSEMBLE_DOC:
        rc = document_assembled(s, now, r.job, m, err);
        break;
    }
    if (rc) {
        s->stats.protocol_errors++;
        struct pm_error local;
        pm_fail(&local, PM_EPROTO, "%s", err ? err->text : "an impossible result");
        failure.why = rc == PM_ELIMIT ? FAIL_INPUT : FAIL_OTHER;
        failure.code = rc;
        failure.text = local.text;
        pm_task_fail(s, now, &r, &failure);
        return PM_EPROTO;
    }
    s->stats.kinds[r.kind - 1].done++;
    s->queues[r.job->region_queue]->regions_done += r.kind == PM_KIND_REGION;
    pm_job_moved(r.job, now);
    return 0;
}
