#include "model_book.h"

#include <stdio.h>
#include <string.h>

#define RECORD "d00000000000000000000000000000000000000000000000000000000000000aa"
#define SHEET  "p00000000000000000000000000000000000000000000000000000000000000bb"

static struct book_job *find(struct book *b, uint64_t id)
{
    for (int i = 0; i < REF_JOBS; i++)
        if (b->jobs[i].id == id)
            return &b->jobs[i];
    return NULL;
}

static struct book_page *page_of(struct book_job *j, uint32_t number)
{
    for (uint32_t i = 0; i < j->page_count; i++)
        if (j->pages[i].image.page == number)
            return &j->pages[i];
    ref_broken("a row of page %u is written, which job %llu does not have", number,
               (unsigned long long)j->id);
}

static void drop_tries(struct book_job *j, uint32_t page) /* 0: all */
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < j->tries_count; i++)
        if (page && pm_task_page(j->tries[i].task) != page)
            j->tries[kept++] = j->tries[i];
    j->tries_count = kept;
}

static void put_job(struct book *b, const struct pm_op *op)
{
    struct book_job *j = find(b, 0);
    if (!j || find(b, op->job) || op->job < b->next_job)
        ref_broken("job %llu is written a second time, or there are too many", (unsigned long long)op->job);
    *j = (struct book_job){
        .id = op->job, .state = PM_JOB_QUEUED, .priority = op->submit->priority, .created_us = op->wall_us};
    snprintf(j->client, sizeof j->client, "%s", op->client);
    snprintf(j->key, sizeof j->key, "%s", op->submit->key);
    b->next_job = op->job + 1;
}

static void open_job(struct book_job *j, const struct pm_op *op)
{
    j->is_open = true;
    j->page_count = op->page_count;
    for (uint32_t i = 0; i < op->page_count; i++)
        j->pages[i] = (struct book_page){.image = {.page = op->pages[i].page,
                                                   .width = op->pages[i].width,
                                                   .height = op->pages[i].height,
                                                   .stage = PM_STAGE_LAYOUT}};
}

static void finish_job(struct book *b, struct book_job *j, const struct pm_op *op)
{
    j->state = op->state;
    j->finished_us = op->wall_us;
    j->end = ++b->ends;
    memcpy(j->counts, op->counts, sizeof j->counts);
    for (uint32_t i = 0; i < j->page_count; i++) {
        struct pm_page_image *p = &j->pages[i].image;
        if (p->stage != PM_STAGE_REGIONS)
            continue;
        p->stage = PM_STAGE_LAYOUT;
        p->cost_count = p->final_count = 0;
    }
    drop_tries(j, 0);
}

static void lay_page(struct book_page *p, const struct pm_op *op)
{
    p->image.stage = PM_STAGE_REGIONS;
    p->image.sheet_bytes = op->bytes;
    p->image.cost_count = op->cost_count;
    p->image.final_count = 0;
    memcpy(p->costs, op->costs, op->cost_count * sizeof *op->costs);
}

static void end_page(struct book_job *j, struct book_page *p, const struct pm_op *op)
{
    struct pm_page_image *i = &p->image;
    i->cost_count = i->final_count = i->regions = i->regions_failed = 0;
    i->stage = op->kind == PM_OP_PAGE_RESET  ? PM_STAGE_LAYOUT
               : op->kind == PM_OP_PAGE_DONE ? PM_STAGE_DONE
                                             : PM_STAGE_FAILED;
    if (op->kind == PM_OP_PAGE_RESET)
        i->generation = op->generation;
    if (op->kind == PM_OP_PAGE_DONE) {
        i->regions = (uint32_t)op->bytes;
        i->regions_failed = op->failed;
    }
    drop_tries(j, op->page);
}

static void end_region(struct book_job *j, struct book_page *p, const struct pm_op *op)
{
    struct pm_page_image *i = &p->image;
    for (uint32_t k = 0; k < i->final_count; k++)
        if (p->finals[k].region == op->region)
            ref_broken("region %u of page %u of job %llu has two results", op->region, op->page,
                       (unsigned long long)j->id);
    if (i->stage != PM_STAGE_REGIONS || op->region >= i->cost_count)
        ref_broken("a result of region %u of page %u is written, which is not being read", op->region,
                   op->page);
    p->finals[i->final_count++] = (struct pm_region_image){op->region, op->kind == PM_OP_REGION_FAIL};
}

static void put_tries(struct book_job *j, const struct pm_op *op)
{
    uint32_t i = 0;
    while (i < j->tries_count && j->tries[i].task != op->task)
        i++;
    if (i == BOOK_TRIES)
        ref_broken("the book has no room for one more task that failed");
    j->tries_count += i == j->tries_count;
    j->tries[i] = (struct pm_tries_image){op->task, op->fails, op->crashes, op->is_suspect};
}

