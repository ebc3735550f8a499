#include "layoutd/decode/raster.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

/* Rows gathered before a turned picture is written: each column of the band is a run of this many pixels in
 * the result, which spares most of the cache misses of a transposition. */
#define BAND_ROWS 32

static int allocate(struct pm_raster *r, struct pm_error *err)
{
    r->mapped_bytes = (size_t)r->width_px * r->height_px * r->channels;
    r->memfd = memfd_create("pagemill-page", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (r->memfd < 0)
        return pm_fail_errno(err, "cannot make a memory file for the page");
    if (ftruncate(r->memfd, (off_t)r->mapped_bytes) != 0) {
        close(r->memfd);
        return pm_fail_errno(err, "cannot get %zu MB for the page", r->mapped_bytes >> 20);
    }
    void *mapped = mmap(NULL, r->mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->memfd, 0);
    if (mapped == MAP_FAILED) {
        close(r->memfd);
        return pm_fail(err, PM_ENOMEM, "needs %zu MB for a page of %u x %u pixels", r->mapped_bytes >> 20,
                       r->width_px, r->height_px);
    }
    r->mapped = mapped;
    return 0;
}

int pm_raster_begin(struct pm_raster *r, uint32_t source_width, uint32_t source_height, uint32_t target_width,
                    uint32_t target_height, uint32_t channels, int orientation, struct pm_error *err)
{
    PM_ASSERT(source_width && source_height && target_width && target_height && !r->mapped && !r->sealed);
    PM_ASSERT((channels == 1 || channels == 3) && orientation >= 1 && orientation <= 8);
    r->source_width = source_width;
    r->source_height = source_height;
    r->upright_width = target_width;
    r->upright_height = target_height;
    r->channels = channels;
    r->orientation = orientation;
    r->width_px = orientation >= 5 ? target_height : target_width;
    r->height_px = orientation >= 5 ? target_width : target_height;
    r->scaled = source_width != target_width || source_height != target_height;
    int rc = allocate(r, err);
    if (rc)
        return rc;
    size_t row = (size_t)target_width * channels;
    if (r->scaled) {
        r->sums = calloc(row, sizeof *r->sums);
        r->column = calloc(row, sizeof *r->column);
    }
    r->band = malloc(row * (orientation >= 5 ? BAND_ROWS : 1));
    if (!r->band || (r->scaled && (!r->sums || !r->column)))
        return pm_fail(err, PM_ENOMEM, "needs more memory for a page of %u x %u pixels", r->width_px,
                       r->height_px);
    return 0;
}

static void copy_mirrored(uint8_t *to, const uint8_t *from, uint32_t width, uint32_t channels)
{
    for (uint32_t x = 0; x < width; x++)
        memcpy(to + (size_t)x * channels, from + (size_t)(width - 1 - x) * channels, channels);
}

/* Writes the rows of the band as columns of the result. */
static void flush_band(struct pm_raster *r)
{
    uint32_t width = r->upright_width, height = r->upright_height, channels = r->channels, n = r->band_rows;
    size_t stride = (size_t)r->width_px * channels;
    bool right_to_left = r->orientation == 6 || r->orientation == 7; /* later rows go further left */
    bool bottom_up = r->orientation == 7 || r->orientation == 8;     /* later pixels go further up */
    for (uint32_t x = 0; x < width && n; x++) {
        uint8_t *row = r->mapped + stride * (bottom_up ? width - 1 - x : x);
        for (uint32_t k = 0; k < n; k++) {
            uint32_t y = r->band_first + k, column = right_to_left ? height - 1 - y : y;
            const uint8_t *from = r->band + ((size_t)k * width + x) * channels;
            uint8_t *to = row + (size_t)column * channels;
            to[0] = from[0];
            if (channels == 3) {
                to[1] = from[1];
                to[2] = from[2];
            }
        }
    }
    r->band_first += n;
    r->band_rows = 0;
}

/* Row y of the scaled, not yet turned picture. */
static void put_row(struct pm_raster *r, uint32_t y, const uint8_t *row)
{
    uint32_t width = r->upright_width;
    size_t bytes = (size_t)width * r->channels;
    uint32_t flipped = r->upright_height - 1 - y;
    switch (r->orientation) {
    case 1:
        memcpy(r->mapped + bytes * y, row, bytes);
        break;
    case 2:
        copy_mirrored(r->mapped + bytes * y, row, width, r->channels);
        break;
    case 3:
        copy_mirrored(r->mapped + bytes * flipped, row, width, r->channels);
        break;
    case 4:
        memcpy(r->mapped + bytes * flipped, row, bytes);
        break;
    default:
        memcpy(r->band + bytes * r->band_rows, row, bytes);
        r->band_rows++;
        if (r->band_rows == BAND_ROWS || y + 1 == r->upright_height)
            flush_band(r);
    }
}

/* Averages a source row into upright_width pixels. In units of 1 / (source * target), target pixel x covers
 * [x * source, (x + 1) * source) and source pixel s covers [s * target, (s + 1) * target): exact integers. */
static void average_row(struct pm_raster *r, const uint8_t *row)
{
    uint64_t source = r->source_width, target = r->upright_width, s = 0;
    uint32_t channels = r->channels;
    for (uint64_t x = 0; x < target; x++) {
        uint64_t from = x * source, to = from + source;
        double sum[3] = {0, 0, 0};
        for (;;) {
            uint64_t left = s * target, right = left + target;
            uint64_t low = left > from ? left : from, high = right < to ? right : to;
            for (uint32_t c = 0; c < channels; c++)
                sum[c] += (double)(high - low) * row[s * channels + c];
            if (right >= to) {
                s += right == to && s + 1 < source;
                break;
            }
            s++;
        }
        for (uint32_t c = 0; c < channels; c++)
            r->column[x * channels + c] = sum[c] / (double)source;
    }
}

/* Adds source row `y` to the target rows that it overlaps, and puts out those that it completes. */
static void scale_row(struct pm_raster *r, uint32_t y, const uint8_t *row)
{
    uint64_t source = r->source_height, target = r->upright_height;
    size_t values = (size_t)r->upright_width * r->channels;
    uint64_t top = y * target, bottom = top + target;
    uint8_t *out = r->band + (r->orientation >= 5 ? values * r->band_rows : 0);
    average_row(r, row);
    while (r->target_row < target) {
        uint64_t from = r->target_row * source, to = from + source;
        uint64_t low = top > from ? top : from, high = bottom < to ? bottom : to;
        if (low >= high)
            break;
        double weight = (double)(high - low) / (double)source;
        for (size_t i = 0; i < values; i++)
            r->sums[i] += weight * r->column[i];
        if (to > bottom)
            break;
        for (size_t i = 0; i < values; i++) {
            double v = r->sums[i] + 0.5;
            out[i] = v >= 255.0 ? 255 : (uint8_t)v;
            r->sums[i] = 0;
        }
        put_row(r, r->target_row++, out);
        out = r->band + (r->orientation >= 5 ? values * r->band_rows : 0);
    }
}

void pm_raster_row(struct pm_raster *r, const uint8_t *row)
{
    if (r->next_row >= r->source_height)
        return;
    uint32_t y = r->next_row++;
    if (r->scaled)
        scale_row(r, y, row);
    else
        put_row(r, y, row);
}

uint8_t *pm_raster_direct(struct pm_raster *r, uint32_t y)
{
    PM_ASSERT(!r->scaled && r->orientation == 1 && y < r->height_px);
    if (y >= r->next_row)
        r->next_row = y + 1;
    return r->mapped + (size_t)y * r->width_px * r->channels;
}

/* Rows that never came are white, so that a damaged page looks like paper and not like a black bar. */
static int fill_missing(struct pm_raster *r, const char *cause, struct pm_error *err)
{
    const char *why = cause && *cause ? cause : "the data ends early";
    if (r->next_row == 0)
        return pm_fail(err, PM_EFORMAT, "is damaged: no row of the picture can be read (%s)", why);
    if (r->next_row == r->source_height)
        return 0;
    snprintf(r->warning, sizeof r->warning, "is damaged: rows %u to %u of %u are missing (%.120s)",
             r->next_row, r->source_height - 1, r->source_height, why);
    size_t bytes = (size_t)r->source_width * r->channels;
    uint8_t *white = malloc(bytes);
    if (!white)
        return pm_fail(err, PM_ENOMEM, "needs more memory for a row of %u pixels", r->source_width);
    memset(white, 255, bytes);
    while (r->next_row < r->source_height)
        pm_raster_row(r, white);
    free(white);
    return 0;
}

static bool is_all_grey(const uint8_t *p, size_t pixels)
{
    /* Branch-free over a block, so that the compiler vectorises; most colour pictures stop in the first. */
    while (pixels) {
        size_t n = pixels < 4096 ? pixels : 4096;
        unsigned differs = 0;
        for (size_t i = 0; i < n; i++)
            differs |= (unsigned)(p[3 * i] ^ p[3 * i + 1]) | (unsigned)(p[3 * i] ^ p[3 * i + 2]);
        if (differs)
            return false;
        p += 3 * n;
        pixels -= n;
    }
    return true;
}

static int seal(struct pm_raster *r, struct pm_error *err)
{
    size_t pixels = (size_t)r->width_px * r->height_px, bytes = pixels * r->channels;
    if (r->channels == 3 && is_all_grey(r->mapped, pixels)) {
        for (size_t i = 0; i < pixels; i++)
            r->mapped[i] = r->mapped[3 * i];
        r->channels = 1;
        bytes = pixels;
    }
    munmap(r->mapped, r->mapped_bytes); /* a writable mapping would forbid the seal */
    r->mapped = NULL;
    r->sealed = true;
    if (ftruncate(r->memfd, (off_t)bytes) != 0 ||
        fcntl(r->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0)
        return pm_fail_errno(err, "cannot seal the page");
    return 0;
}

int pm_raster_finish(struct pm_raster *r, const char *cause, struct pm_error *err)
{
    int rc = fill_missing(r, cause, err);
    return rc ? rc : seal(r, err);
}

void pm_raster_free(struct pm_raster *r)
{
    if (r->mapped)
        munmap(r->mapped, r->mapped_bytes);
    if (r->mapped || r->sealed)
        close(r->memfd);
    free(r->sums);
    free(r->column);
    free(r->band);
    *r = (struct pm_raster){0};
}
