#include "tests/faults/audit.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "proto/blob.h"
#include "tests/faults/rig.h"

static sqlite3 *open_journal(const char *path)
{
    sqlite3 *db = NULL;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
        rig_give_up("cannot open %s: %s", path, sqlite3_errmsg(db));
    sqlite3_exec(db, "PRAGMA locking_mode=EXCLUSIVE", NULL, NULL, NULL); /* as the broker: no shared memory */
    return db;
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *st;
    if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) != SQLITE_OK)
        rig_give_up("journal: %s: %s", sql, sqlite3_errmsg(db));
    return st;
}

static void run(sqlite3 *db, const char *sql)
{
    char *why = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
        rig_give_up("journal: %s: %s", sql, why ? why : "?");
}

static uint64_t number_of(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *st = prepare(db, sql);
    uint64_t n = sqlite3_step(st) == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(st, 0) : 0;
    sqlite3_finalize(st);
    return n;
}

static bool has_table(sqlite3 *db, const char *name)
{
    char *sql = pm_xprintf("SELECT count(*) FROM sqlite_master WHERE name = '%s'", name);
    bool is_there = number_of(db, sql) > 0;
    free(sql);
    return is_there;
}

bool audit_is_readable(const char *journal)
{
    sqlite3 *db = NULL;
    if (!pm_fs_is_file(journal))
        return true;
    bool is_good = sqlite3_open_v2(journal, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK &&
                   sqlite3_exec(db, "SELECT count(*) FROM sqlite_master", NULL, NULL, NULL) == SQLITE_OK;
    sqlite3_close(db);
    return is_good;
}

bool audit_has_tables(const char *journal)
{
    if (!pm_fs_is_file(journal))
        return false;
    sqlite3 *db = open_journal(journal);
    bool is_there = has_table(db, "region");
    sqlite3_close(db);
    return is_there;
}

void audit_install(const char *journal)
{
    sqlite3 *db = open_journal(journal);
    if (has_table(db, "audit")) {
        sqlite3_close(db);
        return;
    }
    /* The generation tells a page that was begun anew (its crops were lost) from one that was committed
     * twice. */
    run(db,
        "CREATE TABLE audit(kind TEXT, job INTEGER, page INTEGER, region INTEGER, generation INTEGER);"
        "CREATE TRIGGER audit_region AFTER INSERT ON region BEGIN INSERT INTO audit VALUES('region', new.job,"
        " new.page, new.region, (SELECT generation FROM page WHERE job = new.job AND page = new.page)); END;"
        "CREATE TRIGGER audit_page AFTER UPDATE OF stage ON page WHEN new.stage >= 3 BEGIN"
        " INSERT INTO audit VALUES('page', new.job, new.page, 0, new.generation); END;"
        "CREATE TRIGGER audit_job AFTER UPDATE OF state ON job WHEN new.state >= 3 BEGIN"
        " INSERT INTO audit VALUES('job', new.id, 0, 0, new.generation); END;");
    sqlite3_close(db);
}

void audit_commits(const char *journal, struct audit *a)
{
    sqlite3 *db = open_journal(journal);
    if (!has_table(db, "audit")) {
        sqlite3_close(db);
        return;
    }
    a->regions += number_of(db, "SELECT count(*) FROM audit WHERE kind = 'region'");
    a->pages += number_of(db, "SELECT count(*) FROM audit WHERE kind = 'page'");
    a->jobs += number_of(db, "SELECT count(*) FROM audit WHERE kind = 'job'");
    sqlite3_stmt *st = prepare(db, "SELECT kind, job, page, region, count(*) FROM audit"
                                   " GROUP BY kind, job, page, region, generation HAVING count(*) > 1");
    while (sqlite3_step(st) == SQLITE_ROW) {
        a->doubled++;
        printf("doubled: %s of job %lld page %lld region %lld was committed %lld times\n",
               (const char *)sqlite3_column_text(st, 0), sqlite3_column_int64(st, 1),
               sqlite3_column_int64(st, 2), sqlite3_column_int64(st, 3), sqlite3_column_int64(st, 4));
    }
    sqlite3_finalize(st);
    run(db, "DELETE FROM audit");
    sqlite3_close(db);
}

void audit_ledger(const char *journal, const char *client, const struct ledger *l, bool must_be_done,
                  struct audit *a)
{
    sqlite3 *db = open_journal(journal);
    sqlite3_stmt *st = prepare(db, "SELECT id, state, error_text FROM job WHERE client = ?1 AND key = ?2");
    for (size_t i = 0; i < l->count; i++) {
        const struct ledger_entry *e = &l->entries[i];
        char *key = pm_xprintf("%s-%zu", client, i);
        uint64_t job = 0;
        int state = 0, rows = 0;
        sqlite3_reset(st);
        sqlite3_bind_text(st, 1, client, -1, SQLITE_STATIC);
        sqlite3_bind_text(st, 2, key, -1, SQLITE_TRANSIENT);
        for (; sqlite3_step(st) == SQLITE_ROW; rows++) {
            job = (uint64_t)sqlite3_column_int64(st, 0);
            state = sqlite3_column_int(st, 1);
        }
        if (rows > 1 || e->doubles || (e->job && job && job != e->job)) {
            a->doubled++;
            printf("doubled: key %s is job %llu and job %llu\n", key, (unsigned long long)e->job,
                   (unsigned long long)job);
        } else if (e->job && !rows) {
            a->lost++;
            printf("lost: job %llu, key %s, was accepted\n", (unsigned long long)e->job, key);
        } else if ((e->job && state > 3) || (must_be_done && rows && state != 3) ||
                   (e->results && state != 3)) {
            a->unfinished++;
            printf("not done: job %llu, key %s, state %d\n", (unsigned long long)job, key, state);
        }
        free(key);
    }
    sqlite3_finalize(st);
    sqlite3_close(db);
}

static void check_keys(struct pm_blobs *store, const char *keys, uint64_t job, struct audit *a)
{
    for (char key[PM_BLOB_KEY_SIZE]; *keys;) {
        struct pm_error err;
        size_t size = strcspn(keys, " ");
        snprintf(key, sizeof key, "%.*s", (int)size, keys);
        keys += size + (keys[size] == ' ');
        if (*key != 'd' || !pm_blob_check(store, key, &err))
            continue;
        a->damaged++;
        printf("damaged: a blob of job %llu: %s\n", (unsigned long long)job, err.text);
    }
}

void audit_blobs(const char *journal, const char *blobs, struct audit *a)
{
    struct pm_blobs *store;
    struct pm_error err;
    char *nowhere = pm_fs_join(blobs, "tmp");
    if (pm_blobs_open(blobs, nowhere, &store, &err))
        rig_give_up("%s", err.text);
    sqlite3 *db = open_journal(journal);
    sqlite3_stmt *st = prepare(db, "PRAGMA integrity_check");
    if (sqlite3_step(st) != SQLITE_ROW || strcmp((const char *)sqlite3_column_text(st, 0), "ok") != 0) {
        a->damaged++;
        printf("damaged: the journal: %s\n", (const char *)sqlite3_column_text(st, 0));
    }
    sqlite3_finalize(st);
    st = prepare(db, "SELECT id, source || ' ' || blobs FROM job UNION ALL"
                     " SELECT job, record || ' ' || blob || ' ' || blobs FROM page");
    while (sqlite3_step(st) == SQLITE_ROW)
        check_keys(store, (const char *)sqlite3_column_text(st, 1), (uint64_t)sqlite3_column_int64(st, 0), a);
    sqlite3_finalize(st);
    sqlite3_close(db);
    pm_blobs_free(&store);
    free(nowhere);
}
