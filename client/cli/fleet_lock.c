/* Folders of fleets: their locks, and what is left of dead ones. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fs.h"
#include "client/cli/fleet.h"

int pm_fleet_lock(const char *dir, int *fd_out, struct pm_error *err)
{
    int rc = pm_fs_mkdir_p(dir, 0700, err);
    *fd_out = -1;
    if (rc)
        return rc;
    char *path = pm_fs_join(dir, PM_FLEET_LOCK);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        rc = pm_fail_errno(err, "cannot open %s", path);
    else if (flock(fd, LOCK_EX | LOCK_NB))
        rc = errno == EWOULDBLOCK ? pm_fail(err, PM_EBUSY, "%s is in use by another fleet", dir)
                                  : pm_fail_errno(err, "cannot lock %s", path);
    free(path);
    if (rc && fd >= 0)
        close(fd);
    else
        *fd_out = fd;
    return rc;
}

/* True when the folder is ours and nobody of its fleet lives. *fd_out holds its lock meanwhile. */
static bool is_stale(const char *dir, int *fd_out)
{
    struct stat st;
    if (lstat(dir, &st) || !S_ISDIR(st.st_mode) || st.st_uid != getuid())
        return false;
    char *path = pm_fs_join(dir, PM_FLEET_LOCK);
    *fd_out = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    free(path);
    if (*fd_out < 0) /* killed between mkdir and open, or about to open it */
        return errno == ENOENT && time(NULL) - st.st_mtime > 60;
    return flock(*fd_out, LOCK_EX | LOCK_NB) == 0;
}

void pm_fleet_sweep(const char *parent, const char *prefix)
{
    DIR *entries = opendir(parent);
    struct dirent *entry;
    while (entries && (entry = readdir(entries))) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
            continue;
        char *dir = pm_fs_join(parent, entry->d_name);
        int fd = -1;
        if (is_stale(dir, &fd))
            (void)pm_fs_remove_tree(dir, NULL);
        if (fd >= 0)
            close(fd);
        free(dir);
    }
    if (entries)
        closedir(entries);
}
