#include "proto/blob.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/hash.h"
#include "proto/blob_internal.h"

#define HEX_DIGITS   PM_HASH_HEX
#define COPY_BYTES   (256u * 1024)
#define STALE_TMP_US ((int64_t)3600 * 1000000)
#define YOUNG_TMP_US ((int64_t)60 * 1000000)
#define NAME_SIZE    (3 + HEX_DIGITS + 1) /* "ab/" and the digits */

_Static_assert(PM_BLOB_KEY_SIZE == 1 + HEX_DIGITS + 1, "key size");

/* ---- keys ---- */

bool pm_blob_is_key(const char *key)
{
    if (!key || (key[0] != 'd' && key[0] != 'p'))
        return false;
    for (size_t i = 1; i <= HEX_DIGITS; i++)
        if (!((key[i] >= '0' && key[i] <= '9') || (key[i] >= 'a' && key[i] <= 'f')))
            return false;
    return !key[1 + HEX_DIGITS];
}

static int check_key(const char *key, struct pm_error *err)
{
    if (pm_blob_is_key(key))
        return 0;
    return pm_fail(err, PM_EINVAL, "\"%.80s\" is not a blob key", key ? key : "(null)");
}

static struct store *store_of(struct pm_blobs *blobs, const char *key)
{
    return &blobs->store[key[0] == 'p' ? PM_BLOB_PIXELS : PM_BLOB_DISK];
}

static void name_of_key(const char *key, char name[NAME_SIZE])
{
    snprintf(name, NAME_SIZE, "%.2s/%s", key + 1, key + 1);
}

static void key_of_hash(enum pm_blob_class cls, const uint8_t hash[PM_HASH_BYTES], char *key)
{
    key[0] = cls == PM_BLOB_PIXELS ? 'p' : 'd';
    pm_hash_hex(hash, key + 1);
}

/* ---- opening ---- */

static int open_store(struct store *s, const char *dir, struct pm_error *err)
{
    char *tmp = pm_fs_join(dir, "tmp");
    int rc = pm_fs_mkdir_p(dir, 0700, err);
    if (!rc)
        rc = pm_fs_mkdir_p(tmp, 0700, err);
    free(tmp);
    if (rc)
        return rc;
    s->fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->fd < 0)
        return pm_fail_errno(err, "cannot open the blob directory %s", dir);
    s->dir = pm_xstrdup(dir);
    return 0;
}

int pm_blobs_open(const char *disk_dir, const char *pixel_dir, struct pm_blobs **out, struct pm_error *err)
{
    struct pm_blobs *blobs = pm_xalloc(sizeof *blobs);
    blobs->store[0].fd = blobs->store[1].fd = -1;
    int rc = open_store(&blobs->store[PM_BLOB_DISK], disk_dir, err);
    if (!rc)
        rc = open_store(&blobs->store[PM_BLOB_PIXELS], pixel_dir, err);
    if (rc)
        pm_blobs_free(&blobs);
    *out = blobs;
    return rc;
}

int pm_blobs_prepare(struct pm_blobs *blobs, struct pm_error *err)
{
    const struct store *s = &blobs->store[PM_BLOB_DISK];
    int rc = pm_fs_mkdir_durable(s->dir, 0700, err);
    for (unsigned i = 0; i < 256 && !rc; i++) {
        char subdir[3];
        snprintf(subdir, sizeof subdir, "%02x", i);
        if (mkdirat(s->fd, subdir, 0700) && errno != EEXIST)
            rc = pm_fail_errno(err, "cannot make directory %s/%s", s->dir, subdir);
    }
    if (!rc && fsync(s->fd))
        rc = pm_fail_errno(err, "cannot sync %s", s->dir);
    return rc;
}

void pm_blobs_free(struct pm_blobs **blobs)
{
    if (!*blobs)
        return;
    for (int i = 0; i < 2; i++) {
        if ((*blobs)->store[i].fd >= 0)
            close((*blobs)->store[i].fd);
        free((*blobs)->store[i].dir);
    }
    free(*blobs);
    *blobs = NULL;
}

const char *pm_blobs_dir(const struct pm_blobs *blobs, enum pm_blob_class cls)
{
    return blobs->store[cls].dir;
}

uint64_t pm_blobs_bytes(const struct pm_blobs *blobs, enum pm_blob_class cls)
{
    return blobs->store[cls].bytes;
}

