/* Who is next: levels with ageing, clients by what they were served, jobs and pages by number. */
#include <stdlib.h>
#include <string.h>

#include "broker/sched_internal.h"

#define STRANDED_PAGES 2u

void pm_heap_push(struct heap *h, uint64_t item)
{
    PM_GROW(h->items, h->count, h->capacity);
    size_t i = h->count++;
    while (i && h->items[(i - 1) / 2] > item) {
        h->items[i] = h->items[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h->items[i] = item;
}

void pm_heap_pop(struct heap *h)
{
    uint64_t last = h->items[--h->count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->count)
            break;
        if (child + 1 < h->count && h->items[child + 1] < h->items[child])
            child++;
        if (h->items[child] >= last)
            break;
        h->items[i] = h->items[child];
        i = child;
    }
    h->items[i] = last;
}

void pm_heap_free(struct heap *h)
{
    free(h->items);
    *h = (struct heap){0};
}

uint32_t pm_queue_of_reader(struct pm_sched *s, const char *reader)
{
    for (size_t i = QUEUE_REGION; i < s->queue_count; i++)
        if (!strcmp(s->queues[i]->reader, reader))
            return (uint32_t)i;
    PM_GROW(s->queues, s->queue_count, s->queue_capacity);
    struct queue *q = pm_xalloc(sizeof *q);
    q->reader = pm_xstrdup(reader);
    s->queues[s->queue_count] = q;
    return (uint32_t)s->queue_count++;
}

/* Where a task queues: its queue, its job's place there, and the door. */
static void where(const struct ref *r, uint32_t *queue, unsigned *place, unsigned *door)
{
    *door = r->kind == PM_KIND_PAGE || r->kind == PM_KIND_ASSEMBLE_DOC;
    if (r->kind == PM_KIND_OPEN || r->kind == PM_KIND_PAGE) {
        *queue = QUEUE_LAYOUT;
        *place = SLOT_LAYOUT;
    } else if (r->kind == PM_KIND_REGION) {
        *queue = r->job->region_queue;
        *place = SLOT_REGION;
    } else {
        *queue = QUEUE_COLLECT;
        *place = SLOT_COLLECT;
    }
}

static bool lane_is_empty(const struct lane *l)
{
    for (unsigned level = 0; level < PM_SCHED_LEVELS; level++)
        if (l->jobs[level][0].count || l->jobs[level][1].count)
            return false;
    return true;
}

static struct lane *lane_of(struct queue *q, const char *client)
{
    struct lane *empty = NULL;
    for (size_t i = 0; i < q->lane_count; i++) {
        if (!strcmp(q->lanes[i].client, client))
            return &q->lanes[i];
        if (lane_is_empty(&q->lanes[i]) && q->lanes[i].served <= q->clock)
            empty = &q->lanes[i]; /* it is owed nothing and owes nothing: its place can be reused */
    }
    if (empty && q->lane_count >= 64) {
        free(empty->client);
    } else {
        PM_GROW(q->lanes, q->lane_count, q->lane_capacity);
        empty = &q->lanes[q->lane_count++];
        *empty = (struct lane){0};
    }
    empty->client = pm_xstrdup(client);
    empty->served = q->clock;
    return empty;
}

static void enqueue(struct pm_sched *s, struct job *j, uint32_t queue, unsigned door)
{
    struct queue *q = s->queues[queue];
    struct lane *lane = lane_of(q, j->client);
    uint32_t level = j->submit.priority;
    if (lane_is_empty(lane) && lane->served < q->clock)
        lane->served = q->clock; /* idle time earns nothing */
    if (!q->entries[level]++)
        q->served_us[level] = s->now_us;
    pm_heap_push(&lane->jobs[level][door], j->id);
}

void pm_task_ready(struct pm_sched *s, const struct ref *r)
{
    uint32_t queue;
    unsigned place, door;
    where(r, &queue, &place, &door);
    struct job *j = r->job;
    r->t->state = TASK_READY;
    if (r->kind != PM_KIND_REGION || !r->page->regions_ready)
        *(r->page ? &r->page->ready_us : &j->ready_us) = s->now_us;
    uint64_t index = r->page ? (uint64_t)(r->page - j->pages) : 0;
    if (r->kind == PM_KIND_PAGE)
        pm_heap_push(&j->ready_pages, index);
    else if (r->kind == PM_KIND_ASSEMBLE_PAGE)
        pm_heap_push(&j->ready_assemble, index);
    else if (r->kind == PM_KIND_REGION) {
        if (!r->page->regions_ready++)
            pm_heap_push(&j->ready_regions, index);
        if (r->slot < r->page->cursor)
            r->page->cursor = r->slot;
    }
    struct place *p = &j->place[place];
    if (!p->ready[door]++)
        p->since_us[door] = s->now_us;
    s->queues[queue]->ready[door]++;
    if (!p->is_queued[door]) {
        p->is_queued[door] = true;
        enqueue(s, j, queue, door);
    }
}

void pm_task_unready(struct pm_sched *s, const struct ref *r)
{
    uint32_t queue;
    unsigned place, door;
    where(r, &queue, &place, &door);
    r->t->state = TASK_NONE;
    r->job->place[place].ready[door]--;
    s->queues[queue]->ready[door]--;
    if (r->kind == PM_KIND_REGION)
        r->page->regions_ready--;
}

/* The lowest page of a heap for which `has` says yes; NULL when none. */
static struct page *first_page(const struct job *j, struct heap *h, bool (*has)(const struct page *))
{
    while (h->count) {
        struct page *p = h->items[0] < j->page_count ? &j->pages[h->items[0]] : NULL;
        if (p && has(p))
            return p;
        pm_heap_pop(h);
    }
    return NULL;
}

static bool has_layout(const struct page *p)
{
    return p->layout.state == TASK_READY;
}
static bool has_assemble(const struct page *p)
{
    return p->assemble.state == TASK_READY;
}
static bool has_regions(const struct page *p)
{
    return p->regions_ready > 0;
}

static struct ref first_task(struct job *j, unsigned place, unsigned door)
{
    struct page *p;
    if (place == SLOT_LAYOUT && door == 0)
        return pm_ref_of(j, NULL, PM_TASK_SLOT_PAGE);
    if (place == SLOT_COLLECT && door == 1)
        return pm_ref_of(j, NULL, PM_TASK_SLOT_ASSEMBLE);
    if (place == SLOT_LAYOUT) {
        p = first_page(j, &j->ready_pages, has_layout);
        PM_ASSERT(p);
        return pm_ref_of(j, p, PM_TASK_SLOT_PAGE);
    }
    if (place == SLOT_COLLECT) {
        p = first_page(j, &j->ready_assemble, has_assemble);
        PM_ASSERT(p);
        return pm_ref_of(j, p, PM_TASK_SLOT_ASSEMBLE);
    }
    p = first_page(j, &j->ready_regions, has_regions);
    PM_ASSERT(p);
    while (p->regions[p->cursor].t.state != TASK_READY)
        p->cursor++;
    return pm_ref_of(j, p, p->cursor);
}

static unsigned place_of_queue(uint32_t queue)
{
    return queue == QUEUE_LAYOUT ? SLOT_LAYOUT : queue == QUEUE_COLLECT ? SLOT_COLLECT : SLOT_REGION;
}

/* A page for a reader that nobody has: its crops would lie in memory for as long as that lasts. */
static bool is_stranded(const struct queue *reader)
{
    return !reader->servers && reader->pages >= STRANDED_PAGES;
}

/* Half of what is plenty is enough to come back: parking and coming back look at all jobs. */
bool pm_queue_has_plenty(const struct pm_sched *s, const struct queue *q)
{
    uint64_t pages = 0, part = q->has_parked ? 2 : 1;
    for (size_t i = QUEUE_REGION; i < s->queue_count; i++)
        pages += s->queues[i]->pages;
    if (!q->servers || q->pages < 2)
        return false;
    /* Readers share the memory for pages, so that a slow one leaves some of it to the others. */
    if (s->reader_count > 1 &&
        s->sheet_bytes / pages * q->pages > s->config.pixel_budget_bytes / s->reader_count / part)
        return true;
    return q->ready[0] >= (64 + 2 * q->room) / part || q->pages >= 256 / part;
}

/* Pages that would stand in the way of other readers' pages. */
static bool is_parked(struct pm_sched *s, const struct job *j, unsigned place, unsigned door)
{
    struct queue *q = s->queues[j->region_queue];
    if (place != SLOT_LAYOUT || door != 1)
        return false;
    if (is_stranded(q))
        return true;
    if (s->reader_count < 2 || !pm_queue_has_plenty(s, q))
        return false;
    q->has_parked = true;
    return true;
}

void pm_queue_unpark(struct pm_sched *s, uint32_t queue)
{
    size_t cursor = 0;
    uint64_t id;
    void *value;
    s->queues[queue]->has_parked = false;
    while (pm_map_next(&s->jobs, &cursor, &id, &value)) {
        struct job *j = value;
        struct place *p = &j->place[SLOT_LAYOUT];
        if (j->region_queue != queue || j->state > PM_JOB_RUNNING || !p->ready[1] || p->is_queued[1])
            continue;
        p->is_queued[1] = true;
        enqueue(s, j, QUEUE_LAYOUT, 1);
    }
}

/* The first job of a lane that really has something ready; stale and stranded entries go on the way. */
static struct job *lane_head(struct pm_sched *s, struct queue *q, struct lane *lane, unsigned level,
                             unsigned door, unsigned place)
{
    struct heap *h = &lane->jobs[level][door];
    while (h->count) {
        struct job *j = pm_sched_find(s, h->items[0]);
        if (j && j->place[place].is_queued[door]) {
            if (j->place[place].ready[door] && !is_parked(s, j, place, door))
                return j;
            j->place[place].is_queued[door] = false;
        }
        pm_heap_pop(h);
        q->entries[level]--;
    }
    return NULL;
}

/* The best job of a level: the lane that was served least; in it the lower job of both doors. Opening
 * documents ahead of pages keeps layoutd supplied, so an open goes first while few pages are ready. */
static struct job *level_head(struct pm_sched *s, uint32_t queue, unsigned level, unsigned doors,
                              unsigned *door_out)
{
    struct queue *q = s->queues[queue];
    unsigned place = place_of_queue(queue);
    struct job *best = NULL;
    double best_served = 0;
    for (size_t i = 0; i < q->lane_count; i++) {
        struct lane *lane = &q->lanes[i];
        if (best && lane->served >= best_served)
            continue;
        struct job *a = doors & 1 ? lane_head(s, q, lane, level, 0, place) : NULL;
        struct job *b = doors & 2 ? lane_head(s, q, lane, level, 1, place) : NULL;
        if (!a && !b)
            continue;
        bool first = a && (!b || a->id <= b->id || (queue == QUEUE_LAYOUT && q->ready[1] < 4));
        best = first ? a : b;
        *door_out = first ? 0 : 1;
        best_served = lane->served;
    }
    return best;
}

bool pm_queue_next(struct pm_sched *s, uint32_t queue, unsigned doors, struct ref *out)
{
    struct queue *q = s->queues[queue];
    struct job *best = NULL;
    unsigned best_door = 0;
    double best_rank = 0;
    for (unsigned level = PM_SCHED_LEVELS; level-- > 0;) {
        if (!q->entries[level])
            continue;
        double rank = level + (double)(s->now_us - q->served_us[level]) / (double)s->config.age_us;
        if (best && rank <= best_rank)
            continue;
        unsigned door = 0;
        struct job *j = level_head(s, queue, level, doors, &door);
        if (!j)
            continue;
        best = j;
        best_door = door;
        best_rank = rank;
    }
    if (!best)
        return false;
    *out = first_task(best, place_of_queue(queue), best_door);
    return true;
}

void pm_queue_charge(struct pm_sched *s, uint32_t queue, const struct ref *r, uint32_t cost)
{
    struct queue *q = s->queues[queue];
    struct lane *lane = lane_of(q, r->job->client);
    uint32_t at;
    unsigned place, door;
    where(r, &at, &place, &door);
    q->clock = lane->served > q->clock ? lane->served : q->clock;
    lane->served += cost;
    q->served_us[r->job->submit.priority] = s->now_us;
    r->job->place[place].since_us[door] = s->now_us;
}

bool pm_queue_has(const struct pm_sched *s, uint32_t queue)
{
    return s->queues[queue]->ready[0] || s->queues[queue]->ready[1];
}
