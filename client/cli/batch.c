#include "client/cli/batch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "client/cli/partial.h"
#include "client/cli/progress.h"

#define SUBMITS_A_TURN  4        /* between two looks at events */
#define REDRAW_US       200000   /* 5 Hz */
#define LINE_US         10000000 /* progress lines in a log */
#define RESYNC_US       15000000 /* ask for the truth even when no event says so */
#define BUSY_MS         2000     /* patience with a full fleet while other jobs run */
#define SUBMIT_MS       120000   /* and while none does */
#define ANSWER_MS       60000
#define CANCEL_MS       1000
#define GONE_US         60000000 /* a fleet that is away longer than this is given up */
#define DOCUMENTS_NOTED 20000    /* RESYNC looks at most at so many jobs of the batch */

struct document {
    struct document *next; /* in input order */
    uint64_t job;
    char *name; /* as the user gave it, made UTF-8 */
    char *dir;  /* OUT/FOLDER/STEM */
    char *stem;
    struct pagemill_job last; /* figures only; its strings are not valid */
    char *error_text;         /* of a failed job */
    bool is_final;
    int64_t since_us;
    struct pm_partial *partial; /* NULL: nothing is written */
};

struct batch {
    const struct pm_batch_config *config;
    struct pm_intake *intake;
    struct pm_private *fleet;
    pagemill *pm;
    const char *endpoint;
    int interrupt_fd, cancel_fd; /* cancel_fd: an epoll of the interrupt and the fleet's report */
    int report_fd;               /* the one that cancel_fd holds now */
    char id[40];                 /* of the batch */
    struct pm_names *names;
    size_t next_input;
    struct pm_map by_job;
    struct document *first, *last;
    uint32_t in_flight;
    uint64_t done, failed, skipped, cut; /* cut: done or failed, with texts that reached the token limit */
    uint64_t pages_done, pages_failed, regions_done; /* of documents that are finished */
    bool is_terminal, is_drawn;
    struct pm_rate rate;
    int64_t started_us, drawn_us, line_us, resync_us, until_us;
    int64_t seen_us; /* the fleet was connected */
    bool is_interrupted, is_late;
    struct pm_error fatal;
};

/* ---- telling ---- */

static void clear_bar(struct batch *b)
{
    if (b->is_drawn)
        fputs("\r\033[K", stderr);
    b->is_drawn = false;
}

static void complain(struct batch *b, const char *name, const char *why)
{
    clear_bar(b);
    pm_cli_error("%s: %s", name, why);
}

static void view(struct batch *b, struct pm_progress_view *v)
{
    *v = (struct pm_progress_view){.documents = b->intake->count - b->skipped,
                                   .documents_done = b->done + b->failed,
                                   .documents_failed = b->failed,
                                   .pages_done = b->pages_done,
                                   .pages = b->pages_done,
                                   .has_more_pages = b->next_input < b->intake->count,
                                   .elapsed_us = pm_clock_us() - b->started_us};
    for (const struct document *d = b->first; d; d = d->next) {
        v->pages += d->last.pages;
        v->pages_done += d->last.pages_done + d->last.pages_failed;
        v->has_more_pages |= !d->last.pages;
        v->regions += d->last.regions;
        v->regions_done += d->last.regions_done + d->last.regions_failed;
        v->pages_part += pm_progress_part(d->last.pages, d->last.pages_done + d->last.pages_failed,
                                          d->last.regions, d->last.regions_done + d->last.regions_failed);
    }
    v->pages_per_s = pm_rate_update(&b->rate, pm_clock_us(), v->pages_done);
}

