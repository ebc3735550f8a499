/* Command-line options from tables: one table parses, renders --help and the manual page (base/roff.h), and
 * finds the word that was meant.
 *
 * Options may stand anywhere among the arguments; "--" ends them; "--name=value", "--name value", "-n value"
 * and "-nvalue" are the same; "-" is an argument. Values land in a settings struct at the option's offset.
 * An option without a help text is parsed and not shown.
 * Ownership: texts are borrowed from argv. Threads: pure functions. Errors: PM_EINVAL with a hint. */
#ifndef PM_BASE_OPTIONS_H
#define PM_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

enum pm_option_kind {
    PM_OPTION_FLAG,      /* bool = true */
    PM_OPTION_TEXT,      /* const char * */
    PM_OPTION_NEED_TEXT, /* const char * that must be given: NULL in the settings before */
    PM_OPTION_UINT,      /* uint32_t in low..high */
    PM_OPTION_DECIMAL,   /* float in low..high */
    PM_OPTION_LOG_LEVEL, /* enum pm_log_level */
};
struct pm_option {
    const char *name;
    char letter; /* 0: none */
    enum pm_option_kind kind;
    const char *argument; /* shown in help: "DIR" */
    const char *help;     /* filled to the width; NULL: a hidden option */
    size_t offset;
    uint32_t low, high;
};
#define PM_OPTION_END                                                                                        \
    {                                                                                                        \
        0                                                                                                    \
    }

/* A program, or one command of a program. */
struct pm_usage {
    const char *name;      /* as typed: "pagemill parse" */
    const char *arguments; /* "FILE...": shown in the synopsis; may be NULL */
    const char *summary;   /* one line */
    const char
        *about; /* paragraphs separated by blank lines; lines that start with a blank stay as they are */
    const char *more;                      /* further sections: "TITLE\n" paragraphs; may be NULL */
    const struct pm_option *const *tables; /* NULL-terminated list of tables, each ended by PM_OPTION_END */
    uint32_t least, most;                  /* positional arguments */
};

struct pm_arguments { /* free(items) */
    const char **items;
    size_t count;
    bool wants_help;
};

/* argv[0] is not looked at. settings: the struct that the offsets belong to. */
int pm_options_parse(const struct pm_usage *usage, int argc, char **argv, void *settings,
                     struct pm_arguments *out, struct pm_error *err);
/* The synopsis: name, options that are needed, "[options]", arguments. Caller frees. */
char *pm_options_synopsis(const struct pm_usage *usage);
/* Like a man page, for a terminal of `width` columns. */
void pm_options_help(const struct pm_usage *usage, int width, FILE *out);
/* The one of `words` (NULL-terminated) nearest to a mistyped word; NULL when none is near. */
const char *pm_options_nearest(const char *word, const char *const *words);

/* Paragraphs filled to width with an indent: for help texts. */
void pm_options_fill(const char *text, int indent, int width, FILE *out);
/* The sections of pm_usage.more. */
void pm_options_sections(const char *more, int width, FILE *out);
int pm_options_width(int width); /* of a terminal: kept to what reads well */

#endif
