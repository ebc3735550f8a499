#include "engine/measure/work.h"

#include "engine/vlm/kv.h"

static enum pm_peak arithmetic(enum pm_precision precision)
{
    return precision == PM_PRECISION_F32    ? PM_PEAK_F32
           : precision == PM_PRECISION_BF16 ? PM_PEAK_BF16
                                            : PM_PEAK_INT8;
}

static double linear_bytes(const struct pm_linear *l)
{
    switch (l->precision) {
    case PM_PRECISION_F32:
        return (double)pm_panel_floats(l->n, (size_t)l->k) * 4;
    case PM_PRECISION_INT8:
        return (double)pm_quant_panel_bytes(PM_QUANT_INT8, l->n, (size_t)l->k);
    case PM_PRECISION_INT4:
        return (double)pm_quant_panel_bytes(PM_QUANT_INT4, l->n, (size_t)l->k);
    default:
        return (double)pm_panel_bf16_values(l->n, (size_t)l->k) * 2;
    }
}

static void add_linear(struct pm_work *w, const struct pm_linear *l, double rows)
{
    w->macs[arithmetic(l->precision)] += rows * l->n * l->k;
    w->bytes += linear_bytes(l);
}

static void add_attention(struct pm_work *w, const struct pm_vlm_model *model, double macs)
{
    w->macs[pm_precision_is_bf16(model->precision) ? PM_PEAK_BF16 : PM_PEAK_F32] += macs;
}

struct pm_work pm_work_vision(const struct pm_vlm_model *model, int patches)
{
    const struct pm_vision_config *c = &model->config.vision;
    struct pm_work w = {0};
    double rows = patches, tokens = rows / (c->merge * c->merge);
    add_linear(&w, &model->vision.patch, rows);
    for (int i = 0; i < c->depth; i++) {
        const struct pm_vision_layer *l = &model->vision.layers[i];
        add_linear(&w, &l->qkv, rows);
        add_linear(&w, &l->proj, rows);
        add_linear(&w, &l->gate_up, rows);
        add_linear(&w, &l->down, rows);
        add_attention(&w, model, 2.0 * rows * rows * c->heads * c->head_dim);
    }
    add_linear(&w, &model->vision.downsample, tokens);
    add_linear(&w, &model->vision.merger_proj, tokens);
    add_linear(&w, &model->vision.merger_gate_up, tokens);
    add_linear(&w, &model->vision.merger_down, tokens);
    return w;
}

static void add_layers(struct pm_work *w, const struct pm_vlm_model *model, double rows, double seen)
{
    const struct pm_text_config *c = &model->config.text;
    for (int i = 0; i < c->layers; i++) {
        const struct pm_text_layer *l = &model->layers[i];
        add_linear(w, &l->qkv, rows);
        add_linear(w, &l->o, rows);
        add_linear(w, &l->gate_up, rows);
        add_linear(w, &l->down, rows);
        add_attention(w, model, 2.0 * seen * c->heads * c->head_dim);
    }
}

struct pm_work pm_work_prefill(const struct pm_vlm_model *model, int tokens)
{
    struct pm_work w = {0};
    add_layers(&w, model, tokens, 0.5 * tokens * (tokens + 1.0));
    add_linear(&w, &model->head, 1);
    return w;
}

struct pm_work pm_work_step(const struct pm_vlm_model *model, int sequences, int context)
{
    const struct pm_text_config *c = &model->config.text;
    struct pm_work w = {0};
    add_layers(&w, model, sequences, (double)sequences * (context + 1));
    add_linear(&w, &model->head, sequences);
    double token_bytes =
        (double)pm_kv_page_bytes(model) / PM_KV_PAGE_TOKENS * c->layers / (c->layers + c->mtp_layers);
    w.bytes += token_bytes * sequences * (context + 1);
    return w;
}

struct pm_work pm_work_sum(const struct pm_work *a, const struct pm_work *b)
{
    struct pm_work w = {.bytes = a->bytes + b->bytes};
    for (int i = 0; i < PM_PEAKS; i++)
        w.macs[i] = a->macs[i] + b->macs[i];
    return w;
}

struct pm_work pm_work_times(const struct pm_work *work, double factor)
{
    struct pm_work w = {.bytes = work->bytes * factor};
    for (int i = 0; i < PM_PEAKS; i++)
        w.macs[i] = work->macs[i] * factor;
    return w;
}

double pm_work_compute_s(const struct pm_work *work, const struct pm_limit_figures *limits)
{
    double seconds = 0;
    for (int i = 0; i < PM_PEAKS; i++)
        seconds += 2 * work->macs[i] / 1e9 / limits->gops[i];
    return seconds;
}

double pm_work_memory_s(const struct pm_work *work, const struct pm_limit_figures *limits)
{
    return work->bytes / 1e9 / limits->read_gb_s;
}

double pm_work_floor_s(const struct pm_work *work, const struct pm_limit_figures *limits)
{
    double compute = pm_work_compute_s(work, limits), memory = pm_work_memory_s(work, limits);
    return compute > memory ? compute : memory;
}
