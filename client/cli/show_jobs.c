/* Jobs as tables and in detail. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/cli/color.h"
#include "client/cli/progress.h"
#include "client/cli/show.h"

#define ROW_COLUMNS 64 /* what stands before the name */

double pm_show_job_part(const struct pagemill_job *job)
{
    if (pagemill_job_is_final((int)job->state) && job->state == PAGEMILL_JOB_DONE)
        return 1;
    if (!job->pages)
        return 0;
    double done = (double)job->pages_done + job->pages_failed;
    done += pm_progress_part(job->pages, job->pages_done + job->pages_failed, job->regions,
                             job->regions_done + job->regions_failed);
    return done < job->pages ? done / job->pages : 1;
}

uint64_t pm_show_job_left_us(const struct pagemill_job *job, int64_t now_wall_us)
{
    double part = pm_show_job_part(job);
    int64_t elapsed = now_wall_us - job->started_us;
    if (job->eta_us || job->state != PAGEMILL_JOB_RUNNING)
        return pagemill_job_is_final((int)job->state) ? 0 : job->eta_us;
    /* The pace of the first hundredth says nothing. */
    if (!job->started_us || elapsed <= 0 || part < 0.01 || part >= 1)
        return 0;
    double left = (double)elapsed * (1 - part) / part;
    return left < 1e15 ? (uint64_t)left : 0;
}

/* ---- the list ---- */

void pm_show_jobs_header(FILE *out)
{
    fprintf(out, "%-8s %-10s %11s %8s %9s %9s  %s\n", "JOB", "STATE", "PAGES", "FAILED", "AGE", "LEFT",
            "NAME");
}

/* The end of a name, which tells files apart, cut to columns. */
static void show_tail(const char *name, int columns, FILE *out)
{
    if (columns < 12)
        columns = 12;
    int have = pm_show_columns(name);
    if (have > columns) {
        size_t cut = pm_show_fit(name, have - columns + 3);
        while (name[cut] && pm_show_columns(name + cut) > columns - 3)
            cut += pm_show_fit(name + cut, 2);
        fputs("...", out);
        name += cut;
    }
    pm_show_text(name, out);
}

static void show_state(const struct pagemill_job *job, int width, bool is_colored, FILE *out)
{
    const char *state = pagemill_job_state_name((int)job->state);
    enum pm_color color = pm_color_of_state(state);
    if (job->state == PAGEMILL_JOB_DONE && (job->pages_failed || job->regions_failed))
        color = PM_COLOR_WARN;
    fprintf(out, "%s%-*s%s", pm_color_begin(color, is_colored), width, state,
            pm_color_end(color, is_colored));
}

void pm_show_job_row(const struct pagemill_job *job, int64_t now_wall_us, int width, bool is_colored,
                     FILE *out)
{
    char pages[24], age[24], left[24] = "-";
    uint64_t left_us = pm_show_job_left_us(job, now_wall_us);
    enum pm_color failed = job->pages_failed ? PM_COLOR_BAD : PM_COLOR_NONE;
    if (job->pages)
        snprintf(pages, sizeof pages, "%u/%u", job->pages_done, job->pages);
    else
        snprintf(pages, sizeof pages, "-");
    pm_show_duration(now_wall_us - job->created_us, age, sizeof age);
    if (left_us)
        pm_show_duration((int64_t)left_us, left, sizeof left);
    fprintf(out, "%-8" PRIu64 " ", job->job);
    show_state(job, 10, is_colored, out);
    fprintf(out, " %11s %s%8u%s %9s %9s  ", pages, pm_color_begin(failed, is_colored), job->pages_failed,
            pm_color_end(failed, is_colored), age, left);
    show_tail(job->name, width - ROW_COLUMNS, out);
    fputc('\n', out);
}

/* ---- one job ---- */

static void show_clock(const char *what, int64_t wall_us, int64_t since_us, FILE *out)
{
    char text[40], after[24];
    struct tm local;
    time_t seconds = (time_t)(wall_us / 1000000);
    if (!wall_us || !localtime_r(&seconds, &local) ||
        !strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local))
        return;
    fprintf(out, "%-10s %s", what, text);
    if (since_us) {
        pm_show_duration(wall_us - since_us, after, sizeof after);
        fprintf(out, "  after %s", after);
    }
    fputc('\n', out);
}

static void show_head(const struct pagemill_job *job, bool is_colored, FILE *out)
{
    char bytes[24];
    pm_show_bytes(job->source_bytes, bytes, sizeof bytes);
    fprintf(out, "%-10s %" PRIu64 "\n%-10s ", "job", job->job, "state");
    show_state(job, 0, is_colored, out);
    fprintf(out, "\n%-10s ", "name");
    pm_show_text(job->name, out);
    fprintf(out, " (%s)\n%-10s ", bytes, "client");
    pm_show_text(job->client, out);
    fprintf(out, ", priority %u", job->priority);
    if (*job->reader) {
        fputs(", reader ", out);
        pm_show_text(job->reader, out);
    }
    fputc('\n', out);
    if (*job->batch) {
        fprintf(out, "%-10s ", "batch");
        pm_show_text(job->batch, out);
        fputc('\n', out);
    }
}

