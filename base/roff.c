#include "base/roff.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* n bytes of text: hyphens stay hyphens, `words` become bold, a dot cannot begin a request. */
static void put_text(const char *text, size_t n, FILE *out)
{
    bool is_bold = false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (c == '`') {
            is_bold = !is_bold;
            fputs(is_bold ? "\\fB" : "\\fR", out);
        } else if (c == '\\') {
            fputs("\\e", out);
        } else if (c == '-') {
            fputs("\\-", out);
        } else if ((c == '.' || c == '\'') && (i == 0 || text[i - 1] == '\n')) {
            fprintf(out, "\\&%c", c);
        } else {
            fputc(c, out);
        }
    }
}

/* Paragraphs as in pm_options_fill: blank lines separate, lines that begin with a blank stay as they are. */
void pm_roff_paragraphs(const char *text, FILE *out)
{
    bool is_literal = false, is_start = true;
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, "\n");
        bool is_blank = n == 0, is_kept = *p == ' ';
        if (is_kept && !is_literal)
            fputs(".PP\n.nf\n", out);
        if (!is_kept && is_literal)
            fputs(".fi\n", out);
        if (!is_kept && !is_blank && is_literal)
            fputs(".PP\n", out);
        is_literal = is_kept;
        if (is_blank && !is_start) {
            if (p[1] && p[1] != ' ' && p[1] != '\n')
                fputs(".PP\n", out);
        } else if (!is_blank) {
            put_text(p, n, out);
            fputc('\n', out);
        }
        is_start = false;
        p += n + (p[n] == '\n');
    }
    if (is_literal)
        fputs(".fi\n", out);
}

void pm_roff_sections(const char *more, FILE *out)
{
    for (const char *p = more; p && *p;) {
        size_t title = strcspn(p, "\n"), body = strcspn(p, "\f");
        fprintf(out, ".SH %.*s\n", (int)title, p);
        char *text = pm_xstrndup(p + title + (p[title] == '\n'), body > title ? body - title - 1 : 0);
        pm_roff_paragraphs(text, out);
        free(text);
        p += body + (p[body] == '\f');
    }
}

void pm_roff_title(const char *name, const struct pm_roff *page, FILE *out)
{
    fprintf(out, ".\\\" Made by `%s`; change the tables of the command instead.\n.TH ", page->made_by);
    for (const char *p = name; *p; p++)
        fputc(toupper((unsigned char)*p), out);
    fprintf(out, " %d \"\" \"Pagemill %s\" \"%s\"\n", page->section, PM_VERSION, page->manual);
}

static void put_option(const struct pm_option *o, FILE *out)
{
    fputs(".TP\n", out);
    if (o->letter) {
        fprintf(out, "\\fB\\-%c\\fR", o->letter);
        if (o->argument)
            fprintf(out, " \\fI%s\\fR", o->argument);
        fputs(", ", out);
    }
    fputs("\\fB\\-\\-", out);
    put_text(o->name, strlen(o->name), out);
    fputs("\\fR", out);
    if (o->argument)
        fprintf(out, " \\fI%s\\fR", o->argument);
    fputc('\n', out);
    put_text(o->help, strlen(o->help), out);
    fputc('\n', out);
}

void pm_roff_see_also(const char *pages, FILE *out)
{
    fputs(".SH SEE ALSO\n", out);
    for (const char *p = pages; *p;) {
        size_t n = strcspn(p, " "), name = strcspn(p, "(");
        fputs(".BR ", out);
        put_text(p, name, out);
        fprintf(out, " %.*s\n", (int)(n - name), p + name);
        p += n + strspn(p + n, " ");
    }
}

static void put_synopsis(const struct pm_usage *usage, FILE *out)
{
    bool has_options = false;
    fputs(".SH SYNOPSIS\n\\fB", out);
    put_text(usage->name, strlen(usage->name), out);
    fputs("\\fR", out);
    for (size_t t = 0; usage->tables && usage->tables[t]; t++)
        for (const struct pm_option *o = usage->tables[t]; o->name; o++) {
            has_options = has_options || o->help;
            if (o->kind != PM_OPTION_NEED_TEXT)
                continue;
            fputs(" \\fB\\-\\-", out);
            put_text(o->name, strlen(o->name), out);
            fprintf(out, "\\fR \\fI%s\\fR", o->argument);
        }
    if (has_options)
        fputs(" [\\fIoptions\\fR]", out);
    if (usage->arguments && *usage->arguments) {
        fputc(' ', out);
        put_text(usage->arguments, strlen(usage->arguments), out);
    }
    fputc('\n', out);
}

void pm_roff_page(const struct pm_usage *usage, const struct pm_roff *page, FILE *out)
{
    char *name = pm_xstrdup(usage->name); /* "pagemill parse" has the page pagemill-parse */
    for (char *p = name; *p; p++)
        *p = *p == ' ' ? '-' : *p;
    pm_roff_title(name, page, out);
    fputs(".SH NAME\n", out);
    put_text(name, strlen(name), out);
    fprintf(out, " \\- %s\n", usage->summary);
    put_synopsis(usage, out);
    fputs(".SH DESCRIPTION\n", out);
    pm_roff_paragraphs(usage->about, out);
    if (usage->tables)
        fputs(".SH OPTIONS\n", out);
    for (size_t t = 0; usage->tables && usage->tables[t]; t++)
        for (const struct pm_option *o = usage->tables[t]; o->name; o++)
            if (o->help)
                put_option(o, out);
    pm_roff_sections(usage->more, out);
    pm_roff_see_also(page->see_also, out);
    free(name);
}
