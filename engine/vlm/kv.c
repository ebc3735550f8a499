#include "engine/vlm/kv.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/kernels/kv8.h"

struct pm_kv_pool {
    size_t key_bytes, value_bytes; /* of a block of one head */
    size_t page_bytes;             /* its holders are counted behind them */
    enum pm_kv_format format;
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

static size_t key_bytes(const struct pm_vlm_model *model, enum pm_kv_format format)
{
    int dim = model->config.text.head_dim;
    return format == PM_KV_INT8 ? pm_kv8_block_bytes(dim)
                                : pm_key_block_bytes(dim, pm_precision_is_bf16(model->precision));
}

static size_t value_bytes(const struct pm_vlm_model *model, enum pm_kv_format format)
{
    int dim = model->config.text.head_dim;
    return format == PM_KV_INT8 ? 0 : pm_value_block_bytes(dim, pm_precision_is_bf16(model->precision));
}

size_t pm_kv_format_page_bytes(const struct pm_vlm_model *model, enum pm_kv_format format)
{
    return page_blocks(&model->config.text) * (key_bytes(model, format) + value_bytes(model, format));
}

size_t pm_kv_page_bytes(const struct pm_vlm_model *model)
{
    return pm_kv_format_page_bytes(model, PM_KV_MODEL);
}

struct pm_kv_pool *pm_kv_pool_new_format(const struct pm_vlm_model *model, enum pm_kv_format format,
                                         size_t max_bytes)
{
    PM_ASSERT(format == PM_KV_MODEL || pm_precision_is_bf16(model->precision));
    struct pm_kv_pool *pool = pm_xalloc(sizeof *pool);
    pool->kv_heads = model->config.text.kv_heads;
    pool->format = format;
    pool->key_bytes = key_bytes(model, format);
    pool->page_bytes = pm_kv_format_page_bytes(model, format);
    pool->value_bytes = value_bytes(model, format);
    pm_kv_pool_limit(pool, max_bytes);
    return pool;
}

struct pm_kv_pool *pm_kv_pool_new(const struct pm_vlm_model *model, size_t max_bytes)
{
    return pm_kv_pool_new_format(model, PM_KV_MODEL, max_bytes);
}

enum pm_kv_format pm_kv_pool_format(const struct pm_kv_pool *pool)
{
    return pool->format;
}

size_t pm_kv_pool_page_bytes(const struct pm_kv_pool *pool)
{
    return pool->page_bytes;
}

void pm_kv_pool_limit(struct pm_kv_pool *pool, size_t max_bytes)
{
    size_t pages = max_bytes / pool->page_bytes;
    pool->max_pages = pages > INT_MAX / PM_KV_PAGE_TOKENS ? INT_MAX / PM_KV_PAGE_TOKENS : (int)pages;
    while (pool->idle_count > 0 && pool->used + pool->idle_count > pool->max_pages)
        free(pool->idle[--pool->idle_count]);
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

static int *holders(const struct pm_kv_pool *pool, uint8_t *page)
{
    return (int *)(void *)(page + pool->page_bytes);
}

/* A page with one holder, its contents undefined. */
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
        int rc = pm_alloc_array(pool->page_bytes + sizeof(int), 1, &page, err);
        if (rc)
            return rc;
        *out = page;
    }
    *holders(pool, *out) = 1;
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
        memset(kv->pages[kv->page_count++], 0, pool->page_bytes);
    }
    return 0;
}

void pm_kv_truncate(struct pm_kv_pool *pool, struct pm_kv *kv, int tokens)
{
    PM_ASSERT(tokens >= 0 && tokens <= INT_MAX - PM_KV_PAGE_TOKENS);
    int keep = (tokens + PM_KV_PAGE_TOKENS - 1) / PM_KV_PAGE_TOKENS;
    while (kv->page_count > keep) {
        uint8_t *page = kv->pages[--kv->page_count];
        if (--*holders(pool, page) > 0)
            continue;
        pool->used--;
        if (pool->used + pool->idle_count >= pool->max_pages) {
            free(page);
            continue;
        }
        PM_GROW(pool->idle, pool->idle_count, pool->idle_capacity);
        pool->idle[pool->idle_count++] = page;
    }
}

void pm_kv_release(struct pm_kv_pool *pool, struct pm_kv *kv)
{
    pm_kv_truncate(pool, kv, 0);
    free(kv->pages);
    *kv = (struct pm_kv){0};
}

int pm_kv_share(struct pm_kv_pool *pool, const struct pm_kv *from, struct pm_kv *to, int tokens,
                struct pm_error *err)
{
    PM_ASSERT(!to->page_count && tokens >= 0 && tokens <= from->page_count * PM_KV_PAGE_TOKENS);
    int whole = tokens / PM_KV_PAGE_TOKENS;
    for (int i = 0; i < whole; i++) {
        PM_GROW(to->pages, to->page_count, to->page_capacity);
        to->pages[to->page_count++] = from->pages[i];
        ++*holders(pool, from->pages[i]);
    }
    if (tokens % PM_KV_PAGE_TOKENS) {
        PM_GROW(to->pages, to->page_count, to->page_capacity);
        int rc = take_page(pool, &to->pages[to->page_count], err);
        if (rc) {
            pm_kv_truncate(pool, to, 0);
            return rc;
        }
        memcpy(to->pages[to->page_count++], from->pages[whole], pool->page_bytes);
    }
    return 0;
}

void *pm_kv_keys(const struct pm_kv_pool *pool, const struct pm_kv *kv, int page, int layer, int kv_head)
{
    size_t heads = (size_t)pool->kv_heads;
    size_t layer_at = (size_t)layer * heads * (pool->key_bytes + pool->value_bytes);
    return kv->pages[page] + layer_at + (size_t)kv_head * pool->key_bytes;
}

void *pm_kv_values(const struct pm_kv_pool *pool, const struct pm_kv *kv, int page, int layer, int kv_head)
{
    size_t all_keys = (size_t)pool->kv_heads * pool->key_bytes;
    return (uint8_t *)pm_kv_keys(pool, kv, page, layer, 0) + all_keys + (size_t)kv_head * pool->value_bytes;
}