static void show_progress(struct batch *b)
{
    char text[300];
    int64_t now = pm_clock_us();
    struct pm_progress_view v;
    if (b->config->is_quiet || now - b->drawn_us < REDRAW_US)
        return;
    b->drawn_us = now;
    view(b, &v); /* also takes a sample of the rate */
    if (b->is_terminal) {
        pm_progress_bar(&v, pm_cli_width(STDERR_FILENO), text, sizeof text);
        size_t bar = text[0] == '[' ? strcspn(text, "]") + 1 : 0;
        bool is_on = pm_color_is_on(STDERR_FILENO);
        fprintf(stderr, "\r%s%.*s%s%s\033[K", pm_color_begin(PM_COLOR_BUSY, is_on), (int)bar, text,
                pm_color_end(PM_COLOR_BUSY, is_on), text + bar);
        b->is_drawn = true;
    } else if (now - b->line_us >= LINE_US) {
        pm_progress_line(&v, text, sizeof text);
        fprintf(stderr, "pagemill: %s\n", text);
        b->line_us = now;
    }
}

static void tell_finished(struct batch *b, const struct document *d, const struct pagemill_result *result)
{
    if (b->config->is_quiet || b->is_terminal)
        return;
    double seconds = (double)(pm_clock_us() - d->since_us) / 1e6;
    fprintf(stderr, "%s: %u page%s, %.1f s", d->name, result->pages, result->pages == 1 ? "" : "s", seconds);
    if (b->config->out_dir)
        fprintf(stderr, " -> %s", d->dir);
    fputc('\n', stderr);
}

/* ---- documents ---- */

static void free_document(struct document *d)
{
    pm_partial_free(&d->partial);
    free(d->name);
    free(d->dir);
    free(d->stem);
    free(d->error_text);
    free(d);
}

static void unlink_document(struct batch *b, struct document *d)
{
    struct document *before = NULL;
    if (b->first == d) {
        b->first = d->next;
    } else {
        for (before = b->first; before->next != d;)
            before = before->next;
        before->next = d->next;
    }
    if (b->last == d)
        b->last = before;
    pm_map_remove(&b->by_job, d->job);
    b->in_flight--;
}

static char *valid_text(const char *text)
{
    struct pm_buf out = {0};
    pm_utf8_mend(text, strlen(text), &out);
    pm_buf_text(&out, "");
    return (char *)out.data;
}

static struct document *make_document(struct batch *b, const struct pm_input *input)
{
    struct document *d = pm_xalloc(sizeof *d);
    d->name = input->path ? valid_text(input->path) : pm_xstrdup("(stdin)");
    d->stem = pm_names_claim(b->names, input->folder, input->path);
    if (b->config->out_dir) {
        char *folder =
            *input->folder ? pm_fs_join(b->config->out_dir, input->folder) : pm_xstrdup(b->config->out_dir);
        d->dir = pm_fs_join(folder, d->stem);
        free(folder);
    }
    d->since_us = pm_clock_us();
    return d;
}

/* ---- submitting ---- */

static int open_input(const struct pm_input *input, struct pm_error *err)
{
    struct stat st;
    if (!input->path)
        return fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    int fd = open(input->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return pm_fail_errno(err, "cannot open it");
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return pm_fail(err, PM_EINVAL, "not a regular file");
    }
    if (!st.st_size) {
        close(fd);
        return pm_fail(err, PM_EFORMAT, "the file is empty");
    }
    return fd;
}

static void note(struct document *d, const struct pagemill_job *job)
{
    free(d->error_text);
    d->error_text = pm_xstrdup(job->error_text);
    d->last = *job;
    d->last.name = d->last.client = d->last.batch = d->last.key = d->last.stem = d->last.reader = NULL;
    d->last.error_code = d->last.error_text = NULL;
    d->last.errors = NULL;
    d->is_final = pagemill_job_is_final((int)job->state);
}

/* A job that is not of this batch's making, or not listed with it: asked for by itself. */
static void ask_alone(struct batch *b, struct document *d)
{
    struct pagemill_jobs *jobs = NULL;
    int rc = pagemill_status(b->pm, d->job, ANSWER_MS, &jobs, NULL);
    if (!rc) {
        note(d, &jobs->jobs[0]);
    } else if (rc == PAGEMILL_ENOTFOUND) {
        free(d->error_text);
        d->error_text = pm_xstrdup("the fleet does not know this job any more");
        d->last.state = PAGEMILL_JOB_FAILED;
        d->is_final = true;
    }
    pagemill_jobs_free(&jobs);
}

