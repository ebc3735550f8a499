#include "client/cli/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"

static int fill_address(const char *path, struct sockaddr_un *out, struct pm_error *err)
{
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof out->sun_path)
        return pm_fail(err, PM_EINVAL, "%s is too long for a socket", path);
    memcpy(out->sun_path, path, strlen(path) + 1);
    return 0;
}

int pm_control_listen(const char *path, int *fd_out, struct pm_error *err)
{
    struct sockaddr_un address;
    *fd_out = -1;
    int rc = fill_address(path, &address, err);
    if (rc)
        return rc;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(path); /* of a killed fleet; ours alone by the folder's lock */
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || chmod(path, 0600) ||
        listen(fd, 512)) {
        rc = pm_fail_errno(err, "cannot make the socket %s", path);
        if (fd >= 0)
            close(fd);
        return rc;
    }
    *fd_out = fd;
    return 0;
}

/* ---- the supervisor's side ---- */

int pm_control_open(const char *run_dir, struct pm_control *out, struct pm_error *err)
{
    *out = (struct pm_control){.fd = -1, .path = pm_fs_join(run_dir, PM_CONTROL_NAME)};
    for (size_t i = 0; i < PM_CONTROL_CLIENTS; i++)
        out->clients[i].fd = -1;
    return pm_control_listen(out->path, &out->fd, err);
}

static void drop(struct pm_control_client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->has_asked = false;
    c->line_bytes = 0;
}

void pm_control_close(struct pm_control *control)
{
    if (!control->path)
        return;
    for (size_t i = 0; i < PM_CONTROL_CLIENTS; i++)
        drop(&control->clients[i]);
    if (control->fd >= 0) {
        close(control->fd);
        unlink(control->path);
    }
    free(control->path);
    *control = (struct pm_control){.fd = -1};
}

static int free_slot(const struct pm_control *control)
{
    for (size_t i = 0; i < PM_CONTROL_CLIENTS; i++)
        if (control->clients[i].fd < 0)
            return (int)i;
    return -1;
}

void pm_control_poll(const struct pm_control *control, struct pollfd fds[PM_CONTROL_FDS])
{
    /* With every place taken, more wait in the socket's queue. */
    fds[0] =
        (struct pollfd){.fd = control->path && free_slot(control) >= 0 ? control->fd : -1, .events = POLLIN};
    for (size_t i = 0; i < PM_CONTROL_CLIENTS; i++)
        fds[1 + i] = (struct pollfd){.fd = control->path ? control->clients[i].fd : -1, .events = POLLIN};
}

static void accept_some(struct pm_control *control)
{
    int slot, fd;
    while ((slot = free_slot(control)) >= 0 &&
           (fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        struct ucred who = {0};
        socklen_t size = sizeof who;
        control->clients[slot].fd = fd;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) || (who.uid != geteuid() && who.uid != 0))
            pm_control_say(control, slot, "failed", "this fleet belongs to another user");
    }
}

/* Reads what a client says; true when its line is complete. The end of its side, or a second line, ends it.
 */
