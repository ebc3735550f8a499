/* What the vision tower made of the pictures seen last, so that an identical crop (a logo on every page, a
 * job sent again) is not computed twice.
 *
 * A picture is known by the BLAKE2b hash of what the tower would read: the resized pixels, their number of
 * channels, and the grid. Equal keys mean equal patches, and the tower is exact: what is found has the bits
 * that it would compute.
 *
 * Ownership: values are copied in; what is found belongs to the cache until the next put. Bounded in bytes:
 * those not used for longest leave. Threads: one owner. Errors: none; what has no room or no memory is not
 * kept. */
#ifndef PM_ENGINE_VLM_FEATURES_H
#define PM_ENGINE_VLM_FEATURES_H

#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/image.h"

struct pm_features_key {
    uint8_t hash[PM_HASH_BYTES];
    int32_t rows, columns; /* the grid in patches */
};

struct pm_features;

struct pm_features *pm_features_new(size_t most_bytes);
void pm_features_free(struct pm_features **features);

/* resized: the picture as it is cut into patches; bytes between its rows do not count. */
struct pm_features_key pm_features_key(const struct pm_image *resized, int rows, int columns);

/* The values under that key, NULL when there are none. */
const float *pm_features_find(struct pm_features *features, const struct pm_features_key *key,
                              size_t *values_out);
void pm_features_put(struct pm_features *features, const struct pm_features_key *key, const float *values,
                     size_t count);

/* Bytes held now, and pictures. */
size_t pm_features_bytes(const struct pm_features *features, size_t *pictures_out);

#endif
