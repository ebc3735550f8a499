#include "client/cli/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"

#define LEAST_INTERVAL_US 10000

void pm_notify_open(struct pm_notify *notify)
{
    *notify = (struct pm_notify){0};
    const char *path = getenv("NOTIFY_SOCKET"), *every = getenv("WATCHDOG_USEC"),
               *whose = getenv("WATCHDOG_PID");
    if (!path || (path[0] != '/' && path[0] != '@') || !path[1] ||
        strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path)
        return;
    notify->path = pm_xstrdup(path);
    if (!every || (whose && strtoll(whose, NULL, 10) != (long long)getpid()))
        return;
    char *end;
    errno = 0;
    long long us = strtoll(every, &end, 10);
    if (!errno && end != every && !*end &&
        us > 0) /* half of what is asked for, as sd_watchdog_enabled(3) says */
        notify->interval_us = us / 2 > LEAST_INTERVAL_US ? us / 2 : LEAST_INTERVAL_US;
}

void pm_notify_close(struct pm_notify *notify)
{
    free(notify->path);
    *notify = (struct pm_notify){0};
}

void pm_notify_send(const struct pm_notify *notify, const char *lines)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!notify->path)
        return;
    size_t length = strlen(notify->path);
    memcpy(address.sun_path, notify->path, length);
    if (address.sun_path[0] == '@')
        address.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    /* Without waiting: a service manager that does not read must not hold up the fleet. */
    ssize_t ignored =
        sendto(fd, lines, strlen(lines), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&address, size);
    (void)ignored;
    close(fd);
}

void pm_notify_status(struct pm_notify *notify, const char *format, ...)
{
    char text[sizeof notify->last_status], line[sizeof text + 8];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    pm_sanitize_text(text);
    if (!notify->path || !strcmp(text, notify->last_status))
        return;
    memcpy(notify->last_status, text, sizeof text);
    snprintf(line, sizeof line, "STATUS=%s", text);
    pm_notify_send(notify, line);
}

int64_t pm_notify_alive(struct pm_notify *notify, int64_t now_us)
{
    if (!notify->interval_us)
        return INT64_MAX;
    if (now_us >= notify->due_us) {
        pm_notify_send(notify, "WATCHDOG=1");
        notify->due_us = now_us + notify->interval_us;
    }
    return notify->due_us;
}