/* The document was submitted before: its job may have ended, and events of the batch do not tell of it. */
static void join_earlier(struct batch *b, struct document *d)
{
    ask_alone(b, d);
    if (!d->is_final) /* when there are too many to watch, asking now and then does */
        (void)pagemill_watch(b->pm, d->job, NULL, 0, ANSWER_MS, NULL);
}

/* 1: skipped, 0: submitted or failed for itself, negative: the run must stop or wait (PM_EBUSY). */
static int submit_one(struct batch *b, struct pm_input *input)
{
    struct pm_error err = {0};
    if (input->error) {
        complain(b, input->path, input->error);
        b->failed++;
        return 0;
    }
    if (input->must_look && !pm_intake_is_document(input->path)) {
        b->skipped++;
        return 1;
    }
    b->intake->roots[input->root].documents += input->must_look;
    input->must_look = false;
    int fd = open_input(input, &err);
    if (fd < 0) {
        complain(b, input->path ? input->path : "(stdin)", err.text);
        b->failed++;
        return 0;
    }
    struct document *d = make_document(b, input);
    char key[80];
    snprintf(key, sizeof key, "%s-%zu", b->id, b->next_input);
    struct pagemill_submit_options o = b->config->submit;
    o.name = d->name;
    o.stem = d->stem;
    o.batch = b->id;
    int is_duplicate = 0;
    o.is_duplicate = &is_duplicate;
    if (!o.key && o.again) /* nothing else tells a repeated request from a new one */
        o.key = key;
    int rc = pagemill_submit_fd(b->pm, fd, &o, b->in_flight ? BUSY_MS : SUBMIT_MS, &d->job, (void *)&err);
    close(fd);
    bool must_wait = b->in_flight && input->path && (rc == PM_EBUSY || rc == PM_ETIMEOUT);
    if (rc == PM_ECANCELLED || rc == PM_EGONE || must_wait) {
        pm_names_release(b->names, input->folder, d->stem);
        free_document(d);
        if (rc == PM_EGONE && !b->in_flight)
            b->fatal = err;
        return must_wait ? PM_EBUSY : rc;
    }
    if (rc || pm_map_get(&b->by_job, d->job)) {
        complain(b, d->name, rc ? err.text : "the same document as an earlier one, by its key");
        b->failed++;
        free_document(d);
        return 0;
    }
    if (d->dir)
        d->partial = pm_partial_new(d->dir, d->stem, b->config->submit.pages, b->config->submit.formats,
                                    b->config->submit.drop);
    if (b->last)
        b->last->next = d;
    else
        b->first = d;
    b->last = d;
    b->in_flight++;
    pm_map_put(&b->by_job, d->job, d);
    if (is_duplicate)
        join_earlier(b, d);
    return 0;
}

static void fill(struct batch *b)
{
    int submitted = 0;
    while (b->next_input < b->intake->count && b->in_flight < b->config->most_jobs &&
           submitted < SUBMITS_A_TURN) {
        int rc = submit_one(b, &b->intake->items[b->next_input]);
        if (rc < 0)
            return; /* the loop finds out why: an interrupt, a lost fleet; or it is tried again */
        b->next_input++;
        submitted += rc == 0;
    }
}

/* ---- delivering ---- */

