/* Inputs: walking folders, lists, what counts as a document, names of results. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "client/cli/intake.h"
#include "tests/unit/base/folder.h"

static char *root;

static int make_root(void **state)
{
    int rc = folder_make(state);
    root = *state;
    return rc;
}

static char *path_of(const char *name)
{
    return pm_fs_join(root, name);
}

static void put(const char *name, const char *content)
{
    char *path = path_of(name), *dir = pm_xstrdup(path);
    *strrchr(dir, '/') = 0;
    assert_int_equal(pm_fs_mkdir_p(dir, 0700, NULL), 0);
    assert_int_equal(pm_fs_write(path, content, strlen(content), false, NULL), 0);
    free(dir);
    free(path);
}

/* "folder|path below root" of each input, joined by newlines. */
static char *shape(const struct pm_intake *intake)
{
    struct pm_buf text = {0};
    pm_buf_text(&text, "");
    for (size_t i = 0; i < intake->count; i++)
        pm_buf_printf(&text, "%s|%s\n", intake->items[i].folder,
                      intake->items[i].path ? intake->items[i].path + strlen(root) + 1 : "-");
    pm_buf_text(&text, "");
    return (char *)text.data;
}

#define PDF "%PDF-1.7\n"

static void test_walk(void **state)
{
    (void)state;
    put("in/b.pdf", PDF);
    put("in/a/z.pdf", PDF);
    put("in/a/b/deep.PDF", PDF);
    put("in/a.png", "\x89PNG\r\n\x1a\n....");
    put("in/scan", PDF);             /* a document without an extension */
    put("in/notes.txt", "not one");  /* neither bytes nor name */
    put("in/broken.pdf", "garbage"); /* by its name: it deserves an error line */
    put("in/.hidden.pdf", PDF);
    put("in/.git/x.pdf", PDF);
    put("in/out/old.pdf", PDF);
    char *in = path_of("in/"), *out = path_of("in/out"), *loop = path_of("in/a/loop"),
         *alias = path_of("in/y.pdf");
    assert_int_equal(symlink("..", loop), 0);
    assert_int_equal(symlink("b.pdf", alias), 0);
    struct pm_intake intake = {0};
    struct pm_error err;
    pm_intake_skip(&intake, out);
    assert_int_equal(pm_intake_add(&intake, in, &err), 0);
    char *have = shape(&intake);
    assert_string_equal(have,
                        "|in/a.png\na/b|in/a/b/deep.PDF\na|in/a/z.pdf\n|in/b.pdf\n|in/broken.pdf\n|in/scan\n"
                        "|in/y.pdf\n");
    assert_int_equal(intake.roots[0].documents, 7);
    free(have);
    pm_intake_free(&intake);
    free(in);
    free(out);
    free(loop);
    free(alias);
}

static void test_folder_without_documents(void **state)
{
    (void)state;
    put("empty/readme.txt", "nothing");
    char *path = path_of("empty");
    struct pm_intake intake = {0};
    struct pm_error err;
    assert_int_equal(pm_intake_add(&intake, path, &err), 0);
    assert_int_equal(intake.count, 1);
    assert_non_null(strstr(intake.items[0].error, "no documents"));
    pm_intake_free(&intake);
    free(path);
}

static void test_names_that_are_not_there_stay_inputs(void **state)
{
    (void)state;
    struct pm_intake intake = {0};
    struct pm_error err;
    char *path = path_of("nobody.pdf");
    assert_int_equal(pm_intake_add(&intake, path, &err), 0);
    assert_int_equal(intake.count, 1);
    assert_null(intake.items[0].error);
    assert_int_equal(pm_intake_add(&intake, "", &err), PM_EINVAL);
    pm_intake_free(&intake);
    free(path);
}

