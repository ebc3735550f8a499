#include "layoutd/decode/exif.h"

#include <stdbool.h>
#include <string.h>

struct reader {
    const uint8_t *bytes;
    size_t size;
    bool big_endian;
};

static uint32_t get(const struct reader *r, size_t offset, size_t count)
{
    if (count > r->size || offset > r->size - count)
        return 0;
    uint32_t value = 0;
    for (size_t i = 0; i < count; i++)
        value = value << 8 | r->bytes[offset + (r->big_endian ? i : count - 1 - i)];
    return value;
}

static double rational(const struct reader *r, size_t offset)
{
    double denominator = get(r, offset + 4, 4);
    return denominator > 0 ? get(r, offset, 4) / denominator : 0;
}

void pm_exif_parse(const uint8_t *bytes, size_t size, struct pm_exif *exif)
{
    if (size >= 6 && memcmp(bytes, "Exif\0\0", 6) == 0) {
        bytes += 6;
        size -= 6;
    }
    if (size < 14 || (memcmp(bytes, "II*\0", 4) != 0 && memcmp(bytes, "MM\0*", 4) != 0))
        return;
    struct reader r = {bytes, size, bytes[0] == 'M'};
    size_t directory = get(&r, 4, 4);
    uint32_t entries = get(&r, directory, 2);
    double x = 0, y = 0, unit = 1;
    for (uint32_t i = 0; i < entries && i < 200; i++) {
        size_t entry = directory + 2 + 12 * (size_t)i;
        uint32_t tag = get(&r, entry, 2), type = get(&r, entry + 2, 2), value = get(&r, entry + 8, 2);
        if (tag == 0x0112 && type == 3 && value >= 1 && value <= 8)
            exif->orientation = (int)value;
        else if (tag == 0x011a && type == 5)
            x = rational(&r, get(&r, entry + 8, 4));
        else if (tag == 0x011b && type == 5)
            y = rational(&r, get(&r, entry + 8, 4));
        else if (tag == 0x0128 && type == 3)
            unit = value == 3 ? 2.54 : 1;
    }
    /* 72 is what cameras write when they mean "nothing in particular". */
    if (x > 0 && y > 0 && x != 72) {
        exif->dpi_x = x * unit;
        exif->dpi_y = y * unit;
    }
}
