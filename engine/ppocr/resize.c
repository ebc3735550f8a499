/* Resizing pictures (crop.h): bilinear with the fixed-point rule of cv2.resize, and area averaging. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/ppocr/crop.h"

#define WEIGHT_BITS 11
#define WEIGHT_ONE  (1 << WEIGHT_BITS)

static int check_source(const struct pm_image *image, struct pm_error *err)
{
    if (!image->pixels || image->width_px < 1 || image->height_px < 1 ||
        (image->channels != 1 && image->channels != 3) ||
        image->stride_bytes < (size_t)image->width_px * (size_t)image->channels)
        return pm_fail(err, PM_EINVAL, "resize of a picture of %d x %d pixels, %d channels: not a picture",
                       image->width_px, image->height_px, image->channels);
    return 0;
}

static void copy_rows(const struct pm_image *image, uint8_t *out)
{
    size_t bytes = (size_t)image->width_px * (size_t)image->channels;
    for (int y = 0; y < image->height_px; y++)
        memcpy(out + (size_t)y * bytes, image->pixels + (size_t)y * image->stride_bytes, bytes);
}

/* ---- bilinear ---- */

/* Where an output column or row comes from: two neighbours and their weights in 1 / 2048. */
struct tap {
    int first, second;
    int16_t first_weight, second_weight;
};

static int16_t to_weight(float share)
{
    return (int16_t)lrintf(share * WEIGHT_ONE);
}

/* is_column: beyond the outermost centres columns take the edge pixel alone, rows blend it with itself, which
 * rounds differently. */
static void set_taps(struct tap *taps, int in, int out, int is_column)
{
    double scale = 1.0 / ((double)out / in);
    for (int i = 0; i < out; i++) {
        float at = (float)((i + 0.5) * scale - 0.5);
        int first = (int)floorf(at);
        float share = at - (float)first;
        if (is_column && first < 0)
            first = 0, share = 0;
        if (is_column && first >= in - 1)
            first = in - 1, share = 0;
        int second = first + 1;
        taps[i].first = first < 0 ? 0 : first >= in ? in - 1 : first;
        taps[i].second = second >= in ? in - 1 : second;
        taps[i].first_weight = to_weight(1.0f - share);
        taps[i].second_weight = to_weight(share);
    }
}

static void stretch_grey(const uint8_t *row, const struct tap *taps, int width, int32_t *out)
{
    for (int x = 0; x < width; x++)
        out[x] = row[taps[x].first] * taps[x].first_weight + row[taps[x].second] * taps[x].second_weight;
}

static void stretch_bgr(const uint8_t *row, const struct tap *taps, int width, int32_t *out)
{
    for (int x = 0; x < width; x++) {
        const uint8_t *a = row + 3 * (size_t)taps[x].first, *b = row + 3 * (size_t)taps[x].second;
        for (int c = 0; c < 3; c++)
            out[3 * x + c] = a[c] * taps[x].first_weight + b[c] * taps[x].second_weight;
    }
}

/* The vertical blend; the shifts in this order are cv2's. Both weights are at most 2048 and the rows at most
 * 255 * 2048, so that every product fits 32 bits. */
static void blend_rows(const int32_t *restrict a, const int32_t *restrict b, int32_t weight_a,
                       int32_t weight_b, size_t count, uint8_t *restrict out)
{
    for (size_t i = 0; i < count; i++) {
        int32_t sum = ((weight_a * (a[i] >> 4)) >> 16) + ((weight_b * (b[i] >> 4)) >> 16);
        out[i] = (uint8_t)((sum + 2) >> 2);
    }
}

static void resize_rows(const struct pm_image *image, const struct tap *columns, const struct tap *rows,
                        int32_t *stretched, struct pm_image *out)
{
    size_t count = (size_t)out->width_px * (size_t)out->channels;
    int32_t *lines[2] = {stretched, stretched + count};
    int held[2] = {-1, -1}; /* source rows that lie in lines */
    for (int y = 0; y < out->height_px; y++) {
        int wanted[2] = {rows[y].first, rows[y].second};
        if (held[1] == wanted[0] || held[0] == wanted[1]) {
            int32_t *line = lines[0];
            lines[0] = lines[1];
            lines[1] = line;
            int row = held[0];
            held[0] = held[1];
            held[1] = row;
        }
        for (int k = 0; k < 2; k++) {
            if (held[k] == wanted[k])
                continue;
            const uint8_t *source = image->pixels + (size_t)wanted[k] * image->stride_bytes;
            if (image->channels == 1)
                stretch_grey(source, columns, out->width_px, lines[k]);
            else
                stretch_bgr(source, columns, out->width_px, lines[k]);
            held[k] = wanted[k];
        }
        blend_rows(lines[0], lines[1], rows[y].first_weight, rows[y].second_weight, count,
                   out->owned + (size_t)y * out->stride_bytes);
    }
}

