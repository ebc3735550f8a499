/* pagemill doctor: what is wrong here, and what to change. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "client/cli/doctor.h"
#include "client/cli/locate.h"
#include "client/cli/show.h"

struct settings {
    struct pm_cli_fleet fleet;
    struct pm_up_config up;
    bool full, json;
};
#define UP(member) offsetof(struct settings, up.member)
static const struct pm_option options[] = {
    {"full", 0, PM_OPTION_FLAG, NULL, "Compare the checksums of all weights too: about a second a gigabyte.",
     offsetof(struct settings, full), 0, 0},
    {"json", 0, PM_OPTION_FLAG, NULL, "A JSON object instead of lines.", offsetof(struct settings, json), 0,
     0},
    {"state", 0, PM_OPTION_TEXT, "DIR", "The state folder. Default: as for up.", UP(state), 0, 0},
    {"run", 0, PM_OPTION_TEXT, "DIR", "The folder of the sockets. Default: as for up.", UP(run), 0, 0},
    {"models", 0, PM_OPTION_TEXT, "DIR[:DIR...]", "The folders of models. Default: as for up.", UP(models), 0,
     0},
    {"reader", 'r', PM_OPTION_TEXT, "NAME[:WORKERS],...",
     "The readers that a fleet here is to run. Default: fast.", UP(reader), 0, 0},
    {"workers", 'w', PM_OPTION_UINT, "N", "Worker processes of each reader. Default: as for up.", UP(workers),
     1, 1024},
    PM_CLI_FLEET_OPTIONS(struct settings, fleet),
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

/* The run folder that a socket lies in. */
static char *run_of_socket(const char *socket)
{
    const char *path = !strncmp(socket, "ipc://", 6) ? socket + 6 : socket, *slash = strrchr(path, '/');
    if (strstr(path, "://"))
        return NULL;
    return slash ? pm_xstrndup(path, (size_t)(slash - path)) : pm_xstrdup(".");
}

static int examine(struct settings *s)
{
    int code = PM_EXIT_OK;
    struct pm_doctor d = {.up = &s->up, .where = &s->fleet, .is_full = s->full};
    d.run = s->up.run ? pm_xstrdup(s->up.run) : s->fleet.socket ? run_of_socket(s->fleet.socket) : NULL;
    if (!d.run)
        d.run = pm_locate_run_dir();
    char *socket = pm_fs_join(d.run, "client.sock");
    if (s->up.run && !s->fleet.socket)
        s->fleet.socket = socket;
    d.state = s->up.state ? pm_xstrdup(s->up.state) : pm_cli_find_state(&s->fleet, &code);
    if (d.state) {
        pm_doctor_machine(&d);
        pm_doctor_limits(&d);
        pm_doctor_folders(&d);
        pm_doctor_models(&d);
        pm_doctor_fleet(&d);
        code = (int)pm_doctor_worst(&d);
        if (s->json)
            code = pm_show_json(pm_doctor_json(&d)) ? (int)PM_DOCTOR_FAIL : code;
        else
            pm_doctor_show(&d, pm_options_width(pm_cli_width(STDOUT_FILENO)), pm_color_is_on(STDOUT_FILENO),
                           stdout);
    }
    pm_doctor_free(&d);
    free(socket);
    return fflush(stdout) ? (int)PM_DOCTOR_FAIL : code;
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    struct pm_arguments arguments;
    struct pm_up_file *loaded = NULL;
    struct pm_error err;
    int code = pm_cli_begin(command, argc, argv, &s, &arguments);
    if (code < 0)
        code = pm_cli_use_color(command, s.fleet.color);
    if (code < 0 && s.fleet.config && pm_up_config_read(s.fleet.config, &s.up, &loaded, &err)) {
        pm_cli_error("doctor: %s", err.text);
        code = PM_EXIT_USAGE;
    }
    if (code < 0)
        code = examine(&s);
    pm_up_file_free(&loaded);
    free(arguments.items);
    return code;
}

const struct pm_command pm_command_doctor = {
    .name = "doctor",
    .run = run,
    .usage = {.name = "pagemill doctor",
              .arguments = "",
              .summary = "say what is wrong with an installation or a fleet, and what to change",
              .about = "Looks at the processor, the programs, the decoder's sandbox, libraries, limits, "
                       "folders and their rights, the "
                       "disk and how long a sync takes there, memory, the models, and the fleet that is "
                       "running: one line each, ok, "
                       "warn or fail, and below it what to change. It changes nothing.\n"
                       "\n"
                       "Run it as the user that the fleet runs as, with the same --config or options.\n",
              .more = "EXIT STATUS\n 0    all is well\n 1    something should be looked at\n"
                      " 2    something will not work; also wrong usage\n"
                      "\fEXAMPLES\n pagemill doctor\n sudo -u pagemill pagemill doctor --config "
                      "/etc/pagemill.yaml --full\n",
              .tables = tables},
};
