/* Crops inside leases: what goes in comes out, and nothing else does. */
#include "fixture.h"

#include <stdlib.h>
#include <string.h>

#include "proto/crop.h"

/* A picture with a stride wider than its rows; the gaps must not travel. */
static struct pm_sheet_crop make_crop(int width, int height, int channels, uint8_t **pixels_out)
{
    size_t row = (size_t)width * (size_t)channels, stride = row + 5;
    uint8_t *pixels = pm_xalloc(stride * (size_t)height);
    for (int y = 0; y < height; y++)
        for (size_t x = 0; x < stride; x++)
            pixels[(size_t)y * stride + x] = (uint8_t)(x < row ? (size_t)y * 31 + x * 7 : 0xee);
    *pixels_out = pixels;
    return (struct pm_sheet_crop){.image = {.pixels = pixels,
                                            .width_px = width,
                                            .height_px = height,
                                            .channels = channels,
                                            .stride_bytes = stride},
                                  .task = 2};
}

static void crops_come_back(void **state)
{
    (void)state;
    static const int sizes[][3] = {{1, 1, 1}, {1, 65535, 1}, {65535, 1, 3}, {320, 48, 3}, {7, 5, 1}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t *pixels;
        struct pm_sheet_crop crop = make_crop(sizes[i][0], sizes[i][1], sizes[i][2], &pixels), back;
        struct pm_msg_lease lease = {0};
        struct pm_buf block = {0};
        struct pm_error err;
        assert_false(pm_crop_is_there(&lease));
        assert_int_equal(pm_crop_pack(&crop, &lease, &block, &err), 0);
        assert_true(pm_crop_is_there(&lease));
        assert_int_equal(pm_crop_unpack(&lease, (struct pm_bytes){block.data, block.size}, &back, &err), 0);
        assert_int_equal(back.image.width_px, sizes[i][0]);
        assert_int_equal(back.image.height_px, sizes[i][1]);
        assert_int_equal(back.image.channels, sizes[i][2]);
        assert_int_equal(back.task, 2);
        size_t row = (size_t)sizes[i][0] * (size_t)sizes[i][2];
        assert_int_equal(back.image.stride_bytes, row);
        for (int y = 0; y < sizes[i][1]; y++)
            assert_memory_equal(back.image.pixels + (size_t)y * row,
                                crop.image.pixels + (size_t)y * crop.image.stride_bytes, row);
        free((void *)(uintptr_t)back.image.pixels);
        free(pixels);
        pm_buf_free(&block);
    }
}

static void what_cannot_travel_is_refused(void **state)
{
    (void)state;
    uint8_t pixel[3] = {0};
    struct pm_sheet_crop crop = {.image = {.pixels = pixel, .width_px = 0, .height_px = 1, .channels = 1}};
    struct pm_msg_lease lease = {0};
    struct pm_buf block = {0};
    struct pm_error err;
    assert_int_equal(pm_crop_pack(&crop, &lease, &block, &err), PM_EINVAL);
    crop.image.width_px = 1;
    crop.image.channels = 2;
    assert_int_equal(pm_crop_pack(&crop, &lease, &block, &err), PM_EINVAL);
    crop.image = (struct pm_image){
        .pixels = pixel, .width_px = 65535, .height_px = 65535, .channels = 3, .stride_bytes = 3 * 65535};
    assert_int_equal(pm_crop_pack(&crop, &lease, &block, &err), PM_ELIMIT); /* before it is read */
    assert_int_equal(block.size, 0);
    assert_false(pm_crop_is_there(&lease));
}

static void hostile_leases_are_refused(void **state)
{
    (void)state;
    uint8_t *pixels;
    struct pm_sheet_crop crop = make_crop(40, 30, 3, &pixels), back;
    struct pm_msg_lease good = {0};
    struct pm_buf block = {0};
    struct pm_error err;
    assert_int_equal(pm_crop_pack(&crop, &good, &block, &err), 0);
    const struct pm_bytes payload = {block.data, block.size};
    for (int i = 0; i < 8; i++) {
        struct pm_msg_lease bad = good;
        uint32_t *fields[] = {&bad.crop_width, &bad.crop_height, &bad.crop_channels, &bad.crop_raw_bytes};
        *fields[i % 4] = i < 4 ? *fields[i % 4] + 1 : 0;
        assert_int_equal(pm_crop_unpack(&bad, payload, &back, &err), PM_EPROTO);
        assert_null(back.image.pixels);
    }
    struct pm_msg_lease huge = {.crop_width = 65535, .crop_height = 65535, .crop_channels = 1};
    huge.crop_raw_bytes = 65535u * 65535u;
    assert_int_equal(pm_crop_unpack(&huge, payload, &back, &err), PM_EPROTO); /* no memory is asked for */
    for (size_t n = 0; n < payload.size; n++)                                 /* cut short anywhere */
        assert_int_equal(pm_crop_unpack(&good, (struct pm_bytes){block.data, n}, &back, &err), PM_EPROTO);
    /* Damaged bytes give an error or other pixels, never more of them. */
    for (size_t n = 0; n < payload.size; n++) {
        block.data[n] ^= 0xff;
        if (!pm_crop_unpack(&good, payload, &back, &err))
            free((void *)(uintptr_t)back.image.pixels);
        block.data[n] ^= 0xff;
    }
    free(pixels);
    pm_buf_free(&block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(crops_come_back),
                                       cmocka_unit_test(what_cannot_travel_is_refused),
                                       cmocka_unit_test(hostile_leases_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
