#include "proto/chunk.h"

#include <stdlib.h>

#include <lz4.h>

void pm_chunk_pack(const void *data, size_t bytes, struct pm_buf *out)
{
    PM_ASSERT(bytes <= PM_CHUNK_BYTES);
    if (!bytes)
        return;
    int bound = LZ4_compressBound((int)bytes);
    char *block = pm_xalloc((size_t)bound);
    int n = LZ4_compress_default(data, block, (int)bytes, bound);
    PM_ASSERT(n > 0);
    pm_buf_append(out, block, (size_t)n);
    free(block);
}

int pm_chunk_unpack(struct pm_bytes block, size_t raw_bytes, void *out, struct pm_error *err)
{
    if (raw_bytes > PM_CHUNK_BYTES)
        return pm_fail(err, PM_EPROTO, "chunk of %zu bytes, the limit is %u", raw_bytes, PM_CHUNK_BYTES);
    if (!raw_bytes && !block.size)
        return 0;
    if (block.size > (size_t)LZ4_compressBound((int)PM_CHUNK_BYTES))
        return pm_fail(err, PM_EPROTO, "packed chunk of %zu bytes is larger than any can be", block.size);
    int n = LZ4_decompress_safe((const char *)block.data, out, (int)block.size, (int)raw_bytes);
    if (n < 0 || (size_t)n != raw_bytes)
        return pm_fail(err, PM_EPROTO, "chunk of %zu packed bytes does not unpack to %zu", block.size,
                       raw_bytes);
    return 0;
}
