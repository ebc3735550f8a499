#include "base/daemon.h"

#include <stdlib.h>
#include <sysexits.h>

#include "base/mem.h"
#include "base/roff.h"

#define HELP_COLUMNS 80

const struct pm_option pm_daemon_options[] = {
    {"log-level", 0, PM_OPTION_LOG_LEVEL, "LEVEL",
     "debug, info, warning or error. Log lines go to standard error. Default: info.",
     offsetof(struct pm_daemon_settings, log_level), 0, 0},
    {"help", 0, PM_OPTION_FLAG, NULL, "Show this and exit.", 0, 0, 0}, /* taken by pm_options_parse */
    {"version", 0, PM_OPTION_FLAG, NULL, "Print the version and exit.",
     offsetof(struct pm_daemon_settings, wants_version), 0, 0},
    {"roff", 0, PM_OPTION_FLAG, NULL, NULL, offsetof(struct pm_daemon_settings, wants_page), 0, 0},
    PM_OPTION_END};

static void write_page(const struct pm_daemon *daemon)
{
    char *made_by = pm_xprintf("%s --roff", daemon->usage.name);
    struct pm_roff page = {
        .section = 8, .manual = "System Administration", .made_by = made_by, .see_also = daemon->see_also};
    pm_roff_page(&daemon->usage, &page, stdout);
    free(made_by);
}

int pm_daemon_main(const struct pm_daemon *daemon, int argc, char **argv, void *settings)
{
    const struct pm_daemon_settings *s = settings;
    struct pm_arguments arguments;
    struct pm_error err = {0};
    int rc = pm_options_parse(&daemon->usage, argc, argv, settings, &arguments, &err);
    free(arguments.items); /* a daemon takes none */
    bool is_question = arguments.wants_help || s->wants_version || s->wants_page;
    if (arguments.wants_help)
        pm_options_help(&daemon->usage, HELP_COLUMNS, stdout);
    else if (s->wants_version)
        printf("%s %s\n", daemon->usage.name, PM_VERSION);
    else if (s->wants_page)
        write_page(daemon);
    if (is_question)
        return fflush(stdout) ? EX_IOERR : EX_OK;
    if (rc) {
        fprintf(stderr, "%s: %s\n", daemon->usage.name, err.text);
        return EX_USAGE;
    }
    pm_log_setup(s->name, s->log_level);
    int status = daemon->run(settings, &err);
    if (status)
        pm_log(PM_LOG_ERROR, "%s", err.text);
    return status;
}
