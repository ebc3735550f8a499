#include "engine/pack.h"

#include "engine/ppocr/pack.h"

/* The model families that can be packed: has(src_dir) looks at names only, build does the work. */
static const struct {
    int (*has)(const char *src_dir);
    int (*build)(const char *src_dir, const char *out_dir, struct pm_error *err);
} families[] = {
    {pm_ppocr_pack_has, pm_ppocr_pack_build},
};

int pm_pack_build(const char *src_dir, const char *out_dir, struct pm_error *err)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (families[i].has(src_dir))
            return families[i].build(src_dir, out_dir, err);
    return pm_fail(
        err, PM_EUNSUPPORTED,
        "%s: no model that can be packed: expected det.safetensors, rec.safetensors, cls.safetensors and "
        "rec_characters.txt (ppocr)",
        src_dir);
}