static int print_first(struct batch *b, const struct pagemill_result *result, const struct document *d,
                       struct pagemill_error *err)
{
    const char *formats = b->config->submit.formats ? b->config->submit.formats : "md";
    char suffix[16] = ".";
    size_t n = strcspn(formats, ",");
    memcpy(suffix + 1, formats, n < 14 ? n : 14);
    for (size_t i = 0; i < result->count; i++) {
        const char *name = result->files[i].name, *dot = strrchr(name, '.');
        if (!dot || strcmp(dot, suffix) != 0 || strchr(name, '/'))
            continue;
        void *data;
        size_t bytes;
        int rc = pagemill_result_read(b->pm, result, i, ANSWER_MS, &data, &bytes, err);
        if (rc)
            return rc;
        if (b->intake->count > 1 && strcmp(suffix, ".json") != 0)
            printf(!strcmp(suffix, ".md") ? "<!-- %s -->\n\n" : "==> %s <==\n", d->name);
        fwrite(data, 1, bytes, stdout);
        if (bytes && ((const char *)data)[bytes - 1] != '\n')
            putchar('\n');
        pagemill_free(data);
        if (fflush(stdout))
            return pm_fail((struct pm_error *)(void *)err, PM_EIO, "cannot write to standard output: %s",
                           strerror(errno));
        return 0;
    }
    return 0; /* nothing on these pages */
}

/* Pictures before the texts that name them; the Markdown last, so that it is the sign of completeness. */
static int save_all(struct batch *b, const struct pagemill_result *result, const struct document *d,
                    struct pagemill_error *err)
{
    int rc = 0;
    for (int turn = 0; turn < 3 && !rc; turn++)
        for (size_t i = 0; i < result->count && !rc; i++) {
            const char *name = result->files[i].name, *dot = strrchr(name, '.');
            int when = strchr(name, '/') ? 0 : dot && !strcmp(dot, ".md") ? 2 : 1;
            if (when == turn)
                rc = pagemill_result_save(b->pm, result, i, d->dir, ANSWER_MS, err);
        }
    return rc;
}

/* What could not be read, in one line. */
static void tell_losses(struct batch *b, const struct document *d, const struct pagemill_result *result)
{
    char text[700];
    size_t n = 0;
    if (result->pages_failed)
        n += (size_t)snprintf(text, sizeof text, "%u of %u pages could not be read", result->pages_failed,
                              result->pages);
    if (result->regions_failed)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%u of %u regions could not be read",
                              n ? ", " : "", result->regions_failed, result->regions);
    struct pagemill_jobs *status = NULL;
    if (!pagemill_status(b->pm, d->job, ANSWER_MS, &status, NULL) && status->jobs[0].error_count) {
        const struct pagemill_page_error *e = &status->jobs[0].errors[0];
        snprintf(text + n, sizeof text - n, " (page %u: %s)", e->page, e->text);
    }
    pagemill_jobs_free(&status);
    complain(b, d->name, text);
}

static void tell_cuts(struct batch *b, const struct document *d, uint32_t regions)
{
    char text[120];
    snprintf(text, sizeof text, "%u region%s reached the %s", regions, regions == 1 ? "" : "s",
             b->config->submit.max_tokens ? "token limit; raise --max-tokens"
                                          : "model's token limit, or repeated a text without end");
    complain(b, d->name, text);
}

static int deliver_done(struct batch *b, struct document *d, struct pagemill_error *err)
{
    struct pagemill_result *result = NULL;
    int rc = pagemill_result(b->pm, d->job, ANSWER_MS, &result, err);
    if (!rc && d->dir)
        rc = save_all(b, result, d, err);
    if (!rc && b->config->to_stdout)
        rc = print_first(b, result, d, err);
    if (rc && b->config->to_stdout &&
        ferror(stdout)) /* nobody reads on: the rest would be work for nothing */
        b->fatal = *(struct pm_error *)(void *)err;
    if (!rc) {
        b->pages_done += result->pages - result->pages_failed;
        b->pages_failed += result->pages_failed;
        if (result->pages_failed || result->regions_failed) {
            b->failed++;
            tell_losses(b, d, result);
        } else {
            b->done++;
            clear_bar(b);
            tell_finished(b, d, result);
        }
        if (result->regions_cut) {
            b->cut++;
            tell_cuts(b, d, result->regions_cut);
        }
    }
    pagemill_result_free(&result);
    return rc;
}

