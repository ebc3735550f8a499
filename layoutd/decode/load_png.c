/* PNG through libpng: every colour type and depth, interlaced or not, alpha laid over white. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

#include "layoutd/decode/exif.h"
#include "layoutd/decode/loader.h"

/* Everything that must survive a longjmp out of libpng lives here and not in registers. */
struct job {
    const struct pm_source *source;
    size_t offset;
    png_structp png;
    png_infop info;
    char message[120];
    uint8_t *pixels; /* one row, or all of them when interlaced */
    uint8_t *line;   /* a row after alpha */
    struct pm_raster *raster;
    struct pm_picture picture;
    bool is_interlaced, has_rows;
    uint32_t channels; /* as libpng delivers */
    int rc;
};

static void on_error(png_structp png, png_const_charp message)
{
    struct job *job = png_get_error_ptr(png);
    snprintf(job->message, sizeof job->message, "%s", message);
    longjmp(png_jmpbuf(png), 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void on_read(png_structp png, png_bytep to, size_t count)
{
    struct job *job = png_get_io_ptr(png);
    if (count > job->source->size - job->offset)
        png_error(png, "the data ends early");
    memcpy(to, job->source->bytes + job->offset, count);
    job->offset += count;
}

static int start(struct job *job, struct pm_error *err)
{
    job->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, job, on_error, on_warning);
    job->info = job->png ? png_create_info_struct(job->png) : NULL;
    if (!job->info)
        return pm_fail(err, PM_ENOMEM, "cannot be decoded: libpng has no memory");
    png_set_read_fn(job->png, job, on_read);
    /* Our own limit has the better message; these only keep libpng from refusing first. */
    png_set_user_limits(job->png, 0x7fffffff, 0x7fffffff);
    png_set_chunk_cache_max(job->png, 128);
    png_set_chunk_malloc_max(job->png, 8 << 20);
    return 0;
}

static void stop(struct job *job)
{
    png_destroy_read_struct(&job->png, &job->info, NULL);
    free(job->pixels);
    free(job->line);
}

static void read_header(struct job *job)
{
    struct pm_picture *p = &job->picture;
    png_read_info(job->png, job->info);
    p->width_px = png_get_image_width(job->png, job->info);
    p->height_px = png_get_image_height(job->png, job->info);
    p->orientation = 1;
    png_uint_32 x = 0, y = 0;
    int unit = 0;
    if (png_get_pHYs(job->png, job->info, &x, &y, &unit) && unit == PNG_RESOLUTION_METER && x == y)
        p->dpi_x = p->dpi_y = x * 0.0254;
    png_bytep exif_bytes = NULL;
    png_uint_32 exif_size = 0;
    if (png_get_eXIf_1(job->png, job->info, &exif_size, &exif_bytes) && exif_bytes) {
        struct pm_exif exif = {p->orientation, p->dpi_x, p->dpi_y};
        pm_exif_parse(exif_bytes, exif_size, &exif);
        p->orientation = exif.orientation;
    }
}

static int header(const struct pm_source *source, struct pm_picture *out, struct pm_error *err)
{
    /* On the heap: a local that changes between setjmp and longjmp would be indeterminate. */
    struct job *job = calloc(1, sizeof *job);
    if (!job)
        return pm_fail(err, PM_ENOMEM, "cannot be decoded: out of memory");
    job->source = source;
    job->rc = start(job, err);
    if (job->rc == 0) {
        if (setjmp(png_jmpbuf(job->png)) == 0)
            read_header(job);
        else
            job->rc = pm_fail(err, PM_EFORMAT, "is a damaged PNG: %s", job->message);
    }
    int rc = job->rc;
    *out = job->picture;
    stop(job);
    free(job);
    return rc;
}

/* Grey or R, G, B with or without alpha -> grey or B, G, R over white. */
static void put_row(struct job *job, const uint8_t *from)
{
    uint32_t width = job->picture.width_px, n = job->channels;
    uint8_t *to = job->line;
    if (n == 1 || n == 3) {
        pm_raster_row(job->raster, from); /* libpng has swapped R and B */
        return;
    }
    for (uint32_t x = 0; x < width; x++, from += n) {
        unsigned alpha = from[n - 1];
        for (uint32_t c = 0; c < n - 1; c++)
            *to++ = (uint8_t)((from[c] * alpha + 255 * (255 - alpha) + 127) / 255);
    }
    pm_raster_row(job->raster, job->line);
}

static void read_pixels(struct job *job)
{
    png_structp png = job->png;
    size_t stride = png_get_rowbytes(png, job->info);
    uint32_t height = job->picture.height_px;
    if (!job->is_interlaced) {
        for (uint32_t y = 0; y < height; y++) {
            png_read_row(png, job->pixels, NULL);
            put_row(job, job->pixels);
        }
        return;
    }
    for (int pass = 0; pass < 7; pass++)
        for (uint32_t y = 0; y < height; y++) {
            png_read_row(png, job->pixels + stride * y, NULL);
            job->has_rows = true;
        }
    for (uint32_t y = 0; y < height; y++)
        put_row(job, job->pixels + stride * y);
}

static void set_transforms(struct job *job)
{
    png_structp png = job->png;
    png_set_scale_16(png);
    png_set_expand(png); /* palette -> RGB, grey below 8 bits -> 8, a transparent colour -> alpha */
    png_set_bgr(png);
    job->is_interlaced = png_set_interlace_handling(png) > 1;
    png_read_update_info(png, job->info);
    job->channels = png_get_channels(png, job->info);
}

static int allocate(struct job *job, struct pm_error *err)
{
    size_t stride = png_get_rowbytes(job->png, job->info);
    size_t rows = job->is_interlaced ? job->picture.height_px : 1;
    /* White: the pixels of an interlaced picture that breaks off before its last pass. */
    job->pixels = malloc(stride * rows);
    job->line = malloc((size_t)job->picture.width_px * 3);
    if (!job->pixels || !job->line)
        return pm_fail(err, PM_ENOMEM, "needs %zu MB for its interlaced pixels", (stride * rows) >> 20);
    memset(job->pixels, 255, stride * rows);
    return 0;
}

/* A picture that breaks off is delivered as far as it goes. An interlaced one has some pixels everywhere. */
static void salvage(struct job *job)
{
    if (job->is_interlaced && job->has_rows) {
        for (uint32_t y = 0; y < job->picture.height_px; y++)
            put_row(job, job->pixels + png_get_rowbytes(job->png, job->info) * y);
        snprintf(job->raster->warning, sizeof job->raster->warning,
                 "is damaged: parts of the interlaced picture are missing (%s)", job->message);
    }
}

static int render(void *document, uint32_t page, double dpi, struct pm_raster *raster, struct pm_error *err)
{
    struct pm_single *single = document;
    struct job *job = calloc(1, sizeof *job);
    (void)page;
    (void)dpi;
    if (!job)
        return pm_fail(err, PM_ENOMEM, "cannot be decoded: out of memory");
    job->source = single->source;
    job->raster = raster;
    job->rc = start(job, err);
    if (job->rc == 0) {
        if (setjmp(png_jmpbuf(job->png)) == 0) {
            read_header(job);
            job->picture = single->picture;
            set_transforms(job);
            job->rc = allocate(job, err);
            if (job->rc == 0)
                job->rc = pm_picture_begin(&job->picture, &job->source->limits, job->picture.width_px,
                                           job->picture.height_px, job->channels >= 3 ? 3 : 1, raster, err);
            if (job->rc == 0)
                read_pixels(job);
        } else if (!raster->mapped)
            job->rc = pm_fail(err, PM_EFORMAT, "is a damaged PNG: %s", job->message);
        else
            salvage(job);
    }
    if (job->rc == 0)
        job->rc = pm_raster_finish(raster, job->message, err);
    int rc = job->rc;
    stop(job);
    free(job);
    return rc;
}

const struct pm_loader pm_loader_png = {
    .format = PM_FORMAT_PNG,
    .header = header,
    .size = pm_single_size,
    .render = render,
    .close = pm_single_close,
};
