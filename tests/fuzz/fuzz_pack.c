/* Any bytes as a packed weight file. The index checksum is put right first, where there is room for one, so
 * that the checks behind it are reached. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "engine/pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pm_pack *p;
    struct pm_error err;
    void *copy;
    if (pm_alloc_array(size ? size : 1, 1, &copy, NULL))
        return 0;
    uint8_t *d = copy;
    memcpy(d, data, size);
    uint64_t index = 0;
    if (size >= 4096) {
        memcpy(d, "PMWEIGHT\1\0\0\0\200\0\0\0", 16);
        memcpy(d + 16, &(uint64_t){size}, 8);
        memcpy(&index, d + 24, 8);
    }
    if (index >= 128 && index <= size) {
        memcpy(d + 32, &(uint64_t){size - index}, 8);
        struct pm_hasher h;
        pm_hasher_start(&h);
        pm_hasher_add(&h, d, 64);
        pm_hasher_add(&h, d + index, size - (size_t)index);
        pm_hasher_finish(&h, d + 64);
    }
    if (!pm_pack_parse("fuzz", d, size, &p, &err)) {
        for (size_t i = 0; i < pm_pack_count(p); i++) {
            const struct pm_tensor *t = &pm_pack_at(p, i)->tensor;
            if (t->data < d || t->bytes > size || t->data + t->bytes > d + size ||
                pm_pack_find(p, t->name) == NULL)
                abort();
        }
        pm_pack_free(&p);
    }
    free(copy);
    return 0;
}
