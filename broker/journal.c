/* Writing: one transaction a turn. */
#include "broker/journal.h"

#include <stdlib.h>
#include <string.h>

#include "broker/journal_internal.h"
#include "proto/page.h"

#define JOURNAL_VERSION 2

static const char schema[] =
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE job(id INTEGER PRIMARY KEY AUTOINCREMENT, client TEXT NOT NULL, key TEXT NOT NULL,"
    " state INTEGER NOT NULL, generation INTEGER NOT NULL DEFAULT 0, is_open INTEGER NOT NULL DEFAULT 0,"
    " document_pages INTEGER NOT NULL DEFAULT 0, submit BLOB NOT NULL, source TEXT NOT NULL,"
    " created_us INTEGER NOT NULL, started_us INTEGER NOT NULL DEFAULT 0,"
    " finished_us INTEGER NOT NULL DEFAULT 0, error_code TEXT NOT NULL DEFAULT '',"
    " error_text TEXT NOT NULL DEFAULT '', manifest BLOB, blobs TEXT NOT NULL DEFAULT '',"
    " pages INTEGER NOT NULL DEFAULT 0, pages_done INTEGER NOT NULL DEFAULT 0,"
    " pages_failed INTEGER NOT NULL DEFAULT 0, regions INTEGER NOT NULL DEFAULT 0,"
    " regions_done INTEGER NOT NULL DEFAULT 0, regions_failed INTEGER NOT NULL DEFAULT 0,"
    " retries INTEGER NOT NULL DEFAULT 0);"
    "CREATE UNIQUE INDEX job_key ON job(client, key) WHERE key <> '';"
    "CREATE TABLE page(job INTEGER NOT NULL, page INTEGER NOT NULL, width INTEGER NOT NULL,"
    " height INTEGER NOT NULL, generation INTEGER NOT NULL DEFAULT 0, stage INTEGER NOT NULL DEFAULT 1,"
    " record TEXT NOT NULL DEFAULT '', sheet TEXT NOT NULL DEFAULT '', sheet_bytes INTEGER NOT NULL DEFAULT "
    "0,"
    " costs BLOB, blob TEXT NOT NULL DEFAULT '', blobs TEXT NOT NULL DEFAULT '',"
    " regions INTEGER NOT NULL DEFAULT 0, regions_failed INTEGER NOT NULL DEFAULT 0,"
    " error_code TEXT NOT NULL DEFAULT '', error_text TEXT NOT NULL DEFAULT '',"
    " fails INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(job, page)) WITHOUT ROWID;"
    "CREATE TABLE region(job INTEGER NOT NULL, page INTEGER NOT NULL, region INTEGER NOT NULL, text BLOB,"
    " error_code TEXT NOT NULL DEFAULT '', error_text TEXT NOT NULL DEFAULT '',"
    " fails INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(job, page, region)) WITHOUT ROWID;"
    "CREATE TABLE tries(task INTEGER PRIMARY KEY, fails INTEGER NOT NULL, crashes INTEGER NOT NULL,"
    " is_suspect INTEGER NOT NULL);"
    "INSERT INTO meta VALUES('epoch', 0);";

#define JOB_COLUMNS                                                                                          \
    "id, client, state, generation, is_open, submit, created_us, started_us, finished_us, error_code,"       \
    " error_text, pages, pages_done, pages_failed, regions, regions_done, regions_failed, retries, key,"     \
    " blobs"

static const char *const sql_text[SQL_COUNT] = {
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_COMMIT] = "COMMIT",
    [SQL_ROLLBACK] = "ROLLBACK",
    [SQL_EPOCH_NEXT] = "UPDATE meta SET value = value + 1 WHERE key = 'epoch'",
    [SQL_EPOCH] = "SELECT value FROM meta WHERE key = 'epoch'",
    [SQL_SEQUENCE] = "SELECT seq FROM sqlite_sequence WHERE name = 'job'",
    [SQL_JOB_PUT] = "INSERT INTO job(id, client, key, state, submit, source, created_us)"
                    " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [SQL_JOB_RUN] = "UPDATE job SET state = 2, started_us = ?2 WHERE id = ?1",
    [SQL_JOB_OPEN] = "UPDATE job SET is_open = 1, document_pages = ?2 WHERE id = ?1",
    [SQL_JOB_FINISH] = "UPDATE job SET state = ?2, error_code = ?3, error_text = ?4, finished_us = ?5,"
                       " manifest = ?6, blobs = ?7, pages = ?8, pages_done = ?9, pages_failed = ?10,"
                       " regions = ?11, regions_done = ?12, regions_failed = ?13, retries = ?14,"
                       " key = CASE WHEN ?15 THEN '' ELSE key END WHERE id = ?1",
    [SQL_JOB_UNREAD] = "DELETE FROM region WHERE job = ?1 AND page IN"
                       " (SELECT page FROM page WHERE job = ?1 AND stage = 2)",
    [SQL_JOB_UNLAY] = "UPDATE page SET stage = 1, record = '', sheet = '', sheet_bytes = 0, costs = NULL"
                      " WHERE job = ?1 AND stage = 2",
    [SQL_JOB_RETRY] = "UPDATE job SET state = 1, generation = ?2, finished_us = 0, error_code = '',"
                      " error_text = '', manifest = NULL, blobs = '' WHERE id = ?1",
    [SQL_JOB_DROP] = "DELETE FROM job WHERE id = ?1",
    [SQL_JOB_DROP_PAGES] = "DELETE FROM page WHERE job = ?1",
    [SQL_JOB_DROP_REGIONS] = "DELETE FROM region WHERE job = ?1",
    [SQL_PAGE_PUT] = "INSERT INTO page(job, page, width, height) VALUES(?1, ?2, ?3, ?4)",
    [SQL_PAGE_LAID] = "UPDATE page SET stage = 2, record = ?3, sheet = ?4, sheet_bytes = ?5, costs = ?6"
                      " WHERE job = ?1 AND page = ?2",
    [SQL_PAGE_RESET] = "UPDATE page SET stage = 1, generation = ?3, record = '', sheet = '', sheet_bytes = 0,"
                       " costs = NULL, blob = '', blobs = '', regions = 0, regions_failed = 0,"
                       " error_code = '', error_text = '', fails = 0 WHERE job = ?1 AND page = ?2",
    [SQL_PAGE_DONE] =
        "UPDATE page SET stage = 3, record = '', sheet = '', sheet_bytes = 0, costs = NULL,"
        " blob = ?3, blobs = ?4, regions = ?5, regions_failed = ?6 WHERE job = ?1 AND page = ?2",
    [SQL_PAGE_FAIL] = "UPDATE page SET stage = 4, record = '', sheet = '', sheet_bytes = 0, costs = NULL,"
                      " blob = '', blobs = '', regions = 0, regions_failed = 0, error_code = ?3,"
                      " error_text = ?4, fails = ?5 WHERE job = ?1 AND page = ?2",
    [SQL_PAGE_DROP_REGIONS] = "DELETE FROM region WHERE job = ?1 AND page = ?2",
    [SQL_PAGE_DROP_READ] = "DELETE FROM region WHERE job = ?1 AND page = ?2 AND error_code = ''",
    [SQL_REGION_DONE] = "INSERT INTO region(job, page, region, text) VALUES(?1, ?2, ?3, ?4)",
    [SQL_REGION_FAIL] = "INSERT INTO region(job, page, region, error_code, error_text, fails)"
                        " VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
    [SQL_TRIES_PUT] = "INSERT OR REPLACE INTO tries VALUES(?1, ?2, ?3, ?4)",
    [SQL_TRIES_DROP] = "DELETE FROM tries WHERE task BETWEEN ?1 AND ?2",
    [SQL_ATTEMPT_PUT] = "INSERT INTO attempt SELECT ?1, 1 + coalesce(max(seq), 0), ?2, ?3, ?4, ?5, ?6, ?7,"
                        " ?8, ?9 FROM attempt WHERE job = ?1",
    [SQL_ATTEMPT_TRIM] = "DELETE FROM attempt WHERE job = ?1 AND seq <="
                         " (SELECT max(seq) FROM attempt WHERE job = ?1) - ?2",
    [SQL_ATTEMPT_BLAME] =
        "UPDATE attempt SET cause = ?3, text = ?4 WHERE job = ?1 AND seq = (SELECT max(seq) FROM attempt"
        " WHERE job = ?1 AND task = ?2 AND cause = 'killed')",
    [SQL_ATTEMPT_DROP] = "DELETE FROM attempt WHERE job = ?1",
    [SQL_READ_ATTEMPTS] = "SELECT task, attempt, cause, code, text, peer, version, wall_us FROM attempt"
                          " WHERE job = ?1 ORDER BY seq LIMIT ?2",
    [SQL_KNOWN_READ] = "SELECT blob, blobs, regions FROM known WHERE fingerprint = ?1",
    /* Two equal pages that were read at the same time: the first one stands. */
    [SQL_KNOWN_PUT] = "INSERT INTO known VALUES(?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT(fingerprint)"
                      " DO UPDATE SET used_us = excluded.used_us",
    [SQL_KNOWN_USED] = "UPDATE known SET used_us = ?2 WHERE fingerprint = ?1",
    [SQL_KNOWN_DROP] = "DELETE FROM known WHERE fingerprint = ?1",
    [SQL_KNOWN_TOTAL] = "SELECT (SELECT value FROM meta WHERE key = 'known_pages'),"
                        " (SELECT value FROM meta WHERE key = 'known_bytes')",
    [SQL_KNOWN_OLDEST] = "SELECT fingerprint, bytes, used_us FROM known ORDER BY used_us LIMIT ?1",
    [SQL_MODEL_PUT] = "INSERT OR REPLACE INTO model VALUES(?1, ?2)",
    [SQL_READ_MODELS] = "SELECT reader, identity FROM model",
    [SQL_KEYS_KNOWN] = "SELECT blob, blobs FROM known WHERE fingerprint = ?1",
    [SQL_KEYS_ALL_KNOWN] = "SELECT blob, blobs FROM known",
    [SQL_KEYS_JOB] = "SELECT source, blobs FROM job WHERE id = ?1",
    [SQL_KEYS_PAGE] = "SELECT record, sheet, blob, blobs FROM page WHERE job = ?1 AND page = ?2",
    [SQL_KEYS_PAGES] = "SELECT record, sheet, blob, blobs FROM page WHERE job = ?1",
    [SQL_KEYS_ALL_JOBS] = "SELECT source, blobs FROM job",
    [SQL_KEYS_ALL_PAGES] = "SELECT record, sheet, blob, blobs FROM page",
    [SQL_READ_LIVE] = "SELECT " JOB_COLUMNS " FROM job WHERE state <= 2 ORDER BY id",
    [SQL_READ_ENDS] = "SELECT id FROM job WHERE state > 2 ORDER BY finished_us, id",
    [SQL_READ_JOB] = "SELECT " JOB_COLUMNS " FROM job WHERE id = ?1",
    [SQL_READ_PAGES] =
        "SELECT page, width, height, generation, stage, record, sheet, sheet_bytes, costs, blob,"
        " regions, regions_failed, error_code, error_text FROM page WHERE job = ?1"
        " ORDER BY page",
    [SQL_READ_REGIONS] =
        "SELECT region, text, error_code, error_text FROM region WHERE job = ?1 AND page = ?2"
        " ORDER BY region",
    [SQL_READ_TRIES] = "SELECT task, fails, crashes, is_suspect FROM tries ORDER BY task",
    [SQL_READ_PAGE_ERRORS] =
        "SELECT page, error_code, error_text, fails FROM page WHERE job = ?1 AND stage = 4"
        " ORDER BY page LIMIT ?2",
    [SQL_READ_REGION_ERRORS] = "SELECT page, region, error_code, error_text, fails FROM region WHERE job = ?1"
                               " AND error_code <> '' ORDER BY page, region LIMIT ?2",
    [SQL_READ_MANIFEST] = "SELECT manifest FROM job WHERE id = ?1",
};

