/* RUN/fleet.sock: what a running supervisor is asked to do, and its answers.
 *
 * A stream socket in the run folder, which only its owner may enter; another user's process is refused
 * besides. A request is one line of words ("restart worker-1 broker"). Answers are lines: "step TEXT" for
 * each thing done, and at last "done TEXT" or "failed TEXT", after which the supervisor closes. Whoever does
 * not read its answers is cut; what was asked for goes on.
 *
 * Threads: one owner. Ownership: pm_control_close. */
#ifndef PM_CLIENT_CLI_CONTROL_H
#define PM_CLIENT_CLI_CONTROL_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define PM_CONTROL_NAME       "fleet.sock"
#define PM_CONTROL_CLIENTS    4u
#define PM_CONTROL_FDS        (1 + PM_CONTROL_CLIENTS)
#define PM_CONTROL_LINE_BYTES 4096u

struct pm_control_client {
    int fd;         /* -1: free */
    bool has_asked; /* waits for the end of what it asked for */
    char line[PM_CONTROL_LINE_BYTES];
    size_t line_bytes;
};
struct pm_control {
    int fd; /* -1: not open */
    char *path;
    struct pm_control_client clients[PM_CONTROL_CLIENTS];
};

/* ---- the supervisor's side ---- */
int pm_control_open(const char *run_dir, struct pm_control *out, struct pm_error *err);
void pm_control_close(struct pm_control *control); /* removes the socket */
void pm_control_poll(const struct pm_control *control, struct pollfd fds[PM_CONTROL_FDS]);
/* Takes what has come. The next request: its client's number, its text in *line_out (valid until the next
 * call); -1: none. Call it until -1. */
int pm_control_next(struct pm_control *control, const char **line_out);
/* "KIND TEXT"; "done" and "failed" end it. To one client, or (-1) to all that wait. */
void pm_control_say(struct pm_control *control, int client, const char *kind, const char *text);

/* ---- the side of who asks ---- */
/* Sends the line and hands the answers to `step` until the end: 0, PM_EGONE when no supervisor is there, the
 * supervisor's refusal, or PM_ECANCELLED when cancel_fd (or -1) is readable. text_out: of "done", caller
 * frees. */
int pm_control_ask(const char *run_dir, const char *line, int cancel_fd,
                   void (*step)(void *context, const char *text), void *context, char **text_out,
                   struct pm_error *err);
/* The listening socket at path, which is removed first. Mode 0600. */
int pm_control_listen(const char *path, int *fd_out, struct pm_error *err);

#endif
