/* How much memory there is and what a process takes, as far as the kernel tells. Threads: reentrant. */
#ifndef PM_CLIENT_CLI_MEMORY_H
#define PM_CLIENT_CLI_MEMORY_H

#include <stdint.h>
#include <sys/types.h>

uint64_t pm_memory_available(void);       /* bytes, the cgroup's limit included; 0: unknown */
uint64_t pm_memory_of_process(pid_t pid); /* its own, without mapped files; 0: unknown */

#endif
