/* Memory domains out of a folder that looks like /sys/devices/system/cpu, and pinning. */
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "base/domains.h"

static char root[] = "/tmp/pagemill-domains-XXXXXX";

static void put_group(int cpu, const char *group)
{
    char path[256];
    static const char *const parts[] = {"", "/cache", "/cache/index3"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/cpu%d%s", root, cpu, parts[i]);
        mkdir(path, 0700);
    }
    snprintf(path, sizeof path, "%s/cpu%d/cache/index3/shared_cpu_list", root, cpu);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fprintf(f, "%s\n", group);
    fclose(f);
}

static int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

/* Two caches of four cores, the second thread of each core 8 further on. */
static void test_groups(void **state)
{
    (void)state;
    int cpus[16];
    struct pm_domain domains[PM_DOMAINS_MOST];
    for (int cpu = 0; cpu < 16; cpu++) {
        cpus[cpu] = cpu;
        put_group(cpu, cpu % 8 < 4 ? "0-3,8-11" : "4-7,12-15");
    }
    assert_int_equal(pm_domains_of(root, cpus, 16, domains), 2);
    assert_string_equal(domains[0].cpus, "0-3,8-11");
    assert_string_equal(domains[1].cpus, "4-7,12-15");
    assert_int_equal(domains[0].cores + domains[1].cores, 16);
    /* What the process may not use is left out. */
    static const int some[] = {0, 2, 3, 4, 5, 6, 7, 9};
    assert_int_equal(pm_domains_of(root, some, 8, domains), 2);
    assert_string_equal(domains[0].cpus, "0,2-3,9");
    assert_string_equal(domains[1].cpus, "4-7");
    /* One group, too small a group, a core of which nothing is known. */
    assert_int_equal(pm_domains_of(root, cpus, 4, domains), 0);
    assert_int_equal(pm_domains_of(root, cpus, 7, domains), 0);
    static const int unknown[] = {0, 1, 2, 3, 4, 5, 6, 77};
    assert_int_equal(pm_domains_of(root, unknown, 8, domains), 0);
}

static void test_pin(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "x", "0-", "-1", "3-1", "0,", "0;1", "0-99999999", "0 ", "0,,1"};
    struct pm_error err;
    cpu_set_t before, after;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(pm_domain_pin(wrong[i], &err), PM_EINVAL);
        assert_non_null(strstr(err.text, "0-7,64-71"));
    }
    int cpu = 0;
    while (!CPU_ISSET((size_t)cpu, &before))
        cpu++;
    char list[32];
    snprintf(list, sizeof list, "%d", cpu);
    assert_int_equal(pm_domain_pin(list, &err), 0);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_int_equal(CPU_COUNT(&after), 1);
    assert_true(CPU_ISSET((size_t)cpu, &after));
    /* Cores that are not there. */
    assert_int_equal(pm_domain_pin("1023", &err), PM_EIO);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_groups), cmocka_unit_test(test_pin)};
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
