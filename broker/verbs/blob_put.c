/* BLOB_PUT: a document in chunks from a client that does not share the broker's file system. */
#include "broker/broker.h"
#include "proto/chunk.h"

#define UPLOAD_BYTES ((uint64_t)4 << 30)
#define ABANDONED_US 60000000

static void end_upload(struct pm_upload *u)
{
    pm_blob_stream_drop(&u->stream);
    *u = (struct pm_upload){.id = 0};
}

void pm_uploads_keep(struct pm_broker *b)
{
    for (size_t i = 0; i < b->conn_count; i++)
        for (int k = 0; k < PM_CONN_UPLOADS; k++) {
            struct pm_upload *u = &b->conns[i]->uploads[k];
            if (u->stream && b->now.us - u->touched_us > ABANDONED_US) {
                pm_count(b, PM_COUNT_uploads_abandoned);
                end_upload(u);
            }
        }
}

/* What has arrived of all documents. Files without a name: nothing else counts them. */
static uint64_t unfinished_bytes(const struct pm_broker *b)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < b->conn_count; i++)
        for (int k = 0; k < PM_CONN_UPLOADS; k++)
            bytes += b->conns[i]->uploads[k].stream ? b->conns[i]->uploads[k].bytes : 0;
    return bytes;
}

static int begin_upload(struct pm_broker *b, struct pm_conn *c, uint64_t id, struct pm_upload **out,
                        struct pm_error *err)
{
    struct pm_upload *u = NULL;
    for (int i = 0; i < PM_CONN_UPLOADS; i++) {
        if (c->uploads[i].stream && c->uploads[i].id == id)
            end_upload(&c->uploads[i]); /* it begins again */
        if (!c->uploads[i].stream)
            u = &c->uploads[i];
    }
    if (!u)
        return pm_fail(err, PM_EBUSY, "%d uploads are open on this connection, which is the limit",
                       PM_CONN_UPLOADS);
    int rc = pm_space_for(b, unfinished_bytes(b), err);
    if (rc)
        return rc;
    rc = pm_blob_stream_begin(b->blobs, &u->stream, err);
    if (rc)
        return rc;
    u->id = id;
    u->bytes = 0;
    u->touched_us = b->now.us;
    *out = u;
    return 0;
}

static int take_chunk(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m,
                      struct pm_upload **out, struct pm_error *err)
{
    const struct pm_msg_blob_put *p = m->record;
    struct pm_upload *u = NULL;
    if (p->raw_bytes > PM_CHUNK_BYTES)
        return pm_fail(err, PM_ELIMIT, "a chunk of %u bytes; the limit is %u", p->raw_bytes, PM_CHUNK_BYTES);
    for (int i = 0; i < PM_CONN_UPLOADS; i++)
        if (c->uploads[i].stream && c->uploads[i].id == p->upload)
            u = &c->uploads[i];
    if (!p->offset) {
        int rc = begin_upload(b, c, p->upload, &u, err);
        if (rc)
            return rc;
    }
    if (!u || u->bytes != p->offset)
        return pm_fail(err, PM_EPROTO, "upload %llu: a chunk for offset %llu came, %llu was expected",
                       (unsigned long long)p->upload, (unsigned long long)p->offset,
                       (unsigned long long)(u ? u->bytes : 0));
    *out = u;
    if (u->bytes + p->raw_bytes > UPLOAD_BYTES)
        return pm_fail(err, PM_ELIMIT, "a document may have %llu bytes", (unsigned long long)UPLOAD_BYTES);
    uint8_t *raw = pm_arena_alloc(&b->arena, p->raw_bytes + 1u);
    u->touched_us = b->now.us;
    int rc = pm_space_for(b, unfinished_bytes(b) + p->raw_bytes, err);
    if (!rc)
        rc = pm_chunk_unpack(m->payload, p->raw_bytes, raw, err);
    if (!rc)
        rc = pm_blob_stream_add(u->stream, raw, p->raw_bytes, err);
    if (!rc)
        u->bytes += p->raw_bytes;
    return rc;
}

int pm_verb_blob_put(struct pm_broker *b, struct pm_conn *c, const struct pm_message *m, struct pm_error *err)
{
    const struct pm_msg_blob_put *p = m->record;
    struct pm_upload *u = NULL;
    char key[PM_BLOB_KEY_SIZE] = "";
    struct pm_msg_blob_stored stored = {.ref = p->ref, .upload = p->upload};
    int rc = take_chunk(b, c, m, &u, err);
    if (!rc) {
        stored.offset = u->bytes;
        if (p->is_last) {
            rc = pm_blob_stream_finish(u->stream, key, err);
            end_upload(u);
            u = NULL;
        }
    }
    if (rc) {
        pm_count(b, PM_COUNT_uploads_refused);
        if (u)
            end_upload(u);
        return rc;
    }
    stored.blob = key;
    pm_conn_send(b, c, PM_MSG_BLOB_STORED, &stored);
    return 0;
}
