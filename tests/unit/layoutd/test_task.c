/* The tasks of layoutd with the real decoder and a made-up detector: documents in, records and errors out. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "layoutd/task.h"

struct fixture {
    char dir[64];
    struct pm_task_env env;
    struct pm_task_watch watch;
    int cancel_fd;
};

/* One line across the middle of every page. */
static int detect(void *context, const struct pm_image *image, int limit_px, struct pm_det_box **out,
                  size_t *count, struct pm_error *err)
{
    (void)context;
    (void)limit_px;
    (void)err;
    float w = (float)image->width_px, h = (float)image->height_px;
    *out = pm_xalloc(sizeof **out);
    (*out)->quad = pm_quad_of_rect((struct pm_rect){0.1f * w, 0.3f * h, 0.9f * w, 0.3f * h + 30});
    (*out)->score = 1;
    *count = 1;
    return 0;
}

static int set_up(void **state)
{
    struct fixture *f = pm_xalloc(sizeof *f);
    strcpy(f->dir, "/tmp/pm-task-XXXXXX");
    if (!mkdtemp(f->dir))
        return -1;
    char *disk = pm_fs_join(f->dir, "disk"), *pixels = pm_fs_join(f->dir, "pixels");
    f->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    f->env.decoders = pm_decoders_new(PM_BUILD_DIR "/pagemill-decode", f->cancel_fd);
    f->env.tools.detect = detect;
    int rc = pm_blobs_open(disk, pixels, &f->env.blobs, NULL);
    free(disk);
    free(pixels);
    *state = f;
    return rc;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    pm_decoders_free(&f->env.decoders);
    pm_blobs_free(&f->env.blobs);
    close(f->cancel_fd);
    pm_fs_remove_tree(f->dir, NULL);
    free(f);
    return 0;
}

static struct pm_msg_lease lease(uint32_t kind, const char *source, uint32_t page)
{
    return (struct pm_msg_lease){
        .task = 7,
        .attempt = 1,
        .kind = kind,
        .page = page,
        .source = source,
        .input = "",
        .sheet = "",
        .options = {.pages = "", .password = "", .reader = "", .formats = "", .drop = "", .stem = ""}};
}

