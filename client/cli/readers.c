#include "client/cli/readers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/domains.h"
#include "base/host.h"
#include "base/mem.h"
#include "client/cli/private.h"
#include "engine/manifest.h"

#define WORKERS_MOST 1024

/* Where there are several memory domains: a worker in each, with as many threads as the smallest has cores.
 */
static void spread(struct pm_fleet_reader *reader)
{
    struct pm_domain domains[PM_DOMAINS_MOST];
    int count = pm_domains(domains), least = count ? domains[0].cores : 0;
    for (int i = 1; i < count; i++)
        least = domains[i].cores < least ? domains[i].cores : least;
    if (!count)
        return;
    reader->workers = (uint32_t)count;
    reader->threads = (uint32_t)least;
    reader->is_pinned = true;
}

int pm_readers_size(const char *models, struct pm_fleet_reader *reader, struct pm_error *err)
{
    struct pm_model_manifest model = {0};
    int rc = pm_model_find(models, reader->name, &model, err);
    if (rc == PM_ENOTFOUND && err) {
        struct pm_error found = *err;
        return pm_fail(err, PM_ENOTFOUND, "%s; `pagemill model add PATH --name %s` installs one", found.text,
                       reader->name);
    }
    if (rc)
        return rc;
    uint32_t cores = (uint32_t)pm_host_cores();
    if (model.region_kind == PM_REGION_BLOCK && !reader->workers && !reader->threads)
        spread(reader);
    if (!reader->threads)
        reader->threads = model.region_kind == PM_REGION_BLOCK && !reader->workers ? cores : 1;
    if (!reader->workers)
        reader->workers = cores > reader->threads ? cores / reader->threads : 1;
    pm_model_manifest_free(&model);
    return 0;
}

/* "NAME" or "NAME:WORKERS" */
static int parse_one(char *text, struct pm_fleet_reader *out, struct pm_error *err)
{
    char *colon = strchr(text, ':'), *end;
    if (colon) {
        *colon = 0;
        errno = 0;
        unsigned long n = strtoul(colon + 1, &end, 10);
        if (errno || end == colon + 1 || *end || n < 1 || n > WORKERS_MOST || colon[1] == '-')
            return pm_fail(err, PM_EINVAL, "reader %.64s: the number of workers is 1 to %d, not \"%.40s\"",
                           text, WORKERS_MOST, colon + 1);
        out->workers = (uint32_t)n;
    }
    if (!*text)
        return pm_fail(err, PM_EINVAL,
                       "a reader without a name: readers are NAME or NAME:WORKERS, "
                       "separated by commas");
    out->name = text;
    return 0;
}

int pm_readers_parse(const char *list, const char *models, uint32_t workers, uint32_t threads,
                     struct pm_readers *out, struct pm_error *err)
{
    *out = (struct pm_readers){.names = pm_xstrdup(list)};
    char *rest = out->names, *text;
    int rc = 0;
    while (!rc && (text = strsep(&rest, ","))) {
        if (out->count == PM_READERS_MOST)
            return pm_fail(err, PM_EINVAL, "a fleet runs %d readers at most", PM_READERS_MOST);
        struct pm_fleet_reader *r = &out->items[out->count];
        *r = (struct pm_fleet_reader){.workers = workers, .threads = threads};
        rc = parse_one(text, r, err);
        for (uint32_t i = 0; !rc && i < out->count; i++)
            if (!strcmp(out->items[i].name, r->name))
                rc = pm_fail(err, PM_EINVAL, "the reader %.64s is named twice", r->name);
        if (!rc)
            rc = pm_readers_size(models, r, err);
        out->count += !rc;
    }
    return rc;
}

void pm_readers_free(struct pm_readers *readers)
{
    free(readers->names);
    *readers = (struct pm_readers){0};
}

uint32_t pm_readers_layouts(const struct pm_fleet_reader *readers, uint32_t count)
{
    uint32_t most = 1;
    for (uint32_t i = 0; i < count; i++)
        most = readers[i].workers > most ? readers[i].workers : most;
    return pm_private_layouts(most);
}
