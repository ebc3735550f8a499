/* The GGUF container, versions 2 and 3 (ggml-org/ggml docs/gguf.md).
 *
 *     +--------+---------+-------------+----------+----------------+------------------+-----------------+
 *     | "GGUF" | u32     | u64 tensors | u64 keys | keys           | tensors          | padding, data   |
 *     +--------+---------+-------------+----------+----------------+------------------+-----------------+
 *     key:    string, u32 type, value        string: u64 bytes, bytes        array: u32 type, u64 count,
 * values tensor: string name, u32 rank, u64 sizes (innermost first), u32 type, u64 offset in the data Data
 * and every tensor start at a multiple of general.alignment (32 when there is no such key).
 *
 * Every number is hostile until checked: counts against the bytes that are left, sizes and products, offsets,
 * overlaps, double names.
 *
 * Ownership: pm_gguf_open owns its map; values and tensors are views of it. Threads: read-only after opening.
 * Errors: PM_EFORMAT (file, key or tensor, reason), PM_EUNSUPPORTED (version, tensor type). */
#ifndef PM_ENGINE_WEIGHTS_GGUF_H
#define PM_ENGINE_WEIGHTS_GGUF_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "engine/weights/stored.h"

enum { PM_GGUF_RANK_MAX = 4 };

struct pm_gguf;

struct pm_gguf_tensor {
    char *name;
    int rank;
    uint64_t shape[PM_GGUF_RANK_MAX]; /* outermost first: the file's sizes turned round */
    const char *type;                 /* "Q4_K" */
    struct pm_stored stored;
};

int pm_gguf_open(const char *path, struct pm_gguf **out, struct pm_error *err);
/* The same for bytes in memory, which stay the caller's; name is for messages. */
int pm_gguf_parse(const char *name, const uint8_t *data, size_t bytes, struct pm_gguf **out,
                  struct pm_error *err);
void pm_gguf_free(struct pm_gguf **file);

const char *pm_gguf_name(const struct pm_gguf *file);
const struct pm_gguf_tensor *pm_gguf_at(const struct pm_gguf *file, size_t index); /* NULL behind the last */
const struct pm_gguf_tensor *pm_gguf_find(const struct pm_gguf *file, const char *name); /* or NULL */

/* Single values; false when the key is missing or of another kind (a negative number is no whole one). */
bool pm_gguf_whole(const struct pm_gguf *file, const char *key, uint64_t *out);
bool pm_gguf_real(const struct pm_gguf *file, const char *key, double *out); /* whole ones, too */
bool pm_gguf_text(const struct pm_gguf *file, const char *key, const char **text_out, size_t *bytes_out);
bool pm_gguf_is_text(const struct pm_gguf *file, const char *key, const char *text);

/* Arrays: their length, 0 when there is none of that kind. */
uint64_t pm_gguf_wholes(const struct pm_gguf *file, const char *key, uint64_t *out, uint64_t limit);
uint64_t pm_gguf_reals(const struct pm_gguf *file, const char *key, double *out, uint64_t limit);
/* Texts one after the other, not NUL-terminated. */
struct pm_gguf_texts {
    const uint8_t *at;
    uint64_t left;
};
uint64_t pm_gguf_texts(const struct pm_gguf *file, const char *key, struct pm_gguf_texts *out);
bool pm_gguf_next_text(struct pm_gguf_texts *texts, const char **text_out, size_t *bytes_out);

#endif
