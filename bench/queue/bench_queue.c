/* How fast the queue itself is, beside the machine's own limits in the same run. `bench_queue --help`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/options.h"
#include "rig.h"

struct arguments {
    struct settings settings;
    const char *role;
    uint32_t ready_fd;
};
#define AT(member) offsetof(struct arguments, member)
static const struct pm_option options[] = {
    {"broker", 0, PM_OPTION_TEXT, "FILE", "The broker's program. Default: pagemill-broker beside this one.",
     AT(settings.broker), 0, 0},
    {"dir", 0, PM_OPTION_TEXT, "DIR", "A folder on the disk to be measured. Default: the present one.",
     AT(settings.dir), 0, 0},
    {"memory", 0, PM_OPTION_TEXT, "DIR", "A folder on tmpfs: sockets and pixels. Default: /dev/shm.",
     AT(settings.memory), 0, 0},
    {"only", 0, PM_OPTION_TEXT, "PARTS",
     "Some of hop,rate,submit,stock,page,idle,death,hostile. Default: all.", AT(settings.only), 0, 0},
    {"rounds", 0, PM_OPTION_UINT, "N", "Interleaved rounds of what is compared. Default: 5.",
     AT(settings.rounds), 1, 1000},
    {"seconds", 0, PM_OPTION_UINT, "N", "How long idle workers are watched. Default: 10.",
     AT(settings.seconds), 1, 3600},
    {"tasks", 0, PM_OPTION_UINT, "K",
     "Thousands of tasks: queued ones of stock, a fifth of it for rate. "
     "Default: 1000.",
     AT(settings.tasks_k), 1, 10000},
    {"json", 0, PM_OPTION_TEXT, "FILE", "Write the figures there as well.", AT(settings.json), 0, 0},
    {"role", 0, PM_OPTION_TEXT, "NAME", NULL, AT(role), 0, 0},
    {"ready-fd", 0, PM_OPTION_UINT, "N", NULL, AT(ready_fd), 0, 1 << 20},
    PM_OPTION_END};
static const struct pm_option *const tables[] = {options, NULL};
static const struct pm_usage usage = {
    .name = "bench_queue",
    .summary = "how fast the queue is, beside the machine's own limits",
    .about =
        "Starts a real broker on directories of its own and talks to it as clients and services do. Each "
        "figure stands beside what bounds it in the same run: a forwarder that only passes messages on, a "
        "bare SQLite commit, a pass over memory. Rounds are interleaved, medians given.\n",
    .tables = tables,
    .most = 1};

static const struct {
    const char *name;
    void (*run)(const struct settings *);
} parts[] = {{"hop", part_hop},   {"rate", part_rate}, {"submit", part_submit}, {"stock", part_stock},
             {"page", part_page}, {"idle", part_idle}, {"death", part_death},   {"hostile", part_hostile}};
static const struct {
    const char *name;
    int (*run)(const char *, int);
} roles[] = {{"forward", role_forward}, {"echo", role_echo}, {"hop", role_hop}, {"victim", role_victim}};

static bool is_wanted(const char *only, const char *name)
{
    size_t size = strlen(name);
    for (const char *p = only; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, name, size) && (!p[size] || p[size] == ','))
            return true;
    return !only;
}

static int play(const struct arguments *a, const struct pm_arguments *rest)
{
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        if (!strcmp(a->role, roles[i].name) && rest->count)
            return roles[i].run(rest->items[0], (int)a->ready_fd);
    return 64;
}

static char *broker_beside(void)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    char *slash = strrchr(path, '/');
    if (slash)
        *slash = 0;
    return pm_xprintf("%s/pagemill-broker", path);
}

int main(int argc, char **argv)
{
    struct arguments a = {
        .settings = {.dir = ".", .memory = "/dev/shm", .rounds = 5, .seconds = 10, .tasks_k = 1000}};
    struct pm_arguments rest;
    struct pm_error err;
    if (pm_options_parse(&usage, argc, argv, &a, &rest, &err)) {
        fprintf(stderr, "bench_queue: %s\n", err.text);
        return 64;
    }
    if (rest.wants_help) {
        pm_options_help(&usage, 100, stdout);
        return 0;
    }
    if (a.role) {
        int rc = play(&a, &rest);
        free(rest.items);
        return rc;
    }
    char *beside = broker_beside();
    if (!a.settings.broker)
        a.settings.broker = beside;
    printf("| %-78s | %12s %-10s | %-9s |\n|---|---:|---|\n", "", "figure", "", "target");
    fflush(stdout);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (is_wanted(a.settings.only, parts[i].name))
            parts[i].run(&a.settings);
    figures_write(a.settings.json);
    free(beside);
    free(rest.items);
    return 0;
}
