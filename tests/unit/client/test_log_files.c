/* The fleet's log files: rotation, foreign lines, full disks; and what `pagemill logs` picks from them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "client/cli/log_files.h"
#include "client/cli/log_view.h"

static char *make_dir(void)
{
    char *dir = pm_xstrdup("/tmp/pm-logs-XXXXXX");
    assert_non_null(mkdtemp(dir));
    return dir;
}

static void drop_dir(char *dir)
{
    assert_int_equal(pm_fs_remove_tree(dir, NULL), 0);
    free(dir);
}

static size_t read_file(const char *dir, unsigned age, struct pm_buf *out)
{
    char *path = pm_log_files_path(dir, age);
    pm_buf_clear(out);
    int rc = pm_fs_read(path, 1 << 20, out, NULL);
    pm_buf_text(out, "");
    free(path);
    return rc ? 0 : out->size;
}

static void test_rotation(void **state)
{
    (void)state;
    char *dir = make_dir(), *logs = pm_fs_join(dir, "logs"), line[200];
    struct pm_log_files *f;
    struct pm_buf text = {0};
    struct stat st;
    assert_int_equal(pm_log_files_open(logs, 1000, 3, &f, NULL), 0);
    assert_int_equal(stat(logs, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    for (int i = 0; i < 100; i++) {
        snprintf(line, sizeof line, "2026-01-05T10:22:31.482Z info worker-1[5] line number=%03d", i);
        pm_log_files_put(f, "worker-1", 5, line);
    }
    pm_log_files_free(&f);
    size_t all = 0;
    for (unsigned age = 0; age < 3; age++) {
        size_t bytes = read_file(logs, age, &text);
        assert_true(bytes > 0 && bytes <= 1000);
        assert_int_equal(text.data[bytes - 1], '\n');
        all += bytes;
    }
    assert_int_equal(read_file(logs, 3, &text), 0); /* bounded */
    assert_true(all > 2000);
    read_file(logs, 0, &text);
    assert_non_null(strstr((const char *)text.data, "number=099"));
    /* Goes on where it was. */
    assert_int_equal(pm_log_files_open(logs, 1000, 3, &f, NULL), 0);
    pm_log_files_put(f, "worker-1", 5, "2026-01-05T10:22:31.482Z info worker-1[5] after\n");
    pm_log_files_free(&f);
    read_file(logs, 0, &text);
    assert_non_null(
        strstr((const char *)text.data, "number=099\n2026-01-05T10:22:31.482Z info worker-1[5] after\n"));
    pm_buf_free(&text);
    free(logs);
    drop_dir(dir);
}

static void test_foreign_lines(void **state)
{
    (void)state;
    char *dir = make_dir();
    struct pm_log_files *f;
    struct pm_buf text = {0};
    struct pm_log_line parts;
    assert_int_equal(pm_log_files_open(dir, 100000, 3, &f, NULL), 0);
    pm_log_files_put(f, "worker-7", 99, "terminate called\n");
    pm_log_files_put(f, "worker-7", 99, "");
    pm_log_files_free(&f);
    assert_true(read_file(dir, 0, &text) > 0);
    *strchr((char *)text.data, '\n') = 0;
    assert_true(pm_log_read((const char *)text.data, &parts));
    assert_int_equal(parts.level, PM_LOG_WARNING);
    assert_string_equal(parts.message, "terminate called");
    assert_memory_equal(parts.process, "worker-7[99]", 12);
    pm_buf_free(&text);
    drop_dir(dir);
}

static const char lines[] = "2026-01-05T10:00:02.000Z info broker[1] job accepted job=17\n"
                            "2026-01-05T10:00:01.000Z debug worker-1[2] region done job=17 page=1\n"
                            "2026-01-05T10:00:03.000Z warning worker-10[3] region failed job=18 page=1\n"
                            "no line of ours job=17\n"
                            "2026-01-05T10:00:03.000Z info layoutd-1[4] page done job=17\n"
                            "2026-01-05T10:00:04.000Z info layoutd-1[4] half a li";

static size_t pick(struct pm_log_filter filter, struct pm_log_view *view)
{
    *view = (struct pm_log_view){0};
    size_t taken = pm_log_view_add(view, &filter, lines, sizeof lines - 1);
    assert_int_equal(lines[taken - 1], '\n');
    assert_int_equal(strncmp(lines + taken, "2026-01-05T10:00:04", 19), 0);
    pm_log_view_sort(view);
    return view->count;
}

static void test_view(void **state)
{
    (void)state;
    struct pm_log_view view;
    struct pm_error err;
    assert_int_equal(pick((struct pm_log_filter){.job = "17"}, &view), 3);
    assert_non_null(strstr(view.lines[0].text, "worker-1[2]")); /* by time, not by arrival */
    assert_non_null(strstr(view.lines[2].text, "layoutd-1"));
    pm_log_view_clear(&view);
    assert_int_equal(pick((struct pm_log_filter){.process = "worker"}, &view), 2);
    pm_log_view_clear(&view);
    assert_int_equal(pick((struct pm_log_filter){.process = "worker-1"}, &view), 1);
    pm_log_view_clear(&view);
    assert_int_equal(pick((struct pm_log_filter){.lowest = PM_LOG_WARNING}, &view), 1);
    pm_log_view_clear(&view);
    struct pm_log_filter filter = {0};
    assert_int_equal(pm_log_filter_since(&filter, "2026-01-05T10:00:02", 0, &err), 0);
    assert_int_equal(pick(filter, &view), 3);
    pm_log_view_clear(&view);
    assert_int_equal(pm_log_filter_since(&filter, "2m", 1767607322500000, &err), 0); /* 10:02:02.5 */
    assert_string_equal(filter.since, "2026-01-05T10:00:02.500Z");
    static const char *const wrong[] = {"", "yesterday", "5 m", "2026-13x", "10", "-5m", "999999d"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(pm_log_filter_since(&filter, wrong[i], 0, &err), PM_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rotation), cmocka_unit_test(test_foreign_lines),
                                       cmocka_unit_test(test_view)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
