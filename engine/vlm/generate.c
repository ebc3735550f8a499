#include "engine/vlm/generate.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/vlm/generate_internal.h"

#define PREFILL_ROWS     256
#define PREFILL_ROWS_MAX 4096
#define LEAST_ROWS       16 /* below that a pass over the weights is mostly waiting for memory */
#define SLICE_MACS       ((int64_t)20 * 1000 * 1000 * 1000)
#define DEFAULT_TOKENS   4096 /* of a sequence, for the cache's size */
#define RUNNING_MAX      4096

const char *pm_generate_phase_name(enum pm_generate_phase phase)
{
    static const char *const names[PM_GENERATE_PHASES] = {"preprocess", "vision", "prefill", "decode",
                                                          "draft"};
    return names[phase];
}

/* ---- life ---- */

static enum pm_kv_format cache_format(const struct pm_generate_config *config)
{
    return config->kv_int8 ? PM_KV_INT8 : PM_KV_MODEL;
}

static size_t cache_bytes(const struct pm_generate_config *config)
{
    int positions = config->model->config.text.max_positions;
    int tokens = positions < DEFAULT_TOKENS ? positions : DEFAULT_TOKENS;
    size_t pages = (size_t)((tokens + PM_KV_PAGE_TOKENS - 1) / PM_KV_PAGE_TOKENS);
    return config->kv_bytes ? config->kv_bytes
                            : pages * (size_t)config->max_running *
                                  pm_kv_format_page_bytes(config->model, cache_format(config));
}

/* Multiply-adds of one row through the layers, without attention's part that grows. */
static int64_t row_macs(const struct pm_text_config *t)
{
    int64_t heads = (int64_t)(2 * t->heads + 2 * t->kv_heads) * t->head_dim * t->hidden;
    int64_t mlp = (int64_t)3 * t->hidden * t->intermediate;
    return (heads + mlp) * t->layers + 1;
}

static int rows_of_pass(const struct pm_generate_config *config)
{
    int most = config->prefill_rows ? config->prefill_rows : PREFILL_ROWS;
    if (config->step_us) /* how many are used is measured */
        return most;
    int64_t fit = config->slice_macs / row_macs(&config->model->config.text);
    fit = fit < LEAST_ROWS ? LEAST_ROWS : fit;
    return fit < most ? (int)fit : most;
}

static int make_parts(struct pm_generate *g, struct pm_error *err)
{
    const struct pm_generate_config *c = &g->config;
    int rc = pm_pool_new(c->threads, &g->pool, err);
    if (rc)
        return rc;
    g->kv_pool = pm_kv_pool_new_format(c->model, cache_format(c), cache_bytes(c));
    if (!g->kv_pool || pm_kv_pool_pages(g->kv_pool) < 1)
        return pm_fail(err, PM_EINVAL, "the cache of %zu bytes does not hold one page of %zu bytes",
                       cache_bytes(c), pm_kv_pool_page_bytes(g->kv_pool));
    if (c->vision_cache_bytes >= 0)
        g->features = pm_features_new(pm_gen_memory_features(g));
    g->vision = pm_vision_new(c->model, c->kernels, g->pool);
    g->decoder = pm_decoder_new(c->model, c->kernels, g->pool, g->kv_pool, g->max_rows);
    if (c->model->mtp)
        g->mtp = pm_mtp_new(c->model, c->kernels, g->pool, g->kv_pool, g->max_rows);
    if (!g->vision || !g->decoder || (c->model->mtp && !g->mtp))
        return pm_fail(err, PM_ENOMEM, "no memory for %d rows of the decoder", g->max_rows);
    return pm_gen_memory_ready(g, err);
}

