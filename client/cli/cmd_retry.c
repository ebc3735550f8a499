/* pagemill retry: runs what failed again. */
#include <stdlib.h>

#include "client/cli/cli.h"

#define ANSWER_MS 10000

struct settings {
    struct pm_cli_fleet fleet;
};
static const struct pm_option options[] = {PM_CLI_FLEET_OPTIONS(struct settings, fleet), PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

static int retry(pagemill *pm, const struct pm_arguments *arguments)
{
    int code = PM_EXIT_OK;
    for (size_t i = 0; i < arguments->count; i++) {
        struct pagemill_error err;
        uint64_t job;
        int rc = pm_cli_job_number(arguments->items[i], &job, (void *)&err);
        int failed = rc ? PM_EXIT_USAGE : 0;
        if (!rc && (rc = pagemill_retry(pm, job, ANSWER_MS, &err)))
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
    if (code < 0 && !(code = pm_cli_connect(&s.fleet, -1, &pm)))
        code = retry(pm, &arguments);
    pagemill_close(&pm);
    free(arguments.items);
    return code;
}

const struct pm_command pm_command_retry = {
    .name = "retry",
    .run = run,
    .usage =
        {.name = "pagemill retry",
         .arguments = "JOB...",
         .summary = "run failed or cancelled jobs again",
         .about =
             "Puts failed and cancelled jobs back in the queue, and of finished jobs the pages that failed. "
             "What was "
             "read already is not read again. Follow them with watch.\n",
         .more = PM_CLI_EXIT_SECTION,
         .tables = tables,
         .least = 1,
         .most = UINT32_MAX},
};
