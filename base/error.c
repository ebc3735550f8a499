#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    int code;
    const char *name;
} names[] = {
    {PM_OK, "ok"},
    {PM_EINVAL, "invalid"},
    {PM_ENOMEM, "no-memory"},
    {PM_EIO, "io"},
    {PM_ENOTFOUND, "not-found"},
    {PM_EFORMAT, "format"},
    {PM_ELIMIT, "limit"},
    {PM_EBUSY, "busy"},
    {PM_ETIMEOUT, "timeout"},
    {PM_ECANCELLED, "cancelled"},
    {PM_EPROTO, "protocol"},
    {PM_EDENIED, "denied"},
    {PM_EUNSUPPORTED, "unsupported"},
    {PM_ENOSPC, "no-space"},
    {PM_EPASSWORD, "password"},
    {PM_EGONE, "gone"},
    {PM_ECRASH, "crash"},
    {PM_EAGAIN, "again"},
    {PM_EINTERNAL, "internal"},
};

void pm_sanitize_text(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p; p++)
        if (*p < 0x20 || *p == 0x7f)
            *p = '?';
}

__attribute__((format(printf, 3, 0))) static void fill(struct pm_error *err, int code, const char *format,
                                                       va_list args)
{
    err->code = code;
    vsnprintf(err->text, sizeof err->text, format, args);
    pm_sanitize_text(err->text);
}

int pm_fail(struct pm_error *err, int code, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        fill(err, code, format, args);
        va_end(args);
    }
    return code;
}

static int code_of_errno(int number)
{
    switch (number) {
    case ENOSPC:
    case EDQUOT:
        return PM_ENOSPC;
    case ENOENT:
    case ENOTDIR:
        return PM_ENOTFOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return PM_EDENIED;
    case ENOMEM:
        return PM_ENOMEM;
    default:
        return PM_EIO;
    }
}

int pm_fail_errno(struct pm_error *err, const char *format, ...)
{
    int number = errno;
    if (err) {
        va_list args;
        va_start(args, format);
        fill(err, code_of_errno(number), format, args);
        va_end(args);
        size_t used = strlen(err->text);
        snprintf(err->text + used, sizeof err->text - used, ": %s", strerror(number));
    }
    errno = number;
    return code_of_errno(number);
}

int pm_fail_prefix(struct pm_error *err, const char *format, ...)
{
    if (!err)
        return PM_EINTERNAL;
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list args;
    va_start(args, format);
    fill(err, err->code, format, args);
    va_end(args);
    size_t used = strlen(err->text);
    snprintf(err->text + used, sizeof err->text - used, ": %s", old);
    return err->code;
}

const char *pm_err_name(int code)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].code == code)
            return names[i].name;
    return "internal";
}

int pm_err_from_name(const char *name)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i].name, name))
            return names[i].code;
    return PM_EINTERNAL;
}

void pm_assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "pagemill: assertion failed: %s (%s:%d)\n", condition, file, line);
    abort();
}
