/* Pieces of blobs for peers that share no file system: an LZ4 block of at most PM_CHUNK_BYTES raw bytes, the
 * payload of BLOB_PUT and BLOB_DATA.
 *
 * Ownership: outputs go to the caller's buffers. Threads: pure functions. Errors: PM_EPROTO for a block that
 * does not unpack to exactly the bytes its record announces. */
#ifndef PM_PROTO_CHUNK_H
#define PM_PROTO_CHUNK_H

#include <stddef.h>

#include "base/error.h"
#include "base/mem.h"
#include "proto/messages.h"

/* Appends the block of at most PM_CHUNK_BYTES bytes. An empty chunk has an empty block. */
void pm_chunk_pack(const void *data, size_t bytes, struct pm_buf *out);
/* out: room for raw_bytes (at most PM_CHUNK_BYTES), the record's raw_bytes. */
int pm_chunk_unpack(struct pm_bytes block, size_t raw_bytes, void *out, struct pm_error *err);

#endif
