/* pagemill version. */
#include <stdlib.h>

#include "client/cli/cli.h"

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct pm_arguments arguments;
    int code = pm_cli_begin(command, argc, argv, NULL, &arguments);
    if (code < 0) {
        printf("pagemill %s\n", pagemill_version());
        code = fflush(stdout) ? PM_EXIT_FAILED : PM_EXIT_OK;
    }
    free(arguments.items);
    return code;
}

const struct pm_command pm_command_version = {
    .name = "version",
    .run = run,
    .usage = {.name = "pagemill version",
              .arguments = "",
              .summary = "print the version",
              .about = "Prints the version of the program.\n"},
};
