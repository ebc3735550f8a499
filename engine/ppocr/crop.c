/* Cutting a quad out of a picture (crop.h): a homography, sampled with a bicubic filter (Keys 1981, a =
 * -0.75) over a replicated border, as cv2.warpPerspective does it in version 5: exact coordinates, float
 * weights. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/ppocr/crop.h"

typedef float v4f __attribute__((vector_size(16)));
typedef uint8_t v4u8 __attribute__((vector_size(4)));

#define TALL 1.5

/* ---- geometry ---- */

static float distance(const struct pm_quad *q, int a, int b)
{
    float dx = q->x[a] - q->x[b], dy = q->y[a] - q->y[b];
    return sqrtf(dx * dx + dy * dy);
}

static int longer(float a, float b)
{
    float length = a > b ? a : b;
    return !(length >= 1) ? 0 : length >= 1e9f ? 1000000000 : (int)length;
}

void pm_crop_size(const struct pm_quad *quad, int *width_out, int *height_out)
{
    *width_out = longer(distance(quad, 0, 1), distance(quad, 3, 2));
    *height_out = longer(distance(quad, 0, 3), distance(quad, 1, 2));
}

/* Crop pixel (x, y) -> picture: ((a x + b y + c) / w, (d x + e y + f) / w), w = g x + h y + 1. */
struct homography {
    double a, b, c, d, e, f, g, h;
};

/* Maps (0, 0), (width, 0), (width, height), (0, height) to the quad's corners (Heckbert 1989). False when
 * three corners are on a line. */
static bool solve(const struct pm_quad *q, double width, double height, struct homography *out)
{
    double x0 = q->x[0], x1 = q->x[1], x2 = q->x[2], x3 = q->x[3];
    double y0 = q->y[0], y1 = q->y[1], y2 = q->y[2], y3 = q->y[3];
    double dx1 = x1 - x2, dx2 = x3 - x2, sum_x = x0 - x1 + x2 - x3;
    double dy1 = y1 - y2, dy2 = y3 - y2, sum_y = y0 - y1 + y2 - y3;
    double area = dx1 * dy2 - dx2 * dy1;
    if (!(fabs(area) > 0))
        return false;
    double g = (sum_x * dy2 - dx2 * sum_y) / area, h = (dx1 * sum_y - sum_x * dy1) / area;
    *out = (struct homography){(x1 - x0 + g * x1) / width,
                               (x3 - x0 + h * x3) / height,
                               x0,
                               (y1 - y0 + g * y1) / width,
                               (y3 - y0 + h * y3) / height,
                               y0,
                               g / width,
                               h / height};
    return true;
}

/* Where the pixels of a row of the crop lie in the picture: the pixel before them, and how far beyond it. */
struct places {
    int32_t *x, *y;
    float *beyond_x, *beyond_y;
};

/* Beyond 4 pixels outside nothing changes any more; also catches NaN. */
static inline double bound(double v, double size)
{
    v = v > -4 ? v : -4;
    return v < size + 4 ? v : size + 4;
}

static void place_row(const struct homography *m, int row, int width, double image_width, double image_height,
                      const struct places *out)
{
    double row_x = m->b * row + m->c, row_y = m->e * row + m->f, row_w = m->h * row + 1;
    int32_t *restrict at_x = out->x, *restrict at_y = out->y;
    float *restrict beyond_x = out->beyond_x, *restrict beyond_y = out->beyond_y;
    for (int i = 0; i < width; i++) {
        double inverse = 1 / (m->g * i + row_w); /* infinite on the horizon: bound() takes care of it */
        double x = bound((m->a * i + row_x) * inverse, image_width) + 4;
        double y = bound((m->d * i + row_y) * inverse, image_height) + 4;
        int32_t whole_x = (int32_t)x, whole_y = (int32_t)y; /* not negative: cutting is flooring */
        at_x[i] = whole_x - 4;
        at_y[i] = whole_y - 4;
        beyond_x[i] = (float)(x - whole_x);
        beyond_y[i] = (float)(y - whole_y);
    }
}

/* ---- sampling ---- */

/* Weights of the four taps around a point `t` of a pixel beyond the second one. */
static inline v4f cubic_weights(float t)
{
    const v4f c3 = {-0.75f, 1.25f, -1.25f, 0.75f}, c2 = {1.5f, -2.25f, 1.5f, -0.75f};
    const v4f c1 = {-0.75f, 0, 0.75f, 0}, c0 = {0, 1, 0, 0};
    return ((c3 * t + c2) * t + c1) * t + c0;
}

