/* pagemill health: one answer for probes of containers and load balancers. */
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/show.h"

struct settings {
    struct pm_cli_fleet fleet;
    const char *reader;
    uint32_t workers, timeout_s;
    bool live, json;
};
static const struct pm_option options[] = {
    {"live", 0, PM_OPTION_FLAG, NULL,
     "Only ask whether the broker answers: a fleet that is stopping, or waits for workers, is alive.",
     offsetof(struct settings, live), 0, 0},
    {"workers", 'w', PM_OPTION_UINT, "N", "So many workers must be there. Default: 1.",
     offsetof(struct settings, workers), 0, 100000},
    {"reader", 'r', PM_OPTION_TEXT, "NAME", "Count only workers that run this reader.",
     offsetof(struct settings, reader), 0, 0},
    {"timeout", 0, PM_OPTION_UINT, "SECONDS", "Patience with the broker. Default: 5.",
     offsetof(struct settings, timeout_s), 1, 100000},
    {"json", 0, PM_OPTION_FLAG, NULL, "A JSON object instead of a line.", offsetof(struct settings, json), 0,
     0},
    PM_CLI_FLEET_OPTIONS(struct settings, fleet),
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};

static bool serves(const struct pagemill_peer *p, const char *reader)
{
    bool has = !reader;
    for (size_t i = 0; i < p->reader_count && !has; i++)
        has = !strcmp(p->readers[i], reader);
    bool is_well = strcmp(p->state, "away") != 0 && strcmp(p->state, "stalled") != 0 &&
                   strcmp(p->state, "draining") != 0;
    return has && is_well && !strcmp(p->role, "worker");
}

/* What keeps the fleet from taking and reading documents; "" when nothing does. */
static void judge(const struct settings *s, const struct pagemill_stats *stats, unsigned *workers_out,
                  char *why, size_t bytes)
{
    unsigned workers = 0, layouts = 0, collectors = 0;
    for (size_t i = 0; i < stats->peer_count; i++) {
        workers += serves(&stats->peers[i], s->reader);
        layouts += !strcmp(stats->peers[i].role, "layoutd");
        collectors += !strcmp(stats->peers[i].role, "collector");
    }
    *workers_out = workers;
    why[0] = 0;
    if (s->live)
        return;
    if (stats->is_draining)
        snprintf(why, bytes, "the fleet is stopping");
    else if (workers < s->workers)
        snprintf(why, bytes, "%u of %u workers serve%s%.64s", workers, s->workers,
                 s->reader ? " reader " : "", s->reader ? s->reader : "");
    else if (!layouts || !collectors)
        snprintf(why, bytes, "no %s is there", layouts ? "collector" : "layoutd");
}

static int say(const struct settings *s, const char *why, unsigned workers)
{
    if (s->json) {
        json_t *o = json_pack("{s:b,s:i}", "healthy", !*why, "workers", (int)workers);
        json_object_set_new(o, "reason", *why ? json_string(why) : json_null());
        return pm_show_json(o) || *why ? PM_EXIT_FAILED : PM_EXIT_OK;
    }
    if (*why)
        pm_cli_error("%s", why);
    else
        printf("ok, %u worker%s\n", workers, workers == 1 ? "" : "s");
    return *why || fflush(stdout) ? PM_EXIT_FAILED : PM_EXIT_OK;
}

static int ask(const struct settings *s)
{
    struct pagemill_connect_options o = PAGEMILL_CONNECT_OPTIONS_INIT;
    struct pagemill_error err;
    struct pagemill_stats *stats;
    char why[400];
    unsigned workers = 0;
    int code, wait_ms = (int)s->timeout_s * 1000;
    char *endpoint = pm_cli_find_endpoint(&s->fleet, &code);
    pagemill *pm = NULL;
    if (code != PM_EXIT_OK)
        return code;
    int rc = endpoint ? pagemill_connect(endpoint, &o, wait_ms, &pm, &err) : PAGEMILL_EGONE;
    if (!rc)
        rc = pagemill_stats(pm, wait_ms, &stats, &err);
    if (rc) {
        snprintf(why, sizeof why, "%s", endpoint ? err.text : "no fleet is running");
    } else {
        judge(s, stats, &workers, why, sizeof why);
        pagemill_stats_free(&stats);
    }
    pagemill_close(&pm);
    free(endpoint);
    return say(s, why, workers);
}

static int run(const struct pm_command *command, int argc, char **argv)
{
    struct settings s = {.workers = 1, .timeout_s = 5};
    struct pm_arguments arguments;
    int code = pm_cli_begin(command, argc, argv, &s, &arguments);
    if (code < 0)
        code = pm_cli_use_color(command, s.fleet.color);
    if (code < 0)
        code = ask(&s);
    free(arguments.items);
    return code;
}

const struct pm_command pm_command_health = {
    .name = "health",
    .run = run,
    .usage = {.name = "pagemill health",
              .arguments = "",
              .summary = "tell a probe whether a fleet takes and reads documents",
              .about = "Asks the broker once. Healthy is a fleet whose broker answers, that takes jobs, and "
                       "that has workers, a "
                       "layoutd and a collector. Otherwise the reason is on standard error.\n",
              .more = "EXIT STATUS\n 0    healthy\n 1    not, or no fleet is running\n 2    wrong usage\n"
                      "\fEXAMPLES\n HEALTHCHECK CMD pagemill health\n pagemill health --live --timeout 2\n",
              .tables = tables},
};
