/* BLOB_GET: a chunk of a result. Pixel blobs and blobs that nobody refers to are not given out. */
#include "broker/broker.h"
#include "proto/chunk.h"

int pm_verb_blob_get(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_blob_get *q = m->record;
    struct pm_blob_map map;
    if (!pm_blob_is_key(q->blob) || q->blob[0] != 'd' || !pm_refs_has(b->refs, q->blob))
        return pm_fail(err, PM_ENOTFOUND, "there is no result \"%.80s\"", q->blob);
    int rc = pm_blob_map(b->blobs, q->blob, &map, err);
    if (rc)
        return rc;
    struct pm_msg_blob_data data = {.ref = q->ref, .offset = q->offset, .total = map.bytes};
    struct pm_buf packed = {0};
    if (q->offset > map.bytes) {
        rc = pm_fail(err, PM_EINVAL, "offset %llu lies behind the end (%zu bytes)",
                     (unsigned long long)q->offset, map.bytes);
    } else {
        size_t left = map.bytes - (size_t)q->offset;
        data.raw_bytes = left < PM_CHUNK_BYTES ? (uint32_t)left : PM_CHUNK_BYTES;
        if (data.raw_bytes)
            pm_chunk_pack(map.data + q->offset, data.raw_bytes, &packed);
        pm_conn_send_payload(b, c, PM_MSG_BLOB_DATA, &data, &packed);
    }
    pm_blob_unmap(&map);
    return rc;
}
