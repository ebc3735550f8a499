/* pagemill help: the list of commands, or the manual of one. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/cli.h"

struct settings {
    bool is_short;
};
static const struct pm_option options[] = {{"short", 0, PM_OPTION_FLAG, NULL, "Only the list of commands.",
                                            offsetof(struct settings, is_short), 0, 0},
                                           PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

static void show_list(FILE *out)
{
    fputs("COMMANDS\n", out);
    for (size_t i = 0; pm_commands[i]; i++)
        fprintf(out, "       %-9s %s\n", pm_commands[i]->name, pm_commands[i]->summary);
}

static void show_all(FILE *out)
{
    int width = pm_cli_width(STDOUT_FILENO);
    width = width < 50 ? 50 : width > 100 ? 100 : width;
    fputs("NAME\n       pagemill - read documents on ordinary processors\n\nSYNOPSIS\n"
          "       pagemill COMMAND [options] [arguments]\n\nDESCRIPTION\n",
          out);
    pm_options_fill(
        "Turns PDF files, scans and photos into Markdown, JSON and text. parse does that at once, with "
        "processes of its own. up starts the same processes as a service, to which submit gives work and "
        "whose jobs the other commands list, follow, stop and fetch.\n",
        7, width, out);
    fputc('\n', out);
    show_list(out);
    fputs("\n", out);
    pm_options_fill("`pagemill COMMAND --help` is the manual of a command.\n", 7, width, out);
    fputs("\nEXIT STATUS\n       0    all is well, all documents were read\n       1    some document, or "
          "the command, "
          "failed\n       2    wrong usage\n       3    no fleet is running\n       130  "
          "interrupted\n\nENVIRONMENT\n",
          out);
    pm_options_fill(
        "PAGEMILL_SOCKET is the fleet's socket, PAGEMILL_MODELS the models folder. XDG_RUNTIME_DIR, "
        "XDG_STATE_HOME, TMPDIR, NO_COLOR and TERM are respected.\n",
        7, width, out);
    fputs("\nEXAMPLES\n       pagemill parse scan.pdf -o out/\n       pagemill up --config pagemill.yaml\n"
          "       pagemill submit report.pdf --pages 1-20,31 --wait -o out/\n",
          out);
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    struct pm_arguments arguments;
    int code = pm_cli_begin(command, argc, argv, &s, &arguments);
    if (code < 0 && arguments.count) {
        for (size_t i = 0; pm_commands[i]; i++)
            if (!strcmp(pm_commands[i]->name, arguments.items[0])) {
                pm_options_help(pm_commands[i], pm_cli_width(STDOUT_FILENO), stdout);
                code = PM_EXIT_OK;
            }
        if (code < 0) {
            pm_cli_error("there is no command \"%.80s\"", arguments.items[0]);
            code = PM_EXIT_USAGE;
        }
    } else if (code < 0) {
        FILE *out = s.is_short ? stderr : stdout;
        if (s.is_short) {
            fputs("Usage: pagemill COMMAND [options] [arguments]\n\n", out);
            show_list(out);
            fputs("\n`pagemill --help` tells more.\n", out);
        } else {
            show_all(out);
        }
        code = fflush(out) ? PM_EXIT_FAILED : PM_EXIT_OK;
    }
    free(arguments.items);
    return code;
}

const struct pm_command pm_command_help = {
    .name = "help",
    .arguments = "[COMMAND]",
    .summary = "show this, or the manual of a command",
    .about = "Without an argument, lists the commands; with one, shows its manual.\n",
    .tables = tables,
    .most = 1,
    .run = run,
};
