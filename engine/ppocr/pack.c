#include "engine/ppocr/pack.h"

#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "engine/kernels/kernels.h"
#include "engine/pack.h"
#include "engine/safetensors.h"

static const char *const networks[] = {"det", "rec", "cls"};

static const char manifest[] =
    "{\n"
    "  \"name\": \"fast\",\n"
    "  \"family\": \"ppocr\",\n"
    "  \"region\": \"line\",\n"
    "  \"tasks\": [\"text\"],\n"
    "  \"description\": \"PP-OCRv6 small: text detector, line recogniser, line orientation\",\n"
    "  \"licence\": \"Apache-2.0\",\n"
    "  \"files\": {\n"
    "    \"detector\": \"det.pmw\",\n"
    "    \"recogniser\": \"rec.pmw\",\n"
    "    \"classifier\": \"cls.pmw\",\n"
    "    \"characters\": \"rec_characters.txt\"\n"
    "  }\n"
    "}\n";

int pm_ppocr_pack_has(const char *src_dir)
{
    int found = 1;
    for (size_t i = 0; i < 3; i++) {
        char *path = pm_xprintf("%s/%s.safetensors", src_dir, networks[i]);
        found &= pm_fs_is_file(path);
        free(path);
    }
    return found;
}

/* What becomes of one weight tensor. */
enum role { ROLE_DENSE, ROLE_DEPTHWISE, ROLE_UPSAMPLE, ROLE_VECTOR };

static enum role role_of(const char *stem, const struct pm_tensor *w)
{
    size_t n = strlen(stem);
    if (w->rank == 1)
        return ROLE_VECTOR;
    if (w->rank == 4 && !strncmp(stem, "head.up", 7))
        return ROLE_UPSAMPLE;
    if (w->rank == 4 && w->shape[1] == 1 &&
        ((n > 3 && !strcmp(stem + n - 3, ".dw")) || !strcmp(stem, "neck.local")))
        return ROLE_DEPTHWISE;
    return ROLE_DENSE;
}

/* Convolution [n, in, kh, kw] or linear [n, in] -> panels [n][kh][kw * in]: the inputs of one kernel row lie
 * together in NHWC. */
static void pack_dense(const struct pm_tensor *w, const float *values, const float *bias, float *out)
{
    int n = (int)w->shape[0];
    size_t in = (size_t)w->shape[1], kh = w->rank == 4 ? (size_t)w->shape[2] : 1;
    size_t kw = w->rank == 4 ? (size_t)w->shape[3] : 1, k_total = in * kh * kw;
    for (int o = 0; o < n; o++) {
        *pm_panel_at(out, n, k_total, o, -1) = bias ? bias[o] : 0;
        for (size_t c = 0; c < in; c++)
            for (size_t y = 0; y < kh; y++)
                for (size_t x = 0; x < kw; x++)
                    *pm_panel_at(out, n, k_total, o, (long)((y * kw + x) * in + c)) =
                        values[(((size_t)o * in + c) * kh + y) * kw + x];
    }
}

/* Transposed 2x2 convolution of stride 2 [in, n, 2, 2] -> a product with 4 n outputs in the order (row,
 * column, n). */
static void pack_upsample(const struct pm_tensor *w, const float *values, const float *bias, float *out)
{
    size_t in = (size_t)w->shape[0], n = (size_t)w->shape[1];
    for (size_t s = 0; s < 4; s++)
        for (size_t o = 0; o < n; o++) {
            int column = (int)(s * n + o);
            *pm_panel_at(out, (int)(4 * n), in, column, -1) = bias ? bias[o] : 0;
            for (size_t c = 0; c < in; c++)
                *pm_panel_at(out, (int)(4 * n), in, column, (long)c) = values[(c * n + o) * 4 + s];
        }
}

static void pack_depthwise(const struct pm_tensor *w, const float *values, const float *bias, float *out)
{
    size_t channels = (size_t)w->shape[0], taps = (size_t)(w->shape[2] * w->shape[3]);
    size_t padded = (channels + PM_DW_LANES - 1) / PM_DW_LANES * PM_DW_LANES;
    for (size_t c = 0; c < channels; c++) {
        out[c] = bias ? bias[c] : 0;
        for (size_t t = 0; t < taps; t++)
            out[(1 + t) * padded + c] = values[c * taps + t];
    }
}

/* Packs STEM.weight with STEM.bias under the name STEM. */
static int pack_layer(struct pm_pack_writer *out, const char *stem, const struct pm_tensor *w,
                      const float *values, const float *bias, struct pm_error *err)
{
    enum role role = role_of(stem, w);
    enum pm_layout layout = role == ROLE_DEPTHWISE ? PM_LAYOUT_DEPTHWISE : PM_LAYOUT_PANELS48;
    uint64_t shape[3] = {w->shape[0], w->rank == 4 ? w->shape[2] : 1,
                         w->rank == 4 ? w->shape[3] * (role == ROLE_DEPTHWISE ? 1 : w->shape[1])
                                      : w->shape[1]};
    if (role == ROLE_UPSAMPLE) {
        shape[0] = 4 * w->shape[1];
        shape[1] = 1;
        shape[2] = w->shape[0];
    }
    int64_t bytes = pm_pack_bytes(PM_DTYPE_F32, layout, 3, shape);
    if (bytes < 0 || (w->rank != 2 && w->rank != 4))
        return pm_fail(err, PM_EFORMAT, "tensor %s.weight: this shape cannot be packed", stem);
    void *packed;
    int rc = pm_alloc_array((size_t)bytes, 1, &packed, err);
    if (rc)
        return rc;
    memset(packed, 0, (size_t)bytes);
    if (role == ROLE_DEPTHWISE)
        pack_depthwise(w, values, bias, packed);
    else if (role == ROLE_UPSAMPLE)
        pack_upsample(w, values, bias, packed);
    else
        pack_dense(w, values, bias, packed);
    rc = pm_pack_writer_add(out, stem, PM_DTYPE_F32, layout, 3, shape, packed, err);
    free(packed);
    return rc;
}

