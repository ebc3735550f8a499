/* Any values in the rows of a journal: a start that reads it, and the scheduler that it fills, refuse or
 * repair, and never more. The input changes a journal of two jobs, one of them half read:
 *
 *     [table][column][kind][size][bytes] ...   UPDATE table SET column = value, as SQLite holds it
 */
#include <stdlib.h>
#include <string.h>

#include "broker/journal_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const tables[] = {"job", "page", "region", "tries", "attempt"};
enum { TABLES = sizeof tables / sizeof tables[0], COLUMNS_MOST = 32, CHANGES_MOST = 16 };

static void run(sqlite3 *db, const char *sql)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL))
        abort();
}

static void add_job(sqlite3 *db, int id, int state)
{
    struct pm_msg_submit submit = {.key = "k",
                                   .name = "n",
                                   .batch = "b",
                                   .source =
                                       "d0123456789012345678901234567890123456789012345678901234567890123"};
    submit.options = (struct pm_options){
        .pages = "", .password = "", .reader = "fast", .formats = "md", .drop = "", .stem = "s", .whole = ""};
    struct pm_buf record = {0};
    pm_record_encode(pm_msg_schema(PM_MSG_SUBMIT), &submit, &record);
    char *sql =
        pm_xprintf("INSERT INTO job(id, client, key, state, is_open, submit, source, created_us, pages) "
                   "VALUES(%d, 'c', 'k%d', %d, 1, ?, '%s', 1, 3)",
                   id, id, state, submit.source);
    sqlite3_stmt *st;
    if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) ||
        sqlite3_bind_blob(st, 1, record.data, (int)record.size, SQLITE_TRANSIENT) ||
        sqlite3_step(st) != SQLITE_DONE)
        abort();
    sqlite3_finalize(st);
    free(sql);
    pm_buf_free(&record);
}

/* Pages that wait, that are laid out with two crops of which one is read, and that are done. */
static void fill(sqlite3 *db)
{
    add_job(db, 1, PM_JOB_RUNNING);
    add_job(db, 2, PM_JOB_FAILED);
    run(db, "INSERT INTO page(job, page, width, height) VALUES(1, 1, 100, 100);"
            "INSERT INTO page(job, page, width, height, stage, sheet, sheet_bytes, costs, regions) "
            "VALUES(1, 2, 100, 100, 2, 'p', 10, x'0100000002000000', 2);"
            "INSERT INTO page(job, page, width, height, stage, blob) VALUES(1, 3, 100, 100, 3, 'd');"
            "INSERT INTO page(job, page, width, height, stage, error_code) VALUES(2, 1, 1, 1, 4, 'x');"
            "INSERT INTO region(job, page, region, text) VALUES(1, 2, 0, x'80');"
            "INSERT INTO tries VALUES(1, 1, 1, 1);"
            "INSERT INTO attempt(job, seq, task, attempt, cause, code, text, peer, version, wall_us) "
            "VALUES(1, 1, 1, 1, 1, 'x', 'y', 'p', 'v', 1)");
}

/* The names of a table's columns; the journal's own words, so they can stand in SQL. */
static int columns_of(sqlite3 *db, const char *table, char names[COLUMNS_MOST][32])
{
    char *sql = pm_xprintf("SELECT name FROM pragma_table_info('%s')", table);
    sqlite3_stmt *st;
    int count = 0;
    if (sqlite3_prepare_v2(db, sql, -1, &st, NULL))
        abort();
    while (count < COLUMNS_MOST && sqlite3_step(st) == SQLITE_ROW)
        strncpy(names[count++], (const char *)sqlite3_column_text(st, 0), 31);
    sqlite3_finalize(st);
    free(sql);
    return count;
}

