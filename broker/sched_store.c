/* Jobs in memory: forty-eight bytes for each, and more only for those that are at work.
 *
 * A job that waits, or that has ended, is a stub: what order, cancel, lists and the idempotency key need. All
 * else of it is in the journal and comes back through config.load when the job's turn comes or somebody asks.
 * The newest few thousand stay awake all the same, so that a fleet that keeps up never reads anything back.
 * A job falls asleep only after what was decided about it is written (pm_sched_written). */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "broker/sched_internal.h"

#define CHUNK_BITS 6
#define CHUNK_JOBS (1u << CHUNK_BITS)

struct chunk { /* never moves: jobs point to their stubs */
    uint32_t count;
    struct stub stubs[CHUNK_JOBS];
};

/* ---- clients: few names, many jobs ---- */

uint32_t pm_client_use(struct pm_sched *s, const char *name)
{
    struct clients *c = &s->clients;
    size_t at = (size_t)(uintptr_t)pm_strmap_get(&c->by_name, name);
    if (!at) {
        if (c->free_count) {
            at = c->free[--c->free_count];
        } else {
            PM_GROW(c->items, c->count, c->capacity);
            at = ++c->count;
        }
        c->items[at - 1] = (struct client){.name = pm_xstrdup(name)};
        pm_strmap_put(&c->by_name, name, (void *)(uintptr_t)at);
    }
    c->items[at - 1].users++;
    return (uint32_t)at - 1;
}

void pm_client_drop(struct pm_sched *s, uint32_t client)
{
    struct clients *c = &s->clients;
    struct client *it = &c->items[client];
    if (--it->users)
        return;
    pm_strmap_remove(&c->by_name, it->name);
    free(it->name);
    it->name = NULL;
    PM_GROW(c->free, c->free_count, c->free_capacity);
    c->free[c->free_count++] = client + 1;
}

const char *pm_client_name(const struct pm_sched *s, uint32_t client)
{
    return s->clients.items[client].name;
}

/* ---- stubs by number ---- */

struct stub *pm_stub_find(const struct pm_sched *s, uint64_t id)
{
    struct chunk *c = pm_map_get(&s->chunks, id >> CHUNK_BITS);
    struct stub *stub = c ? &c->stubs[id % CHUNK_JOBS] : NULL;
    return stub && stub->state ? stub : NULL;
}

static struct stub *add_stub(struct pm_sched *s, uint64_t id)
{
    struct chunk *c = pm_map_get(&s->chunks, id >> CHUNK_BITS);
    if (!c) {
        c = pm_xalloc(sizeof *c);
        pm_map_put(&s->chunks, id >> CHUNK_BITS, c);
    }
    c->count++;
    return &c->stubs[id % CHUNK_JOBS];
}

static void remove_stub(struct pm_sched *s, uint64_t id)
{
    struct chunk *c = pm_map_get(&s->chunks, id >> CHUNK_BITS);
    c->stubs[id % CHUNK_JOBS] = (struct stub){0};
    if (--c->count)
        return;
    pm_map_remove(&s->chunks, id >> CHUNK_BITS);
    free(c);
}

/* The highest number in use below `at`; 0: none. Empty chunks are stepped over whole. */
static uint64_t stub_below(const struct pm_sched *s, uint64_t at)
{
    while (at > s->oldest_job) {
        const struct chunk *c = pm_map_get(&s->chunks, (at - 1) >> CHUNK_BITS);
        if (!c) {
            at = (at - 1) >> CHUNK_BITS << CHUNK_BITS;
            continue;
        }
        at--;
        if (c->stubs[at % CHUNK_JOBS].state)
            return at;
    }
    return 0;
}

/* ---- stubs by idempotency key: an open table of numbers ---- */

static void hash_texts(const char *a, const char *b, void *out, size_t bytes)
{
    struct pm_hasher h;
    uint8_t hash[PM_HASH_BYTES];
    pm_hasher_start(&h);
    pm_hasher_add(&h, a, strlen(a) + 1); /* with its NUL: ("a", "bc") is not ("ab", "c") */
    pm_hasher_add(&h, b, strlen(b));
    pm_hasher_finish(&h, hash);
    memcpy(out, hash, bytes);
}

