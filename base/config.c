#include "base/config.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <yaml.h>

#include "base/fs.h"

#define MAX_DEPTH 8
#define MAX_KEY   200

/* ---- values ---- */

static void *place(void *settings, const struct pm_setting *s)
{
    return (char *)settings + s->offset;
}

static void free_list(struct pm_text_list *list)
{
    for (uint32_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct pm_text_list){0};
}

static void add_item(struct pm_text_list *list, const char *text, size_t bytes)
{
    list->items = pm_xrealloc(list->items, (list->count + 1) * sizeof *list->items);
    list->items[list->count++] = pm_xstrndup(text, bytes);
}

static void replace_text(char **text, const char *value)
{
    char *copy = pm_xstrdup(value);
    free(*text);
    *text = copy;
}

/* A number and the suffix behind it; blanks between them are fine. */
static bool split_number(const char *text, double *number_out, const char **suffix_out)
{
    char *end;
    errno = 0;
    *number_out = strtod(text, &end);
    if (end == text || errno == ERANGE || !isfinite(*number_out))
        return false;
    while (*end == ' ')
        end++;
    *suffix_out = end;
    return true;
}

static bool unit_of(const char *suffix, bool is_bytes, double *factor_out)
{
    static const struct {
        const char *name;
        double factor;
    } bytes[] =
        {{"", 1}, {"B", 1}, {"K", 1024.0}, {"M", 1048576.0}, {"G", 1073741824.0}, {"T", 1099511627776.0}},
      times[] = {{"", 1e6}, {"us", 1}, {"ms", 1e3}, {"s", 1e6}, {"m", 60e6}, {"h", 3600e6}, {"d", 86400e6}};
    size_t count = is_bytes ? sizeof bytes / sizeof bytes[0] : sizeof times / sizeof times[0];
    for (size_t i = 0; i < count; i++) {
        if (strcmp(suffix, is_bytes ? bytes[i].name : times[i].name))
            continue;
        *factor_out = is_bytes ? bytes[i].factor : times[i].factor;
        return true;
    }
    return false;
}

static int wrong_value(const struct pm_setting *s, const char *value, const char *wanted,
                       struct pm_error *err)
{
    char range[96] = "";
    if (s->low != 0 || s->high != 0)
        snprintf(range, sizeof range, " from %.15g to %.15g%s", s->low, s->high,
                 s->type == PM_SETTING_DURATION ? " seconds"
                 : s->type == PM_SETTING_BYTES  ? " bytes"
                                                : "");
    return pm_fail(err, PM_EINVAL, "%s must be %s%s, not \"%.60s\"", s->name, wanted, range, value);
}

static bool in_range(const struct pm_setting *s, double value)
{
    return (s->low == 0 && s->high == 0) || (value >= s->low && value <= s->high);
}

static int set_bool(const struct pm_setting *s, const char *value, bool *out, struct pm_error *err)
{
    static const char *const words[] = {"false", "no", "off", "true", "yes", "on"};
    for (int i = 0; i < 6; i++) {
        if (!strcasecmp(value, words[i])) {
            *out = i >= 3;
            return 0;
        }
    }
    return wrong_value(s, value, "true or false", err);
}

static int set_int(const struct pm_setting *s, const char *value, int64_t *out, struct pm_error *err)
{
    char *end;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    if (end == value || *end || errno == ERANGE || !in_range(s, (double)number))
        return wrong_value(s, value, "a whole number", err);
    *out = number;
    return 0;
}

static int set_measure(const struct pm_setting *s, const char *value, void *out, struct pm_error *err)
{
    double number, factor = 1;
    const char *suffix;
    bool is_bytes = s->type == PM_SETTING_BYTES;
    if (!split_number(value, &number, &suffix) || !unit_of(suffix, is_bytes, &factor) || number < 0 ||
        number * factor >= 9e18 || !in_range(s, is_bytes ? number * factor : number * factor / 1e6))
        return wrong_value(s, value, is_bytes ? "a size like 512M" : "a time like 30s, 5m or 250ms", err);
    if (is_bytes)
        *(uint64_t *)out = (uint64_t)(number * factor);
    else
        *(int64_t *)out = (int64_t)llround(number * factor);
    return 0;
}

static int set_real(const struct pm_setting *s, const char *value, double *out, struct pm_error *err)
{
    double number;
    const char *suffix;
    if (!split_number(value, &number, &suffix) || *suffix || !in_range(s, number))
        return wrong_value(s, value, "a number", err);
    *out = number;
    return 0;
}

