#include "engine/glm_ocr/folder.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/glm_ocr/manifest.h"
#include "engine/json.h"
#include "engine/text/template.h"
#include "engine/text/tokenizer.h"

#define MANIFEST "pagemill.json"

enum { SIDE_LIMIT_BYTES = 1 << 20, NAME_LIMIT = 64, NUMBER_LIMIT = 1 << 20, SPARE_BYTES = 16 << 20 };

static const char *const tasks[][2] = {
    {"text", "Text Recognition:"}, {"table", "Table Recognition:"}, {"formula", "Formula Recognition:"}};
enum { TASKS = sizeof tasks / sizeof *tasks };

/* ---- the source's own facts ---- */

/* The folder of a source that may be a file of it. */
static char *folder_of(const char *source)
{
    if (pm_fs_is_dir(source))
        return pm_xstrdup(source);
    const char *slash = strrchr(source, '/');
    return slash ? pm_xstrndup(source, slash == source ? 1 : (size_t)(slash - source)) : pm_xstrdup(".");
}

/* Its pagemill.json; *out NULL when it has none. */
static int read_own(const char *source, json_t **out, struct pm_error *err)
{
    struct pm_buf text = {0};
    *out = NULL;
    if (!source)
        return 0;
    char *folder = folder_of(source), *path = pm_fs_join(folder, MANIFEST);
    int rc = pm_fs_is_file(path) ? pm_fs_read(path, SIDE_LIMIT_BYTES, &text, err) : 0;
    if (!rc && text.size)
        rc = pm_json_object(path, (const char *)text.data, text.size, out, err);
    pm_buf_free(&text);
    free(path);
    free(folder);
    return rc;
}

