/* Settings: a YAML file read into a plain C struct by a table that says name, type, default, range and help.
 *
 *     broker:
 *       max_jobs: 10000        # key "broker.max_jobs"
 *       keep_results: 7d
 *     readers: [fast, glm-ocr]
 *
 * Nested maps give dotted keys. Every error names file, line and key; a key that the table does not know is
 * refused together with the nearest one that it does. Twice the same key, an alias, a second document or a
 * file over PM_CONFIG_MAX_BYTES is refused too. An empty value (or ~ or null) leaves the default.
 *
 * Ownership: texts and lists in the struct are allocated here; pm_config_free releases them. Threads: none;
 * one owner. Errors: PM_EINVAL for what the writer of the file should change, PM_ENOTFOUND, PM_EIO. */
#ifndef PM_BASE_CONFIG_H
#define PM_BASE_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/mem.h"

#define PM_CONFIG_MAX_BYTES (1u << 20)

struct pm_text_list {
    char **items;
    uint32_t count;
};

enum pm_setting_type {
    PM_SETTING_TEXT,     /* char *, never NULL after pm_config_defaults */
    PM_SETTING_CHOICE,   /* char *, one of `choices` */
    PM_SETTING_INT,      /* int64_t in low..high */
    PM_SETTING_REAL,     /* double in low..high */
    PM_SETTING_BOOL,     /* bool: true/false, yes/no, on/off */
    PM_SETTING_BYTES,    /* uint64_t: 4096, 512K, 2G (powers of 1024); range in bytes */
    PM_SETTING_DURATION, /* int64_t microseconds: 30 (seconds), 250ms, 5m, 2h, 7d; range in seconds */
    PM_SETTING_LIST,     /* struct pm_text_list: a YAML list; as text: commas between */
};
struct pm_setting {
    const char *name; /* "broker.max_jobs" */
    enum pm_setting_type type;
    size_t offset;
    const char *initial;        /* the default, written as in the file; NULL: empty, 0, false */
    double low, high;           /* range of numbers; both 0: any */
    const char *const *choices; /* CHOICE: NULL-terminated */
    const char *help;           /* one line */
};
struct pm_config_table {
    const struct pm_setting *settings;
    size_t count;
};

/* Sets every setting to its default. The struct's fields must be zero or set by this module before. */
int pm_config_defaults(const struct pm_config_table *table, void *settings, struct pm_error *err);
/* Reads a file over what is there. A key that is wrong leaves the settings read before it in place. */
int pm_config_read(const struct pm_config_table *table, const char *path, void *settings,
                   struct pm_error *err);
/* As pm_config_read, from memory; `file` is for messages. */
int pm_config_parse(const struct pm_config_table *table, const char *file, const void *text, size_t bytes,
                    void *settings, struct pm_error *err);
/* One setting from outside the file: a command line's KEY=VALUE. */
int pm_config_set(const struct pm_config_table *table, const char *key, const char *value, void *settings,
                  struct pm_error *err);
void pm_config_free(const struct pm_config_table *table, void *settings);

/* Appends a YAML file of all defaults, each with its help and range as a comment. */
void pm_config_example(const struct pm_config_table *table, struct pm_buf *out);

#endif
