/* TIFF through libtiff's RGBA interface: every page, 1 to 16 bits, grey, palette, RGB, CMYK, YCbCr, strips
 * and tiles, all compressions that libtiff was built with, the orientation tag, unequal resolutions of faxes.
 *
 * A page is read in bands of whole strips or tiles, so that its memory is a band and not the page in 32 bits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tiffio.h>

#include "base/mem.h"
#include "layoutd/decode/loader.h"

#define BAND_ROWS_MIN    64
#define MAX_SINGLE_ALLOC ((tmsize_t)1 << 29)

struct page {
    uint64_t directory_offset;
    struct pm_picture picture;
};

struct document {
    const struct pm_source *source;
    uint64_t offset; /* of the simulated file */
    TIFF *tiff;
    struct page *pages;
    uint32_t page_count, page_capacity;
    char message[160]; /* the first error since it was cleared */
};

static tmsize_t on_read(thandle_t handle, void *to, tmsize_t count)
{
    struct document *d = (struct document *)handle;
    uint64_t there = d->offset < d->source->size ? d->source->size - d->offset : 0;
    uint64_t n = count < 0 ? 0 : (uint64_t)count < there ? (uint64_t)count : there;
    if (n)
        memcpy(to, d->source->bytes + d->offset, n);
    d->offset += n;
    return (tmsize_t)n;
}

static tmsize_t on_write(thandle_t handle, void *from, tmsize_t count)
{
    (void)handle;
    (void)from;
    (void)count;
    return 0;
}

static toff_t on_seek(thandle_t handle, toff_t offset, int whence)
{
    struct document *d = (struct document *)handle;
    if (whence == SEEK_CUR)
        offset += d->offset;
    else if (whence == SEEK_END)
        offset += d->source->size;
    d->offset = offset;
    return offset;
}

static int on_close(thandle_t handle)
{
    (void)handle;
    return 0;
}

static toff_t on_size(thandle_t handle)
{
    return ((struct document *)handle)->source->size;
}

static int on_error(TIFF *tiff, void *user, const char *module, const char *format, va_list args)
    __attribute__((format(printf, 4, 0)));
static int on_error(TIFF *tiff, void *user, const char *module, const char *format, va_list args)
{
    struct document *d = user;
    (void)tiff;
    (void)module;
    if (!d->message[0])
        vsnprintf(d->message, sizeof d->message, format, args);
    return 1;
}

static int on_warning(TIFF *tiff, void *user, const char *module, const char *format, va_list args)
{
    (void)tiff;
    (void)user;
    (void)module;
    (void)format;
    (void)args;
    return 1;
}

/* The message came out of libtiff with names from the file in it. */
static const char *reason(struct document *d)
{
    pm_sanitize_text(d->message);
    return d->message[0] ? d->message : "libtiff gives no reason";
}

static void add_page(struct document *d)
{
    TIFF *t = d->tiff;
    uint32_t width = 0, height = 0;
    uint16_t orientation = 1, unit = RESUNIT_INCH;
    float x = 0, y = 0;
    TIFFGetField(t, TIFFTAG_IMAGEWIDTH, &width);
    TIFFGetField(t, TIFFTAG_IMAGELENGTH, &height);
    TIFFGetFieldDefaulted(t, TIFFTAG_ORIENTATION, &orientation);
    TIFFGetFieldDefaulted(t, TIFFTAG_RESOLUTIONUNIT, &unit);
    TIFFGetField(t, TIFFTAG_XRESOLUTION, &x);
    TIFFGetField(t, TIFFTAG_YRESOLUTION, &y);
    double factor = unit == RESUNIT_CENTIMETER ? 2.54 : unit == RESUNIT_INCH ? 1 : 0;
    PM_GROW(d->pages, d->page_count, d->page_capacity);
    d->pages[d->page_count++] = (struct page){
        .directory_offset = TIFFCurrentDirOffset(t),
        .picture = {.width_px = width,
                    .height_px = height,
                    .orientation = orientation >= 1 && orientation <= 8 ? orientation : 1,
                    .dpi_x = x * factor,
                    .dpi_y = y * factor},
    };
}

