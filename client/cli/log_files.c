#include "client/cli/log_files.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mem.h"

struct pm_log_files {
    char *dir;
    uint64_t file_bytes, used;
    unsigned keep;
    int fd;
    uint64_t lost; /* lines since the last one that was written */
    bool is_torn;  /* the last write ended within a line */
};

char *pm_log_files_path(const char *dir, unsigned age)
{
    return age ? pm_xprintf("%s/%s.%u", dir, PM_LOG_FILES_NAME, age) : pm_fs_join(dir, PM_LOG_FILES_NAME);
}

static int open_newest(struct pm_log_files *f, struct pm_error *err)
{
    struct stat st;
    char *path = pm_log_files_path(f->dir, 0);
    int rc = 0;
    f->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    f->used = 0;
    if (f->fd < 0)
        rc = pm_fail_errno(err, "cannot open the log %s", path);
    else if (!fstat(f->fd, &st))
        f->used = (uint64_t)st.st_size;
    free(path);
    return rc;
}

int pm_log_files_open(const char *dir, uint64_t file_bytes, unsigned keep, struct pm_log_files **out,
                      struct pm_error *err)
{
    struct pm_log_files *f = pm_xalloc(sizeof *f);
    *f = (struct pm_log_files){
        .dir = pm_xstrdup(dir), .file_bytes = file_bytes, .keep = keep ? keep : 1, .fd = -1};
    int rc = pm_fs_mkdir_p(dir, 0700, err);
    if (!rc)
        rc = open_newest(f, err);
    if (rc)
        pm_log_files_free(&f);
    *out = f;
    return rc;
}

void pm_log_files_free(struct pm_log_files **files)
{
    struct pm_log_files *f = *files;
    *files = NULL;
    if (!f)
        return;
    if (f->fd >= 0)
        close(f->fd);
    free(f->dir);
    free(f);
}

/* Each file takes the place of the next older one; the oldest is overwritten, or dropped when one is kept. */
static void rotate(struct pm_log_files *f)
{
    char *newest = pm_log_files_path(f->dir, 0);
    for (unsigned age = f->keep - 1; age > 0; age--) {
        char *from = pm_log_files_path(f->dir, age - 1), *to = pm_log_files_path(f->dir, age);
        rename(from, to);
        free(from);
        free(to);
    }
    if (f->keep == 1)
        unlink(newest);
    free(newest);
    close(f->fd);
    (void)open_newest(f, NULL); /* tried again with the next line */
}

static size_t prefix(const char *process, pid_t pid, enum pm_log_level level, char *out, size_t out_bytes)
{
    pm_log_time(pm_wall_us(), out);
    size_t n = PM_LOG_TIME - 1;
    n += (size_t)snprintf(out + n, out_bytes - n, " %s %.64s[%d] ", pm_log_level_name(level), process,
                          (int)pid);
    return n;
}

static bool write_line(struct pm_log_files *f, const char *line, size_t bytes)
{
    if (f->fd >= 0 && f->used && f->used + bytes > f->file_bytes)
        rotate(f);
    if (f->fd < 0 && open_newest(f, NULL))
        return false;
    if (f->is_torn && write(f->fd, "\n", 1) != 1)
        return false;
    f->is_torn = false;
    ssize_t n = write(f->fd, line, bytes);
    f->used += n > 0 ? (uint64_t)n : 0;
    f->is_torn = n > 0 && n < (ssize_t)bytes;
    return n == (ssize_t)bytes;
}

static void put(struct pm_log_files *f, const char *line, size_t bytes)
{
    if (f->lost) {
        char text[200];
        size_t n = prefix("supervisor", getpid(), PM_LOG_WARNING, text, sizeof text);
        n += (size_t)snprintf(text + n, sizeof text - n, "log lines could not be written lines=%llu\n",
                              (unsigned long long)f->lost);
        if (write_line(f, text, n))
            f->lost = 0;
    }
    if (!write_line(f, line, bytes))
        f->lost++;
}

void pm_log_files_put(struct pm_log_files *f, const char *process, pid_t pid, const char *line)
{
    struct pm_log_line parts;
    struct pm_buf out = {0};
    char front[200];
    size_t bytes = strcspn(line, "\n");
    if (!bytes)
        return;
    if (!pm_log_read(line, &parts))
        pm_buf_append(&out, front, prefix(process, pid, PM_LOG_WARNING, front, sizeof front));
    pm_buf_append(&out, line, bytes);
    pm_buf_append(&out, "\n", 1);
    put(f, (const char *)out.data, out.size);
    pm_buf_free(&out);
}

void pm_log_files_take(void *context, const char *line, size_t bytes)
{
    put(context, line, bytes);
}
