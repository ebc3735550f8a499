/* A fleet for fault tests: the processes of a fleet, started one by one by the test itself instead of
 * `pagemill up`, so that any of them can be killed at any moment and is back at once.
 *
 *   DIR/disk/state   the broker's      DIR/run  sockets, pixels      DIR/log  what they all say
 *
 * Services are the real ones, or those of storm_service.c. Ownership: struct rig owns its processes and
 * strings. Threads: one. Errors: a rig that cannot start something prints why and ends the program: it is a
 * test. */
#ifndef PM_FAULTS_RIG_H
#define PM_FAULTS_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/supervise.h"

enum rig_kind { RIG_BROKER, RIG_LAYOUTD, RIG_WORKER, RIG_COLLECTOR, RIG_CLIENT, RIG_KINDS };
extern const char *const rig_names[RIG_KINDS];
#define RIG_MOST 16

struct rig_process {
    enum rig_kind kind;
    unsigned number;
    struct pm_child child; /* pid 0: not running */
    bool was_killed;       /* by us */
    bool has_ended;        /* a client that ended with 0 */
    int64_t started_us;
    int ready_fd; /* broker: readable once it serves; -1 afterwards */
};
struct rig_setup {
    const char *dir, *build;           /* build: where the programs are */
    bool is_real;                      /* real services; else storm_service */
    const char *models;                /* real ones */
    unsigned counts[RIG_KINDS];        /* of each kind; the broker is always one */
    const char *const *broker_extra;   /* options, NULL-terminated; may be NULL */
    const char *const *env[RIG_KINDS]; /* of each kind; may be NULL */
};
struct rig {
    struct rig_setup setup;
    char *disk, *state, *run, *pixels, *socket, *endpoint, *log_path;
    int log_fd, deaths[2];
    struct rig_process processes[RIG_MOST];
    unsigned count;
    unsigned ends[RIG_KINDS]; /* ends that were nobody's order */
    int last_end[RIG_KINDS];  /* wait status of the last of those */
    int64_t slowest_start_us; /* of a broker: from its start to its readiness */
    /* Arguments of clients, by their number; NULL-terminated, argv[0] included. */
    const char *const *client_argv[RIG_MOST];
};

void rig_open(struct rig *r, const struct rig_setup *setup);
void rig_close(struct rig *r); /* kills what still runs; the directory stays */
void rig_start(struct rig *r, struct rig_process *p);
void rig_start_all(struct rig *r); /* everything that does not run and has not ended; clients last */
struct rig_process *rig_find(struct rig *r, enum rig_kind kind, unsigned number);
void rig_kill(struct rig *r, struct rig_process *p); /* -9, and waits for its end */
void rig_kill_all(struct rig *r);
/* Waits at most timeout_us for something to happen: collects processes that ended (clients that ended with 0
 * are done), and hears of a broker that is ready. */
void rig_turn(struct rig *r, int64_t timeout_us);
bool rig_broker_is_ready(const struct rig *r);
bool rig_wait_ready(struct rig *r, int64_t limit_us); /* false: not in time, or the broker ended */
int rig_stop_broker(struct rig *r, int64_t limit_us); /* SIGTERM; the wait status, -1 when it did not stop */
/* Runs a program to its end; the wait status, -1 when it took longer. */
int rig_run(struct rig *r, const char *path, const char *const argv[], int64_t limit_us);
char *rig_program(const struct rig *r, const char *name); /* path; caller frees */
_Noreturn void rig_give_up(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
