/* Workers of bench_scale: processes that map the same weights and run the same phase at the same time.
 *
 * Ownership: plain values. Threads: one. Errors: what a worker complained about. */
#ifndef PM_BENCH_SCALE_WORKER_H
#define PM_BENCH_SCALE_WORKER_H

#include "base/error.h"

struct load {
    const char *weights; /* the packed file */
    int workers, threads;
    int batch;   /* sequences that step together; 0: regions, that is tower and prompt */
    int context; /* tokens before the first step */
    int width_px, height_px;
    double seconds; /* how long each worker goes on, about */
};

/* Everything together: tokens a second, or regions a second. */
int load_run(const struct load *load, double *rate_out, struct pm_error *err);

/* The worker itself: arguments after --child; its exit status. */
int load_child(int argc, char **argv);

#endif
