/* Settings of `up`: options win over the file, units become what the programs want. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fs.h"
#include "client/cli/up_config.h"

static int read_text(const char *text, struct pm_up_config *config, struct pm_up_file **file,
                     struct pm_error *err)
{
    char path[] = "/tmp/pm-config-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(pm_fs_write_all(fd, text, strlen(text), NULL), 0);
    close(fd);
    int rc = pm_up_config_read(path, config, file, err);
    unlink(path);
    return rc;
}

static void test_file(void **state)
{
    (void)state;
    struct pm_up_config config = {.workers = 3, .reader = "mini"}; /* given as options */
    struct pm_up_file *file;
    struct pm_error err;
    assert_int_equal(
        read_text("state: /srv/state\nworkers: 8\nreader: fast\npixel_budget: 2G\nkeep_results: 7d\n"
                  "drain: 90\nlayouts: 2\nmetrics: 127.0.0.1:9464\n",
                  &config, &file, &err),
        0);
    assert_string_equal(config.state, "/srv/state");
    assert_null(config.run);
    assert_int_equal(config.workers, 3);
    assert_string_equal(config.reader, "mini");
    assert_int_equal(config.pixel_budget_mb, 2048);
    assert_int_equal(config.result_ttl_s, 7 * 86400);
    assert_int_equal(config.drain_s, 90);
    assert_string_equal(config.metrics, "127.0.0.1:9464");
    assert_int_equal(config.layouts, 2);
    pm_up_file_free(&file);
    assert_null(file);
}

static void test_refusals(void **state)
{
    (void)state;
    struct pm_up_config config = {0};
    struct pm_up_file *file;
    struct pm_error err;
    assert_int_equal(read_text("wrokers: 8\n", &config, &file, &err), PM_EINVAL);
    assert_non_null(strstr(err.text, "workers"));
    assert_null(file);
    assert_int_equal(read_text("workers: 100000\n", &config, &file, &err), PM_EINVAL);
    assert_int_equal(read_text("log_level: loud\n", &config, &file, &err), PM_EINVAL);
    assert_int_equal(pm_up_config_read("/nonexistent/pagemill.yaml", &config, &file, &err), PM_ENOTFOUND);
}

/* The printed example is a file that reads back as all defaults. */
static void test_example(void **state)
{
    (void)state;
    struct pm_buf text = {0};
    struct pm_up_config config = {0};
    struct pm_up_file *file;
    struct pm_error err;
    pm_up_config_example(&text);
    pm_buf_text(&text, "");
    assert_int_equal(read_text((const char *)text.data, &config, &file, &err), 0);
    assert_null(config.state);
    assert_int_equal(config.workers, 0);
    pm_up_file_free(&file);
    pm_buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_example),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
