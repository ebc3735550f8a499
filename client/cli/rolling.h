/* A rolling restart: one process after another is replaced, without a gap in what the fleet can do.
 *
 * A service: its successor starts beside it; once the broker has welcomed that one, the old one is told to
 * leave (SIGTERM: it finishes what it holds). When memory is short the old one leaves first. A successor that
 * ends or is not ready in time is given up, the old one stays, and the restart stops there: nothing is lost
 * by a bad upgrade. The broker: SIGHUP, it writes what is decided and ends; its successor serves the same
 * sockets, services show it their leases, clients repeat what was not answered.
 *
 * Works on a pm_supervise that it borrows; time is an argument. Threads: one owner. */
#ifndef PM_CLIENT_CLI_ROLLING_H
#define PM_CLIENT_CLI_ROLLING_H

#include "base/supervise.h"

struct pm_rolling_config {
    size_t broker;              /* its index; SIZE_MAX: none here */
    int64_t start_us, drain_us; /* patience with a successor's start, with an old one's last work */
    /* kind: "step", "done", "failed". */
    void (*tell)(void *context, const char *kind, const char *text);
    void *context;
};
enum pm_rolling_stage {
    PM_ROLLING_IDLE,
    PM_ROLLING_STARTING, /* successor started, not ready; the old one works, if there is one */
    PM_ROLLING_DRAINING, /* old one told to leave, successor ready */
    PM_ROLLING_LEAVING,  /* old one told to leave before its successor starts */
};
struct pm_rolling {
    struct pm_rolling_config config;
    struct pm_supervise *set;
    size_t *order, count, at;
    enum pm_rolling_stage stage;
    pid_t old_pid;
    bool was_urged; /* asked a second time to leave */
    int64_t began_us, until_us;
};

void pm_rolling_open(struct pm_rolling *r, struct pm_supervise *set, const struct pm_rolling_config *config);
void pm_rolling_close(struct pm_rolling *r);
/* words: names ("worker-2"), kinds ("worker") or nothing for all. PM_EBUSY while one is under way,
 * PM_ENOTFOUND for a name that is none. The broker comes last: a successor that does not work is found before
 * it is touched. */
int pm_rolling_begin(struct pm_rolling *r, const char *words, int64_t now_us, struct pm_error *err);
bool pm_rolling_is_busy(const struct pm_rolling *r);
/* Looks at an event. True: it belongs to the restart and needs no other treatment. */
bool pm_rolling_event(struct pm_rolling *r, const struct pm_supervise_event *event, int64_t now_us);
void pm_rolling_ready(struct pm_rolling *r, size_t index, int64_t now_us); /* pm_supervise_ready said so */
void pm_rolling_tick(struct pm_rolling *r, int64_t now_us);
int64_t pm_rolling_next_us(const struct pm_rolling *r);       /* when to tick; INT64_MAX: no need */
void pm_rolling_abort(struct pm_rolling *r, const char *why); /* the fleet stops */

#endif
