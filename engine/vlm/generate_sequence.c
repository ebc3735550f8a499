/* One request of the generator: from its prompt to rows, from its logits to tokens and text. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/text/tokenizer.h"
#include "engine/vlm/generate_internal.h"

/* ---- making ---- */

/* Slots that each picture takes, and how many ids the prompt has with them. */
static int size_images(const struct pm_generate *g, const struct pm_generate_request *request,
                       struct pm_image_grid *grids, int64_t *count_out, int64_t *patches_out,
                       struct pm_error *err)
{
    const struct pm_vision_config *v = &g->model->vision;
    int found = 0;
    *count_out = *patches_out = 0;
    for (int i = 0; i < request->id_count; i++) {
        int32_t id = request->ids[i];
        if (id < 0 || id >= g->model->text.vocab)
            return pm_fail(err, PM_EINVAL,
                           "the prompt's id %d at place %d is outside the vocabulary of %d ids", (int)id, i,
                           g->model->text.vocab);
        if (id != g->model->image_id || found++ >= request->image_count) {
            ++*count_out;
            continue;
        }
        const struct pm_image *image = &request->images[found - 1];
        int width, height;
        if (!image->pixels || image->width_px < 1 || image->height_px < 1 ||
            (image->channels != 1 && image->channels != 3) ||
            image->stride_bytes < (size_t)image->width_px * (size_t)image->channels)
            return pm_fail(err, PM_EINVAL, "picture %d of %d x %d with %d channels cannot be read", found,
                           image->width_px, image->height_px, image->channels);
        int rc = pm_smart_resize(g->model, image->width_px, image->height_px, &width, &height, err);
        if (rc)
            return rc;
        grids[found - 1] = (struct pm_image_grid){height / v->patch, width / v->patch};
        int64_t patches = (int64_t)grids[found - 1].rows * grids[found - 1].columns;
        *count_out += patches / (v->merge * v->merge);
        *patches_out = patches > *patches_out ? patches : *patches_out;
    }
    if (found != request->image_count)
        return pm_fail(err, PM_EINVAL, "the prompt has %d places for pictures, the request has %d pictures",
                       found, request->image_count);
    return 0;
}

static int check_size(const struct pm_generate *g, const struct pm_generate_request *request, int64_t prompt,
                      int64_t patches, struct pm_error *err)
{
    int positions = g->model->text.max_positions, limit = pm_generate_token_limit(g);
    if (prompt < 1)
        return pm_fail(err, PM_EINVAL, "the prompt is empty");
    if (request->max_tokens < 1)
        return pm_fail(err, PM_EINVAL, "%d tokens were asked for: at least 1", request->max_tokens);
    if (prompt >= positions)
        return pm_fail(err, PM_ELIMIT, "the prompt has %lld tokens, the model's limit is %d",
                       (long long)prompt, positions - 1);
    int64_t need = prompt + request->max_tokens;
    if (need > positions)
        need = positions;
    int rc = pm_gen_memory_check(g, patches, need, err); /* says what the limit should be */
    if (!rc && need > limit)
        return pm_fail(
            err, PM_ELIMIT,
            "the prompt of %lld tokens and %d more need a cache of %lld tokens, there is one of %d: "
            "ask for fewer tokens or give the cache more memory",
            (long long)prompt, request->max_tokens, (long long)need, limit);
    return rc;
}

/* ids with each picture's placeholder repeated for all its tokens. */
static void expand(const struct pm_generate *g, const struct pm_generate_request *request,
                   const struct pm_image_grid *grids, struct pm_gen_seq *s)
{
    int merged = g->model->vision.merge * g->model->vision.merge;
    s->images = pm_xalloc(((size_t)request->image_count + 1) * sizeof *s->images);
    for (int i = 0; i < request->id_count; i++) {
        int32_t id = request->ids[i];
        int copies = 1;
        if (id == g->model->image_id) {
            struct pm_gen_image *image = &s->images[s->image_count];
            image->image = request->images[s->image_count];
            image->image.owned = NULL;
            copies = grids[s->image_count].rows * grids[s->image_count].columns / merged;
            image->first = s->count;
            image->count = copies;
            s->image_count++;
        }
        for (int k = 0; k < copies; k++)
            s->ids[s->count++] = id;
    }
}

static void copy_rules(const struct pm_generate_request *request, struct pm_gen_seq *s)
{
    s->sampling = request->sampling;
    if (s->sampling.bias_count) {
        size_t bytes = s->sampling.bias_count * sizeof *s->sampling.biases;
        void *copy = pm_xalloc(bytes);
        memcpy(copy, s->sampling.biases, bytes);
        s->sampling.biases = copy;
    } else {
        s->sampling.biases = NULL;
    }
    s->stop_strings = pm_xalloc((request->stop.count + 1) * sizeof *s->stop_strings);
    for (size_t i = 0; i < request->stop.count; i++)
        s->stop_strings[i] = pm_xstrdup(request->stop.strings[i]);
    s->stop = (struct pm_stop){(const char *const *)s->stop_strings, request->stop.count};
    s->ignores_eos = request->ignores_eos;
    s->loop_tokens = request->loop_tokens;
}

