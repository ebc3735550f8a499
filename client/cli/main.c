/* pagemill: finds the command and runs it. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "client/cli/private.h"

static int unknown_command(const char *word)
{
    const char *names[40];
    size_t n = 0;
    for (; pm_commands[n] && n < 39; n++)
        names[n] = pm_commands[n]->name;
    names[n] = NULL;
    const char *near = pm_options_nearest(word, names);
    if (near)
        pm_cli_error("there is no command \"%.80s\"; did you mean \"%s\"?", word, near);
    else if (access(word, F_OK) == 0)
        pm_cli_error("there is no command \"%.80s\"; to read that file: pagemill parse %.80s", word, word);
    else
        pm_cli_error("there is no command \"%.80s\"; see pagemill --help", word);
    return PM_EXIT_USAGE;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        char name[] = "help", option[] = "--short", *help[] = {name, option, NULL};
        pm_command_help.run(&pm_command_help, 2, help);
        return PM_EXIT_USAGE;
    }
    const char *word = argv[1];
    if (!strcmp(word, "--help") || !strcmp(word, "-h"))
        word = "help";
    else if (!strcmp(word, "--version") || !strcmp(word, "-V"))
        word = "version";
    if (!strcmp(word, "fleet-private")) /* the supervisor that parse starts; not for people */
        return pm_private_main(argc - 1, argv + 1);
    for (size_t i = 0; pm_commands[i]; i++)
        if (!strcmp(pm_commands[i]->name, word))
            return pm_commands[i]->run(pm_commands[i], argc - 1, argv + 1);
    return unknown_command(word);
}
