#include "engine/measure/phases.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/vlm/decoder.h"
#include "engine/vlm/mtp.h"

enum { PREFILL_ROWS = 256 /* of one pass, as the generator's */ };

struct pm_phases {
    const struct pm_vlm_model *model;
    struct pm_kv_pool *kv_pool;
    struct pm_kv *kv; /* [sequences] */
    int sequences, tokens, max_rows;
    struct pm_decoder *decoder;
    struct pm_mtp *mtp; /* NULL without an extra layer */
    struct pm_vision *vision;
    struct pm_decoder_row *rows; /* [max_rows] */
};

static double seconds_since(int64_t start_us)
{
    return (double)(pm_clock_us() - start_us) / 1e6;
}

int pm_phases_new(const struct pm_vlm_model *model, struct pm_pool *pool, int sequences, int tokens,
                  struct pm_phases **out, struct pm_error *err)
{
    *out = NULL;
    if (tokens > model->config.text.max_positions)
        return pm_fail(err, PM_ELIMIT,
                       "%d tokens are asked for, the model has %d positions: a smaller "
                       "picture or less text",
                       tokens, model->config.text.max_positions);
    const struct pm_kernels *kernels = pm_kernels_get(NULL);
    struct pm_phases *p = pm_xalloc(sizeof *p);
    p->model = model;
    p->sequences = sequences;
    p->tokens = tokens;
    p->max_rows = sequences > PREFILL_ROWS ? sequences : PREFILL_ROWS;
    p->kv = pm_xalloc((size_t)sequences * sizeof *p->kv);
    p->rows = pm_xalloc((size_t)p->max_rows * sizeof *p->rows);
    p->kv_pool = pm_kv_pool_new(model, SIZE_MAX);
    int rc = 0;
    for (int s = 0; s < sequences && !rc; s++)
        rc = pm_kv_reserve(p->kv_pool, &p->kv[s], tokens, err);
    p->decoder = pm_decoder_new(model, kernels, pool, p->kv_pool, p->max_rows);
    p->vision = pm_vision_new(model, kernels, pool);
    if (model->mtp)
        p->mtp = pm_mtp_new(model, kernels, pool, p->kv_pool, PREFILL_ROWS);
    if (!rc && (!p->decoder || !p->vision || (model->mtp && !p->mtp)))
        rc = pm_fail(err, PM_ENOMEM, "no memory for the working space of the model");
    if (rc)
        pm_phases_free(&p);
    *out = p;
    return rc;
}

void pm_phases_free(struct pm_phases **phases)
{
    struct pm_phases *p = *phases;
    if (!p)
        return;
    for (int s = 0; s < p->sequences; s++)
        pm_kv_release(p->kv_pool, &p->kv[s]);
    pm_vision_free(&p->vision);
    pm_mtp_free(&p->mtp);
    pm_decoder_free(&p->decoder);
    pm_kv_pool_free(&p->kv_pool);
    free(p->kv);
    free(p->rows);
    free(p);
    *phases = NULL;
}

/* ---- the tower ---- */

int pm_phases_patches(const struct pm_vlm_model *model, int width_px, int height_px, int *patches_out,
                      struct pm_error *err)
{
    int width, height, patch = model->config.vision.patch;
    int rc = pm_smart_resize(&model->config, width_px, height_px, &width, &height, err);
    if (!rc)
        *patches_out = (width / patch) * (height / patch);
    return rc;
}

/* A picture with something in it; what it is does not matter. */
static int make_patches(const struct pm_vlm_model *model, int width_px, int height_px, struct pm_patches *out,
                        struct pm_error *err)
{
    struct pm_image image = {0};
    int rc = pm_image_alloc(width_px, height_px, 1, &image, err);
    for (int y = 0; !rc && y < height_px; y++)
        for (int x = 0; x < width_px; x++)
            image.owned[(size_t)y * image.stride_bytes + (size_t)x] = (uint8_t)(x * y >> 4);
    if (!rc)
        rc = pm_patches_make(&model->config, &image, out, err);
    pm_image_free(&image);
    return rc;
}

int pm_phases_vision(struct pm_phases *p, int width_px, int height_px, double *out, struct pm_error *err)
{
    struct pm_patches patches = {0};
    int rc = make_patches(p->model, width_px, height_px, &patches, err);
    int64_t start = pm_clock_us();
    if (!rc)
        rc = pm_vision_begin(p->vision, &patches, err);
    while (!rc && !pm_vision_step(p->vision, INT64_MAX / 4))
        ;
    *out = seconds_since(start);
    pm_patches_free(&patches);
    return rc;
}

