/* The extra layer of a case: slots over the prompt, and drafts after some accepted tokens. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tests/parity/engine.h"

#define HIDDEN_ABSOLUTE 1e-3
#define LOGIT_ABSOLUTE  2e-3

/* Token i of prompt and greedy text; its position. */
static int32_t token_at(const struct engine_case *c, int i)
{
    return i < c->id_count ? c->ids[i] : c->generated[i - c->id_count];
}

static struct pm_mtp_row slot_row(const struct engine_case *c, int slot)
{
    struct pm_mtp_row row = {
        .kv = &c->kv,
        .slot = slot,
        .hidden = c->hidden + (size_t)slot * (size_t)c->model->config.text.hidden,
        .token = token_at(c, slot + 1),
        .wants_logits = true,
    };
    for (int i = 0; i < 3; i++)
        row.position[i] = slot < c->id_count ? c->positions[slot][i] : slot + c->delta;
    return row;
}

/* ---- prompt ---- */

struct prompt_out {
    float *normed, *prenorm, *logits;
};

static int run_prompt(struct engine_case *c, struct prompt_out *out, struct pm_error *err)
{
    size_t hidden = (size_t)c->model->config.text.hidden, vocab = (size_t)c->model->config.text.vocab;
    struct pm_mtp_row *rows = pm_xalloc((size_t)c->id_count * sizeof *rows);
    int rc = 0;
    for (int i = 0; i < c->id_count; i++)
        rows[i] = slot_row(c, i);
    for (int first = 0, count; first < c->id_count && rc == 0; first += count) {
        count = c->id_count - first < ENGINE_ROWS ? c->id_count - first : ENGINE_ROWS;
        rc = pm_mtp_run(c->mtp, rows + first, count, err);
        for (int r = 0; r < count && rc == 0; r++) {
            size_t at = (size_t)(first + r);
            memcpy(out->normed + at * hidden, pm_mtp_hidden(c->mtp, r), hidden * sizeof(float));
            memcpy(out->prenorm + at * hidden, pm_mtp_prenorm(c->mtp, r), hidden * sizeof(float));
            memcpy(out->logits + at * vocab, pm_mtp_logits(c->mtp, r), vocab * sizeof(float));
        }
    }
    free(rows);
    return rc;
}

static void check_prompt(struct engine_case *c)
{
    size_t rows = (size_t)c->id_count, hidden = (size_t)c->model->config.text.hidden;
    size_t vocab = (size_t)c->model->config.text.vocab;
    struct prompt_out out = {pm_xalloc(rows * hidden * sizeof(float)),
                             pm_xalloc(rows * hidden * sizeof(float)),
                             pm_xalloc(rows * vocab * sizeof(float))};
    struct pm_error err = {0};
    struct parity_verdict v = {0};
    int rc = run_prompt(c, &out, &err);
    const struct pm_tensor *t;
    if (rc == 0 && (t = engine_expected(c, "mtp.prompt.hidden_prenorm", PM_DTYPE_F32)))
        engine_compare_floats(&v, t->name, out.prenorm, t, rows * hidden, HIDDEN_ABSOLUTE, 0);
    if (rc == 0 && (t = engine_expected(c, "mtp.prompt.hidden_normed", PM_DTYPE_F32)))
        engine_compare_floats(&v, t->name, out.normed, t, rows * hidden, HIDDEN_ABSOLUTE, 0);
    if (rc == 0 && (t = engine_expected(c, "mtp.prompt.logits", PM_DTYPE_F32)))
        engine_compare_floats(&v, t->name, out.logits, t, rows * vocab, LOGIT_ABSOLUTE, 0);
    if (rc || v.what[0] || v.failed)
        engine_line(c, "mtp.prompt", rc, &v, &err);
    free(out.normed);
    free(out.prenorm);
    free(out.logits);
}

/* ---- drafts ---- */

struct drafts {
    const char *carry; /* "normed" or "prenorm" */
    const struct pm_tensor *ids, *logits, *top_ids, *top_logits;
    float *hidden; /* [hidden]: carried */
};

static void check_draft_logits(const struct engine_case *c, const struct drafts *d, size_t draft,
                               struct parity_verdict *v)
{
    size_t vocab = (size_t)c->model->config.text.vocab;
    const float *ours = pm_mtp_logits(c->mtp, 0);
    double worst = 0;
    if (d->logits) {
        for (size_t i = 0; i < vocab; i++) {
            double error = fabs((double)ours[i] - (double)engine_float(d->logits, draft * vocab + i));
            worst = error > worst || isnan(error) ? error : worst;
        }
        parity_report(v, "logits", worst, LOGIT_ABSOLUTE);
    }
    for (size_t k = 0; d->top_ids && k < d->top_ids->shape[2]; k++) {
        size_t at = draft * (size_t)d->top_ids->shape[2] + k;
        int32_t id = engine_int(d->top_ids, at);
        if (id >= 0 && (size_t)id < vocab)
            parity_report(v, "top logits", fabs((double)ours[id] - (double)engine_float(d->top_logits, at)),
                          LOGIT_ABSOLUTE);
        else
            parity_fail(v, "draft_top5_ids: %d is no id", id);
    }
}

