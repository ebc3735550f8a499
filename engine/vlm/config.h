/* The sizes and habits of a vision-language reader, as its config.json states them. Model code (vision.c,
 * decoder.c, mtp.c) is written once over this struct; a family (engine/glm_ocr) fills it.
 *
 * Ownership: plain values. Threads: read-only after filling. Errors: none here; the family's parser checks
 * every range (see PM_VLM_LIMIT_*), so that products of these numbers fit in 63 bits. */
#ifndef PM_ENGINE_VLM_CONFIG_H
#define PM_ENGINE_VLM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

enum {
    PM_VLM_EOS_MAX = 8,
    PM_VLM_SECTIONS = 3,
    PM_VLM_LIMIT_LAYERS = 256,
    PM_VLM_LIMIT_WIDTH = 65536,  /* hidden and intermediate sizes, heads x head_dim */
    PM_VLM_LIMIT_HEAD_DIM = 256, /* even */
    PM_VLM_LIMIT_VOCAB = 1 << 20,
    PM_VLM_LIMIT_POSITIONS = 1 << 20,
};

/* What the engine computes in. Values are stored in weight files: never renumber. */
enum pm_precision {
    PM_PRECISION_F32 = 0,  /* the reference: f32 weights, activations, KV cache */
    PM_PRECISION_BF16 = 1, /* bf16 weights, inputs of products and KV cache; f32 sums and residuals */
    /* Everything but the products as in bf16. Products take int8 weights in groups of 64 inputs with a scale
     * each, and round their inputs to int8 by row and group when they begin. */
    PM_PRECISION_INT8 = 2,
    PM_PRECISION_INT4 = 3, /* int8 with the products of the text layers in 4 bits */
    PM_PRECISION_COUNT
};

/* Whether activations, embeddings, KV cache and attention are bf16 (else f32). */
static inline bool pm_precision_is_bf16(enum pm_precision precision)
{
    return precision != PM_PRECISION_F32;
}

/* "f32", "bf16", "int8", "int4", and back: false for another name. */
const char *pm_precision_name(enum pm_precision precision);
bool pm_precision_parse(const char *name, enum pm_precision *out);

/* How rotary pairs lie in a head of n values. */
enum pm_rope_pairs {
    PM_ROPE_HALF_SPLIT, /* (d, d + n/2): vision */
    PM_ROPE_INTERLEAVED /* (2d, 2d + 1): text of GLM */
};

struct pm_vision_config {
    int depth, hidden, intermediate, heads, head_dim; /* hidden == heads * head_dim */
    int in_channels, patch, temporal, merge;          /* 3, 14, 2, 2 */
    int out_hidden, merger_intermediate;              /* out_hidden * in_channels in GLM-OCR */
    float rms_eps, layer_norm_eps;
    float rope_theta;
    enum pm_rope_pairs rope_pairs;
    bool has_attention_bias, has_mlp_bias, has_qk_norm, has_post_norm;
};

struct pm_text_config {
    int layers, mtp_layers; /* mtp_layers 0 or 1: the extra layer at index `layers` */
    int hidden, intermediate, heads, kv_heads, head_dim, vocab;
    int max_positions;
    float rms_eps, rope_theta;
    enum pm_rope_pairs rope_pairs;
    int rope_sections[PM_VLM_SECTIONS]; /* frequencies for time, row, column; sum = rotary_dim / 2 */
    int rotary_dim;                     /* values of a head that are turned; head_dim here */
    bool has_attention_bias, has_sandwich_norm, has_tied_head;
};

struct pm_vlm_config {
    struct pm_vision_config vision;
    struct pm_text_config text;
    int32_t image_id, image_begin_id, image_end_id; /* placeholder and its frame */
    int32_t eos_ids[PM_VLM_EOS_MAX];
    int eos_count;
    int32_t pad_id;
    /* Image processor */
    int64_t min_pixels,
        max_pixels;        /* compared with temporal * height * width (shortest_edge, longest_edge) */
    float mean[3], std[3]; /* R, G, B, of values 0..1 */
};

#endif
