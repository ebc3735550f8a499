#include "proto/crop.h"

#include <stdlib.h>
#include <string.h>

#include <lz4.h>

/* Sizes come from two checked numbers of at most 65535 and a third of at most 3: no overflow in 64 bits. */
static int check_size(uint64_t width, uint64_t height, uint64_t channels, int code, uint64_t *raw_out,
                      struct pm_error *err)
{
    if (!width || width > PM_IMAGE_MAX_SIDE_PX || !height || height > PM_IMAGE_MAX_SIDE_PX ||
        (channels != 1 && channels != 3))
        return pm_fail(err, code, "a crop of %llu x %llu pixels in %llu channels cannot be",
                       (unsigned long long)width, (unsigned long long)height, (unsigned long long)channels);
    *raw_out = width * height * channels;
    if (*raw_out > PM_CROP_RAW_BYTES)
        return pm_fail(
            err, code == PM_EPROTO ? code : PM_ELIMIT,
            "a crop of %llu bytes is too large for a worker on another host, which takes %u; a lower "
            "--dpi makes it smaller",
            (unsigned long long)*raw_out, PM_CROP_RAW_BYTES);
    return 0;
}

int pm_crop_pack(const struct pm_sheet_crop *crop, struct pm_msg_lease *lease, struct pm_buf *out,
                 struct pm_error *err)
{
    const struct pm_image *image = &crop->image;
    uint64_t raw = 0;
    int rc = check_size((uint64_t)image->width_px, (uint64_t)image->height_px, (uint64_t)image->channels,
                        PM_EINVAL, &raw, err);
    if (!rc && crop->task > 255)
        rc = pm_fail(err, PM_EINVAL, "a crop has task %u, the largest is 255", crop->task);
    if (rc)
        return rc;
    size_t row = (size_t)image->width_px * (size_t)image->channels;
    const uint8_t *pixels = image->pixels;
    uint8_t *tight = NULL;
    if (image->stride_bytes != row) {
        pixels = tight = pm_xalloc((size_t)raw);
        for (int y = 0; y < image->height_px; y++)
            memcpy(tight + (size_t)y * row, image->pixels + (size_t)y * image->stride_bytes, row);
    }
    int bound = LZ4_compressBound((int)raw);
    char *block = pm_xalloc((size_t)bound);
    int size = LZ4_compress_default((const char *)pixels, block, (int)raw, bound);
    PM_ASSERT(size > 0);
    if ((unsigned)size > PM_FRAME_PAYLOAD_BYTES) {
        rc = pm_fail(err, PM_ELIMIT,
                     "a crop of %d packed bytes is too large for a worker on another host, which takes %u; a "
                     "lower --dpi makes it smaller",
                     size, PM_FRAME_PAYLOAD_BYTES);
    } else {
        pm_buf_append(out, block, (size_t)size);
        lease->crop_width = (uint32_t)image->width_px;
        lease->crop_height = (uint32_t)image->height_px;
        lease->crop_channels = (uint32_t)image->channels;
        lease->crop_task = crop->task;
        lease->crop_raw_bytes = (uint32_t)raw;
    }
    free(block);
    free(tight);
    return rc;
}

bool pm_crop_is_there(const struct pm_msg_lease *lease)
{
    return lease->crop_raw_bytes > 0;
}

int pm_crop_unpack(const struct pm_msg_lease *lease, struct pm_bytes payload, struct pm_sheet_crop *out,
                   struct pm_error *err)
{
    uint64_t raw = 0;
    *out = (struct pm_sheet_crop){0};
    int rc = check_size(lease->crop_width, lease->crop_height, lease->crop_channels, PM_EPROTO, &raw, err);
    if (!rc && (raw != lease->crop_raw_bytes || payload.size > PM_FRAME_PAYLOAD_BYTES))
        rc = pm_fail(err, PM_EPROTO, "the lease announces a crop of %u bytes in %zu, its sizes make %llu",
                     lease->crop_raw_bytes, payload.size, (unsigned long long)raw);
    if (rc)
        return rc;
    char *pixels = malloc((size_t)raw);
    if (!pixels)
        return pm_fail(err, PM_ENOMEM, "no memory for a crop of %llu bytes", (unsigned long long)raw);
    int size = LZ4_decompress_safe((const char *)payload.data, pixels, (int)payload.size, (int)raw);
    if (size < 0 || (uint64_t)size != raw) {
        free(pixels);
        return pm_fail(err, PM_EPROTO, "the crop's %zu packed bytes do not unpack to %llu", payload.size,
                       (unsigned long long)raw);
    }
    out->image = (struct pm_image){.pixels = (const uint8_t *)pixels,
                                   .width_px = (int)lease->crop_width,
                                   .height_px = (int)lease->crop_height,
                                   .channels = (int)lease->crop_channels,
                                   .stride_bytes = (size_t)lease->crop_width * lease->crop_channels};
    out->task = lease->crop_task;
    return 0;
}
