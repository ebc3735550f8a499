/* The manifest of a model folder, pagemill.json: which family runs it, what kind of region it wants, which
 * tasks it has.
 *
 *   { "name": "fast", "family": "ppocr", "region": "line", "tasks": ["text"], ... family's own keys ... }
 *
 * Models live in a folder of folders: MODELS/ppocr/pagemill.json. A reader is named by the manifest's "name".
 * Where this header says `models`, it takes several such folders, separated by ':', searched in this order:
 * what a user added, then what came with the program. The first model of a name counts.
 *
 * Ownership: the caller's; release with pm_model_manifest_free. Threads: reentrant. */
#ifndef PM_ENGINE_MANIFEST_H
#define PM_ENGINE_MANIFEST_H

#include "base/error.h"
#include "engine/reader.h"

struct pm_model_manifest {
    char *dir;    /* the model folder */
    char *name;   /* reader name */
    char *family; /* "ppocr", ... */
    enum pm_region_kind region_kind;
    unsigned tasks; /* 1 << enum pm_task */
    char *json;     /* the whole file, NUL-terminated, for the family */
};

/* The model folders, sorted within each folder of models; checkpoints that are not packed are none. One that
 * cannot be read is passed over unless none can. Caller frees each and the list. */
int pm_model_list(const char *models, char ***dirs_out, size_t *count_out, struct pm_error *err);
/* Reads DIR/pagemill.json. PM_ENOTFOUND, PM_EFORMAT (file and key named). */
int pm_model_manifest_read(const char *dir, struct pm_model_manifest *out, struct pm_error *err);
void pm_model_manifest_free(struct pm_model_manifest *manifest);
/* The path of the file that it names under "files": role; caller frees. A file of the model folder, always.
 */
int pm_model_file(const struct pm_model_manifest *manifest, const char *role, char **path_out,
                  struct pm_error *err);

/* Finds the model of that reader name; PM_ENOTFOUND lists the names that are there. */
int pm_model_find(const char *models, const char *name, struct pm_model_manifest *out, struct pm_error *err);
/* The first model of that family ("ppocr": layout detection works with its networks). */
int pm_model_find_family(const char *models, const char *family, struct pm_model_manifest *out,
                         struct pm_error *err);

#endif
