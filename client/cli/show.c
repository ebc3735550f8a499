#include "client/cli/show.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "client/cli/cli.h"
#include "client/cli/progress.h"

/* ---- pieces ---- */

void pm_show_text(const char *text, FILE *out)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        fputc(*p < 0x20 || *p == 0x7f ? '?' : *p, out);
}

void pm_show_duration(int64_t us, char *text, size_t text_bytes)
{
    if (us < 0)
        us = 0;
    if (us < 1000000)
        snprintf(text, text_bytes, "%" PRId64 " ms", us / 1000);
    else if (us < 60000000)
        snprintf(text, text_bytes, "%.1f s", (double)us / 1e6);
    else if (us < (int64_t)86400 * 2 * 1000000)
        pm_progress_time(us, text, text_bytes);
    else
        snprintf(text, text_bytes, "%" PRId64 " d", us / 1000000 / 86400);
}

void pm_show_bytes(uint64_t bytes, char *text, size_t text_bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    double v = (double)bytes;
    int unit = 0;
    while (v >= 1000 && unit < 5) {
        v /= 1000;
        unit++;
    }
    snprintf(text, text_bytes, unit && v < 10 ? "%.1f %s" : "%.0f %s", v, units[unit]);
}

static void show_clock(const char *what, int64_t wall_us, FILE *out)
{
    char text[40];
    struct tm local;
    time_t seconds = (time_t)(wall_us / 1000000);
    if (!wall_us || !localtime_r(&seconds, &local) ||
        !strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local))
        return;
    fprintf(out, "%-10s %s\n", what, text);
}

/* ---- JSON ---- */

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

static void set_seconds(json_t *object, const char *key, int64_t us)
{
    json_object_set_new(object, key, us ? json_real((double)us / 1e6) : json_null());
}

static void set_text(json_t *object, const char *key, const char *text)
{
    json_object_set_new(object, key, json_string(text));
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
    set_number(o, "regions", job->regions);
    set_number(o, "regions_done", job->regions_done);
    set_number(o, "regions_failed", job->regions_failed);
    set_number(o, "retries", job->retries);
    set_seconds(o, "created", job->created_us);
    set_seconds(o, "started", job->started_us);
    set_seconds(o, "finished", job->finished_us);
    json_object_set_new(o, "error", *job->error_text ? json_string(job->error_text) : json_null());
    json_object_set_new(o, "error_code", *job->error_code ? json_string(job->error_code) : json_null());
    json_t *errors = json_array();
    for (size_t i = 0; i < job->error_count; i++) {
        const struct pagemill_page_error *e = &job->errors[i];
        json_t *item = json_object();
        set_number(item, "page", e->page);
        set_number(item, "region", e->region);
        set_text(item, "code", e->code);
        set_text(item, "text", e->text);
        set_number(item, "attempts", e->attempts);
        json_array_append_new(errors, item);
    }
    json_object_set_new(o, "errors", errors);
    return o;
}

static json_t *peers_json(const struct pagemill_stats *s)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->peer_count; i++) {
        const struct pagemill_peer *p = &s->peers[i];
        json_t *o = json_object();
        set_text(o, "name", p->name);
        set_text(o, "role", p->role);
        set_text(o, "version", p->version);
        set_number(o, "pid", p->pid);
        set_number(o, "leases", p->leases);
        set_number(o, "credit", p->credit);
        set_number(o, "done", p->done);
        set_number(o, "failed", p->failed);
        json_object_set_new(o, "busy", json_real((double)p->busy_us / 1e6));
        json_object_set_new(o, "up", json_real((double)p->up_us / 1e6));
        json_object_set_new(o, "silent", json_real((double)p->silent_us / 1e6));
        json_array_append_new(list, o);
    }
    return list;
}

