/* A crop sheet: all crops of one page in one pixel blob, written by layoutd, mapped by workers and the
 * collector.
 *
 *   offset  size  field
 *        0     8  magic "PMSHEET1"
 *        8     8  task     (little endian, like all numbers) the page task and
 *       16     4  attempt  its attempt
 *       20     4  count    number of crops, at most PM_SHEET_MAX_CROPS
 *       24    32  x count: offset u64, width u32, height u32, stride u32, channels u8, task u8, 6 x 0
 *        -     -  pixels, each crop at a multiple of 64
 *
 * Valid: offset >= end of table, width and height 1..65535, channels 1 or 3, stride >= width * channels,
 * offset + stride * height <= size. A reader checks all of it before use. */
#ifndef PM_PROTO_SHEET_H
#define PM_PROTO_SHEET_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/image.h"
#include "proto/blob.h"

#define PM_SHEET_MAX_CROPS 20000

struct pm_sheet_crop {
    struct pm_image image; /* writer: source pixels (any stride); reader: view into the mapped blob */
    uint32_t
        task; /* enum pm_task of engine/reader.h, or PM_SHEET_PICTURE: for the collector, no recognition */
};
#define PM_SHEET_PICTURE 255u

int pm_sheet_write(struct pm_blobs *blobs, uint64_t task, uint32_t attempt, const struct pm_sheet_crop *crops,
                   size_t count, char *key_out, uint64_t *bytes_out, struct pm_error *err);

struct pm_sheet {
    struct pm_blob_map map;
    uint32_t count;
};
int pm_sheet_open(struct pm_blobs *blobs, const char *key, struct pm_sheet *out, struct pm_error *err);
int pm_sheet_crop(const struct pm_sheet *sheet, uint32_t index, struct pm_sheet_crop *out,
                  struct pm_error *err);
void pm_sheet_close(struct pm_sheet *sheet);

#endif
