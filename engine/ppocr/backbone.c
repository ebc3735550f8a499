/* The backbone that detector and recogniser share: finding its layers, and the stem. */
#include "engine/ppocr/net.h"

#include <stdio.h>
#include <string.h>

static int find_block(const struct pm_pack *pack, struct pm_block *b, const char *name, int in, int out,
                      int stride_y, int stride_x, struct pm_error *err)
{
    int rc = pm_depthwise_find(pack, &b->dw, in, 3, 3, stride_y, stride_x, err, "%s.dw", name);
    if (!rc)
        rc = pm_dense_find(pack, &b->expand, 2 * in, 1, in, err, "%s.expand", name);
    if (!rc)
        rc = pm_dense_find(pack, &b->project, out, 1, 2 * in, err, "%s.project", name);
    if (!rc && b->has_gate)
        rc = pm_gate_find(pack, &b->gate, in, 0.16666670f, err, "%s.se", name);
    return rc;
}

int pm_backbone_find(const struct pm_pack *pack, struct pm_backbone *out, int stem_channels, int stage_count,
                     const int *blocks_per_stage, int down_stride_x, struct pm_error *err)
{
    int s = stem_channels;
    *out = (struct pm_backbone){.stem_channels = s, .stage_count = stage_count};
    int rc = pm_dense_find(pack, &out->conv1, s, 3, 9, err, "backbone.stem.conv1");
    if (!rc)
        rc = pm_dense_find(pack, &out->conv2a, s / 2, 2, 2 * s, err, "backbone.stem.conv2a");
    if (!rc)
        rc = pm_dense_find(pack, &out->conv2b, s, 2, s, err, "backbone.stem.conv2b");
    if (!rc)
        rc = pm_dense_find(pack, &out->conv3, s, 3, 6 * s, err, "backbone.stem.conv3");
    if (!rc)
        rc = pm_dense_find(pack, &out->conv4, 2 * s, 1, s, err, "backbone.stem.conv4");
    int channels = 2 * s;
    for (int i = 0; !rc && i < stage_count; i++) {
        struct pm_stage *st = &out->stages[i];
        char name[64];
        if (i) {
            struct pm_block *b = &st->blocks[st->count++];
            b->is_down = true;
            snprintf(name, sizeof name, "backbone.stage%d.down", i + 1);
            rc = find_block(pack, b, name, channels, 2 * channels, 2, down_stride_x, err);
            channels *= 2;
        }
        st->channels = channels;
        for (int k = 0; !rc && k < blocks_per_stage[i]; k++) {
            struct pm_block *b = &st->blocks[st->count++];
            /* Squeeze and excitation in every second block; stage 1 has it only in its first. */
            b->has_gate = k % 2 == 0 && (i > 0 || k == 0);
            snprintf(name, sizeof name, "backbone.stage%d.block%d", i + 1, k + 1);
            rc = find_block(pack, b, name, channels, channels, 1, 1, err);
        }
    }
    return rc;
}

/* ---- stem ----
 * Row by row, each layer a ring of the last few rows, so that the full-width maps (the largest of the
 * network) never leave the cache. A job computes a band of output rows with rings of its own; the few rows at
 * a band's upper edge are computed by both neighbours. */

enum { RING = 4 };

struct rows { /* ring of rows, each pad_left + width + 1 pixels; the border pixels stay zero */
    float *data;
    size_t row_floats;
    int channels, pad_left, next; /* next: number of the row to be made next */
};

struct stem_job {
    struct pm_net *net;
    const struct pm_backbone *b;
    const struct pm_image *image;
    int input_width;
    struct pm_fmap out;
    int half_height, half_width; /* of conv1's output */
    int band;                    /* output rows a job */
    float *conv1_copy;           /* for a tap, or NULL */
};

struct stem {
    const struct stem_job *job;
    struct rows in, x, a, cat;
    float *zero_row, *last; /* a row of zeros; one row of conv3's output */
};

static size_t ring_floats(int width, int pad_left, int channels)
{
    return ((size_t)(pad_left + width + 1) * (size_t)channels + 15) / 16 * 16;
}

static void take(float **from, struct rows *r, int width, int pad_left, int channels, int first)
{
    *r = (struct rows){*from, ring_floats(width, pad_left, channels), channels, pad_left, first};
    *from += RING * r->row_floats;
}

static float *row_at(const struct rows *r, int y)
{
    return r->data + (size_t)(y & (RING - 1)) * r->row_floats;
}

/* First pixel of row y (after the left border). */
static float *pixels_at(const struct rows *r, int y)
{
    return row_at(r, y) + r->pad_left * r->channels;
}

static void need_in(struct stem *s, int y)
{
    const struct pm_image *image = s->job->image;
    for (; s->in.next <= y; s->in.next++) {
        float *row = pixels_at(&s->in, s->in.next);
        if (s->in.next < 0 || s->in.next >= image->height_px)
            continue;
        const uint8_t *bytes = image->pixels + (size_t)s->in.next * image->stride_bytes;
        if (image->channels == 3)
            s->job->net->kernels->normalise(bytes, (size_t)image->width_px * 3, row);
        else
            for (int x = 0; x < image->width_px; x++)
                row[3 * x] = row[3 * x + 1] = row[3 * x + 2] = (float)bytes[x] * (2.0f / 255.0f) - 1.0f;
    }
}

static const float *in_row(const struct stem *s, int y)
{
    return y < 0 || y >= s->job->image->height_px ? s->zero_row : row_at(&s->in, y);
}