json_t *pm_show_stats_json(const struct pagemill_stats *s)
{
    json_t *o = json_object(), *queues = json_array(), *counters = json_object(), *jobs = json_object();
    set_text(o, "version", s->version);
    set_number(o, "epoch", s->epoch);
    json_object_set_new(o, "up", json_real((double)s->up_us / 1e6));
    json_object_set_new(o, "draining", json_boolean(s->is_draining));
    set_number(jobs, "queued", s->jobs_queued);
    set_number(jobs, "running", s->jobs_running);
    set_number(jobs, "done", s->jobs_done);
    set_number(jobs, "failed", s->jobs_failed);
    set_number(jobs, "cancelled", s->jobs_cancelled);
    json_object_set_new(o, "jobs", jobs);
    set_number(o, "pages_done", s->pages_done);
    set_number(o, "regions_done", s->regions_done);
    set_number(o, "pixel_bytes", s->pixel_bytes);
    set_number(o, "pixel_budget_bytes", s->pixel_budget_bytes);
    set_number(o, "disk_bytes_free", s->disk_bytes_free);
    json_object_set_new(o, "peers", peers_json(s));
    for (size_t i = 0; i < s->queue_count; i++) {
        const struct pagemill_queue *q = &s->queues[i];
        json_t *item = json_object();
        set_text(item, "kind", q->kind);
        set_number(item, "queued", q->queued);
        set_number(item, "leased", q->leased);
        json_object_set_new(item, "oldest", json_real((double)q->oldest_us / 1e6));
        set_number(item, "done", q->done);
        set_number(item, "failed", q->failed);
        set_number(item, "retried", q->retried);
        json_array_append_new(queues, item);
    }
    json_object_set_new(o, "queues", queues);
    for (size_t i = 0; i < s->counter_count; i++)
        set_number(counters, s->counters[i].name, s->counters[i].value);
    json_object_set_new(o, "counters", counters);
    return o;
}

/* ---- tables ---- */

void pm_show_jobs_header(FILE *out)
{
    fprintf(out, "%-8s %-10s %11s %8s %9s  %s\n", "JOB", "STATE", "PAGES", "FAILED", "AGE", "NAME");
}

/* The end of a name, which tells files apart, cut to columns (bytes beyond ASCII count as one). */
static void show_tail(const char *name, int columns, FILE *out)
{
    size_t n = strlen(name);
    if (columns < 12)
        columns = 12;
    if (n <= (size_t)columns) {
        pm_show_text(name, out);
        return;
    }
    const char *tail = name + n - (size_t)columns + 3;
    while (((unsigned char)*tail & 0xc0) == 0x80)
        tail++;
    fputs("...", out);
    pm_show_text(tail, out);
}

void pm_show_job_row(const struct pagemill_job *job, int64_t now_wall_us, int width, FILE *out)
{
    char pages[24], age[24];
    if (job->pages)
        snprintf(pages, sizeof pages, "%u/%u", job->pages_done, job->pages);
    else
        snprintf(pages, sizeof pages, "-");
    pm_show_duration(now_wall_us - job->created_us, age, sizeof age);
    fprintf(out, "%-8" PRIu64 " %-10s %11s %8u %9s  ", job->job, pagemill_job_state_name((int)job->state),
            pages, job->pages_failed, age);
    show_tail(job->name, width - 54, out);
    fputc('\n', out);
}

void pm_show_job_details(const struct pagemill_job *job, FILE *out)
{
    char bytes[24];
    pm_show_bytes(job->source_bytes, bytes, sizeof bytes);
    fprintf(out, "%-10s %" PRIu64 "\n%-10s %s\n%-10s ", "job", job->job, "state",
            pagemill_job_state_name((int)job->state), "name");
    pm_show_text(job->name, out);
    fprintf(out, " (%s)\n%-10s ", bytes, "client");
    pm_show_text(job->client, out);
    fprintf(out, ", priority %u\n", job->priority);
    if (*job->batch)
        fprintf(out, "%-10s %s\n", "batch", job->batch);
    if (job->pages)
        fprintf(out, "%-10s %u of %u read, %u failed\n", "pages", job->pages_done, job->pages,
                job->pages_failed);
    if (job->regions)
        fprintf(out, "%-10s %u of %u read, %u failed\n", "regions", job->regions_done, job->regions,
                job->regions_failed);
    if (job->retries)
        fprintf(out, "%-10s %u\n", "retries", job->retries);
    show_clock("created", job->created_us, out);
    show_clock("started", job->started_us, out);
    show_clock("finished", job->finished_us, out);
    if (*job->error_text) {
        fprintf(out, "%-10s ", "error");
        pm_show_text(job->error_text, out);
        fputc('\n', out);
    }
    for (size_t i = 0; i < job->error_count; i++) {
        const struct pagemill_page_error *e = &job->errors[i];
        fprintf(out, "page %-5u ", e->page);
        if (e->region)
            fprintf(out, "region %u: ", e->region);
        pm_show_text(e->text, out);
        fprintf(out, " (%u attempt%s)\n", e->attempts, e->attempts == 1 ? "" : "s");
    }
}

