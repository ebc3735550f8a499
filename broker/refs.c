#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "broker/broker.h"

/* A disk blob without references stays this long: somebody may have stored it and be about to refer to it. */
#define DISK_GRACE_US 60000000
/* A crop sheet carries its task and attempt, so that only a restarted broker can see one made twice. What a
 * fenced result left may be that one. */
#define PIXEL_GRACE_US 2000000
#define ORPHANS_MOST   4096u

/* What nobody has referred to for this long is swept. Results and documents wait for a broker that is down.
 */
#define SWEEP_DISK_S   3600
#define SWEEP_PIXELS_S 60

/* Slices of a turn: files looked at by a sweep, blobs removed. */
#define SWEEP_SLICE  128u
#define REMOVE_SLICE 64u

struct removal {
    char key[PM_BLOB_KEY_SIZE];
    int64_t due_us, grace_us;
};
/* Every job has its document here, so a count takes twenty bytes: of a key, which is a hash or random, half
 * of the digits are enough to tell it from all others. Open addressing. */
struct mark {
    uint64_t high, low;
};
struct counts {
    struct mark *marks;
    uint32_t *counts; /* 0: empty */
    size_t used, capacity;
};
struct removals {
    struct removal *items;
    size_t first, end, capacity;
};
struct pm_refs {
    struct counts counts;
    struct removals now, later; /* pixels; disk blobs, in the order of their due times */
    struct pm_blob_walk walk;
    bool is_sweeping;
    enum pm_blob_class sweeping;
};

struct pm_refs *pm_refs_new(void)
{
    return pm_xalloc(sizeof(struct pm_refs));
}

void pm_refs_free(struct pm_refs **refs)
{
    if (!*refs)
        return;
    free((*refs)->counts.marks);
    free((*refs)->counts.counts);
    pm_blob_walk_end(&(*refs)->walk);
    free((*refs)->now.items);
    free((*refs)->later.items);
    free(*refs);
    *refs = NULL;
}

static uint64_t digits(const char *hex)
{
    uint64_t n = 0;
    for (size_t i = 0; i < 16; i++)
        n = n << 4 | (uint64_t)(hex[i] <= '9' ? hex[i] - '0' : hex[i] - 'a' + 10);
    return n;
}

static struct mark mark_of(const char *key)
{
    return (struct mark){digits(key + 1), digits(key + 17) ^ (uint64_t)(key[0] == 'p')};
}

static size_t slot_of(const struct counts *c, struct mark m)
{
    size_t mask = c->capacity - 1, i = (size_t)m.high & mask;
    while (c->counts[i] && (c->marks[i].high != m.high || c->marks[i].low != m.low))
        i = (i + 1) & mask;
    return i;
}

static void grow(struct counts *c)
{
    struct counts old = *c;
    c->capacity = old.capacity ? old.capacity * 2 : 64;
    c->marks = pm_xalloc(c->capacity * sizeof *c->marks);
    c->counts = pm_xalloc(c->capacity * sizeof *c->counts);
    for (size_t i = 0; i < old.capacity; i++)
        if (old.counts[i]) {
            size_t to = slot_of(c, old.marks[i]);
            c->marks[to] = old.marks[i];
            c->counts[to] = old.counts[i];
        }
    free(old.marks);
    free(old.counts);
}

/* Closes the hole by moving later members of the chain back. */
static void take_out(struct counts *c, size_t hole)
{
    size_t mask = c->capacity - 1;
    for (size_t i = (hole + 1) & mask; c->counts[i]; i = (i + 1) & mask)
        if (((i - (size_t)c->marks[i].high) & mask) >= ((i - hole) & mask)) {
            c->marks[hole] = c->marks[i];
            c->counts[hole] = c->counts[i];
            hole = i;
        }
    c->counts[hole] = 0;
    c->used--;
}

/* What the count is after the change. */
static uint32_t count_change(struct counts *c, const char *key, int change)
{
    if ((c->used + 1) * 8 > c->capacity * 7)
        grow(c);
    struct mark m = mark_of(key);
    size_t i = slot_of(c, m);
    PM_ASSERT(change > 0 || c->counts[i] > 0);
    if (!c->counts[i]) {
        c->marks[i] = m;
        c->used++;
    }
    c->counts[i] += change > 0 ? 1 : UINT32_MAX;
    if (c->counts[i])
        return c->counts[i];
    take_out(c, i);
    return 0;
}

bool pm_refs_has(const struct pm_refs *refs, const char *key)
{
    const struct counts *c = &refs->counts;
    return c->used && pm_blob_is_key(key) && c->counts[slot_of(c, mark_of(key))];
}

