/* Any texts as config.json, generation_config.json and preprocessor_config.json (separated by NUL bytes):
 * refused, or sizes whose products fit and whose list of tensors can be made. */
#include <stdlib.h>
#include <string.h>

#include "engine/glm_ocr/glm_ocr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct pm_vlm_config *c)
{
    struct pm_glm_ocr_tensor *list;
    size_t count;
    if (pm_glm_ocr_tensors(c, &list, &count, NULL))
        abort();
    for (size_t i = 0; i < count; i++) {
        uint64_t bytes = 4;
        if (!memchr(list[i].name, 0, sizeof list[i].name) || list[i].rank < 1)
            abort();
        for (int d = 0; d < list[i].rank; d++)
            if (!list[i].shape[d] || __builtin_mul_overflow(bytes, list[i].shape[d], &bytes) || bytes >> 62)
                abort();
    }
    free(list);
    if (c->vision.heads * c->vision.head_dim != c->vision.hidden || c->text.heads % c->text.kv_heads ||
        c->eos_count < 1 || c->eos_count > PM_VLM_EOS_MAX || c->image_id < 0 ||
        c->image_id >= c->text.vocab || c->min_pixels < 1 || c->max_pixels < c->min_pixels)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *texts[3] = {NULL, NULL, NULL};
    struct pm_vlm_config config;
    char *copy = malloc(size + 1);
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    copy[size] = 0;
    char *at = copy;
    for (int i = 0; i < 3 && at <= copy + size; i++) {
        texts[i] = at;
        at += strlen(at) + 1;
    }
    if (texts[0] && !pm_glm_ocr_config(texts[0], texts[1], texts[2], &config, NULL))
        check(&config);
    free(copy);
    return 0;
}