static void show_head(const struct pagemill_stats *s, double pages_per_s, double regions_per_s, FILE *out)
{
    char up[24], used[24], budget[24], disk[24];
    pm_show_duration((int64_t)s->up_us, up, sizeof up);
    pm_show_bytes(s->pixel_bytes, used, sizeof used);
    pm_show_bytes(s->pixel_budget_bytes, budget, sizeof budget);
    pm_show_bytes(s->disk_bytes_free, disk, sizeof disk);
    fprintf(out, "pagemill %s  up %s%s\n", s->version, up, s->is_draining ? "  DRAINING" : "");
    fprintf(out,
            "jobs     %" PRIu64 " queued, %" PRIu64 " running, %" PRIu64 " done, %" PRIu64 " failed, %" PRIu64
            " cancelled\n",
            s->jobs_queued, s->jobs_running, s->jobs_done, s->jobs_failed, s->jobs_cancelled);
    fprintf(out, "pages    %" PRIu64 " done (%.2f/s)   regions %" PRIu64 " done (%.1f/s)\n", s->pages_done,
            pages_per_s, s->regions_done, regions_per_s);
    fprintf(out, "memory   %s of %s for page pictures   disk %s free\n\n", used, budget, disk);
}

void pm_show_stats(const struct pagemill_stats *s, double pages_per_s, double regions_per_s, int width,
                   FILE *out)
{
    char text[24];
    show_head(s, pages_per_s, regions_per_s, out);
    fprintf(out, "%-14s %8s %8s %9s %10s %8s %8s\n", "QUEUE", "QUEUED", "LEASED", "OLDEST", "DONE", "FAILED",
            "RETRIED");
    for (size_t i = 0; i < s->queue_count; i++) {
        const struct pagemill_queue *q = &s->queues[i];
        pm_show_duration((int64_t)q->oldest_us, text, sizeof text);
        fprintf(out, "%-14s %8" PRIu64 " %8" PRIu64 " %9s %10" PRIu64 " %8" PRIu64 " %8" PRIu64 "\n", q->kind,
                q->queued, q->leased, q->queued ? text : "-", q->done, q->failed, q->retried);
    }
    fprintf(out, "\n%-14s %-10s %8s %9s %10s %8s %6s %9s\n", "PROCESS", "ROLE", "PID", "LEASES", "DONE",
            "FAILED", "BUSY", "SILENT");
    for (size_t i = 0; i < s->peer_count; i++) {
        const struct pagemill_peer *p = &s->peers[i];
        char leases[32];
        snprintf(leases, sizeof leases, "%u/%u", p->leases, p->credit);
        pm_show_duration((int64_t)p->silent_us, text, sizeof text);
        unsigned busy = p->up_us ? (unsigned)(100.0 * (double)p->busy_us / (double)p->up_us) : 0;
        fprintf(out, "%-14.14s %-10.10s %8" PRIu64 " %9s %10" PRIu64 " %8" PRIu64 " %5u%% %9s\n", p->name,
                p->role, p->pid, leases, p->done, p->failed, busy, text);
    }
    bool has_title = false;
    int column = 0;
    for (size_t i = 0; i < s->counter_count; i++) {
        if (!s->counters[i].value)
            continue;
        char item[80];
        int n = snprintf(item, sizeof item, "%s %" PRIu64, s->counters[i].name, s->counters[i].value);
        if (!has_title)
            fputs("\nCOUNTERS\n", out);
        if (has_title && column + n + 3 > width) {
            fputc('\n', out);
            column = 0;
        }
        fprintf(out, "%s%s", column ? "   " : "", item);
        column += n + (column ? 3 : 0);
        has_title = true;
    }
    if (has_title)
        fputc('\n', out);
}