static void test_stdin_only_once(void **state)
{
    (void)state;
    struct pm_intake intake = {0};
    struct pm_error err;
    assert_int_equal(pm_intake_add(&intake, "-", &err), 0);
    assert_null(intake.items[0].path);
    assert_int_equal(pm_intake_add(&intake, "-", &err), PM_EINVAL);
    assert_int_equal(pm_intake_add_list(&intake, "-", &err), PM_EINVAL);
    pm_intake_free(&intake);
}

static void test_list(void **state)
{
    (void)state;
    put("one.pdf", PDF);
    put("more/two.pdf", PDF);
    char *text = pm_xprintf("%s/one.pdf\r\n\n%s/more\n%s/gone.pdf", root, root, root);
    put("list", text);
    char *list = path_of("list");
    struct pm_intake intake = {0};
    struct pm_error err;
    assert_int_equal(pm_intake_add_list(&intake, list, &err), 0);
    char *have = shape(&intake);
    assert_string_equal(have, "|one.pdf\n|more/two.pdf\n|gone.pdf\n");
    free(have);
    pm_intake_free(&intake);
    assert_int_equal(pm_fs_write(list, "a\0b\n", 4, false, NULL), 0);
    assert_int_equal(pm_intake_add_list(&intake, list, &err), PM_EINVAL);
    pm_intake_free(&intake);
    char *missing = path_of("missing-list");
    assert_int_equal(pm_intake_add_list(&intake, missing, &err), PM_ENOTFOUND);
    pm_intake_free(&intake);
    free(missing);
    free(list);
    free(text);
}

/* Beyond the first thousand the bytes are looked at later. */
static void test_large_folder_is_looked_at_later(void **state)
{
    (void)state;
    char *dir = path_of("large");
    assert_int_equal(mkdir(dir, 0700), 0);
    for (int i = 0; i < 1010; i++) {
        char *path = pm_xprintf("%s/%04d", dir, i);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fputs(PDF, f);
        fclose(f);
        free(path);
    }
    struct pm_intake intake = {0};
    struct pm_error err;
    assert_int_equal(pm_intake_add(&intake, dir, &err), 0);
    assert_int_equal(intake.count, 1010);
    size_t later = 0;
    for (size_t i = 0; i < intake.count; i++)
        later += intake.items[i].must_look;
    assert_int_equal(later, 10);
    assert_int_equal(intake.roots[0].documents, 1000);
    pm_intake_free(&intake);
    free(dir);
}

static void expect_claim(struct pm_names *names, const char *folder, const char *path, const char *want)
{
    char *have = pm_names_claim(names, folder, path);
    assert_string_equal(have, want);
    free(have);
}

static void test_result_names(void **state)
{
    (void)state;
    struct pm_names *names = pm_names_new();
    expect_claim(names, "", "a/scan.pdf", "scan");
    expect_claim(names, "", "b/scan.png", "scan-2");
    expect_claim(names, "", "scan-2.pdf", "scan-2-2"); /* its own name is taken already */
    expect_claim(names, "", "c/scan.jpg", "scan-3");
    expect_claim(names, "sub", "sub/scan.pdf", "scan"); /* another folder */
    expect_claim(names, "", NULL, "stdin");
    expect_claim(names, "", ".pdf", ".pdf");
    expect_claim(names, "", "a/...", "result");
    expect_claim(names, "", "x/what? ever*.pdf", "what_ ever_");
    expect_claim(names, "", "bad\xff.pdf", "bad\xef\xbf\xbd");
    expect_claim(names, "", "archive.tar.pdf", "archive.tar");
    pm_names_release(names, "", "scan");
    expect_claim(names, "", "d/scan.pdf", "scan");
    char longest[400];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    char *cut = pm_names_claim(names, "", longest);
    assert_true(strlen(cut) + strlen(".partial.md") < 255);
    free(cut);
    pm_names_free(&names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_folder_without_documents),
        cmocka_unit_test(test_names_that_are_not_there_stay_inputs),
        cmocka_unit_test(test_stdin_only_once),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_large_folder_is_looked_at_later),
        cmocka_unit_test(test_result_names),
    };
    return cmocka_run_group_tests(tests, make_root, folder_drop);
}
