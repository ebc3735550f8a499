/* The model folder around the packed weights: manifest, side files, meta text; made under a temporary name.
 *
 * Ownership: pm_glm_ocr_folder_free, which also removes an unfinished folder. Threads: plain functions.
 * Errors: PM_EFORMAT and PM_ENOTFOUND with the file, PM_ENOSPC with the numbers, PM_EINVAL for names. */
#ifndef PM_ENGINE_GLM_OCR_FOLDER_H
#define PM_ENGINE_GLM_OCR_FOLDER_H

#include <jansson.h>

#include "engine/glm_ocr/plan.h"

struct pm_glm_ocr_folder {
    const char *tokenizer, *template; /* texts that the weights own, or template_json does */
    json_t *config, *generation, *preprocessor, *template_json;
    json_t *manifest; /* pagemill.json to be */
    const struct pm_glm_ocr_pack_options *options;
    const struct pm_weights *weights;
    char *temporary; /* NULL once renamed */
    char *pack_path; /* model.pmw in it */
    char *meta;
};

/* Reads and checks the side files of the source. */
int pm_glm_ocr_folder_read(struct pm_weights *weights, const struct pm_glm_ocr_pack_options *options,
                           struct pm_vlm_config *config_out, struct pm_glm_ocr_folder *out,
                           struct pm_error *err);
/* Looks at the space of the disk, makes the temporary folder beside out_dir, its manifest and the meta text.
 */
int pm_glm_ocr_folder_begin(struct pm_glm_ocr_folder *folder, const struct pm_vlm_config *config,
                            const struct pm_glm_ocr_plan *plan, const char *out_dir, struct pm_error *err);
/* Writes the other side files, syncs, renames. */
int pm_glm_ocr_folder_finish(struct pm_glm_ocr_folder *folder, const char *out_dir, struct pm_error *err);
void pm_glm_ocr_folder_free(struct pm_glm_ocr_folder *folder);

#endif
