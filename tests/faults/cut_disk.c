#include "tests/faults/cut_disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "tests/faults/disk_log.h"
#include "tests/faults/rig.h"

#define SECTOR 512u

const char *const cut_policy_names[CUT_POLICIES] = {"loses all", "keeps all", "keeps some", "tears"};

struct change { /* of a file's content, not synced */
    enum disk_op op;
    uint64_t at, pos;
    const uint8_t *data; /* in the log */
    size_t bytes;
};
struct entry { /* of a directory; pos counts only for changes that were not synced */
    char *name;
    struct node *node; /* NULL: removed */
    uint64_t pos;
};
struct node {
    bool is_dir;
    struct pm_buf content;  /* on the disk */
    struct change *changes; /* of a file */
    struct entry *entries;  /* on the disk */
    struct entry *unsynced; /* of a directory */
    size_t change_count, change_capacity, entry_count, entry_capacity, unsynced_count, unsynced_capacity;
};
struct cut_disk {
    char *root;
    struct node *top, **all;
    size_t count, capacity;
    struct pm_map by_inode;
    uint64_t kept, lost;
};

/* ---- nodes ---- */

static struct node *add_node(struct cut_disk *d, bool is_dir)
{
    struct node *n = pm_xalloc(sizeof *n);
    n->is_dir = is_dir;
    PM_GROW(d->all, d->count, d->capacity);
    return d->all[d->count++] = n;
}

static void set_entry(struct node *dir, const char *name, struct node *node)
{
    for (size_t i = 0; i < dir->entry_count; i++)
        if (!strcmp(dir->entries[i].name, name)) {
            dir->entries[i].node = node;
            return;
        }
    PM_GROW(dir->entries, dir->entry_count, dir->entry_capacity);
    dir->entries[dir->entry_count++] = (struct entry){.name = pm_xstrdup(name), .node = node};
}

static void change_entry(struct node *dir, const char *name, struct node *node, uint64_t pos)
{
    PM_GROW(dir->unsynced, dir->unsynced_count, dir->unsynced_capacity);
    dir->unsynced[dir->unsynced_count++] = (struct entry){pm_xstrdup(name), node, pos};
}

static struct node *child(const struct node *dir, const char *name)
{
    for (size_t i = dir->unsynced_count; i-- > 0;)
        if (!strcmp(dir->unsynced[i].name, name))
            return dir->unsynced[i].node;
    for (size_t i = 0; i < dir->entry_count; i++)
        if (!strcmp(dir->entries[i].name, name))
            return dir->entries[i].node;
    return NULL;
}

/* The directory that holds the last part of a path, and that part; NULL when there is none. */
static struct node *parent_of(const struct cut_disk *d, const char *path, char name[256])
{
    struct node *n = d->top;
    path += strlen(d->root);
    for (;;) {
        path += strspn(path, "/");
        size_t size = strcspn(path, "/");
        if (!n || !n->is_dir || !size || size > 255)
            return NULL;
        memcpy(name, path, size);
        name[size] = 0;
        path += size;
        if (!path[strspn(path, "/")])
            return n;
        n = child(n, name);
    }
}

static struct node *find(const struct cut_disk *d, const char *path)
{
    char name[256];
    if (!strcmp(path, d->root))
        return d->top;
    struct node *dir = parent_of(d, path, name);
    return dir ? child(dir, name) : NULL;
}

/* ---- loading ---- */

static void load(struct cut_disk *d, struct node *dir, const char *path)
{
    DIR *list = opendir(path);
    if (!list)
        rig_give_up("cannot list %s", path);
    for (struct dirent *e; (e = readdir(list));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        char *full = pm_fs_join(path, e->d_name);
        struct node *n = add_node(d, pm_fs_is_dir(full));
        struct pm_error err;
        set_entry(dir, e->d_name, n);
        if (n->is_dir)
            load(d, n, full);
        else if (strcmp(e->d_name, "reserve") != 0 && /* 8 MB of zeros */
                 pm_fs_read(full, (size_t)1 << 30, &n->content, &err))
            rig_give_up("%s", err.text);
        free(full);
    }
    closedir(list);
}

struct cut_disk *cut_disk_new(const char *root)
{
    struct cut_disk *d = pm_xalloc(sizeof *d);
    d->root = pm_xstrdup(root);
    d->top = add_node(d, true);
    load(d, d->top, root);
    return d;
}

