/* The blob store: files that every process of the fleet maps, named by their content.
 *
 *     DISK/ab/abcdef...   sources and results; synced before their key is told to anyone
 *     PIXELS/ab/abcd...   crop sheets, on tmpfs; gone after a reboot
 *     DISK/tmp, PIXELS/tmp  files being written, locked (flock) by their writer; swept when it is gone
 *
 * A key is a class letter and the BLAKE2b-256 of the content in hex: "d" or "p" + 64 digits. Pixels that were
 * written in place have 64 random digits instead: they are made once, and hashing them would take longer than
 * everything else that is done to hand them over. Writers may put the same content at once: the last rename
 * wins, with equal bytes. Only the broker removes blobs; it alone knows who refers to them. Putting a blob
 * that exists refreshes its mtime, so that a sweep with a grace period never removes what somebody is about
 * to refer to. Threads: a pm_blobs is read-only after opening and may be shared. */
#ifndef PM_PROTO_BLOB_H
#define PM_PROTO_BLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PM_BLOB_KEY_SIZE 66 /* with NUL */

enum pm_blob_class { PM_BLOB_DISK, PM_BLOB_PIXELS };

struct pm_blobs;
/* Opens (and makes, mode 0700) the two directories. */
int pm_blobs_open(const char *disk_dir, const char *pixel_dir, struct pm_blobs **out, struct pm_error *err);
void pm_blobs_free(struct pm_blobs **blobs);

bool pm_blob_is_key(
    const char *key); /* well-formed? Keys from peers are checked with this before any path is made */

/* key_out: [PM_BLOB_KEY_SIZE]. PM_ENOSPC when the file system is full. */
int pm_blob_put(struct pm_blobs *blobs, enum pm_blob_class cls, const void *data, size_t bytes, char *key_out,
                struct pm_error *err);
/* Copies a file (fd from its current offset to the end, at most limit_bytes) into the store, hashing on the
 * way. */
int pm_blob_put_fd(struct pm_blobs *blobs, enum pm_blob_class cls, int fd, uint64_t limit_bytes,
                   char *key_out, uint64_t *bytes_out, struct pm_error *err);

/* A disk blob that comes in pieces, hashed as they come: its end costs no second pass. The file has no name
 * until then: whatever happens to its writer, nothing of it stays. add and finish: after an error only drop.
 */
struct pm_blob_stream;
int pm_blob_stream_begin(struct pm_blobs *blobs, struct pm_blob_stream **out, struct pm_error *err);
int pm_blob_stream_add(struct pm_blob_stream *stream, const void *data, size_t bytes, struct pm_error *err);
int pm_blob_stream_finish(struct pm_blob_stream *stream, char *key_out, struct pm_error *err);
void pm_blob_stream_drop(struct pm_blob_stream **stream); /* also after finish; NULL is fine */

/* In-place writing of a blob whose size is known: map, fill, finish. */
struct pm_blob_draft {
    uint8_t *data; /* [bytes], zeroed, writable until finish or drop */
    size_t bytes;
    char *path; /* private */
    int fd;     /* private */
    enum pm_blob_class cls;
};
int pm_blob_draft(struct pm_blobs *blobs, enum pm_blob_class cls, size_t bytes, struct pm_blob_draft *out,
                  struct pm_error *err);
int pm_blob_finish(struct pm_blobs *blobs, struct pm_blob_draft *draft, char *key_out, struct pm_error *err);
void pm_blob_drop(struct pm_blobs *blobs, struct pm_blob_draft *draft);

struct pm_blob_map {
    const uint8_t *data; /* NULL for an empty blob */
    size_t bytes;
};
int pm_blob_map(struct pm_blobs *blobs, const char *key, struct pm_blob_map *out,
                struct pm_error *err); /* PM_ENOTFOUND */
void pm_blob_unmap(struct pm_blob_map *map);
int pm_blob_open(struct pm_blobs *blobs, const char *key, int *fd_out, uint64_t *bytes_out,
                 struct pm_error *err);
bool pm_blob_exists(struct pm_blobs *blobs, const char *key, uint64_t *bytes_out); /* bytes_out may be NULL */
int pm_blob_check(
    struct pm_blobs *blobs, const char *key,
    struct pm_error *err); /* content matches its key? PM_EFORMAT if not; pixels: is it there? */

/* Broker only. */
/* Makes all directories of the disk class, synced: whoever stores a blob then has to sync no more than the
 * one that it lies in, and no other process's directory can be lost under it. */
int pm_blobs_prepare(struct pm_blobs *blobs, struct pm_error *err);
int pm_blob_remove(struct pm_blobs *blobs, const char *key, struct pm_error *err); /* absent is fine */
/* As above, unless somebody stored the same content within grace_us: then he is about to refer to it. */
int pm_blob_remove_old(struct pm_blobs *blobs, const char *key, int64_t now_wall_us, int64_t grace_us,
                       bool *gone_out, struct pm_error *err);
/* Walks all blobs of a class; `keep` decides; those not kept and older than grace_s (wall clock minus mtime)
 * are removed. Temporaries whose writer is gone go too, a minute after they were begun. */
int pm_blob_sweep(struct pm_blobs *blobs, enum pm_blob_class cls, int64_t now_wall_us, int grace_s,
                  bool (*keep)(void *ctx, const char *key), void *ctx, uint64_t *removed_out,
                  struct pm_error *err);
/* The same in slices: at most `most` files or folders a call, until walk->is_done. An error ends the walk. */
struct pm_blob_walk { /* zero-initialise */
    unsigned part;    /* private */
    void *dir;        /* private: a DIR */
    bool is_done;
    uint64_t removed, bytes; /* bytes: private */
};
int pm_blob_sweep_some(struct pm_blobs *blobs, enum pm_blob_class cls, int64_t now_wall_us, int grace_s,
                       bool (*keep)(void *ctx, const char *key), void *ctx, unsigned most,
                       struct pm_blob_walk *walk, struct pm_error *err);
void pm_blob_walk_end(struct pm_blob_walk *walk); /* before its end */
int pm_blob_space(struct pm_blobs *blobs, enum pm_blob_class cls, uint64_t *free_bytes_out,
                  struct pm_error *err);
const char *pm_blobs_dir(const struct pm_blobs *blobs, enum pm_blob_class cls);
/* What the last sweep by these blobs left; 0 before the first. */
uint64_t pm_blobs_bytes(const struct pm_blobs *blobs, enum pm_blob_class cls);

#endif
