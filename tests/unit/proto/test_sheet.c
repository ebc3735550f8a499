/* Crop sheets: what is written is read, and no mutant of the header leads outside the blob. */
#include "fixture.h"

#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "proto/sheet.h"

struct room {
    char *dir;
    struct pm_blobs *blobs;
    struct pm_error err;
    char key[PM_BLOB_KEY_SIZE];
};

static int set_up(void **state)
{
    struct room *r = calloc(1, sizeof *r);
    r->dir = scratch_make();
    if (pm_blobs_open(r->dir, r->dir, &r->blobs, &r->err))
        fail_msg("%s", r->err.text);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct room *r = *state;
    pm_blobs_free(&r->blobs);
    scratch_remove(r->dir);
    free(r);
    return 0;
}

static uint8_t source[64 * 64 * 3];

static void write_two(struct room *r, uint64_t *bytes_out)
{
    for (size_t i = 0; i < sizeof source; i++)
        source[i] = (uint8_t)(i * 7 + i / 64);
    struct pm_sheet_crop crops[2] = {
        /* A view with a stride wider than its rows, and a grey one. */
        {.image = {.pixels = source + 30, .width_px = 5, .height_px = 7, .channels = 3, .stride_bytes = 192},
         .task = 2},
        {.image = {.pixels = source, .width_px = 64, .height_px = 3, .channels = 1, .stride_bytes = 64},
         .task = PM_SHEET_PICTURE},
    };
    if (pm_sheet_write(r->blobs, 0x1122334455667788, 9, crops, 2, r->key, bytes_out, &r->err))
        fail_msg("%s", r->err.text);
}

static void crops_come_back(void **state)
{
    struct room *r = *state;
    struct pm_sheet sheet;
    struct pm_sheet_crop crop;
    uint64_t bytes = 0;
    write_two(r, &bytes);
    assert_int_equal(r->key[0], 'p');
    assert_int_equal(bytes, 128 + 128 + 192); /* 24 + 64 of table, 105 and 192 of pixels at multiples of 64 */
    assert_int_equal(pm_sheet_open(r->blobs, r->key, &sheet, &r->err), 0);
    assert_int_equal(sheet.count, 2);
    assert_int_equal(sheet.map.bytes, bytes);
    static const uint8_t head[] = {'P',  'M',  'S',  'H',  'E', 'E', 'T', '1', 0x88, 0x77, 0x66, 0x55,
                                   0x44, 0x33, 0x22, 0x11, 9,   0,   0,   0,   2,    0,    0,    0};
    assert_memory_equal(sheet.map.data, head, sizeof head);
    assert_int_equal(pm_sheet_crop(&sheet, 0, &crop, &r->err), 0);
    assert_int_equal(crop.task, 2);
    assert_int_equal(crop.image.width_px, 5);
    assert_int_equal(crop.image.height_px, 7);
    assert_int_equal(crop.image.channels, 3);
    assert_null(crop.image.owned);
    assert_int_equal((uintptr_t)crop.image.pixels % 64, 0);
    for (size_t y = 0; y < 7; y++)
        assert_memory_equal(crop.image.pixels + y * crop.image.stride_bytes, source + 30 + y * 192, 15);
    assert_int_equal(pm_sheet_crop(&sheet, 1, &crop, &r->err), 0);
    assert_int_equal(crop.task, PM_SHEET_PICTURE);
    assert_memory_equal(crop.image.pixels, source, 192);
    assert_int_equal(pm_sheet_crop(&sheet, 2, &crop, &r->err), PM_EINVAL);
    pm_sheet_close(&sheet);
    /* Another attempt has another key, so that removing one's sheet never removes the other's. */
    char first[PM_BLOB_KEY_SIZE];
    strcpy(first, r->key);
    assert_int_equal(pm_sheet_write(r->blobs, 1, 1, NULL, 0, r->key, NULL, &r->err), 0);
    assert_int_equal(pm_sheet_open(r->blobs, r->key, &sheet, &r->err), 0);
    assert_int_equal(sheet.count, 0);
    pm_sheet_close(&sheet);
    assert_int_equal(pm_sheet_write(r->blobs, 1, 2, NULL, 0, first, NULL, &r->err), 0);
    assert_string_not_equal(first, r->key);
}

