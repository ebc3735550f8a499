/* Pictures of a page as JPEG (libjpeg-turbo), quality 95, 4:4:4, with the page's resolution.
 *
 * The same pixels give the same bytes with one version of the library. Threads: reentrant. */
#ifndef PM_COLLECTOR_JPEG_H
#define PM_COLLECTOR_JPEG_H

#include "base/error.h"
#include "base/image.h"
#include "base/mem.h"

#define PM_JPEG_QUALITY 95

/* Appends the file to out. dpi 0: unknown. PM_ELIMIT for a side above 65,500 pixels, PM_EINTERNAL when the
 * library refuses. */
int pm_jpeg_encode(const struct pm_image *image, float dpi, struct pm_buf *out, struct pm_error *err);

#endif
