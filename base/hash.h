/* BLAKE2b-256 (RFC 7693, libsodium): the names of blobs, the keys of idempotent submits, the checksum of
 * weight files. */
#ifndef PM_BASE_HASH_H
#define PM_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define PM_HASH_BYTES 32
#define PM_HASH_HEX   (2 * PM_HASH_BYTES) /* characters, without NUL */

void pm_hash(const void *data, size_t bytes, uint8_t out[PM_HASH_BYTES]);
void pm_hash_hex(const uint8_t hash[PM_HASH_BYTES], char out[PM_HASH_HEX + 1]);

/* In pieces. The state is opaque, aligned storage for libsodium's. */
struct pm_hasher {
    _Alignas(64) uint8_t state[384];
};
void pm_hasher_start(struct pm_hasher *h);
void pm_hasher_add(struct pm_hasher *h, const void *data, size_t bytes);
void pm_hasher_finish(struct pm_hasher *h, uint8_t out[PM_HASH_BYTES]);

#endif
