/* Disk blobs that come in pieces. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "proto/blob_internal.h"

#define WRITE_BACK_BYTES ((uint64_t)8 << 20) /* begun early, so that the sync at the end has little to do */

struct pm_blob_stream {
    struct pm_hasher hasher;
    const struct store *store;
    int fd;
    uint64_t bytes, begun;
};

int pm_blob_stream_begin(struct pm_blobs *blobs, struct pm_blob_stream **out, struct pm_error *err)
{
    const struct store *s = &blobs->store[PM_BLOB_DISK];
    void *memory = NULL; /* aligned as the hasher wants it */
    int fd = openat(s->fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return pm_fail_errno(err, "cannot make a file in %s", s->dir);
    int rc = pm_alloc_array(1, sizeof **out, &memory, err);
    if (rc) {
        close(fd);
        return rc;
    }
    *out = memory;
    **out = (struct pm_blob_stream){.store = s, .fd = fd};
    pm_hasher_start(&(*out)->hasher);
    return 0;
}

int pm_blob_stream_add(struct pm_blob_stream *stream, const void *data, size_t bytes, struct pm_error *err)
{
    int rc = pm_fs_write_all(stream->fd, data, bytes, err);
    if (rc)
        return rc;
    pm_hasher_add(&stream->hasher, data, bytes);
    stream->bytes += bytes;
    if (stream->bytes - stream->begun >= WRITE_BACK_BYTES) {
        (void)sync_file_range(stream->fd, (off_t)stream->begun, (off_t)(stream->bytes - stream->begun),
                              SYNC_FILE_RANGE_WRITE);
        stream->begun = stream->bytes;
    }
    return 0;
}

int pm_blob_stream_finish(struct pm_blob_stream *stream, char *key_out, struct pm_error *err)
{
    uint8_t hash[PM_HASH_BYTES];
    uint64_t random;
    const struct store *s = stream->store;
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        return pm_fail_errno(err, "cannot get random bytes");
    char *name = pm_xprintf("tmp/%d-%016llx", (int)getpid(), (unsigned long long)random);
    char *path = pm_xprintf("/proc/self/fd/%d", stream->fd);
    (void)flock(stream->fd, LOCK_EX | LOCK_NB);
    int rc = linkat(AT_FDCWD, path, s->fd, name, AT_SYMLINK_FOLLOW)
                 ? pm_fail_errno(err, "cannot name a file in %s/tmp", s->dir)
                 : 0;
    if (!rc) {
        pm_hasher_finish(&stream->hasher, hash);
        rc = pm_blob_publish(s, PM_BLOB_DISK, name, stream->fd, (size_t)stream->bytes, hash, key_out, err);
    }
    free(name);
    free(path);
    return rc;
}

void pm_blob_stream_drop(struct pm_blob_stream **stream)
{
    if (!*stream)
        return;
    close((*stream)->fd);
    free(*stream);
    *stream = NULL;
}