static bool has_key(const struct stub *stub)
{
    static const uint8_t none[PM_STUB_KEY_BYTES];
    return memcmp(stub->key, none, sizeof none) != 0;
}

static uint32_t key_part(const uint8_t key[PM_STUB_KEY_BYTES])
{
    uint32_t part;
    memcpy(&part, key, sizeof part);
    return part;
}

static size_t key_slot(const struct pm_sched *s, const uint8_t key[PM_STUB_KEY_BYTES])
{
    uint32_t part = key_part(key);
    size_t mask = s->keys.capacity - 1, i = part & mask;
    for (const struct key_slot *slot; (slot = &s->keys.slots[i])->job; i = (i + 1) & mask)
        if (slot->part == part && !memcmp(pm_stub_find(s, slot->job)->key, key, PM_STUB_KEY_BYTES))
            break;
    return i;
}

static void grow_keys(struct keys *k)
{
    struct keys old = *k;
    k->capacity = old.capacity ? old.capacity * 2 : 64;
    k->slots = pm_xalloc(k->capacity * sizeof *k->slots);
    for (size_t i = 0; i < old.capacity; i++) {
        size_t to = old.slots[i].part & (k->capacity - 1);
        while (old.slots[i].job && k->slots[to].job)
            to = (to + 1) & (k->capacity - 1);
        if (old.slots[i].job)
            k->slots[to] = old.slots[i];
    }
    free(old.slots);
}

static void add_key(struct pm_sched *s, uint32_t id, const struct stub *stub)
{
    struct keys *k = &s->keys;
    if ((k->count + 1) * 4 > k->capacity * 3)
        grow_keys(k);
    size_t i = key_slot(s, stub->key);
    k->count += !k->slots[i].job;
    k->slots[i] = (struct key_slot){id, key_part(stub->key)};
}

/* Closes the hole by moving later members of the chain back. */
static void remove_key(struct pm_sched *s, uint32_t id, const struct stub *stub)
{
    struct keys *k = &s->keys;
    size_t mask = k->capacity - 1, hole = key_slot(s, stub->key);
    if (k->slots[hole].job != id)
        return;
    for (size_t i = (hole + 1) & mask; k->slots[i].job; i = (i + 1) & mask)
        if (((i - k->slots[i].part) & mask) >= ((i - hole) & mask)) {
            k->slots[hole] = k->slots[i];
            hole = i;
        }
    k->slots[hole].job = 0;
    k->count--;
}

uint64_t pm_sched_known(const struct pm_sched *s, const char *client, const char *key)
{
    uint8_t hash[PM_STUB_KEY_BYTES];
    if (!key || !*key || !s->keys.count)
        return 0;
    hash_texts(client, key, hash, sizeof hash);
    return s->keys.slots[key_slot(s, hash)].job;
}

static uint64_t batch_hash(const char *batch)
{
    uint64_t hash = 0;
    if (batch && *batch)
        hash_texts("batch", batch, &hash, sizeof hash);
    return hash;
}

const char *pm_sched_client(const struct pm_sched *s, uint64_t job)
{
    const struct stub *stub = pm_stub_find(s, job);
    return stub ? pm_client_name(s, stub->client) : "";
}

bool pm_sched_in_batch(const struct pm_sched *s, uint64_t job, const char *batch)
{
    const struct stub *stub = pm_stub_find(s, job);
    return stub && *batch && stub->batch == batch_hash(batch);
}

/* ---- bodies ---- */

