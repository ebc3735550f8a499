/* The KV cache: pages of 64 tokens, handed out as sequences grow, for all layers at once.
 *
 * A page holds, for every layer (the extra layer included), the key blocks of all key/value heads and then
 * their value blocks, in the kernels' own layout (kernels.h, struct pm_attention) and the model's precision,
 * or for every head one block of 8 bits (kernels/kv8.h). Pages come from one pool of bounded size; zeroed
 * when handed out, so that unused slots hold finite values.
 *
 * Sequences that begin alike share: whole pages are held together, of the last one the later sequence gets a
 * copy. A shared page is never written again: its slots are all computed.
 *
 * Ownership: the pool owns the memory, sequences hold their pages until pm_kv_release. Threads: one owner.
 * Errors: PM_EBUSY when the pool has no page left. */
#ifndef PM_ENGINE_VLM_KV_H
#define PM_ENGINE_VLM_KV_H

#include "engine/vlm/model.h"

enum { PM_KV_PAGE_TOKENS = PM_ATTENTION_BLOCK };

struct pm_kv_pool;

/* A sequence's cache: pages[i] holds tokens [64 i, 64 i + 64). Zero-initialise. */
struct pm_kv {
    uint8_t **pages;
    int page_count, page_capacity;
};

enum pm_kv_format {
    PM_KV_MODEL, /* f32 or bf16, as the model computes */
    PM_KV_INT8,  /* models whose activations are bf16 */
};

size_t pm_kv_page_bytes(const struct pm_vlm_model *model);
size_t pm_kv_format_page_bytes(const struct pm_vlm_model *model, enum pm_kv_format format);
/* Takes memory as pages are asked for. */
struct pm_kv_pool *pm_kv_pool_new(const struct pm_vlm_model *model, size_t max_bytes);
struct pm_kv_pool *pm_kv_pool_new_format(const struct pm_vlm_model *model, enum pm_kv_format format,
                                         size_t max_bytes);
enum pm_kv_format pm_kv_pool_format(const struct pm_kv_pool *pool);
size_t pm_kv_pool_page_bytes(const struct pm_kv_pool *pool);
void pm_kv_pool_free(struct pm_kv_pool **pool);
int pm_kv_pool_pages(const struct pm_kv_pool *pool); /* most pages the pool may hold */
int pm_kv_pool_used(const struct pm_kv_pool *pool);  /* shared ones count once */
/* Another limit; pages in use stay, idle ones beyond it are freed. */
void pm_kv_pool_limit(struct pm_kv_pool *pool, size_t max_bytes);

/* Makes room for that many tokens in all (no less than now). */
int pm_kv_reserve(struct pm_kv_pool *pool, struct pm_kv *kv, int tokens, struct pm_error *err);
/* Gives back what is not needed for the first `tokens`. */
void pm_kv_truncate(struct pm_kv_pool *pool, struct pm_kv *kv, int tokens);
void pm_kv_release(struct pm_kv_pool *pool, struct pm_kv *kv);

/* Gives `to`, which is empty, the first `tokens` of `from`, all of them computed. PM_EBUSY, PM_ENOMEM: `to`
 * stays empty. */
int pm_kv_share(struct pm_kv_pool *pool, const struct pm_kv *from, struct pm_kv *to, int tokens,
                struct pm_error *err);

/* The key and value blocks of a page; with PM_KV_INT8 pm_kv_keys is the block of both. layer: 0..layers-1, or
 * `layers` for the extra one. */
void *pm_kv_keys(const struct pm_kv_pool *pool, const struct pm_kv *kv, int page, int layer, int kv_head);
void *pm_kv_values(const struct pm_kv_pool *pool, const struct pm_kv *kv, int page, int layer, int kv_head);

#endif
