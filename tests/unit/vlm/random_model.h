/* A model of random weights in sizes of the test's choice, written as a checkpoint, packed and opened. */
#ifndef PM_TESTS_UNIT_VLM_RANDOM_MODEL_H
#define PM_TESTS_UNIT_VLM_RANDOM_MODEL_H

#include "engine/vlm/model.h"

struct random_sizes {
    const char *name;
    int hidden, intermediate, heads, kv_heads, head_dim, vocab, layers, mtp_layers;
    int sections[3];
    int vision_hidden, vision_intermediate, vision_heads, depth, patch, temporal, merge;
};

enum { RANDOM_SIZES = 2, RANDOM_IMAGE_ID = 3 };
/* An ordinary one, and one in which every size is odd or small that may be. */
extern const struct random_sizes random_sizes[RANDOM_SIZES];

/* dir: a folder that is there; the pack is written below it. */
struct pm_vlm_model *random_model_open(const char *dir, const struct random_sizes *sizes,
                                       enum pm_precision precision);
/* The packed file of the same. */
char *random_model_path(const char *dir, const struct random_sizes *sizes, enum pm_precision precision);

/* The next number of a sequence, -1..1. */
float random_value(uint64_t *state);

/* Tables of kernels that this machine runs: names, NULL at the end. */
extern const char *const random_tables[];

#endif