int pm_journal_fail(struct pm_journal *j, const char *doing, struct pm_error *err)
{
    int code = sqlite3_errcode(j->db) & 0xff;
    int extended = sqlite3_extended_errcode(j->db);
    int ours = code == SQLITE_FULL                                  ? PM_ENOSPC
               : code == SQLITE_NOMEM                               ? PM_ENOMEM
               : code == SQLITE_CORRUPT || code == SQLITE_NOTADB    ? PM_EFORMAT
               : code == SQLITE_CONSTRAINT                          ? PM_EINTERNAL
               : code == SQLITE_BUSY                                ? PM_EBUSY
               : code == SQLITE_CANTOPEN || code == SQLITE_READONLY ? PM_EDENIED
                                                                    : PM_EIO;
    return pm_fail(err, ours, "journal %s: cannot %s: %s (SQLite %d)", j->path, doing, sqlite3_errmsg(j->db),
                   extended);
}

sqlite3_stmt *pm_journal_sql(struct pm_journal *j, enum sql which, struct pm_error *err)
{
    sqlite3_stmt **st = &j->statements[which];
    if (!*st &&
        sqlite3_prepare_v3(j->db, sql_text[which], -1, SQLITE_PREPARE_PERSISTENT, st, NULL) != SQLITE_OK) {
        pm_journal_fail(j, sql_text[which], err);
        return NULL;
    }
    sqlite3_reset(*st);
    sqlite3_clear_bindings(*st);
    return *st;
}

