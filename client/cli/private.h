/* The private fleet of `pagemill parse`: folders of its own, a supervisor process, and no trace afterwards.
 *
 * The supervisor is this program again (`pagemill fleet-private`), in a process group of its own. It holds
 * the read end of a pipe of ours: when we die, even by SIGKILL, it stops the fleet and removes the folders.
 * Should it be killed itself, its children die with it (PR_SET_PDEATHSIG), we notice by the end of the report
 * pipe, which all of them hold, and start it again on the same journal. Should both be killed, the next start
 * sweeps folders whose lock nobody holds.
 *
 * Threads: the main thread only. Ownership: strings of the config are borrowed for the life of the fleet. */
#ifndef PM_CLIENT_CLI_PRIVATE_H
#define PM_CLIENT_CLI_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/supervise.h"

struct pm_private_config {
    const char *models, *reader, *log_path, *log_level; /* NULL: defaults */
    /* 0: from the machine and the reader (readers.h) */
    uint32_t workers, layouts, threads;
    uint32_t kv_memory_mb, memory_mb; /* of a worker; 0: its default, no limit */
    bool kv_int8;
    bool is_pinned; /* found by pm_private_start */
};
struct pm_private {
    struct pm_private_config config;
    char *run_dir, *state_dir, *models;
    int run_lock, state_lock;
    uint32_t pixel_budget_mb;
    struct pm_child supervisor;
    int life_fd, report_fd;
    char line[600]; /* of the report, being read */
    size_t line_bytes;
    unsigned restarts;
    bool is_ready;
    char *endpoint;
};

/* Starts everything at once and returns without waiting. On error nothing is left. */
int pm_private_start(const struct pm_private_config *config, struct pm_private *out, struct pm_error *err);
/* Reads what the supervisor reported (call when report_fd is readable; it may change). Starts a killed
 * supervisor again. An error is final: the fleet cannot run, the text says why. */
int pm_private_check(struct pm_private *fleet, struct pm_error *err);
/* Waits until the broker listens: 0, PM_ECANCELLED when cancel_fd is readable, or why it cannot. */
int pm_private_wait(struct pm_private *fleet, int cancel_fd, int64_t timeout_us, struct pm_error *err);
/* Stops it, waits until all is gone, removes the folders. */
void pm_private_stop(struct pm_private *fleet);

/* `pagemill fleet-private RUN STATE ...`: the child's side. */
int pm_private_main(int argc, char **argv);

/* How many processes suit a machine of that many cores. Pure. */
uint32_t pm_private_layouts(uint32_t workers);

#endif
