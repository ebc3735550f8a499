#include "engine/vlm/mtp.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/vlm/pass.h"

struct pm_mtp {
    const struct pm_vlm_model *model;
    const struct pm_kernels *kernels;
    struct pm_pool *pool;
    struct pm_pass *pass;
    struct pm_pass_row *rows; /* [max_rows] */
    float *embedding;         /* [hidden] */
    int max_rows;
};

struct pm_mtp *pm_mtp_new(const struct pm_vlm_model *model, const struct pm_kernels *kernels,
                          struct pm_pool *pool, struct pm_kv_pool *kv_pool, int max_rows)
{
    PM_ASSERT(model->mtp);
    int hidden = model->config.text.hidden;
    struct pm_pass *pass = pm_pass_new(model, kernels, pool, kv_pool, max_rows, 2 * hidden);
    if (!pass)
        return NULL;
    struct pm_mtp *m = pm_xalloc(sizeof *m);
    m->model = model;
    m->kernels = kernels;
    m->pool = pool;
    m->pass = pass;
    m->max_rows = max_rows;
    m->rows = pm_xalloc((size_t)max_rows * sizeof *m->rows);
    m->embedding = pm_xalloc((size_t)hidden * sizeof *m->embedding);
    return m;
}

void pm_mtp_free(struct pm_mtp **mtp)
{
    if (!*mtp)
        return;
    pm_pass_free(&(*mtp)->pass);
    free((*mtp)->rows);
    free((*mtp)->embedding);
    free(*mtp);
    *mtp = NULL;
}

static int begin(struct pm_mtp *m, const struct pm_mtp_row *rows, int count, struct pm_error *err)
{
    if (count < 1 || count > m->max_rows)
        return pm_fail(err, PM_EINVAL, "a pass of %d rows: must be 1 to %d", count, m->max_rows);
    for (int r = 0; r < count; r++) {
        const struct pm_mtp_row *row = &rows[r];
        if (row->token < 0 || row->token >= m->model->config.text.vocab)
            return pm_fail(err, PM_EINVAL, "row %d is token %d, outside the vocabulary of %d", r, row->token,
                           m->model->config.text.vocab);
        m->rows[r] = (struct pm_pass_row){
            .kv = row->kv,
            .slot = row->slot,
            .position = {row->position[0], row->position[1], row->position[2]},
            .wants_logits = row->wants_logits,
        };
    }
    return pm_pass_begin(m->pass, m->rows, count, err);
}

/* Activations [embed_norm(embedding of token) | hidden_norm(hidden)] of one row. */
static void join_row(struct pm_mtp *m, const struct pm_mtp_row *row, uint8_t *act)
{
    const struct pm_text_config *c = &m->model->config.text;
    const struct pm_mtp_layer *layer = m->model->mtp;
    bool is_bf16 = pm_precision_is_bf16(m->model->precision);
    const struct pm_lm_kernels *lm = is_bf16 ? m->kernels->bf16 : m->kernels->f32;
    size_t hidden = (size_t)c->hidden, half = hidden * pm_activation_bytes(m->model->precision);
    /* The drafter has learnt with a zero embedding at the first position of a sequence. */
    if (row->position[0] == 0 && row->position[1] == 0 && row->position[2] == 0)
        memset(m->embedding, 0, hidden * sizeof *m->embedding);
    else if (row->embedding)
        memcpy(m->embedding, row->embedding, hidden * sizeof *m->embedding);
    else
        pm_vlm_embed(m->model, layer->embed, row->token, m->embedding);
    lm->rms_norm(m->embedding, hidden, 1, c->hidden, layer->embed_norm, c->rms_eps, act, hidden);
    lm->rms_norm(row->hidden, hidden, 1, c->hidden, layer->hidden_norm, c->rms_eps, act + half, hidden);
}

int pm_mtp_run(struct pm_mtp *m, const struct pm_mtp_row *rows, int count, struct pm_error *err)
{
    const struct pm_text_config *c = &m->model->config.text;
    const struct pm_mtp_layer *layer = m->model->mtp;
    int rc = begin(m, rows, count, err);
    if (rc)
        return rc;
    size_t stride;
    uint8_t *act = pm_pass_activations(m->pass, &stride);
    for (int r = 0; r < count; r++)
        join_row(m, &rows[r], act + (size_t)r * stride * pm_activation_bytes(m->model->precision));
    pm_linear_run(&layer->join, m->kernels, m->pool, act, stride, count, pm_pass_stream(m->pass),
                  (size_t)c->hidden, PM_LINEAR_STORE);
    pm_pass_layer(m->pass, &layer->layer, c->layers);
    return pm_pass_finish(m->pass, layer->head_norm, &layer->head, err);
}

const float *pm_mtp_hidden(const struct pm_mtp *m, int row)
{
    return pm_pass_hidden(m->pass, row);
}

const float *pm_mtp_prenorm(const struct pm_mtp *m, int row)
{
    PM_ASSERT(row >= 0 && row < m->max_rows);
    return pm_pass_stream(m->pass) + (size_t)row * (size_t)m->model->config.text.hidden;
}

const float *pm_mtp_logits(const struct pm_mtp *m, int row)
{
    return pm_pass_logits(m->pass, row);
}
