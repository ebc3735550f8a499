/* JPEG through libjpeg-turbo: baseline and progressive, grey, YCbCr, RGB, CMYK and YCCK (Adobe's are
 * inverted), turned as EXIF says. Data that ends early is delivered as far as it goes. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "layoutd/decode/exif.h"
#include "layoutd/decode/loader.h"

/* A progressive file may ask for the whole picture to be visited once a scan; real ones have about ten. */
#define MAX_SCANS 200

struct job {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    char message[JMSG_LENGTH_MAX];
    struct pm_raster *raster;
    struct pm_picture picture;
    uint8_t *line, *converted;
    bool ended_early;
    int rc;
};

static void on_error(j_common_ptr cinfo)
{
    struct job *job = cinfo->client_data;
    cinfo->err->format_message(cinfo, job->message);
    longjmp(job->jump, 1);
}

static void on_message(j_common_ptr cinfo, int level)
{
    struct job *job = cinfo->client_data;
    if (level >= 0)
        return;
    if (cinfo->err->num_warnings++ == 0)
        cinfo->err->format_message(cinfo, job->message);
    if (cinfo->err->msg_code == JWRN_JPEG_EOF)
        job->ended_early = true;
}

static void on_output(j_common_ptr cinfo)
{
    (void)cinfo; /* libjpeg would print to stderr */
}

static void on_progress(j_common_ptr cinfo)
{
    struct job *job = cinfo->client_data;
    if (cinfo->is_decompressor && ((j_decompress_ptr)cinfo)->input_scan_number > MAX_SCANS) {
        snprintf(job->message, sizeof job->message, "more than %d scans", MAX_SCANS);
        longjmp(job->jump, 1);
    }
}

static void read_exif(struct job *job)
{
    for (jpeg_saved_marker_ptr m = job->cinfo.marker_list; m; m = m->next)
        if (m->marker == JPEG_APP0 + 1 && m->data_length > 6 && memcmp(m->data, "Exif\0\0", 6) == 0) {
            struct pm_exif exif = {1, 0, 0};
            pm_exif_parse(m->data, m->data_length, &exif);
            job->picture.orientation = exif.orientation;
            if (exif.dpi_x > 0 && exif.dpi_x == exif.dpi_y)
                job->picture.dpi_x = job->picture.dpi_y = exif.dpi_x;
            return;
        }
}

