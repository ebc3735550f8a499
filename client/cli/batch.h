/* Reading a list of inputs through a fleet: submits them (a bounded number at a time), follows their events,
 * writes each result as its document finishes, and shows progress. Used by parse and by submit --wait.
 *
 * Output: OUT/FOLDER/STEM/STEM.md and its other files; while a document is read, STEM.partial.md beside them
 * grows page by page in order. Every failure is one line on stderr and counts; the rest goes on.
 * Threads: main thread only. */
#ifndef PM_CLIENT_CLI_BATCH_H
#define PM_CLIENT_CLI_BATCH_H

#include "client/cli/cli.h"
#include "client/cli/intake.h"
#include "client/cli/private.h"

struct pm_batch_config { /* strings borrowed */
    struct pagemill_submit_options
        submit;          /* pages, password, reader, ...; name, key, stem and batch are set here */
    const char *out_dir; /* NULL: nothing is written */
    bool to_stdout;      /* the first format of each document, in input order */
    bool is_quiet;
    bool keep_jobs;     /* leave results with the fleet (submit --wait) */
    uint32_t timeout_s; /* of the whole run; 0: none */
    uint32_t most_jobs; /* in flight */
};

/* Reads everything. private_fleet may be NULL (a running fleet is used then). interrupt_fd: of
 * pm_interrupt_open. Returns the exit code. */
int pm_batch_run(const struct pm_batch_config *config, struct pm_intake *intake, const char *endpoint,
                 struct pm_private *private_fleet, int interrupt_fd);

#endif
