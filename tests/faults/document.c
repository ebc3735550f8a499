#include "tests/faults/document.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static uint64_t mix(uint64_t x) /* splitmix64 */
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

struct document document_of(unsigned number)
{
    uint64_t r = mix(number);
    return (struct document){.number = number, .pages = 1 + r % 3, .regions = 1 + r / 3 % 4};
}

void document_bytes(const struct document *d, struct pm_buf *out)
{
    pm_buf_printf(out, "storm %u %u %u\n", d->number, d->pages, d->regions);
    for (unsigned i = 0; i < 64 + mix(d->number) % 512; i++)
        pm_buf_printf(out, "%016" PRIx64 "\n", mix((uint64_t)d->number << 32 | i));
}

bool document_parse(const void *data, size_t bytes, struct document *out)
{
    char line[64] = "";
    struct pm_buf right = {0};
    memcpy(line, data, bytes < sizeof line - 1 ? bytes : sizeof line - 1);
    if (sscanf(line, "storm %u", &out->number) != 1)
        return false;
    *out = document_of(out->number);
    document_bytes(out, &right);
    bool same = right.size == bytes && !memcmp(right.data, data, bytes);
    pm_buf_free(&right);
    return same;
}

void document_region(const struct document *d, unsigned page, unsigned region, struct pm_buf *out)
{
    pm_buf_printf(out, "document %u page %u region %u: %016" PRIx64, d->number, page, region,
                  mix(mix(mix(d->number) + page) + region));
}

void document_result(const struct document *d, struct pm_buf *out)
{
    for (unsigned page = 1; page <= d->pages; page++)
        for (unsigned region = 0; region < d->regions; region++) {
            document_region(d, page, region, out);
            pm_buf_text(out, "\n");
        }
}

void document_hash_file(struct pm_hasher *h, const char *name, const void *data, size_t bytes)
{
    pm_hasher_add(h, name, strlen(name) + 1);
    pm_hasher_add(h, data, bytes);
}

void document_result_hash(unsigned number, char hex[PM_HASH_HEX + 1])
{
    struct document d = document_of(number);
    struct pm_buf text = {0};
    struct pm_hasher h;
    uint8_t hash[PM_HASH_BYTES];
    document_result(&d, &text);
    pm_hasher_start(&h);
    document_hash_file(&h, "doc.md", text.data, text.size);
    pm_hasher_finish(&h, hash);
    pm_hash_hex(hash, hex);
    pm_buf_free(&text);
}
