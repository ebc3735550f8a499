/* Jobs and fleets for people and for programs: tables and JSON. Threads: reentrant. */
#ifndef PM_CLIENT_CLI_SHOW_H
#define PM_CLIENT_CLI_SHOW_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "client/include/pagemill.h"

json_t *pm_show_job_json(const struct pagemill_job *job);
json_t *pm_show_stats_json(const struct pagemill_stats *stats);
/* Prints a value and a newline, takes the reference. PM_EXIT_OK or PM_EXIT_FAILED. */
int pm_show_json(json_t *value);

void pm_show_jobs_header(FILE *out);
void pm_show_job_row(const struct pagemill_job *job, int64_t now_wall_us, int width, FILE *out);
void pm_show_job_details(const struct pagemill_job *job, FILE *out);
/* The screen of top. */
void pm_show_stats(const struct pagemill_stats *stats, double pages_per_s, double regions_per_s, int width,
                   FILE *out);

/* "532 ms", "12.3 s", "4:05", "3:02:11", "5 d". */
void pm_show_duration(int64_t us, char *text, size_t text_bytes);
/* "812 B", "3.4 MB". */
void pm_show_bytes(uint64_t bytes, char *text, size_t text_bytes);
/* Bytes from elsewhere, with control characters replaced. */
void pm_show_text(const char *text, FILE *out);

#endif