int pm_journal_step(struct pm_journal *j, sqlite3_stmt *st, const char *doing, struct pm_error *err)
{
    int step = sqlite3_step(st);
    int rc = step == SQLITE_DONE || step == SQLITE_ROW ? 0 : pm_journal_fail(j, doing, err);
    sqlite3_reset(st);
    return rc;
}

const char *pm_column_text(sqlite3_stmt *st, int column)
{
    const char *text = (const char *)sqlite3_column_text(st, column);
    return text ? text : "";
}

/* ---- opening ---- */

int pm_journal_run(struct pm_journal *j, const char *text, struct pm_error *err)
{
    if (sqlite3_exec(j->db, text, NULL, NULL, NULL) != SQLITE_OK)
        return pm_journal_fail(j, text, err);
    return 0;
}

int pm_journal_number(struct pm_journal *j, const char *text, int64_t *out, struct pm_error *err)
{
    sqlite3_stmt *st = NULL;
    int rc = 0;
    if (sqlite3_prepare_v2(j->db, text, -1, &st, NULL) != SQLITE_OK || sqlite3_step(st) != SQLITE_ROW)
        rc = pm_journal_fail(j, text, err);
    else
        *out = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    return rc;
}

/* What each format added. Every file takes the same way from the first one to the present. */
static const struct {
    int version;
    const char *sql;
} steps[] = {{1, schema}, {2, pm_journal_attempt_schema}, {2, pm_journal_known_schema}};

