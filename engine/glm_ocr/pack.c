#include "engine/glm_ocr/glm_ocr.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/glm_ocr/folder.h"
#include "engine/glm_ocr/plan.h"
#include "engine/kernels/bf16.h"
#include "engine/kernels/kernels.h"
#include "engine/pack.h"

enum { CHUNK_BYTES = 4 << 20 };

/* The state of one packing: one panel, or a few megabytes of rows, are in memory at a time. */
struct packing {
    const struct pm_weights *weights;
    struct pm_pack_writer *writer;
    const struct pm_glm_ocr_pack_options *options;
    struct pm_glm_ocr_plan plan;
    uint64_t done_bytes;
    float *rows; /* values read */
    uint8_t *packed;
    uint64_t rows_capacity, packed_capacity; /* bytes */
};

static int need(void **buffer, uint64_t *capacity, uint64_t bytes, struct pm_error *err)
{
    if (bytes <= *capacity)
        return 0;
    free(*buffer);
    *buffer = NULL;
    *capacity = 0;
    int rc = pm_alloc_array((size_t)bytes, 1, buffer, err);
    if (!rc)
        *capacity = bytes;
    return rc;
}

static void report(struct packing *p, uint64_t bytes)
{
    p->done_bytes += bytes;
    if (p->options->progress)
        p->options->progress(p->options->progress_ctx, p->done_bytes, p->plan.source_bytes);
}

/* Rows [first, first + count) of the joined sources. */
static int read_rows(struct packing *p, const struct pm_weights_tensor *const *sources, int source_count,
                     uint64_t first, uint64_t count, float *out, struct pm_error *err)
{
    for (int i = 0; i < source_count && count; i++) {
        const struct pm_weights_tensor *t = sources[i];
        if (first >= t->rows) {
            first -= t->rows;
            continue;
        }
        uint64_t take = t->rows - first < count ? t->rows - first : count;
        int rc = pm_weights_read(p->weights, t, first, take, out, err);
        if (rc)
            return rc;
        report(p, t->stored_bytes / t->rows * take);
        out += take * t->columns;
        count -= take;
        first = 0;
    }
    return 0;
}

/* The biases of all rows of a product, zeros up to padded. */
static int read_bias(struct packing *p, const struct pm_glm_ocr_item *item, uint64_t padded, float **out,
                     struct pm_error *err)
{
    void *bias;
    int rc = pm_alloc_array((size_t)padded, sizeof(float), &bias, err);
    if (rc)
        return rc;
    memset(bias, 0, (size_t)padded * sizeof(float));
    *out = bias;
    return item->biases[0] ? read_rows(p, item->biases, item->source_count, 0, item->n, bias, err) : 0;
}

/* Inputs (channel, tap) in the order (tap, channel): what the kernel of a convolution covers is one run of
 * memory where the channels of a pixel lie together. */
static void turn_row(float *row, float *turned, uint64_t k, uint64_t taps)
{
    uint64_t channels = k / taps;
    for (uint64_t c = 0; c < channels; c++)
        for (uint64_t t = 0; t < taps; t++)
            turned[t * channels + c] = row[c * taps + t];
    memcpy(row, turned, (size_t)k * sizeof *row);
}

/* f32: [1 + k][width], the bias first. */
static void fill_panel(const float *rows, const float *bias, uint64_t count, uint64_t k, uint64_t width,
                       float *out)
{
    memset(out, 0, (size_t)((1 + k) * width) * sizeof *out);
    for (uint64_t r = 0; r < count; r++) {
        out[r] = bias[r];
        for (uint64_t i = 0; i < k; i++)
            out[(1 + i) * width + r] = rows[r * k + i];
    }
}

/* Rounding to bf16 takes the largest f32 to infinity. */
static int check_short(const char *name, const uint16_t *values, uint64_t count, struct pm_error *err)
{
    uint64_t bad = 0;
    for (uint64_t i = 0; i < count; i++)
        bad += (values[i] & 0x7f80) == 0x7f80;
    return bad ? pm_fail(err, PM_EFORMAT, "tensor %s: a value is too large for bf16", name) : 0;
}

