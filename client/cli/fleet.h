/* The fleet's supervisor: starts broker, layoutd, workers and collector, restarts what dies, stops them in
 * order, and leaves nothing behind.
 *
 * It owns no ZeroMQ, so that it may fork at any time; everything it knows comes from pidfds, signals and
 * pipes. `pagemill up` runs it in the foreground; `pagemill parse` starts it as a child, with a pipe whose
 * end of file means that the command line is gone (killed -9 included).
 *
 * `pagemill restart` asks it for new processes over RUN/fleet.sock (control.h, rolling.h).
 *
 * Stopping: SIGTERM or SIGINT drains (the broker stops giving out work and waits for what is in hand, then
 * the others are told to go); a second signal stops at once. A broker that leaves with exit code 0 was told
 * to by a client and ends the fleet too. Threads: one, the process's main one. */
#ifndef PM_CLIENT_CLI_FLEET_H
#define PM_CLIENT_CLI_FLEET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "client/cli/log_files.h"
#include "client/cli/readers.h"

struct pm_fleet { /* strings borrowed */
    const char *run_dir, *state_dir, *pixel_dir, *models;
    const char *log_level;
    const char *listen; /* NULL, or tcp endpoints that the broker serves too */
    /* NULL, or the broker elsewhere (tcp://HOST:PORT) that this fleet's workers work for: then there is no
     * broker, layoutd or collector here. */
    const char *join, *server_key, *key;
    uint32_t max_jobs, min_free_mb, max_store_mb, remember_s, remember_mb; /* 0: the broker's defaults */
    const char *metrics;                   /* NULL, or where the broker serves them */
    const struct pm_fleet_reader *readers; /* [reader_count], sized */
    uint32_t reader_count;
    uint32_t layouts;
    uint32_t credit;          /* regions a worker holds; 0: its default */
    uint32_t kv_memory_mb;    /* a worker's, for texts being written; 0: its default */
    uint32_t memory_mb;       /* a worker's, all beyond mapped weights; 0: no limit */
    const char *kv;           /* how these texts are kept: "bf16", "int8"; NULL: its default */
    uint32_t pixel_budget_mb; /* 0: the broker's default */
    uint32_t result_ttl_s;    /* 0: the broker's default */
    uint32_t drain_s;         /* patience with work in hand when stopping */
    int life_fd;              /* -1, or a pipe: end of file stops the fleet at once */
    int report_fd;            /* -1, or a pipe: "ready\n", "failed TEXT\n" */
    const int *keep_fds;      /* locks that every process of the fleet holds */
    uint32_t keep_count;
    bool is_private;           /* its state is thrown away: stop without draining */
    struct pm_log_files *logs; /* NULL, or what keeps the lines of all processes */
    bool is_quiet;             /* lines of the others go to logs alone, not to stderr too */
};

/* Runs until told to stop. 0 after an ordered stop, PM_... when the fleet cannot run. */
int pm_fleet_run(const struct pm_fleet *fleet, struct pm_error *err);

#define PM_FLEET_STATE_LINK "state"           /* in the run folder: points at the state folder */
#define PM_FLEET_LOCK       "supervisor.lock" /* the broker has locks of its own */
/* Makes DIR (0700) and takes the lock in it; *fd_out stays open to hold it. PM_EBUSY when a process holds it.
 */
int pm_fleet_lock(const char *dir, int *fd_out, struct pm_error *err);
/* Removes folders of dead fleets of this user: PREFIX* in `parent` whose lock nobody holds. */
void pm_fleet_sweep(const char *parent, const char *prefix);

#endif