static void show_progress(const struct pagemill_job *job, int64_t now_wall_us, bool is_colored, FILE *out)
{
    char bar[40], left[24];
    uint64_t left_us = pm_show_job_left_us(job, now_wall_us);
    if (job->pages) {
        fprintf(out, "%-10s %u of %u read, %u failed", "pages", job->pages_done, job->pages,
                job->pages_failed);
        if (job->pages_known)
            fprintf(out, ", %u of them known from an earlier reading", job->pages_known);
        fputc('\n', out);
    }
    if (job->regions)
        fprintf(out, "%-10s %u of %u read, %u failed\n", "regions", job->regions_done, job->regions,
                job->regions_failed);
    if (job->tokens)
        fprintf(out, "%-10s %" PRIu64 "\n", "tokens", job->tokens);
    if (job->drafted) /* passes that gave more than one token saved the difference */
        fprintf(out, "%-10s %" PRIu64 " guessed ahead, %.0f %% of them held: %.2f tokens a pass\n", "drafts",
                job->drafted, 100 * (double)job->accepted / (double)job->drafted,
                job->tokens > job->accepted ? (double)job->tokens / (double)(job->tokens - job->accepted)
                                            : 1);
    if (job->retries)
        fprintf(out, "%-10s %u\n", "retries", job->retries);
    if (job->state == PAGEMILL_JOB_RUNNING) {
        pm_show_bar(pm_show_job_part(job), 32, bar, sizeof bar);
        fprintf(out, "%-10s %s%s%s %.0f %%", "progress", pm_color_begin(PM_COLOR_BUSY, is_colored), bar,
                pm_color_end(PM_COLOR_BUSY, is_colored), 100 * pm_show_job_part(job));
        if (left_us) {
            pm_show_duration((int64_t)left_us, left, sizeof left);
            fprintf(out, ", about %s left", left);
        }
        fputc('\n', out);
    }
}

static void show_times(const struct pagemill_job *job, int64_t now_wall_us, FILE *out)
{
    show_clock("created", job->created_us, 0, out);
    show_clock("started", job->started_us, job->created_us, out);
    show_clock("opened", job->opened_us, job->created_us, out);
    show_clock("first page", job->first_page_us, job->created_us, out);
    show_clock("finished", job->finished_us, job->created_us, out);
    show_clock("deadline", job->deadline_us, 0, out);
    if (job->deadline_us && !pagemill_job_is_final((int)job->state)) {
        char left[24];
        pm_show_duration(job->deadline_us - now_wall_us, left, sizeof left);
        fprintf(out, "%-10s %s\n", "", job->deadline_us > now_wall_us ? left : "has passed");
    }
}

/* Sums over all tasks of a kind, which run beside each other: they exceed the time that passed. */
static void show_stages(const struct pagemill_job *job, FILE *out)
{
    if (!job->stage_count)
        return;
    fprintf(out, "\n%-18s %8s %10s %10s %10s\n", "WHERE TIME WENT", "TASKS", "WAITED", "WORKED", "EACH");
    for (size_t i = 0; i < job->stage_count; i++) {
        const struct pagemill_stage *s = &job->stages[i];
        char wait[24], work[24], each[24];
        pm_show_duration((int64_t)s->wait_us, wait, sizeof wait);
        pm_show_duration((int64_t)s->run_us, work, sizeof work);
        pm_show_duration(s->done ? (int64_t)(s->run_us / s->done) : 0, each, sizeof each);
        fprintf(out, "%-18s %8" PRIu64 " %10s %10s %10s\n", s->kind, s->done, wait, work, each);
    }
}

static void show_place(uint32_t page, uint32_t region, FILE *out)
{
    if (!page)
        fputs("document", out);
    else
        fprintf(out, "page %u", page);
    if (region)
        fprintf(out, " region %u", region);
}

static void show_errors(const struct pagemill_job *job, bool is_colored, FILE *out)
{
    if (job->error_count)
        fprintf(out, "\n%s\n", "NOT READ");
    for (size_t i = 0; i < job->error_count; i++) {
        const struct pagemill_page_error *e = &job->errors[i];
        fputs(pm_color_begin(PM_COLOR_BAD, is_colored), out);
        show_place(e->page, e->region, out);
        fprintf(out, "%s: ", pm_color_end(PM_COLOR_BAD, is_colored));
        pm_show_text(e->text, out);
        fprintf(out, " (%u attempt%s)\n", e->attempts, e->attempts == 1 ? "" : "s");
    }
}

static void show_attempts(const struct pagemill_job *job, bool is_colored, FILE *out)
{
    if (job->attempt_count)
        fprintf(out, "\n%s\n", "ATTEMPTS THAT FAILED");
    for (size_t i = 0; i < job->attempt_count; i++) {
        const struct pagemill_attempt *a = &job->attempts[i];
        char text[40] = "";
        struct tm local;
        time_t seconds = (time_t)(a->time_us / 1000000);
        if (localtime_r(&seconds, &local))
            (void)strftime(text, sizeof text, "%m-%d %H:%M:%S", &local);
        fprintf(out, "%s  ", text);
        show_place(a->page, a->region, out);
        fprintf(out, ", attempt %u: %s%s%s", a->attempt, pm_color_begin(PM_COLOR_WARN, is_colored), a->cause,
                pm_color_end(PM_COLOR_WARN, is_colored));
        if (*a->peer) {
            fputs(" in ", out);
            pm_show_text(a->peer, out);
        }
        if (*a->version) {
            fputs(" ", out);
            pm_show_text(a->version, out);
        }
        if (*a->text) {
            fputs(": ", out);
            pm_show_text(a->text, out);
        }
        fputc('\n', out);
    }
}

void pm_show_job_details(const struct pagemill_job *job, int64_t now_wall_us, bool is_colored, FILE *out)
{
    show_head(job, is_colored, out);
    show_progress(job, now_wall_us, is_colored, out);
    show_times(job, now_wall_us, out);
    if (*job->error_text) {
        fprintf(out, "%-10s %s", "error", pm_color_begin(PM_COLOR_BAD, is_colored));
        pm_show_text(job->error_text, out);
        fprintf(out, "%s\n", pm_color_end(PM_COLOR_BAD, is_colored));
    }
    show_stages(job, out);
    show_errors(job, is_colored, out);
    show_attempts(job, is_colored, out);
}
