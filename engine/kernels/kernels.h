/* The arithmetic of the networks: one table of functions per instruction set, chosen at run time.
 *
 * Layouts. Pictures are NHWC: a pixel's channels lie together. Dense weights (linear layers, convolutions,
 * transposed convolutions written as products) are in panels, the layout of the packed weight file
 * (docs/weights.md): outputs are cut in panels of PM_PANEL = 48, the last one is 8, 16, 24, 32 or 48 wide,
 * padded with zeros; a panel is [1 + K][width], its first row the bias. 48 = 3 x 16 lets 8 rows x 3 vectors
 * of AVX-512 stay in registers (24 sums), 4 rows x 3 vectors of AVX2 twice (12 sums), and divides the channel
 * counts of the networks (48, 96, 192, 384), which 64 does not. Depthwise weights are [1 + kh * kw][channels
 * padded to 16], the first row again the bias.
 *
 * Exactness: an output is one chain of multiply-adds in the order of k, whatever the number of rows, the tile
 * or the thread: results never depend on company. Between instruction sets they differ by rounding.
 *
 * Ownership: nothing is kept. Threads: all functions are pure and reentrant. Errors: none; sizes are the
 * caller's duty, checked when the weights were opened.
 */
#ifndef PM_ENGINE_KERNELS_KERNELS_H
#define PM_ENGINE_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/kernels/quant.h"

enum { PM_PANEL = 48, PM_GEMM_TAPS = 3, PM_DW_TAPS = 7, PM_DW_LANES = 16 };

enum pm_act {
    PM_ACT_NONE,
    PM_ACT_RELU,
    PM_ACT_GELU,    /* 0.5 x (1 + erf(x / sqrt 2)), absolute error below 2e-6 */
    PM_ACT_SWISH,   /* x / (1 + exp(-x)) */
    PM_ACT_HSWISH,  /* x clamp(x + 3, 0, 6) / 6 */
    PM_ACT_SIGMOID, /* 1 / (1 + exp(-x)) */
};

/* One panel of a product: out[r][0..columns) = act(bias + sum over taps and k of x[tap][r * x_stride + k] *
 * panel) + residual[r]. A convolution of kh rows is kh taps: in NHWC the kw * channels inputs of one kernel
 * row lie together, and x_stride is the horizontal stride in floats. Reads of x stay inside the k floats of
 * each row and tap. */
struct pm_gemm {
    const float *x[PM_GEMM_TAPS];
    size_t x_stride;
    int taps, k;
    const float *panel; /* [1 + taps * k][width] */
    int width, columns; /* 8, 16, 24, 32 or 48; 1..width */
    int rows;
    enum pm_act act;
    float *out; /* [rows], out_stride floats apart */
    size_t out_stride;
    const float *residual; /* NULL, or [rows] to add after act; may be out itself when act is NONE or RELU */
    size_t residual_stride;
};

/* Outputs [x_begin, x_end) of one row of a depthwise convolution, zero padding of kw / 2 left and right; rows
 * outside the picture are NULL. */
struct pm_dw {
    const float *in[PM_DW_TAPS]; /* [kh] input rows of in_width pixels */
    int kh, kw, stride_x;
    int in_width, channels;
    const float *weights; /* [1 + kh * kw][channels padded to PM_DW_LANES] */
    float *out;           /* pixel x_begin */
    int x_begin, x_end;
};

/* Running best entry and sum of exponentials of one row of logits, in 16 lanes. */
struct pm_softmax_lanes {
    float max[16], sum[16];
    int32_t index[16];
};

/* ---- language models ----
 *
 * Two precisions (engine/vlm/config.h). "Activations" are what products read: f32, or bf16 rounded to nearest
 * even. Sums are f32. In bf16 a product takes k in pairs: acc = acc + x[2i] w[2i] + x[2i + 1] w[2i + 1] in
 * the arithmetic of vdpbf16ps where the processor has it; other tables widen to f32 and multiply-add. */
