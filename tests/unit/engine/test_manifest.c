/* Manifests of model folders: what is listed, found and refused, and that a role never leads out of its
 * folder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/identity.h"
#include "engine/pack.h"
#include "tests/unit/base/folder.h"

#define HEAD "{\"name\":\"%s\",\"family\":\"f\",\"region\":\"block\",\"tasks\":[\"table\"]"

static void put(const char *root, const char *folder, char *json)
{
    char *dir = pm_fs_join(root, folder), *path = pm_fs_join(dir, "pagemill.json");
    assert_int_equal(pm_fs_mkdir_p(dir, 0700, NULL), 0);
    assert_int_equal(pm_fs_write(path, json, strlen(json), false, NULL), 0);
    free(path);
    free(dir);
    free(json);
}

static void test_list_and_find(void **state)
{
    const char *root = *state;
    struct pm_model_manifest m;
    struct pm_error err;
    char **dirs, *empty = pm_fs_join(root, "empty");
    size_t count;
    put(root, "z", pm_xprintf(HEAD "}", "first"));
    put(root, "a", pm_xprintf(HEAD "}", "second"));
    put(root, ".hidden", pm_xprintf(HEAD "}", "third"));
    assert_int_equal(pm_fs_mkdir_p(empty, 0700, NULL), 0);
    assert_int_equal(pm_model_list(root, &dirs, &count, &err), 0);
    assert_int_equal(count, 2);
    assert_string_equal(strrchr(dirs[0], '/'), "/a");
    assert_string_equal(strrchr(dirs[1], '/'), "/z");
    for (size_t i = 0; i < count; i++)
        free(dirs[i]);
    free(dirs);
    assert_int_equal(pm_model_find(root, "first", &m, &err), 0);
    assert_string_equal(strrchr(m.dir, '/'), "/z");
    assert_int_equal(m.region_kind, PM_REGION_BLOCK);
    pm_model_manifest_free(&m);
    assert_int_equal(pm_model_find(root, "third", &m, &err), PM_ENOTFOUND);
    assert_non_null(strstr(err.text, "there is: second, first"));
    put(root, "bad", pm_xstrdup("{"));
    assert_int_equal(pm_model_find(root, "third", &m, &err), PM_EFORMAT); /* it might be the damaged one */
    assert_non_null(strstr(err.text, "bad/pagemill.json"));
    assert_int_equal(pm_model_find(root, "second", &m, &err), 0);
    pm_model_manifest_free(&m);
    assert_int_equal(pm_model_list("/nowhere/at/all", &dirs, &count, &err), PM_ENOTFOUND);
    free(empty);
}

static void test_files(void **state)
{
    const char *root = *state;
    struct pm_model_manifest m;
    struct pm_error err;
    char *path;
    put(root, "m",
        pm_xprintf(HEAD ",\"files\":{\"good\":\"w.pmw\",\"up\":\"../w\",\"abs\":\"/w\",\"dot\":\"..\","
                        "\"none\":\"\",\"number\":3}}",
                   "files"));
    char *dir = pm_fs_join(root, "m");
    assert_int_equal(pm_model_manifest_read(dir, &m, &err), 0);
    assert_int_equal(pm_model_file(&m, "good", &path, &err), 0);
    assert_string_equal(path + strlen(dir), "/w.pmw");
    free(path);
    static const char *const bad[] = {"up", "abs", "dot", "none", "number", "missing"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(pm_model_file(&m, bad[i], &path, &err), PM_EFORMAT);
        assert_null(path);
        assert_non_null(strstr(err.text, bad[i]));
    }
    pm_model_manifest_free(&m);
    free(dir);
}