static inline v4f load4(const uint8_t *p)
{
    v4u8 bytes;
    memcpy(&bytes, p, 4);
    return __builtin_convertvector(bytes, v4f);
}

static inline uint8_t to_byte(float v)
{
    v += 0.5f;
    v = v > 0 ? v : 0;
    return (uint8_t)(int)(v < 255 ? v : 255);
}

/* p: the top-left one of the 4 x 4 taps; across and down: how far beyond the second one. */
static inline uint8_t blend_grey(const uint8_t *p, size_t stride, float across, float down)
{
    v4f rows = cubic_weights(down);
    v4f sum = load4(p) * rows[0] + load4(p + stride) * rows[1] + load4(p + 2 * stride) * rows[2] +
              load4(p + 3 * stride) * rows[3];
    sum *= cubic_weights(across);
    return to_byte((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

/* The byte after the last tap of a row is read too. */
static inline void blend_bgr(const uint8_t *p, size_t stride, float across, float down, uint8_t *out)
{
    v4f rows = cubic_weights(down), columns = cubic_weights(across);
    v4f taps[4] = {{0}, {0}, {0}, {0}};
    for (int row = 0; row < 4; row++)
        for (int k = 0; k < 4; k++)
            taps[k] += load4(p + (size_t)row * stride + 3 * (size_t)k) * rows[row];
    v4f sum = (taps[0] * columns[0] + taps[1] * columns[1]) + (taps[2] * columns[2] + taps[3] * columns[3]);
    for (int c = 0; c < 3; c++)
        out[c] = to_byte(sum[c]);
}

static inline int clamp_index(int i, int size)
{
    return i < 0 ? 0 : i >= size ? size - 1 : i;
}

/* Taps that reach over the border: gathered with the outermost pixels repeated. */
static void blend_at_border(const struct pm_image *image, int x, int y, float across, float down,
                            uint8_t *out)
{
    enum { ROW = 16 }; /* four pixels of three bytes, and the byte that blend_bgr reads after them */
    uint8_t taps[4 * ROW] = {0};
    size_t channels = (size_t)image->channels;
    for (int j = 0; j < 4; j++) {
        const uint8_t *row =
            image->pixels + (size_t)clamp_index(y - 1 + j, image->height_px) * image->stride_bytes;
        for (int i = 0; i < 4; i++)
            memcpy(taps + j * ROW + (size_t)i * channels,
                   row + (size_t)clamp_index(x - 1 + i, image->width_px) * channels, channels);
    }
    if (channels == 1)
        *out = blend_grey(taps, ROW, across, down);
    else
        blend_bgr(taps, ROW, across, down, out);
}

/* All taps of pixel (x, y) lie in the picture, and so does a byte after them (for blend_bgr). */
static inline bool is_interior(const struct pm_image *image, int x, int y)
{
    return x >= 1 && y >= 1 && x + 3 < image->width_px && y + 2 < image->height_px;
}

static void sample_row(const struct pm_image *image, const struct places *at, int width, uint8_t *out)
{
    size_t channels = (size_t)image->channels, stride = image->stride_bytes;
    for (int i = 0; i < width; i++, out += channels) {
        int x = at->x[i], y = at->y[i];
        if (!is_interior(image, x, y)) {
            blend_at_border(image, x, y, at->beyond_x[i], at->beyond_y[i], out);
            continue;
        }
        const uint8_t *p = image->pixels + (size_t)(y - 1) * stride + (size_t)(x - 1) * channels;
        if (channels == 1)
            *out = blend_grey(p, stride, at->beyond_x[i], at->beyond_y[i]);
        else
            blend_bgr(p, stride, at->beyond_x[i], at->beyond_y[i], out);
    }
}

/* ---- upright quads of whole pixels: every weight is 0 or 1, so that a copy gives the same bytes ---- */

static bool is_pixel_rect(const struct pm_quad *q)
{
    for (int i = 0; i < 4; i++)
        if (!(fabsf(q->x[i]) < PM_IMAGE_MAX_SIDE_PX && fabsf(q->y[i]) < PM_IMAGE_MAX_SIDE_PX) ||
            q->x[i] != floorf(q->x[i]) || q->y[i] != floorf(q->y[i]))
            return false;
    return q->x[0] == q->x[3] && q->x[1] == q->x[2] && q->y[0] == q->y[1] && q->y[2] == q->y[3] &&
           q->x[1] > q->x[0] && q->y[3] > q->y[0];
}

static void copy_rect(const struct pm_image *image, int left, int top, struct pm_image *out)
{
    size_t channels = (size_t)image->channels;
    int inside_from = left < 0 ? -left : 0; /* columns of the crop that lie in the picture */
    int inside_to = image->width_px - left < out->width_px ? image->width_px - left : out->width_px;
    for (int y = 0; y < out->height_px; y++) {
        const uint8_t *row =
            image->pixels + (size_t)clamp_index(top + y, image->height_px) * image->stride_bytes;
        uint8_t *to = out->owned + (size_t)y * out->stride_bytes;
        if (inside_from < inside_to)
            memcpy(to + (size_t)inside_from * channels, row + (size_t)(left + inside_from) * channels,
                   (size_t)(inside_to - inside_from) * channels);
        for (int x = 0; x < out->width_px; x++) {
            if (x == inside_from && inside_from < inside_to)
                x = inside_to;
            if (x < out->width_px)
                memcpy(to + (size_t)x * channels,
                       row + (size_t)clamp_index(left + x, image->width_px) * channels, channels);
        }
    }
}

/* ---- */

/* Counter-clockwise by 90 degrees: the right column becomes the top row. */
static int turn_left(struct pm_image *image, struct pm_error *err)
{
    struct pm_image turned;
    int rc = pm_image_alloc(image->height_px, image->width_px, image->channels, &turned, err);
    if (rc)
        return rc;
    size_t channels = (size_t)image->channels;
    for (int y = 0; y < turned.height_px; y++)
        for (int x = 0; x < turned.width_px; x++)
            memcpy(turned.owned + (size_t)y * turned.stride_bytes + (size_t)x * channels,
                   image->pixels + (size_t)x * image->stride_bytes +
                       (size_t)(image->width_px - 1 - y) * channels,
                   channels);
    pm_image_free(image);
    *image = turned;
    return 0;
}

static int sample_quad(const struct pm_image *image, const struct homography *m, struct pm_image *out,
                       struct pm_error *err)
{
    size_t width = (size_t)out->width_px;
    void *storage;
    int rc = pm_alloc_array(width, 2 * (sizeof(int32_t) + sizeof(float)), &storage, err);
    if (rc)
        return rc;
    int32_t *whole = storage;
    float *beyond = (float *)(void *)(whole + 2 * width);
    struct places at = {whole, whole + width, beyond, beyond + width};
    for (int y = 0; y < out->height_px; y++) {
        place_row(m, y, out->width_px, image->width_px, image->height_px, &at);
        sample_row(image, &at, out->width_px, out->owned + (size_t)y * out->stride_bytes);
    }
    free(storage);
    return 0;
}

int pm_crop_quad(const struct pm_image *image, const struct pm_quad *quad, int turn_tall,
                 struct pm_image *out, struct pm_error *err)
{
    *out = (struct pm_image){0};
    if (!image->pixels || image->width_px < 1 || image->height_px < 1 ||
        (image->channels != 1 && image->channels != 3))
        return pm_fail(err, PM_EINVAL, "crop from a picture of %d x %d pixels, %d channels: not a picture",
                       image->width_px, image->height_px, image->channels);
    for (int i = 0; i < 4; i++)
        if (!isfinite(quad->x[i]) || !isfinite(quad->y[i]))
            return pm_fail(err, PM_ELIMIT, "crop: corner %d of the quad is not a number", i);
    int width, height;
    pm_crop_size(quad, &width, &height);
    struct homography m;
    if (width < 1 || height < 1 || !solve(quad, width, height, &m))
        return pm_fail(err, PM_ELIMIT,
                       "crop: quad (%g, %g) (%g, %g) (%g, %g) (%g, %g) is thinner than a pixel or has three "
                       "corners on a line",
                       (double)quad->x[0], (double)quad->y[0], (double)quad->x[1], (double)quad->y[1],
                       (double)quad->x[2], (double)quad->y[2], (double)quad->x[3], (double)quad->y[3]);
    int rc = pm_image_alloc(width, height, image->channels, out, err);
    if (rc)
        return pm_fail_prefix(err, "crop");
    if (is_pixel_rect(quad))
        copy_rect(image, (int)quad->x[0], (int)quad->y[0], out);
    else
        rc = sample_quad(image, &m, out, err);
    if (rc == 0 && turn_tall && (double)height / width >= TALL)
        rc = turn_left(out, err);
    if (rc)
        pm_image_free(out);
    return rc;
}
