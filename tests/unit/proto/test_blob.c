/* The blob store: content names the file, whoever writes it, however often, and whatever crashed before. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <dirent.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "proto/blob.h"

struct room {
    char *dir, *disk, *pixels;
    struct pm_blobs *blobs;
    struct pm_error err;
    char key[PM_BLOB_KEY_SIZE];
};

static int set_up(void **state)
{
    struct room *r = calloc(1, sizeof *r);
    r->dir = scratch_make();
    r->disk = pm_fs_join(r->dir, "disk");
    r->pixels = pm_fs_join(r->dir, "pixels");
    if (pm_blobs_open(r->disk, r->pixels, &r->blobs, &r->err))
        fail_msg("%s", r->err.text);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct room *r = *state;
    pm_blobs_free(&r->blobs);
    scratch_remove(r->dir);
    free(r->disk);
    free(r->pixels);
    free(r);
    return 0;
}

static void put(struct room *r, enum pm_blob_class cls, const char *text)
{
    if (pm_blob_put(r->blobs, cls, text, strlen(text), r->key, &r->err))
        fail_msg("%s", r->err.text);
}

static char *path_of(const struct room *r, const char *key)
{
    return pm_xprintf("%s/%.2s/%s", key[0] == 'p' ? r->pixels : r->disk, key + 1, key + 1);
}

static unsigned files_in(const char *dir)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static unsigned temporaries(const struct room *r)
{
    char *a = pm_fs_join(r->disk, "tmp"), *b = pm_fs_join(r->pixels, "tmp");
    unsigned n = files_in(a) + files_in(b);
    free(a);
    free(b);
    return n;
}

static void content_names_the_blob(void **state)
{
    struct room *r = *state;
    struct pm_blob_map map;
    uint64_t bytes = 0;
    put(r, PM_BLOB_DISK, "abc");
    /* BLAKE2b-256 of "abc", from RFC 7693's algorithm with a 32-byte digest. */
    assert_string_equal(r->key, "dbddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
    assert_true(pm_blob_is_key(r->key));
    assert_int_equal(pm_blob_map(r->blobs, r->key, &map, &r->err), 0);
    assert_int_equal(map.bytes, 3);
    assert_memory_equal(map.data, "abc", 3);
    pm_blob_unmap(&map);
    assert_null(map.data);
    assert_true(pm_blob_exists(r->blobs, r->key, &bytes));
    assert_int_equal(bytes, 3);
    assert_int_equal(pm_blob_check(r->blobs, r->key, &r->err), 0);
    char *path = path_of(r, r->key);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0400);
    free(path);
    assert_int_equal(stat(r->disk, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    /* The same bytes as pixels are another blob in another place. */
    put(r, PM_BLOB_PIXELS, "abc");
    assert_int_equal(r->key[0], 'p');
    assert_int_equal(temporaries(r), 0);
}

static void empty_blobs_are_blobs(void **state)
{
    struct room *r = *state;
    struct pm_blob_map map;
    struct pm_blob_draft draft;
    char key[PM_BLOB_KEY_SIZE];
    put(r, PM_BLOB_DISK, "");
    assert_int_equal(pm_blob_map(r->blobs, r->key, &map, &r->err), 0);
    assert_null(map.data);
    assert_int_equal(map.bytes, 0);
    pm_blob_unmap(&map);
    assert_int_equal(pm_blob_check(r->blobs, r->key, &r->err), 0);
    assert_int_equal(pm_blob_draft(r->blobs, PM_BLOB_DISK, 0, &draft, &r->err), 0);
    assert_int_equal(pm_blob_finish(r->blobs, &draft, key, &r->err), 0);
    assert_string_equal(key, r->key);
}

static void only_keys_become_paths(void **state)
{
    struct room *r = *state;
    struct pm_blob_map map;
    int fd;
    put(r, PM_BLOB_DISK, "x");
    char upper[PM_BLOB_KEY_SIZE], longer[PM_BLOB_KEY_SIZE + 1], shorter[PM_BLOB_KEY_SIZE];
    strcpy(upper, r->key);
    memset(upper + 10, 'A', 4);
    snprintf(longer, sizeof longer, "%s0", r->key);
    snprintf(shorter, sizeof shorter, "%.64s", r->key);
    char other[PM_BLOB_KEY_SIZE];
    snprintf(other, sizeof other, "x%s", r->key + 1);
    const char *const bad[] = {"",
                               "d",
                               "../../../etc/passwd",
                               upper,
                               longer,
                               shorter,
                               other,
                               "d../../../../../../../../../../../../../../../../../../../../../etc"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(pm_blob_is_key(bad[i]));
        assert_int_equal(pm_blob_map(r->blobs, bad[i], &map, &r->err), PM_EINVAL);
        assert_int_equal(pm_blob_open(r->blobs, bad[i], &fd, NULL, &r->err), PM_EINVAL);
        assert_int_equal(pm_blob_remove(r->blobs, bad[i], &r->err), PM_EINVAL);
        assert_false(pm_blob_exists(r->blobs, bad[i], NULL));
    }
    assert_false(pm_blob_is_key(NULL));
}

static void absent_and_linked_blobs_are_errors(void **state)
{
    struct room *r = *state;
    struct pm_blob_map map;
    put(r, PM_BLOB_DISK, "secret");
    assert_int_equal(pm_blob_remove(r->blobs, r->key, &r->err), 0);
    assert_int_equal(pm_blob_remove(r->blobs, r->key, &r->err), 0); /* absent is fine */
    assert_int_equal(pm_blob_map(r->blobs, r->key, &map, &r->err), PM_ENOTFOUND);
    assert_non_null(strstr(r->err.text, r->key));
    assert_false(pm_blob_exists(r->blobs, r->key, NULL));
    /* A symbolic link in its place is not followed. */
    char *path = path_of(r, r->key);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_true(pm_blob_map(r->blobs, r->key, &map, &r->err) < 0);
    assert_false(pm_blob_exists(r->blobs, r->key, NULL));
    free(path);
}

static void damage_is_found(void **state)
{
    struct room *r = *state;
    put(r, PM_BLOB_DISK, "the right bytes");
    char *path = path_of(r, r->key);
    assert_int_equal(chmod(path, 0600), 0);
    FILE *f = fopen(path, "w");
    fputs("the wrong bytes", f);
    fclose(f);
    assert_int_equal(pm_blob_check(r->blobs, r->key, &r->err), PM_EFORMAT);
    /* A file of another length is not taken for the content: put writes it anew. */
    assert_int_equal(truncate(path, 3), 0);
    put(r, PM_BLOB_DISK, "the right bytes");
    assert_int_equal(pm_blob_check(r->blobs, r->key, &r->err), 0);
    free(path);
}

static void files_are_copied_up_to_a_limit(void **state)
{
    struct room *r = *state;
    char *path = pm_fs_join(r->dir, "source");
    size_t bytes = 700000; /* more than one chunk */
    uint8_t *data = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(i * 31 >> 3);
    assert_int_equal(pm_fs_write(path, data, bytes, false, &r->err), 0);
    int fd = open(path, O_RDONLY);
    uint64_t copied = 0;
    char key[PM_BLOB_KEY_SIZE];
    assert_int_equal(pm_blob_put_fd(r->blobs, PM_BLOB_DISK, fd, bytes, key, &copied, &r->err), 0);
    assert_int_equal(copied, bytes);
    assert_int_equal(pm_blob_put(r->blobs, PM_BLOB_DISK, data, bytes, r->key, &r->err), 0);
    assert_string_equal(key, r->key);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(pm_blob_put_fd(r->blobs, PM_BLOB_DISK, fd, bytes - 1, key, &copied, &r->err), PM_ELIMIT);
    close(fd);
    assert_int_equal(temporaries(r), 0);
    free(data);
    free(path);
}

static void pieces_make_the_same_blob(void **state)
{
    struct room *r = *state;
    struct pm_blob_stream *stream = NULL;
    char key[PM_BLOB_KEY_SIZE];
    assert_int_equal(pm_blob_stream_begin(r->blobs, &stream, &r->err), 0);
    assert_int_equal(pm_blob_stream_add(stream, "in pi", 5, &r->err), 0);
    assert_int_equal(temporaries(r), 0); /* nothing that could be left behind */
    pm_blob_stream_drop(&stream);
    for (int again = 0; again < 2; again++) { /* the second time it is there already */
        assert_int_equal(pm_blob_stream_begin(r->blobs, &stream, &r->err), 0);
        for (size_t i = 0; i < 9; i++)
            assert_int_equal(pm_blob_stream_add(stream, &"in pieces"[i], 1, &r -> err), 0);
        assert_int_equal(pm_blob_stream_finish(stream, key, &r->err), 0);
        pm_blob_stream_drop(&stream);
        assert_int_equal(temporaries(r), 0);
        assert_int_equal(pm_blob_check(r->blobs, key, &r->err), 0);
    }
    put(r, PM_BLOB_DISK, "in pieces");
    assert_string_equal(key, r->key);
}

static void drafts_are_written_in_place(void **state)
{
    struct room *r = *state;
    struct pm_blob_draft draft;
    assert_int_equal(pm_blob_draft(r->blobs, PM_BLOB_PIXELS, 100000, &draft, &r->err), 0);
    for (size_t i = 0; i < 100000; i++)
        assert_int_equal(draft.data[i], 0);
    memset(draft.data, 7, 100000);
    assert_int_equal(pm_blob_finish(r->blobs, &draft, r->key, &r->err), 0);
    assert_int_equal(pm_blob_check(r->blobs, r->key, &r->err), 0);
    assert_int_equal(pm_blob_draft(r->blobs, PM_BLOB_PIXELS, 5, &draft, &r->err), 0);
    assert_int_equal(temporaries(r), 1);
    pm_blob_drop(r->blobs, &draft);
    pm_blob_drop(r->blobs, &draft); /* harmless */
    assert_int_equal(temporaries(r), 0);
}

static int write_file(const char *path, const char *text, size_t n)
{
    int fd = open(path, O_WRONLY);
    ssize_t written = fd < 0 ? -1 : write(fd, text, n);
    if (fd >= 0)
        close(fd);
    return written == (ssize_t)n ? 0 : -1;
}

/* A tmpfs of one megabyte in a mount namespace of its own; where that is not allowed the case is left out.
 * Exit status of the child: 0 as it should be, 77 left out, else the number of the check that failed. */
static int fill_a_small_disk(const char *dir)
{
    struct pm_blobs *blobs;
    struct pm_blob_draft draft;
    struct pm_error err = {0};
    char key[PM_BLOB_KEY_SIZE];
    char map[64];
    int n = snprintf(map, sizeof map, "0 %d 1", (int)getuid());
    if (unshare(CLONE_NEWNS) &&
        (unshare(CLONE_NEWUSER | CLONE_NEWNS) || write_file("/proc/self/uid_map", map, (size_t)n)))
        return 77;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
        return 77;
    if (pm_blobs_open(dir, dir, &blobs, &err))
        return 1;
    size_t bytes = 700000;
    uint8_t *data = calloc(1, bytes);
    if (pm_blob_put(blobs, PM_BLOB_DISK, data, bytes, key, &err))
        return 2;
    data[0] = 1;
    if (pm_blob_put(blobs, PM_BLOB_DISK, data, bytes, key, &err) != PM_ENOSPC || key[0])
        return 3;
    if (pm_blob_draft(blobs, PM_BLOB_PIXELS, bytes, &draft, &err) != PM_ENOSPC)
        return 4;
    char *tmp = pm_fs_join(dir, "tmp");
    if (files_in(tmp))
        return 5;
    if (pm_blob_put(blobs, PM_BLOB_DISK, data, 1000, key, &err)) /* what failed gave its room back */
        return 6;
    free(tmp);
    free(data);
    pm_blobs_free(&blobs);
    return 0;
}

static void full_disk_is_said_and_leaves_nothing(void **state)
{
    struct room *r = *state;
    char *dir = pm_fs_join(r->dir, "small");
    assert_int_equal(mkdir(dir, 0700), 0);
    pid_t child = fork();
    if (child == 0)
        _exit(fill_a_small_disk(dir));
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) != 77)
        assert_int_equal(WEXITSTATUS(status), 0);
    free(dir);
}

