/* libFuzzer: the picture loaders in this process, on any bytes. PDF is left out: Poppler is fuzzed by others,
 * and its crashes stay in the sandboxed child. Seeds: tests/data/decode.
 *
 *   cmake --preset fuzz && cmake --build --preset fuzz --target fuzz_decode
 *   build/fuzz/fuzz_decode -max_len=65536 CORPUS tests/data/decode */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "layoutd/decode/exif.h"
#include "layoutd/decode/loader.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void render_all(const struct pm_loader *loader, void *document, uint32_t page_count)
{
    for (uint32_t page = 0; page < page_count && page < 4; page++) {
        struct pm_raster raster = {0};
        struct pm_wire_size expected;
        if (loader->size(document, page, 200, &expected, NULL) == 0 &&
            loader->render(document, page, 200, &raster, NULL) == 0) {
            PM_ASSERT(raster.width_px == expected.width_px && raster.height_px == expected.height_px);
            PM_ASSERT(raster.sealed && (raster.channels == 1 || raster.channels == 3));
        }
        pm_raster_free(&raster);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    enum pm_format format = pm_sniff(bytes, size);
    char text[64], title[PM_WIRE_TITLE_BYTES] = "";
    struct pm_exif exif = {1, 0, 0};
    pm_sniff_describe(bytes, size, text, sizeof text);
    pm_exif_parse(bytes, size, &exif);
    if (format == PM_FORMAT_UNKNOWN || format == PM_FORMAT_PDF)
        return 0;
    const struct pm_loader *loader = pm_loader_for(format);
    struct pm_source source = {.bytes = bytes,
                               .size = size,
                               .limits = {.max_source_px = 1000000,
                                          .max_page_px = 200000,
                                          .max_pages = 50,
                                          .pdf_longest_px = 500,
                                          .picture_longest_px = 700}};
    void *document;
    uint32_t page_count = 0;
    if (pm_loader_open(loader, &source, &document, &page_count, title, NULL) == 0) {
        render_all(loader, document, page_count);
        loader->close(document);
    }
    return 0;
}
