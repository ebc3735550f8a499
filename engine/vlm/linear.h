/* Matrix products over packed weights, on the threads of a pool: every large product of a model goes
 * through here.
 *
 * Exactness: out[r][c] is one chain of multiply-adds in the order of k, the same whatever the number of rows,
 * the tile, the thread or the row's neighbours: results never depend on company.
 *
 * Inputs are "activations": rows in the precision's own type, f32 for PM_PRECISION_F32, bf16 (uint16_t) for
 * all others, made by the norms and gates of the kernel table. Sums and outputs are f32. Products of int8 and
 * int4 weights round their inputs to int8 first (kernels/quant.h), each row by itself.
 *
 * Ownership: a pm_linear is a view of mapped weights. Threads: one owner of the pool; read-only otherwise.
 * Errors: binding names the tensor and what differs (PM_EFORMAT, PM_ENOTFOUND); running cannot fail. */
#ifndef PM_ENGINE_VLM_LINEAR_H
#define PM_ENGINE_VLM_LINEAR_H

#include "base/error.h"
#include "engine/kernels/kernels.h"
#include "engine/pack.h"
#include "engine/pool.h"
#include "engine/vlm/config.h"

struct pm_linear {
    enum pm_precision precision;
    int n, k;           /* outputs, inputs */
    const void *panels; /* PM_LAYOUT_PANELS48 (f32, its first row the bias) or PM_LAYOUT_PANELS64_... */
    const float *bias;  /* not f32: [n rounded up to 64], zeros after n; NULL when the layer has none */
};

enum { PM_LINEAR_K_MAX = 1 << 17 }; /* inputs of an int8 or int4 product */

/* The tensor NAME of the pack as a product of n outputs over k inputs, with its bias NAME_of_bias (NULL:
 * none; in f32 the bias lies in the panels). precision: the model's; a product of an int4 model may be int8,
 * and out->precision says which it is. */
int pm_linear_bind(const struct pm_pack *pack, enum pm_precision precision, const char *name,
                   const char *bias, int n, int k, struct pm_linear *out, struct pm_error *err);

enum pm_linear_mode {
    PM_LINEAR_STORE, /* out = xW + b */
    PM_LINEAR_ADD,   /* out += xW + b: the residual stream */
};

/* x: [rows, k] activations, x_stride values apart (bf16: k rounded up to even must be readable, the odd value
 * zero); out: [rows, n] f32, out_stride apart. */
void pm_linear_run(const struct pm_linear *linear, const struct pm_kernels *kernels, struct pm_pool *pool,
                   const void *x, size_t x_stride, int rows, float *out, size_t out_stride,
                   enum pm_linear_mode mode);

/* Bytes of one activation value: 4 or 2. */
size_t pm_activation_bytes(enum pm_precision precision);

#endif
