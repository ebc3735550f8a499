/* What all commands share: exit codes, messages, the connection options, interruption. */
#ifndef PM_CLIENT_CLI_CLI_H
#define PM_CLIENT_CLI_CLI_H

#include <stdbool.h>

#include "base/options.h"
#include "client/cli/color.h"
#include "client/include/pagemill.h"

enum pm_exit {
    PM_EXIT_OK = 0,
    PM_EXIT_FAILED = 1,        /* some document failed, or the command did */
    PM_EXIT_USAGE = 2,         /* wrong options or arguments */
    PM_EXIT_NO_FLEET = 3,      /* no fleet is running where we looked */
    PM_EXIT_INTERRUPTED = 130, /* Ctrl-C or SIGTERM */
};

struct pm_command {
    const char *name; /* the word after "pagemill" */
    struct pm_usage usage;
    int (*run)(const struct pm_command *command, int argc, char **argv);
};
extern const struct pm_command pm_command_parse, pm_command_submit, pm_command_jobs, pm_command_status,
    pm_command_watch, pm_command_cancel, pm_command_retry, pm_command_result, pm_command_top, pm_command_up,
    pm_command_down, pm_command_restart, pm_command_model, pm_command_version, pm_command_help,
    pm_command_logs, pm_command_doctor, pm_command_health, pm_command_keys;
extern const struct pm_command *const pm_commands[]; /* NULL-terminated, in the order of the help */

/* "pagemill: text" on stderr, control characters replaced. */
void pm_cli_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The exit code that an error of the library stands for. */
int pm_cli_exit_code(int code);
/* Parses; shows help. Returns -1 to go on, else the exit code. Free arguments->items in either case. */
int pm_cli_begin(const struct pm_command *command, int argc, char **argv, void *settings,
                 struct pm_arguments *arguments);
int pm_cli_width(int fd);        /* columns of a terminal, 80 otherwise */
bool pm_cli_is_terminal(int fd); /* a terminal that understands control sequences */
int pm_cli_job_number(const char *text, uint64_t *out, struct pm_error *err); /* "17" or "#17" */

/* ---- options of every command that talks to a fleet ---- */
struct pm_cli_fleet {
    const char *socket, *config, *color;
    const char *broker, *server_key, *key; /* of another host */
};
#define PM_CLI_FLEET_OPTIONS(type, member)                                                                   \
    PM_CLI_COLOR_OPTION(type, member.color),                                                                 \
        {"socket",                                                                                           \
         's',                                                                                                \
         PM_OPTION_TEXT,                                                                                     \
         "PATH",                                                                                             \
         "The fleet's client socket: a path or an endpoint (ipc://, tcp://). Default: that of --config, "    \
         "then "                                                                                             \
         "$PAGEMILL_SOCKET, then the places where `pagemill up` puts it.",                                   \
         offsetof(type, member.socket),                                                                      \
         0,                                                                                                  \
         0},                                                                                                 \
        {"broker",                                                                                           \
         0,                                                                                                  \
         PM_OPTION_TEXT,                                                                                     \
         "URL",                                                                                              \
         "A fleet on another host, tcp://HOST:PORT, in the place of --socket. Default: $PAGEMILL_BROKER.",   \
         offsetof(type, member.broker),                                                                      \
         0,                                                                                                  \
         0},                                                                                                 \
        {"server-key",                                                                                       \
         0,                                                                                                  \
         PM_OPTION_TEXT,                                                                                     \
         "KEY",                                                                                              \
         "With --broker: its public key, as `pagemill keys server` prints it there, or a file that holds "   \
         "it. "                                                                                              \
         "Default: $PAGEMILL_SERVER_KEY.",                                                                   \
         offsetof(type, member.server_key),                                                                  \
         0,                                                                                                  \
         0},                                                                                                 \
        {"key-file",                                                                                         \
         0,                                                                                                  \
         PM_OPTION_TEXT,                                                                                     \
         "FILE",                                                                                             \
         "With --broker: your key, made by `pagemill keys new`. Default: $PAGEMILL_KEY.",                    \
         offsetof(type, member.key),                                                                         \
         0,                                                                                                  \
         0},                                                                                                 \
    {                                                                                                        \
        "config", 'c', PM_OPTION_TEXT, "FILE",                                                               \
            "Find the fleet by the configuration file it was started with.", offsetof(type, member.config),  \
            0, 0                                                                                             \
    }
/* Connects; complains and returns an exit code, or 0. cancel_fd: -1 or as in the library. */
int pm_cli_connect(const struct pm_cli_fleet *where, int cancel_fd, pagemill **out);
/* Applies --color; PM_EXIT_USAGE after a complaint, else -1. pm_cli_talk does it. */
int pm_cli_use_color(const struct pm_command *command, const char *when);
/* The endpoint that pm_cli_connect would use, alive or not, without a complaint; caller frees. NULL: none is
 * known. exit_code_out: PM_EXIT_USAGE after a complaint about --config. */
char *pm_cli_find_endpoint(const struct pm_cli_fleet *where, int *exit_code_out);
/* The state folder of that fleet, running or not: as --config says, else what the run folder points at
 * (PM_FLEET_STATE_LINK), else the user's; caller frees. NULL after a complaint. */
char *pm_cli_find_state(const struct pm_cli_fleet *where, int *exit_code_out);
/* The endpoint that pm_cli_connect would use; caller frees. NULL and an exit code when there is none. */
char *pm_cli_endpoint(const struct pm_cli_fleet *where, int *exit_code);

/* ---- a command that does one thing with a fleet ---- */
struct pm_cli_session {
    void *settings;
    struct pm_arguments arguments;
    bool can_interrupt; /* set by check: Ctrl-C is for work to handle */
    int interrupt_fd;   /* -1: it ends the process */
    char *endpoint;
    pagemill *pm;
};
/* The life of such a command: parse, check, connect, work, close. Both functions complain themselves. check
 * returns -1 to go on and may be NULL; work returns the exit code. `where` lies in settings. */
int pm_cli_talk(const struct pm_command *command, int argc, char **argv, void *settings,
                const struct pm_cli_fleet *where, int (*check)(struct pm_cli_session *session),
                int (*work)(struct pm_cli_session *session));
/* Does something with each job named by the arguments, complains of those that fail, goes on, and returns the
 * exit code of the last failure. `act` returns a code of the library. */
int pm_cli_each_job(struct pm_cli_session *session,
                    int (*act)(struct pm_cli_session *session, uint64_t job, struct pagemill_error *err));

/* ---- Ctrl-C ---- */
/* Blocks SIGINT, SIGTERM and SIGHUP and returns a descriptor that becomes readable with the first of them. */
int pm_interrupt_open(struct pm_error *err);
/* Takes the signal off the descriptor; from now on another one ends the process at once with 130. */
void pm_interrupt_take(int fd);

#define PM_CLI_EXIT_SECTION                                                                                  \
    "EXIT STATUS\n 0    all is well\n 1    a document or the command failed\n 2    wrong usage\n"            \
    " 3    no fleet is running\n 130  interrupted\n"

#endif
