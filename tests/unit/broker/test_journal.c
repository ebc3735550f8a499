/* The journal file: what is written is read back, references are counted, and no failing write loses or
 * doubles anything that was told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/map.h"
#include "broker/journal.h"
#include "fault_vfs.h"
#include "proto/page.h"

static char dir[64], *path;

static int set_up(void **state)
{
    (void)state;
    /* Thousands of commits: in memory where there is a place for that. */
    strcpy(dir, "/dev/shm/pm-journal-XXXXXX");
    if (!mkdtemp(dir)) {
        strcpy(dir, "/tmp/pm-journal-XXXXXX");
        if (!mkdtemp(dir))
            return -1;
    }
    path = pm_fs_join(dir, "journal.db");
    fault_plan = (struct fault_plan){.countdown = -1};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pm_fs_remove_tree(dir, NULL);
    free(path);
    return 0;
}

static struct pm_journal *open_journal(const char *vfs)
{
    struct pm_journal *j;
    struct pm_error err;
    if (pm_journal_open(path, vfs, &j, &err))
        fail_msg("%s", err.text);
    return j;
}

static void key_of(char letter, unsigned n, char out[66])
{
    snprintf(out, 66, "%c%064x", letter, n);
}

static void apply(struct pm_journal *j, const struct pm_op *ops, size_t count)
{
    struct pm_error err;
    if (pm_journal_apply(j, ops, count, &err))
        fail_msg("%s", err.text);
}

static struct pm_msg_submit submit_of(const char *source)
{
    return (struct pm_msg_submit){.key = "key",
                                  .name = "Jahresbericht \xc3\xa4.pdf",
                                  .source = source,
                                  .source_bytes = 77,
                                  .priority = 3,
                                  .batch = "b",
                                  .options = {.pages = "1-4",
                                              .password = "secret",
                                              .whole = "table",
                                              .max_tokens = 70,
                                              .temperature = 0.5f,
                                              .seed = UINT64_MAX,
                                              .reader = "fast",
                                              .formats = "md",
                                              .drop = "",
                                              .dpi = 300,
                                              .no_deskew = true,
                                              .stem = "s"}};
}

static struct pm_op op_of(enum pm_op_kind kind, uint64_t job, uint32_t page)
{
    return (struct pm_op){.kind = kind,
                          .job = job,
                          .page = page,
                          .client = "alice",
                          .code = "",
                          .text = "",
                          .record = "",
                          .sheet = "",
                          .blob = "",
                          .cause = "",
                          .peer = "",
                          .version = ""};
}

static void count_ref(void *ctx, const char *key, int change)
{
    struct pm_strmap *counts = ctx;
    intptr_t n = (intptr_t)pm_strmap_get(counts, key) + change;
    assert_true(n >= 0);
    if (n)
        pm_strmap_put(counts, key, (void *)n);
    else
        pm_strmap_remove(counts, key);
}

/* What was reported all along equals what the file holds. */
static void check_refs(struct pm_journal *j, const struct pm_strmap *counted)
{
    struct pm_strmap now = {0};
    size_t cursor = 0;
    const char *key;
    void *value;
    assert_int_equal(pm_journal_refs(j, count_ref, &now, NULL), 0);
    assert_int_equal(now.map.count, counted->map.count);
    while (pm_strmap_next(&now, &cursor, &key, &value))
        assert_ptr_equal(pm_strmap_get(counted, key), value);
    pm_strmap_free(&now);
}

