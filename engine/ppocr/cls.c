#include "engine/ppocr/cls.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/ppocr/crop.h"
#include "engine/ppocr/det_run.h"

enum { HEIGHT = 48, WIDTH = 192, BLOCKS = 11, WIDEST = 200, STEM = 8, LAST = 32 };

struct shape {
    int kernel, hidden, out, has_gate, stride_y;
    enum pm_act act;
};
static const struct shape shapes[BLOCKS] = {
    {3, 8, 8, 1, 2, PM_ACT_RELU},      {3, 24, 8, 0, 2, PM_ACT_RELU},     {3, 32, 8, 0, 1, PM_ACT_RELU},
    {5, 32, 16, 1, 2, PM_ACT_HSWISH},  {5, 88, 16, 1, 1, PM_ACT_HSWISH},  {5, 88, 16, 1, 1, PM_ACT_HSWISH},
    {5, 40, 16, 1, 1, PM_ACT_HSWISH},  {5, 48, 16, 1, 1, PM_ACT_HSWISH},  {5, 104, 32, 1, 2, PM_ACT_HSWISH},
    {5, 200, 32, 1, 1, PM_ACT_HSWISH}, {5, 200, 32, 1, 1, PM_ACT_HSWISH},
};

struct layer {
    struct pm_dense expand, project;
    struct pm_depthwise dw;
    struct pm_gate gate;
};

struct pm_cls {
    struct pm_pack *pack;
    struct pm_net net;
    struct pm_dense conv1, last, fc;
    struct layer layers[BLOCKS];
    struct pm_scratch maps[4], rows;
};

int pm_cls_open(const char *model_dir, int threads, struct pm_cls **out, struct pm_error *err)
{
    *out = NULL;
    struct pm_cls *c = pm_xalloc(sizeof *c);
    int rc = pm_net_open(&c->net, threads, err), in = STEM;
    if (!rc)
        rc = pm_ppocr_open_pack(model_dir, "classifier", &c->pack, err);
    if (!rc)
        rc = pm_dense_find(c->pack, &c->conv1, STEM, 3, 9, err, "conv1");
    for (int i = 0; !rc && i < BLOCKS; i++) {
        const struct shape *s = &shapes[i];
        struct layer *l = &c->layers[i];
        int n = i + 2;
        rc = pm_dense_find(c->pack, &l->expand, s->hidden, 1, in, err, "block%d.expand", n);
        if (!rc)
            rc = pm_depthwise_find(c->pack, &l->dw, s->hidden, s->kernel, s->kernel, s->stride_y, 1, err,
                                   "block%d.dw", n);
        if (!rc && s->has_gate)
            rc = pm_gate_find(c->pack, &l->gate, s->hidden, 0.2f, err, "block%d.se", n);
        if (!rc)
            rc = pm_dense_find(c->pack, &l->project, s->out, 1, s->hidden, err, "block%d.project", n);
        in = s->out;
    }
    if (!rc)
        rc = pm_dense_find(c->pack, &c->last, WIDEST, 1, LAST, err, "conv_last");
    if (!rc)
        rc = pm_dense_find(c->pack, &c->fc, 2, 1, WIDEST, err, "fc");
    for (int i = 0; !rc && i < 4; i++)
        rc = pm_scratch_need(&c->maps[i], (size_t)24 * 96 * 32, err);
    if (!rc)
        rc = pm_scratch_need(&c->rows, (size_t)HEIGHT * WIDEST, err);
    if (rc)
        pm_cls_free(&c);
    *out = c;
    return rc;
}

void pm_cls_free(struct pm_cls **cls)
{
    struct pm_cls *c = *cls;
    if (!c)
        return;
    pm_net_close(&c->net);
    for (int i = 0; i < 4; i++)
        pm_scratch_free(&c->maps[i]);
    pm_scratch_free(&c->rows);
    pm_pack_free(&c->pack);
    free(c);
    *cls = NULL;
}

void pm_cls_tap(struct pm_cls *cls, struct pm_tap tap)
{
    cls->net.tap = tap;
}

/* 48 x 192 with the line at the left and middle grey after it, through the first convolution. */
static void run_conv1(struct pm_cls *c, const struct pm_image *line, struct pm_fmap *out)
{
    float rows[3][(WIDTH + 2) * 3] = {{0}};
    *out = (struct pm_fmap){c->maps[0].data, HEIGHT / 2, WIDTH / 2, STEM};
    for (int y = 0; y < out->height; y++) {
        const float *taps[3] = {rows[0], rows[1], rows[2]};
        for (int k = 0; k < 3; k++) {
            int at = 2 * y - 1 + k;
            memset(rows[k], 0, sizeof rows[k]);
            if (at < 0)
                continue;
            const uint8_t *bytes = line->pixels + (size_t)at * line->stride_bytes;
            for (int x = 0; x < line->width_px; x++)
                for (int b = 0; b < 3; b++)
                    rows[k][3 * (x + 1) + b] =
                        (float)bytes[line->channels == 3 ? 3 * x + b : x] * (2.0f / 255.0f) - 1.0f;
        }
        pm_conv_rows(&c->net, &c->conv1, taps, 6, out->width,
                     out->data + (size_t)y * (size_t)out->width * STEM, STEM, PM_ACT_HSWISH);
    }
}

