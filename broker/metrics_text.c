#include "broker/metrics_text.h"

#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "broker/exposition.h"

#define COUNT(labels) (sizeof(labels) / sizeof *(labels))

struct page {
    const struct pm_msg_fleet *fleet;
    const struct pm_metrics *metrics;
    const struct pm_metrics_facts *facts;
    struct pm_buf *out;
};

static void gauge(const struct page *p, const char *name, const char *help, uint64_t value)
{
    pm_expo_family(p->out, name, "gauge", help);
    pm_expo_count(p->out, name, NULL, 0, value);
}

static void counter(const struct page *p, const char *name, const char *help, uint64_t value)
{
    pm_expo_family(p->out, name, "counter", help);
    pm_expo_count(p->out, name, NULL, 0, value);
}

static void seconds(const struct page *p, const char *name, const char *type, const char *help, uint64_t us)
{
    pm_expo_family(p->out, name, type, help);
    pm_expo_seconds(p->out, name, NULL, 0, us);
}

/* ---- the broker ---- */

static void add_broker(const struct page *p)
{
    const struct pm_msg_fleet *f = p->fleet;
    const struct pm_expo_label build[] = {{"version", f->version}};
    pm_expo_family(p->out, "pagemill_build_info", "gauge", "Version of the broker; always 1.");
    pm_expo_count(p->out, "pagemill_build_info", build, 1, 1);
    const struct pm_expo_label health[] = {{"reason", p->facts->health}};
    pm_expo_family(p->out, "pagemill_healthy", "gauge", "1 when /healthz says ok, else 0 and the reason.");
    pm_expo_count(p->out, "pagemill_healthy", health, 1, !*p->facts->health);
    gauge(p, "pagemill_epoch", "How often a broker was started on this state folder.", f->epoch);
    seconds(p, "pagemill_up_seconds", "gauge", "Time since this broker began to serve.", f->up_us);
    gauge(p, "pagemill_draining", "1 while the fleet stops and takes no new work.", f->is_draining);
    gauge(p, "pagemill_disk_full", "1 while the disk of the state folder is full.", p->facts->is_disk_full);
    gauge(p, "pagemill_clients", "Connected clients.", f->clients);
    gauge(p, "pagemill_state_bytes", "Size of the journal and of the stored sources and results.",
          f->state_bytes);
    gauge(p, "pagemill_disk_free_bytes", "Free space of the disk with the state folder.", f->disk_bytes_free);
    gauge(p, "pagemill_pixel_bytes", "Memory for page pictures in work, with what is promised to pages.",
          f->pixel_bytes);
    gauge(p, "pagemill_pixel_budget_bytes", "Most memory for page pictures in work.", f->pixel_budget_bytes);
    seconds(p, "process_start_time_seconds", "gauge", "When the broker was started, since 1970.",
            (uint64_t)p->facts->started_wall_us);
    seconds(p, "process_cpu_seconds_total", "counter", "Processor time of the broker.", p->facts->cpu_us);
    gauge(p, "process_resident_memory_bytes", "Memory of the broker.", f->rss_bytes);
    gauge(p, "process_open_fds", "Open file descriptors of the broker.", p->facts->open_files);
    counter(p, "pagemill_loop_turns_total", "Turns of the broker's loop.", p->metrics->turns);
    seconds(p, "pagemill_loop_busy_seconds_total", "counter", "Time in the broker's loop beside waiting.",
            p->metrics->busy_us);
    counter(p, "pagemill_scrapes_total", "Metrics pages made.", p->metrics->scrapes);
    seconds(p, "pagemill_scrape_seconds_total", "counter", "Part of the loop's time that went into them.",
            p->metrics->own_us);
}

/* ---- work ---- */

/* One family over all queues: a figure of each. */
static void add_queues(const struct page *p, const char *name, const char *type, const char *help,
                       size_t offset, bool is_time)
{
    pm_expo_family(p->out, name, type, help);
    for (uint32_t i = 0; i < p->fleet->queue_count; i++) {
        const struct pm_queue_info *q = &p->fleet->queues[i];
        const struct pm_expo_label labels[] = {{"kind", q->kind}, {"reader", q->reader ? q->reader : ""}};
        uint64_t value;
        memcpy(&value, (const char *)q + offset, sizeof value);
        (is_time ? pm_expo_seconds : pm_expo_count)(p->out, name, labels, COUNT(labels), value);
    }
}

