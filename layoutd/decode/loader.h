/* One loader a format: from the bytes of a source file to pages and pixels. Runs inside the sandbox.
 *
 * Ownership: the source bytes are borrowed and outlive the document; open makes *document_out, close frees
 * it. Threads: one. Errors: texts end a sentence about the file ("is ...", "has ..."). A page that is damaged
 * but has some pixels is delivered with raster->warning set. A page that cannot be made is an error of that
 * page. */
#ifndef PM_LAYOUTD_DECODE_LOADER_H
#define PM_LAYOUTD_DECODE_LOADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/sniff.h"
#include "layoutd/decode/raster.h"
#include "layoutd/decode/wire.h"

struct pm_source {
    const uint8_t *bytes;
    size_t size;
    struct pm_wire_limits limits;
    const char *password; /* NULL: none given */
};

struct pm_picture;
typedef int pm_single_header(const struct pm_source *source, struct pm_picture *picture_out,
                             struct pm_error *err);

struct pm_loader {
    enum pm_format format;
    pm_single_header *header; /* of a format with one picture, instead of open */
    /* What the library must do before the sandbox closes (fonts, character tables). May be NULL. */
    void (*prepare)(void);
    int (*open)(const struct pm_source *source, void **document_out, uint32_t *page_count_out,
                char title_out[PM_WIRE_TITLE_BYTES], struct pm_error *err);
    int (*size)(void *document, uint32_t page, double dpi, struct pm_wire_size *out, struct pm_error *err);
    int (*render)(void *document, uint32_t page, double dpi, struct pm_raster *raster, struct pm_error *err);
    void (*close)(void *document);
};

/* NULL for a format without a loader. */
const struct pm_loader *pm_loader_for(enum pm_format format);
/* By the loader's open or header. */
int pm_loader_open(const struct pm_loader *loader, const struct pm_source *source, void **document_out,
                   uint32_t *page_count_out, char title_out[PM_WIRE_TITLE_BYTES], struct pm_error *err);

extern const struct pm_loader pm_loader_pdf, pm_loader_png, pm_loader_jpeg, pm_loader_tiff, pm_loader_webp,
    pm_loader_bmp, pm_loader_gif;

/* For loaders of formats with one picture: its geometry as the file's header states it. */
struct pm_picture {
    uint32_t width_px, height_px; /* as stored, before the turn */
    int orientation;              /* EXIF 1..8 */
    double dpi_x, dpi_y;          /* 0: unknown */
};

/* PM_ELIMIT when the picture is larger than the limits allow, PM_EFORMAT when it has no pixels. */
int pm_picture_check(const struct pm_picture *picture, const struct pm_wire_limits *limits,
                     struct pm_error *err);
/* The size at which the page is delivered, before the turn; pm_picture_turn swaps the sides if needed. */
void pm_picture_size(const struct pm_picture *picture, const struct pm_wire_limits *limits,
                     struct pm_wire_size *out);
void pm_picture_turn(const struct pm_picture *picture, struct pm_wire_size *size);
/* Starts the raster for rows of width_px x height_px: the stored size, or what the codec reduces it to. */
int pm_picture_begin(const struct pm_picture *picture, const struct pm_wire_limits *limits, uint32_t width_px,
                     uint32_t height_px, uint32_t channels, struct pm_raster *raster, struct pm_error *err);

/* The document of such a format: page 0 and nothing else. Its size and close are the same for all;
 * opening reads and checks the header, where orientation starts as 1. */
struct pm_single {
    const struct pm_source *source;
    struct pm_picture picture;
};
int pm_single_size(void *document, uint32_t page, double dpi, struct pm_wire_size *out, struct pm_error *err);
void pm_single_close(void *document);

#endif
