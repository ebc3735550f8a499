/* Jobs: submit, cancel, retry, forget, restore, and what is told about them. */
#include "broker/scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/sched_internal.h"

#define DEFAULT_READER "fast"
#define QUEUES_MOST    64 /* readers that jobs name before any worker has come to say which there are */

struct pm_sched *pm_sched_new(const struct pm_sched_config *config)
{
    struct pm_sched *s = pm_xalloc(sizeof *s);
    s->config = *config;
    struct pm_sched_config *c = &s->config;
    c->max_jobs = c->max_jobs ? c->max_jobs : 100000;
    c->pixel_budget_bytes = c->pixel_budget_bytes ? c->pixel_budget_bytes : (uint64_t)512 << 20;
    c->max_attempts = c->max_attempts ? c->max_attempts : 5;
    c->max_crashes = c->max_crashes ? c->max_crashes : 2;
    c->stall_us = c->stall_us ? c->stall_us : 5000000;
    c->age_us = c->age_us ? c->age_us : 10000000;
    s->next_job = c->first_job ? c->first_job : 1;
    s->oldest_job = s->next_job;
    s->random = c->seed * 2 + 1;
    s->next_peer = 1;
    s->bytes_per_pixel = 1.0;
    for (int i = 0; i < 2; i++) { /* the two fixed queues: layout and collect */
        PM_GROW(s->queues, s->queue_count, s->queue_capacity);
        s->queues[s->queue_count] = pm_xalloc(sizeof **s->queues);
        s->queues[s->queue_count++]->reader = pm_xstrdup("");
    }
    return s;
}

static void free_pages(struct pm_sched *s, struct job *j)
{
    for (uint32_t i = 0; i < j->page_count; i++) {
        pm_page_forget_sheet(s, j, &j->pages[i]);
        free(j->pages[i].regions);
    }
    free(j->pages);
    j->pages = NULL;
    j->page_count = 0;
    pm_heap_free(&j->ready_pages);
    pm_heap_free(&j->ready_regions);
    pm_heap_free(&j->ready_assemble);
}

static void free_job(struct pm_sched *s, struct job *j)
{
    free_pages(s, j);
    free(j->strings);
    free(j->error_code);
    free(j->error_text);
    free(j);
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
    for (cursor = 0; pm_map_next(&s->jobs, &cursor, &key, &value);)
        free_job(s, value);
    pm_map_free(&s->jobs);
    pm_strmap_free(&s->by_key);
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
            free(q->lanes[k].client);
            for (unsigned level = 0; level < PM_SCHED_LEVELS; level++) {
                pm_heap_free(&q->lanes[k].jobs[level][0]);
                pm_heap_free(&q->lanes[k].jobs[level][1]);
            }
        }
        free(q->lanes);
        free(q->reader);
        free(q);
    }
    free(s->queues);
    free(s->timers);
    free(s->expiry);
    pm_actions_free(&s->actions);
    free(s);
    *sched = NULL;
}

struct pm_actions *pm_sched_actions(struct pm_sched *s)
{
    return &s->actions;
}

/* ---- finding ---- */

struct job *pm_sched_find(const struct pm_sched *s, uint64_t id)
{
    return pm_map_get(&s->jobs, id);
}

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

void pm_sched_event(struct pm_sched *s, const struct job *j, enum pm_event_kind kind, const struct page *p,
                    uint32_t region, const char *blob, const char *text)
{
    struct pm_action *a = pm_actions_add(&s->actions, PM_ACTION_EVENT);
    a->job = j->id;
    a->event = kind;
    a->page = p ? p->page : 0;
    a->region = region;
    a->blob = pm_actions_text(&s->actions, blob);
    a->text = pm_actions_text(&s->actions, text);
}

/* ---- making jobs ---- */

/* Every string of a submit, in one block: jobs are many. */
static void copy_submit(struct job *j, const char *client, const struct pm_msg_submit *m)
{
    j->submit = *m;
    struct pm_options *o = &j->submit.options;
    if (!o->reader || !*o->reader)
        o->reader = DEFAULT_READER;
    const char **texts[] = {&j->submit.key, &j->submit.name, &j->submit.source, &j->submit.batch,
                            &o->pages,      &o->password,    &o->reader,        &o->formats,
                            &o->drop,       &o->stem,        &o->whole,         &client};
    const size_t count = sizeof texts / sizeof *texts;
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        if (!*texts[i])
            *texts[i] = "";
        bytes += strlen(*texts[i]) + 1;
    }
    char *at = j->strings = pm_xalloc(bytes);
    for (size_t i = 0; i < count; i++) {
        size_t size = strlen(*texts[i]) + 1;
        memcpy(at, *texts[i], size);
        *texts[i] = at;
        at += size;
    }
    j->client = client;
    j->stem = o->stem;
    if (j->submit.priority >= PM_SCHED_LEVELS)
        j->submit.priority = PM_SCHED_LEVELS - 1;
}