/* A job with four pages: 1 in its regions, 2 done, 3 failed, 4 not begun. */
static void write_job(struct pm_journal *j, uint64_t job)
{
    static char source[66], record[66], sheet[66], blob[66], picture[66];
    static const uint32_t costs[] = {5, 0, 70000};
    static const struct pm_found_page pages[] = {{1, 10, 20}, {2, 30, 40}, {3, 1, 1}, {4, 1, 1}};
    static const char *const pictures[] = {picture};
    static struct pm_msg_submit submit;
    key_of('d', 1, source);
    key_of('d', 2, record);
    key_of('p', 3, sheet);
    key_of('d', 4, blob);
    key_of('d', 5, picture);
    submit = submit_of(source);
    char key[32];
    snprintf(key, sizeof key, "key %llu", (unsigned long long)job);
    submit.key = key;
    struct pm_op put = op_of(PM_OP_JOB_PUT, job, 0);
    put.submit = &submit;
    put.wall_us = 111;
    struct pm_op run = op_of(PM_OP_JOB_RUN, job, 0);
    run.wall_us = 222;
    struct pm_op open = op_of(PM_OP_JOB_OPEN, job, 0);
    open.pages = pages;
    open.page_count = 4;
    open.document_pages = 9;
    struct pm_op laid = op_of(PM_OP_PAGE_LAID, job, 1);
    laid.record = record;
    laid.sheet = sheet;
    laid.bytes = 4096;
    laid.costs = costs;
    laid.cost_count = 3;
    struct pm_op read = op_of(PM_OP_REGION_DONE, job, 1);
    read.region = 0;
    read.data = (struct pm_bytes){(const uint8_t *)"\0text", 5};
    struct pm_op bad = op_of(PM_OP_REGION_FAIL, job, 1);
    bad.region = 2;
    bad.code = "format";
    bad.text = "torn";
    bad.fails = 2;
    struct pm_op laid2 = laid, done2 = op_of(PM_OP_PAGE_DONE, job, 2);
    laid2.page = 2;
    done2.blob = blob;
    done2.blobs = pictures;
    done2.blob_count = 1;
    done2.bytes = 3;
    done2.failed = 1;
    struct pm_op fail3 = op_of(PM_OP_PAGE_FAIL, job, 3);
    fail3.code = "crash";
    fail3.text = "set aside";
    fail3.fails = 2;
    struct pm_op tries = op_of(PM_OP_TRIES, job, 4);
    tries.task = pm_task_id(job, 4, PM_TASK_SLOT_PAGE);
    tries.fails = 3;
    tries.crashes = 1;
    tries.is_suspect = true;
    const struct pm_op ops[] = {put, run, open, laid, read, bad, laid2, done2, fail3, tries};
    apply(j, ops, sizeof ops / sizeof ops[0]);
}

static int check_image(void *ctx, const struct pm_job_image *i, struct pm_error *err)
{
    (void)err;
    ++*(int *)ctx;
    assert_string_equal(i->info.client, "alice");
    assert_string_equal(i->submit.name, "Jahresbericht \xc3\xa4.pdf");
    assert_string_equal(i->submit.options.password, "secret");
    assert_string_equal(i->submit.options.whole, "table");
    assert_int_equal(i->submit.options.max_tokens, 70);
    assert_float_equal(i->submit.options.temperature, 0.5f, 0);
    assert_true(i->submit.options.seed == UINT64_MAX);
    assert_int_equal(i->submit.options.dpi, 300);
    assert_true(i->submit.options.no_deskew);
    assert_int_equal(i->info.state, PM_JOB_RUNNING);
    assert_int_equal(i->info.created_wall_us, 111);
    assert_int_equal(i->info.started_wall_us, 222);
    assert_true(i->is_open);
    assert_int_equal(i->page_count, 4);
    const struct pm_page_image *p = i->pages;
    assert_int_equal(p[0].stage, PM_STAGE_REGIONS);
    assert_int_equal(p[0].cost_count, 3);
    assert_int_equal(p[0].costs[2], 70000);
    assert_int_equal(p[0].sheet_bytes, 4096);
    assert_int_equal(p[0].final_count, 2);
    assert_false(p[0].finals[0].is_failed);
    assert_int_equal(p[0].finals[1].region, 2);
    assert_true(p[0].finals[1].is_failed);
    assert_int_equal(p[1].stage, PM_STAGE_DONE);
    assert_string_equal(p[1].sheet, "");
    assert_int_equal(p[1].regions_failed, 1);
    assert_int_equal(p[2].stage, PM_STAGE_FAILED);
    assert_string_equal(p[2].error_text, "set aside");
    assert_int_equal(p[3].stage, PM_STAGE_LAYOUT);
    assert_int_equal(i->tries_count, 1);
    assert_int_equal(i->tries[0].fails, 3);
    assert_true(i->tries[0].is_suspect);
    return 0;
}

