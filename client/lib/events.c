#include "client/lib/internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

#define MOST_QUEUED 65536 /* a program that never takes its events costs this many and learns by RESYNC */

static void convert_details(struct pm_arena *arena, const struct pm_job_info *info, struct pagemill_job *out)
{
    struct pagemill_attempt *attempts = pm_arena_alloc(arena, info->attempt_count * sizeof *attempts);
    struct pagemill_stage *stages = pm_arena_alloc(arena, info->stage_count * sizeof *stages);
    for (uint32_t i = 0; i < info->attempt_count; i++) {
        const struct pm_attempt *a = &info->attempts[i];
        attempts[i] = (struct pagemill_attempt){.page = a->page,
                                                .region = a->region,
                                                .kind = pm_kind_name(a->kind),
                                                .attempt = a->attempt,
                                                .cause = a->cause,
                                                .code = a->code,
                                                .text = a->text,
                                                .peer = a->peer,
                                                .version = a->version,
                                                .time_us = a->wall_us};
    }
    for (uint32_t i = 0; i < info->stage_count; i++) {
        const struct pm_stage *g = &info->stages[i];
        stages[i] = (struct pagemill_stage){g->kind, g->done, g->wait_us, g->run_us};
    }
    out->attempts = attempts;
    out->attempt_count = info->attempt_count;
    out->stages = stages;
    out->stage_count = info->stage_count;
}

/* The record's strings live in the same arena as `out`. */
void pm_client_job(struct pm_arena *arena, const struct pm_job_info *info, struct pagemill_job *out)
{
    *out = (struct pagemill_job){.job = info->job,
                                 .name = info->name,
                                 .client = info->client,
                                 .batch = info->batch,
                                 .key = info->key,
                                 .stem = info->stem,
                                 .reader = info->reader,
                                 .state = info->state,
                                 .priority = info->priority,
                                 .pages = info->pages,
                                 .pages_done = info->pages_done,
                                 .pages_failed = info->pages_failed,
                                 .regions = info->regions,
                                 .regions_done = info->regions_done,
                                 .regions_failed = info->regions_failed,
                                 .retries = info->retries,
                                 .created_us = info->created_wall_us,
                                 .started_us = info->started_wall_us,
                                 .finished_us = info->finished_wall_us,
                                 .error_code = info->error_code,
                                 .error_text = info->error_text,
                                 .source_bytes = info->source_bytes,
                                 .error_count = info->error_count,
                                 .opened_us = info->opened_wall_us,
                                 .first_page_us = info->first_page_wall_us,
                                 .deadline_us = info->deadline_wall_us,
                                 .eta_us = info->eta_us,
                                 .pages_known = info->pages_known,
                                 .tokens = info->tokens,
                                 .drafted = info->drafted,
                                 .accepted = info->accepted};
    convert_details(arena, info, out);
    struct pagemill_page_error *errors = pm_arena_alloc(arena, info->error_count * sizeof *errors);
    for (uint32_t i = 0; i < info->error_count; i++)
        errors[i] = (struct pagemill_page_error){.page = info->errors[i].page,
                                                 .region = info->errors[i].region,
                                                 .code = info->errors[i].code,
                                                 .text = info->errors[i].text,
                                                 .attempts = info->errors[i].attempts};
    out->errors = errors;
}

static void free_node(struct pm_event_node *node)
{
    if (node)
        pm_arena_free(&node->arena);
    free(node);
}

static void push(pagemill *pm, struct pm_event_node *node)
{
    if (pm->last)
        pm->last->next = node;
    else
        pm->first = node;
    pm->last = node;
    pm->queued++;
}

/* A queued PROGRESS of the same job, when nothing else of that job came after it. */
static struct pm_event_node *newest_progress(pagemill *pm, uint64_t job)
{
    struct pm_event_node *found = NULL;
    size_t looked = 0;
    for (struct pm_event_node *n = pm->first; n && looked < 256; n = n->next, looked++)
        if (n->event.job.job == job)
            found = n->event.kind == PAGEMILL_EVENT_PROGRESS ? n : NULL;
    return looked < 256 ? found : NULL;
}