static int set_choice(const struct pm_setting *s, const char *value, char **out, struct pm_error *err)
{
    char wanted[200] = "one of";
    for (size_t i = 0; s->choices[i]; i++) {
        if (!strcmp(s->choices[i], value)) {
            replace_text(out, value);
            return 0;
        }
        size_t used = strlen(wanted);
        snprintf(wanted + used, sizeof wanted - used, "%s %s", i ? "," : "", s->choices[i]);
    }
    return wrong_value(s, value, wanted, err);
}

static void set_list(const char *value, struct pm_text_list *out)
{
    free_list(out);
    while (*value) {
        value += strspn(value, " ,");
        size_t n = strcspn(value, ",");
        const char *next = value + n;
        while (n && value[n - 1] == ' ')
            n--;
        if (n)
            add_item(out, value, n);
        value = next;
    }
}

static int set_value(const struct pm_setting *s, const char *value, void *settings, struct pm_error *err)
{
    void *p = place(settings, s);
    switch (s->type) {
    case PM_SETTING_TEXT:
        replace_text(p, value);
        return 0;
    case PM_SETTING_CHOICE:
        return set_choice(s, value, p, err);
    case PM_SETTING_INT:
        return set_int(s, value, p, err);
    case PM_SETTING_REAL:
        return set_real(s, value, p, err);
    case PM_SETTING_BOOL:
        return set_bool(s, value, p, err);
    case PM_SETTING_BYTES:
    case PM_SETTING_DURATION:
        return set_measure(s, value, p, err);
    case PM_SETTING_LIST:
        set_list(value, p);
        return 0;
    }
    return pm_fail(err, PM_EINTERNAL, "%s has no type", s->name);
}

/* ---- names ---- */

static const struct pm_setting *find(const struct pm_config_table *table, const char *key)
{
    for (size_t i = 0; i < table->count; i++)
        if (!strcmp(table->settings[i].name, key))
            return &table->settings[i];
    return NULL;
}