static void add_work(const struct page *p)
{
    const struct pm_msg_fleet *f = p->fleet;
#define OF(member) offsetof(struct pm_queue_info, member)
    add_queues(p, "pagemill_tasks_queued", "gauge", "Tasks that could begin now.", OF(queued), false);
    add_queues(p, "pagemill_tasks_leased", "gauge", "Tasks that a process works on.", OF(leased), false);
    add_queues(p, "pagemill_oldest_task_age_seconds", "gauge", "How long the oldest queued task has waited.",
               OF(oldest_us), true);
    add_queues(p, "pagemill_tasks_done_total", "counter", "Tasks whose result was committed.", OF(done),
               false);
    add_queues(p, "pagemill_tasks_failed_total", "counter", "Tasks given up for good.", OF(failed), false);
    add_queues(p, "pagemill_retries_total", "counter", "Attempts that failed and were given another.",
               OF(retried), false);
#undef OF
    const struct {
        const char *state;
        uint64_t count;
    } jobs[] = {{"queued", f->jobs_queued},
                {"running", f->jobs_running},
                {"done", f->jobs_done},
                {"failed", f->jobs_failed},
                {"cancelled", f->jobs_cancelled}};
    pm_expo_family(p->out, "pagemill_jobs", "gauge",
                   "Jobs in the journal; the ended ones until they expire.");
    for (size_t i = 0; i < COUNT(jobs); i++) {
        const struct pm_expo_label labels[] = {{"state", jobs[i].state}};
        pm_expo_count(p->out, "pagemill_jobs", labels, 1, jobs[i].count);
    }
    counter(p, "pagemill_pages_total", "Pages done since the broker was started.", f->pages_done);
    counter(p, "pagemill_regions_total", "Regions read since the broker was started.", f->regions_done);
    pm_expo_family(p->out, "pagemill_tokens_total", "counter",
                   "Tokens written, of readers that write token by token.");
    for (uint32_t i = 0; i < p->metrics->reader_count; i++) {
        const struct pm_expo_label labels[] = {{"reader", p->metrics->readers[i].name}};
        pm_expo_count(p->out, "pagemill_tokens_total", labels, 1, p->metrics->readers[i].tokens);
    }
}

static void add_kinds(const struct page *p, const char *name, const char *help, const struct pm_histogram *of)
{
    pm_expo_family(p->out, name, "histogram", help);
    for (uint32_t k = 0; k < PM_SCHED_KINDS; k++) {
        const struct pm_expo_label labels[] = {{"kind", pm_kind_name(k + 1)}};
        pm_expo_histogram(p->out, name, labels, 1, &of[k]);
    }
}

static void add_times(const struct page *p)
{
    const struct pm_metrics *m = p->metrics;
    add_kinds(p, "pagemill_task_wait_seconds", "From ready to leased, of first attempts.", m->wait);
    add_kinds(p, "pagemill_task_run_seconds", "From leased to the result.", m->run);
    add_kinds(p, "pagemill_hop_seconds",
              "Part of a run that was neither waiting at the process nor work: on the way, there and back.",
              m->hop);
    pm_expo_family(p->out, "pagemill_journal_sync_seconds", "histogram",
                   "One transaction of the journal, written and synced.");
    pm_expo_histogram(p->out, "pagemill_journal_sync_seconds", NULL, 0, &m->sync);
    pm_expo_family(p->out, "pagemill_phase_seconds_total", "counter",
                   "Where the time of the work itself went.");
    for (uint32_t i = 0; i < m->phase_count; i++) {
        const struct pm_expo_label labels[] = {{"kind", pm_kind_name(m->phases[i].kind)},
                                               {"phase", m->phases[i].name}};
        pm_expo_seconds(p->out, "pagemill_phase_seconds_total", labels, COUNT(labels),
                        m->phases[i].times.sum_us);
    }
}

/* ---- what was refused ---- */

static void add_refusals(const struct page *p)
{
    pm_expo_family(p->out, "pagemill_refusals_total", "counter",
                   "Requests and greetings refused, by reason.");
    for (int code = 0; code < (int)PM_METRICS_CODES && -code >= PM_EINTERNAL; code++) {
        const struct pm_expo_label labels[] = {{"reason", code ? pm_err_name(-code) : "other"}};
        pm_expo_count(p->out, "pagemill_refusals_total", labels, 1, p->metrics->refusals[code]);
    }
    pm_expo_family(p->out, "pagemill_events_total", "counter",
                   "Everything refused, dropped, repaired or tried again, by name.");
    for (uint32_t i = 0; i < p->fleet->counter_count; i++) {
        const struct pm_expo_label labels[] = {{"event", p->fleet->counters[i].name}};
        pm_expo_count(p->out, "pagemill_events_total", labels, 1, p->fleet->counters[i].value);
    }
}

/* ---- peers ---- */

static const char *const states[] = {"idle", "busy", "alone", "stalled", "away", "draining"};