int pm_resize_bilinear(const struct pm_image *image, int width_px, int height_px, struct pm_image *out,
                       struct pm_error *err)
{
    *out = (struct pm_image){0};
    int rc = check_source(image, err);
    if (rc == 0)
        rc = pm_image_alloc(width_px, height_px, image->channels, out, err);
    if (rc)
        return pm_fail_prefix(err, "resize to %d x %d", width_px, height_px);
    if (width_px == image->width_px && height_px == image->height_px) {
        copy_rows(image, out->owned);
        return 0;
    }
    size_t row_values = (size_t)width_px * (size_t)image->channels;
    size_t taps = (size_t)width_px + (size_t)height_px;
    void *storage;
    rc = pm_alloc_array(1, taps * sizeof(struct tap) + 2 * row_values * sizeof(int32_t), &storage, err);
    if (rc) {
        pm_image_free(out);
        return rc;
    }
    struct tap *columns = storage, *rows = columns + width_px;
    set_taps(columns, image->width_px, width_px, 1);
    set_taps(rows, image->height_px, height_px, 0);
    resize_rows(image, columns, rows, (int32_t *)(void *)(rows + height_px), out);
    free(storage);
    return 0;
}

/* ---- area ---- */

/* The source pixels [first, last] that an output pixel covers and how much of the outer two. */
struct span {
    int first, last;
    float first_share, last_share;
};

static struct span span_of(int i, int in, int out)
{
    /* Whole numbers in units of 1 / out of a source pixel. */
    int64_t start = (int64_t)i * in, end = start + in;
    struct span s = {.first = (int)(start / out), .last = (int)((end - 1) / out)};
    s.first_share = (float)((int64_t)(s.first + 1) * out - start) / (float)out;
    s.last_share = (float)(end - (int64_t)s.last * out) / (float)out;
    if (s.first == s.last)
        s.first_share = s.last_share = (float)in / (float)out;
    return s;
}

static void add_row(const uint8_t *restrict row, size_t count, float weight, float *restrict sums)
{
    for (size_t i = 0; i < count; i++)
        sums[i] += weight * (float)row[i];
}

static void average_columns(const float *sums, int in, int out, int channels, float scale, uint8_t *pixels)
{
    for (int x = 0; x < out; x++) {
        struct span s = span_of(x, in, out);
        for (int c = 0; c < channels; c++) {
            float sum = s.first_share * sums[(size_t)s.first * (size_t)channels + (size_t)c];
            for (int k = s.first + 1; k < s.last; k++)
                sum += sums[(size_t)k * (size_t)channels + (size_t)c];
            if (s.last > s.first)
                sum += s.last_share * sums[(size_t)s.last * (size_t)channels + (size_t)c];
            float value = sum * scale + 0.5f;
            pixels[(size_t)x * (size_t)channels + (size_t)c] = value >= 255 ? 255 : (uint8_t)value;
        }
    }
}

int pm_resize_area(const struct pm_image *image, int width_px, int height_px, struct pm_image *out,
                   struct pm_error *err)
{
    *out = (struct pm_image){0};
    int rc = check_source(image, err);
    if (rc)
        return rc;
    if (width_px > image->width_px || height_px > image->height_px)
        return pm_fail(err, PM_EINVAL, "area resize of a picture of %d x %d to %d x %d: it only shrinks",
                       image->width_px, image->height_px, width_px, height_px);
    rc = pm_image_alloc(width_px, height_px, image->channels, out, err);
    if (rc)
        return pm_fail_prefix(err, "area resize to %d x %d", width_px, height_px);
    size_t count = (size_t)image->width_px * (size_t)image->channels;
    void *storage;
    rc = pm_alloc_array(count, sizeof(float), &storage, err);
    if (rc) {
        pm_image_free(out);
        return rc;
    }
    float *sums = storage;
    float scale = (float)(((double)width_px / image->width_px) * ((double)height_px / image->height_px));
    for (int y = 0; y < height_px; y++) {
        struct span s = span_of(y, image->height_px, height_px);
        memset(sums, 0, count * sizeof *sums);
        for (int row = s.first; row <= s.last; row++) {
            float weight = row == s.first ? s.first_share : row == s.last ? s.last_share : 1.0f;
            add_row(image->pixels + (size_t)row * image->stride_bytes, count, weight, sums);
        }
        average_columns(sums, image->width_px, width_px, image->channels, scale,
                        out->owned + (size_t)y * out->stride_bytes);
    }
    free(storage);
    return 0;
}
