/* What kind of file some bytes are, told from their first bytes and never from the name.
 *
 * Pure: no library, no allocation, no I/O. Used for folder walks, for error texts, and to choose a loader.
 * Threads: reentrant. Errors: none; unknown bytes are PM_FORMAT_UNKNOWN. */
#ifndef PM_BASE_SNIFF_H
#define PM_BASE_SNIFF_H

#include <stdbool.h>
#include <stddef.h>

/* The numbers travel between layoutd and the decoder: append only. */
enum pm_format {
    PM_FORMAT_UNKNOWN = 0,
    PM_FORMAT_PDF,
    PM_FORMAT_PNG,
    PM_FORMAT_JPEG,
    PM_FORMAT_TIFF,
    PM_FORMAT_WEBP,
    PM_FORMAT_BMP,
    PM_FORMAT_GIF,
    PM_FORMAT_COUNT,
};

/* As many leading bytes as pm_sniff looks at (a PDF may begin with up to 1 KB of other bytes). Fewer are
 * fine. */
#define PM_SNIFF_BYTES 1024

enum pm_format pm_sniff(const void *bytes, size_t count);

/* "PDF", "PNG", ...; "unknown" for anything else. */
const char *pm_format_name(enum pm_format format);

/* By the name's extension, any case: for choosing files of a folder before they are opened. */
enum pm_format pm_format_from_name(const char *file_name);

/* One line for people about bytes that pm_sniff does not know, as the end of a sentence: "is empty",
 * "starts with \"Hello, wor\"", "starts with 7f 45 4c 46 02 01 01 00", "looks like a ZIP archive or Office
 * document". Always NUL-terminated; 64 bytes are enough. */
void pm_sniff_describe(const void *bytes, size_t count, char *text, size_t text_bytes);

#endif
