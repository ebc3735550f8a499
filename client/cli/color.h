/* Colours of the command line: on a terminal, unless NO_COLOR or --color says otherwise.
 *
 * --color wins over the environment: NO_COLOR (any value but "") means never, CLICOLOR_FORCE (but "0")
 * always; else a stream is coloured when it is a terminal and TERM is not "dumb". --color is kept in these
 * two variables, so that there is no global state of our own. Threads: pm_color_choose before any starts. */
#ifndef PM_CLIENT_CLI_COLOR_H
#define PM_CLIENT_CLI_COLOR_H

#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"

enum pm_color {
    PM_COLOR_NONE,
    PM_COLOR_GOOD,
    PM_COLOR_WARN,
    PM_COLOR_BAD,
    PM_COLOR_FAINT,
    PM_COLOR_STRONG,
    PM_COLOR_BUSY
};

/* "auto", "always", "never", NULL (as auto). PM_EINVAL. */
int pm_color_choose(const char *when, struct pm_error *err);
bool pm_color_is_on(int fd);
/* The sequences around a text; "" when it is off. */
const char *pm_color_begin(enum pm_color color, bool is_on);
const char *pm_color_end(enum pm_color color, bool is_on);
/* What a job's, a process's or a check's state looks like. */
enum pm_color pm_color_of_state(const char *state);

#define PM_CLI_COLOR_OPTION(type, member)                                                                    \
    {                                                                                                        \
        "color", 0, PM_OPTION_TEXT, "WHEN",                                                                  \
            "Colours: auto (on a terminal, unless NO_COLOR is set), always or never. Default: auto.",        \
            offsetof(type, member), 0, 0                                                                     \
    }

#endif
