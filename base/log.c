#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/utf8.h"

/* The one writable global of the project: set once before any thread starts. */
static struct {
    const char *process;
    enum pm_log_level lowest;
    void (*take)(void *context, const char *line, size_t bytes);
    void *context;
} logger = {.process = "pagemill", .lowest = PM_LOG_INFO};

static const char *const level_names[] = {"debug", "info", "warning", "error"};

void pm_log_setup(const char *process, enum pm_log_level lowest)
{
    logger.process = process;
    logger.lowest = lowest;
}

void pm_log_tee(void (*take)(void *context, const char *line, size_t bytes), void *context)
{
    logger.take = take;
    logger.context = context;
}

bool pm_log_is_on(enum pm_log_level level)
{
    return level >= logger.lowest;
}

int pm_log_level_parse(const char *name)
{
    for (int i = 0; i < 4; i++)
        if (!strcasecmp(name, level_names[i]))
            return i;
    return -1;
}

const char *pm_log_level_name(enum pm_log_level level)
{
    return level_names[level];
}

void pm_log_time(int64_t wall_us, char out[PM_LOG_TIME])
{
    struct tm utc = {0};
    time_t seconds = (time_t)(wall_us / 1000000);
    gmtime_r(&seconds, &utc);
    size_t n = strftime(out, PM_LOG_TIME, "%Y-%m-%dT%H:%M:%S", &utc);
    unsigned ms = (unsigned)(wall_us / 1000 % 1000) % 1000;
    snprintf(out + n, PM_LOG_TIME - n, ".%03uZ", ms);
}

void pm_log(enum pm_log_level level, const char *format, ...)
{
    if (level < logger.lowest)
        return;
    char line[2048];
    pm_log_time(pm_wall_us(), line);
    size_t used = PM_LOG_TIME - 1;
    used += (size_t)snprintf(line + used, sizeof line - used, " %s %s[%d] ", level_names[level],
                             logger.process, (int)getpid());
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
    if (logger.take)
        logger.take(logger.context, line, used);
}

/* ---- values ---- */

static bool is_plain(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        if (*p <= 0x20 || *p == 0x7f || *p == '"' || *p == '\\' || *p == '=')
            return false;
    return *text;
}

const char *pm_log_value(const char *text, char out[PM_LOG_VALUE])
{
    size_t used = 0, n = strlen(text);
    bool quotes = !is_plain(text);
    if (n > PM_LOG_VALUE / 2)
        n = pm_utf8_cut(text, PM_LOG_VALUE / 2);
    if (quotes)
        out[used++] = '"';
    for (size_t i = 0; i < n && used < PM_LOG_VALUE - 4; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            out[used++] = '\\';
        out[used++] = c < 0x20 || c == 0x7f ? '?' : (char)c;
    }
    if (quotes)
        out[used++] = '"';
    out[used] = 0;
    return out;
}

/* ---- reading ---- */

static bool is_time(const char *text)
{
    static const char shape[] = "dddd-dd-ddTdd:dd:dd.dddZ";
    for (size_t i = 0; shape[i]; i++)
        if (shape[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != shape[i])
            return false;
    return true;
}

bool pm_log_read(const char *line, struct pm_log_line *out)
{
    if (!is_time(line) || line[24] != ' ')
        return false;
    memcpy(out->time, line, 24);
    out->time[24] = 0;
    const char *level = line + 25, *end = strchr(level, ' ');
    out->level = -1;
    for (int i = 0; end && i < 4; i++)
        if ((size_t)(end - level) == strlen(level_names[i]) &&
            !strncmp(level, level_names[i], strlen(level_names[i])))
            out->level = i;
    if (out->level < 0)
        return false;
    out->process = end + 1;
    out->process_bytes = strcspn(out->process, "[ ");
    const char *behind = out->process + out->process_bytes;
    if (!out->process_bytes || *behind != '[' || !(behind = strchr(behind, ']')))
        return false;
    out->message = behind[1] == ' ' ? behind + 2 : behind + 1;
    return true;
}

bool pm_log_has(const char *line, const char *key, const char *value)
{
    size_t n = strlen(key), m = strlen(value);
    bool in_quotes = false;
    for (const char *p = line; *p; p++) {
        if (in_quotes && *p == '\\' && p[1]) {
            p++;
            continue;
        }
        if (*p == '"')
            in_quotes = !in_quotes && p > line && p[-1] == '=';
        if (in_quotes || (p > line && p[-1] != ' ') || strncmp(p, key, n) != 0 || p[n] != '=')
            continue;
        const char *have = p + n + 1;
        if (!strncmp(have, value, m) && (!have[m] || have[m] == ' ' || have[m] == ':' || have[m] == ','))
            return true;
    }
    return false;
}