/* Drafts after `accepted` tokens: the slot of the last known token, then the layer on its own output. */
static int run_drafts(struct engine_case *c, const struct drafts *d, int accepted, int steps,
                      struct parity_verdict *v, struct pm_error *err)
{
    size_t hidden = (size_t)c->model->config.text.hidden;
    int slot = c->id_count - 1 + accepted, rc = 0;
    struct pm_mtp_row row = slot_row(c, slot);
    for (int step = 0; step < steps && rc == 0 && !v->failed; step++) {
        rc = pm_kv_reserve(c->kv_pool, &c->kv, slot + step + 1, err);
        if (rc == 0)
            rc = pm_mtp_run(c->mtp, &row, 1, err);
        if (rc)
            break;
        size_t draft = (size_t)accepted * (size_t)steps + (size_t)step;
        check_draft_logits(c, d, draft, v);
        int32_t id = engine_argmax(pm_mtp_logits(c->mtp, 0), c->model->config.text.vocab);
        if (id != engine_int(d->ids, draft))
            parity_fail(v, "draft %d after %d tokens is %d, not %d", step + 1, accepted, id,
                        engine_int(d->ids, draft));
        bool is_normed = strcmp(d->carry, "normed") == 0;
        memcpy(d->hidden, is_normed ? pm_mtp_hidden(c->mtp, 0) : pm_mtp_prenorm(c->mtp, 0),
               hidden * sizeof *d->hidden);
        row.hidden = d->hidden;
        row.token = id;
        row.slot++;
        for (int i = 0; i < 3; i++)
            row.position[i]++;
    }
    return rc;
}

static const struct pm_tensor *of_carry(struct engine_case *c, const char *what, const char *carry,
                                        enum pm_dtype dtype)
{
    char name[64];
    snprintf(name, sizeof name, "mtp.%s.%s", what, carry);
    return engine_expected(c, name, dtype);
}

static void check_drafts(struct engine_case *c, const char *carry)
{
    struct drafts d = {
        .carry = carry,
        .ids = of_carry(c, "draft_ids", carry, PM_DTYPE_I32),
        .logits = of_carry(c, "draft_logits", carry, PM_DTYPE_F32),
        .top_ids = of_carry(c, "draft_top5_ids", carry, PM_DTYPE_I32),
        .top_logits = of_carry(c, "draft_top5_logits", carry, PM_DTYPE_F32),
    };
    if (!d.ids)
        return;
    struct parity_verdict v = {0};
    struct pm_error err = {0};
    int rows = d.ids->rank == 2 ? (int)d.ids->shape[0] : 0, steps = rows ? (int)d.ids->shape[1] : 0, rc = 0;
    size_t drafts = (size_t)rows * (size_t)steps;
    bool is_sound =
        rows > 0 && rows <= c->generated_count &&
        (!d.logits || engine_elements(d.logits) == drafts * (size_t)c->model->config.text.vocab) &&
        (!d.top_ids || (d.top_logits && d.top_ids->rank == 3 && d.top_ids->shape[0] == d.ids->shape[0] &&
                        d.top_ids->shape[1] == d.ids->shape[1] && d.top_logits->bytes == d.top_ids->bytes));
    if (!is_sound)
        parity_fail(&v, "%d x %d drafts after %d tokens: shapes do not fit", rows, steps, c->generated_count);
    d.hidden = pm_xalloc((size_t)c->model->config.text.hidden * sizeof *d.hidden);
    for (int k = 0; k < rows && rc == 0 && !v.failed; k++)
        rc = run_drafts(c, &d, k, steps, &v, &err);
    if (rc == 0 && !v.failed) {
        parity_report(&v, "ids", 0, 0);
        parity_note(&v, "%zu drafts equal", drafts);
    }
    char group[32];
    snprintf(group, sizeof group, "mtp.draft %s", carry);
    engine_line(c, group, rc, &v, &err);
    pm_kv_truncate(c->kv_pool, &c->kv, c->id_count);
    free(d.hidden);
}

void engine_check_mtp(struct engine_case *c)
{
    if (!c->mtp || c->generated_count == 0)
        return;
    check_prompt(c);
    check_drafts(c, "normed");
    check_drafts(c, "prenorm");
}
