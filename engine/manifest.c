#include "engine/manifest.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/json.h"

#define MANIFEST             "pagemill.json"
#define MANIFEST_LIMIT_BYTES ((size_t)1 << 20)

static const char *const task_names[] = {"text", "table", "formula"};

static int want_text(const json_t *root, const char *path, const char *key, const char **out,
                     struct pm_error *err)
{
    const json_t *v = json_object_get(root, key);
    if (!json_is_string(v) || !json_string_length(v))
        return pm_fail(err, PM_EFORMAT, "%s: \"%s\" must be a text", path, key);
    *out = json_string_value(v);
    return 0;
}

static int read_tasks(const json_t *root, const char *path, unsigned *out, struct pm_error *err)
{
    const json_t *list = json_object_get(root, "tasks");
    if (!json_is_array(list) || !json_array_size(list))
        return pm_fail(err, PM_EFORMAT, "%s: \"tasks\" must be a list of text, table, formula", path);
    *out = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        unsigned bit = 0;
        for (unsigned t = 0; name && t < sizeof task_names / sizeof *task_names; t++)
            if (!strcmp(name, task_names[t]))
                bit = 1u << t;
        if (!bit)
            return pm_fail(err, PM_EFORMAT, "%s: unknown task \"%s\" in \"tasks\"", path, name ? name : "?");
        *out |= bit;
    }
    return 0;
}

static int fill(const json_t *root, const char *path, struct pm_model_manifest *out, struct pm_error *err)
{
    const char *name = "", *family = "", *region = "";
    int rc = want_text(root, path, "name", &name, err);
    if (!rc)
        rc = want_text(root, path, "family", &family, err);
    if (!rc)
        rc = want_text(root, path, "region", &region, err);
    if (!rc)
        rc = read_tasks(root, path, &out->tasks, err);
    if (rc)
        return rc;
    if (strcmp(region, "line") && strcmp(region, "block"))
        return pm_fail(err, PM_EFORMAT, "%s: \"region\" is \"line\" or \"block\", not \"%s\"", path, region);
    out->region_kind = strcmp(region, "line") ? PM_REGION_BLOCK : PM_REGION_LINE;
    out->name = pm_xstrdup(name);
    out->family = pm_xstrdup(family);
    return 0;
}

int pm_model_manifest_read(const char *dir, struct pm_model_manifest *out, struct pm_error *err)
{
    struct pm_buf text = {0};
    json_t *root = NULL;
    char *path = pm_fs_join(dir, MANIFEST);
    *out = (struct pm_model_manifest){0};
    int rc = pm_fs_read(path, MANIFEST_LIMIT_BYTES, &text, err);
    if (rc)
        goto out;
    pm_buf_append(&text, "", 1);
    rc = pm_json_object(path, (const char *)text.data, text.size - 1, &root, err);
    if (!rc)
        rc = fill(root, path, out, err);
    if (rc)
        goto out;
    out->dir = pm_xstrdup(dir);
    out->json = (char *)text.data;
    text = (struct pm_buf){0};
out:
    if (rc)
        pm_model_manifest_free(out);
    json_decref(root);
    pm_buf_free(&text);
    free(path);
    return rc;
}

void pm_model_manifest_free(struct pm_model_manifest *m)
{
    free(m->dir);
    free(m->name);
    free(m->family);
    free(m->json);
    *m = (struct pm_model_manifest){0};
}

int pm_model_file(const struct pm_model_manifest *manifest, const char *role, char **path_out,
                  struct pm_error *err)
{
    int rc = 0;
    *path_out = NULL;
    json_t *root = json_loads(manifest->json, JSON_REJECT_DUPLICATES, NULL);
    const char *file = json_string_value(json_object_get(json_object_get(root, "files"), role));
    if (!file || !*file || strchr(file, '/') || *file == '.')
        rc = pm_fail(err, PM_EFORMAT, "%s/%s: \"files\" must name a file of this folder as \"%s\"",
                     manifest->dir, MANIFEST, role);
    else
        *path_out = pm_fs_join(manifest->dir, file);
    json_decref(root);
    return rc;
}

