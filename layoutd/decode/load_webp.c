/* WebP through libwebp: lossy and lossless, alpha over white, EXIF turn; of an animation the first frame.
 * The incremental decoder is used throughout, because it says how far a cut file went. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>

#include "layoutd/decode/exif.h"
#include "layoutd/decode/loader.h"

static void read_exif(const struct pm_source *source, struct pm_picture *picture)
{
    WebPData data = {source->bytes, source->size};
    WebPDemuxState state;
    WebPDemuxer *demuxer = WebPDemuxPartial(&data, &state);
    WebPChunkIterator chunk;
    if (!demuxer)
        return;
    if (WebPDemuxGetChunk(demuxer, "EXIF", 1, &chunk)) {
        struct pm_exif exif = {1, 0, 0};
        pm_exif_parse(chunk.chunk.bytes, chunk.chunk.size, &exif);
        picture->orientation = exif.orientation;
        if (exif.dpi_x > 0 && exif.dpi_x == exif.dpi_y)
            picture->dpi_x = picture->dpi_y = exif.dpi_x;
        WebPDemuxReleaseChunkIterator(&chunk);
    }
    WebPDemuxDelete(demuxer);
}

static const char *reason(VP8StatusCode status)
{
    switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY:
        return "out of memory";
    case VP8_STATUS_BITSTREAM_ERROR:
        return "the bit stream is damaged";
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        return "it uses an unknown feature";
    default:
        return "the data ends early";
    }
}

static int header(const struct pm_source *source, struct pm_picture *out, struct pm_error *err)
{
    WebPBitstreamFeatures features;
    VP8StatusCode status = WebPGetFeatures(source->bytes, source->size, &features);
    if (status != VP8_STATUS_OK)
        return pm_fail(err, PM_EFORMAT, "is a damaged WebP: %s", reason(status));
    out->width_px = features.width > 0 ? (uint32_t)features.width : 0;
    out->height_px = features.height > 0 ? (uint32_t)features.height : 0;
    read_exif(source, out);
    return 0;
}

/* B, G, R, A with straight alpha -> B, G, R over white. */
static void put_rows(struct pm_raster *raster, const uint8_t *pixels, uint32_t width, uint32_t rows,
                     bool has_alpha, uint8_t *line)
{
    size_t stride = (size_t)width * (has_alpha ? 4 : 3);
    for (uint32_t y = 0; y < rows; y++) {
        const uint8_t *from = pixels + stride * y;
        if (!has_alpha) {
            pm_raster_row(raster, from);
            continue;
        }
        for (uint32_t x = 0; x < width; x++)
            for (uint32_t c = 0; c < 3; c++)
                line[3 * x + c] =
                    (uint8_t)((from[4 * x + c] * from[4 * x + 3] + 255 * (255u - from[4 * x + 3]) + 127) /
                              255);
        pm_raster_row(raster, line);
    }
}

static int render_still(const struct pm_single *single, const WebPBitstreamFeatures *features,
                        struct pm_raster *raster, uint8_t *line, struct pm_error *err)
{
    uint32_t width = single->picture.width_px, height = single->picture.height_px;
    size_t stride = (size_t)width * (features->has_alpha ? 4 : 3);
    WebPDecoderConfig config;
    int rows = 0;
    if (!WebPInitDecoderConfig(&config))
        return pm_fail(err, PM_EINTERNAL, "cannot be decoded: libwebp is of another version");
    uint8_t *pixels = malloc(stride * height);
    if (!pixels)
        return pm_fail(err, PM_ENOMEM, "needs %zu MB for its pixels", stride * height >> 20);
    config.output.colorspace = features->has_alpha ? MODE_BGRA : MODE_BGR;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = pixels;
    config.output.u.RGBA.stride = (int)stride;
    config.output.u.RGBA.size = stride * height;
    WebPIDecoder *decoder = WebPIDecode(NULL, 0, &config);
    VP8StatusCode status = decoder ? WebPIUpdate(decoder, single->source->bytes, single->source->size)
                                   : VP8_STATUS_OUT_OF_MEMORY;
    if (status == VP8_STATUS_OK)
        rows = (int)height;
    else if (decoder)
        WebPIDecGetRGB(decoder, &rows, NULL, NULL, NULL);
    rows = rows < 0 ? 0 : rows > (int)height ? (int)height : rows;
    put_rows(raster, pixels, width, (uint32_t)rows, features->has_alpha, line);
    WebPIDelete(decoder);
    WebPFreeDecBuffer(&config.output);
    free(pixels);
    return pm_raster_finish(raster, reason(status), err);
}

static int render_animation(const struct pm_single *single, struct pm_raster *raster, uint8_t *line,
                            struct pm_error *err)
{
    WebPData data = {single->source->bytes, single->source->size};
    WebPAnimDecoderOptions options;
    uint8_t *canvas = NULL;
    int time_ms, rc;
    if (!WebPAnimDecoderOptionsInit(&options))
        return pm_fail(err, PM_EINTERNAL, "cannot be decoded: libwebp is of another version");
    options.color_mode = MODE_BGRA;
    WebPAnimDecoder *decoder = WebPAnimDecoderNew(&data, &options);
    if (decoder && WebPAnimDecoderGetNext(decoder, &canvas, &time_ms) && canvas) {
        put_rows(raster, canvas, single->picture.width_px, single->picture.height_px, true, line);
        rc = pm_raster_finish(raster, NULL, err);
    } else
        rc = pm_fail(err, PM_EFORMAT, "is a damaged WebP: its first frame cannot be read");
    WebPAnimDecoderDelete(decoder);
    return rc;
}

static int render(void *document, uint32_t page, double dpi, struct pm_raster *raster, struct pm_error *err)
{
    const struct pm_single *single = document;
    const struct pm_picture *p = &single->picture;
    WebPBitstreamFeatures features;
    (void)page;
    (void)dpi;
    VP8StatusCode status = WebPGetFeatures(single->source->bytes, single->source->size, &features);
    if (status != VP8_STATUS_OK)
        return pm_fail(err, PM_EFORMAT, "is a damaged WebP: %s", reason(status));
    int rc = pm_picture_begin(p, &single->source->limits, p->width_px, p->height_px, 3, raster, err);
    if (rc)
        return rc;
    uint8_t *line = malloc((size_t)p->width_px * 3);
    if (!line)
        return pm_fail(err, PM_ENOMEM, "cannot be decoded: out of memory");
    rc = features.has_animation ? render_animation(single, raster, line, err)
                                : render_still(single, &features, raster, line, err);
    free(line);
    return rc;
}

const struct pm_loader pm_loader_webp = {
    .format = PM_FORMAT_WEBP,
    .header = header,
    .size = pm_single_size,
    .render = render,
    .close = pm_single_close,
};
