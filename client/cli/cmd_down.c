/* pagemill down: stops the fleet. */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "client/cli/cli.h"
#include "client/cli/fleet.h"
#include "client/cli/locate.h"

#define ANSWER_MS 10000
#define LOOK_MS   20

struct settings {
    struct pm_cli_fleet fleet;
    uint32_t timeout_s;
    bool now;
};
static const struct pm_option options[] = {
    {"now", 0, PM_OPTION_FLAG, NULL,
     "Do not wait for pages being read; they are read again after the next start.",
     offsetof(struct settings, now), 0, 0},
    {"timeout", 0, PM_OPTION_UINT, "SECONDS", "Wait at most so long for the fleet to be gone. Default: 300.",
     offsetof(struct settings, timeout_s), 1, 1000000},
    PM_CLI_FLEET_OPTIONS(struct settings, fleet),
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

/* The supervisor holds this lock until its last child is gone. */
static bool is_lock_free(const char *run_dir)
{
    char *path = pm_fs_join(run_dir, PM_FLEET_LOCK);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool is_free = fd < 0 || !flock(fd, LOCK_EX | LOCK_NB);
    if (fd >= 0)
        close(fd);
    free(path);
    return is_free;
}

static int wait_gone(const char *endpoint, uint32_t timeout_s)
{
    const char *path = strncmp(endpoint, "ipc://", 6) ? endpoint : endpoint + 6;
    if (strstr(path, "://")) /* far away: its socket is all we could see, and it said yes */
        return PM_EXIT_OK;
    char *run_dir = pm_xstrdup(path), *slash = strrchr(run_dir, '/');
    if (slash)
        *slash = 0;
    int64_t until = pm_clock_us() + (int64_t)timeout_s * 1000000;
    bool is_gone;
    while (!(is_gone = !pm_locate_is_alive(endpoint) && is_lock_free(slash ? run_dir : ".")) &&
           pm_clock_us() < until)
        (void)poll(NULL, 0, LOOK_MS); /* another process's lock gives no event */
    free(run_dir);
    if (!is_gone)
        pm_cli_error(
            "the fleet was told to stop and is still there after %u s; --now does not wait for pages in hand",
            timeout_s);
    return is_gone ? PM_EXIT_OK : PM_EXIT_FAILED;
}

static int work(struct pm_cli_session *session)
{
    const struct settings *s = session->settings;
    struct pagemill_error err;
    int rc = pagemill_shutdown(session->pm, s->now, ANSWER_MS, &err);
    if (rc) {
        pm_cli_error("%s", err.text);
        return pm_cli_exit_code(rc);
    }
    pagemill_close(&session->pm);
    return wait_gone(session->endpoint, s->timeout_s);
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {.timeout_s = 300};
    return pm_cli_talk(command, argc, argv, &s, &s.fleet, NULL, work);
}

const struct pm_command pm_command_down = {
    .name = "down",
    .run = run,
    .usage =
        {.name = "pagemill down",
         .arguments = "",
         .summary = "stop the fleet",
         .about =
             "Tells the fleet to take no more work, to finish the pages in hand and to stop, and waits until "
             "all its "
             "processes are gone. Queued jobs stay in the journal: the next `pagemill up` with the same "
             "state folder "
             "goes on with them.\n",
         .more = PM_CLI_EXIT_SECTION,
         .tables = tables},
};
