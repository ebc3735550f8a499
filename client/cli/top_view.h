/* The screen of `pagemill top`: figures in, lines out. Pure; drawing and keys are cmd_top.c's.
 *
 * Lines have colours in them and at most `width` columns; what does not fit is left out, the least important
 * columns first. Threads: pure functions. Ownership: pm_top_free. */
#ifndef PM_CLIENT_CLI_TOP_VIEW_H
#define PM_CLIENT_CLI_TOP_VIEW_H

#include "client/cli/show.h"

struct pm_top_input {
    const struct pagemill_stats *now;
    const struct pagemill_stats *before; /* NULL: rates are means since the start */
    double seconds;                      /* between the two */
    const struct pagemill_jobs *jobs;    /* what to list; NULL: none */
    int64_t now_wall_us;
    uint64_t selected_job;        /* marked; 0: none */
    size_t most_jobs, most_peers; /* longer lists are folded; 0: they are not */
    int width;
    bool is_colored;
};
struct pm_top_lines {
    char **lines;
    size_t count, capacity;
    size_t head;     /* the first so many stay when the rest is scrolled */
    size_t selected; /* line of the selected job; 0: none */
    size_t fixed;    /* lines that are neither jobs nor processes */
};
void pm_top_make(const struct pm_top_input *input, struct pm_top_lines *out);
void pm_top_free(struct pm_top_lines *lines);

#endif
