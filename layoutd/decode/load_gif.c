/* GIF through giflib: the first frame on its screen, transparency over white. An animation is one page. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gif_lib.h>

#include "base/mem.h"
#include "layoutd/decode/loader.h"

struct job {
    const struct pm_source *source;
    size_t offset;
    GifFileType *gif;
    int transparent;                   /* palette index, -1 for none */
    uint32_t left, top, width, height; /* of the frame */
    uint32_t screen_width, screen_height;
    bool is_interlaced;
    const ColorMapObject *colors;
};

static int on_read(GifFileType *gif, GifByteType *to, int count)
{
    struct job *job = gif->UserData;
    size_t there = job->source->size - job->offset;
    size_t n = count < 0 ? 0 : (size_t)count < there ? (size_t)count : there;
    memcpy(to, job->source->bytes + job->offset, n);
    job->offset += n;
    return (int)n;
}

static int damaged(const struct job *job, int code, struct pm_error *err)
{
    const char *text = GifErrorString(job->gif ? job->gif->Error : code);
    return pm_fail(err, PM_EFORMAT, "is a damaged GIF: %s", text ? text : "unknown error");
}

static int read_extension(struct job *job, struct pm_error *err)
{
    int code;
    GifByteType *bytes = NULL;
    if (DGifGetExtension(job->gif, &code, &bytes) == GIF_ERROR)
        return damaged(job, 0, err);
    while (bytes) {
        GraphicsControlBlock block;
        if (code == GRAPHICS_EXT_FUNC_CODE && DGifExtensionToGCB(bytes[0], bytes + 1, &block) == GIF_OK)
            job->transparent = block.TransparentColor;
        if (DGifGetExtensionNext(job->gif, &bytes) == GIF_ERROR)
            return damaged(job, 0, err);
    }
    return 0;
}

/* Reads up to the pixels of the first frame. */
static int seek_frame(struct job *job, struct pm_error *err)
{
    int code = 0;
    job->transparent = -1;
    job->gif = DGifOpen(job, on_read, &code);
    if (!job->gif)
        return damaged(job, code, err);
    GifRecordType type = UNDEFINED_RECORD_TYPE;
    while (type != IMAGE_DESC_RECORD_TYPE) {
        if (DGifGetRecordType(job->gif, &type) == GIF_ERROR)
            return damaged(job, 0, err);
        if (type == TERMINATE_RECORD_TYPE)
            return pm_fail(err, PM_EFORMAT, "is a damaged GIF: it has no picture");
        if (type == EXTENSION_RECORD_TYPE) {
            int rc = read_extension(job, err);
            if (rc)
                return rc;
        }
    }
    if (DGifGetImageDesc(job->gif) == GIF_ERROR)
        return damaged(job, 0, err);
    const GifImageDesc *d = &job->gif->Image;
    if (d->Left < 0 || d->Top < 0 || d->Width <= 0 || d->Height <= 0)
        return pm_fail(err, PM_EFORMAT, "is a damaged GIF: its frame is %d x %d pixels", d->Width, d->Height);
    job->left = (uint32_t)d->Left;
    job->top = (uint32_t)d->Top;
    job->width = (uint32_t)d->Width;
    job->height = (uint32_t)d->Height;
    job->is_interlaced = d->Interlace;
    uint32_t right = job->left + job->width, bottom = job->top + job->height;
    job->screen_width = job->gif->SWidth > 0 ? (uint32_t)job->gif->SWidth : 0;
    job->screen_height = job->gif->SHeight > 0 ? (uint32_t)job->gif->SHeight : 0;
    /* Frames that stick out of the screen exist; browsers enlarge the screen, and so do we. */
    if (right > job->screen_width)
        job->screen_width = right;
    if (bottom > job->screen_height)
        job->screen_height = bottom;
    job->colors = d->ColorMap ? d->ColorMap : job->gif->SColorMap;
    if (!job->colors)
        return pm_fail(err, PM_EFORMAT, "is a damaged GIF: it has no palette");
    return 0;
}

