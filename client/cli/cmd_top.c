/* pagemill top: the fleet at a glance. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "client/cli/cli.h"
#include "client/cli/screen.h"
#include "client/cli/top_view.h"

#define ANSWER_MS   5000
#define TURN_US     500000
#define TURN_MS     500
#define SAMPLES     20 /* of rates: ten seconds */
#define MOST_JOBS   200
#define RECENT_JOBS 20
#define LIST_LEAST  4 /* lines of a folded list */

struct settings {
    struct pm_cli_fleet fleet;
    bool once, json;
};
static const struct pm_option options[] = {
    {"once", '1', PM_OPTION_FLAG, NULL,
     "One snapshot instead of a screen; also when standard output is no terminal.",
     offsetof(struct settings, once), 0, 0},
    {"json", 0, PM_OPTION_FLAG, NULL, "One snapshot as JSON.", offsetof(struct settings, json), 0, 0},
    PM_CLI_FLEET_OPTIONS(struct settings, fleet),
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

/* ---- what is shown ---- */

/* Running jobs, then what else is new. The two lists own the texts. */
struct listing {
    struct pagemill_jobs *running, *recent;
    struct pagemill_job *jobs;
    struct pagemill_jobs all;
};

static void free_listing(struct listing *l)
{
    pagemill_jobs_free(&l->running);
    pagemill_jobs_free(&l->recent);
    free(l->jobs);
    *l = (struct listing){0};
}

static int list_jobs(pagemill *pm, int64_t timeout_ms, struct listing *out, struct pagemill_error *err)
{
    struct pagemill_list_options o = PAGEMILL_LIST_OPTIONS_INIT;
    size_t count = 0;
    *out = (struct listing){0};
    o.state = PAGEMILL_JOB_RUNNING;
    o.limit = MOST_JOBS;
    int rc = pagemill_list(pm, &o, timeout_ms, &out->running, err);
    o.state = 0;
    o.limit = RECENT_JOBS;
    if (!rc)
        rc = pagemill_list(pm, &o, timeout_ms, &out->recent, err);
    if (rc) {
        free_listing(out);
        return rc;
    }
    out->jobs = pm_xalloc((out->running->count + out->recent->count + 1) * sizeof *out->jobs);
    for (size_t i = out->running->count; i-- > 0;) /* the oldest are nearest to their end */
        out->jobs[count++] = out->running->jobs[i];
    for (size_t i = 0; i < out->recent->count; i++)
        if (out->recent->jobs[i].state != PAGEMILL_JOB_RUNNING)
            out->jobs[count++] = out->recent->jobs[i];
    out->all = (struct pagemill_jobs){.jobs = out->jobs, .count = count};
    return 0;
}

/* ---- the screen ---- */

struct top {
    pagemill *pm;
    const char *endpoint;
    struct pm_screen screen;
    struct {
        struct pagemill_stats *stats;
        int64_t us;
    } samples[SAMPLES];
    unsigned count, newest;
    struct listing listing;
    uint64_t selected;
    size_t offset; /* lines of the part below the head that are scrolled away */
    size_t room, body;
    bool wants_help, wants_all;
    bool follows;   /* the marked job is to be in sight */
    uint64_t asked; /* "cancel this job?" */
    char notice[200];
    int64_t lost_us; /* since when nobody answers; 0: all is well */
    bool is_colored;
};

static void forget_samples(struct top *t)
{
    for (unsigned i = 0; i < SAMPLES; i++)
        if (t->samples[i].stats)
            pagemill_stats_free(&t->samples[i].stats);
    t->count = 0;
}

static void keep_sample(struct top *t, struct pagemill_stats *stats)
{
    struct pagemill_stats *last = t->count ? t->samples[t->newest].stats : NULL;
    if (last && (last->epoch != stats->epoch || last->up_us > stats->up_us))
        forget_samples(t); /* another broker: its counts begin at zero */
    t->newest = t->count ? (t->newest + 1) % SAMPLES : 0;
    if (t->samples[t->newest].stats)
        pagemill_stats_free(&t->samples[t->newest].stats);
    t->samples[t->newest].stats = stats;
    t->samples[t->newest].us = pm_clock_us();
    t->count += t->count < SAMPLES;
}

/* 0, or what ends the program. A broker that is gone only stops the figures. */
static int ask(struct top *t, struct pagemill_error *err)
{
    struct pagemill_stats *stats;
    struct listing listing;
    int rc = pagemill_stats(t->pm, TURN_MS, &stats, err);
    if (!rc) {
        keep_sample(t, stats);
        if (!(rc = list_jobs(t->pm, TURN_MS, &listing, err))) {
            free_listing(&t->listing);
            t->listing = listing;
        }
    }
    if (!rc)
        t->lost_us = 0;
    if (rc != PAGEMILL_ETIMEOUT && rc != PAGEMILL_EGONE && rc != PAGEMILL_EBUSY)
        return rc;
    if (!t->lost_us)
        t->lost_us = pm_clock_us();
    return 0;
}

static const char *const help[] = {
    "",
    "  j k, arrows   scroll a line        space, b, page keys   scroll a screen",
    "  n p, Tab      next, previous job   c                     cancel the marked job",
    "  g G           first, last line     a                     whole lists, or what fits",
    "  q, Ctrl-C     leave                h                     this help",
    "",
    "  IN HAND tasks are with a process. OLDEST is the age of the task that waits longest. RATE is of the",
    "  last ten seconds. LEFT is an estimate. A process is idle, busy, alone (it runs a task that ended",
    "  another process), stalled (no progress: its work is taken back soon), away (the broker has just",
    "  started and waits for it) or draining. COUNTERS that are zero are not shown.",
};

static void bottom_line(const struct top *t, struct pm_buf *out)
{
    const char *on = pm_color_begin(PM_COLOR_WARN, t->is_colored),
               *off = pm_color_end(PM_COLOR_WARN, t->is_colored);
    char text[300], since[24];
    if (t->lost_us) {
        pm_show_duration(pm_clock_us() - t->lost_us, since, sizeof since);
        snprintf(text, sizeof text, "waiting for the broker at %.150s, %s", t->endpoint, since);
    } else if (t->asked) {
        snprintf(text, sizeof text, "cancel job %llu? y or n", (unsigned long long)t->asked);
    } else if (*t->notice) {
        snprintf(text, sizeof text, "%s", t->notice);
    } else {
        bool has_more = t->offset + t->room < t->body;
        snprintf(text, sizeof text, "q leave  h help  n mark a job  a %s%s%s", t->wants_all ? "fold" : "all",
                 t->selected ? "  c cancel it" : "", has_more ? "  j more below" : "");
        on = pm_color_begin(PM_COLOR_FAINT, t->is_colored);
        off = pm_color_end(PM_COLOR_FAINT, t->is_colored);
    }
    text[pm_show_fit(text, t->screen.columns)] = 0;
    pm_buf_printf(out, "%s%s%s", on, text, off);
    pm_buf_text(out, "");
}

/* Makes both lists short enough for the screen: processes get half of what is left, jobs the rest. */
static void fold(struct pm_top_input *in, size_t fixed, size_t rows)
{
    size_t rest = rows > fixed + 7 ? rows - fixed - 7 : 0; /* titles, "... more", the bottom line */
    size_t peers = in->now->peer_count, half = rest / 2, jobs = in->jobs->count;
    if (jobs < half)
        half = rest - jobs;
    in->most_peers = half < LIST_LEAST ? LIST_LEAST : half;
    peers = peers < in->most_peers ? peers : in->most_peers;
    in->most_jobs = rest > peers + LIST_LEAST ? rest - peers : LIST_LEAST;
}

static void draw(struct top *t)
{
    struct pm_top_lines made = {0};
    unsigned oldest = t->count < SAMPLES ? 0 : (t->newest + 1) % SAMPLES;
    const struct pagemill_stats *now = t->samples[t->newest].stats;
    struct pm_buf bottom = {0};
    if (now && !t->wants_help) {
        struct pm_top_input in = {.now = now,
                                  .before = t->count > 1 ? t->samples[oldest].stats : NULL,
                                  .seconds = (double)(t->samples[t->newest].us - t->samples[oldest].us) / 1e6,
                                  .jobs = &t->listing.all,
                                  .now_wall_us = pm_wall_us(),
                                  .selected_job = t->selected,
                                  .width = t->screen.columns,
                                  .is_colored = t->is_colored};
        pm_top_make(&in, &made);
        if (!t->wants_all && made.count >= (size_t)t->screen.rows) {
            fold(&in, made.fixed, (size_t)t->screen.rows);
            pm_top_free(&made);
            pm_top_make(&in, &made);
        }
    }
    size_t rows = (size_t)t->screen.rows, head = made.head < rows ? made.head : rows, at = 0;
    const char **lines = pm_xalloc((rows + 1) * sizeof *lines);
    t->room = rows > head + 1 ? rows - head - 1 : 0;
    t->body = made.count - head;
    if (t->follows && made.selected >= head) {
        size_t line = made.selected - head;
        if (line < t->offset)
            t->offset = line;
        else if (t->room && line >= t->offset + t->room)
            t->offset = line - t->room + 1;
    }
    t->follows = false;
    if (t->offset + t->room > t->body)
        t->offset = t->body > t->room ? t->body - t->room : 0;
    bottom_line(t, &bottom);
    for (size_t i = 0; i < head && at < rows; i++)
        lines[at++] = made.lines[i];
    for (size_t i = 0; i < t->room; i++)
        lines[at++] = head + t->offset + i < made.count ? made.lines[head + t->offset + i] : "";
    char *cut[sizeof help / sizeof *help] = {0};
    for (size_t i = 0; t->wants_help && i < sizeof help / sizeof *help && i < at; i++)
        lines[i] = cut[i] = pm_xstrndup(help[i], pm_show_fit(help[i], t->screen.columns));
    if (at < rows)
        lines[at++] = (const char *)bottom.data;
    pm_screen_draw(&t->screen, lines, (int)at);
    for (size_t i = 0; i < sizeof help / sizeof *help; i++)
        free(cut[i]);
    free(lines);
    pm_buf_free(&bottom);
    pm_top_free(&made);
}

/* ---- keys ---- */

static void mark(struct top *t, int step)
{
    const struct pagemill_jobs *all = &t->listing.all;
    size_t at = all->count;
    for (size_t i = 0; i < all->count; i++)
        if (all->jobs[i].job == t->selected)
            at = i;
    if (!all->count)
        return;
    if (at == all->count)
        at = step > 0 ? 0 : all->count - 1;
    else
        at = step > 0 ? (at + 1 < all->count ? at + 1 : at) : at ? at - 1 : 0;
    t->selected = all->jobs[at].job;
    t->follows = true;
}

static void cancel(struct top *t)
{
    struct pagemill_error err;
    int rc = pagemill_cancel(t->pm, t->asked, ANSWER_MS, &err);
    if (rc)
        snprintf(t->notice, sizeof t->notice, "%.180s", err.text);
    else
        snprintf(t->notice, sizeof t->notice, "job %llu is cancelled", (unsigned long long)t->asked);
}

static void scroll(struct top *t, long lines)
{
    if (lines < 0)
        t->offset = t->offset > (size_t)-lines ? t->offset - (size_t)-lines : 0;
    else
        t->offset += (size_t)lines; /* draw() takes back what is too much */
}

/* False: leave. */
static bool on_key(struct top *t, int key)
{
    uint64_t asked = t->asked;
    t->notice[0] = 0;
    if (asked) {
        if (key == 'y')
            cancel(t);
        t->asked = 0;
        return true;
    }
    if (t->wants_help && key != 'q') {
        t->wants_help = false;
        return true;
    }
    switch (key) {
    case 'q':
    case 3: /* Ctrl-C of a terminal that sends no signal for it */
    case PM_KEY_GONE:
        return false;
    case 'j':
    case PM_KEY_DOWN:
        scroll(t, 1);
        break;
    case 'k':
    case PM_KEY_UP:
        scroll(t, -1);
        break;
    case ' ':
    case PM_KEY_PAGE_DOWN:
        scroll(t, (long)t->room);
        break;
    case 'b':
    case PM_KEY_PAGE_UP:
        scroll(t, -(long)t->room);
        break;
    case 'g':
    case PM_KEY_HOME:
        t->offset = 0;
        break;
    case 'G':
    case PM_KEY_END:
        t->offset = t->body;
        break;
    case 'n':
    case '\t':
    case 'p':
        mark(t, key == 'p' ? -1 : 1);
        break;
    case 'c':
        t->asked = t->selected;
        if (!t->selected)
            snprintf(t->notice, sizeof t->notice, "mark a job with n first");
        break;
    case 'a':
        t->wants_all = !t->wants_all;
        break;
    case 'h':
    case '?':
        t->wants_help = true;
        break;
    default:
        break;
    }
    return true;
}

static int loop(struct pm_cli_session *session)
{
    struct top t = {
        .pm = session->pm, .endpoint = session->endpoint, .is_colored = pm_color_is_on(STDOUT_FILENO)};
    struct pagemill_error err;
    int64_t next_us = 0;
    bool is_on = true, stop = false;
    int rc = 0;
    pm_screen_open(&t.screen);
    while (is_on && !stop) {
        int64_t now = pm_clock_us();
        if (now >= next_us) {
            if ((rc = ask(&t, &err)))
                break;
            next_us = (now = pm_clock_us()) + TURN_US;
        }
        draw(&t);
        int key = pm_screen_wait(&t.screen, session->interrupt_fd, next_us - now, &stop);
        if (key != PM_KEY_NONE)
            is_on = on_key(&t, key);
    }
    pm_screen_close(&t.screen);
    forget_samples(&t);
    free_listing(&t.listing);
    if (!rc || rc == PAGEMILL_ECANCELLED)
        return PM_EXIT_OK;
    pm_cli_error("%s", err.text);
    return pm_cli_exit_code(rc);
}

static int snapshot(pagemill *pm, const struct settings *s)
{
    struct pagemill_stats *stats;
    struct pagemill_error err;
    struct listing listing = {0};
    int code = PM_EXIT_OK, rc = pagemill_stats(pm, ANSWER_MS, &stats, &err);
    if (!rc && !s->json && (rc = list_jobs(pm, ANSWER_MS, &listing, &err)))
        pagemill_stats_free(&stats);
    if (rc) {
        pm_cli_error("%s", err.text);
        return pm_cli_exit_code(rc);
    }
    if (s->json) {
        code = pm_show_json(pm_show_stats_json(stats));
    } else {
        struct pm_top_lines made;
        int width = isatty(STDOUT_FILENO) || getenv("COLUMNS") ? pm_cli_width(STDOUT_FILENO) : 120;
        struct pm_top_input in = {.now = stats,
                                  .jobs = &listing.all,
                                  .now_wall_us = pm_wall_us(),
                                  .width = width,
                                  .is_colored = pm_color_is_on(STDOUT_FILENO)};
        pm_top_make(&in, &made);
        for (size_t i = 0; i < made.count; i++)
            puts(made.lines[i]);
        pm_top_free(&made);
    }
    free_listing(&listing);
    pagemill_stats_free(&stats);
    return fflush(stdout) ? PM_EXIT_FAILED : code;
}

static int check(struct pm_cli_session *session)
{
    const struct settings *s = session->settings;
    session->can_interrupt = !s->once && !s->json && pm_cli_is_terminal(STDOUT_FILENO);
    return -1;
}

static int work(struct pm_cli_session *session)
{
    return session->can_interrupt ? loop(session) : snapshot(session->pm, session->settings);
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    return pm_cli_talk(command, argc, argv, &s, &s.fleet, check, work);
}

const struct pm_command pm_command_top = {
    .name = "top",
    .run = run,
    .usage =
        {.name = "pagemill top",
         .arguments = "",
         .summary = "show what a fleet is doing",
         .about =
             "A screen renewed twice a second: counts and rates, the queues with the age of their oldest "
             "task, "
             "jobs with their progress and the time left, every process with its state, its memory and the "
             "tasks it holds, and all counters that are not zero (refusals, retries, drops: each has one). "
             "A broker that is gone is waited for. Rates of a single snapshot are means since the fleet's "
             "start.\n",
         .more = "KEYS\n q          leave, as Ctrl-C does\n j k        scroll a line; also the arrow keys\n"
                 " space b    scroll a screen; also the page keys\n g G        first and last line\n"
                 " n p        mark the next, the previous job; also Tab\n c          cancel the marked job\n"
                 " a          whole lists, or what fits\n h          help\n"
                 "\fEXIT STATUS\n 0    all is well\n 1    the command failed\n 2    wrong usage\n"
                 " 3    no fleet is running\n",
         .tables = tables},
};
