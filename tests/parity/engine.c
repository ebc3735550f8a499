/* parity engine: see engine.h. This file finds the cases, opens the model in each precision and makes sure
 * that no expected tensor is forgotten. */
#include "tests/parity/engine.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "tests/tools/full_model.h"

enum { FOLDERS_MAX = 256 };

/* Of the reference's own experiments: information, not results that an engine must give. */
static const char *const information[] = {"bf16_compute.", "mtp.prompt.logits_no_zeroing",
                                          "mtp.prompt.logits_image_features"};

bool engine_is_rounded(const struct engine_case *c)
{
    return c->model && c->model->precision != PM_PRECISION_F32;
}

void engine_line(const struct engine_case *c, const char *group, int rc, const struct parity_verdict *v,
                 const struct pm_error *err)
{
    parity_print(c->counts, c->label, group, rc, v, err);
}

/* ---- one precision ---- */

static void close_model(struct engine_case *c)
{
    engine_drop_captures(c);
    if (c->kv_pool)
        pm_kv_release(c->kv_pool, &c->kv);
    pm_mtp_free(&c->mtp);
    pm_decoder_free(&c->decoder);
    pm_vision_free(&c->vision);
    pm_kv_pool_free(&c->kv_pool);
    pm_pool_free(&c->pool);
    pm_vlm_model_close(&c->model);
    for (int i = 0; i < c->image_count; i++) {
        pm_image_free(&c->images[i]);
        pm_patches_free(&c->patches[i]);
    }
    c->image_count = 0;
    free(c->ids);
    free(c->positions);
    free(c->logits);
    free(c->hidden);
    free(c->generated);
    c->ids = NULL;
    c->positions = NULL;
    c->logits = c->hidden = NULL;
    c->generated = NULL;
    c->generated_count = c->hidden_rows = 0;
    if (c->pack_dir) {
        pm_fs_remove_tree(c->pack_dir, NULL);
        free(c->pack_dir);
        c->pack_dir = NULL;
    }
}

/* A new temporary folder; NULL when there can be none. */
static char *make_folder(struct pm_error *err)
{
    const char *temporary = getenv("TMPDIR");
    char *folder = pm_xprintf("%s/parity-XXXXXX", temporary && *temporary ? temporary : "/tmp");
    if (!mkdtemp(folder)) {
        pm_fail_errno(err, "cannot make a folder like %s", folder);
        free(folder);
        return NULL;
    }
    return folder;
}

/* Packs the model into a folder of its own, which close_model removes. */
static int pack_model(struct engine_case *c, enum pm_precision precision, struct pm_error *err)
{
    char *folder = make_folder(err);
    if (!folder)
        return err->code;
    c->pack_dir = folder;
    struct pm_weights *weights = NULL;
    char *out = pm_fs_join(folder, "model");
    int rc = pm_weights_open(c->model_dir, &weights, err);
    if (rc == 0)
        rc = pm_glm_ocr_pack(
            weights, out, &(struct pm_glm_ocr_pack_options){.precision = precision, .name = "parity"}, err);
    pm_weights_close(&weights);
    char *file = pm_fs_join(out, "model.pmw");
    if (rc == 0)
        rc = pm_glm_ocr_model_open(file, &c->model, err);
    free(file);
    free(out);
    return rc;
}

static int open_model(struct engine_case *c, enum pm_precision precision, struct pm_error *err)
{
    int rc = pack_model(c, precision, err);
    if (rc == 0)
        rc = pm_pool_new(ENGINE_THREADS, &c->pool, err);
    if (rc)
        return rc;
    c->kernels = pm_kernels_get(NULL);
    c->kv_pool = pm_kv_pool_new(c->model, SIZE_MAX);
    c->vision = pm_vision_new(c->model, c->kernels, c->pool);
    c->decoder = pm_decoder_new(c->model, c->kernels, c->pool, c->kv_pool, ENGINE_ROWS);
    if (c->model->mtp)
        c->mtp = pm_mtp_new(c->model, c->kernels, c->pool, c->kv_pool, ENGINE_ROWS);
    if (!c->vision || !c->decoder || (c->model->mtp && !c->mtp))
        return pm_fail(err, PM_ENOMEM, "no memory for the scratch of the model");
    return 0;
}

/* False when the case could not be run at all. */
static bool run_precision(struct engine_case *c, enum pm_precision precision)
{
    struct pm_error err = {0};
    struct parity_verdict v = {0};
    snprintf(c->label, sizeof c->label, "%s %s", c->name, pm_precision_name(precision));
    int rc = open_model(c, precision, &err);
    if (rc == 0)
        rc = engine_prepare(c, &err);
    if (rc == 0)
        rc = engine_prefill(c, &err);
    if (rc) {
        engine_line(c, "model", rc, &v, &err);
    } else {
        engine_check_prefill(c);
        engine_check_beside_f32(c);
        engine_check_summaries(c);
        engine_check_kv8(c);
        if (precision == PM_PRECISION_F32) {
            engine_check_greedy(c);
            engine_check_mtp(c);
        }
    }
    close_model(c);
    return rc == 0;
}

/* ---- one folder ---- */

static bool is_information(const char *name)
{
    for (size_t i = 0; i < sizeof information / sizeof information[0]; i++)
        if (strncmp(name, information[i], strlen(information[i])) == 0)
            return true;
    return false;
}

/* A value that nobody compares must not look like one that is right. */
static void report_forgotten(struct engine_case *c)
{
    for (size_t i = 0; i < pm_safetensors_count(c->expected); i++) {
        const char *name = pm_safetensors_at(c->expected, i)->name;
        if (c->seen[i] || is_information(name))
            continue;
        struct parity_verdict v = {0};
        parity_fail(&v, "nothing was compared with this tensor");
        engine_line(c, name, 0, &v, NULL);
    }
}

