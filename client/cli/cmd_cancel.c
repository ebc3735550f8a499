/* pagemill cancel: stops jobs. */
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

static int check(struct pm_cli_session *session)
{
    const struct settings *s = session->settings;
    if (session->arguments.count || s->batch)
        return -1;
    pm_cli_error("cancel: name a job or --batch");
    return PM_EXIT_USAGE;
}

static int cancel(struct pm_cli_session *session, uint64_t job, struct pagemill_error *err)
{
    return pagemill_cancel(session->pm, job, ANSWER_MS, err);
}

static int work(struct pm_cli_session *session)
{
    const struct settings *s = session->settings;
    if (s->batch) {
        struct pagemill_error err;
        uint32_t count = 0;
        int rc = pagemill_cancel_batch(session->pm, s->batch, ANSWER_MS, &count, &err);
        if (rc) {
            pm_cli_error("%s", err.text);
            return pm_cli_exit_code(rc);
        }
        printf("%u job%s cancelled\n", count, count == 1 ? "" : "s");
    }
    return pm_cli_each_job(session, cancel);
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    return pm_cli_talk(command, argc, argv, &s, &s.fleet, check, work);
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
