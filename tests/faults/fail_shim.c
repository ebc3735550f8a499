/* LD_PRELOAD: lets the Nth call of one kind fail.
 *
 *   PM_FAIL_CALL   write, short, fsync, open, rename, mmap, malloc
 *   PM_FAIL_AT     N, from 1; 0: none, calls are only counted
 *   PM_FAIL_MORE   how many calls fail in a row; default 1
 *   PM_FAIL_ERRNO  the number
 *   PM_FAIL_ROOT   calls on files below this directory; mmap and malloc: every one
 *   PM_FAIL_COUNT  a file of 16 bytes: calls seen, calls failed
 *
 * "short" lets a write of more than one byte write its first half only. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "tests/faults/shim.h"

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t bytes);

static struct {
    bool is_ready;
    char call[16], root[SHIM_PATH / 2];
    uint64_t at, more;
    int error;
    uint64_t *count; /* [2], shared with the test */
} plan;

__attribute__((constructor)) static void set_up(void)
{
    const char *call = getenv("PM_FAIL_CALL"), *root = getenv("PM_FAIL_ROOT"),
               *file = getenv("PM_FAIL_COUNT");
    const char *at = getenv("PM_FAIL_AT"), *more = getenv("PM_FAIL_MORE"), *error = getenv("PM_FAIL_ERRNO");
    if (!call || !file)
        return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0)
        return;
    void *p = (void *)syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (p == MAP_FAILED)
        return;
    snprintf(plan.call, sizeof plan.call, "%s", call);
    snprintf(plan.root, sizeof plan.root, "%s", root ? root : "/");
    plan.at = at ? strtoull(at, NULL, 10) : 0;
    plan.more = more ? strtoull(more, NULL, 10) : 1;
    plan.error = error ? atoi(error) : EIO;
    plan.count = p;
    plan.is_ready = true;
}

/* Counts a call; true when it is to fail. */
static bool fails(const char *call)
{
    if (!plan.is_ready || strcmp(call, plan.call) != 0)
        return false;
    uint64_t number = __atomic_add_fetch(&plan.count[0], 1, __ATOMIC_RELAXED);
    if (!plan.at || number < plan.at || number - plan.at >= plan.more)
        return false;
    __atomic_add_fetch(&plan.count[1], 1, __ATOMIC_RELAXED);
    errno = plan.error;
    return true;
}

static bool is_below(int dir, const char *path)
{
    char full[SHIM_PATH];
    size_t size = strlen(plan.root);
    return plan.is_ready && !strncmp(shim_absolute(dir, path, full), plan.root, size);
}

static bool is_file(int fd)
{
    struct stat st;
    char link[64], path[SHIM_PATH];
    if (!plan.is_ready || fstat(fd, &st) || (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)))
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    return is_below(AT_FDCWD, path);
}

static int open_at(int dir, const char *path, int flags, mode_t mode)
{
    if (is_below(dir, path) && fails("open"))
        return -1;
    return (int)syscall(SYS_openat, dir, path, flags, mode);
}
SHIM_OPENS

/* How much of a write is to be done; negative: none, it fails. */
static ssize_t share(int fd, size_t bytes)
{
    if (is_file(fd) && fails("write"))
        return -1;
    if (bytes > 1 && is_file(fd) && fails("short"))
        return (ssize_t)(bytes / 2);
    return (ssize_t)bytes;
}
SHIM_SHOW ssize_t write(int fd, const void *data, size_t bytes)
{
    ssize_t most = share(fd, bytes);
    return most < 0 ? -1 : syscall(SYS_write, fd, data, (size_t)most);
}
SHIM_SHOW ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at)
{
    ssize_t most = share(fd, bytes);
    return most < 0 ? -1 : syscall(SYS_pwrite64, fd, data, (size_t)most, at);
}
SHIM_SHOW ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t at)
{
    return pwrite(fd, data, bytes, at);
}
SHIM_SHOW int fsync(int fd)
{
    return is_file(fd) && fails("fsync") ? -1 : (int)syscall(SYS_fsync, fd);
}
SHIM_SHOW int fdatasync(int fd)
{
    return is_file(fd) && fails("fsync") ? -1 : (int)syscall(SYS_fdatasync, fd);
}
SHIM_SHOW int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    return is_below(to_dir, to) && fails("rename") ? -1
                                                   : (int)syscall(SYS_renameat, from_dir, from, to_dir, to);
}
SHIM_SHOW int rename(const char *from, const char *to)
{
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}
SHIM_SHOW void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    if (fails("mmap"))
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, bytes, protection, flags, fd, offset);
}
SHIM_SHOW void *mmap64(void *at, size_t bytes, int protection, int flags, int fd, off64_t offset)
{
    return mmap(at, bytes, protection, flags, fd, offset);
}
#ifndef PM_SANITIZED /* which has its own */
SHIM_SHOW void *malloc(size_t bytes)
{
    return fails("malloc") ? NULL : __libc_malloc(bytes);
}
SHIM_SHOW void *calloc(size_t count, size_t size)
{
    return fails("malloc") ? NULL : __libc_calloc(count, size);
}
SHIM_SHOW void *realloc(void *old, size_t bytes)
{
    return fails("malloc") ? NULL : __libc_realloc(old, bytes);
}
#endif
