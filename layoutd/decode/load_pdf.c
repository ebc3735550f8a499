/* PDF through Poppler-glib onto a cairo surface: white paper, crop box and /Rotate applied by Poppler. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cairo.h>
#include <fontconfig/fontconfig.h>
#include <gio/gio.h>
#include <glib.h>
#include <poppler.h>

#include "base/mem.h"
#include "layoutd/decode/loader.h"

struct document {
    const struct pm_source *source;
    PopplerDocument *poppler;
};

/* Poppler complains about damaged files through GLib's log; the reply carries what matters. */
static GLogWriterOutput drop_log(GLogLevelFlags level, const GLogField *fields, gsize count, gpointer user)
{
    (void)level;
    (void)fields;
    (void)count;
    (void)user;
    return G_LOG_WRITER_HANDLED;
}

static void prepare(void)
{
    g_log_set_writer_func(drop_log, NULL, NULL);
    FcInit();
    FcConfigSetRescanInterval(NULL, 0); /* the sandbox would refuse the scan */
    /* Titles are UTF-16: glibc loads the converter as a shared library, which the sandbox would refuse. */
    gchar *text = g_convert("\0A", 2, "UTF-8", "UTF-16BE", NULL, NULL, NULL);
    g_free(text);
    g_type_ensure(POPPLER_TYPE_DOCUMENT);
}

static int fail_open(const struct pm_source *source, const GError *error, struct pm_error *err)
{
    if (g_error_matches(error, POPPLER_ERROR, POPPLER_ERROR_ENCRYPTED))
        return source->password
                   ? pm_fail(err, PM_EPASSWORD, "is encrypted and the password given does not open it")
                   : pm_fail(err, PM_EPASSWORD, "is encrypted: give its password with --password");
    return pm_fail(err, PM_EFORMAT, "is a damaged PDF: %.160s", error ? error->message : "no reason given");
}

static void read_title(PopplerDocument *poppler, char *title_out)
{
    char *title = poppler_document_get_title(poppler);
    if (title && g_utf8_validate(title, -1, NULL)) {
        size_t n = strlen(title);
        if (n >= PM_WIRE_TITLE_BYTES) {
            n = PM_WIRE_TITLE_BYTES - 1;
            while (n && ((unsigned char)title[n] & 0xc0) == 0x80)
                n--;
        }
        memcpy(title_out, title, n);
        title_out[n] = 0;
        pm_sanitize_text(title_out);
    }
    g_free(title);
}

static void close_pdf(void *document)
{
    struct document *d = document;
    g_object_unref(d->poppler);
    free(d);
}

/* Poppler tries a password twice (Latin-1, then as it is), and the second time uses a stream that it has
 * freed, except when it reads through GIO (22.12; found by the test of a wrong password). The other way is
 * faster. */
static PopplerDocument *open_document(const struct pm_source *source, GError **error)
{
    GBytes *bytes = g_bytes_new_static(source->bytes, source->size);
    PopplerDocument *poppler = poppler_document_new_from_bytes(bytes, NULL, error);
    if (!poppler && source->password && g_error_matches(*error, POPPLER_ERROR, POPPLER_ERROR_ENCRYPTED)) {
        g_clear_error(error);
        GInputStream *stream = g_memory_input_stream_new_from_bytes(bytes);
        poppler =
            poppler_document_new_from_stream(stream, (goffset)source->size, source->password, NULL, error);
        g_object_unref(stream);
    }
    g_bytes_unref(bytes);
    return poppler;
}

static int open_pdf(const struct pm_source *source, void **document_out, uint32_t *page_count_out,
                    char *title_out, struct pm_error *err)
{
    GError *error = NULL;
    PopplerDocument *poppler = open_document(source, &error);
    if (!poppler) {
        int rc = fail_open(source, error, err);
        g_clear_error(&error);
        return rc;
    }
    struct document *d = pm_xalloc(sizeof *d);
    d->source = source;
    d->poppler = poppler;
    int pages = poppler_document_get_n_pages(poppler), rc = 0;
    if (pages < 1)
        rc = pm_fail(err, PM_EFORMAT, "is a PDF without pages");
    else if ((uint32_t)pages > source->limits.max_pages)
        rc = pm_fail(err, PM_ELIMIT, "has %d pages; at most %u are read", pages, source->limits.max_pages);
    if (rc) {
        close_pdf(d);
        return rc;
    }
    read_title(poppler, title_out);
    *document_out = d;
    *page_count_out = (uint32_t)pages;
    return 0;
}