static void all_comes_back(void **state)
{
    (void)state;
    struct pm_strmap refs = {0};
    struct pm_error err;
    uint64_t epoch, next;
    struct pm_journal *j = open_journal(NULL);
    pm_journal_on_ref(j, count_ref, &refs);
    assert_int_equal(pm_journal_begin_epoch(j, &epoch, &err), 0);
    assert_int_equal(epoch, 1);
    write_job(j, 1);
    write_job(j, 2);
    check_refs(j, &refs);
    pm_journal_free(&j);
    j = open_journal(NULL);
    pm_journal_on_ref(j, count_ref, &refs);
    assert_int_equal(pm_journal_begin_epoch(j, &epoch, &err), 0);
    assert_int_equal(epoch, 2);
    assert_int_equal(pm_journal_next_job(j, &next, &err), 0);
    assert_int_equal(next, 3);
    int jobs = 0;
    assert_int_equal(pm_journal_load(j, check_image, &jobs, &err), 0);
    assert_int_equal(jobs, 2);
    struct pm_arena arena = {0};
    struct pm_region_row *rows;
    size_t count;
    assert_int_equal(pm_journal_regions(j, 1, 1, &arena, &rows, &count, &err), 0);
    assert_int_equal(count, 2);
    assert_int_equal(rows[0].text.size, 5);
    assert_memory_equal(rows[0].text.data, "\0text", 5);
    assert_string_equal(rows[1].error_code, "format");
    struct pm_page_error *errors;
    uint32_t error_count;
    assert_int_equal(pm_journal_errors(j, 1, 100, &arena, &errors, &error_count, &err), 0);
    assert_int_equal(error_count, 2);
    assert_int_equal(errors[0].page, 1);
    assert_int_equal(errors[0].region, 3);
    assert_int_equal(errors[1].page, 3);
    assert_int_equal(errors[1].attempts, 2);
    /* Cancelled: the sheet of the page in its regions is let go; what is done stays until it is dropped. */
    struct pm_op finish = op_of(PM_OP_JOB_FINISH, 1, 0);
    finish.state = PM_JOB_CANCELLED;
    apply(j, &finish, 1);
    check_refs(j, &refs);
    struct pm_job_image image;
    assert_int_equal(pm_journal_job(j, 1, &arena, &image, &err), 0);
    assert_int_equal(image.pages[0].stage, PM_STAGE_LAYOUT);
    assert_int_equal(image.pages[1].stage, PM_STAGE_DONE);
    struct pm_op reset = op_of(PM_OP_PAGE_RESET, 1, 2);
    reset.generation = 7;
    apply(j, &reset, 1);
    check_refs(j, &refs);
    for (uint64_t job = 1; job <= 2; job++) {
        struct pm_op drop = op_of(PM_OP_JOB_DROP, job, 0);
        apply(j, &drop, 1);
        check_refs(j, &refs);
    }
    assert_int_equal(refs.map.count, 0);
    assert_int_equal(pm_journal_job(j, 1, &arena, &image, &err), PM_ENOTFOUND);
    assert_int_equal(pm_journal_next_job(j, &next, &err), 0);
    assert_int_equal(next, 3); /* a number never comes back */
    pm_arena_free(&arena);
    pm_journal_free(&j);
    pm_strmap_free(&refs);
}

static void doubled_results_are_refused(void **state)
{
    (void)state;
    struct pm_journal *j = open_journal(NULL);
    write_job(j, 1);
    struct pm_op again = op_of(PM_OP_REGION_DONE, 1, 1);
    again.data = (struct pm_bytes){(const uint8_t *)"x", 1};
    struct pm_error err;
    assert_int_equal(pm_journal_apply(j, &again, 1, &err), PM_EINTERNAL);
    pm_journal_free(&j);
}