int pm_generate_new(const struct pm_generate_config *config, struct pm_generate **out, struct pm_error *err)
{
    *out = NULL;
    if (config->threads < 1 || config->max_running < 1 || config->max_running > RUNNING_MAX ||
        config->prefill_rows < 0 || config->prefill_rows > PREFILL_ROWS_MAX || config->slice_macs < 0)
        return pm_fail(err, PM_EINVAL,
                       "a generator wants at least 1 thread, 1 to %d sequences and at most %d prefill rows",
                       RUNNING_MAX, PREFILL_ROWS_MAX);
    if (config->kv_int8 && !pm_precision_is_bf16(config->model->precision))
        return pm_fail(
            err, PM_EUNSUPPORTED,
            "keys and values of 8 bits need a model in bf16, int8 or int4: this one is packed in f32, "
            "the reference; leave out --kv int8, or pack the model in another precision");
    struct pm_generate *g = pm_xalloc(sizeof *g);
    g->config = *config;
    pm_gen_memory_begin(g);
    if (!g->config.slice_macs)
        g->config.slice_macs = SLICE_MACS;
    g->model = &config->model->config;
    g->prefill_rows = rows_of_pass(&g->config);
    g->max_rows = g->prefill_rows + config->max_running * PM_GEN_SAMPLES;
    size_t running = (size_t)config->max_running, rows = (size_t)g->max_rows;
    size_t vocab = (size_t)g->model->text.vocab, hidden = (size_t)g->model->text.hidden;
    g->seqs = pm_xalloc(running * sizeof(struct pm_gen_seq *));
    g->ended = pm_xalloc(running * sizeof(struct pm_gen_seq *));
    g->drafting = pm_xalloc(running * sizeof(struct pm_gen_seq *));
    g->draft_texts = pm_xalloc(running * sizeof *g->draft_texts);
    pm_draft_plan_begin(&g->draft_plan);
    pm_gen_steps_begin(g);
    g->events = pm_xalloc(running * sizeof *g->events);
    g->rows = pm_xalloc(rows * sizeof *g->rows);
    g->mtp_rows = pm_xalloc(rows * sizeof *g->mtp_rows);
    g->scratch = pm_xalloc(2 * vocab * sizeof *g->scratch);
    g->draft_hidden = pm_xalloc(running * hidden * sizeof *g->draft_hidden);
    g->mask = pm_xalloc((vocab + 31) / 32 * sizeof *g->mask);
    int rc = make_parts(g, err);
    if (rc)
        pm_generate_free(&g);
    *out = g;
    return rc;
}

static void free_ended(struct pm_generate *g)
{
    for (int i = 0; i < g->ended_count; i++)
        pm_gen_seq_free(g, g->ended[i]);
    g->ended_count = 0;
}

void pm_generate_free(struct pm_generate **generate)
{
    struct pm_generate *g = *generate;
    if (!g)
        return;
    free_ended(g);
    for (int i = 0; i < g->count; i++)
        pm_gen_seq_free(g, g->seqs[i]);
    pm_mtp_free(&g->mtp);
    pm_decoder_free(&g->decoder);
    pm_vision_free(&g->vision);
    pm_features_free(&g->features);
    pm_kv_pool_free(&g->kv_pool);
    pm_pool_free(&g->pool);
    pm_token_trie_free(&g->trie);
    free(g->seqs);
    free(g->ended);
    free(g->drafting);
    free(g->draft_texts);
    free(g->events);
    free(g->rows);
    free(g->mtp_rows);
    free(g->scratch);
    free(g->draft_hidden);
    free(g->mask);
    free(g);
    *generate = NULL;
}

int pm_generate_room(const struct pm_generate *g)
{
    return g->config.max_running - g->count;
}

int pm_generate_running(const struct pm_generate *g)
{
    return g->count;
}

struct pm_generate_counters pm_generate_counters(const struct pm_generate *g)
{
    return g->counters;
}

int pm_generate_token_limit(const struct pm_generate *g)
{
    int64_t cache =
        (int64_t)(cache_bytes(&g->config) / pm_kv_pool_page_bytes(g->kv_pool)) * PM_KV_PAGE_TOKENS;
    int64_t most = pm_gen_memory_tokens(g);
    cache = cache < most ? cache : most;
    return cache < g->model->text.max_positions ? (int)cache : g->model->text.max_positions;
}

