/* The extra layer (multi-token prediction): drafts the tokens after the next one.
 *
 * Slot i joins the decoder's hidden state of token i (after the final norm) with the embedding of token
 * i + 1: x = join(concat[embed_norm(embedding), hidden_norm(hidden)]); the embedding is zero for the slot of
 * position 0; image slots use the placeholder's table row, or what the caller gives. The layer keeps its own
 * part of the KV cache (layer index `layers`), filled over the prompt and the accepted tokens. Further drafts
 * feed the layer's output after head_norm back as the hidden state (reference: vllm glm_ocr_mtp.py, sglang
 * glm_ocr_nextn.py; goldens/engine/tiny_d_mtp). Drafts can never change the text, only how fast it comes.
 *
 * Ownership, threads, errors: as in decoder.h. */
#ifndef PM_ENGINE_VLM_MTP_H
#define PM_ENGINE_VLM_MTP_H

#include "engine/vlm/decoder.h"

enum { PM_MTP_DRAFTS_MAX = 4 };

/* One slot to fill: hidden is that of the sequence's token `slot`, token that of slot + 1. */
struct pm_mtp_row {
    const struct pm_kv *kv;
    int slot;
    const float *hidden; /* [hidden] f32, after the decoder's final norm or head_norm of an earlier draft */
    int32_t token;
    const float *embedding; /* [hidden] f32 instead of the token's table row, or NULL */
    int32_t position[3];    /* of token `slot` */
    bool wants_logits;
};

struct pm_mtp;

/* The model must have the layer. NULL when memory is out. */
struct pm_mtp *pm_mtp_new(const struct pm_vlm_model *model, const struct pm_kernels *kernels,
                          struct pm_pool *pool, struct pm_kv_pool *kv_pool, int max_rows);
void pm_mtp_free(struct pm_mtp **mtp);

int pm_mtp_run(struct pm_mtp *mtp, const struct pm_mtp_row *rows, int count, struct pm_error *err);
/* After head_norm: [hidden]; what the next draft takes as its hidden state. */
const float *pm_mtp_hidden(const struct pm_mtp *mtp, int row);
/* Before head_norm. */
const float *pm_mtp_prenorm(const struct pm_mtp *mtp, int row);
const float *pm_mtp_logits(const struct pm_mtp *mtp, int row);

#endif
