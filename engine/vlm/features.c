#include "engine/vlm/features.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* In the order of their last use, newest first. There are few: one of 504 tokens takes 3 MB. */
struct entry {
    struct entry *newer, *older;
    struct pm_features_key key;
    size_t count;
    float values[];
};

struct pm_features {
    struct entry *newest, *oldest;
    size_t most_bytes, bytes, pictures;
};

struct pm_features *pm_features_new(size_t most_bytes)
{
    struct pm_features *f = pm_xalloc(sizeof *f);
    f->most_bytes = most_bytes;
    return f;
}

void pm_features_free(struct pm_features **features)
{
    struct pm_features *f = *features;
    if (!f)
        return;
    for (struct entry *e = f->newest, *older; e; e = older) {
        older = e->older;
        free(e);
    }
    free(f);
    *features = NULL;
}

static size_t entry_bytes(const struct entry *e)
{
    return sizeof *e + e->count * sizeof *e->values;
}

static void take_out(struct pm_features *f, struct entry *e)
{
    *(e->newer ? &e->newer->older : &f->newest) = e->older;
    *(e->older ? &e->older->newer : &f->oldest) = e->newer;
    f->bytes -= entry_bytes(e);
    f->pictures--;
}

static void put_first(struct pm_features *f, struct entry *e)
{
    e->newer = NULL;
    e->older = f->newest;
    *(f->newest ? &f->newest->newer : &f->oldest) = e;
    f->newest = e;
    f->bytes += entry_bytes(e);
    f->pictures++;
}

static struct entry *find(const struct pm_features *f, const struct pm_features_key *key)
{
    struct entry *e = f->newest;
    while (e && (memcmp(e->key.hash, key->hash, sizeof key->hash) != 0 || e->key.rows != key->rows ||
                 e->key.columns != key->columns))
        e = e->older;
    return e;
}

struct pm_features_key pm_features_key(const struct pm_image *resized, int rows, int columns)
{
    struct pm_features_key key = {.rows = rows, .columns = columns};
    struct pm_hasher hasher;
    uint8_t channels = (uint8_t)resized->channels;
    pm_hasher_start(&hasher);
    pm_hasher_add(&hasher, &channels, sizeof channels);
    for (int y = 0; y < resized->height_px; y++)
        pm_hasher_add(&hasher, resized->pixels + (size_t)y * resized->stride_bytes,
                      (size_t)resized->width_px * (size_t)resized->channels);
    pm_hasher_finish(&hasher, key.hash);
    return key;
}

const float *pm_features_find(struct pm_features *f, const struct pm_features_key *key, size_t *values_out)
{
    struct entry *e = find(f, key);
    *values_out = e ? e->count : 0;
    if (!e)
        return NULL;
    take_out(f, e);
    put_first(f, e);
    return e->values;
}

void pm_features_put(struct pm_features *f, const struct pm_features_key *key, const float *values,
                     size_t count)
{
    struct entry *e = find(f, key);
    if (e) {
        take_out(f, e);
        put_first(f, e);
        return;
    }
    if (f->most_bytes < sizeof *e || count > (f->most_bytes - sizeof *e) / sizeof *values)
        return;
    size_t bytes = sizeof *e + count * sizeof *values;
    while (f->oldest && f->bytes > f->most_bytes - bytes) {
        struct entry *last = f->oldest;
        take_out(f, last);
        free(last);
    }
    e = malloc(bytes);
    if (!e)
        return;
    *e = (struct entry){.key = *key, .count = count};
    memcpy(e->values, values, count * sizeof *values);
    put_first(f, e);
}

size_t pm_features_bytes(const struct pm_features *f, size_t *pictures_out)
{
    if (pictures_out)
        *pictures_out = f->pictures;
    return f->bytes;
}
