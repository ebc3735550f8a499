/* A SQLite file system that fails on demand: wraps the system's, and lets the Nth write or sync fail. */
#ifndef PM_TEST_BROKER_FAULT_VFS_H
#define PM_TEST_BROKER_FAULT_VFS_H

#include <stdbool.h>

struct fault_plan {
    int countdown;     /* of writes, syncs, truncates; at 0 it fails; negative: never */
    int code;          /* SQLITE_FULL, SQLITE_IOERR_WRITE, ... */
    bool is_permanent; /* every one after it fails too */
    bool is_torn;      /* the failing write leaves its first half */
    int fired;         /* how many failed */
    int seen;          /* how many were tried */
};
extern struct fault_plan fault_plan;
void fault_vfs_register(void); /* under the name "fault" */

#endif
