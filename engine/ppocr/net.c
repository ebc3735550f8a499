#include "engine/ppocr/net.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/manifest.h"

int pm_scratch_need(struct pm_scratch *s, size_t floats, struct pm_error *err)
{
    if (floats <= s->floats)
        return 0;
    pm_scratch_free(s);
    /* Whole huge pages: the maps are walked from end to end many times a picture. */
    size_t bytes = (floats * sizeof(float) + ((size_t)2 << 20) - 1) & ~(((size_t)2 << 20) - 1);
    void *p = NULL;
    if (floats > SIZE_MAX / 8 || pm_alloc_array(bytes, 1, &p, NULL))
        return pm_fail(err, PM_ENOMEM, "cannot allocate %zu MB for a picture's maps", floats / (1 << 18));
    s->data = p;
    s->floats = bytes / sizeof(float);
    return 0;
}

void pm_scratch_free(struct pm_scratch *s)
{
    free(s->data);
    *s = (struct pm_scratch){0};
}

int pm_net_open(struct pm_net *net, int threads, struct pm_error *err)
{
    *net = (struct pm_net){.kernels = pm_kernels_get(NULL), .threads = threads};
    int rc = pm_pool_new(threads, &net->pool, err);
    if (!rc)
        net->work = pm_xalloc((size_t)threads * sizeof *net->work);
    return rc;
}

void pm_net_close(struct pm_net *net)
{
    pm_pool_free(&net->pool);
    for (int i = 0; net->work && i < net->threads; i++)
        pm_scratch_free(&net->work[i]);
    free(net->work);
    net->work = NULL;
}

void pm_net_tap(const struct pm_net *net, const char *stage, const float *values, int height, int width,
                int channels)
{
    if (net->tap.fn)
        net->tap.fn(net->tap.arg, stage, values, height, width, channels);
}

int pm_ppocr_path(const char *model_dir, const char *role, char **out, struct pm_error *err)
{
    struct pm_model_manifest manifest;
    *out = NULL;
    int rc = pm_model_manifest_read(model_dir, &manifest, err);
    if (!rc)
        rc = pm_model_file(&manifest, role, out, err);
    pm_model_manifest_free(&manifest); /* empty after a failed read */
    return rc;
}

int pm_ppocr_open_pack(const char *model_dir, const char *role, struct pm_pack **out, struct pm_error *err)
{
    char *path;
    *out = NULL;
    int rc = pm_ppocr_path(model_dir, role, &path, err);
    if (!rc)
        rc = pm_pack_open(path, out, err);
    free(path);
    return rc;
}

/* ---- layers ---- */

enum { NAME_BYTES = 160 };

static int find(const struct pm_pack *pack, const char *name, enum pm_layout layout, int a, int b, int c,
                const float **out, struct pm_error *err)
{
    uint64_t shape[3] = {(uint64_t)a, (uint64_t)b, (uint64_t)c};
    const void *data;
    int rc =
        pm_pack_need(pack, name, PM_DTYPE_F32, layout, layout == PM_LAYOUT_ROWS ? 1 : 3, shape, &data, err);
    *out = data;
    return rc;
}

int pm_dense_find(const struct pm_pack *pack, struct pm_dense *out, int n, int taps, int k,
                  struct pm_error *err, const char *format, ...)
{
    char name[NAME_BYTES];
    va_list ap;
    va_start(ap, format);
    vsnprintf(name, sizeof name, format, ap);
    va_end(ap);
    *out = (struct pm_dense){.n = n, .taps = taps, .k = k};
    return find(pack, name, PM_LAYOUT_PANELS48, n, taps, k, &out->panels, err);
}

int pm_depthwise_find(const struct pm_pack *pack, struct pm_depthwise *out, int channels, int kh, int kw,
                      int stride_y, int stride_x, struct pm_error *err, const char *format, ...)
{
    char name[NAME_BYTES];
    va_list ap;
    va_start(ap, format);
    vsnprintf(name, sizeof name, format, ap);
    va_end(ap);
    *out = (struct pm_depthwise){
        .channels = channels, .kh = kh, .kw = kw, .stride_y = stride_y, .stride_x = stride_x};
    return find(pack, name, PM_LAYOUT_DEPTHWISE, channels, kh, kw, &out->weights, err);
}

int pm_gate_find(const struct pm_pack *pack, struct pm_gate *out, int channels, float slope,
                 struct pm_error *err, const char *format, ...)
{
    char name[NAME_BYTES];
    va_list ap;
    va_start(ap, format);
    vsnprintf(name, sizeof name, format, ap);
    va_end(ap);
    *out = (struct pm_gate){.slope = slope, .channels = channels};
    int rc = pm_dense_find(pack, &out->fc1, channels / 4, 1, channels, err, "%s.fc1", name);
    return rc ? rc : pm_dense_find(pack, &out->fc2, channels, 1, channels / 4, err, "%s.fc2", name);
}

