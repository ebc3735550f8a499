#include "base/sniff.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool has(const uint8_t *bytes, size_t count, size_t offset, const char *magic, size_t magic_bytes)
{
    return count >= offset + magic_bytes && memcmp(bytes + offset, magic, magic_bytes) == 0;
}

#define HAS(offset, literal) has(bytes, count, (offset), (literal), sizeof(literal) - 1)

/* "BM" alone begins many texts, so the size of the information header must be one that exists, too. */
static bool is_bmp(const uint8_t *bytes, size_t count)
{
    static const uint8_t header_sizes[] = {12, 16, 40, 52, 56, 64, 108, 124};
    if (!HAS(0, "BM") || count < 18 || bytes[15] || bytes[16] || bytes[17])
        return false;
    for (size_t i = 0; i < sizeof header_sizes; i++)
        if (bytes[14] == header_sizes[i])
            return true;
    return false;
}

enum pm_format pm_sniff(const void *data, size_t count)
{
    const uint8_t *bytes = data;
    if (HAS(0, "%PDF-"))
        return PM_FORMAT_PDF;
    if (HAS(0, "\x89PNG\r\n\x1a\n"))
        return PM_FORMAT_PNG;
    if (HAS(0, "\xff\xd8\xff"))
        return PM_FORMAT_JPEG;
    if (HAS(0, "II*\0") || HAS(0, "MM\0*") || HAS(0, "II+\0\x08\0\0\0") || HAS(0, "MM\0+\0\x08\0\0"))
        return PM_FORMAT_TIFF;
    if (HAS(0, "RIFF") && HAS(8, "WEBP"))
        return PM_FORMAT_WEBP;
    if (HAS(0, "GIF87a") || HAS(0, "GIF89a"))
        return PM_FORMAT_GIF;
    if (is_bmp(bytes, count))
        return PM_FORMAT_BMP;
    /* Readers accept a PDF header anywhere in the first kilobyte (mail headers, printer job prologues). */
    for (size_t i = 1; i < count && i + 5 <= PM_SNIFF_BYTES; i++)
        if (HAS(i, "%PDF-"))
            return PM_FORMAT_PDF;
    return PM_FORMAT_UNKNOWN;
}

const char *pm_format_name(enum pm_format format)
{
    static const char *const names[PM_FORMAT_COUNT] = {"unknown", "PDF",  "PNG", "JPEG",
                                                       "TIFF",    "WebP", "BMP", "GIF"};
    return (unsigned)format < PM_FORMAT_COUNT ? names[format] : names[0];
}

enum pm_format pm_format_from_name(const char *file_name)
{
    static const struct {
        const char *extension;
        enum pm_format format;
    } table[] = {
        {"pdf", PM_FORMAT_PDF},  {"png", PM_FORMAT_PNG},  {"jpg", PM_FORMAT_JPEG},  {"jpeg", PM_FORMAT_JPEG},
        {"jpe", PM_FORMAT_JPEG}, {"tif", PM_FORMAT_TIFF}, {"tiff", PM_FORMAT_TIFF}, {"webp", PM_FORMAT_WEBP},
        {"bmp", PM_FORMAT_BMP},  {"dib", PM_FORMAT_BMP},  {"gif", PM_FORMAT_GIF},
    };
    const char *slash = strrchr(file_name, '/');
    const char *dot = strrchr(slash ? slash + 1 : file_name, '.');
    if (dot)
        for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
            if (strcasecmp(dot + 1, table[i].extension) == 0)
                return table[i].format;
    return PM_FORMAT_UNKNOWN;
}

/* Kinds that people send by mistake, so that the refusal names what they have. */
static const char *known_other(const uint8_t *bytes, size_t count)
{
    if (HAS(0, "PK\x03\x04"))
        return "a ZIP archive or Office document";
    if (HAS(0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"))
        return "an old Office document";
    if (HAS(4, "ftypheic") || HAS(4, "ftypheix") || HAS(4, "ftypmif1"))
        return "a HEIC picture";
    if (HAS(4, "ftypavif"))
        return "an AVIF picture";
    if (HAS(0, "\0\0\0\x0cjP  ") || HAS(0, "\xff\x4f\xff\x51"))
        return "a JPEG 2000 picture";
    if (HAS(0, "AT&TFORM"))
        return "a DjVu document";
    if (HAS(0, "%!PS"))
        return "PostScript";
    if (HAS(0, "{\\rtf"))
        return "an RTF document";
    if (HAS(0, "\x1f\x8b"))
        return "a gzip archive";
    if (HAS(0, "<?xml") || HAS(0, "<svg") || HAS(0, "<!DOCTYPE") || HAS(0, "<html"))
        return "an XML or HTML document";
    return NULL;
}

void pm_sniff_describe(const void *data, size_t count, char *text, size_t text_bytes)
{
    const uint8_t *bytes = data;
    if (count == 0) {
        snprintf(text, text_bytes, "is empty");
        return;
    }
    const char *other = known_other(bytes, count);
    if (other) {
        snprintf(text, text_bytes, "looks like %s", other);
        return;
    }
    size_t shown = count < 10 ? count : 10, printable = 0;
    while (printable < shown && bytes[printable] >= 0x20 && bytes[printable] < 0x7f)
        printable++;
    if (printable == shown) {
        snprintf(text, text_bytes, "starts with \"%.*s\"", (int)shown, (const char *)bytes);
        return;
    }
    int used = snprintf(text, text_bytes, "starts with");
    for (size_t i = 0; i < count && i < 8 && used > 0 && (size_t)used < text_bytes; i++)
        used += snprintf(text + used, text_bytes - (size_t)used, " %02x", bytes[i]);
}