/* The size in pixels of a page of width_pt x height_pt, and the scale (pixels a point) that gives it. */
static int fit(const struct pm_wire_limits *limits, double width_pt, double height_pt, double dpi,
               struct pm_wire_size *out, double *scale_out, struct pm_error *err)
{
    if (!(width_pt > 0) || !(height_pt > 0) || !isfinite(width_pt) || !isfinite(height_pt))
        return pm_fail(err, PM_EFORMAT, "is damaged: the page is %g x %g points", width_pt, height_pt);
    double scale = dpi / 72, longest = width_pt > height_pt ? width_pt : height_pt;
    if (longest * scale > limits->pdf_longest_px)
        scale = limits->pdf_longest_px / longest;
    if (width_pt * height_pt * scale * scale > (double)limits->max_page_px)
        scale = sqrt((double)limits->max_page_px / (width_pt * height_pt));
    double width = round(width_pt * scale), height = round(height_pt * scale);
    *out = (struct pm_wire_size){.width_px = width < 1 ? 1 : (uint32_t)width,
                                 .height_px = height < 1 ? 1 : (uint32_t)height,
                                 .width_pt = width_pt,
                                 .height_pt = height_pt};
    *scale_out = scale;
    return 0;
}

static int size_of(const struct document *d, PopplerPage *page, double dpi, struct pm_wire_size *out,
                   double *scale_out, struct pm_error *err)
{
    double width_pt = 0, height_pt = 0;
    poppler_page_get_size(page, &width_pt, &height_pt);
    return fit(&d->source->limits, width_pt, height_pt, dpi, out, scale_out, err);
}

static int size_pdf(void *document, uint32_t index, double dpi, struct pm_wire_size *out,
                    struct pm_error *err)
{
    const struct document *d = document;
    double scale;
    PopplerPage *page = poppler_document_get_page(d->poppler, (int)index);
    if (!page)
        return pm_fail(err, PM_EFORMAT, "is damaged: page %u cannot be found in it", index + 1);
    int rc = size_of(d, page, dpi, out, &scale, err);
    g_object_unref(page);
    return rc;
}

static bool has_annotations(PopplerPage *page)
{
    GList *list = poppler_page_get_annot_mapping(page);
    bool found = false;
    for (GList *l = list; l; l = l->next)
        if (poppler_annot_get_annot_type(((PopplerAnnotMapping *)l->data)->annot) != POPPLER_ANNOT_LINK)
            found = true;
    poppler_page_free_annot_mapping(list);
    return found;
}

/* Whether one picture covers most of the page. Poppler reduces such a picture by itself for the screen, which
 * takes 100 ms a page at 300 dpi; for a printer it leaves that to cairo, which takes 10. The two differ in
 * hair lines and in the annotations that are shown, so pages with annotations are drawn as on a screen. */
static bool is_scan(PopplerPage *page, double width_pt, double height_pt)
{
    GList *list = poppler_page_get_image_mapping(page);
    bool found = false;
    for (GList *l = list; l; l = l->next) {
        PopplerRectangle r = ((PopplerImageMapping *)l->data)->area;
        found |= fabs(r.x2 - r.x1) * fabs(r.y2 - r.y1) > 0.6 * width_pt * height_pt;
    }
    poppler_page_free_image_mapping(list);
    return found && !has_annotations(page);
}

