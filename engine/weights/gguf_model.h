/* What a GGUF pair's tensors and documents are both made from. Internal to engine/weights. */
#ifndef PM_ENGINE_WEIGHTS_GGUF_MODEL_H
#define PM_ENGINE_WEIGHTS_GGUF_MODEL_H

#include "engine/weights/gguf.h"

struct pm_gguf_pair {
    uint64_t blocks, layers; /* all of them, and without the extra ones behind */
    uint64_t hidden, heads, head_dim, rotary_dim;
    bool has_sections; /* then rows of q and k are stored in halves */
    uint64_t sections[3];
};
int pm_gguf_pair_sizes(const struct pm_gguf *model, struct pm_gguf_pair *out, struct pm_error *err);

/* The key's number, 1..limit. */
int pm_gguf_need(const struct pm_gguf *file, const char *key, uint64_t limit, uint64_t *out,
                 struct pm_error *err);

#endif
