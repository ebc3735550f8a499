/* What `pagemill logs` shows: lines of the log files that match a filter, in the order of time.
 * Threads: reentrant. Ownership: a view owns its lines. */
#ifndef PM_CLIENT_CLI_LOG_VIEW_H
#define PM_CLIENT_CLI_LOG_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/log.h"

struct pm_log_filter {
    char job[24];        /* "": any */
    const char *process; /* NULL: any; "worker" also means worker-1, worker-2, ... */
    int lowest;          /* enum pm_log_level */
    char since[25];      /* "": from the beginning; compared as text */
};
bool pm_log_filter_takes(const struct pm_log_filter *filter, const char *line,
                         const struct pm_log_line *parts);
/* "10m", "2h", "1d", "30s": before now; or the beginning of a time, "2026-01-05T10:22" (UTC). */
int pm_log_filter_since(struct pm_log_filter *filter, const char *text, int64_t now_wall_us,
                        struct pm_error *err);

struct pm_log_view { /* zero-initialise */
    struct pm_log_kept {
        char *text;
        uint64_t order;
    } * lines;
    size_t count, capacity;
    uint64_t next;
};
/* Adds the matching lines of some bytes of a file; what stands behind the last newline is left. Returns bytes
 * taken. */
size_t pm_log_view_add(struct pm_log_view *view, const struct pm_log_filter *filter, const char *data,
                       size_t bytes);
void pm_log_view_sort(struct pm_log_view *view);
void pm_log_view_clear(struct pm_log_view *view); /* frees all */

/* One line with its newline; coloured: time faint, level and ids marked. */
void pm_log_show(const char *line, bool is_colored, FILE *out);

#endif
