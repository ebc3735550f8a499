/* What pagemill.json says to readers of this family, beside the keys that all families have
 * (engine/manifest.h):
 *
 *   "files": {"weights": "model.pmw", "tokenizer": "tokenizer.json", "template": "chat_template.jinja"},
 *   "prompts": {"text": "Text Recognition:", "table": ..., "formula": ...},   of the model's tasks
 *   "max_tokens": 8192,       most tokens of one region's text
 *   "drafts": 0,              tokens that the extra layer guesses ahead
 *   "drafts_see_pictures": false,   the extra layer has learnt with the tower's tokens at a picture's
 *                             places, not, as in the publisher's model, with the placeholder's row
 *   readers of lines: "line_height_px", "width_multiple_px", "max_width_px", and "max_chars" of one line
 *
 * Ownership: pm_glm_ocr_manifest_free. Threads: plain functions. Errors: PM_EFORMAT with the key. */
#ifndef PM_ENGINE_GLM_OCR_MANIFEST_H
#define PM_ENGINE_GLM_OCR_MANIFEST_H

#include "engine/glm_ocr/lines.h"
#include "engine/manifest.h"

enum { PM_GLM_OCR_TASKS = PM_TASK_FORMULA + 1 };

struct pm_glm_ocr_manifest {
    char *prompts[PM_GLM_OCR_TASKS]; /* NULL: not a task of this model */
    int max_tokens, drafts;
    bool drafts_see_pictures, has_lines;
    struct pm_line_rules lines;
};

/* model: of the folder; its json is parsed once more for this family's keys. */
int pm_glm_ocr_manifest_read(const struct pm_model_manifest *model, struct pm_glm_ocr_manifest *out,
                             struct pm_error *err);
void pm_glm_ocr_manifest_free(struct pm_glm_ocr_manifest *manifest);

#endif