static void bind(sqlite3_stmt *st, unsigned kind, const uint8_t *data, size_t bytes)
{
    int64_t number = 0;
    for (size_t i = 0; i < bytes && i < 8; i++)
        number |= (int64_t)((uint64_t)data[i] << (8 * i));
    if (kind == 0)
        sqlite3_bind_int64(st, 1, number);
    else if (kind == 1)
        sqlite3_bind_int64(st, 1, -number);
    else if (kind == 2)
        sqlite3_bind_text(st, 1, (const char *)data, (int)bytes, SQLITE_TRANSIENT);
    else if (kind == 3)
        sqlite3_bind_blob(st, 1, data, (int)bytes, SQLITE_TRANSIENT);
    else if (kind == 4)
        sqlite3_bind_null(st, 1);
    else
        sqlite3_bind_double(st, 1, (double)number / 3);
}

static size_t change(sqlite3 *db, const uint8_t *data, size_t size)
{
    char names[COLUMNS_MOST][32] = {{0}};
    const char *table = tables[data[0] % TABLES];
    int count = columns_of(db, table, names);
    size_t bytes = data[3] < size - 4 ? data[3] : size - 4;
    if (!count)
        abort();
    char *sql = pm_xprintf("UPDATE OR IGNORE %s SET %s = ?", table, names[data[1] % count]);
    sqlite3_stmt *st;
    if (!sqlite3_prepare_v2(db, sql, -1, &st, NULL)) {
        bind(st, data[2] % 6, data + 4, bytes);
        sqlite3_step(st);
    }
    sqlite3_finalize(st);
    free(sql);
    return 4 + bytes;
}

static void no_ref(void *ctx, const char *key, int count)
{
    *(size_t *)ctx += strlen(key) + (size_t)count;
}

static int restore(void *ctx, const struct pm_job_image *image, struct pm_error *err)
{
    (void)pm_sched_restore(ctx, (struct pm_now){1000000, 1000000}, image, err);
    return 0; /* the next one may be better */
}

static void read_all(struct pm_journal *j)
{
    struct pm_sched_config config = {.epoch = 2,
                                     .first_job = 10,
                                     .max_jobs = 100,
                                     .pixel_budget_bytes = 1 << 20,
                                     .stall_us = 1000000,
                                     .adopt_us = 1};
    struct pm_sched *s = pm_sched_new(&config);
    struct pm_arena arena = {0};
    struct pm_error err;
    size_t refs = 0;
    (void)pm_journal_refs(j, no_ref, &refs, &err);
    (void)pm_journal_load(j, restore, s, &err);
    for (uint64_t job = 0; job < 4; job++) {
        struct pm_job_image image;
        struct pm_job_info info;
        struct pm_page_error *errors;
        struct pm_attempt *attempts;
        struct pm_region_row *rows;
        struct pm_bytes manifest;
        uint32_t count;
        size_t row_count;
        (void)pm_journal_errors(j, job, PM_LIMIT_JOB_ERRORS, &arena, &errors, &count, &err);
        (void)pm_journal_attempts(j, job, &arena, &attempts, &count, &err);
        (void)pm_journal_manifest(j, job, &arena, &manifest, &err);
        (void)pm_journal_regions(j, job, 2, &arena, &rows, &row_count, &err);
        (void)pm_sched_info(s, job, &info);
        if (!pm_journal_job(j, job, &arena, &image, &err))
            (void)pm_sched_retry(s, (struct pm_now){2000000, 2000000}, &image, &err);
    }
    struct pm_sched_peer worker = {
        .role = PM_ROLE_WORKER, .readers = (const char *[]){"fast"}, .reader_count = 1, .granted = 10};
    (void)pm_sched_peer_join(s, (struct pm_now){3000000, 3000000}, &worker);
    pm_sched_tick(s, (struct pm_now){3000000, 3000000});
    pm_sched_assign(s, (struct pm_now){3000000, 3000000});
    pm_arena_free(&arena);
    pm_sched_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pm_journal *j; /* opening one takes longer than all the rest */
    struct pm_error err;
    if (!j && pm_journal_open(":memory:", NULL, &j, &err))
        abort();
    run(j->db,
        "DELETE FROM job; DELETE FROM page; DELETE FROM region; DELETE FROM tries; DELETE FROM attempt");
    fill(j->db);
    for (int i = 0; i < CHANGES_MOST && size >= 4; i++) {
        size_t used = change(j->db, data, size);
        data += used;
        size -= used;
    }
    read_all(j);
    return 0;
}