static void failed_writes_leave_nothing(void **state)
{
    struct room *r = *state;
    uint64_t space = 0;
    struct pm_blob_draft draft;
    assert_int_equal(pm_blob_space(r->blobs, PM_BLOB_DISK, &space, &r->err), 0);
    assert_true(space > 0);
    int rc = pm_blob_draft(r->blobs, PM_BLOB_PIXELS, (size_t)space + ((size_t)1 << 33), &draft, &r->err);
    assert_int_equal(rc, PM_ENOSPC);
    assert_non_null(strstr(r->err.text, r->pixels));
    assert_int_equal(pm_blob_draft(r->blobs, PM_BLOB_PIXELS, SIZE_MAX, &draft, &r->err), PM_ELIMIT);
    assert_int_equal(temporaries(r), 0);
}

#define WRITERS 4
static void put_many(struct pm_blobs *blobs)
{
    for (int i = 0; i < 60; i++) {
        char text[64], key[PM_BLOB_KEY_SIZE];
        int n = snprintf(text, sizeof text, "content number %d", i);
        if (pm_blob_put(blobs, i % 2 ? PM_BLOB_DISK : PM_BLOB_PIXELS, text, (size_t)n, key, NULL))
            _exit(1);
        if (pm_blob_check(blobs, key, NULL)) /* complete from the moment the key is known */
            _exit(2);
    }
    _exit(0);
}

