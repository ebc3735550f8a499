/* pagemill submit: gives documents to a running fleet. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/utf8.h"
#include "client/cli/batch.h"
#include "client/cli/read_options.h"

#define SUBMIT_MS 600000
#define MOST_JOBS 256

struct settings {
    struct pm_cli_fleet fleet;
    struct pm_read_options read;
    const char *key, *batch;
    uint32_t priority;
    bool wait, partial, again;
};
static const struct pm_option own_options[] = {
    {"wait", 'W', PM_OPTION_FLAG, NULL,
     "Wait for the documents and write their results, as parse does. Ctrl-C cancels them. Without it, "
     "--output, "
     "--stdout, --no-save and --timeout have no meaning.",
     offsetof(struct settings, wait), 0, 0},
    {"key", 'k', PM_OPTION_TEXT, "TEXT",
     "Idempotency key: submitting the same key again gives the first job instead of a new one. Without it "
     "the "
     "same document under the same name with the same options is the same job, unless that failed.",
     offsetof(struct settings, key), 0, 0},
    {"again", 0, PM_OPTION_FLAG, NULL,
     "Read everything anew: no earlier job, and no page that was read before, stands for it.",
     offsetof(struct settings, again), 0, 0},
    {"priority", 0, PM_OPTION_UINT, "N", "0 (background) to 4 (interactive). Default: 2.",
     offsetof(struct settings, priority), 0, 4},
    {"batch", 0, PM_OPTION_TEXT, "NAME", "Group the jobs under this name, for jobs, watch and cancel.",
     offsetof(struct settings, batch), 0, 0},
    {"partial", 0, PM_OPTION_FLAG, NULL, "Let `pagemill watch --partial` show text while it is read.",
     offsetof(struct settings, partial), 0, 0},
    PM_CLI_FLEET_OPTIONS(struct settings, fleet),
    PM_OPTION_END};
static const struct pm_option shared_options[] = {PM_READ_OPTIONS(struct settings, read), PM_OPTION_END};
static const struct pm_option *const tables[] = {own_options, shared_options, NULL};

static int submit_input(pagemill *pm, const struct pm_input *input, struct pagemill_submit_options *o,
                        struct pagemill_error *err)
{
    struct pm_buf name = {0};
    uint64_t job = 0;
    int is_duplicate = 0;
    const char *path = input->path ? input->path : "(stdin)";
    pm_utf8_mend(path, strlen(path), &name);
    pm_buf_text(&name, "");
    o->name = (const char *)name.data;
    o->is_duplicate = &is_duplicate;
    int rc = input->path ? pagemill_submit_path(pm, input->path, o, SUBMIT_MS, &job, err)
                         : pagemill_submit_fd(pm, STDIN_FILENO, o, SUBMIT_MS, &job, err);
    if (!rc)
        printf("%llu %s\n", (unsigned long long)job, path);
    if (!rc && is_duplicate)
        fprintf(stderr, "pagemill: %s was submitted before, as job %llu (--again reads it anew)\n", path,
                (unsigned long long)job);
    pm_buf_free(&name);
    return rc;
}

static int submit_all(pagemill *pm, struct pm_intake *intake, const struct pagemill_submit_options *options)
{
    struct pm_names *names = pm_names_new();
    int code = PM_EXIT_OK;
    for (size_t i = 0; i < intake->count; i++) {
        struct pm_input *input = &intake->items[i];
        struct pagemill_submit_options o = *options;
        struct pagemill_error err;
        int rc = 0;
        if (input->error)
            rc = pm_fail((void *)&err, PM_ENOTFOUND, "%s", input->error);
        else if (input->must_look && !pm_intake_is_document(input->path))
            continue;
        if (!rc) {
            char *stem = pm_names_claim(names, input->folder, input->path);
            o.stem = stem;
            rc = submit_input(pm, input, &o, &err);
            free(stem);
        }
        if (rc) {
            pm_cli_error("%s: %s", input->path ? input->path : "(stdin)", err.text);
            code = rc == PAGEMILL_EGONE || rc == PAGEMILL_ECANCELLED ? pm_cli_exit_code(rc) : PM_EXIT_FAILED;
            if (code != PM_EXIT_FAILED)
                break;
        }
    }
    if (fflush(stdout) && code == PM_EXIT_OK)
        code = PM_EXIT_FAILED;
    pm_names_free(&names);
    return code;
}

static int work(const struct settings *s, struct pm_batch_config *config, struct pm_intake *intake)
{
    struct pm_error err;
    int code;
    int interrupt_fd = pm_interrupt_open(&err);
    char *endpoint = pm_cli_endpoint(&s->fleet, &code);
    if (interrupt_fd < 0) {
        pm_cli_error("%s", err.text);
        code = PM_EXIT_FAILED;
    } else if (endpoint && s->wait) {
        code = pm_batch_run(config, intake, endpoint, NULL, interrupt_fd);
    } else if (endpoint) {
        pagemill *pm;
        if (!(code = pm_cli_connect(&s->fleet, interrupt_fd, &pm)))
            code = submit_all(pm, intake, &config->submit);
        pagemill_close(&pm);
    }
    if (interrupt_fd >= 0)
        close(interrupt_fd);
    free(endpoint);
    return code;
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {.priority = 2};
    struct pm_arguments arguments;
    struct pm_batch_config config = {.most_jobs = MOST_JOBS, .keep_jobs = true};
    struct pm_intake intake = {0};
    int code = pm_cli_begin(command, argc, argv, &s, &arguments);
    if (code < 0)
        code = pm_cli_use_color(command, s.fleet.color);
    if (code < 0 && !s.wait && (s.read.out || s.read.to_stdout || s.read.no_save || s.read.timeout_s)) {
        pm_cli_error("submit: --output, --stdout, --no-save and --timeout need --wait; fetch later with "
                     "`pagemill result`");
        code = PM_EXIT_USAGE;
    }
    if (code < 0)
        code = pm_read_prepare(command, &s.read, &arguments, &config, &intake);
    if (code < 0 && s.key && intake.count > 1) {
        pm_cli_error("submit: --key stands for one document, not for %zu", intake.count);
        code = PM_EXIT_USAGE;
    }
    if (code < 0) {
        config.submit.key = s.key;
        config.submit.batch = s.batch;
        config.submit.priority = s.priority;
        config.submit.partial_text = s.partial;
        config.submit.again = s.again;
        code = work(&s, &config, &intake);
    }
    pm_intake_free(&intake);
    pm_read_free(&s.read);
    free(arguments.items);
    return code;
}

const struct pm_command pm_command_submit = {
    .name = "submit",
    .run = run,
    .usage =
        {.name = "pagemill submit",
         .arguments = "FILE|FOLDER|- ...",
         .summary = "give documents to a running fleet",
         .about =
             "Submits documents to the fleet that `pagemill up` started. For each one a line with the job's "
             "number and "
             "the file's name is printed once the fleet has stored it safely: from then on it survives a "
             "power cut. "
             "Folders, \"-\" and --files-from are as in parse.\n"
             "\n"
             "With --wait the results are written as they come, like those of parse; the jobs also stay in "
             "the fleet's "
             "list.\n",
         .more =
             "EXIT STATUS\n 0    everything was accepted, or with --wait read\n 1    some document failed\n"
             " 2    wrong usage\n 3    no fleet is running\n 130  interrupted\n"
             "\fEXAMPLES\n pagemill submit report.pdf --pages 1-20,31 --wait -o out/\n pagemill submit "
             "inbox/ "
             "--batch "
             "monday --priority 0\n",
         .tables = tables,
         .most = UINT32_MAX},
};
