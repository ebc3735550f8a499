/* The metrics page and the health page: what they say, and their place in the loop. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/host.h"
#include "broker/broker.h"
#include "broker/metrics_text.h"

#define AGAIN_US ((int64_t)1000000) /* between two tries to listen: the broker before may still be there */

/* ---- what they say ---- */

static const char *health(void *context)
{
    const struct pm_broker *b = context;
    static const struct {
        enum pm_role role;
        const char *missing;
    } roles[] = {{PM_ROLE_LAYOUTD, "no layoutd is connected"},
                 {PM_ROLE_WORKER, "no worker is connected"},
                 {PM_ROLE_COLLECTOR, "no collector is connected"}};
    if (b->is_draining)
        return "the fleet is stopping";
    if (b->is_full)
        return "the disk is full";
    for (size_t r = 0; r < sizeof roles / sizeof *roles; r++) {
        bool is_there = false;
        for (size_t i = 0; i < b->conn_count && !is_there; i++)
            is_there = b->conns[i]->peer && !b->conns[i]->is_dead && b->conns[i]->role == roles[r].role;
        if (!is_there)
            return roles[r].missing;
    }
    return "";
}

static uint64_t open_files(void)
{
    uint64_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        count++;
    if (dir)
        closedir(dir);
    return count > 3 ? count - 3 : 0; /* ".", ".." and the folder itself */
}

static uint64_t cpu_us(void)
{
    struct timespec t = {0};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void metrics(void *context, struct pm_buf *out)
{
    struct pm_broker *b = context;
    struct pm_arena arena = {0};
    struct pm_msg_fleet fleet;
    int64_t start_us = pm_clock_us();
    const struct pm_metrics_facts facts = {.host = b->host,
                                           .health = health(b),
                                           .started_wall_us = b->now.wall_us - (b->now.us - b->started_us),
                                           .cpu_us = cpu_us(),
                                           .open_files = open_files(),
                                           .is_disk_full = b->is_full};
    b->metrics->scrapes++;
    pm_fleet_figures(b, &arena, &fleet);
    pm_metrics_text(&fleet, b->metrics, &facts, &arena, out);
    pm_arena_free(&arena);
    b->metrics->own_us += (uint64_t)(pm_clock_us() - start_us);
}

/* ---- the loop ---- */

/* A port that somebody else has is no reason not to serve jobs: it is tried again. */
static void open_pages(struct pm_broker *b)
{
    const struct pm_http_pages pages = {b, metrics, health};
    struct pm_error err;
    bool is_first = !b->http_us;
    b->http_us = b->now.us;
    if (pm_http_open(b->config.metrics, &pages, &b->http, &err)) {
        pm_log(is_first ? PM_LOG_ERROR : PM_LOG_DEBUG, "no metrics are served, %s: trying again", err.text);
        return;
    }
    pm_log(PM_LOG_INFO, "metrics address=%s", pm_http_address(b->http));
    if (pm_http_is_public(b->http))
        pm_log(PM_LOG_WARNING, "metrics can be read by everybody who reaches %s", pm_http_address(b->http));
}

int pm_serve_open(struct pm_broker *b, struct pm_error *err)
{
    int rc = b->config.metrics ? pm_http_check(b->config.metrics, err) : 0;
    if (!rc && b->config.metrics)
        open_pages(b);
    return rc;
}

int pm_serve_fd(const struct pm_broker *b)
{
    return b->http ? pm_http_fd(b->http, pm_clock_us()) : -1;
}

int64_t pm_serve_next_us(const struct pm_broker *b)
{
    return b->http ? pm_http_next_us(b->http, pm_clock_us()) : INT64_MAX;
}

void pm_serve_turn(struct pm_broker *b)
{
    if (b->http)
        pm_http_turn(b->http, b->now.us);
    else if (b->config.metrics && b->now.us - b->http_us >= AGAIN_US)
        open_pages(b);
}