/* Takes the document off the list. Only an interrupt leaves it there. */
static void deliver(struct batch *b, struct document *d)
{
    struct pagemill_error err = {0};
    int rc = 0;
    if (d->last.state == PAGEMILL_JOB_DONE)
        rc = deliver_done(b, d, &err);
    else if (d->last.state == PAGEMILL_JOB_CANCELLED)
        rc = pm_fail((struct pm_error *)(void *)&err, PM_EINVAL, "cancelled");
    else
        rc = pm_fail((struct pm_error *)(void *)&err, PM_EINVAL, "%s",
                     d->error_text && *d->error_text ? d->error_text : "failed");
    if (rc == PM_ECANCELLED && d->last.state == PAGEMILL_JOB_DONE)
        return;
    if (rc && !b->fatal.code)
        complain(b, d->name, err.text);
    b->failed += rc != 0;
    if (d->partial)
        pm_partial_finish(d->partial);
    if (!b->config->keep_jobs)
        (void)pagemill_forget(b->pm, d->job, ANSWER_MS, NULL); /* the private journal goes soon anyway */
    unlink_document(b, d);
    free_document(d);
}

/* Final documents whose turn it is. */
static void deliver_ready(struct batch *b)
{
    for (struct document *d = b->first, *next; d && !b->fatal.code; d = next) {
        next = d->next;
        if (d->is_final)
            deliver(b, d);
        else if (b->config->to_stdout) /* printed in input order */
            return;
    }
}

/* ---- events ---- */

/* Compares with the fleet's own list after events may have been missed. */
static void resync(struct batch *b)
{
    struct pagemill_list_options o = PAGEMILL_LIST_OPTIONS_INIT;
    o.batch = b->id;
    o.limit = 1000;
    struct pm_map seen = {0};
    bool is_whole = false;
    for (size_t looked = 0; looked < DOCUMENTS_NOTED;) {
        struct pagemill_jobs *jobs = NULL;
        if (pagemill_list(b->pm, &o, ANSWER_MS, &jobs, NULL))
            break;
        for (size_t i = 0; i < jobs->count; i++) {
            struct document *d = pm_map_get(&b->by_job, jobs->jobs[i].job);
            pm_map_put(&seen, jobs->jobs[i].job, b);
            if (d)
                note(d, &jobs->jobs[i]);
            o.before = jobs->jobs[i].job;
        }
        looked += jobs->count;
        is_whole = !jobs->has_more || !jobs->count;
        pagemill_jobs_free(&jobs);
        if (is_whole)
            break;
    }
    for (struct document *d = b->first; is_whole && d; d = d->next)
        if (!d->is_final && !pm_map_get(&seen, d->job))
            ask_alone(b, d);
    pm_map_free(&seen);
    b->resync_us = pm_clock_us();
}

static void on_event(struct batch *b, const struct pagemill_event *e)
{
    if (e->kind == PAGEMILL_EVENT_RESYNC || e->kind == PAGEMILL_EVENT_LOST) {
        b->resync_us = 0;
        return;
    }
    struct document *d = pm_map_get(&b->by_job, e->job.job);
    if (!d)
        return;
    b->resync_us = pm_clock_us();
    note(d, &e->job);
    if (e->kind == PAGEMILL_EVENT_PAGE && d->partial && !d->is_final)
        pm_partial_page(d->partial, e->page, e->page_blob);
}

static int take_events(struct batch *b, struct pm_error *err)
{
    for (;;) {
        const struct pagemill_event *event;
        int rc = pagemill_next_event(b->pm, 0, &event, (void *)err);
        if (rc == PM_ETIMEOUT)
            return 0;
        if (rc)
            return rc;
        on_event(b, event);
    }
}

/* Appends pages whose turn has come; one blob read each. */
static void grow_partials(struct batch *b)
{
    for (struct document *d = b->first; d; d = d->next)
        if (d->partial && !d->is_final)
            pm_partial_grow(d->partial, b->pm);
}

/* ---- the loop ---- */

static int watch_fd(struct batch *b, int fd, bool is_added)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(b->cancel_fd, is_added ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, fd, &event);
}

