/* Reading: recovery at start, and what clients and the collector ask for. */
#include <stdlib.h>
#include <string.h>

#include "broker/journal_internal.h"
#include "proto/page.h"

static const char *keep_text(struct pm_arena *arena, sqlite3_stmt *st, int column)
{
    const char *text = pm_column_text(st, column);
    return pm_arena_text(arena, text, strlen(text));
}

static struct pm_bytes keep_bytes(struct pm_arena *arena, sqlite3_stmt *st, int column)
{
    const void *data = sqlite3_column_blob(st, column);
    size_t size = (size_t)sqlite3_column_bytes(st, column);
    struct pm_bytes b = {NULL, data ? size : 0};
    if (b.size)
        b.data = (const uint8_t *)pm_arena_text(arena, data, size);
    return b;
}

static uint32_t column_u32(sqlite3_stmt *st, int column)
{
    int64_t v = sqlite3_column_int64(st, column);
    return v < 0 ? 0 : v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

/* A growing list in an arena: doubling copies, at most twice the memory. */
static void *grow(struct pm_arena *arena, void *items, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return items;
    *capacity = *capacity ? *capacity * 2 : 16;
    void *bigger = pm_arena_alloc(arena, *capacity * size);
    if (count)
        memcpy(bigger, items, count * size);
    return bigger;
}

/* ---- one job ---- */

static int read_job_row(sqlite3_stmt *st, struct pm_arena *arena, struct pm_job_image *out,
                        struct pm_error *err)
{
    *out = (struct pm_job_image){.job = (uint64_t)sqlite3_column_int64(st, 0)};
    struct pm_job_info *i = &out->info;
    i->job = out->job;
    i->client = keep_text(arena, st, 1);
    i->state = column_u32(st, 2);
    out->generation = column_u32(st, 3);
    out->is_open = sqlite3_column_int(st, 4) != 0;
    struct pm_bytes submit = keep_bytes(arena, st, 5);
    i->created_wall_us = sqlite3_column_int64(st, 6);
    i->started_wall_us = sqlite3_column_int64(st, 7);
    i->finished_wall_us = sqlite3_column_int64(st, 8);
    i->error_code = keep_text(arena, st, 9);
    i->error_text = keep_text(arena, st, 10);
    i->pages = column_u32(st, 11);
    i->pages_done = column_u32(st, 12);
    i->pages_failed = column_u32(st, 13);
    i->regions = column_u32(st, 14);
    i->regions_done = column_u32(st, 15);
    i->regions_failed = column_u32(st, 16);
    i->retries = column_u32(st, 17);
    int rc =
        pm_record_decode(pm_msg_schema(PM_MSG_SUBMIT), submit.data, submit.size, arena, &out->submit, err);
    if (rc)
        return pm_fail_prefix(err, "journal: job %llu", (unsigned long long)out->job);
    out->blobs = keep_text(arena, st, 19);
    out->submit.key = keep_text(arena, st, 18); /* a job may have given its key up */
    return 0;
}

static int read_finals(struct pm_journal *j, uint64_t job, struct pm_arena *arena, struct pm_page_image *page,
                       struct pm_error *err)
{
    sqlite3_stmt *st = pm_journal_sql(j, SQL_READ_REGIONS, err);
    if (!st)
        return PM_EIO;
    sqlite3_bind_int64(st, 1, (int64_t)job);
    sqlite3_bind_int64(st, 2, page->page);
    struct pm_region_image *finals = NULL;
    size_t count = 0, capacity = 0;
    int step;
    while ((step = sqlite3_step(st)) == SQLITE_ROW) {
        finals = grow(arena, finals, count, &capacity, sizeof *finals);
        finals[count++] =
            (struct pm_region_image){.region = column_u32(st, 0), .is_failed = *pm_column_text(st, 2) != 0};
    }
    int rc = step == SQLITE_DONE ? 0 : pm_journal_fail(j, "read regions", err);
    sqlite3_reset(st);
    page->finals = finals;
    page->final_count = (uint32_t)count;
    return rc;
}

static void read_costs(sqlite3_stmt *st, int column, struct pm_arena *arena, struct pm_page_image *out)
{
    const uint8_t *data = sqlite3_column_blob(st, column);
    size_t count = data ? (size_t)sqlite3_column_bytes(st, column) / 4 : 0;
    if (count > PM_TASK_MAX_REGIONS)
        count = PM_TASK_MAX_REGIONS;
    uint32_t *costs = pm_arena_alloc(arena, count * 4 + 4);
    for (size_t i = 0; i < count; i++)
        costs[i] = (uint32_t)data[4 * i] | (uint32_t)data[4 * i + 1] << 8 | (uint32_t)data[4 * i + 2] << 16 |
                   (uint32_t)data[4 * i + 3] << 24;
    out->costs = costs;
    out->cost_count = (uint32_t)count;
}

static int read_pages(struct pm_journal *j, struct pm_arena *arena, struct pm_job_image *image,
                      struct pm_error *err)
{
    sqlite3_stmt *st = pm_journal_sql(j, SQL_READ_PAGES, err);
    if (!st)
        return PM_EIO;
    sqlite3_bind_int64(st, 1, (int64_t)image->job);
    struct pm_page_image *pages = NULL;
    size_t count = 0, capacity = 0;
    int step, rc = 0;
    while ((step = sqlite3_step(st)) == SQLITE_ROW) {
        pages = grow(arena, pages, count, &capacity, sizeof *pages);
        struct pm_page_image *p = &pages[count++];
        *p = (struct pm_page_image){.page = column_u32(st, 0),
                                    .width = column_u32(st, 1),
                                    .height = column_u32(st, 2),
                                    .generation = column_u32(st, 3) & 0xffffff,
                                    .stage = column_u32(st, 4),
                                    .record = keep_text(arena, st, 5),
                                    .sheet = keep_text(arena, st, 6),
                                    .sheet_bytes = (uint64_t)sqlite3_column_int64(st, 7),
                                    .blob = keep_text(arena, st, 9),
                                    .regions = column_u32(st, 10),
                                    .regions_failed = column_u32(st, 11),
                                    .error_code = keep_text(arena, st, 12),
                                    .error_text = keep_text(arena, st, 13)};
        read_costs(st, 8, arena, p);
        if (p->stage < PM_STAGE_LAYOUT || p->stage > PM_STAGE_FAILED) {
            rc = pm_fail(err, PM_EFORMAT, "journal: page %u of job %llu has the unknown stage %u", p->page,
                         (unsigned long long)image->job, p->stage);
            break;
        }
    }
    if (!rc && step != SQLITE_DONE)
        rc = pm_journal_fail(j, "read pages", err);
    sqlite3_reset(st);
    for (size_t i = 0; i < count && !rc; i++)
        if (pages[i].stage == PM_STAGE_REGIONS)
            rc = read_finals(j, image->job, arena, &pages[i], err);
    image->pages = pages;
    image->page_count = (uint32_t)count;
    return rc;
}

/* Tasks that failed and are to be tried again come in the order of their jobs, as the jobs do: one pass over
 * both, for most jobs have none. */
struct tries_pass {
    sqlite3_stmt *st;
    int step; /* SQLITE_ROW: its row is not taken yet */
};

static int read_tries(struct pm_journal *j, struct tries_pass *pass, struct pm_arena *arena,
                      struct pm_job_image *image, struct pm_error *err)
{
    struct pm_tries_image *tries = NULL;
    size_t count = 0, capacity = 0;
    for (; pass->step == SQLITE_ROW; pass->step = sqlite3_step(pass->st)) {
        uint64_t task = (uint64_t)sqlite3_column_int64(pass->st, 0);
        if (pm_task_job(task) > image->job)
            break;
        if (pm_task_job(task) < image->job)
            continue;
        tries = grow(arena, tries, count, &capacity, sizeof *tries);
        tries[count++] = (struct pm_tries_image){.task = task,
                                                 .fails = column_u32(pass->st, 1),
                                                 .crashes = column_u32(pass->st, 2),
                                                 .is_suspect = sqlite3_column_int(pass->st, 3) != 0};
    }
    image->tries = tries;
    image->tries_count = (uint32_t)count;
    return pass->step == SQLITE_ROW || pass->step == SQLITE_DONE ? 0
                                                                 : pm_journal_fail(j, "read attempts", err);
}

typedef int visit_fn(void *ctx, const struct pm_job_image *image, struct pm_error *err);

static int load_live(struct pm_journal *j, struct pm_arena *arena, visit_fn *visit, void *ctx,
                     struct pm_error *err)
{
    sqlite3_stmt *st = pm_journal_sql(j, SQL_READ_LIVE, err);
    struct tries_pass tries = {.st = pm_journal_sql(j, SQL_READ_TRIES, err)};
    if (!st || !tries.st)
        return PM_EIO;
    tries.step = sqlite3_step(tries.st);
    int step = SQLITE_DONE, rc = 0;
    while (!rc && (step = sqlite3_step(st)) == SQLITE_ROW) {
        struct pm_job_image image;
        rc = read_job_row(st, arena, &image, err);
        if (!rc && image.is_open)
            rc = read_pages(j, arena, &image, err);
        if (!rc)
            rc = read_tries(j, &tries, arena, &image, err);
        if (!rc)
            rc = visit(ctx, &image, err);
        pm_arena_clear(arena);
    }
    if (!rc && step != SQLITE_DONE)
        rc = pm_journal_fail(j, "read jobs", err);
    sqlite3_reset(st);
    sqlite3_reset(tries.st);
    return rc;
}

/* Only their numbers are sorted: a row with its submit is a hundred times as large. */
static int load_ends(struct pm_journal *j, struct pm_arena *arena, visit_fn *visit, void *ctx,
                     struct pm_error *err)
{
    sqlite3_stmt *ends = pm_journal_sql(j, SQL_READ_ENDS, err), *st;
    if (!ends)
        return PM_EIO;
    int step = SQLITE_DONE, rc = 0;
    while (!rc && (step = sqlite3_step(ends)) == SQLITE_ROW) {
        struct pm_job_image image;
        st = pm_journal_sql(j, SQL_READ_JOB, err);
        if (!st) {
            rc = PM_EIO;
            break;
        }
        sqlite3_bind_int64(st, 1, sqlite3_column_int64(ends, 0));
        rc = sqlite3_step(st) == SQLITE_ROW ? read_job_row(st, arena, &image, err)
                                            : pm_journal_fail(j, "read a job", err);
        sqlite3_reset(st);
        if (!rc)
            rc = visit(ctx, &image, err);
        pm_arena_clear(arena);
    }
    if (!rc && step != SQLITE_DONE)
        rc = pm_journal_fail(j, "read jobs that ended", err);
    sqlite3_reset(ends);
    return rc;
}

int pm_journal_load(struct pm_journal *j,
                    int (*visit)(void *ctx, const struct pm_job_image *image, struct pm_error *err),
                    void *ctx, struct pm_error *err)
{
    struct pm_arena arena = {0};
    int rc = load_live(j, &arena, visit, ctx, err);
    if (!rc)
        rc = load_ends(j, &arena, visit, ctx, err);
    pm_arena_free(&arena);
    return rc;
}

int pm_journal_job_row(struct pm_journal *j, uint64_t job, struct pm_arena *arena, struct pm_job_image *out,
                       struct pm_error *err)
{
    sqlite3_stmt *st = pm_journal_sql(j, SQL_READ_JOB, err);
    if (!st)
        return PM_EIO;
    sqlite3_bind_int64(st, 1, (int64_t)job);
    int step = sqlite3_step(st), rc;
    if (step == SQLITE_ROW)
        rc = read_job_row(st, arena, out, err);
    else if (step == SQLITE_DONE)
        rc = pm_fail(err, PM_ENOTFOUND, "there is no job %llu", (unsigned long long)job);
    else
        rc = pm_journal_fail(j, "read a job", err);
    sqlite3_reset(st);
    return rc;
}

int pm_journal_job(struct pm_journal *j, uint64_t job, struct pm_arena *arena, struct pm_job_image *out,
                   struct pm_error *err)
{
    int rc = pm_journal_job_row(j, job, arena, out, err);
    return rc ? rc : read_pages(j, arena, out, err);
}

/* ---- parts ---- */

int pm_journal_regions(struct pm_journal *j, uint64_t job, uint32_t page, struct pm_arena *arena,
                       struct pm_region_row **rows_out, size_t *count_out, struct pm_error *err)
{
    sqlite3_stmt *st = pm_journal_sql(j, SQL_READ_REGIONS, err);
    if (!st)
        return PM_EIO;
    sqlite3_bind_int64(st, 1, (int64_t)job);
    sqlite3_bind_int64(st, 2, page);
    struct pm_region_row *rows = NULL;
    size_t count = 0, capacity = 0;
    int step;
    while ((step = sqlite3_step(st)) == SQLITE_ROW) {
        rows = grow(arena, rows, count, &capacity, sizeof *rows);
        rows[count++] = (struct pm_region_row){.region = column_u32(st, 0),
                                               .text = keep_bytes(arena, st, 1),
                                               .error_code = keep_text(arena, st, 2),
                                               .error_text = keep_text(arena, st, 3)};
    }
    int rc = step == SQLITE_DONE ? 0 : pm_journal_fail(j, "read the texts of a page", err);
    sqlite3_reset(st);
    *rows_out = rows;
    *count_out = count;
    return rc;
}

static int by_place(const void *a, const void *b)
{
    const struct pm_page_error *x = a, *y = b;
    if (x->page != y->page)
        return x->page < y->page ? -1 : 1;
    return (x->region > y->region) - (x->region < y->region);
}

int pm_journal_errors(struct pm_journal *j, uint64_t job, uint32_t limit, struct pm_arena *arena,
                      struct pm_page_error **errors_out, uint32_t *count_out, struct pm_error *err)
{
    struct pm_page_error *errors = NULL;
    size_t count = 0, capacity = 0;
    int rc = 0;
    for (int regions = 0; regions < 2 && !rc; regions++) {
        sqlite3_stmt *st = pm_journal_sql(j, regions ? SQL_READ_REGION_ERRORS : SQL_READ_PAGE_ERRORS, err);
        if (!st)
            return PM_EIO;
        sqlite3_bind_int64(st, 1, (int64_t)job);
        sqlite3_bind_int64(st, 2, (int64_t)limit - (int64_t)count);
        int step;
        while ((step = sqlite3_step(st)) == SQLITE_ROW) {
            errors = grow(arena, errors, count, &capacity, sizeof *errors);
            struct pm_page_error *e = &errors[count++];
            *e = (struct pm_page_error){.page = column_u32(st, 0)};
            e->region = regions ? column_u32(st, 1) + 1 : 0;
            e->code = keep_text(arena, st, 1 + regions);
            e->text = keep_text(arena, st, 2 + regions);
            e->attempts = column_u32(st, 3 + regions);
        }
        rc = step == SQLITE_DONE ? 0 : pm_journal_fail(j, "read errors", err);
        sqlite3_reset(st);
    }
    if (count)
        qsort(errors, count, sizeof *errors, by_place);
    *errors_out = errors;
    *count_out = (uint32_t)count;
    return rc;
}

int pm_journal_manifest(struct pm_journal *j, uint64_t job, struct pm_arena *arena, struct pm_bytes *out,
                        struct pm_error *err)
{
    *out = (struct pm_bytes){0};
    sqlite3_stmt *st = pm_journal_sql(j, SQL_READ_MANIFEST, err);
    if (!st)
        return PM_EIO;
    sqlite3_bind_int64(st, 1, (int64_t)job);
    int step = sqlite3_step(st), rc = 0;
    if (step == SQLITE_ROW)
        *out = keep_bytes(arena, st, 0);
    else if (step != SQLITE_DONE)
        rc = pm_journal_fail(j, "read a manifest", err);
    sqlite3_reset(st);
    return rc;
}