/* Pages are the full pictures: previews and masks belong to one of them. */
static int list_pages(struct document *d, struct pm_error *err)
{
    bool is_more;
    do {
        uint32_t kind = 0;
        TIFFGetField(d->tiff, TIFFTAG_SUBFILETYPE, &kind);
        if (!(kind & (FILETYPE_REDUCEDIMAGE | FILETYPE_MASK)))
            add_page(d);
        if (d->page_count > d->source->limits.max_pages)
            return pm_fail(err, PM_ELIMIT, "has more than %u pages, the most that are read",
                           d->source->limits.max_pages);
        is_more = TIFFReadDirectory(d->tiff);
    } while (is_more);
    if (d->page_count == 0) {
        if (!TIFFSetDirectory(d->tiff, 0))
            return pm_fail(err, PM_EFORMAT, "is a damaged TIFF: %s", reason(d));
        add_page(d);
    }
    return 0;
}

static void close_tiff(void *document)
{
    struct document *d = document;
    if (d->tiff)
        TIFFClose(d->tiff);
    free(d->pages);
    free(d);
}

static int open_tiff(const struct pm_source *source, void **document_out, uint32_t *page_count_out,
                     char *title_out, struct pm_error *err)
{
    struct document *d = pm_xalloc(sizeof *d);
    d->source = source;
    (void)title_out;
    TIFFOpenOptions *options = TIFFOpenOptionsAlloc();
    if (!options) {
        free(d);
        return pm_fail(err, PM_ENOMEM, "cannot be decoded: libtiff has no memory");
    }
    TIFFOpenOptionsSetMaxSingleMemAlloc(options, MAX_SINGLE_ALLOC);
    TIFFOpenOptionsSetErrorHandlerExtR(options, on_error, d);
    TIFFOpenOptionsSetWarningHandlerExtR(options, on_warning, d);
    d->tiff = TIFFClientOpenExt("source", "rmO", d, on_read, on_write, on_seek, on_close, on_size, NULL, NULL,
                                options);
    TIFFOpenOptionsFree(options);
    int rc = d->tiff ? list_pages(d, err) : pm_fail(err, PM_EFORMAT, "is a damaged TIFF: %s", reason(d));
    if (rc) {
        close_tiff(d);
        return rc;
    }
    *document_out = d;
    *page_count_out = d->page_count;
    return 0;
}

static int size_tiff(void *document, uint32_t page, double dpi, struct pm_wire_size *out,
                     struct pm_error *err)
{
    struct document *d = document;
    const struct pm_picture *picture = &d->pages[page].picture;
    (void)dpi;
    int rc = pm_picture_check(picture, &d->source->limits, err);
    if (rc)
        return rc;
    pm_picture_size(picture, &d->source->limits, out);
    pm_picture_turn(picture, out);
    return 0;
}

struct bands {
    struct document *d;
    TIFFRGBAImage image;
    uint32_t rows; /* of a band */
    uint32_t *pixels;
    uint8_t *line;
    uint32_t channels;
};

/* libtiff has multiplied colour by alpha: white shines through by what is left. */
static void put_line(const struct bands *b, const uint32_t *from, struct pm_raster *raster)
{
    uint8_t *to = b->line;
    for (uint32_t x = 0; x < b->image.width; x++) {
        unsigned rest = 255 - TIFFGetA(from[x]);
        unsigned blue = TIFFGetB(from[x]) + rest, green = TIFFGetG(from[x]) + rest,
                 red = TIFFGetR(from[x]) + rest;
        *to++ = blue > 255 ? 255 : (uint8_t)blue;
        if (b->channels == 3) {
            *to++ = green > 255 ? 255 : (uint8_t)green;
            *to++ = red > 255 ? 255 : (uint8_t)red;
        }
    }
    pm_raster_row(raster, b->line);
}

static bool read_band(struct bands *b, uint32_t y, uint32_t rows, bool stop_on_error)
{
    memset(b->pixels, 255, (size_t)b->image.width * rows * sizeof *b->pixels);
    b->image.row_offset = (int)y;
    b->image.col_offset = 0;
    b->image.stoponerr = stop_on_error;
    return TIFFRGBAImageGet(&b->image, b->pixels, b->image.width, rows);
}

