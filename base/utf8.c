#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

size_t pm_utf8_length(const void *data, size_t bytes)
{
    const uint8_t *p = data;
    if (p[0] < 0x80)
        return 1;
    size_t n;
    uint8_t low = 0x80, high = 0xbf; /* range of the second byte: excludes overlong forms and surrogates */
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        n = 2;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        n = 3;
        low = p[0] == 0xe0 ? 0xa0 : 0x80;
        high = p[0] == 0xed ? 0x9f : 0xbf;
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        n = 4;
        low = p[0] == 0xf0 ? 0x90 : 0x80;
        high = p[0] == 0xf4 ? 0x8f : 0xbf;
    } else {
        return 0;
    }
    if (bytes < n || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

/* End of the valid prefix; the ASCII run is taken eight bytes at a time, since most text is. */
static size_t valid_prefix(const uint8_t *p, size_t bytes)
{
    size_t i = 0;
    while (i < bytes) {
        uint64_t word;
        if (bytes - i >= sizeof word) {
            memcpy(&word, p + i, sizeof word);
            if (!(word & 0x8080808080808080u)) {
                i += sizeof word;
                continue;
            }
        }
        size_t n = pm_utf8_length(p + i, bytes - i);
        if (!n)
            break;
        i += n;
    }
    return i;
}

bool pm_utf8_is_valid(const void *data, size_t bytes)
{
    return valid_prefix(data, bytes) == bytes;
}

bool pm_utf8_is_text(const void *data, size_t bytes)
{
    return !bytes || (!memchr(data, 0, bytes) && pm_utf8_is_valid(data, bytes));
}

void pm_utf8_mend(const void *data, size_t bytes, struct pm_buf *out)
{
    const uint8_t *p = data;
    while (bytes) {
        size_t n = valid_prefix(p, bytes);
        pm_buf_append(out, p, n);
        p += n;
        bytes -= n;
        if (bytes) {
            pm_buf_append(out, "\xef\xbf\xbd", 3);
            p++;
            bytes--;
        }
    }
}

size_t pm_utf8_cut(const char *text, size_t limit)
{
    size_t n = strnlen(text, limit + 1);
    if (n <= limit)
        return n;
    n = limit;
    while (n && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--;
    return n;
}
