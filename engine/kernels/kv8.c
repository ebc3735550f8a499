#include <string.h>

#define KV8(name) kv8_plain_##name
#include "engine/kernels/kv8_body.h"

const struct pm_kv8_kernels pm_kv8_plain = {kv8_plain_put, kv8_plain_expand};

size_t pm_kv8_block_bytes(int dim)
{
    size_t width = ((size_t)dim + 15) / 16 * 16, even = ((size_t)dim + 1) / 2 * 2;
    return (width + even) * PM_ATTENTION_BLOCK + 2 * PM_ATTENTION_BLOCK * sizeof(float);
}

const struct pm_kv8_kernels *pm_kv8_get(const struct pm_kernels *kernels)
{
#if defined(__x86_64__)
    if (!strncmp(kernels->name, "avx512", 6))
        return &pm_kv8_avx512;
    if (!strcmp(kernels->name, "avx2"))
        return &pm_kv8_avx2;
#endif
    (void)kernels;
    return &pm_kv8_plain;
}