static void run_block(struct pm_cls *c, int index, const struct pm_fmap *in, struct pm_fmap *out)
{
    const struct shape *s = &shapes[index];
    const struct layer *l = &c->layers[index];
    struct pm_fmap wide = {c->maps[2].data, in->height, in->width, s->hidden};
    int height = (in->height - 1) / s->stride_y + 1, pixels = height * in->width;
    struct pm_fmap deep = {c->maps[3].data, height, in->width, s->hidden};
    *out = (struct pm_fmap){in->data == c->maps[0].data ? c->maps[1].data : c->maps[0].data, height,
                            in->width, s->out};
    pm_dense_rows(&c->net, &l->expand, in->data, (size_t)in->channels, in->height * in->width, wide.data,
                  (size_t)s->hidden, NULL, 0, s->act);
    pm_depthwise_pixels(&c->net, &l->dw, &wide, in->width, 0, pixels, deep.data);
    c->net.kernels->activate(deep.data, (size_t)pixels * (size_t)s->hidden, s->act);
    if (s->has_gate) {
        float mean[WIDEST], gate[WIDEST];
        pm_fmap_mean(&c->net, &deep, c->rows.data, mean);
        pm_gate_run(&c->net, &l->gate, mean, gate);
        c->net.kernels->scale_rows(deep.data, pixels, s->hidden, gate);
    }
    bool same = in->channels == s->out && in->height == height;
    pm_dense_rows(&c->net, &l->project, deep.data, (size_t)s->hidden, pixels, out->data, (size_t)s->out,
                  same ? in->data : NULL, (size_t)s->out, PM_ACT_NONE);
}

/* conv_last, max pool 2x2 of stride 2, mean, fc, softmax over two. */
static float run_tail(struct pm_cls *c, const struct pm_fmap *in)
{
    float mean[WIDEST] = {0}, logits[2];
    float *wide = c->maps[2].data;
    int pixels = in->height * in->width, columns = in->width / 2;
    pm_dense_rows(&c->net, &c->last, in->data, LAST, pixels, wide, WIDEST, NULL, 0, PM_ACT_HSWISH);
    for (int x = 0; x < columns; x++) {
        const float *a = wide + (size_t)(2 * x) * WIDEST, *b = a + (size_t)in->width * WIDEST;
        for (int k = 0; k < WIDEST; k++)
            mean[k] += fmaxf(fmaxf(a[k], a[k + WIDEST]), fmaxf(b[k], b[k + WIDEST]));
    }
    for (int k = 0; k < WIDEST; k++)
        mean[k] /= (float)columns;
    pm_dense_rows(&c->net, &c->fc, mean, WIDEST, 1, logits, 2, NULL, 0, PM_ACT_NONE);
    return 1.0f / (1.0f + expf(logits[0] - logits[1]));
}

int pm_cls_run(struct pm_cls *cls, const struct pm_image *line, float *turned_out, struct pm_error *err)
{
    *turned_out = 0;
    if (line->width_px < 1 || line->height_px < 1 || (line->channels != 1 && line->channels != 3))
        return pm_fail(err, PM_EINVAL, "a line picture of %d x %d x %d for the orientation classifier",
                       line->width_px, line->height_px, line->channels);
    int64_t natural = ((int64_t)HEIGHT * line->width_px + line->height_px - 1) / line->height_px;
    int width = natural > WIDTH ? WIDTH : (int)natural;
    struct pm_image resized = {0};
    bool fits = line->width_px == width && line->height_px == HEIGHT;
    int rc = fits ? 0 : pm_resize_bilinear(line, width, HEIGHT, &resized, err);
    if (rc)
        return rc;
    struct pm_fmap map, next;
    run_conv1(cls, fits ? line : &resized, &map);
    pm_image_free(&resized);
    pm_net_tap(&cls->net, "conv1", map.data, map.height, map.width, map.channels);
    for (int i = 0; i < BLOCKS; i++) {
        run_block(cls, i, &map, &next);
        map = next;
        char name[16];
        snprintf(name, sizeof name, "block%d", i + 2);
        pm_net_tap(&cls->net, name, map.data, map.height, map.width, map.channels);
    }
    *turned_out = run_tail(cls, &map);
    return 0;
}
