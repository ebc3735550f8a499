/* One seeded run of the model: a scheduler, its reference and its journal (the book, or SQLite in memory),
 * with peers and clients that do everything they may and much that they may not. Each step draws its numbers
 * from (seed, step), so that steps can be left out of a failing run without changing the others. */
#ifndef PM_TEST_BROKER_MODEL_WORLD_H
#define PM_TEST_BROKER_MODEL_WORLD_H

#include <stdbool.h>
#include <stdint.h>

struct model_run {
    uint64_t seed;
    uint32_t steps;
    const uint8_t *skipped; /* one a step, NULL: none */
    bool with_sqlite;
    bool is_told; /* print every step */
};
struct model_figures {
    uint64_t steps, jobs, leases, results, committed, fenced, restarts, lost_turns, adopted, timeouts, reruns,
        quarantined, given_up, retried;
    uint64_t failures[8];
};
/* The run up to its end; ref_broken() is called when a rule breaks. model_step says where it was. */
void model_play(const struct model_run *run, struct model_figures *out);
uint32_t model_step(void);

#endif
