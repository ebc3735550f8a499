/* Folders of fleets: locks, sweeping after killed ones, places, and the private fleet's refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "client/cli/fleet.h"
#include "client/cli/locate.h"
#include "client/cli/private.h"
#include "tests/unit/base/folder.h"

static char *root;

static int make_root(void **state)
{
    int rc = folder_make(state);
    root = *state;
    return rc;
}

static void test_lock(void **state)
{
    (void)state;
    char *dir = pm_fs_join(root, "locked/run");
    struct pm_error err;
    struct stat st;
    int first, second;
    assert_int_equal(pm_fleet_lock(dir, &first, &err), 0);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(pm_fleet_lock(dir, &second, &err), PM_EBUSY);
    assert_non_null(strstr(err.text, dir));
    /* A child that inherited it holds it on: the lock is free when the last process of a fleet is gone. */
    int gate[2];
    assert_int_equal(pipe(gate), 0);
    pid_t child = fork();
    if (!child) {
        char c;
        close(gate[1]);
        _exit(read(gate[0], &c, 1) < 0);
    }
    close(first);
    assert_int_equal(pm_fleet_lock(dir, &second, &err), PM_EBUSY);
    close(gate[1]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(pm_fleet_lock(dir, &second, &err), 0);
    close(second);
    close(gate[0]);
    free(dir);
}

static char *make_fleet(const char *name, bool has_lock)
{
    char *dir = pm_fs_join(root, name), *inner = pm_xprintf("%s/pixels/ab", dir),
         *file = pm_fs_join(inner, "x");
    assert_int_equal(pm_fs_mkdir_p(inner, 0700, NULL), 0);
    assert_int_equal(pm_fs_write(file, "x", 1, false, NULL), 0);
    if (has_lock) {
        int fd;
        assert_int_equal(pm_fleet_lock(dir, &fd, NULL), 0);
        close(fd);
    }
    free(inner);
    free(file);
    return dir;
}

static void test_sweep(void **state)
{
    (void)state;
    char *dead = make_fleet("pagemill-7-1-dead", true), *young = make_fleet("pagemill-7-2-young", false);
    char *alive = make_fleet("pagemill-7-3-alive", true), *other = make_fleet("pagemill-8-1-other", true);
    char *link = pm_fs_join(root, "pagemill-7-4-link");
    int fd;
    assert_int_equal(pm_fleet_lock(alive, &fd, NULL), 0);
    assert_int_equal(symlink(other, link), 0);
    pm_fleet_sweep(root, "pagemill-7-");
    assert_false(pm_fs_is_dir(dead));
    assert_true(pm_fs_is_dir(young)); /* perhaps about to take its lock */
    assert_true(pm_fs_is_dir(alive));
    assert_true(pm_fs_is_dir(other));
    assert_true(pm_fs_is_dir(link)); /* a link is nobody's fleet */
    close(fd);
    pm_fleet_sweep(root, "pagemill-7-");
    assert_false(pm_fs_is_dir(alive));
    struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    assert_int_equal(utimensat(AT_FDCWD, young, old, 0), 0);
    pm_fleet_sweep(root, "pagemill-7-");
    assert_false(pm_fs_is_dir(young));
    pm_fleet_sweep("/nonexistent", "x"); /* nothing to do */
    free(dead);
    free(young);
    free(alive);
    free(other);
    free(link);
}

static void test_is_alive(void **state)
{
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/s.sock", root);
    assert_false(pm_locate_is_alive(address.sun_path));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_false(pm_locate_is_alive(address.sun_path)); /* bound, nobody listens: as after a kill */
    assert_int_equal(listen(fd, 1), 0);
    char *endpoint = pm_xprintf("ipc://%s", address.sun_path);
    assert_true(pm_locate_is_alive(endpoint));
    close(fd);
    assert_false(pm_locate_is_alive(endpoint));
    assert_true(pm_locate_is_alive("tcp://far:1")); /* only connecting can tell */
    free(endpoint);
}

static void test_places(void **state)
{
    (void)state;
    struct pm_error err;
    char *found;
    uint64_t bytes;
    setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
    found = pm_locate_run_dir();
    assert_string_equal(found, "/run/user/7/pagemill");
    free(found);
    setenv("TMPDIR", root, 1);
    found = pm_locate_temporary();
    assert_string_equal(found, root);
    free(found);
    setenv("TMPDIR", "relative", 1);
    found = pm_locate_temporary();
    assert_string_equal(found, "/tmp");
    free(found);
    setenv("TMPDIR", root, 1);
    setenv("XDG_RUNTIME_DIR", "/nonexistent", 1);
    found = pm_locate_memory(UINT64_MAX, &bytes); /* nowhere is so much: the last resort */
    assert_string_equal(found, root);
    assert_true(bytes > 0);
    free(found);
    assert_int_equal(pm_locate_models("/nonexistent/models", &found, &err), PM_ENOTFOUND);
    assert_non_null(strstr(err.text, "/nonexistent/models"));
    assert_int_equal(pm_locate_program("pagemill-nobody", &found, &err), PM_ENOTFOUND);
    assert_non_null(strstr(err.text, "pagemill-nobody"));
}

static void test_layouts(void **state)
{
    (void)state;
    assert_int_equal(pm_private_layouts(1), 1);
    assert_int_equal(pm_private_layouts(2), 1);
    assert_int_equal(pm_private_layouts(4), 2);
    assert_int_equal(pm_private_layouts(64), 32);
}

/* A private fleet that cannot start says why and leaves nothing. */
static void test_refused_start_leaves_nothing(void **state)
{
    (void)state;
    struct pm_private fleet;
    struct pm_error err;
    char *temporary = pm_fs_join(root, "tmp");
    assert_int_equal(mkdir(temporary, 0700), 0);
    setenv("TMPDIR", temporary, 1);
    struct pm_private_config config = {.models = root, .log_path = "/nonexistent/log"};
    assert_int_equal(pm_private_start(&config, &fleet, &err), PM_ENOTFOUND);
    assert_non_null(strstr(err.text, "`pagemill model add PATH --name fast` installs one"));
    static const char model[] =
        "{\"name\": \"fast\", \"family\": \"none\", \"region\": \"line\", \"tasks\": [\"text\"]}";
    char *folder = pm_fs_join(root, "model"), *manifest = pm_fs_join(folder, "pagemill.json");
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(pm_fs_write(manifest, model, strlen(model), false, &err), 0);
    assert_int_equal(pm_private_start(&config, &fleet, &err), PM_ENOTFOUND);
    assert_non_null(strstr(err.text, "/nonexistent/log"));
    free(manifest);
    free(folder);
    assert_int_equal(rmdir(temporary), 0);
    free(temporary);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lock),     cmocka_unit_test(test_sweep),
        cmocka_unit_test(test_is_alive), cmocka_unit_test(test_places),
        cmocka_unit_test(test_layouts),  cmocka_unit_test(test_refused_start_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, make_root, folder_drop);
}
