/* BMP, read by ourselves: OS/2 and Windows headers, 1, 4, 8, 16, 24 and 32 bits, bit fields, RLE4 and RLE8,
 * bottom-up and top-down. The layout (little endian):
 *
 *   0  "BM"   10  offset of the pixels   14  size of the information header (12 or >= 40), then
 *   12-byte: 18 width u16, 20 height u16, 24 bits u16; palette of B, G, R triples
 *   40+    : 18 width i32, 22 height i32 (< 0: top-down), 28 bits u16, 30 compression, 38 pixels a metre,
 *            46 colours used, 54 masks (bit fields); palette of B, G, R, 0 quadruples */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "layoutd/decode/loader.h"

enum { BI_RGB = 0, BI_RLE8 = 1, BI_RLE4 = 2, BI_BITFIELDS = 3, BI_ALPHABITFIELDS = 6 };

struct bmp {
    const uint8_t *bytes;
    size_t size;
    size_t pixels_at;
    uint32_t width, height, bits, compression;
    bool is_top_down;
    double dpi_x, dpi_y;
    uint32_t masks[4];       /* red, green, blue, alpha */
    uint8_t palette[256][3]; /* B, G, R */
};

/* Bytes past the end read as 0; parse refuses a header that is cut. */
static uint32_t u8(const struct bmp *b, size_t at)
{
    return at < b->size ? b->bytes[at] : 0;
}

static uint32_t u16(const struct bmp *b, size_t at)
{
    return u8(b, at) | u8(b, at + 1) << 8;
}

static uint32_t u32(const struct bmp *b, size_t at)
{
    return u16(b, at) | u16(b, at + 2) << 16;
}

static void read_palette(struct bmp *b, size_t at, size_t entry_bytes, uint32_t used)
{
    uint32_t count = 1u << b->bits;
    if (used && used < count)
        count = used;
    for (uint32_t i = 0; i < count; i++)
        for (size_t c = 0; c < 3; c++)
            b->palette[i][c] = (uint8_t)u8(b, at + i * entry_bytes + c);
}

static void read_masks(struct bmp *b, uint32_t header_bytes)
{
    static const uint32_t rgb555[3] = {0x7c00, 0x03e0, 0x001f}, rgb888[3] = {0xff0000, 0xff00, 0xff};
    memcpy(b->masks, b->bits == 16 ? rgb555 : rgb888, sizeof rgb555);
    if (b->compression != BI_BITFIELDS && b->compression != BI_ALPHABITFIELDS)
        return;
    for (size_t i = 0; i < 3; i++)
        b->masks[i] = u32(b, 54 + 4 * i);
    if (header_bytes >= 56 || b->compression == BI_ALPHABITFIELDS)
        b->masks[3] = u32(b, 66);
}

static bool is_known_depth(const struct bmp *b)
{
    switch (b->compression) {
    case BI_RGB:
        return b->bits == 1 || b->bits == 2 || b->bits == 4 || b->bits == 8 || b->bits == 16 ||
               b->bits == 24 || b->bits == 32;
    case BI_RLE8:
        return b->bits == 8 && !b->is_top_down;
    case BI_RLE4:
        return b->bits == 4 && !b->is_top_down;
    case BI_BITFIELDS:
    case BI_ALPHABITFIELDS:
        return b->bits == 16 || b->bits == 32;
    default:
        return false;
    }
}

