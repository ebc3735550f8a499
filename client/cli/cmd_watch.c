/* pagemill watch: follows jobs until they are finished. */
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "client/cli/cli.h"
#include "client/cli/show.h"

#define ANSWER_MS 10000
#define LOOK_MS   5000

struct settings {
    struct pm_cli_fleet fleet;
    const char *batch;
    bool partial, json;
};
static const struct pm_option options[] = {
    {"batch", 0, PM_OPTION_TEXT, "NAME", "Follow all jobs of this batch, until interrupted.",
     offsetof(struct settings, batch), 0, 0},
    {"partial", 0, PM_OPTION_FLAG, NULL, "Also show text while it is read.",
     offsetof(struct settings, partial), 0, 0},
    {"json", 0, PM_OPTION_FLAG, NULL, "One JSON object a line for each event.",
     offsetof(struct settings, json), 0, 0},
    PM_CLI_FLEET_OPTIONS(struct settings, fleet),
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

static const char *event_name(int kind)
{
    static const char *const names[] = {"?",       "state", "progress", "page",
                                        "partial", "retry", "lost",     "resync"};
    return kind >= PAGEMILL_EVENT_STATE && kind <= PAGEMILL_EVENT_RESYNC ? names[kind] : names[0];
}

static void show_event(const struct settings *s, const struct pagemill_event *e)
{
    const struct pagemill_job *j = &e->job;
    if (s->json) {
        json_t *o = pm_show_job_json(j);
        json_object_set_new(o, "event", json_string(event_name(e->kind)));
        json_object_set_new(o, "page", json_integer(e->page));
        json_object_set_new(o, "region", json_integer(e->region));
        json_object_set_new(o, "text", json_string(e->text));
        json_dumpf(o, stdout, JSON_COMPACT);
        json_decref(o);
        putchar('\n');
    } else if (e->kind == PAGEMILL_EVENT_STATE) {
        const char *state = pagemill_job_state_name((int)j->state);
        enum pm_color color = pm_color_of_state(state);
        bool is_on = pm_color_is_on(STDOUT_FILENO);
        printf("job %llu %s%s%s", (unsigned long long)j->job, pm_color_begin(color, is_on), state,
               pm_color_end(color, is_on));
        if (*j->error_text) {
            fputs(": ", stdout);
            pm_show_text(j->error_text, stdout);
        }
        putchar('\n');
    } else if (e->kind == PAGEMILL_EVENT_PAGE) {
        printf("job %llu page %u %s (%u/%u)\n", (unsigned long long)j->job, e->page,
               *e->page_blob ? "read" : "failed", j->pages_done + j->pages_failed, j->pages);
    } else if (e->kind == PAGEMILL_EVENT_RETRY || e->kind == PAGEMILL_EVENT_PARTIAL) {
        printf("job %llu page %u%s", (unsigned long long)j->job, e->page,
               e->kind == PAGEMILL_EVENT_RETRY ? " tried again: " : ": ");
        pm_show_text(e->text, stdout);
        putchar('\n');
    }
    fflush(stdout);
}

/* The state of a job that is followed, 0 when it cannot be asked. */
static int state_of(pagemill *pm, uint64_t job, int *code)
{
    struct pagemill_jobs *jobs;
    struct pagemill_error err;
    int rc = pagemill_status(pm, job, ANSWER_MS, &jobs, &err);
    if (rc) {
        pm_cli_error("%s", err.text);
        *code = pm_cli_exit_code(rc);
        return 0;
    }
    int state = (int)jobs->jobs[0].state;
    pagemill_jobs_free(&jobs);
    return state;
}

/* Follows until `left` of `jobs` are final; with no jobs, until interrupted. */
static int follow(pagemill *pm, const struct settings *s, uint64_t *jobs, size_t count)
{
    size_t left = count;
    int code = PM_EXIT_OK;
    bool should_look = true;
    while (left || !count) {
        const struct pagemill_event *event = NULL;
        struct pagemill_error err;
        for (size_t i = 0; i < count && should_look; i++) {
            int state = jobs[i] ? state_of(pm, jobs[i], &code) : 0;
            if (jobs[i] && !state)
                return code;
            if (jobs[i] && pagemill_job_is_final(state)) {
                if (state != PAGEMILL_JOB_DONE)
                    code = PM_EXIT_FAILED;
                jobs[i] = 0;
                left--;
            }
        }
        if (count && !left)
            return code;
        int rc = pagemill_next_event(pm, LOOK_MS, &event, &err);
        if (rc && rc != PAGEMILL_ETIMEOUT) {
            if (rc != PAGEMILL_ECANCELLED)
                pm_cli_error("%s", err.text);
            return pm_cli_exit_code(rc);
        }
        should_look = rc == PAGEMILL_ETIMEOUT || event->kind == PAGEMILL_EVENT_RESYNC ||
                      pagemill_job_is_final((int)event->job.state);
        if (event)
            show_event(s, event);
        if (rc == PAGEMILL_ETIMEOUT && !pagemill_is_connected(pm) && !count) {
            pm_cli_error("the fleet has left");
            return PM_EXIT_NO_FLEET;
        }
    }
    return code;
}

static int check(struct pm_cli_session *session)
{
    const struct settings *s = session->settings;
    session->can_interrupt = true;
    if (!s->batch || !session->arguments.count)
        return -1;
    pm_cli_error("watch: name jobs or --batch, not both");
    return PM_EXIT_USAGE;
}

static int work(struct pm_cli_session *session)
{
    const struct settings *s = session->settings;
    const struct pm_arguments *arguments = &session->arguments;
    pagemill *pm = session->pm;
    struct pagemill_error err;
    uint64_t *jobs = pm_xalloc((arguments->count + 1) * sizeof *jobs);
    int rc = 0, code = 0;
    for (size_t i = 0; i < arguments->count && !rc; i++) {
        if ((rc = pm_cli_job_number(arguments->items[i], &jobs[i], (void *)&err)))
            code = PM_EXIT_USAGE;
        else
            rc = pagemill_watch(pm, jobs[i], NULL, s->partial, ANSWER_MS, &err);
    }
    if (!rc && !arguments->count)
        rc = pagemill_watch(pm, 0, s->batch, s->partial, ANSWER_MS, &err);
    if (rc)
        pm_cli_error("%s", err.text);
    code = rc ? (code ? code : pm_cli_exit_code(rc)) : follow(pm, s, jobs, arguments->count);
    free(jobs);
    return code;
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    return pm_cli_talk(command, argc, argv, &s, &s.fleet, check, work);
}

const struct pm_command pm_command_watch = {
    .name = "watch",
    .run = run,
    .usage =
        {.name = "pagemill watch",
         .arguments = "[JOB...]",
         .summary = "follow jobs until they are finished",
         .about =
             "Prints a line for each page that is read, each retry and each change of state, and ends when "
             "all named "
             "jobs are finished. Without a job, follows everything that the fleet does until interrupted.\n",
         .more = "EXIT STATUS\n 0    the jobs are done\n 1    one of them failed or was cancelled\n 2    "
                 "wrong usage\n"
                 " 3    no fleet is running\n 130  interrupted\n",
         .tables = tables,
         .most = UINT32_MAX},
};
