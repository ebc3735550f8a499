/* One line a fact on stderr: `time level process[pid] message key=value ...`.
 *
 *     2026-01-05T10:22:31.482Z debug worker-2[811] region done job=17 page=3 region=12 task=9120 attempt=1
 *
 * The same ids have the same keys in all processes: job, page, region, task, attempt, and name for that
 * of a process. `pagemill logs JOB` finds by them what concerned a job.
 *
 * Threads: pm_log may be called from any thread (one write(2) a line). pm_log_setup and pm_log_tee are called
 * once at start. Libraries do not log; daemons do. */
#ifndef PM_BASE_LOG_H
#define PM_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pm_log_level { PM_LOG_DEBUG, PM_LOG_INFO, PM_LOG_WARNING, PM_LOG_ERROR };

/* Name of the process as shown in its lines (borrowed: pass a literal) and the lowest level that is written.
 */
void pm_log_setup(const char *process, enum pm_log_level lowest);
/* Lines also go to `take`, for who keeps log files: whole, with their newline. NULL: no more. */
void pm_log_tee(void (*take)(void *context, const char *line, size_t bytes), void *context);
bool pm_log_is_on(enum pm_log_level level); /* before work that only a line needs */

/* "debug", "info", "warning", "error" (any case) -> level; negative when unknown. */
int pm_log_level_parse(const char *name);
const char *pm_log_level_name(enum pm_log_level level);

void pm_log(enum pm_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A value as it stands behind key=: as it is when it is one word, else in quotes with \" and \\; control
 * characters become '?'. Cut to fit; returns out. */
#define PM_LOG_VALUE 256
const char *pm_log_value(const char *text, char out[PM_LOG_VALUE]);

#define PM_LOG_TIME 25
/* "2026-01-05T10:22:31.482Z" of a time since 1970 (RFC 3339). */
void pm_log_time(int64_t wall_us, char out[PM_LOG_TIME]);

/* ---- reading lines again; pure ---- */
struct pm_log_line {
    char time[25];       /* "2026-01-05T10:22:31.482Z": sorts as text */
    int level;           /* enum pm_log_level */
    const char *process; /* points into the line: "worker-2" of process_bytes */
    size_t process_bytes;
    const char *message; /* the rest behind "process[pid] " */
};
/* Takes a line apart (NUL-terminated, no newline); false when it is not of this shape. */
bool pm_log_read(const char *line, struct pm_log_line *out);
/* Does it hold key=value, with exactly that value? */
bool pm_log_has(const char *line, const char *key, const char *value);

#endif