enum { PM_PANEL_BF16 = 64, PM_ATTENTION_BLOCK = 64, PM_HEAD_DIM_MAX = 256 };

/* out[r][0..columns) (+)= bias + x[r] * panel. bf16 panels are [(k + 1) / 2][64][2]: pairs of inputs
 * together, zero where k is odd or columns end. */
struct pm_gemm_bf16 {
    const uint16_t *x; /* [rows], x_stride values apart; k rounded up to even is read */
    size_t x_stride;
    int k, rows, columns; /* columns 1..64 */
    const uint16_t *panel;
    const float *bias; /* [64] or NULL */
    float *out;
    size_t out_stride;
    bool add; /* out += instead of out = */
};

/* Softmax attention of some query rows of one head over blocks of 64 keys (FlashAttention: Dao et al. 2022,
 * online softmax in ascending blocks). A row's result depends only on its query, its limit and the blocks:
 * not on the other rows of the call. Values after the limit must be finite, they count for nothing.
 * Vector tables soften scores in groups of 512 keys that begin at multiples of 512 in the sequence. In bf16
 * the probabilities are rounded before they meet the values, and it is the rounded ones that are summed:
 * weights add up to one, so rounding moves a result only by the spread of the values. Scratch on the stack:
 * below 256 KB.
 *
 * dim: even, 2..256. Key block: activations [(dim + 1) / 2][64][2] in bf16, [dim][64] in f32: 64 keys side by
 * side. Value block: bf16 [32][D][2], f32 [64][D], D = dim rounded up to 16, zeros after dim. */
struct pm_attention {
    const void *q; /* activations [rows][dim], q_stride values apart, not yet scaled */
    size_t q_stride;
    int rows, dim;
    /* Key/value heads that see the same limits, their blocks one after the other in every keys[i] and in
     * every values[i]: from memory, long runs are read nearly twice as fast as single blocks. */
    int heads;                             /* 0: one */
    size_t q_head_stride, out_head_stride; /* between the rows of two heads */
    float scale;                           /* of the scores, > 0 */
    const void *const *keys;               /* [blocks] */
    const void *const *values;             /* [blocks] */
    const int32_t *limits;                 /* row r sees keys [0, limits[r]), >= 1 */
    void *out;                             /* activations [rows][dim], out_stride values apart */
    size_t out_stride;
};

/* The functions of one precision: inputs and outputs named "activations" are of its type. In bf16, rows of
 * odd n get one zero more where they have room (n < out_stride), since products read values in pairs. */
struct pm_lm_kernels {
    /* out[r] = activations of x[r] / rms(x[r]) * weight; rms over n with eps */
    void (*rms_norm)(const float *x, size_t x_stride, int rows, int n, const float *weight, float eps,
                     void *out, size_t out_stride);
    /* out[r] = activations of silu(gate) * up; a row of x is [gate n | up n] */
    void (*gate)(const float *x, size_t x_stride, int rows, int n, void *out, size_t out_stride);
    /* out[r] = activations of x[r] */
    void (*convert)(const float *x, size_t x_stride, int rows, int n, void *out, size_t out_stride);
    void (*attend)(const struct pm_attention *a);
    /* Writes key (value) vectors [count][dim] f32, stride apart, into slots first.. of a block. */
    void (*put_keys)(const float *x, size_t stride, int count, int dim, int first, void *block);
    void (*put_values)(const float *x, size_t stride, int count, int dim, int first, void *block);
};

/* Bytes of a key block and of a value block. */
size_t pm_key_block_bytes(int dim, bool is_bf16);
size_t pm_value_block_bytes(int dim, bool is_bf16);

