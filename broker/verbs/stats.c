/* STATS: the whole fleet as the broker sees it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/host.h"
#include "broker/broker.h"

#define MEMORY_US      500000 /* how long a process's memory is taken to be the same */
#define LATENCY_PHASES (PM_LIMIT_LATENCIES - 3 * PM_SCHED_KINDS - 1)

/* ---- processes ---- */

static uint64_t memory_of(struct pm_broker *b, struct pm_conn *c)
{
    if (c->pidfd < 0) /* on another host, or unknown to this kernel */
        return 0;
    if (!c->rss_us || b->now.us - c->rss_us >= MEMORY_US) {
        c->rss_bytes = pm_host_rss_bytes(c->pid);
        c->rss_us = b->now.us;
    }
    return c->rss_bytes;
}

static const char *state_of(const struct pm_broker *b, const struct pm_sched_peer_figures *f)
{
    return f->is_away       ? "away"
           : f->is_stalled  ? "stalled"
           : f->is_alone    ? "alone"
           : f->leases      ? "busy"
           : b->is_draining ? "draining"
                            : "idle";
}

static void add_readers(struct pm_broker *b, uint32_t peer, struct pm_arena *arena, struct pm_peer_info *out)
{
    uint32_t count = 0;
    while (pm_sched_peer_reader(b->sched, peer, count))
        count++;
    out->readers = pm_arena_alloc(arena, (count + 1) * sizeof *out->readers);
    out->reader_count = count;
    for (uint32_t i = 0; i < count; i++)
        out->readers[i] = pm_sched_peer_reader(b->sched, peer, i);
}

static void add_peers(struct pm_broker *b, struct pm_arena *arena, struct pm_msg_fleet *out)
{
    out->peers = pm_arena_alloc(arena, (b->conn_count + 1) * sizeof *out->peers);
    for (size_t i = 0; i < b->conn_count; i++) {
        struct pm_conn *p = b->conns[i];
        struct pm_sched_peer_figures f;
        out->clients += !p->peer && !p->is_dead;
        if (!p->peer || p->is_dead || out->peer_count == PM_LIMIT_PEERS ||
            !pm_sched_peer_figures(b->sched, b->now, p->peer, &f))
            continue;
        struct pm_peer_info *info = &out->peers[out->peer_count++];
        *info = (struct pm_peer_info){.name = p->name,
                                      .role = pm_role_name(p->role),
                                      .version = p->version,
                                      .pid = p->pid,
                                      .leases = f.leases,
                                      .credit = f.room,
                                      .done = p->done,
                                      .failed = p->failed,
                                      .busy_us = p->busy_us,
                                      .up_us = (uint64_t)(b->now.us - p->joined_us),
                                      .silent_us = (uint64_t)(b->now.us - p->heard_us),
                                      .host = p->host,
                                      .state = state_of(b, &f),
                                      .rss_bytes = memory_of(b, p),
                                      .task = f.task,
                                      .task_us = f.task_us,
                                      .tokens = p->tokens};
        if (p->role == PM_ROLE_WORKER)
            add_readers(b, p->peer, arena, info);
    }
}

/* ---- work ---- */

static struct pm_queue_info queue_of(const char *kind, const char *reader,
                                     const struct pm_sched_kind_stats *k)
{
    return (struct pm_queue_info){.kind = kind,
                                  .queued = k->queued,
                                  .leased = k->leased,
                                  .oldest_us = k->oldest_us,
                                  .done = k->done,
                                  .failed = k->failed,
                                  .retried = k->retried,
                                  .reader = reader};
}

/* One entry a kind; regions have one a reader. */
static void add_queues(struct pm_broker *b, const struct pm_sched_stats *s, struct pm_arena *arena,
                       struct pm_msg_fleet *out)
{
    struct pm_sched_reader_figures r;
    uint32_t readers = 0;
    while (pm_sched_reader_figures(b->sched, b->now, readers, &r))
        readers++;
    out->queues = pm_arena_alloc(arena, (PM_SCHED_KINDS + readers) * sizeof *out->queues);
    for (uint32_t k = 0; k < PM_SCHED_KINDS; k++) {
        if (k + 1 != PM_KIND_REGION || !readers) {
            out->queues[out->queue_count++] = queue_of(pm_kind_name(k + 1), "", &s->kinds[k]);
            continue;
        }
        for (uint32_t i = 0; pm_sched_reader_figures(b->sched, b->now, i, &r); i++)
            out->queues[out->queue_count++] = queue_of(pm_kind_name(k + 1), r.reader, &r.region);
    }
}

static void add_latency(struct pm_msg_fleet *out, const char *name, const char *label,
                        const struct pm_histogram *h)
{
    if (h->count)
        out->latencies[out->latency_count++] = (struct pm_latency){.name = name,
                                                                   .label = label,
                                                                   .count = h->count,
                                                                   .sum_us = h->sum_us,
                                                                   .p50_us = pm_histogram_quantile(h, 0.5),
                                                                   .p99_us = pm_histogram_quantile(h, 0.99),
                                                                   .max_us = h->max_us};
}