/* Every string of a submit, in one block. */
static void copy_submit(struct job *j, const struct pm_msg_submit *m)
{
    j->submit = *m;
    struct pm_options *o = &j->submit.options;
    const char **texts[] = {&j->submit.key, &j->submit.name, &j->submit.source, &j->submit.batch,
                            &o->pages,      &o->password,    &o->reader,        &o->formats,
                            &o->drop,       &o->stem,        &o->whole};
    const size_t count = sizeof texts / sizeof *texts;
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        if (!*texts[i])
            *texts[i] = "";
        bytes += strlen(*texts[i]) + 1;
    }
    char *at = j->strings = pm_xalloc(bytes);
    for (size_t i = 0; i < count; i++) {
        size_t size = strlen(*texts[i]) + 1;
        memcpy(at, *texts[i], size);
        *texts[i] = at;
        at += size;
    }
    if (!*o->reader)
        o->reader = PM_DEFAULT_READER;
    j->stem = o->stem;
    if (j->submit.priority >= PM_SCHED_LEVELS)
        j->submit.priority = PM_SCHED_LEVELS - 1;
}

struct job *pm_job_body(struct pm_sched *s, uint64_t id, const struct pm_msg_submit *m)
{
    struct job *j = pm_xalloc(sizeof *j);
    struct stub *stub = pm_stub_find(s, id);
    j->id = id;
    j->stub = stub;
    j->state = stub->state;
    j->generation = stub->generation;
    j->region_queue = stub->region_queue;
    j->client = pm_client_name(s, stub->client);
    copy_submit(j, m);
    j->submit.priority = stub->priority;
    stub->is_awake = true;
    pm_map_put(&s->jobs, id, j);
    return j;
}

struct stub *pm_stub_new(struct pm_sched *s, uint64_t id, const char *client, const struct pm_msg_submit *m,
                         uint32_t state)
{
    const char *reader = m->options.reader && *m->options.reader ? m->options.reader : PM_DEFAULT_READER;
    const char *batch = m->batch ? m->batch : "";
    if (!s->last_batch || strcmp(s->last_batch, batch) != 0) {
        free(s->last_batch);
        s->last_batch = pm_xstrdup(batch);
        s->last_batch_hash = batch_hash(batch);
    }
    struct stub *stub = add_stub(s, id);
    *stub = (struct stub){.batch = s->last_batch_hash,
                          .client = pm_client_use(s, client ? client : ""),
                          .region_queue = pm_queue_of_reader(s, reader),
                          .state = (uint8_t)state,
                          .priority =
                              (uint8_t)(m->priority < PM_SCHED_LEVELS ? m->priority : PM_SCHED_LEVELS - 1)};
    if (m->key && *m->key) {
        hash_texts(pm_client_name(s, stub->client), m->key, stub->key, sizeof stub->key);
        stub->has_own_key = *m->key == PM_SCHED_OWN_KEY;
        add_key(s, (uint32_t)id, stub);
    }
    s->stats.jobs[state]++;
    s->next_job = id >= s->next_job ? id + 1 : s->next_job;
    s->oldest_job = id < s->oldest_job ? id : s->oldest_job;
    return stub;
}

void pm_job_free_pages(struct pm_sched *s, struct job *j)
{
    for (uint32_t i = 0; i < j->page_count; i++) {
        pm_page_forget_sheet(s, j, &j->pages[i]);
        free(j->pages[i].regions);
        free(j->pages[i].order);
    }
    free(j->pages);
    j->pages = NULL;
    j->page_count = 0;
    pm_heap_free(&j->ready_pages);
    pm_heap_free(&j->ready_regions);
    pm_heap_free(&j->ready_assemble);
}

static void free_body(struct pm_sched *s, struct job *j)
{
    pm_job_free_pages(s, j);
    free(j->strings);
    free(j->error_code);
    free(j->error_text);
    free(j);
}

static void fall_asleep(struct pm_sched *s, struct job *j)
{
    j->stub->is_awake = false;
    j->stub->generation = j->generation;
    pm_map_remove(&s->jobs, j->id);
    free_body(s, j);
}

struct job *pm_sched_find(const struct pm_sched *s, uint64_t id)
{
    return pm_map_get(&s->jobs, id);
}

