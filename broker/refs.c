#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "broker/broker.h"

/* A disk blob without references stays this long: somebody may have stored it and be about to refer to it. */
#define DISK_GRACE_US 60000000
/* A crop sheet carries its task and attempt, so that only a restarted broker can see one made twice. What a
 * fenced result left may be that one. */
#define PIXEL_GRACE_US 2000000

/* What nobody has referred to for this long is swept. Results and documents wait for a broker that is down.
 */
#define SWEEP_DISK_S   3600
#define SWEEP_PIXELS_S 60

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
struct pm_refs {
    struct counts counts;
    struct removal *removals;
    size_t removal_count, removal_capacity;
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
    free((*refs)->removals);
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

void pm_refs_change(void *broker, const char *key, int change)
{
    struct pm_broker *b = broker;
    struct pm_refs *refs = b->refs;
    if (!pm_blob_is_key(key))
        return;
    if (count_change(&refs->counts, key, change))
        return;
    PM_GROW(refs->removals, refs->removal_count, refs->removal_capacity);
    struct removal *r = &refs->removals[refs->removal_count++];
    memcpy(r->key, key, strlen(key) + 1);
    bool is_pixels = key[0] == 'p';
    r->grace_us = is_pixels ? INT64_MIN / 2 : DISK_GRACE_US; /* pixels: however young the file is */
    r->due_us = b->now.us + (is_pixels ? 0 : DISK_GRACE_US);
}

void pm_refs_orphan(struct pm_broker *b, const char *key)
{
    struct pm_refs *refs = b->refs;
    if (!pm_blob_is_key(key) || key[0] != 'p' || pm_refs_has(refs, key))
        return;
    PM_GROW(refs->removals, refs->removal_count, refs->removal_capacity);
    struct removal *r = &refs->removals[refs->removal_count++];
    memcpy(r->key, key, strlen(key) + 1);
    r->grace_us = PIXEL_GRACE_US;
    r->due_us = b->now.us + r->grace_us;
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

void pm_refs_collect(struct pm_broker *b)
{
    struct pm_refs *refs = b->refs;
    for (size_t i = refs->removal_count; i-- > 0;) {
        struct removal *r = &refs->removals[i];
        if (r->due_us > b->now.us)
            continue;
        if (!pm_refs_has(refs, r->key) && !is_gone(b, r)) {
            r->due_us = b->now.us + (r->grace_us > 0 ? r->grace_us : PIXEL_GRACE_US);
            continue;
        }
        *r = refs->removals[--refs->removal_count];
    }
}

static bool keep(void *ctx, const char *key)
{
    return pm_refs_has(ctx, key);
}

int pm_refs_sweep(struct pm_broker *b, struct pm_error *err)
{
    uint64_t disk = 0, pixels = 0;
    int rc = pm_blob_sweep(b->blobs, PM_BLOB_DISK, pm_wall_us(), SWEEP_DISK_S, keep, b->refs, &disk, err);
    if (!rc)
        rc = pm_blob_sweep(b->blobs, PM_BLOB_PIXELS, pm_wall_us(), SWEEP_PIXELS_S, keep, b->refs, &pixels,
                           err);
    b->counters[PM_COUNT_blobs_removed] += disk + pixels;
    return rc;
}
