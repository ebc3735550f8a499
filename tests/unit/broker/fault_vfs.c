#include "fault_vfs.h"

#include <sqlite3.h>
#include <string.h>

struct fault_plan fault_plan = {.countdown = -1};

struct fault_file {
    sqlite3_file base;
    sqlite3_file *real; /* behind this struct */
};

static bool fails(void)
{
    fault_plan.seen++;
    if (fault_plan.countdown < 0)
        return false;
    if (fault_plan.countdown > 0) {
        fault_plan.countdown--;
        return false;
    }
    if (!fault_plan.is_permanent)
        fault_plan.countdown = -1;
    fault_plan.fired++;
    return true;
}

#define REAL(f) (((struct fault_file *)(f))->real)
static int f_close(sqlite3_file *f)
{
    return REAL(f)->pMethods ? REAL(f)->pMethods->xClose(REAL(f)) : SQLITE_OK;
}
static int f_read(sqlite3_file *f, void *data, int n, sqlite3_int64 at)
{
    return REAL(f)->pMethods->xRead(REAL(f), data, n, at);
}
static int f_write(sqlite3_file *f, const void *data, int n, sqlite3_int64 at)
{
    if (!fails())
        return REAL(f)->pMethods->xWrite(REAL(f), data, n, at);
    if (fault_plan.is_torn)
        REAL(f)->pMethods->xWrite(REAL(f), data, n / 2, at);
    return fault_plan.code;
}
static int f_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    return fails() ? SQLITE_IOERR_TRUNCATE : REAL(f)->pMethods->xTruncate(REAL(f), size);
}
static int f_sync(sqlite3_file *f, int flags)
{
    return fails() ? SQLITE_IOERR_FSYNC : REAL(f)->pMethods->xSync(REAL(f), flags);
}
static int f_size(sqlite3_file *f, sqlite3_int64 *size)
{
    return REAL(f)->pMethods->xFileSize(REAL(f), size);
}
static int f_lock(sqlite3_file *f, int level)
{
    return REAL(f)->pMethods->xLock(REAL(f), level);
}
static int f_unlock(sqlite3_file *f, int level)
{
    return REAL(f)->pMethods->xUnlock(REAL(f), level);
}
static int f_check(sqlite3_file *f, int *out)
{
    return REAL(f)->pMethods->xCheckReservedLock(REAL(f), out);
}
static int f_control(sqlite3_file *f, int op, void *arg)
{
    return REAL(f)->pMethods->xFileControl(REAL(f), op, arg);
}
static int f_sector(sqlite3_file *f)
{
    return REAL(f)->pMethods->xSectorSize(REAL(f));
}
static int f_device(sqlite3_file *f)
{
    return REAL(f)->pMethods->xDeviceCharacteristics(REAL(f));
}
/* Version 1: no shared memory, which an exclusive WAL does without. */
static const sqlite3_io_methods methods = {.iVersion = 1,
                                           .xClose = f_close,
                                           .xRead = f_read,
                                           .xWrite = f_write,
                                           .xTruncate = f_truncate,
                                           .xSync = f_sync,
                                           .xFileSize = f_size,
                                           .xLock = f_lock,
                                           .xUnlock = f_unlock,
                                           .xCheckReservedLock = f_check,
                                           .xFileControl = f_control,
                                           .xSectorSize = f_sector,
                                           .xDeviceCharacteristics = f_device};

static sqlite3_vfs vfs;
static int v_open(sqlite3_vfs *v, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    sqlite3_vfs *real = v->pAppData;
    struct fault_file *f = (struct fault_file *)file;
    f->real = (sqlite3_file *)(f + 1);
    int rc = real->xOpen(real, name, f->real, flags, out_flags);
    f->base.pMethods = rc == SQLITE_OK ? &methods : NULL;
    return rc;
}

void fault_vfs_register(void)
{
    sqlite3_vfs *real = sqlite3_vfs_find(NULL);
    vfs = *real;
    vfs.zName = "fault";
    vfs.pNext = NULL;
    vfs.pAppData = real;
    vfs.szOsFile = (int)sizeof(struct fault_file) + real->szOsFile;
    vfs.xOpen = v_open;
    sqlite3_vfs_register(&vfs, 0);
}