static int paint(PopplerPage *page, double scale_x, double scale_y, bool for_printing,
                 cairo_surface_t *surface, struct pm_error *err)
{
    cairo_t *cairo = cairo_create(surface);
    cairo_set_source_rgb(cairo, 1, 1, 1);
    cairo_paint(cairo);
    cairo_scale(cairo, scale_x, scale_y);
    if (for_printing)
        poppler_page_render_for_printing(page, cairo);
    else
        poppler_page_render(page, cairo);
    cairo_status_t status = cairo_status(cairo);
    cairo_destroy(cairo);
    cairo_surface_flush(surface);
    if (status == CAIRO_STATUS_NO_MEMORY)
        return pm_fail(err, PM_ENOMEM, "needs more memory to draw a page");
    if (status != CAIRO_STATUS_SUCCESS)
        return pm_fail(err, PM_EFORMAT, "is damaged: a page cannot be drawn (%s)",
                       cairo_status_to_string(status));
    return 0;
}

/* cairo's pixels are 0xXXRRGGBB in native order, its rows aligned to 4 bytes at least. */
static const uint32_t *row_of(cairo_surface_t *surface, uint32_t y)
{
    size_t stride = (size_t)cairo_image_surface_get_stride(surface);
    return (const uint32_t *)(const void *)(cairo_image_surface_get_data(surface) + stride * y);
}

static bool is_grey(cairo_surface_t *surface, uint32_t width, uint32_t height)
{
    for (uint32_t y = 0; y < height; y++) {
        const uint32_t *row = row_of(surface, y);
        uint32_t differs = 0;
        for (uint32_t x = 0; x < width; x++)
            differs |= (row[x] ^ row[x] >> 8) & 0xffff;
        if (differs)
            return false;
    }
    return true;
}

static void copy_pixels(cairo_surface_t *surface, struct pm_raster *raster)
{
    for (uint32_t y = 0; y < raster->height_px; y++) {
        const uint32_t *from = row_of(surface, y);
        uint8_t *to = pm_raster_direct(raster, y);
        if (raster->channels == 1) {
            for (uint32_t x = 0; x < raster->width_px; x++)
                to[x] = (uint8_t)from[x];
            continue;
        }
        for (uint32_t x = 0; x < raster->width_px; x++) {
            to[3 * x] = (uint8_t)from[x];
            to[3 * x + 1] = (uint8_t)(from[x] >> 8);
            to[3 * x + 2] = (uint8_t)(from[x] >> 16);
        }
    }
}

static int render_page(const struct document *d, PopplerPage *page, double dpi, struct pm_raster *raster,
                       struct pm_error *err)
{
    struct pm_wire_size size = {0};
    double scale = 0;
    int rc = size_of(d, page, dpi, &size, &scale, err);
    if (rc)
        return rc;
    cairo_surface_t *surface =
        cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)size.width_px, (int)size.height_px);
    if (cairo_surface_status(surface) != CAIRO_STATUS_SUCCESS)
        rc = pm_fail(err, PM_ENOMEM, "needs more memory for a page of %u x %u pixels", size.width_px,
                     size.height_px);
    /* Rounding to whole pixels must not leave an unpainted edge: scale each side exactly. */
    if (rc == 0)
        rc = paint(page, size.width_px / size.width_pt, size.height_px / size.height_pt,
                   is_scan(page, size.width_pt, size.height_pt), surface, err);
    if (rc == 0)
        rc = pm_raster_begin(raster, size.width_px, size.height_px, size.width_px, size.height_px,
                             is_grey(surface, size.width_px, size.height_px) ? 1 : 3, 1, err);
    if (rc == 0) {
        copy_pixels(surface, raster);
        raster->dpi = scale * 72;
        rc = pm_raster_finish(raster, NULL, err);
    }
    cairo_surface_destroy(surface);
    return rc;
}

static int render_pdf(void *document, uint32_t index, double dpi, struct pm_raster *raster,
                      struct pm_error *err)
{
    const struct document *d = document;
    PopplerPage *page = poppler_document_get_page(d->poppler, (int)index);
    if (!page)
        return pm_fail(err, PM_EFORMAT, "is damaged: page %u cannot be found in it", index + 1);
    int rc = render_page(d, page, dpi, raster, err);
    g_object_unref(page);
    return rc;
}

const struct pm_loader pm_loader_pdf = {
    .format = PM_FORMAT_PDF,
    .prepare = prepare,
    .open = open_pdf,
    .size = size_pdf,
    .render = render_pdf,
    .close = close_pdf,
};
