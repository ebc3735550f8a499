/* Packing a model: recognises its family and makes the model folder (manifest, packed weights, side files).
 *
 * Ownership: plain functions. Threads: reentrant. Errors: PM_EUNSUPPORTED when no family knows the source,
 * and the errors of its packer: PM_EFORMAT with file or tensor, PM_ENOSPC with the numbers. */
#ifndef PM_ENGINE_PACK_BUILD_H
#define PM_ENGINE_PACK_BUILD_H

#include <stdint.h>

#include "base/error.h"

struct pm_pack_build_options {
    const char *name; /* of the reader; NULL: what the source says */
    const char
        *precision; /* "bf16", "int8", "int4", "f32"; NULL: bf16. Families of one precision ignore it */
    void (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes); /* NULL */
    void *progress_ctx;
};

/* PM_EINVAL, with those that there are, for a precision that this version has not. NULL is fine. */
int pm_pack_build_precision(const char *name, struct pm_error *err);
/* The name that a source gives itself; caller frees. */
int pm_pack_build_name(const char *source, char **name_out, struct pm_error *err);
/* source: a folder or a weight file; out_dir: made. options: NULL for none. */
int pm_pack_build(const char *source, const char *out_dir, const struct pm_pack_build_options *options,
                  struct pm_error *err);

#endif
