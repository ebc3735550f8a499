#include "broker/exposition.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

#define FIRST_POWER 6u /* 2^6 us */
#define LAST_POWER  30u

/* Backslash and line feed always, quotes in label values. */
static void add_escaped(struct pm_buf *out, const char *text, bool is_label)
{
    size_t left = strlen(text);
    while (left) {
        size_t n = 1;
        if (*text == '\\')
            pm_buf_append(out, "\\\\", 2);
        else if (*text == '\n')
            pm_buf_append(out, "\\n", 2);
        else if (*text == '"' && is_label)
            pm_buf_append(out, "\\\"", 2);
        else if (!(n = pm_utf8_length(text, left)))
            pm_buf_append(out, "\xef\xbf\xbd", 3);
        else
            pm_buf_append(out, text, n);
        n = n ? n : 1;
        text += n;
        left -= n;
    }
}

void pm_expo_family(struct pm_buf *out, const char *name, const char *type, const char *help)
{
    pm_buf_printf(out, "# HELP %s ", name);
    add_escaped(out, help, false);
    pm_buf_printf(out, "\n# TYPE %s %s\n", name, type);
}

/* NAME SUFFIX {labels, le} */
static void add_name(struct pm_buf *out, const char *name, const char *suffix,
                     const struct pm_expo_label *labels, size_t count, const char *bound)
{
    pm_buf_printf(out, "%s%s", name, suffix);
    if (!count && !bound)
        return;
    for (size_t i = 0; i < count; i++) {
        pm_buf_printf(out, "%s%s=\"", i ? "," : "{", labels[i].name);
        add_escaped(out, labels[i].value, true);
        pm_buf_append(out, "\"", 1);
    }
    if (bound)
        pm_buf_printf(out, "%sle=\"%s\"", count ? "," : "{", bound);
    pm_buf_append(out, "}", 1);
}

static void add_seconds(struct pm_buf *out, uint64_t us)
{
    pm_buf_printf(out, "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);
}

void pm_expo_count(struct pm_buf *out, const char *name, const struct pm_expo_label *labels,
                   size_t label_count, uint64_t value)
{
    add_name(out, name, "", labels, label_count, NULL);
    pm_buf_printf(out, " %" PRIu64 "\n", value);
}

void pm_expo_seconds(struct pm_buf *out, const char *name, const struct pm_expo_label *labels,
                     size_t label_count, uint64_t us)
{
    add_name(out, name, "", labels, label_count, NULL);
    pm_buf_append(out, " ", 1);
    add_seconds(out, us);
    pm_buf_append(out, "\n", 1);
}

void pm_expo_histogram(struct pm_buf *out, const char *name, const struct pm_expo_label *labels,
                       size_t label_count, const struct pm_histogram *h)
{
    for (unsigned power = FIRST_POWER; power <= LAST_POWER; power++) {
        char bound[32];
        uint64_t us = (uint64_t)1 << power;
        snprintf(bound, sizeof bound, "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);
        add_name(out, name, "_bucket", labels, label_count, bound);
        pm_buf_printf(out, " %" PRIu64 "\n", pm_histogram_at_most(h, power));
    }
    add_name(out, name, "_bucket", labels, label_count, "+Inf");
    pm_buf_printf(out, " %" PRIu64 "\n", h->count);
    add_name(out, name, "_sum", labels, label_count, NULL);
    pm_buf_append(out, " ", 1);
    add_seconds(out, h->sum_us);
    pm_buf_append(out, "\n", 1);
    add_name(out, name, "_count", labels, label_count, NULL);
    pm_buf_printf(out, " %" PRIu64 "\n", h->count);
}
