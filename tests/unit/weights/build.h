/* Small models of every weight format, made in memory: for the unit tests and for the mutants.
 *
 * A model is a set of files. Ownership: the files' bytes belong to the set; files_free. Threads: none. */
#ifndef PM_TESTS_UNIT_WEIGHTS_BUILD_H
#define PM_TESTS_UNIT_WEIGHTS_BUILD_H

#include <stdbool.h>

#include "base/mem.h"
#include "engine/tensor.h"

enum { FILES_MAX = 8 };

struct files {
    struct {
        char name[64];
        struct pm_buf bytes;
    } file[FILES_MAX];
    int count;
};
struct pm_buf *files_add(struct files *files, const char *name);
struct pm_buf *files_find(struct files *files, const char *name);
/* Writes them into folder, which must be there; false when that fails. */
bool files_write(const struct files *files, const char *folder);
void files_free(struct files *files);

/* A tensor to be written. */
struct source {
    const char *name;
    enum pm_dtype dtype; /* safetensors */
    uint32_t gguf_type;  /* GGUF */
    int rank;
    uint64_t shape[PM_TENSOR_RANK_MAX]; /* outermost first */
    const void *data;
    size_t bytes;
};

void build_safetensors(struct pm_buf *out, const struct source *tensors, size_t count);

/* GGUF: the keys, one after the other, then all of it. */
struct gguf_keys {
    struct pm_buf bytes;
    uint64_t count;
};
void gguf_key_u32(struct gguf_keys *keys, const char *key, uint32_t value);
void gguf_key_f32(struct gguf_keys *keys, const char *key, float value);
void gguf_key_text(struct gguf_keys *keys, const char *key, const char *value);
void gguf_key_i32s(struct gguf_keys *keys, const char *key, const int32_t *values, uint64_t count);
void gguf_key_f32s(struct gguf_keys *keys, const char *key, const float *values, uint64_t count);
void gguf_key_texts(struct gguf_keys *keys, const char *key, const char *const *values, uint64_t count);
void build_gguf(struct pm_buf *out, uint32_t version, const struct gguf_keys *keys, uint32_t alignment,
                const struct source *tensors, size_t count);

/* Whole models, of a decoder of one layer (with the extra one in GGUF) and a vision tower of one block. */
void model_safetensors(struct files *files);
void model_shards(struct files *files);
void model_mlx(struct files *files);
void model_gguf(struct files *files);

/* What those models hold in tensor number t at value i: small, exact in every plain type. */
float model_value(unsigned t, uint64_t i);

#endif
