#include "client/cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "client/cli/fleet.h"
#include "client/cli/locate.h"
#include "client/cli/up_config.h"

#define CONNECT_MS 5000

void pm_cli_error(const char *format, ...)
{
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pm_sanitize_text(text);
    bool is_on = pm_color_is_on(STDERR_FILENO);
    fprintf(stderr, "%spagemill:%s %s\n", pm_color_begin(PM_COLOR_BAD, is_on),
            pm_color_end(PM_COLOR_BAD, is_on), text);
}

int pm_cli_use_color(const struct pm_command *command, const char *when)
{
    struct pm_error err;
    if (!pm_color_choose(when, &err))
        return -1;
    pm_cli_error("%s: %s", command->name, err.text);
    return PM_EXIT_USAGE;
}

int pm_cli_exit_code(int code)
{
    switch (code) {
    case PAGEMILL_OK:
        return PM_EXIT_OK;
    case PAGEMILL_EGONE:
        return PM_EXIT_NO_FLEET;
    case PAGEMILL_ECANCELLED:
        return PM_EXIT_INTERRUPTED;
    default:
        return PM_EXIT_FAILED;
    }
}

int pm_cli_begin(const struct pm_command *command, int argc, char **argv, void *settings,
                 struct pm_arguments *arguments)
{
    struct pm_error err;
    int rc = pm_options_parse(&command->usage, argc, argv, settings, arguments, &err);
    if (rc) {
        pm_cli_error("%s: %s", command->name, err.text);
        return PM_EXIT_USAGE;
    }
    if (!arguments->wants_help)
        return -1;
    pm_options_help(&command->usage, pm_cli_width(STDOUT_FILENO), stdout);
    return fflush(stdout) ? PM_EXIT_FAILED : PM_EXIT_OK;
}

int pm_cli_width(int fd)
{
    struct winsize size;
    if (!ioctl(fd, TIOCGWINSZ, &size) && size.ws_col)
        return size.ws_col;
    const char *columns = getenv("COLUMNS");
    int n = columns ? atoi(columns) : 0;
    return n > 0 && n < 1000 ? n : 80;
}

bool pm_cli_is_terminal(int fd)
{
    const char *term = getenv("TERM");
    return isatty(fd) && term && strcmp(term, "dumb") != 0;
}

int pm_cli_job_number(const char *text, uint64_t *out, struct pm_error *err)
{
    char *end;
    const char *digits = text[0] == '#' ? text + 1 : text;
    errno = 0;
    unsigned long long v = strtoull(digits, &end, 10);
    if (errno || end == digits || *end || *digits < '0' || *digits > '9' || !v)
        return pm_fail(err, PM_EINVAL, "\"%.80s\" is not a job number; `pagemill jobs` lists them", text);
    *out = v;
    return 0;
}

static void complain_no_fleet(const char *endpoint)
{
    if (endpoint)
        pm_cli_error("no fleet answers at %s; start one with `pagemill up`, or name its socket with --socket",
                     endpoint);
    else
        pm_cli_error(
            "no fleet is running; start one with `pagemill up`, or read files at once with `pagemill "
            "parse FILE`");
}

char *pm_cli_find_endpoint(const struct pm_cli_fleet *where, int *exit_code)
{
    char *endpoint = NULL;
    const char *named = where->broker ? where->broker : where->socket;
    bool is_named = named != NULL;
    *exit_code = PM_EXIT_OK;
    if (where->server_key) /* where the library looks */
        setenv("PAGEMILL_SERVER_KEY", where->server_key, 1);
    if (where->key)
        setenv("PAGEMILL_KEY", where->key, 1);
    if (!named)
        named = getenv("PAGEMILL_BROKER");
    if (!named || !*named)
        named = getenv("PAGEMILL_SOCKET");
    if (!is_named && where->config) {
        struct pm_up_config config = {0};
        struct pm_up_file *file;
        struct pm_error err;
        if (pm_up_config_read(where->config, &config, &file, &err)) {
            pm_cli_error("%s", err.text);
            *exit_code = PM_EXIT_USAGE;
            return NULL;
        }
        if (config.run)
            endpoint = pm_fs_join(config.run, "client.sock");
        pm_up_file_free(&file);
    }
    if (!endpoint && named && *named) {
        endpoint = pm_xstrdup(named);
    } else if (!endpoint) {
        char *run_dirs[2] = {pm_locate_run_dir(), pm_xstrdup("/run/pagemill")};
        for (int i = 0; i < 2; i++) {
            char *path = pm_xprintf("%s/client.sock", run_dirs[i]);
            if (!endpoint && access(path, F_OK) == 0) {
                endpoint = path;
                path = NULL;
            }
            free(path);
            free(run_dirs[i]);
        }
    }
    return endpoint;
}

