/* pagemill logs: what the processes of a fleet said, of one job or of all. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "client/cli/cli.h"
#include "client/cli/fleet.h"
#include "client/cli/locate.h"
#include "client/cli/log_files.h"
#include "client/cli/log_view.h"
#include "client/cli/up_config.h"

#define LOOK_MS    200
#define FILES_MOST 100u
#define CHUNK      65536u

struct settings {
    struct pm_cli_fleet fleet;
    const char *state, *since, *level, *process;
    uint32_t lines;
    bool follow;
};
static const struct pm_option options[] = {
    {"follow", 'f', PM_OPTION_FLAG, NULL, "Go on with what comes; Ctrl-C ends it.",
     offsetof(struct settings, follow), 0, 0},
    {"since", 0, PM_OPTION_TEXT, "WHEN",
     "Only lines since then: 30s, 10m, 2h, 1d ago, or a time in UTC as it stands in the log.",
     offsetof(struct settings, since), 0, 0},
    {"level", 0, PM_OPTION_TEXT, "LEVEL", "Only lines of this level or worse: debug, info, warning, error.",
     offsetof(struct settings, level), 0, 0},
    {"process", 0, PM_OPTION_TEXT, "NAME", "Only lines of this process: worker-2, or worker for all workers.",
     offsetof(struct settings, process), 0, 0},
    {"lines", 'n', PM_OPTION_UINT, "N", "Only the last so many.", offsetof(struct settings, lines), 1,
     100000000},
    {"state", 0, PM_OPTION_TEXT, "DIR",
     "The state folder of the fleet. Default: that of the fleet that --socket and --config name.",
     offsetof(struct settings, state), 0, 0},
    PM_CLI_FLEET_OPTIONS(struct settings, fleet),
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

/* Where the fleet's logs are; NULL and an exit code after a complaint. */
static char *find_dir(const struct settings *s, int *exit_code)
{
    char *state = s->state ? pm_xstrdup(s->state) : pm_cli_find_state(&s->fleet, exit_code);
    if (!state)
        return NULL;
    char *dir = pm_fs_join(state, PM_LOG_FILES_DIR), *newest = pm_log_files_path(dir, 0);
    if (access(newest, R_OK)) {
        pm_cli_error("cannot read logs at %s: %s. `pagemill up` keeps them there; name the folder with "
                     "--state. A fleet "
                     "of systemd: journalctl -u pagemill. A fleet of parse: pagemill parse --log FILE",
                     newest, strerror(errno));
        *exit_code = PM_EXIT_FAILED;
        free(dir);
        dir = NULL;
    }
    free(newest);
    free(state);
    return dir;
}

/* ---- reading ---- */

struct tail { /* the newest file, as far as it was read */
    int fd;
    struct pm_buf rest; /* a line that is not whole yet */
};

static int read_on(struct tail *t, struct pm_log_view *view, const struct pm_log_filter *filter)
{
    char chunk[CHUNK];
    ssize_t n;
    while ((n = read(t->fd, chunk, sizeof chunk)) > 0) {
        pm_buf_append(&t->rest, chunk, (size_t)n);
        size_t taken = pm_log_view_add(view, filter, (const char *)t->rest.data, t->rest.size);
        memmove(t->rest.data, t->rest.data + taken, t->rest.size - taken);
        t->rest.size -= taken;
    }
    return n < 0 ? -errno : 0;
}

static void read_all(const char *dir, struct tail *t, struct pm_log_view *view,
                     const struct pm_log_filter *filter)
{
    for (unsigned age = FILES_MOST; age-- > 0;) {
        char *path = pm_log_files_path(dir, age);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        free(path);
        if (fd < 0)
            continue;
        if (t->fd >= 0)
            close(t->fd);
        t->fd = fd;
        pm_buf_clear(&t->rest);
        (void)read_on(t, view, filter);
    }
}

static int show(struct pm_log_view *view, size_t first, bool is_colored)
{
    pm_log_view_sort(view);
    for (size_t i = first; i < view->count; i++)
        pm_log_show(view->lines[i].text, is_colored, stdout);
    pm_log_view_clear(view);
    return fflush(stdout) ? PM_EXIT_FAILED : PM_EXIT_OK;
}

