#include "layoutd/ink.h"

#include <leptonica/allheaders.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define TILE         16 /* px; larger than a stroke, smaller than a shadow */
#define PAPER_RANK   85 /* percentile of a tile that counts as paper */
#define CONTRAST     56 /* of 256: how much darker than paper ink is, as a share of the paper ... */
#define CONTRAST_MIN 22 /* ... and at least in grey levels */

int pm_grey_of(const struct pm_image *image, struct pm_image *out, struct pm_error *err)
{
    if (image->channels == 1) {
        *out = *image;
        out->owned = NULL;
        return 0;
    }
    int rc = pm_image_alloc(image->width_px, image->height_px, 1, out, err);
    if (rc)
        return rc;
    for (int y = 0; y < image->height_px; y++) {
        const uint8_t *from = image->pixels + (size_t)y * image->stride_bytes;
        uint8_t *to = out->owned + (size_t)y * out->stride_bytes;
        for (int x = 0; x < image->width_px; x++, from += 3)
            to[x] = (uint8_t)((from[0] + 2 * from[1] + from[2] + 2) >> 2);
    }
    return 0;
}

static uint8_t tile_paper(const struct pm_image *grey, int left, int top)
{
    uint16_t histogram[64] = {0};
    int right = left + TILE < grey->width_px ? left + TILE : grey->width_px;
    int bottom = top + TILE < grey->height_px ? top + TILE : grey->height_px, n = 0;
    for (int y = top; y < bottom; y += 2) {
        const uint8_t *row = grey->pixels + (size_t)y * grey->stride_bytes;
        for (int x = left; x < right; x += 2, n++)
            histogram[row[x] >> 2]++;
    }
    int above = n * (100 - PAPER_RANK) / 100, level = 63;
    for (; level > 0 && (above -= histogram[level]) >= 0; level--)
        ;
    return (uint8_t)(level * 4 + 3);
}

/* Thresholds, one a tile: paper is the brightest of a tile and its neighbours, so that a tile full of bold
 * type still knows its paper. */
static void tile_thresholds(const uint8_t *paper, int columns, int rows, uint8_t *out)
{
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) {
            int best = 0;
            for (int y = r ? r - 1 : 0; y <= r + 1 && y < rows; y++)
                for (int x = c ? c - 1 : 0; x <= c + 1 && x < columns; x++)
                    if (paper[y * columns + x] > best)
                        best = paper[y * columns + x];
            int contrast = best * CONTRAST >> 8;
            if (contrast < CONTRAST_MIN)
                contrast = CONTRAST_MIN;
            out[r * columns + c] = (uint8_t)(best > contrast ? best - contrast : 0);
        }
}

static void straight_row(const struct pm_image *grey, const uint8_t *thresholds, int y, uint32_t *words,
                         int width)
{
    const uint8_t *row = grey->pixels + (size_t)y * grey->stride_bytes;
    for (int x = 0; x < width;) {
        uint32_t word = 0;
        int end = x + 32 < width ? x + 32 : width;
        for (int bit = 31; x < end;) {
            int limit = thresholds[x / TILE], stop = (x / TILE + 1) * TILE;
            for (stop = stop < end ? stop : end; x < stop; x++, bit--)
                word |= (uint32_t)(row[x] < limit) << bit;
        }
        *words++ = word;
    }
}

/* Source places step by a constant along an upright row: 32.32 fixed point. */
static void turned_row(const struct pm_image *grey, const uint8_t *thresholds, int tile_columns,
                       const struct pm_map3 *map, int y, uint32_t *words, int width)
{
    double fx, fy;
    pm_map3_apply(map, 0.5, y + 0.5, &fx, &fy);
    int64_t sx = (int64_t)(fx * 4294967296.0), sy = (int64_t)(fy * 4294967296.0);
    int64_t dx = (int64_t)(map->m[0] * 4294967296.0), dy = (int64_t)(map->m[3] * 4294967296.0);
    for (int x = 0; x < width;) {
        uint32_t word = 0;
        int end = x + 32 < width ? x + 32 : width;
        for (int bit = 31; x < end; x++, bit--, sx += dx, sy += dy) {
            int px = (int)(sx >> 32), py = (int)(sy >> 32);
            if ((unsigned)px >= (unsigned)grey->width_px || (unsigned)py >= (unsigned)grey->height_px)
                continue;
            int limit = thresholds[py / TILE * tile_columns + px / TILE];
            word |= (uint32_t)(grey->pixels[(size_t)py * grey->stride_bytes + (size_t)px] < limit) << bit;
        }
        *words++ = word;
    }
}

static bool is_identity(const struct pm_map3 *map, const struct pm_image *grey, int width, int height)
{
    struct pm_map3 one = pm_map3_identity();
    return !memcmp(&one, map, sizeof one) && grey->width_px == width && grey->height_px == height;
}