void pm_job_set_state(struct pm_sched *s, uint64_t id, uint32_t state)
{
    struct stub *stub = pm_stub_find(s, id);
    struct job *j = stub->is_awake ? pm_sched_find(s, id) : NULL;
    s->stats.jobs[stub->state]--;
    s->stats.jobs[state]++;
    stub->state = (uint8_t)state;
    if (j)
        j->state = state;
}

void pm_job_drop_key(struct pm_sched *s, uint64_t id)
{
    struct stub *stub = pm_stub_find(s, id);
    struct job *j = pm_sched_find(s, id);
    if (has_key(stub))
        remove_key(s, (uint32_t)id, stub);
    memset(stub->key, 0, sizeof stub->key);
    stub->has_own_key = false;
    if (j)
        j->submit.key = "";
}

void pm_job_forget(struct pm_sched *s, uint64_t id)
{
    struct stub *stub = pm_stub_find(s, id);
    struct job *j = stub->is_awake ? pm_map_remove(&s->jobs, id) : NULL;
    if (j)
        free_body(s, j);
    if (has_key(stub))
        remove_key(s, (uint32_t)id, stub);
    s->stats.jobs[stub->state]--;
    pm_client_drop(s, stub->client);
    remove_stub(s, id);
    while (s->oldest_job < s->next_job && !pm_stub_find(s, s->oldest_job))
        s->oldest_job++;
}

void pm_store_free(struct pm_sched *s)
{
    size_t cursor = 0;
    uint64_t key;
    void *value;
    while (pm_map_next(&s->jobs, &cursor, &key, &value))
        free_body(s, value);
    pm_map_free(&s->jobs);
    for (cursor = 0; pm_map_next(&s->chunks, &cursor, &key, &value);)
        free(value);
    pm_map_free(&s->chunks);
    pm_strmap_free(&s->clients.by_name);
    for (size_t i = 0; i < s->clients.count; i++)
        free(s->clients.items[i].name);
    free(s->clients.items);
    free(s->clients.free);
    free(s->keys.slots);
    free(s->last_batch);
    free(s->resting.ids);
    free(s->young.ids);
}

/* ---- results that are old ---- */

#define EXPIRY_LOOK 4096u /* jobs, before the next call goes on */

int64_t pm_steady_us(struct pm_sched *s, struct pm_now now)
{
    if (!s->wall_start_us)
        s->wall_start_us = now.wall_us - now.us;
    return s->wall_start_us + now.us;
}

/* No list: one that is in the order of ends is not any more when a job is begun again. */
uint64_t pm_sched_expired(struct pm_sched *s, struct pm_now now, int64_t ttl_us)
{
    int64_t before = pm_steady_us(s, now) - ttl_us;
    uint64_t begun = s->expiry_at;
    bool has_turned = false;
    for (unsigned i = 0; i < EXPIRY_LOOK; i++) {
        uint64_t id = stub_below(s, s->expiry_at);
        if (!id && has_turned)
            return 0;
        has_turned |= !id;
        s->expiry_at = id ? id : s->next_job;
        if (has_turned && id && id < begun)
            return 0;
        const struct stub *stub = id ? pm_stub_find(s, id) : NULL;
        if (stub && stub->state > PM_JOB_RUNNING && stub->time_us <= before)
            return id;
    }
    return 0;
}

/* ---- sleeping and waking ---- */

void pm_ids_push(struct ids *q, uint64_t id)
{
    if (q->first > 1024 && q->first * 2 > q->count) {
        q->count -= q->first;
        memmove(q->ids, q->ids + q->first, q->count * sizeof *q->ids);
        q->first = 0;
    }
    PM_GROW(q->ids, q->count, q->capacity);
    q->ids[q->count++] = (uint32_t)id;
}

void pm_ids_prune(const struct pm_sched *s, struct ids *q,
                  bool (*is_wanted)(const struct pm_sched *, uint64_t))
{
    size_t kept = 0;
    if (q->count - q->first < q->prune_at)
        return;
    for (size_t i = q->first; i < q->count; i++)
        if (is_wanted(s, q->ids[i]))
            q->ids[kept++] = q->ids[i];
    q->first = 0;
    q->count = kept;
    q->prune_at = kept * 2 + 4096;
}

