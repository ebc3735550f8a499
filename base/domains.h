/* Memory domains: groups of cores that share a last-level cache and, with it, a way to memory. A process that
 * streams weights does best on the cores of one.
 *
 * Threads: reentrant. Errors: PM_EINVAL for a list of cores that is none, PM_EIO where the kernel refuses. */
#ifndef PM_BASE_DOMAINS_H
#define PM_BASE_DOMAINS_H

#include "base/error.h"

enum { PM_DOMAINS_MOST = 64, PM_DOMAIN_LEAST_CORES = 4, PM_DOMAIN_LIST_BYTES = 256 };

struct pm_domain {
    int cores;
    char cpus[PM_DOMAIN_LIST_BYTES]; /* "0-7,64-71" */
};

/* The domains of the cores that this process may use, in the order of their first core: [PM_DOMAINS_MOST].
 * 0: they are one (or cannot be told, a quota leaves less than all of them, or a group has fewer than
 * PM_DOMAIN_LEAST_CORES: virtual machines show a cache for every core). */
int pm_domains(struct pm_domain *out);

/* The same of `count` given cores, ascending, by the folder that stands for /sys/devices/system/cpu. */
int pm_domains_of(const char *sys_cpu, const int *cpus, int count, struct pm_domain *out);

/* Puts this process, and threads that it starts later, on these cores: "0-7,64-71". */
int pm_domain_pin(const char *cpus, struct pm_error *err);

#endif
