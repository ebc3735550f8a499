#include "base/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

/* ---- what was meant ---- */

#define WORD_MAX 40

/* Edits (insert, delete, replace, swap of neighbours) from one word to another. */
static unsigned distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    unsigned rows[3][WORD_MAX + 1];
    if (n > WORD_MAX || m > WORD_MAX)
        return WORD_MAX;
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best)
                best = above[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[n % 3][m];
}

const char *pm_options_nearest(const char *word, const char *const *words)
{
    const char *found = NULL;
    size_t length = strlen(word);
    unsigned best = length <= 3 ? 2 : 3; /* one edit in a short word, two in a longer one */
    for (size_t i = 0; words[i]; i++) {
        unsigned d = distance(word, words[i]);
        if (length >= 3 && !strncmp(word, words[i], length)) /* a beginning is as good as one edit */
            d = d ? 1 : 0;
        if (d < best) {
            best = d;
            found = words[i];
        }
    }
    return found;
}

/* ---- parsing ---- */

static const struct pm_option *find(const struct pm_usage *usage, const char *name, size_t length,
                                    char letter)
{
    for (size_t t = 0; usage->tables && usage->tables[t]; t++)
        for (const struct pm_option *o = usage->tables[t]; o->name; o++)
            if (letter ? o->letter == letter : strlen(o->name) == length && !strncmp(o->name, name, length))
                return o;
    return NULL;
}

static int unknown(const struct pm_usage *usage, const char *name, size_t length, struct pm_error *err)
{
    size_t count = 1, used = 0;
    for (size_t t = 0; usage->tables && usage->tables[t]; t++)
        for (const struct pm_option *o = usage->tables[t]; o->name; o++)
            count++;
    const char **names = pm_xalloc(count * sizeof *names);
    for (size_t t = 0; usage->tables && usage->tables[t]; t++)
        for (const struct pm_option *o = usage->tables[t]; o->name; o++)
            if (o->help)
                names[used++] = o->name;
    char *word = pm_xstrndup(name, length);
    const char *near = pm_options_nearest(word, names);
    int rc = near ? pm_fail(err, PM_EINVAL, "unknown option --%.80s; did you mean --%s?", word, near)
                  : pm_fail(err, PM_EINVAL, "unknown option --%.80s; see %s --help", word, usage->name);
    free(word);
    free(names);
    return rc;
}

static int set(const struct pm_option *o, const char *value, void *settings, struct pm_error *err)
{
    char *place = (char *)settings + o->offset;
    if (o->kind == PM_OPTION_FLAG) {
        *(bool *)(void *)place = true;
    } else if (o->kind == PM_OPTION_TEXT || o->kind == PM_OPTION_NEED_TEXT) {
        *(const char **)(void *)place = value;
    } else if (o->kind == PM_OPTION_LOG_LEVEL) {
        int level = pm_log_level_parse(value);
        if (level < 0)
            return pm_fail(err, PM_EINVAL, "--%s is debug, info, warning or error, not \"%.80s\"", o->name,
                           value);
        *(enum pm_log_level *)(void *)place = (enum pm_log_level)level;
    } else if (o->kind == PM_OPTION_DECIMAL) {
        char *end;
        float v = strtof(value, &end);
        if (end == value || *end || !(v >= (float)o->low && v <= (float)o->high))
            return pm_fail(err, PM_EINVAL, "--%s wants a number from %u to %u, not \"%.80s\"", o->name,
                           o->low, o->high, value);
        *(float *)(void *)place = v;
    } else {
        char *end;
        errno = 0;
        unsigned long long v = strtoull(value, &end, 10);
        if (errno || end == value || *end || *value == '-' || v < o->low || v > o->high)
            return pm_fail(err, PM_EINVAL, "--%s wants a whole number from %u to %u, not \"%.80s\"", o->name,
                           o->low, o->high, value);
        *(uint32_t *)(void *)place = (uint32_t)v;
    }
    return 0;
}

