/* What disk_shim.c writes and cut_disk.c reads: every change of the files below one directory, in the order
 * in which they were made, from all processes.
 *
 *   record: struct disk_record, path, second path, data; one append each
 *
 * A change is logged before it is made, a sync after it was made: so a sync covers what was logged before it
 * was begun (`covers`: the length of the log then), and whatever happened because of a sync comes after it.
 */
#ifndef PM_FAULTS_DISK_LOG_H
#define PM_FAULTS_DISK_LOG_H

#include <stdint.h>

#define DISK_MAGIC 0x6b736964u

enum disk_op {
    DISK_OPEN = 1, /* path, inode: from now on this inode is that file */
    DISK_CREATE,   /* path, inode; an empty path: a file without a name */
    DISK_WRITE,    /* inode, at, data */
    DISK_TRUNCATE, /* inode, at = size */
    DISK_SYNC,     /* inode, covers */
    DISK_MKDIR,    /* path */
    DISK_RENAME,   /* path, second path */
    DISK_LINK,     /* inode, path: one more name */
    DISK_UNLINK,   /* path; also of directories */
    DISK_SYNC_DIR, /* path, covers */
    DISK_WITNESS,  /* path, data: appended to a file that is on another disk and survives */
};
struct disk_record {
    uint32_t magic, op;
    uint64_t inode, at, covers;
    uint32_t path_bytes, second_bytes, data_bytes, unused;
};

#endif
