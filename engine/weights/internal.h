/* What the formats share behind the door of weights.h: an opened model is a list of entries (a tensor as the
 * checkpoint has it, and where and how its values are stored) and a set of documents.
 *
 * A format's opener fills entries with pm_weights_add; weights.c checks and indexes them afterwards.
 * Ownership: struct pm_weights owns everything; stored bytes belong to the files it keeps open. */
#ifndef PM_ENGINE_WEIGHTS_INTERNAL_H
#define PM_ENGINE_WEIGHTS_INTERNAL_H

#include <jansson.h>

#include "base/map.h"
#include "base/mem.h"
#include "engine/safetensors.h"
#include "engine/weights/gguf.h"
#include "engine/weights/stored.h"
#include "engine/weights/weights.h"

/* How the checkpoint's order of values differs from the stored one. */
enum pm_order {
    PM_ORDER_SAME,
    /* Stored [outputs, places, channels], wanted [outputs, channels, places]: MLX convolutions. */
    PM_ORDER_CHANNELS_LAST,
    /* Rows of each head: stored with the even ones of the rotary part first, then its odd ones: GGUF. */
    PM_ORDER_ROTARY_HALVES,
    /* Two stored tensors [outputs, channels, places], wanted [outputs, channels, 2, places]: GGUF. */
    PM_ORDER_TWO_FRAMES,
};

struct pm_weights_entry {
    struct pm_weights_tensor tensor; /* first: pm_weights_read gets from a tensor to its entry */
    char *name;
    char stored_as[40];
    struct pm_stored stored[2]; /* the second only with PM_ORDER_TWO_FRAMES */
    enum pm_order order;
    uint64_t channels, places;     /* of a convolution's order */
    uint64_t head_dim, rotary_dim; /* of PM_ORDER_ROTARY_HALVES */
};

struct pm_weights {
    char *path;   /* as given, for messages */
    char *folder; /* of the side files */
    const char *format;
    struct pm_weights_entry *entries;
    size_t count, capacity;
    struct pm_strmap by_name;   /* -> entry */
    struct pm_strmap documents; /* name -> struct pm_buf */
    struct pm_safetensors **shards;
    size_t shard_count;
    struct pm_gguf *model, *projector; /* GGUF */
};

/* The largest side file, and the most shards, that are read. */
#define PM_WEIGHTS_DOCUMENT_BYTES ((size_t)64 << 20)
enum { PM_WEIGHTS_SHARDS_MAX = 1024, PM_WEIGHTS_TENSORS_MAX = 1 << 20 };

/* A fresh entry of that name (copied), everything else zero; valid until the next one is added. */
struct pm_weights_entry *pm_weights_add(struct pm_weights *weights, const char *name);

/* weights.c: the formats' openers. They leave cleaning up to pm_weights_close. */
int pm_weights_open_safetensors(struct pm_weights *weights, const char *file, struct pm_error *err);
int pm_weights_open_index(struct pm_weights *weights, const char *file, struct pm_error *err);
/* file: the model, or NULL for the only one of the folder. */
int pm_weights_open_gguf(struct pm_weights *weights, const char *file, struct pm_error *err);
bool pm_weights_has_gguf(const char *folder);
/* What a LoRA adapter is told, whatever its format. */
int pm_weights_refuse_adapter(const char *path, struct pm_error *err);

/* A side file of the folder; PM_ENOTFOUND. */
int pm_weights_side_file(const struct pm_weights *weights, const char *name, struct pm_buf *out,
                         struct pm_error *err);
/* "config.json" ... of a folder, with what other tools keep elsewhere (folder.c). */
int pm_weights_folder_document(const struct pm_weights *weights, const char *name, struct pm_buf *out,
                               struct pm_error *err);
/* The same, made from a GGUF pair's metadata (gguf_documents.c). */
int pm_weights_gguf_document(const struct pm_weights *weights, const char *name, struct pm_buf *out,
                             struct pm_error *err);
void pm_weights_append_json(struct pm_buf *out, const json_t *value);

/* A tensor of a safetensors file as it is. */
void pm_weights_fill_plain(struct pm_weights_entry *entry, const struct pm_tensor *tensor);

/* mlx.c: is this folder MLX's, by its configuration (may be NULL) or its names? */
bool pm_mlx_is(const json_t *config, const struct pm_tensor *const *tensors, size_t count);
int pm_mlx_add(struct pm_weights *weights, const json_t *config, const struct pm_tensor *const *tensors,
               size_t count, struct pm_error *err);
/* How config's "quantization" says that a module is stored. */
struct pm_mlx_scheme {
    long long bits, group;
};
int pm_mlx_scheme(const char *what, const json_t *config, const char *module, struct pm_mlx_scheme *out,
                  struct pm_error *err);

/* index.c: one entry of weight_map. */
struct pm_index_entry {
    const char *name, *shard;
};
struct pm_index {
    json_t *root; /* owns the texts */
    struct pm_index_entry *entries;
    size_t count;
    const char **shards; /* distinct, in order of appearance */
    size_t shard_count;
    bool has_total;
    uint64_t total_bytes;
};
int pm_index_parse(const char *what, const char *json, size_t bytes, struct pm_index *out,
                   struct pm_error *err);
void pm_index_free(struct pm_index *index);

#endif
