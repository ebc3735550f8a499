#include "engine/kernels/quant.h"

#include <math.h>
#include <string.h>

#include "engine/kernels/bf16.h"

enum { GROUP = PM_QUANT_GROUP, PANEL = PM_PANEL_QUANT, INT8_MAX_VALUE = 127, ALIGN = 64 };

/* ---- rounded inputs ---- */

static size_t groups_of(size_t k)
{
    return (k + GROUP - 1) / GROUP;
}

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

size_t pm_quant_rows_bytes(int rows, int k)
{
    size_t pieces = (size_t)rows * groups_of((size_t)k);
    return pieces * GROUP + aligned(pieces * sizeof(float)) + aligned(pieces * sizeof(int32_t));
}

struct pm_quant_rows pm_quant_rows_at(void *memory, int rows, int k)
{
    size_t groups = groups_of((size_t)k), pieces = (size_t)rows * groups;
    char *scales = (char *)memory + pieces * GROUP;
    return (struct pm_quant_rows){.rows = rows,
                                  .groups = (int)groups,
                                  .values = memory,
                                  .scales = (float *)(void *)scales,
                                  .corrections =
                                      (int32_t *)(void *)(scales + aligned(pieces * sizeof(float)))};
}

/* ---- packing ---- */

static size_t group_bytes(enum pm_quant_bits bits)
{
    return bits == PM_QUANT_INT8 ? PM_INT8_GROUP_BYTES : PM_INT4_GROUP_BYTES;
}

size_t pm_quant_panel_bytes(enum pm_quant_bits bits, int n, size_t k)
{
    return ((size_t)n + PANEL - 1) / PANEL * groups_of(k) * group_bytes(bits);
}

/* The nearest integer, ties to even, of values below 2^22 (for more, a number as large): so that the compiler
 * can do it in vectors. */
static inline float nearest(float value)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23 */
    return value + shift - shift;
}

static inline float clamp(float value, float low, float high)
{
    return value < low ? low : value > high ? high : value;
}

/* The group's integers for a scale that bf16 can hold: out[i] = nearest(w[i] / scale). */
static void round_group(const float *w, float scale, int low, int high, int8_t *out)
{
    float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    if (!isfinite(inverse))
        inverse = 0;
    for (int i = 0; i < GROUP; i++)
        out[i] = (int8_t)nearest(clamp(w[i] * inverse, (float)low, (float)high));
}

static float as_short(float value)
{
    return pm_bf16_to_f32(pm_bf16_from_f32(value));
}

static float round_int8(const float *w, int8_t *out)
{
    float largest = 0;
    for (int i = 0; i < GROUP; i++)
        largest = fmaxf(largest, fabsf(w[i]));
    float scale = as_short(largest / (float)INT8_MAX_VALUE);
    round_group(w, scale, -INT8_MAX_VALUE, INT8_MAX_VALUE, out);
    return scale;
}

/* Squared error (less a constant) of the group with the scale that suits these integers best, and that scale:
 * the integers of one inverse, then the least squares over them. */
static float try_inverse(const float *w, float inverse, float *scale_out)
{
    enum { LANES = 8 };
    float wq[LANES] = {0}, qq[LANES] = {0};
    for (int i = 0; i < GROUP; i += LANES)
        for (int j = 0; j < LANES; j++) {
            float q = nearest(clamp(w[i + j] * inverse, -8.0f, 7.0f));
            wq[j] += w[i + j] * q;
            qq[j] += q * q;
        }
    for (int j = 1; j < LANES; j++) {
        wq[0] += wq[j];
        qq[0] += qq[j];
    }
    *scale_out = qq[0] > 0 ? wq[0] / qq[0] : 0;
    return qq[0] > 0 ? -wq[0] * wq[0] / qq[0] : 0; /* less the squares of the weights, the same for all */
}

/* The 16 integers reach from -8 to 7: the sign of the scale lets the largest value be the -8. Smaller steps
 * than the largest value asks for cut it off and serve the others better; which is best differs by group. */
static float round_int4(const float *w, int8_t *out)
{
    static const float steps[] = {-9.0f, -8.6f, -8.3f, -8.0f, -7.7f, -7.4f, -7.1f, -6.8f,
                                  -6.5f, -6.1f, -5.7f, 6.0f,  6.4f,  6.8f,  7.1f,  7.5f};
    float largest = 0, relative[GROUP], best = 0, least = 0;
    for (int i = 0; i < GROUP; i++)
        largest = fabsf(w[i]) > fabsf(largest) ? w[i] : largest;
    for (int i = 0; i < GROUP; i++)
        relative[i] = largest != 0.0f ? w[i] / largest : 0.0f;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        float scale, error = try_inverse(relative, steps[i], &scale);
        if (error < least) {
            least = error;
            best = scale;
        }
    }
    float scale = as_short(best * largest);
    round_group(w, scale, -PM_INT4_ZERO, PM_INT4_ZERO - 1, out);
    return scale;
}

/* Where the weight of output o and input i of a group stands. */
static size_t byte_at(enum pm_quant_bits bits, int o, int i)
{
    int t = i / 4;
    if (bits == PM_QUANT_INT4)
        t %= 8;
    return PM_QUANT_SCALE_BYTES + (size_t)(t * PANEL + o) * 4 + (size_t)(i % 4);
}

static void put_group(enum pm_quant_bits bits, const int8_t *q, int o, uint8_t *group)
{
    for (int i = 0; i < GROUP; i++) {
        uint8_t *at = group + byte_at(bits, o, i);
        if (bits == PM_QUANT_INT8)
            *at = (uint8_t)(q[i] + PM_INT8_ZERO);
        else
            *at |= (uint8_t)((q[i] + PM_INT4_ZERO) << (i >= GROUP / 2 ? 4 : 0));
    }
}

bool pm_quant_panel_fill(enum pm_quant_bits bits, const float *rows, int count, size_t k, uint8_t *panel)
{
    static const float nothing[GROUP];
    memset(panel, 0, pm_quant_panel_bytes(bits, 1, k));
    for (size_t first = 0; first < k; first += GROUP, panel += group_bytes(bits))
        for (int o = 0; o < PANEL; o++) {
            float filled[GROUP] = {0};
            const float *w = nothing;
            int8_t q[GROUP];
            if (o < count) {
                w = rows + (size_t)o * k + first;
                if (k - first < GROUP)
                    w = memcpy(filled, w, (k - first) * sizeof *w);
            }
            float scale = bits == PM_QUANT_INT8 ? round_int8(w, q) : round_int4(w, q);
            if (!isfinite(scale))
                return false;
            uint16_t stored = pm_bf16_from_f32(scale);
            memcpy(panel + 2 * o, &stored, sizeof stored);
            put_group(bits, q, o, panel);
        }
    return true;
}

float pm_quant_panel_value(enum pm_quant_bits bits, const uint8_t *panels, size_t k, int output, size_t input)
{
    const uint8_t *group =
        panels + ((size_t)(output / PANEL) * groups_of(k) + input / GROUP) * group_bytes(bits);
    int o = output % PANEL, i = (int)(input % GROUP);
    uint8_t byte = group[byte_at(bits, o, i)];
    int q =
        bits == PM_QUANT_INT8 ? byte - PM_INT8_ZERO : (byte >> (i >= GROUP / 2 ? 4 : 0) & 15) - PM_INT4_ZERO;
    uint16_t stored;
    memcpy(&stored, group + 2 * o, sizeof stored);
    return (float)q * pm_bf16_to_f32(stored);
}
