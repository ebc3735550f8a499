#include "proto/sheet.h"

#include <string.h>

#define HEAD_BYTES  24u
#define ENTRY_BYTES 32u
#define ALIGN       64u

static const char magic[8] = {'P', 'M', 'S', 'H', 'E', 'E', 'T', '1'};

static void put_number(uint8_t *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_number(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static size_t align_up(size_t n)
{
    return (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

/* ---- writing ---- */

static int check_source(const struct pm_sheet_crop *crop, size_t index, struct pm_error *err)
{
    const struct pm_image *i = &crop->image;
    if (!i->pixels || i->width_px < 1 || i->width_px > PM_IMAGE_MAX_SIDE_PX || i->height_px < 1 ||
        i->height_px > PM_IMAGE_MAX_SIDE_PX || (i->channels != 1 && i->channels != 3) ||
        i->stride_bytes < (size_t)i->width_px * (size_t)i->channels)
        return pm_fail(err, PM_EINVAL, "crop %zu of %d x %d pixels in %d channels cannot go on a sheet",
                       index, i->width_px, i->height_px, i->channels);
    if (crop->task > 255)
        return pm_fail(err, PM_EINVAL, "crop %zu has task %u, the largest is 255", index, crop->task);
    return 0;
}

static void copy_rows(uint8_t *to, const struct pm_image *image, size_t row_bytes)
{
    for (int y = 0; y < image->height_px; y++)
        memcpy(to + (size_t)y * row_bytes, image->pixels + (size_t)y * image->stride_bytes, row_bytes);
}

int pm_sheet_write(struct pm_blobs *blobs, uint64_t task, uint32_t attempt, const struct pm_sheet_crop *crops,
                   size_t count, char *key_out, uint64_t *bytes_out, struct pm_error *err)
{
    struct pm_blob_draft draft;
    if (count > PM_SHEET_MAX_CROPS)
        return pm_fail(err, PM_ELIMIT, "%zu crops on one page, the limit is %d", count, PM_SHEET_MAX_CROPS);
    size_t total = HEAD_BYTES + ENTRY_BYTES * count;
    for (size_t i = 0; i < count; i++) {
        int rc = check_source(&crops[i], i, err);
        if (rc)
            return rc;
        /* At most 20000 crops of 65535 * 65535 * 3 bytes: no overflow in 64 bits. */
        total = align_up(total) + (size_t)crops[i].image.width_px * (size_t)crops[i].image.channels *
                                      (size_t)crops[i].image.height_px;
    }
    int rc = pm_blob_draft(blobs, PM_BLOB_PIXELS, total, &draft, err);
    if (rc)
        return rc;
    memcpy(draft.data, magic, sizeof magic);
    put_number(draft.data + 8, task, 8);
    put_number(draft.data + 16, attempt, 4);
    put_number(draft.data + 20, count, 4);
    size_t at = HEAD_BYTES + ENTRY_BYTES * count;
    for (size_t i = 0; i < count; i++) {
        const struct pm_image *image = &crops[i].image;
        size_t row_bytes = (size_t)image->width_px * (size_t)image->channels;
        uint8_t *entry = draft.data + HEAD_BYTES + ENTRY_BYTES * i;
        at = align_up(at);
        put_number(entry, at, 8);
        put_number(entry + 8, (uint64_t)image->width_px, 4);
        put_number(entry + 12, (uint64_t)image->height_px, 4);
        put_number(entry + 16, row_bytes, 4);
        entry[20] = (uint8_t)image->channels;
        entry[21] = (uint8_t)crops[i].task;
        copy_rows(draft.data + at, image, row_bytes);
        at += row_bytes * (size_t)image->height_px;
    }
    rc = pm_blob_finish(blobs, &draft, key_out, err);
    if (!rc && bytes_out)
        *bytes_out = total;
    return rc;
}

/* ---- reading ---- */

static int read_entry(const struct pm_sheet *sheet, uint32_t index, struct pm_sheet_crop *out,
                      struct pm_error *err)
{
    const uint8_t *entry = sheet->map.data + HEAD_BYTES + (size_t)ENTRY_BYTES * index;
    uint64_t offset = get_number(entry, 8), width = get_number(entry + 8, 4);
    uint64_t height = get_number(entry + 12, 4), stride = get_number(entry + 16, 4);
    unsigned channels = entry[20];
    uint64_t table_end = HEAD_BYTES + (uint64_t)ENTRY_BYTES * sheet->count, size = sheet->map.bytes;
    bool is_valid = width >= 1 && width <= PM_IMAGE_MAX_SIDE_PX && height >= 1 &&
                    height <= PM_IMAGE_MAX_SIDE_PX && (channels == 1 || channels == 3) &&
                    stride >= width * channels && offset % ALIGN == 0 && offset >= table_end &&
                    offset <= size && stride * height <= size - offset;
    for (unsigned i = 22; i < ENTRY_BYTES; i++)
        is_valid &= entry[i] == 0;
    if (!is_valid)
        return pm_fail(err, PM_EFORMAT, "crop %u of the sheet is damaged: %llu x %llu at %llu", index,
                       (unsigned long long)width, (unsigned long long)height, (unsigned long long)offset);
    out->image = (struct pm_image){
        .pixels = sheet->map.data + offset,
        .width_px = (int)width,
        .height_px = (int)height,
        .channels = (int)channels,
        .stride_bytes = (size_t)stride,
    };
    out->task = entry[21];
    return 0;
}

static int check_sheet(struct pm_sheet *sheet, const char *key, struct pm_error *err)
{
    const struct pm_blob_map *map = &sheet->map;
    if (map->bytes < HEAD_BYTES || memcmp(map->data, magic, sizeof magic))
        return pm_fail(err, PM_EFORMAT, "blob %s is not a crop sheet", key);
    uint64_t count = get_number(map->data + 20, 4);
    if (count > PM_SHEET_MAX_CROPS || count * ENTRY_BYTES > map->bytes - HEAD_BYTES)
        return pm_fail(err, PM_EFORMAT, "crop sheet %s of %zu bytes cannot hold %llu crops", key, map->bytes,
                       (unsigned long long)count);
    sheet->count = (uint32_t)count;
    int rc = 0;
    struct pm_sheet_crop crop;
    for (uint32_t i = 0; i < sheet->count && !rc; i++)
        rc = read_entry(sheet, i, &crop, err);
    return rc;
}

int pm_sheet_open(struct pm_blobs *blobs, const char *key, struct pm_sheet *out, struct pm_error *err)
{
    *out = (struct pm_sheet){0};
    int rc = pm_blob_map(blobs, key, &out->map, err);
    if (!rc)
        rc = check_sheet(out, key, err);
    if (rc)
        pm_sheet_close(out);
    return rc;
}

int pm_sheet_crop(const struct pm_sheet *sheet, uint32_t index, struct pm_sheet_crop *out,
                  struct pm_error *err)
{
    *out = (struct pm_sheet_crop){0};
    if (index >= sheet->count)
        return pm_fail(err, PM_EINVAL, "crop %u of a sheet with %u", index, sheet->count);
    return read_entry(sheet, index, out, err);
}

void pm_sheet_close(struct pm_sheet *sheet)
{
    pm_blob_unmap(&sheet->map);
    sheet->count = 0;
}
