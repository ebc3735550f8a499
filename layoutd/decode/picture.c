/* What the loaders of single pictures share: limits, the delivered size, and the table of loaders. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

#include "layoutd/decode/loader.h"

const struct pm_loader *pm_loader_for(enum pm_format format)
{
    static const struct pm_loader *const loaders[] = {&pm_loader_pdf,  &pm_loader_png,  &pm_loader_jpeg,
                                                      &pm_loader_tiff, &pm_loader_webp, &pm_loader_bmp,
                                                      &pm_loader_gif};
    for (size_t i = 0; i < sizeof loaders / sizeof loaders[0]; i++)
        if (loaders[i]->format == format)
            return loaders[i];
    return NULL;
}

int pm_picture_check(const struct pm_picture *p, const struct pm_wire_limits *limits, struct pm_error *err)
{
    if (p->width_px == 0 || p->height_px == 0)
        return pm_fail(err, PM_EFORMAT, "is damaged: its header says %u x %u pixels", p->width_px,
                       p->height_px);
    uint64_t pixels = (uint64_t)p->width_px * p->height_px;
    if (pixels > limits->max_source_px)
        return pm_fail(err, PM_ELIMIT,
                       "has a picture of %u x %u pixels (%.0f megapixels); at most %.0f megapixels are read",
                       p->width_px, p->height_px, (double)pixels / 1e6, (double)limits->max_source_px / 1e6);
    return 0;
}

static bool is_believable_dpi(double dpi)
{
    return dpi >= 40 && dpi <= 2400;
}

/* The stored picture with square pixels: faxes have half the resolution down the page. */
static void square_size(const struct pm_picture *p, double *width_out, double *height_out, double *dpi_out)
{
    *width_out = p->width_px;
    *height_out = p->height_px;
    *dpi_out = 0;
    if (!is_believable_dpi(p->dpi_x) || !is_believable_dpi(p->dpi_y))
        return;
    double ratio = p->dpi_x / p->dpi_y;
    *dpi_out = p->dpi_x;
    if (fabs(ratio - 1) < 0.04)
        return;
    if (ratio < 0.25 || ratio > 4) {
        *dpi_out = 0;
        return;
    }
    if (ratio > 1)
        *height_out *= ratio;
    else {
        *width_out /= ratio;
        *dpi_out = p->dpi_y;
    }
}

void pm_picture_size(const struct pm_picture *p, const struct pm_wire_limits *limits,
                     struct pm_wire_size *out)
{
    double width, height, dpi, factor = 1;
    square_size(p, &width, &height, &dpi);
    double longest = width > height ? width : height;
    if (longest > limits->picture_longest_px)
        factor = limits->picture_longest_px / longest;
    if (width * height * factor * factor > (double)limits->max_page_px)
        factor = sqrt((double)limits->max_page_px / (width * height));
    double w = factor < 1 ? floor(width * factor) : round(width);
    double h = factor < 1 ? floor(height * factor) : round(height);
    out->width_px = w < 1 ? 1 : (uint32_t)w;
    out->height_px = h < 1 ? 1 : (uint32_t)h;
    out->width_pt = dpi > 0 ? width * 72 / dpi : 0;
    out->height_pt = dpi > 0 ? height * 72 / dpi : 0;
}

void pm_picture_turn(const struct pm_picture *p, struct pm_wire_size *size)
{
    if (p->orientation >= 5) {
        uint32_t width = size->width_px;
        double width_pt = size->width_pt;
        size->width_px = size->height_px;
        size->height_px = width;
        size->width_pt = size->height_pt;
        size->height_pt = width_pt;
    }
}

int pm_picture_begin(const struct pm_picture *p, const struct pm_wire_limits *limits, uint32_t width_px,
                     uint32_t height_px, uint32_t channels, struct pm_raster *raster, struct pm_error *err)
{
    struct pm_wire_size size;
    pm_picture_size(p, limits, &size);
    raster->dpi = size.width_pt > 0 ? size.width_px * 72.0 / size.width_pt : 0;
    return pm_raster_begin(raster, width_px, height_px, size.width_px, size.height_px, channels,
                           p->orientation, err);
}

static int open_single(const struct pm_source *source, pm_single_header *header, void **document_out,
                       uint32_t *page_count_out, struct pm_error *err)
{
    struct pm_single *single = pm_xalloc(sizeof *single);
    single->source = source;
    single->picture.orientation = 1;
    int rc = header(source, &single->picture, err);
    if (rc == 0)
        rc = pm_picture_check(&single->picture, &source->limits, err);
    if (rc) {
        free(single);
        return rc;
    }
    *document_out = single;
    *page_count_out = 1;
    return 0;
}

int pm_loader_open(const struct pm_loader *loader, const struct pm_source *source, void **document_out,
                   uint32_t *page_count_out, char title_out[PM_WIRE_TITLE_BYTES], struct pm_error *err)
{
    if (loader->header)
        return open_single(source, loader->header, document_out, page_count_out, err);
    return loader->open(source, document_out, page_count_out, title_out, err);
}

int pm_single_size(void *document, uint32_t page, double dpi, struct pm_wire_size *out, struct pm_error *err)
{
    const struct pm_single *single = document;
    (void)page;
    (void)dpi;
    (void)err;
    pm_picture_size(&single->picture, &single->source->limits, out);
    pm_picture_turn(&single->picture, out);
    return 0;
}

void pm_single_close(void *document)
{
    free(document);
}
