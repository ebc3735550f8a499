/* pagemill restart: replaces the processes of a running fleet one after another. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "client/cli/cli.h"
#include "client/cli/control.h"
#include "client/cli/locate.h"

struct settings {
    struct pm_cli_fleet fleet;
    bool quiet;
};
static const struct pm_option options[] = {{"quiet", 'q', PM_OPTION_FLAG, NULL,
                                            "Say nothing of each process.", offsetof(struct settings, quiet),
                                            0, 0},
                                           PM_CLI_FLEET_OPTIONS(struct settings, fleet),
                                           PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

static void show_step(void *context, const char *text)
{
    const struct settings *s = context;
    if (!s->quiet) {
        printf("%s\n", text);
        fflush(stdout);
    }
}

static char *request_of(const struct pm_arguments *arguments)
{
    struct pm_buf line = {0};
    pm_buf_text(&line, "restart");
    for (size_t i = 0; i < arguments->count; i++)
        pm_buf_printf(&line, " %s", arguments->items[i]);
    pm_sanitize_text((char *)line.data);
    return (char *)line.data;
}

/* The folder of the fleet's sockets. */
static char *run_dir_of(const char *endpoint)
{
    const char *path = !strncmp(endpoint, "ipc://", 6) ? endpoint + 6 : endpoint, *slash = strrchr(path, '/');
    if (strstr(path, "://"))
        return NULL;
    return slash ? pm_xstrndup(path, (size_t)(slash - path)) : pm_xstrdup(".");
}

static int ask(struct settings *s, const struct pm_arguments *arguments, const char *run_dir)
{
    struct pm_error err;
    int interrupt_fd = pm_interrupt_open(&err);
    if (interrupt_fd < 0) {
        pm_cli_error("%s", err.text);
        return PM_EXIT_FAILED;
    }
    char *line = request_of(arguments), *text;
    int rc = pm_control_ask(run_dir, line, interrupt_fd, show_step, s, &text, &err);
    if (rc == PM_ECANCELLED)
        pm_cli_error("no longer waiting; the restart goes on");
    else if (rc)
        pm_cli_error("%s", err.text);
    else
        show_step(s, text);
    free(text);
    free(line);
    close(interrupt_fd);
    return pm_cli_exit_code(rc);
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    struct pm_arguments arguments;
    int code = pm_cli_begin(command, argc, argv, &s, &arguments);
    if (code < 0)
        code = pm_cli_use_color(command, s.fleet.color);
    if (code >= 0) {
        free(arguments.items);
        return code;
    }
    /* Whether anybody is there is for the supervisor's own socket to say: its broker may be elsewhere. */
    char *endpoint = pm_cli_find_endpoint(&s.fleet, &code);
    char *run_dir = endpoint ? run_dir_of(endpoint) : code ? NULL : pm_locate_run_dir();
    if (run_dir) {
        code = ask(&s, &arguments, run_dir);
    } else if (endpoint) {
        pm_cli_error("restart: %s is elsewhere; run this on the fleet's own host", endpoint);
        code = PM_EXIT_USAGE;
    }
    free(run_dir);
    free(endpoint);
    free(arguments.items);
    return code;
}

const struct pm_command pm_command_restart = {
    .name = "restart",
    .run = run,
    .usage =
        {.name = "pagemill restart",
         .arguments = "[PROCESS...]",
         .summary = "replace the processes of a running fleet, one after another",
         .about =
             "Work goes on meanwhile, and no request fails: the successor of a worker, layoutd or collector "
             "starts beside it, and once the broker has welcomed it the old one finishes what it holds and "
             "leaves (the other way round when memory is short). The broker writes what it has decided and "
             "ends; its successor serves the same sockets, services keep their work, and clients repeat what "
             "was not answered. It comes last.\n"
             "\n"
             "The new processes are the programs that are installed now: this is how a fleet is upgraded in "
             "place. A successor that does not start is given up, the process before it goes on, and the "
             "restart stops there.\n"
             "\n"
             "PROCESS is a name (worker-2) or a kind (worker, layoutd, collector, broker); none: all. "
             "`pagemill "
             "top` lists them. Workers that joined a broker elsewhere are restarted on their own host: "
             "--socket "
             "RUN/fleet.sock. `kill -HUP` of a supervisor without a terminal does the same.\n",
         .more = PM_CLI_EXIT_SECTION,
         .tables = tables,
         .most = 1024},
};
