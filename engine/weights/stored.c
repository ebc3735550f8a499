#include "engine/weights/stored.h"

#include <string.h>

#include "engine/kernels/bf16.h"
#include "engine/weights/half.h"

static void read_plain(const uint8_t *data, enum pm_dtype dtype, uint64_t first, uint64_t count, float *out)
{
    if (dtype == PM_DTYPE_F32) {
        memcpy(out, data + 4 * first, 4 * count);
        return;
    }
    const uint8_t *p = data + 2 * first;
    if (dtype == PM_DTYPE_F16) {
        for (uint64_t i = 0; i < count; i++)
            out[i] = pm_load_half(p + 2 * i);
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        out[i] = pm_bf16_to_f32(pm_load_u16(p + 2 * i));
}

/* Value i of a row: bits i * bits .. of a little-endian stream. One value spans two bytes at most (8 bits).
 */
static unsigned bits_at(const uint8_t *row, uint64_t i, unsigned bits)
{
    uint64_t bit = i * bits;
    const uint8_t *p = row + bit / 8;
    unsigned shift = (unsigned)(bit % 8), v = *p >> shift;
    if (shift + bits > 8)
        v |= (unsigned)p[1] << (8 - shift);
    return v & ((1u << bits) - 1);
}

static void read_affine(const struct pm_stored *s, uint64_t first, uint64_t count, float *out)
{
    uint64_t row_bytes = s->row_values * s->bits / 8, row_groups = s->row_values / s->group;
    while (count) {
        uint64_t row = first / s->row_values, column = first % s->row_values;
        uint64_t group = column / s->group, n = s->group - column % s->group;
        if (n > count)
            n = count;
        float scale, bias;
        read_plain(s->scales, s->dtype, row * row_groups + group, 1, &scale);
        read_plain(s->biases, s->dtype, row * row_groups + group, 1, &bias);
        const uint8_t *data = s->data + row * row_bytes;
        for (uint64_t i = 0; i < n; i++)
            out[i] = (float)bits_at(data, column + i, s->bits) * scale + bias;
        first += n, count -= n, out += n;
    }
}

static void read_blocks(const struct pm_block_type *type, const uint8_t *data, uint64_t first, uint64_t count,
                        float *out)
{
    while (count) {
        const uint8_t *block = data + first / type->values * type->bytes;
        uint64_t skip = first % type->values, n = type->values - skip;
        if (!skip && count >= n) {
            type->read(block, out);
        } else { /* a part of a block */
            float whole[PM_BLOCK_VALUES_MAX];
            type->read(block, whole);
            n = n < count ? n : count;
            memcpy(out, whole + skip, n * sizeof *out);
        }
        first += n, count -= n, out += n;
    }
}

void pm_stored_read(const struct pm_stored *stored, uint64_t first, uint64_t count, float *out)
{
    switch (stored->kind) {
    case PM_STORED_PLAIN:
        read_plain(stored->data, stored->dtype, first, count, out);
        break;
    case PM_STORED_AFFINE:
        read_affine(stored, first, count, out);
        break;
    case PM_STORED_BLOCKS:
        read_blocks(stored->block, stored->data, first, count, out);
        break;
    }
}
