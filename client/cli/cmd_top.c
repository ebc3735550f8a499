/* pagemill top: the fleet at a glance. */
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/cli/cli.h"
#include "client/cli/show.h"

#define ANSWER_MS 5000
#define TURN_MS   500

struct settings {
    struct pm_cli_fleet fleet;
    bool once, json;
};
static const struct pm_option options[] = {
    {"once", '1', PM_OPTION_FLAG, NULL,
     "One snapshot instead of a screen; also when standard output is no terminal.",
     offsetof(struct settings, once), 0, 0},
    {"json", 0, PM_OPTION_FLAG, NULL, "One snapshot as JSON.", offsetof(struct settings, json), 0, 0},
    PM_CLI_FLEET_OPTIONS(struct settings, fleet),
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

/* Draws into memory first, so that the screen changes at once and lines beyond its height are cut. */
static void draw(const struct pagemill_stats *stats, double pages_per_s, double regions_per_s)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *memory = open_memstream(&text, &bytes);
    if (!memory)
        return;
    pm_show_stats(stats, pages_per_s, regions_per_s, pm_cli_width(STDOUT_FILENO), memory);
    fclose(memory);
    fputs("\033[H", stdout);
    for (const char *p = text; *p; p++) {
        if (*p == '\n')
            fputs("\033[K", stdout);
        putchar(*p);
    }
    fputs("\033[J", stdout);
    fflush(stdout);
    free(text);
}

static int loop(pagemill *pm, int interrupt_fd)
{
    uint64_t pages = 0, regions = 0;
    int64_t before = 0;
    int code = PM_EXIT_OK;
    fputs("\033[?1049h\033[?25l", stdout); /* the other screen, no cursor */
    for (;;) {
        struct pagemill_stats *stats;
        struct pagemill_error err;
        int rc = pagemill_stats(pm, ANSWER_MS, &stats, &err);
        if (rc) {
            fputs("\033[?25h\033[?1049l", stdout);
            fflush(stdout);
            if (rc != PAGEMILL_ECANCELLED)
                pm_cli_error("%s", err.text);
            return rc == PAGEMILL_ECANCELLED ? PM_EXIT_OK : pm_cli_exit_code(rc);
        }
        int64_t now = pm_clock_us();
        double seconds = before ? (double)(now - before) / 1e6 : 0;
        bool has_rate = seconds > 0 && stats->pages_done >= pages && stats->regions_done >= regions;
        draw(stats, has_rate ? (double)(stats->pages_done - pages) / seconds : 0,
             has_rate ? (double)(stats->regions_done - regions) / seconds : 0);
        pages = stats->pages_done;
        regions = stats->regions_done;
        before = now;
        pagemill_stats_free(&stats);
        struct pollfd fds[2] = {{.fd = interrupt_fd, .events = POLLIN}, {.fd = STDOUT_FILENO}};
        if (poll(fds, 2, TURN_MS) > 0)
            break; /* Ctrl-C is the way out, so is a terminal that went away */
    }
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    return code;
}

static int snapshot(pagemill *pm, const struct settings *s)
{
    struct pagemill_stats *stats;
    struct pagemill_error err;
    int rc = pagemill_stats(pm, ANSWER_MS, &stats, &err);
    if (rc) {
        pm_cli_error("%s", err.text);
        return pm_cli_exit_code(rc);
    }
    int code = PM_EXIT_OK;
    double seconds = (double)stats->up_us / 1e6;
    if (s->json)
        code = pm_show_json(pm_show_stats_json(stats));
    else
        pm_show_stats(stats, seconds > 0 ? (double)stats->pages_done / seconds : 0,
                      seconds > 0 ? (double)stats->regions_done / seconds : 0, 100, stdout);
    pagemill_stats_free(&stats);
    return fflush(stdout) ? PM_EXIT_FAILED : code;
}

static int check(struct pm_cli_session *session)
{
    const struct settings *s = session->settings;
    session->can_interrupt = !s->once && !s->json && pm_cli_is_terminal(STDOUT_FILENO);
    return -1;
}

static int work(struct pm_cli_session *session)
{
    return session->can_interrupt ? loop(session->pm, session->interrupt_fd)
                                  : snapshot(session->pm, session->settings);
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {0};
    return pm_cli_talk(command, argc, argv, &s, &s.fleet, check, work);
}

const struct pm_command pm_command_top = {
    .name = "top",
    .run = run,
    .usage = {.name = "pagemill top",
              .arguments = "",
              .summary = "show what a fleet is doing",
              .about = "A screen renewed twice a second: jobs, rates, the queues with the age of their "
                       "oldest task, every "
                       "process with the tasks it holds, and all counters that are not zero (refusals, "
                       "retries, drops: each "
                       "has "
                       "one). Ctrl-C leaves. Rates of a single snapshot are means since the fleet's start.\n",
              .more = PM_CLI_EXIT_SECTION,
              .tables = tables},
};
