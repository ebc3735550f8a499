/* doctor: state and run folder, disk, page pictures in memory, what dead fleets left. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "client/cli/doctor.h"
#include "client/cli/fleet.h"
#include "client/cli/locate.h"
#include "client/cli/show.h"

#define SYNCS            9
#define SYNC_SLOW_US     20000
#define DISK_LEAST_BYTES ((uint64_t)256 << 20) /* the broker takes no jobs below 64 MB */
#define DISK_SMALL_BYTES ((uint64_t)2 << 30)
#define PIXEL_NEED_BYTES ((uint64_t)192 << 20)

/* ---- a folder of ours ---- */

/* The folder itself, or the nearest one above it that is there; caller frees. */
static char *existing(const char *path)
{
    char *at = pm_xstrdup(path);
    while (access(at, F_OK) && strlen(at) > 1) {
        char *slash = strrchr(at, '/');
        if (!slash)
            break;
        slash[slash == at] = 0;
    }
    return at;
}

/* False when nothing more can be said about it. */
static bool check_access(struct pm_doctor *d, const char *subject, const char *dir)
{
    struct stat st;
    bool is_there = !stat(dir, &st);
    if (!is_there) {
        char *above = existing(dir),
             *fix = pm_xprintf("`mkdir -m 700 -p %s; chown %u %s`, as root", dir, (unsigned)geteuid(), dir);
        bool can = !access(above, W_OK | X_OK);
        pm_doctor_add(d, subject, can ? PM_DOCTOR_OK : PM_DOCTOR_FAIL, fix,
                      can ? "%s is made by the first start" : "%s is not there and cannot be made", dir);
        free(above);
        free(fix);
        return false;
    }
    char *own = pm_xprintf("`chown -R %u %s; chmod 700 %s`, as root; or run as the user it belongs to",
                           (unsigned)geteuid(), dir, dir);
    char *mode = pm_xprintf("`chmod 700 %s`", dir);
    bool is_good = false;
    if (!S_ISDIR(st.st_mode))
        pm_doctor_add(d, subject, PM_DOCTOR_FAIL, "move it away, or name another folder", "%s is no folder",
                      dir);
    else if (st.st_uid != geteuid() && geteuid() != 0)
        pm_doctor_add(d, subject, PM_DOCTOR_FAIL, own, "%s belongs to user %u, you are %u", dir,
                      (unsigned)st.st_uid, (unsigned)geteuid());
    else if (access(dir, R_OK | W_OK | X_OK))
        pm_doctor_add(d, subject, PM_DOCTOR_FAIL, own, "%s cannot be written: %s", dir, strerror(errno));
    else if (st.st_mode & 077)
        pm_doctor_add(d, subject, PM_DOCTOR_FAIL, mode,
                      "%s has mode %03o: other users could read the documents and use the fleet", dir,
                      (unsigned)(st.st_mode & 0777));
    else
        is_good = true;
    free(own);
    free(mode);
    return is_good;
}

/* ---- the state folder ---- */

static const char *file_system(long magic)
{
    static const struct {
        long magic;
        const char *name;
    } known[] = {{0x01021994, "tmpfs"}, {(long)0x858458f6, "ramfs"}, {0x6969, "NFS"},
                 {0x517b, "SMB"},       {(long)0xff534d42, "CIFS"},  {(long)0xfe534d42, "SMB"},
                 {0x65735546, "FUSE"},  {0x794c7630, "overlayfs"},   {0xef53, "ext4"},
                 {0x58465342, "XFS"},   {(long)0x9123683e, "Btrfs"}, {0x2fc12fc1, "ZFS"},
                 {0x01021997, "9p"},    {0x00c36400, "Ceph"},        {(long)0xf2f52010, "F2FS"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].magic == magic)
            return known[i].name;
    return "a file system";
}

