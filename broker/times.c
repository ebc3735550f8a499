#include "broker/times.h"

#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"

#define US_A_MS 1000

struct page_time {
    uint32_t page;
    int64_t laid_us, read_us, done_us; /* wall clock; 0: not yet */
};
struct part {
    enum pm_task_kind kind;
    const char *name; /* the metrics' own: equal names are one pointer */
    uint64_t us, count;
};
struct job_times {
    uint64_t job;
    int64_t opened_us, first_page_us;
    uint64_t tokens, drafted, accepted;
    struct {
        uint64_t done, wait_us, run_us;
    } stages[PM_SCHED_KINDS];
    struct part *parts;
    size_t part_count, part_capacity;
    struct page_time *pages; /* ascending */
    size_t page_count, page_capacity;
    bool is_ended;
};

struct pm_times {
    struct pm_map jobs;             /* number -> struct job_times */
    uint64_t ended[PM_TIMES_ENDED]; /* a ring; 0: free */
    size_t next_ended;
};

struct pm_times *pm_times_new(void)
{
    return pm_xalloc(sizeof(struct pm_times));
}

static void free_job(struct job_times *j)
{
    free(j->pages);
    free(j->parts);
    free(j);
}

void pm_times_free(struct pm_times **times)
{
    struct pm_times *t = *times;
    size_t cursor = 0;
    uint64_t job;
    void *value;
    if (!t)
        return;
    while (pm_map_next(&t->jobs, &cursor, &job, &value))
        free_job(value);
    pm_map_free(&t->jobs);
    free(t);
    *times = NULL;
}

/* ---- what happened ---- */

/* One that begins anew after its end (retry) is no longer among the ended ones. */
static struct job_times *entry_of(struct pm_times *t, uint64_t job)
{
    struct job_times *j = pm_map_get(&t->jobs, job);
    if (!j) {
        j = pm_xalloc(sizeof *j);
        j->job = job;
        pm_map_put(&t->jobs, job, j);
    }
    j->is_ended = false;
    return j;
}

static struct page_time *page_of(struct job_times *j, uint32_t page)
{
    size_t low = 0, high = j->page_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (j->pages[middle].page < page)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < j->page_count && j->pages[low].page == page)
        return &j->pages[low];
    PM_GROW(j->pages, j->page_count, j->page_capacity); /* opened under another broker, mostly in order */
    memmove(j->pages + low + 1, j->pages + low, (j->page_count - low) * sizeof *j->pages);
    j->page_count++;
    j->pages[low] = (struct page_time){.page = page};
    return &j->pages[low];
}

static void forget(struct pm_times *t, uint64_t job)
{
    struct job_times *j = pm_map_get(&t->jobs, job);
    if (!j)
        return;
    pm_map_remove(&t->jobs, job);
    free_job(j);
}

static void end(struct pm_times *t, uint64_t job)
{
    struct job_times *j = pm_map_get(&t->jobs, job), *oldest;
    if (!j || j->is_ended)
        return;
    free(j->pages);
    j->pages = NULL;
    j->page_count = j->page_capacity = 0;
    j->is_ended = true;
    uint64_t *place = &t->ended[t->next_ended++ % PM_TIMES_ENDED];
    oldest = *place && *place != job ? pm_map_get(&t->jobs, *place) : NULL;
    if (oldest && oldest->is_ended)
        forget(t, *place);
    *place = job;
}

static void opened(struct pm_times *t, int64_t wall_us, const struct pm_op *op)
{
    struct job_times *j = entry_of(t, op->job);
    j->opened_us = wall_us;
    free(j->pages);
    j->pages = pm_xalloc((op->page_count + 1) * sizeof *j->pages);
    j->page_count = j->page_capacity = op->page_count;
    for (uint32_t i = 0; i < op->page_count; i++)
        j->pages[i].page = op->pages[i].page;
}

void pm_times_follow(struct pm_times *t, int64_t wall_us, const struct pm_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct pm_op *op = &ops[i];
        struct job_times *j;
        switch (op->kind) {
        case PM_OP_JOB_OPEN:
            opened(t, wall_us, op);
            break;
        case PM_OP_PAGE_LAID:
            page_of(entry_of(t, op->job), op->page)->laid_us = wall_us;
            break;
        case PM_OP_REGION_DONE:
        case PM_OP_REGION_FAIL:
            page_of(entry_of(t, op->job), op->page)->read_us = wall_us; /* the last one stays */
            break;
        case PM_OP_PAGE_DONE:
            j = entry_of(t, op->job);
            j->first_page_us = j->first_page_us ? j->first_page_us : wall_us;
            page_of(j, op->page)->done_us = wall_us;
            break;
        case PM_OP_PAGE_RESET:
            *page_of(entry_of(t, op->job), op->page) = (struct page_time){.page = op->page};
            break;
        case PM_OP_JOB_FINISH:
            end(t, op->job);
            break;
        case PM_OP_JOB_DROP:
            forget(t, op->job);
            break;
        default:
            break;
        }
    }
}

static void add_part(struct job_times *j, enum pm_task_kind kind, const char *name, uint64_t us)
{
    size_t i = 0;
    while (i < j->part_count && j->parts[i].name != name)
        i++;
    if (i == j->part_count) {
        PM_GROW(j->parts, j->part_count, j->part_capacity);
        j->parts[j->part_count++] = (struct part){kind, name, 0, 0};
    }
    j->parts[i].us += us;
    j->parts[i].count++;
}

