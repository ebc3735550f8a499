/* Who is next: levels with ageing, in a level the client that was served least (virtual-time fair queueing:
 * a client's account grows by the predicted work of what it is given and is put right when that is measured;
 * who comes late starts at the least account of those that wait), in a client jobs and pages by number, in a
 * page the longest region. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "broker/sched_internal.h"

#define STRANDED_PAGES 2u
#define TAIL_PER_ROOM  8u

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

static struct lane *find_lane(const struct queue *q, uint32_t client)
{
    for (size_t i = 0; i < q->lane_count; i++)
        if (q->lanes[i].client == client)
            return &q->lanes[i];
    return NULL;
}

static struct lane *lane_of(struct pm_sched *s, struct queue *q, uint32_t client)
{
    struct lane *lane = find_lane(q, client), *empty = NULL;
    if (lane)
        return lane;
    for (size_t i = 0; i < q->lane_count && q->lane_count >= 64 && !empty; i++)
        if (lane_is_empty(&q->lanes[i]) && !q->lanes[i].ready && !q->lanes[i].laying &&
            q->lanes[i].served_us <= q->clock_us)
            empty = &q->lanes[i]; /* it is owed nothing and owes nothing: its place can be reused */
    if (empty) {
        pm_client_drop(s, empty->client);
        empty->measured_us = empty->predicted_us = empty->page_regions = 0;
    } else {
        PM_GROW(q->lanes, q->lane_count, q->lane_capacity);
        empty = &q->lanes[q->lane_count++];
        *empty = (struct lane){0};
    }
    empty->client = pm_client_use(s, pm_client_name(s, client));
    empty->served_us = q->clock_us;
    empty->is_new = true;
    return empty;
}