static void newer_formats_and_rubbish_are_refused(void **state)
{
    (void)state;
    struct pm_journal *j = open_journal(NULL);
    pm_journal_free(&j);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=99", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    struct pm_error err;
    assert_int_equal(pm_journal_open(path, NULL, &j, &err), PM_EUNSUPPORTED);
    assert_non_null(strstr(err.text, "format 99"));
    static const char rubbish[] =
        "this is not a database, and long enough to be looked at as one ................";
    assert_int_equal(pm_fs_write(path, rubbish, sizeof rubbish, false, NULL), 0);
    assert_int_equal(pm_journal_open(path, NULL, &j, &err), PM_EFORMAT);
}

/* A file of each older format, as text: it is brought to the present one and means what it meant. */
static int check_old_job(void *ctx, const struct pm_job_image *i, struct pm_error *err)
{
    (void)err;
    ++*(int *)ctx;
    if (i->job == 2) {
        assert_int_equal(i->info.state, PM_JOB_FAILED);
        assert_string_equal(i->info.error_text, "not a document");
        return 0;
    }
    assert_int_equal(i->job, 1);
    assert_int_equal(i->info.state, PM_JOB_RUNNING);
    assert_int_equal(i->page_count, 2);
    assert_int_equal(i->pages[0].stage, PM_STAGE_REGIONS);
    assert_int_equal(i->pages[0].cost_count, 2);
    assert_int_equal(i->pages[0].costs[1], 20);
    assert_int_equal(i->pages[0].final_count, 1);
    assert_int_equal(i->pages[1].stage, PM_STAGE_LAYOUT);
    assert_int_equal(i->tries_count, 1);
    assert_int_equal(i->tries[0].fails, 2);
    return 0;
}

static void older_formats_are_upgraded(void **state)
{
    (void)state;
    struct pm_error err;
    struct pm_buf text = {0};
    sqlite3 *db;
    if (pm_fs_read(PM_TEST_DATA "/journal/version-1.sql", 1 << 20, &text, &err))
        fail_msg("%s", err.text);
    pm_buf_append(&text, "", 1);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, (const char *)text.data, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    pm_buf_free(&text);
    for (int again = 0; again < 2; again++) { /* the second time it is new already */
        struct pm_journal *j = open_journal(NULL);
        uint64_t epoch, next;
        int jobs = 0;
        assert_int_equal(pm_journal_load(j, check_old_job, &jobs, &err), 0);
        assert_int_equal(jobs, 2);
        assert_int_equal(pm_journal_begin_epoch(j, &epoch, &err), 0);
        assert_int_equal(epoch, 8 + again);
        assert_int_equal(pm_journal_next_job(j, &next, &err), 0);
        assert_int_equal(next, 3);
        struct pm_op op = op_of(PM_OP_ATTEMPT, 1, 0);
        op.cause = "crash";
        apply(j, &op, 1);
        pm_journal_free(&j);
    }
}

static uint32_t read_attempts(struct pm_journal *j, uint64_t job, struct pm_arena *arena,
                              struct pm_attempt **out)
{
    uint32_t count = 0;
    assert_int_equal(pm_journal_attempts(j, job, arena, out, &count, NULL), 0);
    return count;
}