static int parse(const struct pm_source *source, struct bmp *b, struct pm_error *err)
{
    *b = (struct bmp){.bytes = source->bytes, .size = source->size};
    uint32_t header_bytes = u32(b, 14);
    bool is_os2 = header_bytes == 12;
    if (b->size < 14 + (size_t)header_bytes || header_bytes > 1024 || (!is_os2 && header_bytes < 40))
        return pm_fail(err, PM_EFORMAT, "is a damaged BMP: its header of %u bytes is cut or of no known kind",
                       header_bytes);
    b->pixels_at = u32(b, 10);
    int32_t height = is_os2 ? (int32_t)u16(b, 20) : (int32_t)u32(b, 22);
    int32_t width = is_os2 ? (int32_t)u16(b, 18) : (int32_t)u32(b, 18);
    if (width <= 0 || height == 0 || height == INT32_MIN)
        return pm_fail(err, PM_EFORMAT, "is a damaged BMP: its header says %d x %d pixels", width, height);
    b->width = (uint32_t)width;
    b->is_top_down = height < 0;
    b->height = (uint32_t)(height < 0 ? -height : height);
    b->bits = is_os2 ? u16(b, 24) : u16(b, 28);
    b->compression = is_os2 ? BI_RGB : u32(b, 30);
    if (!is_known_depth(b))
        return pm_fail(err, PM_EUNSUPPORTED, "is a BMP of a kind that is not read (%u bits, compression %u)",
                       b->bits, b->compression);
    if (!is_os2) {
        b->dpi_x = (int32_t)u32(b, 38) * 0.0254;
        b->dpi_y = (int32_t)u32(b, 42) * 0.0254;
    }
    read_masks(b, header_bytes);
    size_t palette_at = 14 + (size_t)header_bytes;
    if (header_bytes == 40 && b->compression == BI_BITFIELDS)
        palette_at += 12;
    if (header_bytes == 40 && b->compression == BI_ALPHABITFIELDS)
        palette_at += 16;
    if (b->bits <= 8)
        read_palette(b, palette_at, is_os2 ? 3 : 4, is_os2 ? 0 : u32(b, 46));
    return 0;
}

static int header(const struct pm_source *source, struct pm_picture *out, struct pm_error *err)
{
    struct bmp *b = pm_xalloc(sizeof *b);
    int rc = parse(source, b, err);
    if (rc == 0) {
        out->width_px = b->width;
        out->height_px = b->height;
        if (b->dpi_x == b->dpi_y)
            out->dpi_x = out->dpi_y = b->dpi_x;
    }
    free(b);
    return rc;
}

/* A field of any width under `mask`, widened to 8 bits. */
static unsigned field(uint32_t value, uint32_t mask)
{
    if (mask == 0)
        return 0;
    unsigned shift = (unsigned)__builtin_ctz(mask);
    uint64_t top = mask >> shift;
    return (unsigned)(((value & mask) >> shift) * (uint64_t)255 / top);
}

