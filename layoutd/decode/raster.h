/* The page that a loader fills: rows in, from top to bottom, a sealed memfd out.
 *
 * Between the two the raster reduces large pictures (box filter), stretches faxes with unequal resolutions,
 * turns by EXIF orientation, and drops to one channel when every pixel is grey. The pixels lie in the memfd
 * from the start, so nothing is copied at the end.
 *
 * Life: zero-initialise, pm_raster_begin, pm_raster_row for each source row, pm_raster_finish; pm_raster_free
 * at any time. Threads: one owner. Errors: PM_EINTERNAL for misuse is never returned: rows past the end are
 * dropped. */
#ifndef PM_LAYOUTD_DECODE_RASTER_H
#define PM_LAYOUTD_DECODE_RASTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PM_RASTER_WARNING_BYTES 200

struct pm_raster {
    uint32_t width_px, height_px; /* of the result, turned and reduced */
    uint32_t channels;            /* 1 or 3 (B, G, R) */
    double dpi;                   /* of the result; 0: unknown */
    int memfd;                    /* valid from begin to free when mapped != NULL or sealed */
    bool sealed;
    char warning[PM_RASTER_WARNING_BYTES];

    /* private */
    uint8_t *mapped;
    size_t mapped_bytes;
    uint32_t source_width, source_height, next_row;
    uint32_t upright_width, upright_height; /* scaled, not yet turned */
    int orientation;
    bool scaled;
    double *sums;        /* one scaled row being summed: upright_width * channels */
    double *column;      /* horizontally averaged source row */
    uint32_t target_row; /* scaled row that sums is for */
    uint8_t *band;       /* turned pictures: rows waiting to be written as columns */
    uint32_t band_first, band_rows;
};

/* source_* are the stored dimensions (checked by pm_picture_check); target_* the wanted upright size before
 * the turn, at most max(...) as the loader computed. */
int pm_raster_begin(struct pm_raster *raster, uint32_t source_width, uint32_t source_height,
                    uint32_t target_width, uint32_t target_height, uint32_t channels, int orientation,
                    struct pm_error *err);
/* The next source row: source_width * channels bytes. */
void pm_raster_row(struct pm_raster *raster, const uint8_t *row);
/* For loaders that write pixels in place: row y of the result (only unscaled, orientation 1). */
uint8_t *pm_raster_direct(struct pm_raster *raster, uint32_t y);
/* Rows not delivered become white; `cause` (may be NULL: "the data ends early") goes to the warning.
 * PM_EFORMAT when no row came at all. Then the grey check and the seals. */
int pm_raster_finish(struct pm_raster *raster, const char *cause, struct pm_error *err);
void pm_raster_free(struct pm_raster *raster);

#endif
