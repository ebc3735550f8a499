/* A round of a storm: clients, each with a ledger in DIR, and the judgement over them at the end of the
 * round.
 *
 * Clients are processes of a rig (RIG_CLIENT, numbers from 1). They submit until the round is told to end,
 * and end when all that they submitted has ended. Ownership: struct round owns its strings; the rig borrows
 * the argument lists. Threads: one. Errors: what is wrong is counted in struct verdict and said on standard
 * output. */
#ifndef PM_FAULTS_ROUND_H
#define PM_FAULTS_ROUND_H

#include <sys/types.h>

#include "tests/faults/audit.h"
#include "tests/faults/rig.h"

#define ROUND_CLIENTS    2
#define ROUND_REAL_PAGES 20

struct verdict { /* sums */
    uint64_t jobs, results, resubmits, pages, regions;
    uint64_t lost, doubled, wrong, unfinished;
};
/* What a program keeps of the struct verdict that it calls `sum`, one X(field) each. */
#define VERDICT_FIELDS(X)                                                                                    \
    X(sum.jobs)                                                                                              \
    X(sum.results)                                                                                           \
    X(sum.resubmits)                                                                                         \
    X(sum.regions)                                                                                           \
    X(sum.pages)                                                                                             \
    X(sum.lost)                                                                                              \
    X(sum.doubled)                                                                                           \
    X(sum.wrong)                                                                                             \
    X(sum.unfinished)

struct round {
    struct rig *rig;
    const char *document; /* NULL: those of document.h */
    char *finish, *name[ROUND_CLIENTS + 1], *ledger[ROUND_CLIENTS + 1], *seed[ROUND_CLIENTS + 1];
    unsigned base[ROUND_CLIENTS + 1];
    const char *argv[ROUND_CLIENTS + 1][32];
};
void round_begin(struct round *c, struct rig *rig, uint64_t number, const char *document);
void round_free(struct round *c);
void round_finish(struct round *c);           /* tells the clients */
bool round_is_over(const struct round *c);    /* they have ended */
off_t round_knowledge(const struct round *c); /* grows with everything that clients learn */
/* The broker must not run. calm: results of real documents read in peace; NULL for those of document.h.
 * is_over: everything must be done. */
void round_judge(struct round *c, const struct ledger *calm, bool is_over, struct verdict *v);
/* A journal that keeps every job of a long storm would be another test: a round's jobs are forgotten after
 * it. The broker must run. False: not done. */
bool round_forget(struct round *c);

#endif