static bool is_name(const char *name)
{
    if (!isalnum((unsigned char)*name) || strlen(name) > NAME_LIMIT)
        return false;
    for (const char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
            return false;
    return true;
}

static int check_name(const char *name, struct pm_error *err)
{
    return is_name(name) ? 0
                         : pm_fail(err, PM_EINVAL,
                                   "\"%.80s\" cannot be the name of a model: letters, digits, '.', '_' and "
                                   "'-', at most %d",
                                   name, NAME_LIMIT);
}

/* The last part of the path in small letters; of a weight file the stem, or its folder when it has the usual
 * name. */
static char *name_of_path(const char *source)
{
    char *real = realpath(source, NULL);
    char *path = real ? real : pm_xstrdup(source);
    char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    if (!pm_fs_is_dir(path)) {
        if (!strncmp(base, "model", 5) && slash) {
            *slash = 0;
            slash = strrchr(path, '/');
            base = slash ? slash + 1 : path;
        } else {
            char *dot = strrchr(base, '.');
            if (dot)
                *dot = 0;
        }
    }
    char *out = pm_xstrndup(base, NAME_LIMIT);
    free(path);
    for (char *p = out; *p; p++) {
        *p = (char)tolower((unsigned char)*p);
        if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
            *p = '-';
    }
    return out;
}

static char *name_of(const char *source, const json_t *own)
{
    const char *name = json_string_value(json_object_get(own, "name"));
    return name ? pm_xstrdup(name) : name_of_path(source);
}

int pm_glm_ocr_name(const char *source, char **name_out, struct pm_error *err)
{
    json_t *own = NULL;
    *name_out = NULL;
    int rc = read_own(source, &own, err);
    if (rc)
        return rc;
    char *name = name_of(source, own);
    json_decref(own);
    rc = check_name(name, err);
    if (rc)
        free(name);
    else
        *name_out = name;
    return rc;
}

/* "license: mit" of the block at the top of a model card. */
static char *licence_of(const char *source)
{
    struct pm_buf text = {0};
    char *folder = folder_of(source), *path = pm_fs_join(folder, "README.md"), *out = NULL;
    if (pm_fs_is_file(path) && !pm_fs_read(path, SIDE_LIMIT_BYTES, &text, NULL)) {
        pm_buf_text(&text, "");
        char *line, *rest = (char *)text.data;
        for (int n = 0; (line = strsep(&rest, "\n")) && !out; n++) {
            bool is_rule = !strncmp(line, "---", 3);
            if (n ? is_rule : !is_rule)
                break;
            if (!strncmp(line, "license:", 8)) {
                char *value = line + 8 + strspn(line + 8, " \t");
                value[strcspn(value, "\r")] = 0;
                out = *value && strlen(value) < 64 ? pm_xstrdup(value) : NULL;
            }
        }
    }
    pm_buf_free(&text);
    free(path);
    free(folder);
    return out;
}

/* ---- the manifest ---- */

/* Tasks with their prompts. A source says {"TASK": "PROMPT"}, or a list of tasks that have the usual ones. */
static int put_tasks(json_t *manifest, const json_t *own, struct pm_error *err)
{
    json_t *list = json_array(), *prompts = json_object();
    const json_t *wanted = json_object_get(own, "tasks");
    size_t count = json_is_object(wanted) ? json_object_size(wanted) : json_array_size(wanted);
    for (int i = 0; i < TASKS; i++) {
        const char *prompt = json_string_value(json_object_get(json_object_get(own, "prompts"), tasks[i][0]));
        bool has = !wanted;
        for (size_t k = 0; k < json_array_size(wanted); k++) {
            const char *name = json_string_value(json_array_get(wanted, k));
            has = has || (name && !strcmp(name, tasks[i][0]));
        }
        if (json_is_object(wanted)) {
            prompt = json_string_value(json_object_get(wanted, tasks[i][0]));
            has = prompt != NULL;
        }
        if (has) {
            json_array_append_new(list, json_string(tasks[i][0]));
            json_object_set_new(prompts, tasks[i][0], json_string(prompt ? prompt : tasks[i][1]));
        }
    }
    bool is_good = json_array_size(list) && (!wanted || json_array_size(list) == count);
    json_object_set_new(manifest, "tasks", list);
    json_object_set_new(manifest, "prompts", prompts);
    return is_good ? 0
                   : pm_fail(err, PM_EFORMAT,
                             "%s: \"tasks\" must be some of text, table, formula, each with its prompt",
                             MANIFEST);
}

/* Facts that the source states about itself: small numbers and short texts are taken over. */
static int put_own(json_t *manifest, const json_t *own, struct pm_error *err)
{
    static const char *const numbers[] = {"line_height_px", "width_multiple_px", "max_width_px", "max_chars",
                                          "max_tokens"};
    static const char *const texts[] = {"description", "licence", "script"};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        json_t *value = json_object_get(own, numbers[i]);
        if (value && (!json_is_integer(value) || json_integer_value(value) < 1 ||
                      json_integer_value(value) > NUMBER_LIMIT))
            return pm_fail(err, PM_EFORMAT, "%s: \"%s\" must be a whole number from 1 to %d", MANIFEST,
                           numbers[i], NUMBER_LIMIT);
        if (value)
            json_object_set(manifest, numbers[i], value);
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *value = json_object_get(own, texts[i]);
        if (value && (!json_is_string(value) || json_string_length(value) > 400))
            return pm_fail(err, PM_EFORMAT, "%s: \"%s\" must be a short text", MANIFEST, texts[i]);
        if (value)
            json_object_set(manifest, texts[i], value);
    }
    static const char *const counts[] = {"drafts", "lines_seen"};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (json_is_integer(json_object_get(own, counts[i])))
            json_object_set(manifest, counts[i], json_object_get(own, counts[i]));
    json_t *value =
        json_object_get(own, "drafts_see_pictures"); /* looked at when the manifest is read back */
    if (value)
        json_object_set(manifest, "drafts_see_pictures", value);
    return 0;
}

