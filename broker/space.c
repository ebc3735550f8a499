/* The disk: its free bytes, and a file of zeros that is given up when it is full, so that the ends of jobs
 * can still be written. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fs.h"
#include "broker/broker.h"

#define RESERVE_BYTES (8 << 20)
#define RECOUNT_US    10000000 /* a store at its limit is counted again so often: results may be gone */

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

uint64_t pm_space_stored(const struct pm_broker *b)
{
    return pm_blobs_bytes(b->blobs, PM_BLOB_DISK) + b->stored;
}

void pm_space_add(struct pm_broker *b, uint64_t bytes)
{
    b->stored += bytes;
}

void pm_space_counted(struct pm_broker *b)
{
    b->stored -= b->stored_before;
    b->stored_before = b->stored;
}

int pm_space_for(struct pm_broker *b, uint64_t bytes, struct pm_error *err)
{
    uint64_t limit = b->config.max_store_bytes;
    if (b->is_full) {
        pm_count(b, PM_COUNT_refused_disk_full);
        return pm_fail(err, PM_ENOSPC, "no space left: %llu MB free in %s, new jobs need %llu MB",
                       (unsigned long long)(b->disk_free >> 20), b->config.state_dir,
                       (unsigned long long)(b->config.min_free_bytes >> 20));
    }
    if (!limit || (bytes <= limit && pm_space_stored(b) <= limit - bytes))
        return 0;
    pm_count(b, PM_COUNT_refused_store_full);
    if (b->now.us - b->store_sweep_us > RECOUNT_US) {
        b->store_sweep_us = b->now.us;
        pm_refs_sweep_begin(b);
    }
    return pm_fail(err, PM_ENOSPC,
                   "no space left: %llu MB of documents and results are stored, the limit is %llu MB: forget "
                   "finished jobs, or wait until they expire",
                   (unsigned long long)(pm_space_stored(b) >> 20), (unsigned long long)(limit >> 20));
}
