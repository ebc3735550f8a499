/* Building blocks of the PP-OCR networks over the kernels: layers found in a packed file, maps in NHWC, the
 * common backbone of detector and recogniser, squeeze and excitation.
 *
 * Ownership: layers are views of the pack; struct pm_net owns its pool and scratch memory. Threads: one
 * owner; work is cut into jobs for the pool, and no result depends on how. Errors: PM_EFORMAT from the pack,
 * PM_ENOMEM.
 */
#ifndef PM_ENGINE_PPOCR_NET_H
#define PM_ENGINE_PPOCR_NET_H

#include <stdbool.h>

#include "base/error.h"
#include "base/image.h"
#include "engine/kernels/kernels.h"
#include "engine/pack.h"
#include "engine/pool.h"

/* A look at stage outputs, for parity tests and benches: called after the stage of that name with its output,
 * NHWC (batch 1). */
struct pm_tap {
    void (*fn)(void *arg, const char *stage, const float *values, int height, int width, int channels);
    void *arg;
    bool all; /* also stages that are otherwise never in memory as a whole (kept for the look) */
};

/* Memory that only grows. Zero-initialise; free with pm_scratch_free. */
struct pm_scratch {
    float *data;
    size_t floats;
};
/* At least floats values, 64-byte aligned, content lost. */
int pm_scratch_need(struct pm_scratch *s, size_t floats, struct pm_error *err);
void pm_scratch_free(struct pm_scratch *s);

struct pm_net {
    const struct pm_kernels *kernels;
    struct pm_pool *pool;
    int threads;
    struct pm_scratch *work; /* [threads] */
    struct pm_tap tap;
};
int pm_net_open(struct pm_net *net, int threads, struct pm_error *err);
void pm_net_close(struct pm_net *net);
void pm_net_tap(const struct pm_net *net, const char *stage, const float *values, int height, int width,
                int channels);

/* Opens the packed file that DIR/pagemill.json names under "files": role. */
int pm_ppocr_open_pack(const char *model_dir, const char *role, struct pm_pack **out, struct pm_error *err);
/* Path of that file; caller frees. */
int pm_ppocr_path(const char *model_dir, const char *role, char **out, struct pm_error *err);

/* ---- layers ---- */

struct pm_dense {
    const float *panels;
    int n, taps, k;
};
struct pm_depthwise {
    const float *weights;
    int channels, kh, kw, stride_y, stride_x;
};
struct pm_gate { /* squeeze and excitation */
    struct pm_dense fc1, fc2;
    float slope;
    int channels;
};

/* Name of a layer: format and arguments. */
int pm_dense_find(const struct pm_pack *pack, struct pm_dense *out, int n, int taps, int k,
                  struct pm_error *err, const char *format, ...) __attribute__((format(printf, 7, 8)));
int pm_depthwise_find(const struct pm_pack *pack, struct pm_depthwise *out, int channels, int kh, int kw,
                      int stride_y, int stride_x, struct pm_error *err, const char *format, ...)
    __attribute__((format(printf, 9, 10)));
int pm_gate_find(const struct pm_pack *pack, struct pm_gate *out, int channels, float slope,
                 struct pm_error *err, const char *format, ...) __attribute__((format(printf, 6, 7)));
int pm_vector_find(const struct pm_pack *pack, const float **out, int n, struct pm_error *err,
                   const char *format, ...) __attribute__((format(printf, 5, 6)));

/* out[r] = act(W x[r] + b) + residual[r] for rows of one tap. residual may be NULL. */
void pm_dense_rows(const struct pm_net *net, const struct pm_dense *d, const float *x, size_t x_stride,
                   int rows, float *out, size_t out_stride, const float *residual, size_t residual_stride,
                   enum pm_act act);
/* The same for a convolution of d->taps rows: x[tap] is the first input row of each kernel row. */
void pm_conv_rows(const struct pm_net *net, const struct pm_dense *d, const float *const *x, size_t x_stride,
                  int rows, float *out, size_t out_stride, enum pm_act act);

/* ---- maps ---- */

struct pm_fmap { /* [height, width, channels] */
    float *data;
    int height, width, channels;
};
static inline size_t pm_fmap_floats(int height, int width, int channels)
{
    return (size_t)height * (size_t)width * (size_t)channels;
}

/* Outputs [begin, end) of the flattened height_out x width_out pixels -> out [end - begin, channels]. */
void pm_depthwise_pixels(const struct pm_net *net, const struct pm_depthwise *d, const struct pm_fmap *in,
                         int width_out, int begin, int end, float *out);
/* gate[c] = hard_sigmoid(fc2 relu(fc1 mean)); mean and gate: [channels]. */
void pm_gate_run(const struct pm_net *net, const struct pm_gate *g, const float *mean, float *gate);
/* Means over all pixels; sums go row by row in a fixed order. rows: scratch [height, channels]. */
void pm_fmap_mean(const struct pm_net *net, const struct pm_fmap *map, float *rows, float *mean);

/* ---- backbone ---- */

/* Grows every thread's working memory. */
int pm_net_need_work(struct pm_net *net, size_t floats, struct pm_error *err);

enum { PM_STAGES_MAX = 4, PM_BLOCKS_MAX = 6 };

struct pm_block {
    struct pm_depthwise dw;
    struct pm_dense expand, project;
    bool has_gate, is_down; /* is_down: no residual, width doubles */
    struct pm_gate gate;
};
struct pm_stage {
    struct pm_block blocks[1 + PM_BLOCKS_MAX]; /* the down block first where there is one */
    int count, channels;
};
struct pm_backbone {
    struct pm_dense conv1, conv2a, conv2b, conv3, conv4;
    int stem_channels; /* 24 or 48 */
    struct pm_stage stages[PM_STAGES_MAX];
    int stage_count;
};

int pm_backbone_find(const struct pm_pack *pack, struct pm_backbone *out, int stem_channels, int stage_count,
                     const int *blocks_per_stage, int down_stride_x, struct pm_error *err);

/* Picture (1 or 3 channels), followed by middle grey up to input_width >= its width -> out [ceil(ceil(h / 2)
 * / 2), ceil(ceil(input_width / 2) / 2), 2 * stem_channels]; out->data is the caller's. */
int pm_stem_run(struct pm_net *net, const struct pm_backbone *b, const struct pm_image *image,
                int input_width, struct pm_fmap *out, struct pm_error *err);
/* One block, in -> one of the two buffers: a gated block overwrites in, others fill other. *out says which.
 * Both buffers must hold the larger of input and output. */
int pm_block_run(struct pm_net *net, const struct pm_block *block, const struct pm_fmap *in, float *other,
                 struct pm_fmap *out, struct pm_error *err);

#endif
