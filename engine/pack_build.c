#include "engine/pack_build.h"

#include <stddef.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/glm_ocr/glm_ocr.h"
#include "engine/ppocr/pack.h"

static int read_precision(const char *name, enum pm_precision *out, struct pm_error *err)
{
    *out = PM_PRECISION_BF16;
    return !name || pm_precision_parse(name, out)
               ? 0
               : pm_fail(err, PM_EINVAL,
                         "there is no precision \"%.40s\"; there are bf16, int8, int4 and f32", name);
}

int pm_pack_build_precision(const char *name, struct pm_error *err)
{
    enum pm_precision precision;
    return read_precision(name, &precision, err);
}

/* PP-OCR is known by the names of its files; everything else is for engine/weights to recognise. */
int pm_pack_build_name(const char *source, char **name_out, struct pm_error *err)
{
    if (pm_ppocr_pack_has(source)) {
        *name_out = pm_xstrdup("fast");
        return 0;
    }
    return pm_glm_ocr_name(source, name_out, err);
}

int pm_pack_build(const char *source, const char *out_dir, const struct pm_pack_build_options *options,
                  struct pm_error *err)
{
    static const struct pm_pack_build_options none;
    const struct pm_pack_build_options *o = options ? options : &none;
    struct pm_glm_ocr_pack_options glm = {
        .source = source, .name = o->name, .progress = o->progress, .progress_ctx = o->progress_ctx};
    struct pm_weights *weights;
    int rc = read_precision(o->precision, &glm.precision, err);
    if (rc)
        return rc;
    if (pm_ppocr_pack_has(source))
        return o->name && strcmp(o->name, "fast")
                   ? pm_fail(err, PM_EINVAL, "a PP-OCR model is always named \"fast\", not \"%.80s\"",
                             o->name)
                   : pm_ppocr_pack_build(source, out_dir, err);
    rc = pm_weights_open(source, &weights, err);
    if (rc)
        return rc;
    rc = pm_glm_ocr_pack(weights, out_dir, &glm, err);
    pm_weights_close(&weights);
    return rc;
}
