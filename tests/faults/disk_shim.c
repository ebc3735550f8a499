/* LD_PRELOAD: logs every change below PM_DISK_ROOT into the file PM_DISK_LOG, and what is written to files
 * whose path begins with PM_DISK_WITNESS. See disk_log.h. PM_DISK_LIE=file|dir: syncs of that kind are not
 * logged, as if the program had forgotten them; the test of the test. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/faults/disk_log.h"
#include "tests/faults/shim.h"

#define FDS 4096

enum { NOT_OURS, FILE_OF_DISK, DIR_OF_DISK, WITNESS };
static struct {
    int kind;
    ino_t inode;
    char *path; /* witnesses */
} fds[FDS];
static const char *root, *witness, *lie;
static size_t root_bytes;
static int log_fd = -1;

#define REAL(name) ((__typeof__(&(name)))next_symbol(#name))
static void *next_symbol(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

static void set_up(void)
{
    static bool is_done;
    if (is_done)
        return;
    is_done = true;
    root = getenv("PM_DISK_ROOT");
    witness = getenv("PM_DISK_WITNESS");
    lie = getenv("PM_DISK_LIE");
    lie = lie ? lie : "";
    const char *path = getenv("PM_DISK_LOG");
    if (!root || !path)
        return;
    root_bytes = strlen(root);
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (log_fd >= 0) { /* out of the way of everything that counts descriptors */
        int high = fcntl(log_fd, F_DUPFD_CLOEXEC, 1000);
        syscall(SYS_close, log_fd);
        log_fd = high;
    }
}

static uint64_t log_end(void)
{
    struct stat st;
    return log_fd >= 0 && !fstat(log_fd, &st) ? (uint64_t)st.st_size : 0;
}

static void put(enum disk_op op, ino_t inode, uint64_t at, uint64_t covers, const char *path,
                const char *second, const void *data, size_t bytes)
{
    int before = errno;
    struct disk_record r = {.magic = DISK_MAGIC,
                            .op = op,
                            .inode = inode,
                            .at = at,
                            .covers = covers,
                            .path_bytes = path ? (uint32_t)strlen(path) : 0,
                            .second_bytes = second ? (uint32_t)strlen(second) : 0,
                            .data_bytes = (uint32_t)bytes};
    struct iovec parts[4] = {{&r, sizeof r},
                             {(void *)(uintptr_t)path, r.path_bytes},
                             {(void *)(uintptr_t)second, r.second_bytes},
                             {(void *)(uintptr_t)data, bytes}};
    if (log_fd < 0 ||
        syscall(SYS_writev, log_fd, parts, 4) != (long)(sizeof r + r.path_bytes + r.second_bytes + bytes))
        abort(); /* a log with a hole proves nothing */
    errno = before;
}

static const char *absolute(int dir, const char *path, char out[SHIM_PATH])
{
    set_up();
    return shim_absolute(dir, path, out);
}

static bool is_below(const char *path)
{
    return log_fd >= 0 && !strncmp(path, root, root_bytes) && (path[root_bytes] == '/' || !path[root_bytes]);
}

static void forget(int fd)
{
    if (fd < 0 || fd >= FDS)
        return;
    free(fds[fd].path);
    fds[fd].path = NULL;
    fds[fd].kind = NOT_OURS;
}

static void opened(int fd, const char *path, int flags, bool was_there)
{
    struct stat st;
    if (fd < 0)
        return;
    if (fd >= FDS)
        abort();
    forget(fd);
    if (log_fd < 0 || fstat(fd, &st))
        return;
    fds[fd].inode = st.st_ino;
    if (witness && !strncmp(path, witness, strlen(witness))) {
        fds[fd].kind = WITNESS;
        fds[fd].path = strdup(path);
    } else if (is_below(path) && S_ISDIR(st.st_mode)) {
        fds[fd].kind = DIR_OF_DISK;
    } else if (is_below(path)) {
        bool is_nameless = (flags & O_TMPFILE) == O_TMPFILE;
        fds[fd].kind = FILE_OF_DISK;
        put(is_nameless || !was_there ? DISK_CREATE : DISK_OPEN, st.st_ino, 0, 0, is_nameless ? "" : path,
            NULL, NULL, 0);
        if (was_there && flags & O_TRUNC)
            put(DISK_TRUNCATE, st.st_ino, 0, 0, NULL, NULL, NULL, 0);
    }
}

static int open_at(int dir, const char *path, int flags, mode_t mode)
{
    char full[SHIM_PATH];
    absolute(dir, path, full);
    bool was_there = !(flags & O_CREAT) || !syscall(SYS_faccessat, dir, path, F_OK);
    int fd = (int)syscall(SYS_openat, dir, path, flags, mode);
    opened(fd, full, flags, was_there);
    return fd;
}

SHIM_OPENS
/* Names that the compiler's checks call. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
SHIM_SHOW int __open_2(const char *path, int flags)
{
    return open_at(AT_FDCWD, path, flags, 0);
}
SHIM_SHOW int __open64_2(const char *path, int flags)
{
    return open_at(AT_FDCWD, path, flags, 0);
}
SHIM_SHOW int __openat_2(int dir, const char *path, int flags)
{
    return open_at(dir, path, flags, 0);
}
SHIM_SHOW int mkostemp(char *template, int flags)
{
    char full[SHIM_PATH];
    int fd = REAL(mkostemp)(template, flags);
    opened(fd, absolute(AT_FDCWD, template, full), flags, false);
    return fd;
}
SHIM_SHOW int mkostemp64(char *template, int flags)
{
    return mkostemp(template, flags);
}
SHIM_SHOW int close(int fd)
{
    if (fd == log_fd && fd >= 0)
        return 0; /* who closes everything does not know us */
    forget(fd);
    return (int)syscall(SYS_close, fd);
}