bool pm_stub_may_sleep(const struct pm_sched *s)
{
    return s->config.load != NULL;
}

/* Waiting to be opened, and never tried: there is nothing to remember but that. */
static bool is_untouched(const struct job *j)
{
    return j->state == PM_JOB_QUEUED && !j->is_open && j->open.state == TASK_READY && !j->open.fails &&
           !j->open.issue && !j->open.is_suspect && j->place[SLOT_LAYOUT].is_queued[0];
}

static bool is_resting(const struct pm_sched *s, uint64_t id)
{
    const struct job *j = pm_sched_find(s, id);
    return j && j->is_resting;
}

void pm_sched_written(struct pm_sched *s)
{
    if (!s->config.load)
        return;
    pm_ids_prune(s, &s->resting, is_resting); /* jobs that were forgotten */
    while (s->jobs.count > s->config.awake_jobs && s->resting.first < s->resting.count) {
        struct job *j = pm_sched_find(s, s->resting.ids[s->resting.first++]);
        if (j)
            j->is_resting = false;
        if (j && j->state > PM_JOB_RUNNING)
            fall_asleep(s, j);
    }
    while (s->young.first < s->young.count) {
        struct job *j = pm_sched_find(s, s->young.ids[s->young.first++]);
        if (!j || s->jobs.count <= s->config.awake_jobs || !is_untouched(j))
            continue;
        j->stub->time_us = j->ready_us;
        fall_asleep(s, j);
    }
}

struct job *pm_job_wake(struct pm_sched *s, uint64_t id, struct pm_error *err)
{
    struct job *j = pm_sched_find(s, id);
    struct stub *stub = pm_stub_find(s, id);
    struct pm_job_image image;
    if (j || !stub)
        return j;
    if (!s->config.load || s->config.load(s->config.load_ctx, id, &image, err))
        return NULL;
    j = pm_job_body(s, id, &image.submit);
    j->created_wall_us = j->deadline_from_us = image.info.created_wall_us;
    j->started_wall_us = image.info.started_wall_us;
    j->finished_wall_us = image.info.finished_wall_us;
    j->retries = image.info.retries;
    if (stub->state == PM_JOB_QUEUED) {
        j->open.state = TASK_READY;
        j->ready_us = stub->time_us;
        j->place[SLOT_LAYOUT].is_queued[0] = true;
        j->place[SLOT_LAYOUT].ready[0] = 1;
    }
    return j;
}

/* ---- telling ---- */

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

static int64_t deadline_us(const struct pm_msg_submit *m, int64_t from_us)
{
    return m->deadline_s ? from_us + (int64_t)m->deadline_s * 1000000 : 0;
}

static void tell_awake(const struct pm_sched *s, const struct job *j, struct pm_job_info *out)
{
    bool has_error = j->state == PM_JOB_FAILED || j->state == PM_JOB_CANCELLED;
    *out = (struct pm_job_info){.job = j->id,
                                .name = j->submit.name,
                                .client = j->client,
                                .batch = j->submit.batch,
                                .key = j->submit.key,
                                .state = j->state,
                                .priority = j->submit.priority,
                                .pages = j->pages_total,
                                .pages_done = j->pages_done,
                                .pages_failed = j->pages_failed,
                                .regions = j->regions,
                                .regions_done = j->regions_done,
                                .regions_failed = j->regions_failed,
                                .retries = j->retries,
                                .pages_known = j->pages_known,
                                .created_wall_us = j->created_wall_us,
                                .started_wall_us = j->started_wall_us,
                                .finished_wall_us = j->finished_wall_us,
                                .error_code = has_error ? or_empty(j->error_code) : "",
                                .error_text = has_error ? or_empty(j->error_text) : "",
                                .source_bytes = j->submit.source_bytes,
                                .stem = j->stem,
                                .reader = j->submit.options.reader,
                                .deadline_wall_us = deadline_us(&j->submit, j->deadline_from_us),
                                .eta_us = pm_job_eta_us(j, s->now_us)};
}

