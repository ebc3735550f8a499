/* Errors: a code for programs and a text for people.
 *
 * Every fallible function returns 0 or a negative enum pm_err and takes `struct pm_error *err` as its last
 * parameter (may be NULL). The text says what was being done, to what, and why it failed; the code decides
 * what a caller does next (retry, give up, ask for a password). Libraries never print and never exit.
 * Threads: a struct pm_error belongs to its caller; nothing here is shared. */
#ifndef PM_BASE_ERROR_H
#define PM_BASE_ERROR_H

#include <stdarg.h>

enum pm_err {
    PM_OK = 0,
    PM_EINVAL = -1,        /* the caller asked for something impossible: option, range, name */
    PM_ENOMEM = -2,        /* an allocation failed or would pass its budget */
    PM_EIO = -3,           /* the operating system refused: open, read, write, sync */
    PM_ENOTFOUND = -4,     /* file, job, model, blob: not there */
    PM_EFORMAT = -5,       /* the bytes are not what they claim to be: damaged or hostile */
    PM_ELIMIT = -6,        /* well-formed, but larger than a documented limit */
    PM_EBUSY = -7,         /* full for now: retry later */
    PM_ETIMEOUT = -8,      /* a deadline passed */
    PM_ECANCELLED = -9,    /* somebody asked to stop */
    PM_EPROTO = -10,       /* a peer broke the wire protocol */
    PM_EDENIED = -11,      /* permission refused */
    PM_EUNSUPPORTED = -12, /* a format or feature that is known and not served */
    PM_ENOSPC = -13,       /* the disk is full */
    PM_EPASSWORD = -14,    /* the document is encrypted and the password is missing or wrong */
    PM_EGONE = -15,        /* the peer or process at the other end has left */
    PM_ECRASH = -16,       /* the process doing the work died of a signal */
    PM_EAGAIN = -17,       /* nothing to do right now; not a failure */
    PM_EINTERNAL = -18,    /* our bug */
};

struct pm_error {
    int code;       /* enum pm_err */
    char text[400]; /* one line, no newline, safe to show (control characters replaced) */
};

/* Fills err (when not NULL) and returns code, so that callers write `return pm_fail(err, PM_EIO, "...")`. */
int pm_fail(struct pm_error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* As pm_fail, and appends ": " and strerror(errno). errno ENOSPC/EDQUOT, ENOENT, EACCES/EPERM and ENOMEM
 * choose the code; any other becomes PM_EIO. */
int pm_fail_errno(struct pm_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "prefix: " in front of the text already in err and returns err's code. */
int pm_fail_prefix(struct pm_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Short stable name of a code ("format", "no-space", ...) for records and logs; pm_err_from_name is its
 * inverse (PM_EINTERNAL for an unknown name). */
const char *pm_err_name(int code);
int pm_err_from_name(const char *name);

/* Replaces control characters (and DEL) in a string that came from outside by '?', in place. */
void pm_sanitize_text(char *text);

/* States a fact about our own code, in every build. Never use it for bytes from outside. */
#define PM_ASSERT(cond) ((cond) ? (void)0 : pm_assert_failed(#cond, __FILE__, __LINE__))
_Noreturn void pm_assert_failed(const char *condition, const char *file, int line);

#endif
