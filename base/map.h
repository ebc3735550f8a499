/* A hash map from u64 keys to pointers (open addressing, linear probing), and one from strings.
 *
 * Ownership: values are the caller's; string keys are copied. Threads: none; one owner. */
#ifndef PM_BASE_MAP_H
#define PM_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

union pm_map_key {
    uint64_t number;
    char *text;
};
struct pm_map_slot {
    union pm_map_key key;
    void *value; /* NULL: empty */
};
struct pm_map { /* zero-initialise */
    struct pm_map_slot *slots;
    size_t count, capacity; /* capacity is 0 or a power of two */
    uint64_t seed;          /* of texts */
};
void *pm_map_get(const struct pm_map *m, uint64_t key);       /* NULL when absent */
void pm_map_put(struct pm_map *m, uint64_t key, void *value); /* value not NULL; replaces */
void *pm_map_remove(struct pm_map *m, uint64_t key);          /* the removed value or NULL */
bool pm_map_next(const struct pm_map *m, size_t *cursor, uint64_t *key_out,
                 void **value_out); /* cursor starts at 0; do not modify while walking */
void pm_map_free(struct pm_map *m);

struct pm_strmap { /* zero-initialise */
    struct pm_map map;
};
/* For keys that strangers choose, before the first one comes: without knowing the seed nobody can make keys
 * that fall together. */
void pm_strmap_seed(struct pm_strmap *m, uint64_t seed);
void *pm_strmap_get(const struct pm_strmap *m, const char *key);
void pm_strmap_put(struct pm_strmap *m, const char *key, void *value); /* value not NULL; replaces */
void *pm_strmap_remove(struct pm_strmap *m, const char *key);
bool pm_strmap_next(const struct pm_strmap *m, size_t *cursor, const char **key_out, void **value_out);
void pm_strmap_free(struct pm_strmap *m);

#endif