/* Number of letters to change, add or leave out between two names of at most MAX_KEY bytes. */
static size_t distance(const char *a, const char *b)
{
    size_t row[MAX_KEY + 1], n = strnlen(b, MAX_KEY), m = strnlen(a, MAX_KEY);
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; i <= m; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

static int unknown_key(const struct pm_config_table *table, const char *key, struct pm_error *err)
{
    const char *nearest = NULL;
    size_t least = SIZE_MAX;
    for (size_t i = 0; i < table->count; i++) {
        size_t d = distance(key, table->settings[i].name);
        if (d < least) {
            least = d;
            nearest = table->settings[i].name;
        }
    }
    return pm_fail(err, PM_EINVAL, "unknown key %s; the nearest known one is %s", key,
                   nearest ? nearest : "none");
}

static bool is_group(const struct pm_config_table *table, const char *key)
{
    size_t n = strlen(key);
    for (size_t i = 0; i < table->count; i++)
        if (!strncmp(table->settings[i].name, key, n) && table->settings[i].name[n] == '.')
            return true;
    return false;
}

/* ---- the file ---- */

struct reader {
    const struct pm_config_table *table;
    const char *file;
    void *settings;
    bool *is_set; /* [table->count] */
    yaml_parser_t parser;
    struct pm_error *err;
};

/* Puts "FILE:LINE: " before the message and gives PM_EINVAL. */
static int at_line(struct reader *r, const yaml_mark_t *mark)
{
    pm_fail_prefix(r->err, "%s:%zu", r->file, mark->line + 1);
    return PM_EINVAL;
}

static int next_event(struct reader *r, yaml_event_t *event)
{
    if (yaml_parser_parse(&r->parser, event)) {
        if (event->type != YAML_ALIAS_EVENT)
            return 0;
        pm_fail(r->err, PM_EINVAL, "aliases (*name) are not used here; write the value out");
        at_line(r, &event->start_mark);
        yaml_event_delete(event);
        return PM_EINVAL;
    }
    pm_fail(r->err, PM_EINVAL, "not YAML: %s", r->parser.problem ? r->parser.problem : "unreadable");
    return at_line(r, &r->parser.problem_mark);
}

static bool is_null(const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    return event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (!*text || !strcmp(text, "~") || !strcmp(text, "null"));
}

static int read_scalar(struct reader *r, const struct pm_setting *s, const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    if (strlen(text) != event->data.scalar.length) {
        pm_fail(r->err, PM_EINVAL, "%s holds a NUL character", s->name);
        return at_line(r, &event->start_mark);
    }
    if (is_null(event))
        return 0;
    int rc = set_value(s, text, r->settings, r->err);
    return rc ? at_line(r, &event->start_mark) : 0;
}

static int read_list(struct reader *r, const struct pm_setting *s, const yaml_mark_t *mark)
{
    if (s->type != PM_SETTING_LIST) {
        pm_fail(r->err, PM_EINVAL, "%s is one value, not a list", s->name);
        return at_line(r, mark);
    }
    struct pm_text_list *list = place(r->settings, s);
    free_list(list);
    for (;;) {
        yaml_event_t event;
        int rc = next_event(r, &event);
        if (rc)
            return rc;
        bool is_end = event.type == YAML_SEQUENCE_END_EVENT;
        if (event.type == YAML_SCALAR_EVENT) {
            add_item(list, (const char *)event.data.scalar.value, event.data.scalar.length);
        } else if (!is_end) {
            pm_fail(r->err, PM_EINVAL, "%s is a list of plain values", s->name);
            rc = at_line(r, &event.start_mark);
        }
        yaml_event_delete(&event);
        if (rc || is_end)
            return rc;
    }
}

static int read_map(struct reader *r, const char *prefix, unsigned depth);

/* The value behind a key: what it may be depends on whether the table knows the key as a setting or a group.
 */
static int read_value(struct reader *r, const char *key, const yaml_mark_t *key_mark, unsigned depth)
{
    const struct pm_setting *s = find(r->table, key);
    if (!s && !is_group(r->table, key)) {
        unknown_key(r->table, key, r->err);
        return at_line(r, key_mark);
    }
    if (s && r->is_set[s - r->table->settings]) {
        pm_fail(r->err, PM_EINVAL, "%s comes twice", key);
        return at_line(r, key_mark);
    }
    if (s)
        r->is_set[s - r->table->settings] = true;
    yaml_event_t event;
    int rc = next_event(r, &event);
    if (rc)
        return rc;
    if (s && event.type == YAML_SCALAR_EVENT) {
        rc = read_scalar(r, s, &event);
    } else if (s && event.type == YAML_SEQUENCE_START_EVENT) {
        rc = read_list(r, s, &event.start_mark);
    } else if (s) {
        pm_fail(r->err, PM_EINVAL, "%s is a value, not a group", key);
        rc = at_line(r, &event.start_mark);
    } else if (event.type == YAML_MAPPING_START_EVENT) {
        rc = read_map(r, key, depth + 1);
    } else if (event.type != YAML_SCALAR_EVENT || !is_null(&event)) {
        pm_fail(r->err, PM_EINVAL, "%s is a group of settings, not a value", key);
        rc = at_line(r, &event.start_mark);
    }
    yaml_event_delete(&event);
    return rc;
}

/* Behind the start of a map, up to its end. */
static int read_map(struct reader *r, const char *prefix, unsigned depth)
{
    int rc = 0;
    for (;;) {
        yaml_event_t event;
        rc = next_event(r, &event);
        if (rc)
            return rc;
        if (event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            return 0;
        }
        char key[MAX_KEY + 1];
        if (event.type != YAML_SCALAR_EVENT || depth >= MAX_DEPTH ||
            snprintf(key, sizeof key, "%s%s%s", prefix, *prefix ? "." : "",
                     (const char *)event.data.scalar.value) >= (int)sizeof key) {
            pm_fail(r->err, PM_EINVAL, "a key must be a plain word");
            rc = at_line(r, &event.start_mark);
        } else {
            rc = read_value(r, key, &event.start_mark, depth);
        }
        yaml_event_delete(&event);
        if (rc)
            return rc;
    }
}

/* stream, one document, one map (or nothing at all), end */
static int read_stream(struct reader *r)
{
    unsigned documents = 0;
    for (;;) {
        yaml_event_t event;
        int rc = next_event(r, &event);
        if (rc)
            return rc;
        yaml_event_type_t type = event.type;
        bool is_nothing = type == YAML_SCALAR_EVENT && is_null(&event);
        yaml_mark_t mark = event.start_mark;
        yaml_event_delete(&event);
        if (type == YAML_STREAM_END_EVENT)
            return 0;
        if (type == YAML_DOCUMENT_START_EVENT && ++documents > 1) {
            pm_fail(r->err, PM_EINVAL, "a second document (---) is not used here");
            rc = at_line(r, &mark);
        } else if (type == YAML_MAPPING_START_EVENT) {
            rc = read_map(r, "", 0);
        } else if ((type == YAML_SCALAR_EVENT && !is_nothing) || type == YAML_SEQUENCE_START_EVENT) {
            pm_fail(r->err, PM_EINVAL, "the file must be a map of settings (key: value)");
            rc = at_line(r, &mark);
        }
        if (rc)
            return rc;
    }
}

int pm_config_parse(const struct pm_config_table *table, const char *file, const void *text, size_t bytes,
                    void *settings, struct pm_error *err)
{
    struct pm_error local;
    struct reader r = {.table = table, .file = file, .settings = settings, .err = err ? err : &local};
    if (!yaml_parser_initialize(&r.parser))
        return pm_fail(err, PM_ENOMEM, "cannot start the YAML parser");
    r.is_set = pm_xalloc((table->count + 1) * sizeof *r.is_set);
    yaml_parser_set_input_string(&r.parser, text, bytes);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    int rc = read_stream(&r);
    yaml_parser_delete(&r.parser);
    free(r.is_set);
    return rc;
}

int pm_config_read(const struct pm_config_table *table, const char *path, void *settings,
                   struct pm_error *err)
{
    struct pm_buf text = {0};
    int rc = pm_fs_read(path, PM_CONFIG_MAX_BYTES, &text, err);
    if (!rc)
        rc = pm_config_parse(table, path, text.data ? text.data : (const uint8_t *)"", text.size, settings,
                             err);
    pm_buf_free(&text);
    return rc;
}

/* ---- without a file ---- */

int pm_config_defaults(const struct pm_config_table *table, void *settings, struct pm_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < table->count && !rc; i++) {
        const struct pm_setting *s = &table->settings[i];
        if (s->initial || s->type == PM_SETTING_TEXT || s->type == PM_SETTING_LIST)
            rc = set_value(s, s->initial ? s->initial : "", settings, err);
        else if (s->type == PM_SETTING_CHOICE)
            rc = set_value(s, s->choices[0], settings, err);
    }
    return rc;
}

