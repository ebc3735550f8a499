/* A model's weights as their publisher wrote them, read through one door: safetensors (one file or shards
 * with an index; bf16, f16, f32), MLX-quantised folders (affine 2, 3, 4, 5, 6, 8 bits in groups of 32, 64,
 * 128) and GGUF (model and mmproj). Whatever the format, tensors come under the names and in the shapes of
 * the Hugging Face checkpoint (docs/formats.md), rows dequantised to f32; side files (config.json,
 * tokenizer.json, ...) come as JSON text, made from the metadata where the format has no such files.
 *
 * Every length, offset, count and product is hostile until checked. Nothing is loaded: files are mapped, rows
 * are converted when asked for.
 *
 * Ownership: pm_weights_close. Threads: read-only after opening; pm_weights_read is reentrant. Errors:
 * PM_ENOTFOUND (nothing there that is a model: says what was looked for), PM_EFORMAT (file, tensor, reason),
 * PM_EUNSUPPORTED (another architecture, another quantisation: named). */
#ifndef PM_ENGINE_WEIGHTS_WEIGHTS_H
#define PM_ENGINE_WEIGHTS_WEIGHTS_H

#include <stdbool.h>

#include "base/error.h"
#include "engine/tensor.h"

struct pm_weights;

struct pm_weights_tensor {
    const char *name;   /* the checkpoint's: "model.language_model.layers.0.self_attn.q_proj.weight" */
    const char *stored; /* how it is stored: "BF16", "F32", "affine 4-bit groups of 64", "Q4_K" */
    int rank;           /* >= 1 */
    uint64_t shape[PM_TENSOR_RANK_MAX]; /* the checkpoint's */
    uint64_t rows, columns;             /* shape[0] and the product of the rest */
    uint64_t stored_bytes;
};

/* path: a folder, or one file of it (model.safetensors, MODEL.gguf; the mmproj is found beside it). */
int pm_weights_open(const char *path, struct pm_weights **out, struct pm_error *err);
void pm_weights_close(struct pm_weights **weights);

const char *pm_weights_format(const struct pm_weights *weights); /* "safetensors", "mlx", "gguf" */
size_t pm_weights_count(const struct pm_weights *weights);
const struct pm_weights_tensor *pm_weights_at(const struct pm_weights *weights, size_t index);
const struct pm_weights_tensor *pm_weights_find(const struct pm_weights *weights,
                                                const char *name); /* or NULL */

/* Rows [first, first + count) as f32: [count, columns]. PM_EFORMAT for a value or a scale that is not finite,
 * with tensor and row. */
int pm_weights_read(const struct pm_weights *weights, const struct pm_weights_tensor *tensor, uint64_t first,
                    uint64_t count, float *out, struct pm_error *err);

/* A side file as text (NUL-terminated, owned by weights): "config.json", "generation_config.json",
 * "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja". PM_ENOTFOUND.
 */
int pm_weights_document(struct pm_weights *weights, const char *name, const char **text_out,
                        size_t *bytes_out, struct pm_error *err);

#endif
