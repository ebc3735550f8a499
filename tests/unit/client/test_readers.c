/* Lists of readers: names, numbers, what is chosen from the machine, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/domains.h"
#include "base/fs.h"
#include "base/host.h"
#include "base/mem.h"
#include "client/cli/private.h"
#include "client/cli/readers.h"

static char *models;

static void add_model(const char *name, const char *region)
{
    struct pm_error err = {0};
    char *dir = pm_fs_join(models, name), *path = pm_fs_join(dir, "pagemill.json");
    char *text = pm_xprintf(
        "{\"name\": \"%s\", \"family\": \"none\", \"region\": \"%s\", \"tasks\": [\"text\"]}", name, region);
    if (pm_fs_mkdir_p(dir, 0700, &err) || pm_fs_write(path, text, strlen(text), false, &err))
        fail_msg("%s", err.text);
    free(dir);
    free(path);
    free(text);
}

static int begin(void **state)
{
    (void)state;
    char folder[] = "/tmp/pm-readers-XXXXXX";
    models = pm_xstrdup(mkdtemp(folder));
    add_model("lines", "line");
    add_model("blocks", "block");
    return 0;
}

static int end(void **state)
{
    (void)state;
    int rc = pm_fs_remove_tree(models, NULL);
    free(models);
    return rc;
}

static void check(const char *list, uint32_t workers, uint32_t threads, size_t count,
                  const struct pm_fleet_reader *want)
{
    struct pm_readers is;
    struct pm_error err = {0};
    if (pm_readers_parse(list, models, workers, threads, &is, &err))
        fail_msg("%s: %s", list, err.text);
    assert_int_equal(is.count, count);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(is.items[i].name, want[i].name);
        assert_int_equal(is.items[i].workers, want[i].workers);
        assert_int_equal(is.items[i].threads, want[i].threads);
        assert_int_equal(is.items[i].is_pinned, want[i].is_pinned);
    }
    pm_readers_free(&is);
}

static void test_lists(void **state)
{
    (void)state;
    uint32_t cores = (uint32_t)pm_host_cores();
    const struct pm_fleet_reader lines = {"lines", cores, 1, false};
    struct pm_fleet_reader blocks = {"blocks", 1, cores, false};
    struct pm_domain domains[PM_DOMAINS_MOST];
    int count = pm_domains(domains); /* a large machine: a worker in each */
    if (count)
        blocks = (struct pm_fleet_reader){"blocks", (uint32_t)count, (uint32_t)domains[0].cores, true};
    for (int i = 1; i < count; i++)
        blocks.threads =
            (uint32_t)domains[i].cores < blocks.threads ? (uint32_t)domains[i].cores : blocks.threads;
    check("lines", 0, 0, 1, &lines);
    check("blocks", 0, 0, 1, &blocks);
    check("lines,blocks", 0, 0, 2, (struct pm_fleet_reader[]){lines, blocks});
    check("blocks:3,lines", 2, 0, 2,
          (struct pm_fleet_reader[]){{"blocks", 3, 1, false}, {"lines", 2, 1, false}});
    check("lines:7", 2, 5, 1, (struct pm_fleet_reader[]){{"lines", 7, 5, false}});
    check("blocks", 0, 64 * cores, 1, (struct pm_fleet_reader[]){{"blocks", 1, 64 * cores, false}});
    struct pm_fleet_reader two[] = {{"lines", 9, 1, false}, {"blocks", 1, 8, false}};
    assert_int_equal(pm_readers_layouts(two, 2), pm_private_layouts(9));
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *list;
        int code;
        const char *says;
    } cases[] = {
        {"lines,other", PM_ENOTFOUND, "`pagemill model add PATH --name other` installs one"},
        {"other", PM_ENOTFOUND, "lines"},
        {"", PM_EINVAL, "without a name"},
        {"lines,", PM_EINVAL, "without a name"},
        {":2", PM_EINVAL, "without a name"},
        {"lines:0", PM_EINVAL, "1 to 1024"},
        {"lines:1025", PM_EINVAL, "1 to 1024"},
        {"lines:-1", PM_EINVAL, "1 to 1024"},
        {"lines:", PM_EINVAL, "1 to 1024"},
        {"lines:2x", PM_EINVAL, "2x"},
        {"lines:99999999999999999999999", PM_EINVAL, "1 to 1024"},
        {"lines,blocks,lines:2", PM_EINVAL, "lines is named twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pm_readers is;
        struct pm_error err = {0};
        assert_int_equal(pm_readers_parse(cases[i].list, models, 0, 0, &is, &err), cases[i].code);
        if (!strstr(err.text, cases[i].says))
            fail_msg("\"%s\": %s", cases[i].list, err.text);
        pm_readers_free(&is);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