void pm_client_push_event(pagemill *pm, const struct pm_msg_event *record, struct pm_arena *arena)
{
    struct pm_event_node *node = NULL;
    if (record->kind == PM_EVENT_PROGRESS)
        node = newest_progress(pm, record->info.job);
    if (node) {
        pm_arena_free(&node->arena);
    } else {
        if (pm->queued >= MOST_QUEUED || !(node = calloc(1, sizeof *node))) {
            pm->missed_events = pm->queued < MOST_QUEUED; /* a full queue says so when it is taken, below */
            return;
        }
        push(pm, node);
    }
    node->arena = *arena;
    *arena = (struct pm_arena){0};
    node->event = (struct pagemill_event){.kind = (int)record->kind,
                                          .page = record->page,
                                          .region = record->region,
                                          .page_blob = record->page_blob,
                                          .text = record->text};
    pm_client_job(&node->arena, &record->info, &node->event.job);
}

static const struct pagemill_job no_job = {.name = "",
                                           .client = "",
                                           .batch = "",
                                           .key = "",
                                           .stem = "",
                                           .reader = "",
                                           .error_code = "",
                                           .error_text = ""};

void pm_client_push_resync(pagemill *pm)
{
    if (pm->last && pm->last->event.kind == PAGEMILL_EVENT_RESYNC)
        return;
    struct pm_event_node *node = calloc(1, sizeof *node);
    if (!node) {
        pm->missed_events = true; /* again in the next turn */
        return;
    }
    node->event =
        (struct pagemill_event){.kind = PAGEMILL_EVENT_RESYNC, .page_blob = "", .text = "", .job = no_job};
    push(pm, node);
}

void pm_client_free_events(pagemill *pm)
{
    while (pm->first) {
        struct pm_event_node *next = pm->first->next;
        free_node(pm->first);
        pm->first = next;
    }
    free_node(pm->shown);
    pm->last = pm->shown = NULL;
    pm->queued = 0;
}

static struct pm_event_node *take(pagemill *pm, struct pm_event_node *before, struct pm_event_node *node)
{
    if (pm->queued == MOST_QUEUED)
        pm->missed_events = true;
    if (before)
        before->next = node->next;
    else
        pm->first = node->next;
    if (pm->last == node)
        pm->last = before;
    node->next = NULL;
    pm->queued--;
    return node;
}

int pagemill_next_event(pagemill *pm, int64_t timeout_ms, const struct pagemill_event **out,
                        struct pagemill_error *public_err)
{
    struct pm_error *err = pm_client_error(public_err);
    int64_t deadline = pm_client_deadline(timeout_ms);
    *out = NULL;
    free_node(pm->shown);
    pm->shown = NULL;
    for (;;) {
        int rc = pm->first ? 0 : pm_client_pump(pm, err);
        if (pm->first) {
            pm->shown = take(pm, NULL, pm->first);
            *out = &pm->shown->event;
            pm_client_show_work(pm);
            return 0;
        }
        if (rc || (rc = pm_client_wait_io(pm, deadline, false, err)))
            return rc;
    }
}

int pagemill_watch(pagemill *pm, uint64_t job, const char *batch, int partial, int64_t timeout_ms,
                   struct pagemill_error *err)
{
    struct pm_msg_watch watch = {
        .ref = pm_client_ref(pm), .job = job, .batch = batch ? batch : "", .partial = partial != 0};
    struct pm_answer answer;
    int rc = pm_client_call(pm, PM_MSG_WATCH, &watch, watch.ref, PM_MSG_DONE, pm_client_deadline(timeout_ms),
                            &answer, pm_client_error(err));
    if (rc)
        return rc;
    pm_answer_free(&answer);
    for (size_t i = 0; i < pm->watch_count; i++)
        if (pm->watches[i].job == job && !strcmp(pm->watches[i].batch, watch.batch)) {
            pm->watches[i].partial = watch.partial;
            return 0;
        }
    PM_GROW(pm->watches, pm->watch_count, pm->watch_capacity);
    pm->watches[pm->watch_count++] =
        (struct pm_watch){.job = job, .batch = pm_xstrdup(watch.batch), .partial = watch.partial};
    return 0;
}

