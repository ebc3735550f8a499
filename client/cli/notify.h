/* What systemd is told of a fleet, without its library: sd_notify(3) is a datagram to $NOTIFY_SOCKET.
 *
 * Everything is silent when nobody listens (no socket named, or it went away). Threads: one owner. */
#ifndef PM_CLIENT_CLI_NOTIFY_H
#define PM_CLIENT_CLI_NOTIFY_H

#include <stdint.h>

struct pm_notify {
    char *path;          /* NULL: nobody listens */
    int64_t interval_us; /* of the watchdog's signs of life; 0: none are asked for */
    int64_t due_us;
    char last_status[200];
};
void pm_notify_open(struct pm_notify *notify); /* from NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID */
void pm_notify_close(struct pm_notify *notify);
/* Lines of VARIABLE=value: "READY=1", "STOPPING=1\nSTATUS=draining". */
void pm_notify_send(const struct pm_notify *notify, const char *lines);
/* STATUS=..., when it is another than the last. */
void pm_notify_status(struct pm_notify *notify, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A sign of life when it is time for one; returns when the next is due, INT64_MAX: never. */
int64_t pm_notify_alive(struct pm_notify *notify, int64_t now_us);

#endif
