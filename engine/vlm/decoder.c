#include "engine/vlm/decoder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/vlm/pass.h"

struct pm_decoder {
    const struct pm_vlm_model *model;
    struct pm_pass *pass;
    struct pm_pass_row *rows; /* [max_rows] */
    int max_rows;
    pm_probe probe;
    void *probe_ctx;
};

struct pm_decoder *pm_decoder_new(const struct pm_vlm_model *model, const struct pm_kernels *kernels,
                                  struct pm_pool *pool, struct pm_kv_pool *kv_pool, int max_rows)
{
    struct pm_pass *pass = pm_pass_new(model, kernels, pool, kv_pool, max_rows, 0);
    if (!pass)
        return NULL;
    struct pm_decoder *d = pm_xalloc(sizeof *d);
    d->model = model;
    d->pass = pass;
    d->max_rows = max_rows;
    d->rows = pm_xalloc((size_t)max_rows * sizeof *d->rows);
    return d;
}

void pm_decoder_free(struct pm_decoder **decoder)
{
    if (!*decoder)
        return;
    pm_pass_free(&(*decoder)->pass);
    free((*decoder)->rows);
    free(*decoder);
    *decoder = NULL;
}

void pm_decoder_set_probe(struct pm_decoder *d, pm_probe probe, void *ctx)
{
    d->probe = probe;
    d->probe_ctx = ctx;
}

static void probe(const struct pm_decoder *d, const char *name, const float *values, int rows, int columns)
{
    if (d->probe)
        d->probe(d->probe_ctx, name, values, rows, columns);
}

static void probe_layer(const struct pm_decoder *d, int layer, const float *stream, int rows)
{
    if (!d->probe)
        return;
    char name[32];
    snprintf(name, sizeof name, "text.layers.%d", layer);
    probe(d, name, stream, rows, d->model->config.text.hidden);
}

static int begin(struct pm_decoder *d, const struct pm_decoder_row *rows, int count, struct pm_error *err)
{
    if (count < 1 || count > d->max_rows)
        return pm_fail(err, PM_EINVAL, "a pass of %d rows: must be 1 to %d", count, d->max_rows);
    for (int r = 0; r < count; r++) {
        const struct pm_decoder_row *row = &rows[r];
        if (!row->embedding && (row->token < 0 || row->token >= d->model->config.text.vocab))
            return pm_fail(err, PM_EINVAL, "row %d is token %d, outside the vocabulary of %d", r, row->token,
                           d->model->config.text.vocab);
        d->rows[r] = (struct pm_pass_row){
            .kv = row->kv,
            .slot = row->slot,
            .position = {row->position[0], row->position[1], row->position[2]},
            .wants_logits = row->wants_logits,
        };
    }
    return pm_pass_begin(d->pass, d->rows, count, err);
}

int pm_decoder_run(struct pm_decoder *d, const struct pm_decoder_row *rows, int count, struct pm_error *err)
{
    const struct pm_vlm_model *m = d->model;
    const struct pm_text_config *c = &m->config.text;
    int rc = begin(d, rows, count, err);
    if (rc)
        return rc;
    size_t hidden = (size_t)c->hidden;
    float *stream = pm_pass_stream(d->pass);
    for (int r = 0; r < count; r++) {
        if (rows[r].embedding)
            memcpy(stream + (size_t)r * hidden, rows[r].embedding, hidden * sizeof *stream);
        else
            pm_vlm_embed(m, m->embed, rows[r].token, stream + (size_t)r * hidden);
    }
    probe(d, "text.rope_cos", pm_pass_cosines(d->pass), count, c->rotary_dim / 2);
    probe(d, "text.rope_sin", pm_pass_sines(d->pass), count, c->rotary_dim / 2);
    probe(d, "text.inputs_embeds", stream, count, c->hidden);
    for (int i = 0; i < c->layers; i++) {
        pm_pass_layer(d->pass, &m->layers[i], i);
        probe_layer(d, i, stream, count);
    }
    rc = pm_pass_finish(d->pass, m->norm, &m->head, err);
    if (!rc)
        probe(d, "text.norm", pm_pass_hidden(d->pass, 0), count, c->hidden);
    return rc;
}

const float *pm_decoder_hidden(const struct pm_decoder *d, int row)
{
    return pm_pass_hidden(d->pass, row);
}

const float *pm_decoder_logits(const struct pm_decoder *d, int row)
{
    return pm_pass_logits(d->pass, row);
}

/* ---- positions ---- */

/* Positions of the image whose first placeholder is ids[start]; returns its tokens or a negative error. */
static int place_image(const struct pm_vlm_config *config, const int32_t *ids, int count, int start,
                       int32_t base, const struct pm_image_grid *grid, int32_t (*out)[3],
                       struct pm_error *err)
{
    int merge = config->vision.merge, rows = grid->rows / merge, columns = grid->columns / merge;
    int64_t tokens = (int64_t)rows * columns;
    if (grid->rows < merge || grid->columns < merge || grid->rows % merge || grid->columns % merge)
        return pm_fail(err, PM_EINVAL, "an image of %d x %d patches: both must be multiples of %d",
                       grid->columns, grid->rows, merge);
    if (tokens > count - start)
        return pm_fail(err, PM_EINVAL, "an image of %lld tokens begins at token %d of a prompt of %d",
                       (long long)tokens, start, count);
    for (int i = 0; i < (int)tokens; i++) {
        if (ids[start + i] != config->image_id)
            return pm_fail(err, PM_EINVAL,
                           "token %d is not the image placeholder, but its image has %lld tokens", start + i,
                           (long long)tokens);
        out[start + i][0] = base;
        out[start + i][1] = base + i / columns;
        out[start + i][2] = base + i % columns;
    }
    return (int)tokens;
}

int pm_vlm_positions(const struct pm_vlm_config *config, const int32_t *ids, int count,
                     const struct pm_image_grid *grids, int grid_count, int32_t (*out)[3], int32_t *delta_out,
                     struct pm_error *err)
{
    int32_t next = 0; /* never above count: an image takes at least its longer side of tokens */
    int image = 0;
    for (int i = 0; i < count;) {
        if (ids[i] != config->image_id) {
            out[i][0] = out[i][1] = out[i][2] = next++;
            i++;
            continue;
        }
        if (image == grid_count)
            return pm_fail(err, PM_EINVAL, "token %d is an image placeholder, but only %d images are given",
                           i, grid_count);
        const struct pm_image_grid *grid = &grids[image++];
        int tokens = place_image(config, ids, count, i, next, grid, out, err);
        if (tokens < 0)
            return tokens;
        i += tokens;
        next += (grid->rows > grid->columns ? grid->rows : grid->columns) / config->vision.merge;
    }
    if (image != grid_count)
        return pm_fail(err, PM_EINVAL, "%d images are given, but the prompt has placeholders for %d",
                       grid_count, image);
    *delta_out = next - count;
    return 0;
}
