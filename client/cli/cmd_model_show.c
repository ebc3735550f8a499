/* pagemill model list, show, verify: what looks at models. */
#include "client/cli/cmd_model.h"

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/mem.h"
#include "client/cli/cli.h"
#include "client/cli/locate.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "engine/manifest.h"
#include "engine/pack.h"
#include "engine/vlm/model.h"

static int complain(const struct pm_error *err)
{
    pm_cli_error("%s", err->text);
    return PM_EXIT_FAILED;
}

static bool is_packed(const char *name)
{
    size_t n = strlen(name);
    return name[0] != '.' && n > 4 && !strcmp(name + n - 4, ".pmw");
}

static uint64_t folder_bytes(const char *dir)
{
    uint64_t bytes = 0;
    DIR *folder = opendir(dir);
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        struct stat file;
        char *path = pm_fs_join(dir, entry->d_name);
        if (!stat(path, &file) && S_ISREG(file.st_mode))
            bytes += (uint64_t)file.st_size;
        free(path);
    }
    if (folder)
        closedir(folder);
    return bytes;
}

/* ---- what is known of a model, as JSON ---- */

static json_t *object_of(const json_t *parent, const char *key)
{
    json_t *value = json_object_get(parent, key);
    return json_is_object(value) ? value : NULL;
}

/* Sizes by the words of the engine. */
static json_t *sizes_of(const struct pm_vlm_config *c)
{
    const struct pm_vision_config *v = &c->vision;
    const struct pm_text_config *t = &c->text;
    return json_pack("{s:{s:i,s:i,s:i,s:i,s:i,s:i}, s:{s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i}}", "vision",
                     "layers", v->depth, "hidden", v->hidden, "intermediate", v->intermediate, "heads",
                     v->heads, "patch", v->patch, "merge", v->merge, "text", "layers", t->layers,
                     "extra_layers", t->mtp_layers, "hidden", t->hidden, "intermediate", t->intermediate,
                     "heads", t->heads, "kv_heads", t->kv_heads, "head_dim", t->head_dim, "vocabulary",
                     t->vocab, "positions", t->max_positions);
}

/* The meta text of a language model's weights: precision, sizes, source. */
static void add_meta(json_t *out, const char *text)
{
    struct pm_vlm_config config;
    json_t *meta = json_loads(text, 0, NULL), *source = object_of(meta, "source");
    char *json = object_of(meta, "config") ? json_dumps(json_object_get(meta, "config"), 0) : NULL;
    if (json_object_get(meta, "precision"))
        json_object_set(out, "precision", json_object_get(meta, "precision"));
    if (json && !pm_glm_ocr_config(json, NULL, NULL, &config, NULL))
        json_object_set_new(out, "sizes", sizes_of(&config));
    if (source && json_object_get(source, "parameters")) {
        json_object_set(out, "parameters", json_object_get(source, "parameters"));
        json_object_del(source, "parameters");
    }
    if (source)
        json_object_set(out, "source", source);
    free(json);
    json_decref(meta);
}

/* Adds the weight files of the folder, and what they say of themselves. */
static int add_weights(json_t *out, const char *dir, struct pm_error *err)
{
    struct dirent **entries = NULL;
    int rc = 0, n = scandir(dir, &entries, NULL, alphasort);
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        struct pm_pack *pack = NULL;
        char *path = pm_fs_join(dir, entries[i]->d_name);
        if (!rc && is_packed(entries[i]->d_name) && !(rc = pm_pack_open(path, &pack, err))) {
            struct stat file;
            json_array_append_new(list,
                                  json_pack("{s:s, s:I, s:I}", "file", entries[i]->d_name, "bytes",
                                            stat(path, &file) ? (json_int_t)0 : (json_int_t)file.st_size,
                                            "tensors", (json_int_t)pm_pack_count(pack)));
            add_meta(out, pm_pack_meta(pack));
        }
        pm_pack_free(&pack);
        free(path);
        free(entries[i]);
    }
    free(entries);
    json_object_set_new(out, "weights", list);
    return rc;
}

/* What the weights say that the model computes in; "?" when they cannot be opened: show and verify say why.
 */
static void add_precision(json_t *out, const char *dir)
{
    json_t *weights = json_object();
    const char *precision = "?";
    if (!add_weights(weights, dir, NULL))
        precision = json_string_value(json_object_get(weights, "precision"));
    json_object_set_new(out, "precision", json_string(precision ? precision : "f32")); /* ppocr: f32 alone */
    json_decref(weights);
}

