/* The metrics page: what STATS tells, the histograms and the process, as Prometheus text. Pure.
 *
 * Every peer that is connected has its own series; one that has left has none with the next page, and the
 * counters of what it did stay in the fleet's. Labels come from peers and readers: two peers of one name and
 * host get numbers, so that no series comes twice.
 *
 * Ownership: appends to the caller's buffer; memory from the arena. Threads: reentrant. Errors: none. */
#ifndef PM_BROKER_METRICS_TEXT_H
#define PM_BROKER_METRICS_TEXT_H

#include "broker/metrics.h"

struct pm_metrics_facts { /* of the broker's process */
    const char *host;     /* peers of it need no label for their host */
    const char *health;   /* "" or why it is not well */
    int64_t started_wall_us;
    uint64_t cpu_us, open_files;
    bool is_disk_full;
};

void pm_metrics_text(const struct pm_msg_fleet *fleet, const struct pm_metrics *metrics,
                     const struct pm_metrics_facts *facts, struct pm_arena *arena, struct pm_buf *out);

#endif
