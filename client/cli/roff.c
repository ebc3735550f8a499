#include "client/cli/roff.h"

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
static void put_paragraphs(const char *text, FILE *out)
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

static void put_sections(const char *more, FILE *out)
{
    for (const char *p = more; p && *p;) {
        size_t title = strcspn(p, "\n"), body = strcspn(p, "\f");
        fprintf(out, ".SH %.*s\n", (int)title, p);
        char *text = pm_xstrndup(p + title + (p[title] == '\n'), body > title ? body - title - 1 : 0);
        put_paragraphs(text, out);
        free(text);
        p += body + (p[body] == '\f');
    }
}

static void put_title(const char *name, FILE *out)
{
    fputs(".\\\" Made by `pagemill help --roff`; change the tables of the command instead.\n.TH ", out);
    for (const char *p = name; *p; p++)
        fputc(toupper((unsigned char)*p), out);
    fprintf(out, " 1 \"\" \"Pagemill %s\" \"User Commands\"\n", PM_VERSION);
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

void pm_roff_command(const struct pm_command *command, FILE *out)
{
    char *name = pm_xprintf("pagemill-%s", command->name);
    put_title(name, out);
    fprintf(out, ".SH NAME\npagemill\\-%s \\- %s\n.SH SYNOPSIS\n\\fBpagemill %s\\fR", command->name,
            command->summary, command->name);
    if (command->tables)
        fputs(" [\\fIoptions\\fR]", out);
    if (command->arguments && *command->arguments) {
        fputc(' ', out);
        put_text(command->arguments, strlen(command->arguments), out);
    }
    fputs("\n.SH DESCRIPTION\n", out);
    put_paragraphs(command->about, out);
    if (command->tables) {
        fputs(".SH OPTIONS\n", out);
        for (size_t t = 0; command->tables[t]; t++)
            for (const struct pm_option *o = command->tables[t]; o->name; o++)
                put_option(o, out);
    }
    put_sections(command->more, out);
    fputs(".SH SEE ALSO\n.BR pagemill (1)\n", out);
    free(name);
}

void pm_roff_program(const char *about, const char *more, const struct pm_command *const *commands, FILE *out)
{
    put_title("pagemill", out);
    fputs(".SH NAME\npagemill \\- read documents on ordinary processors\n.SH SYNOPSIS\n"
          "\\fBpagemill\\fR \\fICOMMAND\\fR [\\fIoptions\\fR] [\\fIarguments\\fR]\n.SH DESCRIPTION\n",
          out);
    put_paragraphs(about, out);
    fputs(".SH COMMANDS\n", out);
    for (size_t i = 0; commands[i]; i++)
        fprintf(out, ".TP\n.BR pagemill\\-%s (1)\n%s\n", commands[i]->name, commands[i]->summary);
    put_sections(more, out);
    fputs(
        ".SH SEE ALSO\n.BR pagemill\\-broker (8),\n.BR pagemill\\-layoutd (8),\n.BR pagemill\\-decode (8),\n"
        ".BR pagemill\\-worker (8),\n.BR pagemill\\-collector (8)\n",
        out);
}
