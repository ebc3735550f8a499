/* The options that parse and submit share: what to read and what to write. */
#ifndef PM_CLIENT_CLI_READ_OPTIONS_H
#define PM_CLIENT_CLI_READ_OPTIONS_H

#include "client/cli/batch.h"

struct pm_read_options {
    const char *out, *format, *pages, *password, *password_file, *reader, *drop, *files_from, *whole;
    uint32_t dpi, timeout_s, max_tokens, region_timeout_s, seed, deadline_s;
    float temperature, repetition_penalty;
    bool to_stdout, no_save, is_quiet, no_orientation, no_deskew, no_images;
    char *password_read; /* owned: of password_file */
};

#define PM_READ_OPTIONS(type, m)                                                                               \
    {"output",                                                                                                 \
     'o',                                                                                                      \
     PM_OPTION_TEXT,                                                                                           \
     "OUT",                                                                                                    \
     "The folder for results, made when missing. Default: output; with --stdout: nothing is written.",         \
     offsetof(type, m.out),                                                                                    \
     0,                                                                                                        \
     0},                                                                                                       \
        {"format",                                                                                             \
         'f',                                                                                                  \
         PM_OPTION_TEXT,                                                                                       \
         "LIST",                                                                                               \
         "What to write, separated by commas: md (Markdown), json, txt. Default: md,json.",                    \
         offsetof(type, m.format),                                                                             \
         0,                                                                                                    \
         0},                                                                                                   \
        {"stdout",                                                                                             \
         0,                                                                                                    \
         PM_OPTION_FLAG,                                                                                       \
         NULL,                                                                                                 \
         "Print each document (its first format) on standard output, in input order.",                         \
         offsetof(type, m.to_stdout),                                                                          \
         0,                                                                                                    \
         0},                                                                                                   \
        {"no-save", 0, PM_OPTION_FLAG, NULL, "Write no files.", offsetof(type, m.no_save), 0, 0},              \
        {"pages",                                                                                              \
         'p',                                                                                                  \
         PM_OPTION_TEXT,                                                                                       \
         "LIST",                                                                                               \
         "Only these pages, counted from 1: \"1-20,31\", \"3-\".",                                             \
         offsetof(type, m.pages),                                                                              \
         0,                                                                                                    \
         0},                                                                                                   \
        {"password",                                                                                           \
         0,                                                                                                    \
         PM_OPTION_TEXT,                                                                                       \
         "TEXT",                                                                                               \
         "For encrypted PDFs. Other users can see a command line: --password-file is safer.",                  \
         offsetof(type, m.password),                                                                           \
         0,                                                                                                    \
         0},                                                                                                   \
        {"password-file",                                                                                      \
         0,                                                                                                    \
         PM_OPTION_TEXT,                                                                                       \
         "FILE",                                                                                               \
         "Take the password from the first line of this file.",                                                \
         offsetof(type, m.password_file),                                                                      \
         0,                                                                                                    \
         0},                                                                                                   \
        {"dpi",                                                                                                \
         0,                                                                                                    \
         PM_OPTION_UINT,                                                                                       \
         "N",                                                                                                  \
         "Resolution at which PDF pages are drawn. Default: 200.",                                             \
         offsetof(type, m.dpi),                                                                                \
         36,                                                                                                   \
         1200},                                                                                                \
        {"reader",                                                                                             \
         'r',                                                                                                  \
         PM_OPTION_TEXT,                                                                                       \
         "NAME",                                                                                               \
         "The model that reads. Default: fast.",                                                               \
         offsetof(type, m.reader),                                                                             \
         0,                                                                                                    \
         0},                                                                                                   \
        {"drop",                                                                                               \
         0,                                                                                                    \
         PM_OPTION_TEXT,                                                                                       \
         "LABELS",                                                                                             \
         "Leave regions of these labels out of the output, separated by commas: header,footer,number.",        \
         offsetof(type, m.drop),                                                                               \
         0,                                                                                                    \
         0},                                                                                                   \
        {"no-orientation",                                                                                     \
         0,                                                                                                    \
         PM_OPTION_FLAG,                                                                                       \
         NULL,                                                                                                 \
         "Do not turn pages upright.",                                                                         \
         offsetof(type, m.no_orientation),                                                                     \
         0,                                                                                                    \
         0},                                                                                                   \
        {"no-deskew", 0, PM_OPTION_FLAG, NULL, "Do not straighten pages.", offsetof(type, m.no_deskew), 0, 0}, \
        {"no-images", 0, PM_OPTION_FLAG, NULL, "Do not cut pictures out.", offsetof(type, m.no_images), 0, 0}, \
        {"files-from",                                                                                         \
         0,                                                                                                    \
         PM_OPTION_TEXT,                                                                                       \
         "LIST",                                                                                               \
         "Also read the files and folders named in this file, one a line; \"-\" is standard input.",           \
         offsetof(type, m.files_from),                                                                         \
         0,                                                                                                    \
         0},                                                                                                   \
        {"timeout",                                                                                            \
         0,                                                                                                    \
         PM_OPTION_UINT,                                                                                       \
         "SECONDS",                                                                                            \
         "Give up what is not finished after this time.",                                                      \
         offsetof(type, m.timeout_s),                                                                          \
         1,                                                                                                    \
         100000000},                                                                                           \
        {"whole",                                                                                              \
         0,                                                                                                    \
         PM_OPTION_TEXT,                                                                                       \
         "TASK",                                                                                               \
         "Readers of blocks: no layout, each page is one text, table or formula.",                             \
         offsetof(type, m.whole),                                                                              \
         0,                                                                                                    \
         0},                                                                                                   \
        {"max-tokens",                                                                                         \
         0,                                                                                                    \
         PM_OPTION_UINT,                                                                                       \
         "N",                                                                                                  \
         "Readers that write token by token: most tokens of one region's text. Default: the model's limit.",   \
         offsetof(type, m.max_tokens),                                                                         \
         1,                                                                                                    \
         1000000},                                                                                             \
        {"temperature",                                                                                        \
         0,                                                                                                    \
         PM_OPTION_DECIMAL,                                                                                    \
         "X",                                                                                                  \
         "Readers that write token by token: choose tokens by chance, the more the higher. Default: 0, "       \
         "always the likeliest.",                                                                              \
         offsetof(type, m.temperature),                                                                        \
         0,                                                                                                    \
         10},                                                                                                  \
        {"seed",                                                                                               \
         0,                                                                                                    \
         PM_OPTION_UINT,                                                                                       \
         "N",                                                                                                  \
         "With --temperature: the same number gives the same text. Default: 0.",                               \
         offsetof(type, m.seed),                                                                               \
         0,                                                                                                    \
         UINT32_MAX},                                                                                          \
        {"repetition-penalty",                                                                                 \
         0,                                                                                                    \
         PM_OPTION_DECIMAL,                                                                                    \
         "X",                                                                                                  \
         "Readers that write token by token: make tokens that are there already less likely; 1.1 is usual "    \
         "elsewhere, and harms tables. Default: 1, none.",                                                     \
         offsetof(type, m.repetition_penalty),                                                                 \
         0,                                                                                                    \
         10},                                                                                                  \
        {"region-timeout",                                                                                     \
         0,                                                                                                    \
         PM_OPTION_UINT,                                                                                       \
         "SECONDS",                                                                                            \
         "Give up a region that takes longer. Default: the fleet's limit.",                                    \
         offsetof(type, m.region_timeout_s),                                                                   \
         1,                                                                                                    \
         1000000},                                                                                             \
        {"deadline",                                                                                           \
         0,                                                                                                    \
         PM_OPTION_UINT,                                                                                       \
         "SECONDS",                                                                                            \
         "A document that has not been read so long after it was accepted fails; what was read of it is "      \
         "kept for a retry. Default: none.",                                                                   \
         offsetof(type, m.deadline_s),                                                                         \
         1,                                                                                                    \
         100000000},                                                                                           \
    {                                                                                                          \
        "quiet", 'q', PM_OPTION_FLAG, NULL, "No progress and no summary; only errors.",                        \
            offsetof(type, m.is_quiet), 0, 0                                                                   \
    }

/* Checks the options and gathers the inputs. -1 to go on, else the exit code (it has complained). */
int pm_read_prepare(const struct pm_command *command, struct pm_read_options *options,
                    const struct pm_arguments *arguments, struct pm_batch_config *config_out,
                    struct pm_intake *intake_out);
void pm_read_free(struct pm_read_options *options);
/* True when not one input can be read: complains about each, so that no fleet is started for nothing. */
bool pm_read_is_hopeless(struct pm_intake *intake);
/* "md,json,txt" and nothing else, each once; PM_EINVAL. */
int pm_read_check_formats(const char *formats, struct pm_error *err);

#endif
