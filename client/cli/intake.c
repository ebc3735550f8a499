#include "client/cli/intake.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/sniff.h"
#include "base/utf8.h"

#define LOOK_AT_ONCE 1000 /* files whose bytes are looked at during the walk */
#define DEPTH_MOST   64
#define LIST_BYTES   ((size_t)1 << 30)

bool pm_intake_is_document(const char *path)
{
    uint8_t bytes[PM_SNIFF_BYTES];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return pm_format_from_name(path) != PM_FORMAT_UNKNOWN;
    size_t have = 0;
    ssize_t n;
    while (have < sizeof bytes && (n = read(fd, bytes + have, sizeof bytes - have)) != 0) {
        if (n < 0 && errno != EINTR)
            break;
        have += n > 0 ? (size_t)n : 0;
    }
    close(fd);
    /* Damaged or empty documents are still somebody's documents: they get an error line of their own. */
    return pm_sniff(bytes, have) != PM_FORMAT_UNKNOWN || pm_format_from_name(path) != PM_FORMAT_UNKNOWN;
}

void pm_intake_skip(struct pm_intake *intake, const char *dir)
{
    struct stat st;
    if (stat(dir, &st))
        return;
    intake->skip_device = st.st_dev;
    intake->skip_inode = st.st_ino;
    intake->has_skip = true;
}

static struct pm_input *append(struct pm_intake *intake, char *path, char *folder)
{
    PM_GROW(intake->items, intake->count, intake->capacity);
    struct pm_input *input = &intake->items[intake->count++];
    *input = (struct pm_input){.path = path, .folder = folder, .root = (uint32_t)intake->root_count - 1};
    return input;
}

/* ---- walking ---- */

struct names_list {
    char **items;
    size_t count, capacity;
};

static void walk(struct pm_intake *intake, const char *dir, const char *folder, int depth)
{
    DIR *entries = opendir(dir);
    if (!entries) {
        char *why = pm_xprintf("cannot read this folder: %s", strerror(errno));
        append(intake, pm_xstrdup(dir), pm_xstrdup(folder))->error = why;
        return;
    }
    struct dirent *entry;
    struct names_list below = {0};
    while ((entry = readdir(entries))) {
        if (entry->d_name[0] == '.')
            continue;
        char *path = pm_fs_join(dir, entry->d_name);
        struct stat st, link;
        bool is_there = !lstat(path, &link) && !stat(path, &st);
        bool is_folder = is_there && S_ISDIR(link.st_mode);
        if (is_there && S_ISREG(st.st_mode)) {
            bool is_early = intake->looked++ < LOOK_AT_ONCE;
            if (is_early && !pm_intake_is_document(path)) {
                free(path);
                continue;
            }
            struct pm_input *input = append(intake, path, pm_xstrdup(folder));
            input->must_look = !is_early;
            intake->roots[input->root].documents += is_early;
            path = NULL;
        } else if (is_folder && depth < DEPTH_MOST &&
                   !(intake->has_skip && st.st_dev == intake->skip_device &&
                     st.st_ino == intake->skip_inode)) {
            PM_GROW(below.items, below.count, below.capacity);
            below.items[below.count++] = pm_xstrdup(entry->d_name);
        }
        free(path);
    }
    closedir(entries); /* before going deeper: depth must not cost descriptors */
    for (size_t i = 0; i < below.count; i++) {
        char *path = pm_fs_join(dir, below.items[i]);
        char *inner = *folder ? pm_fs_join(folder, below.items[i]) : pm_xstrdup(below.items[i]);
        walk(intake, path, inner, depth + 1);
        free(inner);
        free(path);
        free(below.items[i]);
    }
    free(below.items);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct pm_input *)a)->path, ((const struct pm_input *)b)->path);
}

static void add_folder(struct pm_intake *intake, const char *path)
{
    size_t first = intake->count;
    char *dir = pm_xstrdup(path);
    for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--)
        dir[n - 1] = 0;
    walk(intake, dir, "", 0);
    if (intake->count > first)
        qsort(intake->items + first, intake->count - first, sizeof *intake->items, by_path);
    else
        append(intake, pm_xstrdup(path), pm_xstrdup(""))->error =
            pm_xstrdup("no documents in this folder (PDF, PNG, JPEG, TIFF, WebP, BMP or GIF)");
    free(dir);
}