static void check_file_system(struct pm_doctor *d, const char *dir)
{
    struct statfs fs;
    if (statfs(dir, &fs))
        return;
    const char *name = file_system((long)fs.f_type);
    if (!strcmp(name, "tmpfs") || !strcmp(name, "ramfs"))
        pm_doctor_add(d, "state", PM_DOCTOR_WARN, "name a folder on a disk: `pagemill up --state DIR`",
                      "%s is in memory (%s): all jobs are gone after a reboot", dir, name);
    else if (!strcmp(name, "NFS") || !strcmp(name, "SMB") || !strcmp(name, "CIFS") || !strcmp(name, "9p"))
        pm_doctor_add(d, "state", PM_DOCTOR_FAIL, "name a folder on a local disk: `pagemill up --state DIR`",
                      "%s is on %s: the journal needs a local disk, it may be damaged there", dir, name);
    else if (!strcmp(name, "overlayfs"))
        pm_doctor_add(d, "state", PM_DOCTOR_WARN,
                      "give the container a volume there: `docker run -v pagemill:DIR`",
                      "%s is in the container's own layer: jobs go with the container", dir);
}

static void check_space(struct pm_doctor *d, const char *dir)
{
    struct statvfs fs;
    char text[24];
    static const char fix[] =
        "free space there, keep results for less time (`pagemill up --result-ttl SECONDS`), or move the "
        "state folder to a larger disk";
    if (statvfs(dir, &fs)) {
        pm_doctor_add(d, "disk", PM_DOCTOR_WARN, NULL, "cannot tell the free space of %s: %s", dir,
                      strerror(errno));
        return;
    }
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    pm_show_bytes(free_bytes, text, sizeof text);
    pm_doctor_add(d, "disk",
                  free_bytes < DISK_LEAST_BYTES   ? PM_DOCTOR_FAIL
                  : free_bytes < DISK_SMALL_BYTES ? PM_DOCTOR_WARN
                                                  : PM_DOCTOR_OK,
                  fix, "%s free for %s%s", text, dir,
                  free_bytes < DISK_LEAST_BYTES ? ": below 64 MB the fleet takes no jobs" : "");
    if (fs.f_files && fs.f_favail < 10000)
        pm_doctor_add(d, "disk", fs.f_favail < 100 ? PM_DOCTOR_FAIL : PM_DOCTOR_WARN, fix,
                      "only %llu more files can be made (inodes) at %s", (unsigned long long)fs.f_favail,
                      dir);
}

static int by_time(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Every accepted job costs one sync: half of them take at most so long. */
static void check_sync(struct pm_doctor *d, const char *dir)
{
    int64_t times[SYNCS];
    char *path = pm_xprintf("%s/.doctor-%d", dir, (int)getpid()), block[4096] = {0}, text[24];
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), failed = fd < 0 ? errno : 0;
    for (int i = 0; i < SYNCS && !failed; i++) {
        int64_t before = pm_clock_us();
        if (pwrite(fd, block, sizeof block, (off_t)i * (off_t)sizeof block) != (ssize_t)sizeof block ||
            fdatasync(fd))
            failed = errno ? errno : EIO;
        times[i] = pm_clock_us() - before;
    }
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    free(path);
    if (failed) {
        pm_doctor_add(d, "disk", PM_DOCTOR_FAIL, "look at `dmesg` and the disk's health; free space",
                      "a file in %s cannot be written and synced: %s", dir, strerror(failed));
        return;
    }
    qsort(times, SYNCS, sizeof *times, by_time);
    snprintf(text, sizeof text, "%.2f ms", (double)times[SYNCS / 2] / 1000);
    pm_doctor_add(d, "disk", times[SYNCS / 2] > SYNC_SLOW_US ? PM_DOCTOR_WARN : PM_DOCTOR_OK,
                  "a disk with power-loss protection answers in well below a millisecond; a busy or network "
                  "disk delays "
                  "every submit by this",
                  "a sync takes %s there", text);
}

static void check_state(struct pm_doctor *d)
{
    char *there = existing(d->state);
    bool can_write = check_access(d, "state", d->state);
    check_file_system(d, there);
    check_space(d, there);
    if (can_write) {
        pm_doctor_add(d, "state", PM_DOCTOR_OK, NULL, "%s", d->state);
        check_sync(d, d->state);
    }
    free(there);
}

