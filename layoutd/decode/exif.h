/* Orientation and resolution from an EXIF block (a small TIFF directory inside JPEG, PNG and WebP files).
 * Pure; hostile bytes are expected: anything odd leaves the values as they were. */
#ifndef PM_LAYOUTD_DECODE_EXIF_H
#define PM_LAYOUTD_DECODE_EXIF_H

#include <stddef.h>
#include <stdint.h>

struct pm_exif {
    int orientation; /* 1..8 */
    double dpi_x, dpi_y;
};

/* bytes begin with the byte-order mark, or with "Exif\0\0" before it. */
void pm_exif_parse(const uint8_t *bytes, size_t size, struct pm_exif *exif);

#endif
