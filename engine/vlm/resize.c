/* Bicubic resizing with antialias on bytes (image.h), bit for bit the uint8 kernel behind
 * torch.nn.functional.interpolate(mode="bicubic", antialias=True): weights as 16-bit integers with as many
 * fraction bits as their largest allows, sums in 32 bits, rounded to bytes after each of two passes. A pass
 * whose side does not change is left out.
 *
 * Both passes run over lanes that lie side by side in memory: the vertical one over the bytes of a row, the
 * horizontal one over the same byte of STRIP rows, which are turned for it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/vlm/image.h"

enum {
    STRIP = 16,          /* rows turned at once */
    CHUNK = 256,         /* bytes of a row summed at once */
    PRECISION_MAX = 22,  /* fraction bits of the weights at most */
    WEIGHT_END = 1 << 15 /* the largest weight must stay below */
};

/* What one side's output positions are made of: position i sums count[i] input positions from first[i] on,
 * with weights[i * width ...] / 2^precision. */
struct taps {
    int outputs, width, precision;
    int *first, *count;
    int16_t *weights;
    void *storage;
};

/* The cubic convolution kernel with a = -0.5. */
static double cubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    if (x < 2.0)
        return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
    return 0.0;
}

static int most_precision(double largest)
{
    int precision = 0;
    while (precision < PRECISION_MAX && (int)(0.5 + largest * (1 << (precision + 1))) < WEIGHT_END)
        precision++;
    return precision;
}

/* Window and real weights of output position i; returns the largest weight. */
static double set_window(struct taps *t, double *weights, int i, int in, double scale)
{
    double support = scale >= 1.0 ? 2.0 * scale : 2.0, inverse = scale >= 1.0 ? 1.0 / scale : 1.0;
    double centre = scale * (i + 0.5), total = 0, largest = 0;
    int64_t first = (int64_t)(centre - support + 0.5), end = (int64_t)(centre + support + 0.5);
    first = first < 0 ? 0 : first;
    end = end > in ? in : end;
    int64_t count = end - first;
    count = count < 0 ? 0 : count > t->width ? t->width : count;
    for (int64_t k = 0; k < count; k++) {
        weights[k] = cubic(((double)(k + first) - centre + 0.5) * inverse);
        total += weights[k];
    }
    for (int64_t k = 0; k < count && total != 0; k++) {
        weights[k] /= total;
        largest = fmax(largest, weights[k]);
    }
    t->first[i] = (int)first;
    t->count[i] = (int)count;
    return largest;
}

static int make_taps(int in, int out, struct taps *t, struct pm_error *err)
{
    *t = (struct taps){.outputs = out};
    double scale = (double)in / out;
    t->width = (int)ceil(scale >= 1.0 ? 2.0 * scale : 2.0) * 2 + 1;
    size_t outputs = (size_t)out, weights = outputs * (size_t)t->width;
    void *real;
    int rc = pm_alloc_array(1, weights * sizeof(int16_t) + 2 * outputs * sizeof(int), &t->storage, err);
    if (rc)
        return rc;
    rc = pm_alloc_array(weights, sizeof(double), &real, err);
    if (rc) {
        free(t->storage);
        return rc;
    }
    t->first = t->storage;
    t->count = t->first + outputs;
    t->weights = (int16_t *)(void *)(t->count + outputs);
    double largest = 0, *w = real;
    for (int i = 0; i < out; i++)
        largest = fmax(largest, set_window(t, w + (size_t)i * (size_t)t->width, i, in, scale));
    t->precision = most_precision(largest);
    double one = 1 << t->precision;
    for (int i = 0; i < out; i++)
        for (int k = 0; k < t->count[i]; k++) {
            size_t at = (size_t)i * (size_t)t->width + (size_t)k;
            t->weights[at] = (int16_t)(w[at] < 0 ? w[at] * one - 0.5 : w[at] * one + 0.5);
        }
    free(real);
    return 0;
}

