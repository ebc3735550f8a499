/* An opened model: configuration and weights as views of the mapped pack, ready for vision.c, decoder.c and
 * mtp.c. Tensor names in the pack are the checkpoint's own (engine/glm_ocr/tensors.c lists them); linears may
 * be fused there (qkv of the decoder: "....self_attn.qkv_proj", rows q, k, v).
 *
 * Ownership: the model owns the map; pm_model_close. Threads: read-only after opening, any number of readers.
 * Errors: PM_EFORMAT names file, tensor and reason. */
#ifndef PM_ENGINE_VLM_MODEL_H
#define PM_ENGINE_VLM_MODEL_H

#include "engine/vlm/config.h"
#include "engine/vlm/linear.h"

struct pm_vision_layer {
    const float *norm1, *norm2, *q_norm, *k_norm; /* [hidden], [hidden], [head_dim] each or NULL */
    struct pm_linear qkv, proj, gate_up, down;    /* gate_up: gate rows first */
};

struct pm_text_layer {
    /* Sandwich norms: post_attention and post_mlp sit on the branch outputs, NULL without has_sandwich_norm.
     */
    const float *input_norm, *post_attention_norm, *pre_mlp_norm, *post_mlp_norm; /* [hidden] */
    struct pm_linear qkv, o, gate_up, down;
};

struct pm_mtp_layer {
    struct pm_text_layer layer;
    const float *embed_norm, *hidden_norm, *head_norm; /* enorm, hnorm, shared_head.norm: [hidden] */
    struct pm_linear join;                             /* eh_proj [hidden, 2 hidden], embedding half first */
    struct pm_linear head; /* shared_head.head, or the main head when byte-equal */
    const void *embed;     /* [vocab, hidden] rows, or the main table when byte-equal */
};

struct pm_vlm_model {
    struct pm_pack *pack;
    enum pm_precision precision;
    struct pm_vlm_config config;
    struct {
        struct pm_linear patch; /* [hidden, channels * temporal * patch^2] */
        struct pm_vision_layer *layers;
        const float *post_norm;
        struct pm_linear downsample;  /* [out_hidden, merge^2 * hidden], inputs (dy, dx, channel) */
        struct pm_linear merger_proj; /* [out_hidden, out_hidden] */
        const float *merger_norm, *merger_norm_bias; /* LayerNorm */
        struct pm_linear merger_gate_up, merger_down;
    } vision;
    const void *embed; /* [vocab, hidden] rows of f32 or bf16, as the precision says */
    struct pm_text_layer *layers;
    const float *norm;
    struct pm_linear head;
    struct pm_mtp_layer *mtp; /* NULL without one */
    size_t weight_bytes;
};

/* How a family reads its configuration: texts of config.json, and of generation_config.json and
 * preprocessor_config.json (NULL when there is none). */
typedef int pm_vlm_config_reader(const char *config_json, const char *generation_json,
                                 const char *preprocessor_json, struct pm_vlm_config *out,
                                 struct pm_error *err);

/* path: a packed file, made by the family that reads its configuration. */
int pm_vlm_model_open(const char *path, pm_vlm_config_reader *read_config, struct pm_vlm_model **out,
                      struct pm_error *err);
void pm_vlm_model_close(struct pm_vlm_model **model);

#endif
