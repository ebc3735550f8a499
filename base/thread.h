/* Starts threads that compute: no signal from outside is delivered to them. A process whose main thread waits
 * for signals on a descriptor is ended by the first SIGTERM when any other thread takes it.
 *
 * Ownership: the caller joins. Threads: any. Errors: as pthread_create, an errno value. */
#ifndef PM_BASE_THREAD_H
#define PM_BASE_THREAD_H

#include <pthread.h>

int pm_thread_start(pthread_t *out, void *(*body)(void *arg), void *arg);

#endif
