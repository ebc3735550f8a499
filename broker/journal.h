/* The journal: every accepted job and what became of its parts, in one SQLite file.
 *
 *   journal.db, PRAGMA user_version = 2, WAL, synchronous = FULL, one exclusive connection
 *
 *   meta    key, value                     "epoch": grows with every start, synced before anything is sent;
 *           "known_pages", "known_bytes": sums over known
 *   job     id, client, key, state, generation, is_open, document_pages, submit (a SUBMIT record), source,
 *           created_us, started_us, finished_us (wall clock), error_code, error_text, manifest, blobs,
 *           pages, pages_done, pages_failed, regions, regions_done, regions_failed, retries (finished jobs)
 *   page    job, page, width, height, generation, stage (enum pm_page_stage), record, sheet, sheet_bytes,
 *           costs (u32 little endian each), blob, blobs, regions, regions_failed, error_code, error_text,
 *           fails
 *   region  job, page, region, text (a pm_region_text record) or error_code, error_text, fails
 *   tries   task, fails, crashes, is_suspect       only of tasks that failed and will be tried again
 *   attempt job, seq, task, attempt, cause, code, text, peer, version, wall_us: attempts that failed
 *
 * A row of region exists once: a second result of the same region is a constraint error, not a surprise.
 * Rows of regions go when their page is done (failed ones stay, for people). Leases are not written: epoch
 * and attempt fence them. docs/journal.md tells the rest.
 *
 * All ops of a turn are one transaction; what they say may be told to others once pm_journal_apply returned
 * 0. Blob references: every key in record, sheet, blob, blobs and source counts once; changes are reported
 * after the commit. Ownership: the journal owns its connection; images point into the caller's arena.
 * Threads: one owner. Errors: PM_ENOSPC leaves everything as it was and may be tried again; after any other
 * error of apply the caller must end the process and start from the file. */
#ifndef PM_BROKER_JOURNAL_H
#define PM_BROKER_JOURNAL_H

#include "broker/actions.h"
#include "broker/scheduler.h"

struct pm_journal;
/* path ":memory:" keeps it in memory; vfs NULL: the system's. A file of a newer format is PM_EUNSUPPORTED. */
int pm_journal_open(const char *path, const char *vfs, struct pm_journal **out, struct pm_error *err);
void pm_journal_free(struct pm_journal **journal);
/* Begins a new epoch, synced. */
int pm_journal_begin_epoch(struct pm_journal *j, uint64_t *epoch_out, struct pm_error *err);
int pm_journal_next_job(struct pm_journal *j, uint64_t *job_out, struct pm_error *err);

typedef void (*pm_journal_ref_fn)(void *ctx, const char *key, int change);
void pm_journal_on_ref(struct pm_journal *j, pm_journal_ref_fn fn, void *ctx);
/* Every reference that the file holds now, each as +1. */
int pm_journal_refs(struct pm_journal *j, pm_journal_ref_fn fn, void *ctx, struct pm_error *err);
/* The same in two parts, for a start that reads the jobs anyway: all but the jobs' own, and those of one job
 * as pm_journal_load shows it. */
int pm_journal_refs_of_pages(struct pm_journal *j, pm_journal_ref_fn fn, void *ctx, struct pm_error *err);
void pm_journal_refs_of_job(struct pm_journal *j, const struct pm_job_image *image, pm_journal_ref_fn fn,
                            void *ctx);

int pm_journal_apply(struct pm_journal *j, const struct pm_op *ops, size_t count, struct pm_error *err);

/* Visits all jobs, finished ones in the order of their end (without pages). visit returns 0 to go on. */
int pm_journal_load(struct pm_journal *j,
                    int (*visit)(void *ctx, const struct pm_job_image *image, struct pm_error *err),
                    void *ctx, struct pm_error *err);
/* One job without its pages. PM_ENOTFOUND. */
int pm_journal_job_row(struct pm_journal *j, uint64_t job, struct pm_arena *arena, struct pm_job_image *out,
                       struct pm_error *err);
/* One job with its pages, whatever its state. PM_ENOTFOUND. */
int pm_journal_job(struct pm_journal *j, uint64_t job, struct pm_arena *arena, struct pm_job_image *out,
                   struct pm_error *err);

struct pm_region_row {
    uint32_t region;
    struct pm_bytes text;                /* an encoded pm_region_text; empty when failed */
    const char *error_code, *error_text; /* "" when read */
};
int pm_journal_regions(struct pm_journal *j, uint64_t job, uint32_t page, struct pm_arena *arena,
                       struct pm_region_row **rows_out, size_t *count_out, struct pm_error *err);
/* Failed pages and regions, in order, at most limit. */
int pm_journal_errors(struct pm_journal *j, uint64_t job, uint32_t limit, struct pm_arena *arena,
                      struct pm_page_error **errors_out, uint32_t *count_out, struct pm_error *err);
/* Attempts that failed, oldest first: the last PM_LIMIT_JOB_ATTEMPTS of them. */
int pm_journal_attempts(struct pm_journal *j, uint64_t job, struct pm_arena *arena,
                        struct pm_attempt **attempts_out, uint32_t *count_out, struct pm_error *err);
/* Empty when the job has none. */
int pm_journal_manifest(struct pm_journal *j, uint64_t job, struct pm_arena *arena, struct pm_bytes *out,
                        struct pm_error *err);
/* Moves what the commits wrote from the log into the file, when nobody waits or the log has become long. */
bool pm_journal_is_untidy(const struct pm_journal *j);
int pm_journal_tidy(struct pm_journal *j, bool is_idle, struct pm_error *err);
/* Gives free pages back to the file system, a few at a time; when nobody waits. */
int pm_journal_shrink(struct pm_journal *j, struct pm_error *err);

#endif
