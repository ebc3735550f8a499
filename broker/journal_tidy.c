/* Keeping the journal small, outside of the commits: checkpoints of the write-ahead log, free pages. */
#include "broker/journal_internal.h"

/* Frames of 4 KB. SQLite's own habit is to checkpoint inside the commit that reaches 1000: one commit in some
 * hundreds would take twenty times as long as the others. */
#define WAL_ENOUGH  1000 /* worth a checkpoint when nobody waits */
#define WAL_MOST    8000 /* not to be exceeded, even if somebody waits */
#define FREE_ENOUGH 256
#define FREE_SLICE  "256"

int pm_journal_on_commit(void *journal, sqlite3 *db, const char *name, int frames)
{
    struct pm_journal *j = journal;
    (void)db;
    (void)name;
    j->wal_frames = frames;
    return SQLITE_OK;
}

bool pm_journal_is_untidy(const struct pm_journal *j)
{
    return j->wal_frames >= WAL_ENOUGH + j->wal_refused;
}

int pm_journal_tidy(struct pm_journal *j, bool is_idle, struct pm_error *err)
{
    if (j->wal_frames < (is_idle ? WAL_ENOUGH : WAL_MOST) + j->wal_refused)
        return 0;
    int all = 0, moved = 0;
    int rc = sqlite3_wal_checkpoint_v2(j->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &all, &moved);
    if (rc == SQLITE_OK) {
        j->wal_frames = j->wal_refused = 0;
        return 0;
    }
    rc = pm_journal_fail(j, "move its log into place", err);
    if (rc != PM_ENOSPC)
        return rc;
    j->wal_refused = j->wal_frames; /* everything is in the log; again when that has grown */
    return 0;
}

int pm_journal_shrink(struct pm_journal *j, struct pm_error *err)
{
    int64_t unused = 0;
    int rc = pm_journal_number(j, "PRAGMA freelist_count", &unused, err);
    return rc || unused < FREE_ENOUGH ? rc
                                      : pm_journal_run(j, "PRAGMA incremental_vacuum(" FREE_SLICE ")", err);
}
