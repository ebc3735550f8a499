/* Logits through the sampler's processors. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tests/parity/engine.h"

#define SCORE_RELATIVE 2e-6 /* f32: the reference divides and multiplies in the same order */
#define PROBABILITY    1e-5

struct rows {
    const struct pm_tensor *logits, *history;
    int count, vocab, length;
};

static struct pm_sampling settings_of(const json_t *o)
{
    struct pm_sampling s = pm_sampling_default();
    const json_t *member;
    s.temperature = (member = json_object_get(o, "temperature")) ? (float)json_number_value(member) : 1;
    s.top_k = (int)json_integer_value(json_object_get(o, "top_k"));
    s.top_p = (member = json_object_get(o, "top_p")) ? (float)json_number_value(member) : 1;
    s.min_p = (float)json_number_value(json_object_get(o, "min_p"));
    s.repetition_penalty =
        (member = json_object_get(o, "repetition_penalty")) ? (float)json_number_value(member) : 1;
    s.no_repeat_ngram = (int)json_integer_value(json_object_get(o, "no_repeat_ngram_size"));
    return s;
}

static const struct pm_tensor *of_setting(struct engine_case *c, const char *setting, const char *what,
                                          enum pm_dtype dtype, size_t elements)
{
    char *name = pm_xprintf("%s.%s", setting, what);
    const struct pm_tensor *t = engine_expected(c, name, dtype);
    free(name);
    return t && engine_elements(t) == elements ? t : NULL;
}

/* Does the expected score of id occur twice in its row? Then the reference's sort decides which one stays. */
static bool is_tie(const struct pm_tensor *scores, const float *ours, size_t first, int vocab, int id)
{
    float value = ours[id] > -INFINITY ? ours[id] : engine_float(scores, first + (size_t)id);
    for (int i = 0; i < vocab; i++) {
        float other = ours[i] > -INFINITY ? ours[i] : engine_float(scores, first + (size_t)i);
        if (i != id && fabsf(other - value) <= 1e-6f * fmaxf(1, fabsf(value)))
            return true;
    }
    return false;
}

static void check_row(const struct rows *r, int row, const float *ours, const struct pm_tensor *scores,
                      const struct pm_tensor *probs, int expected_kept, struct parity_verdict *v)
{
    size_t first = (size_t)row * (size_t)r->vocab;
    double best = -INFINITY, sum = 0;
    int kept = 0, swapped = 0;
    for (int i = 0; i < r->vocab; i++) {
        double x = (double)engine_float(scores, first + (size_t)i);
        bool is_ours = ours[i] > -INFINITY;
        kept += is_ours;
        best = is_ours && (double)ours[i] > best ? (double)ours[i] : best;
        if (is_ours != (x > -INFINITY)) {
            swapped++;
            if (!is_tie(scores, ours, first, r->vocab, i))
                parity_fail(v, "row %d: id %d %s", row, i, is_ours ? "stays" : "is removed");
        } else if (is_ours) {
            parity_report(v, "scores", fabs((double)ours[i] - x), SCORE_RELATIVE * fmax(1, fabs(x)));
        }
    }
    if (kept != expected_kept)
        parity_fail(v, "row %d: %d ids stay, not %d", row, kept, expected_kept);
    for (int i = 0; i < r->vocab; i++)
        sum += exp((double)ours[i] - best);
    for (int i = 0; i < r->vocab && swapped == 0; i++)
        parity_report(
            v, "probabilities",
            fabs(exp((double)ours[i] - best) / sum - (double)engine_float(probs, first + (size_t)i)),
            PROBABILITY);
}

static void check_setting(struct engine_case *c, const struct rows *r, const char *name,
                          const json_t *settings)
{
    struct parity_verdict v = {0};
    size_t vocab = (size_t)r->vocab, all = (size_t)r->count * vocab;
    struct pm_sampling sampling = settings_of(settings);
    const struct pm_tensor *scores = of_setting(c, name, "scores", PM_DTYPE_F32, all);
    const struct pm_tensor *probs = of_setting(c, name, "probs", PM_DTYPE_F32, all);
    const struct pm_tensor *kept = of_setting(c, name, "kept", PM_DTYPE_I32, (size_t)r->count);
    if (!scores || !probs || !kept) {
        parity_fail(&v, "no scores, probs or kept of that shape");
        engine_line(c, name, 0, &v, NULL);
        return;
    }
    float *x = pm_xalloc(2 * vocab * sizeof *x);
    int32_t *ids = pm_xalloc((size_t)r->length * sizeof *ids);
    for (int row = 0; row < r->count; row++) {
        memcpy(x, r->logits->data + (size_t)row * vocab * sizeof *x, vocab * sizeof *x);
        memcpy(ids, r->history->data + (size_t)row * (size_t)r->length * sizeof *ids,
               (size_t)r->length * sizeof *ids);
        struct pm_history history = {ids, r->length, r->length};
        pm_sampler_process(&sampling, &history, NULL, x, r->vocab, x + vocab);
        check_row(r, row, x, scores, probs, engine_int(kept, (size_t)row), &v);
    }
    engine_line(c, name, 0, &v, NULL);
    free(x);
    free(ids);
}

void engine_run_sampling(struct engine_case *c)
{
    struct rows r = {.logits = engine_expected(c, "logits", PM_DTYPE_F32),
                     .history = engine_expected(c, "history_ids", PM_DTYPE_I32)};
    if (!r.logits || !r.history || r.logits->rank != 2 || r.history->rank != 2 ||
        r.logits->shape[0] != r.history->shape[0]) {
        struct parity_verdict v = {0};
        parity_fail(&v, "no logits (B,V) and history_ids (B,L)");
        engine_line(c, "logits", 0, &v, NULL);
        return;
    }
    r.count = (int)r.logits->shape[0];
    r.vocab = (int)r.logits->shape[1];
    r.length = (int)r.history->shape[1];
    const char *name;
    json_t *settings;
    json_object_foreach(json_object_get(c->object, "settings"), name, settings)
        check_setting(c, &r, name, settings);
}