static bool read_line(struct pm_control *control, int slot)
{
    struct pm_control_client *c = &control->clients[slot];
    ssize_t n;
    while (c->fd >= 0 &&
           (n = read(c->fd, c->line + c->line_bytes, sizeof c->line - 1 - c->line_bytes)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        if (c->has_asked) /* it has nothing more to say */
            continue;
        char *end = memchr(c->line + c->line_bytes, '\n', (size_t)n);
        c->line_bytes += (size_t)n;
        if (end) {
            *end = 0;
            c->line_bytes = 0;
            c->has_asked = true;
            return true;
        }
        if (c->line_bytes == sizeof c->line - 1)
            pm_control_say(control, slot, "failed", "the request is too long");
    }
    drop(c);
    return false;
}

int pm_control_next(struct pm_control *control, const char **line_out)
{
    if (control->fd < 0)
        return -1;
    accept_some(control);
    for (int i = 0; i < (int)PM_CONTROL_CLIENTS; i++)
        if (control->clients[i].fd >= 0 && read_line(control, i)) {
            pm_sanitize_text(control->clients[i].line);
            *line_out = control->clients[i].line;
            return i;
        }
    return -1;
}

void pm_control_say(struct pm_control *control, int client, const char *kind, const char *text)
{
    char *line = pm_xprintf("%s %s", kind, text);
    pm_sanitize_text(line);
    size_t size = strlen(line);
    line[size] = '\n'; /* over the end, which nobody needs any more */
    for (int i = 0; control->path && i < (int)PM_CONTROL_CLIENTS; i++) {
        struct pm_control_client *c = &control->clients[i];
        if (c->fd < 0 || (client >= 0 ? i != client : !c->has_asked))
            continue;
        bool is_said = send(c->fd, line, size + 1, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size + 1;
        if (!is_said || strcmp(kind, "step") != 0)
            drop(c);
    }
    free(line);
}

/* ---- the side of who asks ---- */

static int wait_readable(int fd, int cancel_fd, struct pm_error *err)
{
    struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = cancel_fd, .events = POLLIN}};
    while (poll(fds, 2, -1) < 0)
        if (errno != EINTR)
            return pm_fail_errno(err, "cannot wait for the supervisor");
    return fds[1].revents ? pm_fail(err, PM_ECANCELLED, "interrupted") : 0;
}

/* One line of an answer. 1: it was the last. */
static int take_line(const char *line, void (*step)(void *context, const char *text), void *context,
                     char **text_out, struct pm_error *err)
{
    const char *text = strchr(line, ' ');
    text = text ? text + 1 : "";
    if (!strncmp(line, "step ", 5))
        step(context, text);
    else if (!strncmp(line, "failed ", 7))
        return pm_fail(err, PM_EINVAL, "%s", text);
    else if (!strncmp(line, "done", 4)) {
        *text_out = pm_xstrdup(text);
        return 1;
    }
    return 0;
}

static int read_answers(int fd, int cancel_fd, void (*step)(void *context, const char *text), void *context,
                        char **text_out, struct pm_error *err)
{
    char line[PM_CONTROL_LINE_BYTES];
    size_t used = 0;
    for (;;) {
        int rc = wait_readable(fd, cancel_fd, err);
        if (rc)
            return rc;
        ssize_t n = read(fd, line + used, sizeof line - 1 - used);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0 || used + (size_t)n == sizeof line - 1)
            return pm_fail(err, PM_EGONE, "the supervisor ended before it answered");
        used += (size_t)n;
        line[used] = 0;
        for (char *end; (end = strchr(line, '\n'));) {
            *end = 0;
            pm_sanitize_text(line);
            if ((rc = take_line(line, step, context, text_out, err)))
                return rc < 0 ? rc : 0;
            used -= (size_t)(end + 1 - line);
            memmove(line, end + 1, used + 1);
        }
    }
}

int pm_control_ask(const char *run_dir, const char *line, int cancel_fd,
                   void (*step)(void *context, const char *text), void *context, char **text_out,
                   struct pm_error *err)
{
    struct sockaddr_un address;
    char *path = pm_fs_join(run_dir, PM_CONTROL_NAME), *request = pm_xprintf("%s\n", line);
    size_t size = strlen(request);
    *text_out = NULL;
    int rc = fill_address(path, &address, err);
    int fd = rc ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (!rc && size >= PM_CONTROL_LINE_BYTES)
        rc = pm_fail(err, PM_EINVAL, "too many names");
    else if (!rc && fd < 0)
        rc = pm_fail_errno(err, "cannot make a socket");
    else if (!rc && connect(fd, (struct sockaddr *)&address, sizeof address))
        rc = pm_fail(err, errno == ENOENT || errno == ECONNREFUSED ? PM_EGONE : PM_EDENIED,
                     "no supervisor answers at %s (%s)", path, strerror(errno));
    else if (!rc && send(fd, request, size, MSG_NOSIGNAL) != (ssize_t)size)
        rc = pm_fail_errno(err, "cannot ask the supervisor at %s", path);
    if (!rc)
        rc = read_answers(fd, cancel_fd, step, context, text_out, err);
    if (fd >= 0)
        close(fd);
    free(request);
    free(path);
    return rc;
}
