/* GLM-OCR (model_type glm_ocr): its config.json, its tensors, its packed file, its reader.
 *
 * A model folder made by pm_glm_ocr_pack holds: pagemill.json (manifest), model.pmw (weights; its meta text
 * is
 * {"family", "precision", "config": {...}, "generation": {...}, "preprocessor": {...}, "source": {...}}),
 * tokenizer.json, chat_template.jinja. It is complete by itself: the source can be removed.
 *
 * Ownership and threads: plain functions. Errors: PM_EFORMAT with file, key or tensor, and reason;
 * PM_EUNSUPPORTED for another model_type. */
#ifndef PM_ENGINE_GLM_OCR_GLM_OCR_H
#define PM_ENGINE_GLM_OCR_GLM_OCR_H

#include "engine/reader.h"
#include "engine/vlm/model.h"
#include "engine/weights/weights.h"

/* config_json, generation_json and preprocessor_json as the checkpoint has them (the last two may be NULL).
 * Class defaults of the reference are never assumed for sizes: a missing size is an error. Without a
 * preprocessor, pictures are treated as the published checkpoint asks. */
int pm_glm_ocr_config(const char *config_json, const char *generation_json, const char *preprocessor_json,
                      struct pm_vlm_config *out, struct pm_error *err);

/* A tensor that the checkpoint must have. */
struct pm_glm_ocr_tensor {
    char name[128];
    int rank;
    uint64_t shape[6];
};
/* All of them, in a fixed order (526 for the published sizes); free(). */
int pm_glm_ocr_tensors(const struct pm_vlm_config *config, struct pm_glm_ocr_tensor **out, size_t *count_out,
                       struct pm_error *err);

struct pm_glm_ocr_pack_options {
    enum pm_precision precision;
    const char *source; /* the path that weights were opened with: its pagemill.json, licence and name */
    const char *name;   /* reader name; NULL: pm_glm_ocr_name of source */
    void (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes); /* NULL */
    void *progress_ctx;
};
/* Reads every tensor of weights once, checks names, shapes and values, writes the model folder out_dir (made
 * under a temporary name and renamed when complete; PM_EINVAL when there is such a folder). PM_ENOSPC, with
 * the numbers, before anything is written. */
int pm_glm_ocr_pack(struct pm_weights *weights, const char *out_dir,
                    const struct pm_glm_ocr_pack_options *options, struct pm_error *err);

/* The name that a source asks for: that of its pagemill.json, else its file or folder in small letters.
 * Caller frees. */
int pm_glm_ocr_name(const char *source, char **name_out, struct pm_error *err);

/* Opens a packed file that pm_glm_ocr_pack made. */
int pm_glm_ocr_model_open(const char *path, struct pm_vlm_model **out, struct pm_error *err);

extern const struct pm_reader_family pm_glm_ocr_reader;

#endif