static char *key_of(const struct job *j)
{
    return pm_xprintf("%s\x1f%s", j->client, j->submit.key);
}

static struct job *add_job(struct pm_sched *s, uint64_t id, const char *client, const struct pm_msg_submit *m)
{
    struct job *j = pm_xalloc(sizeof *j);
    j->id = id;
    copy_submit(j, client, m);
    j->region_queue = pm_queue_of_reader(s, j->submit.options.reader);
    pm_map_put(&s->jobs, id, j);
    if (*j->submit.key) {
        char *key = key_of(j);
        pm_strmap_put(&s->by_key, key, j);
        free(key);
    }
    if (id >= s->next_job)
        s->next_job = id + 1;
    if (id < s->oldest_job)
        s->oldest_job = id;
    return j;
}

static void set_state(struct pm_sched *s, struct job *j, uint32_t state)
{
    if (j->state)
        s->stats.jobs[j->state]--;
    j->state = state;
    s->stats.jobs[state]++;
}

uint64_t pm_sched_known(const struct pm_sched *s, const char *client, const char *key)
{
    if (!key || !*key)
        return 0;
    char *full = pm_xprintf("%s\x1f%s", client, key);
    const struct job *known = pm_strmap_get(&s->by_key, full);
    free(full);
    return known ? known->id : 0;
}

const char *pm_sched_default_reader(const struct pm_sched *s)
{
    const char *only = NULL;
    for (size_t i = QUEUE_REGION; i < s->queue_count; i++) {
        const struct queue *q = s->queues[i];
        if (!q->was_served)
            continue;
        if (only || !strcmp(q->reader, DEFAULT_READER))
            return DEFAULT_READER;
        only = q->reader;
    }
    return only ? only : DEFAULT_READER;
}

int pm_sched_check_reader(const struct pm_sched *s, const char *reader, struct pm_error *err)
{
    char known[200] = "";
    size_t used = 0;
    bool is_queued = false;
    for (size_t i = QUEUE_REGION; i < s->queue_count; i++) {
        const struct queue *q = s->queues[i];
        bool is_it = !strcmp(q->reader, reader);
        if (is_it && q->was_served)
            return 0;
        is_queued |= is_it;
        if (q->was_served && used < sizeof known - 1)
            used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", q->reader);
    }
    if (used)
        return pm_fail(err, PM_EUNSUPPORTED, "no worker here reads with \"%.64s\"; there are: %s", reader,
                       known);
    if (!is_queued && s->queue_count >= QUEUES_MOST)
        return pm_fail(err, PM_EBUSY, "jobs wait for %zu different readers, and no worker is here yet",
                       s->queue_count - QUEUE_REGION);
    return 0;
}

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
    if (s->next_job > PM_TASK_MAX_JOB)
        return pm_fail(err, PM_ELIMIT, "job numbers are used up; start with a fresh state directory");
    struct job *j = add_job(s, s->next_job, client, m);
    j->created_wall_us = now.wall_us;
    set_state(s, j, PM_JOB_QUEUED);
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
    set_state(s, j, PM_JOB_RUNNING);
    j->started_wall_us = now.wall_us;
    pm_actions_op(&s->actions, PM_OP_JOB_RUN, j->id)->wall_us = now.wall_us;
    pm_sched_event(s, j, PM_EVENT_STATE, NULL, 0, NULL, NULL);
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

static void remember_end(struct pm_sched *s, uint64_t job)
{
    if (s->expiry_first > 1024 && s->expiry_first * 2 > s->expiry_count) {
        s->expiry_count -= s->expiry_first;
        memmove(s->expiry, s->expiry + s->expiry_first, s->expiry_count * sizeof *s->expiry);
        s->expiry_first = 0;
    }
    PM_GROW(s->expiry, s->expiry_count, s->expiry_capacity);
    s->expiry[s->expiry_count++] = job;
}

static void set_error(struct job *j, const char *code, const char *text)
{
    free(j->error_code);
    free(j->error_text);
    j->error_code = code && *code ? pm_xstrdup(code) : NULL;
    j->error_text = text && *text ? pm_xstrdup(text) : NULL;
}