/* ---- requests ---- */

int pm_generate_admit(struct pm_generate *g, const struct pm_generate_request *request, struct pm_error *err)
{
    free_ended(g);
    for (int i = 0; i < g->count; i++)
        if (g->seqs[i]->id == request->id)
            return pm_fail(err, PM_EINVAL, "request %llu is already running",
                           (unsigned long long)request->id);
    if (g->count == g->config.max_running)
        return pm_fail(err, PM_EBUSY, "%d requests are running already: admit again when one is done",
                       g->count);
    struct pm_gen_seq *s;
    int rc = pm_gen_seq_new(g, request, &s, err);
    if (!rc)
        g->seqs[g->count++] = s;
    return rc;
}

static void detach(struct pm_generate *g, int index)
{
    if (g->picture_of == g->seqs[index])
        g->picture_of = NULL;
    g->count--;
    memmove(g->seqs + index, g->seqs + index + 1, (size_t)(g->count - index) * sizeof *g->seqs);
}

int pm_generate_cancel(struct pm_generate *g, uint64_t id, struct pm_error *err)
{
    free_ended(g);
    for (int i = 0; i < g->count; i++) {
        struct pm_gen_seq *s = g->seqs[i];
        if (s->id != id)
            continue;
        detach(g, i);
        pm_gen_seq_free(g, s);
        return 0;
    }
    return pm_fail(err, PM_ENOTFOUND, "request %llu is not running", (unsigned long long)id);
}

/* ---- steps ---- */

/* Events of all requests that got on; the finished ones leave. */
static size_t report(struct pm_generate *g)
{
    size_t count = 0;
    for (int i = 0; i < g->count;) {
        struct pm_gen_seq *s = g->seqs[i];
        if (!s->sample_count && !s->is_finished) {
            i++;
            continue;
        }
        struct pm_generate_event *e = &g->events[count++];
        *e = (struct pm_generate_event){.id = s->id,
                                        .is_final = s->is_finished,
                                        .samples = s->samples,
                                        .sample_count = s->sample_count,
                                        .text = s->text.data ? (const char *)s->text.data + s->shown : "",
                                        .text_bytes = s->released - s->shown,
                                        .end = s->end,
                                        .error = s->error,
                                        .prompt_tokens = s->prompt_count,
                                        .generated_tokens = s->count - s->prompt_count,
                                        .drafted_tokens = s->drafted,
                                        .accepted_tokens = s->accepted,
                                        .begun_us = s->begun_us};
        memcpy(e->spent_us, s->spent_us, sizeof e->spent_us);
        s->shown = s->released;
        if (s->is_finished) {
            detach(g, i);
            g->ended[g->ended_count++] = s;
        } else {
            i++;
        }
    }
    return count;
}

int pm_generate_step(struct pm_generate *g, const struct pm_generate_event **events_out, size_t *count_out,
                     struct pm_error *err)
{
    int rc = 0;
    *events_out = g->events;
    *count_out = 0;
    free_ended(g);
    for (int i = 0; i < g->count; i++)
        g->seqs[i]->sample_count = 0;
    struct pm_gen_seq *picture = pm_gen_picture_next(g);
    bool has_pass = pm_gen_pass_has_work(g), ran = false;
    if (picture && !g->picture_of && !pm_gen_memory_may_begin(g, picture) && has_pass) {
        picture = NULL;
        g->counters.waits++;
    }
    /* Pictures first: the more sequences share a pass, the less it costs each. But what runs goes on. */
    if (has_pass && (!picture || pm_gen_steps_pass_first(g))) {
        g->slices_in_row = 0;
        rc = pm_gen_pass_run(g, &ran, err);
    }
    if (!rc && !ran && picture) {
        g->slices_in_row++;
        pm_gen_memory_use_tower(g, picture);
        pm_gen_picture_slice(g, picture);
    }
    if (!rc)
        *count_out = report(g);
    return rc;
}