static void put(struct fixture *f, const char *name, char *key)
{
    char path[512];
    uint64_t bytes;
    snprintf(path, sizeof path, PM_TEST_DATA "/decode/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pm_blob_put_fd(f->env.blobs, PM_BLOB_DISK, fd, 1 << 26, key, &bytes, NULL), 0);
    close(fd);
}

static void open_file(struct fixture *f, const char *name, const char *pages, const char *password,
                      struct pm_done *done)
{
    char key[PM_BLOB_KEY_SIZE];
    put(f, name, key);
    struct pm_msg_lease l = lease(PM_KIND_OPEN, key, 0);
    l.options.pages = pages;
    l.options.password = password;
    pm_task_run(&f->env, &l, &f->watch, done);
}

static void expect_failure(struct fixture *f, const char *name, const char *pages, const char *password,
                           int code, const char *says)
{
    struct pm_done done;
    open_file(f, name, pages, password, &done);
    assert_int_equal(done.error.code, code);
    assert_true(done.is_final);
    assert_non_null(strstr(done.error.text, says));
    pm_done_free(&done);
}

static void test_open_tells_pages_and_sizes(void **state)
{
    struct pm_done done;
    open_file(*state, "pages.tif", "", "", &done);
    assert_int_equal(done.error.code, 0);
    assert_true(done.result.document_pages >= 2);
    assert_int_equal(done.result.page_count, done.result.document_pages);
    for (uint32_t i = 0; i < done.result.page_count; i++) {
        assert_int_equal(done.result.pages[i].page, i + 1);
        assert_true(done.result.pages[i].width > 0 && done.result.pages[i].height > 0);
    }
    pm_done_free(&done);
    open_file(*state, "pages.tif", "2-", "", &done);
    assert_int_equal(done.error.code, 0);
    assert_int_equal(done.result.page_count, done.result.document_pages - 1);
    assert_int_equal(done.result.pages[0].page, 2);
    pm_done_free(&done);
}

static void test_open_says_what_is_wrong(void **state)
{
    expect_failure(*state, "pages.tif", "31", "", PM_EINVAL, "no page 31");
    expect_failure(*state, "pages.tif", "1-31", "", PM_EINVAL, "no page 31");
    expect_failure(*state, "pages.tif", "2-x", "", PM_EINVAL, "");
    expect_failure(*state, "encrypted-256.pdf", "", "", PM_EPASSWORD, "encrypted");
    expect_failure(*state, "encrypted-256.pdf", "", "wrong", PM_EPASSWORD, "password");
    expect_failure(*state, "generate.py", "", "", PM_EFORMAT, "");
}

static void test_page_gives_record_and_sheet(void **state)
{
    struct fixture *f = *state;
    char key[PM_BLOB_KEY_SIZE];
    put(f, "one.pdf", key);
    struct pm_msg_lease l = lease(PM_KIND_PAGE, key, 1);
    struct pm_done done;
    struct pm_blob_map record;
    struct pm_sheet sheet;
    struct pm_arena arena = {0};
    struct pm_page page;
    pm_task_run(&f->env, &l, &f->watch, &done);
    assert_int_equal(done.error.code, 0);
    assert_true(atomic_load(&f->watch.steps) > 3);
    static const char *const phases[] = {"render", "known", "orient", "detect", "layout", "crops"};
    uint64_t sum_us = 0;
    assert_int_equal(done.result.phase_count, sizeof phases / sizeof *phases);
    for (uint32_t i = 0; i < done.result.phase_count; i++) {
        assert_string_equal(done.result.phases[i].name, phases[i]);
        sum_us += done.result.phases[i].us;
    }
    assert_true(done.result.phases[0].us > 0 && sum_us <= done.result.run_us);
    assert_int_equal(pm_blob_map(f->env.blobs, done.result.record, &record, NULL), 0);
    assert_int_equal(pm_record_decode(&pm_page_schema, record.data, record.bytes, &arena, &page, NULL), 0);
    assert_int_equal(page.page, 1);
    assert_string_equal(page.region_kind, "line");
    assert_int_equal(page.crop_count, done.result.cost_count);
    assert_int_equal(pm_sheet_open(f->env.blobs, done.result.sheet, &sheet, NULL), 0);
    assert_int_equal(sheet.count, page.crop_count);
    pm_sheet_close(&sheet);
    pm_blob_unmap(&record);
    pm_arena_free(&arena);
    pm_done_free(&done);

    l.page = 9;
    pm_task_run(&f->env, &l, &f->watch, &done);
    assert_int_equal(done.error.code, PM_EINVAL);
    assert_true(done.is_final);
    pm_done_free(&done);
}

struct memory {
    char fingerprint[PM_HASH_HEX + 1];
    bool knows;
    int asked;
};
static bool remember(void *context, uint64_t task, const char *fingerprint)
{
    struct memory *m = context;
    assert_int_equal(task, 7);
    strcpy(m->fingerprint, fingerprint);
    m->asked++;
    return m->knows;
}

/* Lays out the page; its fingerprint is left in the memory. */
static void lay_out(struct fixture *f, const struct pm_msg_lease *l, struct pm_done *done)
{
    pm_task_run(&f->env, l, &f->watch, done);
    assert_int_equal(done->error.code, 0);
}

static void test_a_known_page_is_not_laid_out(void **state)
{
    struct fixture *f = *state;
    struct memory memory = {.knows = true};
    char key[PM_BLOB_KEY_SIZE], first[PM_HASH_HEX + 1];
    struct pm_done done;
    put(f, "one.pdf", key);
    struct pm_msg_lease l = lease(PM_KIND_PAGE, key, 1);
    l.model = "";
    f->env.layout_model = "networks";
    f->env.is_known = remember;
    f->env.is_known_context = &memory;
    lay_out(f, &l, &done); /* nobody knows what will read it */
    assert_int_equal(memory.asked, 0);
    assert_string_equal(done.result.fingerprint, "");
    assert_true(*done.result.record);
    pm_done_free(&done);
    l.model = "reader";
    lay_out(f, &l, &done);
    assert_int_equal(memory.asked, 1);
    assert_int_equal(strlen(memory.fingerprint), PM_HASH_HEX);
    assert_string_equal(done.result.fingerprint, memory.fingerprint);
    assert_true(done.result.is_known);
    assert_string_equal(done.result.record, "");
    strcpy(first, memory.fingerprint);
    pm_done_free(&done);
    l.options.again = true;
    lay_out(f, &l, &done); /* asked to read it anew */
    assert_int_equal(memory.asked, 1);
    assert_true(*done.result.record && !done.result.is_known);
    l.options.again = false;
    pm_done_free(&done);
    memory.knows = false;
    lay_out(f, &l, &done);
    assert_true(*done.result.record && !done.result.is_known);
    assert_string_equal(done.result.fingerprint, first);
    pm_done_free(&done);
    memory.knows = true;
    for (int change = 0; change < 6; change++) { /* what another text may come from */
        struct pm_msg_lease other = l;
        other.model = change == 0 ? "reader 2" : l.model;
        f->env.layout_model = change == 1 ? "networks 2" : "networks";
        other.options.dpi = change == 2 ? 100 : 0;
        other.options.no_images = change == 3;
        other.options.reader = change == 4 ? "r" : "";
        other.options.seed = change == 5;
        lay_out(f, &other, &done);
        assert_string_not_equal(memory.fingerprint, first);
        pm_done_free(&done);
    }
    f->env.layout_model = NULL;
}

static void test_missing_source_may_be_tried_again(void **state)
{
    struct fixture *f = *state;
    char key[PM_BLOB_KEY_SIZE];
    put(f, "one.pdf", key);
    assert_int_equal(pm_blob_remove(f->env.blobs, key, NULL), 0);
    struct pm_msg_lease l = lease(PM_KIND_PAGE, key, 1);
    struct pm_done done;
    pm_task_run(&f->env, &l, &f->watch, &done);
    assert_int_equal(done.error.code, PM_ENOTFOUND);
    assert_false(done.is_final);
    pm_done_free(&done);
}

static void test_cancel_ends_a_task(void **state)
{
    struct fixture *f = *state;
    char key[PM_BLOB_KEY_SIZE];
    put(f, "one.pdf", key);
    struct pm_msg_lease l = lease(PM_KIND_PAGE, key, 1);
    struct pm_done done;
    atomic_store(&f->watch.cancel, true);
    pm_task_run(&f->env, &l, &f->watch, &done);
    assert_int_equal(done.error.code, PM_ECANCELLED);
    pm_done_free(&done);
    eventfd_write(f->cancel_fd, 1); /* now inside the decoder, which is a fresh one for another password */
    l.options.password = "other";
    pm_task_run(&f->env, &l, &f->watch, &done);
    assert_int_equal(done.error.code, PM_ECANCELLED);
    pm_done_free(&done);
}

static void test_decoders_are_kept_and_bounded(void **state)
{
    struct fixture *f = *state;
    const char *names[] = {"one.pdf", "pages.tif", "grey8.png", "colour.jpg", "rgb8.png", "lossy.webp"};
    char key[PM_BLOB_KEY_SIZE];
    struct pm_decoder *decoder, *again;
    for (int i = 0; i < 6; i++) {
        put(f, names[i], key);
        assert_int_equal(pm_decoders_get(f->env.decoders, f->env.blobs, key, "", 100 + i, &decoder, NULL), 0);
    }
    assert_int_equal(pm_decoders_get(f->env.decoders, f->env.blobs, key, "", 200, &again, NULL), 0);
    assert_ptr_equal(decoder, again);
    assert_int_equal(pm_decoders_expire(f->env.decoders, 0), 4);
    assert_int_equal(pm_decoders_expire(f->env.decoders, 150), 1);
    assert_int_equal(pm_decoders_expire(f->env.decoders, 300), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_open_tells_pages_and_sizes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_open_says_what_is_wrong, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_page_gives_record_and_sheet, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_known_page_is_not_laid_out, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_missing_source_may_be_tried_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cancel_ends_a_task, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_decoders_are_kept_and_bounded, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
