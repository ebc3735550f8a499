/* One line a fact on stderr: `time level process[pid] message key=value ...`.
 *
 * Threads: pm_log may be called from any thread (one write(2) a line). pm_log_setup is called once at start.
 * Libraries do not log; daemons do. */
#ifndef PM_BASE_LOG_H
#define PM_BASE_LOG_H

enum pm_log_level { PM_LOG_DEBUG, PM_LOG_INFO, PM_LOG_WARNING, PM_LOG_ERROR };

/* Name of the process as shown in its lines (borrowed: pass a literal) and the lowest level that is written.
 */
void pm_log_setup(const char *process, enum pm_log_level lowest);

/* "debug", "info", "warning", "error" (any case) -> level; negative when unknown. */
int pm_log_level_parse(const char *name);

void pm_log(enum pm_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