/* Is this descriptor still what it was? Some are closed where we do not see it. */
static int kind_of(int fd)
{
    struct stat st;
    if (fd < 0 || fd >= FDS || fds[fd].kind == NOT_OURS)
        return NOT_OURS;
    return fstat(fd, &st) || st.st_ino != fds[fd].inode ? NOT_OURS : fds[fd].kind;
}

static void written(int fd, const void *data, size_t bytes, int64_t at)
{
    int kind = kind_of(fd);
    if (kind == WITNESS)
        put(DISK_WITNESS, 0, 0, 0, fds[fd].path, NULL, data, bytes);
    else if (kind == FILE_OF_DISK)
        put(DISK_WRITE, fds[fd].inode, (uint64_t)(at < 0 ? lseek(fd, 0, SEEK_CUR) : at), 0, NULL, NULL, data,
            bytes);
}

SHIM_SHOW ssize_t write(int fd, const void *data, size_t bytes)
{
    written(fd, data, bytes, -1);
    return syscall(SYS_write, fd, data, bytes);
}
SHIM_SHOW ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at)
{
    written(fd, data, bytes, at);
    return syscall(SYS_pwrite64, fd, data, bytes, at);
}
SHIM_SHOW ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t at)
{
    return pwrite(fd, data, bytes, at);
}
SHIM_SHOW int ftruncate(int fd, off_t size)
{
    if (kind_of(fd) == FILE_OF_DISK)
        put(DISK_TRUNCATE, fds[fd].inode, (uint64_t)size, 0, NULL, NULL, NULL, 0);
    return (int)syscall(SYS_ftruncate, fd, size);
}
SHIM_SHOW int ftruncate64(int fd, off64_t size)
{
    return ftruncate(fd, size);
}
static int synced(int fd, long call)
{
    uint64_t covers = log_end();
    int kind = kind_of(fd), rc = (int)syscall(call, fd);
    char link[64], path[SHIM_PATH];
    if (rc)
        return rc;
    if (kind == FILE_OF_DISK && strcmp(lie, "file") != 0) {
        put(DISK_SYNC, fds[fd].inode, 0, covers, NULL, NULL, NULL, 0);
    } else if (kind == DIR_OF_DISK && strcmp(lie, "dir") != 0) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, path, sizeof path - 1);
        path[n > 0 ? n : 0] = 0;
        put(DISK_SYNC_DIR, 0, 0, covers, path, NULL, NULL, 0);
    }
    return rc;
}
SHIM_SHOW int fsync(int fd)
{
    return synced(fd, SYS_fsync);
}
SHIM_SHOW int fdatasync(int fd)
{
    return synced(fd, SYS_fdatasync);
}

SHIM_SHOW int mkdirat(int dir, const char *path, mode_t mode)
{
    char full[SHIM_PATH];
    bool is_new = syscall(SYS_faccessat, dir, path, F_OK) != 0;
    if (is_below(absolute(dir, path, full)) && is_new)
        put(DISK_MKDIR, 0, 0, 0, full, NULL, NULL, 0);
    return (int)syscall(SYS_mkdirat, dir, path, mode);
}
SHIM_SHOW int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}
SHIM_SHOW int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    char from_full[SHIM_PATH], to_full[SHIM_PATH];
    absolute(from_dir, from, from_full);
    /* It fails only where the new name's directory is not there; the reader of the log sees that too. */
    if (is_below(absolute(to_dir, to, to_full)))
        put(DISK_RENAME, 0, 0, 0, from_full, to_full, NULL, 0);
    return (int)syscall(SYS_renameat, from_dir, from, to_dir, to);
}
SHIM_SHOW int rename(const char *from, const char *to)
{
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}
SHIM_SHOW int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
    char full[SHIM_PATH];
    struct stat st;
    if (is_below(absolute(to_dir, to, full)) && !fstatat(from_dir, from, &st, 0))
        put(DISK_LINK, st.st_ino, 0, 0, full, NULL, NULL, 0);
    return (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
}
SHIM_SHOW int unlinkat(int dir, const char *path, int flags)
{
    char full[SHIM_PATH];
    bool was_there = !syscall(SYS_faccessat, dir, path, F_OK);
    if (is_below(absolute(dir, path, full)) && was_there)
        put(DISK_UNLINK, 0, 0, 0, full, NULL, NULL, 0);
    return (int)syscall(SYS_unlinkat, dir, path, flags);
}
SHIM_SHOW int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}