/* The panel of these rows in p->packed. */
static int fill(struct packing *p, const struct pm_glm_ocr_item *item, enum pm_layout layout,
                const float *bias, uint64_t first, uint64_t count, uint64_t *bytes_out, struct pm_error *err)
{
    const uint64_t k = item->k;
    if (layout == PM_LAYOUT_PANELS48) {
        uint64_t width = (uint64_t)pm_panel_width((int)item->n, (int)(first / PM_PANEL));
        *bytes_out = (1 + k) * width * sizeof(float);
        fill_panel(p->rows, bias + first, count, k, width, (float *)(void *)p->packed);
        return 0;
    }
    if (layout == PM_LAYOUT_PANELS64_BF16) {
        uint64_t values = pm_panel_bf16_values((int)count, (size_t)k);
        *bytes_out = values * sizeof(uint16_t);
        memset(p->packed, 0, (size_t)*bytes_out);
        for (uint64_t r = 0; r < count; r++)
            pm_panel_bf16_put((uint16_t *)(void *)p->packed, (size_t)k, (int)r, p->rows + r * k);
        return check_short(item->name, (const uint16_t *)(const void *)p->packed, values, err);
    }
    enum pm_quant_bits bits = layout == PM_LAYOUT_PANELS64_INT4 ? PM_QUANT_INT4 : PM_QUANT_INT8;
    *bytes_out = pm_quant_panel_bytes(bits, (int)count, (size_t)k);
    return pm_quant_panel_fill(bits, p->rows, (int)count, (size_t)k, p->packed)
               ? 0
               : pm_fail(err, PM_EFORMAT, "tensor %s: a value is too large for %d bits", item->name,
                         (int)bits);
}

static int write_panels(struct packing *p, const struct pm_glm_ocr_item *item, const float *bias,
                        struct pm_error *err)
{
    const enum pm_layout layout = pm_glm_ocr_layout(item, p->options->precision);
    const uint64_t shape[3] = {item->n, 1, item->k}, k = item->k;
    const uint64_t step = layout == PM_LAYOUT_PANELS48 ? PM_PANEL : PM_PANEL_BF16;
    int rc = pm_pack_writer_begin(p->writer, item->name, pm_layout_dtype(layout), layout, 3, shape, err);
    if (!rc)
        rc = need((void **)&p->rows, &p->rows_capacity, (step + 1) * k * sizeof(float), err);
    if (!rc)
        rc = need((void **)&p->packed, &p->packed_capacity, step * (k + PM_QUANT_GROUP) * sizeof(float), err);
    for (uint64_t first = 0; first < item->n && !rc; first += step) {
        uint64_t count = item->n - first < step ? item->n - first : step, bytes;
        rc = read_rows(p, item->sources, item->source_count, first, count, p->rows, err);
        if (rc)
            break;
        for (uint64_t r = 0; item->taps > 1 && r < count; r++)
            turn_row(p->rows + r * k, p->rows + step * k, k, item->taps);
        rc = fill(p, item, layout, bias, first, count, &bytes, err);
        if (!rc)
            rc = pm_pack_writer_append(p->writer, p->packed, (size_t)bytes, err);
    }
    return rc;
}

/* But in f32 the bias is a tensor of its own, of f32. */
static int write_linear(struct packing *p, const struct pm_glm_ocr_item *item, struct pm_error *err)
{
    const uint64_t padded = (item->n + PM_PANEL_BF16 - 1) / PM_PANEL_BF16 * PM_PANEL_BF16;
    float *bias = NULL;
    int rc = read_bias(p, item, padded, &bias, err);
    if (!rc)
        rc = write_panels(p, item, bias, err);
    if (!rc && item->biases[0] && pm_precision_is_bf16(p->options->precision)) {
        char *name = pm_xprintf("%.*s.bias", (int)(strlen(item->name) - strlen(".weight")), item->name);
        rc = pm_pack_writer_add(p->writer, name, PM_DTYPE_F32, PM_LAYOUT_ROWS, 1, &padded, bias, err);
        free(name);
    }
    free(bias);
    return rc;
}

static int write_rows(struct packing *p, const struct pm_glm_ocr_item *item, struct pm_error *err)
{
    const bool is_short = item->kind == PM_GLM_OCR_TABLE && pm_precision_is_bf16(p->options->precision);
    const bool is_vector = item->kind == PM_GLM_OCR_VECTOR;
    const uint64_t shape[2] = {item->n, item->k}, k = item->k;
    uint64_t step = CHUNK_BYTES / (k * sizeof(float));
    step = step ? step : 1;
    int rc = pm_pack_writer_begin(p->writer, item->name, is_short ? PM_DTYPE_BF16 : PM_DTYPE_F32,
                                  PM_LAYOUT_ROWS, is_vector ? 1 : 2, shape, err);
    if (!rc)
        rc = need((void **)&p->rows, &p->rows_capacity, step * k * sizeof(float), err);
    if (!rc)
        rc = need((void **)&p->packed, &p->packed_capacity, step * k * sizeof(uint16_t), err);
    for (uint64_t first = 0; first < item->n && !rc; first += step) {
        uint64_t count = item->n - first < step ? item->n - first : step, values = count * k;
        rc = read_rows(p, item->sources, 1, first, count, p->rows, err);
        if (rc)
            break;
        if (is_short) {
            uint16_t *out = (uint16_t *)(void *)p->packed;
            for (uint64_t i = 0; i < values; i++)
                out[i] = pm_bf16_from_f32(p->rows[i]);
            rc = check_short(item->name, out, values, err);
            if (!rc)
                rc = pm_pack_writer_append(p->writer, out, (size_t)values * sizeof *out, err);
        } else {
            rc = pm_pack_writer_append(p->writer, p->rows, (size_t)values * sizeof(float), err);
        }
    }
    return rc;
}

