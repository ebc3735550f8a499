/* The decoder: rows of tokens of any number of sequences in, hidden states and logits out, in one pass over
 * the weights. Prefill chunks, single decode steps and drafts under verification are all rows of the same
 * pass.
 *
 * Exactness: a row's result depends only on its sequence's earlier rows (through the KV cache), its token (or
 * embedding) and its position: never on the other rows, on threads, or on where a prompt was cut into chunks.
 *
 * Ownership: the decoder owns its scratch; results are valid until the next call. Threads: one owner.
 * Errors: PM_EINVAL for rows out of range, PM_ENOMEM. */
#ifndef PM_ENGINE_VLM_DECODER_H
#define PM_ENGINE_VLM_DECODER_H

#include "engine/vlm/kv.h"
#include "engine/vlm/vision.h"

/* One token to be run. Rows of one sequence stand together, in ascending slots without gaps. */
struct pm_decoder_row {
    const struct pm_kv *kv; /* its sequence's cache, with room for slot */
    int slot;               /* index in the sequence = index in the cache */
    int32_t token;
    const float *embedding; /* [hidden] f32 instead of the token's table row (image tokens), or NULL */
    int32_t position[3];    /* mRoPE: time, row, column */
    bool wants_logits;
};

struct pm_decoder;

/* NULL when memory is out. */
struct pm_decoder *pm_decoder_new(const struct pm_vlm_model *model, const struct pm_kernels *kernels,
                                  struct pm_pool *pool, struct pm_kv_pool *kv_pool, int max_rows);
void pm_decoder_free(struct pm_decoder **decoder);
void pm_decoder_set_probe(struct pm_decoder *decoder, pm_probe probe, void *ctx);

/* Runs all layers, writes the cache. count <= max_rows. */
int pm_decoder_run(struct pm_decoder *decoder, const struct pm_decoder_row *rows, int count,
                   struct pm_error *err);
/* Hidden state of row r after the final norm: [hidden] f32. */
const float *pm_decoder_hidden(const struct pm_decoder *decoder, int row);
/* Logits of row r, which asked for them: [vocab] f32. */
const float *pm_decoder_logits(const struct pm_decoder *decoder, int row);

/* ---- positions (get_rope_index of the reference) ---- */

struct pm_image_grid {
    int rows, columns; /* in patches */
};

/* Positions [3, count] (position[i] of token i, row-major by token: out[i][0..2]) of a prompt in which runs
 * of the placeholder id stand for images, in order. *delta_out: decode position = slot + delta. PM_EINVAL
 * when the runs and the grids do not match. */
int pm_vlm_positions(const struct pm_vlm_config *config, const int32_t *ids, int count,
                     const struct pm_image_grid *grids, int grid_count, int32_t (*out)[3], int32_t *delta_out,
                     struct pm_error *err);

#endif
