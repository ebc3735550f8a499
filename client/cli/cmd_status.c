/* pagemill status: everything about some jobs. */
#include <unistd.h>

#include "base/clock.h"
#include "client/cli/cli.h"
#include "client/cli/show.h"

#define ANSWER_MS 10000

struct settings {
    struct pm_cli_fleet fleet;
    bool json;
    json_t *list; /* what was asked so far, with --json */
    bool has_shown;
};
static const struct pm_option options[] = {{"json", 0, PM_OPTION_FLAG, NULL,
                                            "A JSON object, or a list of them for several jobs.",
                                            offsetof(struct settings, json), 0, 0},
                                           PM_CLI_FLEET_OPTIONS(struct settings, fleet),
                                           PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

static int show(struct pm_cli_session *session, uint64_t job, struct pagemill_error *err)
{
    struct settings *s = session->settings;
    struct pagemill_jobs *jobs;
    int rc = pagemill_status(session->pm, job, ANSWER_MS, &jobs, err);
    if (rc)
        return rc;
    if (s->list) {
        json_array_append_new(s->list, pm_show_job_json(&jobs->jobs[0]));
    } else {
        if (s->has_shown)
            putchar('\n');
        s->has_shown = true;
        pm_show_job_details(&jobs->jobs[0], pm_wall_us(), pm_color_is_on(STDOUT_FILENO), stdout);
    }
    pagemill_jobs_free(&jobs);
    return 0;
}

static int work(struct pm_cli_session *session)
{
    struct settings *s = session->settings;
    s->list = s->json ? json_array() : NULL;
    int code = pm_cli_each_job(session, show);
    json_t *out = s->list;
    if (out && session->arguments.count == 1 && json_array_size(out) == 1) {
        out = json_incref(json_array_get(s->list, 0));
        json_decref(s->list);
    }
    if (out && pm_show_json(out))
        code = PM_EXIT_FAILED;
    return code;
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    return pm_cli_talk(command, argc, argv, &s, &s.fleet, NULL, work);
}

const struct pm_command pm_command_status = {
    .name = "status",
    .run = run,
    .usage = {.name = "pagemill status",
              .arguments = "JOB...",
              .summary = "show jobs in detail",
              .about = "Shows state, progress and times of each job, where its time went by kind of task "
                       "(waiting and working, "
                       "summed over tasks that ran beside each other), every page or region that could not "
                       "be read with the "
                       "reason, and every attempt that failed: when, what, why, and in which process.\n",
              .more = PM_CLI_EXIT_SECTION,
              .tables = tables,
              .least = 1,
              .most = UINT32_MAX},
};