static void free_entries(struct entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(entries[i].name);
    free(entries);
}

void cut_disk_free(struct cut_disk **disk)
{
    struct cut_disk *d = *disk;
    for (size_t i = 0; i < d->count; i++) {
        struct node *n = d->all[i];
        free_entries(n->entries, n->entry_count);
        free_entries(n->unsynced, n->unsynced_count);
        free(n->changes);
        pm_buf_free(&n->content);
        free(n);
    }
    pm_map_free(&d->by_inode);
    free(d->all);
    free(d->root);
    free(d);
    *disk = NULL;
}

/* ---- playing ---- */

static void resize(struct pm_buf *b, uint64_t size)
{
    static const uint8_t zeros[65536];
    while (b->size < size) {
        uint64_t more = size - b->size;
        pm_buf_append(b, zeros, more < sizeof zeros ? (size_t)more : sizeof zeros);
    }
    b->size = (size_t)size;
}

static void apply(struct pm_buf *b, const struct change *c, size_t from, size_t bytes)
{
    if (c->op == DISK_TRUNCATE) {
        resize(b, c->at);
    } else if (bytes) {
        if (b->size < c->at + from + bytes)
            resize(b, c->at + from + bytes);
        memcpy(b->data + c->at + from, c->data + from, bytes);
    }
}

static void sync_file(struct node *n, uint64_t covers)
{
    size_t kept = 0;
    for (size_t i = 0; i < n->change_count; i++)
        if (n->changes[i].pos < covers)
            apply(&n->content, &n->changes[i], 0, n->changes[i].bytes);
        else
            n->changes[kept++] = n->changes[i];
    n->change_count = kept;
}

static void sync_dir(struct node *n, uint64_t covers)
{
    size_t kept = 0;
    for (size_t i = 0; i < n->unsynced_count; i++)
        if (n->unsynced[i].pos < covers) {
            set_entry(n, n->unsynced[i].name, n->unsynced[i].node);
            free(n->unsynced[i].name);
        } else {
            n->unsynced[kept++] = n->unsynced[i];
        }
    n->unsynced_count = kept;
}

static void play(struct cut_disk *d, const struct disk_record *r, uint64_t pos, const char *path,
                 const char *second, const uint8_t *data)
{
    char name[256], new_name[256];
    struct node *n = pm_map_get(&d->by_inode, r->inode), *dir, *new_dir;
    switch ((enum disk_op)r->op) {
    case DISK_OPEN:
        if ((n = find(d, path)))
            pm_map_put(&d->by_inode, r->inode, n);
        break;
    case DISK_CREATE:
        n = add_node(d, false);
        pm_map_put(&d->by_inode, r->inode, n);
        if (*path && (dir = parent_of(d, path, name)))
            change_entry(dir, name, n, pos);
        break;
    case DISK_WRITE:
    case DISK_TRUNCATE:
        if (!n)
            break;
        PM_GROW(n->changes, n->change_count, n->change_capacity);
        n->changes[n->change_count++] = (struct change){(enum disk_op)r->op, r->at, pos, data, r->data_bytes};
        break;
    case DISK_SYNC:
        if (n)
            sync_file(n, r->covers);
        break;
    case DISK_MKDIR:
        if ((dir = parent_of(d, path, name)) && !child(dir, name))
            change_entry(dir, name, add_node(d, true), pos);
        break;
    case DISK_RENAME:
        dir = parent_of(d, path, name);
        new_dir = parent_of(d, second, new_name);
        if (dir && new_dir && (n = child(dir, name))) {
            change_entry(new_dir, new_name, n, pos);
            change_entry(dir, name, NULL, pos);
        }
        break;
    case DISK_LINK:
        if (n && (dir = parent_of(d, path, name)) && !child(dir, name))
            change_entry(dir, name, n, pos);
        break;
    case DISK_UNLINK:
        if ((dir = parent_of(d, path, name)) && child(dir, name))
            change_entry(dir, name, NULL, pos);
        break;
    case DISK_SYNC_DIR:
        if ((n = find(d, path)) && n->is_dir)
            sync_dir(n, r->covers);
        break;
    case DISK_WITNESS:
        break;
    }
}