static json_t *describe(const struct pm_model_manifest *m, bool has_details, struct pm_error *err)
{
    static const char *const keys[] = {"tasks", "prompts", "description", "script", "licence"};
    json_t *out = json_pack("{s:s, s:s, s:s}", "name", m->name, "family", m->family, "region",
                            m->region_kind == PM_REGION_LINE ? "line" : "block");
    json_t *manifest = json_loads(m->json, 0, NULL);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (json_object_get(manifest, keys[i]))
            json_object_set(out, keys[i], json_object_get(manifest, keys[i]));
    json_decref(manifest);
    json_object_set_new(out, "bytes", json_integer((json_int_t)folder_bytes(m->dir)));
    json_object_set_new(out, "folder", json_string(m->dir));
    if (has_details && add_weights(out, m->dir, err)) {
        json_decref(out);
        return NULL;
    }
    return out;
}

static void print_json(const json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(2));
    printf("%s\n", text ? text : "null");
    free(text);
}

/* ---- list ---- */

static bool is_named(const json_t *list, const char *name)
{
    size_t i;
    json_t *one;
    json_array_foreach(list, i,
                       one) if (!strcmp(json_string_value(json_object_get(one, "name")), name)) return true;
    return false;
}

int pm_cli_model_list(const struct pm_model_settings *s)
{
    struct pm_error err;
    size_t count = 0;
    char **dirs = NULL, *models = NULL;
    int code = PM_EXIT_OK;
    json_t *list = json_array();
    if (pm_locate_models(s->models, &models, &err) || pm_model_list(models, &dirs, &count, &err))
        code = complain(&err);
    for (size_t i = 0; i < count; i++) {
        struct pm_model_manifest m;
        if (pm_model_manifest_read(dirs[i], &m, &err)) {
            code = complain(&err);
        } else {
            json_t *one = describe(&m, false, &err);
            bool is_hidden = is_named(list, m.name);
            add_precision(one, m.dir);
            if (!s->is_json)
                printf("%-16s %-10s %-6s %-4s %8.1f MB  %s%s\n", m.name, m.family,
                       m.region_kind == PM_REGION_LINE ? "lines" : "blocks",
                       json_string_value(json_object_get(one, "precision")),
                       json_number_value(json_object_get(one, "bytes")) / 1e6, m.dir,
                       is_hidden ? " (hidden: another of this name comes first)" : "");
            json_array_append_new(list, one);
            pm_model_manifest_free(&m);
        }
        free(dirs[i]);
    }
    if (s->is_json)
        print_json(list);
    else if (!count && !code)
        pm_cli_error("there are no models in %s", models);
    json_decref(list);
    free(dirs);
    free(models);
    return code;
}

/* ---- show ---- */

static int find(const struct pm_model_settings *s, const char *name, struct pm_model_manifest *out,
                struct pm_error *err)
{
    char *models = NULL;
    int rc = pm_locate_models(s->models, &models, err);
    if (!rc)
        rc = pm_model_find(models, name, out, err);
    free(models);
    return rc;
}

static void print_text(const char *label, const json_t *value)
{
    char text[1024];
    if (!json_is_string(value))
        return;
    snprintf(text, sizeof text, "%s", json_string_value(value));
    pm_sanitize_text(text);
    printf("%-12s %s\n", label, text);
}

static int number_of(const json_t *object, const char *key)
{
    return (int)json_integer_value(json_object_get(object, key));
}

static void print_sizes(const json_t *sizes)
{
    const json_t *v = json_object_get(sizes, "vision"), *t = json_object_get(sizes, "text");
    if (!sizes)
        return;
    printf("%-12s %d layers of %d, %d heads, patches of %d, %d x %d of them a token\n", "vision",
           number_of(v, "layers"), number_of(v, "hidden"), number_of(v, "heads"), number_of(v, "patch"),
           number_of(v, "merge"), number_of(v, "merge"));
    printf("%-12s %d layers of %d%s, %d heads over %d of %d, vocabulary %d\n", "text", number_of(t, "layers"),
           number_of(t, "hidden"), number_of(t, "extra_layers") ? " and one for drafts" : "",
           number_of(t, "heads"), number_of(t, "kv_heads"), number_of(t, "head_dim"),
           number_of(t, "vocabulary"));
}

static void print_tasks(const json_t *model)
{
    size_t i;
    json_t *task;
    json_array_foreach(json_object_get(model, "tasks"), i, task)
    {
        const char *name = json_string_value(task);
        const json_t *prompt = name ? json_object_get(json_object_get(model, "prompts"), name) : NULL;
        char text[256];
        snprintf(text, sizeof text, "%s%s%s%s", name ? name : "?", prompt ? ": \"" : "",
                 prompt ? json_string_value(prompt) : "", prompt ? "\"" : "");
        pm_sanitize_text(text);
        printf("%-12s %s\n", i ? "" : "tasks", text);
    }
}

