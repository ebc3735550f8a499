/* pagemill help: the list of commands, or the manual of one. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/roff.h"
#include "client/cli/cli.h"

struct settings {
    bool is_short, is_roff;
};
static const struct pm_option options[] = {{"short", 0, PM_OPTION_FLAG, NULL, "Only the list of commands.",
                                            offsetof(struct settings, is_short), 0, 0},
                                           {"roff", 0, PM_OPTION_FLAG, NULL,
                                            "The manual page's source instead of text.",
                                            offsetof(struct settings, is_roff), 0, 0},
                                           PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

static const char about[] = "Turns PDF files, scans and photos into Markdown, JSON and text. `pagemill "
                            "parse` does that at once, with "
                            "processes of its own. `pagemill up` starts the same processes as a service, to "
                            "which `pagemill submit` gives "
                            "work and whose jobs the other commands list, follow, stop and fetch.\n"
                            "\n"
                            "`pagemill COMMAND --help` is the manual of a command.\n";
static const char more[] =
    "EXIT STATUS\n 0    all is well, all documents were read\n 1    some document, or the command, failed\n"
    " 2    wrong usage\n 3    no fleet is running\n 130  interrupted\n"
    "\fENVIRONMENT\nPAGEMILL_SOCKET is the fleet's socket, PAGEMILL_MODELS the folder of your own models. "
    "XDG_RUNTIME_DIR, "
    "XDG_STATE_HOME, TMPDIR, NO_COLOR and TERM are respected.\n"
    "\fEXAMPLES\n pagemill parse scan.pdf -o out/\n pagemill up --config pagemill.yaml\n"
    " pagemill submit report.pdf --pages 1-20,31 --wait -o out/\n";

static void show_list(FILE *out)
{
    fputs("COMMANDS\n", out);
    for (size_t i = 0; pm_commands[i]; i++)
        fprintf(out, "       %-9s %s\n", pm_commands[i]->name, pm_commands[i]->usage.summary);
    fputc('\n', out);
}

static void show_all(FILE *out)
{
    int width = pm_options_width(pm_cli_width(STDOUT_FILENO));
    fputs("NAME\n       pagemill - read documents on ordinary processors\n\nSYNOPSIS\n"
          "       pagemill COMMAND [options] [arguments]\n\nDESCRIPTION\n",
          out);
    pm_options_fill(about, 7, width, out);
    fputc('\n', out);
    show_list(out);
    pm_options_sections(more, width, out);
}

static const struct pm_roff roff = {
    .section = 1, .manual = "User Commands", .made_by = "pagemill help --roff", .see_also = "pagemill(1)"};

static void show_roff(FILE *out)
{
    pm_roff_title("pagemill", &roff, out);
    fputs(".SH NAME\npagemill \\- read documents on ordinary processors\n.SH SYNOPSIS\n"
          "\\fBpagemill\\fR \\fICOMMAND\\fR [\\fIoptions\\fR] [\\fIarguments\\fR]\n.SH DESCRIPTION\n",
          out);
    pm_roff_paragraphs(about, out);
    fputs(".SH COMMANDS\n", out);
    for (size_t i = 0; pm_commands[i]; i++)
        fprintf(out, ".TP\n.BR pagemill\\-%s (1)\n%s\n", pm_commands[i]->name, pm_commands[i]->usage.summary);
    pm_roff_sections(more, out);
    pm_roff_see_also("pagemill-broker(8), pagemill-layoutd(8), pagemill-decode(8), pagemill-worker(8), "
                     "pagemill-collector(8)",
                     out);
}

static int show_one(const char *name, bool is_roff)
{
    for (size_t i = 0; pm_commands[i]; i++)
        if (!strcmp(pm_commands[i]->name, name)) {
            if (is_roff)
                pm_roff_page(&pm_commands[i]->usage, &roff, stdout);
            else
                pm_options_help(&pm_commands[i]->usage, pm_cli_width(STDOUT_FILENO), stdout);
            return PM_EXIT_OK;
        }
    pm_cli_error("there is no command \"%.80s\"", name);
    return PM_EXIT_USAGE;
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    struct pm_arguments arguments;
    int code = pm_cli_begin(command, argc, argv, &s, &arguments);
    if (code < 0) {
        code = PM_EXIT_OK;
        if (arguments.count) {
            code = show_one(arguments.items[0], s.is_roff);
        } else if (s.is_short) {
            fputs("Usage: pagemill COMMAND [options] [arguments]\n\n", stderr);
            show_list(stderr);
            fputs("`pagemill --help` tells more.\n", stderr);
        } else if (s.is_roff) {
            show_roff(stdout);
        } else {
            show_all(stdout);
        }
        if (fflush(stdout))
            code = PM_EXIT_FAILED;
    }
    free(arguments.items);
    return code;
}

const struct pm_command pm_command_help = {
    .name = "help",
    .run = run,
    .usage = {.name = "pagemill help",
              .arguments = "[COMMAND]",
              .summary = "show the list of commands, or the manual of one",
              .about = "Without an argument, lists the commands; with one, shows its manual.\n",
              .tables = tables,
              .most = 1},
};