static void plan_removal(struct removals *list, const char *key, int64_t due_us, int64_t grace_us)
{
    if (list->first > 1024 && list->first * 2 > list->end) {
        list->end -= list->first;
        memmove(list->items, list->items + list->first, list->end * sizeof *list->items);
        list->first = 0;
    }
    PM_GROW(list->items, list->end, list->capacity);
    struct removal *r = &list->items[list->end++];
    memcpy(r->key, key, PM_BLOB_KEY_SIZE);
    r->due_us = due_us;
    r->grace_us = grace_us;
}

static void plan_by_class(struct pm_broker *b, const char *key)
{
    if (key[0] == 'p') /* however young the file is */
        plan_removal(&b->refs->now, key, b->now.us, INT64_MIN / 2);
    else
        plan_removal(&b->refs->later, key, b->now.us + DISK_GRACE_US, DISK_GRACE_US);
}

void pm_refs_change(void *broker, const char *key, int change)
{
    struct pm_broker *b = broker;
    struct pm_refs *refs = b->refs;
    if (!pm_blob_is_key(key))
        return;
    if (count_change(&refs->counts, key, change))
        return;
    plan_by_class(b, key);
}

void pm_refs_orphan(struct pm_broker *b, const char *key)
{
    /* Of many the sweep takes care: a peer may say what it likes. */
    const struct removals *now = &b->refs->now;
    if (pm_blob_is_key(key) && key[0] == 'p' && !pm_refs_has(b->refs, key) &&
        now->end - now->first < ORPHANS_MOST && pm_blob_exists(b->blobs, key, NULL))
        plan_removal(&b->refs->now, key, b->now.us + PIXEL_GRACE_US, PIXEL_GRACE_US);
}

/* Storing a blob again refreshes its time: then somebody wants it, and it stays for another while. */
static bool is_gone(struct pm_broker *b, const struct removal *r)
{
    struct pm_error err;
    bool gone = false;
    if (pm_blob_remove_old(b->blobs, r->key, pm_wall_us(), r->grace_us, &gone, &err)) {
        pm_count(b, PM_COUNT_blob_errors);
        pm_log(PM_LOG_WARNING, "cannot remove a blob: %s", err.text);
        return true; /* a sweep tries again */
    }
    b->counters[PM_COUNT_blobs_removed] += gone;
    return gone;
}

/* Deals with what is due, at most `most` entries; what was stored again meanwhile is looked at later. */
static void remove_due(struct pm_broker *b, struct removals *list, size_t most)
{
    for (size_t left = list->end - list->first; left && most; left--, most--) {
        if (list == &b->refs->later && list->items[list->first].due_us > b->now.us)
            return;
        struct removal r = list->items[list->first++];
        if (r.due_us > b->now.us)
            plan_removal(list, r.key, r.due_us, r.grace_us);
        else if (!pm_refs_has(b->refs, r.key) && !is_gone(b, &r))
            plan_removal(list, r.key, b->now.us + (r.grace_us > 0 ? r.grace_us : PIXEL_GRACE_US), r.grace_us);
    }
}

void pm_refs_collect(struct pm_broker *b)
{
    remove_due(b, &b->refs->now, REMOVE_SLICE);
    remove_due(b, &b->refs->later, REMOVE_SLICE);
}

bool pm_refs_is_busy(const struct pm_broker *b)
{
    const struct removals *later = &b->refs->later;
    return b->refs->is_sweeping || b->refs->now.end > b->refs->now.first ||
           (later->end > later->first && later->items[later->first].due_us <= b->now.us);
}

static bool keep(void *ctx, const char *key)
{
    return pm_refs_has(ctx, key);
}

void pm_refs_sweep_begin(struct pm_broker *b)
{
    if (b->refs->is_sweeping)
        return;
    b->refs->is_sweeping = true;
    b->stored_before = b->stored;
    b->refs->sweeping = PM_BLOB_DISK;
    b->refs->walk = (struct pm_blob_walk){.part = 0};
}

int pm_refs_sweep(struct pm_broker *b, struct pm_error *err)
{
    struct pm_refs *refs = b->refs;
    if (!refs->is_sweeping)
        return 0;
    int grace_s = refs->sweeping == PM_BLOB_DISK ? SWEEP_DISK_S : SWEEP_PIXELS_S;
    int rc = pm_blob_sweep_some(b->blobs, refs->sweeping, pm_wall_us(), grace_s, keep, refs, SWEEP_SLICE,
                                &refs->walk, err);
    if (!refs->walk.is_done)
        return rc;
    b->counters[PM_COUNT_blobs_removed] += refs->walk.removed;
    if (!rc && refs->sweeping == PM_BLOB_DISK)
        pm_space_counted(b);
    refs->walk = (struct pm_blob_walk){.part = 0};
    refs->is_sweeping = refs->sweeping == PM_BLOB_DISK; /* then the pixels */
    refs->sweeping = PM_BLOB_PIXELS;
    return rc;
}