int pm_config_set(const struct pm_config_table *table, const char *key, const char *value, void *settings,
                  struct pm_error *err)
{
    const struct pm_setting *s = find(table, key);
    return s ? set_value(s, value, settings, err) : unknown_key(table, key, err);
}

void pm_config_free(const struct pm_config_table *table, void *settings)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct pm_setting *s = &table->settings[i];
        void *p = place(settings, s);
        if (s->type == PM_SETTING_LIST) {
            free_list(p);
        } else if (s->type == PM_SETTING_TEXT || s->type == PM_SETTING_CHOICE) {
            free(*(char **)p);
            *(char **)p = NULL;
        }
    }
}

/* The part of a key up to its last dot, or 0: settings of one group stand together under one heading. */
static size_t group_bytes(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? (size_t)(dot - name) : 0;
}

static void example_value(const struct pm_setting *s, struct pm_buf *out)
{
    const char *value = s->initial ? s->initial : "";
    if (s->type == PM_SETTING_LIST)
        pm_buf_printf(out, "[%s]", value);
    else if (s->type == PM_SETTING_TEXT)
        pm_buf_printf(out, "\"%s\"", value);
    else if (s->type == PM_SETTING_CHOICE)
        pm_buf_text(out, s->initial ? s->initial : s->choices[0]);
    else if (s->type == PM_SETTING_BOOL)
        pm_buf_text(out, s->initial ? s->initial : "false");
    else
        pm_buf_text(out, s->initial ? s->initial : "0");
}

void pm_config_example(const struct pm_config_table *table, struct pm_buf *out)
{
    const char *group = "";
    size_t group_size = 0;
    for (size_t i = 0; i < table->count; i++) {
        const struct pm_setting *s = &table->settings[i];
        size_t n = group_bytes(s->name);
        if (n != group_size || strncmp(s->name, group, n)) {
            group = s->name;
            group_size = n;
            if (n)
                pm_buf_printf(out, "%.*s:\n", (int)n, group);
        }
        const char *indent = n ? "  " : "";
        pm_buf_printf(out, "%s# %s", indent, s->help ? s->help : "");
        if (s->low != 0 || s->high != 0)
            pm_buf_printf(out, " (%.15g to %.15g%s)", s->low, s->high,
                          s->type == PM_SETTING_DURATION ? " seconds" : "");
        for (size_t k = 0; s->choices && s->choices[k]; k++)
            pm_buf_printf(out, "%s%s", k ? ", " : ": ", s->choices[k]);
        pm_buf_printf(out, "\n%s%s: ", indent, s->name + (n ? n + 1 : 0));
        example_value(s, out);
        pm_buf_text(out, "\n");
    }
}