int pm_vector_find(const struct pm_pack *pack, const float **out, int n, struct pm_error *err,
                   const char *format, ...)
{
    char name[NAME_BYTES];
    va_list ap;
    va_start(ap, format);
    vsnprintf(name, sizeof name, format, ap);
    va_end(ap);
    return find(pack, name, PM_LAYOUT_ROWS, n, 1, 1, out, err);
}

static void rows_of_panels(const struct pm_net *net, const struct pm_dense *d, struct pm_gemm g)
{
    float *out = g.out;
    const float *residual = g.residual;
    size_t k_total = (size_t)d->taps * (size_t)d->k;
    for (int p = 0; p * PM_PANEL < d->n; p++) {
        g.panel = d->panels + (size_t)p * PM_PANEL * (k_total + 1);
        g.width = pm_panel_width(d->n, p);
        g.columns = d->n - p * PM_PANEL < PM_PANEL ? d->n - p * PM_PANEL : PM_PANEL;
        g.out = out + p * PM_PANEL;
        g.residual = residual ? residual + p * PM_PANEL : NULL;
        net->kernels->gemm(&g);
    }
}

void pm_dense_rows(const struct pm_net *net, const struct pm_dense *d, const float *x, size_t x_stride,
                   int rows, float *out, size_t out_stride, const float *residual, size_t residual_stride,
                   enum pm_act act)
{
    rows_of_panels(net, d,
                   (struct pm_gemm){.x = {x},
                                    .x_stride = x_stride,
                                    .taps = 1,
                                    .k = d->k,
                                    .rows = rows,
                                    .act = act,
                                    .out = out,
                                    .out_stride = out_stride,
                                    .residual = residual,
                                    .residual_stride = residual_stride});
}

void pm_conv_rows(const struct pm_net *net, const struct pm_dense *d, const float *const *x, size_t x_stride,
                  int rows, float *out, size_t out_stride, enum pm_act act)
{
    struct pm_gemm g = {.x_stride = x_stride,
                        .taps = d->taps,
                        .k = d->k,
                        .rows = rows,
                        .act = act,
                        .out = out,
                        .out_stride = out_stride};
    for (int t = 0; t < d->taps; t++)
        g.x[t] = x[t];
    rows_of_panels(net, d, g);
}

/* ---- maps ---- */

void pm_depthwise_pixels(const struct pm_net *net, const struct pm_depthwise *d, const struct pm_fmap *in,
                         int width_out, int begin, int end, float *out)
{
    size_t row_floats = (size_t)in->width * (size_t)in->channels;
    while (begin < end) {
        int y = begin / width_out, x = begin % width_out;
        int stop = (y + 1) * width_out < end ? width_out : end - y * width_out;
        struct pm_dw call = {.kh = d->kh,
                             .kw = d->kw,
                             .stride_x = d->stride_x,
                             .in_width = in->width,
                             .channels = in->channels,
                             .weights = d->weights,
                             .out = out,
                             .x_begin = x,
                             .x_end = stop};
        for (int ky = 0; ky < d->kh; ky++) {
            int iy = y * d->stride_y - d->kh / 2 + ky;
            call.in[ky] = iy < 0 || iy >= in->height ? NULL : in->data + (size_t)iy * row_floats;
        }
        net->kernels->depthwise(&call);
        out += (size_t)(stop - x) * (size_t)in->channels;
        begin += stop - x;
    }
}

void pm_gate_run(const struct pm_net *net, const struct pm_gate *g, const float *mean, float *gate)
{
    float hidden[512];
    PM_ASSERT(g->fc1.n <= 512);
    pm_dense_rows(net, &g->fc1, mean, (size_t)g->fc1.k, 1, hidden, (size_t)g->fc1.n, NULL, 0, PM_ACT_RELU);
    pm_dense_rows(net, &g->fc2, hidden, (size_t)g->fc2.k, 1, gate, (size_t)g->fc2.n, NULL, 0, PM_ACT_NONE);
    for (int c = 0; c < g->channels; c++) {
        float v = gate[c] * g->slope + 0.5f;
        gate[c] = v < 0 ? 0 : v > 1 ? 1 : v;
    }
}

struct mean_job {
    const struct pm_net *net;
    const struct pm_fmap *map;
    float *rows;
};

static void mean_row(void *arg, int y, int thread)
{
    (void)thread;
    struct mean_job *j = arg;
    size_t c = (size_t)j->map->channels;
    memset(j->rows + (size_t)y * c, 0, c * sizeof(float));
    j->net->kernels->sum_rows(j->map->data + (size_t)y * (size_t)j->map->width * c, j->map->width, (int)c,
                              j->rows + (size_t)y * c);
}

