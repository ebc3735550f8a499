/* Jobs: submit, cancel, retry, forget, restore, and what is told about them. */
#include "broker/scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/sched_internal.h"

#define REMEMBERED_MOST ((uint64_t)8000000) /* jobs that ended, beside those that may wait */
#define SERVED_MOST     256                 /* readers that workers and jobs name: a queue stays */
#define QUEUES_MOST     64 /* readers that jobs name before any worker has come to say which there are */

struct pm_sched *pm_sched_new(const struct pm_sched_config *config)
{
    struct pm_sched *s = pm_xalloc(sizeof *s);
    s->config = *config;
    struct pm_sched_config *c = &s->config;
    c->max_jobs = c->max_jobs ? c->max_jobs : 2000000;
    c->pixel_budget_bytes = c->pixel_budget_bytes ? c->pixel_budget_bytes : (uint64_t)512 << 20;
    c->max_attempts = c->max_attempts ? c->max_attempts : 5;
    c->max_crashes = c->max_crashes ? c->max_crashes : 2;
    c->stall_us = c->stall_us ? c->stall_us : 5000000;
    c->age_us = c->age_us ? c->age_us : 10000000;
    c->readers_us = c->readers_us ? c->readers_us : 10000000;
    c->awake_jobs = c->awake_jobs ? c->awake_jobs : 4096;
    s->next_job = c->first_job ? c->first_job : 1;
    s->oldest_job = s->next_job;
    s->random = c->seed * 2 + 1;
    pm_strmap_seed(&s->clients.by_name, c->seed);
    s->next_peer = 1;
    s->bytes_per_pixel = 1.0;
    s->due_us = INT64_MAX;
    for (int i = 0; i < 2; i++) { /* the two fixed queues: layout and collect */
        PM_GROW(s->queues, s->queue_count, s->queue_capacity);
        s->queues[s->queue_count] = pm_xalloc(sizeof **s->queues);
        s->queues[s->queue_count++]->reader = pm_xstrdup("");
    }
    return s;
}

void pm_sched_free(struct pm_sched **sched)
{
    struct pm_sched *s = *sched;
    if (!s)
        return;
    size_t cursor = 0;
    uint64_t key;
    void *value;
    while (pm_map_next(&s->leases, &cursor, &key, &value))
        free(value);
    pm_map_free(&s->leases);
    pm_store_free(s);
    for (size_t i = 0; i < s->peer_count; i++) {
        free(s->peers[i]->queues);
        free(s->peers[i]->leases);
        free(s->peers[i]->name);
        free(s->peers[i]->version);
        free(s->peers[i]);
    }
    free(s->peers);
    for (size_t i = 0; i < s->queue_count; i++) {
        struct queue *q = s->queues[i];
        for (size_t k = 0; k < q->lane_count; k++) {
            for (unsigned level = 0; level < PM_SCHED_LEVELS; level++) {
                pm_heap_free(&q->lanes[k].jobs[level][0]);
                pm_heap_free(&q->lanes[k].jobs[level][1]);
            }
        }
        free(q->lanes);
        free(q->parked);
        free(q->reader);
        free(q);
    }
    free(s->queues);
    free(s->timers.items);
    free(s->deadlines.items);
    free(s->candidates);
    free(s->unsure.ids);
    pm_actions_free(&s->actions);
    free(s);
    *sched = NULL;
}

struct pm_actions *pm_sched_actions(struct pm_sched *s)
{
    return &s->actions;
}

/* ---- finding ---- */