/* From an older format (0: a new file), in one transaction. */
static int upgrade(struct pm_journal *j, int64_t from, struct pm_error *err)
{
    struct pm_buf text = {0};
    pm_buf_text(&text, "BEGIN IMMEDIATE;");
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
        if (steps[i].version > from)
            pm_buf_text(&text, steps[i].sql);
    pm_buf_printf(&text, "PRAGMA user_version=%d; COMMIT", JOURNAL_VERSION);
    int rc = pm_journal_run(j, (const char *)text.data, err);
    pm_buf_free(&text);
    return rc;
}

static int set_up(struct pm_journal *j, struct pm_error *err)
{
    int64_t version = 0;
    int rc = pm_journal_run(j, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA auto_vacuum=INCREMENTAL", err);
    if (!rc)
        rc = pm_journal_number(j, "PRAGMA user_version", &version, err);
    if (!rc && version > JOURNAL_VERSION)
        rc = pm_fail(
            err, PM_EUNSUPPORTED,
            "journal %s has format %lld, this program knows up to %d: use the newer program, or another "
            "state directory",
            j->path, (long long)version, JOURNAL_VERSION);
    if (!rc)
        rc = pm_journal_run(
            j,
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; "
            "PRAGMA journal_size_limit=16777216; PRAGMA temp_store=MEMORY; PRAGMA cell_size_check=ON",
            err);
    return rc || version == JOURNAL_VERSION ? rc : upgrade(j, version, err);
}

int pm_journal_open(const char *path, const char *vfs, struct pm_journal **out, struct pm_error *err)
{
    struct pm_journal *j = pm_xalloc(sizeof *j);
    j->path = pm_xstrdup(path);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    int rc = sqlite3_open_v2(path, &j->db, flags, vfs) == SQLITE_OK ? 0 : pm_journal_fail(j, "open it", err);
    if (!rc) {
        sqlite3_extended_result_codes(j->db, 1);
        sqlite3_wal_hook(j->db, pm_journal_on_commit, j); /* and no checkpoints in commits */
        rc = set_up(j, err);
    }
    if (rc) {
        pm_journal_free(&j);
        return rc;
    }
    *out = j;
    return 0;
}

void pm_journal_free(struct pm_journal **journal)
{
    struct pm_journal *j = *journal;
    if (!j)
        return;
    for (int i = 0; i < SQL_COUNT; i++)
        sqlite3_finalize(j->statements[i]);
    sqlite3_close(j->db);
    free(j->path);
    free(j->changes);
    pm_buf_free(&j->scratch);
    pm_arena_free(&j->arena);
    free(j);
    *journal = NULL;
}

void pm_journal_on_ref(struct pm_journal *j, pm_journal_ref_fn fn, void *ctx)
{
    j->on_ref = fn;
    j->on_ref_ctx = ctx;
}

/* ---- binding and stepping ---- */

/* A statement being filled in; the first failure sticks. */
struct fill {
    struct pm_journal *j;
    sqlite3_stmt *st;
    struct pm_error *err;
    enum sql which;
};

static struct fill begin(struct pm_journal *j, enum sql which, struct pm_error *err)
{
    return (struct fill){j, pm_journal_sql(j, which, err), err, which};
}
static void num(struct fill *f, int at, int64_t value)
{
    if (f->st)
        sqlite3_bind_int64(f->st, at, value);
}
static void text(struct fill *f, int at, const char *value)
{
    if (f->st)
        sqlite3_bind_text(f->st, at, value ? value : "", -1, SQLITE_STATIC);
}
static void blob(struct fill *f, int at, const void *data, size_t bytes)
{
    if (f->st)
        sqlite3_bind_blob64(f->st, at, bytes ? data : "", bytes, SQLITE_STATIC);
}
static int done(struct fill *f)
{
    if (!f->st)
        return f->err ? f->err->code : PM_EIO;
    return pm_journal_step(f->j, f->st, sql_text[f->which], f->err);
}

static int simple(struct pm_journal *j, enum sql which, uint64_t job, uint32_t page, struct pm_error *err)
{
    struct fill f = begin(j, which, err);
    num(&f, 1, (int64_t)job);
    if (f.st && sqlite3_bind_parameter_count(f.st) > 1)
        num(&f, 2, page);
    return done(&f);
}

/* ---- references to blobs ---- */

static void change_ref(struct pm_journal *j, const char *key, size_t bytes, int change)
{
    if (!bytes || bytes >= PM_BLOB_KEY_SIZE)
        return;
    PM_GROW(j->changes, j->change_count, j->change_capacity);
    struct ref_change *c = &j->changes[j->change_count++];
    memcpy(c->key, key, bytes);
    c->key[bytes] = 0;
    c->change = change;
}

/* Columns hold one key or several, separated by blanks. */
static void change_refs_in(struct pm_journal *j, const char *keys, int change)
{
    while (*keys) {
        size_t size = strcspn(keys, " ");
        change_ref(j, keys, size, change);
        keys += size + (keys[size] == ' ');
    }
}

static int count_rows(struct pm_journal *j, sqlite3_stmt *st, int change, struct pm_error *err)
{
    int rc;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW)
        for (int i = 0; i < sqlite3_column_count(st); i++)
            change_refs_in(j, pm_column_text(st, i), change);
    int ours = rc == SQLITE_DONE ? 0 : pm_journal_fail(j, "read references", err);
    sqlite3_reset(st);
    return ours;
}

