/* pagemill status: everything about some jobs. */
#include <stdlib.h>

#include "client/cli/cli.h"
#include "client/cli/show.h"

#define ANSWER_MS 10000

struct settings {
    struct pm_cli_fleet fleet;
    bool json;
};
static const struct pm_option options[] = {{"json", 0, PM_OPTION_FLAG, NULL,
                                            "A JSON object, or a list of them for several jobs.",
                                            offsetof(struct settings, json), 0, 0},
                                           PM_CLI_FLEET_OPTIONS(struct settings, fleet),
                                           PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

static int show(pagemill *pm, const struct settings *s, const struct pm_arguments *arguments)
{
    json_t *out = s->json ? json_array() : NULL;
    int code = PM_EXIT_OK;
    for (size_t i = 0; i < arguments->count; i++) {
        struct pagemill_error err;
        struct pagemill_jobs *jobs = NULL;
        uint64_t job;
        int rc = pm_cli_job_number(arguments->items[i], &job, (void *)&err);
        bool is_usage = rc != 0;
        if (!rc)
            rc = pagemill_status(pm, job, ANSWER_MS, &jobs, &err);
        if (rc) {
            pm_cli_error("%s", err.text);
            code = is_usage ? PM_EXIT_USAGE : pm_cli_exit_code(rc);
            continue;
        }
        if (out)
            json_array_append_new(out, pm_show_job_json(&jobs->jobs[0]));
        else {
            if (i)
                putchar('\n');
            pm_show_job_details(&jobs->jobs[0], stdout);
        }
        pagemill_jobs_free(&jobs);
    }
    if (out && arguments->count == 1 && json_array_size(out) == 1) {
        json_t *only = json_incref(json_array_get(out, 0));
        json_decref(out);
        out = only;
    }
    if (out && pm_show_json(out))
        code = PM_EXIT_FAILED;
    return code;
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    struct pm_arguments arguments;
    pagemill *pm = NULL;
    int code = pm_cli_begin(command, argc, argv, &s, &arguments);
    if (code < 0 && !(code = pm_cli_connect(&s.fleet, -1, &pm)))
        code = show(pm, &s, &arguments);
    pagemill_close(&pm);
    free(arguments.items);
    return code;
}

const struct pm_command pm_command_status = {
    .name = "status",
    .run = run,
    .usage =
        {.name = "pagemill status",
         .arguments = "JOB...",
         .summary = "show jobs in detail",
         .about =
             "Shows state, progress and times of each job, and every page or region that could not be read "
             "with the "
             "reason.\n",
         .more = PM_CLI_EXIT_SECTION,
         .tables = tables,
         .least = 1,
         .most = UINT32_MAX},
};
