/* Which readers a fleet runs, and with how many processes and threads each.
 *
 * A reader of lines gets a single-threaded worker a core. A reader of blocks streams all its weights for
 * every token, once for all regions that are written together, so it gets one worker on all cores, or, where
 * groups of cores have a way to memory each (base/domains.h), one in each group.
 *
 * Threads: reentrant. Errors: PM_EINVAL for a list that is none, PM_ENOTFOUND for a reader without a model;
 * the texts say how to install one. */
#ifndef PM_CLIENT_CLI_READERS_H
#define PM_CLIENT_CLI_READERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct pm_fleet_reader {
    const char *name;          /* borrowed */
    uint32_t workers, threads; /* threads: of one worker */
    bool is_pinned;            /* worker i runs on the cores of domain i */
};

/* Looks for the model and fills what is 0 from the machine. */
int pm_readers_size(const char *models, struct pm_fleet_reader *reader, struct pm_error *err);

#define PM_READERS_MOST 16
struct pm_readers {
    char *names; /* what the items borrow */
    struct pm_fleet_reader items[PM_READERS_MOST];
    uint32_t count;
};
/* "fast", "fast,glm-ocr", "fast:6,glm-ocr:1". workers and threads: of readers that say nothing themselves;
 * 0: from the machine. Free it, also after an error. */
int pm_readers_parse(const char *list, const char *models, uint32_t workers, uint32_t threads,
                     struct pm_readers *out, struct pm_error *err);
void pm_readers_free(struct pm_readers *readers);
/* The layout processes that suit them. */
uint32_t pm_readers_layouts(const struct pm_fleet_reader *readers, uint32_t count);

#endif
