/* Jobs and fleets as JSON. The keys are documented in docs/operations.md; units are in their names. */
#include "base/log.h"
#include "client/cli/cli.h"
#include "client/cli/show.h"

int pm_show_json(json_t *value)
{
    int rc = json_dumpf(value, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(10));
    putchar('\n');
    json_decref(value);
    return rc || fflush(stdout) ? PM_EXIT_FAILED : PM_EXIT_OK;
}

static void set_number(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)(value > INT64_MAX ? INT64_MAX : value)));
}

static void set_seconds(json_t *object, const char *key, uint64_t us)
{
    json_object_set_new(object, key, json_real((double)us / 1e6));
}

/* Something that is not there is null, so that every key is always there. */
static void set_time(json_t *object, const char *key, int64_t wall_us)
{
    char text[PM_LOG_TIME];
    if (wall_us > 0)
        pm_log_time(wall_us, text);
    json_object_set_new(object, key, wall_us > 0 ? json_string(text) : json_null());
}

static void set_text(json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key, json_string(text));
}

static void set_optional(json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key, *text ? json_string(text) : json_null());
}

/* ---- a job ---- */

static json_t *errors_json(const struct pagemill_job *job)
{
    json_t *list = json_array();
    for (size_t i = 0; i < job->error_count; i++) {
        const struct pagemill_page_error *e = &job->errors[i];
        json_t *item = json_object();
        set_number(item, "page", e->page);
        set_number(item, "region", e->region);
        set_text(item, "code", e->code);
        set_text(item, "text", e->text);
        set_number(item, "attempts", e->attempts);
        json_array_append_new(list, item);
    }
    return list;
}

static json_t *attempts_json(const struct pagemill_job *job)
{
    json_t *list = json_array();
    for (size_t i = 0; i < job->attempt_count; i++) {
        const struct pagemill_attempt *a = &job->attempts[i];
        json_t *item = json_object();
        set_time(item, "time", a->time_us);
        set_text(item, "kind", a->kind);
        set_number(item, "page", a->page);
        set_number(item, "region", a->region);
        set_number(item, "attempt", a->attempt);
        set_text(item, "cause", a->cause);
        set_text(item, "code", a->code);
        set_text(item, "text", a->text);
        set_text(item, "peer", a->peer);
        set_text(item, "version", a->version);
        json_array_append_new(list, item);
    }
    return list;
}

static json_t *stages_json(const struct pagemill_job *job)
{
    json_t *list = json_array();
    for (size_t i = 0; i < job->stage_count; i++) {
        const struct pagemill_stage *s = &job->stages[i];
        json_t *item = json_object();
        set_text(item, "kind", s->kind);
        set_number(item, "done", s->done);
        set_seconds(item, "wait_s", s->wait_us);
        set_seconds(item, "run_s", s->run_us);
        json_array_append_new(list, item);
    }
    return list;
}

json_t *pm_show_job_json(const struct pagemill_job *job)
{
    json_t *o = json_object();
    set_number(o, "job", job->job);
    set_text(o, "state", pagemill_job_state_name((int)job->state));
    set_text(o, "name", job->name);
    set_text(o, "stem", job->stem);
    set_text(o, "client", job->client);
    set_text(o, "batch", job->batch);
    set_text(o, "key", job->key);
    set_text(o, "reader", job->reader);
    set_number(o, "priority", job->priority);
    set_number(o, "source_bytes", job->source_bytes);
    set_number(o, "pages", job->pages);
    set_number(o, "pages_done", job->pages_done);
    set_number(o, "pages_failed", job->pages_failed);
    set_number(o, "pages_known", job->pages_known);
    set_number(o, "regions", job->regions);
    set_number(o, "regions_done", job->regions_done);
    set_number(o, "regions_failed", job->regions_failed);
    set_number(o, "retries", job->retries);
    set_number(o, "tokens", job->tokens);
    set_number(o, "drafted", job->drafted);
    set_number(o, "accepted", job->accepted);
    set_time(o, "created", job->created_us);
    set_time(o, "started", job->started_us);
    set_time(o, "opened", job->opened_us);
    set_time(o, "first_page", job->first_page_us);
    set_time(o, "finished", job->finished_us);
    set_time(o, "deadline", job->deadline_us);
    json_object_set_new(o, "eta_s", job->eta_us ? json_real((double)job->eta_us / 1e6) : json_null());
    set_optional(o, "error", job->error_text);
    set_optional(o, "error_code", job->error_code);
    json_object_set_new(o, "errors", errors_json(job));
    json_object_set_new(o, "attempts", attempts_json(job));
    json_object_set_new(o, "stages", stages_json(job));
    return o;
}

/* ---- a result ---- */

static json_t *files_json(const struct pagemill_result *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->count; i++) {
        json_t *item = json_object();
        set_text(item, "name", r->files[i].name);
        set_number(item, "bytes", r->files[i].bytes);
        json_array_append_new(list, item);
    }
    return list;
}

static json_t *page_times_json(const struct pagemill_result *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->page_time_count; i++) {
        json_t *item = json_object();
        set_number(item, "page", r->page_times[i].page);
        set_time(item, "laid_out", r->page_times[i].laid_us);
        set_time(item, "read", r->page_times[i].read_us);
        set_time(item, "done", r->page_times[i].done_us);
        json_array_append_new(list, item);
    }
    return list;
}

