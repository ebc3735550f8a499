/* The log of attempts that failed: who had which task, and what came of it. Written in the transaction of its
 * consequence, bounded to the last PM_LIMIT_JOB_ATTEMPTS of a job, dropped with the job. */
#include <string.h>

#include "broker/journal_internal.h"

const char pm_journal_attempt_schema[] =
    "CREATE TABLE attempt(job INTEGER NOT NULL, seq INTEGER NOT NULL, task INTEGER NOT NULL,"
    " attempt INTEGER NOT NULL, cause TEXT NOT NULL, code TEXT NOT NULL, text TEXT NOT NULL,"
    " peer TEXT NOT NULL, version TEXT NOT NULL, wall_us INTEGER NOT NULL,"
    " PRIMARY KEY(job, seq)) WITHOUT ROWID;";

#define TEXT_BYTES 400 /* of a reason; the peer's log has all of it */

/* A text's first bytes, not in the middle of a UTF-8 character. */
static int cut(const char *text, size_t most)
{
    size_t size = strnlen(text, most + 1);
    if (size > most)
        for (size = most; size && ((unsigned char)text[size] & 0xc0) == 0x80;)
            size--;
    return (int)size;
}

int pm_journal_attempt_put(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    sqlite3_stmt *st = pm_journal_sql(j, SQL_ATTEMPT_PUT, err);
    if (!st)
        return PM_EIO;
    const char *const texts[] = {op->cause, op->code, op->text, op->peer, op->version};
    sqlite3_bind_int64(st, 1, (int64_t)op->job);
    sqlite3_bind_int64(st, 2, (int64_t)op->task);
    sqlite3_bind_int64(st, 3, op->attempt);
    for (int i = 0; i < 5; i++)
        sqlite3_bind_text(st, 4 + i, texts[i], cut(texts[i], TEXT_BYTES), SQLITE_STATIC);
    sqlite3_bind_int64(st, 9, op->wall_us);
    int rc = pm_journal_step(j, st, "write an attempt", err);
    st = rc ? NULL : pm_journal_sql(j, SQL_ATTEMPT_TRIM, err);
    if (!st)
        return rc ? rc : PM_EIO;
    sqlite3_bind_int64(st, 1, (int64_t)op->job);
    sqlite3_bind_int64(st, 2, PM_LIMIT_JOB_ATTEMPTS);
    return pm_journal_step(j, st, "write an attempt", err);
}

int pm_journal_attempt_blame(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    sqlite3_stmt *st = pm_journal_sql(j, SQL_ATTEMPT_BLAME, err);
    if (!st)
        return PM_EIO;
    sqlite3_bind_int64(st, 1, (int64_t)op->job);
    sqlite3_bind_int64(st, 2, (int64_t)op->task);
    sqlite3_bind_text(st, 3, op->cause, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 4, op->text, cut(op->text, TEXT_BYTES), SQLITE_STATIC);
    return pm_journal_step(j, st, "write an attempt", err);
}

static const char *keep(struct pm_arena *arena, sqlite3_stmt *st, int column)
{
    const char *text = pm_column_text(st, column);
    return pm_arena_text(arena, text, strlen(text));
}

int pm_journal_attempts(struct pm_journal *j, uint64_t job, struct pm_arena *arena,
                        struct pm_attempt **attempts_out, uint32_t *count_out, struct pm_error *err)
{
    sqlite3_stmt *st = pm_journal_sql(j, SQL_READ_ATTEMPTS, err);
    if (!st)
        return PM_EIO;
    sqlite3_bind_int64(st, 1, (int64_t)job);
    sqlite3_bind_int64(st, 2, PM_LIMIT_JOB_ATTEMPTS);
    struct pm_attempt *attempts = NULL;
    uint32_t count = 0;
    int step;
    while ((step = sqlite3_step(st)) == SQLITE_ROW && count < PM_LIMIT_JOB_ATTEMPTS) {
        if (!attempts) /* most jobs have none */
            attempts = pm_arena_alloc(arena, PM_LIMIT_JOB_ATTEMPTS * sizeof *attempts);
        uint64_t task = (uint64_t)sqlite3_column_int64(st, 0);
        enum pm_task_kind kind = pm_task_kind(task);
        attempts[count++] = (struct pm_attempt){.page = pm_task_page(task),
                                                .region = kind == PM_KIND_REGION ? pm_task_slot(task) + 1 : 0,
                                                .kind = kind,
                                                .attempt = (uint32_t)sqlite3_column_int64(st, 1),
                                                .cause = keep(arena, st, 2),
                                                .code = keep(arena, st, 3),
                                                .text = keep(arena, st, 4),
                                                .peer = keep(arena, st, 5),
                                                .version = keep(arena, st, 6),
                                                .wall_us = sqlite3_column_int64(st, 7)};
    }
    int rc = step == SQLITE_DONE || step == SQLITE_ROW ? 0 : pm_journal_fail(j, "read attempts", err);
    sqlite3_reset(st);
    *attempts_out = attempts;
    *count_out = count;
    return rc;
}