static int check_rules(struct pm_generate *g, const struct pm_generate_request *request, struct pm_error *err)
{
    int rc = pm_sampling_check(&request->sampling, g->model->text.vocab, err);
    for (size_t i = 0; !rc && i < request->stop.count; i++)
        if (!request->stop.strings[i] || !*request->stop.strings[i])
            rc = pm_fail(err, PM_EINVAL, "stop string %zu is empty", i + 1);
    if (!rc && request->stop.count && !g->config.tokenizer)
        rc = pm_fail(err, PM_EINVAL, "stop strings need a tokenizer");
    if (!rc && (request->drafts < 0 || request->drafts > PM_MTP_DRAFTS_MAX))
        rc = pm_fail(err, PM_EINVAL, "%d drafts: 0 to %d can be made", request->drafts, PM_MTP_DRAFTS_MAX);
    if (!rc && request->grammar && !g->config.tokenizer)
        rc = pm_fail(err, PM_EINVAL, "a grammar needs a tokenizer");
    if (!rc && request->grammar && !g->trie)
        rc = pm_token_trie_new(g->config.tokenizer, &g->trie, err);
    return rc;
}

int pm_gen_seq_new(struct pm_generate *g, const struct pm_generate_request *request, struct pm_gen_seq **out,
                   struct pm_error *err)
{
    struct pm_gen_seq *s = NULL;
    void *memory;
    int64_t prompt = 0, patches = 0;
    *out = NULL;
    if (request->image_count < 0 || request->id_count < 0)
        return pm_fail(err, PM_EINVAL, "%d ids and %d pictures make no prompt", request->id_count,
                       request->image_count);
    struct pm_image_grid *grids = pm_xalloc(((size_t)request->image_count + 1) * sizeof *grids);
    int rc = check_rules(g, request, err);
    if (!rc)
        rc = size_images(g, request, grids, &prompt, &patches, err);
    if (!rc)
        rc = check_size(g, request, prompt, patches, err);
    if (rc)
        goto out;
    s = pm_xalloc(sizeof *s);
    s->id = request->id;
    s->prompt_count = (int)prompt;
    s->patches = patches;
    s->end_count = request->max_tokens < g->model->text.max_positions - s->prompt_count
                       ? s->prompt_count + request->max_tokens
                       : g->model->text.max_positions;
    if ((rc = pm_alloc_array((size_t)s->end_count, sizeof *s->ids, &memory, err)))
        goto out;
    s->ids = memory;
    if ((rc = pm_alloc_array((size_t)s->prompt_count, sizeof *s->positions, &memory, err)))
        goto out;
    s->positions = memory;
    expand(g, request, grids, s);
    rc = pm_vlm_positions(g->model, s->ids, s->count, grids, s->image_count, s->positions, &s->delta, err);
    if (rc)
        goto out;
    copy_rules(request, s);
    s->drafts = g->mtp ? request->drafts : 0;
    s->draft_rate = g->draft_plan.rate;
    if (request->grammar)
        s->grammar = pm_grammar_begin(request->grammar);
out:
    free(grids);
    if (rc && s)
        pm_gen_seq_free(g, s);
    else
        *out = s;
    return rc;
}

int64_t pm_gen_seq_spend(struct pm_gen_seq *s, enum pm_generate_phase phase, int64_t start_us)
{
    int64_t now_us = pm_clock_us();
    s->begun_us = s->begun_us ? s->begun_us : start_us;
    s->spent_us[phase] += now_us - start_us;
    return now_us;
}

void pm_gen_seq_free(struct pm_generate *g, struct pm_gen_seq *s)
{
    pm_kv_release(g->kv_pool, &s->kv);
    for (int i = 0; i < s->image_count; i++)
        free(s->images[i].embeddings);
    for (size_t i = 0; i < s->stop.count; i++)
        free(s->stop_strings[i]);
    free(s->stop_strings);
    free((void *)(uintptr_t)s->sampling.biases);
    pm_grammar_end(&s->grammar);
    pm_buf_free(&s->text);
    free(s->waiting);
    free(s->images);
    free(s->positions);
    free(s->ids);
    free(s);
}

/* ---- ends ---- */

void pm_gen_seq_end(struct pm_generate *g, struct pm_gen_seq *s, enum pm_generate_end end)
{
    s->is_finished = true;
    s->end = end;
    s->draft_count = 0;
    pm_grammar_end(&s->grammar); /* its grammar is borrowed no longer */
    pm_kv_release(g->kv_pool, &s->kv);
}