static json_t *part_times_json(const struct pagemill_result *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->time_count; i++) {
        json_t *item = json_object();
        set_text(item, "kind", r->times[i].kind);
        set_text(item, "name", r->times[i].name);
        set_seconds(item, "s", r->times[i].us);
        set_number(item, "tasks", r->times[i].count);
        json_array_append_new(list, item);
    }
    return list;
}

json_t *pm_show_result_json(uint64_t job, const struct pagemill_result *r)
{
    json_t *o = json_object();
    set_number(o, "job", job);
    json_object_set_new(o, "files", files_json(r));
    set_number(o, "pages", r->pages);
    set_number(o, "pages_failed", r->pages_failed);
    set_number(o, "regions", r->regions);
    set_number(o, "regions_failed", r->regions_failed);
    set_number(o, "regions_cut", r->regions_cut);
    json_object_set_new(o, "confidence", json_real((double)r->confidence));
    set_number(o, "tokens", r->tokens);
    set_time(o, "accepted", r->accepted_us);
    set_time(o, "started", r->started_us);
    set_time(o, "opened", r->opened_us);
    set_time(o, "first_page", r->first_page_us);
    set_time(o, "finished", r->finished_us);
    json_object_set_new(o, "page_times", page_times_json(r));
    json_object_set_new(o, "times", part_times_json(r));
    return o;
}

/* ---- a fleet ---- */

static json_t *peers_json(const struct pagemill_stats *s)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->peer_count; i++) {
        const struct pagemill_peer *p = &s->peers[i];
        json_t *o = json_object(), *readers = json_array();
        set_text(o, "name", p->name);
        set_text(o, "role", p->role);
        set_text(o, "state", p->state);
        set_text(o, "version", p->version);
        set_text(o, "host", p->host);
        set_number(o, "pid", p->pid);
        for (size_t k = 0; k < p->reader_count; k++)
            json_array_append_new(readers, json_string(p->readers[k]));
        json_object_set_new(o, "readers", readers);
        set_number(o, "leases", p->leases);
        set_number(o, "credit", p->credit);
        set_number(o, "done", p->done);
        set_number(o, "failed", p->failed);
        set_number(o, "tokens", p->tokens);
        set_number(o, "rss_bytes", p->rss_bytes);
        set_seconds(o, "busy_s", p->busy_us);
        set_seconds(o, "up_s", p->up_us);
        set_seconds(o, "silent_s", p->silent_us);
        set_number(o, "task", p->task);
        set_seconds(o, "task_s", p->task_us);
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *queues_json(const struct pagemill_stats *s)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->queue_count; i++) {
        const struct pagemill_queue *q = &s->queues[i];
        json_t *o = json_object();
        set_text(o, "kind", q->kind);
        set_text(o, "reader", q->reader);
        set_number(o, "queued", q->queued);
        set_number(o, "leased", q->leased);
        set_seconds(o, "oldest_s", q->oldest_us);
        set_number(o, "done", q->done);
        set_number(o, "failed", q->failed);
        set_number(o, "retried", q->retried);
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *latencies_json(const struct pagemill_stats *s)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->latency_count; i++) {
        const struct pagemill_latency *l = &s->latencies[i];
        json_t *o = json_object();
        set_text(o, "name", l->name);
        set_text(o, "label", l->label);
        set_number(o, "count", l->count);
        set_seconds(o, "sum_s", l->sum_us);
        set_seconds(o, "p50_s", l->p50_us);
        set_seconds(o, "p99_s", l->p99_us);
        set_seconds(o, "max_s", l->max_us);
        json_array_append_new(list, o);
    }
    return list;
}

json_t *pm_show_stats_json(const struct pagemill_stats *s)
{
    json_t *o = json_object(), *counters = json_object(), *jobs = json_object();
    set_text(o, "version", s->version);
    set_number(o, "epoch", s->epoch);
    set_seconds(o, "up_s", s->up_us);
    json_object_set_new(o, "draining", json_boolean(s->is_draining));
    set_number(jobs, "queued", s->jobs_queued);
    set_number(jobs, "running", s->jobs_running);
    set_number(jobs, "done", s->jobs_done);
    set_number(jobs, "failed", s->jobs_failed);
    set_number(jobs, "cancelled", s->jobs_cancelled);
    json_object_set_new(o, "jobs", jobs);
    set_number(o, "pages_done", s->pages_done);
    set_number(o, "regions_done", s->regions_done);
    set_number(o, "tokens", s->tokens);
    set_number(o, "clients", s->clients);
    set_number(o, "pixel_bytes", s->pixel_bytes);
    set_number(o, "pixel_budget_bytes", s->pixel_budget_bytes);
    set_number(o, "disk_bytes_free", s->disk_bytes_free);
    set_number(o, "state_bytes", s->state_bytes);
    set_number(o, "rss_bytes", s->rss_bytes);
    json_object_set_new(o, "peers", peers_json(s));
    json_object_set_new(o, "queues", queues_json(s));
    json_object_set_new(o, "latencies", latencies_json(s));
    for (size_t i = 0; i < s->counter_count; i++)
        set_number(counters, s->counters[i].name, s->counters[i].value);
    json_object_set_new(o, "counters", counters);
    return o;
}