static int count_refs(struct pm_journal *j, enum sql which, uint64_t job, uint32_t page, int change,
                      struct pm_error *err)
{
    sqlite3_stmt *st = pm_journal_sql(j, which, err);
    if (!st)
        return PM_EIO;
    int parameters = sqlite3_bind_parameter_count(st);
    if (parameters > 0)
        sqlite3_bind_int64(st, 1, (int64_t)job);
    if (parameters > 1)
        sqlite3_bind_int64(st, 2, page);
    return count_rows(j, st, change, err);
}

static int count_known_refs(struct pm_journal *j, const char *fingerprint, int change, struct pm_error *err)
{
    sqlite3_stmt *st = pm_journal_sql(j, SQL_KEYS_KNOWN, err);
    if (!st)
        return PM_EIO;
    sqlite3_bind_text(st, 1, fingerprint, -1, SQLITE_STATIC);
    return count_rows(j, st, change, err);
}

static void report_refs(struct pm_journal *j, pm_journal_ref_fn fn, void *ctx)
{
    /* Additions first: a key that moves from one column to another never touches zero. */
    for (int sign = 1; sign >= -1; sign -= 2)
        for (size_t i = 0; i < j->change_count; i++)
            if (fn && j->changes[i].change == sign)
                fn(ctx, j->changes[i].key, sign);
    j->change_count = 0;
}

/* Each key of every row, one after the other: there may be millions. */
static int tell_refs(struct pm_journal *j, enum sql which, pm_journal_ref_fn fn, void *ctx,
                     struct pm_error *err)
{
    sqlite3_stmt *st = pm_journal_sql(j, which, err);
    if (!st)
        return PM_EIO;
    int rc;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        for (int i = 0; i < sqlite3_column_count(st); i++)
            change_refs_in(j, pm_column_text(st, i), 1);
        report_refs(j, fn, ctx);
    }
    int ours = rc == SQLITE_DONE ? 0 : pm_journal_fail(j, "read references", err);
    sqlite3_reset(st);
    return ours;
}

int pm_journal_refs_of_pages(struct pm_journal *j, pm_journal_ref_fn fn, void *ctx, struct pm_error *err)
{
    j->change_count = 0;
    int rc = tell_refs(j, SQL_KEYS_ALL_PAGES, fn, ctx, err);
    return rc ? rc : tell_refs(j, SQL_KEYS_ALL_KNOWN, fn, ctx, err);
}