static int pack_tensor(const struct pm_safetensors *in, const struct pm_tensor *t, struct pm_pack_writer *out,
                       struct pm_error *err)
{
    static const char suffix[] = ".weight";
    size_t n = strlen(t->name), cut = n - (sizeof suffix - 1);
    bool is_weight = n > sizeof suffix && !strcmp(t->name + cut, suffix);
    char *stem = is_weight ? pm_xstrndup(t->name, cut) : pm_xstrdup(t->name);
    char *bias_name = pm_xprintf("%s.bias", stem);
    const struct pm_tensor *b = is_weight ? pm_safetensors_find(in, bias_name) : NULL;
    float *values = NULL, *bias = NULL;
    int rc = 0;
    if (!is_weight) {
        /* A bias travels with its weight; a lone one belongs to nothing we know. */
        char *weight_name = pm_xprintf("%.*s.weight", (int)(n > 5 ? n - 5 : 0), t->name);
        if (!pm_safetensors_find(in, weight_name))
            rc = pm_fail(err, PM_EFORMAT, "tensor %s: unexpected in this model", t->name);
        free(weight_name);
        goto done;
    }
    rc = pm_safetensors_floats(in, t->name, -1, NULL, &values, err);
    uint64_t bias_shape[1] = {t->shape[role_of(stem, t) == ROLE_UPSAMPLE]};
    if (!rc && b)
        rc = pm_safetensors_floats(in, bias_name, 1, bias_shape, &bias, err);
    if (rc)
        goto done;
    if (role_of(stem, t) != ROLE_VECTOR)
        rc = pack_layer(out, stem, t, values, bias, err);
    else {
        rc = pm_pack_writer_add(out, t->name, PM_DTYPE_F32, PM_LAYOUT_ROWS, 1, t->shape, values, err);
        if (!rc && bias)
            rc = pm_pack_writer_add(out, bias_name, PM_DTYPE_F32, PM_LAYOUT_ROWS, 1, t->shape, bias, err);
    }
done:
    free(values);
    free(bias);
    free(bias_name);
    free(stem);
    return rc;
}

static int pack_network(const char *src_dir, const char *out_dir, const char *network, struct pm_error *err)
{
    char *from = pm_xprintf("%s/%s.safetensors", src_dir, network),
         *to = pm_xprintf("%s/%s.pmw", out_dir, network);
    char *meta = pm_xprintf("{\"family\": \"ppocr\", \"network\": \"%s\"}", network);
    struct pm_safetensors *in = NULL;
    struct pm_pack_writer *out = NULL;
    int rc = pm_safetensors_open(from, &in, err);
    if (!rc)
        rc = pm_pack_writer_open(to, &out, err);
    for (size_t i = 0; !rc && i < pm_safetensors_count(in); i++)
        rc = pack_tensor(in, pm_safetensors_at(in, i), out, err);
    if (!rc)
        rc = pm_pack_writer_finish(out, meta, err);
    pm_pack_writer_free(&out);
    pm_safetensors_free(&in);
    free(meta);
    free(to);
    free(from);
    return rc;
}

static int copy_file(const char *src_dir, const char *out_dir, const char *name, struct pm_error *err)
{
    char *from = pm_fs_join(src_dir, name), *to = pm_fs_join(out_dir, name);
    struct pm_buf content = {0};
    int rc = pm_fs_read(from, (size_t)16 << 20, &content, err);
    if (!rc)
        rc = pm_fs_write(to, content.data, content.size, true, err);
    pm_buf_free(&content);
    free(from);
    free(to);
    return rc;
}

int pm_ppocr_pack_build(const char *src_dir, const char *out_dir, struct pm_error *err)
{
    int rc = pm_fs_mkdir_p(out_dir, 0755, err);
    for (size_t i = 0; !rc && i < sizeof networks / sizeof *networks; i++)
        rc = pack_network(src_dir, out_dir, networks[i], err);
    if (!rc)
        rc = copy_file(src_dir, out_dir, "rec_characters.txt", err);
    static const char *const side_files[] = {"LICENSE", "NOTICE", "MODEL_LICENSES.md"};
    for (size_t i = 0; !rc && i < sizeof side_files / sizeof *side_files; i++) {
        char *path = pm_fs_join(src_dir, side_files[i]);
        if (pm_fs_is_file(path))
            rc = copy_file(src_dir, out_dir, side_files[i], err);
        free(path);
    }
    char *path = pm_fs_join(out_dir, "pagemill.json");
    if (!rc)
        rc = pm_fs_write(path, manifest, sizeof manifest - 1, true, err);
    free(path);
    return rc;
}
