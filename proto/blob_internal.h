/* The blob store's own: shared by blob.c and blob_stream.c. */
#ifndef PM_PROTO_BLOB_INTERNAL_H
#define PM_PROTO_BLOB_INTERNAL_H

#include "base/hash.h"
#include "proto/blob.h"

struct store {
    char *dir;
    int fd;
    uint64_t bytes; /* that the last sweep left */
};
struct pm_blobs {
    struct store store[2]; /* by class */
};

/* Ends the writing of a temporary: sync, rename, sync the directory; the temporary is gone afterwards. */
int pm_blob_publish(const struct store *s, enum pm_blob_class cls, const char *temporary, int fd,
                    size_t bytes, const uint8_t hash[PM_HASH_BYTES], char *key_out, struct pm_error *err);

#endif