/* Looks at what made cancel_fd readable. */
static void look_at_fleet(struct batch *b)
{
    struct pollfd fds[2] = {{.fd = b->interrupt_fd, .events = POLLIN},
                            {.fd = b->report_fd, .events = POLLIN}};
    if (poll(fds, 2, 0) <= 0)
        return;
    if (fds[0].revents & POLLIN) {
        pm_interrupt_take(b->interrupt_fd);
        b->is_interrupted = true;
    }
    if (!fds[1].revents || !b->fleet)
        return;
    watch_fd(b, b->report_fd, false); /* before it may be closed */
    int rc = pm_private_check(b->fleet, &b->fatal);
    b->report_fd = rc ? -1 : b->fleet->report_fd;
    if (!rc)
        watch_fd(b, b->report_fd, true);
}

static bool is_over(struct batch *b)
{
    int64_t now = pm_clock_us();
    if (pagemill_is_connected(b->pm))
        b->seen_us = now;
    else if (now - b->seen_us > GONE_US && !b->fatal.code)
        pm_fail(&b->fatal, PM_EGONE, "the fleet at %s has left", b->endpoint);
    if (b->until_us && now >= b->until_us)
        b->is_late = true;
    return b->is_interrupted || b->is_late || b->fatal.code ||
           (b->next_input >= b->intake->count && !b->in_flight);
}

static int wait_ms(const struct batch *b)
{
    int64_t now = pm_clock_us(), wait = 1000000;
    if (b->is_terminal && !b->config->is_quiet)
        wait = REDRAW_US;
    if (b->next_input < b->intake->count && b->in_flight < b->config->most_jobs)
        wait = b->in_flight ? 20000 : 0;
    if (b->until_us && b->until_us - now < wait)
        wait = b->until_us > now ? b->until_us - now : 0;
    return (int)((wait + 999) / 1000);
}

static void loop(struct batch *b)
{
    struct pm_error err = {0};
    while (!is_over(b)) {
        fill(b);
        int rc = take_events(b, &err);
        if (rc && rc != PM_ECANCELLED) {
            b->fatal = err;
            return;
        }
        if (b->in_flight && pm_clock_us() - b->resync_us > RESYNC_US)
            resync(b);
        deliver_ready(b);
        grow_partials(b);
        show_progress(b);
        struct pollfd fds[2] = {{.fd = pagemill_fd(b->pm), .events = POLLIN},
                                {.fd = b->cancel_fd, .events = POLLIN}};
        if (!is_over(b))
            (void)poll(fds, 2, wait_ms(b));
        look_at_fleet(b);
    }
}

static void summarize(struct batch *b)
{
    for (size_t i = 0; i < b->intake->root_count && !b->is_interrupted && !b->fatal.code && !b->is_late; i++)
        if (!b->intake->roots[i].documents && b->skipped && pm_fs_is_dir(b->intake->roots[i].path)) {
            complain(b, b->intake->roots[i].path, "no documents in this folder");
            b->failed++;
        }
    if (b->config->is_quiet)
        return;
    double seconds = (double)(pm_clock_us() - b->started_us) / 1e6;
    uint64_t documents = b->done + b->failed;
    char rate[40];
    pm_progress_rate(seconds > 0 ? (double)b->pages_done / seconds : 0, rate, sizeof rate);
    bool is_on = pm_color_is_on(STDERR_FILENO);
    fprintf(stderr, "pagemill: %llu document%s, %llu page%s in %.1f s", (unsigned long long)documents,
            documents == 1 ? "" : "s", (unsigned long long)b->pages_done, b->pages_done == 1 ? "" : "s",
            seconds);
    if (*rate)
        fprintf(stderr, " (%s)", rate);
    if (b->failed)
        fprintf(stderr, ", %s%llu with failures%s", pm_color_begin(PM_COLOR_BAD, is_on),
                (unsigned long long)b->failed, pm_color_end(PM_COLOR_BAD, is_on));
    if (b->cut)
        fprintf(stderr, ", %llu cut at the token limit", (unsigned long long)b->cut);
    fputc('\n', stderr);
}

