#include "base/hash.h"

#include <sodium.h>

_Static_assert(sizeof(crypto_generichash_state) <= sizeof(struct pm_hasher), "hasher state too small");

void pm_hash(const void *data, size_t bytes, uint8_t out[PM_HASH_BYTES])
{
    crypto_generichash(out, PM_HASH_BYTES, data, bytes, NULL, 0);
}

void pm_hash_hex(const uint8_t hash[PM_HASH_BYTES], char out[PM_HASH_HEX + 1])
{
    sodium_bin2hex(out, PM_HASH_HEX + 1, hash, PM_HASH_BYTES);
}

void pm_hasher_start(struct pm_hasher *h)
{
    crypto_generichash_init((crypto_generichash_state *)(void *)h->state, NULL, 0, PM_HASH_BYTES);
}

void pm_hasher_add(struct pm_hasher *h, const void *data, size_t bytes)
{
    crypto_generichash_update((crypto_generichash_state *)(void *)h->state, data, bytes);
}

void pm_hasher_finish(struct pm_hasher *h, uint8_t out[PM_HASH_BYTES])
{
    crypto_generichash_final((crypto_generichash_state *)(void *)h->state, out, PM_HASH_BYTES);
}
