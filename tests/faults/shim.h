/* What the LD_PRELOAD libraries of these tests share. Only raw system calls: the wrappers are what is
 * wrapped. */
#ifndef PM_FAULTS_SHIM_H
#define PM_FAULTS_SHIM_H

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SHIM_PATH 4096
#define SHIM_SHOW __attribute__((visibility("default")))

/* The mode argument of open(2) and its relatives. */
#define SHIM_MODE(flags)                                                                                     \
    mode_t mode = 0;                                                                                         \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                   \
        va_list args;                                                                                        \
        va_start(args, flags);                                                                               \
        mode = va_arg(args, mode_t);                                                                         \
        va_end(args);                                                                                        \
    }

/* open(2) and its relatives, by a function open_at(dir, path, flags, mode) that stands before. */
#define SHIM_OPENS                                                                                           \
    SHIM_SHOW int open(const char *path, int flags, ...)                                                     \
    {                                                                                                        \
        SHIM_MODE(flags)                                                                                     \
        return open_at(AT_FDCWD, path, flags, mode);                                                         \
    }                                                                                                        \
    SHIM_SHOW int open64(const char *path, int flags, ...)                                                   \
    {                                                                                                        \
        SHIM_MODE(flags)                                                                                     \
        return open_at(AT_FDCWD, path, flags, mode);                                                         \
    }                                                                                                        \
    SHIM_SHOW int openat(int dir, const char *path, int flags, ...)                                          \
    {                                                                                                        \
        SHIM_MODE(flags)                                                                                     \
        return open_at(dir, path, flags, mode);                                                              \
    }                                                                                                        \
    SHIM_SHOW int openat64(int dir, const char *path, int flags, ...)                                        \
    {                                                                                                        \
        SHIM_MODE(flags)                                                                                     \
        return open_at(dir, path, flags, mode);                                                              \
    }

/* The absolute path of what (dir, path) names; links are not followed: the store has none. */
static inline const char *shim_absolute(int dir, const char *path, char out[SHIM_PATH])
{
    char base[SHIM_PATH / 2] = "", link[64];
    if (*path != '/') {
        snprintf(link, sizeof link, dir == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", dir);
        ssize_t n = readlink(link, base, sizeof base - 1);
        base[n > 0 ? n : 0] = 0;
    }
    size_t n = (size_t)snprintf(out, SHIM_PATH, "%s%s%s", base, *path == '/' ? "" : "/", path);
    while (n > 2 && n < SHIM_PATH && (out[n - 1] == '/' || (out[n - 1] == '.' && out[n - 2] == '/')))
        out[--n] = 0;
    return out;
}

#endif
