#include "engine/glm_ocr/manifest.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/vlm/mtp.h"

#define MAX_TOKENS      8192 /* as the publisher's own pipeline */
#define MAX_TOKENS_MOST (1 << 20)
#define TOKENS_OF_CHAR  4 /* at most: a byte each */
#define LINE_PX_MOST    16384

static const char *const task_names[PM_GLM_OCR_TASKS] = {"text", "table", "formula"};
static const char *const usual_prompts[PM_GLM_OCR_TASKS] = {
    "Text Recognition:", "Table Recognition:", "Formula Recognition:"};

/* A whole number in least..most; `usual` when the key is not there. */
static int want_number(const json_t *root, const char *dir, const char *key, int least, int most, int usual,
                       int *out, struct pm_error *err)
{
    const json_t *v = json_object_get(root, key);
    *out = usual;
    if (!v)
        return 0;
    if (!json_is_integer(v) || json_integer_value(v) < least || json_integer_value(v) > most)
        return pm_fail(err, PM_EFORMAT, "%s/pagemill.json: \"%s\" must be a whole number, %d to %d", dir, key,
                       least, most);
    *out = (int)json_integer_value(v);
    return 0;
}

static int want_bool(const json_t *root, const char *dir, const char *key, bool *out, struct pm_error *err)
{
    const json_t *v = json_object_get(root, key);
    *out = json_is_true(v);
    if (v && !json_is_boolean(v))
        return pm_fail(err, PM_EFORMAT, "%s/pagemill.json: \"%s\" must be true or false", dir, key);
    return 0;
}

static int read_prompts(const json_t *root, const struct pm_model_manifest *model,
                        struct pm_glm_ocr_manifest *out, struct pm_error *err)
{
    const json_t *prompts = json_object_get(root, "prompts");
    if (prompts && !json_is_object(prompts))
        return pm_fail(err, PM_EFORMAT, "%s/pagemill.json: \"prompts\" must be an object of task and text",
                       model->dir);
    for (int t = 0; t < PM_GLM_OCR_TASKS; t++) {
        const json_t *v = json_object_get(prompts, task_names[t]);
        if (v && !json_is_string(v))
            return pm_fail(err, PM_EFORMAT, "%s/pagemill.json: the prompt of task %s must be a text",
                           model->dir, task_names[t]);
        if (model->tasks & 1u << t)
            out->prompts[t] = pm_xstrdup(v ? json_string_value(v) : usual_prompts[t]);
    }
    return 0;
}

static int read_lines(const json_t *root, const char *dir, struct pm_glm_ocr_manifest *out,
                      struct pm_error *err)
{
    struct pm_line_rules *l = &out->lines;
    int chars, rc = want_number(root, dir, "line_height_px", 1, LINE_PX_MOST, 0, &l->height_px, err);
    if (!rc)
        rc = want_number(root, dir, "width_multiple_px", 1, LINE_PX_MOST, 0, &l->step_px, err);
    if (!rc)
        rc = want_number(root, dir, "max_width_px", 1, LINE_PX_MOST, 0, &l->max_width_px, err);
    if (!rc)
        rc = want_number(root, dir, "max_chars", 1, MAX_TOKENS_MOST / TOKENS_OF_CHAR, 0, &chars, err);
    if (rc)
        return rc;
    if (!l->height_px || !l->step_px || l->max_width_px < l->step_px || l->max_width_px % l->step_px)
        return pm_fail(err, PM_EFORMAT,
                       "%s/pagemill.json: a reader of lines needs \"line_height_px\", \"width_multiple_px\" "
                       "and \"max_width_px\", a multiple of it",
                       dir);
    out->has_lines = true;
    if (chars && chars * TOKENS_OF_CHAR < out->max_tokens)
        out->max_tokens = chars * TOKENS_OF_CHAR;
    return 0;
}

int pm_glm_ocr_manifest_read(const struct pm_model_manifest *model, struct pm_glm_ocr_manifest *out,
                             struct pm_error *err)
{
    *out = (struct pm_glm_ocr_manifest){0};
    json_t *root = json_loads(model->json, JSON_REJECT_DUPLICATES, NULL);
    int rc =
        want_number(root, model->dir, "max_tokens", 1, MAX_TOKENS_MOST, MAX_TOKENS, &out->max_tokens, err);
    if (!rc)
        rc = want_number(root, model->dir, "drafts", 0, PM_MTP_DRAFTS_MAX, 0, &out->drafts, err);
    if (!rc)
        rc = want_bool(root, model->dir, "drafts_see_pictures", &out->drafts_see_pictures, err);
    if (!rc)
        rc = read_prompts(root, model, out, err);
    if (!rc && model->region_kind == PM_REGION_LINE)
        rc = read_lines(root, model->dir, out, err);
    json_decref(root);
    if (rc)
        pm_glm_ocr_manifest_free(out);
    return rc;
}

void pm_glm_ocr_manifest_free(struct pm_glm_ocr_manifest *manifest)
{
    for (int t = 0; t < PM_GLM_OCR_TASKS; t++)
        free(manifest->prompts[t]);
    *manifest = (struct pm_glm_ocr_manifest){0};
}
