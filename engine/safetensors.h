/* Reader of safetensors files (huggingface/safetensors, format 0.x).
 *
 *     +----------+------------------------+----------------------------+
 *     | u64 LE n | n bytes of JSON        | tensor data                |
 *     +----------+------------------------+----------------------------+
 *     JSON: { "NAME": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ..., "__metadata__":
 * {..} } offsets count from the start of the data.
 *
 * Every number is hostile until checked: header length (at most 64 MiB and inside the file), JSON (duplicate
 * names refused), dtype, rank, the product of the shape against the length, the end of the file, and
 * overlaps.
 *
 * Ownership: pm_safetensors_open maps the file and owns the map; tensors are views of it and live as long.
 * Threads: read-only after opening. Errors: PM_EFORMAT with file, tensor and reason; PM_ENOTFOUND, PM_EIO.
 */
#ifndef PM_ENGINE_SAFETENSORS_H
#define PM_ENGINE_SAFETENSORS_H

#include "base/error.h"
#include "engine/tensor.h"

struct pm_safetensors;

int pm_safetensors_open(const char *path, struct pm_safetensors **out, struct pm_error *err);
/* The same for bytes in memory, which stay the caller's; name is for messages. */
int pm_safetensors_parse(const char *name, const uint8_t *data, size_t bytes, struct pm_safetensors **out,
                         struct pm_error *err);
void pm_safetensors_free(struct pm_safetensors **file);

/* Tensors in the order of their data. */
size_t pm_safetensors_count(const struct pm_safetensors *file);
const struct pm_tensor *pm_safetensors_at(const struct pm_safetensors *file, size_t index);
const struct pm_tensor *pm_safetensors_find(const struct pm_safetensors *file,
                                            const char *name); /* or NULL */

/* The tensor as fresh f32 values (F32, F16, BF16); free() them. PM_ENOTFOUND when there is none of that name,
 * PM_EFORMAT when it is another shape (rank < 0: any), another type, or holds a value that is not finite. */
int pm_safetensors_floats(const struct pm_safetensors *file, const char *name, int rank,
                          const uint64_t *shape, float **out, struct pm_error *err);

#endif
