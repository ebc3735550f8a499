/* pagemill up: the fleet as a service. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/hash.h"
#include "base/host.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/supervise.h"
#include "client/cli/cli.h"
#include "client/cli/control.h"
#include "client/cli/fleet.h"
#include "client/cli/locate.h"
#include "client/cli/private.h"
#include "client/cli/up_config.h"

#define LOCK_PATIENCE_US 3000000 /* processes of a killed supervisor need a moment to die */
#define PIXEL_NEED_BYTES ((uint64_t)192 << 20)

struct settings {
    struct pm_up_config up;
    const char *config;
    bool detach, example;
    uint32_t report_fd;
};
#define UP(member) offsetof(struct settings, up.member)
static const struct pm_option options[] = {
    {"config", 'c', PM_OPTION_TEXT, "FILE",
     "A YAML file with these settings; options on the command line win.", offsetof(struct settings, config),
     0, 0},
    {"state", 0, PM_OPTION_TEXT, "DIR",
     "Journal, sources and results; survives restarts. Default: ~/.local/state/pagemill, for root "
     "/var/lib/pagemill.",
     UP(state), 0, 0},
    {"run", 0, PM_OPTION_TEXT, "DIR",
     "Sockets. Default: $XDG_RUNTIME_DIR/pagemill, for root /run/pagemill, else TMPDIR/pagemill-UID.",
     UP(run), 0, 0},
    {"pixels", 0, PM_OPTION_TEXT, "DIR",
     "Page pictures, in memory. Default: a folder of its own in /dev/shm.", UP(pixels), 0, 0},
    {"pixel-budget", 0, PM_OPTION_UINT, "MB",
     "Most memory for page pictures. Default: half of what is free there.", UP(pixel_budget_mb), 16,
     10000000},
    {"result-ttl", 0, PM_OPTION_UINT, "SECONDS", "How long results are kept. Default: the broker's, one day.",
     UP(result_ttl_s), 1, 1000000000},
    {"workers", 'w', PM_OPTION_UINT, "N",
     "Worker processes of each reader. Default: one a core; for readers of blocks one in each group of cores "
     "that shares a last-level cache (or one in all).",
     UP(workers), 1, 1024},
    {"layouts", 0, PM_OPTION_UINT, "N",
     "Processes that open documents and find lines. Default: half the workers.", UP(layouts), 1, 1024},
    {"threads", 0, PM_OPTION_UINT, "N",
     "Compute threads of a worker. Default: 1; for readers of blocks one for each core of the group.",
     UP(threads), 1, 1024},
    {"credit", 0, PM_OPTION_UINT, "N", "Regions a worker holds at once.", UP(credit), 1, 4096},
    {"kv-memory", 0, PM_OPTION_UINT, "MB",
     "Most memory of a worker for texts being written, by readers that write token by token.",
     UP(kv_memory_mb), 1, 1u << 24},
    {"kv", 0, PM_OPTION_TEXT, "bf16|int8",
     "How these texts are kept: int8 takes half the room and moves results a little. Default: bf16.", UP(kv),
     0, 0},
    {"memory", 0, PM_OPTION_UINT, "MB",
     "Most memory of such a worker beyond the mapped weights: regions wait until what they need is free; one "
     "that needs more than there is is refused.",
     UP(memory_mb), 1, 1u << 24},
    {"models", 0, PM_OPTION_TEXT, "DIR[:DIR...]",
     "The folders of models. Default: those of `pagemill model add` and the installed ones.", UP(models), 0,
     0},
    {"reader", 'r', PM_OPTION_TEXT, "NAME[:WORKERS],...",
     "The models that the workers run; jobs choose one of them. Default: fast.", UP(reader), 0, 0},
    {"listen", 0, PM_OPTION_TEXT, "URL,...",
     "Also serve clients and workers of other hosts at tcp://HOST:PORT, encrypted, for the keys that "
     "`pagemill "
     "keys allow` has let in.",
     UP(listen), 0, 0},
    {"join", 0, PM_OPTION_TEXT, "URL",
     "Run workers only, for the broker at tcp://HOST:PORT of another host. Needs --server-key and "
     "--key-file.",
     UP(join), 0, 0},
    {"server-key", 0, PM_OPTION_TEXT, "KEY",
     "With --join: the broker's public key, as `pagemill keys server` prints it there, or a file that holds "
     "it. "
     "Default: $PAGEMILL_SERVER_KEY.",
     UP(server_key), 0, 0},
    {"key-file", 0, PM_OPTION_TEXT, "FILE",
     "With --join: this host's key file, made by `pagemill keys new` and allowed at the broker with role "
     "work. "
     "Default: $PAGEMILL_KEY.",
     UP(key), 0, 0},
    {"max-jobs", 0, PM_OPTION_UINT, "N",
     "Unfinished jobs at most; beyond that submits are answered with busy. Default: 2000000.", UP(max_jobs),
     1, 10000000},
    {"min-free", 0, PM_OPTION_UINT, "MB", "Free disk space below which no jobs are accepted. Default: 64.",
     UP(min_free_mb), 1, 1 << 24},
    {"max-store", 0, PM_OPTION_UINT, "MB",
     "Most disk for sources and results; beyond it no jobs are accepted. Default: no bound but --min-free.",
     UP(max_store_mb), 1, UINT32_MAX},
    {"remember", 0, PM_OPTION_UINT, "SECONDS",
     "How long a page that was read stands for an equal one of another document. Default: a week.",
     UP(remember_s), 1, UINT32_MAX},
    {"remember-mb", 0, PM_OPTION_UINT, "MB", "Most disk for such pages. Default: 1024.", UP(remember_mb), 1,
     1 << 24},
    {"drain", 0, PM_OPTION_UINT, "SECONDS", "How long a stop waits for pages in hand. Default: 60.",
     UP(drain_s), 1, 1000000},
    {"metrics", 0, PM_OPTION_TEXT, "ADDRESS",
     "Serve /metrics (Prometheus text) and /healthz over HTTP: PORT of 127.0.0.1, HOST:PORT, or the path of "
     "a "
     "socket. Default: nowhere.",
     UP(metrics), 0, 0},
    {"log-level", 0, PM_OPTION_TEXT, "LEVEL", "debug, info, warning or error. Default: info.", UP(log_level),
     0, 0},
    {"detach", 'd', PM_OPTION_FLAG, NULL,
     "Return as soon as the fleet is ready; it goes on in the background. What it says while it starts is in "
     "STATE/fleet.log, everything in STATE/logs (`pagemill logs`).",
     offsetof(struct settings, detach), 0, 0},
    {"print-config", 0, PM_OPTION_FLAG, NULL,
     "Print a configuration file of all defaults, with comments, and do nothing "
     "else.",
     offsetof(struct settings, example), 0, 0},
    {"report-fd", 0, PM_OPTION_UINT, "N", NULL, offsetof(struct settings, report_fd), 3, 1000000},
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

struct folders {
    char *run, *state, *pixels, *pixels_root, *models;
    int locks[3];
    uint32_t lock_count;
    uint32_t pixel_budget_mb;
};

static char *absolute(const char *path)
{
    char *here = path[0] == '/' ? NULL : getcwd(NULL, 0);
    char *out = here ? pm_fs_join(here, path) : pm_xstrdup(path);
    free(here);
    return out;
}

static int lock(struct folders *f, const char *dir, struct pm_error *err)
{
    int64_t until = pm_clock_us() + LOCK_PATIENCE_US;
    int fd, rc;
    while ((rc = pm_fleet_lock(dir, &fd, err)) == PM_EBUSY && pm_clock_us() < until)
        (void)poll(NULL, 0, 20);
    if (!rc)
        f->locks[f->lock_count++] = fd;
    return rc;
}

/* A folder for page pictures that belongs to this run folder: another fleet of the user must not share it,
 * and one left by a killed fleet is found again. */
static int choose_pixels(struct folders *f, const struct pm_up_config *up, struct pm_error *err)
{
    uint64_t free_bytes = 0;
    uint8_t hash[PM_HASH_BYTES];
    char hex[PM_HASH_HEX + 1];
    f->pixel_budget_mb = up->pixel_budget_mb;
    if (up->pixels) {
        f->pixels = absolute(up->pixels);
        return 0;
    }
    char *memory = pm_locate_memory(PIXEL_NEED_BYTES, &free_bytes);
    char *prefix = pm_xprintf("pagemill-%u-", (unsigned)getuid());
    pm_hash(f->run, strlen(f->run), hash);
    pm_hash_hex(hash, hex);
    f->pixels_root = pm_xprintf("%s/%sup-%.12s", memory, prefix, hex);
    pm_fleet_sweep(memory, prefix);
    int rc = lock(f, f->pixels_root, err);
    f->pixels = pm_fs_join(f->pixels_root, "pixels");
    if (!f->pixel_budget_mb)
        f->pixel_budget_mb = free_bytes >> 21 > 4096 ? 4096
                             : free_bytes >> 21 < 64 ? 64
                                                     : (uint32_t)(free_bytes >> 21);
    free(memory);
    free(prefix);
    return rc;
}

static int open_folders(struct folders *f, const struct pm_up_config *up, struct pm_error *err)
{
    f->run = up->run ? absolute(up->run) : pm_locate_run_dir();
    if (up->join && !up->run) { /* beside a whole fleet of the same user */
        char *own = pm_xprintf("%s-join", f->run);
        free(f->run);
        f->run = own;
    }
    f->state = up->state ? absolute(up->state) : pm_locate_state_dir();
    if (strlen(f->run) + strlen("/client.sock") >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return pm_fail(err, PM_EINVAL,
                       "the run folder %s makes socket paths of more than %zu bytes: choose a shorter one",
                       f->run, sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
    int rc = pm_locate_models(up->models, &f->models, err);
    if (!rc)
        rc = lock(f, f->run, err);
    if (up->join) /* whoever runs workers only has nothing to keep */
        return rc;
    if (!rc)
        rc = lock(f, f->state, err);
    return rc ? rc : choose_pixels(f, up, err);
}

static void remove_file(const char *dir, const char *name)
{
    char *path = pm_fs_join(dir, name);
    unlink(path);
    free(path);
}

/* Nothing of a stopped fleet stays but its state. */
static void close_folders(struct folders *f, bool was_started)
{
    if (was_started) {
        remove_file(f->run, "client.sock");
        remove_file(f->run, "work.sock");
        remove_file(f->run, PM_CONTROL_NAME);
        remove_file(f->run, PM_FLEET_STATE_LINK);
        if (f->pixels_root)
            (void)pm_fs_remove_tree(f->pixels_root, NULL);
        remove_file(f->run, "run.lock");    /* of the broker, which is gone */
        remove_file(f->run, PM_FLEET_LOCK); /* still held: whoever waits for it sees us gone */
        rmdir(f->run);
    }
    for (uint32_t i = 0; i < f->lock_count; i++)
        close(f->locks[i]);
    free(f->run);
    free(f->state);
    free(f->pixels);
    free(f->pixels_root);
    free(f->models);
}

/* For those who know the run folder only; one who finds no link looks in the usual place. */
static void link_state(const struct folders *f)
{
    char *link = pm_fs_join(f->run, PM_FLEET_STATE_LINK);
    unlink(link);
    if (symlink(f->state, link))
        pm_log(PM_LOG_WARNING, "cannot make the link %s: %s", link, strerror(errno));
    free(link);
}

/* A fleet runs without log files too. */
static struct pm_log_files *open_logs(const struct folders *f)
{
    struct pm_log_files *logs;
    struct pm_error err;
    char *dir = pm_fs_join(f->state, PM_LOG_FILES_DIR);
    if (pm_log_files_open(dir, PM_LOG_FILES_BYTES, PM_LOG_FILES_KEEP, &logs, &err))
        pm_log(PM_LOG_WARNING, "no log files are kept: %s", err.text);
    else
        pm_log_tee(pm_log_files_take, logs);
    free(dir);
    return logs;
}

static int serve(const struct settings *s, struct pm_error *err)
{
    struct folders f = {0};
    const struct pm_up_config *up = &s->up;
    struct pm_readers readers = {0};
    int rc = open_folders(&f, up, err);
    bool can_start = !rc;
    if (!rc)
        rc = pm_readers_parse(up->reader ? up->reader : "fast", f.models, up->workers, up->threads, &readers,
                              err);
    struct pm_log_files *logs = rc || up->join ? NULL : open_logs(&f);
    if (!rc) {
        if (!up->join)
            link_state(&f);
        struct pm_fleet fleet = {.run_dir = f.run,
                                 .state_dir = f.state,
                                 .pixel_dir = f.pixels,
                                 .models = f.models,
                                 .log_level = up->log_level ? up->log_level : "info",
                                 .metrics = up->metrics,
                                 .listen = up->listen,
                                 .join = up->join,
                                 .server_key = up->server_key,
                                 .key = up->key,
                                 .max_jobs = up->max_jobs,
                                 .min_free_mb = up->min_free_mb,
                                 .max_store_mb = up->max_store_mb,
                                 .remember_s = up->remember_s,
                                 .remember_mb = up->remember_mb,
                                 .readers = readers.items,
                                 .reader_count = readers.count,
                                 .layouts = up->layouts ? up->layouts
                                                        : pm_readers_layouts(readers.items, readers.count),
                                 .credit = up->credit,
                                 .kv_memory_mb = up->kv_memory_mb,
                                 .memory_mb = up->memory_mb,
                                 .kv = up->kv,
                                 .pixel_budget_mb = f.pixel_budget_mb,
                                 .result_ttl_s = up->result_ttl_s,
                                 .drain_s = up->drain_s ? up->drain_s : 60,
                                 .life_fd = -1,
                                 .report_fd = s->report_fd ? (int)s->report_fd : -1,
                                 .keep_fds = f.locks,
                                 .keep_count = f.lock_count,
                                 .logs = logs,
                                 .is_quiet = logs && s->report_fd};
        if (s->report_fd)
            fcntl((int)s->report_fd, F_SETFD, FD_CLOEXEC);
        rc = pm_fleet_run(&fleet, err);
    } else if (s->report_fd)
        dprintf((int)s->report_fd, "failed %s\n", err->text);
    pm_log_tee(NULL, NULL);
    pm_log_files_free(&logs);
    pm_readers_free(&readers);
    close_folders(&f, can_start);
    return rc;
}

/* ---- --detach ---- */

/* Waits for "ready" or "failed TEXT" from the background process. */
static int read_report(int fd, struct pm_error *err)
{
    char line[600];
    size_t n = 0;
    ssize_t got;
    while (n < sizeof line - 1 && (got = read(fd, line + n, sizeof line - 1 - n)) != 0) {
        if (got < 0 && errno != EINTR)
            break;
        n += got > 0 ? (size_t)got : 0;
        if (memchr(line, '\n', n))
            break;
    }
    line[n] = 0;
    line[strcspn(line, "\n")] = 0;
    if (!strcmp(line, "ready"))
        return 0;
    return pm_fail(err, PM_EGONE, "%s",
                   !strncmp(line, "failed ", 7) ? line + 7 : "the fleet ended while it started; see the log");
}

static int detach(const struct settings *s, int argc, char **argv, struct pm_error *err)
{
    int report[2], rc;
    char *self = pm_locate_self(), *state = s->up.state ? absolute(s->up.state) : pm_locate_state_dir();
    char *log_path = pm_fs_join(state, "fleet.log"), number[16];
    const char **child = pm_xalloc(((size_t)argc + 5) * sizeof *child);
    int count = 0, log_fd = -1;
    struct pm_child process;
    if (pipe2(report, O_CLOEXEC)) {
        rc = pm_fail_errno(err, "cannot make a pipe");
        goto out;
    }
    child[count++] = "pagemill";
    child[count++] = "up";
    snprintf(number, sizeof number, "%d", report[1]);
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--detach") != 0 && strcmp(argv[i], "-d") != 0)
            child[count++] = argv[i];
    child[count++] = "--report-fd";
    child[count++] = number;
    rc = pm_fs_mkdir_p(state, 0700, err);
    if (!rc && (log_fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0)
        rc = pm_fail_errno(err, "cannot open %s", log_path);
    struct pm_spawn spawn = {.path = self,
                             .argv = child,
                             .keep_fds = &report[1],
                             .keep_count = 1,
                             .stdin_fd = -1,
                             .stdout_fd = log_fd,
                             .stderr_fd = log_fd,
                             .own_group = true};
    if (!rc)
        rc = pm_spawn(&spawn, &process, err);
    close(report[1]);
    if (!rc)
        rc = read_report(report[0], err);
    close(report[0]);
out:
    if (log_fd >= 0)
        close(log_fd);
    free(child);
    free(log_path);
    free(state);
    free(self);
    return rc;
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    struct pm_arguments arguments;
    struct pm_error err = {0};
    struct pm_up_file *loaded = NULL;
    int code = pm_cli_begin(command, argc, argv, &s, &arguments);
    if (code < 0 && s.example) {
        struct pm_buf text = {0};
        pm_up_config_example(&text);
        fwrite(text.data, 1, text.size, stdout);
        pm_buf_free(&text);
        code = fflush(stdout) ? PM_EXIT_FAILED : PM_EXIT_OK;
    }
    int level = s.up.log_level ? pm_log_level_parse(s.up.log_level) : PM_LOG_INFO;
    if (code < 0 && s.config && pm_up_config_read(s.config, &s.up, &loaded, &err)) {
        pm_cli_error("up: %s", err.text);
        code = PM_EXIT_USAGE;
    }
    if (code < 0 && s.up.join && s.up.listen) {
        pm_cli_error("up: --join runs workers for a broker elsewhere; --listen belongs to that broker");
        code = PM_EXIT_USAGE;
    }
    if (code < 0 && s.up.kv && strcmp(s.up.kv, "int8") != 0 && strcmp(s.up.kv, "bf16") != 0) {
        pm_cli_error("up: --kv is bf16 or int8, not \"%.40s\"", s.up.kv);
        code = PM_EXIT_USAGE;
    }
    if (code < 0 && s.up.log_level && (level = pm_log_level_parse(s.up.log_level)) < 0) {
        pm_cli_error("up: the log level is debug, info, warning or error, not \"%s\"", s.up.log_level);
        code = PM_EXIT_USAGE;
    }
    if (code < 0) {
        pm_log_setup("supervisor", (enum pm_log_level)level);
        int rc = s.detach ? detach(&s, argc, argv, &err) : serve(&s, &err);
        if (rc)
            pm_cli_error("%s", err.text);
        code = rc ? PM_EXIT_FAILED : PM_EXIT_OK;
    }
    pm_up_file_free(&loaded);
    free(arguments.items);
    return code;
}

const struct pm_command pm_command_up = {
    .name = "up",
    .run = run,
    .usage =
        {.name = "pagemill up",
         .arguments = "",
         .summary = "run the fleet as a service",
         .about =
             "Starts broker, layoutd, workers and collector and keeps them running: a process that dies is "
             "started again, "
             "after 50 ms at first and at most 5 s, and its work is given to another at once. Stays in the "
             "foreground and "
             "logs to standard error, as systemd likes it (Type=notify).\n"
             "\n"
             "SIGHUP, or `pagemill restart`, replaces all processes one after another while work goes on. "
             "SIGTERM or Ctrl-C finishes the pages in hand and stops; a second one stops at once. `pagemill "
             "down` "
             "does the "
             "same from elsewhere. Queued jobs stay in the state folder. Two fleets on one folder are "
             "refused.\n",
         .more =
             "EXIT STATUS\n 0    stopped as asked\n 1    the fleet could not run; the reason is on standard "
             "error\n"
             " 2    wrong usage or configuration\n"
             "\fFILES\n RUN/client.sock          for clients: --socket, PAGEMILL_SOCKET\n"
             " RUN/work.sock            for the fleet's own processes\n"
             " RUN/fleet.sock           for `pagemill restart`\n"
             " STATE/                   journal and blobs\n"
             " STATE/logs/fleet.log     lines of all processes; older files are .1 to .4\n",
         .tables = tables},
};