/* The record at *at, which moves behind it; false at the end. */
static bool next_record(const struct pm_buf *log, size_t *at, struct disk_record *r)
{
    if (log->size - *at < sizeof *r)
        return false;
    memcpy(r, log->data + *at, sizeof *r);
    size_t bytes = sizeof *r + r->path_bytes + r->second_bytes + r->data_bytes;
    if (r->magic != DISK_MAGIC)
        rig_give_up("the disk's log is damaged at byte %zu", *at);
    if (log->size - *at < bytes)
        return false;
    *at += bytes;
    return true;
}

size_t cut_disk_records(const struct pm_buf *log)
{
    struct disk_record r;
    size_t count = 0;
    for (size_t at = 0; next_record(log, &at, &r);)
        count++;
    return count;
}

void cut_disk_play(struct cut_disk *d, const struct pm_buf *log, size_t records,
                   void (*take)(void *context, const char *path, const void *data, size_t bytes),
                   void *context)
{
    struct disk_record r;
    for (size_t at = 0, next = 0; records && next_record(log, &next, &r); at = next, records--) {
        const uint8_t *body = log->data + at + sizeof r, *data = body + r.path_bytes + r.second_bytes;
        char *path = pm_xstrndup((const char *)body, r.path_bytes);
        char *second = pm_xstrndup((const char *)body + r.path_bytes, r.second_bytes);
        if (r.op == DISK_WITNESS)
            take(context, path, data, r.data_bytes);
        else
            play(d, &r, at, path, second, data);
        free(path);
        free(second);
    }
}

/* ---- the cut ---- */

static bool survives(struct cut_disk *d, enum cut_policy policy, int (*random)(void))
{
    bool is_kept = policy == CUT_KEEPS_ALL || (policy != CUT_LOSES_ALL && random() / 7 % 2);
    *(is_kept ? &d->kept : &d->lost) += 1;
    return is_kept;
}

static void cut_file(struct cut_disk *d, struct node *n, enum cut_policy policy, int (*random)(void))
{
    for (size_t i = 0; i < n->change_count; i++) {
        const struct change *c = &n->changes[i];
        if (policy != CUT_TEARS || c->op != DISK_WRITE) {
            if (survives(d, policy, random))
                apply(&n->content, c, 0, c->bytes);
            continue;
        }
        for (size_t from = 0; from < c->bytes;) { /* up to the next sector of the disk */
            size_t size = SECTOR - (size_t)((c->at + from) % SECTOR);
            size = size < c->bytes - from ? size : c->bytes - from;
            if (survives(d, policy, random))
                apply(&n->content, c, from, size);
            from += size;
        }
    }
    n->change_count = 0;
}

static void write_file(const char *path, const struct pm_buf *content)
{
    static const uint8_t zeros[4096];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)content->size))
        rig_give_up("cannot write %s", path);
    for (size_t at = 0; at < content->size;) { /* holes stay holes: the reserve is all zeros */
        size_t size = content->size - at < sizeof zeros ? content->size - at : sizeof zeros;
        if (memcmp(content->data + at, zeros, size) &&
            pwrite(fd, content->data + at, size, (off_t)at) != (ssize_t)size)
            rig_give_up("cannot write %s", path);
        at += size;
    }
    close(fd);
}

static void write_node(struct cut_disk *d, struct node *n, enum cut_policy policy, int (*random)(void),
                       const char *path)
{
    if (!n->is_dir) {
        cut_file(d, n, policy, random);
        write_file(path, &n->content);
        return;
    }
    struct pm_error err;
    if (pm_fs_mkdir_p(path, 0700, &err))
        rig_give_up("%s", err.text);
    for (size_t i = 0; i < n->unsynced_count; i++) {
        if (survives(d, policy, random))
            set_entry(n, n->unsynced[i].name, n->unsynced[i].node);
        free(n->unsynced[i].name);
    }
    n->unsynced_count = 0;
    for (size_t i = 0; i < n->entry_count; i++) {
        if (!n->entries[i].node)
            continue;
        char *full = pm_fs_join(path, n->entries[i].name);
        write_node(d, n->entries[i].node, policy, random, full);
        free(full);
    }
}

void cut_disk_write(struct cut_disk *d, enum cut_policy policy, int (*random)(void), const char *root)
{
    write_node(d, d->top, policy, random, root);
}

void cut_disk_count(const struct cut_disk *d, uint64_t *kept_out, uint64_t *lost_out)
{
    *kept_out = d->kept;
    *lost_out = d->lost;
}