static int take_long(const struct pm_usage *usage, int argc, char **argv, int *i, void *settings,
                     struct pm_error *err)
{
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    const struct pm_option *o = find(usage, name, length, 0);
    if (!o)
        return unknown(usage, name, length, err);
    if (o->kind == PM_OPTION_FLAG) {
        if (equals)
            return pm_fail(err, PM_EINVAL, "--%s takes no value", o->name);
        return set(o, NULL, settings, err);
    }
    if (!equals && *i + 1 >= argc)
        return pm_fail(err, PM_EINVAL, "--%s wants a value: --%s %s", o->name, o->name, o->argument);
    return set(o, equals ? equals + 1 : argv[++*i], settings, err);
}

static int take_letters(const struct pm_usage *usage, int argc, char **argv, int *i, void *settings,
                        bool *wants_help, struct pm_error *err)
{
    for (const char *p = argv[*i] + 1; *p; p++) {
        const struct pm_option *o = find(usage, NULL, 0, *p);
        if (!o && *p == 'h') {
            *wants_help = true;
            return 0;
        }
        if (!o)
            return pm_fail(err, PM_EINVAL, "unknown option -%c; see %s --help", *p, usage->name);
        if (o->kind == PM_OPTION_FLAG) {
            set(o, NULL, settings, err);
            continue;
        }
        if (!p[1] && *i + 1 >= argc)
            return pm_fail(err, PM_EINVAL, "-%c wants a value: -%c %s", *p, *p, o->argument);
        return set(o, p[1] ? p + 1 : argv[++*i], settings, err);
    }
    return 0;
}

static int check_complete(const struct pm_usage *usage, const struct pm_arguments *given,
                          const void *settings, struct pm_error *err)
{
    char *missing = NULL;
    for (size_t t = 0; usage->tables && usage->tables[t] && !missing; t++)
        for (const struct pm_option *o = usage->tables[t]; o->name && !missing; o++)
            if (o->kind == PM_OPTION_NEED_TEXT &&
                !*(const char *const *)(const void *)((const char *)settings + o->offset))
                missing = pm_xprintf("--%s %s", o->name, o->argument);
    if (!missing && given->count < usage->least)
        missing = pm_xstrdup(usage->arguments);
    if (missing) {
        char *synopsis = pm_options_synopsis(usage);
        pm_fail(err, PM_EINVAL, "%s is missing; usage: %s", missing, synopsis);
        free(synopsis);
        free(missing);
        return PM_EINVAL;
    }
    if (given->count > usage->most)
        return pm_fail(err, PM_EINVAL, "unexpected argument \"%.80s\"; see %s --help",
                       given->items[usage->most], usage->name);
    return 0;
}

int pm_options_parse(const struct pm_usage *usage, int argc, char **argv, void *settings,
                     struct pm_arguments *out, struct pm_error *err)
{
    bool is_ended = false;
    int rc = 0;
    *out = (struct pm_arguments){.items = pm_xalloc(((size_t)argc + 1) * sizeof *out->items)};
    for (int i = 1; i < argc && !rc && !out->wants_help; i++) {
        const char *a = argv[i];
        if (is_ended || a[0] != '-' || !a[1])
            out->items[out->count++] = a;
        else if (!strcmp(a, "--"))
            is_ended = true;
        else if (!strcmp(a, "--help"))
            out->wants_help = true;
        else if (a[1] == '-')
            rc = take_long(usage, argc, argv, &i, settings, err);
        else
            rc = take_letters(usage, argc, argv, &i, settings, &out->wants_help, err);
    }
    return rc || out->wants_help ? rc : check_complete(usage, out, settings, err);
}

/* ---- help ---- */

static void indent_by(int n, FILE *out)
{
    fprintf(out, "%*s", n, "");
}