static uint8_t to_byte(int32_t sum, int precision)
{
    sum >>= precision;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* ---- passes ---- */

/* out byte i = the rows' bytes i, weighted. */
static void blend(const uint8_t *rows, size_t stride, const int16_t *weights, int count, int precision,
                  size_t bytes, uint8_t *out)
{
    int32_t sums[CHUNK];
    for (size_t at = 0; at < bytes; at += CHUNK) {
        size_t n = bytes - at < CHUNK ? bytes - at : CHUNK;
        for (size_t i = 0; i < n; i++)
            sums[i] = 1 << (precision - 1);
        for (int k = 0; k < count; k++) {
            const uint8_t *row = rows + (size_t)k * stride + at;
            int16_t w = weights[k];
            for (size_t i = 0; i < n; i++)
                sums[i] += (int16_t)row[i] * w;
        }
        for (size_t i = 0; i < n; i++)
            out[at + i] = to_byte(sums[i], precision);
    }
}

static void resize_rows(const uint8_t *in, size_t stride, size_t bytes, const struct taps *t, uint8_t *out)
{
    for (int y = 0; y < t->outputs; y++)
        blend(in + (size_t)t->first[y] * stride, stride, t->weights + (size_t)y * (size_t)t->width,
              t->count[y], t->precision, bytes, out + (size_t)y * bytes);
}

/* turned[b][r] = byte b of row r. Rows after the last are those of the last. */
static void turn_strip(const uint8_t *in, size_t stride, size_t rows, size_t bytes, int16_t (*turned)[STRIP])
{
    for (size_t r = 0; r < STRIP; r++) {
        const uint8_t *row = in + (r < rows ? r : rows - 1) * stride;
        for (size_t b = 0; b < bytes; b++)
            turned[b][r] = row[b];
    }
}

static void resize_strip(const int16_t (*turned)[STRIP], size_t channels, const struct taps *t, size_t rows,
                         size_t out_stride, uint8_t *out)
{
    for (int x = 0; x < t->outputs; x++) {
        const int16_t *weights = t->weights + (size_t)x * (size_t)t->width;
        for (size_t c = 0; c < channels; c++) {
            const int16_t(*from)[STRIP] = turned + (size_t)t->first[x] * channels + c;
            int32_t sums[STRIP];
            for (size_t r = 0; r < STRIP; r++)
                sums[r] = 1 << (t->precision - 1);
            for (int k = 0; k < t->count[x]; k++)
                for (size_t r = 0; r < STRIP; r++)
                    sums[r] += from[(size_t)k * channels][r] * weights[k];
            for (size_t r = 0; r < rows; r++)
                out[r * out_stride + (size_t)x * channels + c] = to_byte(sums[r], t->precision);
        }
    }
}

static int resize_columns(const struct pm_image *in, const struct taps *t, uint8_t *out, struct pm_error *err)
{
    size_t channels = (size_t)in->channels, bytes = (size_t)in->width_px * channels;
    size_t rows = (size_t)in->height_px, out_bytes = (size_t)t->outputs * channels;
    void *storage;
    int rc = pm_alloc_array(bytes, sizeof(int16_t[STRIP]), &storage, err);
    if (rc)
        return rc;
    int16_t(*turned)[STRIP] = storage;
    for (size_t y = 0; y < rows; y += STRIP) {
        size_t n = rows - y < STRIP ? rows - y : STRIP;
        turn_strip(in->pixels + y * in->stride_bytes, in->stride_bytes, n, bytes, turned);
        resize_strip((const int16_t(*)[STRIP])turned, channels, t, n, out_bytes, out + y * out_bytes);
    }
    free(storage);
    return 0;
}

/* ---- the whole ---- */

static int resize_both(const struct pm_image *in, struct pm_image *out, struct pm_error *err)
{
    struct taps columns = {0}, rows = {0};
    bool has_columns = in->width_px != out->width_px, has_rows = in->height_px != out->height_px;
    size_t out_bytes = out->stride_bytes, count = (size_t)in->height_px;
    void *between = NULL;
    int rc = has_columns ? make_taps(in->width_px, out->width_px, &columns, err) : 0;
    if (rc == 0 && has_rows)
        rc = make_taps(in->height_px, out->height_px, &rows, err);
    if (rc)
        goto done;
    if (!has_columns) {
        resize_rows(in->pixels, in->stride_bytes, out_bytes, &rows, out->owned);
    } else if (!has_rows) {
        rc = resize_columns(in, &columns, out->owned, err);
    } else if ((rc = pm_alloc_array(count, out_bytes, &between, err)) == 0 &&
               (rc = resize_columns(in, &columns, between, err)) == 0) {
        resize_rows(between, out_bytes, out_bytes, &rows, out->owned);
    }
done:
    free(between);
    free(columns.storage);
    free(rows.storage);
    return rc;
}

int pm_resize_bicubic(const struct pm_image *image, int width_px, int height_px, struct pm_image *out,
                      struct pm_error *err)
{
    *out = (struct pm_image){0};
    if (!image->pixels || image->width_px < 1 || image->height_px < 1 ||
        (image->channels != 1 && image->channels != 3) ||
        image->stride_bytes < (size_t)image->width_px * (size_t)image->channels)
        return pm_fail(err, PM_EINVAL, "resize of a picture of %d x %d pixels, %d channels: not a picture",
                       image->width_px, image->height_px, image->channels);
    int rc = pm_image_alloc(width_px, height_px, image->channels, out, err);
    if (rc)
        return pm_fail_prefix(err, "resize to %d x %d", width_px, height_px);
    if (width_px == image->width_px && height_px == image->height_px) {
        for (size_t y = 0; y < (size_t)height_px; y++)
            memcpy(out->owned + y * out->stride_bytes, image->pixels + y * image->stride_bytes,
                   out->stride_bytes);
        return 0;
    }
    rc = resize_both(image, out, err);
    if (rc)
        pm_image_free(out);
    return rc;
}
