/* The log files of a fleet: DIR/fleet.log, the newest lines, and DIR/fleet.log.1 to .KEEP-1, older ones.
 *
 * Every line of every process goes through the supervisor, which hands it over here; a file that is full is
 * renamed, and the oldest goes. So the logs are bounded, and one file holds all processes in order of
 * arrival. A line that is none of ours (a library's or sanitizer's words) gets time, level and process put in
 * front, so that what reads the files finds one shape only. A full disk costs lines and nothing else: they
 * are counted, and the next line that fits says how many.
 *
 * Threads: one owner. Ownership: pm_log_files_free. */
#ifndef PM_CLIENT_CLI_LOG_FILES_H
#define PM_CLIENT_CLI_LOG_FILES_H

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/error.h"

#define PM_LOG_FILES_DIR   "logs"
#define PM_LOG_FILES_NAME  "fleet.log"
#define PM_LOG_FILES_BYTES ((uint64_t)10 << 20)
#define PM_LOG_FILES_KEEP  5u

struct pm_log_files;
/* Makes dir (0700) when it is missing. file_bytes: when a file is full; keep: how many there are at most. */
int pm_log_files_open(const char *dir, uint64_t file_bytes, unsigned keep, struct pm_log_files **out,
                      struct pm_error *err);
void pm_log_files_free(struct pm_log_files **files);
/* A line of a process, with or without newline. */
void pm_log_files_put(struct pm_log_files *files, const char *process, pid_t pid, const char *line);
/* For pm_log_tee: context is a struct pm_log_files. */
void pm_log_files_take(void *context, const char *line, size_t bytes);

/* The path of a file, age 0 being the newest; caller frees. */
char *pm_log_files_path(const char *dir, unsigned age);

#endif