/* The last thousand of a job; news of a crash mend the newest of its task that was "killed". */
static void attempts_are_bounded(void **state)
{
    (void)state;
    struct pm_journal *j = open_journal(NULL);
    struct pm_arena arena = {0};
    struct pm_attempt *a;
    char text[1201];
    memset(text, 'x', 1200);
    text[1200] = 0;
    memcpy(text + 398, "\xe2\x82\xac", 3); /* a character that does not fit any more */
    for (uint32_t i = 0; i < PM_LIMIT_JOB_ATTEMPTS + 5; i++) {
        struct pm_op op = op_of(PM_OP_ATTEMPT, 1 + (i % 201 == 0), 0);
        op.task = pm_task_id(1, 3, i % 2);
        op.attempt = i;
        op.cause = "killed";
        op.text = text;
        op.peer = "worker-1";
        op.version = "1.2";
        op.wall_us = 1000 + i;
        apply(j, &op, 1);
    }
    for (uint32_t i = 0; i < 5; i++) { /* the five that went to job 2 */
        struct pm_op op = op_of(PM_OP_ATTEMPT, 1, 0);
        op.task = pm_task_id(1, 0, PM_TASK_SLOT_PAGE);
        op.attempt = 2000 + i;
        apply(j, &op, 1);
    }
    struct pm_op blame = op_of(PM_OP_BLAME, 1, 0);
    blame.task = pm_task_id(1, 3, 1);
    blame.cause = "crash";
    blame.text = "it crashed";
    apply(j, &blame, 1);
    assert_int_equal(read_attempts(j, 1, &arena, &a), PM_LIMIT_JOB_ATTEMPTS);
    assert_int_equal(a[0].attempt, 6); /* 0 went to the other job, 1 to 5 are gone */
    assert_int_equal(a[0].kind, PM_KIND_REGION);
    assert_int_equal(a[0].page, 3);
    assert_int_equal(a[0].region, 1);
    assert_int_equal(strlen(a[0].text), 398);
    assert_string_equal(a[0].peer, "worker-1");
    assert_string_equal(a[0].version, "1.2");
    assert_int_equal(a[0].wall_us, 1006);
    assert_int_equal(a[PM_LIMIT_JOB_ATTEMPTS - 1].attempt, 2004);
    assert_int_equal(a[PM_LIMIT_JOB_ATTEMPTS - 1].kind, PM_KIND_OPEN);
    uint32_t crashes = 0;
    for (uint32_t i = 0; i < PM_LIMIT_JOB_ATTEMPTS; i++) {
        if (strcmp(a[i].cause, "crash") != 0)
            continue;
        crashes++;
        assert_int_equal(a[i].attempt, 1003);
        assert_string_equal(a[i].text, "it crashed");
    }
    assert_int_equal(crashes, 1);
    struct pm_op drop = op_of(PM_OP_JOB_DROP, 1, 0);
    apply(j, &drop, 1);
    assert_int_equal(read_attempts(j, 1, &arena, &a), 0);
    assert_int_equal(read_attempts(j, 2, &arena, &a), 5);
    pm_arena_free(&arena);
    pm_journal_free(&j);
}

/* One connection: a second one is kept out while the first lives. */
static void only_one_connection(void **state)
{
    (void)state;
    struct pm_journal *j = open_journal(NULL), *second;
    struct pm_error err;
    write_job(j, 1);
    assert_int_not_equal(pm_journal_open(path, NULL, &second, &err), 0);
    pm_journal_free(&j);
}

/* ---- failing writes ---- */

/* Submits job after job until the plan strikes; returns the last one that was told. */
static uint64_t submit_until_failure(struct pm_journal *j, uint64_t first, uint64_t last, int *rc_out)
{
    char source[66];
    key_of('d', 1, source);
    for (uint64_t job = first; job <= last; job++) {
        struct pm_msg_submit submit = submit_of(source);
        char key[32];
        snprintf(key, sizeof key, "key %llu", (unsigned long long)job);
        submit.key = key;
        struct pm_op op = op_of(PM_OP_JOB_PUT, job, 0);
        op.submit = &submit;
        *rc_out = pm_journal_apply(j, &op, 1, NULL);
        if (*rc_out)
            return job - 1;
    }
    return last;
}

static int collect(void *ctx, const struct pm_job_image *i, struct pm_error *err)
{
    (void)err;
    uint64_t *highest = ctx;
    if (i->job != *highest + 1) /* ordered by number: none is missing */
        fail_msg("after job %llu comes %llu", (unsigned long long)*highest, (unsigned long long)i->job);
    *highest = i->job;
    return 0;
}