static void convert_row(const struct bmp *b, const uint8_t *from, bool has_alpha, uint8_t *to)
{
    for (uint32_t x = 0; x < b->width; x++, to += 3) {
        if (b->bits <= 8) {
            uint32_t per_byte = 8 / b->bits, shift = 8 - b->bits * (x % per_byte + 1);
            memcpy(to, b->palette[from[x / per_byte] >> shift & ((1u << b->bits) - 1)], 3);
        } else if (b->bits == 24) {
            memcpy(to, from + 3 * (size_t)x, 3);
        } else {
            const uint8_t *p = from + (size_t)x * (b->bits / 8);
            uint32_t v = p[0] | (uint32_t)p[1] << 8;
            if (b->bits == 32)
                v |= (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
            unsigned alpha = has_alpha ? field(v, b->masks[3]) : 255;
            for (int c = 0; c < 3; c++)
                to[c] = (uint8_t)((field(v, b->masks[2 - c]) * alpha + 255 * (255 - alpha) + 127) / 255);
        }
    }
}

/* Many writers leave the alpha of every pixel at 0 and mean "opaque". */
static bool has_real_alpha(const struct bmp *b, size_t stride, uint32_t rows)
{
    if (b->bits != 32 || b->masks[3] == 0)
        return false;
    for (uint32_t y = 0; y < rows; y++)
        for (uint32_t x = 0; x < b->width; x++)
            if (u32(b, b->pixels_at + stride * y + 4 * (size_t)x) & b->masks[3])
                return true;
    return false;
}

static void read_plain(const struct bmp *b, struct pm_raster *raster, uint8_t *line)
{
    size_t stride = ((size_t)b->width * b->bits + 31) / 32 * 4;
    size_t used = ((size_t)b->width * b->bits + 7) / 8; /* the padding of the last row may be missing */
    size_t there = b->pixels_at < b->size ? b->size - b->pixels_at : 0;
    size_t whole = there < used ? 0 : (there - used) / stride + 1;
    uint32_t rows = whole < b->height ? (uint32_t)whole : b->height;
    bool has_alpha = has_real_alpha(b, stride, rows);
    /* A cut bottom-up file lacks the top of the picture: those rows are white, those below are real. */
    memset(line, 255, (size_t)b->width * 3);
    if (rows == 0)
        return;
    for (uint32_t y = 0; y < (b->is_top_down ? rows : b->height); y++) {
        uint32_t stored = b->is_top_down ? y : b->height - 1 - y;
        if (stored < rows)
            convert_row(b, b->bytes + b->pixels_at + stride * stored, has_alpha, line);
        pm_raster_row(raster, line);
    }
    if (rows < b->height && !b->is_top_down)
        snprintf(raster->warning, sizeof raster->warning,
                 "is damaged: the data ends early, the upper %u of %u rows are missing", b->height - rows,
                 b->height);
}

struct rle {
    const struct bmp *b;
    size_t at;
    uint32_t x, y; /* y counts from the bottom */
    uint8_t *indices;
};

static void rle_put(struct rle *r, unsigned index)
{
    if (r->x < r->b->width && r->y < r->b->height)
        r->indices[(size_t)r->y * r->b->width + r->x] = (uint8_t)index;
    if (r->x < r->b->width)
        r->x++;
}

/* Literal pixels: `count` indices, padded to two bytes. */
static void rle_literal(struct rle *r, unsigned count)
{
    size_t bytes = r->b->bits == 8 ? count : (count + 1) / 2;
    for (unsigned i = 0; i < count; i++) {
        unsigned v = u8(r->b, r->at + (r->b->bits == 8 ? i : i / 2));
        rle_put(r, r->b->bits == 8 ? v : (i % 2 ? v & 15 : v >> 4));
    }
    r->at += (bytes + 1) & ~(size_t)1;
}

/* false: the end of the picture or of the data */
static bool rle_step(struct rle *r)
{
    if (r->at + 2 > r->b->size || r->y >= r->b->height)
        return false;
    unsigned count = r->b->bytes[r->at], value = r->b->bytes[r->at + 1];
    r->at += 2;
    if (count) {
        for (unsigned i = 0; i < count; i++)
            rle_put(r, r->b->bits == 8 ? value : (i % 2 ? value & 15 : value >> 4));
        return true;
    }
    if (value == 0) {
        r->x = 0;
        r->y++;
    } else if (value == 1) {
        return false;
    } else if (value == 2) {
        uint64_t x = (uint64_t)r->x + u8(r->b, r->at);
        r->x = x < r->b->width ? (uint32_t)x : r->b->width;
        r->y += u8(r->b, r->at + 1);
        r->at += 2;
    } else {
        rle_literal(r, value);
    }
    return true;
}

static int read_rle(const struct bmp *b, struct pm_raster *raster, uint8_t *line, struct pm_error *err)
{
    struct rle r = {.b = b, .at = b->pixels_at};
    if (b->pixels_at + 2 > b->size)
        return 0; /* no row: pm_raster_finish says so */
    r.indices = calloc(b->height, b->width);
    if (!r.indices)
        return pm_fail(err, PM_ENOMEM, "needs %zu MB for its pixels", ((size_t)b->width * b->height) >> 20);
    while (rle_step(&r)) {
    }
    for (uint32_t y = 0; y < b->height; y++) {
        const uint8_t *row = r.indices + (size_t)(b->height - 1 - y) * b->width;
        for (uint32_t x = 0; x < b->width; x++)
            memcpy(line + 3 * (size_t)x, b->palette[row[x]], 3);
        pm_raster_row(raster, line);
    }
    free(r.indices);
    return 0;
}

static int render(void *document, uint32_t page, double dpi, struct pm_raster *raster, struct pm_error *err)
{
    const struct pm_single *single = document;
    struct bmp *b = pm_xalloc(sizeof *b);
    uint8_t *line = NULL;
    (void)page;
    (void)dpi;
    int rc = parse(single->source, b, err);
    if (rc == 0)
        rc = pm_picture_begin(&single->picture, &single->source->limits, b->width, b->height, 3, raster, err);
    if (rc == 0) {
        line = malloc((size_t)b->width * 3);
        if (!line)
            rc = pm_fail(err, PM_ENOMEM, "cannot be decoded: out of memory");
        else if (b->compression == BI_RLE8 || b->compression == BI_RLE4)
            rc = read_rle(b, raster, line, err);
        else
            read_plain(b, raster, line);
    }
    if (rc == 0)
        rc = pm_raster_finish(raster, NULL, err);
    free(line);
    free(b);
    return rc;
}

const struct pm_loader pm_loader_bmp = {
    .format = PM_FORMAT_BMP,
    .header = header,
    .size = pm_single_size,
    .render = render,
    .close = pm_single_close,
};
