/* Which machine this is, as far as sharing files goes: the kernel's boot id and the host name (containers on
 * one kernel have names of their own). Two processes with equal ids can try each other's paths; they still
 * check. Caller frees. Threads: reentrant. Errors: none; "unknown" parts are left out. */
#ifndef PM_BASE_HOST_H
#define PM_BASE_HOST_H

#include <stdint.h>

char *pm_host_id(void);

/* Processor cores this process may really use: affinity mask and cgroup quota, at least 1. */
int pm_host_cores(void);

/* Resident memory of a process of this host; 0 when it cannot be told. */
uint64_t pm_host_rss_bytes(uint64_t pid);
/* Of this process, without mapped files; 0 when it cannot be told. */
uint64_t pm_host_own_bytes(void);

#endif