char *pm_cli_find_state(const struct pm_cli_fleet *where, int *exit_code)
{
    char *state = NULL, *endpoint = pm_cli_find_endpoint(where, exit_code);
    const char *path = endpoint && !strncmp(endpoint, "ipc://", 6) ? endpoint + 6 : endpoint;
    if (path && !strstr(path, "://")) {
        const char *slash = strrchr(path, '/');
        char *link =
            pm_xprintf("%.*s/" PM_FLEET_STATE_LINK, slash ? (int)(slash - path) : 1, slash ? path : ".");
        state = realpath(link, NULL);
        free(link);
    }
    free(endpoint);
    if (*exit_code != PM_EXIT_OK)
        return NULL;
    if (!state && where->config) {
        struct pm_up_config config = {0};
        struct pm_up_file *file;
        if (!pm_up_config_read(where->config, &config, &file, NULL) && config.state)
            state = pm_xstrdup(config.state);
        pm_up_file_free(&file);
    }
    return state ? state : pm_locate_state_dir();
}

char *pm_cli_endpoint(const struct pm_cli_fleet *where, int *exit_code)
{
    char *endpoint = pm_cli_find_endpoint(where, exit_code);
    if (*exit_code != PM_EXIT_OK || (endpoint && pm_locate_is_alive(endpoint)))
        return endpoint;
    complain_no_fleet(endpoint);
    *exit_code = PM_EXIT_NO_FLEET;
    free(endpoint);
    return NULL;
}

static int connect_to(const char *endpoint, int cancel_fd, pagemill **out)
{
    struct pagemill_connect_options options = PAGEMILL_CONNECT_OPTIONS_INIT;
    struct pagemill_error err;
    options.cancel_fd = cancel_fd;
    int rc = pagemill_connect(endpoint, &options, CONNECT_MS, out, &err);
    if (rc == PAGEMILL_EGONE && strncmp(endpoint, "tcp://", 6) != 0)
        complain_no_fleet(endpoint);
    else if (rc && rc != PAGEMILL_ECANCELLED)
        pm_cli_error("%s", err.text);
    return pm_cli_exit_code(rc);
}

int pm_cli_connect(const struct pm_cli_fleet *where, int cancel_fd, pagemill **out)
{
    int exit_code;
    char *endpoint = pm_cli_endpoint(where, &exit_code);
    *out = NULL;
    if (endpoint)
        exit_code = connect_to(endpoint, cancel_fd, out);
    free(endpoint);
    return exit_code;
}

int pm_cli_talk(const struct pm_command *command, int argc, char **argv, void *settings,
                const struct pm_cli_fleet *where, int (*check)(struct pm_cli_session *session),
                int (*work)(struct pm_cli_session *session))
{
    struct pm_cli_session s = {.settings = settings, .interrupt_fd = -1};
    struct pm_error err;
    int code = pm_cli_begin(command, argc, argv, settings, &s.arguments);
    if (code < 0)
        code = pm_cli_use_color(command, where->color);
    if (code < 0 && check)
        code = check(&s);
    if (code < 0 && s.can_interrupt && (s.interrupt_fd = pm_interrupt_open(&err)) < 0) {
        pm_cli_error("%s", err.text);
        code = PM_EXIT_FAILED;
    }
    if (code < 0 && (s.endpoint = pm_cli_endpoint(where, &code)) &&
        !(code = connect_to(s.endpoint, s.interrupt_fd, &s.pm)))
        code = work(&s);
    pagemill_close(&s.pm);
    if (s.interrupt_fd >= 0)
        close(s.interrupt_fd);
    free(s.endpoint);
    free(s.arguments.items);
    return code;
}

int pm_cli_each_job(struct pm_cli_session *session,
                    int (*act)(struct pm_cli_session *session, uint64_t job, struct pagemill_error *err))
{
    int code = PM_EXIT_OK;
    for (size_t i = 0; i < session->arguments.count; i++) {
        struct pagemill_error err;
        uint64_t job = 0;
        int failed = PM_EXIT_OK, rc;
        if (pm_cli_job_number(session->arguments.items[i], &job, (void *)&err))
            failed = PM_EXIT_USAGE;
        else if ((rc = act(session, job, &err)))
            failed = pm_cli_exit_code(rc);
        if (failed) {
            pm_cli_error("%s", err.text);
            code = failed;
        }
    }
    return code;
}

/* ---- Ctrl-C ---- */

static void end_now(int signal_number)
{
    (void)signal_number;
    _exit(PM_EXIT_INTERRUPTED);
}

static sigset_t interrupting(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    return set;
}

int pm_interrupt_open(struct pm_error *err)
{
    sigset_t set = interrupting();
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN); /* a reader that left is a write error */
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? pm_fail_errno(err, "cannot wait for signals") : fd;
}

void pm_interrupt_take(int fd)
{
    struct signalfd_siginfo info;
    ssize_t n = read(fd, &info, sizeof info);
    (void)n;
    struct sigaction action = {.sa_handler = end_now};
    sigset_t set = interrupting();
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}