/* ---- the extra layer's copies ---- */

/* Do two tensors of the same shape hold the same values? */
static int compare(struct packing *p, const struct pm_weights_tensor *a, const struct pm_weights_tensor *b,
                   bool *same_out, struct pm_error *err)
{
    uint64_t step = CHUNK_BYTES / (a->columns * sizeof(float));
    step = step ? step : 1;
    int rc = need((void **)&p->rows, &p->rows_capacity, 2 * step * a->columns * sizeof(float), err);
    *same_out = true;
    for (uint64_t first = 0; first < a->rows && *same_out && !rc; first += step) {
        uint64_t count = a->rows - first < step ? a->rows - first : step;
        float *other = p->rows + step * a->columns;
        rc = pm_weights_read(p->weights, a, first, count, p->rows, err);
        if (!rc)
            rc = pm_weights_read(p->weights, b, first, count, other, err);
        if (!rc)
            *same_out = !memcmp(p->rows, other, (size_t)(count * a->columns) * sizeof(float));
    }
    return rc;
}

/* Whether an item repeats the main table or head and is left out of the file. */
static int is_repeated(struct packing *p, const struct pm_vlm_config *config,
                       const struct pm_glm_ocr_item *item, bool *repeated_out, struct pm_error *err)
{
    char *table = pm_xprintf("model.language_model.layers.%d.embed_tokens.weight", config->text.layers);
    char *head = pm_xprintf("model.language_model.layers.%d.shared_head.head.weight", config->text.layers);
    const struct pm_weights_tensor *main_one = NULL;
    *repeated_out = false;
    if (!strcmp(item->name, head))
        main_one = pm_weights_find(p->weights, "lm_head.weight");
    if (!strcmp(item->name, table) || (!strcmp(item->name, head) && !main_one))
        main_one = pm_weights_find(p->weights, "model.language_model.embed_tokens.weight");
    free(table);
    free(head);
    return main_one ? compare(p, main_one, item->sources[0], repeated_out, err) : 0;
}

static int write_all(struct packing *p, const struct pm_vlm_config *config, struct pm_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < p->plan.count && !rc; i++) {
        const struct pm_glm_ocr_item *item = &p->plan.items[i];
        bool repeated = false;
        rc = is_repeated(p, config, item, &repeated, err);
        if (rc)
            break;
        if (repeated)
            report(p, item->sources[0]->stored_bytes);
        else
            rc = item->kind == PM_GLM_OCR_LINEAR ? write_linear(p, item, err) : write_rows(p, item, err);
    }
    return rc;
}

static int write_pack(struct packing *p, const struct pm_vlm_config *config, const char *path,
                      const char *meta, struct pm_error *err)
{
    int rc = pm_pack_writer_open(path, &p->writer, err);
    if (!rc)
        rc = write_all(p, config, err);
    if (!rc)
        rc = pm_pack_writer_finish(p->writer, meta, err);
    pm_pack_writer_free(&p->writer);
    free(p->rows);
    free(p->packed);
    return rc;
}

int pm_glm_ocr_pack(struct pm_weights *weights, const char *out_dir,
                    const struct pm_glm_ocr_pack_options *options, struct pm_error *err)
{
    struct packing p = {.weights = weights, .options = options};
    struct pm_glm_ocr_folder folder = {0};
    struct pm_vlm_config config;
    size_t length = strlen(out_dir);
    while (length > 1 && out_dir[length - 1] == '/')
        length--;
    char *target = pm_xstrndup(out_dir, length);
    int rc = pm_glm_ocr_folder_read(weights, options, &config, &folder, err);
    if (!rc)
        rc = pm_glm_ocr_plan_make(weights, &config, &p.plan, err);
    if (!rc)
        rc = pm_glm_ocr_folder_begin(&folder, &config, &p.plan, target, err);
    if (!rc)
        rc = write_pack(&p, &config, folder.pack_path, folder.meta, err);
    if (!rc)
        rc = pm_glm_ocr_folder_finish(&folder, target, err);
    pm_glm_ocr_folder_free(&folder);
    pm_glm_ocr_plan_free(&p.plan);
    free(target);
    return rc;
}