void pm_journal_refs_of_job(struct pm_journal *j, const struct pm_job_image *image, pm_journal_ref_fn fn,
                            void *ctx)
{
    j->change_count = 0;
    change_refs_in(j, image->submit.source, 1);
    change_refs_in(j, image->blobs, 1);
    report_refs(j, fn, ctx);
}

int pm_journal_refs(struct pm_journal *j, pm_journal_ref_fn fn, void *ctx, struct pm_error *err)
{
    j->change_count = 0;
    int rc = tell_refs(j, SQL_KEYS_ALL_JOBS, fn, ctx, err);
    return rc ? rc : pm_journal_refs_of_pages(j, fn, ctx, err);
}

/* ---- ops ---- */

static char *join_keys(struct pm_journal *j, const char *const *keys, uint32_t count,
                       const struct pm_manifest *m)
{
    struct pm_buf b = {0};
    for (uint32_t i = 0; i < count; i++)
        if (pm_blob_is_key(keys[i]))
            pm_buf_printf(&b, "%s%s", b.size ? " " : "", keys[i]);
    for (uint32_t i = 0; m && i < m->file_count; i++)
        if (pm_blob_is_key(m->files[i].blob))
            pm_buf_printf(&b, "%s%s", b.size ? " " : "", m->files[i].blob);
    char *all = pm_arena_text(&j->arena, b.data ? (const char *)b.data : "", b.size);
    pm_buf_free(&b);
    return all;
}

static int job_put(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    pm_buf_clear(&j->scratch);
    pm_record_encode(pm_msg_schema(PM_MSG_SUBMIT), op->submit, &j->scratch);
    struct fill f = begin(j, SQL_JOB_PUT, err);
    num(&f, 1, (int64_t)op->job);
    text(&f, 2, op->client);
    text(&f, 3, op->submit->key);
    num(&f, 4, PM_JOB_QUEUED);
    blob(&f, 5, j->scratch.data, j->scratch.size);
    text(&f, 6, op->submit->source);
    num(&f, 7, op->wall_us);
    return done(&f);
}

static int job_open(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    struct fill f = begin(j, SQL_JOB_OPEN, err);
    num(&f, 1, (int64_t)op->job);
    num(&f, 2, op->document_pages);
    int rc = done(&f);
    for (uint32_t i = 0; i < op->page_count && !rc; i++) {
        f = begin(j, SQL_PAGE_PUT, err);
        num(&f, 1, (int64_t)op->job);
        num(&f, 2, op->pages[i].page);
        num(&f, 3, op->pages[i].width);
        num(&f, 4, op->pages[i].height);
        rc = done(&f);
    }
    return rc;
}

static int drop_tries(struct pm_journal *j, uint64_t first, uint64_t last, struct pm_error *err)
{
    struct fill f = begin(j, SQL_TRIES_DROP, err);
    num(&f, 1, (int64_t)first);
    num(&f, 2, (int64_t)last);
    return done(&f);
}

static int drop_job_tries(struct pm_journal *j, uint64_t job, struct pm_error *err)
{
    return drop_tries(j, pm_task_id(job, 0, 0), pm_task_id(job, PM_TASK_MAX_PAGE, PM_TASK_SLOT_PAGE), err);
}

static int drop_page_tries(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    return drop_tries(j, pm_task_id(op->job, op->page, 0), pm_task_id(op->job, op->page, PM_TASK_SLOT_PAGE),
                      err);
}

static int job_finish(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    struct pm_manifest manifest = {0};
    if (op->data.size &&
        pm_record_decode(&pm_manifest_schema, op->data.data, op->data.size, &j->arena, &manifest, err))
        return err ? err->code : PM_EPROTO;
    struct fill f = begin(j, SQL_JOB_FINISH, err);
    num(&f, 1, (int64_t)op->job);
    num(&f, 2, op->state);
    text(&f, 3, op->code);
    text(&f, 4, op->text);
    num(&f, 5, op->wall_us);
    if (op->data.size)
        blob(&f, 6, op->data.data, op->data.size);
    text(&f, 7, join_keys(j, op->blobs, op->blob_count, &manifest));
    for (int i = 0; i < 7; i++)
        num(&f, 8 + i, op->counts[i]);
    num(&f, 15, op->drops_key);
    int rc = done(&f);
    if (!rc)
        rc = simple(j, SQL_JOB_UNREAD, op->job, 0, err);
    if (!rc)
        rc = simple(j, SQL_JOB_UNLAY, op->job, 0, err);
    return rc ? rc : drop_job_tries(j, op->job, err);
}

static int job_retry(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    struct fill f = begin(j, SQL_JOB_RETRY, err);
    num(&f, 1, (int64_t)op->job);
    num(&f, 2, op->generation);
    return done(&f);
}

