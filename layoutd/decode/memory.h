/* Tells "needed too much memory" from "crashed": libraries that abort when malloc fails would look like a
 * crash. The program's own malloc notes the first failure and hands everything to glibc's.
 * Threads: none in the decoder. */
#ifndef PM_LAYOUTD_DECODE_MEMORY_H
#define PM_LAYOUTD_DECODE_MEMORY_H

#include <stddef.h>

/* Bytes asked for by the last allocation that failed since pm_memory_forget; 0 when none did. */
size_t pm_memory_failed_bytes(void);
void pm_memory_forget(void);

/* On SIGABRT, SIGTRAP (GLib) and SIGSEGV after a failed allocation: calls report (async-signal-safe) and
 * ends. */
void pm_memory_watch(void (*report)(void));

#endif
