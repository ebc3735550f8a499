/* Logits of a case too large for all of them: parts, best entries, maxima. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tests/parity/engine.h"

#define LOGIT_ABSOLUTE 2e-3

/* Mean square of a row's values less their mean. */
static double deviation(const float *row, int n)
{
    double mean = 0, square = 0;
    for (int i = 0; i < n; i++)
        mean += (double)row[i] / n;
    for (int i = 0; i < n; i++)
        square += ((double)row[i] - mean) * ((double)row[i] - mean) / n;
    return square;
}

static double limit_of_logits(const struct engine_case *c)
{
    return engine_limit(c, ENGINE_TEXT, c->bf16_logits);
}

/* A rounded precision's logits of the reference's best ids beside the reference's, in deviations. */
static void check_best_values(struct engine_case *c, struct parity_verdict *v, const struct pm_tensor *ids,
                              const struct pm_tensor *best)
{
    size_t vocab = (size_t)c->model->config.text.vocab;
    struct engine_distance d = {0};
    for (size_t r = 0; best && c->exact && r < engine_elements(ids) && r < engine_elements(best); r++) {
        int32_t id = engine_int(ids, r);
        if (r >= (size_t)c->id_count || id < 0 || (size_t)id >= vocab) {
            parity_fail(v, "row %zu of the best ids: %d", r, id);
            return;
        }
        d.difference += pow((double)c->logits[r * vocab + (size_t)id] - (double)engine_float(best, r), 2);
        d.size += deviation(c->exact + r * vocab, (int)vocab);
    }
    parity_report(v, "distance of the best ids' logits", engine_distance_of(&d), limit_of_logits(c));
}

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
        check_best_values(c, &v, ids, best);
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

/* Pairs of an expected value and ours. */
struct pairs {
    double square, worst;
    int count;
};

static void add(struct pairs *p, float ours, float theirs)
{
    double error = fabs((double)ours - (double)theirs);
    p->square += error * error;
    p->count++;
    if (!(error <= p->worst))
        p->worst = error;
}

static void check_last(struct engine_case *c)
{
    const struct pm_tensor *first = engine_expected(c, "logits.last.first256", PM_DTYPE_F32);
    const struct pm_tensor *ids = engine_expected(c, "logits.last.top20_ids", PM_DTYPE_I32);
    const struct pm_tensor *top = engine_expected(c, "logits.last.top20", PM_DTYPE_F32);
    if (!first || !ids || !top)
        return;
    struct parity_verdict v = {0};
    struct pairs p = {0};
    size_t vocab = (size_t)c->model->config.text.vocab;
    const float *row = c->logits + (size_t)(c->id_count - 1) * vocab;
    for (size_t i = 0; i < engine_elements(first) && i < vocab; i++)
        add(&p, row[i], engine_float(first, i));
    for (size_t i = 0; i < engine_elements(ids) && i < engine_elements(top); i++) {
        int32_t id = engine_int(ids, i);
        if (id >= 0 && (size_t)id < vocab)
            add(&p, row[id], engine_float(top, i));
        else
            parity_fail(&v, "top20_ids: %d is no id", id);
    }
    if (!engine_is_rounded(c))
        parity_report(&v, "logits", p.worst, LOGIT_ABSOLUTE);
    else if (c->exact)
        parity_report(
            &v, "distance of logits",
            sqrt(p.square / p.count / deviation(c->exact + (size_t)(c->id_count - 1) * vocab, (int)vocab)),
            limit_of_logits(c));
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
    struct engine_distance d = {0};
    for (size_t at = 0; at < count; at += vocab)
        engine_distance_row(&d, c->logits + at, c->exact + at, (int)vocab);
    if (c->model->precision == PM_PRECISION_BF16)
        c->bf16_logits = engine_distance_of(&d);
    engine_report_logits(&v, &d, limit_of_logits(c));
    engine_line(c, "logits beside f32", 0, &v, NULL);
}

void engine_check_summaries(struct engine_case *c)
{
    check_best(c);
    check_last(c);
}
