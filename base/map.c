#include "base/map.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/error.h"
#include "base/mem.h"

/* ---- the table: what it holds as keys decides only how they are hashed and compared ---- */

enum kind { NUMBERS, TEXTS };

/* splitmix64's finaliser: spreads sequential ids over the table. */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Texts: SipHash. */
static inline uint64_t hash(const struct pm_map *m, union pm_map_key key, enum kind kind)
{
    if (kind == NUMBERS)
        return mix(key.number);
    uint64_t h, k[2] = {m->seed, mix(m->seed + 1)};
    _Static_assert(sizeof h == crypto_shorthash_BYTES && sizeof k == crypto_shorthash_KEYBYTES, "SipHash");
    (void)crypto_shorthash((unsigned char *)&h, (const unsigned char *)key.text, strlen(key.text),
                           (const unsigned char *)k);
    return h;
}

static inline bool is_same(union pm_map_key a, union pm_map_key b, enum kind kind)
{
    return kind == NUMBERS ? a.number == b.number : !strcmp(a.text, b.text);
}

/* The slot of the key, or the empty one where it would go. */
static inline size_t find(const struct pm_map *m, union pm_map_key key, enum kind kind)
{
    size_t i = hash(m, key, kind) & (m->capacity - 1);
    while (m->slots[i].value && !is_same(m->slots[i].key, key, kind))
        i = (i + 1) & (m->capacity - 1);
    return i;
}

static inline void *get(const struct pm_map *m, union pm_map_key key, enum kind kind)
{
    return m->capacity ? m->slots[find(m, key, kind)].value : NULL;
}

static inline void put(struct pm_map *m, union pm_map_key key, void *value, enum kind kind)
{
    PM_ASSERT(value);
    if ((m->count + 1) * 4 > m->capacity * 3) {
        struct pm_map bigger = {.capacity = m->capacity ? m->capacity * 2 : 16, .seed = m->seed};
        bigger.slots = pm_xalloc(bigger.capacity * sizeof *bigger.slots);
        for (size_t i = 0; i < m->capacity; i++)
            if (m->slots[i].value)
                bigger.slots[find(&bigger, m->slots[i].key, kind)] = m->slots[i];
        bigger.count = m->count;
        free(m->slots);
        *m = bigger;
    }
    struct pm_map_slot *slot = &m->slots[find(m, key, kind)];
    if (!slot->value) {
        slot->key = key;
        if (kind == TEXTS)
            slot->key.text = pm_xstrdup(key.text);
        m->count++;
    }
    slot->value = value;
}

/* Closes the hole by moving later members of the probe chain back, so that no tombstones are needed. */
static inline void *take_out(struct pm_map *m, union pm_map_key key, enum kind kind)
{
    if (!m->capacity)
        return NULL;
    size_t hole = find(m, key, kind), mask = m->capacity - 1;
    void *value = m->slots[hole].value;
    if (!value)
        return NULL;
    if (kind == TEXTS)
        free(m->slots[hole].key.text);
    for (size_t i = (hole + 1) & mask; m->slots[i].value; i = (i + 1) & mask) {
        size_t home = hash(m, m->slots[i].key, kind) & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole] = (struct pm_map_slot){.value = NULL};
    m->count--;
    return value;
}

static const struct pm_map_slot *next(const struct pm_map *m, size_t *cursor)
{
    while (*cursor < m->capacity) {
        const struct pm_map_slot *s = &m->slots[(*cursor)++];
        if (s->value)
            return s;
    }
    return NULL;
}

/* ---- numbers ---- */

void *pm_map_get(const struct pm_map *m, uint64_t key)
{
    return get(m, (union pm_map_key){.number = key}, NUMBERS);
}

void pm_map_put(struct pm_map *m, uint64_t key, void *value)
{
    put(m, (union pm_map_key){.number = key}, value, NUMBERS);
}

void *pm_map_remove(struct pm_map *m, uint64_t key)
{
    return take_out(m, (union pm_map_key){.number = key}, NUMBERS);
}

bool pm_map_next(const struct pm_map *m, size_t *cursor, uint64_t *key_out, void **value_out)
{
    const struct pm_map_slot *s = next(m, cursor);
    if (!s)
        return false;
    *key_out = s->key.number;
    *value_out = s->value;
    return true;
}

void pm_map_free(struct pm_map *m)
{
    free(m->slots);
    *m = (struct pm_map){0};
}

/* ---- texts ---- */

/* To look one up; the table copies what it keeps. */
static union pm_map_key text_key(const char *text)
{
    return (union pm_map_key){.text = (char *)(uintptr_t)text};
}

void pm_strmap_seed(struct pm_strmap *m, uint64_t seed)
{
    PM_ASSERT(!m->map.count);
    m->map.seed = seed;
}

void *pm_strmap_get(const struct pm_strmap *m, const char *key)
{
    return get(&m->map, text_key(key), TEXTS);
}

void pm_strmap_put(struct pm_strmap *m, const char *key, void *value)
{
    put(&m->map, text_key(key), value, TEXTS);
}

void *pm_strmap_remove(struct pm_strmap *m, const char *key)
{
    return take_out(&m->map, text_key(key), TEXTS);
}

bool pm_strmap_next(const struct pm_strmap *m, size_t *cursor, const char **key_out, void **value_out)
{
    const struct pm_map_slot *s = next(&m->map, cursor);
    if (!s)
        return false;
    *key_out = s->key.text;
    *value_out = s->value;
    return true;
}

void pm_strmap_free(struct pm_strmap *m)
{
    size_t cursor = 0;
    for (const struct pm_map_slot *s; (s = next(&m->map, &cursor));)
        free(s->key.text);
    pm_map_free(&m->map);
}
