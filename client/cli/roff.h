/* The same tables as a manual page (roff, man macros). docs/man/pagemill*.1 are made by `pagemill help
 * --roff` and compared with it by a test, so that help, manual and program cannot differ. Threads: pure
 * functions. */
#ifndef PM_CLIENT_CLI_ROFF_H
#define PM_CLIENT_CLI_ROFF_H

#include "client/cli/options.h"

void pm_roff_command(const struct pm_command *command, FILE *out);
/* pagemill(1): the list of commands. */
void pm_roff_program(const char *about, const char *more, const struct pm_command *const *commands,
                     FILE *out);

#endif
