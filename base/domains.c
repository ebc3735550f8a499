#include "base/domains.h"

#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/host.h"

/* What the kernel says of a core's last cache; false when it says nothing. */
static bool read_group(const char *sys_cpu, int cpu, char *text, size_t text_bytes)
{
    char path[512];
    snprintf(path, sizeof path, "%s/cpu%d/cache/index3/shared_cpu_list", sys_cpu, cpu);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool is_there = fgets(text, (int)text_bytes, f) != NULL;
    fclose(f);
    text[strcspn(text, "\n")] = 0;
    return is_there && *text;
}

/* Adds a core to a list that it follows. */
static bool add_core(struct pm_domain *d, int *first, int *last, int cpu)
{
    size_t length = strlen(d->cpus);
    if (d->cores && *last == cpu - 1) { /* the range grows: its end is written anew */
        char *end = strrchr(d->cpus, ',');
        length = end ? (size_t)(end - d->cpus) : 0;
    } else {
        *first = cpu;
    }
    *last = cpu;
    size_t left = sizeof d->cpus - length;
    const char *comma = length ? "," : "";
    int n = *first == cpu ? snprintf(d->cpus + length, left, "%s%d", comma, cpu)
                          : snprintf(d->cpus + length, left, "%s%d-%d", comma, *first, cpu);
    d->cores++;
    return n > 0 && (size_t)n < left;
}

int pm_domains_of(const char *sys_cpu, const int *cpus, int count, struct pm_domain *out)
{
    char groups[PM_DOMAINS_MOST][PM_DOMAIN_LIST_BYTES], group[PM_DOMAIN_LIST_BYTES];
    int first[PM_DOMAINS_MOST], last[PM_DOMAINS_MOST], domains = 0;
    for (int i = 0; i < count; i++) {
        int d = 0;
        if (!read_group(sys_cpu, cpus[i], group, sizeof group))
            return 0;
        while (d < domains && strcmp(groups[d], group) != 0)
            d++;
        if (d == PM_DOMAINS_MOST)
            return 0;
        if (d == domains) {
            out[domains] = (struct pm_domain){0};
            memcpy(groups[domains++], group, sizeof group);
        }
        if (!add_core(&out[d], &first[d], &last[d], cpus[i]))
            return 0;
    }
    for (int d = 0; d < domains; d++)
        if (out[d].cores < PM_DOMAIN_LEAST_CORES)
            return 0;
    return domains > 1 ? domains : 0;
}

int pm_domains(struct pm_domain *out)
{
    cpu_set_t set;
    int cpus[CPU_SETSIZE], count = 0;
    if (sched_getaffinity(0, sizeof set, &set))
        return 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set))
            cpus[count++] = cpu;
    return pm_host_cores() < count ? 0 : pm_domains_of("/sys/devices/system/cpu", cpus, count, out);
}

/* "7" or "0-7" at *text, which is moved behind it. */
static bool read_range(const char **text, long *first_out, long *last_out)
{
    char *end;
    if (**text < '0' || **text > '9')
        return false;
    *first_out = *last_out = strtol(*text, &end, 10);
    if (*end == '-') {
        if (end[1] < '0' || end[1] > '9')
            return false;
        *last_out = strtol(end + 1, &end, 10);
    }
    *text = end;
    return *first_out <= *last_out && *last_out < CPU_SETSIZE;
}

int pm_domain_pin(const char *cpus, struct pm_error *err)
{
    cpu_set_t set;
    const char *text = cpus;
    CPU_ZERO(&set);
    for (;;) {
        long first, last;
        if (!read_range(&text, &first, &last) || (*text && *text != ','))
            return pm_fail(err, PM_EINVAL, "\"%.64s\" is no list of cores: write it as 0-7,64-71", cpus);
        for (long cpu = first; cpu <= last; cpu++)
            CPU_SET((size_t)cpu, &set);
        if (!*text++)
            break;
    }
    if (sched_setaffinity(0, sizeof set, &set))
        return pm_fail(err, PM_EIO, "this process cannot run on the cores %.64s: %s", cpus, strerror(errno));
    return 0;
}