int pm_intake_add(struct pm_intake *intake, const char *path, struct pm_error *err)
{
    bool is_stdin = !strcmp(path, "-");
    if (is_stdin && intake->has_stdin)
        return pm_fail(err, PM_EINVAL, "standard input can be read only once");
    if (!*path)
        return pm_fail(err, PM_EINVAL, "an empty file name was given");
    PM_GROW(intake->roots, intake->root_count, intake->root_capacity);
    intake->roots[intake->root_count++] = (struct pm_intake_root){.path = pm_xstrdup(path)};
    if (!is_stdin && pm_fs_is_dir(path)) {
        add_folder(intake, path);
        return 0;
    }
    append(intake, is_stdin ? NULL : pm_xstrdup(path), pm_xstrdup(""));
    intake->roots[intake->root_count - 1].documents = 1;
    intake->has_stdin |= is_stdin;
    return 0;
}

int pm_intake_add_list(struct pm_intake *intake, const char *list_path, struct pm_error *err)
{
    struct pm_buf text = {0};
    if (!strcmp(list_path, "-")) {
        if (intake->has_stdin)
            return pm_fail(err, PM_EINVAL, "standard input can be read only once");
        intake->has_stdin = true;
    }
    int rc = pm_fs_read(list_path, LIST_BYTES, &text, err);
    for (size_t at = 0; !rc && at < text.size;) {
        const char *line = (const char *)text.data + at;
        size_t n = 0;
        while (at + n < text.size && line[n] != '\n')
            n++;
        at += n + 1;
        while (n && line[n - 1] == '\r')
            n--;
        char *path = pm_xstrndup(line, n);
        if (strlen(path) != n)
            rc = pm_fail(err, PM_EINVAL, "%s holds a NUL byte: it is not a list of file names", list_path);
        else if (n && !strcmp(path, "-"))
            rc = pm_fail(err, PM_EINVAL, "\"-\" inside the list %s is not possible", list_path);
        else if (n)
            rc = pm_intake_add(intake, path, err);
        free(path);
    }
    pm_buf_free(&text);
    return rc;
}

void pm_intake_free(struct pm_intake *intake)
{
    for (size_t i = 0; i < intake->count; i++) {
        free(intake->items[i].path);
        free(intake->items[i].folder);
        free(intake->items[i].error);
    }
    for (size_t i = 0; i < intake->root_count; i++)
        free(intake->roots[i].path);
    free(intake->items);
    free(intake->roots);
    *intake = (struct pm_intake){0};
}

/* ---- names of results ---- */

struct pm_names {
    struct pm_strmap taken;
};

struct pm_names *pm_names_new(void)
{
    return pm_xalloc(sizeof(struct pm_names));
}

void pm_names_free(struct pm_names **names)
{
    if (*names)
        pm_strmap_free(&(*names)->taken);
    free(*names);
    *names = NULL;
}

static char *clean_stem(const char *path)
{
    const char *base = path ? strrchr(path, '/') : NULL;
    base = base ? base + 1 : path ? path : "stdin";
    const char *dot = strrchr(base, '.');
    struct pm_buf text = {0};
    pm_utf8_mend(base, dot && dot != base ? (size_t)(dot - base) : strlen(base), &text);
    pm_buf_text(&text, "");
    char *stem = pm_fs_clean_name((const char *)text.data);
    stem[pm_utf8_cut(stem, 180)] = 0; /* room for "-2" and ".partial.md" in 255 bytes */
    pm_buf_free(&text);
    return stem;
}

char *pm_names_claim(struct pm_names *names, const char *folder, const char *path)
{
    char *stem = clean_stem(path);
    for (unsigned n = 1;; n++) {
        char *candidate = n == 1 ? pm_xstrdup(stem) : pm_xprintf("%s-%u", stem, n);
        char *place = pm_xprintf("%s/%s", folder, candidate);
        bool is_free = !pm_strmap_get(&names->taken, place);
        if (is_free)
            pm_strmap_put(&names->taken, place, names);
        free(place);
        if (is_free) {
            free(stem);
            return candidate;
        }
        free(candidate);
    }
}

void pm_names_release(struct pm_names *names, const char *folder, const char *stem)
{
    char *place = pm_xprintf("%s/%s", folder, stem);
    pm_strmap_remove(&names->taken, place);
    free(place);
}
