#include "engine/kernels/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernels/bf16.h"

/* The named table, or the best one for NULL. */
static const struct pm_kernels *available(const char *name)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    int has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                     __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    int has_vnni = has_avx512 && __builtin_cpu_supports("avx512vnni");
    int has_bf16 = has_vnni && __builtin_cpu_supports("avx512bf16");
    if (has_bf16 && (!name || !strcmp(name, "avx512bf16")))
        return &pm_kernels_avx512bf16;
    if (has_vnni && (!name || !strcmp(name, "avx512vnni")))
        return &pm_kernels_avx512vnni;
    if (has_avx512 && (!name || !strcmp(name, "avx512")))
        return &pm_kernels_avx512;
    if (has_avx2 && (!name || !strcmp(name, "avx2")))
        return &pm_kernels_avx2;
#endif
    return !name || !strcmp(name, "plain") ? &pm_kernels_plain : NULL;
}

static const char *wanted(void)
{
    const char *name = getenv("PAGEMILL_ISA");
    return name && *name ? name : NULL;
}

const struct pm_kernels *pm_kernels_get(const char *name)
{
    if (name)
        return available(name);
    const struct pm_kernels *kernels = available(wanted());
    return kernels ? kernels : available(NULL);
}

const char *pm_kernels_missing(void)
{
    const char *name = wanted();
    return name && !available(name) ? name : NULL;
}

int pm_panel_width(int n, int panel)
{
    int rest = n - panel * PM_PANEL;
    if (rest > 32)
        return PM_PANEL;
    return (rest + 7) / 8 * 8;
}

size_t pm_panel_floats(int n, size_t k)
{
    int last = (n - 1) / PM_PANEL;
    return ((size_t)last * PM_PANEL + (size_t)pm_panel_width(n, last)) * (k + 1);
}

float *pm_panel_at(float *panels, int n, size_t k_total, int output, long k)
{
    int p = output / PM_PANEL;
    float *panel = panels + (size_t)p * PM_PANEL * (k_total + 1);
    return panel + (size_t)(k + 1) * (size_t)pm_panel_width(n, p) + output % PM_PANEL;
}

size_t pm_panel_bf16_values(int n, size_t k_total)
{
    return ((size_t)n + PM_PANEL_BF16 - 1) / PM_PANEL_BF16 * ((k_total + 1) / 2) * PM_PANEL_BF16 * 2;
}

uint16_t *pm_panel_bf16_at(uint16_t *panels, size_t k_total, int output, size_t k)
{
    size_t pairs = (k_total + 1) / 2, panel = (size_t)(output / PM_PANEL_BF16);
    return panels + ((panel * pairs + k / 2) * PM_PANEL_BF16 + (size_t)(output % PM_PANEL_BF16)) * 2 + k % 2;
}

void pm_panel_bf16_put(uint16_t *panels, size_t k_total, int output, const float *row)
{
    uint16_t *at = pm_panel_bf16_at(panels, k_total, output, 0);
    for (size_t k = 0; k < k_total; k++)
        at[k / 2 * PM_PANEL_BF16 * 2 + k % 2] = pm_bf16_from_f32(row[k]);
}

void pm_softmax_begin(struct pm_softmax_lanes *lanes, int rows)
{
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < 16; i++) {
            lanes[r].max[i] = -INFINITY;
            lanes[r].sum[i] = 0;
            lanes[r].index[i] = 0;
        }
}

void pm_softmax_end(const struct pm_softmax_lanes *lanes, int32_t *index_out, float *probability_out)
{
    int best = 0;
    for (int i = 1; i < 16; i++)
        if (lanes->max[i] > lanes->max[best] ||
            (lanes->max[i] == lanes->max[best] && lanes->index[i] < lanes->index[best]))
            best = i;
    double sum = 0;
    for (int i = 0; i < 16; i++)
        if (lanes->sum[i] > 0)
            sum += (double)lanes->sum[i] * exp((double)lanes->max[i] - (double)lanes->max[best]);
    *index_out = lanes->index[best];
    *probability_out = sum > 0 ? (float)(1.0 / sum) : 0.0f;
}