static void stop(struct job *job)
{
    int code;
    if (job->gif)
        DGifCloseFile(job->gif, &code);
}

static int header(const struct pm_source *source, struct pm_picture *out, struct pm_error *err)
{
    struct job job = {.source = source};
    int rc = seek_frame(&job, err);
    if (rc == 0) {
        out->width_px = job.screen_width;
        out->height_px = job.screen_height;
    }
    stop(&job);
    return rc;
}

/* Fills the frame's palette indices; returns how many lines came. */
static uint32_t read_indices(struct job *job, uint8_t *indices)
{
    static const struct {
        uint32_t first, step;
    } passes[] = {{0, 8}, {4, 8}, {2, 4}, {1, 2}, {0, 1}};
    uint32_t lines = 0;
    for (size_t p = job->is_interlaced ? 0 : 4; p < (job->is_interlaced ? 4u : 5u); p++)
        for (uint32_t y = passes[p].first; y < job->height; y += passes[p].step) {
            if (DGifGetLine(job->gif, indices + (size_t)y * job->width, (int)job->width) == GIF_ERROR)
                return lines;
            lines++;
        }
    return lines;
}

static void put_rows(const struct job *job, const uint8_t *indices, uint32_t frame_rows, uint8_t *line,
                     struct pm_raster *raster)
{
    for (uint32_t y = 0; y < job->screen_height; y++) {
        memset(line, 255, (size_t)job->screen_width * 3);
        if (y >= job->top && y < job->top + job->height) {
            if (y - job->top >= frame_rows)
                return;
            const uint8_t *row = indices + (size_t)(y - job->top) * job->width;
            uint8_t *to = line + 3 * (size_t)job->left;
            for (uint32_t x = 0; x < job->width; x++, to += 3) {
                if (row[x] == job->transparent || row[x] >= job->colors->ColorCount)
                    continue;
                GifColorType color = job->colors->Colors[row[x]];
                to[0] = color.Blue;
                to[1] = color.Green;
                to[2] = color.Red;
            }
        }
        pm_raster_row(raster, line);
    }
}

static int render(void *document, uint32_t page, double dpi, struct pm_raster *raster, struct pm_error *err)
{
    const struct pm_single *single = document;
    struct job job = {.source = single->source};
    uint8_t *indices = NULL, *line = NULL;
    (void)page;
    (void)dpi;
    int rc = seek_frame(&job, err);
    if (rc == 0)
        rc = pm_picture_begin(&single->picture, &single->source->limits, job.screen_width, job.screen_height,
                              3, raster, err);
    if (rc)
        goto out;
    indices = malloc((size_t)job.width * job.height);
    line = malloc((size_t)job.screen_width * 3);
    if (!indices || !line) {
        rc = pm_fail(err, PM_ENOMEM, "needs %zu MB for its pixels", ((size_t)job.width * job.height) >> 20);
        goto out;
    }
    /* Pixels that never come take the transparent index, or white through the bound above. */
    memset(indices, job.transparent >= 0 ? job.transparent : 255, (size_t)job.width * job.height);
    uint32_t lines = read_indices(&job, indices);
    if (lines)
        put_rows(&job, indices, job.is_interlaced ? job.height : lines, line, raster);
    rc = pm_raster_finish(raster, GifErrorString(job.gif->Error), err);
    if (rc == 0 && job.is_interlaced && lines < job.height)
        snprintf(raster->warning, sizeof raster->warning, "is damaged: %u of %u rows are missing",
                 job.height - lines, job.height);
out:
    free(indices);
    free(line);
    stop(&job);
    return rc;
}

const struct pm_loader pm_loader_gif = {
    .format = PM_FORMAT_GIF,
    .header = header,
    .size = pm_single_size,
    .render = render,
    .close = pm_single_close,
};