/* ---- waiting for one job ---- */

static void forget_watch(pagemill *pm, uint64_t job)
{
    for (size_t i = 0; i < pm->watch_count; i++)
        if (job && pm->watches[i].job == job) {
            free(pm->watches[i].batch);
            pm->watches[i] = pm->watches[--pm->watch_count];
            return;
        }
}

static bool is_watched(const pagemill *pm, uint64_t job)
{
    for (size_t i = 0; i < pm->watch_count; i++)
        if (pm->watches[i].job == job)
            return true;
    return false;
}

/* Removes this job's queued events; true when one of them tells its end. */
static bool drop_events_of(pagemill *pm, uint64_t job)
{
    bool should_look = false;
    struct pm_event_node *before = NULL, *node = pm->first;
    while (node) {
        struct pm_event_node *next = node->next;
        bool is_ours = node->event.job.job == job;
        should_look |= is_ours && pagemill_job_is_final((int)node->event.job.state);
        if (is_ours)
            free_node(take(pm, before, node));
        else
            before = node;
        node = next;
    }
    return should_look;
}

static int outcome(const struct pagemill_job *job, struct pm_error *err)
{
    if (job->state == PAGEMILL_JOB_DONE)
        return 0;
    if (job->state == PAGEMILL_JOB_CANCELLED)
        return pm_fail(err, PM_ECANCELLED, "job %llu was cancelled", (unsigned long long)job->job);
    int code = *job->error_code ? pm_err_from_name(job->error_code) : PM_EINTERNAL;
    return pm_fail(err, code ? code : PM_EINTERNAL, "%s", job->error_text);
}

int pagemill_wait(pagemill *pm, uint64_t job, int64_t timeout_ms, struct pagemill_jobs **out,
                  struct pagemill_error *public_err)
{
    struct pm_error *err = pm_client_error(public_err);
    int64_t deadline = pm_client_deadline(timeout_ms);
    struct pagemill_jobs *status = NULL;
    bool was_watched = is_watched(pm, job), should_look = true;
    if (out)
        *out = NULL;
    int rc = was_watched ? 0 : pagemill_watch(pm, job, NULL, 0, timeout_ms, public_err);
    /* Events are wake-ups; the status is the truth. It is also looked at after a lost link, and now and then.
     */
    int64_t look_at = 0;
    uint64_t connection = pm->connection;
    while (!rc) {
        if (should_look || pm_clock_us() >= look_at) {
            int64_t left = deadline == INT64_MAX ? -1 : (deadline - pm_clock_us()) / 1000;
            pagemill_jobs_free(&status);
            rc = pagemill_status(pm, job, left < -1 ? 0 : left, &status, public_err);
            if (rc || pagemill_job_is_final((int)status->jobs[0].state))
                break;
            look_at = pm_clock_us() + 5000000;
        }
        rc = pm_client_pump(pm, err);
        should_look = drop_events_of(pm, job) || pm->connection != connection;
        connection = pm->connection;
        if (!rc && !should_look &&
            (rc = pm_client_wait_io(pm, deadline < look_at ? deadline : look_at, false, err)) == PM_ETIMEOUT)
            rc = pm_clock_us() >= deadline ? rc : 0;
    }
    if (!rc)
        rc = outcome(&status->jobs[0], err);
    if (!was_watched)
        forget_watch(pm, job);
    if (out)
        *out = status;
    else
        pagemill_jobs_free(&status);
    return rc;
}