/* The full-size model comes with no case: it is written to a temporary folder. */
static char *make_full_model(const struct engine_case *c, struct pm_error *err)
{
    char *folder = make_folder(err);
    if (!folder)
        return NULL;
    char *tokenizer = pm_xprintf("%s/../../tokenizer/large_20000/tokenizer.json", c->folder);
    if (full_model_write(folder, pm_fs_is_file(tokenizer) ? tokenizer : NULL, err)) {
        pm_fs_remove_tree(folder, NULL);
        free(folder);
        folder = NULL;
    }
    free(tokenizer);
    return folder;
}

/* The case's own model, the one of --model, or the full-size one (*is_temporary: the caller removes it). */
static char *find_model(const struct engine_case *c, const char *given, bool *is_temporary,
                        struct pm_error *err)
{
    char *own = pm_fs_join(c->folder, "model.safetensors");
    bool is_own = pm_fs_is_file(own);
    free(own);
    if (is_own)
        return pm_xstrdup(c->folder);
    if (given)
        return pm_xstrdup(given);
    const char *made_by = json_string_value(json_object_get(c->object, "model"));
    *is_temporary = made_by && strstr(made_by, "make_full_model");
    if (*is_temporary)
        return make_full_model(c, err);
    pm_fail(err, PM_ENOTFOUND, "%s: no model.safetensors; give the folder of its model with --model DIR",
            c->folder);
    return NULL;
}

static char *expected_path(const char *folder)
{
    static const char *const names[] = {"expected.safetensors", "expected_full.safetensors"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *path = pm_fs_join(folder, names[i]);
        if (pm_fs_is_file(path))
            return path;
        free(path);
    }
    return NULL;
}

static int open_case(struct engine_case *c, struct pm_error *err)
{
    char *path = pm_fs_join(c->folder, "case.json"), *expected = expected_path(c->folder);
    json_error_t problem;
    int rc = 0;
    c->object = json_load_file(path, JSON_REJECT_DUPLICATES, &problem);
    if (!json_is_object(c->object))
        rc = pm_fail(err, PM_EFORMAT, "%s: %s", path, c->object ? "not an object" : problem.text);
    else if (!expected)
        rc = pm_fail(err, PM_ENOTFOUND, "%s: no expected.safetensors", c->folder);
    else
        rc = pm_safetensors_open(expected, &c->expected, err);
    if (rc == 0) {
        c->seen = pm_xalloc(pm_safetensors_count(c->expected) * sizeof *c->seen);
        c->bf16_distance = pm_xalloc(pm_safetensors_count(c->expected) * sizeof *c->bf16_distance);
    }
    free(path);
    free(expected);
    return rc;
}

static void run_folder(const char *folder, const char *model_dir, struct parity_counts *counts)
{
    struct engine_case *c = pm_xalloc(sizeof *c);
    struct pm_error err = {0};
    struct parity_verdict v = {0};
    char *model = NULL;
    bool is_temporary = false;
    const char *slash = strrchr(folder, '/');
    c->folder = folder;
    c->counts = counts;
    snprintf(c->name, sizeof c->name, "%.60s", slash ? slash + 1 : folder);
    snprintf(c->label, sizeof c->label, "%s", c->name);
    int rc = open_case(c, &err);
    if (rc) {
        engine_line(c, "case", rc, &v, &err);
    } else if (json_object_get(c->object, "settings")) {
        engine_run_sampling(c);
        report_forgotten(c);
    } else if ((c->model_dir = model = find_model(c, model_dir, &is_temporary, &err))) {
        bool has_run = run_precision(c, PM_PRECISION_F32);
        run_precision(c, PM_PRECISION_BF16);
        run_precision(c, PM_PRECISION_INT8);
        run_precision(c, PM_PRECISION_INT4);
        free(c->exact);
        c->exact = NULL;
        snprintf(c->label, sizeof c->label, "%s", c->name);
        if (has_run)
            report_forgotten(c);
    } else {
        engine_line(c, "model", err.code, &v, &err);
    }
    if (model && is_temporary)
        pm_fs_remove_tree(model, NULL);
    free(model);
    free(c->seen);
    free(c->bf16_distance);
    pm_safetensors_free(&c->expected);
    json_decref(c->object);
    free(c);
}

/* ---- folders ---- */

static bool is_case(const char *folder)
{
    char *path = pm_fs_join(folder, "case.json");
    bool found = pm_fs_is_file(path);
    free(path);
    return found;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int run_model_path(const char *path, const char *model_dir, struct parity_counts *counts)
{
    char *trimmed = pm_xstrdup(path);
    for (size_t n = strlen(trimmed); n > 1 && trimmed[n - 1] == '/'; n--)
        trimmed[n - 1] = 0;
    char *folders[FOLDERS_MAX];
    size_t count = 0;
    if (is_case(trimmed)) {
        folders[count++] = pm_xstrdup(trimmed);
    } else {
        DIR *dir = opendir(trimmed);
        for (const struct dirent *entry; dir && (entry = readdir(dir)) && count < FOLDERS_MAX;) {
            char *folder = pm_fs_join(trimmed, entry->d_name);
            if (entry->d_name[0] != '.' && is_case(folder))
                folders[count++] = folder;
            else
                free(folder);
        }
        if (dir)
            closedir(dir);
        qsort(folders, count, sizeof folders[0], by_name);
    }
    for (size_t i = 0; i < count; i++) {
        run_folder(folders[i], model_dir, counts);
        free(folders[i]);
    }
    free(trimmed);
    return (int)count;
}

const struct parity_kind parity_engine = {.name = "engine", .run_model_path = run_model_path};
