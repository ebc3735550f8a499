/* One pass of rows through text layers: what the decoder (decoder.c) and the extra layer (mtp.c) have in
 * common. begin sets the rows, layer runs one layer over them, finish makes hidden states and logits.
 *
 * Rows of one sequence are a segment; all of a segment's keys and values are in the cache before any of its
 * rows attends, and a row sees the slots up to its own: so rows do not know where a prompt was cut.
 *
 * Ownership: the pass owns its scratch; results are valid until the next begin. Threads: one owner.
 * Errors: PM_EINVAL names the row and what is wrong with it, PM_ENOMEM. */
#ifndef PM_ENGINE_VLM_PASS_H
#define PM_ENGINE_VLM_PASS_H

#include "engine/vlm/kv.h"

struct pm_pass_row {
    const struct pm_kv *kv;
    int slot;
    int32_t position[3];
    bool wants_logits;
};

struct pm_pass;

/* act_width: most activations of a row that the owner itself puts into pm_pass_activations (0: none). NULL
 * when memory is out. */
struct pm_pass *pm_pass_new(const struct pm_vlm_model *model, const struct pm_kernels *kernels,
                            struct pm_pool *pool, struct pm_kv_pool *kv_pool, int max_rows, int act_width);
void pm_pass_free(struct pm_pass **pass);

/* Copies what it needs of the rows. */
int pm_pass_begin(struct pm_pass *pass, const struct pm_pass_row *rows, int count, struct pm_error *err);
/* The residual stream: [count, hidden], the owner fills it before the first layer. */
float *pm_pass_stream(struct pm_pass *pass);
/* Room for activations of all rows, stride values apart (even), free between layers. */
void *pm_pass_activations(struct pm_pass *pass, size_t *stride_out);
/* Cosines and sines of the rows: [count, rotary pairs] each. */
const float *pm_pass_cosines(const struct pm_pass *pass);
const float *pm_pass_sines(const struct pm_pass *pass);

/* index: the layer's place in the cache. */
void pm_pass_layer(struct pm_pass *pass, const struct pm_text_layer *layer, int index);

/* Norm of all rows; logits of those that want them. */
int pm_pass_finish(struct pm_pass *pass, const float *norm, const struct pm_linear *head,
                   struct pm_error *err);
const float *pm_pass_hidden(const struct pm_pass *pass, int row); /* [hidden], after the norm */
const float *pm_pass_logits(const struct pm_pass *pass, int row); /* [vocab] */

/* A row of a table [vocab, hidden] as f32. */
void pm_vlm_embed(const struct pm_vlm_model *model, const void *table, int32_t token, float *out);

/* 1 / theta^(2 i / n) for i in 0..n/2-1, in the reference's f32 steps. */
void pm_vlm_frequencies(float theta, int n, float *out);
/* Cosine and sine of position * frequency as the reference rounds them. */
void pm_vlm_angle(int32_t position, float frequency, float *cosine_out, float *sine_out);

#endif
