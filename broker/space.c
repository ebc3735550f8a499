/* The disk: its free bytes, and a file of zeros that is given up when it is full, so that the ends of jobs
 * can still be written. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fs.h"
#include "broker/broker.h"

#define RESERVE_BYTES (8 << 20)

int pm_space_reserve(struct pm_broker *b, struct pm_error *err)
{
    char *path = pm_fs_join(b->config.state_dir, "reserve");
    int rc = 0, fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        rc = pm_fail_errno(err, "cannot make %s", path);
    } else {
        int failed = posix_fallocate(fd, 0, RESERVE_BYTES);
        if (failed) {
            errno = failed;
            rc = pm_fail_errno(err, "cannot reserve %d bytes in %s", RESERVE_BYTES, path);
            unlink(path);
        }
        close(fd);
    }
    free(path);
    return rc;
}

bool pm_space_release(struct pm_broker *b)
{
    char *path = pm_fs_join(b->config.state_dir, "reserve");
    bool was_there = unlink(path) == 0;
    free(path);
    return was_there;
}

void pm_space_check(struct pm_broker *b)
{
    struct pm_error err;
    if (pm_blob_space(b->blobs, PM_BLOB_DISK, &b->disk_free, &err)) {
        pm_log(PM_LOG_WARNING, "cannot tell the free space: %s", err.text);
        return;
    }
    bool full = b->disk_free < b->config.min_free_bytes;
    if (full && !b->is_full)
        pm_log(PM_LOG_WARNING, "the disk is nearly full, no new jobs free_mb=%llu",
               (unsigned long long)(b->disk_free >> 20));
    if (!full && b->is_full) {
        pm_log(PM_LOG_INFO, "the disk has room again free_mb=%llu", (unsigned long long)(b->disk_free >> 20));
        if (pm_space_reserve(b, &err))
            full = true;
    }
    b->is_full = full;
    pm_sched_disk_full(b->sched, full);
}
