/* pagemill result: fetches the files of finished jobs. */
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "client/cli/cli.h"
#include "client/cli/show.h"

#define ANSWER_MS 60000

struct settings {
    struct pm_cli_fleet fleet;
    const char *out;
    bool to_stdout, forget, json;
};
static const struct pm_option options[] = {
    {"output", 'o', PM_OPTION_TEXT, "OUT", "The folder; each job gets OUT/STEM. Default: output.",
     offsetof(struct settings, out), 0, 0},
    {"stdout", 0, PM_OPTION_FLAG, NULL,
     "Print the Markdown (else the first text file) instead of writing files.",
     offsetof(struct settings, to_stdout), 0, 0},
    {"json", 0, PM_OPTION_FLAG, NULL,
     "Print what the result is, when each page was laid out, read and done, and where the time went; write "
     "no "
     "files.",
     offsetof(struct settings, json), 0, 0},
    {"forget", 0, PM_OPTION_FLAG, NULL, "Drop the job and its results from the fleet afterwards.",
     offsetof(struct settings, forget), 0, 0},
    PM_CLI_FLEET_OPTIONS(struct settings, fleet),
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

static int print_text(pagemill *pm, const struct pagemill_result *result, struct pagemill_error *err)
{
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < result->count; i++) {
        const char *name = result->files[i].name, *dot = strrchr(name, '.');
        if (strchr(name, '/'))
            continue;
        if (best == SIZE_MAX || (dot && !strcmp(dot, ".md")))
            best = i;
    }
    void *data;
    size_t bytes;
    if (best == SIZE_MAX)
        return 0;
    int rc = pagemill_result_read(pm, result, best, ANSWER_MS, &data, &bytes, err);
    if (rc)
        return rc;
    fwrite(data, 1, bytes, stdout);
    pagemill_free(data);
    if (fflush(stdout))
        return pm_fail_errno((void *)err, "cannot write to standard output");
    return 0;
}

static int deliver(struct pm_cli_session *session, uint64_t job, struct pagemill_error *err)
{
    const struct settings *s = session->settings;
    pagemill *pm = session->pm;
    struct pagemill_jobs *jobs = NULL;
    struct pagemill_result *result = NULL;
    int rc = pagemill_status(pm, job, ANSWER_MS, &jobs, err);
    if (!rc && !pagemill_job_is_final((int)jobs->jobs[0].state))
        rc = pm_fail((void *)err, PM_EBUSY, "job %llu is still %s; `pagemill watch %llu` waits for it",
                     (unsigned long long)job, pagemill_job_state_name((int)jobs->jobs[0].state),
                     (unsigned long long)job);
    if (!rc && jobs->jobs[0].state != PAGEMILL_JOB_DONE)
        rc = pm_fail((void *)err, PM_ENOTFOUND, "job %llu has no result: %s%s%s", (unsigned long long)job,
                     pagemill_job_state_name((int)jobs->jobs[0].state), *jobs->jobs[0].error_text ? ": " : "",
                     jobs->jobs[0].error_text);
    if (!rc)
        rc = pagemill_result(pm, job, ANSWER_MS, &result, err);
    if (!rc && s->json) {
        if (pm_show_json(pm_show_result_json(job, result)))
            rc = pm_fail_errno((void *)err, "cannot write to standard output");
    } else if (!rc && s->to_stdout) {
        rc = print_text(pm, result, err);
    } else if (!rc) {
        char *stem = pm_fs_clean_name(jobs->jobs[0].stem);
        char *dir = pm_fs_join(s->out ? s->out : "output", stem);
        for (size_t i = 0; i < result->count && !rc; i++)
            rc = pagemill_result_save(pm, result, i, dir, ANSWER_MS, err);
        if (!rc)
            printf("%s\n", dir);
        free(dir);
        free(stem);
    }
    if (!rc && s->forget)
        rc = pagemill_forget(pm, job, ANSWER_MS, err);
    pagemill_result_free(&result);
    pagemill_jobs_free(&jobs);
    return rc;
}

static int work(struct pm_cli_session *session)
{
    return pm_cli_each_job(session, deliver);
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    return pm_cli_talk(command, argc, argv, &s, &s.fleet, NULL, work);
}

const struct pm_command pm_command_result = {
    .name = "result",
    .run = run,
    .usage = {.name = "pagemill result",
              .arguments = "JOB...",
              .summary = "fetch the files of finished jobs",
              .about =
                  "Writes the result of each job to OUT/STEM, as parse does, and prints that folder's name. "
                  "Results can be "
                  "fetched as often as wanted until they expire.\n",
              .more = PM_CLI_EXIT_SECTION,
              .tables = tables,
              .least = 1,
              .most = UINT32_MAX},
};