struct pm_kernels {
    const char *name; /* "avx512bf16", "avx512vnni", "avx512", "avx2", "plain" */
    void (*gemm)(const struct pm_gemm *g);
    void (*depthwise)(const struct pm_dw *d);
    void (*activate)(float *x, size_t n, enum pm_act act);
    /* x[r][c] *= gate[c] */
    void (*scale_rows)(float *x, int rows, int channels, const float *gate);
    /* sum[c] += x[r][c], rows in order */
    void (*sum_rows)(const float *x, int rows, int channels, float *sum);
    /* out[r][0..channels) = the largest of a[r], a[r + 1], b[r], b[r + 1]: a 2x2 max pool of stride 1 */
    void (*max_2x2)(const float *a, const float *b, int pixels, int channels, float *out, size_t out_stride);
    /* out[i] = byte * (2 / 255) - 1 */
    void (*normalise)(const uint8_t *bytes, size_t n, float *out);
    /* x[i] = exp(x[i] - the largest) in place, returns their sum */
    float (*exp_row)(float *x, int n);
    /* Takes columns logits a row (first_index their class) into lanes[r]. */
    void (*softmax_step)(const float *logits, size_t stride, int rows, int columns, int first_index,
                         struct pm_softmax_lanes *lanes);
    /* ---- language models ---- */
    void (*gemm_bf16)(const struct pm_gemm_bf16 *g);
    const struct pm_lm_kernels *f32, *bf16; /* by precision */
    const struct pm_quant_kernels *quant;   /* products of int8 and int4 */
    /* x[r] = (x[r] - mean) / sqrt(var + eps) * weight + bias, in place */
    void (*layer_norm)(float *x, size_t stride, int rows, int n, const float *weight, const float *bias,
                       float eps);
    /* out[r] += x[r] / rms(x[r]) * weight: the norm of a branch added to the residual stream */
    void (*add_rms_norm)(const float *x, size_t x_stride, int rows, int n, const float *weight, float eps,
                         float *out, size_t out_stride);
    /* Turns pairs of heads x dim values of one row by cosines and sines [pairs]: (2d, 2d + 1) or
     * (d, d + pairs); values after 2 * pairs of a head stay. */
    void (*rope_interleaved)(float *x, int heads, int dim, int pairs, const float *cosines,
                             const float *sines);
    void (*rope_half_split)(float *x, int heads, int dim, int pairs, const float *cosines,
                            const float *sines);
};

/* The table of that name ("plain" on any machine), NULL when this processor or build does not have it. name
 * NULL: the one that the environment variable PAGEMILL_ISA names, or else the best that this processor runs.
 */
const struct pm_kernels *pm_kernels_get(const char *name);

/* What PAGEMILL_ISA names when pm_kernels_get(NULL) cannot follow it, for a warning; NULL otherwise. */
const char *pm_kernels_missing(void);

/* The tables themselves; NULL-named slots do not exist in builds for other machines. */
extern const struct pm_kernels pm_kernels_plain;
#if defined(__x86_64__)
extern const struct pm_kernels pm_kernels_avx2;
extern const struct pm_kernels pm_kernels_avx512;
extern const struct pm_kernels pm_kernels_avx512vnni;
extern const struct pm_kernels pm_kernels_avx512bf16;
#endif

/* Floats of a packed panel matrix of n outputs over k inputs, and the width of its panel p. */
int pm_panel_width(int n, int panel);
size_t pm_panel_floats(int n, size_t k);

/* Writes one value of W[n][k] (k < 0: the bias) into panel storage. */
float *pm_panel_at(float *panels, int n, size_t k_total, int output, long k);

/* The same for bf16 panels [(n + 63) / 64][(k + 1) / 2][64][2] (PM_LAYOUT_PANELS64_BF16): values in all (zero
 * them first: what stands for no weight must be 0), the place of one value, and one whole row W[output][0..k)
 * rounded to nearest even. */
size_t pm_panel_bf16_values(int n, size_t k_total);
uint16_t *pm_panel_bf16_at(uint16_t *panels, size_t k_total, int output, size_t k);
void pm_panel_bf16_put(uint16_t *panels, size_t k_total, int output, const float *row);

void pm_softmax_begin(struct pm_softmax_lanes *lanes, int rows);
/* Best class (the first on ties) and its probability. */
void pm_softmax_end(const struct pm_softmax_lanes *lanes, int32_t *index_out, float *probability_out);

#endif
