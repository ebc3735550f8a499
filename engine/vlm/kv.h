/* The KV cache: pages of 64 tokens, handed out as sequences grow, for all layers at once.
 *
 * A page holds, for every layer (the extra layer included) and every key/value head, one key block and one
 * value block in the kernels' own layout (kernels.h, struct pm_attention), in the model's precision. Pages
 * come from one pool of bounded size; zeroed when handed out, so that unused slots hold finite values.
 *
 * Ownership: the pool owns the memory, a sequence owns its pages until pm_kv_release. Threads: one owner.
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

size_t pm_kv_page_bytes(const struct pm_vlm_model *model);
/* Takes memory as pages are asked for. */
struct pm_kv_pool *pm_kv_pool_new(const struct pm_vlm_model *model, size_t max_bytes);
void pm_kv_pool_free(struct pm_kv_pool **pool);
int pm_kv_pool_pages(const struct pm_kv_pool *pool); /* most pages the pool may hold */
int pm_kv_pool_used(const struct pm_kv_pool *pool);

/* Makes room for that many tokens in all (no less than now). */
int pm_kv_reserve(struct pm_kv_pool *pool, struct pm_kv *kv, int tokens, struct pm_error *err);
/* Gives back what is not needed for the first `tokens`. */
void pm_kv_truncate(struct pm_kv_pool *pool, struct pm_kv *kv, int tokens);
void pm_kv_release(struct pm_kv_pool *pool, struct pm_kv *kv);

/* The key and value blocks of a page. layer: 0..layers-1, or `layers` for the extra one. */
void *pm_kv_keys(const struct pm_kv_pool *pool, const struct pm_kv *kv, int page, int layer, int kv_head);
void *pm_kv_values(const struct pm_kv_pool *pool, const struct pm_kv *kv, int page, int layer, int kv_head);

#endif
