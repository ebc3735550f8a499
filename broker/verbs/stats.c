/* STATS: the whole fleet as the broker sees it. */
#include "broker/broker.h"

static void add_peers(struct pm_broker *b, struct pm_msg_fleet *out)
{
    out->peers = pm_arena_alloc(&b->arena, (b->conn_count + 1) * sizeof *out->peers);
    for (size_t i = 0; i < b->conn_count && out->peer_count < PM_LIMIT_PEERS; i++) {
        const struct pm_conn *p = b->conns[i];
        if (!p->peer || p->is_dead)
            continue;
        out->peers[out->peer_count++] =
            (struct pm_peer_info){.name = p->name,
                                  .role = pm_role_name(p->role),
                                  .version = p->version,
                                  .pid = p->pid,
                                  .leases = pm_sched_peer_leases(b->sched, p->peer),
                                  .credit = pm_sched_peer_room(b->sched, p->peer),
                                  .done = p->done,
                                  .failed = p->failed,
                                  .busy_us = p->busy_us,
                                  .up_us = (uint64_t)(b->now.us - p->joined_us),
                                  .silent_us = (uint64_t)(b->now.us - p->heard_us)};
    }
}

static void add_counters(struct pm_broker *b, const struct pm_sched_stats *s, struct pm_msg_fleet *out)
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
    out->counters = pm_arena_alloc(&b->arena, (PM_COUNT_COUNT + own_count) * sizeof *out->counters);
    for (int i = 0; i < PM_COUNT_COUNT; i++)
        out->counters[out->counter_count++] = (struct pm_counter){pm_counter_name(i), b->counters[i]};
    for (size_t i = 0; i < own_count; i++)
        out->counters[out->counter_count++] = own[i];
}

int pm_verb_stats(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_stats *q = m->record;
    (void)err;
    struct pm_sched_stats s;
    pm_sched_stats(b->sched, b->now, &s);
    struct pm_queue_info queues[PM_SCHED_KINDS];
    for (uint32_t k = 0; k < PM_SCHED_KINDS; k++)
        queues[k] = (struct pm_queue_info){.kind = pm_kind_name(k + 1),
                                           .queued = s.kinds[k].queued,
                                           .leased = s.kinds[k].leased,
                                           .oldest_us = s.kinds[k].oldest_us,
                                           .done = s.kinds[k].done,
                                           .failed = s.kinds[k].failed,
                                           .retried = s.kinds[k].retried};
    struct pm_msg_fleet answer = {.ref = q->ref,
                                  .epoch = b->epoch,
                                  .up_us = (uint64_t)(b->now.us - b->started_us),
                                  .version = PM_VERSION,
                                  .queues = queues,
                                  .queue_count = PM_SCHED_KINDS,
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
                                  .is_draining = b->is_draining};
    add_peers(b, &answer);
    add_counters(b, &s, &answer);
    pm_conn_send(b, c, PM_MSG_FLEET, &answer);
    return 0;
}
