/* What is told about peers and readers: for people and for the metrics page. Costs depend on how many peers,
 * leases and clients there are, never on how many jobs wait. */
#include "broker/sched_internal.h"

bool pm_sched_peer_figures(const struct pm_sched *s, struct pm_now now, uint32_t peer,
                           struct pm_sched_peer_figures *out)
{
    const struct peer *p = NULL;
    for (size_t i = 0; i < s->peer_count && !p; i++)
        p = s->peers[i]->id == peer ? s->peers[i] : NULL;
    if (!p)
        return false;
    *out = (struct pm_sched_peer_figures){.leases = (uint32_t)p->lease_count,
                                          .room =
                                              p->granted > p->leased ? (uint32_t)(p->granted - p->leased) : 0,
                                          .is_alone = p->suspects > 0,
                                          .is_stalled = p->stalled_us != 0,
                                          .is_away = p->is_mute};
    int64_t since_us = INT64_MAX;
    for (size_t i = 0; i < p->lease_count; i++)
        if (p->leases[i]->sent_us < since_us) {
            since_us = p->leases[i]->sent_us;
            out->task = p->leases[i]->task;
        }
    if (p->lease_count && now.us > since_us)
        out->task_us = (uint64_t)(now.us - since_us);
    return true;
}

const char *pm_sched_peer_reader(const struct pm_sched *s, uint32_t peer, uint32_t index)
{
    for (size_t i = 0; i < s->peer_count; i++)
        if (s->peers[i]->id == peer)
            return index < s->peers[i]->queue_count ? s->queues[s->peers[i]->queues[index]]->reader : NULL;
    return NULL;
}

bool pm_sched_reader_figures(struct pm_sched *s, struct pm_now now, size_t index,
                             struct pm_sched_reader_figures *out)
{
    size_t at = QUEUE_REGION + index, cursor = 0;
    if (at >= s->queue_count)
        return false;
    const struct queue *q = s->queues[at];
    *out = (struct pm_sched_reader_figures){.reader = q->reader,
                                            .workers = q->servers,
                                            .pages = q->pages,
                                            .region = {.queued = q->ready[0],
                                                       .done = q->regions_done,
                                                       .failed = q->regions_failed,
                                                       .retried = q->regions_retried}};
    int64_t since_us = pm_queue_oldest_us(s, (uint32_t)at, 0);
    if (since_us < now.us)
        out->region.oldest_us = (uint64_t)(now.us - since_us);
    uint64_t task;
    void *value;
    while (pm_map_next(&s->leases, &cursor, &task, &value)) {
        struct ref r;
        if (pm_task_kind(task) == PM_KIND_REGION && pm_sched_ref(s, task, &r) && r.job->region_queue == at)
            out->region.leased++;
    }
    return true;
}
