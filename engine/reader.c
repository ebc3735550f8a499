#include "engine/reader.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "engine/manifest.h"
#include "engine/ppocr/reader.h"

/* Every family that this engine can run, by the manifest's "family". */
static const struct pm_reader_family *const families[] = {&pm_ppocr_reader, &pm_glm_ocr_reader};

struct pm_reader {
    const struct pm_reader_family *family;
    void *state;
    struct pm_model_manifest manifest;
    struct pm_reader_info info;
};

int pm_reader_open(const struct pm_reader_config *config, struct pm_reader **out, struct pm_error *err)
{
    *out = NULL;
    if (!config->model_dir || config->threads < 1 || config->max_running < 1)
        return pm_fail(err, PM_EINVAL,
                       "a reader needs a model folder, at least 1 thread and room for 1 request");
    struct pm_reader *r = pm_xalloc(sizeof *r);
    int rc = pm_model_manifest_read(config->model_dir, &r->manifest, err);
    for (size_t i = 0; !rc && i < sizeof families / sizeof *families; i++)
        if (!strcmp(families[i]->name, r->manifest.family))
            r->family = families[i];
    if (!rc && !r->family)
        rc = pm_fail(err, PM_EUNSUPPORTED, "%s: family \"%s\" is not one that this program can run",
                     config->model_dir, r->manifest.family);
    r->info = (struct pm_reader_info){.name = r->manifest.name,
                                      .family = r->manifest.family,
                                      .region_kind = r->manifest.region_kind,
                                      .tasks = r->manifest.tasks};
    if (!rc)
        rc = r->family->open(config, r->manifest.json, &r->state, &r->info, err);
    if (rc)
        pm_reader_free(&r);
    *out = r;
    return rc;
}

void pm_reader_free(struct pm_reader **reader)
{
    struct pm_reader *r = *reader;
    if (!r)
        return;
    if (r->state)
        r->family->free(r->state);
    pm_model_manifest_free(&r->manifest);
    free(r);
    *reader = NULL;
}

struct pm_reader_info pm_reader_info(const struct pm_reader *reader)
{
    return reader->info;
}

int pm_reader_room(const struct pm_reader *reader)
{
    return reader->family->room(reader->state);
}

int pm_reader_admit(struct pm_reader *reader, const struct pm_reader_request *request, struct pm_error *err)
{
    if ((unsigned)request->task > PM_TASK_FORMULA || !(reader->info.tasks & 1u << request->task))
        return pm_fail(err, PM_EINVAL, "reader %s does not have task %d", reader->info.name,
                       (int)request->task);
    return reader->family->admit(reader->state, request, err);
}

int pm_reader_cancel(struct pm_reader *reader, uint64_t id, struct pm_error *err)
{
    return reader->family->cancel(reader->state, id, err);
}

int pm_reader_step(struct pm_reader *reader, const struct pm_reader_event **events_out, size_t *count_out,
                   struct pm_error *err)
{
    *events_out = NULL;
    *count_out = 0;
    return reader->family->step(reader->state, events_out, count_out, err);
}

int pm_reader_running(const struct pm_reader *reader)
{
    return reader->family->running(reader->state);
}

struct pm_reader_counters pm_reader_counters(const struct pm_reader *reader)
{
    return reader->family->counters ? reader->family->counters(reader->state)
                                    : (struct pm_reader_counters){0};
}