/* A bad band is white, except when it is the whole page (a fax in one strip): then what libtiff salvages. */
static int read_bands(struct bands *b, struct pm_raster *raster, struct pm_error *err)
{
    uint32_t height = b->image.height, bad_rows = 0, good_rows = 0;
    uint64_t *offsets = NULL;
    for (uint32_t y = 0; y < height; y += b->rows) {
        uint32_t rows = height - y < b->rows ? height - y : b->rows;
        if (read_band(b, y, rows, true)) {
            good_rows += rows;
        } else {
            bad_rows += rows;
            bool is_whole = rows == height && !TIFFIsTiled(b->d->tiff) &&
                            TIFFGetField(b->d->tiff, TIFFTAG_STRIPOFFSETS, &offsets) && offsets &&
                            offsets[0] < b->d->source->size;
            if (is_whole && read_band(b, y, rows, false))
                good_rows += rows;
            else
                memset(b->pixels, 255, (size_t)b->image.width * rows * sizeof *b->pixels);
        }
        for (uint32_t k = 0; k < rows; k++)
            put_line(b, b->pixels + (size_t)k * b->image.width, raster);
    }
    if (good_rows == 0)
        return pm_fail(err, PM_EFORMAT, "is damaged: no row of the picture can be read (%s)", reason(b->d));
    if (bad_rows)
        snprintf(raster->warning, sizeof raster->warning, "is damaged: %u of %u rows cannot be read (%.120s)",
                 bad_rows, height, reason(b->d));
    return 0;
}

static int allocate_bands(struct bands *b, struct pm_error *err)
{
    uint32_t unit = 1, height = b->image.height;
    if (TIFFIsTiled(b->d->tiff))
        TIFFGetField(b->d->tiff, TIFFTAG_TILELENGTH, &unit);
    else
        TIFFGetFieldDefaulted(b->d->tiff, TIFFTAG_ROWSPERSTRIP, &unit);
    if (unit == 0 || unit > height)
        unit = height;
    b->rows = unit >= BAND_ROWS_MIN ? unit : BAND_ROWS_MIN / unit * unit;
    if (b->rows > height)
        b->rows = height;
    b->pixels = malloc((size_t)b->image.width * b->rows * sizeof *b->pixels);
    b->line = malloc((size_t)b->image.width * 3);
    if (!b->pixels || !b->line)
        return pm_fail(err, PM_ENOMEM, "needs %zu MB for a strip of %u rows",
                       ((size_t)b->image.width * b->rows * sizeof *b->pixels) >> 20, b->rows);
    return 0;
}

static int render_tiff(void *document, uint32_t page, double dpi, struct pm_raster *raster,
                       struct pm_error *err)
{
    struct document *d = document;
    const struct page *p = &d->pages[page];
    struct bands *b = NULL;
    char why[1024] = "";
    (void)dpi;
    int rc = pm_picture_check(&p->picture, &d->source->limits, err);
    if (rc)
        return rc;
    d->message[0] = 0;
    if (!TIFFSetSubDirectory(d->tiff, p->directory_offset))
        return pm_fail(err, PM_EFORMAT, "is a damaged TIFF: %s", reason(d));
    b = pm_xalloc(sizeof *b);
    b->d = d;
    if (!TIFFRGBAImageOK(d->tiff, why) || !TIFFRGBAImageBegin(&b->image, d->tiff, 0, why)) {
        free(b);
        pm_sanitize_text(why);
        return pm_fail(err, PM_EUNSUPPORTED, "is a TIFF of a kind that is not read: %.200s",
                       why[0] ? why : reason(d));
    }
    b->image.req_orientation =
        b->image.orientation; /* no turn: the raster does all eight, libtiff only four */
    b->channels = b->image.photometric <= PHOTOMETRIC_MINISBLACK && !b->image.alpha ? 1 : 3;
    if (b->image.width != p->picture.width_px || b->image.height != p->picture.height_px)
        rc = pm_fail(err, PM_EFORMAT, "is a damaged TIFF: its page changes size while being read");
    if (rc == 0)
        rc = allocate_bands(b, err);
    if (rc == 0)
        rc = pm_picture_begin(&p->picture, &d->source->limits, b->image.width, b->image.height, b->channels,
                              raster, err);
    if (rc == 0)
        rc = read_bands(b, raster, err);
    if (rc == 0)
        rc = pm_raster_finish(raster, reason(d), err);
    TIFFRGBAImageEnd(&b->image);
    free(b->pixels);
    free(b->line);
    free(b);
    return rc;
}

const struct pm_loader pm_loader_tiff = {
    .format = PM_FORMAT_TIFF,
    .open = open_tiff,
    .size = size_tiff,
    .render = render_tiff,
    .close = close_tiff,
};