static void impossible_crops_are_not_written(void **state)
{
    struct room *r = *state;
    const struct pm_image good = {
        .pixels = source, .width_px = 8, .height_px = 8, .channels = 3, .stride_bytes = 24};
    for (int i = 0; i < 7; i++) {
        struct pm_sheet_crop crop = {.image = good};
        if (i == 0)
            crop.image.width_px = 0;
        else if (i == 1)
            crop.image.height_px = 65536;
        else if (i == 2)
            crop.image.channels = 4;
        else if (i == 3)
            crop.image.stride_bytes = 23;
        else if (i == 4)
            crop.image.pixels = NULL;
        else if (i == 5)
            crop.task = 256;
        else
            crop.image.height_px = -1;
        assert_int_equal(pm_sheet_write(r->blobs, 1, 1, &crop, 1, r->key, NULL, &r->err), PM_EINVAL);
    }
    assert_int_equal(pm_sheet_write(r->blobs, 1, 1, NULL, PM_SHEET_MAX_CROPS + 1, r->key, NULL, &r->err),
                     PM_ELIMIT);
}

/* Stores bytes as a blob and opens it as a sheet. */
static int open_bytes(struct room *r, const uint8_t *data, size_t bytes, struct pm_sheet *sheet)
{
    assert_int_equal(pm_blob_put(r->blobs, PM_BLOB_PIXELS, data, bytes, r->key, &r->err), 0);
    return pm_sheet_open(r->blobs, r->key, sheet, &r->err);
}

static void put_le(uint8_t *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static void mutants_are_refused(void **state)
{
    struct room *r = *state;
    struct pm_sheet sheet;
    uint64_t bytes = 0;
    write_two(r, &bytes);
    struct pm_blob_map map;
    assert_int_equal(pm_blob_map(r->blobs, r->key, &map, &r->err), 0);
    uint8_t *copy = malloc(map.bytes);
    static const struct {
        unsigned at, bytes;
        uint64_t value;
    } mutants[] = {
        {0, 1, 'X'},                     /* magic */
        {7, 1, '2'},                     /* version */
        {20, 4, 3},                      /* one crop more: its entry is pixels */
        {20, 4, PM_SHEET_MAX_CROPS + 1}, /* beyond the limit */
        {20, 4, UINT32_MAX},             /* 2^32 * 32 bytes of table */
        {24, 8, 64},                     /* offset inside the table */
        {24, 8, 129},                    /* not a multiple of 64 */
        {24, 8, 1 << 20},                /* behind the end */
        {24, 8, UINT64_MAX - 63},        /* offset + size overflows */
        {32, 4, 0},
        {32, 4, 65536},
        {32, 4, UINT32_MAX}, /* width */
        {36, 4, 0},
        {36, 4, 65536},
        {36, 4, 65535}, /* height */
        {40, 4, 14},
        {40, 4, UINT32_MAX}, /* stride */
        {44, 1, 0},
        {44, 1, 2},
        {44, 1, 4}, /* channels */
        {46, 1, 1},
        {55, 1, 1}, /* bytes that are zero */
    };
    for (size_t i = 0; i < sizeof mutants / sizeof mutants[0]; i++) {
        memcpy(copy, map.data, map.bytes);
        put_le(copy + mutants[i].at, mutants[i].value, mutants[i].bytes);
        int rc = open_bytes(r, copy, map.bytes, &sheet);
        if (rc != PM_EFORMAT)
            fail_msg("mutant %zu gave %d", i, rc);
        assert_null(sheet.map.data); /* nothing stays open */
    }
    for (size_t n = 0; n < map.bytes; n++)
        assert_int_equal(open_bytes(r, map.data, n, &sheet), PM_EFORMAT);
    free(copy);
    pm_blob_unmap(&map);
}

#define ROOM(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROOM(crops_come_back),
        ROOM(impossible_crops_are_not_written),
        ROOM(mutants_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