/* Several folders: the first model of a name counts, a folder that is gone hides nothing. */
static void test_search_path(void **state)
{
    const char *root = *state;
    struct pm_model_manifest m;
    struct pm_error err;
    char **dirs, *user = pm_fs_join(root, "user"), *installed = pm_fs_join(root, "installed");
    char *both = pm_xprintf("%s:/nowhere/at/all:%s", user, installed);
    size_t count;
    put(user, "z", pm_xprintf(HEAD "}", "mine"));
    put(user, "y", pm_xprintf(HEAD "}", "same"));
    put(installed, "a", pm_xprintf(HEAD "}", "theirs"));
    put(installed, "b",
        pm_xprintf("{\"name\":\"same\",\"family\":\"g\",\"region\":\"line\",\"tasks\":[\"text\"]}"));
    assert_int_equal(pm_model_list(both, &dirs, &count, &err), 0);
    assert_int_equal(count, 4);
    assert_string_equal(strrchr(dirs[0], '/'), "/y");
    assert_string_equal(strrchr(dirs[3], '/'), "/b");
    for (size_t i = 0; i < count; i++)
        free(dirs[i]);
    free(dirs);
    assert_int_equal(pm_model_find(both, "same", &m, &err), 0);
    assert_string_equal(strrchr(m.dir, '/'), "/y");
    pm_model_manifest_free(&m);
    assert_int_equal(pm_model_find(both, "theirs", &m, &err), 0);
    pm_model_manifest_free(&m);
    assert_int_equal(pm_model_find_family(both, "g", &m, &err), 0);
    assert_string_equal(strrchr(m.dir, '/'), "/b");
    pm_model_manifest_free(&m);
    assert_int_equal(pm_model_find_family(both, "h", &m, &err), PM_ENOTFOUND);
    assert_non_null(strstr(err.text, "\"h\""));
    assert_int_equal(pm_model_find("/nowhere:/nowhere/else", "same", &m, &err), PM_ENOTFOUND);
    assert_int_equal(pm_model_list("", &dirs, &count, &err), PM_ENOTFOUND);
    free(both);
    free(user);
    free(installed);
}

static void identity_of(const char *dir, char out[PM_HASH_HEX + 1])
{
    struct pm_model_manifest m;
    struct pm_error err;
    assert_int_equal(pm_model_manifest_read(dir, &m, &err), 0);
    if (pm_model_identity(&m, out, &err))
        fail_msg("%s", err.text);
    pm_model_manifest_free(&m);
}

static void write_at(const char *dir, const char *name, const void *bytes, size_t count)
{
    char *path = pm_fs_join(dir, name);
    assert_int_equal(pm_fs_write(path, bytes, count, false, NULL), 0);
    free(path);
}

/* Equal folders are equal; a changed side file, manifest or checksum of weights is another model. */
static void test_identity(void **state)
{
    static const char files[] = HEAD ",\"files\":{\"weights\":\"w.pmw\",\"words\":\"words.txt\"}}";
    uint8_t weights[PM_PACK_HEADER_BYTES + 8] = PM_PACK_MAGIC;
    char *a = pm_fs_join(*state, "a"), *b = pm_fs_join(*state, "b"), first[PM_HASH_HEX + 1],
         other[PM_HASH_HEX + 1];
    const char *const dirs[] = {a, b};
    for (int i = 0; i < 2; i++) {
        put(*state, i ? "b" : "a", pm_xprintf(files, "x"));
        write_at(dirs[i], "w.pmw", weights, sizeof weights);
        write_at(dirs[i], "words.txt", "one two", 7);
    }
    identity_of(a, first);
    assert_int_equal(strlen(first), PM_HASH_HEX);
    identity_of(b, other);
    assert_string_equal(first, other);
    weights[PM_PACK_HEADER_BYTES] = 1; /* data: its checksum in the header stands for it */
    write_at(b, "w.pmw", weights, sizeof weights);
    identity_of(b, other);
    assert_string_equal(first, other);
    weights[100] = 1;
    write_at(b, "w.pmw", weights, sizeof weights);
    identity_of(b, other);
    assert_string_not_equal(first, other);
    weights[100] = 0;
    write_at(b, "w.pmw", weights, sizeof weights);
    write_at(b, "words.txt", "one tow", 7);
    identity_of(b, other);
    assert_string_not_equal(first, other);
    write_at(b, "words.txt", "one two", 7);
    put(*state, "b", pm_xprintf(files, "y"));
    identity_of(b, other);
    assert_string_not_equal(first, other);
    struct pm_model_manifest m;
    struct pm_error err;
    put(*state, "b", pm_xprintf(HEAD ",\"files\":{\"weights\":\"gone\"}}", "x"));
    assert_int_equal(pm_model_manifest_read(b, &m, &err), 0);
    assert_int_equal(pm_model_identity(&m, other, &err), PM_ENOTFOUND);
    assert_non_null(strstr(err.text, "b/gone"));
    pm_model_manifest_free(&m);
    free(a);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_list_and_find, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(test_search_path, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(test_files, folder_make, folder_drop),
        cmocka_unit_test_setup_teardown(test_identity, folder_make, folder_drop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