int pm_ink_find(const struct pm_image *grey, const struct pm_map3 *to_source, int width_px, int height_px,
                struct pm_ink *out, struct pm_error *err)
{
    *out = (struct pm_ink){.width_px = width_px, .height_px = height_px};
    int columns = (grey->width_px + TILE - 1) / TILE, rows = (grey->height_px + TILE - 1) / TILE;
    size_t tiles = (size_t)columns * (size_t)rows;
    uint8_t *paper = NULL;
    void *memory = NULL;
    int rc = pm_alloc_array(tiles, 2, &memory, err);
    if (rc)
        return rc;
    paper = memory;
    uint8_t *thresholds = paper + tiles;
    size_t histogram[256] = {0};
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++)
            histogram[paper[r * columns + c] = tile_paper(grey, c * TILE, r * TILE)]++;
    size_t below = 0;
    for (int level = 0; level < 256 && below * 2 < tiles; level++) {
        below += histogram[level];
        out->paper = (uint8_t)level;
    }
    tile_thresholds(paper, columns, rows, thresholds);
    out->bits = pixCreate(width_px, height_px, 1);
    if (!out->bits) {
        free(memory);
        return pm_fail(err, PM_ENOMEM, "no memory for the ink of a page of %d x %d px", width_px, height_px);
    }
    l_uint32 *data = pixGetData(out->bits);
    int wpl = pixGetWpl(out->bits);
    bool straight = is_identity(to_source, grey, width_px, height_px);
    for (int y = 0; y < height_px; y++) {
        l_uint32 *words = data + (size_t)y * (size_t)wpl;
        if (straight)
            straight_row(grey, thresholds + (size_t)(y / TILE) * (size_t)columns, y, words, width_px);
        else
            turned_row(grey, thresholds, columns, to_source, y, words, width_px);
    }
    free(memory);
    return 0;
}

void pm_ink_free(struct pm_ink *ink)
{
    pixDestroy(&ink->bits);
}

static int clamp(int v, int low, int high)
{
    return v < low ? low : v > high ? high : v;
}

/* Mask of the bits of word w (pixels 32w .. 32w+31) that lie in [left, right). */
static uint32_t word_mask(int w, int left, int right)
{
    int from = clamp(left - 32 * w, 0, 32), to = clamp(right - 32 * w, 0, 32);
    if (from >= to)
        return 0;
    uint32_t high = from ? 0xffffffffu >> from : 0xffffffffu;
    uint32_t low = to == 32 ? 0 : 0xffffffffu >> to;
    return high & ~low;
}

long pm_ink_count(const struct pm_ink *ink, int left, int top, int right, int bottom)
{
    left = clamp(left, 0, ink->width_px), right = clamp(right, left, ink->width_px);
    top = clamp(top, 0, ink->height_px), bottom = clamp(bottom, top, ink->height_px);
    const l_uint32 *data = pixGetData(ink->bits);
    int wpl = pixGetWpl(ink->bits);
    long count = 0;
    for (int w = left / 32; w * 32 < right; w++) {
        uint32_t mask = word_mask(w, left, right);
        for (int y = top; y < bottom; y++)
            count += __builtin_popcount(data[(size_t)y * (size_t)wpl + (size_t)w] & mask);
    }
    return count;
}

long pm_ink_runs(const struct pm_ink *ink, int left, int top, int right, int bottom, long *runs_out)
{
    left = clamp(left, 0, ink->width_px), right = clamp(right, left, ink->width_px);
    top = clamp(top, 0, ink->height_px), bottom = clamp(bottom, top, ink->height_px);
    const l_uint32 *data = pixGetData(ink->bits);
    int wpl = pixGetWpl(ink->bits);
    long count = 0, runs = 0;
    for (int y = top; y < bottom; y++) {
        const l_uint32 *words = data + (size_t)y * (size_t)wpl;
        uint32_t before = 0; /* last pixel of the word before */
        for (int w = left / 32; w * 32 < right; w++) {
            uint32_t word = words[w] & word_mask(w, left, right);
            count += __builtin_popcount(word);
            runs += __builtin_popcount(word & ~(word >> 1 | before << 31));
            before = word & 1;
        }
    }
    *runs_out = runs;
    return count;
}

void pm_ink_profile(const struct pm_ink *ink, int left, int top, int right, int bottom, uint16_t *columns,
                    uint16_t *rows)
{
    const l_uint32 *data = pixGetData(ink->bits);
    int wpl = pixGetWpl(ink->bits);
    for (int y = top; y < bottom; y++) {
        const l_uint32 *words = data + (size_t)y * (size_t)wpl;
        for (int w = left / 32; w * 32 < right; w++) {
            uint32_t word = words[w] & word_mask(w, left, right);
            if (rows)
                rows[y - top] = (uint16_t)(rows[y - top] + __builtin_popcount(word));
            while (word) {
                int bit = __builtin_clz(word);
                columns[32 * w + bit - left]++;
                word &= ~(0x80000000u >> bit);
            }
        }
    }
}

void pm_ink_clear(struct pm_ink *ink, int left, int top, int right, int bottom)
{
    left = clamp(left, 0, ink->width_px), right = clamp(right, left, ink->width_px);
    top = clamp(top, 0, ink->height_px), bottom = clamp(bottom, top, ink->height_px);
    l_uint32 *data = pixGetData(ink->bits);
    int wpl = pixGetWpl(ink->bits);
    for (int w = left / 32; w * 32 < right; w++) {
        uint32_t keep = ~word_mask(w, left, right);
        for (int y = top; y < bottom; y++)
            data[(size_t)y * (size_t)wpl + (size_t)w] &= keep;
    }
}