/* Adds row sums in order and divides. */
static void rows_to_mean(const struct pm_net *net, const float *rows, int height, int width, int channels,
                         float *mean)
{
    memset(mean, 0, (size_t)channels * sizeof(float));
    net->kernels->sum_rows(rows, height, channels, mean);
    float scale = 1.0f / ((float)height * (float)width);
    for (int c = 0; c < channels; c++)
        mean[c] *= scale;
}

void pm_fmap_mean(const struct pm_net *net, const struct pm_fmap *map, float *rows, float *mean)
{
    struct mean_job job = {net, map, rows};
    pm_pool_run(net->pool, mean_row, &job, map->height);
    rows_to_mean(net, rows, map->height, map->width, map->channels, mean);
}

/* ---- blocks ---- */

/* Pixels a job takes through expand, GELU and project: the hidden layer of a tile (2 to 4 times its input)
 * stays in the second-level cache together with the weights that it meets. */
static int tile_pixels(const struct pm_block *b)
{
    int pixels = 65536 / b->expand.n / 8 * 8;
    return pixels < 48 ? 48 : pixels > 192 ? 192 : pixels;
}

struct block_job {
    const struct pm_net *net;
    const struct pm_block *block;
    struct pm_fmap in, out;
    float *gated; /* depthwise outputs of a gated block, [pixels, channels] */
    const float *gate;
    float *row_sums;
    int tile;
};

static void block_tile(void *arg, int tile, int thread)
{
    struct block_job *j = arg;
    const struct pm_block *b = j->block;
    int pixels = j->out.height * j->out.width, begin = tile * j->tile;
    int end = begin + j->tile < pixels ? begin + j->tile : pixels, rows = end - begin;
    size_t c = (size_t)j->in.channels;
    float *y = j->net->work[thread].data, *hidden = y + (size_t)j->tile * c;
    if (j->gated) {
        y = j->gated + (size_t)begin * c;
        j->net->kernels->scale_rows(y, rows, (int)c, j->gate);
    } else
        pm_depthwise_pixels(j->net, &b->dw, &j->in, j->out.width, begin, end, y);
    pm_dense_rows(j->net, &b->expand, y, c, rows, hidden, (size_t)b->expand.n, NULL, 0, PM_ACT_GELU);
    pm_dense_rows(j->net, &b->project, hidden, (size_t)b->expand.n, rows,
                  j->out.data + (size_t)begin * (size_t)b->project.n, (size_t)b->project.n,
                  b->is_down ? NULL : y, c, PM_ACT_NONE);
}

static void gated_row(void *arg, int y, int thread)
{
    (void)thread;
    struct block_job *j = arg;
    int width = j->in.width;
    size_t c = (size_t)j->in.channels;
    float *row = j->gated + (size_t)y * (size_t)width * c, *sums = j->row_sums + (size_t)y * c;
    pm_depthwise_pixels(j->net, &j->block->dw, &j->in, width, y * width, (y + 1) * width, row);
    memset(sums, 0, c * sizeof(float));
    j->net->kernels->sum_rows(row, width, (int)c, sums);
}

int pm_net_need_work(struct pm_net *net, size_t floats, struct pm_error *err)
{
    int rc = 0;
    for (int i = 0; !rc && i < net->threads; i++)
        rc = pm_scratch_need(&net->work[i], floats, err);
    return rc;
}

int pm_block_run(struct pm_net *net, const struct pm_block *block, const struct pm_fmap *in, float *other,
                 struct pm_fmap *out, struct pm_error *err)
{
    size_t c = (size_t)in->channels;
    struct block_job job = {.net = net, .block = block, .in = *in, .tile = tile_pixels(block)};
    size_t tile_floats = (size_t)job.tile * (c + (size_t)block->expand.n);
    size_t gate_floats = ((size_t)in->height + 2) * c;
    int rc = pm_net_need_work(net, tile_floats > gate_floats ? tile_floats : gate_floats, err);
    if (rc)
        return rc;
    job.out = (struct pm_fmap){other, (in->height - 1) / block->dw.stride_y + 1,
                               (in->width - 1) / block->dw.stride_x + 1, block->project.n};
    float gate[512];
    PM_ASSERT(c <= 512);
    if (block->has_gate) {
        float mean[512];
        job.gated = other;
        job.row_sums = net->work[0].data;
        pm_pool_run(net->pool, gated_row, &job, in->height);
        rows_to_mean(net, job.row_sums, in->height, in->width, in->channels, mean);
        pm_gate_run(net, &block->gate, mean, gate);
        job.gate = gate;
        job.out.data = in->data;
    }
    int pixels = job.out.height * job.out.width;
    pm_pool_run(net->pool, block_tile, &job, (pixels + job.tile - 1) / job.tile);
    *out = job.out;
    return 0;
}