/* ---- the decoder ---- */

static int32_t token_at(const struct pm_phases *p, int sequence, int slot)
{
    /* Any ids do. Text ids only: the picture's placeholders are not looked up. */
    return (int32_t)((slot * 31 + sequence * 7) % p->model->config.text.vocab);
}

static void set_row(struct pm_phases *p, int row, int sequence, int slot, bool wants_logits)
{
    p->rows[row] = (struct pm_decoder_row){.kv = &p->kv[sequence],
                                           .slot = slot,
                                           .token = token_at(p, sequence, slot),
                                           .position = {slot, slot, slot},
                                           .wants_logits = wants_logits};
}

static int check_tokens(const struct pm_phases *p, int sequences, int tokens, struct pm_error *err)
{
    if (sequences <= p->sequences && tokens <= p->tokens)
        return 0;
    return pm_fail(err, PM_EINVAL, "%d sequences of %d tokens, there is room for %d of %d", sequences, tokens,
                   p->sequences, p->tokens);
}

int pm_phases_prefill(struct pm_phases *p, int tokens, double *out, struct pm_error *err)
{
    int64_t start = pm_clock_us();
    int rc = check_tokens(p, 1, tokens, err);
    for (int first = 0; first < tokens && !rc; first += PREFILL_ROWS) {
        int count = tokens - first < PREFILL_ROWS ? tokens - first : PREFILL_ROWS;
        for (int i = 0; i < count; i++)
            set_row(p, i, 0, first + i, first + i + 1 == tokens);
        rc = pm_decoder_run(p->decoder, p->rows, count, err);
    }
    *out = seconds_since(start);
    return rc;
}

int pm_phases_steps(struct pm_phases *p, int sequences, int context, int steps, double *out,
                    struct pm_error *err)
{
    int64_t start = pm_clock_us();
    int rc = check_tokens(p, sequences, context + steps, err);
    for (int step = 0; step < steps && !rc; step++) {
        for (int s = 0; s < sequences; s++)
            set_row(p, s, s, context + step, true);
        rc = pm_decoder_run(p->decoder, p->rows, sequences, err);
    }
    *out = seconds_since(start) / steps;
    return rc;
}

/* The extra layer over the slots that the pass has settled (at most all), then once a further draft. */
static int draft(struct pm_phases *p, int drafts, int slot, struct pm_error *err)
{
    struct pm_mtp_row rows[PM_MTP_DRAFTS_MAX + 1];
    for (int i = 0; i <= drafts; i++)
        rows[i] = (struct pm_mtp_row){.kv = &p->kv[0],
                                      .slot = slot + i,
                                      .hidden = pm_decoder_hidden(p->decoder, i),
                                      .token = token_at(p, 0, slot + i + 1),
                                      .position = {slot + i, slot + i, slot + i},
                                      .wants_logits = i == drafts};
    int rc = pm_mtp_run(p->mtp, rows, drafts + 1, err);
    int last = drafts;
    float *hidden = pm_xalloc((size_t)p->model->config.text.hidden * sizeof *hidden);
    for (int i = 1; i < drafts && !rc; i++) {
        const float *from = pm_mtp_hidden(p->mtp, last);
        for (int k = 0; k < p->model->config.text.hidden; k++)
            hidden[k] = from[k];
        rows[0] = rows[drafts];
        rows[0].slot += i;
        rows[0].hidden = hidden;
        rc = pm_mtp_run(p->mtp, rows, 1, err);
        last = 0;
    }
    free(hidden);
    return rc;
}

int pm_phases_drafts(struct pm_phases *p, int drafts, int context, int rounds, double *out,
                     struct pm_error *err)
{
    if (!p->mtp)
        return pm_fail(err, PM_EUNSUPPORTED, "the model has no extra layer that drafts");
    if (drafts < 1 || drafts > PM_MTP_DRAFTS_MAX)
        return pm_fail(err, PM_EINVAL, "%d drafts: must be 1 to %d", drafts, PM_MTP_DRAFTS_MAX);
    int64_t start = pm_clock_us();
    int rc = check_tokens(p, 1, context + rounds * (drafts + 1) + drafts, err);
    for (int r = 0; r < rounds && !rc; r++) {
        int slot = context + r * (drafts + 1);
        for (int i = 0; i <= drafts; i++)
            set_row(p, i, 0, slot + i, true);
        rc = pm_decoder_run(p->decoder, p->rows, drafts + 1, err);
        if (!rc)
            rc = draft(p, drafts, slot, err);
    }
    *out = seconds_since(start) / rounds;
    return rc;
}
