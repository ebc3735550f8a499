/* Shared by journal.c (writing), journal_attempts.c and journal_read.c (reading): the connection and its
 * prepared statements. */
#ifndef PM_BROKER_JOURNAL_INTERNAL_H
#define PM_BROKER_JOURNAL_INTERNAL_H

#include <sqlite3.h>

#include "base/mem.h"
#include "broker/journal.h"
#include "proto/blob.h"

enum sql {
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_ROLLBACK,
    SQL_EPOCH_NEXT,
    SQL_EPOCH,
    SQL_SEQUENCE,
    SQL_JOB_PUT,
    SQL_JOB_RUN,
    SQL_JOB_OPEN,
    SQL_JOB_FINISH,
    SQL_JOB_UNLAY,
    SQL_JOB_UNREAD,
    SQL_JOB_RETRY,
    SQL_JOB_DROP,
    SQL_JOB_DROP_PAGES,
    SQL_JOB_DROP_REGIONS,
    SQL_PAGE_PUT,
    SQL_PAGE_LAID,
    SQL_PAGE_RESET,
    SQL_PAGE_DONE,
    SQL_PAGE_FAIL,
    SQL_PAGE_DROP_REGIONS,
    SQL_PAGE_DROP_READ,
    SQL_REGION_DONE,
    SQL_REGION_FAIL,
    SQL_TRIES_PUT,
    SQL_TRIES_DROP,
    SQL_ATTEMPT_PUT,
    SQL_ATTEMPT_TRIM,
    SQL_ATTEMPT_BLAME,
    SQL_ATTEMPT_DROP,
    SQL_READ_ATTEMPTS,
    SQL_KNOWN_READ,
    SQL_KNOWN_PUT,
    SQL_KNOWN_USED,
    SQL_KNOWN_DROP,
    SQL_KNOWN_TOTAL,
    SQL_KNOWN_OLDEST,
    SQL_MODEL_PUT,
    SQL_READ_MODELS,
    SQL_KEYS_KNOWN,
    SQL_KEYS_ALL_KNOWN,
    SQL_KEYS_JOB,
    SQL_KEYS_PAGE,
    SQL_KEYS_PAGES,
    SQL_KEYS_ALL_JOBS,
    SQL_KEYS_ALL_PAGES,
    SQL_READ_LIVE,
    SQL_READ_ENDS,
    SQL_READ_JOB,
    SQL_READ_PAGES,
    SQL_READ_REGIONS,
    SQL_READ_TRIES,
    SQL_READ_PAGE_ERRORS,
    SQL_READ_REGION_ERRORS,
    SQL_READ_MANIFEST,
    SQL_COUNT
};

struct ref_change {
    char key[PM_BLOB_KEY_SIZE];
    int change;
};

struct pm_journal {
    sqlite3 *db;
    char *path;
    sqlite3_stmt *statements[SQL_COUNT];
    pm_journal_ref_fn on_ref;
    void *on_ref_ctx;
    struct ref_change *changes; /* of the open transaction */
    size_t change_count, change_capacity;
    struct pm_buf scratch;
    struct pm_arena arena;
    int wal_frames, wal_refused; /* journal_tidy.c */
};

/* A reset statement with no bindings; NULL on error. */
sqlite3_stmt *pm_journal_sql(struct pm_journal *j, enum sql which, struct pm_error *err);
int pm_journal_fail(struct pm_journal *j, const char *doing, struct pm_error *err);
/* Carries out a filled-in statement that returns no rows of interest, and resets it. */
int pm_journal_step(struct pm_journal *j, sqlite3_stmt *st, const char *doing, struct pm_error *err);
const char *pm_column_text(sqlite3_stmt *st, int column); /* never NULL; until the next step */

/* journal.c */
int pm_journal_run(struct pm_journal *j, const char *text, struct pm_error *err);
int pm_journal_number(struct pm_journal *j, const char *text, int64_t *out, struct pm_error *err);
/* journal_tidy.c: told how long the write-ahead log is */
int pm_journal_on_commit(void *journal, sqlite3 *db, const char *name, int frames);
/* journal_attempts.c */
extern const char pm_journal_attempt_schema[];
int pm_journal_attempt_put(struct pm_journal *j, const struct pm_op *op, struct pm_error *err);
int pm_journal_attempt_blame(struct pm_journal *j, const struct pm_op *op, struct pm_error *err);

/* journal_known.c */
extern const char pm_journal_known_schema[];
int pm_journal_known_put(struct pm_journal *j, const struct pm_op *op, const char *blobs,
                         struct pm_error *err);
int pm_journal_known_used(struct pm_journal *j, const struct pm_op *op, struct pm_error *err);
int pm_journal_known_drop(struct pm_journal *j, const struct pm_op *op, struct pm_error *err);
int pm_journal_model_put(struct pm_journal *j, const struct pm_op *op, struct pm_error *err);

#endif