void pm_gen_seq_fail(struct pm_gen_seq *s, const struct pm_error *error)
{
    s->is_finished = true;
    s->end = PM_GENERATE_ERROR;
    s->error = *error;
    s->draft_count = 0;
    pm_grammar_end(&s->grammar);
}

static bool is_end_id(const struct pm_generate *g, int32_t id)
{
    for (int i = 0; i < g->model->eos_count; i++)
        if (g->model->eos_ids[i] == id)
            return true;
    return false;
}

/* Has the text run into a loop with this token (the last of ids)? */
static bool is_looping(struct pm_gen_seq *s)
{
    bool is_loop = false;
    int generated = s->count - s->prompt_count, last = s->count - 1;
    for (int unit = 1; unit <= PM_GENERATE_LOOP_UNIT && unit < generated; unit++) {
        s->loop_runs[unit] = s->ids[last] == s->ids[last - unit] ? s->loop_runs[unit] + 1 : 0;
        is_loop |= s->loop_runs[unit] + unit >= s->loop_tokens && s->loop_tokens >= 2 * unit;
    }
    return is_loop;
}

/* ---- text ---- */

/* The text after one more token; true when a stop string ends it. */
static bool add_text(const struct pm_generate *g, struct pm_gen_seq *s, int32_t id)
{
    size_t bytes, cut;
    if (!g->config.tokenizer || !pm_tokenizer_bytes(g->config.tokenizer, id, &bytes))
        return false; /* a row of the head that no token has */
    pm_token_stream_add(&s->stream, g->config.tokenizer, id, true, &s->text);
    if (!s->stop.count) {
        s->released = s->text.size;
        return false;
    }
    bool is_stop = pm_stop_find(&s->stop, (const char *)s->text.data, s->text.size, s->released, &cut);
    if (is_stop)
        s->text.size = cut;
    s->released = cut;
    return is_stop;
}

/* What was held back when the sequence ended without a stop string. */
static void finish_text(const struct pm_generate *g, struct pm_gen_seq *s)
{
    size_t cut;
    if (!g->config.tokenizer)
        return;
    pm_token_stream_finish(&s->stream, &s->text);
    if (s->stop.count && pm_stop_find(&s->stop, (const char *)s->text.data, s->text.size, s->released, &cut))
        s->text.size = cut;
    s->released = s->text.size;
}

/* ---- the next token ---- */

/* The mask of the grammar; false when it allows nothing. */
static bool make_mask(struct pm_generate *g, struct pm_gen_seq *s)
{
    int vocab = g->model->text.vocab, words = (vocab + 31) / 32;
    int ends = s->ignores_eos ? 0 : g->model->eos_count;
    uint32_t any = 0;
    pm_grammar_mask(s->grammar, g->trie, g->model->eos_ids, ends, vocab, g->mask);
    for (int i = 0; i < words; i++)
        any |= g->mask[i];
    return any != 0;
}

void pm_gen_seq_sample(struct pm_generate *g, struct pm_gen_seq *s, const float *logits)
{
    struct pm_sample *sample = &s->samples[s->sample_count];
    struct pm_history history = {s->ids, s->count, s->prompt_count};
    const uint32_t *mask = NULL;
    if (s->grammar) {
        if (!make_mask(g, s)) {
            struct pm_error error;
            pm_fail(&error, PM_EUNSUPPORTED,
                    "the constraint cannot be met: no token of this model goes on from here");
            pm_gen_seq_end(g, s, PM_GENERATE_ERROR);
            pm_gen_seq_fail(s, &error);
            return;
        }
        mask = g->mask;
    }
    pm_sampler_pick(&s->sampling, &history, mask, logits, g->model->text.vocab, s->count - s->prompt_count,
                    g->scratch, sample);
    s->sample_count++;
    s->ids[s->count++] = sample->id;
    if (is_end_id(g, sample->id) && !s->ignores_eos) {
        finish_text(g, s);
        pm_gen_seq_end(g, s, PM_GENERATE_STOP);
        return;
    }
    if (s->grammar) {
        size_t bytes = 0;
        const uint8_t *data = pm_tokenizer_bytes(g->config.tokenizer, sample->id, &bytes);
        if (data)
            pm_grammar_accept(s->grammar, data, bytes);
    }
    if (add_text(g, s, sample->id)) {
        pm_gen_seq_end(g, s, PM_GENERATE_STOP);
    } else if (s->grammar && pm_grammar_is_finished(s->grammar)) {
        finish_text(g, s);
        pm_gen_seq_end(g, s, PM_GENERATE_STOP);
    } else if (s->count == s->end_count || (s->loop_tokens && is_looping(s))) {
        finish_text(g, s);
        pm_gen_seq_end(g, s, PM_GENERATE_LENGTH);
    }
}
