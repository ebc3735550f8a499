#include "client/cli/show.h"

#include <inttypes.h>
#include <string.h>

#include "client/cli/progress.h"

void pm_show_text(const char *text, FILE *out)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        fputc(*p < 0x20 || *p == 0x7f ? '?' : *p, out);
}

void pm_show_duration(int64_t us, char *text, size_t text_bytes)
{
    if (us < 0)
        us = 0;
    if (us && us < 9950)
        snprintf(text, text_bytes, "%.1f ms", (double)us / 1000);
    else if (us < 1000000)
        snprintf(text, text_bytes, "%" PRId64 " ms", us / 1000);
    else if (us < 60000000)
        snprintf(text, text_bytes, "%.1f s", (double)us / 1e6);
    else if (us < (int64_t)86400 * 2 * 1000000)
        pm_progress_time(us, text, text_bytes);
    else
        snprintf(text, text_bytes, "%" PRId64 " d", us / 1000000 / 86400);
}

void pm_show_bytes(uint64_t bytes, char *text, size_t text_bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    double v = (double)bytes;
    int unit = 0;
    while (v >= 1000 && unit < 5) {
        v /= 1000;
        unit++;
    }
    snprintf(text, text_bytes, unit && v < 10 ? "%.1f %s" : "%.0f %s", v, units[unit]);
}

void pm_show_count(uint64_t count, char *text, size_t text_bytes)
{
    static const char units[] = "kMGTPE";
    double v = (double)count;
    int unit = -1;
    if (count < 10000) {
        snprintf(text, text_bytes, "%" PRIu64, count);
        return;
    }
    while (v >= 999.5 && unit < 5) {
        v /= 1000;
        unit++;
    }
    snprintf(text, text_bytes, v < 9.95 ? "%.1f%c" : "%.0f%c", v, units[unit]);
}

void pm_show_rate(double per_s, char *text, size_t text_bytes)
{
    text[0] = 0;
    if (per_s >= 9999.5)
        snprintf(text, text_bytes, "%.0fk/s", per_s / 1000);
    else if (per_s >= 99.5)
        snprintf(text, text_bytes, "%.0f/s", per_s);
    else if (per_s >= 9.95)
        snprintf(text, text_bytes, "%.1f/s", per_s);
    else if (per_s >= 0.005)
        snprintf(text, text_bytes, "%.2f/s", per_s);
}

void pm_show_bar(double part, int width, char *text, size_t text_bytes)
{
    int room = width < (int)text_bytes ? width : (int)text_bytes - 1, at = 0;
    text[0] = 0;
    if (room < 3)
        return;
    part = part >= 0 && part <= 1 ? part : part > 1 ? 1 : 0;
    int full = (int)((room - 2) * part);
    text[at++] = '[';
    for (int i = 0; i < room - 2; i++)
        text[at++] = i < full ? '#' : '.';
    text[at++] = ']';
    text[at] = 0;
}

/* ---- columns ---- */

/* The next character of mended or unmended UTF-8: a broken byte is one of its own. */
static size_t next_character(const unsigned char *p, uint32_t *out)
{
    size_t n = *p < 0x80 ? 1 : *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : *p >= 0xc0 ? 2 : 1;
    uint32_t c = n == 1 ? *p : *p & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            *out = 0xfffd;
            return 1;
        }
        c = c << 6 | (p[i] & 0x3f);
    }
    *out = c;
    return n;
}

/* The ranges that terminals agree on; finer rules would differ between them. */
static int width_of(uint32_t c)
{
    bool is_combining = (c >= 0x300 && c <= 0x36f) || (c >= 0x1ab0 && c <= 0x1aff) ||
                        (c >= 0x20d0 && c <= 0x20ff) || (c >= 0xfe00 && c <= 0xfe0f) ||
                        (c >= 0xfe20 && c <= 0xfe2f) || c == 0x200b || c == 0x200d;
    bool is_wide = (c >= 0x1100 && c <= 0x115f) || (c >= 0x2e80 && c <= 0xa4cf && c != 0x303f) ||
                   (c >= 0xac00 && c <= 0xd7a3) || (c >= 0xf900 && c <= 0xfaff) ||
                   (c >= 0xfe30 && c <= 0xfe6f) || (c >= 0xff00 && c <= 0xff60) ||
                   (c >= 0xffe0 && c <= 0xffe6) || (c >= 0x1f300 && c <= 0x1faff) ||
                   (c >= 0x20000 && c <= 0x3fffd);
    return is_combining ? 0 : is_wide ? 2 : 1;
}

int pm_show_columns(const char *text)
{
    int columns = 0;
    uint32_t c;
    for (const unsigned char *p = (const unsigned char *)text; *p; columns += width_of(c))
        p += next_character(p, &c);
    return columns;
}

size_t pm_show_fit(const char *text, int columns)
{
    const unsigned char *p = (const unsigned char *)text;
    uint32_t c;
    for (int used = 0; *p;) {
        size_t n = next_character(p, &c);
        used += width_of(c);
        if (used > columns)
            break;
        p += n;
    }
    return (size_t)(p - (const unsigned char *)text);
}