/* A full file was renamed and there is a new one: read the old one to its end first. */
static void look_for_new_file(const char *dir, struct tail *t, struct pm_log_view *view,
                              const struct pm_log_filter *filter)
{
    struct stat now, have;
    char *path = pm_log_files_path(dir, 0);
    if (!stat(path, &now) && !fstat(t->fd, &have) && now.st_ino != have.st_ino) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            (void)read_on(t, view, filter);
            close(t->fd);
            t->fd = fd;
            pm_buf_clear(&t->rest);
        }
    }
    free(path);
}

static int follow(const char *dir, struct tail *t, const struct pm_log_filter *filter, bool is_colored)
{
    struct pm_log_view view = {0};
    for (int code = PM_EXIT_OK;;) {
        struct pollfd out = {.fd = STDOUT_FILENO};
        if (code || poll(&out, 1, LOOK_MS) > 0) /* whoever read this has gone */
            return code;
        look_for_new_file(dir, t, &view, filter);
        (void)read_on(t, &view, filter);
        code = show(&view, 0, is_colored);
    }
}

static int check(const struct settings *s, const struct pm_arguments *arguments, struct pm_log_filter *filter,
                 struct pm_error *err)
{
    uint64_t job;
    *filter = (struct pm_log_filter){.process = s->process};
    if (s->level && (filter->lowest = pm_log_level_parse(s->level)) < 0)
        return pm_fail(err, PM_EINVAL, "--level is debug, info, warning or error, not \"%.40s\"", s->level);
    if (s->since && pm_log_filter_since(filter, s->since, pm_wall_us(), err))
        return PM_EINVAL;
    if (!arguments->count)
        return 0;
    int rc = pm_cli_job_number(arguments->items[0], &job, err);
    if (!rc)
        snprintf(filter->job, sizeof filter->job, "%llu", (unsigned long long)job);
    return rc;
}

static int work(const struct settings *s, const struct pm_log_filter *filter)
{
    int code = PM_EXIT_OK;
    char *dir = find_dir(s, &code);
    if (!dir)
        return code;
    struct tail t = {.fd = -1};
    struct pm_log_view view = {0};
    bool is_colored = pm_color_is_on(STDOUT_FILENO);
    read_all(dir, &t, &view, filter);
    bool is_empty = !view.count;
    code = show(&view, s->lines && view.count > s->lines ? view.count - s->lines : 0, is_colored);
    if (!code && s->follow && t.fd >= 0)
        code = follow(dir, &t, filter, is_colored);
    else if (!code && is_empty && *filter->job)
        pm_cli_error("no line of %s names job %s; with `pagemill up --log-level debug` every task is logged",
                     dir, filter->job);
    if (t.fd >= 0)
        close(t.fd);
    pm_buf_free(&t.rest);
    free(dir);
    return code;
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    struct pm_arguments arguments;
    struct pm_log_filter filter;
    struct pm_error err;
    int code = pm_cli_begin(command, argc, argv, &s, &arguments);
    if (code < 0)
        code = pm_cli_use_color(command, s.fleet.color);
    if (code < 0 && check(&s, &arguments, &filter, &err)) {
        pm_cli_error("logs: %s", err.text);
        code = PM_EXIT_USAGE;
    }
    if (code < 0)
        code = work(&s, &filter);
    free(arguments.items);
    return code;
}

const struct pm_command pm_command_logs = {
    .name = "logs",
    .run = run,
    .usage = {.name = "pagemill logs",
              .arguments = "[JOB]",
              .summary = "show what a fleet's processes logged, of one job or all",
              .about = "Shows the lines that all processes of a fleet logged, in the order of time; with a "
                       "job's number only those "
                       "that concern it. A line is `time level process[pid] message key=value ...`; job, "
                       "page, region, task, "
                       "attempt and name (of a process) mean the same in every process.\n"
                       "\n"
                       "`pagemill up` keeps the lines in STATE/logs: 5 files of 10 MB, so the oldest go. "
                       "With --log-level debug "
                       "(an option of up) every task is logged at its beginning and its end, else only what "
                       "happens to a "
                       "document, and all warnings. The fleet need not be running.\n",
              .more = "EXIT STATUS\n 0    all is well, also when no line matched\n 1    there are no logs\n "
                      "2    wrong usage\n"
                      "\fEXAMPLES\n pagemill logs 17\n pagemill logs --follow --level warning\n"
                      " pagemill logs --since 10m --process worker\n",
              .tables = tables,
              .most = 1},
};
