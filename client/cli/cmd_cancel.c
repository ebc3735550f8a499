/* pagemill cancel: stops jobs. */
#include <stdlib.h>

#include "client/cli/cli.h"

#define ANSWER_MS 10000

struct settings {
    struct pm_cli_fleet fleet;
    const char *batch;
};
static const struct pm_option options[] = {{"batch", 0, PM_OPTION_TEXT, "NAME",
                                            "Cancel all unfinished jobs of this batch.",
                                            offsetof(struct settings, batch), 0, 0},
                                           PM_CLI_FLEET_OPTIONS(struct settings, fleet),
                                           PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

static int cancel(pagemill *pm, const struct settings *s, const struct pm_arguments *arguments)
{
    struct pagemill_error err;
    int code = PM_EXIT_OK;
    if (s->batch) {
        uint32_t count = 0;
        int rc = pagemill_cancel_batch(pm, s->batch, ANSWER_MS, &count, &err);
        if (rc) {
            pm_cli_error("%s", err.text);
            return pm_cli_exit_code(rc);
        }
        printf("%u job%s cancelled\n", count, count == 1 ? "" : "s");
    }
    for (size_t i = 0; i < arguments->count; i++) {
        uint64_t job;
        int rc = pm_cli_job_number(arguments->items[i], &job, (void *)&err);
        int failed = rc ? PM_EXIT_USAGE : 0;
        if (!rc && (rc = pagemill_cancel(pm, job, ANSWER_MS, &err)))
            failed = pm_cli_exit_code(rc);
        if (failed) {
            pm_cli_error("%s", err.text);
            code = failed;
        }
    }
    return code;
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    struct pm_arguments arguments;
    pagemill *pm = NULL;
    int code = pm_cli_begin(command, argc, argv, &s, &arguments);
    if (code < 0 && !arguments.count && !s.batch) {
        pm_cli_error("cancel: name a job or --batch");
        code = PM_EXIT_USAGE;
    }
    if (code < 0 && !(code = pm_cli_connect(&s.fleet, -1, &pm)))
        code = cancel(pm, &s, &arguments);
    pagemill_close(&pm);
    free(arguments.items);
    return code;
}

const struct pm_command pm_command_cancel = {
    .name = "cancel",
    .run = run,
    .usage =
        {.name = "pagemill cancel",
         .arguments = "JOB...",
         .summary = "stop jobs",
         .about =
             "Stops jobs at once, regions being read included. A cancelled job stays in the list and can be "
             "run again "
             "with retry.\n",
         .more = PM_CLI_EXIT_SECTION,
         .tables = tables,
         .most = UINT32_MAX},
};