static void processes_put_the_same_content_at_once(void **state)
{
    struct room *r = *state;
    for (int i = 0; i < WRITERS; i++)
        if (fork() == 0)
            put_many(r->blobs);
    for (int i = 0; i < WRITERS; i++) {
        int status = 0;
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    assert_int_equal(temporaries(r), 0);
}

static bool keep_one(void *ctx, const char *key)
{
    return !strcmp(ctx, key);
}

static void age(const char *path, int64_t now_us, int seconds)
{
    int64_t then = now_us / 1000000 - seconds;
    struct timespec times[2] = {{.tv_sec = then}, {.tv_sec = then}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void sweep_removes_what_is_old_and_unwanted(void **state)
{
    struct room *r = *state;
    int64_t now = pm_wall_us();
    char kept[PM_BLOB_KEY_SIZE], old[PM_BLOB_KEY_SIZE], fresh[PM_BLOB_KEY_SIZE], again[PM_BLOB_KEY_SIZE];
    uint64_t removed = 0;
    put(r, PM_BLOB_DISK, "kept");
    strcpy(kept, r->key);
    put(r, PM_BLOB_PIXELS, "old");
    strcpy(old, r->key);
    put(r, PM_BLOB_DISK, "fresh");
    strcpy(fresh, r->key);
    put(r, PM_BLOB_DISK, "put again");
    strcpy(again, r->key);
    const char *const aged[] = {kept, old, again};
    for (int i = 0; i < 3; i++) {
        char *path = path_of(r, aged[i]);
        age(path, now, 1000);
        free(path);
    }
    put(r, PM_BLOB_DISK, "put again"); /* refreshes its time */
    /* What a crash leaves behind. */
    struct pm_blob_draft draft;
    assert_int_equal(pm_blob_draft(r->blobs, PM_BLOB_PIXELS, 10, &draft, &r->err), 0);
    char *leftover = pm_xprintf("%s/tmp/123-leftover", r->disk), *busy = pm_fs_join(r->pixels, draft.path);
    char *foreign = pm_xprintf("%s/ab", r->disk);
    assert_int_equal(pm_fs_write(leftover, "x", 1, false, &r->err), 0);
    age(leftover, now, 61);
    age(busy, now, 100000); /* somebody writes it still, however slowly */
    assert_int_equal(pm_fs_mkdir_p(foreign, 0700, &r->err), 0);
    char *stranger = pm_fs_join(foreign, "README");
    assert_int_equal(pm_fs_write(stranger, "x", 1, false, &r->err), 0);
    age(stranger, now, 100000);
    uint64_t pixels = 0;
    if (pm_blob_sweep(r->blobs, PM_BLOB_DISK, now, 600, keep_one, kept, &removed, &r->err) ||
        pm_blob_sweep(r->blobs, PM_BLOB_PIXELS, now, 600, keep_one, kept, &pixels, &r->err))
        fail_msg("%s", r->err.text);
    removed += pixels;
    assert_int_equal(removed, 2); /* the old blob and the leftover */
    assert_true(pm_blob_exists(r->blobs, kept, NULL));
    assert_true(pm_blob_exists(r->blobs, fresh, NULL));
    assert_true(pm_blob_exists(r->blobs, again, NULL));
    assert_false(pm_blob_exists(r->blobs, old, NULL));
    assert_false(pm_fs_is_file(leftover));
    assert_true(pm_fs_is_file(busy));
    assert_true(pm_fs_is_file(stranger)); /* not ours: not touched */
    pm_blob_drop(r->blobs, &draft);
    assert_false(pm_fs_is_file(busy));
    free(leftover);
    free(busy);
    free(foreign);
    free(stranger);
}

/* A writer that finds its old content refreshes it while a sweep that wants it runs: when put returns a key,
 * the blob is there and stays. */
struct race {
    struct pm_blobs *blobs;
    bool stop;
};
static bool keep_none(void *ctx, const char *key)
{
    (void)ctx;
    (void)key;
    return false;
}
static void *sweep_on_and_on(void *arg)
{
    struct race *race = arg;
    while (!__atomic_load_n(&race->stop, __ATOMIC_ACQUIRE))
        pm_blob_sweep(race->blobs, PM_BLOB_PIXELS, pm_wall_us(), 500, keep_none, NULL, NULL, NULL);
    return NULL;
}

static void sweep_never_takes_what_was_just_put(void **state)
{
    struct room *r = *state;
    struct race race = {.blobs = r->blobs};
    pthread_t thread;
    put(r, PM_BLOB_PIXELS, "contested");
    char *path = path_of(r, r->key);
    assert_int_equal(pthread_create(&thread, NULL, sweep_on_and_on, &race), 0);
    bool is_lost = false;
    for (int i = 0; i < 300 && !is_lost; i++) {
        int64_t then = pm_wall_us() / 1000000 - 1000;
        struct timespec times[2] = {{.tv_sec = then}, {.tv_sec = then}};
        utimensat(AT_FDCWD, path, times, 0); /* old again (or already swept) */
        put(r, PM_BLOB_PIXELS, "contested");
        is_lost = !pm_blob_exists(r->blobs, r->key, NULL);
    }
    __atomic_store_n(&race.stop, true, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    assert_false(is_lost);
    free(path);
}

static void opening_in_a_wrong_place_says_where(void **state)
{
    struct room *r = *state;
    struct pm_blobs *blobs = NULL;
    char *file = pm_fs_join(r->dir, "a-file");
    assert_int_equal(pm_fs_write(file, "x", 1, false, &r->err), 0);
    assert_true(pm_blobs_open(file, r->pixels, &blobs, &r->err) < 0);
    assert_non_null(strstr(r->err.text, file));
    assert_null(blobs);
    free(file);
}

#define ROOM(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROOM(content_names_the_blob),
        ROOM(empty_blobs_are_blobs),
        ROOM(only_keys_become_paths),
        ROOM(absent_and_linked_blobs_are_errors),
        ROOM(damage_is_found),
        ROOM(files_are_copied_up_to_a_limit),
        ROOM(pieces_make_the_same_blob),
        ROOM(drafts_are_written_in_place),
        ROOM(failed_writes_leave_nothing),
        ROOM(full_disk_is_said_and_leaves_nothing),
        ROOM(processes_put_the_same_content_at_once),
        ROOM(sweep_removes_what_is_old_and_unwanted),
        ROOM(sweep_never_takes_what_was_just_put),
        ROOM(opening_in_a_wrong_place_says_where),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
