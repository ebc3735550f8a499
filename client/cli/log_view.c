#include "client/cli/log_view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "client/cli/color.h"

bool pm_log_filter_takes(const struct pm_log_filter *filter, const char *line,
                         const struct pm_log_line *parts)
{
    if (parts->level < filter->lowest || (*filter->since && strcmp(parts->time, filter->since) < 0))
        return false;
    if (filter->process) {
        size_t n = strlen(filter->process);
        if (parts->process_bytes < n || strncmp(parts->process, filter->process, n) != 0)
            return false;
        char behind = parts->process[n];
        if (parts->process_bytes > n && behind != '-')
            return false;
    }
    return !*filter->job || pm_log_has(line, "job", filter->job);
}

int pm_log_filter_since(struct pm_log_filter *filter, const char *text, int64_t now_wall_us,
                        struct pm_error *err)
{
    static const char shape[] = "dddd-dd-ddTdd:dd:dd.dddZ";
    static const struct {
        char letter;
        int64_t us;
    } units[] = {{'s', 1000000}, {'m', 60000000}, {'h', 3600000000}, {'d', 86400000000}};
    char *end;
    size_t n = strlen(text), same = 0;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (*text >= '0' && *text <= '9' && !errno && number < 100000 && end[0] && !end[1])
        for (size_t i = 0; i < 4; i++)
            if (*end == units[i].letter) {
                int64_t at = now_wall_us - (int64_t)number * units[i].us;
                pm_log_time(at > 0 ? at : 0, filter->since);
                return 0;
            }
    while (same < n && same < 24 &&
           (shape[same] == 'd' ? text[same] >= '0' && text[same] <= '9' : text[same] == shape[same]))
        same++;
    if (n < 4 || n > 24 || same < n)
        return pm_fail(
            err, PM_EINVAL,
            "--since is a span (30s, 10m, 2h, 1d) or a time in UTC (2026-01-05T10:22), not \"%.40s\"", text);
    snprintf(filter->since, sizeof filter->since, "%s", text);
    return 0;
}

size_t pm_log_view_add(struct pm_log_view *view, const struct pm_log_filter *filter, const char *data,
                       size_t bytes)
{
    size_t at = 0;
    for (;;) {
        const char *end = memchr(data + at, '\n', bytes - at);
        if (!end)
            return at;
        char *line = pm_xstrndup(data + at, (size_t)(end - data) - at);
        struct pm_log_line parts;
        at = (size_t)(end - data) + 1;
        if (pm_log_read(line, &parts) && pm_log_filter_takes(filter, line, &parts)) {
            PM_GROW(view->lines, view->count, view->capacity);
            view->lines[view->count++] = (struct pm_log_kept){line, view->next++};
            line = NULL;
        }
        free(line);
    }
}

static int by_time(const void *a, const void *b)
{
    const struct pm_log_kept *x = a, *y = b;
    int order = strncmp(x->text, y->text, 24);
    return order ? order : (x->order > y->order) - (x->order < y->order);
}

void pm_log_view_sort(struct pm_log_view *view)
{
    if (view->count)
        qsort(view->lines, view->count, sizeof *view->lines, by_time);
}

void pm_log_view_clear(struct pm_log_view *view)
{
    for (size_t i = 0; i < view->count; i++)
        free(view->lines[i].text);
    free(view->lines);
    uint64_t next = view->next;
    *view = (struct pm_log_view){.next = next};
}

void pm_log_show(const char *line, bool is_colored, FILE *out)
{
    struct pm_log_line parts;
    char *copy = pm_xstrdup(line);
    pm_sanitize_text(copy);
    if (is_colored && pm_log_read(copy, &parts)) {
        const char *level = pm_log_level_name((enum pm_log_level)parts.level);
        enum pm_color color = pm_color_of_state(level);
        fprintf(out, "%s%s%s %s%-7s%s %s%.*s%s %s\n", pm_color_begin(PM_COLOR_FAINT, true), parts.time,
                pm_color_end(PM_COLOR_FAINT, true), pm_color_begin(color, true), level,
                pm_color_end(color, true), pm_color_begin(PM_COLOR_STRONG, true),
                (int)(parts.message - 1 - parts.process), parts.process, pm_color_end(PM_COLOR_STRONG, true),
                parts.message);
    } else {
        fprintf(out, "%s\n", copy);
    }
    free(copy);
}
