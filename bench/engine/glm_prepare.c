#include "bench/engine/glm_prepare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <jpeglib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "engine/vlm/image.h"
#include "layoutd/decode/loader.h"

enum { QUALITY = 90, LINE_PX = 24, INK_PX = 14, WORD_PX = 70 };

/* Lines of words: blocks of dark strokes with blanks between them. */
static void draw_row(JSAMPLE *row, int width, int y)
{
    memset(row, 250, (size_t)width * 3);
    for (int x = 0; x < width; x++) {
        bool is_ink =
            y % LINE_PX < INK_PX && x % WORD_PX < WORD_PX - 10 && (x * 7 + y * 3 + x * y / 5) % 11 < 3;
        if (is_ink)
            memset(row + (size_t)x * 3, 30, 3);
    }
}

int glm_prepare_new(int width_px, int height_px, struct glm_prepare *out, struct pm_error *err)
{
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr errors;
    *out = (struct glm_prepare){0};
    void *row;
    int rc = pm_alloc_array((size_t)width_px * 3, 1, &row, err);
    if (rc)
        return rc;
    c.err = jpeg_std_error(&errors);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &out->jpeg, &out->jpeg_bytes);
    c.image_width = (JDIMENSION)width_px;
    c.image_height = (JDIMENSION)height_px;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, QUALITY, TRUE);
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
        JSAMPROW rows[1] = {row};
        draw_row(row, width_px, (int)c.next_scanline);
        jpeg_write_scanlines(&c, rows, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    free(row);
    return 0;
}

void glm_prepare_free(struct glm_prepare *prepare)
{
    free(prepare->jpeg);
    *prepare = (struct glm_prepare){0};
}

int glm_prepare_run(const struct glm_prepare *prepare, const struct pm_vlm_config *config, double *out,
                    struct pm_error *err)
{
    struct pm_source source = {.bytes = prepare->jpeg,
                               .size = prepare->jpeg_bytes,
                               .limits = {.memory_bytes = (uint64_t)1 << 30,
                                          .max_source_px = (uint64_t)1 << 30,
                                          .max_page_px = (uint64_t)1 << 28,
                                          .max_pages = 1,
                                          .pdf_longest_px = 16384,
                                          .picture_longest_px = 16384}};
    void *document = NULL;
    uint32_t pages;
    char title[PM_WIRE_TITLE_BYTES];
    struct pm_raster raster = {0};
    struct pm_patches patches = {0};
    int64_t start = pm_clock_us();
    int rc = pm_loader_open(&pm_loader_jpeg, &source, &document, &pages, title, err);
    if (!rc)
        rc = pm_loader_jpeg.render(document, 0, 0, &raster, err);
    if (!rc) { /* sealed: mapped as layoutd maps it */
        size_t bytes = (size_t)raster.width_px * raster.height_px * raster.channels;
        void *pixels = mmap(NULL, bytes, PROT_READ, MAP_SHARED, raster.memfd, 0);
        if (pixels == MAP_FAILED)
            rc = pm_fail(err, PM_ENOMEM, "cannot map the page");
        struct pm_image image = {.pixels = pixels,
                                 .width_px = (int)raster.width_px,
                                 .height_px = (int)raster.height_px,
                                 .channels = (int)raster.channels,
                                 .stride_bytes = (size_t)raster.width_px * raster.channels};
        if (!rc) {
            rc = pm_patches_make(config, &image, &patches, err);
            munmap(pixels, bytes);
        }
    }
    *out = (double)(pm_clock_us() - start) / 1e6;
    pm_patches_free(&patches);
    pm_raster_free(&raster);
    if (document)
        pm_loader_jpeg.close(document);
    return rc;
}
