/* Any bytes as a whole message, as a peer sends it: frames of [u32 size][bytes], like the golden files. */
#include <stdlib.h>
#include <string.h>

#include "proto/chunk.h"
#include "proto/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool take(const uint8_t **data, size_t *size, struct pm_bytes *out)
{
    uint32_t bytes;
    if (*size < sizeof bytes)
        return false;
    memcpy(&bytes, *data, sizeof bytes);
    if (bytes > *size - sizeof bytes)
        return false;
    *out = (struct pm_bytes){*data + sizeof bytes, bytes};
    *data += sizeof bytes + bytes;
    *size -= sizeof bytes + bytes;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pm_bytes head, body, payload = {NULL, 0};
    struct pm_header header;
    struct pm_error err;
    struct pm_arena arena = {0};
    if (!take(&data, &size, &head) || !take(&data, &size, &body))
        return 0;
    (void)take(&data, &size, &payload);
    if (!pm_header_get(head.data, head.size, &header, &err)) {
        const struct pm_schema *schema = pm_msg_schema(header.type);
        void *record = pm_arena_alloc(&arena, schema->size), *again = pm_arena_alloc(&arena, schema->size);
        if (!pm_record_decode(schema, body.data, body.size, &arena, record, &err)) {
            struct pm_buf encoded = {0};
            uint8_t bytes[PM_FRAME_HEADER_BYTES];
            pm_header_put(&header, bytes);
            if (memcmp(bytes, head.data, sizeof bytes) != 0 ||
                pm_record_try_encode(schema, record, &encoded, &err) ||
                pm_record_decode(schema, encoded.data, encoded.size, &arena, again, &err))
                abort();
            pm_buf_free(&encoded);
            const struct pm_msg_blob_put *put = record;
            if (header.type == PM_MSG_BLOB_PUT && put->raw_bytes <= PM_CHUNK_BYTES)
                (void)pm_chunk_unpack(payload, put->raw_bytes, pm_arena_alloc(&arena, put->raw_bytes + 1u),
                                      &err);
        }
    }
    pm_arena_free(&arena);
    return 0;
}
