/* Logits of a case too large for all of them: parts, best entries, maxima. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tests/parity/engine.h"

#define LOGIT_ABSOLUTE 2e-3

/* The best entry of every row and its value. */
static void check_best(struct engine_case *c)
{
    const struct pm_tensor *ids = engine_expected(c, "logits.all.argmax", PM_DTYPE_I32);
    const struct pm_tensor *best = engine_expected(c, "logits.all.max", PM_DTYPE_F32);
    if (!ids)
        return;
    struct parity_verdict v = {0};
    int vocab = c->model->config.text.vocab, same = 0, rows = c->id_count;
    int32_t *ours = pm_xalloc((size_t)rows * sizeof *ours);
    float *values = pm_xalloc((size_t)rows * sizeof *values);
    for (int r = 0; r < rows; r++) {
        const float *row = c->logits + (size_t)r * (size_t)vocab;
        ours[r] = engine_argmax(row, vocab);
        values[r] = row[ours[r]];
        same += (size_t)r < engine_elements(ids) && ours[r] == engine_int(ids, (size_t)r);
    }
    if (engine_is_rounded(c)) {
        parity_report(&v, "share of rows with another best id", 1 - (double)same / rows,
                      fmin(0.2 * engine_slack(c), 1));
        parity_note(&v, "%d of %d rows have the same best id", same, rows);
    } else {
        engine_compare_ids(&v, ids->name, ours, rows, ids);
        if (best)
            engine_compare_floats(&v, best->name, values, best, (size_t)rows, LOGIT_ABSOLUTE, 0);
    }
    engine_line(c, "logits, all rows", 0, &v, NULL);
    free(ours);
    free(values);
}

/* Mean |error| over pairs of an expected value and ours. */
struct mean {
    double sum, worst;
    int count;
};

static void add(struct mean *m, float ours, float theirs)
{
    double error = fabs((double)ours - (double)theirs);
    m->sum += error;
    m->count++;
    if (!(error <= m->worst))
        m->worst = error;
}

static void check_last(struct engine_case *c)
{
    const struct pm_tensor *first = engine_expected(c, "logits.last.first256", PM_DTYPE_F32);
    const struct pm_tensor *ids = engine_expected(c, "logits.last.top20_ids", PM_DTYPE_I32);
    const struct pm_tensor *top = engine_expected(c, "logits.last.top20", PM_DTYPE_F32);
    if (!first || !ids || !top)
        return;
    struct parity_verdict v = {0};
    struct mean m = {0};
    size_t vocab = (size_t)c->model->config.text.vocab;
    const float *row = c->logits + (size_t)(c->id_count - 1) * vocab;
    for (size_t i = 0; i < engine_elements(first) && i < vocab; i++)
        add(&m, row[i], engine_float(first, i));
    for (size_t i = 0; i < engine_elements(ids) && i < engine_elements(top); i++) {
        int32_t id = engine_int(ids, i);
        if (id >= 0 && (size_t)id < vocab)
            add(&m, row[id], engine_float(top, i));
        else
            parity_fail(&v, "top20_ids: %d is no id", id);
    }
    if (engine_is_rounded(c))
        parity_report(&v, "mean |error| of logits", m.sum / m.count, 0.3 * engine_slack(c));
    else
        parity_report(&v, "logits", m.worst, LOGIT_ABSOLUTE);
    engine_line(c, "logits, last row", 0, &v, NULL);
}

void engine_check_beside_f32(struct engine_case *c)
{
    size_t vocab = (size_t)c->model->config.text.vocab, count = (size_t)c->id_count * vocab;
    if (!engine_is_rounded(c)) {
        free(c->exact);
        c->exact = pm_xalloc(count * sizeof *c->exact);
        memcpy(c->exact, c->logits, count * sizeof *c->exact);
        return;
    }
    if (!c->exact)
        return;
    struct parity_verdict v = {0};
    struct mean m = {0}, size = {0};
    int same = 0;
    for (int r = 0; r < c->id_count; r++) {
        const float *ours = c->logits + (size_t)r * vocab, *exact = c->exact + (size_t)r * vocab;
        double sum = 0;
        for (size_t i = 0; i < vocab; i++)
            sum += (double)exact[i] / (double)vocab;
        for (size_t i = 0; i < vocab; i++) {
            m.sum += fabs((double)ours[i] - (double)exact[i]);
            m.worst = fmax(m.worst, fabs((double)ours[i] - (double)exact[i]));
            size.sum += fabs((double)exact[i] - sum);
        }
        same += engine_argmax(ours, (int)vocab) == engine_argmax(exact, (int)vocab);
    }
    parity_report(&v, "mean |error| of logits", m.sum / (double)count, 0.3 * engine_slack(c));
    parity_note(&v, "largest %.3g, mean deviation of logits %.3g; best id the same in %d of %d rows", m.worst,
                size.sum / (double)count, same, c->id_count);
    engine_line(c, "logits beside f32", 0, &v, NULL);
}

void engine_check_summaries(struct engine_case *c)
{
    check_best(c);
    check_last(c);
}
