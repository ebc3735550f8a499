#include "engine/vlm/kv.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct pm_kv_pool {
    size_t key_bytes, block_bytes; /* of a key block, and of it and its value block together */
    size_t page_bytes;
    int kv_heads;
    int max_pages, used;
    uint8_t **idle; /* pages given back, memory kept */
    int idle_count, idle_capacity;
};

/* Blocks of one page: of every layer, the extra one included, and every key/value head. */
static size_t page_blocks(const struct pm_text_config *text)
{
    return (size_t)(text->layers + text->mtp_layers) * (size_t)text->kv_heads;
}

size_t pm_kv_page_bytes(const struct pm_vlm_model *model)
{
    const struct pm_text_config *text = &model->config.text;
    bool is_bf16 = pm_precision_is_bf16(model->precision);
    return page_blocks(text) *
           (pm_key_block_bytes(text->head_dim, is_bf16) + pm_value_block_bytes(text->head_dim, is_bf16));
}

struct pm_kv_pool *pm_kv_pool_new(const struct pm_vlm_model *model, size_t max_bytes)
{
    const struct pm_text_config *text = &model->config.text;
    struct pm_kv_pool *pool = pm_xalloc(sizeof *pool);
    pool->kv_heads = text->kv_heads;
    pool->key_bytes = pm_key_block_bytes(text->head_dim, pm_precision_is_bf16(model->precision));
    pool->page_bytes = pm_kv_page_bytes(model);
    pool->block_bytes = pool->page_bytes / page_blocks(text);
    size_t pages = max_bytes / pool->page_bytes;
    pool->max_pages = pages > INT_MAX / PM_KV_PAGE_TOKENS ? INT_MAX / PM_KV_PAGE_TOKENS : (int)pages;
    return pool;
}

void pm_kv_pool_free(struct pm_kv_pool **pool)
{
    if (!*pool)
        return;
    for (int i = 0; i < (*pool)->idle_count; i++)
        free((*pool)->idle[i]);
    free((*pool)->idle);
    free(*pool);
    *pool = NULL;
}

int pm_kv_pool_pages(const struct pm_kv_pool *pool)
{
    return pool->max_pages;
}

int pm_kv_pool_used(const struct pm_kv_pool *pool)
{
    return pool->used;
}

static int take_page(struct pm_kv_pool *pool, uint8_t **out, struct pm_error *err)
{
    if (pool->used >= pool->max_pages)
        return pm_fail(err, PM_EBUSY,
                       "the KV cache is full: all %d pages of %d tokens are in use; wait for a running "
                       "sequence to end, or give the cache more memory",
                       pool->max_pages, PM_KV_PAGE_TOKENS);
    if (pool->idle_count > 0) {
        *out = pool->idle[--pool->idle_count];
    } else {
        void *page;
        int rc = pm_alloc_array(pool->page_bytes, 1, &page, err);
        if (rc)
            return rc;
        *out = page;
    }
    memset(*out, 0, pool->page_bytes);
    pool->used++;
    return 0;
}

int pm_kv_reserve(struct pm_kv_pool *pool, struct pm_kv *kv, int tokens, struct pm_error *err)
{
    PM_ASSERT(tokens >= 0 && tokens <= INT_MAX - PM_KV_PAGE_TOKENS);
    int had = kv->page_count, need = (tokens + PM_KV_PAGE_TOKENS - 1) / PM_KV_PAGE_TOKENS;
    while (kv->page_count < need) {
        PM_GROW(kv->pages, kv->page_count, kv->page_capacity);
        int rc = take_page(pool, &kv->pages[kv->page_count], err);
        if (rc) {
            pm_kv_truncate(pool, kv, had * PM_KV_PAGE_TOKENS);
            return rc;
        }
        kv->page_count++;
    }
    return 0;
}

void pm_kv_truncate(struct pm_kv_pool *pool, struct pm_kv *kv, int tokens)
{
    PM_ASSERT(tokens >= 0 && tokens <= INT_MAX - PM_KV_PAGE_TOKENS);
    int keep = (tokens + PM_KV_PAGE_TOKENS - 1) / PM_KV_PAGE_TOKENS;
    while (kv->page_count > keep) {
        PM_GROW(pool->idle, pool->idle_count, pool->idle_capacity);
        pool->idle[pool->idle_count++] = kv->pages[--kv->page_count];
        pool->used--;
    }
}

void pm_kv_release(struct pm_kv_pool *pool, struct pm_kv *kv)
{
    pm_kv_truncate(pool, kv, 0);
    free(kv->pages);
    *kv = (struct pm_kv){0};
}

void *pm_kv_keys(const struct pm_kv_pool *pool, const struct pm_kv *kv, int page, int layer, int kv_head)
{
    size_t block = (size_t)layer * (size_t)pool->kv_heads + (size_t)kv_head;
    return kv->pages[page] + block * pool->block_bytes;
}

void *pm_kv_values(const struct pm_kv_pool *pool, const struct pm_kv *kv, int page, int layer, int kv_head)
{
    return (uint8_t *)pm_kv_keys(pool, kv, page, layer, kv_head) + pool->key_bytes;
}