static void print_model(const json_t *model)
{
    size_t i;
    json_t *file;
    const json_t *source = json_object_get(model, "source");
    print_text("name", json_object_get(model, "name"));
    print_text("family", json_object_get(model, "family"));
    print_text("about", json_object_get(model, "description"));
    print_text("reads", json_object_get(model, "region"));
    print_text("script", json_object_get(model, "script"));
    print_tasks(model);
    print_text("precision", json_object_get(model, "precision"));
    print_sizes(json_object_get(model, "sizes"));
    if (json_object_get(model, "parameters"))
        printf("%-12s %.1f million\n", "parameters",
               json_number_value(json_object_get(model, "parameters")) / 1e6);
    json_array_foreach(json_object_get(model, "weights"), i, file)
        printf("%-12s %s: %.1f MB, %d tensors\n", i ? "" : "weights",
               json_string_value(json_object_get(file, "file")),
               json_number_value(json_object_get(file, "bytes")) / 1e6, number_of(file, "tensors"));
    if (source) {
        const char *path = json_string_value(json_object_get(source, "path")),
                   *format = json_string_value(json_object_get(source, "format")),
                   *stored = json_string_value(json_object_get(source, "stored"));
        json_t *text =
            json_sprintf("%s (%s, %s)", path ? path : "?", format ? format : "?", stored ? stored : "?");
        print_text("made of", text);
        json_decref(text);
    }
    print_text("licence", json_object_get(model, "licence"));
    print_text("folder", json_object_get(model, "folder"));
}

int pm_cli_model_show(const struct pm_model_settings *s, const char *name)
{
    struct pm_error err;
    struct pm_model_manifest m;
    if (find(s, name, &m, &err))
        return complain(&err);
    json_t *model = describe(&m, true, &err);
    pm_model_manifest_free(&m);
    if (!model)
        return complain(&err);
    if (s->is_json)
        print_json(model);
    else
        print_model(model);
    json_decref(model);
    return PM_EXIT_OK;
}

/* ---- verify ---- */

static int verify_file(const char *path)
{
    struct pm_error err;
    if (pm_pack_verify(path, &err))
        return complain(&err);
    printf("%s: ok\n", path);
    return PM_EXIT_OK;
}

/* The manifest of a model folder is read, and the weights are those that its family needs. */
static int verify_manifest(const char *dir)
{
    struct pm_error err;
    struct pm_model_manifest m;
    struct pm_vlm_model *model = NULL;
    char *weights = NULL;
    int rc = pm_model_manifest_read(dir, &m, &err);
    if (!rc && !strcmp(m.family, "glm_ocr")) {
        rc = pm_model_file(&m, "weights", &weights, &err);
        if (!rc)
            rc = pm_glm_ocr_model_open(weights, &model, &err);
    }
    pm_vlm_model_close(&model);
    pm_model_manifest_free(&m);
    free(weights);
    return rc ? complain(&err) : PM_EXIT_OK;
}

/* A file, or all packed files of a folder and the folders in it. */
static int verify_path(const char *path)
{
    struct dirent **entries = NULL;
    int code = PM_EXIT_OK, found = 0;
    if (!pm_fs_is_dir(path))
        return verify_file(path);
    int n = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char *file = pm_fs_join(path, entries[i]->d_name);
        int one = PM_EXIT_OK;
        if (is_packed(entries[i]->d_name)) {
            one = verify_file(file);
            found++;
        } else if (!strcmp(entries[i]->d_name, "pagemill.json")) {
            one = verify_manifest(path);
        } else if (entries[i]->d_name[0] != '.' && pm_fs_is_dir(file)) {
            one = verify_path(file);
            found++;
        }
        code = one ? one : code;
        free(file);
        free(entries[i]);
    }
    free(entries);
    if (!found) {
        pm_cli_error("%s: no packed weights here: verify looks at what `pagemill model add` made", path);
        code = PM_EXIT_FAILED;
    }
    return code;
}

/* All models: a folder of models that holds none is no fault. */
static int verify_all(const struct pm_model_settings *s)
{
    struct pm_error err;
    size_t count = 0;
    char **dirs = NULL, *models = NULL;
    int code = PM_EXIT_OK;
    if (pm_locate_models(s->models, &models, &err) || pm_model_list(models, &dirs, &count, &err))
        code = complain(&err);
    for (size_t i = 0; i < count; i++) {
        if (verify_path(dirs[i]))
            code = PM_EXIT_FAILED;
        free(dirs[i]);
    }
    if (!code && !count) {
        pm_cli_error("there are no models in %s", models);
        code = PM_EXIT_FAILED;
    }
    free(dirs);
    free(models);
    return code;
}

int pm_cli_model_verify(const struct pm_model_settings *s, const char *what)
{
    struct pm_error err;
    struct pm_model_manifest m;
    if (!what)
        return verify_all(s);
    /* A model counts before a file or folder here that happens to have its name. */
    if (strchr(what, '/') || find(s, what, &m, &err))
        return strchr(what, '/') || pm_fs_is_dir(what) || pm_fs_is_file(what) ? verify_path(what)
                                                                              : complain(&err);
    int code = verify_path(m.dir);
    pm_model_manifest_free(&m);
    return code;
}