static void read_header(struct job *job, const struct pm_source *source)
{
    struct jpeg_decompress_struct *cinfo = &job->cinfo;
    jpeg_create_decompress(cinfo);
    cinfo->client_data = job;
    job->progress.progress_monitor = on_progress;
    cinfo->progress = &job->progress;
    jpeg_mem_src(cinfo, source->bytes, source->size);
    jpeg_save_markers(cinfo, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(cinfo, TRUE);
    job->picture.width_px = cinfo->image_width;
    job->picture.height_px = cinfo->image_height;
    job->picture.orientation = 1;
    double unit = cinfo->density_unit == 1 ? 1 : cinfo->density_unit == 2 ? 2.54 : 0;
    if (cinfo->saw_JFIF_marker && unit > 0 && cinfo->X_density == cinfo->Y_density && cinfo->X_density != 72)
        job->picture.dpi_x = job->picture.dpi_y = cinfo->X_density * unit;
    read_exif(job);
}

static struct job *new_job(struct pm_error *err)
{
    struct job *job = calloc(1, sizeof *job);
    if (!job) {
        pm_fail(err, PM_ENOMEM, "cannot be decoded: out of memory");
        return NULL;
    }
    job->cinfo.err = jpeg_std_error(&job->errors);
    job->cinfo.client_data = job;
    job->errors.error_exit = on_error;
    job->errors.emit_message = on_message;
    job->errors.output_message = on_output;
    return job;
}

static void free_job(struct job *job)
{
    jpeg_destroy_decompress(&job->cinfo);
    free(job->line);
    free(job->converted);
    free(job);
}

static int header(const struct pm_source *source, struct pm_picture *out, struct pm_error *err)
{
    struct job *job = new_job(err);
    if (!job)
        return PM_ENOMEM;
    if (setjmp(job->jump) == 0)
        read_header(job, source);
    else
        job->rc = pm_fail(err, PM_EFORMAT, "is a damaged JPEG: %s", job->message);
    int rc = job->rc;
    *out = job->picture;
    free_job(job);
    return rc;
}

/* Lets the codec do the coarse part of a reduction: it is far cheaper than decoding every pixel. */
static void choose_scale(struct job *job, const struct pm_wire_limits *limits)
{
    struct pm_wire_size size;
    pm_picture_size(&job->picture, limits, &size);
    job->cinfo.scale_denom = 8;
    job->cinfo.scale_num = 8;
    for (unsigned n = 1; n < 8; n++)
        if ((uint64_t)job->picture.width_px * n / 8 >= size.width_px &&
            (uint64_t)job->picture.height_px * n / 8 >= size.height_px) {
            job->cinfo.scale_num = n;
            break;
        }
}

/* Inks over white paper. Adobe writes 255 - ink, and everybody else has copied that since. */
static void convert_cmyk(const struct job *job, const uint8_t *from, uint8_t *to)
{
    unsigned flip = job->cinfo.saw_Adobe_marker ? 0 : 255;
    for (uint32_t x = 0; x < job->cinfo.output_width; x++, from += 4, to += 3) {
        unsigned c = from[0] ^ flip, m = from[1] ^ flip, y = from[2] ^ flip, k = from[3] ^ flip;
        to[0] = (uint8_t)((y * k + 127) / 255);
        to[1] = (uint8_t)((m * k + 127) / 255);
        to[2] = (uint8_t)((c * k + 127) / 255);
    }
}

static void read_pixels(struct job *job)
{
    struct jpeg_decompress_struct *cinfo = &job->cinfo;
    bool is_cmyk = cinfo->out_color_space == JCS_CMYK;
    /* Once the data has ended, libjpeg invents grey: only the block row that it was in is kept. The rows of a
     * progressive picture are real all the same. */
    int left = cinfo->max_v_samp_factor * (int)cinfo->scale_num;
    while (cinfo->output_scanline < cinfo->output_height) {
        jpeg_read_scanlines(cinfo, &job->line, 1);
        if (job->ended_early && !cinfo->progressive_mode && left-- == 0)
            break;
        if (is_cmyk)
            convert_cmyk(job, job->line, job->converted);
        pm_raster_row(job->raster, is_cmyk ? job->converted : job->line);
    }
}

static int begin(struct job *job, const struct pm_single *single, struct pm_error *err)
{
    struct jpeg_decompress_struct *cinfo = &job->cinfo;
    job->picture = single->picture;
    if (cinfo->jpeg_color_space == JCS_GRAYSCALE)
        cinfo->out_color_space = JCS_GRAYSCALE;
    else if (cinfo->jpeg_color_space == JCS_CMYK || cinfo->jpeg_color_space == JCS_YCCK)
        cinfo->out_color_space = JCS_CMYK;
    else
        cinfo->out_color_space = JCS_EXT_BGR;
    choose_scale(job, &single->source->limits);
    jpeg_start_decompress(cinfo);
    job->line = malloc((size_t)cinfo->output_width * 4);
    job->converted = malloc((size_t)cinfo->output_width * 3);
    if (!job->line || !job->converted)
        return pm_fail(err, PM_ENOMEM, "cannot be decoded: out of memory");
    return pm_picture_begin(&job->picture, &single->source->limits, cinfo->output_width, cinfo->output_height,
                            cinfo->out_color_space == JCS_GRAYSCALE ? 1 : 3, job->raster, err);
}

static int render(void *document, uint32_t page, double dpi, struct pm_raster *raster, struct pm_error *err)
{
    const struct pm_single *single = document;
    struct job *job = new_job(err);
    (void)page;
    (void)dpi;
    if (!job)
        return PM_ENOMEM;
    job->raster = raster;
    if (setjmp(job->jump) == 0) {
        read_header(job, single->source);
        job->rc = begin(job, single, err);
        if (job->rc == 0)
            read_pixels(job);
    } else if (!raster->mapped)
        job->rc = pm_fail(err, PM_EFORMAT, "is a damaged JPEG: %s", job->message);
    if (job->rc == 0)
        job->rc = pm_raster_finish(raster, job->message, err);
    if (job->rc == 0 && job->errors.num_warnings && !raster->warning[0])
        snprintf(raster->warning, sizeof raster->warning, "is a damaged JPEG, parts may be wrong: %.120s",
                 job->message);
    int rc = job->rc;
    free_job(job);
    return rc;
}

const struct pm_loader pm_loader_jpeg = {
    .format = PM_FORMAT_JPEG,
    .header = header,
    .size = pm_single_size,
    .render = render,
    .close = pm_single_close,
};
