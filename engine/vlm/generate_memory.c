/* The budget: what the process may take beyond mapped files, and who has it.
 *
 * When the generator is made, what the process has by then, its own scratch and the largest that scratch
 * can grow to are set aside. The rest is for requests: the picture in the tower, image tokens, pages of the
 * cache. A request is refused when it could not run alone; a picture begins when it, and after it any
 * sequence that has its image tokens, can go on to the end; the cache has what is left at each pass. */
#include <malloc.h>

#include "base/host.h"
#include "engine/vlm/generate_internal.h"

/* The heap's own waste, messages and pixels under way. */
#define MARGIN ((size_t)24 << 20)
/* Features of pictures seen before, unless the owner says otherwise; a sixteenth of a limit at most. */
#define FEATURES ((size_t)64 << 20)

/* Heap in use, touched or not. */
static size_t heap_bytes(const struct mallinfo2 *m)
{
    return m->uordblks + m->hblkhd;
}

void pm_gen_memory_begin(struct pm_generate *g)
{
    g->memory = SIZE_MAX;
    if (!g->config.memory_bytes)
        return;
    /* For now: what the process has that is not heap. */
    struct mallinfo2 m = mallinfo2();
    size_t own = (size_t)pm_host_own_bytes(), heap = heap_bytes(&m) + m.fordblks;
    g->memory = own > heap ? own - heap : 0;
}

/* Scratch that grows with work: logits, and blocks of an 8-bit cache expanded. */
static size_t growing_bytes(const struct pm_generate *g)
{
    const struct pm_text_config *t = &g->model->text;
    size_t running = (size_t)g->config.max_running, logits = running * (g->mtp ? 1 + PM_GEN_SAMPLES : 1);
    size_t tokens = (size_t)t->max_positions < 4096 ? (size_t)t->max_positions : 4096;
    size_t blocks = tokens / PM_KV_PAGE_TOKENS + 1, threads = (size_t)g->config.threads;
    size_t block = pm_key_block_bytes(t->head_dim, true) + pm_value_block_bytes(t->head_dim, true);
    return logits * (size_t)t->vocab * sizeof(float) + (g->config.kv_int8 ? threads * blocks * block : 0);
}

int pm_gen_memory_ready(struct pm_generate *g, struct pm_error *err)
{
    if (!g->config.memory_bytes)
        return 0;
    struct mallinfo2 m = mallinfo2();
    size_t fixed = g->memory + heap_bytes(&m) + growing_bytes(g) + MARGIN;
    if (g->features)
        fixed += pm_gen_memory_features(g);
    size_t least = fixed + pm_kv_pool_page_bytes(g->kv_pool) + pm_vision_bytes(g->config.model, 64);
    if (g->config.memory_bytes < least)
        return pm_fail(err, PM_ELIMIT,
                       "a memory limit of %zu MB is too low: the reader itself takes %zu MB, and %zu MB are "
                       "the least with which a small region can be read; raise --memory or lower --credit",
                       g->config.memory_bytes >> 20, fixed >> 20, (least >> 20) + 1);
    g->memory = g->config.memory_bytes - fixed;
    return 0;
}

size_t pm_generate_memory(const struct pm_generate *g)
{
    return g->memory;
}

/* ---- what requests need ---- */

static size_t row_bytes(const struct pm_generate *g)
{
    return (size_t)g->model->text.hidden * sizeof(float);
}

/* A page and the hidden states that wait for the extra layer. */
static size_t page_cost(const struct pm_generate *g)
{
    return pm_kv_pool_page_bytes(g->kv_pool) + (g->mtp ? PM_KV_PAGE_TOKENS * row_bytes(g) : 0);
}

/* The tower with a picture of so many patches, which come in beside it. */
static size_t tower_bytes(const struct pm_generate *g, int64_t patches)
{
    const struct pm_vision_config *v = &g->model->vision;
    size_t values = (size_t)(v->in_channels * v->temporal * v->patch * v->patch);
    return patches ? pm_vision_bytes(g->config.model, patches) + (size_t)patches * values * sizeof(float) : 0;
}

static size_t pages_of(int64_t tokens)
{
    return (size_t)((tokens + PM_KV_PAGE_TOKENS - 1) / PM_KV_PAGE_TOKENS);
}

int64_t pm_gen_memory_tokens(const struct pm_generate *g)
{
    if (g->memory == SIZE_MAX)
        return INT64_MAX;
    return (int64_t)(g->memory / (page_cost(g) + PM_KV_PAGE_TOKENS * row_bytes(g))) * PM_KV_PAGE_TOKENS;
}

