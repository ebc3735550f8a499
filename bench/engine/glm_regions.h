/* Regions through the reader, as a worker reads them, in a process of its own: so that its start and its
 * memory are those of a worker.
 *
 * Ownership: plain values. Threads: one. Errors: what the process complained about; a text that ended before
 * its time. */
#ifndef PM_BENCH_GLM_REGIONS_H
#define PM_BENCH_GLM_REGIONS_H

#include "base/error.h"

struct regions {
    int width_px, height_px; /* of each picture */
    int tokens;              /* to write for each */
    int count;               /* at once */
    int threads;
};

struct regions_result {
    double first_s;                       /* from the start of the process to the first text */
    double total_s;                       /* from the first region given to the last text: opening left out */
    double vision_s, prefill_s, decode_s; /* of all regions */
    double peak_mb, own_mb;               /* resident: all, and what is not the mapped weights */
};

/* Starts this program again as `PROGRAM --child ...` and waits for it. */
int regions_run(const char *model_dir, const struct regions *what, struct regions_result *out,
                struct pm_error *err);

/* What that process does: arguments after --child; its exit status. */
int regions_child(int argc, char **argv);

#endif