static int job_run(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    struct fill f = begin(j, SQL_JOB_RUN, err);
    num(&f, 1, (int64_t)op->job);
    num(&f, 2, op->wall_us);
    return done(&f);
}

static int job_drop(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    int rc = simple(j, SQL_JOB_DROP_REGIONS, op->job, 0, err);
    if (!rc)
        rc = simple(j, SQL_JOB_DROP_PAGES, op->job, 0, err);
    if (!rc)
        rc = simple(j, SQL_ATTEMPT_DROP, op->job, 0, err);
    if (!rc)
        rc = simple(j, SQL_JOB_DROP, op->job, 0, err);
    return rc ? rc : drop_job_tries(j, op->job, err);
}

static int page_laid(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    pm_buf_clear(&j->scratch);
    for (uint32_t i = 0; i < op->cost_count; i++) {
        uint32_t c = op->costs[i];
        const uint8_t bytes[4] = {(uint8_t)c, (uint8_t)(c >> 8), (uint8_t)(c >> 16), (uint8_t)(c >> 24)};
        pm_buf_append(&j->scratch, bytes, 4);
    }
    struct fill f = begin(j, SQL_PAGE_LAID, err);
    num(&f, 1, (int64_t)op->job);
    num(&f, 2, op->page);
    text(&f, 3, op->record);
    text(&f, 4, op->sheet);
    num(&f, 5, (int64_t)op->bytes);
    blob(&f, 6, j->scratch.data, j->scratch.size);
    return done(&f);
}

static int page_reset(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    struct fill f = begin(j, SQL_PAGE_RESET, err);
    num(&f, 1, (int64_t)op->job);
    num(&f, 2, op->page);
    num(&f, 3, op->generation);
    int rc = done(&f);
    if (!rc)
        rc = simple(j, SQL_PAGE_DROP_REGIONS, op->job, op->page, err);
    return rc ? rc : drop_page_tries(j, op, err);
}

static int page_done(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    struct fill f = begin(j, SQL_PAGE_DONE, err);
    num(&f, 1, (int64_t)op->job);
    num(&f, 2, op->page);
    text(&f, 3, op->blob);
    const char *blobs = join_keys(j, op->blobs, op->blob_count, NULL);
    text(&f, 4, blobs);
    num(&f, 5, (int64_t)op->bytes);
    num(&f, 6, op->failed);
    int rc = done(&f);
    if (!rc && op->fingerprint)
        rc = pm_journal_known_put(j, op, blobs, err);
    if (!rc)
        rc = simple(j, SQL_PAGE_DROP_READ, op->job, op->page, err);
    return rc ? rc : drop_page_tries(j, op, err);
}

static int page_fail(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    struct fill f = begin(j, SQL_PAGE_FAIL, err);
    num(&f, 1, (int64_t)op->job);
    num(&f, 2, op->page);
    text(&f, 3, op->code);
    text(&f, 4, op->text);
    num(&f, 5, op->fails);
    int rc = done(&f);
    if (!rc)
        rc = simple(j, SQL_PAGE_DROP_REGIONS, op->job, op->page, err);
    return rc ? rc : drop_page_tries(j, op, err);
}

static int region_done(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    struct fill f = begin(j, SQL_REGION_DONE, err);
    num(&f, 1, (int64_t)op->job);
    num(&f, 2, op->page);
    num(&f, 3, op->region);
    blob(&f, 4, op->data.data, op->data.size);
    return done(&f);
}

static int region_fail(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    struct fill f = begin(j, SQL_REGION_FAIL, err);
    num(&f, 1, (int64_t)op->job);
    num(&f, 2, op->page);
    num(&f, 3, op->region);
    text(&f, 4, op->code);
    text(&f, 5, op->text);
    num(&f, 6, op->fails);
    return done(&f);
}

static int tries_put(struct pm_journal *j, const struct pm_op *op, struct pm_error *err)
{
    struct fill f = begin(j, SQL_TRIES_PUT, err);
    num(&f, 1, (int64_t)op->task);
    num(&f, 2, op->fails);
    num(&f, 3, op->crashes);
    num(&f, 4, op->is_suspect);
    return done(&f);
}

