#include "layoutd/decode/memory.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static volatile size_t failed_bytes;
static void (*report_out_of_memory)(void);

size_t pm_memory_failed_bytes(void)
{
    return failed_bytes;
}

void pm_memory_forget(void)
{
    failed_bytes = 0;
}

#if !defined(PM_SANITIZED) && defined(__GLIBC__)
/* glibc documents replacing malloc as a whole; these are its own functions under their second names. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static void *note(void *result, size_t size)
{
    if (!result && size)
        failed_bytes = size;
    return result;
}

__attribute__((visibility("default"))) void *malloc(size_t size)
{
    return note(__libc_malloc(size), size);
}

__attribute__((visibility("default"))) void *calloc(size_t count, size_t size)
{
    return note(__libc_calloc(count, size),
                count && size ? (size_t)-1 / count < size ? (size_t)-1 : count * size : 0);
}

__attribute__((visibility("default"))) void *realloc(void *old, size_t size)
{
    return note(__libc_realloc(old, size), size);
}

__attribute__((visibility("default"))) int posix_memalign(void **out, size_t alignment, size_t size)
{
    if (alignment < sizeof(void *) || (alignment & (alignment - 1)))
        return EINVAL;
    *out = note(__libc_memalign(alignment, size), size);
    return *out || !size ? 0 : ENOMEM;
}
#endif

static void on_signal(int number)
{
    if (failed_bytes && report_out_of_memory) {
        report_out_of_memory();
        _exit(1);
    }
    signal(number, SIG_DFL);
    raise(number);
}

void pm_memory_watch(void (*report)(void))
{
#ifdef PM_SANITIZED
    (void)report;
    (void)on_signal; /* the sanitizer has handlers of its own, with better reports */
#else
    static const int signals[] = {SIGABRT, SIGTRAP, SIGSEGV, SIGBUS};
    report_out_of_memory = report;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_RESETHAND | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    /* A stack of its own, for the one that overflowed. */
    static char stack[16384];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &action, NULL);
#endif
}
