/* The size rule, normalising and cutting (image.h). */
#include "engine/vlm/image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define ASPECT_MAX 200.0

static int check_config(const struct pm_vision_config *v, struct pm_error *err)
{
    if (v->patch < 1 || v->patch > 256 || v->merge < 1 || v->merge > 16 || v->temporal < 1 ||
        v->temporal > 16 || v->in_channels != 3)
        return pm_fail(err, PM_EINVAL,
                       "image processor with patches of %d px, merged by %d, %d frames, %d channels: outside "
                       "of what is supported (1..256, 1..16, 1..16, 3)",
                       v->patch, v->merge, v->temporal, v->in_channels);
    return 0;
}

/* ---- size ---- */

/* Sides in pixels and the operations on them, all in double in the reference's order, so that every rounding
 * falls the same way. */
struct sides {
    double width, height;
};

static struct sides nearest(struct sides s, double factor)
{
    return (struct sides){rint(s.width / factor) * factor, rint(s.height / factor) * factor};
}

static struct sides shrunk(struct sides s, double factor, double frames, double max_pixels)
{
    double beta = sqrt(frames * s.height * s.width / max_pixels);
    return (struct sides){fmax(factor, floor(s.width / beta / factor) * factor),
                          fmax(factor, floor(s.height / beta / factor) * factor)};
}

static struct sides grown(struct sides s, double factor, double frames, double min_pixels)
{
    double beta = sqrt(min_pixels / (frames * s.height * s.width));
    return (struct sides){ceil(s.width * beta / factor) * factor, ceil(s.height * beta / factor) * factor};
}

int pm_smart_resize(const struct pm_vlm_config *config, int width_px, int height_px, int *width_out,
                    int *height_out, struct pm_error *err)
{
    int rc = check_config(&config->vision, err);
    if (rc)
        return rc;
    if (width_px < 1 || height_px < 1 || width_px > PM_IMAGE_MAX_SIDE_PX || height_px > PM_IMAGE_MAX_SIDE_PX)
        return pm_fail(err, PM_EINVAL, "picture of %d x %d pixels: sides must be 1 to %d", width_px,
                       height_px, PM_IMAGE_MAX_SIDE_PX);
    double factor = config->vision.patch * config->vision.merge, frames = config->vision.temporal;
    double max_pixels = (double)config->max_pixels, min_pixels = (double)config->min_pixels;
    struct sides s = {width_px, height_px};
    if (s.width < factor || s.height < factor) {
        double scale = fmax(factor / s.height, factor / s.width);
        s.width = trunc(s.width * scale);
        s.height = trunc(s.height * scale);
    }
    double aspect = fmax(s.width, s.height) / fmin(s.width, s.height);
    if (!(aspect <= ASPECT_MAX))
        return pm_fail(err, PM_ELIMIT,
                       "picture of %d x %d pixels: one side is %.4g times the other and the model reads at "
                       "most %.0f times: cut it into shorter pieces",
                       width_px, height_px, aspect, ASPECT_MAX);
    struct sides r = nearest(s, factor);
    double pixels = frames * r.height * r.width;
    if (pixels > max_pixels)
        r = shrunk(s, factor, frames, max_pixels);
    else if (pixels < min_pixels)
        r = grown(s, factor, frames, min_pixels);
    if (!(r.width <= PM_IMAGE_MAX_SIDE_PX && r.height <= PM_IMAGE_MAX_SIDE_PX &&
          r.width * r.height * 3 <= (double)PM_IMAGE_MAX_BYTES))
        return pm_fail(
            err, PM_ELIMIT,
            "picture of %d x %d pixels would be resized to %.0f x %.0f (the model's bounds are %lld "
            "and %lld pixels in %d frames): too large for a picture here",
            width_px, height_px, r.width, r.height, (long long)config->min_pixels,
            (long long)config->max_pixels, config->vision.temporal);
    *width_out = (int)r.width;
    *height_out = (int)r.height;
    return 0;
}

/* ---- patches ---- */