static void need_x(struct stem *s, int y)
{
    const struct stem_job *j = s->job;
    for (; s->x.next <= y && s->x.next < j->half_height; s->x.next++) {
        int at = s->x.next;
        need_in(s, 2 * at + 1);
        const float *rows[3] = {in_row(s, 2 * at - 1), in_row(s, 2 * at), in_row(s, 2 * at + 1)};
        float *out = pixels_at(&s->x, at);
        pm_conv_rows(j->net, &j->b->conv1, rows, 6, j->half_width, out, (size_t)s->x.channels, PM_ACT_RELU);
        if (j->conv1_copy)
            memcpy(j->conv1_copy + (size_t)at * (size_t)j->half_width * (size_t)s->x.channels, out,
                   (size_t)j->half_width * (size_t)s->x.channels * sizeof(float));
    }
}

static const float *x_row(const struct stem *s, int y)
{
    return y >= s->job->half_height ? s->zero_row : row_at(&s->x, y);
}

static void need_a(struct stem *s, int y)
{
    const struct stem_job *j = s->job;
    for (; s->a.next <= y && s->a.next < j->half_height; s->a.next++) {
        int at = s->a.next;
        need_x(s, at + 1);
        const float *rows[2] = {x_row(s, at), x_row(s, at + 1)};
        pm_conv_rows(j->net, &j->b->conv2a, rows, (size_t)s->x.channels, j->half_width, row_at(&s->a, at),
                     (size_t)s->a.channels, PM_ACT_RELU);
    }
}

static void need_cat(struct stem *s, int y)
{
    const struct stem_job *j = s->job;
    for (; s->cat.next <= y && s->cat.next < j->half_height; s->cat.next++) {
        int at = s->cat.next;
        need_a(s, at + 1);
        float *out = pixels_at(&s->cat, at);
        size_t stride = (size_t)s->cat.channels;
        j->net->kernels->max_2x2(x_row(s, at), x_row(s, at + 1), j->half_width, s->x.channels, out, stride);
        const float *rows[2] = {row_at(&s->a, at),
                                at + 1 < j->half_height ? row_at(&s->a, at + 1) : s->zero_row};
        pm_conv_rows(j->net, &j->b->conv2b, rows, (size_t)s->a.channels, j->half_width, out + s->x.channels,
                     stride, PM_ACT_RELU);
    }
}

static const float *cat_row(const struct stem *s, int y)
{
    return y < 0 || y >= s->job->half_height ? s->zero_row : row_at(&s->cat, y);
}

static size_t stem_floats(const struct stem_job *j)
{
    int c = j->b->stem_channels, w = j->half_width;
    return RING * (ring_floats(j->input_width + 1, 1, 3) + ring_floats(w, 0, c) + ring_floats(w, 0, c / 2) +
                   ring_floats(w, 1, 2 * c)) +
           ring_floats(w, 1, 2 * c) + ring_floats(j->out.width, 0, c);
}

static void stem_band(void *arg, int band, int thread)
{
    const struct stem_job *j = arg;
    int c = j->b->stem_channels, w = j->half_width, from = band * j->band;
    int to = from + j->band < j->out.height ? from + j->band : j->out.height;
    int first = 2 * from - 1 > 0 ? 2 * from - 1 : 0;
    float *free_space = j->net->work[thread].data;
    struct stem s = {.job = j};
    memset(free_space, 0, stem_floats(j) * sizeof(float));
    take(&free_space, &s.in, j->input_width + 1, 1, 3, 2 * first - 1);
    take(&free_space, &s.x, w, 0, c, first);
    take(&free_space, &s.a, w, 0, c / 2, first);
    take(&free_space, &s.cat, w, 1, 2 * c, first);
    s.zero_row = free_space;
    s.last = free_space + ring_floats(w, 1, 2 * c);
    for (int y = from; y < to; y++) {
        need_cat(&s, 2 * y + 1);
        const float *rows[3] = {cat_row(&s, 2 * y - 1), cat_row(&s, 2 * y), cat_row(&s, 2 * y + 1)};
        pm_conv_rows(j->net, &j->b->conv3, rows, (size_t)(4 * c), j->out.width, s.last, (size_t)c,
                     PM_ACT_RELU);
        pm_dense_rows(j->net, &j->b->conv4, s.last, (size_t)c, j->out.width,
                      j->out.data + (size_t)y * (size_t)j->out.width * (size_t)(2 * c), (size_t)(2 * c), NULL,
                      0, PM_ACT_RELU);
    }
}

int pm_stem_run(struct pm_net *net, const struct pm_backbone *b, const struct pm_image *image,
                int input_width, struct pm_fmap *out, struct pm_error *err)
{
    struct stem_job j = {.net = net, .b = b, .image = image, .input_width = input_width};
    j.half_height = (image->height_px + 1) / 2;
    j.half_width = (input_width + 1) / 2;
    out->height = (j.half_height + 1) / 2;
    out->width = (j.half_width + 1) / 2;
    out->channels = 2 * b->stem_channels;
    j.out = *out;
    j.band = (out->height + net->threads - 1) / net->threads;
    struct pm_scratch copy = {0};
    int rc = pm_net_need_work(net, stem_floats(&j), err);
    if (!rc && net->tap.fn && net->tap.all)
        rc = pm_scratch_need(&copy, pm_fmap_floats(j.half_height, j.half_width, b->stem_channels), err);
    if (rc)
        return rc;
    j.conv1_copy = copy.data;
    pm_pool_run(net->pool, stem_band, &j, (out->height + j.band - 1) / j.band);
    if (copy.data)
        pm_net_tap(net, "backbone.stem.conv1", copy.data, j.half_height, j.half_width, b->stem_channels);
    pm_scratch_free(&copy);
    pm_net_tap(net, "backbone.stem", out->data, out->height, out->width, out->channels);
    return 0;
}