static void no_failing_write_loses_a_job(void **state)
{
    (void)state;
    static const int codes[] = {SQLITE_FULL, SQLITE_IOERR_WRITE};
    int struck = 0;
    for (int n = 0; n < 160; n++) {
        char *name = pm_xprintf("%s/j%d.db", dir, n);
        free(path);
        path = name;
        fault_plan = (struct fault_plan){.countdown = -1};
        struct pm_journal *j = open_journal("fault");
        fault_plan = (struct fault_plan){
            .countdown = n / 4, .code = codes[n & 1], .is_torn = (n & 2) != 0, .is_permanent = n % 3 == 0};
        int rc = 0;
        uint64_t told = submit_until_failure(j, 1, 12, &rc);
        struck += fault_plan.fired > 0;
        assert_true(!rc || rc == PM_ENOSPC || rc == PM_EIO);
        if (rc == PM_ENOSPC && !fault_plan.is_permanent) {
            /* The very same ops again, as the broker does when it has given up its reserve. */
            fault_plan.countdown = -1;
            told = submit_until_failure(j, told + 1, told + 1, &rc);
            assert_int_equal(rc, 0);
        }
        fault_plan = (struct fault_plan){.countdown = -1};
        pm_journal_free(&j);
        j = open_journal(NULL);
        uint64_t found = 0;
        struct pm_error err;
        assert_int_equal(pm_journal_load(j, collect, &found, &err), 0);
        /* All that was told is there; the one in flight may be (its sync failed, its bytes arrived). */
        assert_true(found == told || found == told + 1);
        pm_journal_free(&j);
    }
    assert_true(struck > 100);
}

static void full_disk_leaves_the_turn_whole(void **state)
{
    (void)state;
    struct pm_journal *j = open_journal("fault");
    struct pm_strmap refs = {0};
    pm_journal_on_ref(j, count_ref, &refs);
    write_job(j, 1);
    struct pm_op finish = op_of(PM_OP_JOB_FINISH, 1, 0), drop = op_of(PM_OP_JOB_DROP, 1, 0);
    finish.state = PM_JOB_CANCELLED;
    const struct pm_op both[] = {finish, drop};
    fault_plan = (struct fault_plan){.countdown = 0, .code = SQLITE_FULL, .is_permanent = true};
    struct pm_error err;
    assert_int_equal(pm_journal_apply(j, both, 2, &err), PM_ENOSPC);
    fault_plan.countdown = -1;
    check_refs(j, &refs); /* nothing was reported for what did not happen */
    int jobs = 0;
    assert_int_equal(pm_journal_load(j, check_image, &jobs, &err), 0);
    assert_int_equal(jobs, 1);
    apply(j, both, 2);
    check_refs(j, &refs);
    assert_int_equal(refs.map.count, 0);
    pm_journal_free(&j);
    pm_strmap_free(&refs);
}

static void file_does_not_grow_for_ever(void **state)
{
    (void)state;
    struct pm_journal *j = open_journal(NULL);
    uint64_t job = 0;
    int64_t largest[2] = {0};
    for (int round = 0; round < 2; round++) {
        for (int n = 0; n < 250; n++) {
            write_job(j, ++job);
            if (job > 50) {
                struct pm_op drop = op_of(PM_OP_JOB_DROP, job - 50, 0);
                apply(j, &drop, 1);
            }
            assert_int_equal(pm_journal_shrink(j, NULL), 0);
        }
        const uint8_t *data;
        size_t bytes;
        assert_int_equal(pm_fs_map(path, &data, &bytes, NULL), 0);
        largest[round] = (int64_t)bytes;
    }
    assert_true(largest[1] < largest[0] + largest[0] / 4 + 100000);
    pm_journal_free(&j);
}

int main(void)
{
    fault_vfs_register();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(all_comes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(doubled_results_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(older_formats_are_upgraded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(attempts_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(newer_formats_and_rubbish_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_one_connection, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_failing_write_loses_a_job, set_up, tear_down),
        cmocka_unit_test_setup_teardown(full_disk_leaves_the_turn_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(file_does_not_grow_for_ever, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