struct page *pm_job_page(const struct job *j, uint32_t number)
{
    uint32_t low = 0, high = j->page_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (j->pages[middle].page < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low < j->page_count && j->pages[low].page == number ? &j->pages[low] : NULL;
}

struct ref pm_ref_of(struct job *j, struct page *p, uint32_t slot)
{
    struct ref r = {.job = j, .page = p, .slot = slot};
    r.task = pm_task_id(j->id, p ? p->page : 0, slot);
    r.kind = pm_task_kind(r.task);
    r.generation = p ? p->generation : j->generation;
    r.t = r.kind == PM_KIND_OPEN           ? &j->open
          : r.kind == PM_KIND_ASSEMBLE_DOC ? &j->doc
          : r.kind == PM_KIND_PAGE         ? &p->layout
          : r.kind == PM_KIND_REGION       ? &p->regions[slot].t
                                           : &p->assemble;
    return r;
}

bool pm_sched_ref(const struct pm_sched *s, uint64_t task, struct ref *out)
{
    struct job *j = pm_sched_find(s, pm_task_job(task));
    uint32_t slot = pm_task_slot(task);
    bool is_region = slot < PM_TASK_SLOT_ASSEMBLE;
    if (!j || j->state > PM_JOB_RUNNING)
        return false;
    struct page *p = NULL;
    if (pm_task_page(task)) {
        p = pm_job_page(j, pm_task_page(task));
        if (!p || (is_region && slot >= p->region_count))
            return false;
    } else if (is_region) {
        return false;
    }
    *out = pm_ref_of(j, p, slot);
    return true;
}

static struct pm_action *add_event(struct pm_sched *s, uint64_t job, enum pm_event_kind kind)
{
    struct pm_action *a = pm_actions_add(&s->actions, PM_ACTION_EVENT);
    a->job = job;
    a->event = kind;
    a->blob = a->text = "";
    return a;
}

void pm_sched_event(struct pm_sched *s, const struct job *j, enum pm_event_kind kind, const struct page *p,
                    uint32_t region, const char *blob, const char *text)
{
    struct pm_action *a = add_event(s, j->id, kind);
    a->page = p ? p->page : 0;
    a->region = region;
    a->blob = pm_actions_text(&s->actions, blob);
    a->text = pm_actions_text(&s->actions, text);
}

/* ---- making jobs ---- */

const char *pm_sched_default_reader(const struct pm_sched *s)
{
    const char *only = NULL;
    for (size_t i = QUEUE_REGION; i < s->queue_count; i++) {
        const struct queue *q = s->queues[i];
        if (!q->was_served)
            continue;
        if (only || !strcmp(q->reader, PM_DEFAULT_READER))
            return PM_DEFAULT_READER;
        only = q->reader;
    }
    return only ? only : PM_DEFAULT_READER;
}

static size_t list_readers(const struct pm_sched *s, char *out, size_t size)
{
    size_t used = 0;
    for (size_t i = QUEUE_REGION; i < s->queue_count; i++)
        if (s->queues[i]->was_served && used < size - 1)
            used += (size_t)snprintf(out + used, size - used, "%s%s", used ? ", " : "", s->queues[i]->reader);
    return used;
}

bool pm_sched_has_readers(const struct pm_sched *s)
{
    char known[2];
    return list_readers(s, known, sizeof known) > 0;
}

void pm_sched_model_changed(struct pm_sched *s, struct pm_now now, const char *reader)
{
    size_t cursor = 0;
    uint64_t id;
    void *value;
    uint32_t queue = pm_queue_of_reader(s, reader);
    s->queues[queue]->model_us = now.us;
    while (pm_map_next(&s->jobs, &cursor, &id, &value)) {
        struct job *j = value;
        for (uint32_t i = 0; j->region_queue == queue && i < j->page_count; i++) {
            free(j->pages[i].fingerprint);
            j->pages[i].fingerprint = NULL;
        }
    }
}

int pm_sched_check_reader(const struct pm_sched *s, const char *reader, struct pm_error *err)
{
    char known[200] = "";
    bool is_queued = false;
    for (size_t i = QUEUE_REGION; i < s->queue_count; i++) {
        const struct queue *q = s->queues[i];
        bool is_it = !strcmp(q->reader, reader);
        if (is_it && q->was_served)
            return 0;
        is_queued |= is_it;
    }
    if (list_readers(s, known, sizeof known))
        return pm_fail(err, PM_EUNSUPPORTED, "no worker here reads with \"%.64s\"; there are: %s", reader,
                       known);
    if (!is_queued && s->queue_count >= QUEUES_MOST)
        return pm_fail(err, PM_EBUSY, "jobs wait for %zu different readers, and no worker is here yet",
                       s->queue_count - QUEUE_REGION);
    return 0;
}

int pm_sched_check_worker(const struct pm_sched *s, const char *const *readers, uint32_t count,
                          struct pm_error *err)
{
    size_t queues = s->queue_count;
    for (uint32_t i = 0; i < count; i++) {
        size_t at = QUEUE_REGION;
        while (at < s->queue_count && strcmp(s->queues[at]->reader, readers[i]) != 0)
            at++;
        queues += at == s->queue_count;
    }
    if (queues == s->queue_count || queues <= SERVED_MOST)
        return 0;
    return pm_fail(err, PM_EBUSY,
                   "workers and jobs have named %zu different readers since the broker's start, "
                   "which is nearly the limit",
                   s->queue_count - QUEUE_REGION);
}

static void finish_any(struct pm_sched *s, struct pm_now now, uint64_t id, enum pm_job_state state,
                       const char *code, const char *text);

static bool is_live(const struct pm_sched *s, uint64_t id)
{
    uint32_t state = pm_sched_state(s, id);
    return state && state <= PM_JOB_RUNNING;
}

/* ---- deadlines ---- */

static bool is_ahead(const struct pm_sched *s, uint64_t deadline)
{
    const struct stub *stub = pm_stub_find(s, deadline >> 32);
    return stub && stub->state <= PM_JOB_RUNNING && stub->generation == (uint32_t)deadline;
}

/* Jobs end before their deadlines, which may lie years ahead. */
static void prune_deadlines(struct pm_sched *s)
{
    struct timers kept = {0}, *all = &s->deadlines;
    if (all->count < s->deadlines_prune_at)
        return;
    for (size_t i = 0; i < all->count; i++)
        if (is_ahead(s, all->items[i].task))
            pm_timer_add(&kept, all->items[i].when, all->items[i].task, 0);
    free(all->items);
    *all = kept;
    s->deadlines_prune_at = kept.count * 2 + 4096;
}

/* Counted from when the job was accepted, or begun again. Afterwards by the monotonic clock: setting the
 * wall clock neither ends jobs nor keeps them. */
static void set_deadline(struct pm_sched *s, struct pm_now now, uint64_t id, uint32_t seconds,
                         int64_t from_wall_us)
{
    if (!seconds)
        return;
    prune_deadlines(s);
    int64_t left = from_wall_us + (int64_t)seconds * 1000000 - now.wall_us;
    pm_timer_add(&s->deadlines, now.us + (left > 0 ? left : 0), id << 32 | pm_stub_find(s, id)->generation,
                 0);
}

static void end_late_jobs(struct pm_sched *s, struct pm_now now)
{
    while (s->deadlines.count && s->deadlines.items[0].when <= now.us) {
        uint64_t task = pm_timer_pop(&s->deadlines), id = task >> 32;
        if (!is_ahead(s, task))
            continue; /* it has ended, perhaps begun again */
        char text[80];
        struct pm_error err;
        const struct job *j = pm_job_wake(s, id, &err);
        if (j)
            snprintf(text, sizeof text, "it did not end within %u s", j->submit.deadline_s);
        else
            snprintf(text, sizeof text, "it did not end within its time");
        s->stats.late_jobs++;
        finish_any(s, now, id, PM_JOB_FAILED, pm_err_name(PM_ETIMEOUT), text);
    }
}

/* ---- readers that do not come ---- */

/* In the first seconds any reader may still come. When others have and it has not, nobody will read these. */
static void end_unreadable_jobs(struct pm_sched *s, struct pm_now now)
{
    char known[200] = "", text[400];
    if (s->unsure.first == s->unsure.count || now.us < s->readers_until_us ||
        !list_readers(s, known, sizeof known))
        return;
    while (s->unsure.first < s->unsure.count) {
        uint64_t id = s->unsure.ids[s->unsure.first++];
        const struct stub *stub = pm_stub_find(s, id);
        if (!stub || stub->state > PM_JOB_RUNNING || s->queues[stub->region_queue]->was_served)
            continue;
        snprintf(text, sizeof text, "no worker here reads with \"%.64s\"; there are: %s",
                 s->queues[stub->region_queue]->reader, known);
        finish_any(s, now, id, PM_JOB_FAILED, pm_err_name(PM_EUNSUPPORTED), text);
    }
}

void pm_jobs_tick(struct pm_sched *s, struct pm_now now)
{
    if (!s->readers_until_us)
        s->readers_until_us = now.us + s->config.readers_us;
    end_late_jobs(s, now);
    end_unreadable_jobs(s, now);
}

int64_t pm_jobs_next_us(const struct pm_sched *s)
{
    int64_t next = s->deadlines.count ? s->deadlines.items[0].when : INT64_MAX;
    if (s->unsure.first < s->unsure.count && s->readers_until_us > s->now_us && s->readers_until_us < next)
        next = s->readers_until_us;
    return next;
}

/* ---- submit ---- */

int pm_sched_submit(struct pm_sched *s, struct pm_now now, const char *client, const struct pm_msg_submit *m,
                    uint64_t *job_out, bool *duplicate_out, struct pm_error *err)
{
    s->now_us = now.us;
    *job_out = pm_sched_known(s, client, m->key);
    *duplicate_out = *job_out != 0;
    if (*duplicate_out)
        return 0;
    if (s->is_draining)
        return pm_fail(err, PM_EBUSY, "the broker is stopping and takes no new jobs");
    uint64_t live = s->stats.jobs[PM_JOB_QUEUED] + s->stats.jobs[PM_JOB_RUNNING];
    if (live >= s->config.max_jobs)
        return pm_fail(err, PM_EBUSY,
                       "%llu jobs are waiting, which is the limit; try again when some are done",
                       (unsigned long long)live);
    for (unsigned ended = PM_JOB_DONE; ended <= PM_JOB_CANCELLED; ended++)
        live += s->stats.jobs[ended];
    if (live >= s->config.max_jobs + REMEMBERED_MOST)
        return pm_fail(
            err, PM_EBUSY,
            "%llu jobs are remembered, which is the limit; forget finished ones, or wait until they "
            "expire",
            (unsigned long long)live);
    if (s->next_job > PM_TASK_MAX_JOB)
        return pm_fail(err, PM_ELIMIT, "job numbers are used up; start with a fresh state directory");
    uint64_t id = s->next_job;
    pm_stub_new(s, id, client, m, PM_JOB_QUEUED);
    struct job *j = pm_job_body(s, id, m);
    j->created_wall_us = j->deadline_from_us = now.wall_us;
    pm_ids_push(&s->young, id);
    set_deadline(s, now, id, m->deadline_s, now.wall_us);
    if (!s->queues[j->region_queue]->was_served) {
        pm_ids_prune(s, &s->unsure, is_live);
        pm_ids_push(&s->unsure, id);
    }
    struct pm_op *op = pm_actions_op(&s->actions, PM_OP_JOB_PUT, j->id);
    op->client = j->client;
    op->submit = &j->submit; /* lives as long as the job: a forget in the same turn is refused */
    op->wall_us = now.wall_us;
    struct ref open = pm_ref_of(j, NULL, PM_TASK_SLOT_PAGE);
    pm_task_ready(s, &open);
    pm_sched_event(s, j, PM_EVENT_STATE, NULL, 0, NULL, NULL);
    *job_out = j->id;
    return 0;
}

void pm_job_run(struct pm_sched *s, struct pm_now now, struct job *j)
{
    if (j->state != PM_JOB_QUEUED)
        return;
    pm_job_set_state(s, j->id, PM_JOB_RUNNING);
    j->started_wall_us = now.wall_us;
    j->mark_us[0] = j->mark_us[1] = now.us;
    j->mark_parts[0] = j->mark_parts[1] = pm_job_parts(j);
    pm_actions_op(&s->actions, PM_OP_JOB_RUN, j->id)->wall_us = now.wall_us;
    pm_sched_event(s, j, PM_EVENT_STATE, NULL, 0, NULL, NULL);
}

/* ---- how far a job is ---- */

#define MARK_US 10000000

/* Pages' worth of work that is done: whole pages, and of those in hand the part of their regions. */
double pm_job_parts(const struct job *j)
{
    double ended = (double)j->pages_done + j->pages_failed, laid = j->pages_laid;
    uint32_t regions = j->regions_done + j->regions_failed;
    if (laid <= ended || !j->regions || !regions)
        return ended;
    double parts = regions / (j->regions / laid);
    return parts > ended ? parts : ended;
}

/* A part has ended: the present rate is that since ten to twenty seconds ago. */
void pm_job_moved(struct job *j, struct pm_now now)
{
    if (now.us - j->mark_us[1] < MARK_US)
        return;
    j->mark_us[0] = j->mark_us[1];
    j->mark_parts[0] = j->mark_parts[1];
    j->mark_us[1] = now.us;
    j->mark_parts[1] = pm_job_parts(j);
}

uint64_t pm_job_eta_us(const struct job *j, int64_t now_us)
{
    double parts = pm_job_parts(j), moved = parts - j->mark_parts[0], left = j->pages_total - parts;
    double us = (double)(now_us - j->mark_us[0]);
    if (j->state != PM_JOB_RUNNING || !j->pages_total || moved <= 0 || us <= 0)
        return 0;
    us = (left > 0 ? left : 0) * us / moved;
    return us < 1 ? 1 : us > 1e15 ? (uint64_t)1e15 : (uint64_t)us;
}

/* ---- ending jobs ---- */

void pm_page_forget_sheet(struct pm_sched *s, const struct job *j, struct page *p)
{
    if (p->stage == PM_STAGE_REGIONS) {
        s->sheet_bytes -= p->sheet_bytes;
        s->queues[j->region_queue]->pages--;
    }
    free(p->record);
    free(p->sheet);
    free(p->fingerprint);
    p->record = p->sheet = p->fingerprint = NULL;
    p->sheet_bytes = 0;
}

void pm_task_stop(struct pm_sched *s, const struct ref *r, const char *reason)
{
    if (r->t->state == TASK_READY)
        pm_task_unready(s, r);
    else if (r->t->state == TASK_LEASED)
        pm_lease_revoke(s, r->task, reason);
    r->t->state = TASK_NONE;
}

void pm_page_stop(struct pm_sched *s, struct job *j, struct page *p, const char *reason)
{
    struct ref r = pm_ref_of(j, p, PM_TASK_SLOT_PAGE);
    pm_task_stop(s, &r, reason);
    r = pm_ref_of(j, p, PM_TASK_SLOT_ASSEMBLE);
    pm_task_stop(s, &r, reason);
    for (uint32_t i = 0; i < p->region_count; i++) {
        if (p->regions[i].t.state == TASK_DONE || p->regions[i].t.state == TASK_NONE)
            continue;
        r = pm_ref_of(j, p, i);
        pm_task_stop(s, &r, reason);
    }
}

static void set_error(struct job *j, const char *code, const char *text)
{
    free(j->error_code);
    free(j->error_text);
    j->error_code = code && *code ? pm_xstrdup(code) : NULL;
    j->error_text = text && *text ? pm_xstrdup(text) : NULL;
}

void pm_job_finish(struct pm_sched *s, struct pm_now now, struct job *j, enum pm_job_state state,
                   const char *code, const char *text, const struct pm_msg_result *result)
{
    const char *reason = state == PM_JOB_CANCELLED ? "cancelled" : "failed";
    struct ref r = pm_ref_of(j, NULL, PM_TASK_SLOT_PAGE);
    pm_task_stop(s, &r, reason);
    r = pm_ref_of(j, NULL, PM_TASK_SLOT_ASSEMBLE);
    pm_task_stop(s, &r, reason);
    for (uint32_t i = 0; i < j->page_count; i++)
        if (j->pages[i].stage == PM_STAGE_LAYOUT || j->pages[i].stage == PM_STAGE_REGIONS)
            pm_page_stop(s, j, &j->pages[i], reason);
    pm_job_free_pages(s, j);
    pm_job_set_state(s, j->id, state);
    set_error(j, code, text);
    j->finished_wall_us = now.wall_us;
    j->stub->has_failures = j->pages_failed || j->regions_failed;
    j->stub->time_us = pm_steady_us(s, now);
    if (!j->is_resting)
        pm_ids_push(&s->resting, j->id);
    j->is_resting = true;
    struct pm_op *op = pm_actions_op(&s->actions, PM_OP_JOB_FINISH, j->id);
    op->state = state;
    op->code = pm_actions_text(&s->actions, code);
    op->text = pm_actions_text(&s->actions, text);
    op->wall_us = now.wall_us;
    op->drops_key =
        *j->submit.key == PM_SCHED_OWN_KEY && (state != PM_JOB_DONE || j->pages_failed || j->regions_failed);
    if (op->drops_key)
        pm_job_drop_key(s, j->id);
    const uint32_t counts[7] = {j->pages_total,  j->pages_done,     j->pages_failed, j->regions,
                                j->regions_done, j->regions_failed, j->retries};
    memcpy(op->counts, counts, sizeof counts);
    if (result) { /* of assemble-document; lives until the end of the turn like every message */
        op->data = result->manifest;
        op->blobs = result->blobs;
        op->blob_count = result->blob_count;
    }
    pm_sched_event(s, j, PM_EVENT_STATE, NULL, 0, NULL, NULL);
}

void pm_stub_finish(struct pm_sched *s, struct pm_now now, uint64_t id, enum pm_job_state state,
                    const char *code, const char *text)
{
    pm_queue_unsleeper(s);
    pm_job_set_state(s, id, state);
    pm_stub_find(s, id)->time_us = pm_steady_us(s, now);
    struct pm_op *op = pm_actions_op(&s->actions, PM_OP_JOB_FINISH, id);
    op->state = state;
    op->code = pm_actions_text(&s->actions, code);
    op->text = pm_actions_text(&s->actions, text);
    op->wall_us = now.wall_us;
    op->drops_key = pm_stub_find(s, id)->has_own_key;
    if (op->drops_key)
        pm_job_drop_key(s, id);
    add_event(s, id, PM_EVENT_STATE);
}

static void finish_any(struct pm_sched *s, struct pm_now now, uint64_t id, enum pm_job_state state,
                       const char *code, const char *text)
{
    struct job *j = pm_sched_find(s, id);
    if (j)
        pm_job_finish(s, now, j, state, code, text, NULL);
    else
        pm_stub_finish(s, now, id, state, code, text);
}

int pm_sched_cancel(struct pm_sched *s, struct pm_now now, uint64_t id, struct pm_error *err)
{
    s->now_us = now.us;
    uint32_t state = pm_sched_state(s, id);
    if (!state)
        return pm_fail(err, PM_ENOTFOUND, "there is no job %llu", (unsigned long long)id);
    if (state == PM_JOB_CANCELLED)
        return 0; /* asked twice: the first answer was lost */
    if (state > PM_JOB_RUNNING)
        return pm_fail(err, PM_EINVAL, "job %llu has already ended (%s)", (unsigned long long)id,
                       pm_job_state_name(state));
    finish_any(s, now, id, PM_JOB_CANCELLED, "cancelled", "cancelled on request");
    return 0;
}

int pm_sched_forget(struct pm_sched *s, uint64_t id, struct pm_error *err)
{
    uint32_t state = pm_sched_state(s, id);
    if (!state)
        return pm_fail(err, PM_ENOTFOUND, "there is no job %llu", (unsigned long long)id);
    if (state <= PM_JOB_RUNNING)
        return pm_fail(err, PM_EBUSY, "job %llu is still %s; cancel it first", (unsigned long long)id,
                       pm_job_state_name(state));
    for (size_t i = 0; i < s->actions.op_count; i++)
        if (s->actions.ops[i].job == id) /* its rows are written this turn and point into it */
            return pm_fail(err, PM_EBUSY, "job %llu ended just now; ask again", (unsigned long long)id);
    pm_actions_op(&s->actions, PM_OP_JOB_DROP, id);
    pm_job_forget(s, id);
    return 0;
}

/* ---- beginning again: retry and restart ---- */

static char *copy_or_null(const char *text)
{
    return text && *text ? pm_xstrdup(text) : NULL;
}

static void build_pages(struct job *j, const struct pm_job_image *image)
{
    j->is_open = image->is_open;
    j->page_count = image->page_count;
    j->pages = image->page_count ? pm_xalloc(image->page_count * sizeof *j->pages) : NULL;
    j->pages_total = image->page_count;
    j->pages_open = image->page_count;
    j->pages_laid = j->pages_done = j->pages_failed = j->regions = j->regions_done = j->regions_failed = 0;
    for (uint32_t i = 0; i < image->page_count; i++) {
        const struct pm_page_image *from = &image->pages[i];
        j->pages[i] = (struct page){.page = from->page,
                                    .width = from->width,
                                    .height = from->height,
                                    .generation = from->generation,
                                    .stage = PM_STAGE_LAYOUT};
    }
}

/* A page that ended, taken over as it is. */
static void take_ended_page(struct job *j, struct page *p, const struct pm_page_image *image)
{
    p->stage = (uint8_t)image->stage;
    p->regions_wanted = image->regions;
    p->regions_failed = image->regions_failed;
    j->pages_open--;
    if (p->stage == PM_STAGE_FAILED) {
        j->pages_failed++;
        if (!j->error_code)
            set_error(j, image->error_code, image->error_text);
        return;
    }
    j->pages_done++;
    j->pages_laid++;
    j->regions += image->regions;
    j->regions_done += image->regions - image->regions_failed;
    j->regions_failed += image->regions_failed;
}

/* A page in the middle of its regions. */
static void take_running_page(struct pm_sched *s, struct job *j, struct page *p,
                              const struct pm_page_image *image)
{
    p->record = copy_or_null(image->record);
    p->sheet = copy_or_null(image->sheet);
    p->sheet_bytes = image->sheet_bytes;
    p->region_count = image->cost_count;
    p->regions = pm_xalloc(image->cost_count * sizeof *p->regions + 1);
    for (uint32_t i = 0; i < image->cost_count; i++)
        p->regions[i].cost = image->costs[i];
    for (uint32_t i = 0; i < image->final_count; i++) {
        const struct pm_region_image *f = &image->finals[i];
        if (f->region < p->region_count && p->regions[f->region].cost)
            p->regions[f->region].t.state = f->is_failed ? TASK_FAILED : TASK_DONE;
    }
    p->layout.state = TASK_DONE;
    pm_page_begin_regions(s, j, p);
}

int pm_sched_restore(struct pm_sched *s, struct pm_now now, const struct pm_job_image *image,
                     struct pm_error *err)
{
    s->now_us = now.us;
    if (image->job == 0 || image->job > PM_TASK_MAX_JOB || pm_stub_find(s, image->job) ||
        image->info.state < PM_JOB_QUEUED || image->info.state > PM_JOB_CANCELLED)
        return pm_fail(err, PM_EFORMAT, "journal: job %llu is damaged", (unsigned long long)image->job);
    const struct pm_job_info *info = &image->info;
    struct stub *stub = pm_stub_new(s, image->job, info->client, &image->submit, info->state);
    stub->generation = image->generation;
    bool has_ended = info->state > PM_JOB_RUNNING;
    stub->has_failures = has_ended && (info->pages_failed || info->regions_failed);
    int64_t steady_us = pm_steady_us(s, now);
    if (has_ended) /* an end that is still to come: the clock was wrong then */
        stub->time_us = info->finished_wall_us < steady_us ? info->finished_wall_us : steady_us;
    else
        set_deadline(s, now, image->job, image->submit.deadline_s,
                     image->generation ? now.wall_us : info->created_wall_us);
    if (pm_stub_may_sleep(s) &&
        (has_ended || (info->state == PM_JOB_QUEUED && !image->is_open && !image->tries_count))) {
        if (!has_ended) {
            stub->time_us = now.us;
            pm_queue_sleeper(s, image->job, stub);
        }
        return 0;
    }
    struct job *j = pm_job_body(s, image->job, &image->submit);
    j->created_wall_us = info->created_wall_us;
    j->deadline_from_us = image->generation ? now.wall_us : info->created_wall_us;
    j->started_wall_us = info->started_wall_us;
    j->finished_wall_us = info->finished_wall_us;
    j->retries = info->retries;
    if (has_ended) {
        set_error(j, info->error_code, info->error_text);
        j->is_open = image->is_open;
        j->pages_total = info->pages;
        j->pages_done = info->pages_done;
        j->pages_failed = info->pages_failed;
        j->regions = info->regions;
        j->regions_done = info->regions_done;
        j->regions_failed = info->regions_failed;
        return 0;
    }
    if (info->state == PM_JOB_RUNNING && s->config.adopt_us)
        s->adopt_until_us = now.us + s->config.adopt_us;
    build_pages(j, image);
    for (uint32_t i = 0; i < j->page_count; i++) {
        struct page *p = &j->pages[i];
        if (image->pages[i].stage == PM_STAGE_REGIONS)
            take_running_page(s, j, p, &image->pages[i]);
        else if (image->pages[i].stage != PM_STAGE_LAYOUT)
            take_ended_page(j, p, &image->pages[i]);
    }
    for (uint32_t i = 0; i < image->tries_count; i++) {
        struct ref r;
        const struct pm_tries_image *t = &image->tries[i];
        if (!pm_sched_ref(s, t->task, &r))
            continue;
        r.t->fails = (uint8_t)(t->fails > 255 ? 255 : t->fails);
        r.t->crashes = (uint8_t)(t->crashes > 255 ? 255 : t->crashes);
        r.t->is_suspect = t->is_suspect;
    }
    if (!j->is_open) {
        struct ref open = pm_ref_of(j, NULL, PM_TASK_SLOT_PAGE);
        pm_task_ready(s, &open);
        return 0;
    }
    j->open.state = TASK_DONE;
    for (uint32_t i = 0; i < j->page_count; i++) {
        struct ref r = pm_ref_of(j, &j->pages[i], PM_TASK_SLOT_PAGE);
        if (j->pages[i].stage == PM_STAGE_LAYOUT)
            pm_task_ready(s, &r);
        else if (j->pages[i].stage == PM_STAGE_REGIONS)
            pm_page_check(s, now, j, &j->pages[i]);
    }
    pm_job_check(s, now, j);
    return 0;
}

void pm_sched_adopt_end(struct pm_sched *s)
{
    s->adopt_until_us = 0;
}

/* Takes a page back to its beginning, under a new generation: nothing of the old one counts any more. */
void pm_page_reset(struct pm_sched *s, struct job *j, struct page *p)
{
    if (p->stage == PM_STAGE_LAYOUT || p->stage == PM_STAGE_REGIONS)
        pm_page_stop(s, j, p, "fenced");
    else
        j->pages_open++;
    if (p->stage == PM_STAGE_FAILED)
        j->pages_failed--;
    if (p->stage == PM_STAGE_DONE)
        j->pages_done--;
    if (p->stage == PM_STAGE_REGIONS || p->stage == PM_STAGE_DONE) {
        j->pages_laid--;
        uint32_t open = p->stage == PM_STAGE_REGIONS ? p->regions_open : 0;
        j->regions -= p->regions_wanted;
        j->regions_failed -= p->regions_failed;
        j->regions_done -= p->regions_wanted - p->regions_failed - open;
    }
    pm_page_forget_sheet(s, j, p);
    free(p->regions);
    free(p->order);
    *p = (struct page){.page = p->page,
                       .width = p->width,
                       .height = p->height,
                       .generation = (p->generation + 1) & 0xffffff,
                       .stage = PM_STAGE_LAYOUT,
                       .reruns = p->reruns};
    struct pm_op *op = pm_actions_op(&s->actions, PM_OP_PAGE_RESET, j->id);
    op->page = p->page;
    op->generation = p->generation;
    struct ref r = pm_ref_of(j, p, PM_TASK_SLOT_PAGE);
    pm_task_ready(s, &r);
}

enum pm_retry_need pm_sched_retry_need(const struct pm_sched *s, uint64_t id)
{
    const struct stub *stub = pm_stub_find(s, id);
    if (!stub)
        return PM_RETRY_REFUSED;
    bool is_whole = stub->state == PM_JOB_DONE && !stub->has_failures;
    if (stub->state > PM_JOB_RUNNING && !is_whole)
        return PM_RETRY_NEEDED;
    return stub->generation ? PM_RETRY_UNDER_WAY : PM_RETRY_REFUSED;
}

int pm_sched_retry(struct pm_sched *s, struct pm_now now, const struct pm_job_image *image,
                   struct pm_error *err)
{
    s->now_us = now.us;
    uint32_t state = pm_sched_state(s, image->job);
    if (!state)
        return pm_fail(err, PM_ENOTFOUND, "there is no job %llu", (unsigned long long)image->job);
    if (state <= PM_JOB_RUNNING)
        return pm_fail(err, PM_EBUSY, "job %llu is still %s", (unsigned long long)image->job,
                       pm_job_state_name(state));
    if (pm_sched_retry_need(s, image->job) != PM_RETRY_NEEDED)
        return pm_fail(err, PM_EINVAL, "nothing failed in job %llu: there is nothing to retry",
                       (unsigned long long)image->job);
    if (s->is_draining)
        return pm_fail(err, PM_EBUSY, "the broker is stopping and takes no new work");
    struct job *j = pm_sched_find(s, image->job);
    if (!j) {
        j = pm_job_body(s, image->job, &image->submit);
        j->created_wall_us = image->info.created_wall_us;
        j->started_wall_us = image->info.started_wall_us;
        j->retries = image->info.retries;
    }
    pm_job_set_state(s, j->id, PM_JOB_QUEUED);
    pm_ids_push(&s->young, j->id);
    set_error(j, NULL, NULL);
    j->finished_wall_us = 0;
    j->generation = (j->generation + 1) & 0xffffff;
    j->stub->generation = j->generation;
    j->deadline_from_us = now.wall_us;
    set_deadline(s, now, j->id, j->submit.deadline_s, now.wall_us);
    j->open = j->doc = (struct tries){0};
    struct pm_op *op = pm_actions_op(&s->actions, PM_OP_JOB_RETRY, j->id);
    op->generation = j->generation;
    build_pages(j, image);
    if (!j->is_open) {
        struct ref open = pm_ref_of(j, NULL, PM_TASK_SLOT_PAGE);
        pm_task_ready(s, &open);
    } else {
        j->open.state = TASK_DONE;
        for (uint32_t i = 0; i < j->page_count; i++) {
            const struct pm_page_image *p = &image->pages[i];
            if (p->stage == PM_STAGE_DONE && !p->regions_failed)
                take_ended_page(j, &j->pages[i], p);
            else
                pm_page_reset(s, j, &j->pages[i]);
        }
        pm_job_check(s, now, j);
    }
    pm_sched_event(s, j, PM_EVENT_STATE, NULL, 0, NULL, NULL);
    return 0;
}

void pm_sched_drain(struct pm_sched *s, bool is_draining)
{
    s->is_draining = is_draining;
}

void pm_sched_disk_full(struct pm_sched *s, bool is_full)
{
    s->is_disk_full = is_full;
}
