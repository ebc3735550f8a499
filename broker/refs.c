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
struct pm_refs {
    struct pm_strmap counts; /* key -> count, as a pointer-sized number */
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
    pm_strmap_free(&(*refs)->counts);
    free((*refs)->removals);
    free(*refs);
    *refs = NULL;
}

bool pm_refs_has(const struct pm_refs *refs, const char *key)
{
    return pm_strmap_get(&refs->counts, key) != NULL;
}

void pm_refs_change(void *broker, const char *key, int change)
{
    struct pm_broker *b = broker;
    struct pm_refs *refs = b->refs;
    if (!pm_blob_is_key(key))
        return;
    intptr_t count = (intptr_t)pm_strmap_get(&refs->counts, key) + change;
    PM_ASSERT(count >= 0);
    if (count) {
        pm_strmap_put(&refs->counts, key, (void *)count);
        return;
    }
    pm_strmap_remove(&refs->counts, key);
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
