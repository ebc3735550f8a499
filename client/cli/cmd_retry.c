/* pagemill retry: runs what failed again. */
#include "client/cli/cli.h"

#define ANSWER_MS 10000
#define BATCH_MS  120000

struct settings {
    struct pm_cli_fleet fleet;
    const char *batch;
    bool all_failed, forget;
};
static const struct pm_option options[] = {
    {"batch", 0, PM_OPTION_TEXT, "NAME", "All jobs of this batch that have failed parts.",
     offsetof(struct settings, batch), 0, 0},
    {"all-failed", 0, PM_OPTION_FLAG, NULL, "All jobs that have failed parts.",
     offsetof(struct settings, all_failed), 0, 0},
    {"forget", 0, PM_OPTION_FLAG, NULL,
     "Drop them instead, with what is known of them: named jobs that have ended, and with --batch or "
     "--all-failed those that failed as a whole.",
     offsetof(struct settings, forget), 0, 0},
    PM_CLI_FLEET_OPTIONS(struct settings, fleet),
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

static int check(struct pm_cli_session *session)
{
    const struct settings *s = session->settings;
    int ways = (session->arguments.count > 0) + (s->batch != NULL) + s->all_failed;
    if (ways == 1 && (!s->batch || *s->batch))
        return -1;
    pm_cli_error(ways > 1 ? "retry: jobs, --batch or --all-failed, not several of them"
                          : "retry: name a job, --batch or --all-failed");
    return PM_EXIT_USAGE;
}

static int retry(struct pm_cli_session *session, uint64_t job, struct pagemill_error *err)
{
    return pagemill_retry(session->pm, job, ANSWER_MS, err);
}

static int forget(struct pm_cli_session *session, uint64_t job, struct pagemill_error *err)
{
    return pagemill_forget(session->pm, job, ANSWER_MS, err);
}

static int work(struct pm_cli_session *session)
{
    const struct settings *s = session->settings;
    if (!s->batch && !s->all_failed)
        return pm_cli_each_job(session, s->forget ? forget : retry);
    struct pagemill_error err;
    uint32_t count = 0;
    int rc = s->forget ? pagemill_forget_failed(session->pm, s->batch, BATCH_MS, &count, &err)
                       : pagemill_retry_batch(session->pm, s->batch, BATCH_MS, &count, &err);
    if (rc) {
        pm_cli_error("%s", err.text);
        return pm_cli_exit_code(rc);
    }
    printf("%u job%s %s\n", count, count == 1 ? "" : "s", s->forget ? "forgotten" : "tried again");
    return 0;
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    return pm_cli_talk(command, argc, argv, &s, &s.fleet, check, work);
}

const struct pm_command pm_command_retry = {
    .name = "retry",
    .run = run,
    .usage = {.name = "pagemill retry",
              .arguments = "JOB...",
              .summary = "run failed or cancelled jobs again",
              .about =
                  "Puts failed and cancelled jobs back in the queue, and of finished jobs the pages that "
                  "failed. What was read already is not read again. Each task begins with all its attempts; "
                  "the log of earlier ones stays with the job. Follow them with watch.\n",
              .more = PM_CLI_EXIT_SECTION,
              .tables = tables,
              .most = UINT32_MAX},
};