static void cancel_rest(struct batch *b)
{
    uint32_t count;
    if (b->in_flight && b->pm && !b->fatal.code)
        (void)pagemill_cancel_batch(b->pm, b->id, CANCEL_MS, &count, NULL); /* leaving anyway */
    while (b->first) {
        struct document *d = b->first;
        if (b->is_late || b->fatal.code) {
            b->failed++;
            if (b->is_late)
                complain(b, d->name, "not finished in the given time");
        }
        if (d->partial)
            pm_partial_finish(d->partial);
        unlink_document(b, d);
        free_document(d);
    }
    if (b->is_late)
        b->failed += b->intake->count - b->next_input;
}

static int open_batch(struct batch *b, struct pm_error *err)
{
    uint64_t random[2];
    b->cancel_fd = epoll_create1(EPOLL_CLOEXEC);
    if (b->cancel_fd < 0 || watch_fd(b, b->interrupt_fd, true))
        return pm_fail_errno(err, "cannot wait for signals");
    b->report_fd = b->fleet ? b->fleet->report_fd : -1;
    if (b->fleet && watch_fd(b, b->report_fd, true))
        return pm_fail_errno(err, "cannot wait for the fleet");
    struct pagemill_connect_options options = PAGEMILL_CONNECT_OPTIONS_INIT;
    options.cancel_fd = b->cancel_fd;
    int rc = pagemill_connect(b->endpoint, &options, 30000, &b->pm, (void *)err);
    if (rc)
        return rc;
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, random, sizeof random);
    if (fd >= 0)
        close(fd);
    if (n != (ssize_t)sizeof random)
        return pm_fail_errno(err, "cannot get random bytes");
    snprintf(b->id, sizeof b->id, "%016llx%016llx", (unsigned long long)random[0],
             (unsigned long long)random[1]);
    return pagemill_watch(b->pm, 0, b->id, 0, ANSWER_MS, (void *)err);
}

static int exit_code(const struct batch *b, int rc)
{
    if (b->is_interrupted)
        return PM_EXIT_INTERRUPTED;
    if (b->fatal.code || rc)
        return rc == PM_EGONE || (b->fatal.code == PM_EGONE && !b->fleet) ? PM_EXIT_NO_FLEET : PM_EXIT_FAILED;
    return b->failed || b->cut || b->is_late ? PM_EXIT_FAILED : PM_EXIT_OK;
}

int pm_batch_run(const struct pm_batch_config *config, struct pm_intake *intake, const char *endpoint,
                 struct pm_private *private_fleet, int interrupt_fd)
{
    struct batch b = {.config = config,
                      .intake = intake,
                      .fleet = private_fleet,
                      .endpoint = endpoint,
                      .interrupt_fd = interrupt_fd,
                      .cancel_fd = -1,
                      .report_fd = -1,
                      .is_terminal = pm_cli_is_terminal(STDERR_FILENO)};
    b.started_us = b.line_us = b.resync_us = b.seen_us = pm_clock_us();
    b.until_us = config->timeout_s ? b.started_us + (int64_t)config->timeout_s * 1000000 : 0;
    b.names = pm_names_new();
    struct pm_error err = {0};
    int rc = open_batch(&b, &err);
    if (!rc)
        loop(&b);
    look_at_fleet(&b); /* why the connection did not come about */
    clear_bar(&b);
    cancel_rest(&b);
    if (b.is_interrupted)
        pm_cli_error("interrupted");
    else if (b.fatal.code || rc)
        pm_cli_error("%s", b.fatal.code ? b.fatal.text : err.text);
    if (b.pm && !b.fatal.code)
        summarize(&b);
    pagemill_close(&b.pm);
    pm_names_free(&b.names);
    pm_map_free(&b.by_job);
    if (b.cancel_fd >= 0)
        close(b.cancel_fd);
    return exit_code(&b, rc);
}
