/* pagemill retry: runs what failed again. */
#include "client/cli/cli.h"

#define ANSWER_MS 10000

struct settings {
    struct pm_cli_fleet fleet;
};
static const struct pm_option options[] = {PM_CLI_FLEET_OPTIONS(struct settings, fleet), PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

static int retry(struct pm_cli_session *session, uint64_t job, struct pagemill_error *err)
{
    return pagemill_retry(session->pm, job, ANSWER_MS, err);
}

static int work(struct pm_cli_session *session)
{
    return pm_cli_each_job(session, retry);
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    return pm_cli_talk(command, argc, argv, &s, &s.fleet, NULL, work);
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