static void add_latencies(struct pm_broker *b, struct pm_arena *arena, struct pm_msg_fleet *out)
{
    const struct pm_metrics *m = b->metrics;
    out->latencies = pm_arena_alloc(arena, PM_LIMIT_LATENCIES * sizeof *out->latencies);
    for (uint32_t k = 0; k < PM_SCHED_KINDS; k++) {
        add_latency(out, "wait", pm_kind_name(k + 1), &m->wait[k]);
        add_latency(out, "run", pm_kind_name(k + 1), &m->run[k]);
        add_latency(out, "hop", pm_kind_name(k + 1), &m->hop[k]);
    }
    add_latency(out, "sync", "", &m->sync);
    for (uint32_t i = 0; i < m->phase_count && i < LATENCY_PHASES; i++) {
        char label[2 * PM_METRICS_NAME + 2];
        snprintf(label, sizeof label, "%s/%s", pm_kind_name(m->phases[i].kind), m->phases[i].name);
        add_latency(out, "phase", pm_arena_text(arena, label, strlen(label)), &m->phases[i].times);
    }
}

static void add_counters(struct pm_broker *b, const struct pm_sched_stats *s, struct pm_arena *arena,
                         struct pm_msg_fleet *out)
{
    const struct pm_counter own[] = {
        {"sched_fenced", s->fenced},
        {"sched_adopted", s->adopted},
        {"sched_quarantined", s->quarantined},
        {"sched_stalled", s->stalled},
        {"sched_deadlines", s->deadlines},
        {"sched_crashes", s->crashes},
        {"sched_lost_inputs", s->lost_inputs},
        {"sched_page_reruns", s->page_reruns},
        {"sched_kills", s->kills},
        {"sched_protocol_errors", s->protocol_errors},
        {"sched_unsent", s->unsent},
    };
    const size_t own_count = sizeof own / sizeof own[0];
    out->counters = pm_arena_alloc(arena, (PM_COUNT_COUNT + own_count) * sizeof *out->counters);
    for (int i = 0; i < PM_COUNT_COUNT; i++)
        out->counters[out->counter_count++] = (struct pm_counter){pm_counter_name(i), b->counters[i]};
    for (size_t i = 0; i < own_count; i++)
        out->counters[out->counter_count++] = own[i];
}

/* ---- the whole ---- */

/* Blobs as the last sweep found them, the journal as it is now. */
static uint64_t state_bytes(const struct pm_broker *b)
{
    static const char *const files[] = {"journal.db", "journal.db-wal"};
    uint64_t bytes = pm_blobs_bytes(b->blobs, PM_BLOB_DISK);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = pm_fs_join(b->config.state_dir, files[i]);
        struct stat st;
        bytes += stat(path, &st) ? 0 : (uint64_t)st.st_size;
        free(path);
    }
    return bytes;
}

void pm_fleet_figures(struct pm_broker *b, struct pm_arena *arena, struct pm_msg_fleet *out)
{
    struct pm_sched_stats s;
    pm_sched_stats(b->sched, b->now, &s);
    *out = (struct pm_msg_fleet){.epoch = b->epoch,
                                 .up_us = (uint64_t)(b->now.us - b->started_us),
                                 .version = PM_VERSION,
                                 .jobs_queued = s.jobs[PM_JOB_QUEUED],
                                 .jobs_running = s.jobs[PM_JOB_RUNNING],
                                 .jobs_done = s.jobs[PM_JOB_DONE],
                                 .jobs_failed = s.jobs[PM_JOB_FAILED],
                                 .jobs_cancelled = s.jobs[PM_JOB_CANCELLED],
                                 .pages_done = s.pages_done,
                                 .regions_done = s.regions_done,
                                 .pixel_bytes = s.pixel_bytes,
                                 .pixel_budget_bytes = b->config.pixel_budget_bytes,
                                 .disk_bytes_free = b->disk_free,
                                 .is_draining = b->is_draining,
                                 .tokens = b->metrics->tokens,
                                 .rss_bytes = pm_host_rss_bytes((uint64_t)getpid()),
                                 .state_bytes = state_bytes(b)};
    add_queues(b, &s, arena, out);
    add_peers(b, arena, out);
    add_latencies(b, arena, out);
    add_counters(b, &s, arena, out);
}

int pm_verb_stats(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_stats *q = m->record;
    struct pm_msg_fleet answer;
    (void)err;
    pm_fleet_figures(b, &b->arena, &answer);
    answer.ref = q->ref;
    pm_conn_send(b, c, PM_MSG_FLEET, &answer);
    return 0;
}