static void add_peer_counts(const struct page *p)
{
    static const enum pm_role roles[] = {PM_ROLE_LAYOUTD, PM_ROLE_WORKER, PM_ROLE_COLLECTOR};
    pm_expo_family(p->out, "pagemill_peers", "gauge", "Connected processes by what they are and do.");
    for (size_t r = 0; r < COUNT(roles); r++)
        for (size_t s = 0; s < COUNT(states); s++) {
            const struct pm_expo_label labels[] = {{"role", pm_role_name(roles[r])}, {"state", states[s]}};
            uint64_t count = 0;
            for (uint32_t i = 0; i < p->fleet->peer_count; i++)
                count += !strcmp(p->fleet->peers[i].role, labels[0].value) &&
                         !strcmp(p->fleet->peers[i].state, states[s]);
            pm_expo_count(p->out, "pagemill_peers", labels, COUNT(labels), count);
        }
}

struct peer_labels {
    struct pm_expo_label labels[3];
};

/* Name, role and host of each, no two the same. */
static struct peer_labels *label_peers(const struct page *p, struct pm_arena *arena)
{
    struct peer_labels *all = pm_arena_alloc(arena, (p->fleet->peer_count + 1) * sizeof *all);
    struct pm_strmap known = {0};
    for (uint32_t i = 0; i < p->fleet->peer_count; i++) {
        const struct pm_peer_info *peer = &p->fleet->peers[i];
        const char *host = peer->host && strcmp(peer->host, p->facts->host) ? peer->host : "",
                   *name = peer->name;
        char *key = pm_xprintf("%s\x1f%s\x1f%s", peer->role, name, host);
        if (pm_strmap_get(&known, key)) {
            free(key);
            char *numbered = pm_xprintf("%s#%u", name, i);
            name = pm_arena_text(arena, numbered, strlen(numbered));
            free(numbered);
            key = pm_xprintf("%s\x1f%s\x1f%s", peer->role, name, host);
        }
        pm_strmap_put(&known, key, all);
        free(key);
        all[i] = (struct peer_labels){{{"role", peer->role}, {"name", name}, {"host", host}}};
    }
    pm_strmap_free(&known);
    return all;
}

static void add_peers(const struct page *p, struct pm_arena *arena)
{
#define OF(member) offsetof(struct pm_peer_info, member)
    static const struct {
        const char *name, *type, *help;
        size_t offset;
        bool is_time;
    } families[] = {
        {"pagemill_peer_done_total", "counter", "Results of a process that were committed.", OF(done), false},
        {"pagemill_peer_failed_total", "counter", "Tasks that a process could not do.", OF(failed), false},
        {"pagemill_peer_busy_seconds_total", "counter", "Work of a process, summed over its tasks.",
         OF(busy_us), true},
        {"pagemill_peer_tokens_total", "counter", "Tokens that a process wrote.", OF(tokens), false},
        {"pagemill_peer_silent_seconds", "gauge", "Time since the last message of a process.", OF(silent_us),
         true},
        {"pagemill_peer_task_age_seconds", "gauge", "Age of the oldest task that a process holds.",
         OF(task_us), true},
        {"pagemill_peer_memory_bytes", "gauge", "Memory of a process of this host; 0: unknown.",
         OF(rss_bytes), false},
    };
#undef OF
    const struct peer_labels *labels = label_peers(p, arena);
    add_peer_counts(p);
    pm_expo_family(p->out, "pagemill_peer_leases", "gauge", "Tasks that a process holds.");
    for (uint32_t i = 0; i < p->fleet->peer_count; i++)
        pm_expo_count(p->out, "pagemill_peer_leases", labels[i].labels, 3, p->fleet->peers[i].leases);
    for (size_t f = 0; f < COUNT(families); f++) {
        pm_expo_family(p->out, families[f].name, families[f].type, families[f].help);
        for (uint32_t i = 0; i < p->fleet->peer_count; i++) {
            uint64_t value;
            memcpy(&value, (const char *)&p->fleet->peers[i] + families[f].offset, sizeof value);
            (families[f].is_time ? pm_expo_seconds : pm_expo_count)(p->out, families[f].name,
                                                                    labels[i].labels, 3, value);
        }
    }
}

void pm_metrics_text(const struct pm_msg_fleet *fleet, const struct pm_metrics *metrics,
                     const struct pm_metrics_facts *facts, struct pm_arena *arena, struct pm_buf *out)
{
    const struct page p = {fleet, metrics, facts, out};
    add_broker(&p);
    add_work(&p);
    add_times(&p);
    add_refusals(&p);
    add_peers(&p, arena);
}