/* Of the clients that wait; who comes begins there. */
static double least_served(const struct queue *q)
{
    double least = INFINITY;
    for (size_t i = 0; i < q->lane_count; i++)
        if (!lane_is_empty(&q->lanes[i]) && q->lanes[i].served_us < least)
            least = q->lanes[i].served_us;
    return least < INFINITY ? least : q->clock_us;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Jobs that were cancelled leave their place in the queue behind; and those below it, which may wait for
 * long, hide it. What is sorted is a heap. */
static void prune_lane(struct pm_sched *s, struct queue *q, unsigned level, struct heap *h, unsigned place,
                       unsigned door)
{
    size_t kept = 0;
    qsort(h->items, h->count, sizeof *h->items, by_number);
    for (size_t i = 0; i < h->count; i++) {
        uint64_t id = h->items[i];
        const struct job *j = pm_sched_find(s, id);
        bool waits = j ? j->place[place].is_queued[door]
                       : place == SLOT_LAYOUT && door == 0 && pm_sched_state(s, id) == PM_JOB_QUEUED;
        if (waits && (!kept || h->items[kept - 1] != id))
            h->items[kept++] = id;
    }
    q->entries[level] -= h->count - kept;
    h->count = kept;
    h->prune_at = kept * 2;
}

static unsigned place_of_queue(uint32_t queue)
{
    return queue == QUEUE_LAYOUT ? SLOT_LAYOUT : queue == QUEUE_COLLECT ? SLOT_COLLECT : SLOT_REGION;
}

static void enqueue(struct pm_sched *s, uint64_t job, const struct stub *stub, uint32_t queue, unsigned door)
{
    struct queue *q = s->queues[queue];
    struct lane *lane = lane_of(s, q, stub->client);
    uint32_t level = stub->priority;
    if (lane_is_empty(lane)) {
        double least_us = least_served(q);
        lane->served_us = lane->is_new || lane->served_us < least_us ? least_us : lane->served_us;
        lane->is_new = false; /* idle time earns nothing, and costs nothing */
    }
    if (!q->entries[level]++)
        q->served_us[level] = s->now_us;
    struct heap *h = &lane->jobs[level][door];
    if (h->count >= h->prune_at && h->count > 4096 + 2 * q->ready[door])
        prune_lane(s, q, level, h, place_of_queue(queue), door);
    pm_heap_push(h, job);
}

void pm_queue_sleeper(struct pm_sched *s, uint64_t id, const struct stub *stub)
{
    s->queues[QUEUE_LAYOUT]->ready[0]++;
    enqueue(s, id, stub, QUEUE_LAYOUT, 0);
}

void pm_queue_unsleeper(struct pm_sched *s)
{
    s->queues[QUEUE_LAYOUT]->ready[0]--;
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
        r->page->cursor = 0;
    }
    struct place *p = &j->place[place];
    struct queue *q = s->queues[queue];
    p->ready[door]++;
    q->ready[door]++;
    if (!p->is_queued[door]) {
        p->is_queued[door] = true;
        enqueue(s, j->id, j->stub, queue, door);
    }
    if (r->kind == PM_KIND_REGION) {
        q->ready_cost += r->page->regions[r->slot].cost;
        lane_of(s, q, j->stub->client)->ready++;
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
    if (r->kind == PM_KIND_REGION) {
        struct queue *q = s->queues[queue];
        r->page->regions_ready--;
        q->ready_cost -= r->page->regions[r->slot].cost;
        lane_of(s, q, r->job->stub->client)->ready--;
    }
}

/* ---- the first task of a job ---- */

struct placed {
    uint32_t cost, slot;
};

static int by_cost(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;
    if (x->cost != y->cost)
        return x->cost > y->cost ? -1 : 1;
    return (x->slot > y->slot) - (x->slot < y->slot);
}

void pm_page_order(struct page *p)
{
    struct placed *all = pm_xalloc(p->region_count * sizeof *all + 1);
    for (uint32_t i = 0; i < p->region_count; i++)
        all[i] = (struct placed){p->regions[i].cost, i};
    if (p->region_count)
        qsort(all, p->region_count, sizeof *all, by_cost);
    p->order = pm_xrealloc(p->order, p->region_count * sizeof *p->order + 1);
    for (uint32_t i = 0; i < p->region_count; i++)
        p->order[i] = (uint16_t)all[i].slot;
    p->cursor = 0;
    free(all);
}

static uint32_t longest(struct page *p)
{
    while (p->regions[p->order[p->cursor]].t.state != TASK_READY)
        p->cursor++;
    return p->order[p->cursor];
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

/* Nothing but the end of one job is left: a region that takes as long as all the rest does, spread over the
 * workers, begins now, or everybody will wait for it. */
static struct page *last_of_job(const struct pm_sched *s, struct job *j)
{
    const struct queue *q = s->queues[j->region_queue];
    struct page *best = NULL;
    uint32_t most = 0;
    if (q->ready[0] != j->place[SLOT_REGION].ready[0] || j->place[SLOT_LAYOUT].ready[1] ||
        s->queues[QUEUE_LAYOUT]->ready[0] || q->ready[0] > TAIL_PER_ROOM * q->room)
        return NULL;
    for (size_t i = 0; i < j->ready_regions.count; i++) {
        uint64_t index = j->ready_regions.items[i];
        struct page *p = index < j->page_count ? &j->pages[index] : NULL;
        if (!p || !p->regions_ready)
            continue;
        uint32_t cost = p->regions[longest(p)].cost;
        if (!best || cost > most || (cost == most && p < best)) {
            best = p;
            most = cost;
        }
    }
    return best && q->ready_cost <= (uint64_t)most * (q->servers + 1) ? best : NULL;
}

static struct ref first_task(const struct pm_sched *s, struct job *j, unsigned place, unsigned door)
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
    p = last_of_job(s, j);
    if (!p)
        p = first_page(j, &j->ready_regions, has_regions);
    PM_ASSERT(p);
    return pm_ref_of(j, p, longest(p));
}

/* A page for a reader that nobody has: its crops would lie in memory for as long as that lasts. */
static bool is_stranded(const struct queue *reader)
{
    return !reader->servers && reader->pages >= STRANDED_PAGES;
}

/* Half of what is plenty is enough to come back, so that parking is not done and undone all the time. */
bool pm_queue_has_plenty(const struct pm_sched *s, const struct queue *q, const struct job *j)
{
    uint64_t pages = 0, part = q->parked_count ? 2 : 1;
    for (size_t i = QUEUE_REGION; i < s->queue_count; i++)
        pages += s->queues[i]->pages;
    if (!q->servers || q->pages < 2)
        return false;
    /* Readers share the memory for pages, so that a slow one leaves some of it to the others. */
    if (s->reader_count > 1 &&
        s->sheet_bytes / pages * q->pages > s->config.pixel_budget_bytes / s->reader_count / part)
        return true;
    if (q->pages >= 256 / part)
        return true;
    uint64_t enough = (64 + 2 * q->room) / part;
    if (!j)
        return q->ready[0] >= enough;
    /* Each client may have as much: one's large pages must not keep another's from being laid out. */
    const struct lane *own = find_lane(q, j->stub->client);
    return own && (double)own->ready + own->laying * own->page_regions >= (double)enough;
}

/* Pages that would stand in the way of other readers' pages. */
static bool is_parked(struct pm_sched *s, const struct job *j, unsigned place, unsigned door)
{
    struct queue *q = s->queues[j->region_queue];
    if (place != SLOT_LAYOUT || door != 1)
        return false;
    return is_stranded(q) || (s->reader_count > 1 && pm_queue_has_plenty(s, q, j));
}

static void park(struct pm_sched *s, const struct job *j)
{
    struct queue *q = s->queues[j->region_queue];
    PM_GROW(q->parked, q->parked_count, q->parked_capacity);
    q->parked[q->parked_count++] = (uint32_t)j->id;
}

void pm_queue_unpark(struct pm_sched *s, uint32_t queue)
{
    struct queue *q = s->queues[queue];
    for (size_t i = 0; i < q->parked_count; i++) {
        struct job *j = pm_sched_find(s, q->parked[i]);
        struct place *p = j ? &j->place[SLOT_LAYOUT] : NULL;
        if (!p || !p->ready[1] || p->is_queued[1])
            continue;
        p->is_queued[1] = true;
        enqueue(s, j->id, j->stub, QUEUE_LAYOUT, 1);
    }
    q->parked_count = 0;
}

/* ---- the first job of a queue ---- */

/* The first job of a lane that really has something ready; stale and stranded entries go on the way. 0: none.
 * A job that sleeps has only its open task. */
static uint64_t lane_head(struct pm_sched *s, struct queue *q, struct lane *lane, unsigned level,
                          unsigned door, unsigned place)
{
    struct heap *h = &lane->jobs[level][door];
    while (h->count) {
        uint64_t id = h->items[0];
        struct job *j = pm_sched_find(s, id);
        if (j && j->place[place].is_queued[door]) {
            bool is_ready = j->place[place].ready[door] > 0;
            if (is_ready && !is_parked(s, j, place, door))
                return id;
            j->place[place].is_queued[door] = false;
            if (is_ready)
                park(s, j);
        } else if (!j && place == SLOT_LAYOUT && door == 0 && pm_sched_state(s, id) == PM_JOB_QUEUED) {
            return id;
        }
        pm_heap_pop(h);
        q->entries[level]--;
    }
    return 0;
}

/* The best job of a level: the lane that was served least; in it the lower job of both doors. Opening
 * documents ahead of pages keeps layoutd supplied, so an open goes first while few pages are ready. A client
 * whose pages wait for readers already lets others lay out theirs. */
static uint64_t level_head(struct pm_sched *s, uint32_t queue, unsigned level, unsigned doors,
                           unsigned *door_out)
{
    struct queue *q = s->queues[queue];
    unsigned place = place_of_queue(queue);
    uint64_t best = 0;
    bool best_is_held = false;
    double best_served = 0;
    for (size_t i = 0; i < q->lane_count; i++) {
        struct lane *lane = &q->lanes[i];
        if (best && !best_is_held && lane->served_us >= best_served)
            continue;
        uint64_t a = doors & 1 ? lane_head(s, q, lane, level, 0, place) : 0;
        uint64_t b = doors & 2 ? lane_head(s, q, lane, level, 1, place) : 0;
        if (!a && !b)
            continue;
        bool first = a && (!b || a <= b || (queue == QUEUE_LAYOUT && q->ready[1] < 4));
        bool is_held = false;
        if (!first && queue == QUEUE_LAYOUT) {
            const struct job *j = pm_sched_find(s, b);
            is_held = pm_queue_has_plenty(s, s->queues[j->region_queue], j);
        }
        if (is_held && lane->served_us < q->clock_us)
            lane->served_us = q->clock_us; /* nor does time with plenty earn anything */
        if (best && (is_held != best_is_held ? is_held : lane->served_us >= best_served))
            continue;
        best = first ? a : b;
        *door_out = first ? 0 : 1;
        best_is_held = is_held;
        best_served = lane->served_us;
    }
    return best;
}

static uint64_t queue_head(struct pm_sched *s, uint32_t queue, unsigned doors, unsigned *door_out)
{
    struct queue *q = s->queues[queue];
    uint64_t best = 0;
    double best_rank = 0;
    for (unsigned level = PM_SCHED_LEVELS; level-- > 0;) {
        if (!q->entries[level])
            continue;
        double rank = level + (double)(s->now_us - q->served_us[level]) / (double)s->config.age_us;
        if (best && rank <= best_rank)
            continue;
        unsigned door = 0;
        uint64_t id = level_head(s, queue, level, doors, &door);
        if (!id)
            continue;
        best = id;
        *door_out = door;
        best_rank = rank;
    }
    return best;
}

bool pm_queue_next(struct pm_sched *s, uint32_t queue, unsigned doors, struct ref *out)
{
    unsigned door = 0;
    uint64_t id;
    while ((id = queue_head(s, queue, doors, &door))) {
        struct pm_error err;
        struct job *j = pm_job_wake(s, id, &err);
        if (j) {
            *out = first_task(s, j, place_of_queue(queue), door);
            return true;
        }
        if (err.code == PM_ENOMEM) /* no fault of the job: the next turn tries again */
            return false;
        pm_fail_prefix(&err, "the job cannot be read back");
        pm_stub_finish(s, (struct pm_now){s->now_us, s->wall_us}, id, PM_JOB_FAILED, pm_err_name(err.code),
                       err.text);
    }
    return false;
}

/* ---- accounts ---- */

static uint32_t queue_of(const struct ref *r)
{
    uint32_t queue;
    unsigned place, door;
    where(r, &queue, &place, &door);
    return queue;
}

void pm_queue_laying(struct pm_sched *s, uint32_t queue, uint32_t client, int change)
{
    lane_of(s, s->queues[queue], client)->laying += (uint32_t)change;
}

void pm_queue_laid(struct pm_sched *s, const struct ref *r)
{
    struct lane *lane = lane_of(s, s->queues[r->job->region_queue], r->job->stub->client);
    double more = (double)r->page->regions_wanted - lane->page_regions;
    lane->page_regions += lane->page_regions > 0 ? more / 4 : more;
}

void pm_queue_charge(struct pm_sched *s, const struct ref *r, double work_us)
{
    struct queue *q = s->queues[queue_of(r)];
    struct lane *lane = lane_of(s, q, r->job->stub->client);
    q->clock_us = lane->served_us > q->clock_us ? lane->served_us : q->clock_us;
    lane->served_us += work_us;
    q->served_us[r->job->submit.priority] = s->now_us;
}

void pm_queue_correct(struct pm_sched *s, const struct ref *r, double more_us)
{
    struct lane *lane = find_lane(s->queues[queue_of(r)], r->job->stub->client);
    if (lane)
        lane->served_us += more_us;
}

#define FACTOR_MOST   20.0
#define FACTOR_WEIGHT 8 /* tasks until a client's own measure counts for more than the others' */

double pm_queue_factor(struct pm_sched *s, const struct ref *r)
{
    const struct lane *lane = find_lane(s->queues[queue_of(r)], r->job->stub->client);
    if (!lane || lane->predicted_us <= 0)
        return 1;
    double factor = lane->measured_us / lane->predicted_us;
    return factor > FACTOR_MOST ? FACTOR_MOST : factor < 1 / FACTOR_MOST ? 1 / FACTOR_MOST : factor;
}

void pm_queue_learn(struct pm_sched *s, const struct ref *r, double base_us, double measured_us)
{
    struct lane *lane = find_lane(s->queues[queue_of(r)], r->job->stub->client);
    if (!lane || base_us <= 0)
        return;
    if (lane->predicted_us <= 0)
        lane->predicted_us = lane->measured_us = base_us * FACTOR_WEIGHT;
    lane->predicted_us = lane->predicted_us * PM_MEMORY + base_us;
    lane->measured_us = lane->measured_us * PM_MEMORY + measured_us;
}

struct speed *pm_queue_speed(struct pm_sched *s, const struct ref *r)
{
    return r->kind == PM_KIND_REGION ? &s->queues[r->job->region_queue]->speed : &s->speeds[r->kind - 1];
}

/* ---- ages ---- */

/* Within a client the order is that of time, but for retries: the head is as good as the oldest. */
static int64_t head_since(const struct pm_sched *s, uint64_t id, unsigned place, unsigned door)
{
    struct job *j = pm_sched_find(s, id);
    if (!j)
        return pm_stub_find(s, id)->time_us;
    struct ref r = place == SLOT_REGION
                       ? pm_ref_of(j, first_page(j, &j->ready_regions, has_regions), PM_TASK_SLOT_PAGE)
                       : first_task(s, j, place, door);
    return r.page ? r.page->ready_us : j->ready_us;
}

int64_t pm_queue_oldest_us(struct pm_sched *s, uint32_t queue, unsigned door)
{
    struct queue *q = s->queues[queue];
    unsigned place = place_of_queue(queue);
    int64_t oldest = INT64_MAX;
    for (size_t i = 0; i < q->lane_count && q->ready[door]; i++)
        for (unsigned level = 0; level < PM_SCHED_LEVELS; level++) {
            uint64_t id = lane_head(s, q, &q->lanes[i], level, door, place);
            int64_t since = id ? head_since(s, id, place, door) : INT64_MAX;
            oldest = since < oldest ? since : oldest;
        }
    for (size_t i = QUEUE_REGION; i < s->queue_count && queue == QUEUE_LAYOUT && door == 1; i++)
        for (size_t k = 0; k < s->queues[i]->parked_count; k++) {
            const struct job *j = pm_sched_find(s, s->queues[i]->parked[k]);
            if (!j || !j->place[place].ready[1] || j->place[place].is_queued[1])
                continue;
            int64_t since = head_since(s, j->id, place, door);
            oldest = since < oldest ? since : oldest;
        }
    return oldest;
}

bool pm_queue_has(const struct pm_sched *s, uint32_t queue)
{
    return s->queues[queue]->ready[0] || s->queues[queue]->ready[1];
}
