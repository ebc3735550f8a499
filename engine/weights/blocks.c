/* The block types of GGUF, value for value as ggml reads them (ggml-quants.c, dequantize_row_*): products in
 * f32, in the same order, so results are equal to the bit.
 *
 *     Q8_0  d                                 32 x i8            d q
 *     Q4_0  d                                 16 bytes           d (q - 8)       low halves first, then high
 *     Q4_1  d, m                              16 bytes           d q + m
 *     Q5_0  d, 32 high bits                   16 bytes           d (q - 16)
 *     Q5_1  d, m, 32 high bits                16 bytes           d q + m
 *     Q4_K  d, dmin, 12 bytes of scales       128 bytes          d s q - dmin m, 8 groups of 32
 *     Q5_K  d, dmin, 12 bytes, 32 high bytes  128 bytes          d s q - dmin m, 8 groups of 32
 *     Q6_K  128 low, 64 high, 16 scales, d                       d s (q - 32), 16 groups of 16 */
#include "engine/weights/half.h"
#include "engine/weights/stored.h"

static void read_q8_0(const uint8_t *block, float *out)
{
    float d = pm_load_half(block);
    for (int i = 0; i < 32; i++)
        out[i] = (float)(int8_t)block[2 + i] * d;
}

static void read_q4_0(const uint8_t *block, float *out)
{
    float d = pm_load_half(block);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((block[2 + i] & 15) - 8);
        out[16 + i] = d * (float)((block[2 + i] >> 4) - 8);
    }
}

static void read_q4_1(const uint8_t *block, float *out)
{
    float d = pm_load_half(block), m = pm_load_half(block + 2);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)(block[4 + i] & 15) + m;
        out[16 + i] = d * (float)(block[4 + i] >> 4) + m;
    }
}

/* Value i (0..31) of five bits: four from the bytes, the fifth from the mask. */
static int five_bits(const uint8_t *mask, const uint8_t *bytes, int i)
{
    int low = i < 16 ? bytes[i] & 15 : bytes[i - 16] >> 4;
    return low | (mask[i / 8] >> i % 8 & 1) << 4;
}

static void read_q5_0(const uint8_t *block, float *out)
{
    float d = pm_load_half(block);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)(five_bits(block + 2, block + 6, i) - 16);
}

static void read_q5_1(const uint8_t *block, float *out)
{
    float d = pm_load_half(block), m = pm_load_half(block + 2);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)five_bits(block + 4, block + 8, i) + m;
}

/* Six-bit scale and minimum of group g (0..7): the first four groups in the low bits of bytes 0..7, the
 * others in bytes 8..11 with their upper two bits on top of the first ones. */
static void scale_and_min(const uint8_t *s, int g, int *scale, int *min)
{
    if (g < 4) {
        *scale = s[g] & 63;
        *min = s[4 + g] & 63;
    } else {
        *scale = (s[4 + g] & 15) | (s[g - 4] >> 6) << 4;
        *min = s[4 + g] >> 4 | (s[g] >> 6) << 4;
    }
}

/* high: NULL, or 32 bytes whose bit g is the fifth bit of group g's values. */
static void read_k_groups(float d, float dmin, const uint8_t *scales, const uint8_t *low, const uint8_t *high,
                          float *out)
{
    for (int g = 0; g < 8; g++) {
        int s, m;
        scale_and_min(scales, g, &s, &m);
        float scale = d * (float)s, min = dmin * (float)m;
        const uint8_t *bytes = low + g / 2 * 32;
        for (int i = 0; i < 32; i++) {
            int q = g % 2 ? bytes[i] >> 4 : bytes[i] & 15;
            if (high)
                q |= (high[i] >> g & 1) << 4;
            out[32 * g + i] = scale * (float)q - min;
        }
    }
}

static void read_q4_k(const uint8_t *block, float *out)
{
    read_k_groups(pm_load_half(block), pm_load_half(block + 2), block + 4, block + 16, NULL, out);
}

static void read_q5_k(const uint8_t *block, float *out)
{
    read_k_groups(pm_load_half(block), pm_load_half(block + 2), block + 4, block + 48, block + 16, out);
}

static void read_q6_k(const uint8_t *block, float *out)
{
    const uint8_t *low = block, *high = block + 128, *scales = block + 192;
    float d = pm_load_half(block + 208);
    for (int i = 0; i < 256; i++) {
        /* two halves of 128; in each, four runs of 32: low and high halves of 64 bytes, two bits of 32 bytes
         */
        int half = i / 128, run = i / 32 % 4, at = i % 32;
        int byte = low[64 * half + 32 * (run % 2) + at];
        int q = (run < 2 ? byte & 15 : byte >> 4) | (high[32 * half + at] >> 2 * run & 3) << 4;
        out[i] = d * (float)(int8_t)scales[i / 16] * (float)(q - 32);
    }
}

static const struct pm_block_type types[] = {
    {"Q4_0", 2, 32, 18, read_q4_0},    {"Q4_1", 3, 32, 20, read_q4_1},    {"Q5_0", 6, 32, 22, read_q5_0},
    {"Q5_1", 7, 32, 24, read_q5_1},    {"Q8_0", 8, 32, 34, read_q8_0},    {"Q4_K", 12, 256, 144, read_q4_k},
    {"Q5_K", 13, 256, 176, read_q5_k}, {"Q6_K", 14, 256, 210, read_q6_k},
};

const struct pm_block_type *pm_block_type(uint32_t id)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].id == id)
            return &types[i];
    return NULL;
}
