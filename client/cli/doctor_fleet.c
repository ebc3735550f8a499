/* doctor: the running fleet, as its broker tells. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "client/cli/doctor.h"
#include "client/cli/locate.h"
#include "client/cli/show.h"

#define CONNECT_MS   3000
#define OLD_US       (10 * (uint64_t)60000000) /* a task that waits so long */
#define LATE_US      (2 * (uint64_t)60000000)  /* a queue that nobody works on */
#define SILENT_US    ((uint64_t)10000000)
#define MIN_FREE     ((uint64_t)64 << 20) /* the broker's own limit */
#define NEARLY_BYTES ((uint64_t)1 << 30)

static size_t count_role(const struct pagemill_stats *s, const char *role)
{
    size_t n = 0;
    for (size_t i = 0; i < s->peer_count; i++)
        n += !strcmp(s->peers[i].role, role);
    return n;
}

static void judge_peers(struct pm_doctor *d, const struct pagemill_stats *s)
{
    static const char *const roles[] = {"layoutd", "worker", "collector"};
    for (size_t i = 0; i < 3; i++)
        if (!count_role(s, roles[i])) {
            char *fix =
                pm_xprintf("`pagemill logs --process %s --since 10m` says why it is not there", roles[i]);
            pm_doctor_add(d, "fleet", PM_DOCTOR_FAIL, fix, "no %s is connected: no document can be finished",
                          roles[i]);
            free(fix);
        }
    for (size_t i = 0; i < s->peer_count; i++) {
        const struct pagemill_peer *p = &s->peers[i];
        char *fix = pm_xprintf(
            "its work is taken back by itself; `pagemill logs --process %s` says what it did", p->name);
        char text[24];
        pm_show_duration((int64_t)p->silent_us, text, sizeof text);
        if (strcmp(p->version, s->version) != 0)
            pm_doctor_add(d, "fleet", PM_DOCTOR_WARN,
                          "`pagemill restart` replaces all processes without a gap",
                          "%s is version %s, the broker %s", p->name, p->version, s->version);
        if (!strcmp(p->state, "stalled") || (p->leases && p->silent_us > SILENT_US))
            pm_doctor_add(d, "fleet", PM_DOCTOR_WARN, fix, "%s holds %u task%s and made no progress for %s",
                          p->name, p->leases, p->leases == 1 ? "" : "s", text);
        free(fix);
    }
}

static void judge_queues(struct pm_doctor *d, const struct pagemill_stats *s)
{
    for (size_t i = 0; i < s->queue_count; i++) {
        const struct pagemill_queue *q = &s->queues[i];
        char age[24], name[80];
        pm_show_duration((int64_t)q->oldest_us, age, sizeof age);
        snprintf(name, sizeof name, "%s%s%.40s", q->kind, *q->reader ? " of " : "", q->reader);
        if (q->queued && !q->leased && q->oldest_us > LATE_US)
            pm_doctor_add(d, "queues", PM_DOCTOR_FAIL,
                          "is there a process for them? `pagemill top` shows which; a job may name a reader "
                          "that no worker runs",
                          "%llu %s tasks wait for %s and nobody works on any", (unsigned long long)q->queued,
                          name, age);
        else if (q->queued && q->oldest_us > OLD_US)
            pm_doctor_add(
                d, "queues", PM_DOCTOR_WARN,
                "more workers or machines, or fewer jobs; urgent ones: `pagemill submit --priority 4`",
                "%llu %s tasks wait, the oldest for %s", (unsigned long long)q->queued, name, age);
    }
}

void pm_doctor_judge(struct pm_doctor *d, const struct pagemill_stats *s)
{
    char up[24], free_text[24], used[24], budget[24];
    pm_show_duration((int64_t)s->up_us, up, sizeof up);
    pm_doctor_add(d, "fleet", PM_DOCTOR_OK, NULL, "version %s, up %s, %zu processes, %llu jobs running",
                  s->version, up, s->peer_count, (unsigned long long)s->jobs_running);
    if (strcmp(s->version, PM_VERSION) != 0)
        pm_doctor_add(d, "fleet", PM_DOCTOR_WARN, "`pagemill restart` replaces all processes without a gap",
                      "the broker is version %s, this command %s", s->version, PM_VERSION);
    if (s->is_draining)
        pm_doctor_add(d, "fleet", PM_DOCTOR_WARN, "wait until it has stopped, then `pagemill up`",
                      "the fleet is stopping and takes no more jobs");
    judge_peers(d, s);
    judge_queues(d, s);
    pm_show_bytes(s->disk_bytes_free, free_text, sizeof free_text);
    if (s->disk_bytes_free && s->disk_bytes_free < NEARLY_BYTES)
        pm_doctor_add(d, "disk", s->disk_bytes_free < MIN_FREE ? PM_DOCTOR_FAIL : PM_DOCTOR_WARN,
                      "free space on its disk; running jobs go on, new ones are refused below 64 MB",
                      "the fleet's disk has %s left", free_text);
    pm_show_bytes(s->pixel_bytes, used, sizeof used);
    pm_show_bytes(s->pixel_budget_bytes, budget, sizeof budget);
    if (s->pixel_budget_bytes && s->pixel_bytes > s->pixel_budget_bytes / 20 * 19)
        pm_doctor_add(
            d, "pictures", PM_DOCTOR_WARN,
            "usual when workers are all busy; if they are idle, raise it: `pagemill up --pixel-budget MB`",
            "page pictures take %s of their %s: layoutd waits for the workers", used, budget);
}

void pm_doctor_fleet(struct pm_doctor *d)
{
    struct pagemill_connect_options options = PAGEMILL_CONNECT_OPTIONS_INIT;
    struct pagemill_error err;
    struct pagemill_stats *stats;
    pagemill *pm = NULL;
    int code;
    char *endpoint = pm_cli_find_endpoint(d->where, &code);
    if (!endpoint || !pm_locate_is_alive(endpoint)) {
        pm_doctor_add(d, "fleet", PM_DOCTOR_OK, NULL, "none is running%s%s", endpoint ? " at " : "",
                      endpoint ? endpoint : "");
        free(endpoint);
        return;
    }
    int rc = pagemill_connect(endpoint, &options, CONNECT_MS, &pm, &err);
    if (!rc)
        rc = pagemill_stats(pm, CONNECT_MS, &stats, &err);
    if (rc) {
        pm_doctor_add(d, "fleet", PM_DOCTOR_FAIL,
                      "`pagemill logs --process broker --since 10m` says what it does",
                      "the broker at %s does not answer: %s", endpoint, err.text);
    } else {
        pm_doctor_judge(d, stats);
        pagemill_stats_free(&stats);
    }
    pagemill_close(&pm);
    free(endpoint);
}