/* Appends the model folders below one folder, sorted. */
static int list_folder(const char *folder, char ***dirs, size_t *count, struct pm_error *err)
{
    struct dirent **entries = NULL;
    int n = scandir(folder, &entries, NULL, alphasort);
    if (n < 0)
        return pm_fail_errno(err, "cannot look for models in %s", folder);
    *dirs = pm_xrealloc(*dirs, (*count + (size_t)n + 1) * sizeof **dirs);
    for (int i = 0; i < n; i++) {
        char *dir = pm_fs_join(folder, entries[i]->d_name), *path = pm_fs_join(dir, MANIFEST);
        char *config = pm_fs_join(dir, "config.json"); /* a checkpoint that is not packed: no model yet */
        if (entries[i]->d_name[0] != '.' && pm_fs_is_file(path) && !pm_fs_is_file(config)) {
            (*dirs)[(*count)++] = dir;
            dir = NULL;
        }
        free(config);
        free(dir);
        free(path);
        free(entries[i]);
    }
    free(entries);
    return 0;
}

int pm_model_list(const char *models, char ***dirs_out, size_t *count_out, struct pm_error *err)
{
    int rc = 0, looked = 0;
    char *copy = pm_xstrdup(models), *rest = copy, *folder;
    *dirs_out = NULL;
    *count_out = 0;
    while ((folder = strsep(&rest, ":"))) {
        struct pm_error one = {0};
        if (!*folder)
            continue;
        int bad = list_folder(folder, dirs_out, count_out, &one);
        looked += !bad;
        if (bad && !rc)
            rc = pm_fail(err, bad, "%s", one.text);
    }
    free(copy);
    /* A folder of several that is gone hides nothing of the others. */
    if (looked)
        return 0;
    return rc ? rc : pm_fail(err, PM_ENOTFOUND, "no folder of models is given");
}

static int find(const char *models, bool (*is_wanted)(const struct pm_model_manifest *, const char *),
                const char *what, const char *word, struct pm_model_manifest *out, struct pm_error *err)
{
    char **dirs;
    size_t count;
    *out = (struct pm_model_manifest){0};
    int rc = pm_model_list(models, &dirs, &count, err);
    if (rc)
        return rc;
    struct pm_buf seen = {0};
    struct pm_error problem = {0};
    bool is_found = false;
    pm_buf_text(&seen, "");
    for (size_t i = 0; i < count; i++) {
        struct pm_error one;
        int bad = is_found ? 0 : pm_model_manifest_read(dirs[i], out, &one);
        if (bad) {
            problem = one;
        } else if (!is_found && is_wanted(out, word)) {
            is_found = true;
        } else if (!is_found) {
            pm_buf_printf(&seen, "%s%s", seen.size ? ", " : "", out->name);
            pm_model_manifest_free(out);
        }
        free(dirs[i]);
    }
    free(dirs);
    if (!is_found && problem.code)
        rc = pm_fail(err, problem.code, "no usable model %s \"%s\": %s", what, word, problem.text);
    else if (!is_found)
        rc = pm_fail(err, PM_ENOTFOUND, "no model %s \"%s\" in %s (%s%s)", what, word, models,
                     seen.size ? "there is: " : "no model is there", seen.size ? (char *)seen.data : "");
    pm_buf_free(&seen);
    return rc;
}

static bool has_name(const struct pm_model_manifest *manifest, const char *name)
{
    return !strcmp(manifest->name, name);
}

static bool has_family(const struct pm_model_manifest *manifest, const char *family)
{
    return !strcmp(manifest->family, family);
}

int pm_model_find(const char *models, const char *name, struct pm_model_manifest *out, struct pm_error *err)
{
    return find(models, has_name, "for reader", name, out, err);
}

int pm_model_find_family(const char *models, const char *family, struct pm_model_manifest *out,
                         struct pm_error *err)
{
    return find(models, has_family, "of the family", family, out, err);
}