int pm_gen_memory_check(const struct pm_generate *g, int64_t patches, int64_t tokens, struct pm_error *err)
{
    if (g->memory == SIZE_MAX)
        return 0;
    size_t image_rows = PM_KV_PAGE_TOKENS * row_bytes(g); /* of a page, at most */
    size_t text = pages_of(tokens) * (page_cost(g) + image_rows);
    size_t merged = (size_t)g->model->vision.merge * (size_t)g->model->vision.merge;
    size_t picture = tower_bytes(g, patches) + (size_t)patches / merged * row_bytes(g);
    size_t need = text > picture ? text : picture, fixed = g->config.memory_bytes - g->memory;
    if (need <= g->memory)
        return 0;
    return pm_fail(
        err, PM_ELIMIT,
        "a picture of %lld patches and %lld tokens need %zu MB (%zu MB the picture, %zu MB the text, "
        "not at once), and of the limit of %zu MB the reader leaves %zu MB: smaller regions, fewer "
        "tokens, or --memory %zu",
        (long long)patches, (long long)tokens, (need >> 20) + 1, (picture >> 20) + 1, (text >> 20) + 1,
        g->config.memory_bytes >> 20, g->memory >> 20, ((fixed + need) >> 20) + 1);
}

/* ---- who has it ---- */

/* Image tokens that sequences hold. */
static size_t held_tokens(const struct pm_generate *g)
{
    size_t rows = 0;
    for (int i = 0; i < g->count; i++)
        for (int k = 0; k < g->seqs[i]->images_done; k++)
            rows += (size_t)g->seqs[i]->images[k].count;
    return rows * row_bytes(g);
}

/* Image tokens that it will have. */
static size_t coming_tokens(const struct pm_generate *g, const struct pm_gen_seq *s)
{
    size_t rows = 0;
    for (int k = s->images_done; k < s->image_count; k++)
        rows += (size_t)s->images[k].count;
    return rows * row_bytes(g);
}

bool pm_gen_memory_may_begin(const struct pm_generate *g, const struct pm_gen_seq *seq)
{
    if (g->memory == SIZE_MAX)
        return true;
    size_t held = held_tokens(g) + coming_tokens(g, seq), largest = 0;
    for (int i = 0; i < g->count; i++) {
        const struct pm_gen_seq *s = g->seqs[i];
        size_t pages = s == seq || s->images_done == s->image_count ? pages_of(s->end_count) : 0;
        largest = pages > largest ? pages : largest;
    }
    size_t used = (size_t)pm_kv_pool_used(g->kv_pool) * page_cost(g);
    return held + largest * page_cost(g) <= g->memory &&
           held + used + tower_bytes(g, seq->patches > g->tower_patches ? seq->patches : g->tower_patches) <=
               g->memory;
}

void pm_gen_memory_use_tower(struct pm_generate *g, const struct pm_gen_seq *seq)
{
    g->tower_patches = seq->patches > g->tower_patches ? seq->patches : g->tower_patches;
}

int pm_gen_memory_set_pages(struct pm_generate *g, struct pm_error *err)
{
    if (g->memory == SIZE_MAX)
        return 0;
    size_t taken = held_tokens(g);
    if (g->picture_of) {
        taken += tower_bytes(g, g->tower_patches) + coming_tokens(g, g->picture_of);
    } else if (g->tower_patches) {
        pm_vision_free(&g->vision);
        g->vision = pm_vision_new(g->config.model, g->config.kernels, g->pool);
        g->tower_patches = 0;
        if (!g->vision)
            return pm_fail(err, PM_ENOMEM, "no memory for the vision tower's scratch");
    }
    size_t pages = taken < g->memory ? (g->memory - taken) / page_cost(g) : 0;
    size_t most = g->config.kv_bytes ? g->config.kv_bytes / pm_kv_pool_page_bytes(g->kv_pool) : pages;
    pm_kv_pool_limit(g->kv_pool, (pages < most ? pages : most) * pm_kv_pool_page_bytes(g->kv_pool));
    return 0;
}

size_t pm_gen_memory_features(const struct pm_generate *g)
{
    size_t asked = g->config.vision_cache_bytes ? (size_t)g->config.vision_cache_bytes : FEATURES;
    size_t part = g->config.memory_bytes / 16;
    return g->config.memory_bytes && asked > part ? part : asked;
}
