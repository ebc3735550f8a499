/* pagemill jobs: lists jobs, newest first. */
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/cli/cli.h"
#include "client/cli/show.h"

#define ANSWER_MS 10000

struct settings {
    struct pm_cli_fleet fleet;
    const char *state, *batch;
    int state_number; /* of it; 0: any */
    uint32_t limit;
    bool json, all;
};
static const struct pm_option options[] = {
    {"state", 0, PM_OPTION_TEXT, "STATE",
     "Only jobs in this state: queued, running, done, failed, cancelled.", offsetof(struct settings, state),
     0, 0},
    {"batch", 0, PM_OPTION_TEXT, "NAME", "Only jobs of this batch.", offsetof(struct settings, batch), 0, 0},
    {"limit", 'n', PM_OPTION_UINT, "N", "At most so many. Default: 100.", offsetof(struct settings, limit), 1,
     10000000},
    {"all", 'a', PM_OPTION_FLAG, NULL, "All of them, without a limit.", offsetof(struct settings, all), 0, 0},
    {"json", 0, PM_OPTION_FLAG, NULL, "A JSON list instead of a table.", offsetof(struct settings, json), 0,
     0},
    PM_CLI_FLEET_OPTIONS(struct settings, fleet),
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

static int check(struct pm_cli_session *session)
{
    struct settings *s = session->settings;
    for (int i = PAGEMILL_JOB_QUEUED; s->state && i <= PAGEMILL_JOB_CANCELLED; i++)
        if (!strcmp(s->state, pagemill_job_state_name(i)))
            s->state_number = i;
    if (s->all && s->limit) {
        pm_cli_error("jobs: --all and --limit exclude each other");
        return PM_EXIT_USAGE;
    }
    if (!s->state || s->state_number)
        return -1;
    pm_cli_error("jobs: --state is queued, running, done, failed or cancelled, not \"%s\"", s->state);
    return PM_EXIT_USAGE;
}

static int list(struct pm_cli_session *session)
{
    const struct settings *s = session->settings;
    struct pagemill_list_options o = PAGEMILL_LIST_OPTIONS_INIT;
    struct pagemill_error err;
    json_t *out = s->json ? json_array() : NULL;
    uint32_t left = s->all ? UINT32_MAX : s->limit ? s->limit : 100;
    bool has_more = true;
    bool is_colored = pm_color_is_on(STDOUT_FILENO);
    int width = isatty(STDOUT_FILENO) ? pm_cli_width(STDOUT_FILENO) : 10000;
    o.state = s->state_number;
    o.batch = s->batch;
    if (!out)
        pm_show_jobs_header(stdout);
    while (left && has_more) {
        struct pagemill_jobs *jobs;
        o.limit = left < 1000 ? left : 1000;
        int rc = pagemill_list(session->pm, &o, ANSWER_MS, &jobs, &err);
        if (rc) {
            pm_cli_error("%s", err.text);
            json_decref(out);
            return pm_cli_exit_code(rc);
        }
        has_more = jobs->has_more && jobs->count;
        for (size_t i = 0; i < jobs->count && left; i++, left--) {
            o.before = jobs->jobs[i].job;
            if (out)
                json_array_append_new(out, pm_show_job_json(&jobs->jobs[i]));
            else
                pm_show_job_row(&jobs->jobs[i], pm_wall_us(), width, is_colored, stdout);
        }
        pagemill_jobs_free(&jobs);
    }
    if (out)
        return pm_show_json(out);
    if (has_more && isatty(STDOUT_FILENO))
        printf("... and older ones: --limit N, --all\n");
    return fflush(stdout) ? PM_EXIT_FAILED : PM_EXIT_OK;
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    return pm_cli_talk(command, argc, argv, &s, &s.fleet, check, list);
}

const struct pm_command pm_command_jobs = {
    .name = "jobs",
    .run = run,
    .usage =
        {.name = "pagemill jobs",
         .arguments = "",
         .summary = "list the jobs of a fleet",
         .about =
             "Lists jobs, the newest first: number, state, pages read of all pages, pages that failed, age, "
             "time left and name. "
             "Finished jobs are listed until their results expire or are dropped.\n",
         .more = PM_CLI_EXIT_SECTION,
         .tables = tables},
};