void book_apply(struct book *b, const struct pm_op *op)
{
    if (op->kind == PM_OP_JOB_PUT) {
        put_job(b, op);
        return;
    }
    struct book_job *j = find(b, op->job);
    if (!j || !op->job)
        ref_broken("a row of job %llu is written, which is not there", (unsigned long long)op->job);
    switch (op->kind) {
    case PM_OP_JOB_RUN:
        j->state = PM_JOB_RUNNING;
        break;
    case PM_OP_JOB_OPEN:
        open_job(j, op);
        break;
    case PM_OP_JOB_FINISH:
        finish_job(b, j, op);
        break;
    case PM_OP_JOB_RETRY:
        j->state = PM_JOB_QUEUED;
        j->generation = op->generation;
        break;
    case PM_OP_JOB_DROP:
        j->id = 0;
        break;
    case PM_OP_PAGE_LAID:
        lay_page(page_of(j, op->page), op);
        break;
    case PM_OP_PAGE_RESET:
    case PM_OP_PAGE_DONE:
    case PM_OP_PAGE_FAIL:
        end_page(j, page_of(j, op->page), op);
        break;
    case PM_OP_REGION_DONE:
    case PM_OP_REGION_FAIL:
        end_region(j, page_of(j, op->page), op);
        break;
    case PM_OP_TRIES:
        put_tries(j, op);
        break;
    case PM_OP_ATTEMPT:
        j->attempts++;
        break;
    default:
        break;
    }
}

static void show(struct book *b, struct book_job *j, struct pm_job_image *out)
{
    static const char *const text = "";
    for (uint32_t i = 0; i < j->page_count; i++) {
        struct book_page *p = &j->pages[i];
        b->shown[i] = p->image;
        b->shown[i].costs = p->costs;
        b->shown[i].finals = p->finals;
        b->shown[i].record = p->image.stage == PM_STAGE_REGIONS ? RECORD : text;
        b->shown[i].sheet = p->image.stage == PM_STAGE_REGIONS ? SHEET : text;
        b->shown[i].blob = p->image.stage == PM_STAGE_DONE ? RECORD : text;
        b->shown[i].error_code = b->shown[i].error_text = p->image.stage == PM_STAGE_FAILED ? "other" : text;
    }
    *out = (struct pm_job_image){.job = j->id,
                                 .submit = {.key = j->key, .name = "x.pdf", .priority = j->priority},
                                 .info = {.job = j->id,
                                          .client = j->client,
                                          .state = j->state,
                                          .created_wall_us = j->created_us,
                                          .finished_wall_us = j->finished_us,
                                          .error_code = text,
                                          .error_text = text,
                                          .pages = j->counts[0],
                                          .pages_done = j->counts[1],
                                          .pages_failed = j->counts[2],
                                          .regions = j->counts[3],
                                          .regions_done = j->counts[4],
                                          .regions_failed = j->counts[5],
                                          .retries = j->counts[6]},
                                 .generation = j->generation,
                                 .is_open = j->is_open,
                                 .pages = b->shown,
                                 .page_count = j->page_count,
                                 .tries = j->tries,
                                 .tries_count = j->tries_count};
}

bool book_job(struct book *b, uint64_t job, struct pm_job_image *out)
{
    struct book_job *j = job ? find(b, job) : NULL;
    if (j)
        show(b, j, out);
    return j != NULL;
}

void book_restore(struct book *b, struct pm_sched *s, struct pm_now now)
{
    struct pm_job_image image;
    struct pm_error err;
    uint64_t last = 0;
    for (bool more = true; more;) { /* finished ones: the next end after the last */
        struct book_job *next = NULL;
        for (int i = 0; i < REF_JOBS; i++) {
            struct book_job *j = &b->jobs[i];
            if (j->id && j->state > PM_JOB_RUNNING && j->end > last && (!next || j->end < next->end))
                next = j;
        }
        more = next != NULL;
        if (!more)
            break;
        last = next->end;
        show(b, next, &image);
        if (pm_sched_restore(s, now, &image, &err))
            ref_broken("a job is not taken back: %s", err.text);
    }
    for (int i = 0; i < REF_JOBS; i++) {
        struct book_job *j = &b->jobs[i];
        if (!j->id || j->state > PM_JOB_RUNNING)
            continue;
        show(b, j, &image);
        if (pm_sched_restore(s, now, &image, &err))
            ref_broken("a job is not taken back: %s", err.text);
    }
}