static int make_manifest(struct pm_glm_ocr_folder *f, const json_t *own, struct pm_error *err)
{
    const char *source = f->options->source;
    const char *region = json_string_value(json_object_get(own, "region"));
    char *name = f->options->name ? pm_xstrdup(f->options->name) : source ? name_of(source, own) : NULL;
    char *licence = source ? licence_of(source) : NULL;
    int rc = name ? check_name(name, err) : pm_fail(err, PM_EINVAL, "the model to be packed has no name");
    if (!rc && region && strcmp(region, "line") && strcmp(region, "block"))
        rc = pm_fail(err, PM_EFORMAT, "%s: \"region\" is \"line\" or \"block\", not \"%.40s\"", MANIFEST,
                     region);
    if (!rc) {
        f->manifest = json_pack("{s:s, s:s, s:s, s:s, s:i}", "name", name, "family", "glm_ocr", "region",
                                region ? region : "block", "description",
                                "GLM-OCR: text, tables and formulas of page regions", "max_tokens", 8192);
        if (licence)
            json_object_set_new(f->manifest, "licence", json_string(licence));
        rc = put_tasks(f->manifest, own, err);
        if (!rc)
            rc = put_own(f->manifest, own, err);
        json_object_set_new(f->manifest, "files",
                            json_pack("{s:s, s:s, s:s}", "weights", "model.pmw", "tokenizer",
                                      "tokenizer.json", "template", "chat_template.jinja"));
    }
    free(licence);
    free(name);
    return rc;
}

/* ---- the side files ---- */

/* A side file as text and as JSON; without it both stay NULL when it is not needed. */
static int read_json(struct pm_weights *weights, const char *file, bool is_needed, const char **text_out,
                     json_t **out, struct pm_error *err)
{
    size_t bytes;
    struct pm_error problem = {0};
    *text_out = NULL;
    int rc = pm_weights_document(weights, file, text_out, &bytes, &problem);
    if (rc == PM_ENOTFOUND && !is_needed)
        return 0;
    if (rc)
        return pm_fail(err, rc, "%s", problem.text);
    return pm_json_object(file, *text_out, bytes, out, err);
}

/* chat_template.jinja, or "chat_template" of tokenizer_config.json: a text, or a list of named ones. */
static int read_template(struct pm_weights *weights, struct pm_glm_ocr_folder *f, struct pm_error *err)
{
    size_t bytes;
    const char *text;
    struct pm_error problem = {0};
    int rc = pm_weights_document(weights, "chat_template.jinja", &f->template, &bytes, &problem);
    if (!rc)
        return 0;
    if (rc != PM_ENOTFOUND)
        return pm_fail(err, rc, "%s", problem.text);
    rc = read_json(weights, "tokenizer_config.json", false, &text, &f->template_json, err);
    if (rc)
        return rc;
    const json_t *value = json_object_get(f->template_json, "chat_template");
    f->template = json_string_value(value);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *one = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(one, "name"));
        if (name && !strcmp(name, "default"))
            f->template = json_string_value(json_object_get(one, "template"));
    }
    return f->template ? 0
                       : pm_fail(err, PM_ENOTFOUND,
                                 "the model has no chat template: neither chat_template.jinja nor "
                                 "\"chat_template\" in tokenizer_config.json");
}

int pm_glm_ocr_folder_read(struct pm_weights *weights, const struct pm_glm_ocr_pack_options *options,
                           struct pm_vlm_config *config_out, struct pm_glm_ocr_folder *out,
                           struct pm_error *err)
{
    const char *config = NULL, *generation = NULL, *preprocessor = NULL;
    json_t *own = NULL, *tokenizer = NULL;
    *out = (struct pm_glm_ocr_folder){.options = options, .weights = weights};
    int rc = read_json(weights, "config.json", true, &config, &out->config, err);
    if (!rc)
        rc = read_json(weights, "generation_config.json", false, &generation, &out->generation, err);
    if (!rc)
        rc = read_json(weights, "preprocessor_config.json", false, &preprocessor, &out->preprocessor, err);
    if (!rc)
        rc = pm_glm_ocr_config(config, generation, preprocessor, config_out, err);
    if (!rc)
        rc = read_json(weights, "tokenizer.json", true, &out->tokenizer, &tokenizer, err);
    if (!rc)
        rc = read_template(weights, out, err);
    if (!rc)
        rc = read_own(options->source, &own, err);
    if (!rc)
        rc = make_manifest(out, own, err);
    json_decref(tokenizer);
    json_decref(own);
    /* Side files are named without their folder. */
    if (rc && err && options->source && strncmp(err->text, options->source, strlen(options->source)))
        rc = pm_fail_prefix(err, "%s", options->source);
    return rc;
}

