/* Any bytes as a settings file: read or refused with a line number, never more. */
#include <stdlib.h>
#include <string.h>

#include "base/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct settings {
    char *name;
    int64_t jobs, keep_us;
    struct pm_text_list readers;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct pm_setting rows[] = {
        {.name = "name", .type = PM_SETTING_TEXT, .offset = offsetof(struct settings, name)},
        {.name = "b.jobs", .type = PM_SETTING_INT, .offset = offsetof(struct settings, jobs), .high = 9},
        {.name = "b.keep", .type = PM_SETTING_DURATION, .offset = offsetof(struct settings, keep_us)},
        {.name = "r", .type = PM_SETTING_LIST, .offset = offsetof(struct settings, readers)},
    };
    const struct pm_config_table table = {rows, sizeof rows / sizeof rows[0]};
    struct settings s = {0};
    struct pm_error err = {0};
    if (pm_config_defaults(&table, &s, &err))
        abort();
    if (pm_config_parse(&table, "f", data, size, &s, &err) && strncmp(err.text, "f:", 2))
        abort();
    pm_config_free(&table, &s);
    return 0;
}