/* ---- the run folder ---- */

static bool is_locked(const char *dir, const char *name)
{
    char *path = pm_fs_join(dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool is = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    free(path);
    return is;
}

static void check_run(struct pm_doctor *d)
{
    char *socket = pm_fs_join(d->run, "client.sock");
    if (strlen(socket) >= sizeof(((struct sockaddr_un *)0)->sun_path))
        pm_doctor_add(d, "run", PM_DOCTOR_FAIL,
                      "name a shorter folder: `pagemill up --run DIR`, XDG_RUNTIME_DIR or TMPDIR",
                      "%s is too long for a socket", socket);
    else if (check_access(d, "run", d->run)) {
        bool has_owner = is_locked(d->run, PM_FLEET_LOCK), has_socket = !access(socket, F_OK);
        char *fix = pm_xprintf("`rm %s`, or just `pagemill up`, which replaces it", socket);
        if (has_socket && !has_owner && !pm_locate_is_alive(socket))
            pm_doctor_add(d, "run", PM_DOCTOR_WARN, fix, "%s is the rest of a fleet that was killed", socket);
        else if (has_owner && !pm_locate_is_alive(socket))
            pm_doctor_add(
                d, "run", PM_DOCTOR_FAIL,
                "wait a moment if it is just starting; else `pagemill logs --since 10m` says what it does",
                "a fleet holds %s and its broker does not listen", d->run);
        else
            pm_doctor_add(d, "run", PM_DOCTOR_OK, NULL, "%s", d->run);
        free(fix);
    }
    free(socket);
}

/* ---- memory for page pictures, leftovers ---- */

static void check_pixels(struct pm_doctor *d)
{
    uint64_t free_bytes = 0;
    char text[24],
        *dir = d->up->pixels ? pm_xstrdup(d->up->pixels) : pm_locate_memory(PIXEL_NEED_BYTES, &free_bytes);
    struct statvfs fs;
    char *there = existing(dir);
    if (!statvfs(there, &fs))
        free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    pm_show_bytes(free_bytes, text, sizeof text);
    bool is_small = free_bytes < PIXEL_NEED_BYTES, is_memory = !strncmp(dir, "/dev/shm", 8) || d->up->pixels;
    pm_doctor_add(d, "pictures", is_small || !is_memory ? PM_DOCTOR_WARN : PM_DOCTOR_OK,
                  "`mount -o remount,size=2G /dev/shm`, for a container `docker run --shm-size=1g`",
                  is_memory ? "%s has %s for page pictures"
                            : "%s (%s free) holds page pictures: /dev/shm is too small",
                  dir, text);
    free(there);
    free(dir);
}

static void check_leftovers(struct pm_doctor *d, const char *parent)
{
    char *prefix = pm_xprintf("pagemill-%u-", (unsigned)getuid());
    DIR *entries = opendir(parent);
    struct dirent *entry;
    size_t dead = 0;
    while (entries && (entry = readdir(entries))) {
        char *dir = pm_fs_join(parent, entry->d_name);
        if (!strncmp(entry->d_name, prefix, strlen(prefix)) && pm_fs_is_dir(dir) &&
            !is_locked(dir, PM_FLEET_LOCK))
            dead++;
        free(dir);
    }
    if (entries)
        closedir(entries);
    if (dead)
        pm_doctor_add(d, "leftover", PM_DOCTOR_WARN,
                      "the next `pagemill up` or `pagemill parse` removes them",
                      "%zu folder%s of killed fleets in %s", dead, dead == 1 ? "" : "s", parent);
    free(prefix);
}

void pm_doctor_folders(struct pm_doctor *d)
{
    char *temporary = pm_locate_temporary();
    check_state(d);
    check_run(d);
    check_pixels(d);
    check_leftovers(d, "/dev/shm");
    check_leftovers(d, temporary);
    if (access(temporary, W_OK | X_OK))
        pm_doctor_add(d, "tmp", PM_DOCTOR_FAIL, "set TMPDIR to a folder of yours", "%s cannot be written: %s",
                      temporary, strerror(errno));
    free(temporary);
}