/* ---- the lock between refreshing and sweeping ----
 *
 * A writer that finds its content present refreshes the file's time and hands out the key; the sweep removes
 * files whose time is old. Without a lock a sweep could look, the writer refresh, and the sweep remove. Each
 * operation opens the directory anew: flock belongs to the open file, and threads share the store. */
static int lock_store(const struct store *s, int how, int *fd_out, struct pm_error *err)
{
    int fd = openat(s->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return pm_fail_errno(err, "cannot open %s", s->dir);
    int rc;
    do
        rc = flock(fd, how);
    while (rc && errno == EINTR);
    if (rc) {
        rc = pm_fail_errno(err, "cannot lock %s", s->dir);
        close(fd);
        return rc;
    }
    *fd_out = fd;
    return 0;
}

/* ---- writing ---- */

static int make_temporary(const struct store *s, char **path_out, int *fd_out, struct pm_error *err)
{
    uint64_t random;
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        return pm_fail_errno(err, "cannot get random bytes");
    char *path = pm_xprintf("tmp/%d-%016llx", (int)getpid(), (unsigned long long)random);
    int fd = openat(s->fd, path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        int rc = pm_fail_errno(err, "cannot create %s/%s", s->dir, path);
        free(path);
        return rc;
    }
    (void)flock(fd, LOCK_EX | LOCK_NB); /* "somebody writes this": the kernel lets go when we die */
    *path_out = path;
    *fd_out = fd;
    return 0;
}

static int sync_subdir(const struct store *s, const char *name, struct pm_error *err)
{
    char subdir[3] = {name[0], name[1], 0};
    int fd = openat(s->fd, subdir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) ? pm_fail_errno(err, "cannot sync %s/%s", s->dir, subdir) : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

/* Is the content there already? Then its time is now, so that no sweep takes it before it is referred to. */
static int refresh(const struct store *s, const char *name, size_t bytes, bool *found_out,
                   struct pm_error *err)
{
    *found_out = false;
    int lock = -1;
    int rc = lock_store(s, LOCK_SH, &lock, err);
    if (rc)
        return rc;
    int fd = openat(s->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (fd >= 0) {
        if (!fstat(fd, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size == bytes && !futimens(fd, NULL))
            *found_out = true;
        close(fd);
    }
    close(lock);
    return 0;
}

static int rename_into_place(const struct store *s, const char *temporary, const char *name, bool is_durable,
                             struct pm_error *err)
{
    if (!renameat(s->fd, temporary, s->fd, name))
        return 0;
    char subdir[3] = {name[0], name[1], 0};
    if (errno != ENOENT)
        return pm_fail_errno(err, "cannot rename to %s/%s", s->dir, name);
    if (mkdirat(s->fd, subdir, 0700) && errno != EEXIST)
        return pm_fail_errno(err, "cannot make directory %s/%s", s->dir, subdir);
    if (is_durable && fsync(s->fd))
        return pm_fail_errno(err, "cannot sync %s", s->dir);
    if (renameat(s->fd, temporary, s->fd, name))
        return pm_fail_errno(err, "cannot rename to %s/%s", s->dir, name);
    return 0;
}

/* Ends the writing of a temporary: sync, rename, sync the directory; the temporary is gone afterwards. */
int pm_blob_publish(const struct store *s, enum pm_blob_class cls, const char *temporary, int fd,
                    size_t bytes, const uint8_t hash[PM_HASH_BYTES], char *key_out, struct pm_error *err)
{
    char name[NAME_SIZE];
    bool is_durable = cls == PM_BLOB_DISK, found = false;
    key_of_hash(cls, hash, key_out);
    name_of_key(key_out, name);
    int rc = refresh(s, name, bytes, &found, err);
    if (!rc && !found) {
        /* Read-only for everybody: a blob never changes. */
        if (fchmod(fd, 0400))
            rc = pm_fail_errno(err, "cannot set the mode of %s/%s", s->dir, temporary);
        else if (is_durable && fsync(fd))
            rc = pm_fail_errno(err, "cannot sync %s/%s", s->dir, temporary);
        else
            rc = rename_into_place(s, temporary, name, is_durable, err);
    }
    /* Also for content that was there: its writer may not have got to this point yet. */
    if (!rc && is_durable)
        rc = sync_subdir(s, name, err);
    if (rc || found)
        unlinkat(s->fd, temporary, 0);
    if (rc)
        key_out[0] = 0;
    return rc;
}

int pm_blob_put(struct pm_blobs *blobs, enum pm_blob_class cls, const void *data, size_t bytes, char *key_out,
                struct pm_error *err)
{
    struct store *s = &blobs->store[cls];
    uint8_t hash[PM_HASH_BYTES];
    char name[NAME_SIZE];
    bool found;
    pm_hash(data, bytes, hash);
    key_of_hash(cls, hash, key_out);
    name_of_key(key_out, name);
    int rc = refresh(s, name, bytes, &found, err);
    if (!rc && found)
        return cls == PM_BLOB_DISK ? sync_subdir(s, name, err) : 0;
    char *temporary = NULL;
    int fd = -1;
    if (!rc)
        rc = make_temporary(s, &temporary, &fd, err);
    if (!rc) {
        rc = pm_fs_write_all(fd, data, bytes, err);
        if (rc) {
            pm_fail_prefix(err, "blob of %zu bytes in %s", bytes, s->dir);
            unlinkat(s->fd, temporary, 0);
        } else {
            rc = pm_blob_publish(s, cls, temporary, fd, bytes, hash, key_out, err);
        }
        close(fd);
    }
    free(temporary);
    if (rc)
        key_out[0] = 0;
    return rc;
}

static int copy_hashing(int from, int to, uint64_t limit, struct pm_hasher *hasher, uint64_t *bytes_out,
                        struct pm_error *err)
{
    uint8_t *chunk = pm_xalloc(COPY_BYTES);
    uint64_t total = 0;
    int rc = 0;
    for (;;) {
        ssize_t n = read(from, chunk, COPY_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = pm_fail_errno(err, "cannot read the source");
        if (n <= 0)
            break;
        if ((uint64_t)n > limit - total) {
            rc = pm_fail(err, PM_ELIMIT, "source is larger than the limit of %llu bytes",
                         (unsigned long long)limit);
            break;
        }
        total += (uint64_t)n;
        pm_hasher_add(hasher, chunk, (size_t)n);
        rc = pm_fs_write_all(to, chunk, (size_t)n, err);
        if (rc)
            break;
    }
    free(chunk);
    *bytes_out = total;
    return rc;
}

int pm_blob_put_fd(struct pm_blobs *blobs, enum pm_blob_class cls, int fd, uint64_t limit_bytes,
                   char *key_out, uint64_t *bytes_out, struct pm_error *err)
{
    struct store *s = &blobs->store[cls];
    struct pm_hasher hasher;
    uint8_t hash[PM_HASH_BYTES];
    char *temporary = NULL;
    int to = -1;
    uint64_t bytes = 0;
    int rc = make_temporary(s, &temporary, &to, err);
    if (rc)
        return rc;
    pm_hasher_start(&hasher);
    rc = copy_hashing(fd, to, limit_bytes, &hasher, &bytes, err);
    if (rc) {
        pm_fail_prefix(err, "copying into %s", s->dir);
        unlinkat(s->fd, temporary, 0);
    } else {
        pm_hasher_finish(&hasher, hash);
        rc = pm_blob_publish(s, cls, temporary, to, (size_t)bytes, hash, key_out, err);
    }
    close(to);
    free(temporary);
    if (bytes_out)
        *bytes_out = bytes;
    return rc;
}

/* ---- drafts ---- */

/* Reserves every byte now: a full tmpfs must be an error here, not a SIGBUS in the middle of a crop. */
static int reserve(int fd, size_t bytes, struct pm_error *err)
{
    int rc;
    struct statvfs room;
    /* Asked first, because some file systems hand out all that is left before they find it is not enough. */
    if (!fstatvfs(fd, &room) && (uint64_t)room.f_bavail * room.f_frsize < bytes)
        return pm_fail(err, PM_ENOSPC, "cannot reserve %zu bytes: %llu are free", bytes,
                       (unsigned long long)room.f_bavail * room.f_frsize);
    do
        rc = fallocate(fd, 0, 0, (off_t)bytes);
    while (rc && errno == EINTR);
    if (!rc)
        return 0;
    if (errno != EOPNOTSUPP)
        return pm_fail_errno(err, "cannot reserve %zu bytes", bytes);
    uint8_t *zeros = pm_xalloc(COPY_BYTES);
    for (size_t done = 0; done < bytes && !rc;) {
        size_t n = bytes - done < COPY_BYTES ? bytes - done : COPY_BYTES;
        rc = pm_fs_write_all(fd, zeros, n, err);
        done += n;
    }
    free(zeros);
    return rc;
}

int pm_blob_draft(struct pm_blobs *blobs, enum pm_blob_class cls, size_t bytes, struct pm_blob_draft *out,
                  struct pm_error *err)
{
    struct store *s = &blobs->store[cls];
    *out = (struct pm_blob_draft){.bytes = bytes, .fd = -1, .cls = cls};
    if (bytes > INT64_MAX / 2)
        return pm_fail(err, PM_ELIMIT, "a blob of %zu bytes is larger than any file", bytes);
    int rc = make_temporary(s, &out->path, &out->fd, err);
    if (rc)
        return rc;
    if (bytes) {
        rc = reserve(out->fd, bytes, err);
        if (rc) {
            pm_fail_prefix(err, "blob of %zu bytes in %s", bytes, s->dir);
            pm_blob_drop(blobs, out);
            return rc;
        }
        void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, out->fd, 0);
        if (p == MAP_FAILED) {
            rc = pm_fail_errno(err, "cannot map a blob of %zu bytes in %s", bytes, s->dir);
            pm_blob_drop(blobs, out);
            return rc;
        }
        out->data = p;
    }
    return 0;
}

static void draft_close(struct pm_blob_draft *draft)
{
    if (draft->data)
        munmap(draft->data, draft->bytes);
    if (draft->fd >= 0)
        close(draft->fd);
    free(draft->path);
    *draft = (struct pm_blob_draft){.fd = -1};
}

/* Pixels are large, short-lived and made once: hashing them took longer than handing them over. Their name is
 * random, so nothing is there under it yet and nobody else can be about to use it. */
static int publish_pixels(const struct store *s, const struct pm_blob_draft *draft, char *key_out,
                          struct pm_error *err)
{
    uint8_t random[PM_HASH_BYTES];
    char name[NAME_SIZE];
    int rc = 0;
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        rc = pm_fail_errno(err, "cannot get random bytes");
    key_of_hash(PM_BLOB_PIXELS, random, key_out);
    name_of_key(key_out, name);
    if (!rc && fchmod(draft->fd, 0400))
        rc = pm_fail_errno(err, "cannot set the mode of %s/%s", s->dir, draft->path);
    if (!rc)
        rc = rename_into_place(s, draft->path, name, false, err);
    if (!rc)
        return 0;
    unlinkat(s->fd, draft->path, 0);
    key_out[0] = 0;
    return rc;
}

int pm_blob_finish(struct pm_blobs *blobs, struct pm_blob_draft *draft, char *key_out, struct pm_error *err)
{
    const struct store *s = &blobs->store[draft->cls];
    uint8_t hash[PM_HASH_BYTES];
    int rc;
    PM_ASSERT(draft->path);
    if (draft->cls == PM_BLOB_PIXELS) {
        rc = publish_pixels(s, draft, key_out, err);
    } else {
        pm_hash(draft->data, draft->bytes, hash);
        rc = pm_blob_publish(s, draft->cls, draft->path, draft->fd, draft->bytes, hash, key_out, err);
    }
    draft_close(draft);
    return rc;
}

void pm_blob_drop(struct pm_blobs *blobs, struct pm_blob_draft *draft)
{
    if (!draft->path)
        return;
    unlinkat(blobs->store[draft->cls].fd, draft->path, 0);
    draft_close(draft);
}

/* ---- reading ---- */

int pm_blob_open(struct pm_blobs *blobs, const char *key, int *fd_out, uint64_t *bytes_out,
                 struct pm_error *err)
{
    char name[NAME_SIZE];
    struct stat st;
    int rc = check_key(key, err);
    if (rc)
        return rc;
    name_of_key(key, name);
    int fd = openat(store_of(blobs, key)->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return pm_fail_errno(err, "cannot open blob %s", key);
    if (fstat(fd, &st)) {
        rc = pm_fail_errno(err, "cannot stat blob %s", key);
    } else if (!S_ISREG(st.st_mode)) {
        rc = pm_fail(err, PM_EFORMAT, "blob %s is not a regular file", key);
    } else {
        *fd_out = fd;
        if (bytes_out)
            *bytes_out = (uint64_t)st.st_size;
        return 0;
    }
    close(fd);
    return rc;
}

int pm_blob_map(struct pm_blobs *blobs, const char *key, struct pm_blob_map *out, struct pm_error *err)
{
    int fd = -1;
    uint64_t bytes = 0;
    *out = (struct pm_blob_map){0};
    int rc = pm_blob_open(blobs, key, &fd, &bytes, err);
    if (rc)
        return rc;
    if (bytes) {
        void *p = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            rc = pm_fail_errno(err, "cannot map blob %s", key);
        else
            *out = (struct pm_blob_map){p, (size_t)bytes};
    }
    close(fd);
    return rc;
}

void pm_blob_unmap(struct pm_blob_map *map)
{
    pm_fs_unmap(map->data, map->bytes);
    *map = (struct pm_blob_map){0};
}

bool pm_blob_exists(struct pm_blobs *blobs, const char *key, uint64_t *bytes_out)
{
    char name[NAME_SIZE];
    struct stat st;
    if (!pm_blob_is_key(key))
        return false;
    name_of_key(key, name);
    if (fstatat(store_of(blobs, key)->fd, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
        return false;
    if (bytes_out)
        *bytes_out = (uint64_t)st.st_size;
    return true;
}

int pm_blob_check(struct pm_blobs *blobs, const char *key, struct pm_error *err)
{
    struct pm_blob_map map;
    uint8_t hash[PM_HASH_BYTES];
    char hex[PM_HASH_HEX + 1];
    int rc = pm_blob_map(blobs, key, &map, err);
    if (rc)
        return rc;
    pm_hash(map.data, map.bytes, hash);
    pm_hash_hex(hash, hex);
    if (key[0] != 'p' && strcmp(hex, key + 1))
        rc = pm_fail(err, PM_EFORMAT, "blob %s is damaged: its content has the hash %s", key, hex);
    pm_blob_unmap(&map);
    return rc;
}

/* ---- removing ---- */

int pm_blob_remove(struct pm_blobs *blobs, const char *key, struct pm_error *err)
{
    char name[NAME_SIZE];
    int rc = check_key(key, err);
    if (rc)
        return rc;
    name_of_key(key, name);
    if (unlinkat(store_of(blobs, key)->fd, name, 0) && errno != ENOENT)
        return pm_fail_errno(err, "cannot remove blob %s", key);
    return 0;
}

static int64_t age_us(const struct stat *st, int64_t now_wall_us)
{
    return now_wall_us - ((int64_t)st->st_mtim.tv_sec * 1000000 + st->st_mtim.tv_nsec / 1000);
}

/* Removes one old file under the lock that keeps writers from refreshing it meanwhile. */
static int remove_old(const struct store *s, int dir, const char *name, int64_t now_wall_us, int64_t grace_us,
                      bool *removed_out, struct pm_error *err)
{
    struct stat st;
    int lock = -1;
    *removed_out = false;
    int rc = lock_store(s, LOCK_EX, &lock, err);
    if (rc)
        return rc;
    if (!fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) && age_us(&st, now_wall_us) > grace_us) {
        if (!unlinkat(dir, name, 0))
            *removed_out = true;
        else if (errno != ENOENT && errno != EISDIR)
            rc = pm_fail_errno(err, "cannot remove %s in %s", name, s->dir);
    }
    close(lock);
    return rc;
}

int pm_blob_remove_old(struct pm_blobs *blobs, const char *key, int64_t now_wall_us, int64_t grace_us,
                       bool *gone_out, struct pm_error *err)
{
    char name[NAME_SIZE];
    *gone_out = false;
    int rc = check_key(key, err);
    if (rc)
        return rc;
    name_of_key(key, name);
    const struct store *s = store_of(blobs, key);
    rc = remove_old(s, s->fd, name, now_wall_us, grace_us, gone_out, err);
    *gone_out |= !rc && !pm_blob_exists(blobs, key, NULL);
    return rc;
}

struct sweep {
    const struct store *store;
    enum pm_blob_class cls;
    int64_t now_wall_us, grace_us;
    bool (*keep)(void *ctx, const char *key);
    void *ctx;
    uint64_t removed, bytes;
};

/* A temporary whose writer is gone. Where locks do not work its age has to tell. */
static bool is_abandoned(int dir, const char *name, int64_t age)
{
    if (age <= YOUNG_TMP_US)
        return false;
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    bool is_free = !flock(fd, LOCK_EX | LOCK_NB);
    bool works = is_free || errno == EWOULDBLOCK;
    close(fd);
    return works ? is_free : age > STALE_TMP_US;
}

static int sweep_entry(struct sweep *w, int dir, const char *subdir, const char *name, struct pm_error *err)
{
    struct stat st;
    bool is_tmp = !strcmp(subdir, "tmp"), removed = false;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
        return 0;
    int64_t age = age_us(&st, w->now_wall_us), grace_us = is_tmp ? YOUNG_TMP_US : w->grace_us;
    w->bytes += (uint64_t)st.st_size;
    if (is_tmp ? !is_abandoned(dir, name, age) : age <= grace_us)
        return 0;
    if (!is_tmp) {
        char *key = pm_xprintf("%c%s", w->cls == PM_BLOB_PIXELS ? 'p' : 'd', name);
        bool stays = !pm_blob_is_key(key) || strncmp(name, subdir, 2) || w->keep(w->ctx, key);
        free(key);
        if (stays)
            return 0;
    }
    int rc = remove_old(w->store, dir, name, w->now_wall_us, grace_us, &removed, err);
    w->removed += removed;
    w->bytes -= removed ? (uint64_t)st.st_size : 0;
    return rc;
}

#define SWEEP_PARTS 257u /* the folders 00 to ff, and tmp */

static void part_name(unsigned part, char out[4])
{
    snprintf(out, 4, part < SWEEP_PARTS - 1 ? "%02x" : "tmp", part & 0xff);
}

void pm_blob_walk_end(struct pm_blob_walk *walk)
{
    if (walk->dir)
        closedir(walk->dir);
    *walk = (struct pm_blob_walk){.part = SWEEP_PARTS, .is_done = true, .removed = walk->removed};
}

static int open_part(const struct store *s, struct pm_blob_walk *walk, struct pm_error *err)
{
    char name[4];
    part_name(walk->part, name);
    int fd = openat(s->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : pm_fail_errno(err, "cannot open %s/%s", s->dir, name);
    walk->dir = fdopendir(fd);
    if (walk->dir)
        return 0;
    int rc = pm_fail_errno(err, "cannot list %s/%s", s->dir, name);
    close(fd);
    return rc;
}

static int sweep_next(struct sweep *w, struct pm_blob_walk *walk, struct pm_error *err)
{
    char name[4];
    errno = 0;
    const struct dirent *entry = readdir(walk->dir);
    part_name(walk->part, name);
    if (!entry && errno)
        return pm_fail_errno(err, "cannot list %s/%s", w->store->dir, name);
    if (!entry) {
        closedir(walk->dir);
        walk->dir = NULL;
        walk->part++;
        return 0;
    }
    return entry->d_name[0] == '.' ? 0 : sweep_entry(w, dirfd(walk->dir), name, entry->d_name, err);
}

int pm_blob_sweep_some(struct pm_blobs *blobs, enum pm_blob_class cls, int64_t now_wall_us, int grace_s,
                       bool (*keep)(void *ctx, const char *key), void *ctx, unsigned most,
                       struct pm_blob_walk *walk, struct pm_error *err)
{
    struct sweep w = {
        .store = &blobs->store[cls],
        .cls = cls,
        .now_wall_us = now_wall_us,
        .grace_us = (int64_t)grace_s * 1000000,
        .keep = keep,
        .ctx = ctx,
    };
    int rc = 0;
    for (unsigned i = 0; i < most && !rc && walk->part < SWEEP_PARTS; i++) {
        if (walk->dir)
            rc = sweep_next(&w, walk, err);
        else if (!(rc = open_part(w.store, walk, err)) && !walk->dir)
            walk->part++; /* it was never made */
    }
    walk->removed += w.removed;
    walk->bytes += w.bytes;
    if (!rc && walk->part >= SWEEP_PARTS)
        blobs->store[cls].bytes = walk->bytes;
    if (rc || walk->part >= SWEEP_PARTS)
        pm_blob_walk_end(walk);
    return rc;
}

int pm_blob_sweep(struct pm_blobs *blobs, enum pm_blob_class cls, int64_t now_wall_us, int grace_s,
                  bool (*keep)(void *ctx, const char *key), void *ctx, uint64_t *removed_out,
                  struct pm_error *err)
{
    struct pm_blob_walk walk = {.part = 0};
    int rc = 0;
    while (!rc && !walk.is_done)
        rc = pm_blob_sweep_some(blobs, cls, now_wall_us, grace_s, keep, ctx, UINT_MAX, &walk, err);
    if (removed_out)
        *removed_out = walk.removed;
    return rc;
}

int pm_blob_space(struct pm_blobs *blobs, enum pm_blob_class cls, uint64_t *free_bytes_out,
                  struct pm_error *err)
{
    struct statvfs st;
    if (fstatvfs(blobs->store[cls].fd, &st))
        return pm_fail_errno(err, "cannot ask for the free space of %s", blobs->store[cls].dir);
    *free_bytes_out = (uint64_t)st.f_bavail * st.f_frsize;
    return 0;
}
