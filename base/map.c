#include "base/map.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"

/* splitmix64's finaliser: spreads sequential ids over the table. */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static size_t find(const struct pm_map *m, uint64_t key)
{
    size_t i = mix(key) & (m->capacity - 1);
    while (m->slots[i].value && m->slots[i].key != key)
        i = (i + 1) & (m->capacity - 1);
    return i;
}

void *pm_map_get(const struct pm_map *m, uint64_t key)
{
    return m->capacity ? m->slots[find(m, key)].value : NULL;
}

void pm_map_put(struct pm_map *m, uint64_t key, void *value)
{
    PM_ASSERT(value);
    if ((m->count + 1) * 4 > m->capacity * 3) {
        struct pm_map bigger = {.capacity = m->capacity ? m->capacity * 2 : 16};
        bigger.slots = pm_xalloc(bigger.capacity * sizeof *bigger.slots);
        for (size_t i = 0; i < m->capacity; i++)
            if (m->slots[i].value)
                bigger.slots[find(&bigger, m->slots[i].key)] = m->slots[i];
        bigger.count = m->count;
        free(m->slots);
        *m = bigger;
    }
    size_t i = find(m, key);
    m->count += !m->slots[i].value;
    m->slots[i] = (struct pm_map_slot){key, value};
}

/* Closes the hole by moving later members of the probe chain back, so that no tombstones are needed. */
void *pm_map_remove(struct pm_map *m, uint64_t key)
{
    if (!m->capacity)
        return NULL;
    size_t hole = find(m, key);
    void *value = m->slots[hole].value;
    if (!value)
        return NULL;
    size_t mask = m->capacity - 1;
    for (size_t i = (hole + 1) & mask; m->slots[i].value; i = (i + 1) & mask) {
        size_t home = mix(m->slots[i].key) & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole] = (struct pm_map_slot){0, NULL};
    m->count--;
    return value;
}

bool pm_map_next(const struct pm_map *m, size_t *cursor, uint64_t *key_out, void **value_out)
{
    while (*cursor < m->capacity) {
        const struct pm_map_slot *s = &m->slots[(*cursor)++];
        if (s->value) {
            *key_out = s->key;
            *value_out = s->value;
            return true;
        }
    }
    return false;
}

void pm_map_free(struct pm_map *m)
{
    free(m->slots);
    *m = (struct pm_map){0};
}

static uint64_t hash_text(const char *text)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return mix(h);
}

static size_t find_text(const struct pm_strmap *m, const char *key)
{
    size_t i = hash_text(key) & (m->capacity - 1);
    while (m->slots[i].key && strcmp(m->slots[i].key, key))
        i = (i + 1) & (m->capacity - 1);
    return i;
}

void *pm_strmap_get(const struct pm_strmap *m, const char *key)
{
    return m->capacity ? m->slots[find_text(m, key)].value : NULL;
}

void pm_strmap_put(struct pm_strmap *m, const char *key, void *value)
{
    PM_ASSERT(value);
    if ((m->count + 1) * 4 > m->capacity * 3) {
        struct pm_strmap bigger = {.capacity = m->capacity ? m->capacity * 2 : 16};
        bigger.slots = pm_xalloc(bigger.capacity * sizeof *bigger.slots);
        for (size_t i = 0; i < m->capacity; i++)
            if (m->slots[i].key)
                bigger.slots[find_text(&bigger, m->slots[i].key)] = m->slots[i];
        bigger.count = m->count;
        free(m->slots);
        *m = bigger;
    }
    size_t i = find_text(m, key);
    if (!m->slots[i].key) {
        m->slots[i].key = pm_xstrdup(key);
        m->count++;
    }
    m->slots[i].value = value;
}

void *pm_strmap_remove(struct pm_strmap *m, const char *key)
{
    if (!m->capacity)
        return NULL;
    size_t hole = find_text(m, key);
    if (!m->slots[hole].key)
        return NULL;
    void *value = m->slots[hole].value;
    free(m->slots[hole].key);
    size_t mask = m->capacity - 1;
    for (size_t i = (hole + 1) & mask; m->slots[i].key; i = (i + 1) & mask) {
        size_t home = hash_text(m->slots[i].key) & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole] = (struct pm_strmap_slot){NULL, NULL};
    m->count--;
    return value;
}

bool pm_strmap_next(const struct pm_strmap *m, size_t *cursor, const char **key_out, void **value_out)
{
    while (*cursor < m->capacity) {
        const struct pm_strmap_slot *s = &m->slots[(*cursor)++];
        if (s->key) {
            *key_out = s->key;
            *value_out = s->value;
            return true;
        }
    }
    return false;
}

void pm_strmap_free(struct pm_strmap *m)
{
    for (size_t i = 0; i < m->capacity; i++)
        free(m->slots[i].key);
    free(m->slots);
    *m = (struct pm_strmap){0};
}