static void tell_sleeping(const struct pm_sched *s, uint64_t id, const struct stub *stub,
                          struct pm_job_info *out)
{
    struct pm_job_image image;
    struct pm_error err;
    if (!s->config.load || s->config.load(s->config.load_ctx, id, &image, &err)) {
        *out = (struct pm_job_info){.name = "",
                                    .client = "",
                                    .batch = "",
                                    .key = "",
                                    .error_code = "",
                                    .error_text = "",
                                    .stem = "",
                                    .reader = ""};
    } else {
        const char *reader = or_empty(image.submit.options.reader);
        *out = image.info;
        out->name = or_empty(image.submit.name);
        out->batch = or_empty(image.submit.batch);
        out->key = or_empty(image.submit.key);
        out->source_bytes = image.submit.source_bytes;
        out->stem = or_empty(image.submit.options.stem);
        out->reader = *reader ? reader : PM_DEFAULT_READER;
        out->deadline_wall_us = deadline_us(&image.submit, image.info.created_wall_us);
        bool has_error = stub->state == PM_JOB_FAILED || stub->state == PM_JOB_CANCELLED;
        out->error_code = has_error ? or_empty(out->error_code) : "";
        out->error_text = has_error ? or_empty(out->error_text) : "";
    }
    out->job = id;
    out->client = pm_client_name(s, stub->client);
    out->state = stub->state;
    out->priority = stub->priority;
}

bool pm_sched_info(const struct pm_sched *s, uint64_t id, struct pm_job_info *out)
{
    const struct stub *stub = pm_stub_find(s, id);
    if (!stub)
        return false;
    if (stub->is_awake)
        tell_awake(s, pm_sched_find(s, id), out);
    else
        tell_sleeping(s, id, stub, out);
    return true;
}

uint32_t pm_sched_state(const struct pm_sched *s, uint64_t id)
{
    const struct stub *stub = pm_stub_find(s, id);
    return stub ? stub->state : 0;
}

uint64_t pm_sched_next_job(const struct pm_sched *s, uint64_t *cursor, const struct pm_sched_filter *filter)
{
    uint64_t at = *cursor && *cursor <= s->next_job ? *cursor : s->next_job;
    uint64_t batch = filter && filter->batch ? batch_hash(filter->batch) : 0;
    size_t client =
        filter && filter->client ? (size_t)(uintptr_t)pm_strmap_get(&s->clients.by_name, filter->client) : 0;
    if (filter && filter->client && !client)
        return 0;
    if (filter && filter->state && !s->stats.jobs[filter->state <= PM_JOB_CANCELLED ? filter->state : 0])
        return 0;
    while ((at = stub_below(s, at))) {
        const struct stub *stub = pm_stub_find(s, at);
        if (filter &&
            ((filter->state && stub->state != filter->state) || (batch && stub->batch != batch) ||
             (filter->is_live && stub->state > PM_JOB_RUNNING) || (client && stub->client != client - 1)))
            continue;
        *cursor = at;
        return at;
    }
    return 0;
}

bool pm_sched_list(const struct pm_sched *s, uint64_t *cursor, const struct pm_sched_filter *filter,
                   struct pm_job_info *out)
{
    uint64_t job = pm_sched_next_job(s, cursor, filter);
    return job && pm_sched_info(s, job, out);
}

void pm_sched_sheets(const struct pm_sched *s,
                     void (*visit)(void *ctx, uint64_t job, uint32_t page, const char *sheet), void *ctx)
{
    size_t cursor = 0;
    uint64_t id;
    void *value;
    while (pm_map_next(&s->jobs, &cursor, &id, &value)) {
        const struct job *j = value;
        for (uint32_t i = 0; i < j->page_count; i++)
            if (j->pages[i].stage == PM_STAGE_REGIONS && j->pages[i].sheet)
                visit(ctx, j->id, j->pages[i].page, j->pages[i].sheet);
    }
}
