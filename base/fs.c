#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int pm_fs_read(const char *path, size_t limit_bytes, struct pm_buf *out, struct pm_error *err)
{
    bool is_stdin = !strcmp(path, "-");
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return pm_fail_errno(err, "cannot open %s", path);
    int rc = 0;
    size_t start = out->size;
    uint8_t chunk[65536];
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rc = pm_fail_errno(err, "cannot read %s", path);
            break;
        }
        if (n == 0)
            break;
        if ((size_t)n > limit_bytes - (out->size - start)) {
            rc = pm_fail(err, PM_ELIMIT, "%s is larger than the limit of %zu bytes", path, limit_bytes);
            break;
        }
        pm_buf_append(out, chunk, (size_t)n);
    }
    if (!is_stdin)
        close(fd);
    return rc;
}

int pm_fs_write_all(int fd, const void *data, size_t bytes, struct pm_error *err)
{
    const uint8_t *p = data;
    while (bytes) {
        ssize_t n = write(fd, p, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return pm_fail_errno(err, "cannot write");
        p += n;
        bytes -= (size_t)n;
    }
    return 0;
}

int pm_fs_sync_dir(const char *dir, struct pm_error *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return pm_fail_errno(err, "cannot open %s", dir);
    int rc = fsync(fd) ? pm_fail_errno(err, "cannot sync %s", dir) : 0;
    close(fd);
    return rc;
}

static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return pm_xstrdup(".");
    return slash == path ? pm_xstrdup("/") : pm_xstrndup(path, (size_t)(slash - path));
}

int pm_fs_write(const char *path, const void *data, size_t bytes, bool durable, struct pm_error *err)
{
    char *temporary = pm_xprintf("%s.tmp-%d-XXXXXX", path, (int)getpid());
    int rc = 0;
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        rc = pm_fail_errno(err, "cannot create %s", temporary);
        goto out;
    }
    /* mkostemp makes 0600; results should follow the user's umask like any other file. */
    mode_t mask = umask(0);
    umask(mask);
    if (fchmod(fd, 0666 & ~mask))
        rc = pm_fail_errno(err, "cannot set the mode of %s", path);
    if (!rc && (rc = pm_fs_write_all(fd, data, bytes, err)))
        pm_fail_prefix(err, "%s", path);
    if (!rc && durable && fsync(fd))
        rc = pm_fail_errno(err, "cannot sync %s", path);
    if (close(fd) && !rc)
        rc = pm_fail_errno(err, "cannot close %s", path);
    if (!rc && rename(temporary, path))
        rc = pm_fail_errno(err, "cannot rename to %s", path);
    if (rc) {
        unlink(temporary);
        goto out;
    }
    if (durable) {
        char *dir = parent_of(path);
        rc = pm_fs_sync_dir(dir, err);
        free(dir);
    }
out:
    free(temporary);
    return rc;
}

int pm_fs_mkdir_p(const char *dir, unsigned mode, struct pm_error *err)
{
    char *path = pm_xstrdup(dir);
    int rc = 0;
    for (char *p = path + 1; !rc; p++) {
        if (*p && *p != '/')
            continue;
        char kept = *p;
        *p = 0;
        if (mkdir(path, mode) && errno != EEXIST)
            rc = pm_fail_errno(err, "cannot make directory %s", path);
        else if (!pm_fs_is_dir(path))
            rc = pm_fail(err, PM_EIO, "%s is in the way: it is not a directory", path);
        *p = kept;
        if (!kept)
            break;
    }
    free(path);
    return rc;
}

/* Makes the name of a directory durable: that is in the directory above it. One that we may not read (mode
 * 711) cannot be synced by us, and is not new either. */
static int sync_parent(const char *path, struct pm_error *err)
{
    char *parent = parent_of(path);
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 && errno == EACCES ? 0
             : fd < 0 || fsync(fd)     ? pm_fail_errno(err, "cannot sync %s", parent)
                                       : 0;
    if (fd >= 0)
        close(fd);
    free(parent);
    return rc;
}

int pm_fs_mkdir_durable(const char *dir, unsigned mode, struct pm_error *err)
{
    char *path = pm_xstrdup(dir);
    size_t size = strlen(path);
    while (size > 1 && path[size - 1] == '/')
        path[--size] = 0;
    int rc = 0;
    for (char *p = path + 1; !rc; p++) {
        if (*p && *p != '/')
            continue;
        char kept = *p;
        *p = 0;
        bool is_new = !mkdir(path, mode);
        if (!is_new && errno != EEXIST)
            rc = pm_fail_errno(err, "cannot make directory %s", path);
        else if (!pm_fs_is_dir(path))
            rc = pm_fail(err, PM_EIO, "%s is in the way: it is not a directory", path);
        /* The last one always: who made it may have been killed before it was synced. */
        else if (is_new || !kept)
            rc = sync_parent(path, err);
        *p = kept;
        if (!kept)
            break;
    }
    free(path);
    return rc;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path) && errno != ENOENT ? -1 : 0;
}

int pm_fs_remove_tree(const char *path, struct pm_error *err)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) && errno != ENOENT)
        return pm_fail_errno(err, "cannot remove %s", path);
    return 0;
}

bool pm_fs_is_dir(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

bool pm_fs_is_file(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode);
}

char *pm_fs_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    return pm_xprintf("%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}

char *pm_fs_clean_name(const char *name)
{
    size_t n = strlen(name);
    if (n > 200) {
        n = 200;
        while (n && ((unsigned char)name[n] & 0xc0) == 0x80)
            n--;
    }
    char *out = pm_xstrndup(name, n);
    for (char *p = out; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f || strchr("<>:\"/\\|?*", *p))
            *p = '_';
    while (n && (out[n - 1] == ' ' || out[n - 1] == '.'))
        out[--n] = 0;
    if (!n) {
        free(out);
        return pm_xstrdup("result");
    }
    return out;
}

int pm_fs_map(const char *path, const uint8_t **data_out, size_t *bytes_out, struct pm_error *err)
{
    *data_out = NULL;
    *bytes_out = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return pm_fail_errno(err, "cannot open %s", path);
    struct stat st;
    int rc = 0;
    if (fstat(fd, &st))
        rc = pm_fail_errno(err, "cannot stat %s", path);
    else if (!S_ISREG(st.st_mode))
        rc = pm_fail(err, PM_EINVAL, "%s is not a regular file", path);
    else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            rc = pm_fail_errno(err, "cannot map %s", path);
        else {
            *data_out = p;
            *bytes_out = (size_t)st.st_size;
        }
    }
    close(fd);
    return rc;
}

void pm_fs_unmap(const uint8_t *data, size_t bytes)
{
    if (data)
        munmap((void *)(uintptr_t)data, bytes);
}
