/* Jobs and fleets for people and for programs: tables and JSON. Threads: reentrant. */
#ifndef PM_CLIENT_CLI_SHOW_H
#define PM_CLIENT_CLI_SHOW_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "client/include/pagemill.h"

/* ---- show_json.c ---- */
json_t *pm_show_job_json(const struct pagemill_job *job);
/* What a result is and when it was made: everything but the texts. */
json_t *pm_show_result_json(uint64_t job, const struct pagemill_result *result);
json_t *pm_show_stats_json(const struct pagemill_stats *stats);
/* Prints a value and a newline, takes the reference. PM_EXIT_OK or PM_EXIT_FAILED. */
int pm_show_json(json_t *value);

/* ---- show_jobs.c ---- */
void pm_show_jobs_header(FILE *out);
void pm_show_job_row(const struct pagemill_job *job, int64_t now_wall_us, int width, bool is_colored,
                     FILE *out);
void pm_show_job_details(const struct pagemill_job *job, int64_t now_wall_us, bool is_colored, FILE *out);
/* How much of a job is done, 0 to 1. */
double pm_show_job_part(const struct pagemill_job *job);
/* Time until its end: the fleet's word, else at the pace so far; 0: nobody can say. */
uint64_t pm_show_job_left_us(const struct pagemill_job *job, int64_t now_wall_us);

/* ---- show.c ---- */
/* "0.4 ms", "532 ms", "12.3 s", "4:05", "3:02:11", "5 d". */
void pm_show_duration(int64_t us, char *text, size_t text_bytes);
/* "812 B", "3.4 MB". */
void pm_show_bytes(uint64_t bytes, char *text, size_t text_bytes);
/* "812", "3.4k", "12M": at most five characters. */
void pm_show_count(uint64_t count, char *text, size_t text_bytes);
/* "1.25/s", "340/s", "" for none: at most eight characters. */
void pm_show_rate(double per_s, char *text, size_t text_bytes);
/* "[####....]" of width columns. */
void pm_show_bar(double part, int width, char *text, size_t text_bytes);
/* Bytes from elsewhere, with control characters replaced. */
void pm_show_text(const char *text, FILE *out);
/* Columns that a text takes on a terminal: East Asian wide characters take two, combining ones none. */
int pm_show_columns(const char *text);
/* How many bytes of it fit into so many columns. */
size_t pm_show_fit(const char *text, int columns);

#endif