/* Which rows hold the keys that an op may change. */
enum touches { TOUCH_NONE, TOUCH_JOB, TOUCH_PAGE, TOUCH_ALL, TOUCH_KNOWN };
static const struct {
    int (*write)(struct pm_journal *, const struct pm_op *, struct pm_error *);
    enum touches touches;
} writers[] = {
    [PM_OP_JOB_PUT] = {job_put, TOUCH_JOB},
    [PM_OP_JOB_RUN] = {job_run, TOUCH_NONE},
    [PM_OP_JOB_OPEN] = {job_open, TOUCH_NONE},
    [PM_OP_JOB_FINISH] = {job_finish, TOUCH_ALL},
    [PM_OP_JOB_RETRY] = {job_retry, TOUCH_JOB},
    [PM_OP_JOB_DROP] = {job_drop, TOUCH_ALL},
    [PM_OP_PAGE_LAID] = {page_laid, TOUCH_PAGE},
    [PM_OP_PAGE_RESET] = {page_reset, TOUCH_PAGE},
    [PM_OP_PAGE_DONE] = {page_done, TOUCH_PAGE},
    [PM_OP_PAGE_FAIL] = {page_fail, TOUCH_PAGE},
    [PM_OP_REGION_DONE] = {region_done, TOUCH_NONE},
    [PM_OP_REGION_FAIL] = {region_fail, TOUCH_NONE},
    [PM_OP_TRIES] = {tries_put, TOUCH_NONE},
    [PM_OP_ATTEMPT] = {pm_journal_attempt_put, TOUCH_NONE},
    [PM_OP_BLAME] = {pm_journal_attempt_blame, TOUCH_NONE},
    [PM_OP_KNOWN_USED] = {pm_journal_known_used, TOUCH_NONE},
    [PM_OP_KNOWN_DROP] = {pm_journal_known_drop, TOUCH_KNOWN},
    [PM_OP_MODEL] = {pm_journal_model_put, TOUCH_NONE},
};

static int touch(struct pm_journal *j, const struct pm_op *op, int change, struct pm_error *err)
{
    int rc = 0;
    enum touches t = writers[op->kind].touches;
    if (op->fingerprint && t != TOUCH_NONE)
        rc = count_known_refs(j, op->fingerprint, change, err);
    if (!rc && t == TOUCH_PAGE)
        rc = count_refs(j, SQL_KEYS_PAGE, op->job, op->page, change, err);
    if (!rc && (t == TOUCH_JOB || t == TOUCH_ALL))
        rc = count_refs(j, SQL_KEYS_JOB, op->job, 0, change, err);
    if (!rc && t == TOUCH_ALL)
        rc = count_refs(j, SQL_KEYS_PAGES, op->job, 0, change, err);
    return rc;
}

static void roll_back(struct pm_journal *j)
{
    j->change_count = 0;
    if (sqlite3_get_autocommit(j->db))
        return; /* SQLite has done so already */
    struct fill f = begin(j, SQL_ROLLBACK, NULL);
    done(&f);
}

int pm_journal_apply(struct pm_journal *j, const struct pm_op *ops, size_t count, struct pm_error *err)
{
    struct pm_error local;
    err = err ? err : &local;
    if (!count)
        return 0;
    j->change_count = 0;
    struct fill f = begin(j, SQL_BEGIN, err);
    int rc = done(&f);
    for (size_t i = 0; i < count && !rc; i++) {
        rc = touch(j, &ops[i], -1, err);
        if (!rc)
            rc = writers[ops[i].kind].write(j, &ops[i], err);
        if (!rc)
            rc = touch(j, &ops[i], 1, err);
    }
    if (!rc) {
        f = begin(j, SQL_COMMIT, err);
        rc = done(&f);
    }
    pm_arena_clear(&j->arena);
    if (rc) {
        roll_back(j);
        return rc;
    }
    report_refs(j, j->on_ref, j->on_ref_ctx);
    return 0;
}

int pm_journal_begin_epoch(struct pm_journal *j, uint64_t *epoch_out, struct pm_error *err)
{
    struct fill f = begin(j, SQL_EPOCH_NEXT, err);
    int rc = done(&f);
    if (rc)
        return rc;
    sqlite3_stmt *st = pm_journal_sql(j, SQL_EPOCH, err);
    if (!st)
        return PM_EIO;
    if (sqlite3_step(st) != SQLITE_ROW)
        rc = pm_journal_fail(j, "read its epoch", err);
    else
        *epoch_out = (uint64_t)sqlite3_column_int64(st, 0);
    sqlite3_reset(st);
    return rc;
}

int pm_journal_next_job(struct pm_journal *j, uint64_t *job_out, struct pm_error *err)
{
    sqlite3_stmt *st = pm_journal_sql(j, SQL_SEQUENCE, err);
    if (!st)
        return PM_EIO;
    int step = sqlite3_step(st);
    *job_out = 1 + (step == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(st, 0) : 0);
    int rc = step == SQLITE_ROW || step == SQLITE_DONE ? 0 : pm_journal_fail(j, "read its last job", err);
    sqlite3_reset(st);
    return rc;
}
