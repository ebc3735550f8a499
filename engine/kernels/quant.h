/* Products of integers: weights in 8 or 4 bits, inputs rounded to 8 bits when a product begins.
 *
 * Inputs and weights are cut in groups of 64 values of k; the last one is filled up with zeros. A group of
 * one row of inputs (of one output's weights) has a scale of its own: value = scale * integer. Inputs are
 * rounded by the row and group alone (the largest value becomes 127), so that a row never depends on its
 * company.
 *
 * A panel of weights is 64 outputs, group after group, one run of memory that is read from end to end:
 *
 *   int8    64 scales (bf16), then [16][64][4] bytes: the weight w of output o and input 4 t + i is the byte
 *           w + 128 at [t][o][i]: what vpdpbusd takes as its unsigned operand
 *   int4    64 scales (bf16), then [8][64][4] bytes: the low four bits at [t][o][i] hold w + 8 of input
 *           4 t + i, the high ones w + 8 of input 4 (t + 8) + i
 *
 * out = bias, then for every group in ascending order out = fma(integer sum, weight scale * input scale,
 * out), the integer sum exact: every table gives the same bits.
 *
 * Ownership: the caller's memory throughout. Threads: pure and reentrant. Errors: none; sizes are the
 * caller's duty. */
#ifndef PM_ENGINE_KERNELS_QUANT_H
#define PM_ENGINE_KERNELS_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PM_QUANT_GROUP = 64,
    PM_PANEL_QUANT = 64,
    PM_QUANT_SCALE_BYTES = 2 * PM_PANEL_QUANT,
    PM_INT8_GROUP_BYTES = PM_QUANT_SCALE_BYTES + PM_QUANT_GROUP * PM_PANEL_QUANT,
    PM_INT4_GROUP_BYTES = PM_QUANT_SCALE_BYTES + PM_QUANT_GROUP * PM_PANEL_QUANT / 2,
    PM_INT8_ZERO = 128, /* what is added to a weight to make it unsigned */
    PM_INT4_ZERO = 8,
};

/* Rounded inputs of a block of rows. */
struct pm_quant_rows {
    int rows, groups;
    int8_t *values;       /* [groups][rows][64] */
    float *scales;        /* [groups][rows] */
    int32_t *corrections; /* [groups][rows]: -zero * sum of the values */
};

/* Places the three arrays in memory of pm_quant_rows_bytes, aligned to 64 bytes. */
size_t pm_quant_rows_bytes(int rows, int k);
struct pm_quant_rows pm_quant_rows_at(void *memory, int rows, int k);

/* One panel of a product: out[r][0..columns) (+)= bias + x[r] * panel. */
struct pm_gemm_quant {
    const struct pm_quant_rows *x; /* rounded for the same zero; all of its rows */
    const uint8_t *panel;          /* groups of PM_INT8_GROUP_BYTES or PM_INT4_GROUP_BYTES */
    const float *bias;             /* [64] or NULL */
    int columns;                   /* 1..64 */
    float *out;
    size_t out_stride;
    bool add; /* out += instead of out = */
};

struct pm_quant_kernels {
    /* Rounds rows of k bf16 values, x_stride apart. zero: PM_INT8_ZERO or PM_INT4_ZERO, as the weights have
     * it. A group with a value that is not finite has the scale not-a-number, one without a value of 1e-30 or
     * more the scale 0. */
    void (*round_rows)(const uint16_t *x, size_t x_stride, int k, int zero, const struct pm_quant_rows *out);
    void (*gemm_int8)(const struct pm_gemm_quant *g);
    void (*gemm_int4)(const struct pm_gemm_quant *g);
};

extern const struct pm_quant_kernels pm_quant_plain;
#if defined(__x86_64__)
extern const struct pm_quant_kernels pm_quant_avx2, pm_quant_avx512, pm_quant_avx512vnni;
#endif

/* ---- packing ---- */

enum pm_quant_bits { PM_QUANT_INT4 = 4, PM_QUANT_INT8 = 8 };

/* Bytes of the panels of n outputs over k inputs. */
size_t pm_quant_panel_bytes(enum pm_quant_bits bits, int n, size_t k);

/* Rounds rows [count][k] of weights (count 1..64, finite) into one panel: to 8 bits by the largest value of a
 * group, to 4 bits with the scale of the least squared error among those tried. false: a scale is too large
 * for bf16. */
bool pm_quant_panel_fill(enum pm_quant_bits bits, const float *rows, int count, size_t k, uint8_t *panel);

/* One weight as the kernels see it, of panels of k inputs. */
float pm_quant_panel_value(enum pm_quant_bits bits, const uint8_t *panels, size_t k, int output,
                           size_t input);

#endif