static void drop_key(struct pm_sched *s, struct job *j)
{
    char *key = key_of(j);
    if (pm_strmap_get(&s->by_key, key) == j)
        pm_strmap_remove(&s->by_key, key);
    free(key);
    j->submit.key = "";
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
    free_pages(s, j);
    set_state(s, j, state);
    set_error(j, code, text);
    j->finished_wall_us = now.wall_us;
    remember_end(s, j->id);
    struct pm_op *op = pm_actions_op(&s->actions, PM_OP_JOB_FINISH, j->id);
    op->state = state;
    op->code = pm_actions_text(&s->actions, code);
    op->text = pm_actions_text(&s->actions, text);
    op->wall_us = now.wall_us;
    op->drops_key =
        *j->submit.key == PM_SCHED_OWN_KEY && (state != PM_JOB_DONE || j->pages_failed || j->regions_failed);
    if (op->drops_key)
        drop_key(s, j);
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

int pm_sched_cancel(struct pm_sched *s, struct pm_now now, uint64_t id, struct pm_error *err)
{
    s->now_us = now.us;
    struct job *j = pm_sched_find(s, id);
    if (!j)
        return pm_fail(err, PM_ENOTFOUND, "there is no job %llu", (unsigned long long)id);
    if (j->state == PM_JOB_CANCELLED)
        return 0; /* asked twice: the first answer was lost */
    if (j->state > PM_JOB_RUNNING)
        return pm_fail(err, PM_EINVAL, "job %llu has already ended (%s)", (unsigned long long)id,
                       pm_job_state_name(j->state));
    pm_job_finish(s, now, j, PM_JOB_CANCELLED, "cancelled", "cancelled on request", NULL);
    return 0;
}

int pm_sched_forget(struct pm_sched *s, uint64_t id, struct pm_error *err)
{
    struct job *j = pm_sched_find(s, id);
    if (!j)
        return pm_fail(err, PM_ENOTFOUND, "there is no job %llu", (unsigned long long)id);
    if (j->state <= PM_JOB_RUNNING)
        return pm_fail(err, PM_EBUSY, "job %llu is still %s; cancel it first", (unsigned long long)id,
                       pm_job_state_name(j->state));
    for (size_t i = 0; i < s->actions.op_count; i++)
        if (s->actions.ops[i].job == id) /* its rows are written this turn and point into it */
            return pm_fail(err, PM_EBUSY, "job %llu ended just now; ask again", (unsigned long long)id);
    pm_actions_op(&s->actions, PM_OP_JOB_DROP, id);
    if (*j->submit.key)
        drop_key(s, j);
    s->stats.jobs[j->state]--;
    pm_map_remove(&s->jobs, id);
    free_job(s, j);
    while (s->oldest_job < s->next_job && !pm_sched_find(s, s->oldest_job))
        s->oldest_job++;
    return 0;
}

uint64_t pm_sched_expired(struct pm_sched *s, int64_t wall_us)
{
    while (s->expiry_first < s->expiry_count) {
        const struct job *j = pm_sched_find(s, s->expiry[s->expiry_first]);
        if (j && j->state > PM_JOB_RUNNING)
            return j->finished_wall_us <= wall_us ? j->id : 0;
        s->expiry_first++; /* forgotten, or running again */
    }
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
    j->pages_done = j->pages_failed = j->regions = j->regions_done = j->regions_failed = 0;
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
    if (image->job == 0 || image->job > PM_TASK_MAX_JOB || pm_sched_find(s, image->job) ||
        image->info.state < PM_JOB_QUEUED || image->info.state > PM_JOB_CANCELLED)
        return pm_fail(err, PM_EFORMAT, "journal: job %llu is damaged", (unsigned long long)image->job);
    struct job *j = add_job(s, image->job, image->info.client, &image->submit);
    const struct pm_job_info *info = &image->info;
    j->generation = image->generation;
    j->created_wall_us = info->created_wall_us;
    j->started_wall_us = info->started_wall_us;
    j->finished_wall_us = info->finished_wall_us;
    j->retries = info->retries;
    set_state(s, j, info->state);
    if (info->state > PM_JOB_RUNNING) {
        set_error(j, info->error_code, info->error_text);
        j->is_open = image->is_open;
        j->pages_total = info->pages;
        j->pages_done = info->pages_done;
        j->pages_failed = info->pages_failed;
        j->regions = info->regions;
        j->regions_done = info->regions_done;
        j->regions_failed = info->regions_failed;
        remember_end(s, j->id);
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
        uint32_t open = p->stage == PM_STAGE_REGIONS ? p->regions_open : 0;
        j->regions -= p->regions_wanted;
        j->regions_failed -= p->regions_failed;
        j->regions_done -= p->regions_wanted - p->regions_failed - open;
    }
    pm_page_forget_sheet(s, j, p);
    free(p->regions);
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
    const struct job *j = pm_sched_find(s, id);
    if (!j)
        return PM_RETRY_REFUSED;
    bool is_whole = j->state == PM_JOB_DONE && !j->pages_failed && !j->regions_failed;
    if (j->state > PM_JOB_RUNNING && !is_whole)
        return PM_RETRY_NEEDED;
    return j->generation ? PM_RETRY_UNDER_WAY : PM_RETRY_REFUSED;
}

int pm_sched_retry(struct pm_sched *s, struct pm_now now, const struct pm_job_image *image,
                   struct pm_error *err)
{
    s->now_us = now.us;
    struct job *j = pm_sched_find(s, image->job);
    if (!j)
        return pm_fail(err, PM_ENOTFOUND, "there is no job %llu", (unsigned long long)image->job);
    if (j->state <= PM_JOB_RUNNING)
        return pm_fail(err, PM_EBUSY, "job %llu is still %s", (unsigned long long)j->id,
                       pm_job_state_name(j->state));
    if (j->state == PM_JOB_DONE && !j->pages_failed && !j->regions_failed)
        return pm_fail(err, PM_EINVAL, "nothing failed in job %llu: there is nothing to retry",
                       (unsigned long long)j->id);
    if (s->is_draining)
        return pm_fail(err, PM_EBUSY, "the broker is stopping and takes no new work");
    set_state(s, j, PM_JOB_QUEUED);
    set_error(j, NULL, NULL);
    j->finished_wall_us = 0;
    j->generation = (j->generation + 1) & 0xffffff;
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

/* ---- telling ---- */

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

bool pm_sched_info(const struct pm_sched *s, uint64_t id, struct pm_job_info *out)
{
    const struct job *j = pm_sched_find(s, id);
    if (!j)
        return false;
    bool has_error = j->state == PM_JOB_FAILED || j->state == PM_JOB_CANCELLED;
    *out = (struct pm_job_info){.job = j->id,
                                .name = j->submit.name,
                                .client = j->client,
                                .batch = j->submit.batch,
                                .key = j->submit.key,
                                .state = j->state,
                                .priority = j->submit.priority,
                                .pages = j->pages_total,
                                .pages_done = j->pages_done,
                                .pages_failed = j->pages_failed,
                                .regions = j->regions,
                                .regions_done = j->regions_done,
                                .regions_failed = j->regions_failed,
                                .retries = j->retries,
                                .pages_known = j->pages_known,
                                .created_wall_us = j->created_wall_us,
                                .started_wall_us = j->started_wall_us,
                                .finished_wall_us = j->finished_wall_us,
                                .error_code = has_error ? or_empty(j->error_code) : "",
                                .error_text = has_error ? or_empty(j->error_text) : "",
                                .source_bytes = j->submit.source_bytes,
                                .stem = j->stem,
                                .reader = j->submit.options.reader};
    return true;
}

bool pm_sched_list(const struct pm_sched *s, uint64_t *cursor, struct pm_job_info *out)
{
    uint64_t at = *cursor && *cursor <= s->next_job ? *cursor : s->next_job;
    while (at > s->oldest_job) {
        if (pm_sched_info(s, --at, out)) {
            *cursor = at;
            return true;
        }
    }
    return false;
}

void pm_sched_sheets(const struct pm_sched *s,
                     void (*visit)(void *ctx, uint64_t job, uint32_t page, const char *sheet), void *ctx)
{
    size_t cursor = 0;
    uint64_t id;
    void *value;
    while (pm_map_next(&s->jobs, &cursor, &id, &value)) {
        const struct job *j = value;
        for (uint32_t i = 0; i < j->page_count; i++)
            if (j->pages[i].stage == PM_STAGE_REGIONS && j->pages[i].sheet)
                visit(ctx, j->id, j->pages[i].page, j->pages[i].sheet);
    }
}

void pm_sched_drain(struct pm_sched *s, bool is_draining)
{
    s->is_draining = is_draining;
}

void pm_sched_disk_full(struct pm_sched *s, bool is_full)
{
    s->is_disk_full = is_full;
}
