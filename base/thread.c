#include "base/thread.h"

#include <signal.h>

int pm_thread_start(pthread_t *out, void *(*body)(void *arg), void *arg)
{
    /* Faults of the thread itself stay as they are: somebody may want to report them. */
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
    sigset_t all, before;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&all, faults[i]);
    int rc = pthread_sigmask(SIG_BLOCK, &all, &before);
    if (rc)
        return rc;
    rc = pthread_create(out, NULL, body, arg); /* inherits the mask */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}