/* ---- the folder ---- */

static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? pm_xstrndup(path, slash == path ? 1 : (size_t)(slash - path)) : pm_xstrdup(".");
}

/* What the reader would stumble over is refused here already: a tokenizer or a template of another kind. */
static int check_text(const struct pm_glm_ocr_folder *f, struct pm_error *err)
{
    struct pm_tokenizer *tokenizer = NULL;
    struct pm_template *template = NULL;
    int rc = pm_tokenizer_parse("tokenizer.json", f->tokenizer, strlen(f->tokenizer), &tokenizer, err);
    if (!rc)
        rc = pm_template_parse("chat_template.jinja", f->template, strlen(f->template), &template, err);
    pm_template_free(&template);
    pm_tokenizer_free(&tokenizer);
    return rc;
}

static int write_text(const struct pm_glm_ocr_folder *f, const char *file, const char *text,
                      struct pm_error *err)
{
    char *path = pm_fs_join(f->temporary, file);
    int rc = pm_fs_write(path, text, strlen(text), true, err);
    free(path);
    return rc;
}

/* Writes the manifest and reads it as the reader will: facts of the source that make no sense are known
 * before the weights are packed. */
static int write_manifest(const struct pm_glm_ocr_folder *f, struct pm_error *err)
{
    struct pm_model_manifest model;
    struct pm_glm_ocr_manifest facts = {0};
    char *text = json_dumps(f->manifest, JSON_INDENT(2)), *lines = pm_xprintf("%s\n", text);
    int rc = write_text(f, MANIFEST, lines, err);
    free(lines);
    free(text);
    if (rc)
        return rc;
    rc = pm_model_manifest_read(f->temporary, &model, err);
    if (!rc)
        rc = pm_glm_ocr_manifest_read(&model, &facts, err);
    pm_glm_ocr_manifest_free(&facts);
    pm_model_manifest_free(&model);
    return rc;
}

static int check_space(const char *dir, uint64_t need, struct pm_error *err)
{
    struct statvfs fs;
    if (statvfs(dir, &fs))
        return pm_fail_errno(err, "cannot look at the disk of %s", dir);
    uint64_t has = (uint64_t)fs.f_bavail * fs.f_frsize;
    return need <= has
               ? 0
               : pm_fail(err, PM_ENOSPC, "%s: the packed model needs %.1f MB, the disk has %.1f MB free", dir,
                         (double)need / 1e6, (double)has / 1e6);
}

static char *make_meta(const struct pm_glm_ocr_folder *f, const struct pm_vlm_config *config,
                       const struct pm_glm_ocr_plan *plan)
{
    const char *source = f->options->source ? f->options->source : "", *slash = strrchr(source, '/');
    json_t *meta = json_object(), *from = json_object();
    const struct pm_weights_tensor *largest = NULL; /* what most of the model is stored as */
    for (size_t i = 0; i < pm_weights_count(f->weights); i++) {
        const struct pm_weights_tensor *t = pm_weights_at(f->weights, i);
        if (strstr(t->name, "mlp.down_proj.weight") && (!largest || t->rows > largest->rows))
            largest = t;
    }
    json_object_set_new(json_object_get(f->config, "text_config"), "num_nextn_predict_layers",
                        json_integer(config->text.mtp_layers));
    json_object_set_new(from, "path", json_string(slash && slash[1] ? slash + 1 : source));
    json_object_set_new(from, "format", json_string(pm_weights_format(f->weights)));
    json_object_set_new(from, "stored", json_string(largest ? largest->stored : "?"));
    json_object_set_new(from, "parameters", json_integer((json_int_t)plan->parameters));
    json_object_set_new(meta, "family", json_string("glm_ocr"));
    json_object_set_new(meta, "precision", json_string(pm_precision_name(f->options->precision)));
    json_object_set(meta, "config", f->config);
    if (f->generation)
        json_object_set(meta, "generation", f->generation);
    if (f->preprocessor)
        json_object_set(meta, "preprocessor", f->preprocessor);
    json_object_set_new(meta, "source", from);
    char *text = json_dumps(meta, JSON_COMPACT);
    json_decref(meta);
    return text;
}

