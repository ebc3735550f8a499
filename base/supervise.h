/* Child processes: starting one, knowing when it ends, and keeping a set of them running.
 *
 * pm_spawn starts a program with closed descriptors, default signals and (when asked) PR_SET_PDEATHSIG, and
 * returns a pidfd, so that a later signal can never hit a stranger with the same number. A pm_supervise keeps
 * services running: it polls their pidfds, restarts a dead one after a back-off (50 ms, doubled for each
 * early death up to 5 s (half a second for one that had worked), one step less for every 5 s of life,
 * forgotten after 60 s), and tells what happened as events. A service that exits with code 78 or 64
 * (EX_CONFIG, EX_USAGE: the next start would fail too) or dies early too many times in a row is not
 * restarted; that is a FATAL event with its last line of stderr.
 *
 * A service can be replaced: the new process is started and the one before goes on as a leaving one until it
 * is dismissed, or is taken back when the new one fails.
 *
 * Nothing here uses ZeroMQ, so the process that owns a pm_supervise may fork at any time.
 * Threads: one owner, and it must be the thread that lives longest: PR_SET_PDEATHSIG follows the thread.
 * Ownership: configs are copied; event texts are valid until the next call. */
#ifndef PM_BASE_SUPERVISE_H
#define PM_BASE_SUPERVISE_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct pm_spawn {
    const char *path;
    const char *const *argv;    /* NULL-terminated; argv[0] is the program's name */
    const char *const *set_env; /* "NAME=VALUE", NULL-terminated, over the own environment; may be NULL */
    const int *keep_fds;        /* stay open in the child under the same number; everything else is closed */
    size_t keep_count;
    int stdin_fd, stdout_fd, stderr_fd; /* -1: /dev/null */
    bool die_with_parent;               /* PR_SET_PDEATHSIG SIGKILL */
    bool own_group;                     /* a process group of its own: Ctrl-C of the terminal misses it */
};
struct pm_child {
    pid_t pid; /* 0: none */
    int pidfd; /* readable when the child has ended */
};

/* Errors: PM_ENOTFOUND and PM_EDENIED when the program cannot be executed, PM_EIO when no process can be
 * made. */
int pm_spawn(const struct pm_spawn *spec, struct pm_child *out, struct pm_error *err);
int pm_child_signal(const struct pm_child *child, int signal_number); /* 0, or PM_EGONE */
/* Waits for the end (at once when pidfd is readable), closes pidfd and clears *child. status_out: as of
 * waitpid. */
int pm_child_reap(struct pm_child *child, int *status_out);
/* "exit code 78", "killed by signal 9 (Killed)". */
void pm_status_describe(int status, char *text, size_t text_bytes);

/* How long to wait before the next start. Pure. */
struct pm_backoff { /* zero-initialise */
    int64_t delay_us;
    unsigned early_deaths; /* in a row */
};
#define PM_BACKOFF_FIRST_US 50000
#define PM_BACKOFF_MOST_US  5000000
#define PM_BACKOFF_READY_US 500000 /* most, after the death of a service that had told it was ready */
#define PM_BACKOFF_RESET_US 60000000
#define PM_BACKOFF_STEP_US  5000000
#define PM_BACKOFF_EARLY_US 2000000 /* a life shorter than this is an early death */
int64_t pm_backoff_next(struct pm_backoff *b, int64_t life_us);

struct pm_service {
    const char *name; /* "worker-2": for events */
    struct pm_spawn spawn;
    bool capture_stderr;    /* lines arrive as events, the last one is kept; spawn.stderr_fd is not used */
    unsigned give_up_after; /* early deaths in a row, not counting SIGKILL, that make it FATAL; 0: never */
    bool tells_ready; /* pm_supervise_ready will be called: early is every death before that, none after it */
    bool is_finished_on_zero; /* exit code 0 ends the service instead of restarting it */
};

enum pm_supervise_kind {
    PM_SUPERVISE_NONE,
    PM_SUPERVISE_STARTED, /* pid */
    PM_SUPERVISE_LINE,    /* text: a line of its stderr */
    PM_SUPERVISE_DIED,    /* text says how; it starts again after delay_us (-1: not, the set is held) */
    PM_SUPERVISE_FINISHED,
    PM_SUPERVISE_FATAL, /* text says why it is not started again */
    PM_SUPERVISE_LEFT,  /* a process that was replaced has ended; text says how */
};
struct pm_supervise_event {
    enum pm_supervise_kind kind;
    size_t index; /* order of pm_supervise_add */
    const char *name, *text;
    pid_t pid;
    int status;
    int64_t delay_us;
};

struct pm_supervise;
struct pm_supervise *pm_supervise_new(void);
/* Kills what still runs with SIGKILL and reaps it. */
void pm_supervise_free(struct pm_supervise **s);
size_t pm_supervise_add(struct pm_supervise *s,
                        const struct pm_service *service); /* started by the next turn */

/* One turn: starts what is due, polls children and the caller's descriptors (extra[i].revents is filled) for
 * at most timeout_us, and returns the next event; PM_SUPERVISE_NONE after a timeout or when only extra is
 * ready. */
void pm_supervise_turn(struct pm_supervise *s, struct pollfd *extra, size_t extra_count, int64_t timeout_us,
                       struct pm_supervise_event *out);
/* No service is started any more. */
void pm_supervise_hold(struct pm_supervise *s);
/* SIZE_MAX: all, leaving ones included. */
void pm_supervise_signal(struct pm_supervise *s, size_t index, int signal_number);
size_t pm_supervise_alive(const struct pm_supervise *s); /* running processes, leaving ones included */
bool pm_supervise_is_alive(const struct pm_supervise *s, size_t index);
size_t pm_supervise_count(const struct pm_supervise *s);
const char *pm_supervise_name(const struct pm_supervise *s, size_t index);
pid_t pm_supervise_pid(const struct pm_supervise *s, size_t index); /* 0: it does not run */
/* The process works now. Returns its index; SIZE_MAX when that process is none of ours (any more). */
size_t pm_supervise_ready(struct pm_supervise *s, pid_t pid);

/* ---- replacing ---- */
/* A new process beside the old one, by the next turn. The old one is told nothing yet. */
void pm_supervise_replace(struct pm_supervise *s, size_t index);
/* Signals the old one; LEFT follows when it has ended. */
void pm_supervise_dismiss(struct pm_supervise *s, size_t index, int signal_number);
bool pm_supervise_has_leaving(const struct pm_supervise *s, size_t index);
/* The new one is no good: it is killed and the old one is the service again. False when there is none. */
bool pm_supervise_take_back(struct pm_supervise *s, size_t index);
/* Without a second process: signals the service; when it has ended (LEFT) it is started at once. */
void pm_supervise_restart(struct pm_supervise *s, size_t index, int signal_number);

#endif
