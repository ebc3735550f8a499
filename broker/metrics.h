/* What the broker counts and times while it runs, for STATS, `pagemill top` and the metrics page.
 *
 * Noting is a few additions and one bucket; nothing here allocates per task. What peers say of themselves
 * (phases, tokens) is checked against what the broker saw: no part can be longer than the lease was, names
 * are cut to what a label may hold, and there are at most PM_METRICS_PHASES of them.
 *
 * Ownership: the broker's; pm_metrics_free. Threads: the broker's. Errors: none. */
#ifndef PM_BROKER_METRICS_H
#define PM_BROKER_METRICS_H

#include "base/histogram.h"
#include "broker/scheduler.h"

#define PM_METRICS_PHASES  64u
#define PM_METRICS_READERS 64u
#define PM_METRICS_CODES   32u        /* enum pm_err, negated */
#define PM_METRICS_TOKENS  (1u << 20) /* of one region: its text is at most a megabyte */
#define PM_METRICS_NAME    24u

struct pm_metrics_phase {
    enum pm_task_kind kind;
    char name[PM_METRICS_NAME];
    struct pm_histogram times;
};
struct pm_metrics_reader {
    char *name;
    uint64_t regions, tokens;
};
struct pm_metrics {
    struct pm_histogram wait[PM_SCHED_KINDS]; /* ready -> leased, of first tries */
    struct pm_histogram run[PM_SCHED_KINDS];  /* leased -> result */
    struct pm_histogram hop[PM_SCHED_KINDS];  /* of it, neither waiting at the peer nor work: on the way */
    struct pm_histogram sync;                 /* one transaction of the journal, with its fsync */
    struct pm_metrics_phase *phases;          /* [PM_METRICS_PHASES]; the last one takes what has no place */
    uint32_t phase_count;
    struct pm_metrics_reader *readers; /* [PM_METRICS_READERS]; as above */
    uint32_t reader_count;
    uint64_t tokens;
    uint64_t refusals[PM_METRICS_CODES]; /* by code */
    uint64_t turns, busy_us;             /* of the loop: turns, and what they took beside waiting */
    uint64_t scrapes, own_us;            /* pages made, and the time that took */
};

struct pm_metrics *pm_metrics_new(void);
void pm_metrics_free(struct pm_metrics **metrics);

/* A result that counted. wait_us: ready -> leased, -1 when unknown; run_us: leased -> result. What the peer
 * says of its times and tokens is corrected in `result` to what can be, and its phases get the names that m
 * keeps: one pointer for each. */
void pm_metrics_result(struct pm_metrics *m, enum pm_task_kind kind, const char *reader, int64_t wait_us,
                       int64_t run_us, struct pm_msg_result *result);
static inline void pm_metrics_refused(struct pm_metrics *m, int code)
{
    m->refusals[code < 0 && -code < (int)PM_METRICS_CODES ? -code : 0]++;
}

#endif