/* One paragraph, words filled up. Returns where it ended (NUL or the blank line's end). */
static const char *fill_paragraph(const char *p, int indent, int width, FILE *out)
{
    int column = 0;
    while (*p && !(p[0] == '\n' && (p[1] == '\n' || !p[1] || p[1] == ' '))) {
        size_t word = strcspn(p, " \n");
        if (word) {
            if (column && column + 1 + (int)word > width - indent) {
                fputc('\n', out);
                column = 0;
            }
            if (column)
                fputc(' ', out);
            else
                indent_by(indent, out);
            fwrite(p, 1, word, out);
            column += (int)word + (column > 0);
        }
        p += word;
        while (*p == ' ' || (*p == '\n' && p[1] != '\n' && p[1] != ' ' && p[1]))
            p++;
    }
    fputc('\n', out);
    return *p ? p + 1 : p;
}

void pm_options_fill(const char *text, int indent, int width, FILE *out)
{
    for (const char *p = text; *p;) {
        if (*p == '\n') {
            fputc('\n', out);
            p++;
        } else if (*p == ' ') {
            size_t n = strcspn(p, "\n");
            indent_by(indent, out);
            fwrite(p, 1, n, out);
            fputc('\n', out);
            p += n + (p[n] == '\n');
        } else {
            p = fill_paragraph(p, indent, width, out);
        }
    }
}

static void show_option(const struct pm_option *o, int width, FILE *out)
{
    fputs("       ", out);
    if (o->letter)
        fprintf(out, "-%c%s%s, ", o->letter, o->argument ? " " : "", o->argument ? o->argument : "");
    fprintf(out, "--%s%s%s\n", o->name, o->argument ? " " : "", o->argument ? o->argument : "");
    pm_options_fill(o->help, 14, width, out);
    fputc('\n', out);
}

int pm_options_width(int width)
{
    return width < 50 ? 50 : width > 100 ? 100 : width;
}

void pm_options_sections(const char *more, int width, FILE *out)
{
    for (const char *p = more; p && *p;) { /* "TITLE\n..." sections, split at form feeds */
        size_t title = strcspn(p, "\n"), body = strcspn(p, "\f");
        fwrite(p, 1, title, out);
        fputc('\n', out);
        char *text = pm_xstrndup(p + title + (p[title] == '\n'), body > title ? body - title - 1 : 0);
        pm_options_fill(text, 7, width, out);
        free(text);
        p += body + (p[body] == '\f');
        if (*p)
            fputc('\n', out);
    }
}

char *pm_options_synopsis(const struct pm_usage *usage)
{
    struct pm_buf text = {0};
    bool has_options = false;
    pm_buf_printf(&text, "%s", usage->name);
    for (size_t t = 0; usage->tables && usage->tables[t]; t++)
        for (const struct pm_option *o = usage->tables[t]; o->name; o++) {
            has_options = has_options || o->help;
            if (o->kind == PM_OPTION_NEED_TEXT)
                pm_buf_printf(&text, " --%s %s", o->name, o->argument);
        }
    pm_buf_printf(&text, "%s", has_options ? " [options]" : "");
    if (usage->arguments && *usage->arguments)
        pm_buf_printf(&text, " %s", usage->arguments);
    return (char *)text.data;
}

void pm_options_help(const struct pm_usage *usage, int width, FILE *out)
{
    width = pm_options_width(width);
    char *synopsis = pm_options_synopsis(usage);
    fprintf(out, "NAME\n       %s - %s\n\nSYNOPSIS\n       %s\n\nDESCRIPTION\n", usage->name, usage->summary,
            synopsis);
    free(synopsis);
    pm_options_fill(usage->about, 7, width, out);
    if (usage->tables) {
        fputs("\nOPTIONS\n", out);
        for (size_t t = 0; usage->tables[t]; t++)
            for (const struct pm_option *o = usage->tables[t]; o->name; o++)
                if (o->help)
                    show_option(o, width, out);
    } else {
        fputc('\n', out);
    }
    pm_options_sections(usage->more, width, out);
}