/* The value of every byte in every channel (R, G, B): (x - 255 mean) / (255 std), each operation in f32. */
static void set_values(const struct pm_vlm_config *config, float table[3][256])
{
    for (int c = 0; c < 3; c++) {
        float mean = config->mean[c] * 255.0f, std = config->std[c] * 255.0f;
        for (int x = 0; x < 256; x++)
            table[c][x] = ((float)x - mean) / std;
    }
}

/* Where one patch comes from: the byte of its top left pixel. */
struct source {
    const uint8_t *pixels;
    size_t stride_bytes;
    int channels;
};

/* One patch: channel, time, y, x. The frames of a still are equal. */
static void cut_patch(struct source from, const struct pm_vision_config *v, float table[3][256], float *out)
{
    size_t side = (size_t)v->patch, frame = side * side, step = (size_t)from.channels;
    for (size_t c = 0; c < 3; c++) {
        const uint8_t *channel = from.pixels + (from.channels == 3 ? 2 - c : 0); /* B, G, R -> R, G, B */
        const float *values = table[c];
        float *to = out + c * (size_t)v->temporal * frame;
        for (size_t y = 0; y < side; y++)
            for (size_t x = 0; x < side; x++)
                to[y * side + x] = values[channel[y * from.stride_bytes + x * step]];
        for (size_t t = 1; t < (size_t)v->temporal; t++)
            memcpy(to + t * frame, to, frame * sizeof *to);
    }
}

int pm_patches_cut(const struct pm_vlm_config *config, const struct pm_image *image, struct pm_patches *out,
                   struct pm_error *err)
{
    const struct pm_vision_config *v = &config->vision;
    *out = (struct pm_patches){0};
    int rc = check_config(v, err);
    if (rc)
        return rc;
    int side = v->patch * v->merge;
    if (!image->pixels || (image->channels != 1 && image->channels != 3) || image->width_px < 1 ||
        image->height_px < 1 || image->width_px % side || image->height_px % side)
        return pm_fail(err, PM_EINVAL,
                       "picture of %d x %d pixels, %d channels: cannot be cut into blocks of %d pixels",
                       image->width_px, image->height_px, image->channels, side);
    size_t rows = (size_t)(image->height_px / v->patch), columns = (size_t)(image->width_px / v->patch);
    size_t values = 3 * (size_t)v->temporal * (size_t)v->patch * (size_t)v->patch, merge = (size_t)v->merge;
    void *storage;
    rc = pm_alloc_array(rows * columns, values * sizeof(float), &storage, err);
    if (rc)
        return pm_fail_prefix(err, "%zu x %zu patches", rows, columns);
    *out = (struct pm_patches){(int)rows, (int)columns, storage};
    float table[3][256], *to = storage;
    set_values(config, table);
    struct source from = {.stride_bytes = image->stride_bytes, .channels = image->channels};
    size_t down = (size_t)v->patch * image->stride_bytes, right = (size_t)v->patch * (size_t)image->channels;
    for (size_t block_row = 0; block_row < rows; block_row += merge)
        for (size_t block_column = 0; block_column < columns; block_column += merge)
            for (size_t i = 0; i < merge * merge; i++, to += values) {
                size_t row = block_row + i / merge, column = block_column + i % merge;
                from.pixels = image->pixels + row * down + column * right;
                cut_patch(from, v, table, to);
            }
    return 0;
}

int pm_patches_resize(const struct pm_vlm_config *config, const struct pm_image *image, struct pm_image *out,
                      struct pm_error *err)
{
    *out = (struct pm_image){0};
    int width, height;
    int rc = pm_smart_resize(config, image->width_px, image->height_px, &width, &height, err);
    if (rc)
        return rc;
    if (width != image->width_px || height != image->height_px)
        return pm_resize_bicubic(image, width, height, out, err);
    *out = *image;
    out->owned = NULL;
    return 0;
}

int pm_patches_make(const struct pm_vlm_config *config, const struct pm_image *image, struct pm_patches *out,
                    struct pm_error *err)
{
    *out = (struct pm_patches){0};
    struct pm_image resized;
    int rc = pm_patches_resize(config, image, &resized, err);
    if (!rc)
        rc = pm_patches_cut(config, &resized, out, err);
    pm_image_free(&resized);
    return rc;
}

void pm_patches_free(struct pm_patches *patches)
{
    free(patches->values);
    *patches = (struct pm_patches){0};
}
