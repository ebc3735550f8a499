/* pagemill parse: reads documents with a private fleet. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "client/cli/batch.h"
#include "client/cli/read_options.h"

#define MOST_JOBS 64

struct settings {
    struct pm_read_options read;
    uint32_t workers, threads, kv_memory_mb, memory_mb;
    const char *kv, *models, *log, *log_level, *color;
};

static const struct pm_option own_options[] = {
    {"workers", 'w', PM_OPTION_UINT, "N",
     "Worker processes. Default: one a core; for readers of blocks one in all.",
     offsetof(struct settings, workers), 1, 1024},
    {"threads", 0, PM_OPTION_UINT, "N",
     "Compute threads of a worker. Default: 1; for readers of blocks one a core.",
     offsetof(struct settings, threads), 1, 1024},
    {"kv-memory", 0, PM_OPTION_UINT, "MB",
     "Most memory of a worker for texts being written, by readers that write token by token.",
     offsetof(struct settings, kv_memory_mb), 1, 1u << 24},
    {"kv", 0, PM_OPTION_TEXT, "bf16|int8",
     "How these texts are kept: int8 takes half the room and moves results a little. Default: bf16.",
     offsetof(struct settings, kv), 0, 0},
    {"memory", 0, PM_OPTION_UINT, "MB",
     "Most memory of such a worker beyond the mapped weights: regions wait until what they need is free; one "
     "that needs more than there is is refused.",
     offsetof(struct settings, memory_mb), 1, 1u << 24},
    {"models", 0, PM_OPTION_TEXT, "DIR[:DIR...]",
     "The folders of models. Default: those of `pagemill model add` and the installed ones.",
     offsetof(struct settings, models), 0, 0},
    {"log", 0, PM_OPTION_TEXT, "FILE",
     "Append what the fleet's processes log to this file. Default: dropped.", offsetof(struct settings, log),
     0, 0},
    {"log-level", 0, PM_OPTION_TEXT, "LEVEL", "debug, info, warning or error. Default: info.",
     offsetof(struct settings, log_level), 0, 0},
    PM_CLI_COLOR_OPTION(struct settings, color),
    PM_OPTION_END};
static const struct pm_option shared_options[] = {PM_READ_OPTIONS(struct settings, read), PM_OPTION_END};
static const struct pm_option *const tables[] = {shared_options, own_options, NULL};

static int run_private(const struct settings *s, const struct pm_batch_config *config,
                       struct pm_intake *intake, int interrupt_fd)
{
    struct pm_error err = {0};
    struct pm_private fleet;
    struct pm_private_config fleet_config = {.models = s->models,
                                             .reader = s->read.reader,
                                             .log_path = s->log,
                                             .log_level = s->log_level,
                                             .workers = s->workers,
                                             .threads = s->threads,
                                             .kv_memory_mb = s->kv_memory_mb,
                                             .memory_mb = s->memory_mb,
                                             .kv_int8 = s->kv && !strcmp(s->kv, "int8")};
    int rc = pm_private_start(&fleet_config, &fleet, &err);
    if (rc) {
        pm_cli_error("%s", err.text);
        return PM_EXIT_FAILED;
    }
    int code = PM_EXIT_FAILED;
    rc = pm_private_wait(&fleet, interrupt_fd, 30000000, &err);
    if (!rc)
        code = pm_batch_run(config, intake, fleet.endpoint, &fleet, interrupt_fd);
    else if (rc == PM_ECANCELLED)
        code = PM_EXIT_INTERRUPTED;
    else
        pm_cli_error("%s", err.text);
    if (rc == PM_ECANCELLED)
        pm_interrupt_take(interrupt_fd);
    pm_private_stop(&fleet);
    return code;
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    struct pm_arguments arguments;
    struct pm_batch_config config = {.most_jobs = MOST_JOBS};
    struct pm_intake intake = {0};
    struct pm_error err = {0};
    int interrupt_fd = -1;
    int code = pm_cli_begin(command, argc, argv, &s, &arguments);
    if (code < 0)
        code = pm_cli_use_color(command, s.color);
    if (code < 0)
        code = pm_read_prepare(command, &s.read, &arguments, &config, &intake);
    if (code < 0 && s.log_level && pm_log_level_parse(s.log_level) < 0) {
        pm_cli_error("parse: --log-level is debug, info, warning or error, not \"%s\"", s.log_level);
        code = PM_EXIT_USAGE;
    }
    if (code < 0 && s.kv && strcmp(s.kv, "int8") != 0 && strcmp(s.kv, "bf16") != 0) {
        pm_cli_error("parse: --kv is bf16 or int8, not \"%.40s\"", s.kv);
        code = PM_EXIT_USAGE;
    }
    if (code < 0 && (interrupt_fd = pm_interrupt_open(&err)) < 0) {
        pm_cli_error("%s", err.text);
        code = PM_EXIT_FAILED;
    }
    if (code < 0)
        code =
            pm_read_is_hopeless(&intake) ? PM_EXIT_FAILED : run_private(&s, &config, &intake, interrupt_fd);
    if (interrupt_fd >= 0)
        close(interrupt_fd);
    pm_intake_free(&intake);
    pm_read_free(&s.read);
    free(arguments.items);
    return code;
}

const struct pm_command pm_command_parse = {
    .name = "parse",
    .run = run,
    .usage =
        {.name = "pagemill parse",
         .arguments = "FILE|FOLDER|- ...",
         .summary = "read documents and write Markdown, JSON or text",
         .about =
             "Reads PDF, PNG, JPEG, TIFF, WebP, BMP and GIF files and writes what is on their pages. No "
             "service "
             "needs "
             "to run: a private fleet of processes is started, does the work on all cores and is gone "
             "afterwards, "
             "however the command ends.\n"
             "\n"
             "A folder is walked with its subfolders, in bytewise order of the paths; hidden files, links to "
             "folders "
             "and everything that is no document by its first bytes are left out. \"-\" is standard input.\n"
             "\n"
             "Each document goes to a folder of its own, named after the file, with the hierarchy below a "
             "walked "
             "folder kept:\n"
             "\n"
             "  OUT/STEM/STEM.md     the text in reading order\n"
             "  OUT/STEM/STEM.json   pages, regions, places, confidences\n"
             "  OUT/STEM/imgs/       pictures cut out of the pages\n"
             "\n"
             "Two documents of one name in one folder do not overwrite each other: the second becomes "
             "STEM-2, the "
             "third STEM-3, in input order. While a document is read, OUT/STEM/STEM.partial.md grows page by "
             "page; "
             "it is removed when STEM.md is complete. Files appear whole or not at all.\n"
             "\n"
             "A document that cannot be read costs one line on standard error and the exit status; all "
             "others are "
             "delivered. Pages and regions that cannot be read stay in the output with the reason in their "
             "place.\n",
         .more =
             "EXIT STATUS\n 0    everything was read\n 1    some document failed, in whole or in part, or "
             "was cut at the token limit\n 2    "
             "wrong usage\n"
             " 130  interrupted by Ctrl-C or SIGTERM (a second one ends at once)\n"
             "\fENVIRONMENT\nPAGEMILL_MODELS is the folder of your own models. NO_COLOR and TERM=dumb are "
             "respected. "
             "TMPDIR holds the "
             "journal and the source files while they are read; /dev/shm, or XDG_RUNTIME_DIR, holds page "
             "pictures.\n"
             "\fEXAMPLES\n pagemill parse scan.pdf photo.jpg letters/ -o out/\n pagemill parse book.pdf "
             "--pages 1-20,31 "
             "--format md\n pagemill parse - --stdout < page.png > page.md\n find . -name '*.pdf' | pagemill "
             "parse "
             "--files-from - -o out/\n",
         .tables = tables,
         .least = 0,
         .most = UINT32_MAX},
};