void pm_times_result(struct pm_times *t, int64_t wait_us, int64_t run_us, const struct pm_msg_result *r)
{
    enum pm_task_kind kind = pm_task_kind(r->task);
    struct job_times *j = entry_of(t, pm_task_job(r->task));
    j->tokens += r->tokens;
    j->drafted += r->drafted;
    j->accepted += r->accepted;
    j->stages[kind - 1].done++;
    j->stages[kind - 1].wait_us += wait_us > 0 ? (uint64_t)wait_us : 0;
    j->stages[kind - 1].run_us += run_us > 0 ? (uint64_t)run_us : 0;
    for (uint32_t i = 0; i < r->phase_count; i++)
        add_part(j, kind, r->phases[i].name, r->phases[i].us);
}

/* ---- what is told ---- */

void pm_times_info(const struct pm_times *t, struct pm_arena *arena, struct pm_job_info *info)
{
    const struct job_times *j = pm_map_get(&t->jobs, info->job);
    if (!j)
        return;
    info->opened_wall_us = j->opened_us;
    info->first_page_wall_us = j->first_page_us;
    info->tokens = j->tokens;
    info->drafted = j->drafted;
    info->accepted = j->accepted;
    if (!arena)
        return;
    info->stages = pm_arena_alloc(arena, PM_SCHED_KINDS * sizeof *info->stages);
    info->stage_count = 0;
    for (uint32_t k = 0; k < PM_SCHED_KINDS; k++)
        if (j->stages[k].done)
            info->stages[info->stage_count++] = (struct pm_stage){.kind = pm_kind_name(k + 1),
                                                                  .done = j->stages[k].done,
                                                                  .wait_us = j->stages[k].wait_us,
                                                                  .run_us = j->stages[k].run_us};
}

/* Milliseconds after `from`, at least 1: 0 means unknown. */
static uint32_t ms_after(int64_t from, int64_t wall_us)
{
    int64_t ms = wall_us > from ? (wall_us - from) / US_A_MS : 0;
    return !wall_us ? 0 : ms < 1 ? 1 : ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

void pm_times_manifest(const struct pm_times *t, int64_t wall_us, const struct pm_job_info *info,
                       struct pm_arena *arena, struct pm_manifest *m)
{
    const struct job_times *j = pm_map_get(&t->jobs, info->job);
    m->accepted_wall_us = info->created_wall_us;
    m->started_wall_us = info->started_wall_us;
    m->finished_wall_us = wall_us;
    m->opened_wall_us = m->first_page_wall_us = 0;
    m->page_time_count = m->time_count = 0;
    m->tokens = 0;
    if (!j)
        return;
    m->opened_wall_us = j->opened_us;
    m->first_page_wall_us = j->first_page_us;
    m->tokens = j->tokens;
    m->page_times = pm_arena_alloc(arena, (j->page_count + 1) * PM_PAGE_TIMES * sizeof *m->page_times);
    for (size_t i = 0; i < j->page_count && i < PM_LIMIT_DOCUMENT_PAGES; i++) {
        const struct page_time *p = &j->pages[i];
        uint32_t *at = &m->page_times[m->page_time_count];
        at[0] = p->page;
        at[1] = ms_after(info->created_wall_us, p->laid_us);
        at[2] = ms_after(info->created_wall_us, p->read_us);
        at[3] = ms_after(info->created_wall_us, p->done_us);
        m->page_time_count += PM_PAGE_TIMES;
    }
    m->times = pm_arena_alloc(arena, (2 * PM_SCHED_KINDS + j->part_count) * sizeof *m->times);
    for (uint32_t k = 0; k < PM_SCHED_KINDS; k++) {
        const char *kind = pm_kind_name(k + 1);
        uint64_t done = j->stages[k].done;
        if (!done)
            continue;
        m->times[m->time_count++] = (struct pm_part_time){kind, "wait", j->stages[k].wait_us, done};
        m->times[m->time_count++] = (struct pm_part_time){kind, "run", j->stages[k].run_us, done};
        for (size_t i = 0; i < j->part_count; i++)
            if (j->parts[i].kind == (enum pm_task_kind)(k + 1))
                m->times[m->time_count++] =
                    (struct pm_part_time){kind, j->parts[i].name, j->parts[i].us, j->parts[i].count};
    }
}

void pm_times_of_manifest(const struct pm_manifest *m, struct pm_arena *arena, struct pm_job_info *info)
{
    info->opened_wall_us = m->opened_wall_us;
    info->first_page_wall_us = m->first_page_wall_us;
    info->tokens = m->tokens;
    info->stages = pm_arena_alloc(arena, PM_SCHED_KINDS * sizeof *info->stages);
    info->stage_count = 0;
    for (uint32_t k = 0; k < PM_SCHED_KINDS; k++) {
        struct pm_stage stage = {.kind = pm_kind_name(k + 1)};
        bool is_there = false;
        for (uint32_t i = 0; i < m->time_count; i++) {
            if (strcmp(m->times[i].kind, stage.kind))
                continue;
            is_there = true;
            if (!strcmp(m->times[i].name, "wait"))
                stage.wait_us = m->times[i].us;
            if (strcmp(m->times[i].name, "run"))
                continue;
            stage.run_us = m->times[i].us;
            stage.done = m->times[i].count;
        }
        if (is_there)
            info->stages[info->stage_count++] = stage;
    }
}
