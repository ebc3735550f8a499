/* The walls around a decoder, put up before it reads the first byte of its source.
 *
 * no_new_privs; no capabilities; resource limits (address space, descriptors, core files); Landlock: nothing
 * may be opened but, for PDF, font files, their caches and Poppler's character tables, read-only; seccomp:
 * an allow-list of system calls without sockets, processes, execution, or anything that writes to a file.
 * Where the kernel has no Landlock, seccomp still refuses every open but read-only ones, and all of them for
 * pictures. In builds with sanitizers the address space is not limited and the sanitizer's own calls are let
 * through (reading /proc/self, writing to stderr).
 *
 * Threads: called once by the only thread. Errors: any refusal by the kernel except missing Landlock. */
#ifndef PM_LAYOUTD_DECODE_SANDBOX_H
#define PM_LAYOUTD_DECODE_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct pm_sandbox {
    uint64_t memory_bytes;   /* address space above what is mapped already; 0: not limited */
    uint64_t max_file_bytes; /* of a memfd */
    bool needs_fonts;        /* PDF */
};

int pm_sandbox_enter(const struct pm_sandbox *sandbox, bool *has_landlock_out, struct pm_error *err);

/* `pagemill-decode --self-test-sandbox`: tries in children of its own what the sandbox forbids and prints a
 * line for each. 0 when all is refused, 1 when something was let through. */
int pm_sandbox_self_test(void);

#endif