int pm_glm_ocr_folder_begin(struct pm_glm_ocr_folder *f, const struct pm_vlm_config *config,
                            const struct pm_glm_ocr_plan *plan, const char *out_dir, struct pm_error *err)
{
    char *parent = parent_of(out_dir);
    const char *slash = strrchr(out_dir, '/'), *base = slash ? slash + 1 : out_dir;
    uint64_t bytes = pm_glm_ocr_plan_bytes(plan, f->options->precision) + strlen(f->tokenizer) + SPARE_BYTES;
    struct stat there;
    /* rename replaces an empty folder, and nothing else */
    int rc = !*base || (!lstat(out_dir, &there) && rmdir(out_dir))
                 ? pm_fail(err, PM_EINVAL, "%s: there is something already", out_dir)
                 : check_text(f, err);
    if (!rc)
        rc = pm_fs_mkdir_p(parent, 0755, err);
    if (!rc)
        rc = check_space(parent, bytes, err);
    if (!rc) {
        char *temporary = pm_xprintf("%s/.%s.%ld.tmp", parent, base, (long)getpid());
        rc = pm_fs_remove_tree(temporary, err);
        if (!rc && mkdir(temporary, 0755))
            rc = pm_fail_errno(err, "cannot make the folder %s", temporary);
        if (rc)
            free(temporary);
        else
            f->temporary = temporary;
    }
    if (!rc)
        rc = write_manifest(f, err);
    if (!rc) {
        f->pack_path = pm_fs_join(f->temporary, "model.pmw");
        f->meta = make_meta(f, config, plan);
    }
    free(parent);
    return rc;
}

/* Licences travel with what they license. */
static int copy_licences(const struct pm_glm_ocr_folder *f, struct pm_error *err)
{
    static const char *const names[] = {"LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE"};
    char *folder = f->options->source ? folder_of(f->options->source) : NULL;
    int rc = 0;
    for (size_t i = 0; folder && !rc && i < sizeof names / sizeof *names; i++) {
        struct pm_buf text = {0};
        char *path = pm_fs_join(folder, names[i]), *to = pm_fs_join(f->temporary, names[i]);
        if (pm_fs_is_file(path) && !(rc = pm_fs_read(path, SIDE_LIMIT_BYTES, &text, err)))
            rc = pm_fs_write(to, text.data, text.size, true, err);
        pm_buf_free(&text);
        free(to);
        free(path);
    }
    free(folder);
    return rc;
}

int pm_glm_ocr_folder_finish(struct pm_glm_ocr_folder *f, const char *out_dir, struct pm_error *err)
{
    char *parent = parent_of(out_dir);
    int rc = write_text(f, "tokenizer.json", f->tokenizer, err);
    if (!rc)
        rc = write_text(f, "chat_template.jinja", f->template, err);
    if (!rc)
        rc = copy_licences(f, err);
    if (!rc && rename(f->temporary, out_dir))
        rc = pm_fail_errno(err, "cannot rename %s to %s", f->temporary, out_dir);
    if (!rc) {
        free(f->temporary);
        f->temporary = NULL;
        rc = pm_fs_sync_dir(parent, err);
    }
    free(parent);
    return rc;
}

void pm_glm_ocr_folder_free(struct pm_glm_ocr_folder *f)
{
    if (f->temporary)
        (void)pm_fs_remove_tree(f->temporary, NULL);
    json_decref(f->config);
    json_decref(f->generation);
    json_decref(f->preprocessor);
    json_decref(f->template_json);
    json_decref(f->manifest);
    free(f->temporary);
    free(f->pack_path);
    free(f->meta);
    *f = (struct pm_glm_ocr_folder){0};
}
