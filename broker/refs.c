#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "broker/broker.h"

/* A disk blob without references stays this long: somebody may have stored it and be about to refer to it. */
#define DISK_GRACE_US 60000000

struct removal {
    char key[PM_BLOB_KEY_SIZE];
    int64_t due_us;
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
    r->due_us = key[0] == 'p' ? 0 : b->now.us + DISK_GRACE_US;
}

/* Storing a blob again refreshes its time: then somebody wants it. */
static bool is_fresh(struct pm_broker *b, const char *key)
{
    int fd;
    uint64_t bytes;
    struct stat st;
    if (pm_blob_open(b->blobs, key, &fd, &bytes, NULL))
        return false;
    bool fresh = !fstat(fd, &st) && pm_wall_us() / 1000000 - st.st_mtime < DISK_GRACE_US / 1000000;
    close(fd);
    return fresh;
}

void pm_refs_collect(struct pm_broker *b)
{
    struct pm_refs *refs = b->refs;
    for (size_t i = refs->removal_count; i-- > 0;) {
        struct removal *r = &refs->removals[i];
        if (r->due_us > b->now.us)
            continue;
        struct pm_error err;
        if (!pm_refs_has(refs, r->key)) {
            if (r->key[0] != 'p' && is_fresh(b, r->key)) {
                r->due_us = b->now.us + DISK_GRACE_US;
                continue;
            }
            pm_count(b, PM_COUNT_blobs_removed);
            if (pm_blob_remove(b->blobs, r->key, &err)) {
                pm_count(b, PM_COUNT_blob_errors);
                pm_log(PM_LOG_WARNING, "cannot remove a blob: %s", err.text);
            }
        }
        *r = refs->removals[--refs->removal_count];
    }
}

static bool keep(void *ctx, const char *key)
{
    return pm_refs_has(ctx, key);
}

int pm_refs_sweep(struct pm_broker *b, int grace_s, struct pm_error *err)
{
    uint64_t removed = 0;
    int rc = pm_blob_sweep(b->blobs, pm_wall_us(), grace_s, keep, b->refs, &removed, err);
    b->counters[PM_COUNT_blobs_removed] += removed;
    return rc;
}
