#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

/* The one writable global of the project: set once before any thread starts. */
static struct {
    const char *process;
    enum pm_log_level lowest;
} logger = {"pagemill", PM_LOG_INFO};

static const char *const level_names[] = {"debug", "info", "warning", "error"};

void pm_log_setup(const char *process, enum pm_log_level lowest)
{
    logger.process = process;
    logger.lowest = lowest;
}

int pm_log_level_parse(const char *name)
{
    for (int i = 0; i < 4; i++)
        if (!strcasecmp(name, level_names[i]))
            return i;
    return -1;
}

void pm_log(enum pm_log_level level, const char *format, ...)
{
    if (level < logger.lowest)
        return;
    char line[2048];
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t used = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
    used += (size_t)snprintf(line + used, sizeof line - used, ".%03ldZ %s %s[%d] ", now.tv_nsec / 1000000,
                             level_names[level], logger.process, (int)getpid());
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line + used, sizeof line - used - 1, format, args);
    va_end(args);
    if (n > 0)
        used += (size_t)n < sizeof line - used - 1 ? (size_t)n : sizeof line - used - 2;
    for (size_t i = 0; i < used; i++)
        if ((unsigned char)line[i] < 0x20)
            line[i] = ' ';
    line[used++] = '\n';
    /* A log line that cannot be written has nowhere else to go. */
    ssize_t ignored = write(STDERR_FILENO, line, used);
    (void)ignored;
}
