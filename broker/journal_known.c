#include "broker/journal_known.h"

#include <stdio.h>
#include <string.h>

#include "broker/journal_internal.h"

/* known_pages and known_bytes in meta are kept by triggers: nobody ever adds up a million rows. */
const char pm_journal_known_schema[] =
    "CREATE TABLE known(fingerprint TEXT PRIMARY KEY, blob TEXT NOT NULL, blobs TEXT NOT NULL,"
    " regions INTEGER NOT NULL, bytes INTEGER NOT NULL, used_us INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX known_used ON known(used_us);"
    "CREATE TABLE model(reader TEXT PRIMARY KEY, identity TEXT NOT NULL) WITHOUT ROWID;"
    "INSERT INTO meta VALUES('known_bytes', 0), ('known_pages', 0);"
    "CREATE TRIGGER known_more AFTER INSERT ON known BEGIN"
    " UPDATE meta SET value = value + new.bytes WHERE key = 'known_bytes';"
    " UPDATE meta SET value = value + 1 WHERE key = 'known_pages'; END;"
    "CREATE TRIGGER known_less AFTER DELETE ON known BEGIN"
    " UPDATE meta SET value = value - old.bytes WHERE key = 'known_bytes';"
    " UPDATE meta SET value = value - 1 WHERE key = 'known_pages'; END;";

static sqlite3_stmt *with_fingerprint(struct pm_journal *j, enum sql which, const char *fingerprint,
                                      struct pm_error *err)
{
    sqlite3_stmt *st = pm_journal_sql(j, which, err);
    if (st)
        sqlite3_bind_text(st, 1, fingerprint, -1, SQLITE_STATIC);
    return st;
}

static uint32_t count_keys(const char *keys)
{
    uint32_t count = 0;
    for (; *keys; count++) {
        keys += strcspn(keys, " ");
        keys += *keys == ' ';
    }
    return count;
}

static void split_keys(struct pm_arena *arena, const char *keys, struct pm_known_page *out)
{
    out->blobs = pm_arena_alloc(arena, (count_keys(keys) + 1) * sizeof *out->blobs);
    while (*keys) {
        size_t size = strcspn(keys, " ");
        out->blobs[out->blob_count++] = pm_arena_text(arena, keys, size);
        keys += size + (keys[size] == ' ');
    }
}

int pm_journal_known(struct pm_journal *j, const char *fingerprint, struct pm_arena *arena,
                     struct pm_known_page *out, struct pm_error *err)
{
    *out = (struct pm_known_page){.blob = ""};
    sqlite3_stmt *st = with_fingerprint(j, SQL_KNOWN_READ, fingerprint, err);
    if (!st)
        return PM_EIO;
    int step = sqlite3_step(st), rc = 0;
    if (step == SQLITE_ROW) {
        const char *blob = pm_column_text(st, 0);
        out->blob = pm_arena_text(arena, blob, strlen(blob));
        split_keys(arena, pm_column_text(st, 1), out);
        out->regions = (uint32_t)sqlite3_column_int64(st, 2);
    } else if (step == SQLITE_DONE) {
        rc = pm_fail(err, PM_ENOTFOUND, "the page is not known (any more)");
    } else {
        rc = pm_journal_fail(j, "read a known page", err);
    }
    sqlite3_reset(st);
    return rc;
}

int pm_journal_known_put(struct pm_journal *j, const struct pm_op *op, const char *blobs,
                         struct pm_error *err)
{
    sqlite3_stmt *st = with_fingerprint(j, SQL_KNOWN_PUT, op->fingerprint, err);
    if (!st)
        return PM_EIO;
    sqlite3_bind_text(st, 2, op->blob, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 3, blobs, -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 4, (int64_t)op->bytes);
    sqlite3_bind_int64(st, 5, (int64_t)op->blob_bytes);
    sqlite3_bind_int64(st, 6, op->wall_us);
    return pm_journal_step(j, st, "write a known page", err);
}

int pm_journal_known_used(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    sqlite3_stmt *st = with_fingerprint(j, SQL_KNOWN_USED, op->fingerprint, err);
    if (!st)
        return PM_EIO;
    sqlite3_bind_int64(st, 2, op->wall_us);
    return pm_journal_step(j, st, "write a known page", err);
}

int pm_journal_known_drop(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    sqlite3_stmt *st = with_fingerprint(j, SQL_KNOWN_DROP, op->fingerprint, err);
    return st ? pm_journal_step(j, st, "write a known page", err) : PM_EIO;
}

int pm_journal_known_total(struct pm_journal *j, struct pm_known_total *out, struct pm_error *err)
{
    *out = (struct pm_known_total){0};
    sqlite3_stmt *st = pm_journal_sql(j, SQL_KNOWN_TOTAL, err);
    if (!st)
        return PM_EIO;
    int rc = 0;
    if (sqlite3_step(st) == SQLITE_ROW)
        *out = (struct pm_known_total){(uint64_t)sqlite3_column_int64(st, 0),
                                       (uint64_t)sqlite3_column_int64(st, 1)};
    else
        rc = pm_journal_fail(j, "count known pages", err);
    sqlite3_reset(st);
    return rc;
}

int pm_journal_known_oldest(struct pm_journal *j, struct pm_known_old *out, uint32_t most,
                            uint32_t *count_out, struct pm_error *err)
{
    *count_out = 0;
    sqlite3_stmt *st = pm_journal_sql(j, SQL_KNOWN_OLDEST, err);
    if (!st)
        return PM_EIO;
    sqlite3_bind_int64(st, 1, most);
    int step;
    while ((step = sqlite3_step(st)) == SQLITE_ROW && *count_out < most) {
        struct pm_known_old *k = &out[(*count_out)++];
        snprintf(k->fingerprint, sizeof k->fingerprint, "%s", pm_column_text(st, 0));
        k->bytes = (uint64_t)sqlite3_column_int64(st, 1);
        k->used_us = sqlite3_column_int64(st, 2);
    }
    int rc = step == SQLITE_DONE || step == SQLITE_ROW ? 0 : pm_journal_fail(j, "read known pages", err);
    sqlite3_reset(st);
    return rc;
}

int pm_journal_model_put(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    sqlite3_stmt *st = pm_journal_sql(j, SQL_MODEL_PUT, err);
    if (!st)
        return PM_EIO;
    sqlite3_bind_text(st, 1, op->client, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 2, op->text, -1, SQLITE_STATIC);
    return pm_journal_step(j, st, "write a known page", err);
}

int pm_journal_models(struct pm_journal *j,
                      void (*visit)(void *ctx, const char *reader, const char *identity), void *ctx,
                      struct pm_error *err)
{
    sqlite3_stmt *st = pm_journal_sql(j, SQL_READ_MODELS, err);
    if (!st)
        return PM_EIO;
    int step;
    while ((step = sqlite3_step(st)) == SQLITE_ROW)
        visit(ctx, pm_column_text(st, 0), pm_column_text(st, 1));
    int rc = step == SQLITE_DONE ? 0 : pm_journal_fail(j, "read which models there were", err);
    sqlite3_reset(st);
    return rc;
}
