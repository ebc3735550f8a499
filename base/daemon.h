/* The main of a service process: its table parsed, its log set up, its run, its exit status.
 *
 * Wrong usage is a line on stderr and 64 (sysexits.h); 78 says that the configuration is wrong and starting
 * again cannot help; any other failure that it can. Threads: the main thread only. */
#ifndef PM_BASE_DAEMON_H
#define PM_BASE_DAEMON_H

#include "base/error.h"
#include "base/log.h"
#include "base/options.h"

/* The first member of a daemon's settings. */
struct pm_daemon_settings {
    const char *name; /* in logs */
    enum pm_log_level log_level;
    bool wants_version, wants_page;
};
/* --log-level, --help and --version: the last of a daemon's tables. */
extern const struct pm_option pm_daemon_options[];

struct pm_daemon {
    struct pm_usage usage; /* its name is the program's */
    const char *see_also;  /* of the manual page (base/roff.h), section 8 */
    /* Returns the exit status, and what was wrong in *err when it is not 0. */
    int (*run)(void *settings, struct pm_error *err);
};
/* settings: filled with the defaults, begins with struct pm_daemon_settings. Returns the exit status. */
int pm_daemon_main(const struct pm_daemon *daemon, int argc, char **argv, void *settings);

#endif
